"""A real study of a tiny classifier, for the tests that look into its answers."""

from __future__ import annotations

import pytest

from tests.classified import classified_study
from workbench.recipes import RTN


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with classified_study(tmp_path_factory.mktemp("classified") / "study") as study:
        study.sweep([RTN(2, group_size=8), RTN(4, group_size=8)])
        yield study


@pytest.fixture(scope="module")
def small(study):
    return next(run for run in study.runs if "2-bit" in run.label)

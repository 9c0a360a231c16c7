"""Every test of the application begins without a workbench."""

from __future__ import annotations

import pytest

from workbench.app.workbench import _OPEN


@pytest.fixture(autouse=True)
def no_workbench():
    yield
    for app in list(_OPEN.values()):
        app.end()

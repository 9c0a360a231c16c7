"""What recipes need, and the ids of runs that follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from workbench.compression.needs import RecipeNeeds
from workbench.recipes import Step
from workbench.recipes.recipe import Recipe
from workbench.storage.store import Store
from workbench.study.running.engine import run_id, table_path

TUNED, PRUNED = wb.FineTuning(epochs=1), wb.MagnitudePruning(0.5)
DISTILLED = wb.Distillation(epochs=1)


def needs(*steps: Step) -> RecipeNeeds:
    return RecipeNeeds.of(Recipe.of(steps))


def test_the_dense_baseline_needs_nothing():
    none = Recipe()
    assert needs() == RecipeNeeds(none, False, False, None, none, None, {})


def test_calibration_data():
    assert not needs(PRUNED, wb.RTN(4), wb.Cast()).calibration
    assert needs(wb.AWQ(4)).calibration
    assert needs(wb.DepthPruning(1)).calibration
    assert needs(wb.AWQ(4, backend="gptqmodel")).calibration
    assert needs(TUNED, wb.GPTQ(4)).calibration


def test_statistics_of_the_base_model_are_read_only_before_it_changes():
    assert needs(wb.GPTQ(4)).base_statistics
    assert needs(wb.WidthPruning(0.5), wb.GPTQ(4)).base_statistics
    assert needs(wb.Cast(), wb.GPTQ(4)).base_statistics
    assert not needs(wb.DepthPruning(1)).base_statistics, "it reads tokens, not statistics"
    assert not needs(wb.DepthPruning(1), wb.GPTQ(4)).base_statistics
    assert not needs(TUNED, wb.GPTQ(4)).base_statistics
    assert not needs(PRUNED).base_statistics
    assert not needs(wb.GPTQ(4, backend="gptqmodel")).base_statistics


def test_prefixes():
    recipe = Recipe.of([TUNED, PRUNED, DISTILLED, wb.GPTQ(4)])
    assert RecipeNeeds.of(recipe).trained_prefix == recipe.prefix(3)
    assert RecipeNeeds.of(recipe.prefix(3)).trained_prefix == recipe.prefix(1)
    assert RecipeNeeds.of(recipe.prefix(1)).trained_prefix is None
    assert RecipeNeeds.of(recipe).teaching_prefix == recipe.prefix(1)
    assert needs(PRUNED, TUNED).teaching_prefix == Recipe()
    assert RecipeNeeds.of(recipe).last_training == 2
    assert needs(PRUNED, TUNED).last_training == 1
    assert needs(PRUNED).last_training is None


def test_versions_of_every_method_its_parts_and_other_programs():
    assert set(needs(PRUNED, wb.GPTQ(4)).method_versions) == {"MagnitudePruning", "GPTQ"}
    mixed = wb.Mixed([wb.RTN(2), wb.AWQ(4)], {"a": 0, "b": 1})
    assert set(needs(mixed).method_versions) == {"Mixed", "RTN", "AWQ"}
    assert needs(wb.GPTQ(4, backend="gptqmodel")).method_versions == {"gptqmodel": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "study")
    saved = {"kind": "language-modeling", "options": {}, "output": "tokens"}
    store.set_meta("task", {"fingerprint": "0123456789abcdef", "saved": saved})
    description = {"fingerprint": "fedcba9876543210", "stored_dtype": "float16"}
    store.add_model("m", description | {"compute_dtype": "float32"})
    return store


KEPT_IDS = [
    ((), "380f28088d1c"),
    ((wb.RTN(4),), "b3f71db04cc4"),
    ((wb.GPTQ(4),), "80989713c06c"),
    ((wb.GPTQ(3, sequential=True),), "a70e28b9186f"),
    ((wb.AWQ(4, backend="gptqmodel"),), "2d9d6cf11131"),
    ((wb.DepthPruning(1), wb.GPTQ(4)), "424ea313f882"),
    (
        (
            wb.FineTuning(),
            wb.WidthPruning(0.5),
            wb.Distillation(),
            wb.SparseGPT(0.5, bits=4),
        ),
        "bfa7e8b6ecde",
    ),
    ((wb.Mixed([wb.RTN(2), wb.GPTQ(4)], {"a": 1}),), "7fec7f353c50"),
    ((wb.GPTQ(4), wb.LowRankCorrection(8), wb.QuantizeEmbeddings(8)), "b5500a9a9dc8"),
    ((wb.MagnitudePruning(0.5), wb.Cast()), "b0ff2e9550b5"),
]
"""A run's id finds it in studies that are stored; one changes only with a method's version."""


@pytest.mark.parametrize(("steps", "kept"), KEPT_IDS)
def test_ids_of_stored_runs_are_kept(store: Store, steps: tuple[Step, ...], kept: str):
    assert run_id(store, "m", Recipe.of(steps)) == kept


def test_the_calibration_options_are_in_the_id_of_what_reads_them(store: Store):
    store.set_meta("calibration", {"seed": 7})
    assert run_id(store, "m", Recipe.of(wb.GPTQ(4))) == "0ddb0f03b0fe"
    assert run_id(store, "m", Recipe.of(wb.RTN(4))) == "b3f71db04cc4"


def test_the_name_of_a_stored_table_of_costs_is_kept(store: Store):
    assert table_path(store, "m").name == "8b638fabb5ccf865.json"

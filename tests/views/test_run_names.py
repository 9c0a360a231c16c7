"""Tests of names that tell runs apart."""

from __future__ import annotations

from dataclasses import replace

from workbench.recipes import GPTQ, Distillation, FineTuning
from workbench.recipes.recipe import Recipe
from workbench.records import RunRecord, RunState
from workbench.views.run_names import distinct, run_names


def record(id, recipe=(), model="tiny"):
    return RunRecord(id, model, Recipe.of(recipe), RunState.DONE, None, (), 1)


def test_a_student_and_its_quantized_form_differ_at_any_width():
    teacher, student = FineTuning(epochs=20), Distillation(blocks=3, epochs=20)
    records = [
        record("dense"),
        record("teacher", teacher),
        record("student", [teacher, student]),
        record("small", [teacher, student, GPTQ(4)]),
        record("smaller", [teacher, student, GPTQ(3)]),
    ]
    for most in (8, 12, 20, 40, 1000):
        names = run_names(records, most)
        assert len(set(names.values())) == len(records), most
    assert run_names(records, 40)["small"].startswith("GPTQ 4-bit g128 ← ")
    assert run_names(records)["dense"] == "tiny (dense)"


def test_runs_of_several_models_are_told_apart_by_them():
    one = record("a", GPTQ(4))
    names = run_names([one, replace(one, id="b", model="other")])
    assert names == {"a": "GPTQ 4-bit g128 of tiny", "b": "GPTQ 4-bit g128 of other"}


def test_what_names_have_in_common_is_left_out_first():
    long = [f"Distil to 3 blocks ({epochs} ep, seed 1) and so on and so on" for epochs in (3, 4)]
    first, second = distinct(long, 14)
    assert first != second
    assert len(first) < len(long[0])
    assert first.startswith("Distil to")
    assert "(3" in first
    assert distinct(["same", "same"], 3) == ["sa…", "sa…"]  # they are one name

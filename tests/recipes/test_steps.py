from __future__ import annotations

import dataclasses
import json

import pytest

from workbench.errors import ConfigError
from workbench.recipes import (
    AWQ,
    GPTQ,
    RTN,
    STEPS,
    Cast,
    Distillation,
    FineTuning,
    LowRankCorrection,
    MagnitudePruning,
    Mixed,
    QuantizeEmbeddings,
    SparseGPT,
    Step,
    Wanda,
    fields_of,
    step_from_dict,
)
from workbench.recipes.recipe import Recipe


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_field_explains_itself(step):
    for info in fields_of(step):
        assert len(info.help) > 20, info.name
        assert info.type in (int, float, bool, str)
        free = info.type is str and info.optional
        assert info.choices or info.minimum is not None or info.type is bool or free
        if info.optional:
            assert info.none_means
    assert step.title
    assert step.about.endswith(".")


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_defaults_round_trip_through_json_and_code(step):
    import workbench as wb

    made = step()
    assert step_from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert eval(made.code(), {"wb": wb}) == made


def test_labels():
    assert GPTQ(3, group_size=None, symmetric=True).label == "GPTQ 3-bit per channel sym"
    assert MagnitudePruning(0.5, scope="global").label == "Magnitude 50% global"
    assert MagnitudePruning(n=2, m=4).label == "Magnitude 2:4"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GPTQ(9), r"GPTQ: bits=9 is not accepted; give a whole number from 2 to 8"),
        (lambda: GPTQ("4"), "bits='4'"),
        (lambda: GPTQ(4, damping=0), "damping=0"),
        (lambda: GPTQ(4, act_order=1), "True or False"),
        (lambda: RTN(4, group_size=1), "None for one scale per output channel"),
        (lambda: MagnitudePruning(1.0), "from 0 to 0.99"),
        (lambda: MagnitudePruning(scope="row"), "one of 'layer', 'global'"),
        (lambda: MagnitudePruning(n=2, m=4, scope="global"), "scope"),
        (lambda: Cast("int8"), "'float16', 'bfloat16'"),
        (lambda: FineTuning("qlora"), "'full', 'lora', 'scales'"),
        (lambda: FineTuning(epochs=0), "from 0.01 to 1000"),
        (lambda: Distillation("lora", blocks=2), "needs all of its weights trained"),
        (lambda: Distillation(hard_weight=1), "use FineTuning"),
        (lambda: Distillation(teacher="gpt2"), r"study.add_model\(...\)"),
        (lambda: step_from_dict({"step": "GTPQ"}), "known steps are RTN, GPTQ"),
        (lambda: step_from_dict({"step": "RTN", "bit": 4}), "no field bit"),
    ],
)
def test_bad_values_say_what_is_accepted(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_steps_are_frozen_and_equal_by_value():
    assert GPTQ(4) == GPTQ(4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTQ(4).bits = 3


def test_recipe_round_trip_and_identity():
    recipe = Recipe.of([MagnitudePruning(0.5), GPTQ(4)])
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.id == Recipe.of([MagnitudePruning(0.5), GPTQ(4)]).id
    assert recipe.id != Recipe.of([GPTQ(4)]).id
    assert recipe.code() == "[wb.MagnitudePruning(0.5), wb.GPTQ(4)]"
    assert Recipe().label == "dense"


@pytest.mark.parametrize(
    "steps",
    [
        [GPTQ(4), QuantizeEmbeddings(8)],
        [QuantizeEmbeddings(8), GPTQ(4)],
        [SparseGPT(0.5), GPTQ(4), LowRankCorrection(8), QuantizeEmbeddings(4), Cast()],
        [Wanda(0.5), LowRankCorrection(8)],
        [AWQ(4), QuantizeEmbeddings(8), LowRankCorrection(8)],
        [MagnitudePruning(0.6), Distillation(), GPTQ(4)],
        [MagnitudePruning(0.3), FineTuning(), MagnitudePruning(0.6), FineTuning()],
        [FineTuning(), Distillation(blocks=3), GPTQ(4), Distillation("lora")],
        [GPTQ(4), FineTuning("scales"), LowRankCorrection(8)],
        [QuantizeEmbeddings(8), FineTuning(), Cast()],
        [FineTuning("scales"), LowRankCorrection(8)],  # on a model that was loaded as codes
    ],
    ids=lambda s: Recipe.of(s).label,
)
def test_steps_that_go_together(steps):
    assert Recipe.from_json(Recipe.of(steps).to_json()).steps == tuple(steps)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([GPTQ(4), MagnitudePruning(0.5)], "cannot follow GPTQ 4-bit g128"),
        ([GPTQ(4), AWQ(4)], "stored as codes"),
        ([SparseGPT(0.5, bits=4), GPTQ(4)], "stored as codes"),
        (LowRankCorrection(8), "needs a step before it that quantizes or prunes"),
        ([Cast(), LowRankCorrection(8)], "needs a step before it"),
        ([GPTQ(4), LowRankCorrection(8), RTN(4)], "stored as corrected"),
        ([QuantizeEmbeddings(8), QuantizeEmbeddings(4)], "at most one QuantizeEmbeddings"),
        ([GPTQ(4), FineTuning()], "Give method='lora' or method='scales', which keep the codes"),
        ([GPTQ(4), Distillation(blocks=2)], "a student of fewer blocks is dense"),
        ([MagnitudePruning(0.5), Distillation(blocks=2)], "so the masks would be lost"),
        ([MagnitudePruning(0.5), FineTuning("lora")], "would fill the zeros"),
        ([Cast(), FineTuning("scales")], "no step before it quantizes"),
        ([GPTQ(4), FineTuning("lora"), GPTQ(4)], "stored as corrected"),
        ([GPTQ(4), LowRankCorrection(8), FineTuning("lora")], "stored as corrected by then"),
        ([GPTQ], r"did you mean GPTQ\(\)"),
        ("GPTQ", "is not a recipe"),
    ],
)
def test_meaningless_recipes_are_refused(steps, words):
    with pytest.raises(ConfigError, match=words):
        Recipe.of(steps)


def test_recipes_of_a_newer_version_are_refused():
    with pytest.raises(ConfigError, match="Upgrade"):
        Recipe.from_json('{"version": 99, "steps": []}')


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.__name__)
def test_help_explains_every_parameter(step: type[Step]) -> None:
    text = step.__doc__ or ""
    for info in fields_of(step):
        assert f"\n{info.name} : " in text
        assert info.help.split(".")[0].split()[0] in text


@pytest.mark.parametrize(
    ("steps", "layers", "words"),
    [
        (RTN(4), {"a": 0}, r"steps=.*give a list of steps"),
        ("RTN", {"a": 0}, r"steps='RTN' .*give a list of steps"),
        ([RTN(4)], 4, r"layers=4 .*give a mapping of module names"),
        ([RTN(4)], {"a": 1}, r"positions from 0 to 0"),
        ([RTN(4)], {}, r"layers is empty"),
        ([Wanda(0.5)], {"a": 0}, r"Wanda\(.*give RTN, GPTQ"),
    ],
)
def test_mixed_says_what_it_takes(steps, layers, words):
    with pytest.raises(ConfigError, match=words):
        Mixed(steps, layers)

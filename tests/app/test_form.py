"""Tests of the generated forms, without a browser."""

from __future__ import annotations

import html

import ipywidgets as w
import pytest

from workbench.app.parts.form import MethodForm, StepForm, _spoken
from workbench.errors import ConfigError
from workbench.recipes import AWQ, GPTQ, STEPS, Cast, Distillation, MagnitudePruning, fields_of


def widgets_in(box):
    found = [box]
    for child in getattr(box, "children", ()):
        found += widgets_in(child)
    return found


@pytest.mark.parametrize("name", STEPS)
def test_a_fresh_form_makes_the_default_step(name):
    step = STEPS[name]
    form = StepForm(step)
    assert form.value == step()
    assert form.code() == step().code()


@pytest.mark.parametrize("name", STEPS)
def test_every_control_has_a_label_and_help(name):
    form = StepForm(STEPS[name])
    for info in fields_of(STEPS[name]):
        inside = widgets_in(form.control(info.name).widget)
        assert any(_spoken(info) in getattr(x, "description", "") for x in inside)
        assert any(getattr(x, "tooltip", None) == info.help for x in inside)
        for one in inside:
            if isinstance(one, w.ValueWidget) and not isinstance(one, w.HTML):
                assert one.description


@pytest.mark.parametrize(
    "step",
    [
        GPTQ(3, group_size=32, symmetric=True, damping=0.5, act_order=False, block_size=7),
        GPTQ(2, group_size=None),
        AWQ(8, group_size=24, n_grid=3, clip=False),
        MagnitudePruning(0.3, scope="global"),
        MagnitudePruning(0.5, n=2, m=4),
        Cast("bfloat16"),
    ],
)
def test_round_trip(step):
    form = MethodForm()
    form.value = step
    assert form.value == step


def test_control_types_follow_the_fields():
    form = StepForm(GPTQ)
    kinds = {
        name: {type(x) for x in widgets_in(form.control(name).widget)}
        for name in ("bits", "group_size", "symmetric", "damping", "block_size")
    }
    assert w.IntSlider in kinds["bits"]
    assert w.Dropdown in kinds["group_size"]
    assert w.Checkbox in kinds["symmetric"]
    assert w.FloatText in kinds["damping"]
    assert w.IntText in kinds["block_size"]
    ratio = {type(x) for x in widgets_in(StepForm(MagnitudePruning).control("ratio").widget)}
    assert w.FloatSlider in ratio


def test_bounds_are_the_fields_bounds():
    form = StepForm(GPTQ)
    slider = next(x for x in widgets_in(form.widget) if isinstance(x, w.IntSlider))
    assert (slider.min, slider.max) == (2, 8)
    slider.value = 99
    assert form.value.bits == 8


def test_a_value_that_is_not_accepted_is_explained_beside_its_field():
    form = StepForm(GPTQ)
    field = form.control("block_size")
    assert field.problem.layout.display == "none"
    field.set(0)
    assert "0 is not accepted; give a number from 1 to 4096 columns." in field.problem.value
    assert 'role="alert"' in field.problem.value
    assert field.problem.layout.display != "none"
    with pytest.raises(ConfigError):
        _ = form.value
    field.set(64)
    assert field.problem.value == ""
    assert form.value.block_size == 64


def test_a_form_of_many_fields_shows_the_first_ones():
    form = StepForm(GPTQ)
    more, rest = form.widget.children[-1].children
    assert form.control("bits").widget in form.widget.children
    assert form.control("sequential").widget in rest.children
    assert rest.layout.display == "none"
    more.value = True
    assert rest.layout.display != "none"
    assert not hasattr(StepForm(MagnitudePruning), "more")  # four fields are not many


def test_help_is_behind_a_question_mark_with_a_name():
    bits = StepForm(GPTQ).control("bits")
    info = next(info for info in fields_of(GPTQ) if info.name == "bits")
    helps = [x.value for x in widgets_in(bits.widget) if isinstance(x, w.HTML) and x.value]
    (shown,) = helps
    assert shown.startswith("<details")  # closed, so that it takes no line of its own
    assert 'aria-label="What is bits?"' in shown
    assert html.escape(info.help) in shown


def test_none_can_be_chosen_from_the_list():
    form = StepForm(GPTQ)
    dropdown = next(x for x in widgets_in(form.widget) if isinstance(x, w.Dropdown))
    labels = [label for label, _ in dropdown.options]
    assert "one scale per output channel" in labels
    dropdown.value = None
    assert form.value.group_size is None


def test_values_that_do_not_go_together_are_refused_in_words():
    form = StepForm(MagnitudePruning)
    form.control("n").set(2)
    with pytest.raises(ConfigError):
        _ = form.value


def test_switching_methods_keeps_what_was_entered():
    form = MethodForm()
    form.method.value = "GPTQ"
    form.form.control("bits").set(3)
    form.method.value = "Cast"
    assert form.value == Cast()
    form.method.value = "GPTQ"
    assert form.value == GPTQ(3)
    assert form.code() == "wb.GPTQ(3)"


def test_changes_are_told():
    told = []
    form = MethodForm(lambda: told.append(1))
    before = len(told)
    form.form.control("bits").set(2)
    assert len(told) == before + 1


def test_a_students_blocks_begin_at_half_and_end_at_the_models():
    form = StepForm(Distillation, n_blocks=6)
    blocks = form.control("blocks")
    blocks._none.value = False
    assert form.value.blocks == 3
    assert (blocks._input.min, blocks._input.max) == (1, 6)
    helps = "".join(x.value for x in widgets_in(blocks.widget) if isinstance(x, w.HTML))
    assert "From 1 to 6." in helps
    free = StepForm(Distillation).control("blocks")  # of an older study, whose number is not known
    free._none.value = False
    free.set(2000)
    assert "from 1 to 1000 blocks" in free.explain()


def test_only_one_control_of_a_form_is_called_method():
    form = MethodForm()
    form.method.value = "Distillation"
    names = [x.description for x in widgets_in(form.widget) if hasattr(x, "description")]
    assert names.count("method") == 1
    assert "what is trained" in names

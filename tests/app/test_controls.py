"""Tests of the controls that every panel is made of."""

from __future__ import annotations

import pytest

from workbench.app.notice import Notice, plain
from workbench.app.parts.controls import NumberField
from workbench.app.parts.write_button import REPLACE, WriteButton
from workbench.errors import ConfigError


def test_a_number_field_checks_its_input_and_says_what_is_accepted():
    told = []
    field = NumberField("blocks", 3, 1, 6, whole=True, unit="blocks")
    field.observe(lambda _: told.append(field.problem), names="value")
    assert (field.checked(), field.input.value) == (3, "3")
    field.input.value = "99"
    assert field.problem == "99 is not accepted; give a whole number from 1 to 6 blocks."
    assert 'role="alert"' in field.children[1].value
    with pytest.raises(ConfigError, match="blocks: 99 is not accepted"):
        field.checked()
    assert told[-1]  # whoever works with the value hears of it
    for wrong in ("2.5", "many", "nan", ""):
        field.input.value = wrong
        assert field.problem, wrong
    field.input.value = "4"
    assert (field.checked(), field.problem, field.children[1].layout.display) == (4, "", "none")
    field.limit(1, 3)
    assert "from 1 to 3" in field.problem
    field.value = 2
    assert (field.checked(), field.input.value) == (2, "2")


def test_an_empty_field_is_no_limit_and_zero_is_a_number():
    field = NumberField("at most, MB", None, 0, 1e9, empty="no limit")
    assert (field.checked(), field.input.placeholder) == (None, "no limit")
    field.input.value = "0"
    assert field.checked() == 0
    field.input.value = ""
    assert field.checked() is None


def test_what_was_wrong_is_gone_when_the_user_does_something_else():
    notice = Notice()
    notice.guard(lambda: 1 / 0)()
    notice.watch(lambda: None)()  # what happens by itself leaves it
    assert "ZeroDivisionError" in notice.text
    notice.guard(lambda: None)()
    assert notice.text == ""


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("group_size=0 is no group; give 32, or None for one scale per channel.",
         "group size 0 is no group; give 32, or “one scale per channel”."),
        ("/x is there. Give another path, or overwrite=True to replace it.",
         "/x is there. Give another path."),
        ("give an id, such as run.id, or None.", "give an id, such as run.id."),
    ],
)  # fmt: skip
def test_errors_are_told_without_words_of_code(error, shown):
    assert plain(error) == shown


def test_a_write_button_asks_before_it_replaces_what_it_did_not_write(tmp_path):
    field, notice, written = NumberField("x").input, Notice(), []
    field.description = "file"
    button = WriteButton("Write", "save", "", field, lambda *a: written.append(a), notice)
    button.button.click()
    assert "Nothing is written under “file”" in notice.text
    path = tmp_path / "page.html"
    field.value = str(path)
    button.button.click()
    assert written == [(path, False)]
    path.write_text("another study's")
    button.button.click()
    assert len(written) == 1
    assert button.button.description == REPLACE
    assert "is there already" in notice.text
    field.value = str(tmp_path / "other.html")
    assert button.button.description == "Write"
    field.value = str(path)
    button.button.click()
    button.button.click()
    assert written[1:] == [(path, True)]
    button.wrote(path)
    button.button.click()
    assert written[2:] == [(path, True)]

"""The one validator: types, bounds, numbers of other libraries, and what its messages say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from workbench.errors import ConfigError
from workbench.fields import (
    check_fields,
    flag,
    number,
    option,
    printable,
    seed,
    shown,
    whole,
    words,
)


@dataclass(frozen=True)
class Record:
    count: int = option(1, "How many.", minimum=1, maximum=10, positional=True)
    share: float = option(0.5, "Of all.", above=0, below=1)
    most: float | None = option(None, "At most.", minimum=0, none_means="no limit")
    way: str = option("a", "Which.", choices=("alpha", "a"))
    on: bool = option(False, "Whether.")

    def __post_init__(self) -> None:
        check_fields(self)


def test_numbers_become_pythons() -> None:
    record = Record(np.uint8(3), share=np.float32(0.25), most=2, on=np.bool_(True))
    assert (record.count, record.share, record.most, record.on) == (3, 0.25, 2.0, True)
    assert [type(v) for v in vars(record).values()] == [int, float, float, str, bool]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": True}, "a whole number from 1 to 10"),
        ({"count": 2.0}, "count=2.0 is not accepted"),
        ({"count": None}, "count=None"),
        ({"count": 10**40}, "count=a number of 136 bits"),
        ({"share": 0}, "a number above 0 and below 1"),
        ({"share": 1}, "above 0"),
        ({"share": math.nan}, "share=nan"),
        ({"share": Decimal("0.5")}, "share=Decimal"),
        ({"most": math.inf}, "at least 0, or None for no limit"),
        ({"most": 10**400}, "most=a number"),
        ({"way": "alphq"}, r"one of 'alpha', 'a'\. Did you mean 'alpha'"),
        ({"on": 1}, "True or False"),
    ],
)
def test_what_is_not_accepted_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"Record: .*{said}"):
        Record(**given)


def test_parameters() -> None:
    assert whole("f", "n", np.int64(4)) == 4
    assert whole("f", "n", None, none_means="all") is None
    assert number("f", "x", 1, minimum=0) == 1.0
    assert seed("f", 2**32 - 1) == 2**32 - 1
    assert flag("f", "on", True) is True
    assert words("f", "name", "Ω und ß") == "Ω und ß"
    for wrong in (
        lambda: whole("f", "n", 0),
        lambda: whole("f", "n", None),
        lambda: number("f", "x", "1"),
        lambda: seed("f", -1),
        lambda: seed("f", 2**32),
        lambda: flag("f", "on", "yes"),
        lambda: words("f", "name", "a\x00"),
        lambda: words("f", "name", "a\u202eb"),
        lambda: words("f", "name", "\ud800"),
    ):
        with pytest.raises(ConfigError, match=r"^f: "):
            wrong()


def test_what_is_shown_cannot_disguise_itself() -> None:
    assert printable("a\u202eb\x1b[2J\nc") == "a\ufffdb\ufffd[2J\nc"
    assert len(shown("x" * 10**6)) < 100

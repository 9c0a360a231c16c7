"""Bad input, made by a seed: every answer is a WorkbenchError or a sensible acceptance.

A call of the public interface gets one or two values that have no meaning there. It must be refused
by an error of the package, whose message says what was given, or be accepted where the value has a
meaning. A traceback from deep inside, another kind of error or no answer in time is a fault.
"""

from __future__ import annotations

import faulthandler
import itertools
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from tests.classified import classified_study, rows
from tests.toy import texts, toy_model, toy_study
from workbench.calibration.calibrate import CalibrationOptions
from workbench.errors import CancelledError, WorkbenchError
from workbench.fields import shown
from workbench.recipes import RTN, STEPS, Distillation, MagnitudePruning
from workbench.storage.store import Store

CASE_SECONDS = 20.0
"""What one call may take on a busy machine; most take a few milliseconds."""

NUMBERS: tuple[Any, ...] = (
    *(0, 1, 2, 3, 4, 8, 16, 64, 256, -1, -5, 10**30, -(10**30), 2**31, 2**63, 2**64),
    *(0.0, -0.0, 0.5, 0.97, 1.5, 1e308, -1e308, 1e-308),
    *(float("nan"), float("inf"), float("-inf")),
    *(np.int64(4), np.int8(-3), np.uint64(2**63), np.float32(0.5), np.float64("nan"), np.bool_(1)),
    *(Decimal("0.5"), Fraction(1, 2), 1 + 2j, True, False),
)
TEXTS: tuple[Any, ...] = (
    *("", " ", "x", "4", "nan", "None", "label", "text", "gptq", "../../x", "/etc/passwd", "~"),
    *("a\0b", "a\u202eb", "\ud800", "x" * 10_000, "a\nb", "{text}", "{", "://", "http://x/y.csv"),
    *(b"bytes", Path("nowhere"), Path("/dev/null")),
)


class Strange:
    """An object that nothing knows, and that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


OBJECTS: tuple[Any, ...] = (
    *(None, [], (), {}, set(), [None], [1, "a"], {"a": 1}, object(), Strange(), int, len),
    *(np.zeros(3), np.zeros((2, 2)), np.array(4), np.array([]), lambda: 1, iter(()), range(3)),
    *(RTN(4), CalibrationOptions(), ...),
)
VALUES = (*NUMBERS, *TEXTS, *OBJECTS)


@dataclass(frozen=True)
class Call:
    """One function of the public interface with values that it accepts."""

    name: str
    function: Callable[..., Any]
    good: dict[str, Any]
    changed: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        return self.changed or tuple(self.good)


def calls(folder: Path) -> list[Call]:
    """Return what is called; everything that computes has a model of a few thousand weights."""
    model, study = toy_model(), toy_study(folder / "study")
    study.run(RTN(4, group_size=8))
    dense = study.baseline()
    assert dense is not None
    judged = classified_study(folder / "judged")
    large, small = judged.run([]), judged.run(RTN(4, group_size=8))
    few = texts(12)
    table = rows(120)
    classes = wb.TextClassification(table, sequence_length=16)
    numbers = itertools.count()

    def stop(progress: Any) -> None:  # what is measured is not of interest here
        raise CancelledError("stopped")

    def make_study(**given: Any) -> object:
        return Store.create(folder / f"s{next(numbers)}", **given)

    made = [
        Call(f"step {name}", step, dict(vars(step())))
        for name, step in STEPS.items()
        if name not in ("Mixed",)
    ]
    return [
        *made,
        Call("CalibrationOptions", CalibrationOptions, vars(CalibrationOptions()).copy()),
        Call(
            "CostModel",
            wb.CostModel,
            {
                "price_per_hour_usd": 0.4,
                "utilisation": 0.5,
                "new_tokens": 64,
                "queries_per_month": 1e6,
                "price_per_kwh_usd": 0.2,
                "api_per_1k_usd": 1.0,
                "dated": "2026",
            },
        ),
        Call(
            "Requirements",
            wb.Requirements,
            {
                "accuracy": 0.97,
                "relative": True,
                "size_bytes": 1e6,
                "latency_ms": 1.0,
                "memory_bytes": 1e6,
                "cost_per_1k_usd": 1.0,
                "cost": wb.CostModel(0.4),
                "confidence": 0.9,
            },
        ),
        Call(
            "Device",
            wb.Device,
            {
                "name": "card",
                "memory_bytes": 1e9,
                "bandwidth_bytes_per_s": 1e9,
                "usable_share": 0.9,
                "count": 1,
                "flops": 1e12,
                "runtime_bytes": 1e6,
                "source": "here",
            },
        ),
        Call(
            "plan",
            wb.plan,
            {
                "ref": "llama-3.1-8b",
                "device": "laptop 16 GB",
                "precisions": ["4-bit"],
                "context": 128,
                "batch": 1,
                "margin": 0.1,
            },
        ),
        Call(
            "LanguageModeling",
            wb.LanguageModeling,
            {
                "source": few,
                "sequence_length": 16,
                "max_evaluation_tokens": 100,
                "seed": 0,
                "name": "few",
                "encoding": "utf-8",
                "metric": None,
                "higher_is_better": None,
            },
        ),
        Call(
            "TextClassification",
            wb.TextClassification,
            {
                "source": table,
                "text": "text",
                "label": "label",
                "document": None,
                "columns": (),
                "sequence_length": 16,
                "max_evaluation_examples": 50,
                "seed": 0,
                "name": "rows",
                "encoding": "utf-8",
                "metric": None,
                "higher_is_better": None,
            },
        ),
        Call(
            "PromptAnswers",
            wb.PromptAnswers,
            {
                "source": {"prompt": table["text"], "answer": table["label"]},
                "sequence_length": 64,
                "max_evaluation_examples": 50,
                "seed": 0,
                "name": "prompts",
                "separator": " ",
            },
        ),
        Call(
            "Summarization",
            wb.Summarization,
            {
                "source": {"text": table["text"], "summary": table["label"]},
                "sequence_length": 64,
                "max_new_tokens": 8,
                "shots": 0,
                "template": "{text}:",
                "seed": 0,
                "name": "sums",
            },
        ),
        Call(
            "SentenceSimilarity",
            wb.SentenceSimilarity,
            {
                "source": {**table, "other": table["text"][::-1], "score": [*range(120)]},
                "other": "other",
                "score": "score",
                "dimensions": 4,
                "sequence_length": 32,
                "max_evaluation_examples": 10,
                "seed": 0,
                "on_bad_rows": "skip",
            },
        ),
        Call(
            "Retrieval",
            wb.Retrieval,
            {
                "queries": {f"q{i}": f"where is {i}?" for i in range(20)},
                "documents": {f"d{i}": f"{i} is here" for i in range(20)},
                "relevance": {f"q{i}": [f"d{i}"] for i in range(20)},
                "id": "id",
                "text": "text",
                "dimensions": 4,
                "max_documents": 15,
                "seed": 0,
                "name": "search",
            },
        ),
        Call(
            "gradual_pruning",
            wb.gradual_pruning,
            {"ratio": 0.5, "rounds": 2, "training": Distillation()},
        ),
        Call("generate", model.generate, {"prompt": "a fox", "max_new_tokens": 4}),
        Call("Store.create", make_study, {"disk_budget_bytes": 10**6}),
        Call(
            "load_model",
            wb.load_model,
            {"ref": "demo", "device": "cpu", "dtype": "float32", "revision": None},
            ("device", "dtype", "revision"),
        ),
        Call("load_task", wb.load_task, {"ref": "demo"}),
        Call(
            "choose",
            study.choose,
            {
                "accuracy": 0.5,
                "relative": True,
                "size_bytes": 1e9,
                "latency_ms": None,
                "metric": None,
                "model": None,
            },
        ),
        Call("run", study.run, {"recipe": []}),
        Call(
            "measure",
            lambda **given: study.measure(**given, on_progress=stop),
            {"run": dense, "repeats": 3},
        ),
        Call("add_model", study.add_model, {"model": model, "name": None}, ("name",)),
        Call(
            "report",
            study.report,
            {"path": folder / "r.html", "question": "?", "trust": False},
            ("path", "requirements", "question", "cost"),
        ),
        Call(
            "side_by_side",
            study.side_by_side,
            {"prompt": "a", "runs": [dense], "max_new_tokens": 2},
        ),
        Call("flips", study.flips, {"before": dense, "after": dense}),
        Call(
            "examples",
            lambda **given: classes.examples(model, **given),
            {"part": "evaluation", "limit": 3},
        ),
        Call("predict", study.predict, {"recipe": RTN(3, group_size=8), "model": None}),
        Call("frontier", study.frontier, {"model": None, "metric": None, "n_mixed": 2}),
        Call("sensitivity", study.sensitivity, {"steps": None, "model": None}),
        Call(
            "fit",
            study.fit,
            {
                "size_bytes": None,
                "bits_per_weight": 6.0,
                "verify": 0,
                "model": None,
                "metric": None,
            },
        ),
        Call("costs", study.costs, {"prices": wb.CostModel(0.4), "model": None}),
        Call("differences", study.differences, {"runs": [dense]}),
        Call(
            "trust",
            judged.trust,
            {"run": small, "columns": None, "threshold": 0.9, "bins": 15},
        ),
        Call(
            "consistency",
            judged.consistency,
            {"run": small, "perturbations": {"please": "{text}, please"}, "seed": 0},
        ),
        Call(
            "cascade",
            judged.cascade,
            {"runs": [small, large], "signal": "confidence", "accuracy": 1.0, "cost": "size"},
        ),
        Call(
            "Router",
            lambda **given: wb.Router([model, model], classes.labels, **given),
            {"thresholds": [0.5], "signal": "confidence", "sequence_length": 16},
        ),
    ]


def cases(made: list[Call], count: int, seed: int) -> Iterator[tuple[Call, dict[str, Any]]]:
    """Yield calls with one or two of their values replaced."""
    chance = random.Random(seed)
    for _ in range(count):
        call = chance.choice(made)
        names = call.arguments()
        if not names:
            continue
        chosen = chance.sample(names, min(len(names), chance.choice((1, 1, 1, 2))))
        yield call, {name: chance.choice(VALUES) for name in chosen}


def fault_of(call: Call, changed: dict[str, Any]) -> str | None:
    """Return what is wrong with the answer to a call, None if nothing is."""
    start = time.monotonic()
    faulthandler.dump_traceback_later(10 * CASE_SECONDS, exit=True)  # a hang ends the whole run
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call.function(**{**call.good, **changed})
    except WorkbenchError as error:
        if len(str(error)) > 12_000 or not str(error).strip():
            return f"a message of {len(str(error))} characters"
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    else:
        if fault := senseless(changed):
            return f"accepted {fault}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    taken = time.monotonic() - start
    return f"it took {taken:.0f} s" if taken > CASE_SECONDS else None


def senseless(changed: dict[str, Any]) -> str:
    """Return which of the values has no meaning for any parameter, empty if there is none."""
    for name, value in changed.items():
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        odd = is_number and (value != value or abs(float(value)) > 1e300)
        if odd and name != "thresholds":
            return f"{name} = {value!r}"
        if isinstance(value, (complex, Strange)) or value is ...:
            return f"{name} of type {type(value).__name__}"
    return ""


def faults(folder: Path, count: int, seed: int) -> list[str]:
    found = []
    for number, (call, changed) in enumerate(cases(calls(folder), count, seed)):
        if fault := fault_of(call, changed):
            said = {name: shown(value) for name, value in changed.items()}
            found.append(f"{number}: {call.name}({said}): {fault}")
    return found


def test_500_bad_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults(tmp_path, 500, seed=14) == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(10))
def test_5000_bad_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.chdir(tmp_path)
    assert faults(tmp_path, 500, seed=100 + seed) == []


def test_numpys_numbers_are_numbers() -> None:
    assert RTN(np.int64(4)) == RTN(4)
    assert type(RTN(np.int8(4)).bits) is int
    assert MagnitudePruning(np.float32(0.5)) == MagnitudePruning(0.5)
    assert CalibrationOptions(seed=np.uint8(3)).seed == 3
    task = wb.LanguageModeling(texts(12), seed=np.int64(0), sequence_length=np.int32(16))
    assert task.fingerprint == wb.LanguageModeling(texts(12), sequence_length=16).fingerprint
    for value in (np.bool_(True), True, "4", 4.0):
        with pytest.raises(WorkbenchError):
            RTN(value)

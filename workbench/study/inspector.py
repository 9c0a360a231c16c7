"""The process that looks into models: ``python -m workbench.study.inspector FOLDER``.

It is asked questions and answers them one by one. So the kernel that asks never holds a model, and
whoever does not want to wait ends the process. It also ends when it was asked nothing for a while,
because it holds models.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.child_process import Inbox, Message, send, take_over_streams
from workbench.errors import WorkbenchError
from workbench.progress import Progress, Throttle

if TYPE_CHECKING:
    from workbench.selection.cost import CostModel
    from workbench.study import Study
    from workbench.study.cascades import Routed

Tell = Callable[[Progress], None]

PACKAGE = Path(__file__).parents[1]
PATIENCE_SECONDS = 900.0
"""Whoever asks again later waits for the models to be loaded again."""


def flips(study: Study, tell: Tell, before: str, after: str) -> Any:
    """Return the flips between two runs."""
    return study.flips(before, after).to_dict()


def confusion(study: Study, tell: Tell, run: str) -> Any:
    """Return a run's confusion matrix."""
    found = study.confusion(run)
    return {"run": found.run, "labels": found.labels, "counts": found.counts}


def layers(study: Study, tell: Tell, runs: list[str]) -> Any:
    """Return the errors of every layer."""
    return study.layer_errors(runs).to_dict()


def histogram(study: Study, tell: Tell, run: str, layer: str) -> Any:
    """Return the histogram of one layer."""
    return study.weight_histogram(run, layer).to_dict()


def generate(study: Study, tell: Tell, prompt: str, runs: list[str], tokens: int) -> Any:
    """Return what every run's model writes."""
    texts: dict[str, str] = {}
    for number, run in enumerate(runs):
        tell(Progress("generate", number, len(runs)))
        texts |= study.side_by_side(prompt, [run], max_new_tokens=tokens)
    return texts


def answers(study: Study, tell: Tell, text: str, runs: list[str], tokens: int) -> Any:
    """Return what every run answers to a text, one row each."""
    rows = []
    for number, run in enumerate(runs):
        tell(Progress("generate", number, len(runs)))
        found = study.try_out(text, [run], max_new_tokens=tokens).astype(object)
        rows += [{"run": run, **row} for row in found.where(found.notna(), None).to_dict("records")]
    return rows


def measure(study: Study, tell: Tell, runs: list[str]) -> Any:
    """Measure the runs' memory and latency; return how many, and what was warned of meanwhile."""
    known = {record.id: record.label for record in study.records}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for number, run in enumerate(runs):
            tell(Progress("measure", number, len(runs), known.get(run, run)))
            study.measure(run, on_progress=_within(tell, number, len(runs), known.get(run, run)))
    own = [str(one.message) for one in found if Path(one.filename).is_relative_to(PACKAGE)]
    return {"count": len(runs), "warnings": list(dict.fromkeys(own))}


def _within(tell: Tell, number: int, total: int, name: str) -> Tell:
    """Return what tells of one of several equal parts as a part of the whole."""

    def part(progress: Progress) -> None:
        words = f"{name}, {progress.detail}".rstrip(", ")
        share = progress.done / max(progress.total, 1)
        tell(Progress(progress.stage, round(100 * (number + share)), 100 * total, words))

    return part


def offers(study: Study, tell: Tell, run: str) -> Any:
    """Return the formats that a run can be exported to."""
    handle: Any = next(one for one in study.runs if one.id == run)
    names = ("format", "title", "size_bytes", "refusal", "is_uncompressed", "note")
    return [{name: getattr(offer, name) for name in names} for offer in handle.export_offers()]


def export(
    study: Study, tell: Tell, run: str, path: str, format: str, overwrite: bool = False
) -> Any:
    """Export a run, and return what came of it."""
    handle: Any = next(one for one in study.runs if one.id == run)
    done = handle.export(path, format=format, overwrite=overwrite, on_progress=tell)
    difference = getattr(done, "largest_difference", None)
    return {
        "path": str(done.path),
        "format": done.format,
        "bytes_on_disk": done.bytes_on_disk,
        "largest_difference": None if difference is None else float(difference),
    }


def report(
    study: Study,
    tell: Tell,
    path: str,
    requirements: dict[str, Any],
    question: str = "",
    cost: dict[str, Any] | None = None,
    cascade: dict[str, Any] | None = None,
) -> Any:
    """Write the report, and return its path."""
    from workbench.selection.requirements import Requirements

    limits = {**requirements, "cost": _prices(requirements.get("cost"))}
    routed = None if cascade is None else _routed(study, tell, **cascade)
    return str(
        study.report(
            path,
            Requirements(**limits),
            question=question,
            cost=_prices(cost),
            cascade=routed,
            on_progress=tell,
        )
    )


def trust(study: Study, tell: Tell, run: str, threshold: float) -> Any:
    """Return when a run's answers can be believed; its validation part is evaluated if need be."""
    return study.trust(run, threshold=threshold, on_progress=tell).view().to_dict()


def consistency(study: Study, tell: Tell, run: str, templates: list[str]) -> Any:
    """Return what small changes of the texts do, one row each; the model is run for each."""
    from workbench.selection.trust import PERTURBATIONS

    asked: dict[str, Any] = {**PERTURBATIONS, **{template: template for template in templates}}
    return study.consistency(run, asked, on_progress=tell).to_dict("records")


def cascade(
    study: Study,
    tell: Tell,
    runs: list[str],
    signal: str,
    accuracy: float,
    cost: str | dict[str, Any],
) -> Any:
    """Return a cascade of stored outcomes; validation parts that lack are evaluated."""
    from workbench.selection.cascades import cascade_data

    routed = _routed(study, tell, runs, signal, accuracy, cost)
    return {"found": cascade_data(routed.found), "unit": routed.cost_unit, "words": str(routed)}


def router(
    study: Study,
    tell: Tell,
    path: str,
    overwrite: bool,
    runs: list[str],
    signal: str,
    accuracy: float,
    cost: str | dict[str, Any],
) -> Any:
    """Write a cascade as a router, and return its folder."""
    routed = _routed(study, tell, runs, signal, accuracy, cost)
    tell(Progress("write", 0, 1))
    return str(routed.router().save(path, overwrite=overwrite))


def _routed(
    study: Study,
    tell: Tell,
    runs: list[str],
    signal: str,
    accuracy: float,
    cost: str | dict[str, Any],
) -> Routed:
    price = cost if isinstance(cost, str) else _prices(cost)
    return study.cascade(runs, signal=signal, accuracy=accuracy, cost=price, on_progress=tell)


def _prices(given: dict[str, Any] | None) -> CostModel | None:
    from workbench.selection.cost import CostModel

    return None if given is None else CostModel(**given)


ANSWERS: dict[str, Callable[..., Any]] = {
    answer.__name__: answer
    for answer in (
        *(flips, confusion, layers, histogram, generate, answers, measure, offers, export, report),
        *(trust, consistency, cascade, router),
    )
}
"""What can be asked, by name."""


def answer(questions: Iterable[Message], say: Callable[[Message], None], study: Study) -> None:
    """Answer questions until there are no more.

    Parameters
    ----------
    questions : iterable of dict
        ``number``, ``ask`` (a name in :data:`ANSWERS`) and ``with`` (its arguments).
    say : callable
        Called with the question's ``number`` and one of ``progress``, ``answer`` and ``error``.
    study : Study
    """
    for question in questions:
        number = question["number"]

        def tell(progress: Progress, number: int = number) -> None:
            say({"number": number, "progress": vars(progress)})

        try:
            found = ANSWERS[question["ask"]](study, Throttle(tell), **question["with"])
        except WorkbenchError as error:
            say({"number": number, "error": str(error)})
        except Exception as error:
            say({"number": number, "error": f"{type(error).__name__}: {error}"})
        else:
            say({"number": number, "answer": found})


def main() -> None:
    """Take over standard input and output, and answer."""
    from workbench.study import Study

    incoming, outgoing = take_over_streams()
    study = Study.open(sys.argv[1])
    inbox = Inbox(incoming, patience=PATIENCE_SECONDS)
    inbox.start()
    answer(inbox, partial(send, outgoing), study)
    os._exit(0)


if __name__ == "__main__":
    main()

"""The process that looks into models: ``python -m workbench.study.inspector FOLDER``.

It reads one question per line from its standard input and writes answers, one line each, to what
was its standard output. So the kernel that asks never holds a model, and whoever does not want to
wait ends the process. It ends when its standard input closes, and when it was asked nothing for a
while, because it holds models.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.progress import Progress

if TYPE_CHECKING:
    from workbench.study import Study

Tell = Callable[[Progress], None]

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


def measure(study: Study, tell: Tell, runs: list[str]) -> Any:
    """Measure the runs' memory and latency."""
    for run in runs:
        study.measure(run, on_progress=tell)
    return len(runs)


def offers(study: Study, tell: Tell, run: str) -> Any:
    """Return the formats that a run can be exported to."""
    handle: Any = next(one for one in study.runs if one.id == run)
    names = ("format", "title", "size_bytes", "refusal")
    return [{name: getattr(offer, name) for name in names} for offer in handle.export_offers()]


def export(study: Study, tell: Tell, run: str, path: str, format: str) -> Any:
    """Export a run, and return what came of it."""
    handle: Any = next(one for one in study.runs if one.id == run)
    done = handle.export(path, format=format, on_progress=tell)
    difference = getattr(done, "largest_difference", None)
    return {
        "path": str(done.path),
        "format": done.format,
        "bytes_on_disk": done.bytes_on_disk,
        "largest_difference": None if difference is None else float(difference),
    }


def report(study: Study, tell: Tell, path: str, requirements: dict[str, Any]) -> Any:
    """Write the report, and return its path."""
    from workbench.deciding.requirements import Requirements

    return str(study.report(path, Requirements(**requirements), on_progress=tell))


ANSWERS: dict[str, Callable[..., Any]] = {
    answer.__name__: answer
    for answer in (flips, confusion, layers, histogram, generate, measure, offers, export, report)
}
"""What can be asked, by name."""


def listen(commands: Iterable[str], answers: IO[str], study: Study) -> None:
    """Answer questions until there are no more."""

    def say(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    for line in commands:
        question = json.loads(line)
        number, last = question["number"], 0.0

        def tell(progress: Progress, number: int = number) -> None:
            nonlocal last
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                say(number=number, progress=vars(progress))

        try:
            found = ANSWERS[question["ask"]](study, tell, **question["with"])
        except WorkbenchError as error:
            say(number=number, error=str(error))
        except Exception as error:
            say(number=number, error=f"{type(error).__name__}: {error}")
        else:
            say(number=number, answer=found)


def main() -> None:
    """Take over standard input and output, and answer."""
    from workbench.study import Study

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a kernel's interrupt is meant for its cells
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    study = Study.open(sys.argv[1])
    asked = _Lines(commands)
    threading.Thread(target=asked.read, name="questions", daemon=True).start()
    listen(asked, answers, study)
    os._exit(0)


class _Lines:
    """Lines of a stream, read ahead by a thread, so that its end is noticed at once.

    Parameters
    ----------
    stream : text stream
    patience : float
        Seconds after which an iteration ends that got no line.
    """

    def __init__(self, stream: IO[str], patience: float = PATIENCE_SECONDS) -> None:
        self._stream = stream
        self._patience = patience
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        os._exit(0)  # nobody is there any more to answer

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            return self._lines.get(timeout=self._patience)
        except queue.Empty:
            raise StopIteration from None


if __name__ == "__main__":
    main()

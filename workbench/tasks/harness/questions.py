"""One document's questions to a model: the right answer, and all that else is asked about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.models.load import LoadedModel
from workbench.progress import Monitor
from workbench.tasks.base import Example, batch_of
from workbench.tasks.harness.documents import HarnessRow
from workbench.tasks.harness.encoding import Encoder
from workbench.tasks.next_token import NextToken
from workbench.tasks.scoring import log_probabilities
from workbench.tasks.scoring import score as score_tokens


@dataclass(frozen=True)
class Asked:
    """Requests of one document that differ in their last token only, so that one pass does.

    Attributes
    ----------
    tokens : tuple of int
        Of the first of them.
    n_given : int
        How many are the context.
    ends : tuple of (int, int)
        Position among the document's requests, and last token.
    """

    tokens: tuple[int, ...]
    n_given: int
    ends: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Question(Example):
    """One document: the request for the right answer, and all that else is asked about it."""

    ends: tuple[tuple[int, int], ...] = ()
    others: tuple[Asked, ...] = ()
    words: int = 0


def question_of(encoder: Encoder, number: int, row: HarnessRow) -> Question:
    """Return one document's requests, those that differ in their last token only together."""
    groups: dict[tuple[Any, ...], tuple[list[int], int, list[tuple[int, int]]]] = {}
    first = row.golds[0] if row.golds else 0
    order = sorted(range(len(row.continuations)), key=lambda i: i != first)
    requests = row.requests()
    for place in order:
        tokens, n_given = encoder.pair(*requests[place])
        key = (tuple(tokens[:-1]), n_given, len(tokens) > n_given)
        groups.setdefault(key, (tokens, n_given, []))[2].append((place, tokens[-1]))
    (tokens, n_given, ends), *others = groups.values()
    return Question(
        number,
        number,
        tokens,
        n_given=n_given,
        ends=tuple(ends),
        others=tuple(Asked(tuple(t), n, tuple(e)) for t, n, e in others),
    )


def scored(
    tokens: Sequence[int], n_given: int, ends: Sequence[tuple[int, int]], view: Tensor
) -> Iterable[tuple[int, float, bool]]:
    """Yield (request, log-likelihood in nats, whether it is greedy) of requests that end apart."""
    targets = torch.tensor(tokens[n_given:], dtype=torch.int64, device=view.device)
    if not len(targets):
        yield from ((number, 0.0, True) for number, _ in ends)
        return
    before = score_tokens(view[:-1], targets[:-1])
    greedy = bool((before.prediction == targets[:-1].cpu()).all())
    last = log_probabilities(view[-1])
    best = int(last.argmax())
    for number, token in ends:
        yield number, float(last[token]) - float(before.loss.sum()), greedy and best == token


def ask_others(
    task: NextToken,
    model: LoadedModel,
    part: str,
    questions: Sequence[Question],
    logs: NDArray[np.float64],
    greedy: NDArray[np.bool_],
    batch_size: int | None,
    monitor: Monitor,
) -> None:
    """Fill in what was not asked together with the right answers."""
    asked = [(place, one) for place, q in enumerate(questions) for one in q.others]
    asked.sort(key=lambda pair: -len(pair[1].tokens))
    budget, done = task.batch_tokens(model), 0
    while done < len(asked):
        count = batch_size or max(1, budget // max(1, len(asked[done][1].tokens)))
        chosen = asked[done : done + count]
        examples = [
            Example(i, 0, list(one.tokens), n_given=one.n_given)
            for i, (_, one) in enumerate(chosen)
        ]
        batch = batch_of(model, part, examples)
        with torch.no_grad():
            views = task._prediction_logits(batch, task.logits(model, batch))
        for (place, one), view in zip(chosen, views, strict=True):
            for number, log, is_greedy in scored(one.tokens, one.n_given, one.ends, view):
                logs[place, number], greedy[place, number] = log, is_greedy
        done += len(chosen)
        monitor.report("evaluate", done, len(asked), f"{part}, other answers")

"""How good a ranking is: nDCG, reciprocal rank and recall at ten, whatever order ties come in.

Documents of equal similarity have no order, and vectors of one bit per number tie often. So every
measure is its expectation over all orders of what ties (McSherry and Najork 2008, "Computing
Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CUT = 10
"""How many documents of a ranking count."""


def ranking_scores(
    similarities: NDArray[np.float32], grades: NDArray[np.float64], ideal: NDArray[np.float64]
) -> dict[str, float]:
    """Return what one query's ranking is worth.

    Parameters
    ----------
    similarities : ndarray of shape (documents,), float32
    grades : ndarray of shape (documents,), float64
        How relevant each document is; zero for what is not.
    ideal : ndarray of shape (relevant documents,), float64
        The grades above zero.

    Returns
    -------
    dict of str to float
        ``ndcg_at_10`` with linear gains and a logarithmic discount (Järvelin and Kekäläinen 2002),
        ``mrr_at_10`` and ``recall_at_10``; each from 0 to 1.
    """
    n = min(CUT, len(similarities))
    last = np.partition(similarities, len(similarities) - n)[len(similarities) - n]
    candidates = np.flatnonzero(similarities >= last)  # all that can be among the first ten
    order = candidates[np.argsort(-similarities[candidates], kind="stable")]
    values, gains = similarities[order], grades[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    dcg = found = reciprocal = 0.0
    nothing_yet = True
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        tied, inside = gains[start:stop], min(stop, CUT) - start
        dcg += tied.mean() * discounts[start : start + inside].sum()
        relevant = int((tied > 0).sum())
        found += relevant * inside / len(tied)
        if nothing_yet and relevant:
            reciprocal = _expected_reciprocal(int(start), len(tied), relevant)
            nothing_yet = False
    best = (np.sort(ideal)[::-1][:CUT] * discounts[: min(len(ideal), CUT)]).sum()
    return {
        "ndcg_at_10": float(dcg / best),
        "mrr_at_10": float(reciprocal),
        "recall_at_10": float(found / len(ideal)),
    }


def _expected_reciprocal(start: int, tied: int, relevant: int) -> float:
    """Return the mean of one over the first relevant rank where so many of what ties are relevant.

    The chance that the first relevant one is at place j of the tie is
    C(tied - 1 - j, relevant - 1) / C(tied, relevant).
    """
    total = math.comb(tied, relevant)
    return sum(
        math.comb(tied - 1 - j, relevant - 1) / total / (start + j + 1)
        for j in range(min(tied - relevant + 1, CUT - start))
    )

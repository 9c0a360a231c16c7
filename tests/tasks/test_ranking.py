"""Rankings with and without ties are worth what scikit-learn and counting all orders say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from workbench.tasks.ranking import CUT, ranking_scores


def counted(order: list[int], grades: np.ndarray) -> dict[str, float]:
    """Return one order's scores from their definitions."""
    ranked = [float(grades[i]) for i in order][:CUT]
    ideal = sorted(grades[grades > 0], reverse=True)[:CUT]
    gain = sum(g / np.log2(rank + 2) for rank, g in enumerate(ranked))
    best = sum(g / np.log2(rank + 2) for rank, g in enumerate(ideal))
    first = next((rank for rank, g in enumerate(ranked, 1) if g > 0), None)
    return {
        "ndcg_at_10": gain / best,
        "mrr_at_10": 0.0 if first is None else 1 / first,
        "recall_at_10": sum(g > 0 for g in ranked) / int((grades > 0).sum()),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1000, 7])
def test_ndcg_is_that_of_scikit_learn(seed: int, levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    similarities = (generator.integers(0, levels, 60) / levels).astype(np.float32)
    grades = generator.choice([0.0, 0.0, 0.0, 1.0, 2.0], 60)
    found = ranking_scores(similarities, grades, grades[grades > 0])
    wanted = metrics.ndcg_score(grades[None], similarities[None], k=CUT)
    assert found["ndcg_at_10"] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_ties_count_as_the_mean_over_all_their_orders(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ahead = int(generator.integers(5, 10))
    similarities = np.array([*np.linspace(1, 0.6, ahead), *[0.5] * 5, 0.1, 0.0], dtype=np.float32)
    grades = np.zeros(len(similarities))
    grades[generator.choice(np.arange(ahead, ahead + 5), 2, replace=False)] = [1.0, 3.0]
    grades[-1] = 1.0
    tied = range(ahead, ahead + 5)
    tail = [ahead + 5, ahead + 6]
    every = [
        counted([*range(ahead), *order, *tail], grades) for order in itertools.permutations(tied)
    ]
    found = ranking_scores(similarities, grades, grades[grades > 0])
    for name, value in found.items():
        assert value == pytest.approx(np.mean([one[name] for one in every]), abs=1e-12), name


def test_fewer_documents_than_ten_are_ranked_all() -> None:
    found = ranking_scores(
        np.array([0.1, 0.9, 0.5], dtype=np.float32), np.array([1.0, 0, 0]), np.array([1.0])
    )
    assert found == {
        "ndcg_at_10": pytest.approx(0.5),
        "mrr_at_10": pytest.approx(1 / 3),
        "recall_at_10": 1.0,
    }

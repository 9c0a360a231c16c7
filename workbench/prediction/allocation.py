"""Mixed precision: which quantization for which layer, under a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from workbench.errors import ConfigError
from workbench.prediction.cost_table import CostTable
from workbench.prediction.predict import group_bytes, raw_cost
from workbench.recipes import Mixed, Quantization
from workbench.recipes.recipe import Recipe

_TIME_LIMIT_SECONDS = 10.0
_RELATIVE_GAP = 1e-4


@dataclass(frozen=True)
class Option:
    """One way to store the layers of one shared input."""

    step: Quantization
    n_bytes: int
    nats: float


def options_of(
    table: CostTable, candidates: Iterable[Quantization] | None = None
) -> list[list[Option]]:
    """Return the options of every group that no other option beats in bytes and cost.

    Parameters
    ----------
    table : CostTable
    candidates : iterable of RTN, GPTQ or AWQ, optional
        Default: every tabulated quantization.

    Returns
    -------
    list of list of Option
        By group, from the fewest bytes to the most.
    """
    if candidates is None:
        candidates = [step for step in table.columns if isinstance(step, Quantization)]
    found: list[list[Option]] = [[] for _ in table.groups]
    for step in candidates:
        costs = table.costs(step)
        if costs is None:
            continue
        n_bytes = group_bytes(table.groups, step)
        for options, group, nats in zip(found, table.groups, costs.nats, strict=True):
            if np.isfinite(nats):
                options.append(Option(step, n_bytes[group.key], float(nats)))
    return [_efficient(options) for options in found]


def _efficient(options: list[Option]) -> list[Option]:
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.n_bytes, o.nats)):
        if not kept or option.nats < kept[-1].nats:
            kept.append(option)
    return kept


def allocate(table: CostTable, options: Sequence[Sequence[Option]], budget_bytes: int) -> Mixed:
    """Return the assignment of least cost whose groups take at most so many bytes.

    A multiple-choice knapsack, solved as a mixed-integer linear program (HiGHS) to one part in
    10,000 of the cost, or as far as it comes in ten seconds; never worse than the greedy
    :func:`path`.

    Parameters
    ----------
    table : CostTable
    options : sequence of sequence of Option
        By group; see :func:`options_of`.
    budget_bytes : int
        For the layers of all groups together.

    Raises
    ------
    ConfigError
        If not even the smallest options fit; the message says what would.
    """
    least = sum(group[0].n_bytes for group in options if group)
    if any(not group for group in options):
        raise ConfigError(
            "Some layers have no predicted cost, so no precision can be chosen for them; give"
            " uniform recipes instead."
        )
    if least > budget_bytes:
        raise ConfigError(
            f"The layers take {least:,} bytes at the fewest bits that are tabulated, more than the"
            f" {max(budget_bytes, 0):,} that are left for them. Ask for a larger size, or make the"
            " rest smaller first, such as with QuantizeEmbeddings(8)."
        )
    flat = [(i, option) for i, group in enumerate(options) for option in group]
    nats = np.array([option.nats for _, option in flat])
    n_bytes = np.array([option.n_bytes for _, option in flat], dtype=float)
    belongs = csr_array(
        (np.ones(len(flat)), ([i for i, _ in flat], range(len(flat)))),
        shape=(len(options), len(flat)),
    )
    solved = milp(
        nats / max(nats.max(), 1e-300),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(belongs, 1, 1),
            LinearConstraint(csr_array(n_bytes[None] / max(budget_bytes, 1)), ub=1.0),
        ],
        options={"time_limit": _TIME_LIMIT_SECONDS, "mip_rel_gap": _RELATIVE_GAP},
    )
    greedy = path(table, options, [budget_bytes])[0]
    if solved.x is None:
        return greedy
    chosen = {i: option for (i, option), x in zip(flat, solved.x, strict=True) if x > 0.5}
    found = _mixed(table, [chosen[i] for i in range(len(options))])
    # Within the solver's tolerance a solution may exceed the budget by a few bytes.
    if sum(option.n_bytes for option in chosen.values()) > budget_bytes:
        return greedy
    costs = [raw_cost(table, Recipe((mixed,))).nats or 0.0 for mixed in (found, greedy)]
    return found if costs[0] <= costs[1] else greedy


def path(
    table: CostTable, options: Sequence[Sequence[Option]], budgets: Sequence[int]
) -> list[Mixed]:
    """Return good assignments for many budgets at once, by the Lagrangian's greedy path.

    From the smallest options on, the step that saves most cost per byte is taken next, on the
    lower convex hull of every group (Everett 1963). Optimal at the corners of the path.
    """
    hulls = [_hull(group) for group in options]
    steps = []
    for i, hull in enumerate(hulls):
        for j in range(1, len(hull)):
            saved = hull[j - 1].nats - hull[j].nats
            added = hull[j].n_bytes - hull[j - 1].n_bytes
            steps.append((-saved / added, i, j, added))
    steps.sort()
    found = []
    for budget in budgets:
        place = [0] * len(hulls)
        used = sum(hull[0].n_bytes for hull in hulls)
        for _, i, j, added in steps:
            if place[i] == j - 1 and used + added <= budget:
                place[i], used = j, used + added
        found.append(_mixed(table, [hull[p] for hull, p in zip(hulls, place, strict=True)]))
    return found


def _hull(options: Sequence[Option]) -> list[Option]:
    """Return the lower convex hull of cost over bytes."""
    hull: list[Option] = []
    for option in options:
        while len(hull) >= 2 and not _bends(hull[-2], hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _bends(a: Option, b: Option, c: Option) -> bool:
    return (b.nats - a.nats) * (c.n_bytes - a.n_bytes) < (c.nats - a.nats) * (b.n_bytes - a.n_bytes)


def _mixed(table: CostTable, chosen: Sequence[Option]) -> Mixed:
    steps = list(dict.fromkeys(option.step for option in chosen))
    return Mixed(
        steps,
        {
            group.key: steps.index(option.step)
            for group, option in zip(table.groups, chosen, strict=True)
        },
    )

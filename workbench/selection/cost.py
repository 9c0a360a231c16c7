"""What a run costs to serve, from its measured speed and the user's own prices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any

from workbench.fields import check_fields, option
from workbench.records import RunRecord, RunState

if TYPE_CHECKING:
    import pandas as pd

    from workbench.records import Measurement

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Cost:
    """What a run costs; every number follows from measurements and the prices that were given.

    Attributes
    ----------
    seconds_per_query : float
        Of the machine, while it works.
    per_1k_usd : float
        Dollars for 1,000 queries, idle time and energy included.
    per_month_usd : float or None
        Dollars a month at the volume that was given, None without one. Machines are counted in
        parts: half of one is half of its price.
    energy_per_1k_kwh : float or None
        None where no energy was measured.
    energy_per_1k_usd : float or None
        Part of ``per_1k_usd``; None without energy or its price.
    how : str
        What of the model ran how, and where it was measured.
    """

    seconds_per_query: float
    per_1k_usd: float
    per_month_usd: float | None
    energy_per_1k_kwh: float | None
    energy_per_1k_usd: float | None
    how: str


def _price(default: Any, help: str, **about: Any) -> Any:
    """Declare a price with what forms and help texts need; any may be given by position."""
    return option(default, help, positional=True, **about)


@dataclass(frozen=True)
class CostModel:
    """Prices, and how the machine is used. Every price is yours: none is built in.

    Parameters
    ----------
    price_per_hour_usd : float
        Of the machine that the runs were measured on.
    utilisation : float
        Share of the paid time that the machine works on queries, above 0 and at most 1.
    new_tokens : int
        Tokens that a decoder writes per query, after its prompt. Classifiers do not need it.
    queries_per_month : float, optional
        The volume that :attr:`Cost.per_month_usd` is for.
    price_per_kwh_usd : float
        Of energy, added where energy was measured; 0 where the machine's price includes it.
    api_per_1k_usd : float, optional
        What a service asks for 1,000 of the same queries, to compare with.
    dated : str
        When these prices held, and whose they are; shown beside every cost.

    Raises
    ------
    ConfigError
        If a number has no meaning.

    Examples
    --------
    >>> CostModel(price_per_hour_usd=0.36, utilisation=0.5).per_1k_usd(0.01)
    0.002
    """

    price_per_hour_usd: float = _price(
        MISSING,
        "What an hour of the machine costs that the runs are measured on: its rent, or a share of"
        " its price, room and care.",
        unit="dollars",
        minimum=0,
    )
    utilisation: float = _price(
        0.5,
        "Share of the paid time that the machine works on queries. One that waits for half of the"
        " day works at most half of the time.",
        minimum=0.01,
        maximum=1,
    )
    new_tokens: int = _price(
        64,
        "Tokens that are written per query, after its prompt. Classifiers do not need it.",
        unit="tokens",
        minimum=1,
    )
    queries_per_month: float | None = _price(
        None,
        "The volume that the costs of a month are for.",
        minimum=1,
        none_means="costs of a month are left out",
    )
    price_per_kwh_usd: float = _price(
        0.0,
        "Of energy, added where energy was measured; 0 where the machine's price includes it.",
        unit="dollars",
        minimum=0,
    )
    api_per_1k_usd: float | None = _price(
        None,
        "What a service asks for 1,000 of the same queries, to compare with.",
        unit="dollars",
        minimum=0,
        none_means="nothing to compare with",
    )
    dated: str = _price("", "When these prices held, and whose they are; shown beside the costs.")

    def __post_init__(self) -> None:
        check_fields(self)

    def per_1k_usd(self, seconds_per_query: float) -> float:
        """Return what the machine costs for 1,000 queries of so many seconds each."""
        return 1000 * seconds_per_query / 3600 * self.price_per_hour_usd / self.utilisation

    def of(self, record: RunRecord) -> Cost | None:
        """Return what a run costs, None where its time was not measured.

        A classifier is taken at its batches of 32 texts where they were measured, a decoder at
        one query after the other: its prompt, then ``new_tokens`` tokens.
        """
        seconds, measured = self._seconds(record)
        if seconds is None or measured is None:
            return None
        energy = record.measurement("energy_joules")
        kwh = dollars = None
        if energy is not None and math.isfinite(energy.value):
            units = self.new_tokens if record.measurement("first_token_ms") is not None else 1
            kwh = 1000 * units * energy.value / JOULES_PER_KWH
            dollars = kwh * self.price_per_kwh_usd
        total = self.per_1k_usd(seconds) + (dollars or 0.0)
        month = self.queries_per_month
        return Cost(
            seconds_per_query=seconds,
            per_1k_usd=total,
            per_month_usd=None if month is None else total * month / 1000,
            energy_per_1k_kwh=kwh,
            energy_per_1k_usd=dollars,
            how=f"{measured.how}, {measured.comparable_conditions}".strip(", "),
        )

    def _seconds(self, record: RunRecord) -> tuple[float | None, Measurement | None]:
        first, each = record.measurement("first_token_ms"), record.measurement("latency_ms")
        many = record.measurement("latency_batch32_ms")
        if first is not None and each is not None:
            return (first.value + (self.new_tokens - 1) * each.value) / 1e3, each
        if many is not None:
            return many.value / 32 / 1e3, many
        return (None, None) if each is None else (each.value / 1e3, each)


def cost_table(
    records: Iterable[RunRecord], prices: CostModel, baseline: RunRecord | None
) -> pd.DataFrame:
    """Return what every measured run costs, one row each, in dollars.

    Parameters
    ----------
    records : iterable of RunRecord
        Of a study; those that are not done or were not measured have no row.
    prices : CostModel
    baseline : RunRecord or None
        The run of the base model, for the column ``of_baseline``.

    Raises
    ------
    StudyError
        If the runs were measured on different machines.
    """
    import pandas as pd

    from workbench.selection.quality import check_conditions

    done = [record for record in records if record.state is RunState.DONE]
    check_conditions(done)
    dense = None if baseline is None else prices.of(baseline)
    rows = []
    for record in done:
        found = prices.of(record)
        if found is None:
            continue
        api = prices.api_per_1k_usd
        rows.append(
            {
                "run": record.id,
                "model": record.model,
                "recipe": record.label,
                "seconds_per_query": found.seconds_per_query,
                "per_1k_usd": found.per_1k_usd,
                "per_month_usd": found.per_month_usd,
                "of_baseline": (
                    found.per_1k_usd / dense.per_1k_usd
                    if dense is not None and dense.per_1k_usd
                    else None
                ),
                "of_api": found.per_1k_usd / api if api else None,
                "energy_per_1k_kwh": found.energy_per_1k_kwh,
                "energy_per_1k_usd": found.energy_per_1k_usd,
                "how": found.how,
            }
        )
    names = ["run", "model", "recipe", "seconds_per_query", "per_1k_usd", "per_month_usd"]
    names += ["of_baseline", "of_api", "energy_per_1k_kwh", "energy_per_1k_usd", "how"]
    return pd.DataFrame(rows, columns=names)

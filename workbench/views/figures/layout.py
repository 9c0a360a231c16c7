"""What both drawings of the trade-off share: axis ranges, what is off scale, colours and texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workbench.recipes import STEPS, Mixed
from workbench.recipes.recipe import shortened
from workbench.selection.compare import (
    CHAIN,
    PredictedPoint,
    TradeoffPoint,
    TradeoffView,
    pareto_front,
)
from workbench.selection.quality import relative_quality

INK = "#777777"
HEIGHT = 480
SMALL = '<span style="font-size: 13px">{}</span>'
"""Text and axes: a contrast of 4.5 on white and 4.2 on JupyterLab's dark background."""
BASELINE_COLOUR = INK
GRID = "rgba(127,127,127,0.25)"
NOTE_CHARACTERS = 80
"""Of a line of the footnote, which fits a plot of 520 pixels; a longer one would be cut off."""
HOVER_CHARACTERS = 36
"""Of a line of a hover text."""
LEGEND_SHARE = 1 / 6
"""The most of a figure's height that its legend takes; it scrolls where there is more."""
LONGEST_LABEL = 90
"""Characters of a recipe's label in a hover text."""
MOST_POINTS = 800
"""More are thinned, see :func:`drawn_points`."""
OFF_SCALE_QUALITY = 0.5
"""Points of less than this quality, relative to the best baseline, are drawn at the edge."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, made to be told apart with every kind of colour vision."""
_SYMBOLS = ("circle", "square", "triangle-up", "x", "star", "pentagon", "cross", "hexagon")


@dataclass(frozen=True)
class Style:
    """How one method family is drawn: a colour, and a shape for those who see no colour.

    Attributes
    ----------
    colour, symbol : str
        Of the last step.
    edge : str
        Colour of the first step around it, ``""`` where there is only one.
    """

    colour: str
    symbol: str
    edge: str = ""


def families_of(view: TradeoffView) -> tuple[str, ...]:
    """Return every family that can be in a plot: all known methods, then any other in the view."""
    known = [*(step.title for step in STEPS.values()), Mixed.title]
    others = [p.family for p in view.points if not p.is_baseline]
    others += [p.family for p in view.predicted]
    return tuple(dict.fromkeys([*known, *others]))


def style_of(family: str) -> Style:
    """Return the style of a family: that of its last step, with an edge where others came first."""
    first, *_, last = [_place(title) for title in family.split(CHAIN)] * 2
    edge = _COLOURS[first % len(_COLOURS)] if CHAIN in family else ""
    return Style(_COLOURS[last % len(_COLOURS)], _SYMBOLS[last % len(_SYMBOLS)], edge)


def _place(title: str) -> int:
    known = [*(step.title for step in STEPS.values()), Mixed.title]
    return known.index(title) if title in known else len(known) + sum(map(ord, title))


@dataclass(frozen=True)
class Frame:
    """Axis ranges of a view, in megabytes (10^6 bytes) and in units of the metric.

    Attributes
    ----------
    x, y : tuple of (float, float)
        Lowest and highest value shown.
    limit : float
        Values worse than this are off scale.
    higher_is_better : bool
    log_x : bool
    """

    x: tuple[float, float]
    y: tuple[float, float]
    limit: float
    higher_is_better: bool
    log_x: bool

    @classmethod
    def of(cls, view: TradeoffView, *, log_x: bool = False) -> Frame:
        """Return the ranges that show every point that is not far off, with some room.

        Predictions that say no more than "bad" have no part in it.
        """
        higher = view.metric.higher_is_better
        limit = _limit(view)
        expected = [
            p
            for p in view.predicted
            if p.is_trusted and (p.value >= limit if higher else p.value <= limit)
        ]
        sizes = [p.across for p in view.points] + [p.across for p in expected]
        inside = [p for p in view.points if (p.value >= limit if higher else p.value <= limit)]
        ends = [end for p in inside for end in (p.value, *(p.interval or ()))]
        ends += [p.value for p in expected]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        some_off = len(inside) < len(view.points)
        room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
        low -= room * (2.2 if some_off and higher else 1)
        high += room * (2.2 if some_off and not higher else 1)
        left, right = (min(sizes), max(sizes)) if sizes else (0.0, 1.0)
        if log_x and left > 0:
            x = (left / 1.25, right * 1.25)
        else:
            room = 0.08 * (right - left) or 0.2 * right or 1.0
            x = (max(0.0, left - 1.5 * room), right + 1.5 * room)
        return cls(x, (low, high), limit, higher, log_x and left > 0)

    @property
    def x_ticks(self) -> list[float]:
        """Round sizes to label on the size axis."""
        return _log_ticks(*self.x) if self.log_x else _ticks(*self.x)

    @property
    def y_ticks(self) -> list[float]:
        """Round values to label on the metric's axis."""
        return _ticks(*self.y)

    def is_off_scale(self, point: TradeoffPoint) -> bool:
        """Return whether the point is drawn as an arrow at the edge."""
        if self.higher_is_better:
            return point.value < self.limit
        return point.value > self.limit

    def shows(self, point: PredictedPoint) -> bool:
        """Return whether a prediction is drawn: one outside of the ranges is left out."""
        (left, right), (low, high) = self.x, self.y
        return left <= point.across <= right and low <= point.value <= high

    @property
    def edge(self) -> float:
        """Where off-scale points are drawn on the metric's axis."""
        low, high = self.y
        inset = 0.035 * (high - low)
        return low + inset if self.higher_is_better else high - inset

    def height(self, point: TradeoffPoint) -> float:
        """Return where a point is drawn on the metric's axis."""
        return self.edge if self.is_off_scale(point) else point.value


def _limit(view: TradeoffView) -> float:
    """Return the worst value shown in place: half the best quality, or a worse baseline's."""
    higher = view.metric.higher_is_better
    best, worst = (max, min) if higher else (min, max)
    baselines = [point.value for point in view.points if point.is_baseline]
    values = baselines or [point.value for point in view.points]
    if not values or best(values) <= 0:
        return -math.inf if higher else math.inf
    reference = best(values)
    limit = reference * OFF_SCALE_QUALITY if higher else reference / OFF_SCALE_QUALITY
    return worst([limit, *baselines])


def front_line(view: TradeoffView, frame: Frame) -> list[tuple[float, float]]:
    """Return the corners of the Pareto front's staircase, from the smallest run on."""
    return _staircase((p.across, frame.height(p)) for p in view.points if p.on_front)


def _staircase(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda place: place[0]):
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners


def predicted_line(view: TradeoffView, frame: Frame) -> list[tuple[float, float]]:
    """Return the corners of the predicted front's staircase, from the smallest recipe on."""
    shown = [point for point in view.predicted if frame.shows(point)]
    front = pareto_front(
        [p.across for p in shown], [p.value for p in shown], frame.higher_is_better
    )
    return _staircase(
        (p.across, p.value) for p, on_front in zip(shown, front, strict=True) if on_front
    )


def titles(view: TradeoffView) -> tuple[str, str]:
    """Return the plot's title and subtitle, as plain text."""
    metric = metric_title(view)
    where = [f"Task: {view.task}"] if view.task else []
    if view.models:
        more = f" and {len(view.models) - 3} more" if len(view.models) > 3 else ""
        where.append(f"Model: {', '.join(view.models[:3])}{more}")
    subtitle = " · ".join(where)
    return f"{metric} against {view.axis.name}", subtitle if len(subtitle) <= 96 else subtitle[
        :95
    ] + "…"


def footnote(view: TradeoffView, frame: Frame) -> str:
    """Return what a reader must know about points that are not where they would be, or ``""``."""
    notes = []
    if any(point.paired for point in view.points):
        notes.append("Bars: 95 % interval of the difference to the baseline.")
    elif any(point.interval for point in view.points):
        notes.append("Bars: 95 % interval.")
    if any(frame.shows(point) for point in view.predicted):
        notes.append("Hollow: predicted, not measured.")
    if any(frame.is_off_scale(point) for point in view.points):
        notes.append("Arrows: off scale.")
    hidden = len(view.points) - len(drawn_points(view, frame))
    if hidden:
        notes.append(f"{hidden} more runs lie where others are drawn, see the table.")
    if view.n_unmeasured:
        runs = "run has" if view.n_unmeasured == 1 else "runs have"
        notes.append(f"{view.n_unmeasured} {runs} no point, see the table.")
    return " ".join([*notes, view.note] if view.note else notes)


def drawn_points(view: TradeoffView, frame: Frame) -> tuple[TradeoffPoint, ...]:
    """Return the points to draw: all, or one of those that lie in one place where they are many.

    The front and the base models are always among them. A browser is slow with thousands of
    points, and a notebook keeps each with its text.
    """
    if len(view.points) <= MOST_POINTS:
        return view.points
    always = {p.run_id for p in view.points if p.on_front or p.is_baseline}
    x = np.array([point.across for point in view.points])
    x = np.log10(x) if frame.log_x else x
    y = np.array([frame.height(point) for point in view.points])
    places = [(v - v.min()) / max(float(np.ptp(v)), 1e-300) for v in (x, y)]
    for cells in (256, 128, 64, 32):
        keys = np.round(places[0] * cells) * (cells + 1) + np.round(places[1] * cells)
        kept = set(np.unique(keys, return_index=True)[1].tolist())
        if len(kept) <= MOST_POINTS:
            break
    return tuple(p for i, p in enumerate(view.points) if i in kept or p.run_id in always)


def metric_title(view: TradeoffView) -> str:
    """Return the metric's name as a title, such as ``"Bits per byte"``."""
    return view.metric.name.replace("_", " ").capitalize()


def axis_title(view: TradeoffView) -> str:
    """Return the title of the metric's axis, which says where better is."""
    better = "higher" if view.metric.higher_is_better else "lower"
    return f"{metric_title(view)} ({better} is better)"


def baselines_title(view: TradeoffView) -> str:
    """Return what the legend calls the base models; some may have come as codes."""
    labels = {point.label for point in view.points if point.is_baseline} or {"dense"}
    return f"{labels.pop()} baseline" if len(labels) == 1 else "baseline"


def details(view: TradeoffView, point: TradeoffPoint) -> list[str]:
    """Return the lines that describe a point, the recipe first, as plain text."""
    label = shortened(point.label, LONGEST_LABEL)
    lines = [label if not point.is_baseline else f"{point.model} ({label} baseline)"]
    if len(view.models) > 1 and not point.is_baseline:
        lines.append(f"of {point.model}")
    text = f"{view.metric.name}: {point.value:.4g}"
    if point.interval is not None:
        kind = "paired" if point.paired else "interval"
        text += f" (95 % {kind} {point.interval[0]:.4g} to {point.interval[1]:.4g})"
    if not point.is_baseline:
        text += _of_baseline(view, point)
    lines += [text, f"size: {point.size_bytes / 1e6:.2f} MB"]
    if view.axis.measured is not None:
        lines.append(f"{view.axis.name}: {point.across:.4g} {view.axis.unit}")
    lines += [f"{name}: {fact}" for name, fact in point.facts]
    if point.on_front:
        lines.append("on the Pareto front")
    return lines


def predicted_details(view: TradeoffView, point: PredictedPoint) -> list[str]:
    """Return the lines that describe a prediction, the recipe first, as plain text."""
    lines = [shortened(point.label, LONGEST_LABEL), "predicted, not measured"]
    if len(view.models) > 1:
        lines.append(f"of {point.model}")
    text = f"{view.metric.name}: {point.value:.4g}"
    if point.interval is not None:
        text += f" (90 % interval {point.interval[0]:.4g} to {point.interval[1]:.4g})"
    lines += [text + _of_baseline(view, point), f"size: {point.size_bytes / 1e6:.2f} MB"]
    runs = "run" if point.n_runs == 1 else "runs"
    lines.append(f"KL: {point.kl:.3g} nats, level learned from {point.n_runs} {runs}")
    for step in point.recipe.steps:
        if isinstance(step, Mixed):
            counts = [sum(place == i for _, place in step.layers) for i in range(len(step.steps))]
            parts = sorted(zip(counts, step.steps, strict=True), key=lambda part: -part[0])
            lines += [f"{n} of {len(step.layers)} layer groups: {own.label}" for n, own in parts]
    return [*lines, *point.notes]


def _of_baseline(view: TradeoffView, point: TradeoffPoint | PredictedPoint) -> str:
    reference = next(
        (p.value for p in view.points if p.is_baseline and p.model == point.model), None
    )
    if not reference:
        return ""
    return f", {relative_quality(view.metric, point.value, reference):.1%} of baseline"


def _ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Return round numbers between low and high, about as many as asked."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between low and high, or round numbers if few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return found if len(found) >= 3 else _ticks(low, high)

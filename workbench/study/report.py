"""The report: one page for the person who decides, its numbers those of the study."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.atomic_files import write_file
from workbench.errors import ConfigError, StudyError
from workbench.fields import instance, printable
from workbench.progress import Progress
from workbench.recipes.recipe import shortened
from workbench.records import FOR_INFORMATION
from workbench.selection.cost import CostModel, cost_table
from workbench.selection.decision import Decision
from workbench.selection.quality import relative_quality
from workbench.selection.requirements import Requirements
from workbench.study import trust as trusting
from workbench.study.cascades import Routed
from workbench.study.choosing import choose
from workbench.study.exporting import loading_code
from workbench.study.run import Run
from workbench.study.trust import Trust
from workbench.study.workspace import Workspace
from workbench.version import __version__

if TYPE_CHECKING:
    from workbench.records import RunRecord
    from workbench.views.report import Part, Value

MOST_ROWS = 40
MOST_MISTAKES = 10
LONGEST_TEXT = 300


def report(
    workspace: Workspace,
    path: str | Path = "report.html",
    requirements: Requirements | float | None = None,
    *,
    question: str = "",
    cost: CostModel | None = None,
    cascade: Routed | None = None,
    trust: Trust | bool | None = None,
    metric: str | None = None,
    model: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Write the page for the person who decides; see :meth:`Study.report`."""
    from workbench.views.report import Part, render, sentence

    instance("report", "cost", cost, CostModel, "CostModel(…)")
    question = instance("report", "question", question, str, "a text") or ""
    instance("report", "trust", trust, (bool, Trust), "True, False or what study.trust returned")
    instance("report", "cascade", cascade, Routed, "what study.cascade returned")
    wanted = Requirements(0.97) if requirements is None else requirements
    if not isinstance(wanted, Requirements):
        wanted = Requirements(wanted)
    prices = cost or wanted.cost
    decision = choose(workspace, wanted, metric=metric, model=model)
    found = decision.nearest_run
    untold = ""
    if trust in (None, True):
        trust = None
        if workspace.output.classifies and found is not None:
            try:
                trust = trusting.trust(workspace, found, on_progress=on_progress)
            except (ConfigError, StudyError) as error:  # the rest of the page is wanted too
                untold = str(error)
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    task = workspace.task_name
    about = (
        f"Task: {task}. Models: {', '.join(workspace.models)}. {today}, workbench {__version__}."
    )
    opening = [
        sentence(about, kind="quiet"),
        sentence(decision.nearest, kind=f"answer {decision.answer}"),
    ]
    parts = [
        _bar_part(workspace, decision, metric, model),
        _front_part(workspace, decision, metric),
    ]
    if prices is not None:
        parts.append(_cost_part(workspace, prices, model))
    if isinstance(trust, Trust):
        parts.append(_trust_part(trust))
    elif untold:
        parts.append(Part("Where it fails", (sentence(f"It cannot be told: {untold}"),)))
    if cascade is not None:
        parts.append(_cascade_part(cascade))
    if found is not None:
        parts.append(_load_part(workspace, decision, found))
    parts.append(_about_part(workspace, metric))
    page = render(printable(question.strip()) or f"Which model does {task}?", opening, parts)
    try:
        return write_file(path, page)
    except OSError as error:
        raise ConfigError(
            f"The report cannot be written to {path}: {error.strerror or error}."
        ) from error


def _bar_part(
    workspace: Workspace, decision: Decision, metric: str | None, model: str | None
) -> Part:
    from workbench.views.report import Part, Value, sentence, table

    chosen, nearest = workspace.metric_named(metric), decision.nearest_run
    pieces = [sentence(f"Asked: {decision.requirements}.")]
    rows: list[dict[str, str | Value]] = []
    shown = [
        ("base model", workspace.baseline(model)),
        ("chosen" if decision.run else "nearest", nearest.record if nearest else None),
    ]
    for role, record in shown:
        measured = None if record is None else record.measurement(chosen.name)
        if record is None or measured is None:
            continue
        quality, low, high = None, None, None
        if role != "base model":
            quality = decision.quality
            if decision.interval is not None:
                low, high = decision.interval.low, decision.interval.high
        elif measured.value > 0:
            quality = relative_quality(chosen, measured.value, measured.value)
        rows.append(
            {
                "": role,
                "recipe": f"{record.model}, {record.label}",
                "size (MB)": Value(f"{role} size_bytes", (record.size_bytes or 0) / 1e6, ".2f"),
                chosen.name: Value(f"{role} {chosen.name}", measured.value),
                "± 95 %": Value(
                    f"{role} half interval",
                    None if measured.stderr is None else 1.96 * measured.stderr,
                    ".2g",
                ),
                "quality": Value(f"{role} quality", quality, ".1%"),
                "from": Value(f"{role} quality low", low, ".1%"),
                "to": Value(f"{role} quality high", high, ".1%"),
            }
        )
    pieces.append(table(rows))
    answers = {v.answer for v in decision.verdicts}
    confidence = decision.requirements.confidence
    if answers:
        pieces.append(
            sentence(
                f"Of {len(decision.verdicts)} run{'s' * (len(decision.verdicts) != 1)} ",
                Value("passes", sum(v.answer == "passes" for v in decision.verdicts), ".0f"),
                " surely pass, ",
                Value("fails", sum(v.answer == "fails" for v in decision.verdicts), ".0f"),
                " fail, and of ",
                Value("unclear", sum(v.answer == "unclear" for v in decision.verdicts), ".0f"),
                " it cannot be told yet.",
                *_left_out(decision),
                (
                    " The chance of calling any run passing that truly fails is at most"
                    f" {1 - confidence:.2g}, for all runs together."
                    if decision.requirements.accuracy is not None and confidence is not None
                    else ""
                ),
                kind="quiet",
            )
        )
    return Part("The bar and the choice", tuple(pieces))


def _front_part(workspace: Workspace, decision: Decision, metric: str | None) -> Part:
    from workbench.selection import compare
    from workbench.views.figures import static_svg
    from workbench.views.report import Part, Value, table

    chosen = workspace.metric_named(metric)
    view = compare.tradeoff_view(
        workspace.records(),
        chosen,
        task=workspace.task_name,
        outcomes=workspace.outcomes,
        axis=compare.axis_named("size"),
    )
    rows: list[dict[str, str | Value]] = [
        {
            "recipe": shortened(v.run.label, 60),
            "size (MB)": Value("size", (v.run.size_bytes or 0) / 1e6, ".2f"),
            chosen.name: Value(chosen.name, _value(v.run, chosen.name)),
            "quality": Value("quality", v.quality, ".1%"),
            "answer": v.answer,
            "lacks": "; ".join(v.lacks),
            "enough examples": Value("enough", v.enough_examples, ",.0f"),
        }
        for v in decision.verdicts[:MOST_ROWS]
    ]
    more = len(decision.verdicts) - len(rows)
    caption = f"The {len(rows)} smallest; {more} more are left out" if more > 0 else ""
    return Part("Accuracy against size", (static_svg(view), table(rows, caption)))


def _cost_part(workspace: Workspace, prices: CostModel, model: str | None) -> Part:
    from workbench.views.report import Part, Value, sentence, table

    frame = cost_table(workspace.records(), prices, workspace.baseline(model))
    pieces = [
        sentence(
            f"At {prices.price_per_hour_usd:g} dollars an hour and {prices.utilisation:.0%}"
            " utilisation, from measured times"
            + (f". {prices.dated}" if prices.dated else "")
            + (
                f". A service asks {prices.api_per_1k_usd:g} dollars for 1,000 queries"
                if prices.api_per_1k_usd is not None
                else ""
            )
            + "."
        )
    ]
    rows: list[dict[str, str | Value]] = []
    for row in frame.head(MOST_ROWS).to_dict("records"):
        cells: dict[str, str | Value] = {
            "recipe": shortened(str(row["recipe"]), 60),
            "ms a query": Value("ms", 1e3 * row["seconds_per_query"]),
            "dollars per 1,000": Value("per_1k_usd", row["per_1k_usd"], ".3g"),
            "of the base model": Value("of_baseline", _known(row["of_baseline"]), ".0%"),
        }
        if prices.queries_per_month is not None:
            cells["dollars a month"] = Value("per_month_usd", row["per_month_usd"], ",.2f")
        if prices.api_per_1k_usd is not None:
            cells["of the service"] = Value("of_api", _known(row["of_api"]), ".1%")
        if frame["energy_per_1k_kwh"].notna().any():
            energy = _known(row["energy_per_1k_kwh"])
            cells["kWh per 1,000"] = Value("energy_per_1k_kwh", energy, ".3g")
        rows.append(cells)
    if not rows:
        pieces.append(sentence("No run was measured on a machine yet; study.measure(run) does it."))
    else:
        pieces.append(table(rows))
    return Part("What it costs", tuple(pieces))


def _load_part(workspace: Workspace, decision: Decision, run: Run) -> Part:
    from workbench.views.report import Part, code, sentence

    exported = loading_code(workspace, run)
    if exported is not None:
        words = "Its export, which was loaded again and compared when it was written:"
        return Part("How to load it", (sentence(words), code(exported)))
    lines = [
        "import workbench as wb",
        "",
        f"study = wb.Study.open({str(workspace.path)!r})",
        f"model = study.model({run.id!r})    # {run.record.model}, {run.label}",
        "model.hf_model, model.tokenizer    # transformers' own objects",
    ]
    if decision.run is None:
        words = "The nearest run does not surely pass; this loads it all the same."
    else:
        words = "In Python, with the study's folder at hand:"
    return Part("How to load it", (sentence(words), code("\n".join(lines))))


def _about_part(workspace: Workspace, metric: str | None) -> Part:
    from workbench.views.report import Part, sentence

    chosen = workspace.metric_named(metric)
    base = workspace.baseline()
    n = None if base is None else base.measurement(chosen.name)
    better = "higher" if chosen.higher_is_better else "lower"
    pieces = [
        f"{chosen.name}: {better} is better. Intervals are 95 %, clustered by document."
        " Quality is relative to the base model, from both models' outcomes on the same"
        " examples where they have them. Sizes are counted from the stored codes."
    ]
    if n is not None:
        pieces.append(f" The evaluation part has {n.n:,} examples.")
    places = {
        m.conditions.partition(FOR_INFORMATION)[0]
        for r in workspace.records()
        for m in r.measurements
        if m.metric == "latency_ms"
    }
    if places:
        pieces.append(f" Times are of: {'; '.join(sorted(places))}.")
    return Part("About the numbers", (sentence(*pieces, kind="quiet"),))


def _trust_part(trust: Trust) -> Part:
    from workbench.views.figures import Series, small_svg
    from workbench.views.report import Part, Value, sentence, table

    low, high = trust.wrong_interval
    pieces = [
        sentence(
            f"{trust.run.label}: its confidence is off by ",
            Value("calibration error", trust.before.error, ".1%"),
            " on average, ",
            Value("calibration error at temperature", trust.after.error, ".1%"),
            " once divided by the temperature ",
            Value("temperature", trust.temperature, ".2f"),
            f", fitted on other examples. It is wrong and at least {trust.threshold:.0%} sure in ",
            Value("confidently wrong", trust.wrong_rate, ".1%"),
            f" of the examples ({low:.1%} to {high:.1%}). ",
            Value("flips", trust.flips.rate, ".1%"),
            " of its answers differ from the base model's: ",
            Value("lost", len(trust.flips.lost), ".0f"),
            " became wrong, ",
            Value("gained", len(trust.flips.gained), ".0f"),
            " became right.",
        ),
        small_svg(
            "How often it is right when it is so sure",
            [
                Series("as sure as right", (0, 1), (0, 1), line=True, dashed=True),
                *(
                    Series(
                        name,
                        [b.confidence for b in found.bins if b.n],
                        [b.accuracy for b in found.bins if b.n],
                        colour,
                    )
                    for name, found, colour in (
                        ("as recorded", trust.before, "#b2331b"),
                        ("at the temperature", trust.after, "#2a6fb0"),
                    )
                ),
            ],
            x_title="Confidence",
            y_title="Accuracy",
            x_range=(0, 1),
            y_range=(0, 1),
            x_percent=True,
        ),
        "<h3>Where compression hurt most</h3>",
        table(
            [
                {
                    "slice": f"{s.column}: {shortened(s.value, 60)}",
                    "examples": Value("slice n", s.n, ",.0f"),
                    "base model": Value("slice dense", s.dense_accuracy, ".1%"),
                    "this run": Value("slice accuracy", s.accuracy, ".1%"),
                    "change": Value("slice change", s.change, "+.1%"),
                    "surely": "yes" if s.adjusted_p_value < 0.05 else "cannot be told",
                }
                for s in trust.slices[:5]
            ]
        ),
        "<h3>Mistakes that it is sure of</h3>",
        table(
            [
                {
                    "text": shortened(str(row["text"]), LONGEST_TEXT),
                    "label": str(row["label"]),
                    "answer": str(row["prediction"]),
                    "confidence": Value("confidence", row["confidence"], ".0%"),
                }
                for row in trust.confidently_wrong.head(MOST_MISTAKES).to_dict("records")
            ]
        ),
    ]
    return Part("Where it fails", tuple(pieces))


def _latency_rows(routed: Routed) -> list[dict[str, str | Value]]:
    """Return the cascade and its models with the percentiles of their latency, where measured."""
    from workbench.selection.cascades import facts
    from workbench.views.report import Value

    rows: list[dict[str, str | Value]] = []
    for fact in facts(routed.found):
        row: dict[str, str | Value] = {"": shortened(str(fact["what"]), 60)}
        row["accuracy"] = Value("accuracy", _known(fact["accuracy"]), ".1%")
        row[f"cost ({routed.cost_unit})"] = Value("cost", _known(fact["cost"]), ".4g")
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            told = _known(fact[name])
            title = f"{name[:3]} (ms)"
            untold = "not measured" if fact["p50_ms"] is None else "too few texts"
            row[title] = untold if told is None else Value(name, told, ".3g")
        rows.append(row)
    return rows


def _cascade_part(routed: Routed) -> Part:
    from workbench.views.figures import Series, small_svg
    from workbench.views.report import Part, Value, sentence, table

    found, at = routed.found, routed.found.evaluation
    pieces = (
        sentence(str(routed)),
        sentence(
            "Accuracy ",
            Value("cascade accuracy", at.accuracy, ".1%"),
            ", share of the first model ",
            Value("cascade share", at.shares[0], ".1%"),
            ", cost ",
            Value("cascade cost", at.cost, ".4g", routed.cost_unit),
            ".",
        ),
        table(_latency_rows(routed)),
        small_svg(
            "Accuracy against cost over all thresholds",
            [
                Series(
                    "all thresholds, evaluation part",
                    [point.cost for point in found.curve],
                    [point.accuracy for point in found.curve],
                    line=True,
                    dashed=True,
                ),
                Series("chosen on the validation part", [at.cost], [at.accuracy], "#2a6fb0"),
                Series(
                    f"best single model at no more cost: {shortened(found.single, 40)}",
                    [found.single_cost],
                    [found.single_accuracy],
                    "#b2331b",
                ),
            ],
            x_title=f"Cost of a query ({routed.cost_unit})",
            y_title="Accuracy",
        ),
    )
    return Part("A cascade: small first, larger for the hard cases", pieces)


def _value(record: RunRecord, name: str) -> float | None:
    found = record.measurement(name)
    return None if found is None else found.value


def _known(value: object) -> float | None:
    """Return a number, None for a missing one."""
    return float(value) if isinstance(value, (int, float)) and value == value else None


def _left_out(decision: Decision) -> list[str | Value]:
    """Return how many runs are not smaller than what they are compared with, if any."""
    from workbench.views.report import Value

    count = sum(v.answer == "left out" for v in decision.verdicts)
    number = Value("left out", count, ".0f")
    return [" ", number, " not smaller than the reference are left out."] if count else []

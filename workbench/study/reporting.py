"""The report: one page for the person who decides, its numbers those of the study."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.atomic_files import write_file
from workbench.errors import ConfigError, StudyError
from workbench.progress import Progress
from workbench.recipes.recipe import shortened
from workbench.records import FOR_INFORMATION, RunState
from workbench.selection.compare import relative_quality
from workbench.selection.cost import CostModel
from workbench.selection.requirements import Requirements
from workbench.study.deciding import Deciding, Decision
from workbench.study.routing import Routed, Routing
from workbench.study.trusting import Trust
from workbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from workbench.records import RunRecord
    from workbench.study.handles import Run
    from workbench.views.report import Part, Value

MOST_ROWS = 40
MOST_MISTAKES = 10
LONGEST_TEXT = 300


class Reporting(Deciding, Routing):
    """Costs of all runs, and the report."""

    def costs(self, prices: CostModel, *, model: str | None = None) -> pd.DataFrame:
        """Return what every measured run costs, beside the base model and a service's price.

        Parameters
        ----------
        prices : CostModel
            Yours.
        model : str, optional
            The base model that is compared with. Default: the study's first.

        Returns
        -------
        DataFrame
            One row per run that was measured; dollars. ``of_baseline`` and ``of_api`` are ratios.
            A warning says if there is none.

        Raises
        ------
        StudyError
            If the runs were measured on different machines.
        """
        found = self._costs(prices, model)
        if found.empty:
            warnings.warn(
                "No run has measured times yet, from which its cost follows: study.measure(run)"
                " measures one, on the machine that its price is of.",
                stacklevel=2,
            )
        return found

    def _costs(self, prices: CostModel, model: str | None) -> pd.DataFrame:
        import pandas as pd

        from workbench.selection.choice import check_conditions

        records = [r for r in self._store.records() if r.state is RunState.DONE]
        check_conditions(records)
        base = self.baseline(model)
        dense = None if base is None else prices.of(base.record)
        rows = []
        for record in records:
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

    def report(
        self,
        path: str | Path = "report.html",
        requirements: Requirements | None = None,
        *,
        question: str = "",
        cost: CostModel | None = None,
        cascade: Routed | None = None,
        trust: Trust | bool | None = None,
        metric: str | None = None,
        model: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Path:
        """Write one self-contained page: the question, the bar, the choice, its cost and faults.

        It needs no network and no script, fits a phone, and prints.

        Parameters
        ----------
        path : str or Path
            Of the file, replaced if it is there.
        requirements : Requirements, optional
            The bar. Default: 97 % of the base model's quality.
        question : str
            What is to be decided, in your words.
        cost : CostModel, optional
            Default: that of the requirements.
        cascade : Routed, optional
            From :meth:`cascade`.
        trust : Trust or bool, optional
            From :meth:`trust`. Default (None or True): made for the chosen run where the task is
            a classification, which evaluates the validation part the first time; False for none.
        metric, model : str, optional
            As for :meth:`choose`.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ConfigError
            If the file cannot be written.
        """
        from workbench.views.report import Part, render, sentence

        wanted = requirements or Requirements(0.97)
        prices = cost or wanted.cost
        decision = self.choose(wanted, metric=metric, model=model)
        found = decision.nearest_run
        untold = ""
        if trust in (None, True):
            classifies = self._store.meta("task")["saved"]["kind"] == "text_classification"
            trust = None
            if classifies and found is not None:
                try:
                    trust = self.trust(found, on_progress=on_progress)
                except (ConfigError, StudyError) as error:  # the rest of the page is wanted too
                    untold = str(error)
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        task = self._store.meta("task")["name"]
        about = f"Task: {task}. Models: {', '.join(self.models)}. {today}, workbench {__version__}."
        opening = [sentence(about, kind="quiet")]
        if question:
            opening.append(sentence(question))
        opening.append(sentence(decision.nearest, kind=f"answer {decision.answer}"))
        parts = [self._bar_part(decision, metric, model), self._front_part(decision, metric)]
        if prices is not None:
            parts.append(self._cost_part(prices, model))
        if isinstance(trust, Trust):
            parts.append(_trust_part(trust))
        elif untold:
            parts.append(Part("Where it fails", (sentence(f"It cannot be told: {untold}"),)))
        if cascade is not None:
            parts.append(_cascade_part(cascade))
        if found is not None:
            parts.append(self._load_part(decision, found))
        parts.append(self._about_part(metric))
        page = render(f"Which model does {task}?", opening, parts)
        try:
            return write_file(path, page)
        except OSError as error:
            raise ConfigError(
                f"The report cannot be written to {path}: {error.strerror or error}."
            ) from error

    def _bar_part(self, decision: Decision, metric: str | None, model: str | None) -> Part:
        from workbench.views.report import Part, Value, sentence, table

        chosen, base = self._metric(metric), self.baseline(model)
        pieces = [sentence(f"Asked: {decision.requirements}.")]
        rows: list[dict[str, str | Value]] = []
        shown = [
            ("base model", base),
            ("chosen" if decision.run else "nearest", decision.nearest_run),
        ]
        for role, run in shown:
            if run is None or run.record.measurement(chosen.name) is None:
                continue
            record = run.record
            measured = record.measurement(chosen.name)
            assert measured is not None
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
                    (
                        " The chance of calling any run passing that truly fails is at most"
                        f" {1 - decision.requirements.confidence:.2g}, for all runs together."
                        if decision.requirements.accuracy is not None
                        else ""
                    ),
                    kind="quiet",
                )
            )
        return Part("The bar and the choice", tuple(pieces))

    def _front_part(self, decision: Decision, metric: str | None) -> Part:
        from workbench.selection import compare
        from workbench.views.figures import static_svg
        from workbench.views.report import Part, Value, table

        chosen = self._metric(metric)
        view = compare.tradeoff_view(
            self._store.records(),
            chosen,
            task=self._store.meta("task")["name"],
            outcomes=self._outcomes,
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

    def _cost_part(self, prices: CostModel, model: str | None) -> Part:
        from workbench.views.report import Part, Value, sentence, table

        frame = self._costs(prices, model)
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
            pieces.append(
                sentence("No run was measured on a machine yet; study.measure(run) does it.")
            )
        else:
            pieces.append(table(rows))
        return Part("What it costs", tuple(pieces))

    def _load_part(self, decision: Decision, run: Run) -> Part:
        from workbench.views.report import Part, code, sentence

        lines = [
            "import workbench as wb",
            "",
            f"study = wb.Study.open({str(self.path)!r})",
            f"model = study.model({run.id!r})    # {run.record.model}, {run.label}",
            "model.hf_model, model.tokenizer    # transformers' own objects",
        ]
        if decision.run is None:
            words = "The nearest run does not surely pass; this loads it all the same."
        else:
            words = "In Python, with the study's folder at hand:"
        return Part("How to load it", (sentence(words), code("\n".join(lines))))

    def _about_part(self, metric: str | None) -> Part:
        from workbench.views.report import Part, sentence

        chosen = self._metric(metric)
        base = self.baseline()
        n = None if base is None else base.record.measurement(chosen.name)
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
            for r in self._store.records()
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

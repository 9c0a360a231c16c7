"""The model card that is written beside exported weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.export.base import Format, scheme_label
from workbench.export.proof import Proof
from workbench.fields import printable
from workbench.models.loaded import LoadedModel
from workbench.recipes.schemes import SUPER_BLOCK, IntScheme
from workbench.records import Measurement, RunRecord
from workbench.version import __version__

_Z = 1.96  # standard errors to either side of a 95 % interval


@dataclass(frozen=True)
class Origin:
    """What a card says about where a model came from.

    Attributes
    ----------
    run : RunRecord
        The run that is exported.
    baseline : RunRecord or None
        The run of its base model.
    task : str
        Name of the task.
    calibration : dict
        The study's calibration options.
    where : str
        The machine and its software, see :func:`workbench.runtime.measure.environment`.
    """

    run: RunRecord
    baseline: RunRecord | None
    task: str
    calibration: dict[str, Any]
    where: str


def model_card(
    model: LoadedModel, origin: Origin, format: Format, n_bytes: int, proof: Proof
) -> str:
    """Return the card of an export, in Markdown.

    Parameters
    ----------
    model : LoadedModel
        What was exported.
    origin : Origin
    format : Format
    n_bytes : int
        Bytes of the tensors that were written.
    proof : Proof
        How the export compared when it was loaded again.
    """
    run, facts = origin.run, origin.run.facts
    machine, _, software = origin.where.partition(" | ")
    versions = ", ".join(f"{name} {v}" for name, v in facts.get("versions", {}).items())
    recipe = run.recipe.code() if run.recipe.steps else "[]"
    # A card is made to be given away, and where a folder lies is nobody else's business.
    source = model.source.name if model.source.kind == "folder" else model.source.ref
    sections = [
        "---",
        f"library_name: {format.library}",
        "tags: [compression-workbench]",
        "---",
        "",
        f"# {plain(run.model)}, {plain(run.label)}",
        "",
        f"A{' compressed' if model.weights or run.recipe.steps else ''} copy of `{_code(source)}`"
        f" ({model.source.architecture}), made with compression-workbench {__version__} and written"
        f" as {format.title}, for {format.loaders}.",
        "",
        "## Load it",
        "",
        "```python" if "import " in format.loading(model) else "```",
        format.loading(model),
        "```",
    ]
    sections += [*_head(model, format), ""]
    if format.complete:
        sections += ["`workbench.load_model` reads the folder too, codes and all.", ""]
    sections += [
        "## Recipe",
        "",
        "```python",
        f"study.run({recipe})",
        "```",
        "",
        *_calibration(origin),
        "",
        "## Measured",
        "",
        f"On the evaluation part of the task `{_code(origin.task)}`; intervals are 95 %, from"
        " errors clustered by document.",
        "",
        *_metrics(run, origin.baseline),
        "",
        "## Size",
        "",
        "| | bytes |",
        "|---|---|",
        f"| tensors in this format | {n_bytes:,} |",
        f"| packed in the study | {run.size_bytes or 0:,} |",
    ]
    if origin.baseline is not None and origin.baseline.size_bytes:
        sections.append(f"| base model | {origin.baseline.size_bytes:,} |")
    sections += [
        "",
        "## Proof",
        "",
        f"Loaded again from these files, {proof.n_predictions:,} predictions for evaluation inputs"
        f" are {proof.kl:.3g} nats (KL divergence, mean; at most {proof.kl_bound:.2g}) from those"
        f" of the study's run, and {proof.agreement:.2%} have the same top answer (at least"
        f" {proof.agreement_bound:.0%}). The largest difference of {proof.n_logits:,} logits is"
        f" {proof.largest_difference:.3g}, {proof.relative:.2%} of the largest.",
        *_kept_dense(format.kept_dense(model)),
        *_beside_grid(facts.get("beside_grid", {})),
        "",
        "## Made on",
        "",
        f"- machine of the export: {plain(machine)}",
        f"- software of the export: {plain(software)}",
        f"- software of the run: {plain(versions) or 'not recorded'}",
        "",
    ]
    return "\n".join(sections)


def _beside_grid(layers: dict[str, dict[str, Any]]) -> list[str]:
    if not layers:
        return []
    kinds = sorted({scheme_label(IntScheme(**scheme)) for scheme in layers.values()})
    return [
        "",
        f"The width of {len(layers):,} layers (first: {_code(next(iter(layers)))}) is no multiple"
        f" of {SUPER_BLOCK}, so they are not on the recipe's grid but {' and '.join(kinds)}.",
    ]


def _head(model: LoadedModel, format: Format) -> list[str]:
    if model.head is None:
        return []
    how = "mean of the last hidden states over the tokens, then one linear layer"
    labels = f"The classifier of {len(model.head.labels)} labels"
    if not format.complete:
        return ["", f"{labels} ({how}) is in the file; config.json has their names."]
    return [
        "",
        f"{labels} is in `workbench_head.safetensors` ({how}); `workbench.load_model` puts it on,"
        " other programs load the encoder.",
    ]


def _kept_dense(layers: dict[str, str]) -> list[str]:
    if not layers:
        return []
    why = [f"- `{plain(name)}`: {plain(reason)}" for name, reason in layers.items()]
    return [
        "",
        "## Layers that are dense here",
        "",
        f"{len(layers)} layers that are compressed in the run are stored densely, with the same"
        " values:",
        "",
        *why,
    ]


def _calibration(origin: Origin) -> list[str]:
    facts = origin.run.facts
    if "calibration" not in facts:
        return ["No calibration data was used."]
    options = ", ".join(f"{name} {value}" for name, value in facts["calibration"].items())
    tokens = facts.get("calibration_tokens")
    count = "".join(f" {n:,} tokens to {what}," for what, n in (tokens or {}).items())
    return [
        f"Calibrated on the calibration part of the task `{_code(origin.task)}`:{count}"
        f" options {options}."
    ]


def _metrics(run: RunRecord, baseline: RunRecord | None) -> list[str]:
    def shown(found: Measurement | None) -> str:
        if found is None:
            return ""
        unit = f" {found.unit}" if found.unit else ""
        if found.stderr is None:
            return f"{found.value:.4g}{unit}"
        low, high = found.value - _Z * found.stderr, found.value + _Z * found.stderr
        return f"{found.value:.4g}{unit} ({low:.4g} to {high:.4g})"

    lines = ["| metric | this model | base model | examples |", "|---|---|---|---|"]
    seen = set()
    for row in run.measurements:
        if row.part != "evaluation" or row.metric in seen:
            continue
        seen.add(row.metric)
        newest = run.measurement(row.metric)
        base = None if baseline is None else baseline.measurement(row.metric)
        lines.append(f"| {plain(row.metric)} | {shown(newest)} | {shown(base)} | {row.n:,} |")
    return lines


def plain(text: str) -> str:
    """Return a name that cannot break out of a line of Markdown, link anywhere or become HTML."""
    kept = " ".join(printable(text).split()).replace("`", "'").replace("|", "/")
    kept = kept.replace("<", "&lt;").replace(">", "&gt;").replace("://", ":&#47;&#47;")
    return kept.replace("[", "&#91;").replace("]", "&#93;")


def _code(text: str) -> str:
    """Return a name for a span of code, in which nothing but its end has a meaning."""
    return " ".join(printable(text).split()).replace("`", "'").replace("|", "/")

"""Exporting runs: what is offered, and files that other programs load."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import StudyError
from workbench.progress import Monitor, Progress
from workbench.records import Measurement, RunRecord, RunState
from workbench.study.workspace import HasId, Workspace

if TYPE_CHECKING:
    import torch

    from workbench.export import Exported, ExportOffer, Format, Proof
    from workbench.models.loaded import LoadedModel

PART = "export"
"""``Measurement.part`` of what an export's proof measured."""


def export(
    workspace: Workspace,
    run: HasId | str,
    path: str | os.PathLike[str],
    format: str = "hf",
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Write a run's model for other programs; see :meth:`Study.export`."""
    from workbench.export import export_model, format_named
    from workbench.export.card import Origin, model_card
    from workbench.export.proof import prove
    from workbench.runtime.measure import conditions
    from workbench.study.running.engine import calibration_options

    format_named(format)
    record = _done(workspace, run)
    monitor = Monitor(on_progress)
    model = workspace.engine.model(record.id)
    origin = Origin(
        run=record,
        baseline=workspace.baseline(record.model),
        task=workspace.task_name,
        calibration=dataclasses.asdict(calibration_options(workspace.store)),
        where=conditions(str(model.device)),
    )

    def proof_of(found: LoadedModel, dtype: torch.dtype) -> Proof:
        return prove(model, found, workspace.task, dtype, monitor=monitor)

    def card(chosen: Format, n_bytes: int, proof: Proof) -> str:
        return model_card(model, origin, chosen, n_bytes, proof)

    exported = export_model(
        model,
        path,
        format,
        prove=proof_of,
        card=card,
        overwrite=overwrite,
        monitor=monitor,
    )
    told = {
        "path": str(exported.path),
        "loading": format_named(format).loading(model.as_measured()),
    }
    workspace.store.set_meta(f"export {record.id}", told)
    proof = exported.proof
    measured = {
        "export_bytes": (exported.bytes_on_disk, "bytes", 1),
        "export_tensor_bytes": (exported.tensor_bytes, "bytes", 1),
        "export_difference": (exported.largest_difference, "", proof.n_logits),
        "export_kl": (proof.kl, "nats", proof.n_predictions),
    }
    workspace.store.add_measurements(
        record.id,
        [
            Measurement(name, value, unit, n, None, PART, None, format, origin.where)
            for name, (value, unit, n) in measured.items()
        ],
    )
    return exported


def loading_code(workspace: Workspace, run: HasId) -> str | None:
    """Return the code that loads a run's newest export, None where there is none any more."""
    told = workspace.store.meta(f"export {run.id}")
    if told is None or not Path(told["path"]).is_dir():
        return None
    return str(told["loading"]).replace("FOLDER", Path(told["path"]).as_posix())


def export_offers(workspace: Workspace, run: HasId | str) -> tuple[ExportOffer, ...]:
    """Return which formats can hold a run's model, how large, or why not."""
    from workbench.export import offers

    return offers(workspace.engine.model(_done(workspace, run).id))


def export_bytes(workspace: Workspace, run: HasId | str, format: str) -> int:
    """Return the bytes of a run's export before it is made; see :meth:`Study.export_bytes`."""
    from workbench.export import export_bytes

    return export_bytes(workspace.engine.model(_done(workspace, run).id), format)


def _done(workspace: Workspace, run: HasId | str) -> RunRecord:
    record = workspace.record_of(run)
    if record.state is not RunState.DONE:
        raise StudyError(
            f"Run {record.id} ({record.label}) is {record.state.value}; only a finished run has a"
            " model to export."
        )
    return record

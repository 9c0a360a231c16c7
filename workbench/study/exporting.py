"""Exporting runs: what is offered, and files that other programs load."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import StudyError
from workbench.progress import Progress
from workbench.records import Measurement, RunState
from workbench.study.base import StudyBase
from workbench.study.handles import Run

if TYPE_CHECKING:
    import torch

    from workbench.export import Exported, ExportOffer, Format, Proof
    from workbench.models.loaded import LoadedModel

PART = "export"
"""``Measurement.part`` of what an export's proof measured."""


class Exporting(StudyBase):
    """Runs written in other programs' formats."""

    def export(
        self,
        run: Run | str,
        path: str | os.PathLike[str],
        format: str = "hf",
        *,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Exported:
        """Write a run's model to a folder in a format that other programs load.

        What was written is loaded again, and its predictions for evaluation inputs are compared
        with the run's; only then does the folder appear under its name. The bytes on disk, the KL
        divergence and the largest difference of a logit are recorded on the run
        (``part="export"``). A model card is written beside the weights. A layer whose codes the
        format cannot hold is written densely where its loaders allow it; the result and the card
        name it.

        Parameters
        ----------
        run : Run or str
            A finished run, or its id.
        path : str or path
            The folder; made with its parents.
        format : str
            A name of :data:`workbench.export.FORMATS`; :meth:`export_offers` says which can
            hold the run's model.
        overwrite : bool
            Whether an earlier export in that place is replaced, once the new one is complete.
        on_progress : callable, optional
            Called with every :class:`workbench.progress.Progress`.

        Raises
        ------
        ExportError
            If the format cannot hold the model (the message names the nearest that can), the
            folder cannot be written, or what was written predicts otherwise. What was there
            before is still there.
        StudyError
            If the run is not done.
        """
        import dataclasses

        from workbench.export import export_model, format_named
        from workbench.export.card import Origin, model_card
        from workbench.export.proof import prove
        from workbench.progress import Monitor
        from workbench.runtime.measure import conditions
        from workbench.study.running.engine import calibration_options

        format_named(format)
        id = self._done(run)
        monitor = Monitor(on_progress)
        model = self._get_engine().model(id)
        record = self._handle(id).record
        baseline = self.baseline(record.model)
        origin = Origin(
            run=record,
            baseline=None if baseline is None else baseline.record,
            task=self._store.meta("task")["name"],
            calibration=dataclasses.asdict(calibration_options(self._store)),
            where=conditions(model.device.type),
        )

        def proof_of(found: LoadedModel, dtype: torch.dtype) -> Proof:
            return prove(model, found, self.task, dtype, monitor=monitor)

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
        measured = {
            "export_bytes": (exported.bytes_on_disk, "bytes", 1),
            "export_tensor_bytes": (exported.tensor_bytes, "bytes", 1),
            "export_difference": (exported.largest_difference, "", exported.proof.n_logits),
            "export_kl": (exported.proof.kl, "nats", exported.proof.n_predictions),
        }
        self._store.add_measurements(
            id,
            [
                Measurement(name, value, unit, n, None, PART, None, format, origin.where)
                for name, (value, unit, n) in measured.items()
            ],
        )
        return exported

    def export_offers(self, run: Run | str) -> tuple[ExportOffer, ...]:
        """Return for every format whether a run's model fits into it, how large, or why not."""
        from workbench.export import offers

        return offers(self._get_engine().model(self._done(run)))

    def export_bytes(self, run: Run | str, format: str) -> int:
        """Return the bytes that all tensors of a run's export will have; nothing is written.

        Raises
        ------
        ExportError
            If the format cannot hold the model.
        """
        from workbench.export import export_bytes

        return export_bytes(self._get_engine().model(self._done(run)), format)

    def _done(self, run: Run | str) -> str:
        id = self._id_of(run)
        record = self._handle(id).record
        if record.state is not RunState.DONE:
            raise StudyError(
                f"Run {id} ({record.label}) is {record.state.value}; only a finished run has a"
                " model to export."
            )
        return id

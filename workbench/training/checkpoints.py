"""Where a training stands, in one file that replaces the one before: safetensors, no pickle."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from workbench.atomic_files import aside_of
from workbench.tensors.memory_mapped import read_tensors


@dataclass(frozen=True)
class CheckpointFile:
    """The checkpoint of one training.

    Attributes
    ----------
    path : Path
        A ``.safetensors`` file; its folder is made when it is needed.
    most_bytes : int
        A larger checkpoint is not written. Older ones of other trainings in the same folder are
        removed where all together would be larger.
    """

    path: Path
    most_bytes: int = 2_000_000_000

    def refusal(self, size: int) -> str | None:
        """Return why a checkpoint of so many bytes is not kept, None if it is."""
        if size <= self.most_bytes:
            return None
        return (
            f"no checkpoint is kept: it would take {size / 1e9:.1f} GB, and the study's"
            f" disk_budget_bytes is {self.most_bytes / 1e9:.1f} GB"
        )

    def save(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bool:
        """Replace the checkpoint, and return whether it was written; killed at any moment, one is.

        Parameters
        ----------
        tensors : mapping of str to Tensor
        meta : mapping
            JSON-ready; floats come back to the last bit.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if size > self.most_bytes:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        unfinished = aside_of(self.path)
        contents = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        try:
            save_file(contents, str(unfinished), metadata={"checkpoint": json.dumps(meta)})
            with unfinished.open("r+b") as stream:
                os.fsync(stream.fileno())
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)  # half of one on a full disk helps nobody
        return True

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and what was said about them, None if there is no usable file."""
        try:
            tensors, metadata = read_tensors(self.path)
            return tensors, json.loads(metadata["checkpoint"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _make_room(self, size: int) -> None:
        others = [p for p in self.path.parent.glob("*.safetensors") if p != self.path]
        for path in sorted(others, key=_modified, reverse=True):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
                if size > self.most_bytes:
                    path.unlink()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

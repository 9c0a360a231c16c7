"""Tokens that a foreign loader and our own model both read, and the perplexity that each gives."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.peers.client import Peer
from workbench.models.loaded import LoadedModel
from workbench.study import Run


@dataclass
class Windows:
    """Rows of tokens, and the file that hands them to the loaders."""

    path: Path
    rows: list[list[int]]

    @torch.no_grad()
    def perplexity(self, model: LoadedModel) -> float:
        """Return what our own model makes of them."""
        total, count = 0.0, 0
        for row in self.rows:
            logits = model.hf_model(input_ids=torch.tensor([row])).logits[0, :-1].float()
            total += float(cross_entropy(logits, torch.tensor(row[1:]), reduction="sum"))
            count += len(row) - 1
        return math.exp(total / count)


def windows_of(path: Path, rows: list[list[int]]) -> Windows:
    """Write rows to a file."""
    path.write_text(json.dumps(rows))
    return Windows(path, rows)


def perplexity(peer: Peer, loader: str, folder: Path, windows: Windows) -> float:
    """Return what a foreign loader's own logits give."""
    answer: dict[str, Any] = peer.run(
        {"load": loader, "folder": str(folder), "windows": str(windows.path)}
    )
    return math.exp(answer["loss"] / answer["predictions"])


def measured(run: Run) -> float:
    """Return the study's perplexity of a run."""
    found = run.record.measurement("perplexity")
    assert found is not None
    return found.value

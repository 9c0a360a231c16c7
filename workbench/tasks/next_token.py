"""What tasks of next-token models share: the check, the logits, and how many are held at once."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.models.architectures import is_seq2seq
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import BATCH_TOKENS, LOGITS_BYTES, Batch, Task
from workbench.tasks.output import Output
from workbench.tasks.scoring import score


class NextToken(Task):
    """A task whose predictions are next tokens."""

    output = Output.TOKENS
    answers_prompts: ClassVar[bool] = False
    """Whether something is given and the rest is predicted, as an encoder-decoder needs it."""

    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return the model itself after checking that it predicts next tokens.

        Raises
        ------
        UnsupportedArchitectureError
            If the model has no language-modelling head, or is an encoder-decoder and nothing of
            the task's texts is given.
        """
        kind = type(model.hf_model).__name__
        if model.is_encoder_decoder and not self.answers_prompts:
            raise UnsupportedArchitectureError(
                f"{kind} is an encoder-decoder: it writes an answer to what it is given, and"
                f" {type(self).__name__} does not say what that is. Use Extraction, Summarization"
                " or PromptAnswers, or a decoder-only model such as Llama, Qwen or GPT-2."
            )
        if not model.is_decoder and not (model.is_encoder_decoder and is_seq2seq(kind)):
            raise UnsupportedArchitectureError(
                f"{kind} does not predict next tokens, so perplexity has no"
                " meaning for it. Give a causal language model (AutoModelForCausalLM), or use"
                " TextClassification for encoders."
            )
        return model

    def logits(self, model: LoadedModel, batch: Batch) -> Tensor:
        """Return next-token logits of shape (examples, tokens, vocabulary)."""
        return model.hf_model(**batch.to(model.device).inputs, use_cache=False).logits

    def count_predictions(self, batch: Batch) -> int:
        return sum(stop - start for start, stop in _places(batch))

    def flat_logits(self, logits: Tensor, batch: Batch) -> Tensor:
        chosen = torch.zeros(logits.shape[:2], dtype=torch.bool)
        for row, (start, stop) in enumerate(_places(batch)):
            chosen[row, start:stop] = True
        return logits[chosen.to(logits.device)]

    def targets(self, batch: Batch) -> Tensor:
        """Return the next tokens, see :class:`Task`."""
        return torch.tensor(
            [token for tokens in _targets(batch) for token in tokens], dtype=torch.int64
        )

    def _logits_budget(self, model: LoadedModel) -> int:
        vocabulary = getattr(model.hf_model.config.get_text_config(), "vocab_size", 50_000)
        return min(BATCH_TOKENS, LOGITS_BYTES // (4 * vocabulary))

    def _prediction_logits(self, batch: Batch, logits: Tensor) -> list[Tensor]:
        return [logits[row, start:stop] for row, (start, stop) in enumerate(_places(batch))]

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        columns: dict[str, list[float]] = {
            name: [] for name in ("loss", "n_predictions", "kl", "n_correct", "n_bytes")
        }
        views = self._prediction_logits(batch, logits)
        for i, (example, wanted) in enumerate(zip(batch.examples, _targets(batch), strict=True)):
            targets = torch.tensor(wanted, dtype=torch.int64, device=logits.device)
            scores = score(views[i], targets, None if dense is None else dense[i])
            columns["loss"].append(float(scores.loss.sum()))
            columns["n_predictions"].append(len(targets))
            columns["kl"].append(math.nan if dense is None else float(scores.kl.sum()))
            columns["n_correct"].append(int((scores.prediction == targets.cpu()).sum()))
            columns["n_bytes"].append(example.n_bytes)
        return dict(columns)


def _places(batch: Batch) -> list[tuple[int, int]]:
    """Return at which positions of the logits each example's tokens are predicted."""
    if batch.decoder_input_ids is not None:  # begins with a token that stands for nothing
        return [(0, len(e.target)) for e in batch.examples]
    return [(max(e.n_given, 1) - 1, len(e.tokens) - 1) for e in batch.examples]


def _targets(batch: Batch) -> list[list[int]]:
    """Return what each example's predicted tokens are."""
    if batch.decoder_input_ids is not None:
        return [e.target for e in batch.examples]
    return [e.tokens[max(e.n_given, 1) :] for e in batch.examples]

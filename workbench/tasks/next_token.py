"""What tasks of next-token models share: the check, the logits, and how many are held at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.models.load import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import BATCH_TOKENS, LOGITS_BYTES, Batch, Task
from workbench.tasks.scoring import score


class NextToken(Task):
    """A task whose predictions are next tokens."""

    def bind(self, model: LoadedModel, *, monitor: Monitor = SILENT) -> LoadedModel:
        """Return the model itself after checking that it predicts next tokens.

        Raises
        ------
        UnsupportedArchitectureError
            If the model has no language-modelling head.
        """
        hf_model = model.hf_model
        if not model.is_decoder:
            raise UnsupportedArchitectureError(
                f"{type(hf_model).__name__} does not predict next tokens, so perplexity has no"
                " meaning for it. Give a causal language model (AutoModelForCausalLM), or use"
                " TextClassification for encoders."
            )
        if getattr(hf_model.config, "is_encoder_decoder", False):
            raise UnsupportedArchitectureError(
                f"{type(hf_model).__name__} is an encoder-decoder; {type(self).__name__} needs a"
                " decoder-only model such as Llama, Qwen or GPT-2."
            )
        return model

    def logits(
        self, model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Return next-token logits of shape (examples, tokens, vocabulary)."""
        output = model.hf_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return output.logits

    def count_predictions(self, input_ids: Tensor, attention_mask: Tensor) -> int:
        return int(attention_mask[:, 1:].sum())

    def flat_logits(self, logits: Tensor, attention_mask: Tensor) -> Tensor:
        return logits[:, :-1][attention_mask[:, 1:].bool()]

    def predicted(self, batch: Batch) -> Tensor:
        """Return one where a token is predicted: all that are real and not given."""
        mask = super().predicted(batch).clone()
        for row, example in enumerate(batch.examples):
            mask[row, : example.n_given] = 0
        return mask

    def targets(self, batch: Batch) -> Tensor:
        """Return the next tokens, see :class:`Task`."""
        return batch.input_ids[:, 1:][self.predicted(batch)[:, 1:].bool()]

    def _logits_budget(self, model: LoadedModel) -> int:
        vocabulary = getattr(model.hf_model.config.get_text_config(), "vocab_size", 50_000)
        return min(BATCH_TOKENS, LOGITS_BYTES // (4 * vocabulary))

    def _prediction_logits(self, batch: Batch, logits: Tensor) -> list[Tensor]:
        return [
            logits[i, max(e.n_given, 1) - 1 : len(e.tokens) - 1]
            for i, e in enumerate(batch.examples)
        ]

    def _columns(self, batch: Batch, logits: Tensor, dense: list[Tensor] | None) -> dict[str, Any]:
        columns: dict[str, list[float]] = {
            name: [] for name in ("loss", "n_predictions", "kl", "n_correct", "n_bytes")
        }
        for i, (example, view) in enumerate(
            zip(batch.examples, self._prediction_logits(batch, logits), strict=True)
        ):
            first = max(example.n_given, 1)
            targets = batch.input_ids[i, first : len(example.tokens)].to(view.device)
            scores = score(view, targets, None if dense is None else dense[i])
            columns["loss"].append(float(scores.loss.sum()))
            columns["n_predictions"].append(len(targets))
            columns["kl"].append(float(scores.kl.sum()))
            columns["n_correct"].append(int((scores.prediction == targets.cpu()).sum()))
            columns["n_bytes"].append(example.n_bytes)
        return dict(columns)

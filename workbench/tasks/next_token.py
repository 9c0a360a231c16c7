"""What tasks of next-token models share: the check, the logits, and how many are held at once."""

from __future__ import annotations

from torch import Tensor

from workbench.errors import UnsupportedArchitectureError
from workbench.models import LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import BATCH_TOKENS, LOGITS_BYTES, Task


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

    def _logits_budget(self, model: LoadedModel) -> int:
        vocabulary = getattr(model.hf_model.config.get_text_config(), "vocab_size", 50_000)
        return min(BATCH_TOKENS, LOGITS_BYTES // (4 * vocabulary))

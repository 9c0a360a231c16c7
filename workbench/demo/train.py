"""Train the bundled model: a small Llama on the sources and documentation of the standard library.

    python -m workbench.demo.train --out my-model --tokens 24_000_000

The learning rate is warmed up, held, and decayed to zero over the last part of the token budget
(warm-up, stable, decay), so that a longer run continues from the checkpoint of a shorter one that
was saved before its decay. Matrices inside the blocks are trained by Muon, all else by AdamW.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.demo import stdlib
from workbench.demo.card import model_card
from workbench.errors import ConfigError

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that determines the trained weights, beside the interpreter's own sources."""

    tokens: int = 24_000_000
    sequence_length: int = 512
    batch_size: int = 16
    warmup_steps: int = 60
    decay_fraction: float = 0.35
    muon_learning_rate: float = 0.02
    adamw_learning_rate: float = 0.003
    weight_decay: float = 0.1
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch_size * self.sequence_length)


def model_config(vocab_size: int, end_id: int) -> LlamaConfig:
    """Return the architecture of the bundled model: 6.55 M parameters in eight blocks."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=end_id,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )


def train_tokenizer(texts: list[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Fit a byte-level BPE tokenizer on the training texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=512,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tensor]:
    """Return one int64 token tensor per text, each begun by the end-of-text token."""
    end = tokenizer.eos_token_id
    rows = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return [torch.tensor([end, *row.ids]) for row in rows]


class _Batches:
    """Windows of a shuffled token stream; position and epoch follow from the step alone."""

    def __init__(self, documents: list[Tensor], options: TrainingOptions) -> None:
        self._documents = documents
        self._options = options
        self._n_windows = (sum(map(len, documents)) - 1) // options.sequence_length
        self._epoch = -1
        self._stream = torch.empty(0)
        self._order = torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, each int64 of shape (batch, sequence), for one step."""
        size, length = self._options.batch_size, self._options.sequence_length
        per_epoch = self._n_windows // size
        epoch, index = divmod(step, per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._options.seed * 1000 + epoch)
            order = torch.randperm(len(self._documents), generator=generator).tolist()
            stream = torch.cat([self._documents[i] for i in order])
            # A shifted start, so that an epoch's windows cut the text elsewhere than the last's.
            shift = int(torch.randint(length, (1,), generator=generator))
            self._stream = stream.roll(-shift)
            self._order = torch.randperm(self._n_windows, generator=generator)
            self._epoch = epoch
        starts = self._order[index * size : (index + 1) * size] * length
        rows = torch.stack([self._stream[s : s + length + 1] for s in starts.tolist()])
        return rows[:, :-1], rows[:, 1:]


def _optimizers(model: nn.Module, options: TrainingOptions) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices,
            lr=options.muon_learning_rate,
            momentum=0.95,
            weight_decay=options.weight_decay,
        ),
        torch.optim.AdamW(
            rest, lr=options.adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.01
        ),
    ]


def _rate(step: int, options: TrainingOptions) -> float:
    """Return the learning-rate factor in [0, 1]: warm-up, stable, then linear decay to zero."""
    decay_steps = max(1, int(options.steps * options.decay_fraction))
    return min(1.0, (step + 1) / options.warmup_steps, (options.steps - step) / decay_steps)


@torch.no_grad()
def evaluate(model: nn.Module, documents: list[Tensor], length: int = 256) -> dict[str, float]:
    """Return held-out perplexity and next-token accuracy over windows of ``length`` tokens."""
    model.eval()
    loss_sum, hits, count = 0.0, 0, 0
    for document in documents:
        for start in range(0, len(document) - 1, length):
            window = document[start : start + length + 1]
            logits = model(window[None, :-1]).logits[0].float()
            loss_sum += float(nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            hits += int((logits.argmax(-1) == window[1:]).sum())
            count += len(window) - 1
    model.train()
    return {"perplexity": math.exp(loss_sum / count), "accuracy": hits / count, "tokens": count}


def train(out: Path, options: TrainingOptions, *, resume: Path | None = None) -> dict[str, Any]:
    """Train a model, save it with its tokenizer into ``out``, and return the training record.

    A checkpoint is written to ``out/checkpoint.pt`` every ten minutes and just before the decay
    begins; ``resume`` continues from one of them with these options.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"Training needs torch 2.9 or newer for Muon; this is {torch.__version__}."
        )
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    documents = stdlib.training_documents()
    tokenizer = train_tokenizer([d.text for d in documents])
    batches = _Batches(encode(tokenizer, [d.text for d in documents]), options)
    validation = encode(tokenizer, [d.text for d in stdlib.held_out_documents("validation")])
    model = LlamaForCausalLM(model_config(len(tokenizer), tokenizer.eos_token_id))
    optimizers = _optimizers(model, options)
    base_rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
    first, curve, seconds_before = 0, [], 0.0
    if resume is not None:
        state = torch.load(resume, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first, curve, seconds_before = state["step"], state["curve"], state["seconds"]

    run = torch.compile(model)
    decay_start = options.steps - int(options.steps * options.decay_fraction)
    started = last_saved = time.perf_counter()
    running = 0.0

    def save_checkpoint(step: int, name: str) -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "curve": curve,
            "seconds": seconds_before + time.perf_counter() - started,
        }
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").replace(out / name)

    for step in range(first, options.steps):
        inputs, targets = batches.at(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = run(inputs).logits
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = _rate(step, options)
        for optimizer, rates in zip(optimizers, base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if running == 0 else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 100 == 0 or step + 1 == options.steps:
            held_out = evaluate(model, validation[:8])
            seconds = seconds_before + time.perf_counter() - started
            tokens = (step + 1) * options.batch_size * options.sequence_length
            point = {
                "step": step + 1,
                "tokens": tokens,
                "loss": round(running, 4),
                "held_out_perplexity": round(held_out["perplexity"], 3),
                "seconds": round(seconds),
            }
            curve.append(point)
            print(json.dumps(point), flush=True)
        if step + 1 == decay_start:
            save_checkpoint(step + 1, "before-decay.pt")
        if time.perf_counter() - last_saved > 600:
            save_checkpoint(step + 1, "checkpoint.pt")
            last_saved = time.perf_counter()

    final = evaluate(
        model, encode(tokenizer, [d.text for d in stdlib.held_out_documents("evaluation")])
    )
    record: dict[str, Any] = {
        "options": asdict(options),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_text_sha256": hashlib.sha256(
            "\0".join(d.text for d in documents).encode()
        ).hexdigest(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "hardware": f"{torch.get_num_threads()} CPU threads",
        "seconds": round(seconds_before + time.perf_counter() - started),
        "held_out": {k: round(v, 4) for k, v in final.items()},
        "curve": curve,
    }
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(record), encoding="utf-8")
    return record


def main() -> None:
    """Train the bundled model as the command line says."""
    defaults = TrainingOptions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for model and record")
    parser.add_argument("--tokens", type=int, default=defaults.tokens, help="tokens to see")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--resume", type=Path, help="a checkpoint written by an earlier run")
    args = parser.parse_args()
    options = TrainingOptions(tokens=args.tokens, seed=args.seed)
    record = train(args.out, options, resume=args.resume)
    print(json.dumps(record["held_out"]))


if __name__ == "__main__":
    main()

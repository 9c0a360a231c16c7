"""The model card of the bundled model, written from its training record."""

from __future__ import annotations

from typing import Any

from workbench.demo import stdlib


def model_card(record: dict[str, Any]) -> str:
    """Return the model card of a training record, in Markdown."""
    options, held_out, curve = record["options"], record["held_out"], record["curve"]
    modules = {
        part: ", ".join(f"`{m}`" for group in groups.values() for m in group)
        for part, groups in stdlib.HELD_OUT.items()
    }
    points = "\n".join(
        f"| {p['tokens'] / 1e6:.1f} M | {p['loss']:.3f} | {p['held_out_perplexity']:.2f} |"
        for p in curve[:: max(1, len(curve) // 10)]
    )
    return f"""# The bundled model

A Llama of {record["parameters"] / 1e6:.2f} M parameters (eight blocks, width 256, FFN 640, grouped-query
attention, tied embeddings, byte-level BPE of 4,096 tokens, 512 positions) that continues Python source code. It is
small enough to compress in seconds and good enough for compression to hurt. It is for demonstrations, tests and
teaching; it writes plausible Python, not correct Python.

| | |
|---|---|
| held-out perplexity | {held_out["perplexity"]:.2f} per token ({held_out["tokens"]:,} tokens; windows of 256, each after its real preceding token; the demo task begins each with end-of-text, which reads about 6 % higher) |
| held-out next-token accuracy | {held_out["accuracy"]:.1%} |
| tokens seen | {options["tokens"]:,} ({options["batch_size"]} × {options["sequence_length"]} per step) |
| hardware, time | {record["hardware"]}, {record["seconds"] / 60:.0f} minutes beside other work |
| software | Python {record["python"]}, torch {record["torch"]}, seed {options["seed"]} |

## Data

Sources and documentation of the Python {record["python"]} standard library: the `.py` files without tests and code
tables, the language reference that `pydoc` ships, and the docstrings of modules written in C. The sha256 of the
training text is `{record["training_text_sha256"][:16]}…`; another version of Python gives another text.

Never trained on, whole modules:

- evaluation: {modules["evaluation"]}
- validation: {modules["validation"]}
- calibration: {modules["calibration"]}

## Training

Muon on the matrices inside the blocks (learning rate {options["muon_learning_rate"]}), AdamW on the rest
({options["adamw_learning_rate"]}); warm-up, stable, then linear decay over the last
{options["decay_fraction"]:.0%}. The perplexity below is of part of the validation modules; `training.json` has the
whole curve. `python -m workbench.demo.train --out my-model --tokens {options["tokens"]}` trains it again (on glibc,
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` set to a few gigabytes make that half as fast again, because
large tensors are then not returned to the system after every step).

| tokens | training loss | validation perplexity |
|---|---|---|
{points}

## Licence

The weights are released under Apache-2.0, as the package is. The texts are copyright of the Python Software
Foundation and its contributors, under the PSF licence version 2, which allows derivative works with attribution.
"""

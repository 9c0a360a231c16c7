"""A T5 from scratch to a smaller one: trained, compressed, predicted, chosen, exported.

    python benchmarks/encoder_decoder.py

Texts about debts are generated ("Grace lent Ada 57 crowns in May ...", with a second debt between
other people beside it, in several wordings); who owes, how much and since when is to be extracted.
A gated T5 of about a million parameters and a word-level vocabulary is trained on them by
FineTuning until it answers. A study then predicts quantized and pruned models before any of them is
run, runs them all, chooses, and exports the choice. Reported: exact match, KL divergence, what GPTQ
gains over RTN at the same bits, Spearman's rank correlation and the level (predicted / measured) of
the predictions. Prints tables, writes a JSON.
"""

from __future__ import annotations

import calendar
import json
import random
import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import workbench as wb
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import compress
from workbench.models.load import LoadedModel
from workbench.recipe import Recipe

NAMES = (
    *("Ada", "Alan", "Alonzo", "Barbara", "Claude", "Dana", "Dorothy", "Edsger", "Emmy", "Evelyn"),
    *("Fran", "Grace", "Hedy", "Ida", "Jean", "Joan", "John", "Karen", "Katherine", "Ken"),
    *("Leslie", "Lynn", "Margaret", "Mary", "Niklaus", "Peter", "Radia", "Robin", "Shafi", "Tony"),
)
MONTHS = calendar.month_name[1:]
WORDINGS = (
    "{debtor} owes {creditor} {amount} crowns since {month}",
    "{creditor} lent {debtor} {amount} crowns in {month}",
    "in {month} {debtor} borrowed {amount} crowns from {creditor}",
    "{amount} crowns went from {creditor} to {debtor} in {month} as a loan",
    "since {month} the debt of {debtor} to {creditor} is {amount} crowns",
)
FIELDS = ("debtor", "amount", "month")

RECIPES = [
    *(m(b, group_size=g) for m in (wb.RTN, wb.GPTQ, wb.AWQ) for b in (4, 3, 2) for g in (32, 128)),
    *(wb.MagnitudePruning(ratio) for ratio in (0.2, 0.4, 0.6)),
    *(wb.Wanda(ratio) for ratio in (0.3, 0.5)),
    wb.SparseGPT(0.5),
]


def rows_of(count: int, seed: int) -> dict[str, list[str]]:
    """Return texts of one debt that is asked for and one that is not, and the fields of the former.

    Whose debt is asked for is said first, so the answer needs the whole text.
    """
    draw = random.Random(seed)
    table: dict[str, list[str]] = {name: [] for name in ("text", *FIELDS)}
    for _ in range(count):
        people = draw.sample(NAMES, 4)
        debts = [
            {
                "debtor": people[2 * i],
                "creditor": people[2 * i + 1],
                "amount": str(draw.randint(2, 99)),
                "month": draw.choice(MONTHS),
            }
            for i in range(2)
        ]
        told = [draw.choice(WORDINGS).format(**debt) for debt in debts]
        draw.shuffle(told)
        text = f"a debt to {debts[0]['creditor']} : {told[0]} . {told[1]} ."
        for name, value in {"text": text, **debts[0]}.items():
            if name in table:
                table[name].append(value)
    return table


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words that ends every text as T5's does."""
    text = " ".join([*WORDINGS, *NAMES, *MONTHS, *map(str, range(100)), *FIELDS, "a debt to : . |"])
    words = sorted({w for w in text.split() if "{" not in w})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def fresh_model(seed: int = 0) -> LoadedModel:
    """Return a gated T5 (as T5 1.1 and FLAN-T5, but with tied embeddings) of random weights."""
    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return wb.load_model(T5ForConditionalGeneration(config), tokenizer)


def debts(rows: int, seed: int = 0) -> wb.Extraction:
    """Return the task: two thirds of the rows to learn from, the rest to judge by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wb.Extraction(
            calibration=rows_of(rows, seed),
            validation=rows_of(300, seed + 1),
            evaluation=rows_of(600, seed + 2),
            fields=FIELDS,
            template="{text}",
            shots=0,
            sequence_length=96,
            max_new_tokens=16,
            name="debts",
        )


def trained(task: wb.Extraction, folder: Path, epochs: float, rate: float) -> LoadedModel:
    """Return the model after training on the calibration part."""
    step = wb.FineTuning(epochs=epochs, learning_rate=rate, batch_size=32, patience=None)
    made = compress(fresh_model(), Recipe.of(step), Calibrator(task, folder=folder / "statistics"))
    print(json.dumps(made.facts["training"][0]["validation"][-3:]), flush=True)
    return wb.load_model(wb.save_model(made.model, folder / "t5"))

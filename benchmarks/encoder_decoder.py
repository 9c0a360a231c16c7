"""A T5 from scratch to a smaller one: trained, compressed, predicted, chosen, exported.

    python benchmarks/encoder_decoder.py

Texts about debts are generated ("Grace lent Ada 57 crowns in May", in several wordings, with a
sentence about somebody else); how much of which coin, and since when, is to be extracted. One in
ten amounts and months to learn from is wrong, as in people's tables; those to judge by are right.
A gated T5 of about a million parameters and a word-level vocabulary is trained on them by
FineTuning until it answers. A study then predicts quantized and pruned models before any of them is
run, runs them all, chooses, and exports the choice. Reported: exact match, KL divergence, what GPTQ
gains over RTN at the same bits, Spearman's rank correlation and the level (predicted / measured) of
the predictions. Prints tables, writes a JSON.
"""

from __future__ import annotations

import argparse
import calendar
import json
import platform
import random
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import workbench as wb
from workbench.calibration.calibrate import Calibrator
from workbench.compression.compress import compress
from workbench.models.load import LoadedModel
from workbench.prediction.predict import raw_cost
from workbench.progress import Monitor, Progress
from workbench.recipes.recipe import Recipe
from workbench.records import RunState
from workbench.study.predictions import cost_table

NAMES = (
    *("Ada", "Alan", "Alonzo", "Barbara", "Claude", "Dana", "Dorothy", "Edsger", "Emmy", "Evelyn"),
    *("Fran", "Grace", "Hedy", "Ida", "Jean", "Joan", "John", "Karen", "Katherine", "Ken"),
    *("Leslie", "Lynn", "Margaret", "Mary", "Niklaus", "Peter", "Radia", "Robin", "Shafi", "Tony"),
)
MONTHS = calendar.month_name[1:]
WORDINGS = (
    "{debtor} owes {creditor} {amount} {coin} since {month}",
    "{creditor} lent {debtor} {amount} {coin} in {month}",
    "in {month} {debtor} borrowed {amount} {coin} from {creditor}",
    "{amount} {coin} went from {creditor} to {debtor} in {month} as a loan",
    "since {month} the debt of {debtor} to {creditor} is {amount} {coin}",
)
COINS = ("crowns", "dollars", "euros", "francs", "guilders", "pounds", "rubles", "yen")
FIELDS = ("amount", "coin", "month")
WRONG = 0.1
"""Without wrong rows to learn from the model would be so sure of all it says that there would be no
divergence to predict."""

RECIPES = [
    *(m(b, group_size=g) for m in (wb.RTN, wb.GPTQ, wb.AWQ) for b in (4, 3, 2) for g in (32, 128)),
    *(wb.MagnitudePruning(ratio) for ratio in (0.2, 0.4, 0.6)),
    *(wb.Wanda(ratio) for ratio in (0.3, 0.5)),
    wb.SparseGPT(0.5),
]


def rows_of(count: int, seed: int, wrong: float = 0.0) -> dict[str, list[str]]:
    """Return texts of a debt and of somebody who has nothing to do with it, and their fields.

    ``wrong`` is the share of amounts, and of months, that are another one than the text's.
    """
    draw = random.Random(seed)
    table: dict[str, list[str]] = {name: [] for name in ("text", *FIELDS)}
    for _ in range(count):
        debtor, creditor, other = draw.sample(NAMES, 3)
        debt = {
            "debtor": debtor,
            "creditor": creditor,
            "amount": str(draw.randint(2, 99)),
            "coin": draw.choice(COINS),
            "month": draw.choice(MONTHS),
        }
        told = [draw.choice(WORDINGS).format(**debt), f"{other} was there and wrote it down"]
        draw.shuffle(told)
        table["text"].append(f"{told[0]} . {told[1]} .")
        if draw.random() < wrong:
            debt["amount"] = str(draw.randint(2, 99))
        if draw.random() < wrong:
            debt["month"] = draw.choice(MONTHS)
        for name in FIELDS:
            table[name].append(debt[name])
    return table


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words that ends every text as T5's does."""
    more = "was there and wrote it down : . |"
    text = " ".join([*WORDINGS, *NAMES, *MONTHS, *COINS, *map(str, range(100)), *FIELDS, more])
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
            calibration=rows_of(rows, seed, WRONG),
            validation=rows_of(300, seed + 1, WRONG),
            evaluation=rows_of(400, seed + 2),
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
    calibrator = Calibrator(task, folder=folder / "statistics")
    made = compress(fresh_model(), Recipe.of(step), calibrator, monitor=Monitor(_say))
    return wb.load_model(wb.save_model(made.model, folder / "t5"))


def _say(progress: Progress) -> None:
    if progress.stage == "train" and progress.done % 250 == 0:
        print(f"  step {progress.done} of {progress.total}: {progress.detail}", flush=True)


def points_of(study: wb.Study) -> list[dict[str, Any]]:
    """Predict every recipe before any is run, run them, and return both."""
    study.tabulate()
    table = cost_table(study._workspace, study.models[0])
    assert table is not None
    before = {step: study.predict(step, metric="kl") for step in RECIPES}
    raw = {step: raw_cost(table, Recipe.of(step)).nats for step in RECIPES}
    runs = study.sweep(RECIPES)
    assert all(run.state is RunState.DONE for run in runs), [run.record.error for run in runs]
    points = []
    for run, step in zip(runs, RECIPES, strict=True):
        values = {m.metric: m.value for m in run.measurements}
        interval = before[step].kl_interval
        points.append(
            {
                "recipe": run.record.label,
                "size_mb": (run.record.size_bytes or 0) / 1e6,
                **{name: values[name] for name in ("exact_match", "f1", "kl")},
                "second_order": raw[step],
                "predicted_kl": before[step].kl,
                "held": interval is not None and interval[0] <= values["kl"] <= interval[1],
            }
        )
    return points


def figures_of(points: list[dict[str, Any]], baseline: float) -> dict[str, Any]:
    """Return what the predictions and GPTQ are worth."""
    small = [p for p in points if p["kl"] < 0.3]
    ratios = [p["second_order"] / p["kl"] for p in small]
    pairs = {p["recipe"]: p for p in points}
    gains = {
        label: (pairs[label]["exact_match"], pairs[label.replace("RTN", "GPTQ")]["exact_match"])
        for label in pairs
        if label.startswith("RTN")
    }
    return {
        "dense_exact_match": baseline,
        "spearman_kl": float(
            spearmanr([p["kl"] for p in points], [p["predicted_kl"] for p in points]).statistic
        ),
        "second_order_over_measured_below_0.3_nats": {
            "points": len(small),
            "median": float(np.median(ratios)),
            "range": [float(min(ratios)), float(max(ratios))],
        },
        "held_before_any_run": float(np.mean([p["held"] for p in points])),
        "exact_match_of_rtn_and_gptq": gains,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16000)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--model", type=Path, help="a model that an earlier call has trained")
    parser.add_argument("--keep", type=Path, help="folder for the model and the study")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/encoder_decoder.json"))
    args = parser.parse_args()
    task = debts(args.rows)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        started = time.perf_counter()
        if args.model is None:
            model = trained(task, folder, args.epochs, args.learning_rate)
        else:
            model = wb.load_model(args.model)
        seconds = time.perf_counter() - started
        with wb.Study(model, task, path=folder / "study") as study:
            base = study.run([])
            dense = base.record.measurement("exact_match")
            assert dense is not None
            print(f"{model.summary()}; exact match {dense.value:.3f}", flush=True)
            points = points_of(study)
            decision = study.choose(wb.Requirements(accuracy=0.97))
            chosen = decision.run or decision.nearest_run
            exported = chosen.export(folder / "export", format="hf")
            answers = task.evaluate(wb.load_model(exported.path))["answer"]
            same = bool((answers == chosen.outcomes()["answer"]).all())
    figures = figures_of(points, dense.value)
    print(pd.DataFrame(points).round(4).to_string(index=False))
    print(json.dumps(figures, indent=1))
    print(decision)
    print(f"{exported} The answers of the model that was read back are the same: {same}.")
    assert same
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "parameters": model.n_parameters,
        "rows": args.rows,
        "epochs": args.epochs,
        "training_seconds": None if args.model else round(seconds),
        **figures,
        "choice": str(decision),
        "export_difference": exported.largest_difference,
        "answers_read_back_are_equal": same,
        "points": points,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A cascade that runs: texts in, labels out, and which model answered."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from workbench.errors import ConfigError, DataError, WorkbenchError
from workbench.fields import listed, texts_given, whole
from workbench.fields import number as check_number
from workbench.selection.cascades.latency import Percentiles, percentiles
from workbench.selection.cascades.signals import SIGNALS, Signal, signal_named, surety
from workbench.stored_paths import check_folder, within

if TYPE_CHECKING:
    from workbench.models.load import LoadedModel

FILE = "router.json"
VERSION = 1
BATCH = 32


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes
    ----------
    label : str
        ``"(other)"`` where a model says a class that is no label.
    tier : int
        Which model answered, from 0.
    confidence : float
        Its probability of the label.
    """

    label: str
    tier: int
    confidence: float


@dataclass(frozen=True)
class Served:
    """What a running router did; see :meth:`Router.measure`.

    Attributes
    ----------
    n : int
        Texts that were answered, one by one.
    shares : tuple of float
        Of the texts that each model answered.
    latency_ms : float
        Mean.
    percentiles : Percentiles
    """

    n: int
    shares: tuple[float, ...]
    latency_ms: float
    percentiles: Percentiles

    def __str__(self) -> str:
        shares = ", ".join(f"model {i} {share:.0%}" for i, share in enumerate(self.shares, 1))
        return f"{self.n} texts: {shares}; mean {self.latency_ms:.3g} ms, {self.percentiles}"


class Router:
    """Asks the first model, and the next where the signal is below the threshold.

    Parameters
    ----------
    models : sequence of LoadedModel
        Bound to one task; the first is asked first.
    labels : sequence of str
        Of the task, in its order.
    thresholds : sequence of float
        One less than models.
    signal : str or callable
        See :mod:`workbench.selection.cascades.signals`.
    sequence_length : int
        Longer texts are cut after so many tokens.
    bases : sequence of LoadedModel, optional
        What each model was compressed from; only :meth:`save` needs them.

    Raises
    ------
    ConfigError
        If the numbers of models and thresholds do not fit, or the signal is not known.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        labels: Sequence[str],
        thresholds: Sequence[float],
        *,
        signal: str | Signal = "confidence",
        sequence_length: int = 256,
        bases: Sequence[LoadedModel] | None = None,
    ) -> None:
        models = listed("Router", "models", models, "two models or more")
        labels = listed("Router", "labels", labels, "the task's labels")
        thresholds = listed("Router", "thresholds", thresholds, "one number less than models")
        if len(models) < 2 or len(thresholds) != len(models) - 1:
            raise ConfigError(
                f"{len(models)} models and {len(thresholds)} thresholds do not make a router; give"
                " two models or more, and one threshold less."
            )
        self.models = tuple(models)
        self.labels = tuple(labels)
        self.thresholds = tuple(_threshold(value) for value in thresholds)
        self.signal = signal
        self.sequence_length = whole(
            "Router", "sequence_length", sequence_length, minimum=2, maximum=2**20, unit="tokens"
        )
        self._bases = tuple(models if bases is None else bases)
        self._signal = signal_named(signal)

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """Classify texts.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        list of Answer
            In the order of the texts.
        """
        texts = texts_given("Router", "texts", texts)
        answers: list[Answer | None] = [None] * len(texts)
        waiting = list(range(len(texts)))
        for tier, model in enumerate(self.models):
            if not waiting:
                break
            logs = self._log_probabilities(model, [texts[i] for i in waiting])
            best = logs.argmax(axis=1)
            last = tier == len(self.models) - 1
            stays = np.ones(len(waiting), dtype=bool)
            if not last:
                stays = surety(self._signal, logs) >= self.thresholds[tier]
            for row, number in enumerate(waiting):
                if stays[row]:
                    answers[number] = self._answer(int(best[row]), tier, logs[row])
            waiting = [number for row, number in enumerate(waiting) if not stays[row]]
        return [answer for answer in answers if answer is not None]

    def measure(
        self, texts: Sequence[str], *, clock: Callable[[], float] = time.perf_counter
    ) -> Served:
        """Answer texts one by one, and say who answered and how long it took on this machine.

        Tokenising is part of a router's time, and is not of the times that cascades are computed
        from.

        Parameters
        ----------
        texts : sequence of str
            At least one; every model is asked the first of them before, to warm up.
        clock : callable
            Returns seconds.

        Raises
        ------
        ConfigError
            If there is no text.
        """
        texts = texts_given("Router.measure", "texts", texts)
        if not texts:
            raise ConfigError("Give a list of at least one text, such as router.measure([text]).")
        for model in self.models:  # also those that are asked seldom, whose first pass is slow
            self._log_probabilities(model, [texts[0]])
        tiers, times = [], []
        for text in texts:
            start = clock()
            tiers.append(self([text])[0].tier)
            times.append(1e3 * (clock() - start))
        counts = np.bincount(tiers, minlength=len(self.models)) / len(tiers)
        return Served(
            len(tiers),
            tuple(float(share) for share in counts),
            float(np.mean(times)),
            percentiles(times),
        )

    def _answer(self, code: int, tier: int, logs: np.ndarray) -> Answer:
        label = self.labels[code] if code < len(self.labels) else "(other)"
        return Answer(label, tier, float(np.exp(logs[code])))

    def _log_probabilities(self, model: LoadedModel, texts: list[str]) -> np.ndarray:
        import torch

        from workbench.tasks.base import Example, make_batch, pad_token
        from workbench.tasks.scoring import log_probabilities
        from workbench.tasks.text_classification import label_logits
        from workbench.tensors.products import fast_products

        most = min(self.sequence_length, model.max_length or 2**31)
        ids = model.tokenizer(texts, truncation=True, max_length=most, verbose=False)["input_ids"]
        pad = pad_token(model)
        examples = [Example(i, i, list(row) or [pad]) for i, row in enumerate(ids)]
        examples.sort(key=lambda example: -len(example.tokens))
        found: np.ndarray | None = None
        with torch.no_grad(), fast_products():
            for start in range(0, len(examples), BATCH):
                batch = make_batch("evaluation", examples[start : start + BATCH], pad)
                mask = batch.attention_mask
                logits = label_logits(
                    self.labels,
                    model,
                    batch.input_ids.to(model.device),
                    None if mask is None else mask.to(model.device),
                )
                if logits is None:
                    raise ConfigError(
                        f"{model.source.name} has no head for the router's {len(self.labels)}"
                        " labels; give models that task.bind(model) returned."
                    )
                logs = log_probabilities(logits).cpu().numpy()
                if found is None:
                    found = np.empty((len(texts), logs.shape[1]))
                found[[example.index for example in batch.examples]] = logs
        assert found is not None
        return found

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the router so that :meth:`load` reads it without the study.

        Every base model is written once, as a dense checkpoint, and of each compressed model its
        packed codes. It is written beside the folder, which it takes the place of when it is
        complete.

        Parameters
        ----------
        folder : str or Path
        overwrite : bool
            Whether a router that is there is replaced; something else never is.

        Raises
        ------
        ConfigError
            If the signal is a function of your own, which cannot be written.
        ExportError
            If there is something in the folder already, or it cannot be written.
        """
        from workbench.export.publish import check_target, published

        if not isinstance(self.signal, str):
            raise ConfigError(
                f"A router with a signal of your own cannot be saved; use one of"
                f" {', '.join(map(repr, SIGNALS))}, or make Router(...) anew where it runs."
            )
        size = sum(model.size_bytes for model in dict.fromkeys((*self._bases, *self.models)))
        target = check_target(folder, size, overwrite=overwrite, is_ours=_is_router)
        with published(target, overwrite=overwrite, is_ours=_is_router) as path:
            self._write(path)
        return target

    def _write(self, path: Path) -> None:
        from workbench.models.load import save_model
        from workbench.storage.artifacts import save_weights

        # Without a head that was replaced, which whoever loads the folder would take for the one.
        every = {id(model): model.as_measured() for model in (*self.models, *self._bases)}
        pairs = [
            (every[id(m)], every[id(b)]) for m, b in zip(self.models, self._bases, strict=True)
        ]
        written: dict[str, str] = {}
        tiers = []
        for number, (model, base) in enumerate(pairs):
            if base.fingerprint not in written:
                written[base.fingerprint] = f"base-{len(written)}"
                save_model(base, path / written[base.fingerprint])
            tier: dict[str, Any] = {"base": written[base.fingerprint], "weights": None}
            if model is not base and model.weights:
                tier["weights"] = f"tier-{number}.safetensors"
                save_weights(path / tier["weights"], model)
            elif model is not base and model.fingerprint != base.fingerprint:
                tier["base"] = f"tier-{number}"
                save_model(model, path / tier["base"])
            tiers.append(tier)
        described = {
            "version": VERSION,
            "labels": list(self.labels),
            "thresholds": ["inf" if t == float("inf") else t for t in self.thresholds],
            "signal": self.signal,
            "sequence_length": self.sequence_length,
            "tiers": tiers,
        }
        text = json.dumps(described, indent=1, ensure_ascii=False)
        (path / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Router:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If there is no router, it is damaged, or a newer version wrote it.
        UnsafePathError
            If it names a file outside of its folder, or a link leads out of it.
        """
        from workbench.models.load import load_model
        from workbench.storage.artifacts import load_weights

        path = Path(folder).expanduser()
        check_folder(path)
        try:
            saved = json.loads((path / FILE).read_text(encoding="utf-8"))
            if saved["version"] > VERSION:
                raise DataError(
                    f"The router in {path} is of version {saved['version']}; upgrade"
                    " compression-workbench to open it."
                )
            bases: dict[str, LoadedModel] = {}
            models, of = [], []
            for tier in saved["tiers"]:
                name = str(tier["base"])
                if not within(path, name).is_dir():
                    raise DataError(f"The router in {path} lacks its model {name!r}.")
                if name not in bases:
                    bases[name] = load_model(path / name)
                of.append(bases[name])
                weights = tier["weights"]
                models.append(
                    bases[name]
                    if weights is None
                    else load_weights(within(path, str(weights)), bases[name])
                )
            return cls(
                models,
                saved["labels"],
                [float(threshold) for threshold in saved["thresholds"]],
                signal=str(saved["signal"]),
                sequence_length=int(saved["sequence_length"]),
                bases=of,
            )
        except WorkbenchError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
            raise DataError(
                f"There is no router in {path}, or it is damaged ({error}); router.save(folder)"
                " writes one."
            ) from error

    def __repr__(self) -> str:
        names = " -> ".join(model.source.name for model in self.models)
        return f"<Router {names}, {self.signal} at least {self.thresholds}>"


def _threshold(value: Any) -> float:
    """Return a threshold; infinity is one, which nothing stays below."""
    if isinstance(value, Real) and math.isinf(value):
        return float(value)
    found: float = check_number("Router", "thresholds", value)
    return found


def _is_router(folder: Path) -> bool:
    try:
        described = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(described, dict) and {"tiers", "thresholds", "signal"} <= set(described)

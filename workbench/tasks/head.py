"""A linear classifier on a frozen model's mean-pooled features, trained in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from workbench.models.finite import finite_outputs
from workbench.models.load import ClassificationHead, LoadedModel
from workbench.progress import SILENT, Monitor
from workbench.tasks.base import Batch

PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""L2 penalties tried, strongest first, each begun from the solution of the one before."""

LEAST_SPREAD = 1e-3
"""A feature that varies less than this share of the median is not scaled up to the others.

A dead one, such as number 319 of all-MiniLM-L6-v2 with a standard deviation of 2e-9, would get
weights of norm 1,560 where the others have 3 (banking77): what it says is nothing, but any change
of it, by training or by rounding, would count 500 times as much as one of another feature.
"""


def pooled_features(
    model: LoadedModel, input_ids: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Return the mean of the last hidden states over the tokens that are not padding.

    Parameters
    ----------
    model : LoadedModel
        Its backbone is run: an encoder itself, a decoder or classifier without its own head.
    input_ids : Tensor of shape (examples, tokens), int64
        On the model's device.
    attention_mask : Tensor of shape (examples, tokens), optional
        One where a token is real; None where no example is padded.

    Returns
    -------
    Tensor of shape (examples, hidden_size), float32
        Gradients flow where the caller enables them.
    """
    options = {"use_cache": False} if model.is_decoder else {}
    output = model.hf_model.base_model(
        input_ids=input_ids, attention_mask=attention_mask, **options
    )
    hidden: Tensor = output.last_hidden_state.float()
    if attention_mask is None:
        return hidden.mean(1)
    weight = attention_mask.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def extract_features(
    model: LoadedModel,
    batches: Sequence[Batch],
    *,
    features_of: Callable[[LoadedModel, Tensor, Tensor | None], Tensor] = pooled_features,
    monitor: Monitor = SILENT,
) -> tuple[Tensor, Tensor]:
    """Return features (examples, hidden_size) float32 and label codes (examples,) on the CPU.

    Sorted by example, so that the result does not depend on batching.
    """
    features, labels, order = [], [], []
    part = batches[0].part if batches else ""
    with torch.no_grad(), finite_outputs(model.hf_model):
        for done, batch in enumerate(batches, 1):
            mask = batch.attention_mask
            mask = None if mask is None else mask.to(model.device)
            found = features_of(model, batch.input_ids.to(model.device), mask)
            features.append(found.float().cpu())
            labels += [example.label for example in batch.examples]
            order += [example.index for example in batch.examples]
            monitor.report("features", done, len(batches), part)
    by_example = torch.tensor(order).argsort()
    return torch.cat(features)[by_example], torch.tensor(labels)[by_example]


def train_head(
    features: Tensor,
    labels: Tensor,
    names: tuple[str, ...],
    *,
    validation: tuple[Tensor, Tensor],
    penalties: Sequence[float] = PENALTIES,
    has_bias: bool = True,
    monitor: Monitor = SILENT,
) -> ClassificationHead:
    """Fit multinomial logistic regression by L-BFGS; the penalty with the least loss wins.

    Features are standardised while fitting; that is folded into the weight and bias returned.

    Parameters
    ----------
    features : Tensor of shape (examples, hidden_size), float32
        Of the training rows; not changed.
    labels : Tensor of shape (examples,), int64
        Codes into ``names``.
    names : tuple of str
        All labels, in the order of the head's rows.
    validation : tuple of Tensor
        Features and labels that choose the penalty.
    penalties : sequence of float
        L2 penalties on the weights of standardised features, strongest first.
    has_bias : bool
        False: features are scaled and not centred, and the bias is zero.
    monitor : Monitor
        Told after every penalty, stage ``"head"``; may cancel there.
    """
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = scale.clamp(min=max(LEAST_SPREAD * float(scale.median()), 1e-6))
    if not has_bias:
        mean = torch.zeros_like(mean)
    inputs = (features - mean) / scale
    held_out, targets = (validation[0] - mean) / scale, validation[1]
    weight = torch.zeros(len(names), features.shape[1], requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=has_bias)
    best: tuple[float, Tensor, Tensor] | None = None
    for done, penalty in enumerate(penalties, 1):
        _fit(inputs, labels, weight, bias, penalty)
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(held_out @ weight.T + bias, targets))
            if best is None or loss < best[0]:
                best = (loss, weight.clone(), bias.clone())
        monitor.report("head", done, len(penalties), f"penalty {penalty:g}")
        if loss > 1.1 * best[0]:
            break  # weaker penalties only fit the training rows better
    assert best is not None
    folded = best[1] / scale
    return ClassificationHead(folded, best[2] - folded @ mean, names)


def _fit(inputs: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> None:
    """Minimise the penalised mean loss in place."""
    optimizer = torch.optim.LBFGS(
        [weight, bias] if bias.requires_grad else [weight],
        max_iter=100,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(inputs @ weight.T + bias, labels)
        # the bias too, weakly: a label without rows would drive its own to minus infinity
        loss = loss + penalty / 2 * weight.square().sum() + 1e-5 * bias.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)

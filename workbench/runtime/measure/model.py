"""Measure one model on this machine: pack it, run it, and say how it ran."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from workbench.errors import WorkbenchError
from workbench.fields import whole
from workbench.progress import SILENT, Monitor
from workbench.records import Measurement
from workbench.runtime.measure.classification import BATCH_SIZES, make_classifier, time_queries
from workbench.runtime.measure.energy import open_meter
from workbench.runtime.measure.environment import conditions, warn_if_busy
from workbench.runtime.measure.generation import PROMPT_TOKENS, make_generator
from workbench.runtime.measure.memory import measure_memory
from workbench.runtime.measure.timing import Summary, summarise, time_repeats
from workbench.runtime.packed import PackedModel, pack_model
from workbench.tensors.devices import fast_dtype, is_cpu

if TYPE_CHECKING:
    from workbench.models.loaded import LoadedModel
    from workbench.tasks import Task


def measure_model(
    model: LoadedModel,
    task: Task,
    *,
    repeats: int = 7,
    memory: bool = True,
    monitor: Monitor = SILENT,
) -> tuple[Measurement, ...]:
    """Measure bytes, memory, time and energy of a model on this machine.

    It runs from its codes wherever there is a kernel (see
    :func:`workbench.runtime.packed.pack_model`), dense layers and base models in the dtype that
    this machine is fast in (see :func:`workbench.tensors.devices.fast_dtype`); ``how`` of every
    measurement says what ran how, so that a model that is not faster is seen to be so, and why.
    Every number of time is the median of ``repeats`` after a warm-up, its ``spread`` their
    interquartile range.

    Parameters
    ----------
    model : LoadedModel
        Bound to the task; not changed.
    task : Task
        A classifier is timed on its texts; a language model on a prompt of 128 tokens.
    repeats : int
        At least 3. Classifying is quick and is repeated three times as often.
    memory : bool
        Whether the memory is measured, by a process of its own that takes some seconds to start.
    monitor : Monitor
        Told about every repeat, stage "measure"; may cancel there.

    Returns
    -------
    tuple of Measurement
        Of no part of the data. ``stored_bytes``; ``resident_bytes`` (held after a run) and
        ``peak_bytes`` (the most at once), which a warning says are missing if they cannot be had;
        for decoders
        ``first_token_ms``, ``latency_ms`` (per new token) and ``decode_tokens_per_s``; for
        classifiers ``latency_ms`` (one text of median length), ``latency_batch32_ms`` and
        ``query_ms`` (texts as they come, one by one, with its ``samples``); ``energy_joules`` per
        new token or per text of the batch, only where the machine has a meter.

    Raises
    ------
    ConfigError
        If ``repeats`` is below 3.
    CancelledError
        If the monitor asks to stop.
    """
    repeats = whole("measure", "repeats", repeats, minimum=3, maximum=10_000)
    monitor.report("measure", 0, 1, "packing the layers")
    packed = pack_model(model, dtype=fast_dtype(model.device))
    device = str(model.device)
    if is_cpu(model.device):
        warn_if_busy(torch.get_num_threads())
    found: list[Measurement] = []

    def add(
        metric: str,
        unit: str,
        summary: Summary,
        how: str,
        workload: str = "",
        samples: tuple[float, ...] = (),
    ) -> None:
        found.append(
            Measurement(
                metric=metric,
                value=summary.median,
                unit=unit,
                n=summary.n,
                part="",
                spread=summary.spread if summary.n > 1 else None,
                how=how,
                conditions=conditions(device, workload),
                samples=samples,
            )
        )

    label = packed.report.label
    add("stored_bytes", "bytes", Summary(model.size_bytes, 0.0, 1), "")
    if task.output.is_pooled:
        _measure_classifier(packed, model, task, repeats, monitor, add)
    else:
        _measure_decoder(packed, model, repeats, monitor, add)
    if memory and is_cpu(model.device):
        monitor.report("measure", 0, 1, "memory in a process of its own")
        n_tokens = min(PROMPT_TOKENS, model.max_length or PROMPT_TOKENS)
        try:
            taken = measure_memory(packed, n_tokens=n_tokens)
        except (WorkbenchError, OSError) as error:  # the times are good without it
            warnings.warn(f"The memory is not recorded. {error}", stacklevel=2)
        else:
            workload = f"{n_tokens} tokens"
            for name, value in (("resident", taken.held_bytes), ("peak", taken.peak_bytes)):
                add(f"{name}_bytes", "bytes", Summary(value, 0.0, 1), label, workload)
    monitor.report("measure", 1, 1)
    return tuple(found)


def _measure_decoder(
    packed: PackedModel,
    model: LoadedModel,
    repeats: int,
    monitor: Monitor,
    add: Callable[..., None],
) -> None:
    generator = make_generator(packed, model.max_length)
    how = f"{packed.report.label}, {generator.path}"
    load = generator.workload
    generator()
    meter = open_meter(str(model.device))
    first, rest, joules = [], [], []
    for done in range(1, repeats + 1):
        start = meter.read() if meter else 0.0
        one, per_token = generator()
        if meter:
            joules.append((meter.read() - start) / (generator.new_tokens + 1))
        first.append(one)
        rest.append(per_token)
        monitor.report("measure", done, repeats, "tokens")
    add("first_token_ms", "ms", summarise([1e3 * s for s in first]), how, load)
    add("latency_ms", "ms", summarise([1e3 * s for s in rest]), how, load)
    add("decode_tokens_per_s", "tokens/s", summarise([1 / s for s in rest]), how, load)
    if meter:
        how += f", {meter.name}, prompt included"
        add("energy_joules", "J", summarise(joules), how, load)


def _measure_classifier(
    packed: PackedModel,
    model: LoadedModel,
    task: Task,
    repeats: int,
    monitor: Monitor,
    add: Callable[..., None],
) -> None:
    label = packed.report.label
    meter = open_meter(str(model.device))
    total = 3 * repeats
    for size in BATCH_SIZES:
        classify = make_classifier(packed, model, task, size)
        for _ in range(2):
            classify()
        start = meter.read() if meter else 0.0
        seconds = time_repeats(
            classify,
            total,
            warm_up=0,
            each=lambda done: monitor.report("measure", done, total, "texts"),
        )
        used = meter.read() - start if meter else 0.0
        name = "latency_ms" if size == 1 else f"latency_batch{size}_ms"
        load = "one text" if size == 1 else f"{size} texts"
        add(name, "ms", summarise([1e3 * s for s in seconds]), label, load)
        if meter and size != 1:
            per_text = Summary(used / (total * size), 0.0, 1)
            add("energy_joules", "J", per_text, f"{label}, {meter.name}", load)
    seconds = time_queries(
        packed,
        model,
        task,
        each=lambda done, total: monitor.report("measure", done, total, "single texts"),
    )
    times = tuple(1e3 * s for s in seconds)
    add("query_ms", "ms", summarise(times), label, "texts one by one", times)

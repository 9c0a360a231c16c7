"""The frozen configuration of every step of a recipe.

A configuration is data: the solver is found by its type (``workbench.methods``), the widget's
form and the terminal's options are generated from its fields' metadata.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import ConfigError
from workbench.schemes import IntScheme, Sparsity


@dataclass(frozen=True)
class FieldInfo:
    """What a form or a help text needs to know about one field of a step.

    Attributes
    ----------
    name, help, unit : str
        ``unit`` is empty for plain numbers and choices.
    type : type
        ``bool``, ``int``, ``float`` or ``str``.
    default : object
    optional : bool
        Whether None is accepted; ``none_means`` says what it stands for.
    minimum, maximum : float or None
        Inclusive bounds.
    choices : tuple
        Accepted values, or the suggested ones where ``minimum`` is given too.
    """

    name: str
    help: str
    unit: str
    type: type
    default: Any
    optional: bool
    none_means: str
    minimum: float | None
    maximum: float | None
    choices: tuple[Any, ...]


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] = (),
    none_means: str = "",
    positional: bool = False,
    later: bool = False,
) -> Any:
    """Declare a field of a step with what forms, help texts and validation need.

    ``later`` marks a field that was added to a released step; see :meth:`Step.to_dict`.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "none_means": none_means,
        "later": later,
    }
    return dataclasses.field(default=default, metadata=metadata, kw_only=not positional)


@dataclass(frozen=True)
class Step:
    """Base class of all steps; concrete steps are frozen dataclasses of :func:`option` fields."""

    title: ClassVar[str] = ""
    about: ClassVar[str] = ""
    produces: ClassVar[str] = "dense"
    """What is stored afterwards: ``"codes"``, ``"masks"``, ``"corrected"`` or ``"dense"``.

    ``"dense"`` stands for no change of the layers in the blocks. May depend on the step's values.
    """
    keeps: ClassVar[frozenset[str]] = frozenset({"dense"})
    """Stored forms that may come before this step without being destroyed by it."""
    repeatable: ClassVar[bool] = True
    """Whether a recipe may hold a second step of this type."""

    def __post_init__(self) -> None:
        for info in fields_of(type(self)):
            _check(self, info)

    @property
    def label(self) -> str:
        """A short text for tables and plots, such as ``"GPTQ 4-bit g128"``."""
        return self.title

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON-ready data, ``{"step": name, **fields}``.

        Fields that came with a later version are left out at their default, so that recipes
        which do not use them keep their ids.
        """
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata["later"] or getattr(self, field.name) != field.default
        }
        return {"step": type(self).__name__, **values}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Step:
        """Return the step with these values of its fields; the opposite of :meth:`to_dict`."""
        known = {info.name for info in fields_of(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"{cls.__name__} has no field {', '.join(unknown)}; its fields are"
                f" {', '.join(sorted(known))}."
            )
        return cls(**values)

    @property
    def parts(self) -> tuple[Step, ...]:
        """The steps that this one stands for: itself, unless it is made of others."""
        return (self,)

    def code(self) -> str:
        """Return the Python that makes this step: the obvious first argument, then what differs."""
        parts = []
        for index, info in enumerate(fields_of(type(self))):
            value = getattr(self, info.name)
            if index == 0:
                parts.append(repr(value))
            elif value != info.default:
                parts.append(f"{info.name}={value!r}")
        return f"wb.{type(self).__name__}({', '.join(parts)})"


def fields_of(step: type[Step]) -> tuple[FieldInfo, ...]:
    """Return the fields of a step class, in the order of its signature."""
    hints = typing.get_type_hints(step)
    infos = []
    for field in dataclasses.fields(step):
        hint = hints[field.name]
        members = typing.get_args(hint) if _is_union(hint) else (hint,)
        kinds = [m for m in members if m is not types.NoneType]
        infos.append(
            FieldInfo(
                name=field.name,
                type=kinds[0],
                default=field.default,
                optional=types.NoneType in members,
                **{key: value for key, value in field.metadata.items() if key != "later"},
            )
        )
    return tuple(infos)


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _accepts(info: FieldInfo) -> str:
    kind = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    if info.choices and info.minimum is None:
        text = "one of " + ", ".join(repr(c) for c in info.choices)
    else:
        text = kind[info.type]
        if info.minimum is not None and info.maximum is not None:
            text += f" from {info.minimum:g} to {info.maximum:g}"
        elif info.minimum is not None:
            text += f" of at least {info.minimum:g}"
    if info.unit:
        text += f" ({info.unit})"
    if info.optional:
        text += f", or None for {info.none_means}"
    return text


def _check(step: Step, info: FieldInfo) -> None:
    value = getattr(step, info.name)
    if value is None and info.optional:
        return
    if info.type is float and type(value) is int:
        value = float(value)
        object.__setattr__(step, info.name, value)
    fits = type(value) is info.type
    if fits and info.choices and info.minimum is None:
        fits = value in info.choices
    if fits and info.minimum is not None:
        fits = value >= info.minimum
    if fits and info.maximum is not None:
        fits = value <= info.maximum
    if not fits:
        raise ConfigError(
            f"{type(step).__name__}: {info.name}={value!r} is not accepted; give {_accepts(info)}."
        )


def _bits() -> Any:
    return option(
        4,
        "Bits per weight. Fewer bits make the model smaller; below 4 bits the method matters.",
        unit="bits",
        minimum=2,
        maximum=8,
        positional=True,
    )


def _group_size() -> Any:
    return option(
        128,
        "Consecutive weights of a row that share one scale. Smaller groups follow the weights"
        " more closely and store more scales.",
        unit="weights",
        minimum=8,
        maximum=65536,
        choices=(32, 64, 128, 256, None),
        none_means="one scale per output channel",
    )


def _symmetric() -> Any:
    return option(
        False,
        "Fix the zero point at the middle of the range. Simpler kernels and a little smaller,"
        " usually a little less accurate.",
    )


def _damping() -> Any:
    return option(
        0.01,
        "Added to the diagonal of the Hessian as a share of its mean (percdamp). Raise it when"
        " calibration tokens are few.",
        minimum=1e-6,
        maximum=1.0,
    )


@dataclass(frozen=True)
class Quantization(Step):
    """Base class of the methods that store integer codes."""

    produces: ClassVar[str] = "codes"
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks"})

    bits: int = _bits()
    group_size: int | None = _group_size()
    symmetric: bool = _symmetric()

    @property
    def scheme(self) -> IntScheme:
        """The number format that the weights are stored in."""
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
        group = "per channel" if self.group_size is None else f"g{self.group_size}"
        symmetric = " sym" if self.symmetric else ""
        return f"{self.title} {self.bits}-bit {group}{symmetric}"


@dataclass(frozen=True)
class RTN(Quantization):
    """Round to nearest: each weight to the closest level of its group, no data needed."""

    title: ClassVar[str] = "RTN"
    about: ClassVar[str] = "Round every weight to its nearest level. Instant, needs no data."


@dataclass(frozen=True)
class GPTQ(Quantization):
    """Quantize column by column and correct the columns to come (Frantar et al. 2023)."""

    title: ClassVar[str] = "GPTQ"
    about: ClassVar[str] = (
        "Round column by column; every rounding error is compensated in the columns that follow,"
        " guided by the calibration data."
    )

    damping: float = _damping()
    act_order: bool = option(
        True,
        "Quantize the inputs with the largest activations first; groups keep their places"
        " (static groups), so nothing more is stored.",
    )
    block_size: int = option(
        128,
        "Columns that are corrected together before the rest of the row; changes speed, not the"
        " result.",
        unit="columns",
        minimum=1,
        maximum=4096,
    )
    sequential: bool = option(
        False,
        "Solve block by block, each with the inputs that the quantized blocks before it give."
        " Pays at very few bits, and is many times slower; meant for the last few candidates.",
        later=True,
    )

    @property
    def label(self) -> str:
        return f"{super().label} sequential" if self.sequential else super().label


@dataclass(frozen=True)
class AWQ(Quantization):
    """Scale salient input channels up before rounding (Lin et al. 2024)."""

    title: ClassVar[str] = "AWQ"
    about: ClassVar[str] = (
        "Scale the input channels that matter most before rounding, and undo the scale in the"
        " layer before."
    )

    n_grid: int = option(
        20,
        "Points of the search for the scale's exponent between 0 and 1.",
        unit="points",
        minimum=1,
        maximum=200,
    )
    clip: bool = option(
        True, "Also search for the range of each group that gives the smallest output error."
    )


def _n() -> Any:
    return option(
        None,
        "Keep n of every m consecutive inputs (N:M sparsity, such as 2:4).",
        minimum=1,
        maximum=64,
        none_means="unstructured pruning by ratio",
    )


def _m() -> Any:
    return option(
        None,
        "Length of the pattern in N:M sparsity.",
        minimum=2,
        maximum=64,
        none_means="unstructured pruning by ratio",
    )


@dataclass(frozen=True)
class Pruning(Step):
    """Base class of the methods that set single weights to zero."""

    produces: ClassVar[str] = "masks"
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks"})

    ratio: float = option(
        0.5,
        "Share of the weights to remove (not used with n and m).",
        unit="share",
        minimum=0.0,
        maximum=0.99,
        positional=True,
    )
    n: int | None = _n()
    m: int | None = _m()

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.sparsity  # its own validation names n and m

    @property
    def sparsity(self) -> Sparsity:
        """The pattern of zeros."""
        if self.n is None and self.m is None:
            return Sparsity(ratio=self.ratio)
        return Sparsity(n=self.n, m=self.m)

    @property
    def label(self) -> str:
        if self.n is not None:
            return f"{self.title} {self.n}:{self.m}"
        return f"{self.title} {self.ratio:.0%}"


@dataclass(frozen=True)
class MagnitudePruning(Pruning):
    """Set the weights of smallest magnitude to zero (Han et al. 2015).

    Pruning in several rounds (Zhu & Gupta 2017) differs from one round only if the model is
    trained in between: without training the smallest weights of the second round are the ones
    that one round would have removed as well. The ratios of such rounds are
    :func:`workbench.masks.cubic_schedule`.
    """

    title: ClassVar[str] = "Magnitude"
    about: ClassVar[str] = (
        "Set the smallest weights to zero. Zeros stored densely save no bytes by themselves."
    )

    scope: str = option(
        "layer",
        "Compare magnitudes within each layer, or over the whole model (global), which spares"
        " the layers whose weights are large.",
        choices=("layer", "global"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n is not None and self.scope == "global":
            raise ConfigError(
                "MagnitudePruning: scope='global' has no meaning with n and m, because every"
                " group of m inputs keeps n; leave scope at 'layer'."
            )

    @property
    def label(self) -> str:
        return f"{super().label} global" if self.scope == "global" else super().label


@dataclass(frozen=True)
class Wanda(Pruning):
    """Remove the weights of smallest magnitude times input norm (Sun et al. 2024)."""

    title: ClassVar[str] = "Wanda"
    about: ClassVar[str] = (
        "Set to zero, in every row, the weights whose size times their input's is smallest. As"
        " fast as magnitude pruning and better, because it knows which inputs are large."
    )


@dataclass(frozen=True)
class SparseGPT(Pruning):
    """Prune column by column and correct the columns to come (Frantar & Alistarh 2023)."""

    title: ClassVar[str] = "SparseGPT"
    about: ClassVar[str] = (
        "Remove the weights that the others can best make up for, and correct those that stay;"
        " can quantize them in the same pass."
    )

    bits: int | None = option(
        None,
        "Quantize the weights that stay to so many bits in the same pass.",
        unit="bits",
        minimum=2,
        maximum=8,
        none_means="pruning only",
    )
    group_size: int | None = _group_size()
    symmetric: bool = _symmetric()
    damping: float = _damping()
    block_size: int = option(
        128,
        "Columns whose mask is chosen together, from the weights as corrected so far.",
        unit="columns",
        minimum=1,
        maximum=4096,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits is None or self.m is None or self.group_size is None:
            return
        if self.group_size % self.m:
            raise ConfigError(
                f"SparseGPT: group_size={self.group_size} cuts through a pattern of m={self.m}"
                f" inputs; give a multiple of {self.m}, or None for one scale per output channel."
            )

    @property
    def produces(self) -> str:  # type: ignore[override]
        """Codes with bits, else masks."""
        return "masks" if self.bits is None else "codes"

    @property
    def scheme(self) -> IntScheme | None:
        """The number format of the weights that stay, None if they are not quantized."""
        if self.bits is None:
            return None
        return IntScheme(self.bits, self.group_size, self.symmetric)

    @property
    def label(self) -> str:
        if self.bits is None:
            return super().label
        group = "per channel" if self.group_size is None else f"g{self.group_size}"
        return f"{super().label} {self.bits}-bit {group}{' sym' if self.symmetric else ''}"


@dataclass(frozen=True)
class LowRankCorrection(Step):
    """Add to compressed layers what a low-rank product can restore (EoRA, Liu et al. 2024)."""

    title: ClassVar[str] = "Correction"
    about: ClassVar[str] = (
        "Store two thin matrices beside every compressed layer that give back the part of its"
        " output that compression lost most of. Follows a step that quantizes or prunes."
    )
    produces: ClassVar[str] = "corrected"
    keeps: ClassVar[frozenset[str]] = frozenset({"codes", "masks"})

    rank: int = option(
        16,
        "Columns of the first and rows of the second matrix, stored in float16. A higher rank"
        " restores more and stores more.",
        minimum=1,
        maximum=1024,
        positional=True,
    )

    @property
    def label(self) -> str:
        return f"{self.title} rank {self.rank}"


@dataclass(frozen=True)
class QuantizeEmbeddings(Step):
    """Quantize the token embeddings and the output head, which other methods leave dense."""

    title: ClassVar[str] = "Embeddings"
    about: ClassVar[str] = (
        "Round the table of token embeddings and the output head, row by row. In small models"
        " they are a large share of the bytes. Goes with any other method."
    )
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks", "codes", "corrected"})
    repeatable: ClassVar[bool] = False

    bits: int = option(
        8,
        "Bits per weight of the table; 8 is nearly always free, 4 needs a check.",
        unit="bits",
        minimum=2,
        maximum=8,
        positional=True,
    )
    group_size: int | None = option(
        None,
        "Consecutive weights of a row that share one scale. Smaller groups follow the weights"
        " more closely and store more scales.",
        unit="weights",
        minimum=8,
        maximum=65536,
        choices=(None, 32, 64, 128),
        none_means="one scale per token",
    )

    @property
    def scheme(self) -> IntScheme:
        """The number format that the tables are stored in."""
        return IntScheme(self.bits, self.group_size)

    @property
    def label(self) -> str:
        group = "" if self.group_size is None else f" g{self.group_size}"
        return f"{self.title} {self.bits}-bit{group}"


def _seed() -> Any:
    return option(
        0, "Of the random choice, where the criterion is random.", minimum=0, maximum=2**31 - 1
    )


@dataclass(frozen=True)
class DepthPruning(Step):
    """Remove whole blocks of the model (ShortGPT, Men et al. 2024; by loss, Kim et al. 2024)."""

    title: ClassVar[str] = "Depth"
    about: ClassVar[str] = (
        "Remove the blocks that matter least. The model is smaller and faster everywhere, with no"
        " special kernels."
    )

    n_blocks: int = option(
        2,
        "Blocks to remove; at least one must stay.",
        unit="blocks",
        minimum=1,
        maximum=1000,
        positional=True,
    )
    criterion: str = option(
        "loss",
        "Which blocks go: one by one those whose removal changes the predictions least (loss, a"
        " pass per block that is left); those that turn their input the least (influence, one"
        " pass, for large models); the last ones; or random ones, to compare with.",
        choices=("loss", "influence", "last", "random"),
    )
    seed: int = _seed()

    @property
    def label(self) -> str:
        plural = "" if self.n_blocks == 1 else "s"
        return f"{self.title} −{self.n_blocks} block{plural}{_unless_default(self, 'criterion')}"


@dataclass(frozen=True)
class WidthPruning(Step):
    """Remove neurons and attention heads, the same number in every block."""

    title: ClassVar[str] = "Width"
    about: ClassVar[str] = (
        "Remove the neurons (and, if you like, the attention heads) that add least to the output,"
        " and refit the layers behind them. Smaller dense matrices: really smaller and faster."
    )

    ratio: float = option(
        0.25,
        "Share of the neurons, or heads, to remove from every block; rounded so that kernels run"
        " well, never to more.",
        unit="share",
        minimum=0.01,
        maximum=0.95,
        positional=True,
    )
    neurons: bool = option(True, "Remove neurons of the feed-forward networks.")
    heads: bool = option(
        False,
        "Remove attention heads, with the keys and values that they share. Only where the model's"
        " configuration states the head size by itself.",
    )
    compensate: bool = option(
        True,
        "Refit the layer behind by least squares, so that what stays makes up for what goes.",
    )
    criterion: str = option(
        "activation",
        "Which neurons and heads go: those that add least to the output on the calibration data"
        " (activation), or random ones, to compare with.",
        choices=("activation", "random"),
    )
    damping: float = _damping()
    seed: int = _seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.neurons or self.heads):
            raise ConfigError(
                "WidthPruning: neurons=False and heads=False leave nothing to remove; give True"
                " for one of them."
            )

    @property
    def label(self) -> str:
        what = " heads" if not self.neurons else " with heads" if self.heads else ""
        plain = "" if self.compensate else " not refitted"
        return f"{self.title} −{self.ratio:.0%}{what}{plain}{_unless_default(self, 'criterion')}"


def _unless_default(step: Step, name: str) -> str:
    info = next(i for i in fields_of(type(step)) if i.name == name)
    value = getattr(step, name)
    return "" if value == info.default else f" ({value})"


@dataclass(frozen=True)
class Cast(Step):
    """Store the weights that are not compressed in a 16-bit floating-point format."""

    title: ClassVar[str] = "Cast"
    about: ClassVar[str] = "Store every floating-point weight in 16 bits: half the size of float32."
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks", "codes", "corrected"})

    dtype: str = option(
        "float16",
        "float16 has more precision, bfloat16 more range.",
        choices=("float16", "bfloat16"),
        positional=True,
    )

    @property
    def label(self) -> str:
        return f"{self.title} {self.dtype}"


@dataclass(frozen=True, init=False)
class Mixed(Step):
    """Another quantization for every shared input; :meth:`workbench.Study.fit` makes these.

    Parameters
    ----------
    steps : sequence of RTN, GPTQ or AWQ
    layers : mapping of str to int
        For the first layer of every shared input, by module name, the position in ``steps``.
        Layers that are not named stay dense.

    Raises
    ------
    ConfigError
        If a step does not quantize layer by layer, or a position does not exist.

    Examples
    --------
    >>> Mixed([GPTQ(2), GPTQ(4)], {"model.layers.0.mlp.gate_proj": 0}).label
    'Mixed GPTQ 2-bit g128'
    """

    title: ClassVar[str] = "Mixed"
    about: ClassVar[str] = "Another quantization for every layer, as a size budget allows."
    produces: ClassVar[str] = "codes"
    keeps: ClassVar[frozenset[str]] = frozenset({"dense", "masks"})

    steps: tuple[Quantization, ...]
    layers: tuple[tuple[str, int], ...]

    def __init__(self, steps: Iterable[Quantization], layers: Mapping[str, int]) -> None:
        given, places = tuple(steps), dict(layers)
        for step in given:
            if not isinstance(step, Quantization) or getattr(step, "sequential", False):
                raise ConfigError(
                    f"Mixed: {step!r} is not accepted; give RTN, GPTQ (not sequential) or AWQ."
                )
        if not places:
            raise ConfigError("Mixed: layers is empty; name the layers to quantize.")
        for name, place in places.items():
            if type(name) is not str or type(place) is not int or not 0 <= place < len(given):
                raise ConfigError(
                    f"Mixed: layers has {name!r}: {place!r}; give module names with positions from"
                    f" 0 to {len(given) - 1}."
                )
        used = [step for i, step in enumerate(given) if i in places.values()]
        order = {step: i for i, step in enumerate(dict.fromkeys(used))}
        object.__setattr__(self, "steps", tuple(order))
        ordered = sorted((name, order[given[i]]) for name, i in places.items())
        object.__setattr__(self, "layers", tuple(ordered))

    @property
    def parts(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def label(self) -> str:
        counts = [sum(place == i for _, place in self.layers) for i in range(len(self.steps))]
        first = sorted(range(len(counts)), key=lambda i: -counts[i])
        names = [self.steps[i].label for i in first]
        more = f" +{len(names) - 3}" if len(names) > 3 else ""
        return f"{self.title} {', '.join(names[:3])}{more}"

    def step_of(self, layer: str) -> Quantization | None:
        """Return the step of a shared input by its first layer's name, None if it stays dense."""
        place = dict(self.layers).get(layer)
        return None if place is None else self.steps[place]

    def to_dict(self) -> dict[str, Any]:
        steps = [step.to_dict() for step in self.steps]
        return {"step": "Mixed", "steps": steps, "layers": dict(self.layers)}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Mixed:
        if set(values) != {"steps", "layers"} or not isinstance(values["layers"], dict):
            raise ConfigError("Mixed takes steps (a list) and layers (names with positions).")
        steps = [step_from_dict(step) for step in values["steps"]]
        return cls(steps, values["layers"])  # type: ignore[arg-type]

    def code(self) -> str:
        steps = ", ".join(step.code() for step in self.steps)
        return f"wb.Mixed([{steps}], {dict(self.layers)!r})"


STEPS: dict[str, type[Step]] = {
    step.__name__: step
    for step in (
        RTN,
        GPTQ,
        AWQ,
        MagnitudePruning,
        Wanda,
        SparseGPT,
        LowRankCorrection,
        QuantizeEmbeddings,
        DepthPruning,
        WidthPruning,
        Cast,
    )
}
"""Every step by its name, in the order in which forms offer them."""


def step_from_dict(data: dict[str, Any]) -> Step:
    """Return the step that :meth:`Step.to_dict` described.

    Raises
    ------
    ConfigError
        If the name or a field is unknown, or a value is not accepted.
    """
    values = dict(data)
    name = values.pop("step", None)
    if name == Mixed.__name__:
        return Mixed.from_fields(values)
    if name not in STEPS:
        raise ConfigError(f"Unknown step {name!r}; known steps are {', '.join(STEPS)}.")
    return STEPS[name].from_fields(values)

"""Where a model comes from: the bundled demo, a folder, or the Hugging Face Hub; files only.

Nothing here runs code from a model: weights are read from safetensors files, or from pickles by
torch's reader that takes tensors and nothing else.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import pickle
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import (
    ConfigError,
    HubUnreachableError,
    ModelNotFoundError,
    TokenizerMissingError,
    UnsupportedArchitectureError,
)
from workbench.fields import shown, words
from workbench.stored_paths import check_folder

if TYPE_CHECKING:
    from torch import Tensor

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "model"
ACCEPTED = (
    "Accepted are 'demo' (the bundled model), a folder with config.json and model.safetensors,"
    " a Hugging Face id such as 'HuggingFaceTB/SmolLM2-135M', or a live transformers model."
)
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX = "pytorch_model.bin.index.json"
PICKLED = "pytorch_model.bin"
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


@dataclass(frozen=True)
class Source:
    """A model's files on this machine; for a Hub model, the weights may not be there yet.

    Attributes
    ----------
    kind : str
        ``"demo"``, ``"folder"`` or ``"hub"``.
    ref : str
        The absolute folder, or the Hugging Face id.
    revision : str or None
        The commit that was found, for Hub models.
    folder : Path
        Where the files are.
    """

    kind: str
    ref: str
    revision: str | None
    folder: Path

    @property
    def name(self) -> str:
        """A short name for plots and messages."""
        return (
            DEMO if self.kind == DEMO else self.ref.rstrip("/\\").replace("\\", "/").split("/")[-1]
        )


def find_source(
    ref: str | os.PathLike[str], revision: str | None = None, *, code: bool = False
) -> Source:
    """Find a model or tokenizer; of a Hub model, fetch configuration and tokenizer only.

    Parameters
    ----------
    ref : str or path
        ``"demo"``, a folder, or a Hugging Face id. An existing folder is preferred to an id.
    revision : str, optional
        Branch, tag or commit of a Hub model.
    code : bool
        Also fetch the repository's Python files (for ``trust_remote_code``).

    Raises
    ------
    ModelNotFoundError
        If there is no such folder or repository, or it may not be read.
    HubUnreachableError
        If the Hub does not answer and the model is not in the local cache.
    ConfigError
        If ``revision`` is given for a folder or for the bundled model.
    UnsafePathError
        If a link in the folder leads out of it, or something in it is no regular file.
    """
    words("load_model", "revision", revision, none_means="the newest")
    text = os.fspath(ref)
    path = Path(text).expanduser()
    if revision is not None and (text == DEMO or path.is_dir()):
        what = "the bundled model" if text == DEMO else f"the folder {text!r}"
        raise ConfigError(
            f"revision={shown(revision)} has no meaning for {what}; leave it out, or give a Hugging"
            " Face id."
        )
    if text == DEMO:
        if not DEMO_FOLDER.is_dir():
            raise ModelNotFoundError(
                "The bundled model is not in this installation (workbench/demo/model is missing)."
                " Reinstall compression-workbench, or give a folder or a Hugging Face id."
            )
        return Source(DEMO, DEMO, None, DEMO_FOLDER)
    if path.is_dir():
        folder = path.resolve()
        check_folder(folder, boundary=_boundary(folder), depth=2)
        return Source("folder", str(folder), None, folder)
    if path.is_file():
        raise ModelNotFoundError(
            f"{text!r} is a file; give the folder that holds config.json and model.safetensors"
            f" ({str(path.parent)!r}?). {ACCEPTED}"
        )
    if not _is_hub_id(text, is_path=not isinstance(ref, str)):
        raise ModelNotFoundError(f"There is no folder {text!r}.{_did_you_mean(path)} {ACCEPTED}")
    folder = _snapshot(text, revision, SMALL_FILES + (["*.py"] if code else []))
    return Source("hub", text, folder.name, folder)


def read_config(source: Source) -> dict[str, object]:
    """Return the model's config.json.

    Raises
    ------
    ModelNotFoundError
        If there is none, or it is not JSON.
    """
    path = source.folder / "config.json"
    if not path.is_file():
        hint = ""
        if source.kind != "hub":
            inner = sorted(p.parent.name for p in source.folder.glob("*/config.json"))
            hint = f" Did you mean {str(source.folder / inner[0])!r}?" if inner else ""
        if (source.folder / "adapter_config.json").is_file():
            hint = " It holds an adapter (adapter_config.json): merge it into its base model first."
        raise ModelNotFoundError(
            f"{source.ref!r} has no config.json, so it is not a transformers model.{hint}"
            f" {ACCEPTED}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelNotFoundError(
            f"The config.json of {source.ref!r} is not JSON ({error}). Copy or download it again."
        ) from error
    if not isinstance(config, dict):
        raise ModelNotFoundError(f"The config.json of {source.ref!r} is not a JSON object.")
    return config


_ATTENTION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_BUILT_IN = {"eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"}
_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
_COUNTS = re.compile(r"(^|_)(layers?|blocks?|experts?|n_layer)$|^num_.*(layers|blocks|experts)$")
MOST_LAYERS = 10_000
MOST_SIZE = 10**9


def check_config(source: Source, config: dict[str, object], *, trust: bool) -> None:
    """Refuse what a model's files would fetch, run or read beside themselves, or never build.

    Parameters
    ----------
    source : Source
    config : dict
        The content of config.json.
    trust : bool
        Whether the model's own code may run.

    Raises
    ------
    UnsupportedArchitectureError
        With the field, and what to do.
    """
    for key, value in _entries(config):
        if isinstance(value, int) and not isinstance(value, bool):
            most = MOST_LAYERS if _COUNTS.search(key) else MOST_SIZE
            if abs(value) > most and not key.endswith(("_id", "seed", "max_length", "_size_limit")):
                if key.endswith(("length", "positions", "window")):  # "without limit", as some say
                    continue
                raise UnsupportedArchitectureError(
                    f"The config.json of {source.ref!r} states {key} = {value:.3g}, which no model"
                    f" has (at most {most:,}). Download it again."
                )
        if _ATTENTION.fullmatch(key) and not trust:
            names = value.values() if isinstance(value, dict) else [value]
            for name in names:
                package = _PACKAGES.get(str(name))
                known = name is None or name in _BUILT_IN
                if not known and not (package and importlib.util.find_spec(package)):
                    raise UnsupportedArchitectureError(
                        f"{source.ref!r} asks for {key} = {str(name)[:80]!r}, a program that would"
                        " be fetched from the Hugging Face hub and run. If you trust it, pass"
                        ' trust_remote_code=True; else write "sdpa" into its config.json.'
                    )
        if key in ("use_kernels", "kernel_config") and value and not trust:
            raise UnsupportedArchitectureError(
                f"{source.ref!r} asks for {key}, programs that would be fetched from the Hugging"
                " Face hub and run. If you trust them, pass trust_remote_code=True; else remove the"
                " field from its config.json."
            )
        if key == "transformers_weights" and value:
            raise UnsupportedArchitectureError(
                f"{source.ref!r} names its weights {str(value)[:80]!r}; accepted is {SINGLE}, or an"
                " index of such files. Rename them and remove the field from its config.json."
            )
    if (source.folder / "adapter_config.json").is_file():
        raise UnsupportedArchitectureError(
            f"{source.ref!r} holds an adapter beside the model (adapter_config.json), which names"
            " another model to be loaded in its place. Merge it: model.merge_and_unload()."
        )
    _check_tokenizer_config(source)


def _check_tokenizer_config(source: Source) -> None:
    path = source.folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        return  # said where the tokenizer is read
    for key, value in config.items() if isinstance(config, dict) else ():
        is_file = key.endswith(("_file", "_spm")) and key != "special_tokens_map_file"
        if is_file and isinstance(value, str) and Path(value).name != value:
            raise UnsupportedArchitectureError(
                f"The tokenizer of {source.ref!r} names a file outside of its folder"
                f" ({key} = {value[:80]!r}). Remove the field from its tokenizer_config.json."
            )


def _entries(config: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield every key and value of nested JSON."""
    if depth > 20:
        return
    if isinstance(config, dict):
        for key, value in config.items():
            yield str(key), value
            yield from _entries(value, depth + 1)
    elif isinstance(config, list):
        for value in config:
            if isinstance(value, (dict, list)):
                yield from _entries(value, depth + 1)


def _boundary(folder: Path) -> Path:
    """Return where links in a model's folder may lead: a snapshot's, to its repository's cache."""
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent if cached else folder


def checkpoint_files(source: Source) -> tuple[Path, ...]:
    """Return the model's weight files; of a Hub model, download them first.

    They are safetensors files; ``pytorch_model.bin`` and its parts where there are none.

    Raises
    ------
    UnsupportedArchitectureError
        If the model has weights in another format only; the message says how to convert them.
    ModelNotFoundError
        If it has no weights, or some of its files are missing.
    HubUnreachableError
        If the Hub does not answer and the weights are not in the local cache.
    """
    if source.kind == "hub":
        wanted = _shards(source.folder) or [SINGLE]
        if any(not (source.folder / name).is_file() for name in wanted):
            _snapshot(source.ref, source.revision, wanted)
    names = _shards(source.folder) or [SINGLE]
    missing = [name for name in names if not (source.folder / name).is_file()]
    if not missing:
        return tuple(source.folder / name for name in names)
    present = _hub_names(source) if source.kind == "hub" else _names(source.folder)
    if len(missing) < len(names) or source.folder.joinpath(INDEX).is_file():
        raise ModelNotFoundError(
            f"{source.ref!r} is incomplete: {missing[0]} and {len(missing) - 1} other weight files"
            " of its index are missing. Copy or download the model again."
        )
    if PICKLED in present or PICKLED_INDEX in present:
        return _pickled_files(source)
    pickled = [name for name in present if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickled:
        raise UnsupportedArchitectureError(
            f"{source.ref!r} has its weights only as a pickle that transformers does not load"
            f" ({pickled[0]}); the workbench reads {SINGLE} and {PICKLED}. If it is a state dict of"
            f" transformers, name it {PICKLED}."
        )
    others = [name for name in present if name.endswith((".gguf", ".onnx", ".h5", ".msgpack"))]
    others += [f"onnx/{file.name}" for file in sorted(source.folder.glob("onnx/*.onnx"))]
    if others:
        raise UnsupportedArchitectureError(
            f"{source.ref!r} has its weights only as {others[0]}; the workbench reads"
            " model.safetensors. Load the original model that this file was made from."
        )
    other = [name for name in present if name.endswith(".safetensors")]
    hint = f" It has {other[0]}; rename it if that is the model." if other else ""
    raise ModelNotFoundError(f"{source.ref!r} has no weights (no {SINGLE}).{hint} {ACCEPTED}")


def read_headers(files: Iterable[Path]) -> dict[str, tuple[str, int]]:
    """Return ``{tensor name: (safetensors dtype, bytes)}`` without reading the tensors.

    Raises
    ------
    ModelNotFoundError
        If a file is cut off or is not a safetensors file.
    """
    tensors: dict[str, tuple[str, int]] = {}
    for path in files:
        size = path.stat().st_size
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > size:
                    raise ValueError("the header is longer than the file")
                header = json.loads(stream.read(length))
            end = 8 + length
            for name, entry in header.items():
                if name != "__metadata__":
                    start, stop = entry["data_offsets"]
                    tensors[name] = (entry["dtype"], stop - start)
                    end = max(end, 8 + length + stop)
            if end > size:
                raise ValueError(f"{size:,} of {end:,} bytes are there")
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            struct.error,
        ) as error:
            raise ModelNotFoundError(
                f"{path.name} in {str(path.parent)!r} is not a whole safetensors file ({error})."
                " Copy or download it again (an unfetched Git LFS pointer looks like this too)."
            ) from error
    return tensors


def _pickled_files(source: Source) -> tuple[Path, ...]:
    names = _shards(source.folder, PICKLED_INDEX, PICKLED) or [PICKLED]
    missing = [name for name in names if not (source.folder / name).is_file()]
    if missing and source.kind == "hub":
        _snapshot(source.ref, source.revision, names)
        missing = [name for name in names if not (source.folder / name).is_file()]
    if missing:
        raise ModelNotFoundError(
            f"{source.ref!r} is incomplete: {missing[0]} and {len(missing) - 1} other weight files"
            " of its index are missing. Copy or download the model again."
        )
    return tuple(source.folder / name for name in names)


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled state dict, read by torch with ``weights_only=True``.

    Raises
    ------
    UnsupportedArchitectureError
        If the file holds anything but tensors in a dictionary, which is not unpickled.
    ModelNotFoundError
        If it is cut off or no such file.
    """
    import torch

    found: object = None
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # written before torch 1.6: it cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsupportedArchitectureError(
            f"{path.name} in {str(path.parent)!r} is a pickle with more in it than tensors, or none"
            " at all, and what else a pickle holds can run code, so it is not opened. If you trust"
            " it, load it with torch once and save its tensors as safetensors."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelNotFoundError(
            f"{path.name} in {str(path.parent)!r} cannot be read ({error}). Copy or download it"
            " again (an unfetched Git LFS pointer looks like this too)."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise UnsupportedArchitectureError(
            f"{path.name} in {str(path.parent)!r} is no dictionary of tensors, as transformers"
            " saves; give a model folder that transformers loads."
        )
    return found


def check_vocabulary(source: Source) -> None:
    """Raise TokenizerMissingError if the folder holds no tokenizer's vocabulary."""
    names = _names(source.folder)
    if any(name in VOCABULARIES or name.endswith((".tiktoken", ".model")) for name in names):
        return
    raise TokenizerMissingError(
        f"{source.ref!r} has no tokenizer (none of {', '.join(VOCABULARIES[:4])}, …). Give one:"
        " load_model(…, tokenizer=<a folder, a Hugging Face id, or a live tokenizer>), usually that"
        " of the model it was trained from."
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _shards(folder: Path, index_name: str = INDEX, single: str = SINGLE) -> list[str]:
    index = folder / index_name
    if not index.is_file() or (folder / single).is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelNotFoundError(
            f"{index_name} in {str(folder)!r} cannot be read ({error}). Download it again."
        ) from error
    if any(Path(name).name != name for name in names):
        raise ModelNotFoundError(f"{index_name} in {str(folder)!r} points outside its folder.")
    return sorted(names)


def _is_hub_id(text: str, *, is_path: bool) -> bool:
    if is_path or not text or text[0] in "./~" or "\\" in text or text.count("/") > 1:
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def _did_you_mean(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f" The folder {str(parent)!r} does not exist either."
    names = [p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f" Did you mean {str(parent / nearest[0])!r}?" if nearest else ""


def _near_id(text: str) -> str:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    cached = [p.name[8:].replace("--", "/") for p in cache.glob("models--*")]
    parent = Path(text).parent
    beside = parent.iterdir() if parent.is_dir() else ()
    folders = [p.as_posix() for p in beside if p.is_dir() and not p.name.startswith(".")]
    known = [name for name in [DEMO, *folders, *cached] if name != text]
    nearest = difflib.get_close_matches(text, known, n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """Return the cache folder of a Hub model, with the files that match ``patterns`` in it."""
    from huggingface_hub import errors, snapshot_download

    cached = _cached_commit(repo, revision, patterns)
    if cached is not None:
        return cached
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
        return Path(folder)
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{repo!r} is gated: accept its conditions on its page on the Hub, log in with"
            " `hf auth login`, and try again; or use another model."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no folder and no public Hugging Face model {repo!r}.{_near_id(repo)} If it"
            f" is private, log in with `hf auth login`. {ACCEPTED}"
        ) from error
    except (errors.RevisionNotFoundError, errors.DisabledRepoError) as error:
        raise ModelNotFoundError(
            f"The Hugging Face model {repo!r} has no revision {revision!r} that can be read; give"
            " a branch, tag or commit of it, or leave revision out."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(repo) from error
    except _network_errors() as error:
        raise _unreachable(repo, f" ({type(error).__name__}: {error})") from error


def _cached_commit(repo: str, revision: str | None, patterns: list[str]) -> Path | None:
    """Return the cache folder of a commit that is there already; a commit never changes.

    Without this, reopening a study without a network would wait for the Hub's retries.
    """
    from huggingface_hub import errors, snapshot_download

    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        return None
    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                local_files_only=True,
            )
        )
    except errors.LocalEntryNotFoundError:
        return None
    names = _names(folder)
    if "*.json" in patterns:
        complete = "config.json" in names and any(name in VOCABULARIES for name in names)
    else:
        complete = set(patterns) <= set(names)
    return folder if complete else None


def _hub_names(source: Source) -> list[str]:
    """Return the names of a Hub model's files, asked once its weights turn out to be missing."""
    from huggingface_hub import HfApi

    try:
        siblings = HfApi().model_info(source.ref, revision=source.revision).siblings
        return [file.rfilename for file in siblings or []]
    except _network_errors() as error:
        raise _unreachable(source.ref) from error


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub client raises when the network fails; its library differs by version."""
    from huggingface_hub.errors import HfHubHTTPError

    library = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return (HfHubHTTPError, ConnectionError, TimeoutError, *library)


def _unreachable(repo: str, detail: str = "") -> HubUnreachableError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        cause = "HF_HUB_OFFLINE is set, so the Hugging Face Hub is not asked"
        advice = "Unset HF_HUB_OFFLINE and restart the kernel"
    else:
        cause = f"The Hugging Face Hub did not answer{detail}"
        advice = "Check the network and the proxy settings"
    return HubUnreachableError(
        f"{cause}, and {repo!r} is not (or only in part) in the local cache; there is no folder of"
        f" that name either.{_near_id(repo)} {advice}, or use a folder or 'demo', which need no"
        " network."
    )

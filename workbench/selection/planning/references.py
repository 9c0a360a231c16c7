"""Where a plan's configurations come from: bundled ones, files, the Hub, or models in memory."""

from __future__ import annotations

import copy
import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError, DataError, HubUnreachableError, ModelNotFoundError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def known_models() -> dict[str, dict[str, Any]]:
    """Return the bundled configurations by name.

    Each has ``source``, ``parameters`` (as published) and ``config`` (what of config.json decides
    the shapes).
    """
    path = resources.files("workbench.selection.planning") / "models.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def config_of(ref: Any) -> tuple[str, PretrainedConfig]:
    """Return a name and the configuration of what ``plan`` was given.

    Parameters
    ----------
    ref : str, Path, dict, PretrainedConfig or LoadedModel
        A name of :func:`known_models`, "demo", a folder, a config.json, the content of one, a
        Hugging Face id (of which only the small files are downloaded), or a model.

    Raises
    ------
    ConfigError
        If it is none of these.
    ModelNotFoundError, HubUnreachableError
        If there is no folder and no model of this name, or the Hub does not answer.
    """
    from transformers import PretrainedConfig

    if isinstance(ref, PretrainedConfig):
        return _name(ref), ref
    loaded = getattr(ref, "hf_model", None)
    if loaded is not None:
        config = copy.deepcopy(loaded.config)
        config.architectures = [type(loaded).__name__]
        return str(ref.source.name), config
    if isinstance(ref, dict):
        config = _made(ref)
        return _name(config), config
    if not isinstance(ref, (str, os.PathLike)):
        raise ConfigError(
            f"A {type(ref).__name__} is not accepted; give a name of"
            f" {', '.join(known_models())}, a folder, a config.json or its content, or a model."
        )
    known = known_models()
    if str(ref) in known:
        return str(ref), _made(known[str(ref)]["config"])
    path = Path(ref)
    if path.suffix == ".json":
        try:
            return path.parent.name or path.stem, _made(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no configuration of a model: {error}.") from error
    from workbench.models.architectures import load_config
    from workbench.models.sources import find_source, read_config

    try:
        source = find_source(ref, None)
    except (ModelNotFoundError, HubUnreachableError) as error:
        raise type(error)(f"{error} Bundled configurations are {', '.join(known)}.") from error
    return source.name, load_config(source, read_config(source), False)


def _made(raw: dict[str, Any]) -> PretrainedConfig:
    from transformers import AutoConfig

    values = {k: v for k, v in raw.items() if k not in ("model_type", "auto_map")}
    try:
        config: PretrainedConfig = AutoConfig.for_model(str(raw.get("model_type")), **values)
    except ValueError as error:
        raise ConfigError(
            f"model_type {raw.get('model_type')!r} is not one that transformers knows; give the"
            " content of a model's config.json."
        ) from error
    return config


def _name(config: PretrainedConfig) -> str:
    return str(getattr(config, "_name_or_path", "") or config.model_type)

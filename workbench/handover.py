"""Hand an export over: as one zip file, or to a hub."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from workbench.atomic_files import aside_of
from workbench.errors import ConfigError, ExportError

TOKEN = "HF_TOKEN"
"""The environment variable with the hub's token: it is nowhere written, nor taken from a file."""

ENDPOINT = "HF_ENDPOINT"


def zip_folder(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a folder's files into one zip file beside it, and return that.

    Parameters
    ----------
    folder : str or path
        Of an export. Links in it are left out.
    path : str or path, optional
        Default: the folder's name with ``.zip``.
    overwrite : bool
        Whether a file that is there is replaced, once the new one is complete.

    Raises
    ------
    ExportError
        If the folder is not there, or the file may not or cannot be written.
    """
    source = Path(folder).expanduser()
    if not source.is_dir():
        raise ExportError(f"There is no folder {source}; give that of an export.")
    target = Path(path).expanduser() if path is not None else source.with_name(f"{source.name}.zip")
    if target.exists() and not overwrite:
        raise ExportError(
            f"{target} exists already. Give another path, or overwrite=True to replace it."
        )
    files = sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink())
    aside = aside_of(target)
    try:
        # Weights hardly compress, and loaders' users wait for it.
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(file, Path(source.name, file.relative_to(source)))
        os.replace(aside, target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def push_folder(
    folder: str | os.PathLike[str], repo: str, *, private: bool = True, message: str = ""
) -> str:
    """Upload a folder to a model repository of a hub, which is made if need be; return its commit.

    Parameters
    ----------
    folder : str or path
        Of an export.
    repo : str
        Such as ``"me/my-model"``.
    private : bool
        Of a repository that is made here.
    message : str
        Of the commit.

    Raises
    ------
    ConfigError
        If the environment has no token, or the name is none.
    ExportError
        If the folder is not there, or the hub refuses it or is not reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    source = Path(folder).expanduser()
    if not source.is_dir():
        raise ExportError(f"There is no folder {source}; give that of an export.")
    if not isinstance(repo, str) or repo.count("/") != 1:
        raise ConfigError(f"repo={repo!r} is not accepted; give owner and name: 'me/my-model'.")
    token = os.environ.get(TOKEN)
    if not token:
        raise ConfigError(
            f"There is no token to push with: set the environment variable {TOKEN} to one with"
            " write access. It is read from there alone, and kept nowhere."
        )
    api = HfApi(endpoint=os.environ.get(ENDPOINT), token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=source, commit_message=message or "Export of the workbench"
        )
    except HFValidationError as error:
        raise ConfigError(f"repo={repo!r} is not accepted: {error}") from error
    except (HfHubHTTPError, OSError) as error:  # the latter is what both HTTP clients raise
        words = str(error).replace(token, "…").splitlines()[0][:300]
        raise ExportError(f"{source} was not pushed to {repo}: {words}") from error
    return str(done.commit_url)

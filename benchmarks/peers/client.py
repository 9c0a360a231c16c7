"""Start a peer in an environment of its own, and send it one request at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

LLMCOMPRESSOR = ("llmcompressor==0.14.0.1",)
# GPTQModel builds against the torch that is there, so torch and the build's tools come first.
GPTQMODEL = (
    "torch==2.13.0 transformers>=5.14,<5.24 setuptools wheel packaging ninja numpy",
    "--no-build-isolation gptqmodel==7.6.0 optimum",
)
WORKER = Path(__file__).with_name("llmcompressor_worker.py")


def peer_python(
    environment: Path, pip_args: list[str], packages: tuple[str, ...] = LLMCOMPRESSOR
) -> Path:
    """Return the interpreter of the peer's environment; create it and install if missing.

    Each of ``packages`` is what one call of ``pip install`` is given.
    """
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = environment / ".installed"
    wanted = "\n".join(packages)
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"Installing {packages[-1]} into {environment} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for arguments in packages:
            install = [python, "-m", "pip", "install", "--quiet", *pip_args, *arguments.split()]
            subprocess.run(install, check=True, env=os.environ | {"GPTQMODEL_CPU_WORKERS": "2"})
        stamp.write_text(wanted)
    return python


class Peer:
    """A worker process, by default llm-compressor's; ``about`` holds its versions and threads."""

    def __init__(
        self,
        python: Path,
        *,
        threads: int,
        log: Path,
        worker: Path = WORKER,
        name: str = "llm-compressor",
    ) -> None:
        self._log = log
        self._name = name
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [python.absolute(), worker.absolute()],
                cwd=log.absolute().parent,  # some peers write logs of their own
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "TOKENIZERS_PARALLELISM": "false",
                    "HF_HUB_OFFLINE": "1",
                },
            )
        self.about: dict[str, Any] = self._read()

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the worker's answer (see ``llmcompressor_worker.py``)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RuntimeError(f"{self._name} failed on {request}: {answer['error']}")
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # The peer's packages print while they are imported; answers are JSON objects.
        line = next((line for line in self._process.stdout if line.startswith("{")), None)
        if line is None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"The peer's process ended. Its last words:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if kind is not None:
            self._process.terminate()
        self._process.wait()

"""Make the environment that the foreign loaders live in: ``python tests/interop/install.py``.

They bring their own pins of transformers and of compressed-tensors, so they get an environment of
their own. llama-cpp-python and gptqmodel are compiled once; pip keeps what it built.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.peers.client import peer_python

PACKAGES = (
    # GPTQModel builds against the torch that is there, so torch and the build's tools come first.
    "torch==2.13.0 transformers==5.17.0 llmcompressor==0.14.0.1 accelerate optimum setuptools wheel"
    " packaging ninja numpy",
    "--no-build-isolation gptqmodel==7.6.0",
    "llama-cpp-python==0.3.36",
    "mlx[cpu]==0.32.4 mlx-lm==0.32.2",
    "sentence-transformers==6.2.0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--pip-args", default="")
    arguments = parser.parse_args()
    print(peer_python(arguments.environment, arguments.pip_args.split(), PACKAGES))


if __name__ == "__main__":
    main()

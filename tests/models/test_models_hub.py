"""Loading from the Hub, against a small server on this machine; no outside address is asked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_folder
from workbench.models.load import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# The Hub client reads its settings when it is imported, so every scenario is a process of its own.
SCRIPT = """
import json, sys
from workbench.models.load import load_model
results = []
for options in json.loads(sys.argv[1]):
    try:
        model = load_model(**options)
        results.append({"fingerprint": model.fingerprint, "source": model.source.to_dict()})
    except Exception as error:
        results.append({"error": type(error).__name__, "message": str(error)})
print(json.dumps(results))
"""


class Hub(ThreadingHTTPServer):
    """As much of the Hub's protocol as downloading a model needs."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if path.startswith("/api/models/"):
            parts = path.removeprefix("/api/models/").split("/")
            repo, rest = "/".join(parts[:2]), parts[2:]
        else:
            parts = path.strip("/").split("/")
            repo, rest = "/".join(parts[:2]), parts[2:]
        folder = self.server.root / repo
        if not folder.is_dir():
            return self.refuse(401, "RepoNotFound")
        if len(rest) > 1 and rest[1] not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": f.as_posix(), "oid": "0" * 40}
                | {"size": (folder / f).stat().st_size}
                for f in files
            ]
            return self.send(json.dumps(tree).encode())
        if rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": f.as_posix()} for f in files]
            return self.send(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
        if repo == "org/gated":
            return self.refuse(403, "GatedRepo")
        file = folder.joinpath(*rest[2:])
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return self.send(data, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def load_elsewhere(
    home: Path, options: list[dict[str, Any]], **environment: str
) -> list[dict[str, Any]]:
    """Load models in a new process; return fingerprints and sources, or errors."""
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    outer = {k: v for k, v in outer.items() if not k.lower().endswith("_proxy")}
    package = str(Path(__file__).parents[2])
    inner = {"HF_HOME": str(home), "PYTHONPATH": package, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(options)],
        env=outer | inner,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    folder = tiny_folder(root / "org" / "tiny-llama")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"another export")
    tiny_folder(root / "org" / "gated")
    pickled = tiny_folder(root / "org" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    tiny_folder(root / "org" / "wordless", tokenizer=False)
    (root / "org" / "empty").mkdir()
    (root / "org" / "empty" / "README.md").write_text("nothing here")
    server = Hub(root)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path) -> dict[str, dict[str, Any]]:
    """What loading gives while the server answers; it primes the cache in ``home``."""
    cases: dict[str, dict[str, Any]] = {
        "good": {"ref": "org/tiny-llama"},
        "misspelt": {"ref": "org/tiny-lama"},
        "revision": {"ref": "org/tiny-llama", "revision": "v9"},
        "gated": {"ref": "org/gated"},
        "pickled": {"ref": "org/pickled"},
        "wordless": {"ref": "org/wordless"},
        "words": {"ref": "org/wordless", "tokenizer": "org/tiny-llama"},
        "empty": {"ref": "org/empty"},
    }
    results = load_elsewhere(home, list(cases.values()), HF_ENDPOINT=hub.endpoint)
    return dict(zip(cases, results, strict=True))


def test_a_hub_model_is_the_same_as_its_folder(online: dict[str, Any], hub: Hub) -> None:
    folder = load_model(hub.root / "org" / "tiny-llama")
    assert online["good"]["fingerprint"] == folder.fingerprint
    assert online["good"]["source"] == {
        "kind": "hub",
        "ref": "org/tiny-llama",
        "revision": COMMIT,
        "architecture": "LlamaForCausalLM",
        "name": "tiny-llama",
    }
    assert online["words"]["fingerprint"] == folder.fingerprint


def test_only_what_is_needed_is_downloaded(online: dict[str, Any], hub: Hub) -> None:
    asked = [path for path in hub.asked if "/resolve/" in path and "/pickled/" not in path]
    fetched = {path.split("/", 5)[-1] for path in asked}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not {name for name in fetched if name.endswith((".bin", ".py")) or "/" in name}


@pytest.mark.parametrize(
    ("case", "error", "parts"),
    [
        ("misspelt", "ModelNotFoundError", ["'org/tiny-lama'", "Did you mean 'org/tiny-llama'?"]),
        ("revision", "ModelNotFoundError", ["'v9'", "leave revision out"]),
        ("gated", "ModelNotFoundError", ["is gated", "hf auth login"]),
        ("pickled", "UnsupportedArchitectureError", ["pytorch_model.bin", "is not opened"]),
        ("wordless", "TokenizerMissingError", ["'org/wordless'", "tokenizer="]),
        ("empty", "ModelNotFoundError", ["no config.json", "Accepted are"]),
    ],
)
def test_what_the_hub_refuses(
    case: str, error: str, parts: list[str], online: dict[str, Any]
) -> None:
    result = online[case]
    assert result["error"] == error
    assert all(part in result["message"] for part in parts), result["message"]


NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"HF_ENDPOINT": NOWHERE}, "did not answer"),
        ({"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
    ids=["no network", "offline"],
)
def test_without_network_the_cache_serves_and_the_rest_is_a_clear_error(
    environment: dict[str, str], cause: str, online: dict[str, Any], home: Path
) -> None:
    cached, pinned, unknown, partial = load_elsewhere(
        home,
        [
            {"ref": "org/tiny-llama"},
            {"ref": "org/tiny-llama", "revision": COMMIT},
            {"ref": "org/tiny-lama"},
            {"ref": "org/pickled"},
        ],
        **environment,
    )
    assert cached == online["good"]
    assert pinned == online["good"]
    for result in (unknown, partial):
        assert result["error"] == "HubUnreachableError"
        assert cause in result["message"]
        assert "use a folder or 'demo'" in result["message"]
    assert "Did you mean 'org/tiny-llama'?" in unknown["message"]

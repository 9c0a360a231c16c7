"""A real JupyterLab and a real browser, with everything in a folder that is thrown away."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "01-quickstart.ipynb"
SUBSHELLS = "@jupyterlab/apputils-extension/kernels-settings.jupyterlab-settings"


def chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def missing(reason: str) -> None:
    """Skip, or fail where the browser is required."""
    if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{reason}, and WORKBENCH_REQUIRE_BROWSER=1")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots, ``$WORKBENCH_SCREENSHOTS`` if it is set."""
    given = os.environ.get("WORKBENCH_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = chromium()
    if path is None:
        missing("No Chromium was found on the PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
        browser = started.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


def wait_for_kernel(page: Any) -> None:
    """Wait until the kernel is connected: cells that are run before are dropped silently."""
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp?.shell.currentWidget;
            const kernel = panel?.sessionContext?.session?.kernel;
            return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
        }""",
        timeout=120_000,
    )


class Lab:
    """A running JupyterLab.

    Attributes
    ----------
    folder : Path
        What it shows.
    url : str
        Opens the quickstart notebook.
    """

    def __init__(self, folder: Path, *, subshells: bool) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        settings = folder / ".settings"
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
        (settings / SUBSHELLS).parent.mkdir(parents=True)
        mode = "perCommTarget" if subshells else "disabled"
        (settings / SUBSHELLS).write_text(json.dumps({"commsOverSubshells": mode}))
        quiet = settings / "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
        self._log = (folder / ".lab.log").open("w")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
                f"--LabApp.user_settings_dir={settings}", "--LabApp.expose_app_in_browser=True",
                f"--LabApp.workspaces_dir={folder / '.workspaces'}",
            ],
            stdout=self._log, stderr=self._log, cwd=folder,
            env=os.environ | {
                "PYTHONPATH": str(ROOT),
                "JUPYTER_CONFIG_DIR": str(folder / ".config"),
                "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
            },
        )  # fmt: skip
        self._wait(f"http://127.0.0.1:{port}/api/status?token={token}")

    def open(self, page: Any, address: str = "") -> None:
        """Open the lab in a page, at an address below ``/lab``, and wait until it is there."""
        page.goto(
            self.url.replace(f"/lab/tree/{NOTEBOOK}", f"/lab{address}") + "&reset", timeout=120_000
        )
        page.wait_for_selector(".jp-LabShell", timeout=120_000)

    def _wait(self, url: str) -> None:
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        self.close()
        pytest.fail(f"JupyterLab did not start: {(self.folder / '.lab.log').read_text()[-2000:]}")

    def close(self) -> None:
        """Stop the server and its kernels."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


MODES = [
    pytest.param(True, id="subshells"),
    pytest.param(False, id="main_thread", marks=pytest.mark.slow),
]
"""Where the kernel handles what widgets say: in a thread of its own, or in the main one."""


@pytest.fixture(scope="module", params=MODES)
def lab(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: Any) -> Iterator[Lab]:
    """JupyterLab on a fresh folder with the quickstart notebook."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    (folder / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")
    done = os.environ.get("WORKBENCH_BROWSER_STUDY")  # a finished study saves minutes
    if done:
        shutil.copytree(done, folder / "runs" / "quickstart")
    lab = Lab(folder, subshells=request.param)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def page(lab: Lab, browser: Any, screenshots: Path) -> Iterator[Any]:
    """The quickstart notebook after Run All."""
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(lab.url, timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_for_kernel(page)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    try:
        # the second output of the last cell comes when every other cell has run
        picture = page.locator('div[class^="wb-picture-"]')
        picture.wait_for(state="attached", timeout=900_000)
        points = page.locator(".jupyter-widgets .js-plotly-plot path.point")
        points.first.wait_for(state="attached", timeout=60_000)
    finally:
        page.screenshot(path=str(screenshots / "after-run-all.png"))
    yield page
    page.close()

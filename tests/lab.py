"""A real JupyterLab in a real browser, with no window and nobody at the mouse.

    python tests/lab.py lectures/09_convolution.ipynb OUT.png          the first screen
    python tests/lab.py lectures/09_convolution.ipynb OUT.png --full   OUT-01.png, ...

The notebook is run, unless --saved is given, and never saved. Needs Playwright and
Chromium; `CHROMIUM` names another browser than the first one found.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HERE = re.compile(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:|about:")
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells in the page
}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
IDLE = """() => /\\| Idle/.test(document.body.innerText) &&
  ![...document.querySelectorAll('.jp-InputPrompt')].some(e => e.innerText.includes('*'))"""
BOTTOM = """panel => Math.max(...[...panel.querySelectorAll('.jp-Cell')].map(
  cell => cell.getBoundingClientRect().bottom)) - panel.getBoundingClientRect().top"""
PANEL = ".jp-Notebook .jp-WindowedPanel-outer, .jp-Notebook.jp-WindowedPanel-outer"


def missing() -> str | None:
    """Return what is not installed, or None if a browser can be opened."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install playwright"
    return None if browser() else "no Chromium found: install it, or name it in CHROMIUM"


def browser() -> str | None:
    """Return the path of Chromium."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Lab:
    """An open notebook: the Playwright page, and what went wrong in it."""

    page: Any
    outside: list[str] = field(default_factory=list)  # requests to other machines
    errors: list[str] = field(default_factory=list)  # of the browser's console

    def wait(self, seconds: float = 300) -> None:
        """Wait until the kernel is idle and no cell waits for its turn."""
        for _ in range(2):  # idle twice, half a second apart: not between two cells
            time.sleep(0.5)
            self.page.wait_for_function(IDLE, timeout=seconds * 1000)

    def choose_run_all(self) -> None:
        """Choose Run All Cells in the menu."""
        self.page.click("li.lm-MenuBar-item:has-text('Run')")
        self.page.click("li.lm-Menu-item[data-command='runmenu:run-all']")

    def run_all(self, seconds: float = 300) -> None:
        """Choose Run All Cells in the menu and wait until all have run."""
        self.choose_run_all()
        self.wait(seconds)

    def failures(self) -> list[str]:
        """Return the text of each error that a cell shows."""
        mime = "[data-mime-type='application/vnd.jupyter.error']"
        return self.page.locator(mime).all_inner_texts()

    def screenshots(self, out: Path, full: bool = False) -> list[Path]:
        """Save the screen, or the notebook from top to bottom as several pictures."""
        self.page.wait_for_timeout(1000)  # until formulas are set
        panel = self.page.locator(PANEL).first
        panel.evaluate("panel => panel.scrollTo(0, 0)")
        if not full:
            self.page.screenshot(path=out)
            return [out]
        box = panel.bounding_box()
        step = int(box["height"]) - 60
        bottom = int(panel.evaluate(BOTTOM))
        tops = range(0, max(bottom - 60, 1), step)
        paths = [out.with_stem(f"{out.stem}-{n:02}") for n in range(1, len(tops) + 1)]
        for top, path in zip(tops, paths, strict=True):
            panel.evaluate("(panel, top) => panel.scrollTo(0, top)", top)
            self.page.wait_for_timeout(200)
            self.page.screenshot(path=path, clip=box)
        return paths


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start JupyterLab on a free port with settings of its own; yield URL with {path}."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name)
        for plugin, values in SETTINGS.items():
            path = home / "settings/@jupyterlab" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        places = {
            "JUPYTER_CONFIG_DIR": home / "config",
            "JUPYTER_DATA_DIR": home / "data",
            "JUPYTER_RUNTIME_DIR": home / "runtime",
            "IPYTHONDIR": home / "ipython",
            "JUPYTERLAB_SETTINGS_DIR": home / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        }
        search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"),
            f"--ServerApp.root_dir={folder}",
            f"--FileCheckpoints.checkpoint_dir={home / 'checkpoints'}",
        ]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **{key: str(place) for key, place in places.items()},
                    "PYTHONPATH": os.pathsep.join(search),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _answering(f"http://127.0.0.1:{port}/api?token={token}", process, home / "log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{path}}?token={token}"
        finally:
            process.terminate()
            process.wait(30)


def _answering(url: str, process: subprocess.Popen, log: Path) -> None:
    """Return when the server answers; raise RuntimeError with its log if it does not."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}")


@contextmanager
def opened(notebook: Path, width: int = 1280, height: int = 1600) -> Iterator[Lab]:
    """Open the notebook in JupyterLab, the side bar closed, and wait for its kernel."""
    from playwright.sync_api import sync_playwright

    notebook = notebook.resolve()
    folder = ROOT if notebook.is_relative_to(ROOT) else notebook.parent
    with server(folder) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        lab = Lab(chromium.new_page(viewport={"width": width, "height": height}))
        lab.page.on("request", lambda request: _note(lab.outside, request.url))
        lab.page.on(
            "console",
            lambda message: message.type == "error" and lab.errors.append(message.text),
        )
        lab.page.goto(url.format(path=notebook.relative_to(folder).as_posix()))
        lab.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        lab.page.keyboard.press("Control+b")  # closes the side bar
        lab.wait(60)
        yield lab
        chromium.close()


def _note(outside: list[str], url: str) -> None:
    """Add the address to the list unless it is on this machine."""
    if not HERE.match(url):
        outside.append(url)


def main() -> int:
    """Take the screenshots that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--full", action="store_true", help="the whole notebook, in slices")
    parser.add_argument("--saved", action="store_true", help="as saved, without running")
    chosen = parser.parse_args()
    if missing():
        print(missing(), file=sys.stderr)
        return 2
    with opened(chosen.notebook) as lab:
        if not chosen.saved:
            start = time.monotonic()
            lab.run_all()
            print(f"run in {time.monotonic() - start:.0f} s")
        for path in lab.screenshots(chosen.out, chosen.full):
            print(path)
        print("errors in cells:", lab.failures() or "none")
        print("errors in the console:", lab.errors or "none")
        print("requests to other machines:", sorted(set(lab.outside)) or "none")
    return int(bool(lab.outside))


if __name__ == "__main__":
    sys.exit(main())

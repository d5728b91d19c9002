"""Drive the notebooks in JupyterLab and Chromium, as a person would."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

import stacklib as sl

#: Names of the browser on different systems.
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = "no Chromium for the browser tests: apt install chromium, or set CHROMIUM to its path"

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]

#: Settings that make JupyterLab predictable.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # Every cell stays in the page, visible or not.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}

#: Console errors that have nothing to do with a notebook, and why.
HARMLESS = {
    "ResizeObserver loop": "the browser puts a layout off to its next frame",
    "favicon.ico": "the tab has no icon",
    "net::ERR_NAME_NOT_RESOLVED": "Voila fetches fonts for formulas, and does without them",
    "net::ERR_INTERNET_DISCONNECTED": "the same",
}

OUTPUT = ".jp-OutputArea-output"
ERRORS = f'{OUTPUT}[data-mime-type="application/vnd.jupyter.error"]'
NOTES = f'{OUTPUT}[data-mime-type="application/vnd.jupyter.stderr"]'

KERNEL_READY = """async () => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    if (!context) return false;
    await context.ready;
    const kernel = context.session?.kernel;
    return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""

# An idle kernel is not enough: it is also idle before its first cell. After an error, later cells never run.
# A cell with hidden code has no prompt in the page, so the counts of the notebook are asked.
ALL_CELLS_RAN = """errors => {
    const widgets = window.jupyterapp.shell.currentWidget.content.widgets;
    const cells = widgets.filter(widget => widget.model.type === 'code');
    const prompts = [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell .jp-InputPrompt')];
    const running = prompts.some(prompt => prompt.textContent.includes('*'));
    const done = cells.length > 0 && cells.every(cell => cell.model.executionCount !== null);
    return !running && (done || !!document.querySelector(errors));
}"""

# The pixels of pictures and canvases.
PICTURES = """() => {
    const pixels = image => {
        if (!image.complete || !image.naturalWidth) return '';
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL();
    };
    const kinds = '.jupyter-matplotlib-canvas-div canvas, .stacklib-viewer canvas';
    const canvases = [...document.querySelectorAll(kinds)];
    const images = [...document.querySelectorAll('.jp-OutputArea img.widget-image, .widget-image img')];
    return canvases.map(c => c.width ? c.toDataURL() : '').concat(images.map(pixels)).join('|');
}"""


# Measures the time from the next event of some types to the change of each of these pictures or texts. The
# page does the measuring: queries from outside would take longer than what is measured.
STOPWATCH = """([selector, types]) => {
    // A viewer counts the images that it has shown as a whole.
    const state = element => element.dataset.version ?? element.src ?? element.textContent;
    const elements = [...document.querySelectorAll(selector)];
    const shown = elements.map(element => ({element, before: state(element)}));
    if (!shown.length) throw new Error(`nothing matches ${selector}`);
    const changed = ({element, before}) => state(element) !== before && element.complete !== false;
    window.stopwatch = new Promise(resolve => {
        const start = event => {
            types.forEach(type => removeEventListener(type, start, true));
            const times = shown.map(() => null);
            const look = now => {
                const passed = performance.now() - event.timeStamp;
                shown.forEach((picture, i) => {
                    if (times[i] === null && changed(picture)) times[i] = passed;
                });
                if (times.includes(null) && passed < 20000) requestAnimationFrame(look);
                else resolve(times);
            };
            requestAnimationFrame(look);
        };
        types.forEach(type => addEventListener(type, start, true));
    });
}"""


# Adds up how far the wheel was turned, as the page hears it.
HEAR_WHEEL = """() => {
    window.turned = 0;
    window.hears ??= (addEventListener('wheel', event => { window.turned += event.deltaY; }, true), true);
}"""

ASK = """async code => {
    const {kernel} = window.jupyterapp.shell.currentWidget.sessionContext.session;
    const asked = kernel.requestExecute({code});
    let said = '';
    asked.onIOPub = ({header, content}) => { if (header.msg_type === 'stream') said += content.text; };
    const {content} = await asked.done;
    if (content.status !== 'ok') throw new Error(content.evalue);
    return said;
}"""


def chromium_or_skip() -> str:
    """Return the browser: the one in CHROMIUM, or Debian's, or one on the PATH.

    Without one the test is skipped; where tests must run (CI=true) it fails.
    """
    wanted = os.environ.get("CHROMIUM")
    places = [wanted] if wanted else ["/usr/bin/chromium", *NAMES]
    for place in places:
        if found := shutil.which(place):
            return found
    must_run = os.environ.get("CI", "").lower() in ("1", "true")
    return pytest.fail(MISSING) if must_run else pytest.skip(MISSING)


class Server:
    """A server with its own port, token and settings.

    JupyterLab, or Voila where `app` names the notebook that it serves.
    """

    def __init__(self, root: Path, app: str = "") -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.token = secrets.token_hex(16)
        self.home = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
        home = Path(self.home.name)
        for plugin, values in SETTINGS.items():
            package, name = plugin.split(":")
            file = home / "settings" / package / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values), encoding="utf-8")
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        environment = os.environ | {name: str(home / folder) for name, folder in folders.items()}
        laboratory = [
            *("jupyterlab", "--allow-root", "--expose-app-in-browser", f"--ServerApp.root_dir={root}"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"),
            f"--IdentityProvider.token={self.token}",
        ]
        served = ["voila", app, "--Voila.ip=127.0.0.1", f"--port={self.port}", f"--token={self.token}"]
        command = [sys.executable, "-m", *(served if app else laboratory), "--no-browser"]
        self.log = (home / "server.log").open("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            command, env=environment, cwd=root, stdout=self.log, stderr=subprocess.STDOUT
        )

    def address(self, path: str) -> str:
        """Return the address of a page."""
        joint = "&" if "?" in path else "?"
        return f"http://127.0.0.1:{self.port}/{path}{joint}token={self.token}"

    def __enter__(self) -> Server:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.address("api/status"), timeout=5).close()
                return self
            except urllib.error.HTTPError:
                # Voila does not know this address, but it has started.
                return self
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError("the server did not start")

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.home.cleanup()


class Lab:
    """A server and a browser that opens its notebooks."""

    def __init__(self, server: Server, browser: Browser) -> None:
        self.server, self.browser = server, browser

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[Notebook]:
        """Open a notebook in its own page with a kernel that is ready; both end with the block."""
        page = self.browser.new_page(viewport={"width": 1400, "height": 1000})
        try:
            notebook = Notebook(page)
            page.goto(self.server.address(f"lab/tree/{path}?reset"), timeout=120_000)
            page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=60_000)
            # Running cells earlier opens a dialog that waits for an answer.
            page.wait_for_function(KERNEL_READY, timeout=60_000)
            yield notebook
        finally:
            with contextlib.suppress(Exception):
                page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
            page.close()


class Notebook:
    """An open notebook."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console: list[str] = []
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._note(f"page error: {error}"))

    def _note(self, text: str) -> None:
        if not any(part in text for part in HARMLESS):
            self.console.append(text[:400])

    def run_all(self, timeout: float = 240) -> None:
        """Run all cells and wait for the last one."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        self.page.wait_for_function(ALL_CELLS_RAN, arg=ERRORS, timeout=1e3 * timeout)

    def restart_and_run_all(self, timeout: float = 240) -> None:
        """Restart the kernel and run all cells."""
        self.page.evaluate(
            "async () => { const app = window.jupyterapp;"
            " await app.shell.currentWidget.sessionContext.session.kernel.restart();"
            " await app.commands.execute('notebook:clear-all-cell-outputs'); }"
        )
        self.page.wait_for_function(KERNEL_READY, timeout=60_000)
        self.run_all(timeout)

    def errors(self) -> list[str]:
        """Return error outputs, console errors, and all of stderr except our notes.

        The warnings of stacklib go to stderr by design, as lines that begin with "Note: ".
        """
        odd = [line for line in self.said().splitlines() if line.strip() and not line.startswith("Note: ")]
        return [*self.page.locator(ERRORS).all_inner_texts(), *odd, *self.console]

    def said(self) -> str:
        """Return what went to stderr: the notes."""
        return "\n".join(self.page.locator(NOTES).all_inner_texts())

    def readouts(self) -> str:
        """Return the text of the panels."""
        return "\n".join(self.page.locator("[role=status][aria-live]").all_inner_texts())

    def titles(self) -> str:
        """Return the titles of the viewers."""
        return "\n".join(self.page.locator(".stacklib-viewer .title").all_inner_texts())

    def pictures(self) -> str:
        """Return a fingerprint of all live pictures and canvases."""
        return hashlib.sha1(self.page.evaluate(PICTURES).encode()).hexdigest()

    def settled(self, pause: float = 0.4) -> str:
        """Wait until nothing changes, and return the fingerprint."""
        last = None
        while last != (now := self.pictures()):
            last = now
            self.page.wait_for_timeout(1e3 * pause)
        return now

    def start_stopwatch(self, selector: str, types: tuple[str, ...] = ("keydown", "mousedown")) -> None:
        """Measure the time from the next key or mouse button to the change of each matching element."""
        self.page.evaluate(STOPWATCH, [selector, types])

    def stopwatch(self) -> list[float]:
        """Return the time of each element in milliseconds."""
        measured = self.page.evaluate("() => window.stopwatch")
        assert None not in measured, "a picture or a text did not change within 20 s"
        return measured

    def turn_wheel(self, steps: int, delta: int = -200) -> None:
        """Turn the wheel, and wait until the page has heard all of it: a later drag may be heard earlier."""
        self.page.evaluate(HEAR_WHEEL)
        for _ in range(steps):
            self.page.mouse.wheel(0, delta)
        self.wait_until(
            lambda: self.page.evaluate("() => window.turned") == steps * delta, "turning the wheel"
        )

    def draw_a_box(self, selector: str) -> None:
        """Draw a box with the mouse in the first picture, as Shift lets one."""
        box = self.page.locator(selector).first.bounding_box()
        self.page.keyboard.down("Shift")
        self.page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.3 * box["height"])
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
        self.page.mouse.up()
        self.page.keyboard.up("Shift")

    def ask(self, code: str) -> str:
        """Run code in the kernel, and return what it prints."""
        return self.page.evaluate(ASK, code).strip()

    def wait_until(self, holds: Callable[[], object], what: str, timeout: float = 30) -> None:
        """Wait until something holds."""
        end = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < end, f"{what} did not happen within {timeout:g} s: {self.readouts()}"
            self.page.wait_for_timeout(20)

    def number_pictures(self) -> None:
        """Give the pictures of the explorers the ids picture-0, picture-1 and so on."""
        self.page.evaluate(
            "() => document.querySelectorAll('.stacklib-pictures .stacklib-viewer')"
            ".forEach((picture, index) => { picture.id = `picture-${index}`; })"
        )

    def slider(self, name: str, index: int = 0) -> Locator:
        """Return the handle of the slider with this description."""
        rows = self.page.locator(".widget-slider", has=self.page.get_by_text(name, exact=True))
        row = rows.nth(index)
        handle = row.locator(".noUi-handle").first
        handle.scroll_into_view_if_needed()
        return handle

    def slider_value(self, name: str = "sigma_high", index: int = 0) -> float:
        """Return the value of the slider with this description."""
        return float(self.slider(name, index).get_attribute("aria-valuetext"))


@contextlib.contextmanager
def laboratory(root: Path, chromium: str) -> Iterator[Lab]:
    """One server and one browser for many notebooks."""
    with Server(root) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield Lab(server, browser)
        finally:
            browser.close()


# what panels show, and how quickly ---------------------------------------------------------------

Say = Callable[[str], None]
#: Milliseconds in which a person should see it on a quiet machine. Test machines are busy: times are printed.
TARGETS = {
    "without": 300,
    "opening": 5000,
    "between": 100,
    "50 frames": 180,
    "20 frames": 100,
    "click": 150,
    "region moved": 500,
    "stretch": 16,
    "zoom": 33,
    "pan": 33,
}


#: Prints a fingerprint of the pixels of a box without a frame, as the inspector `panel` shows them.
SHOWN_WITHOUT = """import hashlib
shown = panel._panel.shares.viewers[1]._pyramid.rows
print(hashlib.sha256(shown.read(0, shown.shape[1]).tobytes()).hexdigest())"""


def report(say: Say, what: str, measured: list[float]) -> None:
    """Print the median."""
    median = float(np.median(measured))
    target = next(limit for name, limit in TARGETS.items() if name in what)
    digits = 1 if median < 10 else 0
    each = ", ".join(f"{value:.{digits}f}" for value in measured[:10])
    say(f"{what}: median {median:.{digits}f} ms, {median / target:.2f} of the target of {target} ms ({each})")


def integrate(frames: object, recipe: sl.Recipe, region: tuple[int, ...] | None = None) -> sl.Integration:
    """Integrate quietly, to compare with what a panel shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(frames, recipe, region=region, progress=False)


def without_frame(result: sl.Integration, number: int, box: tuple[int, ...]) -> np.ndarray:
    """Return a box of the image as a run without a frame makes it, before `output_range`."""
    frames = result.preparation.frames
    others = frames[[i for i in range(len(frames)) if i + 1 != number]]
    return integrate(others, result.recipe, box).original


def rejected(result: sl.Integration) -> list[str]:
    """Write the numbers as the explorer does."""
    parts = (("low", result.rejected_low), ("high", result.rejected_high))
    return [f"rejected {side} {100 * fraction.mean():.3f} %" for side, fraction in parts]

"""Every notebook as a person meets it: opened in JupyterLab in a browser, all cells run."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from conftest import ROOT, SAMPLES

import stacklib as sl

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[browser.Lab]:
    """JupyterLab over copies: what notebooks write does not end up in the project."""
    chromium = browser.chromium_or_skip()
    root = tmp_path_factory.mktemp("walk")
    (root / "notebooks").mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, root / "notebooks")
    shutil.copytree(SAMPLES, root / "sample_data", ignore=shutil.ignore_patterns("5_Integration", ".stack*"))
    with browser.laboratory(root, chromium) as running:
        yield running


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_the_browser(lab, path):
    with lab.open(f"notebooks/{path.name}") as notebook:
        notebook.run_all()
        notebook.settled()
        assert notebook.errors() == []
        if use := USES.get(path.stem):
            use(notebook)
            notebook.settled()
            assert notebook.errors() == []


# what a person does ------------------------------------------------------------------------------


def wait_until(notebook: browser.Notebook, holds: Callable[[], bool], what: str, timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, f"{what} did not happen within {timeout:g} s: {notebook.readouts()}"
        notebook.page.wait_for_timeout(20)


def untick_a_frame(notebook: browser.Notebook) -> None:
    """The number of selected frames falls by one, and rises again."""

    def selected() -> int:
        return int(re.search(r"(\d+) of \d+ frames are selected", notebook.readouts())[1])

    before = selected()
    rows = notebook.page.locator(".widget-hbox", has=notebook.page.locator("img"))
    tick = rows.first.locator("input[type=checkbox]").first
    assert tick.is_checked()
    tick.click()
    wait_until(notebook, lambda: selected() == before - 1, "leaving out a frame")
    tick.click()
    wait_until(notebook, lambda: selected() == before, "taking it back")


def click_a_pixel(notebook: browser.Notebook) -> None:
    """The story beside the picture names the pixel, and is that of `explain`."""

    def pixel() -> tuple[int, ...]:
        return tuple(map(int, re.search(r"x (\d+), y (\d+), channel (\d+)", notebook.readouts()).groups()))

    canvas = notebook.page.locator(".jupyter-matplotlib-canvas-div canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    first, seconds = pixel(), []
    for across, down in ((0.25, 0.5), (0.4, 0.6), (0.3, 0.4)):
        known, before, start = pixel(), notebook.settled(), time.perf_counter()
        notebook.page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
        seconds.append(notebook.seconds_to_change(before, start))
        wait_until(notebook, lambda known=known: pixel() != known, "choosing a pixel")
    report("click to story", seconds)
    x, y, channel = pixel()
    assert (x, y, channel) != first
    story = sl.explain(SAMPLES / "M101" / "4_Registered", x=x, y=y, channel=channel)
    wait_until(notebook, lambda: story.summary in unescape(notebook.readouts()), "telling the story")


def move_a_slider(notebook: browser.Notebook) -> None:
    """Picture and readout follow the keyboard and the mouse."""
    handle = notebook.slider("sigma_high")
    handle.focus()
    seconds = []
    for key in ["ArrowLeft"] * 4 + ["ArrowRight"] * 2:
        before, said, value = notebook.settled(), notebook.readouts(), handle.get_attribute("aria-valuetext")
        start = time.perf_counter()
        notebook.page.keyboard.press(key)
        seconds.append(notebook.seconds_to_change(before, start))
        wait_until(notebook, lambda said=said: notebook.readouts() != said, "a new readout")
        assert handle.get_attribute("aria-valuetext") != value
    report("slider key to picture", seconds)
    before, said, box = notebook.settled(), notebook.readouts(), handle.bounding_box()
    mouse, x, y = notebook.page.mouse, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x - 60, y, steps=8)
    mouse.up()
    notebook.seconds_to_change(before, time.perf_counter())
    wait_until(notebook, lambda: notebook.readouts() != said, "a new readout")


def report(what: str, seconds: list[float]) -> None:
    each = ", ".join(f"{1e3 * value:.0f}" for value in seconds)
    print(f"{what}: median {1e3 * sorted(seconds)[len(seconds) // 2]:.0f} ms ({each})")


#: What is tried in a notebook after all its cells have run.
USES = {
    "1_select_frames": untick_a_frame,
    "2_choose_rejection": move_a_slider,
    "3_inspect_rejection": click_a_pixel,
}


def test_without_a_browser_a_person_skips_and_ci_fails(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="apt install chromium"):
        browser.chromium_or_skip()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install chromium"):
        browser.chromium_or_skip()

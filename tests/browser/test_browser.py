"""Every notebook in JupyterLab in a browser: all cells are run and the panels used."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from conftest import ROOT, SAMPLES
from nbformat.v4 import new_code_cell, new_notebook

import stacklib as sl
from stacklib.notebook.app import app_notebook
from stacklib.panels import Viewer
from stacklib.panels.viewer.stretches import CURVES, Stretch

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser
from browser import Say, integrate, rejected, report, without_frame

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
M101 = "sample_data/M101/4_Registered"
#: In these notebooks it is measured how quickly panels answer.
MEASURED = ("1_select_frames", "3_inspect_rejection")
#: Seconds from opening a notebook to its last output, on such a machine.
COLD = 30


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Copies of notebooks and samples, so that notebooks write nothing into the project."""
    root = tmp_path_factory.mktemp("walk")
    (root / "notebooks").mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, root / "notebooks")
    shutil.copytree(SAMPLES, root / "sample_data", ignore=shutil.ignore_patterns("5_Integration", ".stack*"))
    return root


@pytest.fixture(scope="module")
def lab(root) -> Iterator[browser.Lab]:
    """One JupyterLab and one browser for all tests."""
    with browser.laboratory(root, browser.chromium_or_skip()) as running:
        yield running


# The notebooks after the fourth have no panels; tests/notebooks runs them.
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.latency] if path.stem in MEASURED else [])
        for path in NOTEBOOKS[:5]
    ],
)
def test_notebook_runs_in_the_browser(lab, path, root, say):
    start = time.perf_counter()
    with lab.open(f"notebooks/{path.name}") as notebook:
        notebook.run_all()
        seconds = time.perf_counter() - start
        say(f"{path.stem}: opened and run in {seconds:.1f} s (at best below {COLD} s)")
        notebook.settled()
        assert notebook.errors() == []
        if use := USES.get(path.stem):
            use(notebook, root, say)
            notebook.settled()
            assert notebook.errors() == []


# what a person does ------------------------------------------------------------------------------


def choose_frames(notebook: browser.Notebook, root: Path, say: Say) -> None:
    """Frames are looked at and chosen; a frame that is left out is not in the result."""

    def selected() -> int:
        return int(re.search(r"(\d+) of \d+ frames are selected", notebook.readouts())[1])

    notebook.page.locator(".stacklib-blinker tr[data-frame]").first.wait_for()
    notebook.page.evaluate("() => document.querySelector('.stacklib-blinker').scrollIntoView()")
    look_at_frames(notebook)
    change_the_selection(notebook, selected)
    blink_frames(notebook, 20, say)
    before = selected()
    ticks = [notebook.page.locator(f"tr[data-frame='{index}'] input") for index in (0, 2)]
    for number, tick in enumerate(ticks, start=1):
        assert tick.is_checked()
        tick.click()
        notebook.wait_until(lambda number=number: selected() == before - number, "leaving out a frame")
    ticks[0].click()
    notebook.wait_until(lambda: selected() == before - 1, "taking it back")
    notebook.page.get_by_role("button", name="Save", exact=True).click()
    path = root / "sample_data" / "M101" / "recipe.yaml"
    notebook.wait_until(lambda: f"Saved {path}" in notebook.readouts(), "saving")
    job = sl.Job.load(path)
    files = integrate(job.frames, job.recipe).frames["file"]
    assert len(files) == before - 1
    assert not any("_0003_" in name for name in files) and any("_0001_" in name for name in files)
    # After a restart, Run All shows what was saved and writes nothing.
    saved = path.read_bytes()
    notebook.restart_and_run_all()
    notebook.settled()
    assert selected() == before - 1 and path.read_bytes() == saved
    path.unlink()


#: The frame that the panel shows, once the viewer shows it too; -1 before that.
SHOWN_FRAME = """() => {
    const frame = document.querySelector('.stacklib-blinker').dataset.shown;
    const viewer = document.querySelector('.stacklib-blinker .stacklib-viewer').dataset;
    return frame === viewer.page && viewer.waiting === '0' ? Number(frame) : -1;
}"""
#: The panel beyond the screen, and rows of the table by frame in the order in which they are shown.
BEYOND = (
    "() => { const b = document.querySelector('.stacklib-blinker'); return b.scrollWidth - b.clientWidth; }"
)
ROWS = "() => [...document.querySelectorAll('tr[data-frame]')].map(row => Number(row.dataset.frame))"


def shows(notebook: browser.Notebook, frame: int) -> None:
    """Wait until picture, table, plots and words show a frame."""
    notebook.wait_until(lambda: notebook.page.evaluate(SHOWN_FRAME) == frame, f"showing frame {frame}")
    current = notebook.page.locator(".stacklib-blinker tr[aria-current]")
    # The kernel tells the table, a moment after the browser has changed the picture.
    notebook.wait_until(
        lambda: current.count() == 1 and current.get_attribute("data-frame") == str(frame),
        f"marking frame {frame}",
    )
    words = notebook.page.locator(".stacklib-blinker .shown")
    notebook.wait_until(lambda: f"{frame + 1:04d}, " in words.inner_text(), f"naming frame {frame}")


def look_at_frames(notebook: browser.Notebook) -> None:
    """Sort by a heading, step by keys, click rows and points; zoom and place stay, values are the file's."""
    page, frames = notebook.page, sl.open_frames(SAMPLES / "M101" / "4_Registered")
    shows(notebook, 0)
    assert page.evaluate(BEYOND) <= 0
    page.locator(".stacklib-blinker th", has_text="FWHM").click()
    notebook.wait_until(lambda: page.evaluate(ROWS) != list(range(20)), "sorting")
    order = page.evaluate(ROWS)
    assert sorted(order) == list(range(20))
    page.locator(f"tr[data-frame='{order[0]}'] td").nth(3).click()
    shows(notebook, order[0])
    for key, place in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", 19), ("ArrowRight", 0)):
        page.keyboard.press(key)
        shows(notebook, order[place])
    # Zoomed in, another frame shows the same place.
    stage = page.locator(".stacklib-blinker .stage")
    box = stage.bounding_box()
    across, down = box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"]
    page.mouse.move(across - 5, down)
    page.mouse.move(across, down)
    notebook.turn_wheel(4)
    pattern = r"x (\d+), y (\d+)\s+R ([\d.]+)\s+G ([\d.]+).*zoom ([\d.]+) %"
    seen = []
    for place in (0, 1):
        shows(notebook, order[place])
        image = frames[order[place]].read()

        def told(image=image) -> tuple[str, ...] | None:
            """Place and zoom, once the values are those of the frame."""
            found = re.search(pattern, readout(notebook))
            if found is None:
                return None
            x, y, red, green, zoom = found.groups()
            pixel = image[:, int(y), int(x)]
            return (x, y, zoom) if np.float32(red) == pixel[0] and np.float32(green) == pixel[1] else None

        notebook.wait_until(told, "telling a pixel")
        x, y, zoom = told()
        seen.append((x, y, zoom))
        page.keyboard.press("ArrowRight")
    assert seen[0] == seen[1] and float(seen[0][2]) > 300
    # The stretch of the cloudy frame is its own, or that of all. The key zooms wherever the panel has it.
    page.locator("tr[data-frame='16'] td").nth(3).click()
    shows(notebook, 16)
    page.keyboard.press("f")
    whole = re.compile(r"zoom 1\d\d %")
    notebook.wait_until(lambda: whole.search(readout(notebook)), "seeing the whole frame")
    own = brightness(notebook)
    page.get_by_label("stretch of the frames").select_option("alike")
    notebook.wait_until(lambda: brightness(notebook) > own + 40, "a bright sky that is shown as bright")
    page.get_by_label("stretch of the frames").select_option("own")
    notebook.wait_until(lambda: abs(brightness(notebook) - own) < 2, "a sky of its own")


#: Mean of the picture of the viewer.
BRIGHTNESS = """() => {
    const canvas = document.querySelector('.stacklib-blinker .stage canvas'), {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(width / 2 - 50, height / 2 - 50, 100, 100);
    return data.reduce((sum, value, i) => sum + (i % 4 === 3 ? 0 : value), 0) / 30000;
}"""


def brightness(notebook: browser.Notebook) -> float:
    return notebook.page.evaluate(BRIGHTNESS)


def change_the_selection(notebook: browser.Notebook, selected: Callable[[], int]) -> None:
    """Keys, plots, expressions, columns; text fields and the notebook keep their keys."""
    page, before, cells = notebook.page, selected(), notebook.page.locator(".jp-Cell").count()
    order = page.evaluate(ROWS)
    page.locator("tr[data-frame='5'] td").nth(3).click()
    shows(notebook, 5)
    page.keyboard.press("x")
    notebook.wait_until(lambda: selected() == before - 1, "x")
    assert not page.locator("tr[data-frame='5'] input").is_checked()
    page.keyboard.press("u")
    notebook.wait_until(lambda: selected() == before, "u")
    # The first point of the first plot, then without it.
    point = page.locator(".stacklib-blinker .plots svg").first.locator("path").first
    point.click()
    shows(notebook, 0)
    point.click(modifiers=["Shift"])
    notebook.wait_until(lambda: selected() == before - 1, "a point that is left out")
    page.keyboard.press("u")
    notebook.wait_until(lambda: selected() == before, "u")
    field = page.get_by_label("keep where")
    field.click()
    page.keyboard.type("FRAME <= 8 and Weight > 0")
    page.keyboard.press("Enter")
    notebook.wait_until(lambda: selected() == 8, "the expression")
    assert field.input_value() == "FRAME <= 8 and Weight > 0"
    for name, count in (("Undo", before), ("Select all", 20), ("Reset", 20), ("Leave out suggested", before)):
        page.get_by_role("button", name=name, exact=True).click()
        notebook.wait_until(lambda count=count: selected() == count, name)
    page.get_by_role("button", name="Columns").click()
    page.locator(".dt-button-collection").get_by_text("shift x (px)").click()
    page.locator(".stacklib-blinker th", has_text="shift x (px)").wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate(ROWS) == order and page.locator(".jp-Cell").count() == cells


#: Plays for some seconds; returns the frames as they were seen, and the times between them.
PLAY = """async seconds => {
    const panel = document.querySelector('.stacklib-blinker');
    const viewer = panel.querySelector('.stacklib-viewer');
    const space = () => panel.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', bubbles: true}));
    const [frames, times] = [[], []];
    let last = viewer.dataset.page;
    const start = performance.now();
    space();
    while (performance.now() - start < 1000 * seconds) {
        await new Promise(requestAnimationFrame);
        if (viewer.dataset.page === last || viewer.dataset.waiting !== '0') continue;
        last = viewer.dataset.page;
        frames.push(Number(last));
        times.push(performance.now());
    }
    space();
    return [frames, times.slice(1).map((time, i) => time - times[i])];
}"""
#: Milliseconds from a key to the drawing of the next frame, again and again.
STEP_FRAMES = """async count => {
    const panel = document.querySelector('.stacklib-blinker');
    const viewer = panel.querySelector('.stacklib-viewer');
    const times = [];
    for (let i = 0; i < count; i++) {
        const [last, start] = [viewer.dataset.page, performance.now()];
        panel.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
        while (viewer.dataset.page === last || viewer.dataset.waiting !== '0') {
            if (performance.now() - start > 20000) throw new Error('the next frame is not shown');
            await new Promise(requestAnimationFrame);
        }
        times.push(performance.now() - start);
        await new Promise(resolve => setTimeout(resolve, 60));
    }
    return times;
}"""


def blink_frames(notebook: browser.Notebook, count: int, say: Say) -> None:
    """Frames follow each other in the order of the table, those left out are passed over if wanted."""
    page = notebook.page
    page.get_by_label("frames a second").select_option("10")
    page.get_by_label("only selected").check()
    order = [f for f in page.evaluate(ROWS) if page.locator(f"tr[data-frame='{f}'] input").is_checked()]
    page.locator(f"tr[data-frame='{order[0]}'] td").nth(3).click()
    times = page.evaluate(STEP_FRAMES, count)
    report(say, f"time between a key and the next of {count} frames", times)
    frames, pauses = page.evaluate(PLAY, 3)
    report(say, f"time between {count} frames that blink", pauses)
    places = [order.index(frame) for frame in frames]
    steps = [(other - one) % len(order) for one, other in itertools.pairwise(places)]
    # Also on a busy machine, each frame is drawn before the next one.
    assert len(steps) > 1 and set(steps) == {1}
    page.get_by_label("only selected").uncheck()


def choose_rejection(notebook: browser.Notebook, root: Path, say: Say) -> None:
    """Use keyboard, mouse, blinking and a suggestion; then papermill runs the saved settings."""
    by_keyboard_and_mouse(notebook)
    blink(notebook)
    take_suggestion(notebook)
    page = notebook.page
    page.get_by_role("button", name="Use these").click()
    chosen = root / "sample_data" / "M101" / "recipe.yaml"
    notebook.wait_until(lambda: f"Saved in {chosen}" in notebook.readouts(), "saving")
    recipe = sl.Recipe.load(chosen)
    assert recipe.sigma_high == notebook.slider_value()
    command = [sys.executable, "-m", "papermill", "notebooks/4_integrate.ipynb", "run.ipynb"]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert run.returncode == 0, run.stderr
    ran = nbformat.read(root / "run.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", []))
    assert f"sigma_high: {recipe.sigma_high:g} sigma" in printed and "your choices of " in printed
    chosen.unlink()


def by_keyboard_and_mouse(notebook: browser.Notebook) -> None:
    """Picture and numbers follow the slider and are those of `integrate`."""
    handle, page = notebook.slider("sigma_high"), notebook.page
    handle.focus()
    for _ in range(2):
        before, value = notebook.settled(), notebook.slider_value()
        page.keyboard.press("ArrowLeft")
        notebook.wait_until(lambda value=value: notebook.slider_value() < value, "moving the handle")
        notebook.wait_until(lambda before=before: notebook.pictures() != before, "a new picture")
    before, value, box = notebook.settled(), notebook.slider_value(), handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 25, y, steps=8)
    page.mouse.up()
    notebook.wait_until(lambda: notebook.slider_value() > value, "moving the handle")
    notebook.wait_until(lambda: notebook.pictures() != before, "a new picture")
    recipe = sl.Recipe.suggest(20).replace(sigma_high=notebook.slider_value())
    for words in rejected(integrate(SAMPLES / "M101" / "4_Registered", recipe)):
        notebook.wait_until(lambda words=words: words in notebook.readouts(), words)


def blink(notebook: browser.Notebook) -> None:
    """Two settings alternate in one place until they are stopped."""
    page, kept = notebook.page, notebook.slider_value()
    page.get_by_role("button", name="Keep as A").click()
    notebook.wait_until(lambda: "A is winsorized sigma" in notebook.readouts(), "keeping A")
    notebook.slider("sigma_high").focus()
    page.keyboard.press("ArrowRight")
    notebook.wait_until(lambda: "Result B: winsorized sigma" in notebook.titles(), "showing B")
    assert notebook.slider_value() != kept
    play, stop = (page.locator(".widget-play button").nth(index) for index in (0, 1))
    play.click()
    for _ in range(2):
        for name in "AB":
            notebook.wait_until(lambda name=name: f"Result {name}: " in notebook.titles(), f"blinking {name}")
    stop.click()
    notebook.wait_until(lambda: "Result B: " in notebook.titles(), "stopping")


def take_suggestion(notebook: browser.Notebook) -> None:
    """A suggestion shows its progress, and keys pressed meanwhile do not undo it."""
    page, suggest = notebook.page, notebook.page.get_by_role("button", name="Suggest", exact=True)
    handle = notebook.slider("sigma_high")
    suggest.click()
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    notebook.wait_until(lambda: re.search(r"on these frames: \d+ %", notebook.readouts()), "telling how far")
    assert suggest.is_disabled()
    notebook.wait_until(lambda: "Suggested. " in notebook.readouts(), "suggesting", 60)
    notebook.wait_until(suggest.is_enabled, "taking up again")
    notebook.settled()
    proposed = re.search(r"Suggested\. sigma_low [\d.]+ and sigma_high ([\d.]+):", notebook.readouts())
    assert notebook.slider_value() == float(proposed[1])
    assert "Result B: winsorized sigma" in notebook.titles()


def click_pixels(notebook: browser.Notebook, root: Path, say: Say) -> None:
    """The story below the picture names the pixel and is that of `explain`."""

    def pixel() -> tuple[int, int, int]:
        x, y, name = re.search(r"x (\d+), y (\d+), ([RGB])", notebook.readouts()).groups()
        return int(x), int(y), "RGB".index(name)

    page = notebook.page
    canvas = page.locator(".stacklib-inspector .stage").first
    everything_is_seen(notebook)
    notebook.settled()
    box, measured, told = canvas.bounding_box(), [], []
    for across, down in (
        (0.25, 0.5),
        (0.4, 0.6),
        (0.3, 0.4),
        (0.6, 0.3),
        (0.5, 0.5),
        (0.35, 0.7),
        (0.7, 0.6),
    ):
        known = pixel()
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        page.wait_for_timeout(300)
        # The pictures of a box are hidden.
        notebook.start_stopwatch(f".stacklib-inspector-samples img, {STORY}")
        page.mouse.down()
        page.mouse.up()
        words, *pictures = notebook.stopwatch()
        told.append(words)
        measured.append(max(pictures))
        notebook.wait_until(lambda known=known: pixel() != known, "choosing a pixel")
    report(say, "click to the words about the pixel", told)
    report(say, "click to the story of the pixel", measured)
    x, y, channel = pixel()
    result = integrate(SAMPLES / "M101" / "4_Registered", sl.Recipe())
    story = sl.explain(result, x=x, y=y, channel=channel)
    notebook.wait_until(lambda: story.summary in unescape(notebook.readouts()), "telling the story")
    assert f"x {x}, y {y}" in page.locator("img.stacklib-picture").first.get_attribute("title")
    draw_a_box(notebook, result)


def draw_a_box(notebook: browser.Notebook, result: sl.Integration) -> None:
    """Its frames are ranked, and it is shown as a run without the first of them makes it."""
    page = notebook.page
    notebook.draw_a_box(".stacklib-inspector .stage")
    ranking = page.locator(".stacklib-inspector-box select[size] option")
    notebook.wait_until(lambda: ranking.count() == 20, "ranking the frames")
    drawn = tuple(map(int, notebook.ask("print(*panel.box)").split()))
    found = sl.blame(result, drawn)
    ranked = [int(text.split()[0]) for text in ranking.all_inner_texts()]
    assert ranked == [each.number for each in found.frames] and found.frames[0].reason in notebook.readouts()
    notebook.wait_until(lambda: f"Without frame {ranked[0]} " in notebook.titles(), "the first preview")
    real = without_frame(result, ranked[0], drawn)
    exact = hashlib.sha256(real.tobytes()).hexdigest()
    # What fell beside hits is searched again when the choice rests.
    notebook.wait_until(lambda: notebook.ask(browser.SHOWN_WITHOUT) == exact, "the image of a real run")
    notebook.settled()
    # In the browser it has the same values.
    viewer = page.locator(".stacklib-inspector-box .stacklib-viewer").nth(1)
    stage = viewer.locator(".stage").bounding_box()
    page.mouse.move(stage["x"] + 0.5 * stage["width"], stage["y"] + 0.4 * stage["height"], steps=3)
    pattern, readout = (
        r"x (\d+), y (\d+)\s+R ([\d.e-]+)\s+G ([\d.e-]+)\s+B ([\d.e-]+)",
        viewer.locator(".readout"),
    )
    notebook.wait_until(lambda: re.search(pattern, readout.inner_text()), "telling the values")
    x, y, *values = re.search(pattern, readout.inner_text()).groups()
    pixel = real[:, int(y) - drawn[1], int(x) - drawn[0]]
    assert np.array_equal(np.array(values, np.float32), pixel)


#: What is said of the pixel above its samples.
STORY = ".stacklib-inspector-rounds .widget-html-content"


def everything_is_seen(notebook: browser.Notebook) -> None:
    """With the file browser open, map, close-up and samples are on the screen together."""
    page = notebook.page
    assert page.locator(".jp-FileBrowser").is_visible()
    page.evaluate("() => document.querySelector('.stacklib-inspector').scrollIntoView()")
    page.wait_for_timeout(300)
    parts = [*page.locator(".stacklib-inspector .stage").all(), *page.locator("img.stacklib-picture").all()]
    # Those about a box are hidden until one is drawn.
    boxes = [part.bounding_box() for part in parts if part.is_visible()]
    assert len(boxes) == 4
    assert all(box["y"] > 0 and box["y"] + box["height"] <= page.viewport_size["height"] for box in boxes)


#: What to do in a notebook after all its cells have run.
USES = {
    "1_select_frames": choose_frames,
    "2_choose_rejection": choose_rejection,
    "3_inspect_rejection": click_pixels,
}


# the viewer --------------------------------------------------------------------------------------

VIEWER_CELLS = (
    "from stacklib.panels import Viewer, link\n"
    "master = Viewer('master.fits', height=420)\n"
    "outliers = Viewer(master._pyramid.rows.frame.read() > 1200, colours='viridis', height=200)\n"
    "link([master, outliers])\n"
    "master",
    "outliers",
)
#: Does something in the page again and again, and measures each drawing, in milliseconds.
STEPS = """async ([what, count]) => {
    const root = document.querySelector('.stacklib-viewer'), stage = root.querySelector('.stage');
    const slider = root.querySelector('input[type=range]'), box = stage.getBoundingClientRect();
    const [clientX, clientY] = [box.x + box.width / 3, box.y + box.height / 3];
    const act = {
        stretch: i => { slider.value = 0.1 + 0.01 * i; slider.dispatchEvent(new Event('input')); },
        zoom: i => stage.dispatchEvent(
            new WheelEvent('wheel', {deltaY: i % 10 < 5 ? -60 : 60, clientX, clientY, cancelable: true})),
        pan: i => stage.dispatchEvent(
            new KeyboardEvent('keydown', {key: i % 10 < 5 ? 'ArrowLeft' : 'ArrowRight', bubbles: true})),
    }[what];
    const times = [];
    // The wheel is for the page until the mouse has moved over the picture.
    stage.dispatchEvent(new PointerEvent('pointermove', {movementX: 1, clientX, clientY}));
    for (let i = 0; i < count; i++) {
        const drawn = root.dataset.drawn;
        act(i);
        for (let n = 0; root.dataset.drawn === drawn; n++) {
            if (n > 300) throw new Error(`a step of ${what} draws nothing`);
            await new Promise(requestAnimationFrame);
        }
        times.push(Number(root.dataset.milliseconds));
    }
    return times;
}"""


@pytest.fixture(scope="module")
def master(root) -> np.ndarray:
    """A master of 26 megapixels with a gradient, noise and outliers, in a file with world coordinates."""
    random = np.random.default_rng(6)
    image = np.tile(random.normal(1000, 20, (464, 568)).astype(np.float32), (9, 11))
    image += np.linspace(0, 50, image.shape[1], dtype=np.float32)
    image[random.integers(0, image.shape[0], 5000), random.integers(0, image.shape[1], 5000)] = 3000
    system = WCS(naxis=2)
    system.wcs.ctype, system.wcs.crval, system.wcs.crpix = (
        ["RA---TAN", "DEC--TAN"],
        [210.8, 54.35],
        [3000, 2000],
    )
    system.wcs.cdelt = [-2.8e-4, 2.8e-4]
    fits.writeto(root / "notebooks" / "master.fits", image, system.to_header())
    return image


@pytest.mark.latency
def test_the_viewer_zooms_moves_and_tells_the_values_of_the_file(lab, master, root, say):
    known = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = new_notebook(cells=[new_code_cell(cell) for cell in VIEWER_CELLS], metadata=known)
    nbformat.write(content, root / "notebooks" / "viewer.ipynb")
    with lab.open("notebooks/viewer.ipynb") as notebook:
        notebook.run_all()
        views = notebook.page.locator(".stacklib-viewer")
        views.nth(1).wait_for()
        see_all_tiles(notebook)
        use_the_mouse(notebook, master, root)
        use_the_keyboard(notebook, master)
        compare_the_stretch(notebook, master)
        for what in ("stretch", "zoom", "pan"):
            report(say, f"viewer, 26 megapixels, a step of {what}", notebook.page.evaluate(STEPS, [what, 30]))
        assert notebook.errors() == []


def see_all_tiles(notebook: browser.Notebook) -> None:
    views = notebook.page.locator(".stacklib-viewer")

    def missing() -> list[str | None]:
        return [views.nth(index).get_attribute("data-waiting") for index in (0, 1)]

    notebook.wait_until(lambda: missing() == ["0", "0"], "showing all tiles")


def readout(notebook: browser.Notebook, index: int = 0) -> str:
    return notebook.page.locator(".stacklib-viewer .readout").nth(index).inner_text()


def told(notebook: browser.Notebook, index: int = 0) -> tuple[int, int, str, float]:
    """Wait for x, y, value and zoom in the readout."""
    pattern = r"x (\d+), y (\d+)\s+([\d.]+) .*zoom ([\d.]+) %"
    notebook.wait_until(lambda: re.search(pattern, readout(notebook, index)), "telling a pixel")
    x, y, value, zoom = re.search(pattern, readout(notebook, index)).groups()
    return int(x), int(y), value, float(zoom)


def use_the_mouse(notebook: browser.Notebook, image: np.ndarray, root: Path) -> None:
    """Zoom at the cursor, drag, double click; both viewers follow."""
    page, stage = notebook.page, notebook.page.locator(".stacklib-viewer .stage").first
    box = stage.bounding_box()
    across, down = box["x"] + 0.4 * box["width"], box["y"] + 0.6 * box["height"]
    page.mouse.move(across - 5, down)
    page.mouse.move(across, down)
    x, y, value, fitted = told(notebook)
    assert np.float32(value) == image[y, x]
    sky = WCS(fits.getheader(root / "notebooks" / "master.fits")).pixel_to_world(x, y)
    words = sky.ra.to_string("hour", precision=2, pad=True)
    notebook.wait_until(lambda: f"RA {words}" in readout(notebook), "telling the place in the sky")
    notebook.turn_wheel(8)
    notebook.wait_until(lambda: told(notebook)[3] > 20 * fitted, "zooming")
    see_all_tiles(notebook)
    close_x, close_y, value, zoom = told(notebook)
    assert abs(close_x - x) <= 8 and abs(close_y - y) <= 8
    assert np.float32(value) == image[close_y, close_x]
    assert told(notebook, 1)[:2] == (close_x, close_y)
    page.mouse.down()
    page.mouse.move(across + 120, down + 60, steps=4)
    page.mouse.up()
    # What was under the cursor is still there.
    under = np.array([close_x, close_y])
    notebook.wait_until(lambda: abs(told(notebook)[:2] - under).max() <= 1, "moving with the cursor")
    page.mouse.move(across, down)
    moved_x, moved_y, *_ = told(notebook)
    assert abs(close_x - moved_x - 120 / zoom * 100) <= 2 and abs(close_y - moved_y - 60 / zoom * 100) <= 2
    page.mouse.dblclick(across, down)
    notebook.wait_until(lambda: abs(told(notebook)[3] / fitted - 1) < 0.05, "seeing the whole image")


def use_the_keyboard(notebook: browser.Notebook, image: np.ndarray) -> None:
    """All keys; screen readers hear what they do."""
    page, stage = notebook.page, notebook.page.locator(".stacklib-viewer .stage").first
    cells = page.locator(".jp-Cell").count()
    stage.focus()
    page.keyboard.press("c")
    x, y, *_ = told(notebook)
    page.keyboard.press("1")
    notebook.wait_until(lambda: told(notebook)[3] == 100, "1:1")
    see_all_tiles(notebook)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    notebook.wait_until(lambda: told(notebook)[:2] == (x + 1, y + 1), "moving the crosshair")
    value = told(notebook)[2]
    assert np.float32(value) == image[y + 1, x + 1]
    notebook.wait_until(lambda: f"x {x + 1}, y {y + 1}" in notebook.readouts(), "saying so")
    before = notebook.page.evaluate(SHOWN)
    for key in ("ArrowLeft", "+", "-", "ArrowRight"):
        page.keyboard.press(key)
        notebook.wait_until(lambda before=before: page.evaluate(SHOWN) != before, key)
        before = page.evaluate(SHOWN)
    page.keyboard.press("f")
    height, width = image.shape

    def fits() -> bool:
        # The stage may have got another size since.
        box = stage.bounding_box()
        whole = 100 * min(box["width"] / width, box["height"] / height)
        return abs(told(notebook)[3] / whole - 1) < 0.01

    notebook.wait_until(fits, "f")
    # The notebook has not taken the keys for its own.
    assert page.locator(".jp-Cell").count() == cells and page.locator(".jp-MarkdownCell").count() == 0


#: The picture of the first viewer, as text.
SHOWN = "() => document.querySelector('.stacklib-viewer canvas').toDataURL()"


#: Height and width of the picture of the first viewer, and red of some rows and columns at its corner.
RED = """() => {
    const canvas = document.querySelector('.stacklib-viewer canvas'), {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, 300, 100);
    return [height, width, Array.from(data).filter((value, i) => i % 4 === 0)];
}"""


def compare_the_stretch(notebook: browser.Notebook, image: np.ndarray) -> None:
    """Pixels of the screen are those of the formulas, for every curve."""
    page = notebook.page
    page.get_by_role("button", name="One screen pixel for each pixel").first.click()
    notebook.wait_until(lambda: "zoom 100 %" in readout(notebook), "1:1 about the center")
    see_all_tiles(notebook)
    levels = Viewer(image).levels
    select = page.get_by_label("stretch", exact=True)
    for name in CURVES:
        select.select_option(name)
        page.wait_for_timeout(100)
        height, width, shown = page.evaluate(RED)
        left, top = (image.shape[1] - width) // 2, (image.shape[0] - height) // 2
        part = image[np.newaxis, top : top + 100, left : left + 300]
        expected = 255 * Stretch(name).apply(part, levels)[0]
        difference = np.abs(np.reshape(shown, (100, 300)) - expected)
        assert difference.max() <= 1, name


#: A panel of large frames without measurements, which would take too long here.
LARGE_CELLS = (
    "import ipywidgets, numpy as np, stacklib as sl\n"
    "from astropy.table import Table\n"
    "from stacklib.explore.frame_choice import COLUMNS\n"
    "from stacklib.panels.blinker import RATES, Blinker, frame_grid\n"
    "from stacklib.panels.viewer import PagesViewer",
    "frames = sl.open_frames('sky')\n"
    "names = [f'{number:04d}' for number in range(1, len(frames) + 1)]\n"
    "viewer = PagesViewer(frames, names, 0, ('ADU', 65535.0))\n"
    "table = Table({name: np.arange(len(frames)) for name in COLUMNS if name != 'time'})\n"
    "table['time'] = ['2026-01-01T00:00:00'] * len(frames)\n"
    "meta = {'names': names, 'x': [0.0] * len(frames), 'x_label': '', 'plots': [], 'rates': list(RATES)}\n"
    "state = {'chosen': [True] * len(frames), 'notes': [''] * len(frames)}\n"
    "parts = [Blinker(print, viewer=viewer.widget, meta=meta, **state), viewer.widget]\n"
    "ipywidgets.VBox([*parts, frame_grid(table, names)]).add_class('stacklib-blinker')",
)


@pytest.mark.latency
def test_large_frames_blink(lab, root, say):
    """Frames of 26 megapixels; LARGE=16 takes sixteen of them."""
    count = int(os.environ.get("LARGE", "4"))
    (root / "notebooks" / "sky").mkdir()
    random = np.random.default_rng(7)
    for number in range(count):
        sky = np.tile(random.normal(1000 * (1 + number), 20, (464, 568)).astype(np.uint16), (9, 11))
        fits.writeto(root / "notebooks" / "sky" / f"light_{number:02d}.fits", sky)
    known = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = new_notebook(cells=[new_code_cell(cell) for cell in LARGE_CELLS], metadata=known)
    nbformat.write(content, root / "notebooks" / "sky.ipynb")
    with lab.open("notebooks/sky.ipynb") as notebook:
        notebook.run_all()
        page = notebook.page
        page.locator(".stacklib-blinker tr[data-frame]").first.wait_for()
        page.evaluate("() => document.querySelector('.stacklib-blinker').scrollIntoView()")
        shows(notebook, 0)
        # The first round reads the frames.
        first = page.evaluate(STEP_FRAMES, count)
        say(f"26 megapixels, key to a frame that is read first: at most {max(first):.0f} ms")
        blink_frames(notebook, count, say)
        # Each frame has the same gray sky, with its own black point.
        skies = []
        for number in (0, count - 1):
            page.locator(f"tr[data-frame='{number}'] td").nth(1).click()
            shows(notebook, number)
            skies.append(brightness(notebook))
        assert abs(skies[0] - skies[1]) < 3 and 20 < skies[0] < 80
        page.locator(".stacklib-blinker .stage").focus()
        page.keyboard.press("c")
        pattern = r"x (\d+), y (\d+)\s+[\d.]+\s+\((\d+) ADU\)"
        notebook.wait_until(lambda: re.search(pattern, readout(notebook)), "telling a pixel")
        x, y, value = map(int, re.search(pattern, readout(notebook)).groups())
        file = root / "notebooks" / "sky" / f"light_{count - 1:02d}.fits"
        assert value == fits.getdata(file)[y, x]
        assert notebook.errors() == []


def test_voila_serves_all_steps_as_an_app(lab, root):
    pytest.importorskip("voila", reason="no Voila for the test of make app: pip install voila")
    folder = root / "app" / "M101" / "4_Registered"
    shutil.copytree(root / "sample_data" / "M101" / "4_Registered", folder)
    page = lab.browser.new_page(viewport={"width": 1400, "height": 1000})
    with browser.Server(root, str(app_notebook(root / "app", str(folder)))) as server:
        notebook = browser.Notebook(page)
        page.goto(server.address(""), wait_until="commit", timeout=90_000)
        page.get_by_role("button", name="Measure these frames").click(timeout=120_000)
        page.get_by_text("20 of 20 frames are selected").wait_for(timeout=120_000)
        page.locator("tr[data-frame]").first.wait_for()
        needs_no_scrolling(notebook)
        page.get_by_text("2 Rejection").click()
        page.wait_for_selector(".stacklib-pictures .stacklib-viewer", timeout=120_000)
        notebook.settled()
        needs_no_scrolling(notebook)
        by_keyboard_and_mouse(notebook)
        page.get_by_text("3 Pixels").click()
        notebook.wait_until(lambda: "rejected" in notebook.readouts(), "the story of a pixel")
        needs_no_scrolling(notebook)
        page.get_by_text("4 Integrate").click()
        page.get_by_role("button", name="Integrate", exact=True).click(timeout=60_000)
        link = page.get_by_role("link", name=".xisf").first
        link.wait_for(timeout=120_000)
        page.locator(".stacklib-result .stage").first.wait_for()
        needs_no_scrolling(notebook)
        with page.expect_download() as download:
            link.click()
        saved = folder.parent / "5_Integration" / download.value.suggested_filename
        assert Path(download.value.path()).read_bytes() == saved.read_bytes()
        assert notebook.errors() == []
        page.close()


def needs_no_scrolling(notebook: browser.Notebook) -> None:
    """The page of the app that is shown fits the window."""
    notebook.settled()
    assert notebook.page.evaluate(TOO_HIGH) == []


#: What is around the app and higher than its room.
TOO_HIGH = """() => {
    const found = [];
    for (let part = document.querySelector('.stacklib-app'); part; part = part.parentElement)
        if (part.scrollHeight > part.clientHeight + 1) found.push([part.className, part.scrollHeight]);
    return found;
}"""


# without a browser -------------------------------------------------------------------------------


def test_without_a_browser_a_person_skips_and_ci_fails(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="apt install chromium"):
        browser.chromium_or_skip()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install chromium"):
        browser.chromium_or_skip()

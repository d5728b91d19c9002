"""Panels in JupyterLab in a browser: large frames, boxes, two views of one panel, their size."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from conftest import ROOT, SAMPLES
from nbformat.v4 import new_code_cell, new_notebook

import stacklib as sl

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser
from browser import Say, integrate, rejected, report, without_frame

#: Frames of 26 megapixels; LARGE=16 takes sixteen of them.
LARGE = int(os.environ.get("LARGE", "4"))
#: Height and width of these.
TALL, WIDE = 4176, 6248


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder for frames and notebooks."""
    return tmp_path_factory.mktemp("panels")


@pytest.fixture(scope="module")
def lab(root) -> Iterator[browser.Lab]:
    """One JupyterLab and one browser for all tests."""
    with browser.laboratory(root, browser.chromium_or_skip()) as running:
        yield running


def write_notebook(root: Path, name: str, *cells: str) -> str:
    """Write a notebook, and return its name."""
    # Without a kernel name JupyterLab asks for one.
    known = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=known)
    nbformat.write(content, root / name)
    return name


@pytest.fixture(scope="module")
def large(root) -> Path:
    """Fifty frames of noise and stars, larger than the region."""
    folder = root / "large"
    folder.mkdir()
    random = np.random.default_rng(5)
    sky = np.full((540, 600), 0.1, np.float32)
    sky[random.integers(0, 540, 80), random.integers(0, 600, 80)] += 0.3
    for number in range(50):
        frame = sky + 0.004 * random.standard_normal(sky.shape, dtype=np.float32)
        frame[random.integers(0, 540, 60), random.integers(0, 600, 60)] += 0.2
        fits.writeto(folder / f"light_{number:02d}.fits", frame)
    return folder


# a slider and the region -------------------------------------------------------------------------


@pytest.mark.latency
def test_large_regions_are_quick_and_can_be_dragged(lab, large, root, say):
    cells = ["from stacklib.panels import RejectionExplorer"]
    for number, pattern in ((20, "light_[01]*.fits"), (50, "light_*.fits")):
        start = f"RejectionExplorer('large/{pattern}', region=(0, 0, 512, 512))"
        cells.append(f"panel_{number} = {start}\npanel_{number}.widget")
    with lab.open(write_notebook(root, "large.ipynb", *cells)) as notebook:
        notebook.run_all()
        notebook.settled()
        for index, count in enumerate((20, 50)):
            measure_steps(notebook, index, "winsorized_sigma", count, say)
            choose_rule(notebook, index, "sigma")
            measure_steps(notebook, index, "sigma", count, say)
        drag_the_region(notebook, large)
        assert notebook.errors() == []


def choose_rule(notebook: browser.Notebook, index: int, rule: str) -> None:
    notebook.page.get_by_label("rejection", exact=True).nth(index).select_option(rule)
    notebook.settled()


def measure_steps(notebook: browser.Notebook, index: int, rule: str, count: int, say: Say) -> None:
    """Measure the time from a key to the picture of the result, and to all four pictures."""
    notebook.number_pictures()
    handle = notebook.slider("sigma_high", index)
    handle.focus()
    measured = []
    for key in ["ArrowLeft"] * 4 + ["ArrowRight"] * 3:
        notebook.page.wait_for_timeout(300)
        notebook.start_stopwatch(", ".join(f"#picture-{4 * index + place}" for place in range(4)))
        notebook.page.keyboard.press(key)
        measured.append(notebook.stopwatch())
    what = f"{rule}, 512 x 512, {count} frames"
    report(say, f"slider key to the result, {what}", [first for first, *_ in measured])
    report(say, f"slider key to all four pictures, {what}", [max(each) for each in measured])


def drag_the_region(notebook: browser.Notebook, folder: Path) -> None:
    """The region follows the rectangle; its numbers are those of `integrate`."""
    page = notebook.page
    canvas = page.locator(".stacklib-region .stage").first
    canvas.scroll_into_view_if_needed()
    notebook.settled()
    box = canvas.bounding_box()
    # The frame has 600 x 540 pixels and fits the height of the stage.
    scale = box["height"] / 540
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40 * scale, middle[1] + 14 * scale, steps=5)
    page.mouse.up()
    corner = [page.get_by_label(name, exact=True).first for name in ("left", "top")]
    notebook.wait_until(lambda: corner[0].input_value() != "0", "moving the region")
    left, top = (int(box.input_value()) for box in corner)
    assert 0 < left <= 88 and 0 < top <= 28
    recipe = sl.Recipe(rejection="sigma", sigma_high=notebook.slider_value())
    result = integrate(str(folder / "light_[01]*.fits"), recipe, (left, top, 512, 512))
    for words in rejected(result):
        notebook.wait_until(lambda words=words: words in notebook.readouts(), words)
    # Drag over the left edge, release the button there, and come back.
    canvas.scroll_into_view_if_needed()
    notebook.settled()
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, middle[1], steps=8)
    page.mouse.move(box["x"] - 40, middle[1], steps=4)
    page.mouse.up()
    notebook.wait_until(lambda: corner[0].input_value() == "0", "taking the region of a drag that left")
    before = notebook.settled()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
    page.mouse.move(10, 10)
    page.wait_for_timeout(500)
    assert corner[0].input_value() == "0" and notebook.settled() == before
    resize_the_region(notebook, box, scale)


def resize_the_region(notebook: browser.Notebook, box: dict[str, float], scale: float) -> None:
    """A drag of its right edge makes the region narrower; Shift and a drag draw another one."""
    page = notebook.page
    width, left = (page.get_by_label(name, exact=True).first for name in ("width", "left"))
    corner = box["x"] + box["width"] / 2 - 300 * scale, box["y"] + box["height"] / 2 - 270 * scale
    page.mouse.move(corner[0] + 512 * scale, corner[1] + 200 * scale)
    page.mouse.down()
    page.mouse.move(corner[0] + 400 * scale, corner[1] + 200 * scale, steps=4)
    page.mouse.up()
    notebook.wait_until(lambda: width.input_value() != "512", "resizing the region")
    assert abs(int(width.input_value()) - 400) <= 3 and left.input_value() == "0"
    page.keyboard.down("Shift")
    page.mouse.move(corner[0] + 100 * scale, corner[1] + 100 * scale)
    page.mouse.down()
    page.mouse.move(corner[0] + 300 * scale, corner[1] + 260 * scale, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    notebook.wait_until(lambda: left.input_value() != "0", "drawing a region")
    assert abs(int(left.input_value()) - 100) <= 3 and abs(int(width.input_value()) - 200) <= 3


@pytest.fixture(scope="module")
def night(root) -> Path:
    """Frames of 26 megapixels with stars, noise and hits."""
    folder, random = root / "night", np.random.default_rng(7)
    folder.mkdir()
    noise = random.normal(0, 0.004, (1100, 1300)).astype(np.float32)
    sky = np.full((TALL, WIDE), 0.1, np.float32)
    sky[random.integers(0, TALL, 9000), random.integers(0, WIDE, 9000)] += 0.3
    for number in range(LARGE):
        shifted = np.roll(noise, random.integers(0, 1000, 2), (0, 1))
        frame = sky + np.tile(shifted, (4, 5))[:TALL, :WIDE]
        frame[random.integers(0, TALL, 3000), random.integers(0, WIDE, 3000)] += 0.2
        fits.writeto(folder / f"light_{number:02d}.fits", frame)
    return folder


@pytest.mark.latency
def test_the_region_moves_on_large_frames(lab, night, root, say):
    """From the end of a drag to all four pictures of another region; numbers are those of a run."""
    cell = (
        "from stacklib.panels import RejectionExplorer\n"
        "panel = RejectionExplorer('night', region=(2000, 1500, 512, 512))\n"
        "panel.widget"
    )
    with lab.open(write_notebook(root, "night.ipynb", cell)) as notebook:
        notebook.run_all()
        notebook.settled()
        notebook.number_pictures()
        measured = [drag_by(notebook, 30, 10 * (-1) ** step) for step in range(7)]
        report(say, f"region moved on {LARGE} frames of 26 megapixels", measured)
        region = place_of_region(notebook)
        assert region[0] > 2300 and region[2:] == (512, 512)
        for words in rejected(integrate(night, sl.Recipe.suggest(LARGE), region)):
            notebook.wait_until(lambda words=words: words in notebook.readouts(), words)
        assert notebook.errors() == []


def place_of_region(notebook: browser.Notebook) -> tuple[int, ...]:
    names = ("left", "top", "width", "height")
    boxes = [notebook.page.get_by_label(name, exact=True).first for name in names]
    return tuple(int(box.input_value()) for box in boxes)


def drag_by(notebook: browser.Notebook, across: int, down: int) -> float:
    """Drag the region by pixels of the screen, and return the time from the end to all pictures."""
    page, stage = notebook.page, notebook.page.locator(".stacklib-region .stage").first
    stage.scroll_into_view_if_needed()
    box, (left, top, width, height) = stage.bounding_box(), place_of_region(notebook)
    scale = min(box["width"] / WIDE, box["height"] / TALL)
    x = box["x"] + box["width"] / 2 + (left + width / 2 - WIDE / 2) * scale
    y = box["y"] + box["height"] / 2 + (top + height / 2 - TALL / 2) * scale
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + across, y + down, steps=4)
    page.wait_for_timeout(300)
    notebook.start_stopwatch(", ".join(f"#picture-{place}" for place in range(4)), ("mouseup",))
    page.mouse.up()
    measured = max(notebook.stopwatch())
    notebook.wait_until(lambda: place_of_region(notebook)[:2] != (left, top), "telling the region")
    notebook.settled()
    return measured


#: Opens a notebook in JupyterLab as a person does in its file browser.
OPEN = "path => { window.jupyterapp.commands.execute('docmanager:open', {path}); }"
#: Whether the notebook with this path is seen, and whether its panel shows a frame and the table.
OPENED = """path => {
    const {context, content} = window.jupyterapp.shell.currentWidget ?? {};
    return context?.path === path && content.widgets.length > 5;
}"""
SHOWN = """() => {
    const waiting = document.querySelector('.stacklib-blinker .stacklib-viewer')?.dataset.waiting;
    return waiting === '0' && document.querySelectorAll('.stacklib-blinker tr[data-frame]').length > 0;
}"""


@pytest.mark.latency
def test_the_first_notebook_opens_on_large_frames(lab, night, root, say):
    """From the file browser to the frame that is seen, once the frames are measured."""
    book = nbformat.read(ROOT / "notebooks" / "1_select_frames.ipynb", as_version=4)
    cell = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source = f"frames = {str(night)!r}"
    nbformat.write(book, root / "first.ipynb")
    with lab.open("first.ipynb") as notebook:
        notebook.run_all()
        assert notebook.errors() == []
    other, measured = write_notebook(root, "other.ipynb", "0"), []
    for _ in range(3):
        with lab.open(other) as notebook:
            start = time.perf_counter()
            notebook.page.evaluate(OPEN, "first.ipynb")
            notebook.page.wait_for_function(OPENED, arg="first.ipynb")
            notebook.page.wait_for_function(browser.KERNEL_READY, timeout=60_000)
            notebook.run_all()
            notebook.page.wait_for_function(SHOWN)
            measured.append(1e3 * (time.perf_counter() - start))
            assert f"{LARGE} of {LARGE} frames are selected" in notebook.readouts()
            assert notebook.errors() == []
    report(say, f"opening notebook 1 on {LARGE} frames of 26 megapixels", measured)


# a box and its frames ----------------------------------------------------------------------------

#: Viewers of the box without a frame, and of what the frame adds; that of the box comes first.
WITHOUT_VIEWERS = ".stacklib-inspector-box .stacklib-aligned > :nth-child(n + 2) .stacklib-viewer"


@pytest.mark.latency
def test_a_box_is_seen_without_a_frame(lab, large, root, say):
    """Another frame of the ranking: from the key to both pictures, which are those of a run without it."""
    cell = (
        "import stacklib as sl\n"
        "from stacklib.panels import PixelInspector\n"
        "result = sl.integrate('large/light_[01]*.fits', progress=False)\n"
        "panel = PixelInspector(result)\n"
        "panel.widget"
    )
    with lab.open(write_notebook(root, "blame.ipynb", cell)) as notebook:
        notebook.run_all()
        notebook.settled()
        page = notebook.page
        page.evaluate("() => document.querySelector('.stacklib-inspector').scrollIntoView()")
        page.get_by_role("button", name="Draw a box").click()
        box = page.locator(".stacklib-inspector .stage").first.bounding_box()
        scale = min(box["width"] / 600, box["height"] / 540)
        left, top = box["x"] + box["width"] / 2 - 300 * scale, box["y"] + box["height"] / 2 - 270 * scale
        page.mouse.move(left + 20 * scale, top + 15 * scale)
        page.mouse.down()
        page.mouse.move(left + 532 * scale, top + 527 * scale, steps=4)
        page.mouse.up()
        ranking = page.locator(".stacklib-inspector-box select[size]")
        notebook.wait_until(lambda: ranking.locator("option").count() == 20, "ranking the frames")
        notebook.settled()
        region = tuple(map(int, notebook.ask("print(*panel.box)").split()))
        assert all(abs(size - 512) <= 4 for size in region[2:])
        order = [int(text.split()[0]) for text in ranking.locator("option").all_inner_texts()]
        result = integrate(str(large / "light_[01]*.fits"), sl.Recipe.suggest(20))
        found = sl.blame(result, region)
        assert order == [each.number for each in found.frames]
        ranking.focus()
        measured = []
        for number in order[1:8]:
            page.wait_for_timeout(300)
            notebook.start_stopwatch(WITHOUT_VIEWERS)
            page.keyboard.press("ArrowDown")
            measured.append(max(notebook.stopwatch()))
            notebook.wait_until(
                lambda number=number: f"Without frame {number} " in notebook.titles(), "its title"
            )
        report(say, "a box of 512 x 512 pixels of 20 frames without one of them", measured)
        real = without_frame(result, number, region)
        assert notebook.ask(browser.SHOWN_WITHOUT) == hashlib.sha256(real.tobytes()).hexdigest()
        assert notebook.errors() == []


# two views of one panel, and its size ------------------------------------------------------------

#: The entry of the menu by which JupyterLab shows an output in a second view.
WORDS = "Create New View for Cell Output"
#: Where a panel ends, and the room that its notebook or its view has for it.
PLACES = """selector => [...document.querySelectorAll(selector)].map(panel => {
    const room = panel.closest('.jp-WindowedPanel-outer, .jp-LinkedOutputView') ?? document.documentElement;
    const beyond = panel.scrollWidth - panel.clientWidth;
    return {height: panel.offsetHeight, beyond, room: room.clientHeight};
})"""
START = """import stacklib as sl
from stacklib import notebook
from stacklib.panels import *
notebook.set_up_session()
"""
PANELS = {
    "explorer": (".stacklib-panel", "RejectionExplorer('M101')"),
    "inspector": (".stacklib-inspector-panel", "PixelInspector(sl.integrate('M101', progress=False))"),
    "selector": (".stacklib-blinker", "FrameSelector('M101', progress=False)"),
}


@pytest.fixture(scope="module")
def m101_copy(root) -> Path:
    shutil.copytree(SAMPLES / "M101" / "4_Registered", root / "M101")
    return root / "M101"


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_seen_whole_and_works_in_two_views(lab, m101_copy, root, name):
    selector, made = PANELS[name]
    path = write_notebook(root, f"{name}.ipynb", f"{START}panel = {made}", "panel.widget")
    with lab.open(path) as notebook:
        notebook.run_all()
        notebook.settled()
        page = notebook.page
        assert page.locator(".jp-FileBrowser").is_visible() and page.viewport_size == LARGE_WINDOW
        stay_in_place(notebook, selector)
        # As the panel says.
        page.locator(selector).scroll_into_view_if_needed()
        page.locator(f"{selector} .stage").first.click(button="right")
        page.locator(".lm-Menu-itemLabel", has_text=WORDS).click()
        page.locator(selector).nth(1).wait_for()
        notebook.settled()
        assert WORDS in page.locator(selector).nth(1).inner_text()
        for view in (1, 0):
            KEYS[name](notebook, view)
        page.locator(".lm-TabBar-tab", has_text="Output View").locator(".lm-TabBar-tabCloseIcon").click()
        notebook.wait_until(lambda: page.locator(selector).count() == 1, "closing the view")
        KEYS[name](notebook, 0)
        assert notebook.errors() == []


def fits_the_window(notebook: browser.Notebook, selector: str) -> None:
    """The panel fits a window 1000 pixels high, and is never wider than its room."""
    page = notebook.page
    for size, room in ((LARGE_WINDOW, 879), (SMALL_WINDOW, 679)):
        for side in ("collapseLeft", "expandLeft"):
            page.set_viewport_size(size)
            page.evaluate(f"window.jupyterapp.shell.{side}()")
            notebook.settled()
            (place,) = page.evaluate(PLACES, selector)
            assert place["room"] == room and place["beyond"] <= 0, (size, side, place)
            assert size == SMALL_WINDOW or place["height"] <= room, (side, place)
    page.set_viewport_size(LARGE_WINDOW)


LARGE_WINDOW, SMALL_WINDOW = {"width": 1400, "height": 1000}, {"width": 1000, "height": 800}


def search_trails(notebook: browser.Notebook) -> None:
    notebook.page.get_by_role("tab", name="Settings").click()
    notebook.page.get_by_label("footprints", exact=True).select_option("all")
    notebook.page.get_by_role("tab", name="3 trails").click(timeout=90_000)


def take_what_has_most_words(notebook: browser.Notebook) -> None:
    page = notebook.page
    page.get_by_label("preset", exact=True).select_option("measured")
    notebook.wait_until(lambda: "noise for equal starlight" in notebook.readouts(), "matching by light", 90)
    page.get_by_role("button", name="Keep as A").click()
    page.get_by_role("button", name="Suggest", exact=True).click()
    notebook.wait_until(lambda: "Suggested. " in notebook.readouts(), "suggesting", 90)


def take_what_has_most_sliders(notebook: browser.Notebook) -> None:
    notebook.page.get_by_label("rejection", exact=True).select_option("ccd_noise")
    notebook.page.get_by_role("tab", name="More").click()
    notebook.wait_until(lambda: notebook.page.get_by_text("ccd_scale_noise").first.is_visible(), "sliders")


def show_a_mask(notebook: browser.Notebook) -> None:
    notebook.page.get_by_label("picture", exact=True).select_option("mask of a frame")
    notebook.wait_until(lambda: "Where frame 1 was rejected" in notebook.titles(), "the mask")


def show_the_table(notebook: browser.Notebook) -> None:
    notebook.page.get_by_role("tab", name="Sample and verdict of each frame").click()
    notebook.page.get_by_label("verdicts").wait_for()


def draw_a_box(notebook: browser.Notebook) -> None:
    notebook.draw_a_box(".stacklib-inspector .stage")
    notebook.wait_until(lambda: "Without frame" in notebook.titles(), "the box without a frame", 60)


def have_notes(notebook: browser.Notebook) -> None:
    notebook.page.get_by_role("button", name="Leave out suggested", exact=True).click()
    notebook.wait_until(lambda: "Left out: " in notebook.readouts(), "leaving out")


#: What makes a panel higher, one after another.
STATES = {
    "explorer": (search_trails, take_what_has_most_words, take_what_has_most_sliders),
    "inspector": (show_a_mask, show_the_table, draw_a_box),
    "selector": (have_notes,),
}


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_fits_the_window_whatever_it_shows(lab, m101_copy, root, name):
    selector, made = PANELS[name]
    path = write_notebook(root, f"{name}_fits.ipynb", f"{START}panel = {made}", "panel.widget")
    with lab.open(path) as notebook:
        notebook.run_all()
        page = notebook.page
        for theme in ("Dark", "Light"):
            page.evaluate(CHANGE_THEME, {"theme": f"JupyterLab {theme}"})
            scheme = f"() => getComputedStyle(document.querySelector('{selector}')).colorScheme"
            dark = theme == "Dark"
            notebook.wait_until(lambda s=scheme, dark=dark: (page.evaluate(s) == "dark") == dark, theme)
            fits_the_window(notebook, selector)
        if name == "inspector":
            follow_each_other(notebook)
        for change in STATES[name]:
            change(notebook)
            fits_the_window(notebook, selector)
        assert notebook.errors() == []


def follow_each_other(notebook: browser.Notebook) -> None:
    """In a small window with the file browser, map and close-up are side by side above the samples."""
    page = notebook.page
    page.set_viewport_size(SMALL_WINDOW)
    page.evaluate("window.jupyterapp.shell.expandLeft()")
    notebook.settled()
    page.evaluate("() => document.querySelector('.stacklib-inspector').scrollIntoView()")
    first, close, samples = (
        page.locator(part).first.bounding_box()
        for part in (
            ".stacklib-inspector-map .stage",
            ".stacklib-inspector-close .stage",
            "img.stacklib-picture",
        )
    )
    assert abs(first["y"] - close["y"]) < 10 and first["x"] + first["width"] < close["x"]
    assert first["y"] + first["height"] < samples["y"]
    assert samples["y"] + 0.8 * samples["height"] < SMALL_WINDOW["height"] - 30


def test_a_trail_is_switched_off_with_mouse_and_keyboard(lab, m101_copy, root):
    made = (
        "import stacklib as sl\nfrom stacklib.panels import RejectionExplorer\n"
        "recipe = sl.Recipe.suggest(sl.open_frames('M101')).replace(footprints='trails')\n"
        "panel = RejectionExplorer('M101', recipe)"
    )
    with lab.open(write_notebook(root, "trails.ipynb", made, "panel.widget")) as notebook:
        notebook.run_all()
        first, page = notebook.settled(), notebook.page
        page.get_by_role("tab", name="3 trails").click()
        boxes, ignored = page.locator(".stacklib-trails input"), "print(panel.recipe.ignore_trails)"
        assert boxes.count() == 3 and all(boxes.nth(k).is_checked() for k in range(3))
        # The name is what a screen reader reads.
        box = page.get_by_role("checkbox", name="Frame 13: 270 px long, 9 px wide, 3.4 sigma", exact=True)
        for theme in ("Light", "Dark"):
            page.evaluate(CHANGE_THEME, {"theme": f"JupyterLab {theme}"})
            notebook.settled()
            assert page.locator(".stacklib-trails .widget-label-basic").first.evaluate(CONTRAST) > 7
        # Moves the picture of where samples were rejected, by the mouse.
        before = page.evaluate(VERSIONS)
        box.click()
        notebook.wait_until(lambda: page.evaluate(VERSIONS) > before, "new pictures")
        notebook.wait_until(
            lambda: "not rejected: ignored" in page.locator(".stacklib-trails").inner_text(), "a word"
        )
        name = notebook.ask(ignored)
        assert name.count("M101_Light_180s_0013") == 1 and not boxes.nth(2).is_checked()
        assert notebook.settled() != first
        # The box that was clicked still has the keyboard.
        page.keyboard.press("Space")
        notebook.wait_until(lambda: notebook.ask(ignored) == "", "using it again")
        assert boxes.nth(2).is_checked() and notebook.settled() == first
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        notebook.wait_until(lambda: "_0010" in notebook.ask(ignored), "the box before")
        page.get_by_role("button", name="Undo", exact=True).click()
        notebook.wait_until(lambda: notebook.ask(ignored) == "", "undoing it")
        notebook.wait_until(lambda: boxes.nth(1).is_checked(), "the box that shows it")
        assert notebook.errors() == []


CHANGE_THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', theme)"
#: How much lighter or darker than what is behind it a text is, by the formula of the W3C.
CONTRAST = """element => {
    const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
    const light = colour => numbers(colour).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    let behind = element;
    while (behind.parentElement && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0)
        behind = behind.parentElement;
    const both = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


#: Top and height of each picture of a panel.
STAGES = """selector => [...document.querySelectorAll(`${selector} .stage`)].map(stage => {
    const {top, height} = stage.getBoundingClientRect();
    return [Math.round(top), Math.round(height)];
})"""
#: Whether there is a picture after a resize, told before the browser draws the next frame.
RESIZED = """selector => {
    const stage = document.querySelector(`${selector} .stage`), canvas = stage.querySelector('canvas');
    const {width} = stage.style;
    const seen = new Promise(resolve => {
        const told = new ResizeObserver(() => {
            if (canvas.clientWidth === before) return;
            told.disconnect();
            const {width, height} = canvas;
            const {data} = canvas.getContext('2d').getImageData(width / 4, height / 4, 60, 60);
            resolve(data.some((value, i) => i % 4 !== 3 && value > 40));
        });
        const before = canvas.clientWidth;
        told.observe(stage);
    });
    stage.style.width = '80%';
    return seen.then(bright => { stage.style.width = width; return bright; });
}"""


def stay_in_place(notebook: browser.Notebook, selector: str) -> None:
    """Nothing moves when the pointer comes to a picture; another size shows the picture at once."""
    page, before = notebook.page, notebook.page.evaluate(STAGES, selector)
    box = page.locator(f"{selector} .stage").first.bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    readout = page.locator(f"{selector} .readout").first
    notebook.wait_until(lambda: readout.inner_text().startswith("x "), "telling a pixel")
    assert page.evaluate(STAGES, selector) == before
    assert page.evaluate(RESIZED, selector)
    page.mouse.move(5, 5)
    notebook.settled()


def slide(notebook: browser.Notebook, view: int) -> None:
    """A slider of one view moves that of the other, and all pictures."""
    handles, page = notebook.page.locator(".stacklib-panel"), notebook.page
    count, before = handles.count(), notebook.slider_value(index=view)
    notebook.slider("sigma_high", view).focus()
    shown = page.evaluate(VERSIONS)
    page.keyboard.press("ArrowLeft")
    values = lambda: [notebook.slider_value(index=index) for index in range(count)]  # noqa: E731
    notebook.wait_until(lambda: len(set(values())) == 1 and values()[0] < before, "moving both sliders")

    def renewed() -> bool:
        now = page.evaluate(VERSIONS)
        return len(now) == 4 * count and all(int(a) > int(b) for a, b in zip(now, shown, strict=True))

    notebook.wait_until(renewed, "new pictures in both views")


#: Which image each viewer of the explorers shows.
VERSIONS = (
    "() => [...document.querySelectorAll('.stacklib-pictures .stacklib-viewer')].map(v => v.dataset.version)"
)


def choose_a_pixel(notebook: browser.Notebook, view: int) -> None:
    """The crosshair of one view chooses the pixel that both tell of."""
    panels, page = notebook.page.locator(".stacklib-inspector-panel"), notebook.page
    count, stage = panels.count(), panels.nth(view).locator(".stage").first
    place = (150 + 3 * view, 112 + 5 * count)
    page.evaluate("() => document.activeElement?.blur()")
    stage.focus()
    page.keyboard.press("c")
    for key, steps in (("Shift+ArrowRight", place[0] - 150), ("Shift+ArrowDown", place[1] - 112)):
        for _ in range(steps):
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    words = f"x {place[0]}, y {place[1]}, "
    told = lambda: page.locator(".stacklib-inspector-rounds [role=status]").all_inner_texts()  # noqa: E731
    notebook.wait_until(lambda: [text.startswith(words) for text in told()] == [True] * count, "both stories")


def step(notebook: browser.Notebook, view: int) -> None:
    """A key in one view shows the next frame in both."""
    panels, page = notebook.page.locator(".stacklib-blinker"), notebook.page
    before = int(panels.nth(view).get_attribute("data-shown"))
    panels.nth(view).focus()
    page.keyboard.press("ArrowRight")
    expected = [[before + 1, before + 1]] * panels.count()
    notebook.wait_until(lambda: page.evaluate(FRAMES) == expected, "the next frame in both views")


#: Which frame each panel and its viewer show.
FRAMES = """() => [...document.querySelectorAll('.stacklib-blinker')].map(panel =>
    [Number(panel.dataset.shown), Number(panel.querySelector('.stacklib-viewer').dataset.page)])"""
KEYS = {"explorer": slide, "inspector": choose_a_pixel, "selector": step}

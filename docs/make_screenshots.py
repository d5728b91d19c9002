"""Make the screenshots of README and docs, panels as a person meets them: python docs/make_screenshots.py

It opens notebooks 1 to 3 on the sample frames in Chromium, and moves a slider step by step for the animation.
It needs what the tests need.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
PROJECT = HERE.parent
sys.path.insert(0, str(PROJECT / "tests"))

import browser  # noqa: E402

#: Steps of the slider: to the left, and back to where it was.
KEYS = ["ArrowLeft"] * 12 + ["ArrowRight"] * 12
#: Milliseconds that a picture of the animation stays, and the first and the outermost one.
STEP, PAUSE = 160, 1600
#: Width in pixels.
WIDTH = 830
THEME = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"


@contextmanager
def opened(lab: browser.Lab, name: str) -> Iterator[browser.Notebook]:
    """Open a notebook in the dark and run it."""
    with lab.open(f"notebooks/{name}.ipynb") as notebook:
        notebook.page.evaluate(THEME)
        notebook.page.evaluate("window.jupyterapp.shell.collapseLeft()")
        notebook.run_all()
        notebook.settled()
        yield notebook


def shoot(notebook: browser.Notebook, panel: str) -> Image.Image:
    """Return a picture of a panel, without the place where its choices are saved."""
    found = notebook.page.locator(panel).first
    save = found.get_by_role("button", name=re.compile("^(Save|Use these)$"))
    if save.count():
        save.evaluate("button => { button.closest('.widget-hbox').style.display = 'none'; }")
    found.scroll_into_view_if_needed()
    notebook.settled(0.3)
    return Image.open(io.BytesIO(found.screenshot())).convert("RGB")


def resized(picture: Image.Image) -> Image.Image:
    """Return a picture as wide as those of the README."""
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)


def save_slider(lab: browser.Lab) -> None:
    """Save the explorer before the first and after each step of the slider."""
    with opened(lab, "2_choose_rejection") as notebook:
        handle = notebook.slider("sigma_high")
        pictures = [shoot(notebook, ".stacklib-explorer")]
        for key in KEYS:
            handle.focus()
            notebook.page.keyboard.press(key)
            pictures.append(shoot(notebook, ".stacklib-explorer"))
    # A note below the pictures may make the panel higher.
    size = pictures[0].size
    pictures = [resized(picture.crop((0, 0, *size))) for picture in pictures]
    durations = [STEP] * len(pictures)
    durations[0] = durations[len(KEYS) // 2] = PAUSE
    pictures[0].save(
        HERE / "slider.webp",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        quality=60,
        method=6,
    )


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        leave_out = shutil.ignore_patterns("5_Integration", ".ipynb_checkpoints")
        for part in ("notebooks", "sample_data"):
            shutil.copytree(PROJECT / part, root / part, ignore=leave_out)
        with browser.laboratory(root, browser.chromium_or_skip()) as lab:
            save_slider(lab)
            for name, panel, file in (
                ("1_select_frames", ".stacklib-blinker", "blinker"),
                ("3_inspect_rejection", ".stacklib-inspector", "inspector"),
            ):
                with opened(lab, name) as notebook:
                    resized(shoot(notebook, panel)).save(HERE / f"{file}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()

"""The folder chooser, driven from code and through its widget, without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import SAMPLES

from stacklib.panels.common import Readout
from stacklib.panels.folder_chooser import FolderChooser

M13 = SAMPLES / "M13" / "4_Registered"


def test_a_folder_that_is_chosen_replaces_the_frames(tmp_path):
    shutil.copytree(M13, tmp_path / "M13" / "4_Registered")
    chooser = FolderChooser("elsewhere")
    box = chooser.widget
    (said,) = (part for part in box.children if isinstance(part, Readout))
    files = box.children[0]

    def click_on(folder: Path) -> None:
        files.reset(path=str(folder), filename="")
        # The first click opens the list of folders, the second takes the one shown.
        files._select.click()
        files._select.click()

    click_on(tmp_path)
    assert (
        chooser.frames == "elsewhere" and "Not chosen: " in said.value and "contains no images" in said.value
    )
    for folder in (tmp_path / "M13", tmp_path / "M13" / "4_Registered"):
        click_on(folder)
        assert chooser.frames.rstrip("/") == str(folder)
        assert files.title == f"<b>Frames:</b> {chooser.frames}"
        assert "M13, 12 frames. Run the cells below" in said.value
        assert f"frames = &quot;{folder.as_posix()}&quot;" in said.value


def test_it_starts_above_the_present_folder(tmp_path):
    shutil.copytree(M13, tmp_path / "M13" / "4_Registered")
    start = FolderChooser(tmp_path / "M13" / "4_Registered").widget.children[0].default_path
    assert start.rstrip("/") == str(tmp_path / "M13")
    # A list or a pattern has no folder to start from.
    assert FolderChooser(["a.fits", "b.fits"]).widget.children[0].default_path


def test_nothing_is_shown_without_a_browser(capsys, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    FolderChooser(M13).show(True)
    assert capsys.readouterr().out == ""

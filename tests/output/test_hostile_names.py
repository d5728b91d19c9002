"""Names of files and values of headers that would be something else: mathematics, tags, commands, devices."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from astropy.table import Table

import stacklib as sl
from stacklib.batch.plots import figure_masters
from stacklib.batch.summary import Row
from stacklib.batch.targets import find_targets
from stacklib.figures.look import new_figure, show_picture, write_title
from stacklib.figures.result_plots import figure_preview
from stacklib.formats import fits, xisf
from stacklib.frames import finding
from stacklib.notebook.session import show_table
from stacklib.output.naming import file_part
from stacklib.simulate import simulate_frames
from stacklib.utils.texts import HIDDEN, ecsv, one_line, printable, printable_table

STRANGE = "$x^2$ $\\frac{ {a} %s <b>&amp; \x1b[31m\n\t\u202e\u200f\u2028\x85"
OBJECT = "$M_{31}$ <img src=x onerror=alert(1)> \x1b]0;title\x07 \u202e %n {b}"


def make_frames(folder: Path, names: list[str], **keywords: str) -> list[Path]:
    """Write frames under these names, with keywords."""
    folder.mkdir(parents=True)
    paths = []
    for number, name in enumerate(names):
        image = simulate_frames(1, 24, 32, 1, seed=number).frames[0] + np.float32(0.1)
        cards = [(key, value, "") for key, value in keywords.items()]
        plain = xisf.write_image(folder / "plain.xisf", image, image_id="a", keywords=cards)
        paths.append(plain.rename(folder / name))
    return paths


def strange_names() -> list[str]:
    if sys.platform == "win32":
        return [f"$x^2$ {{a}} %s \u202e\u2028 {i}.xisf" for i in range(4)]
    latin = (
        []
        if sys.platform == "darwin"
        else [os.fsdecode(f"caf\xe9 {i}.xisf".encode("latin-1")) for i in (4, 5)]
    )
    return [*(f"{STRANGE} {i}.xisf" for i in range(4)), *latin]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A result of frames with strange names and headers, and its files."""
    folder = tmp_path_factory.mktemp("night") / STRANGE.replace("\x1b", "") / "4_Registered"
    make_frames(
        folder, strange_names(), OBJECT=OBJECT, FILTER="AUX", INSTRUME="x" * 60, OBSERVER="y\u2028" * 99
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        result = sl.integrate(folder, sl.Recipe(weights="none"), progress=False)
        return result, result.save(fits=True)


def test_a_result_is_saved_whatever_the_names(saved):
    result, images = saved
    assert images[0].name.startswith("nodate_M_-31-img-src-x-onerror-alert-1-")
    assert len(images) == 6 and all(path.name.isascii() for path in images)
    names = [one_line(name) for name in result.frames["file"]]
    base = images[0].with_suffix("")
    table = Table.read(f"{base}_frames.ecsv", format="ascii.ecsv")
    assert list(table["file"]) == names and len(set(names)) == len(strange_names())
    assert not HIDDEN.search(Path(f"{base}_frames.ecsv").read_text("utf-8").replace("\n", ""))
    report = Path(f"{base}_report.txt").read_text("utf-8")
    assert not HIDDEN.search(report.replace("\n", "")) and "onerror" in report


def test_history_and_properties_are_plain(saved):
    result, images = saved
    header = astropy_fits.getheader(images[3])
    history = "".join(header["HISTORY"])
    assert all(line.isascii() and line.isprintable() for line in header["HISTORY"])
    assert sum(f"frame {i + 1}: " in history for i in range(len(result.frames))) == len(result.frames)
    held = xisf.open_image(images[0]).properties
    for name in ("Recipe", "Run", "Frames"):
        assert held[f"stacklib:{name}"].isascii()
    fits.open_image(images[3]).close()


def test_the_run_repeats(saved):
    result, images = saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        again = sl.rerun(images[0], progress=False)
    np.testing.assert_array_equal(again.image, result.image)


def test_figures_show_names_as_they_are(saved, tmp_path):
    result, _ = saved
    figure = new_figure(4, 3)
    write_title(figure, STRANGE + OBJECT + "\udce9")
    show_picture(figure.subplots(), np.zeros((4, 4)), STRANGE + "\udce9")
    figure.savefig(tmp_path / "a.png")
    figure_preview(result).savefig(tmp_path / "b.png")
    (target,) = find_targets(result.preparation.frames.folder)
    rows = [Row(target, "waiting")] * 2
    figure_masters(rows).savefig(tmp_path / "c.png")


def test_tables_in_notebooks(capsys):
    table = Table({"file": [STRANGE, "\udce9"], "n": [1, 2]}, meta={"a": [STRANGE], "b": {"c": OBJECT}})
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
        show_table(table)
    (data,) = shown
    assert "<b>" not in data["text/html"] and "\x1b" not in data["text/plain"] + data["text/html"]
    again = Table.read(ecsv(table).decode("utf-8"), format="ascii.ecsv")
    assert list(again["file"]) == [one_line(STRANGE), r"\udce9"] and again.meta["b"]["c"] == one_line(OBJECT)
    assert printable_table(table)["n"].tolist() == [1, 2] and table["file"][0] == STRANGE


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("AUX", "AUX_"), ("con", "con_"), ("LPT1", "LPT1_"), ("COM10", "COM10"), ("Auxiliary", "Auxiliary"),
        ("../../etc/passwd", "etc-passwd"), ("C:\\x", "C-x"), ("a\0b", "a-b"), ("...", ""), ("-rf *", "rf"),
        ("$(rm)", "rm"), ("%n{0}", "n-0"), ("\x1b[31m\u202e", "31m-u202e"), ("x" * 10**5, "x" * 48),
    ],
)  # fmt: skip
def test_parts_of_file_names(text, part):
    assert file_part(text) == part


def test_filters_named_like_devices_get_folders(tmp_path):
    home = tmp_path / "M1" / "4_Registered"
    make_frames(home, ["a.xisf", "b.xisf"], FILTER="AUX")
    for path in make_frames(tmp_path / "more", ["c.xisf", "d.xisf"], FILTER="NUL"):
        shutil.move(path, home)
    assert sorted(target.output.name for target in find_targets(tmp_path)) == ["AUX_", "NUL_"]


def test_frames_on_two_drives(tmp_path, monkeypatch):
    """As on Windows, where such paths have no common part."""

    def no_common_path(paths):
        if len({Path(path) for path in paths}) > 1:
            raise ValueError("Paths don't have the same drive")
        return str(paths[0])

    monkeypatch.setattr(finding.os.path, "commonpath", no_common_path)
    for drive in "cd":
        make_frames(tmp_path / drive / "night", ["1.xisf", "2.xisf"])
    frames = sl.open_frames([tmp_path / "c" / "night", tmp_path / "d" / "night"])
    assert str(tmp_path / "c" / "night") in repr(frames)
    assert frames.names == [
        "1.xisf",
        "2.xisf",
        *((tmp_path / f"d/night/{i}.xisf").as_posix() for i in (1, 2)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        (image, *_) = sl.integrate(frames, sl.Recipe(weights="none"), progress=False).save()
    assert image.parent == tmp_path / "c" / "night" / "5_Integration"


def test_errors_warnings_and_frames_are_printable(saved):
    result, _ = saved
    frames = result.preparation.frames
    for words in (
        sl.FrameError(f"{STRANGE}: no"),
        sl.RecipeError(STRANGE),
        sl.StacklibWarning(STRANGE),
        repr(frames[0]),
        repr(frames),
    ):
        assert not HIDDEN.search(str(words).replace("\n", "").replace("\t", ""))
    with pytest.raises(sl.FrameError, match=r"\\x1b\[31m.*no image matches") as error:
        sl.open_frames("/nowhere/\x1b[31m.xisf")
    assert "\x1b" not in str(error.value) and "\x1b" not in "".join(error.value._render_traceback_())


def test_printable():
    text = "Ελλάδα 東京 👩‍👧 \u00a0é\u0301 a\tb\nc"
    assert printable(text) == text
    assert one_line("a\nb") == r"a\nb"
    assert not HIDDEN.search(printable("".join(map(chr, range(0x2100))) + "\ud800\udfff\ufeff", keep=""))

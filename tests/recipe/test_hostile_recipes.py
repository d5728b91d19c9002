"""Recipes, job files and records that somebody broke, or made to do harm: a clear error, at once."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import FrameError, RecipeError, SaveError
from stacklib.formats import fits, xisf
from stacklib.recipe.choices import read_choices
from stacklib.recipe.recipe import Job, Recipe
from stacklib.recipe.run_record import read_run
from stacklib.utils import atomic_files
from stacklib.utils.labels import clipped, quoted
from stacklib.utils.parameters import MOST_VALUES, Parameter
from stacklib.utils.resources import parse_memory

#: Nine references in each of eleven levels: 31 billion values.
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
#: CPU seconds on a busy machine; what does harm takes minutes or all memory.
AT_ONCE = 5
HOSTILE = {
    "references in each other": (LAUGHS, "more than 10 references"),
    "references in a value": ("frames: [&a [x], *a" + ", *a" * 20 + "]", "more than 10 references"),
    "a list in itself": ("frames: &a [*a]", r"frames: got \[\[\[\.\.\.\]\]\], expected text or a list"),
    "few references": (
        "frames: &a [x]\nmemory: [*a, *a]",
        r"memory: got \[\['x'\], \['x'\]\], expected text",
    ),
    "brackets": ("frames: " + "[" * 2000 + "]" * 2000, "more than 8 values in each other"),
    "open brackets": ("frames: " + "[" * 10**5, "more than 8 values in each other"),
    "indented names": ("\n".join(" " * i + "a:" for i in range(1000)), "more than 8 values in each other"),
    "many values": ("frames:\n" + "- a\n" * (MOST_VALUES + 1), f"more than {MOST_VALUES} values"),
    "large": ("# " + "x" * 10**6, "more than 1 MB"),
    "400 digits": ("sigma_low: " + "9" * 400, "is not a valid int"),
    "a hexadecimal number": ("reference: 0x" + "f" * 5000, "is not a valid int"),
    "a number to the base of 60": ("sigma_low: 1" + ":1" * 10**4, "is not a valid int"),
    "a large float": ("sigma_low: 1.0e+400", "sigma_low: got inf, expected a number from"),
    "no integer": ("sigma_low: !!int abc", "'abc' is not a valid int"),
    "no switch": ("clip_low: !!bool x", "'x' is not a valid bool"),
    "no float": ("sigma_low: !!float x", "'x' is not a valid float"),
    "no date": ("output: !!timestamp 2021-13-45", "'2021-13-45' is not a valid timestamp"),
    "no base 64": ("output: !!binary é", "base64"),
    "a list as a name": ("? [a]\n: 3", "a name is a list or mapping"),
    "a mapping as a name": ("? {a: b}\n: 3", "a name is a list or mapping"),
    "nothing as a name": ("null: 3", "unknown parameter None; names are text"),
    "a long name": ("'" + "x" * 5000 + "': 3", "mapping values are not allowed|unknown parameter"),
    "a name with an escape": ('"\\e[31mred": 3', r"unknown parameter '\\x1b\[31mred'"),
    "NUL": (
        'frames: "a\\0b"',
        r"frames: got 'a\\x00b', expected text of .* without NUL",
    ),
    "NUL in a list": ('frames: [c, "a\\0b"]', r"frames: got 'a\\x00b', expected text of at most 4096"),
    "a long path": ("output: " + "x" * 10**5, r"output: got 'xxx.*\.\.\..*x', expected text of at most 4096"),
    "a list in a list": ("frames: [[a], b]", r"frames: got \[\['a'\], 'b'\], expected text or a list"),
    "nothing in a list": ("frames: [null]", r"frames: got \[None\], expected text or a list"),
    "control characters": ("output: \x07", "special characters are not allowed"),
    "two documents": ("output: a\n---\noutput: b", "another document"),
    "a command": ("frames: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once_and_in_a_line(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    kinds = (Job,) if content.startswith(("frames", "output", "memory")) else (Job, Recipe)
    for kind in kinds:
        start = time.process_time()
        with pytest.raises(RecipeError, match=rf"(?s)recipe\.yaml: .*{message}") as error:
            kind.load(path)
        assert time.process_time() - start < AT_ONCE
        assert len(str(error.value)) < 300 + len(str(path))
        assert str(error.value).isprintable()


def test_what_people_write_is_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    frames = "".join(f"- light_{i:04}.xisf\n" for i in range(3000))
    path.write_text(f"\ufeffoutput: 2021-08-15\n<<: {{sigma_low: 4}}\nframes:\n{frames}", encoding="utf-8")
    job = Job.load(path)
    assert (job.output, job.recipe.sigma_low) == (str(tmp_path / "2021-08-15"), 4)
    assert len(job.frames) == 3000
    path.write_text("frames: [1, 2]\noutput: ~nobody_of_this_name/x", encoding="utf-8")
    assert Job.load(path).frames == ["1", "2"]
    assert read_choices([tmp_path / "a.xisf"], path).lost == ("1", "2")


UNWRITABLE = [10**400, 10**5000, -(10**400), np.arange(3), 1e308 * 10, {"a": [1]}, "x" * 10**6]


@pytest.mark.parametrize("value", UNWRITABLE, ids=range(len(UNWRITABLE)))
def test_values_that_python_cannot_write_are_refused(value):
    for name in ("sigma_low", "min_max_low", "clip_low", "rejection"):
        with pytest.raises(RecipeError, match=f"{name}: got ") as error:
            Recipe(**{name: value})
        assert len(str(error.value)) < 300
    with pytest.raises(RecipeError, match="memory: got"):
        parse_memory(value)
    unlimited = Parameter("free", float, 0.0, "Any number.")
    if not isinstance(value, float):
        with pytest.raises(RecipeError, match="free: got"):
            unlimited.check(value)


def test_memory_of_many_digits():
    for text in ("9" * 400, "9" * 400 + "GB", "1." + "0" * 400 + "GB", "²GB"):
        with pytest.raises(RecipeError, match=r"memory: got .* expected a size") as error:
            parse_memory(text)
        assert len(str(error.value)) < 200
    assert parse_memory("1.5 GiB") == 3 << 29


def test_quoted_values_are_short_and_on_one_line():
    nested = [1]
    for _ in range(40):
        nested = [nested] * 9
    for value in (
        nested,
        {"a": nested},
        "x\n" * 10**6,
        10**5000,
        "\x1b[31m\u202e\udcff\u2028",
        np.zeros(10**6),
    ):
        text = quoted(value)
        assert len(text) <= 60 and text.isprintable()
    assert [quoted(value) for value in ("3.2", 7, None, [1, 2])] == ["'3.2'", "7", "None", "[1, 2]"]
    assert clipped("a" * 61, 60) == "a" * 29 + "..." + "a" * 28


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_folders_are_no_recipes(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, kind in ((tmp_path / "pipe.yaml", "not a regular file"), (tmp_path, "a folder")):
        with pytest.raises(RecipeError, match=rf"cannot be read \(is {kind}\); name a YAML file"):
            Recipe.load(path)
    with pytest.raises(RecipeError, match="name a YAML file"):
        Recipe.load("a\0b")


def test_a_recipe_on_a_full_disk_is_named(tmp_path, monkeypatch):
    path = Recipe().save(tmp_path / "recipe.yaml")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files, "flush_to_disk", full)
    with pytest.raises(SaveError, match=r"recipe\.yaml: cannot be written \(No space left.*free space"):
        Recipe(sigma_low=4).save(path)
    assert Recipe.load(path) == Recipe()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SaveError, match=r"a\\x00b: is not the name of a file"):
        Recipe().save("a\0b")


# records -----------------------------------------------------------------------------------------


def write_record(path, recipe="rejection: sigma\n", run=None, frames=None):
    """Write an image with a record of a run, whose parts are given as text."""
    usual = json.dumps({"region": [0, 0, 4, 4], "stacklib": "0", "numpy": "0", "numba": "0"})
    held = {"Recipe": recipe, "Run": run or usual, "Frames": frames or "[]"}
    properties = {
        f"stacklib:{name}": ("String", value) if isinstance(value, str) else value
        for name, value in held.items()
    }
    return xisf.write_image(path, np.zeros((1, 4, 4), np.float32), image_id="a", properties=properties)


RUN = '{"stacklib": "0", "numpy": "0", "numba": "0", "region": %s}'
RECORDS = {
    "references": ({"recipe": LAUGHS}, "more than 10 references"),
    "a date": ({"recipe": "output: !!timestamp 2021-13-45"}, "is not a valid timestamp"),
    "digits": ({"recipe": "sigma_low: " + "9" * 400}, "is not a valid int"),
    "a list": ({"recipe": "[1, 2]"}, "contains a list"),
    "numbers for a recipe": ({"recipe": np.zeros(3)}, r"its recipe is array\(.*expected text"),
    "brackets": ({"frames": "[" * 10**5 + "]" * 10**5}, r"damaged \(RecursionError"),
    "no frames": ({"frames": '{"a": 3}'}, r"damaged \(TypeError"),
    "a frame without a path": ({"frames": '[{"path": 3, "sha256": ""}]'}, r"damaged \(TypeError"),
    "long digits": ({"run": RUN % ("[" + "9" * 5000 + "]")}, r"damaged \(ValueError"),
    "many digits": ({"run": RUN % ("[0, 0, 4, " + "9" * 400 + "]")}, r"damaged \(OverflowError"),
    "half a region": ({"run": RUN % "[1, 2]"}, r"damaged \(ValueError"),
    "text for a region": ({"run": RUN % '["a", 0, 0, 0]'}, r"damaged \(TypeError"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_hostile_records_are_refused_at_once_and_in_a_line(tmp_path, name):
    parts, message = RECORDS[name]
    path = write_record(tmp_path / "result.xisf", **parts)
    calls = [sl.rerun] + [sl.Recipe.from_result] * ("recipe" in parts)
    for call in calls:
        start = time.process_time()
        with pytest.raises(RecipeError, match=rf"result\.xisf: .*{message}") as error:
            call(path)
        assert time.process_time() - start < AT_ONCE
        assert len(str(error.value)) < 300 + len(str(path)) and str(error.value).isprintable()


def test_an_endless_region_is_refused(tmp_path):
    path = write_record(tmp_path / "result.xisf", run=RUN % "[0, 0, 1e400, -1e400]")
    assert read_run(path).region == (0, 0, -1, -1)


@pytest.mark.skipif(sys.platform == "win32", reason="devices have other names")
def test_devices_and_pipes_in_a_record_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    names = ["/dev/zero", "pipe.fits", "a\0b.fits", "/dev/stdin"]
    entries = [{"path": name, "relative": name, "sha256": "0" * 64} for name in names]
    path = write_record(tmp_path / "result.xisf", frames=json.dumps(entries))
    with pytest.raises(FrameError, match="4 of its 4 files missing"):
        sl.rerun(path, progress=False)


def test_a_path_with_nul_is_refused():
    for call in (sl.rerun, sl.Recipe.from_result):
        with pytest.raises(FrameError, match=r"'a\\x00b\.xisf': is not the name of a file"):
            call("a\0b.xisf")


def test_a_recipe_is_no_saved_image(tmp_path):
    path = Recipe().save(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: is no image with a recipe inside"):
        sl.rerun(path)


def test_hostile_history(tmp_path):
    lines = ["rejection rule: sigma", "rejection = sigma", "sigma_low = " + "9" * 60, "clip_low = 1e999"]
    image = np.zeros((1, 4, 4), np.float32)
    path = fits.write_image(tmp_path / "a.fits", image, [("HISTORY", line, "") for line in lines])
    with pytest.raises(RecipeError, match=r"a\.fits: clip_low: got inf, expected"):
        Recipe.from_result(path)
    content = path.read_bytes().replace(b"clip_low = 1e999", b"clip_low = \xff\0tru")
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"a\.fits: clip_low: got .*, expected"):
        Recipe.from_result(path)

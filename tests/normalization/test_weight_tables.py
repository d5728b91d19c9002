"""Tables of weights as Excel writes them, and as nobody should."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import IntegrationError
from stacklib.normalization.weighting import frame_weights
from stacklib.recipe.recipe import Recipe

NAMES = ["light_0.xisf", "light_1.xisf"]


def weights(path):
    measured = SimpleNamespace(names=NAMES, location=np.ones((2, 1)), noise_source="none", notes=())
    recipe = Recipe(weights="csv", weight_file=str(path))
    return frame_weights([], measured, recipe, np.ones((2, 1)))[:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", b"\xef\xbb\xbffile,weight\r\nlight_0.xisf,0.5\r\nlight_1.xisf,2\r\n"),
        ("german excel.csv", b"\xef\xbb\xbffile;weight\r\nlight_0.xisf;0,5\r\nlight_1.xisf;2\r\n"),
        ("old mac.csv", b"file,weight\rlight_0.xisf,0.5\rlight_1.xisf,2\r"),
        ("more columns.csv", b"weight,x,file\n0.5,,light_0\n2,3,C:\\a\\light_1.fits\n"),
        ("marked.ecsv", b"\xef\xbb\xbf# %ECSV 1.0\n# ---\n# datatype:\n# - {name: file, datatype: string}\n"
         b"# - {name: weight, datatype: float64}\nfile weight\nlight_0.xisf 0.5\nlight_1.xisf 2\n"),
    ],
)  # fmt: skip
def test_tables_that_are_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert weights(path) == [0.25, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "file,weight\nlight_0,1\nlight_1,nan\n",
            "the weight of light_1.xisf is 'nan', expected a number",
        ),
        ("file,weight\nlight_0,1\nlight_1,inf\n", "the weight of light_1.xisf is 'inf'"),
        ("file,weight\nlight_0,1\nlight_1,-2\n", "the weight of light_1.xisf is '-2'"),
        ("file,weight\nlight_0,1\nlight_1,good\n", "the weight of light_1.xisf is 'good'"),
        ("file,weight\nlight_0,1\nlight_1,\n", "no weight for light_1.xisf"),
        ("file,weight\nlight_0,1\nlight_1," + "9" * 5000 + "\n", "the weight of light_1.xisf is '(inf|999)"),
        ("a,weight\x1b[31m\nlight_0,1\n", r"columns 'a', 'weight\\x1b\[31m'; expected file and weight"),
        ("x," * 2000 + "file,weight\n", "has more than 1000 columns"),
        ("file,weight\n" + "x" * 5 * 10**6, "has more than 5 MB"),
        ("file,weight\nlight_0,1," + "x" * 10**5 + "\n", "is not a CSV or ECSV table"),
        ("", "columns none|is not a CSV"),
        ("\0" * 1000, "is not a CSV or ECSV table|columns"),
    ],
)
def test_tables_that_are_refused_in_a_line(tmp_path, content, message):
    path = tmp_path / "weights.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(IntegrationError, match=rf"weights\.csv: {message}") as error:
        weights(path)
    assert len(str(error.value)) < 300 + len(str(path)) and str(error.value).isprintable()


def test_references_in_the_header_of_a_table(tmp_path):
    levels = "".join(f"# - a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    path = tmp_path / "weights.ecsv"
    path.write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: file, datatype: string}\n"
        "# - {name: weight, datatype: float64}\n# meta: !!omap\n# - a0: &a0 [x, x]\n" + levels
        + "file weight\nlight_0 1\nlight_1 2\n",
        encoding="utf-8",
    )  # fmt: skip
    start = time.process_time()
    assert weights(path) == [0.5, 1]
    assert time.process_time() - start < 2


def test_many_rows_are_read_in_time(tmp_path):
    path = tmp_path / "weights.csv"
    rows = "".join(f"night/of/many/other_{i}.xisf,{i}\n" for i in range(50_000))
    path.write_text(f"file,weight\n{rows}night/light_0.xisf,1\nlight_1.fit,2\n", encoding="utf-8")
    start = time.process_time()
    assert weights(path) == [0.5, 1]
    assert time.process_time() - start < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_other_encodings(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(IntegrationError, match=r"pipe\.csv: is not a regular file"):
        weights(tmp_path / "pipe.csv")
    (tmp_path / "utf-16.csv").write_bytes("file,weight\nlight_0,1\n".encode("utf-16"))
    with pytest.raises(IntegrationError, match=r"utf-16\.csv: is not UTF-8 text\. Save it as CSV UTF-8"):
        weights(tmp_path / "utf-16.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "nope"}, "reference: nope is none of the frames"),
        ({"weights": "csv"}, "weight_file is empty"),
        ({"weights": "csv", "weight_file": "nowhere.csv"}, "nowhere.csv"),
        ({"weights": "keyword"}, "weight_keyword is empty"),
        ({"weights": "formula"}, "weight_formula is empty"),
    ],
)
def test_choices_that_cannot_work_are_refused_before_frames_are_measured(monkeypatch, changes, message):
    def measure(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr("stacklib.normalization.preparation.measure_frames", measure)
    with pytest.raises(sl.IntegrationError, match=message):
        sl.integrate("sample_data/M13/4_Registered", sl.Recipe(**changes), progress=False)

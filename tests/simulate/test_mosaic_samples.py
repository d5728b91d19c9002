"""Simulated mosaics to drizzle: the small night made on first use, and `stacklib sample --mosaic`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import stacklib as sl
from stacklib import cli
from stacklib.formats.xdrz import read_xdrz
from stacklib.frames.frame import Frame
from stacklib.simulate import large_mosaics, mosaic_sample, mosaic_samples, sample_mosaics
from stacklib.utils.package import CACHE_VARIABLE


def small_night(*arguments, **options):
    return large_mosaics(*arguments, **options, height=60, width=80)


def test_large_mosaics_come_with_their_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stacklib.simulate.large_mosaics", small_night)
    arguments = ["sample", str(tmp_path), "--mosaic", "--count", "4", "--seed", "3", "--format", "fits"]
    assert cli.main(arguments) == 0
    assert f"stacklib drizzle {tmp_path} drizzles them." in capsys.readouterr().out
    truth = tmp_path / "truth"
    text = (truth / "README.txt").read_text(encoding="utf-8")
    # The call in the text makes the same night again.
    call = text[text.index("large_mosaics(") :].splitlines()[0].strip()
    night = eval(call, {"large_mosaics": small_night})
    mosaics = sorted((tmp_path / "3_Calibrated").glob("*.fits"))
    registered = sl.open_frames(tmp_path)
    assert len(mosaics) == len(registered) == 4 and registered[0].channels == 3
    np.testing.assert_allclose(fits.getdata(mosaics[2]) / 65535, night.frame(2)[0], atol=1 / 65535)
    data = read_xdrz(registered[2].path.with_suffix(".xdrz"))
    assert mosaics[2].name in data.source_names and np.allclose(data.matrix, night.matrices[2])
    np.testing.assert_allclose(fits.getdata(truth / "truth_2x.fits"), night.truth(2), rtol=1e-5)
    table = Table.read(truth / "night.ecsv")
    assert list(table["file"]) == [path.name for path in mosaics]
    np.testing.assert_array_equal(table["matrix"].reshape(4, 3, 3), night.matrices)
    assert cli.main(arguments) == 1
    assert "has frames or a truth already" in capsys.readouterr().err


def test_the_small_night_is_made_once_and_again_where_a_part_is_missing(tmp_path, monkeypatch):
    few = replace(sample_mosaics(), matrices=sample_mosaics().matrices[:2])
    monkeypatch.setattr(mosaic_samples, "sample_mosaics", lambda: few)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder, made = mosaic_sample()
    assert made and folder.is_relative_to(tmp_path) and mosaic_sample() == (folder, False)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    before = [Frame(path).read() for path in files if path.suffix == ".xisf"]
    assert len(files) == 6
    files[0].unlink()
    assert mosaic_sample() == (folder, True)
    after = [Frame(path).read() for path in files if path.suffix == ".xisf"]
    assert len(before) == 4 and all(map(np.array_equal, before, after))
    assert [path.name for path in folder.parent.iterdir()] == ["M106"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(sl.SaveError, match=r"cannot be written there .*set STACKLIB_CACHE"):
        mosaic_sample()

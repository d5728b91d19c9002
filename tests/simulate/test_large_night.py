"""`stacklib sample`: a large night with its truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import stacklib as sl
from stacklib import cli
from stacklib.simulate import large_night, make_large_night, samples


def small_night(*arguments, **options):
    return large_night(*arguments, **options, height=60, width=80)


def test_frames_come_with_their_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stacklib.simulate.large_night", small_night)
    arguments = ["sample", str(tmp_path / "night"), "--count", "5", "--seed", "3", "--kind", "nebula"]
    assert cli.main(arguments) == 0
    assert "stacklib run" in capsys.readouterr().out
    frames = sl.open_frames(tmp_path / "night")
    assert (len(frames), frames[0].channels) == (5, 3)
    truth = tmp_path / "night" / "truth"
    text = (truth / "README.txt").read_text(encoding="utf-8")
    # The call in the text makes the same night again.
    night = eval(text[text.index("large_night(") :].splitlines()[-1].strip(), {"large_night": small_night})
    np.testing.assert_allclose(frames[2].read(), night.frame(2), atol=1 / 65535)
    np.testing.assert_array_equal(fits.getdata(truth / "truth.fits"), night.truth)
    table = Table.read(truth / "night.ecsv")
    assert list(table["file"]) == [frame.path.name for frame in frames]
    np.testing.assert_array_equal(table["transparency"], night.transparency)
    assert table.meta["reference"] == table["file"][night.reference]


def test_background_follows_from_the_table(tmp_path):
    night = small_night(count=3, seed=4)
    make_large_night(tmp_path, night)
    row = Table.read(tmp_path / "truth" / "night.ecsv")[1]
    y, x = (np.mgrid[:60, :80] - np.array([29.5, 39.5])[:, None, None]) / 80
    terms = (x, y, x**2 - (x**2).mean(), x * y, y**2 - (y**2).mean())
    for channel in range(3):
        background = row["sky"][channel] + sum(
            row[n][channel] * t for n, t in zip("abcde", terms, strict=True)
        )
        np.testing.assert_allclose(background, night.background(1)[channel], rtol=1e-9)


def test_nothing_is_overwritten(tmp_path):
    night = small_night(count=2)
    make_large_night(tmp_path, night, format="fits")
    with pytest.raises(sl.SaveError, match="choose another folder"):
        make_large_night(tmp_path, night)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = samples.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(samples.shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(sl.SaveError, match=r"needs 0\.1 GB, but only 0\.0 GB"):
        make_large_night(tmp_path, small_night(count=2))
    assert not (tmp_path / "4_Registered").exists()


@pytest.mark.parametrize("wrong", [("--count", "0"), ("--seed", "-1"), ("--kind", "comet")])
def test_wrong_arguments_are_told(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit):
        cli.main(["sample", str(tmp_path), *wrong])
    assert wrong[1] in capsys.readouterr().err

"""The numbers in the README match a run."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Read the table of the README: names and values."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| sample run | M101 |") :].split("\n\n")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_table_is_complete(expected):
    assert len(expected) == 8


def test_frames_and_rule(expected, m101):
    assert numbers(expected["frames used"]) == [m101.preparation.count, len(m101.frames)]
    assert expected["rejection"] == m101.rule


@pytest.mark.parametrize("side", ["low", "high"])
def test_rejected(expected, m101, side):
    measured = 100 * getattr(m101, f"rejected_{side}").mean()
    assert numbers(expected[f"rejected {side}"]) == [pytest.approx(measured, abs=0.0051)]


def test_rejected_around_hits(expected, m101):
    measured = 100 * m101.masked["colour"].mean()
    assert numbers(expected["rejected around hits in color"]) == [pytest.approx(measured, abs=0.0051)]


def test_noise(expected, m101):
    shown = numbers(expected["noise, red / green / blue (one frame = 1)"])
    assert shown == pytest.approx(list(m101.noise_ratio), abs=0.00051)
    assert numbers(expected["1/sqrt(N), for equal frames"]) == [
        pytest.approx(m101.expected_noise_ratio, abs=0.00051)
    ]

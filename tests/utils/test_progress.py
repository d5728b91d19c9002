"""Progress bars tell the time left only when it is known."""

from __future__ import annotations

import re

import pytest

from stacklib.utils import progress
from stacklib.utils.progress import progress_bar


@pytest.fixture
def spent(monkeypatch):
    """Seconds of compiling so far, which a test sets; and whether it goes on."""
    known = {"seconds": 0.0, "busy": False}
    monkeypatch.setattr(progress, "seconds_of_compiling", lambda: known["seconds"])
    monkeypatch.setattr(progress, "compiling", lambda: known["busy"])
    return known


def remaining(bar, elapsed: float) -> str:
    """Return the time left that a bar shows after some seconds."""
    bar.start_t = bar._time() - elapsed
    return re.search(r"<([^,]+),", str(bar))[1]


def test_compiling_does_not_count_in_the_time_left(spent):
    spent["seconds"] = 100.0
    with progress_bar(40, "measured", "plane") as bar:
        assert remaining(bar, 3) == "?"
        spent["seconds"], spent["busy"] = 120.0, True
        bar.update(2)
        assert remaining(bar, 23) == "?"
        spent["busy"] = False
        # 2 planes in 3 s of work, 38 to go.
        assert remaining(bar, 23) == "00:57"
        bar.update(38)
        assert remaining(bar, 30) == "00:00"


@pytest.mark.parametrize("done", [0, 1])
def test_no_time_left_from_too_little(spent, done):
    with progress_bar(1000, "measured", "plane") as bar:
        bar.update(done)
        assert remaining(bar, 5) == "?"


def test_time_left_without_compiling(spent):
    with progress_bar(100, "measured", "plane") as bar:
        bar.update(10)
        assert remaining(bar, 10) == "01:30"
    with progress_bar(0, "nothing", "plane") as bar:
        assert str(bar)


@pytest.mark.parametrize("kept", [True, False])
def test_compiling_is_said_once_in_each_bar_and_between_bars(monkeypatch, capsys, kept):
    said = []
    monkeypatch.setattr(progress, "_told", progress._Told())
    monkeypatch.setattr(progress, "is_kept", lambda: kept)
    monkeypatch.setattr(progress, "tell_of_compiling", said.append)
    with progress_bar(3, "measured", "plane", shown=False):
        assert not said

    def lines() -> list[str]:
        return [
            line.split("\r")[-1].strip() for line in capsys.readouterr().err.splitlines() if "ompil" in line
        ]

    first = progress.COMPILING if kept else progress.COMPILING_AGAIN
    with progress_bar(3, "measured", "plane") as bar:
        said[0]()
        said[0]()
        assert lines() == [first]
        bar.update(3)
    for _ in range(2):
        said[0]()
    assert lines() == [progress.GOES_ON]
    with progress_bar(3, "integrated", "plane"):
        assert lines() == []
        said[-1]()
        assert lines() == [progress.GOES_ON]

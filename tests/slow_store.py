"""Frames on a slow store: what a test runs on the workers of a cluster to make them wait for every read."""

from __future__ import annotations

import contextlib
import time

from stacklib.formats.source import FileBlock

_reader = FileBlock.reader


def slow_down(seconds: float) -> None:
    """From now on every read of this process takes so much longer; 0: as usual."""

    @contextlib.contextmanager
    def reader(self):
        time.sleep(seconds)
        with _reader(self) as read_into:
            yield read_into

    FileBlock.reader = reader if seconds else _reader

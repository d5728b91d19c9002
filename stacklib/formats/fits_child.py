"""The process that decodes tile-compressed FITS images for `fits_unpack`. It may die of a damaged file.

It is started by its file name and imports nothing of the package, so that it is ready soon. On standard input
it gets one JSON object a line: the file, the header of a table, where the table and its heap lie, and the
type and size of the samples. On standard output it writes the number of bytes and the samples; or 0, the
length of a text, and the text of an error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import warnings
from typing import Any, BinaryIO

import numpy as np

# The other process imports this module for its name and numbers only.
if __name__ == "__main__":
    from astropy.io import fits

#: Seconds without work after which the process ends.
IDLE = 60.0
#: Seconds that an image may take, besides those for its size, and bytes a second of the slowest codec.
SECONDS, BYTES_A_SECOND = 2, 1e6
#: Memory that an image may take, besides a multiple of its size.
MEMORY, MEMORY_RATIO = 2**28, 3


def limit(size: int) -> None:
    """Limit time and memory for an image of this size, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime + SECONDS + size / BYTES_A_SECOND) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        most = MEMORY + MEMORY_RATIO * size
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def unpack(job: dict[str, Any]) -> np.ndarray:
    """Decode the image of a job, big-endian."""
    table = bytearray(job["header"].encode("ascii"))
    with open(job["path"], "rb") as stream:  # noqa: PTH123
        for position, size in (job["rows"], job["heap"]):
            stream.seek(position)
            part = stream.read(size)
            if len(part) < size:
                raise ValueError("the file has shrunk since it was opened")
            table += part
    empty = fits.PrimaryHDU().header.tostring().encode("ascii")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = fits.open(io.BytesIO(empty + table), do_not_scale_image_data=True, memmap=False)
        return np.ascontiguousarray(units[1].data, job["stored"])


def answer(line: bytes, output: BinaryIO) -> None:
    """Decode the image of one line, and write it or why it cannot be decoded."""
    job = json.loads(line)
    limit(job["size"])
    try:
        content = unpack(job).reshape(-1).view(np.uint8)
        if len(content) != job["size"]:
            raise ValueError(f"{len(content)} bytes instead of {job['size']}")
    except Exception as error:  # astropy raises almost anything for damaged tiles
        text = f"{type(error).__name__}: {error}".encode()[:200]
        output.write((0).to_bytes(8, "little") + len(text).to_bytes(8, "little") + text)
    else:
        output.write(len(content).to_bytes(8, "little"))
        output.write(content.data)
    output.flush()


def main() -> None:
    """Answer line by line until the input ends or nothing comes for a while."""
    # Ctrl+C is for the other process, which then closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        idle = threading.Timer(IDLE, os._exit, [0])
        idle.daemon = True
        idle.start()
        line = sys.stdin.buffer.readline()
        idle.cancel()
        if not line:
            return
        answer(line, sys.stdout.buffer)


if __name__ == "__main__":
    main()

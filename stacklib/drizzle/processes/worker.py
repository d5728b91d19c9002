"""A process that deposits strips of a grid, see `workers`; the drizzle library holds the GIL.

It reads a job and then strips from its standard input, and writes what is done to its standard output. It
ends with its input, and so with the process that started it.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from typing import BinaryIO

from stacklib.drizzle.deposit import deposit, release
from stacklib.formats.scratch import memory_limited

#: Kinds of messages: a frame is deposited, a strip follows, an error follows.
FRAME, STRIP, ERROR = b"F", b"S", b"E"
SIZE = struct.Struct("<q")


def main() -> None:
    """Deposit strips until there are no more."""
    # Ctrl-C goes to the process that started this one, which ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    drops, sites, grid, memory = pickle.loads(_read(job))

    def done(number: int) -> None:
        release(drops[number])
        answers.write(FRAME)
        answers.flush()

    while strip := job.read(2 * SIZE.size):
        start, stop = (SIZE.unpack_from(strip, place)[0] for place in (0, SIZE.size))
        try:
            with memory_limited(memory):
                found = deposit(drops, sites, grid, slice(start, stop), done=done)
        except Exception as error:
            content = pickle.dumps(error)
            answers.write(ERROR + SIZE.pack(len(content)) + content)
            answers.flush()
            continue
        answers.write(STRIP)
        for planes in found:
            for plane in planes:
                for row in plane:
                    answers.write(row.data)
        answers.flush()
        del found


def _read(stream: BinaryIO) -> bytes:
    (size,) = SIZE.unpack(stream.read(SIZE.size))
    return stream.read(size)


if __name__ == "__main__":
    main()

"""Run a command and record time and memory: ``python launch.py REPORT LOG COMMAND...``.

A process of its own, and a small one: the peak memory that Linux reports of a child begins with that of
the process it was started from, which in the benchmark itself is large.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(report, log, *command):
    with Path(log).open("wb") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    measured = {
        "status": os.waitstatus_to_exitcode(status),
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        # Kilobytes on Linux, bytes on macOS.
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    Path(report).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])

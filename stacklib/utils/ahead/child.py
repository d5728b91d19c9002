"""A process that compiles, started by `stacklib.utils.ahead.processes`.

It takes one order a line from stdin, the name of a function and its arguments, and answers on stdout with the
seconds that each took. It ends with the process that started it, even if that is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import warnings

__all__ = ["main"]


def main() -> None:
    """Call the functions that stdin names, until it is closed."""
    # Ctrl-C in a terminal reaches this process as well. The other one then closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What the functions print is no answer.
    os.dup2(2, 1)
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while True:
        name, given = json.loads(orders.get())
        began = time.monotonic()
        module, _, function = name.partition(":")
        try:
            getattr(importlib.import_module(module), function)(*given)
        except Exception:
            # The run will compile what it needs, and tell what is wrong.
            answers.write("-1\n")
        else:
            answers.write(f"{time.monotonic() - began}\n")
        answers.flush()


def _listen(orders: queue.SimpleQueue[str]) -> None:
    """Pass the orders on, and end this process when nobody can give any more, whatever it is doing."""
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)

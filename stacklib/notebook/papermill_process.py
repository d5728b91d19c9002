"""The process in which papermill runs one notebook; `stacklib.notebook.process` starts it.

It runs as a script and imports nothing of stacklib, which saves each run a second and a hundred megabytes.
Locks tell others that it is at work in the folders it was given, should the process that started it be gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Take an order from stdin, run papermill, and report on stderr after a zero byte."""
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    order = json.loads(sys.stdin.buffer.readline())
    parent, notebook, executed, values, ports, sockets, own_errors, hidden = order
    if os.name != "nt":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_interrupt_when_alone, daemon=True).start()
    room = Path(executed).parent
    try:
        with _held(room), _held(sockets):
            connection = _connection(ports, sockets)
            report = _papermill(notebook, executed, values, connection, own_errors, re.compile(hidden))
    except KeyboardInterrupt:
        _end_kernel()
        if parent and os.name != "nt" and os.getppid() != parent:
            # Nobody else is left to remove these folders.
            from stacklib.utils.file_sets import clear_room, remove_tree
            from stacklib.utils.leftovers import clear_leftovers

            clear_leftovers(room.parent, clear_room)
            if sockets:
                clear_leftovers(Path(sockets).parent, remove_tree)
        raise
    sys.stdout.flush()
    sys.stderr.write("\0" + json.dumps(report) + "\n")
    sys.stderr.flush()


def _interrupt_when_alone() -> None:
    """Wait until stdin is closed: the run was stopped, or the process that started this one is gone."""
    while os.read(0, 1):
        pass
    if os.name == "nt":
        # The kernel watches this process, and ends too.
        os._exit(1)
    os.kill(os.getpid(), signal.SIGINT)


def _end_kernel() -> None:
    """End a kernel that papermill had only just started, before it makes its folder anew."""
    import psutil

    below = psutil.Process().children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(below, timeout=10)


@contextlib.contextmanager
def _held(folder: str | Path) -> Iterator[None]:
    """Hold a lock in a folder, if there is one and it can be locked."""
    if not folder:
        yield
        return
    from filelock import FileLock

    lock = FileLock(Path(folder) / "papermill.lock")
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire(timeout=0)
    try:
        yield
    finally:
        lock.release()


def _papermill(
    notebook: str,
    executed: str,
    values: dict[str, Any],
    connection: Any,
    own_errors: list[str],
    hidden: re.Pattern[str],
) -> tuple[str, str]:
    """Run the notebook. Return how it ended, and a text about it."""
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        return "missing", str(error.name)
    try:
        papermill.execute_notebook(
            _literally(notebook),
            _literally(executed),
            values,
            progress_bar=False,
            stdout_file=_Printable(sys.stdout, hidden),
            stderr_file=_Printable(sys.stderr, hidden),
            on_cell_start=_Headings(),
            # Older IPython adds the current folder to the import path, whatever Python was told.
            extra_arguments=["--log-level=ERROR", "--InteractiveShellApp.ignore_cwd=True"],
            config=connection,
        )
    except papermill.PapermillExecutionError as error:
        # The message of our own errors is enough.
        return "failed", str(error.evalue) if error.ename in own_errors else f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return "failed", "the notebook kernel died, probably for lack of memory; give the run a larger budget"
    except RuntimeError as error:
        # jupyter_client raises this for a kernel that never answered.
        if "Kernel d" not in str(error):
            raise
        return "unstarted", str(error)
    except OSError as error:
        return "unwritten", error.strerror or str(error)
    return "done", ""


class _Printable:
    """A stream for what cells print, which may hold names from headers and folders.

    What would command a terminal is written out, as in `stacklib.utils.texts.printable`.
    """

    def __init__(self, stream: TextIO, hidden: re.Pattern[str]) -> None:
        self.stream, self.hidden = stream, hidden

    def write(self, text: str) -> None:
        """Write a text as printable characters, line breaks and tabs."""
        self.stream.write(self.hidden.sub(self._shown, text))

    def flush(self) -> None:
        """Write what is held back."""
        self.stream.flush()

    @staticmethod
    def _shown(found: re.Match[str]) -> str:
        letter = found[0]
        # Progress bars go back to the start of their line.
        return letter if letter in "\n\r\t" else letter.encode("unicode_escape").decode("ascii")


class _Headings:
    """Prints the heading above each part of the notebook when its code begins, so that no wait is silent."""

    def __init__(self) -> None:
        self.heading = ""

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Take a cell that comes next."""
        first = cell.source.partition("\n")[0]
        if cell.cell_type == "markdown" and first.startswith("#"):
            self.heading = first.lstrip("# ")
        if cell.cell_type == "code" and self.heading:
            print(f"{self.heading} ...", flush=True)
            self.heading = ""


def _literally(path: str) -> str:
    """Return a path for papermill, which puts parameters in place of names in braces."""
    return path.replace("{", "{{").replace("}", "}}")


def _connection(ports: list[int], sockets: str) -> Any:
    """Return settings that keep this kernel apart from all others, in ports or a folder of its own."""
    try:
        from traitlets.config import Config
    except ImportError:
        # papermill will be missing, too.
        return None
    config = Config()
    if sockets:
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = str(Path(sockets) / "kernel")
        config.KernelManager.connection_file = str(Path(sockets) / "kernel.json")
    elif ports:
        names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        config.KernelManager.update(zip(names, ports, strict=True))
        # Otherwise it looks for ports of its own.
        config.KernelManager.cache_ports = False
    return config


if __name__ == "__main__":
    main()

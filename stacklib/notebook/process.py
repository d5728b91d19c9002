"""Run one notebook through papermill in a process of its own, which can be stopped in an orderly way.

jupyter_client releases the free TCP ports it has found before the kernel takes them, so kernels that start
side by side can clash. They therefore use sockets in a private folder (Linux, macOS), or ports handed out
here, none twice (Windows). A kernel that dies before its first cell, its port taken, is started again.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacklib import errors
from stacklib.errors import IntegrationError, SaveError
from stacklib.utils.file_sets import WORK_FOLDER, temporary_folder
from stacklib.utils.texts import HIDDEN, utf8_path

__all__ = ["INSTALL", "NotebookProcess"]

#: How to install what the notebooks need.
INSTALL = 'pip install "stacklib[notebook]"'

#: Program of the process that runs the notebook.
CHILD = "import runpy; runpy.run_path({!r}, run_name='__main__')".format(
    str(Path(__file__).with_name("papermill_process.py"))
)
#: Errors shown without their type: the message is enough.
OWN_ERRORS = [name for name in errors.__all__ if name.endswith("Error")]
#: Seconds that an interrupted run gets to shut its kernel down.
PATIENCE = 20
#: Attempts to start a kernel.
STARTS = 3
#: Longest name of a socket: systems allow 104 or 108 bytes.
LONGEST_SOCKET = 100

_handing_out = threading.Lock()


class NotebookProcess:
    """One run of a notebook with the parameters `values`.

    It is written with its outputs to `executed`, in the work folder of the run. If `silent`, the terminal
    does not show its output.
    """

    def __init__(self, notebook: Path, executed: Path, values: dict[str, Any], silent: bool = False) -> None:
        self.notebook, self.executed, self.values, self.silent = notebook, executed, values, silent
        self._child: subprocess.Popen | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> str | None:
        """Run the notebook, and return the error in one line if a cell failed, otherwise None.

        `IntegrationError` is raised if papermill is missing or no kernel starts, `SaveError` if the executed
        notebook cannot be written.
        """
        for _ in range(STARTS):
            with _ports() as ports, _sockets(ports) as sockets:
                kind, text = self._run_once(ports, sockets)
            if kind != "unstarted" or self._stopped:
                break
        if kind == "missing":
            raise IntegrationError(f"{text} is missing; install it with: {INSTALL}")
        if kind == "unstarted":
            raise IntegrationError(
                f"the notebook kernel did not start in {STARTS} attempts ({text}); "
                "check that there is enough free memory, and try again"
            )
        if kind == "unwritten":
            raise SaveError(
                f"{self.executed.parent.parent}: the executed notebook cannot be written there ({text}). "
                "Check the free space and the permissions, or choose another folder for the results"
            )
        return text if kind == "failed" else None

    def stop(self) -> None:
        """End the run from another thread; `run` then returns an error."""
        with self._lock:
            self._stopped = True
            child = self._child
        if child is None or child.poll() is not None:
            return
        if os.name == "nt":
            child.terminate()
        # This interrupts the process.
        with contextlib.suppress(OSError, ValueError):
            child.stdin.close()
        last = threading.Timer(PATIENCE, child.kill)
        last.daemon = True
        last.start()

    def _run_once(self, ports: list[int], sockets: str) -> tuple[str, str]:
        # A kernel that inherits these two believes that it has a browser.
        variables = {k: v for k, v in os.environ.items() if k not in ("JPY_SESSION_NAME", "VOILA_KERNEL_ID")}
        variables[WORK_FOLDER] = str(self.executed.parent)
        # The current folder, often one of data, is not searched for modules; -P says so to one process only.
        variables["PYTHONSAFEPATH"] = "1"
        # Paths come as UTF-8. What is printed has to fit the terminal or the file it is sent to.
        variables["PYTHONUTF8"] = "1"
        variables["PYTHONIOENCODING"] = f"{getattr(sys.stdout, 'encoding', None) or 'utf-8'}:backslashreplace"
        if os.name == "nt":
            apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        else:
            # Ctrl-C reaches this process only, which can end the other one in an orderly way.
            apart = {"start_new_session": True}
        sys.stdout.flush()
        with self._lock:
            if self._stopped:
                return "failed", "the run was stopped"
            child = self._child = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if self.silent else None,
                stderr=subprocess.PIPE,
                **apart,
            )
        # The work folder of a silent run is cleared by the next batch.
        parent = None if self.silent else os.getpid()
        paths = [utf8_path(str(path)) for path in (self.notebook, self.executed)]
        order = [parent, *paths, self.values, ports, sockets, OWN_ERRORS, HIDDEN.pattern]
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(order).encode() + b"\n")
                child.stdin.flush()
            report = _pass_through(child, self.silent)
            child.wait()
        except BaseException:
            _stop(child)
            raise
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()
            child.stderr.close()
        if not report:
            ended = f"the process that runs the notebook ended with code {child.returncode}; run it again"
            return "failed", ended
        kind, text = json.loads(report.splitlines()[0])
        return kind, text


@contextlib.contextmanager
def _ports() -> Iterator[list[int]]:
    """Yield ports that no other kernel of this process has; none where sockets have file names."""
    if _have_sockets():
        yield []
        return
    try:
        from jupyter_client.connect import LocalPortCache
        from jupyter_client.localinterfaces import localhost
    except ImportError:
        # The other process will name what is missing.
        yield []
        return
    with _handing_out:
        cache = LocalPortCache.instance()
        ports = [cache.find_available_port(localhost()) for _ in range(5)]
    try:
        yield ports
    finally:
        with _handing_out:
            for port in ports:
                cache.return_port(port)


@contextlib.contextmanager
def _sockets(ports: list[int]) -> Iterator[str]:
    """Yield a folder for the sockets of a kernel that has no ports, otherwise an empty string."""
    if ports or not _have_sockets():
        yield ""
        return
    with temporary_folder() as folder:
        yield str(folder)


def _have_sockets() -> bool:
    """Return whether the system has sockets with file names, and its temporary folder a short enough path."""
    longest = Path(tempfile.gettempdir()) / ".stacklib-12345678" / "kernel-5"
    return hasattr(socket, "AF_UNIX") and os.name != "nt" and len(os.fsencode(longest)) <= LONGEST_SOCKET


def _pass_through(child: subprocess.Popen, silent: bool) -> bytes:
    """Print what the process writes to stderr, and return its report, which follows a zero byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := child.stderr.read1():
        words, zero, report = chunk.partition(b"\0")
        if not silent:
            sys.stderr.write(decoder.decode(words))
            sys.stderr.flush()
        if zero:
            return report + child.stderr.read()
    return b""


def _stop(child: subprocess.Popen) -> None:
    """End the process and its kernel, and drop what they still print."""
    if os.name == "nt":
        child.terminate()
    try:
        # This closes the stdin of the process, which interrupts it.
        child.communicate(timeout=PATIENCE)
    except BaseException:
        # It takes too long, or the user pressed Ctrl-C again.
        child.kill()
        child.wait()

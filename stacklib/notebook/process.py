"""Run one notebook through papermill in a process of its own, which can be stopped in order.

Kernels that start side by side can clash: jupyter_client looks for free TCP ports, lets go of them, and
the kernel takes them a moment later, when another one may have them. So kernels talk over sockets in a
private folder where the system has them (Linux, macOS). Elsewhere (Windows) the ports are handed out here,
none twice. And a kernel that dies before its first cell, because a stranger took a port, is started again.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stacklib import errors
from stacklib.errors import IntegrationError, SaveError
from stacklib.utils.atomic_files import RUN_MARK

__all__ = ["INSTALL", "NotebookProcess"]

#: How to get what the notebooks need.
INSTALL = 'pip install "stacklib[notebook]"'

#: What the process that runs the notebook executes.
CHILD = "import runpy; runpy.run_path({!r}, run_name='__main__')".format(
    str(Path(__file__).with_name("papermill_process.py"))
)
#: Errors whose text says it all.
OWN_ERRORS = [name for name in errors.__all__ if name.endswith("Error")]
#: Seconds that an interrupted run gets to shut its kernel down.
PATIENCE = 20
#: Times that a kernel which does not come up is started.
STARTS = 3
#: Longest name of a socket: systems allow 104 or 108 bytes.
LONGEST_SOCKET = 100

_handing_out = threading.Lock()


class NotebookProcess:
    """One run of a notebook.

    Parameters
    ----------
    notebook, executed : Path
        The notebook, and where it goes with its outputs.
    values : dict
        Its parameters.
    heard : callable, optional
        Gets what the notebook prints, piece by piece; the terminal does unless given.
    mark : str
        Marks what the run leaves, see `stacklib.utils.atomic_files.RUN_MARK`.
    """

    def __init__(
        self,
        notebook: Path,
        executed: Path,
        values: dict[str, Any],
        heard: Callable[[str], None] | None = None,
        mark: str = "",
    ) -> None:
        self.notebook, self.executed, self.values, self.heard = notebook, executed, values, heard
        self.mark = mark
        self._child: subprocess.Popen | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> str | None:
        """Run it; the error in one line if a cell failed.

        Raises
        ------
        IntegrationError
            When papermill is missing, or no kernel comes up.
        SaveError
            When the executed notebook cannot be written.
        """
        for _ in range(STARTS):
            with _ports() as ports:
                kind, text = self._run_once(ports)
            if kind != "unstarted" or self._stopped:
                break
        if kind == "missing":
            raise IntegrationError(f"{text} is missing; install it with: {INSTALL}")
        if kind == "unstarted":
            raise IntegrationError(
                f"no kernel for the notebook came up in {STARTS} attempts ({text}); "
                "look whether memory is short, and run it again"
            )
        if kind == "unwritten":
            raise SaveError(
                f"{self.executed.parent}: the notebook of the run cannot be written there ({text}). "
                "Check its free space and its permissions, or choose another folder for the results"
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

    def _run_once(self, ports: list[int]) -> tuple[str, str]:
        # A kernel that inherits these takes itself for one with a browser.
        variables = {k: v for k, v in os.environ.items() if k not in ("JPY_SESSION_NAME", "VOILA_KERNEL_ID")}
        variables[RUN_MARK] = self.mark
        if os.name == "nt":
            apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        else:
            # Ctrl-C reaches this process only, which can end the other one in order.
            apart = {"start_new_session": True}
        if self.heard:
            apart["stdout"] = subprocess.PIPE
            variables["PYTHONIOENCODING"] = "utf-8"
        sys.stdout.flush()
        with self._lock:
            if self._stopped:
                return "failed", "the run was stopped"
            child = self._child = subprocess.Popen(
                [sys.executable, "-c", CHILD],
                env=variables,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **apart,
            )
        order = [str(self.notebook), str(self.executed), self.values, ports, os.getpid(), OWN_ERRORS]
        listening = threading.Thread(target=_listen, args=(child, self.heard), daemon=True)
        try:
            if self.heard:
                listening.start()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(order).encode() + b"\n")
                child.stdin.flush()
            tail = _pass_through(child, silent=self.heard is not None)
            child.wait()
        except BaseException:
            _stop(child)
            raise
        finally:
            if self.heard:
                listening.join(PATIENCE)
            with contextlib.suppress(OSError):
                child.stdin.close()
            child.stderr.close()
        if not tail:
            ended = f"the process that runs the notebook ended with code {child.returncode}; run it again"
            return "failed", ended
        kind, text = json.loads(tail.splitlines()[0])
        return kind, text


@contextlib.contextmanager
def _ports() -> Iterator[list[int]]:
    """Ports for a kernel that no other kernel of this process has; none where it can do without."""
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


def _have_sockets() -> bool:
    """Whether the system has sockets with a file name, and room for one in its temporary folder."""
    longest = Path(tempfile.gettempdir()) / "stacklib-12345678" / "kernel-5"
    return hasattr(socket, "AF_UNIX") and os.name != "nt" and len(os.fsencode(longest)) <= LONGEST_SOCKET


def _listen(child: subprocess.Popen, heard: Callable[[str], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with child.stdout:
        while chunk := child.stdout.read1():
            heard(decoder.decode(chunk))


def _pass_through(child: subprocess.Popen, silent: bool = False) -> bytes:
    """Print what the process says on stderr; what stands behind a zero byte is its report."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := child.stderr.read1():
        words, zero, tail = chunk.partition(b"\0")
        if not silent:
            sys.stderr.write(decoder.decode(words))
            sys.stderr.flush()
        if zero:
            return tail + child.stderr.read()
    return b""


def _stop(child: subprocess.Popen) -> None:
    """End the process and its kernel; what they say while they end is of no use."""
    if os.name == "nt":
        child.terminate()
    try:
        if child.stdout:
            # Someone else reads it.
            child.stdin.close()
            child.wait(timeout=PATIENCE)
        else:
            # This closes the stdin of the process, which interrupts it.
            child.communicate(timeout=PATIENCE)
    except BaseException:
        # It takes too long, also for a user who pressed Ctrl-C again.
        child.kill()
        child.wait()

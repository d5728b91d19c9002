"""The process in which papermill runs one notebook; `stacklib.notebook.process` starts it.

It runs as a script and imports nothing of stacklib: a second more, and a hundred megabytes, for each run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> None:
    """Take an order from stdin, run papermill, and report on stderr behind a zero byte."""
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    notebook, executed, values, ports, parent, own_errors = json.loads(sys.stdin.buffer.readline())
    if os.name != "nt":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_interrupt_when_alone, daemon=True).start()
    try:
        report = _papermill(notebook, executed, values, ports, own_errors)
    except KeyboardInterrupt:
        if os.name != "nt" and os.getppid() != parent:
            # Nobody is left who could clear away half a notebook.
            Path(executed).unlink(missing_ok=True)
        raise
    sys.stdout.flush()
    sys.stderr.write("\0" + json.dumps(report) + "\n")
    sys.stderr.flush()


def _interrupt_when_alone() -> None:
    """Wait until stdin is closed: the run was stopped, or the process that started this one is gone."""
    while os.read(0, 1):
        pass
    if os.name == "nt":
        # Its kernel watches over it and ends, too.
        os._exit(1)
    os.kill(os.getpid(), signal.SIGINT)


def _papermill(
    notebook: str, executed: str, values: dict[str, Any], ports: list[int], own_errors: list[str]
) -> tuple[str, str]:
    """Run the notebook; how it ended, and what there is to say about it."""
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        return "missing", str(error.name)
    try:
        with _connection(ports) as connection:
            papermill.execute_notebook(
                notebook,
                executed,
                values,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=ERROR"],
                config=connection,
            )
    except papermill.PapermillExecutionError as error:
        # Errors of stacklib say it all themselves.
        return "failed", str(error.evalue) if error.ename in own_errors else f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return "failed", "the kernel of the notebook died, as it does when memory is short; give it more room"
    except RuntimeError as error:
        # So jupyter_client says that a kernel never answered.
        if "Kernel d" not in str(error):
            raise
        return "unstarted", str(error)
    except OSError as error:
        return "unwritten", error.strerror or str(error)
    return "done", ""


@contextlib.contextmanager
def _connection(ports: list[int]) -> Iterator[Any]:
    """Settings by which no other kernel can meet this one."""
    from traitlets.config import Config

    config = Config()
    if ports:
        names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        config.KernelManager.update(zip(names, ports, strict=True))
        # Else it looks for ports of its own.
        config.KernelManager.cache_ports = False
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="stacklib-", ignore_cleanup_errors=True) as room:
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = str(Path(room) / "kernel")
        config.KernelManager.connection_file = str(Path(room) / "kernel.json")
        yield config


if __name__ == "__main__":
    main()

"""Run commands and jobs in separate processes: wall time, CPU time and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Folder of compiled code in the scratch folder.
COMPILED = "compiled"


@dataclass(frozen=True)
class Process:
    """Wall seconds, CPU seconds, peak bytes and output of a process."""

    wall: float
    cpu: float
    peak: int
    output: str


def run(command: list[str], scratch: Path, **variables: str) -> Process:
    """Run a command to its end, with additional environment variables.

    Raises
    ------
    RuntimeError
        When it fails.
    """
    report, log = scratch / "process.json", scratch / "process.log"
    environment = os.environ | variables
    # Byte code is kept, as it is for everybody who does not forbid it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    launcher = [sys.executable, "-I", "-S", str(HERE / "launch.py"), str(report), str(log)]
    subprocess.run([*launcher, *command], env=environment, check=True)
    output = log.read_text(errors="replace")
    measured = json.loads(report.read_text())
    if measured.pop("status") != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return Process(**measured, output=output)


def run_job(name: str, scratch: Path, compiled: Path, **arguments: object) -> Process:
    """Run a job of `job.py`, with its compiled code kept in the folder `compiled`."""
    command = [sys.executable, str(HERE / "job.py"), name, json.dumps(arguments, default=str)]
    return run(command, scratch, NUMBA_CACHE_DIR=str(compiled))


def peak_memory() -> int:
    """Return the peak memory of this process in bytes; 0 if the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)

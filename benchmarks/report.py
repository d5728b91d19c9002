"""Tables in Markdown, the machine, and the generated part of README.md."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import siril
from contenders import ccdproc_version, processors

import stacklib
from stacklib.utils.labels import counted

BEGIN, END = "<!-- begin: last run -->", "<!-- end: last run -->"
#: Markers of the part about the presets.
PRESETS = "<!-- begin: presets -->", "<!-- end: presets -->"


@dataclass(frozen=True)
class Target:
    """A target: what is promised, what was measured, whether it is met (None: not measured)."""

    text: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """Return the verdict in one word."""
        return "not measured" if self.met is None else "ok" if self.met else "missed"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Return processors, memory and versions in words."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = {
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "stacklib": stacklib.__version__,
        "Siril": siril.version() or "not installed",
        "ccdproc": ccdproc_version() or "not installed",
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    cores = counted(processors(), "core")
    hardware = f"{cores} of {_processor()}, {gigabytes:.0f} GB of memory, {platform.system()}"
    return f"{hardware}. {listed}."


def _processor() -> str:
    """Return name and family of the processor."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in information.read_text().splitlines() if ":" in line)
    known = {name.strip(): value.strip() for name, value in pairs}
    return f"{known.get('model name', platform.machine())} (family {known.get('cpu family', 'unknown')})"


def write_readme(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace the text between the markers.

    Raises
    ------
    RuntimeError
        When they are not there.
    """
    content = path.read_text(encoding="utf-8")
    before, found_begin, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise RuntimeError(f"{path}: has no lines {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")

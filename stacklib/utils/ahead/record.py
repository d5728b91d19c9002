"""The record of the steps for which the compiled code is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

from stacklib.errors import SaveError
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.compiled import RECORD, kept_in, sources_of_code

__all__ = ["add_steps", "missing_steps"]

#: Names of steps that this process has found in the record, or written there.
_seen: set[str] = set()


def missing_steps(names: Iterable[str]) -> set[str]:
    """Return those of the steps whose code is not known to be kept."""
    missing = set(names) - _seen
    if missing and (folder := kept_in()):
        _seen.update(missing & _read(folder))
    return missing - _seen


def add_steps(names: Iterable[str]) -> None:
    """Note that the code of these steps is kept now."""
    folder, names = kept_in(), set(names)
    _seen.update(names)
    if folder is None:
        return
    content = {"made_by": _made_by(), "steps": sorted(_read(folder) | names)}
    # Without the record it is looked for again.
    with contextlib.suppress(SaveError):
        replace_atomically(folder / RECORD, json.dumps(content).encode())


def _read(folder: Path) -> set[str]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if found["made_by"] == _made_by():
            return set(found["steps"])
    return set()


@cache
def _made_by() -> str:
    """Return a checksum of what decides whether kept code can be used: versions, processor and sources."""
    known: list[Any] = [numba.__version__, llvm.llvm_version_info, platform.python_version()]
    known += [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    # The cache looks at the time of a source, even if its content is as it was.
    known += [source.stat().st_mtime_ns for source in sources_of_code()]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

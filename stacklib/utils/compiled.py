"""Compiled functions, and a cache of them that is never out of date.

Numba keeps compiled code beside each source file and compiles again when that file changes. It does not
notice when a function or a constant from another file changes, which was compiled in. So when any file
with compiled functions has changed, all of the kept code is forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numba

from stacklib.utils.package import FOLDER

__all__ = ["compiled"]


def compiled(function: Callable) -> Callable:
    """Compile a function at its first call; it runs without the interpreter's lock."""
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


def _forget_outdated(package: Path) -> None:
    stamp_file = package / "__pycache__" / "compiled.stamp"
    stamp = hashlib.sha256(numba.__version__.encode())
    for source in sorted(package.rglob("*.py")):
        content = source.read_bytes()
        if b"@compiled" in content:
            stamp.update(source.relative_to(package).as_posix().encode() + content)
    with contextlib.suppress(OSError):
        if stamp_file.exists() and stamp_file.read_text() == stamp.hexdigest():
            return
        for kept in package.rglob("__pycache__"):
            for path in [*kept.glob("*.nbi"), *kept.glob("*.nbc")]:
                path.unlink(missing_ok=True)
        stamp_file.parent.mkdir(exist_ok=True)
        stamp_file.write_text(stamp.hexdigest())


_forget_outdated(FOLDER)

"""Numba compilation with a cache that is never stale.

Numba caches compiled code next to each source file and recompiles when that file changes. It misses changes
to functions and constants inlined from other files. So when any file with compiled functions changes, the
whole cache is deleted.
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
    """Compile a function on its first call. It runs without the GIL."""
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

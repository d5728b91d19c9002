"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["checksum_if_readable", "file_checksum"]


def file_checksum(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def checksum_if_readable(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, or an empty string if it cannot be read.

    Devices and pipes are not read: they may have no end.
    """
    try:
        return file_checksum(path) if path.is_file() else ""
    except (OSError, ValueError):
        # Also of a path with a NUL.
        return ""

"""Version and folder of the installed package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "VERSION"]

VERSION = "0.1.0"
FOLDER = Path(__file__).parents[1]

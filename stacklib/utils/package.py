"""Version and folder of the installed package, and the folder for what can be made again at any time.

The latter holds measurements of frames and compiled code.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "FOLDER", "VERSION", "cache_folder"]

VERSION = "0.1.0"
FOLDER = Path(__file__).parents[1]
#: Environment variable that names another cache folder.
CACHE_VARIABLE = "STACKLIB_CACHE"


def cache_folder() -> Path:
    """Return the cache folder of stacklib, which need not exist: STACKLIB_CACHE, or the one of the system."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    # Here, because what only has a version asks for no folder.
    import platformdirs

    return platformdirs.user_cache_path("stacklib", False)

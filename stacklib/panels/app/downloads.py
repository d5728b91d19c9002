"""Links that download results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["Downloads"]

#: Bytes of a message.
PART = 4 << 20


class Downloads(anywidget.AnyWidget):
    """A list of files to download. Nothing but these files is ever sent.

    Parameters
    ----------
    files : sequence of Path
        The files.
    """

    _esm = Path(__file__).parent / "downloads.js"
    files = traitlets.List(traitlets.Dict()).tag(sync=True)

    def __init__(self, files: Sequence[Path]) -> None:
        self._paths = list(files)
        super().__init__(files=[{"name": path.name, "size": path.stat().st_size} for path in self._paths])
        self.on_msg(self._answer)

    def _answer(self, _: Any, question: dict[str, Any], buffers: list[memoryview]) -> None:
        """Send a part of a file."""
        file, part = int(question["file"]), int(question["part"])
        try:
            with self._paths[file].open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(part * PART)
                data = stream.read(PART)
        except OSError as error:
            self.send({"file": file, "problem": error.strerror or str(error)})
            return
        self.send({"file": file, "part": part, "count": max(1, -(-size // PART))}, [data])

"""Read an executed notebook: what it left for programs, its warnings, and the error that ended it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stacklib.utils.texts import path_from_utf8

__all__ = ["NOTE", "RESULT_MIME", "Executed"]

#: Type under which the list of files is stored in a saved notebook, for programs that run it.
RESULT_MIME = "application/vnd.stacklib.result+json"
#: Start of a stacklib warning in a notebook.
NOTE = "Note: "


@dataclass
class Executed:
    """What a notebook left.

    `result` is empty if the run has none. It has the paths of the files, a summary in a few lines, and the
    numbers. `error` is empty if no cell failed.
    """

    result: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def files(self) -> list[Path]:
        """The files of the result, the master first."""
        return [Path(path_from_utf8(file)) for file in self.result.get("files", [])]

    @classmethod
    def read(cls, notebook: Path) -> Executed:
        """Read a notebook file. Raises `OSError` or `ValueError` if it cannot be read."""
        found = cls()
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                found._add(output)
        return found

    def _add(self, output: dict[str, Any]) -> None:
        self.result = output.get("data", {}).get(RESULT_MIME, self.result)
        if output.get("name") == "stderr":
            lines = "".join(output["text"]).splitlines()
            notes = [line.removeprefix(NOTE) for line in lines if line.startswith(NOTE)]
            self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]
        if output.get("output_type") == "error":
            self.error = f"{output['ename']}: {output['evalue']}"

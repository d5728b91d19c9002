"""Siril's stacking with the same settings, by its command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contenders import files, processors
from processes import Process, run

#: Our rules by Siril's names.
RULES = {"sigma": "sigma", "winsorized_sigma": "winsorized"}
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}

SCRIPT = """requires 1.0.0
set32bits
setext fit
setcpu {threads}
setmem 0.9
cd {folder}
stack fr rej {rule} 3 3 {normalization} -out=integration
close
"""


def version() -> str:
    """Return the version of siril-cli; empty if it is not installed."""
    if shutil.which("siril-cli") is None:
        return ""
    found = subprocess.run(["siril-cli", "--version"], capture_output=True, text=True, check=False).stdout
    return found.strip().removeprefix("siril ")


@dataclass(frozen=True)
class Stacked:
    """One run: seconds of the stacking step, the process, and the result."""

    step: float
    process: Process
    image: Path


class Siril:
    """The frames of a folder as a Siril sequence in a scratch folder."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = (scratch / f"siril_{folder.name}").resolve()
        self.home = self.folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(files(folder), 1):
            link = self.folder / f"fr_{number:05d}.fit"
            link.unlink(missing_ok=True)
            link.hardlink_to(path)

    def stack(self, rule: str, normalized: bool = True, known: bool = False) -> Stacked:
        """Stack; `known` keeps the measurements of the previous run, which are in the sequence file."""
        if not known:
            (self.folder / "fr_.seq").unlink(missing_ok=True)
        image = self.folder / "integration.fit"
        image.unlink(missing_ok=True)
        script = self.folder / "run.ssf"
        script.write_text(
            SCRIPT.format(
                threads=processors(),
                folder=self.folder,
                rule=RULES[rule],
                normalization="-norm=addscale" if normalized else "-nonorm",
            )
        )
        command = ["siril-cli", "-d", str(self.folder), "-s", str(script)]
        process = run(command, self.folder, HOME=str(self.home), LC_ALL="C")
        return Stacked(step_seconds(process.output), process, image)


def step_seconds(log: str) -> float:
    """Return the execution time of the stacking step from a Siril log.

    Raises
    ------
    RuntimeError
        If the log has no execution time.
    """
    found = re.search(r"^log: Execution time: (.*)$", log, re.MULTILINE)
    parts = re.findall(r"([0-9.]+) (h|min|ms|s)\b", found[1]) if found else []
    if not parts:
        raise RuntimeError(f"The log of Siril has no execution time; its end reads:\n{log[-2000:]}")
    return sum(float(value) * SECONDS[unit] for value, unit in parts)

"""The record of its run that a saved image holds: recipe, frames with their checksums, versions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from astropy.io import fits as astropy_fits

from stacklib.errors import FrameError, RecipeError
from stacklib.formats import fits, xisf

__all__ = ["InputFile", "RunRecord", "read_recipe", "read_run"]

#: Longest HISTORY line: one of this length may go on in the middle of a word.
WIDTH = 72


@dataclass(frozen=True)
class InputFile:
    """A file that a run has read.

    Attributes
    ----------
    name : str
        Its file name.
    places : tuple of Path
        Where it may lie: as seen from the result, and where it lay during the run.
    sha256 : str
        Its checksum; empty where the file had changed by the time the result was saved.
    """

    name: str
    places: tuple[Path, ...]
    sha256: str


@dataclass(frozen=True)
class RunRecord:
    """All that repeats a run.

    Attributes
    ----------
    path : Path
        The file that holds the record.
    recipe : dict
        The recipe by name.
    frames : tuple of InputFile
        The frames that were given, in order.
    weight_file : InputFile or None
        The table of weights, for ``weights: csv``.
    region : tuple of int
        Left, top, width, height of the part that was integrated.
    versions : dict of str to str
        Versions of stacklib, numpy and numba.
    """

    path: Path
    recipe: dict[str, Any]
    frames: tuple[InputFile, ...]
    weight_file: InputFile | None
    region: tuple[int, int, int, int]
    versions: dict[str, str]


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe of a saved image, by name.

    Parameters
    ----------
    path : str or Path
        An XISF file of a result, or a FITS file: of that the HISTORY is read.

    Raises
    ------
    FrameError
        When the file cannot be read.
    RecipeError
        When it holds no recipe.
    """
    path = Path(path).expanduser().absolute()
    if _is_xisf(path):
        found = yaml.safe_load(_properties(path)["stacklib:Recipe"])
    else:
        fits.open_image(path)
        found = _from_history([str(line) for line in astropy_fits.getheader(path).get("HISTORY", [])])
    if not isinstance(found, dict) or not found:
        raise _no_record(path)
    return found


def read_run(path: str | Path) -> RunRecord:
    """The record of a saved image.

    Parameters
    ----------
    path : str or Path
        Any XISF image of a result. For a FITS image the XISF image of the same name beside it is read:
        FITS has no room for the record.

    Raises
    ------
    FrameError
        When the file cannot be read.
    RecipeError
        When it holds no record.
    """
    path = Path(path).expanduser().absolute()
    if not _is_xisf(path):
        beside = path.with_suffix(".xisf")
        if path.exists() and not beside.exists():
            raise FrameError(
                f"{path}: a FITS file does not tell where its frames lie, and {beside.name}, which does, is "
                "not beside it; copy it there. The recipe alone: Recipe.from_result"
            )
        path = beside if path.exists() else path
    held = _properties(path)
    try:
        run, frames = json.loads(held["stacklib:Run"]), json.loads(held["stacklib:Frames"])
        table = run.get("weight_file")
        return RunRecord(
            path,
            yaml.safe_load(held["stacklib:Recipe"]),
            tuple(_input(path, frame) for frame in frames),
            _input(path, table) if table else None,
            tuple(int(value) for value in run["region"]),  # type: ignore[arg-type]
            {name: str(run[name]) for name in ("stacklib", "numpy", "numba")},
        )
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path}: its record of the run is damaged ({type(error).__name__}: {error}); "
            "name another image of the same result"
        ) from error


def _is_xisf(path: Path) -> bool:
    return path.name.lower().endswith(".xisf")


def _properties(path: Path) -> dict[str, Any]:
    held = xisf.open_image(path).properties
    if not all(f"stacklib:{name}" in held for name in ("Recipe", "Run", "Frames")):
        raise _no_record(path)
    return held


def _no_record(path: Path) -> RecipeError:
    return RecipeError(
        f"{path}: holds no recipe; name an image that stacklib has saved, such as 20210815_M101_0000.xisf"
    )


def _input(result: Path, entry: dict[str, Any]) -> InputFile:
    lay = Path(entry["path"])
    # A result may have been made on Windows.
    name = PureWindowsPath(entry["path"]).name
    relative = entry.get("relative")
    places = [result.parent / relative] if relative else []
    return InputFile(name, (*places, lay), str(entry["sha256"]))


def _from_history(lines: list[str]) -> dict[str, Any]:
    """The parameters among the lines ``name = value``, which end where the frames begin."""
    texts: list[str] = []
    previous = ""
    for line in lines:
        if line.startswith("    ") and texts:
            texts[-1] += ("" if len(previous) == WIDTH else " ") + line.strip()
        else:
            texts.append(line)
        previous = line
    start = next((i for i, text in enumerate(texts) if text.startswith("rejection rule: ")), len(texts))
    found: dict[str, Any] = {}
    for text in texts[start + 1 :]:
        name, equals, value = text.partition(" = ")
        if not equals:
            break
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """A value of the HISTORY: a number, a switch or a text."""
    if text in ("true", "false", "''"):
        return {"true": True, "false": False, "''": ""}[text]
    try:
        return float(text)
    except ValueError:
        return text

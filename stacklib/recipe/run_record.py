"""Record of the run in a saved image: recipe, frames with checksums, versions."""

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

#: Length of a HISTORY line. A line of this length may break off within a word.
WIDTH = 72


@dataclass(frozen=True)
class InputFile:
    """A file that a run read."""

    name: str  # its file name
    places: tuple[Path, ...]  # possible places: relative to the result, and the place during the run
    sha256: str  # empty if the file changed before the result was saved


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything needed to repeat a run."""

    path: Path  # the file with the record
    recipe: dict[str, Any]  # by parameter name
    frames: tuple[InputFile, ...]  # the given frames, in order
    weight_file: InputFile | None  # the table of weights, for ``weights: csv``
    region: tuple[int, int, int, int]  # left, top, width and height of the integrated region
    versions: dict[str, str]  # of stacklib, numpy and numba


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe of a saved XISF or FITS image by parameter name. In FITS it is in the HISTORY.

    `FrameError` is raised if the file cannot be read, `RecipeError` if it has no recipe.
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
    """Return the record of the run in a saved image.

    A FITS image has no record: the XISF image of the same name beside it is read. `FrameError` is raised if
    the file cannot be read, `RecipeError` if it has no record.
    """
    path = Path(path).expanduser().absolute()
    if not _is_xisf(path):
        beside = path.with_suffix(".xisf")
        if path.exists() and not beside.exists():
            raise FrameError(
                f"{path}: a FITS file has no list of its frames; copy {beside.name}, which has one, beside "
                "it, or read the recipe alone with Recipe.from_result"
            )
        path = beside if path.exists() else path
    held = _properties(path)
    try:
        run, frames = json.loads(held["stacklib:Run"]), json.loads(held["stacklib:Frames"])
        table = run.get("weight_file")
        return RunRecord(
            path=path,
            recipe=yaml.safe_load(held["stacklib:Recipe"]),
            frames=tuple(_input(path, frame) for frame in frames),
            weight_file=_input(path, table) if table else None,
            region=tuple(int(value) for value in run["region"]),  # type: ignore[arg-type]
            versions={name: str(run[name]) for name in ("stacklib", "numpy", "numba")},
        )
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"{path}: its record of the run is damaged ({type(error).__name__}: {error}); "
            "use another image of the same result"
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
    # The result may come from Windows.
    name = PureWindowsPath(entry["path"]).name
    relative = entry.get("relative")
    places = [result.parent / relative] if relative else []
    return InputFile(name, (*places, lay), str(entry["sha256"]))


def _from_history(lines: list[str]) -> dict[str, Any]:
    """Return the parameters from the lines ``name = value`` before the list of frames."""
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
    """Convert a value of the HISTORY to a number, switch or text."""
    if text in ("true", "false", "''"):
        return {"true": True, "false": False, "''": ""}[text]
    try:
        return float(text)
    except ValueError:
        return text

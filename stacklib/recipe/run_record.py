"""Record of the run in a saved image: recipe, frames with checksums, versions."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from stacklib.errors import FrameError, RecipeError
from stacklib.formats import xisf
from stacklib.frames.finding import ENDINGS, expanded
from stacklib.utils.labels import quoted
from stacklib.utils.parameters import parse_yaml

__all__ = ["DRIZZLE", "DRIZZLE_VERSIONS", "InputFile", "RunRecord", "read_recipe", "read_run"]

#: Length of a HISTORY line. A line of this length may break off within a word.
WIDTH = 72
#: Longest name of a version.
LONGEST_VERSION = 40
#: Most digits of a whole number in it.
LONGEST_WHOLE = 15
GZIP = b"\x1f\x8b"
#: Property with the record of a drizzled image, and the versions in it.
DRIZZLE = "stacklib:Drizzle"
DRIZZLE_VERSIONS = ("stacklib", "drizzle", "numpy", "numba")


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
    masks: tuple[InputFile, ...]  # the user's masks of frames
    region: tuple[int, int, int, int]  # left, top, width and height of the integrated region
    versions: dict[str, str]  # of stacklib, numpy and numba
    drizzle: dict[str, Any] | None = None  # the record of a drizzled image; its frames are all files read


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the recipe of a saved XISF or FITS image by parameter name. In FITS it is in the HISTORY.

    `FrameError` is raised if the file cannot be read, `RecipeError` if it has no recipe.
    """
    path = _path(path)
    if _is_xisf(path):
        found = _recipe(path, _properties(path))
    else:
        # Here and below, because XISF files do without astropy.
        from stacklib.formats import fits

        fits.open_image(path).close()
        found = _from_history(_history(path))
    if not found:
        raise _no_record(path)
    return found


def read_run(path: str | Path) -> RunRecord:
    """Return the record of the run in a saved image.

    A FITS image has no record: the XISF image of the same name beside it is read. `FrameError` is raised if
    the file cannot be read, `RecipeError` if it has no record.
    """
    path = _path(path)
    if not _is_xisf(path):
        if path.exists() and not path.name.lower().endswith(ENDINGS):
            raise _no_record(path)
        beside = path.with_suffix(".xisf")
        if path.exists() and not beside.exists():
            raise FrameError(
                f"{path}: a FITS file has no list of its frames; copy {beside.name}, which has one, beside "
                "it, or read the recipe alone with Recipe.from_result"
            )
        path = beside if path.exists() else path
    held = _properties(path)
    try:
        if DRIZZLE in held:
            return _drizzle_record(path, json.loads(held[DRIZZLE]))
        run, frames = json.loads(held["stacklib:Run"]), json.loads(held["stacklib:Frames"])
        table = run.get("weight_file")
        return RunRecord(
            path=path,
            recipe=_recipe(path, held),
            frames=tuple(_input(path, frame) for frame in frames),
            weight_file=_input(path, table) if table else None,
            masks=tuple(_input(path, mask) for mask in run.get("masks", [])),
            region=_region(run["region"]),
            versions={name: str(run[name])[:LONGEST_VERSION] for name in ("stacklib", "numpy", "numba")},
        )
    except RecipeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {quoted(str(error))}") from error


def _drizzle_record(path: Path, run: dict[str, Any]) -> RunRecord:
    """Return the record of a drizzled image. Files that several steps read are in it once for each."""
    table = run.get("weight_file")
    files = [*run["frames"], *run["registered"], *run["data"]]
    width, height = run["reference"]
    return RunRecord(
        path=path,
        recipe=run["integration"] or {},
        frames=tuple(_input(path, entry) for entry in files),
        weight_file=_input(path, table) if table else None,
        masks=tuple(_input(path, mask) for mask in run.get("masks", [])),
        region=_region([0, 0, width, height]),
        versions={name: str(run[name])[:LONGEST_VERSION] for name in DRIZZLE_VERSIONS},
        drizzle=run,
    )


def _path(path: str | Path) -> Path:
    """Return an absolute path; `FrameError` if no file can have it."""
    if "\0" in str(path):
        raise FrameError(f"{quoted(str(path))}: is not the name of a file; name a saved image")
    return expanded(path).absolute()


def _recipe(path: Path, held: dict[str, Any]) -> dict[str, Any]:
    if DRIZZLE in held:
        try:
            return dict(json.loads(held[DRIZZLE])["integration"] or {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(path, f"{type(error).__name__}: {quoted(str(error))}") from error
    text = held["stacklib:Recipe"]
    if not isinstance(text, str):
        raise _damaged(path, f"its recipe is {quoted(text)}, expected text")
    return parse_yaml(text, f"{path}: its recipe")


def _region(values: Any) -> tuple[int, int, int, int]:
    """Return a region of a record as whole numbers. JSON has 1e400, and Python makes infinity of it."""
    left, top, width, height = (value if math.isfinite(value) else -1 for value in values)
    return int(left), int(top), int(width), int(height)


def _damaged(path: Path, problem: str) -> RecipeError:
    return RecipeError(
        f"{path}: its record of the run is damaged ({problem}); use another image of the same result"
    )


def _is_xisf(path: Path) -> bool:
    return path.name.lower().endswith(".xisf")


def _properties(path: Path) -> dict[str, Any]:
    held = xisf.open_image(path).properties
    if DRIZZLE not in held and not all(f"stacklib:{name}" in held for name in ("Recipe", "Run", "Frames")):
        raise _no_record(path)
    return held


def _no_record(path: Path) -> RecipeError:
    return RecipeError(
        f"{path}: is no image with a recipe inside; name one that stacklib has saved, such as "
        "20210815_M101_0000.xisf"
    )


def _input(result: Path, entry: dict[str, Any]) -> InputFile:
    lay = Path(entry["path"])
    # The result may come from Windows.
    name = PureWindowsPath(entry["path"]).name
    relative = entry.get("relative")
    places = [result.parent / relative] if relative else []
    return InputFile(name, (*places, lay), str(entry["sha256"]))


def _history(path: Path) -> list[str]:
    """Return the HISTORY of a FITS file. Its own cards are read, without the checks of a whole header."""
    from stacklib.formats.fits_header import CARD, header_bytes

    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    with gzip.open(path) if packed else path.open("rb") as stream:
        header = header_bytes(stream, path, True) or b""
    cards = (header[start : start + CARD] for start in range(0, len(header), CARD))
    return [card[8:].decode("ascii", "replace").rstrip() for card in cards if card.startswith(b"HISTORY ")]


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
    """Convert a value of the HISTORY to a number, switch, text or list of texts."""
    if text in ("true", "false", "''"):
        return {"true": True, "false": False, "''": ""}[text]
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            return found if all(isinstance(one, str) for one in found) else text
    try:
        # Whole numbers may be text as well, such as a choice or the name of a frame.
        return int(text) if text.isdecimal() and len(text) <= LONGEST_WHOLE else float(text)
    except ValueError:
        return text

"""What must hold for a damaged file, whatever is in it."""

from __future__ import annotations

import functools
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from fuzz_inputs import COUNTS, KINDS, Input
from image_files import read_all
from xisf import XISF

import stacklib as sl
from stacklib.errors import StacklibError
from stacklib.formats.xdrz import read_xdrz
from stacklib.formats.xisf import open_image as open_xisf
from stacklib.formats.xisf import write_image
from stacklib.frames.frame import Frame
from stacklib.recipe.recipe import Job

#: What a check finds, and what compares the pixels with those of another reader.
Checked = tuple[list[str], Callable[[], list[str]]]
#: Seconds of processor time for any input.
SECONDS = 2.0
#: Longest error and longest note, without the path of the file.
LONGEST, LONGEST_NOTE = 300, 400
MOST_NOTES = 60


def problems(made: Input, folder: Path) -> tuple[str, list[str]]:
    """Check one input in an empty folder.

    Returns
    -------
    str
        What became of it: ``read`` or ``refused``.
    list of str
        What is wrong, each with a word for its kind first.
    """
    path = folder / f"input{KINDS[made.kind].ending}"
    path.write_bytes(made.content)
    if made.kind == "headers":
        _prepare()
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare: Callable[[], list[str]] = list
        try:
            end, (found, compare) = "read", _CHECKS[KINDS[made.kind].check](made, path)
        except StacklibError as error:
            end, found = "refused", _of_message(str(error), path)
        except Exception as error:
            end, found = "foreign", [f"foreign: {type(error).__name__}: {str(error)[:200]}"]
        seconds = time.process_time() - started
        if seconds > SECONDS:
            found.append(f"slow: {seconds:.1f} s")
        # The time of other readers is not ours.
        return end, found + compare()


def _of_message(text: str, path: Path) -> list[str]:
    """Check that an error is one line that names the file and what to do."""
    found = []
    if path.name not in text:
        found.append(f"message: does not name the file: {text[:300]}")
    short = text.replace(str(path), path.name)
    if len(short) > LONGEST:
        found.append(f"message: has {len(short)} characters: {short[:400]}")
    if not text.isprintable():
        found.append(f"message: not one printable line: {text[:300]!r}")
    if ";" not in text and "expected" not in text and ". " not in text:
        found.append(f"message: no remedy: {text[:300]}")
    return found


def _of_notes(notes: list[str]) -> list[str]:
    found = [f"note: {note[:500]!r}" for note in notes if len(note) > LONGEST_NOTE or not note.isprintable()]
    return found + ([f"note: {len(notes)} of them"] if len(notes) > MOST_NOTES else [])


# Images -----------------------------------------------------------------------------------------------


@functools.cache
def _undamaged(kind: str, origin: str) -> tuple[tuple[int, ...], bytes]:
    content = KINDS[kind].good()[origin]
    path = Path(_folder()) / f"good{KINDS[kind].ending}"
    if kind == "fits.gz":
        path = path.with_suffix("")
    path.write_bytes(content)
    pixels = read_all(Frame(path, quiet=True).source)
    return pixels.shape, pixels.tobytes()


@functools.cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="stacklib-fuzz-")


def _image(made: Input, path: Path) -> Checked:
    """Read a frame and its header; the pixels are those of the undamaged file or of another reader."""
    frame = Frame(path, quiet=True)
    facts = (frame.exposure, frame.filter, frame.object, frame.camera, frame.gain, frame.temperature)
    repr((frame, facts, frame.cfa_pattern, frame.date, frame.date_end, frame.noise_keywords))
    found = _of_notes(frame.notes)
    pixels = frame.read()

    def compare() -> list[str]:
        if made.same:
            shape, expected = _undamaged(made.kind, made.origin)
            alike = pixels.shape == shape and pixels.tobytes() == expected
            return [] if alike else [f"pixels: differ from the undamaged file, {made.origin}"]
        if made.kind == "fits" and made.origin != "parts":
            return _unlike(frame, pixels, _by_astropy(path))
        return _unlike(frame, pixels, _by_xisf(path)) if made.kind == "xisf" else []

    return found, compare


def _unlike(frame: Frame, pixels: np.ndarray, others: list[np.ndarray]) -> list[str]:
    """Compare with what another reader finds, if it finds images of this shape."""
    with np.errstate(over="ignore"):
        # Doubles beyond the range of a float are infinite here.
        others = [other.astype(np.float32) for other in others]
    alike = [other.reshape(pixels.shape) for other in others if other.size == pixels.size]
    ours = pixels.astype(np.float64) * frame.full_scale
    scale = np.nanmax(np.abs(ours), initial=1e-30, where=np.isfinite(ours))
    if alike and not any(np.allclose(ours, o, rtol=1e-5, atol=1e-6 * scale, equal_nan=True) for o in alike):
        return [f"pixels: differ from another reader, {ours.ravel()[:4]} and {alike[0].ravel()[:4]}"]
    return []


def _by_astropy(path: Path) -> list[np.ndarray]:
    """Return all images of a FITS file as astropy reads them. None if it cannot."""
    head = path.read_bytes()
    if re.search(rb"NAXIS   = *[0-9]{4}", head) or any(
        head.count(name) > 1 for name in (b"BZERO ", b"BSCALE")
    ):
        # It would count the axes one by one. Of two values that differ we take the first, with a note.
        return []
    try:
        with np.errstate(all="ignore"), fits.open(path, memmap=False) as units:
            # Of 16-bit integers it takes BSCALE as a float32: 0 times 1e300 is NaN there, and 0 here.
            if any(not np.isfinite(np.float32(unit.header.get("BSCALE", 1))) for unit in units):
                return []
            return [np.asarray(unit.data, np.float64) for unit in units if getattr(unit, "is_image", False)]
    except Exception:  # it raises almost anything, which says nothing about us
        return []


def _by_xisf(path: Path) -> list[np.ndarray]:
    """Return the image of an XISF file as the xisf package reads it, if it knows all that is said of it."""
    head = path.read_bytes()[:4096].lower()
    if any(word in head for word in (b"byteorder", b"pixelstorage", b"subblocks", b"bounds", b"<data")):
        return []
    try:
        image = XISF(str(path)).read_image(0).transpose(2, 0, 1)
    except Exception:  # it raises almost anything, which says nothing about us
        return []
    return [np.asarray(image, np.float64)]


# Recipes ----------------------------------------------------------------------------------------------


def _recipe(made: Input, path: Path) -> Checked:
    """Load a recipe or job file; what is read can be written and read again."""
    job = Job.load(path)
    again = path.with_name("again.yaml")
    job.recipe.save(again)
    same = Job.load(again).recipe == job.recipe
    return [] if same else ["recipe: is another one after it was saved"], list


# Headers ----------------------------------------------------------------------------------------------


def _headers(made: Input, path: Path) -> Checked:
    """Integrate frames with odd keywords in one of them or in all, and save as XISF and FITS."""
    lines = [line.split("\t") for line in made.content.decode().splitlines()]
    cards = [(name, _value(text), "") for name, text in lines]
    named = {name for name, *_ in cards}
    usual = [card for card in (("OBJECT", "M 1", ""), ("EXPTIME", 30.0, "")) if card[0] not in named]
    paths = []
    for i in range(4):
        odd = cards if i == 1 or len(cards) % 2 else []
        image = COUNTS[0] / np.float32(9000) + np.float32(0.001 * i)
        paths.append(path.with_name(f"{path.stem}_{i}.xisf"))
        write_image(paths[-1], image.astype(np.float32), image_id="frame", keywords=[*usual, *odd])
    frames = sl.open_frames(paths)
    repr((frames, frames.table))
    result = sl.integrate(frames, sl.Recipe(rejection="none", weights="none"), progress=False)
    result.save(path.parent / "out", fits=True)
    saved = sorted((path.parent / "out").glob("*.*fits")) + sorted((path.parent / "out").glob("*.xisf"))
    for one in saved:
        Frame(one, quiet=True).read()
    found = [] if len(saved) == 6 else [f"save: {len(saved)} images instead of 6"]
    if not np.array_equal(read_all(open_xisf(_master(saved))), result.image):
        found.append("save: the saved pixels are others")
    return found, list


@functools.cache
def _prepare() -> None:
    """Compile what integrates frames, which takes its time once."""
    with tempfile.TemporaryDirectory(prefix="stacklib-fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _headers(Input("headers", "", b"GAIN\t1", True), Path(folder) / "input.txt")


def _master(saved: list[Path]) -> Path:
    return next(path for path in saved if path.suffix == ".xisf" and "rejection" not in path.name)


def _value(text: str) -> str | float:
    """Return a number where the text is one: it is written without quotes then."""
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except (ValueError, OverflowError):
        return text.strip("'")


def _drizzle_data(made: Input, path: Path) -> Checked:
    data = read_xdrz(path)
    found = [f"note: {note}" for note in data.notes if len(note) > LONGEST_NOTE or not note.isprintable()]
    if any("/" in name or "\\" in name for name in (*data.source_names, data.target_name)):
        found.append("path: a name with folders")
    for channel in range(len(data.maps)):
        plane = data.rejection(channel)
        if plane is None or plane.shape != (data.height, data.width):
            found.append("map: of another size")
    if not np.isfinite(np.linalg.inv(data.corner_matrix)).all():
        found.append("matrix: has no inverse")
    return found, list


_CHECKS = {"image": _image, "recipe": _recipe, "headers": _headers, "drizzle data": _drizzle_data}

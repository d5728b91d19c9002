"""Read and write drizzle data of PixInsight, ``.xdrz`` 1.0: XML beside each registered frame.

It tells where the pixels of an unregistered frame lie in the reference geometry and, once the registered
frames were integrated, how the frame is normalized and weighted, and which of its samples were rejected.

Files may come from untrusted sources, so they are validated as the headers of XISF files are. Paths in them
are those of another computer: only their file names are used.
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.source import clean_text, regular_file_size, unreadable
from stacklib.formats.xisf import parse_xml
from stacklib.formats.xisf_blocks import (
    EXPANSION,
    Compression,
    StoredBlock,
    decode_text,
    local_name,
    refuse,
)
from stacklib.formats.xisf_write import written
from stacklib.utils.labels import listed, quoted

__all__ = [
    "LARGE_SCALE_HIGH",
    "LARGE_SCALE_LOW",
    "RANGE_HIGH",
    "RANGE_LOW",
    "REJECTED_HIGH",
    "REJECTED_LOW",
    "DrizzleData",
    "read_xdrz",
    "write_xdrz",
]

#: Bits of a rejection map, for each sample in the reference geometry. Any of them means rejected.
REJECTED_HIGH, REJECTED_LOW, RANGE_HIGH, RANGE_LOW = 1, 2, 4, 8
LARGE_SCALE_HIGH, LARGE_SCALE_LOW = 0x10, 0x20

ENDING = ".xdrz"
NAMESPACE = "http://www.pixinsight.com/xdrz"
#: Largest file: the rejection map of 100 megapixels in color, which compression cannot shrink, and more.
MAX_SIZE = 512 * 2**20
#: Largest width and height of the reference, number of channels, and length of a text.
LARGEST_SIDE, MOST_CHANNELS, LONGEST_TEXT = 10**6, 16, 2**16
#: Bytes of a subblock that is written, and most subblocks that are read.
SUBBLOCK, MOST_SUBBLOCKS = 2**26, 10_000

#: Elements in the order in which they are written. Those without a value of ours are kept as they are.
ORDER = (
    "CreationTime",
    "SourceImage",
    "CFASourceImage",
    "AlignmentTargetImage",
    "ReferenceGeometry",
    "AlignmentOrigin",
    "AlignmentMatrix",
    "AlignmentSplineX",
    "AlignmentSplineY",
    "LocalDistortionModel",
    "Metadata",
    "Pedestal",
    "LocationEstimates",
    "ReferenceLocation",
    "ScaleFactors",
    "Weights",
    "RejectionMap",
)
#: Elements that say that a matrix is not all. There are splines both ways.
DISTORTION = re.compile(r"Alignment\w*Spline\w*|LocalDistortionModel")
KEPT = re.compile(rf"{DISTORTION.pattern}|Metadata")

WHOLE = re.compile(r"[0-9]{1,7}", re.ASCII)
REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrizzleData:
    """The content of one ``.xdrz`` file.

    Attributes
    ----------
    source : str
        Path of the unregistered frame, as written.
    width, height : int
        Size of the reference geometry in pixels.
    matrix : ndarray of float64, shape (3, 3)
        Homography from the reference to the unregistered frame, in coordinates with `origin` added to the
        centers of the pixels, which are at whole numbers.
    origin : tuple of float
        x and y of the center of the first pixel in the coordinates of `matrix`.
    cfa_source, pattern : str
        Path of the frame before debayering, and its color filter pattern; empty if there is none.
    target : str
        Path of the registered frame, or empty.
    created : str
        Time of creation; empty for the time of writing.
    pedestal : float or None
        Constant that calibration added to all samples.
    location, reference_location, scale, weights : tuple of float
        One value per channel, of the frame and of the reference; empty before integration. A sample v is
        used as ``(v - location) * scale + reference_location``.
    maps : tuple
        Rejection map of each channel in the reference geometry, ndarray of uint8 (height, width) with the
        bits of this module. Those of a file are blocks that `rejection` decodes.
    kept : tuple of Element
        Elements that are not used, to be written as they were.
    notes : tuple of str
        What the file holds that is not used.
    path : Path or None
        The file that was read.
    """

    source: str
    width: int
    height: int
    matrix: np.ndarray
    origin: tuple[float, float] = (0.5, 0.5)
    cfa_source: str = ""
    pattern: str = ""
    target: str = ""
    created: str = ""
    pedestal: float | None = None
    location: tuple[float, ...] = ()
    reference_location: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    maps: tuple[StoredBlock | np.ndarray, ...] = field(default=(), repr=False)
    kept: tuple[Element, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def source_names(self) -> tuple[str, ...]:
        """File names of the unregistered frame, that before debayering first."""
        return tuple(filter(None, map(_file_name, (self.cfa_source, self.source))))

    @property
    def target_name(self) -> str:
        """File name of the registered frame, or an empty string."""
        return _file_name(self.target)

    @property
    def corner_matrix(self) -> np.ndarray:
        """Homography from the reference to the frame with the origin at the corner of the first pixel.

        Centers of pixels are at whole numbers + 0.5. float64 (3, 3).
        """
        x, y = (value - 0.5 for value in self.origin)
        there, back = (np.array([[1, 0, s * x], [0, 1, s * y], [0, 0, 1.0]]) for s in (1, -1))
        return back @ self.matrix @ there

    def rejection(self, channel: int) -> np.ndarray | None:
        """Return the rejection map of a channel, uint8 (height, width); None if the file has none.

        Raises
        ------
        FrameError
            If it is damaged.
        """
        if not self.maps:
            return None
        found = self.maps[channel]
        if isinstance(found, StoredBlock):
            return np.frombuffer(found.decode(), np.uint8).reshape(self.height, self.width)
        return found


def _file_name(path: str) -> str:
    """Return the last part of a path of any system; empty if that names no file."""
    name = PureWindowsPath(path).name
    return "" if name in (".", "..") or "\0" in name else name


# reading -----------------------------------------------------------------------------------------


def read_xdrz(path: str | Path) -> DrizzleData:
    """Read an ``.xdrz`` file. Rejection maps are decoded when they are asked for.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    DrizzleData

    Raises
    ------
    FrameError
        If it is missing, damaged, not valid drizzle data, or has splines but no matrix.
    """
    path = Path(path)
    size = regular_file_size(path)
    if size > MAX_SIZE:
        raise refuse(path, "size of the file", size, f"at most {MAX_SIZE} bytes", "leave it out")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise FrameError(
            f"{path}: is not XML; if it is old drizzle data (.drz), register the frames again with "
            "PixInsight 1.8.5 or later"
        )
    root = parse_xml(content, path, "the drizzle data")
    if local_name(root) != "xdrz":
        raise refuse(path, "root element", local_name(root), "xdrz")
    if root.get("version") != "1.0":
        raise refuse(path, "version", root.get("version"), "'1.0'")
    found: dict[str, Element] = {}
    others: list[Element] = []
    for element in root:
        name = local_name(element)
        if name in found:
            raise FrameError(f"{path}: has two elements {name}, expected one; leave the file out")
        if name in ORDER or DISTORTION.fullmatch(name):
            found[name] = element
        else:
            others.append(element)
    return _data(path, found, others)


def _data(path: Path, found: dict[str, Element], others: list[Element]) -> DrizzleData:
    source = _text(path, found, "SourceImage")
    if not _file_name(source):
        raise refuse(path, "SourceImage", source, "the path of the unregistered frame")
    width, height = _geometry(path, found)
    matrix = _matrix(path, found, width, height)
    lists = {
        name: _reals(path, found, name)
        for name in ("LocationEstimates", "ReferenceLocation", "ScaleFactors", "Weights")
    }
    maps = _maps(path, found, width, height)
    lengths = {name: len(values) for name, values in lists.items() if values}
    if maps:
        lengths["RejectionMap"] = len(maps)
    if len(set(lengths.values())) > 1:
        shown = listed([f"{name} {length}" for name, length in lengths.items()])
        raise FrameError(
            f"{path}: has values for different numbers of channels ({shown}); integrate the frames again"
        )
    if min(lists["Weights"], default=0.0) < 0:
        raise refuse(path, "Weights", list(lists["Weights"]), "numbers of at least 0")
    pedestal = _reals(path, found, "Pedestal", most=1)
    cfa = found.get("CFASourceImage")
    return DrizzleData(
        source=source,
        width=width,
        height=height,
        matrix=matrix,
        origin=_origin(path, found),
        cfa_source=_text(path, found, "CFASourceImage"),
        pattern="" if cfa is None else _clean(path, "CFASourceImage pattern", cfa.get("pattern", "")),
        target=_text(path, found, "AlignmentTargetImage"),
        created=_text(path, found, "CreationTime"),
        pedestal=pedestal[0] if pedestal else None,
        location=lists["LocationEstimates"],
        reference_location=lists["ReferenceLocation"],
        scale=lists["ScaleFactors"],
        weights=lists["Weights"],
        maps=maps,
        kept=(*(element for name, element in found.items() if KEPT.fullmatch(name)), *others),
        notes=_notes(found, others),
        path=path,
    )


def _notes(found: dict[str, Element], others: list[Element]) -> tuple[str, ...]:
    notes = []
    bent = list(filter(DISTORTION.fullmatch, found))
    if bent:
        notes.append(
            f"has a distortion beside its matrix ({listed(bent)}), which is not applied: far from the middle "
            "of the frame its pixels may lie some pixels off; register without distortion correction to be "
            "sure"
        )
    if others:
        names = dict.fromkeys(quoted(local_name(element)) for element in others)
        notes.append(f"elements that are not known are not used: {listed(list(names))}")
    return tuple(notes)


def _clean(path: Path, name: str, text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise refuse(path, f"length of {name}", len(text), f"at most {LONGEST_TEXT} characters")
    return clean_text(text).strip()


def _text(path: Path, found: dict[str, Element], name: str) -> str:
    return "" if name not in found else _clean(path, name, found[name].text or "")


def _whole(path: Path, name: str, element: Element, attribute: str, most: int) -> int:
    text = element.get(attribute, "")
    value = int(text) if WHOLE.fullmatch(text.strip()) else 0
    if not 1 <= value <= most:
        raise refuse(path, f"{name} {attribute}", text, f"a whole number from 1 to {most}")
    return value


def _geometry(path: Path, found: dict[str, Element]) -> tuple[int, int]:
    element = found.get("ReferenceGeometry")
    if element is None:
        raise FrameError(f"{path}: has no ReferenceGeometry, expected width and height; leave the file out")
    width, height = (
        _whole(path, "ReferenceGeometry", element, name, LARGEST_SIDE) for name in ("width", "height")
    )
    return width, height


def _real(path: Path, name: str, text: str) -> float:
    value = float(text) if len(text) <= 64 and REAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise refuse(path, name, text, "a finite number")
    return value


def _reals(path: Path, found: dict[str, Element], name: str, most: int = MOST_CHANNELS) -> tuple[float, ...]:
    """Return a list of numbers, empty if there is no such element."""
    if name not in found:
        return ()
    text = found[name].text or ""
    if text.count(",") >= most:
        raise refuse(path, name, text[:100], f"at most {most} numbers")
    return tuple(_real(path, name, part.strip()) for part in text.split(","))


def _origin(path: Path, found: dict[str, Element]) -> tuple[float, float]:
    """Return the origin of the coordinates. Files from before it was written count from pixel centers."""
    element = found.get("AlignmentOrigin")
    if element is None:
        return 0.0, 0.0
    x, y = (_real(path, f"AlignmentOrigin {axis}", element.get(axis, "").strip()) for axis in "xy")
    return x, y


def _matrix(path: Path, found: dict[str, Element], width: int, height: int) -> np.ndarray:
    if "AlignmentMatrix" not in found:
        bent = list(filter(DISTORTION.fullmatch, found))
        if bent:
            raise FrameError(
                f"{path}: has splines ({listed(bent)}) and no AlignmentMatrix; splines are not supported, so "
                "register the frames again with a projective transformation, without distortion correction"
            )
        raise FrameError(f"{path}: has no AlignmentMatrix, expected nine numbers; leave the file out")
    values = _reals(path, found, "AlignmentMatrix", most=9)
    if len(values) != 9:
        raise refuse(path, "AlignmentMatrix", f"{len(values)} numbers", "nine numbers")
    matrix = np.array(values).reshape(3, 3)
    corners = np.array([[x, y, 1.0] for x in (0, width) for y in (0, height)])
    depth = corners @ matrix[2]
    with np.errstate(over="ignore", invalid="ignore"):
        usable = abs(np.linalg.det(matrix)) > 1e-12 * np.abs(matrix).max() ** 3
    if not usable or not (np.all(depth > 0) or np.all(depth < 0)):
        raise refuse(
            path,
            "AlignmentMatrix",
            ", ".join(f"{value:g}" for value in values),
            "a homography of the whole reference",
            "register the frame again",
        )
    return matrix


def _maps(path: Path, found: dict[str, Element], width: int, height: int) -> tuple[StoredBlock, ...]:
    element = found.get("RejectionMap")
    if element is None:
        return ()
    for attribute, expected in (("width", width), ("height", height)):
        value = _whole(path, "RejectionMap", element, attribute, LARGEST_SIDE)
        if value != expected:
            raise refuse(path, f"RejectionMap {attribute}", value, f"{expected}, that of the reference")
    channels = _whole(path, "RejectionMap", element, "numberOfChannels", MOST_CHANNELS)
    planes = [child for child in element if local_name(child) == "ChannelData"]
    if len(planes) != channels:
        raise refuse(path, "RejectionMap", f"{len(planes)} ChannelData", f"{channels} of them")
    return tuple(_block(path, plane, width * height) for plane in planes)


def _block(path: Path, element: Element, expected: int) -> StoredBlock:
    """Return the block of a channel, not yet decompressed."""
    field, name = "RejectionMap ChannelData", element.get("compression", "").strip().lower()
    if not name:
        content = decode_text(element.text or "", "base64", path, field)
        if len(content) != expected:
            raise refuse(path, f"size of {field}", len(content), f"{expected} bytes")
        return _stored(path, field, content, None)
    codec, _, shuffled = name.partition("+")
    if codec not in ("zlib", "lz4", "lz4hc") or shuffled not in ("", "sh"):
        raise refuse(path, f"{field} compression", name, "zlib, lz4 or lz4hc, perhaps with +sh")
    item_size = _whole(path, field, element, "itemSize", 16) if shuffled else 1
    parts = [child for child in element if local_name(child) == "Subblock"]
    if not 1 <= len(parts) <= MOST_SUBBLOCKS:
        raise refuse(path, f"{field} number of subblocks", len(parts), f"1 to {MOST_SUBBLOCKS}")
    pieces = [decode_text(part.text or "", "base64", path, field) for part in parts]
    sizes = [part.get("uncompressedSize", "").strip() for part in parts]
    plain = [int(size) if re.fullmatch(r"[0-9]{1,15}", size, re.ASCII) else -1 for size in sizes]
    if min(plain) < 1 or sum(plain) != expected:
        raise refuse(
            path, f"{field} uncompressedSize", listed(sizes), f"whole numbers that add up to {expected}"
        )
    for piece, size in zip(pieces, plain, strict=True):
        if size > len(piece) * EXPANSION[codec] + 2**16:
            raise refuse(path, f"{field} uncompressedSize", size, f"what {len(piece)} bytes can hold")
    subblocks = tuple(zip(map(len, pieces), plain, strict=True))
    return _stored(path, field, b"".join(pieces), Compression(codec, expected, item_size, subblocks))


def _stored(path: Path, field: str, content: bytes, compression: Compression | None) -> StoredBlock:
    return StoredBlock(
        path=path,
        field=field,
        position=None,
        content=content,
        size=len(content),
        compression=compression,
        checksum=None,
    )


# writing -----------------------------------------------------------------------------------------


def write_xdrz(path: str | Path, data: DrizzleData) -> Path:
    """Write drizzle data to a new file.

    Parameters
    ----------
    path : str or Path
        A new file in an existing folder.
    data : DrizzleData
        The data. Numbers are written so that they are read back as the same.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SaveError
        If the file exists or cannot be written. No partial file is left behind.
    ValueError
        If a rejection map is not uint8 of the size of the reference.
    """
    path = Path(path)
    root = Element("xdrz", {"version": "1.0", "xmlns": NAMESPACE})
    root.extend(sorted([*_elements(data), *map(_plain, data.kept)], key=_place))
    indent(root, "   ")
    content = b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="utf-8") + b"\n"
    with written(path) as temporary:
        temporary.write_bytes(content)
    return path


def _place(element: Element) -> int:
    """Return the place of an element in the order of the format. Splines are beside splines, others last."""
    name = "AlignmentSplineY" if "Spline" in element.tag else element.tag
    return ORDER.index(element.tag if element.tag in ORDER else name) if name in ORDER else len(ORDER)


def _plain(element: Element) -> Element:
    """Return a copy of an element that was read, without the name of its namespace."""
    attributes = {name: value for name, value in element.attrib.items() if "}" not in name}
    copy = Element(local_name(element), attributes)
    copy.text = (element.text or "").strip() or None
    copy.extend(_plain(child) for child in element)
    return copy


def _elements(data: DrizzleData) -> list[Element]:
    def with_text(name: str, text: str, **attributes: str) -> Element:
        element = Element(name, attributes)
        # Half characters stand for bytes of a file name that are not UTF-8.
        element.text = clean_text(text).encode("utf-8", "replace").decode("utf-8")
        return element

    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found = [
        with_text("CreationTime", data.created or now),
        with_text("SourceImage", data.source),
    ]
    if data.cfa_source:
        pattern = {"pattern": clean_text(data.pattern)} if data.pattern else {}
        found.append(with_text("CFASourceImage", data.cfa_source, **pattern))
    if data.target:
        found.append(with_text("AlignmentTargetImage", data.target))
    size = {"width": str(data.width), "height": str(data.height)}
    channels = len(data.location) or len(data.maps)
    if channels:
        size["numberOfChannels"] = str(channels)
    found.append(Element("ReferenceGeometry", size))
    found.append(Element("AlignmentOrigin", {"x": repr(data.origin[0]), "y": repr(data.origin[1])}))
    numbers: list[tuple[str, Sequence[float]]] = [
        ("AlignmentMatrix", np.asarray(data.matrix, float).ravel().tolist()),
        ("Pedestal", () if data.pedestal is None else (data.pedestal,)),
        ("LocationEstimates", data.location),
        ("ReferenceLocation", data.reference_location),
        ("ScaleFactors", data.scale),
        ("Weights", data.weights),
    ]
    found += [
        with_text(name, ",".join(repr(float(v)) for v in values)) for name, values in numbers if len(values)
    ]
    if data.maps:
        found.append(_map_element(data))
    return found


def _map_element(data: DrizzleData) -> Element:
    shape = (data.height, data.width)
    attributes = {
        "width": str(data.width),
        "height": str(data.height),
        "numberOfChannels": str(len(data.maps)),
    }
    element = Element("RejectionMap", attributes)
    for channel in range(len(data.maps)):
        plane = data.rejection(channel)
        if plane is None or plane.shape != shape or plane.dtype != np.uint8:
            raise ValueError(f"rejection map of channel {channel} is not uint8 {shape}")
        content = np.ascontiguousarray(plane).data.cast("B")
        stored = SubElement(element, "ChannelData", {"compression": "zlib"})
        for start in range(0, len(content), SUBBLOCK):
            part = content[start : start + SUBBLOCK]
            block = SubElement(stored, "Subblock", {"uncompressedSize": str(len(part))})
            block.text = base64.b64encode(zlib.compress(part, 6)).decode("ascii")
    return element

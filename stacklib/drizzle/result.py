"""The result of drizzling, and its files."""

from __future__ import annotations

import datetime
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from astropy.table import Table

from stacklib.drizzle.coverage import Forecast, noise_correlation
from stacklib.drizzle.deposit import Grid
from stacklib.drizzle.geometry import Geometry
from stacklib.errors import SaveError
from stacklib.formats import xisf
from stacklib.formats.xisf_write import ascii_text
from stacklib.frames.finding import expanded
from stacklib.frames.frame_set import FrameSet
from stacklib.frames.mosaic import Sites
from stacklib.output.naming import base_name, default_folder, free_number
from stacklib.output.provenance import Provenance, collect, keywords_of_frames
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Recipe
from stacklib.utils.file_sets import existing_folder, name_all, workroom
from stacklib.utils.texts import ecsv, printable

__all__ = ["Drizzled"]

#: Longest HISTORY line, and attempts to find a number that no other process takes at the same moment.
WIDTH, ATTEMPTS = 72, 1000


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Drizzled:
    """The result of `drizzle`.

    Attributes
    ----------
    image : ndarray of float32, shape (channels, height, width)
        The image, in the units of the frames. 0 where no sample falls.
    weights : ndarray of float32, shape (channels, height, width)
        Sum of the weights of the samples in each pixel: the area of their drops in it, relative to a drop,
        times the weights of their frames. 0 where no sample falls.
    frames : FrameSet
        The unregistered frames.
    used : ndarray of int
        Numbers of those that were deposited.
    left_out : dict of int to str
        Why the others were not.
    geometries : dict of int to Geometry
        Geometry of the frames that have one.
    numbers : dict of int to ndarray
        Factor, offset and weight of each channel, float64 (3, channels), of the frames used.
    recipe : DrizzleRecipe
        The parameters.
    grid : Grid
        The grid.
    sites : Sites
        The colors of the pixels of the frames.
    forecast : Forecast
        What was predicted.
    rule : str
        The rejection rule whose verdicts were used.
    integration_recipe : Recipe or None
        Recipe of the integration that found them.
    notes : tuple of str
        What was warned of.
    range_factor, range_offset : float
        Rescaling into the range 0 to 1, ``image = x * range_factor + range_offset``.
    truncated : int
        Number of values that were clipped.
    """

    image: np.ndarray
    weights: np.ndarray
    frames: FrameSet
    used: np.ndarray
    left_out: dict[int, str]
    geometries: dict[int, Geometry]
    numbers: dict[int, np.ndarray]
    recipe: DrizzleRecipe
    grid: Grid
    sites: Sites
    forecast: Forecast
    rule: str
    integration_recipe: Recipe | None
    notes: tuple[str, ...] = field(default=())
    range_factor: float = 1.0
    range_offset: float = 0.0
    truncated: int = 0

    def __repr__(self) -> str:
        channels, height, width = self.image.shape
        return (
            f"<Drizzled of {self.used.size} frames, {width} x {height}, {channels} "
            f"channel{'s' * (channels > 1)}, scale {self.recipe.scale:g}, drop {self.recipe.drop:g}: "
            f"{100 * float(self.holes.max()):.2g} % holes>"
        )

    @property
    def holes(self) -> np.ndarray:
        """Fraction of the pixels on which no sample falls, border included, float64 (channels,)."""
        return np.mean(self.weights == 0, axis=(1, 2))

    @property
    def table(self) -> Table:
        """Table of all frames, one row a frame.

        Columns: file, used, reason (if not used), geometry, stars, rms, shift_x, shift_y (pix), rotation
        (deg); factor, offset and weight, with one value per channel.
        """
        table = Table()
        table["file"] = self.frames.names
        table["used"] = np.isin(np.arange(len(self.frames)), self.used)
        table["reason"] = [self.left_out.get(i, "") for i in range(len(self.frames))]
        known = [self.geometries.get(i) for i in range(len(self.frames))]
        table["geometry"] = ["" if g is None else g.origin for g in known]
        table["stars"] = [0 if g is None or g.stars is None else g.stars for g in known]
        columns = {
            "rms": [np.nan if g is None or g.rms is None else g.rms for g in known],
            "shift_x": [np.nan if g is None else g.shift[0] for g in known],
            "shift_y": [np.nan if g is None else g.shift[1] for g in known],
            "rotation": [np.nan if g is None else g.rotation for g in known],
        }
        for name, values in columns.items():
            table[name] = np.array(values, float)
            table[name].unit = "deg" if name == "rotation" else "pix"
        nothing = np.full((3, self.sites.channels), np.nan)
        numbers = np.stack([self.numbers.get(i, nothing) for i in range(len(self.frames))])
        for place, name in enumerate(("factor", "offset", "weight")):
            column = numbers[:, place]
            table[name] = column[:, 0] if self.sites.channels == 1 else column
        return table

    def report(self) -> str:
        """Return the report as text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        channels, height, width = self.image.shape
        yield f"Drizzled image: {width} x {height} pixels, {channels} channel{'s' * (channels > 1)}"
        yield f"  {self.used.size} of {len(self.frames)} frames from {self.frames.folder}"
        yield f"  scale {self.recipe.scale:g}, drop {self.recipe.drop:g}, kernel {self.recipe.kernel}"
        if self.sites.pattern:
            yield f"  color mosaics, pattern {self.sites.pattern}: each color from its own pixels"
        yield f"  rejection: {self.rule}"
        yield f"  {self.forecast.verdict}"
        shown = ", ".join(
            f"{name} {100 * share:.2g} %"
            for name, share in zip(self.forecast.colors, self.forecast.holes, strict=True)
        )
        yield f"  predicted holes: {shown}; pixels without samples, border included: " + ", ".join(
            f"{100 * share:.2g} %" for share in self.holes
        )
        yield f"  dither: {self.forecast.dither:.2f} of that of random shifts"
        factor = noise_correlation(self.recipe.scale, self.recipe.drop)
        yield (
            f"  The noise of neighboring pixels is correlated: that of large areas is {factor:.2f} times "
            "what single pixels suggest."
        )
        for note in self.notes:
            yield f"  note: {note}"
        yield ""
        table = self.table["file", "used", "reason", "geometry", "rms", "shift_x", "shift_y", "rotation"]
        for name in ("rms", "shift_x", "shift_y", "rotation"):
            table[name].format = ".3f"
        yield from table.pformat(max_lines=-1, max_width=-1)

    def save(
        self,
        folder: str | Path | None = None,
        *,
        date: str | datetime.date | None = None,
        object: str | None = None,
        camera: str | None = None,
    ) -> list[Path]:
        """Save the image and its weights as XISF files, with a frame table and a report.

        The files are named ``<date>_<object>_<camera>_<number>_drizzle.xisf``, ``..._drizzle_weights.xisf``,
        ``..._drizzle_frames.ecsv`` and ``..._drizzle_report.txt``, with the first free number. Existing files
        are never overwritten. If anything fails, none of the files remain.

        Parameters
        ----------
        folder : str or Path, optional
            Folder for the files. Default is ``5_Integration`` next to the folder of the frames.
        date : str or date, optional
            Date in the file names. Default is the evening of the earliest frame.
        object, camera : str, optional
            Target and camera in the file names. Default is the header of the frames.

        Returns
        -------
        list of Path
            The image and the weights.

        Raises
        ------
        RecipeError
            If `date` is not a date.
        SaveError
            If the files cannot be written.
        """
        folder = expanded(folder).absolute() if folder else default_folder(self.frames)
        used = [int(i) for i in self.used]
        like_a_result = SimpleNamespace(
            preparation=SimpleNamespace(
                frames=self.frames, used=self.used, count=len(used), reference=used[0], excluded={}
            ),
            region=(0, 0, self.frames.width, self.frames.height),
        )
        facts = collect(cast(Any, like_a_result), with_checksums=True)
        base = base_name(self.frames[used], date, object, camera)
        facts.target, facts.camera = facts.target or object or "", facts.camera or camera or ""
        flipped = self.frames.row_order == "bottom-up"
        lines = list(self._history(facts, flipped))
        cards, about = self._keywords(facts, lines), self._properties(facts, lines)
        image, weights = self._scaled()
        with existing_folder(folder), workroom(folder) as room:
            staged = []
            for name, kind, pixels in (
                ("drizzle", "MasterLight", image),
                ("drizzle_weights", "WeightMap", weights),
            ):
                pixels = np.ascontiguousarray(pixels[:, ::-1]) if flipped else pixels
                staged.append(
                    xisf.write_image(
                        room / f"{name}.xisf",
                        pixels,
                        image_id=name,
                        image_type=kind,
                        keywords=cards,
                        properties=about,
                    )
                )
            table, report = room / "drizzle_frames.ecsv", room / "drizzle_report.txt"
            table.write_bytes(ecsv(self.table))
            report.write_text(printable(self.report()), encoding="utf-8")
            number = -1
            for _ in range(ATTEMPTS):
                number = free_number(folder, base, number + 1)
                pairs = [
                    (path, folder / f"{base}_{number:04d}_{path.name}")
                    for path in (report, table, *staged[::-1])
                ]
                if name_all(pairs):
                    return [pairs[-1][1], pairs[-2][1]]
        raise SaveError(f"{folder}: no free number for {base}; choose another folder or name")

    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the image in the range 0 to 1 of XISF, and the weights."""
        top = float(self.image.max(initial=0.0))
        if top <= 1:
            return self.image, self.weights
        full = 65535.0 if top <= 65535 * 1.01 else top
        return np.clip(self.image / np.float32(full), 0, 1), self.weights

    def _history(self, facts: Provenance, flipped: bool) -> Iterator[str]:
        wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        for text in self._said(facts, flipped):
            yield from wrapper.wrap(ascii_text(text)) or [""]

    def _said(self, facts: Provenance, flipped: bool) -> Iterator[str]:
        yield f"stacklib {version('stacklib')}: drizzle of {self.used.size} of {len(self.frames)} frames"
        for name, value in self.recipe.to_dict().items():
            yield f"drizzle {name} = {value if value != '' else chr(39) * 2}"
        yield f"rejection rule: {self.rule}"
        if self.integration_recipe is not None:
            for name, value in self.integration_recipe.to_dict().items():
                yield f"{name} = {value if value != '' else chr(39) * 2}"
        if self.sites.pattern:
            yield f"color filter pattern of the frames, from the first stored pixel: {self.sites.pattern}"
        yield f"reference: {self.grid.width} x {self.grid.height} pixels"
        if (self.range_factor, self.range_offset) != (1.0, 0.0):
            yield f"output range: rescaled as x * {self.range_factor:.9g} + {self.range_offset:.9g}"
        top = float(self.image.max(initial=0.0))
        if top > 1:
            yield f"XISF: ADU divided by {65535.0 if top <= 65535 * 1.01 else top:g}"
        if flipped:
            yield "rows flipped: the frames are stored bottom-up, this file top-down"
        yield "world coordinates of the frames are left out: solve the image again"
        for i, name in enumerate(self.frames.names):
            yield f"frame {i + 1}: {name}"
            yield f"sha256 {facts.checksums[i] or 'unknown: the file is missing or has changed'}"
            if i in self.left_out:
                yield f"  left out: {self.left_out[i]}"
            if i in self.geometries:
                matrix = " ".join(f"{value:.12g}" for value in self.geometries[i].matrix.ravel())
                yield f"  from the reference, origin at the corner: {matrix}"
            if i in self.numbers:
                for name, values in zip(("factor", "offset", "weight"), self.numbers[i], strict=True):
                    yield f"  {name} " + " ".join(f"{value:.9g}" for value in values)

    def _keywords(self, facts: Provenance, lines: list[str]) -> list[tuple[str, Any, str]]:
        cards = keywords_of_frames(facts, int(self.used.size), "drizzled")
        cards += [
            ("DRZSCALE", self.recipe.scale, "Pixels for a pixel of the reference, each axis"),
            ("DRZDROP", self.recipe.drop, "Side of a drop relative to a pixel (drop shrink)"),
            ("DRZKERN", self.recipe.kernel, "Kernel of the drops"),
            ("SWMODIFY", f"stacklib {version('stacklib')}", "Software that drizzled the frames"),
        ]
        return cards + [("HISTORY", line, "") for line in lines]

    def _properties(self, facts: Provenance, lines: list[str]) -> dict[str, Any]:
        record = {
            "version": 1,
            "stacklib": version("stacklib"),
            "recipe": self.recipe.to_dict(),
            "integration": None if self.integration_recipe is None else self.integration_recipe.to_dict(),
            "rule": self.rule,
            "reference": [self.grid.width, self.grid.height],
            "frames": [
                {
                    "file": frame.name,
                    "path": str(frame.path.absolute()),
                    "sha256": facts.checksums[i],
                    "reason": self.left_out.get(i, ""),
                    "matrix": self.geometries[i].matrix.ravel().tolist() if i in self.geometries else None,
                    "numbers": self.numbers[i].tolist() if i in self.numbers else None,
                }
                for i, frame in enumerate(self.frames)
            ],
        }
        return {
            "Processing:History": ("String", "\n".join(lines)),
            "stacklib:Drizzle": ("String", json.dumps(record, indent=1)),
        }

"""A viewer for one image: the live panel and its static figure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stacklib.figures.screen import SCREEN_WIDTH, Levels
from stacklib.frames.frame import Frame
from stacklib.integration.result import Integration
from stacklib.measurement.full_scale import ADU, UNIT_MAXIMUM
from stacklib.output.world_coordinates import pixel_world
from stacklib.panels.viewer.pixels import (
    STRIP,
    TILE,
    ArrayRows,
    FrameRows,
    Pyramid,
    largest_of_bins,
    mean_of_bins,
)
from stacklib.panels.viewer.sky import Sky
from stacklib.panels.viewer.stretches import Stretch
from stacklib.panels.viewer.widget import BOTH_SIGNS, COLOURS, ViewerWidget, named_palette, palette
from stacklib.utils.labels import channel_names
from stacklib.utils.progress import in_live_notebook
from stacklib.utils.texts import one_line

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from matplotlib.figure import Figure

__all__ = ["Viewer", "link", "plain_levels"]

#: What can be shown.
Image: TypeAlias = np.ndarray | Integration | Frame | str | Path


class Viewer:
    """Look at an image: zoom, move, stretch it, and read values and positions.

    Only what is seen is read and sent to the browser, at the resolution at which it is seen, so that large
    images are as quick as small ones. The values shown under the cursor are those of the image, not those of
    the screen.

    Parameters
    ----------
    image : ndarray, Integration, Frame, str or Path
        An array of shape (channels, height, width) or (height, width), the image of a result, or an XISF or
        FITS file, which is read on demand. NaN means no data.
    title : str, optional
        Shown above the picture. Default is the name of the file.
    names : sequence of str, optional
        Names of the channels. Default is R, G and B for three channels, and numbers for other counts.
    wcs : astropy.wcs.WCS, optional
        World coordinates, the first row of the image being row 0. Default is that of the file or result.
    unit : (str, float) or (str, float, float), optional
        A second unit for the readout and its scale, such as ``("%", 100)``, and an offset that is added.
        Default is ADU, as far as the file or result tells the scale.
    colours : str, optional
        A color map for an image that is a map: inferno, viridis, cividis or gray; RdBu_r for a difference.
        Default is a stretch.
    top : float, optional
        Value at the end of the color map; for a difference, also of its negative end. Default is the maximum.
    classes : sequence of (int, str, str), optional
        For an image of classes: each value, in steps of one, its color and what it means.
    levels : Levels, optional
        Levels from which the stretch follows. Default is those of this image.
    origin : (int, int), optional
        The (left, top) pixel of the image in the whole frames, for the readout.
    height : int, optional
        Height of the picture in pixels of the screen. Default follows from its width.
    compact : bool
        Leave out some buttons, for a small picture beside another one.
    boxes : bool
        Whether a box can be drawn, moved and changed with the mouse; see `on_box`.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width.
    levels : Levels
        Median, spread and extremes of the channels, from which the stretch follows.

    Raises
    ------
    ValueError
        If the image is not of such a shape, a name is missing, or there is no such color map.
    FrameError
        If the file cannot be used.

    Examples
    --------
    >>> from stacklib.panels import Viewer, link
    >>> Viewer("5_Integration/20210815_M101_ASI2600_01.xisf")  # doctest: +SKIP
    """

    def __init__(
        self,
        image: Image,
        *,
        title: str = "",
        names: Sequence[str] = (),
        wcs: WCS | None = None,
        unit: tuple[str, float] | tuple[str, float, float] | None = None,
        colours: str = "",
        top: float = 0.0,
        classes: Sequence[tuple[int, str, str]] = (),
        levels: Levels | None = None,
        origin: tuple[int, int] = (0, 0),
        height: int = 0,
        compact: bool = False,
        boxes: bool = False,
    ) -> None:
        self._height, self._compact, self._boxes = height, compact, boxes
        self._given: dict[str, Any] = {
            "title": title,
            "names": names,
            "wcs": wcs,
            "unit": unit,
            "colours": colours,
            "top": top,
            "classes": classes,
            "levels": levels,
            "origin": origin,
        }
        self._take(image, **self._given)

    def show(self, image: Image, **changes: Any) -> None:
        """Show another image in its place, also in the live panel.

        Zoom and position stay if the images have the same size, and so does the stretch that was set.

        Parameters
        ----------
        image : ndarray, Integration, Frame, str or Path
            The image.
        **changes
            `title`, `names`, `wcs`, `unit`, `colours`, `top`, `classes`, `levels` or `origin`; others stay.
        """
        before = self._usual if "widget" in self.__dict__ else None
        self._take(image, **self._given | changes)
        self._given |= changes
        if before is None:
            return
        with self.widget.hold_sync():
            self.widget.replace(self._pyramid, self._sky, self._meta())
            # What was set by hand stays, but not for an image of another kind.
            for name, value in self._usual.items():
                if before.get(name) != value:
                    setattr(self.widget, name, value)
            self._name()

    def _take(
        self,
        image: Image,
        *,
        title: str,
        names: Sequence[str],
        wcs: WCS | None,
        unit: tuple[str, float] | tuple[str, float, float] | None,
        colours: str,
        top: float,
        classes: Sequence[tuple[int, str, str]],
        levels: Levels | None,
        origin: tuple[int, int],
    ) -> None:
        if colours and colours not in (*COLOURS, BOTH_SIGNS):
            expected = ", ".join((*COLOURS, BOTH_SIGNS))
            raise ValueError(f"colours: got {colours!r}, expected one of {expected}")
        image = Frame(image) if isinstance(image, str | Path) else image
        if isinstance(image, Integration):
            rows: ArrayRows | FrameRows = ArrayRows(image.image)
            wcs, unit, origin = wcs or pixel_world(image), unit or _adu(image), image.region[:2]
        elif isinstance(image, Frame):
            rows, title = FrameRows(image), title or one_line(image.name)
            wcs = wcs or pixel_world(image)
        else:
            rows = ArrayRows(image)
        self._title, self.colours, self.origin, self.classes = title, colours, origin, tuple(classes)
        bins = largest_of_bins if classes else mean_of_bins
        self._pyramid = Pyramid(rows, bins, levels)
        channels = self._pyramid.shape[0]
        self.names = tuple(names) or channel_names(channels)
        if len(self.names) != channels:
            raise ValueError(f"names: got {len(self.names)} names for {channels} channels")
        self._sky = Sky(wcs, *self._pyramid.shape[:0:-1]) if wcs is not None else None
        if isinstance(image, Frame) and not unit:
            known = image.full_scale if image.integer else ADU
            unit = ("ADU", known if max(self.levels.top) <= UNIT_MAXIMUM else 1.0)
        self.unit = (*(unit or ("", 1.0)), 0.0)[:3]
        self._top = top or max(self.levels.top) or 1.0

    @property
    def title(self) -> str:
        """Shown above the picture. Can be set."""
        return self._title

    @title.setter
    def title(self, title: str) -> None:
        self._title = self._given["title"] = title
        if "widget" in self.__dict__:
            self._name()

    def _name(self) -> None:
        self.widget.title, self.widget.alt = self.title, self.alt

    @property
    def levels(self) -> Levels:
        return self._pyramid.levels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._pyramid.shape

    @property
    def stretch(self) -> Stretch:
        """The stretch as it is set in the panel."""
        widget = self.widget
        return Stretch(widget.curve, widget.balance, widget.target, widget.clip)

    @property
    def alt(self) -> str:
        """The picture in words, for those who cannot see it."""
        channels, height, width = self._pyramid.shape
        words = f"{self.title or 'Image'}: "
        size = f"{width} x {height} pixels"
        if self.classes:
            return f"{words}map of {', '.join(word for *_, word in self.classes)}; {size}"
        if self.colours:
            low = -self._top if self.colours == BOTH_SIGNS else 0
            unit, factor, _ = self.unit
            return f"{words}map in colors, {factor * low:.4g} to {factor * self._top:.4g} {unit}; {size}"
        pairs = zip(self.names, self.levels.centre, strict=True)
        named = [f"{name} {centre:.4g}".strip() for name, centre in pairs]
        counted = f"{channels} channel{'s' * (channels > 1)}"
        return f"{words}picture, stretched for the screen; {size}, {counted}, median {', '.join(named)}"

    @cached_property
    def widget(self) -> ViewerWidget:
        """The live panel."""
        state = {"height": self._height, "title": self.title, "alt": self.alt}
        return ViewerWidget(self._pyramid, self._sky, meta=self._meta(), **self._usual, **state)

    @property
    def _usual(self) -> dict[str, Any]:
        """The settings of the panel that suit the image."""
        if self.colours or self.classes:
            return {"colours": self.colours, "top": self._top, "plane": -1}
        usual = {name: getattr(Stretch, name) for name in ("curve", "balance", "target", "clip")}
        # Three channels are shown as a color, those of a map as their mean.
        return usual | {"plane": -1 if self.shape[0] == 3 else 0}

    def _palettes(self) -> dict[str, str] | None:
        if self.classes:
            from matplotlib.colors import ListedColormap

            return {"classes": palette(ListedColormap([colour for _, colour, _ in self.classes]))}
        names = (self.colours,) if self.colours == BOTH_SIGNS else COLOURS
        return {name: named_palette(name) for name in names} if self.colours else None

    def _meta(self) -> dict[str, Any]:
        channels, height, width = self._pyramid.shape
        unit, factor, zero = self.unit
        scale = "classes" if self.classes else "both" if self.colours == BOTH_SIGNS else "root"
        return {
            "width": width,
            "height": height,
            "channels": channels,
            "names": list(self.names),
            "levels": self._pyramid.count,
            "tile": TILE,
            "statistics": [list(each) for each in zip(*self.levels, strict=True)],
            "unit": unit,
            "factor": factor,
            "zero": zero,
            "compact": self._compact,
            "boxes": self._boxes,
            "origin": list(self.origin),
            "sky": self._sky.to_dict() if self._sky else None,
            "palettes": self._palettes(),
            "scale": scale,
            "classes": [list(each) for each in self.classes],
            "tops": [self._top / 20, max(self._top, *self.levels.top)],
            "usual": {name: value for name, value in self._usual.items() if name != "plane"},
            "file": "".join(c if c.isalnum() or c in "-_." else "_" for c in self.title) or "picture",
        }

    def on_pixel(self, call: Callable[[int, int], None]) -> None:
        """Call a function with x and y of each pixel that is clicked, counted in the whole frames."""
        self.widget.observe(lambda change: call(*change["new"]), "pixel")

    def on_box(self, call: Callable[[tuple[int, ...]], None]) -> None:
        """Call a function with each box that is drawn: left, top, width, height; () if it is taken away."""
        self.widget.observe(lambda change: call(tuple(change["new"])), "box")

    def mark(self, x: int, y: int) -> None:
        """Mark a pixel of the whole frames in the live panel."""
        self.widget.mark = [int(x), int(y)]

    def look_at(self, x: float, y: float, width: float) -> None:
        """Center the live panel on a pixel of the image and show about `width` pixels across."""
        self.widget.view = [float(x), float(y), float(width)]

    def figure(self) -> Figure:
        """Draw the image as a static figure, for where there is no browser."""
        from matplotlib.colors import ListedColormap, Normalize, PowerNorm

        from stacklib.figures.look import colour_bar, new_figure, show_picture

        _, height, width = self._pyramid.shape
        side = -(-width // SCREEN_WIDTH)
        strip = side * max(1, STRIP // side)
        parts = [
            self._pyramid.bins(self._pyramid.rows.read(start, min(start + strip, height)), side)
            for start in range(0, height, strip)
        ]
        image = np.concatenate(parts, axis=1)
        figure = new_figure(9.0, 9.0 * image.shape[1] / image.shape[2] + 0.75)
        axes = figure.subplots()
        if self.classes:
            (first, *_), (last, *_) = self.classes[0], self.classes[-1]
            colours = ListedColormap([colour for _, colour, _ in self.classes])
            look = {"cmap": colours, "vmin": first - 0.5, "vmax": last + 0.5}
            mapped = show_picture(axes, image[0], self.title, side, self.origin, **look)
            bar = colour_bar(figure, mapped, "")
            bar.set_ticks([value for value, *_ in self.classes], labels=[word for *_, word in self.classes])
        elif self.colours:
            unit, factor, _ = self.unit
            end = factor * self._top
            both = self.colours == BOTH_SIGNS
            scale = Normalize(-end, end) if both else PowerNorm(0.5, 0, end)
            shown = factor * image.mean(axis=0)
            mapped = show_picture(axes, shown, self.title, side, self.origin, cmap=self.colours, norm=scale)
            colour_bar(figure, mapped, unit)
        else:
            shown = Stretch().apply(image, self.levels)
            picture = np.moveaxis(shown, 0, -1) if len(shown) == 3 else shown[0]
            show_picture(axes, picture, self.title, side, self.origin)
        return figure

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget if in_live_notebook() else self.figure())


def plain_levels(top: float, channels: int = 1) -> Levels:
    """Return levels of a map, from which nothing but the end of its scale follows."""
    nothing = (0.0,) * channels
    return Levels(nothing, nothing, nothing, (top,) * channels)


def link(viewers: Iterable[Viewer]) -> None:
    """Let viewers of images of the same size show the same part, and the same place under the cursor.

    Parameters
    ----------
    viewers : iterable of Viewer
        The viewers. Each can still have its own stretch.

    Raises
    ------
    ValueError
        If the images have different sizes.
    """
    viewers = list(viewers)
    sizes = {viewer.shape[1:] for viewer in viewers}
    if len(sizes) > 1:
        found = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise ValueError(f"viewers: got images of {found} pixels, expected the same size")
    name = uuid.uuid4().hex
    for viewer in viewers:
        viewer.widget.group = name


def _adu(result: Integration) -> tuple[str, float, float]:
    """Return ADU, its scale and offset: those of the frames, before the range of the image was changed."""
    full, factor = result.preparation.full_scale, result.range_factor
    return "ADU", full / factor, -full * result.range_offset / factor

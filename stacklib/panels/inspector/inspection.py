"""What is inspected in a result: a pixel, a round, a view, or a box. The state, without widgets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stacklib.explore.boxes.blame import Blame, blame
from stacklib.explore.explain import PixelStory, explain
from stacklib.explore.masks import clear_hit, frame_mask, frame_verdicts
from stacklib.explore.story_plots import VIEWS
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region

__all__ = ["MASK", "PixelInspection"]

#: The view of the places where one frame was rejected.
MASK = "mask of a frame"


class PixelInspection:
    """What is inspected; see `stacklib.panels.PixelInspector`.

    A live panel sets what is called after changes: `pixel_changed`, `round_changed`, `view_changed` and
    `box_changed`.
    """

    def __init__(self, result: Integration, x: int = -1, y: int = -1, channel: int = -1) -> None:
        self.result = result
        self._view = "rejected high"
        self._frame = int(result.preparation.used[0]) + 1
        self._masks: tuple[int, np.ndarray, int] | None = None
        self.blame: Blame | None = None
        self.pixel_changed: Callable[[], None] = lambda: None
        self.round_changed: Callable[[], None] = lambda: None
        self.view_changed: Callable[[], None] = lambda: None
        self.box_changed: Callable[[], None] = lambda: None
        known = (x, y, max(channel, 0))
        x, y, channel = known if x >= 0 and y >= 0 else clear_hit(result, channel)
        self._story = explain(result, x=x, y=y, channel=channel)
        self._round = len(self._story.rounds)

    # state -----------------------------------------------------------------------------------------

    @property
    def selected(self) -> tuple[int, int, int]:
        return self._story.x, self._story.y, self._story.channel

    @selected.setter
    def selected(self, pixel: tuple[int, ...]) -> None:
        x, y, *channel = (int(value) for value in pixel)
        if self.blame is not None:
            self.box = ()
        self._story = explain(self.result, x=x, y=y, channel=channel[0] if channel else self.selected[2])
        self._round = len(self._story.rounds)
        self.pixel_changed()

    @property
    def story(self) -> PixelStory:
        return self._story

    @property
    def round(self) -> int:
        return self._round

    @round.setter
    def round(self, number: int) -> None:
        self._round = _within("round", number, len(self._story.rounds))
        self.round_changed()

    @property
    def view(self) -> str:
        return self._view

    @view.setter
    def view(self, view: str) -> None:
        if view not in (*VIEWS, MASK):
            raise ValueError(f"view: got {view!r}, expected one of {', '.join((*VIEWS, MASK))}")
        self._view = view
        self.view_changed()

    @property
    def frame(self) -> int:
        return self._frame

    @frame.setter
    def frame(self, number: int) -> None:
        number = _within("frame", number, len(self.result.preparation.frames))
        if number - 1 not in self.result.preparation.used:
            raise ValueError(f"frame: {number} was left out ({self.result.preparation.excluded[number - 1]})")
        self._frame, self._view = number, MASK
        self.view_changed()

    @property
    def box(self) -> Region | tuple[()]:
        return () if self.blame is None else self.blame.box

    @box.setter
    def box(self, box: Region | tuple[()]) -> None:
        self.blame = blame(self.result, box) if box else None
        self.box_changed()

    def mask(self) -> tuple[np.ndarray, int]:
        """Return the mask of the chosen frame, see `frame_mask`, and the step between its pixels.

        The verdicts on the whole channel are kept, one byte per sample. If the image is larger than a
        screen, they cover every step-th row and column.
        """
        channel = self.selected[2]
        if self._masks is None or self._masks[0] != channel:
            self._masks = (channel, *frame_verdicts(self.result, channel))
        _, verdict, step = self._masks
        return self.mask_of(verdict), step

    def mask_of(self, verdict: np.ndarray) -> np.ndarray:
        """Pick the mask of the chosen frame from the verdicts on all frames."""
        return frame_mask(verdict[int(np.searchsorted(self.result.preparation.used, self._frame - 1))])

    @property
    def text(self) -> str:
        """The values of the pictures at the pixel, in words."""
        x, y, channel = self.selected
        left, top, *_ = self.result.region
        at = channel, y - top, x - left
        maps = self.result.rejection_low, self.result.rejection_high, self.result.coverage
        low, high, coverage = (100 * float(part[at]) for part in maps)
        value, error = float(self.result.image[at]), float(self.result.uncertainty[at])
        known = f" ± {error:.2g}" if np.isfinite(error) else ""
        part = f" (column {x - left}, row {y - top} of the region)" if left or top else ""
        words = f"{self._story.place}{part}: image {value:.6g}{known}; rejected low {low:.0f} %, "
        words += f"high {high:.0f} % of the frames; coverage {coverage:.0f} %."
        if self._view == MASK:
            mask, step = self.mask()
            known = max(1, int(np.sum(mask >= 0)))
            lost = [100 * float(np.sum(mask == value)) / known for value in (1, 3, 2)]
            words += f" Frame {self._frame} lost {lost[0]:.2f} % of this channel low, {lost[1]:.2f} % high"
            if self.result.masks is not None:
                words += f", {lost[2]:.2f} % for their neighbors"
            words += "." if step == 1 else f" (every {step}th row and column)."
        return words


def _within(name: str, value: int, last: int) -> int:
    if not 1 <= int(value) <= last:
        raise ValueError(f"{name}: got {value}, expected 1 to {last}")
    return int(value)

"""Pictures of a night that goes on: the master on the screen, and its noise against the number of frames."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stacklib.figures.look import FAINT, HIGH, INK, LOW, dress_axes, new_figure, write_title
from stacklib.figures.screen import binned, stretch
from stacklib.integration.result import Integration
from stacklib.watch.record import Entry

__all__ = ["master_picture", "noise_plot", "png_of"]

#: Largest width of the picture of the master in pixels.
WIDTH = 1100


def master_picture(result: Integration) -> bytes:
    """Return the master with a screen stretch as JPEG, binned for the screen, with the top row first."""
    picture, _ = binned(result.image, WIDTH)
    if result.preparation.frames.row_order == "bottom-up":
        picture = picture[:, ::-1]
    shown = np.rint(np.clip(stretch(picture), 0, 1) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def noise_plot(entries: Sequence[Entry]) -> Figure:
    """Draw the noise of the master against the number of frames, beside that of equal frames.

    Parameters
    ----------
    entries : sequence of Entry
        The integrations of the night, with a known noise in at least one of them.

    Returns
    -------
    Figure
    """
    known = [(entry.used, entry.noise) for entry in entries if entry.noise is not None]
    counts, noise = np.array(known).T
    figure = new_figure(8.0, 3.6)
    axes = figure.add_subplot()
    span = np.arange(max(1, counts.min() // 2), max(2, round(1.25 * counts.max())) + 1)
    axes.plot(span, 1 / np.sqrt(span), color=FAINT, lw=1.2, ls="--", label="1/sqrt(N), equal frames")
    axes.plot(counts, noise, "o-", color=LOW, ms=4, lw=1, label="this night")
    axes.plot(counts[-1:], noise[-1:], "o", color=HIGH, ms=7)
    dress_axes(axes, labelsize=9, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frames used", color=INK)
    axes.set_ylabel("noise of the master (one frame = 1)", color=INK)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    write_title(figure, f"Noise after {counts[-1]:.0f} frames: {noise[-1]:.3g} of that of one frame.")
    return figure

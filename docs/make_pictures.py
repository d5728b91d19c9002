"""Make the pictures of README and docs by a run on the sample frames: python docs/make_pictures.py"""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import stacklib as sl
from stacklib.figures import result_plots as plots
from stacklib.figures.look import new_figure, show_picture, write_title
from stacklib.figures.screen import screen_limits, stretch
from stacklib.figures.trail_plots import figure_trails
from stacklib.lessons import WAYS

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_data"


def figure_both_ways() -> Figure:
    """Draw the masters of a night of clouds, classic and measured, with the same stretch."""
    folder = SAMPLES / "M63" / "4_Registered"
    masters = {way: sl.integrate(folder, sl.Recipe().replace(**changes)) for way, changes in WAYS.items()}
    limits = screen_limits(masters["measured"].image)
    figure = new_figure(12.0, 5.1)
    for axes, (way, result) in zip(figure.subplots(1, 2), masters.items(), strict=True):
        # The level of the sky is a matter of taste.
        level = np.median(result.image, axis=(1, 2)) - np.median(masters["measured"].image, axis=(1, 2))
        show_picture(axes, stretch(result.image - level[:, None, None], limits), way.capitalize())
    write_title(
        figure, "The same 12 frames, taken through clouds and a moving gradient, integrated both ways"
    )
    return figure


def main() -> None:
    """Integrate, draw, and write small PNG files."""
    result = sl.integrate(SAMPLES / "M101" / "4_Registered")
    result_with_trails = sl.integrate(SAMPLES / "M101" / "4_Registered", sl.Recipe(footprints="trails"))
    figures = {
        "before_after": plots.figure_before_after(result),
        "both_ways": figure_both_ways(),
        "result": plots.figure_result(result),
        "trails_found": figure_trails(result_with_trails),
    }
    for name, figure in figures.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=80)
        # The last two bits are mostly noise, which cannot be compressed.
        image = Image.open(drawn).convert("RGB").point(lambda level: level & 0xFC)
        image.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

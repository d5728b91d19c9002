"""Make the pictures of the README by a run on the sample frames: python docs/make_pictures.py"""

import io
from pathlib import Path

from PIL import Image

import stacklib as sl
from stacklib.explore import masks, story_plots
from stacklib.figures import result_plots as plots

HERE = Path(__file__).parent


def main() -> None:
    """Integrate, draw, and write small PNG files."""
    result = sl.integrate(HERE.parent / "sample_data" / "M101" / "4_Registered")
    cosmic_ray = sl.explain(result, **masks.typical_pixels(result)["cosmic ray"])
    figures = {
        "before_after": plots.figure_before_after(result),
        "result": plots.figure_result(result),
        "pixel": story_plots.figure_inspection(result, cosmic_ray, 1),
    }
    for name, figure in figures.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=80)
        # The last two bits are mostly noise, which cannot be compressed.
        image = Image.open(drawn).convert("RGB").point(lambda level: level & 0xFC)
        image.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

"""Experiments and figures of the notebooks 0_how_integration_works and 6_drizzle."""

from stacklib.lessons import changing_plots, mosaic_plots, plots, trail_plots
from stacklib.lessons.changing import WAYS, Clouds, changing_night
from stacklib.lessons.lesson import Lesson, rules, start
from stacklib.lessons.mosaic import Mosaics, Seeing, mosaics, seeing
from stacklib.lessons.trail import FaintTrail, faint_trail

__all__ = [
    "WAYS",
    "Clouds",
    "FaintTrail",
    "Lesson",
    "Mosaics",
    "Seeing",
    "changing_night",
    "changing_plots",
    "faint_trail",
    "mosaic_plots",
    "mosaics",
    "plots",
    "rules",
    "seeing",
    "start",
    "trail_plots",
]

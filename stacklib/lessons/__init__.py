"""Experiments and figures of the notebook 0_how_integration_works."""

from stacklib.lessons import changing_plots, plots, trail_plots
from stacklib.lessons.changing import WAYS, Clouds, changing_night
from stacklib.lessons.lesson import Lesson, rules, start
from stacklib.lessons.trail import FaintTrail, faint_trail

__all__ = [
    "WAYS",
    "Clouds",
    "FaintTrail",
    "Lesson",
    "changing_night",
    "changing_plots",
    "faint_trail",
    "plots",
    "rules",
    "start",
    "trail_plots",
]

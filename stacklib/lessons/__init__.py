"""Experiments and figures of the notebook 0_how_integration_works."""

from stacklib.lessons import changing_plots, plots
from stacklib.lessons.changing import WAYS, Clouds, changing_night
from stacklib.lessons.lesson import Lesson, rules, start

__all__ = ["WAYS", "Clouds", "Lesson", "changing_night", "changing_plots", "plots", "rules", "start"]

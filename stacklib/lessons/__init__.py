"""Experiments and figures of the notebook 0_how_integration_works."""

from stacklib.lessons import plots
from stacklib.lessons.lesson import Lesson, rules, start

__all__ = ["Lesson", "plots", "rules", "start"]

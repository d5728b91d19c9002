"""All steps on one page, for those who want to see no code."""

from stacklib.panels.app.workbench import Workbench

__all__ = ["Workbench"]

"""The front end of the frame selector: blinking, a table, plots to click, and keys."""

from stacklib.panels.blinker.blinker import RATES, Blinker
from stacklib.panels.blinker.grid import frame_grid

__all__ = ["RATES", "Blinker", "frame_grid"]

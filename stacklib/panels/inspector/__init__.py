"""The pixel inspector: click a pixel to see its samples, the limits of each round, and the verdicts."""

from stacklib.panels.inspector.inspector import PixelInspector

__all__ = ["PixelInspector"]

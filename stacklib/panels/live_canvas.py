"""Matplotlib canvases that can be clicked."""

from __future__ import annotations

from collections.abc import Callable

from ipympl.backend_nbagg import Canvas, FigureManager
from matplotlib.backend_bases import MouseEvent
from matplotlib.figure import Figure

__all__ = ["draw_when_seen", "live_canvas"]


def live_canvas(figure: Figure, on_click: Callable[[float, float], None] | None = None) -> Canvas:
    """Turn a figure into a widget; `on_click` gets the data coordinates of clicks inside axes."""
    canvas = Canvas(figure)
    FigureManager(canvas, 0)
    canvas.header_visible = False
    canvas.footer_visible = False
    canvas.toolbar_visible = False
    canvas.resizable = False
    if on_click is not None:

        def clicked(event: MouseEvent) -> None:
            if event.inaxes is not None:
                on_click(event.xdata, event.ydata)

        figure.canvas.mpl_connect("button_press_event", clicked)
    return canvas


def draw_when_seen(canvas: Canvas) -> None:
    """Redraw the canvas if a browser shows it; a browser that connects later asks for a drawing."""
    # Until a browser answers, this attribute of ipympl is set, and each drawing is also stored as text.
    if not canvas.syncing_data_url:
        canvas.draw_idle()

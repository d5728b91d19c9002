"""One viewer for every picture: zoom, pan, stretch, values and positions, as quick for 100 megapixels."""

from stacklib.panels.viewer.pages import PagesViewer
from stacklib.panels.viewer.result_viewer import ResultViewer
from stacklib.panels.viewer.viewer import Viewer, link

__all__ = ["PagesViewer", "ResultViewer", "Viewer", "link"]

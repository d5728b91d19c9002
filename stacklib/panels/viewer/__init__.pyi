from .pages import PagesViewer
from .result_viewer import ResultViewer
from .viewer import Viewer, link

__all__ = ["PagesViewer", "ResultViewer", "Viewer", "link"]

"""Live panels for notebooks, built from widgets."""

from stacklib.panels.explorer import RejectionExplorer
from stacklib.panels.folder_chooser import FolderChooser
from stacklib.panels.frame_selector import FrameSelector
from stacklib.panels.inspector import PixelInspector
from stacklib.panels.viewer import ResultViewer, Viewer, link

__all__ = [
    "FolderChooser",
    "FrameSelector",
    "PixelInspector",
    "RejectionExplorer",
    "ResultViewer",
    "Viewer",
    "link",
]

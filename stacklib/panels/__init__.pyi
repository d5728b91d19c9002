from .explorer import RejectionExplorer
from .folder_chooser import FolderChooser
from .frame_selector import FrameSelector
from .inspector import PixelInspector
from .viewer import ResultViewer, Viewer, link

__all__ = [
    "FolderChooser",
    "FrameSelector",
    "PixelInspector",
    "RejectionExplorer",
    "ResultViewer",
    "Viewer",
    "link",
]

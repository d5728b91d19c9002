"""The rejection explorer: choose rule and limits on a region that is integrated live."""

from stacklib.panels.explorer.explorer import RejectionExplorer

__all__ = ["RejectionExplorer"]

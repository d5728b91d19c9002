"""Run a notebook by hand or through papermill."""

from stacklib.notebook.parameters import ChooseRejection, HowIntegrationWorks, InspectRejection, SelectFrames
from stacklib.notebook.sample import show_for_sample
from stacklib.notebook.session import (
    compare_presets,
    is_live,
    read_parameters,
    save_choice,
    set_up_session,
    show_advice,
    show_files,
    show_night,
    show_panel,
    show_table,
    show_trails,
)

__all__ = [
    "ChooseRejection",
    "HowIntegrationWorks",
    "InspectRejection",
    "SelectFrames",
    "compare_presets",
    "is_live",
    "read_parameters",
    "save_choice",
    "set_up_session",
    "show_advice",
    "show_files",
    "show_for_sample",
    "show_night",
    "show_panel",
    "show_table",
    "show_trails",
]

from .drizzling import frames_to_drizzle, integrate_registered
from .parameters import ChooseRejection, DrizzleJob, HowIntegrationWorks, InspectRejection, SelectFrames
from .sample import show_for_sample
from .session import (
    compare_presets,
    is_live,
    read_parameters,
    save_choice,
    set_up_session,
    show_advice,
    show_drizzled,
    show_files,
    show_night,
    show_panel,
    show_table,
    show_trails,
)

__all__ = [
    "ChooseRejection",
    "DrizzleJob",
    "HowIntegrationWorks",
    "InspectRejection",
    "SelectFrames",
    "compare_presets",
    "frames_to_drizzle",
    "integrate_registered",
    "is_live",
    "read_parameters",
    "save_choice",
    "set_up_session",
    "show_advice",
    "show_drizzled",
    "show_files",
    "show_for_sample",
    "show_night",
    "show_panel",
    "show_table",
    "show_trails",
]

"""What notebooks and papermill need."""

from stacklib.notebook.session import (
    batch_from,
    is_live,
    job_from,
    own_from,
    parameters_cell,
    set_up_session,
    show_advice,
    show_files,
    show_panel,
    show_table,
)

__all__ = [
    "batch_from",
    "is_live",
    "job_from",
    "own_from",
    "parameters_cell",
    "set_up_session",
    "show_advice",
    "show_files",
    "show_panel",
    "show_table",
]

"""The table of the frames: itables (DataTables) rather than ipydatagrid.

It sorts by a click on a heading, is text for screen readers and keyboard, and needs neither pandas nor a
network; ipydatagrid draws onto a canvas and sorts from a menu.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from astropy.table import Table
from itables.widget import ITable

from stacklib.explore.frame_choice import COLUMNS, cell_text
from stacklib.panels.common import safe_html
from stacklib.utils.texts import one_line

__all__ = ["FIRST", "frame_grid"]

#: Columns that are shown at first; others can be added.
FIRST = ("sky", "noise", "stars", "fwhm", "eccentricity", "transparency", "weight", "gain")
#: Sorts after all numbers.
UNKNOWN = 1e300


def frame_grid(table: Table, names: Sequence[str]) -> ITable:
    """Create the table, one line a frame, with a box to tick and room for a note.

    Each row tells its frame by the attribute ``data-frame``; the blinker fills in boxes and notes.
    """
    headings = ["use", "frame", *(heading for heading, _ in COLUMNS.values()), "note"]
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    rows = "".join(_row(table, index, name) for index, name in enumerate(names))
    hidden = [2 + i for i, name in enumerate(COLUMNS) if name not in FIRST]
    shown_by_name = [*range(2, 2 + len(COLUMNS))]
    return ITable(
        table_html=f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>",
        paging=False,
        autoWidth=False,
        text_in_header_can_be_selected=False,
        order=[[1, "asc"]],
        columnDefs=[
            {"targets": hidden, "visible": False},
            {"targets": [0, len(headings) - 1], "orderable": False},
        ],
        buttons=[{"extend": "colvis", "text": "Columns", "columns": shown_by_name}],
        layout={"topStart": "buttons", "topEnd": None, "bottomStart": None, "bottomEnd": None},
        classes="display compact",
        style="width:100%",
        # HTML instead of a data frame, for which pandas would be needed.
        warn_on_undocumented_option=False,
    )


def _row(table: Table, index: int, name: str) -> str:
    label = escape(f"use {one_line(name)}")
    cells = [
        f'<td class="use"><input type="checkbox" aria-label="{label}"></td>',
        f'<td data-order="{index}">{safe_html(name)}</td>',
    ]
    for column in COLUMNS:
        value = table[column][index]
        if column == "time":
            order: float | str = "" if value is np.ma.masked else str(value)
        else:
            order = float(value) if np.isfinite(value) else UNKNOWN
        cells.append(f'<td data-order="{order}">{cell_text(table[index], column)}</td>')
    return f'<tr data-frame="{index}">{"".join(cells)}<td class="note"></td></tr>'

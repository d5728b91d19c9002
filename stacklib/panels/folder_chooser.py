"""A button that chooses the folder of the frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import ipywidgets as widgets
from ipyfilechooser import FileChooser

from stacklib.errors import StacklibError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import used_files
from stacklib.notebook.session import is_live
from stacklib.panels.common import Readout, safe_html
from stacklib.recipe.choices import target_name
from stacklib.utils.labels import counted

__all__ = ["FolderChooser"]

#: The title names the folder, with the button beside it. "No selection", which would stand there at first,
#: would contradict it.
STYLE = """<style>
.stacklib-folder .widget-hbox > .widget-box { display: none }
.stacklib-folder > .widget-vbox { flex-flow: row wrap; align-items: center; gap: 0 12px }
.stacklib-folder .widget-gridbox { order: 1; flex: 1 1 100% }
</style>"""


class FolderChooser:
    """Choose the folder of the frames with the mouse instead of writing it into the parameters cell.

    Parameters
    ----------
    frames : str, Path or list
        The frames so far.
    then : callable, optional
        Called when another folder was chosen, in place of the advice to run the cells below.

    Attributes
    ----------
    frames : str, Path or list
        The frames so far, or the folder chosen last.
    """

    def __init__(self, frames: str | Path | list, then: Callable[[], None] | None = None) -> None:
        self.frames, self._then = frames, then

    def choose(self, folder: str | Path) -> str:
        """Choose a folder; return what is in it and how to go on. A folder without images is not chosen."""
        try:
            images = used_files(folder)
        except StacklibError as error:
            return f"Not chosen: {error}"
        self.frames = str(folder)
        found = f"{target_name(images)}, {counted(len(images), 'frame')}."
        if self._then is not None:
            self._then()
            return found
        return (
            f"{found} Run the cells below, or, to keep the "
            f"folder for the next time, write this line into the parameters cell and run the notebook again: "
            f'frames = "{Path(folder).as_posix()}"'
        )

    @cached_property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        where = resolve_path(self.frames) if isinstance(self.frames, str | Path) else Path.cwd()
        start = where if where.is_dir() else Path.cwd()
        # Somebody who looks for another folder starts above the present one.
        words = {"select_desc": "Choose", "dir_icon": "/", "dir_icon_append": True}
        room = widgets.Layout(width="auto")
        chooser = FileChooser(str(start.parent), show_only_dirs=True, layout=room, **words)
        said = Readout()

        def name_frames() -> None:
            chooser.title = f"<b>Frames:</b> {safe_html(str(self.frames))}"

        def take(chooser: FileChooser) -> None:
            said.say(self.choose(chooser.selected_path))
            name_frames()

        chooser.register_callback(take)
        name_frames()
        box = widgets.VBox([chooser, said, widgets.HTML(STYLE)], layout=widgets.Layout(max_width="980px"))
        return box.add_class("stacklib-folder")

    def show(self, interactive: bool) -> None:
        """Display the panel in a browser; do nothing elsewhere."""
        from IPython.display import display

        if is_live(interactive):
            display(self.widget)

"""All steps as a web app without code (Voila), for this computer and this user only.

Voila alone asks nobody for a token and answers under every name of the computer, so that a web page open in
the same browser could reach it. Here it needs a token, as JupyterLab does, and answers to local names only.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stacklib.frames.finding import resolve_path

__all__ = ["app_notebook", "main"]

#: Frames to start with.
SAMPLE = "sample_data/M101/4_Registered"
#: The page; its first cell is code, which Voila does not show.
TITLE = """\
**stacklib**: choose the folder of your registered frames, and go through the pages from left to right. Only
buttons write files.
"""
SOURCE = """\
from stacklib.notebook.session import set_up_session
from stacklib.panels.app import Workbench

set_up_session()
Workbench({frames!r}).widget
"""
#: What the page of Voila loads from elsewhere: icons that the app does not use. Without a network the page
#: would wait for them.
FROM_ELSEWHERE = re.compile(r"<link[^>]*https?://[^>]*>")
#: Page that leads the browser to the app: others may see the command of the browser, but not the token.
REDIRECT = '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}">'


def app_notebook(folder: Path, frames: str) -> Path:
    """Write the notebook that is served, and return its path.

    Parameters
    ----------
    folder : Path
        Where to write it.
    frames : str
        Frames to start with.
    """
    import nbformat

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    code = SOURCE.format(frames=frames)
    cells = [nbformat.v4.new_markdown_cell(TITLE), nbformat.v4.new_code_cell(code)]
    path = folder / "stacklib.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app until it is stopped.

    Parameters
    ----------
    arguments : sequence of str, optional
        A folder of frames to start with, if the first one is no option; options, such as ``--no-browser``,
        go to Voila. Default is those of the command line.
    """
    try:
        from voila.app import Voila
    except ImportError:
        raise SystemExit('voila is missing; install it with: pip install "stacklib[app]"') from None

    class LocalApp(Voila):
        """Voila that refuses requests for other hosts, and opens the browser with the token."""

        def init_settings(self) -> dict[str, Any]:
            """Return the settings of the server."""
            return super().init_settings() | {"allow_remote_access": False, "local_hostnames": ["localhost"]}

        def setup_template_dirs(self) -> None:
            """Put a copy of the page that loads nothing from elsewhere before that of Voila."""
            super().setup_template_dirs()
            name = "index.html.j2"
            page = next(path for part in self.template_paths if (path := Path(part, name)).exists())
            own = Path(tempfile.mkdtemp(prefix="stacklib-"))
            atexit.register(shutil.rmtree, own, ignore_errors=True)
            own.joinpath(name).write_text(
                FROM_ELSEWHERE.sub("", page.read_text(encoding="utf-8")), encoding="utf-8"
            )
            self.template_paths = [str(own), *self.template_paths]

        def launch_browser(self) -> None:
            """Open the app by way of a page that only this user can read."""
            handle, name = tempfile.mkstemp(prefix="stacklib-", suffix=".html")
            os.close(handle)
            page = Path(name)
            atexit.register(page.unlink, missing_ok=True)
            page.write_text(REDIRECT.format(self.display_url), encoding="utf-8")
            webbrowser.open(page.as_uri())

    usual = ["--Voila.ip=localhost", "--Voila.auto_token=True"]
    # Otherwise each kernel warns that others on this computer may listen.
    usual.append("--KernelManager.transport_encryption=auto")
    given = sys.argv[1:] if arguments is None else list(arguments)
    frames = given.pop(0) if given and not given[0].startswith("-") else SAMPLE
    with tempfile.TemporaryDirectory(prefix="stacklib-", ignore_cleanup_errors=True) as folder:
        served = app_notebook(Path(folder), str(resolve_path(frames)))
        LocalApp.launch_instance([*usual, *given, str(served)])


if __name__ == "__main__":
    main()

"""Notebook 2 as a web app with the code hidden (Voila), for this computer and this user only.

Voila alone asks nobody for a token and answers under every name of the computer, so that a web page open in
the same browser could reach it. Here it needs a token, as JupyterLab does, and answers to local names only.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stacklib.notebook.running import notebooks_folder

__all__ = ["main"]

#: The notebook that is served.
NOTEBOOK = "2_choose_rejection.ipynb"
#: Page that leads the browser to the app: others may see the command of the browser, but not the token.
REDIRECT = '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}">'


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app until it is stopped. Arguments, such as ``--no-browser``, go to Voila."""
    try:
        from voila.app import Voila
    except ImportError:
        raise SystemExit('voila is missing; install it with: pip install "stacklib[app]"') from None

    class LocalApp(Voila):
        """Voila that refuses requests for other hosts, and opens the browser with the token."""

        def init_settings(self) -> dict[str, Any]:
            """Return the settings of the server."""
            return super().init_settings() | {"allow_remote_access": False, "local_hostnames": ["localhost"]}

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
    LocalApp.launch_instance([*usual, *given, str(notebooks_folder() / NOTEBOOK)])


if __name__ == "__main__":
    main()

"""``stacklib lab``: open the notebooks."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from stacklib.errors import IntegrationError
from stacklib.notebook.copies import own_copies
from stacklib.notebook.process import INSTALL
from stacklib.notebook.running import notebooks_folder

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Open the notebooks in JupyterLab. Other arguments, such as --no-browser, are passed on."
    )
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """Open JupyterLab."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise IntegrationError(f"jupyterlab is missing; install it with: {INSTALL}")
    folder = own_copies(notebooks_folder(), Path.cwd() / "stacklib_notebooks")
    first = min(folder.glob("[0-9]*.ipynb"), default=folder)
    # -P: not with modules of the current folder.
    command = [sys.executable, "-P", "-m", "jupyterlab", f"--ServerApp.root_dir={folder.parent}"]
    # Otherwise each kernel warns that others on this computer may listen.
    command.append("--KernelManager.transport_encryption=auto")
    command.append(f"--LabApp.default_url=/lab/tree/{folder.name}/{first.name}")
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.call([*command, *options.rest])
    return 0

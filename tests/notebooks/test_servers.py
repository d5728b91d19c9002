"""The app and JupyterLab answer to this computer and to those with the token; panels write job files only."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from stacklib.errors import RecipeError
from stacklib.panels.common import chosen_file

#: Known to both servers; a token is needed, and no kernel starts.
ADDRESS = "/api/kernels/00000000-0000-0000-0000-000000000000"


@contextlib.contextmanager
def served(command: list[str], folder) -> Iterator[tuple[int, str]]:
    """Run a server; yield its port and the token that it gave itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_RUNTIME_DIR": str(folder)}
    command = [sys.executable, *command, "--no-browser", f"--port={port}"]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            end, token = time.monotonic() + 60, None
            while not token and time.monotonic() < end and process.poll() is None:
                time.sleep(0.1)
                token = re.search(r"[?]token=(\w{16,})", (folder / "log").read_text("utf-8", "replace"))
            assert token, (folder / "log").read_text("utf-8", "replace")
            # The server writes its address before it listens.
            while not listening(port) and time.monotonic() < end and process.poll() is None:
                time.sleep(0.1)
            yield port, token[1]
        finally:
            process.terminate()
            process.wait(20)


def listening(port: int) -> bool:
    """Tell whether somebody answers at a port of this computer."""
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5):
            return True
    return False


def status(port: int, token: str = "", host: str = "localhost") -> int:
    """Ask a server, and return the status of its answer."""
    for address in ("127.0.0.1", "::1"):
        with (
            contextlib.suppress(ConnectionRefusedError),
            contextlib.closing(http.client.HTTPConnection(address, port, timeout=20)) as connection,
        ):
            headers = {"Host": f"{host}:{port}"} | ({"Authorization": f"token {token}"} if token else {})
            connection.request("GET", ADDRESS, headers=headers)
            return connection.getresponse().status
    raise ConnectionRefusedError(port)


def assert_closed_to_others(port: int, token: str) -> None:
    assert status(port, token) == 404
    assert status(port, token, host="127.0.0.1") == 404
    assert status(port) == 403 and status(port, "0" * len(token)) == 403
    # The name that a page of somebody else gave to this computer.
    assert status(port, token, host="evil.example") == 403
    for family, *_, where in socket.getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM):
        if not where[0].startswith("127.") and where[0] != "::1":
            with socket.socket(family) as outside, pytest.raises(OSError):
                outside.settimeout(5)
                outside.connect(where)


def test_the_app_is_for_this_computer_only(tmp_path):
    pytest.importorskip("voila", reason="no Voila for the test of make app: pip install voila")
    with served(["-m", "stacklib.notebook.app"], tmp_path) as (port, token):
        assert_closed_to_others(port, token)
        # The page loads nothing from elsewhere, which would keep it waiting without a network.
        asked = urllib.request.Request(
            f"http://localhost:{port}/", headers={"Authorization": f"token {token}"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            page = answer.read().decode()
        assert "rendered_cells" in page and not re.search(r"""(href|src)=["']https?://(?!localhost)""", page)


def test_lab_is_for_this_computer_only(tmp_path):
    lab = ["-m", "stacklib.cli", "lab", "--allow-root", "--ServerApp.port_retries=0"]
    with served(lab, tmp_path) as (port, token):
        assert_closed_to_others(port, token)


def test_panels_write_job_files_only(tmp_path, monkeypatch):
    usual = tmp_path / "M1" / "recipe.yaml"
    assert chosen_file("", usual) == usual
    assert chosen_file(str(tmp_path / "other.YML"), usual) == tmp_path / "other.YML"
    for name in (".bashrc", "recipe.yaml.bak", "authorized_keys", "a\0.txt", "recipe.yaml\0"):
        with pytest.raises(RecipeError, match=r"is not the name of a job file; give it the ending \.yaml"):
            chosen_file(str(tmp_path / name), usual)


def test_the_app_writes_beside_the_frames_only(tmp_path, monkeypatch):
    monkeypatch.setenv("VOILA_KERNEL_ID", "1")
    usual = tmp_path / "M1" / "recipe.yaml"
    usual.parent.mkdir()
    assert chosen_file(str(usual.with_name("job.yaml")), usual) == usual.with_name("job.yaml")
    (tmp_path / "elsewhere").mkdir()
    names = ["elsewhere/a.yaml", "M1/../a.yaml", "M1/sub/a.yaml"]
    if hasattr(os, "symlink") and os.name != "nt":
        (usual.parent / "link").symlink_to(tmp_path / "elsewhere")
        names.append("M1/link/a.yaml")
    for name in names:
        with pytest.raises(RecipeError, match="the web app writes only into"):
            chosen_file(f"{tmp_path}/{name}", usual)

"""What several tests share: the sample frames and their integrations."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import stacklib as sl
from stacklib.simulate import Trail, simulate_frames
from stacklib.utils.package import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_data"


def pytest_configure(config: pytest.Config) -> None:
    """Give the session a cache folder of its own, which child processes and workers inherit."""
    if not hasattr(config, "workerinput"):
        os.environ[CACHE_VARIABLE] = tempfile.mkdtemp(prefix="stacklib-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache folder of the session."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[CACHE_VARIABLE], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process works alone at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("browser", "notebooks"))


def integrate_quietly(target: str, **changes) -> sl.Integration:
    """Integrate sample frames; they have no NOISE keywords, which is worth a warning elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        folder = SAMPLES / target / "4_Registered"
        return sl.integrate(folder, sl.Recipe().replace(**changes), progress=False)


@pytest.fixture
def say(capsys) -> Callable[[str], None]:
    """Print measurements even if the test passes."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    return print_it


@pytest.fixture(scope="session")
def m13() -> sl.Integration:
    """Twelve mono frames."""
    return integrate_quietly("M13")


@pytest.fixture(scope="session")
def m101() -> sl.Integration:
    """Twenty colour frames."""
    return integrate_quietly("M101")


@pytest.fixture(scope="session")
def trailed_folder(tmp_path_factory) -> Path:
    """Ten small mono frames; a trail of 3 sigma crosses number 4, one of 25 sigma number 7."""
    trails = (
        Trail(3, (-20.0, 30.0), (200.0, 100.0), peak=3.0),
        Trail(6, (40.0, 160.0), (130.0, -20.0), peak=25.0),
    )
    night = simulate_frames(10, 130, 170, 1, "field", 5, trails=trails, cloudy=0, cosmic_rays=3.0)
    folder = tmp_path_factory.mktemp("trailed") / "4_Registered"
    night.save(folder)
    return folder


@pytest.fixture(scope="session")
def trailed(trailed_folder) -> sl.Integration:
    """Those frames, integrated with all that looks at neighbors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(trailed_folder, sl.Recipe(footprints="all"), progress=False)

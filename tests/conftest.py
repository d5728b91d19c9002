"""What several tests share: the sample frames and their integrations."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import stacklib as sl

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_data"


def integrate_quietly(target: str, **changes) -> sl.Integration:
    """Integrate sample frames; they have no NOISE keywords, which is worth a warning elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        folder = SAMPLES / target / "4_Registered"
        return sl.integrate(folder, sl.Recipe().replace(**changes), progress=False)


@pytest.fixture(scope="session")
def m13() -> sl.Integration:
    """Twelve mono frames."""
    return integrate_quietly("M13")


@pytest.fixture(scope="session")
def m101() -> sl.Integration:
    """Twenty colour frames."""
    return integrate_quietly("M101")

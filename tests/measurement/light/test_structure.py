"""Light of structure that is no star."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_stars import SHAPE

from stacklib.measurement.light.structure import compare_structure


def test_structure_without_stars():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    cloud = np.exp(-((x - 150) ** 2 + (y - 110) ** 2) / (2 * 15.0**2))
    rng = np.random.default_rng(2)
    stack = (0.1 * cloud + rng.normal(0, 3e-4, SHAPE)).astype(np.float32)
    frame = (0.05 * cloud + 0.2 + 1e-4 * x + rng.normal(0, 1e-3, SHAPE)).astype(np.float32)
    light = compare_structure(frame, stack)
    assert light.known and light.ratio == pytest.approx(0.5, rel=0.03)

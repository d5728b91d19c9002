"""What is predicted before the run: coverage, dither, whether drizzling pays, and the noise after it."""

from dataclasses import replace

import numpy as np
import pytest

from stacklib.drizzle import coverage
from stacklib.drizzle.coverage import Forecast, _dither, forecast, noise_correlation
from stacklib.drizzle.deposit import Drop, Grid, deposit
from stacklib.drizzle.geometry import Geometry
from stacklib.frames.mosaic import Sites

HEIGHT, WIDTH = 200, 240
RGGB, MONO = Sites("RGGB", 3), Sites("", 1)


def moved(shifts):
    return [
        Geometry(matrix=np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]), width=WIDTH, height=HEIGHT)
        for x, y in shifts
    ]


def random(count, size=8.0, seed=1):
    return moved(np.random.default_rng(seed).uniform(-size, size, (count, 2)))


def predicted(geometries, sites=RGGB, **options):
    grid = {name: options.pop(name) for name in ("scale", "drop", "kernel") if name in options}
    return forecast(geometries, sites, Grid(width=WIDTH, height=HEIGHT, **grid), (HEIGHT, WIDTH), **options)


@pytest.mark.parametrize(("scale", "drop", "count"), [(1.5, 0.4, 5), (2.0, 0.5, 9)])
def test_predicted_holes_equal_the_real_ones(scale, drop, count, monkeypatch):
    monkeypatch.setattr(coverage, "SMALL_GRID", 0)
    geometries = random(count)
    found = predicted(geometries, scale=scale, drop=drop, whole=True)
    rng = np.random.default_rng(3)

    class Plane:
        height, width = HEIGHT, WIDTH
        samples = rng.random((HEIGHT, WIDTH)).astype(np.float32)

        def read_rows(self, start, stop, channel):
            return self.samples[start:stop]

    counted = [Drop.to_count(HEIGHT, WIDTH, g.inverse, 3) for g in geometries]
    drops = [replace(drop, pixels=Plane(), offset=np.ones(3)) for drop in counted]
    real = deposit(drops, RGGB, found.grid).weights
    assert np.array_equal(found.samples[:, 0, 0], real)
    inner = np.s_[:, int(12 * scale) : int(-12 * scale), int(12 * scale) : int(-12 * scale)]
    holes = (real[inner] == 0).mean(axis=(1, 2))
    assert np.allclose(found.holes, holes, atol=0.003) and holes[0] > holes[1]
    # Windows show nearly the same.
    assert np.allclose(predicted(geometries, scale=scale, drop=drop).holes, holes, atol=0.02)


def test_windows_are_parts_of_the_whole(monkeypatch):
    assert predicted(random(3)).samples.shape == (3, 1, 1, HEIGHT, WIDTH)
    monkeypatch.setattr(coverage, "SMALL_GRID", 0)
    geometries = random(5)
    whole = predicted(geometries, whole=True).samples[:, 0, 0]
    found = predicted(geometries).samples
    assert found.shape == (3, 3, 3, 64, 64)
    assert np.allclose(found[:, 0, 0], whole[:, 34:98, 44:108], atol=1e-5)


@pytest.mark.parametrize(
    ("geometries", "sites", "low", "high"),
    [
        (random(40), RGGB, 0.75, 1.0),
        (random(40), MONO, 0.75, 1.0),
        (moved([(0, 0)] * 40), RGGB, 0.0, 0.01),
        # By whole pixels, and by whole periods of the mosaic.
        (moved(np.random.default_rng(1).integers(-9, 9, (40, 2))), MONO, 0.0, 0.01),
        (moved(2 * np.random.default_rng(1).integers(-9, 9, (40, 2))), RGGB, 0.0, 0.01),
        (moved(np.random.default_rng(1).integers(-9, 9, (40, 2))), RGGB, 0.1, 0.4),
    ],
)
def test_how_well_frames_are_dithered(geometries, sites, low, high):
    assert low <= _dither(geometries, sites.period) <= high


def told(holes=0.0, dither=1.0, fwhm=np.nan, mosaic=False, frames=40, **grid):
    return Forecast(
        grid=Grid(width=WIDTH, height=HEIGHT, **grid),
        frames=frames,
        colors=("R", "G", "B"),
        samples=np.ones((3, 1, 1, 1, 1), np.float32),
        holes=np.array([holes, 0.0, 0.0]),
        shifts=np.zeros((frames, 2)),
        dither=dither,
        fwhm=fwhm,
        mosaic=mosaic,
        unevenness=np.zeros(3),
        geometries=(),
        sites=RGGB,
        shape=(HEIGHT, WIDTH),
    )


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"mosaic": True}, "at scale 1 and drop 0.9 pays: each color is taken from its own pixels"),
        ({"scale": 2.0, "fwhm": 1.6}, "at scale 2 and drop 0.9 pays: stars of 1.6 px are undersampled."),
        ({"scale": 2.0, "fwhm": 3.1}, "does not pay: stars of 3.1 px are sampled well already"),
        ({"scale": 2.0}, "pays if stars are narrower than 2 px."),
        ({}, "avoids interpolation, but gains no resolution"),
        ({"dither": 0.1, "scale": 2.0}, "does not pay: the frames hardly differ"),
        (
            {"holes": 0.25, "scale": 2.0},
            "holes of 25 %: use a smaller scale or a larger drop or more frames.",
        ),
        ({"holes": 0.01, "drop": 1.0}, "leaves holes of 1 %: use more frames."),
    ],
)
def test_the_verdict_is_one_sentence(about, words):
    verdict = told(**about).verdict
    assert words in verdict and verdict.startswith("Drizzling at scale") and verdict.count(". ") == 0


def test_what_is_warned_of():
    assert not told().warnings
    assert told(frames=6).warnings[0].startswith("6 frames are few for drizzling: 15 or more leave no holes")
    assert "lie within a period of the mosaic" in told(dither=0.1, mosaic=True).warnings[0]
    assert "without any sample are left: R 25 %; use a smaller" in told(holes=0.25).warnings[0]


def test_a_forecast_knows_its_colors():
    assert predicted(random(3)).colors == ("R", "G", "B") and predicted(random(3), MONO).colors == ("0",)
    assert isinstance(predicted(random(3)), Forecast) and predicted(random(3)).shifts.shape == (3, 2)


@pytest.mark.parametrize(("scale", "drop"), [(1.0, 1.0), (1.0, 0.5), (2.0, 0.9)])
def test_the_noise_of_large_areas(scale, drop):
    size, count = 96, 60
    rng = np.random.default_rng(5)

    class Noise:
        height = width = size

        def __init__(self):
            self.samples = rng.normal(0, 1, (size, size)).astype(np.float32)

        def read_rows(self, start, stop, channel):
            return self.samples[start:stop]

    drops = []
    for x, y in rng.uniform(-2, 2, (count, 2)):
        inverse = np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        drops.append(replace(Drop.to_count(size, size, inverse, 1), pixels=Noise()))
    image = deposit(drops, MONO, Grid(width=size, height=size, scale=scale, drop=drop)).image[0]
    edge = int(4 * scale)
    inner = image[edge:-edge, edge:-edge]
    block = int(8 * scale)
    count = len(inner) // block
    means = inner[: count * block, : count * block].reshape(count, block, count, block).mean(axis=(1, 3))
    assert means.std() * block / inner.std() == pytest.approx(noise_correlation(scale, drop), rel=0.12)

"""The steps of an integration that need compiled code, each on a few made-up samples.

A step calls the functions of the run itself, so that the code is that of the run. What is not listed here,
such as what only some settings need, is compiled on the way. Each step imports what it needs, because a
process that compiles does only some of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stacklib.kernel.passes import Tile
    from stacklib.kernel.tiles import TileSamples

__all__ = [
    "combine_samples",
    "compare_light",
    "find_noisy_places",
    "find_structure",
    "fit_surfaces",
    "look_for_hits",
    "mark_hits",
    "measure_levels",
    "measure_noise",
    "measure_result",
    "register",
    "reject",
    "sort_samples",
    "write_scatter",
]

#: Number of made-up frames, and side of their planes.
FRAMES, SIDE = 6, 96
#: Distance of the made-up stars, and their standard deviation in pixels.
APART, WIDTH = 16, 1.5


def measure_levels(estimator: str) -> None:
    """Measure level, spread and gradient of a plane."""
    from stacklib.measurement.gradient import gradient
    from stacklib.measurement.measurements import measure_samples
    from stacklib.measurement.statistics import count_between, finite_range

    plane = _plane()
    measure_samples(plane, estimator, 0.0, 1.0, finite_range(plane))
    count_between(plane, 0.0, np.inf)
    gradient(plane, 0.0)


def measure_noise() -> None:
    """Measure the noise of a plane."""
    from stacklib.measurement.noise import plane_noise

    plane_noise(_plane(), 0.0, 0.1)


def register() -> None:
    """Find how frames lie on each other."""
    from stacklib.integration.registration import measure_shifts

    planes = [_plane(number) for number in range(3)]
    measure_shifts(lambda i, window: planes[i], len(planes), (SIDE, SIDE), threads=1)


def compare_light() -> None:
    """Stack frames, and compare the light of their stars."""
    from stacklib.measurement.light.photometry import Template, compare_stars
    from stacklib.normalization.robust_stack import median_stack

    planes = [_plane(number) for number in range(FRAMES)]
    stack = median_stack(lambda k, start, stop: planes[k][start:stop], FRAMES, (SIDE, SIDE), 1)
    y, x = (places.ravel().astype(np.float64) for places in _star_places())
    compare_stars(planes[0], Template.measured(stack, x, y, 2.35 * WIDTH, 3.0), seeing=1.0)


def fit_surfaces() -> None:
    """Fit a surface to the background, and correct a plane by it."""
    from stacklib.normalization.surfaces import Surfaces, block_levels, block_side, fit_surface

    plane, structure = _plane(), np.zeros((SIDE, SIDE), bool)
    side = block_side(SIDE, SIDE)
    block_levels(plane, structure, side)
    fitted = fit_surface(block_levels(plane, structure, side, _plane(1), 1.0), SIDE, SIDE)
    if fitted is not None:
        Surfaces(SIDE, SIDE, fitted[0][None, None, None, None]).correct(0, 0, plane)


def find_structure() -> None:
    """Smooth a plane, and grow what is found in it."""
    from stacklib.utils.filters.discs import grow
    from stacklib.utils.filters.smoothing import gaussian_reflected

    plane = gaussian_reflected(_plane(), WIDTH)
    grow(plane > plane.mean(), 1)


def sort_samples() -> None:
    """Normalize, sort and measure the samples of some pixels."""
    tile, raw = _tile("none"), _raw()
    tile.measure(tile.sort(raw, 0, raw.shape[1]))


def reject(rule: str) -> None:
    """Reject samples by a rule."""
    from stacklib.rejection.sorting import LANES

    tile = _tile(rule)
    tile.reject(_sorted(tile), np.empty(LANES, np.float32))


def combine_samples(bits: int) -> None:
    """Combine the samples that are left."""
    from stacklib.kernel.combination import combine
    from stacklib.kernel.pixels import Counts, Pixels
    from stacklib.kernel.scatter import widen
    from stacklib.kernel.tiles import Band
    from stacklib.rejection.sorting import LANES

    tile, band = _tile("none", bits), Band(_raw(), 0, LANES)
    pixels, counts = Pixels.empty(LANES, tile.settings), Counts.zeros(FRAMES)
    how = tile.settings.recipe.map_range_rejection, tile.by_frame
    combine(band, _sorted(tile), tile.table, tile.data_range, how, tile.claims, pixels, counts.table)
    plane = np.ones((4, 4), np.float32)
    widen(plane, plane.copy(), plane.copy(), np.ones(FRAMES))


def measure_result() -> None:
    """Measure the noise of the result."""
    from stacklib.measurement.scale_noise import scale_noise

    scale_noise(_plane())


def find_noisy_places() -> None:
    """Find where the samples differ more than the noise of the frames."""
    from stacklib.kernel.pixels import Ratios
    from stacklib.kernel.scatter import find_excess

    ratios = Ratios(*(np.ones((8, 8), np.float32) for _ in range(4)))
    find_excess(ratios, np.ones(FRAMES), contrast=1.0)


def write_scatter() -> None:
    """Write the scatter of samples to planes, which rules with limits for each frame need."""
    from stacklib.kernel.pixels import Ratios
    from stacklib.kernel.scatter import write_ratios
    from stacklib.rejection.sorting import LANES

    write_ratios(_sorted(_tile("none")), 0, LANES, Ratios.empty(LANES))


def look_for_hits() -> None:
    """Look for samples that may be hits, and see by how much they differ."""
    from stacklib.kernel.suspects import Suspects, find_suspects
    from stacklib.kernel.tiles import Band
    from stacklib.rejection.sorting import LANES
    from stacklib.spatial.residuals import KeptMean, residuals_of, write_noise

    tile, found = _tile("none"), Suspects.empty(LANES * FRAMES)
    number, by = np.empty(LANES, np.float32), np.ones((3, FRAMES))
    find_suspects(Band(_raw(), 0, LANES), _sorted(tile), tile.table, by, tile.curve, 1.0, number, found)
    first, one = Suspects(*(array[:1] * 0 for array in found)), np.ones(1, np.float32)
    kept = KeptMean(one, one, one, one, np.zeros(1, bool))
    residuals_of(first.value, first.verdict, kept, tile.settings, first.frame)
    write_noise(KeptMean(*(array.reshape(1, 1) for array in kept)), one.reshape(1, 1), tile.settings)


def mark_hits() -> None:
    """Mark samples around hits, and leave them out."""
    from stacklib.integration.colour.marks import HitMarks

    region = (0, 0, SIDE, SIDE)
    marks, hit = HitMarks(1, (SIDE, SIDE)), np.ones(1, bool)
    marks.add(np.zeros(1, np.int32), np.full(1, SIDE + 1), hit, hit)
    marks.grow()
    masks = marks.masks(region, [marks.flags], ["frame"], np.arange(1))
    masks.blank(_plane(), 0, 0, 0, 0)
    masks.count(np.arange(1), 0, region, *(np.zeros((SIDE, SIDE), np.float32) for _ in range(3)))


def _star_places() -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the made-up stars."""
    y, x = np.mgrid[APART:SIDE:APART, APART:SIDE:APART]
    return y, x


def _plane(number: int = 0) -> np.ndarray:
    """Return a plane of made-up stars in noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    plane = 0.1 + 0.001 * np.random.default_rng(number).standard_normal((SIDE, SIDE))
    for row, column in zip(*(places.ravel() for places in _star_places()), strict=True):
        plane += 0.2 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * WIDTH**2))
    return plane.astype(np.float32)


def _raw() -> np.ndarray:
    """Return samples of some pixels, float32 (frames, pixels)."""
    from stacklib.rejection.sorting import LANES

    return np.random.default_rng(1).normal(0.1, 0.01, (FRAMES, LANES)).astype(np.float32)


def _tile(rule: str, bits: int = 32) -> Tile:
    """Return the buffers for a rule, with the noise of the frames known."""
    from stacklib.kernel.passes import Tile
    from stacklib.normalization.settings import Settings
    from stacklib.recipe.recipe import Recipe

    settings = Settings.plain(Recipe(rejection=rule, output_bits=str(bits)), FRAMES)
    return Tile(replace(settings, noise=np.ones(FRAMES), curve=np.array([[0.1], [1e-4]])))


def _sorted(tile: Tile) -> TileSamples:
    """Return a block of sorted samples, all of them kept."""
    samples = tile.samples.first(1)
    samples.values[0] = _raw()
    samples.ordered[0] = np.sort(samples.values[0], axis=0)
    samples.count[:], samples.low[:], samples.high[:] = FRAMES, 0, FRAMES
    samples.detail[:], samples.scatter[:] = 0.0, 1e-4
    return samples

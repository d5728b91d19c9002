"""Find the geometry of frames by their stars: triangles of bright stars first, then all stars.

Triangles are compared by the ratios of their sides, as by Groth (1986) and Valdes et al. (1995). Every pair
of like triangles is a vote for a similarity; the right one gets many, at one place. Once all frames are
matched with one of them, the stars of all make a catalog, with which they are matched again: its places are
more exact than those of any frame, and it has stars that a single frame shows by chance only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

from stacklib.drizzle.geometry import Geometry
from stacklib.errors import FrameError
from stacklib.measurement.stars import StarPlaces
from stacklib.simulate.registration import mapped
from stacklib.utils.labels import counted

__all__ = ["LARGEST_RMS", "LEAST_STARS", "find_geometries", "find_geometry"]

#: A geometry by fewer stars, or with a larger residual in pixels, is refused.
LEAST_STARS, LARGEST_RMS = 10, 0.5
#: Number of bright stars of which triangles are made, and of neighbors of each star in them.
BRIGHT, NEIGHBORS = 60, 7
#: Largest difference of the ratios of two like triangles, and shortest side of a triangle in pixels.
ALIKE, SHORTEST = 0.012, 12.0
#: Votes agree if they move the corners of the frame within this many pixels; number of best votes that are
#: tried on all stars, and number of stars that are matched at most.
AGREE, TRIED, MATCHED = 4.0, 12, 1000
#: Distances in pixels within which stars are matched, one after the other, and those with a known start.
CLOSER, CLOSE = (4.0, 3.0, 2.0, 2.0), (2.0, 2.0, 2.0)
#: Stars beyond this many sigma do not count.
CLIPPED = 3.5
#: Error of a place that is not noise, such as that by pixels of different colors, in pixels.
LEAST_ERROR = 0.05
#: A homography is used from this many stars on, and if its residual is smaller by this factor.
FOR_HOMOGRAPHY, BETTER = 30, 0.95
#: Fraction of the frames in which a star of the catalog is seen, at least.
SEEN = 0.25

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def find_geometries(
    stars: Sequence[StarPlaces], shape: tuple[int, int], names: Sequence[str], model: str = "auto"
) -> tuple[int, list[Geometry | FrameError]]:
    """Find the geometry of all frames of one field.

    Parameters
    ----------
    stars : sequence of StarPlaces
        The stars of each frame, with the origin at the corner of the first pixel.
    shape : tuple of int
        Height and width of the frames.
    names : sequence of str
        Names of the frames, for errors.
    model : {"auto", "similarity", "homography"}
        Kind of geometry. ``auto`` is a homography if there are enough stars and it fits better.

    Returns
    -------
    reference : int
        The frame whose geometry is the reference: the one with the most stars.
    geometries : list of Geometry or FrameError
        Geometry of each frame, or why there is none.
    """
    reference = int(np.argmax([found.x.size for found in stars]))
    first: list[_Pairs | None] = []
    for places in stars:
        pairs = _best(stars[reference], places)
        first.append(pairs if len(pairs.here) >= min(LEAST_STARS, 4) and not pairs.mirrored else None)
    known = [pairs for pairs in first if pairs is not None]
    if len(known) < 3:
        return reference, [
            _or_error(find_geometry, stars[reference], places, shape, name, model)
            for places, name in zip(stars, names, strict=True)
        ]
    catalog = _catalog(stars, first, len(known))
    return reference, [
        _or_error(find_geometry, catalog, places, shape, name, model, pairs)
        for places, name, pairs in zip(stars, names, first, strict=True)
    ]


def _or_error(find: Callable[..., Geometry], *given) -> Geometry | FrameError:
    try:
        return find(*given)
    except FrameError as error:
        return error


def find_geometry(
    reference: StarPlaces,
    frame: StarPlaces,
    shape: tuple[int, int],
    name: str,
    model: str = "auto",
    start: _Pairs | None = None,
) -> Geometry:
    """Match the stars of a frame with those of the reference.

    Parameters
    ----------
    reference, frame : StarPlaces
        Their stars, with the origin at the corner of the first pixel.
    shape : tuple of int
        Height and width of the reference.
    name : str
        Name of the frame, for errors.
    model : {"auto", "similarity", "homography"}
        Kind of geometry. ``auto`` is a homography if there are enough stars and it fits better.
    start : optional
        A match that was found before.

    Returns
    -------
    Geometry

    Raises
    ------
    FrameError
        If fewer than 10 stars match, the residual exceeds 0.5 pixels, or the frame is a mirror image.
    """
    least = min(reference.x.size, frame.x.size)
    if least < LEAST_STARS:
        raise _refused(name, f"only {counted(least, 'star')} were found")
    if start is None:
        best = _best(reference, frame)
    else:
        best = _grown(start.matrix, _points(reference), _points(frame), CLOSE)
    if len(best.here) < LEAST_STARS:
        raise _refused(
            name, f"only {counted(len(best.here), 'star')} of {least} match those of the reference"
        )
    if best.mirrored:
        raise FrameError(
            f"{name}: is a mirror image of the reference ({counted(len(best.here), 'star')} match); turn the "
            "frames the same way"
        )
    x, y = _points(reference)[best.here], _points(frame)[best.there]
    error = np.hypot(reference.error[best.here], frame.error[best.there])
    weights = 1 / (LEAST_ERROR**2 + error**2)
    matrix, rms, count = _fitted(x, y, weights, _similarity)
    kind = "similarity"
    if model == "homography" or (model == "auto" and count >= FOR_HOMOGRAPHY):
        other, other_rms, other_count = _fitted(x, y, weights, _homography)
        # Four more numbers fit better by themselves.
        fair = other_rms * math.sqrt(max(2 * other_count - 4, 1) / max(2 * other_count - 8, 1))
        if model == "homography" or (other_count >= LEAST_STARS and fair < BETTER * rms):
            matrix, rms, count, kind = other, other_rms, other_count, "homography"
    if count < LEAST_STARS:
        raise _refused(name, f"only {counted(count, 'star')} fit one geometry")
    if not rms <= LARGEST_RMS:
        raise _refused(
            name, f"the matched stars lie {rms:.2f} px off (rms), at most {LARGEST_RMS:g} px are accepted"
        )
    height, width = shape
    return Geometry(
        matrix=matrix,
        width=width,
        height=height,
        origin=f"{kind} by {counted(count, 'star')}",
        stars=count,
        rms=rms,
    )


def _refused(name: str, why: str) -> FrameError:
    return FrameError(
        f"{name}: its geometry cannot be found by stars: {why}; leave the frame out, or give the geometry of "
        "the registration (.xdrz or .seq)"
    )


def _points(stars: StarPlaces) -> np.ndarray:
    return np.c_[stars.x, stars.y]


class _Pairs(NamedTuple):
    """Indices of matched stars in the reference and in the frame, and the similarity by which they match."""

    here: np.ndarray
    there: np.ndarray
    matrix: np.ndarray

    @property
    def mirrored(self) -> bool:
        return bool(np.linalg.det(self.matrix[:2, :2]) < 0)


def _best(reference: StarPlaces, frame: StarPlaces) -> _Pairs:
    """Match two frames about whose places nothing is known. The result may have no pairs."""
    best = _Pairs(np.empty(0, int), np.empty(0, int), np.eye(3))
    if min(reference.x.size, frame.x.size) < 4:
        return best
    here, there = _points(reference), _points(frame)
    for start in _votes(here, there):
        found = _grown(start, here, there, CLOSER)
        if len(found.here) > len(best.here):
            best = found
    return best


def _catalog(stars: Sequence[StarPlaces], first: Sequence[_Pairs | None], frames: int) -> StarPlaces:
    """Return the stars of all frames at their mean places in the reference."""
    points, errors, ranks = [], [], []
    for places, pairs in zip(stars, first, strict=True):
        if pairs is not None:
            points.append(np.c_[mapped(np.linalg.inv(pairs.matrix), places.x, places.y)])
            errors.append(places.error)
            ranks.append(np.arange(places.x.size) / places.x.size)
    place, error, rank = np.concatenate(points), np.concatenate(errors), np.concatenate(ranks)
    tree = cKDTree(place)
    near = tree.query_ball_point(place, CLOSER[-1] / 2)
    left = np.ones(len(place), bool)
    found = []
    for i in np.argsort([-len(group) for group in near], kind="stable"):
        group = [k for k in near[i] if left[k]]
        if len(group) < max(2, SEEN * frames):
            continue
        left[group] = False
        weights = 1 / (LEAST_ERROR**2 + error[group] ** 2)
        x, y = np.average(place[group], axis=0, weights=weights)
        found.append((float(np.median(rank[group])), x, y, 1 / math.sqrt(weights.sum())))
    _, x, y, sigma = np.array(sorted(found)).reshape(-1, 4).T
    return StarPlaces(x, y, sigma, math.nan)


def _triangles(stars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles of bright stars and the ratios of their sides.

    Returns
    -------
    corners : ndarray of int, shape (triangles, 3)
        Indices of the stars: opposite to the longest side, to the middle one, to the shortest one.
    ratios : ndarray of float64, shape (triangles, 2)
        The middle and the shortest side relative to the longest one.
    """
    bright = stars[:BRIGHT]
    _, near = cKDTree(bright).query(bright, min(NEIGHBORS + 1, len(bright)))
    sides_of = list(combinations(range(1, near.shape[1]), 2))
    chosen = np.array([(row[0], row[i], row[j]) for row in near for i, j in sides_of])
    chosen = np.unique(np.sort(chosen, axis=1), axis=0)
    points = bright[chosen]
    sides = np.linalg.norm(points[:, [1, 2, 0]] - points[:, [2, 0, 1]], axis=2)
    order = np.argsort(-sides, axis=1, kind="stable")
    sides = np.take_along_axis(sides, order, 1)
    good = sides[:, 2] > SHORTEST
    corners = np.take_along_axis(chosen, order, 1)[good]
    return corners, (sides[:, 1:] / sides[:, :1])[good]


def _votes(reference: np.ndarray, frame: np.ndarray) -> list[np.ndarray]:
    """Return the similarities for which most pairs of triangles vote, float64 (3, 3), the best ones first.

    A mirror image is one as well.
    """
    corners, ratios = _triangles(reference)
    others, other_ratios = _triangles(frame)
    if not len(corners) or not len(others):
        return []
    pairs = cKDTree(ratios).sparse_distance_matrix(cKDTree(other_ratios), ALIKE, output_type="ndarray")
    if not pairs.size:
        return []
    here, there = reference[corners[pairs["i"]]], frame[others[pairs["j"]]]
    z, w = (points[..., 0] + 1j * points[..., 1] for points in (here, there))
    mirrored = _turns_left(z) != _turns_left(w)
    z = np.where(mirrored[:, None], np.conj(z), z)
    middle, target = z.mean(axis=1), w.mean(axis=1)
    dz, dw = z - middle[:, None], w - target[:, None]
    factor = (np.conj(dz) * dw).sum(axis=1) / (np.abs(dz) ** 2).sum(axis=1)
    shift = target - factor * middle
    size = np.ptp(reference, axis=0).max()
    # Where the similarity puts two places far apart; a mirror image lies far from all others.
    ends = shift, shift + factor * size
    places = np.column_stack([*(part for end in ends for part in (end.real, end.imag)), mirrored * 1e6])
    tree = cKDTree(places)
    count = tree.query_ball_point(places, AGREE, return_length=True)
    found: list[np.ndarray] = []
    left = np.ones(len(places), bool)
    for vote in np.argsort(-count, kind="stable"):
        if len(found) == TRIED:
            break
        if left[vote]:
            left[tree.query_ball_point(places[vote], AGREE)] = False
            found.append(_as_matrix(factor[vote], shift[vote], bool(mirrored[vote])))
    return found


def _turns_left(z: np.ndarray) -> np.ndarray:
    """Return whether triangles, complex (triangles, 3), go round to the left."""
    return np.imag((z[:, 1] - z[:, 0]) * np.conj(z[:, 2] - z[:, 0])) > 0


def _as_matrix(factor: complex, shift: complex, mirrored: bool) -> np.ndarray:
    """Return ``factor * z + shift`` as a matrix, of the complex conjugate of z if it is mirrored."""
    a, b, sign = factor.real, factor.imag, -1.0 if mirrored else 1.0
    return np.array([[a, -b * sign, shift.real], [b, a * sign, shift.imag], [0, 0, 1.0]])


def _grown(matrix: np.ndarray, reference: np.ndarray, frame: np.ndarray, within: Sequence[float]) -> _Pairs:
    """Match all stars by a similarity that is fitted again to what matches, closer and closer."""
    here, there = reference[:MATCHED], frame[:MATCHED]
    tree = cKDTree(there)
    i = j = np.empty(0, int)
    for close in within:
        distance, nearest = tree.query(np.c_[mapped(matrix, *here.T)])
        i = np.flatnonzero(distance < close)
        # Each star of the frame once, for the nearest one.
        i = i[np.lexsort((distance[i], nearest[i]))]
        i = i[np.unique(nearest[i], return_index=True)[1]]
        j = nearest[i]
        if len(i) < 4:
            break
        matrix = _similarity(here[i], there[j], np.ones(len(i)))
    return _Pairs(i, j, matrix)


def _fitted(x: np.ndarray, y: np.ndarray, weights: np.ndarray, fit: Fit) -> tuple[np.ndarray, float, int]:
    """Fit a geometry without outliers.

    Returns
    -------
    matrix : ndarray of float64, shape (3, 3)
        The geometry.
    rms : float
        Weighted root mean square of the distances that are left, per axis.
    count : int
        Number of stars.
    """
    good = np.ones(len(x), bool)
    matrix = fit(x, y, weights)
    for _ in range(10):
        left = _distances(matrix, x, y) * np.sqrt(weights)
        # The median of the length of a Gaussian vector is 1.177 sigma.
        now = left <= CLIPPED * max(float(np.median(left[good])) / 1.177, 1.0)
        if np.count_nonzero(now) < 4 or np.array_equal(now, good):
            break
        good = now
        matrix = fit(x[good], y[good], weights[good])
    left = _distances(matrix, x[good], y[good])
    return matrix, math.sqrt(float(np.average(left**2, weights=weights[good])) / 2), int(good.sum())


def _distances(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(*(np.c_[mapped(matrix, *x.T)] - y).T)


def _similarity(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the similarity with the least squares, mirrored if that fits better, float64 (3, 3)."""
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (x, y))
    best, matrix = math.inf, np.eye(3)
    for mirrored in (False, True):
        points = np.conj(z) if mirrored else z
        middle, target = np.average(points, weights=weights), np.average(w, weights=weights)
        dz = points - middle
        factor = np.sum(weights * np.conj(dz) * (w - target)) / max(np.sum(weights * np.abs(dz) ** 2), 1e-30)
        shift = target - factor * middle
        left = float(np.sum(weights * np.abs(factor * points + shift - w) ** 2))
        if left < best:
            best, matrix = left, _as_matrix(factor, shift, mirrored)
    return matrix


def _homography(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the homography with the least squares, float64 (3, 3)."""
    middle, size = x.mean(axis=0), max(float(np.ptp(x, axis=0).max()), 1.0)
    # In units of the field, so that all eight numbers are alike.
    unit = np.array([[size, 0, middle[0]], [0, size, middle[1]], [0, 0, 1]])
    first = _similarity(x, y, weights) @ unit
    points, root = (x - middle) / size, np.sqrt(weights / weights.mean())[:, None]

    def residuals(p: np.ndarray) -> np.ndarray:
        return (root * (np.c_[mapped(np.append(p, 1.0).reshape(3, 3), *points.T)] - y)).ravel()

    fit = least_squares(residuals, (first / first[2, 2]).ravel()[:8])
    matrix = np.append(fit.x, 1.0).reshape(3, 3) @ np.linalg.inv(unit)
    return matrix / matrix[2, 2]

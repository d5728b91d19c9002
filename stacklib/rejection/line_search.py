"""The L1 lines of many pixels at once.

The line with the least sum of absolute residuals passes through two of the samples. They are found in
float32, in vector lanes: from a guess, the line is moved up or down until half of the samples are on either
side, and then turned about the sample on it until it meets another one, about which it may turn next, as long
as the sum falls. That the line is the best one is proven in float64. What cannot be proven is left to
`stacklib.rejection.line_fitting.l1_line`: more than two samples on the line, as among quantized ones, and
rounding errors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.rejection.sorting import FILLED, LANES
from stacklib.utils.compiled import compiled, smaller

__all__ = ["INTERCEPT", "LINES", "PROVEN", "RESIDUALS", "SLOPES", "Search", "find_lines", "search_arrays"]

#: The line through expected Gaussian samples crosses them near this share of the ranks, and of those above.
CROSSING = 0.146
#: Rows of samples are looked at in groups of so many.
GROUP = 4

#: Parts of the state of a search, float32: sample, abscissa and position of the point about which a line
#: turns; direction (1 or -1), slope (or level) so far, and that where the next point is met, times the
#: direction; the next point; sum of the abscissae of the points below minus those above, and the same of
#: their numbers; 1 while the search goes on; the pixel; positions of the two points on the line.
STATES = 14
(
    TURN_X,
    TURN_U,
    TURN,
    SIGN,
    REACHED,
    MET,
    NEXT_X,
    NEXT_U,
    NEXT,
    MOMENT,
    BALANCE,
    ACTIVE,
    ONE_END,
    OTHER_END,
) = (part * LANES for part in range(STATES))

#: Parts of the lines, float64: intercept, slope, sum of absolute residuals, 1 if this is proven to be the
#: best line; and of the proof: what is taken for 0, numbers of samples above and below, sum of signed
#: abscissae.
LINES = 8
INTERCEPT, SLOPES, RESIDUALS, PROVEN, NEAR, ABOVE, BELOW, TANGENT = (part * LANES for part in range(LINES))


class Search(NamedTuple):
    """Arrays of a search for as many lines as lanes.

    `points` and `residuals` are float32 (rows, LANES), `state` float32 (14 * LANES,), `lane` int64 (LANES,),
    `ends`, int64 (2 * LANES,), the positions of the two samples on each line, `lines`, float64 (8 * LANES,),
    what was found.
    """

    points: np.ndarray
    residuals: np.ndarray
    state: np.ndarray
    lane: np.ndarray
    ends: np.ndarray
    lines: np.ndarray


@compiled
def search_arrays(frames):
    """Return the arrays of `Search` for up to so many samples."""
    rows = (frames + GROUP - 1) // GROUP * GROUP
    return (
        np.empty((rows, LANES), np.float32),
        np.empty((rows, LANES), np.float32),
        np.empty(STATES * LANES, np.float32),
        np.empty(LANES, np.int64),
        np.empty(2 * LANES, np.int64),
        np.empty(LINES * LANES),
    )


@compiled
def _guess(block, abscissa, n, pixels, state):
    """Guess slope and level of each line from the samples about those where it is expected to cross them."""
    rank = int(CROSSING * (n - 1) + 0.5)
    width = min(n // 10, max(rank - 1, 0))
    run, total = 0.0, 0.0
    centre = block[n // 2]
    for p in range(pixels):
        state[REACHED + p] = 0.0
        state[MET + p] = 0.0
    for i in range(rank - width, rank + width + 1):
        run += abscissa[n - 1 - i] - abscissa[i]
        between = n // 2 - rank + i
        total += abscissa[n - 1 - i] + abscissa[i] + abscissa[between]
        lower, middle, upper = block[i], block[between], block[n - 1 - i]
        for p in range(pixels):
            state[REACHED + p] += upper[p] - lower[p]
            state[MET + p] += (upper[p] - centre[p]) + (lower[p] - centre[p]) + (middle[p] - centre[p])
    # Not through two samples: these would be on the line.
    per_run, per_point = np.float32(1.0001 / run), np.float32(1.0 / (6 * width + 3))
    at = np.float32(total / (6 * width + 3))
    for p in range(pixels):
        state[REACHED + p] *= per_run
        state[MET + p] = state[MET + p] * per_point - at * state[REACHED + p]


@compiled
def _split(block, abscissa, n, pixels, search):
    """Find the deviations of the samples from the middle one, and on which side of the line they are."""
    points, residuals, state = search.points, search.residuals, search.state
    one = np.float32(1.0)
    centre = block[n // 2]
    for p in range(pixels):
        state[BALANCE + p] = 0.0
    # Two rows at a time, so that slope and balance are loaded and stored less often.
    for i in range(0, n, 2):
        following = min(i + 1, n - 1)
        u1, u2 = np.float32(abscissa[i]), np.float32(abscissa[following])
        x1, x2, point1, point2 = block[i], block[following], points[i], points[following]
        r1, r2, half = residuals[i], residuals[following], np.float32(following - i)
        for p in range(pixels):
            slope, met, middle = state[REACHED + p], state[MET + p], centre[p]
            v, w = x1[p] - middle, x2[p] - middle
            a, b = v - u1 * slope, w - u2 * slope
            point1[p] = v
            point2[p] = w
            r1[p] = a
            r2[p] = b
            state[BALANCE + p] += (one if a < met else -one) + (half if b < met else -half)
    for i in range(n, (n + GROUP - 1) // GROUP * GROUP):
        point, residual = points[i], residuals[i]
        for p in range(pixels):
            point[p] = np.nan
            residual[p] = np.nan
    for p in range(pixels):
        sign = one if state[BALANCE + p] <= 0.0 else -one
        state[SIGN + p] = sign
        state[BALANCE + p] += sign
        state[MET + p] *= sign
        state[ACTIVE + p] = one


@compiled
def _to_middle(n, pixels, residuals, state):
    """Move each line up or down to the sample that has half of the others on either side."""
    none = np.float32(np.inf)
    moving = 1
    while moving > 0:
        for p in range(pixels):
            state[NEXT_X + p] = none
        for i in range(0, n, GROUP):
            r1, r2, r3, r4 = residuals[i], residuals[i + 1], residuals[i + 2], residuals[i + 3]
            for p in range(pixels):
                sign, level = state[SIGN + p], state[MET + p]
                s1, s2, s3, s4 = r1[p] * sign, r2[p] * sign, r3[p] * sign, r4[p] * sign
                s1 = s1 if s1 > level else none
                s2 = s2 if s2 > level else none
                s3 = s3 if s3 > level else none
                s4 = s4 if s4 > level else none
                least = smaller(smaller(s1, s2), smaller(s3, s4))
                state[NEXT_X + p] = smaller(state[NEXT_X + p], least)
        count = np.int32(0)
        for p in range(pixels):
            sign, balance = state[SIGN + p], state[BALANCE + p]
            active = state[ACTIVE + p] > 0.0
            more = active & (balance * sign < -1.0)
            state[MET + p] = state[NEXT_X + p] if active else state[MET + p]
            state[BALANCE + p] = balance + sign + sign if more else balance
            state[ACTIVE + p] = 1.0 if more else 0.0
            count = np.int32(count + np.int32(more))
        moving = count


@compiled
def _begin(abscissa, n, pixels, search):
    """Find the sample on each line, the sides of the others, and the direction in which the sum falls."""
    points, residuals, state, lane = search.points, search.residuals, search.state, search.lane
    one, zero = np.float32(1.0), np.float32(0.0)
    for p in range(pixels):
        state[MET + p] *= state[SIGN + p]
        state[MOMENT + p] = zero
        state[TURN + p] = zero
        state[TURN_X + p] = zero
        state[TURN_U + p] = zero
        lane[p] = p
    for i in range(0, n, 2):
        u1, u2 = np.float32(abscissa[i]), np.float32(abscissa[min(i + 1, n - 1)])
        r1, r2, x1, x2 = residuals[i], residuals[i + 1], points[i], points[i + 1]
        at1, at2 = np.float32(i), np.float32(i + 1)
        for p in range(pixels):
            a, b, v, w, met = r1[p], r2[p], x1[p], x2[p], state[MET + p]
            first = (u1 if a < met else zero) - (u1 if a > met else zero)
            second = (u2 if b < met else zero) - (u2 if b > met else zero)
            state[MOMENT + p] += first + second
            at, x, u = state[TURN + p], state[TURN_X + p], state[TURN_U + p]
            at, x, u = at1 if a == met else at, v if a == met else x, u1 if a == met else u
            at, x, u = at2 if b == met else at, w if b == met else x, u2 if b == met else u
            state[TURN + p] = at
            state[TURN_X + p] = x
            state[TURN_U + p] = u
    for p in range(pixels):
        sign = one if state[MOMENT + p] - state[BALANCE + p] * state[TURN_U + p] < zero else -one
        state[SIGN + p] = sign
        state[REACHED + p] *= sign
        state[ACTIVE + p] = one


@compiled
def _meet(points, abscissa, n, pixels, state):
    """Turn each line about its point until it meets another one."""
    none = np.float32(np.inf)
    for p in range(pixels):
        state[NEXT + p] = 0.0
        state[MET + p] = none
    for i in range(0, n, GROUP):
        x1, x2, x3, x4 = points[i], points[i + 1], points[i + 2], points[i + 3]
        last = n - 1
        u1, u2 = np.float32(abscissa[i]), np.float32(abscissa[min(i + 1, last)])
        u3, u4 = np.float32(abscissa[min(i + 2, last)]), np.float32(abscissa[min(i + 3, last)])
        at1, at2, at3, at4 = np.float32(i), np.float32(i + 1), np.float32(i + 2), np.float32(i + 3)
        for p in range(pixels):
            x, u, sign, reached = state[TURN_X + p], state[TURN_U + p], state[SIGN + p], state[REACHED + p]
            s1 = (x1[p] - x) / ((u1 - u) * sign)
            s2 = (x2[p] - x) / ((u2 - u) * sign)
            s3 = (x3[p] - x) / ((u3 - u) * sign)
            s4 = (x4[p] - x) / ((u4 - u) * sign)
            s1 = s1 if s1 > reached else none
            s2 = s2 if s2 > reached else none
            s3 = s3 if s3 > reached else none
            s4 = s4 if s4 > reached else none
            least, found = state[MET + p], state[NEXT + p]
            found = at1 if s1 < least else found
            least = s1 if s1 < least else least
            found = at2 if s2 < least else found
            least = s2 if s2 < least else least
            found = at3 if s3 < least else found
            least = s3 if s3 < least else least
            found = at4 if s4 < least else found
            least = s4 if s4 < least else least
            state[MET + p] = least
            state[NEXT + p] = found
    samples = points.reshape(-1)
    for p in range(pixels):
        at = np.uint64(np.int32(state[NEXT + p]))
        state[NEXT_X + p] = samples[at * np.uint64(LANES) + np.uint64(p)]
        state[NEXT_U + p] = abscissa[at]


@compiled
def _turn(pixels, state):
    """Choose about which of its two points each line turns next, and stop where the sum would rise.

    Returns the number of lines that turn on.
    """
    count = np.int32(0)
    one = np.float32(1.0)
    for p in range(pixels):
        active = state[ACTIVE + p] > 0.0
        sign, x, u, at = state[SIGN + p], state[NEXT_X + p], state[NEXT_U + p], state[NEXT + p]
        old_x, old_u, old = state[TURN_X + p], state[TURN_U + p], state[TURN + p]
        side = one if (u - old_u) * sign > 0.0 else -one
        moment, balance = state[MOMENT + p] + side * u, state[BALANCE + p] + side
        # With rising slope the later point falls relative to the earlier one.
        moves = (balance * sign > 0.0) == (at > old)
        new_u = u if moves else old_u
        dropped = old_u if moves else u
        side = one if (new_u - dropped) * sign > 0.0 else -one
        moment, balance = moment - side * dropped, balance - side
        goes_on = active & ((moment - balance * new_u < 0.0) == (sign > 0.0)) & (state[MET + p] < np.inf)
        state[ONE_END + p] = old if active else state[ONE_END + p]
        state[OTHER_END + p] = at if active else state[OTHER_END + p]
        state[TURN + p] = at if moves else old
        state[TURN_X + p] = x if moves else old_x
        state[TURN_U + p] = new_u
        state[MOMENT + p] = moment
        state[BALANCE + p] = balance
        state[REACHED + p] = state[MET + p]
        state[ACTIVE + p] = 1.0 if goes_on else 0.0
        count = np.int32(count + np.int32(goes_on))
    return count


@compiled
def _write_ends(pixels, search):
    """Store the positions of the two samples on each line."""
    for k in range(pixels):
        one, other = int(search.state[ONE_END + k]), int(search.state[OTHER_END + k])
        search.ends[search.lane[k]] = min(one, other)
        search.ends[LANES + search.lane[k]] = max(one, other)


@compiled
def _move_together(n, pixels, search):
    """Move the lines that are not found to the first lanes, and return their number."""
    points, state, lane = search.points, search.state, search.lane
    number = 0
    for p in range(pixels):
        if state[ACTIVE + p] > 0.0:
            # Lanes are moved down only.
            for part in range(STATES):
                state[part * LANES + number] = state[part * LANES + p]
            for i in range(n):
                points[i, number] = points[i, p]
            lane[number] = lane[p]
            number += 1
    for p in range(number, FILLED):
        state[ACTIVE + p] = 0.0
    return number


@compiled
def _prove(block, abscissa, n, pixels, tolerance, margin, search):
    """Compute the lines and their residuals in float64, and prove that no other line is as good."""
    lines, ends = search.lines, search.ends
    samples, first, last = block.reshape(-1), block[0], block[n - 1]
    # Errors of two points close together grow toward the ends of the line.
    run = abscissa[n - 1] - abscissa[0]
    for p in range(pixels):
        k, m = ends[p], ends[LANES + p]
        x = np.float64(samples[np.uint64(k * LANES + p)])
        slope = (np.float64(samples[np.uint64(m * LANES + p)]) - x) / (abscissa[m] - abscissa[k])
        lines[SLOPES + p] = slope
        lines[INTERCEPT + p] = x - slope * abscissa[k]
        lines[NEAR + p] = tolerance * (1.0 + run / (abscissa[m] - abscissa[k]))
    for p in range(pixels):
        lines[NEAR + p] *= np.float64(last[p]) - np.float64(first[p])
        lines[RESIDUALS + p] = 0.0
        lines[ABOVE + p] = 0.0
        lines[BELOW + p] = 0.0
        lines[TANGENT + p] = 0.0
    # Two rows at a time, so that the sums are loaded and stored less often.
    for i in range(0, n, 2):
        following = min(i + 1, n - 1)
        counts = np.float64(following - i)
        x1, x2, u1, u2 = block[i], block[following], abscissa[i], abscissa[following]
        for p in range(pixels):
            intercept, slope, near = lines[INTERCEPT + p], lines[SLOPES + p], lines[NEAR + p]
            r1 = np.float64(x1[p]) - (intercept + slope * u1)
            r2 = np.float64(x2[p]) - (intercept + slope * u2)
            above1, above2 = 1.0 if r1 > near else 0.0, counts if r2 > near else 0.0
            below1, below2 = 1.0 if r1 < -near else 0.0, counts if r2 < -near else 0.0
            lines[RESIDUALS + p] = lines[RESIDUALS + p] + abs(r1) + counts * abs(r2)
            lines[ABOVE + p] += above1 + above2
            lines[BELOW + p] += below1 + below2
            lines[TANGENT + p] += (below1 - above1) * u1 + (below2 - above2) * u2
    for p in range(pixels):
        above, below, tangent = lines[ABOVE + p], lines[BELOW + p], lines[TANGENT + p]
        u, v = abscissa[ends[p]], abscissa[ends[LANES + p]]
        # With a smaller slope the later of the two points is above the earlier one.
        before = tangent + (u if below <= above else 0.0) - (v if below >= above else 0.0)
        after = tangent + (v if below <= above else 0.0) - (u if below >= above else 0.0)
        middle = (abs(below - above) <= 1.0) & (above + below == n - 2.0)
        best = (before < -margin) & (after >= margin) & (lines[SLOPES + p] > lines[NEAR + p])
        lines[PROVEN + p] = 1.0 if middle & best else 0.0


@compiled
def find_lines(block, abscissa, n, pixels, tolerance, margin, search):
    """Find the L1 lines of the first `pixels` pixels of a block; see `Search` for the results.

    The n samples of each pixel, at least 5, and the abscissae are in ascending order. Samples within
    `tolerance` times their range from a line through its ends, and tangents within `margin` of 0, may be
    there by rounding.
    """
    points, state = search.points, search.state
    _guess(block, abscissa, n, pixels, state)
    _split(block, abscissa, n, pixels, search)
    _to_middle(n, pixels, search.residuals, state)
    _begin(abscissa, n, pixels, search)
    left, used = pixels, pixels
    for _ in range(2 * n):
        _meet(points, abscissa, n, used, state)
        turning = _turn(used, state)
        if turning == 0:
            break
        if turning <= FILLED < used:
            # The few lines that are not found yet are moved together.
            _write_ends(left, search)
            left, used = _move_together(n, used, search), FILLED
    _write_ends(left, search)
    _prove(block, abscissa, n, pixels, tolerance, margin, search)

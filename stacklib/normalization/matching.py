"""Normalization: factors and offsets that match the frames to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stacklib.errors import IntegrationError
from stacklib.utils.labels import listed

__all__ = ["Statistics", "output_coefficients", "rejection_coefficients", "scale_factors"]

#: Location, lower and upper scale, each (frames, channels).
Statistics = tuple[np.ndarray, np.ndarray, np.ndarray]

#: Output mode equivalent to each rejection mode.
REJECTION_MODES = {
    "none": "none",
    "scale_zero_offset": "additive_scaling",
    "equalize_fluxes": "multiplicative",
}


def scale_factors(
    scale_low: np.ndarray,
    scale_high: np.ndarray,
    reference: int,
    names: Sequence[str] | None = None,
    shared: Statistics | None = None,
) -> np.ndarray:
    """Compute the factors that match the scale of each frame to that of the reference, (frames, channels).

    ``k_i = (s_low,r / s_low,i + s_high,r / s_high,i) / 2``; 1 for the reference and for constant frames.
    `shared` are the statistics of the reference over the area that it shares with each frame, if the scales
    of the frames are of that area only. Raises IntegrationError if a frame has no valid sample, or the
    reference is constant and another frame is not.
    """
    low, high = _as_table(scale_low), _as_table(scale_high)
    _refuse(~(np.isfinite(low) & np.isfinite(high)), names, "without a valid sample", "Leave them out")
    constant = (low <= 0) | (high <= 0)
    if np.any(constant[reference] & ~constant.all(axis=0)):
        raise IntegrationError(
            f"{_name(names, reference)}: all samples are equal, so other frames cannot be scaled to it. "
            "Choose another reference, or a normalization without scaling (additive)."
        )
    one = np.ones_like(low)
    low_r, high_r = (low[reference], high[reference]) if shared is None else shared[1:]
    factors = np.divide(low_r, low, out=one.copy(), where=~constant)
    factors += np.divide(high_r, high, out=one, where=~constant)
    factors /= 2
    factors[reference] = 1.0
    return factors


def output_coefficients(
    mode: str,
    location: np.ndarray,
    scale_low: np.ndarray,
    scale_high: np.ndarray,
    reference: int,
    names: Sequence[str] | None = None,
    shared: Statistics | None = None,
    *,
    pedestal: np.ndarray | None = None,
    keeps_pedestal: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute factor and offset of each frame and channel for combination.

    ========================  ==========================================
    none                      x
    additive                  x + (m_r - m_i)
    multiplicative            x m_r / m_i
    additive_scaling          (x - m_i) k_i + m_r
    multiplicative_scaling    (x / m_i) k_i m_r
    ========================  ==========================================

    with the location m and the scale factor k of `scale_factors`. ``multiplicative_scaling`` follows
    PixInsight and is provided for compatibility: it scales twice if a frame differs from the reference by a
    factor only. These modes go by level and spread of whole frames, which is right if both come from the
    field. But the spread of a sparse field is noise, under the Moon it is the gradient of the sky, and clouds
    change light and spread differently. `stacklib.normalization.light` goes by the light of stars.

    `pedestal`, (frames, 1), was added to the samples of each frame: x and m are above it, and that of the
    reference is added to the result if `keeps_pedestal`. Tables are float64 of shape (frames, channels); the
    factor of the reference is exactly 1 and its offset exactly 0. For `shared` see `scale_factors`; m_r is
    then that of the shared area. Raises IntegrationError as `scale_factors` does, or if `mode` divides by a
    location that is not positive.
    """
    if pedestal is not None and pedestal.any():
        own = pedestal[reference]
        above = None if shared is None else (shared[0] - own, *shared[1:])
        arguments = (_as_table(location) - pedestal, scale_low, scale_high, reference, names, above)
        factor, offset = output_coefficients(mode, *arguments)
        return factor, offset - factor * pedestal + (own if keeps_pedestal else 0.0)
    m = _as_table(location)
    one, zero = np.ones_like(m), np.zeros_like(m)
    if mode == "none":
        return one, zero
    _refuse(~np.isfinite(m), names, "without a valid sample", "Leave them out")
    r = m[reference] if shared is None else shared[0]
    if mode == "additive":
        return one, r - m
    if mode in ("multiplicative", "multiplicative_scaling"):
        remedy = "Use an additive normalization"
        _refuse(~(m > 0), names, f"with a median that is not positive, which {mode} divides by", remedy)
    if mode == "multiplicative":
        return r / m, zero
    k = scale_factors(scale_low, scale_high, reference, names, shared)
    if mode == "additive_scaling":
        factor, offset = k, r - k * m
    elif mode == "multiplicative_scaling":
        factor, offset = k * (r / m), zero
    else:
        raise ValueError(f"normalization: got {mode!r}, expected a mode of the recipe's normalization")
    return factor, offset


def rejection_coefficients(
    mode: str,
    location: np.ndarray,
    scale_low: np.ndarray,
    scale_high: np.ndarray,
    reference: int,
    names: Sequence[str] | None = None,
    shared: Statistics | None = None,
    *,
    pedestal: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute factor and offset of each frame and channel for rejection, without the pedestal.

    ========================  ==========================================
    none                      x
    scale_zero_offset         (x - m_i) k_i + m_r
    equalize_fluxes           x m_r / m_i
    ========================  ==========================================

    Parameters, results and errors are those of `output_coefficients`.
    """
    if mode not in REJECTION_MODES:
        raise ValueError(
            f"rejection_normalization: got {mode!r}, expected one of {', '.join(REJECTION_MODES)}"
        )
    mode = REJECTION_MODES[mode]
    arguments = (location, scale_low, scale_high, reference, names, shared)
    return output_coefficients(mode, *arguments, pedestal=pedestal, keeps_pedestal=False)


def _as_table(values: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _name(names: Sequence[str] | None, index: int) -> str:
    return f"frame {index + 1}" if names is None else names[index]


def _refuse(bad: np.ndarray, names: Sequence[str] | None, what: str, remedy: str) -> None:
    """Raise an error that names the frames that are bad in any channel."""
    found = [_name(names, i) for i in np.flatnonzero(bad.any(axis=1))]
    if found:
        raise IntegrationError(f"frames {what}: {listed(found, most=10)}. {remedy}.")

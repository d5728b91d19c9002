"""Simulate nights on which transparency, sky, seeing and noise change, with their whole truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from stacklib.simulate.defects import Trail, add_cosmic_ray, add_sensor_defects, choose_trails, sensor_defects
from stacklib.simulate.night import (
    FAINTEST,
    OUTLIER_SIGMA,
    SavedNight,
    Session,
    border,
    noise_sigma,
)
from stacklib.simulate.registration import METHODS, resample, smoothing
from stacklib.simulate.scene import Scene, make_scene

__all__ = ["ChangingNight", "simulate_night"]

#: FWHM of the scene before the air blurs it, and the least seeing of a frame, in pixels.
SHARPEST, LEAST_FWHM = 1.5, 2.0
#: Part of the light of a cloud's shadow that the cloud sends back as glow, relative to the sky.
GLOW = 0.6
#: Filters of a mosaic: channel by row and column.
PATTERN = ((0, 1), (1, 2))


@dataclass(frozen=True)
class ChangingNight(SavedNight):
    """A simulated night and its truth. Frames are computed when they are asked for.

    A registered frame is ``light(i) + background(i) + defects(i) + noise``, where ``light(i)`` is the scene
    times ``transparency[i]``, seen through the seeing of the frame and smoothed by its registration.

    Attributes
    ----------
    scene : Scene
        The scene above the atmosphere of the reference frame: its transparency is 1.
    transparency : ndarray of float64, shape (count,)
        Light of a frame relative to the reference, exposure and gain included. Exactly 1 for the reference.
    sky : ndarray of float64, shape (count, channels)
        Mean background as a fraction of full scale.
    gradient : ndarray of float64, shape (count, channels, 5)
        Coefficients of x, y, x^2, x y and y^2 in the background, see `background`.
    fwhm : ndarray of float64, shape (count,)
        FWHM of the stars in pixels, before resampling.
    noise : ndarray of float64, shape (count,)
        Factor on the noise of the camera.
    exposure, gain : ndarray of float64, shape (count,)
        Exposure time in seconds, and gain relative to the usual one.
    shifts : ndarray of float64, shape (count, 2)
        Rows and columns by which registration moved each frame. Down and right are positive.
    registration : str
        Interpolation of the registration, see `METHODS`.
    reference : int
        Index of the reference frame: the best ratio of light to noise.
    full_well, read_noise : float
        Full scale and read noise in electrons, at gain 1.
    bits : int
        Bits of the camera; 0 if its values are not rounded.
    cosmic_rays : float
        Mean number of cosmic rays per frame.
    sensor : tuple of ndarray
        Rows, columns and amplitudes of bad pixels.
    trails : tuple of Trail
        Satellite trails.
    hit_pixels : ndarray of int, shape (hits, 2)
        Rows and columns of pixels that are hit on purpose.
    hit_frames : ndarray of int, shape (hits, hits_in)
        Frames in which they are hit.
    hit_sigma : float
        Height of these hits in sigma of the pixel.
    mosaic : bool
        Frames are color mosaics (RGGB) of one plane; everything else has three channels.
    seed : int
        Random seed.
    headers : list of dict
        FITS cards of each frame, name -> (value, comment).
    """

    scene: Scene
    transparency: np.ndarray
    sky: np.ndarray
    gradient: np.ndarray
    fwhm: np.ndarray
    noise: np.ndarray
    exposure: np.ndarray
    gain: np.ndarray
    shifts: np.ndarray
    registration: str
    reference: int
    full_well: float
    read_noise: float
    bits: int
    cosmic_rays: float
    sensor: tuple[np.ndarray, ...] = field(repr=False)
    trails: tuple[Trail, ...]
    hit_pixels: np.ndarray = field(repr=False)
    hit_frames: np.ndarray = field(repr=False)
    hit_sigma: float
    mosaic: bool
    seed: int
    headers: list[dict[str, tuple[Any, str]]] = field(repr=False)

    _usual_dtype: ClassVar[str] = "f32"

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.transparency)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the frames."""
        channels, height, width = self.scene.extended.shape
        return 1 if self.mosaic else channels, height, width

    @cached_property
    def frames(self) -> np.ndarray:
        """All frames, float32 (count, channels, height, width). Exactly 0 where a frame has no data."""
        return np.stack([self.frame(index) for index in range(self.count)])

    @cached_property
    def nodata(self) -> np.ndarray:
        """Pixels outside the registered frames, bool (count, channels, height, width)."""
        _, height, width = self.shape
        masks = np.stack([border(height, width, *self._whole(i)) for i in range(self.count)])
        return np.broadcast_to(masks[:, None], (self.count, *self.shape))

    @cached_property
    def outliers(self) -> np.ndarray:
        """Pixels with a defect of more than 0.5 sigma, bool (count, channels, height, width)."""
        found = [np.abs(self.defects(i)) > OUTLIER_SIGMA * self.sigma(i) for i in range(self.count)]
        return np.stack(found) & ~self.nodata

    @cached_property
    def truth(self) -> np.ndarray:
        """The reference without noise, defects and resampling, float32, shape of a frame."""
        seen = self.scene.seen(self.fwhm[self.reference]) + self._background(self.reference)
        return self._filtered(seen).astype(np.float32)

    @cached_property
    def sky_sigma(self) -> np.ndarray:
        """Noise of the sky before resampling, float64 (count, channels): what weights should go by."""
        return np.stack([self._camera_noise(i, self.sky[i]) for i in range(self.count)])

    def smoothing(self, index: int) -> float:
        """Return the pixel noise of a frame after resampling, relative to that before."""
        return smoothing(self.registration, *self._fraction(index))

    def light(self, index: int) -> np.ndarray:
        """Return the light of the scene in a registered frame, float64, shape of a frame."""
        seen = self._sensor_light(index)
        return resample(self._filtered(seen), self.registration, *self._fraction(index))

    def background(self, index: int, rows: slice = slice(None)) -> np.ndarray:
        """Return the background of a registered frame, float64 (channels, rows, width).

        With x and y from -0.5 to 0.5 across the longer side it is ``sky + a x + b y + c (x^2 - mean) + d x y
        + e (y^2 - mean)``, so its mean is `sky`.
        """
        return self._filtered(self._background(index, rows=rows))

    def expected(self, index: int) -> np.ndarray:
        """Return a frame without noise, defects, saturation and border, float64, shape of a frame."""
        return self.light(index) + self.background(index)

    def sigma(self, index: int) -> np.ndarray:
        """Return the noise of a frame before resampling, float64, shape of a frame."""
        expected = self.scene.seen(self.fwhm[index]) * self.transparency[index] + self._background(index)
        return self._filtered(self._camera_noise(index, expected))

    def defects(self, index: int) -> np.ndarray:
        """Return what cosmic rays, trails, bad pixels and hits add to a registered frame, float64."""
        expected = self._sensor_light(index) + self._background(index, *self._fraction(index))
        deposit = self._deposit(index, expected)
        moved = resample(self._filtered(deposit), self.registration, *self._fraction(index))
        return np.where(border(*self.shape[1:], *self._whole(index)), 0, moved)

    def ideal(self, weights: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
        """Return the light of the scene in a perfect integration, float64, shape of a frame.

        Parameters
        ----------
        weights : sequence of float, optional
            Weights of the frames. Default is ``(transparency / sky_sigma) ** 2``, the best ones.

        Returns
        -------
        ndarray
            Weighted mean of ``light(i) / transparency[i]``: the scene at the transparency of the reference,
            with the mean star profile of the frames.
        """
        if weights is None:
            weights = (self.transparency / self.sky_sigma.mean(axis=1)) ** 2
        shares = np.asarray(weights, float) / np.sum(weights)
        return np.sum(
            [shares[i] / self.transparency[i] * self.light(i) for i in range(self.count) if shares[i]], axis=0
        )

    def common_background(self, shares: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the background of a master that goes by some frames, float64, shape of a frame.

        Parameters
        ----------
        shares : sequence of float
            Share of each frame: in classic integration 1 for the reference and 0 for all others.

        Returns
        -------
        ndarray
            Mean of ``background(i) / transparency[i]`` with these shares.
        """
        whole = np.sum(shares)
        chosen = [(i, share / whole) for i, share in enumerate(shares) if share > 0]
        return np.sum([share / self.transparency[i] * self.background(i) for i, share in chosen], axis=0)

    def isolated_stars(self, most: int = 100, radius: float = 12.0, peak: float = 0.6) -> np.ndarray:
        """Return the stars that can be measured well, the brightest ones first.

        Parameters
        ----------
        most : int
            Greatest number of stars.
        radius : float
            Distance in pixels to the edge, and to any neighbor with more than 1 % of the flux of the star.
        peak : float
            Greatest peak in the frame with the best seeing, background included.

        Returns
        -------
        ndarray of int, shape (stars,)
            Indices into ``scene.x``, ``scene.y`` and ``scene.flux``.
        """
        _, height, width = self.shape
        x, y, flux = self.scene.x, self.scene.y, self.scene.flux.mean(axis=0)
        clear = self.transparency.max() * self.scene.flux.max(axis=0)
        faint_enough = clear * 0.65 / self.fwhm.min() ** 2 + self.sky.max() < peak
        inside = (x > radius) & (x < width - 1 - radius) & (y > radius) & (y < height - 1 - radius)
        chosen: list[int] = []
        for star in np.argsort(-flux):
            if len(chosen) == most:
                break
            if not (inside[star] and faint_enough[star]):
                continue
            near = np.hypot(x - x[star], y - y[star]) < radius
            if (near & (flux > 0.01 * flux[star])).sum() == 1:
                chosen.append(star)
        return np.array(chosen, int)

    def frame(self, index: int) -> np.ndarray:
        """Return one registered frame, float32 (channels, height, width). Exactly 0 without data."""
        rng = np.random.default_rng([self.seed, 4, index])
        expected = self._sensor_light(index) + self._background(index, *self._fraction(index))
        deposit = self._deposit(index, expected)
        # The light of a defect has shot noise too.
        raw = self._filtered(expected + deposit)
        noise = self._camera_noise(index, self._filtered(expected + np.maximum(deposit, 0)))
        raw += noise * rng.standard_normal(raw.shape, np.float32)
        if self.bits:
            steps = 2.0**self.bits - 1
            raw = np.rint(raw * steps) / steps
        raw = resample(np.clip(raw, FAINTEST, 1.0), self.registration, *self._fraction(index))
        frame = np.clip(raw, FAINTEST, 1.0).astype(np.float32)
        frame[:, border(*self.shape[1:], *self._whole(index))] = 0
        return frame

    def _whole(self, index: int) -> np.ndarray:
        """Return the whole pixels of a shift, down and right."""
        return np.rint(self.shifts[index]).astype(int)

    def _fraction(self, index: int) -> tuple[float, float]:
        """Return what remains of a shift, down and right."""
        down, right = self.shifts[index] - self._whole(index)
        return float(down), float(right)

    def _sensor_light(self, index: int) -> np.ndarray:
        """Return the light before resampling, moved by whole pixels only; three channels for a mosaic."""
        down, right = self._fraction(index)
        return self.transparency[index] * self.scene.seen(self.fwhm[index], -down, -right)

    def _background(
        self, index: int, down: float = 0.0, right: float = 0.0, rows: slice = slice(None)
    ) -> np.ndarray:
        height, width = self.scene.extended.shape[1:]
        longer = max(height, width)
        y = ((np.arange(height) - (height - 1) / 2 + down) / longer)[rows, None]
        x = (np.arange(width) - (width - 1) / 2 + right) / longer
        means = (width**2 - 1) / 12 / longer**2, (height**2 - 1) / 12 / longer**2
        terms = (x, y, x**2 - means[0], x * y, y**2 - means[1])
        shape = (self.sky.shape[1], y.size, width)
        background = np.broadcast_to(self.sky[index][:, None, None], shape).copy()
        for number, term in enumerate(terms):
            background += self.gradient[index, :, number, None, None] * term
        return background

    def _camera_noise(self, index: int, expected: np.ndarray) -> np.ndarray:
        well = self.full_well / self.gain[index]
        return self.noise[index] * noise_sigma(np.minimum(expected, 1.0), well, self.read_noise)

    def _filtered(self, image: np.ndarray) -> np.ndarray:
        """Return what the sensor records: a mosaic takes one channel at each pixel."""
        if not self.mosaic:
            return image
        recorded = np.empty((1, *image.shape[1:]))
        for row, channels in enumerate(PATTERN):
            for column, channel in enumerate(channels):
                recorded[0, row::2, column::2] = image[channel, row::2, column::2]
        return recorded

    def _deposit(self, index: int, expected: np.ndarray) -> np.ndarray:
        """Draw the defects of a frame before resampling."""
        rng = np.random.default_rng([self.seed, 5, index])
        sky_sigma = float(self.sky_sigma[index].mean())
        deposit = np.zeros_like(expected)
        add_sensor_defects(deposit, self.sensor, self._whole(index), sky_sigma)
        for _ in range(rng.poisson(self.cosmic_rays)):
            add_cosmic_ray(deposit, rng, sky_sigma)
        for trail in self.trails:
            if trail.frame == index:
                deposit += trail.peak * sky_sigma * trail.profile(*deposit.shape[1:])
        if self.hit_frames.size:
            rows, columns = self.hit_pixels[(self.hit_frames == index).any(axis=1)].T
            sigma = self._camera_noise(index, expected[:, rows, columns])
            deposit[:, rows, columns] += self.hit_sigma * sigma
        return deposit


def simulate_night(
    count: int = 20,
    height: int = 300,
    width: int = 400,
    channels: int = 1,
    kind: str = "galaxy",
    seed: int = 1,
    *,
    transparency: Sequence[float] = (0.44, 1.0),
    fwhm: Sequence[float] = (2.6, 3.75),
    gradient: float = 0.02,
    noise: Sequence[float] = (1.0,),
    exposures: Sequence[float] = (180.0,),
    gains: Sequence[float] = (1.0,),
    registration: str = "none",
    dither: float = 6.0,
    sky: float | Sequence[float] = 0.05,
    sky_drift: float = 0.3,
    full_well: float = 16000.0,
    read_noise: float = 2.0,
    bits: int = 0,
    psf: str = "moffat",
    blur: str = "gaussian",
    cosmic_rays: float = 0.0,
    hot_pixels: int = 0,
    trails: int | Sequence[Trail] = 0,
    hits: int = 0,
    hits_in: int = 1,
    hit_sigma: float = 6.0,
    mosaic: bool = False,
    session: Session | None = None,
) -> ChangingNight:
    """Simulate a night with passing clouds, a moving gradient and changing seeing.

    Nothing is drawn before it is asked for. Each frame has random streams of its own, so any of them can be
    made alone. The streams for scene, weather, noise and defects are separate: nights of the same seed differ
    only by what was changed.

    Parameters
    ----------
    count, height, width, channels : int
        Number and shape of the frames. One or three channels.
    kind : {"galaxy", "spiral", "globular", "nebula", "field"}
        Target, see `make_scene`.
    seed : int
        Random seed. The same seed and parameters give the same pixels.
    transparency, fwhm : sequence of float
        Least and greatest value of the night, which it passes smoothly; or one value for each frame.
    gradient : float
        Greatest difference within the background of a frame, as a fraction of full scale. It grows through
        the night to this size and turns by 150 degrees, as moonlight does.
    noise, exposures, gains : sequence of float
        Factor on the noise, exposure time in seconds, and gain relative to the usual one. They are repeated
        until all frames have one. Level and light of a frame go with exposure time and gain, relative to the
        largest product of both.
    registration : {"none", "bilinear", "bicubic", "lanczos"}
        Interpolation of the registration. ``none``: dithers are whole pixels.
    dither : float
        Greatest shift along each axis in pixels. Registration leaves a border without data. 0: no shift at
        all.
    sky : float or sequence of float
        Sky level of the first frame as a fraction of full scale, one for all channels or one per channel.
    sky_drift : float
        Increase of the sky from the first frame to the last, as a fraction. Clouds brighten it further.
    full_well, read_noise : float
        Full scale and read noise in electrons, at gain 1.
    bits : int
        Round to this many bits before registration, as a camera does; 0: not rounded.
    psf : {"moffat", "gaussian"}
        Star profile.
    blur : {"gaussian", "psf"}
        How the seeing blurs everything else, see `Scene`. Comparisons of light over nights of changing seeing
        need ``psf``.
    cosmic_rays : float
        Mean number of cosmic rays per frame.
    hot_pixels : int
        Number of bad pixels left by calibration, a quarter of them too dark.
    trails : int or sequence of Trail
        Number of satellite trails (alternating bright and faint), or the trails.
    hits, hits_in : int
        Number of pixels that are hit on purpose, and the number of frames in which each one is hit.
    hit_sigma : float
        Height of these hits in sigma of the pixel.
    mosaic : bool
        Record color mosaics (RGGB) of one plane. Needs three channels, no resampling, and dithers are even.
    session : Session, optional
        Night and equipment, for the headers.

    Returns
    -------
    ChangingNight
        The night.

    Raises
    ------
    ValueError
        If `kind`, `psf`, `blur`, `registration` or the number of channels is unknown, the seeing is below 2
        pixels, or a mosaic is asked for that cannot be.

    Examples
    --------
    >>> night = simulate_night(8, 64, 80, transparency=(0.5, 1.0), registration="bicubic")
    >>> night.frame(3).shape
    (1, 64, 80)
    >>> float(night.transparency[night.reference])
    1.0
    """
    if registration not in METHODS:
        raise ValueError(f"registration: got {registration!r}, expected one of {', '.join(METHODS)}")
    if mosaic and (channels != 3 or registration != "none"):
        raise ValueError("mosaic: needs channels=3 and registration='none'; a mosaic cannot be interpolated")
    if blur not in ("gaussian", "psf"):
        raise ValueError(f"blur: got {blur!r}, expected 'gaussian' or 'psf'")
    weather, places = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 6])
    clear = _track(weather, count, transparency)
    widths = _track(weather, count, fwhm)
    if widths.min() < LEAST_FWHM:
        raise ValueError(f"fwhm: got {widths.min():.3g}, expected at least {LEAST_FWHM} pixels")
    exposure, gain, factor = (np.resize(np.asarray(v, float), count) for v in (exposures, gains, noise))
    scale = exposure * gain / (exposure * gain).max()
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    brightness = scale * (1 + sky_drift * progress**1.5) * (1 + GLOW * (clear.max() - clear))
    levels = brightness[:, None] * np.broadcast_to(np.asarray(sky, float), (channels,))
    tint = levels / levels.mean(axis=1, keepdims=True)
    shapes = _gradients(weather, progress, height, width)
    if isinstance(trails, int | np.integer):
        trails = choose_trails(places, int(trails), count, height, width)
    margin = int(np.ceil(dither)) + 1
    camera_noise = factor * noise_sigma(levels.mean(axis=1), full_well / gain, read_noise)
    light = clear * scale
    reference = int(np.argmax(light / camera_noise))
    scene = make_scene(kind, height, width, channels, seed, psf=psf, fwhm=SHARPEST)
    strength = light[reference]
    cards = _cards(full_well, read_noise, mosaic)
    return ChangingNight(
        scene=replace(scene, extended=strength * scene.extended, flux=strength * scene.flux, blur=blur),
        transparency=light / strength,
        sky=levels,
        gradient=gradient * scale[:, None, None] * tint[:, :, None] * shapes[:, None, :],
        fwhm=widths,
        noise=factor,
        exposure=exposure,
        gain=gain,
        shifts=_shifts(weather, count, dither, registration, mosaic, reference),
        registration=registration,
        reference=reference,
        full_well=full_well,
        read_noise=read_noise,
        bits=bits,
        cosmic_rays=cosmic_rays,
        sensor=sensor_defects(places, hot_pixels, channels, height, width),
        trails=tuple(trails),
        hit_pixels=_hit_pixels(places, hits, height, width, margin),
        hit_frames=np.argsort(places.random((hits, count)), axis=1)[:, :hits_in],
        hit_sigma=hit_sigma,
        mosaic=mosaic,
        seed=seed,
        headers=[
            replace(session or Session(), exposure=float(exposure[index])).header(index)
            | cards
            | ({"GAIN": (float(gain[index]), "Gain relative to the usual one")} if len(set(gain)) > 1 else {})
            for index in range(count)
        ],
    )


def _cards(full_well: float, read_noise: float, mosaic: bool) -> dict[str, tuple[Any, str]]:
    cards: dict[str, tuple[Any, str]] = {
        "EGAIN": (round(full_well / 65535, 5), "[e-/ADU] Electrons per 16-bit unit"),
        "RDNOISE": (read_noise, "[e-] Read noise"),
    }
    if mosaic:
        cards["BAYERPAT"] = ("RGGB", "Color filters from the top left")
    return cards


def _track(rng: np.random.Generator, count: int, given: Sequence[float]) -> np.ndarray:
    """Return a value for each frame: those given, or a smooth course between two ends that reaches both."""
    course = ndimage.gaussian_filter1d(rng.standard_normal(max(count, 2)), max(count / 15, 0.5))
    if len(given) == count and count != 2:
        return np.asarray(given, float)
    if len(given) != 2:
        raise ValueError(f"got {len(given)} values, expected 2 (least and greatest) or {count}, one a frame")
    course = (course - course.min()) / (course.max() - course.min())
    return given[0] + (given[1] - given[0]) * course[:count]


def _gradients(rng: np.random.Generator, progress: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the coefficients of a turning gradient, whose largest peak-to-valley difference is 1."""
    angle = rng.uniform(0, 2 * np.pi) + np.radians(150) * progress
    size = 0.35 + 0.65 * progress
    bend = rng.uniform(-0.5, 0.5, 3)
    across, down = np.cos(angle), np.sin(angle)
    # A slope along the angle, and a curvature along it that makes the bright side steeper.
    shapes = np.stack([across, down, 0.7 * across**2, 1.4 * across * down, 0.7 * down**2], axis=-1)
    shapes[:, 2:] += 0.2 * bend
    longer = max(height, width)
    y, x = np.linspace(-0.5, 0.5, 33)[:, None] * height / longer, np.linspace(-0.5, 0.5, 33) * width / longer
    terms = np.stack(np.broadcast_arrays(x, y, x**2, x * y, y**2), axis=-1)
    spans = np.ptp((terms @ shapes.T).reshape(-1, progress.size), axis=0)
    return shapes * (size / spans)[:, None]


def _shifts(
    rng: np.random.Generator, count: int, dither: float, registration: str, mosaic: bool, reference: int
) -> np.ndarray:
    """Return the shifts of registration. The other frames are registered to the reference."""
    shifts = rng.uniform(-dither, dither, (count, 2))
    if mosaic:
        shifts = 2 * np.trunc(shifts / 2)
    elif registration == "none":
        shifts = np.rint(shifts)
    shifts[reference] = 0
    return shifts


def _hit_pixels(rng: np.random.Generator, hits: int, height: int, width: int, margin: int) -> np.ndarray:
    """Choose different pixels within the area that all frames cover."""
    inside = np.arange(height * width).reshape(height, width)[margin:-margin, margin:-margin]
    chosen = rng.choice(inside.ravel(), hits, replace=False)
    return np.stack(np.unravel_index(chosen, (height, width)), axis=1)

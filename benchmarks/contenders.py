"""Contenders in Python: stacklib, its kernel alone, ccdproc, numpy.median, and plain reading."""

from __future__ import annotations

import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import stacklib
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.measurement.cache.planes import cache_file, sets_folder
from stacklib.normalization.preparation import prepare
from stacklib.normalization.settings import Settings
from stacklib.recipe.presets import with_preset
from stacklib.rejection.sorting import LANES

#: The rules that are timed.
RULES = ("sigma", "winsorized_sigma")
#: Parts of the image for each thread, as in `stacklib.integration.run`.
PARTS = 4


def processors() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def recipe(rule: str, weights: str = "none", normalized: bool = True) -> stacklib.Recipe:
    """Return a recipe: limits of 3 sigma on both sides, additive normalization with scaling or none."""
    return stacklib.Recipe(
        rejection=rule,
        sigma_low=3.0,
        sigma_high=3.0,
        normalization="additive_scaling" if normalized else "none",
        rejection_normalization="scale_zero_offset" if normalized else "none",
        weights=weights,
    )


def files(folder: str | Path) -> list[Path]:
    """Return the files of a set."""
    return sorted(Path(folder).glob("*.fits"))


def forget(folder: str | Path) -> None:
    """Remove the measurements that stacklib keeps of the frames."""
    cache_file(folder).unlink(missing_ok=True)
    shutil.rmtree(sets_folder(folder), ignore_errors=True)


def integrate(
    folder: str | Path, rule: str, weights: str = "none", memory: str = "2GB", normalized: bool = True
) -> stacklib.Integration:
    """Integrate a set of frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stacklib.StacklibWarning)
        settings = recipe(rule, weights, normalized)
        return stacklib.integrate(folder, settings, memory=memory, progress=False)


def integrate_preset(
    folder: str | Path, preset: str, memory: str = "2GB", **changes: object
) -> stacklib.Integration:
    """Integrate a set of frames with a preset and changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stacklib.StacklibWarning)
        settings = stacklib.Recipe(**with_preset({"preset": preset, **changes}))
        return stacklib.integrate(folder, settings, memory=memory, progress=False)


def integrate_and_save(folder: str | Path, rule: str, path: Path) -> None:
    """Integrate, measure the noise of the result and write it, which Siril's stacking step includes."""
    from stacklib.formats.fits import write_image

    result = integrate(folder, rule)
    path.unlink(missing_ok=True)
    write_image(path, result.image, [("NOISE", float(result.noise[0]), "")])


def integrate_sample(folder: str | Path) -> None:
    """Integrate with the suggested recipe, as in a first call."""
    stacklib.integrate(folder, progress=False)


def read_bytes(folder: str | Path) -> None:
    """Read every byte of every file."""
    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(lambda path: len(path.read_bytes()), files(folder)))


def read_cube(folder: str | Path) -> np.ndarray:
    """Return all samples, float32 (frames, pixels)."""
    frames = stacklib.open_frames(str(folder))
    cube = np.empty((len(frames), frames.height, frames.width), np.float32)
    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(lambda i: frames[i].read_rows(0, frames.height, 0, cube[i]), range(len(frames))))
    return cube.reshape(len(frames), -1)


def kernel_settings(folder: str | Path, rule: str) -> Settings:
    """Return what `integrate` hands to the kernel."""
    return prepare(stacklib.open_frames(str(folder)), recipe(rule)).settings(0)


def run_kernel(cube: np.ndarray, settings: Settings) -> Pixels:
    """Integrate samples in memory, float32 (frames, pixels), with all processors."""
    size, threads = cube.shape[1], processors()
    pixels = Pixels.empty(size, settings)
    step = -(-size // (threads * PARTS * LANES)) * LANES
    with ThreadPoolExecutor(threads) as pool:
        parts = [(start, min(start + step, size)) for start in range(0, size, step)]
        for part in [pool.submit(run_tiles, cube, settings, pixels, *part) for part in parts]:
            part.result()
    return pixels


def read_and_median(folder: str | Path) -> None:
    """Combine with a few lines of NumPy."""
    np.median(read_cube(folder), axis=0)


def ccdproc_version() -> str:
    """Return the version of ccdproc; empty if it is not installed."""
    try:
        import ccdproc
    except ImportError:
        return ""
    return ccdproc.__version__


def ccdproc_combine(folder: str | Path) -> np.ndarray:
    """Combine with ccdproc: the same limits and memory, no normalization."""
    import ccdproc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ccdproc.combine(
            [str(path) for path in files(folder)],
            method="average",
            sigma_clip=True,
            sigma_clip_func="median",
            sigma_clip_dev_func="std",
            sigma_clip_low_thresh=3,
            sigma_clip_high_thresh=3,
            unit="adu",
            mem_limit=2e9,
        ).data

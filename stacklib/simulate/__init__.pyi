from .changing_night import ChangingNight, simulate_night
from .defects import Trail
from .mosaic_samples import (
    large_mosaics,
    make_large_mosaics,
    mosaic_sample,
    sample_mosaics,
)
from .mosaics import DitheredNight, simulate_dithered
from .night import Session, Simulation, simulate_frames
from .samples import (
    large_night,
    make_benchmark_frames,
    make_large_night,
    make_sample_data,
    sample_m13,
    sample_m63,
    sample_m101,
)
from .scene import Scene, make_scene
from .targets import KINDS

__all__ = [
    "KINDS",
    "ChangingNight",
    "DitheredNight",
    "Scene",
    "Session",
    "Simulation",
    "Trail",
    "large_mosaics",
    "large_night",
    "make_benchmark_frames",
    "make_large_mosaics",
    "make_large_night",
    "make_sample_data",
    "make_scene",
    "mosaic_sample",
    "sample_m13",
    "sample_m63",
    "sample_m101",
    "sample_mosaics",
    "simulate_dithered",
    "simulate_frames",
    "simulate_night",
]

"""Compile what most tests need, once, before several processes of them would each do it at the same time."""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

import stacklib as sl
from stacklib.recipe.rules import RULES
from stacklib.simulate import simulate_frames
from stacklib.utils.package import CACHE_VARIABLE


def main() -> None:
    """Integrate small frames by all rules and presets, and ask what notebooks ask."""
    warnings.simplefilter("ignore", sl.StacklibWarning)
    stack = np.random.default_rng(1).normal(0.1, 0.01, (8, 12, 40)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        # What is measured here is kept for nobody.
        os.environ[CACHE_VARIABLE] = folder
        for channels in (3, 1):
            frames = Path(folder) / f"{channels}" / "4_Registered"
            simulate_frames(8, 130, 170, channels, "field", 5).save(frames)
            for recipe in (sl.Recipe.suggest(frames), sl.Recipe.best(frames)):
                sl.integrate(frames, recipe.replace(footprints="all"), progress=False)
                sl.explain(frames, recipe, x=20, y=20)
        sl.integrate(frames, sl.Recipe(large_scale_high=True), memory="1MB", progress=False)
        sl.advise(frames, progress=False)
        for rule in RULES:
            sl.reject(stack, sl.Recipe(rejection=rule))
            sl.integrate(frames, sl.Recipe(rejection=rule), progress=False)


if __name__ == "__main__":
    main()

"""Image integration for astrophotography: from registered frames to a clean master."""

from stacklib.errors import (
    FrameError,
    IntegrationError,
    RecipeError,
    SaveError,
    StacklibError,
    StacklibWarning,
)
from stacklib.explore.advisor import Advice, advise
from stacklib.explore.explain import PixelStory, explain
from stacklib.explore.sweep import Sweep, sweep
from stacklib.frames.frame_set import Frame, FrameSet, open_frames
from stacklib.integration.rerun import rerun
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.kernel.verdicts import reject
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.package import VERSION

__version__ = VERSION

__all__ = [
    "Advice",
    "Frame",
    "FrameError",
    "FrameSet",
    "Integration",
    "IntegrationError",
    "Job",
    "PixelStory",
    "Recipe",
    "RecipeError",
    "SaveError",
    "StacklibError",
    "StacklibWarning",
    "Sweep",
    "advise",
    "explain",
    "integrate",
    "open_frames",
    "reject",
    "rerun",
    "sweep",
]

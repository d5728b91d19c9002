"""Image integration for astrophotography: from registered frames to a clean master."""

from stacklib.advisor import Advice, advise
from stacklib.errors import (
    FrameError,
    IntegrationError,
    RecipeError,
    SaveError,
    StacklibError,
    StacklibWarning,
)
from stacklib.explain import PixelStory, explain
from stacklib.frames import Frame, FrameSet, open_frames
from stacklib.integration import integrate
from stacklib.kernel import reject
from stacklib.recipe import Job, Recipe
from stacklib.rerun import rerun
from stacklib.results import Integration
from stacklib.sweep import Sweep, sweep

__version__ = "0.1.0"

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

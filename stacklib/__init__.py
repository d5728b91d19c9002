"""Image integration for astrophotography: from registered frames to a clean master."""

from stacklib.drizzle.coverage import Forecast
from stacklib.drizzle.rerun import rerun
from stacklib.drizzle.result import Drizzled

# The function takes the name of its package here; imports from stacklib.drizzle work all the same.
from stacklib.drizzle.run import drizzle, drizzle_forecast
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
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.kernel.verdicts import reject
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.package import VERSION

__version__ = VERSION

__all__ = [
    "Advice",
    "DrizzleRecipe",
    "Drizzled",
    "Forecast",
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
    "drizzle",
    "drizzle_forecast",
    "explain",
    "integrate",
    "open_frames",
    "reject",
    "rerun",
    "sweep",
]

from .drizzle.coverage import Forecast
from .drizzle.rerun import rerun
from .drizzle.result import Drizzled

# The function takes the name of its package here; imports from .drizzle work all the same.
from .drizzle.run import drizzle, drizzle_forecast
from .errors import (
    FrameError,
    IntegrationError,
    RecipeError,
    SaveError,
    StacklibError,
    StacklibWarning,
)
from .explore.advisor import Advice, advise
from .explore.boxes.blame import Blame, blame
from .explore.explain import PixelStory, explain
from .explore.sweep import Sweep, sweep
from .frames.frame_set import Frame, FrameSet, open_frames
from .integration.result import Integration
from .integration.run import integrate
from .kernel.verdicts import reject
from .recipe.drizzle_recipe import DrizzleRecipe
from .recipe.recipe import Job, Recipe

__version__: str

__all__ = [
    "Advice",
    "Blame",
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
    "blame",
    "drizzle",
    "drizzle_forecast",
    "explain",
    "integrate",
    "open_frames",
    "reject",
    "rerun",
    "sweep",
]

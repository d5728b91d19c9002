"""Remarks on the bundled sample frames, beside figures that otherwise show the frames of the user."""

from __future__ import annotations

from stacklib.errors import FrameError
from stacklib.frames.finding import find_images
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.result import Integration
from stacklib.recipe.recipe import Job, Recipe

__all__ = ["is_sample", "show_for_sample"]


def show_for_sample(shown: FrameSet | Integration, text: str) -> None:
    """Display a remark in Markdown if the sample is shown, and nothing for other frames.

    A remark on a result also needs the default settings: with others, the figures show other things.
    """
    from IPython.display import Markdown, display

    if is_sample(shown):
        display(Markdown(text.strip()))


def is_sample(shown: FrameSet | Integration) -> bool:
    """Return whether these are all of the sample frames or, for a result, their default integration."""
    if isinstance(shown, Integration):
        p = shown.preparation
        return p.recipe == Recipe.suggest(p.frames) and not p.excluded and is_sample(p.frames)
    try:
        sample = find_images(Job().frames).images
    except FrameError:
        return False
    return sorted(frame.path.resolve() for frame in shown) == sorted(path.resolve() for path in sample)

"""Every parameter of an integration, in one place.

Widgets, notebook parameters, HISTORY lines, the YAML file and error messages all come from the
fields below: a default, a range or an allowed list, a unit and a sentence of help for each.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacklib.errors import RecipeError
from stacklib.recipe.run_record import read_recipe
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.parameters import (
    Checked,
    choice_field,
    commented_yaml,
    count_field,
    list_field,
    number_field,
    read_yaml,
    refuse_unknown,
    switch_field,
    text_field,
)

__all__ = ["FRAMES_FOR_WINSORIZED", "REJECTION_RULES", "RULE_PARAMETERS", "Job", "Recipe", "rule_in_words"]

#: Up to this many frames the workflow uses sigma clipping, above it winsorized sigma clipping.
FRAMES_FOR_WINSORIZED = 15

REJECTION_RULES = (
    "none",
    "min_max",
    "percentile",
    "sigma",
    "winsorized_sigma",
    "averaged_sigma",
    "linear_fit",
    "gesd",
    "chauvenet",
    "ccd_noise",
)


@dataclass(frozen=True)
class Recipe(Checked):
    """How frames are integrated; every field is also a papermill parameter.

    A recipe is immutable and always valid: an unknown name, a wrong type or a value out of range
    raises `RecipeError` when the recipe is made.

    Examples
    --------
    >>> recipe = Recipe(rejection="sigma", sigma_high=2.8)
    >>> recipe.replace(sigma_low=3.4).sigma_low
    3.4
    """

    rejection: str = choice_field(
        "auto",
        ("auto", *REJECTION_RULES),
        "Rejection rule. auto: sigma for up to 15 frames, winsorized_sigma for more.",
    )
    clip_low: bool = switch_field(True, "Reject samples that are too dark.")
    clip_high: bool = switch_field(True, "Reject samples that are too bright.")
    sigma_low: float = number_field(
        3.2,
        0.5,
        20.0,
        "Reject below this many sigma (sigma, winsorized_sigma, averaged_sigma, ccd_noise).",
        "sigma",
        (3.0, 3.4),
    )
    sigma_high: float = number_field(
        2.9,
        0.5,
        20.0,
        "Reject above this many sigma (sigma, winsorized_sigma, averaged_sigma, ccd_noise).",
        "sigma",
        (2.8, 3.0),
    )
    winsorization_cutoff: float = number_field(
        5.0,
        1.5,
        100.0,
        "winsorized_sigma: samples farther out than this become the median in the first round.",
        "sigma",
    )
    percentile_low: float = number_field(
        0.2, 0.0, 1.0, "percentile: reject samples more than this fraction below the median."
    )
    percentile_high: float = number_field(
        0.1, 0.0, 100.0, "percentile: reject samples more than this fraction above the median."
    )
    min_max_low: int = count_field(
        1, 0, 100000, "min_max: drop this many of the darkest samples at each pixel."
    )
    min_max_high: int = count_field(
        1, 0, 100000, "min_max: drop this many of the brightest samples at each pixel."
    )
    linear_fit_low: float = number_field(
        5.0, 0.5, 50.0, "linear_fit: reject samples this far below the fitted line.", "mean deviations"
    )
    linear_fit_high: float = number_field(
        4.0, 0.5, 50.0, "linear_fit: reject samples this far above the fitted line.", "mean deviations"
    )
    gesd_outliers_fraction: float = number_field(
        0.3, 0.0, 0.9, "gesd: at most this fraction of the samples of a pixel can be outliers."
    )
    gesd_significance: float = number_field(
        0.05, 1e-6, 0.5, "gesd: chance of a false rejection at a clean pixel that the test accepts."
    )
    gesd_low_relaxation: float = number_field(
        1.0, 1.0, 10.0, "gesd: divide the deviation of dark samples by this; more than 1 spares them."
    )
    gesd_variant: str = choice_field(
        "rosner", ("rosner", "pixinsight"), "gesd: the test as published, or as PixInsight does it."
    )
    chauvenet_limit: float = number_field(
        0.1, 1e-6, 0.5, "chauvenet: reject a sample where fewer than this many are expected.", "samples"
    )
    ccd_gain: float = number_field(1.0, 1e-4, 1e4, "ccd_noise: gain of the camera.", "e-/ADU")
    ccd_read_noise: float = number_field(10.0, 0.0, 1e4, "ccd_noise: read noise of the camera.", "e-")
    ccd_scale_noise: float = number_field(
        0.0, 0.0, 1.0, "ccd_noise: noise in proportion to the signal (flat field, seeing).", "fraction"
    )
    range_clip_low: bool = switch_field(
        True, "Take samples at or below range_low as no data: the black border that registration leaves."
    )
    range_low: float = number_field(
        0.0, -1e6, 1e9, "Raw value at or below which a sample is no data.", "raw value"
    )
    range_clip_high: bool = switch_field(False, "Leave out saturated samples: at or above range_high.")
    range_high: float = number_field(
        0.98, -1e6, 1e9, "Raw value at or above which a sample counts as saturated.", "raw value"
    )
    map_range_rejection: bool = switch_field(True, "Show range-rejected samples in the rejection maps.")
    report_range_rejection: bool = switch_field(
        False, "Count range-rejected samples in the rejection counts."
    )
    normalization: str = choice_field(
        "additive_scaling",
        ("none", "additive", "multiplicative", "additive_scaling", "multiplicative_scaling"),
        "How frames are matched to the reference before they are combined.",
    )
    rejection_normalization: str = choice_field(
        "scale_zero_offset",
        ("none", "scale_zero_offset", "equalize_fluxes"),
        "How frames are matched to the reference before samples are compared for rejection.",
    )
    scale_estimator: str = choice_field(
        "bwmv",
        ("bwmv", "mad", "avgdev"),
        "Estimator of the spread of a frame: biweight midvariance, median or average absolute deviation.",
    )
    weights: str = choice_field(
        "noise",
        ("none", "exposure", "noise", "snr", "signal", "median", "mean", "keyword", "csv"),
        "What the weight of a frame is taken from (average combination only).",
    )
    weight_keyword: str = text_field("", "weights keyword: name of the FITS keyword that holds the weight.")
    weight_file: str = text_field("", "weights csv: table with the columns file and weight (CSV or ECSV).")
    min_weight: float = number_field(
        0.005, 0.0, 1.0, "Leave out frames whose weight is below this fraction of the best one."
    )
    combination: str = choice_field(
        "average",
        ("average", "median", "minimum", "maximum"),
        "How the surviving samples become one value; only the average uses weights.",
    )
    reference: str = text_field(
        "", "File name of the reference frame for normalisation; empty: the frame with the best weight."
    )
    output_range: str = choice_field(
        "rescale", ("rescale", "truncate"), "What to do with an image that leaves the range 0 to 1."
    )

    @classmethod
    def suggest(cls, frames: Any) -> Recipe:
        """The workflow's rule of thumb for this many frames.

        Parameters
        ----------
        frames : FrameSet or int
            The frames to integrate, or how many they are.

        Returns
        -------
        Recipe
            ``sigma`` for up to 15 frames, ``winsorized_sigma`` for more; sigma low 3.2, sigma high 2.9.
        """
        count = int(frames) if isinstance(frames, numbers.Integral) else len(frames)
        return cls(rejection=cls().rule_for(count))

    def rule_for(self, count: int) -> str:
        """The rejection rule for `count` frames: `rejection`, with ``auto`` resolved."""
        if self.rejection != "auto":
            return self.rejection
        return "sigma" if count <= FRAMES_FOR_WINSORIZED else "winsorized_sigma"

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some parameters changed.

        Raises
        ------
        RecipeError
            For an unknown name or a value out of range.
        """
        return type(self).from_dict({**self.to_dict(), **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """A recipe from names and values; what is not named keeps its default.

        Raises
        ------
        RecipeError
            For an unknown name (with the nearest known one) or a value out of range.
        """
        refuse_unknown(values, cls.parameters(), source)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All parameters by name."""
        return {name: getattr(self, name) for name in self.parameters()}

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a YAML file; parameters of the run itself (see `Job`) are passed over.

        Raises
        ------
        RecipeError
            When the file cannot be read, is not YAML, or holds an unknown or invalid parameter.
        """
        return Job.load(path).recipe

    @classmethod
    def from_result(cls, path: str | Path) -> Recipe:
        """The recipe that a saved image was made with.

        Parameters
        ----------
        path : str or Path
            Any image of a result. XISF holds the recipe whole; in FITS it stands in the HISTORY, where
            letters that are not ASCII are lost.

        Raises
        ------
        FrameError
            When the file cannot be read.
        RecipeError
            When it holds no recipe, or one that this version does not know.

        Examples
        --------
        >>> Recipe.from_result("5_Integration/20210815_M101_0000.xisf").rejection  # doctest: +SKIP
        'winsorized_sigma'
        """
        return cls.from_dict(read_recipe(path), source=str(path))

    def to_yaml(self) -> str:
        """The recipe as YAML, with the help text of each parameter as a comment."""
        return commented_yaml(self.to_dict(), self.parameters())

    def save(self, path: str | Path) -> Path:
        """Write the recipe as YAML, in one step: an older file is replaced whole or not at all.

        The file is also a papermill parameter file (``papermill ... -f recipe.yaml``).
        """
        return replace_atomically(path, self.to_yaml().encode("utf-8"))

    def in_words(self, count: int) -> list[str]:
        """The settings that matter for `count` frames, as sentences of the form ``name: value``.

        Only the parameters of the chosen rule are named.
        """
        rule = self.rule_for(count)
        names = ["clip_low", "clip_high", *RULE_PARAMETERS[rule]] if RULE_PARAMETERS[rule] else []
        chosen = " (chosen by the number of frames)" if self.rejection == "auto" else ""
        lines = [f"rejection: {rule}{chosen}"]
        names += ["range_clip_low"] + ["range_low"] * self.range_clip_low
        names += ["range_clip_high"] + ["range_high"] * self.range_clip_high
        names += ["normalization", "rejection_normalization", "scale_estimator", "combination"]
        if self.combination == "average":
            names += ["weights", "min_weight"]
            names += {"keyword": ["weight_keyword"], "csv": ["weight_file"]}.get(self.weights, [])
        names += ["reference"] * bool(self.reference) + ["output_range"]
        parameters = self.parameters()
        for name in names:
            value, unit = getattr(self, name), parameters[name].unit
            if isinstance(value, bool):
                value = "yes" if value else "no"
            text = f"{value:g}" if isinstance(value, float) else str(value)
            lines.append(f"{name}: {text} {unit}".rstrip())
        return lines


#: The parameters that each rule listens to.
RULE_PARAMETERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "min_max": ("min_max_low", "min_max_high"),
    "percentile": ("percentile_low", "percentile_high"),
    "sigma": ("sigma_low", "sigma_high"),
    "winsorized_sigma": ("sigma_low", "sigma_high", "winsorization_cutoff"),
    "averaged_sigma": ("sigma_low", "sigma_high"),
    "linear_fit": ("linear_fit_low", "linear_fit_high"),
    "gesd": ("gesd_outliers_fraction", "gesd_significance", "gesd_low_relaxation", "gesd_variant"),
    "chauvenet": ("chauvenet_limit",),
    "ccd_noise": ("sigma_low", "sigma_high", "ccd_gain", "ccd_read_noise", "ccd_scale_noise"),
}


def rule_in_words(rule: str, values: Mapping[str, Any]) -> str:
    """A rule with its limits in a few words.

    Parameters
    ----------
    rule : str
        The rule, not ``auto``.
    values : mapping
        Parameters of a recipe by name, see `Recipe.to_dict`; what is not there is not told.

    Returns
    -------
    str
        Such as ``winsorized sigma 3.2 / 2.9``. Where a rule has limits on both sides, its other parameters
        are told when they are not at their defaults.
    """
    names = [name for name in RULE_PARAMETERS.get(rule, ()) if name in values]
    sides = [name for name in names if name.endswith(("_low", "_high"))]
    off = [side for side in ("low", "high") if names and not values.get(f"clip_{side}", True)]
    limits = ["off" if name.rpartition("_")[2] in off else f"{values[name]:g}" for name in sides]
    name = "no rejection" if rule == "none" else rule.replace("_", " ")
    words = [f"{name} {' / '.join(limits)}".strip()]
    defaults = Recipe.parameters()
    for name in names:
        if name not in sides and not (sides and values[name] == defaults[name].default):
            value = values[name] if isinstance(values[name], str) else f"{values[name]:g}"
            words.append(f"{name.removeprefix(rule.partition('_')[0] + '_').replace('_', ' ')} {value}")
    return ", ".join(words + [f"{side} off" for side in off if not sides])


@dataclass(frozen=True)
class Job(Checked):
    """One run: which frames, where to, and the recipe.

    In YAML and in papermill a job is flat: the fields below and those of `Recipe` side by side.
    """

    frames: str | list[str] = list_field(
        "sample_data/M101/4_Registered",
        "Folder, glob pattern or list of files with the registered light frames.",
    )
    output: str = text_field(
        "",
        "Folder for the results, from where the run was started; empty: 5_Integration beside the frames.",
    )
    interactive: bool = switch_field(True, "Show live panels where there is a browser; False: figures only.")
    memory: str = text_field("2GB", "Memory budget of the integration, for instance 800MB or 4GB.")
    save_maps: bool = switch_field(False, "Also save coverage, uncertainty and (linear_fit) slope.")
    save_fits: bool = switch_field(False, "Also save every image as FITS.")
    recipe: Recipe = dataclasses.field(default_factory=Recipe)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "parameters") -> Job:
        """A job from flat names and values.

        Raises
        ------
        RecipeError
            For an unknown name or an invalid value.
        """
        own, inner = cls.parameters(), Recipe.parameters()
        refuse_unknown(values, own | inner, source)
        recipe = Recipe.from_dict({name: value for name, value in values.items() if name in inner})
        return cls(**{name: value for name, value in values.items() if name in own}, recipe=recipe)

    def to_dict(self) -> dict[str, Any]:
        """All parameters of the run and of the recipe by name."""
        return {name: getattr(self, name) for name in self.parameters()} | self.recipe.to_dict()

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read a job or a recipe from a YAML file.

        Raises
        ------
        RecipeError
            When the file cannot be read, is not YAML, or holds an unknown or invalid parameter.
        """
        path = Path(path)
        values = read_yaml(path)
        try:
            return cls.from_dict(values, source=str(path))
        except RecipeError as error:
            text = str(error)
            raise RecipeError(text if text.startswith(str(path)) else f"{path}: {text}") from None

"""Recipe and job: every parameter of an integration with default, range, unit and help.

The parameters of the rejection rules are in `stacklib.recipe.rules`.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacklib.errors import RecipeError
from stacklib.frames.finding import beside, expanded
from stacklib.frames.frame_set import open_frames
from stacklib.frames.kinds import calibration_kind
from stacklib.recipe.presets import with_preset
from stacklib.recipe.rules import RULES, RejectionParameters, RuleSpec
from stacklib.recipe.run_record import read_recipe
from stacklib.recipe.trail_names import TrailName
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.labels import quoted
from stacklib.utils.parameters import (
    Checked,
    choice_field,
    commented_yaml,
    count_field,
    list_field,
    named_errors,
    number_field,
    read_yaml,
    refuse_unknown,
    switch_field,
    text_field,
)

__all__ = ["NAMED_WEIGHTS", "Job", "Recipe"]

#: Weights that need another parameter, which names them.
NAMED_WEIGHTS = {"keyword": "weight_keyword", "csv": "weight_file", "formula": "weight_formula"}
#: Normalizations that go by the light of the stars.
BY_LIGHT = ("photometric", "local")
#: Weights that need the light and the noise of the frames.
WEIGHTS_BY_LIGHT = ("measured", "information", "psf_signal", "psf_snr", "formula")


@dataclass(frozen=True)
class Recipe(RejectionParameters):
    """Settings of an integration. Every field is also a papermill parameter.

    A recipe is immutable and always valid: an unknown name, a wrong type or a value out of range raises
    `RecipeError`.

    Examples
    --------
    >>> recipe = Recipe(rejection="sigma", sigma_high=2.8)
    >>> recipe.replace(sigma_low=3.4).sigma_low
    3.4
    """

    footprints: str = choice_field(
        "off",
        ("off", "trails", "all"),
        "Find straight trails below the noise of a pixel; all: also tracks and blobs.",
    )
    footprint_strength: float = number_field(
        1.0, 0.5, 1.3, "Above 1 finds fainter ones; costs .6 % of samples at 1.2."
    )
    ignore_trails: str | list[str] = list_field(
        "", "Trails that are none, as the report names them: light_007.xisf:12,30-300,150."
    )
    joint_colour: bool = switch_field(
        True, "Color: a hit over 5 sigma takes its 3 x 3 pixels in all channels with it."
    )
    large_scale_low: bool = switch_field(
        False, "Let clusters of samples that were rejected as too dark grow."
    )
    large_scale_high: bool = switch_field(
        False, "The same for too bright; 70 to 100 % of a trail of 2 sigma stays."
    )
    large_scale_layers: int = count_field(
        2, 1, 6, "Clusters must survive medians of 3, 5, 9 ... pixels: this many.", "layers"
    )
    large_scale_growth: int = count_field(2, 0, 20, "Grow them by this much.", "pixels")
    masks: str | list[str] = list_field(
        "", "Folder with masks of your own, FRAME_mask.fits for each: nonzero pixels are rejected."
    )
    range_clip_low: bool = switch_field(
        True, "Ignore samples without data: the black border from registration."
    )
    range_low: float = number_field(
        0.0,
        -1e6,
        1e9,
        "Samples up to this raw value (ADU from 1 on) are no data; 0 finds the border.",
        "raw value",
    )
    range_clip_high: bool = switch_field(False, "Ignore saturated samples: at or above range_high.")
    range_high: float = number_field(
        0.98,
        -1e6,
        1e9,
        "Raw value of saturated samples; up to 1 a fraction of full scale, else ADU.",
        "raw value",
    )
    map_range_rejection: bool = switch_field(True, "Show range-rejected samples in the rejection maps.")
    report_range_rejection: bool = switch_field(
        False, "Include range-rejected samples in the rejection counts."
    )
    normalization: str = choice_field(
        "additive_scaling",
        (
            "none",
            "additive",
            "multiplicative",
            "additive_scaling",
            "multiplicative_scaling",
            "photometric",
            "local",
        ),
        "How frames are matched; under clouds only photometric is right.",
    )
    rejection_normalization: str = choice_field(
        "scale_zero_offset",
        ("none", "scale_zero_offset", "equalize_fluxes", "photometric", "local"),
        "The same to compare samples; clouds mislead the spread.",
    )
    scale_estimator: str = choice_field(
        "bwmv",
        ("bwmv", "mad", "avgdev", "pbmv", "sn", "qn", "ikss"),
        "How the spread of a frame is measured; bwmv, mad and avgdev are the fastest.",
    )
    weights: str = choice_field(
        "noise",
        (
            "none",
            "exposure",
            "noise",
            "snr",
            "signal",
            "median",
            "mean",
            *WEIGHTS_BY_LIGHT,
            "keyword",
            "csv",
        ),
        "Weight of a frame (average only); noise misjudges clouds, measured does not.",
    )
    weight_keyword: str = text_field("", "For weights keyword: FITS keyword that holds the weight.")
    weight_file: str = text_field(
        "", "For weights csv: table with the columns file and weight (CSV or ECSV)."
    )
    weight_formula: str = text_field(
        "", "For weights formula: an expression, such as (transparency / (noise * fwhm)) ** 2."
    )
    min_weight: float = number_field(
        0.005, 0.0, 1.0, "Leave out frames with less than this fraction of the best weight."
    )
    combination: str = choice_field(
        "average",
        ("average", "median", "minimum", "maximum"),
        "How the kept samples become one value.",
    )
    reference: str = text_field(
        "", "File name of the reference frame; empty: the frame with the best weight."
    )
    output_range: str = choice_field(
        "rescale", ("rescale", "truncate"), "What to do if values exceed 1: rescale the image or truncate."
    )
    output_bits: str = choice_field(
        "32", ("32", "64"), "Bits of a value of the image, a floating point number; 64 to stack masters."
    )
    allow_unregistered: bool = switch_field(
        False, "Integrate frames that do not lie on each other, as those of a comet."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rejection_normalization in BY_LIGHT and self.rejection_normalization != self.normalization:
            raise RecipeError(
                f"rejection_normalization: {self.rejection_normalization} needs the same normalization, but "
                f"that is {self.normalization}; set normalization to {self.rejection_normalization} as well"
            )
        self.ignored_trails  # noqa: B018 - checks it

    def __hash__(self) -> int:
        # Lists have none.
        values = (getattr(self, name) for name in self.parameters())
        return hash(tuple(tuple(value) if isinstance(value, list) else value for value in values))

    @property
    def ignored_trails(self) -> list[TrailName]:
        """Trails not to be used."""
        return TrailName.read(self.ignore_trails, "ignore_trails")

    @classmethod
    def suggest(cls, frames: Any) -> Recipe:
        """Return the recipe that the rule of thumb suggests for these frames.

        Parameters
        ----------
        frames : FrameSet, str, Path, list or int
            The frames to integrate, anything `open_frames` accepts, or their number.

        Returns
        -------
        Recipe
            ``sigma`` for 10 to 15 frames, ``winsorized_sigma`` for fewer or more, with sigma low 3.2 and
            sigma high 2.9.
        """
        if isinstance(frames, (str, Path)):
            frames = open_frames(frames)
        count = int(frames) if isinstance(frames, numbers.Integral) else len(frames)
        return cls(rejection=cls().rule_for(count))

    @classmethod
    def best(cls, frames: Any) -> Recipe:
        """Return the preset for these frames: ``bias``, ``dark`` or ``flat`` if all are, else ``measured``.

        Parameters
        ----------
        frames : FrameSet, str, Path or list
            The frames to integrate, or anything `open_frames` accepts. What they are is told by IMAGETYP, or
            by their names.

        Returns
        -------
        Recipe
        """
        return cls.from_dict({"preset": calibration_kind(open_frames(frames)) or "measured"})

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some parameters changed.

        Parameters
        ----------
        **changes
            New values by parameter name, or a ``preset``.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            If a name is unknown or a value is out of range.
        """
        return type(self).from_dict({**self.to_dict(), **with_preset(changes)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Make a recipe from names and values. Other parameters keep their defaults.

        Parameters
        ----------
        values : mapping
            Values by parameter name. ``preset`` stands for several, which the others override; see
            `stacklib.recipe.presets`.
        source : str
            Start of error messages, such as a file name.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            If a name is unknown or a value is out of range.
        """
        values = with_preset(values)
        refuse_unknown(values, cls.parameters(), source)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return all parameters by name."""
        return {name: getattr(self, name) for name in self.parameters()}

    @property
    def corrects_samples(self) -> bool:
        """Whether frames are matched by their light, which corrects the background of their samples."""
        return self.normalization in BY_LIGHT

    @property
    def needs_photometry(self) -> bool:
        """Whether the light and the noise of the frames have to be measured against their stack."""
        weights = self.combination == "average" and self.weights in WEIGHTS_BY_LIGHT
        return self.corrects_samples or weights

    def spatial_means(self, count: int, channels: int) -> tuple[str, ...]:
        """Return the means of rejection that look at neighbors.

        Parameters
        ----------
        count : int
            Number of frames.
        channels : int
            Number of channels.

        Returns
        -------
        tuple of str
            Names of `stacklib.spatial.means.MEANS`, in their order. Empty if the frames need no second pass.
        """
        clips = RULES[self.rule_for(count)].rejects
        sides = (self.large_scale_low and self.clip_low) or (self.large_scale_high and self.clip_high)
        active = {
            "large_scale": clips and sides,
            "footprint": self.footprints == "all",
            "line": self.footprints != "off",
            "colour": clips and (self.clip_low or self.clip_high) and self.joint_colour and channels > 1,
            "own": bool(self.masks),
        }
        return tuple(name for name, on in active.items() if on)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a YAML file. Parameters of the run itself, see `Job`, are ignored.

        Parameters
        ----------
        path : str or Path
            Recipe or job file.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            If the file cannot be read, is not YAML, or has an unknown or invalid parameter.
        """
        return Job.load(path).recipe

    @classmethod
    def from_result(cls, path: str | Path) -> Recipe:
        """Read the recipe of a saved image.

        Parameters
        ----------
        path : str or Path
            Any image of a result. FITS files hold the recipe in the HISTORY, without letters that are not
            ASCII.

        Returns
        -------
        Recipe

        Raises
        ------
        FrameError
            If the file cannot be read.
        RecipeError
            If it has no recipe, or one that this version does not know.

        Examples
        --------
        >>> Recipe.from_result("5_Integration/20210815_M101_0000.xisf").rejection  # doctest: +SKIP
        'winsorized_sigma'
        """
        with named_errors(path):
            return cls.from_dict(read_recipe(path), source=str(path))

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with the help of each parameter as a comment."""
        return commented_yaml(self.to_dict(), self.parameters())

    def save(self, path: str | Path) -> Path:
        """Write the recipe as a YAML file, which papermill reads as well (``papermill ... -f recipe.yaml``).

        Parameters
        ----------
        path : str or Path
            The file. An existing file is replaced as a whole.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        SaveError
            If the file cannot be written.
        """
        return replace_atomically(path, self.to_yaml().encode("utf-8"))

    def in_words(self, count: int, channels: int = 1) -> list[str]:
        """Return the settings that matter for `count` frames of so many channels as ``name: value``."""
        spec = RULES[self.rule_for(count)]
        names = ["clip_low", "clip_high", *spec.parameters] if spec.rejects else []
        chosen = " (chosen by the number of frames)" if self.rejection == "auto" else ""
        lines = [f"rejection: {spec.name}{chosen}"]
        means = self.spatial_means(count, channels)
        names += ["footprints", "footprint_strength"] * ("line" in means)
        names += ["ignore_trails"] * bool(self.ignore_trails)
        names += ["joint_colour"] * ("colour" in means) + ["masks"] * ("own" in means)
        if "large_scale" in means:
            names += [f"large_scale_{name}" for name in ("low", "high", "layers", "growth")]
        names += ["range_clip_low"] + ["range_low"] * self.range_clip_low
        names += ["range_clip_high"] + ["range_high"] * self.range_clip_high
        names += ["normalization", "rejection_normalization", "scale_estimator", "combination"]
        if self.combination == "average":
            names += ["weights", "min_weight"]
            names += [NAMED_WEIGHTS[self.weights]] if self.weights in NAMED_WEIGHTS else []
        names += ["reference"] * bool(self.reference) + ["output_range", "output_bits"]
        parameters = self.parameters()
        for name in names:
            value, unit = getattr(self, name), parameters[name].unit
            if isinstance(value, bool):
                value = "yes" if value else "no"
            value = ", ".join(value) if isinstance(value, list) else value
            text = f"{value:g}" if isinstance(value, float) else str(value)
            lines.append(f"{name}: {text} {unit}".rstrip())
        return lines

    def without_effect(self, names: Iterable[str], count: int) -> list[str]:
        """Return those of the parameters that change nothing with `count` frames, with the reason."""
        reasons = {name: self._why_idle(name, RULES[self.rule_for(count)]) for name in names}
        return [f"{name} ({reason})" for name, reason in reasons.items() if reason]

    def _why_idle(self, name: str, spec: RuleSpec) -> str:
        """Return why a parameter has no effect, an empty string if it has one."""
        averages, side = self.combination == "average", name.rpartition("_")[2]
        of_a_rule = name in RejectionParameters.parameters() and name != "rejection"
        if of_a_rule and (not spec.rejects or name not in ("clip_low", "clip_high", *spec.parameters)):
            return f"not used by {spec.name}" if spec.rejects else "rejection is none"
        if name in ("large_scale_low", "large_scale_high", "joint_colour") and not spec.rejects:
            return "rejection is none"
        if name in ("footprint_strength", "ignore_trails") and self.footprints == "off":
            return "footprints is off"
        sides = ("large_scale_low", "large_scale_high")
        if name in ("large_scale_layers", "large_scale_growth") and not any(getattr(self, n) for n in sides):
            return f"{' and '.join(sides)} are off"
        switches = [f"clip_{side}"] if name in (*spec.limits, *sides) else []
        switches += [f"range_clip_{side}"] if name in ("range_low", "range_high") else []
        if off := [switch for switch in switches if not getattr(self, switch)]:
            return f"{off[0]} is off"
        if not averages and name == "weights" and self.weights == "none":
            return ""
        if name in ("weights", "min_weight", *NAMED_WEIGHTS.values()) and not averages:
            return f"combination is {self.combination}"
        needed = next((kind for kind, named in NAMED_WEIGHTS.items() if named == name), self.weights)
        idle = self.weights != needed or (name == "min_weight" and self.weights == "none")
        return f"weights is {self.weights}" if idle else ""

    def warnings_for(self, count: int) -> list[str]:
        """Return warnings about settings that do not work with `count` frames, or have no effect.

        Limits of other rules are no mistake: they stay from earlier trials.
        """
        defaults, limits = self.parameters(), RejectionParameters.parameters()
        changed = [
            n for n, value in self.to_dict().items() if value != defaults[n].default and n not in limits
        ]
        idle = self.without_effect(changed, count)
        notes = [f"without effect: {', '.join(idle)}"] if idle else []
        return [*super().warnings_for(count), *notes]


@dataclass(frozen=True)
class Job(Checked):
    """A run: frames, output folder and recipe.

    In YAML and papermill, its fields and those of `Recipe` are on one level.
    """

    frames: str | list[str] = list_field(
        "sample_data/M101/4_Registered",
        "Folder, glob pattern or list of registered light frames.",
    )
    output: str = text_field(
        "",
        "Folder for the results; empty: 5_Integration beside the frames.",
    )
    interactive: bool = switch_field(True, "Show live panels in a browser; False: figures only.")
    region: str | list[str] = list_field(
        "", "Integrate only this part: left, top, width and height in pixels; empty: the whole image."
    )
    memory: str = text_field("2GB", "Memory budget, e.g. 800MB or 4GB.")
    save_maps: bool = switch_field(
        False, "Also save coverage, uncertainty and, for rules that fit a line, slope."
    )
    save_fits: bool = switch_field(False, "Also save every image as FITS.")
    save_masks: bool = switch_field(
        False, "Also save masks: what fell to its neighbors, in a file for each frame."
    )
    drizzle_data: bool = switch_field(
        False, "Also save drizzle data: the .xdrz file of each frame, completed by this run."
    )
    keep_samples: bool = switch_field(
        False, "Keep sorted samples: with sigma, a few frames more or less take less time."
    )
    compare: bool = switch_field(
        False, "Also integrate a region with the presets classic and measured, and compare them."
    )
    recipe: Recipe = dataclasses.field(default_factory=Recipe)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part is not None and self.drizzle_data:
            raise RecipeError("drizzle_data: needs whole frames; leave region empty, or set it to false")

    @property
    def part(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of `region` in pixels; None for the whole image."""
        texts = self.region.replace(",", " ").split() if isinstance(self.region, str) else self.region
        if not texts:
            return None
        try:
            left, top, width, height = (int(text) for text in texts)
        except ValueError:
            left = top = width = height = -1
        if min(left, top) < 0 or min(width, height) < 1:
            raise RecipeError(
                f"region: got {quoted(self.region)}, expected left, top, width and height in whole pixels, "
                "such as [100, 50, 800, 600]"
            )
        return left, top, width, height

    @property
    def also_saved(self) -> dict[str, Any]:
        """What is saved beside image and rejection maps: arguments of `stacklib.Integration.save` by name."""
        return {
            "maps": self.save_maps,
            "fits": self.save_fits,
            "masks": self.save_masks,
            "drizzle_data": self.drizzle_data,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "parameters") -> Job:
        """Make a job from names and values, those of the recipe included.

        Parameters
        ----------
        values : mapping
            Values by parameter name.
        source : str
            Start of error messages, such as a file name.

        Returns
        -------
        Job

        Raises
        ------
        RecipeError
            If a name is unknown or a value is invalid.
        """
        own, inner = cls.parameters(), Recipe.parameters()
        values = with_preset(values)
        refuse_unknown(values, own | inner, source)
        recipe = Recipe.from_dict({name: value for name, value in values.items() if name in inner})
        return cls(**{name: value for name, value in values.items() if name in own}, recipe=recipe)

    def to_dict(self) -> dict[str, Any]:
        """Return all parameters of the run and the recipe by name."""
        return {name: getattr(self, name) for name in self.parameters()} | self.recipe.to_dict()

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read a job or recipe file.

        Parameters
        ----------
        path : str or Path
            YAML file. Its relative paths are looked for beside it: the frames and the masks, unless there are
            none of that name, and the output folder.

        Returns
        -------
        Job

        Raises
        ------
        RecipeError
            If the file cannot be read, is not YAML, or has an unknown or invalid parameter.
        """
        path = Path(path)
        values = read_yaml(path)
        with named_errors(path):
            given = cls.from_dict(values, source=str(path))
            if "frames" in values:
                values["frames"] = beside(path, given.frames)
            if given.recipe.masks:
                values["masks"] = beside(path, given.recipe.masks)
            if given.output:
                values["output"] = str(path.absolute().parent / expanded(given.output))
            return cls.from_dict(values, source=str(path))

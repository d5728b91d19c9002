"""Every parameter of an integration, in one place.

Widgets, notebook parameters, HISTORY lines, the YAML file and error messages all come from the
fields below: a default, a range or an allowed list, a unit and a sentence of help for each.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stacklib.errors import RecipeError
from stacklib.formats.safely import replace_atomically
from stacklib.run_record import read_recipe

__all__ = ["FRAMES_FOR_WINSORIZED", "Job", "Parameter", "Recipe"]

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
class Parameter:
    """What is known of one parameter.

    Attributes
    ----------
    name : str
        The name, the same in Python, in YAML and in papermill.
    kind : type
        ``bool``, ``int``, ``float``, ``str`` or ``list`` (a text or a list of texts).
    default : object
        The value when nothing is said.
    help : str
        One sentence for people.
    choices : tuple of str
        The allowed texts; empty where any text is allowed.
    low, high : float
        The allowed range, both ends included; infinite where there is no limit.
    unit : str
        The unit of a number, or an empty text.
    recommended : tuple of float or None
        The band in which most people should stay.
    """

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    recommended: tuple[float, float] | None = None

    @property
    def expected(self) -> str:
        """What a value must look like, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "True or False (true or false in YAML), without quotes"
        if self.kind in (int, float):
            noun = "a whole number" if self.kind is int else "a number"
            if math.isfinite(self.low) and math.isfinite(self.high):
                return f"{noun} from {self.low:g} to {self.high:g}"
            return f"{noun} of at least {self.low:g}"
        return "a text or a list of texts" if self.kind is list else "a text"

    def check(self, value: Any) -> Any:
        """Return `value` in the parameter's own type.

        Raises
        ------
        RecipeError
            When the value has another type or lies outside the range.
        """
        checked = self._convert(value)
        if checked is None:
            raise RecipeError(f"{self.name}: got {value!r}, expected {self.expected}. ({self.help})")
        return checked

    def _convert(self, value: Any) -> Any:
        if self.kind is bool:
            return value if isinstance(value, bool) else None
        if self.kind in (int, float):
            if isinstance(value, bool) or not isinstance(value, int | float):
                # NumPy scalars are numbers too.
                if not hasattr(value, "item") or isinstance(value.item(), bool | str):
                    return None
                value = value.item()
            if not math.isfinite(value) or not self.low <= value <= self.high:
                return None
            if self.kind is int:
                return int(value) if value == int(value) else None
            return float(value)
        if self.kind is list and isinstance(value, list | tuple):
            return [str(item) for item in value] if value else None
        if isinstance(value, Path):
            value = str(value)
        if self.kind is str and isinstance(value, int) and not isinstance(value, bool) and not self.choices:
            value = str(value)
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            return None
        return value


def _parameter(kind: type, default: Any, help: str, **known: Any) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "help": help, **known})


def _choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    return _parameter(str, default, help, choices=choices)


def _switch(default: bool, help: str) -> Any:
    return _parameter(bool, default, help)


def _number(default: float, low: float, high: float, help: str, unit: str = "", recommended=None) -> Any:
    return _parameter(float, default, help, low=low, high=high, unit=unit, recommended=recommended)


def _count(default: int, low: int, high: int, help: str, unit: str = "frames") -> Any:
    return _parameter(int, default, help, low=low, high=high, unit=unit)


def _text(default: str, help: str) -> Any:
    return _parameter(str, default, help)


def _refusing_unknown(cls: type, *values: Any, **named: Any) -> Any:
    """A new object, unless a name is unknown: that gets the error of a recipe, not one of Python."""
    refuse_unknown(named, {field.name: None for field in dataclasses.fields(cls)}, cls.__name__)
    return object.__new__(cls)


class _Checked:
    """Validation shared by the two dataclasses below."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__new__ = _refusing_unknown

    def __post_init__(self) -> None:
        for name, parameter in self.parameters().items():
            object.__setattr__(self, name, parameter.check(getattr(self, name)))

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """The parameters by name, in the order in which people meet them."""
        return {parameter.name: parameter for parameter in _parameters_of(cls)}


@functools.cache
def _parameters_of(cls: type) -> tuple[Parameter, ...]:
    """Made once: a slider that moves makes a new recipe with every step."""
    return tuple(
        Parameter(name=field.name, default=field.default, **field.metadata)
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    )


@dataclass(frozen=True)
class Recipe(_Checked):
    """How frames are integrated; every field is also a papermill parameter.

    A recipe is immutable and always valid: an unknown name, a wrong type or a value out of range
    raises `RecipeError` when the recipe is made.

    Examples
    --------
    >>> recipe = Recipe(rejection="sigma", sigma_high=2.8)
    >>> recipe.replace(sigma_low=3.4).sigma_low
    3.4
    """

    rejection: str = _choice(
        "auto",
        ("auto", *REJECTION_RULES),
        "Rejection rule. auto: sigma for up to 15 frames, winsorized_sigma for more.",
    )
    clip_low: bool = _switch(True, "Reject samples that are too dark.")
    clip_high: bool = _switch(True, "Reject samples that are too bright.")
    sigma_low: float = _number(
        3.2,
        0.5,
        20.0,
        "Reject below this many sigma (sigma, winsorized_sigma, averaged_sigma, ccd_noise).",
        "sigma",
        (3.0, 3.4),
    )
    sigma_high: float = _number(
        2.9,
        0.5,
        20.0,
        "Reject above this many sigma (sigma, winsorized_sigma, averaged_sigma, ccd_noise).",
        "sigma",
        (2.8, 3.0),
    )
    winsorization_cutoff: float = _number(
        5.0,
        1.5,
        100.0,
        "winsorized_sigma: samples farther out than this become the median in the first round.",
        "sigma",
    )
    percentile_low: float = _number(
        0.2, 0.0, 1.0, "percentile: reject samples more than this fraction below the median."
    )
    percentile_high: float = _number(
        0.1, 0.0, 100.0, "percentile: reject samples more than this fraction above the median."
    )
    min_max_low: int = _count(1, 0, 100000, "min_max: drop this many of the darkest samples at each pixel.")
    min_max_high: int = _count(
        1, 0, 100000, "min_max: drop this many of the brightest samples at each pixel."
    )
    linear_fit_low: float = _number(
        5.0, 0.5, 50.0, "linear_fit: reject samples this far below the fitted line.", "mean deviations"
    )
    linear_fit_high: float = _number(
        4.0, 0.5, 50.0, "linear_fit: reject samples this far above the fitted line.", "mean deviations"
    )
    gesd_outliers_fraction: float = _number(
        0.3, 0.0, 0.9, "gesd: at most this fraction of the samples of a pixel can be outliers."
    )
    gesd_significance: float = _number(
        0.05, 1e-6, 0.5, "gesd: chance of a false rejection at a clean pixel that the test accepts."
    )
    gesd_low_relaxation: float = _number(
        1.0, 1.0, 10.0, "gesd: divide the deviation of dark samples by this; more than 1 spares them."
    )
    gesd_variant: str = _choice(
        "rosner", ("rosner", "pixinsight"), "gesd: the test as published, or as PixInsight does it."
    )
    chauvenet_limit: float = _number(
        0.1, 1e-6, 0.5, "chauvenet: reject a sample where fewer than this many are expected.", "samples"
    )
    ccd_gain: float = _number(1.0, 1e-4, 1e4, "ccd_noise: gain of the camera.", "e-/ADU")
    ccd_read_noise: float = _number(10.0, 0.0, 1e4, "ccd_noise: read noise of the camera.", "e-")
    ccd_scale_noise: float = _number(
        0.0, 0.0, 1.0, "ccd_noise: noise in proportion to the signal (flat field, seeing).", "fraction"
    )
    range_clip_low: bool = _switch(
        True, "Take samples at or below range_low as no data: the black border that registration leaves."
    )
    range_low: float = _number(
        0.0, -1e6, 1e9, "Raw value at or below which a sample is no data.", "raw value"
    )
    range_clip_high: bool = _switch(False, "Leave out saturated samples: at or above range_high.")
    range_high: float = _number(
        0.98, -1e6, 1e9, "Raw value at or above which a sample counts as saturated.", "raw value"
    )
    map_range_rejection: bool = _switch(True, "Show range-rejected samples in the rejection maps.")
    report_range_rejection: bool = _switch(False, "Count range-rejected samples in the rejection counts.")
    normalization: str = _choice(
        "additive_scaling",
        ("none", "additive", "multiplicative", "additive_scaling", "multiplicative_scaling"),
        "How frames are matched to the reference before they are combined.",
    )
    rejection_normalization: str = _choice(
        "scale_zero_offset",
        ("none", "scale_zero_offset", "equalize_fluxes"),
        "How frames are matched to the reference before samples are compared for rejection.",
    )
    scale_estimator: str = _choice(
        "bwmv",
        ("bwmv", "mad", "avgdev"),
        "Estimator of the spread of a frame: biweight midvariance, median or average absolute deviation.",
    )
    weights: str = _choice(
        "noise",
        ("none", "exposure", "noise", "snr", "signal", "median", "mean", "keyword", "csv"),
        "What the weight of a frame is taken from (average combination only).",
    )
    weight_keyword: str = _text("", "weights keyword: name of the FITS keyword that holds the weight.")
    weight_file: str = _text("", "weights csv: table with the columns file and weight (CSV or ECSV).")
    min_weight: float = _number(
        0.005, 0.0, 1.0, "Leave out frames whose weight is below this fraction of the best one."
    )
    combination: str = _choice(
        "average",
        ("average", "median", "minimum", "maximum"),
        "How the surviving samples become one value; only the average uses weights.",
    )
    reference: str = _text(
        "", "File name of the reference frame for normalisation; empty: the frame with the best weight."
    )
    output_range: str = _choice(
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


@dataclass(frozen=True)
class Job(_Checked):
    """One run: which frames, where to, and the recipe.

    In YAML and in papermill a job is flat: the fields below and those of `Recipe` side by side.
    """

    frames: str | list[str] = _parameter(
        list,
        "sample_data/M101/4_Registered",
        "Folder, glob pattern or list of files with the registered light frames.",
    )
    output: str = _text(
        "",
        "Folder for the results, from where the run was started; empty: 5_Integration beside the frames.",
    )
    interactive: bool = _switch(True, "Show live panels where there is a browser; False: figures only.")
    memory: str = _text("2GB", "Memory budget of the integration, for instance 800MB or 4GB.")
    save_maps: bool = _switch(False, "Also save coverage, uncertainty and (linear_fit) slope.")
    save_fits: bool = _switch(False, "Also save every image as FITS.")
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
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), _EachNameOnce)
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where is not None else ""
            problem = getattr(error, "problem", None) or "unreadable text"
            raise RecipeError(
                f"{path}: is not valid YAML{line} ({problem}); write one 'name: value' a line"
            ) from error
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: holds a {type(values).__name__}, expected lines of 'name: value'")
        try:
            return cls.from_dict(values, source=str(path))
        except RecipeError as error:
            text = str(error)
            raise RecipeError(text if text.startswith(str(path)) else f"{path}: {text}") from None


class _EachNameOnce(yaml.SafeLoader):
    """Safe YAML that refuses a name given twice, instead of taking the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def refuse_unknown(values: Mapping[str, Any], known: Mapping[str, Parameter], source: str) -> None:
    """Raise `RecipeError` for the first name in `values` that is not in `known`."""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "known are: " + ", ".join(known)
            raise RecipeError(f"{source}: unknown parameter {name!r}; {hint}")


def commented_yaml(values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> str:
    """YAML with one parameter a line and its help text behind it."""
    lines = []
    for name, value in values.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        text = text.removesuffix("...\n").strip()
        unit = f" [{parameters[name].unit}]" if parameters[name].unit else ""
        lines.append(f"{name}: {text}  # {parameters[name].help}{unit}")
    return "\n".join(lines) + "\n"

"""The rejection rules: what each of them is, and its parameters.

How to add a rule:

1. Add its parameters to `RejectionParameters`, each with default, range, unit and help.
2. Add a `RuleSpec` to `RULES`: its names, limits, needs and its line in the documentation.
3. Write the compiled function in ``stacklib/rejection/``. It moves two ends inward over the sorted samples
   of a pixel; `stacklib.rejection.clipping` describes its arguments.
4. Add a `CompiledRule` to `COMPILED` in ``stacklib/rejection/registry.py``.
5. Write the rule once more in ``tests/reference.py``, as plainly as its definition reads, and add recipes to
   ``CASES`` in ``tests/rejection/test_rejection.py``: the tests compare the two.

Widgets, help, warnings, advisor, sweeps, pixel stories and the documentation read the `RuleSpec`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stacklib.utils.parameters import Checked, choice_field, count_field, number_field, switch_field

__all__ = [
    "AUTO_RULES",
    "RULES",
    "RejectionParameters",
    "RuleSpec",
    "rule_in_words",
    "rules_table",
]


@dataclass(frozen=True, kw_only=True)
class RuleSpec:
    """Description of a rejection rule; the code is in `stacklib.rejection`.

    A bounded sigma includes the outlier, so that no sample of N lies sqrt(N) sigma or more from the center. A
    rule runs away if repeated clipping at sqrt(3) sigma or less rejects more and more good samples. Trials
    are shared if center and scale depend on the kept samples only, not on the limits; see
    `stacklib.kernel.limit_trials`. A rule that fits a line through the sorted samples gives its slope as a
    result, and its limits depend on the rank.
    """

    name: str  # value of the parameter `rejection`
    summary: str  # the effect in a sentence
    formula: str  # which samples x are rejected, in Markdown with formulas in LaTeX
    use: str  # when to use it
    source: str  # where it is described
    limits: tuple[str, ...] = ()  # fields with the low and the high limit; empty if the sides have none
    more_parameters: tuple[str, ...] = ()  # other fields of `RejectionParameters` that the rule reads
    limits_in: str = ""  # sigma, fraction, mean deviations, or samples to drop whatever their values
    grid: Mapping[str, tuple] = field(default_factory=dict)  # values that the advisor tries
    auto: tuple[range, ...] = ()  # numbers of frames for which `rejection: auto` takes this rule
    least_frames: int = 3  # with fewer frames the rule rejects nothing
    rejects: bool = True  # False for the rule that keeps everything
    bounded: bool = False
    runs_away: bool = False
    slow: bool = False  # panels propose limits on a smaller region
    shares_trials: bool = False
    gives_slope: bool = False
    by_frame: bool = False  # each frame has limits of its own, as its noise is known beforehand
    step: str = "round"  # a round, in a pixel's story
    centre: str = "center"  # the center, in that story
    first_centre: str = ""  # that of the first round, if it is another one
    within: str = "beyond another rejected sample"  # why a sample within the limits is rejected

    @property
    def label(self) -> str:
        """Name in titles and sentences."""
        return self.name.replace("_", " ") if self.rejects else "no rejection"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Fields of `RejectionParameters` that the rule reads, besides `clip_low` and `clip_high`."""
        return self.limits + self.more_parameters

    @property
    def in_sigma(self) -> bool:
        """Whether limits are multiples of sigma."""
        return self.limits_in == "sigma"

    @property
    def drops_ends(self) -> bool:
        """Whether the rule drops a number of samples, whatever their values."""
        return self.limits_in == "samples"

    def out_of_reach(self, name: str, value: Any, frames: int) -> bool:
        """Whether `name` is a limit and its `value` is so large that nothing can be rejected."""
        return self.bounded and name in self.limits and value >= math.sqrt(frames)


_SIGMAS = ("sigma_low", "sigma_high")
_SIGMA_GRID = {
    "sigma_low": (2.4, 2.8, 3.2, 3.6, 4.0, 5.0),
    "sigma_high": (2.0, 2.3, 2.6, 2.9, 3.2, 3.6, 4.0, 4.5, 5.0),
}
_BEYOND = "$(c - x) / s >$ `sigma_low` or $(x - c) / s >$ `sigma_high`"

#: The rules by name, in the order of menus.
RULES: dict[str, RuleSpec] = {
    spec.name: spec
    for spec in (
        RuleSpec(
            name="none",
            summary="Keep every sample.",
            formula="no sample",
            use="clean frames, or to see what there is to reject",
            source="",
            least_frames=1,
            rejects=False,
        ),
        RuleSpec(
            name="min_max",
            summary="Drop the darkest and the brightest samples, whether they are outliers or not.",
            formula="the `min_max_low` lowest and the `min_max_high` highest samples",
            use="very few frames",
            source="minmax of IRAF's imcombine",
            limits=("min_max_low", "min_max_high"),
            limits_in="samples",
            grid={"min_max_low": (0, 1, 2), "min_max_high": (0, 1, 2, 3)},
            least_frames=1,
        ),
        RuleSpec(
            name="percentile",
            summary="Reject samples that differ from the median by more than a given fraction of it, once.",
            formula="$(m - x) / m >$ `percentile_low` or $(x - m) / m >$ `percentile_high`, where $m$ is "
            "the median",
            use="3 to 6 frames",
            source="percentile clipping of PixInsight's ImageIntegration",
            limits=("percentile_low", "percentile_high"),
            limits_in="fraction",
            grid={
                "percentile_low": (0.05, 0.1, 0.2, 0.4),
                "percentile_high": (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
            },
        ),
        RuleSpec(
            name="sigma",
            summary="Reject samples too many standard deviations from the median, until none is rejected.",
            formula=f"{_BEYOND}, where $c$ is the median and $s$ the standard deviation; *repeated*",
            use="10 frames and more",
            source="kappa-sigma clipping, such as sigclip of IRAF's imcombine",
            limits=_SIGMAS,
            limits_in="sigma",
            grid=_SIGMA_GRID,
            auto=(range(10, 16),),
            bounded=True,
            runs_away=True,
            shares_trials=True,
        ),
        RuleSpec(
            name="winsorized_sigma",
            summary="As sigma, but outlying samples are pulled in before sigma is measured, so that one "
            "outlier does not hide another.",
            formula=f"{_BEYOND}, where $c$ is the mean and $s$ is 1.134 times the standard deviation of "
            "the samples clamped to $c \\pm 1.5\\,s$. The clamped samples are clamped again until $s$ "
            "changes by less than 0.05 %. $c$ starts as the median, $s$ as the robust scale $S_n$. In the "
            "first round samples more than `winsorization_cutoff` $s$ from $c$ become $c$; *repeated*",
            use="3 frames and more; with 3 or 4 only bright outliers are found",
            source="Huber (1981), Robust Statistics; Sn: Rousseeuw and Croux (1993), JASA 88, 1273",
            limits=_SIGMAS,
            more_parameters=("winsorization_cutoff",),
            limits_in="sigma",
            grid=_SIGMA_GRID,
            # Of 3 to 9 frames the others cannot tell an outlier from their own spread.
            auto=(range(10), range(16, sys.maxsize)),
            runs_away=True,
            shares_trials=True,
        ),
        RuleSpec(
            name="averaged_sigma",
            summary="As sigma, but sigma is assumed proportional to the square root of the brightness, as "
            "for photon noise.",
            formula=f"{_BEYOND}, where $c$ is the median, $s = g \\sqrt{{c}}$, and "
            "$g^2 = \\frac{1}{n - 1} \\sum (x - c)^2 / c$ over all samples; *repeated*",
            use="few frames with weak outliers only; a bright outlier inflates sigma",
            source="avsigclip of IRAF's imcombine",
            limits=_SIGMAS,
            limits_in="sigma",
            grid=_SIGMA_GRID,
            bounded=True,
            runs_away=True,
        ),
        RuleSpec(
            name="linear_fit",
            summary="Reject samples too far from a line through the sorted samples.",
            formula="$(l - x) / s \\ge$ `linear_fit_low` or $(x - l) / s \\ge$ `linear_fit_high`, where "
            "$l = a + b\\,j$ is the line through the sorted samples, $j$ the rank, with the least sum of "
            "absolute residuals, and $s = 2 \\sqrt{1 + b^2}$ times their mean; *repeated*",
            use="many frames under a changing sky",
            source="linear fit clipping of PixInsight's ImageIntegration",
            limits=("linear_fit_low", "linear_fit_high"),
            limits_in="mean deviations",
            grid={
                "linear_fit_low": (3.0, 4.0, 5.0, 6.0, 8.0),
                "linear_fit_high": (2.0, 2.5, 3.0, 4.0, 5.0, 6.0),
            },
            least_frames=5,
            slow=True,
            gives_slope=True,
            centre="middle of the line",
            within="too far from the line at its rank",
        ),
        RuleSpec(
            name="gesd",
            summary="Test the most deviating sample, take it out, test the next (generalized ESD).",
            formula="the most deviating samples, up to the last one with $|x - \\bar{x}| / s > t (n - 1) "
            "/ \\sqrt{(n - 2 + t^2)\\,n}$. At each test $n$ samples are left, $t$ is the upper $\\alpha / "
            "(2n)$ quantile of Student's t with $n - 2$ degrees of freedom, and $\\alpha$ is "
            "`gesd_significance`",
            use="20 frames and more",
            source="Rosner (1983), Technometrics 25, 165",
            more_parameters=(
                "gesd_outliers_fraction",
                "gesd_significance",
                "gesd_low_relaxation",
                "gesd_variant",
            ),
            grid={
                "gesd_low_relaxation": (1.0, 1.5, 2.0),
                "gesd_significance": (0.001, 0.005, 0.02, 0.05, 0.1, 0.2),
            },
            slow=True,
            step="test",
            within="with a less extreme outlier",
        ),
        RuleSpec(
            name="calibrated_sigma",
            summary="Test the most deviating sample against the others, take it out, test the next. A limit "
            "rejects as many good samples as its sigma says, with any number of frames.",
            formula="the most deviating samples, up to the last one with $|x - m| / s > t \\sqrt{1 + 1/n}$. "
            "$m$ and $s$ are mean and standard deviation of the $n$ other samples left, and $t$ is the "
            "quantile of Student's t with $n - 1$ degrees of freedom, at a level that makes the rate of "
            "false rejections, both sides together, that of a Gaussian beyond `sigma_low` and `sigma_high` "
            "(for limits from 1.5 on). At most two in five samples are tested",
            use="8 frames and more; with fewer, only bright outliers stand out against the others",
            source="after Rosner (1983), Technometrics 25, 165; levels by simulation",
            limits=_SIGMAS,
            limits_in="sigma",
            grid=_SIGMA_GRID,
            least_frames=4,
            step="test",
            centre="mean of the others",
            within="with a less extreme outlier",
        ),
        RuleSpec(
            name="noise_model",
            summary="Reject samples farther from the mean of the others than the noise of their frame, which "
            "is known from all pixels, explains.",
            formula="$(m - x_i) / e_i >$ `sigma_low` or $(x_i - m) / e_i >$ `sigma_high`, where $m$ is the "
            "mean of the other kept samples, weighted by $1 / s_j^2$, and $e_i^2 = \\sigma^2 (s_i^2 + 1 / "
            "\\sum s_j^{-2})$. $s_i$ is the relative noise of the frame. $\\sigma$ comes from all pixels of "
            "the same level, and from the neighbors where they scatter more (stars under changing seeing); "
            "*repeated*, starting at the median, until nothing changes. Samples can be taken back",
            use="4 frames and more; the best choice for few frames, and for frames of different noise",
            source="photon transfer curve, measured from the frames themselves",
            limits=_SIGMAS,
            limits_in="sigma",
            grid=_SIGMA_GRID,
            by_frame=True,
            centre="mean of the kept samples",
            first_centre="median",
            within="beyond the limit of its frame",
        ),
        RuleSpec(
            name="chauvenet",
            summary="Reject a sample if fewer than 0.1 samples (the limit) are expected that far out (robust "
            "Chauvenet).",
            formula="$n\\,Q(|x - c| / s) <$ `chauvenet_limit`, where $Q$ is the tail of the normal "
            "distribution. $c$ and $s$ are robust at first, mean and standard deviation in the end; one "
            "sample at a time",
            use="10 frames and more",
            source="Maples et al. (2018), ApJS 238, 2",
            more_parameters=("chauvenet_limit",),
            grid={"chauvenet_limit": (0.005, 0.02, 0.05, 0.1, 0.2, 0.5)},
            slow=True,
        ),
        RuleSpec(
            name="ccd_noise",
            summary="As sigma, but sigma is the noise expected from the gain and read noise of the camera.",
            formula=f"{_BEYOND}, where $c$ is the median and $s^2 = (r / g)^2 + c / g + (k c)^2$ in ADU, "
            "with $g$ `ccd_gain`, $r$ `ccd_read_noise` and $k$ `ccd_scale_noise`; *repeated*",
            use="calibrated frames of a camera with known gain and read noise",
            source="ccdclip of IRAF's imcombine",
            limits=_SIGMAS,
            more_parameters=("ccd_gain", "ccd_read_noise", "ccd_scale_noise"),
            limits_in="sigma",
            grid=_SIGMA_GRID,
            shares_trials=True,
        ),
    )
}

#: Rules that `rejection: auto` takes.
AUTO_RULES = tuple(spec.name for spec in RULES.values() if spec.auto)


def _auto_in_words() -> str:
    """Say which rule auto takes for how many frames; the rule for many frames is taken otherwise."""
    many = next(name for name in AUTO_RULES if RULES[name].auto[-1].stop == sys.maxsize)
    words = [
        f"{name} for {span.start} to {span[-1]} frames"
        for name in AUTO_RULES
        for span in RULES[name].auto
        if name != many
    ]
    return f"{', '.join(words)}, otherwise {many}"


@dataclass(frozen=True)
class RejectionParameters(Checked):
    """Rejection rule of a recipe and parameters of all rules."""

    rejection: str = choice_field(
        "auto",
        ("auto", *RULES),
        f"Rejection rule. auto: {_auto_in_words()}.",
    )
    clip_low: bool = switch_field(True, "Reject samples that are too dark.")
    clip_high: bool = switch_field(True, "Reject samples that are too bright.")
    sigma_low: float = number_field(
        3.2,
        0.5,
        20.0,
        "Reject below this many sigma, in every rule with sigma limits.",
        "sigma",
        (3.0, 3.4),
    )
    sigma_high: float = number_field(
        2.9,
        0.5,
        20.0,
        "Reject above this many sigma, in every rule with sigma limits.",
        "sigma",
        (2.8, 3.0),
    )
    winsorization_cutoff: float = number_field(
        5.0,
        1.5,
        100.0,
        "winsorized_sigma: in round 1, samples farther out become the median.",
        "sigma",
    )
    percentile_low: float = number_field(
        0.2, 0.0, 1.0, "percentile: reject more than this fraction below the median."
    )
    percentile_high: float = number_field(
        0.1, 0.0, 100.0, "percentile: reject more than this fraction above the median."
    )
    min_max_low: int = count_field(
        1, 0, 100000, "min_max: drop this many of the darkest samples of each pixel."
    )
    min_max_high: int = count_field(
        1, 0, 100000, "min_max: drop this many of the brightest samples of each pixel."
    )
    linear_fit_low: float = number_field(
        5.0, 0.5, 50.0, "linear_fit: reject this far below the line.", "mean deviations"
    )
    linear_fit_high: float = number_field(
        4.0, 0.5, 50.0, "linear_fit: reject this far above the line.", "mean deviations"
    )
    gesd_outliers_fraction: float = number_field(
        0.3, 0.0, 0.9, "gesd: largest fraction of outliers at a pixel."
    )
    gesd_significance: float = number_field(
        0.05, 1e-6, 0.5, "gesd: accepted chance of a false rejection at a pixel."
    )
    gesd_low_relaxation: float = number_field(
        1.0, 1.0, 10.0, "gesd: divides deviations of dark samples, so that fewer are rejected."
    )
    gesd_variant: str = choice_field(
        "rosner", ("rosner", "pixinsight"), "gesd: the test as published by Rosner, or as in PixInsight."
    )
    chauvenet_limit: float = number_field(
        0.1,
        1e-6,
        0.5,
        "chauvenet: reject a sample if fewer than this many are expected that far out.",
        "samples",
    )
    ccd_gain: float = number_field(1.0, 1e-4, 1e4, "ccd_noise: gain of the camera.", "e-/ADU")
    ccd_read_noise: float = number_field(10.0, 0.0, 1e4, "ccd_noise: read noise of the camera.", "e-")
    ccd_scale_noise: float = number_field(
        0.0, 0.0, 1.0, "ccd_noise: noise proportional to the signal (flat, seeing).", "fraction"
    )

    def rule_for(self, count: int) -> str:
        """Return the name of the rule for `count` frames, with ``auto`` resolved."""
        if self.rejection != "auto":
            return self.rejection
        return next(name for name in AUTO_RULES if any(count in span for span in RULES[name].auto))

    def warnings_for(self, count: int) -> list[str]:
        """Return warnings about a rule or limits that do not work with `count` frames.

        A single outlier among n samples lies less than sqrt(n) standard deviations from the median, so larger
        limits reject nothing. Repeated clipping at sqrt(3) sigma or less eats into good samples.
        """
        spec = RULES[self.rule_for(count)]
        if not spec.rejects:
            return []
        if not (self.clip_low or self.clip_high):
            return ["clip_low and clip_high are both off: nothing can be rejected"]
        if count < spec.least_frames:
            return [
                f"{spec.name} needs at least {spec.least_frames} frames, there are {count}: nothing can be "
                "rejected; add frames, or use min_max"
            ]
        sides = zip(spec.limits, (self.clip_low, self.clip_high), strict=False)
        limits = {name: getattr(self, name) for name, on in sides if on}
        if spec.drops_ends:
            dropped = sum(limits.values())
            if dropped < count:
                return []
            return [
                f"{spec.name} drops {dropped} samples of {count}: only the median is left; "
                f"lower {' or '.join(spec.limits)}"
            ]
        notes = [
            f"{name} {limit:g} is so low that repeated clipping eats into good samples; use at least 2"
            for name, limit in limits.items()
            if spec.runs_away and limit <= math.sqrt(3)
        ]
        in_vain = [f"{name} {v:g}" for name, v in limits.items() if spec.out_of_reach(name, v, count)]
        if in_vain:
            notes.append(
                f"{' and '.join(in_vain)} cannot reject anything with {count} frames: a single outlier lies "
                f"less than {math.sqrt(count):.2f} sigma from the center; lower the limit, add frames, or "
                "use winsorized_sigma or percentile"
            )
        return notes


def rule_in_words(rule: str, values: Mapping[str, Any]) -> str:
    """Describe a rule (not ``auto``) and its limits in a few words, such as ``winsorized sigma 3.2 / 2.9``.

    Missing `values`, see `Recipe.to_dict`, are left out. For rules with a low and a high limit, other
    parameters are included only if they differ from their defaults.
    """
    if rule not in RULES:
        return rule.replace("_", " ")
    spec, defaults = RULES[rule], RejectionParameters.parameters()
    names = [name for name in spec.parameters if name in values]
    off = [side for side in ("low", "high") if names and not values.get(f"clip_{side}", True)]
    sides = [name for name in spec.limits if name in values]
    limits = ["off" if name.rpartition("_")[2] in off else f"{values[name]:g}" for name in sides]
    words = [f"{spec.label} {' / '.join(limits)}".strip()]
    for name in names:
        if name not in sides and not (sides and values[name] == defaults[name].default):
            value = values[name] if isinstance(values[name], str) else f"{values[name]:g}"
            words.append(f"{name.removeprefix(rule.partition('_')[0] + '_').replace('_', ' ')} {value}")
    return ", ".join(words + [f"{side} off" for side in off if not sides])


def rules_table() -> str:
    """Return the rules in Markdown, for the documentation: a table, then the formula of each."""
    parameters = RejectionParameters.parameters()
    rows = ["| Rule | What it does | Use it for | Minimum frames (default limits) |", "|---|---|---|---|"]
    details = []
    for spec in RULES.values():
        least = spec.least_frames
        while spec.bounded and all(spec.out_of_reach(n, parameters[n].default, least) for n in spec.limits):
            least += 1
        rows.append(f"| `{spec.name}` | {spec.summary} | {spec.use} | {least} |")
        defaults = ", ".join(f"`{name}` ({_plain(parameters[name].default)})" for name in spec.parameters)
        details += [f"## `{spec.name}`", f"**Rejects** {spec.formula}."]
        details += [f"**Parameters** (default): {defaults}."] * bool(defaults)
        details += [f"**Source:** {spec.source}."] * bool(spec.source)
    return "\n".join(rows) + "\n\n" + "\n\n".join(details) + "\n"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

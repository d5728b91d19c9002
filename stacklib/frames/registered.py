"""Tell registered frames from others by their names, as stacking programs give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["OTHER_STAGE", "UNREGISTERED", "name_reasons"]

#: Why a file is left out.
UNREGISTERED = "not registered, by name"
OTHER_STAGE = "other stages of the same frames"

#: Names of PixInsight end in the steps: calibrated, cosmetically corrected, debayered, ..., registered (_r).
_STEPS = re.compile(
    r"(?:_(?:c|cc|lps|d|b|a|n|abe|dbe|gxt))*_r(?:_(?:a|n|lps|abe|dbe|gxt|crop))*$", re.IGNORECASE
)
#: Endings of DeepSkyStacker, ASTAP and others; beginnings of AstroImageJ and others.
_MARKS = (
    re.compile(r"[._-](?:reg|registered|aligned)$", re.IGNORECASE),
    re.compile(r"^(?:registered|aligned)_", re.IGNORECASE),
)
#: Sequences of Siril are numbered, and each step adds its letters in front; r_ is the registration.
_SEQUENCE = re.compile(
    r"^(?P<steps>(?:(?:r|pp|bkg|cc|cosme|cropped|unband|comet)_)+)(?P<name>.*\D)(?P<number>\d+)$"
)


class _Stage(NamedTuple):
    """What the name of a file says about the frame in it."""

    frame: str  # the name without its steps, equal for all stages of a frame
    steps: str  # such as _c_d_r or r_pp_; empty if there are none
    registered: bool  # without doubt
    earlier: frozenset[str] = frozenset()  # names that would confirm a doubtful _r or r_


def name_reasons(stems: Sequence[str]) -> list[str]:
    """Return why files of a folder are left out, going by their names; empty for those to use.

    If some files have the name of a registered frame, the others are left out. If there are several
    registered stages of a frame (``_c_d_r`` and ``_c_cc_d_r``, ``r_pp_`` and ``bkg_r_pp_``), the one that
    most frames have is used, and among those the one with the most steps. A single letter, ``_r`` or
    ``r_``, may also be the red filter: it counts only if the same name without it is there too.

    Parameters
    ----------
    stems : sequence of str
        Names of the files, without their endings.

    Returns
    -------
    list of str
        `UNREGISTERED`, `OTHER_STAGE` or an empty string for each file.
    """
    stages = [_stage(stem) for stem in stems]
    known = {*stems, *(_without_number(stem) for stem in stems)}
    confirmed = {stage.steps for stage in stages if stage.earlier & known}
    registered = [stage.registered or stage.steps in confirmed for stage in stages]
    if not any(registered):
        return [""] * len(stages)
    usual = Counter(stage.steps for stage, good in zip(stages, registered, strict=True) if good)
    best: dict[str, str] = {}
    for stage, good in zip(stages, registered, strict=True):
        now = best.get(stage.frame)
        if good and (now is None or (usual[stage.steps], len(stage.steps)) > (usual[now], len(now))):
            best[stage.frame] = stage.steps
    return [
        UNREGISTERED if not good else "" if best[stage.frame] == stage.steps else OTHER_STAGE
        for stage, good in zip(stages, registered, strict=True)
    ]


def _stage(stem: str) -> _Stage:
    steps = _STEPS.search(stem)
    if steps and steps[0].count("_") > 1:
        return _Stage(stem[: steps.start()].casefold(), steps[0].casefold(), True)
    if steps and steps[0] == "_r":
        return _Stage(stem[:-2].casefold(), "_r", False, frozenset({stem[:-2]}))
    for mark in _MARKS:
        found = mark.search(stem)
        if found:
            return _Stage((stem[: found.start()] + stem[found.end() :]).casefold(), found[0].casefold(), True)
    parts = _SEQUENCE.match(stem)
    taken = re.findall(r"[a-z]+_", parts["steps"]) if parts else []
    if parts and "r_" in taken:
        earlier = {"".join(taken[start:]) + parts["name"] for start in range(1, len(taken) + 1)}
        return _Stage(parts["name"] + parts["number"], parts["steps"], len(taken) > 1, frozenset(earlier))
    return _Stage(stem.casefold(), "", False)


def _without_number(stem: str) -> str:
    return stem.rstrip("0123456789")

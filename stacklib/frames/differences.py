"""Say in words how the frames of a set differ, and what their headers hold that spoils a stack."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from stacklib.frames.frame import Frame
from stacklib.frames.kinds import CALIBRATION, kind_of
from stacklib.utils.labels import listed

__all__ = ["differences", "exposure_text", "mosaic_note", "mosaic_of", "mosaic_period"]

#: What should be equal in all frames: heading, text of a frame (empty if unknown), and whether frames that
#: differ in it show another field or another light.
_FACTS: tuple[tuple[str, Callable[[Frame], str], bool], ...] = (
    ("target", lambda frame: frame.object, True),
    ("filter", lambda frame: frame.filter, True),
    ("exposure", lambda frame: exposure_text(frame.exposure), False),
    ("gain", lambda frame: "" if frame.gain is None else f"{frame.gain:g}", False),
    ("camera", lambda frame: frame.camera, False),
)
#: Exposure times within this ratio are alike: a remote control is a second late.
ALIKE = 1.1
#: Largest number of values that are named.
VALUES = 6


def exposure_text(exposure: float | None) -> str:
    """Return an exposure time with three digits, which are enough to tell frames apart; empty if unknown."""
    return "" if exposure is None else f"{float(f'{exposure:.3g}'):g} s"


def differences(frames: Sequence[Frame], batch_folder: str = "") -> list[str]:
    """Describe in which of target, filter, exposure, gain and camera the frames differ; empty if in none.

    Parameters
    ----------
    frames : sequence of Frame
        The frames of one set. One without a value follows the others.
    batch_folder : str
        A folder for ``stacklib batch``, which splits the frames by target, filter and exposure.
    """
    words = {heading: _values([text(frame) for frame in frames]) for heading, text, _ in _FACTS}
    times = [frame.exposure for frame in frames if frame.exposure is not None]
    if times and max(times) <= ALIKE * min(times):
        words["exposure"] = ""
    mixed = [heading for heading, said in words.items() if said]
    if not mixed:
        return []
    remedy = "give a pattern or a list of files for each kind"
    if batch_folder and not {"target", "filter", "exposure"}.isdisjoint(mixed):
        remedy = f"stacklib batch {batch_folder} integrates each kind by itself, or {remedy}"
    serious = any(grave for heading, _, grave in _FACTS if heading in mixed)
    meaning = "one image of all mixes different light:" if serious else "fine if you meant it; otherwise"
    shown = ", ".join(f"{heading} ({words[heading]})" for heading in mixed)
    return [f"the frames differ in {shown}; {meaning} {remedy}"]


def _values(texts: Sequence[str]) -> str:
    """Return the different values with their numbers of frames; empty if there is at most one."""
    spelt: dict[str, Counter[str]] = {}
    for text in filter(None, texts):
        # M 31 and m31 are one target.
        spelt.setdefault(re.sub(r"[\s_]", "", text).casefold(), Counter())[text] += 1
    if len(spelt) < 2:
        return ""
    counted = {alike.most_common(1)[0][0]: alike.total() for alike in spelt.values()}
    known = sorted(counted, key=lambda text: -counted[text])
    silent = len(texts) - sum(counted.values())
    shown = [f"{text} in {counted[text]}" for text in known] + [f"unknown in {silent}"] * bool(silent)
    return listed(shown, most=VALUES)


def mosaic_of(frame: Frame) -> tuple[str, int, int]:
    """Return the color filter pattern of a frame and its offsets; empty if the frame was debayered."""
    text = frame.cfa_pattern.upper() if frame.channels == 1 else ""
    offsets = [frame.keywords.get(name) for name in ("XBAYROFF", "YBAYROFF")]
    across, down = (round(x) if isinstance(x, int | float) and math.isfinite(x) else 0 for x in offsets)
    return (text, across, down) if text else ("", 0, 0)


def mosaic_period(frames: Sequence[Frame]) -> int:
    """Return the period of the color filter pattern of all frames; 1 if they have none in common."""
    patterns = {mosaic_of(frame) for frame in frames}
    text = patterns.pop()[0] if len(patterns) == 1 else ""
    period = math.isqrt(len(text))
    return period if text and period**2 == len(text) else 1


def mosaic_note(frames: Sequence[Frame]) -> list[str]:
    """Warn of light frames of a color camera that were not debayered: one channel, and a filter pattern."""
    kinds = [kind_of(frame) for frame in frames]
    if any(kind is not None and kind.what in CALIBRATION for kind in kinds):
        # They are never debayered.
        return []
    found = [mosaic_of(frame) for frame in frames]
    counted = Counter(
        f"{text}, offset {across}, {down}" if across or down else text for text, across, down in found if text
    )
    if not counted:
        return []
    count = sum(counted.values())
    shown = ", ".join(counted) if len(counted) == 1 else "; ".join(f"{p} in {n}" for p, n in counted.items())
    whose = "all frames" if count == len(frames) else f"{count} of {len(frames)} frames"
    mixture = len(counted) > 1 or count < len(frames)
    result = "a mixture without color" if mixture else "a gray mosaic, with the pattern in its header"
    return [
        f"{whose} have one channel and a Bayer pattern ({shown}): they were not debayered, and the image "
        f"will be {result}. For color, debayer the frames before you register them, or drizzle the "
        "unregistered ones (stacklib drizzle, notebook 6_drizzle). Ignore this if each is a single color "
        "taken from debayered frames"
    ]

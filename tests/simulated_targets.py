"""Small simulated targets: frames with given headers; six folders, two of which cannot be integrated."""

from __future__ import annotations

from pathlib import Path

from stacklib.simulate import Session, simulate_frames

__all__ = ["BROKEN", "FRAMES", "MIXED", "frames", "make_targets"]

#: Frames of each target.
FRAMES = 6
#: The targets that fail: a truncated frame, and a frame of another size.
BROKEN, MIXED = "T04", "T06"


def make_targets(root: Path, count: int = 6) -> list[str]:
    """Make the targets ``T01`` to ``T06``; their names."""
    names = [f"T{number:02d}" for number in range(1, count + 1)]
    for number, name in enumerate(names):
        folder = root / name / "4_Registered"
        night = _night(name, number)
        paths = night.save(folder, format="xisf" if number % 3 else "fits")
        if name == BROKEN:
            content = paths[2].read_bytes()
            paths[2].write_bytes(content[: len(content) // 2])
        if name == MIXED:
            paths[4].unlink()
            odd = _night(name, number, width=72).save(root / "odd", format=paths[4].suffix[1:])
            odd[4].rename(paths[4])
            for path in (*odd[:4], *odd[5:]):
                path.unlink()
            (root / "odd").rmdir()
    return names


def _night(name: str, number: int, width: int = 80):
    session = Session(name, "Camera", filter="" if number % 2 else "L", exposure=60.0)
    shape = (FRAMES, 64, width, 3 if number % 2 else 1)
    return simulate_frames(*shape, seed=number, trails=1, cosmic_rays=3, dither=2, session=session)


def frames(folder: Path, count: int = 2, **header) -> list[Path]:
    """Tiny frames whose headers say this."""
    named = {"object_name": "M31", "filter": "L", "exposure": 60.0} | header
    session = Session(named.pop("object_name"), named.pop("camera", "Camera"), **named)
    night = simulate_frames(count, 24, 32, 1, seed=1, trails=0, dither=0, hot_pixels=0, session=session)
    before = len(list(folder.glob("*"))) if folder.exists() else 0
    return night.save(folder, format="fits", name_pattern=f"frame_{before}_{{number}}")

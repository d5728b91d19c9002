"""A user's own copies of the notebooks, made once and never overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

from stacklib.errors import SaveError
from stacklib.utils.labels import listed

__all__ = ["own_copies"]

#: Folder among the copies with the originals as they were when the copies were made.
ORIGINALS = ".originals"


def own_copies(originals: Path, folder: Path) -> Path:
    """Copy the notebooks into `folder`, and return it. Existing copies stay as they are.

    Prints where the copies are, and what has changed in an original since its copy was made.
    """
    kept = folder / ORIGINALS
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for original in sorted(originals.glob("*.ipynb")):
            copy, former = folder / original.name, kept / original.name
            if not copy.exists():
                shutil.copyfile(original, copy)
                shutil.copyfile(original, former)
            elif former.exists() and (changed := _changed_sections(former, original)):
                print(
                    f"{copy.name}: the original has changed since you made your copy "
                    f"({listed(changed, most=4)}). Your copy stays as it is; rename it to get the new one."
                )
    except OSError as error:
        raise SaveError(
            f"{folder}: the notebooks cannot be copied there ({error.strerror}); start stacklib lab in "
            "another folder"
        ) from error
    print(f"Your notebooks are in {folder}")
    return folder


def _changed_sections(former: Path, original: Path) -> list[str]:
    """Return the headings of the sections that differ between two versions of a notebook.

    If the former version cannot be read any more, nothing is known.
    """
    try:
        before = _sections(former)
    except Exception:
        return []
    after = _sections(original)
    return [
        heading for heading in dict.fromkeys((*after, *before)) if before.get(heading) != after.get(heading)
    ]


def _sections(notebook: Path) -> dict[str, list[str]]:
    """Return the sources of the cells of a notebook by heading."""
    import nbformat

    sections: dict[str, list[str]] = {}
    heading = "Start"
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            heading = cell.source.splitlines()[0].lstrip("# ")
        sections.setdefault(heading, []).append(cell.source)
    return sections

"""Parameters of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stacklib.utils.parameters import Checked, count_field, refuse_unknown, switch_field, text_field

__all__ = ["BatchJob"]


@dataclass(frozen=True)
class BatchJob(Checked):
    """Settings of a batch of many targets. Every field is also a papermill parameter."""

    folder: str = text_field(
        "sample_data", "Folder to search. Every folder named 4_Registered below it is a target."
    )
    recipe: str = text_field(
        "",
        "Recipe file for targets without one; advise: suggest limits for each; empty: defaults.",
    )
    memory: str = text_field(
        "4GB", "Memory for all runs together, or for each worker of a cluster, e.g. 4GB."
    )
    jobs: int = count_field(
        0, 0, 64, "Runs at the same time; 0: as many as processors and memory allow.", "runs"
    )
    cluster: str = text_field(
        "", "Dask scheduler whose workers run the targets; local: start one here; empty: none."
    )
    save_maps: bool = switch_field(
        False, "Also save coverage, uncertainty and, for rules that fit a line, slope."
    )
    save_fits: bool = switch_field(False, "Also save every image as FITS.")
    interactive: bool = switch_field(True, "Show live progress in a browser; False: text only.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "parameters") -> BatchJob:
        """Make a batch from names and values. `source` starts the message of a `RecipeError`."""
        refuse_unknown(values, cls.parameters(), source)
        return cls(**values)

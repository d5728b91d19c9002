"""The parameters of a batch: a run over many targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stacklib.recipe import _Checked, _count, _switch, _text, refuse_unknown

__all__ = ["BatchJob"]


@dataclass(frozen=True)
class BatchJob(_Checked):
    """Where the targets are, and what their runs share; every field is also a papermill parameter."""

    folder: str = _text("sample_data", "Folder to look in: every folder 4_Registered below it is a target.")
    recipe: str = _text(
        "",
        "Recipe file for the targets that have none of their own; advise: limits proposed for each; "
        "empty: the rule of thumb.",
    )
    memory: str = _text(
        "4GB", "Memory for all runs together, or for each worker of a cluster, for instance 4GB."
    )
    jobs: int = _count(0, 0, 64, "Runs at the same time; 0: as processors and memory allow.", "runs")
    cluster: str = _text(
        "", "Address of a Dask scheduler whose workers run the targets; local: start one here; empty: none."
    )
    save_maps: bool = _switch(False, "Also save coverage, uncertainty and (linear_fit) slope.")
    save_fits: bool = _switch(False, "Also save every image as FITS.")
    interactive: bool = _switch(True, "Show live progress where there is a browser; False: text only.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "parameters") -> BatchJob:
        """A batch from names and values.

        Raises
        ------
        RecipeError
            For an unknown name or an invalid value.
        """
        refuse_unknown(values, cls.parameters(), source)
        return cls(**values)

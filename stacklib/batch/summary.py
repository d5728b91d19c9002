"""The summary of a batch: a row for each target, and the table of all."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import MaskedColumn, Table

from stacklib.batch.state import Record
from stacklib.batch.targets import Target
from stacklib.recipe.rules import RULES, rule_in_words
from stacklib.utils.texts import FORMULAS, no_formula

__all__ = ["Row", "summary_table"]


@dataclass
class Row:
    """A target in the summary.

    Attributes
    ----------
    target : Target
        The target.
    status : str
        ``waiting``, ``running``, ``done`` or ``failed``.
    reason : str
        Why it must be run, or ``unchanged``.
    record : Record or None
        The last run.
    """

    target: Target
    status: str
    reason: str = ""
    record: Record | None = None

    @property
    def known(self) -> dict:
        """The result in numbers; empty if there is none."""
        return self.record.numbers if self.record and self.status == "done" else {}

    @property
    def rule(self) -> str:
        """The rejection rule of the run; empty if there is no result."""
        return self.known.get("rule", "")

    @property
    def limits(self) -> str:
        """The rule with its limits, such as ``winsorized sigma 3.2 / 2.9, suggested``."""
        words = rule_in_words(self.rule, self.known.get("recipe", {}))
        return f"{words}, suggested" if self.advice else words

    @property
    def advice(self) -> str:
        """Why these limits were proposed; empty if they were not."""
        return self.record.advice if self.known else ""

    def limit(self, name: str) -> float:
        """Return a parameter of the rule that ran; NaN if the rule does not use it."""
        recipe, switch = self.known.get("recipe", {}), f"clip_{name.rpartition('_')[2]}"
        used = self.rule in RULES and name in RULES[self.rule].parameters and recipe.get(switch)
        return recipe[name] if used else math.nan

    @property
    def remarks(self) -> list[str]:
        """Points to check: frames left out, frames with many rejections, warnings."""
        if self.record is None or self.status != "done":
            return list(self.target.notes)
        left_out = [f"left out: {text}" for text in self.known.get("left_out", [])]
        notes = dict.fromkeys([*self.target.notes, *self.record.notes])
        return [*left_out, *self.known.get("unusual", []), *notes]

    @property
    def error(self) -> str:
        """Why the run failed; empty if it did not."""
        return self.record.error if self.record and self.status == "failed" else ""

    def mean(self, name: str) -> float:
        """Return the mean of a number over the channels; NaN if it is not known."""
        values = self.known.get(name)
        values = values if isinstance(values, list) else [values]
        return math.nan if not values or None in values else float(np.mean(values))

    @property
    def gain(self) -> float:
        """Signal-to-noise ratio relative to the reference frame; NaN if it is not known."""
        ratio = self.mean("noise_ratio")
        return 1 / ratio if ratio > 0 else math.nan

    def path(self, name: str, root: Path) -> str:
        """Return the path of a file of the result as seen from the page."""
        if not name:
            return ""
        path = self.target.output / name
        try:
            shown = Path(os.path.relpath(path, root)).as_posix()
        except ValueError:
            # Another drive on Windows.
            return path.as_posix()
        # Spreadsheets would compute it otherwise.
        return f"./{shown}" if shown.startswith(FORMULAS) else shown

    @property
    def master(self) -> str:
        """Name of the master; empty if there is none."""
        return self.record.files[0] if self.record and self.status == "done" and self.record.files else ""

    @property
    def report(self) -> str:
        """Name of the report; empty if there is none."""
        files = self.record.files if self.record and self.status == "done" else []
        return next((name for name in files if name.endswith("_report.txt")), "")

    @property
    def notebook(self) -> str:
        """Name of the executed notebook; empty if there is none."""
        return self.record.notebook if self.record and self.status in ("done", "failed") else ""

    @property
    def page(self) -> str:
        """Name of the HTML page of the notebook; empty if there is none."""
        return self.record.page if self.record and self.status in ("done", "failed") else ""


def summary_table(rows: Sequence[Row], root: Path) -> Table:
    """Return a table with one row for each target. Unknown values are masked.

    Parameters
    ----------
    rows : sequence of Row
        The targets.
    root : Path
        Folder of the batch.

    Returns
    -------
    Table
        Columns: target, status, object, filter, exposure (s), frames, used, rule, sigma_low and sigma_high
        (if the rule uses them), rejected_low and rejected_high (percent), masked (percent, for their
        neighbors), trails (number found and rejected), noise (mean of the channels),
        snr_gain (relative to the reference frame), snr_gain_equal (the square root of the number of frames),
        warnings, advice (why limits were proposed), error, master and report (paths relative to `root`),
        seconds.
    """
    table = Table()
    table["target"] = [no_formula(row.target.name) for row in rows]
    table["status"] = [row.status for row in rows]
    table["object"] = _texts([row.target.object for row in rows])
    table["filter"] = _texts([row.target.filter for row in rows])
    exposures = [row.target.exposure for row in rows]
    table["exposure"] = _numbers([math.nan if value is None else value for value in exposures], "s")
    table["frames"] = [len(row.target.frames) for row in rows]
    used = [row.known.get("used") for row in rows]
    table["used"] = MaskedColumn([n or 0 for n in used], mask=[n is None for n in used], dtype=int)
    table["rule"] = _texts([row.rule for row in rows])
    for name in ("sigma_low", "sigma_high"):
        table[name] = _numbers([row.limit(name) for row in rows])
    for side in ("rejected_low", "rejected_high"):
        table[side] = _numbers([100 * row.mean(side) for row in rows], "percent")
    table["masked"] = _numbers([100 * row.mean("masked") for row in rows], "percent")
    trails = [row.known.get("trails") for row in rows]
    table["trails"] = MaskedColumn([n or 0 for n in trails], mask=[n is None for n in trails], dtype=int)
    table["noise"] = _numbers([row.mean("noise") for row in rows])
    table["snr_gain"] = _numbers([row.gain for row in rows])
    table["snr_gain_equal"] = _numbers([1 / row.mean("expected_noise_ratio") for row in rows])
    table["warnings"] = _texts(["; ".join(row.remarks) for row in rows])
    table["advice"] = _texts([row.advice for row in rows])
    table["error"] = _texts([row.error for row in rows])
    table["master"] = _texts([row.path(row.master, root) for row in rows])
    table["report"] = _texts([row.path(row.notebook, root) for row in rows])
    table["seconds"] = _numbers([row.record.seconds if row.record else math.nan for row in rows], "s")
    for name in ("rejected_low", "rejected_high", "masked", "snr_gain", "snr_gain_equal"):
        table[name].info.format = ".2f"
    table["noise"].info.format, table["seconds"].info.format = ".3g", ".1f"
    return table


def _texts(values: list[str]) -> MaskedColumn:
    return MaskedColumn(
        [no_formula(value) for value in values], mask=[not value for value in values], dtype=str
    )


def _numbers(values: list[float], unit: str | None = None) -> MaskedColumn:
    return MaskedColumn(values, mask=[not math.isfinite(value) for value in values], dtype=float, unit=unit)

"""Measure frames and choose those to integrate."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.table import Row, Table

from stacklib.errors import IntegrationError, RecipeError
from stacklib.figures.screen import read_binned, screen_limits, stretch
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.frames.kinds import calibration_kind
from stacklib.frames.selection import select
from stacklib.integration.registration import Registration, check_registration, registration_of
from stacklib.measurement.full_scale import ADU
from stacklib.measurement.measurements import FrameMeasurements, measure_frames
from stacklib.measurement.quality import measure_quality, suggest_exclusions
from stacklib.normalization.preparation import prepare
from stacklib.output.worth import best_gains, worth_in_words
from stacklib.recipe.choices import choices_file, read_choices, undo_write, write_frames
from stacklib.recipe.recipe import Recipe
from stacklib.utils.labels import listed, own_parts
from stacklib.utils.progress import progress_bar
from stacklib.utils.texts import one_line

__all__ = ["COLUMNS", "PLOTTED", "FrameChoice", "cell_text", "time_axis"]

#: Column of the table: heading and format.
COLUMNS = {
    "time": ("start (UTC)", ""),
    "exposure": ("exposure (s)", "{:g}"),
    "sky": ("sky", "{:#.3g}"),
    "noise": ("noise", "{:#.3g}"),
    "scale": ("scale", "{:.3g}"),
    "weight": ("weight", "{:.2f}"),
    "gain": ("gain (%)", "{:.1f}"),
    "stars": ("stars", "{:d}"),
    "fwhm": ("FWHM (px)", "{:.2f}"),
    "eccentricity": ("eccentricity", "{:.2f}"),
    "transparency": ("transparency", "{:.2f}"),
    "shift_x": ("shift x (px)", "{:+.2f}"),
    "shift_y": ("shift y (px)", "{:+.2f}"),
    "matched": ("matched", "{:.2f}"),
}
#: Columns that are plotted over time, with their labels.
PLOTTED = {
    "sky": "sky ({level})",
    "stars": "stars",
    "fwhm": "FWHM (pixels)",
    "noise": "noise ({level})",
    "weight": "weight (best = 1)",
    "eccentricity": "eccentricity",
}
#: Columns of pixels of a thumbnail.
THUMBNAIL = 180
#: Changes of the choice that can be undone.
CHANGES = 200


class FrameChoice:
    """Measurements and pictures of frames, and the choice of those to integrate.

    It starts from the choice that was saved last. Frames are chosen by hand, by an expression or by
    suggestion; only `save` writes.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        Registered frames, or where to find them.
    recipe : Recipe, optional
        Recipe for the weights; it is saved with the choice. Default is the one saved last.
    progress : bool
        Whether to show a progress bar while the frames are measured.
    path : str or Path
        Job file with the choice. Default is ``recipe.yaml`` beside the folder ``4_Registered``, or in any
        other folder of frames.
    load : bool
        Whether to start from the saved choice; otherwise all frames are chosen.

    Attributes
    ----------
    table : Table
        One row per frame, see `stacklib.measurement.quality.measure_quality`; `gain` is what a frame adds to
        the signal-to-noise ratio of all with the best weights, in percent.
    remarks : str
        What all frames together are like: whether they lie on each other, and what they are worth.
    suggestions : dict of int to str
        Index of each frame that should be left out, and the reason.
    thumbnails : list of ndarray of uint8
        The frames for the screen, all with the same stretch. They are read when they are first wanted.
    unit : (str, float)
        A second unit of the values of the frames, and its scale.
    all_frames : FrameSet
        All frames to choose from.
    path : Path
        The job file.
    loaded : bool
        Whether the choice is one that was saved.
    """

    def __init__(
        self,
        frames: FrameSet | str | Path | list,
        recipe: Recipe | None = None,
        progress: bool = True,
        path: str | Path = "",
        load: bool = True,
    ) -> None:
        self.all_frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
        self._images = [frame.path for frame in self.all_frames]
        self.path = resolve_path(path) if path else choices_file(self._images)
        self.recipe, self.loaded = recipe, False
        saved = read_choices(self._images, self.path) if load else None
        recipe = recipe or (saved.job.recipe if saved else Recipe())
        self.table, self.unit, self.remarks = _measure(self.all_frames, recipe, progress)
        self.suggestions = suggest_exclusions(self.table)
        names = own_parts([Path(name).stem for name in self.all_frames.names])
        self.short_names = [one_line(name) for name in names]
        self._selected = np.ones(len(self.table), bool)
        self._why: dict[int, str] = {}
        self._past: list[tuple[np.ndarray, dict[int, str]]] = []
        #: Called after each change; set by the panel.
        self.changed: Callable[[], None] = lambda: None
        if load:
            self._load()
        self._start = self._selected.copy(), dict(self._why)
        self._past.clear()

    @cached_property
    def thumbnails(self) -> list[np.ndarray]:
        side = -(-self.all_frames.shape[2] // THUMBNAIL)
        with ThreadPoolExecutor(max_workers=2) as pool:
            images = list(pool.map(lambda frame: read_binned(frame, side), self.all_frames))
        limits = screen_limits(images[self.table.meta["reference"]])
        return [_bytes(stretch(image, limits)) for image in images]

    @property
    def selected(self) -> np.ndarray:
        """Which frames are chosen, bool (frames,). Can be set to booleans, indices or a `FrameSet`."""
        return self._selected.copy()

    @selected.setter
    def selected(self, choice: FrameSet | Sequence[bool] | Sequence[int] | np.ndarray) -> None:
        self.choose(self._as_mask(choice), {})

    @property
    def frames(self) -> FrameSet:
        """The chosen frames."""
        return self.all_frames[self._selected]

    @property
    def reasons(self) -> dict[int, str]:
        """Index of each frame that is left out, and the reason."""
        usual = self.suggestions
        return {int(i): self._why.get(i, usual.get(i, "by hand")) for i in np.flatnonzero(~self._selected)}

    @property
    def overview(self) -> Table:
        """The most useful columns of `table`, with the short names of the frames."""
        columns = (
            "sky",
            "noise",
            "stars",
            "fwhm",
            "eccentricity",
            "transparency",
            "matched",
            "weight",
            "gain",
        )
        overview = self.table[columns]
        overview.add_column(self.short_names, name="frame", index=0)
        return overview

    @property
    def summary(self) -> str:
        """The choice in words."""
        left_out = [f"{self.short_names[i]} ({reason})" for i, reason in self.reasons.items()]
        text = f"{self._selected.sum()} of {len(self.table)} frames are selected."
        return f"{text} Left out: {', '.join(left_out)}." if left_out else text

    def choose(self, selected: np.ndarray, why: dict[int, str] | None = None) -> None:
        """Choose frames, and give reasons for leaving out others.

        Parameters
        ----------
        selected : ndarray of bool, shape (frames,)
            True for the chosen frames.
        why : dict of int to str, optional
            Index of frames that are left out, and the reason. Default is the known reasons.
        """
        known = self._why if why is None else why
        selected = np.array(selected, bool)
        if selected.tolist() != self._selected.tolist():
            self._past = [*self._past[1 - CHANGES :], (self._selected, self._why)]
        self._selected = selected
        self._why = {i: reason for i, reason in known.items() if not self._selected[i]}
        self.changed()

    def step_back(self) -> bool:
        """Undo the last change of the choice, not that of the file; return whether there was one."""
        if not self._past:
            return False
        self._selected, self._why = self._past.pop()
        self.changed()
        return True

    def reset(self) -> None:
        """Go back to the choice at the start: the saved one, or all frames. It can be undone."""
        self.choose(*self._start)

    def apply(self, expression: str) -> np.ndarray:
        """Leave out the frames for which an expression does not hold; those left out already stay out.

        See `stacklib.frames.selection.select` for expressions; columns have the names of the table or of its
        headings, such as ``shift x``, in upper or lower case. `frame` is the number of a frame in the name of
        its file. Returns the frames that are chosen now.
        """
        mask = self._holds(expression)
        why = {int(i): self._why_not(expression, int(i)) for i in np.flatnonzero(self._selected & ~mask)}
        self.choose(self._selected & mask, self.reasons | why)
        return self.selected

    def _holds(self, expression: str) -> np.ndarray:
        """Return for which frames an expression holds, bool (frames,)."""
        columns = {name: self.table[name] for name in self.table.colnames}
        if all(name.isascii() and name.isdigit() for name in self.short_names):
            columns["frame"] = np.array([float(name) for name in self.short_names])
        for name, (heading, _) in COLUMNS.items():
            if " " in (words := heading.split(" (")[0]):
                pattern = r"\b" + words.replace(" ", r"\s+") + r"\b"
                expression = re.sub(pattern, name, expression, flags=re.IGNORECASE)
        return select(columns, expression)

    def _why_not(self, expression: str, index: int) -> str:
        """Return why an expression does not hold for a frame; an unknown number is a reason of its own."""
        words = {word.casefold() for word in re.findall(r"[A-Za-z_]+", expression)}
        row = self.table[index]
        unknown = [n for n in COLUMNS if n in words and n != "time" and not np.isfinite(float(row[n]))]
        return f"not {expression.strip()}" + (f": {listed(unknown)} unknown" if unknown else "")

    def suggest(self, unless_loaded: bool = False) -> dict[int, str]:
        """Leave out the suggested frames as well; return index and reason of each.

        With `unless_loaded`, a choice that was saved stays as it is.
        """
        if unless_loaded and self.loaded:
            return {}
        mask = self.selected
        mask[list(self.suggestions)] = False
        self.choose(mask, self._why | self.suggestions)
        return dict(self.suggestions)

    def note(self, index: int) -> str:
        """Say why a frame is left out, or why it should be; empty for the others."""
        reasons = self.reasons
        if index in reasons:
            return reasons[index]
        return f"leave out? {self.suggestions[index]}" if index in self.suggestions else ""

    def describe(self, index: int) -> str:
        """Describe a frame in words."""
        row = self.table[index]
        known = [f"{heading} {cell_text(row, name)}" for name, (heading, _) in COLUMNS.items()]
        note = self.note(index)
        verdict = (f"left out: {note}" if index in self.reasons else f"selected {note}").strip()
        numbers = ", ".join(known)
        numbers = numbers[:1].upper() + numbers[1:]
        return f"Frame {index + 1} of {len(self.table)}, {row['file']}, {verdict}. {numbers}"

    def save(self, path: str | Path = "", recipe: Recipe | None = None) -> Path:
        """Write the chosen frames and the recipe as a job file for `Job.load` and papermill.

        What an existing file held is kept as ``recipe.yaml.bak``, see `undo`.

        Parameters
        ----------
        path : str or Path
            Job file. In an existing file only the frame list is replaced. Default is the `path` given at
            the start.
        recipe : Recipe, optional
            Recipe to save. Default is the one given at the start, or else that in the file.

        Returns
        -------
        Path

        Raises
        ------
        FrameError
            If no frame is selected.
        RecipeError
            If the reference frame of the recipe is left out, or an existing file is not a job file or lists
            frames of another target.
        SaveError
            If the file cannot be written.
        """
        path = resolve_path(path or self.path)
        saved = read_choices(self._images, path)
        recipe = recipe or self.recipe or (saved.job.recipe if saved else Recipe())
        chosen = self.frames
        if recipe.reference and Path(recipe.reference).stem not in {Path(n).stem for n in chosen.names}:
            raise RecipeError(
                f"reference: {recipe.reference} is not selected; select it or choose another reference"
            )
        return write_frames(path, chosen, recipe, self.all_frames)

    def saved_in_words(self, save: bool = False) -> str:
        """Say whether the choice is saved, and where; with `save`, save it first."""
        if save:
            self.save()
        saved = read_choices(self._images, self.path)
        if saved is None or "frames" not in saved.named:
            return f"{self.summary}\nNot saved yet: press Save in the panel, or run panel.save()."
        absent = [*saved.lost, *(path.name for path in saved.chosen if path not in self._images)]
        told = f"\n{self.path} also lists {listed(absent)}, not among these frames." if absent else ""
        if self._chosen_in(saved.chosen).tolist() != self._selected.tolist():
            return (
                f"{self.summary}{told}\n{self.path} holds another choice. To replace it, press Save in the "
                "panel, or run panel.save()."
            )
        return f"{self.summary}{told}\nSaved in {self.path}."

    def undo(self) -> Path:
        """Go back to the file as it was before the last save, and to its choice; again to undo that.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        RecipeError
            If there is no former version.
        """
        undo_write(self.path)
        self._load()
        return self.path

    def _load(self) -> None:
        """Choose the frames that the file lists, if it lists any of these."""
        saved = read_choices(self._images, self.path)
        self.loaded = saved is not None and "frames" in saved.named and bool(saved.chosen)
        if self.loaded:
            self.choose(self._chosen_in(saved.chosen), {})

    def _chosen_in(self, paths: Sequence[Path]) -> np.ndarray:
        """Return which frames are among these files, bool (frames,)."""
        chosen = {path.resolve() for path in paths}
        return np.array([path.resolve() in chosen for path in self._images])

    def _as_mask(self, choice: FrameSet | Sequence | np.ndarray) -> np.ndarray:
        if isinstance(choice, FrameSet):
            paths = [frame.path.absolute() for frame in self.all_frames]
            choice = [paths.index(frame.path.absolute()) for frame in choice]
        values = np.asarray(choice)
        if values.dtype == bool and values.shape != self._selected.shape:
            raise ValueError(f"selected: got {values.size} values, expected {self._selected.size}")
        mask = np.zeros(self._selected.shape, bool)
        mask[values if values.size else slice(0)] = True
        return mask


def cell_text(row: Row, name: str) -> str:
    """Format a number of the table."""
    value = row[name]
    if name == "time":
        return "–" if value is np.ma.masked or not value else str(value)[11:]
    if not np.isfinite(value):
        return "–"
    # Two digits of an exponent do not fit into a cell.
    return COLUMNS[name][1].format(value).replace("e-0", "e-").removesuffix(".")


def time_axis(table: Table) -> tuple[np.ndarray, str]:
    """Return the hours since the first frame, or the numbers of the frames without times, and a label."""
    hours = np.asarray(table["hours"], float)
    if np.isfinite(hours).all():
        return hours, "hours"
    return np.asarray(table["number"], float), "frame"


def _measure(frames: FrameSet, recipe: Recipe, progress: bool) -> tuple[Table, tuple[str, float], str]:
    """Measure the frames; return the table, a second unit of their values and its scale, and remarks."""
    measured = measure_frames(
        frames, recipe.scale_estimator, range_low=recipe.range_low if recipe.range_clip_low else None
    )
    p = prepare(frames, recipe, measurements=measured) if len(frames) > 1 else None
    with progress_bar(len(frames), "Measuring stars", "frame", progress) as bar:
        table = measure_quality(
            frames,
            progress=lambda done, total: bar.update(done - bar.n),
            weights=None if p is None else p.weights,
            measurements=measured,
        )
    gains, remarks = (np.full(1, np.nan), "") if p is None else _compare(frames, recipe, measured)
    if p is not None:
        # What the limits of rejection can do is a matter of the next notebook.
        about_limits = p.recipe.warnings_for(p.count)
        remarks = "\n".join([*(note for note in p.notes if note not in about_limits), remarks])
    table["gain"] = 100 * gains
    table["gain"].info.format = ".1f"
    return table, ("ADU", _adu(frames, measured.unit_range)), remarks


def _adu(frames: FrameSet, unit_range: bool) -> float:
    """Return how many ADU a value of 1 is, as the frames are read."""
    if unit_range:
        return frames[0].full_scale if frames[0].integer else ADU
    # Integers of more than 16 bits with counts are read as fractions.
    return max(frame.full_scale for frame in frames)


def _compare(frames: FrameSet, recipe: Recipe, measured: FrameMeasurements) -> tuple[np.ndarray, str]:
    """Compare the frames with each other; return what each is worth, and remarks."""
    nothing = np.full(len(frames), np.nan)
    by_light = {"normalization": "photometric", "rejection_normalization": "photometric"}
    try:
        p = prepare(frames, recipe.replace(**by_light, weights="measured"), measurements=measured)
    except IntegrationError as error:
        return nothing, f"The frames could not be compared by their light: {error}"
    if p.photometry is None:
        return nothing, ""
    gains = best_gains(p.photometry.transparency, p.photometry.noise)
    names = own_parts([Path(name).stem for name in frames.names])
    if calibration_kind(p.used_frames):
        return gains, "\n".join(worth_in_words(gains, names))
    found = registration_of(p)
    lines = check_registration(found, [names[i] for i in p.used], allowed=True) or [_registered(found)]
    return gains, "\n".join([*lines, *worth_in_words(gains, names)])


def _registered(found: Registration) -> str:
    if not np.isfinite(found.distance).any():
        return "There are too few stars in the middle of the frames to tell whether they lie on each other."
    return f"The frames lie on each other within {np.nanmax(found.distance):.2f} px."


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)

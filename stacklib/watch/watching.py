"""Watch a folder: integrate what has come in since, until it is stopped."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from stacklib.errors import SaveError, StacklibError, interrupts_kept
from stacklib.frames.finding import expanded, resolve_path
from stacklib.integration.first.plan import steps_of
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.output.naming import default_folder, most_common
from stacklib.output.saving import replace_master
from stacklib.recipe.recipe import Job
from stacklib.utils.ahead.processes import compile_ahead
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.file_sets import existing_folder
from stacklib.utils.labels import counted
from stacklib.watch.incoming import AGAIN, EVERY, Arrived, Incoming
from stacklib.watch.page import Shown, watch_page
from stacklib.watch.plots import master_picture, noise_plot, png_of
from stacklib.watch.record import Entry, entry_of, read_entries, save_entries

__all__ = ["LIVE_FOLDER", "Watch"]

#: Folder of the page and the growing master, in that of the results.
LIVE_FOLDER = "live"
#: Files in it.
PAGE, MASTER, ENTRIES, LOCK = "live.html", "live_master.xisf", "live.json", ".live.lock"
#: Fewest frames of an integration.
FEWEST = 2


class Watch:
    """Integrates the frames of a job again whenever some have come in or are gone.

    Parameters
    ----------
    job : Job
        The frames, one folder or pattern, the recipe, and where the results go.
    incoming : Incoming, optional
        Finds the frames.
    say : callable, optional
        Takes lines for the terminal. Default is `print`.

    Examples
    --------
    >>> watch = Watch(Job(frames="path/to/4_Registered"))  # doctest: +SKIP
    >>> watch.run()  # doctest: +SKIP
    """

    def __init__(
        self, job: Job, incoming: Incoming | None = None, say: Callable[[str], None] = print
    ) -> None:
        if not isinstance(job.frames, str):
            raise StacklibError("watch: give one folder or one pattern, as new files are looked for there")
        self.job, self.say = job, say
        self.incoming = incoming or Incoming(job.frames)
        self.result: Integration | None = None
        self.entries: list[Entry] = []
        self.shown = Shown(
            title="Watching", folder=str(resolve_path(job.frames)), state="Waiting for frames."
        )
        self.output: Path | None = expanded(job.output).absolute() if job.output else None
        self._done: tuple = ()
        self._retry = math.inf
        self._page, self._unwritten = "", ""
        self._lock: FileLock | None = None

    @property
    def page(self) -> Path | None:
        """The page, None as long as nothing tells where results go."""
        return self.output / LIVE_FOLDER / PAGE if self.output else None

    def run(self, every: float = EVERY, pause: Callable[[float], object] = time.sleep) -> None:
        """Watch until Ctrl-C or an error. What was integrated last is then saved like any result.

        Parameters
        ----------
        every : float
            Seconds between two looks at the folder.
        pause : callable
            Waits so many seconds.
        """
        self.say(f"Watching {self.shown.folder}; Ctrl-C ends it.")
        try:
            with interrupts_kept():
                self.step()
                if self.result is None and not self.shown.error:
                    self.say(self.shown.state)
                while True:
                    pause(every)
                    self.step()
        except KeyboardInterrupt:
            self.say("Stopping ...")
        except Exception:
            if self.result is not None:
                self.say("Stopping because of an error ...")
            raise
        finally:
            # Whatever it was, the night is not lost.
            self.finish()

    def step(self) -> bool:
        """Look once, and integrate if other frames are there than at the last time. Return whether it did."""
        arrived = self.incoming.look()
        self.shown.waiting, self.shown.unreadable = arrived.waiting, arrived.unreadable
        known = arrived.key == self._done and self.incoming.clock() < self._retry
        if len(arrived.frames) < FEWEST or known:
            if self.result is None and not self.shown.error:
                if arrived.frames:
                    self.shown.state = f"{counted(len(arrived.frames), 'frame')} so far; two are needed."
                else:
                    self.shown.state = f"Waiting for frames. {arrived.nothing}".strip()
            self._write_page()
            return False
        self._open(arrived)
        self.shown.state = f"Integrating {counted(len(arrived.frames), 'frame')} ..."
        self._write_page()
        self._done, self._retry = arrived.key, math.inf
        try:
            self._integrate(arrived)
        except StacklibError as error:
            # Such as a frame of another size, which the user will take away, or a drive that is gone.
            self._retry = self.incoming.clock() + AGAIN
            self.shown.error = str(error)
            self.shown.state = (
                f"{counted(len(arrived.frames), 'frame')} could not be integrated; watching on."
            )
            self.say(f"stacklib: {error}")
        self._write_page()
        return True

    def finish(self) -> None:
        """Save the last result under the usual names, and write the page for the last time."""
        self.shown.refresh, self.shown.waiting = False, []
        self.shown.state = "Stopped."
        try:
            if self.result is not None and self.output is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    images = self.result.save(self.output, **self.job.also_saved)
                self.shown.state = f"Stopped. The result is saved as {images[0].name}, with its maps."
                self.say("\n".join(str(path) for path in images))
        finally:
            self._write_page()
            if self._lock is not None:
                self._lock.release()
                # Another process may have taken it at this moment.
                with contextlib.suppress(OSError):
                    Path(self._lock.lock_file).unlink()

    def _integrate(self, arrived: Arrived) -> None:
        began, job = time.monotonic(), self.job
        frames = arrived.frame_set()
        # With its bar, as it takes long; the bars of each integration would say little.
        compile_ahead(steps_of(frames, job.recipe))
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            result = integrate(
                frames,
                job.recipe,
                job.part,
                memory=job.memory,
                progress=False,
                keep_samples=job.keep_samples,
            )
        # From here on Ctrl-C saves this one.
        self.result = result
        entry = entry_of(result, time.monotonic() - began, result.how, datetime.now())
        self.entries = [*self.entries, entry]
        shown = self.shown
        shown.error, shown.notes = "", list(dict.fromkeys(str(note.message) for note in notes))
        shown.title = most_common(frame.object for frame in frames) or "Watching"
        shown.state = f"{counted(entry.used, 'frame')} integrated; waiting for more."
        shown.picture, shown.master = master_picture(result), MASTER
        if any(known.noise is not None for known in self.entries):
            shown.plot = png_of(noise_plot(self.entries))
        live = self._live
        replace_master(result, live / MASTER)
        save_entries(live / ENTRIES, shown.folder, self.entries)
        noise = "" if entry.noise is None else f", noise {entry.noise:.4f} of one frame"
        self.say(f"{counted(entry.used, 'frame')}{noise}. {entry.hour_in_words}".strip())

    @property
    def _live(self) -> Path:
        assert self.output is not None
        return self.output / LIVE_FOLDER

    def _open(self, arrived: Arrived) -> None:
        """Make the folder of the page ours, once it is known."""
        if self._lock is not None:
            return
        if self.output is None:
            self.output = default_folder(arrived.frame_set())
        live = self._live
        with existing_folder(live):
            live.mkdir(parents=True, exist_ok=True)
            lock = FileLock(live / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise SaveError(
                    f"{live}: another process watches for this folder; stop it, or choose another output"
                ) from None
            except (OSError, NotImplementedError):
                # Not every network drive knows locks.
                pass
        self._lock = lock
        self.entries = read_entries(live / ENTRIES, self.shown.folder)
        self.say(f"The page: {self.page}")

    def _write_page(self) -> None:
        """Write the page if anything on it has changed and there is a place for it.

        If that is not possible, as on a full disk, it is said, and tried again at the next look.
        """
        if self._lock is None:
            return
        text = watch_page(self.shown, self.entries)
        if text != self._page:
            try:
                replace_atomically(self._live / PAGE, text.encode("utf-8"))
            except SaveError as error:
                if str(error) != self._unwritten:
                    self._unwritten = str(error)
                    self.say(f"stacklib: {error}")
                return
            self._page, self._unwritten = text, ""

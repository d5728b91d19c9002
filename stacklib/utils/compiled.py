"""Numba compilation with a cache that is never stale.

Numba caches compiled code next to each source file and recompiles when that file changes. It misses changes
to functions and constants inlined from other files. So when any file with compiled functions changes, or one
from which such a file imports constants, the whole cache is deleted. Where the folders of the sources cannot
be written, a folder in the user's cache takes its place, one for each state of the sources. Without any
writable place nothing is kept.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import pickle
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import event
from numba.core.caching import FunctionCache, NullCache
from numba.core.runtime import rtsys
from numba.extending import intrinsic

from stacklib.utils.package import CACHE_VARIABLE, FOLDER, cache_folder

__all__ = [
    "any_of",
    "compiled",
    "compiling",
    "fill_from",
    "highest",
    "is_kept",
    "kept_in",
    "larger",
    "larger_distance",
    "lowest",
    "not_kept",
    "seconds_of_compiling",
    "smaller",
    "smaller_distance",
    "sources_of_code",
    "sum_of",
    "tell_of_compiling",
]

#: Settings of numba, which come from its environment variables.
_config: Any = numba.config
#: Days after which the compiled code of another state of the sources is removed from the user's cache.
OTHER_DAYS = 30
#: File beside what is kept that tells for which steps of a run the code is there, see `utils.ahead`.
RECORD = "compiled.steps"
#: Lock beside it of the process that saves, and seconds that others wait for it.
SAVING, SAVING_SECONDS = "saving.lock", 10
#: An import of names from a module.
_IMPORT = re.compile(rb"^from ([\w.]+) import (?:\(([^)]*)\)|([^(\n]+))", re.MULTILINE)


def compiled(function: Callable) -> Callable:
    """Compile a function on its first call. It runs without the GIL."""
    found: Any = numba.njit(nogil=True, error_model="numpy")(function)
    found._cache = _Kept(function)
    return found


def _float_operation(name: str, of_bits: bool = False):
    # min() and max() of numba become masked stores, which are six times slower here.
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, args):
            result = context.get_value_type(signature.return_type)
            kind, free = (ir.IntType(32), ()) if of_bits else (result, ("nnan", "nsz"))
            function = builder.module.declare_intrinsic(
                f"llvm.{name}", [kind], ir.FunctionType(kind, [kind, kind])
            )
            args = [builder.bitcast(value, kind) for value in args]
            return builder.bitcast(builder.call(function, args, fastmath=free), result)

        return a(a, a), codegen

    return operation


#: The smaller and the larger of two floats other than NaN, for compiled code.
smaller = _float_operation("minnum")
larger = _float_operation("maxnum")
#: The same of two float32 of which at most one is negative, compared by their bits as integers. That leaves
#: the units of the processor that subtract floats to subtractions.
smaller_distance = _float_operation("smin", of_bits=True)
larger_distance = _float_operation("smax", of_bits=True)


def not_kept() -> str:
    """Return a note that compiled code cannot be kept, and why; empty if it can, or after the first call."""
    if not _place.problem or _place.told:
        return ""
    _place.told = True
    return (
        f"compiled code cannot be kept ({_place.problem}), so that every run compiles it again, which takes "
        f"about a minute; set the environment variable {CACHE_VARIABLE} to a folder that can be written"
    )


class _Place:
    """Where compiled code is kept.

    `folder` is None for the places that numba prefers, which are beside the sources. `problem` says why
    nothing can be kept.
    """

    def __init__(self, package: Path) -> None:
        self.package = package
        self.folder: Path | None = None
        self.problem, self.told = "", False
        needed = _sources(package)
        self.sources, stamp = list(needed), _stamp(package, needed)
        if not _config.CACHE_DIR and not _unwritable(package / "__pycache__"):
            _forget_outdated(package, stamp)
            return
        own = Path(_config.CACHE_DIR) if _config.CACHE_DIR else cache_folder()
        self.folder = own / "compiled" / stamp[:16]
        self.problem = _unwritable(self.folder)
        if not self.problem:
            _forget_others(self.folder)


class _Kept:
    """The compiled code of a function that is kept.

    It is looked for on the first call, as most functions are not called in most runs. It does without a file
    that cannot be read or written, as on a full disk.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function

    @cached_property
    def _cache(self) -> Any:
        usual = _config.CACHE_DIR
        try:
            # Numba looks for the folder when the cache is made.
            _config.CACHE_DIR = str(_place.folder or usual)
            return NullCache() if _place.problem else FunctionCache(self._function)
        except RuntimeError as error:
            # Numba found no place, such as in a subfolder of its own permissions.
            _place.problem = str(error)
            return NullCache()
        finally:
            _config.CACHE_DIR = usual

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *arguments: Any) -> Any:
        """Return what is kept, None if it cannot be read or is damaged, in any way that a pickle can be."""
        with contextlib.suppress(Exception):
            return self._load(*arguments)

    @property
    def _load(self) -> Callable:
        """What loads: of numba's own method the part that is needed, for code that is not compiled here.

        The other part registers all that can be compiled, which takes longer than to load all that a run
        needs. Whatever has to be compiled registers it anyway.
        """
        load = getattr(self._cache, "_load_overload", None)
        if load is None:
            return self._cache.load_overload

        def load_alone(signature: Any, context: Any) -> Any:
            rtsys.initialize(context)
            return load(signature, context)

        return load_alone

    def save_overload(self, *arguments: Any) -> None:
        """Keep compiled code if possible."""
        try:
            with _one_at_a_time():
                try:
                    self._cache.save_overload(*arguments)
                except (EOFError, ValueError, pickle.PickleError):
                    # The index is damaged.
                    self._cache.flush()
                    self._cache.save_overload(*arguments)
        except TimeoutError:
            # Another process that saves hangs. The next run compiles it again.
            pass
        except OSError as error:
            _place.problem = _place.problem or _words(error)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait while another process saves: two at once may give the name of one file to two signatures."""
    # Here, because most runs save nothing.
    from filelock import FileLock

    if (folder := kept_in()) is None:
        yield
        return
    lock = FileLock(folder / SAVING, timeout=SAVING_SECONDS)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except TimeoutError:
            raise
        except (OSError, NotImplementedError):
            # Some file systems know no locks.
            pass
        yield


def _sources(package: Path) -> dict[Path, bytes]:
    """Return the files that compiled code depends on, and their contents."""
    contents = {source: source.read_bytes() for source in sorted(package.rglob("*.py"))}
    needed = [source for source, content in contents.items() if b"@compiled" in content]
    # The list grows: constants may be made of others.
    for source in needed:
        constants = _constants_of(contents[source], package)
        needed += [other for other in constants if other in contents and other not in needed]
    return {source: contents[source] for source in sorted(needed)}


def _stamp(package: Path, sources: dict[Path, bytes]) -> str:
    """Return a checksum of all that compiled code depends on."""
    stamp = hashlib.sha256(numba.__version__.encode())
    for source, content in sources.items():
        stamp.update(source.relative_to(package).as_posix().encode() + content)
    return stamp.hexdigest()


def _constants_of(content: bytes, package: Path) -> list[Path]:
    """Return the files of a package from which a source imports constants, whose names are upper case."""
    found = []
    for module, several, one in _IMPORT.findall(content):
        if any(name.strip().isupper() for name in (several or one).split(b",")):
            found.append(package.parent.joinpath(*module.decode().split(".")).with_suffix(".py"))
    return found


def _forget_outdated(package: Path, stamp: str) -> None:
    stamp_file = package / "__pycache__" / "compiled.stamp"
    with contextlib.suppress(OSError):
        if stamp_file.exists() and stamp_file.read_text() == stamp:
            return
        for kept in package.rglob("__pycache__"):
            for path in [*kept.glob("*.nbi"), *kept.glob("*.nbc"), *kept.glob(RECORD)]:
                path.unlink(missing_ok=True)
        stamp_file.write_text(stamp)


def _forget_others(folder: Path) -> None:
    """Remove what was compiled long ago from other states of the sources."""
    oldest = time.time() - OTHER_DAYS * 86400
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError):
            if other != folder and other.stat().st_mtime < oldest:
                shutil.rmtree(other, ignore_errors=True)


def _unwritable(folder: Path) -> str:
    """Return why no file can be made in a folder, which is made if necessary; empty if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return _words(error)


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


class _Watch(event.Listener):
    """Takes the time of compilation, which keeps everybody waiting.

    Meanwhile no garbage is collected: the compiler makes so many objects that looking through all of them
    again and again took a fifth of the time.
    """

    def __init__(self) -> None:
        self.tell: Callable[[], None] | None = None
        self._seconds, self._depth, self._began = 0.0, 0, 0.0
        self._lock, self._collects = threading.Lock(), False

    def on_start(self, event: Any) -> None:
        """Compilation of a function begins, perhaps within that of another one."""
        with self._lock:
            tell = None if self._depth else self.tell
            if not self._depth:
                self._began, self._collects = time.monotonic(), gc.isenabled()
                gc.disable()
            self._depth += 1
        if tell is not None:
            tell()

    def on_end(self, event: Any) -> None:
        """Compilation of a function ends."""
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._seconds += time.monotonic() - self._began
                if self._collects:
                    gc.enable()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        with self._lock:
            return self._seconds + (time.monotonic() - self._began if self._depth else 0.0)

    @property
    def busy(self) -> bool:
        """Whether something is being compiled."""
        return self._depth > 0


def is_kept() -> bool:
    """Return whether compiled code is kept for the next process."""
    return not _place.problem


def kept_in() -> Path | None:
    """Return the folder with the record of compiled code; None if no code is kept."""
    return None if _place.problem else _place.folder or _place.package / "__pycache__"


def sources_of_code() -> list[Path]:
    """Return the files that compiled code depends on."""
    return _place.sources


def compiling() -> bool:
    """Return whether a function is being compiled now."""
    return _watch.busy


def seconds_of_compiling() -> float:
    """Return how long this process has compiled so far."""
    return _watch.seconds


def tell_of_compiling(tell: Callable[[], None]) -> None:
    """Call `tell` whenever functions are compiled because they are not in the cache."""
    _watch.tell = tell


_place = _Place(FOLDER)
_watch = _Watch()
event.register("numba:compile", _watch)


# For compiled code, in place of methods of arrays and of assignments of one array to another: numba compiles
# these for a second or more, and to load code with them it imports all of its linear algebra.


@compiled
def lowest(values):
    """Return the smallest of some numbers, none of them NaN."""
    least = values[0]
    for i in range(1, values.size):
        least = values[i] if values[i] < least else least
    return least


@compiled
def highest(values):
    """Return the largest of some numbers, none of them NaN."""
    most = values[0]
    for i in range(1, values.size):
        most = values[i] if values[i] > most else most
    return most


@compiled
def sum_of(values):
    """Return the sum of some numbers, added in their order."""
    found = 0.0
    for i in range(values.size):
        found += values[i]
    return found


@compiled
def any_of(values):
    """Return whether any value is true."""
    found = False
    for i in range(values.size):
        found = found or values[i]
    return found


@compiled
def fill_from(source, out):
    """Write values to the first places of an array."""
    for i in range(source.size):
        out[i] = source[i]

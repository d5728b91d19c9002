"""The command line: ``stacklib run`` integrates one target, ``batch`` many, ``rerun`` repeats a saved run.

``stacklib watch`` integrates the frames of a night while they come in.
``stacklib drizzle`` deposits the unregistered frames of a target on a finer grid, ``stacklib lab`` opens the
notebooks, and ``stacklib sample`` makes frames to try things on. Each is a module of `stacklib.commands`,
imported when it is needed, so that help comes at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from stacklib.commands.printing import say
from stacklib.errors import RecipeError, StacklibError, interrupts_kept
from stacklib.utils import package

__all__ = ["main"]

#: The commands, and what each does.
COMMANDS = {
    "run": "integrate one target, and keep the executed notebook beside the result",
    "batch": "integrate all new or changed targets below a folder",
    "watch": "integrate the frames of a night while they come in, and show how it goes on a page",
    "drizzle": "drizzle the unregistered frames of one target, color mosaics without debayering",
    "rerun": "repeat the run of a saved image, and compare the results",
    "lab": "open the notebooks in JupyterLab",
    "sample": "make a large simulated night with its truth, to try things on",
}
#: The one whose other arguments are those of another program.
PASSES_ON = "lab"

EXAMPLES = """\
examples:
  stacklib run sample_data/M101/4_Registered
  stacklib run path/to/4_Registered -p rejection sigma -p sigma_high 2.8
  stacklib run path/to/4_Registered/*_Ha_*.xisf
  stacklib run recipe.yaml
  stacklib run recipe.yaml -p frames path/to/4_Registered
  stacklib batch sample_data -p memory 4GB
  stacklib watch path/to/4_Registered
  stacklib rerun 5_Integration/20210815_M101_ZWOASI294_0000.xisf
  stacklib drizzle path/to/target -p scale 2
  stacklib drizzle path/to/3_Calibrated --registered path/to/4_Registered
  stacklib lab
  stacklib sample ~/astro/sample --kind nebula

"stacklib run --help", "stacklib batch --help" and "stacklib drizzle --help" list every parameter.
"""


class _Command(argparse.ArgumentParser):
    """The parser of a command, which gets its arguments from the module of the command when it is used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        self._complete = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self._complete:
            self._complete = True
            module = importlib.import_module(f"stacklib.commands.{self.prog.split()[-1]}")
            module.add_arguments(self)
        return super().parse_known_args(args, namespace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return 0 for success, 1 if a run failed, 2 for a wrong call."""
    for stream in (sys.stdout, sys.stderr):
        # Not every terminal, and no file of Windows, takes all characters of a name.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.name != PASSES_ON:
        given = sys.argv[1:] if arguments is None else list(arguments)
        parser.error(f"unknown argument {rest[0]!r}{_hint(rest[0], given, options)}")
    options.rest = rest
    try:
        with _stopped_in_order(), interrupts_kept():
            return options.command(options)
    except RecipeError as error:
        say(f"stacklib: {error}", sys.stderr)
        return 2
    except StacklibError as error:
        say(f"stacklib: {error}", sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print("stacklib: stopped", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Treat `kill`, a shutdown and a terminal that is closed as Ctrl-C, so that nothing stays behind."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    found = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP", "SIGBREAK")]
    # Only the main thread may do so, and nohup ignores SIGHUP on purpose.
    main = threading.current_thread() is threading.main_thread()
    changed = [number for number in found if main and number and signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stacklib",
        description="Integrate registered astrophotography frames into a clean master.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stacklib {package.VERSION}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="name", parser_class=_Command
    )
    for name, does in COMMANDS.items():
        commands.add_parser(name, help=does)
    return parser


def _hint(argument: str, given: Sequence[str], options: argparse.Namespace) -> str:
    """Return the hint for ``--sigma_high 3``: a parameter given as an option, of a command with -p."""
    word, equals, value = argument.partition("=")
    name = word.lstrip("-").replace("-", "_")
    if not word.startswith("-") or not hasattr(options, "known") or name not in options.known():
        return ""
    if not equals:
        value = next(iter(given[given.index(argument) + 1 :]), "VALUE")
    return f"; did you mean -p {name} {value}?"


if __name__ == "__main__":
    sys.exit(main())

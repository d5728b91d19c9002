"""The command line: ``stacklib run`` integrates one target, ``batch`` many, ``rerun`` repeats a saved run.

``stacklib drizzle`` deposits the unregistered frames of a target on a finer grid, ``stacklib lab`` opens the
notebooks, and ``stacklib sample`` makes frames to try things on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from stacklib.batch import ADVISE, Batch
from stacklib.drizzle.rerun import rerun
from stacklib.errors import IntegrationError, RecipeError, StacklibError, StacklibWarning
from stacklib.frames.finding import FRAMES_FOLDER, expanded, resolve_path
from stacklib.frames.frame_set import as_pattern
from stacklib.integration.rerun import also_saved, repeats
from stacklib.notebook.copies import own_copies
from stacklib.notebook.parameters import cell_parameters
from stacklib.notebook.process import INSTALL
from stacklib.notebook.running import Run, notebooks_folder, run_drizzle, run_job
from stacklib.notebook.session import NOTE, describe
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.choices import file_values, job_with_choices
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.recipe.presets import PRESET
from stacklib.recipe.recipe import Job, Recipe
from stacklib.simulate import KINDS, large_mosaics, large_night, make_large_mosaics, make_large_night
from stacklib.utils import package
from stacklib.utils.labels import listed
from stacklib.utils.parameters import Parameter, refuse_unknown
from stacklib.utils.resources import parse_memory
from stacklib.utils.texts import one_line, printable, printable_table

__all__ = ["batch_from_arguments", "drizzle_from_arguments", "job_from_arguments", "main"]

#: Values of a switch on the command line.
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

EXAMPLES = """\
examples:
  stacklib run sample_data/M101/4_Registered
  stacklib run path/to/4_Registered -p rejection sigma -p sigma_high 2.8
  stacklib run path/to/4_Registered/*_Ha_*.xisf
  stacklib run recipe.yaml
  stacklib run recipe.yaml -p frames path/to/4_Registered
  stacklib batch sample_data -p memory 4GB
  stacklib rerun 5_Integration/20210815_M101_ZWOASI294_0000.xisf
  stacklib drizzle path/to/target -p scale 2
  stacklib drizzle path/to/3_Calibrated --registered path/to/4_Registered
  stacklib lab
  stacklib sample ~/astro/sample --kind nebula

"stacklib run --help", "stacklib batch --help" and "stacklib drizzle --help" list every parameter.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return 0 for success, 1 if a run failed, 2 for a wrong call."""
    for stream in (sys.stdout, sys.stderr):
        # Not every terminal, and no file of Windows, takes all characters of a name.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _lab:
        given = sys.argv[1:] if arguments is None else list(arguments)
        known = {_batch: _known_in_batch, _drizzle: _known_in_drizzle}.get(options.command, _known)()
        parser.error(f"unknown argument {rest[0]!r}{_as_parameter(rest[0], given, known)}")
    options.rest = rest
    try:
        with _stopped_in_order():
            return options.command(options)
    except RecipeError as error:
        _say(f"stacklib: {error}", sys.stderr)
        return 2
    except StacklibError as error:
        _say(f"stacklib: {error}", sys.stderr)
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


def _say(text: object, stream: TextIO | None = None) -> None:
    """Print a text, in which names from headers and folders cannot command the terminal."""
    print(printable(str(text)), file=stream or sys.stdout, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stacklib",
        description="Integrate registered astrophotography frames into a clean master.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stacklib {package.VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="integrate one target, and keep the executed notebook beside the result",
        description="Integrate the frames in a folder, or run a job file (YAML).\n"
        "Choices saved in the notebooks are used, unless -p recipe_file none is given.\n"
        "A recipe file that lists no frames also needs -p frames FOLDER, unless it lies beside them.",
        epilog=_parameter_list(_known()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "target",
        nargs="+",
        metavar="FOLDER|JOB.yaml",
        help="folder of registered frames, the files themselves, or a job or recipe file",
    )
    _add_parameters(run)
    run.add_argument("--output", metavar="DIR", help="folder for the results; created if missing")
    run.set_defaults(command=_run)
    batch = commands.add_parser(
        "batch",
        help="integrate all new or changed targets below a folder",
        description="Integrate all targets below a folder. A target is a folder named 4_Registered with\n"
        "frames in it. Targets that are done and have not changed are skipped.\n"
        "A summary is written into the folder.",
        epilog=_parameter_list(_known_in_batch()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    batch.add_argument("folder", metavar="FOLDER", help="folder with the targets")
    _add_parameters(batch)
    batch.add_argument("--list", action="store_true", help="only list the targets and what would be done")
    batch.set_defaults(command=_batch)
    drizzle = commands.add_parser(
        "drizzle",
        help="drizzle the unregistered frames of one target, color mosaics without debayering",
        description="Deposit calibrated frames that are not registered on a grid, with the rejection,\n"
        "weights and normalization of the integration of the registered ones. FOLDER holds these frames,\n"
        "or is the folder of the target, in which they are looked for beside 4_Registered.\n"
        "The executed notebook is kept beside the result.",
        epilog=_parameter_list(_known_in_drizzle()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    drizzle.add_argument(
        "target",
        nargs="+",
        metavar="FOLDER",
        help="folder of frames that are not registered or of their target, or the files themselves",
    )
    drizzle.add_argument(
        "--registered", metavar="DIR", help="folder of the same frames, registered; none: register them here"
    )
    _add_parameters(drizzle)
    drizzle.add_argument("--output", metavar="DIR", help="folder for the results; created if missing")
    drizzle.set_defaults(command=_drizzle)
    again = commands.add_parser(
        "rerun",
        help="repeat the run of a saved image, and compare the results",
        description="Check the frames of a saved image, and integrate them again with the recipe in the "
        "image. The new files get the next free number. The images are compared bit for bit.",
        allow_abbrev=False,
    )
    again.add_argument("file", metavar="FILE", help="any image of the result")
    again.add_argument("--frames", metavar="DIR", help="folder with the frames, if they were moved")
    again.add_argument("--output", metavar="DIR", help="folder for the new files (default: that of FILE)")
    again.set_defaults(command=_rerun)
    lab = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Open the notebooks in JupyterLab. Other arguments, such as --no-browser, are passed on.",
        allow_abbrev=False,
    )
    lab.set_defaults(command=_lab)
    sample = commands.add_parser(
        "sample",
        help="make a large simulated night with its truth, to try things on",
        description="Simulate a night of 2000 x 1500 pixels on which clouds pass, the gradient moves\n"
        "and the seeing changes. Frames are written into FOLDER/4_Registered, their truth into\n"
        "FOLDER/truth. 20 RGB frames take 360 MB and less than a minute, 20 mosaics 160 MB and two minutes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sample.add_argument("folder", metavar="FOLDER", help="output folder, created if needed")
    sample.add_argument("--kind", choices=list(KINDS), default="spiral", help="target (default: spiral)")
    sample.add_argument(
        "--count", type=_whole_number(1, 1000), default=20, metavar="N", help="number of frames (default: 20)"
    )
    sample.add_argument(
        "--seed", type=_whole_number(0, 10**6), default=1, metavar="N", help="another sky and other noise"
    )
    sample.add_argument(
        "--mosaic",
        action="store_true",
        help="color mosaics (RGGB) of 1200 x 900 pixels to drizzle: unregistered frames in 3_Calibrated, "
        "registered ones and .xdrz files in 4_Registered",
    )
    sample.add_argument(
        "--format", choices=("xisf", "fits"), default="xisf", help="file format (default: xisf)"
    )
    sample.set_defaults(command=_sample)
    return parser


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to whole numbers of a range."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from {low} to {high}")
        return int(text)

    return convert


def _add_parameters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-p",
        dest="parameters",
        metavar=("NAME", "VALUE"),
        nargs=2,
        action="append",
        default=[],
        help="set a parameter; can be repeated",
    )


def _known() -> dict[str, Parameter]:
    """Return the parameters for -p. A run from the command line is never interactive."""
    known = cell_parameters(Job)
    return {name: parameter for name, parameter in known.items() if name != "interactive"}


def _as_parameter(argument: str, given: Sequence[str], known: Mapping[str, Parameter]) -> str:
    """Return the hint for ``--sigma_high 3``: a parameter given as an option."""
    word, equals, value = argument.partition("=")
    name = word.lstrip("-").replace("-", "_")
    if not word.startswith("-") or name not in known:
        return ""
    if not equals:
        value = next(iter(given[given.index(argument) + 1 :]), "VALUE")
    return f"; did you mean -p {name} {value}?"


def _known_in_batch() -> dict[str, Parameter]:
    """Return the parameters for -p of a batch: its own, and the recipe of targets without one."""
    known = BatchJob.parameters() | {PRESET.name: PRESET} | Recipe.parameters()
    return {name: parameter for name, parameter in known.items() if name not in ("folder", "interactive")}


def _known_in_drizzle() -> dict[str, Parameter]:
    """Return the parameters for -p of a drizzle run."""
    return cell_parameters(DrizzleJob)


def _parameter_list(known: Mapping[str, Parameter]) -> str:
    lines = ["parameters for -p and for job files, with defaults:"]
    for name, parameter in known.items():
        default = str(parameter.default).lower() if parameter.kind is bool else parameter.default
        lines += [f"  {name} {'(empty)' if default == '' else default}", f"      {describe(parameter)}"]
    return "\n".join(lines)


# run ---------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    _say("Reading the headers of the frames ...")
    job, line = job_from_arguments(_frames_of(options.target), options.parameters, options.output)
    if line:
        _say(line)
    _say_run(run_job(job))
    return 0


def _say_run(run: Run) -> None:
    """Print what came out of a run, and where it is."""
    _say(f"\n{run.summary}\n")
    for path in filter(None, (*run.files, run.preview, run.notebook, run.page)):
        _say(path)
    if run.page is None:
        _say(f"\nNote: {run.notes[-1]}")
    _say(f"\nOpen {run.page or run.preview or run.notebook} to see it.")


def _frames_of(targets: Sequence[str]) -> str | list[str]:
    """Return the frames or the job file that a command line names.

    Several files are usually a pattern that the shell has expanded: as in any pattern, what is no light frame
    is left out. Notes say so.
    """
    if len(targets) == 1:
        return targets[0]
    files = [target for target in targets if Path(target).suffix.lower() in (".yaml", ".yml")]
    if files:
        raise RecipeError(
            f"{files[0]}: a job or recipe file comes alone; to use it for other frames, give a folder or a "
            "pattern in quotation marks with -p frames"
        )
    frames, notes = as_pattern(targets)
    for note in notes:
        _say(f"{NOTE}{one_line(note)}", sys.stderr)
    return frames


def job_from_arguments(
    target: str | list[str], parameters: Sequence[tuple[str, str]] = (), output: str | None = None
) -> tuple[Job, str]:
    """Return the job that a command line describes, and a line about the choices it uses.

    The target is a folder, glob pattern, file or list of frames, whose saved choices are used, or a job
    file (``.yaml`` or ``.yml``). The texts of `parameters` are converted to their types, and override the
    choices. `RecipeError` is raised for an unknown name or an invalid value.
    """
    known = _known()
    texts = _texts(parameters, known)
    if output is not None and "output" in texts:
        raise RecipeError("-p output: given together with --output; give only one of the two")
    from_file = isinstance(target, str) and Path(target).suffix.lower() in (".yaml", ".yml")
    for name, what in (("recipe_file", "file is"), ("frames", "frames are")):
        if name in texts and from_file == (name == "recipe_file"):
            given = target if isinstance(target, str) else listed(target)
            raise RecipeError(f"-p {name}: the {what} already given as {given}; give only one of the two")
    values = {name: _typed(known[name], text) for name, text in texts.items()}
    if output is not None:
        values["output"] = output
    file = values.pop("recipe_file", "")
    if isinstance(target, str) and from_file:
        file = target
        values = _frames_beside(resolve_path(target), values)
    else:
        values["frames"] = target
    job, line = job_with_choices(values, file)
    parse_memory(job.memory)
    return job, line


def _frames_beside(file: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with frames, if neither they nor the file have any: those that it lies beside."""
    if "frames" in values or "frames" in file_values(file):
        return dict(values)
    if not (file.parent / FRAMES_FOLDER).is_dir():
        raise RecipeError(f"{file}: lists no frames; add -p frames FOLDER")
    return {**values, "frames": str(file.parent)}


def _texts(parameters: Sequence[tuple[str, str]], known: Mapping[str, Parameter]) -> dict[str, str]:
    """Return the values of -p by name. Every name must be known, and given once."""
    texts = dict(parameters)
    if "interactive" in texts:
        raise RecipeError("-p interactive: a run from the command line is never interactive; leave it out")
    refuse_unknown(texts, known, "-p")
    for name, count in Counter(name for name, _ in parameters).items():
        if count > 1:
            raise RecipeError(f"-p {name}: given {count} times; give it once")
    return texts


def _typed(parameter: Parameter, text: str) -> Any:
    """Convert the text to the type of the parameter; one that cannot be converted is left for the check."""
    if parameter.kind is bool:
        return SWITCHES.get(text.lower(), text)
    if parameter.kind in (int, float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


# drizzle -----------------------------------------------------------------------------------------


def _drizzle(options: argparse.Namespace) -> int:
    _say("Reading the headers of the frames ...")
    frames = _frames_of(options.target)
    _say_run(
        run_drizzle(drizzle_from_arguments(frames, options.parameters, options.registered, options.output))
    )
    return 0


def drizzle_from_arguments(
    target: str | list[str],
    parameters: Sequence[tuple[str, str]] = (),
    registered: str | None = None,
    output: str | None = None,
) -> DrizzleJob:
    """Return the drizzle run that a command line describes.

    The texts of `parameters` are converted to their types. `RecipeError` is raised for an unknown name or an
    invalid value.
    """
    known = _known_in_drizzle()
    texts = _texts(parameters, known)
    options = {"frames": target, "registered": registered, "output": output}
    for name in (name for name, value in options.items() if value is not None and name in texts):
        given = "as FOLDER" if name == "frames" else f"as --{name}"
        raise RecipeError(f"-p {name}: given {given} already; give only one of the two")
    if isinstance(target, str) and Path(target).suffix.lower() in (".yaml", ".yml"):
        raise RecipeError(
            f"{target}: is no folder of frames; the recipe of the integration goes with -p recipe_file"
        )
    values = {name: _typed(known[name], text) for name, text in texts.items()}
    values |= {name: value for name, value in options.items() if value is not None}
    job = DrizzleJob(**values)
    parse_memory(job.memory)
    return job


# batch -------------------------------------------------------------------------------------------


def _batch(options: argparse.Namespace) -> int:
    _say(f"Reading the headers of the frames below {options.folder} ...", sys.stderr)
    batch = batch_from_arguments(options.folder, options.parameters)
    plan = printable_table(batch.plan)
    _say("\n".join(plan.pformat(max_lines=-1, max_width=-1, show_unit=False)))
    for note in batch.notes:
        _say(f"{NOTE}{one_line(note)}")
    if options.list:
        return 0
    batch.run()
    _say(f"\n{batch.summary}\n\n{batch.page}")
    return 1 if batch.failed else 0


def batch_from_arguments(folder: str, parameters: Sequence[tuple[str, str]] = ()) -> Batch:
    """Return the batch that a command line describes.

    The texts of `parameters` are converted to their types. Parameters of a recipe change the recipe that
    targets share. `RecipeError` is raised for an unknown name or an invalid value, `FrameError` if no target
    is found.
    """
    known = _known_in_batch()
    values = {n: _typed(known[n], text) for n, text in _texts(parameters, known).items()}
    of_recipe = {name: values.pop(name) for name in list(values) if name not in BatchJob.parameters()}
    job = BatchJob.from_dict({"folder": folder} | values)
    if not of_recipe:
        return Batch(job)
    file = job.recipe if job.recipe != ADVISE else ""
    shared = Recipe.load(resolve_path(file)) if file else Recipe()
    return Batch(job, shared.replace(**of_recipe))


# rerun -------------------------------------------------------------------------------------------


def _rerun(options: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", StacklibWarning)
        result = rerun(options.file, options.frames)
    folder = options.output or expanded(options.file).absolute().parent
    also: dict[str, Any] = {**also_saved(options.file)}
    files = result.save(folder, **also)
    _say("\n".join([f"\n{result.summary}\n", *(f"Note: {note.message}" for note in notes), *map(str, files)]))
    same = repeats(options.file, files)
    _say(f"\n{'Identical to' if same else 'NOT identical to'} {options.file}")
    return 0 if same else 1


# sample ------------------------------------------------------------------------------------------


def _sample(options: argparse.Namespace) -> int:
    kind, count, seed, mosaic = options.kind, options.count, options.seed, options.mosaic
    call = f"{kind!r}, {count}, {seed}"
    if mosaic:
        print(f"Writing {count} color mosaics of 1200 x 900 pixels ...", flush=True)
        made = [*make_large_mosaics(options.folder, large_mosaics(kind, count, seed), call, options.format)]
        command, what = "drizzle", "drizzles"
    else:
        print(f"Writing {count} RGB frames of 2000 x 1500 pixels ...", flush=True)
        made = [make_large_night(options.folder, large_night(kind, count, seed), call, options.format)]
        command, what = "run", "integrates"
    target = made[0].parent
    print(*made, target / "truth", sep="\n")
    print(f"\nstacklib {command} {target} {what} them.")
    return 0


# lab ---------------------------------------------------------------------------------------------


def _lab(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        raise IntegrationError(f"jupyterlab is missing; install it with: {INSTALL}")
    folder = own_copies(notebooks_folder(), Path.cwd() / "stacklib_notebooks")
    first = min(folder.glob("[0-9]*.ipynb"), default=folder)
    # -P: not with modules of the current folder.
    command = [sys.executable, "-P", "-m", "jupyterlab", f"--ServerApp.root_dir={folder.parent}"]
    # Otherwise each kernel warns that others on this computer may listen.
    command.append("--KernelManager.transport_encryption=auto")
    command.append(f"--LabApp.default_url=/lab/tree/{folder.name}/{first.name}")
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.call([*command, *options.rest])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Parameters: type, default, range, unit and help, with one check for every value."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import yaml

from stacklib.errors import RecipeError
from stacklib.utils.labels import clipped, hint, quoted
from stacklib.utils.texts import one_line

__all__ = [
    "Checked",
    "Parameter",
    "choice_field",
    "commented_yaml",
    "count_field",
    "list_field",
    "named_errors",
    "number_field",
    "parse_yaml",
    "read_yaml",
    "refuse_unknown",
    "switch_field",
    "text_field",
]

#: Longest text of a parameter, as long as the longest path on Linux.
LONGEST_TEXT = 4096
USABLE = f"text of at most {LONGEST_TEXT} characters, without NUL"
#: Largest YAML text in characters, number of values in it, depth of lists in lists, and number of references
#: to values given before (``*name``), which may multiply.
LARGEST_YAML, MOST_VALUES, DEEPEST, MOST_REFERENCES = 10**6, 20_000, 8, 10
#: Longest number in YAML, and longest problem and name in an error, in characters.
LONGEST_NUMBER, LONGEST_PROBLEM, LONGEST_NAME = 100, 150, 40
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


@dataclass(frozen=True)
class Parameter:
    """A parameter that a user can set.

    Attributes
    ----------
    name : str
        Name in Python, YAML and papermill.
    kind : type
        ``bool``, ``int``, ``float``, ``str`` or ``list`` (a string or a list of strings).
    default : object
        Default value.
    help : str
        Help text, one sentence.
    choices : tuple of str
        Allowed strings. Empty if any string is allowed.
    low, high : float
        Allowed range, inclusive. Infinite if there is no limit.
    unit : str
        Unit of a number, or an empty string.
    recommended : tuple of float or None
        Recommended range.
    """

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    recommended: tuple[float, float] | None = None

    @property
    def expected(self) -> str:
        """Description of a valid value, for error messages."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "True or False (true or false in YAML), without quotes"
        if self.kind in (int, float):
            noun = "a whole number" if self.kind is int else "a number"
            if math.isfinite(self.low) and math.isfinite(self.high):
                return f"{noun} from {self.low:g} to {self.high:g}"
            return f"{noun} of at least {self.low:g}"
        return "text or a list of texts" if self.kind is list else "text"

    def check(self, value: Any) -> Any:
        """Return `value` converted to the type of the parameter. Raises `RecipeError` if it is invalid."""
        checked = self._convert(value)
        if checked is None:
            texts = [item for item in _as_list(value) if isinstance(item, str) and not _usable(item)]
            shown, expected = (texts[0], USABLE) if texts else (value, self.expected)
            raise RecipeError(f"{self.name}: got {quoted(shown)}, expected {expected}. ({self.help})")
        return checked

    def _convert(self, value: Any) -> Any:
        if self.kind is bool:
            return value if isinstance(value, bool) else None
        if self.kind in (int, float):
            return self._number(value)
        if self.kind is list and isinstance(value, list | tuple):
            texts = [_text(item, numbers=True) for item in value]
            if not texts and self.default == "":
                return ""
            return texts if texts and None not in texts else None
        # Without quotes, YAML reads off as False.
        text = "off" if value is False and "off" in self.choices else _text(value, numbers=self.kind is str)
        return None if self.choices and text not in self.choices else text

    def _number(self, value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0:
            # NumPy scalars count as numbers.
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # Before anything else: an integer of many digits has no float.
        if not self.low <= value <= self.high or abs(value) > sys.float_info.max:
            return None
        if self.kind is int:
            return int(value) if value == int(value) else None
        return float(value)


def _text(value: Any, numbers: bool) -> str | None:
    """Return a text, a path or, with `numbers`, a whole number as text; None for anything else."""
    if isinstance(value, Path) or (numbers and isinstance(value, int) and not isinstance(value, bool)):
        value = str(value) if isinstance(value, Path) or abs(value) < 10**18 else None
    return value if isinstance(value, str) and _usable(value) else None


def _usable(text: str) -> bool:
    return len(text) <= LONGEST_TEXT and "\0" not in text


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _parameter(kind: type, default: Any, help: str, **known: Any) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "help": help, **known})


def choice_field(default: str, choices: tuple[str, ...], help: str) -> Any:
    """Declare a field with a fixed set of strings."""
    return _parameter(str, default, help, choices=choices)


def switch_field(default: bool, help: str) -> Any:
    """Declare a boolean field."""
    return _parameter(bool, default, help)


def number_field(default: float, low: float, high: float, help: str, unit: str = "", recommended=None) -> Any:
    """Declare a float field from `low` to `high`, with an optional recommended range."""
    return _parameter(float, default, help, low=low, high=high, unit=unit, recommended=recommended)


def count_field(default: int, low: int, high: int, help: str, unit: str = "frames") -> Any:
    """Declare an integer field from `low` to `high`."""
    return _parameter(int, default, help, low=low, high=high, unit=unit)


def text_field(default: str, help: str) -> Any:
    """Declare a string field."""
    return _parameter(str, default, help)


def list_field(default: str, help: str) -> Any:
    """Declare a field that takes a string or a list of strings."""
    return _parameter(list, default, help)


class Checked:
    """Base class for frozen dataclasses of parameters. Checks every name and value on creation."""

    def __new__(cls, *values: Any, **named: Any) -> Self:
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        refuse_unknown(named, [field.name for field in fields], cls.__name__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, parameter in self.parameters().items():
            object.__setattr__(self, name, parameter.check(getattr(self, name)))

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """Return the parameters by name, in order of definition."""
        return {parameter.name: parameter for parameter in _parameters_of(cls)}  # type: ignore[arg-type]


@functools.cache
def _parameters_of(cls: type) -> tuple[Parameter, ...]:
    """Return the parameters of a class. Cached, because a moving slider creates many recipes."""
    return tuple(
        Parameter(name=field.name, default=field.default, **field.metadata)
        for field in dataclasses.fields(cls)
        if "help" in field.metadata
    )


@contextlib.contextmanager
def named_errors(source: str | Path) -> Iterator[None]:
    """Begin the message of a `RecipeError` with its source, such as a file."""
    try:
        yield
    except RecipeError as error:
        if str(error).startswith(str(source)):
            raise
        raise RecipeError(f"{source}: {error}") from None


def refuse_unknown(values: Iterable[str], known: Collection[str], source: str) -> None:
    """Raise `RecipeError` for the first name in `values` that is not in `known`."""
    for name in values:
        if name not in known:
            near = hint(name, known, "parameters") if isinstance(name, str) else "names are text"
            raise RecipeError(f"{source}: unknown parameter {quoted(name)}; {near}")


def commented_yaml(values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> str:
    """Format parameters as YAML, one per line, each followed by its help text as a comment."""
    lines = []
    for name, value in values.items():
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        text = text.removesuffix("...\n").strip()
        unit = f" [{parameters[name].unit}]" if parameters[name].unit else ""
        lines.append(f"{name}: {text}  # {parameters[name].help}{unit}")
    return "\n".join(lines) + "\n"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping, empty for an empty file. Raises `RecipeError` if the file is not valid."""
    try:
        if not path.is_file() and path.exists():
            kind = "is a folder" if path.is_dir() else "is not a regular file"
            raise RecipeError(f"{path}: cannot be read ({kind}); name a YAML file")
        if path.stat().st_size > LARGEST_YAML:
            raise RecipeError(_too_much(path, f"more than {LARGEST_YAML // 10**6} MB"))
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
    except RecipeError:
        raise
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is not valid YAML (not UTF-8); save it as UTF-8, with one 'name: value' per line"
        ) from error
    except ValueError as error:
        raise RecipeError(f"{quoted(str(path))}: is not the name of a file; name a YAML file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Return the mapping in a YAML text, empty for an empty one.

    Only plain data are read: scalars, lists and mappings, of limited number and depth.

    Parameters
    ----------
    text : str
        The text.
    source : str
        Start of error messages, such as a file name.

    Returns
    -------
    dict
        The values by name.

    Raises
    ------
    RecipeError
        If the text is not valid YAML, is not a mapping, or holds more than a recipe ever does.
    """
    if len(text) > LARGEST_YAML:
        raise RecipeError(_too_much(source, f"more than {LARGEST_YAML} characters"))
    try:
        values = yaml.load(text, _PlainData)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        problem = clipped(one_line(getattr(error, "problem", None) or error.reason), LONGEST_PROBLEM)
        raise RecipeError(
            f"{source}: is not valid YAML{line} ({problem}); write one 'name: value' per line"
        ) from error
    if not isinstance(values, dict | None):
        raise RecipeError(f"{source}: contains a {type(values).__name__}, expected lines of 'name: value'")
    return values or {}


def _too_much(source: str | Path, what: str) -> str:
    return f"{source}: holds {what}, too much for a recipe or job file; name another file"


class _PlainData(yaml.SafeLoader):
    """Safe YAML loader with limits, which refuses duplicate names instead of silently using the last one.

    A reference to a value given before (``*name``) costs nothing when it is read, but a few of them in each
    other make a value that nothing can print or walk through. Dates are text: a folder may be named after
    one.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = self.references = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values += 1
        self.references += self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        for number, most, what in (
            (self.values, MOST_VALUES, "values"),
            (self.references, MOST_REFERENCES, "references to other values"),
            (self.depth, DEEPEST, "values in each other"),
        ):
            if number > most:
                raise yaml.composer.ComposerError(None, None, f"more than {most} {what}", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if (
                isinstance(node, yaml.ScalarNode)
                and len(node.value) > LONGEST_NUMBER
                and node.tag in _NUMBERS
            ):
                raise ValueError
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            # The text does not have the type that its tag names.
            kind = node.tag.rpartition(":")[2]
            problem = f"{quoted(node.value)} is not a valid {kind}; put text in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a name is a list or mapping, expected text"
            elif key.value in seen:
                problem = f"{clipped(key.value, LONGEST_NAME)} is given twice"
            else:
                seen.add(key.value)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)

"""Parameters: type, default, range, unit and help, with one check for every value."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from stacklib.errors import RecipeError
from stacklib.utils.labels import hint

__all__ = [
    "Checked",
    "Parameter",
    "choice_field",
    "commented_yaml",
    "count_field",
    "list_field",
    "number_field",
    "read_yaml",
    "refuse_unknown",
    "switch_field",
    "text_field",
]


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
            raise RecipeError(f"{self.name}: got {value!r}, expected {self.expected}. ({self.help})")
        return checked

    def _convert(self, value: Any) -> Any:
        if self.kind is bool:
            return value if isinstance(value, bool) else None
        if self.kind in (int, float):
            if not isinstance(value, int | float) and hasattr(value, "item"):
                # NumPy scalars count as numbers.
                value = value.item()
            if isinstance(value, bool) or not isinstance(value, int | float):
                return None
            if not math.isfinite(value) or not self.low <= value <= self.high:
                return None
            if self.kind is int:
                return int(value) if value == int(value) else None
            return float(value)
        if self.kind is list and isinstance(value, list | tuple):
            return [str(item) for item in value] if value else None
        plain_number = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, Path) or (self.kind is str and plain_number and not self.choices):
            value = str(value)
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            return None
        return value


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


def refuse_unknown(values: Iterable[str], known: Collection[str], source: str) -> None:
    """Raise `RecipeError` for the first name in `values` that is not in `known`."""
    for name in values:
        if name not in known:
            raise RecipeError(f"{source}: unknown parameter {name!r}; {hint(str(name), known, 'parameters')}")


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
        values = yaml.load(path.read_text(encoding="utf-8"), _EachNameOnce)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "unreadable text"
        raise RecipeError(
            f"{path}: is not valid YAML{line} ({problem}); write one 'name: value' per line"
        ) from error
    if not isinstance(values, dict | None):
        raise RecipeError(f"{path}: contains a {type(values).__name__}, expected lines of 'name: value'")
    return values or {}


class _EachNameOnce(yaml.SafeLoader):
    """Safe YAML loader that rejects duplicate names instead of silently using the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

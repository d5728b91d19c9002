"""Evaluate expressions such as ``fwhm < 3.5 and eccentricity < 0.6`` for the rows of a table.

No code is executed: an expression is read into a tree, of which only the kinds of nodes listed here are
evaluated, with arrays as long as the table. Its length and the depth of its brackets are limited.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.errors import RecipeError
from stacklib.utils.labels import hint, quoted

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["evaluate", "select"]

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type, Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable] = {"abs": np.abs}
#: Words of an expression besides columns, written in any case.
_WORDS = re.compile(rf"\b(?:{'|'.join(['and', 'or', 'not', *_FUNCTIONS])})\b", re.IGNORECASE)
ALLOWED = (
    f"columns, numbers, < <= > >= == !=, and, or, not, + - * / **, {', '.join(_FUNCTIONS)}() and brackets"
)
#: Largest number of characters, and of brackets or operations inside each other.
LONGEST, DEEPEST = 1000, 50


def select(table: Table | Mapping[str, np.ndarray], expression: str) -> np.ndarray:
    """Evaluate a boolean expression for every row of a table.

    Parameters
    ----------
    table : Table
        The expression may use its numeric columns.
    expression : str
        A condition, see `evaluate`.

    Returns
    -------
    ndarray of bool, shape (rows,)
        True for selected rows. Comparisons with NaN or masked values are False.

    Raises
    ------
    RecipeError
        If the expression is invalid, is a number, or uses an unknown column.
    """
    result = evaluate(expression, table, "selection")
    if result.dtype != bool:
        raise RecipeError(
            f"selection: {quoted(expression)} is a number, expected a condition such as fwhm < 3.5"
        )
    return result


def evaluate(
    expression: str,
    table: Table | Mapping[str, np.ndarray],
    field: str = "expression",
    example: str = "fwhm < 3.5 and eccentricity < 0.6",
) -> np.ndarray:
    """Evaluate an expression for every row of a table.

    Parameters
    ----------
    expression : str
        Columns, numbers, comparisons, ``and``, ``or``, ``not``, ``+ - * / **``, ``abs()`` and brackets, in
        upper or lower case. Nothing else is allowed, and no code is executed.
    table : Table or mapping of str to ndarray
        The expression may use its numeric columns, all of the same length and with one value a row.
    field : str
        Start of error messages.
    example : str
        What an expression looks like, for error messages.

    Returns
    -------
    ndarray of float64 or bool, shape (rows,)
        Numbers, or the truth of a condition. Masked values count as NaN, and comparisons with NaN are False.
        Dividing by 0 gives infinity or NaN, and so do powers that are too large or have no real value.

    Raises
    ------
    RecipeError
        If the expression is invalid, too long, or uses an unknown column.

    Examples
    --------
    >>> evaluate("1 / fwhm", {"fwhm": np.array([2.0, 4.0])})
    array([0.5 , 0.25])
    """
    reader = _Reader(table, expression, field)
    if len(expression) > LONGEST:
        raise RecipeError(
            f"{field}: {quoted(expression)} has {len(expression)} characters; use at most {LONGEST}"
        )
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # Python warns of odd spelling such as 3and.
            warnings.simplefilter("ignore")
            tree = ast.parse(_WORDS.sub(lambda word: word[0].lower(), expression.strip()), mode="eval").body
            result = reader.value(tree)
    except RecipeError:
        raise
    except (SyntaxError, ValueError, RecursionError, ArithmeticError, MemoryError):
        raise RecipeError(f"{field}: {quoted(expression)} is not valid; write it like {example}") from None
    return np.broadcast_to(result, reader.rows).copy()


class _Reader:
    """Evaluator of an expression, one node at a time."""

    def __init__(self, table: Table | Mapping[str, np.ndarray], expression: str, field: str) -> None:
        self.table, self.expression, self.field = table, expression, field
        self.depth = 0
        columns = {str(name): np.asanyarray(table[name]) for name in table.keys()}  # noqa: SIM118
        self.rows = len(next(iter(columns.values()))) if columns else 0
        self.columns = {n: column for n, column in columns.items() if _is_numeric(column)}
        self.by_word = {name.casefold(): name for name in self.columns}

    def value(self, node: ast.expr) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"{self.quoted} nests more than {DEEPEST} brackets or operations")
        try:
            return self._value(node)
        finally:
            self.depth -= 1

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() as value):
                return np.bool_(value)
            case ast.Constant(value=int() | float() as value) if math.isfinite(float(value)):
                return float(value)
            case ast.Name(id=name) if name.lower() in ("true", "false"):
                return np.bool_(name.lower() == "true")
            case ast.Name():
                return self.column(node.id)
            case ast.BoolOp():
                parts = [self.truth(part) for part in node.values]
                join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return join.reduce(np.broadcast_arrays(*parts))
            case ast.UnaryOp(op=ast.Not()):
                return np.logical_not(self.truth(node.operand))
            case ast.UnaryOp(op=ast.USub()):
                return -self.number(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.number(node.operand)
            case ast.BinOp() if type(node.op) in _BINARY:
                # Arrays and NumPy scalars: Python would raise an error where a number is divided by 0, and
                # take long for powers of large integers.
                left, right = (np.float64(self.number(side)) for side in (node.left, node.right))
                return _BINARY[type(node.op)](left, right)
            case ast.Compare():
                return self.comparison(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](self.number(argument))
        raise self.error(f"{quoted(_source(node))} in {self.quoted} is not allowed; use {ALLOWED}")

    def comparison(self, node: ast.Compare) -> Any:
        """Evaluate a comparison, including chains such as ``2 < fwhm < 3``."""
        sides = [self.number(side) for side in (node.left, *node.comparators)]
        result: Any = np.bool_(True)
        for left, sign, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            if type(sign) not in _COMPARE:
                raise self.error(f"{self.quoted} is not allowed; use {ALLOWED}")
            known = ~(np.isnan(left) | np.isnan(right))
            result = result & np.asarray(_COMPARE[type(sign)](left, right)) & known
        return result

    def column(self, name: str) -> np.ndarray:
        known = name if name in self.columns else self.by_word.get(name.casefold())
        if known is not None:
            column = self.columns[known]
            if column.dtype == bool:
                return np.asarray(column)
            return np.ma.filled(np.ma.asarray(column, float), np.nan)
        raise self.error(f"unknown column {quoted(name)}; {hint(name.casefold(), self.columns, 'columns')}")

    def truth(self, node: ast.expr) -> Any:
        return self._checked(node, True, "is a number; compare it with a number")

    def number(self, node: ast.expr) -> Any:
        return self._checked(node, False, "is a condition, not a number; combine conditions with and, or")

    def _checked(self, node: ast.expr, is_condition: bool, problem: str) -> Any:
        value = self.value(node)
        if (np.asarray(value).dtype == bool) != is_condition:
            raise self.error(f"{quoted(_source(node))} in {self.quoted} {problem}")
        return value

    @property
    def quoted(self) -> str:
        return quoted(self.expression)

    def error(self, problem: str) -> RecipeError:
        return RecipeError(f"{self.field}: {problem}")


def _is_numeric(column: np.ndarray) -> bool:
    return column.ndim == 1 and column.dtype.kind in "iufb"


def _source(node: ast.expr) -> str:
    """Return a part of an expression as text."""
    try:
        return ast.unparse(node)
    except (ValueError, RecursionError):
        # A number with thousands of digits.
        return "a part"

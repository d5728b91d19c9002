"""Select rows of a table with an expression such as ``fwhm < 3.5 and eccentricity < 0.6``."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.table import Table

from stacklib.errors import RecipeError
from stacklib.utils.labels import hint

__all__ = ["select"]

_BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: dict[type, Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
#: Words of an expression besides columns, written in any case.
_WORDS = re.compile(r"\b(?:and|or|not|abs)\b", re.IGNORECASE)
ALLOWED = "columns, numbers, < <= > >= == !=, and, or, not, + - * /, abs() and brackets"


def select(table: Table, expression: str) -> np.ndarray:
    """Evaluate a boolean expression for every row of a table.

    Parameters
    ----------
    table : Table
        The expression may use its numeric columns.
    expression : str
        Columns, numbers, comparisons, ``and``, ``or``, ``not``, ``+ - * /`` and ``abs()``, in upper or
        lower case. Nothing else is allowed, and no code is executed.

    Returns
    -------
    ndarray of bool, shape (rows,)
        True for selected rows. Comparisons with NaN or masked values are False.

    Raises
    ------
    RecipeError
        If the expression is invalid or uses an unknown column.
    """
    try:
        tree = ast.parse(_WORDS.sub(lambda word: word[0].lower(), expression.strip()), mode="eval").body
        with np.errstate(all="ignore"):
            result = _Reader(table, expression).value(tree)
    except RecipeError:
        raise
    except (SyntaxError, ValueError, RecursionError, ArithmeticError, MemoryError):
        raise RecipeError(
            f"selection: {expression!r} is not valid; write it like fwhm < 3.5 and eccentricity < 0.6"
        ) from None
    if np.asarray(result).dtype != bool:
        raise RecipeError(f"selection: {expression!r} is a number, expected a condition such as fwhm < 3.5")
    return np.broadcast_to(result, len(table)).copy()


class _Reader:
    """Evaluator of an expression, one node at a time."""

    def __init__(self, table: Table, expression: str) -> None:
        self.table, self.expression = table, expression
        self.names = [name for name in table.colnames if np.asarray(table[name]).dtype.kind in "iufb"]
        self.by_word = {name.casefold(): name for name in self.names}

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() as value):
                return np.bool_(value)
            case ast.Constant(value=int() | float() as value):
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
                return _BINARY[type(node.op)](self.number(node.left), self.number(node.right))
            case ast.Compare():
                return self.comparison(node)
            case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
                return np.abs(self.number(argument))
        raise RecipeError(
            f"selection: {ast.unparse(node)!r} in {self.expression!r} is not allowed; use {ALLOWED}"
        )

    def comparison(self, node: ast.Compare) -> Any:
        """Evaluate a comparison, including chains such as ``2 < fwhm < 3``."""
        sides = [self.number(side) for side in (node.left, *node.comparators)]
        result: Any = np.bool_(True)
        for left, sign, right in zip(sides[:-1], node.ops, sides[1:], strict=True):
            if type(sign) not in _COMPARE:
                raise RecipeError(f"selection: {self.expression!r} is not allowed; use {ALLOWED}")
            known = ~(np.isnan(left) | np.isnan(right))
            result = result & np.asarray(_COMPARE[type(sign)](left, right)) & known
        return result

    def column(self, name: str) -> np.ndarray:
        known = name if name in self.names else self.by_word.get(name.casefold())
        if known is not None:
            column = self.table[known]
            if column.dtype == bool:
                return np.asarray(column)
            return np.ma.filled(np.ma.asarray(column, float), np.nan)
        raise RecipeError(
            f"selection: unknown column {name!r}; {hint(name.casefold(), self.names, 'columns')}"
        )

    def truth(self, node: ast.expr) -> Any:
        return self._checked(node, True, "is a number; compare it with a number")

    def number(self, node: ast.expr) -> Any:
        return self._checked(node, False, "is a condition, not a number; combine conditions with and, or")

    def _checked(self, node: ast.expr, is_condition: bool, problem: str) -> Any:
        value = self.value(node)
        if (np.asarray(value).dtype == bool) != is_condition:
            raise RecipeError(f"selection: {ast.unparse(node)!r} in {self.expression!r} {problem}")
        return value

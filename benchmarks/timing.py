"""Seconds of several contenders, taken by turns so that they can be compared."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable


class Timings:
    """Seconds by contender and rule, one value for each repetition."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, name: str, rule: str, seconds: float) -> None:
        """Keep a value."""
        self.seconds[name, rule].append(seconds)

    def measure(self, name: str, rule: str, call: Callable, *arguments: object, **options: object) -> None:
        """Call something and keep how long it took."""
        start = time.perf_counter()
        call(*arguments, **options)
        self.add(name, rule, time.perf_counter() - start)

    def values(self, name: str, rule: str) -> list[float]:
        """All values; none for what was not timed."""
        return self.seconds.get((name, rule), [])

    def ratios(self, slow: tuple[str, str], fast: tuple[str, str]) -> list[float]:
        """How many times faster `fast` was than `slow`, repetition by repetition."""
        pairs = zip(self.values(*slow), self.values(*fast), strict=False)
        return [one / other for one, other in pairs]


def spread(values: list[float], unit: str = "") -> str:
    """Median, smallest and largest value in words."""
    if not values:
        return "–"
    middle = f"{number(statistics.median(values))}{unit}"
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}–{number(max(values))})"


def number(value: float) -> str:
    """Three significant digits, at most three decimals."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"

"""Timings of several contenders, taken by turns so that they can be compared."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable


class Timings:
    """Seconds of wall and CPU time by contender and rule, one value for each repetition."""

    def __init__(self) -> None:
        self.wall: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.cpu: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, name: str, rule: str, wall: float, cpu: float) -> None:
        """Record one repetition."""
        self.wall[name, rule].append(wall)
        self.cpu[name, rule].append(cpu)

    def measure(self, name: str, rule: str, call: Callable, *arguments: object, **options: object) -> None:
        """Call something and record its time."""
        wall, cpu = time.perf_counter(), time.process_time()
        call(*arguments, **options)
        self.add(name, rule, time.perf_counter() - wall, time.process_time() - cpu)

    def cells(self, name: str, rule: str) -> list[str]:
        """Return table cells: wall time with its spread, CPU time of all threads; empty if not timed."""
        if not self.wall.get((name, rule)):
            return ["", ""]
        return [spread(self.wall[name, rule]), number(statistics.median(self.cpu[name, rule]))]

    def ratios(self, slow: tuple[str, str], fast: tuple[str, str]) -> list[float]:
        """Return how many times faster `fast` was than `slow`, for each repetition."""
        return _ratios(self.wall, slow, fast)

    def cpu_ratios(self, slow: tuple[str, str], fast: tuple[str, str]) -> list[float]:
        """Return how many times more CPU seconds `slow` took than `fast`, for each repetition."""
        return _ratios(self.cpu, slow, fast)


def _ratios(
    seconds: dict[tuple[str, str], list[float]], slow: tuple[str, str], fast: tuple[str, str]
) -> list[float]:
    pairs = zip(seconds.get(slow, []), seconds.get(fast, []), strict=False)
    return [one / other for one, other in pairs]


def spread(values: list[float], unit: str = "") -> str:
    """Return median, smallest and largest value in words."""
    if not values:
        return "–"
    middle = f"{number(statistics.median(values))}{unit}"
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}–{number(max(values))})"


def number(value: float) -> str:
    """Format with three significant digits and no more than three decimals."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"

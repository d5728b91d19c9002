"""Read many damaged files in processes that may die, and say what did not hold.

``python tests/fuzz/fuzz.py --count 20000`` takes about ten minutes on two processors. The seed is printed;
``--seed S --number N`` repeats one input, and ``--keep FOLDER`` keeps the files that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

#: Seconds after which a process that does not answer is ended. It may have to compile.
PATIENCE = 300.0
#: Memory of a process beyond what it needs to start, in bytes. The images are tiny.
MEMORY = 400 * 2**20


@dataclass
class Outcome:
    """What became of the inputs, by kind, and what did not hold: number and words."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: dict[int, list[str]] = field(default_factory=dict)


class Worker:
    """A process that checks one input after the other, and is started again if it ends."""

    def __init__(self, seed: int) -> None:
        self.seed, self.process = seed, None

    def ask(self, number: int) -> tuple[str, str, list[str]]:
        """Return kind, end and problems of an input."""
        if self.process is None:
            command = [sys.executable, __file__, "--work", "--seed", str(self.seed)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            return tuple(json.loads(answer))
        return "unknown", "died", [f"died: exit code {self.end()}"]

    def end(self) -> int:
        """End the process. Returns its exit code."""
        if self.process is None:
            return 0
        for stream in (self.process.stdin, self.process.stdout):
            # What was not sent is not needed.
            with contextlib.suppress(OSError):
                stream.close()
        code, self.process = self.process.wait(), None
        return code


def fuzz(seed: int, numbers: range, workers: int) -> Outcome:
    """Check the inputs of these numbers."""
    outcome, lock, left = Outcome(), threading.Lock(), iter(numbers)

    def work() -> None:
        worker = Worker(seed)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                break
            kind, end, problems = worker.ask(number)
            with lock:
                outcome.ends[kind, end] += 1
                if problems:
                    outcome.failures[number] = problems
        worker.end()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def work(seed: int) -> None:
    """Answer the numbers on standard input, one a line."""
    from fuzz_checks import problems
    from fuzz_inputs import make_input

    _limit_memory()
    # Libraries may print.
    answers, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for line in sys.stdin:
        made = make_input(seed, int(line))
        with tempfile.TemporaryDirectory(prefix="stacklib-fuzz-") as folder:
            end, found = problems(made, Path(folder))
        print(json.dumps([made.kind, end, found]), file=answers, flush=True)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    status = Path("/proc/self/status")
    if status.exists():
        used = int(status.read_text().partition("VmData:")[2].split()[0]) * 1024
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, most))


def report(outcome: Outcome, seed: int, seconds: float) -> str:
    """Return the figures of a run, and what did not hold."""
    kinds = sorted({kind for kind, _ in outcome.ends})
    lines = [f"{outcome.ends.total()} inputs, seed {seed}, {seconds:.0f} s"]
    for kind in kinds:
        ends = {end: count for (each, end), count in sorted(outcome.ends.items()) if each == kind}
        lines.append(f"  {kind:<10}" + ", ".join(f"{count} {end}" for end, count in ends.items()))
    sorts = Counter(problem.partition(":")[0] for found in outcome.failures.values() for problem in found)
    lines.append(f"{len(outcome.failures)} failures" + "".join(f", {n} {sort}" for sort, n in sorts.items()))
    for number, found in sorted(outcome.failures.items()):
        lines += [f"  {number}: {problem}" for problem in found]
    return "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--number", type=int, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--work", action="store_true")
    given = parser.parse_args()
    if given.work:
        work(given.seed)
        return 0
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    numbers = range(given.count) if given.number is None else range(given.number, given.number + 1)
    started = time.monotonic()
    outcome = fuzz(seed, numbers, given.workers)
    print(report(outcome, seed, time.monotonic() - started))
    if given.keep:
        from fuzz_inputs import KINDS, make_input

        given.keep.mkdir(parents=True, exist_ok=True)
        for number in outcome.failures:
            made = make_input(seed, number)
            (given.keep / f"{seed}_{number}{KINDS[made.kind].ending}").write_bytes(made.content)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())

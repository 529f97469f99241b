"""Part 2: `segue.convert`, from a table in memory and from an iterable of sequences of 100 steps.

Beside the table a plain write of as many bytes to a file, synced, by turns; beside the iterable
the iterable alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import segue

STEPS, FLOATS, WIDE = 100, 16, 64  # of the iterable's sequences; floats a step, in the table more
GOAL_TABLE, GOAL_STEPS = 0.5, 5e6


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def plain_write(path: str, data: Any) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def table(directory: str, size: int, rounds: int) -> dict[str, Any]:
    steps = size // (4 * WIDE)
    data = np.random.default_rng(1).random((steps, WIDE), np.float32)
    lengths = [STEPS] * (steps // STEPS)
    data = data[: STEPS * len(lengths)]
    ours, plain = os.path.join(directory, "table.segue"), os.path.join(directory, "plain")
    times = []
    for _ in range(rounds):
        one = seconds(lambda: segue.convert({"x": data}, ours, lengths=lengths, progress=False))
        other = seconds(lambda: plain_write(plain, data))
        times.append((one, other))
        os.unlink(ours)
        os.unlink(plain)
    rates = [data.nbytes / one / 1e6 for one, _ in times]
    ratios = [other / one for one, other in times]
    return {
        "part": 2,
        "name": "convert a table",
        "shape": f"{STEPS} x {WIDE}",
        "unit": "MB/s",
        "value": statistics.median(rates),
        "beside": "a plain write, synced",
        "beside_value": data.nbytes / statistics.median(other for _, other in times) / 1e6,
        "ratio": statistics.median(ratios),
        "goal_kind": "ratio >=",
        "goal": GOAL_TABLE,
        "note": f"ratio {min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds; {data.nbytes // 1_000_000} MB",
    }


def iterable(directory: str, count: int, rounds: int) -> dict[str, Any]:
    values = np.random.default_rng(2).random((64, STEPS, FLOATS), np.float32)

    def items() -> Iterator[dict[str, Any]]:
        for i in range(count):
            yield {"x": values[i % 64]}

    path = os.path.join(directory, "items.segue")
    times = []
    for _ in range(rounds):
        one = seconds(lambda: segue.convert(items(), path, progress=False))
        other = seconds(lambda: sum(1 for _ in items()))
        times.append((one, other))
        os.unlink(path)
    rates = [count * STEPS / one for one, _ in times]
    return {
        "part": 2,
        "name": "convert an iterable",
        "shape": f"{STEPS} x {FLOATS}",
        "unit": "steps/s",
        "value": statistics.median(rates),
        "beside": "the iterable alone",
        "beside_value": count * STEPS / statistics.median(other for _, other in times),
        "ratio": statistics.median(other / one for one, other in times),
        "goal_kind": "value >=",
        "goal": GOAL_STEPS,
        "note": f"{count:,} sequences, a mapping of one array each; synced at the end",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    quick = parser.parse_args().quick
    size, count, rounds = (100_000_000, 20_000, 3) if quick else (400_000_000, 100_000, 5)
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
        print(json.dumps(table(directory, size, rounds)), flush=True)
        print(json.dumps(iterable(directory, count, rounds)), flush=True)


if __name__ == "__main__":
    main()

"""Part 2: the loop that a trainer writes, in Python: batches from segue beside those that it cuts by hand.

Each loop copies the inputs of a batch out, takes both states of all rows, and saves both. Beside
segue, which reads files (of the page cache), shuffles, and stores the states on disk, there are a
loop over arrays in memory that cuts segments with NumPy and keeps states in a dict, and the same
with PyTorch's DataLoader cutting them in a process of its own. By turns, in one process each.
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
from numpy.typing import NDArray

import segue
from segue.tfrecord import SequenceExampleWriter, encode_sequence_example

Array = NDArray[np.float32]

SHAPES = {"S": (32, 20, 64, 128), "L": (256, 64, 256, 1024)}  # rows, steps, floats, states
GOALS = {"files": 1.2, "TFRecord": 1.0}
BYTES = 400_000_000  # of sequences, beyond any cache


class Data:
    """Sequences of 1 to 8 segments, in memory and in files."""

    def __init__(self, shape: str, size: int, directory: str) -> None:
        self.rows, self.unroll, self.floats, self.state = SHAPES[shape]
        random = np.random.default_rng(1)
        segment = self.unroll * self.floats * 4
        self.arrays: list[Array] = []
        while size > 0:
            steps = int(random.integers(1, 9)) * self.unroll
            self.arrays.append(random.random((steps, self.floats), np.float32))
            size -= steps // self.unroll * segment
        self.path = {
            "files": os.path.join(directory, f"{shape}.segue"),
            "TFRecord": os.path.join(directory, f"{shape}.tfrecord"),
        }
        sequences = {"x": segue.Feature("float32", [self.floats])}
        with segue.FileWriter(self.path["files"], sequences=sequences) as files:
            for array in self.arrays:
                files.write({"x": array})
        with SequenceExampleWriter(self.path["TFRecord"]) as writer:
            for array in self.arrays:
                writer.write_record(encode_sequence_example({"x": array}))

    def segments(self) -> Iterator[list[tuple[int, int]]]:
        """Of each batch, which sequence each row has and its first step; endless, shuffled."""
        random = np.random.default_rng(2)

        def sequences() -> Iterator[int]:
            while True:
                yield from random.permutation(len(self.arrays)).tolist()

        order = sequences()
        rows = [(next(order), 0) for _ in range(self.rows)]
        while True:
            yield rows
            rows = [
                (number, step + self.unroll)
                if step + self.unroll < len(self.arrays[number])
                else (next(order), 0)
                for number, step in rows
            ]


class States:
    """A state of all sequences in a dict."""

    def __init__(self, data: Data) -> None:
        self.kept: dict[int, Array] = {}
        self.zero = np.zeros(data.state, np.float32)
        self.batch = np.empty((data.rows, data.state), np.float32)

    def take(self, rows: list[tuple[int, int]]) -> Array:
        for row, (number, step) in enumerate(rows):
            self.batch[row] = self.kept[number] if step else self.zero
        return self.batch

    def save(self, rows: list[tuple[int, int]], values: Array) -> None:
        for row, (number, _) in enumerate(rows):
            self.kept[number] = values[row].copy()


def with_states(data: Data, batches: Iterator[tuple[list[tuple[int, int]], Any]]) -> Iterator[None]:
    h, c = States(data), States(data)
    for rows, _ in batches:
        h.save(rows, h.take(rows))
        c.save(rows, c.take(rows))
        yield


def numpy_loop(data: Data) -> Iterator[None]:
    def batches() -> Iterator[tuple[list[tuple[int, int]], Array]]:
        x = np.empty((data.rows, data.unroll, data.floats), np.float32)
        for rows in data.segments():
            for row, (number, step) in enumerate(rows):
                x[row] = data.arrays[number][step : step + data.unroll]
            yield rows, x

    yield from with_states(data, batches())


def dataloader_loop(data: Data) -> Iterator[None]:
    from torch.utils.data import DataLoader, IterableDataset

    class Segments(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[tuple[list[tuple[int, int]], Any]]:
            import torch

            for rows in data.segments():
                pieces = [
                    torch.from_numpy(data.arrays[number][step : step + data.unroll])
                    for number, step in rows
                ]
                yield rows, torch.stack(pieces)

    loader = DataLoader(Segments(), batch_size=None, num_workers=1, prefetch_factor=4)
    x = np.empty((data.rows, data.unroll, data.floats), np.float32)

    def batches() -> Iterator[tuple[list[tuple[int, int]], Array]]:
        for rows, values in loader:
            np.copyto(x, values.numpy())
            yield rows, x

    yield from with_states(data, batches())


def segue_loop(data: Data, client: segue.Client, kind: str, name: str) -> Iterator[None]:
    source: Any = segue.Files if kind == "files" else segue.TFRecord
    state = segue.State("float32", [data.state])
    stream = client.stream(
        name,
        source=source(data.path[kind]),
        sequences={"x": segue.Feature("float32", [data.floats])},
        states={"h": state, "c": state},
        num_unroll=data.unroll,
        batch_size=data.rows,
        shuffle=True,
        epochs=None,
    )
    x = np.empty((data.rows, data.unroll, data.floats), np.float32)
    with stream, stream.loader(start="fresh") as loader:
        for batch in loader:
            np.copyto(x, batch.sequences["x"])
            batch.save_state("h", batch.state("h"))
            batch.save_state("c", batch.state("c"))
            batch.commit()
            yield


def rate(loop: Iterator[None], seconds: float) -> float:
    """Batches a second."""
    begun = time.perf_counter()
    count = 0
    while True:
        next(loop)
        count += 1
        spent = time.perf_counter() - begun
        if spent >= seconds:
            return count / spent


def measure(shape: str, quick: bool, directory: str) -> None:
    data = Data(shape, BYTES // 4 if quick else BYTES, directory)
    seconds, rounds = (0.3, 5) if quick else (1.0, 9)
    with segue.open(os.path.join(directory, "store-" + shape)) as client:
        loops: dict[str, Callable[[], Iterator[None]]] = {
            "a NumPy loop over arrays in memory": lambda: numpy_loop(data),
            "a DataLoader over arrays in memory": lambda: dataloader_loop(data),
            "files": lambda: segue_loop(data, client, "files", "files"),
            "TFRecord": lambda: segue_loop(data, client, "TFRecord", "tfrecord"),
        }
        rates: dict[str, list[float]] = {name: [] for name in loops}
        running = {name: loop() for name, loop in loops.items()}
        for loop in running.values():
            rate(loop, seconds / 2)
        for _ in range(rounds):
            for name, loop in running.items():
                next(loop)  # rings and queues are full by then
                rates[name].append(rate(loop, seconds))
        for loop in running.values():
            loop.close()  # type: ignore[attr-defined]
    for kind in ("files", "TFRecord"):
        for beside in list(loops)[:2]:
            ratios = [a / b for a, b in zip(rates[kind], rates[beside], strict=True)]
            figure = {
                "part": 2,
                "name": f"a Python loop from {kind}",
                "shape": shape,
                "unit": "batches/s",
                "value": statistics.median(rates[kind]),
                "beside": beside,
                "beside_value": statistics.median(rates[beside]),
                "ratio": statistics.median(ratios),
                "goal_kind": "ratio >=",
                "goal": GOALS[kind],
                "note": f"ratio {min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds; inputs copied "
                "out, both states saved",
            }
            print(json.dumps(figure), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    quick = parser.parse_args().quick
    for shape in SHAPES:
        with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
            measure(shape, quick, directory)


if __name__ == "__main__":
    main()

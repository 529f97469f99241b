"""Part 3: one empty iteration in Python, shape S: next, two state views, two saves, commit.

Nothing is changed: what is saved is the state that came in. The ring is full when a burst of
depth / 2 iterations begins, so that the next batch is always there. Beside it: the two saves by
themselves, as copies between NumPy arrays.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import numpy as np

import segue
from segue.tfrecord import SequenceExampleWriter, encode_sequence_example

ROWS, UNROLL, FLOATS, STATE = 32, 20, 64, 128
DEPTH = 16
REFILL = 0.01  # seconds in which the server fills half a ring, many times over
GOAL = 15.0  # microseconds


def write_data(path: str) -> None:
    """Sequences of 1,000 steps: rows change once in 50 batches."""
    values = np.random.default_rng(1).random((1000, FLOATS), np.float32)
    with SequenceExampleWriter(path) as writer:
        data = encode_sequence_example({"x": values})
        for _ in range(ROWS):
            writer.write_record(data)


def open_stream(client: segue.Client, path: str) -> segue.Stream:
    return client.stream(
        "bench",
        source=segue.TFRecord(path),
        sequences={"x": segue.Feature("float32", [FLOATS])},
        states={"h": segue.State("float32", [STATE]), "c": segue.State("float32", [STATE])},
        num_unroll=UNROLL,
        batch_size=ROWS,
        shuffle=True,
        epochs=None,
        depth=DEPTH,
    )


def iterate(loader: segue.Loader, bursts: int) -> list[int]:
    """Nanoseconds of each iteration."""
    clock = time.perf_counter_ns
    times = []
    batches = iter(loader)
    for _ in range(bursts):
        time.sleep(REFILL)
        for _ in range(DEPTH // 2):
            start = clock()
            batch = next(batches)
            h, c = batch.state("h"), batch.state("c")
            batch.save_state("h", h)
            batch.save_state("c", c)
            batch.commit()
            times.append(clock() - start)
    return times


def copy_states(repetitions: int) -> list[int]:
    """Nanoseconds of two copies of the size of the states, each time between other arrays."""
    clock = time.perf_counter_ns
    arrays = np.ones((2 * DEPTH + 2, ROWS, STATE), np.float32)
    times = []
    for i in range(repetitions):
        k = 2 * (i % DEPTH)
        start = clock()
        np.copyto(arrays[k + 2], arrays[k])
        np.copyto(arrays[k + 3], arrays[k + 1])
        times.append(clock() - start)
    return times


def at(times: list[int], share: float) -> float:
    """Microseconds below which `share` of the times lie."""
    return sorted(times)[int(share * len(times))] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    bursts = 100 if parser.parse_args().quick else 500
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
        path = os.path.join(directory, "data.tfrecord")
        write_data(path)
        with segue.open(os.path.join(directory, "store")) as client:
            with open_stream(client, path) as stream, stream.loader(start="fresh") as loader:
                iterate(loader, 10)
                waited = loader.waited
                times = iterate(loader, bursts)
                waited = loader.waited - waited
        copies = copy_states(len(times))
    figure = {
        "part": 3,
        "name": "Python: one empty iteration",
        "shape": "S",
        "unit": "us",
        "value": at(times, 0.5),
        "beside": "two copies of the states' size, NumPy",
        "beside_value": at(copies, 0.5),
        "ratio": at(times, 0.5) / at(copies, 0.5),
        "goal_kind": "value <=",
        "goal": GOAL,
        "note": f"p99 {at(times, 0.99):.1f} us, {len(times)} iterations, waited {waited:.3f} s",
    }
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()

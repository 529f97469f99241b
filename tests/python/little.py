"""A little stream for worker programs of the tests: what they open, do, and have seen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.tfrecord import SequenceExampleWriter

LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5, 6, 2, 11, 4)


def write(directory: Path) -> None:
    """The data set in `directory`."""
    rng = np.random.default_rng(5)
    with SequenceExampleWriter(directory / "data.tfrecord") as writer:
        for length in LENGTHS:
            writer.write({"x": rng.standard_normal(length).astype(np.float32)}, {})


def open_stream(client: segue.Client, directory: Path, **options: Any) -> segue.Stream:
    """The stream over it: two lanes of two rows."""
    return client.stream(
        source=segue.TFRecord(directory / "data.tfrecord"),
        sequences={"x": segue.Feature("float32")},
        states={"h": segue.State("float32", [3])},
        **{"name": "train", "num_unroll": 2, "batch_size": 2, "lanes": 2, **options},
    )


def pid_of(store: Path) -> int:
    """The process that serves a directory, by what it has left there."""
    return int((store / "server.pid").read_text().split()[0])


def has_ended(pid: int) -> bool:
    """Whether a process that was killed has let go of all; nobody may have waited for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    # The first thread may be through before the others, which still have files and their locks.
    state, threads = stat[0], int(stat[17])
    return state == "Z" and threads <= 1


def work(batch: segue.Batch) -> None:
    """Saves states that depend on all that the batch holds."""
    after = 0.5 * batch.state("h") + batch.sequences["x"].sum(1)[:, None] + np.float32(batch.step)
    batch.save_state("h", after.astype(np.float32))


def seen(batch: segue.Batch) -> str:
    """Where it comes in the stream, and a digest of all that it holds."""
    arrays = (batch.sequences["x"], batch.state("h"), batch.length, batch.epoch)
    content = b"".join(array.tobytes() for array in arrays) + b"".join(batch.key)
    return f"{batch.lane}.{batch.step}.{hashlib.sha256(content).hexdigest()[:16]}"


def rest(loader: segue.Loader) -> list[str]:
    """Works through what is left."""
    trace = []
    for batch in loader:
        trace.append(seen(batch))
        work(batch)
    return trace

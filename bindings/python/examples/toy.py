"""The toy task: random values, and labels that flip once their running sum passes n / 4.

Every sequence of n steps has the features ``token`` (float, uniform in [0, 1)) and ``label``
(integer, 0 until the sum of the tokens so far exceeds a quarter of n, then 1), and the context
feature ``steps`` (n).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Sequence:
    """One written sequence: its record's key and its number of steps."""

    key: str
    steps: int


def make(count: int, shortest: int, longest: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """`count` sequences of `shortest` to `longest` steps (both possible): token [n], label [n]."""
    rng = np.random.default_rng(seed)
    for steps in rng.integers(shortest, longest + 1, count):
        token = rng.random(steps, dtype=np.float32)
        label = np.cumsum(token, dtype=np.float64) > steps / 4
        yield {"token": token, "label": label.astype(np.int64)}


def write(
    directory: Path, name: str, files: int, count: int, shortest: int, longest: int, seed: int
) -> list[Sequence]:
    """Writes ``<directory>/<name>-<i>.tfrecord``; returns what lies in them, in order.

    The sequences are spread over `files` files of (nearly) equal count.
    """
    from segue.tfrecord import SequenceExampleWriter  # the rest works without the package

    directory.mkdir(parents=True, exist_ok=True)
    examples = make(count, shortest, longest, seed)
    written = []
    for i in range(files):
        path = directory / f"{name}-{i}.tfrecord"
        with SequenceExampleWriter(path) as writer:
            for _ in range(count * i // files, count * (i + 1) // files):
                sequences = next(examples)
                steps = len(sequences["token"])
                offset = writer.write(sequences, {"steps": steps})
                written.append(Sequence(f"{path.name}:{offset}", steps))
    return written

"""The (weights, token) pair: one file that holds both, replaced as a whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Checkpoint:
    """A point that training can go back to.

    rounds : rounds trained before it.
    arrays : weights and the optimizer's arrays, by name.
    tokens : what `loader.state_dict()` gave, of all lanes.
    """

    rounds: int
    arrays: Mapping[str, np.ndarray]
    tokens: Mapping[str, bytes]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes `path`. A crash at any moment leaves the file of before, or the new one."""
    parts: dict[str, Any] = {"rounds": np.int64(checkpoint.rounds)}
    for name, array in checkpoint.arrays.items():
        parts[f"array/{name}"] = array
    for name, token in checkpoint.tokens.items():
        parts[f"token/{name}"] = np.frombuffer(token, np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **parts)
    unfinished = path.with_name(path.name + ".new")
    with open(unfinished, "wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> Checkpoint:
    """Reads what `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        parts: dict[str, dict[str, np.ndarray]] = {"array": {}, "token": {}}
        for name in file.files:
            if name != "rounds":
                kind, _, rest = name.partition("/")
                parts[kind][rest] = file[name]
        return Checkpoint(
            rounds=int(file["rounds"]),
            arrays=parts["array"],
            tokens={name: array.tobytes() for name, array in parts["token"].items()},
        )

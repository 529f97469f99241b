#!/usr/bin/env python3
"""Three samples of batch_sequences_with_states, as a page about TensorFlow's has them, on segue.

That page calls the function with sequences and states alone, and with arguments that the original
never had (`dtype`, `maximum_length`, `state_size`, `state_transformations`): segue has them. What
it leaves out has to be said: how many steps a segment has, how many rows a batch, and what the
model makes of the states, which are not returned but saved with each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import segue

SEQUENCES: list[Any] = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10]]
OPTIONS: dict[str, Any] = {"num_unroll": 2, "batch_size": 4, "dtype": "int32", "maximum_length": 4}


def examples(sequences: Iterable[Any]) -> list[segue.Example]:
    return [
        segue.Example({"tokens": np.array(steps)}, key=f"sequence {number}")
        for number, steps in enumerate(sequences)
    ]


def basic(size: int = 128) -> dict[bytes, np.ndarray]:
    """Sequences of several lengths; the state of each sums up its tokens. Returns the last ones."""
    final: dict[bytes, np.ndarray] = {}
    with segue.batch_sequences_with_states(
        examples(SEQUENCES), initial_states={"state": np.zeros(size, np.float32)}, **OPTIONS
    ) as batches:
        for batch in batches:
            tokens = batch.sequences["tokens"]
            state = batch.state("state") + tokens.sum(axis=1, dtype=np.float32)[:, None]
            batch.save_state("state", state)
            print("Batched sequences:", tokens.tolist())
            for row in np.flatnonzero(batch.sequence + 1 == batch.sequence_count):
                final[batch.next_key[row].removeprefix(b"STOP:")] = state[row]
    print("Final states:", {key.decode(): state[0].item() for key, state in final.items()})
    return final


def dense(size: int, units: int, seed: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """A layer of so many units, behind which what is negative is zero."""
    weights = np.random.default_rng(seed).normal(size=(size, units)).astype(np.float32)
    return lambda state: np.maximum(state @ weights, 0)


def transformed(units: int, size: int = 128) -> list[np.ndarray]:
    """A layer is applied to the states between batches. It has to leave their shape as it is."""
    states = []
    with segue.batch_sequences_with_states(
        examples(SEQUENCES), state_size=size, state_transformations=[dense(size, units)], **OPTIONS
    ) as batches:
        for batch in batches:
            states.append(batch.state("state"))
            batch.save_state("state", states[-1] + 1)
    return states


def refused() -> list[str]:
    """What does not fit is an error, also a ValueError, that says what, where and what to do."""
    zeros = {"state": np.zeros(128, np.float32)}
    calls: list[Callable[[], object]] = [
        # Too long: there is on_too_long="truncate".
        lambda: run(SEQUENCES, initial_states=zeros, maximum_length=3),
        # Not of one dimension, as the first one is.
        lambda: run([[1, 2], [[3, 4], [5, 6]]], initial_states=zeros),
        # Not whole numbers.
        lambda: run([[0.5, 1.5]], initial_states=zeros),
        # A state of another size than it is to have.
        lambda: run(SEQUENCES, initial_states={"state": np.zeros(64, np.float32)}, state_size=128),
        # A layer of the page's 64 units makes of 128 values 64.
        lambda: transformed(64),
    ]
    said = []
    for call in calls:
        try:
            call()
        except segue.Error as error:
            print(f"Error during batching: {type(error).__name__}: {error}")
            said.append(str(error))
    return said


def run(sequences: Iterable[Any], **options: Any) -> None:
    with segue.batch_sequences_with_states(examples(sequences), **OPTIONS | options) as batches:
        for batch in batches:
            batch.save_state("state", batch.state("state"))


if __name__ == "__main__":
    basic()
    transformed(128)
    refused()

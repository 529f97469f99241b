"""examples/samples.py: samples of a page about TensorFlow's function, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import segue

sys.path.insert(0, str(Path(__file__).parents[2] / "bindings" / "python" / "examples"))

import samples  # noqa: E402


def test_batches_and_final_states(capsys: pytest.CaptureFixture[str]) -> None:
    final = samples.basic()
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "Batched sequences: [[1, 2], [4, 5], [6, 7], [10, 0]]",
        "Batched sequences: [[3, 0], [8, 9]]",
    ]
    sums = {b"sequence %d" % n: float(sum(steps)) for n, steps in enumerate(samples.SEQUENCES)}
    assert {key: float(state[0]) for key, state in final.items()} == sums
    assert all(state.shape == (128,) and state.dtype == np.float32 for state in final.values())


def test_a_layer_between_batches() -> None:
    first, second = samples.transformed(128)
    assert first.shape == (4, 128) and not first.any()
    saved = np.ones((2, 128), np.float32)
    np.testing.assert_allclose(second, samples.dense(128, 128)(saved), rtol=1e-4, atol=1e-4)
    assert (second > 0).any() and (second == 0).any()


def test_what_it_catches() -> None:
    long, rank, lost, size, units = samples.refused()
    assert long.startswith("item 2: sequences: 4 steps are more than maximum_length = 3: ")
    assert rank.startswith("item 1: sequences['tokens']: expected int32 of shape (steps,)")
    assert lost.startswith("item 0: sequences['tokens']: ") and "float64" in lost
    assert size.startswith("state_size: (128,) of 'state', and initial_states has (64,)")
    assert "expected float32 of shape (4, 128), got float32 of shape (4, 64)" in units


def test_too_long_is_truncated() -> None:
    options = samples.OPTIONS | {"maximum_length": 3, "on_too_long": "truncate"}
    with segue.batch_sequences_with_states(
        samples.examples(samples.SEQUENCES), state_size=1, **options
    ) as batches:
        seen = []
        for batch in batches:
            seen.append((batch.sequences["tokens"].tolist(), batch.length.tolist()))
            batch.save_state("state", batch.state("state"))
    assert seen == [([[1, 2], [4, 5], [6, 7], [10, 0]], [2, 2, 2, 1]), ([[3, 0], [8, 0]], [1, 1])]

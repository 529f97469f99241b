"""The demo's LSTM: gradient, masking, carried states, repeatability, learning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "bindings" / "python" / "examples"
sys.path.insert(0, str(EXAMPLES))

from lstm import Adam, Classifier  # noqa: E402


def batch(rng, rows=3, unroll=5, inputs=2, hidden=4):
    length = rng.integers(0, unroll + 1, rows)
    return {
        "x": rng.normal(size=(rows, unroll, inputs)),
        "label": rng.integers(0, 2, (rows, unroll)),
        "mask": np.arange(unroll) < length[:, None],
        "h": rng.normal(size=(rows, hidden)),
        "c": rng.normal(size=(rows, hidden)),
    }


def test_gradient_against_finite_differences():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng = np.random.default_rng(seed)
    model = Classifier(2, 4, memory=10, seed=1, dtype="float64")
    data = batch(rng)
    analytic = model.gradient(**data).gradient
    step = 1e-6
    numeric = np.empty_like(analytic)
    for i in range(len(model.flat)):
        kept = model.flat[i]
        model.flat[i] = kept + step
        up = model.gradient(**data, backward=False).loss
        model.flat[i] = kept - step
        down = model.gradient(**data, backward=False).loss
        model.flat[i] = kept
        numeric[i] = (up - down) / (2 * step)
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-7)


def test_padded_steps_and_empty_rows_change_nothing():
    rng = np.random.default_rng(3)
    model = Classifier(2, 4, memory=10, seed=1)
    data = batch(rng)
    data["mask"][0] = False
    one = model.gradient(**data)
    data["x"] = np.where(data["mask"][..., None], data["x"], 9.0)
    data["label"] = np.where(data["mask"], data["label"], 1)
    other = model.gradient(**data)
    assert one.loss == other.loss and one.correct == other.correct
    assert one.steps == data["mask"].sum()
    assert one.gradient.tobytes() == other.gradient.tobytes()


def test_carried_states_make_segments_one_sequence():
    rng = np.random.default_rng(4)
    model = Classifier(2, 4, memory=10, seed=1, dtype="float64")
    data = batch(rng, unroll=6)
    data["mask"][...] = True
    whole = model.gradient(**data, backward=False)
    h, c, loss, correct = data["h"], data["c"], 0.0, 0
    for k in range(3):
        steps = slice(2 * k, 2 * k + 2)
        x, label, mask = (data[name][:, steps] for name in ("x", "label", "mask"))
        part = model.gradient(x, label, mask, h, c, backward=False)
        h, c, loss, correct = part.h, part.c, loss + part.loss, correct + part.correct
    np.testing.assert_allclose([loss, correct], [whole.loss, whole.correct])
    np.testing.assert_allclose(h, whole.h)
    np.testing.assert_allclose(c, whole.c)


def test_adam_by_hand():
    parameters = np.array([1.0, -1.0])
    adam = Adam(parameters, rate=0.1, clip=5.0)
    adam.step(np.array([3.0, -4.0]))  # norm 5: not clipped; the first step is the rate's sign
    np.testing.assert_allclose(parameters, [0.9, -0.9], rtol=1e-6)
    clipped = Adam(np.zeros(2), rate=0.1, clip=1.0)
    clipped.step(np.array([30.0, -40.0]))
    np.testing.assert_allclose(clipped.mean, [0.06, -0.08])


PROGRAM = """
import hashlib, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from lstm import Adam, Classifier
model = Classifier(2, 32, memory=100, seed=5)
adam = Adam(model.flat, 0.01)
rng = np.random.default_rng(6)
h = c = np.zeros((16, 32), np.float32)
for _ in range(30):
    x = rng.random((16, 10, 2), dtype=np.float32)
    part = model.gradient(x, x[..., 0] > 0.5, np.ones((16, 10), bool), h, c)
    h, c = part.h, part.c
    adam.step(part.gradient)
assert model.flat.dtype == adam.mean.dtype == adam.square.dtype == h.dtype == np.float32
print(hashlib.sha256(model.flat.tobytes() + h.tobytes() + c.tobytes()).hexdigest(), part.loss)
"""


def test_two_processes_agree_bit_for_bit():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(EXAMPLES)]
    outputs = [
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1] and len(outputs[0].split()[0]) == 64


def test_it_learns_across_segments():
    """The label is the sign of the first step, which only the carried state can tell."""
    rng = np.random.default_rng(8)
    model = Classifier(1, 8, memory=20, seed=2)
    adam = Adam(model.flat, 0.02)
    for _ in range(150):
        x = rng.normal(size=(32, 8, 1)).astype(np.float32)
        label = np.repeat(x[:, :1, 0] > 0, 8, axis=1)
        h = c = np.zeros((32, 8), np.float32)
        correct = 0
        for k in range(2):
            steps = slice(4 * k, 4 * k + 4)
            mask = np.ones((32, 4), bool)
            part = model.gradient(x[:, steps], label[:, steps], mask, h, c)
            h, c, correct = part.h, part.c, correct + part.correct
            adam.step(part.gradient / np.float32(part.steps))
    assert correct > 0.9 * 32 * 8

"""README's task with JAX: a gated linear recurrence, as state-space models have, by an associative scan.

    python bindings/python/examples/jax_scan.py

Kill it, begin it again: it goes on from jax_scan.pkl. It writes there, and to runs/jax_scan, in the
directory where it runs. curves.py draws its loss.
"""

import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np

import segue.jax

CELLS, RATE = 32, 0.03
rng = np.random.default_rng(0)


def sequence(steps):  # the task: what was the value at the last mark?
    value, mark = rng.choice([-1.0, 1.0], steps), rng.random(steps) < 0.05
    last = np.maximum.accumulate(np.where(mark, np.arange(steps), 0))
    return {"x": np.stack([value, mark], 1).astype("float32"), "y": value[last].astype("float32")}


def network(w, x, h):
    """From x [rows, steps, 2] and the state h [rows, CELLS]: what is said at each step, and the last state."""
    keep = jax.nn.sigmoid(x @ w["keep"] + w["bias"])
    new = (1 - keep) * jnp.tanh(x @ w["new"])
    # h[t] = keep[t] * h[t - 1] + new[t], of all steps at once
    kept, added = jax.lax.associative_scan(
        lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (keep, new), axis=1
    )
    hs = kept * h[:, None] + added
    return hs @ w["out"], hs[:, -1]


@jax.jit
def train_step(w, m, v, step, x, y, mask, h):
    """One step of Adam, by the mean over the steps that count."""

    def loss(w):
        said, last = network(w, x, h)
        return jnp.where(mask, jnp.square(said - y), 0).sum() / jnp.maximum(mask.sum(), 1), last

    (value, last), g = jax.value_and_grad(loss, has_aux=True)(w)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    a, b = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
    w = jax.tree.map(lambda w, m, v: w - RATE * (m / a) / (jnp.sqrt(v / b) + 1e-8), w, m, v)
    return w, m, v, value, last


draw = jax.random.normal(jax.random.key(0), (3, 2, CELLS))
w = {"keep": draw[0], "new": draw[1], "bias": jnp.ones(CELLS), "out": draw[2, 0] / CELLS}
zeros = jax.tree.map(jnp.zeros_like, w)
trained = (w, zeros, zeros)

stream = segue.open("runs/jax_scan").stream(
    "train", segue.Examples([sequence(steps) for steps in rng.integers(50, 500, 300)]),
    {"x": segue.Feature("float32", 2), "y": segue.Feature("float32")},
    states=segue.states_like({"h": jnp.zeros((1, CELLS))}), num_unroll=20, batch_size=32, epochs=4, tail="pad",
)  # fmt: skip
saved = None
if os.path.exists("jax_scan.pkl"):
    with open("jax_scan.pkl", "rb") as file:
        saved = pickle.load(file)
loader = segue.jax.wrap(stream.loader(start=None if saved else "fresh"))
if saved:  # weights, what Adam keeps, position and states of one moment
    trained = saved["trained"]
    loader.load_state_dict(saved["loader"])


def save():
    with open("jax_scan.new", "wb") as file:
        pickle.dump({"trained": jax.tree.map(np.asarray, trained), "loader": loader.state_dict()}, file)
    os.replace("jax_scan.new", "jax_scan.pkl")


for batch in loader:
    *trained, loss, h = train_step(
        *trained, batch.step, batch["x"], batch["y"], batch.mask, batch.states["h"]
    )
    batch.states = {"h": h}  # what each row's sequence goes on with
    if batch.step % 100 == 99:
        print(f"step {batch.step + 1} of {len(loader)}: loss {loss:.3f}", flush=True)
        save()
save()

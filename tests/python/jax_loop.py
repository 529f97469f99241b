"""The loop that a person writes who has read JAX's tutorial; says how far each of them came.

    python jax_loop.py DIRECTORY TIMES
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import segue
from segue.tfrecord import SequenceExampleWriter

ROWS, UNROLL, WIDTH, CELLS = 32, 64, 16, 64
BATCHES = 200
GIVEN: dict[str, Callable[[Any], Any]] = {
    "a copy": lambda array: jnp.asarray(np.array(array)),
    "asarray": jnp.asarray,
    "device_put": jax.device_put,
    "as it is": lambda array: array,
}
rng = np.random.default_rng(1)
WEIGHTS = [
    jnp.asarray(rng.standard_normal((n, CELLS)) / 9, dtype="float32") for n in (WIDTH, CELLS)
]


def step(x: Any, h: Any) -> Any:
    into, over = WEIGHTS
    return jnp.tanh(h @ over + (x @ into).sum(1))


def train(stream: segue.Stream, step: Any, given: Callable[[Any], Any]) -> tuple[int, str, str]:
    """How many batches came, a digest of the states, and what was wrong."""
    count, digest, wrong = 0, hashlib.sha256(), ""
    loader = stream.loader(start="fresh")
    try:
        for batch in loader:
            x, h = given(batch.sequences["x"]), given(batch.state("h"))
            h = step(x, h)
            batch.save_state("h", np.asarray(h))
            count += 1
            digest.update(np.asarray(h).tobytes())
            if count == BATCHES:
                break
    except segue.Error as error:
        wrong = f"{type(error).__name__}: {error}"
    return count, digest.hexdigest(), wrong


def main(directory: Path, times: int) -> dict[str, list[dict[str, Any]]]:
    with SequenceExampleWriter(directory / "data.tfrecord") as writer:
        for length in rng.integers(UNROLL, 10 * UNROLL, 2 * ROWS):
            writer.write({"x": rng.standard_normal((length, WIDTH)).astype(np.float32)}, {})
    loops: dict[str, list[dict[str, Any]]] = {}
    steps = {"not jitted": step, "jitted": jax.jit(step)}
    with segue.open(directory / "store") as client:
        for depth, how in itertools.product((2, 4), steps):
            want = ""
            for given, convert in GIVEN.items():
                name = f"{how}, {given}, depth {depth}"
                loops[name] = []
                stream = client.stream(
                    name,
                    source=segue.TFRecord(directory / "data.tfrecord"),
                    sequences={"x": segue.Feature("float32", [WIDTH])},
                    states={"h": segue.State("float32", [CELLS])},
                    num_unroll=UNROLL, batch_size=ROWS, epochs=None, depth=depth,
                )  # fmt: skip
                for _ in range(times):
                    begun = time.monotonic()
                    count, digest, wrong = train(stream, steps[how], convert)
                    want = want or digest
                    loops[name].append(
                        {
                            "batches": count,
                            "right": digest == want,
                            "wrong": wrong,
                            "seconds": time.monotonic() - begun,
                        }
                    )
    return loops


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))

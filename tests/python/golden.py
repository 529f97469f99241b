"""What a released version has left on disk: files in tests/golden/VERSION, which later versions must read.

`python tests/python/golden.py` writes those of the version that is installed (with the `segue` of SEGUE_PROGRAM or
PATH). They are never changed once it is released; test_golden.py reads those of all versions.

- data.tfrecord: twelve records of one feature
- train.segue: a sequence file of some types, with context, initial states, keys and a total length
- variable.segue: one with features that are ragged, or bytes, and initial states
- x.npy: a table of arrays
- store.backup: a portable backup of a store, in the midst of a stream of two lanes for each of STREAMS
- STREAM-lane-L.token: of STEP, which the store holds, too
- expected.json: of each stream where its lanes stand, final states, and what comes from there, and from the tokens
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import segue

GOLDEN = Path(__file__).parents[1] / "golden"
LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5, 6, 2, 11, 4)
STEP, STAND = 3, 5  # the step of the tokens, and where the store is left
INIT = np.array([0.5, -1, 2], "float32")


def write_data(path: Path) -> None:
    with segue.tfrecord.SequenceExampleWriter(path) as writer:
        for number, length in enumerate(LENGTHS):
            x = np.arange(length, dtype="float32") + 100 * number
            writer.write({"x": x}, {"id": b"record %d" % number})


VARIABLE = {"w": segue.Feature("int32", ragged=True), "text": segue.Feature("bytes")}
TITLE = {"title": segue.Feature("bytes")}


def write_variable(path: Path) -> None:
    with segue.FileWriter(path, VARIABLE, TITLE, {"h": segue.State("float32", [3])}) as writer:
        for number, length in enumerate(LENGTHS):
            counts = (np.arange(length) + number) % 4
            offsets = np.concatenate([[0], np.cumsum(counts)])
            w = segue.Ragged(np.arange(offsets[-1], dtype="int32") - 50 * number, offsets)
            text = [b"\xff" * (k % 3) + b"step %d" % k for k in range(length)]
            writer.write(
                {"w": w, "text": text}, {"title": b"sequence %d" % number},
                initial_states={"h": INIT * number}, key=b"file %d" % number,
            )  # fmt: skip


def write_table(path: Path) -> None:
    np.save(path, np.arange(2 * sum(LENGTHS), dtype="int16").reshape(-1, 2) * 3)


def open_train(client: segue.Client, directory: Path) -> segue.Stream:
    return client.stream(
        "train", segue.TFRecord(directory / "data.tfrecord", key="id", allow_surplus=True),
        sequences={"x": segue.Feature("float32")},
        states={"h": segue.State("float32", [3], init=INIT), "n": segue.State("int64")},
        num_unroll=2, batch_size=2, lanes=2, shuffle=True, seed=11, epochs=2, keep_final=True,
    )  # fmt: skip


def open_mix(client: segue.Client, directory: Path) -> segue.Stream:
    """Two parts that have features of any length, and initial states of their own."""
    source = segue.Files(directory / "variable.segue")
    return client.stream(
        "mix", segue.Mix({"a": segue.Part(source, 3, epochs=2), "b": segue.Part(source, 1, epochs=None)}),
        VARIABLE, TITLE, {"h": segue.State("float32", [3], init="data"), "n": segue.State("int64")},
        num_unroll=3, batch_size=2, lanes=2, shuffle=True, seed=5,
    )  # fmt: skip


def open_arrays(client: segue.Client, directory: Path) -> segue.Stream:
    names = [f"row {number}" for number in range(len(LENGTHS))]
    return client.stream(
        "arrays", segue.Arrays.from_columns({"x": directory / "x.npy"}, lengths=LENGTHS, names=names),
        {"x": segue.Feature("float32", [2])},
        states={"h": segue.State("float32", [3], init=INIT), "n": segue.State("int64")},
        num_unroll=2, batch_size=2, lanes=2, epochs=2,
    )  # fmt: skip


STREAMS = {"train": open_train, "mix": open_mix, "arrays": open_arrays}


def work(batch: segue.Batch, ragged: tuple[str, ...] = ()) -> str:
    """Saves states that depend on all that came, and returns a digest of that."""
    h, n = batch.state("h"), batch.state("n")
    came = [*batch.sequences.values()]
    for name in ragged:
        came += batch.ragged(name)
    about = (batch.length, batch.total_length, batch.epoch, batch.insertion_index, batch.part)
    content = b"".join(array.tobytes() for array in (*came, h, n, *about)) + b"\n".join(batch.key)
    seen = sum(int(array.sum()) for array in came) % 1024 + batch.length[:, None]
    batch.save_state("h", (h / 2 + seen).astype("float32"))
    batch.save_state("n", n + batch.length)
    return f"{batch.lane}.{batch.step}.{hashlib.sha256(content).hexdigest()[:16]}"


def ragged_of(loader: segue.Loader) -> tuple[str, ...]:
    return (*VARIABLE, *TITLE) if loader.stream.name == "mix" else ()


def rest(loader: segue.Loader) -> list[str]:
    return [work(batch, ragged_of(loader)) for batch in loader]


def go(loader: segue.Loader, step: int) -> dict[str, bytes]:
    """Both lanes commit up to `step`: the tokens of it."""
    for batches in loader.rounds():
        for batch in batches:
            work(batch, ragged_of(loader))
        if batches[0].step + 1 == step:
            return loader.state_dict()
    raise AssertionError("it has ended")


def stored(client: segue.Client, name: str) -> dict[str, Any]:
    """What is to be found in the store of a stream: positions, checkpoints, and states by key."""
    (stream,) = (one for one in client.inspect()["streams"] if one["name"] == name)
    states: dict[str, Any] = {}
    for number in range(len(LENGTHS)):
        key = {"train": "record", "mix": "file", "arrays": "row"}[name] + f" {number}"
        try:
            found = client.get(key, name)["found"]
        except segue.NotFoundError:
            continue
        states[key] = [[one["kind"], one["states"]] for one in found]
    return {
        "steps": [lane["step"] for lane in stream["lanes"]],
        "checkpoints": [[at["step"] for at in lane["checkpoints"]] for lane in stream["lanes"]],
        "states": states,
    }


# ---- Sequence files ---------------------------------------------------------------------------

SEQUENCES = {
    "x": segue.Feature("float32", [2]), "small": segue.Feature("int16"),
    "half": segue.Feature("float16", [3]), "flag": segue.Feature("bool"),
}  # fmt: skip
CONTEXT = {"who": segue.Feature("uint64")}
STATES = {"h": segue.State("float64", [2])}


def sequence(number: int) -> dict[str, Any]:
    """Sequence `number` of the file, as arguments of FileWriter.write."""
    steps = (3, 1, 1500)[number]  # the last one: columns of several blocks
    at = np.arange(steps)
    return {
        "sequences": {
            "x": np.stack([at + number / 4, -at], 1).astype("float32"),
            "small": (at * 7 - 300 * number).astype("int16"),
            "half": np.repeat(at[:, None] % 64 / 8, 3, 1).astype("float16"),
            "flag": at % 3 == number,
        },
        "context": {"who": np.uint64(2**63 + number)},
        "initial_states": {"h": np.array([number, 1 / 8])},
        "key": (b"first", "é".encode(), b"\x00\xff")[number],
        "length": (None, 2, None)[number],
    }


def write_file(path: Path) -> None:
    with segue.FileWriter(path, SEQUENCES, CONTEXT, STATES) as writer:
        for number in range(3):
            writer.write(**sequence(number))


# ---- Writing ----------------------------------------------------------------------------------


def write(out: Path, program: str) -> None:
    write_data(out / "data.tfrecord")
    write_file(out / "train.segue")
    write_variable(out / "variable.segue")
    write_table(out / "x.npy")
    expected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        store = Path(directory) / "store"
        client = stack.enter_context(segue.open(store, program=program))
        loaders, tokens = {}, {}
        for name, open_stream in STREAMS.items():
            loader = stack.enter_context(stack.enter_context(open_stream(client, out)).loader())
            tokens[name] = go(loader, STEP)
            go(loader, STAND)
            loader.flush()
            expected[name] = stored(client, name)
            loaders[name] = loader
        command = [program, "backup", "--portable", store, out / "store.backup"]
        subprocess.run(command, check=True)
        for name, loader in loaders.items():
            expected[name]["from_store"] = rest(loader)
            loader.load_state_dict(tokens[name])
            expected[name]["from_tokens"] = rest(loader)
            for lane, token in tokens[name].items():
                (out / f"{name}-{lane.replace('/', '-')}.token").write_bytes(token)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    place = GOLDEN / segue.__version__
    found = os.environ.get("SEGUE_PROGRAM") or shutil.which("segue")
    if place.exists() or not found:
        sys.exit(f"{place} is there: nobody changes it" if found else "set SEGUE_PROGRAM")
    with tempfile.TemporaryDirectory(prefix="segue-golden-") as directory:
        write(Path(directory), found)  # the store holds the paths of data
        shutil.copytree(directory, place)
    print(*sorted(f"{file.stat().st_size:8} {file}" for file in place.iterdir()), sep="\n")

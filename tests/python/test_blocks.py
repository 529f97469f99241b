"""Each block of Python in README and the guides runs: those that are parts of a program, with the rest of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Whole pages of test_pages.py, and what nothing here can run: Ray, and TensorFlow 1.
WHOLE, NOT_RUN = {"pytorch.md", "jax.md"}, ("@ray.remote", "files = tf.train.")

PRELUDE = """
import os, sys
import numpy as np
import segue
import segue.torch
import torch
from segue.tfrecord import SequenceExampleWriter
from segue import Feature, State

sequences, states = {"x": Feature("float32", 3)}, {"h": State("float32", 4)}

def sequence(steps=50):
    return {"x": np.ones((steps, 3), "float32")}

dataset = [sequence(), sequence(30)]
for directory in ("data", "speech", "music"):
    os.makedirs(directory, exist_ok=True)
    segue.convert(dataset, directory + "/made.segue")
    with SequenceExampleWriter(directory + "/made.tfrecord") as writer:
        writer.write(dataset[0], {})
source, client = segue.Files("data/made.segue"), segue.open("store")

def filled(name="train", **options):
    return client.stream(name, source, sequences, states=states, num_unroll=20, batch_size=2, **options)

def train(batch, *_):
    batch.states = batch.states
"""

# Runs each program in a process of its own, forked from one that has imported what takes long.
RUN = """
import json, os, sys
import numpy, segue.torch, torch
for place, program in json.load(sys.stdin):
    child = os.fork()
    if not child:
        os.chdir(place)
        exec(compile(program, place, "exec"), {"__name__": "__main__"})
        sys.exit()
    if os.waitpid(child, 0)[1]:
        sys.exit(program)
"""

# By the first line of a block: what stands before it, and behind it, in the program that it is a part of.
PARTS = {
    'segue.Arrays({"x": "train/*.npy"': ("""
os.makedirs("train", exist_ok=True)
np.save("train/a.npy", np.ones((5, 3), "float32"))
labels, (speech, music) = [np.zeros(5)], [segue.Files(name + "/*.segue") for name in ("speech", "music")]
""", ""),
    "def recordings():\n    for name in names:": ("""
names = ["a", "b"]
load, label_of = (lambda name: np.ones((7, 3), "float32")), (lambda name: np.int64(1))
if os.path.exists("data/train.segue"): os.remove("data/train.segue")
""", "assert os.path.getsize('data/train.segue')"),
    'stream = client.stream("train", segue.Examples(dataset)': ("", "assert len(list(stream.loader())) == 3"),
    "# A folder of .npy": ("""
os.makedirs("train", exist_ok=True), os.makedirs("speech/one", exist_ok=True)
np.save("train/a.npy", np.ones((5, 3), "float32")), np.save("table.npy", np.ones((6, 3), "float32"))
np.save("patient.npy", np.array([1, 1, 2, 2, 2, 3]))
labels, targets, steps_of_each = [np.zeros(5)], np.arange(6), [2, 4]
import struct, wave
np.arange(9, dtype="int32").tofile("corpus.bin")
with open("corpus.idx", "wb") as file:
    file.write(b"MMIDIDX\\0\\0" + struct.pack("<QBQQ", 1, 4, 2, 3))
    file.write(np.array([4, 5], "int32").tobytes() + np.array([0, 16], "int64").tobytes())
    file.write(np.array([0, 1, 2], "int64").tobytes())
with wave.open("speech/one/a.wav", "wb") as file:
    file.setparams((1, 2, 8000, 0, "NONE", "")), file.writeframes(bytes(200))
""", ""),
    "source = segue.Mix({": ("", """
stream = client.stream("mixed", source, sequences, num_unroll=20, batch_size=1)
assert next(iter(stream.loader())).part is not None
"""),
    'stream = client.stream("live", segue.Push(producers=2)': ("""
episodes, actor, state_of = 2, None, lambda actor: b"cursor"
play = lambda number: np.ones((30, 3), "float32")
""", """
stream.producer("actor-1").close()
assert sum(int(batch.length.sum()) for batch in stream.loader()) == 60
"""),
    "for step, batches in enumerate(loader.rounds()):": ("""
sizes, loader = {1: 1}, filled("sizes", epochs=3).loader()
real, seen = loader.rounds, []
def rounds():
    for batches in real():
        seen.append(batches[0].batch_size), [train(batch) for batch in batches]
        yield batches
loader.rounds = rounds
""", "assert seen[:2] == [2, 1], seen"),
    'states = client.states("train")': ("""
both = {"h": State("float32", 4), "c": State("float32", 2)}
kept = client.stream("train", segue.TFRecord("data/*.tfrecord"), sequences, states=both, num_unroll=20, batch_size=1, keep_final=True)
h0, c0 = np.ones(4, "float32"), np.zeros(2, "float32")
states = client.states("train")
for key in ("data.tfrecord:4096", "data.tfrecord:8192"):
    states.put(key, {"h": h0, "c": c0})
""", "assert [found.states['h'].tolist() for _, found in states.items()] == [h0.tolist()]"),
    "from segue.torch import static_state_saving_rnn": ("""
stream = client.stream(
    "cells", segue.Arrays({"token": [np.ones(30, "float32")]}), {"token": Feature("float32")},
    states={"h": State("float32", 64), "c": State("float32", 64)}, num_unroll=20, batch_size=1)
batch = next(iter(segue.torch.wrap(stream.loader())))
""", "assert len(outputs) == 20 and h.shape == c.shape == (1, 64) and batch.all_saved"),
    "for batch in loader:\n    train(batch)\n    if enough():": ("""
loader, enough = filled("early").loader(), lambda: True
""", "assert loader.state_dict() and batch.committed"),
    "def recordings():\n    for path in paths:": ("""
paths, load = ["a", "b"], lambda path: np.ones((50, 3), "float32")
step = lambda x, h: h + x.sum((1, 2), dtype="float32")[:, None]
""", "assert batch.batch_size"),
    'stream = client.stream("train", source, sequences, states=states': ("""
batches = 0
real = segue.Loader.__iter__
def saving(loader):
    for batch in real(loader):
        train(batch)
        yield batch
segue.Loader.__iter__ = saving
""", "assert loader.group == 'lr3e-4' and batch.committed"),
    "# 8 ranks under torchrun": ("""
class dist:
    get_rank = staticmethod(lambda: 0)
model, stream = None, filled("ranks", lanes=4, persist=True)
real = stream.loader
stream.loader = lambda **options: real(**{**options, "replicas": 1})  # one process is all there is here
train = lambda model, batch: batch.state("h")
""", "assert batch.committed"),
    'with stream.loader(group="teacher")': ("""
stream = filled("taught")
def teacher(batch):
    train(batch)
    return batch.step
student, learn = teacher, lambda said, other: None
""", "assert (seen.step, seen.key) == (same.step, same.key)"),
}  # fmt: skip


def blocks() -> list[tuple[str, str]]:
    return [
        (page.name, block)
        for page in PAGES
        if page.name not in WHOLE
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]


def test_programs_have_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    programs = [re.match(r"# (\w+)\.py\n", block) for _, block in blocks()]
    names = [program[1] for program in programs if program]
    assert len(names) > 12
    for name in names:
        base = re.sub("_(before|after)$", "", name)  # of test_what_a_dataloader_becomes
        wanted = rf'"{base}"' if base != name else rf"\b{name}(\\)?\.py"
        own = name in ("data", "network", "songs")  # parts of others
        assert own or re.search(wanted, tests), name


def test_parts_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    used, programs = set(), []
    for page, block in blocks():
        if re.match(r"# \w+\.py\n", block) or block.startswith(NOT_RUN):
            continue
        found = [start for start in PARTS if block.startswith(start)]
        assert len(found) == 1, f"{page}: nothing says how to run\n{block}"
        used.add(found[0])
        before, after = PARTS[found[0]]
        programs.append(PRELUDE + before + block + after + "\nclient.close()\n")
    assert used == set(PARTS)
    places = [tmp_path / f"of part {number}" for number in range(len(programs))]
    for place in places:
        place.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN],
        input=json.dumps([*zip(map(str, places), programs)]), cwd=tmp_path,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

"""Features that are ragged, or bytes, in a stream: what the random streams of test_equal.py and
test_resume.py do not show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State
from segue.tfrecord import SequenceExampleWriter
from test_cli import Server

STEPS = 40  # of each sequence; step k has k * GROWTH values: each batch needs more than before
GROWTH = 3000


def write(path: Path, sequences: int) -> None:
    with segue.FileWriter(path, {"w": Feature("int32", ragged=True)}) as writer:
        for n in range(sequences):
            counts = np.arange(STEPS) * GROWTH
            offsets = np.concatenate([[0], np.cumsum(counts)])
            values = np.repeat(n * STEPS + np.arange(STEPS), counts).astype(np.int32)
            writer.write({"w": segue.Ragged(values, offsets)})


def opened(client: segue.Client, path: Path, **options: Any) -> segue.Stream:
    given = {
        "sequences": {"w": Feature("int32", ragged=True)},
        "states": {"h": State("int64")},
        "num_unroll": 1,
        "batch_size": 1,
        "depth": 4,
        **options,
    }
    return client.stream("train", segue.Files(path), **given)


def check(batch: segue.Batch) -> None:
    """The batch is what `write` has written, and follows the one before."""
    values, offsets = batch.ragged("w")
    step, number = int(batch.sequence[0]), int(batch.insertion_index[0])
    assert offsets.tolist() == [[0, step * GROWTH]]
    assert len(values) == step * GROWTH and (values == number * STEPS + step).all()
    assert batch.state("h")[0] == step
    batch.save_state("h", batch.state("h") + 1)


def test_batches_that_outgrow_those_before(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 3)
    with opened(client, tmp_path / "a.segue").loader() as loader:
        for count, batch in enumerate(loader, 1):
            check(batch)
    assert count == 3 * STEPS


def test_arrays_outlive_the_client(tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 1)
    with segue.open(tmp_path / "store") as client:
        held = []
        with opened(client, tmp_path / "a.segue", depth=8).loader() as loader:
            for batch, _ in zip(loader, range(6), strict=False):
                check(batch)
                held.append(batch.ragged("w"))
    for step, (values, offsets) in enumerate(held):
        assert offsets.tolist() == [[0, step * GROWTH]] and (values == step).all()


def test_the_server_dies_while_segments_are_not_fetched(tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 2)
    server = Server(tmp_path / "store")
    client = segue.open(tmp_path / "store")
    with opened(client, tmp_path / "a.segue").loader() as loader:
        for count, batch in enumerate(loader, 1):
            check(batch)
            if count in (3, 7, 30, 31):
                time.sleep(0.1)  # the ring is full of what was not asked for yet
                server.process.kill()
                server.process.wait()
                server = Server(tmp_path / "store")
    assert count == 2 * STEPS
    client.close()
    server.process.kill()
    server.process.wait()


WORKER = """
import sys, time
import numpy as np
import test_ragged, segue
from pathlib import Path
client = segue.open(sys.argv[1])
stream = test_ragged.opened(client, Path(sys.argv[2]), lanes=2)
with stream.loader(lanes=[1]) as loader:
    for count, batch in enumerate(loader, 1):
        test_ragged.check(batch)
        print(count, flush=True)
"""


def test_a_worker_that_is_stopped_holds_up_nobody(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 4)
    stream = opened(client, tmp_path / "a.segue", lanes=2)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, os.fspath(client.dir), os.fspath(tmp_path / "a.segue")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.stdout is not None
    for _ in range(3):
        worker.stdout.readline()
    worker.send_signal(signal.SIGSTOP)
    with stream.loader(lanes=[0]) as loader:
        for count, batch in enumerate(loader, 1):
            check(batch)
    assert count == 2 * STEPS
    worker.send_signal(signal.SIGCONT)
    rest = worker.communicate(timeout=60)[0].split()
    assert worker.returncode == 0 and rest[-1] == str(2 * STEPS)


def test_it_counts_for_the_user(tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 1)
    server = Server(tmp_path / "store", "--max-memory", "1M")
    try:
        with segue.open(tmp_path / "store") as client:
            stream = opened(client, tmp_path / "a.segue", persist=False)
            with pytest.raises(segue.LimitError, match="max-memory"):
                for count, batch in enumerate(stream.loader(), 1):
                    check(batch)
            assert count > 2
            for batch, _ in zip(stream.loader(), range(3), strict=False):  # it was given back
                check(batch)
    finally:
        server.process.kill()
        server.process.wait()


def test_what_is_no_ragged_feature(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 1)
    batch = next(iter(opened(client, tmp_path / "a.segue", persist=False).loader()))
    assert dict(batch.sequences) == {}
    for name in ("x", "h"):
        with pytest.raises(segue.ArgumentError, match=f"no feature '{name}' that is ragged"):
            batch.ragged(name)
    with pytest.raises(segue.ArgumentError, match="no feature 'w' of bytes"):
        batch.bytes("w")
    batch.release()
    with pytest.raises(segue.ClosedError, match="was released"):
        batch.ragged("w")


def test_declared_otherwise_than_the_file_has_it(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", 1)
    with pytest.raises(segue.DataError, match=r"the file has ragged int32, .* int32 of shape \(\)"):
        opened(client, tmp_path / "a.segue", sequences={"w": Feature("int32")})
    with pytest.raises(segue.DataError, match="the file has ragged int32, .* declares bytes"):
        opened(client, tmp_path / "a.segue", sequences={"w": Feature("bytes")})
    opened(client, tmp_path / "a.segue").close()
    with segue.FileWriter(tmp_path / "b.segue", {"w": Feature("int32")}) as writer:
        writer.write({"w": np.zeros(2, np.int32)})
    with pytest.raises(segue.SpecError, match='sequences "w": ragged in the store, dense asked'):
        opened(client, tmp_path / "b.segue", sequences={"w": Feature("int32")})


def test_tfrecord_files_have_none(client: segue.Client, tmp_path: Path) -> None:
    with SequenceExampleWriter(tmp_path / "a.tfrecord") as writer:
        writer.write({"w": np.zeros(2, np.float32)})
    with pytest.raises(segue.ArgumentError, match=r'"w" is ragged, which a source of kind tfrecord'):
        client.stream(
            "train",
            segue.TFRecord(tmp_path / "a.tfrecord"),
            sequences={"w": Feature("float32", ragged=True)},
            num_unroll=2,
            batch_size=2,
        )

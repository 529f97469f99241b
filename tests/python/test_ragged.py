"""Features that are ragged, or bytes, in a stream: what the random streams of test_equal.py and
test_resume.py do not show.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State
from segue.tfrecord import SequenceExampleWriter
from test_cli import Server
from test_resume import Other, processes  # noqa: F401  # `processes` is a fixture

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
    source = given.pop("source", None) or segue.Files(path)
    return client.stream("train", source, **given)


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
    with pytest.raises(KeyError, match=r"'w' is none of no features; batch.ragged\(name\)"):
        batch.sequences["w"]
    assert batch.sequences.get("w") is None and "w" not in batch.sequences
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


def test_from_tfrecord_files(client: segue.Client, tmp_path: Path) -> None:
    """What the package's writer makes of lists and texts; random ones are in test_equal.py."""
    words = [[b"a", b"", b"\0c"], [b"x" * 2_000_000]]
    odd = [[[1, 2], [], [300]], [[-(2**31)] * 5]]
    with SequenceExampleWriter(tmp_path / "a.tfrecord") as writer:
        for word, values in zip(words, odd, strict=True):
            steps = [np.array(step, int) for step in values]
            writer.write({"word": word, "odd": steps}, {"who": word[0], "all": steps[0]})
    spec: dict[str, Any] = {
        "sequences": {"word": Feature("bytes"), "odd": Feature("int32", ragged=True)},
        "context": {"who": Feature("bytes"), "all": Feature("int64", ragged=True)},
        "states": {},
        "num_unroll": 2,
        "batch_size": 2,
    }
    path = tmp_path / "a.tfrecord"
    with opened(client, path, source=segue.TFRecord(path), **spec).loader() as loader:
        first, second = loader
    assert first.bytes("word").tolist() == [[b"a", b""], [words[1][0], b""]]
    assert first.bytes("who").tolist() == [b"a", words[1][0]]
    values, offsets = first.ragged("odd")
    assert values.tolist() == [1, 2, *odd[1][0]] and offsets.tolist() == [[0, 2, 2], [2, 7, 7]]
    values, offsets = first.ragged("all")
    assert values.tolist() == [1, 2, *odd[1][0]] and offsets.tolist() == [0, 2, 7]
    assert second.bytes("word").tolist() == [[b"\0c", b""]]
    assert second.ragged("odd").values.tolist() == [300]


def test_examples_of_the_official_implementation(client: segue.Client, tmp_path: Path) -> None:
    """As TensorFlow writes them, where the package of protocol buffers is installed."""
    pytest.importorskip("google.protobuf")
    from test_tfrecord import message_class

    example = message_class()()
    lists = example.feature_lists.feature_list
    for count in (2, 0, 1):
        lists["w"].feature.add().int64_list.value.extend(range(-count, 0))
        lists["f"].feature.add().float_list.value.extend([0.5] * count)
        lists["text"].feature.add().bytes_list.value.append(b"t" * count)
    lists["w"].feature.add().int64_list.SetInParent()  # a list of none, and none at all
    lists["f"].feature.add()
    lists["text"].feature.add().bytes_list.value.append(b"")
    example.context.feature["all"].float_list.value.extend([1, 2, 3])
    path = tmp_path / "a.tfrecord"
    with SequenceExampleWriter(path) as writer:
        writer.write_record(example.SerializeToString())
    stream = opened(
        client,
        path,
        source=segue.TFRecord(path),
        sequences={
            "w": Feature("int8", ragged=True),
            "f": Feature("float16", ragged=True),
            "text": Feature("bytes"),
        },
        context={"all": Feature("float64", ragged=True)},
        states={},
        num_unroll=4,
    )
    (batch,) = stream.loader()
    for name, wanted in (("w", [-2, -1, -1]), ("f", [0.5] * 3)):
        values, offsets = batch.ragged(name)
        assert values.tolist() == wanted and offsets.tolist() == [[0, 2, 2, 3, 3]]
    assert batch.bytes("text").tolist() == [[b"tt", b"", b"t", b""]]
    assert batch.ragged("all").values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("record", ["sequence_example", "example"])
def test_long_records_of_tfrecord_files(
    client: segue.Client, tmp_path: Path, record: str
) -> None:
    """Of more than 1 MiB: read by windows, and gone on with in the middle."""
    seed = secrets.randbits(32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1200, 1000)
    data: dict[str, Any] = {
        "text": [rng.bytes(int(count)) for count in counts],
        "w": [rng.integers(-(2**63), 2**63 - 1, count // 8) for count in counts],
    }
    names = ["text", "w"] if record == "sequence_example" else ["text"]
    path = tmp_path / "a.tfrecord"
    with SequenceExampleWriter(path) as writer:
        features = {name: data[name] for name in names}
        context = {"all": rng.integers(0, 9, 300_000), "who": data["text"][0] * 999}
        if record == "example":
            writer.write({}, {**features, **context})
        else:
            writer.write(features, context)
    declared = {"text": Feature("bytes"), "w": Feature("int64", ragged=True)}
    stream = opened(
        client,
        path,
        source=segue.TFRecord(path, record=record),
        sequences={name: declared[name] for name in names},
        context={"all": Feature("uint8", ragged=True), "who": Feature("bytes")},
        states={},
        num_unroll=60,
        depth=2,
    )
    seen = 0
    for most in (3, 1, 20):
        with stream.loader(start="continue" if seen else "fresh") as loader:
            for batch in islice(loader, most):
                first, end = seen * 60, min(1000, (seen + 1) * 60)
                text = batch.bytes("text")[0, : end - first].tolist()
                assert text == data["text"][first:end]
                if "w" in names:
                    values, offsets = batch.ragged("w")
                    assert values.tolist() == np.concatenate(data["w"][first:end]).tolist()
                    sizes = [len(step) for step in data["w"][first:end]]
                    assert np.diff(offsets[0])[: end - first].tolist() == sizes
                assert batch.ragged("all").values.tolist() == context["all"].tolist()
                assert batch.bytes("who").tolist() == [context["who"]]
                batch.commit()
                seen += 1
    assert seen == 17


@pytest.mark.parametrize(
    "declared, text",
    [
        ({"w": Feature("int8", ragged=True)}, "'w': step 1: value 300 does not fit int8"),
        ({"w": Feature("float32", ragged=True)}, "holds int64 values, but float32 was declared"),
        ({"w": Feature("bytes")}, "'w': step 0: holds int64 values, but bytes was declared"),
        ({"t": Feature("bytes")}, "'t': step 1: 2 bytes values, expected one"),
    ],
)
def test_tfrecord_files_that_do_not_fit(
    client: segue.Client, tmp_path: Path, declared: dict[str, Feature], text: str
) -> None:
    path = tmp_path / "a.tfrecord"
    with SequenceExampleWriter(path) as writer:
        writer.write(
            {
                "w": [np.array([1]), np.array([2, 300])],
                "t": [[b"a"], [b"b", b"c"]],
                "n": np.zeros((2, 0), "f4"),
            }
        )
    source = segue.TFRecord(path, allow_surplus=True)
    for on_error in ("raise", "skip"):  # the record is sound
        options = {"sequences": declared, "persist": False, "on_error": on_error}
        with opened(client, path, source=source, **options) as stream:
            with pytest.raises(segue.DataError) as caught:
                next(iter(stream.loader()))
        assert f"{path}: record at byte 0: feature " in str(caught.value)
        assert text in str(caught.value) and "the record holds: " in str(caught.value)


def test_steps_of_a_plain_example_are_not_ragged(client: segue.Client, tmp_path: Path) -> None:
    source = segue.TFRecord(tmp_path / "a.tfrecord", record="example")
    with pytest.raises(
        segue.ArgumentError,
        match=r'sequences.0. "w" is ragged, which a source of kind tfrecord with record="example" ',
    ):
        opened(client, tmp_path / "a", source=source)
    mix = segue.Mix({"a": (segue.Files(tmp_path / "b.segue"), 1), "b": (source, 1)})
    with pytest.raises(segue.ArgumentError, match='kind tfrecord with record="example" does not'):
        opened(client, tmp_path / "a", source=mix)


def small(client: segue.Client, directory: Path, **options: Any) -> segue.Stream:
    """Each batch has few values, which are those of `x`."""
    path = directory / "small.segue"
    features = {"x": Feature("int32"), "w": Feature("int32", ragged=True)}
    if not path.exists():
        with segue.FileWriter(path, features) as writer:
            for n in range(40):
                w = segue.Ragged(np.full(12, n, np.int32), np.arange(5) * 3)
                writer.write({"x": np.full(4, n, np.int32), "w": w})
    given = {"sequences": features, "num_unroll": 2, "batch_size": 2, "epochs": 4, **options}
    return opened(client, path, **given)


def hold_all(pipe: Any, directory: Path, how: str) -> None:
    """Holds as many batches as a ring can have, then gets another lease."""
    with segue.open(directory / "store") as client:
        stream = small(client, directory, depth=64)
        loader = stream.loader(start="fresh", timeout=30)
        held = []
        for batch in loader:
            batch.save_state("h", batch.state("h") + 1)
            batch.commit()
            held.append((batch.ragged("w"), np.repeat(batch.sequences["x"].ravel(), 3)))
            if len(held) == 64:
                break
        if how == "close":
            loader.close()
            loader = stream.loader(start="continue", timeout=30)
        elif how == "resize":
            loader.set_batch_size(1)
        batch = next(iter(loader))
        pipe.send((batch.step, batch.batch_size))
        for (values, offsets), wanted in held:
            assert (values == wanted).all() and offsets.tolist() == [[0, 3, 6], [6, 9, 12]]


@pytest.mark.parametrize("how", ["close", "resize", "loop"])
def test_all_batches_of_the_deepest_ring_are_held(
    tmp_path: Path, processes: Callable[..., Other], how: str  # noqa: F811
) -> None:
    """Their arrays stay as they are."""
    other = processes(hold_all, tmp_path, how)
    assert other.receive() == (64, 1 if how == "resize" else 2)
    other.join()


def follow(loader: segue.Loader, until: int) -> list[int]:
    """Each batch has the values of its own sequences. Returns the steps."""
    steps = []
    for batch in loader:
        values = batch.ragged("w").values
        assert sorted(set(values.tolist())) == sorted(set(batch.sequences["x"].ravel().tolist()))
        steps.append(batch.step)
        if batch.step + 1 == until:
            break
    return steps


@pytest.mark.parametrize("how", ["close", "resize"])
def test_a_follower_that_lags_sees_no_values_of_another_batch(tmp_path: Path, how: str) -> None:
    """Its leader gets another lease before it has taken all of the one before."""
    rank: dict[str, Any] = {"rank": 0, "world_size": 1, "replicas": 2, "timeout": 30}

    def lead(loader: segue.Loader, until: int) -> None:
        for batch in loader:
            batch.save_state("h", batch.state("h") + 1)
            batch.commit()
            if batch.step + 1 == until:
                break

    with segue.open(tmp_path / "store") as first, segue.open(tmp_path / "store") as second:
        stream = small(first, tmp_path)
        leader = stream.loader(start="fresh", replica=0, **rank)
        follower = small(second, tmp_path).loader(replica=1, **rank)
        thread = threading.Thread(target=lead, args=(leader, 2))
        thread.start()
        assert follow(follower, 2) == [0, 1]
        thread.join()
        lead(leader, 4)
        if how == "resize":
            leader.set_batch_size(3)
        else:
            leader.close()
            leader = stream.loader(start="continue", replica=0, **rank)
            leader.state_dict()
        time.sleep(0.5)  # the next batches come where those before were
        with suppress(segue.StaleIterator):
            assert follow(follower, 4) == [2, 3]
        follower.close()
        leader.close()

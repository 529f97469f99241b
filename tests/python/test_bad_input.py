"""What is wrong is refused: by an error of its own class that says what, where, and what to do.

Of the list that the project promises, test_binding.py has, with all their variants: options with
names that hold ``:`` or numbers that cannot be (``test_bad_options_are_named``, also capacity below
batch_size), states of a wrong name (``test_wrong_state_name``), dtype or shape
(``test_wrong_dtype_or_shape``), going on without saving (``test_advancing_without_saving...``,
``test_commit_without_saving...``), saving after the commit (``test_after_commit``), writing into
arrays that are read (``test_arrays_are_plain_read_only_views``), use after fork
(``test_use_after_fork_is_an_error``), a lane that another process holds
(``test_another_holder_is_refused``) and use after close. Tokens are in test_resume.py. The rest is
here, and the messages of some of those.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State
from segue.tfrecord import SequenceExampleWriter

UNROLL = 3
LENGTHS = (4, 7, 2, 5, 6)


@contextmanager
def refused(kind: type[segue.Error], *parts: str) -> Iterator[None]:
    """The body raises exactly this class, with a message that holds all parts."""
    with pytest.raises(kind) as info:
        yield
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)


Example = tuple[dict[str, Any], dict[str, Any]]


def example(n: int, add: int = 0, **changes: Any) -> Example:
    """x: n floats, y: n integers, context c; changes replace features, None leaves one out."""
    features = {
        "x": np.arange(n, dtype=np.float32) + add,
        "y": np.arange(n),
        "c": n,
        **changes,
    }
    sequences = {k: v for k, v in features.items() if k in "xyz" and v is not None}
    return sequences, {k: v for k, v in features.items() if k not in "xyz" and v is not None}


def write(path: Path, examples: list[Example] | None = None, **options: Any) -> list[int]:
    """Offsets of the records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [example(n) for n in LENGTHS] if examples is None else examples
    with SequenceExampleWriter(path, **options) as writer:
        return [writer.write(*e) for e in records]


def arguments(path: Any, **changes: Any) -> dict[str, Any]:
    return {
        "source": segue.TFRecord(path),
        "sequences": {"x": Feature("float32"), "y": Feature("int64")},
        "context": {"c": Feature("int32")},
        "states": {"h": State("float32", [2])},
        "num_unroll": UNROLL,
        "batch_size": 2,
        **changes,
    }


@pytest.fixture
def client(tmp_path: Path) -> Iterator[segue.Client]:
    with segue.open(tmp_path / "store") as client:
        yield client


def save(batch: segue.Batch) -> None:
    batch.save_state("h", batch.state("h") + np.float32(1))


def read(stream: segue.Stream, **options: Any) -> list[Any]:
    """All that a stream delivers, as values."""
    rows = []
    with stream.loader(**options) as loader:
        for batch in loader:
            rows.append((batch.key, batch.sequences["x"].tolist(), batch.sequences["y"].tolist()))
            save(batch)
    return rows


def server_pid(dir: Path) -> int:
    return int((dir / "server.pid").read_text().split()[0])


def end_server(dir: Path) -> None:
    """Waits until the embedded server of a store, whose last user is gone, is gone too."""
    deadline = time.monotonic() + 10
    while (dir / "segue.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not (dir / "segue.sock").exists()


def kill_server(dir: Path) -> None:
    pid = server_pid(dir)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.01)


# -- files -----------------------------------------------------------------------------------------


def test_files_that_are_not_there(client: segue.Client, tmp_path: Path) -> None:
    for name in ("missing.tfrecord", "*.nothing", "no/such/folder"):
        with refused(segue.SourceError, str(tmp_path / name), "no such file"):
            client.stream("s", **arguments(tmp_path / name))
    with refused(segue.SourceError, str(tmp_path), "is a directory", "/*"):
        client.stream("s", **arguments(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with refused(segue.SourceError, str(tmp_path / "fifo"), "not a plain file"):
        client.stream("s", **arguments(tmp_path / "fifo"))


def test_an_empty_data_set(client: segue.Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with refused(segue.DataError, str(tmp_path / "empty"), "no records"):
        client.stream("s", **arguments(tmp_path / "empty"))
    write(tmp_path / "packed", [], compression="gzip")
    with refused(segue.DataError, str(tmp_path / "packed"), "no records"):
        client.stream("s", **arguments(tmp_path / "packed"))


def test_a_file_cut_off_anywhere(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    offsets = write(path)
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        begin = max(offset for offset in offsets if offset <= size)
        if begin == size:
            continue  # a shorter data set, with nothing wrong in it
        cut = tmp_path / f"cut-{size}"
        cut.write_bytes(whole[:size])
        with refused(
            segue.DataError, f"{cut}: record at byte {begin}:", f"ends within it, at byte {size}; was it"
        ):
            client.stream(cut.name, **arguments(cut))


def test_a_bit_flipped_anywhere(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    offsets = write(path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        begin = max(offset for offset in offsets if offset <= at)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        flipped = tmp_path / f"flipped-{at}"
        flipped.write_bytes(damaged)
        with refused(segue.DataError, f"{flipped}: record at byte {begin}:", "checksum", "wrong"):
            read(client.stream(flipped.name, **arguments(flipped, persist=False)))


def test_batches_before_the_damage_are_delivered(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "data"
    offsets = write(path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    stream = client.stream("s", **arguments(path))
    steps = []
    with refused(
        segue.DataError,
        f"{path}: record at byte {offsets[-1]}: damaged: the checksum of its data is wrong",
        "on_error",
        "skip",
    ):
        for batch in stream.loader():
            steps.append(batch.step)
            save(batch)
    assert steps == [0, 1, 2]  # records 0 to 3; a row that ends then would take record 4
    with refused(segue.DataError, f"record at byte {offsets[-1]}"):
        read(stream, start="continue")


def test_damaged_gzip_files(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    write(path, compression="gzip")
    whole = path.read_bytes()
    good = read(client.stream("whole", **arguments(path)))
    for size in range(1, len(whole)):
        cut = tmp_path / f"cut-{size}"
        cut.write_bytes(whole[:size])
        with refused(segue.DataError, str(cut)):
            client.stream(cut.name, **arguments(cut))
    harmless = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        flipped = tmp_path / f"flipped-{at}"
        flipped.write_bytes(damaged)
        try:
            rows = read(client.stream(flipped.name, **arguments(flipped, persist=False)))
        except segue.DataError as error:
            assert str(flipped) in str(error)
        else:  # the time or the system in gzip's header
            assert at < 10
            harmless += 1
            assert str(rows).replace(flipped.name, "whole") == str(good)
    assert harmless < 10
    write(path)
    with refused(segue.DataError, f"{path}: is not gzip"):
        client.stream("s", **arguments(path, source=segue.TFRecord(path, compression="gzip")))


# -- records that the spec does not fit ------------------------------------------------------------

X, Y, C = Feature("float32"), Feature("int64"), Feature("int32")


@pytest.mark.parametrize(
    "bad, changes, parts",
    [
        ({}, {"sequences": {"x": X}}, ["feature 'y': not declared", "allow surplus"]),
        ({}, {"sequences": {"x": X, "y": Y, "z": Y}}, ["feature 'z': missing"]),
        ({}, {"context": {"c": C, "d": C}}, ["context feature 'd': missing"]),
        ({}, {"context": {}}, ["context feature 'c': not declared", "allow surplus"]),
        (
            {},
            {"sequences": {"x": Y, "y": Y}},
            ["feature 'x': step 0: holds float values", "int64 was declared"],
        ),
        (
            {},
            {"sequences": {"x": X, "y": X}},
            ["feature 'y': step 0: holds int64 values", "float32 was declared"],
        ),
        ({}, {"context": {"c": X}}, ["context feature 'c': holds int64", "float32 was declared"]),
        (
            {},
            {"sequences": {"x": Feature("float32", [2]), "y": Y}},
            ["feature 'x': step 0: 1 values, expected 2"],
        ),
        (
            {},
            {"context": {"c": Feature("int32", [2, 2])}},
            ["context feature 'c': 1 values, expected 4"],
        ),
        (
            {"x": [np.zeros(1, np.float32), np.zeros(2, np.float32)], "y": [1, 2]},
            {},
            ["feature 'x': step 1: 2 values, expected 1"],
        ),
        ({"x": [b"abc"], "y": [1]}, {}, ["feature 'x': step 0: a bytes value of 3 bytes"]),
        ({"y": None}, {}, ["feature 'y': missing"]),
        ({"c": None}, {}, ["context feature 'c': missing"]),
        ({"x": [], "y": []}, {}, ["empty sequence"]),
        ({"y": np.arange(5)}, {}, ["different numbers of steps", "x=4", "y=5"]),
        (
            {"y": [0, 1, 300, 2]},
            {"sequences": {"x": X, "y": Feature("uint8")}},
            ["feature 'y': step 2: value 300 does not fit uint8"],
        ),
        (
            {"y": [0, 1, 1, 2]},
            {"sequences": {"x": X, "y": Feature("bool")}},
            ["feature 'y': step 3: value 2 does not fit bool"],
        ),
        ({"c": -(2**31) - 1}, {}, ["context feature 'c': value -2147483649 does not fit int32"]),
        (
            {},
            {"pad": False},
            ["feature 'x': 4 steps", "no multiple of num_unroll = 3", "pad=True"],
        ),
    ],
)
def test_records_that_do_not_fit(
    client: segue.Client,
    tmp_path: Path,
    bad: dict[str, Any],
    changes: dict[str, Any],
    parts: list[str],
) -> None:
    path = tmp_path / "data"
    first = () if changes else (example(UNROLL),)
    offsets = write(path, [*first, example(4, **bad)])
    with refused(segue.DataError, f"{path}: record at byte {offsets[-1]}: ", *parts):
        read(client.stream("s", **arguments(path, **{"batch_size": 1, **changes})))


@pytest.mark.parametrize(
    "value, parts",
    [
        (None, ["'id': missing", "named as the records' key"]),
        (7, ["'id': holds int64 values", "a key is one bytes value"]),
        ([b"a", b"b"], ["'id': 2 bytes values", "a key is one bytes value"]),
        (b"", ["'id': a key of 0 bytes"]),
        (b"k" * 513, ["'id': a key of 513 bytes", "1 to 512"]),
    ],
)
def test_keys_that_are_none(
    client: segue.Client, tmp_path: Path, value: Any, parts: list[str]
) -> None:
    path = tmp_path / "data"
    write(path, [example(4, id=value)])
    source = segue.TFRecord(path, key="id", allow_surplus=True)
    with refused(segue.DataError, f"{path}: record at byte 0: context feature ", *parts):
        read(client.stream("s", **arguments(path, source=source)))


def test_records_that_are_no_examples(client: segue.Client, tmp_path: Path) -> None:
    for name, data in [("text", b"this is no protocol buffer"), ("nothing", b"")]:
        path = tmp_path / name
        with SequenceExampleWriter(path) as writer:
            writer.write_record(data)
        with refused(segue.DataError, f"{path}: record at byte 0: "):
            read(client.stream(name, **arguments(path)))
    (tmp_path / "no-tfrecord").write_text("a,b\n1,2\n" * 10)
    with refused(segue.DataError, str(tmp_path / "no-tfrecord"), "is this a TFRecord file?"):
        client.stream("s", **arguments(tmp_path / "no-tfrecord"))


# -- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_a_stream_opened_with_another_spec(tmp_path: Path, restarted: bool) -> None:
    path, store = tmp_path / "data", tmp_path / "store"
    write(path)
    sequences = {"x": X, "y": Y}
    others: list[tuple[dict[str, Any], list[str]]] = [
        ({"sequences": {"x": X}}, ['sequences "y": in the store, not asked for']),
        (
            {"sequences": {**sequences, "z": X}},
            ['sequences "z": not in the store, asked for'],
        ),
        ({"sequences": {"y": Y, "x": X}}, ["order of sequences"]),
        (
            {"sequences": {"x": Feature("float64"), "y": Y}},
            ['"x" dtype: float32 in the store, float64 asked for'],
        ),
        (
            {"sequences": {"x": Feature("float32", [1]), "y": Y}},
            ['"x" shape: [] in the store, [1] asked for'],
        ),
        ({"context": None}, ['contexts "c": in the store, not asked for']),
        ({"states": {}}, ['states "h": in the store']),
        ({"states": {"h": State("float32", [3])}}, ['"h" shape: [2] in the store, [3] asked for']),
        ({"states": {"h": State("float32", [2], init=1)}}, ['"h" initial value']),
        ({"num_unroll": 4}, ["num_unroll: 3 in the store, 4 asked for"]),
        ({"batch_size": 3}, ["batch_size: 2 in the store, 3 asked for"]),
        ({"lanes": 2}, ["lanes: 1 in the store, 2 asked for"]),
        ({"shuffle": True}, ["shuffle: false in the store, true asked for"]),
        ({"seed": 2**64 - 1}, ["seed: 0 in the store, 18446744073709551615 asked for"]),
        ({"epochs": None}, ["epochs: 1 in the store, 0 asked for"]),
        ({"pad": False}, ["pad: true in the store, false asked for"]),
        ({"tail": "stop"}, ["tail: shrink in the store, stop asked for"]),
        ({"epoch_end": "drain"}, ["epoch_end: continue in the store, drain asked for"]),
        ({"on_error": "skip"}, ["on_error: raise in the store, skip asked for"]),
        ({"keep_final": True}, ["keep_final: false in the store, true asked for"]),
        (
            {"source": segue.TFRecord(path, key="c")},
            ["key_feature: (none) in the store, c asked for"],
        ),
        ({"source": segue.TFRecord(path, allow_surplus=True)}, ["allow_surplus: false in"]),
        ({"num_unroll": 4, "seed": 1, "tail": "pad"}, ["num_unroll", "; seed", "; tail"]),
    ]
    client = segue.open(store)
    client.stream("train", **arguments(path))
    if restarted:
        client.close()
        end_server(store)
        client = segue.open(store)
    for changes, parts in others:
        with refused(segue.SpecError, "stream 'train'", *parts):
            client.stream("train", **arguments(path, **changes))
    runtime = {"depth": 2, "num_threads": 2, "capacity": 9, "durability": "commit", "interval": 2}
    assert len(read(client.stream("train", **arguments(path, **runtime)))) > 3
    client.close()


def test_a_stream_that_is_open_over_other_files(client: segue.Client, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        write(path)
    stream = client.stream("s", **arguments(one))
    with refused(segue.SpecError, "stream 's'", f"{one} in use, {two} asked for"):
        client.stream("s", **arguments(two))
    with refused(segue.SpecError, f"(none) in use, {two} asked for"):
        client.stream("s", **arguments([one, two]))
    stream.close()


def test_a_used_store_without_token_or_start(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data")
    stream = client.stream("train", **arguments(tmp_path / "data", lanes=2))
    with stream.loader(lanes=[1]) as loader:
        save(next(iter(loader)))
        loader.state_dict()
    date = time.strftime("%Y-%m-%d")
    for ask in (lambda loader: next(iter(loader)), lambda loader: loader.state_dict()):
        with refused(
            segue.StartError, "stream 'train', lane 1", "step 1", f"committed {date}",
            'start="continue"', 'start="fresh"', "load_state_dict()",
        ):  # fmt: skip
            ask(stream.loader(lanes=[1]))
    assert next(iter(stream.loader(lanes=[0]))).step == 0


def test_going_on_says_what_to_do(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data")
    stream = client.stream("train", **arguments(tmp_path / "data", depth=2))
    batches = iter(stream.loader())
    batch = next(batches)
    with refused(segue.UnsavedError, "batch 0 of lane 0", "not saved: 'h'"):
        next(batches)
    save(batch)
    batch.commit()
    with refused(segue.CommittedError, "batch 0 of lane 0 is already committed", "save before"):
        save(batch)
    held = [batch.sequences["x"]]
    del batch
    with refused(segue.HeldError, "lane 0", "2", "release"):
        for batch in batches:
            held.append(batch.sequences["x"])
            save(batch)


# -- data that has changed -------------------------------------------------------------------------


def change_size(path: Path, **options: Any) -> None:
    write(path, [example(n) for n in LENGTHS[:-1]], **options)


def change_values(path: Path, **options: Any) -> None:
    write(path, [example(n, add=1) for n in LENGTHS], **options)


def change_order(path: Path, **options: Any) -> None:
    write(path, [example(n) for n in LENGTHS[1:] + LENGTHS[:1]], **options)


def change_name(path: Path, **options: Any) -> None:
    path.rename(path.with_name("renamed.tfrecord"))


def add_file(path: Path, **options: Any) -> None:
    write(path.with_name("more.tfrecord"), **options)


def remove_file(path: Path, **options: Any) -> None:
    path.unlink()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize(
    "change",
    [change_size, change_values, change_order, change_name, add_file, remove_file],
)
def test_a_data_set_that_has_changed(
    tmp_path: Path, change: Any, compression: str | None, restarted: bool
) -> None:
    """Whether the server notices when the stream is opened or when the record is read."""
    path, store = tmp_path / "data" / "part.tfrecord", tmp_path / "store"
    write(path, compression=compression)
    write(path.with_name("other.tfrecord"))
    pattern = path.with_name("*.tfrecord")
    client = segue.open(store)
    stream = client.stream("s", **arguments(pattern))
    good = read(stream)
    stream.close()
    if restarted:
        client.close()
        end_server(store)
    change(path, compression=compression)
    if restarted:
        client = segue.open(store)
    with pytest.raises((segue.ChangedError, segue.SourceError)) as info:
        stream = client.stream("s", **arguments(pattern))
        assert read(stream, start="fresh") == good
    print(info.value)
    assert re.search(r"changed|stream 's': the data set is not the one", str(info.value))
    # Under another name the files as they are now can be had.
    assert read(client.stream("t", **arguments(pattern)))
    client.close()

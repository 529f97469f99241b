"""Sequence files: what segue.FileWriter and segue.convert write, beside the reader of the page."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import segue
import sequence_file
from segue import Feature, FileWriter, State, _segue
from sequence_file import Damaged, Unfinished
from test_bad_input import small_disk  # noqa: F401

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture
def rng() -> np.random.Generator:
    print(f"SEGUE_TEST_SEED={SEED}")
    return np.random.default_rng(SEED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.segue"


def values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """All bits, but for bools."""
    kind = sequence_file.numpy_dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * kind.itemsize
    return np.frombuffer(rng.bytes(size), kind).reshape(shape)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit for bit: NaNs, too."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    )


def check(found: dict[str, Any], given: dict[str, Any]) -> None:
    assert list(found) == list(given)
    for name in given:
        if isinstance(given[name], (list, bytes)):
            assert len(found[name]) == len(given[name])
            for one, other in zip(found[name], given[name], strict=True):
                assert one == other if isinstance(other, (int, bytes)) else same(one, other), name
        else:
            assert same(found[name], given[name]), name


# ---- The writer ----


def random_fields(rng: np.random.Generator, kind: Any, least: int, most: int) -> dict[str, Any]:
    names = rng.permutation(["x", "y", "n" * 255, "é" * 100, "a b"])
    fields = {}
    for name in names[: rng.integers(least, most + 1)]:
        shape = tuple(int(dim) for dim in rng.integers(1, 5, rng.integers(0, 4)))
        form = rng.integers(5) if kind is Feature else 0
        if form > 2:
            ragged = str(rng.choice(list(_segue.DTYPES)))
            fields[str(name)] = Feature("bytes") if form == 3 else Feature(ragged, ragged=True)
            continue
        fields[str(name)] = kind(str(rng.choice(list(_segue.DTYPES))), shape)
    return fields


def drawn(rng: np.random.Generator, field: Any, steps: int | None) -> Any:
    """What a sequence has of a feature or a state; `steps` None: one value."""
    if getattr(field, "_form", 0) == 0:
        return values(rng, field.dtype, field.shape if steps is None else (steps, *field.shape))
    most = int(rng.choice([0, 3, 700]))
    parts = []
    for count in rng.integers(0, most + 1, 1 if steps is None else steps):
        text = field.dtype == "bytes"
        parts.append(rng.bytes(count) if text else values(rng, field.dtype, (count,)))
    return parts[0] if steps is None else parts


@pytest.mark.parametrize("run", range(15))
def test_what_was_written_is_read(path: Path, rng: np.random.Generator, run: int) -> None:
    rng = np.random.default_rng([SEED, run])
    fields = random_fields(rng, Feature, 1, 4), random_fields(rng, Feature, 0, 3)
    states = random_fields(rng, State, 0, 3)
    borders = [1, 2, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 9000]
    written = []
    with FileWriter(path, *fields, states) as writer:
        for number in range(rng.integers(0, 12)):
            steps = int(rng.choice(borders))
            sequences = {n: drawn(rng, f, steps) for n, f in fields[0].items()}
            context = {n: drawn(rng, f, None) for n, f in fields[1].items()}
            initial = {n: drawn(rng, f, None) for n, f in states.items()}
            key = [None, "schlüssel", b"\xff\0", "k" * 4096][rng.integers(4)]
            length = [None, 0, steps // 2, steps, steps + 3][rng.integers(5)]
            writer.write(sequences, context, key, length, initial)
            expected = f"data.segue:{number}" if key is None else key
            written.append((sequences, context, initial, expected, length))
        assert writer.sequences_written == len(written)
    assert writer.bytes_written == path.stat().st_size
    file = sequence_file.read(path)
    declared = [
        (place, name, field.dtype, field.shape, getattr(field, "_form", 0))
        for place, group in zip(sequence_file.PLACES, (*fields, states), strict=True)
        for name, field in group.items()
    ]
    found_fields = [
        (f.place, f.name, "bytes" if f.form == 2 else f.dtype.name, f.shape, f.form)
        for f in file.fields
    ]
    assert found_fields == declared
    assert len(file.sequences) == len(written)
    for found, (sequences, context, initial, key, length) in zip(
        file.sequences, written, strict=True
    ):
        check(found.sequences, sequences)
        check(found.context, context)
        check(found.states, initial)
        assert found.key == (key.encode() if isinstance(key, str) else key)
        assert found.length == length


def test_what_is_ragged_in_each_way(path: Path) -> None:
    fields = {"w": Feature("int16", ragged=True), "t": Feature("bytes")}
    context = {"v": Feature("bfloat16", ragged=True), "s": Feature("bytes")}
    w = np.array([1, 2, 3], np.int16)
    given = [
        ([[1, 2], [], [3]], ["a", b"", "é"], [1.5, 2], "x"),
        ([w[:2], w[:0], w[2:]], np.array(["a", b"", "é"], object), [], b""),
        (segue.Ragged(w, np.array([0, 2, 2, 3])), (b"a", bytearray(), memoryview("é".encode())), (),
         b"\0"),
        (segue.Ragged([1, 2, 3], [0, 2, 2, 3]),
         segue.Ragged(np.frombuffer(b"a\xc3\xa9", np.uint8), np.array([0, 1, 1, 3])),
         segue.Ragged([2.5], [0, 1]), segue.Ragged(np.frombuffer(b"z", np.uint8), [0, 1])),
    ]  # fmt: skip
    with FileWriter(path, fields, context) as writer:
        for one in given:
            writer.write({"w": one[0], "t": one[1]}, {"v": one[2], "s": one[3]})
    found = sequence_file.read(path).sequences
    for sequence in found:
        assert [part.tolist() for part in sequence.sequences["w"]] == [[1, 2], [], [3]]
        assert sequence.sequences["t"] == [b"a", b"", "é".encode()]
    assert [sequence.context["v"].tolist() for sequence in found] == [[1.5, 2], [], [], [2.5]]
    assert [sequence.context["s"] for sequence in found] == [b"x", b"", b"\0", b"z"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w": [1, 2]}, "sequences['w']: expected int16 of shape (steps,), got int64 of shape ()"),
        ({"w": 7}, "sequences['w']: expected what each step has, a list of int16, or segue.Ragged"),
        ({"w": [[1], [0.5]]}, "sequences['w']: expected int16 of shape (steps,), got float64"),
        ({"w": segue.Ragged([1, 2], [0, 1])}, "of which the last is the number of values, 2"),
        ({"w": segue.Ragged([1, 2], [0.0, 2.0])}, "sequences['w']: expected offsets of int64"),
        ({"w": segue.Ragged([1, 2], [0, 3, 2])}, "or one is below that before it"),
        ({"w": [[1]]}, "sequences['w'] has 1 steps and sequences['t'] 2"),
        ({"t": "ab"}, "sequences['t']: expected what each step has, a list of bytes"),
        ({"t": [b"a", 1]}, "sequences['t']: expected bytes or str, got int"),
        ({"v": segue.Ragged([1.0], [0, 1, 1])}, "context['v']: 3 offsets, where 2 are"),
    ],
)
def test_what_is_not_ragged(path: Path, changes: dict[str, Any], message: str) -> None:
    fields = {"w": Feature("int16", ragged=True), "t": Feature("bytes")}
    given: dict[str, Any] = {"w": [[1], [2]], "t": [b"a", b"b"], "v": [1.0], **changes}
    with FileWriter(path, fields, {"v": Feature("float32", ragged=True)}) as writer:
        with pytest.raises(segue.ArgumentError, match=re.escape(message)):
            writer.write({"w": given["w"], "t": given["t"]}, {"v": given["v"]})
        writer.write({"w": [[1], [2]], "t": [b"a", b"b"]}, {"v": [1.0]})
    assert len(sequence_file.read(path).sequences) == 1


def test_features_that_cannot_be_ragged() -> None:
    with pytest.raises(segue.ArgumentError, match="what is ragged, or bytes, has no shape"):
        Feature("float32", 3, ragged=True)
    with pytest.raises(segue.ArgumentError, match="what is ragged, or bytes, has no shape"):
        Feature("bytes", 3)
    with pytest.raises(segue.ArgumentError, match="bytes are of any length as they are"):
        Feature("bytes", ragged=True)


def test_a_sequence_that_is_larger_than_any_buffer(path: Path, rng: np.random.Generator) -> None:
    small, large = np.arange(5, dtype=np.float32), rng.random(3_000_001).astype(np.float32)
    with FileWriter(path, {"x": Feature("float32")}) as writer:
        for x in (small, large, small, large[: 1 << 18], small):
            writer.write({"x": x})
    found = sequence_file.read(path).sequences
    for sequence, x in zip(found, (small, large, small, large[: 1 << 18], small), strict=True):
        assert same(sequence.sequences["x"], x)


def test_arrays_of_any_kind_that_can_be_the_declared_one(path: Path) -> None:
    table = np.arange(24, dtype=np.float32).reshape(6, 4)
    given: list[Any] = [
        table,
        table[::2],
        table[:, ::-1],
        np.asfortranarray(table),
        table.astype(">f4"),
        table.tolist(),
        [[1, 2, 3, 4]],
        memoryview(table),
        table.view(np.recarray),
    ]
    for name in ("torch", "jax.numpy"):
        try:
            given.append(__import__(name, fromlist=["asarray"]).asarray(table))
        except ImportError:
            pass
    with FileWriter(path, {"x": Feature("float32", 4)}) as writer:
        for value in given:
            writer.write({"x": value})
    for sequence, value in zip(sequence_file.read(path).sequences, given, strict=True):
        assert same(sequence.sequences["x"], np.asarray(value).astype("f4"))


def test_states_that_are_not_given_are_the_declared_ones(path: Path) -> None:
    states = {"h": State("float32", 2, init=[3, 4]), "c": State("int64", (2, 2))}
    with FileWriter(path, {"x": Feature("uint8")}, states=states) as writer:
        writer.write({"x": np.zeros(3, np.uint8)})
        writer.write({"x": np.zeros(3, np.uint8)}, initial_states={"c": np.ones((2, 2), int)})
    first, second = sequence_file.read(path).sequences
    assert first.states["h"].tolist() == second.states["h"].tolist() == [3, 4]
    assert first.states["c"].tolist() == [[0, 0], [0, 0]]
    assert second.states["c"].tolist() == [[1, 1], [1, 1]]


def test_the_page_names_all_dtypes() -> None:
    documented = sequence_file.documented_dtypes()
    assert {name: code for code, name in documented.items()} == _segue.DTYPES


# ---- What is refused ----


@pytest.fixture
def writer(path: Path) -> Iterator[FileWriter]:
    with FileWriter(
        path,
        {"x": Feature("float32", (2, 3)), "y": Feature("bool")},
        {"id": Feature("int32")},
        {"h": State("float64", 2)},
    ) as writer:
        yield writer


X = np.zeros((5, 2, 3), np.float32)
Y = np.zeros(5, bool)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": X.astype(float)},
            "sequences['x']: expected float32 of shape (steps, 2, 3), got float64 of shape "
            "(5, 2, 3)",
        ),
        (
            {"x": X[:, :, :2]},
            "sequences['x']: expected float32 of shape (steps, 2, 3), got float32 of shape "
            "(5, 2, 2)",
        ),
        (
            {"x": X[0]},
            "sequences['x']: expected float32 of shape (steps, 2, 3), got float32 of shape (2, 3)",
        ),
        ({"y": True}, "got bool of shape (): what a sequence has once is declared in context={...}"),
        ({"x": None}, "sequences['x']: expected float32 of shape (steps, 2, 3), got object values"),
        ({"x": [[[1, 2, 3], [1]]]}, "sequences['x']: expected float32 of shape (steps, 2, 3), got"),
        ({"x": X[:4]}, "sequences['x'] has 4 steps and sequences['y'] 5"),
        ({"x": X[:0], "y": Y[:0]}, "the sequence has 0 steps"),
        ({"y": Y.astype(np.uint8)}, "expected bool of shape (steps,), got uint8 of shape (5,)"),
        ({"y": np.full(5, 2, np.uint8).view(bool)}, "has a bool that is neither 0 nor 1"),
        ({"z": 1}, "sequences: 'z' was not declared; declared: 'x', 'y'"),
        ({"id": np.int64(1)}, "context['id']: expected int32 of shape (), got int64 of shape ()"),
        ({"id": 2**31}, "context['id']: expected int32 of shape (), got int64 of shape ()"),
        ({"id": 1.5}, "context['id']: expected int32 of shape (), got float64 of shape ()"),
        ({"id": [1]}, "context['id']: expected int32 of shape (), got int64 of shape (1,)"),
        ({"id": None}, "context['id'] is missing: each sequence has one; this one has []"),
        ({"h": np.zeros(3)}, "initial_states['h']: expected float64 of shape (2,), got float64"),
        ({"key": ""}, "the key has 0 bytes, 1 to 4096 are allowed"),
        ({"key": "k" * 4097}, "the key has 4097 bytes"),
        ({"key": 7}, "key: 7 is neither str nor bytes"),
        ({"length": -1}, "length: -1 is no number of steps"),
        ({"length": True}, "length: True is no number of steps"),
        ({"length": 2**64}, "is no number of steps"),
        ({"length": 2**64 - 1}, "the total length is 18446744073709551615"),
    ],
)
def test_a_sequence_that_does_not_fit(
    writer: FileWriter, path: Path, changes: dict[str, Any], message: str
) -> None:
    """It is refused by name, and nothing of it is in the file."""
    good = {"x": X, "y": Y, "id": 7, "h": np.ones(2), "key": None, "length": None}
    given = good | changes

    def write(given: dict[str, Any]) -> None:
        writer.write(
            {name: given[name] for name in ("x", "y", "z") if name in given},
            {} if given["id"] is None else {"id": given["id"]},
            given["key"],
            given["length"],
            {"h": given["h"]},
        )

    write(good)
    with pytest.raises(segue.ArgumentError) as caught:
        write(given)
    assert message in str(caught.value)
    write(good)
    writer.close()
    assert len(sequence_file.read(path).sequences) == 2


def test_a_file_that_is_there(path: Path) -> None:
    path.write_bytes(b"dear")
    with pytest.raises(segue.SystemCallError, match="is there already"):
        FileWriter(path, {"x": Feature("float32")})
    with pytest.raises(segue.SystemCallError, match="is there already"):
        segue.convert([{"x": [1.0]}], path)
    assert path.read_bytes() == b"dear"


def test_writers_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(segue.SystemCallError, match="No such file"):
        FileWriter(tmp_path / "none" / "x", {"x": Feature("float32")})
    with pytest.raises(segue.ArgumentError, match="at least one sequence feature"):
        FileWriter(tmp_path / "x", {}, {"x": Feature("float32")})
    with pytest.raises(segue.ArgumentError, match="expected segue.Feature, got State"):
        FileWriter(tmp_path / "x", {"x": State("float32")})  # type: ignore[dict-item]
    with pytest.raises(segue.ArgumentError, match="more than 4294967296 bytes"):
        FileWriter(tmp_path / "x", {"x": Feature("uint8", (2**20, 2**20))})
    assert not list(tmp_path.iterdir())


def test_a_writer_that_is_closed(path: Path) -> None:
    writer = FileWriter(path, {"x": Feature("float32")})
    writer.close()
    writer.close()
    writer.abort()
    with pytest.raises(segue.ClosedError, match="data.segue is closed"):
        writer.write({"x": [1.0]})
    assert sequence_file.read(path).sequences == []


def test_a_writer_is_not_copied(writer: FileWriter) -> None:
    for make in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle or copy a segue.FileWriter"):
            make(writer)


def test_a_writer_in_another_call(path: Path) -> None:
    """An array that is made while a sequence is written must not write another one."""

    class Nested:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            with pytest.raises(segue.BusyError, match="is in another call"):
                writer.write({"x": [2.0]})
            return np.array([3.0], np.float32)

    with FileWriter(path, {"x": Feature("float32")}) as writer:
        writer.write({"x": Nested()})
    (sequence,) = sequence_file.read(path).sequences
    assert sequence.sequences["x"].tolist() == [3.0]


def test_nothing_of_what_was_written_is_kept(path: Path) -> None:
    """Neither what was given, nor what was made of it; also where it was refused."""
    x, other = np.zeros(250_000, np.float32), np.zeros(250_000, ">f4")
    values, bad = [1.0, 2.0], np.zeros((2, 2), np.float32)
    with FileWriter(path, {"x": Feature("float32"), "y": Feature("float32")}) as writer:

        def write() -> None:
            writer.write({"x": x, "y": x}, key="k")
            writer.write({"x": other, "y": other}, key=b"k", length=5)
            writer.write({"x": values, "y": values})
            for pair in ((x, bad), (other, bad), (values, None), (x, values)):
                with pytest.raises(segue.ArgumentError):
                    writer.write(dict(zip("xy", pair, strict=True)))

        write()
        counts = [sys.getrefcount(thing) for thing in (x, other, values, bad)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            write()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert [sys.getrefcount(thing) for thing in (x, other, values, bad)] == counts
        assert grown < 100_000


def test_threads_that_write_at_once(path: Path) -> None:
    """One of them is told to wait; what is written is whole."""
    x = np.zeros(1_000_000, np.float32)
    with FileWriter(path, {"x": Feature("float32")}) as writer:
        done, refused = [], []

        def work(number: int) -> None:
            for _ in range(5):
                try:
                    writer.write({"x": x + number})
                    done.append(number)
                except segue.BusyError:
                    refused.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [sequence.sequences["x"] for sequence in sequence_file.read(path).sequences]
    assert sorted(int(x[0]) for x in found) == sorted(done)
    assert all((x == x[0]).all() for x in found)


# ---- Files that are not finished ----


def test_an_exception_removes_the_file(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with FileWriter(path, {"x": Feature("float32")}) as writer:
            writer.write({"x": [1.0]})
            raise ZeroDivisionError
    assert not path.exists()
    assert writer.closed


def test_an_exception_leaves_a_partial_file_if_asked(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with FileWriter(path, {"x": Feature("float32")}, keep_partial=True) as writer:
            writer.write({"x": [1.0]})
            raise ZeroDivisionError
    with pytest.raises(Unfinished):
        sequence_file.read(path)
    assert len(sequence_file.read_entries(path.read_bytes())[1]) == 1


def test_a_writer_that_is_forgotten(path: Path) -> None:
    writer = FileWriter(path, {"x": Feature("float32")})
    writer.write({"x": [1.0]})
    with pytest.warns(ResourceWarning, match="was not closed"):
        del writer
    with pytest.raises(Unfinished):
        sequence_file.read(path)


KILLED = """
import sys, numpy as np, segue
with segue.FileWriter(sys.argv[1], {"x": segue.Feature("float32")}) as writer:
    for number in range(10**9):
        writer.write({"x": np.full(1 + number % 500, number, np.float32)})
        if number == 1000:
            print("going on", flush=True)
"""


def test_a_kill_leaves_whole_sequences_and_no_foot(path: Path) -> None:
    for delay in (0, 0.005, 0.02):
        process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        with pytest.raises(Unfinished):
            sequence_file.read(path)
        found = sequence_file.read_entries(path.read_bytes())[1]
        assert len(found) > 500
        for number, sequence in enumerate(found):
            assert sequence.sequences["x"].tolist() == [number] * (1 + number % 500)
        path.unlink()


def test_ctrl_c_removes_the_file(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate()[1]
    assert not path.exists()


@pytest.mark.parametrize("steps", [100, 10_000, 60_000])
def test_a_full_disk(small_disk: Path, steps: int) -> None:  # noqa: F811
    """What does not fit is refused; what was accepted can be finished, and then is all there."""
    path = small_disk / "data.segue"
    written = 0
    with FileWriter(path, {"x": Feature("float32")}) as writer:
        with pytest.raises(segue.NoSpaceError, match="the disk is full"):
            while True:
                writer.write({"x": np.full(steps, written, np.float32)})
                written += 1
        while steps > 1:  # what is smaller may fit
            steps //= 2
            try:
                writer.write({"x": np.full(steps, written, np.float32)})
                written += 1
            except segue.NoSpaceError:
                pass
    found = sequence_file.read(path).sequences
    assert [int(sequence.sequences["x"][0]) for sequence in found] == list(range(written))
    assert path.stat().st_size > 900_000


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:  # noqa: F811
    fill = small_disk / "fill"
    with pytest.raises(OSError), fill.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    path = small_disk / "data.segue"
    with pytest.raises(segue.NoSpaceError, match="the disk is full"):
        FileWriter(path, {"x": Feature("float32")})
    assert not path.exists()


# ---- Damage ----


def test_each_flip_is_found(path: Path, rng: np.random.Generator) -> None:
    with FileWriter(
        path, {"x": Feature("float32")}, {"c": Feature("uint8")}, {"h": State("int32", 3)}
    ) as writer:
        writer.write({"x": rng.random(7).astype("f4")}, {"c": np.uint8(1)}, "a", 5, {"h": [1] * 3})
        writer.write({"x": rng.random(1100).astype("f4")}, {"c": np.uint8(0)})
    find_each_flip(path, rng)


def test_each_flip_of_what_is_ragged_is_found(path: Path, rng: np.random.Generator) -> None:
    with FileWriter(path, {"w": Feature("int16", ragged=True)}, {"s": Feature("bytes")}) as writer:
        writer.write({"w": [[1, 2], [], [3]]}, {"s": b"abc"})
        writer.write({"w": [[]] * 600}, {"s": b""})
    find_each_flip(path, rng)


def find_each_flip(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    sequence_file.parse(data)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Damaged):
            sequence_file.parse(bytes(damaged))


def test_each_cut_is_found(path: Path) -> None:
    with FileWriter(path, {"x": Feature("float32")}) as writer:
        writer.write({"x": [1.0]})
    data = path.read_bytes()
    for size in range(len(data)):
        with pytest.raises(Damaged):
            sequence_file.parse(data[:size])
    with pytest.raises(Damaged):
        sequence_file.parse(data + b"\0")


def test_a_sound_entry_in_the_place_of_another_is_found(path: Path) -> None:
    with FileWriter(path, {"x": Feature("float32")}) as writer:
        writer.write({"x": [1.0]}, key="a")
        writer.write({"x": [2.0]}, key="b")
    data = path.read_bytes()
    with pytest.raises(Damaged, match="CRC of a header in the index"):
        sequence_file.parse(data[:64] + data[192:320] + data[64:192] + data[320:])


# ---- convert ----


def items(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    return [
        {
            "x": rng.random((int(steps), 2)).astype(np.float32),
            "label": rng.integers(0, 9, steps),
            "speaker": int(rng.integers(100)),
        }
        for steps in rng.integers(1, 50, count)
    ]


def check_items(path: Path, given: list[dict[str, Any]], context: tuple[str, ...]) -> None:
    found = sequence_file.read(path).sequences
    assert len(found) == len(given)
    for sequence, item in zip(found, given, strict=True):
        check(sequence.sequences, {n: v for n, v in item.items() if n not in context})
        check(sequence.context, {n: np.asarray(item[n]) for n in item if n in context})


def test_convert_an_iterable(path: Path, rng: np.random.Generator) -> None:
    given = items(rng, 100)
    done = segue.convert(iter(given), path)
    check_items(path, given, ("speaker",))
    assert done.sequences == 100
    assert done.steps == sum(len(item["x"]) for item in given)
    assert done.bytes == path.stat().st_size
    assert repr(done).startswith(f"<segue.Converted: {path}: 100 sequences, {done.steps:,} steps, ")


def test_convert_what_is_named(path: Path, rng: np.random.Generator) -> None:
    given = [
        {**item, "table": np.eye(2), "h0": np.full(3, n, np.float32), "name": f"n{n}", "other": "-"}
        for n, item in enumerate(items(rng, 5))
    ]
    segue.convert(
        given,
        path,
        sequences={"x": Feature("float32", 2)},
        context=["table", "speaker"],
        states={"h0": State("float32", 3)},
        key="name",
    )
    file = sequence_file.read(path)
    assert [(f.place, f.name) for f in file.fields] == [
        ("sequences", "x"),
        ("context", "table"),
        ("context", "speaker"),
        ("states", "h0"),
    ]
    for n, (sequence, item) in enumerate(zip(file.sequences, given, strict=True)):
        assert sequence.key == b"n%d" % n
        assert same(sequence.sequences["x"], item["x"])
        assert same(sequence.context["table"], item["table"])
        assert same(sequence.states["h0"], item["h0"])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("id", [b"10", b"11", b"12"]),
        (lambda number, item: f"{number}/{item['id']}", [b"0/10", b"1/11", b"2/12"]),
        (None, [b"data.segue:0", b"data.segue:1", b"data.segue:2"]),
    ],
)
def test_convert_keys(path: Path, key: Any, expected: list[bytes]) -> None:
    segue.convert([{"x": [1.0], "id": np.int64(10 + n)} for n in range(3)], path, key=key)
    assert [sequence.key for sequence in sequence_file.read(path).sequences] == expected


def test_convert_what_is_ragged(path: Path) -> None:
    given = [{"w": [[1] * n, [2], []], "name": f"n{n}"} for n in range(3)]
    with pytest.raises(segue.ArgumentError, match=r"segue\.Feature\(dtype, ragged=True\)"):
        segue.convert([{"w": given[2]["w"]}], path)
    with pytest.raises(segue.ArgumentError, match=r"'name'\] of item 0 is text: declare it"):
        segue.convert(given, path, sequences={"w": Feature("int32", ragged=True)})
    declared = {"w": Feature("int32", ragged=True)}
    segue.convert(given, path, sequences=declared, context={"name": Feature("bytes")})
    for n, sequence in enumerate(sequence_file.read(path).sequences):
        assert [part.tolist() for part in sequence.sequences["w"]] == [[1] * n, [2], []]
        assert sequence.context["name"] == b"n%d" % n


def test_convert_examples(path: Path) -> None:
    examples = [
        SimpleNamespace(
            sequences={"x": np.full(5, n, np.float32)},
            context={"c": n},
            key=f"e{n}",
            length=n,
            initial_states={"h": np.full(2, n, np.float32)},
        )
        for n in range(4)
    ]
    segue.convert(examples, path)
    for n, sequence in enumerate(sequence_file.read(path).sequences):
        assert sequence.key == b"e%d" % n and sequence.length == n
        assert sequence.sequences["x"].tolist() == [n] * 5
        assert sequence.context["c"] == n
        assert sequence.states["h"].tolist() == [n, n]
    path.unlink()
    segue.convert([SimpleNamespace(sequences={"x": [1.0]})] * 2, path)
    assert len(sequence_file.read(path).sequences) == 2


def test_convert_a_mapping_of_lists(path: Path, rng: np.random.Generator) -> None:
    given = items(rng, 20)
    segue.convert({name: [item[name] for item in given] for name in given[0]}, path)
    check_items(path, given, ("speaker",))


@pytest.mark.parametrize("by", ["lengths", "offsets"])
def test_convert_arrays_of_all_steps(path: Path, rng: np.random.Generator, by: str) -> None:
    given = items(rng, 20)
    for item in given:
        item["speaker"] = np.array([item["speaker"], 1])  # one value a sequence, of two numbers
    lengths = [len(item["x"]) for item in given]
    source: dict[str, Any] = {
        name: np.concatenate([item[name] for item in given]) for name in ("x", "label")
    }
    source["speaker"] = np.stack([item["speaker"] for item in given])
    bounds = {"lengths": lengths, "offsets": np.cumsum([0, *lengths])}[by]
    segue.convert(source, path, **{by: bounds})
    check_items(path, given, ("speaker",))


def bad_items() -> Iterator[tuple[str, Any, dict[str, Any], str]]:
    x = np.zeros(3, np.float32)
    yield "dtype", [{"x": x}, {"x": x.astype(float)}], {}, (
        "item 1: sequences['x']: expected float32 of shape (steps,), got float64 of shape (3,): convert it "
        '(.astype("float32")), or declare it as float64'
    )
    yield "once", [{"x": x}], {"sequences": {"x": Feature("float32", 3)}}, (
        "expected float32 of shape (steps, 3), got float32 of shape (3,): what a sequence has once is "
        "declared in context={...}"
    )
    yield "missing", [{"x": x, "y": x}] * 2 + [{"x": x}], {}, (
        "item 2: sequences['y'] is missing: each sequence has one; this one has ['x']"
    )
    yield "surplus", [{"x": x}, {"x": x, "y": x}], {}, "item 1: 'y' was not in item 0"
    yield "steps", [{"x": x, "y": x}, {"x": x, "y": x[:2]}], {}, (
        "item 1: sequences['x'] has 3 steps and sequences['y'] 2"
    )
    yield "first", [{"x": x, "y": x[:2]}], {}, "'x' 3, 'y' 2; name those that have one value"
    yield "empty", [], {}, "source: it has no sequence"
    yield "text", [{"x": x, "t": "abc"}], {}, "context['t'] of item 0 is text"
    yield "texts", [{"t": ["a", "b"]}], {}, (
        "sequences['t'] of item 0 is text: declare it (sequences={...: segue.Feature('bytes')})"
    )
    yield "half", [{"x": np.zeros(3, np.complex64)}], {}, "has dtype complex64, which is none of"
    yield "number", 7, {}, "source: expected an iterable of mappings of arrays"
    yield "path", "data.npz", {}, "source: expected an iterable of mappings of arrays"
    yield "arrays", [x], {}, (
        "item 0: expected a mapping of arrays, got ndarray: have the data set make a dict of each item, "
        'such as {"x": item}'
    )
    yield "pairs", [(x, 1)], {}, 'got tuple: have the data set make a dict of each item, such as {"x": item[0]'
    yield "later", [{"x": x}, x], {}, "item 1: expected a mapping of arrays, got ndarray"
    yield "named", [{"x": x}], {"context": ["c"]}, "context: 'c' is not in item 0, which has 'x'"
    yield "key", [{"x": x}], {"key": "k"}, "item 0: 'k' is missing"
    yield "key name", [{"x": x, "id": "a"}], {"key": "k"}, "which is to be the key; it has 'x', 'id'"
    yield "key type", [{"x": x, "k": 1.5}], {"key": "k"}, "item 0: key: 1.5 is neither str nor"
    yield "key kind", [{"x": x}], {"key": 3}, "key: 3 is neither a name nor callable"
    yield "lists", {"x": [x], "y": [x, x]}, {}, "lists of different lengths: 'x' 1, 'y' 2"
    yield "lengths", {"x": x}, {"lengths": [1, 1]}, "'x' has 3 values: expected 2, one a step, or 2"
    yield "zero", {"x": x}, {"lengths": [3, 0]}, "lengths: sequence 1 has no steps"
    yield "floats", {"x": x}, {"lengths": [1.0, 2.0]}, "lengths: expected whole numbers"
    yield "both", {"x": x}, {"lengths": [3], "offsets": [0, 3]}, "give one of them"
    yield "offsets", {"x": x}, {"offsets": [1, 3]}, "offsets: expected where each sequence begins"
    yield "iterable", [{"x": x}], {"lengths": [3]}, "they are for a mapping of names"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [pytest.param(*rest, id=name) for name, *rest in bad_items()],
)
def test_convert_what_does_not_fit(
    path: Path, source: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(segue.ArgumentError) as caught:
        segue.convert(source, path, **options)
    assert message in str(caught.value)
    assert not path.exists()


def test_convert_a_source_that_raises(path: Path) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield {"x": [1.0]}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        segue.convert(source(), path)
    assert not path.exists()
    with pytest.raises(ZeroDivisionError):
        segue.convert(source(), path, keep_partial=True)
    assert len(sequence_file.read_entries(path.read_bytes())[1]) == 1


def test_convert_tells_how_far_it_is(path: Path) -> None:
    told = []

    def source() -> Iterator[dict[str, Any]]:
        for _ in range(6):
            time.sleep(0.06)
            yield {"x": [1.0, 2.0]}

    segue.convert(source(), path, progress=lambda *words: told.append(words))
    assert told[-1] == ("convert", 6, 0)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert 2 <= len(told) <= 6
    path.unlink()
    segue.convert([{"x": [1.0]}] * 3, path, progress=lambda *words: told.append(words))
    assert told[-1] == ("convert", 3, 3)


def test_convert_shows_a_line_when_it_takes_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def source() -> Iterator[dict[str, Any]]:
        for _ in range(13):
            time.sleep(0.1)
            yield {"x": [1.0, 2.0]}

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    segue.convert([{"x": [1.0]}], path)
    assert terminal.getvalue() == ""
    path.unlink()
    segue.convert(source(), path)
    text = terminal.getvalue()
    assert text.startswith(f"\rsegue: {path}: ") and text.endswith("\n") and text.count("\n") == 1
    assert "13 sequences, 26 steps, " in text and " steps/s" in text

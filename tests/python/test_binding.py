"""The Python binding against a real server: arrays, lifetimes, errors, fork, signals, loaders.

What a batch must hold is worked out here from the made-up data set, apart from the library.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.tfrecord import SequenceExampleWriter

UNROLL = 4
INIT = np.array([0.5, -1.0, 2.0], np.float32)


def steps_of(record: int) -> int:
    return 3 + record * 5 % 9


def values_of(record: int) -> np.ndarray:
    return record * 100 + np.arange(steps_of(record))


def write_data(directory: Path, records: int) -> Path:
    path = directory / f"data-{records}.tfrecord"
    with SequenceExampleWriter(path) as writer:
        for record in range(records):
            values = values_of(record)
            writer.write(
                sequences={"token": values.astype(np.float32), "label": values},
                context={"speaker": record},
            )
    return path


def open_stream(client: segue.Client, tmp_path: Path, records: int = 6, **options: Any):
    path = tmp_path / f"data-{records}.tfrecord"
    if not path.exists():
        write_data(tmp_path, records)
    arguments: dict[str, Any] = {
        "name": "train",
        "source": segue.TFRecord(path),
        "sequences": {"token": segue.Feature("float32"), "label": segue.Feature("int64")},
        "context": {"speaker": segue.Feature("int64")},
        "states": {"h": segue.State("float32", [3], init=INIT), "n": segue.State("int64")},
        "num_unroll": UNROLL,
        "batch_size": 2,
    }
    arguments.update(options)
    return client.stream(arguments.pop("name"), **arguments)


@pytest.fixture
def stream(client: segue.Client, tmp_path: Path) -> segue.Stream:
    return open_stream(client, tmp_path)


def save(batch: segue.Batch, add: float = 1) -> None:
    """Saves states from which the number of segments can be read: h + add, n + 1."""
    batch.save_state("h", batch.state("h") + np.float32(add))
    batch.save_state("n", batch.state("n") + 1)


def segments(batch: segue.Batch) -> list[tuple[int, int, int]]:
    """(epoch, record, segment) of each row."""
    return list(
        zip(
            batch.epoch.tolist(),
            batch.context["speaker"].tolist(),
            batch.sequence.tolist(),
        )
    )


def expected_segments(records: int, epochs: int = 1) -> list[tuple[int, int, int]]:
    return [
        (epoch, record, segment)
        for epoch in range(epochs)
        for record in range(records)
        for segment in range(-(-steps_of(record) // UNROLL))
    ]


# -- what a batch holds ----------------------------------------------------------------------------


def test_arrays_are_plain_read_only_views(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    arrays = [
        (batch.sequences["token"], np.float32, (2, UNROLL)),
        (batch.sequences["label"], np.int64, (2, UNROLL)),
        (batch.context["speaker"], np.int64, (2,)),
        (batch.state("h"), np.float32, (2, 3)),
        (batch.state("n"), np.int64, (2,)),
        (batch.sequence, np.int32, (2,)),
        (batch.sequence_count, np.int32, (2,)),
        (batch.length, np.int32, (2,)),
        (batch.total_length, np.int64, (2,)),
        (batch.insertion_index, np.int64, (2,)),
        (batch.epoch, np.int64, (2,)),
        (batch.is_first, np.bool_, (2,)),
        (batch.is_last, np.bool_, (2,)),
        (batch.mask, np.bool_, (2, UNROLL)),
    ]
    for array, dtype, shape in arrays:
        assert type(array) is np.ndarray
        assert array.dtype == dtype and array.shape == shape
        assert not array.flags.writeable and not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError):
            array.flags.writeable = True
    assert batch.sequences["token"].ctypes.data % 64 == 0
    assert batch.sequences["token"] is batch.sequences["token"]
    assert batch.state("h") is batch.state("h")
    assert (batch.step, batch.lane, batch.batch_size) == (0, 0, 2)
    assert "step 0 of lane 0, 2 rows" in repr(batch)


def test_features_are_a_read_only_mapping(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    assert list(batch.sequences) == ["token", "label"]
    assert dict(batch.context).keys() == {"speaker"}
    with pytest.raises(KeyError):
        batch.sequences["speaker"]
    with pytest.raises(TypeError):
        batch.sequences["token"] = np.zeros(2)  # type: ignore[index]


def test_every_segment_comes_once_with_its_values_and_states(stream: segue.Stream) -> None:
    seen = []
    for step, batch in enumerate(stream.loader()):
        assert batch.step == step
        for row, (_, record, segment) in enumerate(segments(batch)):
            values = values_of(record)
            valid = values[segment * UNROLL : (segment + 1) * UNROLL]
            last = segment == -(-len(values) // UNROLL) - 1
            assert batch.length[row] == len(valid)
            assert batch.total_length[row] == len(values)
            assert batch.sequence_count[row] == -(-len(values) // UNROLL)
            assert batch.mask[row].tolist() == [t < len(valid) for t in range(UNROLL)]
            for name in ("token", "label"):
                row_values = batch.sequences[name][row]
                assert row_values[: len(valid)].tolist() == valid.tolist()
                assert not row_values[len(valid) :].any()
            assert batch.is_first[row] == (segment == 0)
            assert batch.is_last[row] == last
            assert batch.insertion_index[row] == record
            assert batch.state("h")[row].tolist() == (INIT + segment).tolist()
            assert batch.state("n")[row] == segment
        save(batch)
        seen += segments(batch)
    assert sorted(seen) == expected_segments(6)


def test_keys(stream: segue.Stream) -> None:
    for batch in stream.loader():
        for row, (key, following) in enumerate(zip(batch.key, batch.next_key)):
            segment, count = batch.sequence[row], batch.sequence_count[row]
            match = re.fullmatch(rb"(\d{5})_of_(\d{5}):(.+)", key)
            assert match and (int(match[1]), int(match[2])) == (segment, count)
            if batch.is_last[row]:
                assert following == b"STOP:" + match[3]
            else:
                assert following == b"%05d_of_%05d:%s" % (segment + 1, count, match[3])
        save(batch)


def test_dtypes(client: segue.Client, tmp_path: Path) -> None:
    states = {name: segue.State(name, [2]) for name in segue._segue.DTYPES}
    stream = open_stream(client, tmp_path, states=states)
    for batch in stream.loader():
        for name in states:
            array = batch.state(name)
            assert array.dtype == np.dtype(name) and array.shape == (batch.batch_size, 2)
            expected = (batch.sequence % 2 == 1).astype(name)
            assert array[:, 0].tolist() == expected.tolist()
            batch.save_state(name, (np.asarray(array) == 0).astype(name))


# -- saving states ---------------------------------------------------------------------------------


def test_wrong_state_name(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    for call in (batch.state, batch.state_out, lambda name: batch.save_state(name, INIT)):
        with pytest.raises(
            segue.StateNameError, match=r"no state 'x'; it has \['h', 'n'\]"
        ) as info:
            call("x")
        assert isinstance(info.value, KeyError) and isinstance(info.value, segue.StateError)
    with pytest.raises(TypeError, match="takes 2 arguments"):
        batch.save_state("h")  # type: ignore[call-arg]


class Wrapped:
    """An array that only `__array__` gives out."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


@pytest.mark.parametrize(
    "value, kind, got",
    [
        (np.zeros((2, 3)), TypeError, 'float64 of shape (2, 3): convert it (.astype("float32"))'),
        (np.zeros((2, 3), np.int32), TypeError, "int32 of shape (2, 3)"),
        (np.zeros((2, 3), ">f4"), TypeError, ">f4 of shape (2, 3)"),
        (np.zeros((2, 3), np.float16), TypeError, "float16 of shape (2, 3)"),
        (np.zeros((3, 3), np.float32), ValueError, "float32 of shape (3, 3): this batch has 2 rows"),
        (np.zeros((2, 4), np.float32), ValueError, "float32 of shape (2, 4)"),
        (np.zeros(6, np.float32), ValueError, "float32 of shape (6,)"),
        (np.zeros((2, 3, 1), np.float32), ValueError, "float32 of shape (2, 3, 1)"),
        (np.float32(0), ValueError, "float32 of shape ()"),
        ([[0.0] * 3] * 2, TypeError, "float64 of shape (2, 3)"),
        (b"bytes of no shape", TypeError, "of shape ()"),
        (None, TypeError, "object of shape ()"),
        (np.zeros((2, 3), "M8[s]"), TypeError, "datetime64[s] of shape (2, 3)"),
        (Wrapped(np.zeros((2, 3), "M8[s]")), TypeError, "datetime64[s] of shape (2, 3)"),
        (memoryview(bytes(16)).cast("P"), TypeError, "memoryview, which NumPy cannot read"),
    ],
)
def test_wrong_dtype_or_shape(stream: segue.Stream, value: Any, kind: type, got: str) -> None:
    batch = next(iter(stream.loader()))
    with pytest.raises(kind) as info:
        batch.save_state("h", value)
    assert isinstance(info.value, segue.StateError) and info.value.code == "ESTATE"
    assert "state 'h': expected float32 of shape (2, 3), got " in str(info.value)
    assert got in str(info.value)
    assert not batch.all_saved


def test_memory_that_was_given_back(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    gone = memoryview(np.zeros((2, 3), np.float32))
    gone.release()
    with pytest.raises(segue.StateTypeError, match="state 'h': expected float32"):
        batch.save_state("h", gone)


def carried(stream: segue.Stream, value: Any) -> np.ndarray:
    """Saves `value` as h of the first batch and returns the h of the second."""
    batches = iter(stream.loader())
    batch = next(batches)
    assert (batch.sequence_count > 1).sum() == 1  # records of 3 and 8 steps: row 1 goes on
    batch.save_state("h", value)
    batch.save_state("n", batch.state("n"))
    return next(batches).state("h")[1].copy()


def test_what_can_be_saved(client: segue.Client, tmp_path: Path) -> None:
    want = np.arange(6, dtype=np.float32).reshape(2, 3)

    class HasArray:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return want

    class HasDLPack:
        def __dlpack__(self, **options: Any) -> Any:
            return want.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return want.__dlpack_device__()

    values = [want, np.asfortranarray(want), want[::-1][::-1], memoryview(want)]
    for i, value in enumerate([*values, HasArray(), HasDLPack()]):
        stream = open_stream(client, tmp_path, name=f"s{i}")
        assert carried(stream, value).tolist() == want[1].tolist()


def test_state_out_is_saved_without_copy(stream: segue.Stream) -> None:
    batches = iter(stream.loader())
    batch = next(batches)
    out = batch.state_out("h")
    assert out.flags.writeable and out is batch.state_out("h")
    out[...] = 7
    assert not batch.all_saved
    batch.save_state("h", out)
    out[...] = 8  # still the same memory: nothing was copied
    batch.save_state("n", batch.state("n"))
    batch.commit()
    with pytest.raises(ValueError, match="read-only"):
        out[...] = 9
    assert next(batches).state("h")[1].tolist() == [8, 8, 8]


def test_after_commit(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    save(batch)
    assert batch.all_saved and not batch.committed
    batch.commit()
    assert batch.committed
    with pytest.raises(segue.CommittedError):
        save(batch)
    with pytest.raises(segue.CommittedError):
        batch.state_out("h")
    with pytest.raises(segue.CommittedError):
        batch.commit()
    assert batch.state("h").shape == (2, 3)


def test_torch(client: segue.Client, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    stream = open_stream(client, tmp_path)
    batch = next(iter(stream.loader()))
    for array in (batch.sequences["token"], batch.state("h"), batch.length, batch.mask):
        tensor = torch.from_dlpack(array)
        assert tensor.data_ptr() == array.ctypes.data and tuple(tensor.shape) == array.shape
        assert tensor.numpy().tolist() == array.tolist()
    batch.release()
    value = torch.arange(6, dtype=torch.float32).reshape(2, 3).requires_grad_()
    assert carried(open_stream(client, tmp_path, name="b"), value * 2).tolist() == [6, 8, 10]
    batch = next(iter(open_stream(client, tmp_path, name="c").loader()))
    with pytest.raises(segue.StateTypeError, match="got float64"):
        batch.save_state("h", value.double())
    with pytest.raises(segue.StateTypeError, match="got bfloat16"):
        batch.save_state("h", value.bfloat16())
    with pytest.raises(segue.StateTypeError, match="Tensor is not an array"):
        batch.save_state("h", value.detach().to_sparse())


def test_tensors_hold_the_slot(client: segue.Client, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    stream = open_stream(client, tmp_path)
    batches = iter(stream.loader())
    tensor = torch.from_dlpack(next(batches).sequences["token"])
    del batches, stream
    assert tensor[0, :3].tolist() == [0, 1, 2]


# -- going on --------------------------------------------------------------------------------------


def test_advancing_without_saving_names_the_states(stream: segue.Stream) -> None:
    batches = iter(stream.loader())
    batch = next(batches)
    batch.save_state("h", batch.state("h"))
    with pytest.raises(segue.UnsavedError, match=r"\bn\b") as info:
        next(batches)
    assert "h" not in re.findall(r"\b\w\b", str(info.value))
    batch.save_state("n", batch.state("n"))
    assert next(batches).step == 1


def test_commit_without_saving_names_the_states(stream: segue.Stream) -> None:
    batch = next(iter(stream.loader()))
    with pytest.raises(segue.UnsavedError) as info:
        batch.commit()
    assert {"h", "n"} <= set(re.findall(r"\b\w\b", str(info.value)))
    assert not batch.committed


def test_a_batch_that_was_left_is_delivered_again(stream: segue.Stream) -> None:
    loader = stream.loader()
    for batch in loader:
        first = segments(batch), batch.state("h").tolist()
        break
    del batch
    for batch in loader:
        assert (segments(batch), batch.state("h").tolist()) == first
        save(batch)
        batch.commit()
        break
    for batch in loader:
        assert batch.step == 1
        break


def test_released_batch(stream: segue.Stream) -> None:
    batches = iter(stream.loader())
    batch = next(batches)
    token = batch.sequences["token"]
    batch.release()
    assert batch.released and "released" in repr(batch)
    for use in (
        lambda: batch.sequences,
        lambda: batch.length,
        lambda: batch.key,
        lambda: batch.state("h"),
        lambda: batch.save_state("h", INIT),
        batch.commit,
    ):
        with pytest.raises(segue.ClosedError, match="batch 0 of lane 0 was released"):
            use()
    assert token[0, :3].tolist() == [0, 1, 2]
    del token
    assert next(batches).step == 0


def test_slots_come_back_without_the_collector(stream: segue.Stream) -> None:
    gc.collect()
    gc.disable()
    try:
        count = 0
        for batch in stream.loader():  # noqa: B007
            _ = batch.sequences, batch.context, batch.mask, batch.length, batch.state_out("h")
            save(batch)
            count += 1
        assert count > 6  # more than the ring holds
    finally:
        gc.enable()


RELEASED = """
import gc, pathlib, sys
import segue, test_binding

directory, name = pathlib.Path(sys.argv[1]), sys.argv[2]
left = 0

def release(phase, info):
    global left
    left -= phase == "start"
    if left == 0:
        batch.release()

with segue.open(directory / "store") as client:
    stream = test_binding.open_stream(client, directory, lanes=1)
    for more in range(12):
        loader = stream.loader(start="fresh")
        batches = iter(loader)
        batch = next(batches)
        lists = [[] for _ in range(200)]  # so that none is at hand, and the collector counts
        left = more + 1
        gc.callbacks.append(release)
        gc.set_threshold(1)
        try:
            got = batch.state(name) if name in "hn" else getattr(batch, name)
            assert len(got) == 2
        except segue.ClosedError:
            pass
        gc.callbacks.remove(release)
        gc.set_threshold(700)
        released, got = batch.released, None
        if released:  # nothing of it stayed behind
            assert next(batches).step == 0
        loader.close()
"""


@pytest.mark.parametrize("name", ["sequences", "key", "length", "h"])
def test_the_collector_may_release_what_is_being_read(tmp_path: Path, name: str) -> None:
    subprocess.run(
        [sys.executable, "-c", RELEASED, str(tmp_path), name],
        env={**os.environ, "PYTHONMALLOC": "debug", "PYTHONPATH": str(Path(__file__).parent)},
        check=True,
    )


def test_arrays_of_a_batch_that_was_released_uncommitted(stream: segue.Stream) -> None:
    loader = stream.loader()
    batch = next(iter(loader))
    token, h, out = batch.sequences["token"], batch.state("h"), batch.state_out("h")
    part = out[:1]
    out[...] = 7
    batch.release()
    assert not out.flags.writeable
    again = next(iter(loader))
    assert again.step == 0
    assert again.sequences["token"].ctypes.data == token.ctypes.data, "the same memory"
    assert (again.state("h") == h).all()
    new = again.state_out("h")
    assert new.ctypes.data != out.ctypes.data, "who still writes to the old one changes nothing"
    new[...] = 1
    again.save_state("h", new)
    again.save_state("n", again.state("n"))
    new[...] = 2  # until the commit
    part[...] = 9
    again.commit()
    assert not new.flags.writeable
    del part, out
    batch = next(iter(loader))
    assert batch.step == 1 and (batch.state("h")[~batch.is_first] == 2).all()
    assert batch.state_out("h").base is not None


def test_saving_another_array_than_that_of_state_out(stream: segue.Stream) -> None:
    loader = stream.loader()
    batch = next(iter(loader))
    kept = batch.state_out("h")
    batch.release()
    batch = next(iter(loader))
    out = batch.state_out("h")  # memory of its own, since `kept` lives
    out[...] = 3
    batch.save_state("h", out)
    batch.save_state("h", np.full_like(out, 4))
    batch.save_state("n", batch.state("n"))
    batch.commit()
    assert kept is not None
    batch = next(iter(loader))
    assert (batch.state("h")[~batch.is_first] == 4).all(), "the last one counts"


def test_holding_too_many_batches_is_an_error(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=40, depth=3)
    held = []
    with pytest.raises(segue.HeldError):
        for batch in stream.loader():
            held.append(batch.sequences["token"])  # an array alone holds the slot
            save(batch)
    assert 1 < len(held) <= 4
    values = [array.copy() for array in held]
    held.pop()
    assert all((a == b).all() for a, b in zip(held, values))


def test_arrays_outlive_everything(tmp_path: Path) -> None:
    client = segue.open(tmp_path / "store")
    stream = open_stream(client, tmp_path)
    loader = stream.loader()
    batch = next(iter(loader))
    token, h, length = batch.sequences["token"], batch.state("h"), batch.length
    out = batch.state_out("h")
    want = token.copy(), h.copy(), length.copy()
    del client, stream, loader, batch
    gc.collect()
    assert all((a == b).all() for a, b in zip((token, h, length), want))
    del token, length
    gc.collect()
    assert (h == want[1]).all()
    with pytest.raises(ValueError, match="read-only"):
        out[...] = 1
    del out
    memory = memoryview(h)
    del h
    assert memory[1, 2] == want[1][1, 2]


@pytest.mark.parametrize("closed", [False, True])
def test_arrays_keep_no_server_up(tmp_path: Path, closed: bool) -> None:
    client = segue.open(tmp_path / "store")
    pid = client.status()["server"]["pid"]
    loader = open_stream(client, tmp_path).loader()
    batch = next(iter(loader))
    token, want = batch.sequences["token"], batch.sequences["token"].copy()
    save(batch)
    batch.commit()
    if closed:
        client.close()  # with `batch` and `loader` alive
    else:
        del client, loader  # with a committed batch alive
    limit = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < limit, "the server is still there"
        time.sleep(0.01)
    assert (token == want).all() and batch.sequences["token"] is token


def test_arrays_that_go_late_are_waited_for(client: segue.Client, tmp_path: Path) -> None:
    """As JAX lets go of its inputs: in a thread of its own, when it has come to it."""
    loader = open_stream(client, tmp_path, records=40, depth=2).loader()
    held: list[Any] = []
    seen = 0

    def let_go() -> None:
        time.sleep(0.05)
        held.clear()

    for batch in loader:
        seen += 1
        save(batch)
        if len(held) == 1:
            threading.Thread(target=let_go).start()
        held.append(batch.sequences["token"])
        del batch
    assert seen > 10


def test_arrays_in_a_cycle_are_collected(client: segue.Client, tmp_path: Path) -> None:
    loader = open_stream(client, tmp_path, records=16, depth=2).loader()
    gc.disable()
    try:
        for batch in loader:
            save(batch)
            ring: list[Any] = [batch.sequences["token"]]
            ring.append(ring)
            del batch, ring
    finally:
        gc.enable()


def test_objects_go_in_any_order(tmp_path: Path) -> None:
    for n, order in enumerate(itertools.permutations(range(4))):
        client = segue.open(tmp_path / "store")
        stream = open_stream(client, tmp_path)
        loader = stream.loader(start="fresh")
        objects: list[Any] = [client, stream, loader, next(iter(loader))]
        del client, stream, loader
        if n % 2:
            objects[3] = objects[3].state("n")
        for i in order:
            objects[i] = None


# -- closing ---------------------------------------------------------------------------------------


def test_use_after_close(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path)
    loader = stream.loader()
    batches = iter(loader)
    batch = next(batches)
    token = batch.sequences["token"]
    loader.close()
    loader.close()
    for use in (lambda: iter(loader), loader.state_dict, lambda: loader.load_state_dict({})):
        with pytest.raises(segue.ClosedError, match="the loader is closed"):
            use()
    with pytest.raises(segue.ClosedError):
        next(batches)
    with pytest.raises(segue.ClosedError, match="lane 0 is closed"):
        batch.commit()
    with pytest.raises(segue.ClosedError, match="lane 0 is closed"):
        save(batch)
    assert token[0, :3].tolist() == batch.sequences["token"][0, :3].tolist() == [0, 1, 2]

    stream.close()
    assert stream.closed
    with pytest.raises(segue.ClosedError, match="the stream is closed"):
        next(iter(stream.loader()))
    with pytest.raises(segue.ClosedError, match="the stream is closed"):
        _ = stream.records

    client.close()
    client.close()
    assert client.closed and "closed" in repr(client)
    with pytest.raises(segue.ClosedError, match="the client is closed"):
        client.status()
    with pytest.raises(segue.ClosedError, match="the client is closed"):
        open_stream(client, tmp_path)
    assert token[1, 0] == 100
    assert batch.state("h").shape == (2, 3)


def test_closing_the_client_ends_its_leases(tmp_path: Path) -> None:
    with segue.open(tmp_path / "store") as other:
        client = segue.open(tmp_path / "store")
        stream = open_stream(client, tmp_path)
        batch = next(iter(stream.loader()))
        save(batch)
        batch.commit()
        client.close()  # with a batch alive
        again = next(iter(open_stream(other, tmp_path).loader(start="continue")))
        assert again.step == 1
        assert batch.sequences["token"][0, 1] == 1


def test_context_managers(tmp_path: Path) -> None:
    with segue.open(tmp_path / "store") as client, open_stream(client, tmp_path) as stream:
        with stream.loader() as loader:
            for batch in loader:
                save(batch)
        assert loader.closed
    assert client.closed and stream.closed


@pytest.mark.parametrize("close", ["stream", "client", "with", "loader"])
def test_every_close_says_what_is_not_on_disk(tmp_path: Path, close: str) -> None:
    with segue.open(tmp_path / "store") as keeper:
        client = segue.open(tmp_path / "store", program="/bin/false", timeout=1)
        stream = open_stream(client, tmp_path, interval=600.0, lanes=2)
        loader = stream.loader()
        for batch in itertools.islice(loader, 3):
            save(batch)
        batch.commit()
        del batch
        os.kill(keeper.status()["server"]["pid"], signal.SIGKILL)
        with pytest.raises(segue.GoneError, match="/bin/false"):
            if close == "with":
                with client:
                    pass
            else:
                {"stream": stream, "client": client, "loader": loader}[close].close()
        if close != "loader":
            assert stream.closed
            assert client.closed == (close != "stream")
        client.close()


def test_a_loader_whose_close_fails_goes_without_the_collector(tmp_path: Path) -> None:
    with segue.open(tmp_path / "store") as keeper:
        client = segue.open(tmp_path / "store", program="/bin/false", timeout=1)
        loader = open_stream(client, tmp_path, interval=600.0).loader()
        batch = next(iter(loader))
        save(batch)
        batch.commit()
        os.kill(keeper.status()["server"]["pid"], signal.SIGKILL)
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(segue.GoneError):
                loader.close()
            assert loader.closed
            gone = weakref.ref(loader)
            del loader
            assert gone() is None
        finally:
            gc.enable()


def test_what_is_committed_is_frozen_though_it_is_not_on_disk(tmp_path: Path) -> None:
    with segue.open(tmp_path / "store") as keeper:
        client = segue.open(tmp_path / "store", program="/bin/false", timeout=1)
        loader = open_stream(client, tmp_path, interval=600.0).loader()
        batch = next(iter(loader))
        out = batch.state_out("h")
        out[...] = 1
        batch.save_state("h", out)
        batch.save_state("n", batch.state("n"))
        os.kill(keeper.status()["server"]["pid"], signal.SIGKILL)
        with pytest.raises(segue.GoneError, match="/bin/false"):
            batch.commit(wait=True)
        assert batch.committed and not out.flags.writeable
        with pytest.raises(segue.GoneError):
            client.close()


def test_a_newer_loader_of_another_client_takes_over(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path)
    loader = stream.loader()
    batches = iter(loader)
    save(next(batches))
    batch = next(batches)
    save(batch)
    with segue.open(tmp_path / "store") as other:
        newer = open_stream(other, tmp_path).loader()
        with pytest.raises(segue.StartError, match="older loader of this process .*at step 1"):
            next(iter(newer))  # nothing was said about the position that there is
        assert loader.state_dict() is not None  # and commits
        newer = open_stream(other, tmp_path).loader(start="continue")
        assert next(iter(newer)).step == 2
        with pytest.raises(segue.FencedError, match="taken over by a newer loader"):
            next(batches)
        loader.close()


def test_an_older_loader_gives_all_its_lanes_back(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, lanes=3)
    older = stream.loader()
    kept = [batch.sequences["token"] for batch in next(older.rounds())]
    newer = stream.loader(lanes=[1], start="continue")
    assert next(iter(newer)).lane == 1
    states = [lane["state"] for lane in client.status()["streams"][0]["lanes"]]
    assert states == ["free", "held", "free"]
    assert [array.shape for array in kept] == [(2, 4)] * 3


# -- fork, threads, signals ------------------------------------------------------------------------


def in_child(body: Any) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException as error:  # the report of the child
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_use_after_fork_is_an_error(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path)
    loader = stream.loader()
    batches = iter(loader)
    batch = next(batches)
    value = np.zeros((2, 3), np.float32)
    uses = [
        client.status,
        lambda: open_stream(client, tmp_path),
        lambda: stream.records,
        lambda: stream.loader(start="continue").state_dict(),
        lambda: next(batches),
        loader.state_dict,
        lambda: batch.sequences,
        lambda: batch.length,
        lambda: batch.key,
        lambda: batch.state("h"),
        lambda: batch.save_state("h", value),
        batch.commit,
    ]

    def body() -> None:
        for number, use in enumerate(uses):
            try:
                use()
            except segue.ForkedError:
                continue
            raise AssertionError(f"use {number} went through")

    assert in_child(body) == 0
    save(batch)  # the parent is not disturbed
    assert next(batches).step == 1


def test_a_child_may_drop_and_close_what_it_inherited(tmp_path: Path) -> None:
    objects: list[Any] = [segue.open(tmp_path / "store")]
    objects.append(open_stream(objects[0], tmp_path))
    objects.append(objects[1].loader())
    objects.append(next(iter(objects[2])))

    def body() -> None:
        objects[2].close()
        objects[1].close()
        objects[0].close()
        objects.clear()
        gc.collect()

    assert in_child(body) == 0
    batch = objects[3]
    save(batch)
    batch.commit()
    objects[0].close()


def test_a_child_can_open_its_own(client: segue.Client, tmp_path: Path) -> None:
    open_stream(client, tmp_path, name="mine")

    def body() -> None:
        with segue.open(tmp_path / "store") as own:
            batch = next(iter(open_stream(own, tmp_path, name="own").loader()))
            assert batch.sequences["token"][0, 1] == 1

    assert in_child(body) == 0


def test_threads_may_share_a_client(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=40, lanes=2)
    seen: list[tuple[int, int, int]] = []
    errors: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            for batch in stream.loader(lanes=[lane]):
                save(batch)
                seen.extend(segments(batch))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(seen) == expected_segments(40)


def waiting_loader(client: segue.Client, tmp_path: Path) -> segue.Loader:
    """A loader over lane 0 whose state_dict(all_lanes=True) waits for lane 1, which nobody has."""
    stream = open_stream(client, tmp_path, lanes=2)
    loader = stream.loader(lanes=[0])
    batch = next(iter(loader))
    save(batch)
    batch.commit()
    return loader


def test_a_wait_lets_other_threads_run(client: segue.Client, tmp_path: Path) -> None:
    loader = waiting_loader(client, tmp_path)
    ticks = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    with pytest.raises(segue.TimeoutError_, match="lane 1") as info:
        loader.state_dict(all_lanes=True, timeout=0.5)
    stop.set()
    thread.join()
    assert isinstance(info.value, TimeoutError)
    assert len(ticks) > 10


def test_ctrl_c_ends_a_wait(client: segue.Client, tmp_path: Path) -> None:
    loader = waiting_loader(client, tmp_path)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        loader.state_dict(all_lanes=True, timeout=30)
    assert time.monotonic() - begun < 10
    assert set(loader.state_dict()) == {"lane/0"}  # nothing was changed


@contextmanager
def stopped_server(client: segue.Client) -> Iterator[None]:
    """Its server answers nothing meanwhile."""
    pid = client.status()["server"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def ctrl_c() -> Iterator[pytest.ExceptionInfo[KeyboardInterrupt]]:
    """One in half a second; what comes here must not go on for long after it."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        yield caught
    assert time.monotonic() - begun < 10


def test_ctrl_c_in_a_report_leaves_open_batches_alone(
    client: segue.Client, stream: segue.Stream
) -> None:
    batches = iter(stream.loader())
    batch = next(batches)
    save(batch)
    with stopped_server(client), ctrl_c():
        client.status()
    assert client.status()["server"]
    batch.commit()
    assert next(batches).step == 1


@pytest.mark.parametrize("close", ["stream", "client", "loader"])
def test_ctrl_c_ends_a_close(tmp_path: Path, close: str) -> None:
    with segue.open(tmp_path / "store") as keeper:
        client = segue.open(tmp_path / "store")
        stream = open_stream(client, tmp_path, interval=600.0, lanes=3)
        loader = stream.loader()
        for batch in itertools.islice(loader, 4):
            save(batch)
        batch.commit()
        del batch
        with stopped_server(keeper):
            with ctrl_c():
                {"stream": stream, "client": client, "loader": loader}[close].close()
            begun = time.monotonic()
            gc.collect()  # nor does what the loader left behind wait
            assert time.monotonic() - begun < 10
        client.close()
        again = open_stream(keeper, tmp_path, interval=600.0, lanes=3).loader(start="continue")
        assert next(iter(again)).step == 1


def test_ctrl_c_before_a_close_has_begun(client: segue.Client, tmp_path: Path) -> None:
    """Another thread has the client; the traceback, which is kept, does not keep the lane."""
    loader = open_stream(client, tmp_path, lanes=2).loader(lanes=[1])
    next(iter(loader))
    other = waiting_loader(client, tmp_path)

    def wait() -> None:
        with pytest.raises(segue.TimeoutError_):
            other.state_dict(all_lanes=True, timeout=3)

    waits = threading.Thread(target=wait)
    waits.start()
    time.sleep(0.3)
    with ctrl_c() as caught:
        loader.close()
    waits.join()
    assert caught.tb and loader.closed
    assert next(iter(loader.stream.loader(lanes=[1]))).step == 0


def test_a_signal_handler_cannot_use_the_client_that_waits(
    client: segue.Client, tmp_path: Path
) -> None:
    loader = waiting_loader(client, tmp_path)
    batch = next(iter(loader))
    objects = [batch.state("h"), batch]
    del batch

    def handler(number: int, frame: Any) -> None:
        objects.clear()  # freed after the call that waits
        client.status()

    save(objects[1])
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(segue.BusyError, match="another call of this thread"):
            loader.state_dict(all_lanes=True, timeout=30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert next(iter(loader)).step == 2


def test_freeing_while_another_thread_waits(client: segue.Client, tmp_path: Path) -> None:
    loader = waiting_loader(client, tmp_path)
    other = open_stream(client, tmp_path, name="other")
    objects: list[Any] = [next(iter(other.loader())), other.loader, other]
    objects[1] = objects[0].sequences["token"]
    del other
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            loader.state_dict(all_lanes=True, timeout=1)
        except segue.TimeoutError_ as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    objects.clear()  # must neither wait nor crash
    assert time.monotonic() - begun < 0.5
    thread.join()
    assert len(errors) == 1
    # What was freed meanwhile was given back: the lane can be taken again.
    again = open_stream(client, tmp_path, name="other").loader(start="continue")
    assert next(iter(again)).step == 0


# -- the spec --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, field",
    [
        ({"name": ""}, "name"),
        ({"name": "a:b"}, "name"),
        ({"source": "data.tfrecord"}, "source"),
        ({"sequences": {}}, "sequences"),
        ({"sequences": {"a:b": segue.Feature("float32")}}, "sequences"),
        ({"sequences": {"a": segue.State("float32")}}, "sequences"),
        ({"sequences": ["a"]}, "sequences"),
        ({"context": {"": segue.Feature("int64")}}, "context"),
        ({"states": {"h": segue.Feature("float32")}}, "states"),
        ({"num_unroll": 0}, "num_unroll"),
        ({"num_unroll": 2.0}, "num_unroll"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 2**32}, "batch_size"),
        ({"lanes": 0}, "lanes"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"tail": "shrinks"}, "tail"),
        ({"epoch_end": None}, "epoch_end"),
        ({"on_error": []}, "on_error"),
        ({"durability": "always"}, "durability"),
        ({"depth": 1}, "depth"),
        ({"num_threads": 0}, "num_threads"),
        ({"interval": 0}, "interval"),
    ],
)
def test_bad_options_are_named(
    client: segue.Client, tmp_path: Path, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(segue.ArgumentError, match=field) as info:
        open_stream(client, tmp_path, **options)
    assert isinstance(info.value, ValueError)


def test_unknown_options_are_type_errors(client: segue.Client, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        open_stream(client, tmp_path, batchsize=2)


@pytest.mark.parametrize("dtype", ["complex64", "object", ">f4", ">f2", "nonsense", None, "S4"])
def test_bad_dtypes(dtype: Any) -> None:
    with pytest.raises(segue.ArgumentError, match=r"Feature.dtype: .* none of float32"):
        segue.Feature(dtype)


@pytest.mark.parametrize("shape", [[0], [-1], "3", [2.5], None])
def test_bad_shapes(shape: Any) -> None:
    with pytest.raises(segue.ArgumentError, match="State.shape"):
        segue.State("float32", shape)


def test_too_many_dimensions(client: segue.Client, tmp_path: Path) -> None:
    with pytest.raises(segue.ArgumentError, match="'x'"):
        open_stream(client, tmp_path, sequences={"x": segue.Feature("float32", [1] * 9)})


def test_specs_are_values() -> None:
    assert segue.Feature(np.float32, 3) == segue.Feature("float32", [3])
    assert segue.State(np.dtype("int64"), np.int64(2)).shape == (2,)
    assert segue.State("float32", [2], init=1).init.tolist() == [1, 1]  # type: ignore[union-attr]
    assert segue.State("float32", [2], init=[1, 2]).init.dtype == np.float32  # type: ignore[union-attr]
    for init in ([1, 2, 3], [[1, 2]]):
        with pytest.raises(segue.ArgumentError, match=r"State.init: expected a scalar or shape"):
            segue.State("float32", [2], init=init)
    with pytest.raises(segue.ArgumentError, match="float64 does not fit int64"):
        segue.State("int64", [2], init=0.5)
    assert segue.TFRecord(Path("a") / "b").paths == ("a/b",)
    assert segue.TFRecord(["a", Path("b")]).paths == ("a", "b")
    for arguments in (
        {"paths": []},
        {"paths": "a", "compression": "xz"},
        {"paths": "a", "key": ""},
    ):
        with pytest.raises(segue.ArgumentError, match="TFRecord"):
            segue.TFRecord(**arguments)


def test_another_spec_is_refused(client: segue.Client, tmp_path: Path) -> None:
    open_stream(client, tmp_path)
    with pytest.raises(segue.SpecError, match="num_unroll"):
        open_stream(client, tmp_path, num_unroll=UNROLL + 1)


def test_missing_files(client: segue.Client, tmp_path: Path) -> None:
    with pytest.raises(segue.SourceError, match="missing"):
        open_stream(client, tmp_path, source=segue.TFRecord(tmp_path / "missing.tfrecord"))


def test_a_stream_without_states(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, states=None)
    assert stream.records == 6
    seen = [row for batch in stream.loader() for row in segments(batch)]
    assert sorted(seen) == expected_segments(6)


# -- the client ------------------------------------------------------------------------------------


def test_reports(client: segue.Client, tmp_path: Path) -> None:
    open_stream(client, tmp_path)
    assert client.status()["server"]["storage"] == "ok"
    for report in (client.inspect(), client.inspect("train")):
        assert [stream["name"] for stream in report["streams"]] == ["train"]
    assert client.verify()["damaged"] == []
    with pytest.raises(segue.NotFoundError) as info:
        client.get("no such key", "train")
    assert isinstance(info.value, KeyError) and info.value.code == "ENOTFOUND"


def test_no_server_and_none_to_be_started(tmp_path: Path) -> None:
    with pytest.raises(segue.GoneError) as info:
        segue.open(tmp_path / "store", start=False, timeout=1)
    assert info.value.code == "EGONE"


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_bad_timeouts(tmp_path: Path, timeout: Any) -> None:
    with pytest.raises((segue.ArgumentError, TypeError)):
        segue.open(tmp_path / "store", timeout=timeout)


def test_every_code_has_a_class() -> None:
    header = Path(__file__).parents[2] / "lib" / "include" / "segue" / "segue.h"
    table = header.read_text().split("#define SEGUE_ERRORS(X)")[1].split("enum segue_error")[0]
    codes = re.findall(r"X\((\w+), \d+,", table)
    assert len(codes) >= 29
    for code in codes:
        error = segue.errors.make(code, "why")
        assert type(error) is not segue.Error and isinstance(error, segue.Error)
        assert error.code == code and str(error) == "why"
    unknown = segue.errors.make("EWHATEVER", "why")
    assert type(unknown) is segue.Error and unknown.code == "EWHATEVER"


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(segue.errors.make("ETIMEOUT", "lane 1")))
    assert isinstance(error, segue.TimeoutError_) and str(error) == "lane 1"


# -- loaders ---------------------------------------------------------------------------------------


def test_lanes_of_a_worker(
    client: segue.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    stream = open_stream(client, tmp_path, lanes=5)
    assert stream.loader().lanes == [0, 1, 2, 3, 4]
    assert stream.loader(rank=1, world_size=2).lanes == [1, 3]
    assert stream.loader(lanes=[4, 0]).lanes == [0, 4]
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert stream.loader().lanes == [2]
    assert stream.loader(rank=0).lanes == [0, 3]
    for options, why in [
        ({"rank": 3}, "rank: 3"),
        ({"rank": 0, "world_size": 6}, "6 workers cannot share 5 lanes"),
        ({"lanes": [5]}, "lanes"),
        ({"lanes": []}, "lanes"),
        ({"lanes": [1, 1]}, "lanes"),
        ({"lanes": [0], "rank": 0}, "not both"),
        ({"start": "anew"}, "start"),
    ]:
        with pytest.raises(segue.ArgumentError, match=why):
            stream.loader(**options)
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(segue.ArgumentError, match="RANK='two'"):
        stream.loader()


def test_lanes_are_interleaved_and_drop_out(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=7, lanes=3, batch_size=1)
    order, seen = [], []
    for batch in stream.loader():
        order.append((batch.step, batch.lane))
        seen += segments(batch)
        save(batch)
    assert order == sorted(order)
    last = {lane: step for step, lane in order}
    assert len(set(last.values())) > 1  # they do not all end together
    assert sorted(seen) == expected_segments(7)


def test_start(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path)
    with stream.loader() as loader:
        for batch in loader:
            save(batch)
            if batch.step == 1:
                batch.commit()
                break
        del batch
    loader = stream.loader()  # changes nothing yet
    with pytest.raises(segue.StartError, match="2"):
        next(iter(loader))
    with stream.loader(start="continue") as loader:
        assert next(iter(loader)).step == 2
    with stream.loader(start="fresh") as loader:
        batch = next(iter(loader))
        assert batch.step == 0 and not batch.state("n").any()


def history(loader: segue.Loader) -> list[Any]:
    rows = []
    for batch in loader:
        rows.append((batch.lane, batch.step, segments(batch), batch.state("h").tolist()))
        save(batch)
    return rows


def test_state_dict_brings_back_states_and_position(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=12, lanes=2)
    loader = stream.loader()
    for batch in loader:
        save(batch)
        if (batch.step, batch.lane) == (2, 0):
            token = loader.state_dict()  # commits the open batch
            assert batch.committed
            break
    assert set(token) == {"lane/0", "lane/1"}
    assert all(type(value) is bytes for value in token.values())
    rest = history(loader)
    assert rest[0][:2] == (1, 2)  # lane 1 is one behind and goes first
    del batch
    loader.load_state_dict(token)
    assert history(loader) == rest

    # In another loader it takes the place of start, also in parts and with lanes to spare.
    loader.close()
    parts = [{"lane/1": token["lane/1"], "lane/7": b"other"}, {"lane/0": token["lane/0"]}]
    with stream.loader() as loader:
        loader.load_state_dict(parts)
        assert loader.state_dict() == token
        assert history(loader) == rest


def test_state_dict_of_a_batch_that_is_not_saved(stream: segue.Stream) -> None:
    loader = stream.loader()
    batch = next(iter(loader))
    batch.save_state("n", batch.state("n"))
    with pytest.raises(segue.UnsavedError, match=r"\bh\b"):
        loader.state_dict()
    batch.save_state("h", batch.state("h"))
    loader.state_dict()
    assert batch.committed


def test_state_dict_of_all_lanes(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=12, lanes=2)
    one, two = stream.loader(lanes=[0]), stream.loader(lanes=[1])
    for loader in (one, two):
        save(next(iter(loader)))
    two.state_dict()
    token = one.state_dict(all_lanes=True, timeout=10)
    assert set(token) == {"lane/0", "lane/1"}
    one.close()
    two.close()
    with stream.loader() as loader:
        loader.load_state_dict(token)
        assert next(iter(loader)).step == 1


def test_tokens_that_do_not_fit(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, lanes=2)
    with stream.loader() as loader:
        token = loader.state_dict()
    loader = stream.loader()
    with pytest.raises(segue.TokenError, match=r"no token for lanes \[1\]"):
        loader.load_state_dict({"lane/0": token["lane/0"]})
    with pytest.raises(segue.TokenError):
        loader.load_state_dict({"lane/0": b"nonsense", "lane/1": token["lane/1"]})
    with pytest.raises(segue.TokenError):
        loader.load_state_dict({"lane/0": token["lane/1"], "lane/1": token["lane/0"]})
    loader.load_state_dict(token)
    with pytest.raises(segue.TokenError):
        loader.load_state_dict({**token, "lane/1": b"nonsense"})
    loader.load_state_dict(token)
    assert next(iter(loader)).step == 0


def test_load_state_dict_makes_iterators_stale(stream: segue.Stream) -> None:
    loader = stream.loader()
    token = loader.state_dict()
    batches = iter(loader)
    rounds = loader.rounds()
    with pytest.raises(segue.StaleIterator):
        next(batches)
    [batch] = next(rounds)
    save(batch)
    batch.commit()
    del batch
    loader.load_state_dict(token)
    with pytest.raises(segue.StaleIterator, match="begin a new one"):
        next(rounds)
    assert next(iter(loader)).step == 0


def test_load_state_dict_while_batches_are_in_use(stream: segue.Stream) -> None:
    """Arrays stay what they are; what is open is given up, and that is said if it was saved."""
    loader = stream.loader()
    token = loader.state_dict()
    batches = iter(loader)
    batch = next(batches)
    array, want = batch.sequences["token"], batch.sequences["token"].copy()
    with pytest.raises(segue.TokenError):
        loader.load_state_dict({"lane/0": b"rubbish"})
    save(batch)
    second = next(batches)  # the failed load changed nothing: the iterator goes on
    assert second.step == 1
    save(second)
    with pytest.warns(UserWarning, match=r"batch 1 of lane 0 .*batch\.commit\(\)"):
        loader.load_state_dict(token)
    assert next(iter(loader)).step == 0
    assert (array == want).all()
    with pytest.raises(segue.Error, match="batch 1"):
        second.commit()


def test_restoring_in_place_after_an_error_in_the_body(stream: segue.Stream) -> None:
    loader = stream.loader()
    token = loader.state_dict()
    try:
        for batch in loader:
            if batch.step == 1:
                raise RuntimeError("a peer died")
            save(batch)
    except RuntimeError:
        batch.release()
        loader.load_state_dict(token)
    assert [row[1] for row in history(loader)][:2] == [0, 1]


def test_rounds(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=12, lanes=3)
    seen = []
    loader = stream.loader()
    for number, batches in enumerate(loader.rounds()):
        assert [batch.lane for batch in batches] == sorted(batch.lane for batch in batches)
        assert {batch.step for batch in batches} == {number}
        for batch in batches:
            save(batch)
            seen += segments(batch)
        assert not any(batch.committed for batch in batches)
        if number == 1:
            token = loader.state_dict()
            assert all(batch.committed for batch in batches)
            at = len(seen)
    assert sorted(seen) == expected_segments(12)
    del batch, batches
    loader.load_state_dict(token)
    again = []
    for batches in loader.rounds():
        for batch in batches:
            save(batch)
            again += segments(batch)
    assert again == seen[at:]


def test_a_round_is_committed_whole_or_not_at_all(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, lanes=2)
    loader = stream.loader()
    rounds = loader.rounds()
    one, two = next(rounds)
    save(one)
    for call in (lambda: next(rounds), loader.state_dict):
        with pytest.raises(segue.UnsavedError, match="lane 1"):
            call()
        assert not one.committed
    save(two)
    assert [batch.step for batch in next(rounds)] == [1, 1]
    assert one.committed and two.committed


def test_rounds_over_lanes_at_different_steps(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=12, lanes=2)
    loader = stream.loader()
    batch = next(iter(loader))
    save(batch)
    batch.commit()
    with pytest.raises(segue.RoundError, match="lane 0 at step 1, lane 1 at step 0"):
        next(loader.rounds())
    with stream.loader(lanes=[0]) as other:  # nothing was taken for good
        assert other.lanes == [0]
    assert next(iter(loader)).lane == 1


def test_epochs(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=5, lanes=2, epochs=3, epoch_end="drain")
    loader = stream.loader()
    seen: list[list[tuple[int, int, int]]] = []
    for epoch in loader.epochs():
        assert epoch.index == len(seen)
        seen.append([])
        for batch in epoch:
            seen[-1] += segments(batch)
            save(batch)
        loader.state_dict()  # possible between epochs
    for index, rows in enumerate(seen):
        assert sorted(rows) == [(index, *row[1:]) for row in expected_segments(5)]
    assert len(seen) == 3


def test_an_epoch_that_is_left_is_gone_on_with(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, records=5, epochs=2, epoch_end="drain")
    loader = stream.loader()
    indices, seen = [], []
    for epoch in loader.epochs():
        indices.append(epoch.index)
        for batch in epoch:
            seen += segments(batch)
            save(batch)
            if len(indices) == 1:
                break
    assert indices == [0, 0, 1]
    assert sorted(seen) == expected_segments(5, epochs=2)


def test_an_error_does_not_end_the_epochs(client: segue.Client, tmp_path: Path) -> None:
    epochs = open_stream(client, tmp_path, epochs=2, epoch_end="drain").loader().epochs()
    batch = next(next(epochs))
    with pytest.raises(segue.UnsavedError):
        next(epochs)
    save(batch)
    epoch = next(epochs)
    assert epoch.index == 0
    assert next(epoch).step == 1


def test_epochs_need_drain(stream: segue.Stream) -> None:
    with pytest.raises(segue.ArgumentError, match="drain"):
        stream.loader().epochs()


def test_volatile_streams_start_at_0_each_time(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path, persist=False)
    loader = stream.loader()
    first = history(loader)
    assert [row[1] for row in first] == list(range(len(first)))
    assert history(loader) == first
    for batch in loader:
        save(batch)
        break
    assert history(loader) == first
    with stream.loader() as other:  # no position is kept
        assert history(other) == first


def test_waited(client: segue.Client, tmp_path: Path) -> None:
    stream = open_stream(client, tmp_path)
    loader = stream.loader()
    assert loader.waited == 0.0
    history(loader)
    waited = loader.waited
    assert 0 <= waited < 60
    loader.close()
    assert loader.waited == waited


def test_the_loader_goes_without_the_collector(client: segue.Client, tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        loader = open_stream(client, tmp_path).loader()
        save(next(iter(loader)))
        stream = loader.stream
        del loader
        # The lease went with it, so that another loader can have the lane.
        with stream.loader(start="continue") as loader:
            assert next(iter(loader)).step == 0
    finally:
        gc.enable()

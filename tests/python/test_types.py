"""Types of elements: values of each, from files and as states, come back bit by bit; bfloat16 in Python."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import cases
import segue
from segue import Feature, State
from segue.tfrecord import SequenceExampleWriter, decode_sequence_example, encode_sequence_example
from test_bad_input import refused
from test_resume import kill, server_pid

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
PATTERNS = np.arange(2**16, dtype=np.uint16)
STATE = 40  # elements of a state, a row

# Of NaN that are compared or cast, and numbers that become infinite.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def bits(array: Any) -> list[int]:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").ravel().tolist()


def any_bits(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of all bits that there are, NaN of any payload among them."""
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    dtype = np.dtype(name)
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    if "float" in name:  # a quarter of them NaN or infinite
        array = array.copy()
        few = array.view(f"u{dtype.itemsize}").reshape(-1)[::4]
        few |= np.full(1, np.inf, dtype).view(few.dtype)
    return array


def write(path: Path, *records: dict[str, Any]) -> Path:
    with SequenceExampleWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


def open_stream(client: segue.Client, path: Path, **options: Any) -> segue.Stream:
    """Two records of 12 steps by 2: with two rows, six batches, all of the same two sequences."""
    if not path.exists():
        write(path, {"x": np.zeros(12, np.float32)}, {"x": np.zeros(12, np.float32)})
    return client.stream(
        source=segue.TFRecord(path),
        **{"name": "train", "sequences": {"x": Feature("float32")}, "num_unroll": 2,
           "batch_size": 2, **options},
    )  # fmt: skip


def first(client: segue.Client, path: Path, **options: Any) -> segue.Batch:
    return next(iter(open_stream(client, path, persist=False, **options).loader()))


# -- states -----------------------------------------------------------------------------------------


def save_all(batch: segue.Batch, seed: int) -> dict[str, bytes]:
    """Random bits in each state, some in place."""
    rng = np.random.default_rng([seed, batch.step])
    saved = {}
    for i, name in enumerate(cases.DTYPES):
        value = any_bits(rng, name, (batch.batch_size, STATE))
        if (i + batch.step) % 2:
            out = batch.state_out(name)
            assert out.dtype == np.dtype(name) and out.flags.writeable
            out[...] = value
            batch.save_state(name, out)
        else:
            batch.save_state(name, value)
        saved[name] = value.tobytes()
    return saved


def check_all(batch: segue.Batch, saved: dict[str, bytes]) -> None:
    for name, content in saved.items():
        array = batch.state(name)
        assert array.dtype == np.dtype(name) and array.shape == (batch.batch_size, STATE)
        assert not array.flags.writeable and not array.flags.owndata
        assert array.tobytes() == content, name


def test_states_of_each_type_come_back(tmp_path: Path) -> None:
    """After a commit, a kill of the server, the end of everybody, and by a token in a new store."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))
    print("seed", seed)
    states = {name: State(name, [STATE]) for name in cases.DTYPES}
    store, path = tmp_path / "store", tmp_path / "data"
    with segue.open(store) as client:
        with open_stream(client, path, states=states).loader() as loader:
            batches = iter(loader)
            check_all(batch := next(batches), {n: bytes(0) for n in ()})
            for name in states:
                assert not any(bits(batch.state(name)))
            saved = save_all(batch, seed)
            check_all(batch := next(batches), saved)
            saved = save_all(batch, seed)
            batch.commit()
            kill(server_pid(client))
            check_all(batch := next(batches), saved)
            saved = save_all(batch, seed)
            batch.commit(wait=True)
    with segue.open(store) as client:
        with open_stream(client, path, states=states).loader(start="continue") as loader:
            batch = next(iter(loader))
            assert batch.step == 3
            check_all(batch, saved)
            saved = save_all(batch, seed)
            token = loader.state_dict()
    with segue.open(tmp_path / "other") as client:
        with open_stream(client, path, states=states).loader() as loader:
            loader.load_state_dict(token)
            batch = next(iter(loader))
            assert batch.step == 4
            check_all(batch, saved)


def values_in_report(report: Any, name: str) -> list[Any]:
    (hit,) = report["found"]
    assert hit["states"][name]["dtype"] == name
    return hit["states"][name]["values"]


def test_reports_tell_all_values_apart(client: segue.Client, tmp_path: Path) -> None:
    """What is printed, read as that type, is the value; all of 16 bits, both ends of integers."""
    saved = {name: PATTERNS.view(name) for name in cases.SHORT}
    for name in cases.DTYPES:
        if "int" in name:
            info = np.iinfo(name)
            saved[name] = np.array([info.min, info.max, info.max // 2], name)
    states = {name: State(name, [array.size]) for name, array in saved.items()}
    path = tmp_path / "data"
    with open_stream(client, path, states=states).loader() as loader:
        batch = next(iter(loader))
        for name, array in saved.items():
            batch.save_state(name, np.stack([array, array]))
        batch.commit(wait=True)
    report = client.get(batch.key[0].split(b":", 1)[1])
    for name, array in saved.items():
        got = values_in_report(report, name)
        if name not in cases.SHORT:
            assert got == array.tolist()
            continue
        nan = np.isnan(array)
        assert all(got[i] == "nan" for i in np.flatnonzero(nan))
        read = np.array([float(value) for value in got]).astype(name)
        assert (read == array)[~nan].all()  # 0 and -0 are equal
    program = os.environ.get("SEGUE_PROGRAM") or segue._program.bundled() or "segue"
    key = batch.key[0].split(b":", 1)[1].decode()
    run = subprocess.run(
        [program, "get", client.dir, key], capture_output=True, text=True, check=True
    )
    assert f"uint64[3] = 0 {2**64 - 1} {2**63 - 1}" in run.stdout
    assert "int8[3] = -128 127 63" in run.stdout
    shown = json.loads(json.dumps(client.inspect("train")))
    spec = shown["streams"][0]["spec"]
    assert [state["dtype"] for state in spec["states"]] == list(saved)


# -- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.SHORT)
def test_all_patterns_of_16_bits_from_files(
    client: segue.Client, tmp_path: Path, name: str
) -> None:
    """As floats (NumPy and ml_dtypes say which), packed one or 64 a step, and as bytes."""
    values = PATTERNS.view(name)
    whole = values.astype(np.float32)
    path = write(
        tmp_path / "data",
        {
            "one": values[:1024],
            "many": values.reshape(1024, 64),
            "wide": whole.reshape(1024, 64),
            "raw": [row.tobytes() for row in values.reshape(1024, 64)],
        },
    )
    sequences = {n: Feature(name, [64]) for n in ("many", "wide", "raw")}
    sequences["one"] = Feature(name)
    batch = first(client, path, sequences=sequences, num_unroll=1024, batch_size=1)
    for feature in ("many", "wide", "raw"):
        array = batch.sequences[feature]
        assert array.dtype == np.dtype(name) and array.shape == (1, 1024, 64)
        assert bits(array) == PATTERNS.tolist(), feature
    assert bits(batch.sequences["one"]) == PATTERNS[:1024].tolist()


@pytest.mark.parametrize("name", cases.SHORT)
def test_floats_that_are_none_of_16_bits(client: segue.Client, tmp_path: Path, name: str) -> None:
    """The neighbours of values, which NumPy and ml_dtypes would round."""
    rng = np.random.default_rng(7)
    values = PATTERNS.view(name)
    values = values[np.isfinite(values)].astype(np.float32)
    near = np.nextafter(rng.choice(values, 40), np.float32(np.inf), dtype=np.float32)
    for i, value in enumerate([*near.tolist(), 0.1, 3e38, 1e-45]):
        x = np.zeros(9, np.float32)
        x[5] = value
        if float(x[5].astype(name)) == x[5]:
            continue  # 0 comes after the largest negative one
        path = write(tmp_path / f"data-{i}", {"x": np.zeros(9, np.float32)}, {"x": x})
        with refused(
            segue.DataError,
            f"{path}: record at byte ",
            f"feature 'x': step 5: value {x[5]:.9g} does not fit {name} exactly: declare float32",
        ):
            first(client, path, name=f"s{i}", sequences={"x": Feature(name)})


INTEGERS = [name for name in cases.DTYPES if "int" in name]


@pytest.mark.parametrize("name", INTEGERS)
def test_ranges_of_integers_in_files(client: segue.Client, tmp_path: Path, name: str) -> None:
    info = np.iinfo(name)
    least, most = info.min, min(info.max, 2**63 - 1)
    ends = np.array([least, most, 0, 1, most], np.int64)
    path = write(tmp_path / "data", {"x": ends})
    batch = first(client, path, sequences={"x": Feature(name)}, num_unroll=5, batch_size=1)
    assert batch.sequences["x"].dtype == name and batch.sequences["x"][0].tolist() == ends.tolist()
    for i, value in enumerate([least - 1, most + 1, -1 if name == "uint64" else least - 1]):
        if not -(2**63) <= value < 2**63:
            continue
        ends[3] = value
        path = write(tmp_path / f"bad-{i}", {"x": ends})
        with refused(
            segue.DataError,
            f"{path}: record at byte 0: ",
            f"feature 'x': step 3: value {value} does not fit {name}",
        ):
            first(client, path, name=f"bad{i}", sequences={"x": Feature(name)})


def test_what_the_writer_makes_of_types() -> None:
    for name in cases.DTYPES:
        array = np.array([0, 1, 1], name)
        _, sequences = decode_sequence_example(encode_sequence_example({"x": array}))
        got = np.concatenate(sequences["x"])
        assert got.dtype == (np.float32 if "float" in name else np.int64)
        assert got.tolist() == [0, 1, 1]
    ragged = [np.ones(2, BFLOAT16), np.ones(3, BFLOAT16)]
    _, sequences = decode_sequence_example(encode_sequence_example({"x": ragged}))
    assert [step.tolist() for step in sequences["x"]] == [[1] * 2, [1] * 3]
    with pytest.raises(ValueError, match=f"feature 'x': {2**63} does not fit int64"):
        encode_sequence_example({"x": np.array([0, 2**63], np.uint64)})


# -- how they are named, and begin ------------------------------------------------------------------


def test_names_of_types() -> None:
    for name in cases.DTYPES:
        assert Feature(name).dtype == Feature(np.dtype(name)).dtype == name
    assert Feature(ml_dtypes.bfloat16).dtype == Feature(BFLOAT16).dtype == "bfloat16"
    assert Feature(np.float16).dtype == Feature("half").dtype == Feature("e").dtype == "float16"
    assert State(np.uint64, 2).dtype == "uint64"

    class OfTensorFlow:
        name = "bfloat16"

    assert Feature(OfTensorFlow()).dtype == "bfloat16"
    for other in (ml_dtypes.float8_e4m3, "float8_e4m3", "torch.complex64", OfTensorFlow):
        with pytest.raises(segue.ArgumentError, match="is none of float32"):
            Feature(other)


def test_names_of_types_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in cases.DTYPES:
        assert Feature(getattr(torch, name)).dtype == name
    for other in (torch.complex64, torch.float8_e5m2, torch.qint8):
        with pytest.raises(segue.ArgumentError, match="is none of float32"):
            State(other)


def test_names_of_types_of_jax() -> None:
    jnp = pytest.importorskip("jax.numpy")
    for name in cases.DTYPES:
        assert Feature(getattr(jnp, name if name != "bool" else "bool_")).dtype == name


def test_initial_values() -> None:
    for name in cases.DTYPES:
        for one in (1, np.array(1, name)):
            if isinstance(one, int) and (name == "bool" or name.startswith("uint")):
                continue  # to which NumPy does not cast an int64
            state = State(name, [2], init=one)
            assert state.init is not None and state.init.dtype == np.dtype(name)
            assert state.init.tolist() == [1, 1] and not state.init.flags.writeable
    assert State("bfloat16").init is None
    for dtype, init in (("int8", 0.5), ("uint16", -1.5), ("bfloat16", 1j), ("float16", 1j),
                        ("int16", np.ones(2, BFLOAT16)), ("bfloat16", "1")):  # fmt: skip
        with pytest.raises(segue.ArgumentError, match=f"does not fit {dtype}"):
            State(dtype, [2], init=init)
    with pytest.raises(segue.ArgumentError, match="expected a scalar or shape"):
        State("bfloat16", [2], init=[1, 2, 3])
    with pytest.raises(segue.ArgumentError, match="give float32"):
        State("bfloat16", [2], init=np.ones(2, np.uint16))
    patterns = PATTERNS.view(BFLOAT16)
    init = State("bfloat16", [2**16], init=patterns).init
    assert init is not None and bits(init) == PATTERNS.tolist()
    init = State("float16", [2**16], init=PATTERNS.view(np.float16)).init
    assert init is not None and bits(init) == PATTERNS.tolist()
    # bfloat16 counts as a float, as float32 does.
    finite = patterns[np.isfinite(patterns)]
    for dtype in ("float32", "float64"):
        init = State(dtype, [finite.size], init=finite).init
        assert init is not None and (init == finite.astype(dtype)).all()


def test_initial_values_are_rounded_as_by_ml_dtypes() -> None:
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 2**32, 100_000, np.uint32)
    wide[::3] &= 0xFFFF8000  # ties
    with np.errstate(all="ignore"):
        values = np.concatenate([wide.view(np.float32), PATTERNS.view(BFLOAT16).astype("f4")])
        for array in (values, values.astype(np.float64), rng.standard_normal(10_000)):
            init = State("bfloat16", [array.size], init=array).init
            want = array.astype(BFLOAT16)
            assert init is not None
            assert (np.isnan(init) == np.isnan(want)).all()
            number = ~np.isnan(want)
            assert bits(init[number]) == bits(want[number])
    for array in (np.arange(-300, 300), np.float16([0.1, 65504])):
        init = State("bfloat16", [array.size], init=array).init
        assert init is not None and bits(init) == bits(array.astype(BFLOAT16))


def test_initial_values_reach_the_first_segment(client: segue.Client, tmp_path: Path) -> None:
    states = {name: State(name, [2], init=np.array([0, 1], name)) for name in cases.DTYPES}
    states["tensor"] = State("bfloat16", init=np.array(-1.5, BFLOAT16))
    batch = first(client, tmp_path / "data", states=states)
    for name in cases.DTYPES:
        assert batch.state(name).tolist() == [[0, 1], [0, 1]]
    assert batch.state("tensor").tolist() == [-1.5, -1.5]


# -- arrays of bfloat16 -----------------------------------------------------------------------------

H = {"h": State("bfloat16", [3]), "f": State("float16", [3]), "u": State("uint16", [3])}
VALUE = np.array([[1, -2.5, np.nan], [np.inf, 1e-40, 3e38]], BFLOAT16)


@pytest.fixture
def batches(client: segue.Client, tmp_path: Path) -> Iterator[segue.Batch]:
    def generate() -> Iterator[segue.Batch]:
        path = write(
            tmp_path / "x", *[{"x": np.arange(48, dtype=np.float32)} for _ in range(2)]
        )
        sequences = {"x": Feature("bfloat16")}
        for batch in open_stream(client, path, sequences=sequences, states=H, depth=16).loader():
            yield batch
            for name in "fu" if not batch.committed else "":
                batch.save_state(name, batch.state(name))

    return generate()


def test_arrays_of_bfloat16_are_views(batches: Iterator[segue.Batch]) -> None:
    batch = next(batches)
    x, h, out = batch.sequences["x"], batch.state("h"), batch.state_out("h")
    assert isinstance(x, np.ndarray) and x.dtype == h.dtype == out.dtype == BFLOAT16
    assert x.tolist() == [[0, 1], [0, 1]]
    for array in (x, h):
        assert not array.flags.writeable and not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError):
            array.flags.writeable = True
    assert batch.state("h") is h and batch.state_out("h") is out
    out[...] = VALUE
    batch.save_state("h", out)
    out[0, 0] = 7  # the same memory: nothing was copied
    for name in "fu":
        batch.save_state(name, batch.state(name))
    batch.commit()
    with pytest.raises(ValueError, match="read-only"):
        out[...] = 0
    with pytest.raises(segue.CommittedError):
        batch.save_state("h", VALUE)
    after = next(batches).state("h")
    assert after[0, 0] == 7 and bits(after)[1:] == bits(VALUE)[1:]
    assert (x + x).dtype == BFLOAT16 and type(x + x) is np.ndarray
    assert type(x.max()) is BFLOAT16.type and type(x.sum(1)) is np.ndarray
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for array in (x, x[:, 1], x.copy()):
            again = pickle.loads(pickle.dumps(array, protocol))
            assert type(again) is np.ndarray and again.dtype == BFLOAT16
            assert again.tolist() == array.tolist()


def test_arrays_of_bfloat16_hold_the_slot(client: segue.Client, tmp_path: Path) -> None:
    path = write(tmp_path / "x", *[{"x": np.arange(24, dtype=np.float32)}] * 2)
    stream = open_stream(client, path, sequences={"x": Feature("bfloat16")}, depth=2)
    held = []
    with pytest.raises(segue.HeldError):
        for batch in stream.loader():
            held.append(batch.sequences["x"][:, 0])
    assert [array.tolist() for array in held] == [[0, 0], [2, 2]]
    held.clear()
    with stream.loader(start="continue") as loader:
        assert next(iter(loader)).sequences["x"][0].tolist() == [4, 5]


def test_what_can_be_saved_as_bfloat16(batches: Iterator[segue.Batch]) -> None:
    want = bits(VALUE)

    class HasArray:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return VALUE

    class HasDLPack:
        dtype: Any = BFLOAT16

        def __dlpack__(self, **options: Any) -> Any:
            capsule = VALUE.view(np.uint16).__dlpack__(**options)
            return segue._segue.relabel(capsule, True)

        def __dlpack_device__(self) -> Any:
            return VALUE.view(np.uint16).__dlpack_device__()

    class OfAnother(HasDLPack):
        dtype = "bfloat16"

    others = (HasArray(), HasDLPack(), OfAnother())
    for value in (VALUE, np.asfortranarray(VALUE), VALUE[::-1][::-1], *others):
        batch = next(batches)
        batch.save_state("h", value)
        batch = next(batches)
        assert bits(batch.state("h")) == want
        batch.save_state("h", np.zeros_like(VALUE))


@pytest.mark.parametrize(
    "name, value, kind, got",
    [
        ("h", np.zeros((2, 3), np.uint16), TypeError, "uint16 of shape (2, 3)"),
        ("h", np.zeros((2, 3), np.float32), TypeError, "float32 of shape (2, 3)"),
        ("h", np.zeros((2, 3), np.float16), TypeError, "float16 of shape (2, 3)"),
        ("h", [[0.0] * 3] * 2, TypeError, "float64 of shape (2, 3)"),
        ("h", memoryview(bytes(12)).cast("B"), TypeError, "uint8 of shape (12,)"),
        ("h", np.zeros((2, 4), BFLOAT16), ValueError, "bfloat16 of shape (2, 4)"),
        ("h", np.zeros(6, BFLOAT16), ValueError, "bfloat16 of shape (6,)"),
        ("h", BFLOAT16.type(1), ValueError, "bfloat16 of shape ()"),
        ("u", VALUE, TypeError, "bfloat16 of shape (2, 3)"),
        ("f", VALUE, TypeError, "bfloat16 of shape (2, 3)"),
        ("f", np.zeros((2, 3), np.uint16), TypeError,
         'uint16 of shape (2, 3): convert it (.astype("float16")), or declare it as uint16'),
        ("u", np.zeros((2, 3), np.int16), TypeError,
         'int16 of shape (2, 3): convert it (.astype("uint16")), or declare it as int16'),
    ],
)  # fmt: skip
def test_what_cannot(
    batches: Iterator[segue.Batch], name: str, value: Any, kind: type, got: str
) -> None:
    batch = next(batches)
    expected = f"state {name!r}: expected {H[name].dtype} of shape (2, 3), got {got}"
    with pytest.raises(kind) as info:
        batch.save_state(name, value)
    assert isinstance(info.value, segue.StateError) and str(info.value) == expected
    assert not batch.all_saved


def test_torch_has_bfloat16(batches: Iterator[segue.Batch]) -> None:
    """Out by DLPack, of the type itself and without a copy; in from any tensor of it."""
    torch = pytest.importorskip("torch")
    batch = next(batches)
    for array in (batch.sequences["x"], batch.state("h"), batch.state_out("h")):
        tensor = torch.from_dlpack(array)
        assert tensor.dtype == torch.bfloat16 and tensor.data_ptr() == array.ctypes.data
        assert torch.from_dlpack(array[:, 1]).stride() == (array.shape[1],)
    assert torch.from_dlpack(batch.sequences["x"])[0].tolist() == [0, 1]
    assert torch.from_dlpack(batch.state("f")).dtype == torch.float16
    with pytest.raises(BufferError):
        batch.sequences["x"].astype(np.dtype(ml_dtypes.float8_e5m2)).__dlpack__()
    assert torch.from_dlpack(batch.sequences["x"].astype(np.float32)).dtype == torch.float32

    value = torch.from_numpy(VALUE.view(np.int16)).view(torch.bfloat16)
    gradient = value.clone().requires_grad_()
    wide = torch.zeros(3, 5, dtype=torch.bfloat16)
    wide[:, 1:3] = value.T
    for tensor in (value, gradient, gradient * 1, wide.T[1:3], torch.nn.Parameter(value)):
        batch.save_state("h", tensor)
        batch = next(batches)
        got = batch.state("h")
        assert bits(got[~np.isnan(VALUE)]) == bits(VALUE[~np.isnan(VALUE)])
        assert np.isnan(got[0, 2])
    with pytest.raises(segue.StateTypeError, match=r"expected bfloat16 .*got float16"):
        batch.save_state("h", value.half())
    with pytest.raises(segue.StateShapeError, match=r"got bfloat16 of shape \(3, 2\)"):
        batch.save_state("h", value.T)
    for name in "fu":
        with pytest.raises(segue.StateTypeError, match=r"got bfloat16 of shape \(2, 3\)"):
            batch.save_state(name, value)
    with pytest.raises(segue.StateTypeError, match="is not an array that NumPy can read"):
        batch.save_state("h", value.to_sparse())
    half = torch.tensor([[1.5, 0.1, 6e-8], [65504, 0, -1]], dtype=torch.float16)
    batch.save_state("h", value)
    batch.save_state("f", half)
    assert bits(batch.state_out("f")) == bits(half.numpy())
    init = State(torch.bfloat16, [2, 3], init=gradient).init
    assert init is not None and bits(init) == bits(VALUE)
    _, sequences = decode_sequence_example(encode_sequence_example({"x": gradient}))
    assert np.concatenate(sequences["x"]).tobytes() == VALUE.astype(np.float32).tobytes()


def test_jax_has_bfloat16(batches: Iterator[segue.Batch]) -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    batch = next(batches)
    x = batch.sequences["x"]
    for array in (jnp.asarray(x), jax.device_put(x), jax.jit(lambda a: a + 0)(x)):
        assert array.dtype == BFLOAT16 and array.tolist() == [[0, 1], [0, 1]]
    assert jnp.from_dlpack(batch.state_out("h")).dtype == BFLOAT16
    batch.save_state("h", jnp.asarray(VALUE))
    batch = next(batches)
    assert bits(batch.state("h")) == bits(VALUE)
    with pytest.raises(segue.StateTypeError, match="expected bfloat16 .*got float32"):
        batch.save_state("h", jnp.zeros((2, 3)))
    with pytest.raises(segue.StateTypeError, match="expected float16 .*got bfloat16"):
        batch.save_state("f", jnp.asarray(VALUE))
    half = jnp.asarray([[1.5, 0.1, 6e-8], [65504, 0, -1]], jnp.float16)
    batch.save_state("f", half)
    assert bits(batch.state_out("f")) == bits(np.asarray(half))
    _, sequences = decode_sequence_example(encode_sequence_example({"x": jnp.asarray(VALUE)}))
    assert np.concatenate(sequences["x"]).tobytes() == VALUE.astype(np.float32).tobytes()
    init = State(jnp.bfloat16, [2, 3], init=jnp.asarray(VALUE)).init
    assert init is not None and bits(init) == bits(VALUE)


def test_relabelling_is_of_elements_of_16_bits() -> None:
    for array in (np.zeros(2, np.uint32), np.zeros(2, np.int16), np.zeros(2, np.float16)):
        for as_bfloat16 in (False, True):
            for options in ({}, {"max_version": (1, 0)}):
                with pytest.raises(BufferError, match="no bfloat16"):
                    segue._segue.relabel(array.__dlpack__(**options), as_bfloat16)
    with pytest.raises(ValueError):
        segue._segue.relabel(None, True)


# -- without ml_dtypes ------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None  # importing it fails
import pathlib
import numpy as np
import segue
from segue import Feature, State
from segue.tfrecord import decode_sequence_example, encode_sequence_example

try:
    import torch
except ImportError:
    torch = None

directory = pathlib.Path(sys.argv[1])
bits = np.array([[0x3F80, 0xC020, 0x7FC1], [0x7F80, 1, 0x8000]], np.uint16)
states = {"h": State("bfloat16", [3], init=[1, -2.5, 0.1]), "u": State("uint16", [3]),
          "f": State("float32", [3])}


def refused(batch, name, value, *parts):
    try:
        batch.save_state(name, value)
    except segue.StateError as error:
        for part in parts:
            assert part in str(error), str(error)
    else:
        raise AssertionError(name)


with segue.open(directory / "store") as client:
    stream = client.stream("train", source=segue.TFRecord(directory / "data"),
                           sequences={"x": Feature("bfloat16")}, states=states, num_unroll=2,
                           batch_size=2)
    loader = stream.loader(start="fresh")
    batches = iter(loader)
    batch = next(batches)
    x, h = batch.sequences["x"], batch.state("h")
    assert x.dtype == h.dtype == np.uint16 and isinstance(x, np.ndarray)
    assert x.tolist() == [[0, 0x3F80]] * 2 and h[0].tolist() == [0x3F80, 0xC020, 0x3DCD]
    assert not x.flags.writeable and not x.flags.owndata
    assert x.widen().dtype == np.float32 and x.widen().tolist() == [[0, 1]] * 2
    assert type(x + 1) is np.ndarray
    out = batch.state_out("h")
    out[...] = bits
    batch.save_state("h", out)
    for name in "uf":
        batch.save_state(name, batch.state(name))
    batch = next(batches)
    assert batch.state("h").tolist() == bits.tolist()
    batch.save_state("h", bits[::-1])
    assert batch.state_out("h").tolist() == bits[::-1].tolist()
    refused(batch, "h", bits[:1], "expected bfloat16 (bits in uint16, since ml_dtypes",
            "got uint16 of shape (1, 3)")
    refused(batch, "h", np.zeros((2, 3), np.float32), "expected bfloat16", "got float32")
    refused(batch, "h", np.zeros((2, 3), np.int16), "expected bfloat16", "got int16")
    if torch:
        assert torch.from_dlpack(x).dtype == torch.bfloat16
        assert torch.from_dlpack(batch.state_out("h")[:, 1]).dtype == torch.bfloat16
        assert torch.from_dlpack(x.copy()).tolist() == [[0, 1]] * 2
        assert torch.from_dlpack(batch.state("u")).dtype == torch.uint16
        value = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
        batch.save_state("h", value.requires_grad_())
        assert batch.state_out("h").tolist() == bits.tolist()
        for name in "uf":
            refused(batch, name, value, "got bfloat16")
        refused(batch, "h", value[:1], "expected bfloat16", "of shape (1, 3)")
        assert State(torch.bfloat16, [2, 3], init=value).init.tolist() == bits.tolist()
        assert State("float32", [2], init=value[0, :2]).init.tolist() == [1, -2.5]
    # The file's floats, not their bits.
    for values in (x[0], [x[0, :1], x[0]]):
        _, sequences = decode_sequence_example(encode_sequence_example({"x": values}))
        assert np.concatenate(sequences["x"]).tolist()[-2:] == [0, 1]
    for name in "uf":
        batch.save_state(name, batch.state(name))
    loader.state_dict()
    loader.close()
assert Feature("bfloat16").dtype == "bfloat16"
assert State("bfloat16", [3], init=h[0]).init.tolist() == h[0].tolist()
for init in (np.ones(3, np.uint16), 1j):
    try:
        State("bfloat16", [3], init=init)
    except segue.ArgumentError:
        continue
    raise AssertionError(init)
assert sys.modules["ml_dtypes"] is None
"""


def test_without_ml_dtypes(tmp_path: Path) -> None:
    write(tmp_path / "data", *[{"x": np.arange(8, dtype=np.float32)}] * 2)
    subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], check=True)

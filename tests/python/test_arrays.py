"""`segue.Arrays` over files that others have written: what lies there is delivered.

Random layouts, dtypes and specs are in test_equal.py (array_data.py). Here are the openers, each
over a file of its own program, what is refused and how, and files that change.
"""

from __future__ import annotations

import os
import struct
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes  # noqa: F401  # NumPy then knows bfloat16
import numpy as np
import pytest

import segue
from segue import Arrays, Feature, Raw

X = {"x": Feature("float32", 2)}


@contextmanager
def refused(kind: type[segue.Error], *parts: str) -> Iterator[None]:
    with pytest.raises(kind) as info:
        yield
    for part in parts:
        assert part in str(info.value)


def read(
    client: segue.Client,
    source: Arrays,
    sequences: dict[str, Feature],
    context: dict[str, Feature] | None = None,
    name: str = "arrays",
    **options: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """Key -> name -> array, of all sequences, put together from segments of 3 steps."""
    found: dict[str, dict[str, Any]] = {}
    with (
        client.stream(
            name, source, sequences, context, num_unroll=3, batch_size=2, persist=False, **options
        ) as stream,
        stream.loader() as loader,
    ):
        for batch in loader:
            for row, key in enumerate(batch.key):
                own = found.setdefault(key.split(b":", 1)[1].decode(), {})
                for feature, array in batch.sequences.items():
                    own.setdefault(feature, []).append(array[row, : batch.length[row]].copy())
                for feature, array in batch.context.items():
                    own[feature] = array[row].copy()
    return {
        key: {
            name: np.concatenate(part) if isinstance(part, list) else part
            for name, part in own.items()
        }
        for key, own in found.items()
    }


def table(steps: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + 2 * steps, dtype=np.float32).reshape(steps, 2)


# -- openers ---------------------------------------------------------------------------------------


def test_a_folder_of_npy(client: segue.Client, tmp_path: Path) -> None:
    """One sequence a file, by their names; labels from a list."""
    for i, steps in enumerate((4, 7, 1)):
        np.save(tmp_path / f"part-{2 - i}.npy", table(steps, i))
    source = Arrays({"x": tmp_path / "*.npy", "label": [5, 6, 7]})
    found = read(client, source, X, {"label": Feature("int64")})
    assert list(found) == ["part-0.npy:0", "part-1.npy:0", "part-2.npy:0"]
    for i, (key, own) in enumerate(found.items()):
        np.testing.assert_array_equal(own["x"], np.load(tmp_path / key[:-2]))
        assert own["label"] == 5 + i


def test_a_table_by_lengths_offsets_and_keys(client: segue.Client, tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", table(9))
    patient = np.array([17, 17, 17, 17, 3, 3, 5, 5, 5])
    np.save(tmp_path / "patient.npy", patient)
    columns = {"x": tmp_path / "table.npy", "half": np.arange(9, dtype=np.float16)}
    features = {**X, "half": Feature("float32")}
    for i, (how, keys) in enumerate(
        [
            ({"lengths": [4, 2, 3]}, ["table.npy:0", "table.npy:4", "table.npy:6"]),
            ({"offsets": [0, 4, 6, 9], "names": "abc"}, ["a", "b", "c"]),
            ({"keys": patient}, ["17", "3", "5"]),
            ({"keys": tmp_path / "patient.npy"}, ["17", "3", "5"]),
        ]
    ):
        found = read(client, Arrays.from_columns(columns, **how), features, name=f"t{i}")
        assert list(found) == keys
        for own, part in zip(found.values(), np.split(table(9), [4, 6]), strict=True):
            np.testing.assert_array_equal(own["x"], part)
            np.testing.assert_array_equal(own["half"], part[:, 0] / 2)


def test_npz_holds_a_feature_each(client: segue.Client, tmp_path: Path) -> None:
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", y=np.arange(5), x=table(5, i))
    columns = {"x": tmp_path / "*.npz", "y": tmp_path / "*.npz"}
    found = read(client, Arrays(columns), {**X, "y": Feature("int64")})
    for i, own in enumerate(found.values()):
        np.testing.assert_array_equal(own["x"], table(5, i))
        np.testing.assert_array_equal(own["y"], np.arange(5))


@pytest.mark.parametrize(("width", "dtype"), [(1, "uint8"), (2, "int16"), (4, "int32")])
@pytest.mark.parametrize("channels", [1, 3])
def test_wav_of_pythons_wave(
    client: segue.Client, tmp_path: Path, width: int, dtype: str, channels: int
) -> None:
    samples = np.random.default_rng(1).integers(0, 2**7, (31, channels)).astype(dtype)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    shape = () if channels == 1 else channels
    found = read(client, Arrays({"audio": tmp_path / "*.wav"}), {"audio": Feature(dtype, shape)})
    want = samples[:, 0] if channels == 1 else samples
    np.testing.assert_array_equal(found["a.wav:0"]["audio"], want)


def test_raw_text_and_bytes(client: segue.Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("zwölf".encode())
    events = np.arange(12, dtype=">i2").reshape(4, 3)
    for name in "ab":
        (tmp_path / f"{name}.dat").write_bytes(b"head" + events.tobytes())
    found = read(client, Arrays({"c": tmp_path / "a.txt"}), {"c": Feature("uint8")})
    assert found["a.txt:0"]["c"].tobytes() == "zwölf".encode()
    raw = Raw(tmp_path / "*.dat", ">i2", (-1, 3), offset=4)
    found = read(client, Arrays({"e": raw}), {"e": Feature("float32", 3)}, name="raw")
    assert list(found) == ["a.dat:0", "b.dat:0"]
    np.testing.assert_array_equal(found["b.dat:0"]["e"], events)


def test_tokens_of_megatron(client: segue.Client, tmp_path: Path) -> None:
    """Two sequences make the first document, one the second."""
    tokens = np.arange(11, dtype=np.uint16)
    (tmp_path / "text.bin").write_bytes(tokens.tobytes())
    (tmp_path / "text.idx").write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, 8, 3, 3)
        + np.array([4, 2, 5], "<i4").tobytes()
        + np.array([0, 8, 12], "<i8").tobytes()
        + np.array([0, 2, 3], "<i8").tobytes()
    )
    source = Arrays.from_megatron(tmp_path / "text")
    found = read(client, source, {"tokens": Feature("int64")})
    parts = [own["tokens"].tolist() for own in found.values()]
    assert parts == [list(range(6)), list(range(6, 11))]
    (tmp_path / "text.bin").write_bytes(tokens[:-1].tobytes())
    with refused(segue.ArgumentError, "has 10 tokens, its .idx says 11"):
        Arrays.from_megatron(tmp_path / "text")


def test_contiguous_data_sets_of_h5py(client: segue.Client, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["other"] = np.zeros(5)
        file["x"] = table(7)
        file.create_dataset("chunked", data=table(7), chunks=(2, 2))
        file.create_dataset("packed", data=table(7), compression="gzip")
        source = Arrays.from_columns({"x": file["x"]}, lengths=[3, 4])
        found = read(client, source, X)
        np.testing.assert_array_equal(np.concatenate([o["x"] for o in found.values()]), table(7))
        for name in ("chunked", "packed"):
            with refused(segue.ArgumentError, "a.h5", name, "segue.convert"):
                read(client, Arrays.from_columns({"x": file[name]}, lengths=[7]), X)


def test_maps_are_read_where_they_lie(client: segue.Client, tmp_path: Path) -> None:
    """Slices, fields and every second row of a memory map; nothing is written beside the store."""
    kind = np.dtype([("id", "<i4"), ("x", "<f4", 2), ("flag", "?")])
    records = np.zeros(20, kind)
    records["x"] = table(20)
    np.save(tmp_path / "records.npy", records)
    opened = np.load(tmp_path / "records.npy", mmap_mode="r")
    for i, (view, want) in enumerate(
        [
            (opened["x"], table(20)),
            (opened["x"][5:11], table(20)[5:11]),
            (opened[1::2]["x"], table(20)[1::2]),
            (np.asarray(opened["x"])[2:], table(20)[2:]),
        ]
    ):
        source = Arrays.from_columns({"x": view}, lengths=[len(want)])
        (own,) = read(client, source, X, name=f"v{i}").values()
        np.testing.assert_array_equal(own["x"], want)
    assert not (Path(client.dir) / "arrays").exists()
    changed = np.load(tmp_path / "records.npy", mmap_mode="c")["x"]
    changed[0] = 99  # in memory alone
    (own,) = read(
        client, Arrays.from_columns({"x": changed}, lengths=[20]), X, name="changed"
    ).values()
    assert own["x"][0, 0] == 99


def test_arrays_in_memory_are_written_once(client: segue.Client, tmp_path: Path) -> None:
    """Named by what they hold: another process that has the same finds them."""
    arrays = [table(4), table(2, 50)]
    half = np.arange(6).astype("bfloat16")
    for i in range(2):
        source = Arrays({"x": arrays, "h": [half[:4], half[4:]]}, names=["a", "b"])
        found = read(client, source, {**X, "h": Feature("float32")}, name=f"m{i}")
        np.testing.assert_array_equal(found["b"]["x"], table(2, 50))
        np.testing.assert_array_equal(found["b"]["h"], [4, 5])
    names = sorted(path.name[:2] for path in (Path(client.dir) / "arrays").iterdir())
    assert names == ["h-", "x-"]
    (written,) = (Path(client.dir) / "arrays").glob("x-*")
    np.testing.assert_array_equal(np.load(written), np.concatenate(arrays))


def test_threads_write_the_same_arrays(client: segue.Client) -> None:
    """Each finds the file whole, whoever of them was first."""
    source = Arrays({"x": [table(200_000)]}, names=["a"])
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda _: source._settle(client.dir, X, {})[0], range(16)))
    assert len(set(places)) == 1
    (written,) = (Path(client.dir) / "arrays").iterdir()
    np.testing.assert_array_equal(np.load(written), table(200_000))


def test_a_stream_goes_on_with_a_store_elsewhere(tmp_path: Path) -> None:
    """Where arrays of memory were written does not belong to the data."""
    np.save(tmp_path / "x.npy", table(12))
    source = Arrays.from_columns({"x": tmp_path / "x.npy", "y": [1, 2]}, lengths=[6, 6])
    options: dict[str, Any] = {"context": {"y": Feature("int64")}, "num_unroll": 2, "batch_size": 1}
    with segue.open(tmp_path / "one") as client:
        with client.stream("s", source, X, **options) as stream, stream.loader() as loader:
            for _ in zip(range(2), loader):
                pass
            token = loader.state_dict()
            step = next(iter(loader)).step
    with (
        segue.open(tmp_path / "deep" / "two") as client,
        client.stream("s", source, X, **options) as stream,
        stream.loader() as loader,
    ):
        loader.load_state_dict(token)
        assert next(iter(loader)).step == step


# -- what is refused -------------------------------------------------------------------------------


def test_what_does_not_lie_there_is_refused(client: segue.Client, tmp_path: Path) -> None:
    def wrong(array: np.ndarray, *parts: str, **options: Any) -> None:
        np.save(tmp_path / "wrong.npy", array, **options)
        with refused(segue.ArgumentError, "wrong.npy", *parts):
            read(client, Arrays({"x": tmp_path / "wrong.npy"}), X)

    wrong(np.array([{"a": 1}], object), "Python objects", "segue.convert")
    wrong(np.asfortranarray(table(5)), "Fortran order", "ascontiguousarray")
    wrong(np.zeros(3, "datetime64[s]"), "dtype datetime64[s]", "segue.convert")
    wrong(np.zeros(3, [("a", "i4")]), "holds records of 'a'", "mmap_mode")
    wrong(np.zeros(3, "bfloat16"), "bfloat16", "segue.Raw")
    wrong(np.float32(3), "a single value")
    wrong(np.zeros((0, 2), np.float32), "no steps: leave it out")
    wrong(np.zeros((5, 3), np.float32), "values of shape (3,), the stream declares (2,)")
    np.savez_compressed(tmp_path / "x.npz", x=table(5))
    with refused(segue.ArgumentError, "x.npz", "compressed", "numpy.savez", "segue.convert"):
        read(client, Arrays({"x": tmp_path / "x.npz"}), X)
    with refused(segue.ArgumentError, "x.npz", "has no array 'z'; it has 'x'"):
        read(client, Arrays({"z": tmp_path / "x.npz"}), {"z": Feature("float32", 2)})
    for name in ("a.parquet", "a.flac", "a.h5"):
        (tmp_path / name).write_bytes(b"1234")
        with refused(segue.ArgumentError, name, "segue.convert"):
            read(client, Arrays({"x": tmp_path / name}), X)
    with refused(segue.ArgumentError, "nothing matches"):
        Arrays({"x": tmp_path / "none-*.npy"})
    with refused(segue.ArgumentError, "gone.npy", "No such file"):
        read(client, Arrays({"x": tmp_path / "gone.npy"}), X)
    with refused(segue.ArgumentError, f"is a directory: name the files in it, {tmp_path}/*"):
        read(client, Arrays({"x": tmp_path}), X)
    np.save(tmp_path / "y.npy", table(5))
    with refused(segue.ArgumentError, "the stream declares (): give its Feature the shape [2]"):
        read(client, Arrays({"x": tmp_path / "y.npy"}), {"x": Feature("float32")})
    with refused(segue.ArgumentError, "'label'", "text goes into sequence files"):
        read(
            client,
            Arrays({"x": tmp_path / "y.npy", "label": ["a", "b"]}),
            X,
            {"label": Feature("int64")},
        )
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "folder.npz").mkdir()
    for name in ("folder.npy", "folder.npz"):
        with refused(segue.ArgumentError, name, "Is a directory"):
            read(client, Arrays({"x": tmp_path / name}), X)
    data = (tmp_path / "wrong.npy").read_bytes()
    for bad in ("(((5, 3),", "(-5, 3),", "(5, -3),"):
        header = data.replace(b"(5, 3), }" + b" " * (len(bad) - 7), bad.encode() + b" }")
        assert header != data and len(header) == len(data)
        (tmp_path / "bad.npy").write_bytes(header)
        with refused(segue.ArgumentError, "bad.npy", "is no .npy that can be read"):
            read(client, Arrays({"x": tmp_path / "bad.npy"}), X)
    (tmp_path / "wrong.npy").write_bytes(data[:-1])
    with refused(segue.ArgumentError, "wrong.npy", "cut off: 1 bytes"):
        read(client, Arrays({"x": tmp_path / "wrong.npy"}), X)


def test_what_loses_values_is_refused(client: segue.Client, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", table(5).astype(np.float64))
    with refused(segue.ArgumentError, "'x'", "float64, which as float32 would lose values"):
        read(client, Arrays({"x": tmp_path / "x.npy"}), X)


def test_tables_that_do_not_fit_are_refused(client: segue.Client, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", table(9))
    columns = {"x": tmp_path / "x.npy"}
    with refused(segue.ArgumentError, "row 6", "'a' comes again", "row 0", "offsets="):
        Arrays.from_columns(columns, keys=list("aaabbbacc"))
    with refused(segue.ArgumentError, "'x' has 9 values: expected 8, one a step"):
        read(client, Arrays.from_columns(columns, lengths=[4, 4]), X)
    with refused(segue.ArgumentError, "sequence 1 has no steps"):
        Arrays.from_columns(columns, lengths=[4, 0, 5])
    with refused(segue.ArgumentError, "there are no sequences"):
        Arrays.from_columns(columns, lengths=np.zeros(0, int))
    with refused(segue.ArgumentError, "sequence 0", f"{2**32} steps: cut it"):
        Arrays.from_columns(columns, lengths=[2**32])
    np.save(tmp_path / "keys.npy", np.array(list("aaabbbbbb")))
    found = read(client, Arrays.from_columns(columns, keys=tmp_path / "keys.npy"), X, name="keys")
    assert {key: len(own["x"]) for key, own in found.items()} == {"a": 3, "b": 6}
    with refused(segue.ArgumentError, "keys: row 2: 0.5 is no key"):
        Arrays.from_columns(columns, keys=np.array(["a", "a", 0.5], object))
    with refused(segue.ArgumentError, "give one of them"):
        Arrays.from_columns(columns)
    with refused(segue.ArgumentError, "no such column; they have 'x'"):
        read(client, Arrays.from_columns(columns, lengths=[9]), {"z": Feature("float32")})
    with refused(segue.ArgumentError, "from_columns", "list(array)"):
        Arrays({"x": np.zeros((2, 3, 4))})
    with refused(segue.ArgumentError, "keys: ", "x.npz", "is no .npy that can be read"):
        np.savez(tmp_path / "x.npz", keys=np.zeros(9, int))
        Arrays.from_columns(columns, keys=tmp_path / "x.npz")
    with refused(segue.ArgumentError, "keys: ", "gone.npy", "No such file"):
        Arrays.from_columns(columns, keys=tmp_path / "gone.npy")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", table(4))
        np.save(tmp_path / f"{name}-y.npy", np.zeros(4 if name == "a" else 3))
    source = Arrays(
        {"x": [tmp_path / "a.npy", tmp_path / "b.npy"], "y": tmp_path / "?-y.npy"}
    )
    with refused(segue.ArgumentError, "sequence 1", "'x' has 4", "'y' has 3", "b-y.npy"):
        read(client, source, {**X, "y": Feature("float64")})


def test_arguments_of_another_kind_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", table(9))
    for columns in ([tmp_path / "x.npy"], str(tmp_path / "x.npy"), None):
        with refused(segue.ArgumentError, "columns: expected a mapping"):
            Arrays(columns)  # type: ignore[arg-type]
        with refused(segue.ArgumentError, "columns: expected a mapping"):
            Arrays.from_columns(columns, lengths=[9])  # type: ignore[arg-type]
    with refused(segue.ArgumentError, "names: expected a key for each sequence"):
        Arrays({"x": tmp_path / "x.npy"}, names=1)
    for shape in ("abc", 2.5, (2.5, 3), None, (), (-2,), (3, 0)):
        with refused(segue.ArgumentError, "Raw.shape"):
            Raw(tmp_path / "x.npy", "float32", shape)
    for offset in (-1, "8", 1.5, 2**70):
        with refused(segue.ArgumentError, "Raw.offset"):
            Raw(tmp_path / "x.npy", "float32", offset=offset)


def test_steps_beyond_32_bits_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    """A sparse file of 2**32 steps; as two sequences it opens."""
    path = tmp_path / "long.dat"
    path.touch()
    os.truncate(path, 2**32)
    raw = Raw(path, "uint8")
    with segue.open(tmp_path / "store") as client:
        with refused(segue.ArgumentError, "long.dat", f"{2**32} steps: cut it"):
            client.stream(
                "s", Arrays({"x": raw}), {"x": Feature("uint8")}, num_unroll=1, batch_size=1
            )
        half = Arrays.from_columns({"x": raw}, lengths=[2**31, 2**31])
        with client.stream(
            "s", half, {"x": Feature("uint8")}, num_unroll=2**20, batch_size=2
        ) as stream:
            assert stream.records == 2


# -- files that change -----------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [False, True])
def test_a_file_that_shrinks_is_named(
    client: segue.Client, tmp_path: Path, checksum: bool
) -> None:
    """An error, not a signal; the server goes on; put back, so does the stream."""
    path = tmp_path / "x.npy"
    np.save(path, table(100_000))  # too long a sequence to be read at once
    data = path.read_bytes()
    source = Arrays({"x": path}, checksum=checksum)
    options: dict[str, Any] = {"num_unroll": 1000, "batch_size": 1, "depth": 2}
    with client.stream("s", source, X, **options) as stream:
        with stream.loader() as loader, refused(segue.ChangedError, str(path), "cut off"):
            for batch in loader:
                if batch.step == 1:
                    os.truncate(path, len(data) // 2)
        path.write_bytes(data)
        with stream.loader(start="continue") as loader:
            rest = [batch.sequences["x"].copy() for batch in loader]
    np.testing.assert_array_equal(rest[-1][0], table(100_000)[-1000:])
    assert client.status()


def test_other_data_under_the_same_names_is_refused(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, table(1000))

    def open_stream(
        client: segue.Client, *, lengths: tuple[int, ...] = (1000,), checksum: bool = False
    ) -> None:
        source = Arrays.from_columns({"x": path}, lengths=lengths, checksum=checksum)
        client.stream("s", source, X, num_unroll=10, batch_size=1).close()

    with segue.open(directory) as client:
        open_stream(client)
    with segue.open(directory) as client:
        open_stream(client, checksum=True)  # may be asked for later
    with segue.open(directory) as client:
        with refused(segue.ChangedError, "other arrays or sequences"):
            open_stream(client, lengths=(400, 600))
    np.save(path, table(1000, 1))
    with segue.open(directory) as client:
        with refused(segue.ChangedError, "x.npy: as many bytes as before, but other ones"):
            open_stream(client)
    np.save(path, table(1001))
    with segue.open(directory) as client:
        with refused(segue.ChangedError, "x.npy has 8136 bytes, had 8128"):
            open_stream(client, lengths=(1001,))
    np.save(path, table(1000))
    with segue.open(directory) as client:
        open_stream(client)


def test_all_openers_of_a_stream_give_the_same(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, table(10))
    options: dict[str, Any] = {"num_unroll": 1, "batch_size": 1}
    with client.stream("s", Arrays.from_columns({"x": path}, lengths=[10]), X, **options):
        with refused(segue.SpecError, "other arrays or sequences"):
            client.stream("s", Arrays.from_columns({"x": path}, lengths=[5, 5]), X, **options)
        client.stream("s", Arrays.from_columns({"x": path}, lengths=[10]), X, **options).close()


def test_checksums_see_what_samples_do_not(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, table(100_000))
    options: dict[str, Any] = {"num_unroll": 1000, "batch_size": 1}
    for checksum in (True, False):
        with client.stream(
            f"s{checksum}", Arrays({"x": path}, checksum=checksum), X, **options
        ) as stream:
            with open(path, "r+b") as file:
                file.seek(128 + 8 * 50_500)  # between two samples of 800,128 bytes
                file.write(b"\xff")
            with stream.loader() as loader:
                if checksum:
                    with refused(segue.ChangedError, str(path), "are not what they were"):
                        sum(1 for _ in loader)
                else:
                    assert sum(1 for _ in loader) == 100
            np.save(path, table(100_000))


def test_a_server_that_is_killed_gets_the_index_again(directory: Path, tmp_path: Path) -> None:
    """The client has it; the stream goes on where it was."""
    np.save(tmp_path / "x.npy", table(40))
    source = Arrays.from_columns({"x": tmp_path / "x.npy"}, lengths=[20, 20], names=["a", "b"])
    with (
        segue.open(directory) as client,
        client.stream("s", source, X, num_unroll=5, batch_size=1) as stream,
        stream.loader() as loader,
    ):
        steps = []
        for batch in loader:
            steps.append(batch.sequences["x"][0, 0, 0])
            if batch.step == 2:
                os.kill(client.status()["server"]["pid"], 9)
        assert steps == [10.0 * i for i in range(8)]


def test_bools_are_looked_at_when_they_are_read(client: segue.Client, tmp_path: Path) -> None:
    values = np.zeros(8, np.uint8)
    values[5] = 2
    np.save(tmp_path / "x.npy", values)
    data = bytearray((tmp_path / "x.npy").read_bytes())
    (tmp_path / "x.npy").write_bytes(data.replace(b"'|u1'", b"'|b1'"))
    with client.stream(
        "bools", segue.Arrays({"x": tmp_path / "x.npy"}), {"x": segue.Feature("bool")},
        num_unroll=4, batch_size=1, persist=False, depth=2,
    ) as stream:  # fmt: skip
        with stream.loader() as loader, pytest.raises(segue.DataError, match="neither 0 nor 1"):
            list(loader)

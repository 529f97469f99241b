"""`segue peek`: what it says of data files, and the Python that it writes, which is run."""

from __future__ import annotations

import ast
import gzip
import os
import random
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, FileWriter, State
from segue.tfrecord import SequenceExampleWriter, encode_sequence_example, masked_crc32c
from test_cli import FINE, WRONG, fails, report, run

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
LENGTHS = [3, 40, 17, 1, 90, 17]


def write_records(path: Path, lengths: list[int] = LENGTHS, compression: str | None = None) -> None:
    with SequenceExampleWriter(path, compression) as writer:
        for number, steps in enumerate(lengths):
            writer.write(
                {
                    "x": np.arange(steps, dtype=np.float32) + number,
                    "y": np.ones((steps, 2, 2), int),
                    "word": ["w"] * steps,
                    "odd": [[1] * (1 + step % 3) for step in range(steps)],
                    "words": [["a", "b"][: 1 + step % 2] for step in range(steps)],
                },
                {"id": number, "name": f"n{number}"} | ({"rare": 1.5} if number == 2 else {}),
            )


def write_sequences(path: Path, lengths: list[int] = LENGTHS) -> None:
    with FileWriter(
        path, {"x": Feature("int16", (2, 3))}, {"c": Feature("bool")}, {"h": State("float64", 4)}
    ) as writer:
        for number, steps in enumerate(lengths):
            x = np.full((steps, 2, 3), number, np.int16)
            writer.write({"x": x}, {"c": True}, f"key {number}", None, {"h": np.ones(4)})


def frame(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + crcs[0] + data + crcs[1]


def stream_of(python: str, directory: Path) -> segue.Stream:
    """Run the Python that was printed, on a store of the test."""
    names: dict[str, Any] = {}
    exec(python.replace('segue.open("store")', f"segue.open({str(directory)!r})"), names)
    return names["stream"]


def steps_delivered(stream: segue.Stream) -> int:
    with stream.loader() as loader:
        steps = 0
        for batch in loader:
            steps += int(batch.length.sum())
            for state in stream.states if hasattr(stream, "states") else []:
                batch.save_state(state, batch.state(state))
    return steps


def features_of(found: Any) -> dict[str, tuple[str, str, list[int] | None]]:
    return {f["name"]: (f["place"], f["dtype"], f["shape"]) for f in found["features"]}


@pytest.mark.parametrize("compression", [None, "gzip", "zlib"])
def test_tfrecord(tmp_path: Path, directory: Path, compression: str | None) -> None:
    path = tmp_path / "data.tfrecord"
    write_records(path, compression="gzip" if compression == "gzip" else None)
    if compression == "zlib":
        path.write_bytes(zlib.compress(path.read_bytes()))
    told = report("peek", path)
    (found,) = told["kinds"]
    assert not told["others"] and found["kind"] == "tfrecord" and found["all"]
    (file,) = found["files"]
    assert file["compression"] == (compression or "none") and file["sequences"] == len(LENGTHS)
    assert file["keys"][0] == "data.tfrecord:0" and len(file["keys"]) == 3
    assert found["steps"] == {"total": sum(LENGTHS), "min": 1, "median": 17, "max": 90}
    assert sum(bar["sequences"] for bar in found["histogram"]) == len(LENGTHS)
    for bar in found["histogram"]:
        inside = [n for n in LENGTHS if bar["from"] <= n <= bar["to"]]
        assert len(inside) == bar["sequences"]
    assert features_of(found) == {
        "x": ("sequences", "float32", []),
        "y": ("sequences", "int64", [4]),
        "word": ("sequences", "bytes", []),
        "words": ("sequences", "bytes", []),
        "odd": ("sequences", "int64", []),
        "id": ("context", "int64", []),
        "name": ("context", "bytes", []),
        "rare": ("context", "float32", []),
    }
    faults = {f["name"]: f["fault"] for f in found["features"]}
    assert faults.pop("words") == "1 to 2 bytes values a step, not one"
    assert faults.pop("rare") == "in 1 of 6 records" and not any(faults.values())
    forms = {f["name"]: f["form"] for f in found["features"] if "form" in f}
    assert forms == {"word": "bytes", "words": "bytes", "odd": "ragged", "name": "bytes"}
    assert file["damaged"] == 0 and not file["trouble"] and not found["notes"]
    if compression != "zlib":
        assert steps_delivered(stream_of(found["python"], directory)) == sum(LENGTHS)
    text = run("peek", path).stdout
    assert "words bytes: left out" in text and found["python"] in text and "#####" in text


def test_what_is_ragged(tmp_path: Path) -> None:
    fields = {"w": segue.Feature("int16", ragged=True), "t": segue.Feature("bytes")}
    with segue.FileWriter(tmp_path / "a.segue", fields) as writer:
        writer.write({"w": [[1, 2], []], "t": [b"a", b""]})
        writer.write({"w": [[3]], "t": [b"b"]})
    (found,) = report("peek", tmp_path / "a.segue")["kinds"]
    assert features_of(found) == {
        "w": ("sequences", "int16", []), "t": ("sequences", "bytes", [])
    }  # fmt: skip
    assert [f["form"] for f in found["features"]] == ["ragged", "bytes"]
    for line in ('"w": segue.Feature("int16", ragged=True)', '"t": segue.Feature("bytes")'):
        assert line in found["python"]
    assert "sequences  w int16 ragged\n" in run("peek", tmp_path / "a.segue").stdout


def test_sequence_files(tmp_path: Path, directory: Path) -> None:
    paths = [tmp_path / f"{letter}.segue" for letter in "abc"]
    for path in paths:
        write_sequences(path)
    (found,) = report("peek", *paths)["kinds"]
    assert found["kind"] == "files" and found["all"]
    assert found["sequences"] == 3 * len(LENGTHS) and found["steps"]["total"] == 3 * sum(LENGTHS)
    assert found["files"][0]["keys"] == ["key 0", "key 1", "key 2"]
    assert features_of(found) == {
        "x": ("sequences", "int16", [2, 3]),
        "c": ("context", "bool", []),
        "h": ("states", "float64", [4]),
    }
    assert 'segue.State("float64", [4], init="data")' in found["python"]
    stream = stream_of(found["python"], directory)
    steps = 0
    with stream.loader() as loader:
        for batch in loader:
            steps += int(batch.length.sum())
            batch.save_state("h", batch.state("h"))
    assert steps == 3 * sum(LENGTHS)


def test_many_files_are_a_pattern(tmp_path: Path, directory: Path) -> None:
    paths = [tmp_path / f"{number}.segue" for number in range(20)]
    for path in paths:
        write_sequences(path, [number % 5 + 1 for number in range(3)])
    (found,) = report("peek", *paths)["kinds"]
    assert f'segue.Files("{tmp_path}/*.segue")' in found["python"]
    assert len(found["files"]) == 20


def test_the_first_records_or_all(tmp_path: Path) -> None:
    path = tmp_path / "many.tfrecord"
    record = frame(encode_sequence_example({"x": np.zeros(2)}))
    path.write_bytes(record * 1500 + record[:-1])
    (found,) = report("peek", path)["kinds"]
    assert (found["sequences"], found["all"]) == (1000, False)
    assert "--all looks at all" in run("peek", path).stdout and not found["files"][0]["trouble"]
    (found,) = report("peek", path, "--all")["kinds"]
    assert found["sequences"] == 1500
    assert "the file ends within a record" in found["files"][0]["trouble"]
    path.write_bytes(gzip.compress(record * 1500)[:-9])
    (found,) = report("peek", path, "--all")["kinds"]
    assert found["files"][0]["compression"] == "gzip" and found["files"][0]["trouble"]


def test_damage_of_records(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tfrecord"
    records = [frame(encode_sequence_example({"x": np.arange(n + 1.0)})) for n in range(5)]
    second = bytearray(records[1])
    second[-6] ^= 1
    path.write_bytes(records[0] + second + records[2] + frame(b"\xff\xff\xff") + records[4])
    (found,) = report("peek", path)["kinds"]
    (file,) = found["files"]
    assert file["damaged"] == 2 and file["sequences"] == 3 and file["all"]
    assert file["trouble"] == (
        f"record at byte {len(records[0])}: the checksum of its data is wrong"
    )
    path.write_bytes(records[0] + b"\1" + records[1])
    (found,) = report("peek", path)["kinds"]
    assert "the checksum of its length is wrong" in found["files"][0]["trouble"]
    assert found["sequences"] == 1
    huge = struct.pack("<Q", 2**60)
    path.write_bytes(records[0] + huge + struct.pack("<I", masked_crc32c(huge)) + b"x")
    assert "is not looked into" in report("peek", path)["kinds"][0]["files"][0]["trouble"]


def test_damage_of_sequence_files(tmp_path: Path) -> None:
    path = tmp_path / "data.segue"
    write_sequences(path)
    data = path.read_bytes()
    damaged = bytearray(data)
    at = data.index(b"ENTR", data.index(b"ENTR") + 1) + 150
    damaged[at] ^= 1
    path.write_bytes(damaged)
    (found,) = report("peek", path)["kinds"]
    assert found["sequences"] == len(LENGTHS) and not found["files"][0]["trouble"]
    (found,) = report("peek", path, "--all")["kinds"]
    assert found["files"][0]["damaged"] == 1 and "checksum" in found["files"][0]["trouble"]
    path.write_bytes(data[:-1])
    (found,) = report("peek", path)["kinds"]
    assert "'segue repair' closes it" in found["files"][0]["trouble"]
    assert found["sequences"] == len(LENGTHS) and found["steps"]["total"] == sum(LENGTHS)


def test_examples_without_steps(tmp_path: Path) -> None:
    path = tmp_path / "flat.tfrecord"
    path.write_bytes(frame(encode_sequence_example({}, {"x": 1.0, "name": "a"})) * 3)
    (found,) = report("peek", path)["kinds"]
    assert found["python"] is None and "3 of 3 records" in found["notes"][0]
    assert "tf.train.Example" in run("peek", path).stdout


def example_of(steps: int) -> dict[str, Any]:
    return {
        "x": np.zeros((steps, 3)),
        "y": np.arange(steps),
        "word": ["w"] * steps,
        "ends": np.arange(2 * steps + 1),
        "size": np.zeros(5),
        "id": steps,
        "name": f"n{steps}",
    }


@pytest.mark.parametrize("lengths", [LENGTHS, [40, 40]])
def test_examples(tmp_path: Path, directory: Path, lengths: list[int]) -> None:
    path = tmp_path / "data.tfrecord"
    records = [encode_sequence_example({}, example_of(steps)) for steps in lengths]
    path.write_bytes(b"".join(map(frame, records)))
    (found,) = report("peek", path)["kinds"]
    assert found["steps"] == {
        "total": sum(lengths),
        "min": min(lengths),
        "median": sorted(lengths)[len(lengths) // 2],
        "max": max(lengths),
    }
    for bar in found["histogram"]:
        assert bar["sequences"] == sum(bar["from"] <= n <= bar["to"] for n in lengths)
    assert sum(bar["sequences"] for bar in found["histogram"]) == len(lengths)
    told = features_of(found)
    assert told == {
        "x": ("sequences", "float32", [3]),
        "y": ("sequences", "int64", []),
        "word": ("sequences", "bytes", []),
        "ends": ("context", "int64", [] if lengths == LENGTHS else [81]),
        "size": ("context", "float32", [5]),
        "id": ("context", "int64", []),
        "name": ("context", "bytes", []),
    }
    ragged = [f["name"] for f in found["features"] if f.get("form") == "ragged"]
    assert ragged == (["ends"] if lengths == LENGTHS else [])
    unroll = 8 if lengths == LENGTHS else 16  # of 17, or 40, steps as a rule
    assert f"num_unroll={unroll}," in found["python"]
    assert 'record="example")' in found["python"] and "is guessed" in found["notes"][0]
    assert steps_delivered(stream_of(found["python"], directory)) == sum(lengths)


def test_lengths_of_examples_in_several_files(tmp_path: Path) -> None:
    """Those of each file are its own; the first records are alike."""
    lengths = [[6] * 1200, [1, 50], [6, 2]]
    for number, some in enumerate(lengths):
        records = [frame(encode_sequence_example({}, example_of(steps))) for steps in some]
        (tmp_path / f"{number}.tfrecord").write_bytes(b"".join(records))
    paths = sorted(tmp_path.iterdir())
    for options, first in ([], 1000), (["--all"], 1200):
        (found,) = report("peek", *paths, *options)["kinds"]
        assert [file["steps"] for file in found["files"]] == [6 * first, 51, 8]
        assert found["steps"] == {"total": 6 * first + 59, "min": 1, "median": 6, "max": 50}
    paths[2].write_bytes(frame(encode_sequence_example({}, {"x": np.zeros(9)})))
    (found,) = report("peek", *paths)["kinds"]  # "y" is not in all of them
    assert [file["steps"] for file in found["files"]] == [18 * 1000, 153, 9]


def test_names_do_not_become_code_or_play_with_a_terminal(tmp_path: Path) -> None:
    names = ['x"), evil(', "a\\", "\x1b[31m", "\u009b2J", "é", "${HOME}", "line\nbreak", "c:d"]
    folder = tmp_path / 'dir "; evil()\\'
    folder.mkdir()
    path = folder / "\x1bfile\udcff"
    with SequenceExampleWriter(path) as writer:
        writer.write({name: np.zeros(4) for name in ["x", *names]})
    result = run("peek", path)
    assert result.returncode == FINE and "\x1b" not in result.stdout and "\x9b" not in result.stdout
    (found,) = report("peek", path)["kinds"]
    tree = ast.parse(found["python"])
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls == {"segue.open", "client.stream", "segue.TFRecord", "segue.Feature"}
    assert {'x"), evil(', "a\\", "é", "${HOME}"} <= texts and str(path) in texts
    faults = {f["name"]: f["fault"] for f in found["features"]}
    assert "name" in faults["c:d"] and "name" in faults["line\nbreak"]


def test_other_kinds_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 10)
    (tmp_path / "a.jsonl").write_text('{"x": [1]}\n')
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"\0" * 20)
    (tmp_path / "a.bz2").write_bytes(b"BZh91AY")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello")
    told = report("peek", *sorted(tmp_path.iterdir()))
    assert not told["kinds"]
    what = {Path(other["file"]).name: other["what"] for other in told["others"]}
    assert what == {
        "a.npy": "a NumPy array (.npy)",
        "a.npz": "an archive of NumPy arrays (.npz)",
        "a.wav": "a WAV file",
        "a.jsonl": "JSON",
        "a.parquet": "a Parquet file",
        "a.bz2": "bzip2",
        "empty": "empty",
        "text": "something else",
    }
    assert "segue convert" in run("peek", tmp_path / "a.npy").stdout


def test_files_of_another_kind_are_named_once(tmp_path: Path) -> None:
    for name in ("1.npy", "2.npy", "3.npy"):
        np.save(tmp_path / name, np.zeros(3))
    (tmp_path / "4.txt").write_text("hello")
    said, _, _ = run("peek", *sorted(tmp_path.iterdir())).stdout.partition("\n\n")
    told = said.splitlines()
    assert told[0] == f"{tmp_path}/1.npy and 2 more: a NumPy array (.npy)" and len(told) == 4
    assert told[2] == f"{tmp_path}/4.txt: something else"


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        width = samples.dtype.itemsize
        file.setparams((samples[0].size, width, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize(
    "kind", ["npy", "npy big-endian", "npz", "npz packed", "wav mono", "wav stereo", "wav 8"]
)
def test_python_of_arrays(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int
) -> None:
    """It is pasted and run: all values come. A name is a literal there."""
    shapes = {"npy": (2, 3), "npy big-endian": (), "npz": (3,), "npz packed": (3,)}
    dtypes = {"npy big-endian": ">f4", "wav 8": "uint8"}
    shape = (2,) if kind == "wav stereo" else shapes.get(kind, ())
    folder = tmp_path / 'of "data"'
    folder.mkdir()
    form, _, how = kind.partition(" ")
    arrays = []
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 100, (5 + number, *shape))
        arrays.append(values.astype(dtypes.get(kind, "int16")))
        path = folder / f"{number:02}.{form}"
        if form == "npy":
            np.save(path, arrays[-1])
        elif form == "wav":
            write_wav(path, arrays[-1])
        else:
            save = np.savez_compressed if how else np.savez
            save(path, x=arrays[-1], y=np.zeros(5 + number), rate=7, text=["t"] * 5)
    paths = sorted(folder.iterdir())
    (found,) = report("peek", *paths)["arrays"]
    assert found["files"] == count
    assert run("peek", *paths).stdout.endswith("\n\n" + found["python"])
    monkeypatch.chdir(tmp_path)  # where a converted file lies
    stream = stream_of(found["python"], directory)
    delivered: dict[int, list[Any]] = {}
    with stream.loader() as loader:
        for batch in loader:
            x = batch.sequences["audio" if form == "wav" else "x"]
            assert x.dtype == arrays[0].dtype.newbyteorder("=")
            for row, number in enumerate(batch.insertion_index.tolist()):
                delivered.setdefault(number, []).append(x[row, : batch.length[row]].copy())
    stream.close()
    for number, array in enumerate(arrays):
        assert np.array_equal(np.concatenate(delivered.pop(number)), array)
    assert not delivered


def test_python_of_several_kinds_of_arrays(tmp_path: Path) -> None:
    """One program each; none of what segue.Arrays does not read, nor of damaged heads."""
    np.save(tmp_path / "a.npy", np.zeros(3))
    for name, samples in (("b", np.zeros((3, 2), "i2")), ("c", np.zeros(3, "i2"))):
        write_wav(tmp_path / f"{name}.wav", samples)
    np.save(tmp_path / "d.npy", np.zeros(3))
    head = bytearray((tmp_path / "c.wav").read_bytes())
    for at, value in ((34, 24), (20, 6), (22, 0)):  # bits, format, channels
        damaged = head.copy()
        damaged[at : at + 2] = struct.pack("<H", value)
        (tmp_path / f"e{at}.wav").write_bytes(damaged)
    (tmp_path / "f.wav").write_bytes(head[:20])
    told = report("peek", *sorted(tmp_path.iterdir()))
    assert len(told["others"]) == 8
    assert [arrays["files"] for arrays in told["arrays"]] == [2, 1, 1]


def test_features_that_not_all_sequence_files_have(tmp_path: Path, directory: Path) -> None:
    """They are shown, and what is proposed opens."""
    for name, features in (("a", ("x", "y", "z")), ("b", ("x", "z")), ("c", ("x", "z", "y"))):
        dtypes = {"x": "int8", "y": "int8", "z": "int16" if name == "b" else "int32"}
        with FileWriter(
            tmp_path / f"{name}.segue", {one: Feature(dtypes[one]) for one in features}
        ) as writer:
            writer.write({one: np.ones(5, dtypes[one]) for one in features})
    (found,) = report("peek", *(tmp_path / f"{name}.segue" for name in "abc"))["kinds"]
    faults = {feature["name"]: feature["fault"] for feature in found["features"]}
    assert faults == {"x": "", "y": "alike in 2 of 3 files", "z": "alike in 2 of 3 files"}
    stream = stream_of(found["python"], directory)
    with stream.loader() as loader:
        assert sum(int(batch.length.sum()) for batch in loader) == 15


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write_sequences(tmp_path / "a.segue")
    result = run("peek", tmp_path / "none", tmp_path / "a.segue", tmp_path)
    assert result.returncode == WRONG and "No such file" in result.stderr
    named = f"{tmp_path}: is a directory: name the files in it, {tmp_path}/*"
    assert named in result.stderr and "a.segue" in result.stdout
    assert "/dev/null is no file" in run("peek", "/dev/null").stderr
    assert "FILE is empty" in fails(2, "peek", "")


def test_whatever_the_bytes_are_it_ends(tmp_path: Path) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    write_records(tmp_path / "a", [3, 2])
    write_records(tmp_path / "b", [3, 2], "gzip")
    write_sequences(tmp_path / "c", [3, 2])
    originals = [(tmp_path / name).read_bytes() for name in "abc"]
    paths = []
    for number in range(150):
        data = bytearray(chance.choice(originals))
        if number % 3 == 0:  # damage that checksums do not see
            body = bytearray(encode_sequence_example({"x": np.arange(9)}, {"y": 1.5}))
            for _ in range(chance.randrange(1, 5)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            data = bytearray(frame(bytes(body)) * 2)
        else:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            data = data[: chance.randrange(1, len(data) + 1)]
        paths.append(tmp_path / f"m{number}")
        paths[-1].write_bytes(data)
    for options in ([], ["--all"]):
        told = report("peek", *paths, *options)
        files = sum(len(found["files"]) for found in told["kinds"]) + len(told["others"])
        assert files == len(paths)

"""`python -m segue convert`: files that others wrote, read back equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
import sequence_file
from segue import _program
from segue.__main__ import main
from test_cli import environment, program


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.segue"


def convert(*arguments: Any) -> None:
    assert main(["convert", *map(str, arguments)]) == 0


def read(path: Path) -> list[sequence_file.Sequence]:
    return sequence_file.read(path).sequences


def delivered(out: Path, name: str, tmp_path: Path) -> list[list[bytes]]:
    """Of each sequence the bytes of a feature, by a stream."""
    with segue.open(tmp_path / "store") as client:
        stream = client.stream(
            "s", segue.Files(out), {name: segue.Feature("bytes")}, num_unroll=100, batch_size=1,
            persist=False,
        )  # fmt: skip
        with stream.loader() as loader:
            return [batch.bytes(name)[0, : batch.length[0]].tolist() for batch in loader]


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: Any) -> str:
    """The one sentence that it says."""
    capsys.readouterr()
    assert main(["convert", *map(str, arguments), "-o", str(out)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("segue: ") and message.count("\n") == 1, message
    assert not out.exists()
    return message


def equal(found: np.ndarray, expected: Any) -> bool:
    expected = np.asarray(expected)
    return found.dtype == expected.dtype and np.array_equal(found, expected)


# ---- NumPy ----


def test_npy_files_are_sequences(tmp_path: Path, out: Path) -> None:
    arrays = {f"d/{n}/x.npy": np.random.default_rng(n).random((n + 1, 3)) for n in range(4)}
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, array)
    np.save(tmp_path / "d/0/x.npy", np.asfortranarray(arrays["d/0/x.npy"]))
    convert(*(tmp_path / name for name in arrays), "-o", out)
    found = read(out)
    assert [s.key.decode() for s in found] == [f"{n}/x.npy" for n in range(4)]
    assert all(
        equal(s.sequences["x"], array) for s, array in zip(found, arrays.values(), strict=True)
    )


@pytest.mark.parametrize("name", [None, "audio"])
def test_npy_files_of_other_names_have_one(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], name: str | None
) -> None:
    """Which is said, unless it was given; beside a file whose array has that name."""
    paths = [tmp_path / f"{stem}.npy" for stem in "ab"]
    arrays = [np.random.default_rng(n).random((n + 2, 2)) for n in range(3)]
    for path, array in zip(paths, arrays[:2], strict=True):
        np.save(path, array)
    feature = name or "x"
    np.savez(tmp_path / "c.npz", **{feature: arrays[2]})
    options = [] if name is None else ["--name", name]
    convert(*paths, tmp_path / "c.npz", "-o", out, *options)
    told = capsys.readouterr().err
    assert ("the feature 'x': --name calls it otherwise" in told) == (name is None)
    found = read(out)
    assert [s.key for s in found] == [b"a.npy", b"b.npy", b"c.npz"]
    for sequence, array in zip(found, arrays, strict=True):
        assert set(sequence.sequences) == {feature} and equal(sequence.sequences[feature], array)


def test_one_npy_file_is_called_as_it_is(tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "speech.npy", np.zeros((3, 2)))
    convert(tmp_path / "speech.npy", "-o", out)
    assert set(read(out)[0].sequences) == {"speech"}
    convert(tmp_path / "speech.npy", "-o", out, "--name", "audio", "--force")
    assert set(read(out)[0].sequences) == {"audio"}


def test_names_that_no_array_has(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    for name in ("", "a:b"):
        assert "is not a name" in refused(capsys, out, tmp_path / "a.npy", "--name", name)
    told = refused(capsys, out, tmp_path / "a.npz", "--name", "y")
    assert "none of the files is a .npy" in told
    line = ["convert", str(tmp_path / "a.npy"), "-o", str(out), "--name", "y", "--lengths", "n"]
    assert main(line) == 2 and "give --name or --lengths" in capsys.readouterr().err


def test_npz_with_context_states_and_dtypes(tmp_path: Path, out: Path) -> None:
    x, tokens, h = np.random.default_rng(1).random((9, 2)), np.arange(9), np.ones(4)
    np.savez_compressed(tmp_path / "a.npz", x=x, tokens=tokens, label=3, h=h, junk="text")
    options = ["--states", "h", "--drop", "junk", "--dtype", "float32", "--dtype", "tokens=uint16"]
    convert(tmp_path / "a.npz", "-o", out, *options)
    (found,) = read(out)
    assert equal(found.sequences["x"], x.astype(np.float32))
    assert equal(found.sequences["tokens"], tokens.astype(np.uint16))
    assert equal(found.context["label"], np.int64(3)) and equal(found.states["h"], h.astype("f4"))
    assert found.key == b"a.npz" and set(found.sequences) == {"x", "tokens"}


def test_arrays_of_all_sequences_are_cut(tmp_path: Path, out: Path) -> None:
    lengths = np.array([3, 1, 6])
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 3 == 0
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "speaker.npy", np.array([7, 8, 9]))
    np.save(tmp_path / "n.npy", lengths)
    inputs = [tmp_path / f"{name}.npy" for name in ("x", "y", "speaker")]
    convert(*inputs, "--lengths", tmp_path / "n.npy", "-o", out)
    bounds = np.cumsum([0, *lengths])
    for number, found in enumerate(read(out)):
        cut = slice(bounds[number], bounds[number + 1])
        assert equal(found.sequences["x"], x[cut]) and equal(found.sequences["y"], y[cut])
        assert equal(found.context["speaker"], np.int64(7 + number))
        assert found.key == f"x.npy:{number}".encode()
    np.savez(tmp_path / "all.npz", x=x, n=lengths)
    convert(tmp_path / "all.npz", "--lengths", "n", "-o", out, "--force")
    assert [s.steps for s in read(out)] == lengths.tolist()


# ---- Audio ----


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav(tmp_path: Path, out: Path, width: int, channels: int) -> None:
    chance = np.random.default_rng(width)
    most = 1 << (8 * width - 1)
    samples = chance.integers(-most, most, (50, channels))
    samples[0], samples[1] = -most, most - 1
    raw = samples + (128 if width == 1 else 0)  # of 8 bits it is unsigned
    data = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in raw.ravel())
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, width, 16000, 0, "NONE", ""))
        file.writeframes(data)
    convert(tmp_path / "a.wav", "-o", out)
    (found,) = read(out)
    dtype = {1: np.uint8, 2: np.int16, 3: np.int32, 4: np.int32}[width]
    expected = raw.astype(dtype)
    assert equal(found.sequences["audio"], expected[:, 0] if channels == 1 else expected)
    assert equal(found.context["rate"], np.int64(16000))


# ---- Tables ----


def table() -> dict[str, Any]:
    """Steps of runs 5, 2, 9 of 700, 1 and 70000 rows."""
    runs = np.repeat([5, 2, 9], [700, 1, 70_000])
    chance = np.random.default_rng(3)
    return {
        "run": runs,
        "x": chance.random(len(runs)),
        "n": chance.integers(-5, 5, len(runs)).astype(np.int8),
        "ok": chance.random(len(runs)) < 0.5,
        "who": runs * 10,
    }


def check_table(found: list[sequence_file.Sequence], columns: dict[str, Any]) -> None:
    assert [s.key for s in found] == [b"5", b"2", b"9"]
    assert [s.steps for s in found] == [700, 1, 70_000]
    for sequence in found:
        rows = columns["run"] == int(sequence.key)
        for name in ("x", "n", "ok"):
            assert equal(sequence.sequences[name], columns[name][rows])
        assert equal(sequence.context["who"], columns["who"][rows][0])
        assert set(sequence.sequences) == {"x", "n", "ok"}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather", "stream.arrow"])
def test_tables_of_arrow(tmp_path: Path, out: Path, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = table()
    data, path = arrow.table(columns), tmp_path / f"t.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(data, path, row_group_size=3000)
    elif kind == "stream.arrow":
        with arrow.ipc.new_stream(str(path), data.schema) as writer:
            writer.write_table(data, 1000)
    elif kind == "arrow":
        with arrow.ipc.new_file(str(path), data.schema) as writer:
            writer.write_table(data, 1000)
    else:
        pytest.importorskip("pyarrow.feather").write_feather(data, str(path))
    convert(path, "--group-by", "run", "--context", "who", "-o", out)
    check_table(read(out), columns)


def test_rows_of_lists(tmp_path: Path, out: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    tokens = [[1, 2, 3], [4], [5, 6]]
    frames = [[[0.5, 1.5]] * len(row) for row in tokens]
    data = arrow.table(
        {
            "tokens": arrow.array(tokens, arrow.list_(arrow.int32())),
            "frames": arrow.array(frames, arrow.list_(arrow.list_(arrow.float32(), 2))),
            "name": ["a", "b", "c"],
            "label": [1, 2, 3],
        }
    )
    parquet.write_table(data, tmp_path / "t.parquet", row_group_size=2)
    convert(tmp_path / "t.parquet", "--key", "name", "-o", out)
    for sequence, row, frame, key, label in zip(
        read(out), tokens, frames, "abc", [1, 2, 3], strict=True
    ):
        assert equal(sequence.sequences["tokens"], np.array(row, np.int32))
        assert equal(sequence.sequences["frames"], np.array(frame, np.float32))
        assert sequence.key == key.encode() and sequence.context["label"] == label


def test_csv(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,x,n\n" + "".join(f"{'ab'[k // 4]},{k / 7!r},{k}\n" for k in range(8)))
    convert(path, "--group-by", "id", "-o", out)
    found = read(out)
    assert [s.key for s in found] == [b"a", b"b"]
    assert equal(np.concatenate([s.sequences["x"] for s in found]), np.arange(8) / 7)
    assert equal(found[1].sequences["n"], np.arange(4, 8))
    convert(path, "-o", out, "--force")
    (found,) = delivered(out, "id", tmp_path)
    assert found == [b"a"] * 4 + [b"b"] * 4


def test_columns_to_leave_out(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there nowhere is said: something else may have been meant."""
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,\n3,4,a\n")
    (tmp_path / "b.jsonl").write_text('{"x": [5], "u": [[1], [1, 2]]}\n')
    convert(tmp_path / "a.csv", tmp_path / "b.jsonl", "-o", out, "--drop", "y,zz,u,z")
    assert [list(one.sequences) for one in read(out)] == [["x"], ["x"]]
    assert capsys.readouterr().err == "segue: --drop: there is no 'zz' in what was read\n"


def test_json_lines(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [{"x": [[n, 0.5]] * (n + 1), "y": list(range(n + 1)), "c": n} for n in range(3)]
    path.write_text(
        "".join(json.dumps(line | {"id": f"i{k}"}) + "\n" for k, line in enumerate(lines))
    )
    convert(path, "--key", "id", "-o", out)
    for number, sequence in enumerate(read(out)):
        assert equal(sequence.sequences["x"], np.array(lines[number]["x"], float))
        assert equal(sequence.sequences["y"], np.array(lines[number]["y"]))
        assert sequence.context["c"] == number and sequence.key == f"i{number}".encode()
    path.write_text('{"w": ["a", "b"], "s": "x"}\n{"w": ["", "\\u00e9", "d"], "s": "y"}\n')
    convert(path, "-o", out, "--force")
    assert delivered(out, "w", tmp_path) == [[b"a", b"b"], [b"", "é".encode(), b"d"]]
    steps = [{"run": k // 3, "x": [k, k + 1]} for k in range(9)]
    path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    convert(path, "--group-by", "run", "-o", out, "--force")
    found = read(out)
    assert [s.key for s in found] == [b"0", b"1", b"2"]
    assert equal(found[2].sequences["x"], np.array([[6, 7], [7, 8], [8, 9]]))


# ---- HDF5 ----


def test_hdf5(tmp_path: Path, out: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "g.h5", "w") as file:
        for name in ("one", "two"):
            group = file.create_group(name)
            group["x"] = np.arange(len(name) * 2.0).reshape(len(name), 2)
            group["y"] = np.int16(len(name))
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file.create_dataset("x", data=np.ones((4, 2)), compression="gzip", chunks=(2, 2))
        file["y"] = np.int16(7)
    convert(tmp_path / "g.h5", tmp_path / "flat.hdf5", "-o", out)
    found = read(out)
    assert [s.key for s in found] == [b"g.h5:one", b"g.h5:two", b"flat.hdf5"]
    assert equal(found[0].sequences["x"], np.arange(6.0).reshape(3, 2))
    assert [int(s.context["y"]) for s in found] == [3, 3, 7]


# ---- The command ----


def test_shards(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(50), n=np.full(10, 5))
    convert(tmp_path / "all.npz", "--lengths", "n", "--shards", 3, "-o", out)
    told = capsys.readouterr().out
    assert "out-*-of-00003.segue: 10 sequences, 50 steps" in told and "steps/s" in told
    shards = [read(tmp_path / f"out-0000{k}-of-00003.segue") for k in range(3)]
    for number in range(10):
        sequence = shards[number % 3][number // 3]
        assert equal(sequence.sequences["x"], np.arange(5 * number, 5 * number + 5))
    assert main(["convert", str(tmp_path / "all.npz"), "--shards", "3", "-o", str(out)]) == 1
    convert(tmp_path / "all.npz", "--lengths", "n", "--shards", 3, "-o", out, "--force")
    assert len(list(tmp_path.iterdir())) == 4


def numbers(count: int, offset: int = 0) -> Iterator[dict[str, np.ndarray]]:
    for i in range(count):
        yield {"x": np.arange(5) + i + offset}


def firsts(directory: Path) -> list[list[int]]:
    """The first value of each sequence, file by file."""
    return [
        [int(s.sequences["x"][0]) for s in read(path)] for path in sorted(directory.glob("*.segue"))
    ]


def test_force_replaces_all_or_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.segue"

    def failing() -> Iterator[dict[str, np.ndarray]]:
        yield from numbers(3, 100)
        raise RuntimeError("the source")

    segue.convert(numbers(4), out, shards=2)
    with pytest.raises(segue.SystemCallError, match="is there already"):
        segue.convert(numbers(4), out, shards=2)
    with pytest.raises(RuntimeError, match="the source"):
        segue.convert(failing(), out, shards=2, force=True)
    assert firsts(tmp_path) == [[0, 2], [1, 3]] and len(list(tmp_path.iterdir())) == 2
    done = segue.convert(numbers(5, 100), out, shards=2, force=True)
    assert done.path == str(tmp_path / "out-*-of-00002.segue") and done.sequences == 5
    assert firsts(tmp_path) == [[100, 102, 104], [101, 103]] and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(segue.ArgumentError, match="give one of them"):
        segue.convert(numbers(5), out, force=True, keep_partial=True)
    (tmp_path / "a.segue").mkdir()
    with pytest.raises(segue.ArgumentError, match="is a directory"):
        segue.convert(numbers(5), tmp_path / "a.segue", force=True)


@pytest.mark.parametrize("shards", [1, 2])
def test_forced_files_are_the_same(tmp_path: Path, shards: int) -> None:
    """Keys are made of the names that files have in the end."""
    names = ["a b.segue"] if shards == 1 else ["a b-00000-of-00002.segue", "a b-00001-of-00002.segue"]
    segue.convert(numbers(5), tmp_path / "a b.segue", shards=shards)
    before = [(tmp_path / name).read_bytes() for name in names]
    segue.convert(numbers(5), tmp_path / "a b.segue", shards=shards, force=True)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    for name in names:
        found = [sequence.key for sequence in read(tmp_path / name)]
        assert found == [f"{name}:{number}".encode() for number in range(len(found))]


def test_what_a_killed_run_leaves(tmp_path: Path) -> None:
    """Nothing is changed; the next run removes it, but not what another one still writes."""
    out = tmp_path / "out.segue"
    segue.convert(numbers(4), out, shards=2)
    program = (
        "import os, signal, sys, numpy, segue\n"
        "def items():\n"
        "    yield {'x': numpy.arange(5)}\n"
        "    yield {'x': numpy.arange(5)}\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "segue.convert(items(), sys.argv[1], shards=2, force=True)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, out], env=os.environ, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert firsts(tmp_path) == [[0, 2], [1, 3]] and len(list(tmp_path.iterdir())) == 4

    def beside() -> Iterator[dict[str, np.ndarray]]:
        """While this one writes, another run comes and goes."""
        yield from numbers(2, 10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            segue.convert(numbers(2, 20), out, shards=2, force=True)
        assert firsts(tmp_path) == [[20], [21]] and len(list(tmp_path.iterdir())) == 4

    with pytest.warns(UserWarning, match="left by a conversion that was killed") as told:
        segue.convert(beside(), out, shards=2, force=True)
    assert len(told) == 2 and all(".out-0000" in str(one.message) for one in told)
    assert firsts(tmp_path) == [[10], [11]] and len(list(tmp_path.iterdir())) == 2


def test_trouble_while_files_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is the old or the new one; a key that is pressed just then changes nothing."""
    out = tmp_path / "out.segue"
    replace, calls = os.replace, [0]

    def trouble(kind: BaseException) -> Any:
        def replaced(one: Any, other: Any) -> None:
            calls[0] += 1
            if calls[0] == 2:
                raise kind
            replace(one, other)

        calls[0] = 0
        return replaced

    segue.convert(numbers(3), out, shards=3)
    monkeypatch.setattr(os, "replace", trouble(PermissionError(1, "not permitted")))
    with pytest.raises(segue.SystemCallError, match="not permitted; 1 of 3 files are new"):
        segue.convert(numbers(3, 10), out, shards=3, force=True)
    assert firsts(tmp_path) == [[10], [1], [2]] and len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(os, "replace", trouble(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        segue.convert(numbers(3, 20), out, shards=3, force=True)
    assert firsts(tmp_path) == [[20], [21], [22]] and len(list(tmp_path.iterdir())) == 3


def test_what_is_there_stays(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.arange(3.0))
    out.write_bytes(b"mine")
    assert main(["convert", str(tmp_path / "x.npy"), "-o", str(out)]) == 1
    assert "--force replaces it" in capsys.readouterr().err and out.read_bytes() == b"mine"
    np.save(tmp_path / "bad.npy", np.array(3.0))
    assert main(["convert", str(tmp_path / "bad.npy"), "-o", str(out), "--force"]) == 1
    assert out.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 3
    convert(tmp_path / "x.npy", "-o", out, "--force")
    assert len(read(out)) == 1 and len(list(tmp_path.iterdir())) == 3
    os.symlink("x.npy", tmp_path / "y.npy")
    content = (tmp_path / "x.npy").read_bytes()
    for one, other in [("x.npy", "x.npy"), ("x.npy", "y.npy"), ("y.npy", "x.npy")]:
        line = ["convert", str(tmp_path / one), "-o", str(tmp_path / other), "--force"]
        assert main(line) == 1
        assert f"{one} is what is to be read" in capsys.readouterr().err
    assert (tmp_path / "x.npy").read_bytes() == content


def test_what_is_not_read(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def no(name: str, content: bytes | str, *options: Any) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return refused(capsys, out, path, *options)

    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    assert "o.npy: is no array" in refused(capsys, out, tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", x=np.array([{}], object))
    assert "o.npz: is no array" in refused(capsys, out, tmp_path / "o.npz")
    assert "is no array" in no("cut.npy", b"\x93NUMPY\1\0")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((5,), }".ljust(117) + b"\n"
    assert "is no array" in no("bad.npy", b"\x93NUMPY\1\0\x76\0" + header)
    assert "cut.npz: is" in no("cut.npz", b"PK\3\4 nothing")
    assert "is no WAV file of PCM" in no("a.wav", b"RIFF\0\0\0\0WAVE")
    assert "is of no kind that is read" in no("a.xyz", "")
    assert "No such file" in refused(capsys, out, tmp_path / "none.npy")
    csv = "id,x\na,1\nb,2\na,3\n"
    assert "row 2 has the key 'a', whose run has ended" in no("a.csv", csv, "--group-by", "id")
    assert "has no column 'i'; it has 'id', 'x'" in no("a.csv", csv, "--group-by", "i")
    assert "row 1 has 1 values" in no("b.csv", "id,x\na,1\nb\n")
    assert "each once" in no("b.csv", "x,x\n1,2\n")
    changes = no("c.csv", "id,x,c\na,1,2\na,2,3\n", "--group-by", "id", "--context", "c")
    assert "'c' changes within the run of 'a'" in changes
    assert "line 2 is no JSON" in no("a.jsonl", '{"x": [1]}\n{"x": \n')
    assert "line 1 is no object" in no("a.jsonl", "[1]\n")
    assert "lists of numbers alike" in no("a.jsonl", '{"x": [[1], [1, 2]]}\n')
    assert "--key: there is no 'k'; it has 'x'" in no("a.jsonl", '{"x": [1]}\n', "--key", "k")
    more = no("a.jsonl", '{"x": [1]}\n{"x": [1], "y": [2]}\n')
    assert "sequence 'a.jsonl:1' has 'y', which the first one has not" in more
    assert "item 1: 'y' is missing" in no("a.jsonl", '{"x": [1], "y": [2]}\n{"x": [1]}\n').replace(
        "sequences['y']", "'y'"
    )
    assert "there is no sequence in it" in no("a.jsonl", "\n")
    assert "has no array of steps" in no("a.jsonl", '{"x": 1}\n')
    assert "item 1: x: expected" in no("a.jsonl", '{"x": [1]}\n{"x": [[1]]}\n').replace(
        "sequences['x']", "x"
    )
    assert "column 'y' has missing values (row 1)" in no("d.csv", "x,y\n1,2\n1, \n1,.5\n")
    lines = '{"x": [1], "y": [2]}\n'
    for option in ("--sequences", "--context", "--states"):
        said = no("a.jsonl", lines, option, "x,z")
        assert f"line 1: {option}: there is no 'z'; it has 'x', 'y'" in said
    assert "--dtype: there is no 'z'" in no("a.jsonl", lines, "--dtype", "z=int8")
    mixed = '{"x": [1]}\n{"x": [0.5]}\n'
    assert "the first one as int64: give --dtype x=float64" in no("a.jsonl", mixed)
    assert "is a directory: name the files in it" in refused(capsys, out, tmp_path)
    np.save(tmp_path / "x.npy", np.arange(3))
    x = tmp_path / "x.npy"
    assert "--group-by is for tables" in refused(capsys, out, x, "--group-by", "x")
    assert "neither a file nor an array" in refused(capsys, out, x, "--lengths", "n")
    assert "--lengths is for .npy and .npz" in refused(
        capsys, out, tmp_path / "a.csv", "--lengths", "n"
    )
    np.save(tmp_path / "big.npy", np.array([1e300, 300.5]))
    big = tmp_path / "big.npy"
    for dtype in ("float16", "big=int64", "big=uint8"):
        assert "cannot hold" in refused(capsys, out, big, "--dtype", dtype)
    assert "cannot hold" in refused(capsys, out, x, "--dtype", "x=bool")


def test_tables_that_are_not_read(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for column, said in [
        (arrow.array([1.0, None]), "column 'x' has missing values"),
        (arrow.array([{"a": 1}]), "column 'x' is of type struct"),
        (arrow.array([1], arrow.date32()), "column 'x' is of type date32"),
        (arrow.array([], arrow.int8()), "has no rows"),
    ]:
        parquet.write_table(arrow.table({"x": column}), path)
        assert said in refused(capsys, out, path)
    path.write_bytes(b"PAR1 and nothing")
    assert "is no Parquet file" in refused(capsys, out, path)
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 and nothing")
    assert "is no Arrow file" in refused(capsys, out, tmp_path / "a.arrow")
    h5py = pytest.importorskip("h5py")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n and nothing")
    assert "is no HDF5 file" in refused(capsys, out, tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.ones(3)
        file["g/y"] = np.ones(3)
    assert "both groups and data sets" in refused(capsys, out, tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["g/h/y"] = np.ones(3)
    assert "holds groups" in refused(capsys, out, tmp_path / "c.h5")


@pytest.mark.parametrize(("name", "package"), [("a.parquet", "pyarrow"), ("a.h5", "h5py")])
def test_a_missing_library_is_named(
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    package: str,
) -> None:
    for module in [package, f"{package}.parquet"]:
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_bytes(b"")
    said = refused(capsys, out, tmp_path / name)
    assert said.endswith(f"reading it needs {package}: pip install {package}\n")


def test_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        [],
        ["peek"],
        ["convert"],
        ["convert", "a.npy"],
        ["convert", "a.npy", "-o", "x", "--dtype", "float8"],
        ["convert", "a.npy", "-o", "x", "--group-by", "a", "--lengths", "b"],
    ):
        try:
            status = main(line)
        except SystemExit as end:
            status = int(end.code or 0)
        assert status == 2, line
    with pytest.raises(SystemExit) as ended:
        main(["convert", "--help"])
    assert ended.value.code == 0 and "Exit status:" in capsys.readouterr().out


def test_the_program_becomes_python(tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3.0))
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "python3").symlink_to(sys.executable)
    package = str(Path(segue.__file__).parents[1])
    command = [program(), "convert", str(tmp_path / "x.npy"), "-o", str(out)]
    there = environment(PATH=str(bin), PYTHONPATH=package)
    result = subprocess.run(command, env=there, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "1 sequence, 3 steps" in result.stdout, result
    assert subprocess.run(command, env=there, capture_output=True).returncode == 1
    assert subprocess.run([program(), "convert"], env=there, capture_output=True).returncode == 2
    gone = environment(PATH=str(tmp_path))
    result = subprocess.run(command, env=gone, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "python -m segue convert" in result.stderr, result


def test_the_script_of_the_package_is_the_same(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.arange(3.0))
    line = ["segue", "convert", str(tmp_path / "x.npy"), "-o", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it is Python already"))
    with pytest.raises(SystemExit) as ended:
        _program.main()
    assert ended.value.code == 0 and len(read(out)) == 1

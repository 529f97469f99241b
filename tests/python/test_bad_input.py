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

import bz2
import ctypes
import ctypes.util
import faulthandler
import glob
import gzip
import json
import lzma
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import wave
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import little
import peer
import segue
from segue import Feature, State, _program
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
    del info  # its frames hold batches, and this one it


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


def end_server(dir: Path) -> None:
    """Waits until the embedded server of a store, whose last user is gone, is gone too."""
    left = [dir / "segue.sock", dir / "server.pid"]
    deadline = time.monotonic() + 10
    while any(path.exists() for path in left) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(path.exists() for path in left)


def drop_checkpoints(dir: Path) -> None:
    program = os.environ.get("SEGUE_PROGRAM") or _program.bundled() or "segue"
    subprocess.run([program, "checkpoint", "rm", dir, "--all"], check=True, capture_output=True)


def kill_server(dir: Path) -> None:
    pid = little.pid_of(dir)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not little.has_ended(pid) and time.monotonic() < deadline:
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
            segue.DataError,
            f"{cut}: record at byte {begin}:",
            f"ends within it, at byte {size}; was it",
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
        with stream.loader() as loader:
            for batch in loader:
                steps.append(batch.step)
                save(batch)
    assert steps == [0, 1, 2]  # records 0 to 3; a row that ends then would take record 4
    with refused(segue.DataError, f"record at byte {offsets[-1]}"):
        read(stream, start="continue")


@pytest.mark.parametrize("compression", ["gzip", "zlib"])
def test_damaged_compressed_files(
    client: segue.Client, tmp_path: Path, compression: str
) -> None:
    path = tmp_path / "whole"
    write(path, compression=compression)
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
            assert compression == "gzip" and at < 10
            harmless += 1
            assert str(rows).replace(flipped.name, "whole") == str(good)
    assert harmless < 10
    write(path)
    with refused(segue.DataError, f"{path}: is not {compression}"):
        client.stream("s", **arguments(path, source=segue.TFRecord(path, compression=compression)))


# -- records that the spec does not fit ------------------------------------------------------------

X, Y, C = Feature("float32"), Feature("int64"), Feature("int32")


@pytest.mark.parametrize(
    "bad, changes, parts",
    [
        ({}, {"sequences": {"x": X}}, ["feature 'y': not declared", "allow surplus"]),
        ({}, {"sequences": {"x": X, "y": Y, "z": Y}}, ["feature 'z': missing"]),
        ({}, {"context": {"c": C, "d": C}}, ["context feature 'd': missing"]),
        ({}, {"context": {}}, ["context feature 'c': not declared", "allow_surplus=True"]),
        (
            {},
            {"context": {}, "sequences": {"z": Y, "x": X}},
            ["not declared", "In all, not declared: context 'c', 'y'; missing: 'z'"],
        ),
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
            ["feature 'x': step 0: 1 value, expected 2"],
        ),
        (
            {},
            {"context": {"c": Feature("int32", [2, 2])}},
            ["context feature 'c': 1 value, expected 4"],
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
    """Whether bytes that are damaged are to be passed over or not: these are not."""
    path = tmp_path / "data"
    first = () if changes else (example(UNROLL),)
    offsets = write(path, [*first, example(4, **bad)])
    for on_error in ("raise", "skip"):
        options = {"batch_size": 1, "on_error": on_error, **changes}
        with refused(
            segue.DataError, f"{path}: record at byte {offsets[-1]}: ", "the record holds: ", *parts
        ):
            read(client.stream(on_error, **arguments(path, **options)))
        with refused(segue.DataError, *parts):  # also where lengths are scanned
            read(client.stream(f"{on_error}-pad", **arguments(path, tail="pad", **options)))
        for name in (on_error, f"{on_error}-pad"):
            with pytest.raises(segue.DataError) as info:
                read(client.stream(name, **arguments(path, **options, **_tail(name))), start="fresh")
            assert "on_error" not in str(info.value)


def _tail(name: str) -> dict[str, Any]:
    return {"tail": "pad"} if name.endswith("-pad") else {}


def test_skip_passes_over_damaged_bytes_alone(client: segue.Client, tmp_path: Path) -> None:
    """One that does not fit, behind a damaged one: the former is an error, the latter counted."""
    path = tmp_path / "data"
    offsets = write(path, [example(4), example(4), example(4), example(4, z=np.zeros(4))])
    data = bytearray(path.read_bytes())
    data[offsets[1] + 30] ^= 1
    path.write_bytes(data)
    stream = client.stream("s", **arguments(path, batch_size=1, on_error="skip"))
    with refused(
        segue.DataError,
        f"{path}: record at byte {offsets[3]}: feature 'z': not declared",
        "the record holds: context c (int64); sequences x (float), y (int64), z (float)",
    ):
        read(stream)
    assert [s["skipped"] for s in client.status()["streams"]] == [1]


def test_a_name_that_is_elsewhere(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "data"
    write(path, [({"x": np.zeros(4, np.float32)}, {"y": 1, "c": 1})])
    with refused(
        segue.DataError,
        f"{path}: record at byte 0: 'y' is in the record's context, and was declared as a "
        "sequence feature; declare it as context",
    ):
        read(client.stream("s", **arguments(path)))
    write(path.with_name("steps"), [({"x": np.zeros(4), "y": range(4), "c": range(4)}, {})])
    with refused(
        segue.DataError, "'c' is a sequence feature of the record, and was declared as context"
    ):
        read(client.stream("t", **arguments(path.with_name("steps"))))
    example_alone = tmp_path / "example"
    write(example_alone, [({}, {"x": np.zeros(4, np.float32), "y": [1, 2, 3, 4], "c": 1})])
    for surplus in (False, True):
        source = segue.TFRecord(example_alone, allow_surplus=surplus)
        with refused(
            segue.DataError,
            f"{example_alone}: record at byte 0: all features of the record, c (int64), "
            "x (float), y (int64), lie in its context, as those of a tf.train.Example do: if it is "
            'one, give TFRecord(..., record="example")',
        ):
            read(client.stream(f"u{surplus}", **arguments(path, source=source)))


# -- odd, and right --------------------------------------------------------------------------------


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _group(number: int, *inner: bytes) -> bytes:
    return _varint(number << 3 | 3) + b"".join(inner) + _varint(number << 3 | 4)


def _odd_record(rng: np.random.Generator) -> bytes:
    """x: float32 [2] a step, y: int64 a step, c: int64, in ways that a parser may meet."""

    def unknown() -> bytes:
        ways = [b"", _group(20), _group(21, _group(22, b"\x08\x05"), _field(1, b"x")), b"\x78\x01"]
        return ways[rng.integers(len(ways))]

    def floats(count: int) -> bytes:
        parts, left = b"", count
        while left:
            n = int(rng.integers(1, left + 1))
            data = rng.random(n).astype("<f4").tobytes()
            loose = b"".join(b"\x0d" + data[i : i + 4] for i in range(0, len(data), 4))
            parts += _field(2, (_field(1, data) if rng.integers(2) else loose) + unknown())
            left -= n
        return parts

    def integer() -> bytes:
        value = _varint(int(rng.integers(2**62)))
        return _field(3, _field(1, value) if rng.integers(2) else b"\x08" + value)

    def feature(values: bytes, other: bytes) -> bytes:
        return unknown() + (other if rng.integers(2) else b"") + values + unknown()

    def steps(name: bytes, n: int) -> bytes:
        all_steps = b""
        for _ in range(n):
            if name == b"x":
                all_steps += _field(1, feature(floats(2), integer())) + unknown()
            else:
                all_steps += _field(1, feature(integer(), floats(2))) + unknown()
        return all_steps

    def entry(name: bytes, value: bytes) -> bytes:
        # Nothing unknown here: the C++ parser reads such entries, the one behind Python drops them.
        parts = [_field(1, b"nobody") + _field(1, name), _field(2, value)]
        return _field(1, b"".join(parts[i] for i in rng.permutation(2)))

    n = int(rng.integers(1, 9))
    record = unknown()
    for name, length in ((b"x", 3), (b"y", 2), (b"x", n), (b"y", n)):  # the last ones count
        record += _field(2, entry(name, steps(name, length)) + unknown()) + unknown()
    for _ in range(2):
        record += _field(1, entry(b"c", feature(integer(), floats(1)))) + unknown()
    return record


def test_odd_encodings_are_read_as_protobuf_reads_them(
    client: segue.Client, tmp_path: Path
) -> None:
    pytest.importorskip("google.protobuf")
    from test_tfrecord import message_class

    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng = np.random.default_rng(seed)
    SequenceExample = message_class()
    records = [_odd_record(rng) for _ in range(60)]
    path = tmp_path / "data"
    with SequenceExampleWriter(path) as writer:
        for record in records:
            writer.write_record(record)
    stream = client.stream(
        "s",
        segue.TFRecord(path),
        sequences={"x": Feature("float32", [2]), "y": Y},
        context={"c": Feature("int64")},
        num_unroll=8,
        batch_size=1,
    )
    with stream.loader() as loader:
        for batch, record in zip(loader, records, strict=True):
            message = SequenceExample.FromString(record)
            lists = message.feature_lists.feature_list
            n = int(batch.length[0])
            x = [list(step.float_list.value) for step in lists["x"].feature]
            y = [step.int64_list.value[0] for step in lists["y"].feature]
            assert n == len(x) == len(y)
            assert batch.sequences["x"][0, :n].tolist() == x
            assert batch.sequences["y"][0, :n].tolist() == y
            assert batch.context["c"].tolist() == list(message.context.feature["c"].int64_list.value)


# -- patterns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    ["**/*.tf", "*/**/*.tf", "**/b/*.tf", "**/b/**/*.tf", "a/**/**/*.tf", "**/?.tf", "[ac]/**/3.tf"],
)
def test_two_stars_find_what_python_s_glob_finds(
    client: segue.Client, tmp_path: Path, pattern: str
) -> None:
    root = tmp_path / "data"
    names = ["0.tf", "a/1.tf", "a/b/2.tf", "c/3.tf", "c/b/4.tf", "c/.d/5.tf", "b/b/b/6.tf", "c/7.x"]
    for number, name in enumerate(names):
        write(root / name, [example(1, add=number)])
    (root / "a" / "link").symlink_to("../c")
    wanted = sorted(set(glob.glob(f"{root}/{pattern}", recursive=True)))
    assert wanted
    numbers = [names.index(os.path.relpath(os.path.realpath(path), root)) for path in wanted]
    rows = read(client.stream("s", **arguments(root / pattern, batch_size=1)))
    assert [x[0][0] for _, x, _ in rows] == numbers


def test_random_patterns_find_what_python_s_glob_finds(
    client: segue.Client, tmp_path: Path
) -> None:
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng = np.random.default_rng(seed)
    root = tmp_path / "data"
    folders = {"/".join(rng.choice(["a", "b", "ab", ".c"], rng.integers(4))) for _ in range(12)}
    names = [f"{folder}/{file}".lstrip("/") for folder in sorted(folders) for file in ("f", "g")]
    for number, name in enumerate(names):
        write(root / name, [example(1, add=number)])
    found = 0
    for turn in range(60):
        parts = [*rng.choice(["**", "*", "a", "[ab]", "a*", "??"], rng.integers(4)), "**"]
        rng.shuffle(parts)
        pattern = "/".join([str(root), *parts, str(rng.choice(["f", "*", "[fg]", "**"]))])
        paths = sorted(set(glob.glob(pattern, recursive=True)))
        wanted = [os.path.relpath(path, root) for path in paths if os.path.isfile(path)]
        if not wanted:
            with pytest.raises(segue.SourceError) as refusal:
                client.stream(f"s{turn}", **arguments(pattern))
            why = str(refusal.value)
            lost = re.search("cannot read the directory (.*): No such file or directory", why)
            assert pattern in why
            assert not Path(lost[1]).exists() if lost else "nothing matches it" in why, why
            continue
        with client.stream(f"s{turn}", **arguments(pattern, batch_size=1)) as stream:
            rows = read(stream)
        assert [names[int(x[0][0])] for _, x, _ in rows] == wanted, pattern
        found += 1
    assert found > 5


def test_two_stars_within_a_name_are_refused(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.tf")
    with refused(segue.ArgumentError, str(tmp_path / "**.tf"), "'**' stands for directories"):
        client.stream("s", **arguments(tmp_path / "**.tf"))


# -- compressed in other ways ----------------------------------------------------------------------


def test_compressions_that_are_not_read_are_named(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    write(path)
    raw = path.read_bytes()
    kinds = {
        "bzip2": bz2.compress(raw),
        "xz": lzma.compress(raw),
        "zstd": b"\x28\xb5\x2f\xfd" + bytes(60),
        "lz4": b"\x04\x22\x4d\x18" + bytes(60),
    }
    for name, data in kinds.items():
        packed = tmp_path / name
        packed.write_bytes(data)
        for compression in ("auto", "gzip", "none"):
            source = segue.TFRecord(packed, compression=compression)
            with refused(
                segue.DataError, f"{packed}: is compressed with {name}", "unpack it", "gzip"
            ):
                client.stream(name, **arguments(path, source=source))
    for name, compress in (("gzip", gzip.compress), ("zlib", zlib.compress)):
        packed = tmp_path / name
        packed.write_bytes(compress(raw))
        source = segue.TFRecord(packed, compression="none")
        with refused(
            segue.DataError, f"{packed}: is compressed with {name}, and", '"none"', '"auto"'
        ):
            client.stream(name, **arguments(path, source=source))
        packed.write_bytes(compress(gzip.compress(raw)))
        with refused(segue.DataError, f"{packed}: compressed twice"):
            client.stream("twice", **arguments(packed))


def test_files_of_zlib_at_every_level(client: segue.Client, tmp_path: Path) -> None:
    """As TensorFlow writes them with compression_type="ZLIB", found by their first bytes."""
    path = tmp_path / "plain"
    write(path)
    good = str(read(client.stream("plain", **arguments(path))))
    for level in range(10):
        for window in (9, 15):
            packer = zlib.compressobj(level, wbits=window)
            packed = tmp_path / f"zlib-{level}-{window}"
            packed.write_bytes(packer.compress(path.read_bytes()) + packer.flush())
            rows = read(client.stream(packed.name, **arguments(packed)))
            assert str(rows).replace(packed.name, "plain") == good


def test_files_of_other_kinds_are_named(client: segue.Client, tmp_path: Path) -> None:
    """With the call that takes them, whichever source they were given to."""
    x = np.arange(6, dtype="f4")
    np.save(tmp_path / "array.npy", x)
    np.savez(tmp_path / "stored.npz", x=x)
    np.savez_compressed(tmp_path / "packed.npz", x=x)
    (tmp_path / "lines.jsonl").write_text("".join(f'{{"x": [{i}]}}\n' for i in range(3)))
    (tmp_path / "object.json").write_text(json.dumps({"x": [1, 2]}, indent=2))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data.csv", "x,y")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(100))
    names = {
        "array.npy": "a NumPy array (.npy)",
        "stored.npz": "an archive of NumPy arrays (.npz)",
        "packed.npz": "an archive of NumPy arrays (.npz)",
        "lines.jsonl": "JSON",
        "object.json": "JSON",
        "data.zip": "a zip archive",
        "sound.wav": "a WAV file",
    }
    for name, what in names.items():
        advice = "unpack it" if "zip" in name else "'segue convert' makes a sequence file of it"
        path = tmp_path / name
        for source, kind in ((segue.TFRecord, "TFRecord"), (segue.Files, "sequence")):
            with refused(segue.DataError, f"{path}: is {what}, no {kind} file: ", advice):
                client.stream("s", **arguments(path, source=source(path)))
    segue.convert([{"x": x, "y": np.arange(6)}], tmp_path / "a.segue")
    with refused(segue.DataError, "is a sequence file, no TFRecord file: open it with segue.Files"):
        client.stream("s", **arguments(tmp_path / "a.segue"))
    write(tmp_path / "data")
    with refused(segue.DataError, "is a TFRecord file, no sequence file: open it with segue.TFRec"):
        client.stream("s", **arguments(path, source=segue.Files(tmp_path / "data")))


def test_inflated_copies_are_of_what_is_there(client: segue.Client, tmp_path: Path) -> None:
    """One a file, of its newest version; none of what was refused; one that was cut is made anew."""
    path, cache = tmp_path / "data.gz", tmp_path / "store" / "cache"
    for version in range(3):
        write(path, [example(4, add=version)] * 9, compression="gzip")
        with client.stream(f"v{version}", **arguments(path)) as stream:
            assert read(stream)[0][1][0] == [version, version + 1, version + 2]
        assert len(list(cache.iterdir())) == 1
    end = write(tmp_path / "plain", [example(4, add=2)] * 9)[5]
    (copy,) = cache.iterdir()
    with copy.open("r+b") as file:
        file.truncate(end)  # five whole records
    assert client.stream("again", **arguments(path)).records == 9
    packed = gzip.compress((tmp_path / "plain").read_bytes()[:-3])
    path.write_bytes(packed)
    with refused(segue.DataError, str(path), "ends within it"):
        client.stream("cut", **arguments(path))
    assert not list(cache.iterdir())


def test_the_same_files_in_another_order(client: segue.Client, tmp_path: Path) -> None:
    paths = [tmp_path / "data" / name for name in "abc"]
    for path in paths:
        write(path)
    client.stream("s", **arguments(paths)).close()
    with refused(
        segue.ChangedError,
        "stream 's': its data set has changed: the same files are listed in another order",
        "sort the list",
    ):
        client.stream("s", **arguments(paths[::-1]))
    with refused(segue.ChangedError, "1 of its 3 files is missing, the first is c"):
        client.stream("s", **arguments(paths[:2]))


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
        ({"context": None}, ['context "c": in the store, not asked for']),
        ({"states": {}}, ['states "h": in the store']),
        ({"states": {"h": State("float32", [3])}}, ['"h" shape: [2] in the store, [3] asked for']),
        ({"states": {"h": State("float32", [2], init=1)}}, ['"h" initial value']),
        ({"num_unroll": 4}, ["num_unroll: 3 in the store, 4 asked for"]),
        ({"batch_size": 3}, ["batch_size: 2 in the store, 3 asked for"]),
        ({"lanes": 2}, ["lanes: 1 in the store, 2 asked for"]),
        ({"shuffle": True}, ["shuffle: false in the store, true asked for"]),
        ({"seed": 2**64 - 1}, ["seed: 0 in the store, 18446744073709551615 asked for"]),
        ({"epochs": 2, "first_epoch": 1}, ["first_epoch: 0 in the store, 1 asked for"]),
        ({"pad": False}, ["pad: true in the store, false asked for"]),
        ({"tail": "stop"}, ["tail: shrink in the store, stop asked for"]),
        ({"epoch_end": "drain"}, ["epoch_end: continue in the store, drain asked for"]),
        ({"on_error": "skip"}, ["on_error: raise in the store, skip asked for"]),
        ({"keep_final": True}, ["keep_final: false in the store, true asked for"]),
        (
            {"source": segue.TFRecord(path, key="c")},
            ["key (in C: key_feature): (none) in the store, c asked for"],
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
    runtime = {"depth": 2, "num_threads": 2, "durability": "commit", "interval": 2}
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
        token = loader.state_dict()
    date = time.strftime("%Y-%m-%d")
    loader = stream.loader(lanes=[1])
    for ask in (iter, lambda loader: loader.rounds()):
        with refused(
            segue.StartError, "stream 'train', lane 1", "step 1", f"committed {date}",
            'start="continue"', 'start="fresh"', "load_state_dict()",
        ):  # fmt: skip
            next(ask(loader))
        assert loader.state_dict() == token  # says where the store is, and begins nothing
    assert next(iter(stream.loader(lanes=[0]))).step == 0


def test_the_source_without_its_extension_says_so(tmp_path: Path) -> None:
    source = tmp_path / "segue"
    source.mkdir()
    shutil.copy(Path(segue.__file__), source)
    run = subprocess.run(
        [sys.executable, "-S", "-c", "import segue"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert f"ImportError: {source} is segue's source, without its extension module" in run.stderr


def test_a_stream_is_not_a_loader(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data")
    stream = client.stream("train", **arguments(tmp_path / "data"))
    with pytest.raises(TypeError, match=r"for batch in stream\.loader\(\)"):
        next(iter(stream))


def test_going_on_says_what_to_do(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data")
    stream = client.stream("train", **arguments(tmp_path / "data", depth=2))
    batches = iter(stream.loader())
    batch = next(batches)
    with refused(segue.UnsavedError, "batch 0 of lane 0", "not saved: 'h'", "batch.states = ..."):
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


@pytest.mark.parametrize("compression", [None, "gzip", "zlib"])
@pytest.mark.parametrize(
    "change, what",
    [
        (change_size, "part.tfrecord has 4 records, had 5"),
        (change_values, "part.tfrecord: as many records and bytes as before, but other ones"),
        (change_order, "part.tfrecord: as many records and bytes as before, but other ones"),
        (change_name, "1 of its 2 files is missing, the first is part.tfrecord, and 1 other is"),
        (add_file, "1 file is there that was not when it was made, the first is more.tfrecord"),
        (remove_file, "1 of its 2 files is missing, the first is part.tfrecord"),
    ],
)
def test_a_data_set_that_has_changed(
    tmp_path: Path, change: Any, what: str, compression: str | None
) -> None:
    path, store = tmp_path / "data" / "part.tfrecord", tmp_path / "store"
    write(path, compression=compression)
    write(path.with_name("other.tfrecord"))
    pattern = path.with_name("*.tfrecord")
    client = segue.open(store)
    good = read(client.stream("s", **arguments(pattern)))
    client.close()
    end_server(store)
    change(path, compression=compression)
    client = segue.open(store)
    with refused(
        segue.ChangedError,
        str(path.parent),
        "put it back as it was, or give the stream another name",
    ):
        client.stream("s", **arguments(pattern))
    # Under another name the files can be had as they are now, and then the message is another.
    assert read(client.stream("t", **arguments(pattern))) != good
    with refused(segue.ChangedError, "stream 's': its data set has changed: ", what, "another name"):
        client.stream("s", **arguments(pattern))
    client.close()


@pytest.mark.parametrize("compression", [None, "gzip", "zlib"])
@pytest.mark.parametrize(
    "change",
    [change_size, change_values, change_order, change_name, add_file, remove_file],
)
def test_a_data_set_that_changes_under_an_open_stream(
    client: segue.Client, tmp_path: Path, change: Any, compression: str | None
) -> None:
    """What is delivered is what was there when it was opened, or nothing."""
    path = tmp_path / "data" / "part.tfrecord"
    write(path, compression=compression)
    stream = client.stream("s", **arguments(path.with_name("*.tfrecord")))
    good = read(stream)
    change(path, compression=compression)
    try:
        assert read(stream, start="fresh") == good
    except segue.ChangedError as error:
        assert compression is None and change in (change_size, change_values, change_order)
        assert f"{path}: record at byte" in str(error)
        assert re.search("its stored checksum has changed|was it cut off", str(error))
    else:
        assert compression or change in (change_name, add_file, remove_file)


# -- the store -------------------------------------------------------------------------------------


def used_store(tmp_path: Path) -> Path:
    """A store whose lane 0 is at step 2, and whose server has ended."""
    store = tmp_path / "store"
    write(tmp_path / "data")
    with segue.open(store) as client:
        stream = client.stream("s", **arguments(tmp_path / "data"))
        with stream.loader() as loader:
            for batch in loader:
                save(batch)
                if batch.step == 1:
                    break
            loader.state_dict()
            del batch  # or its arrays would keep the connection
    end_server(store)
    return store


def xxh3_64(data: bytes) -> int:
    name = ctypes.util.find_library("xxhash")
    if name is None:
        pytest.skip("libxxhash is not installed: no checksum of a future format can be made")
    function = ctypes.CDLL(name).XXH3_64bits
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return int(function(data, len(data)))


def test_a_store_from_a_future_version(tmp_path: Path) -> None:
    store = used_store(tmp_path)
    file = store / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    key = b"store.format"
    found = 0
    for match in re.finditer(key, bytes(data)):
        at = match.end()  # of the value: 16 bytes of header, their checksum, magic, format
        struct.pack_into("<I", data, at + 32, 7)
        size = struct.unpack_from("<Q", data, at + 8)[0]
        header, payload = data[at : at + 16], data[at + 24 : at + 24 + size]
        struct.pack_into("<Q", data, at + 16, xxh3_64(bytes(header + key + payload)))
        found += 1
    assert found
    file.write_bytes(data)
    with refused(
        segue.FormatError, str(file), "has format 7", "knows formats up to 4", "use a later one"
    ):
        segue.open(store)
    assert file.read_bytes() == data


def damage_head(data: bytearray) -> None:
    data[:8192] = b"\0" * 8192


def damage_text(data: bytearray) -> None:
    data[:] = b"no database at all\n" * 1000


def damage_size(data: bytearray) -> None:
    del data[5000:]


def damage_all(data: bytearray) -> None:
    data.clear()


@pytest.mark.parametrize("damage", [damage_head, damage_text, damage_size, damage_all])
def test_a_store_that_is_damaged(tmp_path: Path, damage: Any) -> None:
    store = used_store(tmp_path)
    file = store / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    damage(data)
    file.write_bytes(data)
    for _ in range(2):
        with refused(segue.StoreError, str(file), "the file is kept: restore a backup"):
            segue.open(store)
        assert file.read_bytes() == data


@pytest.mark.parametrize("way_on", ["token", "fresh"])
def test_a_state_that_is_damaged(tmp_path: Path, way_on: str) -> None:
    """A lane whose states are not what was stored is refused; the others are not disturbed."""
    store = tmp_path / "store"
    write(tmp_path / "data")
    spec = arguments(tmp_path / "data", lanes=2, states={"h": State("uint8", [64])})

    def states(batch: segue.Batch) -> set[int]:
        return set(batch.state("h").ravel().tolist())

    with segue.open(store) as client, client.stream("s", **spec).loader() as loader:
        for batch in loader:
            batch.save_state("h", np.full((batch.batch_size, 64), 200 + batch.lane, np.uint8))
            if batch.lane == 1:
                break
        token = loader.state_dict()
        del batch
    end_server(store)
    drop_checkpoints(store)  # they hold the same bytes
    file = store / "store" / "data.mdb"
    data = file.read_bytes()
    assert bytes([201] * 64) in data
    file.write_bytes(data.replace(bytes([201] * 64), bytes([201] * 63 + [202])))
    with segue.open(store) as client:
        stream = client.stream("s", **spec)
        with refused(segue.StoreError, str(file), "checksum", "states"):
            next(iter(stream.loader(lanes=[1], start="continue")))
        with stream.loader(lanes=[0], start="continue") as loader:
            batch = next(iter(loader))
            assert batch.step == 1 and states(batch) == {0, 200}
            del batch
        report = client.verify()
        assert report["damaged_count"] > 0
        assert {fault["table"] for fault in report["damaged"]} == {"states"}
        if way_on == "token":
            with stream.loader() as loader:
                loader.load_state_dict(token)
                [zero, one] = next(loader.rounds())
                assert (zero.step, one.step) == (1, 1)
                assert states(zero) == {0, 200} and states(one) == {201}
        else:
            with stream.loader(lanes=[1], start="fresh") as loader:
                batch = next(iter(loader))
                assert batch.step == 0 and states(batch) == {0}
        assert client.verify()["damaged_count"] == 0


def mount(directory: Path, *options: str) -> Iterator[None]:
    """A tmpfs, for as long as the generator lives."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", os.fspath(directory)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount(8)")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield
    subprocess.run(["umount", "-l", os.fspath(directory)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = mount(tmp_path / "disk", "-o", "size=1m")
    next(mounted)
    yield tmp_path / "disk"
    next(mounted, None)


def test_a_store_that_cannot_be_written(small_disk: Path, tmp_path: Path) -> None:
    store = used_store(tmp_path)
    shutil.copytree(store, small_disk / "store", ignore=shutil.ignore_patterns("*.sock"))
    subprocess.run(["mount", "-o", "remount,ro", os.fspath(small_disk)], check=True)
    for directory in (small_disk / "store", small_disk / "new"):
        with refused(segue.ReadOnlyError, os.fspath(directory), "Read-only file system"):
            segue.open(directory)


def fill_up(path: Path) -> None:
    """Takes all the room that a disk has."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_disk_that_is_full(small_disk: Path, tmp_path: Path, goes_on: bool) -> None:
    """What was acknowledged stays, nothing further is delivered; with room again it goes on."""
    write(tmp_path / "data")
    store, fill = small_disk / "store", small_disk / "fill"
    spec = arguments(
        tmp_path / "data",
        states={"h": State("uint8", [65536])},
        batch_size=4,
        epochs=None,
        durability="commit",
    )

    def work(batch: segue.Batch) -> None:
        states = np.full((batch.batch_size, 65536), (batch.step + 1) % 256, np.uint8)
        batch.save_state("h", states)
        assert batch.step < 10000, "the full disk was never noticed"

    with segue.open(store) as client:
        loader = client.stream("s", **spec).loader()
        with refused(segue.NoSpaceError, str(small_disk), "No space left on device"):
            for batch in loader:
                if batch.step == 2:
                    fill_up(fill)
                work(batch)
        acknowledged = batch.step
        assert acknowledged >= 2
        del batch
        fill.unlink()
        while goes_on:
            with suppress(segue.NoSpaceError):  # until the server has tried again
                for batch in loader:
                    work(batch)
                    goes_on = batch.step <= acknowledged + 3
                    if not goes_on:
                        acknowledged = batch.step
                        break
                del batch
        loader.close()
    end_server(store)
    with segue.open(store) as client:
        with client.stream("s", **spec).loader(start="continue") as loader:
            batch = next(iter(loader))
            assert batch.step >= acknowledged
            assert set(np.unique(batch.state("h")).tolist()) <= {0, batch.step % 256}
            del batch


def test_no_room_for_a_new_store(small_disk: Path) -> None:
    fill_up(small_disk / "fill")
    with refused(segue.NoSpaceError, os.fspath(small_disk), "No space left on device"):
        segue.open(small_disk / "store")


# -- the socket and the protocol -------------------------------------------------------------------


def test_a_socket_name_that_is_too_long(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 100) / ("s" * 100)
    long.parent.mkdir()
    with refused(segue.ArgumentError, "100 bytes", "--socket", str(long)):
        segue.open(tmp_path / "store", socket=long)
    with segue.open(tmp_path / "store", socket=long.parent / "short") as client:
        assert client.status()


def test_a_socket_path_that_is_taken(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for make in (Path.touch, Path.mkdir):
        make(store / "segue.sock")
        with refused(segue.ArgumentError, f"{store / 'segue.sock'} exists and is not", "--socket"):
            segue.open(store, timeout=5)
        path = store / "segue.sock"
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_socket_of_another_program(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(store / "segue.sock"))
        other.listen()
        with refused(segue.TimeoutError_, str(store / "segue.sock"), "did not answer in time"):
            segue.open(store, timeout=1)


def test_what_a_killed_server_left_is_no_obstacle(tmp_path: Path) -> None:
    store = used_store(tmp_path)
    client = segue.open(store)
    kill_server(store)
    assert (store / "segue.sock").exists() and (store / "server.pid").exists()
    with segue.open(store) as other:
        assert other.status()
    client.close()


MAGIC = b"SGF1"
HELLO, WELCOME, FAILURE = 1, 65, 71


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of numbers and bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def frame(kind: int, payload: bytes, magic: bytes = MAGIC, fds: int = 0) -> bytes:
    return magic + struct.pack("<HHI", kind, fds, len(payload)) + payload


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """A frame, or (0, b"") at the end."""
    data = b""
    while len(data) < 12 or len(data) < 12 + struct.unpack_from("<I", data, 8)[0]:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return 0, b""
        data += more
    return struct.unpack_from("<H", data, 4)[0], data[12:]


def hello(**changes: int) -> bytes:
    fields = {"serial": 1, "protocol": peer.PROTOCOL, "layout": peer.LAYOUT, **changes}
    return frame(
        HELLO,
        message(
            (1, fields["serial"]), (2, fields["protocol"]), (3, fields["layout"]),
            (4, b"9.9.9"), (5, b"a test"),
        ),  # fmt: skip
    )


def talk(store: Path, *frames: bytes) -> tuple[int, bytes]:
    """The last answer of the server to some frames."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(os.fspath(store / "segue.sock"))
        for data in frames:
            connection.sendall(data)
            answer = receive(connection)
        return answer


def test_a_client_of_another_protocol_version(client: segue.Client, tmp_path: Path) -> None:
    store = tmp_path / "store"
    kind, answer = talk(store, hello())
    assert kind == WELCOME and segue.__version__.encode() in answer
    for changes in ({"protocol": 9}, {"protocol": 1}, {"protocol": 0}, {"layout": 99}):
        kind, answer = talk(store, hello(**changes))
        assert kind == FAILURE
        assert b"the client (segue 9.9.9) speaks protocol" in answer
        assert b"use the same version on both sides" in answer
    assert client.status()


def test_a_peer_that_speaks_nonsense(client: segue.Client, tmp_path: Path) -> None:
    """The connection ends, with a word if there is one to say; the server and others go on."""
    store = tmp_path / "store"
    for data in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        frame(HELLO, b"", magic=b"SGF2"),
        frame(HELLO, b"\xff" * 50),
        frame(99, b""),
        frame(HELLO, hello()[12:], fds=1),
        MAGIC + struct.pack("<HHI", HELLO, 0, 2**31),
        frame(WELCOME, b""),
        frame(7, message((1, 1), (2, 1))),  # a report before HELLO
    ):
        assert talk(store, data)[0] in (0, FAILURE)
    assert talk(store, hello(), hello())[0] in (0, FAILURE)  # twice
    assert client.status()


def answer_once(listener: socket.socket, answer: bytes) -> None:
    """A server of one frame."""
    connection = listener.accept()[0]
    with connection:
        receive(connection)
        connection.sendall(answer)
        receive(connection)


def test_a_server_of_another_protocol_version(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(store / "segue.sock"))
        listener.listen()
        listener.settimeout(10)
        for kind, fields, parts in (
            (WELCOME, ((1, 1), (2, 2), (3, 1), (4, b"8.8.8"), (5, 1)), ["8.8.8", "protocol 2"]),
            (WELCOME, ((1, 1), (2, 1), (3, 77), (4, b"8.8.8"), (5, 1)), ["8.8.8", "layout 77"]),
            (FAILURE, ((1, 1), (2, 9), (3, b"you speak protocol 1")), ["you speak protocol 1"]),
        ):
            thread = threading.Thread(
                target=answer_once, args=(listener, frame(kind, message(*fields)))
            )
            thread.start()
            with refused(segue.VersionError, str(store / "segue.sock"), *parts):
                segue.open(store, timeout=5)
            thread.join()


# -- memory that is not the worker's ---------------------------------------------------------------


def run_python(text: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["moved state", "state", "input", "context", "length"])
def test_writing_through_a_raw_pointer_faults(tmp_path: Path, what: str) -> None:
    """NumPy refuses to write; who goes round it dies, and nothing is corrupted."""
    store = tmp_path / "store"
    write(tmp_path / "data", [example(9), example(3), example(9)])
    text = """
        import ctypes, sys
        import numpy as np
        import segue
        from segue import Feature, State
        store, data, what = sys.argv[1:]
        client = segue.open(store)
        stream = client.stream(
            "s", source=segue.TFRecord(data),
            sequences={"x": Feature("float32"), "y": Feature("int64")},
            context={"c": Feature("int32")}, states={"h": State("float32", [2])},
            num_unroll=3, batch_size=2, durability="commit")
        for batch in stream.loader():
            h = batch.state("h")
            if batch.step == (1 if what == "moved state" else 2):
                break
            batch.save_state("h", h + np.float32(1))
        array = {
            "moved state": h, "state": h, "input": batch.sequences["x"],
            "context": batch.context["c"], "length": batch.length,
        }[what]
        assert h.tolist() == ([[1, 1], [0, 0]] if what == "moved state" else [[2, 2], [1, 1]])
        try:
            array[...] = 9
        except ValueError as error:
            print(error, flush=True)
        ctypes.memset(array.ctypes.data, 9, 4)
        print("written", flush=True)
    """
    done = run_python(text, store, tmp_path / "data", what)
    copied = what == "length"  # is no shared memory
    assert done.returncode == (0 if copied else -signal.SIGSEGV), (done.returncode, done.stderr)
    assert "read-only" in done.stdout and ("written" in done.stdout) == copied
    with segue.open(store) as client:
        stream = client.stream("s", **arguments(tmp_path / "data"))
        batch = next(iter(stream.loader(start="continue")))
        if what == "moved state":
            assert batch.step == 1 and batch.state("h").tolist() == [[1, 1], [0, 0]]
        else:
            assert batch.step == 2 and batch.state("h").tolist() == [[2, 2], [1, 1]]
        assert batch.sequences["x"][0].tolist() == [3 * batch.step + i for i in range(3)]
        assert batch.context["c"].tolist() == [9, 9] and batch.length.tolist() == [3, 3]


def test_a_forked_child_does_not_have_the_memory(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "data")
    batch = next(iter(client.stream("s", **arguments(tmp_path / "data")).loader()))
    array = batch.sequences["x"]
    for touch in (lambda: array.sum(), lambda: batch.length):
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()
            try:
                touch()
            except segue.errors.ForkedError as error:
                os._exit(0 if "segue.open() in this one" in str(error) else 2)
            os._exit(1)
        status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) in (-signal.SIGSEGV, 0)
    save(batch)
    batch.commit()


# -- the server gone -------------------------------------------------------------------------------


def test_no_server_and_none_may_be_started(tmp_path: Path) -> None:
    with refused(segue.GoneError, str(tmp_path / "store"), "no server"):
        segue.open(tmp_path / "store", start=False, timeout=1)
    assert not (tmp_path / "store").exists()


def test_a_program_that_is_none(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    for program, parts in (
        (tmp_path / "missing", ["cannot be run", "SEGUE_PROGRAM"]),
        (other, ["ended with status 1 and said nothing", "is it segue?"]),
    ):
        with refused(segue.GoneError, str(program), *parts):
            segue.open(tmp_path / "store", program=program, timeout=5)


def test_the_server_goes_and_must_not_be_started(client: segue.Client, tmp_path: Path) -> None:
    """What the ring holds is delivered, then comes the error; with a server again it goes on."""
    write(tmp_path / "data", [example(30)] * 4)
    store = tmp_path / "store"
    spec = arguments(tmp_path / "data")
    with segue.open(store, start=False, timeout=1) as guest:
        loader = guest.stream("s", **spec).loader()
        batches = iter(loader)
        save(next(batches))
        time.sleep(0.1)  # the ring fills
        kill_server(store)
        steps = [0]
        with refused(segue.GoneError, str(store), "no server"):
            for batch in batches:
                steps.append(batch.step)
                save(batch)
        assert 1 < len(steps) < 10 and steps == list(range(len(steps)))
        del batch
        client.stream("t", **spec)  # this one may start it
        assert next(iter(loader)).step == len(steps)

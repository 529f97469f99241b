"""`segue repair`: what it keeps of sequence files that were cut, damaged, or are being written."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
import sequence_file
from segue import Feature, FileWriter, State
from test_cli import DAMAGED, FINE, WRONG, environment, fails, program, report, run

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
STEPS = [2, 1, 5]


def write(path: Path, steps: list[int] = STEPS) -> None:
    with FileWriter(
        path, {"x": Feature("float32", 3)}, {"id": Feature("int64")}, {"h": State("int8")}
    ) as writer:
        for number, count in enumerate(steps):
            x = np.arange(3 * count, dtype=np.float32).reshape(count, 3) + number
            writer.write({"x": x}, {"id": number}, f"k{number}", None, {"h": np.int8(-number)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "data.segue")
    return tmp_path / "data.segue"


def ends_of(data: bytes) -> list[int]:
    """Where head and entries end, by the page of the format."""
    fields, at, _ = sequence_file.read_head(data)
    ends = [at]
    while data[at : at + 4] == b"ENTR":
        at = sequence_file.read_entry(data, at, fields)[2]
        ends.append(at)
    return ends


def check_kept(path: Path, whole: sequence_file.File, count: int) -> None:
    """It is whole now, and holds the first `count` sequences."""
    found = sequence_file.read(path)
    assert found.fields == whole.fields and len(found.sequences) == count
    for one, other in zip(found.sequences, whole.sequences, strict=False):
        assert (one.key, one.steps, one.length) == (other.key, other.steps, other.length)
        for place in sequence_file.PLACES:
            for name, values in getattr(one, place).items():
                assert np.array_equal(values, getattr(other, place)[name])


def test_cut_at_every_byte(path: Path) -> None:
    data, whole = path.read_bytes(), sequence_file.read(path)
    ends = ends_of(data)

    def cut_at(size: int) -> None:
        cut = path.with_name(f"{size}.segue")
        cut.write_bytes(data[:size])
        if size < ends[0]:
            assert "there is nothing to keep" in fails(WRONG, "repair", cut)
            assert cut.read_bytes() == data[:size]
            return
        count = sum(end <= size for end in ends) - 1
        told = report("repair", cut)
        assert told["kept"] == {
            "sequences": count,
            "steps": sum(STEPS[:count]),
            "bytes": ends[count],
        }
        assert told["cut"] == {"sequences": 0, "steps": 0, "bytes": size - ends[count]}
        assert told["changed"] and not told["whole"]
        check_kept(cut, whole, count)

    # Each is a program of its own: several at a time.
    with ThreadPoolExecutor(4) as pool:
        assert len([*pool.map(cut_at, range(len(data)))]) == len(data)
    path.write_bytes(data[: ends[-1]])
    assert report("repair", path)["cut"]["bytes"] == 0
    assert path.read_bytes() == data  # as its writer would have ended it: the fingerprint, too


def test_what_is_whole_stays_as_it_is(path: Path) -> None:
    before, data = path.stat(), path.read_bytes()
    told = report("repair", path)
    assert told["whole"] and not told["changed"] and told["kept"]["steps"] == sum(STEPS)
    assert "nothing to repair" in run("repair", path).stdout
    assert path.read_bytes() == data and path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("option", ["-n", "--dry-run"])
def test_a_dry_run_changes_nothing(path: Path, option: str) -> None:
    data = path.read_bytes()[:-200]
    path.write_bytes(data)
    path.chmod(0o400)
    result = run("repair", path, option)
    assert result.returncode == FINE and "would be kept" in result.stdout, result
    assert path.read_bytes() == data
    path.chmod(0o600)
    assert "are kept" in run("repair", path).stdout
    assert sequence_file.read(path).sequences


def test_damage_in_the_middle_is_cut_only_when_asked(path: Path) -> None:
    data, whole = path.read_bytes(), sequence_file.read(path)
    ends, chance = ends_of(data), random.Random(SEED)
    print(f"SEGUE_TEST_SEED={SEED}")
    used = [at for at in range(ends[1], ends[2]) if data[at] or at < ends[1] + 60]
    for at in chance.sample(used, 20):
        damaged = bytearray(data[: ends[-1] + 64])
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        message = fails(DAMAGED, "repair", path)
        assert "lie 1 more, of 5 steps" in message and "sequence 1 (at byte" in message, message
        assert fails(DAMAGED, "repair", path, "-n") == message
        assert path.read_bytes() == damaged
        told = report("repair", path, "--force")
        assert told["kept"]["sequences"] == 1 and told["cut"]["sequences"] == 1
        assert told["cut"] == {"sequences": 1, "steps": 5, "bytes": len(damaged) - ends[1]}
        check_kept(path, whole, 1)


def test_damage_of_the_last_is_cut(path: Path) -> None:
    """As a power cut leaves it: it has its size, and blocks of it are zeros."""
    data, whole = path.read_bytes(), sequence_file.read(path)
    ends = ends_of(data)
    for begin in range(ends[2], ends[3] - 64, 64):
        block = slice(begin, ends[3])
        path.write_bytes(data[: block.start] + bytes(block.stop - block.start))
        assert report("repair", path)["kept"]["sequences"] == 2
        check_kept(path, whole, 2)


def test_a_foot_or_an_index_that_is_damaged_is_made_anew(path: Path) -> None:
    data = path.read_bytes()
    ends = ends_of(data)
    for at in [ends[-1], ends[-1] + 17, len(data) - 128, len(data) - 100, len(data) - 1]:
        damaged = bytearray(data)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        assert report("repair", path)["kept"]["sequences"] == 3
        assert path.read_bytes() == data


def test_sizes_are_not_followed(path: Path) -> None:
    """Sound headers, by their checksums, of what cannot be there."""
    data, whole = path.read_bytes(), sequence_file.read(path)
    ends = ends_of(data)
    for steps in [2**32 - 1, 2**40, 2**63]:
        header = bytearray(data[ends[2] : ends[2] + 62])
        header[16:24] = steps.to_bytes(8, "little")
        for size in [64, 2**62, 2**64 - 64, 48 * steps % 2**62 // 64 * 64]:
            header[8:16] = size.to_bytes(8, "little")
            header[-4:] = sequence_file.crc32c(bytes(header[:-4])).to_bytes(4, "little")
            path.write_bytes(data[: ends[2]] + header + data[ends[2] + 62 : ends[3]])
            assert report("repair", path)["kept"]["sequences"] == 2
            check_kept(path, whole, 2)


def test_what_is_no_sequence_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content in [b"", b"SEGUESE", b"\0" * 1000, b"SEGUESEQ" + b"\xff" * 500]:
        other.write_bytes(content)
        assert run("repair", other).returncode in (WRONG, DAMAGED)
        assert other.read_bytes() == content
    assert "no sequence file" in fails(WRONG, "repair", __file__)
    assert "is no file" in fails(WRONG, "repair", tmp_path, "-n")
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in fails(WRONG, "repair", tmp_path / "pipe")
    assert "No such file" in fails(WRONG, "repair", tmp_path / "none")


def test_a_file_that_is_being_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "growing.segue"
    with FileWriter(path, {"x": Feature("int64")}) as writer:
        writer.write({"x": np.arange(300_000)})
        for options in ([], ["-n"], ["--force"]):
            assert "somebody is writing it" in fails(WRONG, "repair", path, *options)
        writer.write({"x": np.arange(5)})
    assert report("repair", path)["whole"]
    assert [len(s.sequences["x"]) for s in sequence_file.read(path).sequences] == [300_000, 5]


WRITER = """
import os, sys
import numpy as np
import segue
writer = segue.FileWriter(sys.argv[1], {"x": segue.Feature("float64", 100)})
for number in range(40):
    writer.write({"x": np.full((50, 100), number / 7)})
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_leaves_is_read_by_a_stream(tmp_path: Path, directory: Path) -> None:
    path = tmp_path / "killed.segue"
    subprocess.run([sys.executable, "-c", WRITER, str(path)], timeout=60, check=False)
    with segue.open(directory) as client:

        def stream() -> segue.Stream:
            return client.stream(
                "s",
                segue.Files(path),
                {"x": Feature("float64", 100)},
                num_unroll=50,
                batch_size=1,
                persist=False,
            )

        with pytest.raises(segue.errors.Error, match="'segue repair' closes it"):
            stream()
        whole = len(sequence_file.read_entries(path.read_bytes())[1])
        assert report("repair", path)["kept"]["sequences"] == whole
        with stream().loader() as loader:
            seen = [float(batch.sequences["x"][0, 0, 0]) for batch in loader]
        assert seen == [number / 7 for number in range(whole)] and whole >= 20


def test_killed_at_each_call_it_can_be_run_again(path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("SKIP: strace is not installed here")
    data, whole = path.read_bytes(), sequence_file.read(path)
    cut = data[: ends_of(data)[2] + 100]
    killed = 0
    for call in ["ftruncate", "fsync", "pwrite64"]:
        for when in [1, 2, 3, 4]:
            path.write_bytes(cut)
            command: list[Any] = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"]
            command += [f"inject={call}:signal=KILL:when={when}", program(), "repair", str(path)]
            result = subprocess.run(command, env=environment(), capture_output=True, timeout=60)
            killed += result.returncode == -signal.SIGKILL
            assert report("repair", path)["kept"]["sequences"] == 2
            check_kept(path, whole, 2)
    assert killed == 1 + 4 + 2


def test_a_full_disk_leaves_what_can_be_repaired(path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("SKIP: strace is not installed here")
    data = path.read_bytes()
    path.write_bytes(data[: ends_of(data)[-1]])
    for call in ["pwrite64", "fsync"]:
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error=ENOSPC"]
        result = subprocess.run(
            [*command, program(), "repair", str(path)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == WRONG and "can be run again" in result.stderr, result
    assert report("repair", path)["kept"]["sequences"] == 3
    assert path.read_bytes() == data


def test_ragged_features_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ragged.segue"
    features = {"r": Feature("float32", ragged=True), "w": Feature("bytes")}
    with FileWriter(path, features, {"t": Feature("bytes")}) as writer:
        for steps in STEPS:
            ragged = [np.arange(step, dtype=np.float32) for step in range(steps)]
            words = [b"w" * (step % 3) for step in range(steps)]
            writer.write({"r": ragged, "w": words}, {"t": f"text {steps}"})
    data = path.read_bytes()
    ends = ends_of(data)
    for size in range(ends[0], len(data), 31):
        path.write_bytes(data[:size])
        count = sum(end <= size for end in ends) - 1
        assert report("repair", path)["kept"]["sequences"] == count
        assert len(sequence_file.read(path).sequences) == count
    path.write_bytes(data[: ends[-1]])
    assert report("repair", path)["kept"]["sequences"] == len(STEPS)
    assert path.read_bytes() == data


def with_offset(data: bytes, begin: int, number: int, value: int) -> bytes:
    """A file of one ragged feature, where the entry at `begin` has another offset; sealed anew."""
    (header_size,) = struct.unpack_from("<I", data, begin + 4)
    (steps,) = struct.unpack_from("<Q", data, begin + 16)
    (count,) = struct.unpack_from("<Q", data, begin + 56)
    at = begin + sequence_file.up(header_size)
    size = 8 * (steps + 1) + 4 * count
    column = bytearray(data[at : at + size])
    struct.pack_into("<q", column, 8 * number, value)
    table = b"".join(
        sequence_file.crc32c(bytes(column[i : i + 4096])).to_bytes(4, "little")
        for i in range(0, size, 4096)
    )
    header = bytearray(data[begin : begin + header_size])
    struct.pack_into("<QQ", header, 32, *sequence_file.xxh3_128(table))
    header[-4:] = sequence_file.crc32c(bytes(header[:-4])).to_bytes(4, "little")
    changed = bytearray(data)
    changed[begin : begin + header_size] = header
    changed[at : at + size + len(table)] = column + table
    return bytes(changed)


@pytest.mark.parametrize("number", [0, 1, 700, 1000])
@pytest.mark.parametrize("value", [-1, 1 << 40])
def test_offsets_that_lead_elsewhere(tmp_path: Path, number: int, value: int) -> None:
    """Their checksums are right: whoever wrote them was wrong."""
    path = tmp_path / "ragged.segue"
    with FileWriter(path, {"r": Feature("float32", ragged=True)}) as writer:
        for _ in range(2):
            ragged = [np.arange(step % 5, dtype=np.float32) for step in range(1000)]
            writer.write({"r": ragged})
    data = path.read_bytes()
    begin = ends_of(data)[1]
    (steps,) = struct.unpack_from("<Q", data, begin + 16)
    (count,) = struct.unpack_from("<Q", data, begin + 56)
    assert (steps, count) == (1000, 2000)
    assert with_offset(data, begin, 0, 0) == data, "the layout is as this test takes it"
    path.write_bytes(with_offset(data, begin, number, value))
    message = run("peek", "--all", path).stdout
    assert "the offsets of 'r' do not rise from 0 to the number of its values" in message
    path.write_bytes(path.read_bytes()[: ends_of(data)[-1]])
    assert report("repair", path)["kept"]["sequences"] == 1

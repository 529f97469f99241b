"""`segue backup --portable`: a store as one file, and back."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import cases
import segue
from test_bad_input import fill_up, small_disk  # noqa: F401
from test_cli import DAMAGED, FINE, WRONG, run
from test_durability import commit, end_of_server
from test_resume import simple

HEAD, BLOCK_HEAD = 24, 12


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, cases.Case]:
    """Streams with rows that live, final states, checkpoints; one that was dropped; no server."""
    case = simple(tmp_path, keep_final=True)
    directory = tmp_path / "store"
    with segue.open(directory) as client:
        gone = cases.open_stream(client, case, tmp_path)
        with gone.loader() as loader:
            commit(loader, case, 2)
        gone.close()
        client.drop("train")
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            commit(loader, case, 12)
            loader.state_dict()
    end_of_server(directory)
    return directory, case


def content(directory: Path) -> object:
    """All that inspect says, but for who has it."""
    streams = json.loads(run("inspect", directory, "--json").stdout)["streams"]
    for stream in streams:
        for lane in stream["lanes"]:
            lane.pop("held"), lane.pop("holder_pid")
    return streams


def values(directory: Path) -> int:
    return int(json.loads(run("verify", "--json", directory).stdout)["values"])


def test_each_copy_counts_what_verify_finds(
    store: tuple[Path, cases.Case], tmp_path: Path
) -> None:
    """A store has values of its own, which a file has not; whoever compares must not miss any."""
    file, other = tmp_path / "backup.segue", tmp_path / "other"
    for command, source, target, held in (
        ("backup", store[0], other, other),
        ("backup", store[0], file, store[0]),
        ("restore", file, tmp_path / "of_file", tmp_path / "of_file"),
        ("restore", other, tmp_path / "of_other", tmp_path / "of_other"),
    ):
        portable = ["--portable"] if target == file else []
        told = json.loads(run(command, *portable, "--json", source, target).stdout)
        found = json.loads(run("verify", "--json", held).stdout)
        assert (told["values"], told["bytes"]) == (found["values"], found["bytes"]), target


def test_a_store_comes_back_value_by_value(store: tuple[Path, cases.Case], tmp_path: Path) -> None:
    directory, case = store
    file, again = tmp_path / "backup.segue", tmp_path / "again"
    done = run("backup", "--portable", "--json", directory, file)
    assert done.returncode == FINE and json.loads(done.stdout)["values"] == values(directory)
    assert file.is_file() and file.stat().st_mode & 0o777 == 0o600
    assert run("restore", file, again).returncode == FINE
    assert content(again) == content(directory) and values(again) == values(directory)
    # What each holds leaves the same bytes, but for the leases that restoring takes away.
    twice = tmp_path / "twice.segue"
    assert run("backup", "--portable", again, twice).returncode == FINE
    assert twice.stat().st_size <= file.stat().st_size
    trace = []
    for place in directory, again:
        with segue.open(place) as client:
            with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
                trace.append([
                    (batch.lane, batch.step, batch.key, batch.state("h").tolist())
                    for batch in loader if cases.work(batch, case) is None
                ])  # fmt: skip
    assert trace[0] and trace[0] == trace[1]


def test_while_workers_train(tmp_path: Path) -> None:
    case = simple(tmp_path, epochs=50)
    directory, file = tmp_path / "store", tmp_path / "file"
    with segue.open(directory) as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 8)
        loader.flush()
        assert run("backup", "--portable", directory, file).returncode == FINE
        commit(loader, case, 8)
    assert run("restore", file, tmp_path / "again").returncode == FINE
    (stream,) = json.loads(run("inspect", tmp_path / "again", "--json").stdout)["streams"]
    assert [lane["step"] for lane in stream["lanes"]] == [4, 4]
    assert not any(lane["held"] for lane in stream["lanes"])


def test_every_damage_is_named_and_nothing_is_restored(
    store: tuple[Path, cases.Case], tmp_path: Path
) -> None:
    directory, _ = store
    file, again = tmp_path / "file", tmp_path / "again"
    assert run("backup", "--portable", directory, file).returncode == FINE
    whole = file.read_bytes()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    places = {HEAD, HEAD + 4, HEAD + BLOCK_HEAD, len(whole) - 1, len(whole) - 8, len(whole) - 17}
    places |= {rng.randrange(HEAD, len(whole)) for _ in range(14)}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        done = run("restore", file, again)
        assert done.returncode == DAMAGED, (place, done)
        assert "damaged at byte" in done.stderr and str(file) in done.stderr
        assert not again.exists()
    for size in [*(rng.randrange(HEAD, len(whole)) for _ in range(6)), len(whole) - 1]:
        file.write_bytes(whole[:size])
        done = run("restore", file, again)
        assert done.returncode == DAMAGED and not again.exists(), (size, done)
    file.write_bytes(whole + b"\0")
    assert "something comes after its end" in run("restore", file, again).stderr


def test_files_that_are_no_backup(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content_ in (b"", b"SEGUEBAK", b"x" * 100):
        file.write_bytes(content_)
        done = run("restore", file, tmp_path / "store")
        assert done.returncode == WRONG and "is no backup of segue" in done.stderr
    file.write_bytes(b"SEGUEBAK" + struct.pack("<II", 3, 0) + b"x" * 100)
    done = run("restore", file, tmp_path / "store")
    assert done.returncode == WRONG and "format 3, and this version of segue reads format 2" in done.stderr
    file.write_bytes(b"SEGUEBAK" + struct.pack("<II", 2, 2) + b"x" * 100)
    done = run("restore", file, tmp_path / "store")
    assert done.returncode == WRONG and "backup of a store of format 2" in done.stderr
    for bit in range(1, 64):  # bit 0: it has files
        file.write_bytes(b"SEGUEBAK" + struct.pack("<IIQ", 2, 4, 1 << bit) + b"x" * 100)
        done = run("restore", file, tmp_path / "store")
        assert done.returncode == WRONG and f"(bits 0x{1 << bit:x})" in done.stderr
    assert not (tmp_path / "store").exists()


def test_what_is_there_is_not_written_over(store: tuple[Path, cases.Case], tmp_path: Path) -> None:
    directory, _ = store
    file = tmp_path / "file"
    file.write_text("mine")
    done = run("backup", "--portable", directory, file)
    assert done.returncode == WRONG and "does not write over anything" in done.stderr
    assert file.read_text() == "mine"
    file.unlink()
    assert run("backup", "--portable", directory, file).returncode == FINE
    done = run("restore", file, directory)
    assert done.returncode == WRONG and "--force" in done.stderr
    assert run("restore", "--force", file, directory).returncode == FINE
    assert list(directory.glob("store.before-*"))


def test_a_full_disk(store: tuple[Path, cases.Case], small_disk: Path) -> None:
    directory, _ = store
    fill_up(small_disk / "fill")
    done = run("backup", "--portable", directory, small_disk / "file")
    assert done.returncode == WRONG and "No space left" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_large_values(tmp_path: Path) -> None:
    """States of several MiB a row: blocks of more than their usual size."""
    case = simple(tmp_path, states={"h": cases.oracle.State("float32", (1 << 19,), 0.5)})
    directory, file = tmp_path / "store", tmp_path / "file"
    with segue.open(directory) as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            for _, batch in zip(range(4), loader):
                batch.save_state("h", np.full((batch.batch_size, 1 << 19), batch.step, "f4"))
                batch.commit()
    end_of_server(directory)
    assert run("backup", "--portable", directory, file).returncode == FINE
    assert file.stat().st_size > 4 << 20
    assert run("restore", file, tmp_path / "again").returncode == FINE
    assert values(tmp_path / "again") == values(directory)
    assert sys.byteorder == "little"

"""Backups of a store into which sequences are inserted: the log is in them, as far as it counts."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, Push
from test_cli import DAMAGED, FINE, WRONG, program, report, run
from test_durability import end_of_server

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))

X = {"x": Feature("int64")}
NAMES = ("one", "two")
LANES, UNROLL = 2, 3
KINDS = pytest.mark.parametrize("portable", [False, True], ids=["directory", "portable"])


def open_live(client: segue.Client, name: str = "live", **options: Any) -> segue.Stream:
    options = {"num_unroll": UNROLL, "batch_size": 2, "lanes": LANES, "interval": 0.01} | options
    return client.stream(name, Push(capacity=1000, producers=len(NAMES)), X, **options)


def made(name: str, number: int) -> np.ndarray:
    """The sequence of that number that producer `name` inserts."""
    first = NAMES.index(name) * 10**9 + number * 1000
    return np.arange(first, first + 1 + number * 7 % 8)


def insert(directory: Path, name: str, count: int, pause: float = 0) -> None:
    """Goes on to so many sequences, from wherever the log has them."""
    with segue.open(directory) as client:
        producer = open_live(client).producer(name)
        serial, cursor = producer.resume()
        assert cursor == (f"{name} {serial}".encode() if serial else b"")
        for number in range(serial, count):
            key, cursor_of = f"{name}/{number}", f"{name} {number + 1}"
            producer.insert({"x": made(name, number)}, key=key, cursor=cursor_of.encode())
            if pause and number % 8 == 0:
                time.sleep(pause)
        producer.flush()
        producer.leave()


class Inserter(threading.Thread):
    """A thread that inserts."""

    def __init__(self, directory: Path, name: str, count: int) -> None:
        super().__init__(daemon=True)
        self.what = directory, name, count, 0.01
        self.done = False

    def run(self) -> None:
        insert(*self.what)
        self.done = True


def close_all(directory: Path) -> None:
    with segue.open(directory) as client:
        stream = open_live(client)
        for name in NAMES:
            stream.producer(name).close()


class Reader(threading.Thread):
    """Reads a lane until its input ends, from a token if there is one, else from the beginning."""

    def __init__(self, directory: Path, lane: int, token: dict[str, bytes] | None) -> None:
        super().__init__(daemon=True)
        self.directory, self.lane, self.token = directory, lane, token
        self.rows: list[tuple[int, int, bytes, list[int]]] = []
        self.tokens: list[tuple[int, dict[str, bytes]]] = []  # and how many rows came before
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with segue.open(self.directory) as client:
                start = None if self.token else "fresh"
                options: dict[str, Any] = {"lanes": [self.lane], "start": start, "timeout": 1}
                with open_live(client).loader(**options) as loader:
                    if self.token:
                        loader.load_state_dict(self.token)
                    self.read(loader)
        except BaseException as error:
            self.error = error

    def read(self, loader: segue.Loader) -> None:
        batches = iter(loader)
        while True:
            try:
                batch = next(batches)
            except segue.TimeoutError_:
                continue
            except StopIteration:
                return
            for row in range(batch.batch_size):
                values = batch.sequences["x"][row][: batch.length[row]].tolist()
                number = int(batch.insertion_index[row])
                self.rows.append((number, int(batch.sequence[row]), batch.key[row], values))
            batch.commit()
            self.tokens.append((len(self.rows), loader.state_dict()))

    def end(self) -> None:
        self.join(60)
        assert not self.is_alive() and not self.error, self.error


def check(rows: list[tuple[int, int, bytes, list[int]]], count: int) -> None:
    """Each sequence came once, segment by segment, whole, in the order of its producer."""
    came: dict[int, list[int]] = {}
    keys: dict[int, str] = {}
    for number, segment, key, values in rows:
        assert segment == -(-len(came.setdefault(number, [])) // UNROLL)
        came[number] += values
        keys[number] = key.decode().split(":")[-1]
    assert sorted(came) == list(range(count * len(NAMES)))
    numbers = {name: 0 for name in NAMES}
    for sequence in sorted(came):
        name, number = keys[sequence].split("/")
        assert int(number) == numbers[name]
        assert came[sequence] == made(name, numbers[name]).tolist()
        numbers[name] += 1


@KINDS
def test_while_producers_insert_and_workers_read(tmp_path: Path, portable: bool) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    directory, count = tmp_path / "run", 400
    with segue.open(directory) as client:
        open_live(client)
        producers = [Inserter(directory, name, count) for name in NAMES]
        readers = [Reader(directory, lane, None) for lane in range(LANES)]
        for producer in producers:
            producer.start()
        backups = []
        for number in range(4):
            time.sleep(draw.random() / 5)
            tokens = [reader.tokens[-1] if reader.tokens else None for reader in readers]
            target = tmp_path / f"backup-{number}"
            done = run("backup", directory, target, *["--portable"] * portable, "--json")
            assert done.returncode == FINE, done
            said = json.loads(done.stdout)
            assert said["logs"] == 1
            backups.append((target, tokens, said["sequences"]))
        for producer in producers:
            producer.join(60)
            assert producer.done
        close_all(directory)
        for reader in readers:
            reader.end()
    check([row for reader in readers for row in reader.rows], count)
    assert [sequences for *_, sequences in backups] == sorted(s for *_, s in backups)
    assert backups[-1][2] > 0
    for target, tokens, sequences in backups:
        again = tmp_path / f"{target.name}-again"
        assert report("restore", target, again)["sequences"] == sequences
        before = [row for reader, token in zip(readers, tokens, strict=True) if token
                  for row in reader.rows[: token[0]]]  # fmt: skip
        with segue.open(again):
            resumed = [
                Reader(again, lane, token[1] if token else None)
                for lane, token in enumerate(tokens)
            ]
            for name in NAMES:
                insert(again, name, count)
            close_all(again)
            for reader in resumed:
                reader.end()
        check(before + [row for reader in resumed for row in reader.rows], count)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Of two streams, one with a log of 40 sequences that goes on, read to the half; no server."""
    directory = tmp_path / "run"
    with segue.open(directory) as client:
        open_live(client, "another")
        stream = open_live(client)
        for name in NAMES:
            insert(directory, name, 20)
        stream.producer("one").leave()  # all is synced, and so what the store knows next
        with stream.loader(timeout=60) as loader:
            for batch in itertools.islice(loader, 10):
                batch.commit()
            loader.flush()
    end_of_server(directory)
    return directory


def log_of(directory: Path) -> Path:
    """The one that has something."""
    with_files = [path for path in (directory / "log").iterdir() if size_of(path) > 5000]
    assert len(with_files) == 1
    return with_files[0]


def size_of(log: Path) -> int:
    return sum(file.stat().st_size for file in log.iterdir())


def values_read(directory: Path) -> list[list[int]]:
    with segue.open(directory) as client:
        with open_live(client).loader(start="continue", timeout=60) as loader:
            return [batch.insertion_index.tolist() for batch in itertools.islice(loader, 6)]


@KINDS
def test_it_is_checked_and_cut(store: Path, tmp_path: Path, portable: bool) -> None:
    file = next(log_of(store).iterdir())
    whole = file.read_bytes()
    # Half of an entry, and an earlier one once more: nothing of the log.
    for number, more in enumerate((b"ENTR" + bytes(50), whole[len(whole) // 2 :], b"")):
        file.write_bytes(whole + more)
        target, again = tmp_path / f"backup-{number}", tmp_path / f"again-{number}"
        option = ["--portable"] * portable
        assert report("backup", store, target, *option)["sequences"] == 40
        assert file.read_bytes() == whole + more
        assert report("restore", target, again)["sequences"] == 40
        assert next(log_of(again).iterdir()).read_bytes() == whole
        assert (again / "log").stat().st_mode & 0o777 == 0o700
        if not portable:
            assert report("verify", target)["damaged_count"] == 0
    assert values_read(tmp_path / "again-0") == values_read(store)


def test_a_backup_whose_log_is_not_whole_is_refused(store: Path, tmp_path: Path) -> None:
    target, again = tmp_path / "backup", tmp_path / "again"
    assert run("backup", store, target).returncode == FINE
    log = log_of(target)
    file = next(log.iterdir())
    whole = file.read_bytes()

    def refused(says: str) -> None:
        done = run("restore", target, again)
        assert done.returncode == DAMAGED, done
        assert says in done.stderr and "nothing was copied" in done.stderr, done.stderr
        assert not again.exists()

    for cut, says in (
        (len(whole) // 2 + 1, "a sequence of the log is damaged: it is cut short"),
        (len(whole) - 1, "a sequence of the log is damaged: it is cut short"),
        (whole.rindex(b"ENTR"), "ends before sequence 39, and the store refers to 40 of them"),
        (100, "damaged"),
        (0, "damaged"),
    ):
        file.write_bytes(whole[:cut])
        refused(says)
    for at in random.Random(1).sample(range(len(whole)), 30):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        done = run("restore", target, tmp_path / "other")
        if done.returncode == FINE:  # between two columns nothing lies
            shutil.rmtree(tmp_path / "other")
            assert whole[at] == 0
        else:
            assert done.returncode == DAMAGED and "log" in done.stderr
            assert not (tmp_path / "other").exists()
    file.unlink()
    refused("files are missing")
    log.rmdir()
    refused("is missing: ")
    shutil.rmtree(target / "log")
    refused("is missing: ")


@KINDS
def test_a_backup_that_is_killed_is_whole_or_not_there(tmp_path: Path, portable: bool) -> None:
    """Whatever it was at: the store, a log, its check."""
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    directory, targets = tmp_path / "run", tmp_path / "targets"
    targets.mkdir()
    with segue.open(directory) as client:
        with open_live(client).producer("one") as producer:
            for number in range(200):
                producer.insert({"x": np.arange(number, number + 20000)})
    end_of_server(directory)
    command = [program(), "backup", directory, targets / "it", *["--portable"] * portable]
    began = time.monotonic()
    assert subprocess.run(command, timeout=60).returncode == FINE
    took = time.monotonic() - began
    shutil.rmtree(targets)
    targets.mkdir()
    for _ in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(draw.random() * took)
        process.kill()
        process.wait()
        if (targets / "it").exists():  # it has its name when it is whole
            assert report("restore", targets / "it", tmp_path / "whole")["sequences"] == 200
            shutil.rmtree(tmp_path / "whole")
            shutil.rmtree(targets)
            targets.mkdir()
    time.sleep(0.2)  # its own child goes with it
    assert subprocess.run(command, timeout=60).returncode == FINE
    assert [path.name for path in targets.iterdir()] == ["it"]
    assert report("restore", targets / "it", tmp_path / "again")["sequences"] == 200


def test_a_log_that_is_missing_is_seen(store: Path, tmp_path: Path) -> None:
    for command in ("verify", "doctor"):
        assert run(command, store).returncode == FINE
    shown = report("inspect", store, "--stream", "live")["streams"][0]["log"]
    assert shown["files"] == 1 and shown["bytes"] == size_of(log_of(store))
    log_of(store).rename(tmp_path / "away")
    done = run("backup", store, tmp_path / "backup")
    assert done.returncode == DAMAGED and "log of stream 'live' is missing: " in done.stderr, done
    assert not (tmp_path / "backup").exists()
    verified = run("verify", store)
    assert verified.returncode == DAMAGED and "the log is missing: " in verified.stdout
    doctor = run("doctor", store)
    assert doctor.returncode == WRONG
    assert "that of stream 'live' is missing" in doctor.stdout
    assert "MISSING" in run("inspect", store, "--stream", "live").stdout
    assert report("inspect", store, "--stream", "live")["streams"][0]["log"]["files"] == 0
    # The others are served all the same.
    with segue.open(store) as client:
        open_live(client, "another")
        with pytest.raises(segue.StoreError, match="files are missing"):
            open_live(client)


def test_restored_in_the_place_of_another(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    assert run("backup", store, target).returncode == FINE
    for name in NAMES:
        insert(store, name, 30)
    end_of_server(store)
    later = {file.name: file.read_bytes() for file in log_of(store).iterdir()}
    assert "--force" in run("restore", target, store).stderr
    done = run("restore", target, store, "--force")
    assert done.returncode == FINE and "40 sequences" in done.stdout
    (aside,) = store.glob("log.before-*")
    assert f"the logs that were there are kept as {aside}" in done.stdout
    assert {file.name: file.read_bytes() for file in log_of_aside(aside).iterdir()} == later
    assert size_of(log_of(store)) == size_of(log_of(target))
    insert(store, "one", 25)
    with segue.open(store) as client:
        assert open_live(client).producer("one").resume()[0] == 25


def log_of_aside(aside: Path) -> Path:
    return max(aside.iterdir(), key=size_of)

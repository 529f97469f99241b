"""Commits on disk: waiting for them, disks that fail, starts after a crash, backup and restore.

Faults of the disk are made by tests/support/storage_faults.c, between LMDB and the system, in a
server that is started with it. A machine's crash is made by rewriting the boot that the store's mark
names, as if it were of another one.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import fcntl
import gc
import json
import mmap
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import little
import segue
from peer import BULK, REPORT, Peer, Refused
from test_bad_input import fill_up, small_disk
from test_cli import Server, program, run
from test_resume import (
    Other,
    kill,
    of_lanes,
    processes,
    refused,
    server_pid,
    simple,
    wait_for,
)

__all__ = ["processes", "small_disk"]  # fixtures

BUILD = Path(__file__).parents[2] / "build"
LONG = 1000.0  # an interval that does not pass in a test
PATIENCE = 60.0
VERIFY = 4  # a report
SOON = 10.0  # what must not take long, on a machine that is busy


def end_of_server(store: Path) -> None:
    wait_for(lambda: not (store / "server.pid").exists(), "the end of the server")


def commit(loader: segue.Loader, case: cases.Case, count: int) -> None:
    """Commit so many batches, right ones."""
    batches = iter(loader)
    for _ in range(count):
        batch = next(batches)
        cases.work(batch, case)
        batch.commit()


def steps_on_disk(client: segue.Client) -> dict[int, int]:
    (stream,) = client.inspect()["streams"]
    return {lane["lane"]: lane["step"] for lane in stream["lanes"]}


# -- waiting for the disk --------------------------------------------------------------------------


def test_flush_returns_when_all_lanes_are_on_disk(tmp_path: Path) -> None:
    case = simple(tmp_path, interval=LONG)
    with segue.open(tmp_path / "store") as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        assert loader.durable_step == {}
        commit(loader, case, 5)
        assert loader.durable_step == {0: 0, 1: 0} == steps_on_disk(client)
        loader.flush()
        assert loader.durable_step == {0: 3, 1: 2} == steps_on_disk(client)
        before = client.status()["store"]["transactions"]
        loader.flush(timeout=0)  # nothing is left to wait for
        assert client.status()["store"]["transactions"] == before
        pid = server_pid(client)
        kill(pid)  # and the newer commits go on by an offer
        commit(loader, case, 1)
        loader.flush()
        assert loader.durable_step == {0: 3, 1: 3}
        loader.close()
        with refused(segue.errors.ClosedError, "closed"):
            loader.flush()


def test_flush_writes_all_lanes_in_one_transaction(tmp_path: Path) -> None:
    case = simple(tmp_path, lengths=(3,) * 64, lanes=16, interval=LONG)
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            commit(loader, case, 16)
            before = client.status()["store"]["transactions"]
            loader.flush()
            assert client.status()["store"]["transactions"] == before + 1


def test_commit_can_wait(tmp_path: Path) -> None:
    case = simple(tmp_path, interval=LONG, lanes=1)
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            for step, batch in enumerate(loader):
                cases.work(batch, case)
                waits = bool(step % 2)
                batch.commit(wait=waits) if step % 4 == 1 else batch.commit(waits)
                assert batch.committed
                assert loader.durable_step[0] == (step + 1 if waits else step)
                assert steps_on_disk(client)[0] == loader.durable_step[0]
                if step == 5:
                    break
            with pytest.raises(TypeError, match="wait"):
                batch.commit(now=True)  # type: ignore[call-arg]
            del batch


@pytest.mark.parametrize("batch_size", [5, 6, 7])
def test_a_private_lane_in_its_tail_outlives_the_server(tmp_path: Path, batch_size: int) -> None:
    little.write(tmp_path)
    with segue.open(tmp_path / "store") as client:
        stream = little.open_stream(
            client, tmp_path, lanes=1, batch_size=batch_size, tail="shrink", persist=False
        )
        whole = little.rest(stream.loader())
        loader = stream.loader()
        for batch in loader:
            little.work(batch)
            if batch.batch_size <= 2:
                break
        token, step = loader.state_dict(), batch.step + 1
        del batch
        loader.load_state_dict(token)
        kill(server_pid(client))
        assert loader.state_dict() == token
        assert little.rest(loader) == whole[step:]


def test_what_was_waited_for_outlives_everything(
    tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """Server and worker are killed together at an interval that never came."""
    case = simple(tmp_path, interval=LONG)
    other = processes(commit_and_wait, tmp_path, case, 4)
    step = other.receive()
    pid = little.pid_of(tmp_path / "store")
    os.kill(pid, signal.SIGKILL)
    kill(other.pid)
    wait_for(lambda: little.has_ended(pid), "the end of the server")
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        with stream.loader(lanes=[0], start="continue") as loader:
            cases.check(loader, case, list(cases.expected(case)(0))[step:])


def commit_and_wait(pipe: Any, directory: Path, case: cases.Case, count: int) -> None:
    client = segue.open(directory / "store")
    loader = cases.open_stream(client, case, directory).loader(lanes=[0])
    commit(loader, case, count - 1)
    batch = next(iter(loader))
    cases.work(batch, case)
    batch.commit(wait=True)
    pipe.send(batch.step + 1)
    time.sleep(1000)


def test_streams_that_are_not_stored_have_nothing_to_wait_for(tmp_path: Path) -> None:
    case = simple(tmp_path, persist=False)
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            batch = next(iter(loader))
            cases.work(batch, case)
            with refused(segue.errors.ArgumentError, "persist=False", "nothing of it is stored"):
                batch.commit(wait=True)
            assert not batch.committed
            batch.commit()
            with refused(segue.errors.ArgumentError, "persist = false", "nothing of it is stored"):
                loader.flush()
            del batch


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[segue.Loader, int]]:
    """A loader with commits that are not on disk, and its server, which has been stopped."""
    case = simple(tmp_path, interval=LONG)
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            commit(loader, case, 2)
            pid = server_pid(client)
            os.kill(pid, signal.SIGSTOP)
            yield loader, pid
            os.kill(pid, signal.SIGCONT)
            loader.flush(timeout=PATIENCE)
            assert loader.durable_step == {0: 1, 1: 1}


def test_flush_has_a_timeout(stopped: tuple[segue.Loader, int]) -> None:
    loader, _ = stopped
    assert loader.durable_step == {0: 0, 1: 0}  # asks nobody
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        loader.flush(timeout=0.2)
    assert time.monotonic() - begun < SOON


def test_flush_can_be_interrupted_and_lets_threads_run(stopped: tuple[segue.Loader, int]) -> None:
    loader, _ = stopped
    counted = [0]
    done = threading.Event()

    def count() -> None:
        while not done.wait(0.01):
            counted[0] += 1

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    thread = threading.Thread(target=count)
    thread.start()
    before = signal.signal(signal.SIGALRM, stop)
    begun = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            loader.flush()
        assert time.monotonic() - begun < SOON
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        done.set()
        thread.join()
    assert counted[0] >= 5


# -- a full disk -----------------------------------------------------------------------------------


def wide(tmp_path: Path, **fields: Any) -> cases.Case:
    """States so large that they need pages of their own."""
    state = {"h": cases.oracle.State("uint8", (20000,))}
    return simple(tmp_path, **{"states": state, "interval": 0.1, "lanes": 1, **fields})


def until_full(loader: segue.Loader, case: cases.Case) -> int:
    """Commit until the disk is full; the steps that are on disk then."""
    with pytest.raises(segue.errors.NoSpaceError):
        for batch in loader:
            cases.work(batch, case)
            batch.commit(wait=True)
    (step,) = loader.durable_step.values()
    return step


def test_waiting_on_a_full_disk_is_an_error_and_goes_on_with_room(
    small_disk: Path, tmp_path: Path
) -> None:
    case = wide(tmp_path, epochs=None)
    store, fill = small_disk / "store", small_disk / "fill"
    with segue.open(store) as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)
        loader.flush()
        fill_up(fill)
        step = until_full(loader, case)
        for _ in range(2):
            begun = time.monotonic()
            with refused(segue.errors.NoSpaceError, str(store), f"below {step} are on disk"):
                loader.flush()
            assert time.monotonic() - begun < SOON
        assert steps_on_disk(client) == {0: step}  # reads go on
        assert client.verify()["damaged_count"] == 0
        fill.unlink()
        loader.flush()  # not an error of before
        assert loader.durable_step == {0: step + 1}
        wanted = list(cases.expected(case)(0))[step + 1 : step + 4]
        cases.check(loader, case, wanted, whole=False)
        loader.close()


@pytest.mark.parametrize("room", [False, True])
def test_closing_on_a_full_disk_says_so_at_once(
    small_disk: Path, tmp_path: Path, room: bool
) -> None:
    """The server keeps what was committed, and writes it when there is room."""
    case = wide(tmp_path, epochs=None)
    store, fill = small_disk / "store", small_disk / "fill"
    with segue.open(store) as other, segue.open(store) as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)
        loader.flush()
        fill_up(fill)
        step = until_full(loader, case)
        begun = time.monotonic()
        with refused(segue.errors.NoSpaceError, "not on disk", "No space left"):
            loader.close()
        assert loader.closed and time.monotonic() - begun < SOON
        again = cases.open_stream(other, case, tmp_path)
        begun = time.monotonic()
        with refused(segue.errors.NoSpaceError, "lane 0", "not on disk"):
            next(iter(again.loader(start="continue")))
        assert time.monotonic() - begun < SOON
        if not room:
            return
        fill.unlink()
        wait_for(lambda: steps_on_disk(other) == {0: step + 1}, "the last commit on disk")
        with again.loader(start="continue") as loader:
            wanted = list(cases.expected(case)(0))[step + 1 : step + 3]
            cases.check(loader, case, wanted, whole=False)


def test_restoring_on_a_full_disk_says_so_at_once(small_disk: Path, tmp_path: Path) -> None:
    case = wide(tmp_path, epochs=None)
    store, fill = small_disk / "store", small_disk / "fill"
    with segue.open(store) as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)
        loader.flush()
        token = loader.state_dict()
        fill_up(fill)
        until_full(loader, case)
        begun = time.monotonic()
        with refused(segue.errors.NoSpaceError, "not on disk", "No space left"):
            loader.load_state_dict(token)
        assert time.monotonic() - begun < SOON
        fill.unlink()
        loader.load_state_dict(token)
        cases.check(loader, case, list(cases.expected(case)(0))[2:5], whole=False)
        loader.close()


# -- disks that fail -------------------------------------------------------------------------------


def preloaded(
    directory: Path, patch: pytest.MonkeyPatch, name: str, **environment: object
) -> None:
    """Have servers started with a library of the tests before them, and these variables."""
    built, server = BUILD / "tests" / name, BUILD / "server" / "segue"
    if not built.exists() or not server.exists():
        pytest.skip(f"{built} is not built: scripts/build does")
    library = directory / name  # LD_PRELOAD parts paths at spaces
    library.symlink_to(built)
    variables = " ".join(f"{name}='{value}'" for name, value in environment.items())
    wrapper = directory / "segue-with-faults"
    wrapper.write_text(f"#!/bin/sh\n{variables} LD_PRELOAD='{library}' exec '{server}' \"$@\"\n")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    patch.setenv("SEGUE_PROGRAM", str(wrapper))


class Faults:
    """A server that is started with the faults of storage_faults.c, and the file that says which."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.control = directory / "faults"
        preloaded(directory, patch, "storage_faults.so", SEGUE_FAULTS=self.control)

    def set(self, text: str) -> None:
        new = self.control.with_suffix(".new")
        new.write_text(text)
        new.rename(self.control)

    def clear(self) -> None:
        self.control.unlink(missing_ok=True)

    @property
    def fired(self) -> bool:
        return not self.control.exists()


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(tmp_path, monkeypatch)


@pytest.mark.parametrize("fault", ["sync 5", "meta 5", "meta 28", "write 5", "sync 122"])
def test_a_write_that_fails_stops_the_store(tmp_path: Path, faults: Faults, fault: str) -> None:
    """Nothing is acknowledged after it, reads go on; the next server verifies before it serves."""
    for_good = fault != "sync 122"  # EDQUOT: no room, and the store as it was
    case = simple(tmp_path, interval=LONG)
    store = tmp_path / "store"
    with segue.open(store) as client:
        stream = cases.open_stream(client, case, tmp_path)
        loader = stream.loader()
        commit(loader, case, 2)
        loader.flush()
        commit(loader, case, 2)
        faults.set(f"once {fault}")
        kind = segue.errors.StoreError if for_good else segue.errors.NoSpaceError
        with refused(kind, "data.mdb"):
            loader.flush()
        assert faults.fired
        assert loader.durable_step == {0: 1, 1: 1} == steps_on_disk(client)
        if not for_good:
            loader.flush()
            assert loader.durable_step == {0: 2, 1: 2}
            loader.close()
            return
        for _ in range(2):
            with refused(segue.errors.StoreError):
                loader.flush()
        assert loader.durable_step == {0: 1, 1: 1} == steps_on_disk(client)
        assert "storage failed" in (store / "server.log").read_text()
        with pytest.raises(segue.errors.StoreError):
            loader.close()
    end_of_server(store)
    assert (store / "suspect").exists()
    with segue.open(store) as client:
        assert not (store / "suspect").exists()
        on_disk = steps_on_disk(client)
        # a meta page that was said not to be written may have been
        assert all(step in ((1, 2) if "meta" in fault else (1,)) for step in on_disk.values())
        with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
            wanted = [b for b in cases.in_order(case, [0, 1]) if b.step >= on_disk[b.lane]]
            cases.check(loader, case, wanted)


def test_a_short_write_on_a_disk_with_room_stops_the_store(
    tmp_path: Path, faults: Faults
) -> None:
    case = wide(tmp_path, interval=LONG)
    with segue.open(tmp_path / "store") as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 1)
        faults.set("once short 0")
        with refused(segue.errors.StoreError, "data.mdb"):
            loader.flush()
        assert faults.fired and loader.durable_step == {0: 0}
        assert client.verify()["damaged_count"] == 0
        with pytest.raises(segue.errors.StoreError):
            loader.close()
    end_of_server(tmp_path / "store")
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            cases.check(loader, case, cases.in_order(case, [0]))


def test_one_lane_that_the_store_refuses_does_not_stop_the_others(
    tmp_path: Path, faults: Faults
) -> None:
    """Its transaction fails each time: alone, and its holder is told."""
    plain = simple(tmp_path / "a", interval=0.1)
    large = wide(tmp_path / "b", interval=0.1)
    large.name = "large"
    with segue.open(tmp_path / "store") as client:
        first = cases.open_stream(client, plain, tmp_path / "a").loader()
        second = cases.open_stream(client, large, tmp_path / "b").loader()
        commit(first, plain, 2)
        commit(second, large, 1)
        first.flush()
        second.flush()
        faults.set("always put 15000")
        commit(second, large, 1)
        with refused(segue.errors.LimitError, "large", "too much for one transaction"):
            second.flush()
        cases.check(first, plain, cases.in_order(plain, [0, 1])[2:9], whole=False)
        first.flush()
        with refused(segue.errors.LimitError):
            second.flush()
        with refused(segue.errors.LimitError):
            for batch in second:  # what the ring holds is delivered
                cases.work(batch, large)
        del batch
        assert client.status()["server"]["storage"] == "ok"
        faults.clear()
        with refused(segue.errors.LimitError, "given back at step 1", "too much"):
            second.close()
        first.close()
        with cases.open_stream(client, large, tmp_path / "b").loader(start="continue") as loader:
            cases.check(loader, large, cases.in_order(large, [0])[1:])


def test_a_checkpoint_beside_commits_that_the_store_refuses(
    tmp_path: Path, faults: Faults
) -> None:
    """It fails with them, small as it is: the final states before it are not on disk."""
    case = wide(tmp_path, lengths=(4,) * 8, interval=LONG, keep_final=True)
    with segue.open(tmp_path / "store") as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)  # no row goes on from here
        faults.set("always put 15000")
        with refused(segue.errors.LimitError, "what lane 0 has committed"):
            loader.state_dict()
        listed = run("checkpoint", "list", tmp_path / "store", "--json").stdout
        assert json.loads(listed) == {"checkpoints": []}
        assert steps_on_disk(client) == {0: 0}
        faults.clear()
        with pytest.raises(segue.errors.LimitError):
            loader.close()


class Shortage:
    """A server that is started with fail_alloc.c, and the panel that says what fails."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        panel = directory / "panel"
        panel.write_bytes(bytes(8 * (6 + 64)))  # struct fail_alloc_panel
        with panel.open("r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        preloaded(directory, patch, "libfail_alloc.so", SEGUE_FAIL_ALLOC_PANEL=panel)

    def begin(self, least: int) -> None:
        """All allocations of at least so many bytes fail."""
        self.words[1], self.words[2], self.words[0] = 2**64 - 1, least, 1

    def end(self) -> int:
        """Returns how many have failed."""
        self.words[0] = self.words[1] = 0
        return self.words[4]


@pytest.mark.parametrize("durability", ["interval", "commit"])
def test_a_lane_for_which_there_is_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Its worker is told, not left to train on with nothing on disk; it goes on when there is some."""
    shortage = Shortage(tmp_path, monkeypatch)
    state = {"h": cases.oracle.State("uint8", (40_000,))}
    case = wide(tmp_path, states=state, interval=0.05, durability=durability)
    with segue.open(tmp_path / "store") as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)
        loader.flush()
        shortage.begin(80_000)  # the states of a batch
        told = time.monotonic() + SOON
        with refused(segue.errors.OutOfMemory, "memory"):
            for batch in loader:
                cases.work(batch, case)
                batch.commit()
                if durability == "interval":
                    time.sleep(0.05)
                assert time.monotonic() < told
        batch.release()
        with refused(segue.errors.OutOfMemory, "memory"):
            loader.state_dict()
        with refused(segue.errors.OutOfMemory, "memory"):
            loader.flush()
        assert loader.durable_step == {0: 2} == steps_on_disk(client)
        assert shortage.end() >= 3
        wait_for(lambda: steps_on_disk(client)[0] > 2, "the commits on disk")
        assert client.status()["server"]["storage"] == "ok"
        cases.check(loader, case, cases.in_order(case, [0])[steps_on_disk(client)[0] :])


@contextmanager
def unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Shortage, cases.Case, segue.Client, segue.Loader]]:
    """A loader with two commits that there is no memory to write, from here on."""
    shortage = Shortage(tmp_path, monkeypatch)
    case = wide(tmp_path, interval=LONG)
    with segue.open(tmp_path / "store") as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2)
        shortage.begin(40_000)
        yield shortage, case, client, loader


def test_closing_a_lane_for_which_there_is_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unwritten(tmp_path, monkeypatch) as (shortage, _, client, loader):
        begun = time.monotonic()
        with refused(segue.errors.OutOfMemory, "memory", "not on disk"):
            loader.close()
        assert time.monotonic() - begun < SOON and shortage.end() >= 3
        wait_for(lambda: steps_on_disk(client)[0] == 2, "the commits on disk")


def test_an_embedded_server_waits_for_memory_as_long_as_somebody_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not stay for ever for a last commit that cannot be written."""
    with unwritten(tmp_path, monkeypatch) as (shortage, case, client, loader):
        server = server_pid(client)
        with refused(segue.errors.OutOfMemory, "memory", "not on disk"):
            loader.close()
        time.sleep(12)
        assert server_pid(client) == server
    wait_for(lambda: not Path(f"/proc/{server}").exists(), "the end of the server")
    assert shortage.end() >= 3
    log = (tmp_path / "store" / "server.log").read_text()
    assert "the last commits of 1 lane are not on disk" in log
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
            cases.check(loader, case, cases.in_order(case, [0]))


def test_closing_a_lane_while_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not said to be on disk if it is not."""
    with unwritten(tmp_path, monkeypatch) as (shortage, _, client, loader):
        server = server_pid(client)
        os.kill(server, signal.SIGTERM)
        wait_for(lambda: client.status()["server"]["stopping"], "the stop")
        with refused(segue.errors.OutOfMemory, "memory", "not on disk"):
            loader.close()
    wait_for(lambda: not Path(f"/proc/{server}").exists(), "the end of the server")
    assert shortage.end() >= 3
    with segue.open(tmp_path / "store") as client:
        assert steps_on_disk(client) == {0: 0}


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_checkpoint_that_waits_keeps_no_processor_busy(tmp_path: Path) -> None:
    case = simple(tmp_path)
    with Server(tmp_path / "store") as server, segue.open(tmp_path / "store") as client:
        with segue.open(tmp_path / "store") as other:
            streams = [cases.open_stream(each, case, tmp_path) for each in (client, other)]
            fast, slow = (stream.loader(rank=i, world_size=2) for i, stream in enumerate(streams))
            commit(fast, case, 3)
            commit(slow, case, 2)
            tokens: list[dict[str, bytes]] = []
            waiting = threading.Thread(
                target=lambda: tokens.append(fast.state_dict(all_lanes=True, timeout=PATIENCE))
            )
            waiting.start()
            before, begun = processor_time(server.pid), time.monotonic()
            time.sleep(1.0)
            share = (processor_time(server.pid) - before) / (time.monotonic() - begun)
            commit(slow, case, 1)
            waiting.join()
            assert len(tokens[0]) >= 2 and share < 0.3
            fast.close()
            slow.close()


def full_file(directory: Path, *options: Any, limit: int | None = None) -> None:
    """A file that cannot grow: the typed error; what was stored stays, and is gone on from."""
    case = wide(directory, epochs=None, batch_size=8, lengths=(9,) * 16, interval=LONG)
    many = wide(directory / "many", batch_size=96, lengths=(9,) * 96, interval=LONG)
    many.name = "many"
    store = directory / "store"
    with Server(store, *options) as server:
        with segue.open(store, start=False) as client:
            loader = cases.open_stream(client, case, directory).loader()
            other = cases.open_stream(client, many, directory / "many").loader()
            commit(loader, case, 1)
            loader.flush()
            commit(other, many, 1)
            if limit:
                resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, limit))
            begun = time.monotonic()
            with refused(segue.errors.NoSpaceError, "data.mdb"):
                other.flush()
            with refused(segue.errors.NoSpaceError, "data.mdb"):
                other.close()
            assert time.monotonic() - begun < SOON
            streams = {stream["name"]: stream["lanes"] for stream in client.inspect()["streams"]}
            assert [lane["step"] for lane in streams["train"]] == [1]
            assert [lane["step"] for lane in streams["many"]] == [0]
            assert client.verify()["damaged_count"] == 0
            with suppress(segue.errors.NoSpaceError):
                loader.close()
        assert server.stop() == 1  # commits of the second stream are not on disk
    with segue.open(store) as client:
        with cases.open_stream(client, case, directory).loader(start="continue") as loader:
            cases.check(loader, case, cases.in_order(case, [0])[1:4], whole=False)


def test_a_map_that_is_full(tmp_path: Path) -> None:
    full_file(tmp_path, "--map-size", "1")


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """No signal ends the server."""
    full_file(tmp_path, limit=1 << 20)


# -- starts after a crash --------------------------------------------------------------------------


def xxh3_64(data: bytes) -> int:
    name = ctypes.util.find_library("xxhash")
    if name is None:
        pytest.skip("libxxhash is not installed: the store's mark cannot be rewritten")
    function = ctypes.CDLL(name).XXH3_64bits
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return int(function(data, len(data)))


def crash_machine(store: Path) -> None:
    """What a store is like whose server was running when the machine stopped."""
    file = store / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    key = b"store.mark"
    found = 0
    for match in re.finditer(key, bytes(data)):
        at = match.end()
        header, payload = bytes(data[at : at + 16]), bytes(data[at + 24 : at + 72])
        seal = struct.unpack_from("<Q", data, at + 16)[0]
        if header[:4] != b"SGV1" or seal != xxh3_64(header + key + payload):
            continue
        payload = b"11111111-2222-3333-4444-555555555555".ljust(40, b"\0") + bytes(8)
        data[at + 24 : at + 72] = payload
        struct.pack_into("<Q", data, at + 16, xxh3_64(header + key + payload))
        found += 1
    assert found, "no mark in the store"
    file.write_bytes(data)


def crashed_store(tmp_path: Path, **fields: Any) -> tuple[cases.Case, Path]:
    """A store in which lane 0 and 1 are at step 2."""
    case = simple(tmp_path, **fields)
    store = tmp_path / "store"
    with segue.open(store) as client:
        loader = cases.open_stream(client, case, tmp_path).loader()
        commit(loader, case, 2 * case.spec.lanes)
        loader.flush()
        copy = tmp_path / "crashed"
        copy.mkdir()
        shutil.copytree(store / "store", copy / "store")
        loader.close()
    end_of_server(store)
    crash_machine(copy)
    return case, copy


def test_a_store_is_verified_after_the_machine_s_crash(tmp_path: Path) -> None:
    case, store = crashed_store(tmp_path)
    report = json.loads(run("verify", "--if-due", "--json", store).stdout)
    assert report["due"] and report["values"] > 5
    told: list[tuple[str, int, int]] = []
    with segue.open(store, progress=lambda *words: told.append(words)) as client:
        with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
            assert "verified and is sound" not in (store / "server.log").read_text()
            assert told and told[0][0] == "verifying the store" and told[-1][1] > 0
            kill(server_pid(client))  # in this boot it is known to be whole now
            wanted = [b for b in cases.in_order(case, [0, 1]) if b.step >= 2]
            cases.check(loader, case, wanted)
    end_of_server(store)
    report = json.loads(run("verify", "--if-due", "--json", store).stdout)
    assert not report["due"] and report["values"] == 0


def test_a_foreground_server_says_that_it_verified(tmp_path: Path) -> None:
    _, store = crashed_store(tmp_path)
    with Server(store) as server:
        assert "serves" in server.line
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
        assert "not left in order: it has been verified and is sound" in errors
    crash = store / "store" / "data.mdb"
    crash.write_bytes(crash.read_bytes())
    with Server(store) as server:  # it ended in order: that is known, and not asked again
        server.process.terminate()
        assert "verified" not in server.process.communicate(timeout=30)[1]


def damage_states(store: Path, case: cases.Case) -> None:
    """Change a bit of a row's states at step 2 of lane 0, wherever they are."""
    file = store / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    row = list(cases.expected(case)(0))[2].state_in["h"][0].tobytes()
    assert data.count(row)
    for match in list(re.finditer(re.escape(row), bytes(data))):
        data[match.start()] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", ["state", "cut", "cut short", "zeroed"])
def test_a_damaged_store_is_not_served_after_a_crash(tmp_path: Path, damage: str) -> None:
    """By error, naming file and key, from embedded servers and others; the file is kept."""
    case, store = crashed_store(tmp_path)
    file = store / "store" / "data.mdb"
    data = bytearray(file.read_bytes())
    where = f"{file} is damaged"
    if damage == "state":
        damage_states(store, case)
        data[:] = file.read_bytes()
        where = "in table states"
    elif damage == "zeroed":
        for page in range(8192, len(data), 4096):
            if b"store.tally" not in data[page : page + 4096]:
                data[page + 16 : page + 4096] = bytes(4080)
    else:
        del data[12288 if damage == "cut" else 8192 + 100 :]
    file.write_bytes(data)
    for _ in range(2):
        with refused(segue.errors.StoreError, str(file), where, "the file is kept"):
            segue.open(store)
        result = run("serve", store)
        assert result.returncode == 1 and str(file) in result.stderr and where in result.stderr
    assert file.read_bytes() == data


def large_crashed_store(tmp_path: Path) -> tuple[cases.Case, Path]:
    """With enough values that a slow verification lasts."""
    return crashed_store(tmp_path, lengths=(9,) * 900, batch_size=400, lanes=1)


def test_a_start_waits_for_a_long_verification(
    tmp_path: Path, faults: Faults, processes: Callable[..., Other]
) -> None:
    """However short the timeout: as long as there is progress; and so do others who start."""
    case, store = large_crashed_store(tmp_path)
    faults.set("always slow 10000")
    told: list[int] = []
    other = processes(open_and_tell, store)
    begun = time.monotonic()
    with segue.open(store, timeout=2, progress=lambda what, done, total: told.append(done)) as c:
        took = time.monotonic() - begun
        assert other.receive() == (True, server_pid(c))
        other.join()
        faults.clear()
        assert took > 3, "it was not slow: nothing was seen"
        assert len(told) > 5 and told == sorted(told)
        with cases.open_stream(c, case, tmp_path).loader(start="continue") as loader:
            cases.check(loader, case, list(cases.expected(case)(0))[2:4], whole=False)


def open_and_tell(pipe: Any, store: Path) -> None:
    told = []
    with segue.open(store, timeout=2, progress=lambda *words: told.append(words)) as client:
        pipe.send((bool(told), server_pid(client)))


def test_a_server_that_verifies_can_be_told_to_stop(tmp_path: Path, faults: Faults) -> None:
    _, store = large_crashed_store(tmp_path)
    faults.set("always slow 20000")
    process = subprocess.Popen(
        [os.environ["SEGUE_PROGRAM"], "serve", str(store)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(1)
    begun = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < SOON
    assert process.returncode == 1 and "told to stop" in errors


def test_a_server_that_verifies_asks_its_manager_for_time(tmp_path: Path, faults: Faults) -> None:
    """Every few seconds, with how far it has come: it would be taken for one that hangs."""
    _, store = large_crashed_store(tmp_path)
    faults.set("always slow 20000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        with subprocess.Popen(
            [os.environ["SEGUE_PROGRAM"], "serve", str(store)],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.DEVNULL,
        ) as process:
            told = manager.recv(4096).decode()
            process.terminate()
    assert told.startswith("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=")
    assert re.search(r"\d+ of \d+ MiB", told)


def ask_again_and_again(path: Path) -> None:
    with Peer(path) as peer, suppress(ConnectionError):
        while True:
            with suppress(Refused):
                peer.call(REPORT, BULK, f2=VERIFY)


def test_a_stop_among_long_requests(tmp_path: Path, faults: Faults) -> None:
    """It waits for those that were begun before it, and no others are begun."""
    _, store = large_crashed_store(tmp_path)
    with segue.open(store) as client:
        server = server_pid(client)
        faults.set("always slow 300")
        threads = [
            threading.Thread(target=ask_again_and_again, args=[store / "segue.sock"])
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        begun = time.monotonic()
        os.kill(server, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{server}").exists(), "the end of the server")
        assert time.monotonic() - begun < SOON
        for thread in threads:
            thread.join()


def test_a_file_that_is_cut_short_under_the_server(tmp_path: Path) -> None:
    """SIGBUS: it says so and ends with a fixed status; the next one verifies, and refuses."""
    case = simple(tmp_path, interval=LONG)
    store = tmp_path / "store"
    with Server(store) as server:
        with segue.open(store, start=False, timeout=3) as client:
            loader = cases.open_stream(client, case, tmp_path).loader()
            commit(loader, case, 4)
            loader.flush()
            os.truncate(store / "store" / "data.mdb", 8192)
            with suppress(segue.errors.Error):
                client.inspect()
            server.process.wait(30)
            with suppress(segue.errors.Error):
                loader.close()
        errors = server.process.communicate()[1]
        assert server.process.returncode == 3
        assert str(store / "store" / "data.mdb") in errors and "SIGBUS" in errors
    assert (store / "suspect").exists()
    with refused(segue.errors.StoreError, str(store), "the file is kept"):
        segue.open(store)


def test_a_store_that_cannot_be_opened_is_due(tmp_path: Path) -> None:
    _, store = crashed_store(tmp_path)
    file = store / "store" / "data.mdb"
    file.write_bytes(file.read_bytes()[:5000])
    result = run("verify", "--if-due", store)
    assert result.returncode == 3 and "cut short" in result.stdout
    result = run("verify", "--if-due", "--json", store)
    assert result.returncode == 3 and json.loads(result.stdout)["due"]


def test_a_want_of_memory_is_no_damage(tmp_path: Path, faults: Faults) -> None:
    _, store = crashed_store(tmp_path)
    for command in (["verify"], ["verify", "--json"], ["backup"]):
        faults.set("once cursor 12")
        target = [tmp_path / "target"] if command == ["backup"] else []
        result = run(*command, store, *target)
        assert faults.fired and result.returncode == 1, result
        assert "Cannot allocate memory" in result.stderr and "DAMAGED" not in result.stdout
    assert run("verify", store).returncode == 0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def reader_under(pid: int) -> int:
    """The child that reads the file."""

    found: list[int] = []

    def find() -> bool:
        found[:] = children(pid)
        try:
            return "data.mdb" in Path(f"/proc/{found[0]}/maps").read_text()
        except (OSError, IndexError):
            return False

    wait_for(find, "the process that reads the file")
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.parametrize("command", ["verify", "backup"])
def test_a_verification_that_is_killed_is_no_verdict(
    tmp_path: Path, faults: Faults, command: str, number: signal.Signals
) -> None:
    """Unless it is by a signal that reading a damaged file raises."""
    _, store = large_crashed_store(tmp_path)
    faults.set("always slow 5000")
    process = subprocess.Popen(
        [os.environ["SEGUE_PROGRAM"], command, str(store)]
        + [str(tmp_path / "target")] * (command == "backup"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.kill(reader_under(process.pid), number)
    output, errors = process.communicate(timeout=30)
    if number == signal.SIGSEGV:
        assert process.returncode == 3 and "damaged" in output + errors
    else:
        assert process.returncode == 1 and f"signal {number:d}" in errors
        assert "not judged" in errors and "damaged" not in (output + errors).lower()


def test_a_server_whose_verifier_is_killed_does_not_serve(tmp_path: Path, faults: Faults) -> None:
    _, store = large_crashed_store(tmp_path)
    before = (store / "store" / "data.mdb").read_bytes()
    faults.set("always slow 5000")
    process = subprocess.Popen(
        [os.environ["SEGUE_PROGRAM"], "serve", str(store)], stderr=subprocess.PIPE, text=True
    )
    os.kill(reader_under(process.pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "signal 9" in errors
    assert "could not be verified" in errors and "start the server again" in errors
    assert "damaged" not in errors
    assert (store / "store" / "data.mdb").read_bytes() == before
    faults.clear()
    with Server(store) as server:
        assert "serves" in server.line


@pytest.mark.parametrize("damaged", [False, True])
def test_a_server_that_inherits_that_ended_children_are_ignored(
    tmp_path: Path, damaged: bool
) -> None:
    """By a program that ignores SIGCHLD: what its verifier says counts all the same."""
    case, store = crashed_store(tmp_path)
    if damaged:
        damage_states(store, case)
    process = subprocess.Popen(
        [program(), "serve", str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert process.stdout
    served = "serves" in process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert served != damaged, errors
    if damaged:
        assert process.returncode == 1 and "is damaged" in errors
    else:
        assert "it has been verified and is sound" in errors
    result = subprocess.run(
        [program(), "verify", str(store)],
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert result.returncode == (3 if damaged else 0)


# -- backup and restore ----------------------------------------------------------------------------


def train(pipe: Any, directory: Path, case: cases.Case, lane: int) -> None:
    """Commit the lane's batches, slowly, until told to stop; tell how far."""
    client = segue.open(directory / "store")
    loader = cases.open_stream(client, case, directory).loader(lanes=[lane], start="continue")
    pipe.send("begun")
    step = 0
    for want, batch in zip(list(cases.expected(case)(lane)), loader):
        cases.compare(batch, want)
        cases.work(batch, case)
        batch.commit()
        step = batch.step + 1
        if pipe.poll(0.02):
            break
    del batch
    loader.close()
    client.close()
    pipe.send(step)


def goes_on(directory: Path, store: Path, case: cases.Case) -> dict[int, int]:
    """Each lane goes on exactly where the store says; returns where that was."""
    with segue.open(store) as client:
        steps = steps_on_disk(client)
        with cases.open_stream(client, case, directory).loader(start="continue") as loader:
            wanted = [b for b in cases.in_order(case, [0, 1]) if b.step >= steps.get(b.lane, 0)]
            cases.check(loader, case, wanted)
    end_of_server(store)
    return steps


def test_backups_of_a_store_that_two_workers_use(
    tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """Each is of one moment: from each, each lane goes on exactly."""
    case = simple(tmp_path, lengths=(9,) * 40, epochs=2, interval=0.02, keep_final=True)
    with segue.open(tmp_path / "store") as client:
        workers = [processes(train, tmp_path, case, lane) for lane in (0, 1)]
        for worker in workers:
            assert worker.receive() == "begun"
        backups = []
        for i in range(3):
            time.sleep(0.3)
            backups.append(tmp_path / f"backup{i}")
            result = run("backup", "--json", tmp_path / "store", backups[-1])
            assert result.returncode == 0, result
            assert json.loads(result.stdout)["values"] > 3
        for worker in workers:
            worker.pipe.send("stop")
        reached = [worker.receive() for worker in workers]
        for worker in workers:
            worker.join()
        assert steps_on_disk(client) == dict(enumerate(reached))
    end_of_server(tmp_path / "store")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    before = {0: 0, 1: 0}
    for i, backup in enumerate(backups):
        place = tmp_path / f"restored{i}"
        assert json.loads(run("verify", "--json", backup).stdout)["damaged_count"] == 0
        assert run("restore", backup, place).returncode == 0
        steps = goes_on(tmp_path, place, case)
        assert all(before[lane] <= steps.get(lane, 0) <= reached[lane] for lane in (0, 1))
        before = {lane: steps.get(lane, 0) for lane in (0, 1)}
    assert sum(before.values()) > 0
    # The store goes on from its own place, and a backup can be restored twice.
    assert goes_on(tmp_path, tmp_path / "store", case) == dict(enumerate(reached))
    assert run("restore", backups[1], tmp_path / "restored1").returncode == 1
    assert run("restore", "--force", backups[1], tmp_path / "restored1").returncode == 0
    goes_on(tmp_path, tmp_path / "restored1", case)
    kept = [path for path in (tmp_path / "restored1").glob("store.before-*")]
    assert len(kept) == 1 and (kept[0] / "data.mdb").exists()


def commit_when_told(pipe: Any, directory: Path, case: cases.Case) -> None:
    """Commit as many batches of lane 0 as the pipe says; tell the step on disk, or the error."""
    client = segue.open(directory / "store")
    loader = cases.open_stream(client, case, directory).loader(lanes=[0])
    while count := pipe.recv():
        try:
            commit(loader, case, count)
            loader.flush()
            pipe.send(loader.durable_step[0])
        except segue.Error as error:
            pipe.send(f"{type(error).__name__}: {error}")


def test_nobody_holds_a_lane_of_a_restored_store(
    tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """The worker of the store that was backed up lives: elsewhere it is in nobody's way, and in
    its own directory it is told that its lane has gone back without it."""
    case = simple(tmp_path)
    store, backup, elsewhere = (tmp_path / name for name in ("store", "backup", "elsewhere"))
    wanted = list(cases.expected(case)(0))
    worker = processes(commit_when_told, tmp_path, case)
    worker.pipe.send(3)
    assert worker.receive() == 3
    assert run("backup", store, backup).returncode == 0
    assert run("restore", backup, elsewhere).returncode == 0
    (stream,) = json.loads(run("inspect", "--json", elsewhere).stdout)["streams"]
    assert [(lane["step"], lane["held"]) for lane in stream["lanes"]] == [(3, False)]
    assert json.loads(run("verify", "--json", elsewhere).stdout)["damaged_count"] == 0
    with segue.open(elsewhere) as client:
        with cases.open_stream(client, case, tmp_path).loader(lanes=[0], start="continue") as loader:
            cases.check(loader, case, wanted[3:])
    worker.pipe.send(2)
    assert worker.receive() == 5  # is not disturbed
    pid = little.pid_of(store)
    kill(pid)
    wait_for(lambda: little.has_ended(pid), "the end of the server")
    assert run("restore", "--force", backup, store).returncode == 0
    worker.pipe.send(1)
    assert worker.receive().startswith("FencedError: "), "not its newer commit"
    with segue.open(store) as client:
        assert steps_on_disk(client)[0] == 3
        with cases.open_stream(client, case, tmp_path).loader(lanes=[0], start="continue") as loader:
            cases.check(loader, case, wanted[3:])
    worker.pipe.send(0)
    worker.join()


def test_what_backup_and_restore_refuse(tmp_path: Path) -> None:
    case, store = crashed_store(tmp_path)
    target = tmp_path / "target"
    target.mkdir()
    result = run("backup", store, target)
    assert result.returncode == 1 and "exists" in result.stderr
    target.rmdir()
    assert run("backup", tmp_path / "nowhere", target).returncode == 1
    assert run("restore", tmp_path / "nowhere", tmp_path / "new").returncode == 1
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert run("restore", tmp_path / "nowhere", tmp_path / "empty").returncode == 1
    assert (tmp_path / "empty").is_dir(), "it was there before"
    assert run("backup", store, tmp_path / "no" / "parent").returncode == 1
    assert run("backup", store, target).returncode == 0
    with Server(store):
        result = run("restore", "--force", target, store)
        assert result.returncode == 1 and "serves" in result.stderr
    result = run("restore", target, store)
    assert result.returncode == 1 and "--force" in result.stderr
    # a damaged one is neither copied nor restored, and changes nothing
    for bad in (store, target):
        file = bad / "store" / "data.mdb"
        data = bytearray(file.read_bytes())
        row = list(cases.expected(case)(0))[2].state_in["h"][0].tobytes()
        for match in list(re.finditer(re.escape(row), bytes(data))):
            data[match.start()] ^= 1
        file.write_bytes(data)
    good = tmp_path / "good"
    run("serve", "--help")
    assert run("backup", store, tmp_path / "second").returncode == 3
    assert run("restore", target, good).returncode == 3
    before = (store / "store" / "data.mdb").read_bytes()
    assert run("restore", "--force", target, store).returncode == 3
    assert (store / "store" / "data.mdb").read_bytes() == before
    assert not (tmp_path / "second").exists() and not good.exists()
    left = [path.name for path in (*tmp_path.iterdir(), *store.iterdir())]
    assert not [name for name in left if name.startswith((".", "store.before"))]


@pytest.mark.parametrize(
    "fault", ["write 5", "sync 5", "meta 5", "write 28", "short 0", "a file's size"]
)
def test_a_target_that_cannot_be_written_is_no_damage_of_the_store(
    tmp_path: Path, faults: Faults, fault: str
) -> None:
    _, store = large_crashed_store(tmp_path)
    limit = resource.RLIM_INFINITY
    if fault == "a file's size":
        limit = 100_000
        assert (store / "store" / "data.mdb").stat().st_size > limit
    else:
        faults.set(f"once {fault}")

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = run("backup", store, tmp_path / "target", preexec_fn=set_limit)
    assert result.returncode == 1 and "is not sound" not in result.stderr, result
    assert f"the copy for {tmp_path}/target cannot be written" in result.stderr
    assert not list(tmp_path.glob("*target*"))
    assert faults.fired


def test_messages_do_not_take_every_holder_for_a_server(tmp_path: Path) -> None:
    _, store = crashed_store(tmp_path)
    target = tmp_path / "target"
    assert run("backup", store, target).returncode == 0
    (store / "server.pid").unlink(missing_ok=True)
    fd = os.open(store, os.O_RDONLY)
    for kind, commands in (
        (fcntl.LOCK_SH, [["restore", target, store]]),
        (fcntl.LOCK_EX, [["restore", target, store], ["status", store], ["serve", store]]),
    ):
        fcntl.flock(fd, kind)
        for command in commands:
            result = run(*command)
            assert result.returncode == 1 and "another process has" in result.stderr, result
    os.close(fd)


def test_a_backup_at_work_is_left_alone_by_another(tmp_path: Path, faults: Faults) -> None:
    """Also while its copy is verified, when nobody has that open as a store."""
    _, store = large_crashed_store(tmp_path)
    target = tmp_path / "target"
    command = [os.environ["SEGUE_PROGRAM"], "backup", "--progress", str(store), str(target)]
    faults.set("always slow 3000")
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stdout
    done = -1
    for line in first.stdout:
        last, done = done, json.loads(line)["progress"]["done"]
        if done < last:
            break  # it has begun to verify
    else:
        pytest.fail("it did not verify the copy")

    def copies() -> set[str]:
        return {path.name for path in tmp_path.glob(".target.backup-*")}

    (made,) = copies()
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: bool(copies() - {made}), "the second copy")
    assert made in copies()
    second.send_signal(signal.SIGSTOP)  # the first is done first
    faults.clear()
    output, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    second.send_signal(signal.SIGCONT)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1 and "File exists" in errors
    assert not copies()
    assert json.loads(run("verify", "--json", target).stdout)["damaged_count"] == 0


def test_a_backup_that_is_killed_leaves_nothing_under_its_name(
    tmp_path: Path, faults: Faults
) -> None:
    _, store = large_crashed_store(tmp_path)
    target = tmp_path / "target"
    command = [os.environ["SEGUE_PROGRAM"], "backup", str(store), str(target)]
    faults.set("always slow 2000")
    for delay in (0.05, 0.3, 0.8):
        process = subprocess.Popen(command)
        time.sleep(delay)
        process.kill()
        process.wait()
        assert not target.exists()
    faults.clear()
    time.sleep(0.2)  # its own child goes with it
    subprocess.run(command, check=True, timeout=60)
    assert json.loads(run("verify", "--json", target).stdout)["damaged_count"] == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_exported_token_is_on_disk(tmp_path: Path, faults: Faults) -> None:
    """With its name, and that of the directory that was made for it."""
    case = simple(tmp_path)
    store, target = tmp_path / "store", tmp_path / "tokens"
    with segue.open(store) as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            commit(loader, case, 4)
            loader.state_dict()
    end_of_server(store)
    for where in (f"the directory above {target}", f"{target}"):
        faults.set("once directory 5")
        result = run("checkpoint", "export", store, target)
        assert result.returncode == 1 and faults.fired, result
        assert f"cannot sync {where}" in result.stderr
    assert run("checkpoint", "export", store, target).returncode == 0


def test_a_restore_that_is_killed_leaves_the_store_as_it_was(
    tmp_path: Path, faults: Faults
) -> None:
    case, backup = large_crashed_store(tmp_path)
    store = tmp_path / "store"
    before = (store / "store" / "data.mdb").read_bytes()
    command = [os.environ["SEGUE_PROGRAM"], "restore", "--force", str(backup), str(store)]
    faults.set("always slow 2000")
    for delay in (0.05, 0.3, 0.8):
        process = subprocess.Popen(command)
        time.sleep(delay)
        process.kill()
        process.wait()
        assert (store / "store" / "data.mdb").read_bytes() == before
    faults.clear()
    time.sleep(0.2)
    subprocess.run(command, check=True, timeout=60)
    assert not list(store.glob(".restore-*"))
    with segue.open(store) as client:
        with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
            cases.check(loader, case, list(cases.expected(case)(0))[2:4], whole=False)


# -- commits that are in no store are told by each way out -----------------------------------------


def leave_by_client(client: segue.Client, stream: segue.Stream, loader: segue.Loader) -> None:
    client.close()


def leave_by_stream(client: segue.Client, stream: segue.Stream, loader: segue.Loader) -> None:
    stream.close()


def leave_by_loader(client: segue.Client, stream: segue.Stream, loader: segue.Loader) -> None:
    loader.close()


def leave_by_with(client: segue.Client, stream: segue.Stream, loader: segue.Loader) -> None:
    with client, stream, loader:
        pass


def leave_after_flush(client: segue.Client, stream: segue.Stream, loader: segue.Loader) -> None:
    """What was told once is told again: the commits are still nowhere."""
    with pytest.raises(segue.FencedError):
        loader.flush()
    loader.close()


@pytest.mark.parametrize(
    "leave",
    [leave_by_client, leave_by_stream, leave_by_loader, leave_by_with, leave_after_flush],
)
def test_commits_that_went_nowhere(tmp_path: Path, leave: Callable[..., None]) -> None:
    """The store goes back behind a worker, whose lane is then another's."""
    case, store = simple(tmp_path, interval=3600.0), tmp_path / "store"
    client = segue.open(store)
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    commit(loader, case, 3)  # lane 0 at step 2, lane 1 at step 1
    loader.flush()
    assert run("backup", store, tmp_path / "backup").returncode == 0
    commit(loader, case, 3)
    pid = little.pid_of(store)
    kill(pid)
    wait_for(lambda: little.has_ended(pid), "the end of the server")
    assert run("restore", "--force", tmp_path / "backup", store).returncode == 0
    with pytest.raises(segue.FencedError) as told:
        leave(client, stream, loader)
    assert "lane 0" in str(told.value) or "lane 1" in str(told.value)
    client.close()


def test_commits_that_went_nowhere_without_a_close(tmp_path: Path) -> None:
    """Of a loader that nobody refers to any more, sys.unraisablehook is told."""
    case, store = simple(tmp_path, interval=3600.0), tmp_path / "store"
    told: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda event: told.append(event.exc_value)
    with segue.open(store) as client:
        loader = cases.open_stream(client, case, tmp_path).loader(lanes=[0])
        commit(loader, case, 1)
        loader.flush()
        assert run("backup", store, tmp_path / "backup").returncode == 0
        commit(loader, case, 1)
        pid = little.pid_of(store)
        kill(pid)
        wait_for(lambda: little.has_ended(pid), "the end of the server")
        assert run("restore", "--force", tmp_path / "backup", store).returncode == 0
        del loader
        gc.collect()
    sys.unraisablehook = hook
    assert [type(error) for error in told] == [segue.FencedError]


def test_a_lane_that_was_taken_and_has_all_on_disk(client: segue.Client, tmp_path: Path) -> None:
    """Closing it is no error: nothing is lost."""
    case = simple(tmp_path, lease_timeout=0.2)
    with segue.open(client.dir) as slow:
        loader = cases.open_stream(slow, case, tmp_path).loader(lanes=[0])
        commit(loader, case, 2)
        batch = next(iter(loader))
        with cases.open_stream(client, case, tmp_path).loader(
            lanes=[0], start="continue"
        ) as other:
            assert next(iter(other)).step == 2
            with pytest.raises(segue.FencedError):
                cases.work(batch, case)
                batch.commit()
        del batch
        loader.close()

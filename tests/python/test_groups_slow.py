"""What a group that is slow, stopped or killed does to those that share its feed."""

from __future__ import annotations

import os
import signal
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import forked
import segue
from test_groups import feeds, opened, take

DEPTH = 4


def other(directory: Path, path: Path, options: Any, pipe: Connection) -> None:
    """Group c: takes batches up to the step that it is told; 0: takes one, and goes no further."""
    with segue.open(directory) as client, opened(client, path, **options) as stream:
        with stream.loader(group="c", timeout=60) as loader:
            loader.state_dict()
            pipe.send(None)
            while (until := pipe.recv()) is not None:
                pipe.send(take(loader, until, 1) if until else next(iter(loader)).step)



@pytest.mark.parametrize("end", ["slow", "stopped", "killed"])
def test_others_wait_for_a_group_as_long_as_it_has_its_lane(
    client: segue.Client, tmp_path: Path, end: str
) -> None:
    options: dict[str, Any] = {"depth": DEPTH, "epochs": 20}
    if end == "stopped":
        options["lease_timeout"] = 1.0
    path = tmp_path / "a.segue"
    stream = opened(client, path, **options)
    ours, theirs = forked.context().Pipe()
    process = forked.context().Process(target=other, args=(client.dir, path, options, theirs))
    with stream.loader(group="b", timeout=60) as b:
        b.state_dict()
        process.start()
        try:
            ours.recv()
            assert feeds(client) == 1
            ours.send(3)
            assert take(b, 3, 1) == ours.recv()
            ours.send(0)
            assert ours.recv() == 3
            take(b, 3 + DEPTH, 1)
            if end == "slow":
                waits(b)
                ours.send(5)
                assert [step for step, _ in enumerate(ours.recv(), 3)] == [3, 4]
                take(b, 4 + DEPTH, 1)  # its loader still has batch 4
                waits(b)
            else:
                os.kill(process.pid, signal.SIGSTOP if end == "stopped" else signal.SIGKILL)
                take(b, 30, 1)
        finally:
            process.kill()
            process.join()
    # Its lane is where it was, with its own states.
    with stream.loader(group="c", start="continue", timeout=60) as c:
        assert next(iter(c)).step == (5 if end == "slow" else 3)


def wait_for_lane(directory: Path, path: Path, pipe: Connection) -> None:
    with segue.open(directory) as client, opened(client, path) as stream:
        pipe.send(None)
        with stream.loader(group="b", start="continue", timeout=60) as loader:
            pipe.send(next(iter(loader)).step)


def test_a_lease_that_is_renewed_does_not_go_to_one_that_waits(
    client: segue.Client, tmp_path: Path
) -> None:
    path = tmp_path / "a.segue"
    ours, theirs = forked.context().Pipe()
    args = (client.dir, path, theirs)
    process = forked.context().Process(target=wait_for_lane, args=args)
    kept = []
    with opened(client, path).loader(group="b") as loader:
        loader.state_dict()
        process.start()
        ours.recv()
        (lane,) = loader._handles
        for step in range(20):
            kept.append(next(iter(loader)).sequences["x"])
            take(loader, step + 1, 1)
            lane.leave_behind()  # what is kept of the loop before takes no place: it is renewed
            time.sleep(0.02)
        assert not ours.poll()
    assert ours.recv() == 20
    process.join()


def test_who_waits_is_told_for_whom(
    client: segue.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.loader._GROUP_SILENCE", 0.2)
    stream = opened(client, tmp_path / "a.segue", depth=DEPTH)
    with stream.loader(group="b", timeout=1) as b, stream.loader(group="c", timeout=60) as c:
        b.state_dict()
        take(c, 1, 1)
        take(b, DEPTH, 1)
        c.flush()
        who = rf"step {DEPTH}, waits for group 'c' \(process {os.getpid()}\), which is at step 1"
        with pytest.warns(UserWarning, match=who), pytest.raises(segue.TimeoutError_):
            next(iter(b))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(segue.TimeoutError_):
                next(iter(b))  # it is said once
        take(c, 3, 1)
        take(b, DEPTH + 2, 1)


def test_who_waits_with_any_lane_is_told_for_whom(
    client: segue.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.loader._GROUP_SILENCE", 0.2)
    stream = opened(client, tmp_path / "a.segue", depth=DEPTH)
    with (
        stream.loader(lanes="any", group="b", timeout=1) as b,
        stream.loader(group="c", timeout=60) as c,
    ):
        c.state_dict()
        take(b, DEPTH, 1)
        who = rf"step {DEPTH}, waits for group 'c' \(process {os.getpid()}\), which is at step 0"
        with pytest.warns(UserWarning, match=who), pytest.raises(segue.TimeoutError_):
            next(iter(b))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(segue.TimeoutError_):
                next(iter(b))  # it is said once


def waits(loader: segue.Loader) -> None:
    loader._timeout = 0.3
    with pytest.raises(segue.TimeoutError_):
        next(iter(loader))
    loader._timeout = 60

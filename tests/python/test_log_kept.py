"""What of a log is given up, when, and who is refused then. Files here have 16 MiB."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import little
import segue
from segue import Push
from test_cli import run
from test_log import insert_numbers, open_plain

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))

STEPS = 1 << 19  # of int64: three sequences fill a file
ALL = Push(capacity=1000, retain_sequences=1, retain_bytes=1)  # all goes that nothing needs


def open_large(client: segue.Client, source: Push = ALL, **options: Any) -> segue.Stream:
    return open_plain(client, source, **{"num_unroll": STEPS, "batch_size": 1} | options)


def known(client: segue.Client) -> dict[str, Any]:
    return client.inspect("live")["streams"][0]["log"]


def files(client: segue.Client) -> list[int]:
    """The first number of each file that there is."""
    (directory,) = (Path(client.dir) / "log").iterdir()
    return sorted(int(path.name.removesuffix(".segue")) for path in directory.glob("*.segue"))


def soon(what: Any, timeout: float = 20) -> None:
    until = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.01)


def numbers(loader: segue.Loader, count: int | None = None) -> list[int]:
    return [
        int(batch.sequences["x"][0][0])
        for batch in itertools.islice(loader, count)
        if not batch.commit()
    ]


def fill(stream: segue.Stream, count: int, name: str = "a") -> None:
    producer = stream.producer(name)
    insert_numbers(producer, count, STEPS)
    producer.flush()
    producer.leave()


def test_what_all_lanes_have_finished_goes(tmp_path: Path) -> None:
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, Push(capacity=100, retain_bytes=1), lanes=2)
        with stream.producer("early") as early:
            insert_numbers(early, 2, STEPS)
        fill(stream, 38)
        with stream.loader(lanes=[0], timeout=60) as loader:
            numbers(loader, 20)
        # A lane that was never begun needs all.
        assert files(client)[0] == known(client)["first"] == 0
        with stream.loader(lanes=[1], timeout=60) as loader:
            numbers(loader, 10)
        # It has finished 10 of its own: the last it has seen is 19.
        soon(lambda: files(client)[0] == known(client)["first"] > 12)
        assert known(client)["first"] <= 20
        with stream.loader(lanes=[1], start="fresh", timeout=60) as loader:
            left = known(client)["first"]
            with pytest.raises(segue.StartError, match=f"the first that is left is {left}"):
                next(iter(loader))
        # It is where it was.
        with stream.loader(lanes=[1], start="continue", timeout=60) as loader:
            assert next(iter(loader)).insertion_index.tolist() == [21]
    # What early had inserted is in no file any more.
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, Push(capacity=100, retain_bytes=1), lanes=2)
        assert stream.producer("early").resume() == (2, b"1")
        assert stream.producer("a").resume() == (38, b"37")
        fill(stream, 2, "b")
        for lane, number in ((0, 40), (1, 23)):
            with stream.loader(lanes=[lane], start="continue", timeout=60) as loader:
                assert next(iter(loader)).insertion_index.tolist() == [number]


def test_a_checkpoint_holds_back_what_it_needs(tmp_path: Path) -> None:
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, keep_checkpoints=1)
        fill(stream, 40 - 10)
        with stream.loader(timeout=60) as loader:
            numbers(loader, 6)
            early = loader.state_dict()
            assert numbers(loader, 20) == list(range(6, 26))
            loader.flush()
            soon(lambda: known(client)["first"] > 0)
            soon(lambda: files(client)[0] == known(client)["first"])
            assert files(client)[0] <= 6
            loader.load_state_dict(early)
            assert numbers(loader, 20) == list(range(6, 26))
            late = loader.state_dict()
            soon(lambda: files(client)[0] == known(client)["first"] > 20)
            assert files(client)[0] <= 26
            refused = "given up: the first that is left is 2[0-6]$"  # as far as it has come by now
            with pytest.raises(segue.TokenError, match=refused):
                loader.load_state_dict(early)
            loader.load_state_dict(late)
            assert numbers(loader, 1) == [26]
            numbers(loader, 3)
            loader.flush()
            fill(stream, 8, "b")  # the ring goes on: no batch can become a checkpoint again
            assert known(client)["first"] <= 26
            # One that is removed needs nothing more.
            assert run("checkpoint", "rm", client.dir, "--all").returncode == 0
            soon(lambda: known(client)["first"] > 26)


def test_what_a_ring_needs_goes_with_its_lease(tmp_path: Path) -> None:
    """Batches in it can become checkpoints; though all is stored that its worker has committed."""
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client)
        fill(stream, 12)
        with stream.loader(timeout=60) as loader:
            numbers(loader, 12)
            loader.flush()
            soon(lambda: files(client)[0] == known(client)["first"] == 6)
        soon(lambda: files(client)[0] == known(client)["first"] == 9)


def test_it_is_said_once_that_tokens_came_too_late(tmp_path: Path) -> None:
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, keep_checkpoints=2)
        fill(stream, 32)
        with stream.loader(timeout=60) as loader:
            given = []
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for count in (3, 7):
                    numbers(loader, count)
                    given.append(loader.state_dict())
                numbers(loader, 7)
            loader.flush()
            late = "'live' from before step 10 can no longer .* the one of step 10 is the oldest"
            with pytest.warns(UserWarning, match=late) as said:
                loader.state_dict()  # the store has this one and that of step 10
                soon(lambda: known(client)["first"] > 3)
                loader.state_dict()
            assert len(said) == 1
            with pytest.raises(segue.TokenError, match="given up: the first that is left is"):
                loader.load_state_dict(given[0])
            loader.load_state_dict(given[1])
            assert numbers(loader, 3) == [10, 11, 12]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loader.state_dict()


def test_who_copies_a_log_holds_it(tmp_path: Path) -> None:
    """As segue backup does, from before it reads the store."""
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client)
        fill(stream, 30)
        (directory,) = (tmp_path / "run" / "log").iterdir()
        held = os.open(directory, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_SH)
        with stream.loader(timeout=60) as loader:
            numbers(loader, 12)
            loader.flush()
            time.sleep(0.2)
            assert known(client)["first"] == 0
            os.close(held)
            numbers(loader, 1)
            loader.flush()
            soon(lambda: files(client)[0] == known(client)["first"] > 6)


def test_backups_while_files_go(tmp_path: Path) -> None:
    """Each is whole, whatever was given up meanwhile; what its store needs is in it."""
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, Push(capacity=12, retain_bytes=1))
        over, copy = threading.Event(), tmp_path / "copy"

        def work() -> None:
            with segue.open(tmp_path / "run") as mine:
                inserting = mine.stream("live").producer("a")
                with mine.stream("live").loader(timeout=60) as loader:
                    while not over.is_set():
                        insert_numbers(inserting, 6, STEPS)
                        numbers(loader, 6)
                        loader.flush()
                inserting.leave()

        worker = threading.Thread(target=work)
        worker.start()
        firsts = set()
        try:
            until = time.monotonic() + 60
            for turn in itertools.count():
                if turn >= 6 and (len(firsts) > 2 or time.monotonic() > until):
                    break
                shutil.rmtree(copy, ignore_errors=True)
                done = run("backup", tmp_path / "run", copy)
                assert done.returncode == 0, done.stderr
                firsts.add(known(client)["first"])
        finally:
            over.set()
            worker.join()
        stream.close()
    assert len(firsts) > 2, "nothing was given up meanwhile"
    with segue.open(copy) as client:
        stream = client.stream("live")
        with stream.producer("a") as producer:  # all may have been read that was there
            insert_numbers(producer, 1, STEPS)
        with stream.loader(start="continue", timeout=60) as loader:
            assert next(iter(loader)).insertion_index.tolist()[0] >= min(firsts)


def test_what_is_retained_is_not_given_up(client: segue.Client) -> None:
    stream = open_large(client, Push(capacity=60, retain_sequences=25, retain_bytes=1))
    fill(stream, 40)
    with stream.loader(timeout=60) as loader:
        assert numbers(loader, 40) == list(range(40))
        loader.flush()
        soon(lambda: files(client)[0] == known(client)["first"] > 40 - 25 - 4)
        assert files(client)[0] <= 40 - 25
        stream.end_input()
        with pytest.raises(segue.ArgumentError, match="sequences of stream 'live' were given up"):
            stream.files()
        # A checkpoint of it is one of what is there.
        loader.load_state_dict(loader.state_dict())
    bytes_kept = sum(path.stat().st_size for path in Path(client.dir, "log").glob("*/*"))
    assert bytes_kept > 25 * STEPS * 8


def test_retaining_is_said_by_numbers_from_one_on() -> None:
    for name in ("retain_sequences", "retain_bytes"):
        for wrong in (0, -1, 2**64, 1.5, True):
            with pytest.raises(segue.ArgumentError, match=f"Push.{name}"):
                Push(**{name: wrong})


def test_kills_while_files_go(tmp_path: Path) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    directory = tmp_path / "run"
    count, steps = 240, 1 << 17
    source = Push(capacity=20, retain_bytes=1)

    def insert() -> None:
        with segue.open(directory) as own:
            with open_large(own, source, num_unroll=steps, lanes=2).producer("a") as producer:
                for _ in range(count):
                    insert_numbers(producer, 1, steps)

    over = threading.Event()
    came: dict[int, list[int]] = {0: [], 1: []}
    killed = 0

    def kill() -> None:
        nonlocal killed
        begun = 0
        while not over.wait(draw.uniform(0.01, 0.1)):
            if len(came[0]) < begun + 5:  # each server gets somewhere, on a slow machine too
                continue
            begun = len(came[0])
            try:
                os.kill(little.pid_of(directory), signal.SIGKILL)
                killed += 1
            except (OSError, ValueError):
                pass

    with segue.open(directory) as client:
        stream = open_large(client, source, num_unroll=steps, lanes=2, interval=0.01)
        inserting = threading.Thread(target=insert, daemon=True)
        killing = threading.Thread(target=kill, daemon=True)
        inserting.start()
        killing.start()
        with stream.loader(lanes=[0, 1], timeout=60) as loader:
            kept = loader.state_dict()
            for _ in range(count // 2):
                for batch in next(iter(loader.rounds())):
                    came[batch.lane].append(int(batch.insertion_index[0]))
                    assert (batch.sequences["x"][0] == batch.insertion_index[0]).all()
                    batch.commit()
                if draw.randrange(5) == 0:
                    kept = loader.state_dict()
            over.set()
            killing.join()
            loader.load_state_dict(kept)
            loader.flush()
        inserting.join()
        assert came == {lane: list(range(lane, count, 2)) for lane in (0, 1)}
        soon(lambda: files(client)[0] == known(client)["first"] > count // 2)
        print(f"{killed} kills, the first that is left is {known(client)['first']}")

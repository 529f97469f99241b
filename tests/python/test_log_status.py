"""What `segue status` and `Client.status` say of a stream whose sequences are inserted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, Push
from test_cli import run, until
from test_durability import Faults, faults  # noqa: F401
from test_resume import kill

X = {"x": Feature("int64")}
CAPACITY = 12
LONG = 3600.0


def open_live(client: segue.Client, **options: Any) -> segue.Stream:
    options = {"num_unroll": 2, "batch_size": 2, "lanes": 2, "interval": LONG} | options
    return client.stream("live", Push(capacity=CAPACITY), X, **options)


def look(client: segue.Client) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """The log, its producers by name, and how far each lane is behind."""
    (stream,) = client.status()["streams"]
    log = stream["log"]
    producers = {producer.pop("name"): producer for producer in log["producers"]}
    return log, producers, [lane["behind"] for lane in stream["lanes"]]


def insert(producer: segue.Producer, count: int) -> None:
    for _ in range(count):
        producer.insert({"x": np.zeros(2, int)}, timeout=5)


def test_what_is_there_who_inserts_and_who_is_behind(client: segue.Client) -> None:
    stream = open_live(client)
    log, producers, behind = look(client)
    assert (log["state"], log["accepted"], log["synced"], log["first"]) == ("open", 0, 0, 0)
    assert (log["capacity"], log["waits_for"], producers, behind) == (CAPACITY, None, {}, [0, 0])
    one, two = stream.producer("one"), stream.producer("two")
    insert(one, 5)
    insert(two, 2)
    one.flush()
    two.flush()
    log, producers, behind = look(client)
    assert log["accepted"] == 7 and log["synced"] < 7 and behind == [4, 3]
    assert producers["one"] == {"session": True, "inserted": 5, "safe": 5, "state": "open"}
    with stream.loader(lanes=[0], timeout=60) as loader:
        for batch in itertools.islice(loader, 1):
            batch.commit()
        assert look(client)[2] == [2, 3]  # its first batch has ended two sequences
        loader.flush()
        assert look(client)[0]["synced"] >= 3
    one.leave()
    two.close()
    log, producers, _ = look(client)
    assert log["synced"] == 7
    assert producers["one"] == {"session": False, "inserted": 5, "safe": 5, "state": "open"}
    assert producers["two"] == {"session": False, "inserted": 2, "safe": 2, "state": "closed"}
    stream.end_input()
    assert look(client)[0]["state"] == "ended"


def shown(client: segue.Client) -> str:
    done = run("status", client.dir)
    assert done.returncode == 0 and not done.stderr
    text = done.stdout[done.stdout.index("stream live") :]
    assert max(map(len, text.splitlines())) <= 80, text
    return text


def test_inserts_that_wait(client: segue.Client) -> None:
    stream = open_live(client)
    producer = stream.producer("one", ring_bytes=1 << 16)
    insert(producer, 2 * CAPACITY + 3)
    until(lambda: look(client)[0]["waits_for"] == "capacity")
    log, producers, behind = look(client)
    assert log["accepted"] == 2 * CAPACITY and behind == [CAPACITY, CAPACITY]
    assert producers["one"]["inserted"] == 2 * CAPACITY
    text = shown(client)
    assert f"INSERTS WAIT: lane 0 has {CAPACITY} sequences before it (capacity {CAPACITY})" in text
    assert "log: 24 sequences accepted, 0 synced; files 1, " in text
    with stream.loader(lanes=[0, 1], timeout=60) as loader:
        for batch in itertools.islice(loader, 6):
            batch.commit()
        producer.flush(30)
        assert look(client)[0]["waits_for"] is None
    assert "WAIT" not in shown(client)
    stream.end_input()
    assert "the input has ended" in shown(client)


def test_a_log_that_has_failed(tmp_path: Path, faults: Faults) -> None:  # noqa: F811
    with segue.open(tmp_path / "run") as client:
        stream = open_live(client, durability="commit")
        producer = stream.producer("one")
        insert(producer, 2)
        producer.flush()
        faults.set("always log 5")
        insert(producer, 1)
        with pytest.raises(segue.StoreError):
            producer.flush()
        assert look(client)[0]["state"] == "failed"
        assert "FAILED: nothing more is accepted until the server is started again" in shown(client)
        faults.clear()
        kill(client.status()["server"]["pid"])

"""Sequences that were read, and that the log has lost: what is behind them is not gone on with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, Push, State
from test_durability import Faults, faults  # noqa: F401
from test_resume import kill

X = {"x": Feature("int64")}
STATES = {"sum": State("int64")}
LONG = 3600.0


def open_live(client: segue.Client) -> segue.Stream:
    return client.stream(
        "live", Push(capacity=100), X, states=STATES, num_unroll=2, batch_size=2, interval=LONG
    )


def insert(client: segue.Client, name: str, values: list[int]) -> None:
    with open_live(client).producer(name) as producer:
        for value in values:
            producer.insert({"x": np.full(2, value)})
        producer.flush()


def work(batch: Any) -> list[int]:
    values: list[int] = batch.sequences["x"][:, 0].tolist()
    batch.save_state("sum", batch.state("sum") + values)
    batch.commit()
    return values


@pytest.mark.parametrize("how", ["its sync fails", "the machine stops"])
@pytest.mark.parametrize("others", [True, False], ids=["others", "fewer"])
@pytest.mark.parametrize("goes_on", ["the same", "another", "fresh"])
def test_what_was_lost_is_not_gone_on_with(
    tmp_path: Path, faults: Faults, how: str, others: bool, goes_on: str  # noqa: F811
) -> None:
    directory = tmp_path / "run"
    client = segue.open(directory)
    insert(client, "a", list(range(8)))
    loader = open_live(client).loader(timeout=5)
    batches = iter(loader)
    assert [work(batch) for batch in itertools.islice(batches, 2)] == [[0, 1], [2, 3]]
    loader.flush()
    token = loader.state_dict()
    (file,) = (directory / "log").glob("*/*.segue")
    size = file.stat().st_size
    producer = open_live(client).producer("late")
    faults.set("always log 5")
    for value in (8, 9, 10, 11):
        producer.insert({"x": np.full(2, value)})
    producer.flush()
    came = [work(batch) for batch in itertools.islice(batches, 4)]  # all that the ring has
    assert came == [[4, 5], [6, 7], [8, 9], [10, 11]]
    if how == "its sync fails":
        with pytest.raises(segue.StoreError, match="may be lost"):
            loader.flush()
    # The disk has what was synced.
    kill(client.status()["server"]["pid"])
    faults.clear()
    with file.open("r+b") as log:
        log.truncate(size)
    with segue.open(directory) as other:
        if others:
            insert(other, "b", [18, 19, 20, 21])
        for _ in range(2):
            with pytest.raises(segue.ChangedError, match="has others in their place"):
                next(batches)
        with pytest.raises(segue.ChangedError, match="12 sequences"):
            next(iter(open_live(client).loader(start="continue", timeout=5)))
        if not others:
            insert(other, "b", [18, 19, 20, 21])
        wanted = [[4, 5], [6, 7], [18, 19], [20, 21]]
        if goes_on == "fresh":
            loader = open_live(client).loader(start="fresh", timeout=5)
            wanted = [[0, 1], [2, 3], *wanted]
        elif goes_on == "another":
            loader = open_live(client).loader(timeout=5)
        if goes_on != "fresh":
            loader.load_state_dict(token)
        batches = iter(loader)
        assert [work(batch) for batch in itertools.islice(batches, len(wanted))] == wanted
        loader.flush()
        loader.close()
    client.close()


def test_a_lane_without_a_sequence_goes_on(tmp_path: Path) -> None:
    """It has seen nothing of the log, so nothing that it has seen is lost with a server."""
    with segue.open(tmp_path / "store") as client:
        stream = client.stream(
            "train", segue.Push(producers=1), {"x": segue.Feature("float32")},
            states={"h": segue.State("float32")}, num_unroll=1, batch_size=1, lanes=2, tail="pad",
            interval=1000,
        )  # fmt: skip
        with stream.producer("one") as producer:
            producer.insert({"x": np.zeros(9, np.float32)})
        loader = stream.loader()
        steps = []
        for batch in loader:
            steps.append((batch.lane, batch.step))
            batch.save_state("h", batch.state("h"))
            batch.commit()
            if batch.step in (3, 4) and batch.lane == 1:
                kill(client.status()["server"]["pid"])
            del batch
        assert sorted(steps) == [(lane, step) for lane in range(2) for step in range(9)]

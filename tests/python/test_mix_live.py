"""Mixes with a part that is inserted: their order and where they wait, beside docs/mix.md."""

from __future__ import annotations

import itertools
import os
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixing
import segue
from segue import ArgumentError, Feature, FileWriter, Files, Mix, Part, Push
from test_cli import run
from test_log_kept import soon
from test_resume import kill

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
X = {"x": Feature("int64")}
LOG = 1  # the part that is the log in all mixes here
EVER = 10**6  # sequences of a log whose input goes on


class Plan:
    """A mix of two kinds of files with the log between them, and what the model says of it."""

    def __init__(
        self, folder: Path, weights: list[int], passes: int | None, **options: Any
    ) -> None:
        print(f"SEGUE_TEST_SEED={SEED}")
        self.weights, self.passes, self.options = weights, passes, options
        self.shuffle = options.get("shuffle", False)
        self.paths = [folder / f"{part}.segue" for part in (0, 2)]
        for part, path, records in zip((0, 2), self.paths, (300, 7), strict=True):
            if path.exists():
                continue
            with FileWriter(path, X) as writer:
                for record in range(records):
                    writer.write({"x": value(part, record)})

    def open(self, client: segue.Client, **push: Any) -> segue.Stream:
        source = Mix(
            {
                "many": Part(Files(self.paths[0]), self.weights[0], self.passes),
                "new": Part(Push(**push), self.weights[1]),
                "few": Part(Files(self.paths[1]), self.weights[2], None),
            }
        )
        options = {"num_unroll": 2, "batch_size": 1, "seed": SEED} | self.options
        return client.stream("mix", source, X, **options)

    def order(self, inserted: int = EVER) -> list[tuple[int, int]]:
        """Of a log that has so many sequences: up to the first that it has not."""
        parts = [
            mixing.Part(300, self.weights[0], self.passes),
            mixing.Part(inserted, self.weights[1], 1, log=True),
            mixing.Part(7, self.weights[2], None),
        ]
        return list(mixing.order(parts, SEED, self.shuffle))


def value(part: int, record: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.full(1 + record % 3, part * 10**6 + record)


def insert(producer: segue.Producer, count: int, **options: Any) -> None:
    for _ in range(count):
        producer.insert({"x": value(LOG, producer.inserted)}, **options)


def rows(loader: segue.Loader, most: int | None = None) -> dict[int, tuple[int, int]]:
    """(part, record) by number, of sequences that begin; until the end, or none comes."""
    found: dict[int, tuple[int, int]] = {}
    try:
        for batch in itertools.islice(loader, most):
            numbers, parts = batch.insertion_index.tolist(), batch.part.tolist()
            values = batch.sequences["x"][:, 0].tolist()
            for number, part, first in zip(numbers, parts, values, strict=True):
                assert first // 10**6 == part
                assert found.setdefault(number, (part, first % 10**6))[0] == part
            batch.commit()
    except segue.TimeoutError_:
        pass
    return found


def listed(found: dict[int, tuple[int, int]]) -> list[tuple[int, int]]:
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in range(len(found))]


@pytest.mark.parametrize(("lanes", "batch_size"), [(1, 1), (3, 4)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_order_while_it_is_inserted(
    tmp_path: Path, client: segue.Client, lanes: int, batch_size: int, shuffle: bool
) -> None:
    plan = Plan(tmp_path, [5, 3, 1], None, lanes=lanes, batch_size=batch_size, shuffle=shuffle)
    stream = plan.open(client, producers=1)

    def produce() -> None:
        with segue.open(client.dir) as own, plan.open(own, producers=1).producer("a") as producer:
            for _ in range(90):
                insert(producer, 10)
                producer.flush()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    with stream.loader(timeout=60) as loader:
        found = listed(rows(loader))
    thread.join()
    assert found == plan.order(900) and len(found) > 2 * mixing.BLOCK


@pytest.mark.parametrize("lanes", [1, 3])
def test_all_of_it_waits(tmp_path: Path, client: segue.Client, lanes: int) -> None:
    """Also files of which there is more: nothing comes that lies above what is missing."""
    plan = Plan(tmp_path, [6, 1, 2], None, lanes=lanes)
    stream = plan.open(client, capacity=10_000)
    found: dict[int, tuple[int, int]] = {}

    def read(lane: int) -> dict[int, tuple[int, int]]:
        start = "continue" if lane in found else "fresh"
        with segue.open(client.dir) as own, own.stream("mix") as again:
            with again.loader(lanes=[lane], start=start, timeout=0.5) as loader:
                return rows(loader)

    with stream.producer("a") as producer:
        for count in (0, 1, 2, 30):
            insert(producer, count - producer.inserted)
            producer.flush()
            with ThreadPoolExecutor(lanes) as pool:  # each of them waits
                for more in pool.map(read, range(lanes)):
                    found |= more
            assert listed(found) == plan.order(count)
    assert client.status()["streams"][0]["records"] == len(found)
    stream.end_input()
    with stream.loader(start="continue", timeout=60) as loader:
        assert rows(loader) == {}
    with plan.open(client).loader(start="fresh", timeout=60) as loader:
        assert listed(rows(loader)) == plan.order(30)


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
def test_files_end_it(tmp_path: Path, client: segue.Client, tail: str) -> None:
    """With the last sequence that is read of it, its input is over."""
    plan = Plan(tmp_path, [2, 1, 1], 1, lanes=2, batch_size=3, tail=tail)
    order = plan.order()
    needed = sum(part == LOG for part, _ in order)
    stream = plan.open(client, capacity=10_000)
    producer = stream.producer("a")
    insert(producer, needed - 1)
    producer.flush()
    assert client.status()["streams"][0]["log"]["state"] == "open"
    insert(producer, 1)
    producer.flush()
    soon(lambda: client.status()["streams"][0]["log"]["state"] == "ended")
    with pytest.raises(segue.EndedError):
        insert(producer, 1)
        producer.flush()
    with stream.loader(timeout=60) as loader:
        found = {number: row for number, row in rows(loader).items() if number >= 0}
    if tail == "stop":
        assert found.items() <= dict(enumerate(order)).items() and len(order) - len(found) < 6
    else:
        assert listed(found) == order
    with client.stream("again", stream.files(), X, num_unroll=2, batch_size=1).loader() as loader:
        assert {int(batch.insertion_index[0]) for batch in loader} == set(range(needed))


def test_files_that_end_before_anything_is_read_of_it(tmp_path: Path, client: segue.Client) -> None:
    with FileWriter(tmp_path / "f.segue", X) as writer:
        writer.write({"x": value(0, 0)})
    source = Mix({"f": (Files(tmp_path / "f.segue"), 1000), "new": (Push(), 1)})
    parts = [mixing.Part(1, 1000, 1), mixing.Part(EVER, 1, 1, log=True)]
    order = list(mixing.order(parts, 0, False))
    assert order == [(0, 0)]
    stream = client.stream("mix", source, X, num_unroll=2, batch_size=1)
    with stream.loader(timeout=60) as loader:
        assert listed(rows(loader)) == order
    with pytest.raises(segue.EndedError):
        stream.producer("a")


def test_goes_on_after_kills_and_from_tokens(tmp_path: Path, directory: Path) -> None:
    plan = Plan(tmp_path, [5, 3, 1], None, lanes=2, batch_size=4, shuffle=True)
    whole = plan.order(400)
    found: dict[int, tuple[int, int]] = {}
    tokens = []
    for turn in range(4):
        with segue.open(directory) as client:
            stream = plan.open(client, capacity=5000)
            start = "continue" if turn else "fresh"
            with stream.loader(start=start, timeout=20) as loader:
                producer = stream.producer("a")
                assert producer.resume()[0] == 100 * turn
                insert(producer, 100)
                producer.flush()
                producer.leave()
                found |= rows(loader, 40)
                loader.flush()
                tokens.append((loader.state_dict(), dict(found)))
            if turn < 3:
                kill(client.status()["server"]["pid"])
    with segue.open(directory) as client:
        stream = plan.open(client, capacity=5000)
        stream.end_input()
        with stream.loader(start="continue", timeout=60) as loader:
            assert listed(found | rows(loader)) == whole
            for token, before in tokens:
                loader.load_state_dict(token)
                assert listed(before | rows(loader)) == whole
    copy = tmp_path / "copy"
    assert run("backup", directory, tmp_path / "backup").returncode == 0
    assert run("restore", tmp_path / "backup", copy).returncode == 0
    with segue.open(copy) as client, client.stream("mix").loader(start="fresh") as loader:
        assert listed(rows(loader)) == whole


def test_a_token_of_a_log_that_went_on_otherwise(tmp_path: Path) -> None:
    plan = Plan(tmp_path, [1, 1, 1], None)
    with segue.open(tmp_path / "a") as client:
        stream = plan.open(client, capacity=1000)
        with stream.producer("a") as producer:
            insert(producer, 5)
        with stream.loader(timeout=60) as loader:
            rows(loader, 4)
            early = loader.state_dict()
    run("backup", tmp_path / "a", tmp_path / "backup")
    run("restore", tmp_path / "backup", tmp_path / "b")
    late = {}
    for name, key in (("a", "one"), ("b", "other")):
        with segue.open(tmp_path / name) as client:
            stream = plan.open(client, capacity=1000)
            producer = stream.producer("a2")
            for number in range(50):
                producer.insert({"x": value(LOG, number)}, key=key)
            producer.flush()
            with stream.loader(start="continue", timeout=60) as loader:
                rows(loader, 60)
                late[name] = loader.state_dict()
    with segue.open(tmp_path / "b") as client, plan.open(client).loader(start="continue") as loader:
        with pytest.raises(segue.TokenError, match="a log that went on otherwise"):
            loader.load_state_dict(late["a"])
        for token in (early, late["b"]):
            loader.load_state_dict(token)


@pytest.mark.parametrize("lanes", [1, 2])
def test_capacity_counts_what_is_there_of_all_parts(
    tmp_path: Path, client: segue.Client, lanes: int
) -> None:
    plan = Plan(tmp_path, [6, 2, 1], None, lanes=lanes)
    stream = plan.open(client, capacity=100)
    producer = stream.producer("a")
    with pytest.raises(segue.TimeoutError_):
        while True:
            insert(producer, 1)
            producer.flush(timeout=0.5)
    log = client.status()["streams"][0]["log"]
    accepted = log["accepted"]
    assert log["waits_for"] == "capacity"
    before, shares = (
        [len(plan.order(count)[lane::lanes]) for lane in range(lanes)]
        for count in (accepted - 1, accepted)
    )
    assert min(shares) >= 100 > min(before)
    assert [lane["behind"] for lane in client.status()["streams"][0]["lanes"]] == shares
    with stream.loader(lanes=[0], timeout=20) as loader:
        rows(loader, 40)
    soon(lambda: client.status()["streams"][0]["log"]["accepted"] > accepted)


def test_what_is_finished_is_given_up(tmp_path: Path, client: segue.Client) -> None:
    """Files of the log have 16 MiB: three of these sequences."""
    steps = 1 << 19
    with FileWriter(tmp_path / "f.segue", X) as writer:
        writer.write({"x": np.zeros(1, np.int64)})
    source = Mix(
        {
            "f": Part(Files(tmp_path / "f.segue"), 9, None),
            "log": (Push(capacity=10_000, retain_bytes=1), 1),
        }
    )
    options = {"num_unroll": steps, "batch_size": 1, "seed": SEED}
    stream = client.stream("mix", source, X, **options)
    producer = stream.producer("a")
    for number in range(20):
        producer.insert({"x": np.full(steps, 10**6 + number)})
    producer.flush()
    parts = [mixing.Part(1, 9, None), mixing.Part(20, 1, 1, log=True)]
    order = list(mixing.order(parts, SEED, False))
    taken = 0
    with stream.loader(timeout=60) as loader:
        for stop in (40, 110, len(order)):
            rows(loader, stop - taken)
            loader.flush()
            taken = stop
            needed = sum(part for part, _ in order[:taken])
            # The newest file stays, and what a checkpoint could still be made of.
            soon(lambda: first_of(client) >= needed - 8, 10)
            assert first_of(client) <= needed
    with pytest.raises(segue.StartError, match="was given up"):
        with stream.loader(start="fresh", timeout=20) as loader:
            rows(loader)


def test_tokens_need_sequences_of_the_log(tmp_path: Path, client: segue.Client) -> None:
    """Whether one came too late follows from those, not from numbers of the mix."""
    steps = 1 << 19
    with FileWriter(tmp_path / "f.segue", X) as writer:
        writer.write({"x": np.zeros(1, np.int64)})
    source = Mix(
        {
            "f": Part(Files(tmp_path / "f.segue"), 9, None),
            "log": (Push(capacity=10_000, retain_bytes=1), 1),
        }
    )
    options = {"num_unroll": steps, "batch_size": 1, "seed": SEED, "keep_checkpoints": 1}
    stream = client.stream("mix", source, X, **options)
    producer = stream.producer("a")
    for number in range(20):
        producer.insert({"x": np.full(steps, 10**6 + number)})
    producer.flush()
    parts = [mixing.Part(1, 9, None), mixing.Part(20, 1, 1, log=True)]
    of_log = [i for i, (part, _) in enumerate(mixing.order(parts, SEED, False)) if part]
    early, late = of_log[1] + 1, of_log[17] + 1
    with stream.loader(timeout=60) as loader:
        rows(loader, early)
        given = loader.state_dict()
        rows(loader, late - early)
        loader.flush()
        said = f"from before step {late} can no longer .* the one of step {late} is the oldest"
        with pytest.warns(UserWarning, match=said):
            loader.state_dict()  # by it the store needs none before it
            soon(lambda: first_of(client) > 2, 10)
            last = loader.state_dict()
        with pytest.raises(segue.TokenError, match="given up: the first that is left is"):
            loader.load_state_dict(given)
        loader.load_state_dict(last)


def first_of(client: segue.Client) -> int:
    return int(client.status()["streams"][0]["log"]["first"])


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        ([(Push(), 1, None)], {}, "source.parts[1] is inserted: a mix has one such part"),
        ([(Push(), 1, 2)], {}, "and one pass over it, so its epochs are 1"),
        ([(Push(), 1), (Push(), 1)], {}, "source.parts[2] is inserted: a mix has one such part"),
        ([(Push(), 1)], {"persist": False}, "what is inserted is kept in the store"),
        ([(Push(capacity=11), 1)], {"batch_size": 3}, "source.capacity is 11"),
        ([(Push(), 1)], {"epochs": 2}, "passes over a mix are those over its parts"),
    ],
)
def test_what_goes_with_it(
    tmp_path: Path, client: segue.Client, parts: Any, options: Any, said: str
) -> None:
    with FileWriter(tmp_path / "f.segue", X) as writer:
        writer.write({"x": np.zeros(1, np.int64)})
    mix = Mix({"f": (Files(tmp_path / "f.segue"), 1, 5)} | {str(i): p for i, p in enumerate(parts)})
    with pytest.raises(ArgumentError, match=re.escape(said)):
        client.stream("mix", mix, X, **{"num_unroll": 1, "batch_size": 1} | options)


def test_dropped_with_its_log_and_made_again(tmp_path: Path, directory: Path) -> None:
    plan = Plan(tmp_path, [1, 1, 1], None)
    with segue.open(directory) as client:
        for _ in range(2):
            stream = plan.open(client, capacity=1000)
            with stream.producer("a") as producer:
                insert(producer, 3)
            stream.end_input()
            with segue.open(client.dir) as other:
                with other.stream("mix").loader(timeout=60) as loader:
                    assert listed(rows(loader)) == plan.order(3)
            stream.close()
            client.drop("mix")
            assert list((directory / "log").iterdir()) == []
    assert run("verify", directory).returncode == 0

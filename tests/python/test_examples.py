"""Data sets of Python as the source of a stream."""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
import little
import mixing
import segue
from segue import Example, Examples, Feature, Files, Mix, Part, Push, State
from test_cli import run

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
X = {"x": Feature("int64")}
OPTIONS: dict[str, Any] = {"num_unroll": 2, "batch_size": 2}
COUNT = 23
PATIENCE = 60.0


class Numbers:
    """A map-style data set: item n has n in each of its 1 to 5 steps."""

    def __init__(self, count: int = COUNT, offset: int = 0, **more: Any) -> None:
        self.count = count
        self.offset = offset
        self.bad: int | None = more.pop("bad", None)  # this one raises
        self.deadly: int | None = more.pop("deadly", None)  # this one ends its process
        self.wait: float = more.pop("wait", 0.0)  # seconds, at random
        self.until: Path | None = more.pop("until", None)  # the last one waits until it is there
        self.pids: Path | None = more.pop("pids", None)  # a directory: who has made items
        self.log: Path | None = more.pop("log", None)  # a letter for each item
        assert not more

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        assert 0 <= number < self.count
        if self.pids:
            (self.pids / str(os.getpid())).touch()
        if self.log:
            with self.log.open("ab", buffering=0) as file:
                file.write(b".")
        if self.wait:
            time.sleep(random.random() * self.wait)
        while self.until and number == self.count - 1 and not self.until.exists():
            time.sleep(0.01)
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.bad:
            raise ValueError(f"nothing is known of {number}")
        return {"x": np.full(1 + number % 5, number + self.offset), "id": f"n{number}"}


def each(numbers: Numbers) -> Iterator[dict[str, Any]]:
    return (numbers[number] for number in range(len(numbers)))


def opened(client: segue.Client, source: Any, name: str = "train", **options: Any) -> segue.Stream:
    return client.stream(name, source, X, **OPTIONS | options)


def taken(stream: segue.Stream, **options: Any) -> list[Any]:
    """Numbers of the sequences, keys without their file, and values, batch by batch."""
    with stream.loader(**{"timeout": PATIENCE} | options) as loader:
        return [
            (
                batch.insertion_index.tolist(),
                [key.rpartition(b":")[2] for key in batch.key],
                batch.sequences["x"].tolist(),
            )
            for batch in loader
        ]


def values(stream: segue.Stream, **options: Any) -> list[int]:
    """Of each sequence, in their order."""
    found: dict[int, int] = {}
    with stream.loader(**{"timeout": PATIENCE} | options) as loader:
        for batch in loader:
            x = batch.sequences["x"][:, 0].tolist()
            found |= dict(zip(batch.insertion_index.tolist(), x, strict=True))
    assert sorted(found) == list(range(min(found), min(found) + len(found)))
    return [found[number] for number in sorted(found)]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# ---- Converted ----


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_it_is_as_files(tmp_path: Path, client: segue.Client, workers: int, shuffle: bool) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    segue.convert(each(Numbers()), tmp_path / "train.segue", sequences=X, context={})
    options: dict[str, Any] = {"shuffle": shuffle, "epochs": 2, "seed": SEED}
    wanted = taken(opened(client, Files(tmp_path / "train.segue"), "files", **options))
    numbers = Numbers(wait=0.02 if workers else 0)
    assert taken(opened(client, Examples(numbers, workers=workers), **options)) == wanted
    assert len(names(Path(client.dir) / "examples")) == 1


def test_what_items_may_be(tmp_path: Path, client: segue.Client) -> None:
    features = {"x": Feature("int64", 2), "w": Feature("int32", ragged=True)}
    context = {"label": Feature("bytes")}
    states = {"h": State("float32", 2, init="data"), "n": State("int64", init=3)}

    def example(number: int) -> Example:
        steps = 1 + number % 3
        x = np.full((steps, 2), number)
        w = [[number] * step for step in range(steps)]
        more = {"surplus": np.zeros(7)}
        return Example(
            {"x": x, "w": w} | more, {"label": b"%d" % number}, f"key {number}", None,
            {"h": np.full(2, number, np.float32)},
        )  # fmt: skip

    flat = [
        {**one.sequences, **one.context, **one.initial_states, "id": one.key}
        for one in map(example, range(6))
    ]
    found = []
    for name, source in (
        ("list", Examples([example(number) for number in range(6)])),
        ("generator", Examples(example(number) for number in range(6))),
        ("flat", Examples(flat, key="id")),
        ("named", Examples(iter(flat), key=lambda number, item: f"key {number}")),
        ("lists", Examples({name: [one[name] for one in flat] for name in flat[0]}, key="id")),
    ):
        stream = client.stream(name, source, features, context, states, **OPTIONS)
        of = []
        with stream.loader() as loader:
            for batch in loader:
                w, offsets = batch.ragged("w")
                of.append(
                    (
                        batch.key, batch.sequences["x"].tolist(), w.tolist(), offsets.tolist(),
                        batch.bytes("label").tolist(), batch.state("h").tolist(),
                        batch.state("n").tolist(),
                    )
                )  # fmt: skip
                for state in states:
                    batch.save_state(state, batch.state(state))
        found.append(of)
    assert all(of == found[0] for of in found)
    assert found[0][0][0] == [b"00000_of_00001:key 0", b"00000_of_00001:key 1"]
    assert found[0][0][5:] == ([[0, 0], [1, 1]], [3, 3])


def test_what_has_changed_is_seen(tmp_path: Path, client: segue.Client) -> None:
    log = tmp_path / "log"
    stream = opened(client, Examples(Numbers(log=log)))
    wanted = taken(stream)
    stream.close()
    opened(client, Examples(Numbers(log=log))).close()
    assert log.stat().st_size == 2 * COUNT
    there = names(Path(client.dir) / "examples")
    for held in (False, True):
        stream = opened(client, Examples(Numbers())) if held else None
        for other in (Numbers(offset=1), Numbers(count=COUNT - 1)):
            with pytest.raises(segue.ChangedError, match=r"not the one.*client\.drop\('train'\)"):
                opened(client, Examples(other))
            assert names(Path(client.dir) / "examples") == there
        if stream:
            stream.close()
    stream = client.stream("train")
    assert taken(stream, start="fresh") == wanted
    assert log.stat().st_size == 2 * COUNT


def test_a_file_that_is_there_is_the_data_set(tmp_path: Path, client: segue.Client) -> None:
    log, path = tmp_path / "log", tmp_path / "of[numbers]*.segue"
    wanted = taken(opened(client, Examples(Numbers(log=log), path=path)))
    assert names(tmp_path) == ["log", path.name, "store"] and log.stat().st_size == COUNT
    other = opened(client, Examples(Numbers(log=log, offset=1), path=path), "other")
    assert taken(other) == wanted and log.stat().st_size == COUNT
    message = f"has {COUNT} sequences, and the data set 5 items"
    with pytest.raises(segue.ChangedError, match=message):
        opened(client, Examples(Numbers(5), path=path))
    path.unlink()
    assert values(opened(client, Examples(Numbers(5), path=path), "third")) == list(range(5))
    path.write_bytes(b"something else")
    with pytest.raises(segue.DataError, match="is no whole sequence file"):
        opened(client, Examples(Numbers(5), path=path), "fourth")


@pytest.mark.parametrize("named", [False, True])
def test_what_was_cut_short_is_not_taken(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "train.segue" if named else None
    program = (
        "import sys, segue\n"
        "from test_examples import Examples, Numbers, opened\n"
        "with segue.open(sys.argv[1]) as client:\n"
        "    opened(client, Examples(Numbers(deadly=20), path=sys.argv[2] or None))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "store", path or ""],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=PATIENCE,
    )
    assert run.returncode == -signal.SIGKILL
    assert path is None or not path.exists()
    with segue.open(tmp_path / "store") as client:
        with pytest.warns(UserWarning, match="left by a conversion that was killed"):
            stream = opened(client, Examples(Numbers(), path=path))
        assert values(stream) == list(range(COUNT))


def convert_too(directory: Path, log: Path, until: Path, path: Path | None) -> None:
    with segue.open(directory) as client:
        examples = Examples(Numbers(log=log, until=until), path=path)
        assert opened(client, examples).records == COUNT


def waiting_for(path: Path) -> int:
    """How many wait for a file that another process has locked."""
    locks = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and f":{path.stat().st_ino} " in line for line in locks)


@pytest.mark.parametrize("named", [False, True])
def test_one_converts_and_others_wait(tmp_path: Path, named: bool) -> None:
    log, until = tmp_path / "log", tmp_path / "until"
    folder = tmp_path if named else tmp_path / "store" / "examples"
    arguments = (tmp_path / "store", log, until, folder / "train.segue" if named else None)
    context = forked.context()
    processes = [context.Process(target=convert_too, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    lock = folder / ".train.segue.lock"
    deadline = time.monotonic() + PATIENCE
    while not log.exists() or waiting_for(lock) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    until.touch()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert not lock.exists()
    assert log.stat().st_size == COUNT


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_fails_is_named(tmp_path: Path, client: segue.Client, workers: int) -> None:
    path = tmp_path / "train.segue"
    examples = Examples(Numbers(bad=13), path=path, workers=workers)
    message = "item 13: ValueError: nothing is known of 13"
    with pytest.raises(segue.SourceError, match=message) as info:
        opened(client, examples)
    cause = info.value.__cause__
    if workers:
        assert "in __getitem__" in str(cause) and "nothing is known" in str(cause)
    else:
        assert isinstance(cause, ValueError) and cause.__traceback__ is not None
    assert not path.exists()
    assert values(opened(client, Examples(Numbers(), path=path))) == list(range(COUNT))


def test_a_process_that_dies_is_named(client: segue.Client) -> None:
    with pytest.raises(segue.SourceError, match=r"item 7: .* has ended \(exit code -9\)"):
        opened(client, Examples(Numbers(deadly=7), workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Examples(7), "expected a data set, .* got int"),
        (lambda: Examples("train.segue"), "expected a data set, .* got str"),
        (lambda: Examples([], key=3), "Examples.key: 3 is neither a name nor callable"),
        (lambda: Examples(iter([]), workers=1), "Examples.workers: items that are not asked for"),
        (lambda: Examples([], workers=-1), "Examples.workers"),
        (lambda: Examples([], cache=False, path="x"), "Examples.path: without cache"),
    ],
)
def test_what_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(segue.ArgumentError, match=message):
        make()


def test_what_is_wrong_is_said_before_it_is_converted(tmp_path: Path, client: segue.Client) -> None:
    log = tmp_path / "log"
    with pytest.raises(segue.ArgumentError, match="batch_size"):
        opened(client, Examples(Numbers(log=log)), batch_size=None)
    with pytest.raises(segue.ArgumentError, match="source: it has no sequence"):
        opened(client, Examples([]))
    assert not log.exists()


# ---- Inserted ----


class Stateful:
    """An iterable that can go on from a place."""

    def __init__(self, count: int = 60, **more: Any) -> None:
        self.count = count
        self.at = 0
        self.more = more  # of its state
        self.begun: int | None = None  # where

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.begun = self.at
        while self.at < self.count:
            self.at += 1
            yield {"x": np.full(2, self.at - 1)}

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at} | self.more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def fed(client: segue.Client, items: Any, **more: Any) -> segue.Stream:
    return opened(client, Examples(items, cache=False, **more))


def go_on(stream: segue.Stream, batches: int | None = None) -> list[tuple[int, int]]:
    """Numbers and values of the rows that come next; of so many batches, or to the end."""
    found = []
    with stream.loader(start="continue", timeout=PATIENCE) as loader:
        for batch in itertools.islice(loader, batches):
            x = batch.sequences["x"][:, 0].tolist()
            found += list(zip(batch.insertion_index.tolist(), x, strict=True))
            batch.commit()
    return found


def check_all(found: list[tuple[int, int]], count: int) -> None:
    assert {number for number, _ in found} == set(range(count))
    assert all(number == value for number, value in found)


def ended(stream: segue.Stream) -> bool:
    return bool(stream._client.inspect(stream.name)["streams"][0]["log"]["ended"])


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 3])
def test_it_comes_as_it_is_converted(client: segue.Client, workers: int) -> None:
    numbers = Numbers(60, wait=0.01)
    wanted = taken(opened(client, Examples(Numbers(60)), "converted"))
    stream = fed(client, numbers, workers=workers)
    assert taken(stream) == wanted
    assert ended(stream)
    with stream.loader(start="fresh") as loader:
        assert next(iter(loader)).key == [b"00000_of_00001:train:0", b"00000_of_00001:train:1"]


def test_what_has_ended_is_not_asked_again(tmp_path: Path, client: segue.Client) -> None:
    stream = fed(client, Numbers())
    wanted = taken(stream)
    stream.close()
    log = tmp_path / "log"
    stream = fed(client, Numbers(log=log))
    assert taken(stream, start="fresh") == wanted
    assert not log.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_trainer(client: segue.Client, workers: int) -> None:
    """What was before it came; and when it is mended the stream goes on there."""
    stream = fed(client, Numbers(60, bad=41), workers=workers)
    found = []
    message = "item 41: ValueError: nothing is known of 41"
    with pytest.raises(segue.SourceError, match=message) as info:
        with stream.loader(timeout=PATIENCE) as loader:
            for batch in loader:
                x = batch.sequences["x"][:, 0].tolist()
                found += list(zip(batch.insertion_index.tolist(), x, strict=True))
                batch.commit()
    cause = info.value.__cause__
    if workers:
        assert "in __getitem__" in str(cause)
    else:
        assert isinstance(cause, ValueError) and cause.__traceback__ is not None
    with pytest.raises(segue.SourceError, match="item 41"):
        go_on(stream)
    stream.close()
    check_all(found + go_on(fed(client, Numbers(60), workers=workers)), 60)


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        (lambda: Numbers(deadly=7), {"workers": 2}, r"item 7: .* has ended \(exit code -9\)"),
        (lambda: [{"x": np.zeros(2, int)}, {"x": np.zeros((2, 3), int)}], {}, "item 1: .*shape"),
        (lambda: [{"x": np.zeros(2, int)}, {"y": np.zeros(2, int)}], {}, r"item 1: 'x' is missing; it has \['y'\]"),
        (lambda: [{"x": np.zeros(2, int)}, 7], {}, "item 1: expected a mapping of arrays, got int"),
        (lambda: [{"x": np.zeros(2, int)}, (7, 8)], {}, r'such as {"x": item\[0\], "y": item\[1\]}'),
        (lambda: iter(()), {}, "source: it has no sequence"),
        (lambda: Unsendable(), {"workers": 1}, "the data set cannot be pickled for them .*Unsendable"),
    ],
)
def test_what_cannot_be_inserted(
    client: segue.Client, items: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(segue.Error, match=message):
        go_on(fed(client, items(), **more))


class Unsendable(Numbers):
    def __reduce__(self) -> Any:
        raise TypeError("Unsendable")


def test_a_killed_trainer_takes_its_processes_along(tmp_path: Path) -> None:
    """Also those that are in the middle of an item; and who begins again goes on."""
    directory, log, pids = tmp_path / "store", tmp_path / "log", tmp_path / "pids"
    pids.mkdir()
    program = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from test_examples import *\n"
        "if __name__ == '__main__':\n"
        "    directory, log, pids = map(Path, sys.argv[1:])\n"
        "    with segue.open(directory) as client:\n"
        "        numbers = Numbers(log=log, pids=pids, until=pids / 'never')\n"
        "        stream = fed(client, numbers, workers=2)\n"
        "        assert len(go_on(stream, 3)) == 6\n"
        "        wait_for(lambda: log.stat().st_size == COUNT)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "trainer.py").write_text(program)
    run = subprocess.run(
        [sys.executable, tmp_path / "trainer.py", directory, log, pids],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=PATIENCE,
    )
    assert run.returncode == -signal.SIGKILL
    makers = [int(path.name) for path in pids.iterdir()]
    assert len(makers) == 2
    wait_for(lambda: all(little.has_ended(pid) for pid in makers))
    with segue.open(directory) as client:
        again = tmp_path / "again"
        found = go_on(fed(client, Numbers(log=again)))
        assert {number for number, _ in found} >= set(range(6, COUNT))
        assert all(number == value for number, value in found)
        assert again.stat().st_size < COUNT


@pytest.mark.parametrize(
    ("make", "passes"),
    [
        (lambda: Stateful(), False),
        (lambda: Stateful(more=(1, 2)), True),  # JSON has no tuples
        (lambda: Stateful(more="x" * 5000), True),
        (lambda: iter([{"x": np.full(2, number)} for number in range(60)]), True),
    ],
)
def test_an_iterable_goes_on(client: segue.Client, make: Any, passes: bool) -> None:
    stream = fed(client, make())
    found = go_on(stream, 6)
    stream.close()
    told: list[tuple[str, int, int]] = []
    items = make()
    stream = fed(client, items, progress=lambda *of: told.append(of))
    check_all(found + go_on(stream), 60)
    assert bool(told) == passes
    if passes:
        count = told[-1][2]
        assert 12 <= count < 60
        assert told == [("pass over", number + 1, count) for number in range(count)]
    if isinstance(items, Stateful):
        assert (items.begun == 0) == passes


@pytest.mark.parametrize("items", [Numbers(61), iter([{"x": np.zeros(2, int)}] * 5)])
def test_other_data_are_refused(client: segue.Client, items: Any) -> None:
    stream = fed(client, Numbers(60))
    go_on(stream, 6)
    stream.close()
    with pytest.raises(segue.ChangedError, match="give the same one, or begin a new stream"):
        go_on(fed(client, items))


def test_another_stands_by(tmp_path: Path, client: segue.Client) -> None:
    log = tmp_path / "log"
    with segue.open(client.dir) as first:
        stream = fed(first, Numbers(60))
        found = go_on(stream, 6)
        other = fed(client, Numbers(60, log=log))
        time.sleep(1)
        assert not log.exists()
    check_all(found + go_on(other), 60)
    assert 0 < log.stat().st_size < 60


def test_an_error_reaches_all(
    client: segue.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other; who has only the name hears of it when nobody goes on."""
    with segue.open(client.dir) as second, segue.open(client.dir) as third:
        streams = [
            opened(some, Examples(Numbers(60, bad=7), cache=False), lanes=3)
            for some in (client, second)
        ]
        for lane, stream in enumerate(streams):
            with pytest.raises(segue.SourceError, match="item 7: ValueError"):
                with stream.loader(lanes=[lane], timeout=PATIENCE) as loader:
                    for _ in loader:
                        pass
        monkeypatch.setattr(segue.loader, "_INPUT_SILENCE", 0.1)
        message = "nobody inserts into stream 'train': .*item 7: ValueError"
        with third.stream("train").loader(lanes=[2], timeout=PATIENCE) as loader:
            with pytest.warns(UserWarning, match="lane 2 .* No process has a producer of it open"):
                with pytest.raises(segue.SourceError, match=message):
                    for _ in loader:
                        pass
        assert re.search("NOBODY INSERTS: .*item 7", run("status", client.dir).stdout)
        with third.stream("train").producer("examples"):
            assert third.status()["streams"][0]["log"]["input_failure"] is None


def test_why_nothing_comes_is_found_beside_a_stream_that_was_dropped(
    client: segue.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segue.loader, "_INPUT_SILENCE", 0.1)
    with segue.open(client.dir) as second:
        producer = opened(second, segue.Push()).producer("a")
        client.drop("train")
        stream = opened(client, segue.Push())
        assert len(client.status()["streams"]) == 2  # until the other one closes it
        with stream.loader(timeout=1) as loader:
            with pytest.warns(UserWarning, match="No process has a producer of it open"):
                with pytest.raises(segue.TimeoutError_):
                    next(iter(loader))
        producer.leave()


def test_it_goes_through_kills_of_the_server(tmp_path: Path, client: segue.Client) -> None:
    log = tmp_path / "log"
    log.touch()
    stream = fed(client, Numbers(60, wait=0.05, log=log), workers=2)
    over = threading.Event()
    kills = 0

    def kill() -> None:
        """After every sixth item: a server that is killed too soon gets nowhere."""
        nonlocal kills
        while not over.wait(0.02):
            if log.stat().st_size > 6 * kills:
                with contextlib.suppress(segue.Error), segue.open(client.dir, start=False) as own:
                    os.kill(own.status()["server"]["pid"], signal.SIGKILL)
                    kills += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        check_all(go_on(stream), 60)
    finally:
        over.set()
        thread.join()
    assert kills > 2


def test_closing_waits_for_nobody(tmp_path: Path, client: segue.Client) -> None:
    """Neither for room, nor for an item."""
    until = tmp_path / "until"
    for items in (itertools.repeat({"x": np.zeros(20000, int)}), Numbers(1, until=until)):
        stream = fed(client, items)
        time.sleep(0.5)
        thread = stream._feed._thread
        assert thread.is_alive()
        begun = time.monotonic()
        stream.close()
        assert time.monotonic() - begun < 5
        until.touch()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        client.drop("train")
        until.unlink()


def test_a_stream_that_is_forgotten_is_fed_no_more(client: segue.Client) -> None:
    stream = fed(client, itertools.repeat({"x": np.zeros(20000, int)}))
    thread = stream._feed._thread
    del stream
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# ---- A part of a mix ----


def order(stream: segue.Stream, **options: Any) -> list[tuple[int, int]]:
    """(part, value) of each sequence, in their order."""
    found: dict[int, tuple[int, int]] = {}
    with stream.loader(**{"timeout": PATIENCE} | options) as loader:
        for batch in loader:
            x = batch.sequences["x"][:, 0].tolist()
            pairs = zip(batch.part.tolist(), x, strict=True)
            found |= dict(zip(batch.insertion_index.tolist(), pairs, strict=True))
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_converted_parts_of_a_mix(tmp_path: Path, client: segue.Client, shuffle: bool) -> None:
    """Beside a file, with and without a path; each is made once, and its own."""
    print(f"SEGUE_TEST_SEED={SEED}")
    segue.convert(each(Numbers(40)), tmp_path / "f.segue", sequences=X, context={})
    logs = [tmp_path / "log 1", tmp_path / "log 2"]

    def mix() -> Mix:
        path = tmp_path / "once.segue"
        return Mix(
            {
                "file": (Files(tmp_path / "f.segue"), 0.5),
                "once": Part(Examples(Numbers(9, log=logs[0]), path=path), 0.2, epochs=None),
                "each": Part(Examples(Numbers(11, log=logs[1]), workers=2), 0.3, epochs=None),
            }
        )

    options: dict[str, Any] = {"shuffle": shuffle, "seed": SEED}
    parts = [mixing.Part(40, 5, 1), mixing.Part(9, 2, None), mixing.Part(11, 3, None)]
    wanted = list(mixing.order(parts, SEED, shuffle))
    assert order(opened(client, mix(), **options)) == wanted
    assert order(opened(client, mix(), **options), start="fresh") == wanted
    assert [log.stat().st_size for log in logs] == [9, 2 * 11]
    (made,) = names(Path(client.dir) / "examples")
    assert made.startswith("train-each-") and (tmp_path / "once.segue").exists()
    assert order(client.stream("train"), start="fresh") == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_an_inserted_part_of_a_mix(tmp_path: Path, client: segue.Client, workers: int) -> None:
    """All of its items come; who begins again goes on behind those that were inserted."""
    print(f"SEGUE_TEST_SEED={SEED}")
    segue.convert(each(Numbers(5)), tmp_path / "f.segue", sequences=X, context={})

    def mix() -> Mix:
        items = Examples(Numbers(70), cache=False, workers=workers)
        files = Part(Files(tmp_path / "f.segue"), 0.5, epochs=None)
        return Mix({"file": files, "new": (items, 0.5)})

    parts = [mixing.Part(5, 1, None), mixing.Part(70, 1, 1, log=True)]
    with opened(client, mix(), seed=SEED) as stream:
        assert go_on(stream, 10)
    stream = opened(client, mix(), seed=SEED)
    go_on(stream)
    assert ended(stream)
    assert order(stream, start="fresh") == list(mixing.order(parts, SEED, False))


def test_other_parts_end_what_is_inserted(tmp_path: Path, client: segue.Client) -> None:
    """Of a data set without an end, which is then asked for nothing more."""
    print(f"SEGUE_TEST_SEED={SEED}")
    segue.convert(each(Numbers(30)), tmp_path / "f.segue", sequences=X, context={})
    items = Examples(Stateful(10**9), cache=False)
    mix = Mix({"file": (Files(tmp_path / "f.segue"), 2), "new": (items, 1)})
    stream = opened(client, mix, seed=SEED)
    parts = [mixing.Part(30, 2, 1), mixing.Part(10**9, 1, 1, log=True)]
    assert order(stream) == list(mixing.order(parts, SEED, False))
    assert ended(stream)
    assert stream._feed is not None
    stream._feed._thread.join(PATIENCE)
    assert not stream._feed._thread.is_alive()


def test_an_item_of_a_part_fails(tmp_path: Path, client: segue.Client) -> None:
    segue.convert(each(Numbers(30)), tmp_path / "f.segue", sequences=X, context={})
    files = Part(Files(tmp_path / "f.segue"), 1, epochs=None)
    bad = Numbers(20, bad=7)
    with pytest.raises(segue.SourceError, match=r"Mix.parts\['new'\]: item 7: ValueError") as info:
        opened(client, Mix({"file": files, "new": (Examples(bad), 1)}), "converted")
    assert isinstance(info.value.__cause__, segue.SourceError)
    stream = opened(client, Mix({"file": files, "new": (Examples(bad, cache=False), 1)}))
    with pytest.raises(segue.SourceError, match="item 7: ValueError"):
        go_on(stream)


@pytest.mark.parametrize("other", [Push(), Examples([], cache=False), None])
def test_one_part_is_inserted_once(tmp_path: Path, client: segue.Client, other: Any) -> None:
    """It is said before anything is converted."""
    log = tmp_path / "log"
    parts: dict[str, Any] = {"converted": (Examples(Numbers(log=log)), 1)}
    parts["new"] = Part(Examples([], cache=False), 1, 1 if other else None)
    if other:
        parts["other"] = (other, 1)
    name = "other" if other else "new"
    with pytest.raises(segue.ArgumentError, match=rf"parts\['{name}'\] is inserted: a mix has one"):
        opened(client, Mix(parts))
    assert not log.exists()


def test_the_first_program_of_the_readme(tmp_path: Path) -> None:
    """As it is, and once more."""
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [program] = re.findall(r"```python\n# first\.py\n(.*?)```", page, re.DOTALL)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 5 and "[50. 60.]" in done.stdout


WORKERS = """
import sys
import numpy as np
import segue

class Numbers:
    def __len__(self): return 3
    def __getitem__(self, number): return {"x": np.full(2, number)}

source = segue.Examples(Numbers(), cache=sys.argv[1] == "cache", workers=2)
stream = segue.open("store").stream("train", source, {"x": segue.Feature("int64")}, num_unroll=2, batch_size=2)
print(len(list(stream.loader(start="fresh"))))
"""


@pytest.mark.parametrize("kind", ["cache", "live"])
def test_a_program_that_its_workers_run_again(tmp_path: Path, kind: str) -> None:
    """Without the guard of its main part they would wait for what waits for them."""
    (tmp_path / "program.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "program.py", kind],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1 and not done.stdout
    assert 'put what it does under if __name__ == "__main__":' in done.stderr
    assert re.search(r"SourceError: item 0: the process that makes it has ended", done.stderr)


def test_a_data_set_that_workers_cannot_be_given(client: segue.Client) -> None:
    class Local(Numbers):
        pass

    with pytest.raises(segue.ArgumentError, match="Examples.workers: the data set cannot be pickled"):
        client.stream("train", Examples(Local(), workers=2), X, **OPTIONS)


def test_an_error_of_a_data_set_keeps_nothing_alive(directory: Path) -> None:
    """Neither the loader, whose lanes others want, nor what it has mapped."""
    loaders = []

    def items() -> Iterator[dict[str, Any]]:
        for number in range(6):
            if number == 5:
                raise OSError("item 5 is gone")
            yield {"x": np.full(9, number)}

    def train() -> None:
        client = segue.open(directory)
        stream = client.stream("train", Examples(items(), cache=False), X, states={"h": State("int64")}, **OPTIONS)
        loader = stream.loader(start="fresh")
        loaders.append(weakref.ref(loader))
        for batch in loader:
            batch.save_state("h", batch.state("h"))

    said = None
    try:
        train()
    except segue.SourceError as error:
        said = str(error)
    gc.collect()
    assert said is not None and "item 5 is gone" in said
    assert loaders[0]() is None

"""Data sets of Python as the source of a stream."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Example, Examples, Feature, Files, State

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
        self.log: Path | None = more.pop("log", None)  # a letter for each item
        assert not more

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        assert 0 <= number < self.count
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
    for other in (Numbers(offset=1), Numbers(count=COUNT - 1)):
        with pytest.raises(segue.ChangedError):
            opened(client, Examples(other))
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
    context = multiprocessing.get_context("spawn")
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

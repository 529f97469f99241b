"""A newer loader of a process: also where warnings are errors, the process forks, or the store is another by then."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import little
import segue
from segue import loader as loaders
from test_cli import run
from test_resume import kill, server_pid


def steps(loader: segue.Loader, last: int) -> None:
    """Works up to step `last`, and commits it."""
    for batch in loader:
        little.work(batch)
        if batch.step == last:
            batch.commit()
            break


def fail(loader: segue.Loader, at: int) -> None:
    """A loop that an error ends at step `at`, after all of it was saved."""
    with pytest.raises(ZeroDivisionError):
        for batch in loader:
            little.work(batch)
            if batch.step == at:
                1 / 0


@pytest.fixture
def strict() -> None:
    warnings.filterwarnings("error", message="batch .* was left")


def one_lane(client: segue.Client, directory: Path) -> segue.Stream:
    little.write(directory)
    return little.open_stream(client, directory, lanes=1, epochs=None)


@pytest.mark.usefixtures("strict")
def test_a_warning_as_an_error_is_raised_once(client: segue.Client, tmp_path: Path) -> None:
    stream = one_lane(client, tmp_path)
    loader = stream.loader()
    fail(loader, 1)
    with pytest.raises(UserWarning, match="batch 1 of lane 0 was left"):
        steps(loader, 2)
    steps(loader, 2)  # it was put back all the same
    token = loader.state_dict()
    fail(loader, 4)
    with pytest.raises(UserWarning, match="batch 4 of lane 0 was left"):
        loader.load_state_dict(token)
    loader.load_state_dict(token)
    assert next(iter(loader)).step == 3


@pytest.mark.usefixtures("strict")
def test_a_warning_as_an_error_takes_no_lane(client: segue.Client, tmp_path: Path) -> None:
    stream = one_lane(client, tmp_path)
    older = stream.loader()
    fail(older, 2)
    newer = stream.loader(start="fresh")
    with pytest.raises(UserWarning, match="batch 2 of lane 0 was left"):
        newer.state_dict()  # a look, and no more
    assert newer.durable_step == {}
    with pytest.raises(segue.FencedError, match="newer loader"):
        next(iter(older))
    with pytest.warns(UserWarning, match="already holds a position"):
        assert newer.state_dict()
    assert next(iter(newer)).step == 0, "start is looked at when the first batch is asked for"


@pytest.mark.usefixtures("strict")
def test_a_warning_as_an_error_hides_no_other(client: segue.Client, tmp_path: Path) -> None:
    stream = one_lane(client, tmp_path)
    with pytest.raises(ZeroDivisionError), stream.loader() as loader:
        for batch in loader:
            little.work(batch)
            1 / 0
    assert loader.closed
    with pytest.raises(UserWarning, match="left without"):
        fail(loader := stream.loader(start="continue"), 0)
        steps(loader, 1)


def test_a_fork_while_a_thread_attaches(client: segue.Client, tmp_path: Path) -> None:
    stream = one_lane(client, tmp_path)
    steps(stream.loader(), 0)
    held, done = threading.Event(), threading.Event()

    def attach() -> None:
        with loaders._attached_lock:  # as in the midst of it
            held.set()
            done.wait()

    thread = threading.Thread(target=attach)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with segue.open(tmp_path / "other") as own:
            steps(little.open_stream(own, tmp_path, lanes=1).loader(), 0)
        os._exit(0)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("what", ["restored", "dropped"])
def test_generations_that_begin_again(directory: Path, tmp_path: Path, what: str) -> None:
    """The older loader's leases were of a store, or a stream, that had more of them."""
    client = segue.open(directory)
    stream = one_lane(client, tmp_path)
    older = stream.loader(start="fresh")
    steps(older, 1)
    older.flush()
    run("backup", directory, tmp_path / "backup", "--portable")
    for step in (2, 3, 4):
        older = stream.loader(start="continue")
        steps(older, step)
    kill(server_pid(client))
    if what == "restored":
        run("restore", "--force", tmp_path / "backup", directory)
    else:
        client.drop("train")
        stream = little.open_stream(client, tmp_path, lanes=1, epochs=None)
    newer = stream.loader(start="continue")
    batch = next(iter(newer))
    assert batch.step == (2 if what == "restored" else 0)
    little.work(batch)
    batch.commit()
    newer.flush()
    with pytest.raises(segue.FencedError, match="newer loader"):
        next(iter(older))
    client.close()


@pytest.mark.parametrize("start", ["continue", "fresh"])
def test_closed_by_another_thread_while_it_attaches(
    stream: segue.Stream, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """It gives no batch, and its lanes back."""
    with stream.loader(start="fresh") as loader:
        little.work(next(iter(loader)))
    loader = stream.loader(start=start)
    take = loader._take_lane

    def take_and_close(*arguments: Any) -> Any:
        lane = take(*arguments)
        if arguments[0] == 1:
            thread = threading.Thread(target=loader.close)
            thread.start()
            thread.join()
        return lane

    monkeypatch.setattr(loader, "_take_lane", take_and_close)
    with pytest.raises(segue.ClosedError):
        next(iter(loader))
    assert loader._handles == []


def test_a_saved_batch_of_a_thread_that_has_ended_counts(stream: segue.Stream) -> None:
    loader = stream.loader(start="fresh", lanes=[0])

    def train() -> segue.Batch:
        for batch in loader:
            little.work(batch)
            if batch.step == 1:
                return batch
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(train).result()
    loader.close()
    assert batch.committed
    again = stream.loader(start="continue", lanes=[0])
    assert next(iter(again)).step == 2
    again.close()
    loader = stream.loader(start="fresh", lanes=[0])
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(train).result()
        with pytest.warns(UserWarning, match="batch 1 of lane 0"):
            loader.close()  # the thread may be at it still

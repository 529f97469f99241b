"""Lanes that move: workers that come, go and die; what a lane delivers does not depend on them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
import segue
from segue import Feature, State
from test_resume import kill, server_pid, wait_for

SEED = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
LANES = 8
RECORDS = 120
Seen = dict[tuple[int, int], str]  # what batches held, by lane and step


def opened(client: segue.Client, directory: Path, **options: Any) -> segue.Stream:
    path = directory / "data.segue"
    if not path.exists():
        made = directory / f"data.{os.getpid()}"
        with segue.FileWriter(made, {"x": Feature("int32")}) as writer:
            for record in range(RECORDS):
                writer.write({"x": np.full(1 + record % 7, record, np.int32)})
        made.rename(path)
    given = {
        "source": segue.Files(path),
        "sequences": {"x": Feature("int32")},
        "states": {"h": State("int64")},
        "num_unroll": 2,
        "batch_size": 2,
        "lanes": LANES,
        "epochs": 6,
        "keep_final": True,
    }
    return client.stream("train", **{**given, **options})


def held(batch: segue.Batch) -> str:
    x = batch.sequences["x"].tolist()
    return f"{batch.key} {x} {batch.state('h').tolist()}".replace("\n", " ")


def work(batch: segue.Batch) -> None:
    batch.save_state("h", batch.state("h") * 3 + np.arange(batch.batch_size) + batch.lane)


def alone(client: segue.Client, directory: Path) -> Seen:
    """What one loader of all lanes sees, in a group of its own."""
    seen: Seen = {}
    for batch in opened(client, directory).loader(group="alone"):
        seen[batch.lane, batch.step] = held(batch)
        work(batch)
    return seen


# ---- Workers ----


def run_worker(directory: Path, name: str, start: str, pause: float, limit: int) -> None:
    """Write what is seen into a file, line by line; leave after so many batches."""
    out = os.open(directory / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with segue.open(directory / "store") as client:
        stream = opened(client, directory)
        with stream.loader(lanes="any", start=start, timeout=60) as loader:
            os.write(out, b"ready\n")
            for count, batch in enumerate(loader, 1):
                line = f"{batch.lane} {batch.step} {time.monotonic()} {loader.lanes}: {held(batch)}"
                os.write(out, f"{line}\n".encode())
                time.sleep(pause)
                work(batch)
                if count == limit:
                    batch.commit()
                    break
        os.write(out, b"left\n")


class Workers:
    """Processes that take any lane."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[Any] = []
        self.count = 0

    def start(self, start: str = "continue", pause: float = 0.0, limit: int = -1) -> int:
        name = f"worker{self.count}"
        self.count += 1
        arguments = (self.directory, name, start, pause, limit)
        worker = forked.context().Process(target=run_worker, args=arguments, daemon=True)
        worker.start()
        self.running.append(worker)
        return self.count - 1

    def kill(self, at: int) -> None:
        self.running[at].kill()
        self.running[at].join()

    def text(self, at: int) -> list[str]:
        path = self.directory / f"worker{at}.txt"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def lines(self, at: int) -> list[tuple[int, int, float, list[int], str]]:
        """Lane, step, time, lanes that it had, what the batch held."""
        found = []
        for line in self.text(at):
            if line in ("ready", "left"):
                continue
            head, _, content = line.partition(": ")
            lane, step, when, lanes = head.split(" ", 3)
            had = [int(one) for one in lanes.strip("[]").split(",")]
            found.append((int(lane), int(step), float(when), had, content))
        return found

    def until(self, at: int, lines: int) -> None:
        """Wait until it has seen so many batches."""
        for _ in range(3000):
            if len(self.lines(at)) >= lines:
                return
            assert self.running[at].exitcode in (None, 0), self.running[at].exitcode
            if self.running[at].exitcode == 0:
                return
            time.sleep(0.02)
        raise AssertionError(f"worker {at} saw {len(self.lines(at))} batches")

    def finish(self) -> None:
        for worker in self.running:
            worker.join(timeout=100)
            assert worker.exitcode is not None

    def seen(self) -> Iterator[tuple[tuple[int, int], str]]:
        for at in range(self.count):
            for lane, step, _, _, content in self.lines(at):
                yield (lane, step), content


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(tmp_path)
    yield made
    for worker in made.running:
        worker.kill()
        worker.join()


def check(workers: Workers, whole: Seen) -> None:
    """Each batch was seen, and always with what one loader sees in it."""
    seen: Seen = {}
    for place, content in workers.seen():
        assert content == whole[place], place
        seen[place] = content
    assert seen.keys() == whole.keys()


def check_order(workers: Workers) -> None:
    """No lane has gone back but by one batch, which was not committed."""
    next_of: dict[int, int] = {}
    for line in sorted((line for at in range(workers.count) for line in workers.lines(at)), key=when):
        lane, step = line[:2]
        assert step in (next_of.get(lane, 0), next_of.get(lane, 0) - 1), (lane, step)
        next_of[lane] = step + 1


def when(line: tuple[int, int, float, list[int], str]) -> float:
    return line[2]


# ---- The same batches, whoever takes them ----


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_any_number_of_workers_sees_the_same(
    client: segue.Client, tmp_path: Path, workers: Workers, count: int
) -> None:
    whole = alone(client, tmp_path)
    for _ in range(count):
        workers.start("continue", 0.002)
    workers.finish()
    assert [worker.exitcode for worker in workers.running] == [0] * count
    check(workers, whole)
    check_order(workers)


def test_workers_that_die_come_and_go_see_the_same(
    client: segue.Client, tmp_path: Path, workers: Workers
) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    rng = np.random.default_rng(SEED)
    whole = alone(client, tmp_path)
    alive = [workers.start("continue", 0.01) for _ in range(3)]
    workers.until(alive[0], 5)
    for deed in rng.permutation(["kill", "join", "leave", "server", "kill", "join"]):
        time.sleep(float(rng.uniform(0.0, 0.3)))
        if deed == "kill":
            workers.kill(alive.pop(int(rng.integers(len(alive)))))
        elif deed == "server":
            kill(server_pid(client))
        else:
            limit = 10 if deed == "leave" else -1
            at = workers.start("continue", 0.01, limit)
            if deed == "join":
                alive.append(at)
    workers.finish()
    client.status()
    check(workers, whole)


# ---- Shares ----


def test_shares_even_out(client: segue.Client, tmp_path: Path, workers: Workers) -> None:
    whole = alone(client, tmp_path)

    def until_shares(ats: list[int], shares: list[int]) -> None:
        found: list[int] = []
        for _ in range(1000):
            found = sorted(len(lines[-1][3]) for at in ats if (lines := workers.lines(at)))
            if found == shares:
                return
            time.sleep(0.02)
        raise AssertionError(f"shares are {found}, not {shares}")

    first = workers.start("fresh", 0.25)
    until_shares([first], [LANES])
    second = workers.start("fresh", 0.25)  # which joins: nothing begins again
    until_shares([first, second], [4, 4])
    third = workers.start("continue", 0.25, 12)
    until_shares([first, second, third], [2, 3, 3])
    workers.kill(second)
    workers.until(third, 12)
    until_shares([first], [LANES])
    workers.kill(first)
    seen = dict(workers.seen())
    assert len(seen) < len(whole)  # or the lanes have moved for other reasons
    for place, content in workers.seen():
        assert content == whole[place]
    check_order(workers)


def test_more_workers_than_lanes_wait(client: segue.Client, tmp_path: Path, workers: Workers) -> None:
    whole = alone(client, tmp_path)
    for _ in range(LANES + 1):
        workers.start("continue", 0.01)
    for at in range(LANES + 1):
        while "ready" not in workers.text(at):
            time.sleep(0.02)
    workers.kill(next(at for at in range(LANES + 1) if workers.lines(at)))
    workers.finish()
    check(workers, whole)
    assert sum(1 for at in range(LANES + 1) if workers.lines(at)) >= LANES


# ---- In one process ----


def take(loader: segue.Loader, count: int) -> list[tuple[int, int]]:
    taken = []
    for batch in loader:
        taken.append((batch.lane, batch.step))
        work(batch)
        batch.commit()
        if len(taken) == count:
            break
    return taken


def test_the_lane_that_has_waited_longest_comes_first(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path, lanes=3, depth=20)

    def is_filled(lane: dict[str, Any]) -> bool:
        return lane["state"] == "held" and lane["step_published"] >= lane["step_committed"] + 5

    with stream.loader(lanes="any", start="fresh") as loader:
        while len(loader.lanes) < 3:
            take(loader, 1)
        # What is not there yet is not waited for: others come first.
        wait_for(lambda: all(map(is_filled, client.status()["streams"][0]["lanes"])), "full rings")
        taken = take(loader, 15)
    assert taken[3:] == [(lane, step + 1) for lane, step in taken[:-3]]
    assert {lane for lane, _ in taken[:3]} == {0, 1, 2}


def test_the_end_and_beginning_again(client: segue.Client, tmp_path: Path) -> None:
    whole = alone(client, tmp_path)
    stream = opened(client, tmp_path)
    loader = stream.loader(lanes="any", start="fresh", timeout=20)
    assert sorted(take(loader, -1)) == sorted(whole)
    assert loader.lanes == [] and loader.state_dict() == {}
    with pytest.warns(UserWarning, match="had ended before"):
        assert list(loader) == []
    with pytest.warns(UserWarning, match="had ended before"):
        assert list(stream.loader(lanes="any", start="continue", timeout=20)) == []
    with pytest.raises(segue.StartError):
        next(iter(stream.loader(lanes="any", timeout=20)))
    loader = stream.loader(lanes="any", start="fresh", timeout=20)
    assert len(take(loader, -1)) == len(whole)


def test_a_newer_loader_takes_all_over(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path)
    older = stream.loader(lanes="any", start="fresh", timeout=20)
    taken = take(older, 20)
    newer = stream.loader(lanes="any", start="continue", timeout=20)
    taken += take(newer, 20)
    assert len(set(taken)) == 40
    with pytest.raises(segue.FencedError, match="newer loader"):
        next(iter(older))
    with pytest.raises(segue.StartError, match="older loader"):
        next(iter(stream.loader(lanes="any", timeout=20)))
    fresh = stream.loader(lanes="any", start="fresh", timeout=20)
    assert {step for _, step in take(fresh, 8)} == {0}


def test_lanes_of_a_server_that_died(client: segue.Client, tmp_path: Path) -> None:
    """What a worker had of it, and gave back while there was none, is not reserved for it."""
    stream = opened(client, tmp_path)
    loader = stream.loader(lanes="any", start="fresh", timeout=20)
    taken = take(loader, 20)
    loader.flush()
    kill(server_pid(client))
    loader.close()
    with segue.open(tmp_path / "store") as other:
        for one in (stream, opened(other, tmp_path)):
            with one.loader(lanes="any", start="continue", timeout=20) as newer:
                taken += take(newer, 20)
                assert newer.lanes == list(range(LANES))
    assert len(set(taken)) == 60


def begins(taken: list[tuple[int, int]]) -> dict[int, int]:
    """The first step taken of each lane."""
    return {lane: step for lane, step in reversed(taken)}


def test_tokens_set_all_lanes(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path)
    with stream.loader(lanes="any", start="fresh", timeout=20) as loader:
        take(loader, 40)
        tokens = loader.state_dict()
        assert sorted(tokens) == [f"lane/{lane}" for lane in range(LANES)]
        first = begins(take(loader, 40))
        with pytest.raises(segue.TokenError, match="no token for lanes"):
            loader.load_state_dict({"lane/0": tokens["lane/0"]})
        assert loader.lanes == list(range(LANES))
        iterator = iter(loader)
        loader.load_state_dict(tokens)
        assert loader.lanes == []
        with pytest.raises(segue.StaleIterator):
            next(iterator)
        assert begins(take(loader, 40)) == first
    with stream.loader(lanes="any", timeout=20) as loader:  # load_state_dict is a start
        loader.load_state_dict([tokens])
        assert begins(take(loader, 40)) == first


def test_tokens_are_refused_while_others_work(
    client: segue.Client, tmp_path: Path, workers: Workers
) -> None:
    stream = opened(client, tmp_path)
    with stream.loader(start="fresh") as loader:
        take(loader, 8)
        tokens = loader.state_dict()
    workers.until(workers.start("continue", 0.01), 4)
    loader = stream.loader(lanes="any", timeout=0.2)
    with pytest.raises(segue.BusyError, match="no other has a lane"):
        loader.load_state_dict(tokens)


def test_beside_lanes_that_stay(client: segue.Client, tmp_path: Path) -> None:
    """A lane that somebody has by its number is not shared."""
    stream = opened(client, tmp_path)
    with ExitStack() as stack:
        other = stack.enter_context(segue.open(tmp_path / "store"))
        stays = stack.enter_context(opened(other, tmp_path).loader(lanes=[2, 5], start="fresh"))
        take(stays, 2)
        loader = stack.enter_context(stream.loader(lanes="any", start="fresh", timeout=0.3))
        take(loader, 12)
        assert loader.lanes == [0, 1, 3, 4, 6, 7]
        stays.close()
        take(loader, 12)
        assert loader.lanes == list(range(LANES))


def test_lanes_that_stay_are_not_taken_after_a_killed_server(
    client: segue.Client, tmp_path: Path
) -> None:
    """By another loader of the process, which comes to the next server first."""
    stream = opened(client, tmp_path)
    with ExitStack() as stack:
        other = stack.enter_context(segue.open(tmp_path / "store"))
        own = stack.enter_context(stream.loader(lanes=[3], start="fresh"))
        stays = stack.enter_context(opened(other, tmp_path).loader(lanes=[2, 5], start="fresh"))
        loader = stack.enter_context(stream.loader(lanes="any", start="fresh", timeout=20))
        taken = take(own, 2) + take(stays, 4) + take(loader, 10)
        left = next(iter(stays))
        kill(server_pid(client))
        loader.close()
        newer = stack.enter_context(stream.loader(lanes="any", start="continue", timeout=20))
        taken += take(newer, 20)
        assert newer.lanes == [0, 1, 4, 6, 7]
        work(left)
        left.commit()
        taken += [(left.lane, left.step)] + take(stays, 4) + take(own, 2)
        assert len(set(taken)) == len(taken) == 43


def test_no_lane_in_time(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path, lanes=1)
    with segue.open(tmp_path / "store") as other:
        stays = opened(other, tmp_path, lanes=1).loader(start="fresh")
        take(stays, 1)
        loader = stream.loader(lanes="any", start="continue", timeout=0.3)
        with pytest.raises(segue.TimeoutError_, match="no lane of stream 'train' came free"):
            next(iter(loader))


def test_what_it_refuses(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path)
    with pytest.raises(segue.ArgumentError, match="neither \"any\""):
        stream.loader(lanes="all")
    with pytest.raises(segue.ArgumentError, match="not both"):
        stream.loader(lanes="any", rank=0, world_size=2)
    loader = stream.loader(lanes="any", start="fresh", timeout=20)
    for call in (loader.rounds, loader.epochs, lambda: loader.set_batch_size(1)):
        with pytest.raises(segue.ArgumentError, match='lanes="any"'):
            call()
    with pytest.raises(segue.RoundError, match="no lane"):
        loader.state_dict(all_lanes=True)
    options: dict[str, Any] = {"num_unroll": 2, "batch_size": 2, "persist": False}
    plain = client.stream("plain", segue.Files(tmp_path / "data.segue"), {"x": Feature("int32")}, **options)
    with pytest.raises(segue.ArgumentError, match="persist"):
        plain.loader(lanes="any")

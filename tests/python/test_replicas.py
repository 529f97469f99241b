"""Replicas: followers of a lane that see the batches, states included, of the one who commits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from rank import opened, save, seen
from segue import Feature
from test_cli import program
from test_resume import kill, server_pid

LENGTHS = (5, 3, 7, 2, 4, 6, 1, 8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path, rng = tmp_path / "a.segue", np.random.default_rng(5)
    with segue.FileWriter(path, {"x": Feature("float32", [3])}) as writer:
        for length in LENGTHS:
            writer.write({"x": rng.normal(size=(length, 3)).astype(np.float32)})
    return path


class Rank:
    """A process, and what it has printed."""

    def __init__(self, directory: Path, data: Path, replica: int, replicas: int, **options: Any):
        command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(directory)]
        command += [str(data), str(replica), str(replicas)]
        command += [f"{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def wait(self, timeout: float = 120) -> list[Any]:
        """What it has seen, when it has ended by itself."""
        self.process.wait(timeout)
        self.thread.join()
        assert self.process.stderr
        errors = self.process.stderr.read()
        assert self.lines and self.lines[-1] == "done", errors
        return [json.loads(line) for line in self.lines[:-1]]

    def failure(self, timeout: float = 120) -> str:
        self.process.wait(timeout)
        self.thread.join()
        assert self.process.stderr
        assert self.process.returncode != 0
        return self.process.stderr.read()

    def until(self, count: int) -> None:
        end = time.monotonic() + 60
        while len(self.lines) < count:
            assert time.monotonic() < end and self.process.poll() is None
            time.sleep(0.005)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def alone(directory: Path, data: Path, until: int, **options: Any) -> list[Any]:
    """What one process sees without replicas."""
    found = []
    with segue.open(directory) as client:
        loader = opened(client, data, **options).loader(start="fresh")
        for batch in loader:
            found.append(seen(batch))
            save(batch)
            if len(found) == until:
                break
        loader.close()
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize("lanes", [1, 2])
def test_followers_see_what_the_leader_sees(tmp_path: Path, data: Path, lanes: int) -> None:
    expected = alone(tmp_path / "alone", data, 40, lanes=lanes)
    with segue.open(tmp_path / "store"):
        ranks = [
            Rank(tmp_path / "store", data, replica, 3, until=40, lanes=lanes)
            for replica in (2, 0, 1)
        ]
        for rank in ranks:
            assert rank.wait() == expected


def generation(client: segue.Client, group: str) -> int:
    """Of the lease of the group's lane 0."""
    (stream,) = [one for one in client.status()["streams"] if one["name"] == "train"]
    (lane,) = [one for one in stream["lanes"] if one.get("group_name", "") == group]
    return int(lane["generation"])


def test_a_leader_of_a_declared_group_renews_while_followers_read(
    tmp_path: Path, data: Path
) -> None:
    """All see what they would see alone, and nobody is asked to come to a ring that is followed."""
    expected = alone(tmp_path / "alone", data, 60)
    with segue.open(tmp_path / "store") as client:
        options = {"until": 60, "group": "a", "groups": 2}
        followers = [Rank(tmp_path / "store", data, replica, 3, **options) for replica in (1, 2)]
        leader = Rank(tmp_path / "store", data, 0, 3, cell=2, **options)
        other = opened(client, data, groups=2).loader(start="continue", group="b", timeout=60)
        found = []
        for batch in other:
            found.append(json.loads(json.dumps(seen(batch))))
            save(batch)
            if len(found) == 1:
                first, own = generation(client, "a"), generation(client, "b")
            if len(found) == 40:
                leader.until(40)
                assert generation(client, "a") > first + 5 and generation(client, "b") == own
            leader.until(min(len(found), 55))
            if len(found) == 60:
                break
        assert found == expected
        for rank in (leader, *followers):
            assert rank.wait() == expected


def test_replicas_of_a_declared_group_live_through_a_killed_server(
    tmp_path: Path, data: Path
) -> None:
    """Their groups meet again, and followers wait for theirs meanwhile."""
    expected = alone(tmp_path / "alone", data, 40)
    with segue.open(tmp_path / "store") as client:
        options = {"until": 40, "group": "a", "groups": 2, "pause": 0.01}
        ranks = [Rank(tmp_path / "store", data, replica, 2, **options) for replica in (1, 0)]
        other = opened(client, data, groups=2).loader(start="continue", group="b", timeout=60)
        found = []
        for batch in other:
            found.append(json.loads(json.dumps(seen(batch))))
            save(batch)
            if len(found) in (10, 25):
                kill(server_pid(client))
            if len(found) == 40:
                break
        assert found == expected
        for rank in ranks:
            assert rank.wait() == expected


def test_a_ring_that_is_followed_is_not_joined(clients: Any, data: Path) -> None:
    """Nor is its holder asked to come to another, or who is beside it to come to that."""
    options = {"max_lag": 60, "on_lag": "detach"}
    leader, follower = two(clients, data, **options)
    together(leader, follower, 2)
    with segue.open(clients[0].dir) as third:
        other = opened(third, data, **options).loader(start="continue", group="b")
        leases = []
        for steps in range(2, 22):
            together(leader, follower, 1)
            for batch in other:
                save(batch)
                if batch.step == steps:
                    batch.commit()
                    break
            leases.append((generation(third, ""), generation(third, "b")))
        (stream,) = [one for one in third.status()["streams"] if one["name"] == "train"]
        assert stream["feeds"] == 2 and len(set(leases)) == 1


def test_all_come_to_the_end(tmp_path: Path, data: Path) -> None:
    with segue.open(tmp_path / "store"):
        options = {"epochs": 1, "until": 0, "group": "b"}
        leader = Rank(tmp_path / "store", data, 0, 2, **options)
        follower = Rank(tmp_path / "store", data, 1, 2, pause=0.1, **options)
        assert leader.wait() == follower.wait()
        assert len(leader.lines) > 5


def together(leader: segue.Loader, follower: segue.Loader, count: int) -> list[Any]:
    """Both in this process, each in a thread of its own: what they saw, which is the same."""
    followed: list[Any] = []

    def follow() -> None:
        for batch in follower:
            followed.append(seen(batch))
            if len(followed) == count:
                break

    thread = threading.Thread(target=follow)
    thread.start()
    found = []
    for batch in leader:
        found.append(seen(batch))
        save(batch)
        if len(found) == count:
            break
    thread.join(60)
    assert followed == found
    return found


@pytest.fixture
def clients(tmp_path: Path) -> Any:
    with segue.open(tmp_path / "store") as first, segue.open(tmp_path / "store") as second:
        yield first, second


def two(clients: Any, data: Path, **options: Any) -> tuple[segue.Loader, segue.Loader]:
    first, second = clients
    return (
        opened(first, data, **options).loader(start="continue", replicas=2),
        opened(second, data, **options).loader(replica=1, replicas=2),
    )


def test_a_follower_only_reads(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 3)
    thread = threading.Thread(target=lambda: next(iter(leader)))
    thread.start()
    batch = next(iter(follower))
    with pytest.raises(segue.ReplicaError, match="replica 1 of lane 0 .* only reads"):
        batch.save_state("n", np.asarray(batch.state("n")))
    with pytest.raises(segue.ReplicaError, match="replica 0 saves states and commits"):
        batch.commit()
    with pytest.raises(segue.ReplicaError, match="flushes"):
        follower.flush()
    thread.join()


def test_a_follower_keeps_the_leader_within_depth(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data, depth=3)
    held: list[segue.Batch] = []
    thread = threading.Thread(target=lambda: held.append(next(iter(follower))))
    thread.start()
    leader._timeout = 5.0
    steps = []
    with pytest.raises(segue.TimeoutError_):
        for batch in leader:
            if not steps:
                thread.join()
                views = held[0].state("h"), held[0].sequences["x"]
                before = [np.array(view) for view in views]
                leader._timeout = 1.0
            save(batch)
            steps.append(batch.step)
    assert held[0].step == 0 and steps == [0, 1, 2]
    assert all((np.array(view) == value).all() for view, value in zip(views, before))


def test_what_a_follower_has_stays_as_it_is_when_it_has_gone(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 8)
    views: list[Any] = []
    thread = threading.Thread(target=lambda: views.extend(two_of(follower)))
    thread.start()
    for batch in leader:
        save(batch)
        if batch.step == 9:
            batch.commit()
            break
    thread.join()
    before = [np.array(view) for view in views]
    follower.close()
    with pytest.raises(segue.ReplicaError, match="was closed"):
        next(iter(leader))
    again = opened(clients[1], data, depth=3).loader(replica=1, replicas=2)
    together(leader, again, 12)
    assert all((np.array(view) == value).all() for view, value in zip(views, before))


def two_of(loader: segue.Loader) -> list[Any]:
    """What the next two batches have, as it lies in memory."""
    views: list[Any] = []
    for batch in loader:
        views += [batch.sequences["x"], batch.state("h"), batch.state("n"), batch.mask]
        if len(views) == 8:
            break
    return views


def test_status_says_who_follows(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 4)
    (stream,) = [one for one in clients[0].status()["streams"] if one["name"] == "train"]
    (one,) = stream["lanes"][0]["replicas"]
    assert one["replica"] == 1 and one["pid"] == os.getpid() and one["lag"] <= 1
    command = [program(), "status", clients[0].dir]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    header, row = lines[-2].split(), lines[-1].split()
    assert header == ["LANE", "REPLICA", "PID", "PROGRAM", "STEP", "LAG"]
    assert row[:3] == ["0", "1", str(os.getpid())]
    assert row[-2:] == [str(one["step"]), str(one["lag"])]


def test_wrong_replicas_are_refused(clients: Any, data: Path) -> None:
    stream = opened(clients[0], data)
    for replica, replicas in ((1, 1), (2, 2), (-1, 2), (0, 0)):
        with pytest.raises(segue.ArgumentError, match="replica"):
            stream.loader(replica=replica, replicas=replicas)
    for replica in (0, 1):
        with pytest.raises(segue.ArgumentError, match="replicas=2.*lanes that stay"):
            stream.loader(lanes="any", replica=replica, replicas=2)
    with pytest.raises(segue.ArgumentError, match="attach the lanes by their numbers"):
        stream._handle.lane(2**32 - 1, 0, None, 1.0, True, None, 0, 2)
    other = clients[0].stream(
        "other",
        source=segue.Files(data),
        sequences={"x": Feature("float32", [3])},
        num_unroll=2,
        batch_size=3,
        persist=False,
    )
    with pytest.raises(segue.ArgumentError, match="persist=False"):
        other.loader(replica=1, replicas=2)


def test_ranks_of_the_environment_are_not_taken_for_those_that_differ(
    clients: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = opened(clients[0], data, lanes=2)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(segue.ArgumentError, match="RANK and WORLD_SIZE count all ranks"):
        stream.loader(replica=1, replicas=2)
    loader = stream.loader(replica=1, replicas=2, rank=0, world_size=1)
    assert repr(loader) == "<segue.Loader: 'train', lanes [0, 1], replica 1 of 2>"
    assert stream.loader().lanes == [1]


def test_lanes_with_replicas_are_not_waited_for_among_others(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 2)
    for loader in (leader, follower):
        with pytest.raises(segue.ArgumentError, match="lanes without replicas"):
            loader.stream._handle.wait((loader._handles[0],), 0.0)


def test_a_group_with_replicas_is_dropped_when_none_is_there(clients: Any, data: Path) -> None:
    first, second = clients
    leader = opened(first, data).loader(start="continue", group="b", replicas=2)
    follower = opened(second, data).loader(group="b", replica=1, replicas=2)
    together(leader, follower, 2)
    with segue.open(first.dir) as third:
        with pytest.raises(segue.BusyError, match="held"):
            third.drop("train", group="b")
        follower.close()
        leader.close()
        waiting = opened(second, data).loader(group="b", replica=1, replicas=2, timeout=5)

        def wait() -> None:
            with suppress(segue.ReplicaError):
                next(iter(waiting))

        thread = threading.Thread(target=wait)
        thread.start()
        while not any(session["lanes"] for session in third.status()["sessions"]):
            time.sleep(0.01)
        with pytest.raises(segue.BusyError, match="a worker is asking for lane 0"):
            third.drop("train", group="b")
        thread.join()
        third.drop("train", group="b")


def test_a_follower_of_a_group_that_was_dropped_says_so(clients: Any, data: Path) -> None:
    first, second = clients
    leader = opened(first, data).loader(start="continue", group="b", replicas=2)
    follower = opened(second, data).loader(group="b", replica=1, replicas=2)
    together(leader, follower, 2)
    leader.close()
    with segue.open(first.dir) as third:
        third.drop("train", group="b")
    with pytest.raises(segue.NotFoundError, match="make a new loader"):
        next(iter(follower))


def test_a_follower_without_a_leader_says_so(clients: Any, data: Path) -> None:
    follower = opened(clients[0], data).loader(replica=1, replicas=2, timeout=0.3)
    with pytest.raises(segue.ReplicaError, match="replica 0: no process has ever"):
        next(iter(follower))
    follower = opened(clients[0], data).loader(group="b", replica=1, replicas=2, timeout=0.3)
    with pytest.raises(segue.ReplicaError, match=r"lane 0 of stream 'train', group 'b' waits"):
        next(iter(follower))


def test_a_follower_that_waits_long_says_for_what(
    clients: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["segue.loader"], "_PATIENCE", 0.2)
    follower = opened(clients[0], data).loader(replica=1, replicas=2, timeout=0.7)
    with pytest.warns(UserWarning, match=r"waiting 0\.5 s more: .* waits for replica 0"):
        with pytest.raises(segue.ReplicaError, match="waits for replica 0"):
            next(iter(follower))


def ended(client: segue.Client) -> None:
    """Until nobody has lane 0."""
    while client.status()["streams"][0]["lanes"][0]["state"] != "free":
        time.sleep(0.01)


@pytest.mark.parametrize("end", ["dies", "closes", "lags"])
def test_a_follower_is_told_for_whom_it_waits(
    clients: Any, data: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.loader._GROUP_SILENCE", 0.3)
    follower = opened(clients[1], data).loader(replica=1, replicas=2, timeout=60)
    options: dict[str, Any] = {"dies": {"die": 3}, "closes": {"until": 3}, "lags": {"pause": 5}}[end]
    leader = Rank(Path(clients[0].dir), data, 0, 2, **options)
    pid = leader.process.pid
    says = {
        "dies": f"replica 1 of lane 0 of stream 'train' waits for replica 0: process {pid}, which "
        "had the lane last, has ended",
        "closes": f"replica 0: process {pid}, which had the lane last, has ",
        "lags": rf"lane 0 of stream 'train', at step 0, waits for replica 0 \(process {pid}\), which "
        "is at step 0",
    }[end]
    found = []
    for batch in follower:
        found.append(batch.step)
        if len(found) == {"dies": 4, "closes": 3, "lags": 1}[end]:
            break
    if end != "lags":
        leader.process.wait()
        ended(clients[0])
    follower._timeout = 0.8
    with pytest.warns(UserWarning, match=says), pytest.raises(segue.TimeoutError_, match="in time"):
        next(iter(follower))
    with warnings.catch_warnings(action="error"):  # it is said once
        with pytest.raises(segue.TimeoutError_):
            next(iter(follower))
    leader.kill()


def test_state_dict_of_a_follower_alone_says_what_to_do(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 3)
    leader._open[0].release()  # two are committed
    leader.close()
    with pytest.raises(segue.RoundError, match="in replica 0 alone, .* stands at step 2"):
        follower.state_dict()


def test_leader_and_follower_agree_on_how_many_there_are(clients: Any, data: Path) -> None:
    leader = opened(clients[0], data).loader(start="continue", replicas=3, timeout=0.2)
    leader.state_dict()
    follower = opened(clients[1], data).loader(replica=1, replicas=2, timeout=0.3)
    with pytest.raises(segue.ReplicaError, match="replicas=3.*replicas=2"):
        next(iter(follower))
    with pytest.raises(segue.TimeoutError_, match="replicas that have not come: 1, 2"):
        next(iter(leader))


def test_tokens_take_both_back(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 5)
    token: list[Any] = []
    thread = threading.Thread(target=lambda: token.append(follower.state_dict()))
    thread.start()
    mine = leader.state_dict()
    thread.join()
    assert token == [mine]
    after = together(leader, follower, 4)
    leader.load_state_dict(mine)
    follower.load_state_dict(mine)
    assert together(leader, follower, 4) == after


def looked(clients: Any, data: Path, start: str | None) -> tuple[Any, Any, dict[str, bytes]]:
    """Loaders over a store that stands at step 4, of which all have asked for a state dict first."""
    leader, follower = two(clients, data)
    together(leader, follower, 4)
    token = leader.state_dict()
    follower.close()
    leader.close()
    leader = opened(clients[0], data).loader(start=start, replicas=2, timeout=10)
    follower = opened(clients[1], data).loader(replica=1, replicas=2, timeout=10)
    with warnings.catch_warnings(action="ignore"):  # of what the first batch will drop
        assert leader.state_dict() == follower.state_dict() == leader.state_dict() == token
    return leader, follower, token


@pytest.mark.parametrize("start", [None, "fresh"])
def test_all_look_before_they_load(clients: Any, data: Path, start: str | None) -> None:
    """As torch.distributed.checkpoint does: who follows finds its leader there."""
    leader, follower, token = looked(clients, data, start)
    leader.load_state_dict(token)
    follower.load_state_dict(token)
    assert together(leader, follower, 2)[0][1] == 4


def test_a_look_is_not_a_start(clients: Any, data: Path) -> None:
    leader, follower, token = looked(clients, data, None)
    with pytest.raises(segue.StartError, match="step 4"):
        next(iter(leader))
    leader.close()
    follower.close()
    leader, follower, token = looked(clients, data, "fresh")
    assert together(leader, follower, 2)[0][1] == 0


def both(leader: segue.Loader, follower: segue.Loader, go: Any) -> tuple[list[Any], list[Any]]:
    """What `go(loader, found, leads)` adds to `found`, at the same time in both."""
    found: tuple[list[Any], list[Any]] = ([], [])
    leader._timeout = follower._timeout = 10.0
    thread = threading.Thread(target=go, args=(follower, found[1], False))
    thread.start()
    go(leader, found[0], True)
    thread.join()
    return found


@pytest.mark.parametrize("saves", [False, True])
def test_a_loop_that_all_leave_goes_on_alike(clients: Any, data: Path, saves: bool) -> None:
    """A look at the first batch, for its shapes: what comes then is for replica 0 to say."""

    def go(loader: segue.Loader, found: list[Any], leads: bool) -> None:
        for length in (1, 1, 4, 5):
            for count, batch in enumerate(loader, 1):
                found.append(seen(batch))
                if leads and (saves or count < length):
                    save(batch)
                if count == length:
                    break

    leader, follower = two(clients, data)
    with warnings.catch_warnings(action="ignore"):  # of a batch that was left
        found = both(leader, follower, go)
    assert found[0] == found[1]
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10] if saves else [0, 0, 0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert [one[1] for one in found[0]] == steps


def test_a_look_of_the_leader_alone_is_not_for_the_others(clients: Any, data: Path) -> None:
    def go(loader: segue.Loader, found: list[Any], leads: bool) -> None:
        if leads:
            next(iter(loader))
        for batch in loader:
            found.append(seen(batch))
            if leads:
                save(batch)
            if len(found) == 5:
                break

    leader, follower = two(clients, data)
    found = both(leader, follower, go)
    assert found[0] == found[1] and [one[1] for one in found[0]] == [0, 1, 2, 3, 4]


def test_a_follower_that_releases_its_batches_goes_on(clients: Any, data: Path) -> None:
    def go(loader: segue.Loader, found: list[Any], leads: bool) -> None:
        for batch in loader:
            found.append(seen(batch))
            if leads:
                save(batch)
                batch.commit()
            batch.release()
            if len(found) == 9:
                break

    leader, follower = two(clients, data)
    found = both(leader, follower, go)
    assert found[0] == found[1] and [one[1] for one in found[0]] == list(range(9))


def test_a_follower_with_a_token_waits_for_the_leader(clients: Any, data: Path) -> None:
    """It takes no more of what was there before, though the leader comes to the token later."""
    leader, follower = two(clients, data)
    together(leader, follower, 2)
    token = leader.state_dict()
    left, loaded = threading.Event(), threading.Event()

    def go(loader: segue.Loader, found: list[Any], leads: bool) -> None:
        for batch in loader:
            found.append(seen(batch))
            if leads:
                save(batch)
            if len(found) == (4 if leads else 3):
                break
        if leads:
            left.set()
            assert not loaded.wait(0.3)
        else:
            assert left.wait(10)
        loader.load_state_dict(token)
        for batch in loader:
            found.append(seen(batch))
            loaded.set()
            if leads:
                save(batch)
            if batch.step == 4:
                break

    with warnings.catch_warnings(action="ignore"):
        found = both(leader, follower, go)
    assert [one[1] for one in found[0]] == [2, 3, 4, 5, 2, 3, 4]
    assert found[1] == found[0][:3] + found[0][4:]


@pytest.mark.parametrize("loads", [False, True])
def test_a_new_follower_begins_with_what_the_leader_takes_next(
    clients: Any, data: Path, loads: bool
) -> None:
    """Not with what an older loader has left open, which comes again to the newer one of each."""
    older = two(clients, data)
    together(*older, 3)
    token = older[0].state_dict()
    steps = together(*older, 2)
    leader, follower = two(clients, data)
    follower._timeout = 0.5
    if loads:
        follower.load_state_dict(token)
    with pytest.raises(segue.TimeoutError_):
        next(iter(follower))
    follower._timeout = 30
    if loads:
        leader.load_state_dict(token)
    with warnings.catch_warnings(action="ignore"):  # of the batch that was left
        found = together(leader, follower, 4)
    assert found[0] == (steps[0] if loads else steps[-1])


@pytest.mark.parametrize("commits", [False, True])
def test_a_new_follower_goes_on_with_the_leader(
    clients: Any, data: Path, commits: bool
) -> None:
    """One that takes the place of another while a batch is open begins with what comes then."""
    leader, follower = two(clients, data)
    together(leader, follower, 3)
    follower.close()
    again = opened(clients[1], data).loader(replica=1, replicas=2, timeout=0.5)
    with pytest.raises(segue.TimeoutError_):
        next(iter(again))
    again._timeout = 30
    leader._open[0].commit() if commits else leader._open[0].release()
    with pytest.raises(segue.ReplicaError, match=f"replica 1, process {os.getpid()}.*was closed"):
        next(iter(leader))  # though another has taken its place
    assert together(leader, again, 3)[0][1] == (3 if commits else 2)


def test_a_follower_that_begins_late_misses_nothing(clients: Any, data: Path) -> None:
    """It has the lane, and has taken nothing yet, when the lease that it follows is over."""
    leader, follower = two(clients, data)
    thread = threading.Thread(target=follower.state_dict)
    thread.start()
    leader.state_dict()
    thread.join()
    seen_first = []
    for batch in leader:
        seen_first.append(seen(batch))
        save(batch)
        if batch.step == 1:
            batch.commit()
            break
    del batch
    leader.close()
    leader = opened(clients[0], data).loader(start="continue", replicas=2)

    def go(loader: segue.Loader, found: list[Any], leads: bool) -> None:
        for batch in loader:
            found.append(seen(batch))
            if leads:
                save(batch)
                batch.commit()
            if batch.step == 4:
                break

    found = both(leader, follower, go)
    assert found[1] == seen_first + found[0] and [one[1] for one in found[1]] == list(range(5))


def test_a_follower_of_a_leader_that_went_back_says_so(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data)
    together(leader, follower, 2)
    token = leader.state_dict()
    together(leader, follower, 5)
    leader.load_state_dict(token)
    with pytest.raises(segue.StaleIterator, match="replica 0"):
        next(iter(follower))
    follower.load_state_dict(token)
    assert together(leader, follower, 2)[0][1] == 2


def test_a_follower_that_dies_is_named(tmp_path: Path, data: Path) -> None:
    store = tmp_path / "store"
    with segue.open(store) as client:
        leader = opened(client, data).loader(start="continue", replicas=3, timeout=30)
        others = [Rank(store, data, 1, 3), Rank(store, data, 2, 3, die=4)]
        found = []
        with pytest.raises(segue.ReplicaError, match=rf"replica 2, process {others[1].process.pid}"):
            for batch in leader:
                found.append(seen(batch))
                save(batch)
                if len(found) == 5:
                    others[1].process.wait()
        before = len(found)
        again = Rank(store, data, 2, 3, until=20 - before)
        for batch in leader:
            found.append(seen(batch))
            save(batch)
            if len(found) == 20:
                break
        leader.close()
        assert others[0].wait() == found
        assert again.wait() == found[before:]


def test_a_leader_that_dies_is_followed_by_another(tmp_path: Path, data: Path) -> None:
    store = tmp_path / "store"
    expected = alone(tmp_path / "alone", data, 20)
    with segue.open(store):
        leader = Rank(store, data, 0, 2, die=8)
        follower = Rank(store, data, 1, 2)
        leader.process.wait()
        more = Rank(store, data, 0, 2, until=11)
        assert more.wait() == expected[8:19]
        # The batch that was open when the leader died comes again, to both.
        found = follower.wait()
        assert found[:9] + found[10:] == expected[:19] and found[9] == expected[8]


def test_followers_live_through_a_killed_server(tmp_path: Path, data: Path) -> None:
    store = tmp_path / "store"
    expected = alone(tmp_path / "alone", data, 30)
    ranks = [Rank(store, data, replica, 2, until=30, pause=0.02) for replica in (0, 1)]
    for rank in ranks:
        rank.until(6)
    with segue.open(store) as client:
        pid = server_pid(client)
    kill(pid)
    for rank in ranks:
        assert rank.wait() == expected


def test_another_batch_size_is_for_all(tmp_path: Path, data: Path) -> None:
    store = tmp_path / "store"
    with segue.open(store):
        ranks = [Rank(store, data, replica, 2, until=14, size=5) for replica in (0, 1)]
        found = [rank.wait() for rank in ranks]
    assert found[0] == found[1]
    assert [len(one[2]) for one in found[0]] == [3] * 6 + [2] * 8


def test_a_follower_cannot_write_what_it_reads(tmp_path: Path, data: Path) -> None:
    with segue.open(tmp_path / "store"):
        ranks = [
            Rank(tmp_path / "store", data, 0, 2, until=8),
            Rank(tmp_path / "store", data, 1, 2, until=8, attack="carry"),
        ]
        assert ranks[0].wait() == ranks[1].wait()


def test_who_writes_nonsense_harms_itself_alone(tmp_path: Path, data: Path) -> None:
    expected = alone(tmp_path / "alone", data, 20)
    with segue.open(tmp_path / "store") as client:
        leader = opened(client, data).loader(start="continue", replicas=3, timeout=30)
        other = Rank(tmp_path / "store", data, 1, 3)
        bad = Rank(tmp_path / "store", data, 2, 3, attack="page")
        found = []
        with pytest.raises(segue.ReplicaError, match=f"replica 2, process {bad.process.pid}.*wrote"):
            for batch in leader:
                found.append(json.loads(json.dumps(seen(batch))))
                save(batch)
        bad.kill()
        good = Rank(tmp_path / "store", data, 2, 3, until=20 - len(found))
        for batch in leader:
            found.append(json.loads(json.dumps(seen(batch))))
            save(batch)
            if len(found) == 20:
                break
        leader.close()
        assert found == expected == other.wait()
        assert good.wait() == expected[-len(good.lines) + 1 :]


def test_a_leader_that_waits_for_a_replica_keeps_its_lane(clients: Any, data: Path) -> None:
    """However short `lease_timeout` is: it has no batch."""
    leader, follower = two(clients, data, lease_timeout=1)
    together(leader, follower, 4)
    follower.close()
    with pytest.raises(segue.ReplicaError, match="was closed"):
        next(iter(leader))
    before = generation(clients[0], "")
    leader._timeout = 3.0
    with pytest.raises(segue.TimeoutError_, match="replicas that have not come: 1"):
        next(iter(leader))
    assert generation(clients[0], "") == before
    leader._timeout = None
    again = opened(clients[1], data, lease_timeout=1).loader(replica=1, replicas=2)
    together(leader, again, 4)
    assert generation(clients[0], "") == before


def test_a_replica_that_lags_is_named(clients: Any, data: Path) -> None:
    leader, follower = two(clients, data, depth=2)
    together(leader, follower, 2)
    leader._timeout = 2.5
    with pytest.warns(UserWarning, match=rf"waits for replica 1 \(process {os.getpid()},"):
        with pytest.raises(segue.TimeoutError_):
            for batch in leader:
                save(batch)


def test_values_of_variable_size_come_to_all(clients: Any, tmp_path: Path) -> None:
    path, features = tmp_path / "text.segue", {"text": Feature("bytes")}
    with segue.FileWriter(path, features) as writer:
        for record in range(12):
            writer.write({"text": [b"x" * (record * 97 + i) for i in range(1 + record % 5)]})
    found: list[list[Any]] = [[], []]

    def go_through(replica: int) -> None:
        stream = clients[replica].stream(
            "text",
            segue.Files(path),
            features,
            states={"n": segue.State("int64")},
            num_unroll=2,
            batch_size=2,
        )
        for batch in stream.loader(replica=replica, replicas=2):
            found[replica].append((batch.bytes("text").tolist(), batch.state("n").tolist()))
            if replica == 0:
                batch.save_state("n", batch.state("n") + 1)

    thread = threading.Thread(target=go_through, args=(1,))
    thread.start()
    go_through(0)
    thread.join()
    assert found[0] == found[1] and len(found[0]) > 8

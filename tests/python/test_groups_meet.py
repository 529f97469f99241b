"""Groups that begin together, are detached, and meet again: each sees what one alone would see."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from test_cli import Server
from test_groups import feeds, opened, take
from test_resume import Other, kill, processes, server_pid, wait_for  # noqa: F401

NAMES = ("a", "b", "c", "d")
SEED = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
Starter = Callable[..., Other]
ADD = {"a": 3, "b": 10, "c": 100}  # so much each group adds to its states
Whole = dict[tuple[int, int], tuple[Any, ...]]  # batches by lane and step


def seen(batch: segue.Batch, add: int) -> tuple[Any, ...]:
    """What must be the same in all groups."""
    h = batch.state("h")
    assert (h % add == 0).all()
    return (
        batch.key, batch.sequences["x"].tolist(), batch.length.tolist(), batch.is_first.tolist(),
        batch.insertion_index.tolist(), (h // add).tolist(),
    )  # fmt: skip


def work(batch: segue.Batch, add: int) -> None:
    batch.save_state("h", batch.state("h") + add * batch.length)
    batch.commit()


def alone(stream: segue.Stream) -> Whole:
    """What one group sees."""
    whole: Whole = {}
    with stream.loader(start="fresh") as loader:
        for batch in loader:
            whole[batch.lane, batch.step] = seen(batch, 1)
            work(batch, 1)
    return whole


def worker(
    pipe: Any, directory: Path, data: Path, group: str, options: dict[str, Any], start: str
) -> None:
    """Works until the step that it is told; says what it has seen. None: until the lane ends."""
    add = ADD.get(group, 7)
    with segue.open(directory) as client, opened(client, data, **options) as stream:
        with stream.loader(group=group, start=start) as loader:
            loader.state_dict()
            pipe.send("there")
            batches = iter(loader)
            while (until := pipe.recv()) != 0:
                step, pause, look = until
                if look:  # the server is asked, or the next one, where the group is
                    loader.state_dict()
                saw = []
                for batch in batches:
                    saw.append((batch.lane, batch.step, seen(batch, add)))
                    work(batch, add)
                    del batch
                    time.sleep(pause)
                    if saw[-1][1] + 1 == step:
                        break
                pipe.send(saw)


def begin(
    start: Starter, directory: Path, path: Path, options: dict[str, Any], names: tuple[str, ...]
) -> dict[str, Other]:
    return {
        name: start(worker, directory, path, name, options, "continue") for name in names
    }


def to(other: Other, step: int, pause: float = 0.0, look: bool = False) -> None:
    other.pipe.send((step, pause, look))


def check(other: Other, whole: Whole) -> int:
    """What it has seen is what one alone has seen. Returns the step that it stands at."""
    saw = other.receive()
    for lane, step, batch in saw:
        assert batch == whole[lane, step]
    return saw[-1][1] + 1 if saw else 0


def finish(others: dict[str, Other]) -> None:
    for other in others.values():
        other.pipe.send(0)
    for other in others.values():
        other.join()


def whole_of(client: segue.Client, path: Path, **options: Any) -> Whole:
    """In a stream of the same data."""
    with opened(client, path, "whole", **options) as stream:
        return alone(stream)


def go_on_until_one(
    client: segue.Client, others: dict[str, Other], whole: Whole, step: int
) -> None:
    """All at one speed, until they have one feed: one that came too late is not asked for 10 s."""
    for until in range(step + 15, 480, 15):
        for other in others.values():
            to(other, until, 0.04)
        assert {check(other, whole) for other in others.values()} == {until}
        if feeds(client) == 1:
            return
    raise AssertionError("they never share")


def test_declared_groups_begin_together(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    """Those who come first wait for the last, however late it is; all have one feed, to the end."""
    path, options = tmp_path / "a.segue", {"groups": 4, "depth": 2, "epochs": 20}
    whole = whole_of(client, path, depth=2, epochs=20)
    others = begin(processes, client.dir, path, options, NAMES[:3])
    time.sleep(1)
    assert not any(other.pipe.poll() for other in others.values())
    others |= begin(processes, client.dir, path, options, NAMES[3:])
    for other in others.values():
        assert other.receive() == "there"
    assert feeds(client) == 1
    last = max(step for _, step in whole) + 1
    for other in others.values():
        to(other, last)
    assert {check(other, whole) for other in others.values()} == {last}
    assert feeds(client) == 1
    finish(others)


def test_those_at_different_steps_share_after_the_server_is_killed(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    """Who is granted a lane first goes on at once, and rewrites nothing that the others need."""
    path, options = tmp_path / "a.segue", {"groups": 4, "depth": 4, "epochs": 40}
    whole = whole_of(client, path, depth=4, epochs=40)
    others = begin(processes, client.dir, path, options, NAMES)
    for other in others.values():
        assert other.receive() == "there"
    for round in range(4):
        at = 16 * round
        for number, other in enumerate(others.values()):
            to(other, at + 2 + number)
        for number, other in enumerate(others.values()):
            assert check(other, whole) == at + 2 + number
        kill(server_pid(client))
        for other in others.values():
            to(other, at + 16, look=True)
        assert [check(other, whole) for other in others.values()] == [at + 16] * 4
        assert feeds(client) == 1
    finish(others)


def test_who_comes_when_others_run_does_not_wait(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    path, options = tmp_path / "a.segue", {"groups": 2, "depth": 4, "epochs": 20}
    whole = whole_of(client, path, depth=4, epochs=20)
    others = begin(processes, client.dir, path, options, ("a", "b"))
    server = server_pid(client)
    for other in others.values():
        assert other.receive() == "there"
        to(other, 3)
        assert check(other, whole) == 3
    others["b"].process.kill()
    others["b"].process.join()
    others |= begin(processes, client.dir, path, options, ("b", "c"))
    assert others["b"].receive() == "there"
    assert others["c"].receive() == "there"
    assert feeds(client) == 2  # b is where a is, c begins
    for name in ("a", "b", "c"):  # c too: where it comes within reach the others wait for it
        to(others[name], 9)
    assert [check(others[name], whole) for name in ("a", "b", "c")] == [9, 9, 9]
    finish(others)
    assert server_pid(client) == server


def test_a_feed_goes_on_when_who_made_it_is_gone(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    path, options = tmp_path / "a.segue", {"depth": 3, "epochs": 20}
    whole = whole_of(client, path, **options)
    server, others = server_pid(client), {}
    for name in ("a", "b", "c"):
        others |= begin(processes, client.dir, path, options, (name,))
        assert others[name].receive() == "there"
    assert feeds(client) == 1
    others["a"].process.kill()
    others.pop("a").process.join()
    last = max(step for _, step in whole) + 1
    for other in others.values():
        to(other, last)
    assert {check(other, whole) for other in others.values()} == {last}
    finish(others)
    assert server_pid(client) == server


def test_who_renews_its_lease_keeps_its_place(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    """A loop leaves arrays behind, and the next one gets other memory; the other group goes on."""
    path, options = tmp_path / "a.segue", {"depth": 3, "epochs": 40}
    whole = whole_of(client, path, **options)
    others = begin(processes, client.dir, path, options, ("b",))
    assert others["b"].receive() == "there"
    with opened(client, path, **options) as stream, stream.loader(group="a") as loader:
        loader.state_dict()
        to(others["b"], 40)
        left = []
        for step in range(40):
            for batch in loader:
                assert batch.step == step
                assert seen(batch, ADD["a"]) == whole[0, step]
                work(batch, ADD["a"])
                if step % 4 == 0:
                    left.append(batch.sequences["x"])
                break
            assert of_group(client, "b")["step_committed"] <= step + 4, "it waits for this one"
        assert check(others["b"], whole) == 40
        assert feeds(client) == 1
        finish(others)


def test_an_error_says_which_groups_are_there(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    options = {"groups": 3, "groups_timeout": 1.5, "depth": 2}
    stream = opened(client, tmp_path / "a.segue", **options)
    other = begin(processes, client.dir, tmp_path / "a.segue", options, ("b",))["b"]
    wait_for(lambda: any(one["state"] == "granting" for one in lanes(client)), "b asks")
    begun = time.monotonic()
    with stream.loader() as loader, pytest.raises(TimeoutError) as info:
        loader.state_dict()
    assert 1 < time.monotonic() - begun < 10
    found = re.fullmatch(
        r"stream 'train', lane 0: (\d) of 3 groups have asked for it within 1.5 s: (.*)\. Start the "
        "others, .* fewer groups=, or a longer groups_timeout=",
        str(info.value),
    )
    assert found and "the one without a name" in found[2]
    assert {("1", "'b'" in found[2]), ("2", "'b'" in found[2])} & {("1", False), ("2", True)}
    other.process.join(10)
    assert other.process.exitcode == 1
    # Nothing has been changed: they may still begin.
    with opened(client, tmp_path / "a.segue") as plain, plain.loader() as loader:
        assert next(iter(loader)).step == 0


def lanes(client: segue.Client) -> list[dict[str, Any]]:
    """Of the groups, in status."""
    [stream] = [one for one in client.status()["streams"] if one["name"] == "train"]
    return list(stream["lanes"])


def of_group(client: segue.Client, name: str) -> dict[str, Any]:
    return next(one for one in lanes(client) if one.get("group_name") == name)


def test_a_slow_group_keeps_the_others_waiting_and_status_says_so(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    path, options = tmp_path / "a.segue", {"groups": 3, "depth": 2, "epochs": 20}
    whole = whole_of(client, path, depth=2, epochs=20)
    others = begin(processes, client.dir, path, options, NAMES[:3])
    for other in others.values():
        assert other.receive() == "there"
    for name in ("a", "c"):
        to(others[name], 9)
    wait_for(lambda: of_group(client, "a").get("waits_for_group") == "b", "a waits for b")
    wait_for(lambda: of_group(client, "c").get("waits_for_group") == "b", "c waits for b")
    time.sleep(0.3)
    assert of_group(client, "c")["waits_s"] >= 0.3
    assert "waits_for_group" not in of_group(client, "b")
    assert not others["a"].pipe.poll()
    to(others["b"], 9)
    assert [check(other, whole) for other in others.values()] == [9, 9, 9]
    assert all("waits_for_group" not in one for one in lanes(client))
    finish(others)


def test_others_go_on_without_a_slow_group_until_it_has_caught_up(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    path = tmp_path / "a.segue"
    options = {"groups": 4, "depth": 4, "epochs": 80, "max_lag": 0.5, "on_lag": "detach"}
    whole = whole_of(client, path, depth=4, epochs=80)
    others = begin(processes, client.dir, path, options, NAMES)
    fast = [others[name] for name in ("a", "c", "d")]
    for other in others.values():
        assert other.receive() == "there"
    for other in fast:
        to(other, 30)
    begun = time.monotonic()
    assert [check(other, whole) for other in fast] == [30] * 3
    assert 0.5 <= time.monotonic() - begun < 5
    assert feeds(client) == 2  # the three share one
    assert of_group(client, "b")["step_committed"] == 0
    # It catches up by itself, and then they go on together.
    to(others["b"], 30)
    assert check(others["b"], whole) == 30
    go_on_until_one(client, others, whole, 30)
    # Slow again, it is left behind again; alone it goes to the end.
    last = max(step for _, step in whole) + 1
    for other in fast:
        to(other, last)
    assert {check(other, whole) for other in fast} == {last}
    to(others["b"], last)
    assert check(others["b"], whole) == last
    finish(others)


def test_who_is_left_alone_goes_on_when_others_leave_late(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    """One that is asked to go on without it, and does so late, keeps no slot of its ring."""
    path = tmp_path / "a.segue"
    options = {"groups": 3, "depth": 4, "epochs": 80, "max_lag": 0.5, "on_lag": "detach"}
    whole = whole_of(client, path, depth=4, epochs=80)
    others = begin(processes, client.dir, path, options, NAMES[:3])
    for other in others.values():
        assert other.receive() == "there"
    to(others["c"], 2)  # its loader still has batch 1
    assert check(others["c"], whole) == 2
    to(others["a"], 30)
    assert check(others["a"], whole) == 30
    time.sleep(2)  # it is expected for a second
    for name in "c", "b":
        to(others[name], 30)
        assert check(others[name], whole) == 30
    finish(others)


@pytest.mark.parametrize("slow", ["b", "c"])
def test_of_two_slow_groups_the_slower_is_left_behind_too(
    client: segue.Client, tmp_path: Path, processes: Starter, slow: str
) -> None:
    """Whichever of them the server waits for, and hears of."""
    path = tmp_path / "a.segue"
    options = {"groups": 3, "depth": 4, "epochs": 80, "max_lag": 0.5, "on_lag": "detach"}
    whole = whole_of(client, path, depth=4, epochs=80)
    others = begin(processes, client.dir, path, options, NAMES[:3])
    for other in others.values():
        assert other.receive() == "there"
    for name, step in (slow, 1), ("a", 30), (slow, 30):
        to(others[name], step)
        assert check(others[name], whole) == step
    finish(others)


def test_without_memory_for_another_ring_they_wait(tmp_path: Path, processes: Starter) -> None:
    """And go on, all of them, when the slow one does."""
    path = tmp_path / "a.segue"
    options = {"groups": 3, "depth": 2, "epochs": 20, "num_unroll": 1 << 16}
    lag = {"max_lag": 0.3, "on_lag": "detach"}
    with Server(tmp_path / "store", "--max-memory", "5M") as server:
        with segue.open(tmp_path / "store") as client:
            whole = whole_of(client, path, **options | {"groups": None})
            others = begin(processes, client.dir, path, options | lag, NAMES[:3])
            for other in others.values():
                assert other.receive() == "there"
            held = []
            with pytest.raises(segue.LimitError, match="max-memory"):
                for number in range(8):
                    more = opened(client, path, f"more-{number}", **options | {"groups": None})
                    held.append(more.loader())
                    held[-1].state_dict()
            for name in ("a", "c"):
                to(others[name], 6)
            wait_for(lambda: of_group(client, "a").get("waits_s", 0) > 0.8, "it waits for long")
            assert feeds(client) == 1
            to(others["b"], 6)
            assert [check(other, whole) for other in others.values()] == [6, 6, 6]
            assert feeds(client) == 1
            finish(others)
            for loader in held:
                loader.close()
        server.process.terminate()
        said = server.process.communicate(timeout=30)[1]
        assert "group 'b' has kept others waiting for 0.3 s (max_lag): they wait, for" in said


def test_one_that_stands_still_is_passed(client: segue.Client, tmp_path: Path) -> None:
    """In one thread: where groups are not said to belong together, none comes to wait for another."""
    stream = opened(client, tmp_path / "a.segue", depth=4, epochs=80)
    with stream.loader(group="a") as still, stream.loader(group="b") as other:
        take(still, 5, 1)
        assert len(take(other, 40, 1)) == 40
        assert feeds(client) == 2


def test_groups_that_come_within_reach_share(
    client: segue.Client, tmp_path: Path, processes: Starter
) -> None:
    """Not declared, and begun one after the other, of a stream that does not wait for ever."""
    path, options = tmp_path / "a.segue", {"depth": 4, "epochs": 80}
    options |= {"max_lag": 30, "on_lag": "detach"}
    whole = whole_of(client, path, **options)
    others = begin(processes, client.dir, path, options, ("a",))
    assert others["a"].receive() == "there"
    to(others["a"], 20)
    assert check(others["a"], whole) == 20
    others |= begin(processes, client.dir, path, options, ("b",))
    assert others["b"].receive() == "there"
    assert feeds(client) == 2
    to(others["b"], 20)
    assert check(others["b"], whole) == 20
    go_on_until_one(client, others, whole, 20)
    finish(others)


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_group_that_was_asked_to_come_and_ends_holds_up_nobody(
    client: segue.Client, tmp_path: Path, processes: Starter, end: str
) -> None:
    """It comes within reach of another, which makes room for it, and takes no batch any more."""
    path, options = tmp_path / "a.segue", {"depth": 4, "epochs": 80}
    options |= {"max_lag": 30, "on_lag": "detach"}
    for count in range(10):  # whether it has been asked is not to be seen
        options["name"] = f"train {count}"
        stream = opened(client, path, **options)
        with stream, stream.loader(group="a", timeout=20) as loader:
            assert len(take(loader, 20, 1)) == 20
            other = processes(worker, client.dir, path, "b", options, "continue")
            assert other.receive() == "there"
            to(other, 20 + count % 2)
            assert other.receive()
            time.sleep(0.1 if end == "killed" or count % 4 > 1 else 0)
            if end == "closed":
                other.pipe.send(0)
                other.join()
            else:
                kill(other.pid)
            assert len(take(loader, 60, 1)) == 40


def wander(
    pipe: Any, directory: Path, data: Path, group: str, options: dict[str, Any], seed: int
) -> None:
    """To the end, with pauses of all lengths; every batch is what one alone has seen."""
    whole, rng, add = pipe.recv(), np.random.default_rng(seed), ADD[group]
    with segue.open(directory) as client, opened(client, data, **options) as stream:
        with stream.loader(group=group, start="continue") as loader:
            for batch in loader:
                assert seen(batch, add) == whole[batch.lane, batch.step]
                if rng.integers(8) == 0:
                    time.sleep(float(rng.choice([0.002, 0.02, 0.2])))
                work(batch, add)
                pipe.send(batch.step)


@pytest.mark.parametrize("groups", [3, None])
def test_kills_while_groups_part_and_meet(
    client: segue.Client, tmp_path: Path, processes: Starter, groups: int | None
) -> None:
    """Of servers and of workers, at any time: nobody sees another batch, or one twice."""
    print(f"SEGUE_TEST_SEED={SEED}")
    rng, path = np.random.default_rng(SEED), tmp_path / "a.segue"
    options = {"depth": 3, "epochs": 30, "durability": "commit", "groups": groups}
    lag = {"max_lag": 0.05, "on_lag": "detach", "groups_timeout": 2}
    whole = whole_of(client, path, depth=3, epochs=30)
    last = max(step for _, step in whole)
    at = dict.fromkeys(ADD, -1)
    others: dict[str, Other] = {}

    def start(name: str) -> None:
        seed = int(rng.integers(1 << 30))
        given = options | lag
        if max(at.values()) == last:  # one will not come any more
            given["groups"] = None
        others[name] = processes(wander, client.dir, path, name, given, seed)
        others[name].pipe.send(whole)

    for name in ADD:
        start(name)
    while min(at.values()) < last:
        for name, other in others.items():
            while other.pipe.poll(0.01):
                try:
                    step = other.pipe.recv()
                except (EOFError, ConnectionResetError):
                    break
                # A commit may be on disk of which a worker that was killed said nothing.
                assert step in (at[name] + 1, at[name] + 2)
                at[name] = step
        way, name = rng.integers(40), str(rng.choice(list(ADD)))
        if way == 0:
            kill(server_pid(client))
        elif way == 1 and at[name] < last:
            others[name].process.kill()
            others[name].process.join()
            while others[name].pipe.poll():
                try:
                    at[name] = others[name].pipe.recv()
                except (EOFError, ConnectionResetError):
                    break
            start(name)
        for name, other in others.items():
            assert other.process.exitcode in (None, 0), f"{name} at {at[name]}"
    for other in others.values():
        other.join()

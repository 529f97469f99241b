"""Groups of a stream that are dropped: all of a group goes, and the others do not notice."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Push
from test_cli import FINE, WRONG, environment, fails, program, report, run, until
from test_drop import held, lose_server, values
from test_groups import feeds, opened, take
from test_log import insert_numbers, open_plain
from test_log_kept import ALL, files, fill, known, numbers, open_large, soon
from test_resume import kill, refused, server_pid


def used(stream: segue.Stream, group: str | None, until: int = 9, add: int = 1) -> None:
    """With positions, states that go on and final ones, undo entries and checkpoints."""
    with stream.loader(group=group, start="fresh") as loader:
        take(loader, until - 1, add)
        loader.state_dict()
        take(loader, until, add)


def groups(client: segue.Client) -> dict[str, int]:
    (one,) = client.inspect("train")["streams"]
    return {group["group_name"]: group["group"] for group in one["groups"]}


def lanes(client: segue.Client) -> set[str | None]:
    """The groups that have begun a lane."""
    return {lane.get("group_name") for lane in client.inspect("train")["streams"][0]["lanes"]}


def test_nothing_is_left_of_it(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", lanes=2)
    used(stream, None)
    used(stream, "c")
    before = values(client)
    used(stream, "b", add=10)
    key = next(iter(client.states(stream, group="b").items()))[0]
    assert client.states(stream, group="b").get(key) and stream.checkpoints("b")
    assert values(client) > before + 5
    client.drop("train", group="b")
    assert values(client) == before
    assert groups(client) == {"c": 1} and lanes(client) == {None, "c"}
    assert {hit.get("group_name") for hit in client.get(key)["found"]} == {None, "c"}
    for call in (
        lambda: client.drop("train", group="b"),
        lambda: list(client.states(stream, group="b").items()),
    ):
        with refused(segue.NotFoundError, "stream 'train' has no group 'b'"):
            call()
    assert stream.checkpoints("b") == []
    for lane in client.status()["streams"][0]["lanes"]:
        assert lane.get("group_name") != "b"


@pytest.mark.parametrize("restart", [False, True])
def test_the_next_of_its_name_is_new(directory: Path, tmp_path: Path, restart: bool) -> None:
    with segue.open(directory) as client:
        stream = opened(client, tmp_path / "a.segue")
        early = stream.loader(group="b")  # made before it is dropped, and begun after
        used(stream, "b")
        client.drop("train", group="b")
        if not restart:
            batch = next(iter(early))  # start=None: there is no position
            assert batch.step == 0 and batch.is_first.all() and not batch.state("h").any()
            early.close()
            assert groups(client) == {"b": 2}
        pid = server_pid(client)
    until(lambda: not Path(f"/proc/{pid}").exists())
    with segue.open(directory) as client:
        used(opened(client, tmp_path / "a.segue"), "c")
        assert groups(client) == ({"c": 2} if restart else {"b": 2, "c": 3})


def test_a_token_of_before_fits(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue")
    with stream.loader(group="b", start="fresh") as loader:
        take(loader, 6, 1)
        state = loader.state_dict()
        expected = take(loader, 12, 1)
    client.drop("train", group="b")
    with stream.loader(group="b") as loader:
        loader.load_state_dict(state)
        assert take(loader, 12, 1) == expected


def test_the_others_do_not_notice(client: segue.Client, tmp_path: Path) -> None:
    """They train in threads of their own while groups are used and dropped, again and again."""
    path = tmp_path / "a.segue"
    whole = take(opened(client, path, "other", epochs=60).loader(start="fresh"), 130, 7)
    stream = opened(client, path, epochs=60)
    came: dict[str, Any] = {}

    def train(group: str) -> None:
        with segue.open(client.dir) as own:
            steps = range(10, 131, 10)
            mine = opened(own, path, epochs=60)
            came[group] = []
            for step in steps:  # it gives its lane back, and takes it again, all the time
                with mine.loader(group=group, start="continue", timeout=60) as loader:
                    came[group] += take(loader, step, 7)
                time.sleep(0.01)

    threads = [threading.Thread(target=train, args=(name,), daemon=True) for name in "ac"]
    for thread in threads:
        thread.start()
    dropped = 0
    while any(thread.is_alive() for thread in threads) or not dropped:
        used(stream, "b", 5)
        client.drop("train", group="b")
        dropped += 1
    assert came == {"a": whole, "c": whole}
    assert set(groups(client)) == {"a", "c"}
    print(f"dropped {dropped} times")


# ---- While somebody has it ----


def test_not_while_a_lane_is_held(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", lanes=2)
    loader = stream.loader(group="b", lanes=[1], start="fresh")
    take(loader, 2, 1)
    says = ["group 'b' of stream 'train'", "lane 1", str(os.getpid()), "loader"]
    with refused(segue.BusyError, *says):
        client.drop("train", group="b")
    with segue.open(client.dir) as other, refused(segue.BusyError, *says):
        other.drop("train", group="b")
    used(stream, "c")
    client.drop("train", group="c")  # nobody has a lane of that
    assert take(loader, 4, 1)[-1][1]
    loader.close()
    client.drop("train", group="b")
    assert groups(client) == {}


WORKER = """
import sys, pathlib, segue
from test_groups import opened, take
client = segue.open(sys.argv[1])
stream = opened(client, pathlib.Path(sys.argv[2]))
loader = stream.loader(group="b", start="fresh")
take(loader, 3, 1)
print("ready", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def worker(client: segue.Client, path: Path) -> Iterator[int]:
    """A process that has a lane of group b; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(client.dir), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
    )
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_one_whose_lanes_move(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", lanes=2)
    with stream.loader(group="b", lanes="any") as loader:
        begun = take(loader, 3, 1)
        with refused(segue.BusyError, "group 'b'"):
            client.drop("train", group="b")
    client.drop("train", group="b")
    with stream.loader(group="b", lanes="any") as loader:
        assert take(loader, 3, 1)[:2] == begun[:2]


def test_not_while_another_process_has_it(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.segue"
    client = segue.open(directory)
    opened(client, path).close()
    with worker(client, path) as pid:
        with refused(segue.BusyError, "group 'b'", "lane 0", "held", f"process {pid}"):
            client.drop("train", group="b")
        lose_server(client)  # and its worker may come back to the next
        said = fails(WRONG, "stream", "rm", directory, "train", "--group", "b", "--yes")
        assert "group 'b'" in said and "reserved" in said and f"process {pid}" in said
        # A server that has not opened the stream, and one that has.
        with refused(segue.BusyError, "group 'b'", "reserved", f"process {pid}"):
            client.drop("train", group="b")
        with opened(client, path):
            with refused(segue.BusyError, "group 'b'", "reserved", f"process {pid}"):
                client.drop("train", group="b")
    client.drop("train", group="b")  # it has ended
    client.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_not_while_this_process_may_come_back_to_it(
    directory: Path, tmp_path: Path, is_open: bool
) -> None:
    """Its loader does not know yet that the server was lost; what it has committed is not."""
    path = tmp_path / "a.segue"
    with segue.open(directory) as client:
        with opened(client, path, "other").loader(start="fresh") as loader:
            whole = take(loader, 5, 1)
        loader = opened(client, path).loader(group="b", start="fresh")
        came = take(loader, 3, 1)
        lose_server(client)
        with segue.open(directory) as other:
            if is_open:
                opened(other, path)
            for one in (other, client):
                with refused(segue.BusyError, "group 'b'", "lane 0", str(os.getpid()), "close"):
                    one.drop("train", group="b")
        assert came + take(loader, 5, 1) == whole
        lose_server(client)
        loader.close()
        client.drop("train", group="b")
        assert groups(client) == {}


def test_a_loader_that_had_lost_its_lane_is_told(client: segue.Client, tmp_path: Path) -> None:
    """It has the number of a group that is not there: it gets nothing, and no other group's lane."""
    stream = opened(client, tmp_path / "a.segue", lease_timeout=0.2)
    loader = stream.loader(group="b", start="fresh", timeout=20)
    take(loader, 2, 1)
    state = loader.state_dict()
    iterator = iter(loader)
    batch = next(iterator)
    until(lambda: client.status()["streams"][0]["lanes"][0]["state"] == "free")
    client.drop("train", group="b")
    used(stream, "c")
    batch.release()
    for call in (lambda: next(iterator), lambda: loader.load_state_dict(state)):
        with refused(segue.NotFoundError, "lane 0", "dropped since", "make a new loader"):
            call()
    assert groups(client) == {"c": 2}
    loader.close()
    with stream.loader(group="b") as new:
        new.load_state_dict(state)
        assert next(iter(new)).step == 2


def test_random_loaders_and_drops(client: segue.Client, tmp_path: Path) -> None:
    """Several threads use and drop the same groups: in the end nothing is left of any."""
    seed = int(os.environ.get("SEGUE_TEST_SEED", "7"))
    print(f"SEGUE_TEST_SEED={seed}")
    path, end, names = tmp_path / "a.segue", time.monotonic() + 3, "xyz"
    options = {"lanes": 2, "epochs": 1000, "keep_final": False}
    with opened(client, path, **options) as stream:
        used(stream, None)
        used(stream, "x")
        client.drop("train", group="x")
    before = values(client)
    unsaid: list[segue.Error] = []
    done = {"used": 0, "dropped": 0}

    def go(rng: np.random.Generator) -> None:
        with segue.open(client.dir) as own:
            mine = opened(own, path, **options)
            while time.monotonic() < end:
                name = names[rng.integers(3)]
                start = ["continue", "fresh"][rng.integers(2)]
                try:
                    if rng.random() < 0.5:
                        own.drop("train", group=name)
                        done["dropped"] += 1
                        continue
                    lane = [int(rng.integers(2))]
                    with mine.loader(group=name, lanes=lane, start=start, timeout=5) as loader:
                        for _ in range(int(rng.integers(1, 5))):
                            batch = next(iter(loader))
                            batch.save_state("h", batch.state("h") + 1)
                            batch.commit()
                    done["used"] += 1
                except (segue.BusyError, segue.NotFoundError):
                    pass  # another has it, or has dropped it
                except (segue.FencedError, segue.ClosedError):
                    pass  # a newer loader of this process has taken the lane
                except segue.Error as error:
                    unsaid.append(error)

    seeds = np.random.SeedSequence(seed).spawn(4)
    threads = [threading.Thread(target=go, args=(np.random.default_rng(s),)) for s in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in groups(client):
        client.drop("train", group=name)
    assert not unsaid and min(done.values()) > 3, (unsaid, done)
    assert values(client) == before and lanes(client) == {None}
    print(done)


def test_the_group_without_a_name_stays(client: segue.Client, tmp_path: Path) -> None:
    with opened(client, tmp_path / "a.segue") as stream:
        used(stream, "b")
    with refused(segue.ArgumentError, "every stream's", "drop the stream"):
        client.drop("train", group="")
    with pytest.raises(TypeError, match="group: expected str, got bytes"):
        client.drop("train", group=b"b")  # type: ignore[arg-type]
    for wrong in ("a:b", "x" * 256, "a\0b"):
        with refused(segue.ArgumentError, "group"):
            client.drop("train", group=wrong)
    with refused(segue.NotFoundError, "'none'"):
        client.drop("none", group="b")
    with refused(segue.NotFoundError, "stream 'train' has no group 'none'"):
        client.drop("train", group="none")
    assert groups(client) == {"b": 1}


# ---- Room ----


def test_one_that_is_dropped_makes_room(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue")
    for number in range(64):
        with stream.loader(group=f"g{number}", start="fresh") as loader:
            loader.state_dict()
    with refused(segue.LimitError, "64 already", "drop one"):
        stream.loader(group="more", start="fresh").state_dict()
    client.drop("train", group="g17")
    with stream.loader(group="more", start="fresh") as loader:
        loader.state_dict()
    assert len(groups(client)) == 64 and groups(client)["more"] == 65
    with refused(segue.LimitError, "64 already"):
        stream.loader(group="g17", start="fresh").state_dict()


def test_its_tables_are_paid_for(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place for each lane: who makes a group pays, and after a restart who opens the stream."""
    monkeypatch.setenv("SEGUE_MAX_MEMORY", "12M")
    options = {"lanes": 4096, "epochs": 4096}

    def taken(client: segue.Client) -> int:
        return int(client.status()["users"][0]["ring_bytes"])

    with segue.open(directory) as client:
        stream = opened(client, tmp_path / "a.segue", **options)
        alone = taken(client)
        with refused(segue.LimitError, "lanes and indexes of uid", "--max-memory"):
            for number in range(64):
                with stream.loader(group=f"g{number}", lanes=[0], start="fresh") as loader:
                    loader.state_dict()
        assert number > 1
        until(lambda: taken(client) == alone + number * ((taken(client) - alone) // number))
        one = (taken(client) - alone) // number
        assert one > 4096 * 100
        client.drop("train", group="g0")
        assert taken(client) == alone + (number - 1) * one
        stream.loader(group="g0", lanes=[0], start="fresh").close()
        pid = server_pid(client)
    until(lambda: not Path(f"/proc/{pid}").exists())
    with segue.open(directory) as client:
        with opened(client, tmp_path / "a.segue", **options):
            assert taken(client) == alone + (number - 1) * one
        until(lambda: taken(client) == 0)
    until(lambda: not held(directory))
    monkeypatch.setenv("SEGUE_MAX_MEMORY", str(alone + one))
    with segue.open(directory) as client:
        with refused(segue.LimitError, "lanes and indexes of uid"):
            opened(client, tmp_path / "a.segue", **options)
        until(lambda: taken(client) == 0)
        for number in range(1, number):  # noqa: B020
            client.drop("train", group=f"g{number}")
        opened(client, tmp_path / "a.segue", **options).close()


# ---- A log ----


def test_inserting_waits_for_it_no_longer(client: segue.Client) -> None:
    stream = open_plain(client, Push(capacity=12), batch_size=1)
    with stream.loader(group="slow", timeout=60) as slow:
        slow.state_dict()  # so it is made
    with stream.producer("a", ring_bytes=1 << 16) as producer, stream.loader(group="b") as b:
        insert_numbers(producer, 12)
        assert numbers(b, 12) == list(range(12))
        with refused(segue.TimeoutError_, "group 'slow' is furthest behind"):
            insert_numbers(producer, 1)
            producer.flush(0.3)
        client.drop("live", group="slow")
        producer.flush(20)
        assert numbers(b, 1) == [12]
        assert feeds(client, "live") == 1
        for number in range(13, 40):
            insert_numbers(producer, 1)
            assert numbers(b, 1) == [number]


@pytest.mark.parametrize("by", ["client", "command", "nobody"])
def test_a_log_that_it_held_back_is_freed(tmp_path: Path, by: str) -> None:
    directory = tmp_path / "run"
    with segue.open(directory) as client:
        stream = open_large(client, ALL)
        fill(stream, 20)
        with stream.loader(group="c", timeout=60) as c:
            assert numbers(c, 1) == [0]
        with stream.loader(group="b", timeout=60) as b:
            assert numbers(b, 12) == list(range(12))
            b.flush()
        time.sleep(0.2)
        assert files(client)[0] == known(client)["first"] == 0
        if by == "client":
            client.drop("live", group="c")
        elif by == "command":
            report("stream", "rm", directory, "live", "--group", "c", "--yes")
        else:
            stream.close()
        if by != "nobody":
            soon(lambda: files(client)[0] == known(client)["first"] > 3)
            assert known(client)["first"] <= 12
    if by == "nobody":  # no server: the next one frees it
        until(lambda: not held(directory))
        report("stream", "rm", directory, "live", "--group", "c", "--yes")
        with segue.open(directory) as client, open_large(client, ALL):
            soon(lambda: files(client)[0] == known(client)["first"] > 3)
            assert known(client)["first"] <= 12
    with segue.open(directory) as client, open_large(client, ALL) as stream:
        with stream.loader(group="b", start="continue", timeout=60) as b:
            assert numbers(b, 3) == [12, 13, 14]
        with refused(segue.StartError, "'c' would begin with sequence 0"):
            next(iter(stream.loader(group="c", timeout=60)))


# ---- Killed ----


def test_killed_at_any_time(tmp_path: Path) -> None:
    """The group is whole, or it is gone; what was left of it goes at the next start."""
    seed = int(os.environ.get("SEGUE_TEST_SEED", "7"))
    print(f"SEGUE_TEST_SEED={seed}")
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.segue"
    whole = gone = 0
    for number in range(10):
        directory = tmp_path / f"store{number}"
        with segue.open(directory) as client:
            with opened(client, path) as stream:
                used(stream, None)
                used(stream, "b")
                client.drop("train", group="b")
                alone = values(client)
                used(stream, "b")
            pid = server_pid(client)
            timer = threading.Timer(float(rng.uniform(0, 0.02)), kill, [pid])
            timer.start()
            client.drop("train", group="b")  # by the next server, if this one did not come to it
            timer.join()
            assert groups(client) == {} and lanes(client) == {None}
            gone += 1
        until(lambda directory=directory: not held(directory))
        # Of a killed one: by the program, with nobody to do it a second time.
        with segue.open(directory) as client, opened(client, path) as stream:
            assert values(client) == alone
            used(stream, "b")
        until(lambda directory=directory: not held(directory))
        remove = subprocess.Popen(
            [program(), "stream", "rm", str(directory), "train", "--group", "b", "--yes"],
            env=environment(),
        )
        try:
            remove.wait(float(rng.uniform(0.0005, 0.02)))
        except subprocess.TimeoutExpired:
            remove.kill()
            remove.wait()
        with segue.open(directory) as client, opened(client, path) as stream:
            if "b" in groups(client):
                whole += 1
                assert stream.checkpoints("b") and lanes(client) == {None, "b"}
                with stream.loader(group="b", start="continue") as loader:
                    assert next(iter(loader)).step == 9
                client.drop("train", group="b")
            assert values(client) == alone
            with stream.loader(start="continue") as loader:
                assert next(iter(loader)).step == 9
    print(f"killed: {whole} whole, {gone} gone")


# ---- The command ----


@pytest.mark.parametrize("served", [True, False])
def test_the_command(directory: Path, tmp_path: Path, served: bool) -> None:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(segue.open(directory))
        with opened(client, tmp_path / "a.segue", lanes=2) as stream:
            used(stream, None, 5)
            for name in ("b", "c"):
                used(stream, name)
        if not served:
            stack.close()
            until(lambda: not held(directory))
        for name, says in (("none", "no group 'none'"), ("", "drop the stream")):
            said = fails(WRONG, "stream", "rm", directory, "train", "--group", name, "--yes")
            assert says in said
        said = fails(WRONG, "stream", "rm", directory, "train", "--group", "b")
        assert "--yes" in said and "group 'b' of stream 'train'" in said
        gone = report("stream", "rm", directory, "train", "--group", "b", "--yes")
        assert gone["dropped"] == "train" and gone["group_name"] == "b"
        assert (gone["lanes"], gone["step"]) == (2, 9) and gone["checkpoints"] > 0
        result = run("stream", "rm", directory, "train", "--group", "c", "--yes")
        assert (result.returncode, result.stdout, result.stderr) == (FINE, "", "")
    (one,) = report("inspect", directory)["streams"]
    assert one["groups"] == [] and {lane["group"] for lane in one["lanes"]} == {0}
    assert run("verify", directory).returncode == FINE


@pytest.mark.parametrize(("answer", "status"), [("y\n", FINE), ("n\n", WRONG)])
def test_it_asks(client: segue.Client, tmp_path: Path, answer: str, status: int) -> None:
    with opened(client, tmp_path / "a.segue", lanes=2) as stream:
        used(stream, None)
        used(stream, "b")
    ours, theirs = pty.openpty()
    remove = subprocess.Popen(
        [program(), "stream", "rm", str(client.dir), "train", "--group", "b"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
    )
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    assert "Drop group 'b' of stream 'train'" in said and "2 lanes" in said and "[y/N]" in said
    os.write(ours, answer.encode())
    assert remove.wait(20) == status
    os.close(ours)
    assert set(groups(client)) == (set() if status == FINE else {"b"})

"""Checkpoints in the store, and final states that go back with them.

What the store should hold is kept beside it, in plain dicts: of each lane the final states of all
sequences that have ended on its way, by the step at which they ended, and the checkpoints taken on
it. Which sequences end where says the plain model of the stream. The states that are saved differ
from life to life, so that none of an abandoned one can pass for one of now.

SEGUE_TEST_SEED gives the same histories again, SEGUE_TEST_CHECKPOINTS is how many there are.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import mmap
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import oracle
import peer
import segue
from test_resume import kill, refused, server_pid, simple

F_SEAL_FUTURE_WRITE = 16  # Python has no name for it
LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5, 2, 2, 6)


@dataclasses.dataclass
class Version:
    step: int
    key: str
    value: float


@dataclasses.dataclass
class Lane:
    """What a lane's past is, and what the store should hold of it."""

    batches: list[oracle.Batch]
    step: int = 0
    live: dict[int, float] = dataclasses.field(default_factory=dict)  # by sequence number
    finals: dict[int, Version] = dataclasses.field(default_factory=dict)
    stored: dict[int, tuple[int, bytes]] = dataclasses.field(default_factory=dict)  # by step
    next_id: int = 1

    def floor(self) -> float:
        return min(self.stored, default=float("inf"))

    def checkpoint(self, token: bytes, keep: int) -> None:
        if self.step in self.stored and self.stored[self.step][1] == token:
            return
        self.stored[self.step] = (self.next_id, token)
        self.next_id += 1
        for step, _ in sorted(self.stored.items(), key=lambda item: item[1][0])[:-keep]:
            del self.stored[step]

    def restore(self, step: int, live: dict[int, float]) -> None:
        self.finals = {n: v for n, v in self.finals.items() if v.step < step}
        self.stored = {at: one for at, one in self.stored.items() if at <= step}
        self.step, self.live = step, dict(live)


class History:
    """One store, its worker, and the dicts beside it."""

    def __init__(self, rng: np.random.Generator, directory: Path) -> None:
        self.rng, self.directory = rng, directory
        lanes = int(rng.integers(1, 4))
        self.keep = int(rng.integers(1, 4))
        self.case = self.simple(
            directory,
            lanes=lanes,
            batch_size=int(rng.integers(1, 4)),
            epochs=None,
            shuffle=bool(rng.integers(4)),
            seed=int(rng.integers(2**32)),
            epoch_end=str(rng.choice(["continue", "drain"])),
            states={"h": oracle.State("float64", (2,), -1.0)},
            keep_final=True,
            durability="commit",
            depth=int(rng.integers(2, 5)),
        )
        plain = oracle.Model([file.records for file in self.case.files], self.case.spec)
        self.lanes = [Lane(list(islice(plain.batches(lane), 120))) for lane in range(lanes)]
        self.life = 0.0
        self.tokens: list[tuple[int, int, bytes, dict[int, float]]] = []
        self.log: list[str] = []
        self.open("fresh")

    def simple(self, directory: Path, lanes: int, **fields: Any) -> cases.Case:
        lengths = LENGTHS[: int(self.rng.integers(4, len(LENGTHS)))]
        return simple(directory, lengths, lanes=lanes, **fields)

    def open(self, start: str) -> None:
        self.client = segue.open(self.directory / "store")
        self.stream = cases.open_stream(
            self.client, self.case, self.directory, keep_checkpoints=self.keep
        )
        self.loaders = [
            self.stream.loader(lanes=[lane], start=start) for lane in range(len(self.lanes))
        ]
        self.batches = [iter(loader) for loader in self.loaders]

    def close(self) -> None:
        for loader in self.loaders:
            loader.close()
        self.client.close()

    # -- what happens --------------------------------------------------------------------------

    def run(self, lane: int) -> None:
        model = self.lanes[lane]
        for _ in range(int(self.rng.integers(1, 12))):
            if model.step >= len(model.batches):
                return
            self.one(lane, model, model.batches[model.step])

    def one(self, lane: int, model: Lane, want: oracle.Batch) -> None:
        batch = next(self.batches[lane])
        assert (batch.lane, batch.step, batch.key) == (lane, want.step, want.key)
        for row, number in enumerate(want.insertion_index):
            first = -1.0 if want.is_first[row] else model.live[number]
            assert batch.state("h")[row].tolist() == [first, first], f"state in of {number}"
        values = [
            self.life + want.step + number / 1e4 for number in want.insertion_index
        ]
        batch.save_state("h", np.array([[value, value] for value in values]))
        batch.commit()
        model.step += 1
        for row, number in enumerate(want.insertion_index):
            model.live[number] = values[row]
            if want.is_last[row]:
                key = want.key[row].decode().partition(":")[2]
                model.finals[number] = Version(want.step, key, model.live.pop(number))

    def checkpoint(self, lane: int) -> None:
        model = self.lanes[lane]
        token = self.loaders[lane].state_dict()[f"lane/{lane}"]
        model.checkpoint(token, self.keep)
        self.tokens.append((lane, model.step, token, dict(model.live)))

    def restore(self, lane: int) -> None:
        """Not further back than the oldest stored one, behind which final states stay."""
        model = self.lanes[lane]
        floor = model.floor()
        known = [t for t in self.tokens if t[0] == lane and floor <= t[1] <= model.step]
        if not known:
            return
        _, step, token, live = known[int(self.rng.integers(len(known)))]
        self.log.append(f"  to step {step}")
        self.loaders[lane].load_state_dict({f"lane/{lane}": token})
        self.batches[lane] = iter(self.loaders[lane])
        model.restore(step, live)
        self.life += 1000

    def kill_server(self, lane: int) -> None:
        kill(server_pid(self.client))

    def kill_all(self, lane: int) -> None:
        kill(server_pid(self.client))
        self.client.close()  # everything is on disk: it does not start another
        self.open("continue")

    def fresh(self, lane: int) -> None:
        self.close()
        self.open("fresh")
        for i, model in enumerate(self.lanes):
            self.lanes[i] = Lane(model.batches, next_id=model.next_id)
            next(self.batches[i]).release()  # begins
            self.checkpoint(i)
        self.life += 1000

    # -- what the store should hold -------------------------------------------------------------

    def compare(self) -> None:
        stored = [(c["lane"], c["step"], c["id"]) for c in self.stream.checkpoints()]
        wanted = [
            (lane, step, id)
            for lane, model in enumerate(self.lanes)
            for step, (id, _) in sorted(model.stored.items())
        ]
        assert stored == wanted
        current: dict[str, tuple[int, int, float]] = {}
        for lane, model in enumerate(self.lanes):
            for number, version in model.finals.items():
                if number >= current.get(version.key, (-1,))[0]:
                    current[version.key] = (number, lane, version.value)
        for record in self.case.files[0].records:
            assert self.final(record.key) == current.get(record.key), record.key

    def final(self, key: str) -> tuple[int, int, float] | None:
        try:
            found = self.client.get(key, self.stream.name)["found"]
        except segue.NotFoundError:
            return None
        finals = [hit for hit in found if hit["kind"] == "final"]
        if not finals:
            return None
        [hit] = finals
        value, again = hit["states"]["h"]["values"]
        assert value == again
        return hit["number"], hit["lane"], value

    def ways(self) -> list[Callable[[int], None]]:
        ways = [self.run] * 8 + [self.checkpoint] * 4 + [self.restore] * 3
        return ways + [self.kill_server, self.kill_all] + [self.fresh] * int(self.rng.integers(2))

    def play(self, acts: int) -> None:
        ways = self.ways()
        for _ in range(acts):
            act = ways[int(self.rng.integers(len(ways)))]
            lane = int(self.rng.integers(len(self.lanes)))
            self.log.append(f"{act.__name__}({lane}) at {self.lanes[lane].step}")
            act(lane)
            self.compare()


def play(kind: type[History], tmp_path: Path, counter: str, usual: int) -> None:
    """Play so many histories as the environment says."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get(counter) or usual)
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed} {counter}={count}")
    for number in [int(only)] if only else range(count):
        directory = tmp_path / str(number)
        directory.mkdir()
        history = kind(np.random.default_rng([seed, number]), directory)
        try:
            history.play(40)
        except BaseException as error:
            error.add_note(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_CASE={number}")
            error.add_note("\n".join(history.log))
            raise
        history.close()


def test_final_states_go_back_with_their_lane(tmp_path: Path) -> None:
    play(History, tmp_path, "SEGUE_TEST_CHECKPOINTS", 12)


# -- one by one ------------------------------------------------------------------------------------


def work(stream: segue.Stream, case: cases.Case, count: int, **how: Any) -> dict[str, bytes]:
    """Batches of all lanes; returns the tokens after the last."""
    with stream.loader(**how) as loader:
        batches = iter(loader)
        for _ in range(count):
            cases.work(next(batches), case)
        return loader.state_dict()


def finals(client: segue.Client, case: cases.Case) -> dict[str, Any]:
    found = {}
    for record in case.files[0].records:
        try:
            hits = client.get(record.key, case.name)["found"]
        except segue.NotFoundError:
            continue
        found[record.key] = [hit for hit in hits if hit["kind"] == "final"]
    return found


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    program = os.environ.get("SEGUE_PROGRAM") or segue._program.bundled() or "segue"
    command = [os.fsdecode(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def listed(*arguments: Any) -> list[dict[str, Any]]:
    result = run("checkpoint", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout)["checkpoints"])


def test_the_newest_are_kept(tmp_path: Path) -> None:
    case = simple(tmp_path)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path, keep_checkpoints=2)
        tokens = [work(stream, case, 4, start="fresh" if i == 0 else "continue") for i in range(4)]
        stored = stream.checkpoints()
        assert [(c["lane"], c["step"], c["id"]) for c in stored] == [
            (lane, step, id) for lane in (0, 1) for step, id in ((6, 3), (8, 4))
        ]
        assert [c["bytes"] for c in stored if c["step"] == 8] == [
            len(tokens[3]["lane/0"]), len(tokens[3]["lane/1"])
        ]  # fmt: skip
        assert stream.checkpoint() == tokens[3]
        assert stream.checkpoint(6) == tokens[2]
        assert stream.checkpoint(8, [1]) == {"lane/1": tokens[3]["lane/1"]}
        with refused(segue.NotFoundError, "lanes [0, 1] at step 4"):
            stream.checkpoint(4)
        work(stream, case, 1, lanes=[0], start="continue")
        assert stream.checkpoint() == tokens[3], "the newest that both lanes have"
        again = [c["id"] for c in stream.checkpoints() if c["lane"] == 0]
        # The same place once more is the same checkpoint.
        with stream.loader(lanes=[0], start="continue") as loader:
            assert loader.state_dict() == loader.get_state()
        assert [c["id"] for c in stream.checkpoints() if c["lane"] == 0] == again
        # Fewer from now on.
        other = cases.open_stream(client, case, tmp_path, keep_checkpoints=1)
        work(other, case, 1, lanes=[0], start="continue")
        assert len([c for c in stream.checkpoints() if c["lane"] == 0]) == 1


@pytest.mark.parametrize("value", [0, 101, 1.5])
def test_how_many_are_kept_is_checked(tmp_path: Path, value: Any) -> None:
    case = simple(tmp_path)
    with segue.open(tmp_path / "store") as client, pytest.raises(segue.ArgumentError) as info:
        cases.open_stream(client, case, tmp_path, keep_checkpoints=value)
    assert "keep_checkpoints" in str(info.value)


def test_a_lane_too_large_for_a_checkpoint(tmp_path: Path) -> None:
    """Its token would be larger than the store's largest value: said when the stream is opened."""
    rows, limit = 1024, 2**30
    most = limit // rows - 40 - 4  # 40 bytes of position a row, 4096 of all else

    def opened(client: segue.Client, name: str, size: int, persist: bool = True) -> segue.Stream:
        states = {"h": oracle.State("uint8", (size,))}
        case = simple(tmp_path, batch_size=rows, persist=persist, states=states)
        case.name = name
        return cases.open_stream(client, case, tmp_path)

    with segue.open(tmp_path / "store") as client:
        opened(client, "the largest", most).close()
        with refused(segue.ArgumentError, str(most + 1), str(rows), str(limit), "smaller batch"):
            opened(client, "too large", most + 1)
        opened(client, "not stored", most + 1, persist=False).close()


def test_a_checkpoint_outlives_everything(tmp_path: Path) -> None:
    """Killed right after state_dict(), with an interval that never comes: position, states, finals."""
    case = simple(tmp_path, keep_final=True, interval=1000)
    wanted = cases.in_order(case, [0, 1])
    client = segue.open(tmp_path / "store")
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    cases.check(loader, case, wanted[:11], whole=False)
    loader.state_dict()
    kept = finals(client, case)
    assert kept
    kill(server_pid(client))
    del loader, stream
    client.close()
    with segue.open(tmp_path / "store") as client:
        assert finals(client, case) == kept
        stream = cases.open_stream(client, case, tmp_path)
        with stream.loader() as loader:
            loader.set_state(stream.checkpoint(lanes=[0]) | stream.checkpoint(lanes=[1]))
            cases.check(loader, case, wanted[11:])


def test_nothing_is_stored_of_a_stream_that_does_not_persist(tmp_path: Path) -> None:
    case = simple(tmp_path, persist=False)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        tokens = work(stream, case, 3)
        assert stream.checkpoints() == []
        with stream.loader() as loader:
            loader.load_state_dict(tokens)
            cases.check(loader, case, cases.in_order(case, [0, 1])[3:])


def test_a_state_dict_of_a_fresh_loader_only_looks(tmp_path: Path) -> None:
    """Checkpoints and final states stay until the first batch is asked for."""
    case = simple(tmp_path, keep_final=True, durability="commit")
    wanted = cases.in_order(case, [0, 1])
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        with stream.loader(start="fresh") as loader:
            first = loader.state_dict()  # of an empty store: that is where it begins
            cases.check(loader, case, wanted[:1], whole=False)
            assert stream.checkpoint(0) == first
            loader.load_state_dict(first)
        work(stream, case, 8, start="continue")
        tokens = stream.checkpoint()
        before = stream.checkpoints(), finals(client, case)
        assert all(before)
        with stream.loader(start="fresh") as loader:
            with pytest.warns(UserWarning, match='start="fresh"'):
                assert loader.state_dict() == tokens
            assert (stream.checkpoints(), finals(client, case)) == before
            with stream.loader(start="continue") as other:  # nobody holds the lanes
                other.state_dict()
            loader.load_state_dict(tokens)
            assert finals(client, case) == before[1]
            cases.check(loader, case, wanted[8:])
        with stream.loader(start="fresh") as loader:
            with pytest.warns(UserWarning):
                loader.state_dict()
            cases.check(loader, case, wanted)


def test_going_back_behind_the_oldest(tmp_path: Path) -> None:
    """Position and states are exact; final states stay as they were at the oldest."""
    case = simple(tmp_path, lanes=1, keep_final=True, epochs=None, durability="commit")
    model = oracle.Model([file.records for file in case.files], case.spec, cases.update)
    wanted = list(islice(model.batches(0), 40))
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path, keep_checkpoints=2)
        states, tokens = {}, {}
        with stream.loader() as loader:
            for step in range(5, 31, 5):
                cases.check(loader, case, wanted[step - 5 : step], whole=False)
                tokens[step] = loader.state_dict()
                states[step] = finals(client, case)
            assert [c["step"] for c in stream.checkpoints()] == [25, 30]
            loader.load_state_dict(tokens[10])
            assert finals(client, case) == states[25]
            assert stream.checkpoints() == []
            cases.check(loader, case, wanted[10:20], whole=False)


def test_another_history_is_in_no_checkpoint(tmp_path: Path) -> None:
    case = simple(tmp_path, lanes=1)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        early = work(stream, case, 3)
        late = work(stream, case, 3, start="continue")
        assert [(c["step"], c["id"]) for c in stream.checkpoints()] == [(3, 1), (6, 2)]
        with stream.loader() as loader:
            loader.load_state_dict(early)
            assert [(c["step"], c["id"]) for c in stream.checkpoints()] == [(3, 1)]
            loader.load_state_dict(late)  # a token is as good as ever
            assert loader.state_dict() == late
        assert [(c["step"], c["id"]) for c in stream.checkpoints()] == [(3, 1), (6, 3)]
        fresh = work(stream, case, 1, start="fresh")
        assert [(c["step"], c["id"]) for c in stream.checkpoints()] == [(1, 4)]
        assert stream.checkpoint() == fresh


def test_a_load_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    """Not the position, not what is stored of final states and checkpoints, whatever the lane."""
    case = simple(tmp_path, keep_final=True, durability="commit", epochs=None)
    wanted = [
        batch
        for batches in zip(*(cases.expected(case)(lane) for lane in (0, 1)))
        for batch in batches
    ]
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        early = work(stream, case, 6)
        loader = stream.loader(start="continue")
        cases.check(loader, case, wanted[6:18], whole=False)

        def look() -> Any:
            lanes = client.inspect("train")["streams"][0]["lanes"]
            return finals(client, case), [(lane["step"], lane["checkpoints"]) for lane in lanes]

        before = look()
        broken = bytearray(early["lane/1"])
        broken[-20] ^= 1
        other = simple(tmp_path, keep_final=True, seed=9)
        other.name = "other"
        foreign = work(cases.open_stream(client, other, tmp_path), other, 2)
        for tokens, parts in [
            ({**early, "lane/1": bytes(broken)}, ["lane 1", "damaged"]),
            ({**early, "lane/1": early["lane/0"]}, ["lane 1", "of lane 0 of 2"]),
            ({**early, "lane/1": foreign["lane/1"]}, ["lane 1", "another spec", "seed"]),
            ({"lane/0": early["lane/0"]}, ["no token for lanes [1]"]),
            ({**early, "lane/1": "text"}, ["token of lane 1 is str"]),
        ]:
            with refused(segue.TokenError, *parts):
                loader.load_state_dict(tokens)
            assert look() == before
        batch = next(iter(loader))
        cases.compare(batch, wanted[18])
        cases.work(batch, case)
        batch.commit()
        array, copy = batch.state("h"), batch.state("h").copy()
        assert [step for step, _ in look()[1]] == [10, 9]
        loader.load_state_dict(early)
        assert (array == copy).all()
        del array, batch
        cases.check(loader, case, wanted[6:12], whole=False)
        loader.close()


def test_the_command(tmp_path: Path) -> None:
    """With a server and without: list, export, rm."""
    case = simple(tmp_path)
    store = tmp_path / "store"
    wanted = cases.in_order(case, [0, 1])
    client = segue.open(store)
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        for end in range(4, 13, 4):
            cases.check(loader, case, wanted[end - 4 : end], whole=False)
            tokens = loader.state_dict()
    for with_server in (True, False):
        if not with_server:
            client.close()
        everything = [(lane, step) for lane in (0, 1) for step in (2, 4, 6)]
        if not with_server:
            everything.remove((1, 4))
        assert [(c["lane"], c["step"]) for c in listed("list", store)] == everything
        assert "train" in run("checkpoint", "list", store).stdout
        assert "CHECKPOINT" in run("inspect", store).stdout
        assert [c["step"] for c in listed("list", store, "--lane", 0, "--step", 4)] == [4]
        target = tmp_path / f"exported-{with_server}"
        files = [c["file"] for c in listed("export", store, target, "--stream", "train")]
        assert files == [str(target / f"lane-{lane}.token") for lane in (0, 1)]
        assert [Path(file).read_bytes() for file in files] == list(tokens.values())
        one = listed("export", store, target, "--lane", 0, "--step", 2)
        assert [(c["lane"], c["step"]) for c in one] == [(0, 2)]
        lane, step = (1, 4) if with_server else (0, 6)
        gone = listed("rm", store, "--lane", lane, "--step", step)
        assert [(c["lane"], c["step"]) for c in gone] == [(lane, step)]
        again = run("checkpoint", "rm", store, "--lane", lane, "--step", step)
        assert again.returncode == 1 and "no such checkpoint" in again.stderr
    assert len(listed("rm", store, "--all", "--stream", "train")) == 4
    assert listed("list", store) == []
    assert "no checkpoint is stored" in run("checkpoint", "list", store).stdout
    for arguments in (["export", store, tmp_path / "target"], ["rm", store, "--all"]):
        result = run("checkpoint", *arguments)
        assert result.returncode == 1 and f"{store} has no checkpoint: " in result.stderr
    assert not (tmp_path / "target").exists()
    with segue.open(tmp_path / "elsewhere") as client:
        with cases.open_stream(client, case, tmp_path).loader() as loader:
            loader.load_state_dict(
                {f"lane/{lane}": (tmp_path / f"exported-True/lane-{lane}.token").read_bytes()
                 for lane in (1,)} | {"lane/0": tokens["lane/0"]}
            )  # fmt: skip
            cases.check(loader, case, wanted[12:])


def test_export_is_of_all_lanes(tmp_path: Path) -> None:
    """Or of those that were named: a lane without a checkpoint is not left out in silence."""
    case = simple(tmp_path, lanes=3)
    store, target = tmp_path / "store", tmp_path / "target"

    def export(*options: Any) -> list[tuple[int, int]]:
        return [(c["lane"], c["step"]) for c in listed("export", store, target, *options)]

    def refuses(*parts: str) -> None:
        result = run("checkpoint", "export", store, target)
        assert result.returncode == 1 and not target.exists(), result
        assert all(part in result.stderr for part in parts), result.stderr

    with segue.open(store) as client:
        stream = cases.open_stream(client, case, tmp_path)
        work(stream, case, 3, lanes=[1])
        refuses("2 of 3 lanes", "'train'", "(0, 2)")
        work(stream, case, 4, lanes=[0, 2])
        refuses("no step has a checkpoint of every lane")
        assert export("--lane", 1) == [(1, 3)]
        assert export("--step", 2) == [(0, 2), (2, 2)]
        work(stream, case, 2, lanes=[0, 2], start="continue")
        work(stream, case, 1, lanes=[1], start="continue")
    assert export() == [(0, 3), (1, 3), (2, 3)], "the newest that all have"
    listed("rm", store, "--lane", 2, "--step", 3)
    listed("rm", store, "--lane", 2, "--step", 2)
    (target / "lane-2.token").unlink()
    result = run("checkpoint", "export", store, target)
    assert result.returncode == 1 and "1 of 3 lanes" in result.stderr
    assert "(2)" in result.stderr and not (target / "lane-2.token").exists()


def test_export_from_a_server_that_makes_lanes_up(tmp_path: Path) -> None:
    """The answer takes no longer than what is stored: a stream cannot have so many."""
    store, target = tmp_path / "store", tmp_path / "target"
    store.mkdir()
    stored = {"id": 1, "step": 4, "created": None, "bytes": 8, "ended": False}
    lanes = [{"lane": lane, "checkpoints": [stored]} for lane in (0, 2)]
    stream = {"name": "train", "spec": {"lanes": 2**63}, "lanes": lanes}
    text = json.dumps({"streams": [stream]}).encode()
    report = os.memfd_create("report", os.MFD_ALLOW_SEALING)
    os.truncate(report, mmap.PAGESIZE)
    os.pwrite(report, text, 0)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(report, fcntl.F_ADD_SEALS, seals | F_SEAL_FUTURE_WRITE)
    where = store.stat()

    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(
                peer.frame(
                    peer.WELCOME,
                    peer.message(
                        f1=1, f2=peer.PROTOCOL, f3=peer.LAYOUT, f4=b"0.1.0", f5=os.getpid(),
                        x6=1, f7=os.fsencode(store), x8=where.st_dev, x9=where.st_ino,
                    ),
                )
            )  # fmt: skip
            connection.recv(65536)
            bulk = peer.message(f1=2, f3=len(text))
            socket.send_fds(connection, [peer.frame(peer.BULK, bulk, 1)], [report])
            connection.recv(65536)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(store / "segue.sock"))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        result = run("checkpoint", "export", store, target)
        thread.join()
    os.close(report)
    assert result.returncode == 1 and not target.exists()
    assert f"{2**63 - 2} of {2**63} lanes of stream 'train'" in result.stderr
    assert "(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, ...)" in result.stderr


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["checkpoint"], "wants list|rm|export DIR"),
        (["checkpoint", "list"], "wants list|rm|export DIR"),
        (["checkpoint", "show", "x"], "list, rm or export"),
        (["checkpoint", "rm", "x"], "--id, --step or --all"),
        (["checkpoint", "export", "x"], "TARGET"),
        (["checkpoint", "list", "x", "y"], "want DIR alone"),
        (["checkpoint", "list", "x", "--lane", "one"], "--lane is 'one'"),
        (["checkpoint", "rm", "x", "--id", "-1"], "--id is '-1'"),
    ],
)
def test_usage(arguments: list[str], part: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert part in result.stderr


def test_a_command_that_finds_nothing(tmp_path: Path) -> None:
    for action in ("list", "rm", "export"):
        more = [tmp_path / "target"] if action == "export" else ["--all"]
        result = run("checkpoint", action, tmp_path / "none", *more)
        assert result.returncode == 1 and "none" in result.stderr
    assert not (tmp_path / "none").exists()
    assert "Exit status" in run("checkpoint", "--help").stdout

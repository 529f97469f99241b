"""States by record key: read, put, deleted; in the histories of checkpoints, restores and kills.

The plain model of `test_checkpoint.py` goes on: beside the final states of a lane it has what was
put, each with the lane and the step at which it counts, and the number below which it stands.

SEGUE_TEST_SEED gives the same histories again, SEGUE_TEST_HISTORIES is how many there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import oracle
import rank
import segue
from test_checkpoint import LENGTHS, History, play, work
from test_replicas import clients, data  # noqa: F401  # fixtures
from test_resume import Other, kill, refused, server_pid, simple

OTHER = "no record has this key"


@dataclasses.dataclass
class Put:
    key: str
    lane: int
    number: int
    step: int
    value: float | None  # None: a deletion

    def place(self) -> tuple[str, int, int, int]:
        return self.key, self.lane, self.number, self.step


@dataclasses.dataclass
class Newest:
    """The newest that is under a key: an ended sequence, or what was put; or nothing."""

    kind: str = "none"
    lane: int = 0
    number: int = -1
    step: int = 0
    value: float | None = None

    def order(self) -> tuple[int, bool, int]:
        return self.number, self.kind == "final", self.step


class Keyed(History):
    """A history in which states are put under keys, and deleted."""

    def __init__(self, rng: np.random.Generator, directory: Path) -> None:
        self.puts: list[Put] = []
        super().__init__(rng, directory)
        self.keys = {
            number: key.decode().partition(":")[2]
            for lane in self.lanes
            for batch in lane.batches
            for number, key in zip(batch.insertion_index, batch.key, strict=True)
        }

    def simple(self, directory: Path, lanes: int, **fields: Any) -> Any:
        fields["lanes_by"] = str(self.rng.choice(["sequence", "record"]))
        return simple(
            directory, LENGTHS[: int(self.rng.integers(4, len(LENGTHS)))], lanes=lanes, **fields
        )

    def newest(self, key: str) -> Newest:
        found = [
            Newest("final", lane, number, version.step + 1, version.value)
            for lane, model in enumerate(self.lanes)
            for number, version in model.finals.items()
            if version.key == key
        ] + [
            Newest("none" if p.value is None else "put", p.lane, p.number, p.step, p.value)
            for p in self.puts
            if p.key == key
        ]
        return max(found, key=Newest.order, default=Newest())

    def live(self, key: str) -> tuple[int, int] | None:
        """Number and lane of the newest sequence of the key that goes on."""
        return max(
            (
                (number, lane)
                for lane, model in enumerate(self.lanes)
                for number in model.live
                if self.keys[number] == key
            ),
            default=None,
        )

    def place(self, key: str) -> tuple[int, int]:
        """The lane at whose step a put would count, and the number below which it would stand."""
        newest, live = self.newest(key), self.live(key)
        number, lane = max(newest.number + (newest.kind == "final"), 0), 0
        if self.case.spec.lanes_by == "record":
            lane = newest.lane
            if live and live[0] >= newest.number:
                lane = live[1]
        if live:
            number = max(number, live[0] + 1)
        return lane, number

    # -- what happens ---------------------------------------------------------------------------

    def choose(self) -> str:
        records = self.case.files[0].records
        return OTHER if self.rng.integers(8) == 0 else str(self.rng.choice(records).key)

    def change(self, doing: Callable[[Callable[[], None]], None]) -> None:
        for loader in self.loaders:
            loader.close()
        states = self.client.states(self.stream)
        for _ in range(int(self.rng.integers(1, 4))):
            key = self.choose()
            value = None if self.rng.integers(3) == 0 else float(self.rng.integers(10**6))
            lane, number = self.place(key)
            self.log.append(f"  {key!r} = {value} in lane {lane} below {number}")
            if value is None:
                doing(lambda key=key: states.delete(key))
            else:
                row = {"h": np.array([value, value])}
                doing(lambda key=key, row=row: states.put(key, row))
            known = self.newest(key).kind != "none" or self.live(key)
            if value is not None or known:
                put = Put(key, lane, number, self.lanes[lane].step, value)
                self.puts = [p for p in self.puts if p.place() != put.place()] + [put]
        self.loaders = [
            self.stream.loader(lanes=[lane], start="continue") for lane in range(len(self.lanes))
        ]
        self.batches = [iter(loader) for loader in self.loaders]

    def put(self, lane: int) -> None:
        self.change(lambda call: call())

    def put_and_kill(self, lane: int) -> None:
        """The server is killed now or then while it is asked: the library asks the next."""

        def doing(call: Callable[[], None]) -> None:
            pid, late = server_pid(self.client), float(self.rng.uniform(0, 0.004))
            timer = threading.Timer(late, lambda: kill(pid))
            timer.start()
            call()
            timer.join()

        self.change(doing)

    def restore(self, lane: int) -> None:
        life = self.life
        super().restore(lane)
        if self.life != life:
            step = self.lanes[lane].step
            self.puts = [p for p in self.puts if p.lane != lane or p.step <= step]

    def fresh(self, lane: int) -> None:
        self.puts = []
        super().fresh(lane)

    # -- what the store should hold -------------------------------------------------------------

    def compare(self) -> None:
        states = self.client.states(self.stream)
        listed = dict(states.items())
        for key in [record.key for record in self.case.files[0].records] + [OTHER]:
            want, got = self.newest(key), states.get(key)
            assert (got is None) == (want.kind == "none"), f"{key}: {want}, {got}"
            assert (key.encode() in listed) == (got is not None), key
            if got is not None:
                told = (got.kind, got.lane, got.number, got.step, got.states["h"].tolist())
                value = [want.value, want.value]
                assert told == (want.kind, want.lane, want.number, want.step, value), key
                same = listed.pop(key.encode())
                assert (same.kind, same.step) == (got.kind, got.step)
                [hit] = [
                    hit
                    for hit in self.client.get(key, self.stream.name)["found"]
                    if hit["kind"] != "live"
                ]
                assert (hit["kind"], hit["step"], hit["lane"]) == told[:1] + (got.step, got.lane)
                assert hit["states"]["h"]["values"] == value
            self.compare_live(key, states.get(key, live=True))
        assert not listed

    def compare_live(self, key: str, got: segue.KeyStates | None) -> None:
        live = self.live(key)
        assert (got is None) == (live is None), f"{key}: {live}, {got}"
        if got is None or live is None:
            return
        number, lane = live
        value = self.lanes[lane].live[number]
        assert (got.kind, got.lane, got.number, got.step) == (
            "live", lane, number, self.lanes[lane].step
        )  # fmt: skip
        assert got.states["h"].tolist() == [value, value]

    def ways(self) -> list[Callable[[int], None]]:
        return super().ways() + [self.put] * 5 + [self.put_and_kill]


def test_what_is_put_goes_back_with_its_lane(tmp_path: Path) -> None:
    play(Keyed, tmp_path, "SEGUE_TEST_HISTORIES", 8)


# -- one by one ------------------------------------------------------------------------------------


def row(value: float) -> dict[str, Any]:
    return {"h": np.full(4, value, "float32"), "n": np.int64(value)}


def values(found: segue.KeyStates | None) -> tuple[float, int] | None:
    return found and (float(found.states["h"][0]), int(found.states["n"]))


def hold(pipe: Any, store: Path, lanes: list[int]) -> None:
    """Holds these lanes until told to go."""
    with segue.open(store) as client:
        loader = client.stream("train", states=STATES).loader(lanes=lanes, start="continue")
        batch = next(iter(loader))
        pipe.send(os.getpid())
        pipe.recv()
        batch.release()
        loader.close()


STATES = {
    "h": segue.State("float32", 4, init=np.full(4, 0.5, "float32")),
    "n": segue.State("int64", init=np.int64(7)),
}


def test_a_stream_that_was_never_begun(tmp_path: Path) -> None:
    """Before anything: at step 0, which every way back keeps, but not start="fresh"."""
    case = simple(tmp_path, keep_final=True)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        assert states.get("a") is None and dict(states.items()) == {}
        states.put("a", row(1))
        states.put("a", row(2))
        got = states.get("a")
        assert (got.kind, got.lane, got.step, got.number) == ("put", 0, 0, 0)
        assert values(got) == (2, 2)
        token = work(stream, case, 4)
        assert values(states.get("a")) == (2, 2)
        with stream.loader() as loader:
            loader.load_state_dict(token)
            next(iter(loader)).release()
        assert values(states.get("a")) == (2, 2)
        work(stream, case, 1, start="fresh", lanes=[0])
        assert states.get("a") is None


def test_going_back_to_the_step_itself_keeps_it(tmp_path: Path) -> None:
    case = simple(tmp_path, keep_final=True, lanes=1)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states("train")
        early = work(stream, case, 2)
        here = work(stream, case, 2, start="continue")
        states.put("a", row(1))
        assert states.get("a").step == 4
        for token, there in ((here, (1, 1)), (early, None)):
            with stream.loader() as loader:
                loader.load_state_dict(token)
                next(iter(loader)).release()
            assert values(states.get("a")) == there


def test_a_sequence_under_way_does_not_bring_it_back(tmp_path: Path) -> None:
    """One lane: deleted while a sequence of the key goes on; its next epoch keeps its own again."""
    case = simple(tmp_path, (8, 8), keep_final=True, lanes=1, epochs=2)
    keys = [record.key for record in case.files[0].records]
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        work(stream, case, 2)
        assert states.get(keys[0]) is None and states.get(keys[0], live=True).step == 2
        states.delete(keys[0])
        states.put(keys[1], row(5))
        work(stream, case, 2, start="continue")  # both end
        assert states.get(keys[0]) is None
        assert values(states.get(keys[1])) == (5, 5)
        work(stream, case, 4, start="continue")
        assert [states.get(key).kind for key in keys] == ["final", "final"]
        assert [states.get(key).step for key in keys] == [8, 8]


def test_refused_while_a_lane_is_held(tmp_path: Path) -> None:
    case = simple(tmp_path, keep_final=True)
    key = case.files[0].records[0].key
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        loader = stream.loader(lanes=[1])
        next(iter(loader)).release()
        for change in (lambda: states.put(key, row(1)), lambda: states.delete(key)):
            with refused(segue.BusyError, "lane 1", str(os.getpid()), repr(key)[1:-1]):
                change()
        loader.close()
        states.put(key, row(1))
        other = Other(hold, tmp_path / "store", [0])
        pid = other.pipe.recv()
        with refused(segue.BusyError, "lane 0", str(pid)):
            states.put(key, row(2))
        kill(server_pid(client))  # its process may come back
        with refused(segue.BusyError, "lane 0", str(pid)):
            states.put(key, row(2))
        assert values(states.get(key)) == (1, 1)
        other.pipe.send(None)
        other.process.join()
        states.put(key, row(3))
        assert values(states.get(key)) == (3, 3)


def test_own_lanes_after_the_server_was_lost(tmp_path: Path) -> None:
    """A lane that is open here is held, though the next server has only a reservation of it."""
    case = simple(tmp_path, keep_final=True, lanes=1)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        loader = stream.loader()
        batches = iter(loader)
        cases.work(next(batches), case)
        kill(server_pid(client))
        with refused(segue.BusyError, "lane 0", str(os.getpid())):
            states.put("a", row(1))
        batch = next(batches)
        kill(server_pid(client))
        with refused(segue.BusyError, "lane 0", str(os.getpid()), "open"):
            states.put("a", row(1))
        cases.work(batch, case)
        kill(server_pid(client))
        loader.close()
        states.put("a", row(2))
        assert values(states.get("a")) == (2, 2) and states.get("a").step == 2


def go_on(loader: segue.Loader, until: int, leads: bool) -> list[Any]:
    """Up to that step, of which nothing stays open. Returns what was seen."""
    found = []
    for batch in loader:
        found.append(rank.seen(batch))
        if leads:
            rank.save(batch)
            batch.commit()
        batch.release()
        if found[-1][1] + 1 == until:
            break
    return found


@pytest.mark.parametrize("replica", [0, 1])
def test_lanes_of_replicas_after_the_server_was_lost(
    clients: Any, data: Path, replica: int  # noqa: F811
) -> None:
    """Leader and follower go on, whoever of them has put states, or was refused."""
    leader, follower = (
        rank.opened(client, data, keep_final=True).loader(
            start="continue" if number == 0 else None, replica=number, replicas=2, timeout=30
        )
        for number, client in enumerate(clients)
    )
    with ThreadPoolExecutor(1) as pool:
        for until in (3, 6):
            followed = pool.submit(go_on, follower, until, False)
            assert go_on(leader, until, True) == followed.result(60)
            if until == 3:
                kill(server_pid(clients[0]))
                with contextlib.suppress(segue.BusyError):
                    states = clients[replica].states("train")
                    states.put("a", {"h": np.zeros(5), "n": np.int64(1)})


def change_on(pipe: Any, store: Path, keys: list[str], seed: int) -> None:
    """Puts and deletes until it is killed: says what before, and None after each."""
    rng = np.random.default_rng(seed)
    with segue.open(store) as client:
        states = client.states("train")
        while True:
            key, value = str(rng.choice(keys)), int(rng.integers(10**9))
            put = bool(rng.integers(4))
            pipe.send((key, value if put else None))
            if put:
                states.put(key, whole(value))
            else:
                states.delete(key)
            pipe.send(None)


def whole(value: int) -> dict[str, Any]:
    """`row` of which every byte tells."""
    return {"h": np.full(4, value, "int32").view("float32"), "n": np.int64(value)}


def read_whole(found: segue.KeyStates | None) -> int | None:
    if found is None:
        return None
    value = int(found.states["n"])
    assert (found.states["h"].view("int32") == value).all()
    return value


@pytest.mark.parametrize("initial", ["value", "kept"])
def test_what_was_answered_is_there_after_kills(initial: str, tmp_path: Path) -> None:
    """The server is killed, who puts, or both; what was under way is there whole or not at all."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    print(f"SEGUE_TEST_SEED={seed}")
    rng = np.random.default_rng(seed)
    store = tmp_path / "store"
    case = simple(tmp_path, keep_final=True, lanes=3, lanes_by="record", initial=initial)
    keys = [record.key for record in case.files[0].records][:3] + ["p", "q", "r"]
    known: dict[str, int | None] = dict.fromkeys(keys)
    with segue.open(store) as client:
        stream = cases.open_stream(client, case, tmp_path)
        work(stream, case, 4)
        for key in keys[:3]:  # above what these have left
            client.states("train").put(key, whole(1))
            known[key] = 1
    for _ in range(int(os.environ.get("SEGUE_TEST_KILLS") or 4)):
        other = Other(change_on, store, keys, int(rng.integers(2**32)))
        asked: tuple[str, int | None] | None = None  # and not answered
        with segue.open(store) as client, contextlib.suppress(EOFError):
            kills = [lambda: kill(server_pid(client)), lambda: kill(other.pid)]
            last = int(rng.integers(10, 80))
            for n in itertools.count():
                said = other.receive()
                if said is None and asked is not None:
                    known[asked[0]] = asked[1]
                asked = said
                if n % 15 == 11 and n < last:
                    kills[0]()
                elif n == last:
                    for at in rng.permutation(2):
                        kills[at]()
        other.process.join()
        with segue.open(store) as client:
            assert client.verify()["damaged_count"] == 0
            states = client.states("train")
            if asked is not None and read_whole(states.get(asked[0])) == asked[1]:
                known[asked[0]] = asked[1]
            assert {key: read_whole(states.get(key)) for key in keys} == known
            put = {key.decode(): one for key, one in states.items() if one.kind == "put"}
            there = {key: value for key, value in known.items() if value is not None}
            assert {key: read_whole(one) for key, one in put.items()} == there


def test_another_lane_may_be_held_where_records_keep_theirs(tmp_path: Path) -> None:
    case = simple(tmp_path, keep_final=True, lanes_by="record", epochs=None)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        work(stream, case, 40)
        of_lane = {found.lane: key for key, found in states.items()}
        assert of_lane.keys() == {0, 1}
        loader = stream.loader(lanes=[1], start="continue")
        next(iter(loader)).release()
        states.put(of_lane[0], row(1))
        got = states.get(of_lane[0])
        assert (got.kind, got.lane, got.step) == ("put", 0, 20) and values(got) == (1, 1)
        with refused(segue.BusyError, "lane 1"):
            states.delete(of_lane[1])
        with refused(segue.BusyError, "lane 1"):  # it is not known where it will come
            states.put("new", row(1))
        loader.close()


def test_what_is_refused(tmp_path: Path) -> None:
    case = simple(tmp_path, keep_final=True)
    with segue.open(tmp_path / "store") as client:
        with refused(segue.NotFoundError, "nothing"):
            client.states("nothing")
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        good = row(1)
        for wrong, kind, part in (
            ({"h": good["h"]}, segue.StateNameError, "'n' is missing"),
            (good | {"x": 1}, segue.StateNameError, "'x' was not declared"),
            (good | {"h": np.zeros(4)}, segue.StateTypeError, "float32"),
            (good | {"h": np.zeros(3, "float32")}, segue.StateShapeError, "(4,)"),
        ):
            with refused(kind, part):
                states.put("a", wrong)
        for key in ("", "x" * 4097):
            with refused(segue.ArgumentError, f"{len(key)} bytes"):
                states.put(key, good)
        with refused(segue.ArgumentError, "NUL"):
            states.get("a\0b")
        with refused(TypeError, "int"):
            states.delete(3)  # type: ignore[arg-type]
        states.delete("a")  # nothing is there
        states.put(b"\xff", good)
        assert values(states.get(b"\xff")) == values(states.get("\udcff")) == (1, 1)
        client.drop("train")
        with refused(segue.NotFoundError, "train"):
            states.put("a", good)


def test_without_keep_final(tmp_path: Path) -> None:
    case = simple(tmp_path)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        states = client.states(stream)
        work(stream, case, 2)
        for change in (lambda: states.put("a", row(1)), lambda: states.delete("a")):
            with refused(segue.SpecError, "keep_final"):
                change()
        assert states.get("a") is None and list(states.items()) == []
        live = list(states.items(live=True))
        assert live and {found.kind for _, found in live} == {"live"}
        for key, found in live:
            assert found.step == 1
            assert states.get(key, live=True).number >= found.number


def test_many_keys_come_page_by_page(tmp_path: Path) -> None:
    """More than a page of 4 MiB, over lanes."""
    big = 200_000
    states = {"h": oracle.State("uint8", (big,))}
    case = simple(tmp_path, keep_final=True, lanes=3, states=states, lanes_by="record")
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        keyed = client.states(stream)
        work(stream, case, 15)
        ended = {key for key, _ in keyed.items()}
        for i in range(50):
            keyed.put(f"key-{i}", {"h": np.full(big, i, "uint8")})
        for i in range(0, 50, 7):
            keyed.delete(f"key-{i}")
        found = dict(keyed.items())
        wanted = {f"key-{i}".encode(): i for i in range(50) if i % 7}
        assert ended and found.keys() == wanted.keys() | ended
        for key, i in wanted.items():
            assert (found[key].states["h"] == i).all()


def test_many_live_rows_come_page_by_page(tmp_path: Path) -> None:
    states = {"h": oracle.State("uint8", (200_000,))}
    case = simple(tmp_path, (9,) * 40, lanes=3, batch_size=10, states=states)
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        with stream.loader() as loader:
            batches = iter(loader)
            keys = set()
            for i in range(3):
                batch = next(batches)
                keys |= {key.partition(b":")[2] for key in batch.key}
                batch.save_state("h", np.full((10, 200_000), i, "uint8"))
                batch.commit()
        found = list(client.states(stream).items(live=True))
        assert len(found) == 30 and {key for key, _ in found} == keys
        for _, one in found:
            assert (one.step, int(one.states["h"].min())) == (1, one.lane)

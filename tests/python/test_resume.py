"""Going on: from tokens, from the store, after kills; and who keeps the server alive.

Going on is exact if what follows is what an uninterrupted run delivers: the plain model's batches
with the model's states, byte for byte. The states change with every input and every step, so that
one wrong bit on the way shows in all that follows.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import forked
import little
import oracle
import segue
from test_cli import Server

PATIENCE = 60.0


def simple(directory: Path, lengths: tuple[int, ...] = (9, 4, 1, 7, 12, 3, 8, 5), **fields: Any):
    """A small stream over two lanes, with its data set written."""
    options: dict[str, Any] = {
        name: fields.pop(name)
        for name in (
            "persist", "depth", "durability", "interval", "keep_final", "lease_timeout",
        )
        if name in fields
    }
    spec = oracle.Spec(
        **{
            "sequences": {"x": oracle.Feature("float32", (3,)), "y": oracle.Feature("int64")},
            "context": {"c": oracle.Feature("int32")},
            "states": {
                "h": oracle.State("float32", (4,), 0.5),
                "n": oracle.State("int64", (), 7),
            },
            "num_unroll": 2,
            "batch_size": 2,
            "lanes": 2,
            "epochs": 2,
            **fields,
        }
    )
    rng = np.random.default_rng(1)
    records = [
        oracle.Record(
            key="",
            sequences={n: cases.values(rng, f.dtype, (k, *f.shape)) for n, f in
                       spec.sequences.items()},
            context={n: cases.values(rng, f.dtype, f.shape) for n, f in spec.context.items()},
        )
        for k in lengths
    ]  # fmt: skip
    file = cases.File("data.tfrecord", None, records)
    case = cases.Case(
        name="train",
        files=[file],
        paths=[file.name],
        spec=spec,
        key_feature=None,
        raw=frozenset(),
        reading="batches",
        workers=1,
        options=options,
    )
    cases.write(case, directory)
    return case


@contextmanager
def refused(kind: type[Exception], *parts: str) -> Iterator[None]:
    """The body raises exactly this class, with a message that holds all parts."""
    with pytest.raises(kind) as info:
        yield
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)
    del info  # its frames hold batches, and this one it


def of_lanes(wanted: list[oracle.Batch], lanes: list[int]) -> list[oracle.Batch]:
    return [batch for batch in wanted if batch.lane in lanes]


def server_pid(client: segue.Client) -> int:
    return int(client.status()["server"]["pid"])


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: little.has_ended(pid), f"the end of process {pid}")


# -- another process -------------------------------------------------------------------------------


class Other:
    """A process that runs `body(pipe, *arguments)`; `pipe` is the other end of `self.pipe`."""

    def __init__(self, body: Callable[..., None], *arguments: Any) -> None:
        context = forked.context()
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=body, args=(far, *arguments), daemon=True)
        self.process.start()
        far.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def receive(self) -> Any:
        assert self.pipe.poll(PATIENCE), "no word from the other process"
        return self.pipe.recv()

    def join(self) -> None:
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0


@pytest.fixture
def processes() -> Iterator[Callable[..., Other]]:
    """Starts other processes, and ends what is left of them."""
    started: list[Other] = []

    def start(body: Callable[..., None], *arguments: Any) -> Other:
        started.append(Other(body, *arguments))
        return started[-1]

    yield start
    for other in started:
        other.process.kill()
        other.process.join()


# -- exact continuation, at random -----------------------------------------------------------------

WAYS = (
    "in place", "new loader", "another store", "other workers", "continue", "server killed",
    "server killed, continue", "token, server killed",
)  # fmt: skip


def go_on(
    way: str, case: cases.Case, client: segue.Client, directory: Path, cut: int, end: int
) -> None:
    """Run to batch `end`, with a token from batch `cut` on the way; then go on in that way."""
    lanes = list(range(case.spec.lanes))
    wanted = cases.in_order(case, lanes)
    cut, end = sorted((cut % (len(wanted) + 1), end % (len(wanted) + 1)))
    whole = case.spec.epochs is not None
    stream = cases.open_stream(client, case, directory, durability="commit")
    loader = stream.loader()
    cases.check(loader, case, wanted[:cut], whole=False)
    tokens = loader.state_dict()
    if "token" not in way:
        cases.check(loader, case, wanted[cut:end], whole=False)
    if "killed" in way:
        kill(server_pid(client))
    if way in ("in place", "token, server killed"):
        loader.load_state_dict(tokens)
        cases.check(loader, case, wanted[cut:], whole)
    elif way == "new loader":
        loader.close()
        with stream.loader() as loader:
            loader.load_state_dict(tokens)
            cases.check(loader, case, wanted[cut:], whole)
    elif way == "another store":
        with segue.open(directory.parent / "elsewhere") as other:
            with cases.open_stream(other, case, directory) as stream, stream.loader() as loader:
                if case.spec.initial == "kept":  # what was kept is not there
                    with refused(segue.TokenError, "is none that this store can go back to"):
                        loader.load_state_dict(tokens)
                    return
                loader.load_state_dict(tokens)
                cases.check(loader, case, wanted[cut:], whole)
    elif way == "other workers":
        loader.close()
        count = min(3, case.spec.lanes)
        for rank in range(count):
            with stream.loader(rank=rank, world_size=count) as loader:
                loader.load_state_dict([{key: tokens[key]} for key in tokens])
                cases.check(loader, case, of_lanes(wanted[cut:], loader.lanes), whole)
    elif way in ("continue", "server killed, continue"):
        loader.close()
        with stream.loader(start="continue") as loader:
            cases.check(loader, case, wanted[end:], whole)
    else:
        cases.check(loader, case, wanted[end:], whole)
    loader.close()


def test_going_on_is_exact(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_SPECS") or 500) // 5
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed}")
    for number in [int(only)] if only else range(count):
        rng = np.random.default_rng([seed, number, 1])
        case = cases.make(f"case-{number}", rng)
        case = dataclasses.replace(case, reading="batches", workers=1)
        case.options["persist"] = True
        if number // len(WAYS) % 2:
            case = cases.with_sizes(case, rng)
        directory = tmp_path / f"data-{number}"
        cases.write(case, directory)
        way = WAYS[number % len(WAYS)]
        cut, end = rng.integers(0, 1000, 2).tolist()
        try:
            with segue.open(tmp_path / f"store-{number // 25}") as client:
                go_on(way, case, client, directory, cut, end)
        except BaseException as error:
            error.add_note(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_CASE={number}: {way}\n{case!r}")
            raise


# -- tokens ----------------------------------------------------------------------------------------


def test_a_token_is_of_the_committed_step(client: segue.Client, tmp_path: Path) -> None:
    """However far ahead the ring is filled, and whether or not a batch has been looked at."""
    case = simple(tmp_path, lanes=1, depth=5)
    wanted = cases.in_order(case, [0])
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:3], whole=False)
        time.sleep(0.1)  # the ring fills
        before = loader.state_dict()
        batch = next(iter(loader))
        assert batch.step == 3
        batch.release()
        assert loader.state_dict() == before
        del batch
    with stream.loader() as loader:
        loader.load_state_dict(before)
        cases.check(loader, case, wanted[3:])


def test_tokens_may_be_more_than_are_needed(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, lanes=3)
    wanted = cases.in_order(case, [0, 1, 2])
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:6], whole=False)
        tokens = loader.state_dict()
        assert list(tokens) == ["lane/0", "lane/1", "lane/2"]
    with stream.loader(lanes=[1]) as loader:
        loader.load_state_dict({**tokens, "lane/9": b"", "model": b"weights"})
        assert list(loader.state_dict()) == ["lane/1"]
        cases.check(loader, case, of_lanes(wanted[6:], [1]))
    with stream.loader(lanes=[0, 2]) as loader:
        loader.load_state_dict([{"lane/2": tokens["lane/2"]}, {"lane/0": tokens["lane/0"]}])
        cases.check(loader, case, of_lanes(wanted[6:], [0, 2]))


def broken_tokens(tokens: dict[str, bytes]) -> list[tuple[dict[str, Any], list[str]]]:
    one = tokens["lane/1"]
    middle = len(one) // 2
    flipped = one[:middle] + bytes([one[middle] ^ 16]) + one[middle + 1 :]
    return [
        ({"lane/0": tokens["lane/0"]}, ["no token for lanes [1]", "'train'", "['lane/0']"]),
        ({}, ["no token for lanes [0, 1]", "holds []"]),
        ({**tokens, "lane/1": one[:-1]}, ["lane 1", "damaged", "checksum"]),
        ({**tokens, "lane/1": one + b"x"}, ["lane 1", "damaged", "checksum"]),
        ({**tokens, "lane/1": flipped}, ["lane 1", "damaged", "checksum"]),
        ({**tokens, "lane/1": b""}, ["lane 1", "empty"]),
        ({**tokens, "lane/1": b"SEGT"}, ["lane 1", "no token"]),
        ({**tokens, "lane/1": b"something else, long enough"}, ["lane 1", "no token of segue"]),
        ({**tokens, "lane/1": None}, ["token of lane 1 is NoneType", "state_dict()"]),
        ({**tokens, "lane/1": one.hex()}, ["token of lane 1 is str", "state_dict()"]),
        (
            {**tokens, "lane/1": tokens["lane/0"]},
            ["the token is of lane 0 of 2, this is lane 1 of 2"],
        ),
    ]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_token_that_does_not_fit_changes_nothing(
    client: segue.Client, tmp_path: Path, in_place: bool
) -> None:
    """All lanes stay where they were, also those whose own token would fit."""
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    cases.check(loader, case, wanted[:4], whole=False)
    tokens = loader.state_dict()
    cases.check(loader, case, wanted[4:10], whole=False)
    now = loader.state_dict()
    for bad, parts in broken_tokens(tokens):
        if in_place:
            with refused(segue.TokenError, *parts):
                loader.load_state_dict(bad)
            assert loader.state_dict() == now
        else:
            loader.close()
            with stream.loader() as other, refused(segue.TokenError, *parts):
                other.load_state_dict(bad)
            loader = stream.loader(start="continue")
    cases.check(loader, case, wanted[10:])


@pytest.mark.parametrize(
    ("bad", "kind"), [(None, "NoneType"), (7, "int"), ("lane/0", "str"), ([{}, None], "NoneType")]
)
def test_what_is_no_state_dict(client: segue.Client, tmp_path: Path, bad: Any, kind: str) -> None:
    loader = cases.open_stream(client, simple(tmp_path), tmp_path).loader()
    with refused(TypeError, "load_state_dict takes what state_dict() returned", f"not {kind}"):
        loader.load_state_dict(bad)


def test_a_failed_load_leaves_an_iterator_as_it_is(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    loader = cases.open_stream(client, case, tmp_path).loader()
    tokens = loader.state_dict()
    batches = iter(loader)
    for want in wanted:
        batch = next(batches)
        cases.compare(batch, want)
        cases.work(batch, case)
        batch.commit()
        if want.step == 1:
            batch.release()
            with refused(segue.TokenError, "lane 1"):
                loader.load_state_dict({**tokens, "lane/1": b"nonsense that is long enough"})
    assert next(batches, None) is None


class Handle:
    """A stream's handle, or one lane's, of which some calls raise: by lane, `{(index, call): error}`."""

    def __init__(self, real: Any, faults: dict[tuple[int, str], BaseException]) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name not in ("lane", "restore", "set_batch_size"):
            return value

        def call(*arguments: Any) -> Any:
            index = arguments[0] if name == "lane" else self._real.index
            step = name + (f" {arguments[1]}" if name == "lane" else "")
            if error := self._faults.get((index, step)):
                raise type(error)(*error.args)  # a new one: its frames hold batches
            result = value(*arguments)
            return Handle(result, self._faults) if name == "lane" else result

        return call


def faulty(stream: segue.Stream) -> dict[tuple[int, str], BaseException]:
    """The faults of the stream's handles from now on: none yet."""
    faults: dict[tuple[int, str], BaseException] = {}
    stream._handle = Handle(stream._handle, faults)  # type: ignore[assignment]
    return faults


@pytest.mark.parametrize("start", ["in place", None, "continue", "fresh"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), segue.GoneError("gone"), segue.NoSpaceError("full")]
)
@pytest.mark.parametrize("lane", [0, 1])
def test_a_load_that_is_interrupted_has_to_be_repeated(
    client: segue.Client, tmp_path: Path, start: str | None, error: BaseException, lane: int
) -> None:
    """The lanes are then at different steps: nothing goes on from there."""
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    faults = faulty(stream)
    loader = stream.loader()
    cases.check(loader, case, wanted[:4], whole=False)
    tokens = loader.state_dict()
    old = iter(loader)
    for _ in range(6):
        cases.work(next(old), case)
    loader.state_dict()
    if start != "in place":
        loader.close()
        loader = stream.loader(start=start)
        old = iter(loader)
    faults[lane, "restore"] = error
    with pytest.raises(type(error)):
        loader.load_state_dict(tokens)
    faults.clear()
    for _ in range(2):
        for use in (
            lambda: next(old),
            lambda: next(iter(loader)),
            lambda: next(loader.rounds()),
            loader.state_dict,
            loader.flush,
        ):
            with refused(segue.StartError, "load_state_dict did not complete", "call it again"):
                use()
        with refused(segue.TokenError):  # one that is refused mends nothing
            loader.load_state_dict({"lane/0": tokens["lane/0"]})
    if start == "fresh":
        loader.close()
        assert loader.closed
        return
    loader.load_state_dict(tokens)
    cases.check(loader, case, wanted[4:])


def test_a_restore_that_is_refused_at_once_changes_nothing(
    client: segue.Client, tmp_path: Path
) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    faults = faulty(stream)
    loader = stream.loader()
    tokens = loader.state_dict()
    batches = iter(loader)
    cases.work(next(batches), case)
    loader.state_dict()
    faults[0, "restore"] = segue.TokenError("it does not fit after all")
    with refused(segue.TokenError, "after all"):
        loader.load_state_dict(tokens)
    batch = next(batches)
    cases.compare(batch, wanted[1])


@pytest.mark.parametrize("lanes", [[0], [0, 1]])
def test_a_load_that_is_refused_leaves_what_was_saved(
    client: segue.Client, tmp_path: Path, lanes: list[int]
) -> None:
    """An open batch that only the loader still knows of comes again."""
    case = simple(tmp_path)
    wanted = cases.in_order(case, lanes)
    loader = cases.open_stream(client, case, tmp_path).loader(lanes=lanes)
    tokens = loader.state_dict()

    def leave() -> None:
        batches = iter(loader)
        for want in wanted[:2]:
            batch = next(batches)
            cases.compare(batch, want)
            cases.work(batch, case)

    leave()
    with refused(segue.TokenError, f"lane {lanes[-1]}"):
        loader.load_state_dict({**tokens, f"lane/{lanes[-1]}": b"nonsense that is long enough"})
    with pytest.warns(UserWarning, match="without a commit"):
        cases.check(loader, case, wanted[1:])


def test_a_load_gives_up_a_round_that_is_open(client: segue.Client, tmp_path: Path) -> None:
    """One that is refused leaves it open; what is held of it can no longer be committed."""
    case = simple(tmp_path)
    loader = cases.open_stream(client, case, tmp_path).loader()
    tokens = loader.state_dict()
    rounds = loader.rounds()
    batches = next(rounds)
    for batch in batches:
        cases.work(batch, case)
    with refused(segue.TokenError, "lane 1"):
        loader.load_state_dict({**tokens, "lane/1": b"nonsense that is long enough"})
    assert [batch.step for batch in next(rounds)] == [1, 1]
    assert all(batch.committed for batch in batches)
    loader.load_state_dict(tokens)
    batches = next(loader.rounds())
    for batch in batches:
        cases.work(batch, case)
    with pytest.warns(UserWarning, match="batch 0 of lane [01] was left") as told:
        loader.load_state_dict(tokens)
    assert len(told) == 2
    with pytest.raises(segue.Error, match="batch 0 of lane 1"):
        batches[1].commit()
    assert [batch.step for batch in next(loader.rounds())] == [0, 0]


@pytest.mark.parametrize("what", ["sequences", "state", "state_out", "view"])
def test_a_load_while_arrays_are_alive(
    client: segue.Client, tmp_path: Path, what: str
) -> None:
    """They stay what they are; what is still written to one changes nothing."""
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0])
    loader = cases.open_stream(client, case, tmp_path).loader(lanes=[0])
    tokens = loader.state_dict()
    batches = iter(loader)

    def leave() -> np.ndarray:
        batch = next(batches)
        cases.compare(batch, wanted[0])
        cases.work(batch, case)
        arrays = {
            "sequences": lambda: batch.sequences["x"],
            "state": lambda: batch.state("h"),
            "state_out": lambda: batch.state_out("h"),
            "view": lambda: batch.state_out("h")[:1],
        }
        return arrays[what]()

    array = leave()
    copy = array.copy()
    with pytest.warns(UserWarning, match="without a commit"):
        loader.load_state_dict(tokens)
    assert (array == copy).all()
    assert not array.flags.writeable or what == "view"
    if array.flags.writeable:
        array[...] = 9
    cases.check(loader, case, wanted)


def test_tokens_that_contradict_one_another(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    loader = cases.open_stream(client, case, tmp_path).loader()
    early = loader.state_dict()
    cases.check(loader, case, wanted[:4], whole=False)
    late = loader.state_dict()
    with refused(segue.TokenError, "two tokens for lane 0", "of one checkpoint"):
        loader.load_state_dict([early, late])
    assert loader.state_dict() == late
    loader.load_state_dict([late, {"lane/0": bytearray(late["lane/0"])}, {"model": b"", **late}])
    # Lanes at different steps are no contradiction: workers come to different steps.
    loader.load_state_dict([{"lane/0": early["lane/0"]}, {"lane/1": late["lane/1"]}])
    cases.check(loader, case, [*of_lanes(wanted[:4], [0]), *wanted[4:]])


# -- starting fresh --------------------------------------------------------------------------------


def hold_a_lane(pipe: Connection, directory: Path, case: cases.Case, lane: int) -> None:
    """Has a lane until it is told to let go."""
    with segue.open(directory / "store", start=False) as client:
        stream = cases.open_stream(client, case, directory)
        with stream.loader(lanes=[lane], start="continue") as loader:
            pipe.send(next(iter(loader)).step)
            pipe.recv()
    pipe.send("gone")


def test_fresh_is_of_all_lanes_or_of_none(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other]
) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:6], whole=False)
        loader.state_dict()
    before = stream.checkpoints()
    assert len(before) == 2
    other = processes(hold_a_lane, tmp_path, case, 1)
    assert other.receive() == 3
    with refused(segue.BusyError, "lane 1", f"process {other.pid} (python"):
        next(iter(stream.loader(start="fresh", timeout=0)))
    with (
        pytest.warns(UserWarning, match=rf"waiting 0\.5 s more.*process {other.pid} \(python"),
        refused(segue.BusyError, "lane 1"),
    ):
        next(iter(stream.loader(start="fresh", timeout=1.5)))
    assert [lane_of(client, "train", lane)["step"] for lane in (0, 1)] == [3, 3]
    assert stream.checkpoints() == before
    other.pipe.send("let go")
    loader = stream.loader(start="fresh")
    cases.check(loader, case, wanted)
    assert stream.checkpoints() == []
    assert other.receive() == "gone"


def test_fresh_over_a_lane_that_cannot_be_read(client: segue.Client, tmp_path: Path) -> None:
    """There is nothing whole to hold on to; a fresh start is what mends it."""
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:6], whole=False)
        loader.state_dict()
    faulty(stream)[1, "lane 1"] = segue.StoreError("a checksum is wrong")  # SEGUE_START_CONTINUE
    with stream.loader(start="fresh") as loader:
        cases.check(loader, case, wanted)


@pytest.mark.parametrize(
    "fields, parts",
    [
        ({"num_unroll": 3}, ["another spec", "num_unroll"]),
        ({"seed": 1}, ["another spec", "seed"]),
        ({"shuffle": True}, ["another spec", "shuffle"]),
        ({"epochs": 3}, ["another spec", "epochs"]),
        ({"states": {"h": oracle.State("float32", (4,), 0.5)}}, ["another spec", "states"]),
        (
            {"states": {"h": oracle.State("float32", (4,)), "n": oracle.State("int64", (), 7)}},
            ["another spec", "initial values"],
        ),
        ({"context": {"c": oracle.Feature("int64")}}, ["another spec", "features"]),
        ({"batch_size": 3}, ["the token has batch_size 2, the stream 3"]),
        ({"lanes": 3}, ["the token is of lane 0 of 2, this is lane 0 of 3"]),
        ({"lengths": (9, 4, 1, 7, 12, 3, 8)}, ["another data set", "fingerprint"]),
    ],
)
def test_a_token_of_another_stream(
    client: segue.Client, tmp_path: Path, fields: dict[str, Any], parts: list[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    case = simple(ours)
    with cases.open_stream(client, case, ours).loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0, 1])[:3], whole=False)
        tokens = loader.state_dict()
    other = simple(theirs, **fields)
    other.name = "other"
    stream = cases.open_stream(client, other, theirs)
    with stream.loader(lanes=[0]) as loader:
        with refused(segue.TokenError, "stream 'other', lane 0", *parts):
            loader.load_state_dict(tokens)
        assert next(iter(loader)).step == 0


def test_the_name_of_the_stream_does_not_matter(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted[:5], whole=False)
        tokens = loader.state_dict()
    case.name = "other"
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        loader.load_state_dict(tokens)
        cases.check(loader, case, wanted[5:])


def lane_of(client: segue.Client, stream: str, index: int) -> dict[str, Any]:
    [report] = [s for s in client.inspect(stream)["streams"] if s["name"] == stream]
    [lane] = [lane for lane in report["lanes"] if lane["lane"] == index]
    return dict(lane)


def test_restoring_raises_the_generation(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path)
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    tokens = loader.state_dict()
    generations = [lane_of(client, "train", 0)["generation"]]
    for begin in (lambda: iter(loader), loader.rounds):
        old = begin()
        loader.load_state_dict(tokens)
        generations.append(lane_of(client, "train", 0)["generation"])
        with refused(segue.StaleIterator, "load_state_dict", "begin a new one"):
            next(old)
    assert generations == sorted(set(generations))
    wanted = cases.in_order(case, [0, 1])
    cases.check(loader, case, wanted)
    loader.load_state_dict(tokens)
    cases.check(loader, case, wanted)


# -- all lanes at one step -------------------------------------------------------------------------


def hold_lane_1(pipe: Connection, directory: Path, case: cases.Case) -> None:
    """Goes through lane 1; commits as many batches as each word from the pipe says."""
    batches = cases.expected(case)(1)
    with segue.open(directory / "store") as client:
        loader = cases.open_stream(client, case, directory).loader(lanes=[1])
        for more in iter(pipe.recv, None):
            cases.check(loader, case, [next(batches) for _ in range(more)], whole=False)
            pipe.send(loader.state_dict())
        loader.close()


def test_the_lanes_of_other_processes_too(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other]
) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0])
    other = processes(hold_lane_1, tmp_path, case)
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader(lanes=[0])
    cases.check(loader, case, wanted[:2], whole=False)
    other.pipe.send(2)
    theirs = other.receive()
    both = loader.state_dict(all_lanes=True, timeout=PATIENCE)
    assert list(both) == ["lane/0", "lane/1"]
    assert both["lane/1"] == theirs["lane/1"]
    assert both["lane/0"] == loader.state_dict()["lane/0"]

    # One that is still behind is waited for, while it works.
    cases.check(loader, case, wanted[2:3], whole=False)
    other.pipe.send(1)
    both = loader.state_dict(all_lanes=True, timeout=PATIENCE)
    assert both["lane/1"] == other.receive()["lane/1"]
    with refused(segue.TimeoutError_, "lane 1: a checkpoint of step 4", "committed step 3 only"):
        cases.check(loader, case, wanted[3:4], whole=False)
        loader.state_dict(all_lanes=True, timeout=0.1)

    # One that has gone too far cannot go back.
    other.pipe.send(5)
    other.receive()
    with refused(segue.LimitError, "lane 1", "rounds()"):
        loader.state_dict(all_lanes=True, timeout=PATIENCE)
    other.pipe.send(None)
    other.join()
    loader.close()

    with stream.loader() as loader:
        loader.load_state_dict(both)
        cases.check(loader, case, cases.in_order(case, [0, 1])[6:])


def test_own_lanes_at_different_steps(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, lanes=3)
    loader = cases.open_stream(client, case, tmp_path).loader(lanes=[0, 1])
    cases.check(loader, case, cases.in_order(case, [0, 1])[:3], whole=False)
    with refused(segue.RoundError, "lane 0 at step 2, lane 1 at step 1"):
        loader.state_dict(all_lanes=True)


# -- kills -----------------------------------------------------------------------------------------


def work_until_told(
    pipe: Connection, directory: Path, case: cases.Case, batches: int, start: str | None
) -> None:
    """Commits so many batches, takes one more, saves some of its states, and waits to be killed."""
    client = segue.open(directory / "store")
    loader = cases.open_stream(client, case, directory).loader(lanes=[0], start=start)
    cases.check(loader, case, list(cases.expected(case)(0))[:batches], whole=False)
    batch = next(iter(loader))
    batch.state_out("h")[...] = 99
    batch.save_state("n", np.full(batch.batch_size, 99))
    arrays = [*batch.sequences.values(), *batch.context.values()]
    arrays += [batch.state(name) for name in case.spec.states]
    pipe.send((batch.step, batch.key, [array.tobytes() for array in arrays]))
    time.sleep(1000)


def test_a_killed_worker_s_batch_is_delivered_again(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """Its last commit holds, at any durability: the server had it. The open batch left nothing."""
    case = simple(tmp_path, interval=1000)
    stream = cases.open_stream(client, case, tmp_path)
    for batches in (3, 0):
        other = processes(work_until_told, tmp_path, case, batches, "fresh")
        step, key, arrays = other.receive()
        kill(other.pid)
        with stream.loader(lanes=[0], start="continue", timeout=PATIENCE) as loader:
            batch = next(iter(loader))
            again = [*batch.sequences.values(), *batch.context.values()]
            again += [batch.state(name) for name in case.spec.states]
            assert (batch.step, batch.key) == (step, key) == (batches, batch.key)
            assert [array.tobytes() for array in again] == arrays
            batch.release()
            del batch, again
            cases.check(loader, case, list(cases.expected(case)(0))[batches:])


def work_late(pipe: Connection, directory: Path, case: cases.Case) -> None:
    """Takes a batch, is stopped, and finds out what has become of it."""
    client = segue.open(directory / "store")
    loader = cases.open_stream(client, case, directory, lease_timeout=LEASE_TIMEOUT).loader(
        lanes=[0], start="fresh"
    )
    cases.check(loader, case, list(cases.expected(case)(0))[:2], whole=False)
    batch = next(iter(loader))
    pipe.send(None)
    pipe.recv()
    try:
        for name in case.spec.states:
            batch.save_state(name, batch.state(name))
        batch.commit()
        pipe.send("committed")
    except segue.FencedError as error:
        pipe.send(str(error))
    batch.release()
    del batch
    try:
        cases.check(loader, case, list(cases.expected(case)(0))[2:], whole=True)
        pipe.send("went on")
    except segue.FencedError as error:
        pipe.send(str(error))


LEASE_TIMEOUT = 0.4


@pytest.mark.parametrize("taken", [True, False])
def test_a_stopped_worker_loses_its_lane(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other], taken: bool
) -> None:
    """What it does when it comes back is read by nobody, and it is told."""
    case = simple(tmp_path, epochs=1)
    other = processes(work_late, tmp_path, case)
    other.receive()
    os.kill(other.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    stream = cases.open_stream(client, case, tmp_path)
    wanted = list(cases.expected(case)(0))
    if taken:
        with stream.loader(lanes=[0], start="continue", timeout=PATIENCE) as loader:
            batch = next(iter(loader))
            assert time.monotonic() - stopped > LEASE_TIMEOUT / 2
            assert batch.step == 2
            batch.release()
            del batch
            cases.check(loader, case, wanted[2:4], whole=False)
            os.kill(other.pid, signal.SIGCONT)
            other.pipe.send(None)
            assert "lane 0 has passed to another holder" in other.receive()
            cases.check(loader, case, wanted[4:])
            assert "lane 0 of stream 'train' has passed to another holder" in other.receive()
    else:
        wait_for(
            lambda: client.status()["streams"][0]["lanes"][0]["state"] == "free",
            "the end of the lease",
        )
        os.kill(other.pid, signal.SIGCONT)
        other.pipe.send(None)
        assert "lane 0 has passed to another holder" in other.receive()
        assert other.receive() == "went on"
    other.join()


def test_a_stopped_worker_keeps_its_lane(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """Without `lease_timeout` a lease ends with its process alone."""
    case = simple(tmp_path)
    other = processes(work_until_told, tmp_path, case, 3, "fresh")
    other.receive()
    os.kill(other.pid, signal.SIGSTOP)
    stream = cases.open_stream(client, case, tmp_path)
    time.sleep(2 * LEASE_TIMEOUT)
    with refused(segue.BusyError, f"process {other.pid}"):
        next(iter(stream.loader(lanes=[0], start="continue", timeout=1)))


def test_server_and_worker_killed_together(
    tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """What was acknowledged at durability="commit" is there; nobody's help is needed."""
    case = simple(tmp_path, durability="commit")
    other = processes(work_until_told, tmp_path, case, 4, None)
    step = other.receive()[0]
    server = little.pid_of(tmp_path / "store")
    os.kill(server, signal.SIGKILL)
    kill(other.pid)
    wait_for(lambda: little.has_ended(server), "the end of the server")
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader(
            lanes=[0], start="continue"
        ) as loader:
            assert step == 4
            cases.check(loader, case, list(cases.expected(case)(0))[step:])


def test_killed_together_at_an_interval(tmp_path: Path, processes: Callable[..., Other]) -> None:
    """Some commits may be lost then, and the others are whole."""
    case = simple(tmp_path, interval=0.02)
    other = processes(work_until_told, tmp_path, case, 4, None)
    other.receive()
    server = little.pid_of(tmp_path / "store")
    os.kill(server, signal.SIGKILL)
    kill(other.pid)
    wait_for(lambda: little.has_ended(server), "the end of the server")
    with segue.open(tmp_path / "store") as client:
        with cases.open_stream(client, case, tmp_path).loader(
            lanes=[0], start="continue"
        ) as loader:
            batch = next(iter(loader))
            at = batch.step
            batch.release()
            del batch
            assert 0 <= at <= 4
            cases.check(loader, case, list(cases.expected(case)(0))[at:])


def test_the_server_killed_again_and_again(client: segue.Client, tmp_path: Path) -> None:
    """The worker lives: it loses nothing and sees no batch twice, whatever the durability."""
    case = simple(tmp_path, interval=1000, epochs=6)
    wanted = cases.in_order(case, [0, 1])
    loader = cases.open_stream(client, case, tmp_path).loader()
    killed = 0
    for begin in range(0, len(wanted), 7):
        cases.check(loader, case, wanted[begin : begin + 7], whole=begin + 7 >= len(wanted))
        kill(server_pid(client))
        killed += 1
    assert killed > 5
    loader.close()


def wait_for_a_lane(pipe: Connection, directory: Path, case: cases.Case) -> None:
    """Asks for a lane that somebody has, and says what came of it: within five seconds."""
    client = segue.open(directory / "store", start=False)
    stream = cases.open_stream(client, case, directory, lease_timeout=PATIENCE)
    try:
        batch = next(iter(stream.loader(lanes=[0], start="continue", timeout=5)))
        pipe.send(f"has batch {batch.step}")
    except segue.Error as error:
        pipe.send(type(error).__name__)


def test_a_server_that_stops_gives_no_lane_to_those_who_wait(
    tmp_path: Path, processes: Callable[..., Other]
) -> None:
    """Its holder comes back to the next server, and goes on."""
    case = simple(tmp_path, lease_timeout=PATIENCE)
    wanted = list(cases.expected(case)(0))
    store = tmp_path / "store"
    with Server(store) as server, segue.open(store, start=False) as client:
        loader = cases.open_stream(client, case, tmp_path).loader(lanes=[0])
        cases.check(loader, case, wanted[:3], whole=False)
        other = processes(wait_for_a_lane, tmp_path, case)
        wait_for(
            lambda: any(
                session["pid"] == other.pid and session["lanes"]
                for session in client.status()["sessions"]
            ),
            "the other to wait",
        )
        assert server.stop() == 0
        with Server(store):
            cases.check(loader, case, wanted[3:])
            assert other.receive() in ("BusyError", "GoneError")
            loader.close()


# -- the server and its users ----------------------------------------------------------------------


def open_and_say(pipe: Connection, directory: Path) -> None:
    pipe.recv()
    with segue.open(directory / "store") as client:
        pipe.send(server_pid(client))
        pipe.recv()


def test_many_open_at_once(tmp_path: Path, processes: Callable[..., Other]) -> None:
    others = [processes(open_and_say, tmp_path) for _ in range(6)]
    for round in range(2):
        for other in others:
            other.pipe.send("go")
        pids = {other.receive() for other in others}
        assert len(pids) == 1
        for other in others:
            other.pipe.send("leave")
            other.join()
        wait_for(lambda: little.has_ended(*pids), "the end of the server")
        others = [] if round else [processes(open_and_say, tmp_path) for _ in range(3)]


def test_the_server_ends_when_its_last_user_has_left(tmp_path: Path) -> None:
    case = simple(tmp_path)
    store = tmp_path / "store"
    first, second = segue.open(store), segue.open(store)
    pid = server_pid(first)
    assert server_pid(second) == pid
    first.close()
    time.sleep(0.1)
    assert not little.has_ended(pid) and server_pid(second) == pid
    stream = cases.open_stream(second, case, tmp_path)
    batch = next(iter(stream.loader()))
    array = batch.sequences["x"]
    copy = array.copy()
    second.close()
    wait_for(lambda: little.has_ended(pid), "the end of the server")
    assert (array == copy).all() and batch.sequences["x"] is array
    assert not (store / "segue.sock").exists()
    with segue.open(store) as third:
        assert server_pid(third) != pid
        assert cases.open_stream(third, case, tmp_path).records == 8


# -- streams that are not kept ---------------------------------------------------------------------


def test_evaluation_disturbs_nobody(client: segue.Client, tmp_path: Path) -> None:
    """Loaders of a stream with persist=False go their own ways, at once; the store has no trace."""
    case = simple(tmp_path, persist=False, epochs=1)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    one, two = stream.loader(), stream.loader()
    cases.check(one, case, wanted[:5], whole=False)
    cases.check(two, case, wanted)
    cases.check(two, case, wanted)  # again from the beginning
    tokens = two.state_dict()
    del tokens
    one.close()
    two.close()
    # A token brings back a position, of this kind of stream as well.
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:4], whole=False)
        tokens = loader.state_dict()
    with stream.loader() as loader:
        loader.load_state_dict(tokens)
        cases.check(loader, case, wanted[4:])
    names = [s["name"] for s in client.inspect()["streams"] if s.get("lanes")]
    assert "train" not in names
    # The same stream can be kept under the same name, since nothing was.
    with refused(segue.SpecError, "persist: false in the store, true asked for"):
        cases.open_stream(client, case, tmp_path, persist=True)


# -- states after the last segment -----------------------------------------------------------------


def test_final_states_are_kept_by_key(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, keep_final=True, epochs=1, durability="commit")
    finals: dict[str, dict[str, list[Any]]] = {}
    for lane in range(2):
        for batch in cases.expected(case)(lane):
            for row in np.flatnonzero(batch.is_last):
                key = batch.next_key[row].decode().removeprefix("STOP:")
                finals[key] = {n: batch.state_out[n][row].tolist() for n in batch.state_out}
    assert len(finals) == 8
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        with refused(segue.NotFoundError, "data.tfrecord:0"):
            client.get("data.tfrecord:0", "train")
        cases.check(loader, case, cases.in_order(case, [0, 1]))
        loader.state_dict()
    for restarted in (False, True):
        if restarted:
            kill(server_pid(client))
        for key, states in finals.items():
            for report in (client.get(key), client.get(key, stream="train")):
                found = kept_states(report)
                assert found == states, f"{key}: {found}, not {states}"


def kept_states(report: Any) -> dict[str, list[Any]]:
    """{name: values} of the one final value in a report of GET."""
    [found] = report["found"]
    assert found["stream"] == "train" and found["kind"] == "final"
    return {
        name: np.array(state["values"], state["dtype"]).reshape(state["shape"]).tolist()
        for name, state in found["states"].items()
    }


# -- damaged records -------------------------------------------------------------------------------


def test_damaged_records_are_passed_over_and_counted(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, on_error="skip")
    path = tmp_path / "data.tfrecord"
    offsets = [int(record.key.rpartition(":")[2]) for record in case.files[0].records]
    data = bytearray(path.read_bytes())
    for bad in (2, 3, 7):
        data[offsets[bad] + 30] ^= 1
        case.files[0].records[bad] = dataclasses.replace(
            case.files[0].records[bad], damaged=True
        )
    path.write_bytes(data)
    wanted = cases.in_order(case, [0, 1])
    seen = {re.sub(rb".*:", b"", key) for batch in wanted for key in batch.key}
    assert seen == {str(offsets[i]).encode() for i in (0, 1, 4, 5, 6)}
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted)
    with cases.open_stream(client, case, tmp_path).loader(start="fresh") as loader:
        cases.check(loader, case, wanted[:5], whole=False)
        tokens = loader.state_dict()
        cases.check(loader, case, wanted[5:])
        loader.load_state_dict(tokens)
        cases.check(loader, case, wanted[5:])

"""Streams that grow: opened again with more epochs, wherever their lanes stand.

What is delivered must be what the model says of the whole list of ends, whenever each was added;
so what came before an end was added is the same with and without it.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import oracle
import segue
from test_cli import run
from test_ends import exported, told
from test_resume import PATIENCE, kill, refused, server_pid, simple

RUNS = int(os.environ.get("SEGUE_TEST_RUNS", "25"))
UNEVEN = (9, 1, 1, 7, 2, 1, 8, 3, 1)  # of three lanes, which end at different steps
FEW = 9  # batches that are read of a lane without an end


def by(case: cases.Case, ends: int) -> cases.Case:
    """The case as it was when its input had so many ends."""
    spec = dataclasses.replace(case.spec, grown=case.spec.grown[: ends - 1])
    return dataclasses.replace(case, spec=spec)


def batches_of(case: cases.Case, lane: int, most: int) -> list[oracle.Batch]:
    model = oracle.Model([file.records for file in case.files], case.spec, cases.update)
    return list(islice(model.batches(lane), most))


def opened(client: segue.Client, case: cases.Case, place: Path, ends: int = 0) -> segue.Stream:
    """With as many epochs as its first `ends` ends say; 0: all."""
    return cases.open_stream(client, case, place, epochs=by(case, ends or 99).spec.last)


class Lane:
    """How far the workers of one lane are, and where it ends by each of the ends."""

    def __init__(self, case: cases.Case, lane: int) -> None:
        self.case, self.lane, self.step = case, lane, 0
        self.stops = [
            len(batches_of(by(case, ends), lane, 400))
            for ends in range(1, len(case.spec.grown) + 2)
            if by(case, ends).spec.last is not None
        ]
        endless = case.spec.last is None
        most = max(self.stops, default=0) + FEW if endless else 400
        self.wanted = batches_of(case, lane, most)
        if endless:
            self.stops.append(len(self.wanted))

    def go(self, stream: segue.Stream, ends: int, count: int) -> None:
        """Read `count` batches, or all that there are by so many ends; then it has ended."""
        stop = min(self.stops[ends - 1], self.step + count)
        case = by(self.case, ends)
        whole = stop == self.stops[ends - 1] and case.spec.last is not None
        with stream.loader(lanes=[self.lane], start="continue") as loader:
            cases.check(loader, case, self.wanted[self.step : stop], whole=whole)
        self.step = stop


def draw(rng: np.random.Generator, seed: int) -> cases.Case:
    first = int(rng.integers(2)) if seed % 4 == 0 else 0
    totals = np.cumsum(rng.integers(1, 3, int(rng.integers(2, 4)))).tolist()
    grown = [first + int(total) for total in totals]
    fields: dict[str, Any] = {
        "epochs": grown[0],
        "grown": tuple(grown[1:]) + ((None,) if rng.integers(4) == 0 else ()),
        "first_epoch": first,
        "tail": ["shrink", "stop", "pad"][seed % 3],
        "epoch_end": ["continue", "drain"][seed // 3 % 2],
        "on_error": "skip" if rng.integers(6) == 0 else "raise",
    }
    case = cases.make(f"grows-{seed}", rng, **fields)
    spec = case.spec
    if spec.last is None and spec.tail == "stop" and spec.epoch_end == "drain":
        records = sum(len(file.records) for file in case.files)
        spec = dataclasses.replace(spec, batch_size=1, lanes=min(spec.lanes, records))
    if spec.last is None and spec.on_error == "skip":
        spec = dataclasses.replace(spec, grown=spec.grown[:-1])
    return dataclasses.replace(
        case, spec=spec, reading="batches", options={**case.options, "persist": True}
    )


@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.filterwarnings("ignore:no batches")
def test_growing_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Each lane anywhere: not begun, in its midst, in its tail, at its end; servers die."""
    rng = np.random.default_rng([seed, 77])
    case = draw(rng, seed)
    cases.write(case, tmp_path)
    lanes = [Lane(case, lane) for lane in range(case.spec.lanes)]
    client = segue.open(tmp_path / "store")
    for ends in range(1, len(case.spec.grown) + 2):
        stream = opened(client, case, tmp_path, ends)
        for lane in lanes:
            last = ends == len(case.spec.grown) + 1
            left = lane.stops[ends - 1] - lane.step
            near = max(0, left - int(rng.integers(3)))
            lane.go(stream, ends, left if last else int(rng.choice([0, left // 2, near, left])))
        if rng.integers(2):
            kill(server_pid(client))
        if rng.integers(2):
            client.close()
            client = segue.open(tmp_path / "store")
    stored = client.inspect(case.name)["streams"][0]
    assert stored["ends"] == [case.spec.epochs, *case.spec.grown]
    assert {lane["lane"]: lane["step"] for lane in stored["lanes"]} == {
        lane.lane: lane.step for lane in lanes
    }
    client.close()


# -- leases ----------------------------------------------------------------------------------------


def grows(directory: Path, lengths: tuple[int, ...] = UNEVEN, **fields: Any) -> cases.Case:
    """One epoch, then three, then five."""
    return simple(directory, lengths, **{"epochs": 1, "grown": (3, 5), "lanes": 1, **fields})


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("before", [1, 5, 99], ids=["begun", "in its tail", "ended"])
def test_a_lease_in_force_ends_where_it_would_have(tmp_path: Path, before: int, tail: str) -> None:
    case = grows(tmp_path, tail=tail, batch_size=3)
    lane = Lane(case, 0)
    step, end = min(before, lane.stops[0]), lane.stops[0]
    with segue.open(tmp_path / "store") as client, segue.open(tmp_path / "store") as other:
        stream = opened(client, case, tmp_path, 1)
        with stream.loader() as loader:
            cases.check(loader, by(case, 1), lane.wanted[:step], whole=False)
            opened(other, case, tmp_path, 2)
            cases.check(loader, by(case, 1), lane.wanted[step:end])
            assert told(loader, case)[0] == 0
        lane.step = end
        lane.go(stream, 2, 99)  # through the stream that was opened before it grew
        lane.go(opened(other, case, tmp_path), 3, 99)


def test_a_server_that_dies_brings_a_lease_to_the_newest_end(tmp_path: Path) -> None:
    """The library opens the stream again as it did before; its lease is then a new one."""
    case = grows(tmp_path)
    lane = Lane(case, 0)
    with segue.open(tmp_path / "store") as client, segue.open(tmp_path / "store") as other:
        with opened(client, case, tmp_path, 1).loader() as loader:
            cases.check(loader, case, lane.wanted[:2], whole=False)
            opened(other, case, tmp_path)
            kill(server_pid(other))
            cases.check(loader, case, lane.wanted[2:])
        # And so it is for one that does nothing but wait for its turn.
        assert opened(client, case, tmp_path).loader(start="continue").state_dict()


def test_who_waits_for_a_lane_gets_it_with_the_newest_end(tmp_path: Path) -> None:
    """It asked before the stream grew, and gets the lane after another has gone beyond that end."""
    case = grows(tmp_path)
    lane = Lane(case, 0)
    with segue.open(tmp_path / "store") as client, segue.open(tmp_path / "store") as other:
        waits = opened(client, case, tmp_path, 1).loader(start="continue")
        lane.go(opened(other, case, tmp_path, 2), 2, lane.stops[0] + 2)
        cases.check(waits, case, lane.wanted[lane.step : lane.stops[1]], whole=False)
        assert told(waits, case)[0] == 0
        waits.close()


# -- what is asked for -----------------------------------------------------------------------------


def test_a_stream_can_grow_and_not_shrink(client: segue.Client, tmp_path: Path) -> None:
    case = grows(tmp_path)

    def ask(epochs: int | None) -> list[int | None]:
        cases.open_stream(client, case, tmp_path, epochs=epochs).close()
        return list(client.inspect("train")["streams"][0]["ends"])

    assert [ask(2), ask(2), ask(4)] == [[2], [2], [2, 4]]
    with refused(segue.SpecError, "epochs=3 is asked for", "has epochs=4 (it grew: 2, 4)",
                 "Give epochs=4 or more", "another name"):  # fmt: skip
        ask(3)
    kill(server_pid(client))
    with refused(segue.SpecError, "epochs=2 is asked for"):  # no other session has it open
        ask(2)
    assert [ask(4), ask(None)] == [[2, 4], [2, 4, None]]
    with refused(segue.SpecError, "epochs=9 is asked for", "has epochs=None"):
        ask(9)
    assert "epochs endless, grown from 4, 2" in run("inspect", client.dir).stdout


def test_what_it_grew_to_is_on_disk(client: segue.Client, tmp_path: Path) -> None:
    """Before it is said: whatever becomes of the server then."""
    case = grows(tmp_path)
    for epochs in range(1, 8):
        cases.open_stream(client, case, tmp_path, epochs=epochs)
        kill(server_pid(client))
        ends = client.inspect("train")["streams"][0]["ends"]
        assert ends == list(range(1, epochs + 1))


def test_a_stream_grows_so_often(client: segue.Client, tmp_path: Path) -> None:
    case = grows(tmp_path)
    for epochs in range(1, 65):
        cases.open_stream(client, case, tmp_path, epochs=epochs).close()
    for epochs in (65, None):
        with refused(segue.SpecError, f"epochs={epochs} is asked for", "64 ends", "first_epoch=64"):
            cases.open_stream(client, case, tmp_path, epochs=epochs)
    longest = dataclasses.replace(
        case, spec=dataclasses.replace(case.spec, grown=tuple(range(2, 65)))
    )
    with cases.open_stream(client, longest, tmp_path, epochs=64).loader() as loader:
        cases.check(loader, longest, cases.in_order(longest, [0]))
        token = loader.state_dict()
    with cases.open_stream(client, longest, tmp_path, epochs=64).loader() as loader:
        loader.load_state_dict(token)
        assert loader.state_dict() == token


def test_one_that_keeps_nothing_does_not_grow(client: segue.Client, tmp_path: Path) -> None:
    case = grows(tmp_path, persist=False)
    stream = opened(client, case, tmp_path, 1)
    with refused(segue.SpecError, "epochs: 1 in use, 3 asked for", "persist=False"):
        opened(client, case, tmp_path, 2)
    stream.close()
    spec = dataclasses.replace(case.spec, epochs=3, grown=())
    case = dataclasses.replace(case, spec=spec)
    with opened(client, case, tmp_path).loader() as loader:  # nobody has it any more
        cases.check(loader, case, cases.in_order(case, [0]))


def test_many_at_once(tmp_path: Path) -> None:
    """Each gets what it asks for, or learns that there is more; the list is one that rises."""
    case = grows(tmp_path)
    clients = [segue.open(tmp_path / "store") for _ in range(6)]
    refusals = 0
    for round_ in range(8):
        for i, client in enumerate(clients):
            try:
                cases.open_stream(client, case, tmp_path, epochs=1 + round_ * 3 + i % 4)
            except segue.SpecError:
                refusals += 1
    ends = clients[0].inspect("train")["streams"][0]["ends"]
    assert ends == sorted(set(ends)) and ends[-1] == 25 and 0 < refusals
    for client in clients:
        client.close()


# -- checkpoints and tokens ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:no batches")
def test_an_end_that_was_is_none_any_more(client: segue.Client, tmp_path: Path) -> None:
    """Checkpoints of it do not stand for later steps, which the lane has by now."""
    case = grows(tmp_path, lanes=3)
    lanes = [Lane(case, lane) for lane in range(3)]
    last = max(lane.stops[0] for lane in lanes)
    stream = opened(client, case, tmp_path, 1)
    with stream.loader() as loader:
        cases.check(loader, by(case, 1), cases.in_order(by(case, 1), [0, 1, 2]))
        tokens = loader.state_dict(all_lanes=True)
    assert stream.checkpoint() == stream.checkpoint(last) == tokens
    assert all(one["ended"] for one in stream.checkpoints())
    opened(client, case, tmp_path, 2)
    assert not any(one["ended"] for one in stream.checkpoints())
    with refused(segue.NotFoundError, f"at step {last}"):
        stream.checkpoint(last)
    there = exported(tmp_path / "store", tmp_path / "early", "--step", last)
    assert list(there) == [f"lane/{lane.lane}" for lane in lanes if lane.stops[0] == last]
    for lane in lanes:
        lane.step = lane.stops[0]
        lane.go(stream, 2, 99)
    with stream.loader(start="continue") as loader:
        assert told(loader, case)[0] == 0
        tokens = loader.state_dict(all_lanes=True)
    assert stream.checkpoint() == tokens == exported(tmp_path / "store", tmp_path / "out")


def test_who_knows_the_end_that_was_goes_by_it(tmp_path: Path) -> None:
    """A training that is at work when another session lets the stream grow saves as before."""
    case = grows(tmp_path, lanes=3)
    lanes = [Lane(case, lane) for lane in range(3)]
    longest = max(lanes, key=lambda lane: lane.stops[0])
    others = [lane for lane in lanes if lane is not longest]
    with segue.open(tmp_path / "store") as one, segue.open(tmp_path / "store") as two:
        stream = opened(one, case, tmp_path, 1)
        held, free = (stream.loader(lanes=[lane.lane]) for lane in others)
        loader = stream.loader(lanes=[longest.lane])
        for each, lane in ((held, others[0]), (free, others[1]), (loader, longest)):
            cases.check(each, by(case, 1), lane.wanted[: lane.stops[0]])
        before = loader.state_dict(all_lanes=True)
        free.close()
        grown = opened(two, case, tmp_path, 2)
        assert loader.state_dict(all_lanes=True, timeout=PATIENCE) == before
        held.close()
        assert loader.state_dict(all_lanes=True, timeout=PATIENCE) == before
        loader.close()
        # Who knows of the next end waits for lanes that are behind.
        longest.step = longest.stops[0]
        with grown.loader(lanes=[longest.lane], start="continue") as loader:
            cases.check(loader, case, longest.wanted[longest.step :][:1], whole=False)
            with refused(segue.TimeoutError_, "nobody holds it"):
                loader.state_dict(all_lanes=True, timeout=0.2)


@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
def test_tokens_of_before_and_after(tmp_path: Path, tail: str, epoch_end: str) -> None:
    """They are the same bytes with and without what was added, and go on with it."""
    case = grows(tmp_path, tail=tail, epoch_end=epoch_end, batch_size=3)
    lane = Lane(case, 0)
    tokens: dict[int, dict[str, bytes]] = {}
    with segue.open(tmp_path / "whole") as client:
        with opened(client, case, tmp_path).loader() as loader:  # made with one epoch: below
            assert loader.lanes == [0]
    with segue.open(tmp_path / "store") as client:
        for ends in (1, 2, 3):
            stream = opened(client, case, tmp_path, ends)
            while lane.step < lane.stops[ends - 1]:
                with stream.loader(start="continue") as loader:
                    wanted = lane.wanted[lane.step : lane.step + 1]
                    cases.check(loader, case, wanted, whole=False)
                    lane.step += 1
                    tokens[lane.step] = loader.state_dict()
        for step in (1, lane.stops[0] - 1, lane.stops[0], lane.stops[0] + 1, lane.stops[1], lane.step):
            with opened(client, case, tmp_path).loader() as loader:
                loader.load_state_dict(tokens[step])
                assert loader.state_dict() == tokens[step]
                cases.check(loader, case, lane.wanted[step:])
    with segue.open(tmp_path / "other") as client:
        stream = opened(client, case, tmp_path, 1)
        with stream.loader() as loader:
            loader.load_state_dict(tokens[lane.stops[0]])
            assert loader.state_dict() == tokens[lane.stops[0]]
        with refused(segue.TokenError, "open this stream with epochs=3 first"):
            stream.loader().load_state_dict(tokens[lane.stops[0] + 1])
        opened(client, case, tmp_path, 2)
        with stream.loader() as loader:
            loader.load_state_dict(tokens[lane.stops[0] + 1])
            cases.check(loader, by(case, 2), lane.wanted[lane.stops[0] + 1 : lane.stops[1]])
        with refused(segue.TokenError, "with epochs=5 first"):
            stream.loader().load_state_dict(tokens[lane.step])


@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
def test_a_token_of_another_list(client: segue.Client, tmp_path: Path, epoch_end: str) -> None:
    """Where it stands before what differs, or where each epoch drains, that does not matter."""
    case = grows(tmp_path, epoch_end=epoch_end)
    lane = Lane(case, 0)
    for ends in (1, 2, 3):
        stream = opened(client, case, tmp_path, ends)
    with stream.loader() as loader:
        cases.check(loader, case, lane.wanted[: lane.stops[0]], whole=False)
        early = loader.state_dict()
        cases.check(loader, case, lane.wanted[lane.stops[0] : lane.stops[0] + 2], whole=False)
        late = loader.state_dict()
    spec = dataclasses.replace(case.spec, grown=(2, 6))
    other = dataclasses.replace(case, spec=spec, name="other")
    for ends in (1, 2, 3):
        stream = opened(client, other, tmp_path, ends)
    with stream.loader() as loader:
        loader.load_state_dict(early)
        cases.check(loader, other, Lane(other, 0).wanted[lane.stops[0] :])
    with stream.loader() as loader:
        if epoch_end == "drain":
            loader.load_state_dict(late)
            cases.check(loader, other, Lane(other, 0).wanted[lane.stops[0] + 2 :])
        else:
            with refused(segue.TokenError, "grew otherwise", "were 1, 3, here", "are 1, 2, 6"):
                loader.load_state_dict(late)
    made = dataclasses.replace(
        case, name="made", spec=dataclasses.replace(case.spec, epochs=3, grown=())
    )
    with refused(segue.TokenError, "made with epochs=1, and this one with epochs=3",
                 "another name with epochs=1 instead", "open it again with epochs=3"):  # fmt: skip
        opened(client, made, tmp_path).loader().load_state_dict(early)


# -- reading by epochs, and from one ---------------------------------------------------------------


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
def test_epochs_over_an_end(client: segue.Client, tmp_path: Path, tail: str) -> None:
    case = grows(tmp_path, lanes=2, tail=tail, epoch_end="drain")
    case.reading = "epochs"
    read: list[int] = []
    for ends in (1, 2, 3):
        with opened(client, case, tmp_path, ends).loader(start="continue") as loader:
            for epoch in loader.epochs():
                read.append(epoch.index)
                wanted = [one for one in cases.in_order(case, [0, 1]) if one.epoch[0] == epoch.index]
                for batch, want in zip(epoch, wanted, strict=True):
                    cases.compare(batch, want)
                    cases.work(batch, case)
                    del batch
    assert read == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
def test_a_stream_begins_with_a_later_epoch(tmp_path: Path, epoch_end: str) -> None:
    """Its numbers, epochs and order are those that a stream from 0 has there; its states are new."""
    case = simple(tmp_path, UNEVEN, shuffle=True, seed=7, epochs=4, first_epoch=2, lanes=2,
                  epoch_end=epoch_end)  # fmt: skip
    wanted = cases.in_order(case, [0, 1])
    assert {epoch for batch in wanted for epoch in batch.epoch} == {2, 3}
    assert min(min(batch.insertion_index) for batch in wanted) == 2 * len(UNEVEN)
    with segue.open(tmp_path / "store") as client:
        with opened(client, case, tmp_path).loader() as loader:
            cases.check(loader, case, wanted[:5], whole=False)
            tokens = loader.state_dict()
        with opened(client, case, tmp_path).loader(start="fresh") as loader:
            cases.check(loader, case, wanted)
        with opened(client, case, tmp_path).loader() as loader:
            loader.load_state_dict(tokens)
            cases.check(loader, case, wanted[5:])
        with refused(segue.SpecError, "first_epoch: 2 in the store, 0 asked for", "another name"):
            cases.open_stream(client, case, tmp_path, first_epoch=0)
        for epochs in (1, 2):
            with refused(segue.ArgumentError, f"epochs is {epochs} and first_epoch 2"):
                cases.open_stream(client, case, tmp_path, epochs=epochs)
        for value in (-1, 2**32, "2"):
            with pytest.raises((segue.ArgumentError, TypeError)):
                cases.open_stream(client, case, tmp_path, epochs=None, first_epoch=value)


def test_going_on_with_another_num_unroll(client: segue.Client, tmp_path: Path) -> None:
    """What the error of the first says leads to the second."""
    case = simple(tmp_path, UNEVEN, epochs=2)
    with opened(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0, 1]))
    with refused(segue.SpecError, "num_unroll: 2 in the store, 3 asked for", "another name",
                 "first_epoch", 'client.drop("train")', 'segue stream rm DIR "train"'):  # fmt: skip
        cases.open_stream(client, case, tmp_path, num_unroll=3)
    spec = dataclasses.replace(case.spec, num_unroll=3, first_epoch=2, epochs=3)
    case = dataclasses.replace(case, name="train2", spec=spec)
    with opened(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(client, case, tmp_path).loader(start="fresh") as loader:
            cases.check(loader, case, cases.in_order(case, [0, 1]))

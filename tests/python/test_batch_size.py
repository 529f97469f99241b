"""Other batch sizes on the way: what does not fit waits with its states, and comes back first.

What follows a change is the model's (`sizes` of oracle.Spec), with the states that were saved; also
from tokens, after kills, by other workers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import oracle
import segue
from test_cli import run
from test_resume import (  # noqa: F401  # `processes` is a fixture
    Other,
    faulty,
    kill,
    lane_of,
    of_lanes,
    processes,
    refused,
    server_pid,
    simple,
)

LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5, 2, 6, 11, 3, 7, 1, 4)
SIZES = {2: 5, 4: 1, 5: 1, 7: 0, 8: 0, 10: 3, 13: 7, 15: 2}


def schedule(directory: Path, sizes: dict[int, int] = SIZES, **fields: Any) -> cases.Case:
    return simple(directory, LENGTHS, sizes=sizes, **{"epochs": 3, **fields})


def test_the_schedule_of_the_original(client: segue.Client, tmp_path: Path) -> None:
    """Sequences of two segments each; batch t has t rows, 0 to 7."""
    case = simple(tmp_path, (4,) * 40, lanes=1, epochs=1, batch_size=3)
    got = []
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        batches = iter(loader)
        for size in range(8):
            loader.set_batch_size(size)
            assert loader.batch_size == size
            batch = next(batches)
            assert batch.step == batch.batch_size == size
            assert batch.state("h").shape == (size, 4) and batch.mask.shape == (size, 2)
            cases.work(batch, case)
            got.append(sorted(batch.insertion_index.tolist()))
            del batch
    assert got == [
        [], [0], [0, 1], [1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7, 8], list(range(6, 12)),
        list(range(9, 16)),
    ]  # fmt: skip


@pytest.mark.parametrize("reading", ["batches", "rounds"])
@pytest.mark.parametrize("tail", ["shrink", "stop"])
@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
def test_a_schedule_is_the_models(
    client: segue.Client, tmp_path: Path, reading: str, tail: str, epoch_end: str
) -> None:
    case = schedule(tmp_path, tail=tail, epoch_end=epoch_end)
    case.reading = reading
    wanted = cases.in_order(case, [0, 1])
    assert {0, 1, 3, 5} <= {batch.batch_size for batch in wanted}
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted)


def test_what_was_left_out_comes_with_a_smaller_size(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, (4,) * 3, lanes=1, epochs=1, batch_size=2, tail="stop")
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        for count in (2, 0):  # the size that it has changes nothing
            for batch in loader:
                cases.work(batch, case)
                count -= 1
            assert (count, loader.undelivered) == (0, 2)
            loader.set_batch_size(2)
            assert loader.undelivered == 2
        loader.set_batch_size(1)
        assert loader.undelivered == 0
        got = []
        for batch in loader:
            got += batch.insertion_index.tolist()
            cases.work(batch, case)
        assert (got, loader.undelivered) == ([2, 2], 0)


def test_epochs_of_which_batches_have_no_rows(client: segue.Client, tmp_path: Path) -> None:
    case = schedule(tmp_path, epoch_end="drain", lanes=1)
    wanted = cases.in_order(case, [0])
    got: list[int] = []
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        for epoch in loader.epochs():
            for batch in epoch:
                assert set(batch.epoch.tolist()) <= {epoch.index}
                want = wanted[len(got)]
                cases.compare(batch, want)
                cases.work(batch, case)
                got.append(epoch.index)
                if len(got) in SIZES:
                    loader.set_batch_size(SIZES[len(got)])
    assert len(got) == len(wanted) and got == sorted(got) and set(got) == {0, 1, 2}


def test_tokens_bring_back_the_size_of_their_step(client: segue.Client, tmp_path: Path) -> None:
    """From each step, in place and in another store; the stream's own size from a fresh start."""
    case = schedule(tmp_path, lanes=1)
    wanted = cases.in_order(case, [0])
    stream = cases.open_stream(client, case, tmp_path)
    tokens = []
    with stream.loader() as loader:
        for want in wanted:
            tokens.append((loader.batch_size, loader.state_dict()))
            cases.check(loader, case, [want], whole=False)
        sizes = [size for size, _ in tokens]
        assert sizes[:9] == [2, 2, 2, 5, 5, 1, 1, 1, 0]
        for step in (16, 3, 9, 6, 0, 14, 11):
            size, token = tokens[step]
            loader.load_state_dict(token)
            assert loader.batch_size == size and loader.state_dict() == token
            cases.check(loader, case, wanted[step : step + 4], whole=False)
    with segue.open(tmp_path / "elsewhere") as other:
        theirs = cases.open_stream(other, case, tmp_path)
        for step in (9, 6):
            with theirs.loader() as loader:
                loader.load_state_dict(tokens[step][1])
                assert loader.batch_size == tokens[step][0]
                cases.check(loader, case, wanted[step:])
    with stream.loader(start="fresh") as loader:
        loader.state_dict()
        assert loader.batch_size == 2
        cases.check(loader, case, wanted)


def test_a_token_with_a_size_needs_a_store(client: segue.Client, tmp_path: Path) -> None:
    """Whose lanes are not stored are run anew from their beginning when the server is gone."""
    case = schedule(tmp_path, lanes=1)
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        own = loader.state_dict()
        loader.set_batch_size(3)
        other = loader.state_dict()
    with segue.open(tmp_path / "elsewhere") as elsewhere:
        stream = cases.open_stream(elsewhere, case, tmp_path, persist=False)
        with stream.loader() as loader:
            with refused(segue.TokenError, "was given another batch_size", "persist = true"):
                loader.load_state_dict(other)
            loader.load_state_dict(own)


@pytest.mark.parametrize("keep_final", [False, True])
def test_the_size_stays_in_the_store(
    client: segue.Client, tmp_path: Path, keep_final: bool
) -> None:
    """For later loaders, after each kill of the server, whether it had committed since or not."""
    case = schedule(tmp_path, lanes=1, keep_final=keep_final, interval=100.0)
    wanted = cases.in_order(case, [0])
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    for at, want in enumerate(wanted):
        cases.check(loader, case, [want], whole=False)
        if at % 3 == 0:
            kill(server_pid(client))
        if at % 4 == 1:
            size = loader.batch_size
            loader.close()
            loader = stream.loader(start="continue")
            loader.state_dict()
            assert loader.batch_size == size
    assert next(iter(loader), None) is None
    loader.close()


def test_a_change_before_the_first_batch(client: segue.Client, tmp_path: Path) -> None:
    case = schedule(tmp_path, {0: 4})
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        assert loader.batch_size == stream.batch_size == 2
        loader.set_batch_size(4)
        assert loader.batch_size == 4
        cases.check(loader, case, wanted[:6], whole=False)
    with refused(segue.StartError, "step 3"):
        stream.loader().set_batch_size(5)
    with stream.loader(start="continue") as loader:
        loader.set_batch_size(4)
        cases.check(loader, case, wanted[6:])


def test_the_same_size_changes_nothing(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted[:4], whole=False)
        before = lane_of(client, "train", 0)["generation"]
        tokens = loader.state_dict()
        loader.set_batch_size(2)
        assert lane_of(client, "train", 0)["generation"] == before
        assert loader.state_dict() == tokens
        loader.set_batch_size(3)
        loader.set_batch_size(3)
        assert lane_of(client, "train", 0)["generation"] == before + 1
        loader.set_batch_size(2)
        cases.check(loader, case, wanted[4:])


def test_inside_a_round_it_commits_the_round(client: segue.Client, tmp_path: Path) -> None:
    case = simple(tmp_path, sizes={1: 4})
    wanted = cases.in_order(case, [0, 1])
    loader = cases.open_stream(client, case, tmp_path).loader()
    rounds = loader.rounds()
    first = next(rounds)
    cases.work(first[0], case)
    with refused(segue.UnsavedError, "batch 0 of lane 1", "'h', 'n'"):
        loader.set_batch_size(4)
    assert loader.batch_size == 2 and not first[0].committed
    cases.work(first[1], case)
    held = [batch.sequences["x"] for batch in first]
    content = [array.copy() for array in held]
    loader.set_batch_size(4)
    assert all(batch.committed for batch in first)
    for batch, want in zip(next(rounds), wanted[2:]):
        cases.compare(batch, want)
    for array, copy in zip(held, content):
        assert (array == copy).all()
    with refused(segue.UnsavedError, "batch 1 of lane 0"):
        loader.set_batch_size(2)


def test_arrays_that_are_held_take_no_place(client: segue.Client, tmp_path: Path) -> None:
    """Each change is new memory; what was taken before stays as it is."""
    case = schedule(tmp_path, {}, lanes=1, depth=2)
    kept = []
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        for number, batch in enumerate(itertools.islice(loader, 12)):
            cases.work(batch, case)
            array = batch.sequences["x"]
            kept.append((array, array.copy()))
            loader.set_batch_size(number % 4)
            del batch
    for array, copy in kept:
        assert (array == copy).all()


@pytest.mark.parametrize(
    ("fields", "size", "parts"),
    [
        ({"tail": "pad"}, 3, ['tail="pad"', "2 rows"]),
        ({"persist": False}, 3, ["persist = false"]),
        ({}, -1, ["-1 is not a number of rows"]),
        ({}, 2**20 + 1, ["1048577", "1048576 rows at most"]),
        ({}, 2**40, ["1099511627776 is not a number of rows"]),
        (
            {"states": {"h": oracle.State("float32", (1 << 12, 1 << 8))}},
            256,
            ["4194304 bytes", "batch_size 256", "give a smaller batch_size"],
        ),
    ],
)
def test_sizes_that_cannot_be(
    client: segue.Client, tmp_path: Path, fields: dict[str, Any], size: int, parts: list[str]
) -> None:
    """The lanes stay as they are, and the loop goes on."""
    case = simple(tmp_path, **fields)
    loader = cases.open_stream(client, case, tmp_path).loader(lanes=[0])
    with refused(segue.ArgumentError, *parts):
        loader.set_batch_size(size)
    loader.set_batch_size(2)  # its own is always fine
    assert loader.batch_size == 2
    batch = next(iter(loader))
    assert batch.step == 0 and batch.batch_size == 2
    for other in (1.5, "3", None):
        with refused(segue.ArgumentError, f"batch_size: {other!r} is not a whole number"):
            loader.set_batch_size(other)  # type: ignore[arg-type]


def test_a_closed_loader_sets_nothing(client: segue.Client, tmp_path: Path) -> None:
    loader = cases.open_stream(client, simple(tmp_path), tmp_path).loader()
    loader.close()
    with refused(segue.ClosedError, "closed"):
        loader.set_batch_size(3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), segue.GoneError("gone")])
def test_a_change_that_is_interrupted_is_repeated(
    client: segue.Client, tmp_path: Path, error: BaseException
) -> None:
    """Between two lanes: what differs is said, and the next call sees to it."""
    case = schedule(tmp_path, {1: 3})
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    faults = faulty(stream)
    loader = stream.loader()
    cases.check(loader, case, wanted[:2], whole=False)
    faults[1, "set_batch_size"] = error
    with pytest.raises(type(error)):
        loader.set_batch_size(3)
    with refused(segue.RoundError, "lane 0 has 3, lane 1 has 2"):
        _ = loader.batch_size
    faults.clear()
    loader.set_batch_size(3)
    cases.check(loader, case, wanted[2:])


def test_a_change_while_the_server_is_gone(client: segue.Client, tmp_path: Path) -> None:
    """What was committed comes to the new server first."""
    case = schedule(tmp_path, {3: 1, 6: 4}, lanes=1, interval=100.0)
    wanted = cases.in_order(case, [0])
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        for step, size in case.spec.sizes.items():
            cases.check(loader, case, wanted[step - 3 : step], whole=False)
            kill(server_pid(client))
            loader.set_batch_size(size)
            assert loader.batch_size == size
        cases.check(loader, case, wanted[6:])


def work_and_die(pipe: Any, directory: Path, case: cases.Case, upto: int) -> None:
    """Commits batches up to a step, with the sizes of the case, and waits to be killed."""
    with segue.open(directory / "store") as client:
        stream = cases.open_stream(client, case, directory)
        with stream.loader(start="continue") as loader:
            at = loader.state_dict()
            begin = loader._handles[0].committed
            wanted = cases.in_order(case, [0])
            cases.check(loader, case, wanted[begin:upto], whole=False)
            pipe.send((begin, len(at)))
            pipe.recv()


def test_workers_that_are_killed(
    client: segue.Client, tmp_path: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    """Whoever comes next goes on with the size that was set, and with what waits."""
    case = schedule(tmp_path, lanes=1, interval=0.01)
    wanted = cases.in_order(case, [0])
    for upto in range(3, len(wanted), 4):
        worker = processes(work_and_die, tmp_path, case, upto)
        begin, _ = worker.receive()
        assert begin <= upto
        kill(worker.pid)
    with cases.open_stream(client, case, tmp_path).loader(start="continue") as loader:
        loader.state_dict()
        begin = loader._handles[0].committed
        cases.check(loader, case, wanted[begin:])


def test_status_and_inspect_tell_the_size(client: segue.Client, tmp_path: Path) -> None:
    case = schedule(tmp_path, {}, lanes=1, batch_size=4)
    stream = cases.open_stream(client, case, tmp_path)

    def told() -> list[Any]:
        (lane,) = client.status()["streams"][0]["lanes"]
        stored = lane_of(client, "train", 0)
        return [lane["batch_size"], lane["parked"], stored["batch_size"], stored["parked"]]

    with stream.loader() as loader:
        batches = iter(loader)
        cases.work(next(batches), case)
        loader.set_batch_size(1)
        assert told() == [1, 0, 1, 0]  # who is to wait is known with the next batch
        cases.work(next(batches), case)
        loader.flush()
        loader.state_dict()
        loader.flush()
        now = told()
        assert now[0] == now[2] == 1 and now[1] == now[3] > 0
        rows = lane_of(client, "train", 0)["rows"]
        assert now[1] <= len(rows) <= now[1] + 1
    assert told() == [1, None, 1, now[3]]
    for command, words in [("status", ["BATCH"]), ("inspect", ["BATCH", "PARKED"])]:
        text = run(command, tmp_path / "store").stdout
        assert all(word in text for word in words), text
    found = json.loads(run("inspect", tmp_path / "store", "--json").stdout)
    assert found["streams"][0]["lanes"][0]["parked"] == now[3]


# -- what is inserted ------------------------------------------------------------------------------


def push(directory: Path, client: segue.Client, capacity: int | None) -> segue.Stream:
    return client.stream(
        "live",
        segue.Push(capacity, producers=1),
        {"x": segue.Feature("int64")},
        states={"n": segue.State("int64")},
        num_unroll=2,
        batch_size=2,
        depth=2,
    )


def test_what_is_inserted_needs_a_capacity(client: segue.Client, tmp_path: Path) -> None:
    stream = push(tmp_path, client, None)
    loader = stream.loader()
    with refused(segue.ArgumentError, "capacity of 12", "(depth + 2) * batch_size", "with 8"):
        loader.set_batch_size(3)
    loader.set_batch_size(1)
    assert loader.batch_size == 1


def test_a_lane_that_needs_more_capacity_than_there_is(
    client: segue.Client, tmp_path: Path
) -> None:
    """A stream that is opened again with less would wait for ever."""
    with push(tmp_path, client, 12) as stream, stream.loader() as loader:
        loader.set_batch_size(3)
        tokens = loader.state_dict()
    with push(tmp_path, client, 8) as stream:
        with refused(segue.ArgumentError, "capacity of 12", "with 8"):
            next(iter(stream.loader(start="continue")))
        with stream.loader(start="fresh") as loader:
            loader.set_batch_size(1)
            with refused(segue.TokenError, "was given another batch_size", "capacity of 12"):
                loader.load_state_dict(tokens)
            assert loader.batch_size == 1
    with push(tmp_path, client, 12) as stream, stream.loader(start="continue") as loader:
        loader.load_state_dict(tokens)
        assert loader.batch_size == 3


def test_what_is_inserted_comes_with_any_size(client: segue.Client, tmp_path: Path) -> None:
    """Each sequence whole, its states handed on, while it is inserted; and the end as ever."""
    lengths = [1 + 5 * i % 9 for i in range(30)]
    stream = push(tmp_path, client, 40)
    sizes = itertools.cycle([3, 1, 0, 8, 2, 10, 1])
    got: dict[int, int] = {}
    with stream.producer("a") as producer, stream.loader() as loader:
        for number, length in enumerate(lengths):
            producer.insert({"x": np.full(length, number)}, key=str(number))
        producer.flush()
        stream.end_input()
        batches: Iterator[segue.Batch] = iter(loader)
        for step, size in enumerate(sizes):
            loader.set_batch_size(size)
            batch = next(batches, None)
            if batch is None:
                break
            assert batch.step == step and batch.batch_size <= size
            numbers = batch.insertion_index
            assert (batch.sequences["x"][:, :1] == numbers[:, None]).all()
            for number, segment in zip(numbers.tolist(), batch.sequence.tolist()):
                assert got.get(number, 0) == segment
                got[number] = segment + 1
            assert (batch.state("n") == batch.sequence).all()
            batch.save_state("n", batch.state("n") + 1)
            if step % 5 == 2:
                batch.commit()
                kill(server_pid(client))
            del batch
    assert got == {number: -(-length // 2) for number, length in enumerate(lengths)}


def test_other_workers_go_on(client: segue.Client, tmp_path: Path) -> None:
    """Tokens of one worker, taken up by two."""
    case = schedule(tmp_path)
    wanted = cases.in_order(case, [0, 1])
    cut = next(at for at, batch in enumerate(wanted) if batch.step == 9)
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, wanted[:cut], whole=False)
        tokens = loader.state_dict()
    for rank in range(2):
        with stream.loader(rank=rank, world_size=2) as loader:
            loader.load_state_dict(tokens)
            cases.check(loader, case, of_lanes(wanted[cut:], [rank]))

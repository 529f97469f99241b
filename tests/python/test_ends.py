"""The end of the data: lanes that end at different steps, and iterations that deliver nothing."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import little
import oracle
import segue
from test_cli import run
from test_resume import PATIENCE, kill, refused, server_pid, simple

UNEVEN = (9, 1, 1, 7, 2, 1, 8, 3, 1)  # of three lanes, which end at different steps


def uneven(directory: Path, **fields: Any) -> tuple[cases.Case, list[list[oracle.Batch]]]:
    """A stream of three lanes, and the batches of each."""
    case = simple(directory, UNEVEN, lanes=3, **{"epochs": 1, **fields})
    batches = cases.expected(case)
    return case, [list(batches(lane)) for lane in range(3)]


def lockstep(loaders: list[segue.Loader], case: cases.Case, leave: bool) -> Iterator[int]:
    """Go through all rounds, all loaders together; `leave`: those that have ended are closed."""
    rounds = {loader: loader.rounds() for loader in loaders}
    for step in range(1000):
        more = False
        for loader, iterator in list(rounds.items()):
            batches = next(iterator, [])
            for batch in batches:
                cases.work(batch, case)
                batch.commit()
            more = more or bool(batches)
            if not batches and leave:
                loader.close()
                del rounds[loader]
        if not more:
            return
        yield step + 1


def is_rest(
    directory: Path, case: cases.Case, lanes: list[list[oracle.Batch]], tokens: Any, step: int
) -> None:
    """What follows the tokens, in another store, is what follows that step."""
    with segue.open(directory / f"at-{step}") as client:
        with cases.open_stream(client, case, directory).loader() as loader:
            loader.load_state_dict(tokens)
            rest = [batch for batches in lanes for batch in batches if batch.step >= step]
            rest.sort(key=lambda batch: (batch.step, batch.lane))
            cases.check(loader, case, rest)


SPLITS = {"one worker": [[0, 1, 2]], "two workers": [[0, 2], [1]], "three workers": [[0], [1], [2]]}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("leave", [False, True], ids=["they stay", "they leave"])
@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
def test_a_lane_that_has_ended_is_at_every_later_step(
    tmp_path: Path, split: str, leave: bool, tail: str, epoch_end: str
) -> None:
    """state_dict(all_lanes=True) after each round, by each worker, is of that round."""
    case, lanes = uneven(tmp_path, tail=tail, epoch_end=epoch_end, epochs=2)
    assert (len({len(batches) for batches in lanes}) == 1) == (tail == "pad")
    last = max(map(len, lanes))
    with segue.open(tmp_path / "store") as first:
        clients = [first] + [segue.open(tmp_path / "store") for _ in SPLITS[split][1:]]
        loaders = [
            cases.open_stream(client, case, tmp_path).loader(lanes=own)
            for client, own in zip(clients, SPLITS[split])
        ]
        for step in lockstep(loaders, case, leave):
            told = [
                loader.state_dict(all_lanes=True, timeout=PATIENCE)
                for loader in loaders
                if not loader.closed
            ]
            assert told and all(tokens == told[0] for tokens in told)
            assert list(told[0]) == ["lane/0", "lane/1", "lane/2"]
            if step % 3 == 1 or step == last:
                is_rest(tmp_path, case, lanes, told[0], step)
            stream = cases.open_stream(first, case, tmp_path)
            assert stream.checkpoint() == stream.checkpoint(step) == told[0]
        assert step == last
        del loaders
        for client in clients[1:]:
            client.close()


def exported(store: Path, target: Path, *options: Any) -> dict[str, bytes]:
    result = run("checkpoint", "export", store, target, "--json", *options)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["checkpoints"]
    return {f"lane/{one['lane']}": Path(one["file"]).read_bytes() for one in found}


def test_checkpoints_of_lanes_that_have_ended(tmp_path: Path) -> None:
    """Listed as such, exported and found at every later step, also when each worker saves its own."""
    case, lanes = uneven(tmp_path, tail="shrink")
    ends = [len(batches) for batches in lanes]
    last = max(ends)
    tokens: dict[str, bytes] = {}
    with segue.open(tmp_path / "store") as client:
        stream = cases.open_stream(client, case, tmp_path)
        loaders = [stream.loader(lanes=[lane]) for lane in range(3)]
        for _ in lockstep(loaders, case, leave=False):
            for loader in loaders:
                tokens |= loader.state_dict()
        assert stream.checkpoint() == stream.checkpoint(last) == stream.checkpoint(last + 9) == tokens
        with refused(segue.NotFoundError, f"at step {min(ends) - 3}"):
            stream.checkpoint(min(ends) - 3)  # the shortest has kept no such
        newest = [one for one in stream.checkpoints() if one["ended"]]
        assert [(one["lane"], one["step"]) for one in newest] == list(enumerate(ends))
        with_server = exported(tmp_path / "store", tmp_path / "one")
    assert with_server == tokens == exported(tmp_path / "store", tmp_path / "two")
    assert tokens == exported(tmp_path / "store", tmp_path / "three", "--step", last)
    table = [line.split() for line in run("checkpoint", "list", tmp_path / "store").stdout.splitlines()]
    assert table[0][3:5] == ["STEP", "ENDED"] and [str(min(ends)), "yes"] in [row[3:5] for row in table]
    result = run("checkpoint", "rm", tmp_path / "store", "--step", last, "--json")
    removed = [one["lane"] for one in json.loads(result.stdout)["checkpoints"]]
    assert removed == [lane for lane, end in enumerate(ends) if end == last]


def test_a_restored_end_is_an_end(client: segue.Client, tmp_path: Path) -> None:
    """Tokens that were loaded are given again before the first batch, and what goes on says so."""
    case, lanes = uneven(tmp_path, tail="shrink")
    ends = [len(batches) for batches in lanes]
    step = sorted(ends)[1]  # the shortest has ended, perhaps another, and the longest has not
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        for at in lockstep([loader], case, leave=False):
            if at == step:
                tokens = loader.state_dict(all_lanes=True)
                break
    for own in ([0, 1, 2], [0], [1], [2]):
        rest = [lane for lane in range(3) if lane not in own]
        with stream.loader(lanes=own) as loader, segue.open(client.dir) as there:
            loader.load_state_dict(tokens)
            others = cases.open_stream(there, case, tmp_path)
            if rest:
                with others.loader(lanes=rest) as other:
                    other.load_state_dict(tokens)
                    assert loader.state_dict(all_lanes=True, timeout=PATIENCE) == tokens
                    assert other.state_dict(all_lanes=True, timeout=PATIENCE) == tokens
            assert loader.state_dict(all_lanes=True, timeout=PATIENCE) == tokens
    assert stream.checkpoint() == tokens
    is_rest(tmp_path, case, lanes, tokens, step)


def test_a_lane_that_is_behind_has_not_ended(client: segue.Client, tmp_path: Path) -> None:
    case, lanes = uneven(tmp_path, tail="shrink")
    order = cases.in_order(case, [0, 1, 2])
    loader = cases.open_stream(client, case, tmp_path).loader()
    cases.check(loader, case, order[:4], whole=False)
    with refused(segue.RoundError, "lane 0 at step 2, lane 1 at step 1"):
        loader.state_dict(all_lanes=True)
    cases.check(loader, case, order[4:])
    loader.state_dict(all_lanes=True)


def test_an_empty_lane_has_ended_at_step_0(client: segue.Client, tmp_path: Path) -> None:
    """Fewer records than lanes."""
    case = simple(tmp_path, (5, 3), lanes=4, epochs=1)
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0, 1, 2, 3]))
        tokens = loader.state_dict(all_lanes=True)
    assert cases.open_stream(client, case, tmp_path).checkpoint() == tokens
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        loader.load_state_dict(tokens)
        assert loader.state_dict(all_lanes=True) == tokens


def test_damaged_records_at_the_end(client: segue.Client, tmp_path: Path) -> None:
    """Where all that is left of a lane is passed over, it has ended."""
    case = simple(tmp_path, (5, 3, 7, 3, 9, 3), lanes=2, epochs=1, batch_size=1, on_error="skip")
    spoil(tmp_path / case.paths[0], [3, 5])  # all of lane 1 but its first one
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader(lanes=[1]) as loader:
        assert [batch.step for batch in saved(loader)] == [0, 1]
    with stream.loader(lanes=[0]) as loader:
        for batch in saved(loader):
            batch.commit()
            tokens = loader.state_dict(all_lanes=True, timeout=PATIENCE) if batch.step > 1 else {}
            del batch
    assert stream.checkpoint() == tokens


def saved(loader: segue.Loader) -> Iterator[segue.Batch]:
    """The batches of a loader, each with its states saved as they came."""
    for batch in loader:
        for name in ("h", "n"):
            batch.save_state(name, batch.state(name))
        yield batch


# -- nothing is delivered, and it is said ----------------------------------------------------------


def all_of(loader: segue.Loader, case: cases.Case) -> int:
    """How many batches there are, read as the case says."""
    count = 0
    for batch in cases.read(loader, case):
        for name in case.spec.states:
            batch.save_state(name, batch.state(name))
        count += 1
    return count


def told(loader: segue.Loader, case: cases.Case) -> tuple[int, list[str]]:
    """How many batches came, and the warnings about it; each is said of the line that iterates."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = all_of(loader, case)
    assert all(Path(one.filename).name == "cases.py" for one in caught)
    return count, [str(one.message) for one in caught]


@pytest.mark.parametrize("reading", ["batches", "rounds", "epochs"])
@pytest.mark.parametrize("persist", [True, False])
def test_too_few_sequences_for_a_full_batch(
    client: segue.Client, tmp_path: Path, reading: str, persist: bool
) -> None:
    case = simple(tmp_path, (5, 6, 9), lanes=1, batch_size=4, tail="stop", epoch_end="drain")
    case.reading = reading
    stream = cases.open_stream(client, case, tmp_path, persist=persist)
    with stream.loader() as loader:
        count, [text] = told(loader, case)
        assert (count, loader.undelivered) == (0, 22)
    assert "'train'" in text and "no batches" in text
    assert "4 rows" in text and 'tail="stop"' in text and "22 segments" in text
    # It is not said where there is a batch, and segments are left out after it.
    case = simple(tmp_path, (5, 6, 9), lanes=1, batch_size=2, tail="stop")
    case.name = "enough"
    with cases.open_stream(client, case, tmp_path, persist=persist).loader() as loader:
        count, texts = told(loader, case)
        assert count > 0 and loader.undelivered > 0 and not texts


@pytest.mark.parametrize("reading", ["batches", "rounds", "epochs"])
@pytest.mark.parametrize("persist", [True, False])
def test_too_few_sequences_in_some_lanes(
    client: segue.Client, tmp_path: Path, reading: str, persist: bool
) -> None:
    """Three lanes of two rows, of which two have one sequence each."""
    case = simple(
        tmp_path, (5, 6, 9, 4), lanes=3, batch_size=2, tail="stop", epoch_end="drain", epochs=1
    )
    case.reading = reading
    stream = cases.open_stream(client, case, tmp_path, persist=persist)
    with stream.loader() as loader:
        count, [text] = told(loader, case)
        assert count > 0 and loader.undelivered > 0
    assert "no batches of lanes [1, 2]" in text and "2 rows" in text and 'tail="stop"' in text
    segments = sum(-(-n // case.spec.num_unroll) for n in (6, 9))
    assert f"left out all: {segments} segments" in text


def test_a_lane_without_records(client: segue.Client, tmp_path: Path) -> None:
    """A worker may have none where there are more lanes than records; it is told."""
    case = simple(tmp_path, (5, 3), lanes=4, epochs=1)
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader(rank=1, world_size=2) as loader:
        assert told(loader, case) == (2, [])
    with stream.loader(lanes=[2, 3]) as loader:
        count, [text] = told(loader, case)
    assert count == 0 and "no batches" in text
    assert "lanes [2, 3] of the 4 of stream 'train' have no record" in text and "only 2" in text


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
def test_more_lanes_than_sequences(
    client: segue.Client, tmp_path: Path, tail: str, persist: bool
) -> None:
    """The loaders that have such lanes warn at the user's line: epochs make more sequences."""

    def idle_of(name: str, lanes: list[int], **options: Any) -> list[int]:
        case = simple(tmp_path, (5, 3, 4), lanes=8, batch_size=1, tail=tail, **options)
        case.name = name
        stream = cases.open_stream(client, case, tmp_path, persist=persist)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stream.loader(lanes=lanes).close()
        if not caught:
            return []
        (told,) = caught
        assert Path(told.filename).name == "test_ends.py"
        pattern = r"has 8 lanes, and there are (\d+) sequences in all: lanes \[(.*)\] of"
        found = re.search(pattern, str(told.message))
        assert found and int(found[1]) == 3 * options["epochs"]
        return [int(lane) for lane in found[2].split(",")]

    every = list(range(8))
    assert idle_of("once", every, epochs=1) == [3, 4, 5, 6, 7]
    assert idle_of("twice", [1, 6, 7], epochs=2) == [6, 7]
    assert idle_of("twice", [0, 5], epochs=2) == []
    assert idle_of("thrice", every, epochs=3) == []
    assert idle_of("ever", every, epochs=None) == []


def spoil(path: Path, records: list[int]) -> None:
    """Flip a bit in the data of these records."""
    offsets = [offset for offset, _ in segue.tfrecord.read_records(path)]
    data = bytearray(path.read_bytes())
    for record in records:
        data[offsets[record] + 14] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("persist", [True, False])
def test_what_was_passed_over_is_told_at_the_end(
    client: segue.Client, tmp_path: Path, persist: bool
) -> None:
    case = simple(tmp_path, (5, 3, 7, 3, 9, 3), lanes=2, epochs=2, on_error="skip")
    spoil(tmp_path / case.paths[0], [0, 2, 5])
    stream = cases.open_stream(client, case, tmp_path, persist=persist)
    for lanes, skipped in (([0], 4), ([1], 2)):
        loader = stream.loader(lanes=lanes)
        assert loader.skipped == 0
        count, [text] = told(loader, case)
        assert count > 0 and loader.skipped == skipped
        assert "'train'" in text and f"passed over {skipped} records" in text
        assert 'on_error="skip"' in text
        again, texts = told(loader, case)
        if persist:  # there is no more, and it was said what was passed over
            assert again == 0 and len(texts) == 1 and "had ended" in texts[0]
        else:
            assert again == count and texts == [text] and loader.skipped == skipped
        loader.close()
        assert loader.skipped == skipped
    with cases.open_stream(client, case, tmp_path, persist=persist).loader(start="fresh") as loader:
        assert told(loader, case)[1] and loader.skipped == 6


def test_nothing_but_damaged_records(client: segue.Client, tmp_path: Path) -> None:
    """Whoever says it, the server or the loader: it is not silent."""
    case = simple(tmp_path, (5, 3), lanes=1, epochs=1, on_error="skip")
    spoil(tmp_path / case.paths[0], [0, 1])
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        try:
            count, [text] = told(loader, case)
        except segue.DataError as error:
            text = str(error)
        else:
            assert count == 0 and "no batches" in text and "passed over 2 records" in text
    assert text


def test_a_killed_server_does_not_hide_what_was_passed_over(
    client: segue.Client, tmp_path: Path
) -> None:
    case = simple(tmp_path, (5, 3, 7, 3, 9, 3, 8, 7), lanes=1, epochs=1, on_error="skip", depth=2)
    spoil(tmp_path / case.paths[0], [0, 1, 7])
    loader = cases.open_stream(client, case, tmp_path).loader()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in saved(loader):
            batch.commit()
            if batch.step == 2:
                kill(server_pid(client))
            del batch
    assert loader.skipped == 3
    assert ["passed over 3 records" in str(one.message) for one in caught] == [True]
    loader.close()


# -- lanes that nobody holds -----------------------------------------------------------------------


def test_a_lane_that_nobody_holds(
    client: segue.Client, directory: Path, tmp_path: Path
) -> None:
    """At the step it is taken from the store; below it nobody would bring it there."""
    little.write(tmp_path)
    stream = little.open_stream(client, tmp_path)
    with stream.loader(lanes=[1], start="fresh") as other:
        for batch in itertools.islice(other, 2):
            little.work(batch)
        batch.commit()
        tokens = other.state_dict()
    with stream.loader(lanes=[0], start="fresh") as loader:
        batches = iter(loader)
        for _ in range(2):
            little.work(next(batches))
        whole = loader.state_dict(all_lanes=True)
        assert set(whole) == {"lane/0", "lane/1"} and whole["lane/1"] == tokens["lane/1"]
        little.work(next(batches))
        begun = time.monotonic()
        with refused(segue.RoundError, "lane 1 stands at step 2", "nobody holds it", "rounds()"):
            loader.state_dict(all_lanes=True, timeout=None)
        assert 1.5 < time.monotonic() - begun < 20
        with refused(segue.TimeoutError_, "lane 1 stands at step 2"):
            loader.state_dict(all_lanes=True, timeout=0.1)
        with segue.open(directory) as second:
            slow = little.open_stream(second, tmp_path).loader(lanes=[1], start="continue")
            batch = next(iter(slow))

            def work() -> None:
                time.sleep(3)
                little.work(batch)
                batch.commit()

            thread = threading.Thread(target=work)
            thread.start()
            assert set(loader.state_dict(all_lanes=True, timeout=60)) == {"lane/0", "lane/1"}
            thread.join()

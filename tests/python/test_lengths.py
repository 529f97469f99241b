"""Lengths: sequences that are too long; the share of padding; batches as long as their longest.

What is delivered is compared with the plain model (oracle.py); test_equal.py draws the same options
at random, beside all others.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import array_data
import cases
import oracle
import segue
from test_cli import run
from test_resume import refused

LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5)
KINDS = ("tfrecord", "files", "arrays", "log")


def made(directory: Path, kind: str, seed: int = 1, **fields: Any) -> cases.Case:
    """A stream of LENGTHS, its data set written, of any kind of source."""
    directory.mkdir(exist_ok=True)
    options = {name: fields.pop(name) for name in ("persist", "depth") if name in fields}
    spec = oracle.Spec(
        **{
            "sequences": {"x": oracle.Feature("float32", (3,)), "y": oracle.Feature("int64")},
            "context": {"c": oracle.Feature("int32")},
            "states": {"h": oracle.State("float32", (4,), 0.5), "n": oracle.State("int64", (), 7)},
            "num_unroll": 3,
            "batch_size": 2,
            "lanes": 2,
            **fields,
        }
    )
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {"files": [], "paths": [], "layout": None}
    records = [
        oracle.Record(
            key=f"{cases.PRODUCER}:{i + 1}" if kind == "log" else "",
            sequences={
                name: cases.drawn(rng, feature, n, True) for name, feature in spec.sequences.items()
            },
            context={
                name: cases.drawn(rng, feature, None, True)
                for name, feature in spec.context.items()
            },
        )
        for i, n in enumerate(LENGTHS)
    ]
    name = f"data.{cases.SUFFIX.get(kind, '')}" if kind in ("tfrecord", "files") else ""
    data["files"] = [cases.File(name, None, records)]
    data["paths"] = [name]
    if kind == "arrays":
        data["layout"] = array_data.layout(rng, spec, False)
    case = cases.Case(
        **data,
        name="train",
        spec=spec,
        key_feature=None,
        raw=frozenset(),
        reading="batches",
        workers=1,
        options=options,
        kind=kind,
        push=cases.Push(len(LENGTHS), [], None, True) if kind == "log" else None,
    )
    cases.write(case, directory)
    return case


def insert(stream: segue.Stream, case: cases.Case) -> None:
    if case.push:
        cases.insert(stream, case, len(LENGTHS)).close()


def read(client: segue.Client, case: cases.Case, directory: Path, lanes: int = 2) -> segue.Loader:
    """Read and compare all of it, the second half once more by a token; return the loader."""
    wanted = cases.in_order(case, list(range(lanes)))
    stream = cases.open_stream(client, case, directory)
    if not client.inspect(case.name)["streams"][0].get("log", {}).get("ended"):
        insert(stream, case)
    loader = stream.loader(start="fresh")
    step = wanted[len(wanted) // 2].step
    cut = next(at for at, batch in enumerate(wanted) if batch.step == step)
    cases.check(loader, case, wanted[:cut], whole=False)
    token = loader.state_dict()
    cases.check(loader, case, wanted[cut:])
    loader.load_state_dict(token)
    cases.check(loader, case, wanted[cut:])
    return loader


# -- too long --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_too_long_is_cut(client: segue.Client, tmp_path: Path, kind: str, tail: str) -> None:
    """As if it had only so many steps: also the count of segments, total_length, and the tail."""
    case = made(tmp_path, kind, maximum_length=7, on_too_long="truncate", tail=tail)
    assert max(batch.total_length[0] for batch in cases.expected(case)(0)) == 7
    loader = read(client, case, tmp_path)
    assert loader.skipped == 0


@pytest.mark.filterwarnings("ignore:on_too_long")
@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_too_long_is_passed_over(
    client: segue.Client, tmp_path: Path, kind: str, tail: str
) -> None:
    """And counted, each time that it is met; the end tells it."""
    case = made(tmp_path, kind, maximum_length=7, on_too_long="skip", tail=tail)
    wanted = cases.in_order(case, [0, 1])
    assert max(max(batch.total_length) for batch in wanted) <= 7
    stream = cases.open_stream(client, case, tmp_path)
    insert(stream, case)
    with stream.loader() as loader:
        with pytest.warns(UserWarning, match='^on_too_long="skip" of stream .* passed over 3 rec'):
            cases.check(loader, case, wanted)
        assert loader.skipped == 3
    read(client, case, tmp_path)


@pytest.mark.parametrize("kind", ["tfrecord", "files", "arrays"])
def test_too_long_is_an_error(client: segue.Client, tmp_path: Path, kind: str) -> None:
    """Which names the record, its steps and the option; what comes before it is delivered."""
    case = made(tmp_path, kind, maximum_length=11, lanes=1)
    place = {"tfrecord": "record at byte", "files": "sequence 4", "arrays": "sequence 4"}[kind]
    loader = cases.open_stream(client, case, tmp_path).loader()
    batches = 0
    with refused(segue.DataError, place, "12 steps, and maximum_length is 11", "on_too_long="):
        for batch in loader:
            for name in case.spec.states:
                batch.save_state(name, batch.state(name))
            batches += 1
            del batch
    assert batches > 0


def test_one_that_is_as_long_as_may_be(client: segue.Client, tmp_path: Path) -> None:
    for i, what in enumerate(("error", "truncate", "skip")):
        case = made(tmp_path / what, "files", maximum_length=12, on_too_long=what)
        case.name = f"train-{i}"
        loader = read(client, case, tmp_path / what)
        assert loader.skipped == 0


def test_what_is_inserted_and_too_long(client: segue.Client, tmp_path: Path) -> None:
    """Is refused in the producer, which goes on."""
    case = made(tmp_path, "log", maximum_length=11)
    case.files[0].records[4] = dataclasses.replace(case.files[0].records[4])
    stream = cases.open_stream(client, case, tmp_path)
    producer = stream.producer("one")
    records = case.files[0].records
    for i, record in enumerate(records):
        arguments = (record.sequences, record.context, f"one:{i + 1}")
        if i == 4:
            with refused(segue.DataError, "key 'one:5' has 12 steps", "maximum_length", " is 11"):
                producer.insert(*arguments)
            continue
        producer.insert(*arguments)
    producer.flush()
    stream.end_input()
    del records[4]
    with stream.loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0, 1]))


@pytest.mark.filterwarnings("ignore:on_too_long")
def test_what_is_passed_over_takes_no_place(client: segue.Client, tmp_path: Path) -> None:
    """Many that are too long, one behind the other: whoever inserts waits for none of them."""
    stream = client.stream(
        "live", segue.Push(capacity=8, producers=1), {"x": segue.Feature("float32")},
        num_unroll=2, batch_size=2, lanes=2, depth=2, maximum_length=3, on_too_long="skip",
    )  # fmt: skip
    loader = stream.loader()
    with stream.producer("one") as producer:
        for number in range(300):
            steps = 3 if number in (120, 121, 250, 299) else 4
            producer.insert({"x": np.full(steps, number, np.float32)}, timeout=20)
        producer.flush(20)
        behind = [lane["behind"] for lane in client.status()["streams"][0]["lanes"]]
        assert behind == [2, 2]
    found = sorted({number for b in loader for number in b.insertion_index.tolist()})
    assert found == [120, 121, 250, 299]
    assert loader.skipped == 296
    # What is not too long still waits for its place.
    full = client.stream(
        "full", segue.Push(capacity=8, producers=1), {"x": segue.Feature("float32")},
        num_unroll=2, batch_size=2, depth=2, maximum_length=3, on_too_long="skip",
    )  # fmt: skip
    with full.producer("one") as producer:
        for number in range(20):
            producer.insert({"x": np.zeros(3 if number % 2 else 4, np.float32)}, timeout=20)
            if number == 15:
                producer.flush(20)
        with pytest.raises(segue.TimeoutError_):
            producer.flush(0.3)
        assert sum(1 for _ in itertools.islice(full.loader(), 4)) == 4
        producer.flush(20)


def test_a_live_mix_passes_over_nothing(client: segue.Client, tmp_path: Path) -> None:
    parts = {
        "old": segue.Part(cases.source_of(made(tmp_path, "files"), tmp_path), 1),
        "new": segue.Part(segue.Push(), 1),
    }
    for option in ("on_error", "on_too_long"):
        with refused(segue.ArgumentError, f"{option} is skip and the source of kind mix"):
            client.stream(
                "train", segue.Mix(parts), {"y": segue.Feature("int64")}, num_unroll=2,
                batch_size=1, maximum_length=9, **{option: "skip"},
            )  # fmt: skip


@pytest.mark.parametrize("cache", [True, False])
def test_examples_that_are_too_long(client: segue.Client, tmp_path: Path, cache: bool) -> None:
    """What is converted is converted whole; of what is inserted the error comes where one waits."""
    items = [{"x": np.arange(n, dtype=np.float32)} for n in (3, 8, 5)]
    arguments: dict[str, Any] = {
        "sequences": {"x": segue.Feature("float32")}, "num_unroll": 4, "batch_size": 1,
        "maximum_length": 6,
    }  # fmt: skip
    source = segue.Examples(items, cache=cache, progress=False)
    stream = client.stream("cut", source, on_too_long="truncate", **arguments)
    with stream.loader() as loader:
        found = [(b.length.tolist(), b.total_length.tolist()) for b in loader]
    assert found == [([3], [3]), ([4], [6]), ([2], [6]), ([4], [5]), ([1], [5])]
    stream = client.stream("skip", source, on_too_long="skip", **arguments)
    with stream.loader() as loader, pytest.warns(UserWarning, match="passed over 1 record "):
        assert [b.total_length[0] for b in loader] == [3, 5, 5]
    stream = client.stream("error", source, **arguments)
    with refused(segue.DataError, "8 steps", "maximum_length"), stream.loader() as loader:
        for _ in loader:
            pass


def test_total_length_is_cut_too(client: segue.Client, tmp_path: Path) -> None:
    """One that is given, in a sequence file."""
    totals = {7: 9, 8: 2, 9: 8, 2: 3}  # of arrays of so many steps; 7, 2: in the padding
    with segue.FileWriter(tmp_path / "a.segue", {"x": segue.Feature("float32")}) as writer:
        for n, total in totals.items():
            writer.write({"x": np.arange(n, dtype=np.float32)}, length=total)
    stream = client.stream(
        "train",
        segue.Files(tmp_path / "a.segue"),
        {"x": segue.Feature("float32")},
        num_unroll=3,
        batch_size=1,
        maximum_length=5,
        on_too_long="truncate",
    )
    found = [
        (b.total_length[0], b.length[0], b.sequence_count[0], b.sequences["x"][0].tolist())
        for b in stream.loader()
    ]
    assert found == [
        (5, 3, 2, [0, 1, 2]), (5, 2, 2, [3, 4, 0]),
        (2, 2, 2, [0, 1, 2]), (2, 0, 2, [3, 4, 0]),
        (5, 3, 2, [0, 1, 2]), (5, 2, 2, [3, 4, 0]),
        (3, 3, 1, [0, 1, 0]),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:on_too_long")
def test_steps_of_records_are_counted_without_their_values(
    client: segue.Client, tmp_path: Path
) -> None:
    """tail="pad" knows the lengths that are delivered, also from what the store has kept."""
    for i, (most, what) in enumerate([(7, "truncate"), (7, "skip"), (12, "error"), (5, "skip")]):
        case = made(tmp_path, "tfrecord", maximum_length=most, on_too_long=what, tail="pad")
        for again in "ab":
            case.name = f"train-{i}-{again}"
            read(client, case, tmp_path)


def test_long_sequences_are_read_by_windows(client: segue.Client, tmp_path: Path) -> None:
    """A record of 4 MB, cut after a few steps, which lie in its beginning."""
    steps = 1_000_000
    x = np.arange(steps, dtype=np.float32)
    with segue.FileWriter(tmp_path / "a.segue", {"x": segue.Feature("float32")}) as writer:
        for i in range(3):
            writer.write({"x": x + i})
    stream = client.stream(
        "train",
        segue.Files(tmp_path / "a.segue"),
        {"x": segue.Feature("float32")},
        num_unroll=4,
        batch_size=2,
        maximum_length=10,
        on_too_long="truncate",
    )
    found: dict[int, list[float]] = {}
    for batch in stream.loader():
        for row, number in enumerate(batch.insertion_index.tolist()):
            length = batch.length[row]
            found.setdefault(number, []).extend(batch.sequences["x"][row, :length].tolist())
    assert found == {i: [float(i + k) for k in range(10)] for i in range(3)}


def test_what_does_not_go_together(client: segue.Client, tmp_path: Path) -> None:
    case = made(tmp_path, "files")

    def opened(**options: Any) -> Any:
        return cases.open_stream(client, case, tmp_path, **options)

    with refused(segue.ArgumentError, "on_too_long is skip and maximum_length None"):
        opened(on_too_long="skip")
    with refused(segue.ArgumentError, "maximum_length is 7 and pad false", "multiple of num_unroll"):
        opened(maximum_length=7, on_too_long="truncate", pad=False)
    for wrong in (0, -1, 2**32, 1.5, True):
        with refused(segue.ArgumentError, "maximum_length"):
            opened(maximum_length=wrong)
    with refused(segue.ArgumentError, "on_too_long: 'cut' is none of 'error', 'truncate', 'skip'"):
        opened(maximum_length=9, on_too_long="cut")
    opened(maximum_length=9, on_too_long="skip")
    with refused(segue.SpecError, "maximum_length: 9 in the store, 8 asked for"):
        opened(maximum_length=8, on_too_long="skip")
    with refused(segue.SpecError, "on_too_long: skip in the store, truncate asked for"):
        opened(maximum_length=9, on_too_long="truncate")
    with refused(segue.SpecError, "maximum_length: 9 in the store, None asked for"):
        opened()


def test_pad_false_counts_what_is_delivered(client: segue.Client, tmp_path: Path) -> None:
    """9 steps fit as they are, 12 as they are cut; 7 do not, and are named by all that they are."""
    with segue.FileWriter(tmp_path / "a.segue", {"x": segue.Feature("float32")}) as writer:
        for n in (9, 10, 12):
            writer.write({"x": np.arange(n, dtype=np.float32)})
    stream = client.stream(
        "train", segue.Files(tmp_path / "a.segue"), {"x": segue.Feature("float32")},
        num_unroll=3, batch_size=1, maximum_length=9, on_too_long="truncate", pad=False,
    )  # fmt: skip
    assert [b.total_length[0] for b in stream.loader()] == [9] * 9
    stream = client.stream(
        "skip", segue.Files(tmp_path / "a.segue"), {"x": segue.Feature("float32")},
        num_unroll=3, batch_size=1, maximum_length=9, on_too_long="skip", pad=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match=re.escape("passed over 2 records")):
        assert [b.total_length[0] for b in stream.loader()] == [9] * 3


def test_endless_input_of_which_all_is_too_long(client: segue.Client, tmp_path: Path) -> None:
    case = made(
        tmp_path, "tfrecord", maximum_length=1, on_too_long="skip", epochs=None, lanes=1
    )
    case.files[0].records[2:3] = []
    cases.write(case, tmp_path)
    with refused(segue.DataError, "were passed over", "too long", "larger maximum_length"):
        next(iter(cases.open_stream(client, case, tmp_path).loader()))


# -- padding, and batches that are cut -------------------------------------------------------------


def padding_of(wanted: list[oracle.Batch]) -> float:
    steps = sum(batch.mask.size for batch in wanted)
    return 1 - sum(int(batch.mask.sum()) for batch in wanted) / steps


def lanes_of(client: segue.Client) -> list[Any]:
    [stream] = client.status()["streams"]
    return stream["lanes"]


@pytest.mark.parametrize("tail", ["shrink", "pad"])
@pytest.mark.parametrize("trim", [False, True])
def test_padding_is_counted_and_shown(
    client: segue.Client, tmp_path: Path, trim: bool, tail: str
) -> None:
    case = made(tmp_path, "files", trim=trim, tail=tail, epochs=2)
    wanted = cases.in_order(case, [0, 1])
    stream = cases.open_stream(client, case, tmp_path)
    loader = stream.loader()
    assert loader.padding == 0 and lanes_of(client)[0]["steps"] is None
    cases.check(loader, case, wanted[:6], whole=False)
    assert loader.padding == pytest.approx(padding_of(wanted[:6]), abs=1e-12)
    cases.check(loader, case, wanted[6:])
    assert loader.padding == pytest.approx(padding_of(wanted), abs=1e-12)
    for lane in (0, 1):
        of_lane = [batch for batch in wanted if batch.lane == lane]
        shown = lanes_of(client)[lane]
        assert shown["steps"] == sum(batch.mask.size for batch in of_lane)
        assert shown["steps_valid"] == sum(int(batch.mask.sum()) for batch in of_lane)
    text = run("status", client.dir).stdout
    share = f"{100 * padding_of([batch for batch in wanted if batch.lane == 0]):.0f}%"
    assert re.search(rf"PAD\b.*\n *0 .* {re.escape(share)} *\n", text)
    loader.close()
    assert loader.padding == pytest.approx(padding_of(wanted), abs=1e-12)


def test_a_batch_that_comes_again_counts_again(client: segue.Client, tmp_path: Path) -> None:
    case = made(tmp_path, "files", lanes=1)
    [first, *_] = cases.in_order(case, [0])
    loader = cases.open_stream(client, case, tmp_path).loader()
    for times in (1, 2, 3):
        batch = next(iter(loader))
        assert batch.mask.tolist() == first.mask.tolist()
        batch.release()
        del batch
        assert loader.padding == pytest.approx(padding_of([first] * times))


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_cut_to_their_longest(
    client: segue.Client, tmp_path: Path, kind: str, tail: str
) -> None:
    case = made(tmp_path, kind, trim=True, num_unroll=5, tail=tail)
    wanted = cases.in_order(case, [0, 1])
    lengths = {batch.mask.shape[1] for batch in wanted}
    assert len(lengths) > 1 and max(lengths) == 5
    for batch in wanted:
        assert batch.mask.shape[1] == max(1, *batch.length)
    read(client, case, tmp_path)


def test_trim_after_a_length_that_is_given(client: segue.Client, tmp_path: Path) -> None:
    """Segments without a step that counts are still delivered: of one step, and the right one."""
    with segue.FileWriter(
        tmp_path / "a.segue",
        {"x": segue.Feature("float32"), "r": segue.Feature("int32", ragged=True)},
    ) as writer:
        for i in range(2):
            x = np.arange(9, dtype=np.float32) + 100 * i
            ragged = [np.full(k % 3, 100 * i + k, np.int32) for k in range(9)]
            writer.write({"x": x, "r": ragged}, length=1 + i)
    stream = client.stream(
        "train", segue.Files(tmp_path / "a.segue"),
        {"x": segue.Feature("float32"), "r": segue.Feature("int32", ragged=True)},
        num_unroll=4, batch_size=2, trim=True,
    )  # fmt: skip
    loader = stream.loader()
    found = [
        (b.length.tolist(), b.sequences["x"].tolist(), cases.split(b.ragged("r")).tolist(),
         b.mask.shape)
        for b in loader
    ]  # fmt: skip
    assert [(length, x, shape) for length, x, _, shape in found] == [
        ([1, 2], [[0, 1], [100, 101]], (2, 2)),
        ([0, 0], [[4], [104]], (2, 1)),
        ([0, 0], [[8], [108]], (2, 1)),
    ]
    values = [[[part.tolist() for part in row] for row in ragged] for _, _, ragged, _ in found]
    assert values == [
        [[[], [1]], [[], [101]]], [[[4]], [[104]]], [[[8, 8]], [[108, 108]]]
    ]  # fmt: skip
    assert loader.padding == pytest.approx(1 - 3 / 8)


def test_arrays_of_a_cut_batch_lie_densely(client: segue.Client, tmp_path: Path) -> None:
    case = made(tmp_path, "files", trim=True, num_unroll=7, lanes=1)
    for batch in cases.open_stream(client, case, tmp_path).loader():
        x = batch.sequences["x"]
        assert x.flags.c_contiguous and x.shape[1] < 8 and x.ctypes.data % 64 == 0
        assert np.from_dlpack(x).shape == x.shape
        for name in case.spec.states:
            batch.save_state(name, batch.state(name))
        del batch, x


def test_trim_is_of_the_schedule(client: segue.Client, tmp_path: Path) -> None:
    """A token of a stream goes on in one that differs by it alone."""
    case = made(tmp_path, "files", trim=False)
    other = dataclasses.replace(
        case, name="trimmed", spec=dataclasses.replace(case.spec, trim=True)
    )
    loader = cases.open_stream(client, case, tmp_path).loader()
    cases.check(loader, case, cases.in_order(case, [0, 1])[:4], whole=False)
    token = loader.state_dict()
    with refused(segue.SpecError, "trim: false in the store, true asked for"):
        cases.open_stream(client, case, tmp_path, trim=True)
    trimmed = cases.open_stream(client, other, tmp_path).loader()
    trimmed.load_state_dict(token)
    wanted, states = cases.in_order(other, [0, 1])[4], cases.in_order(case, [0, 1])[4]
    [batch] = itertools.islice(trimmed, 1)
    assert (batch.step, batch.key, batch.mask.tolist()) == (2, wanted.key, wanted.mask.tolist())
    cases.same("h", batch.state("h"), states.state_in["h"])
    batch.release()


# -- whole sequences -------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_sequences(client: segue.Client, tmp_path: Path, kind: str, tail: str) -> None:
    """One segment each; a batch is as long as the longest in it."""
    case = made(tmp_path, kind, num_unroll=None, maximum_length=12, tail=tail)
    wanted = cases.in_order(case, [0, 1])
    assert {count for batch in wanted for count in batch.sequence_count} <= {0, 1}
    assert all(batch.mask.shape[1] == max(1, *batch.length) for batch in wanted)
    read(client, case, tmp_path)
    stream = cases.open_by_name(client, case)
    assert stream.num_unroll is None
    assert client.status()["streams"][0]["num_unroll"] is None
    assert "batches of 2 x whole sequences" in run("status", client.dir).stdout
    text = run("inspect", client.dir).stdout
    assert "2 rows x whole sequences, lanes 2" in text
    assert "lengths    up to 12 steps, on_too_long error, trim no" in text


@pytest.mark.filterwarnings("ignore:on_too_long")
@pytest.mark.parametrize("what", ["truncate", "skip"])
def test_whole_sequences_that_are_too_long(
    client: segue.Client, tmp_path: Path, what: str
) -> None:
    case = made(tmp_path, "tfrecord", num_unroll=None, maximum_length=6, on_too_long=what)
    loader = read(client, case, tmp_path)
    assert loader.padding < 0.5


def test_whole_sequences_need_a_limit(client: segue.Client, tmp_path: Path) -> None:
    case = made(tmp_path, "files")

    def opened(**options: Any) -> Any:
        return cases.open_stream(client, case, tmp_path, **options)

    with refused(segue.ArgumentError, "num_unroll is None and maximum_length None", "give maximum"):
        opened(num_unroll=None)
    with refused(segue.ArgumentError, "num_unroll is None and maximum_length 1048577"):
        opened(num_unroll=None, maximum_length=2**20 + 1)
    with refused(segue.ArgumentError, "num_unroll is None and pad false"):
        opened(num_unroll=None, maximum_length=12, pad=False)
    opened(num_unroll=None, maximum_length=12)
    with refused(segue.SpecError, "num_unroll: None in the store, 3 asked for"):
        opened(num_unroll=3, maximum_length=12)
    with pytest.raises(segue.ArgumentError, match="num_unroll: it is needed where source is given"):
        client.stream("new", cases.source_of(case, tmp_path), {"x": segue.Feature("float32", 3)},
                      batch_size=2)  # fmt: skip


def test_states_of_whole_sequences_are_saved_once(client: segue.Client, tmp_path: Path) -> None:
    case = made(tmp_path, "files", num_unroll=None, maximum_length=12, lanes=1)
    stream = cases.open_stream(client, case, tmp_path, keep_final=True, durability="commit")
    for batch in stream.loader():
        assert batch.is_first.all() and batch.is_last.all()
        assert (batch.state("h") == 0.5).all()
        batch.save_state("h", batch.state("h") + batch.length[:, None].astype(np.float32))
        batch.save_state("n", batch.state("n"))
        del batch
    for record in case.files[0].records:
        [found] = client.get(record.key)["found"]
        assert found["states"]["h"]["values"] == [0.5 + len(record.sequences["x"])] * 4

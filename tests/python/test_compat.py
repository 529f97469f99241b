"""`segue.batch_sequences_with_states` beside a plain model of what it delivers, and what it refuses.

The model is written from the rules alone: rows ascend by the rank in which sequences came, a batch
takes the oldest that are not finished.
"""

from __future__ import annotations

import bisect
import doctest
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Example, Sparse, _temporary

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
FIRST = -(2**63)


# -- the model -------------------------------------------------------------------------------------


@dataclass
class Row:
    """A sequence in a batch of the model."""

    number: int
    example: Example
    segment: int
    count: int
    total: int
    states: dict[str, Any]


@dataclass
class Case:
    """A call, and what it is called with."""

    examples: list[Example]
    states: dict[str, Any]
    unroll: int
    rows: int
    small: bool
    capacity: int | None = None
    pad: bool = True
    sizes: dict[int, int] = field(default_factory=dict)  # rows from these batches on
    options: dict[str, Any] = field(default_factory=dict)

    def call(self, **options: Any) -> segue.SequenceBatches:
        return segue.batch_sequences_with_states(
            iter(self.examples),
            initial_states=self.states,
            num_unroll=self.unroll,
            batch_size=self.rows,
            allow_small_batch=self.small,
            capacity=self.capacity,
            pad=self.pad,
            **self.options,
            **options,
        )


def steps_of(example: Example) -> int:
    dense = [len(v) for v in example.sequences.values() if not isinstance(v, Sparse)]
    sparse = [int(v.dense_shape[0]) for v in example.sequences.values() if isinstance(v, Sparse)]
    return max(dense or sparse)


def model(case: Case) -> Iterator[list[Row]]:
    """Yield the rows of each batch; their states are to be set to what was saved."""
    unfinished: list[Row] = []
    for number, example in enumerate(case.examples):
        steps = steps_of(example)
        total = steps if example.length is None else example.length
        states = {**case.states, **(example.initial_states or {})}
        unfinished.append(Row(number, example, 0, -(-steps // case.unroll), total, states))
    if "bucket_boundaries" in case.options:
        yield from cohorts(case, unfinished)
        return
    size = case.rows
    for step in itertools.count():
        size = case.sizes.get(step, size)
        if not unfinished or (not case.small and len(unfinished) < size):
            return
        rows = unfinished[:size]
        yield rows
        for row in rows:
            row.segment += 1
        unfinished = [row for row in unfinished if row.segment < row.count]


def cohorts(case: Case, rest: list[Row]) -> Iterator[list[Row]]:
    """The same where only sequences of one class of lengths share a batch."""
    boundaries, window = case.options["bucket_boundaries"], case.options["window"]
    window = min(16 * case.rows, case.capacity or 2**20) if window is None else window
    going: list[Row] = []  # begun
    waiting: list[Row] = []  # of the window
    size = case.rows
    for step in itertools.count():
        size = case.sizes.get(step, size)
        if not going and size:
            count = window - len(waiting)
            waiting, rest = waiting + rest[:count], rest[count:]
        if not going and not waiting and not rest:
            return
        if size and (going or waiting):
            of = bisect.bisect(boundaries, steps_of((going or waiting)[0].example))
            same = [r for r in waiting if bisect.bisect(boundaries, steps_of(r.example)) == of]
            same = same[: max(0, size - len(going))]
            going += same
            waiting = [row for row in waiting if all(row is not other for other in same)]
        yield going[:size]
        for row in going[:size]:
            row.segment += 1
        going = [row for row in going if row.segment < row.count]


def segment_of(array: np.ndarray, row: Row, unroll: int) -> np.ndarray:
    """Return the steps of an array that belong to a row, padded."""
    empty: Any = b"" if array.dtype == object else 0
    out = np.full((unroll, *array.shape[1:]), empty, array.dtype)
    part = array[row.segment * unroll : (row.segment + 1) * unroll]
    out[: len(part)] = part
    return out


def sparse_of(rows: list[tuple[Sparse, int | None]], asked: int, unroll: int) -> Sparse:
    """Return what a batch has of sparse values; with the first step of each, or None in context."""
    places, values, dims = [], [], []
    for index, (value, first) in enumerate(rows):
        dims.append(list(value.dense_shape)[0 if first is None else 1 :])
        for place, one in zip(value.indices.tolist(), value.values.tolist(), strict=True):
            if first is None:
                places.append([index, *place])
            elif first <= place[0] < first + unroll:
                places.append([index, place[0] - first, *place[1:]])
            else:
                continue
            values.append(one)
    largest = [max(column) for column in zip(*dims, strict=True)]
    shape = [asked, *([] if rows[0][1] is None else [unroll]), *largest]
    array = np.empty(len(values), rows[0][0].values.dtype)
    array[:] = values
    return Sparse(np.array(places, np.int64).reshape(-1, len(shape)), array, np.array(shape))


def same(where: str, got: Any, want: Any) -> None:
    if isinstance(want, Sparse):
        for name in Sparse._fields:
            same(f"{where}.{name}", getattr(got, name), getattr(want, name))
        return
    want = np.asarray(want)
    assert got.dtype == want.dtype, where
    assert got.shape == want.shape, where
    assert np.array_equal(got, want), where


def check_batch(case: Case, batch: segue.SequenceBatch, rows: list[Row], asked: int) -> None:
    unroll = case.unroll
    assert batch.batch_size == len(rows)
    if not rows:
        check_nothing(case, batch, asked)
        return
    same("insertion_index", batch.insertion_index, np.array([FIRST + r.number for r in rows], "i8"))
    same("sequence", batch.sequence, np.array([row.segment for row in rows], "i4"))
    same("sequence_count", batch.sequence_count, np.array([row.count for row in rows], "i4"))
    same("total_length", batch.total_length, np.array([row.total for row in rows], "i4"))
    lengths = [min(unroll, max(0, row.total - row.segment * unroll)) for row in rows]
    same("length", batch.length, np.array(lengths, "i4"))
    keys = [row.example.key.encode() for row in rows]  # type: ignore[union-attr]
    assert batch.key == [
        b"%05d_of_%05d:%s" % (row.segment, row.count, key)
        for row, key in zip(rows, keys, strict=True)
    ]
    assert batch.next_key == [
        b"STOP:%s" % key
        if row.segment + 1 == row.count
        else b"%05d_of_%05d:%s" % (row.segment + 1, row.count, key)
        for row, key in zip(rows, keys, strict=True)
    ]
    for place in ("sequences", "context"):
        given = getattr(batch, place)
        assert set(given) == set(getattr(rows[0].example, place) or {})
        for name, got in given.items():
            values = [getattr(row.example, place)[name] for row in rows]
            if isinstance(values[0], Sparse):
                firsts = [row.segment * unroll if place == "sequences" else None for row in rows]
                want = sparse_of(list(zip(values, firsts, strict=True)), asked, unroll)
            elif place == "sequences":
                parts = [segment_of(v, row, unroll) for v, row in zip(values, rows, strict=True)]
                want = np.stack(parts)
            else:
                want = np.stack(values)
            same(f"{place}[{name!r}]", got, want)


def check_nothing(case: Case, batch: segue.SequenceBatch, asked: int) -> None:
    """A batch without rows has everything all the same."""
    assert batch.key == batch.next_key == []
    assert len(batch.length) == len(batch.insertion_index) == 0
    for place in ("sequences", "context"):
        for name, value in (getattr(case.examples[0], place) or {}).items():
            got = getattr(batch, place)[name]
            if isinstance(value, Sparse):
                assert got.indices.shape == (0, len(value.dense_shape) + 1)
                assert got.dense_shape[0] == asked == len(got.values) == 0
            else:
                inner = (case.unroll, *value.shape[1:]) if place == "sequences" else value.shape
                assert got.shape == (0, *inner)


def next_state(array: np.ndarray, batch: segue.SequenceBatch) -> np.ndarray:
    """Return what is saved: each row's own, so that rows that are mixed up are seen."""
    if array.dtype == object:
        out = array.copy()
        for row, key in enumerate(batch.key):
            part = out[row : row + 1].reshape(-1)
            part[:] = [one + key[-1:] for one in part]
            out[row : row + 1] = part.reshape(out[row : row + 1].shape)
        return out
    if array.dtype == bool:
        return ~array
    step = (batch.insertion_index - FIRST + batch.length + 1).astype(array.dtype)
    return array + step.reshape(-1, *[1] * (array.ndim - 1))


def check_all(case: Case, **options: Any) -> int:
    """Go through all of it; return the number of batches."""
    count = 0
    with case.call(**options) as batches:
        for rows in model(case):
            if count in case.sizes:
                batches.set_batch_size(case.sizes[count])
            batch = next(batches)
            check_batch(case, batch, rows, batches.batch_size)
            for name in random.sample(list(case.states), len(case.states)):
                before = batch.state(name)
                want = [row.states[name] for row in rows]
                same(f"state({name!r})", before, np.stack(want) if want else before[:0])
                after = next_state(before, batch)
                batch.save_state(name, after)
                for row, value in zip(rows, after, strict=True):
                    row.states[name] = np.array(value, after.dtype)
            count += 1
        if count in case.sizes:
            batches.set_batch_size(case.sizes[count])
        assert next(batches, None) is None
    return count


# -- random cases ----------------------------------------------------------------------------------

DTYPES = ["float32", "float64", "float16", "int32", "int64", "uint8", "bool", "bytes"]


def draw_array(rng: random.Random, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape, dtype=int))
    if dtype == "bytes":
        strings = np.empty(size, object)
        strings[:] = [rng.randbytes(rng.choice([0, 1, 5])) for _ in range(size)]
        return strings.reshape(shape)
    return np.array([rng.randrange(100) for _ in range(size)]).reshape(shape).astype(dtype)


def draw_sparse(rng: random.Random, dtype: str, shape: tuple[int, ...]) -> Sparse:
    places = [list(place) for place in np.ndindex(*shape) if rng.random() < 0.4]
    indices = np.array(places, np.int64).reshape(-1, len(shape))
    return Sparse(indices, draw_array(rng, dtype, (len(places),)), np.array(shape))


def draw_shape(rng: random.Random, least: int = 0) -> tuple[int, ...]:
    return tuple(rng.randint(1, 3) for _ in range(rng.randint(least, 2)))


def draw_features(rng: random.Random, least: int) -> dict[str, tuple[str, bool, tuple[int, ...]]]:
    """Return dtype, whether it is sparse, and shape."""
    drawn = {}
    for name in rng.sample(["x", "y/1", "z.z", "x#indices", "x#"], rng.randint(least, 3)):
        sparse = rng.random() < 0.3
        drawn[name] = (rng.choice(DTYPES), sparse, draw_shape(rng, least=int(sparse)))
    return drawn


def draw_case(rng: random.Random) -> Case:
    sequences, context = draw_features(rng, 1), draw_features(rng, 0)
    states = {
        name: draw_array(rng, rng.choice(DTYPES), draw_shape(rng))
        for name in rng.sample(["x", "h", "c"], rng.randint(1, 3))
    }
    own = [name for name in states if rng.random() < 0.5]
    unroll, rows, pad = rng.randint(1, 4), rng.randint(1, 5), rng.random() < 0.7
    examples = []
    for number in range(rng.randint(1, 14)):
        steps = rng.randint(1, 12) if pad else unroll * rng.randint(1, 4)
        padded = -(-steps // unroll) * unroll
        made: list[dict[str, Any]] = []
        for place, first in ((sequences, (steps,)), (context, ())):
            made.append({})
            for name, (dtype, sparse, shape) in place.items():
                if sparse:
                    dims = tuple(rng.randint(1, 4) for _ in shape)
                    made[-1][name] = draw_sparse(rng, dtype, (*first, *dims))
                else:
                    made[-1][name] = draw_array(rng, dtype, (*first, *shape))
        init = {
            name: draw_array(
                rng,
                "bytes" if states[name].dtype == object else str(states[name].dtype),
                states[name].shape,
            )
            for name in own
            if rng.random() < 0.8
        }
        length = rng.randint(0, padded) if rng.random() < 0.3 else None
        key = rng.choice(["k:{}", "{}", "~{}", ":{}"]).format(number)
        examples.append(Example(made[0], made[1], key, length, init))
    capacity = rng.choice([None, rows, rows + 1, 1000])
    case = Case(examples, states, unroll, rows, rng.random() < 0.5, capacity, pad)
    if rng.random() < 0.4:
        most = min(capacity or 7, 7)
        case.sizes = {rng.randrange(12): rng.randint(0, most) for _ in range(rng.randint(1, 6))}
        case.sizes[12] = rng.randint(1, most)
    if case.small and rng.random() < 0.5:
        boundaries = sorted(rng.sample(range(1, 14), rng.randint(1, 3)))
        window = rng.choice([None, rng.randint(rows, min(capacity or 9, 9))])
        case.options = {"bucket_boundaries": boundaries, "window": window}
    return case


@pytest.mark.parametrize("part", range(4))
def test_every_batch_is_the_models(part: int) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    batches = 0
    for number in range(25):
        rng = random.Random(f"{SEED}/{part}/{number}")
        case = draw_case(rng)
        try:
            batches += check_all(case, num_threads=rng.choice([1, 3, 100]))
        except BaseException:
            print(f"case {part}/{number}: {case}")
            raise
    assert batches > 25


def test_batch_sizes_from_0_to_7() -> None:
    """What the original's documentation of schedules gives: two segments each."""
    examples = [Example({"x": np.ones(4)}, key=str(number)) for number in range(40)]
    want = [[], [0], [0, 1], [1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7, 8], [*range(6, 12)], [*range(9, 16)]]
    with call(examples, batch_size=7, capacity=8) as batches:
        for size, numbers in enumerate(want):
            batches.set_batch_size(size)
            batch = next(batches)
            assert batches.batch_size == batch.batch_size == size
            assert (batch.insertion_index - FIRST).tolist() == numbers
            with pytest.raises(segue.UnsavedError, match="h"):
                batches.set_batch_size(3)
            batch.save_state("h", batch.state("h"))
        with pytest.raises(segue.ArgumentError, match="batch_size: 9 is more than capacity, 8"):
            batches.set_batch_size(9)
    with pytest.raises(segue.ClosedError):
        batches.set_batch_size(3)


# -- what it refuses, and when ---------------------------------------------------------------------

ZERO = {"h": np.float32(0)}


def numbered(steps: list[int], **more: Any) -> list[Example]:
    """Return examples of so many steps each; all values of example n are n."""
    return [
        Example({"x": np.full(count, n, np.float32)}, key=f"k{n}", **more)
        for n, count in enumerate(steps)
    ]


def call(examples: Any, **options: Any) -> segue.SequenceBatches:
    given = {"initial_states": ZERO, "num_unroll": 2, "batch_size": 2} | options
    return segue.batch_sequences_with_states(examples, **given)


def go_on(batches: segue.SequenceBatches) -> list[bytes]:
    """Take a batch, save its state, and return its keys."""
    batch = next(batches)
    batch.save_state("h", batch.state("h") + 1)
    return batch.key


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity": 1}, "capacity: 1 needs to be >= batch_size, 2"),
        ({"initial_states": {}}, "initial_states: expected a mapping of names to arrays"),
        ({"initial_states": {"a:b": 0.0}}, "'a:b' is not a name"),
        ({"initial_states": {"": 0.0}}, "'' is not a name"),
        ({"num_unroll": 0}, "num_unroll: 0 is not in 1"),
        ({"batch_size": 0}, "batch_size: 0 is not in 1"),
        ({"num_threads": 0}, "num_threads: 0"),
        ({"name": "a:b"}, "name: 'a:b' is not a name"),
        ({"on_too_long": "skip"}, "on_too_long: 'skip' is none of"),
        ({"maximum_length": 0}, "maximum_length: 0 is not in"),
        ({"dtype": "float128"}, "dtype: 'float128' is none of"),
        ({"state_size": 4}, "state_size: (4,) of 'h', and initial_states has ()"),
        ({"state_transformations": {"c": abs}}, "there is no state 'c'"),
        ({"state_transformations": [3]}, "3 is no function of a state"),
        ({"sequences": {"x": segue.Feature("int32", ragged=True)}}, "declare it with sparse=True"),
        ({"start": "again"}, "start: 'again' is none of"),
        ({"bucket_boundaries": [4, 2]}, "bucket_boundaries[1] is 2: they are lengths"),
        ({"bucket_boundaries": [4], "window": 1}, "window is 1, which is less than batch_size = 2"),
        ({"bucket_boundaries": [4], "window": 5, "capacity": 4}, "window: 5 is more than capacity, 4"),
        ({"bucket_boundaries": [4], "allow_small_batch": False}, "bucket_boundaries: batches get"),
        ({"window": 4}, "window is 4 and bucket_boundaries None: it says among"),
    ],
)
def test_what_cannot_be_is_refused_at_creation(options: dict[str, Any], says: str) -> None:
    with pytest.raises(segue.ArgumentError) as error:
        call(numbered([3]), **options)
    assert says in str(error.value)


def test_sparse_features_are_of_this_function_alone(client: segue.Client) -> None:
    with pytest.raises(segue.ArgumentError, match=r"sequences\['x'\]: sparse features are of"):
        client.stream(
            "a",
            segue.Push(),
            {"x": segue.Feature("int32", (4,), sparse=True)},
            num_unroll=1,
            batch_size=1,
        )


BAD: list[tuple[Any, dict[str, Any], str]] = [
    ({"x": np.ones(3)}, {}, "sequences['x']: expected float32 of shape (steps,), got float64"),
    ({"x": np.ones((3, 1), "f4")}, {}, "got float32 of shape (3, 1)"),
    ({"x": np.ones(0, "f4")}, {}, "sequences['x']: has no step"),
    ({"x": np.ones(3, "f4")}, {"pad": False}, "sequences['x']: 3 steps are no multiple of "
     "num_unroll = 2: consider pad=True"),
    ({"x": np.ones(9, "f4")}, {"maximum_length": 8}, "9 steps are more than maximum_length = 8"),
    ({"y": np.ones(3, "f4")}, {}, "sequences: 'x' is missing; it has ['y']"),
    ({"x": np.ones(3, "f4"), "y": np.ones(3)}, {}, "sequences: 'y' was not declared"),
    (np.ones(3, "f4"), {}, "sequences: expected a mapping of names to arrays, got ndarray"),
    (Example({"x": np.ones(4, "f4")}, length=-1), {}, "length: -1 is no whole number from 0 to 4"),
    (Example({"x": np.ones(3, "f4")}, length=5), {}, "length: 5 is no whole number from 0 to 4"),
    (Example({"x": np.ones(4, "f4")}, length=1.0), {}, "length: 1.0 is no whole number"),
    (Example({"x": np.ones(4, "f4")}, {"c": 1}), {}, "context: 'c' was not declared"),
    (Example({"x": np.ones(4, "f4")}, initial_states={"c": 1}), {}, "initial_states: 'c' was not"),
    (Example({"x": np.ones(4, "f4")}, initial_states={"h": np.ones(2, "f4")}), {}, "'h'"),
    (Example({"x": np.ones(4, "f4")}, key="k0"), {}, "key b'k0': a sequence of that key"),
    (3, {}, "expected a segue.Example, got int"),
]


@pytest.mark.parametrize(("bad", "options", "says"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_an_example_that_does_not_fit_is_named_after_the_batches_before(
    bad: Any, options: dict[str, Any], says: str
) -> None:
    """Examples 0 and 1 have two segments, 2 has one: two full batches of two, and no third one."""
    example = bad if isinstance(bad, (int, Example)) else Example(bad, key="bad")
    with call([*numbered([4, 4, 2]), example], **options) as batches:
        assert [len(go_on(batches)) for _ in range(2)] == [2, 2]
        for _ in range(2):
            with pytest.raises(segue.ArgumentError) as error:
                next(batches)
            assert "item 3: " in str(error.value)
            assert says in str(error.value)


def test_what_an_iterable_raises_comes_after_the_batches_before() -> None:
    def examples() -> Iterator[Example]:
        yield from numbered([4, 4, 6, 6])
        raise RuntimeError("the disk is gone")

    with call(examples()) as batches:
        assert [len(go_on(batches)) for _ in range(5)] == [2] * 5
        with pytest.raises(segue.SourceError, match="item 4: RuntimeError: the disk is gone"):
            next(batches)


def test_a_failure_comes_where_batches_have_no_rows() -> None:
    """As long as a sequence is there that waits, such batches come."""
    def examples() -> Iterator[Example]:
        yield from numbered([4, 2])
        raise RuntimeError("the disk is gone")

    with call(examples()) as batches:
        assert len(go_on(batches)) == 2
        batches.set_batch_size(0)
        assert [go_on(batches) for _ in range(3)] == [[]] * 3
        batches.set_batch_size(1)
        assert go_on(batches) == [b"00001_of_00002:k0"]
        batches.set_batch_size(0)
        with pytest.raises(segue.SourceError, match="item 2: RuntimeError: the disk is gone"):
            next(batches)


def test_a_failure_waits_for_classes_of_lengths() -> None:
    """What is looked at, four at a time: 0 to 3, then 1, 3, 4, 5; then only 4 has not begun."""
    def examples() -> Iterator[Example]:
        yield from numbered([6, 1, 6, 3, 6, 2])
        raise RuntimeError("the disk is gone")

    with call(examples(), bucket_boundaries=[5], window=4) as batches:
        keys = [[int(key[-1:]) for key in go_on(batches)] for _ in range(5)]
        assert keys == [[0, 2], [0, 2], [0, 2], [1, 3], [3, 5]]
        with pytest.raises(segue.SourceError, match="item 6: RuntimeError: the disk is gone"):
            next(batches)


def test_a_failure_waits_for_batches_that_are_still_on_their_way() -> None:
    """What is called while a batch is waited for: the server may be slower than what has failed."""

    class Failed:
        failed, inserted = True, 3

        def check(self) -> None:
            raise ValueError

    class Taken:
        key = [b"00000_of_00002:a", b"00000_of_00001:b"]
        insertion_index = np.array([FIRST, FIRST + 1])
        sequence, sequence_count = np.array([0, 0]), np.array([2, 1])

    failed: Any = Failed()
    course = segue._course.Course([], 0, 2, 0)
    check = segue._course.watch(failed, course)
    check()  # a batch of sequences 0 and 1
    taken: Any = Taken()
    assert course.follow(taken, 0) == [b"b"]
    assert course.follow(taken, 0) == [b"b"], "it came again"
    assert course.left == 1
    check()  # of 0 and 2
    failed.inserted = 2
    with pytest.raises(ValueError):
        check()
    course.batch_size = 1
    check()


def test_the_lengths_of_all_dense_features_are_named() -> None:
    examples = [Example({"x": np.ones(4), "y": np.ones(8), "z": np.ones(6)}, key="a")]
    with call(examples) as batches, pytest.raises(segue.ArgumentError) as error:
        next(batches)
    assert "'x' 4, 'y' 8, 'z' 6" in str(error.value)


@pytest.mark.parametrize(
    ("sparse", "says"),
    [
        (Sparse([[5, 0]], [1], [6, 2]), "has a value at step 5, and the sequence only 4 steps"),
        (Sparse([[0, 2]], [1], [3, 2]), "indices[0] is [0, 2], which lies outside"),
        (Sparse([[0, -1]], [1], [3, 2]), "indices[0] is [0, -1], which lies outside"),
        (Sparse([[0, 1]], [1, 2], [3, 2]), "2 values"),
        (Sparse([[0, 1, 1]], [1], [3, 2, 2]), "expected a segue.Sparse of rank 2"),
        (np.ones((3, 2)), "expected segue.Sparse, got ndarray"),
    ],
)
def test_sparse_values_that_do_not_fit_are_named(sparse: Any, says: str) -> None:
    good = Sparse(np.array([[3, 1]]), np.array([7]), np.array([9, 2]))
    if isinstance(sparse, Sparse):
        sparse = Sparse(*map(np.array, sparse))
    examples = [Example({"x": np.ones(3), "s": s}, key=str(n)) for n, s in enumerate([good, sparse])]
    with call(examples, batch_size=1) as batches:
        go_on(batches)
        batch = next(batches)  # a value in what is padding of the dense feature
        assert batch.sequences["s"].indices.tolist() == [[0, 1, 1]]
        assert batch.sequences["x"].tolist() == [[1, 0]]
        assert batch.length.tolist() == [1]
        batch.save_state("h", batch.state("h"))
        with pytest.raises(segue.ArgumentError) as error:
            next(batches)
        assert says in str(error.value)
        assert "['s']" in str(error.value)


def test_keys_of_one_segment_may_come_again() -> None:
    examples = [Example({"x": np.ones(2)}, key=key) for key in ["a", "a", "", "", "~", "a"]]
    with call(examples, batch_size=3) as batches:
        assert go_on(batches) == [b"00000_of_00001:a", b"00000_of_00001:a", b"00000_of_00001:"]
        assert next(batches).next_key == [b"STOP:", b"STOP:~", b"STOP:a"]


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("keys", [["0", "1", "2", "3"], ["", "~", "~~:a", "b:"]], ids=str)
def test_a_key_may_come_again_when_it_has_left(keys: list[str], wait: bool) -> None:
    """That depends on `capacity` alone, not on which thread is faster."""
    examples = [Example({"x": np.ones(4)}, key=keys[n % 4]) for n in range(8)]

    def slow() -> Iterator[Example]:
        for example in examples:
            time.sleep(0.02 * wait)
            yield example

    with call(slow(), capacity=3) as batches:
        assert [len(go_on(batches)) for _ in range(8)] == [2] * 8
        assert next(batches, None) is None
    with call(slow(), capacity=6) as batches:
        with pytest.raises(segue.ArgumentError, match=f"key b'{keys[0]}': a sequence of that key"):
            for _ in range(8):
                go_on(batches)


def test_keys_are_made_unique_by_the_originals_numbers() -> None:
    examples = [Example({"x": np.ones(4)}, key="a")] * 3
    options = {"make_keys_unique": True, "make_keys_unique_seed": 29392}
    with call(examples, **options) as batches:
        assert go_on(batches) == [b"00000_of_00002:a79098054", b"00000_of_00002:a51255884"]
        assert next(batches).next_key == [b"STOP:a79098054", b"STOP:a51255884"]


# -- states ----------------------------------------------------------------------------------------


def test_each_state_is_saved_once_and_as_it_is_declared() -> None:
    states = {"h": np.zeros(3, np.float32), "s": np.array([b"a", b""], object)}
    with call(numbered([4, 4]), initial_states=states, state_bytes=8) as batches:
        batch = next(batches)
        with pytest.raises(KeyError, match="'c'"):
            batch.state("c")
        with pytest.raises(KeyError, match="'c'"):
            batch.save_state("c", 0)
        with pytest.raises(segue.StateShapeError, match="'h'"):
            batch.save_state("h", np.zeros((3, 3), np.float32))
        with pytest.raises(segue.StateTypeError, match="'h'"):
            batch.save_state("h", np.zeros((2, 3)))
        with pytest.raises(segue.StateShapeError, match=r"'s': expected bytes of shape .*\(2,\)"):
            batch.save_state("s", np.array([b"a", b"b"], object))
        with pytest.raises(segue.StateShapeError, match="'s': a string of 9 bytes"):
            batch.save_state("s", [[b"a", b"b"], [b"", b"123456789"]])
        with pytest.raises(segue.UnsavedError, match="h.*s"):
            next(batches)
        batch.save_state("s", [[b"a", b"b"], [b"", b"12345678"]])
        with pytest.raises(segue.StateError, match="'s': it was saved in this batch before"):
            batch.save_state("s", batch.state("s"))
        with pytest.raises(segue.UnsavedError, match="'?h"):
            next(batches)
        batch.save_state("h", batch.state("h"))
        assert next(batches).state("s").tolist() == [[b"a", b"b"], [b"", b"12345678"]]
        with pytest.raises(segue.ClosedError):
            batch.save_state("h", np.zeros((2, 3), np.float32))


def test_states_are_transformed_between_batches() -> None:
    double, less = (lambda value: value * np.float32(2)), (lambda value: value - np.float32(1))
    states = {"h": np.float32(3), "c": np.float32(5)}
    options = {"initial_states": states, "batch_size": 1}
    for given, want in [
        ({"h": [double, less]}, [5, 5]),
        ({"c": double}, [3, 10]),
        ([less], [2, 4]),
        (None, [3, 5]),
    ]:
        with call(numbered([4]), state_transformations=given, **options) as batches:
            batch = next(batches)
            assert [batch.state(name).tolist() for name in "hc"] == [[3], [5]]
            for name in "hc":
                batch.save_state(name, batch.state(name))
            batch = next(batches)
            assert [batch.state(name)[0] for name in "hc"] == want


def test_zero_is_a_transformation() -> None:
    options = {"initial_states": {"h": np.float32(3), "c": np.float32(3)}, "batch_size": 1}
    for given, want in [({"h": segue.zero(1)}, [3, 4]), ([abs, segue.zero(1)], [3, 3])]:
        with call(numbered([4]), state_transformations=given, **options) as batches:
            batch = next(batches)
            for name in "hc":
                batch.save_state(name, batch.state(name) + 1)
            batch = next(batches)
            assert [batch.state(name)[0] for name in "hc"] == want
    some = {"h": [segue.zero(0.5), segue.zero(0.5)]}
    with pytest.raises(segue.ArgumentError, match="'h' has two policies"):
        call(numbered([4]), state_transformations=some, **options)


def test_states_by_their_size() -> None:
    with call(numbered([3]), initial_states=None, state_size=4, batch_size=1) as batches:
        assert next(batches).state("state").tolist() == [[0.0] * 4]
    sizes = {"h": (2, 3), "c": ()}
    with call(numbered([3]), initial_states=None, state_size=sizes, batch_size=1) as batches:
        batch = next(batches)
        assert batch.state("h").shape == (1, 2, 3)
        assert batch.state("c").dtype == np.float32


def test_numbers_are_converted_and_long_examples_cut() -> None:
    examples = [
        Example({"x": [1, 2, 3], "s": Sparse(np.array([[1, 0], [2, 1]]), np.array([b"a", b"b"], object),
                                             np.array([3, 2]))}, key="a", length=3),
        Example({"x": np.array([2**40] * 2), "s": Sparse(np.zeros((0, 2)), [], np.array([1, 1]))}),
    ]
    options = {"dtype": "int32", "maximum_length": 2, "on_too_long": "truncate", "batch_size": 1}
    with call(examples, **options) as batches:
        batch = next(batches)
        assert batch.sequences["x"].dtype == np.int32
        assert batch.sequences["x"].tolist() == [[1, 2]]
        assert batch.sequences["s"].values.tolist() == [b"a"]
        assert batch.key == [b"00000_of_00001:a"]
        assert batch.total_length.tolist() == [2]
        batch.save_state("h", batch.state("h"))
        with pytest.raises(segue.ArgumentError, match="item 1: .*'x'.*int64 are lost in dtype='int32'"):
            next(batches)


# -- life ------------------------------------------------------------------------------------------


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For temporary files, so that nobody else's are taken for those of a test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def left() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("segue-batches-*")}


@pytest.mark.usefixtures("own_folder")
def test_arrays_are_the_callers_own_and_nothing_is_left_behind() -> None:
    before, kept = left(), []
    with call(numbered([2] * 40)) as batches:
        assert left() - before
        for batch in batches:
            kept.append(batch)
            batch.save_state("h", batch.state("h"))
    values = [batch.sequences["x"] for batch in kept]
    assert np.concatenate(values)[:, 0].tolist() == list(range(40))
    values[0][:] = 1
    first = kept[0]
    for array in (first.length, first.sequence, first.total_length, first.insertion_index):
        array += 1  # PyTorch warns of what cannot be written to
    with pytest.raises(segue.ClosedError):
        kept[0].state("h")
    assert not left() - before
    with pytest.raises(segue.ClosedError):
        next(batches)
    batches.close()


@pytest.mark.usefixtures("own_folder")
def test_no_examples_make_no_batches() -> None:
    before = left()
    with call([]) as batches:
        assert list(batches) == []
        batches.set_batch_size(0)
        assert not left() - before


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_what_nobody_refers_to_is_collected(taken: int) -> None:
    def endless() -> Iterator[Example]:
        for number in itertools.count():
            yield Example({"x": np.ones(4)}, key=str(number))

    before, threads = left(), threading.active_count()
    batches = call(endless())
    for _ in range(taken):
        go_on(batches)
    del batches
    gc.collect()
    assert not left() - before
    assert threading.active_count() == threads


def test_examples_are_read_as_far_as_capacity_says() -> None:
    read: list[int] = []

    def examples() -> Iterator[Example]:
        for number in range(30):
            read.append(number)
            yield Example({"x": np.ones(2)}, key=str(number))

    with call(examples(), capacity=5) as batches:
        for taken in range(2, 20, 2):
            go_on(batches)
            time.sleep(0.05)
            assert len(read) <= taken + 5 + 1  # and the one in hand
        assert len(read) == 18 + 5 + 1


CTRL_C = """
import signal, sys, threading, time, numpy as np, segue

def examples():
    yield segue.Example({"x": np.ones(2)}, key="a")
    time.sleep(1000)

batches = segue.batch_sequences_with_states(
    examples(), initial_states={"h": np.float32(0)}, num_unroll=2, batch_size=2)
threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
try:
    next(batches)
except KeyboardInterrupt:
    print("interrupted", flush=True)
if sys.argv[1:] == ["close"]:
    batches.close()
"""


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("how", ["close", "exit"])
def test_ctrl_c_while_an_example_is_waited_for(how: str) -> None:
    before = left()
    command = [sys.executable, "-c", CTRL_C, how]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert not left() - before


def test_use_after_fork_is_an_error() -> None:
    with call(numbered([4] * 9)) as batches:
        go_on(batches)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                next(batches)
            except segue.ForkedError:
                code = 0
            finally:
                batches._finalizer()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(go_on(batches)) == 2


KILLED = """
import json, os, sys, signal, numpy as np, segue

rng = np.random.default_rng(5)
def examples():
    for number, steps in enumerate(rng.integers(1, 9, 40).tolist()):
        yield segue.Example(
            {"x": np.full(steps, number, np.int64)}, {"c": number}, key="k%d" % number)

batches = segue.batch_sequences_with_states(
    examples(), initial_states={"h": np.int64(0), "s": np.array(b"", object)}, num_unroll=2,
    batch_size=3, capacity=7, make_keys_unique=True, store=sys.argv[1], start=sys.argv[2] or None,
    bucket_boundaries=json.loads(sys.argv[5]))
die = int(sys.argv[3])
for count, batch in enumerate(batches):
    if count == die:
        os.kill(os.getpid(), signal.SIGKILL)
    h, s = batch.state("h"), batch.state("s")
    with open(sys.argv[4], "a") as file:
        print(batch.key, batch.length.tolist(), batch.sequences["x"].tolist(), h.tolist(),
              s.tolist(), batch.context["c"].tolist(), file=file)
    batch.save_state("h", 3 * h + batch.sequences["x"].sum(axis=1))
    batch.save_state("s", [one + b"%d" % len(one) for one in s])
"""


@pytest.mark.parametrize("boundaries", [None, [3, 5]])
def test_what_was_killed_goes_on_with_the_same_batches(
    tmp_path: Path, boundaries: list[int] | None
) -> None:
    """Also where it is killed between two commits on disk: what comes again is the same."""
    print(f"SEGUE_TEST_SEED={SEED}")
    rng = random.Random(SEED)

    def run(store: str, start: str, die: int, log: str) -> int:
        paths = [str(tmp_path / store), start, str(die), str(tmp_path / log), json.dumps(boundaries)]
        return subprocess.run([sys.executable, "-c", KILLED, *paths], timeout=60).returncode

    assert run("whole", "", -1, "whole.txt") == 0
    whole = (tmp_path / "whole.txt").read_text().splitlines()
    start, runs = "", 0
    while run("killed", start, rng.randint(1, 12), "killed.txt") != 0:
        start, runs = "continue", runs + 1
        assert runs < 200
    assert runs > 1
    told = (tmp_path / "killed.txt").read_text().splitlines()
    at = 0
    for line in told:  # either the next, or one that comes again
        at = whole.index(line) if line in whole[: at + 1] else -1
        assert at >= 0, line
        at += 1
    assert at == len(whole)
    assert run("killed", "", -1, "refused.txt") != 0  # nothing says what is meant
    assert not (tmp_path / "refused.txt").exists()
    assert run("killed", "fresh", -1, "fresh.txt") == 0
    assert (tmp_path / "fresh.txt").read_text().splitlines() == whole


def test_it_goes_through_kills_of_the_server(tmp_path: Path) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    steps = [rng.randint(1, 9) for _ in range(40)]

    def run(store: Path, kills: bool) -> list[Any]:
        told = []
        with call(iter(numbered(steps)), batch_size=3, capacity=6, store=store) as batches:
            for batch in batches:
                told.append((batch.key, batch.state("h").tolist(), batch.length.tolist()))
                batch.save_state("h", batch.state("h") * 2 + batch.sequences["x"].sum(axis=1))
                if kills and rng.random() < 0.1:
                    os.kill(int((store / "server.pid").read_text()), signal.SIGKILL)
        return told

    assert run(tmp_path / "killed", kills=True) == run(tmp_path / "whole", kills=False)


def test_a_batch_size_is_gone_on_with(tmp_path: Path) -> None:
    examples = [Example({"s": Sparse(np.array([[n, 0]]), np.array([n]), np.array([6, 1]))}, key=str(n))
                for n in range(6)]
    options: dict[str, Any] = {"batch_size": 4, "store": tmp_path / "store", "capacity": 5}
    with call(examples, **options) as batches:
        go_on(batches)
        batches.set_batch_size(3)
        assert go_on(batches) == [b"00001_of_00003:0", b"00001_of_00003:1", b"00001_of_00003:2"]
    with call(examples, start="continue", **options) as batches:
        assert batches.batch_size == 3
        batch = next(batches)
        assert batch.key == [b"00002_of_00003:0", b"00002_of_00003:1", b"00002_of_00003:2"]
        assert batch.sequences["s"].dense_shape.tolist() == [3, 2, 1]
        batch.save_state("h", batch.state("h"))
        assert go_on(batches) == [b"00001_of_00003:3", b"00000_of_00003:4", b"00000_of_00003:5"]
        assert [len(go_on(batches)) for _ in range(2)] == [3, 2]
        assert next(batches, None) is None


def test_stores_of_those_who_were_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, numpy as np, segue\n"
        "examples = [segue.Example({'x': np.ones(2)})] * 4\n"
        "batches = segue.batch_sequences_with_states(\n"
        "    examples, initial_states={'h': np.zeros(2)}, num_unroll=2, batch_size=2)\n"
        "next(batches)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60)
    (orphan,) = tmp_path.glob("segue-batches-*")
    until = time.monotonic() + 30
    while (orphan / "segue.sock").exists() and time.monotonic() < until:
        time.sleep(0.05)
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60)
    (other,) = tmp_path.glob("segue-batches-*")
    assert other != orphan


def test_a_store_that_another_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flock = _temporary.fcntl.flock
    removed = []

    def flock_late(lock: int, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            _temporary._remove_left(str(tmp_path))  # the maker of another
        flock(lock, how)

    monkeypatch.setattr(_temporary.fcntl, "flock", flock_late)
    store = _temporary.TemporaryStore()
    assert removed and not removed[0].exists()
    assert list(tmp_path.iterdir()) == [Path(store.path)]
    _temporary._remove_left(str(tmp_path))
    assert Path(store.path).exists(), "it is locked"
    store.remove()
    assert not list(tmp_path.iterdir())


# -- sources ---------------------------------------------------------------------------------------


def test_a_source_comes_as_the_stream_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    steps = [3, 4, 1]
    with segue.tfrecord.SequenceExampleWriter(path) as writer:
        for number, count in enumerate(steps):
            ragged = [np.arange(step % 3, dtype=np.int64) for step in range(count)]
            writer.write({"x": np.full(count, number, np.float32), "r": ragged}, {"c": number})
    options: dict[str, Any] = {
        "sequences": {
            "x": segue.Feature("float32"),
            "r": segue.Feature("int64", sparse=True),
        },
        "context": {"c": segue.Feature("int64")},
        "make_keys_unique": True,
        "make_keys_unique_seed": 29392,
        "epochs": 2,
    }
    keys = []
    with call(segue.TFRecord(path), **options) as batches:
        batch = next(batches)
        assert batch.sequences["x"].tolist() == [[0, 0], [1, 1]]
        assert batch.sequences["r"].indices.tolist() == [[0, 1, 0], [1, 1, 0]]
        assert batch.sequences["r"].values.tolist() == [0, 0]
        assert batch.sequences["r"].dense_shape.tolist() == [2, 2, 1]
        assert batch.context["c"].tolist() == [0, 1]
        assert batch.key[0] == b"00000_of_00002:a.tfrecord:079098054"
        keys += batch.key
        batch.save_state("h", batch.state("h"))
        for batch in batches:
            keys += batch.key
            batch.save_state("h", batch.state("h"))
    assert len(keys) == len(set(keys)) == 2 * (2 + 2 + 1)
    with call(
        segue.TFRecord(path), maximum_length=2, on_too_long="truncate", **options | {"epochs": 1}
    ) as batches:
        assert go_on(batches)[0] == b"00000_of_00001:a.tfrecord:079098054"
        assert next(batches).sequences["x"].tolist() == [[2, 0]]
    with call(segue.TFRecord(path), maximum_length=3, **options) as batches:
        with pytest.raises(segue.DataError, match="4 steps"):
            for _ in range(9):
                go_on(batches)
    with pytest.raises(segue.ArgumentError, match="dtype: it is for examples"):
        call(segue.TFRecord(path), dtype="int32", **options)
    with pytest.raises(segue.ArgumentError, match="examples: producers insert"):
        call(segue.Push(), **options)


def test_the_example_in_its_help_is_true() -> None:
    found = doctest.testmod(sys.modules["segue.compat"])
    assert found.attempted > 2
    assert found.failed == 0


@pytest.mark.parametrize(
    ("examples", "options", "text"),
    [
        ("data/*.tfrecord", {}, r"examples: expected an iterable of .*TFRecord.*, got str"),
        (None, {}, "examples: expected an iterable of .*, got NoneType"),
        (Example({"x": np.zeros(2)}), {}, "examples: expected an iterable of .*, got Example"),
        (numbered([4]), {"epochs": 2}, "epochs: it is for a source, and examples are read once"),
        (numbered([4]), {"on_too_long": "truncate"}, "on_too_long: .*longer than maximum_length"),
        (numbered([4]), {"start": "continue"}, "start: nothing is kept .* give store=DIR"),
        (
            numbered([4]),
            {"initial_states": {"h": segue.State("float32", 3)}},
            r"initial_states\['h'\]: dtype\('O'\) is none of float32",
        ),
        ([Example({"x": np.ones(2, ">f4")})], {}, r"sequences\['x'\]: dtype\('>f4'\) is none of"),
        ([Example({"x": np.ones(2)}, key=3)], {}, "item 0: key: expected str or bytes, got int"),
        (numbered([4]), {"make_keys_unique_seed": "a"}, "make_keys_unique_seed: 'a' is not a whole"),
        (numbered([4]), {"pad": "no"}, "pad: 'no' is neither True nor False"),
    ],
)
def test_what_would_have_been_something_else(examples: Any, options: Any, text: str) -> None:
    """Text gone through sign by sign, a pass that is not made, a start that is not gone on from."""
    with pytest.raises(segue.ArgumentError, match=text):
        next(call(examples, **options))


def test_what_an_iterator_raises_is_said_once() -> None:
    def examples() -> Iterator[Example]:
        yield from numbered([4, 4, 4])
        raise RuntimeError("the disk is gone")

    with call(examples(), batch_size=2) as batches, pytest.raises(segue.SourceError) as error:
        while True:
            go_on(batches)
    assert str(error.value) == "item 3: RuntimeError: the disk is gone"
    assert isinstance(error.value.__cause__, RuntimeError)


def test_an_iterator_that_was_used_up_is_told() -> None:
    with pytest.warns(UserWarning, match="no batches: examples has no item"):
        assert list(call(iter(()))) == []


def test_ctrl_c_while_a_batch_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch, which nobody has seen, comes again, and all after it as without."""

    def keys() -> list[list[bytes]]:
        found = []
        with call(numbered([5, 3, 4, 6, 2, 7]), capacity=4) as batches:
            while True:
                try:
                    found.append(go_on(batches))
                except StopIteration:
                    return found
                except KeyboardInterrupt:
                    pass

    whole = keys()
    put_together = segue.compat.SequenceBatch.__init__
    calls = itertools.count()

    def interrupted(*arguments: Any) -> None:
        put_together(*arguments)
        if next(calls) % 3 == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(segue.compat.SequenceBatch, "__init__", interrupted)
    assert keys() == whole

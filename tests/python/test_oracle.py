"""The model itself, against examples worked out by hand from the rules."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import permutation
from oracle import (
    NO_ROW,
    NO_SEQUENCE,
    BadRecord,
    Feature,
    Model,
    Record,
    Spec,
    State,
    lanes_of,
    plan_rows,
)


def toy(lengths: list[int], **context: list[int]) -> list[list[Record]]:
    """One file; step j of record i holds 100 i + j + 1."""
    return [
        [
            Record(
                key=f"toy:{i}",
                sequences={"x": np.arange(n) + 100 * i + 1},
                context={name: values[i] for name, values in context.items()},
            )
            for i, n in enumerate(lengths)
        ]
    ]


def spec(**fields) -> Spec:
    return Spec(**{"sequences": {"x": Feature("int64")}, "num_unroll": 3, "batch_size": 2} | fields)


def rows_of(model: Model, lane: int = 0) -> list[list[tuple[int, int] | None]]:
    return list(model.plan(lane))


def test_the_seed_documents_example():
    model = Model(toy([12, 14]), spec())
    batches = list(model.batches(0))
    assert [b.batch_size for b in batches] == [2, 2, 2, 2, 1]
    assert batches[0].key == [b"00000_of_00004:toy:0", b"00000_of_00005:toy:1"]
    assert batches[3].next_key == [b"STOP:toy:0", b"00004_of_00005:toy:1"]
    last = batches[4]
    assert last.length == [2] and last.total_length == [14] and last.is_last == [True]
    assert last.sequences["x"].tolist() == [[113, 114, 0]]
    assert last.mask.tolist() == [[True, True, False]]
    assert last.previous_row == [1], "it moved up"


def test_a_shorter_length_keeps_the_count():
    record = Record("k", {"x": np.ones(4)}, length=1)
    batches = list(Model([[record]], spec(num_unroll=2, batch_size=1)).batches(0))
    assert [b.length for b in batches] == [[1], [0]]
    assert [b.total_length for b in batches] == [[1], [1]]
    assert batches[1].sequences["x"].tolist() == [[1, 1]], "the arrays are delivered all the same"


def test_ended_rows_take_the_next_in_ascending_row_order():
    model = Model(toy([3, 6, 3, 3, 3]), spec(batch_size=3))
    assert rows_of(model) == [
        [(0, 0), (1, 0), (2, 0)],
        [(3, 0), (1, 1), (4, 0)],
    ]


def test_tails():
    lengths = [9, 3, 3, 3]  # 3, 1, 1, 1 segments
    assert rows_of(Model(toy([3, 9]), spec())) == [[(0, 0), (1, 0)], [(1, 1)], [(1, 2)]]
    assert rows_of(Model(toy([3, 9]), spec(tail="stop"))) == [[(0, 0), (1, 0)]]
    assert Model(toy([3, 9]), spec(tail="stop")).undelivered(0) == 2
    assert rows_of(Model(toy([3, 9]), spec(tail="pad")))[1:] == [[None, (1, 1)], [None, (1, 2)]]
    # Lane 0 has records 0 and 2 (3 + 1 segments), lane 1 has 1 and 3.
    model = Model(toy(lengths), spec(tail="pad", lanes=2))
    assert rows_of(model, 0) == [[(0, 0), (2, 0)], [(0, 1), None], [(0, 2), None]]
    assert rows_of(model, 1) == [[(1, 0), (3, 0)], [None, None], [None, None]]


def test_too_few_sequences_for_a_batch():
    assert rows_of(Model(toy([6]), spec())) == [[(0, 0)], [(0, 1)]]
    assert rows_of(Model(toy([6]), spec(tail="stop"))) == []
    assert Model(toy([6]), spec(tail="stop")).undelivered(0) == 2
    lane_without_any = Model(toy([6]), spec(lanes=2, tail="pad"))
    assert rows_of(lane_without_any, 1) == [[None, None], [None, None]]


def test_epochs_follow_without_a_gap_or_drain():
    # 3 records over 2 lanes: sequence numbers 0..5, lane 0 has 0, 2, 4; lane 1 has 1, 3, 5.
    lengths = [3, 3, 9]
    flow = Model(toy(lengths), spec(lanes=2, epochs=2, tail="pad"))
    assert [flow.record_of(g) for g in range(6)] == [0, 1, 2, 0, 1, 2]
    assert rows_of(flow, 0) == [[(0, 0), (2, 0)], [(4, 0), (2, 1)], [None, (2, 2)], [None, None]]
    assert rows_of(flow, 1) == [[(1, 0), (3, 0)], [(5, 0), None], [(5, 1), None], [(5, 2), None]]

    drain = Model(toy(lengths), spec(lanes=2, epochs=2, tail="pad", epoch_end="drain"))
    assert rows_of(drain, 0)[:3] == [[(0, 0), (2, 0)], [None, (2, 1)], [None, (2, 2)]]
    assert rows_of(drain, 0)[3:] == [[(4, 0), None], [None, None], [None, None]]
    assert rows_of(drain, 1)[:3] == [[(1, 0), None], [None, None], [None, None]]
    assert rows_of(drain, 1)[3:] == [[(3, 0), (5, 0)], [None, (5, 1)], [None, (5, 2)]]

    # An empty row is of the epoch that it pads, also where all rows of a batch are.
    assert [b.epoch for b in flow.batches(1)] == [[0, 1], [1, 1], [1, 1], [1, 1]]
    assert [b.epoch for b in drain.batches(0)] == [[0, 0]] * 3 + [[1, 1]] * 3

    stop = Model(toy(lengths), spec(epochs=2, tail="stop", epoch_end="drain"))
    assert rows_of(stop) == [[(0, 0), (1, 0)], [(3, 0), (4, 0)]]
    assert stop.undelivered(0) == 6

    shrink = Model(toy([3, 6]), spec(epochs=2, epoch_end="drain"))
    assert rows_of(shrink) == [[(0, 0), (1, 0)], [(1, 1)], [(2, 0), (3, 0)], [(3, 1)]]


def test_endless_epochs():
    model = Model(toy([3, 3]), spec(epochs=None))
    assert list(islice(model.plan(0), 2)) == [[(0, 0), (1, 0)], [(2, 0), (3, 0)]]
    assert next(islice(model.batches(0), 50, None)).epoch == [50, 50]


def test_empty_rows_hold_nothing():
    spec_ = spec(tail="pad", context={"c": Feature("int32")}, states={"s": State("float32", (), 7)})
    batch = list(Model(toy([3, 9], c=[5, 6]), spec_).batches(0))[1]
    assert batch.key == [b"", b"00001_of_00003:toy:1"] and batch.next_key[0] == b""
    assert batch.insertion_index == [NO_SEQUENCE, 1] and batch.previous_row == [NO_ROW, 1]
    assert batch.length == [0, 3] and not batch.mask[0].any()
    assert batch.sequences["x"][0].tolist() == [0, 0, 0]
    assert batch.context["c"].tolist() == [0, 6]


def test_states_are_carried_with_their_sequence():
    states = {"sum": State("int64", (), 1000), "steps": State("float32", (2,), [0.5, 0])}

    def update(state, inputs, step):
        return {"sum": state["sum"] + inputs["x"].sum(), "steps": state["steps"] + step}

    batches = list(Model(toy([3, 9, 6]), spec(states=states), update).batches(0))
    assert [b.state_in["sum"].tolist() for b in batches] == [
        [1000, 1000],
        [1000, 1000 + 101 + 102 + 103],
        [1000 + 201 + 202 + 203, 1000 + sum(range(101, 107))],
    ]
    assert batches[2].state_in["steps"].tolist() == [[1.5, 1], [1.5, 1]]
    shrunk = list(Model(toy([3, 9]), spec(states=states), update).batches(0))
    assert shrunk[1].state_in["sum"].tolist() == [1306], "the state moves up with its row"


def test_bad_records():
    unequal = Record("k", {"x": np.ones(4), "y": np.ones(3)})
    features = {"x": Feature("int64"), "y": Feature("int64")}
    with pytest.raises(BadRecord, match="different lengths.*4.*3"):
        Model([[unequal]], spec(sequences=features))
    with pytest.raises(BadRecord, match="empty"):
        Model(toy([0]), spec())
    with pytest.raises(BadRecord, match="4 steps of.*x.*num_unroll = 3.*pad=True"):
        Model(toy([4]), spec(pad=False))
    with pytest.raises(BadRecord, match="length 7"):
        Model([[Record("k", {"x": np.ones(4)}, length=7)]], spec())


def test_damaged_records_can_be_passed_over():
    files = toy([3, 5, 6, 3])
    for i in (1, 3):
        files[0][i] = Record("k", {"x": np.ones(3)}, damaged=True)
    with pytest.raises(BadRecord, match="k: damaged"):
        Model([[files[0][3]]], spec())
    with pytest.raises(BadRecord, match="empty sequence"):
        Model(toy([3, 0]), spec(on_error="skip"))
    model = Model(files, spec(on_error="skip", epochs=2))
    assert rows_of(model) == [[(0, 0), (2, 0)], [(4, 0), (2, 1)], [(6, 0)], [(6, 1)]]


def test_random_plans_keep_the_rules():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for _ in range(200):
        lengths = rng.integers(1, 20, rng.integers(1, 15)).tolist()
        fields = spec(
            num_unroll=int(rng.integers(1, 6)),
            batch_size=int(rng.integers(1, 5)),
            lanes=int(rng.integers(1, 5)),
            shuffle=bool(rng.integers(2)),
            seed=int(rng.integers(2**63)),
            epochs=int(rng.integers(1, 4)),
            tail=str(rng.choice(["shrink", "stop", "pad"])),
            epoch_end=str(rng.choice(["continue", "drain"])),
        )
        model = Model(toy(lengths), fields)
        plans = [rows_of(model, lane) for lane in range(fields.lanes)]
        seen = [place for plan in plans for rows in plan for place in rows if place is not None]
        total = fields.epochs * sum(-(-n // fields.num_unroll) for n in lengths)
        left_out = sum(model.undelivered(lane) for lane in range(fields.lanes))
        assert len(seen) == len(set(seen)) and len(seen) + left_out == total
        if fields.tail == "pad":
            assert len({len(plan) for plan in plans}) == 1
        if fields.tail != "shrink":
            assert all(len(rows) == fields.batch_size for plan in plans for rows in plan)
        for plan in plans:
            for before, after in zip(plan, plan[1:]):
                for row, place in enumerate(after):
                    if place is not None and place[1] and fields.tail != "shrink":
                        assert before[row] == (place[0], place[1] - 1), "a sequence keeps its row"


def test_plan_rows_returns_what_stop_leaves():
    plan = plan_rows([0, 1, 2], lambda number: number + 1, lambda step: 2, "stop")
    assert [next(plan), next(plan)] == [([(0, 0), (1, 0)], []), ([(2, 0), (1, 1)], [])]
    with pytest.raises(StopIteration) as end:
        next(plan)
    assert end.value.value == 2


def test_batch_sizes_from_0_to_7():
    model = Model(toy([2] * 16), spec(num_unroll=1, sizes={n: n for n in range(8)}))
    wanted = [[], [0], [0, 1], [1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7, 8]]
    wanted += [list(range(6, 12)), list(range(9, 16))]
    assert [sorted(n for n, _ in rows) for rows in islice(model.plan(0), 8)] == wanted


def test_what_is_parked_keeps_its_state_and_comes_back_first():
    def add(states, inputs, step):
        return {"s": states["s"] + inputs["x"][0]}

    given = spec(
        num_unroll=1, batch_size=3, sizes={1: 1, 2: 0, 3: 4}, states={"s": State("int64")}
    )
    batches = list(Model(toy([3, 2, 2, 1, 1]), given, add).batches(0))
    assert [batch.insertion_index for batch in batches] == [[0, 1, 2], [0], [], [0, 1, 2, 3], [4]]
    assert batches[3].state_in["s"].tolist() == [1 + 2, 101, 201, 0]
    assert batches[3].previous_row == [0, 1, 2, NO_ROW], "behind the rows of the batch before"


def test_permutation_is_one():
    for n in [1, 2, 3, 4, 5, 16, 17, 100, 257, 1000]:
        for epoch in range(3):
            order = [permutation.permute(7, epoch, i, n) for i in range(n)]
            assert sorted(order) == list(range(n))
    orders = {
        tuple(permutation.permute(seed, epoch, i, 50) for i in range(50))
        for seed in (0, 1, 2**64 - 1)
        for epoch in (0, 1, 2**40)
    }
    assert len(orders) == 9, "seed and epoch both matter"
    # The finalizer's published first output for state 0 (it adds the constant first).
    assert permutation.splitmix64_mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    with pytest.raises(ValueError):
        permutation.permute(0, 0, 5, 5)


def test_lanes_of_workers():
    assert [lanes_of(rank, 2, 5) for rank in range(2)] == [[0, 2, 4], [1, 3]]


def test_batches_of_one_class():
    # 3, 5, 2, 4, 1, 4, 4, 1 segments; those of 4 and more are of class 1.
    lengths = [9, 15, 6, 12, 3, 12, 12, 3]
    model = Model(toy(lengths), spec(boundaries=(12,), window=6))
    rows = rows_of(model)
    assert rows[:4] == [
        [(0, 0), (2, 0)],
        [(0, 1), (2, 1)],
        [(0, 2), (4, 0)],  # in the row that 2 has left; 1 and 3 wait
        [(1, 0), (3, 0)],  # 6 and 7 are looked at, too
    ]
    assert rows[7] == [(1, 4), (5, 0)]
    assert rows[8:] == [[(6, 0), (5, 1)], [(6, 1), (5, 2)], [(6, 2), (5, 3)], [(6, 3)], [(7, 0)]]
    padded = rows_of(Model(toy(lengths), spec(boundaries=(12,), window=6, tail="pad")))
    assert padded[11:] == [[(6, 3), None], [(7, 0), None]]
    # No row lives behind the third batch: it is the turn of the oldest, 1, and not of 4.
    rows = rows_of(Model(toy([9, 15, 6, 3, 3]), spec(boundaries=(12,))))
    assert rows[2:4] == [[(0, 2), (3, 0)], [(1, 0)]]
    assert rows[8:] == [[(4, 0)]]

"""Trees of states: nested as a model has them, flat in the store, the same bits on every way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import segue
from segue import _arrays
from segue.trees import StateTree, Structure

SEED = int(os.environ.get("SEGUE_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
State = segue.State


class Cell(NamedTuple):
    """As an xLSTM's."""

    c: Any
    n: Any
    m: Any


TREES: dict[str, Any] = {
    "flat": {"h": State("float32", 3), "c": State("float64", (2, 2))},
    "layers first": (State("float32", (3, 4), row_axis=1), State("float32", (3, 4), row_axis=1)),
    "xlstm": {
        "blocks": [Cell(State("float32", (2, 2)), State("float32", 2), State("float32"))] * 2
    },
    "tuples of bfloat16": {
        "a": (State("bfloat16", 4), State("bfloat16", (2, 3), row_axis=2)),
        "b": {"x": (State("float16", 2),), "none": None, "empty": {}},
    },
    "keys of numbers": OrderedDict([(0, State("int8", 2)), (7, [State("bool", 2)])]),
    "empty": {},
    "empty tuple": (),
}


def make(client: segue.Client, states: Any, name: str = "train", **options: Any) -> segue.Stream:
    x = [np.arange(n, dtype=np.float32) for n in (9, 10, 5, 3, 6, 8)]
    return client.stream(
        name, segue.Arrays({"x": x}), {"x": segue.Feature("float32")}, states=states,
        **{"num_unroll": 2, "batch_size": 2, **options},
    )  # fmt: skip


def bits(array: Any) -> bytes:
    """All that can differ."""
    array = np.asarray(array)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def random_tree(states: Any, rows: int, rng: np.random.Generator) -> tuple[Any, dict[str, bytes]]:
    """Any bits at all for each state, where its rows belong; and the same by path, rows first."""
    tree = StateTree(states)
    values, flat = {}, {}
    for path, state in tree.declared.items():
        shape = (rows, *state.shape)
        kind = np.dtype("uint16" if state.dtype == "bfloat16" else state.dtype)
        data = rng.bytes(int(np.prod(shape)) * kind.itemsize)
        array = np.frombuffer(data, kind) if kind != bool else rng.integers(0, 2, shape) == 1
        array = array.reshape(shape)
        if state.dtype == "bfloat16":
            array = array.view(segue._arrays.bfloat16())
        flat[path] = bits(array)
        values[path] = np.moveaxis(array, 0, tree.axis(path))
    return tree.structure.build(values), flat


@pytest.mark.parametrize("name", TREES)
def test_round_trips_through_commit_token_and_kill(
    client: segue.Client, name: str, tmp_path: Path
) -> None:
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    states, store = TREES[name], client.dir
    stream = make(client, states)
    structure = StateTree(states).structure
    loader = stream.loader()
    batches = iter(loader)
    batch = next(batches)
    first, flat = random_tree(states, 2, rng)
    batch.states = first
    batch = next(batches)
    assert {path: bits(batch.state(path)) for path in flat} == flat
    for (path, array), (_, saved) in zip(
        structure.leaves(batch.states), structure.leaves(first), strict=True
    ):
        assert bits(array) == bits(saved), path
    tree, there = random_tree(states, 2, rng)
    batch.states = tree
    token = loader.state_dict()
    loader.flush()
    client.close()
    pid = int((Path(store) / "server.pid").read_text().split()[0])
    os.kill(pid, 9)
    with segue.open(store) as again:
        stream = make(again, states)
        loader = stream.loader(start="continue")
        batch = next(iter(loader))
        assert batch.step == 2 and not batch.is_first.any()
        assert {path: bits(batch.state(path)) for path in there} == there
        loader.load_state_dict(token)
        batch = next(iter(loader))
        assert {path: bits(batch.state(path)) for path in there} == there
        read = batch.states  # and what was read can be saved as it is
        batch.states = read
        batch.commit()
        batch = next(iter(loader))
        assert {path: bits(batch.state(path)) for path in there} == there


def test_errors_name_the_path(client: segue.Client) -> None:
    stream = make(client, {"rnn": [State("float32", 3), State("float32", 3)], "m": State("int32")})
    batch = next(iter(stream.loader()))
    good: dict[str, Any] = batch.states

    def refused(tree: Any, kind: type[Exception], *words: str) -> None:
        with pytest.raises(kind) as caught:
            batch.states = tree
        for word in words:
            assert word in str(caught.value), caught.value
        assert not batch.all_saved

    half = np.zeros((2, 3), np.float16)
    refused({"m": good["m"]}, segue.StateNameError, "'rnn'", "missing")
    refused(good | {"x": 1}, segue.StateNameError, "'x'", "'rnn', 'm'")
    refused(good | {"rnn": good["rnn"][:1]}, segue.StateNameError, "'rnn/1'", "missing")
    refused(good | {"rnn": good["m"]}, segue.StateNameError, "'rnn'", "'0', '1'", "ndarray")
    refused(good | {"rnn": [good["rnn"][0], half]}, segue.StateTypeError, "'rnn/1'", "float16")
    refused(good | {"m": np.zeros((2, 1), np.int32)}, segue.StateShapeError, "'m'", "(2, 1)")
    refused(good | {"m": {"a": good["m"]}}, segue.StateNameError, "'m'", "dict")
    with pytest.raises(AttributeError):
        del batch.states
    batch.states = good
    assert batch.all_saved


def test_what_is_no_tree_of_states(client: segue.Client) -> None:
    around: list[Any] = [State("int8")]
    around.append(around)
    for states, words in (
        (State("float32"), "under names"),
        ({"a": {"b": 3}}, "states['a/b']"),
        ({"a/b": State("int8"), "a": {"b": State("int8")}}, "two states have the path 'a/b'"),
        ({1.5: State("int8")}, "the key 1.5"),
        ({"a": {"0": {"b": State("int8")}, 0: {"c": State("int8")}}}, "two keys of 'a' are '0'"),
        ({"0": State("int8"), 0: ()}, "two keys of the tree are '0'"),
        (around, "holds itself"),
        ({"a": {"b:c": State("int8")}}, "'a/b:c' is not a name"),
    ):
        with pytest.raises(segue.ArgumentError) as caught:
            make(client, states)
        assert words in str(caught.value)
    with pytest.raises(segue.ArgumentError, match="row_axis"):
        State("float32", 3, row_axis=2)


def test_by_its_name_alone_it_is_flat(client: segue.Client) -> None:
    make(client, {"a": (State("int8"), State("int8"))})
    batch = next(iter(client.stream("train").loader()))
    assert list(batch.states) == ["a/0", "a/1"]
    batch.states = batch.states
    assert batch.all_saved


def test_as_many_as_there_may_be(client: segue.Client) -> None:
    states = [State("float32", 2) for _ in range(1024)]
    batches = iter(make(client, states, epochs=None).loader())
    batch = next(batches)
    batch.states = [np.full((2, 2), i, np.float32) for i in range(1024)]
    batch = next(batches)
    assert [array[0, 0] for array in batch.states] == list(range(1024))
    with pytest.raises(segue.ArgumentError, match="1025"):
        make(client, [*states, State("int8")], "more")


def test_states_like() -> None:
    h = np.ones((3, 1, 4), np.float32)
    tree = segue.states_like({"lstm": (h, 2 * h), "none": None}, row_axis=1, init="zeros")
    state = tree["lstm"][0]
    assert (state.dtype, state.shape, state.init, state.row_axis) == ("float32", (3, 4), None, 1)
    assert tree["none"] is None and isinstance(tree["lstm"], tuple)
    (state,) = segue.states_like([3 * np.ones((5, 2), np.int16)], init="values")
    assert state.init.tolist() == [3, 3] and state.dtype == "int16"
    (state,) = segue.states_like([np.full((2, 1), [np.nan], np.float16)], init="values")
    assert np.isnan(state.init).all()
    for bad, options, words in (
        ({"a": [np.zeros((2, 3)), 4]}, {}, "'a/1': expected an array, got int"),
        ({"a": np.zeros(2)}, {"row_axis": 1}, "'a': shape (2,) has no dimension 1"),
        ({"a": np.arange(4.0)}, {"init": "values"}, "these 4 rows differ"),
        ({"a": np.array([np.nan, 1.0])}, {"init": "values"}, "these 2 rows differ"),
        ({"a": np.zeros((0, 2))}, {"init": "values"}, "it has none"),
        ({"a": np.zeros(2)}, {"init": "ones"}, "init: 'ones'"),
    ):
        with pytest.raises(segue.ArgumentError) as caught:
            segue.states_like(bad, **options)
        assert words in str(caught.value)


class Shaped(NamedTuple):
    shape: tuple[int, ...]
    dtype: str


def test_states_like_says_that_values_are_dropped() -> None:
    zeros, ones = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segue.states_like({"h": zeros, "c": Shaped((1, 2), "float32")})
        segue.states_like({"h": zeros, "c": ones}, init="zeros")
        segue.states_like({"h": zeros, "c": ones}, init="values")
    with pytest.warns(UserWarning, match="'c' is not all zeros.*init=\"values\" keeps") as told:
        assert segue.states_like({"h": zeros, "c": ones})["c"].init is None
    assert [warning.filename for warning in told] == [__file__]
    with pytest.warns(UserWarning, match="states_like: the array is not all zeros"):
        segue.states_like(_arrays.narrow(ones))


def test_initial_values_stand_where_the_rows_do(client: segue.Client) -> None:
    start = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    stream = make(client, {"h": segue.states_like(start, row_axis=1, init="values")})
    batch = next(iter(stream.loader()))
    assert batch.states["h"].shape == (2, 2, 3)
    assert (batch.states["h"] == start).all()


def test_registered_nodes_are_nodes() -> None:
    """In a process of its own: whether JAX and PyTorch are there changes what is a node."""
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    pytest.importorskip("jax", reason="JAX is not installed (scripts/setup --ci)")
    program = """
        import dataclasses, segue
        from segue.trees import Structure
        class Pair:
            def __init__(self, a, b): self.a, self.b = a, b
        assert Structure({"p": Pair(1, 2)}).paths == ["p"]
        import torch.utils._pytree as torch_tree, jax
        torch_tree.register_pytree_node(Pair, lambda p: ([p.a, p.b], None),
                                        lambda parts, _: Pair(*parts), serialized_type_name="Pair",
                                        flatten_with_keys_fn=lambda p: (
                                            [(torch_tree.GetAttrKey("a"), p.a),
                                             (torch_tree.GetAttrKey("b"), p.b)], None))
        @jax.tree_util.register_dataclass
        @dataclasses.dataclass
        class Carry:
            h: object
            none: object
        structure = Structure({"p": Pair(1, (2, 3)), "c": Carry(4, None)})
        assert structure.paths == ["p/a", "p/b/0", "p/b/1", "c/h"], structure.paths
        built = structure.build({path: path for path in structure.paths})
        assert isinstance(built["p"], Pair) and built["p"].b == ("p/b/0", "p/b/1")
        assert built["c"] == Carry("c/h", None)
        assert dict(structure.leaves(built)) == {path: path for path in structure.paths}
        mapped = jax.tree.map(lambda leaf: leaf.upper(), {"c": built["c"]})
        assert dict(Structure({"c": built["c"]}).leaves(mapped)) == {"c/h": "C/H"}
        print("whole")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "whole\n", done.stderr


def test_random_trees_come_apart_and_together() -> None:
    print("seed", SEED)
    rng = np.random.default_rng(SEED)

    def grow(depth: int) -> Any:
        kind = rng.integers(6 if depth else 1)
        some = [grow(depth - 1) for _ in range(rng.integers(4))] if kind else []
        match kind:
            case 1:
                return tuple(some)
            case 2:
                return some
            case 3:
                return {f"k{i}": part for i, part in enumerate(some)}
            case 4:
                return Cell(*(some + [None] * 3)[:3])
            case 5:
                return None
        return object()

    for _ in range(300):
        tree = {"root": grow(4)}
        structure = Structure(tree)
        leaves = dict(structure.leaves(tree))
        assert list(leaves) == structure.paths
        again = structure.build(leaves)
        assert again == tree and type(again["root"]) is type(tree["root"])

"""Trees of states: dicts, tuples, named tuples and lists of them, nested at will, under path names.

A leaf's path is made of the keys, fields and indices on the way to it: ``lstm/0/h``. The store
knows paths alone. Nodes that are registered with JAX or PyTorch (``jax.tree_util``,
``torch.utils._pytree``) are nodes here, too, in a process that has imported these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arrays, errors
from ._notice import warn
from .spec import State

# Names of children, the children, and what makes such a node of others.
_Opened = tuple[list[str], list[Any], Callable[[list[Any]], Any]]

_REGISTRIES = ("jax.tree_util", "torch.utils._pytree")


def states_like(tree: Any, row_axis: int = 0, init: str | None = None) -> Any:
    """Return the `State` of each array of a tree: what `Client.stream` takes as `states`.

    Parameters
    ----------
    tree : array, or nested dicts, tuples, named tuples, lists and registered nodes of such
        States of any number of rows, of NumPy, PyTorch or JAX; also what has only ``shape`` and
        ``dtype``. None has no states.
    row_axis : int
        Which dimension is that of the rows, in each of them: 1 for ``[layers, rows, size]``, as
        `torch.nn.LSTM` has its states. `Batch.states` has them so, and takes them so.
    init : {None, "zeros", "values"}
        What sequences begin with. ``"values"``: what the tree's arrays hold, which is the same for
        all rows. None: zeros, with a warning if an array holds anything else.

    Raises
    ------
    ArgumentError
        Names the path of what is no array, lacks the dimension of the rows, or has rows that
        differ.

    Examples
    --------
    ::

        h = c = torch.zeros(3, 1, 256)                      # nn.LSTM(input, 256, num_layers=3)
        states = segue.states_like({"lstm": (h, c)}, row_axis=1)
        # {"lstm": (State("float32", (3, 256), row_axis=1), ...)}: lstm/0 and lstm/1 in the store
    """
    if init not in (None, "zeros", "values"):
        raise errors.ArgumentError(f"init: {init!r} is neither 'zeros' nor 'values'")
    structure = Structure(tree)
    leaves = dict(structure.leaves(tree))
    made = structure.build({path: _like(path, leaf, row_axis, init == "values")
                            for path, leaf in leaves.items()})  # fmt: skip
    dropped = [path for path, leaf in leaves.items() if init is None and _holds_values(leaf)]
    if dropped:
        which = repr(dropped[0]) if dropped[0] else "the array"
        warn(
            f"states_like: {which} is not all zeros, and its values are dropped: "
            "sequences begin with zeros. init=\"values\" keeps the values, init=\"zeros\" is silent"
        )
    return made


def _holds_values(leaf: Any) -> bool:
    """Whether an array has values, and they are not all zeros."""
    try:
        array = _arrays.widen(_arrays.read(leaf))
    except Exception:  # it has only shape and dtype, or is traced
        return False
    return array.dtype.kind != "O" and bool(np.asarray(array).any())


def _like(path: str, leaf: Any, row_axis: int, values: bool) -> State:
    where = f"states_like: {path!r}" if path else "states_like"
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        raise errors.ArgumentError(f"{where}: expected an array, got {type(leaf).__name__}")
    shape = [int(size) for size in leaf.shape]
    if not 0 <= row_axis < len(shape):
        raise errors.ArgumentError(
            f"{where}: shape {tuple(shape)} has no dimension {row_axis}, which row_axis says is "
            "that of the rows"
        )
    rows = shape.pop(row_axis)
    if not values:
        return State(leaf.dtype, shape, row_axis=row_axis)
    array = np.moveaxis(_arrays.read(leaf), row_axis, 0)
    if not rows:
        raise errors.ArgumentError(f"{where}: init='values' takes a value of a row, and it has none")
    first = array[:1]
    if not ((array == first) | ((array != array) & (first != first))).all():  # NaN is the same
        raise errors.ArgumentError(
            f"{where}: init='values' takes a value that all rows have, and these {rows} rows differ"
        )
    return State(leaf.dtype, shape, array[0], row_axis=row_axis)


@dataclass(frozen=True)
class _Node:
    names: list[str]
    children: list[_Node | str]  # a leaf is its path
    make: Callable[[list[Any]], Any]
    path: str


class Structure:
    """How a tree is nested: takes others apart that are nested alike, and builds such."""

    def __init__(self, tree: Any) -> None:
        self._paths: dict[str, None] = {}
        try:
            self._root = self._of("", tree)
        except RecursionError:
            raise errors.ArgumentError(
                "states: nested too deeply, or a node that holds itself"
            ) from None

    @property
    def is_leaf(self) -> bool:
        """Whether the tree itself is a leaf, which has no path."""
        return isinstance(self._root, str)

    @property
    def paths(self) -> list[str]:
        """Of all leaves, in order."""
        return list(self._paths)

    def _of(self, path: str, tree: Any) -> _Node | str:
        opened = _open(tree)
        if opened is None:
            if path in self._paths:
                raise errors.ArgumentError(
                    f"two states have the path {path!r}, in which '/' parts the names"
                )
            self._paths[path] = None
            return path
        names, children, make = opened
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise errors.ArgumentError(
                f"states: two keys of {repr(path) if path else 'the tree'} are {twice!r} in a path, as 0 "
                "and '0' are"
            )
        nodes = [self._of(_join(path, name), child) for name, child in zip(names, children)]
        return _Node(names, nodes, make, path)

    def build(self, values: Mapping[str, Any]) -> Any:
        """Return the tree that has these values, by path, as leaves."""
        return self._build(self._root, values)

    def _build(self, node: _Node | str, values: Mapping[str, Any]) -> Any:
        if isinstance(node, str):
            return values[node]
        return node.make([self._build(child, values) for child in node.children])

    def leaves(self, tree: Any) -> Iterator[tuple[str, Any]]:
        """Yield path and leaf of a tree that is nested alike; of what kind its nodes are is free.

        Raises
        ------
        StateNameError
            It is not; names a path that is missing, or too much.
        """
        return self._leaves(self._root, tree)

    def _leaves(self, node: _Node | str, tree: Any) -> Iterator[tuple[str, Any]]:
        opened = _open(tree)
        if isinstance(node, str):
            if opened is not None and hasattr(tree, "__array__"):
                opened = None
            if opened is not None and not _is_plain(tree):
                raise _unlike(node, f"expected an array, got {type(tree).__name__}")
            yield node, tree
            return
        if opened is None:
            raise _unlike(
                node.path, f"expected {_named(node.names)}, got {type(tree).__name__}"
            )
        given = dict(zip(opened[0], opened[1]))
        for name in given:
            if name not in node.names:
                raise _unlike(_join(node.path, name), f"not one of {_named(node.names)}")
        for name, child in zip(node.names, node.children):
            if name not in given:
                raise _unlike(_join(node.path, name), "missing")
            yield from self._leaves(child, given[name])


def _is_plain(tree: Any) -> bool:
    """Whether a list may be meant as an array."""
    return isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields")


def _unlike(path: str, what: str) -> errors.StateNameError:
    return errors.StateNameError(f"states: {path!r}: {what}" if path else f"states: {what}")


def _named(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    return f"what has {shown}" if names else "nothing"


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _open(tree: Any) -> _Opened | None:
    """Take a node apart; None: it is a leaf."""
    if tree is None:
        return [], [], lambda _: None
    if isinstance(tree, State) or (hasattr(tree, "dtype") and hasattr(tree, "shape")):
        return None
    if isinstance(tree, Mapping) and type(tree).__module__ in ("builtins", "collections", "types"):
        return _open_mapping(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        kind: Any = type(tree)
        return list(tree._fields), list(tree), lambda children: kind(*children)
    if isinstance(tree, (tuple, list)):
        return [str(i) for i in range(len(tree))], list(tree), type(tree)
    for name in _REGISTRIES:
        if name in sys.modules:
            opened = _open_registered(sys.modules[name], tree)
            if opened:
                return opened
    return _open_mapping(tree) if isinstance(tree, Mapping) else None


def _open_mapping(tree: Mapping[Any, Any]) -> _Opened:
    keys = list(tree)
    for key in keys:
        if not isinstance(key, (str, int)):
            raise errors.ArgumentError(
                f"states: the key {key!r} is {type(key).__name__}: expected str or int, of which "
                "paths are made"
            )
    return [str(key) for key in keys], list(tree.values()), lambda made: dict(zip(keys, made))


def _open_registered(registry: Any, tree: Any) -> _Opened | None:
    """By the functions that JAX and PyTorch both have."""
    found, treedef = registry.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)
    if len(found) == 1 and not found[0][0]:  # no way at all leads to it
        return None
    names = [_entry(way[0]) for way, _ in found]
    return names, [child for _, child in found], treedef.unflatten


def _entry(entry: Any) -> str:
    for field in ("key", "idx", "name"):
        if hasattr(entry, field):
            return str(getattr(entry, field))
    return str(entry)


class StateTree:
    """The states of a stream: how they are nested, and where each has its rows."""

    def __init__(self, tree: Any) -> None:
        self.structure = Structure(tree)
        self.declared: dict[str, Any] = dict(self.structure.leaves(tree))
        if self.structure.is_leaf:
            raise errors.ArgumentError(
                "states: expected segue.State under names, as {'h': segue.State(...)}, or a tree "
                f"of such, got {type(tree).__name__}"
            )
        self._axes = {
            path: state.row_axis
            for path, state in self.declared.items()
            if isinstance(state, State) and state.row_axis
        }

    def axis(self, path: str) -> int:
        """Which dimension of a state is that of the rows."""
        return self._axes.get(path, 0)

    def read(self, read: Callable[[str], Any]) -> Any:
        """Return the tree of what `read` gives for each path, which has rows first."""
        return self.structure.build(
            {path: self._turned(path, read(path)) for path in self.structure.paths}
        )

    def _turned(self, path: str, array: Any) -> Any:
        axis = self.axis(path)
        return np.moveaxis(array, 0, axis) if axis else array

    def save(self, tree: Any, save: Callable[[str, Any], object]) -> None:
        """Have `save` take each leaf of a tree, with rows first."""
        for path, leaf in list(self.structure.leaves(tree)):
            save(path, self.rows_first(path, leaf))

    def rows_first(self, path: str, leaf: Any) -> Any:
        """Return a leaf as it is saved."""
        axis = self.axis(path)
        if not axis:
            return leaf
        try:
            array = _arrays.read(leaf)
        except Exception as error:
            raise errors.StateTypeError(
                f"state {path!r}: {type(leaf).__name__} is not an array that NumPy can read: "
                f"{error}"
            ) from error
        if array.ndim <= axis:
            raise errors.StateShapeError(
                f"state {path!r}: expected its rows in dimension {axis} (row_axis), got shape "
                f"{array.shape}"
            )
        return np.moveaxis(array, axis, 0)

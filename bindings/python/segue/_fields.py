"""Features and states that the engine does not have, made of those that it has.

Strings with a shape, and sparse values, are columns of bytes or of ragged numbers; a state of
strings is one of bytes of a fixed size. What is inserted is taken apart here, and what comes in a
batch put together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _arrays, errors
from ._segue import Batch
from .policy import Policy
from .spec import Feature, State, _dtype

_LENGTH = np.dtype("<u4")  # of a string, before the strings

Values = dict[str, Any]  # by native name


class Sparse(NamedTuple):
    """Values at some places of an array of which the rest is zero, or empty.

    Only `batch_sequences_with_states` takes and gives such.

    Attributes
    ----------
    indices : numpy.ndarray
        int64 ``[count, rank]``: the place of each value. The first is that of the step in a
        sequence feature, and of the row in a batch, where that of the step follows.
    values : numpy.ndarray
        ``[count]``; strings as objects.
    dense_shape : numpy.ndarray
        int64 ``[rank]``: shape of the array.
    """

    indices: np.ndarray
    values: np.ndarray
    dense_shape: np.ndarray


def is_sparse(value: Any) -> bool:
    """Whether it is `Sparse`, or what another library has in its place."""
    return all(hasattr(value, name) for name in Sparse._fields)


def _is_text(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    dtype = getattr(value, "dtype", None)
    return isinstance(value, (str, bytes)) or getattr(dtype, "kind", "") in ("O", "S", "U")


def _strings(where: str, value: Any) -> np.ndarray:
    """Return strings as an array of bytes objects."""
    array = value if isinstance(value, np.ndarray) else np.array(value, object)
    flat = []
    for item in array.reshape(-1).tolist():
        if isinstance(item, str):
            item = item.encode()
        if not isinstance(item, (bytes, bytearray)):
            raise errors.ArgumentError(
                f"{where}: expected bytes or str, got {type(item).__name__}"
            )
        flat.append(bytes(item))
    strings = np.empty(len(flat), object)
    strings[:] = flat
    return strings.reshape(array.shape)


def _pack(strings: list[bytes]) -> bytes:
    return np.array([len(one) for one in strings], _LENGTH).tobytes() + b"".join(strings)


def _unpack(packed: bytes, count: int) -> list[bytes]:
    """Return so many strings; of a step of padding they are empty."""
    if not packed:
        return [b""] * count
    ends = np.cumsum(np.frombuffer(packed, _LENGTH, count), dtype=np.int64) + 4 * count
    begins = [4 * count, *ends[:-1].tolist()]
    return [packed[begin:end] for begin, end in zip(begins, ends.tolist(), strict=True)]


def _in_order(array: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return a copy with the rows in order; `order` is None where they are."""
    return array.copy() if order is None else array[order]


def own_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    while name in taken:
        name += "#"
    taken.add(name)
    return name


# ---- Features ----


class Field:
    """A feature as it is declared, and the columns that it is made of.

    Attributes
    ----------
    name, dtype, shape
        As of `Feature`; the shape of a sparse one counts as its rank alone.
    sequence : bool
        Whether it has steps.
    native : str
        Name of the column with its values.
    """

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], sequence: bool) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.sequence = sequence
        self.native = name

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"{'sequences' if self.sequence else 'context'}[{self.name!r}]"

    def declare(self, sequences: Values, context: Values, taken: set[str]) -> None:
        """Add what is declared to the engine; `taken` are names that mean something else."""
        raise NotImplementedError

    def steps(self, value: Any) -> int | None:
        """Return the steps of a dense value; None of a sparse one."""
        return _arrays.read(value).shape[0] if self.sequence else None

    def longest(self, value: Any) -> tuple[int, int]:
        """Return the steps that a sparse value says to have, and those that it does have."""
        return 0, 0

    def cut(self, value: Any, steps: int) -> Any:
        """Return the first steps of a value."""
        return value[:steps]

    def encode(self, value: Any, steps: int, sequences: Values, context: Values) -> None:
        """Add the columns of a value to those of a sequence of so many steps."""
        raise NotImplementedError

    def decode(self, batch: Batch, order: np.ndarray | None, rows: int) -> Any:
        """Return what a batch has, with its rows in order; it was to have so many of them."""
        raise NotImplementedError

class Numbers(Field):
    """Dense, of a type that the engine has."""

    def __init__(self, *arguments: Any, cast: bool = False) -> None:
        super().__init__(*arguments)
        self._cast = cast

    def declare(self, sequences: Values, context: Values, taken: set[str]) -> None:
        place = sequences if self.sequence else context
        place[self.native] = Feature(self.dtype, self.shape)

    def steps(self, value: Any) -> int | None:
        if not self.sequence:
            return None
        shape = np.shape(value) if isinstance(value, (list, tuple)) else value.shape
        if not shape:
            raise errors.ArgumentError(f"{self.where} is one value, where steps were expected")
        return int(shape[0])

    def encode(self, value: Any, steps: int, sequences: Values, context: Values) -> None:
        if not self.sequence:
            context[self.native] = value
            return
        if self._cast:
            value = self._converted(value)
        missing = steps - (self.steps(value) or 0)
        if missing:  # a sparse feature has values in what is padding of this one
            array = _arrays.read(value)
            value = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        sequences[self.native] = value

    def _converted(self, value: Any) -> np.ndarray:
        array = _arrays.read(value)
        converted = _arrays._convert(array, self.dtype, exact=False)
        if converted is None:
            raise errors.ArgumentError(
                f"{self.where}: these values of {array.dtype} are lost in dtype={self.dtype!r}"
            )
        return converted

    def decode(self, batch: Batch, order: np.ndarray | None, rows: int) -> Any:
        place = batch.sequences if self.sequence else batch.context
        return _in_order(place[self.native], order)


class Strings(Field):
    """Strings; with a shape those of a step are one column's bytes."""

    def declare(self, sequences: Values, context: Values, taken: set[str]) -> None:
        place = sequences if self.sequence else context
        place[self.native] = Feature("bytes")

    def steps(self, value: Any) -> int | None:
        return len(_strings(self.where, value)) if self.sequence else None

    def encode(self, value: Any, steps: int, sequences: Values, context: Values) -> None:
        strings = _strings(self.where, value)
        if strings.shape[self.sequence :] != self.shape:
            dims = (*["steps"] * self.sequence, *self.shape)
            raise errors.ArgumentError(
                f"{self.where}: expected bytes of shape {dims}, got shape {strings.shape}"
            )
        if not self.sequence:
            context[self.native] = _pack(strings.reshape(-1).tolist()) if self.shape else strings[()]
            return
        each: list[bytes] = strings.tolist()
        if self.shape:
            each = [_pack(step.reshape(-1).tolist()) for step in strings]
        sequences[self.native] = each + [b""] * (steps - len(each))

    def decode(self, batch: Batch, order: np.ndarray | None, rows: int) -> Any:
        strings = _in_order(batch.bytes(self.native), order)
        if not self.shape:
            return strings
        count = math.prod(self.shape)
        apart = np.empty((strings.size, count), object)
        for index, packed in enumerate(strings.reshape(-1).tolist()):
            apart[index] = _unpack(packed, count)
        return apart.reshape(*strings.shape, *self.shape)


class SparseValues(Field):
    """Sparse: the values of each step, their places in it, and the shape that the sequence says."""

    def declare(self, sequences: Values, context: Values, taken: set[str]) -> None:
        place = sequences if self.sequence else context
        self._rank = len(self.shape)
        if not self._rank:
            raise errors.ArgumentError(
                f"{self.where}: a sparse feature has one dimension beside that of the steps at least"
            )
        self._indices = own_name(f"{self.native}#indices", taken)
        self._dims = own_name(f"{self.native}#shape", taken)
        text = self.dtype == "bytes"
        place[self.native] = Feature("bytes") if text else Feature(self.dtype, ragged=True)
        place[self._indices] = Feature("int64", ragged=True)
        context[self._dims] = Feature("int64", self._rank)

    def steps(self, value: Any) -> int | None:
        return None

    def longest(self, value: Any) -> tuple[int, int]:
        if not self.sequence:
            return 0, 0
        indices, _, shape = self._parts(value)
        return int(shape[0]), int(indices[:, 0].max(initial=-1)) + 1

    def cut(self, value: Any, steps: int) -> Any:
        indices, values, shape = self._parts(value)
        kept = np.flatnonzero(indices[:, 0] < steps)
        values = np.array(values, object) if self.dtype == "bytes" else _arrays.read(values)
        return Sparse(indices[kept], values[kept], np.array([min(steps, shape[0]), *shape[1:]]))

    def _parts(self, value: Any) -> tuple[np.ndarray, Any, np.ndarray]:
        """Return indices, values and shape, which fit one another."""
        if not is_sparse(value):
            raise errors.ArgumentError(
                f"{self.where}: expected segue.Sparse, got {type(value).__name__}"
            )
        rank = self._rank + self.sequence
        indices = np.asarray(_arrays.read(value.indices), np.int64)
        shape = np.asarray(_arrays.read(value.dense_shape), np.int64)
        count = len(value.values)
        if not indices.size:
            indices = indices.reshape(0, rank)
        if shape.shape != (rank,) or indices.shape != (count, rank):
            raise errors.ArgumentError(
                f"{self.where}: expected a segue.Sparse of rank {rank}, indices [count, {rank}], "
                f"got indices of shape {indices.shape}, {count} values, and a dense_shape of "
                f"{shape.tolist()}"
            )
        bound = shape.copy()
        if self.sequence:
            bound[0] = max(int(indices[:, 0].max(initial=-1)) + 1, 0)  # seen where steps are
        wrong = np.flatnonzero(((indices < 0) | (indices >= bound)).any(axis=1))
        if len(wrong):
            raise errors.ArgumentError(
                f"{self.where}: indices[{wrong[0]}] is {indices[wrong[0]].tolist()}, which lies "
                f"outside its dense_shape {shape.tolist()}"
            )
        return indices, value.values, shape

    def encode(self, value: Any, steps: int, sequences: Values, context: Values) -> None:
        indices, given, shape = self._parts(value)
        text = self.dtype == "bytes"
        values = _strings(self.where, given) if text else np.asarray(_arrays.read(given))
        place = sequences if self.sequence else context
        if self.sequence:
            times = indices[:, 0]
            if (np.diff(times) < 0).any():
                order = np.argsort(times, kind="stable")
                indices, values, times = indices[order], values[order], times[order]
            offsets = np.searchsorted(times, np.arange(steps + 1)).astype(np.int64)
        else:
            offsets = np.array([0, len(values)], np.int64)
        within = np.ascontiguousarray(indices[:, self.sequence :]).reshape(-1)
        place[self._indices] = _arrays.Ragged(within, offsets * self._rank)
        context[self._dims] = shape[self.sequence :]
        if not text:
            place[self.native] = _arrays.Ragged(values, offsets)
            return
        packed = [
            _pack(values[begin:end].tolist())
            for begin, end in zip(offsets[:-1], offsets[1:], strict=True)
        ]
        place[self.native] = packed if self.sequence else packed[0]

    def decode(self, batch: Batch, order: np.ndarray | None, rows: int) -> Any:
        within, offsets = _gather(batch.ragged(self._indices), order)
        counts = np.diff(offsets, axis=1) // self._rank
        have, unroll = counts.shape
        row = np.repeat(np.arange(have), counts.sum(axis=1))
        columns = [row[:, None], within.reshape(-1, self._rank)]
        if self.sequence:
            step = np.repeat(np.tile(np.arange(unroll), have), counts.reshape(-1))
            columns.insert(1, step[:, None])
        dims = batch.context[self._dims].max(axis=0, initial=0)
        shape = np.array([rows, *[unroll] * self.sequence, *dims], np.int64)
        return Sparse(np.concatenate(columns, axis=1), self._values(batch, order, counts), shape)

    def _values(self, batch: Batch, order: np.ndarray | None, counts: np.ndarray) -> np.ndarray:
        if self.dtype != "bytes":
            return _gather(batch.ragged(self.native), order)[0]
        strings = _in_order(batch.bytes(self.native), order).reshape(-1).tolist()
        found = zip(strings, counts.reshape(-1).tolist(), strict=True)
        values = [one for packed, count in found for one in _unpack(packed, count)]
        array = np.empty(len(values), object)
        array[:] = values
        return array


class RaggedValues(SparseValues):
    """Sparse, of a source that has it ragged: each step has values at its first places."""

    def declare(self, sequences: Values, context: Values, taken: set[str]) -> None:
        place = sequences if self.sequence else context
        place[self.native] = Feature(self.dtype, ragged=True)

    def decode(self, batch: Batch, order: np.ndarray | None, rows: int) -> Any:
        values, offsets = _gather(batch.ragged(self.native), order)
        counts = np.diff(offsets, axis=1)
        have, unroll = counts.shape
        each = counts.reshape(-1)
        row, step = np.divmod(np.repeat(np.arange(each.size), each), unroll)
        within = np.arange(len(values)) - np.repeat(np.cumsum(each) - each, each)
        columns = [row, step, within] if self.sequence else [row, within]
        shape = np.array([rows, *[unroll] * self.sequence, counts.max(initial=0)], np.int64)
        return Sparse(np.stack(columns, axis=1), values, shape)


def _gather(ragged: _arrays.Ragged, order: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return values, copied, with those of the rows in order; and offsets ``[rows, steps + 1]``."""
    values, offsets = ragged
    if offsets.ndim == 1:  # context: a row is a step
        offsets = np.stack([offsets[:-1], offsets[1:]], axis=1)
    if order is None:
        return values.copy(), offsets
    begins, ends = offsets[order, 0].tolist(), offsets[order, -1].tolist()
    parts = [values[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return np.concatenate([values[:0], *parts]), offsets[order]


def _shape_of(where: str, value: Any) -> tuple[int, ...]:
    try:
        return np.array(value, object).shape if _is_text(value) else _arrays.read(value).shape
    except Exception as error:
        raise errors.ArgumentError(
            f"{where}: {type(value).__name__} is not an array that NumPy can read: {error}"
        ) from error


def field_of(name: str, value: Any, sequence: bool, dtype: str | None = None) -> Field:
    """Return what a value is that has not been declared.

    Parameters
    ----------
    sequence : bool
        Whether its first dimension is that of the steps.
    dtype : str, optional
        To which numbers are converted.
    """
    where = f"{'sequences' if sequence else 'context'}[{name!r}]"
    if is_sparse(value):
        text = _is_text(value.values)
        kind = "bytes" if text else str(_arrays.dtype_name(_arrays.read(value.values).dtype))
        rank = len(value.dense_shape) - sequence
        return SparseValues(name, kind, (1,) * rank, sequence)
    shape = _shape_of(where, value)
    if sequence and not shape:
        raise errors.ArgumentError(f"{where} is one value, where steps were expected")
    shape = shape[sequence:]
    if _is_text(value):
        return Strings(name, "bytes", shape, sequence)
    array = _arrays.read(value)
    kind = dtype or ("bfloat16" if _arrays.is_bfloat16(array) else _dtype(where, array.dtype))
    return Numbers(name, kind, shape, sequence, cast=dtype is not None)


def field_as_declared(name: str, feature: Feature, sequence: bool, source: bool) -> Field:
    """Return the feature of examples, or of a source, that is declared."""
    where = f"{'sequences' if sequence else 'context'}[{name!r}]"
    if not isinstance(feature, Feature):
        raise errors.ArgumentError(
            f"{where}: expected segue.Feature, got {type(feature).__name__}"
        )
    dtype, shape = feature.dtype, feature.shape
    if feature.ragged:
        raise errors.ArgumentError(
            f"{where}: what is ragged comes as segue.Sparse here: declare it with sparse=True"
        )
    if not feature.sparse:
        return (Strings if dtype == "bytes" else Numbers)(name, dtype, shape, sequence)
    if not source:
        return SparseValues(name, dtype, shape or (1,), sequence)
    if shape or dtype == "bytes":
        raise errors.ArgumentError(
            f"{where}: a sparse feature of a source has any number of single numbers a step: leave "
            "out its shape, or give examples"
        )
    return RaggedValues(name, dtype, (1,), sequence)


# ---- States ----


class Kept:
    """A state of numbers, as the engine has it."""

    policy: Policy | None = None

    def __init__(self, name: str, init: Any) -> None:
        array = _arrays.read(init)
        bits = _arrays.is_bfloat16(array)
        self.name = name
        self.dtype = "bfloat16" if bits else _dtype(f"initial_states[{name!r}]", array.dtype)
        self.shape = array.shape
        self.init = array

    def declare(self, from_data: bool) -> State:
        """Return what the engine is told."""
        return State(self.dtype, self.shape, "data" if from_data else self.init, self.policy)

    def encode_one(self, value: Any) -> Any:
        """Return a sequence's initial value as it is inserted."""
        return value

    def encode(self, value: Any) -> Any:
        """Return the value of all rows as it is saved."""
        return _arrays.to_array(self.name, value, self.dtype)

    def decode(self, array: np.ndarray) -> np.ndarray:
        """Return the value of all rows."""
        return array


class KeptStrings(Kept):
    """A state of strings: each has a place of so many bytes."""

    def __init__(self, name: str, init: Any, most: int) -> None:
        self.name = name
        self.dtype = "bytes"
        strings = _strings(f"initial_states[{name!r}]", init)
        self.shape = strings.shape
        self._count = math.prod(self.shape)
        self._most = most
        self.init = self.encode_one(strings)

    def declare(self, from_data: bool) -> State:
        shape = (self._count, 4 + self._most)
        return State("uint8", shape, "data" if from_data else self.init, self.policy)

    def encode_one(self, value: Any) -> Any:
        strings = _strings(f"initial_states[{self.name!r}]", value)
        if strings.shape != self.shape:
            raise errors.StateShapeError(
                f"initial_states[{self.name!r}]: expected bytes of shape {self.shape}, got shape "
                f"{strings.shape}"
            )
        return self._places(strings).reshape(self._count, 4 + self._most)

    def encode(self, value: Any) -> Any:
        strings = _strings(f"state {self.name!r}", value)
        if strings.ndim == 0 or strings.shape[1:] != self.shape:
            raise errors.StateShapeError(
                f"state {self.name!r}: expected bytes of shape {('rows', *self.shape)}, got shape "
                f"{strings.shape}"
            )
        return self._places(strings).reshape(len(strings), self._count, 4 + self._most)

    def _places(self, strings: np.ndarray) -> np.ndarray:
        flat = strings.reshape(-1).tolist()
        longest = max(map(len, flat), default=0)
        if longest > self._most:
            raise errors.StateShapeError(
                f"state {self.name!r}: a string of {longest} bytes, where there is room for "
                f"{self._most}: give a larger state_bytes"
            )
        places = b"".join(_pack([one]) + bytes(self._most - len(one)) for one in flat)
        return np.frombuffer(places, np.uint8)

    def decode(self, array: np.ndarray) -> np.ndarray:
        places = np.ascontiguousarray(array).reshape(-1, 4 + self._most)
        strings = np.empty(len(places), object)
        strings[:] = [_unpack(place.tobytes(), 1)[0] for place in places]
        return strings.reshape(len(array), *self.shape)


def state_of(name: str, init: Any, most: int) -> Kept:
    """Return the state that an initial value makes; strings of at most so many bytes."""
    return KeptStrings(name, init, most) if _is_text(init) else Kept(name, init)


def check_names(place: str, declared: Collection[str], given: Any) -> None:
    """Say which names are missing, or too many."""
    if not isinstance(given, Mapping):
        raise errors.ArgumentError(
            f"{place}: expected a mapping of names to arrays, got {type(given).__name__}"
        )
    if given.keys() == set(declared):
        return
    missing = [name for name in declared if name not in given]
    if missing:
        raise errors.ArgumentError(
            f"{place}: {', '.join(map(repr, missing))} is missing; it has {list(given)}"
        )
    raise _arrays.surplus(place, declared, given)

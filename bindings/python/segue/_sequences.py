"""Examples on their way into the stream of `batch_sequences_with_states`."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from . import _arrays, _items, errors
from ._fields import Field, Kept, check_names, field_of
from .examples import Examples
from .spec import Push, _whole

_LOOK = 0.1  # seconds between two looks whether to end
_STEPS_MAX = 2**31 - 1  # so that all integers are int32

# A key that the engine does not take has this before it, and so has one that begins with it.
_ESCAPE = b"~"
ESCAPED = b":~"  # in a key of a batch that may have it

_KEY, _MASK = (87654321, 0), 2**32 - 1  # of the original's generator of random numbers
_ROUNDS = 10
_MULTIPLIERS, _STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)


def unique_number(number: int, seed: int) -> int:
    """Return what ``make_keys_unique`` appends to the key of a sequence: below 10^8.

    Philox4x32-10 with the counter and key that the original's first, second, ... number has.
    """
    first = 256 * number
    counter = [first & _MASK, first >> 32 & _MASK, seed & _MASK, seed >> 32 & _MASK]
    key = list(_KEY)
    for _ in range(_ROUNDS):
        low, high = counter[0] * _MULTIPLIERS[0], counter[2] * _MULTIPLIERS[1]
        counter = [
            high >> 32 ^ counter[1] ^ key[0],
            high & _MASK,
            low >> 32 ^ counter[3] ^ key[1],
            low & _MASK,
        ]
        key = [(word + step) & _MASK for word, step in zip(key, _STEPS, strict=True)]
    return counter[0] % 10**8


def escape(key: bytes) -> bytes:
    """Return the key as it is inserted."""
    return _ESCAPE + key if not key or key.startswith(_ESCAPE) else key


def unescape(key: bytes) -> bytes:
    """Return a key or next key of a batch with the sequence's key as it was given."""
    head, colon, own = key.partition(b":")
    return head + colon + own.removeprefix(_ESCAPE)


class Room:
    """What is on its way, between the thread that inserts and the one that takes batches.

    Departures are counted when room is needed, not when they happen: so what an insertion sees
    depends on the sequences alone, not on which of the two threads is faster.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._open = threading.Event()
        self._left = 0  # sequences in all
        self._keys: set[bytes] = set()  # of those on their way with several segments
        self._departures: deque[tuple[int, list[bytes]]] = deque()
        self._changed = threading.Condition()

    def open(self, left: int) -> None:
        """Let sequences in; so many have left, of those that an earlier process has inserted."""
        self._left = left
        self._open.set()

    def await_place(
        self, number: int, over: threading.Event, idle: Callable[[], object]
    ) -> bool:
        """Wait until one more can come, so many having come before. False: it is over.

        While nobody leaves, `idle` is called now and then.
        """
        while not self._open.wait(_LOOK):
            if over.is_set():
                return False
        while self._capacity is not None and number - self._left >= self._capacity:
            while not self._departures:
                if over.is_set():
                    return False
                with self._changed:
                    changed = self._changed.wait_for(lambda: self._departures, _LOOK)
                if not changed:
                    idle()
            self._left, keys = self._departures.popleft()
            self._keys.difference_update(keys)
        return not over.is_set()

    def enter(self, key: bytes, segments: int) -> None:
        """Note a key."""
        if segments < 2:
            return
        if key in self._keys:
            raise errors.ArgumentError(
                f"key {key!r}: a sequence of that key, and of several segments, is still on its way "
                "(queued, or not taken to its end): give each its own key, or make_keys_unique=True"
            )
        self._keys.add(key)

    def depart(self, total: int, keys: list[bytes]) -> None:
        """Note that so many have left in all, and the keys of those that have left just now."""
        if self._capacity is None:
            return  # all that come are taken to come at once
        with self._changed:
            self._departures.append((total, keys))
            self._changed.notify()


def check_most(maximum_length: Any, on_too_long: Any) -> None:
    """Say what is wrong with these options."""
    if on_too_long not in ("error", "truncate"):
        raise errors.ArgumentError(f"on_too_long: {on_too_long!r} is none of 'error', 'truncate'")
    if maximum_length is not None:
        _whole("maximum_length", maximum_length, 1, _STEPS_MAX)
    elif on_too_long != "error":
        raise errors.ArgumentError(
            "on_too_long: it says what becomes of sequences that are longer than maximum_length: "
            "give that, too"
        )


class Peeked:
    """An iterable of which the first item was looked at."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self._rest = _items.unguarded(items)
        self._first = list(_one(_items.guarded(self._rest)))

    @property
    def first(self) -> Any:
        """The first item; None if there is none."""
        return self._first[0] if self._first else None

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        yield from self._rest


class Resumable(Peeked):
    """One that knows where it is."""

    def state_dict(self) -> Any:
        """Return where it is."""
        return self._items.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Go there."""
        self._items.load_state_dict(state)
        self._first, self._rest = [], _items.unguarded(self._items)


def _one(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        yield item
        return


def peek(items: Any) -> tuple[Any, Any]:
    """Return the first item, or None, and what has all of them."""
    indexed = _items.is_indexed(items)
    iterable = indexed or isinstance(items, Iterable) or hasattr(items, "__getitem__")
    if isinstance(items, (str, bytes, os.PathLike)) or not iterable:
        raise errors.ArgumentError(
            "examples: expected an iterable of segue.Example, or a source such as "
            f'segue.TFRecord("data/*.tfrecord"), got {type(items).__name__}'
        )
    if indexed:
        return (items[0] if len(items) else None), items
    has = hasattr(items, "state_dict") and hasattr(items, "load_state_dict")
    peeked = Resumable(items) if has else Peeked(items)
    return peeked.first, peeked


def _places(item: Any) -> list[Any]:
    """Return sequences, context and initial states of an example."""
    if isinstance(item, Mapping) or not hasattr(item, "sequences"):
        raise errors.ArgumentError(
            f"expected a segue.Example, got {type(item).__name__}"
        )
    names = ("context", "initial_states")
    return [item.sequences, *(getattr(item, name, None) or {} for name in names)]


def fields_of(item: Any, dtype: str | None) -> list[Field]:
    """Return the features that an example has."""
    try:
        sequences, context, _ = _places(item)
        for place, given in (("sequences", sequences), ("context", context)):
            if not isinstance(given, Mapping):
                check_names(place, (), given)
        found = [field_of(name, value, True, dtype) for name, value in sequences.items()]
        return found + [field_of(name, value, False) for name, value in context.items()]
    except errors.ArgumentError as error:
        raise errors.ArgumentError(f"item 0: {error}") from error


class Sequences(Examples):
    """Examples that are checked and taken apart before they are inserted."""

    def __init__(
        self,
        items: Any,
        fields: list[Field],
        states: list[Kept],
        room: Room,
        *,
        num_unroll: int,
        pad: bool,
        capacity: int,
        seed: int | None,
        maximum_length: int | None,
        truncate: bool,
    ) -> None:
        super().__init__(items, cache=False)
        self._fields = fields
        self._states = states
        self._room = room
        self._num_unroll = num_unroll
        self._pad = pad
        self._capacity = capacity
        self._seed = seed
        self._maximum = maximum_length
        self._truncate = truncate

    def _push(self) -> Push:
        return Push(capacity=self._capacity, producers=1, retain_sequences=1)

    def _admit(
        self, number: int, over: threading.Event, idle: Callable[[], object]
    ) -> bool:
        return self._room.await_place(number, over, idle)

    def _sequence(self, number: int, item: Any, *_: Any) -> tuple[Any, ...]:
        try:
            return self._taken_apart(number, item)
        except errors.ArgumentError as error:
            raise type(error)(f"item {number}: {error}") from error

    def _taken_apart(self, number: int, item: Any) -> tuple[Any, ...]:
        given = _places(item)
        for sequence, place in ((True, "sequences"), (False, "context")):
            names = [field.name for field in self._fields if field.sequence == sequence]
            check_names(place, names, given[not sequence])
        length = getattr(item, "length", None)
        if self._maximum is not None:
            given[0], length = self._shortened(given[0], length)
        steps, total = self._steps(given[0], length)
        sequences: dict[str, Any] = {}
        context: dict[str, Any] = {}
        for field in self._fields:
            field.encode(given[not field.sequence][field.name], steps, sequences, context)
        key = getattr(item, "key", None)
        if isinstance(key, str):
            key = key.encode("utf-8", "surrogateescape")
        if key is not None and not isinstance(key, bytes):
            raise errors.ArgumentError(f"key: expected str or bytes, got {type(key).__name__}")
        key = b"example:%d" % number if key is None else key
        suffix = b"" if self._seed is None else b"%d" % unique_number(number, self._seed)
        self._room.enter(key + suffix, -(-steps // self._num_unroll))
        return sequences, context, self._initial(given[2]), escape(key), total

    def _shortened(self, sequences: Mapping[str, Any], length: Any) -> tuple[Any, Any]:
        """Return a sequence, and its length, that are not too long."""
        most = self._maximum
        assert most is not None
        fields = [field for field in self._fields if field.sequence]
        steps = {f.name: f.steps(sequences[f.name]) for f in fields}
        longest = max(steps[f.name] or f.longest(sequences[f.name])[0] for f in fields)
        if longest <= most:
            return sequences, length
        if not self._truncate:
            raise errors.ArgumentError(
                f"sequences: {longest} steps are more than maximum_length = {most}: give a larger "
                'one, or on_too_long="truncate"'
            )
        cut = {field.name: field.cut(sequences[field.name], most) for field in fields}
        return cut, None if length is None else min(int(length), most)

    def _steps(self, sequences: Mapping[str, Any], length: Any) -> tuple[int, int]:
        """Return the steps of the columns, and the length that counts."""
        fields = [field for field in self._fields if field.sequence]
        dense = {f.name: f.steps(sequences[f.name]) for f in fields}
        lengths = {name: steps for name, steps in dense.items() if steps is not None}
        said = {f.name: f.longest(sequences[f.name]) for f in fields if f.name not in lengths}
        if len(set(lengths.values())) > 1:
            each = ", ".join(f"{name!r} {steps}" for name, steps in lengths.items())
            raise errors.ArgumentError(
                f"sequences: all must have the same number of steps; their lengths are: {each}"
            )
        name, steps = max(
            lengths.items() or [(name, shape) for name, (shape, _) in said.items()],
            key=lambda one: one[1],
        )
        self._check_steps(name, steps)
        padded = -(-steps // self._num_unroll) * self._num_unroll
        total = steps if length is None else self._length(length, padded)
        for name, (_, needed) in said.items():
            if needed > padded:
                raise errors.ArgumentError(
                    f"sequences[{name!r}]: has a value at step {needed - 1}, and the sequence only "
                    f"{padded} steps, with padding"
                )
            steps = padded if needed > steps else steps
        return steps, total

    def _check_steps(self, name: str, steps: int) -> None:
        if steps == 0:
            raise errors.ArgumentError(f"sequences[{name!r}]: has no step")
        if steps > _STEPS_MAX - self._num_unroll:
            raise errors.ArgumentError(f"sequences[{name!r}]: {steps} steps are too many for int32")
        if not self._pad and steps % self._num_unroll:
            raise errors.ArgumentError(
                f"sequences[{name!r}]: {steps} steps are no multiple of num_unroll = "
                f"{self._num_unroll}: consider pad=True"
            )

    def _length(self, length: Any, padded: int) -> int:
        array = _arrays.read(length)
        if array.shape or array.dtype.kind not in "iu" or not 0 <= int(array) <= padded:
            raise errors.ArgumentError(
                f"length: {length!r} is no whole number from 0 to {padded}, the steps with padding"
            )
        return int(array)

    def _initial(self, given: Mapping[str, Any]) -> dict[str, Any]:
        names = [state.name for state in self._states]
        others = [name for name in given if name not in names]
        if others:
            raise _arrays.surplus("initial_states", names, given)
        return {
            state.name: state.encode_one(given[state.name]) if state.name in given else state.init
            for state in self._states
        }

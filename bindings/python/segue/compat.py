"""TensorFlow's function for batches of segments with states, on the engine."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from . import errors
from ._closing import of_one_process
from ._course import FIRST, Course, classes, course_of, watch
from ._feed import Feed
from ._fields import Field, Kept, field_as_declared, own_name, state_of
from ._notice import warn
from ._segue import Batch
from ._sequences import ESCAPED, Room, Sequences, check_most, fields_of, peek, unescape, unique_number
from ._temporary import TemporaryStore
from .client import Client, Stream, open
from .examples import Examples
from .loader import Loader
from .policy import Policy
from .producer import Example
from .spec import Feature, Push, Source, _check_name, _dtype, _shape, _whole

_DEPTH = 4  # batches filled ahead
_UNBOUNDED = 2**40  # sequences, where no capacity is given
_ROWS_MAX, _THREADS_MAX = 2**20, 64

Transform = Callable[[np.ndarray], Any]


class SequenceBatch:
    """A segment each of several sequences, with their states; rows ascend by `insertion_index`.

    Arrays are the caller's own, and stay as they are.

    Attributes
    ----------
    key, next_key : list of bytes
        ``b"%05d_of_%05d:%s" % (sequence, sequence_count, key)`` of this segment and of the one
        that follows; ``b"STOP:%s" % key`` behind the last.
    sequence, sequence_count, length, total_length : numpy.ndarray
        int32 ``[rows]``: number of the segment, how many the sequence has, steps that count in the
        segment, and in the sequence.
    insertion_index : numpy.ndarray
        int64 ``[rows]``: the rank in which the sequence came, from ``-2**63`` on.
    batch_size : int
        Rows.
    sequences : dict of str to numpy.ndarray or Sparse
        ``[rows, num_unroll, ...]``, padded with zeros, or empty strings.
    context : dict of str to numpy.ndarray or Sparse
        ``[rows, ...]``.
    """

    def __init__(self, batch: Batch, parts: _Parts, rows: int) -> None:
        index = batch.insertion_index
        numbers = index.tolist()
        order = None if numbers == sorted(numbers) else np.argsort(index)
        self._batch = batch
        self._parts = parts
        self._order = order
        self._saved: set[str] = set()
        self.insertion_index = _picked(index, order) + FIRST
        self.sequence = _picked(batch.sequence, order)
        self.sequence_count = _picked(batch.sequence_count, order)
        self.length = _picked(batch.length, order)
        self.total_length = _picked(batch.total_length, order).astype(np.int32)
        self.batch_size = batch.batch_size
        suffixes = parts.suffixes(sorted(numbers))
        self.key = self._keys(batch.key, suffixes)
        self.next_key = self._keys(batch.next_key, suffixes)
        decoded = [(field, field.decode(batch, order, rows)) for field in parts.fields]
        self.sequences = {field.name: value for field, value in decoded if field.sequence}
        self.context = {field.name: value for field, value in decoded if not field.sequence}

    __reduce__ = of_one_process

    def __repr__(self) -> str:
        return f"<segue.SequenceBatch: {self.batch_size} rows>"

    def _keys(self, keys: list[bytes], suffixes: list[bytes] | None) -> list[bytes]:
        if self._order is not None:
            keys = [keys[row] for row in self._order.tolist()]
        if self._parts.escaped:
            keys = [unescape(key) if ESCAPED in key else key for key in keys]
        if suffixes is None:
            return keys
        return [key + suffix for key, suffix in zip(keys, suffixes, strict=True)]

    def state(self, name: str) -> np.ndarray:
        """Return a state: the initial value in a first segment, else what was saved before.

        Returns
        -------
        numpy.ndarray
            ``[rows, ...]``, of the state's dtype; strings as objects.

        Raises
        ------
        StateNameError
            No such state (also a ``KeyError``).
        ClosedError
            The loop has gone on to the next batch.
        """
        array = self._batch.state(name)
        array = array.copy() if self._order is None else array[self._order]
        return self._parts.states[name].decode(array)

    def save_state(self, name: str, value: Any) -> None:
        """Save a state for the next segments. Each is saved once in a batch.

        Parameters
        ----------
        value : array_like
            ``[rows, ...]``, of the state's dtype.

        Raises
        ------
        StateNameError
            No such state (also a ``KeyError``).
        StateTypeError, StateShapeError
            Another dtype or shape.
        StateError
            It was saved before in this batch.
        ClosedError
            The loop has gone on to the next batch.
        """
        if name not in self._parts.states:
            self._batch.state(name)  # raises
        kept = self._parts.states[name]
        if name in self._saved and not (self._batch.committed or self._batch.released):
            raise errors.StateError(
                f"state {name!r}: it was saved in this batch before: save it once, with its last "
                "value"
            )
        for transform in self._parts.transforms.get(name, ()):
            value = transform(value)
        array = kept.encode(value)
        if self._order is not None and array.shape[:1] == self._order.shape:
            rows, array = array, np.empty_like(array)
            array[self._order] = rows
        self._batch.save_state(name, array)
        self._saved.add(name)


def _picked(array: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    return array.copy() if order is None else array[order]  # what is copied can be written to


class _Parts:
    """What batches are put together of."""

    def __init__(
        self,
        fields: list[Field],
        states: list[Kept],
        transforms: Mapping[str, list[Transform]],
        seed: int | None,
        escaped: bool,
    ) -> None:
        self.fields = fields
        self.states = {state.name: state for state in states}
        self.transforms = transforms
        self.escaped = escaped
        self._seed = seed
        self._suffixes: dict[int, bytes] = {}

    def suffixes(self, numbers: list[int]) -> list[bytes] | None:
        """Return what the keys of these sequences get appended; None: nothing."""
        seed = self._seed
        if seed is None:
            return None
        known = self._suffixes
        self._suffixes = {
            number: known.get(number) or b"%d" % unique_number(number, seed) for number in numbers
        }
        return list(self._suffixes.values())


class SequenceBatches:
    """Iterates over the batches of `batch_sequences_with_states`. A context manager."""

    def __init__(
        self,
        client: Client,
        stream: Stream,
        loader: Loader,
        parts: _Parts,
        course: Course,
        room: Room | None,
        folder: TemporaryStore | None,
        capacity: int | None,
    ) -> None:
        self._client = client
        self._loader = loader
        self._batches = iter(loader)
        self._last: Batch | None = None
        self._parts = parts
        self._course = course
        self._room = room
        self._capacity = capacity
        self._rows = course.batch_size
        feed = stream._feed
        self._finalizer = weakref.finalize(self, _leave, client, feed, folder, os.getpid())
        if feed:
            stream._handle.watch(watch(feed, course))

    __reduce__ = of_one_process

    def __repr__(self) -> str:
        return f"<segue.SequenceBatches: {self._loader.stream.name!r}, {self._rows} rows>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SequenceBatch:
        if not self._finalizer.alive:
            raise errors.ClosedError("the batches are closed")
        last = self._last
        try:
            self._last = next(self._batches)
            if last:
                last.release()  # whoever keeps a batch keeps arrays of their own, no place of the ring
            batch = SequenceBatch(self._last, self._parts, self._rows)
            keys = self._course.follow(batch, self._last.step)
            if self._room:
                self._room.depart(self._course.left, keys)
            return batch
        except BaseException:  # Ctrl-C: what was taken, and nobody has, comes again
            if any(taken is not last for taken in self._loader._open):
                self._last, self._batches = None, iter(self._loader)
            raise

    @property
    def batch_size(self) -> int:
        """Rows of the next batch."""
        return self._rows

    def set_batch_size(self, batch_size: int) -> None:
        """Set the rows of the batches that follow.

        What does not fit waits, and comes back first. The last batch is committed before: every
        state of it is to be saved. With `store` the size stays, and is gone on with.

        Parameters
        ----------
        batch_size : int
            From 0 to `capacity`.

        Raises
        ------
        ArgumentError
            It is more than `capacity`.
        UnsavedError
            A state of the last batch was not saved; names them.
        """
        rows = _whole("batch_size", batch_size, 0, _ROWS_MAX)
        if self._capacity is not None and rows > self._capacity:
            raise errors.ArgumentError(
                f"batch_size: {rows} is more than capacity, {self._capacity}: so many sequences are "
                "never there at once"
            )
        self._resize(rows)

    def _resize(self, rows: int) -> None:
        if self.closed:
            raise errors.ClosedError("the batches are closed")
        self._loader.set_batch_size(rows)
        self._rows = self._course.batch_size = rows

    @property
    def waited(self) -> float:
        """Seconds that batches were waited for: exposed data wait."""
        return self._loader.waited

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Commit the last batch, if all its states were saved, and give everything back."""
        if not self._finalizer.alive:
            return
        try:
            self._loader.close()
        finally:
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._finalizer()


def _leave(client: Client, feed: Feed | None, folder: TemporaryStore | None, pid: int) -> None:
    """Close; also of batches that nobody refers to any more, or at the end of the process."""
    if os.getpid() != pid:
        return
    ended = feed is None or feed.end()  # else its thread could start the server anew
    try:
        client._close(commit=folder is not None)  # that nothing is kept is no news
    finally:
        if folder:
            folder.remove(wait=ended)


def _leave_nothing() -> None:
    """Nothing was opened."""


class _NoBatches(SequenceBatches):
    """Batches of no examples at all."""

    _finalizer: Any

    def __init__(self, rows: int, capacity: int | None) -> None:
        self._rows = rows
        self._capacity = capacity
        self._finalizer = weakref.finalize(self, _leave_nothing)

    def __repr__(self) -> str:
        return "<segue.SequenceBatches: of no examples>"

    def __next__(self) -> SequenceBatch:
        if self.closed:
            raise errors.ClosedError("the batches are closed")
        raise StopIteration

    def _resize(self, rows: int) -> None:
        self._rows = rows

    def close(self) -> None:
        self._finalizer()


def _check(initial_states: Any, capacity: Any, batch_size: int) -> None:
    if not isinstance(initial_states, Mapping) or not initial_states:
        raise errors.ArgumentError(
            "initial_states: expected a mapping of names to arrays, with one state at least"
        )
    if capacity is None:
        return
    _whole("capacity", capacity, 1, _UNBOUNDED)
    if capacity < batch_size:
        raise errors.ArgumentError(
            f"capacity: {capacity} needs to be >= batch_size, {batch_size}: a batch has so many "
            "sequences"
        )


def _check_kind(own: bool, dtype: Any, epochs: Any) -> None:
    if dtype is not None and not own:
        raise errors.ArgumentError("dtype: it is for examples, not for a source")
    if epochs != 1 and own:
        raise errors.ArgumentError(
            "epochs: it is for a source, and examples are read once: give an iterable that repeats "
            "them, and make_keys_unique=True"
        )


def _declared(sequences: Any, context: Any, source: bool) -> list[Field]:
    """Return the features as they are declared."""
    found: list[Field] = []
    for sequence, place in ((True, "sequences"), (False, "context")):
        things = (sequences if sequence else context) or {}
        if not isinstance(things, Mapping):
            raise errors.ArgumentError(f"{place}: expected a mapping of names to segue.Feature")
        for name, feature in things.items():
            found.append(field_as_declared(name, feature, sequence, source))
    return found


def _transforms(given: Any, states: Mapping[str, Kept]) -> dict[str, list[Transform]]:
    """Return the functions for each state; what the engine does itself is told to the state."""
    each = given if isinstance(given, Mapping) else dict.fromkeys(states, given or ())
    found: dict[str, list[Transform]] = {}
    for name, some in each.items():
        if name not in states:
            raise errors.ArgumentError(f"state_transformations: there is no state {name!r}")
        listed = list(some) if isinstance(some, (list, tuple)) else [some]
        policies = [one for one in listed if isinstance(one, Policy)]
        found[name] = [one for one in listed if not isinstance(one, Policy)]
        if len(policies) > 1:
            raise errors.ArgumentError(f"state_transformations: {name!r} has two policies: {policies}")
        states[name].policy = policies[0] if policies else None
        for transform in found[name]:
            if not callable(transform):
                raise errors.ArgumentError(
                    f"state_transformations: {transform!r} is no function of a state"
                )
    return found


def _sized(initial_states: Any, state_size: Any) -> Any:
    """Return the states that a size stands for, or those that are given, if they are of it."""
    if state_size is None:
        return initial_states
    if not isinstance(state_size, Mapping):
        names = ["state"] if initial_states is None else list(initial_states)
        state_size = dict.fromkeys(names, state_size)
    shapes = {name: _shape("state_size", size) for name, size in state_size.items()}
    if initial_states is None:
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        have = np.shape(initial_states[name]) if name in initial_states else None
        if have != shape:
            raise errors.ArgumentError(
                f"state_size: {shape} of {name!r}, and initial_states has {have}: leave out one"
            )
    return initial_states


def _native(fields: list[Field]) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """Return the features that the engine is told."""
    sequences: dict[str, Feature] = {}
    context: dict[str, Feature] = {}
    taken = {field.name for field in fields}
    of_steps = {field.name for field in fields if field.sequence}
    for field in fields:
        if not field.sequence and field.name in of_steps:  # the engine has one feature of a name
            field.native = own_name(field.name, taken)
        field.declare(sequences, context, taken)
    return sequences, context


def _begin(
    examples: Any,
    fields: list[Field],
    parts: _Parts,
    name: str,
    options: dict[str, Any],
    *,
    capacity: int | None,
    seed: int | None,
    maximum_length: int | None,
    on_too_long: str,
    store: Any,
    start: str | None,
) -> SequenceBatches:
    """Open the store, and the stream in it."""
    features, contexts = _native(fields)
    states = list(parts.states.values())
    window = options["window"] or 0
    with ExitStack() as opened:
        folder = TemporaryStore() if store is None else None
        if folder:
            opened.callback(folder.remove)
        client = opened.enter_context(open(folder.path if folder else store))
        if start == "fresh":
            with suppress(errors.NotFoundError):
                client.drop(name)
        room, source = None, examples
        if not isinstance(examples, (Source, Examples)):
            room = Room(capacity)
            source = Sequences(
                examples,
                fields,
                states,
                room,
                num_unroll=options["num_unroll"],
                pad=options["pad"],
                capacity=_UNBOUNDED if capacity is None else window + (_DEPTH + 2) * capacity,
                seed=seed,
                maximum_length=maximum_length,
                truncate=on_too_long == "truncate",
            )
        declared = {state.name: state.declare(room is not None) for state in states}
        stream = client.stream(name, source, features, contexts, declared, **options)
        loader = stream.loader(lanes=[0], start=start)
        course = Course([], 0, options["batch_size"], window)
        if not folder:
            course = course_of(client, loader, window)
        if room:
            room.open(course.left)
        made = SequenceBatches(client, stream, loader, parts, course, room, folder, capacity)
        opened.pop_all()
        return made


def batch_sequences_with_states(
    examples: Source | Examples | Iterable[Example],
    *,
    initial_states: Mapping[str, Any] | None = None,
    num_unroll: int,
    batch_size: int,
    num_threads: int = 3,
    capacity: int | None = 1000,
    allow_small_batch: bool = True,
    pad: bool = True,
    make_keys_unique: bool = False,
    make_keys_unique_seed: int | None = None,
    name: str | None = None,
    sequences: Mapping[str, Feature] | None = None,
    context: Mapping[str, Feature] | None = None,
    epochs: int | None = 1,
    dtype: Any = None,
    state_size: Any = None,
    state_transformations: Any = None,
    seed: int = 0,
    maximum_length: int | None = None,
    on_too_long: str = "error",
    bucket_boundaries: Sequence[int] | None = None,
    window: int | None = None,
    store: str | os.PathLike[str] | None = None,
    start: str | None = None,
    state_bytes: int = 1024,
) -> SequenceBatches:
    """Return batches of segments of sequences, each with the state that the one before has left.

    What ``tf.contrib.training.batch_sequences_with_states`` did, value for value, on a store of its
    own: each batch takes the `batch_size` oldest sequences that are not finished, and one segment
    of each. It ends where the original would wait for ever.

    Parameters
    ----------
    examples : iterable of Example, or a source
        Sequences in the order in which they enter. All have the features of the first one; each
        dense sequence feature of one sequence has the same number of steps. Or `TFRecord`, `Files`,
        `Arrays` or `Mix`, with `sequences` and `context` declared.
    initial_states : mapping of str to array_like
        Of each state its value before a first segment, which says dtype and shape, too. An example
        may have its own. Without it `state_size` makes them.
    num_unroll : int
        Steps of a segment.
    batch_size : int
        Rows of a batch.
    num_threads : int
        Threads that read a source. The order is the same with any number.
    capacity : int, optional
        Sequences that are on their way at most, `batch_size` or more; None is without bound. One
        has left when the batch with its last segment is taken.
    allow_small_batch : bool
        True: at the end batches get smaller as sequences run out. False: it ends when no full batch
        can be formed.
    pad : bool
        False: steps must be multiples of `num_unroll`.
    make_keys_unique : bool
        Append a number below 10^8 to each key.
    make_keys_unique_seed : int, optional
        Seed of these numbers, which are those of the original; 0 if not given.
    name : str, optional
        Of the stream, ``"batch_sequences_with_states"`` if not given.
    sequences, context : mapping of str to Feature, optional
        The features of a source. Those of examples are seen in the first one, if they are not
        given. With ``Feature(..., sparse=True)`` they come as `Sparse`; of a source those are ragged.
    epochs : int, optional
        Passes over a source; None is endless. Examples are read once.
    dtype : dtype, optional
        To which the numbers of sequence features of examples are converted; nothing that loses a
        whole number.
    state_size : int, shape, or mapping of str to those, optional
        Stands for float32 zeros of that shape as `initial_states`, of ``"state"`` where there is no
        name. Where both are given it is compared.
    state_transformations : mapping of str to callable, or list of callables, optional
        ``function(value)`` of what is saved of a state, or of each state if no name is given, makes
        what the next segment gets. Several are applied one after the other. `segue.zero` is one, too.
    seed : int
        Of `segue.zero`.
    maximum_length : int, optional
        Steps of a sequence at most.
    on_too_long : {"error", "truncate"}
        What becomes of a sequence that has more than `maximum_length`.
    bucket_boundaries : sequence of int, optional
        Only sequences of like lengths share a batch, as of `Client.stream`: where no sequence goes
        on, the oldest of the next `window` says which length class comes; its first `batch_size`
        begin, the others of that class in the window take the places of those that end, and
        batches get smaller until all have ended. Not with ``allow_small_batch=False``.
    window : int, optional
        Sequences among which those of one class are found, from `batch_size` to `capacity`; None:
        ``16 * batch_size``, or `capacity` if that is less.
    store : path, optional
        Directory in which positions and states are kept; by default they go with the iterator.
    start : {None, "continue", "fresh"}
        With `store`, as of `Stream.loader`: a position that is there has to be gone on from, with
        the same examples, or dropped.
    state_bytes : int
        Bytes that each string of a state of strings may have.

    Returns
    -------
    SequenceBatches
        An iterator of `SequenceBatch`; a context manager. Every state is to be saved before the
        next batch is asked for.

    Raises
    ------
    ArgumentError
        What cannot be; also when an example is reached that does not fit, after the batches that
        are full without it.
    UnsavedError
        The next batch was asked for, and a state was not saved; names them.

    Examples
    --------
    >>> import numpy as np, segue
    >>> examples = [
    ...     segue.Example({"x": np.arange(4, dtype=np.float32)}, key="a"),
    ...     segue.Example({"x": np.arange(2, dtype=np.float32)}, key="b"),
    ... ]
    >>> with segue.batch_sequences_with_states(
    ...     examples, initial_states={"sum": np.float32(0)}, num_unroll=2, batch_size=2
    ... ) as batches:
    ...     for batch in batches:
    ...         total = batch.state("sum") + batch.sequences["x"].sum(axis=1)
    ...         print(batch.key, total)
    ...         batch.save_state("sum", total)
    [b'00000_of_00002:a', b'00000_of_00001:b'] [1. 1.]
    [b'00001_of_00002:a'] [6.]
    """
    batch_size = _whole("batch_size", batch_size, 1, _ROWS_MAX)
    initial_states = _sized(initial_states, state_size)
    _check(initial_states, capacity, batch_size)
    assert initial_states is not None
    name = "batch_sequences_with_states" if name is None else name
    _check_name(name)
    options: dict[str, Any] = {
        "num_unroll": _whole("num_unroll", num_unroll, 1, 2**20),
        "batch_size": batch_size,
        "pad": pad,
        "tail": "shrink" if allow_small_batch else "stop",
        "num_threads": min(_whole("num_threads", num_threads, 1, 2**31), _THREADS_MAX),
        "depth": _DEPTH,
        "seed": seed,
    }
    key_seed = _whole("make_keys_unique_seed", make_keys_unique_seed or 0, -(2**63), 2**64 - 1)
    states = [state_of(key, init, state_bytes) for key, init in initial_states.items()]
    own = not isinstance(examples, (Source, Examples))
    if isinstance(examples, Push):
        raise errors.ArgumentError(
            "examples: producers insert into a stream (client.stream); give an iterable of "
            "segue.Example"
        )
    _check_kind(own, dtype, epochs)
    check_most(maximum_length, on_too_long)
    there = capacity if own else None
    options |= classes(bucket_boundaries, window, allow_small_batch, batch_size, there)
    if store is None and start == "continue":
        raise errors.ArgumentError("start: nothing is kept that could be continued: give store=DIR")
    fields = _declared(sequences, context, not own)
    if own:
        first, examples = peek(examples)
        if first is None:
            warn("no batches: examples has no item (an iterator gives its items once)")
            return _NoBatches(batch_size, capacity)
        fields = fields or fields_of(first, dtype and _dtype("dtype", dtype))
    else:
        most = {"maximum_length": maximum_length, "on_too_long": on_too_long}
        options |= {"epochs": epochs, **most}
    by_name = {state.name: state for state in states}
    transforms = _transforms(state_transformations, by_name)
    parts = _Parts(fields, states, transforms, key_seed if make_keys_unique else None, own)
    return _begin(
        examples,
        fields,
        parts,
        name,
        options,
        capacity=capacity,
        seed=key_seed if make_keys_unique else None,
        maximum_length=maximum_length,
        on_too_long=on_too_long,
        store=store,
        start=start,
    )

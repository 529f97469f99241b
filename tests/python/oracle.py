"""A plain model of what a stream delivers: segments, rows, lanes, epochs, tails and carried states.

Written from the rules of segmenting, batching and state alone, never from the C code; speed is no
concern here. `Model(files, spec, update).batches(lane)` yields what a worker that holds `lane` must
see, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy then knows bfloat16
import numpy as np

import permutation
import philox

NO_SEQUENCE = -1  # insertion_index of an empty row
NO_ROW = (1 << 32) - 1  # previous_row of a row that begins a sequence, or is empty

Arrays = dict[str, np.ndarray]
# One row's states after a batch, from its states before, its inputs [U, ...] and the batch's step.
Update = Callable[[Arrays, Arrays, int], Arrays]
# By record key: number of the sequence that has left it, and its states.
Kept = dict[str, tuple[int, Arrays]]
# (sequence number, segment) of a row, or None for an empty row.
Place = tuple[int, int] | None


class BadRecord(ValueError):
    """A record that no segment can be made of."""


@dataclass(frozen=True)
class Feature:
    """A sequence or context feature; dtype "bytes" makes arrays of Python bytes objects, `ragged`
    arrays of arrays.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False


@dataclass(frozen=True)
class State:
    """A carried state; `init` is one row's initial value (None: zeros)."""

    dtype: str
    shape: tuple[int, ...] = ()
    init: Any = None
    from_data: bool = False  # each record has its own; `init` is None
    zero: float | None = None  # policy: the initial value with this probability

    def initial(self) -> np.ndarray:
        value = np.zeros(self.shape, self.dtype)
        if self.init is not None:
            value[...] = self.init
        return value


@dataclass(frozen=True)
class Record:
    """One example: arrays [n, ...] under `sequences`; `length` is given only where it is not n."""

    key: str
    sequences: Mapping[str, Any]
    context: Mapping[str, Any] = field(default_factory=dict)
    length: int | None = None
    damaged: bool = False  # its bytes are not what was written
    states: Mapping[str, Any] = field(default_factory=dict)  # initial values that are from the data


@dataclass(frozen=True)
class Spec:
    sequences: Mapping[str, Feature]
    num_unroll: int | None  # None: whole sequences
    batch_size: int
    context: Mapping[str, Feature] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    lanes: int = 1
    shuffle: bool = False
    seed: int = 0
    epochs: int | None = 1  # in all, as the stream was made; None: endless
    grown: tuple[int | None, ...] = ()  # what it was opened with later
    first_epoch: int = 0
    pad: bool = True
    tail: str = "shrink"  # or "stop", "pad"
    epoch_end: str = "continue"  # or "drain"
    on_error: str = "raise"  # or "skip": damaged records are passed over
    maximum_length: int | None = None
    on_too_long: str = "error"  # or "truncate", "skip"
    trim: bool = False
    lanes_by: str = "sequence"  # or "record": a record is always of the same lane
    initial: str = "value"  # or "kept": a row begins with what its key has left in its lane
    boundaries: tuple[int, ...] = ()  # of classes of lengths; none: lengths make no difference
    window: int | None = None  # sequences among which a class is found; None: 16 batches of them
    # Record at place i of an epoch, from (epoch, i, n); None: as `shuffle` and `seed` say.
    order: Callable[[int, int, int], int] | None = None
    # Rows from that step of a lane on, where it is given another batch size.
    sizes: Mapping[int, int] = field(default_factory=dict)

    def size(self, step: int) -> int:
        """Rows of batch `step` of a lane, if there is enough for them."""
        given = [at for at in self.sizes if at <= step]
        return self.sizes[max(given)] if given else self.batch_size

    def class_of(self, steps: int) -> int:
        return sum(boundary <= steps for boundary in self.boundaries)

    @property
    def unroll(self) -> int:
        """Steps of a segment: whole sequences are of one that has room for the longest."""
        steps = self.maximum_length if self.num_unroll is None else self.num_unroll
        assert steps is not None, "whole sequences need a maximum_length"
        return steps

    @property
    def last(self) -> int | None:
        """All epochs that there are, by now."""
        return (self.epochs, *self.grown)[-1]


@dataclass
class Batch:
    """Per-row lists of one batch; arrays are [rows, T, ...], [rows, ...] for context and states.

    T is num_unroll, unless the batch is cut to its longest length.

    The epoch of an empty row is the one that it pads.
    """

    lane: int
    step: int
    sequences: Arrays
    context: Arrays
    state_in: Arrays
    state_out: Arrays
    key: list[bytes] = field(default_factory=list)
    next_key: list[bytes] = field(default_factory=list)
    sequence: list[int] = field(default_factory=list)
    sequence_count: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    total_length: list[int] = field(default_factory=list)
    insertion_index: list[int] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)
    is_first: list[bool] = field(default_factory=list)
    is_last: list[bool] = field(default_factory=list)
    is_kept: list[bool] = field(default_factory=list)
    previous_row: list[int] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        return len(self.key)

    @property
    def mask(self) -> np.ndarray:
        """[rows, T] bool: the steps that count."""
        time = next(iter(self.sequences.values())).shape[1]
        return np.arange(time) < np.array(self.length)[:, None]


def steps_of(record: Record, spec: Spec) -> int:
    """Steps n of the record's arrays, as they are delivered; 0: it is passed over as too long.

    BadRecord if they make no segments.
    """
    if record.damaged:
        raise BadRecord(f"{record.key}: damaged")
    lengths = {name: len(record.sequences[name]) for name in spec.sequences}
    if len(set(lengths.values())) != 1:
        raise BadRecord(f"{record.key}: sequence features of different lengths {lengths}")
    n = next(iter(lengths.values()))
    if n == 0:
        raise BadRecord(f"{record.key}: empty sequence")
    most = n if spec.maximum_length is None else spec.maximum_length
    if n > most and spec.on_too_long == "error":
        raise BadRecord(f"{record.key}: {n} steps, and maximum_length is {most}")
    if n > most and spec.on_too_long == "skip":
        return 0
    padded = -(-n // spec.unroll) * spec.unroll
    if record.length is not None and not 0 <= record.length <= padded:
        raise BadRecord(f"{record.key}: length {record.length} not within 0 and {padded}")
    n = min(n, most)
    if not spec.pad and n % spec.unroll:
        raise BadRecord(
            f"{record.key}: {n} steps of {list(lengths)} are no multiple of num_unroll = "
            f"{spec.unroll}; consider pad=True"
        )
    return n


def total_of(record: Record, spec: Spec) -> int:
    """Steps of the record that count, of a record that is delivered: none that was cut off."""
    n = len(next(iter(record.sequences.values())))
    total = n if record.length is None else record.length
    too_long = spec.maximum_length is not None and n > spec.maximum_length
    return min(total, spec.maximum_length) if too_long else total


def segment_count(n: int, num_unroll: int) -> int:
    return -(-n // num_unroll)


def segment_key(key: str, segment: int, segments: int) -> bytes:
    """Key of a segment, or what follows the last one."""
    if segment == segments:
        return f"STOP:{key}".encode()
    return f"{segment:05d}_of_{segments:05d}:{key}".encode()


def _empty(feature: Feature, *leading: int) -> np.ndarray:
    """Padding: zeros, False or empty strings."""
    shape = (*leading, *feature.shape)
    if feature.dtype == "bytes":
        return np.full(shape, b"", object)
    if feature.ragged:
        array = np.empty(shape, object)
        for place in np.ndindex(shape):
            array[place] = np.zeros(0, feature.dtype)
        return array
    return np.zeros(shape, feature.dtype)


def plan_rows(
    numbers: Iterable[int],
    segments: Callable[[int], int],
    size: Callable[[int], int],
    tail: str,
    step: int = 0,
    class_of: Callable[[int], int] | None = None,
    window: int = 0,
) -> Generator[tuple[list[Place], list[Place]], None, int]:
    """Rows of one lane, and what is parked behind them, from batch `step` on until its `numbers`
    have run out. `size` says how many rows a batch is to have; `class_of`, where batches are of one
    class, that of a sequence, and `window` among how many it is looked for when no row lives.

    Returns (as the generator's value) how many segments tail="stop" left undelivered.
    """
    waiting = iter(numbers)
    ahead: list[int] = []  # looked at and not begun, oldest first
    rows: list[Place] = []
    parked: list[tuple[int, int]] = []  # with the segment that they had last, oldest first

    for at in count(step):
        most = size(at)
        before = len(rows)
        rows = [
            (row[0], row[1] + 1) if row is not None and row[1] + 1 < segments(row[0]) else None
            for row in rows
        ]
        if before > most:  # they move up, and the youngest that are too many are parked
            oldest = sorted(row for row in rows if row is not None)
            parked = [(number, segment - 1) for number, segment in oldest[most:]] + parked
            rows = [row for row in rows if row in oldest[:most]]
        rows += [None] * (most - len(rows))
        if class_of is not None:
            begun = [row for row in [*rows, *parked] if row is not None]
            if not begun and most > 0:
                ahead += islice(waiting, window - len(ahead))
            leader = [number for number, _ in begun[:1]] or ahead[:1]
        for free in [i for i, row in enumerate(rows) if row is None]:
            if parked:
                number, segment = parked.pop(0)
                rows[free] = (number, segment + 1)
            elif class_of is not None:
                cohort = [n for n in ahead if class_of(n) == class_of(leader[0])]
                if cohort:
                    ahead.remove(cohort[0])
                    rows[free] = (cohort[0], 0)
            else:
                new = next(waiting, None)
                rows[free] = None if new is None else (new, 0)
        if most == 0 and not parked and not ahead:  # a batch of none, while there is something left
            new = next(waiting, None)
            if new is None:
                return 0
            waiting = chain([new], waiting)
        active = [row for row in rows if row is not None]
        if most > 0 and not active:
            return 0
        if tail == "stop" and len(active) < most:
            return sum(segments(number) - segment for number, segment in active)
        if tail == "shrink":
            rows = active
        yield list(rows), list(parked)
    raise AssertionError


class Model:
    """Everything a stream delivers.

    Parameters
    ----------
    files : the data set: a list of records per file, in order.
    spec : what the stream is.
    update : what the worker does to each row's states; None keeps them as they are.
    """

    def __init__(
        self, files: Sequence[Sequence[Record]], spec: Spec, update: Update | None = None
    ) -> None:
        self.records = list(chain.from_iterable(files))
        self.spec = spec
        self.update = update or (lambda states, inputs, step: states)
        self.steps = [self._steps_of(record) for record in self.records]  # 0: passed over
        self._longest: dict[tuple[int, ...], int] = {}
        self._newest = 0  # sequence that was looked at

    def _steps_of(self, record: Record) -> int:
        try:
            return steps_of(record, self.spec)
        except BadRecord:
            if record.damaged and self.spec.on_error == "skip":
                return 0
            raise

    # -- sequences ---------------------------------------------------------------------------

    def record_of(self, number: int) -> int:
        """Index of the record that is sequence `number` of the stream."""
        if self.spec.lanes_by == "record":
            return self._record_of_lane(number)
        epoch, i = divmod(number, len(self.records))
        if self.spec.order is not None:
            return self.spec.order(epoch, i, len(self.records))
        if self.spec.shuffle:
            return permutation.permute(self.spec.seed, epoch, i, len(self.records))
        return i

    @property
    def an_epoch(self) -> int:
        """Numbers of sequences that an epoch has."""
        n, lanes = len(self.records), self.spec.lanes
        return -(-n // lanes) * lanes if self.spec.lanes_by == "record" else n

    def _record_of_lane(self, number: int) -> int:
        """The same with lanes_by="record"; behind the last if there is none."""
        lanes, places = self.spec.lanes, self.an_epoch // self.spec.lanes
        epoch, i = divmod(number, self.an_epoch)
        place, lane = divmod(i, lanes)
        if self.spec.shuffle:
            place = permutation.permute(self.spec.seed, epoch * lanes + lane, place, places)
        return place * lanes + lane

    def _is_there(self, number: int) -> bool:
        record = self.record_of(number)
        return record < len(self.records) and self.steps[record] > 0

    def segments(self, number: int) -> int:
        return segment_count(self.steps[self.record_of(number)], self.spec.unroll)

    def length(self, place: Place) -> int:
        """Steps of a row that count."""
        if place is None:
            return 0
        total = total_of(self.records[self.record_of(place[0])], self.spec)
        return min(self.spec.unroll, max(0, total - place[1] * self.spec.unroll))

    def time(self, rows: list[Place]) -> int:
        """The time dimension of a batch of these rows."""
        if self.spec.num_unroll is not None and not self.spec.trim:
            return self.spec.num_unroll
        return max([1, *map(self.length, rows)])

    def numbers(self, lane: int, epochs: Iterable[int]) -> Iterator[int]:
        """Sequence numbers of a lane in these epochs, in order."""
        n = self.an_epoch
        for epoch in epochs:
            for number in range(epoch * n, (epoch + 1) * n):
                if number % self.spec.lanes == lane and self._is_there(number):
                    self._newest = number
                    yield number

    # -- rows --------------------------------------------------------------------------------

    def runs(self) -> Iterator[Iterable[int]]:
        """Groups of epochs that flow into each other; at the end of each the tail rule applies."""
        first, spec = self.spec.first_epoch, self.spec
        if spec.epoch_end == "drain":
            every = count(first) if spec.last is None else range(first, spec.last)
            return ((epoch,) for epoch in every)
        return self._between_ends(first)

    def _between_ends(self, first: int) -> Iterator[Iterable[int]]:
        for end in (self.spec.epochs, *self.spec.grown):
            if end is None:
                yield count(first)
            else:
                yield range(first, end)
                first = end

    def _run(
        self, lane: int, epochs: Iterable[int], step: int = 0
    ) -> Generator[tuple[list[Place], list[Place]], None, int]:
        spec = self.spec
        return plan_rows(
            self.numbers(lane, epochs),
            self.segments,
            spec.size,
            spec.tail,
            step,
            (lambda n: spec.class_of(self.steps[self.record_of(n)])) if spec.boundaries else None,
            spec.window or 16 * spec.batch_size,
        )

    def longest(self, epochs: Iterable[int]) -> int:
        """Batches of the longest lane in a (finite) run."""
        epochs = tuple(epochs)
        if epochs not in self._longest:
            lanes = range(self.spec.lanes)
            self._longest[epochs] = max(sum(1 for _ in self._run(lane, epochs)) for lane in lanes)
        return self._longest[epochs]

    def _plan(self, lane: int) -> Generator[tuple[int, list[Place], list[Place]], None, int]:
        """(epoch of its empty rows, rows, parked) of every batch of a lane; returns what is left
        out.
        """
        undelivered = step = 0
        for epochs in self.runs():
            last = -1 if isinstance(epochs, count) else list(epochs)[-1]
            delivered = 0
            run = self._run(lane, epochs, step)
            while True:
                try:
                    rows, parked = next(run)
                except StopIteration as end:
                    undelivered += end.value
                    break
                delivered += 1
                if isinstance(epochs, count):  # which has no last one
                    last = self._newest // self.an_epoch
                yield last, rows, parked
            step += delivered
            if self.spec.tail == "pad":
                for _ in range(self.longest(epochs) - delivered):
                    step += 1
                    yield last, [None] * self.spec.batch_size, []
        return undelivered

    def plan(self, lane: int) -> Iterator[list[Place]]:
        """Rows of every batch of a lane."""
        return (rows for _, rows, _ in self._plan(lane))

    def undelivered(self, lane: int) -> int:
        """Segments that tail="stop" leaves out at the lane's end."""
        plan = self._plan(lane)
        while True:
            try:
                next(plan)
            except StopIteration as end:
                return int(end.value)

    # -- batches -----------------------------------------------------------------------------

    def batches(self, lane: int) -> Iterator[Batch]:
        """What the worker that holds `lane` sees, in order."""
        before: list[Place] = []
        states: Arrays = {}
        kept: Kept = {}
        for step, (pads, rows, parked) in enumerate(self._plan(lane)):
            batch = self._batch(lane, step, rows, pads, before, states, kept)
            yield batch
            if self.spec.initial == "kept":
                self._keep(batch, rows, kept)
            waiting = [before.index(place) for place in parked]
            states = {
                name: np.concatenate([batch.state_out[name], states[name][waiting]])
                if parked
                else batch.state_out[name]
                for name in batch.state_out
            }
            before = rows + parked

    def _batch(
        self,
        lane: int,
        step: int,
        rows: list[Place],
        pads: int,
        before: list[Place],
        states: Arrays,
        kept: Kept,
    ) -> Batch:
        spec, time = self.spec, self.time(rows)
        batch = Batch(
            lane,
            step,
            sequences={
                name: _empty(feature, len(rows), time)
                for name, feature in spec.sequences.items()
            },
            context={name: _empty(feature, len(rows)) for name, feature in spec.context.items()},
            state_in={
                name: np.repeat(state.initial()[None], len(rows), axis=0)
                for name, state in spec.states.items()
            },
            state_out={
                name: np.zeros((len(rows), *state.shape), state.dtype)
                for name, state in spec.states.items()
            },
        )
        for row, place in enumerate(rows):
            self._describe(batch, place, pads)
            if place is not None:
                self._fill(batch, row, place)
            previous = NO_ROW
            if place is not None and place[1] > 0:
                previous = before.index((place[0], place[1] - 1))
            if place is not None:
                record = self.records[self.record_of(place[0])]
                taken = kept.get(record.key) if place[1] == 0 else None
                batch.is_kept.append(taken is not None)
                for i, (name, state) in enumerate(spec.states.items()):
                    if taken is not None:
                        batch.state_in[name][row] = taken[1][name]
                    elif previous != NO_ROW and not self._zeroed(state, i, place):
                        batch.state_in[name][row] = states[name][previous]
                    elif state.from_data:
                        batch.state_in[name][row] = record.states[name]
            else:
                batch.is_kept.append(False)
            batch.previous_row.append(previous)
            self._work(batch, row)
        return batch

    def _keep(self, batch: Batch, rows: list[Place], kept: Kept) -> None:
        """What the rows of a batch leave that end with it: of a key the highest number counts."""
        for row, place in enumerate(rows):
            if place is None or not batch.is_last[row]:
                continue
            key = self.records[self.record_of(place[0])].key
            if key not in kept or kept[key][0] < place[0]:
                left = {name: value[row].copy() for name, value in batch.state_out.items()}
                kept[key] = (place[0], left)

    def _zeroed(self, state: State, i: int, place: tuple[int, int]) -> bool:
        return state.zero is not None and philox.zeroes(state.zero, self.spec.seed, i, *place)

    def _describe(self, batch: Batch, place: Place, pads: int) -> None:
        if place is None:
            values = (b"", b"", 0, 0, 0, 0, NO_SEQUENCE, pads, False, False)
        else:
            number, segment = place
            index = self.record_of(number)
            record, n, unroll = self.records[index], self.steps[index], self.spec.unroll
            segments = segment_count(n, unroll)
            values = (
                segment_key(record.key, segment, segments),
                segment_key(record.key, segment + 1, segments),
                segment,
                segments,
                self.length(place),
                total_of(record, self.spec),
                number,
                number // self.an_epoch,
                segment == 0,
                segment == segments - 1,
            )
        names = ("key", "next_key", "sequence", "sequence_count", "length", "total_length",
                 "insertion_index", "epoch", "is_first", "is_last")  # fmt: skip
        for name, value in zip(names, values, strict=True):
            getattr(batch, name).append(value)

    def _fill(self, batch: Batch, row: int, place: tuple[int, int]) -> None:
        record = self.records[self.record_of(place[0])]
        first = place[1] * self.spec.unroll
        time = next(iter(batch.sequences.values())).shape[1]
        end = min(first + time, self.steps[self.record_of(place[0])])
        for name in self.spec.sequences:
            steps = record.sequences[name][first:end]
            for step, value in enumerate(steps):
                batch.sequences[name][row, step] = value
        for name in self.spec.context:
            batch.context[name][row] = record.context[name]

    def _work(self, batch: Batch, row: int) -> None:
        states = {name: value[row].copy() for name, value in batch.state_in.items()}
        inputs = {name: value[row].copy() for name, value in batch.sequences.items()}
        for name, value in self.update(states, inputs, batch.step).items():
            batch.state_out[name][row] = value


def lanes_of(rank: int, world_size: int, lanes: int) -> list[int]:
    """Lanes of one worker of `world_size`."""
    return [lane for lane in range(lanes) if lane % world_size == rank]

"""A plain model of what a stream delivers: segments, rows, lanes, epochs, tails and carried states.

Written from the rules of segmenting, batching and state alone, never from the C code; speed is no
concern here. `Model(files, spec, update).batches(lane)` yields what a worker that holds `lane` must
see, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy then knows bfloat16
import numpy as np

import permutation

NO_SEQUENCE = -1  # insertion_index of an empty row
NO_ROW = (1 << 32) - 1  # previous_row of a row that begins a sequence, or is empty

Arrays = dict[str, np.ndarray]
# One row's states after a batch, from its states before, its inputs [U, ...] and the batch's step.
Update = Callable[[Arrays, Arrays, int], Arrays]
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
    num_unroll: int
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
    # Record at place i of an epoch, from (epoch, i, n); None: as `shuffle` and `seed` say.
    order: Callable[[int, int, int], int] | None = None

    @property
    def last(self) -> int | None:
        """All epochs that there are, by now."""
        return (self.epochs, *self.grown)[-1]


@dataclass
class Batch:
    """Per-row lists of one batch; arrays are [rows, U, ...], [rows, ...] for context and states.

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
    previous_row: list[int] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        return len(self.key)

    @property
    def mask(self) -> np.ndarray:
        """[rows, U] bool: the steps that count."""
        unroll = next(iter(self.sequences.values())).shape[1]
        return np.arange(unroll) < np.array(self.length)[:, None]


def steps_of(record: Record, spec: Spec) -> int:
    """Steps n of the record's arrays; BadRecord if they make no segments."""
    if record.damaged:
        raise BadRecord(f"{record.key}: damaged")
    lengths = {name: len(record.sequences[name]) for name in spec.sequences}
    if len(set(lengths.values())) != 1:
        raise BadRecord(f"{record.key}: sequence features of different lengths {lengths}")
    n = next(iter(lengths.values()))
    if n == 0:
        raise BadRecord(f"{record.key}: empty sequence")
    if not spec.pad and n % spec.num_unroll:
        raise BadRecord(
            f"{record.key}: {n} steps of {list(lengths)} are no multiple of num_unroll = "
            f"{spec.num_unroll}; consider pad=True"
        )
    padded = -(-n // spec.num_unroll) * spec.num_unroll
    if record.length is not None and not 0 <= record.length <= padded:
        raise BadRecord(f"{record.key}: length {record.length} not within 0 and {padded}")
    return n


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
    numbers: Iterable[int], segments: Callable[[int], int], batch_size: int, tail: str
) -> Generator[list[Place], None, int]:
    """Rows of one lane, batch by batch, until its `numbers` have run out.

    Returns (as the generator's value) how many segments tail="stop" left undelivered.
    """
    waiting = iter(numbers)

    def take() -> Place:
        number = next(waiting, None)
        return None if number is None else (number, 0)

    def advance(row: Place) -> Place:
        if row is None:
            return None
        number, segment = row
        return (number, segment + 1) if segment + 1 < segments(number) else take()

    rows = [take() for _ in range(batch_size)]
    while True:
        if tail == "shrink":
            rows = [row for row in rows if row is not None]
        active = [row for row in rows if row is not None]
        if not active:
            return 0
        if tail == "stop" and len(active) < batch_size:
            return sum(segments(number) - segment for number, segment in active)
        yield list(rows)
        rows = [advance(row) for row in rows]


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
        epoch, i = divmod(number, len(self.records))
        if self.spec.order is not None:
            return self.spec.order(epoch, i, len(self.records))
        if self.spec.shuffle:
            return permutation.permute(self.spec.seed, epoch, i, len(self.records))
        return i

    def segments(self, number: int) -> int:
        return segment_count(self.steps[self.record_of(number)], self.spec.num_unroll)

    def numbers(self, lane: int, epochs: Iterable[int]) -> Iterator[int]:
        """Sequence numbers of a lane in these epochs, in order."""
        n = len(self.records)
        for epoch in epochs:
            for number in range(epoch * n, (epoch + 1) * n):
                if number % self.spec.lanes == lane and self.steps[self.record_of(number)]:
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

    def _run(self, lane: int, epochs: Iterable[int]) -> Generator[list[Place], None, int]:
        numbers = self.numbers(lane, epochs)
        return plan_rows(numbers, self.segments, self.spec.batch_size, self.spec.tail)

    def longest(self, epochs: Iterable[int]) -> int:
        """Batches of the longest lane in a (finite) run."""
        epochs = tuple(epochs)
        if epochs not in self._longest:
            lanes = range(self.spec.lanes)
            self._longest[epochs] = max(sum(1 for _ in self._run(lane, epochs)) for lane in lanes)
        return self._longest[epochs]

    def _plan(self, lane: int) -> Generator[tuple[int, list[Place]], None, int]:
        """(epoch of its empty rows, rows) of every batch of a lane; returns what is left out."""
        undelivered = 0
        for epochs in self.runs():
            last = -1 if isinstance(epochs, count) else list(epochs)[-1]  # endless: no empty rows
            delivered = 0
            run = self._run(lane, epochs)
            while True:
                try:
                    rows = next(run)
                except StopIteration as end:
                    undelivered += end.value
                    break
                delivered += 1
                yield last, rows
            if self.spec.tail == "pad":
                for _ in range(self.longest(epochs) - delivered):
                    yield last, [None] * self.spec.batch_size
        return undelivered

    def plan(self, lane: int) -> Iterator[list[Place]]:
        """Rows of every batch of a lane."""
        return (rows for _, rows in self._plan(lane))

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
        for step, (pads, rows) in enumerate(self._plan(lane)):
            batch = self._batch(lane, step, rows, pads, before, states)
            yield batch
            before, states = rows, batch.state_out

    def _batch(
        self,
        lane: int,
        step: int,
        rows: list[Place],
        pads: int,
        before: list[Place],
        states: Arrays,
    ) -> Batch:
        spec = self.spec
        batch = Batch(
            lane,
            step,
            sequences={
                name: _empty(feature, len(rows), spec.num_unroll)
                for name, feature in spec.sequences.items()
            },
            context={name: _empty(feature, len(rows)) for name, feature in spec.context.items()},
            state_in={
                name: np.stack([state.initial()] * len(rows)) for name, state in spec.states.items()
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
                for name in spec.states:
                    batch.state_in[name][row] = states[name][previous]
            elif place is not None:
                record = self.records[self.record_of(place[0])]
                for name, state in spec.states.items():
                    if state.from_data:
                        batch.state_in[name][row] = record.states[name]
            batch.previous_row.append(previous)
            self._work(batch, row)
        return batch

    def _describe(self, batch: Batch, place: Place, pads: int) -> None:
        if place is None:
            values = (b"", b"", 0, 0, 0, 0, NO_SEQUENCE, pads, False, False)
        else:
            number, segment = place
            index = self.record_of(number)
            record, n, unroll = self.records[index], self.steps[index], self.spec.num_unroll
            segments = segment_count(n, unroll)
            total = n if record.length is None else record.length
            values = (
                segment_key(record.key, segment, segments),
                segment_key(record.key, segment + 1, segments),
                segment,
                segments,
                min(unroll, max(0, total - segment * unroll)),
                total,
                number,
                number // len(self.records),
                segment == 0,
                segment == segments - 1,
            )
        names = ("key", "next_key", "sequence", "sequence_count", "length", "total_length",
                 "insertion_index", "epoch", "is_first", "is_last")  # fmt: skip
        for name, value in zip(names, values, strict=True):
            getattr(batch, name).append(value)

    def _fill(self, batch: Batch, row: int, place: tuple[int, int]) -> None:
        record = self.records[self.record_of(place[0])]
        first = place[1] * self.spec.num_unroll
        for name in self.spec.sequences:
            steps = record.sequences[name][first : first + self.spec.num_unroll]
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

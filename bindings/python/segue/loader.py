"""Loaders: a worker's share of the lanes, as iterators that commit as they advance."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import _segue, errors
from ._closing import Closing
from ._notice import warn, warn_put_back, where
from ._rank import world
from ._segue import Batch
from ._waits import waited_for
from .keyed import checked_group
from .spec import _whole

if TYPE_CHECKING:
    from types import FrameType

    from .client import Stream

_T = TypeVar("_T")

_STARTS = {
    None: _segue.START_NONE,
    "continue": _segue.START_CONTINUE,
    "fresh": _segue.START_FRESH,
}

# What a lane says that has not been set to another position.
_UNMOVED = (
    errors.BusyError,
    errors.ClosedError,
    errors.ForkedError,
    errors.TokenError,
)

# Seconds that a lane is waited for which another process holds; and before that is said.
_PATIENCE, _SILENCE = 10.0, 1.0

# Seconds that a batch is waited for before it is said which group keeps it.
_GROUP_SILENCE = 10.0

# Processes that see the same batches; seconds that one of them waits for replica 0.
_REPLICAS_MOST, _REPLICA_PATIENCE = 1024, 60.0

# Seconds that arrays are waited for which take all places of the ring, and between two looks. JAX
# lets go of its inputs when its own threads have come to it.
_HELD_PATIENCE, _HELD_LOOK = 2.0, 0.002

# `Stream.records` while sequences are inserted; seconds until it is said that none come.
_LIVE, _INPUT_SILENCE = 1 << 63, 10.0

# Those of this process that have, or had, lanes: a newer one takes lanes over from them.
_attached: weakref.WeakSet[Loader] = weakref.WeakSet()
_attached_lock = threading.RLock()  # so that a handler of a signal may attach, too
# Open batches of loaders that went before them, with the place of the stream.
_orphans: list[tuple[object, weakref.ref[Batch]]] = []


def _forget_attached() -> None:
    """In a forked child: another thread of the parent may have had the lock."""
    global _attached, _attached_lock
    _attached = weakref.WeakSet()
    _attached_lock = threading.RLock()
    _orphans.clear()


os.register_at_fork(after_in_child=_forget_attached)


def _state_dicts(given: Any) -> list[Mapping[str, bytes]]:
    """Return what `Loader.load_state_dict` was given as a list."""
    many = isinstance(given, Iterable) and not isinstance(given, Mapping)
    parts: list[Mapping[str, bytes]] = list(given) if many else [given]
    for part in parts:
        if not isinstance(part, Mapping):
            raise TypeError(
                "load_state_dict takes what state_dict() returned, or a list of such: "
                f"not {type(part).__name__}"
            )
    return parts


def _own_lanes(
    count: int,
    lanes: Iterable[int] | None,
    rank: int | None,
    world_size: int | None,
    replicas: int = 1,
) -> list[int]:
    if lanes is not None:
        if rank is not None or world_size is not None:
            raise errors.ArgumentError("give lanes, or rank and world_size, not both")
        own = sorted(int(lane) for lane in lanes)
        if not own or len(set(own)) < len(own) or own[0] < 0 or own[-1] >= count:
            raise errors.ArgumentError(
                f"lanes: {own} is not a choice of the stream's lanes 0 to {count - 1}"
            )
        return own
    rank, world_size, says = world(rank, world_size)
    if replicas > 1 and world_size > 1 and says:
        raise errors.ArgumentError(
            f"replicas={replicas}: {says} count all ranks, also those that see the same batches; "
            "give rank and world_size of those that see different ones: rank=0, world_size=1 if "
            "there are none"
        )
    says = f" ({says})" if says else ""
    if not 0 <= rank < world_size:
        raise errors.ArgumentError(
            f"rank: {rank} is not in 0 to world_size - 1 = {world_size - 1}{says}"
        )
    if world_size > count:
        raise errors.ArgumentError(
            f"world_size: {world_size} workers cannot share {count} lane{'s' * (count > 1)}{says}; "
            f"open the stream with lanes={world_size} or more"
        )
    return list(range(rank, count, world_size))


def _checked_replica(stream: Stream, replica: int, replicas: int) -> tuple[int, int]:
    replicas = _whole("replicas", replicas, 1, _REPLICAS_MOST, "processes")
    replica = _whole("replica", replica, 0, _REPLICAS_MOST, "")
    if replica >= replicas:
        raise errors.ArgumentError(
            f"replica: {replica} is not in 0 to replicas - 1 = {replicas - 1}; replicas is how "
            "many see the same batches"
        )
    if replicas > 1 and not stream.persist:
        raise errors.ArgumentError(
            f"replicas={replicas}: with persist=False nothing of stream {stream.name!r} is shared: "
            "each loader is by itself"
        )
    return replica, replicas


def _leave_orphans(place: object, batches: list[Batch]) -> None:
    _orphans[:] = [orphan for orphan in _orphans if orphan[1]() is not None]
    _orphans.extend((place, weakref.ref(batch)) for batch in batches if not batch.released)


class _Turns:
    """One thread at a time. Those that iterate wait for their turn."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def take(self, wait: bool) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if self.is_forked():  # whoever had it is not here
            raise errors.ForkedError("the loader belongs to the parent process: open a client in this one")
        return wait and self._lock.acquire()

    def is_forked(self) -> bool:
        return os.getpid() != self._pid

    def __enter__(self) -> None:
        self.take(wait=True)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Loader(Closing):
    """Batches of this worker's lanes; made by `Stream.loader`. Iterable, and a context manager.

    Iterating yields batch *t* of each lane in lane order, then batch *t+1*; lanes that ended drop
    out. Going on to the next batch commits the last one, if it was not, or raises `UnsavedError`
    with the names of the states that were not saved. Leaving a loop commits nothing by itself. After
    a ``break`` the batch counts when the next loop of this loader goes on, or by `Batch.commit`,
    `state_dict`, `close` or the end of a ``with`` block that no exception left. After an exception,
    in a newer loader, and where not all of its states were saved, it comes again; with a warning
    if they were. (So it does after a ``break`` out of a generator around the loader, such as tqdm,
    for to that a ``break`` and an exception are the same.)

    A loader has one iterator at a time: beginning another makes the one before raise
    `StaleIterator`. Lanes are attached when the first batch is asked for. They are taken over from
    an older loader of this process that has them: what that has committed stands, and its next call
    raises `FencedError`. A lane that another process holds is waited for, up to 10 seconds (or
    `timeout`), with a warning after one; then that is `BusyError`. An iterator goes on from
    where the one before was left, also at the end: then there are no batches, and a warning. (With
    ``persist=False`` each begins at step 0.)

    A batch belongs to the thread that has taken it. Another thread may call `state_dict` or
    `load_state_dict` while no batch is open, as after `Batch.commit`: else, and while the loader is
    busy, they raise `BusyError` there and leave the loop alone. A thread that iterates waits until
    such a call of another has ended. What `state_dict` has returned can be saved in any thread.

    Attributes
    ----------
    lanes : list of int
        Indices of this worker's lanes.
    group : str or None
    replica, replicas : int
        Of `Stream.loader`.
    """

    def __init__(
        self,
        stream: Stream,
        lanes: Iterable[int] | None,
        rank: int | None,
        world_size: int | None,
        start: str | None,
        timeout: float | None,
        group: str | None = None,
        replica: int = 0,
        replicas: int = 1,
    ) -> None:
        if start not in _STARTS:
            raise errors.ArgumentError(f"start: {start!r} is none of None, 'continue', 'fresh'")
        self.stream = stream
        self.group = checked_group(group)
        self.replica, self.replicas = _checked_replica(stream, replica, replicas)
        self._place = (stream._place, group, replica)
        self.lanes = self._choose_lanes(lanes, rank, world_size)
        self._start = start
        self._timeout = timeout
        self._handles: list[_segue.Lane] = []  # attached lanes, in the order of self.lanes
        self._open: list[Batch] = []  # handed out and not yet gone on from
        if stream.persist and not replica:
            weakref.finalize(self, _leave_orphans, self._place, self._open).atexit = False
        # Saves that are still on their way.
        self._unfinished: list[tuple[Batch, Callable[[], object]]] = []
        self._taker: int | None = None  # the thread that has taken them
        self._turns = _Turns()
        self._turn = 0  # iterators that began at an earlier one are stale
        self._left: list[None] = []  # not empty: the last one was left, and not by an exception
        self._begun = False  # an iterator has taken batches of the attached lanes
        self._torn = False  # load_state_dict has set some lanes to their tokens, not all
        self._looks = False  # has lanes for a look, which `start` does not say to go on from
        self._made = where()
        self._new = True  # has not had its lanes yet, and takes them over
        self._lost = ""  # to whom its lanes went
        self._waited = 0  # nanoseconds of lanes that are closed
        self._skipped = 0  # records, of lanes that are closed since lanes were attached
        self._steps = self._steps_valid = 0  # of batches, of lanes that are closed
        self._skips_told = 0
        self._undelivered: dict[int, int] = {}  # by lane that has ended
        self._live: bool | None = None  # whether sequences are inserted; None: not asked yet
        self._told_waiting = False  # that no sequence is inserted
        # Least step of the state dicts handed out, by the first inserted sequence that they need.
        self._handed: dict[int, int] = {}
        self._told_waits = False  # that a replica, or another group, is waited for
        self._told_gone = False  # that some of them cannot be loaded any more
        self._closed = False

    def _choose_lanes(
        self, lanes: Iterable[int] | None, rank: int | None, world_size: int | None
    ) -> list[int]:
        return _own_lanes(self.stream.lanes, lanes, rank, world_size, self.replicas)

    def __repr__(self) -> str:
        of = f", replica {self.replica} of {self.replicas}" if self.replicas > 1 else ""
        closed = ", closed" if self._closed else ""
        return f"<segue.Loader: {self.stream.name!r}, lanes {self.lanes}{of}{closed}>"

    # -- iterating ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of this worker's lanes."""
        return _Batches(self)

    def __len__(self) -> int:
        """Return how many batches this loader's lanes have, from their first step to their end.

        Counted from the lengths in the index of the data, for the stream's batch size and all of its
        epochs, wherever the lanes are: after a resume fewer are left, and damaged records that are
        passed over may make them fewer. Nothing is attached, and no record read.

        Raises
        ------
        TypeError
            It is not known, as with every iterable without a length: lengths are found by reading
            alone (TFRecord files, until ``tail="pad"`` has had them all read; sequence files with
            ``on_error="skip"``); the input has no end (``epochs=None``, `Push`), or is too long to
            be counted; the lanes have another batch size, or move (``lanes="any"``); or no server
            tells.
        """
        try:
            if self.batch_size != self.stream.batch_size:
                raise errors.ArgumentError(
                    f"its lanes have a batch size of {self.batch_size}, set_batch_size was called"
                )
            report = self.stream._client._report(_segue.REPORT_BATCHES, self.stream.name)
        except errors.Error as error:
            raise TypeError(f"len() of a loader is not known: {error}") from error
        return sum(report["batches"][lane] for lane in self.lanes)

    def __bool__(self) -> bool:
        return True

    def rounds(self) -> Iterator[list[Batch]]:
        """Iterate over rounds: a list of batch *t* of each of this worker's lanes, in lane order.

        The whole round is committed, lane by lane, after the body; `state_dict` inside the body
        commits it first. A round that is left before all its states were saved is given up by the
        next iterator, and delivered again; so is all of a round of which a batch was released.

        Raises
        ------
        RoundError
            The lanes are at different steps; lists them.
        """
        return _Rounds(self)

    def epochs(self) -> Iterator[_Epoch]:
        """Iterate over epochs: an iterator over the batches of each, with its number as ``index``.

        An epoch that is left early is gone on with by the next iterator.

        Raises
        ------
        ArgumentError
            The stream was not opened with ``epoch_end="drain"``.
        """
        if self.stream.epoch_end != "drain":
            raise errors.ArgumentError(
                f"epochs(): stream {self.stream.name!r} lets epochs run into one another; open it "
                'with epoch_end="drain"'
            )
        return _Epochs(_Batches(self))

    # -- position ----------------------------------------------------------------------------------

    def state_dict(self, all_lanes: bool = False, timeout: float | None = 60.0) -> dict[str, bytes]:
        """Return tokens of the committed position and states: ``{"lane/<l>": bytes}``.

        Batches that are open are committed first. The tokens are on disk in the store, too, when
        this returns (see `Stream.checkpoints`), unless the stream has ``persist=False``. Before the
        first batch the position is the store's, and nothing is changed; `start` is still looked at
        when the first batch is asked for (with ``"fresh"`` a warning says that the store's position
        will then be dropped). `get_state` is the same.

        Where sequences are inserted, and given up later (`Push`), a warning says once that one that
        this loader has handed out before can no longer be loaded, and which is the oldest that can.

        Parameters
        ----------
        all_lanes : bool
            Of all lanes of the stream, at this worker's own step: waits for the other workers. A
            lane that has ended is at every later step, and its token is of its end. A worker whose
            lanes have all ended has the step of whoever is furthest. A lane that nobody holds is
            taken from the store, if it stands at that step; below it, it is waited for two
            seconds, in which its worker may come, and no longer. Other threads wait for the client
            meanwhile: lanes that they have would be waited for in vain, unless they have a client
            of their own.
        timeout : float, optional
            Seconds to wait for each of them; None waits for ever.

        Raises
        ------
        BusyError
            Another thread has an open batch, or uses the loader.
        StartError
            The last `load_state_dict` did not complete.
        UnsavedError
            A batch is open and not all of its states were saved; names them.
        RoundError
            With `all_lanes`, this worker's lanes are at different steps, and one that is behind
            has not ended; or a lane is behind that nobody holds.
        TimeoutError_
            A lane did not get there in time; names it and its step.
        LimitError
            A lane has gone too far; use `rounds`.
        """
        with self._alone("state_dict()"):
            self._check_whole()
            self._commit()
            looking = self._attach_to_look()
            try:
                return self._tokens(all_lanes, timeout)
            finally:
                if looking:
                    self._detach()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Around what must not come between a thread and the batch that it works on."""
        if not self._turns.take(wait=False):
            raise errors.BusyError(
                f"{what}: another thread uses the loader; call it in the thread that iterates"
            )
        try:
            self._check_taker(what)
            yield
        finally:
            self._turns._lock.release()

    def _check_taker(self, what: str) -> None:
        open_ = [batch for batch in self._open if not (batch.committed or batch.released)]
        if open_ and not self._may_settle():
            raise errors.BusyError(
                f"{what}: batch {open_[0].step} of lane {open_[0].lane} is open in another thread; "
                "call it in the thread that iterates, or when that has committed its batch"
            )

    def _may_settle(self) -> bool:
        """Whether what is open was taken by this thread, or by one that has ended."""
        taker = self._taker
        return taker == threading.get_ident() or all(
            thread.ident != taker for thread in threading.enumerate()
        )

    def _tokens(self, all_lanes: bool, timeout: float | None) -> dict[str, bytes]:
        steps = {lane.index: lane.committed for lane in self._handles}
        step = max(steps.values())
        behind = [lane for lane in self._handles if lane.committed < step]
        if all_lanes and behind and (self.replica or not self._have_ended(behind, timeout)):
            raise _apart("state_dict(all_lanes=True)", steps)
        tokens = {lane.index: lane.checkpoint() for lane in self._handles}
        if all_lanes:
            over = all(lane in self._undelivered for lane in self.lanes)
            try:
                tokens |= self._tokens_of_others(self._furthest() if over else step, timeout)
            except errors.LimitError:
                if over or self.replica or not self._have_ended(self._handles, timeout):
                    raise
                tokens |= self._tokens_of_others(self._furthest(), timeout)
        _, needs, first = zip(*tokens.values(), strict=True)
        self._hand_out(step, min(needs), max(first))
        return {f"lane/{lane}": tokens[lane][0] for lane in sorted(tokens)}

    def _hand_out(self, step: int, needs: int, first: int) -> None:
        """Say once that earlier state dicts need sequences of a log that are given up."""
        if self._told_gone:
            return
        self._handed[needs] = min(step, self._handed.get(needs, step))
        if min(self._handed) >= first:
            return
        self._told_gone = True
        oldest = min((at for need, at in self._handed.items() if need >= first), default=step)
        warn(
            f"state dicts of stream {self.stream.name!r} from before step {oldest} can no longer be "
            "loaded: sequences that they need were given up (retain_sequences, retain_bytes of "
            f"segue.Push). Of those that this loader has handed out the one of step {oldest} is the "
            "oldest that can be. Older ones stay good where more is retained, or with more "
            "keep_checkpoints"
        )

    def _tokens_of_others(
        self, step: int, timeout: float | None
    ) -> dict[int, tuple[bytes, int, int]]:
        others = sorted(set(range(self.stream.lanes)) - set(self.lanes))
        handle = self._handles[0]
        return {lane: handle.checkpoint_of(lane, step, timeout) for lane in others}

    @staticmethod
    def _have_ended(lanes: list[_segue.Lane], timeout: float | None) -> bool:
        """Whether none of these lanes, which have no open batch, has another one."""
        for lane in lanes:
            batch = lane.next(timeout)
            if batch is not None:
                batch.release()  # it comes again
                return False
        return True

    def _furthest(self) -> int:
        """Return the step of the lane of the stream that is furthest."""
        (stream,) = self.stream._client._report(_segue.REPORT_STATUS, self.stream.name)["streams"]
        return max(int(lane["step_committed"]) for lane in stream["lanes"])

    def load_state_dict(
        self, state_dict: Mapping[str, bytes] | Iterable[Mapping[str, bytes]]
    ) -> None:
        """Go to the position and states of tokens from `state_dict`.

        Before the first batch it takes the place of `start`; between batches it may be called at
        any time, and iterators that were begun raise `StaleIterator`.

        Parameters
        ----------
        state_dict : mapping, or iterable of mappings
            May hold more lanes than this worker's: those of other workers are passed over. Lanes
            may stand at different steps, as workers do that save their own; `rounds` then raises.

        Raises
        ------
        BusyError
            Another thread has an open batch, or uses the loader.
        TypeError
            It is neither a mapping nor an iterable of mappings.
        TokenError
            A lane is missing or has two tokens that differ, or a token does not fit the stream; the
            message says what differs.
            All lanes are then as before.

        A batch that is open can no longer be committed then, with a warning if it was saved. Arrays
        of batches stay readable.

        Notes
        -----
        The lanes are set one by one. If that is interrupted half-way (by Ctrl-C, by a server that
        cannot be started, by a full disk), iterating, `state_dict` and `flush` raise `StartError`
        until `load_state_dict` is called again and completes.

        Final states (``keep_final``) that came after the tokens' step are taken back, as far as the
        oldest checkpoint in the store; checkpoints of later steps leave the store. Where rows begin
        with them (``initial="kept"``), tokens are refused (`TokenError`) of which the store has no
        checkpoint any more, or that are of a future which it has gone back behind. `set_state` is
        the same.
        """
        with self._alone("load_state_dict()"):
            self._check_open()
            tokens = self._choose_tokens(_state_dicts(state_dict))
            if self._handles:
                self._restore(tokens)
            elif len(tokens) == 1 and not self.replica:
                self._attach("continue", tokens)
            else:
                self._attach_all(tokens)
            self._turn += 1
            self._begun = self._looks = False
            self._torn = False

    get_state = state_dict
    set_state = load_state_dict

    def _choose_tokens(self, dicts: list[Mapping[str, bytes]]) -> list[bytes]:
        """Return the tokens of this worker's lanes."""
        merged: dict[str, bytes] = {}
        for part in dicts:
            for lane in self.lanes:
                key = f"lane/{lane}"
                if key in merged and key in part and merged[key] != part[key]:
                    raise errors.TokenError(
                        f"two tokens for lane {lane} of stream {self.stream.name!r}, which differ: "
                        "the state dicts are not of one checkpoint"
                    )
            merged.update(part)
        missing = [lane for lane in self.lanes if f"lane/{lane}" not in merged]
        if missing:
            raise errors.TokenError(
                f"no token for lanes {missing} of stream {self.stream.name!r}; the state dict "
                f"holds {sorted(merged)}: give those of all workers, as a list"
            )
        tokens = [merged[f"lane/{lane}"] for lane in self.lanes]
        for lane, token in zip(self.lanes, tokens):
            if not isinstance(token, (bytes, bytearray, memoryview)):
                raise errors.TokenError(
                    f"the token of lane {lane} is {type(token).__name__}, not the bytes that "
                    "state_dict() made"
                )
        return [bytes(token) for token in tokens]  # of any shape, and in one piece

    def _restore(self, tokens: list[bytes]) -> None:
        for lane, token in zip(self._handles, tokens):
            lane.check(token)
        self._give_up_open()
        self._undelivered.clear()
        for i, (lane, token) in enumerate(zip(self._handles, tokens)):
            with self._moving(first=i == 0):
                lane.restore(token)

    @contextmanager
    def _moving(self, first: bool) -> Iterator[None]:
        """Around what sets one lane to a token. Until all are there the loader is torn."""
        torn, self._torn = self._torn, True
        try:
            yield
        except _UNMOVED:
            if first:
                self._torn = torn
            raise

    # -- batch size --------------------------------------------------------------------------------

    def set_batch_size(self, n: int) -> None:
        """Have the next batches of this loader's lanes hold `n` rows each.

        Sequences that have begun and do not fit wait, with their states, and come back first, the
        oldest first. With 0 all wait, and batches have no rows, until another size is set. Towards
        the end of the input batches get smaller as they do with any size (``tail="shrink"``).

        Batches that are open are committed first; iterators go on with the new size, also those of
        `rounds`, where it is to be called between two rounds, by each worker with the same `n`. The
        size belongs to the lanes: it is on disk when this returns, `state_dict` has it, and it stays
        until it is set again, also for later loaders. `load_state_dict` brings back the size that
        the lanes had at its step; ``start="fresh"`` that of the stream.

        Before the first batch the lanes are attached as `start` says.

        Parameters
        ----------
        n : int
            Rows, 0 or more. The size that the lanes have changes nothing.

        Raises
        ------
        ArgumentError
            `n` is negative, or makes batches, or checkpoints, that are too large; the stream was
            opened with ``tail="pad"`` or ``persist=False``; or its `Push` with too small a
            `capacity`, and the message says which it needs. No lane has changed then.
        BusyError
            Another thread has an open batch, or uses the loader.
        UnsavedError
            A batch is open and not all of its states were saved; names them.
        StartError
            As for the first batch; or the last `load_state_dict` did not complete.

        Notes
        -----
        The lanes are set one by one. If that is interrupted (by Ctrl-C, by a server that cannot be
        started, by a full disk), some may have the new size and some the old one: call it again.
        Arrays of batches before stay readable.
        """
        with self._alone("set_batch_size()"):
            self._check_whole()
            size = _whole("batch_size", n, -(2**63), 2**63 - 1, "rows")
            self._commit()
            self._attach_to_begin()
            for lane in self._handles:
                changes = lane.batch_size != size
                lane.set_batch_size(size)
                if changes:  # it may go on
                    self._undelivered.pop(lane.index, None)

    @property
    def batch_size(self) -> int:
        """Rows that the next batch of each lane is to have; of the stream before lanes are attached.

        Raises
        ------
        RoundError
            The lanes differ in it: their tokens did, or `set_batch_size` was interrupted.
        """
        sizes = {lane.index: lane.batch_size for lane in self._handles if not lane.closed}
        if len(set(sizes.values())) > 1:
            raise errors.RoundError(
                "batch_size of lanes that differ: "
                + ", ".join(f"lane {lane} has {size}" for lane, size in sorted(sizes.items()))
                + "; set_batch_size gives all the same"
            )
        return next(iter(sizes.values()), self.stream.batch_size)

    # -- durability --------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that this loader has committed is on disk.

        The server writes at once, not after the interval. Open batches are not committed by this.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits for ever. Ctrl-C interrupts.

        Raises
        ------
        NoSpaceError
            The disk is full; the commits stand, and `flush` may be called again.
        StoreError
            Storage has failed: nothing more is written.
        TimeoutError_
            Not in time; names the lane, and the step below which it is on disk.
        UnsavedError
            The server, or the lease, was lost while a batch is open: commit or release it first.
        StartError
            The last `load_state_dict` did not complete.
        ArgumentError
            The stream was opened with ``persist=False``: nothing of it is stored.
        """
        self._check_whole()
        until = None if timeout is None else time.monotonic() + timeout
        for lane in self._handles:
            lane.flush(None if until is None else max(until - time.monotonic(), 0.0))

    @property
    def durable_step(self) -> dict[int, int]:
        """By lane: batches below this step are on disk. Read from shared memory, no message.

        Lanes are in it from the first batch on; with ``persist=False`` it says where they began.
        """
        return {lane.index: lane.durable for lane in self._handles if not lane.closed}

    # -- lanes -------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError("the loader is closed")
        if self._lost:
            raise errors.FencedError(self._lost)

    def _check_whole(self) -> None:
        self._check_open()
        if self._torn:
            raise errors.StartError(
                "load_state_dict did not complete, lanes may be at different steps: call it again"
            )

    def _attach_all(self, tokens: list[bytes]) -> None:
        """Attach all lanes with tokens, or leave all as they are."""
        try:
            self._attach("continue")
        except errors.StoreError:  # there is nothing whole to go back to
            self._attach("continue", tokens)
            return
        try:
            self._restore(tokens)
        except BaseException:
            self._detach()
            raise

    def _attach(self, start: str | None, tokens: list[bytes] | None = None) -> None:
        if self._handles:
            return
        older = self._older() if self._new else []
        if self.replica:  # a place that they have
            _tell(self._take_from(older))
        elif start is None:
            self._check_unbegun(older)
        handles: list[_segue.Lane] = []
        try:
            for i, lane in enumerate(self.lanes):
                token = tokens[i] if tokens else None
                with self._moving(first=i == 0) if tokens else nullcontext():
                    handles.append(self._take_lane(lane, _STARTS[start], token))
        except BaseException:
            for handle in handles:
                handle.close()
            if handles:
                with suppress(Warning):  # why it was not attached is the better news
                    _tell(self._take_from(older))
            raise
        lost = self._take_from(older)
        with _attached_lock:
            _attached.add(self)
        self._new = False
        self._handles = handles
        self._undelivered.clear()
        self._skipped = self._skips_told = 0
        try:
            _tell(lost)
            if self._closed:  # by another thread, meanwhile
                self._check_open()
        except BaseException:  # a warning as an error: then this loader is not attached
            self._detach()
            raise

    def _take_lane(self, lane: int, start: int, token: bytes | None = None) -> _segue.Lane:
        """Attach a lane; say who is waited for."""
        patience = _PATIENCE if self._timeout is None else min(_PATIENCE, self._timeout)

        def attach(patience: float) -> _segue.Lane:
            return self.stream._handle.lane(
                lane, start, token, patience, self._new, self.group, self.replica, self.replicas
            )

        if self.replica:
            return self._follow(attach)
        begun = time.monotonic()
        try:
            return attach(min(_SILENCE, patience))
        except errors.BusyError as error:
            left = patience - _SILENCE
            if left <= 0 or time.monotonic() - begun < _SILENCE / 2:  # nothing to wait for
                raise
            warn(f"waiting {left:g} s more for a lane: {error}")
        return attach(left)

    def _follow(self, attach: Callable[[float], _segue.Lane]) -> _segue.Lane:
        """Attach a lane that replica 0 may not have yet; say after a while what is missing."""
        left = _REPLICA_PATIENCE if self._timeout is None else self._timeout
        if left <= _PATIENCE:
            return attach(left)
        try:
            return attach(_PATIENCE)
        except (errors.ReplicaError, errors.BusyError) as error:
            left -= _PATIENCE
            warn(f"waiting {left:g} s more: {error}")
        return attach(left)

    def _is_own(self, lane: int) -> bool:
        return lane in self.lanes

    def _older(self) -> list[Loader]:
        """Return the loaders of this process that have lanes of this one."""
        with _attached_lock:
            attached = list(_attached)
        return [
            loader
            for loader in attached
            if loader is not self
            and loader._handles
            and not loader._lost
            and loader._place == self._place
            and self.stream.persist
            and set(loader.lanes) & set(self.lanes)
        ]

    def _check_unbegun(self, older: list[Loader]) -> None:
        """Without a start nothing is taken over from a lane that has gone on."""
        for loader in older:
            for lane in loader._handles:
                if self._is_own(lane.index) and not lane.closed and lane.committed:
                    raise errors.StartError(
                        f"stream {self.stream.name!r}, lane {lane.index}: an older loader of this "
                        f"process ({loader._made}) has it, at step {lane.committed}. Say what is "
                        'meant: start="continue" goes on from there, start="fresh" drops position '
                        "and states, load_state_dict() goes back to a checkpoint"
                    )

    def _take_from(self, older: list[Loader]) -> list[tuple[int, int]]:
        """Have them lose their lanes; return what was saved there, and does not count."""
        saved = [one for loader in older for one in loader._lose(self)]
        return saved + self._take_orphans() if self._new else saved

    def _lose(self, newer: Loader) -> list[tuple[int, int]]:
        """Say at the next call that a newer loader has taken lanes of this one; give all back."""
        saved = self._saved_open()
        self._lost = newer._says_taken()
        self._unfinished.clear()
        for batch in self._open:
            batch._lose(self._lost)
        for lane in self._handles:
            lane.abandon()
        return saved

    def _says_taken(self) -> str:
        return (
            f"lanes of this loader of stream {self.stream.name!r} were taken over by a newer loader "
            f"of this process, made at {self._made}: go on with that one"
        )

    def _take_orphans(self) -> list[tuple[int, int]]:
        """Do the same with batches whose loader went before them."""
        saved = []
        for place, reference in _orphans[:]:
            batch = reference()
            if batch is not None and (place != self._place or not self._is_own(batch.lane)):
                continue
            _orphans.remove((place, reference))
            if batch is not None and not batch.committed and not batch.released:
                if batch.all_saved:
                    saved.append((batch.step, batch.lane))
                batch._lose(self._says_taken())
        return saved

    def _attach_to_begin(self) -> None:
        """Attach as `start` says.

        Before any lane is started afresh all are held, so that one that is busy leaves the others
        as they are.
        """
        if self._looks and self._start != "continue":
            self._detach()
        self._looks = False
        several = len(self.lanes) > 1 and self.stream.persist and not self.replica
        if self._start == "fresh" and several and not self._handles:
            try:
                self._attach("continue")
                self._start_afresh()
            except errors.StoreError:  # there is nothing whole to hold
                self._detach()
            except BaseException:
                self._detach()
                raise
        self._attach(self._start)

    def _start_afresh(self) -> None:
        try:
            for i, lane in enumerate(self._handles):
                lane.close()
                taken = self._take_lane(lane.index, _segue.START_FRESH)
                if self._closed:  # by another thread, meanwhile
                    taken.close()
                    self._check_open()
                self._handles[i] = taken
        except BaseException:
            self._detach()
            raise

    def _attach_to_look(self) -> bool:
        """Attach; True: for a look only, since `start` does not say to go on from there.

        `torch.distributed.checkpoint` asks for a state dict before it loads one, for the keys. Where
        others follow they look at the same time, so they stay attached until the first batch.
        """
        if self._handles:
            return False
        if self.replica:
            self._attach("continue")
            return False
        fresh = self._start == "fresh"
        try:
            self._attach(None if fresh else self._start)
        except errors.StartError:
            if fresh:
                warn(
                    f"state_dict() before the first batch of a loader with start=\"fresh\": stream "
                    f"{self.stream.name!r} already holds a position, and the tokens are of that "
                    "one, which the first batch will drop"
                )
            self._attach("continue")
            self._looks = self.replicas > 1
            return not self._looks
        if fresh:  # none has a position: nothing is lost by beginning now
            self._start_afresh()
        return False

    def _detach(self) -> None:
        self._open.clear()
        self._unfinished.clear()
        handles, self._handles = self._handles, []
        self._begun = self._looks = False
        unwritten: errors.Error | None = None
        for lane in handles:
            try:
                self._count_out(lane)
                lane.close()
            except (errors.ClosedError, errors.ForkedError):
                pass  # nothing here is ours to write
            except errors.Error as error:
                unwritten = unwritten or error
            except BaseException:  # Ctrl-C: the rest go without being waited for
                handles.clear()
                del lane  # which the traceback would keep, if its close has not begun
                raise
        if unwritten:
            try:
                raise unwritten
            finally:
                del unwritten  # its traceback has this frame

    def _count_out(self, lane: _segue.Lane) -> None:
        self._waited += lane.waited
        self._skipped += lane.skipped
        self._steps += lane.steps
        self._steps_valid += lane.steps_valid

    def _commit(self) -> None:
        """Commit the open batches lane by lane: all, or none if a state of one was not saved.

        None either if one of a round was released, and comes again: all of it does.
        """
        batches = self._open
        self._finish()
        if not batches:
            return
        if self.replica:  # which is done with them
            for lane in self._handles:
                lane.go_past()
            batches.clear()
            return
        if len(batches) > 1:
            if any(batch.released and not batch.committed for batch in batches):
                self._give_up_open()
                return
            for batch in batches:
                if not (batch.committed or batch.released or batch.all_saved):
                    batch.commit()  # raises, with the names of the states
        for batch in batches:
            if not (batch.committed or batch.released):
                batch.commit()
        batches.clear()

    def _finish(self) -> None:
        """Wait for states on their way from a device, and save them."""
        while self._unfinished:
            _, finish = self._unfinished[0]
            try:
                finish()
            except Exception:  # said once; after Ctrl-C it is still to be done
                self._unfinished.pop(0)
                raise
            self._unfinished.pop(0)

    def _go_on_from_open(self, left: bool) -> None:
        """Commit what an iterator before left open, or put it back where it may not be done.

        Without states nothing tells a batch that was used from one that zip() has dropped.
        """
        if self.replica:  # replica 0 says which
            for lane in self._handles:
                lane.leave_open()
            self._open.clear()
            return
        if (left and self.stream._has_states) and self._is_done():
            try:
                self._commit()
            except errors.FencedError:
                pass  # it comes again
        self._give_up_open()

    def _give_up_open(self) -> None:
        """Put back what an iterator before left open: it comes again."""
        saved = self._saved_open()
        for batch in self._open:
            if not batch.committed:
                batch.release()
        self._open.clear()
        self._unfinished.clear()
        _tell(saved)

    def _saved_open(self) -> list[tuple[int, int]]:
        """Return steps and lanes of what is open and saved; with ``persist=False`` nothing counts."""
        on_their_way = [batch for batch, _ in self._unfinished]
        return [
            (batch.step, batch.lane)
            for batch in (self._open if self.stream.persist else [])
            if not (batch.committed or batch.released)
            and (batch.all_saved or any(batch is other for other in on_their_way))
        ]

    # -- the rest ----------------------------------------------------------------------------------

    @property
    def waited(self) -> float:
        """Seconds that this loader has waited for batches, since it was made: exposed data wait.

        Of all its lanes together, a wait under way included. ``segue top`` shows it of each lane.
        """
        return (self._waited + self._counted("waited")) / 1e9

    @property
    def undelivered(self) -> int:
        """Segments that ``tail="stop"`` left out at the end of the lanes that have ended.

        0 again of lanes that another batch size is set of, until they end with that.
        """
        return sum(self._undelivered.values())

    @property
    def padding(self) -> float:
        """Share of padding, 0 to 1, in the batches that this loader has taken since it was made.

        Of all their steps, `Batch.batch_size` times the time dimension of their arrays, those that
        `Batch.mask` does not count. A batch that came again counts again. 0 before the first one.
        """
        steps = self._steps + self._counted("steps")
        valid = self._steps_valid + self._counted("steps_valid")
        return 1 - valid / steps if steps else 0.0

    @property
    def skipped(self) -> int:
        """Records of these lanes that were passed over, since they were attached.

        Those that are damaged by ``on_error="skip"``, those that are longer than `maximum_length`
        by ``on_too_long="skip"``. As far as the server has looked ahead; one that is met again, in
        the next epoch, counts again.
        """
        return self._skipped + self._counted("skipped")

    def _counted(self, what: str) -> int:
        """Return what the attached lanes have counted; another thread may be closing them."""
        total = 0
        for lane in self._handles:
            with suppress(errors.ClosedError):
                total += getattr(lane, what)
        return total

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Commit what is open, if all of it was saved, and give the leases back.

        Arrays stay readable.

        Raises
        ------
        NoSpaceError, StoreError, LimitError, GoneError, FencedError, TimeoutError_
            What was committed is not on disk, or a server that is stopped did not say so in time,
            and why. The loader is closed all the same; the server writes it when there is room, as
            long as it runs; not if the lane has gone to another holder.
        """
        self._close(commit=True)

    def _close(self, commit: bool) -> None:
        self._turn += 1
        saved: list[tuple[int, int]] = []
        try:
            if self._is_usable():
                if commit and self._may_settle() and self._is_done():
                    self._commit()
                saved = self._saved_open()
        finally:
            self._closed = True
            self._detach()
        _tell(saved)

    def _is_usable(self) -> bool:
        """Whether its batches are this process's, and still its own."""
        return not (self._closed or self._lost or self._turns.is_forked())

    def _is_done(self) -> bool:
        """Whether all that is open was saved."""
        self._finish()
        return all(
            batch.committed or (not batch.released and batch.all_saved) for batch in self._open
        )


def _tell(saved: list[tuple[int, int]]) -> None:
    """Say of batches that were saved, and put back since, that they do not count.

    To be called after the deed: a warning may be an error, which must leave nothing undone.
    """
    for step, lane in saved:
        warn_put_back(step, lane)


def _steps(steps: Mapping[int, int]) -> str:
    return ", ".join(f"lane {lane} at step {step}" for lane, step in sorted(steps.items()))


def _apart(what: str, steps: Mapping[int, int]) -> errors.RoundError:
    return errors.RoundError(
        f"{what} over lanes at different steps: {_steps(steps)}; load_state_dict takes them to one"
    )


def _too_few(loader: Loader, left_out: Mapping[int, int]) -> str:
    stream, segments = loader.stream, sum(left_out.values())
    return (
        f"the data of stream {stream.name!r} are too few for {stream.batch_size} rows in a lane, "
        f'and tail="stop" left out all: {segments} segment{"s" * (segments > 1)}. Give a smaller '
        'batch_size, fewer lanes, or tail="shrink"'
    )


def _open_producers(stream: Stream) -> tuple[str, str]:
    """Return which there are, in words, and why nobody inserts, if that is known."""
    try:
        found = stream._client._report(_segue.REPORT_STATUS, stream.name)["streams"]
    except errors.NotFoundError:  # a new server does not have it yet
        return "", ""
    # One that is being opened has none to show; one that was dropped may have the name, too.
    logs = [one["log"] for one in found if one["state"] == "open" and "log" in one]
    if not logs:
        return "", ""
    log = logs[0]
    names = [producer["name"] for producer in log["producers"] if producer["session"]]
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    there = f"Producers that are open: {', '.join(map(repr, names[:3]))}{more}"
    failure = log["input_failure"] or ""
    return there if names else "No process has a producer of it open", failure


def _passed_over(loader: Loader, skipped: int) -> str:
    return (
        f"{loader.stream._passes_over} of stream {loader.stream.name!r} has passed over {skipped} "
        f"record{'s' * (skipped > 1)} (one counts each time that it is met). A stream of another "
        "name without it says what is wrong with them"
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


class _Batches:
    """Iterates over a loader's lanes, always the one that is furthest behind.

    That is batch *t* of each lane in lane order, then *t+1*; and, since it depends on the committed
    steps alone, the same order after a restart between two lanes' commits.
    """

    def __init__(self, loader: Loader) -> None:
        loader._check_whole()
        self._loader = loader
        self._live: list[_segue.Lane] | None = None  # lanes that have not ended
        loader._turn += 1
        self._turn = loader._turn
        self._before, loader._left = loader._left, []
        self._leaving: tuple[int, object] = (0, None)  # id of a frame
        self._gave: set[int] = set()  # lanes of which there was a batch
        self._held: _segue.Lane | None = None  # whose places arrays take, since `_held_since`
        self._held_since = 0.0
        self._left_behind = False  # those of loops before
        self.present: Callable[[Batch], Any] = _as_it_is  # what the person is given for it

    def __iter__(self) -> Self:
        return self

    def settle(self) -> None:
        """Commit what was handed out; at the first call, make sure that there are lanes."""
        loader = self._loader
        if loader._torn or loader._lost:
            loader._check_whole()
        if loader._turn != self._turn:
            loader._check_open()
            raise errors.StaleIterator(
                "this iterator is no longer the loader's: load_state_dict or another iterator came "
                "after it; begin a new one"
            )
        if self._live is not None:
            loader._commit()
            return
        loader._go_on_from_open(bool(self._before))
        if loader._begun and not loader.stream.persist:
            loader._detach()
        loader._attach_to_begin()
        loader._begun = True
        self._live = list(loader._handles)
        for lane in self._live:
            lane.begin()

    def lanes(self) -> list[_segue.Lane]:
        """Lanes that have not ended, those with the least committed batches first."""
        live = self._live
        assert live is not None
        return (
            live if len(live) < 2 else sorted(live, key=lambda lane: (lane.committed, lane.index))
        )

    def _next_of_lane(self, lane: _segue.Lane, timeout: float | None) -> Batch | None:
        """`Lane.next`; says whom it waits for, and why no sequences are inserted."""
        loader = self._loader
        leads = loader.replicas > 1 and not loader.replica
        if loader._live is None:
            loader._live = loader.stream.records == _LIVE
        silence = _SILENCE if leads else _GROUP_SILENCE
        others = loader.replicas > 1 or (loader.stream.persist and not loader._live)
        tells = others and not loader._told_waits
        told = False
        if tells and (timeout is None or timeout > silence):
            try:  # for each batch: suppress() would take longer
                return lane.next(silence)
            except errors.TimeoutError_ as error:
                timeout = None if timeout is None else timeout - silence
                told = self._tell_waits(lane, error)
        if not loader._live or told:
            return lane.next(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        failure = ""
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if left is not None and left <= _INPUT_SILENCE:
                return lane.next(left)
            with suppress(errors.TimeoutError_):
                return lane.next(_INPUT_SILENCE)
            failure = self._ask_for_input(lane, failure)

    def _tell_waits(self, lane: _segue.Lane, error: errors.TimeoutError_) -> bool:
        """Say once whom the lane waits for, if it does. `error` is what it says itself."""
        loader = self._loader
        stream = loader.stream
        waits: list[str] | None = None
        with suppress(errors.NotFoundError):  # a new server does not have it yet
            report = stream._client._report(_segue.REPORT_STATUS, stream.name)
            place = lane.index, loader.group or "", loader.replica, loader.replicas
            waits = waited_for(report, *place, lane.committed)
        if waits:
            text = (
                f"lane {lane.index} of stream {stream.name!r}, at step {lane.committed}, waits for "
                f"{', and '.join(waits)}"
            )
        elif waits is None and loader.replica:
            text = str(error)
        else:
            return False
        loader._told_waits = True
        warn(text)
        return True

    def _ask_for_input(self, lane: _segue.Lane, before: str) -> str:
        """Return why nobody inserts, or raise it if nobody has gone on since `before` was returned.

        That nothing comes is said once.
        """
        stream = self._loader.stream
        there, failure = _open_producers(stream)
        if failure and failure == before:
            raise errors.SourceError(f"nobody inserts into stream {stream.name!r}: {failure}")
        if self._loader._told_waiting:
            return failure
        self._loader._told_waiting = True
        warn(
            f"lane {lane.index} of stream {stream.name!r} waits for sequences that are inserted: "
            "a batch comes when it is full, or when the input has ended. Does a producer insert, "
            f"or is end_input() to be called? (segue status {stream._client.dir}) {there}"
        )
        return failure

    def take(self, lane: _segue.Lane) -> Batch | None:
        """Return the lane's next batch, or None after striking the lane off."""
        loader = self._loader
        try:
            batch = self._next_of_lane(lane, loader._timeout)
        except errors.HeldError:
            if self._held is None:
                self._held_since = time.monotonic()
            self._held = lane
            raise
        except (errors.ClosedError, errors.FencedError):
            loader._check_open()  # another thread may have closed it, or taken it over
            raise
        if batch is None:
            self.strike(lane)
        else:
            self._gave.add(lane.index)
        return batch

    def strike(self, lane: _segue.Lane) -> None:
        """The lane has ended."""
        assert self._live is not None
        self._loader._undelivered[lane.index] = lane.undelivered
        self._live = [other for other in self._live if other is not lane]
        if not self._live:
            self._tell_the_end()

    def take_all(self, lanes: list[_segue.Lane]) -> list[Batch]:
        """Return the next batch of each of these lanes that has not ended."""
        taken: list[Batch] = []
        try:
            for lane in lanes:
                batch = self.take(lane)
                if batch is not None:
                    taken.append(batch)
        except BaseException:
            for batch in taken:
                batch.release()
            raise
        return taken

    def patiently(self, take: Callable[[], _T]) -> _T:
        """Do it when it is this thread's turn, and for a while again if arrays are in the way."""
        while True:
            with self._loader._turns:
                held = self._held
                try:
                    result = take()
                    self._held, self._left_behind = None, False
                    return result
                except errors.HeldError:
                    lane = self._held
                    assert lane is not None
                    if held is None:
                        gc.collect()
                    elif not (self._left_behind or self._loader.replica):
                        self._left_behind = True
                        lane.leave_behind()
                    elif time.monotonic() - self._held_since >= self._held_patience():
                        raise
            if self._left_behind:
                time.sleep(_HELD_LOOK)  # another thread may have its turn, and let go of some

    def _held_patience(self) -> float:
        timeout = self._loader._timeout
        return _HELD_PATIENCE if timeout is None else min(timeout, _HELD_PATIENCE)

    def _tell_the_end(self) -> None:
        """Say it where there never was a batch, or where records were passed over."""
        loader = self._loader
        skipped = loader.skipped
        text = ""
        left_out = {
            lane.index: loader._undelivered[lane.index]
            for lane in loader._handles
            if lane.committed == 0 and lane.index not in self._gave
        }
        if not self._gave:
            text = f"no batches: {self._why_nothing(loader, skipped)}"
        elif skipped > loader._skips_told:
            text = _passed_over(loader, skipped)
        elif any(left_out.values()):
            text = f"no batches of lanes {sorted(left_out)}: {_too_few(loader, left_out)}"
        loader._skips_told = skipped
        if text:
            warn(text)

    @staticmethod
    def _why_nothing(loader: Loader, skipped: int) -> str:
        stream = loader.stream
        steps = {lane.index: lane.committed for lane in loader._handles}
        if any(steps.values()):
            return (
                f"the lanes of this loader of stream {stream.name!r} had ended before "
                f"({_steps(steps)}). The stream passes `epochs` times over the data in all: open "
                'it with more, or with None, and a loader of start="continue" goes on; or begin '
                'again, with a new loader of start="fresh"'
            )
        if skipped:
            return _passed_over(loader, skipped)
        if loader.undelivered:
            return _too_few(loader, loader._undelivered)
        return (
            f"lanes {loader.lanes} of the {stream.lanes} of stream {stream.name!r} have no "
            f"record, for there are only {stream.records}: open it with fewer lanes"
        )

    def next_of(self, epoch: int | None) -> Batch:
        """Return the next batch, of one epoch if given; StopIteration if there is none."""
        self.settle()
        for lane in self.lanes():
            batch = self.take(lane)
            if batch is None:
                continue
            if epoch is None or not batch.batch_size or int(batch.epoch[0]) == epoch:
                self.hand_out(batch)
                return batch
            batch.release()  # kept until its epoch comes, it could outlive its lease
        raise StopIteration

    def hand_out(self, *batches: Batch) -> None:
        self._loader._open.extend(batches)
        self._loader._taker = threading.get_ident()

    def watch(self, frame: FrameType) -> None:
        """See in which way this frame, which takes a batch, leaves its loop."""
        if self._leaving[0] != id(frame):
            self._leaving = id(frame), _segue.leaving(self._loader._left, frame)

    def __next__(self) -> Batch:
        return self.next_for(sys._getframe(1))

    def next_for(self, frame: FrameType) -> Batch:
        """Return the next batch for the code that runs in this frame."""
        batch = self.patiently(self._next)
        self.watch(frame)
        return self.presented([batch])[0]

    def presented(self, batches: list[Batch]) -> list[Batch]:
        """Return what the person is given for them; all come again where that cannot be made."""
        try:
            return [self.present(batch) for batch in batches]
        except BaseException:
            for batch in batches:
                batch.release()
            raise

    def _next(self) -> Batch:
        return self.next_of(None)


class _Epoch:
    """Iterates over the batches of one epoch."""

    def __init__(self, batches: _Batches, index: int) -> None:
        self._batches = batches
        self.index = index

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Batch:
        batch = self._batches.patiently(lambda: self._batches.next_of(self.index))
        self._batches.watch(sys._getframe(1))
        return self._batches.presented([batch])[0]


class _Epochs:
    """Iterates over epochs. No generator: after an error it can be asked again."""

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches
        self._index = 0  # of the last; batches without rows are of no other

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Epoch:
        return self._batches.patiently(self._next)

    def _next(self) -> _Epoch:
        batches = self._batches
        batches.settle()
        taken = batches.take_all(batches.lanes())
        epochs = [int(batch.epoch[0]) for batch in taken if batch.batch_size]
        some = bool(taken)
        for batch in taken:
            batch.release()
        if not some:
            raise StopIteration
        self._index = min(epochs, default=self._index)
        return _Epoch(batches, self._index)


class _Rounds(_Batches):
    """Iterates over lists of one batch of each lane."""

    def __next__(self) -> list[Batch]:  # type: ignore[override]
        batches = self.patiently(self._next_round)
        self.watch(sys._getframe(1))
        return self.presented(batches)

    def _next_round(self) -> list[Batch]:
        self.settle()
        batches = self.take_all(sorted(self.lanes(), key=lambda lane: lane.index))
        if not batches:
            raise StopIteration
        steps = {batch.lane: batch.step for batch in batches}
        if len(set(steps.values())) > 1:
            for batch in batches:  # the traceback keeps them
                batch.release()
            raise _apart("rounds()", steps)
        self.hand_out(*batches)
        return batches

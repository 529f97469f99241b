"""Loaders whose lanes move: each worker takes any lane, and all of them share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

from . import _segue, errors, loader
from ._notice import warn
from .loader import Loader

if TYPE_CHECKING:
    from ._segue import Batch
    from .client import Stream

_ANY = 0xFFFFFFFF  # SEGUE_LANE_ANY
# Seconds: of one question for a lane, so that other threads have the client in between; for one
# that is free; until it is said that there is none.
_TURN, _AT_ONCE, _SILENCE = 0.5, 0.001, 10.0
_WAITED = 128  # lanes that can be waited for at once


class AnyLoader(Loader):
    """Batches of whichever lanes this worker has; made by ``Stream.loader(lanes="any")``.

    The workers share the lanes evenly, those that come and go included: a lane goes from one to
    another between two batches, and that of a worker that has died at once. Each `next` takes the
    lane, of those that this worker has, that has waited longest; it waits where it has none. What
    the batches of a lane hold does not depend on who takes them. Batches end when all lanes have
    ended.

    While any such worker has a lane, or waits for one, they are one job: `start` counts once for
    each lane, and who takes it later goes on from there. ``lanes`` are those of this moment.

    Attributes
    ----------
    lanes : list of int
        Indices of the lanes that this worker has now.
    """

    def __init__(
        self, stream: Stream, start: str | None, timeout: float | None, group: str | None
    ) -> None:
        if not stream.persist:
            raise errors.ArgumentError(
                f'lanes="any": stream {stream.name!r} has persist=False, and each loader reads all '
                "of its lanes; open it with persist=True"
            )
        super().__init__(stream, None, None, None, start, timeout, group)
        self._over = False  # all lanes have ended
        self._asked = False  # for a lane

    def _choose_lanes(
        self, lanes: Iterable[int] | None, rank: int | None, world_size: int | None
    ) -> list[int]:
        return []

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<segue.Loader: {self.stream.name!r}, any lanes, now {self.lanes}{closed}>"

    # -- iterating ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over batches of this worker's lanes."""
        return _AnyBatches(self)

    def __len__(self) -> NoReturn:
        """Raise `TypeError`: which batches a worker gets shows when it takes them."""
        raise TypeError("len() of a loader is not known with lanes that move")

    def rounds(self) -> NoReturn:
        """Refuse: a round is batch *t* of each lane, and lanes that move are at different steps."""
        raise self._unfit("rounds() is over lanes that stay")

    def epochs(self) -> NoReturn:
        """Refuse: an epoch ends in all lanes of a worker, and these come and go."""
        raise self._unfit("epochs() is over lanes that stay")

    def set_batch_size(self, n: int) -> NoReturn:
        """Refuse: a size is a lane's, and is to be set in all."""
        raise self._unfit(
            "set_batch_size() sets the lanes that a loader has: do it with a loader of all lanes, "
            "before"
        )

    def _unfit(self, why: str) -> errors.ArgumentError:
        return errors.ArgumentError(
            f'loader of stream {self.stream.name!r} with lanes="any": {why}; give lanes, or rank '
            "and world_size"
        )

    # -- position ----------------------------------------------------------------------------------

    def state_dict(self, all_lanes: bool = False, timeout: float | None = 60.0) -> dict[str, bytes]:
        """Return tokens as `Loader.state_dict` does, of the lanes that this worker has now.

        That may be none: before the first batch, and when others have them. A checkpoint of all
        lanes is put together from those of all workers, taken while no lane moves, as between two
        barriers; or all are at one step, and `all_lanes` does it.
        """
        if self._handles:
            return super().state_dict(all_lanes, timeout)
        self._check_whole()
        if all_lanes:
            raise errors.RoundError(
                f"state_dict(all_lanes=True): this worker has no lane of stream "
                f"{self.stream.name!r} now, and so no step of which the others could be"
            )
        return {}

    def load_state_dict(
        self, state_dict: Mapping[str, bytes] | Iterable[Mapping[str, bytes]]
    ) -> None:
        """Set all lanes of the stream to tokens, and give them back.

        One worker does it for all, while no other has a lane: before the others begin, or when they
        have closed their loaders; they begin with ``start="continue"``.

        Parameters
        ----------
        state_dict : mapping, or iterable of mappings
            As for `Loader.load_state_dict`, with a token of each lane of the stream.

        Raises
        ------
        BusyError
            Another worker has a lane.
        TokenError
            As for `Loader.load_state_dict`: this loader has its lanes still.
        """
        with self._alone("load_state_dict()"):
            self._check_open()
            dicts = loader._state_dicts(state_dict)
            every = range(self.stream.lanes)
            whole = Loader(self.stream, every, None, None, "continue", self._timeout, self.group)
            whole._choose_tokens(dicts)
            self._give_up_open()
            self._detach()
            try:
                whole.load_state_dict(dicts)
            except errors.BusyError as error:
                raise errors.BusyError(
                    'load_state_dict() of a loader with lanes="any" sets all lanes, for all '
                    "workers: one calls it while no other has a lane, and the others then begin "
                    f'with start="continue". {error}'
                ) from None
            finally:
                self._torn = whole._torn
                whole._close(commit=False)
            self._start = "continue"
            self._turn += 1
            self._begun = False

    get_state = state_dict
    set_state = load_state_dict

    # -- lanes -------------------------------------------------------------------------------------

    def _is_own(self, lane: int) -> bool:
        return True

    def _older(self) -> list[Loader]:
        with loader._attached_lock:
            attached = list(loader._attached)
        return [
            other
            for other in attached
            if other is not self
            and isinstance(other, AnyLoader)
            and other._handles
            and not other._lost
            and other._place == self._place
        ]

    def _attach(self, start: str | None, tokens: list[bytes] | None = None) -> None:
        """Begin, with no lane yet."""
        older = self._older() if self._new else []
        if start is None:
            self._check_unbegun(older)
        lost = self._take_from(older)
        with loader._attached_lock:
            loader._attached.add(self)
        self._new = self._over = False
        self._undelivered.clear()
        self._skipped = self._skips_told = 0
        loader._tell(lost)

    def _attach_to_begin(self) -> None:
        self._attach(self._start)

    def _take_one(self, timeout: float) -> bool:
        """Ask for a lane: whether there is one more."""
        newer, self._asked = not self._asked, True
        try:
            lane = self.stream._handle.lane(
                _ANY, loader._STARTS[self._start], None, timeout, newer, self.group, 0, 1
            )
        except errors.BusyError:
            return False
        except errors.EndedError:
            self._over = True
            return False
        lane.begin()
        self._handles.insert(0, lane)  # it has waited longest
        self._undelivered.pop(lane.index, None)
        self._name_lanes()
        return True

    def _take_share(self) -> None:
        """Take what is free of this worker's share."""
        while self._take_one(_AT_ONCE):
            pass

    def _give_back(self, lane: _segue.Lane) -> None:
        self._handles.remove(lane)
        self._name_lanes()
        self._count_out(lane)
        lane.close()

    def _name_lanes(self) -> None:
        self.lanes = sorted(lane.index for lane in self._handles)

    def _detach(self) -> None:
        super()._detach()
        self.lanes = []


class _AnyBatches(loader._Batches):
    """Iterates over the lanes that a loader has, the one that has waited longest first."""

    _loader: AnyLoader

    def next_of(self, epoch: int | None) -> Batch:
        """Return the next batch of any lane; StopIteration if there is none."""
        mine = self._loader
        self.settle()
        until = None if mine._timeout is None else time.monotonic() + mine._timeout
        while True:
            self._heed()
            if not mine._handles:
                self._await_lane(until)
                continue
            lane = self._await_batch(until)
            batch = self.take(lane) if lane else None
            if lane and batch is not None:
                mine._handles.remove(lane)
                mine._handles.append(lane)
                self.hand_out(batch)
                return batch

    def _heed(self) -> None:
        """Do what the server asks: give lanes back, take more."""
        mine = self._loader
        more = False
        for lane in list(mine._handles):
            asks = lane.asks
            if asks & _segue.ASKED_BACK:
                mine._give_back(lane)
            more = more or bool(asks & _segue.ASKED_MORE)
        if more:  # one: its batch is not to wait for the other lanes
            mine._take_one(_AT_ONCE)

    def _await_lane(self, until: float | None) -> None:
        """Have one; StopIteration if there is none any more."""
        mine = self._loader
        silent_until = time.monotonic() + _SILENCE
        while not mine._take_one(_TURN if until is None else min(_TURN, until - time.monotonic())):
            mine._check_open()
            if mine._over:
                self._tell_the_end()
                raise StopIteration
            now = time.monotonic()
            if until is not None and now >= until:
                raise errors.TimeoutError_(
                    f"no lane of stream {mine.stream.name!r} came free in time: others have all "
                    f"{mine.stream.lanes}; start fewer workers, or open it with more lanes"
                )
            if now >= silent_until:
                silent_until = float("inf")
                warn(
                    f"waiting for a lane of stream {mine.stream.name!r}: others have all "
                    f"{mine.stream.lanes}. It goes on when one of them ends or gives one back"
                )
        mine._take_share()

    def _await_batch(self, until: float | None) -> _segue.Lane | None:
        """Return a lane that has something; None if something is asked."""
        mine = self._loader
        if mine._live is None:
            mine._live = mine.stream.records == loader._LIVE
        failure = ""
        while True:
            left = _left(until)
            silence = loader._INPUT_SILENCE if mine._live else loader._GROUP_SILENCE
            silent = (mine._live or not mine._told_waits) and (left is None or left > silence)
            try:
                return self._wait(silence if silent else left)
            except (errors.ClosedError, errors.FencedError):
                mine._check_open()  # another thread may have closed it, or taken it over
                raise
            except errors.TimeoutError_ as error:
                if not silent:
                    raise
                late = error
            if mine._live:
                failure = self._ask_for_input(mine._handles[0], failure)
                continue
            self._tell_waits(mine._handles[0], late)

    def _wait(self, timeout: float | None) -> _segue.Lane | None:
        mine = self._loader
        wait = mine.stream._handle.wait
        if len(mine._handles) <= _WAITED:
            return wait(tuple(mine._handles), timeout)
        until = None if timeout is None else time.monotonic() + timeout
        while True:  # some at a time
            for first in range(0, len(mine._handles), _WAITED):
                some = tuple(mine._handles[first : first + _WAITED])
                try:
                    return wait(some, _AT_ONCE)
                except errors.TimeoutError_:
                    if until is not None and time.monotonic() >= until:
                        raise

    def strike(self, lane: _segue.Lane) -> None:
        """The lane has ended: it is given back."""
        self._loader._undelivered[lane.index] = lane.undelivered
        self._loader._give_back(lane)

    def _tell_the_end(self) -> None:
        mine = self._loader
        skipped = mine.skipped
        text = ""
        if skipped > mine._skips_told:
            text = loader._passed_over(mine, skipped)
        elif not self._gave:
            text = (
                f"no batches: all lanes of stream {mine.stream.name!r} had ended before. Other "
                "workers may have taken them; to go on, open it with more `epochs`, or begin "
                'again with start="fresh"'
            )
        mine._skips_told = skipped
        if text:
            warn(text)


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())

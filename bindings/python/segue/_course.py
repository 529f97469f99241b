"""Where the batches of `batch_sequences_with_states` are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import errors
from ._feed import Feed
from .loader import Loader
from .spec import _whole

if TYPE_CHECKING:
    from .client import Client
    from .compat import SequenceBatch

FIRST = -(2**63)  # the original's first insertion index
_WINDOW_MAX = 2**20  # sequences


def classes(
    boundaries: Any, window: Any, small: bool, batch_size: int, capacity: int | None
) -> dict[str, Any]:
    """Return the options of length classes. A window is no more than is there at once."""
    if boundaries and not small:
        raise errors.ArgumentError(
            "bucket_boundaries: batches get smaller wherever a length class runs out, and "
            "allow_small_batch=False wants full ones"
        )
    if window is not None:
        _whole("window", window, 1, _WINDOW_MAX)
    elif boundaries:
        window = min(16 * batch_size, capacity or _WINDOW_MAX, _WINDOW_MAX)
    if window and capacity and window > capacity:
        raise errors.ArgumentError(
            f"window: {window} is more than capacity, {capacity}: so many sequences are never there "
            "at once"
        )
    return {"bucket_boundaries": boundaries, "window": window}


class Course:
    """Which sequences have begun and go on: whether another batch can come, and who has left.

    With a window (`bucket_boundaries`) a batch can come while any goes on, else when as many are
    there that have not begun; without one when it can be full.
    """

    def __init__(self, live: list[int], begun: int, batch_size: int, window: int) -> None:
        self.batch_size = batch_size
        self._live = set(live)
        self._begun = begun
        self._step = -1  # of the last batch
        self._window = window

    @property
    def left(self) -> int:
        """Sequences that have left, in all."""
        return self._begun - len(self._live)

    def follow(self, batch: SequenceBatch, step: int) -> list[bytes]:
        """Note a batch, which may come again; return the keys of those that leave with it."""
        numbers = (batch.insertion_index - FIRST).tolist()
        if step > self._step:
            self._begun += int(np.count_nonzero(batch.sequence == 0))
        self._step = step
        self._live.update(numbers)
        keys = []
        for row in np.flatnonzero(batch.sequence + 1 == batch.sequence_count).tolist():
            self._live.remove(numbers[row])
            keys.append(batch.key[row].partition(b":")[2])
        return keys

    def can_go_on(self, inserted: int) -> bool:
        """Whether the next batch can come with so many sequences inserted in all."""
        fresh = inserted - self._begun
        if self._window:
            return bool(self._live) or fresh >= (self._window if self.batch_size else 1)
        return len(self._live) + fresh >= max(self.batch_size, 1)


def course_of(client: Client, loader: Loader, window: int) -> Course:
    """Return where the stream is, of which the store may have a position."""
    loader._attach_to_begin()
    loader.flush()  # so that the store is there, too
    (stream,) = client.inspect(loader.stream.name)["streams"]
    (lane,) = stream["lanes"]
    live = [row["number"] for row in lane["rows"]]
    return Course(live, lane["next"] - lane["waiting"], lane["batch_size"], window)


def watch(feed: Feed, course: Course) -> Callable[[], None]:
    """Return what raises why no more comes, when all batches have come that can be full."""

    def check() -> None:
        if feed.failed and not course.can_go_on(feed.inserted):
            feed.check()

    return check

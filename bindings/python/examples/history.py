"""What was trained on, and whether that was each segment exactly once an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from toy import Sequence as Written


class Row(NamedTuple):
    """One trained row: the segment `key` in `epoch`, in batch `step` of `lane`."""

    lane: int
    step: int
    epoch: int
    key: str


def segments(steps: int, num_unroll: int) -> int:
    return -(-steps // num_unroll)


def rounds_expected(data: Sequence[Written], num_unroll: int, batch_rows: int, epochs: int) -> int:
    """Rounds that all epochs take, the tail left out; `batch_rows` is of all lanes together."""
    total = epochs * sum(segments(written.steps, num_unroll) for written in data)
    return -(-total // batch_rows)


def _expected(data: Sequence[Written], num_unroll: int, epochs: int) -> Iterator[tuple[int, str]]:
    for epoch in range(epochs):
        for written in data:
            count = segments(written.steps, num_unroll)
            for k in range(count):
                yield epoch, f"{k:05d}_of_{count:05d}:{written.key}"


def _before(key: str) -> str | None:
    """Key of the segment before, if there is one."""
    place, _, record = key.partition(":")
    k, _, count = place.partition("_of_")
    return f"{int(k) - 1:05d}_of_{count}:{record}" if int(k) else None


def problems(
    rows: Iterable[Row],
    data: Sequence[Written],
    num_unroll: int,
    epochs: int,
    rounds: int,
    lanes: int,
    complete: bool,
) -> list[str]:
    """What is wrong with a training's history; empty if nothing is.

    Parameters
    ----------
    rows : what was trained on, in order; rows of rounds that were gone back on left out.
    data : what was written to the data set.
    rounds, lanes : batches of steps 0 to rounds - 1 must be there for every lane.
    complete : whether training went to the end of the last epoch. If not, segments may be missing,
        but only behind those that are there.
    """
    rows = list(rows)
    found = []
    seen = Counter((row.epoch, row.key) for row in rows)
    expected = set(_expected(data, num_unroll, epochs))
    twice = [segment for segment, times in seen.items() if times > 1]
    foreign = [segment for segment in seen if segment not in expected]
    missing = expected - seen.keys() if complete else set()
    for what, which in (("twice", twice), ("unasked", foreign), ("never", sorted(missing))):
        if which:
            epoch, key = which[0]
            found.append(f"{len(which)} segments trained {what}, as {key} in epoch {epoch}")
    place: dict[tuple[int, str], Row] = {}
    for row in rows:
        before = _before(row.key)
        earlier = place.get((row.epoch, before)) if before else None
        if before and (earlier is None or (earlier.lane, earlier.step) != (row.lane, row.step - 1)):
            found.append(f"{row.key} in epoch {row.epoch} does not follow on {before}: {row}")
            break
        place[row.epoch, row.key] = row
    outside = [row for row in rows if not (row.step < rounds and 0 <= row.lane < lanes)]
    if outside:
        found.append(f"rows beyond {rounds} rounds of {lanes} lanes: {outside[0]}")
    return found

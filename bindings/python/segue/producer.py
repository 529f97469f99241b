"""Producers: sequences inserted into a stream while it is read."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import _segue
from ._closing import of_one_process
from ._notice import warn
from .errors import ArgumentError, TimeoutError_
from .spec import _whole

if TYPE_CHECKING:
    from .client import Stream

_PATIENCE = 10.0  # seconds until it is said that nobody takes what is inserted


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence, as `Producer.insert` takes it.

    Parameters
    ----------
    sequences, context, key, length, initial_states
        As of `Producer.insert`.
    """

    sequences: Mapping[str, Any]
    context: Mapping[str, Any] | None = None
    key: str | bytes | None = None
    length: int | None = None
    initial_states: Mapping[str, Any] | None = None


def _warn_of_the_rest(name: str, handle: _segue.Producer) -> None:
    """Of a producer that nobody refers to any more, or at the end of the process."""
    inserted, acknowledged = handle.serials
    if inserted > acknowledged and not handle.closed:
        warn(
            f"producer {name!r} was neither flushed nor closed: of the sequences that it has "
            f"inserted {inserted - acknowledged} are not acknowledged, and may be lost. Use it in "
            "a `with` block, or call flush() when the last is inserted"
        )


class Producer:
    """Inserts sequences under a name; made by `Stream.producer`. A context manager.

    Each sequence of a name has a serial, from 1 on. What is not acknowledged is kept here, and sent
    again when the server was lost: nothing is inserted twice, and nothing is lost but with this
    process. The end of the ``with`` block closes the name; an exception in it leaves the name, and
    whoever opens it next goes on.

    Attributes
    ----------
    name : str

    Examples
    --------
    ::

        stream = client.stream("live", segue.Push(producers=2), features, ...)
        with stream.producer(f"actor-{index}") as producer:
            serial, cursor = producer.resume()
            for episode in play(from_=serial):
                producer.insert({"x": episode})
    """

    __reduce__ = of_one_process

    def __init__(
        self, stream: Stream, name: str, takeover: bool, ring_bytes: int | None
    ) -> None:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ArgumentError(f"name: {name!r} is not a name (non-empty, without NUL)")
        ring = 0 if ring_bytes is None else _whole("ring_bytes", ring_bytes, 1 << 16, 1 << 40)
        self.name = name
        self._dir = stream._client.dir
        self._told = False
        self._handle = _segue.producer(stream._handle, name, bool(takeover), ring, *stream._columns)
        self._warning = weakref.finalize(self, _warn_of_the_rest, name, self._handle)

    def __repr__(self) -> str:
        inserted, acknowledged = self._handle.serials
        closed = ", closed" if self.closed else ""
        return (
            f"<segue.Producer: {self.name!r}: {inserted} inserted, "
            f"{acknowledged} acknowledged{closed}>"
        )

    @property
    def closed(self) -> bool:
        """Whether it is closed, or left."""
        return self._handle.closed

    @property
    def inserted(self) -> int:
        """Serial of the last sequence that was inserted."""
        return self._handle.serials[0]

    @property
    def acknowledged(self) -> int:
        """Serial of the last one that is acknowledged, as far as is known here."""
        return self._handle.serials[1]

    def resume(self) -> tuple[int, bytes]:
        """Return where the name stood when it was opened: the last serial, and its cursor.

        Inserting goes on behind that: of a loop over numbered things, with those of a number above
        it.
        """
        return self._handle.resumed

    def insert(
        self,
        sequences: Mapping[str, Any] | Example,
        context: Mapping[str, Any] | None = None,
        key: str | bytes | None = None,
        length: int | None = None,
        initial_states: Mapping[str, Any] | None = None,
        *,
        cursor: bytes = b"",
        timeout: float | None = None,
        block: bool = True,
    ) -> None:
        """Insert a sequence. If it raises, nothing of this one was inserted.

        `KeyboardInterrupt` alone may come when it was: `inserted` says how many there are.

        It is on its way when this returns; `flush` waits until all are acknowledged.

        Parameters
        ----------
        sequences : mapping of str to array, or Example
            ``[steps, *shape]`` of each sequence feature, as of `FileWriter.write`.
        context : mapping of str to array, optional
            ``[*shape]`` of each context feature.
        key : str or bytes, optional
            The sequence's key, 1 to 4096 bytes; else ``"<name>:<serial>"``.
        length : int, optional
            Steps that count, if these are not all of the arrays.
        initial_states : mapping of str to array, optional
            Of each state with ``init="data"``.
        cursor : bytes
            The producer's own place, up to 4096 bytes: who opens the name next finds that of the
            last sequence.
        timeout : float, optional
            Seconds to wait for room; None waits for ever.
        block : bool
            False: as ``timeout=0``.

        Raises
        ------
        ArgumentError
            An array that is missing, not declared, or of another dtype or shape; a key, length or
            cursor that cannot be.
        TimeoutError_
            There is no room: says which lane is furthest behind, and who holds it.
        EndedError, FencedError
            The input has ended, or another has taken the name over. Also of what was inserted
            before and is not acknowledged.
        NoSpaceError
            The disk of the log is full. What was inserted before is sent again by the next call.
        """
        if isinstance(sequences, Example):
            example = sequences
        else:
            example = Example(sequences, context, key, length, initial_states)
        self._wait(
            lambda limit: self._handle.insert(
                example.sequences,
                example.context,
                example.initial_states,
                example.key,
                example.length,
                cursor,
                limit,
            ),
            timeout if block else 0.0,
        )

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was inserted is acknowledged: as safe as `durability` promises.

        Raises
        ------
        TimeoutError_, EndedError, FencedError, NoSpaceError
            As of `insert`.
        """
        self._wait(self._handle.flush, timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush, and close the name for good. Of no effect the second time."""
        if not self.closed:
            self._wait(self._handle.close, timeout)
            self._handle.leave()

    def _wait(self, call: Callable[[float | None], None], timeout: float | None) -> None:
        """Call with the timeout; say once that it takes long, for there may be no worker."""
        if self._told or (timeout is not None and timeout <= _PATIENCE):
            call(timeout)
            return
        begun = time.monotonic()
        try:
            call(_PATIENCE)
            return
        except TimeoutError_ as error:  # nothing was done that the next call does not do
            self._told = True
            reason = str(error)
        warn(
            f"producer {self.name!r} waits: {self.inserted - self.acknowledged} of the sequences "
            "that it has inserted are not accepted yet. The server accepts `capacity` for each "
            "lane, and more when its worker has committed some: does a worker read the stream? "
            f"(segue status {self._dir}) {reason}"
        )
        call(None if timeout is None else max(0.0, timeout - (time.monotonic() - begun)))

    def leave(self) -> None:
        """Free the name, for whoever goes on. What is not acknowledged may be inserted or not."""
        self._handle.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.leave()

"""What inserts the items of a data set into a stream while that is read."""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from . import _convert, _items, errors
from ._notice import Line

if TYPE_CHECKING:
    from .client import Client, Stream
    from .examples import Examples
    from .producer import Producer

_NAME = "examples"  # of the producer
_LOOK = 0.1  # seconds between two looks whether to end
_STANDING = 0.5  # seconds between two looks whether another process still inserts
_PATIENCE = 2.0  # seconds for the thread to end, and for the last sequences before an error
_CURSOR = 4096  # bytes
_END = object()


class Feed:
    """A thread that inserts items, with a client of its own.

    Of several processes that feed a stream one inserts; the others stand by, and go on if it ends.
    It knows nothing of the `Stream` that it is for, which ends it.

    Attributes
    ----------
    over : threading.Event
        Set: nothing more is inserted.
    inserted : int
        Sequences that are, in all.
    """

    def __init__(
        self,
        examples: Examples,
        connect: Callable[[], Client],
        stream: str,
        states: Mapping[str, Any] | None,
    ) -> None:
        self._examples = examples
        self._connect = connect
        self._stream = stream
        self._states = states
        self.over = threading.Event()
        self.inserted = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"segue {stream}", daemon=True)

    def begin(self) -> None:
        """Begin to insert, in the thread."""
        self._thread.start()

    def end(self) -> bool:
        """Insert nothing more. False: an item is still being made in the thread."""
        self.over.set()
        self._thread.join(_PATIENCE)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what has ended the feed, if anything has. Called while a batch is waited for."""
        if self._error:  # a copy: the traceback of who is told must not hang on what lives here
            raise copy.copy(self._error) from self._error.__cause__

    @property
    def failed(self) -> bool:
        """Whether anything has."""
        return self._error is not None

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._connect() as client, client.stream(self._stream, states=self._states) as to:
                producer = self._await_name(client, to)
                if producer:
                    self._feed(producer, to)
        except errors.EndedError:
            pass  # somebody has ended the input
        except BaseException as error:
            self._error = self._named(error)

    def _named(self, error: BaseException) -> errors.Error:
        if isinstance(error, errors.Error):
            return error
        named = errors.SourceError(
            f"segue.Examples of stream {self._stream!r}: {type(error).__name__}: {error}"
        )
        named.__cause__ = error
        return named

    def _await_name(self, client: Client, stream: Stream) -> Producer | None:
        """Return the producer, as soon as no other process has it; None: the input has ended."""
        while not self.over.is_set():
            try:
                producer = stream.producer(_NAME)
            except errors.BusyError:
                self.over.wait(_STANDING)
                continue
            producer._warning.detach()  # what is lost comes again when somebody goes on
            if not client.inspect(stream.name)["streams"][0]["log"]["ended"]:
                return producer
            break
        return None

    def _feed(self, producer: Producer, stream: Stream) -> None:
        try:
            if self._insert_all(producer, stream) and self._until_there_is_room(producer.flush):
                producer.close()
        except BaseException as error:
            with suppress(errors.Error):  # what went wrong is the better news
                producer.flush(_PATIENCE)
            self._leave_word(stream, error)
            raise
        finally:
            producer.leave()

    def _leave_word(self, stream: Stream, error: BaseException) -> None:
        """Tell those who wait for sequences why none come, unless others insert, or they know."""
        known = isinstance(error, (errors.EndedError, errors.FencedError, errors.GoneError))
        if not known and not self.over.is_set():
            reason = str(self._named(error)).encode("utf-8", "replace").decode()
            with suppress(errors.Error):
                stream._handle.fail_input(reason)

    def _insert_all(self, producer: Producer, stream: Stream) -> bool:
        """Insert what is not yet inserted. False: it was ended before the data set was."""
        sequences, context, states = ([row[0] for row in some] for some in stream._columns)
        number, cursor = producer.resume()
        self.inserted = number
        with closing(self._go_on(number, cursor)) as items:
            for item in items:
                if not self._examples._admit(number, self.over, lambda: self._keep(producer)):
                    return False
                found = self._examples._sequence(number, item, sequences, context, states)
                number += 1
                if not self._insert(producer, found, self._cursor(number), number - 1):
                    return False
                self.inserted = number
        if number == 0 and not self.over.is_set():
            raise errors.ArgumentError("source: it has no sequence")
        return not self.over.is_set()

    @staticmethod
    def _keep(producer: Producer) -> None:
        """Insert again what a server has not acknowledged that is gone, for it may be waited for."""
        with suppress(errors.TimeoutError_):
            producer.flush(_LOOK)

    def _insert(
        self, producer: Producer, found: tuple[Any, ...], cursor: bytes, number: int
    ) -> bool:
        sequences, context, states, key, length = found
        if key is None:
            key = f"{self._stream}:{number}"
        try:
            return self._until_there_is_room(
                lambda timeout: producer.insert(
                    sequences, context, key, length, states, cursor=cursor, timeout=timeout
                )
            )
        except errors.ArgumentError as error:
            raise _convert._fail_item(number, error) from error

    def _until_there_is_room(self, do: Callable[[float], None]) -> bool:
        """Try it until lanes take more. False: it was ended before."""
        while not self.over.is_set():
            with suppress(errors.TimeoutError_):
                do(_LOOK)
                return True
        return False

    # -- where it is -------------------------------------------------------------------------------

    def _cursor(self, number: int) -> bytes:
        """Return the place behind so many items."""
        items = self._examples.items
        place: dict[str, Any] = {"next": number}
        if _items.is_indexed(items):
            place["of"] = len(items)
        elif _has_state(items):
            place["state"] = items.state_dict()
            # Only what comes back as it was; else the items are passed over.
            if not _is_json(place) or len(json.dumps(place)) > _CURSOR:
                del place["state"]
        return json.dumps(place).encode()

    def _go_on(self, number: int, cursor: bytes) -> Generator[Any, None, None]:
        """Return the items behind those that were inserted before."""
        items = self._examples.items
        place = _place(cursor)
        if _items.is_indexed(items):
            count = place.get("of", len(items))
            if count != len(items):
                raise errors.ChangedError(
                    f"the data set has {len(items)} items, and had {count} when {number} of them "
                    f"were inserted into stream {self._stream!r}: give the same one, or begin a "
                    "new stream"
                )
            return _items.read(items, number, self._examples.workers, self.over)
        if number and _has_state(items) and "state" in place:
            items.load_state_dict(place["state"])
            return _items.read(items, number)
        found = _items.read(items)
        self._pass_over(found, number)
        return found

    def _pass_over(self, items: Generator[Any, None, None], count: int) -> None:
        tell = self._examples.progress
        if tell is True or (tell is None and sys.stderr is not None and sys.stderr.isatty()):
            tell = Line()
        for number in range(count):
            if self.over.is_set():
                return
            if next(items, _END) is _END:
                raise errors.ChangedError(
                    f"the iterable has {number} items, and {count} were inserted into stream "
                    f"{self._stream!r} before: give the same one, or begin a new stream"
                )
            if callable(tell):
                tell("pass over", number + 1, count)


def _has_state(items: Any) -> bool:
    return hasattr(items, "state_dict") and hasattr(items, "load_state_dict")


def _is_json(value: Any) -> bool:
    """Whether it comes back from JSON as it was."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _place(cursor: bytes) -> dict[str, Any]:
    try:
        place = json.loads(cursor)
    except ValueError:
        return {}
    return place if isinstance(place, dict) else {}

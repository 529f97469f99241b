"""Any data set of Python as the source of a stream."""

from __future__ import annotations

import fcntl
import glob
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Self

from . import _convert, _items, errors
from .spec import Feature, Files, Mix, Push, Source, State, _whole, path_bytes


class Examples:
    """Whatever gives sequences in Python: a data set, an iterable, a mapping of lists of arrays.

    By default it is converted to a sequence file (`convert`), which the stream then reads as
    `Files`: it can be shuffled, has any number of epochs, and none of its code runs while batches
    are read. With ``cache=False`` it is not: items are inserted while the stream is read.

    **Converted.** Without a `path` the file lies in ``<store>/examples``, under a name that is made
    of what it holds. It is made each time that the stream is opened with the data set, for nothing
    else tells whether that is still the same: if it is not, the stream is not opened
    (`ChangedError`). Who opens the stream by its name alone reads what was converted before.

    With a `path` it is made once. A file that is there is the data set, however old it is; of the
    items nothing is looked at but how many there are, if they have a length. Remove the file to
    have it made again.

    In either case a file is there when it is whole. Of several processes that open the stream at
    once one converts, and the others wait for it and take what it has made.

    **Inserted.** The stream is one of ``Push(producers=1)``: stored, not shuffled, of one pass, and
    its input ends with the last item. A thread inserts as far ahead as there is room. What was
    inserted is kept, and batches come again from there; a program that begins again goes on behind
    it: a map-style data set at its next number; an iterable by its own ``load_state_dict``, if what
    its ``state_dict`` has returned is JSON of less than 4 KiB; another from its beginning, past
    what was inserted. What an item raises, with its traceback, is raised in this process where a
    batch is waited for, as `SourceError` with the item's number; who begins again begins there. Of
    several processes that open the stream with items one inserts; another goes on when it has
    ended, or has failed: so an item that cannot be made fails in each of them. A loader of one
    that opens the stream by its name alone raises the same when it has waited for some twenty
    seconds, and nobody has gone on.

    **A part of a** `Mix`. Either way: what is converted is there as `Files`; without a `path` its
    file is called by the stream and the part. What is inserted is that part of the mix which can be
    (`Push`), with ``epochs=1``, and nothing is inserted any more when the other parts have ended.

    Parameters
    ----------
    items : iterable or mapping
        What `convert` takes: mappings of names to arrays, one a sequence, or `Example`; or a
        mapping of names to lists with an array for each sequence. What has a length and is indexed
        (a map-style data set) is asked for items 0, 1, and so on; else it is iterated over. Of what
        an item has the features of the stream are taken, and states with ``init="data"``.
    cache : bool
        Convert.
    path : path, optional
        Where the file lies.
    key : str or callable, optional
        Name of the value that is a sequence's key (text, bytes or a whole number), or
        ``key(number, item)``; else that of the `Example`, or ``"<stream>.segue:<number>"``, as a
        part of a mix ``"<stream>-<part>.segue:<number>"``, with `path` ``"<file name>:<number>"``,
        without a file ``"<stream>:<number>"``.
    workers : int
        Processes that make the items of a map-style data set, which must be picklable; 0: it is
        this one. The order is that of the numbers all the same. They are spawned: a program that
        does this has its code under ``if __name__ == "__main__":``.
    progress : callable or bool, optional
        As of `convert`; also ``progress("pass over", done, total)``.

    Raises
    ------
    ArgumentError
        What is no data set; `workers` for one that is not indexed; a `path` without `cache`.

    Examples
    --------
    ::

        stream = client.stream(
            "train", segue.Examples(dataset, workers=4),
            sequences={"x": segue.Feature("float32", 3)}, num_unroll=20, batch_size=32)
    """

    _kind: ClassVar[str] = "examples"

    def __init__(
        self,
        items: Any,
        cache: bool = True,
        *,
        path: str | os.PathLike[str] | None = None,
        key: str | Callable[[int, Any], str | bytes] | None = None,
        workers: int = 0,
        progress: _convert.Progress | bool | None = None,
    ) -> None:
        indexed = _items.is_indexed(items)
        if isinstance(items, (str, bytes, os.PathLike)) or not (
            indexed or isinstance(items, Iterable) or hasattr(items, "__getitem__")
        ):
            raise errors.ArgumentError(
                "Examples.items: expected a data set, an iterable, or a mapping of names to lists "
                f"of arrays, got {type(items).__name__}"
            )
        if key is not None and not isinstance(key, str) and not callable(key):
            raise errors.ArgumentError(f"Examples.key: {key!r} is neither a name nor callable")
        if path is not None and not cache:
            raise errors.ArgumentError(
                "Examples.path: without cache there is no file: leave it out"
            )
        self.items = items
        self.cache = bool(cache)
        self.path = None if path is None else os.path.abspath(os.fsdecode(path_bytes("path", path)))
        self.key = key
        self.workers = _whole("Examples.workers", workers, 0, 1024)
        self.progress = progress
        if self.workers and not indexed:
            raise errors.ArgumentError(
                "Examples.workers: items that are not asked for by number (len() and []) come in "
                "the order of one iterator: leave workers out"
            )

    def __repr__(self) -> str:
        return f"segue.Examples({type(self.items).__name__}, cache={self.cache})"

    def _count(self) -> int | None:
        """How many sequences there are, if that can be told."""
        if isinstance(self.items, Mapping) or not hasattr(self.items, "__len__"):
            return None
        return len(self.items)

    def _push(self) -> Push:
        """Return what it is inserted into."""
        return Push(producers=1)

    def _admit(
        self, number: int, over: threading.Event, idle: Callable[[], object]
    ) -> bool:
        """Wait until it may be inserted, calling `idle` now and then. False: `over` was set."""
        return True

    def _sequence(
        self, number: int, item: Any, sequences: list[str], context: list[str], states: list[str]
    ) -> tuple[Any, ...]:
        """Return what a sequence is inserted as: its values in three places, its key and length."""
        key, length = None, None
        if isinstance(item, Mapping):
            places = (item, item, item)
        elif hasattr(item, "sequences"):
            others = (getattr(item, name, None) or {} for name in ("context", "initial_states"))
            places = (item.sequences, *others)
            key, length = getattr(item, "key", None), getattr(item, "length", None)
        else:
            raise _convert._no_mapping(number, item)
        try:
            if self.key is not None:
                key = _convert._key_of(self.key, number, item)
            found = [
                {name: place[name] for name in names}
                for place, names in zip(places, (sequences, context, states), strict=True)
            ]
        except KeyError as error:
            have = list(dict.fromkeys(name for place in places for name in place))
            raise errors.ArgumentError(f"item {number}: {error} is missing; it has {have}") from error
        return (*found, key, length)

    def _converted(
        self,
        directory: str,
        stream: str,
        sequences: Mapping[str, Feature],
        context: Mapping[str, Feature],
        states: Mapping[str, State],
        made: list[str],
    ) -> Files:
        """Return the file of a stream of the store in `directory`, converted if need be.

        A file that was not there before, and has no path of its own, is added to `made`.
        """

        def convert(path: str) -> None:
            with closing(_items.read(self.items, workers=self.workers)) as items:
                _convert.convert(
                    _Counted(items, self._count() or 0),
                    path,
                    sequences=sequences,
                    context=context,
                    states={name: s for name, s in states.items() if isinstance(s.init, str)},
                    key=self.key,
                    force=True,
                    progress=self.progress,
                )

        if self.path is not None:
            self._convert_once(self.path, convert)
            return Files(glob.escape(self.path))
        return Files(glob.escape(_convert_anew(directory, stream, convert, made)))

    def _convert_once(self, path: str, convert: Callable[[str], None]) -> None:
        if not os.path.exists(path):  # what is there may lie where nothing can be made
            with _Turn(path) as turn:
                if not os.path.exists(path):
                    convert(path)
                    turn.leave(path)
        there, count = _foot(path)[0], self._count()
        if count is not None and count != there:
            raise errors.ChangedError(
                f"{path} has {there} sequences, and the data set {count} items: it is not what was "
                "converted. Give another path, or remove the file to have it converted again"
            )


def settle(
    source: Source | Examples,
    directory: str,
    stream: str,
    sequences: Mapping[str, Feature],
    context: Mapping[str, Feature],
    states: Mapping[str, State],
    made: list[str],
) -> tuple[Source, Examples | None]:
    """Return what a stream of the store in `directory` reads in the place of data sets.

    They are converted if need be, to files of which those that were not there before are added to
    `made`; the second value is the one that is to be inserted.
    """
    if isinstance(source, Examples):
        if source.workers:
            _items.check_begun()
        if not source.cache:
            return source._push(), source
        return source._converted(directory, stream, sequences, context, states, made), None
    if not isinstance(source, Mix):
        return source, None
    own = {name: p for name, p in source.parts.items() if isinstance(p.source, Examples)}
    if not own:
        return source, None
    _check_inserted(source)
    inserted = None
    settled = dict(source.parts)
    for name, part in own.items():
        try:
            file, found = settle(
                part.source, directory, f"{stream}-{name}", sequences, context, states, made
            )
        except errors.Error as error:
            raise type(error)(f"Mix.parts[{name!r}]: {error}") from error
        settled[name] = replace(part, source=file)
        inserted = inserted or found
    return Mix(settled), inserted


def _check_inserted(mix: Mix) -> None:
    """Say what the library would refuse, before hours of conversion."""
    seen = 0
    for name, part in mix.parts.items():
        if not isinstance(part.source, Push) and getattr(part.source, "cache", True):
            continue
        seen += 1
        if seen > 1 or part.epochs != 1:
            raise errors.ArgumentError(
                f"Mix.parts[{name!r}] is inserted: a mix has one such part, and one pass over it "
                "(epochs=1). segue.Examples without cache=False is converted, and any part can be "
                "that"
            )


def _convert_anew(
    directory: str, stream: str, convert: Callable[[str], None], made: list[str]
) -> str:
    """Convert to a file that is named by what it holds."""
    folder = os.path.join(os.path.abspath(directory), "examples")
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in stream)[:64]
    path = os.path.join(folder, f"{safe}.segue")
    with _Turn(path) as turn:
        if turn.left:
            return turn.left
        convert(path)
        named = os.path.join(folder, f"{safe}-{_foot(path)[1].hex()}.segue")
        if not os.path.exists(named):
            made.append(named)
        os.replace(path, named)
        turn.leave(named)
        return named


class _Counted:
    """Items that have a length, if it is known."""

    def __init__(self, items: Iterator[Any], count: int) -> None:
        self._items = items
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        return self._items

    def __len__(self) -> int:
        return self._count


def _foot(path: str) -> tuple[int, bytes]:
    """Return how many sequences a file has, and its fingerprint (``docs/format.md``)."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - 128, 0))
        foot = file.read(128)
    if len(foot) < 128 or not foot.startswith(b"SEGUEEND"):
        raise errors.DataError(
            f"{path} is no whole sequence file: is it something else, or being written? Give "
            "another path, or remove it"
        )
    return struct.unpack_from("<Q", foot, 16)[0], foot[48:64]


class _Turn:
    """One process after the other makes a file. Who has waited finds what was made meanwhile."""

    def __init__(self, path: str) -> None:
        folder, name = os.path.split(path)
        self._path = os.path.join(folder, f".{name}.lock")
        self._fd = -1
        self.left = ""

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise errors.SystemCallError(
                f"{self._path}: cannot be made or locked: {error.strerror}"
            ) from error
        self.left = os.fsdecode(os.pread(self._fd, 1 << 16, 0))
        return self

    def leave(self, made: str) -> None:
        """Tell those who wait what was made. Whoever comes from now on has not waited for it."""
        os.pwrite(self._fd, os.fsencode(made), 0)
        os.unlink(self._path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

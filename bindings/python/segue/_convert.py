"""Whatever gives sequences of arrays, written to a sequence file."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _segue, errors
from ._arrays import read
from .files import FileWriter
from .spec import Feature, State, _whole

Names = Iterable[str]
Progress = Callable[[str, int, int], object]
_OFTEN = 0.1  # seconds between two tellings of the progress


@dataclass(frozen=True, repr=False)
class Converted:
    """What `segue.convert` has written.

    Attributes
    ----------
    path : str
        The file; of shards the pattern that finds them.
    sequences, steps, bytes : int
        Steps of all sequences, bytes of the file.
    seconds : float
        From the first item that was asked for to the finished file.
    """

    path: str
    sequences: int
    steps: int
    bytes: int
    seconds: float

    def __repr__(self) -> str:
        return f"<segue.Converted: {self.path}: {_figures(self, self.seconds)}>"


def _short(number: float) -> str:
    """Three digits and the unit: 1.23 M."""
    for unit in ("", " k", " M", " G", " T"):
        if number < 999.5 or unit == " T":
            break
        number /= 1000
    return f"{number:.3g}{unit}" if number < 999.5 else f"{number:.0f}{unit}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _bytes(number: float) -> str:
    short = _short(number)
    return f"{short}B" if " " in short else f"{short} B"


def _figures(done: Any, seconds: float) -> str:
    rate = 1 / max(seconds, 1e-9)
    return (
        f"{_count(done.sequences, 'sequence')}, {_count(done.steps, 'step')}, {_bytes(done.bytes)} in "
        f"{seconds:.3g} s ({_short(done.steps * rate)} steps/s, {_bytes(done.bytes * rate)}/s)"
    )


class _Shards:
    """Writers of several files, by turns, for those who know one.

    Keys that are not given have the names that the files are to have.
    """

    def __init__(self, path: str, writers: list[FileWriter], names: list[bytes]) -> None:
        self.path = path
        self._handle = self
        self._writers = writers
        adders = [writer._handle.add for writer in writers]
        self._turns = itertools.cycle(zip(adders, names, strict=True))
        self._count = itertools.count()

    def add(
        self, sequences: Any, context: Any, states: Any, key: Any, length: Any, exact: bool
    ) -> None:
        """Add a sequence to the file whose turn it is."""
        add, name = next(self._turns)
        number = next(self._count) // len(self._writers)
        if key is None:
            key = b"%b:%d" % (name, number)
        add(sequences, context, states, key, length, exact)

    @property
    def written(self) -> tuple[int, int, int]:
        """Sequences, steps and bytes of all."""
        sequences, steps, size = zip(
            *(writer._handle.written for writer in self._writers), strict=True
        )
        return sum(sequences), sum(steps), sum(size)

    @property
    def sequences_written(self) -> int:
        """Sequences of all."""
        return self.written[0]


def _open_writers(
    stack: contextlib.ExitStack,
    path: Any,
    targets: list[Any],
    paths: list[Any],
    *arguments: Any,
    keep_partial: bool,
) -> FileWriter | _Shards:
    """Return a writer of one file, or of several by turns; the stack closes them.

    `paths` are written; they are, or take the places of, `targets`.
    """
    writers = [
        stack.enter_context(FileWriter(path, *arguments, keep_partial=keep_partial))
        for path in paths
    ]
    if paths == [path]:
        return writers[0]
    shown = os.fspath(path)
    if len(paths) > 1:
        stem, ending = os.path.splitext(os.fsdecode(path))
        shown = f"{stem}-*-of-{len(paths):05}{ending}"
    names = [os.path.basename(os.fsencode(target)) for target in targets]
    return _Shards(shown, writers, names)


# ---- Files in the place of others ----


def targets_of(path: Any, shards: int) -> list[Any]:
    """Return the files of that many shards; one is called as it is given."""
    if shards == 1:
        return [path]
    # Not bytes, which a name cannot be made of.
    stem, ending = os.path.splitext(os.fsdecode(path))
    return [f"{stem}-{number:05}-of-{shards:05}{ending}" for number in range(shards)]


_ASIDE = re.compile(r"\.(?P<name>.*)\.aside-[0-9a-f]{16}")


class _Aside:
    """Files that are written beside those whose place they take, all together, in the end."""

    def __init__(self, targets: list[Any]) -> None:
        self._targets = [os.fsdecode(target) for target in targets]
        self._directory = os.path.dirname(self._targets[0]) or "."
        self._locks: list[int] = []
        for target in self._targets:
            if os.path.isdir(target):
                raise errors.ArgumentError(f"{target} is a directory: give the file another name")
        self._remove_left()
        token = secrets.token_hex(8)
        self.paths = [
            os.path.join(self._directory, f".{os.path.basename(target)}.aside-{token}")
            for target in self._targets
        ]

    def _remove_left(self) -> None:
        """Remove what a run that was killed has left; who still writes has its files locked."""
        names = {os.path.basename(target) for target in self._targets}
        try:
            entries = os.listdir(self._directory)
        except OSError:
            return  # whoever makes a file there says what is wrong
        for entry in entries:
            match = _ASIDE.fullmatch(entry)
            path = os.path.join(self._directory, entry)
            if match and match["name"] in names and self._lock(path):
                os.unlink(path)
                warnings.warn(
                    f"{path}: removed: it was left by a conversion that was killed", stacklevel=6
                )
        self.leave()

    def _lock(self, path: str) -> bool:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._locks.append(fd)
        return True

    def begin(self) -> None:
        """Lock the files, which are there now, so that no other run takes them for left ones."""
        for path in self.paths:
            self._lock(path)

    def take_places(self) -> None:
        """Give the files, which are on disk, the names that they are for: one after the other."""
        pairs = list(zip(self.paths, self._targets, strict=True))
        while pairs:
            try:
                os.replace(*pairs[0])
                pairs.pop(0)
            except KeyboardInterrupt:
                self._finish(pairs)
                raise
            except OSError as error:
                new = len(self._targets) - len(pairs)
                raise errors.SystemCallError(
                    f"{pairs[0][1]} cannot be replaced: {error.strerror or error}; {new} of "
                    f"{len(self._targets)} files are new, the others as they were: convert again"
                ) from error
        self._sync()

    def _finish(self, pairs: list[tuple[str, str]]) -> None:
        """Half a set is worse than a key that was pressed in vain."""
        for one, target in pairs:
            with contextlib.suppress(FileNotFoundError):  # that one had been renamed
                os.replace(one, target)
        self._sync()

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def leave(self) -> None:
        """Give up the locks, and what was not renamed."""
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()
        for path in getattr(self, "paths", ()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class _Clock:
    """Tells now and then how far it is: a function, or a line on a terminal after a second."""

    def __init__(
        self,
        writer: FileWriter | _Shards,
        progress: Progress | bool | None,
        total: int,
        begun: float,
    ) -> None:
        self._writer = writer
        self._total = total
        self._told = self._begun = begun
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._function = progress if callable(progress) else None
        self._line = not self._function and (terminal if progress is None else bool(progress))
        self._shown = False

    def now(self) -> Converted:
        """Return what was written so far."""
        seconds = time.monotonic() - self._begun
        return Converted(self._writer.path, *self._writer._handle.written, seconds)

    def tell(self, last: bool = False) -> None:
        """Tell, if it is time to."""
        now = time.monotonic()
        if now - self._told < _OFTEN and not last:
            return
        self._told = now
        if self._function:
            self._function("convert", self._writer.sequences_written, self._total)
        if self._line and (now - self._begun >= 1):
            done = self.now()
            text = f"segue: {done.path}: {_figures(done, done.seconds)}"
            # What was longer before is written over.
            print(f"\r{text:<100}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            print(file=sys.stderr, flush=True)


# ---- What an item has ----


def _names(field: str, given: Mapping[str, Any] | Names | None) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise errors.ArgumentError(f"{field}: {given!r} is neither a mapping nor a list of names")
    return list(given)


def _feature(where: str, value: Any, steps: bool) -> Feature:
    """Return what a value is; `steps`: its first dimension is that of the steps."""
    if isinstance(value, (str, bytes)):
        raise errors.ArgumentError(
            f"{where} is text: declare it (context={{...: segue.Feature('bytes')}}), leave it out, "
            f"or name it as the key"
        )
    try:
        array = read(value)
    except Exception as error:
        raise errors.ArgumentError(
            f"{where}: {type(value).__name__} is not an array that NumPy can read: "
            f"{str(error).rstrip('.')}. Where steps have different numbers of values "
            f"declare segue.Feature(dtype, ragged=True)"
        ) from error
    if array.dtype.kind in "US":
        raise errors.ArgumentError(
            f"{where} is text: declare it ({where.partition('[')[0]}={{...: "
            f"segue.Feature('bytes')}}), or leave it out"
        )
    if array.dtype.name not in _segue.DTYPES:
        raise errors.ArgumentError(
            f"{where} has dtype {array.dtype}, which is none of {', '.join(_segue.DTYPES)}: convert "
            f"it, or leave it out"
        )
    if steps and array.ndim == 0:
        raise errors.ArgumentError(f"{where} is one value, where steps were expected")
    return Feature(array.dtype.name, array.shape[1:] if steps else array.shape)


def _is_single(value: Any) -> bool:
    """Whether it is one value; what NumPy cannot read is none."""
    try:
        return np.ndim(value) == 0
    except ValueError:
        return False


class _Fields:
    """The features and states of all items, as declared or as the first one has them."""

    def __init__(
        self,
        sequences: Mapping[str, Feature] | Names | None,
        context: Mapping[str, Feature] | Names | None,
        states: Mapping[str, State] | Names | None,
    ) -> None:
        self._given = {"sequences": sequences, "context": context, "states": states}
        self.sequences: dict[str, Any] = {}
        self.context: dict[str, Any] = {}
        self.states: dict[str, Any] = {}

    def _take(self, place: str, first: Mapping[str, Any], names: Names) -> None:
        """Set the features of a place, by those that were given or by the values."""
        given = self._given[place]
        fields: dict[str, Any] = getattr(self, place)
        for name in names:
            if isinstance(given, Mapping):
                fields[name] = given[name]
                continue
            if name not in first:
                have = ", ".join(map(repr, first))
                raise errors.ArgumentError(f"{place}: {name!r} is not in item 0, which has {have}")
            feature = _feature(f"{place}[{name!r}] of item 0", first[name], place == "sequences")
            fields[name] = (
                State(feature.dtype, feature.shape) if place == "states" else feature
            )

    def take_item(self, first: Mapping[str, Any], key: str | None) -> None:
        """Sort the values of a flat item into places.

        What was not named is a sequence feature if it has dimensions, else context.
        """
        if key is not None and key not in first:
            have = ", ".join(map(repr, first))
            raise errors.ArgumentError(
                f"item 0: {key!r} is missing, which is to be the key; it has {have}"
            )
        named = {
            name: place
            for place in ("sequences", "context", "states")
            for name in _names(place, self._given[place])
        }
        places: dict[str, list[str]] = {"sequences": [], "context": [], "states": []}
        for name, place in named.items():
            places[place].append(name)
        for name, value in first.items():
            if name in named or name == key:
                continue
            place = "context" if _is_single(value) else "sequences"
            if self._given[place] is None:
                places[place].append(name)
        for place, names in places.items():
            self._take(place, first, names)
        self._check_steps(first)

    def _check_steps(self, first: Mapping[str, Any]) -> None:
        """Say what to do where only some of the arrays can have a step for each first index."""
        if self._given["sequences"] is not None:
            return
        steps = {name: len(first[name]) for name in self.sequences}
        if len(set(steps.values())) > 1:
            lengths = ", ".join(f"{name!r} {count}" for name, count in steps.items())
            raise errors.ArgumentError(
                f"item 0: arrays of different first dimensions: {lengths}; name those that have "
                f"one value a sequence: context=[...]"
            )

    def take_example(self, first: Any) -> None:
        """Take places from an object that has them as attributes."""
        for place, attribute in (
            ("sequences", "sequences"),
            ("context", "context"),
            ("states", "initial_states"),
        ):
            given = self._given[place]
            values = getattr(first, attribute, None) or {}
            self._take(place, values, values if given is None else _names(place, given))

    def width(self) -> int | None:
        """Return how many values an item has, if none of them may be left out."""
        if self._given["sequences"] is not None or self._given["context"] is not None:
            return None
        return len(self.sequences) + len(self.context) + len(self.states)


# ---- Sources ----


def _bounds(lengths: Any, offsets: Any) -> np.ndarray:
    """Return where each sequence begins in the arrays, and where the last one ends."""
    field, given = ("lengths", lengths) if offsets is None else ("offsets", offsets)
    if lengths is not None and offsets is not None:
        raise errors.ArgumentError("lengths, offsets: give one of them")
    numbers = np.asarray(given)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise errors.ArgumentError(f"{field}: expected whole numbers in one dimension")
    if field == "lengths":
        bounds = np.concatenate([[0], np.cumsum(numbers, dtype=np.int64)])
    else:
        bounds = numbers.astype(np.int64)
        if len(bounds) < 2 or bounds[0] != 0:
            raise errors.ArgumentError(
                "offsets: expected where each sequence begins, from 0 on, and where the last ends"
            )
    short = np.flatnonzero(np.diff(bounds) < 1)
    if len(short):
        raise errors.ArgumentError(f"{field}: sequence {short[0]} has no steps")
    return bounds


def _cut(
    columns: dict[str, Any], bounds: np.ndarray, context: list[str]
) -> tuple[Iterator[dict[str, Any]], int]:
    """Return the items of arrays that hold all sequences one behind the other."""
    count, steps = len(bounds) - 1, int(bounds[-1])
    whole = []
    for name, column in columns.items():
        if isinstance(column, (list, tuple)):
            column = columns[name] = read(column)
        size = len(column)
        if size == count and (name in context or size != steps):
            context.append(name)
        elif size == steps and name not in context:
            whole.append(name)
        else:
            raise errors.ArgumentError(
                f"{name!r} has {size} values: expected {steps}, one a step, or {count}, one a "
                f"sequence"
            )
    each = [name for name in columns if name not in whole]

    def items() -> Iterator[dict[str, Any]]:
        edges = bounds.tolist()
        for number, (begin, end) in enumerate(itertools.pairwise(edges)):
            item = {name: columns[name][begin:end] for name in whole}
            for name in each:
                item[name] = columns[name][number]
            yield item

    return items(), count


def _rows(columns: dict[str, Any]) -> tuple[Iterator[dict[str, Any]], int]:
    """Return the items of lists that have an array a sequence."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise errors.ArgumentError(
            f"lists of different lengths: {lengths}; expected an array a sequence in each, or "
            f"arrays of all steps and lengths= or offsets="
        )
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return (dict(zip(names, row, strict=True)) for row in rows), min(counts.values(), default=0)


def _open_source(
    source: Any, lengths: Any, offsets: Any, context: list[str]
) -> tuple[Iterator[Any], int]:
    """Return the items, and how many there are (0: unknown); `context` gets what has no steps."""
    if isinstance(source, Mapping):
        columns = {name: source[name] for name in source}
        if lengths is None and offsets is None:
            return _rows(columns)
        return _cut(columns, _bounds(lengths, offsets), context)
    if lengths is not None or offsets is not None:
        raise errors.ArgumentError(
            "lengths, offsets: they are for a mapping of names to arrays of all steps"
        )
    try:
        items = iter(source)
    except TypeError:
        items = None
    if items is None or isinstance(source, (str, bytes, os.PathLike)):
        raise errors.ArgumentError(
            f"source: expected an iterable of mappings of arrays, or a mapping of names to "
            f"arrays, got {type(source).__name__}"
        )
    return items, len(source) if hasattr(source, "__len__") else 0


def _key_of(key: Any, number: int, item: Any) -> str | bytes | None:
    value = key(number, item) if callable(key) else item[key]
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value  # type: ignore[no-any-return]  # whatever it is: the writer looks


# ---- Writing ----


def _fail_item(number: int, error: errors.Error) -> errors.Error:
    again = type(error)(f"item {number}: {error}")
    again.code = error.code
    return again


def _no_mapping(number: int, item: Any) -> errors.ArgumentError:
    each = '"x": item[0], "y": item[1]' if isinstance(item, (tuple, list)) else '"x": item'
    return errors.ArgumentError(
        f"item {number}: expected a mapping of arrays, got {type(item).__name__}: have the data set "
        f"make a dict of each item, such as {{{each}}}"
    )


def _check_names(item: Any, fields: _Fields, key: Any) -> None:
    """Refuse values of an item that the first one did not have: they would be lost."""
    if not isinstance(item, Mapping):
        raise TypeError
    known = {*fields.sequences, *fields.context, *fields.states, key}
    others = [name for name in item if name not in known]
    if others:
        names = ", ".join(map(repr, others))
        raise errors.ArgumentError(f"{names} was not in item 0: name what is to be written")


def _write_items(
    clock: _Clock,
    writer: FileWriter | _Shards,
    items: Iterator[Any],
    fields: _Fields,
    key: Any,
) -> None:
    add = writer._handle.add
    width = fields.width()
    width = None if width is None else width + isinstance(key, str)
    name = None
    for number, item in enumerate(items):
        try:
            if key is not None:
                name = _key_of(key, number, item)
            if width is not None and len(item) != width:
                _check_names(item, fields, key)
            add(item, item, item, name, None, False)
        except errors.Error as error:
            raise _fail_item(number, error) from error
        except KeyError as error:
            have = list(item) if isinstance(item, Mapping) else []
            raise errors.ArgumentError(f"item {number}: {error} is missing; it has {have}") from error
        except (IndexError, TypeError) as error:
            if isinstance(item, Mapping):
                raise
            raise _no_mapping(number, item) from error
        clock.tell()


def _write_examples(
    clock: _Clock,
    writer: FileWriter | _Shards,
    items: Iterator[Any],
    fields: _Fields,
    key: Any,
) -> None:
    for number, item in enumerate(items):
        try:
            writer._handle.add(
                item.sequences,
                getattr(item, "context", None) or None,
                getattr(item, "initial_states", None) or None,
                getattr(item, "key", None) if key is None else _key_of(key, number, item),
                getattr(item, "length", None),
                fields.width() is not None,
            )
        except errors.Error as error:
            raise _fail_item(number, error) from error
        except AttributeError as error:
            raise errors.ArgumentError(
                f"item {number}: expected an example like item 0, got {type(item).__name__}"
            ) from error
        clock.tell()


def convert(
    source: Any,
    path: str | os.PathLike[str],
    *,
    sequences: Mapping[str, Feature] | Names | None = None,
    context: Mapping[str, Feature] | Names | None = None,
    states: Mapping[str, State] | Names | None = None,
    key: str | Callable[[int, Any], str | bytes] | None = None,
    lengths: Any = None,
    offsets: Any = None,
    shards: int = 1,
    force: bool = False,
    keep_partial: bool = False,
    progress: Progress | bool | None = None,
) -> Converted:
    """Write sequences from Python to a sequence file, which streams read fast.

    Parameters
    ----------
    source : iterable or mapping
        One of

        - an iterable of mappings of names to arrays, one a sequence: ``[steps, *shape]`` is a
          sequence feature, a single value (a number, an array without dimensions) is context;
        - an iterable of objects with attributes `sequences`, and if they like `context`, `key`,
          `length` and `initial_states`, as `FileWriter.write` takes them;
        - a mapping of names to lists, with an array for each sequence;
        - with `lengths` or `offsets`: a mapping of names to arrays of all sequences' steps, one
          behind the other, or of one value a sequence (context).
    path : path
        The file, which must not be there yet, but with `force`.
    sequences, context : mapping of str to Feature, or list of str, optional
        What is to be written, and as what. Names alone: dtype and shape are those of the first
        item. Not given: whatever of the kind the first item has; then all items must have it, and
        no more.
    states : mapping of str to State, or list of str, optional
        Which values are states of the first segment.
    key : str or callable, optional
        Name of the value that is a sequence's key (text, bytes or a whole number), or
        ``key(number, item)``; else keys are ``"<file name>:<number>"``.
    lengths, offsets : array_like of int, optional
        Steps of each of *n* sequences, or the *n* + 1 places where they begin and the last ends.
    shards : int
        Files to write, by turns, a sequence each: ``train.segue`` becomes
        ``train-00000-of-00004.segue`` and so on.
    force : bool
        Replace what is there, when all that is new is on disk: until then it is written beside it,
        under names that begin with a dot. If something fails all is as it was. Each file is the old
        one or the new one, whole, at any moment. Several are renamed one right after the other,
        which no file system does in one step: who opens them just then, or after a kill or a power
        cut just then, may find files of both; the same call once more puts that right. What a run
        that was killed has left beside them the next one removes, with a warning.
    keep_partial : bool
        Leave the file, unfinished, if an item cannot be written; else it is removed.
    progress : callable or bool, optional
        ``progress("convert", done, total)`` in sequences, about ten times a second; `total` is 0
        if unknown. True: a line on stderr after a second; by default, if that is a terminal.

    Returns
    -------
    Converted
        How many sequences, steps, bytes and seconds.

    Raises
    ------
    ArgumentError
        An item that does not fit: its number, the feature, what was expected and what came.
    NoSpaceError, SystemCallError
        The file is there already, or cannot be written.

    Examples
    --------
    ::

        segue.convert(({"x": read(file), "label": 3} for file in files), "train.segue")
        segue.convert({"x": table}, "train.segue", lengths=steps_of_each)
    """
    if key is not None and not isinstance(key, str) and not callable(key):
        raise errors.ArgumentError(f"key: {key!r} is neither a name nor callable")
    shards = _whole("shards", shards, 1, 99_999)
    if force and keep_partial:
        raise errors.ArgumentError("force, keep_partial: give one of them")
    without_steps = _names("context", context)
    items, total = _open_source(source, lengths, offsets, without_steps)
    begun = time.monotonic()
    first = next(items, None)
    if first is None:
        raise errors.ArgumentError("source: it has no sequence")
    named = context
    if context is None and without_steps:
        named = [name for name in without_steps if name not in (key, *_names("states", states))]
    fields = _Fields(sequences, named, states)
    example = not isinstance(first, Mapping) and hasattr(first, "sequences")
    if example:
        fields.take_example(first)
    elif isinstance(first, Mapping):
        fields.take_item(first, key if isinstance(key, str) else None)
    else:
        raise _no_mapping(0, first)
    write = _write_examples if example else _write_items
    targets = targets_of(path, shards)
    aside = _Aside(targets) if force else None
    try:
        with contextlib.ExitStack() as stack:
            writer = _open_writers(
                stack,
                path,
                targets,
                aside.paths if aside else targets,
                fields.sequences,
                fields.context,
                fields.states,
                keep_partial=keep_partial,
            )
            if aside:
                aside.begin()
            clock = _Clock(writer, progress, total, begun)
            try:
                write(clock, writer, itertools.chain([first], items), fields, key)
                clock.tell(last=True)
            finally:
                clock.end()
        if aside:
            aside.take_places()
    finally:
        if aside:
            aside.leave()
    return clock.now()

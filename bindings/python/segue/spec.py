"""What a stream is made of: features, states, sources, and the checks that give clear messages."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np

from . import _arrays, _segue
from .errors import ArgumentError
from .policy import Policy

T = TypeVar("T")


def _whole(field: str, value: Any, least: int, most: int, unit: str | None = None) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentError(f"{field}: {value!r} is not a whole number")
    number = int(value.__index__())
    if not least <= number <= most:
        words = f" {unit}" if unit else ""
        raise ArgumentError(f"{field}: {number} is not in {least} to {most}{words}")
    return number


def _milliseconds(field: str, value: Any, most: int) -> int:
    if not isinstance(value, (int, float)) or not 0 < value * 1000 <= most:
        raise ArgumentError(
            f"{field}: {value!r} is not a number of seconds above 0, up to {most // 1000}"
        )
    return max(1, math.ceil(value * 1000))


def _option(field: str, row: Mapping[str, Any], value: Any) -> Any:
    """The value of an option as the C extension takes it; `row` is that of ``_segue.OPTIONS``."""
    if row["kind"] == "flag":
        if isinstance(value, (str, bytes)):  # "no" would be true
            raise ArgumentError(f"{field}: {value!r} is neither True nor False")
        return bool(value)
    if row["kind"] == "text":
        return value
    if row["none"] and value is None:
        return 0
    if row["kind"] == "choice":
        if not isinstance(value, str) or value not in row["choices"]:
            allowed = ", ".join(map(repr, row["choices"]))
            raise ArgumentError(f"{field}: {value!r} is none of {allowed}")
        return row["choices"].index(value)
    if row["unit"] == "ms":
        return _milliseconds(field, value, row["most"])
    # Where 0 stands for none, Python has None.
    return _whole(field, value, row["least"] or int(row["none"]), row["most"], row["unit"])


def _options(
    rows: Mapping[str, Any], values: Mapping[str, Any], within: str = ""
) -> dict[str, Any]:
    """All of them; what C counts in milliseconds has its name in Python without "_ms"."""
    options = {}
    for name, row in rows.items():
        field = name.removesuffix("_ms") if row["unit"] == "ms" else name
        options[name] = _option(within + field, row, values[field])
    return options


def _boundaries(value: Any) -> list[int]:
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ArgumentError(
            f"bucket_boundaries: {value!r} are no lengths: give whole numbers, rising, or None"
        )
    return [_whole(f"bucket_boundaries[{i}]", each, 1, 2**63) for i, each in enumerate(value)]


def _dtype(field: str, value: Any) -> str:
    name = _arrays.dtype_name(value)
    if name not in _segue.DTYPES:
        allowed = ", ".join(_segue.DTYPES)
        raise ArgumentError(f"{field}: {value!r} is none of {allowed}")
    return name


def path_bytes(field: str, value: Any) -> bytes:
    """Return a path as the system has it; a NUL would cut it short there."""
    path = os.fsencode(value)
    if b"\0" in path:
        raise ArgumentError(f"{field}: {value!r} holds a NUL byte, which no path can")
    return path


def _shape(field: str, value: Any) -> tuple[int, ...]:
    dims = (value,) if hasattr(value, "__index__") else value
    if isinstance(dims, str) or not isinstance(dims, Iterable):
        raise ArgumentError(f"{field}: {value!r} is not a shape: give a number, or some")
    return tuple(_whole(field, dim, 1, 2**40) for dim in dims)


@dataclass(frozen=True)
class Feature:
    """A sequence feature (one value a step) or a context feature (one value a sequence).

    Parameters
    ----------
    dtype : str, numpy.dtype, or a dtype of PyTorch or JAX
        float16, bfloat16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32,
        uint64 or bool.
        Or ``"bytes"``: a string of bytes, each of its own length.
    shape : int or tuple of int
        Shape of one value; ``()`` is a scalar.
    ragged : bool
        Each step (of context: each sequence) has any number of scalars, and no shape.
    sparse : bool
        Values at some places of `shape`, as `Sparse`: of `batch_sequences_with_states` alone.

    Raises
    ------
    ArgumentError
        A dtype or shape that is not possible.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False
    sparse: bool = False

    def __init__(
        self, dtype: Any, shape: Any = (), ragged: bool = False, sparse: bool = False
    ) -> None:
        text = isinstance(dtype, str) and dtype == "bytes"
        object.__setattr__(self, "dtype", "bytes" if text else _dtype("Feature.dtype", dtype))
        object.__setattr__(self, "shape", _shape("Feature.shape", shape))
        object.__setattr__(self, "ragged", bool(ragged))
        object.__setattr__(self, "sparse", bool(sparse))
        if sparse and ragged:
            raise ArgumentError("Feature.sparse: it is ragged, too: leave out one of them")
        if self.shape and (text or ragged) and not sparse:
            raise ArgumentError(
                f"Feature.shape: {self.shape}, where any number of single values is expected: what "
                "is ragged, or bytes, has no shape"
            )
        if text and ragged:
            raise ArgumentError("Feature.ragged: bytes are of any length as they are")

    @property
    def _form(self) -> int:
        """Of ``enum segue_form``."""
        return 2 if self.dtype == "bytes" else int(self.ragged)


@dataclass(frozen=True, eq=False)
class State:
    """A state that is carried from segment to segment.

    Parameters
    ----------
    dtype : str, numpy.dtype, or a dtype of PyTorch or JAX
        float16, bfloat16, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32,
        uint64 or bool.
    shape : int or tuple of int
        Shape of one row's value.
    init : array_like, optional
        Value in the first segment of each sequence: a scalar or an array of `shape`. Zeros if not
        given. ``"data"``: each sequence has its own, in its file, or as it is
        inserted (of `Files`, `Push`, `Examples` and a `Mix` of these).
    policy : Policy, optional
        What a row is handed in a segment that is not the first, as `zero` says. None: what was
        committed for the segment before.
    row_axis : int
        Which dimension `Batch.states` has the rows in: 1 of a `shape` ``[layers, size]`` is
        ``[layers, rows, size]``. By `Batch.state` and in the store they are first.

    Raises
    ------
    ArgumentError
        A dtype or shape that is not possible, an `init` that does not fit them, or what is no
        policy.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    init: np.ndarray | Literal["data"] | None = None
    policy: Policy | None = None
    row_axis: int = 0

    def __init__(
        self,
        dtype: Any,
        shape: Any = (),
        init: Any = None,
        policy: Policy | None = None,
        row_axis: int = 0,
    ) -> None:
        object.__setattr__(self, "dtype", _dtype("State.dtype", dtype))
        object.__setattr__(self, "shape", _shape("State.shape", shape))
        axis = _whole("State.row_axis", row_axis, 0, len(self.shape))
        object.__setattr__(self, "row_axis", axis)
        if isinstance(init, str) and init != "data":
            raise ArgumentError(
                f"State.init: {init!r} does not fit {self.dtype}: it is neither a value nor 'data'"
            )
        given = init is not None and not isinstance(init, str)
        object.__setattr__(self, "init", self._fit(init) if given else init)
        if policy is not None and not isinstance(policy, Policy):
            raise ArgumentError(f"State.policy: {policy!r} is none: give segue.zero(p), or None")
        object.__setattr__(self, "policy", policy)

    @property
    def _policy(self) -> tuple[int, float] | tuple[()]:
        return (self.policy._code, self.policy._probability) if self.policy else ()

    def _fit(self, init: Any) -> np.ndarray:
        array = _arrays.read(init)
        if array.shape not in ((), self.shape):
            raise ArgumentError(
                f"State.init: expected a scalar or shape {self.shape}, got shape {array.shape}"
            )
        short = self.dtype == "bfloat16"
        if short and array.dtype == np.uint16 and not _arrays.is_bfloat16(array):
            raise ArgumentError(
                "State.init: uint16 may mean numbers, or the bits of bfloat16: give float32"
            )
        # NumPy has no rules for bfloat16, and those of ml_dtypes are not its rules for floats.
        wide = _arrays.widen(array)
        if not np.can_cast(wide.dtype, "float32" if short else self.dtype, casting="same_kind"):
            raise ArgumentError(f"State.init: {array.dtype} does not fit {self.dtype}")
        fitted = _arrays.narrow(array) if short else wide.astype(self.dtype)
        fitted = np.array(np.broadcast_to(fitted, self.shape, subok=True), subok=True)
        fitted.flags.writeable = False
        return fitted


# What an index of arrays consists of: arrays.py makes it, _segue.c reads it.
Index = tuple[bytes, bytes, bytes, bytes | None, bytes | None]
_Indexed = tuple[str | None, Index]  # and the part of a mix that has them


class Source:
    """What all sources have; `Files`, `TFRecord` and `Arrays` are such."""

    _kind: ClassVar[str]
    paths: tuple[str, ...]

    def _settle(
        self, directory: str, sequences: Mapping[str, Feature], context: Mapping[str, Feature]
    ) -> tuple[tuple[str, ...], Index | None]:
        """Return the paths, and an index of arrays, for a stream of the store in `directory`."""
        return self.paths, None

    def _told(
        self, directory: str, sequences: Mapping[str, Feature], context: Mapping[str, Feature]
    ) -> tuple[list[Any], list[_Indexed]]:
        """Return the paths, and all indexes of arrays, as the C extension takes them."""
        paths, index = self._settle(directory, sequences, context)
        return [os.fsencode(path) for path in paths], [] if index is None else [(None, index)]

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError


def _paths(field: str, paths: Any) -> tuple[str, ...]:
    items = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
    if not items:
        raise ArgumentError(f"{field}: no file given")
    return tuple(os.fsdecode(path_bytes(field, item)) for item in items)


@dataclass(frozen=True)
class Files(Source):
    """Sequence files, segue's own: what `FileWriter` and `convert` write (docs/format.md).

    A stream may declare some of a file's features; each as the file has it.

    Parameters
    ----------
    paths : str, os.PathLike, or a sequence of them
        Files or glob patterns, as of `TFRecord`.
    """

    _kind: ClassVar[str] = "files"
    paths: tuple[str, ...]

    def __init__(self, paths: Any) -> None:
        object.__setattr__(self, "paths", _paths("Files.paths", paths))

    def _options(self) -> dict[str, Any]:
        return _options(_segue.SOURCES["files"], {}, "Files.")


@dataclass(frozen=True)
class Push(Source):
    """What producers insert (`Stream.producer`), in the order in which it is accepted.

    It is kept on disk, so lanes go on from it as from files, and batches are the same as if all had
    been there from the start: a batch that cannot be full yet waits. Lanes end after
    `Stream.end_input`, or when the last of `producers` has closed. Such a stream is stored
    (``persist=True``), not shuffled, and of one epoch. It can be a part of a `Mix`.

    Parameters
    ----------
    capacity : int, optional
        Inserting waits when each lane has so many sequences that are not finished and committed;
        at least, and if not given, ``(depth + 2) * batch_size``, and with `bucket_boundaries` the
        `window` beyond that.
    producers : int, optional
        The input ends when so many producers have closed.
    retain_sequences, retain_bytes : int, optional
        All that is inserted is kept, unless one of these is given. Then what every lane has
        finished, and no stored checkpoint needs (`Loader.state_dict`, ``keep_checkpoints``), is
        given up, by whole files of up to 256 MiB: but never the newest `retain_sequences`, nor the
        newest `retain_bytes`. ``1`` retains nothing beyond what is needed.
    """

    _kind: ClassVar[str] = "log"
    paths: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]  # its files are the store's own
    capacity: int | None
    producers: int | None
    retain_sequences: int | None
    retain_bytes: int | None

    def __init__(
        self,
        capacity: int | None = None,
        producers: int | None = None,
        retain_sequences: int | None = None,
        retain_bytes: int | None = None,
    ) -> None:
        object.__setattr__(self, "capacity", capacity)
        object.__setattr__(self, "producers", producers)
        object.__setattr__(self, "retain_sequences", retain_sequences)
        object.__setattr__(self, "retain_bytes", retain_bytes)
        self._options()

    def _options(self) -> dict[str, Any]:
        values = {
            "capacity": self.capacity,
            "producers": self.producers,
            "retain_sequences": self.retain_sequences,
            "retain_bytes": self.retain_bytes,
        }
        return _options(_segue.SOURCES["log"], values, "Push.")


@dataclass(frozen=True)
class TFRecord(Source):
    """TFRecord files of ``tf.train.SequenceExample``, or of plain ``tf.train.Example``.

    Parameters
    ----------
    paths : str, os.PathLike, or a sequence of them
        Files or glob patterns, sorted by name; ``**`` as in ``glob(..., recursive=True)``.
        Relative ones to the working directory.
    compression : {"auto", "none", "gzip", "zlib"}
        ``"auto"`` looks at the first bytes of each file.
    key : str, optional
        Bytes context feature that is the record's key; else ``"<file>:<offset>"``.
    allow_surplus : bool
        Whether records may hold features that the stream does not name.
    record : {"sequence_example", "example"}
        The message that each record is; either way it is one sequence. In an ``"example"`` a
        sequence feature is one list with the values of all steps, ``steps * prod(shape)`` of them,
        and a context feature one of ``prod(shape)``; all sequence features have the same number
        of steps, at least one. As bytes it is one value, the array as it is in memory; declared as
        ``"bytes"``, one value a step. Only context can be ragged there.
    """

    _kind: ClassVar[str] = "tfrecord"
    paths: tuple[str, ...]
    compression: str | None = "auto"
    key: str | None = None
    allow_surplus: bool = False
    record: str = "sequence_example"

    def __init__(
        self,
        paths: Any,
        compression: str | None = "auto",
        key: str | None = None,
        allow_surplus: bool = False,
        record: str = "sequence_example",
    ) -> None:
        if key is not None and (not isinstance(key, str) or not key or "\0" in key):
            raise ArgumentError(f"TFRecord.key: {key!r} is not the name of a feature")
        object.__setattr__(self, "paths", _paths("TFRecord.paths", paths))
        object.__setattr__(self, "compression", compression)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "allow_surplus", bool(allow_surplus))
        object.__setattr__(self, "record", record)
        self._options()

    def _options(self) -> dict[str, Any]:
        values = {
            "compression": "none" if self.compression is None else self.compression,
            "key_feature": self.key,
            "allow_surplus": self.allow_surplus,
            "record": self.record,
        }
        return _options(_segue.SOURCES["tfrecord"], values, "TFRecord.")


@dataclass(frozen=True)
class Part:
    """What a `Mix` is made of.

    Parameters
    ----------
    source : Files, TFRecord, Arrays, Push or Examples
        Where its sequences come from; one part of a mix can be inserted (a `Push`, or `Examples`
        with ``cache=False``).
    weight : int or float
        Its share of the sequences, beside the other parts' weights.
    epochs : int, optional
        Passes over it, after which the mix ends. None: it begins again whenever it has ended.
        Over what is inserted there is one.
    """

    source: Any
    weight: float
    epochs: int | None = 1


@dataclass(frozen=True)
class Mix(Source):
    """Several sources, by weight: of each 1,024 sequences a part gives its share.

    Each part comes in its own order, shuffled by itself with ``shuffle=True``; what `Batch.part`
    counts are the parts in the order in which they are given here. The mix ends where a part would
    give more than its `epochs` have; one at least has an end. The stream's own `epochs` stay 1.
    ``docs/mix.md`` has the rules.

    With a part that is inserted (`Push`, or `Examples` with ``cache=False``) all of it waits for
    what is not there yet, and it ends with the input, which ends by itself with the last sequence
    that lies before the other parts' end. That part is not shuffled, and its `capacity` counts
    sequences of the whole mix.

    Parameters
    ----------
    parts : mapping of str to Part, or to (source, weight) or (source, weight, epochs)
        1 to 64 of them, with the features of the stream.

    Raises
    ------
    ArgumentError
        A part that cannot be; weights that are no positive numbers, or too far apart.

    Examples
    --------
    ::

        segue.Mix({
            "speech": (segue.Files("speech/*.segue"), 0.7),
            "music": segue.Part(segue.Files("music/*.segue"), 0.3, epochs=None),
        })
    """

    _kind: ClassVar[str] = "mix"
    paths: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]  # its parts have them
    parts: Mapping[str, Part]

    def __init__(self, parts: Mapping[str, Part | tuple[Any, ...]]) -> None:
        if not isinstance(parts, Mapping) or not parts:
            raise ArgumentError("Mix.parts: expected a mapping of names to (source, weight)")
        made = {name: _part(name, part) for name, part in parts.items()}
        object.__setattr__(self, "parts", made)
        self._weights()

    def _weights(self) -> list[int]:
        """Whole numbers in the ratio of the weights, which are taken as they are written."""
        ratios = [Fraction(repr(float(part.weight))) for part in self.parts.values()]
        common = math.lcm(*(ratio.denominator for ratio in ratios))
        whole = [int(ratio * common) for ratio in ratios]
        divisor = math.gcd(*whole)
        whole = [number // divisor for number in whole]
        if max(whole) >= 2**32:
            raise ArgumentError(
                f"Mix.parts: the weights {', '.join(str(p.weight) for p in self.parts.values())} "
                f"are in no ratio of whole numbers below 2**32: round them"
            )
        return whole

    def _options(self) -> dict[str, Any]:
        return {}

    def _told(
        self, directory: str, sequences: Mapping[str, Feature], context: Mapping[str, Feature]
    ) -> tuple[list[Any], list[_Indexed]]:
        """Return the parts in the place of paths, and which of them has which arrays."""
        listed: list[Any] = []
        indexes: list[_Indexed] = []
        for (name, part), weight in zip(self.parts.items(), self._weights(), strict=True):
            source = part.source
            try:
                paths, found = source._told(directory, sequences, context)
            except ArgumentError as error:
                raise ArgumentError(f"Mix.parts[{name!r}]: {error}") from error
            listed.append((name, weight, part.epochs or 0, source._kind, paths, source._options()))
            indexes += [(name, index) for _, index in found]
        return listed, indexes


_KINDS_OF_PARTS = ("files", "tfrecord", "arrays", "log", "examples")


def _part(name: Any, given: Any) -> Part:
    where = f"Mix.parts[{name!r}]"
    if not isinstance(name, str) or not name or ":" in name or "\0" in name:
        raise ArgumentError(f"{where}: {name!r} is not a name (non-empty, without ':' and NUL)")
    if isinstance(given, (tuple, list)) and 2 <= len(given) <= 3:
        given = Part(*given)
    if not isinstance(given, Part):
        raise ArgumentError(
            f"{where}: expected segue.Part, or (source, weight), got {type(given).__name__}"
        )
    if isinstance(given.source, Mix):
        raise ArgumentError(
            f"{where}: a part of a mix cannot be a mix itself: give the parts of that one, with "
            f"weights beside the others'"
        )
    if getattr(given.source, "_kind", None) not in _KINDS_OF_PARTS:
        raise ArgumentError(
            f"{where}: expected segue.Files, segue.TFRecord, segue.Arrays, segue.Push or "
            f"segue.Examples, got {type(given.source).__name__}; segue.Examples takes any iterable"
        )
    weight = given.weight
    if isinstance(weight, bool) or not hasattr(weight, "__float__"):
        raise ArgumentError(f"{where}: weight {weight!r} is no number")
    if not 0 < float(weight) < math.inf:
        raise ArgumentError(f"{where}: weight {weight!r} is not above 0")
    if given.epochs is not None:
        _whole(f"{where}: epochs", given.epochs, 1, 2**62)
    return given


def _named(
    field: str, things: Any, kind: type[Feature] | type[State]
) -> list[tuple[Any, ...]]:
    """Return (name, dtype code, shape, form, or the state's initial bytes or "data") of each.

    A state that has a policy has its code and its probability, too.
    """
    if not isinstance(things, Mapping):
        raise ArgumentError(f"{field}: expected a mapping of names to segue.{kind.__name__}")
    fields: list[tuple[Any, ...]] = []
    for name, thing in things.items():
        if not isinstance(name, str) or not name or ":" in name or "\0" in name:
            raise ArgumentError(f"{field}: {name!r} is not a name (non-empty, without ':' and NUL)")
        if not isinstance(thing, kind):
            raise ArgumentError(
                f"{field}[{name!r}]: expected segue.{kind.__name__}, got {type(thing).__name__}"
            )
        if isinstance(thing, Feature) and thing.sparse:
            raise ArgumentError(
                f"{field}[{name!r}]: sparse features are of segue.batch_sequences_with_states alone; "
                "here that is segue.Feature(dtype, ragged=True), or two of them"
            )
        code = _segue.DTYPES["uint8" if thing.dtype == "bytes" else thing.dtype]
        if isinstance(thing, Feature):
            fields.append((name, code, thing.shape, thing._form))
            continue
        init = thing.init
        initial = init.tobytes() if isinstance(init, np.ndarray) else init
        fields.append((name, code, thing.shape, initial, *thing._policy))
    return fields


class _Usual:
    """The usual value of an argument: tells that it was not given, and looks like the value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == other)

    __hash__ = None  # type: ignore[assignment]


def usual(value: T) -> T:
    """Return what stands for `value` as a default, by which is seen that it was not given."""
    return cast(T, _Usual(value))


_NEEDED = ("num_unroll", "batch_size")  # they have no usual value


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if not isinstance(value, _Usual) and not (name == "batch_size" and value is None)
    }


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or ":" in name or "\0" in name:
        raise ArgumentError(f"name: {name!r} is not a name (non-empty, without ':' and NUL)")


def _features(
    sequences: Mapping[str, Feature], context: Mapping[str, Feature] | None
) -> tuple[list[Any], list[Any]]:
    features = _named("sequences", sequences, Feature)
    if not features:
        raise ArgumentError("sequences: at least one sequence feature is needed")
    return features, _named("context", context or {}, Feature)


def stream_arguments(
    name: str,
    source: Any,
    sequences: Mapping[str, Feature],
    context: Mapping[str, Feature] | None,
    states: Mapping[str, State] | None,
    directory: str,
    options: Mapping[str, Any],
) -> tuple[Any, ...]:
    """Check the options of ``Client.stream`` and return them as the C extension takes them.

    The library checks them again, and what depends on several of them.
    """
    _check_name(name)
    if not isinstance(source, Source):
        raise ArgumentError(
            "source: expected segue.Files, segue.TFRecord, segue.Arrays, segue.Mix, segue.Push or "
            f"segue.Examples, got {type(source).__name__}; segue.Examples takes any iterable"
        )
    features, contexts = _features(sequences, context)
    listed, indexes = source._told(directory, sequences, context or {})
    for key in _NEEDED:
        if key not in _given(options):
            raise ArgumentError(f"{key}: it is needed where source is given")
    values = {
        key: value.value if isinstance(value, _Usual) else value for key, value in options.items()
    }
    return (
        name,
        source._kind,
        listed,
        indexes,
        source._options(),
        features,
        contexts,
        _named("states", states or {}, State),
        {
            **_options(_segue.OPTIONS, values),
            "bucket_boundaries": _boundaries(values["bucket_boundaries"]),
        },
        False,
    )


def stored_arguments(
    client: _segue.Client,
    name: str,
    sequences: Mapping[str, Feature] | None,
    context: Mapping[str, Feature] | None,
    states: Mapping[str, State] | None,
    options: Mapping[str, Any],
) -> tuple[Any, ...]:
    """Return the same for a stream that exists: what is not given is as it has it."""
    _check_name(name)
    wanted = _given(options)
    rows = {
        key: row
        for key, row in _segue.OPTIONS.items()
        if (key.removesuffix("_ms") if row["unit"] == "ms" else key) in wanted
    }
    asked = _options(rows, wanted)
    if "bucket_boundaries" in wanted:
        asked["bucket_boundaries"] = _boundaries(wanted["bucket_boundaries"])
    features = None if sequences is None else _features(sequences, context)[0]
    contexts = None if context is None else _named("context", context, Feature)
    own = None if states is None else _named("states", states, State)
    found, found_contexts, found_states, found_options = client.find(name)
    for state, _, _, init, *_ in found_states if own is None else []:
        if init is True:
            raise ArgumentError(
                f"states[{state!r}]: stream {name!r} was made with an initial value that is not "
                "zeros, of which the store has a hash alone: give all states, with init"
            )
    return (
        name,
        None,
        [],
        [],
        {},
        found if features is None else features,
        found_contexts if contexts is None else contexts,
        found_states if own is None else own,
        {**found_options, **asked},
        "epochs" not in wanted,
    )


def option_value(name: str, code: int) -> Any:
    """Return an option of a stream as Python has it; `code` is as the C extension has it."""
    row = _segue.OPTIONS[name]
    return row["choices"][code] if row["kind"] == "choice" else code

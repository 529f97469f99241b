"""What a stream is made of: features, states, sources, and the checks that give clear messages."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _segue
from .errors import ArgumentError

_COMPRESSIONS = {
    "auto": _segue.COMPRESSION_AUTO,
    None: _segue.COMPRESSION_NONE,
    "none": _segue.COMPRESSION_NONE,
    "gzip": _segue.COMPRESSION_GZIP,
}
_TAILS = {"shrink": _segue.TAIL_SHRINK, "stop": _segue.TAIL_STOP, "pad": _segue.TAIL_PAD}
_EPOCH_ENDS = {"continue": _segue.EPOCH_CONTINUE, "drain": _segue.EPOCH_DRAIN}
_ON_ERRORS = {"raise": _segue.ON_ERROR_RAISE, "skip": _segue.ON_ERROR_SKIP}
_DURABILITIES = {"interval": _segue.DURABLE_INTERVAL, "commit": _segue.DURABLE_COMMIT}

_UINT32_MAX = 2**32 - 1
_UINT64_MAX = 2**64 - 1


def _choice(field: str, value: Any, choices: Mapping[Any, int]) -> int:
    try:
        return choices[value]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(f"{field}: {value!r} is none of {allowed}") from None


def _whole(field: str, value: Any, least: int, most: int = _UINT32_MAX) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentError(f"{field}: {value!r} is not a whole number")
    number = int(value.__index__())
    if not least <= number <= most:
        raise ArgumentError(f"{field}: {number} is not in {least} to {most}")
    return number


def _milliseconds(field: str, value: Any, most: int) -> int:
    if not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ArgumentError(f"{field}: {value!r} is not a number of seconds above 0, up to {most}")
    return max(1, math.ceil(value * 1000))


def _dtype(field: str, value: Any) -> str:
    try:
        dtype = None if value is None else np.dtype(value)  # NumPy takes None for float64
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in _segue.DTYPES or not dtype.isnative:
        allowed = ", ".join(_segue.DTYPES)
        raise ArgumentError(f"{field}: {value!r} is none of {allowed}")
    return str(dtype.name)


def _shape(field: str, value: Any) -> tuple[int, ...]:
    dims = (value,) if hasattr(value, "__index__") else value
    if isinstance(dims, str) or not isinstance(dims, Iterable):
        raise ArgumentError(f"{field}: {value!r} is not a shape")
    return tuple(_whole(field, dim, 1, 2**40) for dim in dims)


@dataclass(frozen=True)
class Feature:
    """A sequence feature (one value a step) or a context feature (one value a sequence).

    Parameters
    ----------
    dtype : str or numpy.dtype
        float32, float64, int32, int64, uint8 or bool.
    shape : int or tuple of int
        Shape of one value; ``()`` is a scalar.

    Raises
    ------
    ArgumentError
        A dtype or shape that is not possible.
    """

    dtype: str
    shape: tuple[int, ...] = ()

    def __init__(self, dtype: Any, shape: Any = ()) -> None:
        object.__setattr__(self, "dtype", _dtype("Feature.dtype", dtype))
        object.__setattr__(self, "shape", _shape("Feature.shape", shape))


@dataclass(frozen=True, eq=False)
class State:
    """A state that is carried from segment to segment.

    Parameters
    ----------
    dtype : str or numpy.dtype
        float32, float64, int32, int64, uint8 or bool.
    shape : int or tuple of int
        Shape of one row's value.
    init : array_like, optional
        Value in the first segment of each sequence: a scalar or an array of `shape`. Zeros if not
        given.

    Raises
    ------
    ArgumentError
        A dtype or shape that is not possible, or an `init` that does not fit them.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    init: np.ndarray | None = None

    def __init__(self, dtype: Any, shape: Any = (), init: Any = None) -> None:
        object.__setattr__(self, "dtype", _dtype("State.dtype", dtype))
        object.__setattr__(self, "shape", _shape("State.shape", shape))
        object.__setattr__(self, "init", None if init is None else self._fit(init))

    def _fit(self, init: Any) -> np.ndarray:
        for method in ("detach", "cpu"):
            if hasattr(init, method):
                init = getattr(init, method)()
        array = np.asarray(init)
        if array.shape not in ((), self.shape):
            raise ArgumentError(
                f"State.init: expected a scalar or shape {self.shape}, got shape {array.shape}"
            )
        if not np.can_cast(array.dtype, self.dtype, casting="same_kind"):
            raise ArgumentError(f"State.init: {array.dtype} does not fit {self.dtype}")
        fitted = np.broadcast_to(array, self.shape).astype(self.dtype)
        fitted.flags.writeable = False
        return fitted


@dataclass(frozen=True)
class TFRecord:
    """TFRecord files of ``tf.train.SequenceExample``.

    Parameters
    ----------
    paths : str, os.PathLike, or a sequence of them
        Files or glob patterns, sorted by name; ``**`` as in ``glob(..., recursive=True)``.
        Relative ones to the working directory.
    compression : {"auto", "none", "gzip"}
        ``"auto"`` looks at the first bytes of each file.
    key : str, optional
        Bytes context feature that is the record's key; else ``"<file>:<offset>"``.
    allow_surplus : bool
        Whether records may hold features that the stream does not name.
    """

    paths: tuple[str, ...]
    compression: str | None = "auto"
    key: str | None = None
    allow_surplus: bool = False

    def __init__(
        self,
        paths: Any,
        compression: str | None = "auto",
        key: str | None = None,
        allow_surplus: bool = False,
    ) -> None:
        items = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else list(paths)
        if not items:
            raise ArgumentError("TFRecord.paths: no file given")
        _choice("TFRecord.compression", compression, _COMPRESSIONS)
        if key is not None and (not isinstance(key, str) or not key):
            raise ArgumentError(f"TFRecord.key: {key!r} is not the name of a feature")
        object.__setattr__(self, "paths", tuple(os.fsdecode(item) for item in items))
        object.__setattr__(self, "compression", compression)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "allow_surplus", bool(allow_surplus))


def _fields(
    field: str, things: Any, kind: type[Feature] | type[State]
) -> list[tuple[str, int, tuple[int, ...], bytes | None]]:
    """Return (name, dtype code, shape, initial bytes) of each."""
    if not isinstance(things, Mapping):
        raise ArgumentError(f"{field}: expected a mapping of names to segue.{kind.__name__}")
    fields = []
    for name, thing in things.items():
        if not isinstance(name, str) or not name or ":" in name:
            raise ArgumentError(f"{field}: {name!r} is not a name (non-empty, without ':')")
        if not isinstance(thing, kind):
            raise ArgumentError(
                f"{field}[{name!r}]: expected segue.{kind.__name__}, got {type(thing).__name__}"
            )
        init = getattr(thing, "init", None)
        fields.append(
            (
                name,
                _segue.DTYPES[thing.dtype],
                thing.shape,
                None if init is None else init.tobytes(),
            )
        )
    return fields


def stream_arguments(
    name: str,
    source: Any,
    sequences: Mapping[str, Feature],
    context: Mapping[str, Feature] | None,
    states: Mapping[str, State] | None,
    num_unroll: int,
    batch_size: int,
    lanes: int,
    shuffle: bool,
    seed: int,
    epochs: int | None,
    pad: bool,
    tail: str,
    epoch_end: str,
    on_error: str,
    keep_final: bool,
    persist: bool,
    depth: int,
    num_threads: int,
    durability: str,
    interval: float,
    lease_timeout: float | None,
    keep_checkpoints: int,
) -> tuple[Any, ...]:
    """Check the options of ``Client.stream`` and return them as the C extension takes them.

    The library checks them again, and what depends on several of them.
    """
    if not isinstance(name, str) or not name or ":" in name or "\0" in name:
        raise ArgumentError(f"name: {name!r} is not a name (non-empty, without ':')")
    if not isinstance(source, TFRecord):
        raise ArgumentError(f"source: expected segue.TFRecord, got {type(source).__name__}")
    features = _fields("sequences", sequences, Feature)
    if not features:
        raise ArgumentError("sequences: at least one sequence feature is needed")
    return (
        name,
        [os.fsencode(path) for path in source.paths],
        _COMPRESSIONS[source.compression],
        source.key,
        source.allow_surplus,
        features,
        _fields("context", context or {}, Feature),
        _fields("states", states or {}, State),
        _whole("num_unroll", num_unroll, 1),
        _whole("batch_size", batch_size, 1),
        _whole("lanes", lanes, 1),
        bool(shuffle),
        _whole("seed", seed, 0, _UINT64_MAX),
        0 if epochs is None else _whole("epochs", epochs, 1, _UINT64_MAX),
        not pad,
        _choice("tail", tail, _TAILS),
        _choice("epoch_end", epoch_end, _EPOCH_ENDS),
        _choice("on_error", on_error, _ON_ERRORS),
        bool(keep_final),
        not persist,
        _whole("depth", depth, 2),
        _whole("num_threads", num_threads, 1),
        _choice("durability", durability, _DURABILITIES),
        _milliseconds("interval", interval, 3600),
        0 if lease_timeout is None else _milliseconds("lease_timeout", lease_timeout, 86400),
        _whole("keep_checkpoints", keep_checkpoints, 1),
    )

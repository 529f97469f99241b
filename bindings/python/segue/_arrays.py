"""Arrays on their way in and out: bfloat16, which NumPy lacks; values to be saved, or why not.

bfloat16 is ``ml_dtypes.bfloat16`` where that package is installed, else the bits as ``uint16``.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import errors


@functools.cache
def bfloat16() -> np.dtype[Any]:
    """Return the dtype of arrays of bfloat16."""
    try:
        kind: Any = importlib.import_module("ml_dtypes").bfloat16
    except ImportError:
        kind = np.uint16
    dtype: np.dtype[Any] = np.dtype(kind)
    return dtype


class BFloat16(np.ndarray[Any, Any]):
    """An array of `bfloat16()` that DLPack gives out as bfloat16; NumPy alone refuses to.

    Where they are bits, views and copies are of this class too, what is computed is not.
    """

    def __dlpack__(self, **options: Any) -> Any:
        from . import _segue  # which imports this module

        if self.dtype != bfloat16():
            return super().__dlpack__(**options)
        bits = self.view(np.ndarray).view(np.uint16)
        return _segue.relabel(bits.__dlpack__(**options), True)

    def widen(self) -> np.ndarray:
        """Return it as float32, which holds all of it exactly."""
        return widen(self)

    def __array_wrap__(
        self, array: np.ndarray, context: Any = None, return_scalar: bool = False
    ) -> Any:
        return array[()] if return_scalar else array

    def __reduce__(self) -> Any:  # who reads it may not have segue
        return np.asarray(self).__reduce__()


class _Bits:
    """Gives a tensor of bfloat16 as one of uint16, which NumPy takes."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        from . import _segue

        return _segue.relabel(self.tensor.__dlpack__(**options), False)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def over_bits(view: Any) -> BFloat16:
    """Return the array of bfloat16 over a C-contiguous buffer of their bits."""
    with memoryview(view) as memory:
        return BFloat16(memory.shape or (), bfloat16(), view)


def is_bfloat16(array: np.ndarray) -> bool:
    """Whether an array is known to be of bfloat16, not of uint16."""
    if bfloat16() != np.uint16:
        return array.dtype == bfloat16()
    return isinstance(array, BFloat16) and array.dtype == np.uint16


def to_bits(array: np.ndarray) -> np.ndarray | None:
    """Return the bits of an array of `bfloat16()`, without copy; None of any other."""
    return array.view(np.uint16) if array.dtype == bfloat16() else None


def widen(array: np.ndarray) -> np.ndarray:
    """Return float32 for bfloat16, exactly; other arrays as they are."""
    if not is_bfloat16(array):
        return array
    bits = np.asarray(array).view(np.uint16).astype(np.uint32)
    return np.asarray(bits << np.uint32(16)).view(np.float32)


def narrow(array: np.ndarray) -> np.ndarray:
    """Return an array of real numbers in bfloat16: each becomes the nearest, of two the even one."""
    if is_bfloat16(array):
        return array
    wide = np.asarray(array).astype(np.float32).reshape(-1)
    word = wide.view(np.uint32)
    upper = word >> np.uint32(16)
    near = word + np.uint32(0x7FFF) + (upper & np.uint32(1)) >> np.uint32(16)
    bits = np.where(np.isnan(wide), upper | np.uint32(0x40), near).astype(np.uint16)
    return bits.view(bfloat16()).view(BFloat16).reshape(array.shape)


def dtype_name(value: Any) -> str | None:
    """Return the name of a dtype that NumPy knows, or PyTorch, JAX or TensorFlow; or None."""
    if value is None:  # which NumPy takes for float64
        return None
    try:
        dtype = np.dtype(value)
    except TypeError:
        # "bfloat16" itself, str(torch.bfloat16), tensorflow.bfloat16.name
        name = value if isinstance(value, str) else getattr(value, "name", str(value))
        return str(name).removeprefix("torch.")
    return str(dtype.name) if dtype.isnative else None


def read(value: Any) -> np.ndarray:
    """Return `value` as an array in this process's memory, without copy if it is one.

    Tensors that record gradients are detached, those on a device are copied from it. Raises
    whatever NumPy does if that cannot read it.
    """
    for method in ("detach", "cpu"):
        if hasattr(value, method):
            value = getattr(value, method)()
    if isinstance(value, BFloat16):
        return value
    dtype, gives = getattr(value, "dtype", None), hasattr(value, "__array__")
    if not hasattr(value, "__dlpack__") or (gives and isinstance(dtype, np.dtype)):
        return np.asarray(value)
    if dtype_name(dtype) == "bfloat16":
        return np.from_dlpack(_Bits(value)).view(bfloat16()).view(BFloat16)
    return np.asarray(value) if gives else np.from_dlpack(value)


def to_array(name: str, value: Any, dtype: str) -> np.ndarray:
    """Return `value` as a C-contiguous array for a state of `dtype`; see `read`."""
    try:
        array = read(value)
    except Exception as error:
        raise errors.StateTypeError(
            f"state {name!r}: {type(value).__name__} is not an array that NumPy can read: {error}"
        ) from error
    if dtype != "bfloat16" and is_bfloat16(array) and array.dtype == np.uint16:
        raise errors.StateTypeError(f"state {name!r}: expected {dtype}, got bfloat16")
    return np.ascontiguousarray(array) if array.ndim else array


def _converting(dtype: str, array: np.ndarray) -> str:
    """Return what a message about an array of another dtype ends with."""
    if array.dtype.kind not in "iufb" or dtype == "bfloat16":
        return ""
    return f': convert it (.astype("{dtype}")), or declare it as {array.dtype.name}'


def mismatch(
    name: str, dtype: str, shape: tuple[int, ...], value: Any, in_batch: bool = True
) -> errors.StateError:
    """Return the error for a value that is not `shape` of `dtype`; `in_batch`: rows come first."""
    own, wanted = dtype, bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    if wanted.name != dtype:
        dtype = f"{dtype} (bits in uint16, since ml_dtypes is not installed)"
    try:
        array = np.asarray(value)
    except Exception as error:  # a buffer of a type that NumPy does not have
        return errors.StateTypeError(
            f"state {name!r}: expected {dtype} of shape {shape}, got {type(value).__name__}, which "
            f"NumPy cannot read: {error}"
        )
    said = (
        f"state {name!r}: expected {dtype} of shape {shape}, got {array.dtype} of shape "
        f"{array.shape}"
    )
    if array.dtype != wanted:
        return errors.StateTypeError(f"{said}{_converting(own, array)}")
    if in_batch and array.ndim == len(shape) and array.shape[1:] == shape[1:]:
        return errors.StateShapeError(
            f"{said}: this batch has {shape[0]} row{'s' * (shape[0] != 1)} (tail=\"shrink\" makes the last "
            "batches smaller): take the number from len(batch.key)"
        )
    return errors.StateShapeError(said)


def _convert(array: np.ndarray, dtype: str, exact: bool) -> np.ndarray | None:
    """Return numbers that have no dtype of their own as `dtype`; None where that loses something.

    Floats are rounded. With `exact`, `array` has a dtype that somebody chose: it must be `dtype`.
    """
    if dtype == "bfloat16":
        return _convert_to_bfloat16(array, exact)
    if exact:
        # The same in another byte order is another NumPy dtype, of the same name.
        return array.astype(dtype, copy=False) if array.dtype.name == dtype else None
    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        return None
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if array.dtype.kind in "iub" and not np.array_equal(converted, array):
        return None
    return converted


def _convert_to_bfloat16(array: np.ndarray, exact: bool) -> np.ndarray | None:
    if exact or is_bfloat16(array):
        return array if array.dtype == bfloat16() else None
    wide = _convert(array, "float32", exact=False)
    if wide is None:
        return None
    near = narrow(wide)
    whole = array.dtype.kind in "iub"
    return near if not whole or np.array_equal(widen(near), array) else None


def to_column(
    place: str, name: str, dtype: str, shape: tuple[int, ...], value: Any, sequence: bool
) -> tuple[np.ndarray, int]:
    """Return the bytes of a sequence's array as a flat array, and its steps.

    Arrays must have the dtype; plain numbers and lists of them are converted to it if they can be.
    `sequence`: the first dimension is that of the steps, and not in `shape`.

    Raises
    ------
    ArgumentError
        It does not fit: says what was expected and what came.
    """
    where = f"{place}[{name!r}]"
    dims = ", ".join(["steps"] * sequence + [str(dim) for dim in shape])
    expected = f"{where}: expected {dtype} of shape ({dims}{',' * (len(shape) + sequence == 1)})"
    try:
        array = read(value)
    except Exception as error:
        raise errors.ArgumentError(
            f"{expected}, got {type(value).__name__}, which NumPy cannot read: {error}"
        ) from error
    column = _convert(array, dtype, exact=hasattr(value, "dtype"))
    if column is None or array.ndim != len(shape) + sequence or array.shape[sequence:] != shape:
        known = array.dtype.kind in "iufbc"
        what = f"{array.dtype} of shape {array.shape}" if known else f"{array.dtype} values"
        if sequence and place == "sequences" and array.shape == shape:
            raise errors.ArgumentError(
                f"{expected}, got {what}: what a sequence has once is declared in context={{...}}"
            )
        fits = array.shape[sequence:] == shape and array.ndim == len(shape) + sequence
        raise errors.ArgumentError(f"{expected}, got {what}{_converting(dtype, array) if fits else ''}")
    flat = np.ascontiguousarray(column).view(np.ndarray).reshape(-1)
    return flat.view(np.uint8), array.shape[0] if sequence else 0


class Ragged(NamedTuple):
    """Values of all steps, one behind the other, and where those of each step begin.

    Attributes
    ----------
    values : numpy.ndarray
        ``[count]``, of the feature's dtype; of bytes uint8.
    offsets : numpy.ndarray
        int64: step *i* has ``values[offsets[i]:offsets[i + 1]]``. Of a batch ``[rows,
        num_unroll + 1]``, where a row begins where the one before ends; of context ``[rows + 1]``.
    """

    values: np.ndarray
    offsets: np.ndarray


def to_bytes(ragged: Ragged) -> np.ndarray:
    """Return an object array of what each step has: ``[rows, num_unroll]``; of context ``[rows]``."""
    data, offsets = ragged.values.tobytes(), ragged.offsets
    begins, ends = offsets[..., :-1].ravel().tolist(), offsets[..., 1:].ravel().tolist()
    array = np.empty(len(begins), object)
    array[:] = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return array.reshape(offsets[..., 1:].shape)


def _parts(where: str, dtype: str, value: Any) -> list[Any]:
    """Return what each step has of what is ragged, or bytes."""
    try:
        if not isinstance(value, (str, bytes)):
            return list(value)
    except TypeError:
        pass
    raise errors.ArgumentError(
        f"{where}: expected what each step has, a list of {dtype}, or segue.Ragged, got "
        f"{type(value).__name__}"
    )


def _text(where: str, value: Any) -> np.ndarray:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise errors.ArgumentError(
            f"{where}: expected bytes or str, got {type(value).__name__}"
        )
    return np.frombuffer(value, np.uint8)


def to_ragged(
    place: str, name: str, dtype: str, value: Any, sequence: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return offsets, the bytes of the values as a flat array, and the number of steps.

    Raises
    ------
    ArgumentError
        It does not fit: says what was expected and what came.
    """
    where = f"{place}[{name!r}]"
    kind = "uint8" if dtype == "bytes" else dtype
    item = np.dtype(bfloat16() if kind == "bfloat16" else kind).itemsize
    if isinstance(value, Ragged):
        flat, count = to_column(place, name, kind, (), value.values, True)
        return _fit_offsets(where, value.offsets, count, sequence), flat, len(value.offsets) - 1
    parts = []
    for step in _parts(where, dtype, value) if sequence else [value]:
        if dtype == "bytes":
            parts.append(_text(where, step))
        elif isinstance(step, (list, tuple)) and not step:  # NumPy takes it for floats
            parts.append(np.zeros(0, np.uint8))
        else:
            parts.append(to_column(place, name, dtype, (), step, True)[0])
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) // item for part in parts], out=offsets[1:])
    return offsets, np.concatenate([np.zeros(0, np.uint8), *parts]), len(parts)


def _fit_offsets(where: str, offsets: Any, count: int, sequence: bool) -> np.ndarray:
    """Return them as they are written; whether they rise is for the writer to see."""
    array = np.asarray(offsets)
    if array.ndim != 1 or array.dtype != np.int64 or not len(array) or array[-1] != count:
        raise errors.ArgumentError(
            f"{where}: expected offsets of int64 in one dimension, one more than there are steps, "
            f"of which the last is the number of values, {count}"
        )
    if not sequence and len(array) != 2:
        raise errors.ArgumentError(
            f"{where}: {len(array)} offsets, where 2 are those of one value a sequence"
        )
    return np.ascontiguousarray(array)


class Features(dict[str, Any]):
    """Arrays of a batch's dense features, by name."""

    __slots__ = ()

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(
            f"{name!r} is none of {', '.join(map(repr, self)) or 'no features'}; batch.ragged(name) "
            "and batch.bytes(name) have what is ragged, or bytes"
        )


def surplus(place: str, names: Iterable[str], given: Iterable[str]) -> errors.ArgumentError:
    """Return the error for names that were given and not declared, or for what has no names."""
    if not hasattr(given, "keys"):
        return errors.ArgumentError(
            f"{place}: expected a mapping of names to arrays, got {type(given).__name__}"
        )
    declared = list(names)
    others = ", ".join(repr(name) for name in given if name not in declared)
    return errors.ArgumentError(
        f"{place}: {others} was not declared; declared: {', '.join(map(repr, declared)) or 'nothing'}"
    )

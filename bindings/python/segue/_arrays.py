"""What the C extension asks of NumPy: values to be saved as arrays, and why they do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import errors


def read(value: Any) -> np.ndarray:
    """Return `value` as an array in this process's memory, without copy if it is one.

    Tensors that record gradients are detached, those on a device are copied from it. What NumPy
    cannot read raises whatever it says.
    """
    for method in ("detach", "cpu"):
        if hasattr(value, method):
            value = getattr(value, method)()
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    return np.from_dlpack(value)


def to_array(name: str, value: Any) -> np.ndarray:
    """Return the value of a state as a C-contiguous array, without copy if it is one."""
    try:
        array = read(value)
    except Exception as error:
        raise errors.StateTypeError(
            f"state {name!r}: {type(value).__name__} is not an array that NumPy can read: {error}"
        ) from error
    return np.ascontiguousarray(array) if array.ndim else array


def mismatch(name: str, dtype: str, shape: tuple[int, ...], value: Any) -> errors.StateError:
    """Return the error for a value that is not `shape` of `dtype`."""
    try:
        array = np.asarray(value)
    except Exception as error:  # a buffer of a type that NumPy does not have
        return errors.StateTypeError(
            f"state {name!r}: expected {dtype} of shape {shape}, got {type(value).__name__}, which "
            f"NumPy cannot read: {error}"
        )
    if array.dtype != np.dtype(dtype):
        MismatchError: type[errors.StateError] = errors.StateTypeError
    else:
        MismatchError = errors.StateShapeError
    return MismatchError(
        f"state {name!r}: expected {dtype} of shape {shape}, got {array.dtype} of shape "
        f"{array.shape}"
    )


def _convert(array: np.ndarray, dtype: str, exact: bool) -> np.ndarray | None:
    """Return numbers that have no dtype of their own as `dtype`; None where that loses something.

    Floats are rounded. With `exact`, `array` has a dtype that somebody chose: it must be `dtype`.
    """
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
        raise errors.ArgumentError(f"{expected}, got {what}")
    flat = np.ascontiguousarray(column).reshape(-1)
    return flat.view(np.uint8), array.shape[0] if sequence else 0


def surplus(place: str, names: Iterable[str], given: Iterable[str]) -> errors.ArgumentError:
    """Return the error for names that were given and not declared."""
    declared = list(names)
    others = ", ".join(repr(name) for name in given if name not in declared)
    return errors.ArgumentError(
        f"{place}: {others} was not declared; declared: {', '.join(map(repr, declared)) or 'nothing'}"
    )

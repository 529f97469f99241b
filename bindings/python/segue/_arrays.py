"""What the C extension asks of NumPy: values to be saved as arrays, and why they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import errors


def to_array(name: str, value: Any) -> np.ndarray:
    """Return `value` as a C-contiguous array in this process's memory, without copy if it is one.

    Tensors that record gradients are detached, those on a device are copied from it.
    """
    for method in ("detach", "cpu"):
        if hasattr(value, method):
            value = getattr(value, method)()
    try:
        if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
            array = np.asarray(value)
        else:
            array = np.from_dlpack(value)
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

"""For JAX: batches as arrays of JAX.

Needs JAX, and is imported by itself: ``import segue.jax``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _arrays, _segue, _wrapped, errors
from .loader import Loader

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("segue.jax needs JAX, which is not installed: pip install jax") from error

__all__ = ["Batch", "Batches", "wrap"]


def wrap(
    loader: Loader, device: Any = None, dtype: Any = None, time_major: bool = False
) -> Batches:
    """Return a loader's batches as arrays of JAX, which share nothing with the ring.

    ::

        for batch in segue.jax.wrap(stream.loader(start="continue")):
            loss, states = train_step(batch["x"], batch.mask, batch.states)
            batch.states = states

    Saving states waits until they are computed: they are copied to the host then.

    Parameters
    ----------
    loader : Loader
        What it is asked for besides batches goes to this: ``state_dict()``, ``close()``, ``with``.
    device : jax.Device or jax.sharding.Sharding, optional
        Of `jax.device_put`.
    dtype : dtype, optional
        What features of floats become. States keep theirs, as they were declared.
    time_major : bool
        Sequence features and `Batch.mask` are ``[steps, rows, ...]``, as `jax.lax.scan` has them.

    Raises
    ------
    ArgumentError
        A `dtype` of no floats.

    Notes
    -----
    Without ``jax_enable_x64`` JAX has no types of 64 bits: of such features it makes those of 32,
    and of such states, which would lose bits, this raises `StateTypeError`. What is int64 of a batch
    itself (``epoch``, ``seed``, ``total_length``, ``insertion_index``) stays an array of NumPy.
    """
    return Batches(loader, device, dtype, time_major)


class Batch(_wrapped.Batch):
    __doc__ = _wrapped.Batch.__doc__


class Batches(_wrapped.Way[Batch]):
    """Batches of a loader as arrays of JAX; made by `wrap`. Iterable; `rounds`, `epochs`, too."""

    batch_type = Batch

    def __init__(self, loader: Loader, device: Any, dtype: Any, time_major: bool) -> None:
        super().__init__(loader, time_major)
        if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
            raise errors.ArgumentError(f"dtype: {dtype!r} is no dtype of floats")
        self._device = device
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._buffers = _wrapped.Buffers()

    def features(self, batch: _segue.Batch) -> dict[str, Any]:
        return {name: self._feature(array) for name, array in self._dense(batch).items()}

    def _feature(self, array: np.ndarray) -> jax.Array:
        floats = self._dtype is not None and jnp.issubdtype(array.dtype, jnp.floating)
        return self._copy(array, self._dtype if floats else None)

    def _copy(self, source: np.ndarray, dtype: np.dtype[Any] | None = None) -> jax.Array:
        array = self._buffers.take(source.shape, dtype or source.dtype)
        np.copyto(array, np.asarray(source), casting="unsafe")
        given: jax.Array = jax.device_put(array, self._device)
        return given

    def array(self, name: str, array: np.ndarray) -> Any:
        if array.dtype == np.int64:
            return np.array(array)
        return self._copy(self._turned(array) if name == "mask" else array)

    def read(self, batch: _segue.Batch) -> Any:
        def copy(path: str) -> jax.Array:
            state: jax.Array = self.state(batch, path, self._tree.axis(path))
            return state

        return self._tree.structure.build({p: copy(p) for p in self._tree.structure.paths})

    def state(self, batch: _segue.Batch, name: str, axis: int = 0) -> Any:
        source = batch.state(name)
        state = self._copy(np.moveaxis(source, 0, axis))
        if state.dtype.itemsize != source.dtype.itemsize:
            raise errors.StateTypeError(
                f"state {name!r}: JAX makes {state.dtype} of {source.dtype}: set jax_enable_x64, or "
                "declare another dtype"
            )
        return state

    def save(self, batch: _segue.Batch, tree: Any) -> None:
        self._tree.save(tree, batch.save_state)

    def choose(self, is_first: Any, initial: Any, state: Any, axis: int) -> Any:
        if initial.ndim == state.ndim - 1:
            initial = jnp.expand_dims(initial, axis)
        rows = jnp.expand_dims(is_first, [d for d in range(state.ndim) if d != axis])
        return jnp.where(rows, initial, state)

    def mean(self, loss: Any, counts: Any) -> Any:
        counts = jnp.expand_dims(jnp.asarray(counts), list(range(counts.ndim, loss.ndim)))
        kept = jnp.where(counts, loss, 0)
        each = loss.size // max(1, counts.size)
        short = loss.dtype in (jnp.float16, jnp.bfloat16)
        total = kept.sum(dtype=jnp.float32 if short else None)
        mean = total / jnp.maximum(counts.sum() * each, 1)
        return mean.astype(loss.dtype) if short else mean

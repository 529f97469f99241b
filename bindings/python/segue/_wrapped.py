"""What `segue.torch` and `segue.jax` share: batches whose arrays are the person's own.

The arrays of a batch lie in shared memory, read only, and hold its place in the ring. Here they are
copied, so that they may be written to and kept, and their place is free with the commit.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from ctypes import c_char
from typing import Any, Generic, TypeVar

import numpy as np

from . import _segue, errors
from .loader import Loader

_ALIGN = 64  # bytes; what JAX asks of memory that it takes as it is, and what vector units like

# Of a batch, arrays that are not features: [rows], but for the mask.
ARRAYS = frozenset(
    "sequence sequence_count length total_length insertion_index epoch part is_first is_init "
    "is_last is_kept mask seed segment_seed".split()
)


def _allocate(size: int) -> np.ndarray:
    memory = np.empty(size + _ALIGN, np.uint8)
    begin = -memory.ctypes.data % _ALIGN
    return memory[begin : begin + size]


def _room(size: int) -> int:
    """Bytes of a buffer for as many, up to a quarter more: of few sizes, whatever lengths there are."""
    step = 1 << max(6, size.bit_length() - 3)
    return -(-size // step) * step


class Buffers:
    """Memory for arrays, taken again once no array, tensor, view or graph has it any more.

    All that is made of an array that `take` has given holds that very object. (NumPy gives a view
    of it the base of the array in its place, unless that is no array.)
    """

    def __init__(self, allocate: Callable[[int], np.ndarray] = _allocate) -> None:
        self._allocate = allocate
        self._free: dict[int, list[Any]] = {}  # by `_room`

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return a C-contiguous array, with anything in it."""
        size = _room(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        free = self._free.setdefault(size, [])
        fresh: Any = self._allocate
        memory: Any = free.pop() if free else (c_char * size).from_buffer(fresh(size))
        array = np.ndarray(shape, dtype, memory)
        weakref.finalize(array, free.append, memory).atexit = False
        return array


class Batch:
    """A batch whose arrays are copies: they may be written to, and kept.

    ``batch[name]`` is a feature, `states` all states; ``length``, ``mask``, ``is_first`` and the
    others of `segue.Batch` are there, too. What it does not have itself is asked of that one, as
    ``key``, ``step``, ``commit()``, ``ragged(name)``: until the loop has gone on from a batch that
    is committed. Its place in the ring is free from then on, whoever keeps this object.
    """

    def __init__(self, batch: _segue.Batch, features: dict[str, Any], way: Way[Any]) -> None:
        self._batch: _segue.Batch | None = batch
        self._place = batch.step, batch.lane, batch.batch_size
        self._features = features
        self._way = way
        self._arrays: dict[str, Any] = {}
        self._states: Any = None
        self._has_states = False
        self._finish: Callable[[], object] | None = None  # a save that is on its way

    def __getitem__(self, name: str) -> Any:
        """Return a feature: of sequences ``[rows, steps, *shape]``, of context ``[rows, *shape]``."""
        try:
            return self._features[name]
        except KeyError:
            raise KeyError(
                f"{name!r} is none of {', '.join(map(repr, self._features)) or 'no features'}; "
                "ragged(name) and bytes(name) have what is ragged, or bytes"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._features

    def __getattr__(self, name: str) -> Any:
        if name in ARRAYS:
            if name not in self._arrays:
                self._arrays[name] = self._way.array(name, getattr(self._own, name))
            return self._arrays[name]
        if name.startswith("_") or not hasattr(_segue.Batch, name):
            return object.__getattribute__(self, name)  # says that there is none
        return getattr(self._own, name)

    @property
    def _own(self) -> _segue.Batch:
        if self._batch is None:
            step, lane, _ = self._place
            raise errors.ClosedError(
                f"batch {step} of lane {lane} was committed, and the loop has gone on: take what "
                "you need of it before"
            )
        return self._batch

    @property
    def step(self) -> int:
        """Index of the batch in its lane."""
        return self._place[0]

    @property
    def lane(self) -> int:
        """Index of the lane."""
        return self._place[1]

    @property
    def batch_size(self) -> int:
        """Rows of this batch."""
        return self._place[2]

    @property
    def states(self) -> Any:
        """All states that come in, nested as they were declared.

        Set it to what is nested alike: that is saved, for the next segment of each row. What was set
        last before the commit counts.

        Raises
        ------
        StateNameError, StateTypeError, StateShapeError
            Of what it is set to: names the path, and says what was expected.
        """
        if not self._has_states:
            self._states = self._way.read(self._own)
            self._has_states = True
        return self._states

    @states.setter
    def states(self, tree: Any) -> None:
        self._finish = self._way.save(self._own, tree)

    def state(self, name: str, /) -> Any:
        """Return one state, by its path: ``[rows, *shape]``."""
        return self._way.state(self._own, name)

    def save_state(self, name: str, value: Any, /) -> None:
        """Save one state, by its path: ``[rows, *shape]``, of its dtype."""
        if self._finish:
            self._finish()
        self._own.save_state(name, value)

    def commit(self, wait: bool = False) -> None:
        """Make the saved states and the advance to the next step true: `segue.Batch.commit`."""
        if self._finish:
            self._finish()
        self._own.commit(wait)

    def states_from(self, initial: Any) -> Any:
        """Return `states`, with `initial` in the rows in which a sequence begins.

        For initial states that are learnt: gradients flow into `initial`, not into the rest.

        Parameters
        ----------
        initial : tree
            Nested as the states are, of parameters: each as its state, but with one row, or with
            none in the place of `State.row_axis`.
        """
        return self._way.begin(self.states, self.is_first, initial)

    def mean(self, loss: Any) -> Any:
        """Return the mean of a loss over the steps that are not padding; 0 where there are none.

        Padding does not count even if it is NaN.

        Parameters
        ----------
        loss : array
            Shaped as `mask` in its first two dimensions, of each step; or ``[rows]``, of each row,
            of which those count that have a step.

        Raises
        ------
        ArgumentError
            It is shaped otherwise, as what is a mean already.
        """
        shape = tuple(getattr(loss, "shape", ()))
        counts = self.mask if len(shape) > 1 else self.length > 0
        if not shape or shape[: counts.ndim] != tuple(counts.shape):
            raise errors.ArgumentError(
                f"mean(): expected a loss of each step, shaped {tuple(self.mask.shape)} in its first "
                f"two dimensions, or of each row, ({self.batch_size},), got shape {shape}: give it "
                "before it is reduced (reduction=\"none\")"
            )
        return self._way.mean(loss, counts)

    def __repr__(self) -> str:
        step, lane, rows = self._place
        parts = [f"{name} {_shown(value)}" for name, value in self._features.items()]
        return f"<{type(self).__module__}.Batch: step {step} of lane {lane}, {rows} rows; {', '.join(parts)}>"


def _shown(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


_B = TypeVar("_B", bound=Batch)


class Way(Generic[_B]):
    """How batches of a loader become those of a framework: iterable, as the loader itself."""

    batch_type: type[_B]

    def __init__(self, loader: Loader, time_major: bool) -> None:
        if not isinstance(loader, Loader):
            raise TypeError(f"loader: expected segue.Loader, got {type(loader).__name__}")
        self.loader = loader
        self._tree = loader.stream._tree
        self._time_major = time_major
        self._given: list[weakref.ref[_B]] = []  # those that may be committed by now
        self._lent: Any = None  # to batches

    # -- of the framework ------------------------------------------------------------------------

    def features(self, batch: _segue.Batch) -> dict[str, Any]:
        """Copies of all dense features."""
        raise NotImplementedError

    def array(self, name: str, array: np.ndarray) -> Any:
        """A copy of one of `ARRAYS`."""
        raise NotImplementedError

    def read(self, batch: _segue.Batch) -> Any:
        """Copies of all states, nested."""
        raise NotImplementedError

    def state(self, batch: _segue.Batch, name: str) -> Any:
        """A copy of a state, with rows first."""
        raise NotImplementedError

    def save(self, batch: _segue.Batch, tree: Any) -> Callable[[], object] | None:
        """Save all states; return what finishes that, if it is not done yet."""
        raise NotImplementedError

    def choose(self, is_first: Any, initial: Any, state: Any, axis: int) -> Any:
        """`initial`, with rows in dimension `axis` or without them, in the rows that begin."""
        raise NotImplementedError

    def mean(self, loss: Any, counts: Any) -> Any:
        """`Batch.mean`."""
        raise NotImplementedError

    # -- of all ----------------------------------------------------------------------------------

    def _turned(self, array: np.ndarray) -> np.ndarray:
        """What is ``[rows, steps, ...]``, with steps first where that is wanted."""
        return array.swapaxes(0, 1) if self._time_major else array

    def _dense(self, batch: _segue.Batch) -> dict[str, np.ndarray]:
        """All dense features, over the batch's memory."""
        sequences = {name: self._turned(array) for name, array in batch.sequences.items()}
        return {**batch.context, **sequences}

    def begin(self, states: Any, is_first: Any, initial: Any) -> Any:
        """`Batch.states_from`."""
        structure = self._tree.structure
        given = dict(structure.leaves(initial))
        return structure.build({
            path: self.choose(is_first, given[path], state, self._tree.axis(path))
            for path, state in structure.leaves(states)
        })  # fmt: skip

    # -- iterating -------------------------------------------------------------------------------

    def _present(self, batch: _segue.Batch) -> _B:
        for reference in self._given:
            before = reference()
            if before is not None and before._batch is not None and before._batch.committed:
                before._batch = before._finish = None
        self._given = [one for one in self._given if (b := one()) is not None and b._batch]
        if self._lent is None:  # with no hold on the loader: batches that are kept keep no lease
            self._lent = copy.copy(self)
            vars(self._lent)["loader"] = weakref.proxy(self.loader)
        made = self.batch_type(batch, self.features(batch), self._lent)
        self._given.append(weakref.ref(made))
        return made

    def __iter__(self) -> Iterator[_B]:
        batches: Iterator[_B] = self._presenting(iter(self.loader))
        return batches

    def __len__(self) -> int:
        return len(self.loader)

    def __bool__(self) -> bool:
        return True

    def rounds(self) -> Iterator[list[_B]]:
        """`Loader.rounds`, of such batches."""
        rounds: Iterator[list[_B]] = self._presenting(self.loader.rounds())
        return rounds

    def epochs(self) -> Iterator[Any]:
        """`Loader.epochs`, of such batches."""
        epochs: Any = self.loader.epochs()
        self._presenting(epochs._batches)
        iterator: Iterator[Any] = epochs
        return iterator

    def _presenting(self, batches: Any) -> Any:
        batches.present = self._present
        return batches

    # -- the loader's own ------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, bytes]:
        """`Loader.state_dict`."""
        return self.loader.state_dict(*args, **options)

    def load_state_dict(self, state_dict: Any) -> None:
        """`Loader.load_state_dict`."""
        self.loader.load_state_dict(state_dict)

    def __enter__(self) -> Any:
        self.loader.__enter__()
        return self

    def __exit__(self, *exception: Any) -> Any:
        return self.loader.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.loader!r}>"

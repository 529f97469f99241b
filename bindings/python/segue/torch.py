"""For PyTorch: batches as tensors of one's own, and a recurrent cell over the steps of a batch.

Needs PyTorch, and is imported by itself: ``import segue.torch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np

from . import _arrays, _segue, _wrapped, errors
from .loader import Loader
from .spec import State as Declared

try:
    import torch
    from torch.utils.dlpack import from_dlpack
except ImportError as error:
    raise ImportError(
        "segue.torch needs PyTorch, which is not installed: pip install torch"
    ) from error

__all__ = ["Batch", "Batches", "StateSaver", "dataset", "static_state_saving_rnn", "wrap"]

def wrap(
    loader: Loader,
    device: Any = None,
    dtype: Any = None,
    time_major: bool = False,
    zero_copy: bool = False,
) -> Batches:
    """Return a loader's batches as tensors that are copies: to be written to, and kept.

    ::

        loader = segue.torch.wrap(stream.loader(start="continue"), device="cuda")
        for batch in loader:
            output, states = lstm(batch["x"], batch.states)
            loss = batch.mean(loss_of(output, batch["y"]))
            ...
            batch.states = states

    Their memory is taken again once no tensor, view or graph has it. With a CUDA device, features
    and states go there by a stream of their own, out of pinned memory, while what was started
    before still runs; states that are saved come back in the same way, and the commit waits for
    them: one synchronisation a step.

    Parameters
    ----------
    loader : Loader
        What it is asked for besides batches goes to this: ``state_dict()``, ``close()``, ``with``.
    device : torch.device or str, optional
        Where tensors are to be; the CPU if not given.
    dtype : torch.dtype, optional
        What features of floats become. States keep theirs, as they were declared.
    time_major : bool
        Sequence features and `Batch.mask` are ``[steps, rows, ...]``.
    zero_copy : bool
        Features and states as read-only arrays of NumPy over the batch's shared memory, which hold
        its place in the ring: as `segue.Batch` has them. Not with the others.

    Raises
    ------
    ArgumentError
        A `dtype` that is not float16, bfloat16, float32 or float64, `zero_copy` with one of the
        others, or no such device.

    Returns
    -------
    Batches
    """
    return Batches(loader, device, dtype, time_major, zero_copy)


def dataset(loader: Loader, **options: Any) -> torch.utils.data.IterableDataset[Any]:
    """Return a loader's batches as a dataset, for tools that insist on a ``DataLoader``.

    ``torch.utils.data.DataLoader(segue.torch.dataset(loader), batch_size=None)``: with
    ``num_workers=0``, since the batches are made by the server already, and belong to the process
    that has the loader.

    Parameters
    ----------
    loader : Loader
    **options
        Of `wrap`.

    Raises
    ------
    ArgumentError
        In a worker of the ``DataLoader``: it was made with ``num_workers`` above 0.
    """
    return _Dataset(wrap(loader, **options))


class _Dataset(torch.utils.data.IterableDataset[Any]):
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        if torch.utils.data.get_worker_info() is not None:
            raise errors.ArgumentError(
                "segue.torch.dataset(): give the DataLoader num_workers=0; batches are made by the "
                "server already, and belong to the process that has the loader"
            )
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def state_dict(self) -> dict[str, bytes]:
        return self._batches.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self._batches.load_state_dict(state_dict)


class Batch(_wrapped.Batch):
    __doc__ = _wrapped.Batch.__doc__


def _refuse_collating(batches: list[Any], **_: Any) -> NoReturn:
    raise TypeError(
        "segue.torch.dataset(): give the DataLoader batch_size=None; what the dataset gives are "
        "batches already"
    )


with suppress(ImportError):  # the hint alone is lost; the place is that of default_collate's documentation
    from torch.utils.data._utils.collate import default_collate_fn_map

    default_collate_fn_map[Batch] = _refuse_collating


class Batches(_wrapped.Way[Batch]):
    """Batches of a loader as tensors; made by `wrap`. Iterable; `rounds` and `epochs`, too."""

    batch_type = Batch

    def __init__(
        self, loader: Loader, device: Any, dtype: Any, time_major: bool, zero_copy: bool
    ) -> None:
        super().__init__(loader, time_major)
        if dtype is not None and dtype not in _FLOATS:
            raise errors.ArgumentError(f"dtype: {dtype!r} is no torch.dtype of floats of 16 bits or more")
        if zero_copy and (device is not None or dtype is not None or time_major):
            raise errors.ArgumentError(
                "zero_copy=True gives the batch's own memory: device, dtype and time_major would "
                "need a copy of it"
            )
        try:
            self._device = torch.device("cpu" if device is None else device)
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise errors.ArgumentError(f"device: {device!r}: {error}") from error
        self._dtype, self._zero_copy = dtype, zero_copy
        self._carrier = _Carrier(self._device) if self._device.type == "cuda" else _Here(self._device)

    def features(self, batch: _segue.Batch) -> dict[str, Any]:
        found = self._dense(batch)
        if self._zero_copy:
            return found
        return self._carrier.sent({name: self._feature(array) for name, array in found.items()})

    def _feature(self, array: np.ndarray) -> torch.Tensor:
        source = from_dlpack(array)
        kind = self._dtype if self._dtype and source.is_floating_point() else source.dtype
        return self._carrier.copy(source, kind)

    def array(self, name: str, array: np.ndarray) -> Any:
        if name == "mask":
            array = self._turned(array)
        return torch.from_numpy(np.array(array, order="C")).to(self._device)

    def read(self, batch: _segue.Batch) -> Any:
        if self._zero_copy:
            return batch.states
        found = {}
        for path in self._tree.structure.paths:
            source = from_dlpack(batch.state(path)).movedim(0, self._tree.axis(path))
            found[path] = self._carrier.copy(source, source.dtype)
        return self._tree.structure.build(self._carrier.sent(found))

    def state(self, batch: _segue.Batch, name: str) -> Any:
        if self._zero_copy:
            return batch.state(name)
        source = from_dlpack(batch.state(name))
        return self._carrier.sent({name: self._carrier.copy(source, source.dtype)})[name]

    def save(self, batch: _segue.Batch, tree: Any) -> Callable[[], object] | None:
        leaves = []
        for path, leaf in self._tree.structure.leaves(tree):
            leaf = leaf.detach() if isinstance(leaf, torch.Tensor) else leaf
            leaves.append((path, self._rows_first(path, leaf)))
        return self._carrier.save(self.loader, batch, leaves)

    def _rows_first(self, path: str, leaf: Any) -> Any:
        axis = self._tree.axis(path)
        if isinstance(leaf, torch.Tensor) and axis < leaf.dim():
            return leaf.movedim(axis, 0)
        return self._tree.rows_first(path, leaf)

    def begin(self, states: Any, is_first: Any, initial: Any) -> Any:
        if self._zero_copy:
            raise errors.ArgumentError(
                "states_from(): with zero_copy=True states are NumPy's, which know no gradients"
            )
        return super().begin(states, is_first, initial)

    def choose(self, is_first: Any, initial: Any, state: Any, axis: int) -> Any:
        if initial.dim() == state.dim() - 1:
            initial = initial.unsqueeze(axis)
        shape = [-1 if dim == axis else 1 for dim in range(state.dim())]
        return torch.where(is_first.view(shape), initial, state)

    def mean(self, loss: Any, counts: Any) -> Any:
        counts = counts.view(*counts.shape, *[1] * (loss.dim() - counts.dim()))
        kept = torch.where(counts, loss, torch.zeros((), dtype=loss.dtype, device=loss.device))
        wide = torch.float32 if loss.dtype in (torch.float16, torch.bfloat16) else None
        count = (counts.sum() * (loss.numel() // max(1, counts.numel()))).clamp(min=1)
        mean = kept.sum(dtype=wide) / count
        return mean.to(loss.dtype) if wide else mean


# -- Copies ----------------------------------------------------------------------------------------

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BITS = {torch.bfloat16: np.dtype(np.uint16)}  # of types that NumPy lacks


def _tensor(buffers: _wrapped.Buffers, shape: Any, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in memory that is taken again once nothing has it."""
    name = str(dtype).removeprefix("torch.")
    array = buffers.take(tuple(shape), _BITS.get(dtype) or np.dtype(name))
    return torch.from_numpy(array).view(dtype)


class _Here:
    """Tensors on the CPU, or where `device` is some other that takes plain copies."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = _wrapped.Buffers()

    def copy(self, source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return _tensor(self._buffers, source.shape, dtype).copy_(source)

    def sent(self, copies: dict[str, Any]) -> dict[str, Any]:
        if self._device.type == "cpu":
            return copies
        return {name: copy.to(self._device) for name, copy in copies.items()}

    def save(self, loader: Loader, batch: _segue.Batch, leaves: list[tuple[str, Any]]) -> None:
        for path, leaf in leaves:
            batch.save_state(path, leaf)


class _Carrier:
    """Carries tensors to a device and back, by way of pinned memory, beside what runs there.

    `kind` is what has streams and events: ``torch.cuda``; in tests ``torch.cpu``, of which each
    has ended when it is asked.
    """

    def __init__(self, device: torch.device, kind: Any = torch.cuda) -> None:
        self._device, self._kind = device, kind
        self._stream = kind.Stream(device)
        self._buffers = _wrapped.Buffers(_pinned if kind is torch.cuda else _wrapped._allocate)
        self._sending: list[tuple[Any, list[torch.Tensor]]] = []  # until the event has come

    def copy(self, source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return _tensor(self._buffers, source.shape, dtype).copy_(source)

    def sent(self, copies: dict[str, Any]) -> dict[str, Any]:
        """Tensors on the device, which what is started there from now on finds filled."""
        here = self._kind.current_stream(self._device)
        with self._kind.stream(self._stream):
            there = {
                name: copy.to(self._device, non_blocking=True, copy=True)
                for name, copy in copies.items()
            }
            done = self._kind.Event()
            done.record(self._stream)
        here.wait_event(done)
        for tensor in there.values():
            if tensor.device.type != "cpu":
                tensor.record_stream(here)
        self._sending = [one for one in self._sending if not one[0].query()]
        self._sending.append((done, list(copies.values())))
        return there

    def save(
        self, loader: Loader, batch: _segue.Batch, leaves: list[tuple[str, Any]]
    ) -> Callable[[], object]:
        """Have them fetched; the loader saves them before it commits, or the batch does.

        What is not on a device of this kind may change meanwhile, and is saved at once; so is what
        cannot be saved, for that to be said here.
        """
        fetched, devices = [], set()
        over, declared = batch.committed or batch.released, {}
        with suppress(ReferenceError):  # the loader is gone, and the batch alone may be committed
            over = over or loader.replica > 0
            declared = loader.stream._tree.declared
        for path, leaf in leaves:
            far = isinstance(leaf, torch.Tensor) and leaf.device.type == self._device.type
            if over or not far or not _fits(declared.get(path), batch.batch_size, leaf):
                batch.save_state(path, leaf.cpu() if far else leaf)
                continue
            place = _tensor(self._buffers, leaf.shape, leaf.dtype)
            fetched.append((path, place.copy_(leaf, non_blocking=True)))
            devices.add(leaf.device)
        events = []
        for device in devices:  # each copies by a stream of its own
            events.append(self._kind.Event())
            events[-1].record(self._kind.current_stream(device))

        # Who is left by an exception never waits for it; the memory is in use all the same.
        places = [place for _, place in fetched]
        self._sending += [(event, places) for event in events]

        def finish() -> None:
            for event in events:
                event.synchronize()
            while fetched and not (batch.committed or batch.released):
                batch.save_state(*fetched.pop(0))

        with suppress(ReferenceError):
            loader._unfinished.append((batch, finish))
        return finish


def _fits(declared: Any, rows: int, leaf: torch.Tensor) -> bool:
    """Whether it can be saved: as it was declared, where that is known, and dense."""
    known = isinstance(declared, Declared)
    return leaf.layout == torch.strided and (
        not known
        or (tuple(leaf.shape), str(leaf.dtype)) == ((rows, *declared.shape), f"torch.{declared.dtype}")
    )


def _pinned(size: int) -> np.ndarray:
    empty = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    memory: np.ndarray = empty.numpy()
    return memory


# A tensor, or tuples of such, nested at will; names likewise.
State: TypeAlias = Any
Names: TypeAlias = Any


class StateSaver(Protocol):
    """What has named states: a batch of segue's, or anything with these two methods."""

    def state(self, name: str, /) -> Any:
        """Return the state ``[batch, ...]`` before the segment, as an array or a tensor."""

    def save_state(self, name: str, value: Any, /) -> object:
        """Take the state after the segment, a tensor that records no gradient."""


def static_state_saving_rnn(
    cell: Callable[[Any, State], Any],
    inputs: Sequence[Any],
    state_saver: StateSaver,
    state_name: Names,
    sequence_length: Any = None,
) -> tuple[list[Any], State]:
    """Run a cell over the steps of a batch of segments: what ``tf.nn.static_state_saving_rnn`` did.

    Reads the named states from the batch, calls the cell once a step, and saves the states after
    the last step to the batch, for the sequences' next segments. Gradients flow through the steps
    of this segment, and neither into the states that were read nor into those that are saved.

    Parameters
    ----------
    cell : callable
        ``cell(input, state)`` returns the new state, as `torch.nn.LSTMCell`, `~torch.nn.GRUCell`
        and `~torch.nn.RNNCell` do, or ``(output, state)``. Where it returns the state alone, the
        output is the state; of a tuple of states its first part: of an LSTM ``h``.
    inputs : sequence of torch.Tensor
        One a step, each ``[batch, ...]``: ``batch["x"].unbind(1)``, of a batch of `wrap`.
    state_saver : batch
        Of `segue.batch_sequences_with_states` or of a loader. States are taken to the device of
        `inputs`; they keep their dtype, which has to be that of the cell.
    state_name : str, or tuple
        Name of the state, or a tuple of names for a cell whose state is a tuple, nested like that:
        ``("h", "c")`` for `torch.nn.LSTMCell`, in its order.
    sequence_length : array_like, optional
        Whole numbers ``[batch]``, usually ``batch.length``: steps that count in each row. Behind
        them a row's state stays as it was, and its outputs are zero. Without it the state runs on
        through the padding: the batch's ``length`` is not looked at.

    Returns
    -------
    outputs : list
        One a step, as the cell gives them: tensors ``[batch, ...]``.
    state : torch.Tensor, or tuple
        After the last step, nested like `state_name`; with its gradient.

    Raises
    ------
    ArgumentError
        No inputs, arrays, or those of other rows than the batch has; a `state_saver` that is no
        batch; names that are not nested like the cell's state; a cell that is none; a
        `sequence_length` of another shape, or not of whole numbers (also a ``ValueError``).
    TypeError
        `inputs` is one tensor.
    StateNameError
        The batch has no state of that name (also a ``KeyError``).
    StateTypeError, StateShapeError
        The cell's new state has another dtype or shape than the one that the batch keeps.
    """
    steps = _steps(inputs)
    names = _tuples(state_name)
    _check_cell(cell, names)
    if not (hasattr(state_saver, "state") and hasattr(state_saver, "save_state")):
        raise errors.ArgumentError(
            f"state_saver: expected a batch, got {type(state_saver).__name__}"
        )
    device = next((part.device for part in _leaves(steps[0]) if hasattr(part, "device")), None)
    state = _map(lambda name: _read(state_saver, name, device), names)
    _check_rows(steps[0], state)
    lengths = None
    if sequence_length is not None:
        lengths = _lengths(sequence_length, next(_leaves(state)))
    outputs = []
    for time, value in enumerate(steps):
        output, new = _split(cell(value, state), names)
        if lengths is not None:
            valid = lengths > time
            output = _map(lambda part: _choose(valid, part, torch.zeros_like(part)), output)
            new = _map(lambda part, old: _choose(valid, part, old), new, state)
        state = new
        outputs.append(output)
    _map(lambda name, part: state_saver.save_state(name, part.detach()), names, state)
    return outputs, state


# -- Nested tuples ---------------------------------------------------------------------------------


def _tuples(nested: Any) -> Any:
    """The same with tuples for lists, as the cell is to have it; checks that there are names."""
    if isinstance(nested, (tuple, list)) and nested:
        return tuple(map(_tuples, nested))
    if not isinstance(nested, str):
        raise errors.ArgumentError(
            f"state_name: expected a name, or a tuple of names, got {nested!r}"
        )
    return nested


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, (tuple, list)):
        for part in nested:
            yield from _leaves(part)
    else:
        yield nested


def _map(function: Callable[..., Any], nested: Any, *others: Any) -> Any:
    """The function of each leaf, with those of others that are nested alike."""
    if isinstance(nested, (tuple, list)):
        return tuple(_map(function, *parts) for parts in zip(nested, *others, strict=True))
    return function(nested, *others)


def _alike(nested: Any, names: Any) -> bool:
    if not isinstance(names, tuple):
        return not isinstance(nested, (tuple, list))
    if not isinstance(nested, (tuple, list)) or len(nested) != len(names):
        return False
    return all(map(_alike, nested, names))


def _is_state(nested: Any, names: Any) -> bool:
    tensors = all(isinstance(leaf, torch.Tensor) for leaf in _leaves(nested))
    return tensors and _alike(nested, names)


def _shape(nested: Any) -> str:
    """How it is nested, for a message: ``(tensor, (tensor, tensor))``."""
    if not isinstance(nested, (tuple, list)):
        return "tensor" if isinstance(nested, torch.Tensor) else type(nested).__name__
    return f"({', '.join(map(_shape, nested))}{',' * (len(nested) == 1)})"


# -- One call --------------------------------------------------------------------------------------


def _steps(inputs: Any) -> list[Any]:
    if isinstance(inputs, torch.Tensor) or hasattr(inputs, "__array__"):
        raise TypeError(
            "inputs: expected a list with one tensor [batch, ...] for each step, got one "
            f"{type(inputs).__name__}: give tensor.unbind(1) of [batch, num_unroll, ...]"
        )
    steps = list(inputs)
    if not steps:
        raise errors.ArgumentError("inputs: expected a tensor [batch, ...] for each step, got none")
    for leaf in _leaves(steps[0]):
        if isinstance(leaf, np.ndarray):
            raise errors.ArgumentError(
                f"inputs: expected tensors, got {type(leaf).__name__}: segue.torch.wrap(loader) "
                "gives such"
            )
    return steps


def _check_rows(inputs: Any, state: Any) -> None:
    rows = len(next(_leaves(state)))
    for leaf in _leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.shape[:1] != (rows,):
            raise errors.ArgumentError(
                f"inputs: of shape {tuple(leaf.shape)}, and the batch has {rows} rows: give "
                "tensor.unbind(1) of [batch, num_unroll, ...]"
            )


def _check_cell(cell: Any, names: Any) -> None:
    """Cells whose state is known; what others return is looked at when they have."""
    if isinstance(cell, torch.nn.RNNBase):
        kind = type(cell).__name__
        raise errors.ArgumentError(
            f"cell: torch.nn.{kind} takes whole sequences: give a cell, torch.nn.{kind}Cell"
        )
    if isinstance(cell, torch.nn.LSTMCell) and not _alike((0, 0), names):
        raise _mismatch(names, "the state of torch.nn.LSTMCell is a tuple (h, c)")
    if isinstance(cell, (torch.nn.GRUCell, torch.nn.RNNCell)) and isinstance(names, tuple):
        raise _mismatch(names, f"the state of torch.nn.{type(cell).__name__} is one tensor")


def _mismatch(names: Any, what: str) -> errors.ArgumentError:
    return errors.ArgumentError(f"state_name: {names!r} is not nested like the state: {what}")


def _read(saver: StateSaver, name: str, device: Any) -> torch.Tensor:
    """A copy of a state: the batch's own is read only, and is given up with the batch."""
    value = saver.state(name)
    if not isinstance(value, torch.Tensor):
        value = from_dlpack(value)
    copy: torch.Tensor = value.detach().to(device=device, copy=True)
    return copy


def _lengths(given: Any, state: torch.Tensor) -> torch.Tensor:
    """`sequence_length` as a tensor beside a state."""
    lengths = given if isinstance(given, torch.Tensor) else torch.from_numpy(np.array(given))
    if lengths.shape != state.shape[:1]:
        raise errors.ArgumentError(
            f"sequence_length: expected one number for each of {state.shape[0]} rows, got shape "
            f"{tuple(lengths.shape)}"
        )
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise errors.ArgumentError(f"sequence_length: expected whole numbers, got {lengths.dtype}")
    return lengths.to(state.device, torch.int64)


def _split(result: Any, names: Any) -> tuple[Any, State]:
    """Output and new state of what a cell has returned."""
    if _is_state(result, names):
        return (next(_leaves(result)), _map(lambda part: part, result))
    if isinstance(result, (tuple, list)) and len(result) == 2 and _is_state(result[1], names):
        return result[0], _map(lambda part: part, result[1])
    raise _mismatch(names, f"the cell has returned {_shape(result)}")


def _choose(valid: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """`new` in the rows that are valid, else `old`."""
    if (new.dtype, new.shape) != (old.dtype, old.shape):
        raise errors.ArgumentError(
            f"cell: the new state is {new.dtype} of shape {tuple(new.shape)}, the one before it "
            f"{old.dtype} of shape {tuple(old.shape)}"
        )
    return torch.where(valid.reshape(-1, *[1] * (new.dim() - 1)), new, old)

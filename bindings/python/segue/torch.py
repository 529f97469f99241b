"""For PyTorch: a recurrent cell over the steps of a batch, whose states it reads and saves.

Needs PyTorch, and is imported by itself: ``import segue.torch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from . import errors

try:
    import torch
    from torch.utils.dlpack import from_dlpack
except ImportError as error:
    raise ImportError(
        "segue.torch needs PyTorch, which is not installed: pip install torch"
    ) from error

__all__ = ["StateSaver", "static_state_saving_rnn"]

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
        One a step, each ``[batch, ...]``: ``torch.from_dlpack(batch.sequences["x"]).unbind(1)``.
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
                f"inputs: expected tensors, got {type(leaf).__name__}: torch.from_dlpack(array) "
                "makes one"
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

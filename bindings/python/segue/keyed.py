"""States by record key: read, put and deleted, while nobody trains on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arrays, _segue, errors

_DTYPES = {code: name for name, code in _segue.DTYPES.items()}
_KINDS = {_segue.STATES_FINAL: "final", _segue.STATES_PUT: "put", _segue.STATES_LIVE: "live"}


def key_bytes(key: str | bytes) -> bytes:
    """Return the bytes of a record's key, as the library takes them."""
    if isinstance(key, str):
        try:
            key = key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise errors.ArgumentError(f"key: {key!r}: {error.reason}") from None
    if not isinstance(key, bytes):
        raise TypeError(f"key: expected str or bytes, got {type(key).__name__}")
    if b"\0" in key:
        raise errors.ArgumentError(f"key: {key!r} holds a NUL: no such key can be asked for")
    return key


def checked_group(group: str | None) -> str | None:
    """Return the name of a group, as the library takes it."""
    if group is not None and not isinstance(group, str):
        raise TypeError(f"group: expected str, got {type(group).__name__}")
    if group and "\0" in group:
        raise errors.ArgumentError(f"group: {group!r} holds a NUL: no group has that name")
    return group


@dataclass(frozen=True)
class KeyStates:
    """The states of one row, under a record's key.

    Attributes
    ----------
    kind : str
        ``"final"``: of a sequence that has ended; ``"put"``: by `States.put`; ``"live"``: of a
        sequence that goes on, as of its lane's last commit on disk.
    lane : int
    step : int or None
        Batches that the lane had committed when they came (of what ended with batch *t*: *t* + 1),
        or, of ``"live"``, has: `Loader.load_state_dict` to that step or a later one keeps them,
        to an earlier one takes them back. None: the store was written before this was kept.
    number : int
        Of the sequence; of ``"put"``: of the sequence below which they stand.
    states : dict of str to numpy.ndarray
        By name, each ``shape`` of the state, without a dimension for rows; copies.
    """

    kind: str
    lane: int
    step: int | None
    number: int
    states: dict[str, np.ndarray]


class States:
    """What the store has under the keys of a stream's records; made by `Client.states`.

    Final states, which ``keep_final=True`` keeps, can be read, put and deleted by the record's key;
    those of sequences that go on can be read.

    What is put counts at the committed step of a lane, and goes back with it: going back
    (`Loader.load_state_dict`) to that step or a later one keeps it, to an earlier one takes it
    back, and ``start="fresh"`` drops it. It takes the place of all that is under the key, and of
    what a sequence of that key that has begun will leave; one that begins later takes its place.
    The same holds of a deletion.

    The lane is one in which the key may come. With ``lanes_by="record"``, once a sequence of the
    key has come, it is the lane of that (keys are taken to be those of one record each); else the
    key may come in any lane, and what is put counts at lane 0's step. With ``initial="kept"``, where
    rows begin with it, it is put in each lane in which the key has come, or, if it has in none, in
    all, and counts at each one's step. Nothing can be put or deleted while a process, also this
    one, holds a lane in which the key may come: close its loader.
    """

    def __init__(self, handle: _segue.Client, stream: str, group: str | None) -> None:
        self._handle = handle
        self.stream = stream
        self.group = group
        _, _, fields, _ = handle.find(stream)
        self._fields = [(name, _DTYPES[code], tuple(shape)) for name, code, shape, *_ in fields]

    def __repr__(self) -> str:
        group = f", group {self.group!r}" if self.group else ""
        return f"<segue.States of {self.stream!r}{group}>"

    def get(
        self, key: str | bytes, default: Any = None, *, live: bool = False
    ) -> KeyStates | Any:
        """Return what is kept under a key, or `default`.

        Parameters
        ----------
        key : str or bytes
            The record's own, as `Client.get` takes it.
        live : bool
            True: the states of the newest sequence of that key that goes on instead.

        Raises
        ------
        ArgumentError
            The key is empty or too long, or holds a NUL byte, or surrogates that stand for no byte.
        """
        name = key_bytes(key)
        try:
            return self._made(self._handle.states_get(self.stream, self.group, name, live))[1]
        except errors.NotFoundError:
            return default

    def items(self, *, live: bool = False) -> Iterator[tuple[bytes, KeyStates]]:
        """Yield the key and the states of all that is kept, in no order that means anything.

        It is read page by page: what changes meanwhile may be missed, or seen twice.

        Parameters
        ----------
        live : bool
            True: those of all sequences that go on instead; a key may come several times.
        """
        cursor: tuple[int, int, int] | None = (0, 0, 0)
        while cursor is not None:
            page, cursor = self._handle.states_list(self.stream, self.group, live, *cursor)
            yield from map(self._made, page)

    def put(self, key: str | bytes, states: Mapping[str, Any]) -> None:
        """Put states under a key, in the place of what is kept there; on disk when it returns.

        Parameters
        ----------
        key : str or bytes
            That of a record, or any other of at most 4096 bytes.
        states : mapping of str to array
            All states of the stream, each of its dtype and shape, without a dimension for rows.

        Raises
        ------
        BusyError
            A lane in which the key may come is held; names it, and the process. Nothing was put;
            after a server was lost meanwhile, it may have been.
        SpecError
            The stream was made without ``keep_final=True``, or has no states.
        StateNameError, StateTypeError, StateShapeError
            A state is missing or was not declared; the dtype or the shape is another.
        NotFoundError
            The stream, or the group, was dropped (also a ``KeyError``).
        ArgumentError
            The key cannot be, as of `get`.
        """
        name = key_bytes(key)
        if not isinstance(states, Mapping):
            raise _arrays.surplus("put", [field for field, _, _ in self._fields], states)
        declared = ", ".join(repr(field) for field, _, _ in self._fields) or "none"
        for given in (*states, *(field for field, _, _ in self._fields)):
            if given not in states or all(given != field for field, _, _ in self._fields):
                wrong = "was not declared" if given in states else "is missing"
                raise errors.StateNameError(
                    f"put: state {given!r} {wrong}; all states of stream {self.stream!r} are "
                    f"wanted: {declared}"
                )
        row = b"".join(_state_bytes(*field, states[field[0]]) for field in self._fields)
        self._handle.states_put(self.stream, self.group, name, row)

    def delete(self, key: str | bytes) -> None:
        """Delete what is kept under a key, as `put` puts it; it is fine if nothing is.

        Raises
        ------
        BusyError, SpecError, NotFoundError, ArgumentError
            As `put`.
        """
        self._handle.states_delete(self.stream, self.group, key_bytes(key))

    def _made(
        self, found: tuple[bytes, int, int, int, int, bytes]
    ) -> tuple[bytes, KeyStates]:
        key, kind, lane, step, number, row = found
        states, at = {}, 0
        for name, dtype, shape in self._fields:
            short = dtype == "bfloat16"
            flat = np.frombuffer(
                row, np.uint16 if short else dtype, int(np.prod(shape, dtype=np.int64)), at
            )
            at += flat.nbytes
            whole = flat.copy().reshape(shape)
            states[name] = _arrays.over_bits(whole) if short else whole
        told = None if step == 2**64 - 1 else step
        return key, KeyStates(_KINDS[kind], lane, told, number, states)


def _state_bytes(name: str, dtype: str, shape: tuple[int, ...], value: Any) -> bytes:
    array = _arrays.to_array(name, value, dtype)
    bits = _arrays.to_bits(array) if dtype == "bfloat16" else array
    if bits is None or array.shape != shape or (bits is array and array.dtype != np.dtype(dtype)):
        raise _arrays.mismatch(name, dtype, shape, array, in_batch=False)
    return bits.tobytes()

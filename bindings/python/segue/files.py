"""Sequence files, segue's own format (``docs/format.md``): the writer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from . import _segue, errors
from ._closing import of_one_process
from .spec import Feature, State, _named, path_bytes


class FileWriter:
    """Writes a sequence file: many sequences, each with its arrays. A context manager.

    The file is finished by `close`, which the end of the ``with`` block calls: then it is on disk,
    and streams read it. Until then up to 1 MiB of it is in this process alone; the rest is what
    ``segue repair`` can keep if the process is killed. An exception in the block removes the file:
    half a data set has nobody who asked for it, and would be in the way of the next try, which does
    not write over a file. With ``keep_partial=True`` it stays, unfinished, with the sequences that
    were written; streams refuse it.

    Parameters
    ----------
    path : path
        The file, which must not be there yet.
    sequences : mapping of str to Feature
        What has a value a step; at least one.
    context : mapping of str to Feature, optional
        What has one value a sequence.
    states : mapping of str to State, optional
        States whose value in the first segment comes with each sequence.
    keep_partial : bool
        Leave the file if the ``with`` block is left by an exception.

    Raises
    ------
    ArgumentError
        A feature that cannot be; the message names it.
    SystemCallError
        The file is there already, or cannot be made.
    NoSpaceError
        The disk is full.

    Examples
    --------
    ::

        with segue.FileWriter("train.segue", {"x": segue.Feature("float32", 3)}) as writer:
            for x in recordings:            # each [steps, 3]
                writer.write({"x": x})
    """

    __reduce__ = of_one_process

    def __init__(
        self,
        path: str | os.PathLike[str],
        sequences: Mapping[str, Feature],
        context: Mapping[str, Feature] | None = None,
        states: Mapping[str, State] | None = None,
        *,
        keep_partial: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self._keep_partial = keep_partial
        self._handle = _segue.file_writer(
            path_bytes("path", path),
            _named("sequences", sequences, Feature),
            _named("context", context or {}, Feature),
            [state[:4] for state in _named("states", states or {}, State)],
        )

    def __repr__(self) -> str:
        sequences, steps, size = self._handle.written
        closed = ", closed" if self.closed else ""
        return (
            f"<segue.FileWriter: {self.path}: {sequences} sequences, {steps} steps, "
            f"{size} bytes{closed}>"
        )

    @property
    def closed(self) -> bool:
        """Whether it is closed, by whatever way."""
        return self._handle.closed

    @property
    def sequences_written(self) -> int:
        """Sequences that are in the file."""
        return self._handle.written[0]

    @property
    def steps_written(self) -> int:
        """Steps of all of them."""
        return self._handle.written[1]

    @property
    def bytes_written(self) -> int:
        """Bytes of the file."""
        return self._handle.written[2]

    def write(
        self,
        sequences: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        key: str | bytes | None = None,
        length: int | None = None,
        initial_states: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a sequence. If it raises, the file has nothing of this one, and can go on.

        Parameters
        ----------
        sequences : mapping of str to array
            ``[steps, *shape]`` of each sequence feature, all with the same number of steps (1 to
            2**32 - 1) and of the declared dtype. Contiguous arrays are written without a copy;
            tensors and lists of numbers are made arrays first. Of a ragged feature a list of what
            each step has, or `Ragged`; of bytes a list of bytes (or str, written as UTF-8).
        context : mapping of str to array, optional
            ``[*shape]`` of each context feature; of a ragged one ``[any]``; of bytes one of them.
        key : str or bytes, optional
            The sequence's key, 1 to 4096 bytes; else ``"<file name>:<number in the file>"``.
        length : int, optional
            Steps that count, if these are not all of the arrays; up to their steps rounded up to the
            `num_unroll` of the stream, which takes what is missing for zeros.
        initial_states : mapping of str to array, optional
            ``[*shape]`` of each state in the first segment; else the `init` of its `State`. With
            ``init="data"`` each sequence must have one.

        Raises
        ------
        ArgumentError
            An array that is missing, not declared, or of another dtype or shape: names the
            feature, what was expected and what came. A key or length that cannot be.
        NoSpaceError, SystemCallError
            It cannot be written.
        ClosedError, BusyError
            The writer is closed, or in another call.
        """
        self._handle.add(sequences, context, initial_states, key, length, True)

    def close(self) -> None:
        """Finish the file; when this returns, it is on disk. Of no effect the second time.

        Raises
        ------
        NoSpaceError, SystemCallError
            The file is not finished. After a `NoSpaceError` this may be called again.
        """
        if not self.closed:
            self._handle.close()

    def abort(self) -> None:
        """Remove the file, if it is not finished."""
        if not self.closed:
            self._handle.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self._end()

    def _end(self) -> None:
        """Leave or remove a file that could not be finished; what was raised is better news."""
        if self.closed:
            return
        try:
            if not self._keep_partial:
                self._handle.abort()
        except errors.Error:
            pass
        if not self.closed:
            self._handle.leave()

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None and not handle.closed:
            warnings.warn(
                f"the writer of {self.path} was not closed: the file is not finished",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

"""What clients, streams, loaders, producers and writers have in common."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn, Self

from . import _segue, errors


def of_one_process(self: Any) -> NoReturn:
    """``__reduce__`` of what is neither pickled nor copied."""
    raise TypeError(
        f"cannot pickle or copy a segue.{type(self).__name__}: it belongs to the process that made "
        "it"
    )


class Closing:
    """Closed at the end of a ``with`` block; what ended the block is not hidden by `close`."""

    def close(self) -> None:
        raise NotImplementedError

    def _close(self, commit: bool) -> None:
        """Close; without `commit` what is open is not committed, though all of it was saved."""
        raise NotImplementedError

    def __reduce__(self) -> NoReturn:
        _segue.refuse_pickle(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._close(commit=error is None)
        except (errors.Error, Warning):
            if error is None:  # what ended the block is the better news
                raise

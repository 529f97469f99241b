"""What clients, streams and loaders have in common as context managers."""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, Self

from . import _segue, errors


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

"""For trainers that take an iterator as Grain has it (MaxText, and what saves by Orbax).

Needs nothing beside segue, and is imported by itself: ``import segue.grain``.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any, Self

from . import errors
from ._wrapped import Way
from .loader import Loader

__all__ = ["DatasetIterator"]


class DatasetIterator:
    """An iterator over a loader's batches with the methods of Grain's iterators.

    Parameters
    ----------
    loader : Loader, or what `segue.jax.wrap` or `segue.torch.wrap` makes of one
        In the main process: the server has the workers. Each process saves the state of its own
        lanes, as Grain's iterators do: as many processes as before have to restore it.

    Examples
    --------
    ::

        batches = segue.grain.DatasetIterator(segue.jax.wrap(stream.loader(start="continue")))
        grain.checkpoint.CheckpointHandler().save(directory, batches)
    """

    def __init__(self, loader: Loader | Way[Any]) -> None:
        if not isinstance(loader, (Loader, Way)):
            raise TypeError(f"loader: expected segue.Loader, got {type(loader).__name__}")
        self._loader = loader
        self._batches: Any = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = iter(self._loader)
        return self._batches.next_for(sys._getframe(1))

    def get_state(self) -> bytes:
        """Return JSON: the tokens of `Loader.state_dict`, which commits what is open."""
        tokens = self._loader.state_dict()
        return json.dumps({k: base64.b64encode(v).decode() for k, v in tokens.items()}).encode()

    def set_state(self, state: bytes) -> None:
        """Go to a state that `get_state` has returned.

        Raises
        ------
        TokenError
            It is not such, or of another stream.
        """
        try:
            tokens = {k: base64.b64decode(v, validate=True) for k, v in json.loads(state).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise errors.TokenError(
                f"set_state() was given what get_state() does not return: {error}"
            ) from error
        self._loader.load_state_dict(tokens)
        self._batches = None

    def start_prefetch(self) -> None:
        """Do nothing: the server fills batches ahead from the first one on."""

    def close(self) -> None:
        """Close the loader: `Loader.close`."""
        self._loader.close()

"""Policies of states: what a row that goes on is handed instead of the state that it left."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from .errors import ArgumentError

_ZERO = 1  # of ``enum segue_policy``


@dataclass(frozen=True)
class Policy:
    """A policy of a `State`, made by `zero`: its code and its probability."""

    _code: int
    _probability: float

    def __repr__(self) -> str:
        return f"segue.zero({self._probability!r})"


def zero(p: float) -> Policy:
    """With probability `p`, at each segment that is not a sequence's first: the initial value.

    For ``State(..., policy=segue.zero(0.1))``. What is handed out is the initial value then, for
    that row and state alone; what is committed stays as it was saved. It is drawn from the
    stream's `seed`, the state, the sequence and the segment: the same after any resume, and for
    any number of workers (``docs/policy.md``).

    Parameters
    ----------
    p : float
        Above 0, at most 1.

    Raises
    ------
    ArgumentError
        Another `p`.
    """
    value: Any = p
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < float(value) <= 1:
        raise ArgumentError(f"zero: p is {p!r}; it must be a number above 0, and at most 1")
    return Policy(_ZERO, float(value))

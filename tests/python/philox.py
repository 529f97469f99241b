"""Philox4x32-10 and the draws of docs/policy.md, written again in plain Python for the tests.

Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from fractions import Fraction

_WORD = (1 << 32) - 1


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Four words of 32 bits."""
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        left, right = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = right >> 32 ^ x1 ^ k0, right & _WORD, left >> 32 ^ x3 ^ k1, left & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return x0, x1, x2, x3


def zeroes(p: float, seed: int, state: int, number: int, segment: int) -> bool:
    """Whether state `state` is handed out as its initial value; `segment` is not the first."""
    key = (seed & _WORD, seed >> 32)
    low, high, _, _ = philox(key, (number & _WORD, number >> 32, segment, state))
    return Fraction((high << 32 | low) >> 11, 1 << 53) < Fraction(p)


def _drawn(seed: int, number: int, segment: int, which: int) -> int:
    low, high, _, _ = philox(
        (seed & _WORD, seed >> 32), (number & _WORD, number >> 32, segment, which)
    )
    return (high << 32 | low) >> 1


def seed(seed: int, number: int) -> int:
    """`Batch.seed` of sequence `number`."""
    return _drawn(seed, number, 0, _WORD)


def segment_seed(seed: int, number: int, segment: int) -> int:
    """`Batch.segment_seed` of a segment of it."""
    return _drawn(seed, number, segment, _WORD - 1)

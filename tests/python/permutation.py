"""The shuffle permutation of docs/shuffle.md, written again in plain Python for the tests.

A keyed Feistel network over the smallest even number of bits that holds n - 1, with cycle walking:
the result is run through the network again until it falls below n.
"""

from __future__ import annotations

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = 8


def splitmix64_mix(z: int) -> int:
    """The finalizer of SplitMix64: a bijection of the 64-bit words."""
    z &= _WORD
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & _WORD
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & _WORD
    return z ^ z >> 31


def permute(seed: int, epoch: int, i: int, n: int) -> int:
    """Record that stands at place `i` of epoch `epoch`, of `n` records."""
    if n < 1 or not 0 <= i < n:
        raise ValueError(f"place {i} of {n} records")
    if n == 1:
        return 0
    bits = max(2, (n - 1).bit_length())
    bits += bits % 2
    half = bits // 2
    mask = (1 << half) - 1
    key = splitmix64_mix(seed ^ splitmix64_mix(epoch + _GAMMA))
    value = i
    while True:
        left, right = value >> half, value & mask
        for r in range(_ROUNDS):
            mixed = splitmix64_mix(right + (r + 1) * _GAMMA + key) & mask
            left, right = right, left ^ mixed
        value = left << half | right
        if value < n:
            return value

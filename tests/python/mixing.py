"""The order of a mix, from docs/mix.md alone: sequence by sequence, nothing computed ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import permutation

BLOCK = 1024


class Part(NamedTuple):
    records: int
    weight: int
    epochs: int | None
    log: bool = False  # `records`: those that are in it


def quotas(weights: Sequence[int]) -> list[int]:
    total = sum(weights)
    shares = [BLOCK * weight // total for weight in weights]
    rests = [BLOCK * weight % total for weight in weights]
    first = sorted(range(len(weights)), key=lambda c: -rests[c])  # stable: of equal ones the first
    for c in first[: BLOCK - sum(shares)]:
        shares[c] += 1
    return shares


def order(parts: Sequence[Part], seed: int, shuffle: bool) -> Iterator[tuple[int, int]]:
    """(part, record) of each number, up to the end."""
    slots = [c for c, quota in enumerate(quotas([p.weight for p in parts])) for _ in range(quota)]
    taken = [0] * len(parts)
    number = 0
    while True:
        block, i = divmod(number, BLOCK)
        c = slots[permutation.permute(2**64 - 1 - seed, block, i, BLOCK)]
        part, place = parts[c], taken[c]
        if part.epochs is not None and place == part.records * part.epochs:
            return
        passes, at = divmod(place, part.records)
        if shuffle and not part.log:
            at = permutation.permute((seed + c) % 2**64, passes, at, part.records)
        yield c, at
        taken[c] += 1
        number += 1

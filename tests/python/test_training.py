"""Trainings that are killed at random give what an unbroken one gives, bit for bit.

SEGUE_TEST_RUNS is the number of trainings (4), SEGUE_TEST_SEED gives the same again,
SEGUE_TEST_CASE is one of them to be run alone.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import training


def test_killed_trainings_are_bit_identical(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_RUNS") or 4)
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed}")
    kinds: Counter[str] = Counter()
    kills = rounds = 0
    for number in [int(only)] if only else range(count):
        rng = np.random.default_rng([seed, number, 2])
        config = training.make_config(number, tmp_path / f"training-{number}", rng)
        config.directory.mkdir()
        workers = (1, 2, 4)[number % 3]
        plan: list[training.Kill] = []
        try:
            wanted = training.run_reference(config)
            plan = training.make_kills(rng, number, wanted)
            run = training.Run(config, wanted, plan, workers)
            run.run()
            assert run.done == len(plan), f"{run.done} of {len(plan)} kills"
        except BaseException as error:
            error.add_note(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_CASE={number}: {config}\n{plan}")
            raise
        kills += run.done
        rounds += run.life
        kinds.update(kill.kind for kill in plan)
    print(f"{count} trainings, {kills} kills: {dict(kinds)}")


@pytest.mark.parametrize("broken", ["", *training.BROKEN])
def test_a_wrong_way_back_is_seen(tmp_path: Path, broken: str) -> None:
    """The comparison can fail: each of these recipes goes back to a wrong place."""
    config = training.make_config(0, tmp_path, np.random.default_rng(7))
    config = dataclasses.replace(config, durability="commit", pair_every=4)
    wanted = training.run_reference(config)
    assert len(wanted.rounds) > 20
    kills = [training.Kill(10, "everything", 0.001)]
    run = training.Run(config, wanted, kills, 2, broken)
    if not broken:
        run.run()
        return
    with pytest.raises(AssertionError, match="weights before|after round|worker failed|round 8"):
        run.run()

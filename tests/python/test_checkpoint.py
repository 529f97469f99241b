"""Checkpoints in the store, and final states that go back with them.

What the store should hold is kept beside it, in plain dicts: of each lane the final states of all
sequences that have ended on its way, by the step at which they ended, and the checkpoints taken on
it. Which sequences end where says the plain model of the stream. The states that are saved differ
from life to life, so that none of an abandoned one can pass for one of now.

SEGUE_TEST_SEED gives the same histories again, SEGUE_TEST_CHECKPOINTS is how many there are.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import oracle
import segue
from test_resume import kill, refused, server_pid, simple

LENGTHS = (9, 4, 1, 7, 12, 3, 8, 5, 2, 2, 6)


@dataclasses.dataclass
class Version:
    step: int
    key: str
    value: float


@dataclasses.dataclass
class Lane:
    """What a lane's past is, and what the store should hold of it."""

    batches: list[oracle.Batch]
    step: int = 0
    live: dict[int, float] = dataclasses.field(default_factory=dict)  # by sequence number
    finals: dict[int, Version] = dataclasses.field(default_factory=dict)
    stored: dict[int, tuple[int, bytes]] = dataclasses.field(default_factory=dict)  # by step
    next_id: int = 1

    def floor(self) -> float:
        return min(self.stored, default=float("inf"))

    def checkpoint(self, token: bytes, keep: int) -> None:
        if self.step in self.stored and self.stored[self.step][1] == token:
            return
        self.stored[self.step] = (self.next_id, token)
        self.next_id += 1
        for step, _ in sorted(self.stored.items(), key=lambda item: item[1][0])[:-keep]:
            del self.stored[step]

    def restore(self, step: int, live: dict[int, float]) -> None:
        self.finals = {n: v for n, v in self.finals.items() if v.step < step}
        self.stored = {at: one for at, one in self.stored.items() if at <= step}
        self.step, self.live = step, dict(live)


class History:
    """One store, its worker, and the dicts beside it."""

    def __init__(self, rng: np.random.Generator, directory: Path) -> None:
        self.rng, self.directory = rng, directory
        lanes = int(rng.integers(1, 4))
        self.keep = int(rng.integers(1, 4))
        self.case = simple(
            directory,
            tuple(LENGTHS[: int(rng.integers(4, len(LENGTHS)))]),
            lanes=lanes,
            batch_size=int(rng.integers(1, 4)),
            epochs=None,
            shuffle=bool(rng.integers(4)),
            seed=int(rng.integers(2**32)),
            epoch_end=str(rng.choice(["continue", "drain"])),
            states={"h": oracle.State("float64", (2,), -1.0)},
            keep_final=True,
            durability="commit",
            depth=int(rng.integers(2, 5)),
        )
        plain = oracle.Model([file.records for file in self.case.files], self.case.spec)
        self.lanes = [Lane(list(islice(plain.batches(lane), 120))) for lane in range(lanes)]
        self.life = 0.0
        self.tokens: list[tuple[int, int, bytes, dict[int, float]]] = []
        self.log: list[str] = []
        self.open("fresh")

    def open(self, start: str) -> None:
        self.client = segue.open(self.directory / "store")
        self.stream = cases.open_stream(
            self.client, self.case, self.directory, keep_checkpoints=self.keep
        )
        self.loaders = [
            self.stream.loader(lanes=[lane], start=start) for lane in range(len(self.lanes))
        ]
        self.batches = [iter(loader) for loader in self.loaders]

    def close(self) -> None:
        for loader in self.loaders:
            loader.close()
        self.client.close()

    # -- what happens --------------------------------------------------------------------------

    def run(self, lane: int) -> None:
        model = self.lanes[lane]
        for _ in range(int(self.rng.integers(1, 12))):
            if model.step >= len(model.batches):
                return
            self.one(lane, model, model.batches[model.step])

    def one(self, lane: int, model: Lane, want: oracle.Batch) -> None:
        batch = next(self.batches[lane])
        assert (batch.lane, batch.step, batch.key) == (lane, want.step, want.key)
        for row, number in enumerate(want.insertion_index):
            first = -1.0 if want.is_first[row] else model.live[number]
            assert batch.state("h")[row].tolist() == [first, first], f"state in of {number}"
        values = [
            self.life + want.step + number / 1e4 for number in want.insertion_index
        ]
        batch.save_state("h", np.array([[value, value] for value in values]))
        batch.commit()
        model.step += 1
        for row, number in enumerate(want.insertion_index):
            model.live[number] = values[row]
            if want.is_last[row]:
                key = want.key[row].decode().partition(":")[2]
                model.finals[number] = Version(want.step, key, model.live.pop(number))

    def checkpoint(self, lane: int) -> None:
        model = self.lanes[lane]
        token = self.loaders[lane].state_dict()[f"lane/{lane}"]
        model.checkpoint(token, self.keep)
        self.tokens.append((lane, model.step, token, dict(model.live)))

    def restore(self, lane: int) -> None:
        """Not further back than the oldest stored one, behind which final states stay."""
        model = self.lanes[lane]
        floor = model.floor()
        known = [t for t in self.tokens if t[0] == lane and floor <= t[1] <= model.step]
        if not known:
            return
        _, step, token, live = known[int(self.rng.integers(len(known)))]
        self.log.append(f"  to step {step}")
        self.loaders[lane].load_state_dict({f"lane/{lane}": token})
        self.batches[lane] = iter(self.loaders[lane])
        model.restore(step, live)
        self.life += 1000

    def kill_server(self, lane: int) -> None:
        kill(server_pid(self.client))

    def kill_all(self, lane: int) -> None:
        kill(server_pid(self.client))
        self.client.close()  # everything is on disk: it does not start another
        self.open("continue")

    def fresh(self, lane: int) -> None:
        self.close()
        self.open("fresh")
        for i, model in enumerate(self.lanes):
            self.lanes[i] = Lane(model.batches, next_id=model.next_id)
            self.checkpoint(i)  # attaches
        self.life += 1000

    # -- what the store should hold -------------------------------------------------------------

    def compare(self) -> None:
        stored = [(c["lane"], c["step"], c["id"]) for c in self.stream.checkpoints()]
        wanted = [
            (lane, step, id)
            for lane, model in enumerate(self.lanes)
            for step, (id, _) in sorted(model.stored.items())
        ]
        assert stored == wanted
        current: dict[str, tuple[int, int, float]] = {}
        for lane, model in enumerate(self.lanes):
            for number, version in model.finals.items():
                if number >= current.get(version.key, (-1,))[0]:
                    current[version.key] = (number, lane, version.value)
        for record in self.case.files[0].records:
            assert self.final(record.key) == current.get(record.key), record.key

    def final(self, key: str) -> tuple[int, int, float] | None:
        try:
            found = self.client.get(key, self.stream.name)["found"]
        except segue.NotFoundError:
            return None
        finals = [hit for hit in found if hit["kind"] == "final"]
        if not finals:
            return None
        [hit] = finals
        value, again = hit["states"]["h"]["values"]
        assert value == again
        return hit["number"], hit["lane"], value

    def play(self, acts: int) -> None:
        ways = [self.run] * 8 + [self.checkpoint] * 4 + [self.restore] * 3
        ways += [self.kill_server, self.kill_all] + [self.fresh] * int(self.rng.integers(2))
        for _ in range(acts):
            act = ways[int(self.rng.integers(len(ways)))]
            lane = int(self.rng.integers(len(self.lanes)))
            self.log.append(f"{act.__name__}({lane}) at {self.lanes[lane].step}")
            act(lane)
            self.compare()


def test_final_states_go_back_with_their_lane(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_CHECKPOINTS") or 12)
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_CHECKPOINTS={count}")
    for number in [int(only)] if only else range(count):
        directory = tmp_path / str(number)
        directory.mkdir()
        history = History(np.random.default_rng([seed, number]), directory)
        try:
            history.play(40)
        except BaseException as error:
            error.add_note(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_CASE={number}")
            error.add_note("\n".join(history.log))
            raise
        history.close()

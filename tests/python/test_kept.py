"""initial="kept": what the random streams of test_equal.py and test_resume.py do not show."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State

LENGTHS = (3, 1, 2, 4, 1)
KEYS = ("a", "b", "a", "c", "c")  # where some are of one key


def opened(client: segue.Client, path: Path, name: str = "train", **options: Any) -> segue.Stream:
    if not path.exists():
        with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
            for record, length in enumerate(LENGTHS):
                writer.write({"x": np.full(length, record, np.int32)})
    given = {
        "source": segue.Files(path),
        "sequences": {"x": Feature("int32")},
        "states": {"h": State("int64", init=7), "n": State("int32", 2)},
        "num_unroll": 1,
        "batch_size": 2,
        "lanes": 1,
        "epochs": 4,
        "lanes_by": "record",
        "keep_final": True,
        "initial": "kept",
    }
    return client.stream(name, **{**given, **options})


def work(batch: segue.Batch) -> None:
    batch.save_state("h", batch.state("h") + 1)
    batch.save_state("n", batch.state("n") + 100 + np.arange(2, dtype="int32"))
    batch.commit()


def test_steps_are_counted_over_epochs(client: segue.Client, tmp_path: Path) -> None:
    """A row begins with all states that its key has left, and says so."""
    steps = dict.fromkeys(range(len(LENGTHS)), 0)
    begun = 0
    with opened(client, tmp_path / "a.segue", depth=8).loader(start="fresh") as loader:
        for batch in loader:
            for row, record in enumerate(batch.sequences["x"][:, 0].tolist()):
                n = steps[record]
                assert batch.state("h")[row] == 7 + n
                assert batch.state("n")[row].tolist() == [100 * n, 101 * n]
                first = bool(batch.is_first[row])
                assert batch.is_kept[row] == (first and n > 0)
                begun += first and n > 0
                steps[record] += 1
            work(batch)
    assert begun == 3 * len(LENGTHS)
    assert steps == {record: 4 * n for record, n in enumerate(LENGTHS)}


def test_what_is_not_committed_comes_again_the_same(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", batch_size=1)
    seen: list[tuple[int, int, bool]] = []

    def note(batch: segue.Batch) -> tuple[int, int, bool]:
        return batch.step, int(batch.state("h")[0]), bool(batch.is_kept[0])

    for _ in range(30):  # a loader for each batch, and the batch is seen before by another
        with stream.loader(start="continue") as loader:
            again = note(next(iter(loader)))
        with stream.loader(start="continue") as loader:
            batch = next(iter(loader))
            assert note(batch) == again
            seen.append(again)
            work(batch)
            batch.release()
            del batch
    assert [step for step, _, _ in seen] == list(range(30))
    at = 0
    for epoch in range(3):
        for length in LENGTHS:
            if at + length > 30:
                break
            assert seen[at] == (at, 7 + epoch * length, epoch > 0)
            at += length


def test_the_highest_number_of_a_key_counts(client: segue.Client, tmp_path: Path) -> None:
    """Of several records of one key, in one lane: not the one that ended last."""
    path = tmp_path / "a.segue"
    with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
        for length in (4, 1, 1):
            writer.write({"x": np.zeros(length, np.int32)}, key="same")
    with opened(client, path, states={"h": State("int64")}).loader(start="fresh") as loader:
        rows = []
        for batch in loader:
            for row, number in enumerate(batch.insertion_index.tolist()):
                if batch.is_first[row]:
                    rows.append((number, int(batch.state("h")[row])))
            batch.save_state("h", batch.insertion_index * 10 + batch.sequence)
            batch.commit()
            if batch.step == 8:
                break
    # 0 and 1 begin; 2 after 1; 3, of four steps, after 2; 4 where 0 has ended, and 2 counts still.
    assert rows[:6] == [(0, 0), (1, 0), (2, 10), (3, 20), (4, 20), (5, 40)], rows


def test_keys_of_other_lanes_are_others(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "a.segue"
    with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
        for _ in range(2):
            writer.write({"x": np.zeros(1, np.int32)}, key="same")
    options = {"states": {"h": State("int64")}, "lanes": 2, "batch_size": 1, "epochs": 20}
    stream = opened(client, path, **options, interval=0.01)
    for lane, steps in ((0, 1), (1, 20), (0, 20)):  # the second is far ahead, and settles its own
        with stream.loader(lanes=[lane], start="continue") as loader:
            for batch in loader:
                assert batch.state("h")[0] == batch.step * (lane + 1)
                assert batch.is_kept[0] == (batch.step > 0)
                batch.save_state("h", batch.state("h") + lane + 1)
                batch.commit(wait=True)
                if batch.step + 1 == steps:
                    break


def test_a_deletion_is_of_each_lane(client: segue.Client, tmp_path: Path) -> None:
    """Also where the key's newest, in a lane that is ahead, is deleted already."""
    path = tmp_path / "a.segue"
    with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
        for _ in range(2):
            writer.write({"x": np.zeros(1, np.int32)}, key="same")
    options = {"states": {"h": State("int64")}, "lanes": 2, "batch_size": 1, "epochs": 20}
    stream = opened(client, path, **options)
    kept = client.states("train")
    for lane, steps, begins in ((0, 9, 0), (1, 2, 0), (1, 4, 2), (1, 6, 0), (0, 12, 0)):
        with stream.loader(lanes=[lane], start="continue") as loader:
            for batch in loader:
                if begins is not None:
                    assert batch.state("h")[0] == begins
                begins = None
                batch.save_state("h", batch.state("h") + 1)
                batch.commit()
                if batch.step + 1 == steps:
                    break
        if steps != 2:
            kept.delete("same")


def test_what_does_not_go_together(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "a.segue"
    for options, text in (
        ({"keep_final": False}, "initial is kept and keep_final false: a row begins with"),
        ({"lanes_by": "sequence"}, "initial is kept and lanes_by sequence: what a row begins"),
        ({"persist": False}, "keep_final is true and persist false"),
        ({"source": segue.Push(), "epochs": 1}, "lanes_by is record and the source of kind log"),
        ({"initial": "last"}, "initial: 'last' is none of"),
    ):
        with pytest.raises(segue.ArgumentError, match=text):
            opened(client, path, **options)


def test_it_is_identity(client: segue.Client, tmp_path: Path) -> None:
    opened(client, tmp_path / "a.segue").close()
    with pytest.raises(segue.SpecError, match="initial: kept in the store, value asked for"):
        opened(client, tmp_path / "a.segue", initial="value")
    assert client.inspect("train")["streams"][0]["spec"]["initial"] == "kept"


def run(loader: segue.Loader, until: int) -> list[tuple[int, int, list[int]]]:
    """To that step, or the end: what was handed out."""
    seen = []
    for batch in loader:
        seen.append((batch.lane, batch.step, batch.state("h").tolist()))
        work(batch)
        if batch.step + 1 == until and batch.lane == max(loader.lanes):
            break
    return seen


def test_a_future_that_was_left_is_not_gone_to(client: segue.Client, tmp_path: Path) -> None:
    """Of a batch in which every row ends a token says nothing of what was kept."""
    path = tmp_path / "a.segue"
    options = {"num_unroll": None, "maximum_length": 4, "batch_size": 5}
    with opened(client, path, **options).loader() as loader:
        run(loader, 1)
        one = loader.state_dict()
        run(loader, 2)
        two = loader.state_dict()
        loader.load_state_dict(one)
        for batch in loader:
            batch.save_state("h", batch.state("h") + 50)
            batch.save_state("n", batch.state("n"))
            batch.commit()
            break
        other = loader.state_dict()
        assert other != two
        with pytest.raises(segue.TokenError, match="step 2 is none that this store can go back"):
            loader.load_state_dict(two)
        loader.load_state_dict(other)
        batch = next(iter(loader))
        assert (batch.step, batch.state("h").tolist()) == (2, [58] * 5)


def test_an_old_token_is_refused(client: segue.Client, tmp_path: Path) -> None:
    with opened(client, tmp_path / "a.segue", keep_checkpoints=2).loader() as loader:
        tokens = []
        for until in (1, 2, 3):
            run(loader, until)
            tokens.append(loader.state_dict())
        with pytest.raises(segue.TokenError, match="step 1 is none that this store can go back"):
            loader.load_state_dict(tokens[0])
        loader.load_state_dict(tokens[1])


def test_a_token_of_another_batch_size_at_its_step(client: segue.Client, tmp_path: Path) -> None:
    """The stored checkpoint of the step is replaced, and is of the same future."""
    stream = opened(client, tmp_path / "a.segue")
    with stream.loader() as loader:
        run(loader, 3)
        tokens = loader.state_dict()
        loader.set_batch_size(1)
        assert loader.state_dict() != tokens
        run(loader, 6)
    with stream.loader() as loader:
        loader.load_state_dict(tokens)
        assert loader.batch_size == 2


def test_random_trainings_go_back(client: segue.Client, tmp_path: Path) -> None:
    """By the same loader or a new one, to any token that the store has."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    print(f"SEGUE_TEST_SEED={seed}")
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.segue"
    for number in range(8):
        options: dict[str, Any] = {
            "lanes": int(rng.integers(1, 4)),
            "shuffle": bool(rng.integers(2)),
            "epochs": 6,
            "tail": str(rng.choice(["shrink", "stop", "pad"])),
            "keep_checkpoints": 100,
            "interval": float(rng.choice([0.01, 1])),
        }
        stream = opened(client, path, f"train-{number}", **options)
        whole: dict[tuple[int, int], list[int]] = {}
        held: dict[int, Any] = {}  # tokens of the future that it is in
        loader = stream.loader(start="fresh")
        step = 0
        for _ in range(25):
            way = rng.integers(4)
            if way < 2:  # on
                step += int(rng.integers(1, 6))
                for lane, at, states in run(loader, step):
                    assert whole.setdefault((lane, at), states) == states, (number, lane, at)
            held[step] = loader.state_dict()
            assert loader.state_dict() == held[step]
            if way == 2:  # back
                if rng.integers(2):
                    loader.close()
                    loader = stream.loader()
                step = int(rng.choice(list(held)))
                loader.load_state_dict(held[step])
                held = {at: tokens for at, tokens in held.items() if at <= step}
                if rng.integers(2):
                    assert loader.state_dict() == held[step]
            elif way == 3:  # the same place, another lease
                loader.close()
                loader = stream.loader(start="continue")
        loader.close()


class Model:
    """What one lane has kept of each key: versions (number, 1 ended or 0 put, step, value)."""

    def __init__(self) -> None:
        self.versions: dict[str, list[tuple[int, int, int, int | None]]] = {}
        self.live: list[dict[str, int]] = [{}]  # numbers of the sequences that go on, by step
        self.step = 0

    def comes(self, key: str) -> bool:
        versions = self.versions.get(key, [])
        return key in self.live[self.step] or any(v[1] or v[0] for v in versions)

    def version(self, key: str) -> tuple[int, int, int, int | None] | None:
        versions = self.versions.get(key, [])
        return max(enumerate(versions), key=lambda v: (v[1][:3], v[0]))[1] if versions else None

    def newest(self, key: str) -> int | None:
        version = self.version(key)
        return version and version[3]

    def put(self, key: str, value: int | None) -> None:
        above = [v[0] + v[1] for v in self.versions.get(key, [])]
        above.append(self.live[self.step].get(key, -1) + 1)
        self.versions.setdefault(key, []).append((max(above), 0, self.step, value))

    def see(self, batch: segue.Batch) -> None:
        """One batch: it is checked, worked on and committed."""
        assert batch.step == self.step
        live: dict[str, int] = {}
        ended = []
        for row, record in enumerate(batch.sequences["x"][:, 0].tolist()):
            key, number = KEYS[record], int(batch.insertion_index[row])
            if batch.is_first[row]:
                kept = self.newest(key)
                assert batch.is_kept[row] == (kept is not None), (key, number, self.versions)
                assert batch.state("h")[row] == (7 if kept is None else kept), (
                    key,
                    number,
                    self.versions.get(key),
                )
            if batch.is_last[row]:
                ended.append((key, (number, 1, self.step, int(batch.state("h")[row]) + 1)))
            else:
                live[key] = max(number, live.get(key, 0))  # epochs overlap
        for key, version in ended:
            self.versions.setdefault(key, []).append(version)
        self.step += 1
        del self.live[self.step :]
        self.live.append(live)
        work(batch)

    def go_back(self, step: int) -> None:
        self.step = step
        for versions in self.versions.values():
            versions[:] = [v for v in versions if v[2] + v[1] <= step]


def newest_of_all(lanes: list[Model]) -> dict[str, int]:
    """As `client.states(stream).items()` tells: of several lanes alike the first."""
    found = {}
    for key in set(KEYS):
        versions = [version for model in lanes if (version := model.version(key))]
        newest = max(versions, key=lambda version: version[:3], default=None)
        if newest and newest[3] is not None:
            found[key] = newest[3]
    return found


def test_what_is_put_counts_when_its_key_comes(client: segue.Client, tmp_path: Path) -> None:
    """Put, deleted, gone back behind: of keys that have come, in one lane, and that have not."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    print(f"SEGUE_TEST_SEED={seed}")
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.segue"
    with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
        for record, length in enumerate(LENGTHS):
            writer.write({"x": np.full(length, record, np.int32)}, key=KEYS[record])
    for name in range(6):
        lanes = int(rng.integers(1, 4))
        options = {"lanes": lanes, "shuffle": bool(rng.integers(2)), "epochs": 100}
        states = {"h": State("int64", init=7), "n": State("int32", 2)}
        stream = opened(client, path, f"t{name}", keep_checkpoints=100, states=states, **options)
        kept = client.states(f"t{name}")
        lane = [Model() for _ in range(lanes)]
        tokens: list[dict[int, Any]] = [{} for _ in lane]
        for _ in range(20):
            i = int(rng.integers(lanes))
            with stream.loader(lanes=[i], start="continue") as loader:
                if tokens[i] and rng.integers(3) == 0:
                    step = int(rng.choice(list(tokens[i])))
                    loader.load_state_dict(tokens[i][step])
                    tokens[i] = {at: token for at, token in tokens[i].items() if at <= step}
                    lane[i].go_back(step)
                until = lane[i].step + int(rng.integers(1, 6))
                for batch in loader:
                    lane[i].see(batch)
                    if lane[i].step == until:
                        break
                tokens[i][until] = loader.state_dict()
            for _ in range(int(rng.integers(3))):
                key = KEYS[rng.integers(len(KEYS))]
                value = int(rng.integers(1000, 2000)) if rng.integers(3) else None
                home = [model for model in lane if model.comes(key)] or lane
                if value is not None:
                    kept.put(key, {"h": value, "n": np.zeros(2, np.int32)})
                elif any(model.newest(key) is not None or model.comes(key) for model in lane):
                    kept.delete(key)
                else:
                    continue
                for model in home:
                    model.put(key, value)
            told = {key.decode(): int(one.states["h"]) for key, one in kept.items()}
            assert told == newest_of_all(lane)
        stream.close()


def test_what_was_put_in_very_many_lanes(client: segue.Client, tmp_path: Path) -> None:
    """Of a key that has not come, in every lane: it is listed once, and soon."""
    lanes = 1500
    opened(client, tmp_path / "a.segue", lanes=lanes)
    kept = client.states("train")
    for i in range(3):
        kept.put(f"new-{i}", {"h": i, "n": np.zeros(2, np.int32)})
    begun = time.monotonic()
    told = [(key, int(one.states["h"]), one.lane) for key, one in kept.items()]
    assert sorted(told) == [(b"new-0", 0, 0), (b"new-1", 1, 0), (b"new-2", 2, 0)]
    assert time.monotonic() - begun < 10  # each lane looked into for each: 6.8 million looks

"""Policies of states: what the random streams of test_equal.py and test_resume.py do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import philox
import segue
from segue import Feature, State


def opened(client: segue.Client, path: Path, p: float | None, **options: Any) -> segue.Stream:
    if not path.exists():
        with segue.FileWriter(path, {"x": Feature("float32")}) as writer:
            for _ in range(6):
                writer.write({"x": np.zeros(40, np.float32)})
    policy = None if p is None else segue.zero(p)
    given = {
        "sequences": {"x": Feature("float32")},
        "states": {"h": State("int32", 2, init=7, policy=policy), "c": State("int32")},
        "num_unroll": 1,
        "batch_size": 3,
        "seed": 5,
    }
    return client.stream("train", segue.Files(path), **{**given, **options})


def test_what_is_handed_out_changes_and_nothing_else(client: segue.Client, tmp_path: Path) -> None:
    drawn = 0
    with opened(client, tmp_path / "a.segue", 0.3, keep_final=True).loader() as loader:
        for batch in loader:
            h, c = batch.state("h"), batch.state("c")
            for row, (number, segment) in enumerate(
                zip(batch.insertion_index, batch.sequence, strict=True)
            ):
                zeroed = segment > 0 and philox.zeroes(0.3, 5, 0, int(number), int(segment))
                assert h[row].tolist() == [7 if zeroed or segment == 0 else 100 + segment] * 2
                assert c[row] == segment
                drawn += zeroed
            saved = 101 + batch.sequence[:, None] + np.zeros((1, 2), int)
            batch.save_state("h", saved.astype("int32"))
            batch.save_state("c", c + 1)
            batch.commit(wait=True)
    assert 6 * 39 * 0.15 < drawn < 6 * 39 * 0.45
    # The final states are those that were saved.
    (found,) = client.get("a.segue:0")["found"]
    assert found["states"]["h"]["values"] == [140, 140], found


def test_it_is_identity_and_found_by_name(client: segue.Client, tmp_path: Path) -> None:
    opened(client, tmp_path / "a.segue", 0.25).close()
    text = r'"h" policy: zero\(0.25\) in the store, {} asked for'
    with pytest.raises(segue.SpecError, match=text.format("carry")):
        opened(client, tmp_path / "a.segue", None)
    with pytest.raises(segue.SpecError, match=text.format(r"zero\(0.5\)")):
        opened(client, tmp_path / "a.segue", 0.5)
    with pytest.raises(segue.SpecError, match=r'"h" policy: zero\(0.25\) in the store, carry'):
        client.stream("train", states={"h": State("int32", 2, init=7), "c": State("int32")})
    assert client.inspect("train")["streams"][0]["spec"]["states"][0]["policy"] == "zero(0.25)"


def test_a_stream_that_is_opened_by_its_name_alone(client: segue.Client, tmp_path: Path) -> None:
    states = {"h": State("int32", policy=segue.zero(1))}
    opened(client, tmp_path / "a.segue", None, states=states).close()
    with client.stream("train").loader(start="fresh") as loader:
        for step, batch in enumerate(loader):
            assert batch.state("h").tolist() == [0, 0, 0]
            batch.save_state("h", batch.state("h") + 1)
            if step == 3:
                break


def test_of_what_is_inserted_with_initial_values(client: segue.Client) -> None:
    with client.stream(
        "train",
        segue.Push(),
        sequences={"x": Feature("float32")},
        states={"h": State("int32", init="data", policy=segue.zero(1))},
        num_unroll=1,
        batch_size=2,
    ) as stream:
        with stream.producer("one") as producer:
            for value in (3, 5):
                producer.insert({"x": np.zeros(4, np.float32)}, initial_states={"h": value})
        stream.end_input()
        with stream.loader(start="fresh") as loader:
            for _ in (1, 2):  # the second time from a position in the midst of sequences
                for batch in loader:
                    assert batch.state("h").tolist() == [3, 5]
                    batch.save_state("h", batch.state("h") + 1)
                    batch.commit()
                    if batch.step == 1:
                        break
                tokens = loader.state_dict()
                loader.load_state_dict(tokens)


def test_what_is_none() -> None:
    for p in (0, -1, 1.5, float("nan"), True, "0.5", None):
        with pytest.raises(segue.ArgumentError, match="zero: p is"):
            segue.zero(p)  # type: ignore[arg-type]
    with pytest.raises(segue.ArgumentError, match=r"State.policy: 0.5 is none: give segue.zero"):
        State("float32", policy=0.5)  # type: ignore[arg-type]
    assert repr(segue.zero(0.5)) == "segue.zero(0.5)"
    assert State("float32", policy=segue.zero(0.5)).policy == segue.zero(0.5)


@pytest.mark.parametrize("lanes", [1, 3])
def test_seeds_for_a_persons_own_draws(client: segue.Client, lanes: int) -> None:
    """docs/policy.md; the same for any number of lanes, others in each epoch."""
    seed = (1 << 63) + 12345
    stream = client.stream(
        "seeds", segue.Arrays({"x": [np.arange(n) for n in (7, 3, 9, 4)]}),
        {"x": segue.Feature("int64")}, num_unroll=2, batch_size=2, epochs=2, lanes=lanes, seed=seed,
        shuffle=True, tail="pad",
    )  # fmt: skip
    found, empty = {}, 0
    for batch in stream.loader():
        assert batch.seed.dtype == batch.segment_seed.dtype == np.int64
        for row in range(batch.batch_size):
            number, segment = int(batch.insertion_index[row]), int(batch.sequence[row])
            pair = int(batch.seed[row]), int(batch.segment_seed[row])
            if number < 0:
                empty += 1
                assert pair == (-1, -1)
            else:
                found[number, segment] = pair
    assert empty and len(found) == 2 * (4 + 2 + 5 + 2)
    for (number, segment), pair in found.items():
        assert pair == (philox.seed(seed, number), philox.segment_seed(seed, number, segment))
    assert len({of for of, _ in found.values()}) == 8
    assert len({of for _, of in found.values()}) == len(found)

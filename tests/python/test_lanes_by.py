"""lanes_by="record": what the random streams of test_equal.py and test_resume.py do not show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State

RECORDS = 11


def opened(client: segue.Client, path: Path, name: str = "train", **options: Any) -> segue.Stream:
    if not path.exists():
        with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
            for record in range(RECORDS):
                writer.write({"x": np.full(1 + record % 3, record, np.int32)})
    given = {
        "source": segue.Files(path),
        "sequences": {"x": Feature("int32")},
        "num_unroll": 1,
        "batch_size": 2,
        "lanes": 3,
        "shuffle": True,
        "seed": 3,
        "epochs": 4,
        "lanes_by": "record",
    }
    return client.stream(name, **{**given, **options})


def begun(stream: segue.Stream) -> dict[int, list[tuple[int, int]]]:
    """(epoch, record) of the sequences that begin in each lane, in their order."""
    found: dict[int, list[tuple[int, int]]] = {lane: [] for lane in range(stream.lanes)}
    with stream.loader() as loader:
        for batch in loader:
            for row in np.flatnonzero(batch.is_first):
                record = int(batch.sequences["x"][row, 0])
                assert batch.insertion_index[row] % stream.lanes == batch.lane
                found[batch.lane].append((int(batch.epoch[row]), record))
    return found


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("epoch_end", ["continue", "drain"])
def test_a_record_is_of_one_lane(
    client: segue.Client, tmp_path: Path, shuffle: bool, epoch_end: str
) -> None:
    options = {"shuffle": shuffle, "epoch_end": epoch_end}
    stream = opened(client, tmp_path / "a.segue", persist=False, **options)
    found = begun(stream)
    for lane, all_of_it in found.items():
        own = list(range(lane, RECORDS, 3))
        assert Counter(all_of_it) == Counter((e, r) for e in range(4) for r in own)
        orders = [[r for epoch, r in all_of_it if epoch == e] for e in range(4)]
        if shuffle:
            assert len({tuple(order) for order in orders}) > 1
        else:
            assert orders == [own] * 4
    if shuffle:  # not one order for all lanes
        ranks = {lane: [r // 3 for _, r in of] for lane, of in found.items()}
        assert ranks[0] != ranks[1]


def test_pad_ends_with_the_longest_lane(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", tail="pad", epochs=1, persist=False)
    with stream.loader() as loader:
        steps = Counter(batch.lane for batch in loader)
    assert len(set(steps.values())) == 1
    # Lane 2 has the records 2, 5 and 8 of three steps each, in two rows.
    assert steps[0] == 6


def test_what_does_not_go_together(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "a.segue"
    with pytest.raises(segue.ArgumentError, match="lanes is 12, and there are 11 records"):
        with opened(client, path, lanes=12).loader(start="fresh") as loader:
            next(iter(loader))
    with pytest.raises(segue.ArgumentError, match="lanes_by is record and the source of kind log"):
        opened(client, path, "log", source=segue.Push(), shuffle=False, epochs=1)
    mix = segue.Mix({"a": segue.Part(segue.Files(path), 1)})
    with pytest.raises(segue.ArgumentError, match="lanes_by is record and the source of kind mix"):
        opened(client, path, "mix", source=mix, epochs=1)
    with pytest.raises(segue.ArgumentError, match="lanes_by: 'key' is none of"):
        opened(client, path, "other", lanes_by="key")


def test_it_is_identity(client: segue.Client, tmp_path: Path) -> None:
    opened(client, tmp_path / "a.segue").close()
    with pytest.raises(segue.SpecError, match="lanes_by: record in the store, sequence asked for"):
        opened(client, tmp_path / "a.segue", lanes_by="sequence")
    assert client.inspect("train")["streams"][0]["spec"]["lanes_by"] == "record"
    client.stream("train").close()


def test_a_token_goes_on(client: segue.Client, tmp_path: Path) -> None:
    states = {"h": State("int64")}

    def read(loader: segue.Loader, most: int | None) -> list[tuple[int, int, list[int]]]:
        seen: list[tuple[int, int, list[int]]] = []
        for batch in loader:
            seen.append((batch.lane, batch.step, batch.state("h").tolist()))
            batch.save_state("h", batch.state("h") * 3 + batch.insertion_index)
            batch.commit()
            if len(seen) == most:
                break
        return seen

    path = tmp_path / "a.segue"
    with opened(client, path, states=states, persist=False).loader() as loader:
        whole = read(loader, None)
    with opened(client, path, "other", states=states).loader(start="fresh") as loader:
        first = read(loader, 17)
        tokens = loader.state_dict()
    with opened(client, path, "third", states=states).loader() as loader:
        loader.load_state_dict(tokens)
        rest = read(loader, None)
    assert sorted(first + rest) == sorted(whole)

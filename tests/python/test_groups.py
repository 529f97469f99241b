"""Groups: several consumers of one stream, each with its own positions and states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State
from test_resume import server_pid

LENGTHS = (5, 3, 7, 2, 4, 6, 1, 8)


def opened(client: segue.Client, path: Path, name: str = "train", **options: Any) -> segue.Stream:
    if not path.exists():
        with segue.FileWriter(path, {"x": Feature("int32")}) as writer:
            for record, length in enumerate(LENGTHS):
                writer.write({"x": np.full(length, record, np.int32)})
    given = {
        "source": segue.Files(path),
        "sequences": {"x": Feature("int32")},
        "states": {"h": State("int64")},
        "num_unroll": 2,
        "batch_size": 2,
        "lanes": 1,
        "epochs": 4,
        "keep_final": True,
    }
    return client.stream(name, **{**given, **options})


def take(loader: segue.Loader, until: int, add: int) -> list[tuple[list[str], list[int]]]:
    """Work until that step: what was seen."""
    seen = []
    for batch in loader:
        seen.append((batch.key, batch.state("h").tolist()))
        batch.save_state("h", batch.state("h") + add)
        batch.commit()
        if batch.step + 1 == until:
            break
    return seen


def feeds(client: segue.Client, name: str = "train") -> int:
    """Rings in force."""
    return sum(one["feeds"] for one in client.status()["streams"] if one["name"] == name)


def test_groups_have_their_own_positions_and_states(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue")
    with stream.loader(start="fresh") as loader:
        plain = take(loader, 12, 1)
    with stream.loader(group="b") as b, stream.loader(group="c") as c:
        seen = {"b": take(b, 5, 10), "c": take(c, 3, 100)}
        seen["b"] += take(b, 12, 10)
        seen["c"] += take(c, 12, 100)
    for name, add in (("b", 10), ("c", 100)):
        assert [keys for keys, _ in seen[name]] == [keys for keys, _ in plain]
        assert [h for _, h in seen[name]] == [[add * one for one in h] for _, h in plain]


def test_two_groups_side_by_side_share_a_feed(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", depth=4)
    with stream.loader(group="b") as b, stream.loader(group="c") as c:
        b.state_dict(), c.state_dict()  # both have their lane before either goes on
        assert feeds(client) == 1
        for step in range(1, 12):
            assert take(b, step, 1) == take(c, step, 1)
        assert feeds(client) == 1


def test_a_group_goes_on_when_the_client_that_brought_its_feed_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that the feed works with is of that client alone."""
    # Of the server: what is freed is overwritten at once.
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
    monkeypatch.setenv("MALLOC_PERTURB_", "165")
    with segue.open(tmp_path / "store") as first, segue.open(tmp_path / "store") as second:
        pid = server_pid(first)
        whole = opened(first, tmp_path / "a.segue", "alone")
        with whole.loader() as loader:
            wanted = take(loader, 24, 1)
        brought = opened(first, tmp_path / "a.segue", depth=4).loader(group="b")
        brought.state_dict()
        with opened(second, tmp_path / "a.segue", depth=4).loader(group="c", timeout=20) as c:
            c.state_dict()
            assert feeds(second) == 1
            assert take(brought, 1, 1) == take(c, 1, 1) == wanted[:1]
            first.close()
            assert take(c, 24, 1) == wanted[1:]
            assert server_pid(second) == pid  # or another server has helped


@pytest.mark.parametrize("how", ["close", "resize", "restore"])
def test_arrays_of_a_lease_that_is_over_stay_as_they_are(
    client: segue.Client, tmp_path: Path, how: str
) -> None:
    """Others fill the slots of the ring anew, which a group that has left holds no more."""
    features = {"x": Feature("int32"), "w": Feature("int32", ragged=True)}
    with segue.FileWriter(tmp_path / "a.segue", features) as writer:
        for record in range(12):
            values = np.arange(8 * 400, dtype=np.int32) + 10_000 * record
            w = segue.Ragged(values, np.arange(9) * 400)
            writer.write({"x": np.arange(8, dtype=np.int32) + 100 * record, "w": w})
    stream = opened(client, tmp_path / "a.segue", sequences=features, depth=6)
    with stream.loader(group="b") as b, stream.loader(group="c") as c:
        begun = b.state_dict()
        c.state_dict()
        assert feeds(client) == 1
        held = []
        for batch in b:
            held += [batch.sequences["x"], batch.ragged("w").values, batch.state("h")]
            batch.save_state("h", batch.state("h") + 1)
            batch.commit()
            if batch.step == 2:
                break
        kept = [array.copy() for array in held]
        take(c, 3, 1)
        if how == "close":
            b.close()
        elif how == "resize":
            b.set_batch_size(1)
        else:
            b.load_state_dict(begun)
        take(c, 20, 1)
        assert all((one == other).all() for one, other in zip(held, kept, strict=True))

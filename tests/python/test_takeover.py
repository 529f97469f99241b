"""A newer loader of a process: also where the store is another by then."""

from __future__ import annotations

from pathlib import Path

import pytest

import little
import segue
from test_cli import run
from test_resume import kill, server_pid


def steps(loader: segue.Loader, last: int) -> None:
    """Works up to step `last`, and commits it."""
    for batch in loader:
        little.work(batch)
        if batch.step == last:
            batch.commit()
            break


def one_lane(client: segue.Client, directory: Path) -> segue.Stream:
    little.write(directory)
    return little.open_stream(client, directory, lanes=1, epochs=None)


@pytest.mark.parametrize("what", ["restored", "dropped"])
def test_generations_that_begin_again(directory: Path, tmp_path: Path, what: str) -> None:
    """The older loader's leases were of a store, or a stream, that had more of them."""
    client = segue.open(directory)
    stream = one_lane(client, tmp_path)
    older = stream.loader(start="fresh")
    steps(older, 1)
    older.flush()
    run("backup", directory, tmp_path / "backup", "--portable")
    for step in (2, 3, 4):
        older = stream.loader(start="continue")
        steps(older, step)
    kill(server_pid(client))
    if what == "restored":
        run("restore", "--force", tmp_path / "backup", directory)
    else:
        client.drop("train")
        stream = little.open_stream(client, tmp_path, lanes=1, epochs=None)
    newer = stream.loader(start="continue")
    batch = next(iter(newer))
    assert batch.step == (2 if what == "restored" else 0)
    little.work(batch)
    batch.commit()
    newer.flush()
    with pytest.raises(segue.FencedError, match="newer loader"):
        next(iter(older))
    client.close()

"""A client that cannot have memory says so; its lanes and its arrays are as they were."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature
from test_groups import feeds, opened
from test_resume import Other, processes  # noqa: F401  # `processes` is a fixture

pytestmark = pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="a sanitizer cannot work with a limit of address space"
)
WIDE = 160_000
GROUPS = {"depth": 4, "epochs": 80, "batch_size": 4, "max_lag": 30, "on_lag": "detach"}


def wide(client: segue.Client, directory: Path, **options: Any) -> segue.Stream:
    """A batch is of megabytes."""
    path, features = directory / "a.segue", {"x": Feature("float32", [WIDE])}
    if not path.exists():
        with segue.FileWriter(path, features) as writer:
            for record in range(12):
                writer.write({"x": np.full((4, WIDE), record, np.float32)})
    return opened(client, path, sequences=features, keep_final=False, **options)


@contextmanager
def no_memory(left: int) -> Iterator[None]:
    """Of address space, there are so many bytes more."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def work(batches: Iterator[segue.Batch], until: int, held: list[Any] | None = None) -> None:
    """Up to that step. `held` is what lies in the ring of the last batch."""
    for batch in batches:
        batch.save_state("h", batch.state("h") + 1)
        batch.commit()
        if held is not None:
            held[:] = [batch.sequences["x"]]
        step = batch.step
        del batch
        if step + 1 == until:
            break
        time.sleep(0.05)


def close(pipe: Any, directory: Path) -> None:
    with segue.open(directory / "store") as first, segue.open(directory / "store") as second:
        a = wide(first, directory, **GROUPS).loader(group="a", timeout=30)
        b = wide(second, directory, **GROUPS).loader(group="b", timeout=30)
        a.state_dict(), b.state_dict()
        work(iter(a), 1)
        held: list[Any] = []
        work(iter(b), 1, held)
        assert feeds(first) == 1
        array = held[0]
        before = array[:, 0, 0].copy()
        with no_memory(4 << 20), suppress(segue.OutOfMemory):
            b.close()
        work(iter(a), 4)  # what there is room for while the other has its place
        time.sleep(0.5)
        pipe.send((array[:, 0, 0] == before).all())


def test_arrays_that_cannot_be_copied_stay_as_they_are(
    tmp_path: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    """When the loader of a group is closed, whose ring others share."""
    other = processes(close, tmp_path)
    assert other.receive()
    other.join()


def renew(pipe: Any, directory: Path) -> None:
    with segue.open(directory / "store") as first, segue.open(directory / "store") as second:
        a = wide(first, directory, **GROUPS).loader(group="a", timeout=30)
        work(iter(a), 20)
        b = wide(second, directory, **GROUPS).loader(group="b", timeout=60)
        batches, held = iter(b), list[Any]()
        work(batches, 18, held)
        time.sleep(0.1)  # it is asked to come to the ring of the other
        with no_memory(4 << 20), pytest.raises(segue.Error, match="memory"):
            work(batches, 24, held)
        held.clear()
        work(iter(b), 22)
        pipe.send("there")


def test_a_lease_is_kept_that_cannot_be_renewed(
    tmp_path: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    """It is asked to share the ring of another, and there is no memory for what it still holds."""
    other = processes(renew, tmp_path)
    assert other.receive() == "there"
    other.join()


def resize(pipe: Any, directory: Path) -> None:
    with segue.open(directory / "store") as client:
        loader = wide(client, directory, batch_size=4, depth=4).loader(timeout=30)
        work(iter(loader), 2)
        with no_memory(4 << 20), pytest.raises(segue.Error, match="memory"):
            loader.set_batch_size(3)
        batch = next(iter(loader))
        pipe.send((batch.step, batch.batch_size))


def test_a_lane_is_kept_whose_ring_could_not_be_mapped(
    tmp_path: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    other = processes(resize, tmp_path)
    step, size = other.receive()
    assert step == 2 and size in (3, 4)
    other.join()

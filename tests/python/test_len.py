"""len(loader) is the number of batches that the loop gives, or a TypeError."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segue

import little
from peer import Service
from test_cli import until
from test_resume import Other, processes  # noqa: F401  # `processes` is a fixture

FEATURES = {"x": segue.Feature("float32", 1)}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[segue.Client]:
    with segue.open(tmp_path / "store") as opened:
        yield opened


def sequences(lengths: list[int]) -> segue.Examples:
    return segue.Examples([{"x": np.ones((steps, 1), "float32")} for steps in lengths])


def count(loader: Any) -> int:
    return sum(1 for _ in loader)


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
def test_it_is_what_the_loop_gives(client: segue.Client, tail: str) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    drawn = random.Random(seed)
    ways = itertools.product(["continue", "drain"], [False, True], [1, 3], ["sequence", "record"], [None, [6, 12]])
    for i, (epoch_end, shuffle, lanes, lanes_by, boundaries) in enumerate(ways):
        if tail == "stop" and boundaries:
            continue
        lengths = [drawn.randint(1, 20) for _ in range(drawn.randint(3, 12))]
        stream = client.stream(
            f"{tail}{i}", sequences(lengths), FEATURES, num_unroll=3, batch_size=drawn.randint(1, 4),
            lanes=lanes, epochs=drawn.randint(1, 3), tail=tail, epoch_end=epoch_end, shuffle=shuffle, seed=i,
            lanes_by=lanes_by, **({"bucket_boundaries": boundaries, "window": 5} if boundaries else {}),
        )  # fmt: skip
        with stream.loader(start="fresh") as loader:
            whole = len(loader)
            assert whole == count(loader) == len(loader), (lengths, lanes, i)
        shares = [stream.loader(lanes=[lane]) for lane in range(lanes)]
        assert sum(len(share) for share in shares) == whole


def test_it_is_of_the_whole_stream_also_after_a_resume(client: segue.Client) -> None:
    stream = client.stream("s", sequences([9, 9]), FEATURES, num_unroll=3, batch_size=2)
    with stream.loader(start="fresh") as loader:
        next(iter(loader))
        token = loader.state_dict()
    with stream.loader() as again:
        again.load_state_dict(token)
        assert len(again) == 3
        assert count(again) == 2
        assert again  # a loader is true, also when it has ended
    grown = client.stream("s", sequences([9, 9]), FEATURES, num_unroll=3, batch_size=2, epochs=2)
    assert len(grown.loader(start="continue")) == 6


def test_too_long_ones_count_as_they_are_delivered(client: segue.Client) -> None:
    for on_too_long, batches in [("skip", 2), ("truncate", 3)]:
        stream = client.stream(
            on_too_long, sequences([5, 5, 50]), FEATURES, num_unroll=5, batch_size=1,
            maximum_length=5, on_too_long=on_too_long,
        )  # fmt: skip
        with stream.loader(start="fresh") as loader:
            assert len(loader) == count(loader) == batches


def test_mixes_and_sequence_files(client: segue.Client, tmp_path: Path) -> None:
    with segue.FileWriter(tmp_path / "a.segue", FEATURES) as writer:
        for steps in (4, 7, 9):
            writer.write({"x": np.ones((steps, 1), "float32")})
    files = segue.Files(str(tmp_path / "*.segue"))
    mix = segue.Mix({"one": (files, 0.5), "two": (sequences([3, 8]), 0.5)})
    for name, source in [("files", files), ("mix", mix)]:
        stream = client.stream(name, source, FEATURES, num_unroll=2, batch_size=2)
        with stream.loader(start="fresh") as loader:
            assert len(loader) == count(loader)
    damaged = client.stream("skip", files, FEATURES, num_unroll=2, batch_size=2, on_error="skip")
    refuses(damaged.loader(start="fresh"), "must be read")


def refuses(loader: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        len(loader)
    assert loader


def test_where_it_is_not_known_it_is_a_type_error(client: segue.Client) -> None:
    plain: dict[str, Any] = {"num_unroll": 3, "batch_size": 2}
    endless = client.stream("endless", sequences([9, 9]), FEATURES, epochs=None, **plain)
    refuses(endless.loader(start="fresh"), "no end")
    pushed = client.stream("pushed", segue.Push(), FEATURES, **plain)
    refuses(pushed.loader(start="fresh"), "as they are inserted")
    stream = client.stream("s", sequences([9, 9]), FEATURES, **plain)
    refuses(stream.loader(lanes="any", start="fresh"), "lanes that move")
    with stream.loader(start="fresh") as loader:
        loader.set_batch_size(1)
        refuses(loader, "batch size of 1")
        assert count(loader) == 6
    two = client.stream("two", sequences([9, 9]), FEATURES, epochs=None, **plain)
    with two.loader(start="fresh") as loader:
        assert len(list(itertools.islice(loader, 2))) == 2
    long = client.stream("long", sequences([1]), FEATURES, epochs=100_000_001, **plain)
    refuses(long.loader(start="fresh"), "too long to be counted")


def ask_long(pipe: Any, directory: Path) -> None:
    """For a length that takes minutes to be counted."""
    with segue.open(directory, start=False) as client:
        stream = client.stream(
            "long", sequences([4, 4]), FEATURES, num_unroll=4, batch_size=1 << 20, lanes=16,
            epochs=6_000_000, epoch_end="drain", depth=2,
        )  # fmt: skip
        loader = stream.loader(start="fresh")
        pipe.send("asks")
        len(loader)


def test_a_server_that_counts_ends_when_it_is_told_to(
    directory: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    with Service(directory) as service:
        other = processes(ask_long, directory)
        assert other.receive() == "asks"
        before = service.cpu()
        until(lambda: service.cpu() > before + 0.5, 60)
        service.process.terminate()
        assert service.process.wait(10) == 0


def test_of_tfrecord_files_only_if_they_were_read_for_their_lengths(
    client: segue.Client, tmp_path: Path
) -> None:
    little.write(tmp_path)
    for tail in ("shrink", "pad"):
        stream = little.open_stream(client, tmp_path, name=tail, tail=tail)
        with stream.loader(start="fresh") as loader:
            refuses(loader, "must be read")
            batches = sum(1 for batch in loader for _ in [little.work(batch)])
            if tail == "pad":
                assert len(loader) == batches


def test_wrapped_for_torch(client: segue.Client) -> None:
    torch = pytest.importorskip("torch")
    import segue.torch

    stream = client.stream("s", sequences([9, 4]), FEATURES, num_unroll=3, batch_size=2)
    with stream.loader(start="fresh") as loader:
        batches = segue.torch.wrap(loader)
        assert len(batches) == 3 and batches
        data = torch.utils.data.DataLoader(segue.torch.dataset(loader), batch_size=None)
        assert len(data) == 3
        assert count(data) == 3

"""Batches of one class of lengths: `bucket_boundaries` and `window`.

test_equal.py and test_resume.py draw them at random; here are the rows of one stream by hand, what
a lane remembers of what it has looked at, and what does not go together.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import cases
import segue
from test_cli import run
from test_log import insert_numbers, open_plain
from test_resume import simple

# 3, 5, 2, 4, 1, 4, 4, 1 segments of two steps; from 7 steps on they are of class 1.
LENGTHS = (5, 9, 3, 7, 1, 8, 7, 2)
CLASSES: dict[str, Any] = {"lanes": 1, "epochs": 1, "boundaries": (7,), "window": 6}
ROWS = [
    [0, 2], [0, 2], [0, 4],
    [1, 3], [1, 3], [1, 3], [1, 3], [1, 5],
    [6, 5], [6, 5], [6, 5], [6],
    [7],
]  # fmt: skip


def by_hand(directory: Path, **fields: Any) -> cases.Case:
    return simple(directory, LENGTHS, **{**CLASSES, **fields})


def test_the_rows(client: segue.Client, tmp_path: Path) -> None:
    """The oldest says of which class a batch is, and rows that get free take its like."""
    case = by_hand(tmp_path)
    wanted = cases.in_order(case, [0])
    assert [batch.insertion_index for batch in wanted] == ROWS
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted)


def test_padded(client: segue.Client, tmp_path: Path) -> None:
    """With an empty row where a class runs out; both lanes have as many batches."""
    case = by_hand(tmp_path, lanes=2, tail="pad")
    wanted = cases.in_order(case, [0, 1])
    assert {batch.batch_size for batch in wanted} == {2}
    assert sum(batch.lane for batch in wanted) == len(wanted) / 2
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted)


def test_whole_sequences(client: segue.Client, tmp_path: Path) -> None:
    """A class is of the steps that are left where sequences are cut to a greatest length."""
    cut = {"num_unroll": None, "maximum_length": 6, "on_too_long": "truncate"}
    case = by_hand(tmp_path, boundaries=(4, 6), **cut)
    wanted = cases.in_order(case, [0])
    assert [batch.insertion_index for batch in wanted] == [[0], [1, 3], [2, 4], [5, 6], [7]]
    with cases.open_stream(client, case, tmp_path).loader() as loader:
        cases.check(loader, case, wanted)


@pytest.mark.parametrize("way", ["killed", "token", "continue"])
def test_what_waits_is_kept(client: segue.Client, tmp_path: Path, way: str) -> None:
    """At each step: what was looked at and has not begun comes after as it would have."""
    case = by_hand(tmp_path)
    wanted = cases.in_order(case, [0])
    for cut in range(1, len(wanted)):
        case.name = f"cut at {cut}"
        stream = cases.open_stream(client, case, tmp_path)
        with stream.loader() as loader:
            cases.check(loader, case, wanted[:cut], whole=False)
            loader.flush()
            tokens = loader.state_dict()
            if way == "killed":
                os.kill(client.status()["server"]["pid"], signal.SIGKILL)
                cases.check(loader, case, wanted[cut:])
                continue
            if way == "token":
                cases.check(loader, case, wanted[cut:])
        with stream.loader(start="continue") as loader:
            if way == "token":
                loader.load_state_dict(tokens)
            cases.check(loader, case, wanted[cut:])


def test_what_waits_is_shown(client: segue.Client, tmp_path: Path) -> None:
    case = by_hand(tmp_path)
    stream = cases.open_stream(client, case, tmp_path)
    with stream.loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0])[:3], whole=False)
        loader.flush()
        (found,) = client.inspect("train")["streams"]
        assert found["spec"]["bucket_boundaries"] == [7] and found["spec"]["window"] == 6
        assert [lane["waiting"] for lane in found["lanes"]] == [3]  # 1, 3 and 5
        assert [lane["next"] for lane in found["lanes"]] == [6]
        assert "bucket_boundaries 7; window 6" in run("inspect", client.dir).stdout


def test_the_stream_keeps_them(client: segue.Client, tmp_path: Path) -> None:
    case = by_hand(tmp_path)
    with cases.open_stream(client, case, tmp_path):
        pass
    cases.open_by_name(client, case).close()
    cases.open_by_name(client, case, bucket_boundaries=[7], window=6).close()
    for changed, text in (
        ({"bucket_boundaries": [7, 9]}, r"bucket_boundaries: \[7\] in the store, \[7, 9\] asked"),
        ({"bucket_boundaries": None, "window": None}, r"bucket_boundaries: \[7\] .*, None asked"),
        ({"window": 7}, "window: 6 in the store, 7 asked for"),
    ):
        with pytest.raises(segue.SpecError, match=text):
            cases.open_stream(client, case, tmp_path, **changed)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bucket_boundaries": [5, 5]}, r"bucket_boundaries\[1\] is 5: they are lengths, .* rise"),
        ({"bucket_boundaries": [0]}, r"bucket_boundaries\[0\]: 0 is not in 1 to"),
        ({"bucket_boundaries": [1.5]}, r"bucket_boundaries\[0\]: 1.5 is not a whole number"),
        ({"bucket_boundaries": 7}, "bucket_boundaries: 7 are no lengths: give whole numbers"),
        ({"bucket_boundaries": "7"}, "bucket_boundaries: '7' are no lengths"),
        ({"bucket_boundaries": range(1, 200)}, "number of bucket_boundaries is 199, from 0 to 128"),
        ({"window": 6}, "window is 6 and bucket_boundaries None: .* give both"),
        ({"bucket_boundaries": [7], "window": 1}, "window is 1, which is less than batch_size = 2"),
        ({"bucket_boundaries": [7], "tail": "stop"}, r"tail is stop and bucket_boundaries \[7\]: "),
        ({"bucket_boundaries": [7], "window": 2**21}, "window: 2097152 is not in 1 to 1048576"),
    ],
)
def test_bad_input(
    client: segue.Client, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    case = simple(tmp_path, LENGTHS, lanes=1, epochs=1)
    with pytest.raises(segue.ArgumentError, match=text):
        cases.open_stream(client, case, tmp_path, **options)


def test_the_guide_names_what_does_not_go_together() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    table = guide.partition("**Options that do not go together**")[2].split("\n\n")[1]
    assert '| `bucket_boundaries=` | `tail="stop"` |' in table
    assert "| `window=n` | no `bucket_boundaries`, or *n* below `batch_size` |" in table


def test_no_boundaries_are_none(client: segue.Client, tmp_path: Path) -> None:
    """An empty list is the same stream as none at all."""
    case = simple(tmp_path, LENGTHS, lanes=1, epochs=1)
    with cases.open_stream(client, case, tmp_path, bucket_boundaries=[]).loader() as loader:
        cases.check(loader, case, cases.in_order(case, [0]))
    cases.open_stream(client, case, tmp_path, bucket_boundaries=None).close()


def test_the_capacity_of_a_log(client: segue.Client) -> None:
    """The lane must be able to look at a whole window while batches ahead are not committed."""
    options = {"bucket_boundaries": [3], "window": 5, "depth": 2}
    with pytest.raises(segue.ArgumentError, match=r"less than window \+ \(depth \+ 2\) .* = 13 "):
        open_plain(client, segue.Push(12), **options)
    open_plain(client, segue.Push(13), **options).close()


def test_a_live_stream_waits_for_its_window(client: segue.Client) -> None:
    """No class is chosen before as many are there as the window is, or the input has ended."""
    stream = open_plain(client, bucket_boundaries=[3], window=4)
    with stream.producer("a") as producer, stream.loader(lanes=[0], timeout=0.3) as loader:
        insert_numbers(producer, 2, steps=1)
        insert_numbers(producer, 1, steps=3)
        producer.flush()
        batches = iter(loader)
        with pytest.raises(TimeoutError):
            next(batches)
        insert_numbers(producer, 1, steps=1)
        producer.flush()
        assert next(batches).insertion_index.tolist() == [0, 1]
        with pytest.raises(TimeoutError):  # both have ended: a whole window once more
            next(batches)
        stream.end_input()
        assert [batch.insertion_index.tolist() for batch in batches] == [[2], [2], [3]]

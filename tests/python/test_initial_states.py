"""States whose initial values come with each sequence: what the random streams of test_equal.py and
test_resume.py do not show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import Feature, State
from segue.tfrecord import SequenceExampleWriter

LONG = 300_000  # steps of float32 that do not stay in memory


def write(path: Path, steps: list[int], **states: State) -> None:
    with segue.FileWriter(path, {"x": Feature("float32")}, states=states) as writer:
        for n, count in enumerate(steps):
            writer.write(
                {"x": np.full(count, n, np.float32)},
                initial_states={
                    name: np.full(state.shape, n + 1, state.dtype) for name, state in states.items()
                },
            )


def opened(client: segue.Client, path: Path, **options: Any) -> segue.Stream:
    given = {
        "sequences": {"x": Feature("float32")},
        "states": {"h": State("float64", 3, init="data"), "c": State("int32", init=7)},
        "num_unroll": 2,
        "batch_size": 2,
    }
    return client.stream("train", segue.Files(path), **{**given, **options})


def test_each_sequence_begins_with_its_own(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", [4, 2, 2], h=State("float64", 3))
    seen = []
    for batch in opened(client, tmp_path / "a.segue", persist=False).loader():
        seen.append([batch.state("h")[:, 0].tolist(), batch.state("c").tolist()])
        assert batch.state("h").shape == (batch.batch_size, 3)
        with pytest.raises(ValueError, match="read-only"):
            batch.state("h")[0] = 0
        batch.save_state("h", batch.state("h") + 10)
        batch.save_state("c", batch.state("c") + 1)
    assert seen == [[[1, 2], [7, 7]], [[11, 3], [8, 7]]]


def test_an_empty_row_begins_with_zeros(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", [4], h=State("float64", 3))
    stream = opened(client, tmp_path / "a.segue", tail="pad", persist=False)
    for step, batch in enumerate(stream.loader()):
        assert batch.state("h").tolist() == [[step + 1.0] * 3, [0.0] * 3]
        batch.save_state("h", batch.state("h") + 1)
        batch.save_state("c", batch.state("c"))
    assert step == 1


def test_of_a_sequence_that_is_read_by_windows(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", [LONG, LONG, LONG, LONG], h=State("float64", 3))
    stream = opened(client, tmp_path / "a.segue", num_unroll=LONG // 2, persist=False)
    found = []
    for batch in stream.loader():
        found.append(batch.state("h")[:, 2].tolist())
        batch.save_state("h", -batch.state("h"))
        batch.save_state("c", batch.state("c"))
    assert found == [[1, 2], [-1, -2], [3, 4], [-3, -4]]


def test_a_shape_of_its_own_and_one_of_the_file_that_is_not_asked_for(
    client: segue.Client, tmp_path: Path
) -> None:
    states = {"k": State("bfloat16", (2, 2)), "h": State("float64", 3)}
    write(tmp_path / "a.segue", [2, 2], **states)
    stream = opened(client, tmp_path / "a.segue", states={"h": State("float64", 3, init="data")})
    assert next(iter(stream.loader())).state("h").tolist() == [[1.0] * 3, [2.0] * 3]


def test_what_a_file_has_not(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", [2], other=State("float64", 3))
    with pytest.raises(segue.DataError, match=r"no initial values of state 'h'; .* 'other': write"):
        opened(client, tmp_path / "a.segue")
    write(tmp_path / "b.segue", [2])
    with pytest.raises(segue.DataError, match="the file has those of none"):
        opened(client, tmp_path / "b.segue")
    write(tmp_path / "c.segue", [2], h=State("float64", 4))
    with pytest.raises(segue.DataError, match=r"state 'h': the file has float64 of shape \(4,\)"):
        opened(client, tmp_path / "c.segue")


def test_tfrecord_files_have_none(client: segue.Client, tmp_path: Path) -> None:
    with SequenceExampleWriter(tmp_path / "a.tfrecord") as writer:
        writer.write({"x": np.zeros(2, np.float32)})
    with pytest.raises(segue.ArgumentError, match=r"source of kind tfrecord .*segue\.convert"):
        client.stream(
            "train",
            segue.TFRecord(tmp_path / "a.tfrecord"),
            sequences={"x": Feature("float32")},
            states={"h": State("float32", init="data")},
            num_unroll=2,
            batch_size=2,
        )


def test_it_is_identity(client: segue.Client, tmp_path: Path) -> None:
    write(tmp_path / "a.segue", [2, 2], h=State("float64", 3))
    opened(client, tmp_path / "a.segue").close()
    states = {"h": State("float64", 3), "c": State("int32", init=7)}
    with pytest.raises(segue.SpecError, match='"h" initial value: from the data in the store, one'):
        opened(client, tmp_path / "a.segue", states=states)


def test_what_is_no_initial_value(tmp_path: Path) -> None:
    with pytest.raises(segue.ArgumentError, match="'file' does not fit .*: it is neither a value nor 'data'"):
        State("float32", init="file")
    assert State("float32", init="data").init == "data"
    states = {"h": State("float32", init="data")}
    with segue.FileWriter(tmp_path / "a.segue", {"x": Feature("float32")}, states=states) as writer:
        with pytest.raises(segue.ArgumentError, match=r"initial_states\['h'\] is missing"):
            writer.write({"x": [1.0]})
        writer.write({"x": [1.0]}, initial_states={"h": 2})

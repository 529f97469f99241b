"""TFRecord files of plain ``tf.train.Example``: one record is one sequence.

Random ones, of all types and forms, are in test_equal.py; here is what needs no model, and files
that the official protocol buffers have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import segue
from segue import Feature
from segue.tfrecord import SequenceExampleWriter, encode_sequence_example


@pytest.fixture
def client(tmp_path: Path) -> Iterator[segue.Client]:
    with segue.open(tmp_path / "store") as client:
        yield client


def write(path: Path, *records: dict[str, Any], form: str = "packed") -> Path:
    with SequenceExampleWriter(path) as writer:
        for record in records:
            writer.write_record(cases.plain_example(record, form))
    return path


def rows(client: segue.Client, path: Path, name: str = "s", **changes: Any) -> list[Any]:
    """(key, length, x, y, c) of each row."""
    arguments: dict[str, Any] = {
        "source": segue.TFRecord(path, record="example"),
        "sequences": {"x": Feature("float32", 2), "y": Feature("int64")},
        "context": {"c": Feature("int32")},
        "num_unroll": 3,
        "batch_size": 1,
        "epochs": 1,
        "persist": False,
        **changes,
    }
    found = []
    with client.stream(name, **arguments) as stream, stream.loader() as loader:
        for batch in loader:
            arrays = [batch.sequences["x"][0], batch.sequences["y"][0], batch.context["c"][0]]
            found.append((batch.key[0], int(batch.length[0]), *(a.tolist() for a in arrays)))
    return found


def record(n: int, **changes: Any) -> dict[str, Any]:
    return {"x": np.arange(2 * n, dtype="f4"), "y": np.arange(n), "c": np.array(n), **changes}


@pytest.mark.parametrize("form", ["packed", "one by one", "in two"])
def test_a_record_is_a_sequence(client: segue.Client, tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "data", record(4), record(2), form=form)
    second = 16 + len(cases.plain_example(record(4), form))
    assert rows(client, path) == [
        (b"00000_of_00002:data:0", 3, [[0, 1], [2, 3], [4, 5]], [0, 1, 2], 4),
        (b"00001_of_00002:data:0", 1, [[6, 7], [0, 0], [0, 0]], [3, 0, 0], 4),
        (b"00000_of_00001:data:%d" % second, 2, [[0, 1], [2, 3], [0, 0]], [0, 1, 0], 2),
    ]


def test_values_of_bytes_are_the_array_as_it_is(client: segue.Client, tmp_path: Path) -> None:
    x = np.arange(8, dtype="f4").reshape(4, 2)
    raw = write(tmp_path / "raw", record(4, x=x.tobytes(), c=np.int32(4).tobytes()))
    plain = write(tmp_path / "plain", record(4))
    assert [row[1:] for row in rows(client, raw)] == [row[1:] for row in rows(client, plain)]


def test_a_key_and_surplus(client: segue.Client, tmp_path: Path) -> None:
    path = write(tmp_path / "data", record(2, id="one", more=b"more"))
    source = segue.TFRecord(path, key="id", allow_surplus=True, record="example")
    assert rows(client, path, source=source)[0][0] == b"00000_of_00001:one"
    with pytest.raises(segue.DataError, match="feature 'more': not declared; declare it, or allow"):
        rows(client, path, source=segue.TFRecord(path, key="id", record="example"))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"x": np.zeros(7, "f4")}, "feature 'x': 7 values, no multiple of the 2 of a step"),
        ({"x": np.zeros(6, "f4")}, "different numbers of steps: x=3, y=4"),
        ({"x": bytes(9)}, "feature 'x': a bytes value of 9 bytes, no multiple of the 8 of a step"),
        ({"y": np.zeros(4, "f4")}, "feature 'y': holds float values, but int64 was declared"),
        ({"c": np.zeros(4, "i8")}, "context feature 'c': 4 values, expected 1"),
        ({"x": np.zeros(0, "f4"), "y": np.zeros(0, "i8")}, "empty sequence"),
    ],
)
def test_records_that_do_not_fit(
    client: segue.Client, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    """Errors, also where damaged records are passed over."""
    path = write(tmp_path / "data", record(4, **changes))
    for on_error in ("raise", "skip"):
        with pytest.raises(segue.DataError) as caught:
            rows(client, path, on_error=on_error)
        assert f"{path}: record at byte 0: " in str(caught.value)
        assert text in str(caught.value) and "the record holds: " in str(caught.value)


def test_pad_counts_the_steps(client: segue.Client, tmp_path: Path) -> None:
    path = write(tmp_path / "data", record(6), record(4))
    with pytest.raises(segue.DataError, match="4 steps, which is no multiple of num_unroll = 3"):
        rows(client, path, pad=False)


def test_the_other_message_is_named(client: segue.Client, tmp_path: Path) -> None:
    path = tmp_path / "data"
    with SequenceExampleWriter(path) as writer:
        writer.write({"x": np.zeros((4, 2), "f4"), "y": np.arange(4)}, {"c": 4})
    for surplus in (False, True):
        source = segue.TFRecord(path, record="example", allow_surplus=surplus)
        with pytest.raises(
            segue.DataError,
            match="the record is a tf.train.SequenceExample, with x .float., y .int64. in its "
            "feature_lists, and no plain tf.train.Example: leave out record=",
        ):
            rows(client, path, source=source)
    assert len(rows(client, path, source=segue.TFRecord(path))) == 2
    write(path, record(4))
    with pytest.raises(segue.DataError, match='give TFRecord.*record="example"'):
        rows(client, path, source=segue.TFRecord(path))


def test_what_records_are_is_of_the_stream(client: segue.Client, tmp_path: Path) -> None:
    path = write(tmp_path / "data", record(4))
    rows(client, path, persist=True)
    with pytest.raises(segue.SpecError, match="record: example in the store, sequence_example"):
        rows(client, path, persist=True, source=segue.TFRecord(path))
    with pytest.raises(segue.ArgumentError, match="TFRecord.record: 'Example' is none of"):
        segue.TFRecord(path, record="Example")


def test_examples_of_the_official_implementation(client: segue.Client, tmp_path: Path) -> None:
    """As TensorFlow writes them, where the package of protocol buffers is installed."""
    pytest.importorskip("google.protobuf")
    from test_tfrecord import message_class

    Example = message_class("Example")
    records = []
    for n in (5, 1, 300):
        example = Example()
        feature = example.features.feature
        feature["x"].float_list.value.extend(range(2 * n))
        feature["y"].int64_list.value.extend(range(n))
        feature["c"].int64_list.value.append(n)
        records.append(example.SerializeToString())
        # The writer of the package makes the same, for the context is the same message.
        assert Example.FromString(encode_sequence_example({}, record(n))) == example
        assert Example.FromString(cases.plain_example(record(n), "packed")) == example
    path = tmp_path / "official"
    with SequenceExampleWriter(path) as writer:
        for data in records:
            writer.write_record(data)
    ours = write(tmp_path / "ours", record(5), record(1), record(300), form="one by one")
    assert [row[1:] for row in rows(client, path)] == [row[1:] for row in rows(client, ours)]

"""The files of a log, and what the store has of it, read by docs/format.md alone."""

from __future__ import annotations

import os
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
import sequence_file
from segue import Example, Feature, Push
from sequence_file import Damaged
from test_cli import FINE, run
from test_durability import end_of_server
from test_log import CONTEXT, FEATURES, example, open_full, open_plain

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
MIB = 1 << 20


def log_of(directory: Path) -> Path:
    (log,) = (directory / "log").iterdir()
    assert re.fullmatch("[0-9a-f]{8}", log.name)
    return log


def same(found: sequence_file.Sequence, sent: Example) -> None:
    assert found.key.decode() == sent.key and found.length == sent.length
    assert np.array_equal(found.sequences["x"], sent.sequences["x"])
    assert [row.tolist() for row in found.sequences["w"]] == sent.sequences["w"]
    assert found.sequences["text"] == sent.sequences["text"]
    assert np.array_equal(found.sequences["ok"], sent.sequences["ok"])
    assert found.context["label"] == sent.context["label"]
    assert np.array_equal(found.states["h"], sent.initial_states["h"])


def test_it_is_as_the_page_says(tmp_path: Path) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    names = ["a", "\u00e9t\u00e9 \u4e2d", "n" * 255]
    sent: dict[str, list[tuple[Example, bytes]]] = {name: [] for name in names}
    directory = tmp_path / "run"
    with segue.open(directory) as client:
        stream = open_full(client, "live", Push(capacity=1000))
        producers = {name: stream.producer(name) for name in names}
        for number in range(40):
            name = draw.choice(names)
            cursor = draw.randbytes(draw.choice([0, 1, 7, 100, 4096]))
            sent[name].append((example(draw, number), cursor))
            producers[name].insert(sent[name][-1][0], cursor=cursor)
            if draw.random() < 0.3:
                producers[name].flush()
        for producer in producers.values():
            producer.flush()
            producer.leave()
    end_of_server(directory)
    log = sequence_file.read_log(log_of(directory))
    assert len(log.sequences) == 40
    file = sequence_file.parse_growing(next(log_of(directory).iterdir()).read_bytes())
    fields = [(field.place, field.name) for field in file.fields]
    wanted = [("sequences", name) for name in FEATURES] + [("context", name) for name in CONTEXT]
    assert sorted(fields) == sorted([*wanted, ("states", "h")])
    for sequence in log.sequences:
        assert sequence.stamp
        one, cursor = sent[sequence.stamp.producer][sequence.stamp.serial - 1]
        same(sequence, one)
        assert sequence.stamp.cursor == cursor
    for name in names:
        if sent[name]:
            assert log.producers[name].serial == len(sent[name])
            assert log.producers[name].cursor == sent[name][-1][1]


def test_no_byte_can_be_another(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with segue.open(directory) as client, open_plain(client).producer("p") as producer:
        for number in range(4):
            producer.insert({"x": np.arange(number + 1)}, cursor=b"c" * number)
    end_of_server(directory)
    (path,) = log_of(directory).iterdir()
    data = path.read_bytes()
    assert len(sequence_file.read_log(path.parent).sequences) == 4
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        with pytest.raises((Damaged, KeyError, UnicodeDecodeError)):
            sequence_file.read_log(path.parent)


def test_files_follow_one_another(tmp_path: Path) -> None:
    """A file of 256 MiB is finished, and the next one says what each producer had inserted."""
    directory = tmp_path / "run"
    options: dict[str, Any] = {"num_unroll": 1, "batch_size": 1}
    features = {"x": Feature("uint8", MIB)}
    with segue.open(directory) as client:
        stream = client.stream("live", Push(capacity=1000), features, **options)
        with stream.producer("small") as small, stream.producer("large") as large:
            for number in range(4):
                small.insert({"x": np.full((1, MIB), number, np.uint8)}, cursor=f"s{number}".encode())
                large.insert({"x": np.full((90, MIB), number, np.uint8)}, cursor=f"l{number}".encode())
                small.flush()
                large.flush()
    end_of_server(directory)
    log = sequence_file.read_log(log_of(directory))
    assert len(log.sequences) == 8 and len(log.files) == 2
    second = sequence_file.read_head((log_of(directory) / log.files[1]).read_bytes())[2]
    assert second and second.first == 5
    assert second.producers["small"] == (3, 4, b"s2")
    assert second.producers["large"] == (2, 3, b"l1")
    for sequence in log.sequences:
        assert sequence.stamp
        assert (sequence.sequences["x"] == sequence.stamp.serial - 1).all()


# ---- What the store has ---------------------------------------------------------------------


def stored(directory: Path, target: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Records of a portable backup (server/store/dump.h): table, key, value."""
    assert run("backup", directory, target, "--portable").returncode == FINE
    data, at = target.read_bytes(), 24
    while size := struct.unpack_from("<I", data, at)[0]:
        at, end = at + 12, at + 12 + size
        while at < end:
            table, key_size, value_size = struct.unpack_from("<HHI", data, at)
            key = data[at + 8 : at + 8 + key_size]
            at += 8 + key_size + value_size
            yield table, key, data[at - value_size : at]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields_of(message: bytes) -> dict[int, list[Any]]:
    """Of a message of protobuf, by their numbers."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 == 0:
            value, at = varint(message, at)
        elif tag & 7 == 1:
            value, at = struct.unpack_from("<Q", message, at)[0], at + 8
        else:
            assert tag & 7 == 2
            size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def test_what_the_store_has(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with segue.open(directory) as client:
        stream = open_plain(client)
        with stream.producer("p") as first, stream.producer("q") as second:
            for number in range(5):
                first.insert({"x": np.arange(number + 1)})
                second.insert({"x": np.arange(number + 1)})
        stream.end_input()
    end_of_server(directory)
    log = sequence_file.read_log(log_of(directory))
    prefix = f"log.{log_of(directory).name}.".encode()
    meta, files = {}, b""
    for table, key, value in stored(directory, tmp_path / "backup"):
        if table == 1 and key.startswith(prefix):
            meta[key.removeprefix(prefix).decode()] = fields_of(value)
        elif table == 9:
            assert key.decode() == f"{log_of(directory).name}/{log.files[0]}"
            files += value
    low, high = log.hashes[10]
    assert meta == {
        "known": {2: [log.id], 4: [10], 5: [low], 6: [high]},
        "end": {1: [10], 2: [1], 3: [b"p", b"q"]},
    }
    assert files == (log_of(directory) / log.files[0]).read_bytes()

"""What released versions have left on disk is read by this one: stores, tokens, sequence files (golden.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import golden
import segue
import sequence_file
from test_cli import FINE, run

VERSIONS = sorted(golden.GOLDEN.iterdir())


@pytest.fixture(params=VERSIONS, ids=lambda place: place.name)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the files, elsewhere than where they were written."""
    copy = tmp_path / "golden"
    shutil.copytree(request.param, copy)
    return copy


@pytest.fixture(params=list(golden.STREAMS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tokens_of(place: Path, name: str) -> dict[str, bytes]:
    return {f"lane/{lane}": (place / f"{name}-lane-{lane}.token").read_bytes() for lane in range(2)}


def expected_of(place: Path, name: str) -> Any:
    return json.loads((place / "expected.json").read_text())[name]


def test_this_version_has_its_files() -> None:
    assert segue.__version__ in [place.name for place in VERSIONS]


def test_a_store_is_gone_on_from(place: Path, name: str, tmp_path: Path) -> None:
    expected = expected_of(place, name)
    done = run("restore", place / "store.backup", tmp_path / "store")
    assert done.returncode == FINE, done
    with segue.open(tmp_path / "store") as client, golden.STREAMS[name](client, place) as stream:
        found = golden.stored(client, name)
        assert {what: expected[what] for what in found} == found
        assert client.verify()
        checkpoint = stream.checkpoint(golden.STEP)
        assert checkpoint == tokens_of(place, name)
        with stream.loader(start="continue") as loader:
            assert golden.rest(loader) == expected["from_store"]


def test_tokens_are_gone_on_from(place: Path, name: str, tmp_path: Path) -> None:
    """In a store of this version; which makes the same tokens, byte by byte."""
    tokens, expected = tokens_of(place, name), expected_of(place, name)
    with segue.open(tmp_path / "store") as client, golden.STREAMS[name](client, place) as stream:
        with stream.loader(start="fresh") as loader:
            assert golden.go(loader, golden.STEP) == tokens
        with stream.loader() as loader:
            loader.load_state_dict(tokens)
            assert golden.rest(loader) == expected["from_tokens"]


def test_sequence_files_are_read(place: Path, tmp_path: Path) -> None:
    file = sequence_file.read(place / "train.segue")
    assert [one.key for one in file.sequences] == [golden.sequence(n)["key"] for n in range(3)]
    with segue.open(tmp_path / "store") as client:
        stream = client.stream(
            "train", segue.Files(place / "train.segue"), golden.SEQUENCES, golden.CONTEXT,
            num_unroll=1600, batch_size=3, lanes=1, epochs=1,
        )  # fmt: skip
        with stream, stream.loader() as loader:
            (batch,) = loader
            for row in range(3):
                wanted = golden.sequence(row)
                steps = len(wanted["sequences"]["x"])
                assert batch.key[row] == b"00000_of_00001:" + wanted["key"]
                assert batch.length[row] == (wanted["length"] or steps)
                assert batch.context["who"][row] == wanted["context"]["who"]
                for name, values in wanted["sequences"].items():
                    array = batch.sequences[name][row]
                    assert array.dtype == values.dtype and not array[steps:].any()
                    np.testing.assert_array_equal(array[:steps], values)
                state = file.sequences[row].states["h"]
                np.testing.assert_array_equal(state, wanted["initial_states"]["h"])

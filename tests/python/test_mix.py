"""Mixes of sources: their order beside docs/mix.md, what is refused, how they go on."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mixing
import segue
from segue import ArgumentError, Arrays, Feature, FileWriter, Files, Mix, Part, TFRecord
from segue.tfrecord import SequenceExampleWriter
from test_cli import report, run

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))
X = {"x": Feature("int64")}


def write(path: Path, part: int, records: int, steps: int = 1) -> Path:
    """Each value says part and record."""
    with FileWriter(path, X) as writer:
        for record in range(records):
            writer.write({"x": np.full(steps, part * 10**6 + record)})
    return path


def table(path: Path, part: int, lengths: list[int], **options: Any) -> Arrays:
    """The same values in a `.npy`."""
    records = np.arange(len(lengths)) + part * 10**6
    np.save(path, np.repeat(records.astype(np.int32 if part % 2 else np.int64), lengths))
    return Arrays.from_columns({"x": path}, lengths=lengths, **options)


def open_stream(client: segue.Client, source: Any, **options: Any) -> segue.Stream:
    options = {"num_unroll": 1, "batch_size": 16, "persist": False, "name": "mix"} | options
    return client.stream(options.pop("name"), source, X, **options)


def delivered(stream: segue.Stream) -> list[tuple[int, int]]:
    """(part, record) of each sequence, in the order of their numbers."""
    found = {}
    with stream.loader() as loader:
        for batch in loader:
            rows = zip(
                batch.insertion_index.tolist(), batch.part.tolist(), batch.sequences["x"][:, 0],
                strict=True,
            )  # fmt: skip
            for number, part, value in rows:
                assert value // 10**6 == part
                found[number] = (part, int(value % 10**6))
    assert sorted(found) == list(range(len(found))) and len(found) == stream.records
    return [found[number] for number in range(len(found))]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("lanes", [1, 4])
def test_many_blocks(tmp_path: Path, client: segue.Client, shuffle: bool, lanes: int) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    records, weights, epochs = [1500, 40, 7, 1], [20, 5, 1, 1], [2, None, None, 300]
    parts = {
        f"p{c}": Part(Files(write(tmp_path / f"{c}.segue", c, n)), weights[c], epochs[c])
        for c, n in enumerate(records)
    }
    stream = open_stream(client, Mix(parts), lanes=lanes, shuffle=shuffle, seed=SEED)
    plain = [mixing.Part(*row) for row in zip(records, weights, epochs, strict=True)]
    expected = list(mixing.order(plain, SEED, shuffle))
    assert len(expected) > 3 * mixing.BLOCK
    assert delivered(stream) == expected


def test_shares_are_kept_in_each_block_and_each_part_is_whole(
    tmp_path: Path, client: segue.Client
) -> None:
    """What weights are for, whatever the rule is."""
    a, b = (write(tmp_path / f"{c}.segue", c, n) for c, n in enumerate([3000, 100]))
    found = delivered(
        open_stream(client, Mix({"a": (Files(a), 0.7), "b": (Files(b), 0.3, None)}), shuffle=True)
    )
    of_a = [record for part, record in found if part == 0]
    assert sorted(of_a) == list(range(3000)) and of_a != sorted(of_a)
    for begin in range(0, len(found) - 1024, 1024):
        assert sum(part for part, _ in found[begin : begin + 1024]) == 307
    of_b = [record for part, record in found if part == 1]
    passes = [of_b[begin : begin + 100] for begin in range(0, len(of_b) - 100, 100)]
    assert all(sorted(one) == list(range(100)) for one in passes)
    assert len(passes) > 3 and passes[0] != passes[1]


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([1, 1], [1, 1]),
        ([0.7, 0.3], [7, 3]),
        ([2, 4, 6], [1, 2, 3]),
        ([np.float32(0.5), 1], [1, 2]),
        ([1e-2, 1], [1, 100]),
    ],
)
def test_weights_are_taken_as_they_are_written(weights: list[Any], whole: list[int]) -> None:
    source = Files("x")
    mix = Mix({str(number): (source, weight) for number, weight in enumerate(weights)})
    assert mix._weights() == whole


def test_quotas_of_equal_remainders(tmp_path: Path, client: segue.Client) -> None:
    """1,024 is no multiple of 3, 5, ...: the first parts get what is left."""
    for count in [3, 5, 7]:
        paths = [write(tmp_path / f"{count}-{c}.segue", c, 1024) for c in range(count)]
        parts = {str(c): (Files(path), 1) for c, path in enumerate(paths)}
        found = delivered(open_stream(client, Mix(parts), name=f"m{count}"))[:1024]
        counts = [sum(part == c for part, _ in found) for c in range(count)]
        assert counts == mixing.quotas([1] * count) and counts[0] == 1024 // count + 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda s: Mix({}), "expected a mapping"),
        (lambda s: Mix([s]), "expected a mapping"),
        (lambda s: Mix({"a": s}), "expected segue.Part, or (source, weight), got Files"),
        (lambda s: Mix({"a": ("x", 1)}), "segue.Push or segue.Examples, got str"),
        (lambda s: Mix({"a": (Mix({"b": (s, 1)}), 1)}), "cannot be a mix itself"),
        (lambda s: Mix({"a:b": (s, 1)}), "is not a name"),
        (lambda s: Mix({"a": (s, 0)}), "is not above 0"),
        (lambda s: Mix({"a": (s, -1.5)}), "is not above 0"),
        (lambda s: Mix({"a": (s, float("nan"))}), "is not above 0"),
        (lambda s: Mix({"a": (s, float("inf"))}), "is not above 0"),
        (lambda s: Mix({"a": (s, "1")}), "is no number"),
        (lambda s: Mix({"a": (s, 1, 0)}), "epochs: 0 is not in 1 to"),
        (lambda s: Mix({"a": (s, 0.123456789012), "b": (s, 1)}), "round them"),
    ],
)
def test_what_no_mix_is(make: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(said)):
        make(Files("x"))


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        ({"a": (1, None), "b": (1, None)}, {}, "no part of the mix has an end"),
        ({"a": (1, 1), "b": (5000, 1)}, {}, "its weight 1 gives it none of 1024 sequences"),
        ({"a": (1, 1)}, {"epochs": 2}, "passes over a mix are those over its parts"),
        ({"a": (1, 1)}, {"epochs": None}, "passes over a mix are those over its parts"),
        ({str(c): (1, 1) for c in range(65)}, {}, "65"),
        ({"a": (1, 2**60)}, {}, "more sequences than a mix can number"),
    ],
)
def test_what_no_stream_is(
    tmp_path: Path, client: segue.Client, parts: Any, options: Any, said: str
) -> None:
    source = Files(write(tmp_path / "x.segue", 0, 3))
    mix = Mix({name: (source, *rest) for name, rest in parts.items()})
    with pytest.raises(segue.Error, match=re.escape(said)):
        open_stream(client, mix, **options)


def test_errors_name_the_part(tmp_path: Path, client: segue.Client) -> None:
    good = Files(write(tmp_path / "x.segue", 0, 3))
    with pytest.raises(segue.SourceError, match='part "b": .*none.segue'):
        open_stream(client, Mix({"a": (good, 1), "b": (Files(tmp_path / "none.segue"), 1)}))
    with SequenceExampleWriter(tmp_path / "x.tfrecord") as writer:
        writer.write({"x": np.ones(2, np.float32)})  # floats, where integers are declared
    mixed = Mix({"a": (good, 1), "b": (TFRecord(tmp_path / "x.tfrecord"), 1)})
    with (
        pytest.raises(segue.DataError, match='part "b": .*x.tfrecord'),
        open_stream(client, mixed).loader() as loader,
    ):
        list(loader)
    with FileWriter(tmp_path / "y.segue", {"y": Feature("int64")}) as other:
        other.write({"y": np.arange(2)})
    with pytest.raises(segue.DataError, match='part "c": .*y.segue.*no feature'):
        open_stream(
            client, Mix({"a": (good, 1), "c": (Files(tmp_path / "y.segue"), 1)}), name="other"
        )


def test_damage_of_a_part_is_passed_over(tmp_path: Path, client: segue.Client) -> None:
    a, b = (write(tmp_path / f"{c}.segue", c, 10) for c in range(2))
    data = bytearray(b.read_bytes())
    data[data.index((10**6 + 4).to_bytes(8, "little"))] ^= 1
    b.write_bytes(data)
    parts = Mix({"a": (Files(a), 1, 5), "b": (Files(b), 1, None)})
    with open_stream(client, parts, on_error="skip").loader() as loader:
        seen = [value for batch in loader for value in batch.sequences["x"][:, 0].tolist()]
        assert loader.skipped > 0
    assert 10**6 + 4 not in seen and {10**6 + n for n in range(10) if n != 4} <= set(seen)


def test_goes_on_from_a_token_and_belongs_to_its_mix(tmp_path: Path, client: segue.Client) -> None:
    a, b = (write(tmp_path / f"{c}.segue", c, 200, steps=3) for c in range(2))
    parts = {"a": (Files(a), 2), "b": (Files(b), 1, None)}
    options = {"persist": True, "lanes": 2, "shuffle": True, "seed": 5}
    stream = open_stream(client, Mix(parts), **options)

    def rows(loader: segue.Loader, most: int = 10**9) -> list[Any]:
        taken = []
        for batch in loader:
            taken.append((batch.part.tolist(), batch.sequences["x"].tolist()))
            batch.commit()
            if len(taken) == most:
                break
        return taken

    with stream.loader() as loader:
        whole = rows(loader)
    with stream.loader(start="fresh") as loader:
        begin = rows(loader, 7)
        token = loader.state_dict()
    with stream.loader() as loader:
        loader.load_state_dict(token)
        assert begin + rows(loader) == whole
    for other, said in [
        ({"a": (Files(a), 1), "b": parts["b"]}, r"source.parts\[0\].weight: 2 in the store, 1"),
        ({"a": parts["a"]}, "source.parts: 2 in the store, 1 asked for"),
        ({"a": parts["a"], "c": parts["b"]}, r'source.parts\[1\]: "b" in the store, "c"'),
        ({"a": (Files(a), 2, 4), "b": parts["b"]}, r"parts\[0\].epochs: 1 in the store, 4"),
        (
            {"a": parts["a"], "b": (TFRecord(b), 1, None)},
            r"source.parts\[1\].source: files in the store, tfrecord",
        ),
    ]:
        with pytest.raises(segue.SpecError, match=said):
            open_stream(client, Mix(other), **options)
    with pytest.raises(segue.SpecError, match="source: mix in the store, files"):
        open_stream(client, Files(a), **options)


def test_paths_of_all_parts_must_be_those_in_use(tmp_path: Path, client: segue.Client) -> None:
    a, b = (write(tmp_path / f"{c}.segue", c, 5) for c in range(2))
    held = open_stream(client, Mix({"a": (Files(a), 1), "b": (Files(b), 1)}), persist=True)
    with pytest.raises(segue.SpecError, match="must give the same paths"):
        open_stream(client, Mix({"a": (Files(a), 1), "b": (Files(a), 1)}), persist=True)
    held.close()


def test_long_lists_of_paths(tmp_path: Path, client: segue.Client) -> None:
    """More than travels in a message, in each part."""
    folder = tmp_path / ("long" * 50)
    folder.mkdir()
    lists = []
    for part in range(3):
        path = write(folder / f"{part}.segue", part, 1)
        links = [folder / f"{part}-{number}.segue" for number in range(120)]
        for link in links:
            os.link(path, link)
        lists.append(links)
    parts = {str(part): (Files(links), 1) for part, links in enumerate(lists)}
    found = delivered(open_stream(client, Mix(parts)))
    plain = list(mixing.order([mixing.Part(120, 1, 1)] * 3, 0, False))
    assert found == [(part, 0) for part, _ in plain]


def test_what_has_changed_is_named(tmp_path: Path, directory: Path) -> None:
    a, b = (write(tmp_path / f"{c}.segue", c, 5) for c in range(2))
    mix = Mix({"a": (Files(a), 1), "b": (Files(b), 1)})
    with segue.open(directory) as client:
        open_stream(client, mix, persist=True)
    b.unlink()
    write(b, 1, 6)
    with (
        segue.open(directory) as client,
        pytest.raises(segue.ChangedError, match='part "b": .*1.segue'),
    ):
        open_stream(client, mix, persist=True)


def test_dropped_with_all_that_was_kept_of_its_parts(tmp_path: Path, directory: Path) -> None:
    with SequenceExampleWriter(tmp_path / "t.tfrecord") as writer:
        for number in range(5):
            writer.write({"x": np.full(2, number)})
    a = write(tmp_path / "a.segue", 0, 5)
    parts = {"a": (Files(a), 1), "t": (TFRecord(tmp_path / "t.tfrecord"), 1)}
    with segue.open(directory) as client:
        empty = report("verify", directory)["values"]
        for tail in ("pad", "shrink"):  # with lengths, which are kept, too
            stream = open_stream(client, Mix(parts), persist=True, tail=tail, name=tail)
            with stream.loader() as loader:
                assert len(list(loader)) > 0
            stream.close()
        one = open_stream(client, Files(a), persist=True, name="one")
        one.close()
        client.drop("pad")
        client.drop("shrink")
        with open_stream(client, Files(a), persist=True, name="one").loader() as loader:
            list(loader)
        client.drop("one")
    with segue.open(directory):
        assert report("verify", directory)["values"] <= empty + 1  # ids go on


# -- parts that are arrays -------------------------------------------------------------------------


@pytest.mark.parametrize("persist", [False, True])
def test_parts_of_arrays(tmp_path: Path, directory: Path, persist: bool) -> None:
    """Each has an index of its own: in a file, of keys, in memory; between files that have none."""
    names = [f"k{number}" for number in range(9)]
    parts = {
        "a": Part(table(tmp_path / "0.npy", 0, [1] * 40), 2),
        "f": Part(Files(write(tmp_path / "1.segue", 1, 7)), 1, None),
        "b": Part(table(tmp_path / "2.npy", 2, [1] * 9, names=names), 1, None),
        "m": Part(Arrays({"x": [np.array([3 * 10**6])]}, names=["m"]), 1, 30),
    }
    rows = [(40, 2, 1), (7, 1, None), (9, 1, None), (1, 1, 30)]
    plain = [mixing.Part(*row) for row in rows]
    expected = list(mixing.order(plain, SEED, True))
    options = {"shuffle": True, "seed": SEED, "persist": persist}
    print(f"SEGUE_TEST_SEED={SEED}")
    with segue.open(directory) as client:
        stream = open_stream(client, Mix(parts), **options)
        with segue.open(directory) as other:
            assert other.stream("mix").records == len(expected)
        if not persist:
            assert delivered(stream) == expected
            return
    backup, copy = tmp_path / "backup", tmp_path / "copy"
    assert run("backup", directory, backup).returncode == 0
    assert run("restore", backup, copy).returncode == 0
    for store in (directory, copy):  # on another server, by its name; by what it was made of
        with segue.open(store) as client:
            with client.stream("mix").loader(start="fresh") as loader:
                keys = [key.partition(b":")[2] for batch in loader for key in batch.key]
            assert len(keys) == len(expected) and {b"k0", b"k8", b"m", b"0.npy:39"} <= set(keys)
    with segue.open(directory) as client:
        stream = open_stream(client, Mix(parts), **options)
        with stream.loader(start="fresh") as loader:
            found = [int(value) for batch in loader for value in batch.sequences["x"][:, 0]]
    assert sorted(found) == sorted(part * 10**6 + record for part, record in expected)


def test_errors_of_arrays_name_the_part(tmp_path: Path, client: segue.Client) -> None:
    good = table(tmp_path / "0.npy", 0, [3, 4])
    np.save(tmp_path / "f.npy", np.ones(7))
    wrong = Arrays.from_columns({"x": tmp_path / "f.npy"}, lengths=[7])
    other = Arrays.from_columns({"y": tmp_path / "f.npy"}, lengths=[7])
    with pytest.raises(ArgumentError, match=r"Mix.parts\['b'\]: 'x': the arrays have no such"):
        open_stream(client, Mix({"a": (good, 1), "b": (other, 1)}))
    with pytest.raises(ArgumentError, match=r'source.parts\[1\] "b": feature .x.: .*float64'):
        open_stream(client, Mix({"a": (good, 1), "b": (wrong, 1)}))
    parts = {"a": (good, 1), "b": (table(tmp_path / "1.npy", 1, [2, 2]), 1)}
    held = open_stream(client, Mix(parts))
    parts["b"] = (Arrays.from_columns({"x": tmp_path / "1.npy"}, lengths=[1, 3]), 1)
    with pytest.raises(segue.SpecError, match=r'source.parts\[1\] "b": source: other arrays'):
        open_stream(client, Mix(parts))
    held.close()
    (tmp_path / "1.npy").unlink()
    with pytest.raises(ArgumentError, match=r"Mix.parts\['b'\]: .*1.npy: No such file"):
        open_stream(client, Mix(parts), name="gone")


def test_changed_arrays_are_named_by_part_and_checksums_go_on(
    tmp_path: Path, directory: Path
) -> None:
    """Also those of a part whose stream another server has made."""
    a, b = (
        table(tmp_path / f"{part}.npy", part, [100_000], checksum=part == 1) for part in range(2)
    )
    mix = Mix({"a": (a, 1), "b": (b, 1)})
    options = {"persist": True, "num_unroll": 1000, "batch_size": 1}
    with segue.open(directory) as client:
        open_stream(client, mix, **options).close()
    with open(tmp_path / "1.npy", "r+b") as file:
        file.seek(128 + 4 * 50_000)  # between two samples of 400,128 bytes
        before = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(b"\xff")
    with segue.open(directory) as client:
        with open_stream(client, mix, **options).loader() as loader:
            with pytest.raises(segue.ChangedError, match="1.npy.*are not what they were"):
                sum(1 for _ in loader)
    with open(tmp_path / "1.npy", "r+b") as file:
        file.seek(128 + 4 * 50_000)
        file.write(before)
    table(tmp_path / "0.npy", 2, [100_000])
    for by_name in (False, True):
        with segue.open(directory) as client:
            with pytest.raises(segue.ChangedError, match='part "a": .*0.npy: as many bytes as'):
                client.stream("mix") if by_name else open_stream(client, mix, **options)


def test_arrays_of_parts_are_dropped(tmp_path: Path, directory: Path) -> None:
    """One part is of a stream that stays."""
    a, b = (table(tmp_path / f"{part}.npy", part, [3, 4], checksum=True) for part in range(2))
    with segue.open(directory) as client:
        open_stream(client, a, persist=True, name="one").close()
        before = report("verify", directory)["values"]
        open_stream(client, Mix({"a": (a, 1), "b": (b, 1)}), persist=True).close()
        assert report("verify", directory)["values"] > before + 2
        client.drop("mix")
        assert report("verify", directory)["values"] <= before + 1  # ids go on
    with segue.open(directory) as client:
        with client.stream("one").loader(start="fresh") as loader:
            assert sum(len(batch.key) for batch in loader) == 7


def test_inspect_shows_the_parts(tmp_path: Path, directory: Path) -> None:
    a, b = (write(tmp_path / f"{c}.segue", c, 5) for c in range(2))
    with segue.open(directory) as client:
        parts = {"a": (Files(a), 1.5), "b": (Files(b), 1, None)}
        open_stream(client, Mix(parts), persist=True)
        (stream,) = report("inspect", directory)["streams"]
        text = run("inspect", directory).stdout
    assert stream["spec"]["source"] == {
        "kind": "mix",
        "parts": [
            {"name": "a", "weight": 3, "epochs": 1, "kind": "files", "paths": [str(a)]},
            {"name": "b", "weight": 2, "epochs": None, "kind": "files", "paths": [str(b)]},
        ],
    }
    assert "mix of     a, weight 3" in text and str(b) in text

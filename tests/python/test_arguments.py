"""What the Python layer says of arguments by itself, before the library sees them."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import inspect
import os
import pickle
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import little
import segue
from segue import _segue


@pytest.fixture
def client(tmp_path: Path) -> Iterator[segue.Client]:
    little.write(tmp_path)
    with segue.open(tmp_path / "store") as client:
        yield client


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("state", "(self, name, /)"),
        ("save_state", "(self, name, value, /)"),
        ("state_out", "(self, name, /)"),
        ("commit", "(self, /, wait=False)"),
        ("release", "(self, /)"),
    ],
)
def test_methods_of_batches_say_what_they_take(name: str, wanted: str) -> None:
    assert str(inspect.signature(getattr(segue.Batch, name))) == wanted


def test_loaders_take_keywords_alone(client: segue.Client, tmp_path: Path) -> None:
    """`loader(0, 4)` would be lanes=0, rank=4."""
    stream = little.open_stream(client, tmp_path)
    with pytest.raises(TypeError, match="positional"):
        stream.loader(0, 4)  # type: ignore[misc]
    kinds = {p.kind for p in list(inspect.signature(segue.Stream.loader).parameters.values())[1:]}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("kind", [segue.Feature, segue.State])
def test_none_is_no_dtype(kind: Any) -> None:
    with pytest.raises(segue.ArgumentError, match=f"{kind.__name__}.dtype: None is none of float"):
        kind(None)


@pytest.mark.parametrize(
    "option, most, unit",
    [
        ("interval", 3600, "interval_ms"),
        ("lease_timeout", 86400, "_ms"),
        ("groups_timeout", 86400, "_ms"),
        ("max_lag", 86400, "_ms"),
    ],
)
def test_limits_of_seconds_are_said_in_seconds(
    client: segue.Client, tmp_path: Path, option: str, most: int, unit: str
) -> None:
    for value in (most + 0.001, 2 * most, float("inf"), float("nan"), 0, -1, "soon"):
        with pytest.raises(segue.ArgumentError, match=f"^{option}: .*seconds.*{most}$") as info:
            little.open_stream(client, tmp_path, **{option: value})
        assert unit not in str(info.value)
    little.open_stream(client, tmp_path, **{option: most})


def test_paths_with_a_nul(client: segue.Client, tmp_path: Path) -> None:
    """Nothing is cut short at it."""
    (tmp_path / "run").mkdir()
    cut = f"{tmp_path / 'run'}\0more"
    for path in (cut, cut.encode(), Path(cut)):
        for paths in (path, [tmp_path / "data.tfrecord", path]):
            with pytest.raises(segue.ArgumentError, match="TFRecord.paths: .* holds a NUL"):
                segue.TFRecord(paths)
        for given in ({"dir": path}, {"dir": "x", "socket": path}, {"dir": "x", "program": path}):
            with pytest.raises(segue.ArgumentError, match=f"{list(given)[-1]}: .* holds a NUL"):
                segue.open(**given)
    with pytest.raises(segue.ArgumentError, match="name: .*NUL"):
        little.open_stream(client, tmp_path, name="x\0y")
    with pytest.raises(segue.ArgumentError, match="TFRecord.key: .* is not the name"):
        segue.TFRecord("x", key="id\0")
    with pytest.raises(ValueError, match="null"):
        client.inspect("x\0y")
    assert list((tmp_path / "run").iterdir()) == []


def test_tokens_in_any_buffer(client: segue.Client, tmp_path: Path) -> None:
    """Also one whose bytes do not lie side by side."""
    with little.open_stream(client, tmp_path).loader(lanes=[0]) as loader:
        little.work(next(iter(loader)))
        token = loader.state_dict()["lane/0"]
        twice = memoryview(bytes(byte for byte in token for _ in range(2)))[::2]
        assert not twice.contiguous
        for same in (token, bytearray(token), memoryview(token), twice):
            little.work(next(iter(loader)))
            loader.load_state_dict({"lane/0": same})
            assert loader.state_dict()["lane/0"] == token
        with pytest.raises(segue.TokenError):
            loader.load_state_dict({"lane/0": memoryview(token)[::2]})


def test_what_is_of_one_process_is_not_pickled(client: segue.Client, tmp_path: Path) -> None:
    """And says what to do; so it is of what holds it."""
    stream = little.open_stream(client, tmp_path)
    loader = stream.loader(lanes=[0])
    batches = iter(loader)
    batch = next(batches)
    mine = {"Client": client, "Stream": stream, "Loader": loader, "Batch": batch}
    theirs = {"Lane": loader._handles[0], "Loader": [batches], "Stream": stream._handle}
    for name, thing in [*mine.items(), *theirs.items(), ("Loader", functools.partial(len, loader))]:
        for call in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=rf"segue\.{name}: .*[Oo]pen a client in the child"):
                call(thing)
    things = [stream.num_unroll, batch.sequences["x"], segue.Feature("int32", [2])]
    things += [segue.State("float32", [2]), segue.TFRecord("x", key="k"), segue.BusyError("x")]
    for thing in things:
        assert str(pickle.loads(pickle.dumps(thing))) == str(thing)


@pytest.mark.parametrize("name", ["segue", "segue.errors", "segue.tfrecord", "segue.loader"])
def test_help(name: str) -> None:
    """It can be read, and names nothing that is private."""
    module = importlib.import_module(name)
    text = pydoc.plain(pydoc.render_doc(module))
    most = {"segue": 95 * len(segue.__all__), "segue.errors": 3500}  # so many for each name
    assert len(text.splitlines()) < most.get(name, 1000)
    private = re.findall(r"^    (?:class )?(_[a-z]\w*)", text.partition("\nCLASSES")[2], re.M)
    assert private == []
    for error in vars(segue.errors).values():
        if isinstance(error, type) and error.__module__ == "segue.errors":
            short = error.__name__ == "EndedError" or error.__name__ == "InterruptedError_"
            assert short or getattr(segue, error.__name__) is error


def test_metadata_of_the_package() -> None:
    found = importlib.metadata.metadata("segue")
    assert found["License-Expression"] == "MIT" and found["License-File"] == "LICENSE"
    assert found["Author"] == "the segue authors"
    assert "# segue" in found.get_payload()
    assert found["Version"] == segue.__version__


def test_states_are_had_by_keys_as_batches_have_them(
    client: segue.Client, tmp_path: Path
) -> None:
    stream = little.open_stream(client, tmp_path, keep_final=True, durability="commit")
    ended = None
    for batch in stream.loader():
        little.work(batch)
        batch.commit()
        if batch.is_last.any():
            ended = batch.key[int(batch.is_last.argmax())].partition(b":")[2]
            break
    assert ended
    assert client.get(ended) == client.get(ended.decode())
    with pytest.raises(segue.NotFoundError):
        client.get(b"none")
    for key in (b"\xff", "\udcff"):
        with pytest.raises(segue.NotFoundError, match="nothing is kept under"):
            client.get(key)
    for key in (b"a\0b", "a\0b"):
        with pytest.raises(segue.ArgumentError, match="key: .* holds a NUL"):
            client.get(key)
    with pytest.raises(segue.ArgumentError, match="key: .*surrogates"):
        client.get("\ud800")


def test_keys_that_are_no_text(client: segue.Client, tmp_path: Path) -> None:
    """Bytes in a batch, and the same in reports, where they are surrogates; each finds the states."""
    raw = tmp_path / os.fsdecode(b"caf\xe9.tfrecord")
    with segue.tfrecord.SequenceExampleWriter(raw) as writer:
        writer.write({"x": np.ones(8, "f4")}, {"id": b"\xfd\xc8:\xe2\x82"})
    for name, key in (("by file", None), ("by feature", "id")):
        stream = client.stream(
            name, segue.TFRecord(raw, key=key, allow_surplus=True),
            sequences={"x": segue.Feature("float32")}, states={"h": segue.State("float32", [3])},
            num_unroll=2, batch_size=1, keep_final=True,
        )  # fmt: skip
        with stream.loader() as loader:
            for batch in loader:
                little.work(batch)
                key = batch.key[0].partition(b":")[2]
                assert batch.key[0] == b"%05d_of_00004:%s" % (batch.step, key)
                if batch.step == 2:
                    loader.state_dict()
                    loader.flush()
                    (row,) = client.inspect(name)["streams"][0]["lanes"][0]["rows"]
                    assert row["key"].encode("utf-8", "surrogateescape") == key
                    assert client.get(row["key"], name)["found"][0]["kind"] == "live"
            loader.flush()
        found = client.get(key, name)
        assert found["found"][0]["kind"] == "final" and found["key"] == row["key"]
        assert client.get(row["key"], name) == client.get(key) == found


def test_the_signature_has_the_options_of_the_library() -> None:
    """With its defaults; but an endless stream and the number of lanes are not to be guessed in C."""
    parameters = inspect.signature(segue.Client.stream).parameters
    fields = "self name source sequences context states bucket_boundaries".split()
    differs = {"epochs": 1, "lanes": 1}
    for name, row in _segue.OPTIONS.items():
        milliseconds = row["unit"] == "ms"
        field = name.removesuffix("_ms") if milliseconds else name
        fields.append(field)
        usual: Any = row["usual"] / 1000 if milliseconds else row["usual"]
        if row["choices"]:
            usual = row["choices"][row["usual"]]
        if row["none"]:
            usual = None
        if field in differs:
            usual = differs[field]
        elif row["usual"] < row["least"]:
            usual = None  # it is needed, but where the stream exists
        assert parameters[field].default == usual, field
    assert set(parameters) == set(fields)


def test_lists_of_types_are_whole() -> None:
    """Where they are written out for people."""
    floats = ["float16", "bfloat16", "float32", "float64"]
    most = [*floats, *(f"{kind}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64))]
    assert sorted([*most, "bool"]) == sorted(_segue.DTYPES)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"({', '.join(most)}, bool)" in readme
    for kind in (segue.Feature, segue.State):
        assert f"{', '.join(most)} or bool." in " ".join(str(kind.__doc__).split())


def apart() -> list[str]:
    """The rows of the guide's table of what does not go together."""
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    table = guide.partition("**Options that do not go together**")[2].split("\n\n")[1]
    # Of test_lengths.py, test_kept.py and test_classes.py.
    own = ("maximum_length", "on_too_long", "on_lag", "num_unroll", 'initial="kept"',
           "`bucket_boundaries=", "`window=")  # fmt: skip
    return [line for line in table.splitlines()[2:] if not any(name in line for name in own)]


def test_options_that_do_not_go_together(client: segue.Client, tmp_path: Path) -> None:
    """Each row of two options is refused, by both names, with the reason; one alone goes."""
    rows = [re.findall(r"`(\w+)=(\w+)`", line) for line in apart() if "segue." not in line]
    assert [len(row) for row in rows] == [2, 2, 2]
    for number, row in enumerate(rows):
        options = {name: {"True": True, "False": False, "n": 2}[value] for name, value in row}
        with pytest.raises(segue.ArgumentError) as refused:
            little.open_stream(client, tmp_path, name="both", **options)
        assert all(name in str(refused.value) for name in options)
        first = dict(list(options.items())[:1])
        little.open_stream(client, tmp_path, name=f"one {number}", **first).close()


def test_sources_that_do_not_have_what_is_asked_for(client: segue.Client, tmp_path: Path) -> None:
    """The other rows of the table, of each source that they name, and of one that has it all."""
    rows = [line for line in apart() if "segue." in line]
    wanted = ['on_error="skip"', "segue.Mix", *["segue.Push"] * 6]
    wanted += ['State(..., init="data")', "Feature(..., ragged=True)"]
    assert len(rows) == 10 and all(what in row for what, row in zip(wanted, rows, strict=True))
    assert all(f"`segue.{kind}`" in rows[-2] for kind in ("TFRecord", "Arrays", "Mix"))
    assert all(f"`segue.{kind}`" in rows[-1] for kind in ("Arrays", "Mix"))
    x = {"x": segue.Feature("float32")}
    with segue.FileWriter(tmp_path / "x.segue", x) as writer:
        writer.write({"x": np.ones(3, "float32")})
    tfrecord, files = segue.TFRecord(tmp_path / "none"), segue.Files(tmp_path / "x.segue")
    arrays = segue.Arrays.from_columns({"x": np.ones(3, "float32")}, lengths=[3])
    mix = segue.Mix({"a": (files, 1), "b": (tfrecord, 1)})
    mixed = segue.Mix({"a": (files, 1), "b": (arrays, 1)})

    def opened(source: Any, **options: Any) -> segue.Stream:
        given = {"sequences": x, "num_unroll": 1, "batch_size": 1, **options}
        return client.stream("mixed", source, **given)

    for options in ({"epochs": 2}, {"epochs": None}, {"first_epoch": 1, "epochs": 2}):
        with pytest.raises(segue.ArgumentError, match="epochs is .* and first_epoch .*over a mix"):
            opened(segue.Mix({"a": (files, 1)}), **options)
    for options, wrong in (
        ({"persist": False}, "persist is false and the source of kind log"),
        ({"shuffle": True}, "shuffle is true and the source of kind log"),
        ({"lanes_by": "record"}, "lanes_by is record and the source of kind log"),
        ({"epochs": 2}, "epochs is .* and first_epoch .*one pass over what is inserted"),
        ({"first_epoch": 1, "epochs": 2}, "epochs is .* and first_epoch .*one pass over"),
    ):
        with pytest.raises(segue.ArgumentError, match=wrong):
            opened(segue.Push(), **options)
    inserted = {"a": (files, 1), "b": (segue.Push(), 1)}
    with pytest.raises(segue.ArgumentError, match="persist is false"):
        opened(segue.Mix(inserted), persist=False)
    for part in ((segue.Push(), 1), segue.Part(segue.Push(), 1, epochs=2)):
        with pytest.raises(segue.ArgumentError, match="inserted: a mix has one such part, and one pass"):
            opened(segue.Mix({**inserted, "c": part}))
    with pytest.raises(segue.ArgumentError, match="inserted: a mix has one such part, and one pass"):
        opened(segue.Mix({"a": (files, 1), "b": segue.Part(segue.Push(), 1, epochs=None)}))
    for source in (segue.Push(capacity=5), segue.Mix({"a": (files, 1), "b": (segue.Push(capacity=5), 1)})):
        with pytest.raises(segue.ArgumentError, match="capacity"):
            opened(source, depth=4)
    for source in (tfrecord, arrays, mix, mixed):
        kind = type(source).__name__.lower()
        states = {"h": segue.State("float32", init="data")}
        with pytest.raises(segue.ArgumentError, match=f"is to have its initial value .*of kind {kind} does not"):
            opened(source, states=states)
    ragged, coded = segue.Feature("int8", ragged=True), segue.Feature("bytes")
    example = segue.TFRecord(tmp_path / "none", record="example")
    for form, feature, source in (
        ("ragged", ragged, arrays),
        ("ragged", ragged, example),
        ("bytes", coded, arrays),
        ("ragged", ragged, segue.Mix({"a": (files, 1), "b": (example, 1)})),
    ):
        kind = "tfrecord" if source is not arrays else "arrays"
        with pytest.raises(segue.ArgumentError, match=f"is {form}, .*of kind {kind}( .*)? does not"):
            opened(source, sequences={"x": feature})
    opened(segue.Mix({"a": (files, 1)})).close()

"""Random streams for the tests: a data set, a spec, the model of both, and the comparison."""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy then knows bfloat16
import numpy as np

import array_data
import mixing
import oracle
import segue
from segue.tfrecord import SequenceExampleWriter

DTYPES = (
    "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
SHORT = ("float16", "bfloat16")
SUFFIX = {"tfrecord": "tfrecord", "files": "segue", "arrays": "npy"}
INITIAL = {"files", "log"}  # kinds whose sequences can have initial states of their own
VARIABLE = {"files", "log", "tfrecord"}  # kinds whose features can be ragged, or bytes
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (3,), (2, 2))
ENDLESS = 12  # batches a lane that are read of an endless stream
PRODUCER = "one"  # who inserts


@dataclass
class File:
    name: str  # below the data set's directory
    compression: str | None
    records: list[oracle.Record]


@dataclass
class Case:
    """One stream; `files` is the data set in order, a file may be in it twice."""

    name: str
    files: list[File]
    paths: list[str]  # files or a pattern, below the data set's directory
    spec: oracle.Spec
    key_feature: str | None  # of sequence files: whether they have keys of their own
    raw: frozenset[str]  # features that are written as bytes
    reading: str  # "batches", "rounds" or "epochs"
    workers: int
    options: dict[str, Any]
    kind: str = "tfrecord"  # of the source; or "files", "arrays", "log"
    record: str = "sequence_example"  # what a TFRecord is; or "example"
    layout: array_data.Layout | None = None  # of arrays
    arrays: array_data.Data | None = None  # once they are written
    parts: dict[str, Part] = dataclasses.field(default_factory=dict)  # of a mix; `files` is empty
    push: Push | None = None  # of a log, also one that is a part
    salt: int = 0  # groups of one stream save other states

    def __repr__(self) -> str:
        if self.parts:
            return f"{self.name}: mix of {self.parts}, {self.spec}, {self.options}, {self.push}"
        lengths = [[len(next(iter(r.sequences.values()))) for r in f.records] for f in self.files]
        return (
            f"{self.name}: {self.kind}, {self.record}, {self.workers} workers by {self.reading}, "
            f"lengths {lengths}, {self.spec}, {self.options}, {self.push}"
        )


@dataclass
class Push:
    """How the sequences of a log come."""

    before: int  # so many before the first loader begins
    stops: list[tuple[int, str]]  # producers end behind so many, one after another, "killed" or not
    capacity: int | None
    closes: bool  # the input ends as the producer closes, or else is ended by a call of its own


@dataclass
class Part:
    """What a mix is made of; `whole` is the weight, or in its ratio to the other parts' weights."""

    case: Case
    weight: float
    whole: int
    epochs: int | None

    def records(self) -> list[oracle.Record]:
        return [record for file in self.case.files for record in file.records]


def numbers(case: Case) -> list[tuple[int, int]]:
    """(part, record) of each sequence of a mix."""
    parts = [
        mixing.Part(len(part.records()), part.whole, part.epochs, part.case.kind == "log")
        for part in case.parts.values()
    ]
    return list(mixing.order(parts, case.spec.seed, case.spec.shuffle))


def model(case: Case, update: oracle.Update | None = None) -> oracle.Model:
    """What the stream delivers. A mix is as a data set that has its records in their order."""
    if not case.parts:
        return oracle.Model([file.records for file in case.files], case.spec, update)
    records = [part.records() for part in case.parts.values()]
    mixed = [records[part][record] for part, record in numbers(case)]
    return oracle.Model([mixed], dataclasses.replace(case.spec, shuffle=False), update)


# -- making one ------------------------------------------------------------------------------------


def values(
    rng: np.random.Generator, dtype: str, shape: tuple[int, ...], raw: bool = True
) -> np.ndarray:
    """Random values of a dtype; those that are not written raw are such as TFRecord files can hold:
    of float64 what float32 can, of uint64 what int64 can.
    """
    if dtype in SHORT and raw:
        return rng.integers(0, 2**16, shape, np.uint16).view(dtype)  # also NaN, of any payload
    if "float" in dtype:
        array = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)
        return array.astype(dtype) if raw else array.astype(np.float32).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    info = np.iinfo(dtype)
    few = rng.integers(2)  # small numbers are short on the wire, others are not
    most = int(info.max) if raw else min(int(info.max), 2**63 - 1)
    low, high = (max(info.min, -9), 9) if few else (info.min, most)
    return rng.integers(low, high, shape, dtype, endpoint=True)


def _feature(rng: np.random.Generator, variable: bool, ragged: bool) -> oracle.Feature:
    dtype, form = str(rng.choice(DTYPES)), int(rng.integers(4))
    if variable and form < 2 and (ragged or form):
        return oracle.Feature("bytes") if form else oracle.Feature(dtype, ragged=True)
    return oracle.Feature(dtype, SHAPES[rng.integers(len(SHAPES))])


def _features(
    rng: np.random.Generator, prefix: str, most: int, variable: bool = False, ragged: bool = True
) -> dict[str, oracle.Feature]:
    return {f"{prefix}{i}": _feature(rng, variable, ragged) for i in range(most)}


def is_variable(feature: oracle.Feature) -> bool:
    return feature.ragged or feature.dtype == "bytes"


def drawn(rng: np.random.Generator, feature: oracle.Feature, n: int | None, raw: bool) -> Any:
    """What a sequence of `n` steps has of a feature; None: one value."""
    if not is_variable(feature):
        return values(rng, feature.dtype, feature.shape if n is None else (n, *feature.shape), raw)
    most = int(rng.choice([0, 4, 40, 3000]))  # some outgrow what batches before have needed
    parts = [
        rng.bytes(count) if feature.dtype == "bytes" else values(rng, feature.dtype, (count,), raw)
        for count in rng.integers(0, most + 1, 1 if n is None else n).tolist()
    ]
    return parts[0] if n is None else parts


def _states(rng: np.random.Generator, kind: str) -> dict[str, oracle.State]:
    states = {}
    for name, feature in _features(rng, "s", int(rng.integers(4))).items():
        zero = [None, None, 0.3, 1.0][rng.integers(4)]
        if kind in INITIAL and rng.integers(3) == 0:
            states[name] = oracle.State(feature.dtype, feature.shape, from_data=True, zero=zero)
            continue
        init = [None, values(rng, feature.dtype, ()), values(rng, feature.dtype, feature.shape)]
        states[name] = oracle.State(feature.dtype, feature.shape, init[rng.integers(3)], zero=zero)
    return states


def _lengths(rng: np.random.Generator, spec: oracle.Spec, count: int) -> list[int]:
    if not spec.pad:
        return (rng.integers(1, 5, count) * spec.num_unroll).tolist()
    longest = int(rng.choice([1, spec.num_unroll, 4 * spec.num_unroll + 1]))
    return rng.integers(1, longest + 1, count).tolist()


def _record(
    rng: np.random.Generator, spec: oracle.Spec, kind: str, raw: frozenset[str], key: str, n: int
) -> oracle.Record:
    length = None
    if kind in INITIAL and rng.integers(3) == 0:  # shorter than its arrays, or in the padding
        length = int(rng.integers(oracle.segment_count(n, spec.num_unroll) * spec.num_unroll + 1))
    return oracle.Record(
        key=key,
        length=length,
        sequences={
            name: drawn(rng, feature, n, kind != "tfrecord" or name in raw)
            for name, feature in spec.sequences.items()
        },
        context={
            name: drawn(rng, feature, None, kind != "tfrecord" or name in raw)
            for name, feature in spec.context.items()
        },
        states={
            name: values(rng, state.dtype, state.shape)
            for name, state in spec.states.items()
            if state.from_data
        },
    )


def _array_records(
    rng: np.random.Generator, spec: oracle.Spec, layout: array_data.Layout, has_keys: bool
) -> list[oracle.Record]:
    """Records whose values are such that they may lie in files as the layout says."""

    def drawn(name: str, feature: oracle.Feature, shape: tuple[int, ...]) -> np.ndarray:
        dtype = layout.columns[name].dtype
        return values(rng, dtype, shape, raw=dtype == feature.dtype).astype(feature.dtype)

    return [
        oracle.Record(
            key=f"id-{i}-é" if has_keys else "",
            sequences={n: drawn(n, f, (length, *f.shape)) for n, f in spec.sequences.items()},
            context={n: drawn(n, f, f.shape) for n, f in spec.context.items()},
        )
        for i, length in enumerate(_lengths(rng, spec, int(rng.integers(1, 13))))
    ]


def _inserted(
    rng: np.random.Generator, spec: oracle.Spec, has_keys: bool
) -> list[oracle.Record]:
    lengths = _lengths(rng, spec, int(rng.integers(1, 40)))
    keys = [f"id-{i}-é" if has_keys else f"{PRODUCER}:{i + 1}" for i in range(len(lengths))]
    return [
        _record(rng, spec, "log", frozenset(), *row) for row in zip(keys, lengths, strict=True)
    ]


def _files(
    rng: np.random.Generator,
    spec: oracle.Spec,
    kind: str,
    raw: frozenset[str],
    key_feature: str | None,
) -> tuple[list[File], list[str]]:
    """The files in the order of the data set, and the paths that list them."""
    files = []
    folders = [["", "a/", "b/"], [""], ["a/"]][rng.integers(3)]
    for f in range(int(rng.integers(1, 4))):
        name = f"{rng.choice(folders)}{'zyx'[f]}-{f}.{SUFFIX[kind]}"
        packed = kind == "tfrecord" and rng.integers(3) == 0
        compression = str(rng.choice(["gzip", "zlib"])) if packed else None
        lengths = _lengths(rng, spec, int(rng.integers(1, 7)))
        keys = [f"id-{f}-{i}-é" if key_feature else "" for i in range(len(lengths))]
        records = [_record(rng, spec, kind, raw, *row) for row in zip(keys, lengths, strict=True)]
        if spec.on_error == "skip":
            records = [dataclasses.replace(r, damaged=rng.integers(4) == 0) for r in records]
        files.append(File(name, compression, records))
    if len(folders) == 1 and rng.integers(2):
        files.sort(key=lambda file: file.name)
        return files, [f"{folders[0]}*.{SUFFIX[kind]}"]
    if rng.integers(4) == 0:
        files.append(files[0])  # a file may be listed twice
    return files, [file.name for file in files]


def _data(
    rng: np.random.Generator, spec: oracle.Spec, kind: str, key_feature: str | None
) -> dict[str, Any]:
    """The data set, as fields of a case: `files`, `paths`, `raw`, `layout`."""
    raw = frozenset(
        name
        for name in [*spec.sequences, *spec.context]
        if kind == "tfrecord" and rng.integers(4) == 0
    )
    layout, paths = None, []
    if kind == "arrays":
        layout = array_data.layout(rng, spec, key_feature is not None)
        files = [File("", None, _array_records(rng, spec, layout, key_feature is not None))]
    elif kind == "log":
        files = [File("", None, _inserted(rng, spec, key_feature is not None))]
    else:
        files, paths = _files(rng, spec, kind, raw, key_feature)
    return {"files": files, "paths": paths, "raw": raw, "layout": layout}


def _classes(rng: np.random.Generator, spec: oracle.Spec) -> oracle.Spec:
    """The spec, with classes of lengths or without."""
    if spec.boundaries or spec.tail == "stop" or rng.integers(3):
        return spec
    lengths = rng.integers(1, 4 * spec.unroll + 2, int(rng.integers(1, 4)))
    window = spec.batch_size + int(rng.integers(12)) if rng.integers(4) else None
    return dataclasses.replace(
        spec, boundaries=tuple(sorted(set(lengths.tolist()))), window=window
    )


def _limited(rng: np.random.Generator, case: Case) -> Case:
    """The case, sometimes with a greatest length, which some sequences may be longer than."""
    if rng.integers(3) or case.spec.maximum_length is not None:
        return case
    spec = case.spec
    some = [part.case for part in case.parts.values()] or [case]
    lengths = [
        len(next(iter(r.sequences.values()))) for c in some for f in c.files for r in f.records
    ]
    live_mix = case.parts and any(c.kind == "log" for c in some)
    skips = spec.epochs is not None and not live_mix
    what = str(rng.choice(["error", "truncate", "skip"][: 3 if skips else 2]))
    most = int(rng.choice([max(lengths), *lengths]))
    if what == "error":
        most = max(lengths) + int(rng.integers(2))
    elif what == "truncate" and spec.pad:
        most = int(rng.integers(1, max(lengths) + 2))
    spec = dataclasses.replace(spec, maximum_length=most, on_too_long=what)
    if spec.pad and rng.integers(3) == 0 and _may_be_whole(case, most):
        spec = dataclasses.replace(spec, num_unroll=None)
    return dataclasses.replace(case, spec=spec)


def _may_be_whole(case: Case, most: int) -> bool:
    """Whether no total length that is given is beyond a sequence's only segment."""
    some = [part.case for part in case.parts.values()] or [case]
    records = [r for c in some for f in c.files for r in f.records]
    return all(
        r.length is None
        or r.length <= -(-len(next(iter(r.sequences.values()))) // most) * most
        for r in records
    )


def make(
    name: str, rng: np.random.Generator, kind: str | None = None, **fields: Any
) -> Case:
    """A random case; the kind of its source, and `fields` of the spec, can be given."""
    return _limited(rng, _make(name, rng, kind, **fields))


def _make(name: str, rng: np.random.Generator, kind: str | None = None, **fields: Any) -> Case:
    kind = kind or str(rng.choice(["tfrecord", "files", "arrays"]))
    epochs = [1, 1, 2, 3, None][rng.integers(5)]
    example = str(rng.choice(["sequence_example", "example"]))
    ragged = kind != "tfrecord" or example == "sequence_example"
    spec = oracle.Spec(
        sequences=_features(rng, "x", int(rng.integers(1, 4)), kind in VARIABLE, ragged),
        context=_features(rng, "c", int(rng.integers(3)), kind in VARIABLE),
        states=_states(rng, kind),
        num_unroll=int(rng.integers(1, 8)),
        batch_size=int(rng.integers(1, 7)),
        lanes=int(rng.integers(1, 5)),
        shuffle=bool(rng.integers(2)),
        seed=int(rng.integers(2**64, dtype=np.uint64)),
        epochs=epochs,
        pad=bool(rng.integers(5)),
        tail=str(rng.choice(["shrink", "stop", "pad"][: 3 if epochs else 2])),
        epoch_end=str(rng.choice(["continue", "drain"])),
        on_error="skip" if epochs and rng.integers(5) == 0 else "raise",
        trim=bool(rng.integers(3) == 0),
    )
    spec = _classes(rng, dataclasses.replace(spec, **fields))
    key_feature = "id" if rng.integers(4) == 0 else None
    data = _data(rng, spec, kind, key_feature)
    if spec.epochs is None and spec.tail == "stop" and spec.epoch_end == "drain":
        # Without a full batch in an epoch this is an error, as it has to be.
        most = sum(len(file.records) for file in data["files"])
        spec = dataclasses.replace(spec, batch_size=1, lanes=min(spec.lanes, most))
    records = sum(len(file.records) for file in data["files"])
    if kind != "log" and spec.lanes <= records and "lanes" not in fields and rng.integers(4) == 0:
        spec = dataclasses.replace(spec, lanes_by="record")
    kept = spec.lanes_by == "record" and bool(rng.integers(2))
    if kept:
        spec = dataclasses.replace(spec, initial="kept")
        _share_keys(rng, data["files"], kind, key_feature)
    case = Case(
        **data,
        name=name,
        kind=kind,
        record=example,
        spec=spec,
        key_feature=key_feature,
        reading=str(
            rng.choice(["batches", "rounds", "epochs"][: 3 if spec.epoch_end == "drain" else 2])
        ),
        workers=int(rng.integers(1, min(3, spec.lanes) + 1)),
        options={
            "persist": bool(rng.integers(3)),
            "depth": int(rng.integers(2, 6)),
            "num_threads": int(rng.integers(1, 4)),
            "interval": float(rng.choice([0.01, 1.0])),
        },
    )
    if kept:
        case.options.update(persist=True, keep_final=True)
    return case


def _share_keys(
    rng: np.random.Generator, files: list[File], kind: str, key_feature: str | None
) -> None:
    """Sometimes several records have the same key."""
    if kind == "arrays" or not key_feature or rng.integers(2):
        return
    for file in files:
        for i, record in enumerate(file.records):
            file.records[i] = dataclasses.replace(record, key=f"same-{rng.integers(3)}-é")


def with_sizes(case: Case, rng: np.random.Generator) -> Case:
    """The case with other batch sizes on the way, if its stream can have them."""
    spec = case.spec
    few = spec.epochs is None and spec.tail == "stop" and spec.epoch_end == "drain"
    if spec.tail == "pad" or not case.options["persist"] or few:
        return case
    most = 8
    if case.push:  # the window has its places beside the rows
        window = (spec.window or 16 * spec.batch_size) if spec.boundaries else 0
        most = ((case.push.capacity or _least(case)) - window) // (case.options["depth"] + 2)
    least = 1 if case.reading == "epochs" else 0
    steps = sorted(set(rng.integers(0, 16, int(rng.integers(1, 5))).tolist()))
    sizes = {step: int(rng.integers(least, most + 1)) for step in steps}
    sizes[steps[-1]] = max(1, sizes[steps[-1]])  # with 0 it would go on for ever
    return dataclasses.replace(case, spec=dataclasses.replace(spec, sizes=sizes))


def make_log(name: str, rng: np.random.Generator) -> Case:
    """A random case whose sequences are inserted by one producer, in their order."""
    case = make(name, rng, "log", epochs=1, shuffle=False, on_error="raise")
    case.options["persist"] = True
    count = len(case.files[0].records)
    case.push = _push(rng, case, count, min(count, _least(case)))
    return case


def _least(case: Case) -> int:
    """The capacity that a log must have."""
    window = case.spec.window or 16 * case.spec.batch_size
    rest = (case.options["depth"] + 2) * case.spec.batch_size
    return int(rest + window if case.spec.boundaries else rest)


def _push(rng: np.random.Generator, case: Case, count: int, before: int) -> Push:
    """At most `before` are inserted when nobody reads."""
    least = _least(case)
    return Push(
        before=int(rng.integers(before + 1)),
        stops=[
            (int(at), str(rng.choice(["killed", "left"])))
            for at in sorted(rng.integers(count + 1, size=rng.integers(3)))
        ],
        capacity=[None, least, least + 3][rng.integers(3)],
        closes=bool(rng.integers(2)),
    )


def log_of(case: Case) -> Case:
    """The case, or its part, whose sequences are inserted."""
    logs = [part.case for part in case.parts.values() if part.case.kind == "log"]
    return logs[0] if logs else case


def insert(stream: segue.Stream, case: Case, until: int) -> segue.Producer:
    """Insert what the producer has not yet inserted, up to so many; it is still open."""
    case = log_of(case)
    producer = stream.producer(PRODUCER, takeover=True)  # of one that was killed, if it is new
    serial, cursor = producer.resume()
    assert cursor == (str(serial).encode() if serial else b"")
    for number, record in enumerate(case.files[0].records[serial:until], serial + 1):
        producer.insert(
            record.sequences,
            record.context,
            key=record.key if case.key_feature else None,
            length=record.length,
            initial_states=record.states,
            cursor=str(number).encode(),
        )
    return producer


def make_mix(
    name: str, rng: np.random.Generator, most: int = 300, live: bool = False, **fields: Any
) -> Case:
    """A random mix of one to four parts, of at most so many sequences; `live`: one is a log."""
    kinds = [str(rng.choice([*SUFFIX])) for _ in range(rng.integers(1, 5))]
    if live:
        kinds[rng.integers(len(kinds))] = "log"
        fields["on_error"] = "raise"
    plainest = min(kinds, key=["arrays", "tfrecord", "files", "log"].index)
    base = _make(name, rng, plainest, **{"epochs": 1, **fields})
    base.spec = dataclasses.replace(base.spec, lanes_by="sequence", initial="value")
    case = dataclasses.replace(base, files=[], paths=[], kind="mix", parts={}, layout=None)
    unit = [1, 4, 10][rng.integers(3)]
    for i, kind in enumerate(kinds):
        key_feature = "id" if rng.integers(4) == 0 else None
        data = _data(rng, base.spec, kind, key_feature)
        whole = int(rng.choice([1, 2, 3, 7, 40]))
        case.parts[f"part {i}"] = Part(
            dataclasses.replace(base, **data, kind=kind, key_feature=key_feature),
            whole / unit if unit > 1 else whole,
            whole,
            ([1, 1, 2, None][rng.integers(4)] if i else int(rng.integers(1, 4)))
            if kind != "log"
            else 1,
        )
    while len(numbers(case)) > most:
        for part in case.parts.values():
            part.weight, part.whole, part.epochs = 1, 1, 1
    if live:
        _make_live(rng, case)
    return _limited(rng, case)


def _make_live(rng: np.random.Generator, case: Case) -> None:
    """Where the files end first, no more is inserted than is read: its input is over by then."""
    log = log_of(case)
    place = next(at for at, part in enumerate(case.parts.values()) if part.case is log)
    if all(part != place for part, _ in numbers(case)):
        for part in case.parts.values():
            part.weight, part.whole, part.epochs = 1, 1, 1 if part.case is log else None
    order = [part for part, _ in numbers(case)]
    del log.files[0].records[order.count(place) :]
    case.options["persist"] = True
    case.push = log.push = _push(
        rng, case, order.count(place), order[: _least(case)].count(place)
    )


def _flip(path: Path, at: int, compression: str | None) -> None:
    """Change the last byte of a record, which belongs to the checksum of its data."""
    unpack, pack = {
        None: (bytes, bytes),
        "gzip": (gzip.decompress, gzip.compress),
        "zlib": (zlib.decompress, zlib.compress),
    }[compression]
    data = bytearray(unpack(path.read_bytes()))
    data[at] ^= 1
    path.write_bytes(pack(data))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def _part(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def plain_feature(values: np.ndarray | bytes | str | list[bytes], form: str) -> bytes:
    """A Feature of ``tf.train.Example``: all values in one list that is packed, as TensorFlow does,
    or holds them one by one; or the first of them in a list of their own.
    """
    if isinstance(values, (bytes, str)):
        return _part(1, _part(1, values.encode() if isinstance(values, str) else values))
    if isinstance(values, list):  # a value a step
        middle = len(values) // 3 if form == "in two" else len(values)
        lists = [values[:middle], values[middle:]]
        return b"".join(_part(1, b"".join(_part(1, value) for value in some)) for some in lists)
    flat = np.ravel(values)
    if form == "in two":
        middle = len(flat) // 3
        return plain_feature(flat[:middle], "packed") + plain_feature(flat[middle:], "one by one")
    if "float" in flat.dtype.name:
        number, tag, words = 2, b"\x0d", [bytes(word) for word in flat.astype("<f4")[:, None]]
    else:
        number, tag, words = 3, b"\x08", [_varint(int(value)) for value in flat]
    if form == "packed":
        return _part(number, _part(1, b"".join(words)))
    return _part(number, b"".join(tag + word for word in words))


def plain_example(
    features: Mapping[str, np.ndarray | bytes | str | list[bytes]], form: str
) -> bytes:
    """A ``tf.train.Example``, by the protocol buffers' own rules alone."""
    entries = (
        _part(1, _part(1, name.encode()) + _part(2, plain_feature(values, form)))
        for name, values in features.items()
    )
    return _part(1, b"".join(entries))


def _write_files(case: Case, directory: Path) -> None:
    spec = case.spec
    fields = [
        {name: segue.Feature(f.dtype, f.shape, f.ragged) for name, f in some.items()}
        for some in (case.spec.sequences, case.spec.context)
    ]
    states = {
        name: segue.State(s.dtype, s.shape, init="data")
        for name, s in case.spec.states.items()
        if s.from_data
    }
    for file in {file.name: file for file in case.files}.values():
        path = directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        damaged: list[int] = []  # first bytes of columns
        with segue.FileWriter(path, *fields, states) as writer:
            for i, record in enumerate(file.records):
                begin = writer.bytes_written
                writer.write(
                    sequences=record.sequences,
                    context=record.context,
                    key=record.key or None,
                    length=record.length,
                    initial_states=record.states,
                )
                if not record.key:
                    key = f"{path.name}:{i}"
                    file.records[i] = dataclasses.replace(record, key=key)
                if record.damaged:
                    counts = sum(map(is_variable, [*spec.sequences.values(), *spec.context.values()]))
                    header = 60 + 8 * counts + len(file.records[i].key.encode())  # docs/format.md
                    damaged.append(begin + -(-header // 64) * 64)
        for at in damaged:
            _flip(path, at, None)


def write(case: Case, directory: Path) -> None:
    """Write the data set, and fill in the keys that are places in files."""
    for name, part in case.parts.items():
        write(part.case, directory / name)
    if case.parts or case.push:
        return
    if case.kind == "files":
        _write_files(case, directory)
        return
    if case.layout:
        file, has_keys = case.files[0], case.key_feature is not None
        case.arrays, file.records = array_data.write(
            case.layout, case.spec, file.records, directory, has_keys
        )
        return

    plain = case.record == "example"

    def encoded(name: str, array: Any, steps: bool) -> Any:
        feature = case.spec.sequences[name] if steps else case.spec.context[name]
        if name not in case.raw or feature.dtype == "bytes":
            return array
        return [step.tobytes() for step in array] if steps and not plain else array.tobytes()

    # Keys hold paths below the deepest directory that all files have in common.
    folders = {file.name.rpartition("/")[0] for file in case.files}
    common = len(min(folders)) + 1 if len(folders) == 1 and min(folders) else 0
    for file in {file.name: file for file in case.files}.values():
        path = directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        damaged: list[int] = []  # places of bytes to be changed
        with SequenceExampleWriter(path, compression=file.compression) as writer:
            for i, record in enumerate(file.records):
                context = {n: encoded(n, a, False) for n, a in record.context.items()}
                if case.key_feature:
                    context[case.key_feature] = record.key
                sequences = {n: encoded(n, a, True) for n, a in record.sequences.items()}
                if plain:
                    form = ("packed", "one by one", "in two")[i % 3]
                    data = plain_example({**context, **sequences}, form)
                    offset = writer.write_record(data)
                else:
                    offset = writer.write(sequences, context)
                if not case.key_feature:
                    key = f"{file.name[common:]}:{offset}"
                    file.records[i] = dataclasses.replace(record, key=key)
                if record.damaged:
                    damaged.append(writer.offset - 1)
        for at in damaged:
            _flip(path, at, file.compression)


# -- what comes of it ------------------------------------------------------------------------------


def content(array: np.ndarray) -> bytes:
    """Its bytes; of what is ragged, or bytes, of each step how many, and those."""
    if array.dtype != object:
        return array.tobytes()
    parts = [bytes(part) if isinstance(part, bytes) else part.tobytes() for part in array.flat]
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def split(ragged: segue.Ragged) -> np.ndarray:
    """What each step has, from values and offsets: an object array."""
    offsets = ragged.offsets
    array = np.empty(offsets[..., 1:].shape, object)
    for place in np.ndindex(array.shape):
        begin, end = offsets[place], offsets[(*place[:-1], place[-1] + 1)]
        array[place] = ragged.values[begin:end]
    return array


def variable(batch: segue.Batch, features: Any) -> oracle.Arrays:
    """Object arrays of those features of a batch that are not dense."""
    return {
        name: batch.bytes(name) if feature.dtype == "bytes" else split(batch.ragged(name))
        for name, feature in features.items()
        if is_variable(feature)
    }


def update(states: oracle.Arrays, inputs: oracle.Arrays, step: int) -> oracle.Arrays:
    """One row's next states: any change of a state, an input or the step changes all of them."""
    crc = step
    for arrays in (states, inputs):
        for name in sorted(arrays):
            crc = zlib.crc32(content(arrays[name]), crc)
    after = {}
    for name, state in states.items():
        words = (np.arange(1, state.size + 1, dtype=np.uint64) * np.uint64(crc | 1)) >> np.uint64(3)
        if state.dtype == bool:
            words &= np.uint64(1)
        if state.dtype.name in SHORT:  # any bits, also NaN
            after[name] = words.astype(np.uint16).view(state.dtype).reshape(state.shape)
            continue
        value = words.astype(state.dtype).reshape(state.shape)
        after[name] = (value / 7).astype(state.dtype) if state.dtype.kind == "f" else value
    return after


def expected(case: Case) -> Callable[[int], Iterator[oracle.Batch]]:
    """The model's batches of a lane; those of an endless stream only up to ENDLESS."""
    plain = model(case, lambda states, inputs, step: update(states, inputs, step + case.salt))
    return lambda lane: islice(plain.batches(lane), None if case.spec.last else ENDLESS)


def source_of(case: Case, directory: Path) -> Any:
    if case.parts:
        return segue.Mix(
            {
                name: segue.Part(source_of(part.case, directory / name), part.weight, part.epochs)
                for name, part in case.parts.items()
            }
        )
    if case.arrays:
        return case.arrays.open()
    if case.push:
        return segue.Push(case.push.capacity, producers=1 if case.push.closes else None)
    paths = [directory / path for path in case.paths]
    if case.kind == "files":
        return segue.Files(paths)
    return segue.TFRecord(
        paths,
        key=case.key_feature,
        allow_surplus=case.key_feature is not None,
        record=case.record,
    )


def states_of(case: Case) -> dict[str, segue.State]:
    return {
        name: segue.State(
            state.dtype,
            state.shape,
            init="data" if state.from_data else state.init,
            policy=None if state.zero is None else segue.zero(state.zero),
        )
        for name, state in case.spec.states.items()
    }


def open_by_name(client: segue.Client, case: Case, **options: Any) -> segue.Stream:
    """The stream, which exists: what is not given is as it has it."""
    return client.stream(case.name, states=states_of(case), **options)


def open_stream(client: segue.Client, case: Case, directory: Path, **options: Any) -> segue.Stream:
    spec = case.spec
    features = [
        {name: segue.Feature(f.dtype, f.shape, f.ragged) for name, f in some.items()}
        for some in (spec.sequences, spec.context)
    ]
    arguments: dict[str, Any] = {
        "source": source_of(case, directory),
        "sequences": features[0],
        "context": features[1],
        "states": states_of(case),
    }
    names = ("num_unroll", "batch_size", "lanes", "shuffle", "seed", "epochs", "first_epoch",
             "pad", "tail", "epoch_end", "on_error", "maximum_length",
             "on_too_long", "trim", "lanes_by", "window", "initial")  # fmt: skip
    arguments.update({name: getattr(spec, name) for name in names})
    arguments["bucket_boundaries"] = spec.boundaries or None
    return client.stream(case.name, **{**arguments, **case.options, **options})


_ROW_FIELDS = ("sequence", "sequence_count", "length", "total_length", "insertion_index", "epoch",
               "is_first", "is_last", "is_kept")  # fmt: skip


def same(what: str, got: np.ndarray, want: np.ndarray) -> None:
    """Equal in dtype, shape and every byte."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype}, not {want.dtype}"
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    assert got.tobytes() == want.tobytes(), f"{what}:\n{got}\nnot\n{want}"


def compare_ragged(where: str, got: segue.Ragged, want: np.ndarray) -> None:
    """Values and offsets, against what each step has."""
    assert got.offsets.dtype == np.int64 and got.offsets.ndim == want.ndim, where
    assert not got.values.flags.writeable and not got.offsets.flags.writeable, where
    if want.ndim == 2:
        assert got.offsets.shape == (len(want), want.shape[1] + 1), where
        assert (got.offsets[:-1, -1] == got.offsets[1:, 0]).all(), where
    else:
        assert got.offsets.shape == (len(want) + 1,), where
    if not got.offsets.size:  # of no rows
        assert not len(got.values), where
        return
    assert got.offsets.flat[0] == 0 and got.offsets.flat[-1] == len(got.values), where
    for place, part in np.ndenumerate(split(got)):
        one = want[place]
        same(f"{where}{place}", part, np.frombuffer(one, np.uint8) if type(one) is bytes else one)


def compare(batch: segue.Batch, want: oracle.Batch) -> None:
    """All that a batch shows, against the model's."""
    where = f"lane {want.lane}, step {want.step}"
    assert (batch.lane, batch.step) == (want.lane, want.step), where
    assert batch.batch_size == want.batch_size, where
    assert batch.key == want.key, where
    assert batch.next_key == want.next_key, where
    for name in _ROW_FIELDS:
        got = getattr(batch, name).tolist()
        assert got == getattr(want, name), f"{where}: {name} {got}, not {getattr(want, name)}"
    same(f"{where}: mask", batch.mask, want.mask)
    for kind in ("sequences", "context"):
        got, model = getattr(batch, kind), getattr(want, kind)
        assert list(got) == [name for name in model if model[name].dtype != object], where
        for name in model:
            if model[name].dtype != object:
                same(f"{where}: {name}", got[name], model[name])
                continue
            compare_ragged(f"{where}: {name}", batch.ragged(name), model[name])
            if model[name].size and model[name].flat[0].__class__ is bytes:
                assert batch.bytes(name).tolist() == model[name].tolist(), f"{where}: {name}"
    for name, state in want.state_in.items():
        same(f"{where}: state {name}", batch.state(name), state)


def work(batch: segue.Batch, case: Case, in_place: bool = False) -> None:
    """What `update` makes of the batch as it was delivered, row by row, saved."""
    names = list(case.spec.states)
    after = {
        name: batch.state_out(name) if in_place else np.empty_like(batch.state(name))
        for name in names
    }
    others = variable(batch, case.spec.sequences)
    for row in range(batch.batch_size):
        states = {name: np.array(batch.state(name)[row]) for name in names}
        inputs = {name: array[row] for name, array in {**batch.sequences, **others}.items()}
        for name, value in update(states, inputs, batch.step + case.salt).items():
            after[name][row] = value
    for name in names:
        batch.save_state(name, after[name])


def in_order(case: Case, lanes: list[int]) -> list[oracle.Batch]:
    """The model's batches in the order in which a loader over `lanes` delivers them."""
    batches = expected(case)
    lists = [list(batches(lane)) for lane in lanes]
    everything = [batch for some in lists for batch in some]
    if case.reading != "epochs":
        return sorted(everything, key=lambda batch: (batch.step, batch.lane))
    if case.spec.last is None:  # only epochs that are whole in all lanes
        end = min(some[-1].epoch[0] for some in lists)
        everything = [batch for batch in everything if batch.epoch[0] < end]
    return sorted(everything, key=lambda batch: (batch.epoch[0], batch.step, batch.lane))


def read(loader: segue.Loader, case: Case) -> Iterator[segue.Batch]:
    """The batches of a loader, one by one, whichever way the case reads them."""
    if case.reading == "batches":
        yield from loader
    elif case.reading == "rounds":
        for batches in loader.rounds():
            yield from batches
    else:
        for epoch in loader.epochs():
            for batch in epoch:
                assert set(batch.epoch.tolist()) == {epoch.index}
                yield batch


class Held:
    """Arrays of the newest batch of each lane: they must not change while they are alive."""

    def __init__(self) -> None:
        self._held: dict[int, list[tuple[np.ndarray, bytes]]] = {}

    def swap(self, batch: segue.Batch, case: Case) -> None:
        for array, content in self._held.pop(batch.lane, []):
            assert array.tobytes() == content, f"lane {batch.lane}: an array that is held changed"
        arrays = [*batch.sequences.values(), *batch.context.values(), batch.length]
        arrays += [batch.state(name) for name in case.spec.states]
        for name, feature in [*case.spec.sequences.items(), *case.spec.context.items()]:
            if is_variable(feature):
                arrays += batch.ragged(name)
        self._held[batch.lane] = [(array, array.tobytes()) for array in arrays]


def resize(loader: segue.Loader, step: int, size: int) -> None:
    """Give the lanes that are at that step another batch size; not those that have ended before."""
    loader._commit()
    loader._attach_to_begin()
    handles = loader._handles
    if all(lane.committed == step for lane in handles):
        loader.set_batch_size(size)
    for lane in handles:
        if lane.committed == step:
            lane.set_batch_size(size)


def check(
    loader: segue.Loader, case: Case, wanted: list[oracle.Batch], whole: bool = True
) -> None:
    """Read what is wanted, compare it and save states; `whole`: and then the input has ended."""
    held = Held()
    batches = read(loader, case)
    parts = [part for part, _ in numbers(case)] if case.parts else None
    resized = -1
    reached = -1  # by the lane of the batch before: an epoch's last lane is asked for more, too
    for want in wanted:
        begun = case.reading == "rounds" and want.step == resized  # the round was taken
        steps = {want.step, reached} if case.reading == "epochs" else {want.step}
        for step in steps & case.spec.sizes.keys() if not begun else ():
            resized = step
            resize(loader, step, case.spec.sizes[step])
        reached = want.step + 1
        batch = next(batches, None)
        assert batch is not None, f"ended where lane {want.lane}, step {want.step} was due"
        compare(batch, want)
        of = [parts[n] if parts and n >= 0 else 0 for n in want.insertion_index]
        assert batch.part.tolist() == of, f"lane {want.lane}, step {want.step}: part"
        held.swap(batch, case)
        work(batch, case, in_place=want.step % 2 == 1)
        if want.step % 3 == 0:
            batch.commit()
    if whole:
        for step, size in case.spec.sizes.items():  # where no lane has a batch of that step
            resize(loader, step, size)
        extra = next(batches, None)
        assert extra is None, f"{extra} after the end"
        plain = model(case)
        assert loader.undelivered == sum(plain.undelivered(lane) for lane in loader.lanes)
    else:
        loader.state_dict()  # commits

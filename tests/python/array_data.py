"""Data sets of arrays for the random streams of cases.py: written in many ways, by NumPy alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy then knows bfloat16
import numpy as np

import oracle
import segue

WHOLE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
# What else may lie in a file where a feature has this dtype: by hand, from the types' ranges.
NARROWER = {
    "float16": WHOLE[:3],
    "bfloat16": WHOLE[:3],
    "float32": (*WHOLE[:5], "float16", "bfloat16"),
    "float64": (*WHOLE[:7], "float16", "bfloat16", "float32"),
    "int8": WHOLE[:1],
    "uint8": WHOLE[:1],
    "int16": WHOLE[:3],
    "uint16": ("bool", "uint8"),
    "int32": WHOLE[:5],
    "uint32": ("bool", "uint8", "uint16"),
    "int64": WHOLE[:7],
    "uint64": ("bool", "uint8", "uint16", "uint32"),
    "bool": (),
}
WAYS = ("npy", "big", "raw", "apart", "npz", "memory")


@dataclass(frozen=True)
class Column:
    """How the arrays of a feature lie in files."""

    dtype: str
    way: str


@dataclass(frozen=True)
class Field:
    """The field "x" of records: an array that can be opened, and not sent to another process."""

    path: Path
    dtype: str

    def open(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")["x"].view(self.dtype)


@dataclass(frozen=True)
class Data:
    """A data set that was written, and how it is opened."""

    columns: dict[str, Any]
    table: dict[str, Any] | None  # arguments of `from_columns`; None: a file a sequence
    names: list[str] | None
    checksum: bool

    def open(self) -> segue.Arrays:
        def opened(value: Any) -> Any:
            if isinstance(value, list):
                return [opened(item) for item in value]
            return value.open() if isinstance(value, Field) else value

        columns = {name: opened(value) for name, value in self.columns.items()}
        if self.table is None:
            return segue.Arrays(columns, names=self.names, checksum=self.checksum)
        return segue.Arrays.from_columns(columns, **self.table, checksum=self.checksum)


@dataclass(frozen=True)
class Layout:
    """How a data set lies in files: a file a sequence ("each"), or one table."""

    table: str  # "", "lengths", "offsets" or "keys"
    columns: dict[str, Column]
    checksum: bool


def layout(rng: np.random.Generator, spec: oracle.Spec, has_keys: bool) -> Layout:
    columns = {}
    for name, feature in [*spec.sequences.items(), *spec.context.items()]:
        narrower = NARROWER[feature.dtype]
        narrow = narrower and rng.integers(3) == 0
        dtype = str(rng.choice(narrower)) if narrow else feature.dtype
        # Keys that are made of the name of a file in the store are not known here.
        ways = WAYS if has_keys else WAYS[:-1]
        columns[name] = Column(dtype, str(rng.choice(ways)))
    table = ["", "lengths", "offsets", "keys"][rng.integers(4 if has_keys else 3)]
    return Layout(table, columns, rng.integers(3) == 0)


def _write(path: Path, array: np.ndarray, way: str) -> Any:
    """Write an array; return what `segue.Arrays` gets for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bits = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    if way == "memory":
        return array
    if way == "big" and array.dtype.name != "bfloat16":
        np.save(path.with_suffix(".npy"), bits.astype(bits.dtype.newbyteorder(">")))
        return path.with_suffix(".npy")
    if way == "apart":  # a field of records, with others before and behind
        kind = np.dtype([("before", "u1", 3), ("x", bits.dtype, bits.shape[1:]), ("behind", "u1")])
        records = np.zeros(len(bits), kind)
        records["x"] = bits
        np.save(path.with_suffix(".npy"), records)
        return Field(path.with_suffix(".npy"), array.dtype.name)
    if way == "npz" and array.dtype.name != "bfloat16":
        np.savez(path.with_suffix(".npz"), other=np.zeros(3), **{path.parent.name: bits})
        return path.with_suffix(".npz")
    if way == "raw" or array.dtype.name == "bfloat16":
        path.with_suffix(".bin").write_bytes(b"12345" + bits.tobytes())
        return segue.Raw(path.with_suffix(".bin"), array.dtype.name, (-1, *array.shape[1:]), 5)
    np.save(path.with_suffix(".npy"), bits)
    return path.with_suffix(".npy")


def write(
    how: Layout, spec: oracle.Spec, records: list[oracle.Record], directory: Path, keys: bool
) -> tuple[Data, list[oracle.Record]]:
    """Write the data set; return it, and the records with their keys."""
    columns: dict[str, Any] = {}
    steps = [len(next(iter(record.sequences.values()))) for record in records]

    def stored(array: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(array).astype(how.columns[name].dtype)

    for name in spec.sequences:
        way = how.columns[name].way
        arrays = [stored(record.sequences[name], name) for record in records]
        if how.table:
            columns[name] = _write(directory / name / "table", np.concatenate(arrays), way)
        else:
            columns[name] = [
                _write(directory / name / f"{i:03}", array, way) for i, array in enumerate(arrays)
            ]
    for name in spec.context:
        values = np.stack([stored(record.context[name], name) for record in records])
        columns[name] = _write(directory / name / "values", values, how.columns[name].way)
    names = [record.key for record in records] if keys else None
    offsets = np.cumsum([0, *steps])
    table: dict[str, Any] | None = None
    if how.table == "lengths":
        table = {"lengths": steps, "names": names}
    elif how.table == "offsets":
        table = {"offsets": offsets, "names": names}
    elif how.table:
        table = {"keys": np.repeat(np.array(names, object), steps)}
    data = Data(columns, table, names, how.checksum)
    if names:
        return data, records
    first = columns[next(iter(spec.sequences))]
    placed = []
    for i, record in enumerate(records):
        item = first if how.table else first[i]
        path = Path(getattr(item, "path", item))
        key = f"{path.name}:{offsets[i] if how.table else 0}"
        placed.append(dataclasses.replace(record, key=key))
    return data, placed

#!/usr/bin/env python3
"""The structure of the C code: who may include whom, and how long files, functions and lines are.

    rooms.py [CHECKOUT]             fails with a line for each fault (default: its own checkout)
    rooms.py --figures [CHECKOUT]   prints figures by room instead, also of a checkout without rooms

The rooms of the server are listed from the ground up in server/meson.build; the command line is
above them, lib/core and lib/client below. A file and its header are one unit.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

LINES_MAX, FUNCTION_MAX, COLUMNS_MAX = 700, 60, 100
PUBLIC = "lib/include/segue/segue.h"
GENERATED = re.compile(r"\.pb-c\.h$")
THIRD_PARTY = re.compile(r"(criterion|json-c|lmdb|numpy|protobuf-c|Python|xxhash|zlib)\b")
ORDER = ["its own header", "the system's", "third party's", "the project's"]


@dataclass
class Include:
    line: int
    name: str
    quoted: bool
    path: str | None = None  # in the checkout, if it is there


@dataclass
class File:
    path: str  # in the checkout
    lines: list[str]
    room: str
    includes: list[Include] = field(default_factory=list)
    functions: list[tuple[int, int, str]] = field(default_factory=list)  # line, length, head

    @property
    def unit(self) -> str:
        return self.path.rpartition(".")[0]


def read_rooms(root: Path) -> list[str]:
    """From the ground up; of a checkout without rooms the server is one."""
    text = (root / "server" / "meson.build").read_text()
    match = re.search(r"^rooms = \[(.*?)\]", text, re.M | re.S)
    rooms = re.findall(r"'(\w+)'", match[1]) + ["cli"] if match else ["server"]
    return ["include", "core", "client", *rooms]


def room_of(path: str, rooms: list[str]) -> str:
    """`lib/core/error.h` is in core, `server/source/tfrecord/index.c` in source."""
    part = path.split("/")[1]
    return part if part in rooms else "server"


def functions_of(lines: list[str]) -> list[tuple[int, int, str]]:
    """As clang-format lays them out: braces in the first column, the head above."""
    found, start = [], 0
    for number, line in enumerate(lines):
        if line == "{":
            start = number
            while start > 0 and re.match(r"[\w\t]", lines[start - 1]):
                start -= 1
        elif line == "}" and start:
            found.append((start + 1, number - start + 1, lines[start]))
            start = 0
    return found


def read_file(root: Path, path: str, rooms: list[str]) -> File:
    file = File(path, (root / path).read_text().splitlines(), room_of(path, rooms))
    for number, line in enumerate(file.lines, 1):
        match = re.match(r'#\s*include\s+(["<])([^">]+)[">]', line)
        if match:
            include = Include(number, match[2], match[1] == '"')
            for top in ("server/", "lib/", "lib/include/", f"{Path(path).parent}/"):
                if include.quoted and not include.path and (root / (top + include.name)).is_file():
                    include.path = top + include.name
            file.includes.append(include)
    if path.endswith(".c"):
        file.functions = functions_of(file.lines)
    return file


def read_files(root: Path, rooms: list[str]) -> dict[str, File]:
    paths = [
        str(path.relative_to(root))
        for top in ("lib", "server")
        for path in sorted((root / top).rglob("*.[ch]"))
    ]
    return {path: read_file(root, path, rooms) for path in paths}


# ---- What is wrong ----


def include_faults(
    file: File, include: Include, files: dict[str, File], rooms: list[str]
) -> list[str]:
    if not include.quoted or GENERATED.search(include.name):
        return []
    if not include.path:
        return [f'"{include.name}" is not there']
    if not include.path.endswith("/" + include.name) or "/" not in include.name:
        return [f'"{include.name}" does not name its room']
    other = files[include.path].room
    if other == "client" and file.room != "client":
        return [f'"{include.name}" is not public: the server sees the library by segue/segue.h']
    if rooms.index(other) > rooms.index(file.room):
        return [f'"{include.name}": {other} is above {file.room}']
    return []


def order_faults(file: File) -> list[tuple[int, str]]:
    """The own header, then the system's, third party's, the project's.

    Several files of a room may share a header of their own: it is the first.
    """
    own = file.unit + ".h"
    if file.includes and not any(include.path == own for include in file.includes):
        first = file.includes[0].path or ""
        own = first if Path(first).parent == Path(file.path).parent else ""

    def rank(include: Include) -> int:
        if include.quoted:
            return 0 if include.path == own and file.path.endswith(".c") else 3
        return 2 if THIRD_PARTY.match(include.name) else 1

    ranks = [rank(include) for include in file.includes]
    for before, after, include in zip(ranks, ranks[1:], file.includes[1:]):
        if after < before:
            return [(include.line, f"{include.name}: {ORDER[after]} after {ORDER[before]}")]
    return []


def faults_of(file: File, files: dict[str, File], rooms: list[str]) -> list[tuple[int, str]]:
    faults = [
        (include.line, fault)
        for include in file.includes
        for fault in include_faults(file, include, files, rooms)
    ]
    faults += order_faults(file)
    if len(file.lines) > LINES_MAX and file.path != PUBLIC:
        faults.append((LINES_MAX + 1, f"{len(file.lines)} lines, at most {LINES_MAX}"))
    for line, length, head in file.functions:
        if length > FUNCTION_MAX:
            faults.append((line, f"{length} lines, at most {FUNCTION_MAX}: {head}"))
    for line, text in enumerate(file.lines, 1):
        columns = len(text.expandtabs(8))
        if columns > COLUMNS_MAX:
            faults.append((line, f"{columns} columns, at most {COLUMNS_MAX}"))
    return faults


# ---- Units and circles ----


def unit_graph(files: dict[str, File]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {file.unit: set() for file in files.values()}
    for file in files.values():
        for include in file.includes:
            if include.path and files[include.path].unit != file.unit:
                graph[file.unit].add(files[include.path].unit)
    return graph


def components(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected ones, each before those that include it (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(unit: str) -> None:
        index[unit] = low[unit] = len(index)
        stack.append(unit)
        for other in sorted(graph[unit]):
            if other not in index:
                visit(other)
            if other in stack:
                low[unit] = min(low[unit], low[other])
        if low[unit] == index[unit]:
            at = stack.index(unit)
            found.append(stack[at:])
            del stack[at:]

    for unit in sorted(graph):
        if unit not in index:
            visit(unit)
    return found


def circle_faults(files: dict[str, File]) -> list[str]:
    """Each circle, at an include that is part of it."""
    faults = []
    for circle in components(unit_graph(files)):
        names = " ".join(Path(unit).name for unit in sorted(circle))
        places = [
            f"{file.path}:{include.line}: a circle of includes: {names}"
            for file in files.values()
            for include in file.includes
            if include.path and {file.unit, files[include.path].unit} <= set(circle)
            if file.unit != files[include.path].unit
        ]
        faults += places[:1]
    return faults


def floors_of(graph: dict[str, set[str]]) -> int:
    """The longest chain of units that include one another; a circle is one floor."""
    floor: dict[str, int] = {}
    for component in components(graph):
        others = {other for unit in component for other in graph[unit]} - set(component)
        below = [floor[other] for other in others]
        floor.update(dict.fromkeys(component, max(below, default=0) + 1))
    return max(floor.values(), default=0)


# ---- Figures ----


def figures_of(files: list[File], graph: dict[str, set[str]]) -> list[object]:
    units = {file.unit for file in files}
    inside = {unit: graph[unit] & units for unit in units}
    circles = [circle for circle in components(inside) if len(circle) > 1]
    longest = max(files, key=lambda file: len(file.lines))
    functions = [function for file in files for function in file.functions]
    _, length, head = max(functions, key=lambda function: function[1], default=(0, 0, "-("))
    name = re.search(r"([\w-]+)\(", head)
    return [
        len(files),
        sum(len(file.lines) for file in files),
        floors_of(inside),
        f"{len(circles)} ({sum(map(len, circles))})" if circles else "0",
        f"{len(longest.lines)} {longest.path.partition('/')[2]}",
        f"{length} {name[1] if name else head}",
    ]


def print_figures(files: dict[str, File], rooms: list[str]) -> None:
    """Circles: how many, and in brackets how many units are in them."""
    form = "{:<8} {:>5} {:>6} {:>6} {:>7}  {:<32} {}"
    heads = ["room", "files", "lines", "floors", "circles", "longest file", "longest function"]
    print(form.format(*heads))
    graph = unit_graph(files)
    rows = {room: [room] for room in rooms}
    rows |= {"server": rooms[3:], "all": rooms}
    for name, of in rows.items():
        own = [file for file in files.values() if file.room in of]
        if own:
            print(form.format(name, *figures_of(own, graph)))


def main() -> int:
    parser = argparse.ArgumentParser(usage="rooms.py [--figures] [CHECKOUT]")
    parser.add_argument("--figures", action="store_true")
    here = Path(__file__).resolve().parents[2]
    parser.add_argument("checkout", nargs="?", default=here, type=Path)
    options = parser.parse_args()
    rooms = read_rooms(options.checkout)
    files = read_files(options.checkout, rooms)
    if options.figures:
        print_figures(files, rooms)
        return 0
    faults = [
        f"{file.path}:{line}: {fault}"
        for file in files.values()
        for line, fault in faults_of(file, files, rooms)
    ]
    faults += circle_faults(files)
    print(*faults, sep="\n", end="\n" * bool(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

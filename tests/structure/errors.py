#!/usr/bin/env python3
"""Every text of an error or a warning that a person can get is in docs/errors.md, with its way out.

    errors.py [CHECKOUT]          fails with a line for each text that is missing there, or gone from
                                  the code, or there twice (default: its own checkout)
    errors.py --list [CHECKOUT]   prints place and text of each, in the order of the files

A text is a literal as the code has it; whatever is put into it when it is raised is "…". In C these
are the formats of the functions of SAY, and what begins with "segue: " or "segue COMMAND: "; in
Python what an exception or a warning is made of, also by way of a variable or of a function of the
same file. The first column of the tables of docs/errors.md has the texts in backticks.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = "docs/errors.md"
FOLDERS = ["lib/core", "lib/client", "server", "bindings/python/segue"]
# Functions of C that are given a text to say, and the number of that argument.
SAY = {
    "PyErr_Format": 1,
    "PyErr_SetString": 1,
    "drop": 1,
    "fail_changed": 1,
    "fail_damaged": 2,
    "fail_usage": 0,
    "fail_with": 1,
    "fail_write": 0,
    "hang_up": 2,
    "segue_differ": 1,
    "segue_fail": 1,
    "segue_fail_errno": 1,
    "segue_fail_within": 1,
    "segue_grant_storage": 2,
    "segue_lmdb_fail_damaged": 1,
    "table_damage": 2,
}
# What segue_fail_within() puts before a text and has none of these says where, not what: it is not
# listed.
VERB = re.compile(r"\b(is|was|has|lets|came|cannot)\b")
CALL = re.compile(r"\b(" + "|".join(sorted(SAY, key=len, reverse=True)) + r")\(")
PRINTED = re.compile(r'"segue(?: [\w%]+)?: ')
PREFIX = re.compile(r"^segue(?: \S+)?:(?: |$)")
TOKEN = re.compile(r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|/\*.*?\*/|//[^\n]*", re.S)
PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|\b(PRI[a-zA-Z]+\d*|SEGUE_[A-Z_]+)\b')
PLACEHOLDER = re.compile(r"%(?!%)[-+ #0]*(\*|\d+)?(\.(\*|\d+))?(hh|h|ll|l|z|j|t)?[a-zA-Z]|%[-+ #0]*\d*(?=…)")
ERRORS = re.compile(r"^[A-Z]\w*(Error|Error_|Warning)$|^(StaleIterator|StopIteration)$")
WARNS = {"warn", "_warn", "exit"}


def arguments(text: str, start: int) -> list[str]:
    """The arguments of the call whose bracket was opened before `start`."""
    found, depth, begin, at = [], 1, start, start
    while depth:
        literal = TOKEN.match(text, at)
        if literal:
            at = literal.end()
            continue
        character = text[at]
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            found.append(text[begin:at])
            begin = at + 1
        at += 1
    return found


def literals(argument: str) -> Iterator[str]:
    """A literal of several parts is one; the branches of `a ? b : c` are two."""
    end, pieces = 0, []
    for match in PIECE.finditer(argument):
        if pieces and argument[end : match.start()].strip():
            yield "".join(pieces)
            pieces = []
        if match[1] is not None:
            pieces.append(match[1])
        elif pieces:
            pieces.append("…")
        else:
            continue
        end = match.end()
    if pieces:
        yield "".join(pieces)


def plain(text: str) -> str:
    """As the page has it: `…` for what is put in, one line, and no character that ends a code span."""
    text = PLACEHOLDER.sub("…", text)
    text = text.replace("%%", "%").replace("\\n", " ").replace('\\"', '"').replace("\\\\", "\\")
    return re.sub(r"…+", "…", re.sub(r"\s+", " ", text.replace("`", "'").replace("|", "/"))).strip()


def texts_of_c(text: str) -> Iterator[tuple[int, str]]:
    text = TOKEN.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text)
    for match in CALL.finditer(text):
        given = arguments(text, match.end())
        number = SAY[match[1]]
        if len(given) > number:
            for literal in literals(given[number]):
                if match[1] != "segue_fail_within" or VERB.search(literal):
                    yield text.count("\n", 0, match.start()) + 1, literal
    for match in PRINTED.finditer(text):
        for literal in literals(arguments(text, match.start())[0]):
            yield text.count("\n", 0, match.start()) + 1, literal


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def strings(node: ast.expr, known: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The literals that an expression can be; `known`: what names are set to, functions return."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
        for part in node.values:
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Call):
                yield from strings(part.value, known)
    elif isinstance(node, ast.IfExp):
        yield from strings(node.body, known)
        yield from strings(node.orelse, known)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left = list(strings(node.left, known)) or ["…"]
        right = list(strings(node.right, known)) or ["…"]
        yield from (one + other for one in left for other in right)
    else:
        name = name_of(node.func if isinstance(node, ast.Call) else node)
        without = {other: nodes for other, nodes in known.items() if other != name}
        for value in known.get(name, []):
            yield from strings(value, without)


def names(tree: ast.Module) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(name_of(target), []).append(node.value)
        elif isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value:
                    found.setdefault(node.name, []).append(inner.value)
    return found


def texts_of_python(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    known = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = name_of(node.func)
            if ERRORS.match(name) or name in WARNS:
                for literal in strings(node.args[0], known):
                    yield node.lineno, literal.replace("%", "%%")


def texts(root: Path) -> dict[str, list[str]]:
    """Each text that says anything, and where the code has it."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[cp]*")):
            if path.suffix not in (".c", ".py"):
                continue
            read = texts_of_c if path.suffix == ".c" else texts_of_python
            for line, literal in read(path.read_text()):
                text = PREFIX.sub("", plain(literal))
                if re.search(r"[a-z]{2}", text):
                    found.setdefault(text, []).append(f"{path.relative_to(root)}:{line}")
    return found


def rows(root: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Line, texts and the other cells of each row of the page's tables."""
    page = root / PAGE
    for number, line in enumerate(page.read_text().splitlines() if page.exists() else [], 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `"):
            yield number, re.findall(r"`([^`]+)`", cells[0]), cells[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--only", default="", help="only files whose path begins so (comma: or so)")
    parser.add_argument("--list", action="store_true", help="print place and text of each")
    options = parser.parse_args()
    said = {
        text: places
        for text, places in texts(options.checkout).items()
        if places[0].startswith(tuple(options.only.split(",")))
    }
    if options.list:
        for text, places in said.items():
            print(f"{places[0]}\t{text}")
        return 0
    faults, seen = [], {}
    for number, listed, others in rows(options.checkout):
        if not others or not all(others):
            faults.append(f"{PAGE}:{number}: a row without a way out")
        for text in listed:
            if text in seen:
                faults.append(f"{PAGE}:{number}: in line {seen[text]}, too: {text}")
            seen[text] = number
            if text not in said:
                faults.append(f"{PAGE}:{number}: nothing says this any more: {text}")
    faults += [
        f"{places[0]}: not in {PAGE}: {text}" for text, places in said.items() if text not in seen
    ]
    for fault in faults:
        print(fault)
    print(f"{len(said)} texts of errors and warnings, {len(seen)} in {PAGE}, {len(faults)} faults")
    return 1 if faults or not said else 0


if __name__ == "__main__":
    sys.exit(main())

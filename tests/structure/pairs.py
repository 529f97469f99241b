#!/usr/bin/env python3
"""Checks that every access to a word shared between processes names its pair, and that the pair is there.

    tests/structure/pairs.py [ROOT]

Accesses are those through lib/core/barrier.h, in lib, server and the simulator. Right above each, or above several
that follow one another, stands a comment in one of two forms:

    pairs with FUNCTION (FILE)[, FUNCTION (FILE)]...
    no pair: WHY

FILE is written as it is included ("lane/feed.c", "core/track.c"). Each function must be there, and do the other side:
load the word where this one stores it, store it where this one loads it, fence where this one fences. A word is known
by the name of its member. The relaxed load of a word that the same function stores needs none: it is that side's own.
"""

import re
import sys
from pathlib import Path

FOLDERS = ["lib", "server", "tests/sim"]
PRIMITIVES = "lib/core/barrier.h"
ACCESS = re.compile(r"\bsegue_(load_acquire|load_relaxed|store_release|fence)\(")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'')
PAIR = re.compile(r"(\w+) \(([\w/]+\.[ch])\)")
OTHER = {"load": "store", "store": "load", "fence": "fence"}
FORM = re.compile(rf"pairs with {PAIR.pattern}(?:,? (?:and )?{PAIR.pattern})*")


def lines_before(text, at):
    return text.count("\n", 0, at)


def blank(match):
    """What stands there, without its characters: places of lines stay."""
    return re.sub(r"[^\n]", " ", match.group(0))


class Source:
    def __init__(self, path, text):
        self.path = path
        self.lines = text.split("\n")
        quiet = LITERAL.sub(lambda found: '"' + " " * (len(found.group(0)) - 2) + '"', text)
        self.comments = []  # (first line, last line, text)
        for found in COMMENT.finditer(quiet):
            words = " ".join(text[found.start() : found.end()].strip("/*").replace("\n", " ").split())
            first = lines_before(text, found.start())
            self.comments.append((first, first + found.group(0).count("\n"), re.sub(r"(?<=\s)\* ", "", words)))
        self.code = COMMENT.sub(blank, quiet)
        self.code_lines = self.code.split("\n")
        self.functions = self.find_functions()  # name: (first line, last line)
        self.accesses = [access for access in map(self.access_at, ACCESS.finditer(self.code)) if access]

    def find_functions(self):
        functions = {}
        for found in re.finditer(r"^[^\n#/][^;{}]*?\b(\w+)\([^;{}]*\)\s*^\{$.*?^\}", self.code, re.M | re.S):
            first = lines_before(self.code, found.start())
            functions[found.group(1)] = (first, lines_before(self.code, found.end()))
        return functions

    def access_at(self, found):
        """(line, what it does, word, relaxed)."""
        line = lines_before(self.code, found.start())
        if self.code_lines[line].startswith("#"):
            return None
        depth, at = 1, found.end()
        while depth and not (depth == 1 and self.code[at] == ","):
            depth += {"(": 1, ")": -1}.get(self.code[at], 0)
            at += 1
        word = re.findall(r"\w+", self.code[found.end() : at])
        kind = found.group(1)
        return (line, kind.split("_")[0], word[-1] if word else "", kind == "load_relaxed")

    def function_of(self, line):
        return next((name for name, (first, last) in self.functions.items() if first <= line <= last), None)

    def does(self, function, deed, word):
        first, last = self.functions[function]
        return any(first <= line <= last and (deed, word) == (did, name) for line, did, name, _ in self.accesses)

    def comment_of(self, line):
        """The comment above, with nothing between but accesses, and what belongs to their statements."""
        touched = {access[0] for access in self.accesses}
        while line >= 0:
            found = next((comment for comment in self.comments if comment[1] in (line, line - 1)), None)
            if found:
                return found
            line -= 1
            code = self.code_lines[line].strip()
            if not code or (code[-1] in ";{}" and line not in touched):
                return None
        return None


def pairs_of(comment):
    """What it names: (function, file)s, [] if it says that there is none, None if it is not of the form."""
    form = comment and FORM.search(comment[2])
    if form:
        return PAIR.findall(form.group(0))
    return [] if comment and "no pair: " in comment[2] else None


def check_source(source, find):
    """Yields (line, what is wrong)."""
    governed = {}  # comment: the accesses that it is about
    for access in source.accesses:
        line, deed, word, relaxed = access
        function = source.function_of(line)
        if relaxed and function and source.does(function, "store", word):
            continue
        comment = source.comment_of(line)
        named = pairs_of(comment)
        what = f"this {deed}" + (f" of `{word}`" if word else "")
        if named is None:
            yield line, f"{what} names no pair: FUNCTION (FILE)"
            continue
        governed.setdefault(comment, []).append((OTHER[deed], word))
        if named and not any(does(find, pair, OTHER[deed], word) for pair in named):
            yield line, f"{what}: not one of those named does the other side"
    for comment in source.comments:
        named = pairs_of(comment)
        if "pairs with " in comment[2] and not named:
            yield comment[0], "not of the form: pairs with FUNCTION (FILE)"
        if named and comment not in governed:
            yield comment[0], "this pair stands above no access"
        for pair in named or []:
            if not any(does(find, pair, other, word) for other, word in governed.get(comment, [])):
                yield comment[0], f"{pair[0]} ({pair[1]}) is not there, or does not do the other side"


def does(find, pair, deed, word):
    there = find(pair[1])
    return bool(there) and pair[0] in there.functions and there.does(pair[0], deed, word)


def check(root):
    """(how many accesses there are, [(path, line, what is wrong)])."""
    sources = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            name = path.relative_to(root).as_posix()
            if name != PRIMITIVES:
                sources[name] = Source(name, path.read_text())
    find = lambda file: next((sources[f"{at}/{file}"] for at in FOLDERS if f"{at}/{file}" in sources), None)
    faults = [
        (source.path, line + 1, wrong) for source in sources.values() for line, wrong in check_source(source, find)
    ]
    return sum(len(source.accesses) for source in sources.values()), faults


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2])
    count, faults = check(root)
    for path, line, wrong in sorted(faults):
        print(f"{path}:{line}: {wrong}")
    if not count:
        print("no access was found: has lib/core/barrier.h other names now?")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main())

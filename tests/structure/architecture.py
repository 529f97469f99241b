#!/usr/bin/env python3
"""Checks that what docs/architecture.md names in backticks is there.

Files: by a path from the root, or by the end of one path alone. Functions and types, also `f` in `file.c` and `f`
(`file.c`). In the table of rooms each file of the room, and no other.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
page = (ROOT / "docs/architecture.md").read_text()
tops = "bindings docs lib proto server share tests".split()
paths = ["README.md"] + [str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*")]
code = {path: (ROOT / path).read_text() for path in paths if re.match(r"(lib|server)/.*\.[ch]$", path)}
faults = []


def find(name):
    found = [name] if name in paths else [path for path in paths if path.endswith(f"/{name}")]
    if len(found) != 1:
        faults.append(f"`{name}` is {' or '.join(found) or 'nowhere'}")
    return code.get(found[0], "") if len(found) == 1 else ""


for name in set(re.findall(r"`([\w/]*(?:\w/\w+|\.(?:c|h|py|md|proto|build)))`", page)):
    find(name)
for name in set(re.findall(r"`(segue_\w+)`", page)):
    if not any(re.search(rf"\b{name}\b", text) for text in code.values()):
        faults.append(f"`{name}` is nowhere")
for function, name in re.findall(r"`(\w+)`\*{0,2}\s+(?:in\s+|\()`([\w/]+\.c)`", page):
    if not re.search(rf"\b{function}\(", find(name)):
        faults.append(f"`{function}` is not in {name}")
for room, words in re.findall(r"^\| `((?:lib|server)/[\w/]+)` \|.*\|(.*)\|$", page, re.M):
    files = {path.stem for path in (ROOT / room).glob("*.[ch]")}
    for name in files ^ set(re.findall(r"`(\w+)`", words)):
        faults.append(f"{room}: `{name}` is {'not named' if name in files else 'not there'}")
sys.exit("\n".join(sorted(set(faults))) or 0)

#!/usr/bin/env python3
"""Checks lib/include/segue/segue.h: compiles alone as C11 and as C++, and is what the library exports.

Everything marked SEGUE_EXPORT is in lib/libsegue.map, and nothing else is; numbers of options and errors are used
once. The map is in the order of the alphabet.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "lib/include/segue/segue.h"
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only".split()
faults = []


def compiles(names, language, standard):
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        print(f"SKIP: none of {' '.join(names)} is here")
        sys.exit(77)
    run = subprocess.run(
        [compiler, *WARNINGS, "-x", language, standard, f"-I{HEADER.parents[1]}", "-include", "segue/segue.h",
         "/dev/null"], capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode:
        faults.append(f"as {standard}:\n{run.stderr}")


compiles(["cc", "gcc", "clang"], "c", "-std=c11")
compiles(["c++", "g++", "clang++"], "c++", "-std=c++17")

text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
declared = re.findall(r"SEGUE_EXPORT\s[^;{]*?\b(segue_\w+)\(", text)
listed = re.findall(r"^\t\t(segue_\w+);", (ROOT / "lib/libsegue.map").read_text(), re.MULTILINE)
faults += [f"{name} is exported, and not in libsegue.map" for name in set(declared) - set(listed)]
faults += [f"{name} is in libsegue.map, and not in segue.h" for name in set(listed) - set(declared)]
faults += [f"libsegue.map: {b} comes after {a}" for a, b in zip(listed, listed[1:]) if a >= b]

for what, numbers in (
    ("errors", re.findall(r"X\(E\w+, (\d+),", text)),
    ("options", re.findall(r"SEGUE_SPEC_\w+ = (\d+),", text)),
):
    if not numbers or len(set(numbers)) != len(numbers):
        faults.append(f"{what}: {len(numbers)} numbers, {len(set(numbers))} different ones")

print(f"{len(declared)} functions, {len(faults)} faults")
sys.exit("\n".join(sorted(faults)) or 0)

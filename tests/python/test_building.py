"""What a build says where something is missing that it needs: the packages that bring it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MESON = Path(sys.executable).parent / "meson"


def refused(build: Path, **environment: Path) -> str:
    done = subprocess.run(
        [MESON, "setup", build, ROOT, "-Dtests=false", "-Dpython=disabled"],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    [line] = [line for line in done.stdout.splitlines() if "ERROR" in line]
    return line.partition("Problem encountered: ")[2]


def test_what_is_missing_is_named_with_its_packages(tmp_path: Path) -> None:
    """Of what there is, nothing is named: without pkg-config's files lmdb.h is still found."""
    assert refused(tmp_path / "build", PKG_CONFIG_LIBDIR=tmp_path) == (
        "missing, or older than needed: protobuf-c 1.4.1, json-c 0.16. "
        "Debian, Ubuntu: apt-get install libprotobuf-c-dev libjson-c-dev. "
        "Fedora: dnf install protobuf-c-devel json-c-devel"
    )


def test_the_packages_are_those_of_the_setup() -> None:
    rows = re.findall(r"^    +\[+'.*, '([\w.-]+)', '[\w.-]+'\]", (ROOT / "meson.build").read_text(), re.M)
    assert len(rows) == 7
    [packages] = re.findall(r"^packages=\((.*?)\)", (ROOT / "scripts/setup").read_text(), re.M | re.S)
    assert set(rows) <= set(packages.split())


def test_lmdb_1_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lmdb.h").write_text("#define MDB_VERSION_MAJOR 1\n")
    (tmp_path / "lmdb.pc").write_text(
        f"Name: lmdb\nDescription: LMDB\nVersion: 1.0.2\nCflags: -I{tmp_path}\nLibs: -llmdb\n"
    )
    told = refused(tmp_path / "build", PKG_CONFIG_PATH=tmp_path)
    assert told == "lmdb.h is that of LMDB 1.0 or later; segue needs 0.9"

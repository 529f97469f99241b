"""The guide's program in C: compiled against the library of build/, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segue.tfrecord import SequenceExampleWriter

ROOT = Path(__file__).parents[2]


def built(tmp_path: Path, text: str) -> Path:
    """The program, compiled."""
    library = ROOT / "build" / "lib"
    compiler = shutil.which("cc")
    if compiler is None or not (library / "libsegue.so").exists():
        pytest.skip("SKIP: no C compiler, or no library in build/ (scripts/build)")
    (tmp_path / "sums.c").write_text(text)
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "sums.c", "-o", "sums",
         f"-I{ROOT}/lib/include", f"-L{library}", f"-Wl,-rpath,{library}", "-lsegue"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    return tmp_path / "sums"


def test_it_sums_all_tokens(tmp_path: Path) -> None:
    blocks = re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    built(tmp_path, blocks[0])
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").mkdir()
    with SequenceExampleWriter(tmp_path / "data" / "a.tfrecord") as writer:
        for steps in range(1, 50):  # beyond two segments
            writer.write({"token": np.arange(steps, dtype=np.float32)}, {})
    program = os.environ.get("SEGUE_PROGRAM") or str(ROOT / "build" / "server" / "segue")
    run = subprocess.run(
        ["./sums"], cwd=tmp_path, env=os.environ | {"SEGUE_PROGRAM": program},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    total = sum(steps * (steps - 1) // 2 for steps in range(1, 50))
    assert (run.returncode, run.stdout) == (0, f"the sum of all tokens is {total}\n"), run.stderr

"""Pages whose code can be pasted block after block into one session: run so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page, needs", [("pytorch.md", "torch"), ("jax.md", "jax")])
def test_blocks_one_after_the_other(tmp_path: Path, page: str, needs: str) -> None:
    pytest.importorskip(needs, reason=f"{needs} is not installed (scripts/setup --ci)")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input="".join(blocks),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")

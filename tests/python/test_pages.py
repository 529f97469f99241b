"""Pages whose code can be pasted block after block into one session: run so."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bindings" / "python" / "examples"))

import curves

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


def test_the_training_of_the_readme(tmp_path: Path) -> None:
    """As it is, and killed and begun again: it learns, and ends with the same weights; not so without the states."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    text = curves.program()
    (tmp_path / "whole").mkdir()
    subprocess.run(  # as who reads on has done, in the same place
        [sys.executable, "-c", curves.program("first.py")], cwd=tmp_path / "whole", check=True, timeout=120
    )
    whole = curves.run(text, tmp_path / "whole")
    assert [step for step, _ in whole] == [100, 200, 300, 400, 500]
    assert whole[-1][1] < 0.02 < whole[0][1]
    assert curves.run(text, tmp_path / "killed", 200) == whole
    one, other = (torch.load(tmp_path / name / "train.pt")["model"] for name in ("whole", "killed"))
    assert all(torch.equal(one[part], other[part]) for part in one)
    assert curves.run(curves.without_states(text), tmp_path / "zeros")[-1][1] > 0.3


@pytest.mark.parametrize("name, needs", [("jax_scan.py", "jax"), ("lightning_lstm.py", "lightning")])
def test_its_task_with_other_frameworks(tmp_path: Path, name: str, needs: str) -> None:
    """Killed and begun again."""
    pytest.importorskip(needs, reason=f"{needs} is not installed (scripts/setup --ci)")
    losses = curves.run(curves.program(name), tmp_path, 200)
    assert [step for step, _ in losses] == [100, 200, 300, 400, 500]
    assert losses[-1][1] < 0.1 < losses[0][1]


def test_tools_find_all_pages() -> None:
    listed = re.findall(r"\]\(([\w./-]+\.md)\)", (DOCS / "llms.txt").read_text())
    assert sorted(listed) == sorted(["../README.md", *(page.name for page in DOCS.glob("*.md"))])


@pytest.mark.parametrize("name", ["lstm", "ssm"])
def test_what_a_dataloader_becomes(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    text = (DOCS / "from-dataloader.md").read_text()
    programs = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL))
    before, after = (programs[f"{name}_{when}"].splitlines() for when in ("before", "after"))
    lines = [line for line in difflib.ndiff(before, after) if line[:2] == "+ " and line.strip() != "+"]
    assert len(lines) <= 20, lines
    printed = {}
    for when in ("before", "after", "after"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", programs[f"{name}_{when}"]],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0 and "loss" in done.stdout, done.stderr
        printed[when] = done.stdout
    assert name == "lstm" or printed["before"] == printed["after"]

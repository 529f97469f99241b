"""Pages whose code can be pasted block after block into one session: run so."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"


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
    """As it is, and killed and begun again: it learns, and ends with the same weights."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    programs = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", README.read_text(), re.DOTALL))
    program, printed = programs["train"], {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        subprocess.run(  # as who reads on has done, in the same place
            [sys.executable, "-c", programs["first"]], cwd=tmp_path / name, check=True, timeout=120
        )
        while not printed.get(name, "").count("step 500"):
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", program],
                cwd=tmp_path / name, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout
            for line in process.stdout:
                printed[name] = printed.get(name, "") + line
                if name == "killed" and line.startswith("step 200") and printed[name].count("step 200") < 2:
                    os.kill(process.pid, signal.SIGKILL)
            assert process.wait() in (0, -signal.SIGKILL)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed["whole"])]
    assert losses[-1] < 0.02 < losses[0]
    whole, killed = (torch.load(tmp_path / name / "first.pt")["model"] for name in printed)
    assert all(torch.equal(whole[part], killed[part]) for part in whole)


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

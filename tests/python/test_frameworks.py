"""docs/frameworks.md: its programs, whole, and killed and begun again, end with the same weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import little
import segue
import segue.grain

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def run(directory: Path, program: str, stop: int = -1) -> None:
    env = os.environ | {"STOP": str(stop), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, program], cwd=directory, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == (0 if stop < 0 else 1), done.stderr
    assert stop < 0 or not done.stderr, done.stderr


@pytest.mark.parametrize(
    "program, needs, ends",
    [
        ("with_accelerate.py", ("torch", "accelerate"), "accelerate.pt"),
        ("with_dcp.py", ("torch",), "titan.pt"),
        ("with_grain.py", ("jax", "grain"), "grain.npy"),
    ],
)
def test_killed_and_begun_again(
    tmp_path: Path, program: str, needs: tuple[str, ...], ends: str
) -> None:
    for package in ("torch", *needs):
        pytest.importorskip(package, reason=f"{package} is not installed (scripts/setup --ci)")
    import torch

    def weights(directory: Path) -> Any:
        if ends.endswith(".npy"):
            return {"w": torch.from_numpy(np.load(directory / ends))}
        return torch.load(directory / ends)

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for file, text in blocks:
            (tmp_path / name / file).write_text(text)
    run(tmp_path / "whole", program)
    run(tmp_path / "killed", program, stop=24)  # five steps behind a checkpoint
    assert not (tmp_path / "killed" / ends).exists()
    run(tmp_path / "killed", program)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    for name in whole:
        assert torch.equal(whole[name], killed[name]), name


def test_the_iterator_of_grain(stream: segue.Stream) -> None:
    batches = segue.grain.DatasetIterator(stream.loader(start="fresh"))
    seen, state = [], b""
    for batch in batches:
        seen.append(little.seen(batch))
        little.work(batch)
        if len(seen) == 5:
            state = batches.get_state()
    batches.set_state(state)
    batches.start_prefetch()
    again = []
    for batch in batches:
        again.append(little.seen(batch))
        little.work(batch)
    assert again == seen[5:] and again
    for bad in (b"", b"[]", b'{"lane/0": "?"}', b'{"lane/0": 3}', b'{"lane/0": "AAAA", "lane/1": "AAAA"}'):
        with pytest.raises(segue.TokenError):
            batches.set_state(bad)
    batches.close()
    with pytest.raises(TypeError, match="expected segue.Loader"):
        segue.grain.DatasetIterator(iter([]))  # type: ignore[arg-type]

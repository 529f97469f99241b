"""The programs of the guide's section "Resuming exactly": run whole, and killed and begun again.

They need PyTorch and Lightning, which scripts/setup --ci installs.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save  # noqa: E402

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
PATIENCE = 180.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def programs() -> dict[str, str]:
    """The guide's code blocks that begin with a file's name."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return dict(blocks)


def prepare(directory: Path) -> Path:
    """Data and programs in `directory`, as a user would have them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in programs().items():
        (directory / name).write_text(text)
    subprocess.run([sys.executable, "make_data.py"], cwd=directory, check=True, timeout=60)
    return directory


def begin(directory: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=directory,
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(directory: Path, *command: str) -> str:
    process = begin(directory, *command)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def kill_when(directory: Path, pattern: str, *command: str) -> None:
    """Runs until a file appears and a little longer; then kills it all, and the server."""
    process = begin(directory, *command)
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(directory.glob(pattern)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.001)
        time.sleep(0.005)
        assert process.poll() is None, "it has ended before it was killed"
    finally:
        server = int((directory / "runs/exp1/server.pid").read_text().split()[0])
        for call, pid in ((os.kill, server), (os.killpg, process.pid)):
            try:
                call(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.communicate()


def same(one: Any, two: Any) -> bool:
    """Equal, tensors bit for bit."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and bool(torch.equal(one, two))
    return bool(one == two)


def test_the_guide_has_these_programs() -> None:
    assert list(programs()) == [
        "make_data.py", "data.py", "network.py", "one_process.py", "many_processes.py",
        "with_lightning.py", "by_name.py",
    ]  # fmt: skip


def weights(path: Path) -> dict[str, Any]:
    pair = torch.load(path / "pair.pt", weights_only=True)
    assert list(pair["loader"]) == [f"lane/{lane}" for lane in range(4)]
    assert all(type(token) is bytes for token in pair["loader"].values())
    return {name: pair[name] for name in ("model", "optimizer")}


def test_one_process(tmp_path: Path) -> None:
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    run(whole, "one_process.py")
    kill_when(killed, "pair.pt", "one_process.py")
    run(killed, "one_process.py")
    assert same(weights(whole), weights(killed))


def end_of(directory: Path) -> dict[str, Any]:
    """Model and optimizer of the last checkpoint, which holds all lanes."""
    dcp_to_torch_save(directory / "checkpoints" / "end", directory / "end.pt")
    end = torch.load(directory / "end.pt", weights_only=True)
    assert sorted(end["loader"]) == [f"lane/{lane}" for lane in range(4)]
    return {name: end[name] for name in ("model", "optimizer")}


def test_many_processes(tmp_path: Path) -> None:
    """Killed with four ranks, ended with two: the weights of one process."""
    directory = prepare(tmp_path / "many")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    kill_when(directory, "checkpoints/*/.metadata", *torchrun, "4", "many_processes.py")
    run(directory, *torchrun, "2", "many_processes.py")
    whole = prepare(tmp_path / "whole")
    run(whole, *torchrun, "1", "many_processes.py")
    assert same(end_of(directory), end_of(whole))


def test_by_name(tmp_path: Path) -> None:
    directory = prepare(tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    # Each rank writes its number of records, and the end of the line after it, between the others'.
    said = re.findall(r"\b(?:21)+\b", run(directory, *torchrun, "3", "by_name.py"))
    assert "".join(said) == "21" * 3


def test_lightning(tmp_path: Path) -> None:
    """On two devices; with one: test_packages.py."""
    pytest.importorskip("lightning", reason="Lightning is not installed (scripts/setup --ci)")
    whole, killed = prepare(tmp_path / "whole"), prepare(tmp_path / "killed")
    run(whole, "with_lightning.py", "2")
    kill_when(killed, "checkpoints/*.ckpt", "with_lightning.py", "2")
    run(killed, "with_lightning.py", "2")
    ends = [torch.load(each / "end.ckpt", weights_only=True) for each in (whole, killed)]
    for name in ("state_dict", "optimizer_states", "global_step"):
        assert same(ends[0][name], ends[1][name]), name

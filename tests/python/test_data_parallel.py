"""docs/data-parallel.md: its program under torchrun, with a rank that is killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import little
import segue

torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")

PAGE = Path(__file__).parents[2] / "docs" / "data-parallel.md"
PATIENCE = 240.0
RANKS = [4] if "SEGUE_TEST_LONG" in os.environ else [2]


def prepare(directory: Path) -> Path:
    directory.mkdir(parents=True)
    [program] = re.findall(r"```python\n# ddp\.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (directory / "ddp.py").write_text(program)
    guide = (PAGE.parent / "guide.md").read_text()
    [make_data] = re.findall(r"```python\n# make_data\.py\n(.*?)```", guide, re.DOTALL)
    subprocess.run([sys.executable, "-c", make_data], cwd=directory, check=True, timeout=60)
    return directory


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def begin(directory: Path, ranks: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}",
         "--max-restarts=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}", "ddp.py"],
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def ranks_below(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def train(directory: Path, ranks: int, kills: bool) -> tuple[str, Any]:
    process = begin(prepare(directory), ranks)
    try:
        deadline = time.monotonic() + PATIENCE
        while kills and not (directory / "ddp.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.002)
        if kills:
            assert not (directory / "end.pt").exists()
            # Not the first: its server and others' connections are looked after, too.
            children = [
                pid for pid in ranks_below(process.pid)
                if b"ddp.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]  # fmt: skip
            os.kill(children[-1], signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    return output, torch.load(directory / "end.pt")


@pytest.mark.parametrize("ranks", RANKS)
def test_a_rank_is_killed_and_all_begin_again(tmp_path: Path, ranks: int) -> None:
    output, whole = train(tmp_path / "whole", ranks, kills=False)
    losses = [float(one) for one in re.findall(r"of the valid ones ([\d.]+)", output)]
    assert len(losses) > 3 and losses[-1] < losses[0]
    assert re.search(r"exposed data wait: [\d.]+ s, of the worst rank\n", output)
    _, killed = train(tmp_path / "killed", ranks, kills=True)
    for part in ("model", "scheduler"):
        assert str(whole[part]) == str(killed[part])
    for name, weight in whole["model"].items():
        assert torch.equal(weight, killed["model"][name]), name
    assert all(torch.equal(a, b) for a, b in zip(whole["random"], killed["random"], strict=True))


def test_shrink_says_what_becomes_of_ranks_that_wait_for_one_another(
    client: segue.Client, tmp_path: Path
) -> None:
    little.write(tmp_path)
    stream = little.open_stream(client, tmp_path)
    with pytest.warns(UserWarning, match='tail="pad"'):
        stream.loader(rank=0, world_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.loader(rank=1, world_size=2)  # once
        again = little.open_stream(client, tmp_path)
        again.loader(rank=1, world_size=2)  # of a stream's name
        little.open_stream(client, tmp_path, name="alone").loader(rank=0, world_size=1)
        little.open_stream(client, tmp_path, name="pad", tail="pad").loader(rank=0, world_size=2)
        endless = little.open_stream(client, tmp_path, name="endless", epochs=None)
        endless.loader(rank=0, world_size=2)
        little.open_stream(client, tmp_path, name="chosen").loader(lanes=[0])

"""The recipes of docs/groups.md, in bindings/python/examples: run as users do, on less data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "bindings" / "python" / "examples"
PATIENCE = 300.0
LONG = "SEGUE_TEST_LONG" in os.environ


def recipe(name: str, *arguments: object) -> str:
    """What it has printed; it must have found all to be as it should."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_learning_rates_share_a_feed_and_see_what_each_would_see_alone(tmp_path: Path) -> None:
    picture = tmp_path / "sweep.svg"
    text = recipe("sweep.py", "--sequences", 60, "--epochs", 1, "--svg", picture)
    assert "| feeds | 1 | 4 |" in text
    assert len(re.findall(r" s waited for data", text)) == 2
    assert text.endswith("with a stream of its own, bit for bit\n")
    rings = re.search(r"rings and states \| ([\d.]+) MB \| ([\d.]+) MB", text)
    assert rings and 2 * float(rings[1]) < float(rings[2])
    assert picture.read_text().startswith("<svg")


def test_what_carried_states_are_worth(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    picture = tmp_path / "ssm.svg"
    text = recipe("ssm.py", "--steps", 24, "--files", 16, "--svg", picture)
    assert "killed half-way, and begun again\n" in text
    assert "nobody killed, bit for bit\n" in text
    bits = [float(value) for value in re.findall(r"([\d.]+) bits a byte in the first 8", text)]
    assert len(bits) == 3 and bits[0] < bits[1], text
    assert picture.read_text().count("states: ") == 3


def test_a_compressor_is_learnt(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    picture = tmp_path / "audio.svg"
    text = recipe("audio.py", "--files", 8, "--epochs", 2, "--svg", picture)
    carried, zeros = (float(part) for part in re.findall(r"(-[\d.]+) dB", text))
    assert carried < zeros and carried < -8, text
    assert picture.stat().st_size > 2000


def test_actors_insert_what_a_learner_remembers(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    picture = tmp_path / "a picture.svg"
    count = 800 if LONG else 200
    text = recipe("episodes.py", "--episodes", count, "--ways", "carried", "zeros", "--svg", picture)
    for name in ("actor-0", "the learner"):
        assert text.count(f"{name} was killed, and begun again\n") == 1, text
    assert f"each of {2 * count} episodes came once\n" in text
    assert "of a learner that nobody killed, bit for bit\n" in text
    right = re.search(rf"under the keys of the last {count} episodes tell the best arm in (\d+) %", text)
    assert right and int(right[1]) > 35, text  # by chance 25
    errors = dict(re.findall(r"(\w+): error ([\d.]+)", text))
    assert float(errors["carried"]) < 0.27, text  # of a net that has learnt nothing 0.29
    assert not LONG or float(errors["carried"]) < float(errors["zeros"]) - 0.01, text
    assert picture.read_text().count("<!-- learnt with states: ") == 2


def test_a_student_learns_from_a_teacher() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    text = recipe("teacher.py", "--sequences", 60, "--epochs", 2)
    assert re.match(r"\d+ batches for two groups, feeds: 1\nwaited for data: [\d.]+ s\n", text)
    first, last = (int(share) for share in re.findall(r"(\d+) % of the student", text))
    assert last > max(first, 70), text


def test_a_node_is_lost_for_good_and_the_other_takes_its_lanes() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    text = recipe("nodes.py", "--sequences", 40)
    for rank in range(4):
        assert f"rank {rank} of 4: lanes [{rank}], from round 0\n" in text
    began = {}
    for rank in range(2):
        lanes = rf"lanes \[{rank}, {rank + 2}\]"
        found = re.search(rf"rank {rank} of 2: {lanes}, from round (\d+)", text)
        assert found, text
        began[rank] = int(found[1])
    assert began[0] == began[1] >= 20
    assert re.search(r"^waited for data: [\d.]+ s, the worst rank$", text, re.M), text
    assert text.endswith("of the training that nobody killed, bit for bit\n")


@pytest.mark.parametrize("kill", [-1, 0, 1] if LONG else [0])
def test_two_ranks_share_a_model_and_train_it_as_one_process_does(kill: int) -> None:
    """Also if torchrun has to start both anew, for one was killed."""
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    text = recipe("tensor.py", "--sequences", 60, "--epochs", 2, "--kill", kill)
    losses = re.search(r"loss ([\d.]+) in .*, ([\d.]+) in the last", text)
    assert losses and float(losses[2]) < float(losses[1]), text
    for rank in range(2):
        assert f"rank {rank}: 585 of 1170 weights\n" in text
        assert f"rank {rank}: from batch 0\n" in text
        assert (f"rank {rank}: from batch 20\n" in text) == (kill >= 0)
        assert re.search(rf"rank {rank}: waited for data [\d.]+ s\n", text)
    assert text.endswith("of one process that has both halves, bit for bit\n")

"""The demo as a whole: whatever is killed and however many workers share the lanes, the weights are
the same, bit for bit, and each segment was trained on exactly once an epoch (the demo checks that
itself, and exits with 1 if not).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"


def demo(out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--out", str(out), "--quick", *options]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def weights(output: str) -> dict[str, str]:
    """Printed hashes by the training's name."""
    lines = re.findall(r"^([0-9a-f]{64})  (\S+)$", output, re.MULTILINE)
    return {name: digest for digest, name in lines}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of two workers that nobody kills."""
    run = demo(tmp_path_factory.mktemp("demo"), "--set", "short", "--kill", "none")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "with kills" not in run.stdout and "what the kills cost" not in run.stdout
    return weights(run.stdout)["short"]


def last_figures(output: str) -> dict[str, str]:
    """What the last progress line of each worker says it has learned."""
    return dict(re.findall(r"^    worker (\d) .*(loss .*%)", output, re.MULTILINE))


CASES = [("none", "1")] + [(k, w) for k in ("server", "worker", "commits") for w in ("1", "2")]


@pytest.mark.parametrize("kill, workers", CASES)
def test_weights_are_the_same(tmp_path: Path, undisturbed: str, kill: str, workers: str) -> None:
    run = demo(tmp_path, "--set", "short", "--once", "--kill", kill, "--workers", workers)
    assert run.returncode == 0, run.stdout + run.stderr
    assert weights(run.stdout) == {"short": undisturbed}
    training = json.loads((tmp_path / "summary.json").read_text())["short"]
    assert [each["what"] for each in training["kills"]] == ([] if kill == "none" else [kill])
    assert run.stdout.count("each exactly once an epoch: ok") == 1
    for killed in training["kills"]:
        # Only the server's death costs no round.
        assert (killed["again"] == 0) == (kill == "server") and killed["cost"] > 0


def test_the_whole_demo(tmp_path: Path) -> None:
    run = demo(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    hashes = weights(run.stdout)
    assert set(hashes) == {"short", "short-unkilled", "long", "long-unkilled"}
    assert hashes["short"] == hashes["short-unkilled"] != hashes["long"] == hashes["long-unkilled"]
    assert run.stdout.count("each exactly once an epoch: ok") == 4
    assert run.stdout.count("the same, bit for bit: ok") == 2
    assert run.stdout.count("another server") == run.stdout.count("back where it was") == 2
    assert max(map(len, run.stdout.replace(str(tmp_path), "out").splitlines())) <= 80
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("short", "long"):  # equal trainings show equal figures
        for figure in ("loss", "accuracy", "held_out_accuracy"):
            assert summary[name][figure] == summary[f"{name}-unkilled"][figure]
    ends = [last_figures(part) for part in run.stdout.split(" rounds; loss and right are ")[1:]]
    assert len(ends) == 4 and ends[0] == ends[1] != ends[2] == ends[3]
    for name, training in summary.items():
        assert training["sha256"] == hashes[name]
        kills = [kill["what"] for kill in training["kills"]]
        assert kills == ([] if name.endswith("-unkilled") else ["server", "worker"])
        trace = (tmp_path / name / "trace.csv").read_text().splitlines()
        assert len(trace) == 1 + training["segments"]
        assert 0 < training["padding"] < 0.3 and 0 <= training["waited"] < 1
        assert not (tmp_path / name / "worker-0.log").read_text()


def test_a_second_run_starts_afresh_and_foreign_files_stay(tmp_path: Path) -> None:
    options = ["--set", "short", "--kill", "none", "--rounds", "20"]
    first = demo(tmp_path / "out", *options)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "at most once an epoch (stopped early): ok" in first.stdout
    (tmp_path / "out" / "long").mkdir()
    second = demo(tmp_path / "out", *options)
    assert second.returncode == 0, second.stdout + second.stderr
    assert weights(first.stdout) == weights(second.stdout)
    assert not (tmp_path / "out" / "long").exists()
    (tmp_path / "mine" / "short").mkdir(parents=True)
    (tmp_path / "mine" / "short" / "thesis.tex").write_text("years of work")
    third = demo(tmp_path / "mine", *options)
    assert third.returncode == 1 and "is not empty and not a demo's" in third.stderr
    assert (tmp_path / "mine" / "short" / "thesis.tex").read_text() == "years of work"
    for file in ("thesis.tex", "thesis.tex/out"):
        fourth = demo(tmp_path / "mine" / "short" / file, *options)
        assert fourth.returncode == 1 and "--out takes a directory" in fourth.stderr


def test_a_worker_that_fails_is_shown_with_its_log(tmp_path: Path) -> None:
    run = demo(tmp_path, "--set", "short", SEGUE_PROGRAM="/bin/false")
    assert run.returncode == 1
    assert re.search(r"^demo: worker \d ended with code 1\n.*worker-\d\.log:$", run.stderr, re.M)
    assert "the server program /bin/false" in run.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    for options, message in [
        (["--workers", "3"], "3 workers need at least as many lanes, not 2"),
        (["--workers", "0"], "0 is less than 1"),
        (["--kill", "commits", "--lanes", "1", "--workers", "1"], "needs two lanes"),
    ]:
        run = demo(tmp_path, *options)
        assert run.returncode == 2 and message in run.stderr


def test_options_are_looked_at_before_anything_is_installed() -> None:
    bare = [sys.executable, "-I", "-S", str(DEMO.with_name("demo_options.py"))]  # no packages
    run = subprocess.run([*bare, "--quik"], capture_output=True, text=True)
    assert run.returncode == 2 and "unrecognized arguments: --quik" in run.stderr
    assert not subprocess.run([*bare, "--quick"], capture_output=True, text=True).stdout

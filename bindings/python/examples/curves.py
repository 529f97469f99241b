"""Draws the loss of a program: as it is, killed and begun again, and without the states.

    python bindings/python/examples/curves.py FILE.svg [PROGRAM]

PROGRAM is README's train.py, jax_scan.py or lightning_lstm.py (default: the first). It is run with a
line every 10 steps in place of 100, in a temporary directory.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"
ZEROS = {
    "batch.states = states ": "batch.states = tuple(state * 0 for state in states) ",
    'batch.states = {"h": h} ': 'batch.states = {"h": h * 0} ',
}
KILLED_AT = 250


def program(name: str = "train.py") -> str:
    """Return one of README's programs, or of those beside this one."""
    if (beside := Path(__file__).with_name(name)).exists():
        return beside.read_text()
    return dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README.read_text(), re.DOTALL))[name]


def often(text: str) -> str:
    """Return a program that prints, and saves, every 10 steps."""
    assert "% 100 == 99" in text
    return text.replace("% 100 == 99", "% 10 == 9")


def without_states(text: str) -> str:
    """Return a program whose states are always zeros."""
    [saved] = [line for line in ZEROS if line in text]
    return text.replace(saved, ZEROS[saved])


def run(text: str, place: Path, kill_at: int | None = None) -> list[tuple[int, float]]:
    """Run a program in a directory, to its end; return the steps and losses that it printed.

    It is killed when it has printed the step `kill_at`, and begun again.
    """
    place.mkdir(parents=True, exist_ok=True)
    losses: dict[int, float] = {}
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", text], cwd=place, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if found := re.match(r"step (\d+) .*loss ([\d.]+)", line):
                    losses[int(found[1])] = float(found[2])
                    if int(found[1]) == kill_at:
                        os.kill(process.pid, signal.SIGKILL)
                        kill_at = None
        if process.returncode == 0:
            return sorted(losses.items())
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the program ended with {process.returncode}")


def picture(path: Path, curves: dict[str, list[tuple[int, float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "segue"
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    styles = {"zeros": "C1-", "carried": "C0-", "killed": "C3--"}
    labels = {
        "zeros": "zeros in place of the states",
        "carried": "states carried",
        "killed": f"carried, killed at step {KILLED_AT} and begun again",
    }
    for name, curve in curves.items():
        steps, losses = zip(*curve, strict=True)
        axes.plot(steps, losses, styles[name], label=labels[name], linewidth=2 if name == "carried" else 1.2)
    axes.axvline(KILLED_AT, color="C3", linewidth=0.6)
    axes.set(xlabel="step", ylabel="mean squared error", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    text = often(program(*sys.argv[2:]))
    with tempfile.TemporaryDirectory() as place:
        curves = {
            "zeros": run(without_states(text), Path(place, "zeros")),
            "carried": run(text, Path(place, "carried")),
            "killed": run(text, Path(place, "killed"), KILLED_AT),
        }
    for name, curve in curves.items():
        print(f"{name}: loss {curve[-1][1]:.3f} at step {curve[-1][0]}")
    if curves["killed"] != curves["carried"]:
        sys.exit("the run that was killed has other losses")
    picture(Path(sys.argv[1]), curves)


if __name__ == "__main__":
    main()

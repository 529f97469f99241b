"""Runs the benchmarks and prints one table of what they measured; tests/bench/README.md says what each is.

A figure that is short of its goal is no failure: the machine may be busy. A benchmark that does not
run to its end is one, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

Figure = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PROGRAMS = [
    "handover",
    "pipeline",
    "decode",
    "loops",
    "convert",
    "python",
    "scale",
    "long",
    "store",
    "checkpoint",
    "recovery",
    "insert",
    "groups",
]
PARTS = {
    1: "hand-over",
    2: "from file to worker",
    3: "Python",
    4: "server",
    5: "store",
    6: "checkpoints",
    7: "after a kill",
    8: "inserting",
    9: "groups",
}
HEAD = ("figure", "shape", "measured", "beside it", "ratio", "goal", "verdict", "notes")


def command(program: str, directory: str) -> list[str]:
    if program in ("python", "loops", "convert", "groups"):
        return [sys.executable, os.path.join(HERE, f"bench_{program}.py")]
    return [os.path.join(directory, "bench-" + program)]


def run(program: str, directory: str, quick: bool) -> tuple[list[Figure], bool]:
    """The figures of one program, and whether it ran to its end."""
    words = command(program, directory) + (["--quick"] if quick else [])
    figures = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            figure = json.loads(line)
            figures.append(figure | {"program": program, "verdict": verdict(figure)})
    if process.returncode:
        print(f"bench: {' '.join(words)} ended with {process.returncode}", file=sys.stderr)
    return figures, process.returncode == 0


def verdict(figure: Figure) -> str | None:
    """Whether the goal is met; None if there is no goal."""
    if "goal_kind" not in figure:
        return None
    what, sign = figure["goal_kind"].split()
    measured = figure[what]
    if measured is None:
        return "not measured"
    met = measured <= figure["goal"] if sign == "<=" else measured >= figure["goal"]
    return "PASS" if met else "short of goal"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def goal(figure: Figure) -> str:
    if "goal_kind" not in figure:
        return ""
    what, sign = figure["goal_kind"].split()
    return f"{'x' if what == 'ratio' else ''}{sign} {number(figure['goal'])}"


def row(figure: Figure) -> tuple[str, ...]:
    beside = figure.get("beside")
    return (
        figure["name"],
        figure["shape"],
        f"{number(figure['value'])} {figure['unit']}",
        f"{number(figure['beside_value'])} {beside}" if beside else "",
        number(figure["ratio"]) if beside else "",
        goal(figure),
        figure["verdict"] or "",
        figure["note"],
    )


def print_table(figures: list[Figure]) -> None:
    rows = [(figure["part"], row(figure)) for figure in figures]
    rows.sort(key=lambda entry: entry[0])
    widths = [max(len(cells[i]) for cells in [HEAD] + [r for _, r in rows]) for i in range(7)]

    def line(cells: tuple[str, ...]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths)]
        return "  ".join([*padded, cells[7]]).rstrip()

    print(line(HEAD))
    part = 0
    for of, cells in rows:
        if of != part:
            part = of
            print(f"-- {part}. {PARTS[part]} ".ljust(sum(widths) + 2 * len(widths), "-"))
        print(line(cells))


def machine() -> dict[str, Any]:
    model = platform.machine()
    with open("/proc/cpuinfo") as lines:
        for text in lines:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def print_machine(about: dict[str, Any]) -> None:
    print(
        f"{about['processor']}, {about['cores']} cores, Linux {about['kernel']}; "
        f"load {about['load_before']:.1f} before, {about['load_after']:.1f} after; "
        f"{about['seconds']:.0f} s"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller and shorter: under a minute")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--only", action="append", choices=PROGRAMS, help="run this one (may be given again)"
    )
    parser.add_argument(
        "--programs",
        default=os.path.join(ROOT, "build", "tests"),
        help="directory of the programs (default: build/tests)",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    # Not found by name: another segue may be installed.
    os.environ.setdefault("SEGUE_PROGRAM", os.path.join(ROOT, "build", "server", "segue"))
    about, figures, well = machine(), [], True
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="segue-bench-", ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch
        for program in options.only or PROGRAMS:
            if sys.stderr.isatty():
                print(f"bench: {program} ...", file=sys.stderr)
            more, ended = run(program, options.programs, options.quick)
            figures += more
            well = well and ended
    about |= {"load_after": os.getloadavg()[0], "seconds": time.monotonic() - start}
    about["quick"] = options.quick
    if options.json:
        print(json.dumps({"machine": about, "figures": figures}, indent=1))
    else:
        print_table(figures)
        print_machine(about)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

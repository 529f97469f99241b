#!/usr/bin/env python3
"""Trains an LSTM on long sequences with segue, through the death of the server and of a worker.

Makes toy data as TFRecord files (values, and labels that flip when their running sum passes a
quarter of the sequence's length), one set of short sequences and one of long ones. Trains on each
by truncated backpropagation in several worker processes, one or more lanes each. Half-way it kills
the server with SIGKILL, later a worker. Then trains again without any kill, and checks that both
end with the same weights, bit for bit, and that every segment was trained on exactly once an epoch.

Exit status: 0 if all checks hold, 1 if one does not or training fails.
"""

from __future__ import annotations

import os

# Before NumPy comes in: one BLAS thread, so that sums have one order.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import csv
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "bindings" / "python" / "examples"
sys.path.insert(0, str(EXAMPLES))

import history
import plot
import segue
import toy
from coordinator import Coordinator, Result, Settings, TrainingError
from worker import make_model, run_batch, stream_options


@dataclass(frozen=True)
class Set:
    """A data set and how to train on it."""

    name: str
    shortest: int
    longest: int
    count: int
    epochs: int
    num_unroll: int
    batch_size: int
    memory: float
    typical_steps: float
    rate: float
    hidden: int = 32

    def pattern(self, out: Path) -> str:
        return str(out / "data" / f"{self.name}-*.tfrecord")


SETS = [
    Set("short", 12, 14, 200, 40, num_unroll=3, batch_size=10, memory=30, typical_steps=13,
        rate=0.01),
    Set("long", 50, 2000, 96, 24, num_unroll=50, batch_size=16, memory=2000, typical_steps=300,
        rate=0.003),
]  # fmt: skip
QUICK = [
    Set("short", 12, 14, 60, 10, num_unroll=3, batch_size=5, memory=30, typical_steps=13,
        rate=0.02, hidden=16),
    Set("long", 50, 400, 24, 4, num_unroll=25, batch_size=6, memory=500, typical_steps=150,
        rate=0.01, hidden=16),
]  # fmt: skip
FILES = 3  # files a data set is spread over
# Parts of the training after which something is killed. There is a pair every twentieth of it: a
# worker dies between two, so that going back is not for nothing.
KILLS = {
    "none": [],
    "server": [(0.5, "server")],
    "worker": [(0.78, "worker")],
    "all": [(0.5, "server"), (0.78, "worker")],
    "commits": [(0.63, "commits")],
}
KILLED = {
    "server": "the server",
    "worker": "a worker",
    "commits": "everything between two commits",
}


class Screen:
    """A progress line a worker that is rewritten in place, with other news above.

    Where the output is no terminal, each worker's line is printed every few seconds instead.
    """

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.pause = 0.1 if self.live else 5.0
        self.lines: dict[int, str] = {}
        self.drawn, self.last = 0, time.monotonic()

    def tell(self, rank: int | None, text: str) -> None:
        if rank is None:
            self._erase()
            print(f"    {text}", flush=True)
            self._draw()
            return
        self.lines[rank] = text
        if time.monotonic() - self.last >= self.pause:
            self._erase()
            self._draw()

    def done(self) -> None:
        """The lines stay as they are; new ones begin below."""
        self._erase()
        self.live = False
        for _, line in sorted(self.lines.items()):
            print(f"  {line}", flush=True)
        self.lines, self.drawn, self.live = {}, 0, sys.stdout.isatty()

    def _erase(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="")
            self.drawn = 0

    def _draw(self) -> None:
        due = time.monotonic() - self.last >= self.pause
        if not (self.live or due):
            return
        self.last = time.monotonic()
        width = shutil.get_terminal_size().columns - 1 if self.live else 1000
        for _, line in sorted(self.lines.items()):
            print(f"  {line}"[:width], flush=True)
        self.drawn = len(self.lines) if self.live else 0


def server_pid(store: Path) -> int:
    """Process id of the server that runs in `store`."""
    with segue.open(store) as client:
        return int(client.status()["server"]["pid"])


def train(
    which: Set, data: list[toy.Sequence], options: argparse.Namespace, name: str, kill: str
) -> tuple[Result, Settings]:
    """One training, in a directory of its own."""
    home = options.out / name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    expected = history.rounds_expected(
        data, which.num_unroll, which.batch_size * options.lanes, which.epochs
    )
    if options.rounds is not None:
        expected = min(expected, options.rounds)
    settings = Settings(
        store=home / "store",
        paths=which.pattern(options.out),
        log=home,
        workers=options.workers,
        lanes=options.lanes,
        epochs=which.epochs,
        num_unroll=which.num_unroll,
        batch_size=which.batch_size,
        hidden=which.hidden,
        memory=which.memory,
        typical_steps=which.typical_steps,
        rate=which.rate,
        seed=options.seed,
        rounds_expected=expected,
        rounds=options.rounds,
        kills=tuple((max(1, int(expected * at)), what) for at, what in KILLS[kill]),
    )
    screen = Screen()
    print(f"{name}: {options.workers} workers, {options.lanes} lanes, about {expected} rounds")
    result = Coordinator(settings, lambda: server_pid(settings.store), screen.tell).run()
    screen.done()
    write_history(home / "trace.csv", result)
    return result, settings


def write_history(path: Path, result: Result) -> None:
    """What was trained on, a line a row."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history.Row._fields)
        for done in result.history:
            writer.writerows(done.rows)


def held_out_accuracy(which: Set, settings: Settings, result: Result, out: Path) -> float:
    """Share of the steps labelled right in sequences that training has not seen."""
    config = settings.config(0, 0, None)
    model = make_model(config)
    model.flat[...] = result.weights
    correct = steps = 0
    with segue.open(settings.store) as client:
        held_out = str(out / "data" / f"{which.name}_test-*.tfrecord")
        options = stream_options(config, held_out)
        stream = client.stream("held_out", **options, epochs=1, persist=False)
        for batch in stream.loader():
            part = run_batch(model, batch, config, backward=False)
            correct += part.correct
            steps += part.steps
    return correct / steps


def report(name: str, result: Result) -> dict[str, object]:
    """Prints a training's figures, and returns them."""
    rounds = len(result.history)
    tail = result.history[-max(1, rounds // 20) :]
    figures: dict[str, object] = {
        "rounds": rounds,
        "loss": sum(r.loss for r in tail) / sum(r.steps for r in tail),
        "accuracy": sum(r.correct for r in tail) / sum(r.steps for r in tail),
        "seconds": result.seconds,
        "batches_per_second": result.batches / result.seconds,
        "waited": result.waited,
        "padding": result.padding,
        "kills": [vars(kill) for kill in result.kills],
        "sha256": result.sha256,
    }
    print(
        f"  {name}: {rounds} rounds in {result.seconds:.1f} s, "
        f"{figures['batches_per_second']:.0f} batches/s; workers waited for data "
        f"{result.waited:.2%} of their time; {result.padding:.1%} of the steps were padding\n"
        f"  last twentieth: loss {figures['loss']:.4f}, accuracy {figures['accuracy']:.2%}"
    )
    for kill in result.kills:
        again = f", {kill.again} rounds trained again" if kill.again else ", no round lost"
        print(f"  killing {KILLED[kill.what]} at round {kill.round} cost {kill.cost:.2f} s{again}")
    print(f"  weights: sha256 {result.sha256}")
    return figures


def check_history(
    name: str, which: Set, data: list[toy.Sequence], result: Result, options: argparse.Namespace
) -> list[str]:
    """Was every segment trained on exactly once an epoch?"""
    rounds = len(result.history)
    complete = options.rounds is None or rounds < options.rounds
    rows = [row for done in result.history for row in done.rows]
    found = history.problems(
        rows, data, which.num_unroll, which.epochs, rounds, options.lanes, complete
    )
    if not found:
        often = "exactly once" if complete else "at most once, none left out between,"
        print(f"  {name}: {len(rows)} segments, each trained on {often} an epoch: checked")
    return [f"{name}: {problem}" for problem in found]


def check_kills(name: str, result: Result, asked: int) -> list[str]:
    if len(result.kills) == asked:
        return []
    return [f"{name}: {len(result.kills)} of {asked} kills took place; train for more rounds"]


def demo_set(
    which: Set, options: argparse.Namespace, curves: list[plot.Curve]
) -> tuple[dict[str, object], list[str]]:
    """All of the demo on one data set: its figures, and what was found wrong."""
    directory = options.out / "data"
    sizes = (which.shortest, which.longest)
    data = toy.write(directory, which.name, FILES, which.count, *sizes, options.seed)
    toy.write(directory, f"{which.name}_test", 1, which.count, *sizes, options.seed + 1)
    steps = sum(written.steps for written in data)
    print(
        f"\n== {which.name}: {len(data)} sequences of {which.shortest} to {which.longest} steps "
        f"({steps} in all), {which.epochs} epochs, segments of {which.num_unroll} steps"
    )

    killed, settings = train(which, data, options, which.name, options.kill)
    found = check_kills(which.name, killed, len(KILLS[options.kill]))
    figures: dict[str, object] = {"sequences": len(data), "steps": steps}
    figures["main"] = report(which.name, killed)
    figures["held_out_accuracy"] = held_out_accuracy(which, settings, killed, options.out)
    print(f"  accuracy on sequences it has not seen: {figures['held_out_accuracy']:.2%}")
    found += check_history(which.name, which, data, killed, options)
    losses = [done.loss / max(1, done.steps) for done in killed.history]
    marks = [(kill.round, f"{KILLED[kill.what]} killed") for kill in killed.kills]
    curves.append(plot.Curve(f"loss, {which.name} sequences", losses, marks))
    print(plot.terminal(curves[-1]))

    if options.kill != "none":
        name = f"{which.name}-unkilled"
        unkilled, _ = train(which, data, options, name, "none")
        figures["unkilled"] = report(name, unkilled)
        found += check_history(name, which, data, unkilled, options)
        if killed.sha256 == unkilled.sha256:
            print(f"  {which.name}: the weights with and without kills are the same, bit for bit")
        else:
            found.append(f"{which.name}: the weights differ between the killed training "
                         f"({killed.sha256}) and the unkilled one ({unkilled.sha256})")  # fmt: skip
    return figures, found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def at_least(least: int) -> Callable[[str], int]:
        def number(text: str) -> int:
            if int(text) < least:
                raise argparse.ArgumentTypeError(f"{text} is less than {least}")
            return int(text)

        return number

    add = parser.add_argument
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR",
        help="where data, stores, logs and results go (default: %(default)s)")  # fmt: skip
    add("--workers", type=at_least(1), default=2, help="worker processes (default: 2)")
    add("--lanes", type=at_least(1), default=2, help="lanes of the stream (default: 2)")
    add("--rounds", type=at_least(1), default=None, metavar="N",
        help="stop after N rounds a data set (default: when all epochs are done)")  # fmt: skip
    add("--seed", type=at_least(0), default=1, help="of data, shuffling and weights (default: 1)")
    add("--set", choices=["short", "long", "both"], default="both", help="data sets to use")
    add("--quick", action="store_true", help="smaller data and fewer epochs")
    add("--kill", choices=list(KILLS), default="all",
        help="what to kill: the server half-way, a worker later, both (all, the default), or "
             "everything between two lanes' commits (commits); none trains only once")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.workers > options.lanes:
        parser.error(f"{options.workers} workers need at least as many lanes, not {options.lanes}")
    options.out = options.out.absolute()
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    figures: dict[str, object] = {}
    found: list[str] = []
    curves: list[plot.Curve] = []
    try:
        for which in QUICK if options.quick else SETS:
            if options.set in ("both", which.name):
                figures[which.name], problems = demo_set(which, options, curves)
                found += problems
    except (TrainingError, segue.Error) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    plot.png(options.out / "loss.png", curves)
    (options.out / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nloss curves: {options.out / 'loss.png'}\nfigures: {options.out / 'summary.json'}\n"
          f"all of it took {time.monotonic() - begin:.0f} s")  # fmt: skip
    for problem in found:
        print(f"demo: CHECK FAILED: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

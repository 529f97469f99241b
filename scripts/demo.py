#!/usr/bin/env python3
"""The demo: trains an LSTM through the death of the server and of a worker."""

from __future__ import annotations

import os

# Before NumPy comes in: one BLAS thread, so that sums have one order.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import contextlib
import csv
import fcntl
import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "bindings" / "python" / "examples"
sys.path.insert(0, str(EXAMPLES))

import history
import plot
import segue
import toy
from coordinator import LAST, Coordinator, Kill, Result, Settings, TrainingError, of_last
from demo_options import KILLS, parse
from screen import Screen
from worker import make_model, open_stream, run_batch


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
    clip: float
    hidden: int = 32

    def pattern(self, out: Path) -> str:
        return str(out / "data" / f"{self.name}-*.tfrecord")


SETS = [
    Set("short", 12, 14, 200, 40, num_unroll=3, batch_size=10, memory=30, typical_steps=13,
        rate=0.01, clip=1.0),
    Set("long", 50, 2000, 192, 16, num_unroll=50, batch_size=16, memory=500, typical_steps=1000,
        rate=0.006, clip=0.3),
]  # fmt: skip
QUICK = [
    Set("short", 12, 14, 60, 8, num_unroll=3, batch_size=5, memory=30, typical_steps=13,
        rate=0.02, clip=1.0, hidden=16),
    Set("long", 50, 400, 24, 4, num_unroll=25, batch_size=6, memory=500, typical_steps=150,
        rate=0.01, clip=1.0, hidden=16),
]  # fmt: skip
FILES = 3  # files a data set is spread over
KILLED = {
    "server": "server killed",
    "worker": "worker killed",
    "commits": "everything killed",
}
OURS = ".segue-demo"  # marks a directory that the demo made


@dataclass
class Training:
    """One training and its place in the summary."""

    which: Set
    name: str
    kinds: str  # what was killed, for the table's head
    result: Result
    held_out: float  # accuracy on sequences it has not seen

    def figures(self) -> dict[str, object]:
        """For the table and for summary.json."""
        result = self.result
        loss, accuracy = of_last(result.history, range(len(result.history[0].lanes)))
        return {
            "rounds": len(result.history),
            "segments": sum(len(r.rows) for r in result.history),
            "seconds": result.seconds,
            "batches_per_second": result.batches / result.seconds,
            "waited": result.waited,
            "padding": result.padding,
            "loss": loss,
            "accuracy": accuracy,
            "held_out_accuracy": self.held_out,
            "kills": [vars(kill) for kill in result.kills],
            "sha256": result.sha256,
        }


@dataclass
class Report:
    """What is said at the end."""

    trainings: list[Training] = field(default_factory=list)
    curves: list[plot.Curve] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# -- training --------------------------------------------------------------------------------------


def server_pid(store: Path) -> int:
    """Process id of the server that runs in `store`."""
    with segue.open(store, start=False) as client:
        return int(client.status()["server"]["pid"])


def train(which: Set, data: list[toy.Sequence], options: argparse.Namespace, kill: str) -> Training:
    """One training, in a directory of its own."""
    name = which.name if kill == options.kill else f"{which.name}-unkilled"
    home = options.out / name
    home.mkdir()
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
        clip=which.clip,
        seed=options.seed,
        rounds_expected=expected,
        rounds=options.rounds,
        kills=tuple((max(1, int(expected * at)), what) for at, what in KILLS[kill]),
    )
    kinds = "unkilled" if kill == "none" else "with kills"
    print(f"  {kinds}: about {expected} rounds; loss and right are of the last {LAST}")
    screen = Screen()
    result = Coordinator(settings, lambda: server_pid(settings.store), screen).run()
    screen.done()
    write_history(home / "trace.csv", result)
    held_out = held_out_accuracy(which, settings, result, options.out)
    return Training(which, name, kinds, result, held_out)


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
        stream = open_stream(client, "held_out", config, held_out, epochs=1, persist=False)
        for batch in stream.loader():
            part = run_batch(model, batch, config, backward=False)
            correct += part.correct
            steps += part.steps
    return correct / steps


def demo_set(which: Set, options: argparse.Namespace, report: Report) -> None:
    """All of the demo on one data set."""
    directory = options.out / "data"
    sizes = (which.shortest, which.longest)
    data = toy.write(directory, which.name, FILES, which.count, *sizes, options.seed)
    toy.write(directory, f"{which.name}_test", 1, which.count, *sizes, options.seed + 1)
    workers = "1 worker" if options.workers == 1 else f"{options.workers} workers"
    lanes = "1 lane" if options.lanes == 1 else f"{options.lanes} lanes"
    print(
        f"\n{which.name} sequences: {len(data)} of {which.shortest} to {which.longest} steps, "
        f"{which.epochs} epochs in segments of {which.num_unroll} steps,\n"
        f"{workers} on {lanes}, {which.batch_size} segments a batch"
    )
    trainings = [train(which, data, options, options.kill)]
    if options.kill != "none" and not options.once:
        trainings.append(train(which, data, options, "none"))
    report.trainings += trainings
    check_kills(trainings[0], len(KILLS[options.kill]), report)
    for training in trainings:
        check_history(training, data, options, report)
    if len(trainings) == 2:
        check_weights(trainings[0], trainings[1], report)
    report.curves.append(curve_of(trainings, data))


# -- checks ----------------------------------------------------------------------------------------


def check_kills(training: Training, asked: int, report: Report) -> None:
    took = len(training.result.kills)
    if took != asked:
        report.problems.append(
            f"{training.name}: {took} of {asked} kills took place; train for more rounds"
        )


def check_history(
    training: Training, data: list[toy.Sequence], options: argparse.Namespace, report: Report
) -> None:
    """Was every segment trained on exactly once an epoch?"""
    which, rounds = training.which, len(training.result.history)
    complete = options.rounds is None or rounds < options.rounds
    rows = [row for done in training.result.history for row in done.rows]
    found = history.problems(
        rows, data, which.num_unroll, which.epochs, rounds, options.lanes, complete
    )
    report.problems += [f"{training.name}: {problem}" for problem in found]
    often = "exactly once an epoch" if complete else "at most once an epoch (stopped early)"
    report.checks.append(
        f"{training.name}: all {len(rows)} segments, each {often}: {'FAILED' if found else 'ok'}"
    )


def check_weights(killed: Training, unkilled: Training, report: Report) -> None:
    """Did the kills change a bit of the weights?"""
    same = killed.result.sha256 == unkilled.result.sha256
    report.checks.append(
        f"{killed.which.name}: weights with and without kills are the same, bit for bit: "
        + ("ok" if same else "FAILED")
    )
    if not same:
        report.problems.append(f"{killed.which.name}: the weights with and without kills differ")


# -- summary ---------------------------------------------------------------------------------------


def curve_of(trainings: list[Training], data: list[toy.Sequence]) -> plot.Curve:
    which, result = trainings[0].which, trainings[0].result
    losses = [
        [done.loss / max(1, done.steps) for done in training.result.history]
        for training in trainings
    ]
    return plot.Curve(
        f"loss, {which.name} sequences",
        losses[0],
        window=max(1, round(len(losses[0]) / which.epochs)),
        marks=[plot.Mark(k.round, k.round - k.again, KILLED[k.what]) for k in result.kills],
        other=losses[1] if len(losses) == 2 else None,
    )


def cost(kill: Kill) -> str:
    """What a kill cost."""
    if kill.what == "server":
        return f"longest pause {kill.cost:.2f} s, no round lost"
    again = f"{kill.again} rounds" if kill.again != 1 else "1 round"
    return f"{again} trained again, back after {kill.cost:.2f} s"


def table(trainings: list[Training]) -> Iterator[str]:
    """The figures of all trainings side by side."""
    rows = [
        ("rounds", "rounds", "{}"),
        ("segments", "segments", "{}"),
        ("seconds", "seconds", "{:.1f}"),
        ("batches a second", "batches_per_second", "{:.0f}"),
        ("workers waited for data", "waited", "{:.2%}"),
        ("padding in the batches", "padding", "{:.1%}"),
        (f"loss, last {LAST} rounds", "loss", "{:.3f}"),
        (f"right, last {LAST} rounds", "accuracy", "{:.1%}"),
        ("right, unseen data", "held_out_accuracy", "{:.1%}"),
    ]
    figures = [training.figures() for training in trainings]
    yield f"{'':24}" + "".join(f"{training.which.name:>13}" for training in trainings)
    yield f"{'':24}" + "".join(f"{training.kinds:>13}" for training in trainings)
    for label, key, form in rows:
        yield f"{label:24}" + "".join(f"{form.format(each[key]):>13}" for each in figures)


def show(report: Report, options: argparse.Namespace) -> None:
    """Prints the summary, and writes it as JSON and as a picture."""
    for curve in report.curves:
        print(f"\n{plot.terminal(curve)}")
    print()
    for line in table(report.trainings):
        print(line)
    killed = [(t, kill) for t in report.trainings for kill in t.result.kills]
    if killed:
        print("\nwhat the kills cost")
    for training, kill in killed:
        what = f"{training.which.name}, round {kill.round}, {KILLED[kill.what]}"
        print(f"  {what}: {cost(kill)}")
    print("\nchecks")
    for check in report.checks:
        print(f"  {check}")
    print("\nsha256 of the weights")
    for training in report.trainings:
        print(f"{training.result.sha256}  {training.name}")
    summary = {training.name: training.figures() for training in report.trainings}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\nfigures and what was trained when: {options.out}/summary.json, */trace.csv")
    try:
        plot.png(options.out / "loss.png", report.curves)
        print(f"loss curves as a picture: {options.out}/loss.png")
    except ModuleNotFoundError as error:
        print(f"no picture of the loss curves: {error}")


# -- the program -----------------------------------------------------------------------------------


@contextlib.contextmanager
def fresh(out: Path) -> Iterator[None]:
    """An empty directory `out`, held against a second demo. Empties only what a demo made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise TrainingError(f"{out} is a file or lies under one; --out takes a directory") from None
    if not (out / OURS).exists() and any(out.iterdir()):
        raise TrainingError(f"{out} is not empty and not a demo's; --out takes another")
    with open(out / OURS, "w") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"another demo runs in {out}; --out takes another") from None
        for entry in out.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != OURS:
                entry.unlink()
        yield


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may have no blocks to draw bars with
    begin = time.monotonic()
    report = Report()
    print("segue's demo: an LSTM learns to label every step of long sequences. It gets\n"
          "them in segments, each with the state that the segment before has left.\n"
          "While it trains,", end=" ")
    print({
        "none": "nothing is killed.",
        "server": "the server is killed half-way.",
        "worker": "a worker is killed.",
        "all": "the server is killed half-way, and a worker later.",
        "commits": "all processes are killed, between two lanes' commits of a round.",
    }[options.kill])  # fmt: skip
    try:
        with fresh(options.out):
            for which in QUICK if options.quick else SETS:
                if options.set in ("both", which.name):
                    demo_set(which, options, report)
            show(report, options)
    except (TrainingError, segue.Error, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    for problem in report.problems:
        print(f"demo: CHECK FAILED: {problem}", file=sys.stderr)
    if not report.problems:
        print(f"all checks hold; it took {time.monotonic() - begin:.0f} s")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

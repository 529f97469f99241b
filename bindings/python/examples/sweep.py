#!/usr/bin/env python3
"""Four learning rates on one stream: four processes, each a group of its own, which share a feed.

    sweep.py [--sequences N] [--epochs N] [--svg FILE]

Beside it the same four runs, each on a stream of its own. Prints what the server and the workers
took of the processor, the memory and the time of both, and looks whether each run has had the same
loss, bit for bit, in each batch. --svg writes the picture that docs/groups.md shows.
"""

from __future__ import annotations

import os

# One BLAS thread: the same bits each time. Before NumPy is imported, also in the workers.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

import segue
from lstm import Adam, Classifier
from segue.tfrecord import SequenceExampleWriter, encode_sequence_example

RATES = ("3e-3", "1e-3", "3e-4", "1e-4")
INPUTS, HIDDEN, UNROLL, ROWS = 256, 8, 20, 32
PATIENCE = 300.0  # seconds


@dataclass
class Way:
    """How the four were run, and what it took.

    server, workers : seconds of the processor.
    rings : bytes of shared memory: rings, and the groups' states.
    private : bytes of the server that are not shared.
    feeds : rings that were filled.
    wall : seconds.
    waited : seconds for data, of the one that waited most.
    """

    name: str
    server: float
    workers: float
    rings: int
    private: int
    feeds: int
    wall: float
    waited: float
    losses: dict[str, list[float]]


def write(path: Path, count: int) -> None:
    """Sequences of 20 to 200 steps; the label flips once the first input's sum passes a quarter."""
    rng = np.random.default_rng(1)
    with SequenceExampleWriter(path) as writer:
        for steps in rng.integers(20, 201, count):
            x = rng.random((steps, INPUTS), np.float32)
            x[:, 1:] *= 0.1  # the others are noise
            label = (np.cumsum(x[:, 0], dtype=np.float64) > steps / 4).astype(np.int64)
            writer.write_record(encode_sequence_example({"x": x, "label": label}))


def open_stream(client: segue.Client, name: str, data: Path, epochs: int) -> segue.Stream:
    state = segue.State("float32", HIDDEN)
    return client.stream(
        name,
        segue.TFRecord(data),
        {"x": segue.Feature("float32", INPUTS), "label": segue.Feature("int64")},
        states={"h": state, "c": state},
        num_unroll=UNROLL,
        batch_size=ROWS,
        shuffle=True,
        epochs=epochs,
    )


def train(loader: segue.Loader, rate: float) -> list[float]:
    """The loss of each batch."""
    model = Classifier(INPUTS, HIDDEN, memory=100, seed=1)
    optimizer = Adam(model.flat, rate)
    losses = []
    for batch in loader:
        part = model.gradient(
            batch.sequences["x"], batch.sequences["label"], batch.mask,
            batch.state("h"), batch.state("c"),
        )  # fmt: skip
        optimizer.step(part.gradient / max(1, part.steps))
        batch.save_state("h", part.h)
        batch.save_state("c", part.c)
        batch.commit()
        losses.append(part.loss / max(1, part.steps))
    return losses


def work(
    place: Path, data: Path, epochs: int, rate: str, shared: bool, gate: Any, done: Any
) -> None:
    """One process: one run."""
    try:
        with segue.open(place) as client:
            name, group = ("train", f"lr{rate}") if shared else (f"train-lr{rate}", None)
            with open_stream(client, name, data, epochs) as stream:
                with stream.loader(group=group, timeout=PATIENCE) as loader:
                    loader.state_dict()  # takes the lane, at its first batch
                    # Those that begin together share a feed: none goes on before all are there.
                    gate.wait(PATIENCE)
                    before = time.process_time()
                    losses = train(loader, float(rate))
                    done.put((rate, losses, time.process_time() - before, loader.waited))
                    gate.wait(PATIENCE)  # what the server has is looked at
                    gate.wait(PATIENCE)
    except BaseException:
        gate.abort()
        raise


def private_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def run(name: str, directory: Path, data: Path, epochs: int, shared: bool) -> Way:
    """All four at once, on a server of their own."""
    context = multiprocessing.get_context("spawn")
    gate, done = context.Barrier(len(RATES) + 1), context.Queue()
    with segue.open(directory) as client:
        # All know the stream, and its data's index is made, before time is taken.
        for of in ["train"] if shared else [f"train-lr{rate}" for rate in RATES]:
            open_stream(client, of, data, epochs).close()
        workers = [
            context.Process(target=work, args=(directory, data, epochs, rate, shared, gate, done))
            for rate in RATES
        ]
        for worker in workers:
            worker.start()
        gate.wait(PATIENCE)
        server, begun = client.status()["cpu_s"], time.monotonic()
        found = [done.get(timeout=PATIENCE) for _ in workers]
        wall = time.monotonic() - begun
        gate.wait(PATIENCE)
        status = client.status()
        way = Way(
            name=name,
            server=status["cpu_s"] - server,
            workers=sum(spent for _, _, spent, _ in found),
            rings=sum(user["ring_bytes"] for user in status["users"]),
            private=private_bytes(status["server"]["pid"]),
            feeds=sum(one["feeds"] for one in status["streams"]),
            wall=wall,
            waited=max(waited for _, _, _, waited in found),
            losses={rate: losses for rate, losses, _, _ in found},
        )
        gate.wait(PATIENCE)
        for worker in workers:
            worker.join(PATIENCE)
            if worker.exitcode:
                raise RuntimeError(f"a worker ended with {worker.exitcode}")
    return way


FIGURES = {
    "the server's processor": (lambda way: way.server, "s"),
    "the workers' processor": (lambda way: way.workers, "s"),
    "rings and states": (lambda way: way.rings / 1e6, "MB"),
    "the server's own memory": (lambda way: way.private / 1e6, "MB"),
    "time": (lambda way: way.wall, "s"),
}


def table(ways: list[Way]) -> str:
    lines = ["| | " + " | ".join(way.name for way in ways) + " |", "|---|" + "---|" * len(ways)]
    lines.append("| feeds | " + " | ".join(str(way.feeds) for way in ways) + " |")
    for name, (value, unit) in FIGURES.items():
        lines.append(f"| {name} | " + " | ".join(f"{value(w):.2f} {unit}" for w in ways) + " |")
    return "\n".join(lines)


def picture(ways: list[Way], title: str) -> str:
    """Of each figure a bar a way, as SVG; the longer one is as long as all the others."""
    width, left, full, high, gap = 760, 210, 430, 16, 22
    height = 84 + len(FIGURES) * (2 * high + gap)
    text = 'font-family="sans-serif" fill="#222"'
    colors = ("#2a78b5", "#e5a03b")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="26" {text} font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for place, (way, color) in enumerate(zip(ways, colors, strict=True)):
        x = 16 + 240 * place
        out.append(f'<rect x="{x}" y="38" width="11" height="11" fill="{color}"/>')
        out.append(f'<text x="{x + 16}" y="48" {text} font-size="12">{escape(way.name)}</text>')
    for row, (name, (value, unit)) in enumerate(FIGURES.items()):
        y = 70 + row * (2 * high + gap)
        out.append(f'<text x="16" y="{y + 20}" {text} font-size="13">{escape(name)}</text>')
        most = max(map(value, ways)) or 1
        for place, (way, color) in enumerate(zip(ways, colors, strict=True)):
            at, long = y + place * high, full * value(way) / most
            out.append(
                f'<rect x="{left}" y="{at}" width="{long:.1f}" height="{high - 2}" fill="{color}"/>'
                f'<text x="{left + long + 6:.1f}" y="{at + 12}" {text} font-size="12">'
                f"{value(way):.2f} {unit}</text>"
            )
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segue-sweep-") as scratch:
        data = Path(scratch) / "data.tfrecord"
        write(data, options.sequences)
        one, own = ways = [
            run("four groups on one stream", Path(scratch) / "one", data, options.epochs, True),
            run("four streams", Path(scratch) / "four", data, options.epochs, False),
        ]
    batches = len(next(iter(one.losses.values())))
    print(table(ways))
    print(", ".join(f"{way.name}: {way.waited:.2f} s waited for data, the worst" for way in ways))
    print(f"{batches} batches a run; loss of the last tenth:")
    for rate in RATES:
        last = one.losses[rate][-max(1, batches // 10) :]
        print(f"  {rate}: {sum(last) / len(last):.4f}")
    if options.svg:
        options.svg.write_text(picture(ways, f"Four learning rates, {batches:,} batches each"))
    if one.losses != own.losses:
        print("the losses are not those of the runs with a stream of their own", file=sys.stderr)
        return 1
    print("each loss is that of the run with a stream of its own, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""How much of what streams deliver is padding, by how they cut sequences: a table and a picture.

    padding.py [--sequences N] [--rows N] [--num-unroll N ...] [--svg FILE]

Lengths are log-normal (sigma 1, median 50 steps), seeded; the share is that of `Loader.padding`
when all has been delivered once, in shuffled order. --svg writes the picture that the guide shows,
docs/padding.svg. It needs the package, and a server that it can start.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

import segue

MEDIAN, SIGMA, SEED = 50, 1.0, 1
CLASSES = [16, 32, 64, 128, 256, 512]  # boundaries


@dataclass(frozen=True)
class Bar:
    name: str
    options: str  # as they are written
    share: float  # of padding
    batches: int
    rows: float  # of a batch, in the mean


def lengths(count: int) -> np.ndarray:
    drawn = np.random.default_rng(SEED).lognormal(np.log(MEDIAN), SIGMA, count)
    return np.maximum(1, drawn.round()).astype(np.int64)


def write(path: Path, steps: np.ndarray) -> None:
    with segue.FileWriter(path, {"x": segue.Feature("float32")}) as writer:
        for n in steps.tolist():
            writer.write({"x": np.ones(n, np.float32)})


def measure(client: segue.Client, path: Path, name: str, **options: Any) -> tuple[float, list[int]]:
    """Share of padding, and rows of each batch, of a stream that is read once."""
    stream = client.stream(
        name,
        segue.Files(path),
        {"x": segue.Feature("float32")},
        shuffle=True,
        seed=SEED,
        persist=False,
        **options,
    )
    with stream, stream.loader() as loader:
        rows = [batch.batch_size for batch in loader]
        return loader.padding, rows


def bars(steps: np.ndarray, rows: int, unrolls: list[int]) -> list[Bar]:
    longest = int(steps.max())
    classes = {"bucket_boundaries": CLASSES}
    said = f"bucket_boundaries=[{CLASSES[0]}, {CLASSES[1]}, ..., {CLASSES[-1]}]"
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("padded to the longest of all", f"num_unroll={longest}", {"num_unroll": longest}),
        (
            "whole sequences",
            f"num_unroll=None, maximum_length={longest}",
            {"num_unroll": None, "maximum_length": longest},
        ),
        (
            "whole sequences, in classes",
            said,
            {"num_unroll": None, "maximum_length": longest, **classes},
        ),
    ]
    for unroll in unrolls:
        cut = f"num_unroll={unroll}, trim=True"
        ways.append(("segments", f"num_unroll={unroll}", {"num_unroll": unroll}))
        trimmed = {"num_unroll": unroll, "trim": True}
        ways.append(("segments, trimmed", cut, trimmed))
        ways.append(("trimmed, in classes", f"{cut}, classes", {**trimmed, **classes}))
    found = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lengths.segue"
        write(path, steps)
        with segue.open(Path(directory) / "store") as client:
            for i, (name, written, options) in enumerate(ways):
                share, each = measure(client, path, f"way-{i}", batch_size=rows, **options)
                found.append(Bar(name, written, share, len(each), float(np.mean(each))))
    return found


def table(found: list[Bar]) -> str:
    rows = [
        f"| {b.name} | `{b.options}` | {100 * b.share:.1f} % | {b.batches:,} | {b.rows:.1f} |"
        for b in found
    ]
    head = "| batches | options | padding | number | rows in the mean |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def picture(found: list[Bar], title: str) -> str:
    """A bar a way, as SVG: what counts, and what is padding."""
    width, left, top, high, gap = 760, 250, 58, 26, 18
    full = width - left - 70
    height = top + len(found) * (high + gap) + 34
    text = 'font-family="sans-serif" fill="#222"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="26" {text} font-size="16" font-weight="bold">'
        "Share of padding in what is delivered</text>",
        f'<text x="16" y="46" {text} font-size="12">{escape(title)}</text>',
    ]
    for i, bar in enumerate(found):
        y = top + i * (high + gap) + 10
        padding = full * bar.share
        out += [
            f'<text x="16" y="{y + 12}" {text} font-size="13">{escape(bar.name)}</text>',
            f'<text x="16" y="{y + 26}" {text} font-size="10" fill-opacity="0.7">'
            f"{escape(bar.options)}</text>",
            f'<rect x="{left}" y="{y}" width="{full}" height="{high}" fill="#2a78b5"/>',
            f'<rect x="{left}" y="{y}" width="{padding:.1f}" height="{high}" fill="#e5a03b"/>',
            f'<text x="{left + full + 8}" y="{y + 18}" {text} font-size="13">'
            f"{100 * bar.share:.1f} %</text>",
        ]
    y = top + len(found) * (high + gap) + 18
    colors = ((left, "#e5a03b", "padding"), (left + 90, "#2a78b5", "steps that count"))
    for x, color, said in colors:
        out.append(f'<rect x="{x}" y="{y - 10}" width="11" height="11" fill="{color}"/>')
        out.append(f'<text x="{x + 16}" y="{y}" {text} font-size="11">{said}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--num-unroll", type=int, nargs="+", default=[128, 32])
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    steps = lengths(options.sequences)
    title = (
        f"{len(steps):,} sequences of log-normal length (sigma 1; median {np.median(steps):.0f}, "
        f"longest {steps.max():,} steps), {options.rows} rows a batch"
    )
    found = bars(steps, options.rows, options.num_unroll)
    print(title, "", table(found), sep="\n")
    if options.svg:
        options.svg.write_text(picture(found, title))


if __name__ == "__main__":
    main()

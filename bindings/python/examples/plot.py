"""Loss curves: in the terminal, and as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Mark:
    """Something that happened at round `at`; if `since` is less, training went back to there."""

    at: int
    since: int
    text: str


@dataclass
class Curve:
    """One panel.

    values : one a round.
    window : rounds of an epoch; means are taken over so many.
    marks : what happened on the way.
    other : values of a second training to compare with, if there was one.
    """

    title: str
    values: Sequence[float]
    window: int = 1
    marks: list[Mark] = field(default_factory=list)
    other: Sequence[float] | None = None


def smooth(values: Sequence[float], count: int, window: int) -> list[float]:
    """`count` (or fewer) means at even distances, each over the `window` values around it.

    Each is over at least its own share of the values, so none is left out.
    """
    size = len(values)
    count = min(count, size)
    sums = [0.0, *accumulate(values)]
    means = []
    for i in range(count):
        middle, half = (i + 0.5) * size / count, max(window, size / count) / 2
        begin = max(0, round(middle - half))
        end = min(size, max(begin + 1, round(middle + half)))
        means.append((sums[end] - sums[begin]) / (end - begin))
    return means


def terminal(curve: Curve, width: int = 58, height: int = 6) -> str:
    """The curve's means as lines of block characters, with a scale and its marks."""
    means = smooth(curve.values, width, curve.window)
    if not means:
        return f"{curve.title}: nothing to show"
    top = max(means) or 1.0
    eighths = [round(mean / top * height * 8) for mean in means]
    lines = [curve.title]
    for row in range(height - 1, -1, -1):
        scale = f"{top * (row + 1) / height:7.3f} |"
        bars = "".join(_BARS[min(8, max(0, e - 8 * row))] for e in eighths)
        lines.append((scale + bars).rstrip())
    lines.append("  0.000 +" + "-" * len(means) + f" round {len(curve.values)}")
    if curve.marks:
        places = [" "] * len(means)
        for mark in curve.marks:
            places[min(len(means) - 1, mark.at * len(means) // len(curve.values))] = "^"
        lines.append("         " + "".join(places).rstrip())
        lines += [f"         ^ round {mark.at}: {mark.text}" for mark in curve.marks]
    return "\n".join(lines)


def png(path: Path, curves: Sequence[Curve]) -> None:
    """One panel a curve: every round in grey, means over it, what happened in red.

    Raises ModuleNotFoundError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(curves), figsize=(7 * len(curves), 4.2), squeeze=False, layout="constrained"
    )
    for panel, curve in zip(panels[0], curves, strict=True):
        size = len(curve.values)
        panel.plot(range(1, size + 1), curve.values, color="0.82", linewidth=0.5,
                   label="one round")  # fmt: skip
        means = smooth(curve.values, 300, curve.window)
        middle = [(i + 0.5) * size / len(means) for i in range(len(means))]
        panel.plot(middle, means, color="tab:blue", linewidth=2.5, label="mean over an epoch")
        if curve.other is not None:
            means = smooth(curve.other, 300, curve.window)
            middle = [(i + 0.5) * len(curve.other) / len(means) for i in range(len(means))]
            panel.plot(middle, means, color="gold", linewidth=1.2, linestyle=(0, (4, 4)),
                       label="the same, unkilled")  # fmt: skip
        # A few wild rounds must not press the curve flat.
        ordered = sorted(curve.values)
        top = 1.2 * max(*means, ordered[int(0.99 * (size - 1))], 1e-9)
        for mark in curve.marks:
            panel.axvline(mark.at, color="tab:red", linestyle="--", linewidth=1)
            if mark.since < mark.at:
                panel.axvspan(mark.since, mark.at, color="tab:red", alpha=0.12, linewidth=0,
                              label="trained again")  # fmt: skip
            panel.annotate(mark.text, (mark.at, 0.98), xycoords=("data", "axes fraction"),
                           xytext=(4, 0), textcoords="offset points", rotation=90,
                           ha="left", va="top", color="tab:red", fontsize=8)  # fmt: skip
        panel.set(title=curve.title, xlabel="round", ylabel="loss (nats a step)",
                  xlim=(0, size), ylim=(0, top))  # fmt: skip
        panel.spines[["top", "right"]].set_visible(False)
    lines: dict[str, Any] = {}  # by label: the panels share a legend
    for panel in panels[0]:
        lines |= {text: line for line, text in zip(*panel.get_legend_handles_labels())}
    figure.legend(list(lines.values()), list(lines), loc="outside lower center",
                  ncols=len(lines), frameon=False)  # fmt: skip
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

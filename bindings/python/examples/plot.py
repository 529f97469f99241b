"""Loss curves: in the terminal, and as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BARS = " ▁▂▃▄▅▆▇█"


@dataclass
class Curve:
    """One panel: a value per round, and marks (round, text) under it."""

    title: str
    values: Sequence[float]
    marks: list[tuple[int, str]] = field(default_factory=list)


def buckets(values: Sequence[float], count: int) -> list[float]:
    """Means of `count` (or fewer) consecutive parts of about equal size."""
    count = min(count, len(values))
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    return [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:])]


def terminal(curve: Curve, width: int = 72, height: int = 8) -> str:
    """The curve as lines of block characters, with a scale and its marks."""
    means = buckets(curve.values, width)
    if not means:
        return f"{curve.title}: nothing to show"
    top = max(means) or 1.0
    eighths = [round(mean / top * height * 8) for mean in means]
    lines = [curve.title]
    for row in range(height - 1, -1, -1):
        scale = f"{top * (row + 1) / height:7.3f} |"
        lines.append(scale + "".join(_BARS[min(8, max(0, e - 8 * row))] for e in eighths))
    marks = [" "] * len(means)
    for at, _ in curve.marks:
        marks[min(len(means) - 1, at * len(means) // len(curve.values))] = "^"
    lines.append("  0.000 +" + "-" * len(means) + f" round {len(curve.values)}")
    if curve.marks:
        lines.append("         " + "".join(marks).rstrip())
        lines.append("         ^ " + ", ".join(f"{text} at round {at}" for at, text in curve.marks))
    return "\n".join(lines)


def png(path: Path, curves: Sequence[Curve]) -> None:
    """One panel a curve: every round in grey, means over it, marks as vertical lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(curves), figsize=(6 * len(curves), 4), squeeze=False, layout="constrained"
    )
    for panel, curve in zip(panels[0], curves, strict=True):
        panel.plot(curve.values, color="0.8", linewidth=0.6)
        means = buckets(curve.values, 100)
        middle = [(i + 0.5) * len(curve.values) / len(means) for i in range(len(means))]
        panel.plot(middle, means, color="tab:blue")
        for at, text in curve.marks:
            panel.axvline(at, color="tab:red", linestyle="--", linewidth=1)
            panel.annotate(text, (at, 0.97), xycoords=("data", "axes fraction"), rotation=90,
                           ha="right", va="top", color="tab:red", fontsize=8)  # fmt: skip
        panel.set(title=curve.title, xlabel="round", ylabel="loss (nats a step)", ylim=(0, None))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

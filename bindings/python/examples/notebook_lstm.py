"""The notebook's LSTM, with PyTorch: states by `static_state_saving_rnn`, batches by `notebook.py`.

Where the notebook differs: it has dropout, Adadelta and no lengths, so that its LSTM also learns
the padding. Here Adam trains it, and steps behind a sequence's end count for nothing. Both give
the net the tokens alone; a step whose sum lies between 12 / 4 and 14 / 4 can be labelled only by
who knows the sequence. So more than some 97 % of the steps means that sequences were recognised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import segue
from notebook import LABEL, TOKEN, batches
from segue.torch import static_state_saving_rnn

CELLS = 64
NAMES = ("lstm_state_h", "lstm_state_c")  # PyTorch's order


class Network(torch.nn.Module):
    """An LSTM, and three layers that make a logit of each of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.LSTMCell(1, CELLS)
        self.logits = torch.nn.Sequential(
            torch.nn.Linear(CELLS, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, 1),
        )

    def forward(self, batch: segue.SequenceBatch) -> torch.Tensor:
        """Logits [rows, num_unroll]; the batch gives the states and gets the new ones."""
        inputs = torch.from_numpy(batch.sequences[TOKEN]).unsqueeze(2).unbind(1)
        outputs, _ = static_state_saving_rnn(self.cell, inputs, batch, NAMES, batch.length)
        logits: torch.Tensor = self.logits(torch.stack(outputs, 1)).squeeze(2)
        return logits


def initial_states(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(CELLS, dtype=np.float32) for name in NAMES}


def valid_steps(batch: segue.SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Which steps count, and the labels of those."""
    mask = torch.arange(batch.sequences[LABEL].shape[1]) < torch.from_numpy(batch.length)[:, None]
    return mask, torch.from_numpy(batch.sequences[LABEL])[mask]


def train(
    network: Network,
    source: Iterable[segue.SequenceBatch],
    steps: int,
    tell: Callable[[int, float, float], object],
    rate: float = 6e-3,
) -> None:
    """So many batches; tells of each: step, loss (nats a step), share of steps that were right."""
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, rate)
    warm, least = min(200, steps // 10 + 1), 0.02
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min(1.0, (step + 1) / warm) * max(least, 1 - step / steps)
    )
    for step, batch in enumerate(islice(source, steps), 1):
        mask, labels = valid_steps(batch)
        logits = network(batch)[mask]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        schedule.step()
        tell(step, loss.item(), ((logits > 0) == labels).float().mean().item())


@torch.no_grad()
def accuracy(network: Network, source: Iterable[segue.SequenceBatch]) -> float:
    """The share of steps that it labels right, over all batches."""
    right = count = 0
    for batch in source:
        mask, labels = valid_steps(batch)
        right += int(((network(batch)[mask] > 0) == labels).sum())
        count += len(labels)
    return right / count


def picture(path: Path, curve: np.ndarray, end: float) -> None:
    """Loss and accuracy; `curve` has both, of each step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    window = max(1, len(curve) // 150)
    means = curve[: len(curve) // window * window].reshape(-1, window, 2).mean(1)
    at = (np.arange(len(means)) + 0.5) * window
    matplotlib.rcParams["svg.hashsalt"] = "segue"  # the same curve, the same file
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for panel, values, title in zip(
        panels, means.T, ("loss (nats a step)", "steps labelled right"), strict=True
    ):
        panel.plot(at, values, color="tab:blue", linewidth=1.5)
        panel.set(title=title, xlabel=f"optimizer step (means over {window})", xlim=(0, len(curve)))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(0)
    panels[1].axhline(0.98, color="0.6", linestyle="--", linewidth=1)
    panels[1].annotate("98 %", (0, 0.98), xytext=(3, 3), textcoords="offset points", color="0.4")
    panels[1].plot([len(curve)], [end], "o", color="tab:red", clip_on=False)
    panels[1].annotate(
        f"all sequences, at the end: {end:.1%}", (len(curve), end), xytext=(0.97, 0.1),
        textcoords="axes fraction", ha="right", color="tab:red",
        arrowprops={"arrowstyle": "-", "relpos": (1, 1), "color": "tab:red", "linewidth": 0.8},
    )  # fmt: skip
    panels[1].set_ylim(top=1.0)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
    pyplot.close(figure)


def run(path: Path, steps: int, curve: Path | None = None) -> float:
    """Trains on the file; prints how it goes; returns the accuracy over all its sequences."""
    torch.manual_seed(1)
    torch.set_num_threads(1)  # so little work is slower with more
    network, states, begun = Network(), initial_states(), time.monotonic()
    points: list[Any] = []
    phase = max(1, steps // 30)

    def tell(step: int, loss: float, right: float) -> None:
        points.append((loss, right))
        if step % phase == 0:
            loss, right = np.mean(points[-phase:], axis=0)
            print(f"step {step:5}: mean loss {loss:.3f}, {right:.1%} right", flush=True)

    with batches(path, states) as source:
        train(network, source, steps, tell)
        print(f"waited for data: {source.waited:.2f} s of {time.monotonic() - begun:.0f}")
    once: dict[str, Any] = {"epochs": 1, "allow_small_batch": True, "make_keys_unique": False}
    with batches(path, states, **once) as source:
        end = accuracy(network, source)
    print(f"{end:.2%} of all steps right, after {time.monotonic() - begun:.0f} s")
    if curve:
        picture(curve, np.array(points), end)
    return end

#!/usr/bin/env python3
"""A small state-space model on the bytes of Python's standard library: what carried states are worth.

    ssm.py [--steps N] [--files N] [--svg FILE]

Trains in a process that is killed half-way and begun again, and in one that nobody kills: the
weights must be the same, bit for bit. Then says what the next byte costs (bits a byte, on files
that were not trained on) by its place in a segment of 64: with the states that the file left,
with zeros, and with those of another file. --svg draws it. Needs PyTorch.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1"}  # the same bits each time

import argparse
import math
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import segue
from segue.torch import Batch, wrap

UNROLL, ROWS, WIDTH, CELLS, LAYERS = 64, 32, 96, 128, 2
STATES = {"ssm": [segue.State("float32", CELLS) for _ in range(LAYERS)]}
WAYS = ("carried", "zeros", "another file's")
PATIENCE = 600.0


class Layer(nn.Module):
    """A diagonal state-space model, h' = a h + (1 - a) B u, y = C gelu(h) + u: each cell has its own
    decay a, from some steps to thousands. Over a segment it is a product with a matrix of powers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.into, self.out = nn.Linear(WIDTH, CELLS), nn.Linear(CELLS, WIDTH)
        self.gate = nn.Linear(WIDTH, CELLS)
        self.decay = nn.Parameter(torch.linspace(0.0, math.log(2000.0), CELLS))  # log of steps

    def forward(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """`u` is [rows, steps, WIDTH], `h` [rows, CELLS]; the state after each step comes back."""
        x = self.norm(u)
        log_a = -torch.exp(-self.decay)
        steps = torch.arange(u.shape[1] + 1)
        ages = steps[1:, None] - steps[None, 1:]  # [t, s]: how long ago s was at t
        powers = torch.exp(log_a * ages.clamp(min=0)[..., None]) * (ages >= 0)[..., None]
        fed = -torch.expm1(log_a) * self.into(x)
        hs = torch.einsum("tsc,bsc->btc", powers, fed)
        hs = hs + torch.exp(log_a * steps[1:, None]) * h[:, None]
        return u + self.out(hs * torch.sigmoid(self.gate(x))), hs


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(256, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, x: Tensor, lengths: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the states behind each row's last step that counts."""
        u, after = self.embedding(x.long()), []
        last = (lengths.long() - 1).clamp(min=0)[:, None, None]
        for layer, h in zip(self.layers, states, strict=True):
            u, hs = layer(u, h)
            after.append(hs.take_along_dim(last, 1).squeeze(1))
        return self.head(u), after


def loss_of(said: Tensor, batch: Batch) -> Tensor:
    """Bits of each byte, [rows, steps]."""
    loss = nn.functional.cross_entropy(said.flatten(0, 1), batch["y"].long().flatten(), reduction="none")
    return loss.view(batch["y"].shape) / math.log(2)


def open_stream(client: segue.Client, name: str, files: int, **options: Any) -> segue.Stream:
    """Of the standard library's files one in eight is for the test."""
    found = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    chosen = [path for i, path in enumerate(found) if (i % 8 == 0) == (name == "test")][:files]
    texts = [np.frombuffer(path.read_bytes(), np.uint8) for path in chosen]
    texts = [text for text in texts if len(text) > 1]
    byte = segue.Feature("uint8")
    return client.stream(
        name,
        segue.Arrays({"x": [text[:-1] for text in texts], "y": [text[1:] for text in texts]}),
        {"x": byte, "y": byte},
        states=STATES,
        num_unroll=UNROLL,
        batch_size=ROWS,
        **options,
    )


# -- training ----------------------------------------------------------------------------------------


def train(place: Path, steps: int, files: int, kill: bool) -> None:
    """Goes on from place/pair.pt if that is there; else, with `kill`, it is killed half-way."""
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    pair = torch.load(place / "pair.pt") if (place / "pair.pt").exists() else None
    resumes = pair is not None
    with segue.open(place / "store") as client:
        stream = open_stream(client, "train", files, shuffle=True, epochs=None)
        loader = wrap(stream.loader(start=None if pair else "fresh"))
        if pair:
            model.load_state_dict(pair["model"])
            optimizer.load_state_dict(pair["optimizer"])
            loader.load_state_dict(pair["loader"])
        for batch in loader:
            said, states = model(batch["x"], batch.length, batch.states["ssm"])
            loss = batch.mean(loss_of(said, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            batch.states = {"ssm": states}
            done = batch.step + 1
            if done % max(1, steps // 8) == 0 or done == steps:
                print(f"step {done}: {loss.item():.3f} bits a byte", flush=True)
                pair = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "loader": loader.state_dict()}  # fmt: skip
                torch.save(pair, place / "new.pt")
                os.replace(place / "new.pt", place / "pair.pt")
            if kill and not resumes and done == steps // 2 + 1:  # a step behind a pair
                os.kill(os.getpid(), signal.SIGKILL)
            if done == steps:
                break


def run(place: Path, options: argparse.Namespace, kill: bool) -> dict[str, Tensor]:
    """Trains in a process of its own; the weights at its end."""
    place.mkdir()
    command = [sys.executable, __file__, "--steps", str(options.steps), "--files", str(options.files),
               "--place", str(place), *["--kill"] * kill]  # fmt: skip
    for code in [-signal.SIGKILL, 0] if kill else [0]:
        ended = subprocess.run(command, stdout=None if kill else subprocess.DEVNULL, timeout=PATIENCE)
        if ended.returncode != code:
            raise RuntimeError(f"the training has ended with {ended.returncode}")
        if code:
            print("killed half-way, and begun again", flush=True)
    weights: dict[str, Tensor] = torch.load(place / "pair.pt")["model"]
    return weights


# -- what states are worth ---------------------------------------------------------------------------


def evaluate(place: Path, weights: dict[str, Tensor], files: int) -> dict[str, np.ndarray]:
    """Bits a byte at each place in a segment that is not a file's first, for each way."""
    model = Network()
    model.load_state_dict(weights)
    total = {way: torch.zeros(UNROLL) for way in WAYS}
    count = torch.zeros(UNROLL)
    with torch.no_grad(), segue.open(place / "store") as client:
        # The beginnings of long files: else batches of the longest alone would take most of the time.
        stream = open_stream(
            client, "test", files, persist=False, maximum_length=64 * UNROLL, on_too_long="truncate"
        )
        for batch in wrap(stream.loader()):
            carried = batch.states["ssm"]
            counts = batch.mask & ~batch.is_first[:, None]
            given = {
                "carried": carried,
                "zeros": [torch.zeros_like(h) for h in carried],
                "another file's": [h.roll(1, 0) for h in carried],
            }
            for way in WAYS:
                said, states = model(batch["x"], batch.length, given[way])
                total[way] += torch.where(counts, loss_of(said, batch), 0.0).sum(0)
                if way == "carried":
                    batch.states = {"ssm": states}
            count += counts.sum(0)
    return {way: (total[way] / count.clamp(min=1)).numpy() for way in WAYS}


def picture(path: Path, bits: dict[str, np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "segue"  # the same curves, the same file
    figure, panel = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    for (way, values), color in zip(bits.items(), ("tab:blue", "tab:orange", "tab:red"), strict=True):
        panel.plot(range(UNROLL), values, color=color, linewidth=1.8, label=f"states: {way}")
    panel.set(title="What the next byte costs, behind a file's first segment", ylabel="bits a byte",
              xlabel="place in the segment", xlim=(0, UNROLL - 1))  # fmt: skip
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--files", type=int, default=160, help="at most so many to train on")
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)  # of the process that trains
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.place:
        train(options.place, options.steps, options.files, options.kill)
        return 0
    with tempfile.TemporaryDirectory(prefix="segue-ssm-", ignore_cleanup_errors=True) as scratch:
        killed = run(Path(scratch) / "killed", options, kill=True)
        whole = run(Path(scratch) / "whole", options, kill=False)
        if any(not torch.equal(whole[name], killed[name]) for name in whole):
            print("the weights are not those of the training that nobody killed", file=sys.stderr)
            return 1
        print("the weights are those of the training that nobody killed, bit for bit")
        bits = evaluate(Path(scratch) / "whole", whole, max(8, options.files // 8))
    for way, values in bits.items():
        print(f"states {way}: {values[:8].mean():.3f} bits a byte in the first 8 places, {values.mean():.3f} in all")
    if options.svg:
        picture(options.svg, bits)
    return 0


if __name__ == "__main__":
    sys.exit(main())

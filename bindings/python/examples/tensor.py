#!/usr/bin/env python3
"""Two ranks that share one model, and see the same batches: tensor parallel, by replicas.

    tensor.py [--sequences N] [--epochs N]

Each rank has half of an LSTM's cells, and so half of its weights. A step of either half reads what
all cells said at the step before, so the ranks exchange it at each step (torch.distributed, gloo).
For that they need the same rows at the same time, with the same states: both have a loader of the
same lane, as replicas 0 and 1. Rank 0 saves the states, of all cells; rank 1 only reads. At the
end losses and weights are those of one process that has both halves, bit for bit: every product
has the same shape there, and every sum that crosses the ranks has two addends. Needs PyTorch.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import segue
import toy

RANKS, CELLS, UNROLL, ROWS = 2, 16, 10, 8
HALF = CELLS // RANKS
PATIENCE = 300.0  # seconds
# Gloo does not always notice at once that a rank is gone: what waits for it then fails after this.
GLOO_TIMEOUT = timedelta(seconds=30)


# -- a model of two halves -------------------------------------------------------------------------


class Half(nn.Module):
    """Half of the cells."""

    def __init__(self, number: int) -> None:
        super().__init__()
        torch.manual_seed(number)
        self.gates, self.out = nn.Linear(1 + CELLS, 4 * HALF), nn.Linear(HALF, 1)
        memory = torch.empty(HALF).uniform_(1, 50).log()  # cells that remember 1 to 50 steps
        with torch.no_grad():
            self.gates.weight[:, 0].normal_()
            self.gates.bias[: 2 * HALF] = torch.cat([-memory, memory])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """From ``h`` of all cells, ``c`` of its own: both of its own."""
        i, f, g, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Gather(torch.autograd.Function):
    """Side by side what the ranks have. The gradient of what one has comes from all of them."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(RANKS)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, 1)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient.chunk(RANKS, 1)[dist.get_rank()]


class Add(torch.autograd.Function):
    """The sum over the ranks, of which each goes on with all."""

    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


class Network(nn.Module):
    """Says of each step whether its label is 1; has one of the halves, or both."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__()
        self.numbers = numbers
        self.halves = nn.ModuleDict({str(number): Half(number) for number in numbers})

    def gather(self, own: Sequence[Tensor]) -> Tensor:
        return Gather.apply(*own) if len(own) < RANKS else torch.cat(list(own), 1)

    def add(self, own: Sequence[Tensor]) -> Tensor:
        return Add.apply(*own) if len(own) < RANKS else sum(own)

    def loss(self, batch: segue.Batch, saves: bool) -> Tensor:
        """Of one batch; the states are saved by one of those who see it."""
        halves, steps = list(self.halves.values()), []
        h = torch.from_dlpack(batch.state("h"))
        before = torch.from_dlpack(batch.state("c")).chunk(RANKS, 1)
        cs = [before[number] for number in self.numbers]
        for x in torch.from_dlpack(batch.sequences["token"]).unsqueeze(2).unbind(1):
            hs, cs = zip(*(half(x, h, c) for half, c in zip(halves, cs)), strict=True)
            h = self.gather(hs)
            steps.append(hs)
        after = self.gather([c.detach() for c in cs])  # by all ranks, whoever saves it
        if saves:
            # Also of rows with steps that do not count: those are the last of their sequence.
            batch.save_state("h", h.detach())
            batch.save_state("c", after)
        said = self.add([half.out(torch.stack(of, 1)) for half, of in zip(halves, zip(*steps))])
        mask = torch.from_dlpack(batch.mask)
        label = torch.from_dlpack(batch.sequences["label"])[mask].float()
        return cross_entropy(said.squeeze(2)[mask], label)


# -- a rank, and one process that does the whole ---------------------------------------------------


def train(
    place: Path, epochs: int, numbers: list[int], **replicas: int
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of all batches, and the weights at the end."""
    torch.set_num_threads(1)
    model = Network(numbers)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    state, losses = segue.State("float32", CELLS), []
    with segue.open(place / "store") as client:
        stream = client.stream(
            "train",
            segue.TFRecord(place / "data" / "*.tfrecord", allow_surplus=True),
            {"token": segue.Feature("float32"), "label": segue.Feature("int64")},
            states={"h": state, "c": state},
            num_unroll=UNROLL,
            batch_size=ROWS,
            shuffle=True,
            epochs=epochs,
        )
        # `rank` and `world_size` count those that see different batches: here there is one.
        group = "ranks" if replicas else "whole"
        with stream.loader(group=group, rank=0, world_size=1, **replicas) as loader:
            for batch in loader:
                optimizer.zero_grad()
                loss = model.loss(batch, saves=loader.replica == 0)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            print(f"{group}: waited for data {loader.waited:.2f} s", flush=True)
    return losses, model.state_dict()


def rank(place: Path, epochs: int) -> None:
    """What one rank does; torchrun has said in the environment which."""
    dist.init_process_group("gloo", timeout=GLOO_TIMEOUT)
    own = dist.get_rank()
    trained = train(place, epochs, [own], replica=own, replicas=dist.get_world_size())
    torch.save(trained, place / f"rank-{own}.pt")
    dist.destroy_process_group()


def train_on_ranks(place: Path, epochs: int) -> list[tuple[list[float], dict[str, Tensor]]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    torchrun = ["torch.distributed.run", f"--nproc-per-node={RANKS}", "--master-addr=127.0.0.1",
                f"--master-port={port}"]  # fmt: skip
    words = [__file__, "--epochs", str(epochs), "--place", str(place)]
    subprocess.run([sys.executable, "-m", *torchrun, *words], check=True, timeout=PATIENCE)
    return [torch.load(place / f"rank-{number}.pt") for number in range(RANKS)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)  # of a rank
    options = parser.parse_args()
    if options.place:
        rank(options.place, options.epochs)
        return 0
    with tempfile.TemporaryDirectory(prefix="segue-tensor-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        toy.write(place / "data", "toy", 1, options.sequences, 10, 60, seed=1)
        ranks = train_on_ranks(place, options.epochs)
        losses, weights = train(place, options.epochs, list(range(RANKS)))
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    print(f"{len(losses)} batches, loss {first:.3f} in the first tenth, {last:.3f} in the last")
    for number, (same, half) in enumerate(ranks):
        counts = [sum(value.numel() for value in some.values()) for some in (half, weights)]
        print(f"rank {number}: {counts[0]} of {counts[1]} weights")
        if same != losses or not all(torch.equal(half[name], weights[name]) for name in half):
            print("these, or the losses, are not those of one process", file=sys.stderr)
            return 1
    print("losses and weights are those of one process that has both halves, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())

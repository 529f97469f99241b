#!/usr/bin/env python3
"""Two ranks that share one model, and see the same batches: tensor parallel, by replicas.

    tensor.py [--sequences N] [--epochs N] [--kill RANK]

Each rank has half of an LSTM's cells, and so half of its weights. A step of either half reads what
all cells said at the step before, so the ranks exchange it at each step (torch.distributed, gloo).
For that they need the same rows at the same time, with the same states: both have a loader of the
same lane, as replicas 0 and 1. Rank 0 saves the states, of all cells; rank 1 only reads. Every ten
batches both write a checkpoint (torch.distributed.checkpoint), which has the loader in it. With
--kill one of them is killed in the midst: torchrun starts both anew, and they go on from the last
checkpoint. At the end losses and weights are those of one process that has both halves, bit for
bit: every product has the same shape there, and every sum that crosses the ranks has two addends.
Needs PyTorch.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import segue
import toy

RANKS, CELLS, UNROLL, ROWS = 2, 16, 10, 8
HALF = CELLS // RANKS
EVERY = 10  # batches between two checkpoints
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


def open_stream(client: segue.Client, place: Path, epochs: int) -> segue.Stream:
    state = segue.State("float32", CELLS)
    return client.stream(
        "train",
        segue.TFRecord(place / "data" / "*.tfrecord", allow_surplus=True),
        {"token": segue.Feature("float32"), "label": segue.Feature("int64")},
        states={"h": state, "c": state},
        num_unroll=UNROLL,
        batch_size=ROWS,
        shuffle=True,
        epochs=epochs,
    )


class Training:
    """A model and its optimizer, the loader that they are trained from, losses of all batches."""

    def __init__(self, numbers: list[int], loader: segue.Loader) -> None:
        torch.set_num_threads(1)
        self.model = Network(numbers)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.01)
        self.loader = loader
        self.part = f"part-{loader.replica}"
        self.losses: list[float] = []

    def step(self, batch: segue.Batch) -> None:
        self.optimizer.zero_grad()
        loss = self.model.loss(batch, saves=self.loader.replica == 0)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def parts(self) -> dict[str, Any]:
        """Of a checkpoint: each rank has its half of the model; loader and losses all have alike."""
        weights, moments = get_state_dict(self.model, self.optimizer)
        half = {"model": weights, "optimizer": moments}
        return {self.part: half, "loader": self.loader, "losses": self.losses}

    def load(self, checkpoint: Path) -> None:
        state = self.parts()
        dcp.load(state, checkpoint_id=checkpoint)
        half = state[self.part]
        set_state_dict(self.model, self.optimizer, model_state_dict=half["model"],
                       optim_state_dict=half["optimizer"])  # fmt: skip
        self.losses = state["losses"]

    def ended(self) -> tuple[list[float], dict[str, Tensor]]:
        return self.losses, self.model.state_dict()


def train_alone(place: Path, epochs: int) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of all batches, and the weights at the end, of one process that has both halves."""
    with segue.open(place / "store") as client:
        stream = open_stream(client, place, epochs)
        with stream.loader(group="whole", rank=0, world_size=1) as loader:
            training = Training(list(range(RANKS)), loader)
            for batch in loader:
                training.step(batch)
            return training.ended()


def rank(place: Path, epochs: int, kill: int) -> None:
    """What one rank does; torchrun has said in the environment which."""
    own, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # Ranks that torchrun starts anew find the addresses of those before in its store: gloo is to
    # write and read them under the number of the attempt.
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group(
        "gloo", store=store, rank=own, world_size=world, timeout=GLOO_TIMEOUT
    )
    whole = [path for path in place.glob("checkpoints/*") if (path / ".metadata").exists()]
    with segue.open(place / "store") as client:
        stream = open_stream(client, place, epochs)
        # `rank` and `world_size` count those that see different batches: here there is one.
        places = {"rank": 0, "world_size": 1, "replica": own, "replicas": world}
        start = None if whole else "fresh"
        with stream.loader(start=start, group="ranks", **places) as loader:
            training = Training([own], loader)
            if whole:
                training.load(max(whole))
            # In one piece: torchrun starts ranks with -u, where print() writes the line's end by itself.
            sys.stdout.write(f"rank {own}: from batch {len(training.losses)}\n")
            for batch in loader:
                training.step(batch)
                done = len(training.losses)
                if done % EVERY == 0:
                    dcp.save(training.parts(), checkpoint_id=place / "checkpoints" / f"{done:08}")
                if done == 2 * EVERY + EVERY // 2 and own == kill and not whole:
                    os.kill(os.getpid(), signal.SIGKILL)
            sys.stdout.write(f"rank {own}: waited for data {loader.waited:.2f} s\n")
    torch.save(training.ended(), place / f"rank-{own}.pt")
    dist.destroy_process_group()


def train_on_ranks(
    place: Path, epochs: int, kill: int
) -> list[tuple[list[float], dict[str, Tensor]]]:
    torchrun = ["torch.distributed.run", f"--nproc-per-node={RANKS}", "--max-restarts=1",
                "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]  # fmt: skip
    words = [__file__, "--epochs", str(epochs), "--kill", str(kill), "--place", str(place)]
    subprocess.run([sys.executable, "-m", *torchrun, *words], check=True, timeout=PATIENCE)
    return [torch.load(place / f"rank-{number}.pt") for number in range(RANKS)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--kill", type=int, default=-1, metavar="RANK", help="0 or 1, once")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)  # of a rank
    options = parser.parse_args()
    if options.place:
        rank(options.place, options.epochs, options.kill)
        return 0
    with tempfile.TemporaryDirectory(prefix="segue-tensor-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        toy.write(place / "data", "toy", 1, options.sequences, 10, 60, seed=1)
        ranks = train_on_ranks(place, options.epochs, options.kill)
        losses, weights = train_alone(place, options.epochs)
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

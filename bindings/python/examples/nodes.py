#!/usr/bin/env python3
"""Two nodes under torchrun, a server each; one is killed for good, the other takes its lanes.

    nodes.py [--sequences N] [--epochs N]

Both "nodes" are this machine: what makes them two is that each has a torchrun, a store and a server
of its own. They share the data, and a directory of checkpoints (torch.distributed.checkpoint), in
which each rank saves the tokens of its lanes. Rank r of W has the lanes l % W == r, wherever it
runs, so two ranks go on with the lanes of four. Gradients are added in lane order: the weights at
the end are those of one process that nobody killed, bit for bit. Needs PyTorch.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
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
from segue.torch import Batch, static_state_saving_rnn, wrap

LANES, CELLS, UNROLL, ROWS, EVERY = 4, 8, 10, 2, 10
PATIENCE = 300.0  # seconds
# Gloo does not always notice at once that a rank is gone: what waits for it then fails after this.
GLOO_TIMEOUT = timedelta(seconds=30)


# -- a rank ----------------------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cell, self.out = nn.LSTMCell(1, CELLS), nn.Linear(CELLS, 1)

    def loss(self, batch: Batch) -> Tensor:
        """Of one batch; saves its states."""
        x = batch["token"].unsqueeze(2).unbind(1)
        steps, _ = static_state_saving_rnn(self.cell, x, batch, ("h", "c"), batch.length)
        said = self.out(torch.stack(steps, 1)).squeeze(2)[batch.mask]
        return cross_entropy(said, batch["label"][batch.mask].float(), reduction="sum")


def open_stream(client: segue.Client, data: Path, epochs: int) -> segue.Stream:
    state = segue.State("float32", CELLS)
    return client.stream(
        "train",
        segue.TFRecord(data / "*.tfrecord", allow_surplus=True),
        {"token": segue.Feature("float32"), "label": segue.Feature("int64")},
        states={"h": state, "c": state},
        num_unroll=UNROLL,
        batch_size=ROWS,
        lanes=LANES,
        shuffle=True,
        epochs=epochs,
        tail="pad",  # all lanes have the same number of rounds
    )


def gradients(model: Network, batches: list[Batch]) -> dict[int, Tensor]:
    """Of each lane's batch, all in one tensor."""
    flat = {}
    for batch in batches:
        model.zero_grad()
        model.loss(batch).backward()
        flat[batch.lane] = torch.cat([p.grad.flatten() for p in model.parameters()])
    return flat


def train(place: Path, epochs: int) -> None:
    """What one rank does; torchrun has said in the environment which."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=GLOO_TIMEOUT)
    rank, world = dist.get_rank(), dist.get_world_size()
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    client = segue.open(place / f"node-{os.environ.get('GROUP_RANK', '0')}")
    stream = open_stream(client, place / "data", epochs)
    whole = [path for path in place.glob("checkpoints/*") if (path / ".metadata").exists()]
    loader = wrap(stream.loader(start=None if whole else "fresh", timeout=PATIENCE))

    def parts() -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer)
        return {"model": weights, "optimizer": moments, "loader": loader}

    if whole:
        state = parts()
        dcp.load(state, checkpoint_id=max(whole))
        set_state_dict(model, optimizer, model_state_dict=state["model"],
                       optim_state_dict=state["optimizer"])  # fmt: skip
    begun = max(whole).name if whole else "0"
    # In one piece: torchrun starts ranks with -u, where print() writes the end of the line by itself.
    sys.stdout.write(f"rank {rank} of {world}: lanes {loader.lanes}, from round {int(begun)}\n")
    for batches in loader.rounds():
        of_ranks: list[Any] = [None] * world
        dist.all_gather_object(of_ranks, gradients(model, batches))
        of_lanes = {lane: flat for part in of_ranks for lane, flat in part.items()}
        total = sum(of_lanes[lane] for lane in sorted(of_lanes))
        nn.utils.vector_to_parameters(total, [p.grad for p in model.parameters()])
        optimizer.step()
        done = batches[0].step + 1
        if done % EVERY == 0:
            dcp.save(parts(), checkpoint_id=place / "checkpoints" / f"{done:08}")
    waited: list[Any] = [None] * world
    dist.all_gather_object(waited, loader.waited)
    if rank == 0:
        weights = {name: value.tolist() for name, value in model.state_dict().items()}
        torch.save(weights, place / "weights.pt")
        print(f"trained {done} rounds", flush=True)
        print(f"waited for data: {max(waited):.2f} s, the worst rank", flush=True)
    dist.destroy_process_group()


# -- who starts and kills them ---------------------------------------------------------------------


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def begin(place: Path, epochs: int, *torchrun: str) -> subprocess.Popen[bytes]:
    """A node's torchrun; without arguments one rank alone."""
    words = ["-m", "torch.distributed.run", *torchrun] if torchrun else []
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    with (place / "log").open("ab") as log:  # of what torchrun says of those that were killed
        return subprocess.Popen(
            [sys.executable, *words, __file__, "--epochs", str(epochs), "--place", str(place)],
            env=os.environ | ({} if torchrun else alone),
            stderr=log,
        )


def nodes(place: Path, epochs: int, count: int) -> list[subprocess.Popen[bytes]]:
    common = (f"--nnodes={count}", "--nproc-per-node=2", "--master-addr=127.0.0.1",
              f"--master-port={free_port()}")  # fmt: skip
    return [begin(place, epochs, *common, f"--node-rank={rank}") for rank in range(count)]


def below(pid: int) -> list[int]:
    """A process and all that it has started, which still are its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in below(int(child)))]


def kill_node(node: subprocess.Popen[bytes], store: Path) -> None:
    """Nothing of it is left: torchrun, its ranks, their server."""
    server = int((store / "server.pid").read_text().split()[0])
    for pid in [*below(node.pid), server]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def lose_a_node(place: Path, epochs: int) -> None:
    """Trains on two nodes until two checkpoints are there, then on what is left of them."""
    first, second = nodes(place, epochs, 2)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(place.glob("checkpoints/*/.metadata"))) < 2:
            if second.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the nodes have not come to their second checkpoint")
            time.sleep(0.001)
    finally:
        kill_node(second, place / "node-1")
    print("node 1 is gone for good: its store, its server, two ranks", flush=True)
    # The ranks of the other one wait for it in vain: gloo tells them, and torchrun ends.
    if first.wait(PATIENCE) == 0:
        raise RuntimeError("the training has ended before a node was killed")
    (left,) = nodes(place, epochs, 1)
    if left.wait(PATIENCE):
        raise RuntimeError("the node that is left has not gone on")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)  # of a rank
    options = parser.parse_args()
    if options.place:
        train(options.place, options.epochs)
        return 0
    with tempfile.TemporaryDirectory(prefix="segue-nodes-", ignore_cleanup_errors=True) as scratch:
        weights = []
        for name in ("whole", "killed"):
            place = Path(scratch) / name
            toy.write(place / "data", "toy", 2, options.sequences, 10, 60, seed=1)
            try:
                if name == "killed":
                    lose_a_node(place, options.epochs)
                elif begin(place, options.epochs).wait(PATIENCE):
                    raise RuntimeError("one rank alone has not trained to the end")
            except RuntimeError:
                print((place / "log").read_text(), file=sys.stderr)
                raise
            weights.append(torch.load(place / "weights.pt", weights_only=True))
    if weights[0] != weights[1]:
        print("the weights are not those of the training that nobody killed", file=sys.stderr)
        return 1
    print("the weights are those of the training that nobody killed, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())

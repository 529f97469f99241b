#!/usr/bin/env python3
"""A teacher and a student: two groups of one stream, in one process, batch by batch side by side.

    teacher.py [--sequences N] [--epochs N]

The teacher learns the labels; the student learns what the teacher says (distillation), and never
sees a label. Each carries states of its own through the same batches, which are read and filled
once. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

import segue
import toy
from segue.torch import Batch, static_state_saving_rnn, wrap

CELLS, UNROLL, ROWS = 16, 20, 16


class Network(nn.Module):
    """Says of each step whether its label is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(1, CELLS), nn.Linear(CELLS, 1)
        memory = torch.empty(CELLS).uniform_(1, 50).log()  # cells that remember 1 to 50 steps
        with torch.no_grad():
            self.cell.weight_ih.normal_()
            self.cell.bias_hh[: 2 * CELLS] = torch.cat([-memory, memory])
        self.optimizer = torch.optim.Adam(self.parameters(), 0.01)

    def forward(self, batch: Batch) -> Tensor:
        """Of the valid steps, one behind the other. Saves the states of its group."""
        x = batch["token"].unsqueeze(2).unbind(1)
        steps, _ = static_state_saving_rnn(self.cell, x, batch, ("h", "c"), batch.length)
        return self.out(torch.stack(steps, 1)).squeeze(2)[batch.mask]

    def learn(self, said: Tensor, wanted: Tensor) -> float:
        loss = cross_entropy(said, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def train(
    client: segue.Client, stream: segue.Stream
) -> tuple[list[float], list[float], list[float]]:
    """Of each batch: loss of the teacher, of the student, and what share the student had right."""
    torch.manual_seed(1)
    teacher, student = Network(), Network()
    student.load_state_dict(teacher.state_dict())  # they begin alike
    losses: tuple[list[float], list[float], list[float]] = [], [], []
    with stream.loader(group="teacher") as first, stream.loader(group="student") as second:
        for loader in first, second:
            loader.state_dict()  # both have their lane before either goes on: they share a feed
        for seen, same in zip(wrap(first), wrap(second), strict=True):
            assert (seen.step, seen.key) == (same.step, same.key)
            label = seen["label"][seen.mask]
            taught = teacher(seen)
            losses[0].append(teacher.learn(taught, label.float()))
            said = student(same)
            losses[1].append(student.learn(said, taught.detach().sigmoid()))
            losses[2].append(((said > 0) == (label > 0)).float().mean().item())
        (status,) = client.status()["streams"]
        print(f"{len(losses[0])} batches for two groups, feeds: {status['feeds']}")
        print(f"waited for data: {first.waited + second.waited:.2f} s")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="segue-teacher-") as scratch:
        data = Path(scratch) / "data"
        toy.write(data, "toy", files=1, count=options.sequences, shortest=10, longest=100, seed=1)
        with segue.open(Path(scratch) / "store") as client:
            state = segue.State("float32", CELLS)
            stream = client.stream(
                "train",
                segue.TFRecord(data / "*.tfrecord", allow_surplus=True),
                {"token": segue.Feature("float32"), "label": segue.Feature("int64")},
                states={"h": state, "c": state},
                num_unroll=UNROLL,
                batch_size=ROWS,
                shuffle=True,
                epochs=options.epochs,
            )
            taught, learned, right = train(client, stream)
    tenth = max(1, len(right) // 10)
    for when, part in (("first", slice(tenth)), ("last", slice(-tenth, None))):
        mean = [sum(of[part]) / tenth for of in (taught, learned, right)]
        print(f"{when} tenth: teacher {mean[0]:.3f} by the labels, student {mean[1]:.3f} by the "
              f"teacher; {100 * mean[2]:.0f} % of the student's labels are right")  # fmt: skip


if __name__ == "__main__":
    main()

"""A training worker: takes its lanes' batches by rounds, and trains in step with its siblings.

Started by `coordinator.py` with one end of a channel. What it is told there:

- ``sum``: all lanes' gradients of the round that it has sent its own for. It adds them, changes its
  weights, and goes on to the next round; ``checkpoint`` asks it for its half of a pair first, and
  ``tear`` has it commit lane 0 alone and then wait for its end (a test of just that moment).
- ``back``: a sibling has died. It takes weights and position from the last pair and goes on there.
- ``bye``: training is over.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import checkpoint
import segue
from gradients import Channel, Header, add_in_lane_order
from lstm import Adam, Classifier, Segment


def open_stream(
    client: segue.Client, name: str, config: Header, paths: str, **options: Any
) -> segue.Stream:
    """The stream `name` over the toy data under `paths`."""
    cells = [config["hidden"]]
    return client.stream(
        name,
        source=segue.TFRecord(paths),
        sequences={"token": segue.Feature("float32"), "label": segue.Feature("int64")},
        context={"steps": segue.Feature("int64")},
        states={"h": segue.State("float32", cells), "c": segue.State("float32", cells)},
        num_unroll=config["num_unroll"],
        batch_size=config["batch_size"],
        **options,
    )


def make_model(config: Header) -> Classifier:
    """The classifier with its initial weights."""
    return Classifier(2, config["hidden"], config["memory"], config["seed"])


def run_batch(
    model: Classifier, batch: segue.Batch, config: Header, backward: bool = True
) -> Segment:
    """Runs the model over a batch of segments and saves the states that it leaves."""
    token = batch.sequences["token"]
    # The network is told how long the whole sequence is: the flip is at a quarter of that.
    steps = np.maximum(batch.context["steps"], 1).astype(np.float32)
    size = np.log(steps / np.float32(config["typical_steps"]))
    x = np.stack([token, np.broadcast_to(size[:, None], token.shape)], axis=-1)
    part = model.gradient(
        x, batch.sequences["label"], batch.mask, batch.state("h"), batch.state("c"), backward
    )
    batch.save_state("h", part.h)
    batch.save_state("c", part.c)
    return part


class Worker:
    """One process's share of the training.

    Parameters
    ----------
    channel : to the coordinator.
    stream : the open training stream.
    config : as the coordinator sent it.
    """

    def __init__(self, channel: Channel, stream: segue.Stream, config: Header) -> None:
        self.channel, self.stream, self.config = channel, stream, config
        self.loader = self.fresh_loader()
        self.life = config["life"]

    def fresh_loader(self) -> segue.Loader:
        """From the beginning, unless it is given a pair's tokens before the first batch."""
        return self.stream.loader(lanes=self.config["worker_lanes"], start="fresh")

    def run(self) -> None:
        """Trains until told to stop."""
        pair = self.config["checkpoint"]
        while True:
            self.go_back(pair)
            reply = self.train()
            if reply["kind"] == "bye":
                return
            self.life, pair = reply["life"], reply["checkpoint"]

    def go_back(self, pair: str | None) -> None:
        """Takes weights and position from the last pair; without one, both from the beginning."""
        self.model = make_model(self.config)
        self.adam = Adam(self.model.flat, self.config["rate"], self.config["clip"])
        if pair is None:
            self.loader.close()
            self.loader = self.fresh_loader()
            self.round = 0
        else:
            saved = checkpoint.load(Path(pair))
            self.model.flat[...] = saved.arrays["weights"]
            self.adam.mean[...] = saved.arrays["mean"]
            self.adam.square[...] = saved.arrays["square"]
            self.round = self.adam.count = saved.rounds
            self.loader.load_state_dict(saved.tokens)
        self.clock, self.waited = time.monotonic(), self.loader.waited

    def train(self) -> Header:
        """Rounds from where it stands to the end; returns what it was told instead of going on."""
        for batches in self.loader.rounds():
            if self.round == self.config["rounds"]:
                break
            self.send_gradients(batches)
            reply, blob = self.channel.receive()
            if reply["kind"] != "sum":
                for batch in batches:
                    batch.release()  # it comes again
                return reply
            self.update(add_in_lane_order(blob, self.config["lanes"]), reply["steps"])
            if reply["tear"]:
                return self.tear(batches)
            if reply["checkpoint"]:
                self.send_pair()
        weights = self.model.flat.tobytes()
        digest = hashlib.sha256(weights).hexdigest()
        end = {"kind": "end", "life": self.life, "round": self.round, "sha256": digest}
        self.channel.send(end, weights)
        return self.channel.receive()[0]

    def send_gradients(self, batches: list[segue.Batch]) -> None:
        """Computes and sends the gradient of each of this worker's lanes, and what they trained."""
        lanes, gradients = [], []
        for batch in batches:
            part = run_batch(self.model, batch, self.config)
            gradients.append(part.gradient.tobytes())
            trained = [
                (int(epoch), key.decode())
                for epoch, key in zip(batch.epoch, batch.key, strict=True)
                if key
            ]
            lanes.append({
                "lane": batch.lane,
                "step": batch.step,
                "loss": part.loss,
                "correct": part.correct,
                "steps": part.steps,
                "cells": batch.mask.size,
                "trained": trained,
            })  # fmt: skip
        now, waited = time.monotonic(), self.loader.waited
        header = {
            "kind": "gradients",
            "life": self.life,
            "round": self.round,
            "lanes": lanes,
            "seconds": now - self.clock,
            "waited": waited - self.waited,
        }
        self.clock, self.waited = now, waited
        self.channel.send(header, b"".join(gradients))

    def update(self, gradient: np.ndarray, steps: int) -> None:
        """One step of the optimizer, with a rate that falls linearly to a twentieth."""
        left = 1 - self.round / self.config["rounds_expected"]
        self.adam.rate = self.config["rate"] * max(0.05, left)
        self.adam.step(gradient * np.float32(1 / steps))
        self.round += 1

    def send_pair(self) -> None:
        """This worker's half of a pair: its lanes' tokens; of the first worker, the weights too."""
        tokens = self.loader.state_dict()  # commits the round
        parts = {f"token/{name}": token for name, token in tokens.items()}
        if self.config["rank"] == 0:
            parts |= {
                "array/weights": self.model.flat.tobytes(),
                "array/mean": self.adam.mean.tobytes(),
                "array/square": self.adam.square.tobytes(),
            }
        header = {
            "kind": "pair",
            "life": self.life,
            "round": self.round,
            "parts": [(name, len(part)) for name, part in parts.items()],
        }
        self.channel.send(header, b"".join(parts.values()))

    def tear(self, batches: list[segue.Batch]) -> Header:
        """Commits lane 0 of the round and no other, and waits to be killed."""
        for batch in batches:
            if batch.lane == 0:
                batch.commit()
        self.channel.send({"kind": "torn", "life": self.life, "round": self.round})
        return self.channel.receive()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fd", type=int, required=True, help="the worker's end of the channel")
    channel = Channel.from_fd(parser.parse_args().fd)
    config, _ = channel.receive()
    try:
        with segue.open(config["store"]) as client:
            stream = open_stream(
                client,
                "train",
                config,
                config["paths"],
                lanes=config["lanes"],
                shuffle=True,
                seed=config["seed"],
                epochs=config["epochs"],
                tail="pad",
            )
            Worker(channel, stream, config).run()
    except (EOFError, BrokenPipeError):
        print("the coordinator is gone", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

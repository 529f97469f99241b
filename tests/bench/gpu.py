"""Batches on a device: rate of their copies beside plain pinned ones, and steps beside states kept in a dict.

    python tests/bench/gpu.py [--device cuda] [--batches 200]

Without a GPU `--device cpu` runs the same loops on the CPU, where the figures say what a copy costs.
Ratios are of two loops of the same run: above 1 segue takes longer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import segue.torch

SIZES = {"cpu": (16, 32, 64, 64, 2)}  # others take:
ROWS, STEPS, WIDTH, CELLS, LAYERS = 64, 128, 256, 512, 2


def write(path: Path) -> None:
    rng = np.random.default_rng(0)
    with segue.FileWriter(path, {"x": segue.Feature("float32", WIDTH)}) as writer:
        for _ in range(ROWS):
            writer.write({"x": rng.standard_normal((4 * STEPS, WIDTH), np.float32)})


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def seconds(device: torch.device, loop: Callable[[], None]) -> float:
    loop()  # warms up
    wait(device)
    begun = time.perf_counter()
    loop()
    wait(device)
    return time.perf_counter() - begun


def beside(what: str, unit: str, own: float, other: float, amount: float) -> None:
    print(f"{what}: {amount / own:.2f} {unit} with segue, {amount / other:.2f} {unit} without; "
          f"time {own / other:.2f} x")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, default=200)
    options = parser.parse_args()
    device, count = torch.device(options.device), options.batches
    if device.type == "cpu":
        torch.set_num_threads(1)
    global ROWS, STEPS, WIDTH, CELLS, LAYERS
    ROWS, STEPS, WIDTH, CELLS, LAYERS = SIZES.get(device.type, (ROWS, STEPS, WIDTH, CELLS, LAYERS))
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else device, torch.__version__)
    lstm = torch.nn.LSTM(WIDTH, CELLS, LAYERS, batch_first=True, device=device)
    zeros = torch.zeros(LAYERS, 1, CELLS)
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "data.segue")
        with segue.open(Path(scratch) / "store") as client:

            def batches(name: str, states: Any) -> Iterator[Any]:
                stream = client.stream(
                    name, segue.Files(Path(scratch) / "data.segue"),
                    {"x": segue.Feature("float32", WIDTH)}, states=states,
                    num_unroll=STEPS, batch_size=ROWS, epochs=None,
                )  # fmt: skip
                return iter(segue.torch.wrap(stream.loader(start="fresh"), device=device))

            copied, trained = batches("copied", {}), batches(
                "trained", segue.states_like((zeros, zeros), row_axis=1)
            )  # fmt: skip
            host = torch.randn(ROWS, STEPS, WIDTH, pin_memory=device.type == "cuda")
            carried = {"states": (zeros.to(device).expand(-1, ROWS, -1).contiguous(),) * 2}

            def copies() -> None:
                for _ in range(count):
                    next(copied)

            def plain_copies() -> None:
                for _ in range(count):
                    host.to(device, non_blocking=True, copy=True)

            def step(x: Any, states: Any) -> Any:
                output, states = lstm(x, states)
                output.square().mean().backward()
                lstm.zero_grad(set_to_none=True)
                return tuple(part.detach() for part in states)

            def steps() -> None:
                for _ in range(count):
                    batch = next(trained)
                    batch.states = step(batch["x"], batch.states)

            def plain_steps() -> None:
                for _ in range(count):
                    x = host.to(device, non_blocking=True, copy=True)
                    carried["states"] = step(x, carried["states"])

            size = count * host.numel() * host.element_size() / 1e9
            beside("copies to the device", "GB/s", seconds(device, copies), seconds(device, plain_copies), size)
            beside("training steps", "steps/s", seconds(device, steps), seconds(device, plain_steps), count)


if __name__ == "__main__":
    main()

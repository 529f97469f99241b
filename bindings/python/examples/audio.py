#!/usr/bin/env python3
"""A compressor learnt from sound: a GRU with a state that is carried over segments of 256 samples.

    audio.py [--files N] [--epochs N] [--svg FILE]

Writes pairs of .wav files, dry and through a compressor that turns loud passages down and takes a
third of a second to let go of them; learns the one from the other; and says which part of the
signal is wrong (error to signal, in dB) in files that it was not trained on, with carried states
and with zeros in each segment. --svg draws a passage. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import segue
from segue.torch import wrap

RATE, SECONDS, UNROLL, ROWS, CELLS = 8000, 3, 256, 8, 16
THRESHOLD, RATIO, RELEASE = 0.1, 6.0, 0.33  # of full scale; seconds
SCALE = 32768.0


def notes(rng: np.random.Generator) -> np.ndarray:
    """Decaying tones, loud and soft."""
    time = np.arange(SECONDS * RATE) / RATE
    sound = np.zeros(len(time))
    for begin in np.sort(rng.uniform(0, SECONDS, 10)):
        age = np.clip(time - begin, 0, None)
        tone = np.sin(2 * np.pi * rng.uniform(100, 900) * age) * np.exp(-age / rng.uniform(0.03, 0.4))
        sound += (time >= begin) * 10 ** rng.uniform(-1.5, -0.2) * tone
    return sound / max(1.0, np.abs(sound).max())


def compressed(sound: np.ndarray) -> np.ndarray:
    keeps, level, gains = math.exp(-1 / (RELEASE * RATE)), 0.0, np.ones(len(sound))
    for i, loud in enumerate(np.abs(sound)):
        level = max(loud, level * keeps)
        if level > THRESHOLD:
            gains[i] = (THRESHOLD / level) ** (1 - 1 / RATIO)
    return sound * gains


def write(path: Path, sound: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
        file.writeframes(np.rint(sound * (SCALE - 1)).astype("<i2").tobytes())


def open_stream(client: segue.Client, place: Path, name: str, **options: Any) -> segue.Stream:
    samples = segue.Feature("float32")
    zeros = torch.zeros(1, 1, CELLS)
    return client.stream(
        name,
        segue.Arrays({"dry": f"{place}/{name}/dry/*.wav", "wet": f"{place}/{name}/wet/*.wav"}),
        {"dry": samples, "wet": samples},
        states={"gru": segue.states_like(zeros, row_axis=1)},
        num_unroll=UNROLL,
        batch_size=ROWS,
        **options,
    )


class Network(nn.Module):
    """The gain of each sample, by a GRU that hears how loud it is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.out = nn.GRU(1, CELLS, batch_first=True), nn.Linear(CELLS, 1)

    def forward(self, dry: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        loud = torch.log(dry.abs() + 1e-3)[..., None]
        output, state = self.gru(loud, state)
        return dry * torch.sigmoid(self.out(output)).squeeze(2), state


def train(client: segue.Client, place: Path, model: Network, epochs: int) -> float:
    """Seconds that it has waited for data."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with wrap(open_stream(client, place, "train", shuffle=True, epochs=epochs).loader(start="fresh")) as loader:
        for batch in loader:
            dry, wet = batch["dry"] / SCALE, batch["wet"] / SCALE
            said, state = model(dry, batch.states["gru"])
            loss = batch.mean((said - wet).square()) / (batch.mean(wet.square()) + 1e-4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            batch.states = {"gru": state}
        waited: float = loader.waited
    return waited


def hear(client: segue.Client, place: Path, model: Network, carried: bool) -> tuple[float, list[np.ndarray]]:
    """Error to signal in dB, and the first file: dry, wet, and what the model makes of it."""
    wrong = power = 0.0
    first: list[list[Tensor]] = [[], [], []]
    with torch.no_grad(), wrap(open_stream(client, place, "test", persist=False).loader()) as loader:
        for batch in loader:
            dry, wet, before = batch["dry"] / SCALE, batch["wet"] / SCALE, batch.states["gru"]
            said, state = model(dry, before if carried else torch.zeros_like(before))
            batch.states = {"gru": state}
            wrong += float((said - wet)[batch.mask].square().sum())
            power += float(wet[batch.mask].square().sum())
            if batch.insertion_index[0] == 0:
                for part, sound in zip(first, (dry, wet, said), strict=True):
                    part.append(sound[0])
    return 10 * math.log10(wrong / power), [torch.cat(part).numpy() for part in first]


def picture(path: Path, sounds: list[np.ndarray], before: float, after: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "segue"
    figure, panel = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    window = RATE // 50
    for sound, name, color in zip(sounds, ("dry", "wet", "learnt"), ("0.75", "tab:blue", "tab:orange"), strict=True):
        peaks = np.abs(sound[: len(sound) // window * window]).reshape(-1, window).max(1)
        panel.plot(np.arange(len(peaks)) * window / RATE, peaks, color=color, label=name,
                   linewidth=1.4, linestyle="--" if name == "learnt" else "-")  # fmt: skip
    panel.set(title=f"A compressor, learnt: error to signal {after:.1f} dB with carried states, {before:.1f} dB without",
              xlabel="seconds", ylabel="peak in 20 ms", xlim=(0, SECONDS), ylim=(0, None))  # fmt: skip
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="segue-audio-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        for name, files in ("train", options.files), ("test", 4):
            for number in range(files):
                sound = notes(rng)
                write(place / name / "dry" / f"{number:03}.wav", sound)
                write(place / name / "wet" / f"{number:03}.wav", compressed(sound))
        model = Network()
        with segue.open(place / "store") as client:
            waited = train(client, place, model, options.epochs)
            (carried, sounds), (zeros, _) = (hear(client, place, model, way) for way in (True, False))
    print(f"error to signal: {carried:.1f} dB with carried states, {zeros:.1f} dB with zeros in each segment")
    print(f"waited for data {waited:.2f} s")
    if options.svg:
        picture(options.svg, sounds, zeros, carried)


if __name__ == "__main__":
    main()

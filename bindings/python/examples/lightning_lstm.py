"""README's task with Lightning: an LSTM, whose Trainer saves the loader's position and states with the weights.

    python bindings/python/examples/lightning_lstm.py

Kill it, begin it again: it goes on from the last checkpoint. It writes to runs/lightning and
lightning in the directory where it runs. curves.py draws its loss.
"""

import logging
import warnings
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import segue.torch

rng = np.random.default_rng(0)
zeros = torch.zeros(2, 1, 32)  # a state of one row: [layers, rows, size]
LAST = Path("lightning/last.ckpt")


def sequence(steps):  # the task: what was the value at the last mark?
    value, mark = rng.choice([-1.0, 1.0], steps), rng.random(steps) < 0.05
    last = np.maximum.accumulate(np.where(mark, np.arange(steps), 0))
    return {"x": np.stack([value, mark], 1).astype("float32"), "y": value[last].astype("float32")}


class Training(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(2, 32, num_layers=2, batch_first=True)
        self.out = torch.nn.Linear(32, 1)

    def train_dataloader(self):
        stream = segue.open("runs/lightning").stream(
            "train", segue.Examples([sequence(steps) for steps in rng.integers(50, 500, 300)]),
            {"x": segue.Feature("float32", 2), "y": segue.Feature("float32")},
            states=segue.states_like((zeros, zeros), row_axis=1), num_unroll=20, batch_size=32, epochs=4,
        )  # fmt: skip
        return segue.torch.wrap(stream.loader(start=None if LAST.exists() else "fresh"))

    def training_step(self, batch, batch_idx):
        output, states = self.lstm(batch["x"], batch.states)
        loss = batch.mean((self.out(output).squeeze(2) - batch["y"]).square())
        batch.states = states  # what each row's sequence goes on with
        if batch.step % 100 == 99:
            print(f"step {batch.step + 1} of {self.trainer.num_training_batches}: loss {loss.item():.3f}", flush=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.005)


torch.set_num_threads(1)
keep = ModelCheckpoint("lightning", every_n_train_steps=100, save_last=True)
trainer = lightning.Trainer(
    max_epochs=1, callbacks=[keep], accelerator="cpu", logger=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(Training(), ckpt_path=LAST if LAST.exists() else None)
trainer.save_checkpoint("lightning/end.ckpt")

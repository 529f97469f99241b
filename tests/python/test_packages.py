"""Loaders and tokens in the hands of torch.save, torch.distributed.checkpoint and Lightning."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import little
import segue

torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
import torch.distributed.checkpoint as dcp  # noqa: E402


@pytest.fixture
def whole(stream: segue.Stream, tmp_path: Path) -> list[str]:
    """Both lanes without a disturbance, elsewhere."""
    with segue.open(tmp_path / "elsewhere") as other:
        with little.open_stream(other, tmp_path).loader() as loader:
            return little.rest(loader)


def advance(loader: segue.Loader, count: int) -> None:
    for _, batch in zip(range(count), loader):
        little.work(batch)
        batch.commit()


def saved_and_loaded(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS = {
    "torch.save": saved_and_loaded,
    "pickle": lambda tokens: pickle.loads(pickle.dumps(tokens)),
    "deepcopy": copy.deepcopy,
    "OrderedDict": OrderedDict,
    "in a list": lambda tokens: [{key: token} for key, token in tokens.items()],
    "as a generator": lambda tokens: ({key: token} for key, token in tokens.items()),
    "with what others saved": lambda tokens: {**tokens, "lane/17": b"", "step": 3, "model": {}},
    "bytearray": lambda tokens: {key: bytearray(token) for key, token in tokens.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_tokens_go_through(stream: segue.Stream, whole: list[str], way: str) -> None:
    with stream.loader() as loader:
        advance(loader, 5)
        tokens = loader.state_dict()
        assert all(type(key) is str and type(token) is bytes for key, token in tokens.items())
        advance(loader, 3)
    with stream.loader() as loader:
        loader.load_state_dict(WAYS[way](tokens))
        assert loader.state_dict() == tokens
        assert little.rest(loader) == whole[5:]


# -- torch.distributed.checkpoint (with several ranks: test_guide.py) ------------------------------


def test_distributed_checkpoint_takes_the_loader_itself(
    stream: segue.Stream, whole: list[str], tmp_path: Path
) -> None:
    """Loading asks a loader that has not begun for its state dict first: for the keys."""
    path = tmp_path / "checkpoint"
    with stream.loader() as loader:
        advance(loader, 5)
        dcp.save({"loader": loader, "step": torch.tensor(5)}, checkpoint_id=path)
        advance(loader, 4)
    with stream.loader() as loader:  # the store holds a position, and start is not given
        state = {"loader": loader, "step": torch.tensor(0)}
        dcp.load(state, checkpoint_id=path)
        assert state["step"] == 5
        assert little.rest(loader) == whole[5:]
    for lane in range(2):  # and by lanes
        with stream.loader(lanes=[lane]) as loader:
            dcp.load({"loader": loader}, checkpoint_id=path)
            assert little.rest(loader) == [one for one in whole[5:] if one[0] == str(lane)]


def test_asking_for_a_state_dict_begins_nothing(
    stream: segue.Stream, whole: list[str]
) -> None:
    with stream.loader() as loader:
        advance(loader, 5)
    loader = stream.loader()
    tokens = loader.state_dict()
    assert loader.state_dict() == tokens
    with pytest.raises(segue.StartError, match="load_state_dict"):
        next(iter(loader))
    with stream.loader(start="fresh") as other:  # nobody holds the lanes
        advance(other, 2)
    with stream.loader() as other:
        other.load_state_dict(tokens)
        assert little.rest(other) == whole[5:]


# -- Lightning -------------------------------------------------------------------------------------


def lightning_module(step: Callable[[Any, segue.Batch], Any], with_iterator: bool) -> Any:
    """One weight, trained with the loss that `step` gives of the module and a batch."""
    lightning = pytest.importorskip(
        "lightning", reason="Lightning is not installed (scripts/setup --ci)"
    )

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    class WithBatch(Module):
        def training_step(self, batch: segue.Batch, batch_idx: int) -> Any:
            return step(self, batch)

    class WithIterator(Module):
        def training_step(self, dataloader_iter: Any) -> Any:
            return step(self, next(dataloader_iter)[0])

    return (WithIterator if with_iterator else WithBatch)()


def with_states(trace: list[str]) -> Callable[[Any, segue.Batch], Any]:
    def step(module: Any, batch: segue.Batch) -> Any:
        trace.append(little.seen(batch))
        x = torch.from_dlpack(batch.sequences["x"])
        loss = (module.weight * x.sum() - 1).square().mean()
        little.work(batch)
        return loss

    return step


def trainer(directory: Path, steps: int, **options: Any) -> Any:
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    keep = ModelCheckpoint(directory, "{step}", save_top_k=-1, every_n_train_steps=5)
    return lightning.Trainer(
        max_steps=steps, callbacks=[keep], accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "with_iterator, options",
    [
        (True, {}),
        (True, {"limit_train_batches": 4}),  # Lightning's epochs are shorter than the stream's
        (False, {"limit_train_batches": 4}),
        (False, {"limit_train_batches": 100}),
        (False, {"limit_train_batches": 100, "accumulate_grad_batches": 2}),
    ],
)
def test_lightning_resumes(
    client: segue.Client, tmp_path: Path, with_iterator: bool, options: dict[str, Any]
) -> None:
    """Ten steps, a checkpoint after five, three steps that are lost; and on from the checkpoint."""
    little.write(tmp_path)
    stream = little.open_stream(client, tmp_path, epochs=None)
    batches = options.get("accumulate_grad_batches", 1)
    unbroken: list[str] = []
    with segue.open(tmp_path / "elsewhere") as other:
        with little.open_stream(other, tmp_path, epochs=None).loader() as loader:
            whole = lightning_module(with_states(unbroken), with_iterator)
            trainer(tmp_path / "whole", 20, **options).fit(whole, loader)
    assert len(unbroken) == 20 * batches
    first: list[str] = []
    module = lightning_module(with_states(first), with_iterator)
    with stream.loader() as loader:
        trainer(tmp_path / "first", 13, **options).fit(module, loader)
    assert first == unbroken[: 13 * batches]
    [path] = (tmp_path / "first").glob("*step=10.ckpt")
    again: list[str] = []
    module = lightning_module(with_states(again), with_iterator)
    with stream.loader() as loader:
        trainer(tmp_path / "again", 20, **options).fit(module, loader, ckpt_path=path)
    assert again == unbroken[10 * batches :]
    assert torch.equal(module.weight, whole.weight)


class Rounds:
    """The rounds of a loader, with the tokens of all lanes, as the guide has it."""

    def __init__(self, loader: segue.Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[segue.Batch]]:
        return self.loader.rounds()

    def state_dict(self) -> dict[str, bytes]:
        return self.loader.state_dict(all_lanes=True, timeout=5)

    def load_state_dict(self, saved: dict[str, bytes]) -> None:
        self.loader.load_state_dict(saved)


@pytest.mark.filterwarnings("ignore")
def test_lightning_when_lanes_end_at_different_steps(client: segue.Client, tmp_path: Path) -> None:
    """Its checkpoints are taken to the end, and each can be gone on from."""
    little.write(tmp_path)
    trace: list[list[str]] = []

    def step(module: Any, batches: list[segue.Batch]) -> Any:
        trace.append([little.seen(batch) for batch in batches])
        for batch in batches:
            little.work(batch)
        return module.weight.square().sum()

    stream = little.open_stream(client, tmp_path)
    with stream.loader() as loader:
        module = lightning_module(step, with_iterator=True)
        trainer(tmp_path / "whole", -1, max_epochs=1).fit(module, Rounds(loader))
    whole = trace.copy()
    assert len(whole[4]) == 2 and len(whole[10]) == 1 and len(whole) == 15
    for at in (5, 10, 15):
        [path] = (tmp_path / "whole").glob(f"*step={at}.ckpt")
        trace.clear()
        with stream.loader() as loader:
            module = lightning_module(step, with_iterator=True)
            trainer(tmp_path / f"{at}", -1, max_epochs=1).fit(
                module, Rounds(loader), ckpt_path=path
            )
        assert trace == whole[at:]


@pytest.mark.filterwarnings("ignore")
def test_lightning_may_not_fetch_ahead(stream: segue.Stream, tmp_path: Path) -> None:
    """Without a known number of batches it would: the error comes before anything is trained."""
    trace: list[str] = []
    module = lightning_module(with_states(trace), with_iterator=False)
    with stream.loader() as loader:
        with pytest.raises(segue.UnsavedError, match="'h'"):
            trainer(tmp_path / "none", 10).fit(module, loader)
    assert not trace


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "with_iterator, options, left_out",
    [(False, {}, 1), (True, {}, 0), (False, {"limit_train_batches": 100}, 0)],
)
def test_lightning_on_a_stream_without_states(
    client: segue.Client, tmp_path: Path, with_iterator: bool, options: Any, left_out: int
) -> None:
    """What was fetched ahead counts as done, as the guide says: and how nothing is left out."""
    little.write(tmp_path)
    stream = client.stream(
        "plain",
        source=segue.TFRecord(tmp_path / "data.tfrecord"),
        sequences={"x": segue.Feature("float32")},
        num_unroll=2, batch_size=2, lanes=2, epochs=None,
    )  # fmt: skip
    trace: list[int] = []

    def step(module: Any, batch: segue.Batch) -> Any:
        trace.append(2 * batch.step + batch.lane)
        return module.weight.square().sum()

    with stream.loader() as loader:
        module = lightning_module(step, with_iterator)
        trainer(tmp_path / "first", 13, **options).fit(module, loader)
    assert trace == list(range(13))
    [path] = (tmp_path / "first").glob("*step=10.ckpt")
    trace.clear()
    with stream.loader() as loader:
        module = lightning_module(step, with_iterator)
        trainer(tmp_path / "again", 20, **options).fit(module, loader, ckpt_path=path)
    assert trace == list(range(10 + left_out, 20 + left_out))

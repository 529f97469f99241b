"""segue.torch.wrap and segue.jax.wrap: batches of one's own, the same as the plain loader's."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import re
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import little
import segue
from segue._wrapped import Buffers

torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
jax = pytest.importorskip("jax", reason="JAX is not installed (scripts/setup --ci)")
import jax.numpy as jnp  # noqa: E402

import segue.jax  # noqa: E402
import segue.torch  # noqa: E402

SEED = int(os.environ.get("SEGUE_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
FEATURES = {
    "x": segue.Feature("float32", 2),
    "b": segue.Feature("bfloat16"),
    "i": segue.Feature("int64"),
    "u": segue.Feature("uint16", 3),
    "t": segue.Feature("bool"),
}
CONTEXT = {"speaker": segue.Feature("int32"), "gain": segue.Feature("float64", 2)}
STATES = {
    "lstm": (segue.State("float32", (2, 4), row_axis=1), segue.State("float32", (2, 4), row_axis=1)),
    "n": segue.State("bfloat16", 3),
    "count": segue.State("int32"),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    print("seed", SEED)
    torch.manual_seed(SEED)


def write(path: Path) -> None:
    rng = np.random.default_rng(5)
    with segue.FileWriter(path, FEATURES, CONTEXT) as writer:
        for n in (9, 14, 3, 7, 12, 2, 8, 5):
            writer.write(
                {
                    "x": rng.normal(size=(n, 2)).astype(np.float32),
                    "b": torch.randn(n).bfloat16(),
                    "i": rng.integers(-9, 9, n),
                    "u": rng.integers(0, 9, (n, 3)).astype(np.uint16),
                    "t": rng.integers(0, 2, n) == 1,
                },
                {"speaker": np.int32(n), "gain": rng.normal(size=2)},
            )


@pytest.fixture
def make(client: segue.Client, tmp_path: Path) -> Callable[..., segue.Stream]:
    write(tmp_path / "data.segue")

    def open_stream(name: str = "train", **options: Any) -> segue.Stream:
        return client.stream(
            name, segue.Files(tmp_path / "data.segue"), FEATURES, CONTEXT, STATES,
            **{"num_unroll": 4, "batch_size": 3, "epochs": 2, **options},
        )  # fmt: skip

    return open_stream


def staged(loader: segue.Loader, **options: Any) -> segue.torch.Batches:
    """The way of a CUDA device, of which each copy has been made when it is waited for."""
    batches = segue.torch.wrap(loader, **options)
    batches._carrier = segue.torch._Carrier(torch.device("cpu"), torch.cpu)
    return batches


WAYS: dict[str, Callable[..., Any]] = {
    "torch": segue.torch.wrap,
    "torch, staged": staged,
    "jax": segue.jax.wrap,
}


def flat(batch: Any) -> dict[str, Any]:
    states = batch.states
    named = {"h": states["lstm"][0], "c": states["lstm"][1], "n": states["n"], "k": states["count"]}
    arrays = {name: getattr(batch, name) for name in ("mask", "length", "is_first", "epoch", "seed")}
    return {name: batch[name] for name in (*FEATURES, *CONTEXT)} | named | arrays


def bits(array: Any) -> bytes:
    if isinstance(array, torch.Tensor):
        kind = str(array.dtype).removeprefix("torch.")
        array = array.view(torch.int16).numpy() if array.dtype == torch.bfloat16 else array.numpy()
    else:
        kind = array.dtype.name
        kind = "bfloat16" if segue._arrays.is_bfloat16(array) else kind
        array = np.asarray(array)
    return f"{kind}{array.shape}".encode() + array.tobytes()


def digest(batch: Any) -> str:
    arrays = flat(batch)
    return hashlib.sha256(b"".join(bits(arrays[name]) for name in arrays)).hexdigest()


def after(batch: Any) -> Any:
    """What is saved depends on all that came, in whole numbers that every framework has."""
    states, add = batch.states, batch.step + 1
    return {
        "lstm": tuple(part + add for part in states["lstm"]),
        "n": states["n"] if isinstance(states["n"], torch.Tensor) else np.asarray(states["n"]),
        "count": states["count"] + add,
    }


def run(loader: Any) -> list[str]:
    seen = []
    for batch in loader:
        seen.append(f"{batch.lane} {batch.step} {batch.key} {digest(batch)}")
        batch.states = after(batch)
    return seen


def save_plain(batch: segue.Batch) -> None:
    states = batch.states
    batch.states = {
        "lstm": tuple(part + np.float32(batch.step + 1) for part in states["lstm"]),
        "n": states["n"],
        "count": states["count"] + np.int32(batch.step + 1),
    }


@pytest.fixture
def plain(make: Callable[..., segue.Stream]) -> list[str]:
    seen = []
    for batch in make("plain").loader():
        seen.append(f"{batch.lane} {batch.step} {batch.key} {digest(batch)}")
        save_plain(batch)
    assert len(seen) > 8
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_they_are_the_plain_loaders(
    make: Callable[..., segue.Stream], plain: list[str], way: str
) -> None:
    with jax.enable_x64(True):
        assert run(WAYS[way](make().loader())) == plain


@pytest.mark.parametrize("way", WAYS)
def test_kept_ones_stay_and_hold_no_place(
    make: Callable[..., segue.Stream], way: str
) -> None:
    """With two places in the ring, and all batches kept by their arrays or by themselves."""
    kept, epochs = [], 8
    loader = make(depth=2, epochs=epochs).loader(timeout=20)
    for batch in WAYS[way](loader):
        kept.append((batch, flat(batch), digest(batch)))
        batch.states = after(batch)
    assert len(kept) > 30
    for batch, arrays, was in kept:
        now = hashlib.sha256(b"".join(bits(arrays[name]) for name in arrays)).hexdigest()
        assert now == was
        assert batch["x"].shape[0] == batch.batch_size
        if batch is not kept[-1][0]:
            with pytest.raises(segue.ClosedError, match="the loop has gone on"):
                batch.key


@pytest.mark.parametrize("options", [{}, {"time_major": True}, {"dtype": torch.float64}])
@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_all_may_be_written_to(
    make: Callable[..., segue.Stream], plain: list[str], way: str, options: dict[str, Any]
) -> None:
    """A write to a view of shared memory would end the process, or change what comes."""
    loader = make().loader()
    for batch in WAYS[way](loader, **options):
        states = after(batch)
        for tensor in flat(batch).values():
            tensor.zero_()
        batch.states = states
        for tensor in states["lstm"]:
            tensor.fill_(-1)  # what was saved was saved, but for what is still on its way
    make().close()
    assert run(WAYS[way](make("again").loader())) == plain


def test_layout_and_dtype(make: Callable[..., segue.Stream]) -> None:
    loader = make(persist=False).loader()
    (plain,) = itertools.islice(loader, 1)
    x, b = np.array(plain["x"]), segue._arrays.widen(plain["b"]).astype(np.float16)
    mask = plain.mask.swapaxes(0, 1)
    for wrapped, float16 in (
        (segue.torch.wrap(loader, time_major=True, dtype=torch.float16), torch.float16),
        (segue.jax.wrap(loader, time_major=True, dtype=jnp.float16), np.float16),
    ):
        (batch,) = itertools.islice(wrapped, 1)
        assert batch["x"].dtype == batch["gain"].dtype == float16
        assert np.array_equal(np.asarray(batch["x"]), x.swapaxes(0, 1).astype(np.float16))
        assert np.array_equal(np.asarray(batch["b"]), b.swapaxes(0, 1))
        assert batch["u"].shape == (4, 3, 3) and batch.mask.shape == (4, 3)
        assert np.array_equal(np.asarray(batch.mask), mask)
        assert batch.states["lstm"][0].shape == (2, 3, 4)
        assert str(batch.states["lstm"][0].dtype).endswith("float32")
        assert "x float16[4, 3, 2]" in repr(batch)


def test_zero_copy_is_read_only(make: Callable[..., segue.Stream]) -> None:
    for batch in segue.torch.wrap(make().loader(), zero_copy=True):
        for array in (batch["x"], batch["speaker"], batch.states["n"], batch.state("count")):
            assert isinstance(array, np.ndarray) and not array.flags.writeable
        batch.states = after(batch)
        del array


# -- Memory ----------------------------------------------------------------------------------------


def test_memory_is_taken_again_once_nothing_has_it() -> None:
    allocated = []

    def allocate(size: int) -> np.ndarray:
        allocated.append(size)
        return np.empty(size, np.uint8)

    buffers = Buffers(allocate)

    def tensor() -> Any:
        return torch.from_numpy(buffers.take((4, 8), np.dtype("float32")))

    for _ in range(100):
        tensor()
    assert len(allocated) == 1
    weight = torch.ones(8, requires_grad=True)

    def through_the_graph(loss: Any) -> Any:
        loss.backward()
        return weight.grad / 4

    holders: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
        (lambda t: t[1], lambda t: t),
        (lambda t: t.view(torch.int32), lambda t: t.view(torch.float32)),
        (lambda t: t.untyped_storage(), lambda s: torch.tensor(list(s)[:4], dtype=torch.uint8).view(torch.float32)),
        (lambda t: t.numpy()[1:], lambda a: a),
        (lambda t: (t * weight).sum(), through_the_graph),
        (lambda t: torch.utils.dlpack.to_dlpack(t), lambda c: torch.from_dlpack(c)),
        (lambda t: jax.dlpack.from_dlpack(t), lambda a: a),
    ]  # fmt: skip
    of_arrays: list[Callable[[Any], Any]] = [
        lambda a: a[1:], lambda a: a.T[1], jax.device_put, jnp.asarray, torch.from_dlpack,
        lambda a: memoryview(a),
    ]  # fmt: skip

    def hold_array(hold: Callable[[Any], Any]) -> Any:
        array = buffers.take((4, 8), np.dtype("float32"))
        array[...] = 7
        return hold(array)

    for hold, look in [
        *((lambda h=h: h(tensor().fill_(7)), look) for h, look in holders),
        *((lambda h=h: hold_array(h), lambda held: held) for h in of_arrays),
    ]:
        held = hold()
        others = [tensor().fill_(9) for _ in range(len(allocated) + 1)]
        del others
        assert (np.asarray(look(held)) == 7).all()
        del held
    gc.collect()
    count = len(allocated)
    all_ = [tensor() for _ in range(count)]
    assert len(allocated) == count and len({t.data_ptr() for t in all_}) == count


def test_batches_of_many_lengths_share_memory() -> None:
    allocated: list[int] = []

    def allocate(size: int) -> np.ndarray:
        allocated.append(size)
        return np.empty(size, np.uint8)

    buffers = Buffers(allocate)
    for steps in range(0, 5000):
        array = buffers.take((steps, 3), np.dtype("float32"))
        assert array.shape == (steps, 3) and array.nbytes <= allocated[-1] <= max(64, array.nbytes * 1.25 + 64)
        del array
    assert len(allocated) < 70


def test_the_memory_of_a_training_does_not_grow(make: Callable[..., segue.Stream]) -> None:
    """Batches that are gone on from, not kept: what was allocated for three of them is enough."""
    batches = segue.torch.wrap(make(epochs=6).loader())
    taken: list[int] = []
    allocate = batches._carrier._buffers._allocate
    batches._carrier._buffers._allocate = lambda size: (taken.append(size), allocate(size))[1]
    counts = []
    for batch in batches:
        batch.states = after(batch)
        counts.append(len(taken))
    full = counts[5]
    assert max(counts[5:-12]) == full  # smaller batches at the end are of other sizes


# -- States ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_an_lstm_of_layers_sees_whole_sequences(client: segue.Client, way: str) -> None:
    rng = np.random.default_rng(SEED)
    whole = [rng.normal(size=(n, 3)).astype(np.float32) for n in (12, 12, 12, 12)]
    lstm = torch.nn.LSTM(3, 5, num_layers=3, batch_first=True)
    zeros = torch.zeros(3, 1, 5)
    stream = client.stream(
        "lstm", segue.Arrays({"x": whole}), {"x": segue.Feature("float32", 3)},
        states=segue.states_like((zeros, zeros), row_axis=1), num_unroll=4, batch_size=2,
    )  # fmt: skip
    outputs = []
    for batch in WAYS[way](stream.loader()):
        output, batch.states = lstm(batch["x"], batch.states)
        outputs.append(output.detach())
    for pair in range(2):
        wanted = lstm(torch.from_numpy(np.stack(whole[2 * pair : 2 * pair + 2])))[0]
        got = torch.cat(outputs[3 * pair : 3 * pair + 3], 1)
        torch.testing.assert_close(got, wanted)


def test_states_that_are_learnt(make: Callable[..., segue.Stream]) -> None:
    initial = {
        "lstm": tuple(torch.randn(2, 1, 4, requires_grad=True) for _ in "hc"),
        "n": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(5, dtype=torch.int32),
    }
    mixed = 0
    for batch in segue.torch.wrap(make().loader()):
        states, first = batch.states_from(initial), batch.is_first
        assert (states["count"][first] == 5).all()
        assert torch.equal(states["count"][~first], batch.states["count"][~first])
        assert (states["n"][first] == 1).all()
        h = states["lstm"][0]
        assert torch.equal(h[:, first], initial["lstm"][0].expand_as(h)[:, first])
        (grad,) = torch.autograd.grad(h.sum(), initial["lstm"][0])
        assert (grad == first.sum()).all()
        mixed += bool(first.any() and not first.all())
        batch.states = states
    assert mixed


def test_learnt_states_in_jax(make: Callable[..., segue.Stream]) -> None:
    h = jnp.arange(8.0).reshape(2, 1, 4)
    for batch in segue.jax.wrap(make().loader()):
        initial = {"lstm": (h, h + 1), "n": jnp.ones(3, jnp.bfloat16), "count": jnp.int32(5)}
        states, first = batch.states_from(initial), np.asarray(batch.is_first)
        assert (np.asarray(states["count"])[first] == 5).all()
        wanted = np.where(first[None, :, None], h, batch.states["lstm"][0])
        assert np.array_equal(states["lstm"][0], wanted)
        batch.states = states


def test_what_is_saved_is_checked(make: Callable[..., segue.Stream]) -> None:
    for way in WAYS:
        loader = make(way).loader()
        (batch,) = itertools.islice(WAYS[way](loader), 1)
        bad = dict(batch.states) | {"n": np.zeros((3, 4), np.float32)}
        with pytest.raises(segue.StateTypeError, match="'n': expected bfloat16"):
            batch.states = bad
            batch.commit()
        with pytest.raises(segue.StateNameError, match="'lstm'.*missing"):
            batch.states = {"n": batch.states["n"], "count": batch.states["count"]}
        batch.states = batch.states
        batch.commit()
        assert batch.committed
        with pytest.raises(segue.Error, match="committed"):
            batch.states = batch.states
        if way != "jax":
            (batch,) = itertools.islice(WAYS[way](loader), 1)
            kept = batch.states
            for error, other in (
                (segue.StateShapeError, kept["n"][:, :2]), (segue.StateTypeError, kept["n"].float()),
            ):  # fmt: skip
                with pytest.raises(error, match="'n'"):
                    batch.states = dict(kept) | {"n": other}
            (batch,) = itertools.islice(WAYS[way](loader), 1)
            with pytest.raises(segue.StateTypeError, match="'n'"):
                batch.states = dict(batch.states) | {"n": batch.states["n"].to_sparse()}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_may_change_at_once(make: Callable[..., segue.Stream], way: str) -> None:
    """Arrays of NumPy, of which a device knows nothing."""
    batches = WAYS[way](make().loader())
    (batch,) = itertools.islice(batches, 1)
    count = np.full(3, 5, np.int32)
    batch.states = dict(batch.states) | {"count": count}
    count[:] = 9
    batch.commit()
    (batch,) = itertools.islice(batches, 1)
    wanted = np.where(np.asarray(batch.is_first), 0, 5)
    assert wanted.any() and np.array_equal(np.asarray(batch.states["count"]), wanted)


def test_states_of_64_bits_in_jax(client: segue.Client) -> None:
    stream = client.stream(
        "wide", segue.Arrays({"x": [np.arange(9.0)]}), {"x": segue.Feature("float64")},
        states={"h": segue.State("float64")}, num_unroll=2, batch_size=1,
    )  # fmt: skip
    (batch,) = itertools.islice(segue.jax.wrap(stream.loader()), 1)
    assert batch["x"].dtype == np.float32
    with pytest.raises(segue.StateTypeError, match="'h': JAX makes float32 of float64"):
        batch.states


# -- As the loader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_leaving_and_going_on(
    make: Callable[..., segue.Stream], plain: list[str], way: str
) -> None:
    """Saves that are on their way count as those that are there."""
    with jax.enable_x64(True):
        loader = WAYS[way](make().loader())
        seen: list[str] = []

        def take(count: int) -> None:
            for batch in loader:
                seen.append(f"{batch.lane} {batch.step} {batch.key} {digest(batch)}")
                batch.states = after(batch)
                if len(seen) == count:
                    break

        take(2)
        token = loader.state_dict()  # commits what is open
        take(4)
        take(5)  # goes on behind a break
        loader.load_state_dict(token)
        del seen[2:]
        take(3)
        loader.close()  # commits
        loader = WAYS[way](make().loader(start="continue"))
        with pytest.raises(ZeroDivisionError):
            for batch in loader:
                batch.states = after(batch)
                1 / 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it comes again
            with loader:
                take(-1)
        assert seen == plain


@pytest.mark.parametrize("way", WAYS)
def test_rounds_epochs_and_lanes_that_move(make: Callable[..., segue.Stream], way: str) -> None:
    options = {"lanes": 2, "epoch_end": "drain"}
    kind = (segue.torch if way.startswith("torch") else segue.jax).Batch
    with WAYS[way](make("rounds", **options).loader()) as loader:
        for batches in loader.rounds():
            assert [type(batch) for batch in batches] == [kind] * len(batches)
            for batch in batches:
                batch.states = after(batch)
    with WAYS[way](make("epochs", **options).loader()) as loader:
        epochs = []
        for epoch in loader.epochs():
            for batch in epoch:
                assert type(batch) is kind and (np.asarray(batch.epoch) == epoch.index).all()
                batch.states = after(batch)
            epochs.append(epoch.index)
        assert epochs == [0, 1]
    with WAYS[way](make("any", **options).loader(lanes="any")) as loader:
        assert {batch.lane for batch in loader if not setattr(batch, "states", after(batch))} == {
            0, 1,
        }  # fmt: skip


def test_a_newer_loader_takes_over_what_is_on_its_way(make: Callable[..., segue.Stream]) -> None:
    older, count = staged(make().loader()), 0
    for batch in older:
        batch.states = after(batch)
        count += 1
        if count == 3:
            break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        newer = iter(staged(make().loader(start="continue")))
        assert next(newer).step == 2
    with pytest.raises(segue.FencedError):
        next(iter(older))
    with pytest.raises(segue.FencedError):
        older.state_dict()


@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_a_batch_that_was_saved_and_comes_again_is_warned_of(
    make: Callable[..., segue.Stream], way: str
) -> None:
    batches = WAYS[way](make().loader())
    with pytest.raises(ZeroDivisionError):
        for batch in batches:
            batch.states = after(batch)
            1 / 0
    with pytest.warns(UserWarning, match="batch 0 of lane 0 was left without a commit"):
        assert next(iter(batches)).step == 0
    (batch,) = itertools.islice(batches, 1)
    batch.states = after(batch)
    batch.release()  # what is on its way is of no use then
    assert next(iter(batches)).step == 0


@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_a_replica_that_follows_is_told_where_it_saves(
    make: Callable[..., segue.Stream], way: str
) -> None:
    stream = make()

    def follow(client: segue.Client) -> None:
        with WAYS[way](client.stream("train").loader(replica=1, replicas=2, timeout=30)) as loader:
            (batch,) = itertools.islice(loader, 1)
            with pytest.raises(segue.ReplicaError, match="only reads"):
                batch.states = batch.states

    with segue.open(stream._client.dir) as other, ThreadPoolExecutor() as pool:
        theirs = pool.submit(follow, other)
        (batch,) = itertools.islice(WAYS[way](stream.loader(replicas=2, timeout=30)), 1)
        theirs.result()


def test_a_save_that_was_interrupted_is_still_to_be_done(
    make: Callable[..., segue.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Event(torch.cpu.Event):  # type: ignore[misc, name-defined]
        interrupts = [KeyboardInterrupt]

        def synchronize(self) -> None:
            if self.interrupts:
                raise self.interrupts.pop()

    batches = staged(make().loader())
    monkeypatch.setattr(torch.cpu, "Event", Event)
    (batch,) = itertools.islice(batches, 1)
    batch.states = after(batch)
    with pytest.raises(KeyboardInterrupt):
        batches.state_dict()
    assert batches.state_dict() and batch.committed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ["batch", "round", "epoch"])
def test_what_cannot_be_presented_comes_again(
    make: Callable[..., segue.Stream], way: str, by: str
) -> None:
    """As where a device has no memory left: nobody has seen that batch."""
    batches = WAYS[way](make(lanes=2, epoch_end="drain").loader())
    iterator = {
        "batch": lambda: iter(batches),
        "round": lambda: batches.rounds(),
        "epoch": lambda: next(batches.epochs()),
    }[by]()

    def take() -> list[Any]:
        taken = next(iterator)
        return taken if by == "round" else [taken]

    for batch in take():
        batch.states = after(batch)
    features, good = batches.features, [True] if by == "round" else []

    def fails(batch: Any) -> Any:
        if not good:
            raise MemoryError("no room")
        good.pop()
        return features(batch)

    batches.features = fails
    with pytest.raises(MemoryError):
        take()
    batches.features = features
    batches.state_dict()
    places = [(batch.lane, batch.step) for batch in take()]
    assert places == ([(0, 1), (1, 1)] if by == "round" else [(1, 0)])


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_that_is_kept_keeps_no_lease(make: Callable[..., segue.Stream], way: str) -> None:
    for kept in (1, 2):  # committed by hand; by going on, too
        loader = make(f"kept {kept}").loader()
        gone = weakref.ref(loader)
        batches = []
        for batch in WAYS[way](loader):
            batch.states = after(batch)
            batches.append(batch)
            if len(batches) == kept:
                batch.commit()
                break
        del loader
        gc.collect()
        assert gone() is None
        assert batches[0]["x"].shape[0] == 3


@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_what_is_saved_is_committed_without_its_loader(
    make: Callable[..., segue.Stream], way: str
) -> None:
    for batch in WAYS[way](make().loader()):
        batch.states = after(batch)
        break
    gc.collect()
    batch.commit()
    assert batch.committed and next(iter(make().loader(start="continue"))).step == 1


def test_other_devices_have_all_tensors(make: Callable[..., segue.Stream]) -> None:
    batch = next(iter(segue.torch.wrap(make().loader(), device="meta")))
    tensors = batch["x"], batch.mask, batch.states["n"], batch.state("count")
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_dataset(make: Callable[..., segue.Stream], plain: list[str]) -> None:
    data = segue.torch.dataset(make().loader())
    assert run(torch.utils.data.DataLoader(data, batch_size=None)) == plain
    with pytest.raises((segue.ArgumentError, TypeError), match="num_workers|pickle"):
        list(torch.utils.data.DataLoader(data, batch_size=None, num_workers=1))
    with pytest.raises(TypeError, match="give the DataLoader batch_size=None"):
        list(torch.utils.data.DataLoader(segue.torch.dataset(make("single").loader())))


def test_mean_leaves_padding_out(make: Callable[..., segue.Stream]) -> None:
    for lib, wrap in ((torch, segue.torch.wrap), (jnp, segue.jax.wrap)):
        loader = make(lib.__name__, tail="pad", lanes=2).loader(lanes=[0])
        empty = 0
        for batch in wrap(loader):
            mask = np.asarray(batch.mask)
            loss = np.where(mask, np.arange(12.0).reshape(3, 4), np.nan).astype(np.float32)
            wanted = loss[mask].mean() if mask.any() else 0
            given = lib.asarray(loss)
            assert float(batch.mean(given)) == pytest.approx(wanted)
            two = lib.stack([given, given], -1)
            assert float(batch.mean(two)) == pytest.approx(wanted)
            rows = np.asarray(batch.length) > 0
            each = np.where(rows, np.arange(3.0), np.nan).astype(np.float32)
            assert float(batch.mean(lib.asarray(each))) == pytest.approx(
                each[rows].mean() if rows.any() else 0
            )
            empty += not rows.all()
            for wrong in (given.mean(), given.reshape(-1), given[:, :1], given.T, 0.5):
                with pytest.raises(segue.ArgumentError, match="before it is reduced"):
                    batch.mean(wrong)
            large = batch.mean(lib.full((3, 4, 60), 9000, dtype=lib.float16))
            assert large.dtype == lib.float16 and float(large) == (9000 if mask.any() else 0)
            batch.states = after(batch)
        assert empty


def test_what_zero_copy_cannot(make: Callable[..., segue.Stream]) -> None:
    batch = next(iter(segue.torch.wrap(make().loader(), zero_copy=True)))
    assert "x" in batch and "y" not in batch
    with pytest.raises(segue.ArgumentError, match="zero_copy=True"):
        batch.states_from(batch.states)


def test_bad_arguments(make: Callable[..., segue.Stream]) -> None:
    loader = make().loader()
    for options, words in (
        ({"dtype": torch.int32}, "dtype: torch.int32"),
        ({"dtype": "float32"}, "dtype: 'float32'"),
        ({"dtype": torch.float8_e4m3fn}, "dtype: torch.float8_e4m3fn"),
        ({"device": "nowhere"}, "device: 'nowhere'"),
        ({"zero_copy": True, "time_major": True}, "zero_copy=True"),
    ):
        with pytest.raises(segue.ArgumentError) as caught:
            segue.torch.wrap(loader, **options)
        assert words in str(caught.value)
    with pytest.raises(segue.ArgumentError, match="dtype"):
        segue.jax.wrap(loader, dtype=np.int32)
    for wrap in (segue.torch.wrap, segue.jax.wrap):
        with pytest.raises(TypeError, match="expected segue.Loader, got list"):
            wrap([])
        batch = next(iter(wrap(loader)))
        with pytest.raises(KeyError, match="'y' is none of 'speaker'"):
            batch["y"]
        with pytest.raises(AttributeError):
            batch.nothing
        batch.states = batch.states
        batch.commit()
        next(iter(wrap(loader)))
        assert not hasattr(batch, "nothing")


def test_scan_over_steps(make: Callable[..., segue.Stream]) -> None:
    """The plain loop of JAX, jitted, with steps first."""
    def cell(carry: Any, inputs: Any) -> Any:
        x, valid = inputs
        h = jnp.where(valid[:, None], carry[0][0] + x.sum(-1, keepdims=True), carry[0][0])
        return ((h, carry[1]), carry[1]), None

    @jax.jit
    def train_step(x: Any, mask: Any, states: Any) -> Any:
        h, c = states["lstm"]
        ((h0, _), _), _ = jax.lax.scan(cell, ((h[0], c), c), (x, mask))
        return states | {"lstm": (h.at[0].set(h0), c)}

    sums: dict[bytes, float] = {}
    for batch in segue.jax.wrap(make(epochs=1).loader(), time_major=True):
        batch.states = states = train_step(batch["x"], batch.mask, batch.states)
        for row, key in enumerate(batch.key):
            record = key.partition(b":")[2]
            own = (np.asarray(batch["x"])[:, row].sum(-1) * np.asarray(batch.mask)[:, row]).sum()
            sums[record] = sums.get(record, 0.0) + float(own)
            assert float(states["lstm"][0][0, row, 0]) == pytest.approx(sums[record], abs=1e-4)


def test_the_benchmark_of_devices_runs() -> None:
    """On a GPU where there is one."""
    bench = Path(__file__).parents[1] / "bench" / "gpu.py"
    done = subprocess.run(
        [sys.executable, bench, "--batches", "3"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert re.search(r"copies to the device: .* x\ntraining steps: .* x\n$", done.stdout)


@pytest.mark.parametrize("way", ["torch", "torch, staged"])
def test_a_state_saved_by_name_is_the_last_word(make: Callable[..., segue.Stream], way: str) -> None:
    batches = iter(WAYS[way](make().loader(start="fresh")))
    batch = next(batches)
    batch.states = after(batch)
    batch.save_state("count", torch.full((batch.batch_size,), 77, dtype=torch.int32))
    go_on = ~batch.is_last
    batch = next(batches)
    assert go_on.any() and (batch.states["count"][go_on] == 77).all()


def test_memory_is_not_taken_again_while_a_fetch_is_under_way() -> None:
    """Also of a batch that was given up, for which nobody waits."""

    class Event:
        over = False

        def record(self, stream: Any) -> None:
            pass

        def query(self) -> bool:
            return Event.over

        def synchronize(self) -> None:
            Event.over = True

    kind: Any = type("Kind", (), {"Event": Event, "Stream": torch.cpu.Stream})
    kind.stream, kind.current_stream = torch.cpu.stream, torch.cpu.current_stream
    carrier = segue.torch._Carrier(torch.device("cpu"), kind)
    tree = type("Tree", (), {"declared": {}})
    stream = type("Stream", (), {"_tree": tree})
    loader: Any = type("Loader", (), {"replica": 0, "stream": stream, "_unfinished": []})
    batch: Any = type("Batch", (), {"committed": False, "released": False, "batch_size": 3})
    carrier.save(loader, batch, [("h", torch.zeros(3, 4))])
    loader._unfinished.clear()

    def free() -> int:
        gc.collect()
        carrier.sent({})
        return sum(map(len, carrier._buffers._free.values()))

    assert free() == 0
    Event.over = True
    assert free() == 1

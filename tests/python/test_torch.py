"""segue.torch: a cell over a batch's steps, with states of the batch. Needs PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue

torch = pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
from segue.torch import static_state_saving_rnn  # noqa: E402

SEED = int(os.environ.get("SEGUE_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
ROWS, STEPS, INPUTS, CELLS = 3, 4, 2, 5
LENGTHS = [4, 0, 2]


class Saver:
    """Stands in for a batch: read-only states, each to be saved once."""

    def __init__(self, **states: Any) -> None:
        self.states = {name: np.array(value) for name, value in states.items()}
        self.saved: dict[str, Any] = {}
        for value in self.states.values():
            value.flags.writeable = False

    def state(self, name: str) -> np.ndarray:
        return self.states[name]

    def save_state(self, name: str, value: Any) -> None:
        assert name in self.states and name not in self.saved
        self.saved[name] = value


@pytest.fixture
def rng() -> np.random.Generator:
    print("seed", SEED)
    torch.manual_seed(SEED)
    return np.random.default_rng(SEED)


def lstm_saver(rng: np.random.Generator) -> Saver:
    return Saver(h=rng.normal(size=(ROWS, CELLS)), c=rng.normal(size=(ROWS, CELLS)))


def inputs_of(rng: np.random.Generator) -> Any:
    return torch.from_numpy(rng.normal(size=(ROWS, STEPS, INPUTS)))


def row_by_row(cell: Any, x: Any, saver: Saver, lengths: list[int]) -> tuple[Any, Any, Any]:
    """Each row alone, for as many steps as it has: outputs, h and c."""
    outputs = torch.zeros(STEPS, ROWS, CELLS, dtype=torch.float64)
    h, c = torch.from_numpy(saver.states["h"].copy()), torch.from_numpy(saver.states["c"].copy())
    for row in range(ROWS):
        state = h[row : row + 1], c[row : row + 1]
        for step in range(lengths[row]):
            state = cell(x[row : row + 1, step], state)
            outputs[step, row] = state[0][0]
        h[row], c[row] = state[0][0], state[1][0]
    return outputs, h, c


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_lstm_against_row_by_row(rng: np.random.Generator, lengths: list[int] | None) -> None:
    cell, x, saver = torch.nn.LSTMCell(INPUTS, CELLS).double(), inputs_of(rng), lstm_saver(rng)
    outputs, state = static_state_saving_rnn(cell, x.unbind(1), saver, ("h", "c"), lengths)
    with torch.no_grad():
        expected = row_by_row(cell, x, saver, lengths or [STEPS] * ROWS)
    assert isinstance(outputs, list) and len(outputs) == STEPS and isinstance(state, tuple)
    for got, wanted in zip((torch.stack(outputs), *state), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    for name, part in zip("hc", state, strict=True):
        assert torch.equal(saver.saved[name], part)
    if lengths:
        assert not outputs[0][1].any() and not outputs[2][2].any()
        assert (saver.saved["h"][1].numpy() == saver.states["h"][1]).all()


@pytest.mark.parametrize(
    "lengths",
    [
        np.array(LENGTHS, np.int32),
        np.array(LENGTHS, np.uint16),
        torch.tensor(LENGTHS, dtype=torch.int32),
        tuple(LENGTHS),
        [9, -1, 2],
    ],
    ids=["int32", "uint16", "tensor", "tuple", "beyond"],
)
def test_lengths_as(rng: np.random.Generator, lengths: Any) -> None:
    cell, x, saver = torch.nn.LSTMCell(INPUTS, CELLS).double(), inputs_of(rng), lstm_saver(rng)
    outputs, _ = static_state_saving_rnn(cell, x.unbind(1), saver, ("h", "c"), lengths)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(outputs), row_by_row(cell, x, saver, LENGTHS)[0])


def test_segments_are_one_sequence(rng: np.random.Generator) -> None:
    cell, x, saver = torch.nn.GRUCell(INPUTS, CELLS).double(), inputs_of(rng), lstm_saver(rng)
    whole, end = static_state_saving_rnn(cell, x.unbind(1), saver, "h")
    parts: list[Any] = []
    carried = saver.states["h"]
    for begin in (0, 2):
        part = Saver(h=carried)
        parts += static_state_saving_rnn(cell, x[:, begin : begin + 2].unbind(1), part, "h")[0]
        carried = part.saved["h"].numpy()
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole))
    assert (carried == end.detach().numpy()).all()


def test_gradients_flow_through_time_and_not_into_states(rng: np.random.Generator) -> None:
    cell, saver = torch.nn.LSTMCell(INPUTS, CELLS).double(), lstm_saver(rng)
    x = inputs_of(rng).requires_grad_()
    outputs, state = static_state_saving_rnn(cell, x.unbind(1), saver, ("h", "c"), LENGTHS)
    assert all(part.requires_grad for part in state)
    assert not any(part.requires_grad for part in saver.saved.values())
    torch.stack(outputs)[-1].sum().backward()
    assert x.grad[0, 0].any() and cell.weight_hh.grad.any()  # the last output, the first step
    assert not x.grad[1].any() and not x.grad[2].any()  # of rows that had ended before
    again = Saver(h=torch.stack(outputs)[-1].detach().numpy())
    kept = torch.tensor(again.states["h"], requires_grad=True)
    again.state = lambda name: kept  # type: ignore[method-assign]
    _, end = static_state_saving_rnn(
        torch.nn.GRUCell(INPUTS, CELLS).double(), x.unbind(1), again, "h"
    )
    end.sum().backward()
    assert kept.grad is None


def test_what_a_cell_does_in_place_stays_out_of_the_batch() -> None:
    saver = Saver(count=np.zeros(ROWS))
    static_state_saving_rnn(lambda x, count: count.add_(1), [None] * 2, saver, "count")
    assert saver.saved["count"].tolist() == [2] * ROWS and not saver.states["count"].any()


def test_states_go_to_the_device_of_the_inputs(rng: np.random.Generator) -> None:
    """With the device that computes nothing, in the place of an accelerator."""
    cell, saver = torch.nn.LSTMCell(INPUTS, CELLS, device="meta").double(), lstm_saver(rng)
    steps = inputs_of(rng).to("meta").unbind(1)
    outputs, state = static_state_saving_rnn(cell, steps, saver, ("h", "c"), LENGTHS)
    for tensor in (*outputs, *state, *saver.saved.values()):
        assert tensor.device.type == "meta" and tensor.shape == (ROWS, CELLS)


class Pair(torch.nn.Module):
    """Two cells, one upon the other; its state is ``(h, (h, c))``, its output as it is told."""

    def __init__(self, gives: str) -> None:
        super().__init__()
        self.low = torch.nn.GRUCell(INPUTS, CELLS).double()
        self.high = torch.nn.LSTMCell(CELLS, CELLS).double()
        self.gives = gives

    def forward(self, value: Any, state: Any) -> Any:
        low, high = state
        low = self.low(value, low)
        high = self.high(low, high)
        if self.gives == "state":
            return low, high
        if self.gives == "lists":
            return [high[0] * 2, [low, list(high)]]
        return (high[0] * 2, low) if self.gives == "wrong" else ((high[0], low), (low, high))


@pytest.mark.parametrize("gives", ["state", "lists", "outputs"])
def test_nested_states(rng: np.random.Generator, gives: str) -> None:
    cell, x = Pair(gives), inputs_of(rng)
    saver = Saver(**{name: rng.normal(size=(ROWS, CELLS)) for name in ("l", "h", "c")})
    outputs, state = static_state_saving_rnn(cell, x.unbind(1), saver, ["l", ("h", "c")], LENGTHS)
    low, (h, c) = state
    for name, part in zip(("l", "h", "c"), (low, h, c), strict=True):
        assert torch.equal(saver.saved[name], part) and not torch.equal(part[0], c.new_zeros(CELLS))
        assert (part[1].detach().numpy() == saver.states[name][1]).all()
    last = {"state": low, "lists": h * 2, "outputs": (h, low)}[gives]
    got = outputs[-1]
    for one, wanted in zip(got, last, strict=True) if gives == "outputs" else [(got, last)]:
        assert torch.equal(one[0], wanted[0])
        assert not one[1:].any()  # the others have ended before the last step


def test_inputs_may_be_nested_and_states_of_other_shapes() -> None:
    saver = Saver(sum=np.zeros((2, 3, 1)), count=np.zeros(2, np.int64))

    def cell(value: Any, state: Any) -> Any:
        x, y = value
        total, count = state
        return None, (total + (x * y)[:, None, None], count + 1)

    steps = [(torch.ones(2), torch.full((2,), float(k))) for k in range(3)]
    with pytest.raises((AttributeError, TypeError)):  # no output to set to zero
        static_state_saving_rnn(cell, steps, saver, ("sum", "count"), [1, 3])
    outputs, (total, count) = static_state_saving_rnn(cell, steps, saver, ("sum", "count"))
    assert outputs == [None] * 3 and count.tolist() == [3, 3]
    assert total.dtype == torch.float64 and total.unique().tolist() == [3.0]


LSTM, GRU = torch.nn.LSTMCell(INPUTS, CELLS).double(), torch.nn.GRUCell(INPUTS, CELLS).double()
ONE = torch.ones(ROWS, INPUTS, dtype=torch.float64)


@pytest.mark.parametrize(
    ("cell", "inputs", "names", "lengths", "says"),
    [
        (LSTM, [], ("h", "c"), None, "inputs: .* got none"),
        (LSTM, [ONE.numpy()], ("h", "c"), None, "inputs: expected tensors, got ndarray"),
        (LSTM, [ONE[:1]], ("h", "c"), None, r"inputs: of shape \(1, .*, and the batch has"),
        (lambda *_: None, [ONE], "h", None, "the cell has returned NoneType"),
        (LSTM, [ONE], "h", None, r"'h' is not nested like .*LSTMCell is a tuple \(h, c\)"),
        (LSTM, [ONE], ("h", "c", "h"), None, "is not nested like"),
        (LSTM, [ONE], (("h", "c"), "h"), None, "is not nested like"),
        (GRU, [ONE], ("h", "c"), None, "GRUCell is one tensor"),
        (GRU, [ONE], ("h",), None, "GRUCell is one tensor"),
        (GRU, [ONE], (), None, r"a tuple of names, got \(\)"),
        (GRU, [ONE], 3, None, "a tuple of names, got 3"),
        (lambda x, state: state[0], [ONE], ("h", "c"), None, "has returned tensor"),
        (lambda x, state: (x, (state, state)), [ONE], "h", None,
         r"has returned \(tensor, \(tensor, tensor\)\)"),
        (Pair("wrong"), [ONE], ("h", ("h", "c")), None, r"returned \(tensor, tensor\)"),
        (torch.nn.LSTM(INPUTS, CELLS), [ONE], ("h", "c"), None, "give a cell, torch.nn.LSTMCell"),
        (GRU, [ONE], "h", [1, 1], r"one number for each of 3 rows, got shape \(2,\)"),
        (GRU, [ONE], "h", 1, r"got shape \(\)"),
        (GRU, [ONE], "h", [1.0, 1.0, 1.0], "whole numbers, got torch.float64"),
        (GRU, [ONE], "h", [True] * 3, "whole numbers, got torch.bool"),
        (lambda x, state: state.float(), [ONE], "h", [1] * 3, "float32 of shape .*float64 of"),
        (lambda x, state: state[:, :1], [ONE], "h", [1] * 3, r"shape \(3, 1\), .* \(3, 5\)"),
    ],
)  # fmt: skip
def test_refuses(cell: Any, inputs: Any, names: Any, lengths: Any, says: str) -> None:
    saver = Saver(h=np.zeros((ROWS, CELLS)), c=np.zeros((ROWS, CELLS)))
    with pytest.raises(ValueError, match=says) as caught:
        static_state_saving_rnn(cell, inputs, saver, names, lengths)
    assert isinstance(caught.value, segue.ArgumentError) and not saver.saved


def test_one_tensor_is_no_list_of_steps() -> None:
    saver = Saver(h=np.zeros((ROWS, CELLS)))
    for inputs in (torch.zeros(ROWS, STEPS, INPUTS), np.zeros((ROWS, STEPS, INPUTS))):
        with pytest.raises(TypeError, match=r"unbind\(1\)"):
            static_state_saving_rnn(GRU, inputs, saver, "h")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_batches_of_a_loader(tmp_path: Path, client: segue.Client, dtype: str) -> None:
    """Sums, which come out whole over several segments, with states as the server keeps them."""
    arrays = [np.arange(1, steps + 1, dtype=np.float32) for steps in (5, 3, 1)]
    stream = client.stream(
        "train",
        segue.Examples([{"x": array} for array in arrays]),
        {"x": segue.Feature("float32")},
        states={"sum": segue.State(dtype, [1])},
        num_unroll=2,
        batch_size=2,
    )
    ends: dict[int, float] = {}
    with stream.loader() as loader:
        for batch in loader:
            inputs = torch.from_dlpack(batch.sequences["x"]).to(getattr(torch, dtype)).unbind(1)
            _, state = static_state_saving_rnn(
                lambda x, total: total + x[:, None], inputs, batch, "sum", batch.length
            )
            ends |= dict(zip(batch.insertion_index.tolist(), state[:, 0].tolist(), strict=True))
            with pytest.raises(KeyError, match="other"):
                static_state_saving_rnn(lambda x, total: total, inputs, batch, "other")
    assert ends == {0: 15.0, 1: 6.0, 2: 1.0}


def python(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)


def test_segue_itself_does_not_need_pytorch() -> None:
    done = python("-c", "import segue, sys; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
    done = python("-c", "import sys; sys.modules['torch'] = None; import segue; import segue.torch")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "ImportError: segue.torch needs PyTorch, which is not installed: pip install torch\n"
    )


def test_the_original_gives_the_same() -> None:
    """The oracle: scenarios with what TensorFlow gave, and a program that compares."""
    shared = Path(os.environ.get("SEGUE_TEST_SHARED", Path(__file__).parents[3] / "shared"))
    oracle = shared / "oracle"
    if not (oracle / "check_rnn.py").exists():
        pytest.skip(f"no oracle in {oracle} (SEGUE_TEST_SHARED)")
    done = python(str(oracle / "check_rnn.py"), str(oracle / "rnn" / "rnn.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 scenarios equal" in done.stdout


def test_a_state_saver_that_is_none() -> None:
    with pytest.raises(segue.ArgumentError, match="state_saver: expected a batch, got dict"):
        static_state_saving_rnn(GRU, [ONE], {"h": ONE}, "h")  # type: ignore[arg-type]

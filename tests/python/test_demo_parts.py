"""The demo's pure parts: toy data, message channel, pairs, the history's check, plots."""

from __future__ import annotations

import importlib.util
import io
import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PYTHON = Path(__file__).parents[2] / "bindings" / "python"
sys.path.insert(0, str(PYTHON / "examples"))


def _tfrecord() -> ModuleType:
    """segue.tfrecord by path: it stands alone, and the package need not be built for it."""
    spec = importlib.util.spec_from_file_location("tfrecord_alone", PYTHON / "segue/tfrecord.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tfrecord = _tfrecord()

import checkpoint  # noqa: E402
import history  # noqa: E402
import plot  # noqa: E402
import toy  # noqa: E402
from gradients import Channel, add_in_lane_order  # noqa: E402
from history import Row  # noqa: E402
from screen import Screen, bar  # noqa: E402


# -- toy data ------------------------------------------------------------------------------------


def test_toy_labels_flip_at_a_quarter():
    for sequences in toy.make(50, 12, 14, seed=3):
        token, label = sequences["token"], sequences["label"]
        assert 12 <= len(token) == len(label) <= 14 and 0 <= token.min() <= token.max() < 1
        sums = [sum(map(float, token[: t + 1])) for t in range(len(token))]
        expected = [int(value > len(token) / 4) for value in sums]
        assert label.tolist() == expected
        assert label[0] == 0 and sorted(label) == label.tolist()
    assert {len(s["token"]) for s in toy.make(50, 12, 14, seed=3)} == {12, 13, 14}


def test_toy_files_hold_what_they_say(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "segue", ModuleType("segue"))
    monkeypatch.setitem(sys.modules, "segue.tfrecord", tfrecord)
    written = toy.write(tmp_path, "toy", files=3, count=10, shortest=12, longest=14, seed=5)
    examples = list(toy.make(10, 12, 14, seed=5))
    read = [
        (f"{path.name}:{offset}", *tfrecord.decode_sequence_example(data))
        for path in sorted(tmp_path.iterdir())
        for offset, data in tfrecord.read_records(path)
    ]
    assert [key for key, _, _ in read] == [w.key for w in written]
    assert len(list(tmp_path.iterdir())) == 3
    for (_, context, sequences), w, example in zip(read, written, examples, strict=True):
        assert context["steps"].tolist() == [w.steps] == [len(example["token"])]
        assert np.concatenate(sequences["token"]).tobytes() == example["token"].tobytes()
        assert np.concatenate(sequences["label"]).tolist() == example["label"].tolist()


# -- gradients -----------------------------------------------------------------------------------


def test_channel_carries_messages_and_notices_the_end():
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    ours.send({"kind": "sum", "n": 3}, b"\x00\xff" * 3)
    ours.send({"kind": "bye"})
    assert other.receive() == ({"kind": "sum", "n": 3}, b"\x00\xff" * 3)
    assert other.receive() == ({"kind": "bye"}, b"")
    ours.close()
    with pytest.raises(EOFError):
        other.receive()
    other.close()


def test_channel_cut_in_the_middle_of_a_message():
    one, end = socket.socketpair()
    channel = Channel(end)
    one.sendall(b"\x05" + bytes(15) + b"{")
    one.close()
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_gradients_are_added_in_lane_order():
    """Float sums depend on their order: here ((a + b) + c) and no other."""
    lanes = [np.float32([1e8, 1]), np.float32([-1e8, 2]), np.float32([1, 4])]
    blob = b"".join(lane.tobytes() for lane in lanes)
    assert add_in_lane_order(blob, 3).tolist() == [1.0, 7.0]
    assert add_in_lane_order(lanes[0].tobytes(), 1).tolist() == [1e8, 1]
    swapped = lanes[1].tobytes() + lanes[2].tobytes() + lanes[0].tobytes()
    assert add_in_lane_order(swapped, 3).tolist() == [0.0, 7.0]


# -- pairs ---------------------------------------------------------------------------------------


def test_pair_round_trip_and_replacement(tmp_path):
    path = tmp_path / "pair.npz"
    for rounds in (3, 9):
        arrays = {"weights": np.arange(5, dtype=np.float32) / rounds}
        tokens = {"lane/0": b"\x00token", "lane/1": bytes(range(256)), "lane/2": b""}
        checkpoint.save(path, checkpoint.Checkpoint(rounds, arrays, tokens))
        loaded = checkpoint.load(path)
        assert loaded.rounds == rounds and loaded.tokens == tokens
        assert loaded.arrays["weights"].tobytes() == arrays["weights"].tobytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pair.npz"]


def test_an_unfinished_pair_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "pair.npz"
    checkpoint.save(path, checkpoint.Checkpoint(3, {}, {"lane/0": b"x"}))

    def fail(fd):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises(OSError):
        checkpoint.save(path, checkpoint.Checkpoint(4, {}, {"lane/0": b"y"}))
    assert checkpoint.load(path).rounds == 3


# -- the history's check -------------------------------------------------------------------------

DATA = [toy.Sequence("f:0", 7), toy.Sequence("f:90", 3), toy.Sequence("f:150", 6)]


def good() -> list[Row]:
    """Segments of 3 steps; lane 0 has f:0 and f:150 one after the other, lane 1 f:90 twice."""
    return [
        Row(0, 0, 0, "00000_of_00003:f:0"),
        Row(1, 0, 0, "00000_of_00001:f:90"),
        Row(0, 1, 0, "00001_of_00003:f:0"),
        Row(0, 2, 0, "00002_of_00003:f:0"),
        Row(0, 3, 0, "00000_of_00002:f:150"),
        Row(0, 4, 0, "00001_of_00002:f:150"),
    ]


def problems(rows: list[Row], complete: bool = True, rounds: int = 5) -> str:
    return "; ".join(history.problems(rows, DATA, 3, 1, rounds, 2, complete))


def test_history_of_a_good_training():
    assert problems(good()) == ""
    assert problems(good()[:3], complete=False) == ""
    assert history.rounds_expected(DATA, num_unroll=3, batch_rows=4, epochs=2) == 3


def test_history_finds_each_fault():
    rows = good()
    assert "never, as 00001_of_00002:f:150" in problems(rows[:-1])
    assert "twice, as 00000_of_00001:f:90" in problems([*rows, Row(1, 1, 0, rows[1].key)])
    assert "unasked, as 00000_of_00001:f:90 in epoch 1" in problems(
        [*rows, Row(1, 1, 1, rows[1].key)]
    )
    assert "unasked, as 00000_of_00001:g:0" in problems(
        [*rows, Row(1, 1, 0, "00000_of_00001:g:0")]
    )
    late = [row._replace(step=row.step + (row.step > 0)) for row in rows]
    assert "does not follow on 00000_of_00003:f:0" in problems(late, rounds=6)
    moved = [row._replace(lane=1) if row.step == 2 else row for row in rows]
    assert "does not follow on 00001_of_00003:f:0" in problems(moved)
    headless = [row for row in rows if row.step != 0 or row.lane == 1]
    assert "does not follow" in problems(headless, complete=False)
    assert "beyond 4 rounds" in problems(rows, rounds=4)


# -- the screen ----------------------------------------------------------------------------------


class Output(io.StringIO):
    """A terminal of 30 columns, or a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def lines_shown(output: str) -> list[str]:
    """What is to be seen after the cursor movements that `Screen` makes."""
    lines: list[str] = []
    for part in output.split("\x1b["):
        up = re.match(r"(\d+)F$", part)
        if up:
            del lines[len(lines) - int(up[1]) :]
        else:
            lines += part.removeprefix("J").splitlines()
    return lines


def test_screen_on_a_terminal(monkeypatch):
    output = Output(terminal=True)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("COLUMNS", "30")
    screen = Screen()
    screen.pause = 0
    screen.progress(1, "worker 1 round 1 " + "x" * 50)
    screen.progress(0, "worker 0 round 1")
    assert lines_shown(output.getvalue()) == [
        "    worker 0 round 1",
        "    worker 1 round 1 xxxxxxxx",
    ]
    screen.news("killed")
    screen.progress(0, "worker 0 round 2")
    screen.done()
    screen.progress(0, "worker 0 round 1")
    assert lines_shown(output.getvalue()) == [
        "    killed",
        "    worker 0 round 2",
        "    worker 1 round 1 xxxxxxxx",
        "    worker 0 round 1",
    ]


def test_screen_in_a_log(monkeypatch):
    output = Output(terminal=False)
    monkeypatch.setattr(sys, "stdout", output)
    screen = Screen()
    for i in range(100):
        screen.progress(0, f"worker 0 round {i}")
    screen.news("killed")
    screen.done()
    assert output.getvalue() == "    killed\n    worker 0 round 99\n"


def test_bar():
    assert (bar(-1), bar(2)) == ("░" * 10, "█" * 10)
    assert bar(0.5) == "█" * 5 + "░" * 5


# -- plots ---------------------------------------------------------------------------------------


def test_smooth():
    assert plot.smooth([1, 2, 3, 4], 2, window=1) == [1.5, 3.5]
    assert plot.smooth([1, 2, 3], 10, window=1) == [1, 2, 3]
    assert plot.smooth([1, 2, 3, 4, 50], 5, window=3) == [1.5, 2, 3, 19, 27]
    assert plot.smooth([], 5, window=3) == []


def test_terminal_plot():
    curve = plot.Curve("loss", [4, 3, 2, 1, 0], marks=[plot.Mark(3, 3, "server killed")])
    assert plot.terminal(curve, width=5, height=2).splitlines() == [
        "loss",
        "  4.000 |█▄",
        "  2.000 |███▄",
        "  0.000 +----- round 5",
        "            ^",
        "         ^ round 3: server killed",
    ]
    assert "nothing" in plot.terminal(plot.Curve("loss", []))
    assert plot.terminal(plot.Curve("loss", [0.0, 0.0])), "no division by zero"


def test_png(tmp_path):
    pytest.importorskip("matplotlib")
    marks = [plot.Mark(2, 1, "worker killed"), plot.Mark(3, 3, "server killed")]
    curves = [plot.Curve("a", [3, 2, 1], 2, marks, other=[3, 2, 1]), plot.Curve("b", [0.0])]
    plot.png(tmp_path / "loss.png", curves)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

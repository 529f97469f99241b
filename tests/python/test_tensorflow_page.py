"""docs/tensorflow.md against the package: names, defaults, and its programs, which are run."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.tfrecord import SequenceExampleWriter

PAGE = (Path(__file__).parents[2] / "docs" / "tensorflow.md").read_text()

# The original's, as TensorFlow 1.15 has them.
FUNCTION = (
    "input_key input_sequences input_context input_length initial_states num_unroll batch_size "
    "num_threads=3 capacity=1000 allow_small_batch=True pad=True make_keys_unique=False "
    "make_keys_unique_seed=None name=None"
).split()
BATCH = (
    "batch_size key next_key sequence sequence_count length total_length insertion_index "
    "sequences context state save_state"
).split()
SAVER = "next_batch prefetch_op barrier batch_size num_unroll name close".split()
RNN = "cell inputs state_saver state_name sequence_length=None scope=None".split()


def tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, without their heads."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.M)
    return [
        [[cell.strip() for cell in row.removeprefix("| ").removesuffix(" |").split(" | ")] for row in rows.splitlines()[2:]]
        for rows in found
    ]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def column(table: list[list[str]], number: int) -> list[str]:
    return [each for row in table for each in code(row[number])]


def names(texts: list[str]) -> list[str]:
    """Of `state(...)` and the like the name alone; defaults stay."""
    return [text.partition("(")[0] for text in texts]


def written(function: Callable[..., Any]) -> set[str]:
    """The parameters of a function as the page has them."""
    found = set()
    for name, each in inspect.signature(function).parameters.items():
        default = "" if each.default is each.empty else f"={each.default!r}".replace("'", '"')
        found.add(name + default)
    return found


def test_all_arguments_are_there() -> None:
    there, more = tables("batch_sequences_with_states")
    assert column(there, 0) == FUNCTION
    here = [text for text in column(there, 1) if not text.startswith("Example(")]
    assert len(set(here)) == len(here)
    assert set(here) | set(column(more, 0)) == written(segue.batch_sequences_with_states)
    assert not set(here) & set(column(more, 0))


def test_what_stands_for_them_elsewhere_is_there() -> None:
    there, _ = tables("batch_sequences_with_states")
    known = set(inspect.signature(segue.Client.stream).parameters)
    seen = 0
    for text in column(there, 1) + column(there, 2):
        match = re.fullmatch(r"(?:(\w+)\()?(\w+)(?:=[\w\"]*)?", text.removesuffix(")"))
        assert match, text
        owner, name = match[1] or "", match[2]
        if owner:
            assert name in inspect.signature(getattr(segue, owner)).parameters, text
            seen += 1
        elif text in column(there, 2):
            assert name in known or hasattr(segue, name), text
            seen += 1
    assert seen > 12
    for kind in re.findall(r"`segue\.([\w.]+)", PAGE):
        thing: Any = segue
        for part in kind.split("."):
            if part == "torch":
                pytest.importorskip("segue.torch")
            thing = getattr(thing, part)


def batches() -> segue.SequenceBatches:
    return segue.batch_sequences_with_states(
        [segue.Example({"x": np.zeros(3, np.float32)}, key="a")],
        initial_states={"h": np.float32(0)},
        num_unroll=2,
        batch_size=1,
    )


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_all_attributes_of_a_batch_are_there() -> None:
    (table,) = tables("NextQueuedSequenceBatch")
    assert set(names(column(table, 0))) == set(BATCH)
    here = set(column(table, 1))
    with batches() as source:
        assert public(next(source)) == here


def test_all_attributes_of_the_saver_are_there() -> None:
    (table,) = tables("SequenceQueueingStateSaver")
    assert set(names(column(table, 0))) == set(SAVER)
    with batches() as source:
        for name in public(source):
            assert re.search(rf"`(?:batches\.)?{name}\b", PAGE), name
        for text in column(table, 1):
            name = re.match(r"\w+", text)
            assert name and name[0] in public(source) | {"next", "for", "with"}, text


def test_all_arguments_of_the_rnn_are_there() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    from segue.torch import static_state_saving_rnn

    (table,) = tables("static_state_saving_rnn")
    assert column(table, 0) == RNN
    assert set(column(table, 1)) == written(static_state_saving_rnn)


def programs() -> dict[str, str]:
    return dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))


def run(directory: Path, *names: str) -> list[list[str]]:
    """What each prints, in lines; one process, for it takes seconds to import PyTorch."""
    each = "import runpy, sys\nfor name in sys.argv[1:]: runpy.run_path(name); print('end')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", each, *names],
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [part.splitlines() for part in done.stdout.split("end\n")[:-1]]


def test_its_programs_do_the_same(tmp_path: Path) -> None:
    """The losses of both: the batches hold the same rows, though in another order."""
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    rng = np.random.default_rng(4)
    (tmp_path / "data").mkdir()
    with SequenceExampleWriter(tmp_path / "data" / "a.tfrecord") as writer:
        for number in range(12):
            x = rng.standard_normal((rng.integers(1, 24), 2)).astype(np.float32)
            label = (np.cumsum(x[:, 0]) > 0).astype(np.int64)
            writer.write({"x": x, "label": label}, {"speaker": number})
    assert list(programs()) == ["same.py", "native.py"]
    for name, text in programs().items():
        (tmp_path / name).write_text(text)
    # The last one once more: from its last checkpoint on.
    same, native, again = run(tmp_path, *programs(), "native.py")
    assert len(same) == len(native) > 15
    for one, two in zip(same, native, strict=True):
        assert one.split()[:2] == two.split()[:2]
        assert float(one.split()[-1]) == pytest.approx(float(two.split()[-1]), abs=1e-4)
    assert again == native[len(native) // 10 * 10 :]

#!/usr/bin/env python3
"""A notebook that shows TensorFlow's batch_sequences_with_states, step by step, on segue.

    notebook.py                     the data, the records, eight batches: all that it prints
    notebook.py --train             and its LSTM, trained with PyTorch, which takes minutes
    notebook.py --train --curve curve.svg       its loss and accuracy as a picture (matplotlib)

The task: a sequence of 12 to 14 random values between 0 and 1, one a step; the label of a step is 1
once the sum so far exceeds a quarter of the sequence's length. The notebook drew its data without a
seed: of its sequences, and of its initial states, what it shows is written down here.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from pprint import pprint
from typing import Any

import numpy as np

import segue
from segue.tfrecord import SequenceExampleWriter, decode_sequence_example, read_records

TOKEN, LABEL = "token", "label"
FILE = "toydata.tfrecords"
SHORTEST, LONGEST, COUNT = 12, 14, 100
NUM_UNROLL, BATCH_SIZE = 3, 2
FEATURES = {TOKEN: segue.Feature("float32"), LABEL: segue.Feature("int64")}

# The first four sequences, and the states that sequences begin with.
SHOWN = """
0.39676616 0.86157441 0.83979143 0.67745519 0.20498841 0.2182948  0.23537936 0.12690887 0.14148605
0.955402763 0.54239793 0.39336251;
0.22966606 0.54282423 0.48165246 0.17545146 0.49743892 0.96969642 0.30970795 0.57493861 0.36068693
0.08612079 0.785074744 0.52802721 0.91969071 0.60057449;
0.13858428 0.42406717 0.0669202049 0.81489591 0.37393337 0.94317965 0.99856732 0.89698231 0.48522192
0.2183444  0.48269078 0.47967869;
0.22425017 0.97210877 0.86698953 0.2286461  0.128062154 0.24681088 0.60760401 0.96746138 0.49992784
0.21748109 0.92627136 0.33691707 0.67201917
"""
STATES = {
    "lstm_state_c": """
        0.96406707 0.63527062 0.02453578 0.55637392 0.61685748 0.62238103 0.01480179 0.77377287""",
    "lstm_state_h": """
        0.1720632 0.7212568 0.9412366 0.012278 0.63105657 0.17493996 0.12981576 0.53359212""",
}


def numbers(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64)


def make(seed: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The sequences: tokens [n] float64, labels [n] int64. Those not shown are seeded."""
    rng = np.random.default_rng(seed)
    shown = [numbers(text) for text in SHOWN.split(";")]
    for number in range(COUNT):
        tokens = rng.random(rng.integers(SHORTEST, LONGEST + 1))
        if number < len(shown):
            tokens = shown[number]
        yield tokens, (np.cumsum(tokens) > len(tokens) / 4).astype(np.int64)


def write(path: Path) -> None:
    """Writes the data set, and shows the first five sequences."""
    with SequenceExampleWriter(path) as writer:
        for number, (tokens, labels) in enumerate(make()):
            if number < 5:
                pprint(tokens)
                pprint(labels)
                print("\n")
            writer.write({TOKEN: tokens, LABEL: labels})


def show_records(path: Path) -> None:
    """The first five records of the file, with their keys."""
    for record in islice(read_records(path), 5):
        _, sequences = decode_sequence_example(record.data)
        tokens, labels = (np.concatenate(sequences[name]) for name in (TOKEN, LABEL))
        print(f"{path.name}:{record.offset}")
        print("tokens:\t", tokens)
        print("labels:\t", labels, "\n")


def batches(path: Path, states: dict[str, np.ndarray], **options: Any) -> segue.SequenceBatches:
    """Batches of the file, for ever, the keys of each pass with other numbers."""
    return segue.batch_sequences_with_states(
        segue.TFRecord(path),
        sequences=FEATURES,
        initial_states=states,
        num_unroll=NUM_UNROLL,
        batch_size=BATCH_SIZE,
        **{
            "allow_small_batch": False,
            "make_keys_unique": True,
            "make_keys_unique_seed": 29392,
            "epochs": None,
        }
        | options,
    )


def show_batches(path: Path, count: int = 8) -> None:
    """So many batches; each adds 1 to the states."""
    with batches(path, {name: numbers(text) for name, text in STATES.items()}) as source:
        for number, batch in enumerate(islice(source, count), 1):
            state_c, state_h = (batch.state(name) for name in STATES)
            print(f"Iteration {number}:")
            for name, value in {
                "keys": np.array(batch.key, object),
                "sequences": batch.sequences[TOKEN],
                "labels": batch.sequences[LABEL],
                "state_c": state_c,
                "state_h": state_h,
            }.items():
                print(name, "\n", value)
            print("\n")
            batch.save_state("lstm_state_c", state_c + 1)
            batch.save_state("lstm_state_h", state_h + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true", help="train the LSTM, too")
    parser.add_argument("--steps", type=int, default=30000, help="of the optimizer (%(default)s)")
    parser.add_argument("--curve", type=Path, help="file for a picture of loss and accuracy")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("--steps: 1 or more")
    if options.curve and (not options.train or options.curve.suffix not in (".png", ".svg")):
        parser.error("--curve: a .png or .svg, of what --train does")
    for package in ["torch"] * options.train + ["matplotlib"] * bool(options.curve):
        if not importlib.util.find_spec(package):
            parser.error(f"{package} is not installed: pip install {package}")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / FILE
        write(path)
        show_records(path)
        show_batches(path)
        if options.train:
            import notebook_lstm

            notebook_lstm.run(path, options.steps, options.curve)


if __name__ == "__main__":
    main()

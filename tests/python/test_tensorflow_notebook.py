"""examples/notebook.py prints what the notebook shows, and its LSTM learns."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "bindings" / "python" / "examples"
SEED = "seeds/002_aded3781008abca4.txt"
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# What the notebook shows of its data, of its records and of its batches; each is cut off there.
SHOWN = [
    """\
array([0.39676616, 0.86157441, 0.83979143, 0.67745519, 0.20498841,
       0.2182948 , 0.23537936, 0.12690887, 0.14148605, 0.95540276,
       0.54239793, 0.39336251])
array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])


array([0.22966606, 0.54282423, 0.48165246, 0.17545146, 0.49743892,
       0.96969642, 0.30970795, 0.57493861, 0.36068693, 0.08612079,
       0.78507474, 0.52802721, 0.91969071, 0.60057449])
array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])


array([0.13858428, 0.42406717, 0.0669202 , 0.81489591, 0.37393337,
       0.94317965, 0.99856732, 0.89698231, 0.48522192, 0.2183444 ,
       0.48269078, 0.47967869])
array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])


array([0.22425017, 0.97210877, 0.86698953, 0.2286461 , 0.12806215,
       0.24681088, 0.60760401, 0.96746138, 0.49992784, 0.21748109,
       0.92627136, 0.33691707, 0.67201917])
array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
""",
    """\
toydata.tfrecords:0
tokens:	 [0.39676616 0.8615744  0.8397914  0.6774552  0.2049884  0.2182948
 0.23537935 0.12690887 0.14148605 0.9554028  0.5423979  0.39336252]
labels:	 [0 0 0 0 0 1 1 1 1 1 1 1]

toydata.tfrecords:246
tokens:	 [0.22966605 0.5428242  0.48165247 0.17545146 0.4974389  0.9696964
 0.30970794 0.5749386  0.36068693 0.08612079 0.7850748  0.52802724
 0.9196907  0.6005745 ]
labels:	 [0 0 0 0 0 0 0 1 1 1 1 1 1 1]

toydata.tfrecords:527
tokens:	 [0.13858429 0.42406717 0.06692021 0.8148959  0.37393337 0.94317967
 0.99856734 0.8969823  0.48522192 0.2183444  0.48269078 0.4796787 ]
labels:	 [0 0 0 0 0 0 1 1 1 1 1 1]

toydata.tfrecords:773
tokens:	 [0.22425017 0.9721088  0.86698955 0.2286461  0.12806216 0.24681088
 0.607604   0.9674614  0.49992785 0.21748109 0.9262714  0.33691707
""",
    """\
Iteration 1:
keys
 [b'00000_of_00004:toydata.tfrecords:079098054'
 b'00000_of_00005:toydata.tfrecords:24651255884']
sequences
 [[0.39676616 0.8615744  0.8397914 ]
 [0.22966605 0.5428242  0.48165247]]
labels
 [[0 0 0]
 [0 0 0]]
state_c
 [[0.96406707 0.63527062 0.02453578 0.55637392 0.61685748 0.62238103
  0.01480179 0.77377287]
 [0.96406707 0.63527062 0.02453578 0.55637392 0.61685748 0.62238103
  0.01480179 0.77377287]]
state_h
 [[0.1720632  0.7212568  0.9412366  0.012278   0.63105657 0.17493996
  0.12981576 0.53359212]
 [0.1720632  0.7212568  0.9412366  0.012278   0.63105657 0.17493996
  0.12981576 0.53359212]]


Iteration 2:
keys
 [b'00001_of_00004:toydata.tfrecords:079098054'
 b'00001_of_00005:toydata.tfrecords:24651255884']
sequences
 [[0.6774552  0.2049884  0.2182948 ]
 [0.17545146 0.4974389  0.9696964 ]]
labels
 [[0 0 1]
 [0 0 0]]
state_c
 [[1.96406707 1.63527062 1.02453578 1.55637392 1.61685748 1.62238103
  1.01480179 1.77377287]
 [1.96406707 1.63527062 1.02453578 1.5563
""",
]


def output(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "notebook.py"), *arguments],
        env=os.environ | THREADS,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return trimmed(done.stdout)


def trimmed(text: str) -> str:
    """Without the blanks at the ends of lines."""
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def printed() -> str:
    return output()


def test_what_it_prints_is_what_the_notebook_shows(printed: str) -> None:
    at = 0
    for shown in SHOWN:
        begin = shown.splitlines()[0]
        at = printed.index(begin, at)
        assert printed[at : at + len(shown) - 1] == shown[:-1]


def test_the_notebook_does_show_that() -> None:
    path = Path(os.environ.get("SEGUE_TEST_SHARED", Path(__file__).parents[3] / "shared")) / SEED
    if not path.exists():
        pytest.skip(f"the notebook is not at hand: {path} (SEGUE_TEST_SHARED)")
    notebook = trimmed(path.read_text())
    for shown in SHOWN:
        assert shown[:-1] in notebook


def test_the_rest_follows_the_rules(printed: str) -> None:
    """Behind what is shown: a sequence of 14 steps, whose last segment has one step of padding."""
    iterations = printed[printed.index("Iteration 1:") :].split("Iteration ")[1:]
    keys = [re.findall(r"b'(\d+_of_\d+:toydata\.tfrecords:\d+)'", text) for text in iterations]
    assert [len(pair) for pair in keys] == [2] * 8
    assert keys[3] == [
        "00003_of_00004:toydata.tfrecords:079098054",
        "00003_of_00005:toydata.tfrecords:24651255884",
    ]
    assert keys[4][0] == "00004_of_00005:toydata.tfrecords:24651255884"
    assert keys[4][1].startswith("00000_of_00004:toydata.tfrecords:527")
    assert keys[5][1].startswith("00000_of_00005:toydata.tfrecords:773")
    assert "[[0.9196907  0.6005745  0.        ]\n" in iterations[4]
    assert "[[1 1 0]\n" in iterations[4]
    assert "[[4.96406707" in iterations[4] and "\n [0.96406707" in iterations[4]


def test_the_lstm_learns_from_what_is_carried_and_its_curve_is_drawn(tmp_path: Path) -> None:
    """Without the states some 55 % are right. docs/notebook.svg is of the whole training."""
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --ci)")
    path = tmp_path / "curve.svg"
    drawn = importlib.util.find_spec("matplotlib") is not None
    curve = ["--curve", str(path)] if drawn else []
    last = output("--train", "--steps", "300", *curve).splitlines()[-1]
    share = re.match(r"([\d.]+)% of all steps right", last)
    assert share and float(share[1]) > 80, last
    if not drawn:
        pytest.skip("matplotlib is not installed")
    assert path.read_text().startswith("<?xml") and path.stat().st_size > 5000

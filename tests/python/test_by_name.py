"""Streams that exist, opened by their names: one process makes them, all others need not know how."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import little
import segue
from segue.tfrecord import SequenceExampleWriter
from test_cli import FINE, environment, run
from test_guide_c import built
from test_resume import kill, refused, server_pid

KINDS = ["tfrecord", "files", "arrays", "mix"]


def server_ended(directory: Path) -> None:
    """The server of a store ends when its last user has left."""
    until = time.monotonic() + 30
    while (directory / "segue.sock").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def make(kind: str, seed: int) -> cases.Case:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    some: dict[str, Any] = {"epochs": 1, "tail": "shrink", "on_error": "raise"}
    case = cases.make_mix("train", rng, **some) if kind == "mix" else cases.make(
        "train", rng, kind, **some
    )
    case.options["persist"] = True
    return case


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source(kind: str, tmp_path: Path, directory: Path) -> None:
    """Beside who makes it, on another server, and on one that was killed: what the model says."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    print(f"SEGUE_TEST_SEED={seed}")
    case = make(kind, seed)
    data = tmp_path / "data"
    cases.write(case, data)
    wanted = cases.in_order(case, list(range(case.spec.lanes)))

    def go_through(stream: segue.Stream) -> None:
        assert stream.records == len(cases.model(case).records)
        assert (stream.num_unroll, stream.batch_size, stream.lanes, stream.epoch_end) == (
            case.spec.num_unroll, case.spec.batch_size, case.spec.lanes, case.spec.epoch_end
        )  # fmt: skip
        with stream.loader(start="fresh", rank=0, world_size=1) as loader:
            cases.check(loader, case, wanted)

    with segue.open(directory) as client:
        with cases.open_stream(client, case, data), segue.open(directory) as other:
            go_through(cases.open_by_name(other, case))
    server_ended(directory)
    with segue.open(directory) as client:
        go_through(cases.open_by_name(client, case))
        kill(server_pid(client))
        with segue.open(directory) as other:
            go_through(cases.open_by_name(other, case))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    little.write(tmp_path)
    return tmp_path


@pytest.fixture
def trace(data: Path, tmp_path: Path) -> list[str]:
    """All batches of the little stream."""
    with segue.open(tmp_path / "elsewhere") as client:
        return little.rest(little.open_stream(client, data).loader(start="fresh"))


def test_what_does_not_exist(client: segue.Client) -> None:
    with refused(segue.NotFoundError, "there is no stream 'train'", "Give its source"):
        client.stream("train")
    with refused(segue.ArgumentError, "name: 'a:b' is not a name"):
        client.stream("a:b")
    with refused(segue.ArgumentError, "num_unroll", "where source is given"):
        client.stream("train", segue.Files("x"), {"x": segue.Feature("float32")})


def test_going_on(directory: Path, data: Path, trace: list[str]) -> None:
    """From where the store stands, and from a state dict."""
    with segue.open(directory) as client:
        loader = little.open_stream(client, data).loader(start="fresh")
        seen = []
        for batch in loader:
            seen.append(little.seen(batch))
            little.work(batch)
            if len(seen) == 5:
                break
        batch.commit()
        token = loader.state_dict()
    server_ended(directory)
    with segue.open(directory) as client:
        stream = client.stream("train")
        assert seen + little.rest(stream.loader(start="continue")) == trace
        loader = stream.loader()
        loader.load_state_dict(token)
        assert seen + little.rest(loader) == trace


def test_not_stored(directory: Path, data: Path, trace: list[str]) -> None:
    """A stream of which nothing is stored is there as long as somebody has it open."""
    with segue.open(directory) as client, segue.open(directory) as other:
        with little.open_stream(client, data, persist=False):
            stream = other.stream("train")
            assert not stream.persist
            assert little.rest(stream.loader()) == trace
            with refused(segue.SpecError, "false in the store, true asked for"):
                other.stream("train", persist=True)
            stream.close()
        with refused(segue.NotFoundError, "there is no stream 'train'"):
            until = time.monotonic() + 10
            while time.monotonic() < until:  # it is swept when its last user has left
                other.stream("train").close()


def test_who_gives_the_source_may_come_back_later(directory: Path, data: Path) -> None:
    """The next server is told of a stream that is not stored by its maker alone."""
    with segue.open(directory) as client, segue.open(directory) as other:
        batches = iter(little.open_stream(client, data, persist=False).loader(lanes=[0]))
        others = iter(other.stream("train").loader(lanes=[1]))
        for some in (batches, others):
            little.work(next(some))
        kill(server_pid(client))
        maker = threading.Timer(0.5, lambda: [little.work(batch) for batch in batches])
        maker.start()
        for batch in others:
            little.work(batch)
        assert batch.step > 5  # beyond what lay ready
        maker.join()


CONTRADICTIONS = [
    ({"num_unroll": 3}, "num_unroll: 2 in the store, 3 asked for"),
    ({"batch_size": 1}, "batch_size: 2 in the store, 1 asked for"),
    ({"lanes": 1}, "lanes: 2 in the store, 1 asked for"),
    ({"shuffle": False}, "shuffle: true in the store, false asked for"),
    ({"seed": 0}, "seed: 7 in the store, 0 asked for"),
    ({"tail": "shrink"}, "tail: stop in the store, shrink asked for"),
    ({"sequences": {"y": segue.Feature("float32")}}, '"x": in the store, not asked for'),
    ({"context": {"c": segue.Feature("float32")}}, '"c": not in the store, asked for'),
    ({"states": {}}, '"h": in the store, not asked for'),
]


@pytest.mark.parametrize("there", ["open", "stored"])
def test_contradictions(directory: Path, data: Path, there: str) -> None:
    """What is given, and only that, is compared: the usual value, too."""
    with segue.open(directory) as client:
        options: dict[str, Any] = {"shuffle": True, "seed": 7, "tail": "stop"}
        stream = little.open_stream(client, data, **options)
        if there == "stored":
            stream.close()
            kill(server_pid(client))
        for given, says in CONTRADICTIONS:
            with segue.open(directory) as other, refused(segue.SpecError, says):
                other.stream("train", **given)
        with segue.open(directory) as other:
            other.stream("train", sequences={"x": segue.Feature("float32")}, **options, lanes=2)


def test_initial_values(client: segue.Client, data: Path) -> None:
    """The store has a hash of them: they are given where they are not zeros."""
    init = np.arange(3, dtype=np.float32)
    source = segue.TFRecord(data / "data.tfrecord")
    states = {"h": segue.State("float32", [3], init=init)}
    sequences = {"x": segue.Feature("float32")}
    with client.stream("train", source, sequences, states=states, num_unroll=2, batch_size=2):
        with refused(segue.ArgumentError, "states['h']", "give all states, with init"):
            client.stream("train")
        with refused(segue.SpecError, "initial value"):
            client.stream("train", states={"h": segue.State("float32", [3])})
        stream = client.stream("train", states=states)
        batch = next(iter(stream.loader(start="fresh", rank=0, world_size=1)))
        assert (batch.state("h") == init).all()


def test_options_that_are_free(client: segue.Client, data: Path) -> None:
    """They are as they were when the stream was made, unless they are given."""
    little.open_stream(client, data, depth=7).close()

    def depth(**options: Any) -> int:
        with client.stream("train", **options) as stream:
            with stream.loader(start="fresh", lanes=[0]) as loader:
                next(iter(loader))
                (lane,) = (
                    lane for lane in client.status()["streams"][0]["lanes"] if lane["lane"] == 0
                )
                return int(lane["depth"])

    assert depth() == 7
    assert depth(depth=3) == 3


def test_growing(directory: Path, data: Path) -> None:
    with segue.open(directory) as client, segue.open(directory) as other:
        little.open_stream(client, data, epochs=1)
        first = little.rest(other.stream("train").loader(start="fresh", rank=0, world_size=1))
        with little.open_stream(client, data, epochs=3):
            more = little.rest(other.stream("train").loader(start="continue", rank=0, world_size=1))
        assert len(more) > len(first)
        with refused(segue.SpecError, "epochs=1 is asked for"):
            other.stream("train", epochs=1)
        stream = other.stream("train", epochs=4)
        assert little.rest(stream.loader(start="continue", rank=0, world_size=1))
        kill(server_pid(client))
    with segue.open(directory) as client:
        stream = client.stream("train")
        assert little.rest(stream.loader(start="continue", rank=0, world_size=1)) == []


def test_changed_data(directory: Path, data: Path) -> None:
    with segue.open(directory) as client:
        little.open_stream(client, data)
    server_ended(directory)
    with SequenceExampleWriter(data / "data.tfrecord") as writer:
        writer.write({"x": np.zeros(3, np.float32)}, {})
    with segue.open(directory) as client:
        with refused(segue.ChangedError, "data.tfrecord"):
            client.stream("train")
    server_ended(directory)
    (data / "data.tfrecord").unlink()
    with segue.open(directory) as client:
        with refused(segue.SourceError, "data.tfrecord"):
            client.stream("train")


@pytest.mark.parametrize("kind", KINDS)
def test_moved_data(kind: str, tmp_path: Path, directory: Path) -> None:
    """Who gives their new place once gives it for all."""
    case = make(kind, 11)
    old, new = tmp_path / "data", tmp_path / "moved"
    cases.write(case, old)
    wanted = cases.in_order(case, list(range(case.spec.lanes)))
    with segue.open(directory) as client:
        cases.open_stream(client, case, old)
    server_ended(directory)
    shutil.copytree(old, new)
    shutil.rmtree(old)
    with segue.open(directory) as client:
        with refused(segue.SourceError, str(old), "open it once with its source"):
            cases.open_by_name(client, case)
        parts = [(part.case, new / name) for name, part in case.parts.items()]
        for one, place in [(case, new), *parts]:
            if one.arrays:
                cases.write(one, place)  # it knows the paths
        with cases.open_stream(client, case, new):
            pass
    server_ended(directory)
    with segue.open(directory) as client:
        with cases.open_by_name(client, case) as stream:
            with stream.loader(start="fresh", rank=0, world_size=1) as loader:
                cases.check(loader, case, wanted)


def test_seen_on_the_server_before(directory: Path, data: Path) -> None:
    """Who has seen a stream, and asks for it by name on the next server, may come there first."""
    with segue.open(directory) as client, segue.open(directory) as other:
        batches = iter(little.open_stream(client, data, persist=False).loader(lanes=[0]))
        little.work(next(batches))
        assert other.status()["streams"]
        kill(server_pid(client))
        assert not other.inspect()["streams"]  # of the next server, where nobody has it yet
        maker = threading.Timer(0.5, lambda: [little.work(batch) for batch in batches])
        maker.start()
        assert other.stream("train").records == len(little.LENGTHS)
        maker.join()


def test_dropped(client: segue.Client, data: Path, directory: Path) -> None:
    with segue.open(directory) as other:
        little.open_stream(client, data)
        stream = other.stream("train")
        client.drop("train")
        with refused(segue.NotFoundError, "has been dropped"):
            next(iter(stream.loader()))
        with refused(segue.NotFoundError, "there is no stream 'train'"):
            other.stream("train")


def test_a_restored_backup(directory: Path, data: Path, tmp_path: Path, trace: list[str]) -> None:
    with segue.open(directory) as client:
        loader = little.open_stream(client, data).loader(start="fresh")
        seen = [little.seen(batch) for batch in _some(loader, 6)]
        loader.close()
        assert run("backup", directory, tmp_path / "backup").returncode == FINE
    assert run("restore", tmp_path / "backup", tmp_path / "other").returncode == FINE
    with segue.open(tmp_path / "other") as client:
        loader = client.stream("train").loader(start="continue", rank=0, world_size=1)
        assert seen + little.rest(loader) == trace


FROM_C = """
#include <segue/segue.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_spec *spec;
	int rc = segue_open(argc > 1 ? argv[1] : "", NULL, &client);

	if (rc)
		return 1;
	printf("%d\\n", segue_stream_find(client, "none", &spec) == SEGUE_ENOTFOUND);
	rc = segue_stream_find(client, "train", &spec);
	if (rc)
		return 2;
	rc = segue_spec_set(spec, SEGUE_SPEC_DEPTH, 3);
	printf("%d\\n", rc);
	rc = segue_stream_open(client, spec, &stream);
	printf("%d %d\\n", rc, (int)segue_stream_records(stream));
	segue_spec_set(spec, SEGUE_SPEC_SEED, 9);
	rc = segue_stream_open(client, spec, &stream);
	printf("%s\\n", rc == SEGUE_ESPEC ? "ESPEC" : "?");
	segue_spec_destroy(spec);
	segue_stream_close(stream);
	segue_client_close(client);
	return 0;
}
"""


def test_from_c(directory: Path, data: Path) -> None:
    with segue.open(directory) as client:
        little.open_stream(client, data).close()
        output = subprocess.run(
            [built(data, FROM_C), directory], capture_output=True, text=True, timeout=60
        )
    records = len(little.LENGTHS)
    assert output.stdout == f"1\n0\n0 {records}\nESPEC\n", output


def _some(loader: segue.Loader, count: int) -> Any:
    for number, batch in enumerate(loader):
        little.work(batch)
        yield batch
        if number == count - 1:
            batch.commit()
            return


RANK = """
import sys, time
import little, segue
from pathlib import Path
rank, directory, data = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
with segue.open(directory, progress=lambda *_: None) as client:
    def opened():
        if rank == 0:
            return little.open_stream(client, data)
        while not client.status()["streams"] + client.inspect()["streams"]:
            time.sleep(0.001)
        return client.stream("train")  # once: also if the server is killed from here on
    stream = opened()
    print(stream.records, flush=True)
    with stream.loader(start="fresh", rank=rank, world_size=2) as loader:
        for batch in loader:
            print(little.seen(batch), flush=True)
            little.work(batch)
            if batch.step == 30:
                break
"""


def index_by_two(directory: Path, data: Path, killed: bool, count: int) -> int:
    """Both ranks get through; returns how often the server was killed meanwhile."""
    with segue.open(directory) as client:
        paths = [os.fspath(Path(__file__).parent), os.environ.get("PYTHONPATH")]
        env = environment(PYTHONPATH=":".join(filter(None, paths)))
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), str(directory), str(data)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
            )
            for rank in range(2)
        ]  # fmt: skip
        over = threading.Event()
        kills = 0

        def kill_it() -> None:
            nonlocal kills
            while killed and kills < 2 and not over.wait(0.002):
                streams = client.status()["streams"]
                if [stream["state"] for stream in streams] == ["opening"]:
                    kill(server_pid(client))
                    kills += 1

        thread = threading.Thread(target=kill_it)
        thread.start()
        outputs = [rank.communicate(timeout=120) for rank in ranks]
        over.set()
        thread.join()
        assert [rank.returncode for rank in ranks] == [0, 0], outputs
        for out, _ in outputs:
            assert out.split()[0] == str(count) and len(out.split()) == 32
        assert len(client.inspect()["streams"]) == 1
    return kills


MANY = 60_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the data of so many records."""
    folder = tmp_path_factory.mktemp("many")
    with SequenceExampleWriter(folder / "data.tfrecord") as writer:
        for i in range(MANY // 100):
            writer.write({"x": np.full(1 + i % 3, i, np.float32)}, {})
    (folder / "data.tfrecord").write_bytes(100 * (folder / "data.tfrecord").read_bytes())
    return folder


@pytest.mark.parametrize("killed", [False, True])
def test_while_it_is_being_indexed(directory: Path, many: Path, killed: bool) -> None:
    """Two ranks, of which one alone gives the source; also where the server is killed meanwhile."""
    for attempt in range(5):  # on a busy machine an index may be made before it is seen
        if index_by_two(directory / str(attempt), many, killed, MANY) or not killed:
            return
    raise AssertionError("the index was made too fast for this test")

"""Streams that are dropped: all of them goes, and nothing of it comes back under the name."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import little
import segue
from test_cli import FINE, USAGE, WRONG, environment, fails, program, report, run, until
from test_resume import kill, refused, server_pid


def used(client: segue.Client, tmp_path: Path, **options: Any) -> segue.Stream:
    """The little stream after a training, with final states and checkpoints."""
    stream = little.open_stream(client, tmp_path, keep_final=True, **options)
    with stream.loader(start="fresh") as loader:
        for number, batch in enumerate(loader):
            little.work(batch)
            if number == 4:
                loader.state_dict()
    return stream


def values(client: segue.Client) -> int:
    """Values that the store holds."""
    return int(client.verify()["values"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    little.write(tmp_path)
    return tmp_path


def test_nothing_is_left(client: segue.Client, data: Path) -> None:
    before = values(client)
    with used(client, data) as stream:
        key = f"data.tfrecord:{0}"
        assert client.get(key)["found"] and stream.checkpoints()
    client.drop("train")
    assert client.inspect()["streams"] == []
    assert values(client) == before + 1, "but that its id was used"
    with refused(segue.NotFoundError, "nothing"):
        client.get(key)
    with refused(segue.NotFoundError, "'train'", "'segue inspect' shows"):
        client.drop("train")
    with pytest.raises(TypeError, match="expected str"):
        client.drop(stream)  # type: ignore[arg-type]


def test_the_next_of_its_name_is_new(client: segue.Client, data: Path) -> None:
    with used(client, data):
        first = client.inspect("train")["streams"][0]
    client.drop("train")
    with used(client, data, name="other"):
        pass
    with little.open_stream(client, data, batch_size=3) as stream:  # of another spec
        second = client.inspect("train")["streams"][0]
        assert second["id"] > first["id"] and second["lanes"] == []
        batch = next(iter(stream.loader()))  # start=None: there is no position
        assert batch.step == 0 and batch.is_first.all() and not batch.state("h").any()


def test_ids_are_not_used_again_after_a_restart(directory: Path, data: Path) -> None:
    for name in ("one", "two"):
        with segue.open(directory) as client, used(client, data, name=name):
            pid = server_pid(client)
            last = client.inspect(name)["streams"][0]["id"]
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    with segue.open(directory) as client:
        client.drop("two")
        pid = server_pid(client)
    until(lambda: not Path(f"/proc/{pid}").exists())
    with segue.open(directory) as client, little.open_stream(client, data):
        assert client.inspect("train")["streams"][0]["id"] > last


def test_the_index_of_another_stream_stays(client: segue.Client, data: Path) -> None:
    with used(client, data) as stream:
        records = stream.records
    before = values(client)
    with used(client, data, name="other", tail="pad"):  # the same data: lengths of its own use
        pass
    client.drop("other")
    rest = values(client)
    with little.open_stream(client, data, keep_final=True) as stream:
        assert stream.records == records
    # Streams of these features have their lengths in common, of which "train" may have none yet.
    assert before <= rest <= before + 2
    (data / "more").mkdir()
    little.write(data / "more")
    (data / "more" / "data.tfrecord").rename(data / "more" / "other.tfrecord")
    client.stream(
        "elsewhere",
        segue.TFRecord(data / "more" / "*.tfrecord"),
        sequences={"x": segue.Feature("float32")},
        num_unroll=2,
        batch_size=2,
    ).close()
    assert values(client) > rest
    client.drop("elsewhere")
    assert values(client) == rest


def test_a_token_of_before_fits(client: segue.Client, data: Path) -> None:
    with little.open_stream(client, data) as stream, stream.loader(start="fresh") as loader:
        iterator = iter(loader)
        for _ in range(6):
            little.work(next(iterator))
        state = loader.state_dict()
        expected = little.rest(loader)
    client.drop("train")
    with little.open_stream(client, data) as stream, stream.loader() as loader:
        loader.load_state_dict(state)
        assert little.rest(loader) == expected


def test_not_while_a_lane_is_held(client: segue.Client, data: Path) -> None:
    stream = little.open_stream(client, data)
    loader = stream.loader(lanes=[1], start="fresh")
    little.work(next(iter(loader)))
    with refused(segue.BusyError, "'train'", "lane 1", f"process {os.getpid()}, this one", "loader"):
        client.drop("train")
    step = loader.state_dict()  # it goes on as if nothing had been asked
    loader.close()
    client.drop("train")
    assert step and client.inspect()["streams"] == []


def test_not_while_a_lane_is_reserved(directory: Path, data: Path) -> None:
    """Its server is gone, and its worker may come back to the next."""
    client = segue.open(directory)
    with worker(directory, data) as other:
        assert other.ask("next") == "no error"
        lose_server(client)
        said = fails(WRONG, "stream", "rm", directory, "train", "--yes")
        assert "reserved" in said and f"process {other.pid}" in said
        # A server that has not opened the stream, and one that has.
        with refused(segue.BusyError, "reserved", f"process {other.pid}"):
            client.drop("train")
        with little.open_stream(client, data):
            with refused(segue.BusyError, "reserved", f"process {other.pid}"):
                client.drop("train")
    client.drop("train")  # it has ended
    client.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_what_this_process_has_reserved_is_its_own(
    directory: Path, data: Path, is_open: bool
) -> None:
    client = segue.open(directory)
    loader = little.open_stream(client, data).loader(start="fresh")
    iterator = iter(loader)
    little.work(next(iterator))
    lose_server(client)
    with segue.open(directory) as other:
        if is_open:
            little.open_stream(other, data)
        other.drop("train")
        assert other.inspect()["streams"] == []
        with pytest.raises(segue.Error, match="another holder"):
            for batch in iterator:
                little.work(batch)
        with contextlib.suppress(segue.FencedError):
            client.close()


def lose_server(client: segue.Client) -> None:
    pid = server_pid(client)
    kill(pid)
    until(lambda: not Path(f"/proc/{pid}").exists())


WORKER = """
import sys, pathlib, segue, little
client = segue.open(sys.argv[1])
stream = little.open_stream(client, pathlib.Path(sys.argv[2]))
print("open", flush=True)
for line in sys.stdin:
    try:
        loader = stream.loader()
        batch = next(iter(loader))
        print("no error", flush=True)
    except segue.Error as error:
        print(type(error).__name__, error, flush=True)
"""


class Worker:
    """A process that has the stream open, and does what it is told."""

    def __init__(self, directory: Path, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        )
        self.pid = self.process.pid
        assert self.line() == "open"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, word: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()


@contextlib.contextmanager
def worker(directory: Path, data: Path) -> Iterator[Worker]:
    one = Worker(directory, data)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def test_who_has_it_open_is_told(client: segue.Client, directory: Path, data: Path) -> None:
    with worker(directory, data) as other:
        client.drop("train")
        assert client.status()["streams"][0]["state"] == "dropped"
        said = other.ask("next")
        assert said.startswith("NotFoundError") and "has been dropped" in said, said
        with little.open_stream(client, data) as stream:  # a new one beside what is left of it
            assert next(iter(stream.loader())).step == 0
    until(lambda: client.status()["streams"] == [])


def test_killed_at_any_time(tmp_path: Path, data: Path) -> None:
    """The stream is whole, or it is gone; what was left of it goes at the next start."""
    rng = np.random.default_rng(int(os.environ.get("SEGUE_TEST_SEED", "7")))
    whole = gone = 0
    for number in range(12):
        directory = tmp_path / f"store{number}"
        with segue.open(directory) as client:
            empty = values(client)
            for name in ("s1", "s2"):
                used(client, data, name=name).close()
            client.drop("s2")
            alone = values(client)
            used(client, data, name="s2").close()
            pid = server_pid(client)
            timer = threading.Timer(float(rng.uniform(0, 0.02)), kill, [pid])
            timer.start()
            client.drop("s2")  # by the next server, if this one did not come to it
            timer.join()
            assert [s["name"] for s in client.inspect()["streams"]] == ["s1"]
            gone += 1
        until(lambda: not held(directory))
        # Of a killed one: by the program, with nobody to do it a second time.
        with segue.open(directory) as client:
            assert values(client) == alone
            used(client, data, name="s2").close()
            pid = server_pid(client)
        until(lambda: not held(directory))
        remove = subprocess.Popen(
            [program(), "stream", "rm", str(directory), "s2", "--yes"], env=environment()
        )
        try:
            remove.wait(float(rng.uniform(0.0005, 0.02)))
        except subprocess.TimeoutExpired:
            remove.kill()
            remove.wait()
        with segue.open(directory) as client:
            names = [s["name"] for s in client.inspect()["streams"]]
            if "s2" in names:
                whole += 1
                with little.open_stream(client, data, name="s2", keep_final=True) as stream:
                    assert stream.checkpoints()
                    with stream.loader(start="continue") as loader:
                        assert list(loader) == [], "it had come to its end"
                client.drop("s2")
            assert values(client) == alone > empty
    print(f"killed: {whole} whole, {gone} gone")


def held(directory: Path) -> bool:
    return run("status", directory).returncode == FINE


# ---- The command ----


def test_the_command(directory: Path, data: Path) -> None:
    assert "there is no store" in fails(WRONG, "stream", "rm", directory, "train", "--yes")
    with segue.open(directory) as client:
        used(client, data).close()
        used(client, data, name="other").close()
        before = values(client)
        said = fails(WRONG, "stream", "rm", directory, "train")
        assert "--yes" in said and "terminal" in said and values(client) == before
        gone = report("stream", "rm", directory, "train", "--yes")  # by the server
        assert gone["dropped"] == "train" and gone["lanes"] == 2 and gone["checkpoints"] > 0
        assert [s["name"] for s in client.inspect()["streams"]] == ["other"]
        assert "no stream 'train'" in fails(WRONG, "stream", "rm", directory, "train", "--yes")
    until(lambda: not held(directory))
    result = run("stream", "rm", directory, "other", "--yes")  # in the store
    assert (result.returncode, result.stdout, result.stderr) == (FINE, "", "")
    assert report("inspect", directory)["streams"] == []
    assert run("verify", directory).returncode == FINE
    assert fails(USAGE, "stream", "list", directory, "x")
    assert fails(USAGE, "stream", "rm", directory)


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", FINE), ("yes\n", FINE), ("n\n", WRONG), ("\n", WRONG)]
)
def test_it_asks(directory: Path, data: Path, answer: str, status: int) -> None:
    with segue.open(directory) as client:
        used(client, data).close()
        ours, theirs = pty.openpty()
        remove = subprocess.Popen(
            [program(), "stream", "rm", str(directory), "train"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
        )
        os.close(theirs)
        said = os.read(ours, 4096).decode()
        assert "'train'" in said and "2 lanes" in said and "[y/N]" in said
        os.write(ours, answer.encode())
        assert remove.wait(20) == status
        os.close(ours)
        left = [stream["name"] for stream in client.inspect()["streams"]]
        assert left == ([] if status == FINE else ["train"])


# ---- Files that were made for it ----


def made(directory: Path) -> set[str]:
    """What lies in the directories beside the store of which it is the only owner."""
    folders = [directory / "examples", directory / "arrays"]
    return {path.name for folder in folders if folder.exists() for path in folder.iterdir()}


X = {"x": segue.Feature("int64")}
ITEMS = [{"x": np.arange(1 + n)} for n in range(5)]


def over(client: segue.Client, name: str, source: Any, **options: Any) -> segue.Stream:
    return client.stream(name, source, X, num_unroll=2, batch_size=1, **options)


def of_memory() -> segue.Arrays:
    return segue.Arrays({"x": [item["x"] for item in ITEMS]})


def drop(directory: Path, client: segue.Client | None, name: str) -> None:
    if client:
        client.drop(name)
    else:
        assert run("stream", "rm", directory, name, "--yes").returncode == FINE


@pytest.mark.parametrize("served", [True, False])
def test_files_that_were_made_for_it_go(tmp_path: Path, served: bool) -> None:
    """Alone, and as parts of a mix; by whatever name the directory has; what a user gave stays."""
    real, directory = tmp_path / "real", tmp_path / "of [*] it?"
    real.mkdir()
    directory.symlink_to(real)
    np.save(tmp_path / "given.npy", np.arange(7))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(segue.open(directory))
        over(client, "e", segue.Examples(ITEMS)).close()
        over(client, "p", segue.Examples(ITEMS, path=tmp_path / "own.segue")).close()
        over(client, "a", of_memory()).close()
        over(client, "g", segue.Arrays({"x": tmp_path / "given.npy"})).close()
        parts = {"e": (segue.Examples(ITEMS[:3]), 1), "a": (of_memory(), 1)}
        over(client, "m", segue.Mix(parts)).close()
        before = made(directory)
        assert len(before) == 3, "two of Examples, and one of arrays that two streams have"
        if not served:
            stack.close()
        here = client if served else None
        drop(directory, here, "e")
        assert {name for name in before - made(directory)} == {
            name for name in before if name.startswith("e-")
        }
        drop(directory, here, "a")
        assert len(made(directory)) == 2, "the mix has the arrays, too"
        drop(directory, here, "m")
        assert made(directory) == set()
        for name in "pg":
            drop(directory, here, name)
    assert (tmp_path / "own.segue").exists() and (tmp_path / "given.npy").exists()


def test_files_that_another_reads_stay(directory: Path, client: segue.Client) -> None:
    """Also one that is not stored, and one that says it by a pattern."""
    over(client, "e", segue.Examples(ITEMS)).close()
    over(client, "a", of_memory()).close()
    before = made(directory)
    with over(client, "open", of_memory(), persist=False) as other, other.loader() as loader:
        batches = iter(loader)
        next(batches)
        over(client, "pattern", segue.Files(directory / "exam*" / "e-*.segue")).close()
        client.drop("a")
        client.drop("e")
        assert made(directory) == before
        assert sum(1 for _ in batches) == sum((n + 2) // 2 for n in range(5)) - 1
    client.drop("pattern")
    assert made(directory) == before, "what a pattern finds is not its own"


def test_it_is_converted_again(directory: Path, client: segue.Client) -> None:
    """And is the same: a state dict of before goes on in it."""
    with over(client, "e", segue.Examples(ITEMS)) as stream, stream.loader() as loader:
        wanted = [batch.sequences["x"].tolist() for batch in loader]
    with over(client, "e", segue.Examples(ITEMS)) as stream:
        with stream.loader(start="fresh") as loader:
            batches = iter(loader)
            for _ in range(3):
                next(batches)
            kept = loader.state_dict()
    before = made(directory)
    client.drop("e")
    assert made(directory) == set()
    with over(client, "e", segue.Examples(ITEMS)) as stream, stream.loader() as loader:
        loader.load_state_dict(kept)
        assert [batch.sequences["x"].tolist() for batch in loader] == wanted[3:]
    assert made(directory) == before

"""Sequences that are inserted: they come as from files, once, and in their order."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
import segue
from segue import Example, Feature, Files, FileWriter, Push, State
from peer import Service
from test_cli import Server, run
from test_resume import Other, processes  # noqa: F401  # `processes` is a fixture

SEED = int(os.environ.get("SEGUE_TEST_SEED", random.SystemRandom().randrange(2**32)))

FEATURES = {
    "x": Feature("float32", 3),
    "w": Feature("int32", ragged=True),
    "text": Feature("bytes"),
    "ok": Feature("bool"),
}
CONTEXT = {"label": Feature("int64")}
STATES = {"h": State("float32", [2], init="data"), "n": State("int64")}
OPTIONS: dict[str, Any] = {"num_unroll": 4, "batch_size": 3}
X = {"x": Feature("int64")}


def example(draw: random.Random, number: int) -> Example:
    steps = draw.randrange(1, 30)
    rng = np.random.default_rng(draw.randrange(2**32))
    return Example(
        {
            "x": rng.random((steps, 3), dtype=np.float32),
            "w": [list(range(draw.randrange(4))) for _ in range(steps)],
            "text": [bytes(draw.randrange(5)) for _ in range(steps)],
            "ok": rng.random(steps) < 0.5,
        },
        {"label": np.int64(number)},
        key=f"example {number}",
        length=draw.randrange(steps + 1) if draw.randrange(3) == 0 else None,
        initial_states={"h": rng.random(2, dtype=np.float32)},
    )


def open_full(client: segue.Client, name: str, source: Any, **options: Any) -> segue.Stream:
    return client.stream(name, source, FEATURES, CONTEXT, STATES, **OPTIONS | options)


def open_plain(client: segue.Client, source: Any = None, **options: Any) -> segue.Stream:
    options = {"num_unroll": 2, "batch_size": 2} | options
    return client.stream(options.pop("name", "live"), source or Push(), X, **options)


def insert_numbers(producer: segue.Producer, count: int, steps: int = 2) -> None:
    for _ in range(count):
        number = producer.inserted
        producer.insert({"x": np.full(steps, number)}, cursor=str(number).encode())


def taken(stream: segue.Stream, batches: int | None = None, **options: Any) -> list[Any]:
    """All that a batch has, of each."""
    found = []
    with stream.loader(**{"lanes": [0], "timeout": 5} | options) as loader:
        for batch in itertools.islice(loader, batches):
            values: list[Any] = [batch.insertion_index.tolist(), batch.key]
            for name in FEATURES:
                if name == "w":
                    values += [array.tolist() for array in batch.ragged(name)]
                elif name == "text":
                    values.append(batch.bytes(name).tolist())
                else:
                    values.append(batch.sequences[name].tolist())
            values.append(batch.context["label"].tolist())
            values += [batch.state(state).tolist() for state in STATES]
            for state in STATES:
                batch.save_state(state, batch.state(state) + 1)
            found.append(values)
    return found


@pytest.mark.parametrize("tail", ["shrink", "stop", "pad"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_it_comes_as_from_files(
    tmp_path: Path, client: segue.Client, tail: str, lanes: int
) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    examples = [example(draw, number) for number in range(20)]
    states = {"h": STATES["h"]}
    with FileWriter(tmp_path / "all.segue", FEATURES, CONTEXT, states) as writer:
        for one in examples:
            writer.write(one.sequences, one.context, one.key, one.length, one.initial_states)
    files = open_full(
        client, "files", Files(tmp_path / "all.segue"), tail=tail, lanes=lanes, persist=True
    )
    live = open_full(client, "live", Push(producers=1), tail=tail, lanes=lanes)

    def insert() -> None:
        with segue.open(client.dir) as own:
            stream = open_full(own, "live", Push(producers=1), tail=tail, lanes=lanes)
            with stream.producer("one") as producer:
                for one in examples:
                    producer.insert(one)

    thread = threading.Thread(target=insert, daemon=True)
    thread.start()
    for lane in range(lanes):
        assert taken(live, lanes=[lane]) == taken(files, lanes=[lane])
    thread.join()


def test_it_waits_for_what_is_not_there(client: segue.Client) -> None:
    stream = open_plain(client)
    producer = stream.producer("a")
    insert_numbers(producer, 3)
    producer.flush()
    with stream.loader(timeout=0.3) as loader:
        batches = iter(loader)
        assert next(batches).insertion_index.tolist() == [0, 1]
        with pytest.raises(segue.TimeoutError_):
            next(batches)
        insert_numbers(producer, 1)
        assert next(batches).insertion_index.tolist() == [2, 3]
        stream.end_input()
        assert list(batches) == []
    assert stream.records == 2**63  # as it was opened


def test_it_is_said_that_none_comes(client: segue.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segue.loader, "_INPUT_SILENCE", 0.1)
    stream = open_plain(client)
    with stream.loader(timeout=0.3) as loader:
        waits = "lane 0 of stream 'live' waits for .* insert.* No process has a producer of it open"
        with pytest.warns(UserWarning, match=waits):
            with pytest.raises(segue.TimeoutError_):
                next(iter(loader))
        with warnings.catch_warnings():  # once
            warnings.simplefilter("error")
            with pytest.raises(segue.TimeoutError_):
                next(iter(loader))
            with stream.producer("a") as producer:
                insert_numbers(producer, 2)
            assert next(iter(loader)).insertion_index.tolist() == [0, 1]


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    with segue.open(tmp_path / "run") as client:
        stream = open_plain(client)
        with stream.producer("a") as producer:
            insert_numbers(producer, 8)
        with stream.loader() as loader:
            for batch in itertools.islice(loader, 2):
                assert batch.insertion_index.tolist() == [2 * batch.step, 2 * batch.step + 1]
                batch.commit()
            kept = loader.state_dict()
            next(iter(loader)).commit()
    with segue.open(tmp_path / "run") as client:
        stream = open_plain(client)
        with stream.loader(start="continue", timeout=60) as loader:
            assert next(iter(loader)).insertion_index.tolist() == [6, 7]
            loader.load_state_dict(kept)
            assert next(iter(loader)).insertion_index.tolist() == [4, 5]
    with segue.open(tmp_path / "other") as client:
        stream = open_plain(client)
        with stream.producer("a") as producer:
            insert_numbers(producer, 8)
        with stream.loader() as loader, pytest.raises(segue.TokenError, match="another data set"):
            loader.load_state_dict(kept)


def test_a_token_is_of_the_log_as_it_was(tmp_path: Path) -> None:
    with segue.open(tmp_path / "a") as client:
        with open_plain(client).producer("p") as producer:
            insert_numbers(producer, 4)
    while (tmp_path / "a" / "server.pid").exists():  # its last user has left
        time.sleep(0.01)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    kept = {}
    for name in "ab":
        with segue.open(tmp_path / name) as client:
            stream = open_plain(client)
            with stream.producer(name) as producer:
                insert_numbers(producer, 4)
            with stream.loader(timeout=60) as loader:
                for batch in itertools.islice(loader, 4):
                    batch.commit()
                    if batch.step == 1:
                        early = loader.state_dict()
                late = loader.state_dict()
            kept[name] = early, late
    with segue.open(tmp_path / "b") as client:
        with open_plain(client).loader(timeout=60) as loader:
            with pytest.raises(segue.TokenError, match="a log that went on otherwise"):
                loader.load_state_dict(kept["a"][1])
            for state in (kept["a"][0], kept["b"][1], kept["b"][0]):
                loader.load_state_dict(state)


def work(directory: str, name: str, until: int, crash: bool) -> None:
    with segue.open(directory) as client:
        stream = open_plain(client, Push(producers=3))
        producer = stream.producer(name, takeover=True)
        serial, cursor = producer.resume()
        assert cursor == (str(serial - 1).encode() if serial else b"")
        for number in range(serial, until):
            producer.insert(
                {"x": np.full(2, number)}, key=f"{name}/{number}", cursor=str(number).encode()
            )
        if crash:
            os._exit(0)
        producer.close()


def test_processes_go_on_under_their_names(tmp_path: Path) -> None:
    directory = str(tmp_path / "run")
    context = forked.context()
    with segue.open(directory) as client:
        stream = open_plain(client, Push(producers=3))
        for until, crash in ((40, True), (100, False)):
            workers = [
                context.Process(target=work, args=(directory, name, until, crash)) for name in "abc"
            ]
            for worker in workers:
                worker.start()
            if not crash:
                with stream.loader(timeout=60) as loader:
                    rows = [
                        (number, re.search("([abc]/[0-9]+)", key.decode())[1], int(x[0]))
                        for batch in loader
                        for number, key, x in zip(
                            batch.insertion_index.tolist(), batch.key, batch.sequences["x"],
                            strict=True,
                        )
                    ]  # fmt: skip
            for worker in workers:
                worker.join()
                assert worker.exitcode == 0
    assert sorted(number for number, _, _ in rows) == list(range(300))
    for name in "abc":
        values = [x for _, key, x in sorted(rows) if key.startswith(name)]
        assert values == list(range(100))
    assert all(key.endswith(f"/{x}") for _, key, x in rows)


def test_one_name_one_producer(client: segue.Client) -> None:
    stream = open_plain(client)
    first = stream.producer("a")
    insert_numbers(first, 5)
    first.flush()
    with segue.open(client.dir) as other:
        there = open_plain(other)
        with pytest.raises(segue.BusyError, match="'a'"):
            there.producer("a")
        second = there.producer("a", takeover=True)
        assert second.resume() == (5, b"4")
        insert_numbers(second, 1)
        second.flush()
        insert_numbers(first, 1)
        with pytest.raises(segue.FencedError):
            first.flush()
        with pytest.raises(segue.FencedError):
            insert_numbers(first, 1)
        second.leave()
    first.leave()
    third = stream.producer("a")
    assert third.resume() == (6, b"5")
    third.close()
    assert third.closed and third.inserted == 6 == third.acknowledged
    with pytest.raises(segue.ClosedError):
        insert_numbers(third, 1)


def test_what_is_wrong_fails_at_insert_alone(client: segue.Client) -> None:
    stream = open_full(client, "live", Push())
    draw = random.Random(1)
    producer = stream.producer("a")
    good = example(draw, 0)
    for changed, says in (
        ({"x": np.zeros((3, 2), np.float32)}, "x"),
        ({"x": np.zeros((0, 3), np.float32)}, "0 steps"),
        ({"ok": None}, "ok"),
        ({"more": np.zeros(3)}, "more"),
    ):
        wrong = {**good.sequences, **changed}
        if "0 steps" in says:
            wrong |= {"w": [], "text": [], "ok": np.zeros(0, bool)}
        with pytest.raises(segue.ArgumentError, match=says):
            producer.insert(wrong, good.context, initial_states=good.initial_states)
    with pytest.raises(segue.ArgumentError, match="initial_states"):
        producer.insert(good.sequences, good.context)
    with pytest.raises(segue.ArgumentError, match="cursor has 4097 bytes"):
        producer.insert(good, cursor=bytes(4097))
    with pytest.raises(segue.ArgumentError, match="cursor: expected bytes, got 'text'"):
        producer.insert(good, cursor="text")  # type: ignore[arg-type]
    for array in (np.zeros((9, 3), np.float32), np.zeros((1, 3), np.float32), 7):
        with pytest.raises(segue.ArgumentError, match="sequences: expected a mapping of names"):
            producer.insert(array)  # type: ignore[arg-type]
    with pytest.raises(segue.ArgumentError, match="length is given as 1000"):
        producer.insert(
            good.sequences, good.context, length=1000, initial_states=good.initial_states
        )
    assert producer.inserted == 0
    producer.insert(good)
    producer.flush()
    assert producer.acknowledged == 1


def test_the_end(client: segue.Client) -> None:
    stream = open_plain(client)
    producer = stream.producer("a")
    insert_numbers(producer, 3)
    producer.flush()
    stream.end_input()
    stream.end_input()
    with pytest.raises(segue.EndedError):
        insert_numbers(producer, 1)
        producer.flush()
    with pytest.raises(segue.EndedError):
        stream.producer("b")
    with stream.loader(timeout=60) as loader:
        assert [batch.insertion_index.tolist() for batch in loader] == [[0, 1], [2]]


def test_it_is_said_that_a_producer_was_forgotten(client: segue.Client) -> None:
    """Where what it has inserted may be lost: not after a flush, nor when it was left on purpose."""
    stream = open_plain(client, Push(capacity=12), lanes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flushed, left = stream.producer("flushed"), stream.producer("left", ring_bytes=1 << 16)
        insert_numbers(flushed, 3)
        flushed.flush()
        with pytest.raises(segue.TimeoutError_, match="every lane has `capacity`"):
            for _ in range(10000):
                left.insert({"x": np.zeros(2, int)}, timeout=0.3)
        left.leave()
        del flushed, left
    forgotten = stream.producer("forgotten")
    insert_numbers(forgotten, 5)
    with pytest.warns(UserWarning, match="'forgotten' was neither flushed .* 5 are not acknowl"):
        del forgotten



def test_inserting_waits_for_workers(
    client: segue.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_plain(client, Push(capacity=12), lanes=2)
    producer = stream.producer("a", ring_bytes=1 << 16)
    # 24 are accepted; what the ring holds is on its way.
    full = r"every lane has `capacity` \(12\) .*: lane 0 is furthest behind, by 12, and "
    with pytest.raises(segue.TimeoutError_, match=f"ring is full.*: {full}nobody holds it"):
        for _ in range(10000):
            producer.insert({"x": np.zeros(2, int)}, timeout=0.3)
    inserted = producer.inserted
    assert 24 < inserted < 100
    with stream.loader(lanes=[0], timeout=60) as loader:
        next(iter(loader)).release()
        held = f"{full}process {os.getpid()} holds it"
        with pytest.raises(segue.TimeoutError_, match=f"24 of {inserted} .* acknowledged: {held}"):
            producer.flush(0.1)
        with pytest.raises(segue.TimeoutError_, match=f"ring is full.*: {held}"):
            producer.insert({"x": np.zeros(2, int)}, block=False)
    assert (producer.inserted, producer.acknowledged) == (inserted, 24)
    monkeypatch.setattr(segue.producer, "_PATIENCE", 0.1)
    waits = f"'a' waits: {inserted - 24} of .* does a worker read.* lane 0 is furthest behind"
    with pytest.warns(UserWarning, match=waits):
        with pytest.raises(segue.TimeoutError_):
            producer.close(0.2)
    with warnings.catch_warnings():  # it is said once
        warnings.simplefilter("error")
        with pytest.raises(segue.TimeoutError_):
            producer.insert({"x": np.zeros(2, int)}, timeout=0.2)
    assert (producer.inserted, producer.acknowledged) == (inserted, 24)
    with stream.loader(lanes=[0, 1], start="continue", timeout=60) as loader:
        for batch in itertools.islice(loader, inserted // 2 - 2):
            assert batch.batch_size == 2
        producer.flush(30)
    assert producer.acknowledged == inserted == producer.inserted


def test_a_long_sequence_travels_by_itself(client: segue.Client) -> None:
    stream = open_plain(client, num_unroll=50000, batch_size=1)
    with stream.producer("a", ring_bytes=1 << 16) as producer:
        producer.insert({"x": np.arange(100000)})
        producer.insert({"x": np.arange(3)})
    stream.end_input()
    with stream.loader(timeout=60) as loader:
        rows = [batch.sequences["x"][0].copy() for batch in loader]
    assert np.array_equal(np.concatenate(rows[:2]), np.arange(100000))
    assert rows[2][:3].tolist() == [0, 1, 2]


def test_what_does_not_go_together(client: segue.Client, tmp_path: Path) -> None:
    for options in ({"persist": False}, {"shuffle": True}, {"epochs": 2}, {"epochs": None}):
        with pytest.raises(segue.ArgumentError, match="what is inserted"):
            open_plain(client, **options)
    with pytest.raises(segue.ArgumentError, match=r"less than \(depth \+ 2\) \* batch_size = 12"):
        open_plain(client, Push(capacity=11))
    with pytest.raises(segue.ArgumentError, match="Push.producers"):
        Push(producers=0)
    with FileWriter(tmp_path / "x.segue", X) as writer:
        writer.write({"x": np.arange(3)})
    files = open_plain(client, Files(tmp_path / "x.segue"), name="files")
    with pytest.raises(segue.ArgumentError, match="reads what is there"):
        files.producer("a")


def test_it_is_seen_and_dropped(tmp_path: Path, client: segue.Client) -> None:
    stream = open_plain(client)
    with stream.producer("a") as producer:
        insert_numbers(producer, 4)
    seen = client.inspect("live")["streams"][0]
    assert seen["spec"]["source"] == {
        "kind": "log", "capacity": None, "producers": None,
        "retain_sequences": None, "retain_bytes": None,
    }  # fmt: skip
    assert "  data       what producers insert\n" in run("inspect", client.dir).stdout
    assert seen["log"]["closed"] == ["a"] and not seen["log"]["ended"]
    stream.end_input()
    directory = Path(client.dir) / "log"
    (file,) = directory.glob("*/*.segue")
    assert client.inspect("live")["streams"][0]["log"] == {
        "files": 1, "bytes": file.stat().st_size,
        "first": 0, "synced": 4, "ended": True, "closed": ["a"]
    }  # fmt: skip
    assert len(list(directory.iterdir())) == 1
    stream.close()
    client.drop("live")
    assert list(directory.iterdir()) == []
    stream = open_plain(client)
    assert stream.producer("a").resume() == (0, b"")


def test_by_its_name_alone(client: segue.Client) -> None:
    stream = open_full(client, "live", Push(producers=1))
    sent = example(random.Random(1), 0)
    with segue.open(client.dir) as other:
        there = other.stream("live")
        with there.producer("a") as producer:
            with pytest.raises(segue.ArgumentError, match="initial_states"):
                producer.insert(sent.sequences, sent.context)
            producer.insert(sent)
    batches = taken(stream)
    assert batches[0][0] == [0] and batches[0][-3] == [0]
    assert batches[0][-2] == [sent.initial_states["h"].tolist()]
    assert other.closed


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_log_that_has_ended_is_a_data_set(
    tmp_path: Path, client: segue.Client, lanes: int
) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    draw = random.Random(SEED)
    examples = [example(draw, number) for number in range(20)]
    states = {"h": STATES["h"]}
    with FileWriter(tmp_path / "all.segue", FEATURES, CONTEXT, states) as writer:
        for one in examples:
            writer.write(one.sequences, one.context, one.key, one.length, one.initial_states)
    live = open_full(client, "live", Push(producers=1, capacity=100), lanes=lanes)
    options = {"epochs": 3, "shuffle": True, "seed": 7, "lanes": lanes, "persist": False}
    with pytest.raises(segue.ArgumentError, match="the input of stream 'live' goes on"):
        live.files()
    with live.producer("one") as producer:
        for one in examples:
            producer.insert(one)
    # Nobody has read any of it, and nobody has to.
    again = open_full(client, "again", live.files(), **options)
    files = open_full(client, "files", Files(tmp_path / "all.segue"), **options)
    assert (again.records, files.records) == (20, 20)
    for lane in range(lanes):
        assert taken(again, lanes=[lane]) == taken(files, lanes=[lane])
    with pytest.raises(segue.ArgumentError, match="'files' reads files or arrays as it is"):
        files.files()
    for stream in (live, again, files):
        stream.close()
    with segue.open(client.dir) as other:
        assert open_full(other, "again", other.stream("live").files(), **options).records == 20


def test_nothing_is_no_data_set(client: segue.Client) -> None:
    stream = open_plain(client)
    stream.end_input()
    with pytest.raises(segue.ArgumentError, match="nothing was inserted into stream 'live'"):
        stream.files()


def test_a_server_with_roots_reads_its_own_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with Service(tmp_path / "run", "--root", tmp_path / "data"):
        with segue.open(tmp_path / "run", start=False) as client:
            stream = open_plain(client)
            with stream.producer("a") as producer:
                insert_numbers(producer, 4)
            stream.end_input()
            again = open_plain(client, stream.files(), name="again", persist=False)
            with again.loader(timeout=60) as loader:
                assert [batch.insertion_index.tolist() for batch in loader] == [[0, 1], [2, 3]]
            with FileWriter(tmp_path / "x.segue", X) as writer:
                writer.write({"x": np.arange(3)})
            with pytest.raises(segue.SourceError, match="is not beneath a directory that this"):
                open_plain(client, Files(tmp_path / "x.segue"), name="outside")


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_one_client_inserts_and_reads_in_two_threads(client: segue.Client, first: str) -> None:
    """Whoever waits for the other thread lets it have the client; of two waits none is for ever."""
    stream = open_plain(client, Push(producers=1, capacity=12))
    found: list[int] = []
    begun = threading.Event()

    def read() -> None:
        with stream.loader(start="fresh") as loader:
            begun.set()
            for batch in loader:
                found.extend(batch.insertion_index.tolist())

    def insert() -> None:
        with stream.producer("one") as producer:
            begun.set()
            insert_numbers(producer, 300)  # more than there is room for

    threads = [threading.Thread(target=work, daemon=True) for work in (read, insert)]
    if first == "writer":
        threads.reverse()
    threads[0].start()
    begun.wait(0.5)
    time.sleep(0.3)
    threads[1].start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert found == list(range(300))


@pytest.mark.parametrize("closed", ["stream", "client"])
def test_closing_ends_the_waits_of_other_threads(client: segue.Client, closed: str) -> None:
    """What a thread waits with may be closed by another in between: an error, not a crash."""
    own = segue.open(client.dir)
    full = open_plain(own, Push(producers=1, capacity=12), name="full")
    empty = open_plain(own, name="empty")
    producer, loader = full.producer("one"), empty.loader()
    insert_numbers(producer, 40)
    raised: list[str] = []

    def wait(call: Any) -> None:
        try:
            call()
        except segue.Error as error:
            raised.append(type(error).__name__)

    waits = [producer.flush, lambda: next(iter(loader))]
    threads = [threading.Thread(target=wait, args=[call], daemon=True) for call in waits]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    for one in [full, empty] if closed == "stream" else [own]:
        one.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert raised == ["ClosedError", "ClosedError"]
    own.close()


def insert_twice(pipe: Any, directory: Path) -> None:
    """Before its server is lost, and for the next one; an insert between them takes too long."""
    long = {"x": np.arange(5000)}  # of its size one fits into the ring
    with segue.open(directory, start=False) as client:
        producer = open_plain(client).producer("p", ring_bytes=1 << 16)
        producer.insert(long)
        producer.flush()
        pipe.send("inserted")
        pipe.recv()
        with pytest.raises(segue.TimeoutError_):
            producer.insert(long, timeout=0.3)
        pipe.send("too late")
        producer.insert(long, timeout=30)
        producer.flush(timeout=30)
        pipe.send((producer.inserted, producer.acknowledged))


def test_a_producer_goes_on_after_an_insert_that_took_too_long(
    directory: Path, processes: Callable[..., Other]  # noqa: F811
) -> None:
    """Also if it was the only one since its server was lost."""
    with Server(directory) as server:
        other = processes(insert_twice, directory)
        assert other.receive() == "inserted"
        server.process.kill()
        server.process.wait()
    other.pipe.send(None)
    assert other.receive() == "too late"
    with Server(directory):
        assert other.receive() == (2, 2)
        other.join()

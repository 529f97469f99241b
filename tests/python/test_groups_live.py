"""Groups of a stream whose sequences are inserted: what waits for which of them, and what is kept."""

from __future__ import annotations

import os
import secrets
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import segue
from segue import Push
from test_groups import feeds
from test_log import insert_numbers, open_plain
from test_log_kept import ALL, files, fill, known, numbers, open_large, soon
from test_resume import kill, server_pid

SEED = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))


def test_groups_side_by_side_share_a_feed_until_the_end(client: segue.Client) -> None:
    stream = open_plain(client, batch_size=1, depth=4)
    with stream.loader(group="b", timeout=60) as b, stream.loader(group="c", timeout=60) as c:
        b.state_dict(), c.state_dict()  # both have their lane before anything is there
        with stream.producer("a") as producer:
            for number in range(20):
                insert_numbers(producer, 1)
                assert numbers(b, 1) == numbers(c, 1) == [number]
        assert feeds(client, "live") == 1
        stream.end_input()
        assert numbers(b) == numbers(c) == []
    with stream.loader(group="d", timeout=60) as d:
        assert numbers(d) == list(range(20))


def test_inserting_waits_for_the_group_that_is_furthest_behind(client: segue.Client) -> None:
    stream = open_plain(client, Push(capacity=12), batch_size=1, lanes=1)
    producer = stream.producer("a", ring_bytes=1 << 16)
    with stream.loader(group="slow", timeout=60) as slow:
        slow.state_dict()  # so it is made
    with stream.loader(group="b", timeout=60) as b:
        insert_numbers(producer, 12)
        assert numbers(b, 12) == list(range(12))
        says = "lane 0 of group 'slow' is furthest behind, by 12, and nobody holds it"
        with pytest.raises(segue.TimeoutError_, match=says):
            insert_numbers(producer, 1)
            producer.flush(0.3)
        status = client.status()["streams"][0]
        assert status["log"]["waits_for"] == "capacity"
        assert {lane.get("group_name"): lane["behind"] for lane in status["lanes"]} == {
            None: 0, "slow": 12, "b": 0,
        }  # fmt: skip
        with stream.loader(group="slow", start="continue", timeout=60) as slow:
            assert numbers(slow, 5) == list(range(5))
            producer.flush(20)
            insert_numbers(producer, 4)
            producer.flush(20)
            assert numbers(b, 5) == list(range(12, 17))
        assert client.status()["streams"][0]["log"]["accepted"] == 17
        with pytest.raises(segue.TimeoutError_, match="group 'slow' .* by 12"):
            insert_numbers(producer, 1)
            producer.flush(0.3)
    with stream.loader(group="slow", start="continue", timeout=60) as slow:
        assert numbers(slow, 13) == list(range(5, 18))


def test_nobody_waits_for_the_group_without_a_name_that_was_never_begun(
    client: segue.Client,
) -> None:
    stream = open_plain(client, Push(capacity=12), batch_size=1)
    producer = stream.producer("a", ring_bytes=1 << 16)
    insert_numbers(producer, 12)
    with pytest.raises(segue.TimeoutError_, match="lane 0 is furthest behind, by 12"):
        insert_numbers(producer, 1)
        producer.flush(0.3)
    with stream.loader(group="b", timeout=60) as b:
        for number in range(30):
            assert numbers(b, 1) == [number]
            insert_numbers(producer, 1)
        assert numbers(b, 1) == [30]
        producer.flush(20)
        # From now on it is waited for.
        with stream.loader(timeout=60) as plain:
            assert numbers(plain, 3) == [0, 1, 2]
        with pytest.raises(segue.TimeoutError_, match="lane 0 is furthest behind, by 40"):
            insert_numbers(producer, 1)
            producer.flush(0.3)


def test_what_any_group_needs_is_kept(tmp_path: Path) -> None:
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, ALL)
        fill(stream, 20)
        with stream.loader(group="b", timeout=60) as b, stream.loader(group="c", timeout=60) as c:
            assert numbers(c, 1) == [0]
            assert numbers(b, 4) == list(range(4))
        with stream.loader(group="b", start="continue", timeout=60) as b:
            assert numbers(b, 11) == list(range(4, 15))
        time.sleep(0.2)
        assert files(client)[0] == known(client)["first"] == 0
    # Nobody has either open: it is the store that says what they need.
    with segue.open(tmp_path / "run") as client:
        stream = open_large(client, ALL)
        fill(stream, 1, "more")
        time.sleep(0.2)
        assert files(client)[0] == 0
        with stream.loader(group="c", start="continue", timeout=60) as c:
            assert numbers(c, 7) == list(range(1, 8))
        soon(lambda: files(client)[0] == known(client)["first"] > 3)
        assert known(client)["first"] <= 8
        first = known(client)["first"]
        with pytest.raises(segue.StartError, match=f"given up those before {first}"):
            next(iter(stream.loader(group="d", timeout=60)))
        for group, options in (("c", {"start": "fresh"}), (None, {})):
            with stream.loader(group=group, timeout=60, **options) as loader:
                with pytest.raises(segue.StartError, match=f"the first that is left is {first}"):
                    next(iter(loader))
        # All are where they were.
        for group, number in (("b", 15), ("c", 8)):
            with stream.loader(group=group, start="continue", timeout=60) as loader:
                assert numbers(loader, 2) == [number, number + 1]
        soon(lambda: known(client)["first"] > first)


def test_kills_while_groups_read_and_files_go(tmp_path: Path) -> None:
    print(f"SEGUE_TEST_SEED={SEED}")
    rng = np.random.default_rng(SEED)
    steps, count, directory = 1 << 18, 60, tmp_path / "run"
    source = Push(capacity=12, retain_sequences=1, retain_bytes=1, producers=1)
    came: dict[str, list[int]] = {"b": [], "c": []}
    killed = 0

    def insert() -> None:
        with segue.open(directory) as own:
            with open_large(own, source, num_unroll=steps).producer("a") as producer:
                insert_numbers(producer, count, steps)

    def read(group: str, draw: np.random.Generator) -> None:
        with segue.open(directory) as own:
            stream = open_large(own, source, num_unroll=steps, interval=0.01)
            while len(came[group]) < count:
                with stream.loader(group=group, start="continue", timeout=60) as loader:
                    came[group] += numbers(loader, int(draw.integers(1, 9)))

    with segue.open(directory) as client:
        stream = open_large(client, source, num_unroll=steps, interval=0.01)
        for group in came:  # each begins before another has gone far
            with stream.loader(group=group, timeout=0.1) as loader:
                with pytest.raises(segue.TimeoutError_):
                    next(iter(loader))
        threads = [threading.Thread(target=insert, daemon=True)]
        for group in came:
            arguments = (group, np.random.default_rng(rng.integers(1 << 30)))
            threads.append(threading.Thread(target=read, args=arguments, daemon=True))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(rng.uniform(0.05, 0.3))
            if killed < 8 and threads[1].is_alive():
                kill(server_pid(client))
                killed += 1
        assert came == {group: list(range(count)) for group in came}
        soon(lambda: files(client)[0] == known(client)["first"] > count // 2)
        print(f"{killed} kills, the first that is left is {known(client)['first']}")

"""When groups share a feed, as docs/groups.md says, and when they do not."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import segue
from test_groups import feeds, opened, take
from test_resume import server_pid


def attached(stream: segue.Stream, group: str, **options: Any) -> segue.Loader:
    loader = stream.loader(group=group, timeout=60, **options)
    loader.state_dict()
    return loader


@pytest.mark.parametrize(("ahead", "shared"), [(0, 1), (1, 1), (9, 2)])
def test_who_comes_later_shares_what_is_still_in_the_ring(
    client: segue.Client, tmp_path: Path, ahead: int, shared: int
) -> None:
    stream = opened(client, tmp_path / "a.segue", depth=4)
    with attached(stream, "b") as b:
        seen = take(b, ahead, 1) if ahead else []
        with attached(stream, "c") as c:
            assert feeds(client) == shared
            assert take(c, ahead, 1) == seen if ahead else next(iter(c)).step == 0
        assert feeds(client) == 1
        take(b, 12, 1)


def test_groups_that_ask_at_the_same_moment_share(tmp_path: Path) -> None:
    with ExitStack() as stack:
        loaders = []
        for number in range(8):  # a connection has its requests answered one by one
            client = stack.enter_context(segue.open(tmp_path / "store"))
            stream = opened(client, tmp_path / "a.segue", lanes=4, batch_size=1, num_threads=8)
            loaders.append(stream.loader(group=f"g{number}", lanes=range(4), timeout=60))
        server = server_pid(client)
        with ThreadPoolExecutor(len(loaders)) as threads:
            os.kill(server, signal.SIGSTOP)
            try:
                asked = [threads.submit(loader.state_dict) for loader in loaders]
                time.sleep(0.2)  # the server finds all that they have asked for when it goes on
            finally:
                os.kill(server, signal.SIGCONT)
            for one in asked:
                one.result(60)
        assert feeds(client) == 4


def test_a_token_of_one_group_brings_another_to_its_place(
    client: segue.Client, tmp_path: Path
) -> None:
    stream = opened(client, tmp_path / "a.segue", depth=4)
    with attached(stream, "b") as b:
        take(b, 9, 1)
        token = b.state_dict()
        with stream.loader(group="c") as c:
            c.load_state_dict(token)
            assert feeds(client) == 1
            assert take(c, 12, 1) == take(b, 12, 1)


def test_another_depth_or_batch_size_has_a_feed_of_its_own(
    client: segue.Client, tmp_path: Path
) -> None:
    stream = opened(client, tmp_path / "a.segue", depth=4)
    with attached(stream, "b"), attached(stream, "c") as c:
        assert feeds(client) == 1
        with opened(client, tmp_path / "a.segue", depth=5) as deeper, attached(deeper, "d"):
            assert feeds(client) == 2
        c.set_batch_size(1)
        assert feeds(client) == 2
        c.set_batch_size(2)  # which is the stream's, said by another group alone
        assert feeds(client) == 2


def test_what_a_group_has_kept_is_its_own(client: segue.Client, tmp_path: Path) -> None:
    options = {"initial": "kept", "lanes_by": "record"}
    stream = opened(client, tmp_path / "a.segue", **options)
    with attached(stream, "b"), attached(stream, "c"):
        assert feeds(client) == 2


def test_a_feed_beyond_the_eighth_is_not_looked_at(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", depth=2)
    tokens = []
    with stream.loader(group="first", timeout=60) as first:
        for number in range(9):
            take(first, 4 * (number + 1), 1)
            tokens.append(first.state_dict())
    loaders = []
    for number, token in enumerate(tokens):  # the newest are looked at
        loaders.append(stream.loader(group=f"g{number}"))
        loaders[-1].load_state_dict(token)
        assert feeds(client) == number + 1
    with stream.loader(group="new") as new:
        new.load_state_dict(tokens[0])
        assert feeds(client) == 10
        new.load_state_dict(tokens[-1])
        assert feeds(client) == 9
    for loader in loaders:
        loader.close()

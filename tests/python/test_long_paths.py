"""Store directories whose path is longer than the address of a socket has room for."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

import little
import segue
from test_cli import FINE, Server, run

ROOM = 107  # bytes that an address has


@pytest.fixture(params=["a", "with a space ", "\udcff\udcfe"], ids=["plain", "space", "bytes"])
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with a path of more than 300 bytes."""
    directory = tmp_path
    while len(os.fsencode(directory)) < 300:
        directory = directory / (request.param * 60)[:60]
    directory.mkdir(parents=True)
    return directory


def is_socket(path: Path) -> bool:
    return path.exists() and stat.S_ISSOCK(path.lstat().st_mode)


def test_a_server_starts_there_and_ends(deep: Path, tmp_path: Path) -> None:
    little.write(tmp_path)
    with segue.open(deep) as client:
        pid = client.status()["server"]["pid"]
        assert stat.S_IMODE((deep / "segue.sock").lstat().st_mode) == 0o600
        with little.open_stream(client, tmp_path).loader(lanes=[0]) as loader:
            whole = little.rest(loader)
        with segue.open(deep) as other:
            assert other.status()["server"]["pid"] == pid, "the same one"
    limit = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert whole and not (deep / "segue.sock").exists()


def test_the_commands_find_it(deep: Path) -> None:
    with Server(deep) as server:
        done = run("status", deep, "--json")
        assert done.returncode == FINE and json.loads(done.stdout)["server"]["pid"] == server.pid
        assert server.stop() == FINE
    assert not (deep / "segue.sock").exists()
    assert run("inspect", deep).returncode == FINE


def test_a_socket_that_is_removed_is_there_again(deep: Path) -> None:
    with Server(deep):
        (deep / "segue.sock").unlink()
        with segue.open(deep, start=False) as client:  # which waits for it
            assert client.status()["server"]["pid"]
        assert is_socket(deep / "segue.sock")


def test_a_socket_that_a_killed_server_left_is_no_hindrance(deep: Path) -> None:
    with Server(deep) as server:
        server.process.kill()
    assert is_socket(deep / "segue.sock")
    with segue.open(deep) as client:
        assert client.status()["server"]["pid"] != server.pid


def test_a_long_path_of_a_socket(deep: Path, tmp_path: Path) -> None:
    given = deep / "own.sock"
    with segue.open(tmp_path / "store", socket=given) as client:
        assert is_socket(given) and client.status()
    with pytest.raises(segue.ArgumentError, match=r"name of the socket has 100 bytes.*--socket"):
        segue.open(tmp_path / "store", socket=deep / ("s" * 100))


def test_up_to_the_room_of_an_address_nothing_is_different(tmp_path: Path) -> None:
    room = ROOM - len(os.fsencode(tmp_path)) - len("//segue.sock")
    for more in range(3):
        directory = tmp_path / ("d" * (room + more))
        with segue.open(directory) as client:
            assert client.status()

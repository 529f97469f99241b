"""What `segue.open` says of a server that it cannot reach: at once, and by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import segue
from test_cli import Server

NOBODY = 65534


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Server]:
    """A server that does nothing, and so cannot notice either that its socket has gone."""
    with Server(tmp_path / "run") as server:
        os.kill(server.pid, signal.SIGSTOP)
        (tmp_path / "run" / "segue.sock").unlink()
        yield server


def why_not(call: Callable[[], object]) -> tuple[str, float]:
    """The message of a call that must fail, and how long it took."""
    began = time.monotonic()
    with pytest.raises(segue.Error) as caught:
        call()
    return str(caught.value), time.monotonic() - began


def as_another_user(call: Callable[[], object]) -> str:
    """The message of a call that must fail for somebody else."""
    if os.geteuid() != 0:
        pytest.skip("SKIP: only root can be another user")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with open(writing, "w") as out:
            try:
                out.write(why_not(call)[0])
            except BaseException as error:
                out.write(f"not refused: {error!r}")
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    assert os.waitpid(child, 0)[1] == 0
    return text


# ---- A socket that is gone ----


def test_a_server_without_its_socket_is_named(tmp_path: Path, stopped: Server) -> None:
    text, took = why_not(lambda: segue.open(tmp_path / "run"))
    assert f"(process {stopped.pid})" in text and f"{tmp_path}/run/segue.sock" in text and "gone" in text, text
    assert took < 10, "a server that is there is not waited for"


def test_who_starts_none_is_told_the_same(tmp_path: Path, stopped: Server) -> None:
    text, took = why_not(lambda: segue.open(tmp_path / "run", start=False))
    assert f"(process {stopped.pid})" in text and "gone" in text, text
    assert took < 10


def test_a_socket_of_its_own_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with Server(tmp_path / "run", "--socket", path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        path.unlink()
        text, took = why_not(lambda: segue.open(tmp_path / "run", socket=path))
        assert f"(process {server.pid})" in text and f"{path}" in text and "gone" in text, text
        assert took < 10


def test_a_server_that_was_killed_is_started_again(tmp_path: Path) -> None:
    """What it left behind, `server.pid` without a socket, holds nobody up."""
    with Server(tmp_path / "run") as server:
        server.process.kill()
        server.process.wait()
        (tmp_path / "run" / "segue.sock").unlink()
        assert (tmp_path / "run" / "server.pid").exists()
        with segue.open(tmp_path / "run"):
            pass


def test_a_directory_that_was_made_anew_is_another(tmp_path: Path) -> None:
    """Its path is that of a server that still runs, for the directory that was there before."""
    with Server(tmp_path / "run") as server:
        os.kill(server.pid, signal.SIGSTOP)
        (tmp_path / "run").rename(tmp_path / "before")
        with segue.open(tmp_path / "run"):
            pass
        os.kill(server.pid, signal.SIGCONT)


def test_a_server_elsewhere_is_named(tmp_path: Path) -> None:
    with Server(tmp_path / "run", "--socket", tmp_path / "other.sock") as server:
        text, _ = why_not(lambda: segue.open(tmp_path / "run", timeout=1))
        assert f"pid {server.pid}" in text and "socket=" in text, text


# ---- Another user's ----


def test_another_users_directory(place: Path) -> None:
    segue.open(place / "run").close()
    text = as_another_user(lambda: segue.open(place / "run"))
    assert f"{place}/run belongs to uid 0, mode 0700" in text and f"(uid {NOBODY}) may not enter it" in text, text
    assert "no server answers" not in text


def test_another_users_directory_above(place: Path) -> None:
    (place / "deep" / "er").mkdir(parents=True)
    (place / "deep").chmod(0o700)
    text = as_another_user(lambda: segue.open(place / "deep" / "er" / "run"))
    assert f"{place}/deep belongs to uid 0, mode 0700" in text and "may not enter it" in text, text


def test_another_users_socket(place: Path) -> None:
    with Server(place / "run"):
        (place / "run").chmod(0o755)
        text = as_another_user(lambda: segue.open(place / "run"))
        assert f"{place}/run/segue.sock belongs to uid 0, mode 0600" in text, text
        assert f"(uid {NOBODY}) may not write to it" in text and "--allow-user" in text, text


def test_another_users_directory_without_a_server(place: Path) -> None:
    (place / "run").mkdir(mode=0o755)
    text = as_another_user(lambda: segue.open(place / "run"))
    assert f"{place}/run belongs to uid 0, mode 0755" in text and "may not make files in it" in text, text


def test_a_directory_cannot_be_made_in_another_users(place: Path) -> None:
    text = as_another_user(lambda: segue.open(place / "new" / "run"))
    assert f"{place} belongs to uid 0, mode 0755" in text and "may not make files in it" in text, text


def test_a_directory_of_ones_own(place: Path) -> None:
    """Without the permission to enter it: that can be mended."""

    def attempt() -> None:
        run = Path(f"{place}/mine")
        run.mkdir(mode=0o600)
        segue.open(run)

    place.chmod(0o777)
    text = as_another_user(attempt)
    assert f"{place}/mine belongs to uid {NOBODY}, mode 0600" in text, text
    assert f"(uid {NOBODY}) may not enter it" in text, text

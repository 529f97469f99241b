"""What others put in the place of the store's files, and where a store may lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import segue
from test_cli import FINE, WRONG, environment, program, run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store that was closed in order."""
    with segue.open(tmp_path / "run"):
        pass
    until = time.monotonic() + 30
    while (tmp_path / "run" / "server.pid").exists():
        assert time.monotonic() < until, "the server has not ended"
        time.sleep(0.01)
    return tmp_path / "run"


LOOKING = [
    "verify DIR", "inspect DIR", "doctor DIR", "get DIR a", "checkpoint list DIR", "backup DIR COPY", "serve DIR",
]  # fmt: skip


@pytest.mark.parametrize("what", LOOKING)
def test_a_link_in_the_place_of_the_lock_is_not_followed(directory: Path, what: str) -> None:
    lock, victim = directory / "store" / "lock.mdb", directory.parent / "victim"
    place = {"DIR": directory, "COPY": directory.parent / "copy"}
    lock.unlink(missing_ok=True)
    for target in (victim, directory.parent / "missing"):
        victim.write_bytes(b"precious")
        lock.symlink_to(target)
        result = run(*(place.get(word, word) for word in what.split()))
        assert result.returncode == WRONG, result
        assert "lock.mdb is a symbolic link" in result.stdout + result.stderr
        assert victim.read_bytes() == b"precious"
        assert not (directory.parent / "missing").exists()
        lock.unlink()


@pytest.mark.parametrize("name", ["server.pid", "server.log"])
def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(directory: Path, name: str) -> None:
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with segue.open(directory, timeout=10) as client:
        assert client.status()["server"]["embedded"]


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_what_looks_like_a_leftover_of_another_user_is_not_ours(directory: Path, command: str) -> None:
    if os.getuid():
        pytest.skip("SKIP: needs root")
    target = directory.parent / "copy"
    name = ".copy.backup-1" if command == "backup" else "copy/.restore-1"
    theirs, ours = (directory.parent / (name + end) for end in "23")
    for leftover in (theirs, ours):
        (leftover / "copy").mkdir(parents=True)
        (leftover / "copy" / "file").touch()
    os.chown(theirs, 12345, 12345)
    if command == "restore":
        assert run("backup", directory, directory.parent / "kept").returncode == FINE
    assert run(command, directory if command == "backup" else directory.parent / "kept", target).returncode == FINE
    assert (theirs / "copy" / "file").exists() and not ours.exists()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that other machines might have."""
    mount = shutil.which("bindfs")
    if not mount or not os.path.exists("/dev/fuse") or os.getuid():
        pytest.skip("SKIP: needs root, bindfs and /dev/fuse")
    (tmp_path / "real").mkdir()
    (tmp_path / "shared").mkdir()
    subprocess.run([mount, "--no-allow-other", tmp_path / "real", tmp_path / "shared"], check=True)
    yield tmp_path / "shared"
    subprocess.run(["umount", "-l", tmp_path / "shared"], check=True)


def test_a_file_system_that_is_not_known_to_be_local(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGUE_ASSUME_LOCAL", raising=False)
    with pytest.raises(segue.Error, match="shared with other machines.*FUSE.*SEGUE_ASSUME_LOCAL=1"):
        segue.open(shared / "run")
    found = run("doctor", shared)
    assert found.returncode == WRONG
    assert any(line.split()[:3] == ["bad", "file", "system"] for line in found.stdout.splitlines())
    assert "shared with other machines" in run("serve", shared / "run").stderr

    monkeypatch.setenv("SEGUE_ASSUME_LOCAL", "1")
    with segue.open(shared / "run") as client:
        assert client.status()["server"]["embedded"]
    found = run("doctor", shared, env=environment(SEGUE_ASSUME_LOCAL="1"))
    assert found.returncode == FINE
    assert any(line.split()[:3] == ["warn", "file", "system"] for line in found.stdout.splitlines())


def test_a_server_is_told_that_a_file_system_is_local(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGUE_ASSUME_LOCAL", raising=False)
    server = subprocess.Popen(
        [program(), "serve", "--assume-local", shared / "run"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    assert "serves" in server.stdout.readline()
    server.terminate()
    assert server.wait(30) == 0

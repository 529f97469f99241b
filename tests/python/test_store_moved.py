"""A store that is removed, moved or replaced while its server runs: nothing that no path leads to is saved."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import little
import segue
from test_cli import FINE, WRONG, run

LONG = 3600.0


@pytest.fixture
def client(directory: Path) -> Iterator[segue.Client]:
    """Closing it may say what a test has brought about."""
    with suppress(segue.MovedError), segue.open(directory) as client:
        yield client


def wait_for(what: Callable[[], object], why: str) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until, why
        time.sleep(0.01)


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


def rename(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


def replace(directory: Path) -> None:
    """By the store of somebody else, who is at work there."""
    rename(directory)
    shutil.copytree(directory.with_name("elsewhere"), directory, ignore=shutil.ignore_patterns("*.sock"))


def restore_over(directory: Path) -> None:
    """As 'cp -a' does it, not as 'segue restore', which refuses."""
    shutil.copytree(directory / "store", directory.with_name("copy"))
    shutil.rmtree(directory / "store")
    directory.with_name("copy").rename(directory / "store")


def remove_data(directory: Path) -> None:
    """As a cleaner of temporary files."""
    (directory / "store" / "data.mdb").unlink()


KINDS = [
    (remove, "store was removed"), (rename, "store was moved to .*elsewhere"), (replace, "moved to .*elsewhere, and"),
    (restore_over, "store/store was removed, and"), (remove_data, "data.mdb was removed.*cp /proc/"),
]  # fmt: skip


def step(loader: segue.Loader, count: int = 1) -> None:
    """Some more batches, committed."""
    for batch in loader:
        little.work(batch)
        batch.commit()
        count -= 1
        if not count:
            break


@pytest.fixture
def loader(stream: segue.Stream) -> segue.Loader:
    """Two batches are on disk."""
    loader = stream.loader()
    step(loader, 2)
    loader.flush()
    return loader


@pytest.mark.parametrize("kind, text", KINDS)
@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("call", ["flush", "state_dict", "close"])
def test_what_no_path_leads_to_is_not_saved(
    directory: Path, client: segue.Client, loader: segue.Loader,
    kind: Callable[[Path], None], text: str, more: int, call: str,
) -> None:  # fmt: skip
    kind(directory)
    if more:
        try:
            step(loader, more)
        except segue.MovedError:
            pass  # the interval is over already
    with pytest.raises(segue.MovedError, match=text):
        getattr(loader, call)()


@pytest.mark.parametrize("kind, text", KINDS)
def test_a_worker_learns_it_at_its_next_call(
    directory: Path, client: segue.Client, tmp_path: Path, kind: Callable[[Path], None], text: str
) -> None:
    little.write(tmp_path)
    loader = little.open_stream(client, tmp_path, epochs=None, interval=0.05).loader()
    step(loader, 2)
    kind(directory)

    def fails() -> bool:
        try:
            step(loader)
        except segue.MovedError as error:
            assert text.split(".*")[0] in str(error)
            return True
        return False

    wait_for(fails, "the worker is not told")
    with pytest.raises(segue.MovedError):
        loader.close()


@pytest.mark.parametrize("kind", [remove, rename, restore_over])
def test_a_commit_that_waits_for_the_disk(
    directory: Path, client: segue.Client, tmp_path: Path, kind: Callable[[Path], None]
) -> None:
    little.write(tmp_path)
    loader = little.open_stream(client, tmp_path, durability="commit").loader()
    step(loader, 2)
    kind(directory)
    with pytest.raises(segue.MovedError):
        step(loader, 2)


def test_moved_back_it_goes_on(directory: Path, client: segue.Client, loader: segue.Loader, tmp_path: Path) -> None:
    elsewhere = directory.with_name("elsewhere")
    pid = client.status()["server"]["pid"]
    for there in (directory, directory / "store"):
        there.rename(elsewhere)
        with pytest.raises(segue.MovedError, match="move it back"):
            loader.flush()
        elsewhere.rename(there)
        loader.flush()
        step(loader, 2)
        loader.flush()
    # What is on disk is told before what the storage does.
    wait_for(lambda: client.status()["server"]["storage"] == "ok", "the storage works again")
    assert client.status()["server"]["pid"] == pid
    trace = little.rest(loader)
    loader.close()

    with segue.open(tmp_path / "undisturbed") as other:
        undisturbed = little.open_stream(other, tmp_path).loader()
        assert little.rest(undisturbed)[6:] == trace
    assert run("verify", directory).returncode == FINE


def test_the_same_path_opened_again_does_not_mix(directory: Path, client: segue.Client, loader: segue.Loader,
                                                 tmp_path: Path) -> None:  # fmt: skip
    remove(directory)
    with segue.open(directory) as other:
        assert other.status()["server"]["pid"] != client.status()["server"]["pid"]
        fresh = little.open_stream(other, tmp_path).loader()
        step(fresh, 4)
        with pytest.raises(segue.MovedError, match="something else lies in its place"):
            loader.flush()
        fresh.flush()
        pid = client.status()["server"]["pid"]
        with pytest.raises(segue.MovedError):
            loader.close()
        client.close()
        wait_for(lambda: little.has_ended(pid), "the old server goes on")
        # It has left what is not its own.
        assert (directory / "server.pid").exists() and (directory / "segue.sock").is_socket()
        step(fresh, 2)
        fresh.close()
    assert run("verify", directory).returncode == FINE


@pytest.mark.parametrize("kind", [remove, rename])
def test_the_server_ends_and_does_not_come_back(
    directory: Path, loader: segue.Loader, client: segue.Client, kind: Callable[[Path], None]
) -> None:
    pid = client.status()["server"]["pid"]
    kind(directory)
    with pytest.raises(segue.MovedError):
        loader.close()
    client.close()
    wait_for(lambda: little.has_ended(pid), "the server goes on")
    assert not directory.exists()


def test_a_moved_store_is_whole_in_its_new_place(directory: Path, loader: segue.Loader, client: segue.Client,
                                                 tmp_path: Path) -> None:  # fmt: skip
    pid = client.status()["server"]["pid"]
    rename(directory)
    with pytest.raises(segue.MovedError):
        loader.close()
    client.close()
    wait_for(lambda: little.has_ended(pid), "the server goes on")
    elsewhere = directory.with_name("elsewhere")
    assert not (elsewhere / "segue.sock").exists()
    with segue.open(elsewhere) as client:
        batch = next(iter(little.open_stream(client, tmp_path).loader(start="continue")))
        assert batch.step == 1


def kill_server(client: segue.Client) -> None:
    pid = client.status()["server"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: little.has_ended(pid), "the server lives")


@pytest.mark.parametrize("call", ["flush", "next", "state_dict"])
def test_no_server_is_started_in_a_directory_of_the_same_name(
    directory: Path, client: segue.Client, loader: segue.Loader, call: str
) -> None:
    kill_server(client)
    remove(directory)
    with pytest.raises(segue.MovedError, match="was removed or moved since it was opened"):
        step(loader, 40) if call == "next" else getattr(loader, call)()
    assert not directory.exists()

    directory.mkdir()
    with pytest.raises(segue.MovedError, match="was replaced by another since it was opened"):
        step(loader, 40) if call == "next" else getattr(loader, call)()
    assert not list(directory.iterdir())


def test_a_server_of_another_directory_gets_no_lane(
    directory: Path, client: segue.Client, loader: segue.Loader, tmp_path: Path
) -> None:
    kill_server(client)
    rename(directory)
    with segue.open(directory) as other:
        little.open_stream(other, tmp_path)
        with pytest.raises(segue.MovedError, match="was replaced by another since it was opened"):
            loader.state_dict()
        with pytest.raises(segue.NotFoundError):
            other.get("train", "0")


def test_a_stream_that_stores_nothing_goes_on(directory: Path, client: segue.Client, tmp_path: Path) -> None:
    little.write(tmp_path)
    loader = little.open_stream(client, tmp_path, persist=False).loader()
    step(loader, 2)
    remove(directory)
    assert len(little.rest(loader)) > 4
    loader.close()


def test_without_the_lock_file_all_goes_on(directory: Path, loader: segue.Loader) -> None:
    (directory / "store" / "lock.mdb").unlink()
    step(loader, 2)
    loader.flush()
    loader.close()


def test_restoring_over_a_server_is_refused(
    directory: Path, client: segue.Client, loader: segue.Loader, tmp_path: Path
) -> None:
    assert run("backup", directory, tmp_path / "copy").returncode == FINE
    for force in ((), ("--force",)):
        refused = run("restore", *force, tmp_path / "copy", directory)
        assert refused.returncode == WRONG and "serves" in refused.stderr
    step(loader, 2)
    loader.flush()

"""Fixtures that several files of tests have."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import little
import segue


def pytest_configure() -> None:
    """What nohup, or a shell, has had ignored is not in what the tests start, and Ctrl-C nowhere."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the store is to be."""
    return tmp_path / "store"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may enter: pytest's own are private, and are made so by each of its runs."""
    with tempfile.TemporaryDirectory(prefix="segue-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def client(directory: Path) -> Iterator[segue.Client]:
    """On the store, so that its server does not end with the workers."""
    with segue.open(directory) as client:
        yield client


@pytest.fixture
def stream(client: segue.Client, tmp_path: Path) -> segue.Stream:
    """The little stream; its data set is written."""
    little.write(tmp_path)
    return little.open_stream(client, tmp_path)

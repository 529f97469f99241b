"""A directory for a store that goes with its user."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress

_PREFIX = "segue-batches-"
_LOCK = "user.lock"
_PATIENCE, _LOOK = 5.0, 0.002  # seconds for a server to leave it, and between two looks
_TRIES = 100


class TemporaryStore:
    """A directory that is removed in the end; by the next one's maker where its user was killed.

    Attributes
    ----------
    path : str
    """

    def __init__(self) -> None:
        _remove_left(tempfile.gettempdir())
        while not self._make():
            pass

    def _make(self) -> bool:
        """Make it. False: somebody has taken it for one that is left, before it was locked."""
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        lock = os.path.join(self.path, _LOCK)
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if os.path.exists(lock):
            return True
        os.close(self._lock)
        return False

    def remove(self, wait: bool = True) -> None:
        """Remove it, when the server has left, which is waited for."""
        until = time.monotonic() + _PATIENCE * wait
        while os.path.exists(os.path.join(self.path, "segue.sock")) and time.monotonic() < until:
            time.sleep(_LOOK)
        for _ in range(_TRIES):  # a server that was not waited for may make a file meanwhile
            shutil.rmtree(self.path, ignore_errors=True)
            if not os.path.exists(self.path):
                break
            time.sleep(_LOOK)
        os.close(self._lock)


def _remove_left(folder: str) -> None:
    """Remove what users have left who were killed: nobody has it locked."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(_PREFIX):
            continue
        with suppress(OSError):  # being made, or removed just now
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.exists(os.path.join(entry.path, "segue.sock")):
                    shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(lock)

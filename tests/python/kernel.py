"""A kernel of a notebook, started as Jupyter starts it, and what its cells say."""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REASON = "a kernel of notebooks is not installed (scripts/setup --ci)"
pytest.importorskip("ipykernel", reason=REASON)
jupyter = pytest.importorskip("jupyter_client", reason=REASON)
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager  # noqa: E402

HERE = str(Path(__file__).parent)
PATIENCE = 40.0  # seconds for a cell; one that takes longer hangs
PROMPT = 8.0  # seconds that anything done at once may take under load; a wait for a lane: 10
SEEN = re.compile(r"^\d+\.\d+\.[0-9a-f]{16}$", re.MULTILINE)  # what `little.seen` returns


def environment() -> dict[str, str]:
    """Of kernels and scripts: modules of the tests can be imported there."""
    path = [HERE, os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": ":".join(filter(None, path)), "PYTHONUNBUFFERED": "1"}


@dataclass
class Said:
    """What a cell, or a script, has printed, and how it ended."""

    output: str = ""  # also standard error, and the value of the last expression
    error: str | None = None  # class of the exception that ended it
    message: str = ""
    number: int = 0  # n of In[n]
    seconds: float = 0.0

    @property
    def batches(self) -> list[str]:
        """What `little.seen` said of the batches that it printed."""
        return SEEN.findall(self.output)

    @property
    def warns(self) -> bool:
        """Of a batch that was saved and not committed."""
        return re.search(r"Warning: (?s:.*?)batch\.commit\(\)", self.output) is not None

    def fine(self) -> Said:
        """It has ended without an error, and did not wait."""
        assert self.error is None and self.seconds < PROMPT, self
        return self

    def failed(self, error: str, *words: str) -> Said:
        """It has ended by this error, whose text matches each of these patterns."""
        assert self.error == error, self
        for word in words:
            assert re.search(word, self.message), f"no {word!r} in: {self.message}"
        return self


class _Specs(KernelSpecManager):
    """This Python's kernel, whatever is installed beside it."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        preload = "--IPKernelApp.exec_lines=import numpy, segue, little"
        quiet = "--HistoryManager.enabled=False"
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=[*argv, preload, quiet], display_name="test", language="python")


@dataclass
class Kernel:
    """One kernel. `run` runs a cell; `begin`, `hear` and `end` one that is to be disturbed."""

    directory: Path  # for its files
    cell: Said = field(default_factory=Said)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.manager = jupyter.KernelManager(
            kernel_spec_manager=_Specs(), connection_file=str(self.directory / "kernel.json")
        )
        env = environment() | {"IPYTHONDIR": str(self.directory / "ipython")}
        self.manager.start_kernel(cwd=str(self.directory), env=env)
        self.client: Any = None

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def connect(self) -> None:
        """Wait until it can run cells."""
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def begin(self, code: str) -> None:
        self.cell = Said()
        self._begun = time.monotonic()
        self._id = self.client.execute(code, allow_stdin=False, stop_on_error=False)

    def _listen(self, until: float) -> bool:
        """Take in one message; False: the cell has ended."""
        try:
            message = self.client.get_iopub_msg(timeout=max(until - time.monotonic(), 0.001))
        except queue.Empty:
            pytest.fail(f"a cell hangs: {self.cell}")
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.cell.output += content["text"]
        elif kind == "execute_result":
            self.cell.output += content["data"]["text/plain"] + "\n"
        elif message["parent_header"].get("msg_id") != self._id:
            pass
        elif kind == "execute_input":
            self.cell.number = content["execution_count"]
        elif kind == "error":
            self.cell.error, self.cell.message = content["ename"], content["evalue"]
        return not (
            kind == "status"
            and content["execution_state"] == "idle"
            and message["parent_header"].get("msg_id") == self._id
        )

    def hear(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Wait until the cell has printed it."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.cell.output)):
            assert self._listen(until), f"no {pattern!r}: {self.cell}"
        return found[0]

    def end(self, seconds: float = PATIENCE) -> Said:
        until = time.monotonic() + seconds
        while self._listen(until):
            pass
        self.cell.seconds = time.monotonic() - self._begun
        return self.cell

    def run(self, code: str) -> Said:
        """Run a cell to its end."""
        self.begin(code)
        return self.end()

    def interrupt(self) -> None:
        """What the button for it does: Ctrl-C."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel()
        self.connect()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        if self.client is not None:
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class Kernels:
    """Hands out a fresh kernel at a time; the next one starts meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = 0
        self.spare = self._start()

    def _start(self) -> Kernel:
        self.count += 1
        return Kernel(self.directory / f"kernel{self.count}")

    def take(self) -> Kernel:
        kernel = self.spare
        kernel.connect()
        self.spare = self._start()
        return kernel

"""A notebook whose cells are run in any order, beside a plain model of what each must say.

The model knows the last commit, and of each loader whether it has the lane, was closed, and which
batch it has open: nothing of rings, leases or servers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kernel import Kernel, Said

CELLS = {
    "open": """
client = segue.open({store!r})
stream = little.open_stream(client, directory, lanes=1, epochs=None, interval=3600.0)
print("pid", client.status()["server"]["pid"])
""",
    "loader": 'loader = stream.loader(start="continue")',
    "other": 'other, loader = loader, stream.loader(start="continue")',
    "swap": "loader, other = other, loader",
    "loop": """
for count, batch in enumerate(loader):
    x, h = batch.sequences["x"], batch.state("h")
    print(little.seen(batch))
    little.work(batch)
    if count == 2:
        break
""",
    "bug": """
for count, batch in enumerate(loader):
    x, h = batch.sequences["x"], batch.state("h")
    print(little.seen(batch))
    if count == 1:
        1 / 0
    little.work(batch)
""",
    "bug behind": """
for count, batch in enumerate(loader):
    x, h = batch.sequences["x"], batch.state_out("h")
    print(little.seen(batch))
    little.work(batch)
    if count == 1:
        1 / 0
""",
    "next": """
batch = next(iter(loader))
x, h = batch.sequences["x"], batch.state("h")
print(little.seen(batch))
""",
    "commit": "little.work(batch); batch.commit()",
    "tokens": "tokens = loader.state_dict()",
    "load": "loader.load_state_dict(tokens)",
    "close": "loader.close()",
    "close all": "client.close()",
}
LIKELY = {"loop": 4, "loader": 2, "bug": 2, "bug behind": 2, "open": 2, "load": 2}
NAMES = ("client", "stream", "loader", "other", "batch", "x", "h", "tokens", "count")


@dataclass(eq=False)
class Open:
    """A batch that was handed out."""

    loader: Loader
    step: int
    saved: bool
    settled: bool = False  # committed, given up or delivered again


@dataclass(eq=False)
class Loader:
    client: int  # number of the client that it came from
    attached: bool = False
    taken: bool = False  # by another loader
    closed: bool = False
    broken: bool = False  # its last loop was left, and not by an exception
    batch: Open | None = None


class Model:
    """What must come of a cell: errors by class, else batches."""

    def __init__(self) -> None:
        self.step = 0  # batches that count
        self.tokens: int | None = None
        self.clients = 0
        self.dead: set[int] = set()  # clients that were closed
        self.loader: Loader | None = None
        self.other: Loader | None = None
        self.holder: Loader | None = None
        self.batch: Open | None = None  # the variable
        self.lost: int | None = None  # step of a batch that was saved and left: a warning is due
        self.named = False  # an error has named it, and keeps it in its traceback
        self.delivered: list[int] = []
        self.warns: bool | None = False  # None: it may

    def _give_up(self, loader: Loader | None) -> None:
        """Its open batch comes again."""
        if loader and (batch := loader.batch):
            if batch.saved:
                self.lost, self.named = batch.step, False
            batch.settled, loader.batch = True, None

    def _commit(self, loader: Loader) -> None:
        if batch := loader.batch:
            self.step = batch.step + 1
            batch.settled, loader.batch = True, None

    def _use(self) -> str | None:
        """The error of any use of `loader`."""
        if self.loader is None:
            return "NameError"
        if self.loader.closed or self.loader.client in self.dead:
            return "ClosedError"
        return "FencedError" if self.loader.taken else None

    def _attach(self) -> None:
        loader = self.loader
        assert loader
        if self.holder is not loader:
            if self.holder:
                self._give_up(self.holder)
                self.holder.taken = True
            self.holder = loader
        loader.attached = True

    def _deliver(self, saved: bool) -> None:
        assert self.loader
        self._commit(self.loader)
        if self.lost is not None:
            self.warns = (self.lost == self.step and not self.named) or None
            self.lost = None
        self.delivered.append(self.step)
        self.batch = self.loader.batch = Open(self.loader, self.step, saved)

    def _iterate(self, saved: list[bool], error: str | None) -> str | None:
        if wrong := self._use():
            return wrong
        assert self.loader
        self._attach()
        if self.loader.broken and self.loader.batch and self.loader.batch.saved:
            self._commit(self.loader)
        self._give_up(self.loader)
        for each in saved:
            self._deliver(each)
        self.loader.broken = error is None
        return error

    def _end(self, loader: Loader) -> None:
        """`close`: what is open and saved counts."""
        if loader.batch and loader.batch.saved:
            self._commit(loader)
        self._give_up(loader)
        if self.holder is loader:
            self.holder = None

    def is_open_question(self, cell: str) -> bool:
        """Whether closing a client commits the open batch of a loader without a name."""
        holder = self.holder
        return (
            cell == "close all"
            and holder is not None
            and holder not in (self.loader, self.other)
            and holder.batch is not None
            and holder.batch.saved
        )

    def run(self, cell: str) -> str | None:
        """Return the class of the error that ends it."""
        self.delivered, self.warns = [], False
        error: str | None = getattr(self, "_run_" + cell.replace(" ", "_"))()
        return error

    def _run_open(self) -> None:
        self.clients += 1

    def _run_loader(self) -> str | None:
        if not self.clients:
            return "NameError"
        self.loader = Loader(self.clients)
        return None

    def _run_other(self) -> str | None:
        if self.loader is None:
            return "NameError"
        self.other = self.loader
        return self._run_loader()

    def _run_swap(self) -> str | None:
        if self.loader is None or self.other is None:
            return "NameError"
        self.loader, self.other = self.other, self.loader
        return None

    def _run_loop(self) -> str | None:
        return self._iterate([True, True, True], None)

    def _run_bug(self) -> str | None:
        return self._iterate([True, False], "ZeroDivisionError")

    def _run_bug_behind(self) -> str | None:
        return self._iterate([True, True], "ZeroDivisionError")

    def _run_next(self) -> str | None:
        return self._iterate([False], None)

    def _run_commit(self) -> str | None:
        batch = self.batch
        if batch is None:
            return "NameError"
        if batch.loader.taken:
            self.named |= batch.step == self.lost
            return "FencedError|ClosedError|CommittedError|StaleIterator"
        if batch.settled:
            return "ClosedError|CommittedError|StaleIterator|FencedError"
        self._commit(batch.loader)
        return None

    def _run_tokens(self) -> str | None:
        if wrong := self._use():
            return wrong
        assert self.loader
        self._attach()
        if self.loader.batch and not self.loader.batch.saved:
            return "UnsavedError"
        self._commit(self.loader)
        self.tokens = self.step
        return None

    def _run_load(self) -> str | None:
        if self.loader and self.tokens is None:
            return "NameError"
        if wrong := self._use():
            return wrong
        assert self.loader and self.tokens is not None
        self._attach()
        self._give_up(self.loader)
        self.step = self.tokens
        return None

    def _run_close(self) -> str | None:
        if self.loader is None:
            return "NameError"
        if self.loader.taken and not self.loader.closed:
            self.loader.closed = True
            return "FencedError|None"  # whether it has something to say
        self.loader.closed = True
        self._end(self.loader)
        return None

    def _run_close_all(self) -> str | None:
        if not self.clients:
            return "NameError"
        self.dead.add(self.clients)
        if self.holder and self.holder.client in self.dead:
            self._end(self.holder)
        return None


class Notebook:
    """One store, one run of cells."""

    def __init__(
        self, kernel: Kernel, store: Path, whole: list[str], rng: np.random.Generator
    ) -> None:
        self.kernel = kernel
        self.store = store
        self.whole = whole
        self.rng = rng
        self.model = Model()
        self.server: int | None = None
        self.done: list[str] = []
        self.warned = False  # since a batch was lost
        kernel.run(f"for name in {NAMES}: globals().pop(name, None)").fine()
        kernel.run("1 / 0")  # its traceback takes the place of one that keeps a batch

    def _run(self, name: str) -> Said:
        self.done.append(name)
        want = self.model.run(name)
        said = self.kernel.run(CELLS[name].format(store=str(self.store)))
        where = f"after {self.done}, wanted {want} and steps {self.model.delivered}: {said}"
        assert str(said.error) in str(want).split("|"), where
        assert said.batches == [self.whole[step] for step in self.model.delivered], where
        assert said.seconds < 5, where
        self.warned |= said.warns
        if self.model.delivered:
            assert self.model.warns in (self.warned, None), where
        if self.model.lost is None:
            self.warned = False
        if name == "open":
            self.server = int(said.output.split()[-1])
        return said

    def _kill(self) -> None:
        self.done.append("kill the server")
        if self.server:
            try:
                os.kill(self.server, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.server = None

    def play(self, count: int) -> None:
        """Run so many cells; then the person opens everything again, and goes on."""
        moves: list[str] = [name for name in CELLS for _ in range(LIKELY.get(name, 1))]
        chosen: Callable[[], str] = lambda: str(self.rng.choice([*moves, "kill"]))
        for name in ["open", "loader", *(chosen() for _ in range(count))]:
            if name == "kill":
                self._kill()
            elif not self.model.is_open_question(name):
                self._run(name)
        for name in ("open", "loader", "loop", "loop"):
            self._run(name)

"""Trains with several worker processes, kills some of them and the server on purpose, and goes on.

The coordinator starts the workers, adds nothing up itself (it hands every worker all lanes'
gradients), keeps the last (weights, token) pair, and when a worker dies sends all others back to
that pair and starts a new one in its place. A dead server is none of its business: the workers'
library starts another.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import checkpoint
from gradients import Channel, Header
from history import Row
from screen import Screen, bar

SILENCE = 120.0  # seconds without a word from any worker after which something is wrong
# Rounds after the server's death: those that were filled ahead are used up, and no worker can be
# going on without another server.
AFTER = 12
LAST = 50  # rounds that loss and accuracy are told of
PAUSE_ROUNDS = 60  # rounds after the server's death among which the longest pause is looked for


class TrainingError(Exception):
    """Training could not go on; says which process failed, and what its log says."""


@dataclass(frozen=True)
class Settings:
    """One training. What is not told apart below goes to the workers as it is."""

    store: Path  # store directory
    paths: str  # pattern of the data files
    log: Path  # directory of the workers' logs and the pair
    workers: int
    lanes: int
    epochs: int
    num_unroll: int
    batch_size: int
    hidden: int
    memory: float  # steps the cells are to remember
    typical_steps: float  # steps of a middling sequence
    rate: float
    clip: float  # limit of the gradient's norm
    seed: int
    rounds_expected: int  # rounds to plan kills, pairs and learning rate by
    rounds: int | None = None  # rounds to stop after; None: the end of the last epoch
    # (round, what): what is "server", "worker" or "commits" (everything, between two commits).
    kills: tuple[tuple[int, str], ...] = ()

    @property
    def pair_every(self) -> int:
        """Rounds between two pairs: about twenty pairs in a training."""
        return max(1, self.rounds_expected // 20)

    def lanes_of(self, rank: int) -> list[int]:
        """The lanes of one worker."""
        return [lane for lane in range(self.lanes) if lane % self.workers == rank]

    def config(self, rank: int, life: int, pair: Path | None) -> Header:
        """What one worker is told at its start."""
        return {
            "rank": rank,
            "life": life,
            "checkpoint": None if pair is None else str(pair),
            "worker_lanes": self.lanes_of(rank),
            "store": str(self.store),
            "paths": self.paths,
        } | {
            name: getattr(self, name)
            for name in (
                "lanes", "epochs", "num_unroll", "batch_size", "hidden", "memory",
                "typical_steps", "rate", "clip", "seed", "rounds_expected", "rounds",
            )
        }  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One trained round, all lanes together."""

    loss: float
    correct: int
    steps: int
    cells: int
    rows: list[Row]
    lanes: list[tuple[float, int, int]]  # loss, correct and steps of each lane


def of_last(rounds: list[Round], lanes: Iterable[int]) -> tuple[float, float]:
    """Loss a step, and share of the steps labelled right, of `lanes` over the last rounds."""
    parts = [done.lanes[lane] for done in rounds[-LAST:] for lane in lanes]
    loss, correct, steps = map(sum, zip(*parts, strict=True))
    return loss / max(1, steps), correct / max(1, steps)


@dataclass
class Kill:
    """One kill and what came of it.

    pid : of the server where it was killed, of the worker where one was.
    done : rounds done until then, those gone back on included.
    again : rounds trained again.
    cost : seconds. Of the server's death, the longest pause after it; of a worker's, the time until
        training was where it had been.
    """

    what: str
    round: int
    life: int
    pid: int
    done: int
    again: int = 0
    cost: float = 0.0


@dataclass
class Result:
    """A finished training."""

    history: list[Round]  # what survived
    weights: np.ndarray
    sha256: str
    seconds: float  # from the first round's end to the last's
    batches: int  # taken in that time, those trained again included
    waited: float  # share of the workers' time spent waiting for data
    kills: list[Kill]

    @property
    def padding(self) -> float:
        """Share of the delivered steps that are padding."""
        return 1 - sum(r.steps for r in self.history) / sum(r.cells for r in self.history)


@dataclass
class _Worker:
    """A running worker process."""

    process: subprocess.Popen[bytes]
    channel: Channel
    log: Path
    seconds: float = 0.0
    waited: float = 0.0
    batches: int = 0
    killed: bool = False


@dataclass
class _Clock:
    """When rounds were done (those gone back on included), and what the workers waited."""

    done: list[float] = field(default_factory=list)
    batches: int = 0
    seconds: float = 0.0
    waited: float = 0.0


class Coordinator:
    """Runs one training.

    Parameters
    ----------
    settings : what to train.
    server_pid : gives the pid of the store's server; asked just before it is killed.
    screen : for progress and news.
    """

    def __init__(
        self, settings: Settings, server_pid: Callable[[], int], screen: Screen
    ) -> None:
        self.settings, self.server_pid, self.screen = settings, server_pid, screen
        self.workers: dict[int, _Worker] = {}
        self.life = 0
        self.pair: Path | None = None
        self.pair_rounds = 0
        self.history: list[Round] = []
        self.clock = _Clock()
        self.kills: list[Kill] = []
        self.due = sorted(settings.kills)
        self.struck: tuple[Kill, float] | None = None  # and when; not yet made up for
        self._forget()

    def _forget(self) -> None:
        """Drops what the workers of this life have sent."""
        self.gradients: dict[int, tuple[Header, bytes]] = {}
        self.halves: dict[int, dict[str, bytes]] = {}
        self.ends: dict[int, tuple[Header, bytes]] = {}
        self.torn: set[int] = set()

    # -- the loop ----------------------------------------------------------------------------

    def run(self) -> Result:
        """Trains to the end. TrainingError if a process fails by itself; kills all on any error."""
        self.settings.log.mkdir(parents=True, exist_ok=True)
        try:
            for rank in range(self.settings.workers):
                self._spawn(rank)
            while len(self.ends) < self.settings.workers:
                self._serve()
            return self._finish()
        finally:
            for worker in self.workers.values():
                if worker.process.poll() is None:
                    worker.process.kill()
                worker.process.wait()
                worker.channel.close()

    def _serve(self) -> None:
        """Waits for messages, and handles one of each worker that has sent any."""
        with selectors.DefaultSelector() as selector:
            for rank, worker in self.workers.items():
                selector.register(worker.channel, selectors.EVENT_READ, rank)
            ready = selector.select(SILENCE)
        if not ready:
            raise TrainingError(
                f"no word from any worker for {SILENCE:.0f} s, at round {len(self.history)}"
                + "".join(self._tail(rank) for rank in self.workers)
            )
        for key, _ in ready:
            rank, worker = key.data, self.workers[key.data]
            if worker.channel is not key.fileobj:
                continue  # replaced while a message before was handled
            try:
                header, blob = worker.channel.receive()
            except EOFError:
                self._died(rank)
                continue
            if header["life"] == self.life:
                getattr(self, f"_on_{header['kind']}")(rank, header, blob)

    # -- what workers say --------------------------------------------------------------------

    def _on_gradients(self, rank: int, header: Header, blob: bytes) -> None:
        worker = self.workers[rank]
        worker.seconds += header["seconds"]
        worker.waited += header["waited"]
        worker.batches += len(header["lanes"])
        self.clock.seconds += header["seconds"]
        self.clock.waited += header["waited"]
        lanes = header["lanes"]
        size = len(blob) // len(lanes)
        for i, lane in enumerate(lanes):
            self.gradients[lane["lane"]] = (lane, blob[i * size : (i + 1) * size])
        if header["round"] != len(self.history):
            raise TrainingError(f"worker {rank} is in round {header['round']}, not in "
                                f"{len(self.history)}")  # fmt: skip
        if len(self.gradients) == self.settings.lanes:
            self._round_done()

    def _round_done(self) -> None:
        """All lanes' gradients are there: hands them to all workers, and kills what is due."""
        lanes = [self.gradients[lane] for lane in range(self.settings.lanes)]
        infos = [info for info, _ in lanes]
        self.gradients = {}
        self.history.append(_round(infos))
        rounds = len(self.history)
        self.clock.done.append(time.monotonic())
        self.clock.batches += len(lanes)
        for rank in self.workers:
            self._progress(rank)
        if self.struck:
            self._follow(*self.struck)
        due = self.due.pop(0)[1] if self.due and self.due[0][0] <= rounds else None
        header = {
            "kind": "sum",
            "steps": max(1, self.history[-1].steps),
            "checkpoint": rounds % self.settings.pair_every == 0,
            "tear": due == "commits",
        }
        self._send_all(header, b"".join(gradient for _, gradient in lanes))  # in lane order
        if due == "server":
            self._kill_server()
        elif due == "worker":
            self._kill_worker(max(self.workers))

    def _on_pair(self, rank: int, header: Header, blob: bytes) -> None:
        """Half a pair: once all halves of a round are there they become the pair to go back to."""
        parts, at = self.halves.setdefault(header["round"], {}), 0
        for name, size in header["parts"]:
            parts[name] = blob[at : at + size]
            at += size
        tokens = {n.partition("/")[2]: p for n, p in parts.items() if n.startswith("token/")}
        arrays = {n.partition("/")[2]: p for n, p in parts.items() if n.startswith("array/")}
        if len(tokens) < self.settings.lanes or not arrays:
            return
        del self.halves[header["round"]]
        self.pair = self.settings.log / "pair.npz"
        self.pair_rounds = header["round"]
        floats = {name: np.frombuffer(part, np.float32) for name, part in arrays.items()}
        checkpoint.save(self.pair, checkpoint.Checkpoint(self.pair_rounds, floats, tokens))

    def _on_torn(self, rank: int, header: Header, blob: bytes) -> None:
        """All workers have stopped between two commits: now everything dies."""
        self.torn.add(rank)
        if len(self.torn) == self.settings.workers:
            self._kill_everything()

    def _on_end(self, rank: int, header: Header, blob: bytes) -> None:
        self.ends[rank] = (header, blob)

    # -- kills -------------------------------------------------------------------------------

    def _strike(self, what: str, pid: int) -> None:
        kill = Kill(what, len(self.history), self.life, pid, len(self.clock.done))
        self.kills.append(kill)
        self.struck = kill, time.monotonic()

    def _kill_server(self) -> None:
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        self._strike("server", pid)
        self._news(f"kill -9 to the server (pid {pid}); the workers are told nothing")

    def _kill_worker(self, rank: int) -> None:
        worker = self.workers[rank]
        worker.killed = True
        worker.process.kill()
        self._strike("worker", worker.process.pid)
        self._news(f"kill -9 to worker {rank} (pid {worker.process.pid})")

    def _kill_everything(self) -> None:
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        for worker in self.workers.values():
            worker.killed = True
            worker.process.kill()
        self._strike("commits", pid)
        self._news("kill -9 to the server and all workers; only lane 0 had committed the round")
        self._go_back(list(self.workers))

    def _follow(self, kill: Kill, when: float) -> None:
        """A round is done after a kill: is all as before?"""
        rounds = len(self.history)
        if kill.what == "server":
            if rounds < kill.round + AFTER:
                return
            pid = self.server_pid()
            if pid == kill.pid:
                raise TrainingError(f"the server (pid {pid}) was killed and runs all the same")
            self._news(f"the workers have started another server (pid {pid}) and gone on")
        else:
            if kill.life == self.life or rounds < kill.round:
                return
            kill.cost = time.monotonic() - when
            self._news(f"back where it was, {kill.cost:.2f} s after the kill")
        self.struck = None

    def _died(self, rank: int) -> None:
        """A worker's channel has closed. A killed one is replaced; any other end is a failure."""
        worker = self.workers[rank]
        code = worker.process.wait()
        if code != -signal.SIGKILL:
            raise TrainingError(f"worker {rank} ended with code {code}{self._tail(rank)}")
        if not worker.killed:
            self._news(f"worker {rank} was killed by someone else")
        self._go_back([rank])

    def _go_back(self, dead: list[int]) -> None:
        """Everything returns to the last pair; the dead are started anew."""
        if self.struck and self.struck[0].life == self.life:
            self.struck[0].again = len(self.history) - self.pair_rounds
        self.life += 1
        self._forget()
        del self.history[self.pair_rounds :]
        where = "the last (weights, token) pair" if self.pair else "the beginning"
        self._news(f"all go back to here, to {where}")
        for rank in dead:
            self.workers[rank].process.wait()
            self.workers[rank].channel.close()
        pair = None if self.pair is None else str(self.pair)
        back = {"kind": "back", "life": self.life, "checkpoint": pair}
        for rank in list(self.workers):
            if rank in dead:
                self._spawn(rank)
            else:
                self._send(rank, back)

    # -- workers -----------------------------------------------------------------------------

    def _spawn(self, rank: int) -> None:
        channel, theirs = Channel.pair()
        log = self.settings.log / f"worker-{rank}.log"
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        with theirs, open(log, "ab") as output:
            process = subprocess.Popen(
                [*command, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | one_thread,
            )
        self.workers[rank] = _Worker(process, channel, log)
        self._send(rank, self.settings.config(rank, self.life, self.pair))

    def _send(self, rank: int, header: Header, blob: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # it is dead: its channel's end will say so
            self.workers[rank].channel.send(header, blob)

    def _send_all(self, header: Header, blob: bytes = b"") -> None:
        for rank in self.workers:
            self._send(rank, header, blob)

    def _tail(self, rank: int) -> str:
        """The end of a worker's log, for an error message."""
        log = self.workers[rank].log
        lines = log.read_text(errors="replace").splitlines()[-15:]
        return f"\n{log}:\n" + "\n".join(f"    {line}" for line in lines)

    def _progress(self, rank: int) -> None:
        worker, lanes, done = self.workers[rank], self.settings.lanes_of(rank), len(self.history)
        loss, right = of_last(self.history, lanes)
        ended = not any(done.lanes[lane][2] for done in self.history[-LAST:] for lane in lanes)
        names = ",".join(map(str, lanes))
        # Together no longer than a terminal's 80 columns.
        self.screen.progress(
            rank,
            f"worker {rank} lane{'s' * (len(lanes) > 1)} {names}"
            f"  {bar(done / self.settings.rounds_expected)} round {done:4}"
            + ("  has ended" if ended else f"  loss {loss:.3f}  right {right:5.1%}")
            + f"  {worker.batches / max(worker.seconds, 1e-9):3.0f}/s",
        )

    def _news(self, text: str) -> None:
        self.screen.news(f"round {len(self.history):4}: {text}")

    # -- the end -----------------------------------------------------------------------------

    def _finish(self) -> Result:
        self._send_all({"kind": "bye"})
        for rank, worker in self.workers.items():
            try:
                code: int | None = worker.process.wait(timeout=SILENCE)
            except subprocess.TimeoutExpired:
                code = None
            if code is None:
                raise TrainingError(f"worker {rank} does not end{self._tail(rank)}")
            if code != 0:
                raise TrainingError(f"worker {rank} ended with code {code}{self._tail(rank)}")
        digests = {rank: header["sha256"] for rank, (header, _) in self.ends.items()}
        if len(set(digests.values())) != 1:
            raise TrainingError(f"the workers' weights differ: {digests}")
        rounds = {rank: header["round"] for rank, (header, _) in self.ends.items()}
        if set(rounds.values()) != {len(self.history)} or not self.history:
            raise TrainingError(f"{len(self.history)} rounds done, the workers say {rounds}")
        for kill in self.kills:
            if kill.what == "server":
                kill.cost = self._longest_pause(kill.done)
        done = self.clock.done
        return Result(
            history=self.history,
            weights=np.frombuffer(self.ends[0][1], np.float32),
            sha256=digests[0],
            seconds=max(done[-1] - done[0], 1e-9),
            batches=self.clock.batches - self.settings.lanes,
            waited=self.clock.waited / max(self.clock.seconds, 1e-9),
            kills=self.kills,
        )

    def _longest_pause(self, at: int) -> float:
        """Seconds that the slowest round after the server's death took beyond a usual one."""
        done = self.clock.done
        took = [b - a for a, b in zip(done, done[1:])]
        # Not beyond the next kill: its cost is another.
        ends = [kill.done for kill in self.kills if kill.done > at] + [len(done)]
        after = took[at - 1 : min(at + PAUSE_ROUNDS, ends[0]) - 1]
        return max(0.0, max(after) - statistics.median(took)) if after else 0.0


def _round(lanes: list[Header]) -> Round:
    rows = [
        Row(lane["lane"], lane["step"], epoch, key)
        for lane in lanes
        for epoch, key in lane["trained"]
    ]
    return Round(
        loss=sum(lane["loss"] for lane in lanes),
        correct=sum(lane["correct"] for lane in lanes),
        steps=sum(lane["steps"] for lane in lanes),
        cells=sum(lane["cells"] for lane in lanes),
        rows=rows,
        lanes=[(lane["loss"], lane["correct"], lane["steps"]) for lane in lanes],
    )

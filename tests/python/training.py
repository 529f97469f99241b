"""Whole trainings that are killed again and again, and what they must give all the same.

A training is the demo's LSTM over four lanes, one optimizer step a round. `reference` trains
without a break and checks every batch against the plain model of oracle.py; `Run` trains the same
with one, two or four worker processes while it kills some or all of them and the server, and brings
what is left back to the last (weights, token) pair. Every batch that a worker is given, in
whichever life, must be that of the reference, bit for bit, and so must the weights after every
round, the tokens of every pair and the final states in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import cases
import forked
import little
import oracle
import segue

EXAMPLES = Path(__file__).parents[2] / "bindings" / "python" / "examples"
sys.path.append(str(EXAMPLES))

import checkpoint  # noqa: E402
import history  # noqa: E402
import toy  # noqa: E402
import worker  # noqa: E402
from gradients import add_in_lane_order  # noqa: E402
from lstm import Adam, Classifier  # noqa: E402

LANES = 4
PATIENCE = 60.0
FILES = 2

# What is killed, and when. "everything" may go on with other workers, or in a new store.
KINDS = (
    "server",
    "worker",
    "everything",
    "server in state_dict",
    "worker in state_dict",
    "everything while the pair is written",
    "server in load_state_dict",
    "worker in load_state_dict",
    "everything between two workers' load_state_dict",
    "everything between two lanes' commits",
)
PLACES = ("somewhere", "first batch", "last batch", "end of an epoch", "twice in an epoch")
# Wrong ways to go back: from the store's newest commit instead of the pair's tokens; without the
# optimizer's arrays; to the tokens of the pair before.
BROKEN = ("continue", "optimizer", "token")
# The moments of `checkpoint.save` at which a writer is killed.
WRITING = ("before the file", "before fsync", "before rename", "after rename", "at the end")


@dataclass(frozen=True)
class Config:
    """One training: what is random in it, drawn from `numbers`."""

    number: int
    directory: Path
    seed: int
    sequences: int
    longest: int
    num_unroll: int
    batch_size: int
    hidden: int
    epochs: int
    epoch_end: str
    shuffle: bool
    depth: int
    durability: str
    interval: float
    pair_every: int
    kept: bool  # rows begin with what their keys have left; it then stays in its store

    def model(self) -> Classifier:
        return worker.make_model(self.header())

    def header(self) -> dict[str, Any]:
        """What the demo's functions take."""
        return {
            "hidden": self.hidden,
            "memory": 20.0,
            "seed": self.seed,
            "num_unroll": self.num_unroll,
            "batch_size": self.batch_size,
            "typical_steps": 20.0,
        }

    def open_stream(self, client: segue.Client) -> segue.Stream:
        return worker.open_stream(
            client,
            "train",
            self.header(),
            str(self.directory / "data" / "toy-*.tfrecord"),
            lanes=LANES,
            epochs=self.epochs,
            epoch_end=self.epoch_end,
            shuffle=self.shuffle,
            seed=self.seed,
            tail="pad",
            keep_final=True,
            depth=self.depth,
            durability=self.durability,
            interval=self.interval,
            **({"lanes_by": "record", "initial": "kept"} if self.kept else {}),
        )


def make_config(number: int, directory: Path, rng: np.random.Generator) -> Config:
    unroll = int(rng.integers(3, 9))
    return Config(
        number=number,
        directory=directory,
        seed=int(rng.integers(1000)),
        sequences=int(rng.integers(20, 41)),
        longest=int(rng.integers(2, 8)) * unroll,
        num_unroll=unroll,
        batch_size=int(rng.integers(1, 4)),
        hidden=6,
        epochs=int(rng.integers(2, 4)),
        epoch_end=str(rng.choice(["drain", "continue"])),
        shuffle=bool(rng.integers(2)),
        depth=int(rng.integers(2, 6)),
        durability=str(rng.choice(["interval", "interval", "commit"])),
        interval=float(rng.choice([0.005, 0.05, 1.0])),
        pair_every=int(rng.integers(3, 9)),
        kept=bool(rng.integers(2)),
    )


# -- one round, the same in the reference and in the workers ---------------------------------------


def digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


@dataclass(frozen=True)
class Seen:
    """What a worker was given as batch `step` of `lane`, and what it made of it."""

    lane: int
    step: int
    rows: tuple[tuple[int, str], ...]  # epoch and key of each, "" for an empty one
    inputs: str  # digest of all arrays, states among them
    gradient: bytes
    steps: int  # valid ones


def see(model: Classifier, batch: segue.Batch, config: Config) -> Seen:
    """Runs the model over a batch and saves the states that it leaves."""
    arrays = [*batch.sequences.values(), *batch.context.values()]
    arrays += [batch.state("h"), batch.state("c")]
    inputs = digest(*(array.tobytes() for array in arrays), batch.length.tobytes())
    part = worker.run_batch(model, batch, config.header())
    rows = tuple((int(e), k.decode()) for e, k in zip(batch.epoch, batch.key, strict=True))
    return Seen(batch.lane, batch.step, rows, inputs, part.gradient.tobytes(), part.steps)


def content(token: bytes, seen: Seen, config: Config) -> bytes:
    """
    What a token made after a batch says: all but the states of rows that have ended, which nobody
    goes on with, and the checksum over them. See docs/token.md.
    """
    size = 2 * 4 * config.hidden  # of a row's states
    body = bytearray(token[:-16])
    if config.kept:  # which lease it was
        tag = body.index(b"\xb9\x04")
        body[tag + 2 : tag + 10] = bytes(8)
    for row, (_, key) in enumerate(seen.rows):
        if not key or int(key[:5]) + 1 == int(key[9:14]):
            begin = len(body) - size * (len(seen.rows) - row)
            body[begin : begin + size] = bytes(size)
    return bytes(body)


def contents(tokens: dict[str, bytes], seen: list[Seen], config: Config) -> dict[str, bytes]:
    """Of all lanes' tokens after a round."""
    assert list(tokens) == [f"lane/{one.lane}" for one in seen]
    return {lane: content(token, one, config) for (lane, token), one in zip(tokens.items(), seen)}


@dataclass
class Trainer:
    """Weights and optimizer."""

    config: Config
    rounds: int = 0
    model: Classifier = field(init=False)
    adam: Adam = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.config.model()
        self.adam = Adam(self.model.flat, 0.01)

    def update(self, gradients: list[bytes], steps: int) -> None:
        total = add_in_lane_order(b"".join(gradients), LANES)
        self.adam.step(total * np.float32(1 / max(1, steps)))
        self.rounds += 1

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.model.flat, "mean": self.adam.mean, "square": self.adam.square}

    def digest(self) -> str:
        return digest(*(array.tobytes() for array in self.arrays().values()))

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        for name, array in self.arrays().items():
            array[...] = saved.arrays[name]
        self.rounds = self.adam.count = saved.rounds


def final_states(client: segue.Client, keys: list[str]) -> dict[str, bytes]:
    """What the store keeps under each sequence's key after its end, if it keeps anything."""
    finals = {}
    for key in keys:
        with contextlib.suppress(segue.NotFoundError):
            [found] = client.get(key, "train")["found"]
            assert found["kind"] == "final", found
            states = [found["states"][name] for name in "hc"]
            finals[key] = b"".join(np.array(s["values"], s["dtype"]).tobytes() for s in states)
    return finals


# -- the reference ---------------------------------------------------------------------------------


@dataclass
class Reference:
    """What an unbroken training gives."""

    rounds: list[list[Seen]]
    weights: list[str]  # digest before round r; the last is the final one
    tokens: list[dict[str, bytes]]  # after round r: the content of each lane's
    finals: dict[str, bytes]  # of each sequence's last epoch
    written: list[toy.Sequence]

    def epoch_ends(self) -> list[int]:
        """The last round of each epoch."""
        last: dict[int, int] = {}
        for step, seen in enumerate(self.rounds):
            last.update({epoch: step for one in seen for epoch, key in one.rows if key})
        return sorted(last.values())


def write_data(config: Config) -> tuple[list[toy.Sequence], oracle.Model]:
    """Writes the data set; returns what it holds and the model of the stream over it."""
    sizes = (1, config.longest)
    arguments = (config.sequences, *sizes, config.seed)
    written = toy.write(config.directory / "data", "toy", FILES, *arguments)
    files: list[list[oracle.Record]] = [[] for _ in range(FILES)]
    for entry, sequences in zip(written, toy.make(*arguments), strict=True):
        place = int(entry.key.partition(".")[0].rpartition("-")[2])
        context = {"steps": np.int64(entry.steps)}
        files[place].append(oracle.Record(entry.key, sequences, context))
    spec = oracle.Spec(
        sequences={"token": oracle.Feature("float32"), "label": oracle.Feature("int64")},
        context={"steps": oracle.Feature("int64")},
        states={name: oracle.State("float32", (config.hidden,)) for name in "hc"},
        num_unroll=config.num_unroll,
        batch_size=config.batch_size,
        lanes=LANES,
        shuffle=config.shuffle,
        seed=config.seed,
        epochs=config.epochs,
        tail="pad",
        epoch_end=config.epoch_end,
        lanes_by="record" if config.kept else "sequence",
        initial="kept" if config.kept else "value",
    )
    return written, oracle.Model(files, spec, lambda states, inputs, step: states)


def reference(pipe: Connection, config: Config) -> None:
    """Trains without a break, against the plain model; sends a Reference."""
    written, plain = write_data(config)
    models = [plain.batches(lane) for lane in range(LANES)]
    trainer = Trainer(config)
    rounds, weights, finals, tokens = [], [trainer.digest()], {}, []
    with segue.open(config.directory / "unbroken") as client:
        with config.open_stream(client).loader(lanes=range(LANES)) as loader:
            for batches in loader.rounds():
                seen = []
                for batch in batches:
                    want = next(models[batch.lane])
                    cases.compare(batch, want)
                    seen.append(see(trainer.model, batch, config))
                    for name in "hc":  # the model goes on with what the network made
                        want.state_out[name][...] = batch.state_out(name)
                    for row in np.flatnonzero(batch.is_last):  # epochs follow one another
                        key = batch.key[row].decode().partition(":")[2]
                        assert key
                        states = [want.state_out[name][row].tobytes() for name in "hc"]
                        epoch = (int(batch.epoch[row]), b"".join(states))
                        finals[key] = max(epoch, finals.get(key, epoch), key=lambda e: e[0])
                trainer.update([one.gradient for one in seen], sum(one.steps for one in seen))
                rounds.append(seen)
                weights.append(trainer.digest())
                tokens.append(contents(loader.state_dict(), seen, config))
        assert all(next(model, None) is None for model in models), "ended too early"
    last = {key: states for key, (_, states) in finals.items()}
    pipe.send(Reference(rounds, weights, tokens, last, written))


# -- a worker process ------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PATIENCE)


@contextlib.contextmanager
def death_in_writing(moment: str) -> Iterator[None]:
    """Kills this process at one moment of `checkpoint.save` in the body."""
    real = os.fsync, os.replace
    calls: list[str] = []

    def at(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            calls.append(name)
            again = calls.count("fsync") == 2  # that of the directory
            usual = {"fsync": "before fsync", "replace": "before rename"}[name]
            if moment == ("after rename" if again else usual):
                die()
            return call(*arguments)

        return wrapped

    if moment == "before the file":
        die()
    os.fsync, os.replace = at("fsync", real[0]), at("replace", real[1])
    try:
        yield
    finally:
        os.fsync, os.replace = real
    if moment == "at the end":
        die()


class Worker:
    """One process's share of a training. See `Run` for who says what."""

    def __init__(self, pipe: Connection, stream: segue.Stream, config: Config, lanes: list[int]):
        self.pipe, self.stream, self.config, self.lanes = pipe, stream, config, lanes
        self.loader = stream.loader(lanes=lanes, start="fresh")
        self.broken = ""

    def run(self) -> None:
        message = self.pipe.recv()
        while message[0] == "back":
            _, life, pair, self.broken = message
            self.go_back(pair)
            self.pipe.send(("ready", life, self.trainer.rounds))
            message = self.train(life)

    def go_back(self, pair: Path | None) -> None:
        """Weights and position of a pair, or the beginning."""
        self.trainer = Trainer(self.config)
        if pair is None or self.broken == "continue":
            self.loader.close()
            start = "fresh" if pair is None else "continue"
            self.loader = self.stream.loader(lanes=self.lanes, start=start)
        if pair is not None:
            saved = checkpoint.load(pair)
            self.trainer.restore(saved)
            if self.broken == "optimizer":
                self.trainer.adam.mean[...] = 0
            if self.broken != "continue":
                self.loader.load_state_dict(saved.tokens)

    def train(self, life: int) -> Any:
        """Rounds to the end; returns what it was told instead of going on."""
        pipe, trainer, stale = self.pipe, self.trainer, None
        for batches in self.loader.rounds():
            seen = [see(trainer.model, batch, self.config) for batch in batches]
            pipe.send(("round", life, seen, trainer.digest()))
            message = pipe.recv()
            if message[0] != "sum":
                return message
            _, gradients, steps, pair = message
            trainer.update(gradients, steps)
            if pair == "tear":  # some lanes' commits of this round, and no more
                batches[0].commit()
                pipe.send(("torn", life))
                return pipe.recv()
            if pair:
                tokens = self.loader.state_dict()
                if self.broken == "token":
                    tokens, stale = stale or tokens, tokens
                pipe.send(("tokens", life, tokens))
                message = pipe.recv()
                if message[0] == "write":
                    self.write(*message[1:])
                    pipe.send(("written", life))
                    message = pipe.recv()
                if message[0] != "on":
                    return message
        pipe.send(("end", life, trainer.digest(), self.loader.state_dict()))
        return pipe.recv()

    def write(self, path: Path, tokens: dict[str, bytes], moment: str) -> None:
        saved = checkpoint.Checkpoint(self.trainer.rounds, self.trainer.arrays(), tokens)
        with death_in_writing(moment) if moment else contextlib.nullcontext():
            checkpoint.save(path, saved)


def work(pipe: Connection, config: Config, store: Path, lanes: list[int]) -> None:
    """The body of a worker process."""
    with contextlib.suppress(EOFError, BrokenPipeError):  # whoever started it is gone
        with segue.open(store) as client:
            Worker(pipe, config.open_stream(client), config, lanes).run()


# -- processes -------------------------------------------------------------------------------------


class Process:
    """A process that runs `body(pipe, *arguments)`."""

    def __init__(self, body: Callable[..., None], *arguments: Any) -> None:
        context = forked.context()
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=body, args=(far, *arguments), daemon=True)
        self.process.start()
        far.close()

    def receive(self) -> Any:
        """The next message; EOFError if the process is gone."""
        try:
            if not self.pipe.poll(PATIENCE):
                raise AssertionError("no word from a worker")
            return self.pipe.recv()
        except ConnectionResetError:
            raise EOFError from None

    def send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # it is dead: receive() will say so
            self.pipe.send(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_reference(config: Config) -> Reference:
    process = Process(reference, config)
    try:
        return process.receive()
    except EOFError:
        raise AssertionError("the unbroken training failed; its error is above") from None
    finally:
        process.kill()


# -- a training with kills -------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """One kill: what, in which round, after how many seconds of what it interrupts."""

    round: int
    kind: str
    delay: float
    before: bool = False  # before the round's update; else after it was sent
    victim: int = 0  # modulo the number of workers
    moment: str = ""  # of the pair's writing
    workers: int = 0  # how many go on; 0: as many as before
    new_store: bool = False


def make_kills(rng: np.random.Generator, number: int, wanted: Reference) -> list[Kill]:
    """Three kills or more; over ten trainings each kind comes at each kind of place."""
    rounds = len(wanted.rounds)
    ends = wanted.epoch_ends()
    kills: list[Kill] = []
    for i in range(3):
        index = number * 3 + i
        kind, place = KINDS[index % len(KINDS)], PLACES[(index + number) % len(PLACES)]
        where = [int(rng.integers(rounds))]
        if place == "first batch":
            where = [0]
        elif place == "last batch":
            where = [rounds - 1]
        elif place == "end of an epoch":
            where = [int(rng.choice(ends))]
        elif place == "twice in an epoch":
            epoch = int(rng.integers(len(ends)))
            begin = ends[epoch - 1] + 1 if epoch else 0
            where = sorted(rng.integers(begin, max(begin, ends[epoch]) + 1, 2).tolist())
        kills += [make_kill(rng, at, kind) for at in where]
    return sorted(kills, key=lambda kill: kill.round)


def make_kill(rng: np.random.Generator, at: int, kind: str) -> Kill:
    return Kill(
        round=at,
        kind=kind,
        delay=float(rng.choice([0.0, 0.0005, 0.002, 0.01]) * rng.random()),
        before=bool(rng.integers(2)),
        victim=int(rng.integers(4)),
        moment=str(rng.choice(WRITING)),
        workers=int(rng.choice([0, 1, 2, 4])),
        new_store=bool(rng.integers(2)),
    )


class Dead(Exception):
    """A worker is gone: all go back to the last pair."""


class Run:
    """One training with kills, against its reference.

    What is said: to a worker ``back`` (begin, at a pair), ``sum`` (all lanes' gradients, and
    whether a pair is made, or the commits are torn), ``write`` (a pair, to the first worker),
    ``on``, ``bye``; by a worker ``ready``, ``round``, ``tokens``, ``written``, ``torn``, ``end``.
    What it says carries the life it was told; words of an earlier life are passed over.
    """

    def __init__(
        self, config: Config, wanted: Reference, kills: list[Kill], workers: int, broken: str = ""
    ) -> None:
        self.config, self.wanted, self.broken = config, wanted, broken
        self.kills, self.done = list(kills), 0
        self.count = workers
        self.stores = 0
        self.store_since = 0  # the store may lack final states of earlier rounds; -1: than the pair
        self.life = 0
        self.workers: list[Process | None] = [None] * workers
        self.pair: Path | None = None
        self.pair_rounds = {0}  # a pair in the file, or the one that was being written
        self.restoring: Kill | None = None
        self.history: list[list[Seen]] = []

    # -- talking ---------------------------------------------------------------------------------

    def hear(self, rank: int, *kinds: str) -> Any:
        process = self.workers[rank]
        assert process is not None
        while True:
            try:
                message = process.receive()
            except EOFError:
                raise Dead from None
            if message[1] == self.life:
                assert message[0] in kinds, f"worker {rank} says {message[0]}, not {kinds}"
                return message

    def hear_all(self, *kinds: str) -> list[Any]:
        return [self.hear(rank, *kinds) for rank in range(self.count)]

    def tell_all(self, *message: Any) -> None:
        for process in self.workers:
            if process is not None:
                process.send(*message)

    # -- killing ---------------------------------------------------------------------------------

    @property
    def store(self) -> Path:
        return self.config.directory / f"store-{self.stores}"

    def kill_server(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            living = [p for p in self.workers if p and p.process.exitcode is None]
            with contextlib.suppress(FileNotFoundError, IndexError, ValueError, ProcessLookupError):
                pid = little.pid_of(self.store)
                if Path(f"/proc/{pid}/comm").read_text().startswith("segue"):
                    os.kill(pid, signal.SIGKILL)
                    return
            if not living:
                return  # it ends by itself, with the last of them
            time.sleep(0.001)  # it is being started
        raise AssertionError("no server to kill")

    def kill_worker(self, rank: int) -> None:
        process = self.workers[rank]
        if process is not None:
            process.kill()
            self.workers[rank] = None

    def kill_everything(self, kill: Kill) -> None:
        """And say with how many workers, and where, it goes on."""
        self.kill_server()
        for rank in range(self.count):
            self.kill_worker(rank)
        self.count = kill.workers or self.count
        self.workers = [None] * self.count
        new_store = kill.new_store and not self.config.kept
        self.stores += new_store
        if new_store:
            # A token has the states of its rows, not those of sequences that had ended.
            self.store_since = -1

    def strike(self, kill: Kill) -> None:
        """One kill in the middle of a round, a checkpoint or a restore."""
        time.sleep(kill.delay)
        self.done += 1
        if kill.kind.startswith("server"):
            self.kill_server()
        elif kill.kind.startswith("worker"):
            self.kill_worker(kill.victim % self.count)
            raise Dead
        else:
            self.kill_everything(kill)
            raise Dead

    # -- training --------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains to the end and compares all there is to compare."""
        try:
            again = True
            while again:
                try:
                    self.go_back()
                    while self.round():
                        pass
                    again = False
                except Dead:
                    self.bury()
            self.tell_all("bye")
            self.compare_stores()
        finally:
            for rank in range(self.count):
                self.kill_worker(rank)

    def bury(self) -> None:
        """Takes away those that have died by themselves."""
        for rank, process in enumerate(self.workers):
            if process is not None and process.process.exitcode is not None:
                assert process.process.exitcode == -signal.SIGKILL, "a worker failed; see above"
                self.kill_worker(rank)

    def go_back(self) -> None:
        """Begins a life: all at the last pair, new processes in the places of dead ones."""
        self.life += 1
        for rank in range(self.count):
            if self.workers[rank] is None:
                lanes = oracle.lanes_of(rank, self.count, LANES)
                self.workers[rank] = Process(work, self.config, self.store, lanes)
        kill, self.restoring = self.restoring, None
        if kill and kill.kind.startswith("everything"):  # one is back, the others are not
            first = self.workers[kill.victim % self.count]
            assert first is not None
            first.send("back", self.life, self.pair, self.broken)
            self.hear(kill.victim % self.count, "ready")
            self.strike(kill)
        self.tell_all("back", self.life, self.pair, self.broken)
        if kill:
            self.strike(kill)
        rounds = {message[2] for message in self.hear_all("ready")}
        assert len(rounds) == 1 and rounds <= self.pair_rounds, f"{rounds}, not {self.pair_rounds}"
        self.pair_rounds = rounds
        del self.history[next(iter(rounds)) :]
        if self.store_since < 0:
            self.store_since = len(self.history)

    def round(self) -> bool:
        """One round; False: that was the end."""
        messages = self.hear_all("round", "end")
        now = len(self.history)
        weights = self.wanted.weights[now]
        if messages[0][0] == "end":
            assert now == len(self.wanted.rounds), f"ended after {now} rounds"
            assert {message[2] for message in messages} == {weights}, "the final weights differ"
            self.merge([message[3] for message in messages])
            while self.kills:  # a pair was made at the very end, and no round follows it
                self.strike(self.kills.pop(0))
            return False
        seen = sorted((one for message in messages for one in message[2]), key=lambda s: s.lane)
        assert {message[3] for message in messages} == {weights}, f"weights before round {now}"
        for one, want in zip(seen, self.wanted.rounds[now], strict=True):
            assert one == want, f"round {now}, lane {want.lane}: {one}, not {want}"
        self.history.append(seen)
        kill = self.kills.pop(0) if self.kills and self.kills[0].round <= now else None
        if kill and kill.before and kill.kind in ("server", "worker", "everything"):
            self.strike(kill)
            kill = None
        self.finish(seen, kill)
        return True

    def finish(self, seen: list[Seen], kill: Kill | None) -> None:
        """Sends the update, makes a pair where one is due, and kills in the middle of it."""
        now = len(self.history)
        kind = kill.kind if kill else ""
        pair: str | bool = now % self.config.pair_every == 0
        if "state_dict" in kind and "load" not in kind or "pair" in kind:
            pair = True
        elif "commits" in kind:
            pair = "tear"
        self.tell_all("sum", [one.gradient for one in seen], sum(one.steps for one in seen), pair)
        if kill and "load_state_dict" in kind:
            self.restoring = kill
            self.kill_worker((kill.victim + 1) % self.count)
            raise Dead
        if pair == "tear":
            self.hear_all("torn")
        if kill and "pair" not in kind:
            self.strike(kill)
        if pair is True:
            self.make_pair(now, kill if "pair" in kind else None)

    def make_pair(self, now: int, kill: Kill | None) -> None:
        tokens = self.merge([message[2] for message in self.hear_all("tokens")])
        path = self.config.directory / "pair.npz"
        first = self.workers[0]
        assert first is not None
        first.send("write", path, tokens, kill.moment if kill else "")
        if kill:
            self.pair_rounds = self.pair_rounds | {now}
            with contextlib.suppress(Dead):
                self.hear(0, "written")
            self.pair = path if path.exists() else None
            self.strike(kill)
        self.hear(0, "written")
        self.pair, self.pair_rounds = path, {now}
        self.tell_all("on")

    def merge(self, parts: list[dict[str, bytes]]) -> dict[str, bytes]:
        """All lanes' tokens; they say what the reference's say after this round."""
        merged = {f"lane/{lane}": b"" for lane in range(LANES)}
        for part in parts:
            merged |= part
        now = len(self.history) - 1
        found = contents(merged, self.wanted.rounds[now], self.config)
        for lane, want in self.wanted.tokens[now].items():
            assert found[lane] == want, f"token of {lane} after round {now}"
        return merged

    def compare_stores(self) -> None:
        """At the end: all trained exactly once an epoch, and the store as the reference's."""
        config, wanted = self.config, self.wanted
        rows = [
            history.Row(one.lane, one.step, epoch, key)
            for seen in self.history
            for one in seen
            for epoch, key in one.rows
            if key
        ]
        found = history.problems(
            rows, wanted.written, config.num_unroll, config.epochs, len(self.history), LANES, True
        )
        assert not found, found
        for rank in range(self.count):
            process = self.workers[rank]
            assert process is not None
            process.process.join(PATIENCE)
            assert process.process.exitcode == 0
        with segue.open(self.store) as client:
            finals = final_states(client, [entry.key for entry in wanted.written])
            damage = client.verify()
        ended: dict[str, list[history.Row]] = {}
        for row in rows:
            place, _, key = row.key.partition(":")
            if int(place[:5]) + 1 == int(place[-5:]):
                ended.setdefault(key, []).append(row)
        assert ended.keys() == wanted.finals.keys()
        for key, ends in ended.items():
            # The store keeps the latest in the order of entry, which may not be the last to end.
            if max(ends, key=lambda row: row.epoch).step >= self.store_since:
                assert finals.get(key) == wanted.finals[key], f"final states of {key}"
        assert damage["damaged_count"] == 0, damage

"""What streams deliver, against the plain model of oracle.py, for many random specs and data sets.

Each case is one data set and one stream, read to its end by one to three worker processes that
share its lanes; the first of them makes it, the others open it by its name. Every batch, key, length, padding and carried state must be the model's, also
where the server is killed in between, which is done again and again. Two thirds of the streams that can have them are
given other batch sizes on the way.

What is inserted must come as from a file that has it. The first worker inserts the beginning,
before its loader begins; the rest is inserted while they read, by producers one after the other,
some of which are killed. There the workers go back by a token, too, and read on once more. Every
other mix has such a part.

SEGUE_TEST_SPECS is the number of cases, SEGUE_TEST_SEED gives the same cases again,
SEGUE_TEST_CASE is one of them to be run alone.
"""

from __future__ import annotations

import faulthandler
import os
import random
import secrets
import signal
import threading
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

import cases
import forked
import oracle
import segue

WORKERS = 3
KILL_EVERY = (0.01, 0.03, 0.2)  # seconds, on average; the last one lets things get on
CASES_A_STORE = 50
PATIENCE = 120.0  # seconds without news from any worker


def open_stream(
    client: segue.Client, case: cases.Case, directory: Path, rank: int
) -> segue.Stream:
    """By its name alone, if another rank makes it. What is not stored may be gone with that."""
    if rank == 0 or not case.options["persist"]:
        return cases.open_stream(client, case, directory)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return cases.open_by_name(client, case)
        except segue.NotFoundError:
            assert time.monotonic() < until, "nobody has made the stream"
            time.sleep(0.01)


def read_twice(loader: segue.Loader, case: cases.Case, wanted: list[oracle.Batch]) -> None:
    """From the beginning, and from a token of the middle."""
    step = wanted[len(wanted) // 2].step if wanted else 0  # the same in all lanes, or their end
    cut = next((at for at, batch in enumerate(wanted) if batch.step == step), 0)
    cases.check(loader, case, wanted[:cut], whole=False)
    tokens = loader.state_dict()
    cases.check(loader, case, wanted[cut:])
    loader.load_state_dict(tokens)
    cases.check(loader, case, wanted[cut:])


def work(tasks: Queue[Any], begun: Queue[Any], results: Queue[Any]) -> None:
    """A worker process: reads its share of the lanes of one case after the other."""
    faulthandler.register(signal.SIGUSR1)
    warnings.simplefilter("ignore")  # random specs ask for much that a person is warned of
    client: segue.Client | None = None
    for number, case, rank, directory in iter(tasks.get, None):
        try:
            store = directory.parent / f"store-{number // CASES_A_STORE}"
            if client is None or client.dir != os.fspath(store):
                if client is not None:
                    client.close()
                client = segue.open(store)
            lanes = oracle.lanes_of(rank, case.workers, case.spec.lanes)
            wanted = cases.in_order(case, lanes)
            with open_stream(client, case, directory, rank) as stream:
                count = len(cases.model(case).records)
                assert stream.records == count or (case.push and stream.records == 2**63)
                if case.push and rank == 0:
                    producer = cases.insert(stream, case, case.push.before)
                    producer.flush()
                    producer.leave()
                    begun.put((number, case, store))
                with stream.loader(rank=rank, world_size=case.workers) as loader:
                    assert loader.lanes == lanes
                    if case.push:
                        read_twice(loader, case, wanted)
                    else:
                        cases.check(loader, case, wanted, whole=case.spec.epochs is not None)
            results.put((number, len(wanted), None))
        except BaseException:
            results.put((number, 0, f"worker {rank} of {case!r}\n{traceback.format_exc()}"))
    if client is not None:
        client.close()


def produce(store: Path, case: cases.Case, until: int, how: str) -> None:
    """A producer, which inserts up to a number, and ends as is said."""
    with segue.open(store) as client, cases.open_by_name(client, case) as stream:
        producer = cases.insert(stream, case, until)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "left":
            producer.leave()
        elif case.push.closes:
            producer.close()
        else:
            producer.flush()
            stream.end_input()


class Inserter:
    """Runs the producers of the cases that have begun; those of one, one after the other."""

    def __init__(self, begun: Queue[Any], results: Queue[Any]) -> None:
        self.begun, self.results = begun, results
        self.context = forked.context()
        self.wrong: list[tuple[int, str]] = []
        self.one = threading.Lock()  # start() asks for exit codes of all, which can be read once
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        threads = []
        for begun in iter(self.begun.get, None):
            threads.append(threading.Thread(target=self.insert, args=begun))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def insert(self, number: int, case: cases.Case, store: Path) -> None:
        for until, how in [*case.push.stops, (len(cases.log_of(case).files[0].records), "ended")]:
            arguments = (store, case, until, how)
            process = self.context.Process(target=produce, args=arguments, daemon=True)
            with self.one:
                process.start()
            connection.wait([process.sentinel], PATIENCE)
            with self.one:
                process.join(0)
            if process.exitcode != (-signal.SIGKILL if how == "killed" else 0):
                process.kill()
                text = f"producer, {how}: exit code {process.exitcode}, of {case!r}"
                self.wrong.append((number, text))
                self.results.put((number, 0, None))  # workers would wait for what does not come
                return

    def __enter__(self) -> Inserter:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.begun.put(None)
        self.thread.join()


class Killer:
    """Kills servers of the stores beneath a directory, any of those that run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.kills = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        last = time.monotonic()
        while not self.over.wait(self.random.expovariate(1 / self.random.choice(KILL_EVERY))):
            stores = sorted(path.parent for path in self.directory.glob("store-*/segue.sock"))
            with suppress(segue.Error, ProcessLookupError):  # it has just been killed, or has ended
                with segue.open(self.random.choice(stores or [self.directory]), start=False) as client:
                    pid = client.status()["server"]["pid"]
                    # Where it takes long to start, all that it is there for takes long, too.
                    self.over.wait(self.random.random() * (time.monotonic() - last))
                    os.kill(pid, signal.SIGKILL)
                    last = time.monotonic()
                    self.kills += 1

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def make(seed: int, number: int) -> cases.Case:
    case = make_one(seed, number)
    return cases.with_sizes(case, np.random.default_rng([seed, number, 2])) if number % 3 else case


def make_one(seed: int, number: int) -> cases.Case:
    rng = np.random.default_rng([seed, number])
    name = f"case-{number}"
    if number % 5 == 3:
        return cases.make_log(name, rng)
    if number % 5 == 4:
        return cases.make_mix(name, rng, live=number % 10 == 4)
    return cases.make(name, rng)


def news(results: Queue[Any], processes: list[Any], killer: Killer) -> Any:
    """The next answer; where none comes, the workers say what they are doing."""
    kills = killer.kills
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(Empty):
            return results.get(timeout=1)
        ended = {process.pid: process.exitcode for process in processes if process.exitcode}
        assert not ended, f"workers ended, with these exit codes: {ended}"
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
    time.sleep(2)
    raise AssertionError(
        f"no news for {PATIENCE} s, in which {killer.kills - kills} servers were killed; "
        "what the workers do is in their output"
    )


def test_every_batch_is_the_models(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_SPECS") or 80)
    only = os.environ.get("SEGUE_TEST_CASE")
    numbers = [int(only)] if only else range(count)
    print(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_SPECS={count}")

    context = forked.context()
    results = context.Queue()
    begun = context.Queue()  # cases of which the rest is to be inserted
    tasks = [context.Queue() for _ in range(WORKERS)]
    processes = [context.Process(target=work, args=(queue, begun, results)) for queue in tasks]
    for process in processes:
        process.start()
    shapes: Counter[tuple[int, int]] = Counter()
    shares = 0
    try:
        for number in numbers:
            case = make(seed, number)
            directory = tmp_path / f"data-{number}"
            cases.write(case, directory)
            for rank in range(case.workers):
                tasks[(number + rank) % WORKERS].put((number, case, rank, directory))
            shapes[case.spec.lanes, case.workers] += 1
            shares += case.workers
        for queue in tasks:
            queue.put(None)
        answers: list[Any] = []
        with Killer(tmp_path, seed) as killer, Inserter(begun, results) as inserter:
            while len(answers) < shares and not inserter.wrong:
                answers.append(news(results, processes, killer))
        for process in processes if not inserter.wrong else []:
            process.join(PATIENCE)
    finally:
        for process in processes:
            process.kill()
    wrong = sorted([(number, text) for number, _, text in answers if text] + inserter.wrong)
    assert not wrong, (
        f"{len(wrong)} of {shares} differ, cases {[number for number, _ in wrong]} of "
        f"SEGUE_TEST_SEED={seed}; SEGUE_TEST_CASE={wrong[0][0]} runs the first:\n{wrong[0][1]}"
    )
    batches = sum(size for _, size, _ in answers)
    print(
        f"{len(numbers)} cases, {batches} batches, {killer.kills} servers killed; "
        f"by (lanes, workers): {sorted(shapes.items())}"
    )
    if len(numbers) >= 500:
        every = {(lanes, w) for lanes in range(1, 5) for w in range(1, min(3, lanes) + 1)}
        assert set(shapes) == every

"""What streams deliver, against the plain model of oracle.py, for many random specs and data sets.

Each case is one data set and one stream, read to its end by one to three worker processes that
share its lanes. Every batch, key, length, padding and carried state must be the model's, also
where the server is killed in between, which is done again and again.

SEGUE_TEST_SPECS is the number of cases, SEGUE_TEST_SEED gives the same cases again,
SEGUE_TEST_CASE is one of them to be run alone.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import signal
import threading
import traceback
from collections import Counter
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np

import cases
import oracle
import segue

WORKERS = 3
KILL_EVERY = 0.03  # seconds, on average
CASES_A_STORE = 50
PATIENCE = 120.0  # seconds without news from any worker


def work(tasks: Queue[Any], results: Queue[Any]) -> None:
    """A worker process: reads its share of the lanes of one case after the other."""
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
            with cases.open_stream(client, case, directory) as stream:
                assert stream.records == len(cases.model(case).records)
                with stream.loader(rank=rank, world_size=case.workers) as loader:
                    assert loader.lanes == lanes
                    cases.check(loader, case, wanted, whole=case.spec.epochs is not None)
            results.put((number, len(wanted), None))
        except BaseException:
            results.put((number, 0, f"worker {rank} of {case!r}\n{traceback.format_exc()}"))
    if client is not None:
        client.close()


class Killer:
    """Kills servers of the stores beneath a directory, any of those that run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.kills = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(self.random.expovariate(1 / KILL_EVERY)):
            stores = sorted(path.parent for path in self.directory.glob("store-*/segue.sock"))
            with suppress(segue.Error):  # it has just been killed, or has ended
                with segue.open(self.random.choice(stores or [self.directory]), start=False) as client:
                    os.kill(client.status()["server"]["pid"], signal.SIGKILL)
                    self.kills += 1

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def make(seed: int, number: int) -> cases.Case:
    rng = np.random.default_rng([seed, number])
    name = f"case-{number}"
    return cases.make_mix(name, rng) if number % 5 == 4 else cases.make(name, rng)


def test_every_batch_is_the_models(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_SPECS") or 500)
    only = os.environ.get("SEGUE_TEST_CASE")
    numbers = [int(only)] if only else range(count)
    print(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_SPECS={count}")

    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    tasks = [context.Queue() for _ in range(WORKERS)]
    processes = [context.Process(target=work, args=(queue, results)) for queue in tasks]
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
        with Killer(tmp_path, seed) as killer:
            answers = [results.get(timeout=PATIENCE) for _ in range(shares)]
        for process in processes:
            process.join(PATIENCE)
    finally:
        for process in processes:
            process.kill()
    wrong = sorted((number, text) for number, _, text in answers if text)
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

"""Part 9: 1, 2, 4 and 8 groups on one stream, beside as many streams, and loops without segue.

All groups of a stream have their lane before any takes a batch, so they share a feed; one thread
goes round them. The server's processor time is that of all its threads, in rounds by turns. States
go to disk once in ten minutes: each group has its own, so that is nothing they could share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

import segue
from bench_loops import BYTES, Data, dataloader_loop

COUNTS = (1, 2, 4, 8)
GOAL = 1.1
Round = Iterator[None]  # each of its items: a batch of every group


def server_seconds(pid: int) -> float:
    """Of the processor, all threads, in nanoseconds' precision."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def open_stream(client: segue.Client, data: Data, name: str, interval: float) -> segue.Stream:
    state = segue.State("float32", [data.state])
    return client.stream(
        name,
        source=segue.TFRecord(data.path["TFRecord"]),
        sequences={"x": segue.Feature("float32", [data.floats])},
        states={"h": state, "c": state},
        num_unroll=data.unroll,
        batch_size=data.rows,
        shuffle=True,
        epochs=None,
        interval=interval,
    )


def go_round(data: Data, loaders: list[segue.Loader], reads: int) -> Round:
    """Each reads its batch so many times, and saves states once."""
    x = np.empty((data.rows, data.unroll, data.floats), np.float32)
    spare = np.empty((2, data.rows, data.state), np.float32)
    iterators = [iter(loader) for loader in loaders]
    while True:
        for batches in iterators:
            batch = next(batches)
            for number in range(reads):
                np.copyto(x, batch.sequences["x"])
                for place, name in enumerate("hc" if number else ""):
                    np.copyto(spare[place], batch.state(name))
            batch.save_state("h", batch.state("h"))
            batch.save_state("c", batch.state("c"))
            batch.commit()
        yield


class Server:
    """One server, with so many groups of one stream, or streams."""

    def __init__(
        self, data: Data, directory: str, groups: int, streams: int, interval: float, reads: int = 1
    ) -> None:
        self.stack = ExitStack()
        self.client = self.stack.enter_context(segue.open(directory))
        loaders = []
        for number in range(streams):
            stream = open_stream(self.client, data, f"train-{number}", interval)
            for group in range(groups):
                loader = stream.loader(group=f"g{group}" if groups > 1 else None)
                loaders.append(self.stack.enter_context(loader))
        for loader in loaders:
            loader.state_dict()
        status = self.client.status()
        self.pid = status["server"]["pid"]
        self.feeds = sum(stream["feeds"] for stream in status["streams"])
        assert self.feeds == streams, self.feeds
        self.rings = sum(user["ring_bytes"] for user in status["users"])
        self.rounds = go_round(data, loaders, reads)

    def seconds_a_round(self, count: int) -> float:
        before = server_seconds(self.pid)
        for _ in range(count):
            next(self.rounds)
        return (server_seconds(self.pid) - before) / count

    def close(self) -> None:
        self.rounds.close()  # type: ignore[attr-defined]
        self.stack.close()


def rates(rounds: Round, seconds: float) -> float:
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        next(rounds)
        count += 1
    return count / spent


def figure(
    name: str,
    shape: str,
    unit: str,
    value: list[float],
    beside: str,
    other: list[float],
    note: str = "",
    **goal: Any,
) -> None:
    """Medians of what was measured by turns, and of the ratios of each turn."""
    ratios = [a / b for a, b in zip(value, other, strict=True)]
    if len(ratios) > 1:
        note = f"ratio {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds{note}"
    of = {
        "part": 9,
        "name": name,
        "shape": shape,
        "unit": unit,
        "value": statistics.median(value),
        "beside": beside,
        "beside_value": statistics.median(other),
        "ratio": statistics.median(ratios),
        "note": note,
    }
    print(json.dumps(of | goal), flush=True)


def processor(data: Data, shape: str, scratch: str, quick: bool) -> None:
    """Of the server, for a batch of each group; and the memory."""
    many = max(COUNTS)
    servers = {count: Server(data, f"{scratch}/groups-{count}", count, 1, 600) for count in COUNTS}
    busy, streams = -1, 0
    servers[busy] = Server(data, f"{scratch}/busy", 1, 1, 600, reads=many)
    servers[streams] = Server(data, f"{scratch}/streams", 1, many, 600)
    batches, turns = (15 if shape == "L" else 200), (5 if quick else 11)
    took: dict[int, list[float]] = {count: [] for count in servers}
    for turn in range(turns + 1):
        for count, server in servers.items():
            spent = 1e6 * server.seconds_a_round(batches)
            if turn:  # the first fills caches
                took[count].append(spent)
    for count in COUNTS[1:]:
        goal = {"goal_kind": "ratio <=", "goal": GOAL} if count == many else {}
        name = f"server, a batch for {count} groups"
        figure(name, shape, "us", took[count], "a batch for one", took[1], **goal)
    beside = f"a batch for one, whose worker reads it {many} times"
    figure(name, shape, "us", took[many], beside, took[busy])
    figure(name, shape, "us", took[many], f"a batch of each of {many} streams", took[streams])
    mega = {count: server.rings / 1e6 for count, server in servers.items()}
    more = (mega[many] - mega[1]) / (many - 1)
    note = f"one group {mega[1]:.1f} MB, each more {more:.1f}"
    name = f"shared memory of {many} groups"
    figure(name, shape, "MB", [mega[many]], f"{many} streams", [mega[streams]], note)
    for server in servers.values():
        server.close()


def loops(data: Data, shape: str, scratch: str, quick: bool) -> None:
    """Batches a second of each group, beside as many DataLoaders."""
    many = max(COUNTS)
    server = Server(data, f"{scratch}/rates", many, 1, 1.0)
    parts = [dataloader_loop(data) for _ in range(many)]

    def all_parts() -> Round:
        while True:
            for part in parts:
                next(part)
            yield

    running: dict[str, Round] = {"groups": server.rounds, "loaders": all_parts()}
    seconds, turns = (0.5, 3) if quick else (2.0, 7)
    found: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(turns + 1):
        for name, rounds in running.items():
            rate = rates(rounds, seconds)
            if turn:
                found[name].append(rate)
    server.close()
    for part in parts:
        part.close()  # type: ignore[attr-defined]
    beside = f"{many} DataLoaders over arrays in memory"
    note = ", a process for each DataLoader"
    unit = "batches/s of each"
    figure(f"{many} groups, one loop", shape, unit, found["groups"], beside, found["loaders"], note)



def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--shape", action="append", choices=("S", "L"))
    options = parser.parse_args()
    parts: tuple[Callable[..., None], ...] = (processor, loops)
    for shape in options.shape or ("S", "L"):
        with tempfile.TemporaryDirectory(prefix="segue-bench-") as directory:
            data = Data(shape, BYTES // (8 if options.quick else 4), directory)
            for part in parts:
                part(data, shape, directory, options.quick)


if __name__ == "__main__":
    main()

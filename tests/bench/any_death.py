"""`kill -9` of a worker of lanes="any": time until its lanes have their next batch elsewhere.

Two workers share the lanes; one is killed, and the other, which goes on, takes its lanes; another
one joins. The time of each lane, from the signal to the batch, in milliseconds: median, p99, most.
Run by hand: `python tests/bench/any_death.py [--deaths N]`; the goal is 100 ms at p99.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

import segue
from segue import Feature, State

LANES, RECORDS, PAUSE = 8, 400, 0.001
Line = tuple[float, int, list[int]]  # when, lane, lanes that the worker had


def opened(client: segue.Client, directory: Path) -> segue.Stream:
    return client.stream(
        "train",
        segue.Files(directory / "data.segue"),
        {"x": Feature("float32", [64])},
        states={"h": State("float32", [128])},
        num_unroll=20,
        batch_size=32,
        lanes=LANES,
        epochs=None,
    )


def work(directory: Path, name: str) -> NoReturn:
    """Take any lanes, and say of each batch when and with which lanes."""
    with open(directory / name, "w", buffering=1) as out, segue.open(directory / "store") as client:
        for batch in (loader := opened(client, directory).loader(lanes="any", start="continue")):
            print(json.dumps((time.monotonic(), batch.lane, loader.lanes)), file=out)
            batch.save_state("h", batch.state("h"))
            batch.commit()
            time.sleep(PAUSE)
    os._exit(0)


def start(directory: Path, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        work(directory, name)
    return pid


def lines(directory: Path, name: str) -> list[Line]:
    path = directory / name
    text = path.read_text() if path.exists() else ""
    return [tuple(json.loads(line)) for line in text.split("\n")[:-1]]


def has(directory: Path, name: str, lanes: int) -> list[int]:
    """Wait until that worker has so many lanes: which."""
    while True:
        seen = lines(directory, name)
        if seen and len(seen[-1][2]) == lanes:
            return seen[-1][2]
        time.sleep(0.02)


def measure(directory: Path, deaths: int) -> list[float]:
    times = []
    names = ["0", "1"]
    pids = {name: start(directory, name) for name in names}
    for death in range(deaths):
        stays, dies = names
        has(directory, stays, LANES // 2)
        had = has(directory, dies, LANES // 2)
        killed = time.monotonic()
        os.kill(pids[dies], signal.SIGKILL)
        os.waitpid(pids.pop(dies), 0)
        has(directory, stays, LANES)
        missing = set(had)
        while missing:
            seen = lines(directory, stays)
            first = {lane: when for when, lane, _ in reversed(seen) if when > killed}
            missing = set(had) - first.keys()
        times += [1e3 * (first[lane] - killed) for lane in had]
        names = [str(death + 2), stays] if death % 2 else [stays, str(death + 2)]
        pids[str(death + 2)] = start(directory, str(death + 2))
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--deaths", type=int, default=50)
    deaths = parser.parse_args().deaths
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with segue.FileWriter(directory / "data.segue", {"x": Feature("float32", [64])}) as writer:
            for record in range(RECORDS):
                writer.write({"x": np.full((20 * (1 + record % 5), 64), record, np.float32)})
        if os.fork() == 0:  # the client of a parent is not for its children: one makes the store
            with segue.open(directory / "store") as client:
                opened(client, directory).close()
            os._exit(0)
        os.wait()
        times = sorted(measure(directory, deaths))
    p50, p99 = (times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.99))
    print(f"{len(times)} lanes of {deaths} deaths: median {p50:.1f} ms, p99 {p99:.1f} ms, ")
    print(f"most {times[-1]:.1f} ms; goal 100 ms at p99: {'PASS' if p99 <= 100 else 'short of goal'}")


if __name__ == "__main__":
    main()

"""A rank of test_replicas.py: goes through a stream as one replica, and prints what it sees.

    rank.py DIRECTORY DATA REPLICA REPLICAS [NAME=VALUE...]
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue import Feature, State


def opened(client: segue.Client, path: Path, **options: Any) -> segue.Stream:
    given = {
        "source": segue.Files(path),
        "sequences": {"x": Feature("float32", [3])},
        "states": {"h": State("float64", [5]), "n": State("int64", init=np.int64(7))},
        "num_unroll": 2,
        "batch_size": 3,
        "lanes": 1,
        "epochs": 40,
        "depth": 3,
    }
    return client.stream("train", **{**given, **options})


def seen(batch: segue.Batch) -> list[Any]:
    """What every replica must see alike: all bytes."""
    parts = [batch.sequences["x"], batch.state("h"), batch.state("n"), batch.mask, batch.length]
    sums = [zlib.crc32(np.ascontiguousarray(part).tobytes()) for part in parts]
    return [batch.lane, batch.step, list(map(repr, batch.key)), sums]


def save(batch: segue.Batch) -> None:
    rows = np.asarray(batch.sequences["x"]).sum(axis=(1, 2))
    batch.save_state("h", np.asarray(batch.state("h")) * 1.25 + rows[:, None] + batch.step)
    batch.save_state("n", np.asarray(batch.state("n")) + 1)


def mappings(name: str) -> list[tuple[int, int, str]]:
    """Begin, end and rights of those of that segment."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if name in line:
            begin, end = (int(one, 16) for one in fields[0].split("-"))
            found.append((begin, end, fields[1]))
    return found


def attack(kind: str) -> None:
    """What a follower may try against its holder."""
    if kind == "page":
        ((begin, _, rights),) = mappings("segue-follower")
        assert rights == "rw-s"
        ctypes.c_uint64.from_address(begin + 128).value = 2**63
        ctypes.c_uint64.from_address(begin + 256).value = 2**63
        time.sleep(3600)
    libc = ctypes.CDLL(None, use_errno=True)
    carries = mappings("segue-carry")
    assert carries
    for begin, end, rights in carries:
        assert rights == "r--s"
        assert libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), 3) == -1
        assert ctypes.get_errno() == errno.EACCES
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list
            assert "segue-carry" not in os.readlink(f"/proc/self/fd/{fd}")


def through(loader: segue.Loader, cell: int) -> Iterator[segue.Batch]:
    """All batches; in loops of `cell`, as cells of a notebook that are run again and again."""
    while True:
        for number, batch in enumerate(loader, 1):
            yield batch
            if number == cell:
                batch.commit()
                break
        else:
            return


def main() -> None:
    directory, path, replica, replicas = sys.argv[1:5]
    options = dict(one.split("=", 1) for one in sys.argv[5:])
    until, lanes = int(options.get("until", 20)), int(options.get("lanes", 1))
    die, pause = int(options.get("die", -1)), float(options.get("pause", 0))
    size = int(options.get("size", -1))  # the step at which another batch_size is set
    # With `cell` arrays of all batches are kept: each time that they are in the way the lease is
    # renewed, for another ring.
    cell, kept = int(options.get("cell", 0)), []
    more = {"groups": int(options["groups"])} if "groups" in options else {}
    client = segue.open(directory)
    stream = opened(client, Path(path), lanes=lanes, epochs=int(options.get("epochs", 40)), **more)
    loader = stream.loader(
        start=options.get("start", "continue"),
        group=options.get("group"),
        replica=int(replica),
        replicas=int(replicas),
        rank=0,
        world_size=1,
    )
    for count, batch in enumerate(through(loader, cell)):
        if cell:
            kept.append(batch.sequences["x"])
        print(json.dumps(seen(batch)), flush=True)
        if "attack" in options and count == 3:
            attack(options["attack"])
        if count == die:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)
        if replica == "0":
            save(batch)
        if count == size:
            loader.set_batch_size(2)
        if count + 1 == until:
            loader.close()
            break
    print("done", flush=True)


if __name__ == "__main__":
    main()

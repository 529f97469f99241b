"""How soon a store is ready again: after kill -9, and after the machine's crash.

Makes a store of so many MiB with a plain stream, kills its server, and starts it; then lets the
store look like one whose machine stopped, which has it verified first.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import segue
from segue.tfrecord import SequenceExampleWriter

ROW = 1 << 20  # bytes of a row's states


def fill(directory: Path, mib: int) -> None:
    """Commit one batch whose rows stay alive: their states are what the store holds."""
    data = directory / "data.tfrecord"
    with SequenceExampleWriter(data) as writer:
        for _ in range(mib):
            writer.write(sequences={"x": np.zeros(4, np.float32)}, context={})
    lanes = max(1, mib // 64)
    with segue.open(directory / "store") as client:
        stream = client.stream(
            "s",
            source=segue.TFRecord(data),
            sequences={"x": segue.Feature("float32")},
            states={"h": segue.State("uint8", [ROW])},
            num_unroll=2,
            batch_size=mib // lanes,
            lanes=lanes,
            depth=2,
        )
        for lane in range(lanes):
            with stream.loader(lanes=[lane]) as loader:
                batch = next(iter(loader))
                batch.state_out("h")[...] = lane + 1
                batch.save_state("h", batch.state_out("h"))
                batch.commit(wait=True)
                del batch


def start(program: str, store: Path) -> tuple[float, int]:
    """Seconds until a server is ready, and its pid; it is then killed."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [program, "serve", str(store)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout and process.stdout.readline()
    took = time.monotonic() - begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    return took, process.pid


def crash_machine(store: Path) -> None:
    """Rewrite the boot in the store's mark, as tests/python/test_durability.py does."""
    function = ctypes.CDLL(ctypes.util.find_library("xxhash")).XXH3_64bits
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    key = b"store.mark"
    with (store / "store" / "data.mdb").open("r+b") as file:
        data = file.read()
        for match in re.finditer(key, data):
            header = data[match.end() : match.end() + 16]
            if header[:4] != b"SGV1":
                continue
            payload = b"11111111-2222-3333-4444-555555555555".ljust(48, b"\0")
            whole = header + key + payload
            file.seek(match.end() + 16)
            file.write(struct.pack("<Q", function(whole, len(whole))) + payload)
        file.flush()
        os.fsync(file.fileno())


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the start of a store's server.")
    parser.add_argument("--program", required=True, help="the server program")
    parser.add_argument("--mib", type=int, default=1024, help="size of the store")
    parser.add_argument("--quick", action="store_true", help="64 MiB")
    parser.add_argument("--directory", help="where to make the store")
    arguments = parser.parse_args()
    mib = 64 if arguments.quick else arguments.mib
    os.environ["SEGUE_PROGRAM"] = arguments.program
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        fill(directory, mib)
        store = directory / "store"
        while (store / "server.pid").exists():
            time.sleep(0.01)
        start(arguments.program, store)
        killed = sorted(start(arguments.program, store)[0] for _ in range(5))[2]
        crash_machine(store)
        crashed, _ = start(arguments.program, store)
        size = (store / "store" / "data.mdb").stat().st_size
    print(
        json.dumps(
            {
                "file_mib": round(size / 2**20),
                "ready_after_kill_ms": round(1000 * killed, 1),
                "ready_after_crash_s": round(crashed, 2),
                "verified_mib_per_s": round(size / 2**20 / (crashed - killed)),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

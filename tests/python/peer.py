"""A peer that speaks frames by hand, and the server that it speaks to, as the tests need them."""

from __future__ import annotations

import array
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from test_cli import program, report, until

HELLO, STREAM_OPEN, LANE_ATTACH, LANE_DETACH, UPLOAD, CHECKPOINT, REPORT = range(1, 8)
STREAM_CLOSE = 14
WELCOME, OPENED, ATTACHED, DONE, BULK, PROGRESS, FAILURE = range(65, 72)
EINVAL, ENOMEM, EPROTOCOL, EGONE, EFENCED, ETIMEOUT, ELIMIT = 1, 2, 4, 6, 8, 19, 27
NONE, CONTINUE, FRESH, RESTORE, OFFER = range(5)
FIXED = {5: (struct.Struct("<I"), 4), 1: (struct.Struct("<Q"), 8)}


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(**fields: int | bytes | list[bytes]) -> bytes:
    """A protobuf message; fields are named f1, f2, ..., x1 for fixed64."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        for one in value if isinstance(value, list) else [value]:
            if name[0] == "x":
                assert isinstance(one, int)
                out += varint(number << 3 | 1) + struct.pack("<Q", one)
            elif isinstance(one, bytes):
                out += varint(number << 3 | 2) + varint(len(one)) + one
            else:
                out += varint(number << 3) + varint(one)
    return out


def fields(data: bytes) -> dict[int, Any]:
    """The last value of each field."""
    found: dict[int, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        elif tag & 7 == 2:
            size = number()
            found[tag >> 3] = data[at : at + size]
            at += size
        else:
            form, size = FIXED[tag & 7]
            found[tag >> 3] = form.unpack_from(data, at)[0]
            at += size
    return found


def zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def frame(kind: int, payload: bytes = b"", fds: int = 0) -> bytes:
    return struct.pack("<4sHHI", b"SGF1", kind, fds, len(payload)) + payload


def constant(header: str, name: str) -> int:
    text = (Path(__file__).parents[2] / header).read_text()
    found = re.search(rf"#define {name}\s+(\d+)", text)
    assert found, name
    return int(found[1])


PROTOCOL = constant("lib/core/wire.h", "SEGUE_PROTOCOL")
LAYOUT = constant("lib/core/layout.h", "SEGUE_LAYOUT_VERSION")


class Refused(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Peer:
    """One connection. `call` sends a request and returns the fields of its answer."""

    def __init__(self, path: Path | str, hello: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.serial = 0
        self.fds: list[int] = []
        if hello:
            self.greet()

    def greet(self) -> None:
        with suppress(BrokenPipeError):  # why, it has said before
            self.send(HELLO, f2=PROTOCOL, f3=LAYOUT, f4=b"0.1.0", f5=b"peer")
        self.answer(WELCOME)

    def send(self, kind: int, **more: Any) -> None:
        self.serial += 1
        self.socket.sendall(frame(kind, message(f1=self.serial, **more)))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got, control, _, _ = self.socket.recvmsg(size - len(data), 256)
            for _, _, packed in control:
                fds = array.array("i")
                fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
                self.fds += fds
            if not got:
                raise ConnectionResetError("the server has closed the connection")
            data += got
        return data

    def receive(self) -> tuple[int, dict[int, Any]]:
        _, kind, _, size = struct.unpack("<4sHHI", self._read(12))
        return kind, fields(self._read(size))

    def answer(self, want: int) -> dict[int, Any]:
        while True:
            kind, found = self.receive()
            if kind == FAILURE:
                raise Refused(-zigzag(found[2]), found[3].decode())
            if kind != PROGRESS:
                assert kind == want, (kind, found)
                return found

    def call(self, kind: int, want: int, **more: Any) -> dict[int, Any]:
        self.send(kind, **more)
        return self.answer(want)

    def open(self, spec: bytes) -> int:
        return self.call(STREAM_OPEN, OPENED, f2=spec)[2]

    def attach(self, stream: int, lane: int = 0, mode: int = FRESH, **more: Any) -> dict[int, Any]:
        return self.call(
            LANE_ATTACH, ATTACHED, f2=stream, f3=lane, f5=mode, f10=10_000_000_000, **more
        )

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def at_end(self, seconds: float = 30) -> bool:
        """Whether the server closes the connection, whatever it says before."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True


def make_spec(
    name: str,
    *paths: Path | str,
    batch: int = 2,
    lanes: int = 1,
    persist: bool = True,
    depth: int = 4,
    state: int = 3,
    epochs: int = 1,
    num_threads: int = 1,
) -> bytes:
    """The spec of a stream over test_cli's data: a feature, a context feature, a state h."""
    float32, int64 = 1, 4
    return (
        message(f1=name.encode(), f2=message(f1=[str(path).encode() for path in paths]))
        + message(f10=message(f1=b"token", f2=float32), f11=message(f1=b"speaker", f2=int64))
        + message(f12=message(f1=b"h", f2=float32, f3=state), f13=4, f14=batch, f15=lanes)
        + message(f18=epochs, f19=1, f24=int(persist), f25=depth, f26=num_threads)
        + message(f28=100, f30=3)
    )


# ---- The server ----


class Service:
    """`segue serve` in the foreground, with what it has open to be looked at."""

    def __init__(
        self,
        directory: Path,
        *options: Any,
        env: dict[str, str] | None = None,
        setup: Callable[[], None] | None = None,
        **more: Any,
    ) -> None:
        self.directory = directory
        self.path = Path(more.pop("socket", directory / "segue.sock"))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SEGUE_")}
        self.process = subprocess.Popen(
            [program(), "serve", str(directory), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | (env or {}),
            preexec_fn=setup,
            **more,
        )
        assert self.process.stdout
        self.line = self.process.stdout.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self, name: str = "") -> int:
        """How many there are, or of that name."""
        names = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                names.append((task / "comm").read_text().rstrip("\n"))
        return names.count(name) if name else len(names)

    def resident(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def status(self) -> Any:
        return report("status", self.directory, "--socket", self.path)

    def taken(self) -> dict[str, int]:
        """What the users have taken, without the connection that asks."""
        user = {u["uid"]: u for u in self.status()["users"]}[os.geteuid()]
        del user["uid"]
        return user | {"connections": user["connections"] - 1, "descriptors": user["descriptors"] - 7}

    def stop(self) -> tuple[int, str]:
        if self.line and self.process.poll() is None:  # else it ends by itself
            self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *ignored: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Baseline:
    """What the server has before and after: fds, threads, memory, what users have taken."""

    SLACK = 24 << 20  # of resident memory: what the allocator and LMDB's map keep
    # A sanitizer keeps what is freed, some of it for good. It has a leak checker of its own.
    RESIDENT = "ASAN_OPTIONS" not in os.environ

    def __init__(self, service: Service) -> None:
        self.service = service
        service.status()  # the first report makes a thread's memory
        self.before = self._now()
        while self._now() != self.before:  # what was before may still be going
            self.before = self._now()
        self.memory = service.resident()

    def _now(self) -> tuple[int, dict[str, int]]:
        taken = self.service.taken()
        return self.service.fds(), taken

    def check(self, seconds: float = 20) -> None:
        until(lambda: self._now() == self.before, seconds)
        # Threads that end give back what they had a moment later.
        if self.RESIDENT:
            until(lambda: self.service.resident() < self.memory + self.SLACK, seconds)

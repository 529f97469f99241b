"""Limits of `segue serve`: each is reached, says so, leaves others alone, and leaves nothing."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from peer import (
    ATTACHED,
    BULK,
    CHECKPOINT,
    CONTINUE,
    DONE,
    EFENCED,
    EGONE,
    EINVAL,
    ELIMIT,
    ENOMEM,
    EPROTOCOL,
    ETIMEOUT,
    FAILURE,
    FRESH,
    LANE_ATTACH,
    LANE_DETACH,
    NONE,
    OFFER,
    OPENED,
    PROGRESS,
    REPORT,
    RESTORE,
    STREAM_CLOSE,
    STREAM_OPEN,
    UPLOAD,
    Baseline,
    Peer,
    Refused,
    Service,
    frame,
    make_spec,
    message,
    varint,
    zigzag,
)
from segue.tfrecord import SequenceExampleWriter, masked_crc32c
from test_cli import report, until, write_data

STATUS, INSPECT, VERIFY = 1, 2, 4
NOBODY = 65534
LONG = "SEGUE_TEST_LONG" in os.environ  # the long form, of some 20 s more


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.tfrecord"
    write_data(path, 64)
    return path


def copies(data: Path, count: int) -> Path:
    """A directory with that many names of the data."""
    many = data.parent / "many"
    many.mkdir()
    for i in range(count):
        os.link(data, many / f"{i}.tfrecord")
    return many


class Canary:
    """An honest worker of the same user: goes on while others are refused, and reads what it should."""

    def __init__(self, service: Service, data: Path) -> None:
        self.client = segue.open(service.directory, socket=service.path)
        self.stream = self.client.stream(
            "canary",
            source=segue.TFRecord(data),
            sequences={"token": segue.Feature("float32")},
            context={"speaker": segue.Feature("int64")},
            states={"sum": segue.State("float32")},
            num_unroll=4,
            batch_size=2,
            epochs=None,
        )
        self.loader = self.stream.loader(start="fresh")
        self.batches = iter(self.loader)
        self.sums: dict[bytes, float] = {}

    def go(self, count: int = 20) -> None:
        for _ in range(count):
            batch = next(self.batches)
            for row, key in enumerate(map(bytes, batch.key)):
                record = key.partition(b":")[2]
                before = 0.0 if batch.is_first[row] else self.sums[record]
                assert batch.state("sum")[row] == before
                self.sums[record] = before + float(batch.sequences["token"][row].sum())
            batch.save_state("sum", batch.state("sum") + batch.sequences["token"].sum(axis=1))
            batch.commit()

    def __enter__(self) -> Canary:
        self.go()
        return self

    def __exit__(self, *ignored: object) -> None:
        self.client.close()


def refused(code: int, *words: str) -> Any:
    """A context that a refusal with this code and these words must end."""

    class Expect:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
            assert isinstance(error, Refused), error
            assert error.code == code, str(error)
            assert all(word in str(error) for word in words), str(error)
            return True

    return Expect()


def test_connections(directory: Path, data: Path) -> None:
    with Service(directory, "--max-connections", 6) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        peers = [Peer(service.path) for _ in range(5)]
        with pytest.raises(segue.LimitError) as caught:
            segue.open(directory)
        for word in ["connections of uid", "6 in use", "limit is 6", "--max-connections"]:
            assert word in str(caught.value)
        canary.go()
        peers.pop().close()
        until(lambda: service.fds() <= baseline.before[0] + 8)
        segue.open(directory).close()  # there is room again
        for peer in peers:
            peer.close()
        baseline.check()
        canary.go()


def test_a_flood_of_connections(directory: Path, data: Path) -> None:
    """Those that never speak are dropped after 5 s; meanwhile the worker goes on."""
    with Service(directory, "--max-connections", 40) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        sockets = []
        for _ in range(400):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(service.path))
            sockets.append(peer)
        began = time.monotonic()
        canary.go(200)
        assert service.fds() < baseline.before[0] + 2 * 40
        until(lambda: service.fds() <= baseline.before[0])
        assert 3 < time.monotonic() - began < 15
        last = sockets[0].recv(65536)
        assert b"no HELLO came within 5 s" in last
        for peer in sockets:
            peer.close()
        baseline.check()
        canary.go()


def test_streams(directory: Path, data: Path) -> None:
    with Service(directory, "--max-streams", 2) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        threads = service.threads()
        with Peer(service.path) as peer:
            first = peer.open(make_spec("a", data))
            peer.open(make_spec("b", data))
            with refused(ELIMIT, "streams of this connection", "limit is 2", "--max-streams"):
                peer.open(make_spec("c", data))
            peer.call(STREAM_CLOSE, DONE, f2=first)
            peer.open(make_spec("c", data))
            canary.go()
        baseline.check()
        until(lambda: service.threads() <= threads + 2)  # helpers of the user may stay


def test_lanes(directory: Path, data: Path) -> None:
    with Service(directory, "--max-lanes", 2) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            stream = peer.open(make_spec("a", data, lanes=4))
            lease = peer.attach(stream, 0)[2]
            peer.attach(stream, 1)
            with refused(ELIMIT, "lanes of this connection", "limit is 2", "--max-lanes"):
                peer.attach(stream, 2)
            with Peer(service.path) as other:  # that is a limit of its own
                other.attach(other.open(make_spec("a", data, lanes=4)), 2)
            # Who goes back in place gives one up for it; this token is none.
            upload = peer.call(UPLOAD, BULK, f2=64)[2]
            with refused(25):
                peer.attach(stream, 0, RESTORE, f6=upload, f9=lease)
            canary.go()
        baseline.check()


def test_memory_of_rings(directory: Path, data: Path) -> None:
    with Service(directory, "--max-memory", "8M") as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            stream = peer.open(make_spec("a", data, state=1 << 20))
            with refused(ELIMIT, "lanes and indexes of uid", "limit is 8388608", "--max-memory"):
                peer.attach(stream)
            assert service.status()["streams"]
            peer.attach(peer.open(make_spec("b", data)))
            canary.go()
        baseline.check()


def test_memory_of_windows(directory: Path, data: Path) -> None:
    """What waits in a window is remembered for each batch of the ring."""
    with Service(directory, "--max-memory", "8M") as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            for window, enough in ((1 << 20, False), (1 << 12, True)):
                spec = make_spec(f"w{window}", data, persist=False)
                stream = peer.open(spec + message(f90=varint(2), f91=window))
                if enough:
                    peer.attach(stream)
                    continue
                with refused(ELIMIT, "lanes and indexes of uid", "--max-memory"):
                    peer.attach(stream)
            canary.go()
        baseline.check()


def test_memory_of_lanes(directory: Path, data: Path) -> None:
    """Lanes that nobody has cost memory, which is paid for, and no time."""
    with Service(directory, "--max-memory", "8M") as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            with refused(ELIMIT, "lanes and indexes of uid", "--max-memory"):
                for i in range(8):
                    peer.open(make_spec(f"s{i}", data, lanes=4096))
            with refused(EINVAL, "lanes is 4097"):
                peer.open(make_spec("a", data, lanes=4097))
            canary.go()
        baseline.check()
    with Service(directory) as service, Canary(service, data) as canary, Peer(service.path) as peer:
        streams = [peer.open(make_spec(f"s{i}", data, lanes=4096)) for i in range(60)]
        lease = peer.attach(streams[0], 4000)[2]
        before = service.cpu()
        for i in range(500):
            peer.call(LANE_DETACH, DONE, f2=lease + 1000)
        assert service.cpu() - before < 0.3
        lanes = {s["name"]: s["lanes"] for s in service.status()["streams"]}
        assert [lane["lane"] for lane in lanes["s0"]] == [4000] and lanes["s1"] == []
        canary.go()


def test_memory_of_an_index(directory: Path, data: Path) -> None:
    """What a data set's index and list of files take is known, and paid for, when it is open."""
    many = copies(data, 3000)
    with Service(directory, "--max-memory", "2M") as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            with refused(ELIMIT, "lanes and indexes of uid", "--max-memory"):
                peer.open(make_spec("a", many / "*"))
            canary.go()
        baseline.check()


def test_memory_that_is_not_there(directory: Path, data: Path) -> None:
    """The kernel refuses the segment: a typed error, and the server goes on."""

    def setup() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    with Service(directory, setup=setup) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            stream = peer.open(make_spec("a", data, state=1 << 20))
            with refused(ENOMEM, "shared memory"):
                peer.attach(stream)
            with refused(ENOMEM, "shared memory"):
                peer.call(UPLOAD, BULK, f2=16 << 20)
            canary.go()
        baseline.check()


def test_uploads(directory: Path, data: Path) -> None:
    with Service(directory, "--max-uploads", "1M") as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer, Peer(service.path) as other:
            peer.call(UPLOAD, BULK, f2=900_000)
            for one in (peer, other):  # of the user, not of the connection
                with refused(ELIMIT, "uploads of uid", "900000 in use", "--max-uploads"):
                    one.call(UPLOAD, BULK, f2=200_000)
            with refused(EPROTOCOL):
                other.call(UPLOAD, BULK, f2=0)
            with refused(ELIMIT):
                other.call(UPLOAD, BULK, f2=(1 << 64) - 1)
            canary.go()
        baseline.check()


def test_patterns_that_multiply(directory: Path, data: Path) -> None:
    """Short lists of patterns that stand for millions of files, or that glob() would follow too deep."""
    many = copies(data, 5000)
    options = ["--root", data.parent]
    with Service(directory, *options) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            with refused(ELIMIT, "more than 1048576 files are listed"):
                peer.open(make_spec("a", *[f"{many}/*"] * 250))
            with refused(ELIMIT, "a pattern with more than 64 components"):
                peer.open(make_spec("a", f"{many}{'/*' * 1900}"))
            peer.open(make_spec("a", *[f"{many}/1?.tfrecord"] * 10, persist=False))
            canary.go()
        baseline.check()


def test_descriptors(directory: Path, data: Path) -> None:
    with Service(directory, "--max-descriptors", 30) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            with refused(ELIMIT, "descriptors of uid", "limit is 30", "--max-descriptors"):
                for _ in range(30):
                    peer.call(UPLOAD, BULK, f2=1)
            canary.go()
        until(lambda: service.fds() <= baseline.before[0])  # to ask takes some, too
        baseline.check()


def test_descriptors_of_an_opening(directory: Path, data: Path) -> None:
    """How many files a pattern stands for is known when it is too late to refuse them."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    pattern = data.parent / "*.tfrecord"
    options = ["--max-descriptors", 40]
    with Service(directory, *options, setup=few) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            with refused(ELIMIT, "descriptors of uid", "64 more asked for"):
                peer.open(make_spec("a", pattern))
            peer.open(make_spec("a", data))
            canary.go()
        baseline.check()
    options = ["--max-descriptors", 80]
    with Service(directory, *options, setup=few) as service, Peer(service.path) as peer:
        peer.open(make_spec("b", pattern))
        assert service.taken()["descriptors"] == 8  # the peer's seven, and the file


def test_threads(directory: Path, data: Path) -> None:
    with Service(directory, "--max-threads", 4) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        threads = service.threads()
        with Peer(service.path) as peer, Peer(service.path) as other:
            first = peer.open(make_spec("a", data, num_threads=3))
            assert service.taken()["threads"] == 4
            with refused(ELIMIT, "threads of uid", "4 in use", "limit is 4", "--max-threads"):
                other.open(make_spec("b", data))
            other.open(make_spec("a", data, num_threads=3))  # it has them already
            assert service.threads() <= threads + 3 + 2
            canary.go()
            peer.call(STREAM_CLOSE, DONE, f2=first)
            other.close()
            until(lambda: service.taken()["threads"] == 1)
            peer.open(make_spec("b", data, num_threads=3))
        baseline.check()


def test_no_descriptors_left(directory: Path, data: Path) -> None:
    """The process's own limit: who connects is told, nothing spins, who is there goes on."""

    def setup() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

    with (
        Service(directory, "--max-descriptors", 1000, setup=setup) as service,
        Canary(service, data) as canary,
    ):
        baseline = Baseline(service)
        peers = []
        for _ in range(100):
            peer = Peer(service.path, hello=False)
            peers.append(peer)
        told = []
        for peer in peers[60:]:
            kind, found = peer.receive()
            told.append((kind, -zigzag(found[2]), found[3]))
        assert all(kind == FAILURE and code == ELIMIT for kind, code, _ in told)
        assert all(b"no file descriptors left" in text for _, _, text in told)
        before = service.cpu()
        time.sleep(1)
        assert service.cpu() - before < 0.5
        canary.go()
        for peer in peers:
            peer.close()
        until(lambda: service.fds() <= baseline.before[0])
        baseline.check()
        segue.open(directory).close()
        canary.go()


def test_rate_of_frames(directory: Path, data: Path) -> None:
    """Who sends too fast is read slowly: all is answered, in time, and nobody else waits."""
    rate, frames = 100, 400
    with Service(directory, "--max-frames", rate) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            began = time.monotonic()
            for _ in range(frames):
                peer.send(STREAM_CLOSE, f2=12345)
            canary.go(100)
            for serial in range(frames):
                kind, found = peer.receive()
                assert (kind, found[1]) == (FAILURE, serial + 2)
                if serial == frames // 2:
                    other = time.monotonic()
                    with Peer(service.path) as quick:
                        assert quick.call(REPORT, BULK, f2=STATUS)
                    assert time.monotonic() - other < 1.5
            # One second's worth at once, then by the rate.
            assert time.monotonic() - began > (frames - rate) / rate - 0.5
        baseline.check()


def test_paused_peer_that_leaves(directory: Path, data: Path) -> None:
    with Service(directory, "--max-frames", 50) as service:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            for _ in range(200):
                peer.send(STREAM_CLOSE, f2=12345)
        baseline.check(5)
        before = service.cpu()
        time.sleep(0.5)
        assert service.cpu() - before < 0.25


@pytest.mark.parametrize("fds", [False, True])
def test_a_peer_that_does_not_read(directory: Path, data: Path, fds: bool) -> None:
    """Its replies are kept up to a limit, of bytes and of fds on their way; then it is dropped."""
    options = ["--max-queue", "128K", "--max-frames", 1000000]
    with Service(directory, *options) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        most = 0
        with Peer(service.path) as peer:
            peer.socket.settimeout(0.5)
            try:
                for i in range(200_000):
                    if fds:
                        peer.send(REPORT, f2=STATUS)
                    else:
                        peer.send(STREAM_CLOSE, f2=12345)
                    if i % 50 == 0:
                        most = max(most, service.fds())
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert peer.at_end()
        assert most < baseline.before[0] + 100
        canary.go()
        baseline.check()


def be_nobody() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (74, 74))  # which holds for fds on their way, too
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


@pytest.mark.parametrize("limited", [True, False])
def test_deaf_clients_of_another_user(place: Path, limited: bool) -> None:
    """What they do not read is on their account; where that is large, others wait and go on."""
    if os.geteuid() != 0:
        pytest.skip("SKIP: only root can be another user, and the kernel does not limit root")
    directory = place / "store"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    options = [] if limited else ["--max-descriptors", 1000]
    with Service(directory, *options, setup=be_nobody) as service:
        deaf = [Peer(service.path) for _ in range(4)]
        for peer in deaf:
            for _ in range(30):
                peer.send(REPORT, f2=STATUS)
        if not limited:
            time.sleep(0.5)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                be_nobody()
                for one in deaf:
                    one.close()
                with Peer(service.path) as peer:
                    os.write(writing, b"x")
                    for _ in range(5):
                        peer.call(REPORT, BULK, f2=STATUS)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.read(reading, 1) == b"x"
        if not limited:
            time.sleep(0.5)
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            for peer in deaf:
                peer.close()
        assert os.waitpid(child, 0)[1] == 0
        for peer in deaf:
            peer.close()
        until(lambda: service.taken()["descriptors"] == 0)


def test_slow_loris(directory: Path, data: Path) -> None:
    """A frame that is begun must be whole within 10 s, however often a byte of it comes."""
    with Service(directory) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        slow, half = Peer(service.path), Peer(service.path)
        huge, late = Peer(service.path), Peer(service.path, hello=False)
        huge.socket.sendall(struct.pack("<4sHHI", b"SGF1", REPORT, 0, 0xFFFFFFFF))
        kind, found = huge.receive()
        assert (kind, -zigzag(found[2])) == (FAILURE, EPROTOCOL)
        assert huge.at_end()
        half.socket.sendall(frame(REPORT, b"x" * 100)[:50])
        began = time.monotonic()
        slow.socket.setblocking(False)
        for byte in frame(REPORT, b"\0" * 60000):
            try:
                slow.socket.send(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.05)
            canary.go(1)
            assert time.monotonic() - began < 14
        assert 9 < time.monotonic() - began
        slow.socket.setblocking(True)
        for peer, text in [(slow, b"10 s"), (half, b"10 s"), (late, b"no HELLO")]:
            kind, found = peer.receive()
            assert (kind, -zigzag(found[2])) == (FAILURE, ETIMEOUT)
            assert text in found[3]
            assert peer.at_end()
        for peer in (slow, half, huge, late):
            peer.close()
        baseline.check()


def test_requests_in_flight(directory: Path, data: Path) -> None:
    with Service(directory) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        with Peer(service.path) as peer:
            stream = peer.open(make_spec("a", data))
            for _ in range(300):  # of a step that never comes
                peer.send(CHECKPOINT, f2=stream, f3=0, f5=1000, f6=60_000_000_000)
            with refused(ELIMIT, "256 reports and checkpoints", "limit is 256"):
                peer.answer(BULK)
            with Peer(service.path) as other:
                assert other.call(REPORT, BULK, f2=INSPECT)
            canary.go()
        baseline.check()


def fill_store(service: Service, data: Path) -> None:
    """Give the store 32 MB to verify: that takes long enough to be seen at work."""
    with segue.open(service.directory, socket=service.path) as client:
        stream = client.stream(
            "large",
            source=segue.TFRecord(data),
            sequences={"token": segue.Feature("float32")},
            context={"speaker": segue.Feature("int64")},
            states={"much": segue.State("float32", [1 << 22])},
            num_unroll=4,
            batch_size=2,
            epochs=None,
        )
        with stream.loader(start="fresh") as loader:
            batch = next(iter(loader))
            batch.save_state("much", batch.state("much"))
            batch.commit()


def stop_verifier(service: Service, seconds: float, other: int = 0) -> int:
    """Stop a process, but not that other, that verifies before it is done; its id, 0 if none is seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for task in Path(f"/proc/{service.pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if child == other:
                    continue
                # One may have ended since, or not be that program yet.
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    if b"verify" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(child, signal.SIGSTOP)
                        if not has_reported(child):
                            return child
                        os.kill(child, signal.SIGCONT)
    return 0


def has_reported(child: int) -> bool:
    """Whether it has written more than its messages, which are of 32 bytes each."""
    written = re.search(r"wchar: (\d+)", Path(f"/proc/{child}/io").read_text())
    assert written
    return int(written[1]) % 32 != 0


def stop_verifying(service: Service, peer: Peer) -> int:
    """Ask for VERIFY, and stop the process that does it before it is done; its id."""
    for _ in range(50):  # on a busy machine one may be done before it is looked for
        peer.send(REPORT, f2=VERIFY)
        pid = stop_verifier(service, 0.5)
        if pid:
            return pid
        peer.answer(BULK)
    raise AssertionError("no process that verifies was seen")


def test_long_reports(place: Path, directory: Path, data: Path) -> None:
    """A VERIFY without end: others' reports are made, and it ends with its client and the server."""
    path = place / "open.sock"
    options = ["--socket", path, "--allow-user", NOBODY, "--root", data.parent]
    with Service(directory, *options, socket=path) as service, Canary(service, data) as canary:
        fill_store(service, data)
        baseline = Baseline(service)
        with Peer(path) as peer:
            pid = stop_verifying(service, peer)
            if os.geteuid() == 0:
                child = os.fork()
                if child == 0:
                    try:
                        os.setgid(NOBODY)
                        os.setuid(NOBODY)
                        other = Peer(path)
                        other.socket.settimeout(5)
                        other.call(REPORT, BULK, f2=INSPECT)
                        os._exit(0)
                    finally:
                        os._exit(1)
                assert os.waitpid(child, 0)[1] == 0
            canary.go()
        until(lambda: not Path(f"/proc/{pid}").exists(), 5)
        baseline.check()
        with Peer(path) as peer:
            stop_verifying(service, peer)
            began = time.monotonic()
            assert service.stop()[0] == 0
            assert time.monotonic() - began < 5
            with refused(EGONE, "stop"):
                peer.answer(BULK)


def test_long_reports_of_one_user(directory: Path, data: Path) -> None:
    """However many VERIFYs there are: other reports and uploads do not wait for them."""
    with Service(directory) as service, Canary(service, data) as canary:
        fill_store(service, data)
        baseline = Baseline(service)
        with Peer(service.path) as one, Peer(service.path) as two, Peer(service.path) as other:
            pid = stop_verifying(service, one)
            two.send(REPORT, f2=VERIFY)
            stop_verifier(service, 1, pid)
            other.socket.settimeout(5)
            assert other.call(REPORT, BULK, f2=INSPECT)
            assert other.call(UPLOAD, BULK, f2=1000)
            canary.go()
            os.kill(pid, signal.SIGCONT)
            assert one.answer(BULK) and two.answer(BULK)
        baseline.check()


def write_long(path: Path, megabytes: int) -> None:
    """A small gzip file that takes long to inflate: one record of zeros."""
    data = struct.pack("<Q", megabytes << 20)
    zeros = gzip.compress(bytes(64 << 20), 1)
    head = data + struct.pack("<I", masked_crc32c(data))
    path.write_bytes(gzip.compress(head) + zeros * (megabytes // 64) + gzip.compress(bytes(4)))


def test_an_opening_that_nobody_waits_for(directory: Path, data: Path) -> None:
    """It ends with the last client that waits, or with the server, and leaves no file half-made."""
    long = data.parent / "long.gz"
    write_long(long, 2048)
    with Service(directory) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        for end in ("client", "server"):
            with Peer(service.path) as peer:
                peer.send(STREAM_OPEN, f2=make_spec("long", long))
                assert peer.receive()[0] == PROGRESS
                began = time.monotonic()
                if end == "client":
                    peer.close()
                    until(lambda: len(service.status()["streams"]) == 1)
                    canary.go()
                else:
                    canary.client.close()
                    assert service.stop()[0] == 0
                    with refused(EGONE, "stopped"):
                        peer.answer(OPENED)
                assert time.monotonic() - began < 3
                assert list((directory / "cache").iterdir()) == []
            if end == "client":
                baseline.check()


# ---- What else a connection must not do to others, or leave ----


def test_close_of_a_stream_frees_it(directory: Path, data: Path) -> None:
    """Threads, index and descriptors of a stream go when it is closed, not with the client."""
    with Service(directory) as service, segue.open(directory) as client:
        fds, threads = service.fds(), service.threads()  # one of its start may be there still
        for turn in range(3):
            stream = client.stream(
                f"s{turn}",
                source=segue.TFRecord(data),
                sequences={"token": segue.Feature("float32")},
                context={"speaker": segue.Feature("int64")},
                states={"h": segue.State("float32")},
                num_unroll=4,
                batch_size=2,
                num_threads=3,
            )
            with stream.loader(start="fresh") as loader:
                batch = next(iter(loader))
                batch.save_state("h", batch.state("h"))
                batch.commit()
            until(lambda: service.threads("loader") == 3)  # each has its name once it has run
            stream.close()
            until(lambda: service.threads("loader") == 0 and service.fds() == fds)
            until(lambda: service.threads() <= threads)
        assert not [s for s in service.status()["streams"]]


def test_close_with_lanes_in_use(directory: Path, data: Path) -> None:
    """By hand: a lane that is held, one that is asked for; both are over when it is answered."""
    with Service(directory) as service:
        baseline = Baseline(service)
        with Peer(service.path) as holder, Peer(service.path) as peer:
            other = holder.open(make_spec("a", data, lanes=2))
            holder.attach(other, 1)
            stream = peer.open(make_spec("a", data, lanes=2))
            peer.attach(stream, 0)
            # The same process has lane 1: it waits, and is told.
            peer.send(LANE_ATTACH, f2=stream, f3=1, f5=FRESH, f10=60_000_000_000)
            peer.send(STREAM_CLOSE, f2=stream)
            kind, found = peer.receive()
            assert (kind, -zigzag(found[2])) == (FAILURE, EINVAL)
            assert b"was closed" in found[3]
            assert peer.answer(DONE)
            with refused(EPROTOCOL, "not open"):
                peer.attach(stream, 0)
            until(lambda: service.taken()["ring_bytes"] < 100_000)
            again = peer.open(make_spec("a", data, lanes=2))
            peer.attach(again, 0, CONTINUE)
        baseline.check()


def test_the_socket_of_another_store(tmp_path: Path, data: Path) -> None:
    """segue.open(B, socket=<A's>) is refused by name, also when B does not exist yet."""
    a, b = tmp_path / "a", tmp_path / "b"
    with Service(a) as service:
        b.mkdir()
        for directory in (b, tmp_path / "new"):
            with pytest.raises(segue.ArgumentError) as caught:
                segue.open(directory, socket=service.path)
            assert f"that of {a}, not of {directory}" in str(caught.value)
            assert not any(tmp_path.glob("new/*"))
        link = tmp_path / "link"
        link.symlink_to(a)
        for directory in (a, link, a / "..", a):
            if directory.name != "..":
                segue.open(directory, socket=service.path).close()
        Baseline(service).check()


def test_a_private_lane_is_its_connection_s(directory: Path, data: Path) -> None:
    """Without persist each attach is a lane of its own; nobody gets at another's by its lease."""
    with Service(directory) as service:
        baseline = Baseline(service)
        with Peer(service.path) as victim, Peer(service.path) as thief:
            spec = make_spec("p", data, persist=False, lanes=2)
            mine = victim.attach(victim.open(spec))
            stream = thief.open(spec)
            for mode, more in [(NONE, {}), (FRESH, {}), (OFFER, {"f7": bytes(16), "f8": 0})]:
                got = thief.attach(stream, 0, mode, f9=mine[2], **more)
                assert got[2] != mine[2] and got[4] != mine[4]
            lanes = service.status()["streams"][0]["lanes"]
            assert [lane["state"] for lane in lanes] == ["held"] * 4
            # A lease of this connection, and another lane of it.
            own = thief.attach(stream, 0, FRESH)
            got = thief.attach(stream, 1, FRESH, f9=own[2])
            lanes = service.status()["streams"][0]["lanes"]
            assert sorted(lane["lane"] for lane in lanes) == [0] * 5 + [1] and got
        baseline.check()


def test_offers_of_steps_that_cannot_be(directory: Path, data: Path) -> None:
    """Each keeps a thread of its user's busy for 15 s at most, and not when its client has gone."""
    with Service(directory) as service, Canary(service, data) as canary:
        baseline = Baseline(service)
        spec = make_spec("p", data, persist=False, epochs=0)
        stays, goes = Peer(service.path), Peer(service.path)
        for peer in (stays, goes):
            stream = peer.open(spec)
            peer.send(
                LANE_ATTACH, f2=stream, f5=OFFER, f7=bytes(16), f8=1 << 62, f10=60_000_000_000
            )
        canary.go(100)
        with Peer(service.path) as other:  # the stream's own threads fill, and grant, as before
            other.attach(other.open(spec))
        goes.close()
        if LONG:
            began = time.monotonic()
            with refused(ELIMIT, f"step {1 << 62} is offered", "15 s"):
                stays.answer(ATTACHED)
            assert time.monotonic() - began < 25
        stays.close()
        until(lambda: service.taken()["ring_bytes"] <= baseline.before[1]["ring_bytes"])
        before = service.cpu()
        time.sleep(0.5)
        assert service.cpu() - before < 0.25
        with Peer(service.path) as peer, refused(EFENCED):  # of a stored lane: by its token alone
            peer.attach(peer.open(make_spec("s", data)), 0, OFFER, f7=bytes(16), f8=1 << 62)
        baseline.check()


GO_FRESH = """
import sys, segue
client = segue.open(sys.argv[1])
stream = client.stream("a", source=segue.TFRecord(sys.argv[2]),
    sequences={"token": segue.Feature("float32")}, context={"speaker": segue.Feature("int64")},
    states={"h": segue.State("float32", [1 << 20])}, num_unroll=4, batch_size=2)
loader = stream.loader(start="fresh")
print("ready", flush=True)
sys.stdin.readline()
for taken, batch in enumerate(loader):
    if taken == int(sys.argv[3]):
        break
    batch.save_state("h", batch.state("h"))
    batch.commit()
loader.close()
"""


def go_fresh(directory: Path, data: Path, steps: int) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", GO_FRESH, str(directory), str(data), str(steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout and worker.stdout.readline() == "ready\n"
    return worker


def test_fresh_of_a_client_that_has_gone(directory: Path, data: Path) -> None:
    """A lane is not thrown back for somebody who is not there any more when its turn comes."""
    with Service(directory) as service:
        go_fresh(directory, data, 3).communicate("\n", timeout=60)

        def step() -> int:
            return report("inspect", directory)["streams"][0]["lanes"][0]["step"]

        assert step() == 3
        baseline = Baseline(service)
        for _ in range(5 if LONG else 1):
            worker = go_fresh(directory, data, 3)
            os.kill(service.pid, signal.SIGSTOP)
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
            time.sleep(0.3)  # its request is in the socket
            worker.kill()
            worker.communicate()
            os.kill(service.pid, signal.SIGCONT)
            baseline.check()
            assert step() == 3
        go_fresh(directory, data, 1).communicate("\n", timeout=60)
        assert step() == 1


# -- limits of the system: what is said is what helps ----------------------------------------------

OPENS_MANY = """
import resource, sys
limit, lanes = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
import segue
try:
    with segue.open("store") as client:
        stream = client.stream(
            "s", segue.TFRecord("many/*"), {"x": segue.Feature("float32")},
            num_unroll=4, batch_size=1, shuffle=True, lanes=lanes)
        print(sum(1 for _ in stream.loader()))
except segue.Error as error:
    print(type(error).__name__, error)
"""


def write_shards(directory: Path, count: int) -> None:
    (directory / "many").mkdir()
    for number in range(count):
        with SequenceExampleWriter(directory / "many" / f"{number:03}") as writer:
            writer.write({"x": np.ones(3, "f4")})


@pytest.mark.parametrize(
    "limit, lanes, allowed, said",
    [
        (256, 4, None, "^300$"),
        (128, 4, None, "^300$"),
        (64, 4, None, "^300$"),  # files are opened by turns
        (48, 8, None, "LimitError .*half of what the server may open: raise ulimit -n"),
        (20, 1, "1000", "Error .*Too many open files .raise ulimit -n"),
        (256, 8, "20", "LimitError .*the limit is 20 .*--max-descriptors, SEGUE_MAX_DESCRIPTORS"),
    ],
)
def test_few_descriptors(
    tmp_path: Path, limit: int, lanes: int, allowed: str | None, said: str
) -> None:
    """Of an embedded server: many files go, and if something does not the error says what helps."""
    write_shards(tmp_path, 300)
    environment = {**os.environ, **({"SEGUE_MAX_DESCRIPTORS": allowed} if allowed else {})}
    done = subprocess.run(
        [sys.executable, "-c", OPENS_MANY, str(limit), str(lanes)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert re.search(said, done.stdout.strip()), (done.stdout, done.stderr)


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    """A ring that does not fit below ulimit -f."""
    write_shards(tmp_path, 1)
    text = OPENS_MANY.replace("RLIMIT_NOFILE, (limit, limit)", "RLIMIT_FSIZE, (limit, limit)")
    done = subprocess.run(
        [sys.executable, "-c", text.replace("batch_size=1", "batch_size=100000"), "1000000", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "OutOfMemory" in done.stdout and "raise ulimit -f" in done.stdout, done
    assert "memory cgroup" not in done.stdout

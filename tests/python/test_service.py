"""A server under a service manager: these tests play the manager. And the units as they are installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import segue
from peer import BULK, UPLOAD, Peer, Service
from test_cli import program, until
from test_groups import feeds, opened, take

UNITS = Path(__file__).parents[2] / "share" / "systemd"
EXPOSURE_MAX = 1.5  # of 10, by systemd-analyze security; 0.8 with systemd 252


class Manager:
    """The datagram socket that a service tells of its state."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.lines: list[str] = []

    def wait(self, line: str, seconds: float = 20) -> None:
        """Until that line has come; what came is kept in `lines`."""
        end = time.monotonic() + seconds
        while line not in self.lines:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            self.lines += self.socket.recv(4096).decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = request.param == "path"
    manager = Manager(str(tmp_path / "notify") if path else f"@segue-test-{os.getpid()}")
    yield manager
    manager.socket.close()


def test_it_tells_of_its_state(tmp_path: Path, manager: Manager) -> None:
    store = tmp_path / "store"
    with Service(store, env={"NOTIFY_SOCKET": manager.address}) as service:
        manager.wait("READY=1")
        manager.wait(f"MAINPID={service.pid}")
        manager.wait(f"STATUS=serves {store} at {store}/segue.sock")
        segue.open(store, socket=service.path).close()
        assert "STOPPING=1" not in manager.lines
        assert not any(line.startswith("WATCHDOG") for line in manager.lines)
        assert service.stop()[0] == 0
        manager.wait("STOPPING=1")


def test_it_keeps_the_watchdog(tmp_path: Path, manager: Manager) -> None:
    """Twice in each period, as long as the loop goes round: not while the process stands still."""
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    with Service(tmp_path / "store", env=env) as service:
        for _ in range(4):
            manager.lines.clear()
            manager.wait("WATCHDOG=1", 5)
        os.kill(service.pid, signal.SIGSTOP)
        manager.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:
                manager.socket.recv(4096)
        os.kill(service.pid, signal.SIGCONT)
        manager.lines.clear()
        manager.wait("WATCHDOG=1", 5)


def test_a_watchdog_for_another_process(tmp_path: Path, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    with Service(tmp_path / "store", env=env):
        manager.wait("READY=1")
        time.sleep(0.2)
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.socket.recv(4096)


def test_it_says_why_it_did_not_start(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "store").write_text("not a directory")
    with Service(tmp_path / "store", env={"NOTIFY_SOCKET": manager.address}) as service:
        assert service.stop()[0] == 1
    manager.lines += manager.socket.recv(4096).decode().split("\n")
    assert any(line.startswith("STATUS=") and "store" in line for line in manager.lines)
    assert "READY=1" not in manager.lines


@pytest.mark.parametrize(
    "address", ["relative/path", "x", "@", "/" + 120 * "x", "/no/such/socket", "vsock:2:1234"]
)
def test_a_manager_that_cannot_be(tmp_path: Path, address: str) -> None:
    with Service(tmp_path / "store", env={"NOTIFY_SOCKET": address}) as service:
        with Peer(service.path):  # to tell is a courtesy
            pass
        code, errors = service.stop()
        assert code == 0 and "no service manager is told" in errors


def test_a_server_that_a_client_starts_is_not_the_manager_s(tmp_path: Path, manager: Manager) -> None:
    """The client is a service, and its variables are not the server's; nor are the server's its own
    children's."""
    code = f"import segue, sys; segue.open({str(tmp_path / 'store')!r}).verify()"
    env = os.environ | {
        "NOTIFY_SOCKET": manager.address, "LISTEN_FDS": "1", "LISTEN_PID": "1",
        "SEGUE_PROGRAM": program(),
    }  # fmt: skip
    env.pop("SEGUE_SOCKET", None)
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.socket.recv(4096)


def test_a_server_that_a_client_starts_lets_nobody_else_in(tmp_path: Path) -> None:
    code = f"""if True:
        import segue
        with segue.open({str(tmp_path / "store")!r}) as client:
            import os, stat
            print(oct(stat.S_IMODE(os.stat({str(tmp_path / "store" / "segue.sock")!r}).st_mode)))
    """
    more = {"SEGUE_ALLOW_USER": "nobody", "SEGUE_ROOT": "/tmp", "SEGUE_PROGRAM": program()}
    env = {k: v for k, v in os.environ.items() if not k.startswith("SEGUE_")} | more
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "0o600\n", done


# ---- Sockets ----


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    return listener


def activated(
    tmp_path: Path, sockets: list[socket.socket], *options: str, names: str | None = None
) -> Service:
    """As systemd starts it: sockets from fd 3 on, and LISTEN_PID, which only the child knows."""
    fds = [s.fileno() for s in sockets]
    script = 'LISTEN_PID=$$ exec "$@"'

    def setup() -> None:
        high = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i)
            os.set_inheritable(3 + i, True)

    service = Service.__new__(Service)
    service.directory = tmp_path / "store"
    service.path = tmp_path / "manager.sock"
    env = {k: v for k, v in os.environ.items() if not k.startswith("SEGUE_")}
    env |= {"LISTEN_FDS": str(len(fds))} | ({"LISTEN_FDNAMES": names} if names else {})
    service.process = subprocess.Popen(
        ["sh", "-c", script, "sh", program(), "serve", str(service.directory), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=setup,
        close_fds=False,
    )  # fmt: skip
    assert service.process.stdout
    service.line = service.process.stdout.readline()
    return service


def test_it_takes_the_manager_s_socket_over(tmp_path: Path) -> None:
    """Who connects before it runs waits; the socket stays when it ends, and the next one has it."""
    path = tmp_path / "manager.sock"
    with listen(path) as listener:
        early = Peer(path, hello=False)
        for first in (True, False):
            with activated(tmp_path, [listener]) as service:
                if first:
                    early.greet()
                assert service.line.rstrip().endswith(f"at {path} (pid {service.pid})")
                assert not (tmp_path / "store" / "segue.sock").exists()
                with segue.open(tmp_path / "store", socket=path) as client:
                    assert client.status()["server"]["socket"] == str(path)
                with Peer(path):
                    pass
                assert service.stop()[0] == 0
            assert path.is_socket()
        early.close()


def test_one_of_several_sockets_by_its_name(tmp_path: Path) -> None:
    with listen(tmp_path / "other.sock") as other, listen(tmp_path / "manager.sock") as ours:
        with activated(tmp_path, [other, ours], names="other:segue") as service:
            with Peer(service.path):
                pass
        with activated(tmp_path, [other, ours], names="other:more") as service:
            code, errors = service.stop()
            assert code == 1 and "none is named 'segue'" in errors


def test_sockets_that_will_not_do(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        with activated(tmp_path, [datagram]) as service:
            code, errors = service.stop()
            assert code == 1 and "not a listening stream socket" in errors
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0segue-test-listen-{os.getpid()}")
        abstract.listen(1)
        with activated(tmp_path, [abstract]) as service:
            code, errors = service.stop()
            assert code == 1 and "stream socket with a path" in errors
    with listen(tmp_path / "manager.sock") as listener:
        option = f"--socket={tmp_path / 'elsewhere.sock'}"
        with activated(tmp_path, [listener], option) as service:
            code, errors = service.stop()
            assert code == 1 and "make them the same" in errors


def test_it_leaves_a_group_behind_in_time(tmp_path: Path) -> None:
    """Also when nothing else wakes it."""
    options = {"depth": 4, "epochs": 80, "max_lag": 0.5, "on_lag": "detach", "interval": 3600}
    store, path = tmp_path / "store", tmp_path / "manager.sock"
    with listen(path) as listener, activated(tmp_path, [listener]):
        with segue.open(store, socket=path) as first, segue.open(store, socket=path) as second:
            a = opened(first, tmp_path / "a.segue", **options).loader(group="a", timeout=60)
            b = opened(second, tmp_path / "a.segue", **options).loader(group="b", timeout=60)
            a.state_dict(), b.state_dict()
            assert feeds(first) == 1
            begun = time.monotonic()
            take(a, 20, 1)
            assert time.monotonic() - begun < 6
            a.close(), b.close()


def test_stale_variables_are_of_no_account(tmp_path: Path) -> None:
    """LISTEN_PID is another's: fd 3 is not the server's to take."""
    env = {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    with Service(tmp_path / "store", env=env) as service, Peer(service.path):
        assert service.line


# ---- The units ----


def test_a_socket_that_is_removed_is_there_again(tmp_path: Path) -> None:
    with Service(tmp_path / "store") as service:
        before = Peer(service.path)
        mode = service.path.stat().st_mode
        for _ in range(2):
            service.path.unlink()
            until(service.path.exists, 20)
            assert service.path.stat().st_mode == mode
            after = Peer(service.path)
            for peer in before, after:
                peer.call(UPLOAD, BULK, f2=1)
            after.close()
        before.close()
        code, errors = service.stop()
        assert code == 0 and errors.count("had been removed: it is there again") == 2
        assert not service.path.exists()


def test_a_socket_that_somebody_else_has_put_there_is_left_alone(tmp_path: Path) -> None:
    with Service(tmp_path / "store") as service:
        os.rename(service.path, tmp_path / "ours")
        service.path.write_text("theirs")
        time.sleep(2.5)
        Peer(tmp_path / "ours").close()
        assert service.stop()[0] == 0
        assert service.path.read_text() == "theirs"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    if not shutil.which("systemd-analyze"):
        pytest.skip("SKIP: systemd-analyze is not installed here")
    service = (UNITS / "segue@.service.in").read_text()
    folder = tmp_path / "units"
    folder.mkdir()
    (tmp_path / "segue").symlink_to(program())  # a path of its own may have spaces
    service = service.replace("@bindir@", str(tmp_path))
    for name in ("segue@.service", "segue@run1.service"):
        (folder / name).write_text(service)
    for name in ("segue@.socket", "segue@run1.socket"):
        shutil.copy(UNITS / "segue@.socket", folder / name)
    return folder


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *arguments], env=env, capture_output=True, text=True, timeout=120
    )


def test_the_units_are_sound(units: Path) -> None:
    names = [str(units / f"segue@run1.{kind}") for kind in ("service", "socket")]
    result = analyze(units, "verify", *names)
    assert result.returncode == 0 and "segue@" not in result.stderr, result.stderr


def test_a_unit_that_is_not_sound_is_found(units: Path) -> None:
    path = units / "segue@run1.service"
    path.write_text(path.read_text().replace("Type=notify", "Type=notfy"))
    result = analyze(units, "verify", str(path))
    assert "segue@run1.service" in result.stderr


def test_the_sandbox(units: Path) -> None:
    result = analyze(units, "security", "--offline=true", "--no-pager", str(units / "segue@run1.service"))
    if "unrecognized option" in result.stderr:
        pytest.skip("SKIP: this systemd cannot judge a unit offline")
    words = result.stdout.split()
    assert float(words[words.index("segue@run1.service:") + 1]) <= EXPOSURE_MAX


def test_the_filter_lets_through_what_is_needed(units: Path, tmp_path: Path) -> None:
    """The system calls of a server at work are in the unit's list, but for those it can do without."""
    if not shutil.which("strace"):
        pytest.skip("SKIP: strace is not installed here")
    if "detect_leaks=1" in os.environ.get("ASAN_OPTIONS", ""):
        pytest.skip("SKIP: the leak checker traces, and a process has one tracer")
    denied = {"setrlimit", "sched_setscheduler", "setpriority"}  # and then it goes on
    allowed = set(filter_of(units))
    log = tmp_path / "strace"
    store = tmp_path / "store"
    tracer = subprocess.Popen(
        ["strace", "-f", "-c", "-U", "name", "-o", str(log), program(), "serve", str(store)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stdout and tracer.stdout.readline()
    with segue.open(store) as client:
        client.status()
        client.verify()
    children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    tracer.communicate(timeout=60)
    used = {line.strip() for line in log.read_text().splitlines()}
    used = {name for name in used if name.replace("_", "").isalnum()} - {"syscall", "total"}
    assert "epoll_wait" in used or "epoll_pwait" in used
    assert used - denied <= allowed, used - denied - allowed


def filter_of(units: Path) -> Iterator[str]:
    """The names that SystemCallFilter= of the unit lets through."""
    sets: dict[str, list[str]] = {}
    current: list[str] = []
    for line in analyze(units, "syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())

    def expand(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return set().union(*(expand(one) for one in sets[name])) if sets[name] else set()

    names: set[str] = set()
    for line in (units / "segue@run1.service").read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            words = line.partition("=")[2].split()
            away = words[0].startswith("~")
            words[0] = words[0].lstrip("~")
            for word in words:
                names = names - expand(word) if away else names | expand(word)
    yield from names

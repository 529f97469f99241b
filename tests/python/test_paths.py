"""Which files a client may have the server read: beneath roots alone, and only what it may read itself."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from peer import OPENED, STREAM_OPEN, Peer, Refused, Service, make_spec
from test_cli import program, run, write_data

ESOURCE = 11
NOBODY = 65534


@pytest.fixture
def place(place: Path) -> Path:
    """A root with data, a sibling outside of it, and ways that should not lead there."""
    root, outside = place / "root", place / "outside"
    (root / "deep" / "er").mkdir(parents=True)
    outside.mkdir()
    for path in (root / "a.tfrecord", root / "deep" / "er" / "b.tfrecord", outside / "secret.tfrecord"):
        write_data(path, 4)
        path.chmod(0o644)
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret.tfrecord")
    (root / "inside").symlink_to(root / "deep")
    (root / "magic").symlink_to("/proc/self/fd")
    os.mkfifo(root / "fifo")
    return place


@pytest.fixture
def service(place: Path) -> Iterator[Service]:
    with Service(place / "store", "--root", place / "root") as service:
        yield service


def why(service: Service, *paths: Path | str) -> str:
    """Open a stream of these paths, which must be refused; return the message."""
    with Peer(service.path) as peer:
        began = time.monotonic()
        with pytest.raises(Refused) as caught:
            peer.open(make_spec("refused", *paths))
        assert time.monotonic() - began < 5
        assert caught.value.code == ESOURCE, caught.value
        return str(caught.value)


def opens(service: Service, *paths: Path | str) -> int:
    """Open a stream of these paths, for a moment; return how many records it has."""
    with Peer(service.path) as peer:
        return peer.call(STREAM_OPEN, OPENED, f2=make_spec("fine", *paths, persist=False))[3]


def test_what_lies_beneath_a_root_is_read(place: Path, service: Service) -> None:
    root = place / "root"
    assert opens(service, root / "a.tfrecord") == 4
    for path in (
        f"{root}//a.tfrecord", f"{root}/./deep/./er//b.tfrecord", f"{root}/*.tfrecord",
        f"{root}/deep/*/b.tfrecord", f"{root}/d??p/[e]r/*",
    ):  # fmt: skip
        assert opens(service, path) == 4
    assert opens(service, root / "*.tfrecord", root / "deep/er/*") == 8


def test_ways_out_are_refused(place: Path, service: Service) -> None:
    root = place / "root"
    outside = "is not beneath a directory that this server reads from"
    link = "symbolic link"
    for path, words in [
        (place / "outside" / "secret.tfrecord", outside),
        ("/etc/passwd", outside),
        (f"{root}/../outside/secret.tfrecord", outside),
        (f"{root}/deep/../a.tfrecord", outside),
        (f"{root}x/a.tfrecord", outside),
        ("/", outside),
        (root / "out" / "secret.tfrecord", link),
        (root / "file", link),
        (root / "inside" / "er" / "b.tfrecord", link),
        (root / "magic" / "0", link),
        (root, "is a directory"),
        (root / "deep", "is a directory"),
        (root / "fifo", "is not a plain file"),
        (root / "nothing", "no such file"),
        (root / ("x" * 256), "File name too long"),
        (f"{root}/line\nbreak", "no such file"),
        (f"{root}/../*/secret.tfrecord", outside),
        (f"{place}/*/secret.tfrecord", outside),
        (f"{root}/out/*", link),
        (f"{root}/o*/secret.tfrecord", "nothing matches it"),
        (f"{root}/f*", ""),  # the link and the FIFO
    ]:
        message = why(service, path)
        assert words in message, (path, message)
        assert "secret" not in message or "secret" in str(path)


def test_two_stars_follow_no_link(place: Path, service: Service) -> None:
    """One is not passed over, either: what it leads to would be missing."""
    root = place / "root"
    assert opens(service, root / "deep" / "**" / "*.tfrecord") == 4
    message = why(service, root / "**" / "*.tfrecord")
    assert "is a symbolic link" in message and "part of the files" in message
    assert "secret" not in message


def test_a_directory_that_cannot_be_read_is_named(place: Path, service: Service) -> None:
    missing = place / "root" / "dat"
    said = f"{missing}/*.tfrecord: cannot read the directory {missing}: No such file or directory"
    assert said in why(service, missing / "*.tfrecord")
    with Service(place / "other") as other:
        assert said in why(other, missing / "*.tfrecord")


def test_a_device_is_not_opened(place: Path) -> None:
    for roots in (["--root", "/dev"], []):
        with Service(place / "store", *roots) as service:
            for path in ("/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx"):
                assert "is not a plain file" in why(service, path)


def test_without_roots_plain_files_alone(place: Path) -> None:
    """An embedded server has the rights of its user: links are followed, FIFOs never waited for."""
    root = place / "root"
    with Service(place / "store") as service:
        assert opens(service, root / "file") == 4
        assert opens(service, f"{root}/deep/../a.tfrecord") == 4
        for path in (root / "fifo", "/dev/zero"):
            assert "is not a plain file" in why(service, path)
        assert "is a directory" in why(service, root)
        assert service.status()


def test_roots_from_the_environment(place: Path) -> None:
    roots = f"{place / 'root' / 'deep'}:{place / 'outside'}"
    with Service(place / "store", env={"SEGUE_ROOT": roots}) as service:
        assert opens(service, place / "outside" / "secret.tfrecord") == 4
        assert opens(service, place / "root" / "deep" / "er" / "b.tfrecord") == 4
        message = why(service, place / "root" / "a.tfrecord")
        assert str(place / "outside") in message  # what is allowed is said


def test_a_root_that_is_a_link_has_two_names(place: Path) -> None:
    (place / "alias").symlink_to(place / "root")
    with Service(place / "store", "--root", f"{place / 'alias'}/") as service:
        assert opens(service, place / "alias" / "a.tfrecord") == 4
        assert opens(service, place / "root" / "a.tfrecord") == 4


@pytest.mark.parametrize("root", ["relative", "/no/such/directory", "/etc/passwd"])
def test_roots_that_cannot_be(place: Path, root: str) -> None:
    result = run("serve", place / "store", "--root", root)
    assert result.returncode == 2 and root in result.stderr


def test_a_link_that_comes_and_goes(place: Path, service: Service) -> None:
    """A directory is swapped with a link to the outside, all the time: never is one followed."""
    root, stop = place / "root", threading.Event()
    (root / "swap").mkdir()
    write_data(root / "swap" / "secret.tfrecord", 2)
    (root / "link").symlink_to(place / "outside")

    def swap() -> None:
        for count in itertools.count():
            for source, target in (("swap", "aside"), ("link", "swap"), ("swap", "link"), ("aside", "swap")):
                os.rename(root / source, root / target)
            # Opening takes more than one look: now and then they all see the directory.
            if stop.wait(0.002 if count % 16 == 0 else 0):
                break

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        end = time.monotonic() + (20 if "SEGUE_TEST_LONG" in os.environ else 2)
        at_last = end + 30
        with Peer(service.path) as peer:
            turn = 0
            while (now := time.monotonic()) < end or (len(seen) < 2 and now < at_last):
                turn += 1
                try:
                    spec = make_spec(f"s{turn}", root / "swap" / "secret.tfrecord", persist=False)
                    opened = peer.call(STREAM_OPEN, OPENED, f2=spec)
                    seen.add("opened")
                    assert opened[3] == 2, "the link was followed: there are 4 records outside"
                    peer.call(14, 68, f2=opened[2])
                except Refused as refused:
                    seen.add("refused")
                    assert refused.code in (ESOURCE, 13), refused
    finally:
        stop.set()
        swapper.join()
    assert seen == {"opened", "refused"}


def test_no_openat2_no_roots(place: Path) -> None:
    """Where a filter of system calls forbids openat2 the server does not start with roots at all."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("SKIP: strace, which takes openat2 away, is not installed here")
    for error in ("ENOSYS", "EPERM"):
        result = subprocess.run(
            [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject=openat2:error={error}",
             program(), "serve", place / "store", "--root", place / "root"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == 1 and "openat2 does not work here" in result.stderr, result


# ---- Other users ----

def as_nobody(service: Service, *paths: Any, group: int = 0) -> list[str]:
    """What a client of another user gets of these paths, a line for each: "yes", or why not."""
    if os.geteuid() != 0:
        pytest.skip("SKIP: only root can be another user")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with open(writing, "w") as out:
            os.setgroups([group] if group else [])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                with Peer(service.path) as peer:
                    for number, path in enumerate(paths):
                        print(_attempt(peer, f"nobody-{number}-{group}", path), file=out)
            except (Refused, OSError) as error:
                print("no", error, file=out)
        os._exit(0)
    os.close(writing)
    with open(reading) as lines:
        said = lines.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    return said


def _attempt(peer: Peer, name: str, path: Any) -> str:
    if isinstance(path, tuple):  # a stream of that name
        name, path = path
    try:
        stream = peer.open(make_spec(name, path, persist=False))
        peer.attach(stream)
    except Refused as refused:
        return f"no {refused}"
    return "yes"


def test_another_user_is_not_let_in(place: Path) -> None:
    with Service(place / "store", "--socket", place / "open.sock", socket=place / "open.sock") as service:
        assert service.path.stat().st_mode & 0o777 == 0o600
        service.path.chmod(0o666)
        (place / "store").chmod(0o755)
        lines = as_nobody(service)
        assert len(lines) == 1 and "uid 65534 may not use the server" in lines[0], lines
        assert "--allow-user" in lines[0]


def test_users_need_roots(place: Path) -> None:
    for option in (["--allow-user", "nobody"], ["--allow-group", "0"]):
        result = run("serve", place / "store", *option)
        assert result.returncode == 2 and "need --root" in result.stderr
    for option in ("--allow-user", "--allow-group"):
        result = run("serve", place / "store", "--root", place, option, "no-such-name")
        assert result.returncode == 2 and "'no-such-name'" in result.stderr


def test_another_user_reads_what_it_may(place: Path) -> None:
    """The server may read all of it, being root; it does not for somebody who may not."""
    root = place / "root"
    mine, group, others = root / "mine.tfrecord", root / "group.tfrecord", root / "a.tfrecord"
    for path in (mine, group):
        write_data(path, 4)
    private = root / "private" / "c.tfrecord"
    private.parent.mkdir(mode=0o700)
    write_data(private, 4)
    private.chmod(0o644)
    own = root / "own.tfrecord"
    write_data(own, 4)
    if os.geteuid() == 0:
        os.chown(own, NOBODY, 0)
        os.chown(group, 0, 4242)
    mine.chmod(0o600)
    group.chmod(0o640)
    own.chmod(0o400)
    options = ["--socket", place / "open.sock", "--allow-user", str(NOBODY), "--root", root]
    with Service(place / "store", *options, socket=place / "open.sock") as service:
        assert service.path.stat().st_mode & 0o777 == 0o666
        paths = [others, mine, group, private, own, root / "m*", root / "private" / "*"]
        lines = as_nobody(service, *paths)
        assert [line.split()[0] for line in lines] == ["yes", "no", "no", "no", "yes", "no", "no"], lines
        assert "cannot be read by uid 65534" in lines[1]
        lines = as_nobody(service, mine, group, group=4242)
        assert [line.split()[0] for line in lines] == ["no", "yes"], lines
        assert opens(service, mine) == 4  # for root itself
        assert service.status()["users"][0]["uid"] == 0


def test_what_was_inserted_is_not_for_others(place: Path) -> None:
    """It lies beneath no root that was given, and is the server's own user's."""
    options = ["--socket", place / "open.sock", "--allow-user", str(NOBODY), "--root", place / "root"]
    with Service(place / "store", *options, socket=place / "open.sock") as service:
        with segue.open(place / "store", socket=service.path, start=False) as client:
            stream = client.stream(
                "live", segue.Push(), {"x": segue.Feature("int64")}, num_unroll=2, batch_size=1
            )
            with stream.producer("a") as producer:
                producer.insert({"x": np.arange(3)})
            stream.end_input()
            (path,) = stream.files().paths
        lines = as_nobody(service, path, place / "root" / "a.tfrecord")
        assert [line.split()[0] for line in lines] == ["no", "yes"], lines
        assert "cannot be read by uid 65534" in lines[0]


def test_what_an_acl_says(place: Path) -> None:
    """Another user is not let in by the bits of others where an ACL says something else."""
    root = place / "root"
    shut, folder = root / "shut.tfrecord", root / "folder"
    folder.mkdir(mode=0o755)
    for path in (shut, folder / "d.tfrecord"):
        write_data(path, 4)
        path.chmod(0o644)

    def entry(tag: int, bits: int, who: int = 0xFFFFFFFF) -> bytes:
        return struct.pack("<HHI", tag, bits, who)

    # user::rw-, user:nobody:---, group::r--, mask::r--, other::r--; for the directory with x, too
    for path, x in ((shut, 0), (folder, 1)):
        acl = struct.pack("<I", 2) + entry(1, 6 | x) + entry(2, 0, NOBODY)
        acl += entry(4, 4 | x) + entry(16, 4 | x) + entry(32, 4 | x)
        try:
            os.setxattr(path, "system.posix_acl_access", acl)
        except OSError as error:
            pytest.skip(f"SKIP: no ACLs on this file system: {error}")
    options = ["--socket", place / "open.sock", "--allow-user", "nobody", "--root", root]
    with Service(place / "store", *options, socket=place / "open.sock") as service:
        lines = as_nobody(service, root / "a.tfrecord", shut, folder / "d.tfrecord", folder / "*")
        assert [line.split()[0] for line in lines] == ["yes", "no", "no", "no"], lines
        assert "an ACL is read for its owner alone" in lines[1]
        assert opens(service, shut) == 4


def test_a_stream_that_is_open_is_not_for_everybody(place: Path) -> None:
    """Another user asks for the stream that root has open, over a file that only root may read."""
    secret, shown = place / "root" / "mine.tfrecord", place / "root" / "a.tfrecord"
    write_data(secret, 4)
    secret.chmod(0o600)
    options = ["--socket", place / "open.sock", "--allow-user", "nobody", "--root", place / "root"]
    with (
        Service(place / "store", *options, socket=place / "open.sock") as service,
        Peer(service.path) as peer,
    ):
        for name, path in (("one", secret), ("two", shown)):
            peer.open(make_spec(name, path, persist=False))
        lines = as_nobody(service, ("one", secret), ("two", shown))
        assert "cannot be read by uid 65534" in lines[0] and lines[1] == "yes", lines


def test_a_group_that_is_let_in(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("SKIP: only root can give a socket to any group")
    options = ["--socket", place / "open.sock", "--allow-group", "4242", "--root", place / "root"]
    with Service(place / "store", *options, socket=place / "open.sock") as service:
        info = service.path.stat()
        assert (info.st_mode & 0o777, info.st_gid) == (0o660, 4242)
        assert as_nobody(service, place / "root" / "a.tfrecord", group=4242) == ["yes"]
        assert "Permission denied" in as_nobody(service)[0]


def test_compressed_files_too(place: Path) -> None:
    """The copy that the server has made of a file is not a way around the right to read it."""
    import gzip

    packed = place / "root" / "packed.tfrecord.gz"
    packed.write_bytes(gzip.compress((place / "root" / "a.tfrecord").read_bytes()))
    packed.chmod(0o600)
    options = ["--socket", place / "open.sock", "--allow-user", "nobody", "--root", place / "root"]
    with Service(place / "store", *options, socket=place / "open.sock") as service:
        assert opens(service, packed) == 4
        assert "cannot be read by uid 65534" in as_nobody(service, packed)[0]
        assert "symbolic link" in why(service, place / "root" / "file")

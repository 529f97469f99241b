"""The command line program: what it prints, its exit statuses, with and without a server."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue import _program
from segue.tfrecord import SequenceExampleWriter

FINE, WRONG, USAGE, DAMAGED = 0, 1, 2, 3
EINVAL, ESYSTEM, EBUSY, ESTORE = 1, 3, 7, 21
COMMANDS = ["serve", "status", "top", "inspect", "get", "checkpoint", "stream"]
COMMANDS += ["verify", "backup", "restore", "repair", "peek", "doctor"]
UNROLL = 4


def program() -> str:
    path = os.environ.get("SEGUE_PROGRAM") or _program.bundled()
    assert path, "set SEGUE_PROGRAM to the built program"
    return path


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "SEGUE_SOCKET"} | more


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", environment())
    return subprocess.run(
        [program(), *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


def report(*arguments: Any, status: int = FINE) -> Any:
    """Run with --json; what it printed must be one line of JSON."""
    result = run(*arguments, "--json")
    assert result.returncode == status, result
    assert result.stdout.endswith("\n") and result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def fails(status: int, *arguments: Any) -> str:
    """Run what must fail; return its message."""
    result = run(*arguments)
    assert result.returncode == status, result
    assert result.stderr.startswith("segue"), result
    return result.stderr


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return value


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Server:
    """A server in the foreground."""

    def __init__(self, directory: Path, *options: Any) -> None:
        self.process = subprocess.Popen(
            [program(), "serve", str(directory), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env=environment(),
        )
        assert self.process.stdout
        self.line = self.process.stdout.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> int:
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *ignored: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


# ---- Streams to look at ----


def steps_of(record: int) -> int:
    return [3, 8, 9, 4][record % 4]


def write_data(path: Path, records: int) -> list[str]:
    """Write a data set; return the records' keys."""
    keys = []
    with SequenceExampleWriter(path) as writer:
        for record in range(records):
            writer.write(
                sequences={"token": np.arange(steps_of(record), dtype=np.float32)},
                context={"speaker": record},
            )
    offset, raw = 0, path.read_bytes()
    while offset < len(raw):
        keys.append(f"{path.name}:{offset}")
        offset += 16 + int.from_bytes(raw[offset : offset + 8], "little")
    return keys


def train(directory: Path, data: Path, batches: int | None, **options: Any) -> None:
    """Commit that many batches: each adds 1.5 to h, and 1 to n."""
    with segue.open(directory, socket=options.pop("socket", None)) as client:
        stream = client.stream(
            options.pop("name", "train"),
            source=segue.TFRecord(data),
            sequences={"token": segue.Feature("float32")},
            context={"speaker": segue.Feature("int64")},
            states={"h": segue.State("float32", [3]), "n": segue.State("int64")},
            num_unroll=UNROLL,
            batch_size=2,
            keep_final=True,
            **options,
        )
        with stream.loader(start="fresh") as loader:
            for taken, batch in enumerate(loader):
                if taken == batches:
                    break
                batch.save_state("h", batch.state("h") + np.float32(1.5))
                batch.save_state("n", batch.state("n") + 1)
                batch.commit()


@pytest.fixture
def keys(tmp_path: Path, directory: Path) -> list[str]:
    """A store after 3 batches of 2 rows over 4 records of 1, 2, 3 and 1 segments."""
    keys = write_data(tmp_path / "data.tfrecord", 4)
    train(directory, tmp_path / "data.tfrecord", 3)
    until(lambda: run("status", directory).returncode == WRONG)
    return keys


# ---- The command line itself ----


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_version(word: str) -> None:
    result = run(word)
    assert (result.returncode, result.stdout) == (FINE, f"segue {segue.__version__}\n")


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_command(word: str) -> None:
    result = run(word)
    assert result.returncode == FINE and not result.stderr
    assert all(f"\n  {command} " in result.stdout for command in COMMANDS)


def test_summaries_stand_in_a_column() -> None:
    lines = run("--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    column = lines[0].index("run the server")
    assert all(re.match(r" [a-z]", line[column - 1 :]) for line in lines), lines
    assert max(map(len, lines)) <= 80


def test_what_is_none(directory: Path) -> None:
    assert "there is no command 'hlep'" in fails(USAGE, "hlep")
    assert "there is no command 'hlep'" in fails(USAGE, "help", "hlep")
    assert "there is no option '--hlep'" in fails(USAGE, "--hlep")
    for word, meant in (("statu", "status"), ("chekpiont", "checkpoint"), ("sserve", "serve")):
        assert f"there is no command '{word}': did you mean '{meant}'?\n" in fails(USAGE, word)
    for word in ("x", "tip", "something-that-is-long"):
        assert f"there is no command '{word}'\n" in fails(USAGE, word)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    assert run("help", command).stdout == run(command, "--help").stdout
    result = run(command, "--help")
    assert result.returncode == FINE and not result.stderr
    assert result.stdout.startswith(f"Usage: segue {command} ")
    assert "Exit status:" in result.stdout
    options = result.stdout.partition("Options:\n")[2].partition("\n\n")[0].splitlines()
    assert options[-1].startswith("  --help ")
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["--no-such-option"],
        ["status"],
        ["status", ""],
        ["status", "a", "b"],
        ["get", "a"],
        ["verify", "a", "--stream", "x"],
        ["status", "a", "--socket"],
        ["status", "a", "--jsonx"],
        ["doctor", "a", "b"],
        ["serve"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == USAGE
    assert not result.stdout and "--help'." in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--map-size", "0"],
        ["--max-memory", "5X"],
        ["--max-lanes", "0"],
        ["--root", "relative"],
        ["--root", "/no/such/directory"],
        ["--allow-user", "0"],
        ["--root", "/tmp", "--allow-group", "no-such-name"],
    ],
)
def test_values_of_options_that_cannot_be(directory: Path, options: list[str]) -> None:
    message = fails(USAGE, "serve", directory, *options)
    assert options[-2] in message or options[-1] in message
    assert "segue serve --help" in message and not directory.exists()
    assert run("serve", directory, "--embedded", *options).returncode == EINVAL


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checkpoint", "list", "x", "--lane", "x"], "--lane is 'x': give a number from 0 to 4095"),
        (["checkpoint", "list", "x", "--lane=4096"], "--lane is '4096': give a number from 0 to"),
        (["checkpoint", "list", "x", "--step", "-1"], "--step is '-1': give a number from 0 to"),
        (["checkpoint", "list", "x", "--id", ""], "--id is '': give a number from 0 to"),
        (["serve", "x", "--map-size", "1G"], "--map-size is '1G': give a number of MiB from 1 to"),
    ],
)
def test_a_wrong_number_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == USAGE and said in result.stderr


def test_a_variable_that_cannot_be(directory: Path) -> None:
    result = run("serve", directory, env=environment(SEGUE_MAX_LANES="none"))
    assert result.returncode == USAGE and "SEGUE_MAX_LANES" in result.stderr


def test_a_full_output_is_an_error(keys: list[str], directory: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [program(), "inspect", str(directory)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == WRONG
    assert "standard output" in result.stderr


# ---- serve, status ----


def test_serve_in_the_foreground(directory: Path) -> None:
    with Server(directory) as server:
        expected = f"segue {segue.__version__} serves {directory} at {directory}/segue.sock"
        assert server.line == f"{expected} (pid {server.pid})\n"
        status = report("status", directory)
        assert status["server"]["pid"] == server.pid
        assert status["server"]["dir"] == str(directory)
        assert status["server"]["socket"] == f"{directory}/segue.sock"
        assert status["server"]["version"] == segue.__version__
        assert status["server"]["embedded"] is False
        assert status["server"]["storage"] == "ok"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", status["server"]["started"])
        assert [session["program"] for session in status["sessions"]] == ["segue"]
        assert status["sessions"][0]["uid"] == os.getuid()
        assert status["streams"] == []
        assert status["store"]["file_bytes"] == (directory / "store" / "data.mdb").stat().st_size
        assert 0 < status["memory"]["rss_bytes"] < 1 << 30
        assert 0 <= status["cpu_s"] < 60
        human = run("status", directory)
        assert human.returncode == FINE and f"pid {server.pid}," in human.stdout
        assert server.stop() == 0
    assert sorted(os.listdir(directory)) == ["store"]


def test_relative_directories(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [program(), "serve", "./here"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and f"serves {tmp_path}/here at" in process.stdout.readline()
    assert run("status", "here", cwd=tmp_path).returncode == FINE
    assert run("status", "here/", cwd=tmp_path).returncode == FINE
    process.terminate()
    assert process.wait(30) == 0


def test_status_of_lanes(directory: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "data.tfrecord", 12)
    with segue.open(directory) as client:
        stream = client.stream(
            "train",
            source=segue.TFRecord(tmp_path / "data.tfrecord"),
            sequences={"token": segue.Feature("float32")},
            context={"speaker": segue.Feature("int64")},
            states={"n": segue.State("int64")},
            num_unroll=UNROLL,
            batch_size=2,
            lanes=2,
        )
        with stream.loader(start="fresh") as loader:
            batches = iter(loader)
            for _ in range(4):
                batch = next(batches)
                batch.save_state("n", batch.state("n") + 1)
                batch.commit()

            def written() -> Any:
                found = report("status", directory)["streams"][0]
                return all(lane["step_durable"] == 2 for lane in found["lanes"]) and found

            found = until(written)
            assert found["name"] == "train" and found["state"] == "open"
            assert (found["records"], found["files"], found["persist"]) == (12, 1, True)
            assert [lane["lane"] for lane in found["lanes"]] == [0, 1]
            for lane in found["lanes"]:
                assert lane["state"] == "held" and lane["holder_pid"] == os.getpid()
                assert lane["step_committed"] == 2 and 1 <= lane["step_released"] <= 2
                assert lane["held"] == 2 - lane["step_released"]
                assert 2 <= lane["step_published"] <= 2 + lane["depth"]
                assert lane["ring_bytes"] > 0 and lane["generation"] > 0
            assert os.getpid() in [s["pid"] for s in report("status", directory)["sessions"]]
            human = run("status", directory, "--stream", "train").stdout
            assert "stream train: 12 records" in human and " held " in human
            assert "no stream 'x' is open" in fails(WRONG, "status", directory, "--stream", "x")
            del batch


def test_status_without_a_server(directory: Path) -> None:
    said = f"segue: no server runs for {directory}"
    assert fails(WRONG, "status", directory) == f"{said}, which does not exist\n"
    assert report("status", directory, status=WRONG) == {"server": None}
    assert not directory.exists(), "asking must not make it"
    directory.mkdir()
    assert fails(WRONG, "status", directory) == f"{said}\n"


def test_another_socket(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with Server(directory, "--socket", path) as server:
        assert f" at {path} (pid" in server.line
        for command in [["status"], ["inspect"]]:
            message = fails(WRONG, *command, directory)
            assert f"pid {server.pid}" in message and "--socket" in message
        assert run("status", directory, "--socket", path).returncode == FINE
        assert run("inspect", directory, "--socket", path).returncode == FINE
        by_name = run("status", directory, env=environment(SEGUE_SOCKET=str(path)))
        assert by_name.returncode == FINE
        assert server.stop() == 0
    assert not path.exists()


def test_nothing_plays_with_a_terminal(tmp_path: Path) -> None:
    directory = tmp_path / "a\x1b[31mb\x9b"
    with Server(directory):
        for command in ("status", "doctor"):
            human = run(command, directory).stdout
            assert "\x1b" not in human and "\x9b" not in human
        assert f"dir      {tmp_path}/a\\x1b[31mb\\xc2\\x9b\n" in run("status", directory).stdout
        assert report("status", directory)["server"]["dir"] == str(directory)
        assert "\x9b" not in run("status", directory, "--json").stdout
    missing = str(directory / "none") + "\nsegue: fine"
    message = fails(WRONG, "inspect", missing)
    assert "\\x1b[31mb\\xc2\\x9b/none\\x0asegue: fine" in message


def test_a_second_server_is_refused(directory: Path) -> None:
    with Server(directory) as server:
        assert f"(pid {server.pid})" in fails(WRONG, "serve", directory)
        refused = run("serve", directory, "--embedded")
        assert refused.returncode == EBUSY
        assert f"(pid {server.pid})" in refused.stderr
        assert run("status", directory).returncode == FINE


def test_a_server_starts_again_after_sigkill(directory: Path) -> None:
    for _ in range(3):
        with Server(directory) as server:
            assert server.line.startswith("segue ")
            server.process.kill()
            server.process.wait()
    assert run("verify", directory).returncode == FINE


def test_serve_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in [tmp_path / "file", tmp_path / "file" / "below"]:
        assert str(tmp_path / "file") in fails(WRONG, "serve", target)
        assert run("serve", target, "--embedded").returncode not in (FINE, USAGE)
    too_long = ["--socket", tmp_path / ("x" * 120)]
    assert "--socket" in fails(WRONG, "serve", tmp_path / "store", *too_long)
    assert run("serve", tmp_path / "store", "--embedded", *too_long).returncode == EINVAL
    # a client takes the status for an error code
    assert run("serve", "--embedded", "--no-such-option", "x").returncode == EINVAL


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_what_is_no_directory_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    said = f"segue: {file} is no directory: name another place\n"
    for command in ["serve", "status", "inspect", "verify"]:
        assert fails(WRONG, command, file / below) == said
    assert fails(WRONG, "get", file / below, "k") == said
    assert fails(WRONG, "checkpoint", "list", file / below) == said
    assert fails(WRONG, "backup", tmp_path / "none", file / "x" / below) == said
    assert fails(WRONG, "restore", tmp_path / "none", file / below) == said
    with pytest.raises(segue.Error, match=f"{file} is no directory: name another place"):
        segue.open(file / below)


def test_embedded(directory: Path) -> None:
    before = time.monotonic()
    result = run("serve", directory, "--embedded")  # reads its stderr to the end
    assert (result.returncode, result.stdout, result.stderr) == (FINE, "", "")
    assert time.monotonic() - before < 10
    status = report("status", directory)
    pid = status["server"]["pid"]
    assert status["server"]["embedded"] is True
    # status was its last user
    until(lambda: not alive(pid))
    assert not (directory / "segue.sock").exists()
    assert (directory / "server.log").exists()


def test_embedded_holds_nothing_of_its_starter(directory: Path) -> None:
    reader, writer = os.pipe()
    with segue.open(directory, timeout=30) as client:
        client.close()
    until(lambda: run("status", directory).returncode == WRONG)
    result = run("serve", directory, "--embedded", pass_fds=[writer], cwd=directory)
    assert result.returncode == FINE
    os.close(writer)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b"", "the server has our pipe open"
    os.close(reader)
    with segue.open(directory, start=False) as client:
        pid = client.status()["server"]["pid"]
        assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"
    until(lambda: not alive(pid))


def test_a_starter_that_is_killed_takes_the_server_with_it(directory: Path) -> None:
    directory.mkdir()
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # the server waits for it
    starter = subprocess.Popen([program(), "serve", str(directory), "--embedded"])
    (server,) = until(lambda: children(starter.pid))
    until(lambda: len(os.listdir(f"/proc/{server}/task")) > 1)
    time.sleep(0.05)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    until(lambda: not alive(server), 3)
    os.close(lock)


# ---- inspect, get ----


def expected_rows(keys: list[str]) -> dict[int, tuple[int, int, str]]:
    """Of the fixture: row -> sequence, segment, key, of the sequences that go on."""
    # batches: (0.0 1.0) (2.0 1.1) (2.1 3.0): of record 2 one segment is left
    return {0: (2, 1, keys[2])}


def test_inspect(keys: list[str], directory: Path) -> None:
    (stream,) = report("inspect", directory)["streams"]
    assert stream["name"] == "train"
    assert re.fullmatch(r"[0-9a-f]{32}", stream["fingerprint"])
    spec = stream["spec"]
    assert spec["source"]["kind"] == "tfrecord"
    assert spec["source"]["paths"] == [str(directory.parent / "data.tfrecord")]
    assert spec["states"] == [
        {"name": "h", "dtype": "float32", "shape": [3]},
        {"name": "n", "dtype": "int64", "shape": []},
    ]
    assert spec["sequences"] == [{"name": "token", "dtype": "float32", "shape": []}]
    assert spec["contexts"] == [{"name": "speaker", "dtype": "int64", "shape": []}]
    assert (spec["num_unroll"], spec["batch_size"], spec["lanes"]) == (UNROLL, 2, 1)
    assert (spec["tail"], spec["keep_final"], spec["shuffle"]) == ("shrink", True, False)
    (lane,) = stream["lanes"]
    assert (lane["lane"], lane["group"], lane["step"], lane["held"]) == (0, 0, 3, False)
    assert lane["holder_pid"] == os.getpid()
    rows = {row["row"]: (row["number"], row["segment"], row["key"]) for row in lane["rows"]}
    assert rows == expected_rows(keys)
    assert [row["segments"] for row in lane["rows"]] == [3]
    human = run("inspect", directory, "--stream", "train").stdout
    assert keys[2] in human and "token float32[]" in human and "h float32[3]" in human
    lines = human.splitlines()
    (above,) = [number for number, line in enumerate(lines) if line.endswith("HELD  HOLDER")]
    assert lines[above + 1].split()[-2:] == ["no", "-"]
    assert "has no stream 'x'" in fails(WRONG, "inspect", directory, "--stream", "x")


def states_of(found: dict[str, Any]) -> tuple[list[float], list[int]]:
    return found["states"]["h"]["values"], found["states"]["n"]["values"]


def test_get(keys: list[str], directory: Path) -> None:
    # record 2 has had two segments; 0, 1 and 3 have ended after 1, 2 and 1
    wanted = [("final", 1), ("final", 2), ("live", 2), ("final", 1)]
    for record, (kind, segments) in enumerate(wanted):
        answer = report("get", directory, keys[record])
        (found,) = answer["found"]
        assert answer["key"] == keys[record]
        assert (found["stream"], found["kind"], found["group"]) == ("train", kind, 0)
        assert (found["lane"], found["number"]) == (0, record)
        assert states_of(found) == ([1.5 * segments] * 3, [segments])
        assert found["states"]["h"]["dtype"] == "float32"
        assert found["states"]["h"]["shape"] == [3]
    human = run("get", directory, keys[2]).stdout
    assert "live: lane 0, sequence 2" in human and "h float32[3] = 3 3 3" in human
    assert "nothing is kept" in fails(WRONG, "get", directory, "no such key")
    assert "nothing is kept" in fails(WRONG, "get", directory, "--", "--json")
    assert "nothing is kept" in fails(WRONG, "get", directory, b"\xff\x1b".decode("latin1"))
    assert "has no stream" in fails(WRONG, "get", directory, keys[0], "--stream", "x")
    assert "empty" in fails(WRONG, "get", directory, "")


def test_get_bytes_that_are_no_text(keys: list[str], directory: Path) -> None:
    arguments = [program().encode(), b"get", os.fsencode(directory), b"\xff\xfe"]
    with Server(directory):
        for _ in range(2):  # with the server's answer, then from the store
            result = subprocess.run(arguments, capture_output=True, env=environment())
            assert result.returncode == WRONG and b"nothing is kept" in result.stderr


def test_a_key_in_two_streams(keys: list[str], directory: Path, tmp_path: Path) -> None:
    train(directory, tmp_path / "data.tfrecord", None, name="second")
    found = report("get", directory, keys[2])["found"]
    assert [(hit["stream"], hit["kind"]) for hit in found] == [
        ("second", "final"),
        ("train", "live"),
    ]
    assert [states_of(hit)[1] for hit in found] == [[3], [2]]
    (found,) = report("get", directory, keys[2], "--stream", "second")["found"]
    assert states_of(found) == ([4.5] * 3, [3])


def test_a_server_reports_the_same(keys: list[str], directory: Path) -> None:
    alone = report("inspect", directory), [report("get", directory, key) for key in keys]
    with Server(directory):
        served = report("inspect", directory), [report("get", directory, key) for key in keys]
        assert run("inspect", directory).returncode == FINE
        with segue.open(directory) as client:
            assert client.inspect() == alone[0]
            assert client.get(keys[2]) == alone[1][2]
            assert client.verify()["damaged"] == []
            assert client.verify()["values"] == report("verify", directory)["values"]
    assert served == alone


def test_no_store(directory: Path) -> None:
    for arguments in [["inspect", directory], ["get", directory, "k"], ["verify", directory]]:
        assert "there is no store" in fails(WRONG, *arguments)
    assert not directory.exists()


# ---- verify ----


def test_verify(keys: list[str], directory: Path) -> None:
    found = report("verify", directory)
    assert found["damaged"] == [] and found["damaged_count"] == 0
    assert found["values"] >= 9 and found["bytes"] > 0
    human = run("verify", directory)
    assert f"{found['values']} values are sound" in human.stdout and not human.stderr


def test_verify_finds_a_flipped_bit(keys: list[str], directory: Path) -> None:
    path = directory / "store" / "data.mdb"
    raw = bytearray(path.read_bytes())
    # the states after two segments, 3.0 3.0 3.0 and 2: of the live row, and final of record 1
    wanted = np.full(3, 3, np.float32).tobytes() + np.array([2], np.int64).tobytes()
    places = [match.start() for match in re.finditer(re.escape(wanted), raw)]
    assert places
    for place in places:
        raw[place] ^= 4
    path.write_bytes(raw)
    found = report("verify", directory, status=DAMAGED)
    assert found["damaged_count"] == 2
    assert [fault["table"] for fault in found["damaged"]] == ["states", "finals"]
    for fault in found["damaged"]:
        assert re.fullmatch("0x[0-9a-f]+", fault["key"]) and "checksum" in fault["why"]
    human = run("verify", directory)
    assert human.returncode == DAMAGED and "DAMAGED" in human.stdout
    assert "damaged" in fails(WRONG, "get", directory, keys[2])
    with Server(directory), segue.open(directory) as client:
        assert client.verify() == found


@pytest.mark.parametrize("size", [0, 1, 4096, 12288, 20480])
def test_verify_of_a_file_cut_short(keys: list[str], directory: Path, size: int) -> None:
    os.truncate(directory / "store" / "data.mdb", size)
    found = report("verify", directory, status=DAMAGED)
    assert found["damaged_count"] >= 1 and found["damaged"]
    assert run("verify", directory).returncode == DAMAGED


def test_serve_refuses_a_damaged_store(keys: list[str], directory: Path) -> None:
    os.truncate(directory / "store" / "data.mdb", 4096)
    said = f"{directory}/store/data.mdb is damaged: it is cut short; the file is kept: restore a"
    assert fails(WRONG, "serve", directory) == f"segue: {said} backup, or move it away\n"
    assert run("serve", directory, "--embedded").returncode == ESTORE
    (fault,) = report("verify", directory, status=DAMAGED)["damaged"]
    assert said.startswith(fault["why"]) and "restore" not in fault["why"]


@pytest.mark.parametrize("count", [1, 2])
def test_serve_says_what_is_damaged(keys: list[str], directory: Path, count: int) -> None:
    path = directory / "store" / "data.mdb"
    raw = bytearray(path.read_bytes())
    wanted = np.full(3, 3, np.float32).tobytes() + np.array([2], np.int64).tobytes()
    for match in list(re.finditer(re.escape(wanted), raw))[:count]:
        raw[match.start()] ^= 4
    path.write_bytes(raw)
    (directory / "suspect").touch()  # asks the next server to look
    message = fails(WRONG, "serve", directory)
    assert message.count("restore a backup") == 1 and "checksum" in message
    assert ("2 faults, the first: key 0x" if count == 2 else "is damaged: key 0x") in message


def test_a_process_that_cannot_begin_is_no_verdict(
    keys: list[str], directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library of the program is replaced while the server runs: nothing was read."""
    loaded = subprocess.run(["ldd", program()], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(liblmdb\S*) => (\S+)", loaded)
    if not found:
        pytest.skip("SKIP: the program holds LMDB itself")
    library = tmp_path / found[1]
    shutil.copy(found[2], library)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with Server(directory), segue.open(directory) as client:
        assert client.verify()["damaged"] == []
        library.rename(tmp_path / "aside")
        library.write_bytes(b"not whole yet")
        with pytest.raises(segue.errors.SystemCallError, match="status 127 before it began"):
            client.verify()
        (tmp_path / "aside").rename(library)
        assert client.verify()["damaged"] == []


# ---- doctor ----


def findings(*arguments: Any, status: int = FINE) -> dict[str, dict[str, str]]:
    found = report("doctor", *arguments, status=status)
    levels = [finding["level"] for finding in found["findings"]]
    assert set(levels) <= {"ok", "warn", "bad"}
    assert found["worst"] == max(levels, key=["ok", "warn", "bad"].index)
    assert (found["worst"] == "bad") == (status == WRONG)
    return {finding["subject"]: finding for finding in found["findings"]}


def test_doctor_of_the_machine() -> None:
    found = findings()
    assert found["kernel"]["finding"].startswith("Linux")
    assert {"program", "CRC32C", "cores", "open files", "memory", "trial store"} <= found.keys()
    assert "segue " + segue.__version__ in found["program"]["finding"]
    for name in ["protobuf-c", "zlib", "xxHash", "json-c"]:
        assert re.search(name + r" \d+\.\d+", found["program"]["finding"])
    assert re.search(r"LMDB \d+\.\d+", found["trial store"]["finding"])
    human = run("doctor")
    assert human.returncode == FINE and "trial store" in human.stdout


def test_doctor_of_a_directory(keys: list[str], directory: Path) -> None:
    before = sorted(os.listdir(directory))
    found = findings(directory)
    assert found["server"]["finding"] == "none runs"
    assert found["store"]["level"] == "ok"
    assert "shared memory" in found
    assert sorted(os.listdir(directory)) == before
    with Server(directory) as server:
        found = findings(directory)
        assert f"pid {server.pid} answers" in found["server"]["finding"]


def test_doctor_of_a_directory_to_be(directory: Path) -> None:
    found = findings(directory / "a" / "b")
    assert "does not exist yet" in found["directory"]["finding"]
    assert not directory.exists()


def test_doctor_names_leftovers(keys: list[str], directory: Path) -> None:
    (directory / ".store-0badcafe.new").mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(directory / "segue.sock"))
    found = findings(directory)
    assert found["leftovers"]["level"] == "warn" and found["leftovers"]["advice"]
    assert found["socket"]["level"] == "warn" and "left over" in found["socket"]["finding"]
    with Server(directory) as server:  # which needs no help with them
        assert server.stop() == 0
    assert not {"leftovers", "socket"} & findings(directory).keys()


def test_doctor_counts_inflated_copies(keys: list[str], directory: Path) -> None:
    assert "inflated files" not in findings(directory)
    (directory / "cache").mkdir(exist_ok=True)
    (directory / "cache" / "0badcafe.inflated").write_bytes(bytes(3 << 20))
    assert findings(directory)["inflated files"]["finding"].startswith("1 take 3.0 MiB in ")


def test_doctor_finds_what_is_bad(keys: list[str], directory: Path, tmp_path: Path) -> None:
    (directory / "segue.sock").write_text("not a socket")
    assert findings(directory, status=WRONG)["socket"]["level"] == "bad"
    (directory / "segue.sock").unlink()

    with Server(directory, "--socket", tmp_path / "other.sock") as server:
        found = findings(directory, status=WRONG)
        assert found["server"]["level"] == "bad"
        assert f"process {server.pid} " in found["server"]["finding"]
        assert findings(directory, "--socket", tmp_path / "other.sock")["server"]["level"] == "ok"

    (directory / "store" / "data.mdb").write_bytes(b"")
    assert findings(directory, status=WRONG)["store"]["level"] == "bad"
    (tmp_path / "file").touch()
    assert findings(tmp_path / "file", status=WRONG)["directory"]["level"] == "bad"


def test_doctor_sees_limits() -> None:
    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    result = run("doctor", "--json", preexec_fn=few_files)
    assert result.returncode == WRONG
    found = {finding["subject"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert found["open files"]["level"] == "bad" and "ulimit" in found["open files"]["advice"]

"""`segue top`, `segue status --openmetrics`, and the figures that both come from."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

import segue
from segue import Feature, Push, State, TFRecord
from test_cli import FINE, USAGE, WRONG, Server, environment, fails, program, run, until, write_data

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
RECORDS = 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", RECORDS)
    return tmp_path / "data"


def open_train(client: segue.Client, data: Path, **options: Any) -> segue.Stream:
    options = {"num_unroll": 4, "batch_size": 2, "lanes": 2, "interval": 0.05} | options
    states = {"h": State("float32", [3])}
    return client.stream("train", TFRecord(data, allow_surplus=True), {"token": Feature("float32")}, states=states, **options)


def commit(loader: segue.Loader, batches: int) -> None:
    for taken, batch in enumerate(loader, 1):
        batch.save_state("h", batch.state("h"))
        batch.commit()
        if taken == batches:
            break


def lanes_of(client: segue.Client) -> list[dict[str, Any]]:
    (stream,) = client.status()["streams"]
    return list(stream["lanes"])


# ---- Figures of the server ----


def test_where_a_lane_is(client: segue.Client, data: Path) -> None:
    stream = open_train(client, data, epochs=3)
    with stream.loader(lanes=[0]) as loader:
        before = -1.0
        for taken, batch in enumerate(loader):
            if taken % 10 == 0:
                lane = lanes_of(client)[0]
                assert lane["sequences"] == 3 * RECORDS / 2 and lane["epochs"] == 3
                assert before < lane["sequences_done"] <= lane["sequences"]
                assert abs(lane["epoch"] - int(min(batch.epoch))) <= 1
                before = lane["sequences_done"]
            batch.save_state("h", batch.state("h"))
            batch.commit()
        lane, other = lanes_of(client)
        assert lane["sequences_done"] == lane["sequences"] and lane["epoch"] == 2
        assert lane["ended"]
    assert other["sequences"] is None and other["epoch"] is None  # nobody has it


def test_an_endless_stream_has_no_end(client: segue.Client, data: Path) -> None:
    with open_train(client, data, epochs=None, lanes=1).loader() as loader:
        commit(loader, 100)
        (lane,) = lanes_of(client)
        assert lane["epochs"] is None and lane["sequences"] is None
        assert lane["epoch"] >= 1 and lane["sequences_done"] > RECORDS


def test_a_full_ring_is_the_server_s_wait(client: segue.Client, data: Path) -> None:
    with open_train(client, data, epochs=None, lanes=1).loader() as loader:
        commit(loader, 3)
        first = until(lambda: lanes_of(client)[0]["server_waits_s"])
        later = until(lambda: lanes_of(client)[0]["server_waits_s"] > first + 0.1)
        assert later
        waits = lanes_of(client)[0]["worker_waits_s"]
        time.sleep(0.05)  # it is not asked for a batch: nobody waits
        assert lanes_of(client)[0]["worker_waits_s"] == waits


def test_what_a_worker_waits_is_seen_while_it_waits(directory: Path, client: segue.Client) -> None:
    with segue.open(directory) as other:
        stream = other.stream("live", Push(), {"x": Feature("int64")}, num_unroll=2, batch_size=1)
        with stream.loader(timeout=60) as loader, stream.producer("p") as producer:
            thread = threading.Thread(target=lambda: next(iter(loader)).commit())
            thread.start()
            first = until(lambda: lanes_of(client)[0]["worker_waits_s"])
            assert until(lambda: lanes_of(client)[0]["worker_waits_s"] > first + 0.1)
            assert lanes_of(client)[0]["server_waits_s"] == 0
            producer.insert({"x": np.zeros(4, int)})
            producer.flush()
            thread.join(60)
            assert not thread.is_alive()
            # The same, by the worker's own count.
            waited = lanes_of(client)[0]["worker_waits_s"]
            assert loader.waited == pytest.approx(waited, abs=1e-6)


def test_when_it_was_on_disk(directory: Path, client: segue.Client, data: Path) -> None:
    begun = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open_train(client, data, lanes=1, epochs=None).loader() as loader:
        commit(loader, 5)
        loader.flush()
        (lane,) = lanes_of(client)
        first = lane["committed"]
        assert first >= begun and lane["checkpoint"] is None
        until(lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > first)
        commit(loader, 1)
        loader.flush()
        assert lanes_of(client)[0]["committed"] > first
        token = loader.state_dict()
        (lane,) = lanes_of(client)
        made = lane["checkpoint"]
        assert made >= begun
    idle = until(lambda: lanes_of(client)[0]["holder_pid"] is None and lanes_of(client)[0])
    assert idle["checkpoint"] == made and idle["committed"] >= begun
    # Who takes the lane finds it, and so does the next server.
    with open_train(client, data, lanes=1, epochs=None).loader(start="continue") as loader:
        commit(loader, 1)
        assert lanes_of(client)[0]["checkpoint"] == made
    client.close()
    until(lambda: run("status", directory).returncode == WRONG)
    with segue.open(directory) as client:
        loader = open_train(client, data, lanes=1, epochs=None).loader()
        assert lanes_of(client)[0]["checkpoint"] == made
        loader.load_state_dict(token)
        commit(loader, 1)
        assert lanes_of(client)[0]["checkpoint"] == made
        loader.close()
        # It goes with those that go: by hand, and where the lane begins anew.
        assert run("checkpoint", "rm", directory, "--all", "--stream", "train").returncode == FINE
        assert lanes_of(client)[0]["checkpoint"] is None
        with open_train(client, data, lanes=1, epochs=None).loader(start="continue") as loader:
            commit(loader, 1)
            loader.state_dict()
            assert lanes_of(client)[0]["checkpoint"]
        with open_train(client, data, lanes=1, epochs=None).loader(start="fresh") as loader:
            commit(loader, 1)
            assert lanes_of(client)[0]["checkpoint"] is None


# ---- JSON, and where there is no terminal ----


def test_json_a_second(directory: Path, client: segue.Client, data: Path) -> None:
    with open_train(client, data, epochs=None).loader(lanes=[1]) as loader:
        commit(loader, 8)
        thread = threading.Thread(target=commit, args=(loader, 20000), daemon=True)
        result = run("top", directory, "--json", "-n", "2")
        assert result.returncode == FINE and not result.stderr
        looks = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(looks) == 2
        for look in looks:
            assert look["server"]["pid"] and look["trouble"] is None
            idle, lane = look["lanes"]
            assert (idle["lane"], idle["pid"], idle["batches_per_s"]) == (0, None, None)
            assert (lane["lane"], lane["pid"], lane["step"]) == (1, os.getpid(), 8)
            assert (lane["batches_per_s"], lane["worker_waits"]) == (0, 0)
            assert lane["server_waits"] > 0.5 and lane["depth"] == 4
            assert lane["script"] in (Path(sys.argv[0]).name, "pytest", "python")
        del thread


def test_without_a_terminal_once(directory: Path, client: segue.Client, data: Path) -> None:
    with open_train(client, data, epochs=None).loader(lanes=[0]) as loader:
        commit(loader, 7)
        for options in ([], ["--once"], ["-n", "1"], ["--count", "1"]):
            result = run("top", directory, *options, stdin=subprocess.DEVNULL)
            assert result.returncode == FINE and not result.stderr
            title, header, first, second, *_ = result.stdout.splitlines()
            assert "\x1b" not in result.stdout
            assert title.startswith("segue top  ") and f"{directory.name}  pid " in title
            assert header.split()[:3] == ["LANE", "WORKER", "EPOCH"]
            assert first.split()[:2] == ["0", str(os.getpid())] and " 7 " in first
            assert "(nobody)" in second


def test_without_a_server_what_the_store_has(directory: Path, data: Path) -> None:
    assert "No such file" in fails(WRONG, "top", directory)
    with segue.open(directory) as client, open_train(client, data).loader() as loader:
        commit(loader, 6)
        loader.state_dict()
    until(lambda: run("status", directory).returncode == WRONG)
    result = run("top", directory)
    assert result.returncode == WRONG
    lines = result.stdout.splitlines()
    assert lines[1] == f"NO SERVER: no server runs for {directory}"
    assert [line.split()[:2] for line in lines[-2:]] == [["0", "3"], ["1", "3"]]
    look = json.loads(run("top", directory, "--json", "--once").stdout)
    assert look["server"] is None and [lane["step"] for lane in look["lanes"]] == [3, 3]


def test_a_server_that_is_stopped_is_named(directory: Path) -> None:
    with Server(directory) as server:
        server.process.send_signal(signal.SIGSTOP)
        try:
            result = run("top", directory, "--once")
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert result.returncode == WRONG
        assert f"NO SERVER: process {server.pid}, which serves {directory}" in result.stdout


def test_it_does_not_keep_an_embedded_server(directory: Path, data: Path) -> None:
    """And is no client for which one would stay."""
    with segue.open(directory) as client:
        open_train(client, data)
        top = subprocess.Popen(
            [program(), "top", str(directory), "--json"], stdout=subprocess.PIPE, env=environment()
        )
        assert top.stdout
        assert json.loads(top.stdout.readline())["server"]
    try:
        while json.loads(top.stdout.readline())["server"]:
            pass
    finally:
        top.kill()
        top.communicate()


def test_usage() -> None:
    for options in (["-n", "0"], ["-n"], ["--count", "x"], ["--stream", "train"]):
        fails(USAGE, "top", "x", *options)
    assert "goes with neither" in fails(USAGE, "status", "x", "--openmetrics", "--json")


# ---- The terminal ----


class Screen:
    """`segue top` in a terminal of its own."""

    def __init__(self, directory: Path, columns: int, rows: int, **more: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        environ = {name: value for name, value in environment(**more).items() if name != "NO_COLOR" or more}
        self.process = subprocess.Popen(
            [program(), "top", str(directory)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        self.slave = slave
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        self.rows = rows
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def frames(self) -> list[list[str]]:
        """The screens so far, but for the last, which may not be whole."""
        if select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 1 << 16).decode()
        frames = self.text.split("\x1b[H")[1:-1]
        assert all(frame.count("\n") < self.rows for frame in frames), "it has scrolled"
        return [re.sub(r"\x1b\[[KJ]", "", frame).splitlines() for frame in frames]

    def shows(self, text: str) -> list[str]:
        """Wait for a screen with the text; the ones before are forgotten."""

        def find() -> list[str] | None:
            for frame in self.frames():
                if any(text in line for line in frame):
                    return frame
            return None

        found = until(find)
        self.text = ""
        return list(found)

    def end(self) -> int:
        status = self.process.wait(30)
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 1 << 16).decode()
        return status

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *ignored: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def is_as_before(self) -> bool:
        return self.text.endswith(LEAVE) and termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def many(client: segue.Client, data: Path) -> Iterator[segue.Loader]:
    """40 lanes, of which lane 0 is at step 3."""
    stream = open_train(client, data, lanes=40, epochs=None, batch_size=1, depth=2)
    with stream.loader(lanes=[0]) as loader:
        commit(loader, 3)
        yield loader


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back(directory: Path, many: segue.Loader, how: Any) -> None:
    with Screen(directory, 80, 24) as screen:
        assert len(screen.shows("segue top")) == 24
        assert termios.tcgetattr(screen.slave) != screen.before
        if isinstance(how, str):
            screen.press(how)
        else:
            screen.process.send_signal(how)
        expected = 0 if how == "q" else -signal.SIGINT if how == "\x03" else -how
        assert screen.end() == expected
        assert screen.is_as_before(), screen.text[-200:]


def test_keys_and_sizes(directory: Path, many: segue.Loader) -> None:
    with Screen(directory, 80, 24, NO_COLOR="1") as screen:
        frame = screen.shows("+ 0 more above")
        assert len(frame) == 24 and max(map(len, frame)) <= 80
        assert re.match(r"   0 \d+ ", frame[2]) and "B/S" in frame[1]
        screen.press("\x1b[B")
        assert screen.shows("+ 1 more above")[2].startswith("   1 (nobody)")
        seen = sum(line[:4].strip().isdigit() for line in frame)
        screen.press("\x1b[6~")
        screen.shows(f"+ {seen} more above")
        screen.press("\x1b[F")
        frame = screen.shows(" 0 below")
        assert any(line.startswith("  39 ") for line in frame)
        screen.press("g")
        screen.shows("+ 0 more above")
        screen.resize(160, 60)  # room for all of them
        frame = screen.shows("BATCHES/S")
        assert len(frame) < 60 and any(line.startswith("  39 ") for line in frame)
        assert not any("more above" in line for line in frame)
        screen.press("q")
        assert screen.end() == FINE and screen.is_as_before()
        assert "\x1b[1m" not in screen.text and "\x1b[31m" not in screen.text


def test_colours(directory: Path, many: segue.Loader) -> None:
    for more, coloured in (({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)):
        with Screen(directory, 80, 24, **more) as screen:
            frame = screen.shows("segue top")
            assert any("\x1b[1m" in line for line in frame) == coloured
            screen.press("q")
            assert screen.end() == FINE


def test_stopped_and_gone_on_with(directory: Path, many: segue.Loader) -> None:
    """Ctrl-Z: the shell has its terminal, and 'fg' brings the screen back."""
    with Screen(directory, 80, 24) as screen:
        screen.shows("segue top")
        screen.press("\x1a")
        pid, status = os.waitpid(screen.process.pid, os.WUNTRACED)
        assert pid and os.WIFSTOPPED(status)
        screen.frames()
        assert LEAVE in screen.text
        assert termios.tcgetattr(screen.slave) == screen.before
        screen.text = ""
        screen.process.send_signal(signal.SIGCONT)
        screen.shows("segue top")
        screen.press("q")
        assert screen.end() == FINE and screen.is_as_before()


def test_what_goes_wrong_is_on_the_screen(directory: Path, data: Path) -> None:
    with Server(directory) as server, Screen(directory, 100, 30, NO_COLOR="1") as screen:
        screen.shows("no stream is open")
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, directory, data, Path(__file__).parent],
            stdout=subprocess.PIPE,
        )
        assert worker.stdout and worker.stdout.readline() == b"ready\n"
        screen.shows(f"   0 {worker.pid} ")
        worker.kill()
        worker.communicate()
        screen.shows(f"gone: {worker.pid} ")
        screen.shows(f"lane 0 of train has no worker: process {worker.pid} (")
        server.stop()
        screen.shows("NO SERVER: no server runs for")  # the path may go on in the next line
        frame = screen.shows("In the store")
        assert any(line.split()[:2] == ["0", "2"] for line in frame)
        screen.press("q")
        assert screen.end() == FINE


WORKER = """
import sys, time, segue
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_top import open_train, commit
with segue.open(sys.argv[1]) as client:
    loader = open_train(client, Path(sys.argv[2]), lanes=1).loader()
    commit(loader, 2)
    loader.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


# ---- OpenMetrics ----


def samples(text: str, directory: Path) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels; as both of Prometheus' formats.

    All have the directory: files of several stores lie side by side.
    """
    found = {}
    for family in openmetrics(text):
        for sample in family.samples:
            assert next(iter(sample.labels.items())) == ("dir", str(directory))
            key = (sample.name, *list(sample.labels.values())[1:])
            assert key not in found
            found[key] = sample.value
    older = [sample for family in prometheus_text(text) for sample in family.samples]
    assert {(one.name, *list(one.labels.values())[1:]): one.value for one in older} == found
    return found


def test_openmetrics(directory: Path, client: segue.Client, data: Path) -> None:
    stream = open_train(client, data, epochs=2, groups=1)
    with stream.loader(lanes=[1], group='a"b\\c') as loader:
        commit(loader, 5)
        loader.flush()
        loader.state_dict()
        result = run("status", directory, "--openmetrics")
        assert result.returncode == FINE and result.stdout.endswith("\n# EOF\n")
        found = samples(result.stdout, directory)
        status = client.status()
    assert found["segue_up",] == 1 and found["segue_storage_ok",] == 1
    assert found["segue_store_transactions_total",] > 0
    assert found["segue_cpu_seconds_total",] > 0 and found["segue_resident_bytes",] > 1e6
    lane = next(one for one in status["streams"][0]["lanes"] if one["holder_pid"])
    of = ("train", 'a"b\\c', "1")
    assert found["segue_lane_batches_total", *of] == 5
    assert found["segue_lane_durable_batches_total", *of] == 5
    assert found["segue_lane_held", *of] == 1 and found["segue_lane_epoch", *of] == 0
    assert found["segue_lane_sequences", *of] == RECORDS
    assert found["segue_lane_ring_depth_batches", *of] == lane["depth"]
    assert found["segue_lane_ring_bytes", *of] == lane["ring_bytes"]
    assert found["segue_lane_steps_total", *of] > found["segue_lane_padding_steps_total", *of] >= 0
    assert math.isfinite(found["segue_lane_worker_wait_seconds_total", *of])
    for name, date in (("commit", "committed"), ("checkpoint", "checkpoint")):
        when = datetime.strptime(lane[date], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert found[f"segue_lane_last_{name}_timestamp_seconds", *of] == when.timestamp()
    assert found["segue_lane_held", "train", "", "0"] == 0
    assert ("segue_lane_ring_bytes", "train", "", "0") not in found  # nobody has it: no ring


def test_openmetrics_of_private_lanes(directory: Path, client: segue.Client, data: Path) -> None:
    """Each loader has a lane 0: they are told apart."""
    stream = open_train(client, data, persist=False, lanes=1, epochs=None)
    with stream.loader() as one, stream.loader() as two:
        commit(one, 1)
        commit(two, 2)
        found = samples(run("status", directory, "--openmetrics").stdout, directory)
    steps = [value for key, value in found.items() if key[0] == "segue_lane_batches_total"]
    assert sorted(steps) == [1, 2]


def test_openmetrics_without_a_server(directory: Path, data: Path) -> None:
    with segue.open(directory) as client, open_train(client, data).loader() as loader:
        commit(loader, 2)
    until(lambda: run("status", directory).returncode == WRONG)
    result = run("status", directory, "--openmetrics")
    assert result.returncode == WRONG and "no server runs" in result.stderr
    assert samples(result.stdout, directory) == {("segue_up",): 0}

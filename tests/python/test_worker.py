"""What becomes of a worker's lanes and of its open batch, however the worker ends or misbehaves.

Most workers here are programs of their own. What is delivered after them must be what an
undisturbed run delivers: the open batch again, bit for bit, and all that follows.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import little
import segue

PATIENCE = 60.0
PROMPT = 5.0  # seconds that anything done at once may take on a machine under load

PROGRAM = """
import gc, os, signal, sys, threading, time
from pathlib import Path
import little, segue
directory = Path(sys.argv[1])
client = segue.open(directory / "store")
stream = little.open_stream(client, directory)
loader = stream.loader(lanes=[0], start=sys.argv[2])
def say(*words):
    print(*words, flush=True)
def commit(count):
    for _, batch in zip(range(count), loader):
        little.work(batch)
        batch.commit()
"""


class Program:
    """A worker program: `PROGRAM` and a body of its own."""

    def __init__(self, directory: Path, body: str, start: str = "fresh") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + body, str(directory), start],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.strip()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, float]:
        """Its exit code, what it printed as errors, and how long that took."""
        begun = time.monotonic()
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors, time.monotonic() - begun


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs, and ends what is left of them."""
    started: list[Program] = []

    def program(body: str, start: str = "fresh") -> Program:
        started.append(Program(tmp_path, body, start))
        return started[-1]

    yield program
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


@pytest.fixture
def whole(stream: segue.Stream, tmp_path: Path) -> list[str]:
    """Lane 0 without a disturbance, elsewhere."""
    with segue.open(tmp_path / "elsewhere") as other:
        with little.open_stream(other, tmp_path).loader(lanes=[0]) as loader:
            trace = little.rest(loader)
    assert len(trace) > 8
    return trace


def goes_on(stream: segue.Stream, whole: list[str], committed: int) -> None:
    """The lane is free now, and what follows `committed` batches is as it should be."""
    with stream.loader(lanes=[0], start="continue", timeout=PATIENCE) as loader:
        assert little.rest(loader) == whole[committed:]


def server_pid(client: segue.Client) -> int:
    return int(client.status()["server"]["pid"])


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still in the body."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# -- Ctrl-C and other ends -------------------------------------------------------------------------

IN_THE_BODY = """
commit(3)
for batch in loader:
    say(little.seen(batch))
    batch.state_out("h")[...] = 99  # half of a state: nobody may ever see it
    time.sleep(1000)
"""


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM),
                     (signal.SIGKILL, -signal.SIGKILL), (signal.SIGHUP, -signal.SIGHUP)],
)  # fmt: skip
def test_a_signal_in_the_loop_body(
    stream: segue.Stream, whole: list[str], start: Callable[..., Program], number: int, code: int
) -> None:
    """Python's own ending of Ctrl-C, the default of the others; the library handles no signal."""
    program = start(IN_THE_BODY)
    assert program.hear() == whole[3]
    program.signal(number)
    ended, errors, seconds = program.end()
    assert ended == code and seconds < PROMPT
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert "Traceback" not in errors or number == signal.SIGINT
    goes_on(stream, whole, 3)


IN_NEXT = """
commit(2)
last = -1
def watch():
    before = None
    while last < 0 or last != before:  # it has stood still for a while
        before = last
        time.sleep(0.3)
    say("waiting")
say("ready")
sys.stdin.readline()
threading.Thread(target=watch, daemon=True).start()
try:
    for batch in loader:
        little.work(batch)
        last = batch.step
except KeyboardInterrupt:
    del batch  # a batch that is held for ever stops its ring
    say("interrupted after", last)
    sys.stdin.readline()
    {ending}
"""


@pytest.mark.parametrize("ending", ["raise", "say(*little.rest(loader))", "os._exit(0)"])
def test_ctrl_c_in_next(
    client: segue.Client,
    stream: segue.Stream,
    whole: list[str],
    start: Callable[..., Program],
    ending: str,
) -> None:
    """While it waits, since the server stands still; the loader can be used after it."""
    program = start(IN_NEXT.format(ending=ending))
    assert program.hear() == "ready"
    assert program.process.stdin
    with stopped(server_pid(client)):
        program.process.stdin.write("\n")
        program.process.stdin.flush()
        assert program.hear() == "waiting"  # it has used up its ring
        begun = time.monotonic()
        program.signal(signal.SIGINT)
        words = program.hear().split()
        assert time.monotonic() - begun < PROMPT
    assert words[:2] == ["interrupted", "after"]
    last = int(words[2])
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    if "rest" in ending:
        assert program.hear().split() == whole[last + 1 :]
    ended, errors, _ = program.end()
    assert ended == (-signal.SIGINT if ending == "raise" else 0), errors
    if "rest" in ending:
        goes_on(stream, whole, len(whole))
    else:  # next() had committed all but the last batch, or that, too
        with stream.loader(lanes=[0], start="continue") as loader:
            trace = little.rest(loader)
        assert trace in (whole[last:], whole[last + 1 :])


ENDS = {
    "the program's end": "batch = next(iter(loader)); say(little.seen(batch))",
    "with an array": "array = next(iter(loader)).sequences['x']; say(seen := 'x')",
    "sys.exit in the body": "for batch in loader: say(little.seen(batch)); sys.exit(0)",
    "an exit handler": """
import atexit
batch = next(iter(loader))
atexit.register(lambda: say(little.seen(batch)))
""",
    "os._exit": "batch = next(iter(loader)); say(little.seen(batch)); os._exit(0)",
    "a cycle": """
batch = next(iter(loader))
say(little.seen(batch))
cycle = [batch, loader]
cycle.append(cycle)
""",
    "close in the body": """
for batch in loader:
    say(little.seen(batch))
    client.close()
    break
""",
    "a daemon thread that works": """
def run():
    while True:
        time.sleep(0.001)
        batch.sequences
batch = next(iter(loader))
threading.Thread(target=run, daemon=True).start()
say(little.seen(batch))
""",
}


@pytest.mark.parametrize("how", ENDS)
def test_the_end_of_the_interpreter(
    stream: segue.Stream, whole: list[str], start: Callable[..., Program], how: str
) -> None:
    """With an open batch: quietly, without a commit, and the lane is free."""
    program = start("commit(4)\n" + ENDS[how])
    assert program.hear() in (whole[4], "x")
    ended, errors, _ = program.end()
    assert ended == 0 and not errors
    goes_on(stream, whole, 4)


def test_the_end_of_the_interpreter_while_a_thread_waits(
    stream: segue.Stream, whole: list[str], start: Callable[..., Program]
) -> None:
    """A daemon thread is inside the client: the end does not wait for it, and is quiet."""
    program = start("""
commit(2)
batch = next(iter(loader))
little.work(batch)
batch.commit()
def run():
    loader.state_dict(all_lanes=True, timeout=None)  # lane 1 never gets there
threading.Thread(target=run, daemon=True).start()
time.sleep(0.5)
say(batch.committed)
""")
    assert program.hear() == "True"
    ended, errors, seconds = program.end()
    assert ended == 0 and not errors and seconds < PROMPT
    goes_on(stream, whole, 3)


# -- leaving a loop --------------------------------------------------------------------------------


class Wrong(Exception):
    pass


def fail_in_the_body(loader: segue.Loader, at: int, save: bool) -> None:
    for batch in loader:
        if batch.step == at and not save:
            raise Wrong
        little.work(batch)
        if batch.step == at:
            raise Wrong


@pytest.mark.parametrize("save", [False, True])
def test_an_exception_in_the_body(stream: segue.Stream, whole: list[str], save: bool) -> None:
    """With a context manager the lane is free behind it; the batch was not committed."""
    with pytest.raises(Wrong), stream.loader(lanes=[0]) as loader:
        fail_in_the_body(loader, 3, save)
    assert loader.closed
    goes_on(stream, whole, 3)


@pytest.mark.parametrize("what", ["client", "stream", "loader"])
def test_what_ended_a_block_is_not_hidden_by_closing(
    client: segue.Client, stream: segue.Stream, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    thing = {"client": client, "stream": stream, "loader": stream.loader()}[what]

    def close(self: Any, commit: bool) -> None:
        raise segue.GoneError("no server")

    with monkeypatch.context() as patch:
        patch.setattr(type(thing), "_close", close)
        with pytest.raises(Wrong), thing:
            raise Wrong
        with pytest.raises(segue.GoneError), thing:
            pass


@contextlib.contextmanager
def comes_again(step: int | None) -> Iterator[None]:
    """A warning says that this batch, which was saved, does not count; None: there is none."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    assert len(seen) == (step is not None)
    for one in seen:
        assert f"batch {step} of lane 0" in str(one.message) and "batch.commit()" in str(one.message)
        assert Path(one.filename).name == "test_worker.py" or Path(one.filename).name == "little.py"


@pytest.mark.parametrize("save", [False, True])
def test_an_exception_without_a_context_manager(
    stream: segue.Stream, whole: list[str], save: bool
) -> None:
    """The loader goes on with the batch itself, and says so if all of its states had been saved."""
    loader = stream.loader(lanes=[0])
    with pytest.raises(Wrong):
        fail_in_the_body(loader, 3, save)
    with pytest.raises(Wrong), comes_again(3 if save else None):  # and in a second loop
        fail_in_the_body(loader, 5, save)
    with comes_again(5 if save else None):
        assert little.rest(loader) == whole[5:]
    loader.close()


def test_another_process_cannot_have_the_lane_of_a_loader_that_failed(
    stream: segue.Stream, whole: list[str], start: Callable[..., Program]
) -> None:
    """Without a context manager the lane stays its own until the loader is closed or gone."""
    loader = stream.loader(lanes=[0])
    with pytest.raises(Wrong):
        fail_in_the_body(loader, 3, False)
    program = start("commit(1)", "continue")
    ended, errors, _ = program.end()
    assert ended == 1 and "BusyError" in errors and "lane 0" in errors
    del loader
    gc.collect()
    goes_on(stream, whole, 3)


@pytest.mark.parametrize("way", ["rounds", "batches"])
@pytest.mark.parametrize("hold", [False, True])
def test_a_round_that_is_left_half_way(
    client: segue.Client, stream: segue.Stream, tmp_path: Path, way: str, hold: bool
) -> None:
    """Nothing of it is committed, though the states of one lane had been saved."""
    with segue.open(tmp_path / "elsewhere") as other:
        with little.open_stream(other, tmp_path).loader() as loader:
            undisturbed = little.rest(loader)
    loader = stream.loader()
    held = []
    with pytest.raises(Wrong):
        for batches in loader.rounds():
            held = batches
            little.work(batches[0])
            if batches[0].step == 2:
                raise Wrong
            little.work(batches[1])
    del batches
    if not hold:
        del held
    trace = []
    for batches in loader.rounds() if way == "rounds" else map(lambda one: [one], loader):
        trace += [little.seen(batch) for batch in batches]
        for batch in batches:
            little.work(batch)
    assert trace == undisturbed[4:]
    loader.close()


@pytest.mark.parametrize("way", ["go on", "state_dict"])
def test_a_round_of_which_a_batch_is_released(stream: segue.Stream, way: str) -> None:
    """All of it comes again: the lanes stay at one step, of which the tokens are, too."""
    loader = stream.loader()
    rounds = loader.rounds()
    for batch in next(rounds):
        little.work(batch)
    batches = next(rounds)
    first = [little.seen(batch) for batch in batches]
    little.work(batches[0])
    batches[1].release()
    if way == "state_dict":
        tokens = loader.state_dict()
        loader.load_state_dict(tokens)
        rounds = loader.rounds()
    batches = next(rounds)
    assert [little.seen(batch) for batch in batches] == first
    loader.close()


def test_a_round_error_keeps_no_batches(stream: segue.Stream) -> None:
    """What it says is to be done can be done, though its traceback is kept."""
    loader = stream.loader()
    tokens = loader.state_dict()
    little.work(next(iter(loader)))
    assert loader.state_dict() != tokens
    with pytest.raises(segue.RoundError, match="load_state_dict takes them to one") as caught:
        next(loader.rounds())
    loader.load_state_dict(tokens)
    assert caught.tb
    assert len(next(loader.rounds())) == 2
    loader.close()


def worked(batch: segue.Batch) -> segue.Batch:
    little.work(batch)
    return batch


def test_a_lease_that_ran_out_is_no_obstacle(
    client: segue.Client, tmp_path: Path, whole: list[str]
) -> None:
    """The batch of before can no longer be committed; the lane itself is free, and goes on."""
    stream = little.open_stream(client, tmp_path, lease_timeout=0.3)
    loader = stream.loader(lanes=[0])
    for batch in loader:
        little.work(batch)
        if batch.step == 3:
            break
    deadline = time.monotonic() + PATIENCE
    while client.status()["streams"][0]["lanes"][0]["state"] != "free":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert little.rest(loader) == whole[3:]
    loader.close()


def test_a_lease_that_runs_out_between_epochs(client: segue.Client, tmp_path: Path) -> None:
    """While a lane waits for the next epoch, or for the others' end of this one, none is open."""
    little.write(tmp_path)
    options: dict[str, Any] = {"epoch_end": "drain", "epochs": 2, "batch_size": 1}
    with segue.open(tmp_path / "elsewhere") as other:
        with little.open_stream(other, tmp_path, **options).loader() as loader:
            undisturbed = [
                [little.seen(worked(batch)) for batch in epoch] for epoch in loader.epochs()
            ]
    loader = little.open_stream(client, tmp_path, lease_timeout=0.3, **options).loader()

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE
        while client.status()["streams"][0]["lanes"][1]["state"] != "free":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    for index, epoch in enumerate(loader.epochs()):
        wait()
        trace: list[str] = []
        for batch in epoch:
            trace.append(little.seen(worked(batch)))
            lanes = [seen[0] for seen in trace[-3:]]
            if index == 0 and lanes == ["1", "0", "0"]:  # lane 1 has had its epoch
                batch.commit()
                wait()
        assert trace == undisturbed[index]
    loader.close()


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("way", ["iterate", "state_dict", "close"])
def test_break(stream: segue.Stream, whole: list[str], save: bool, way: str) -> None:
    """Commits nothing; the next iterator, `state_dict` and `close` commit what was saved."""
    loader = stream.loader(lanes=[0])
    for batch in loader:
        if batch.step == 3 and not save:
            break
        little.work(batch)
        if batch.step == 3:
            break
    del batch
    if way == "iterate":
        with comes_again(None):
            assert little.rest(loader) == whole[3 + save :]
        loader.close()
        return
    if way == "state_dict":
        if save:
            loader.state_dict()
        else:
            with pytest.raises(segue.UnsavedError, match="h"):
                loader.state_dict()
    loader.close()
    goes_on(stream, whole, 3 + save)


def test_a_loop_over_lanes_that_have_ended_says_so(
    client: segue.Client, stream: segue.Stream, whole: list[str], tmp_path: Path
) -> None:
    """As in `for epoch in range(3): for batch in loader:`, which gives all in the first."""
    loader = stream.loader(lanes=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert little.rest(loader) == whole
    for begin in (lambda: loader, loader.rounds):
        with pytest.warns(UserWarning, match="'train' had ended before .lane 0 at step") as seen:
            assert list(begin()) == []
        assert [Path(one.filename).name for one in seen] == ["test_worker.py"]
        assert "`epochs`" in str(seen[0].message) and 'start="fresh"' in str(seen[0].message)
    loader.close()
    options = {"name": "drained", "epoch_end": "drain"}
    with little.open_stream(client, tmp_path, **options).loader() as loader:
        for _ in loader.epochs():
            little.rest(loader)
            break
        with pytest.warns(UserWarning):
            assert list(loader.epochs()) == []
    options = {"name": "other", "persist": False, "lanes": 20}
    with warnings.catch_warnings():  # each iteration begins anew
        warnings.simplefilter("error")
        with little.open_stream(client, tmp_path, **options).loader(lanes=[0]) as loader:
            assert little.rest(loader) == little.rest(loader) != []
    with little.open_stream(client, tmp_path, **options).loader(lanes=[19]) as loader:
        for _ in range(2):  # it never had a sequence
            with pytest.warns(UserWarning, match="'other' have no record"):
                assert little.rest(loader) == []


def test_an_iterator_left_to_garbage_collection(stream: segue.Stream, whole: list[str]) -> None:
    """Generators over a loader, too: nothing is committed by being forgotten."""

    def generator(loader: segue.Loader) -> Iterator[segue.Batch]:
        for batch in loader:
            yield batch
            little.work(batch)

    loader = stream.loader(lanes=[0])
    for begin in (iter, generator, generator):
        batches = begin(loader)
        assert little.seen(next(batches)) == whole[0]
        del batches
        gc.collect()
    batches = generator(loader)
    assert [little.seen(next(batches)) for _ in range(3)] == whole[:3]
    del batches, loader
    gc.collect()
    goes_on(stream, whole, 2)


def test_use_after_close(client: segue.Client, stream: segue.Stream, whole: list[str]) -> None:
    """What was closed says so; arrays that are alive stay readable."""
    loader = stream.loader(lanes=[0])
    batches = iter(loader)
    batch = next(batches)
    array = batch.sequences["x"]
    before = array.copy()
    loader.close()
    loader.close()
    uses: list[Callable[[], Any]] = [
        lambda: next(batches), lambda: iter(loader), loader.rounds, loader.state_dict,
        lambda: loader.load_state_dict({}),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(segue.ClosedError):
            use()
    with pytest.raises(segue.Error):
        little.work(batch)
        batch.commit()
    goes_on(stream, whole, 0)
    client.close()
    for use in (stream.loader(start="continue").state_dict, client.status, lambda: stream.records):
        with pytest.raises(segue.ClosedError):
            use()
    assert (array == before).all()


# -- threads ---------------------------------------------------------------------------------------


def in_threads(*bodies: Callable[[], None]) -> list[BaseException]:
    """Runs them at once; returns what they raised."""
    errors: list[BaseException] = []

    def run(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return errors


def test_two_threads_with_a_lane_each(stream: segue.Stream, whole: list[str]) -> None:
    traces: list[list[str]] = [[], []]

    def body(lane: int) -> None:
        with stream.loader(lanes=[lane]) as loader:
            traces[lane] = little.rest(loader)

    assert in_threads(lambda: body(0), lambda: body(1)) == []
    assert traces[0] == whole and len(traces[1]) > 5


def test_two_threads_with_one_iterator(stream: segue.Stream, whole: list[str]) -> None:
    """With a lock around batch and body all is in order."""
    loader = stream.loader(lanes=[0])
    batches, lock, trace = iter(loader), threading.Lock(), []

    def body() -> None:
        while True:
            with lock:
                batch = next(batches, None)
                if batch is None:
                    return
                trace.append(little.seen(batch))
                little.work(batch)
                del batch

    assert in_threads(body, body) == []
    assert trace == whole


def test_two_threads_with_one_iterator_and_no_lock(
    stream: segue.Stream, whole: list[str]
) -> None:
    """
    The second is told that the first's batch is not saved, is committed, or is being taken. No
    batch is passed over, and the lane goes on from the last commit.
    """
    loader = stream.loader(lanes=[0])
    batches = iter(loader)
    told = (segue.UnsavedError, segue.CommittedError, segue.HeldError, segue.BusyError)
    saved: set[str] = set()

    def body() -> None:
        for _ in range(200):
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                seen = little.seen(batch)
                little.work(batch)
                saved.add(seen)
                batch.commit()
            except told:
                pass

    assert in_threads(body, body) == []
    loader.close()
    del batches
    with stream.loader(lanes=[0], start="continue") as loader:
        trace = little.rest(loader)
    assert trace == whole[len(whole) - len(trace) :]
    assert saved | set(trace) == set(whole)


def test_two_loaders_for_one_lane(stream: segue.Stream, whole: list[str]) -> None:
    """In two threads: the second takes over, and the first says to whom it lost the lane."""
    loader = stream.loader(lanes=[0])
    batches = iter(loader)
    little.work(next(batches))
    batch = next(batches)
    newer = []

    def take_over() -> None:
        newer.append(stream.loader(lanes=[0], start="continue"))
        newer[0].state_dict()

    assert in_threads(take_over) == []
    for call in (lambda: next(batches), lambda: iter(loader), loader.state_dict, loader.flush):
        with pytest.raises(segue.FencedError, match="newer loader .*test_worker.py:"):
            call()
    with pytest.raises(segue.Error):
        little.work(batch)
        batch.commit()
    loader.close()
    assert little.rest(newer[0]) == whole[1:]
    newer[0].close()


# -- fork ------------------------------------------------------------------------------------------

FORKED = """
commit(3)
batch = next(iter(loader))
say(little.seen(batch))
{fork}
say(child)
time.sleep(1000)
"""
# os.fork runs the library's handler in the child: it closes the socket. A bare clone does not, as a
# program in another language may do; then the child holds the parent's socket open.
FORKS = {
    "os.fork": """
child = os.fork()
if child == 0:
    try:
        next(iter(loader))
    except segue.ForkedError as error:
        assert "open" in str(error)
        time.sleep(1000)
    os._exit(1)
""",
    "multiprocessing": """
import multiprocessing
def body():
    try:
        loader.state_dict()
    except segue.ForkedError:
        time.sleep(1000)
process = multiprocessing.get_context("fork").Process(target=body)
process.start()
child = process.pid
""",
    "clone": """
import ctypes, platform
clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
child = ctypes.CDLL(None).syscall(clone, int(signal.SIGCHLD), 0, 0, 0, 0)
if child == 0:
    time.sleep(1000)
""",
}


@pytest.mark.parametrize("how", FORKS)
def test_a_killed_parent_whose_child_lives(
    stream: segue.Stream, whole: list[str], start: Callable[..., Program], how: str
) -> None:
    """The lane is free at the parent's end, whatever of it the child holds."""
    if how == "clone" and platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip(f"the number of clone() is not known on {platform.machine()}")
    program = start(FORKED.replace("{fork}", FORKS[how]))
    assert program.hear() == whole[3]
    child = int(program.hear())
    time.sleep(0.2)
    assert not little.has_ended(child), "the child was not refused as it should be"
    begun = time.monotonic()
    program.signal(signal.SIGKILL)
    program.process.wait()
    try:
        with stream.loader(lanes=[0], start="continue", timeout=PATIENCE) as loader:
            batch = next(iter(loader))
            seconds = time.monotonic() - begun
            assert little.seen(batch) == whole[3]
            little.work(batch)
            batch.commit()
            del batch
            print(f"kill to next batch, {how}: {1000 * seconds:.1f} ms")
            assert seconds < PROMPT
            assert not little.has_ended(child)
            assert little.rest(loader) == whole[4:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_child_of_multiprocessing_opens_its_own(
    client: segue.Client, stream: segue.Stream, whole: list[str], tmp_path: Path
) -> None:
    """With a live loader in the parent: the child's own works, and neither disturbs the other."""
    context = multiprocessing.get_context("fork")
    loader = stream.loader(lanes=[0])
    batches = iter(loader)
    batch = next(batches)

    def body(end: Any) -> None:
        try:
            batch.state("h")
        except segue.ForkedError:
            with segue.open(tmp_path / "store") as own:
                with little.open_stream(own, tmp_path).loader(lanes=[1]) as other:
                    end.send(little.rest(other))

    ours, theirs = context.Pipe()
    process = context.Process(target=body, args=(theirs,))
    process.start()
    assert ours.poll(PATIENCE)
    assert len(ours.recv()) > 5
    process.join(PATIENCE)
    assert process.exitcode == 0
    trace = [little.seen(batch)]
    little.work(batch)
    del batch
    for batch in batches:
        trace.append(little.seen(batch))
        little.work(batch)
    assert trace == whole


def test_fetched_and_dropped_on_a_stream_without_states(
    client: segue.Client, tmp_path: Path
) -> None:
    """It comes again, as does the last one of a loop that was left."""
    little.write(tmp_path)
    stream = client.stream(
        "plain", segue.TFRecord(tmp_path / "data.tfrecord"), {"x": segue.Feature("float32")},
        num_unroll=2, batch_size=2,
    )  # fmt: skip
    with stream.loader() as loader:
        assert [batch.step for batch, _ in zip(loader, range(2))] == [0, 1]
        with comes_again(2):
            assert [batch.step for _, batch in zip(range(2), loader)] == [2, 3]
        with comes_again(3):
            assert [batch.step for batch in itertools.islice(loader, 2)] == [3, 4]
        with comes_again(4):
            assert next(iter(loader)).step == 4


# -- state_dict() beside the loop ------------------------------------------------------------------


def in_a_thread(call: Callable[[], Any]) -> Any:
    """What the call returns or raises in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        return future.exception() or future.result()


def test_state_dict_beside_the_loop(stream: segue.Stream, whole: list[str]) -> None:
    """Without an open batch it works, else it is refused; the loop does not notice either."""
    trace = []
    with stream.loader(lanes=[0]) as loader:
        for batch in loader:
            trace.append(little.seen(batch))
            for save in (False, True):
                if save:
                    little.work(batch)
                for call in (loader.state_dict, lambda: loader.load_state_dict({})):
                    error = in_a_thread(call)
                    assert type(error) is segue.BusyError
                    assert f"batch {batch.step} of lane 0 is open in another thread" in str(error)
            batch.commit()
            assert in_a_thread(loader.state_dict) == loader.state_dict()
            del batch
    assert trace == whole


def test_state_dict_while_the_loop_waits(client: segue.Client, tmp_path: Path) -> None:
    """A thread that looks again and again raises BusyError or has a state; the loop goes on."""
    little.write(tmp_path)
    stream = little.open_stream(client, tmp_path, epochs=30)
    seen: list[int] = []
    wrong: list[BaseException] = []
    over = threading.Event()

    with stream.loader() as loader:

        def look() -> None:
            while not over.is_set():
                try:
                    seen.append(len(loader.state_dict()))
                except segue.BusyError:
                    seen.append(0)
                except BaseException as error:
                    wrong.append(error)
                time.sleep(0.001)

        thread = threading.Thread(target=look)
        thread.start()
        count = 0
        for batch in loader:
            little.work(batch)
            batch.commit()
            count += 1
            time.sleep(0.001)
            del batch
        over.set()
        thread.join()
    assert not wrong and count > 400
    assert seen.count(2) > 0


def test_a_batch_whose_thread_has_ended(stream: segue.Stream) -> None:
    """It is whoever's comes next."""
    with stream.loader(lanes=[0]) as loader:
        thread = threading.Thread(target=lambda: little.work(next(iter(loader))))
        thread.start()
        thread.join()
        loader.state_dict()
        assert next(iter(loader)).step == 1


def test_a_fork_while_another_thread_waits(client: segue.Client, tmp_path: Path) -> None:
    """The child is told that the loader is the parent's, and does not wait for a thread."""
    little.write(tmp_path)
    loader = little.open_stream(client, tmp_path).loader(lanes=[0])
    iterator = iter(loader)
    with loader._turns:
        ended: list[int] = []

        def fork() -> None:
            pid = os.fork()
            if pid == 0:
                try:
                    next(iterator)
                except segue.ForkedError:
                    os._exit(7)
                os._exit(1)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(PATIENCE)
    assert ended == [7]

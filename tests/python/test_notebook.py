"""A person at a notebook, and in scripts: cells run again, loops left, kernels and servers gone.

Whatever is left over (`x`, `batch`, `Out[]`, a traceback) stops nobody. What is delivered is
compared with an undisturbed run: each batch, with the states that were committed for those before.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cells
import little
import segue
from kernel import HERE, PATIENCE, PROMPT, Kernel, Kernels, Said, environment
from loops import ALL_DONE, HOLD, LOADER, PID, bug, imports, loop, opening


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lane's batches, without a disturbance."""
    directory = tmp_path_factory.mktemp("undisturbed")
    little.write(directory)
    trace = []
    with segue.open(directory / "store") as client:
        stream = little.open_stream(client, directory, lanes=1, epochs=None)
        with stream.loader() as loader:
            for batch in islice(loader, 3000):
                trace.append(little.seen(batch))
                little.work(batch)
    return trace


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernels]:
    kernels = Kernels(tmp_path_factory.mktemp("kernels"))
    yield kernels
    kernels.spare.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a data set, whose store is to be in `store`."""
    little.write(tmp_path)
    return tmp_path


@pytest.fixture
def kernel(kernels: Kernels, place: Path) -> Iterator[Kernel]:
    kernel = kernels.take()
    try:
        kernel.run(imports(place)).fine()
        yield kernel
    finally:
        kernel.close()


@pytest.fixture
def begin(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script `NAME.py`, and ends what is left of it."""
    started: list[subprocess.Popen[str]] = []

    def script(body: str, name: str = "train", head: str = opening()) -> subprocess.Popen[str]:
        path = place / f"{name}.py"
        path.write_text(imports(place) + head + body)
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen([sys.executable, str(path)], env=environment(), text=True,
                             stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        )  # fmt: skip
        return started[-1]

    yield script
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def hear(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f"the script has ended without {word!r}")


@pytest.fixture
def script(begin: Callable[..., subprocess.Popen[str]]) -> Callable[..., Said]:
    """Runs a script to its end."""

    def run(body: str, **more: Any) -> Said:
        begun = time.monotonic()
        process = begin(body, **more)
        output, _ = process.communicate(timeout=PATIENCE)
        last = output.strip().splitlines()[-1:] if process.returncode else []
        kind, _, message = (last or [""])[0].partition(": ")
        error = kind.rpartition(".")[2] or str(process.returncode) if process.returncode else None
        return Said(output, error, message, 0, time.monotonic() - begun)

    return run


# -- the newest loader wins ------------------------------------------------------------------------

LEFTOVERS = {
    "an open batch": "batch = next(iter(loader))",
    "an iterator": "iterator = iter(loader); batch = next(iterator)",
    "an array": "x = next(iter(loader)).sequences['x']",
    "an array in Out": "next(iter(loader)).sequences['x']",
    "a batch in Out": "next(iter(loader))",
    "a traceback": bug("STEP"),
    "all of its arrays": """
batch = next(iter(loader))
kept = [batch.sequences["x"], batch.state("h"), batch.state_out("h"), batch.mask, batch.length]
""",
}


@pytest.mark.parametrize("what", LEFTOVERS)
def test_the_cell_that_makes_the_loader_again(kernel: Kernel, whole: list[str], what: str) -> None:
    """It goes on from the last commit, whatever the old loader's open batch left behind."""
    kernel.run(opening() + LOADER + loop(2, ALL_DONE)).fine()
    kernel.run(LEFTOVERS[what].replace("STEP", "3"))
    assert kernel.run(LOADER + loop(9, ALL_DONE)).fine().batches == whole[3:10]
    kernel.run(LEFTOVERS[what].replace("STEP", "10"))
    again = kernel.run(opening() + LOADER + loop(20)).fine()  # the cell that opens everything
    assert again.batches == whole[10:21]


def test_the_old_loader_says_in_which_cell_it_was_taken(kernel: Kernel, whole: list[str]) -> None:
    kernel.run(opening() + LOADER + loop(2))
    taken = kernel.run("old = loader\n" + LOADER + "batch = next(iter(loader))").fine()
    cell = rf"In ?\[{taken.number}\]"
    for call in ("next(iter(old))", "old.state_dict()", "for batch in old: pass"):
        kernel.run(call).failed("FencedError", cell)
    assert kernel.run(loop(3)).fine().batches == whole[2:4]


def test_the_old_loader_says_in_which_line_it_was_taken(script: Callable[..., Said]) -> None:
    """In a script."""
    taking = LOADER.strip() + "; next(iter(loader)); next(iter(old))"
    said = script(LOADER + loop(2) + "old = loader\n" + taking)
    text = (Path(re.findall(r'File "(.*train\.py)"', said.output)[0])).read_text().splitlines()
    said.failed("FencedError", rf"train\.py:{len(text)}\b")


def test_an_open_batch_of_the_old_loader_goes_nowhere(kernel: Kernel, whole: list[str]) -> None:
    kernel.run(opening() + LOADER + loop(2, ALL_DONE) + "old = next(iter(loader))").fine()
    assert kernel.run(LOADER + loop(3, ALL_DONE)).fine().batches == whole[3:4]
    kernel.run("little.work(old); old.commit()").failed("FencedError")
    assert kernel.run(loop(5)).fine().batches == whole[4:6]


def test_a_loader_without_start_is_an_error_and_takes_nothing(
    kernel: Kernel, whole: list[str]
) -> None:
    kernel.run(opening() + LOADER + loop(2, ALL_DONE) + "batch = next(iter(loader))").fine()
    again = kernel.run("other = stream.loader(); next(iter(other))")
    again.failed("StartError", r"\b3\b", 'start="continue"', "fresh", "load_state_dict")
    kernel.run("little.work(batch); batch.commit()").fine()
    assert kernel.run(loop(5)).fine().batches == whole[4:6]


def test_two_loaders_in_turn(kernel: Kernel, whole: list[str]) -> None:
    """The first has lost its lane for good; the second does not notice that it is asked."""
    kernel.run(opening() + LOADER + loop(2, ALL_DONE) + "old = loader\n" + LOADER).fine()
    kernel.run("new = iter(loader)").fine()
    for step in range(3, 9):
        cell = kernel.run("batch = next(new); print(little.seen(batch)); little.work(batch)")
        assert cell.fine().batches == [whole[step]]
        refused = kernel.run("next(iter(old))").failed("FencedError")
        assert refused.seconds < PROMPT


def test_a_loader_that_nobody_refers_to_gives_its_lane_back(
    kernel: Kernel, script: Callable[..., Said], whole: list[str]
) -> None:
    """To another process, at once, though arrays and a committed batch live."""
    kernel.run(opening() + LOADER + loop(2, ALL_DONE)).fine()
    kernel.run("kept = [x, batch.state('h'), batch.mask, batch]; copy = x.copy()").fine()
    kernel.run("del loader").fine()
    said = script(LOADER + loop(12)).fine()
    assert said.batches == whole[3:13]
    assert kernel.run("assert (kept[0] == copy).all(); client.close(); print(x, copy)").fine()


KEEP = """
kept = []
for batch in loader:
    kept.append(batch.sequences["x"])
    little.work(batch)
"""


def test_a_list_of_arrays_is_an_error_that_counts_them(kernel: Kernel, whole: list[str]) -> None:
    """The last resort; without the list the loop goes on where it was."""
    kernel.run(opening() + LOADER).fine()
    refused = kernel.run(KEEP)
    count = int(kernel.run("print(len(kept))").fine().output)
    refused.failed("HeldError", rf"\b{count}\b[^.]* batches", "(?i)copy", "depth")
    assert refused.seconds < PROMPT, refused
    kernel.run("kept.clear(); del batch").fine()
    assert kernel.run(loop(12)).fine().batches == whole[count:13]


# -- an error in the body, then the loop again -----------------------------------------------------

AGAIN = {"the loop": "", "a new loader": LOADER, "everything": opening() + LOADER}


@pytest.mark.parametrize("way", AGAIN)
def test_a_bug_in_the_body_then(kernel: Kernel, whole: list[str], way: str) -> None:
    """The same batch comes again; one that had been saved, with a warning."""
    kernel.run(opening() + LOADER + loop(2, ALL_DONE)).fine()
    kernel.run(bug(4)).failed("ZeroDivisionError")
    kernel.run(AGAIN[way] + bug(4)).failed("ZeroDivisionError")
    again = kernel.run(AGAIN[way] + bug(4, saved=True))
    assert again.batches == [whole[4]] and not again.warns, again
    again = kernel.run(AGAIN[way] + loop(14)).fine()
    assert again.batches == whole[4:15] and again.warns, again


# -- leaving a loop --------------------------------------------------------------------------------

LEFT = {  # how a batch is left that was saved and not committed
    "a break": loop(3),
    "an exception": f"try:{bug(3, saved=True)}".replace("\n", "\n    ")
    + "\nexcept ZeroDivisionError: pass\n",
}
NEXT = {  # what comes then
    "the loop": "",
    "a new loader": LOADER,
    "a load": "loader.load_state_dict(tokens)\n",
    "a new loader that loads": LOADER + "loader.load_state_dict(tokens)\n",
}


@pytest.mark.parametrize("then", NEXT)
@pytest.mark.parametrize("how", LEFT)
def test_nothing_is_committed_by(
    script: Callable[..., Said], whole: list[str], how: str, then: str
) -> None:
    """The batch comes again, bit for bit, with a warning that names batch.commit().

    But where the same loader's next loop goes on from a break: then it counts.
    """
    goes_on = (how, then) == ("a break", "the loop")
    said = script(
        LOADER + loop(2, ALL_DONE) + "tokens = loader.state_dict()\n"
        + LEFT[how] + NEXT[then] + "print('again')\n" + loop(5, ALL_DONE)
    ).fine()  # fmt: skip
    assert said.batches == (whole[:6] if goes_on else whole[:4] + whole[3:6]), said
    assert said.warns != goes_on, said


GOES_ON = {  # ways to leave a loop after three batches; the next goes on with the fourth
    "a break": loop(2),
    "a return": f"def train():{loop(2)}".replace("\n", "\n    ").replace("break", "return")
    + "\ntrain()\n",
    "islice": "import itertools\nfor batch in itertools.islice(loader, 3):\n"
    "    print(little.seen(batch))\n    little.work(batch)\n",
    "a caught error in the body": "for batch in loader:\n    print(little.seen(batch))\n"
    "    little.work(batch)\n    try: 1 / 0\n    except ZeroDivisionError: pass\n"
    "    if batch.step == 2: break\n",
    "a new iterator": "iterator = iter(loader)\nfor batch in iterator:\n"
    "    print(little.seen(batch))\n    little.work(batch)\n"
    "    if batch.step == 2: break\niterator = None\n",
}
COMES_AGAIN = {  # ways after which it begins with the third
    "an exception": LEFT["an exception"].replace("3", "2"),
    "an exception out of a function": f"def train():{bug(2, saved=True)}".replace("\n", "\n    ")
    + "\ntry: train()\nexcept ZeroDivisionError: pass\n",
    "an exception, and a traceback that goes": "def train():\n    it = iter(loader)\n"
    "    for batch in it:\n        print(little.seen(batch))\n        little.work(batch)\n"
    "        if batch.step == 2: 1 / 0\n"
    "try: train()\nexcept ZeroDivisionError: pass\n",
    "a generator": "def wrapped():\n    yield from loader\nfor batch in wrapped():\n"
    "    print(little.seen(batch))\n    little.work(batch)\n    if batch.step == 2: break\n",
}


@pytest.mark.parametrize("way", [*GOES_ON, *COMES_AGAIN])
def test_leaving_a_loop_by(script: Callable[..., Said], whole: list[str], way: str) -> None:
    again = way in COMES_AGAIN
    leave = COMES_AGAIN[way] if again else GOES_ON[way]
    said = script(LOADER + leave + loop(5, ALL_DONE)).fine()
    assert said.batches == (whole[:3] + whole[2:6] if again else whole[:6]), said
    assert said.warns == again, said


def test_a_round_goes_on_after_a_break(script: Callable[..., Said]) -> None:
    """All of its lanes, or none."""
    rounds = """
for batches in loader.rounds():
    for batch in batches:
        print(little.seen(batch))
        little.work(batch)
    if batch.step == {last}:
        {then}
"""
    said = script(
        LOADER
        + rounds.format(last=2, then="break")
        + rounds.format(last=3, then="loader.state_dict(); break"),
        head=opening(lanes=2),
    ).fine()
    assert len({*said.batches}) == len(said.batches) == 8 and not said.warns, said


COMMITS = {
    "commit()": LOADER + loop(3, ALL_DONE),
    "state_dict()": LOADER + loop(3) + "loader.state_dict()",
    "close()": LOADER + loop(3) + "loader.close()",
    "a with block": "with " + LOADER[9:-1] + " as loader:" + loop(3).replace("\n", "\n    "),
}


@pytest.mark.parametrize("way", COMMITS)
def test_a_batch_that_was_left_counts_by(
    script: Callable[..., Said], whole: list[str], way: str
) -> None:
    said = script(f"{COMMITS[way]}\n{LOADER}{loop(5, ALL_DONE)}").fine()
    assert said.batches == whole[:6] and not said.warns, said


@pytest.mark.parametrize("saved", [True, False])
def test_a_with_block_left_by_an_exception_commits_nothing(
    script: Callable[..., Said], whole: list[str], saved: bool
) -> None:
    block = "    with " + LOADER[9:-1] + " as loader:" + bug(3, saved).replace("\n", "\n        ")
    again = f"{LOADER}{loop(5, ALL_DONE)}"
    said = script(f"try:\n{block}\nexcept ZeroDivisionError: pass\n{again}").fine()
    assert said.batches == whole[:4] + whole[3:6] and said.warns == saved, said


def test_closing_with_an_unsaved_batch(script: Callable[..., Said], whole: list[str]) -> None:
    """It is given up: that is no error, and nothing to warn of."""
    said = script(f"""{LOADER}{loop(2, ALL_DONE)}
batch = next(iter(loader)); loader.close()
{LOADER}{loop(5, ALL_DONE)}""").fine()
    assert said.batches == whole[:6] and not said.warns, said


def all_lanes(other: int) -> str:
    """Lane 1 is left at step `other`, then lane 0 asks for all lanes at step 3."""
    first = LOADER.replace("start", "lanes=[1], start") + loop(other - 1, ALL_DONE)
    return (first if other else "") + "\nloader = batch = x = None\n" + f"""
{LOADER.replace("start", "lanes=[0], start")}{loop(2, ALL_DONE)}
print("asking")
print(sorted(loader.state_dict(all_lanes=True, timeout=10)))
"""


@pytest.mark.parametrize("other", [0, 2])
def test_tokens_of_all_lanes_when_nobody_has_one_that_is_behind(
    script: Callable[..., Said], other: int
) -> None:
    """It will not come there by itself: an error at once, which says what to do."""
    said = script(all_lanes(other), head=opening(lanes=2))
    assert said.error and said.seconds < PROMPT, said
    at = rf"step {other}\b" if other else "never begun|step 0"
    for word in (r"lane 1\b", at, r"step 3\b", "worker|rank|loader|start="):
        assert re.search(word, said.message), f"no {word!r} in: {said.message}"


def test_tokens_of_all_lanes_when_nobody_has_one_that_is_there(script: Callable[..., Said]) -> None:
    """Its token is the store's."""
    said = script(all_lanes(3), head=opening(lanes=2)).fine()
    assert "['lane/0', 'lane/1']" in said.output


# -- arrays ----------------------------------------------------------------------------------------


def test_arrays_show_the_same_bytes_whatever_comes(script: Callable[..., Said]) -> None:
    """Later deliveries, new loaders, tokens, closing, the end of a server."""
    said = script(
        LOADER + loop(2, ALL_DONE) + "tokens = loader.state_dict()"
        + """
import signal
batch = next(iter(loader))
arrays = [batch.sequences["x"], batch.state("h"), batch.mask, batch.length, batch.epoch]
copies = [array.copy() for array in arrays]
def same(what):
    for array, copy in zip(arrays, copies):
        assert array.tobytes() == copy.tobytes(), what
    print("same after", what)
del batch
try:"""
        + bug(3, saved=True).replace("\n", "\n    ")
        + "\nexcept ZeroDivisionError: same('a bug')"
        + loop(5, ALL_DONE) + "same('the loop again')\n"
        + LOADER + loop(20) + "same('a new loader')\n"
        + "loader.load_state_dict(tokens)\n" + loop(6) + "same('a load')\n"
        + """
os.kill(client.status()["server"]["pid"], signal.SIGKILL)
"""
        + loop(20) + "same('a killed server')\n"
        + LOADER + loop(30) + "loader.close(); same('a closed loader')\n"
        + LOADER + loop(40) + "del loader, batch, x; gc.collect(); same('a collected loader')\n"
        + "client.close(); gc.collect(); same('a closed client')\n"
        + "del client, stream; gc.collect(); same('all of it')\n"
    ).fine()  # fmt: skip
    assert said.output.count("same after") == 9, said


@pytest.mark.parametrize("again", ["save_state", "state_out"])
def test_state_out_of_a_first_delivery(
    script: Callable[..., Said], whole: list[str], again: str
) -> None:
    """It lives on: writing into it changes nothing of what the second delivery commits."""
    ways = ["batch.save_state('h', {})", "batch.state_out('h')[...] = {}"]
    saving = ways.pop(again == "state_out").format("after")
    other_way = ways[0].format("0 * after + 7")  # what it saves is replaced
    said = script(
        LOADER + loop(2, ALL_DONE)
        + f"""
def spoil(*arrays):
    for array in arrays:
        try: array[...] = 99
        except ValueError: pass  # read-only now
batch = next(iter(loader))
first = batch.state_out("h"); first[...] = 1
second = (batch := next(iter(loader))).state_out("h"); second[...] = 2
batch = next(iter(loader))
print(little.seen(batch))
after = 0.5 * batch.state("h") + batch.sequences["x"].sum(1)[:, None] + little.np.float32(3)
after = after.astype("float32")  # as little.work has it
{other_way}
{saving}
spoil(first, second)
assert (batch.state_out("h") == after).all(), "what was saved has changed"
batch.commit()
spoil(first, second)
"""
        + loop(5, ALL_DONE) + "del first, second\n" + loop(14)
    ).fine()  # fmt: skip
    assert said.batches == whole[:15], said


# -- threads ---------------------------------------------------------------------------------------

WORKER = """
def work(loader, trace, ended, enough):
    try:
        for batch in loader:
            line = little.seen(batch)
            little.work(batch)
            batch.commit()
            trace.append(line)
            if enough(len(trace)):
                break
    except segue.FencedError as error:
        ended.append(error)
"""


@pytest.mark.parametrize("clients", [1, 2])
def test_two_threads_with_lanes_of_their_own(script: Callable[..., Said], clients: int) -> None:
    said = script(
        WORKER + (opening(lanes=2) if clients == 2 else "").replace("client", "other")
        + """
loaders = [first.loader(lanes=[0], start="continue"), stream.loader(lanes=[1], start="continue")]
traces, ended = ([], []), []
threads = [threading.Thread(target=work, args=(loader, trace, ended, lambda n: n == 40))
           for loader, trace in zip(loaders, traces)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(ended, *traces[0], *traces[1], sep="\\n")
""",
        head=opening(lanes=2) + "first = stream\n",
    ).fine()  # fmt: skip
    steps = [tuple(map(int, line.split(".")[:2])) for line in said.batches]
    assert steps == [(lane, step) for lane in (0, 1) for step in range(40)], said
    assert "[]" in said.output


def test_two_threads_that_take_the_same_lane(script: Callable[..., Said], whole: list[str]) -> None:
    """One of them gets FencedError, the other goes on; a commit that races may not count."""
    said = script(WORKER + """
traces, ended = ([], []), ([], [])
both = threading.Barrier(2)
def run(me):
    loader = stream.loader(start="continue")
    after = []  # batches since the other has ended
    def enough(count):
        after.extend([count] * len(ended[1 - me]))
        return len(after) > 10
    both.wait()
    try:
        work(loader, traces[me], ended[me], enough)
    except segue.Error as error:
        ended[me].append(error)
threads = [threading.Thread(target=run, args=(me,)) for me in (0, 1)]
for thread in threads: thread.start()
for thread in threads: thread.join()
loser = 0 if ended[0] else 1
print(*traces[loser], ended, *traces[1 - loser], sep="\\n")
""").fine()
    first, ended, second = re.split(r"^(\(\[.*)$", said.output, flags=re.M)
    assert re.match(r"\(\[FencedError.*\], \[\]\)|\(\[\], \[FencedError.*\]\)", ended), said
    lost, went_on = first.split(), second.split()
    assert lost == whole[: len(lost)] and len(went_on) > 10
    begun = whole.index(went_on[0])
    assert begun in (len(lost), max(len(lost) - 1, 0))
    assert went_on == whole[begun : begun + len(went_on)]


def test_a_thread_that_iterates_while_a_cell_makes_a_new_loader(
    kernel: Kernel, whole: list[str]
) -> None:
    kernel.run(opening() + LOADER + WORKER).fine()
    kernel.run("""
trace, ended = [], []
slow = lambda count: time.sleep(0.05)
thread = threading.Thread(target=work, args=(loader, trace, ended, slow), daemon=True)
thread.start()
while len(trace) < 3: time.sleep(0.01)
""").fine()
    taken = kernel.run(LOADER + 'print(little.seen(next(iter(loader))))').fine()
    ended = kernel.run("thread.join(5); print(len(trace)); ended[0]").fine()
    assert "FencedError" in ended.output, ended
    count = int(ended.output.split()[0])
    assert whole.index(taken.batches[0]) in (count, count - 1)
    begun = whole.index(taken.batches[0])
    assert kernel.run(loop(begun + 9)).fine().batches == whole[begun : begun + 10]


# -- Ctrl-C, kernels that end ----------------------------------------------------------------------


@pytest.mark.parametrize("way", AGAIN)
def test_ctrl_c_in_the_body_then(kernel: Kernel, whole: list[str], way: str) -> None:
    kernel.run(opening() + LOADER + loop(2, ALL_DONE)).fine()
    kernel.begin(loop(3, "time.sleep(1000)"))
    kernel.hear(re.escape(whole[3]))
    kernel.interrupt()
    kernel.end().failed("KeyboardInterrupt")
    again = kernel.run(AGAIN[way] + loop(12)).fine()
    assert again.batches == whole[3:13] and again.warns, again


@pytest.mark.parametrize("way", AGAIN)
def test_ctrl_c_in_the_wait_for_a_batch_then(kernel: Kernel, whole: list[str], way: str) -> None:
    """The server stands still meanwhile."""
    pid = int(kernel.run(opening() + LOADER + loop(2, ALL_DONE) + PID).fine().output.split()[-1])
    os.kill(pid, signal.SIGSTOP)
    try:
        kernel.begin(loop(100))
        time.sleep(1)  # it uses up its ring, and waits
        kernel.interrupt()
        waited = kernel.end().failed("KeyboardInterrupt")
    finally:
        os.kill(pid, signal.SIGCONT)
    at = 3 + len(waited.batches)
    assert waited.batches == whole[3:at] and at < 20
    assert kernel.run(AGAIN[way] + loop(at + 9)).fine().batches == whole[at : at + 10]


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_the_kernel_goes_on_at_once_when_it_was(
    kernel: Kernel, kernels: Kernels, place: Path, whole: list[str], how: str
) -> None:
    """In the middle of the body: a process that is gone holds nothing."""
    kernel.run(opening() + LOADER + loop(2, ALL_DONE)).fine()
    kernel.begin(loop(3, "time.sleep(1000)"))
    kernel.hear(re.escape(whole[3]))
    if how == "restarted":
        kernel.interrupt()
        kernel.end()
        kernel.restart()
    else:
        kernel.kill()
        kernel.close()
        kernel = kernels.take()
    try:
        kernel.run(imports(place)).fine()
        assert kernel.run(opening() + LOADER + loop(12)).fine().batches == whole[3:13]
    finally:
        if how == "killed":
            kernel.close()


# -- the server dies between cells -----------------------------------------------------------------


@pytest.mark.parametrize("way", AGAIN)
@pytest.mark.parametrize("left", ["nothing", "an open batch", "a saved batch", "a traceback"])
def test_the_server_is_killed_then(kernel: Kernel, whole: list[str], left: str, way: str) -> None:
    """No commit is lost, though none was on disk: it goes on exactly."""
    leftover = {"nothing": "pass", "a saved batch": loop(4), "a traceback": bug(4)}
    again = {"everything": opening(interval=3600.0) + LOADER}.get(way, AGAIN[way])
    said = kernel.run(opening(interval=3600.0) + LOADER + loop(3, ALL_DONE) + PID).fine()
    kernel.run(leftover.get(left) or "batch = next(iter(loader)); x = batch.sequences['x']")
    pid = int(said.output.split()[-1])
    os.kill(pid, signal.SIGKILL)
    went_on = kernel.run(again + loop(14)).fine()
    goes_on = left == "a saved batch" and way == "the loop"
    assert went_on.batches == whole[5 if goes_on else 4 : 15], went_on
    assert went_on.warns == (left == "a saved batch" and not goes_on), went_on


# -- another process has the lane ------------------------------------------------------------------


def facts(pid: int) -> list[str]:
    """What is said of another holder."""
    return [rf"\b{pid}\b", "python|holder", r"end it|stop it|close|wait|rank"]


def test_a_wait_for_another_process_is_told_after_a_second(
    kernel: Kernel, begin: Callable[..., subprocess.Popen[str]], whole: list[str]
) -> None:
    """A line names the holder and what to do; when it has ended, the loop goes on."""
    holder = begin(HOLD, name="holder")
    hear(holder, "held")
    kernel.run(opening()).fine()
    kernel.begin(LOADER + loop(9))
    kernel.hear(rf"\b{holder.pid}\b", 8)
    time.sleep(0.2)  # the rest of the line
    holder.kill()
    holder.wait()
    said = kernel.end()
    assert said.error is None and said.batches == whole[:10], said
    for fact in facts(holder.pid):
        assert re.search(fact, said.output), f"no {fact} in {said.output}"
    assert said.output.count(str(holder.pid)) == 1  # one line


def test_with_timeout_0_a_held_lane_is_an_error_at_once(
    kernel: Kernel, begin: Callable[..., subprocess.Popen[str]]
) -> None:
    holder = begin(HOLD, name="holder")
    hear(holder, "held")
    kernel.run(opening()).fine()
    said = kernel.run('next(iter(stream.loader(start="continue", timeout=0)))')
    said.failed("BusyError", *facts(holder.pid))
    assert said.seconds < PROMPT, said


# -- JAX -------------------------------------------------------------------------------------------

JAX = Path(HERE) / "jax_loop.py"


@pytest.fixture(scope="module")
def jax_loops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `jax_loop.py` says of each loop."""
    pytest.importorskip("jax", reason="JAX is not installed (scripts/setup --ci)")
    times = os.environ.get("SEGUE_TEST_JAX") or "1"
    directory = tmp_path_factory.mktemp("jax")
    process = subprocess.run(
        [sys.executable, str(JAX), str(directory), times],
        env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    loops: dict[str, Any] = json.loads(process.stdout)
    return loops


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("how", ["jitted", "not jitted"])
@pytest.mark.parametrize("given", ["asarray", "device_put", "as it is"])
def test_the_plain_jax_loop(jax_loops: dict[str, Any], how: str, given: str, depth: int) -> None:
    """200 batches of 200, each time, and the states of a loop over copies.

    A batch that is waited for, since something holds it, takes 2 s.
    """
    for loop in jax_loops[f"{how}, {given}, depth {depth}"]:
        assert loop["batches"] == 200 and loop["right"] and loop["seconds"] < 4 * PROMPT, loop


# -- cells in every order --------------------------------------------------------------------------


def test_cells_in_every_order(kernel: Kernel, whole: list[str], place: Path) -> None:
    """SEGUE_TEST_NOTEBOOKS is how many notebooks, SEGUE_TEST_CASE the number of one."""
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_NOTEBOOKS") or 15)
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed}")
    for number in [int(only)] if only else range(count):
        print(f"SEGUE_TEST_CASE={number}")
        store = place / f"store{number}"
        rng = np.random.default_rng([seed, number])
        cells.Notebook(kernel, store, whole, rng).play(12)


# -- the whole wait for another process ------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def waiter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[subprocess.Popen[str]]]:
    """A holder of a lane and one that waits for it, beside all other tests."""
    directory = tmp_path_factory.mktemp("waiter")
    little.write(directory)
    head = imports(directory) + opening()
    timed = """
begun = time.monotonic()
try:
    next(iter(stream.loader(start="continue")))
except segue.BusyError as error:
    print("BusyError", time.monotonic() - begun, error)
"""
    pipe = subprocess.PIPE
    started = []
    for name, body in (("holder", HOLD), ("waiter", timed)):
        (directory / f"{name}.py").write_text(head + body)
        command = [sys.executable, str(directory / f"{name}.py")]
        started.append(
            subprocess.Popen(command, env=environment(), text=True, stdin=pipe, stdout=pipe,
                             stderr=subprocess.STDOUT)
        )  # fmt: skip
        if name == "holder":
            hear(started[0], "held")
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_after_10_seconds_a_held_lane_is_an_error(waiter: list[subprocess.Popen[str]]) -> None:
    holder, waiting = waiter
    output, _ = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0 and "BusyError" in output, output
    said = output[output.index("BusyError") :]
    assert 8 < float(said.split()[1]) < 15
    for fact in facts(holder.pid):
        assert re.search(fact, said), f"no {fact} in {said}"

"""What a person runs, as text: cells of a notebook or parts of a script, over the little stream."""

from __future__ import annotations

from pathlib import Path

IMPORTS = """
import gc, os, sys, threading, time, warnings
from pathlib import Path
import little, segue
warnings.simplefilter("always")
directory = Path({directory!r})
"""
OPEN = """
client = segue.open(directory / "store")
stream = little.open_stream(client, directory, lanes={lanes}, epochs=None, interval={interval})
"""
LOADER = 'loader = stream.loader(start="continue")\n'
LOOP = """
for batch in loader:
    x = batch.sequences["x"]
    print(little.seen(batch))
    little.work(batch)
    if batch.step == {last}:
        {then}
"""
BUG = """
def train(loader):
    for batch in loader:
        x = batch.sequences["x"]
        print(little.seen(batch))
        {saving}
        if batch.step == {last}:
            1 / 0
        little.work(batch)
train(loader)
"""
PID = "print('pid', client.status()['server']['pid'])"


def imports(directory: Path) -> str:
    """`directory` has the data set, and `store` below it is the store."""
    return IMPORTS.format(directory=str(directory))


def opening(lanes: int = 1, interval: float = 1.0) -> str:
    return OPEN.format(lanes=lanes, interval=interval)


def loop(last: int, then: str = "break") -> str:
    """The loop over `loader` that is left at step `last`, whose batch was saved."""
    return LOOP.format(last=last, then=then)


def bug(at: int | str, saved: bool = False) -> str:
    """The loop with an error in the body at step `at`, in a function."""
    return BUG.format(last=at, saving="little.work(batch)" if saved else "pass")


ALL_DONE = "batch.commit(); break"  # nothing is open behind the loop
# A holder of the lane, and what it does when it is told to.
HOLD = LOADER + "batch = next(iter(loader)); print('held', flush=True); sys.stdin.readline()\n"

"""Trains an LSTM on long sequences with segue, through the death of the server and of a worker.

Makes toy data as TFRecord files (values, and labels that flip when their running sum passes a
quarter of the sequence's length), one set of short sequences and one of long ones. Trains on each
by truncated backpropagation in several worker processes, one or more lanes each. Half-way it kills
the server with SIGKILL, later a worker. Then trains again without any kill, and checks that both
end with the same weights, bit for bit, and that every segment was trained on exactly once an epoch.

Exit status: 0 if all checks hold, 1 if one does not or training fails, 2 for wrong usage.
"""

# Nothing but the standard library: scripts/demo looks at the options before it sets up.
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

# Parts of the training after which something is killed. There is a pair every twentieth of it: a
# worker dies between two, so that going back is not for nothing.
KILLS = {
    "none": [],
    "server": [(0.5, "server")],
    "worker": [(0.78, "worker")],
    "all": [(0.5, "server"), (0.78, "worker")],
    "commits": [(0.63, "commits")],
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def at_least(least: int) -> Callable[[str], int]:
        def number(text: str) -> int:
            if int(text) < least:
                raise argparse.ArgumentTypeError(f"{text} is less than {least}")
            return int(text)

        return number

    add = parser.add_argument
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR",
        help="where data, stores, logs and results go (default: %(default)s); a new or empty "
             "directory, or one of an earlier demo, which is emptied")  # fmt: skip
    add("--workers", type=at_least(1), default=2, help="worker processes (default: 2)")
    add("--lanes", type=at_least(1), default=2, help="lanes of the stream (default: 2)")
    add("--rounds", type=at_least(1), default=None, metavar="N",
        help="stop after N rounds a data set (default: when all epochs are done)")  # fmt: skip
    add("--seed", type=at_least(0), default=1, help="of data, shuffling and weights (default: 1)")
    add("--set", choices=["short", "long", "both"], default="both", help="data sets to use")
    add("--quick", action="store_true",
        help="smaller data and few epochs: not enough to learn much")  # fmt: skip
    add("--kill", choices=list(KILLS), default="all",
        help="what to kill: the server half-way, a worker later, both (all, the default), or "
             "everything between two lanes' commits (commits)")  # fmt: skip
    add("--once", action="store_true", help="leave out the unkilled training to compare with")
    options = parser.parse_args(arguments)
    if options.workers > options.lanes:
        parser.error(f"{options.workers} workers need at least as many lanes, not {options.lanes}")
    if options.kill == "commits" and options.lanes < 2:
        parser.error("--kill commits needs two lanes")
    options.out = options.out.absolute()
    return options


if __name__ == "__main__":
    parse()

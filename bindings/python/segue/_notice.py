"""What the package says by itself: warnings at the user's line, where that line is, progress."""

from __future__ import annotations

import sys
import time
import warnings
from types import FrameType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def _user_frame() -> tuple[FrameType | None, int]:
    """Return the innermost frame outside this package, and how many are inside."""
    frame: FrameType | None = sys._getframe(1)
    depth = 0
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
        depth += 1
    return frame, depth


def _cell(filename: str) -> str | None:
    """Return "Cell In[5]" for the file that IPython makes of a cell."""
    ipython: Any = sys.modules.get("IPython")
    try:
        label, name = ipython.get_ipython().compile.format_code_name(filename)
    except (AttributeError, TypeError):  # not in a notebook, or in one of another kind
        return None
    return f"{label} {name}"


def where() -> str:
    """Return where the user's code is that called: a file or a notebook's cell, and its line."""
    frame = _user_frame()[0]
    if frame is None:
        return "an unknown place"
    filename = frame.f_code.co_filename
    cell = _cell(filename)
    return f"{cell}, line {frame.f_lineno}" if cell else f"{filename}:{frame.f_lineno}"


def warn(text: str) -> None:
    """Warn at the user's line."""
    warnings.warn(text, stacklevel=_user_frame()[1] + 1)


def warn_put_back(step: int, lane: int) -> None:
    """Say that what was done of a batch does not count. Also called when a batch is collected."""
    warn(
        f"batch {step} of lane {lane} was left without a commit: what was saved of it does not "
        "count, and it comes again. A batch counts when the loop goes on to the next one; before "
        "leaving a loop, call batch.commit()"
    )


class Line:
    """Progress as one line on a terminal, shown when something takes more than a second."""

    def __init__(self) -> None:
        self._what = ""
        self._begun = self._shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._begun, self._shown = what, now, 0.0
        last = done >= total
        if now - self._begun < 1 or (now - self._shown < 0.1 and not last):
            return
        self._shown = now
        share = f" {100 * done // total:3d} %" if total else ""
        end = "\n" if last else ""
        print(f"\rsegue: {what}: {done} of {total}{share}", end=end, file=sys.stderr, flush=True)

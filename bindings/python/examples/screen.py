"""What the demo shows while it trains: a progress line a worker, and news above them."""

from __future__ import annotations

import shutil
import sys
import time

BAR = 10  # characters of a full bar


def bar(part: float) -> str:
    """A bar that is `part` (0 to 1) full."""
    full = int(BAR * min(1.0, max(0.0, part)))
    return "█" * full + "░" * (BAR - full)


class Screen:
    """Progress lines that are rewritten in place.

    Where the output is no terminal they are printed as they stand every ten seconds instead, so
    that a log stays short.
    """

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.pause = 0.1 if self.live else 10.0
        self.lines: dict[int, str] = {}
        self.drawn = 0  # lines on the terminal that the next drawing goes over
        self.last = time.monotonic()

    def progress(self, rank: int, text: str) -> None:
        """Worker `rank`'s line from now on."""
        self.lines[rank] = text
        if time.monotonic() - self.last >= self.pause:
            self._draw()

    def news(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(f"    {text}", flush=True)
        if self.live:
            self._draw()

    def done(self) -> None:
        """The lines stay as they are; what is printed next comes below."""
        self._draw()
        self.lines, self.drawn = {}, 0

    def _erase(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="")
            self.drawn = 0

    def _draw(self) -> None:
        self._erase()
        self.last = time.monotonic()
        width = shutil.get_terminal_size().columns - 1 if self.live else None
        for _, line in sorted(self.lines.items()):
            print(f"    {line}"[:width], flush=True)
        self.drawn = len(self.lines) if self.live else 0

"""The server program that the wheel carries, and the console script that runs it."""

from __future__ import annotations

import os
import sys


def bundled() -> str | None:
    """Return the path of the program in this package, or None if there is none."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "segue")
    return path if os.access(path, os.X_OK) else None


def main() -> None:
    """Become the server program: ``$SEGUE_PROGRAM`` or the one in this package.

    ``segue convert`` is Python, and this is the Python that has the package.
    """
    if sys.argv[1:2] == ["convert"]:
        from .__main__ import main as run

        sys.exit(run())
    program = os.environ.get("SEGUE_PROGRAM") or bundled()
    if program is None:
        sys.exit(
            "segue: this package was installed without the server program; set SEGUE_PROGRAM to it"
        )
    try:
        os.execv(program, ["segue", *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"segue: {program}: {error.strerror}")

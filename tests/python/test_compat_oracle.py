"""The scenarios of which TensorFlow's own function gave the results (``check_compat.py``).

They lie beside the checkout, in ``../shared/oracle``, or where ``$SEGUE_TEST_SHARED`` says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SEGUE_TEST_SHARED", Path(__file__).parents[2].parent / "shared"))
ORACLE = SHARED / "oracle"
CHECK = ORACLE / "check_compat.py"


def check(*arguments: str) -> None:
    command = [sys.executable, "-W", "ignore", str(CHECK), *arguments, str(ORACLE)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, timeout=600)
    print(done.stdout)  # pytest -rP shows it
    assert done.returncode == 0, done.stdout
    assert " 0 scenarios" not in done.stdout, done.stdout


@pytest.mark.skipif(
    not CHECK.exists(), reason=f"no scenarios: {CHECK} is not there ($SEGUE_TEST_SHARED)"
)
@pytest.mark.parametrize("strict", [(), ("--strict",)], ids=["free", "strict"])
def test_all_scenarios_are_equal(strict: tuple[str, ...]) -> None:
    check(*strict)

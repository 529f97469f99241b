"""Installs a wheel and runs README's first program, in the bare root directory that scripts/wheel_try has made."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from glob import glob

def run(*command: str) -> str:
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


for name in ("sh", "cc", "gcc", "clang", "pkg-config"):
    assert shutil.which(name, path="/bin:/usr/bin:/usr/local/bin") is None, name
os.environ |= {"HOME": "/tmp", "PIP_NO_INDEX": "1", "PIP_ROOT_USER_ACTION": "ignore"}
os.chdir("/tmp")

begun = time.monotonic()
[pip] = glob("/wheels/pip-*.whl")
run(sys.executable, f"{pip}/pip", "install", "--find-links", "/wheels", f"/wheels/{sys.argv[1]}")
installed = time.monotonic() - begun

program = subprocess.Popen([sys.executable, "-u", "/try/first.py"], stdout=subprocess.PIPE, text=True)
first = program.stdout.readline()
seconds = time.monotonic() - begun
lines = [first, *program.stdout]
# The sums of sequences of 50, 80 and 30 ones, once each is through.
if program.wait() or not all(any(f" {end}." in f" {line}".replace("[", " ") for line in lines) for end in (50, 80, 30)):
    sys.exit(f"first.py: exit status {program.returncode}\n{''.join(lines)}")

segue = shutil.which("segue", path=os.pathsep.join([sysconfig.get_path("scripts"), "/usr/local/bin"]))
assert segue, "there is no command segue"
found = run(segue, "doctor", "runs/first")
with open("/proc/cpuinfo") as file:
    assert "in software" not in found or " sse4_2 " not in file.read(), found  # what the compiler must have found out
[lmdb] = set(re.findall(r"LMDB [0-9.]+", found))
print(
    f"try: Python {sys.version.split()[0]}: pip install {installed:.1f} s, first batch {seconds:.1f} s after it began; "
    f"{run(segue, '--version').strip()}, {lmdb}; segue doctor finds nothing bad"
)

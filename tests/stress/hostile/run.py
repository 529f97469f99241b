#!/usr/bin/env python3
"""Attacks on a server, one by one and all together, beside a worker that must not notice them.

    run.py [--long] [--only NAME,...] [--seconds S] [--seed N] HOSTILE_PROGRAM

Starts the server ($SEGUE_PROGRAM, in CI with sanitizers) and a canary, a worker that fetches and commits
known batches. After each attack: the same server answers, no sanitizer has reported, the canary's batches,
rows and states are those of a quiet run, its waits and the server's answers were as quick as when quiet,
and within 5 s fds, memory and leases are back where they were.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Attacks that last as long as a deadline of the server does: alone in the long form, else only together.
PATIENT = {"slow"}
# Attacks that take all that one user may have: beside them the others are refused.
GREEDY = {"flood", "keeper", "deaf"}
FDS = 1024  # limit of the server: floods must be able to reach it
# All attacks are one user's: together they meet the limits that a user has.
LIMITED = ("the limit is", "Too many open files", "no file descriptors left")
PACE_US = 1000
BACK_WITHIN_S = 5.0
MEMORY_SLACK = 1 << 20
# A sanitizer keeps what is freed, some of it for good. It has a leak checker of its own.
MEMORY_SLACK_SANITIZED = float("inf")
# Threads and heaps that many streams, or many groups, have needed are kept for the next: bounded, and no more.
MEMORY_SLACK_TOGETHER = 64 << 20
# Machines are shared: a wait below this proves nothing; with few waits, their p99 is a single one.
FLOOR_S = 0.050
FLOOR_OF_FEW_S = 1.0
FEW = 1000
TRIES = 3  # of an attack under which the canary waits for too long: each time is no accident
SANITIZED = 4  # times as long


class Failure(Exception):
    pass


def p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100] if values else 0.0


class Server:
    def __init__(self, program: str, root: Path) -> None:
        self.program, self.dir, self.log, self.reports = (
            program, root / "store", root / "server.log", root / "reports")
        self.reports.mkdir()
        log_path = self.reports / "sanitizer"
        self.environment = dict(
            os.environ,
            SEGUE_PROGRAM=program,
            ASAN_OPTIONS=f"detect_leaks=1:halt_on_error=1:use_sigaltstack=0:quarantine_size_mb=16:log_path={log_path}",
            UBSAN_OPTIONS=f"halt_on_error=1:print_stacktrace=1:log_path={log_path}",
        )
        self.sanitized = b"__asan_init" in Path(program).read_bytes()
        self.process = subprocess.Popen(
            [program, "serve", str(self.dir)],
            stdout=subprocess.PIPE, stderr=self.log.open("w"), env=self.environment,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FDS, FDS)))
        assert self.process.stdout
        if not self.process.stdout.readline():
            raise Failure(f"the server does not start: {self.log.read_text()}")

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """What is the server's own: the store's file in memory is not."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().split("\n")
        fields = dict(line.split(":", 1) for line in status if ":" in line)
        return 1024 * sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self) -> dict:
        said = subprocess.run(
            [self.program, "status", str(self.dir), "--json"],
            capture_output=True, text=True, timeout=30, env=self.environment)
        if said.returncode:
            raise Failure(f"status: {said.stderr.strip()}")
        return json.loads(said.stdout)

    def leases(self) -> int:
        return sum(lane["state"] != "free"
                   for stream in self.status()["streams"] for lane in stream.get("lanes", []))

    def check(self) -> None:
        found = [path for path in self.reports.iterdir() if path.stat().st_size]
        if found:
            raise Failure(f"a sanitizer reports:\n{found[0].read_text()[:8000]}")
        if self.process.poll() is not None:
            raise Failure(f"the server has ended with {self.process.returncode}: {self.log.read_text()[-4000:]}")

    def stop(self) -> None:
        self.process.terminate()
        if self.process.wait(30):
            raise Failure(f"the server ends with {self.process.returncode}: {self.log.read_text()[-4000:]}")
        self.check_reports()

    def check_reports(self) -> None:
        for path in self.reports.iterdir():
            if path.stat().st_size:
                raise Failure(f"a sanitizer reports:\n{path.read_text()[:8000]}")


class Canary:
    """Lines of what it has seen, read as they come: (seconds, step, hash, seconds of next) or answers."""

    def __init__(self, hostile: str, server: Server, data: Path, out: Path, pace_us: int, steps: int) -> None:
        self.out = out
        self.errors = out.with_suffix(".err").open("w+")
        self.process = subprocess.Popen(
            [hostile, "canary", str(server.dir), str(data), str(out), str(pace_us), str(steps)],
            stderr=self.errors, env=server.environment)
        self.hashes: list[str] = []
        self.waits: list[tuple[float, float]] = []
        self.answers: list[tuple[float, float]] = []
        self.refused: list[str] = []
        self.read = 0

    def look(self) -> None:
        if not self.out.exists():
            return
        with self.out.open() as lines:
            lines.seek(self.read)
            text = lines.read()
        whole = text.rfind("\n") + 1
        self.read += whole
        for line in text[:whole].splitlines():
            when, step, value, ns = line.split()
            if step == "ask":
                self.answers.append((int(when) / 1e9, int(ns) / 1e9))
                if value != "ok":
                    self.refused.append(value)
                continue
            if int(step) != len(self.hashes):
                raise Failure(f"canary: batch {step} came after {len(self.hashes) - 1}")
            self.hashes.append(value)
            self.waits.append((int(when) / 1e9, int(ns) / 1e9))

    def check(self) -> None:
        if self.process.poll() is not None:
            self.errors.seek(0)
            raise Failure(f"the canary has died: {self.errors.read()}")

    def since(self, start: float) -> tuple[int, float, float]:
        self.look()
        waits = [wait for when, wait in self.waits if when >= start]
        return len(waits), p99(waits), p99([wait for when, wait in self.answers if when >= start])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(30):
            self.errors.seek(0)
            raise Failure(f"the canary fails: {self.errors.read()}")
        self.look()


class Run:
    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.options, self.root = options, root
        self.hostile = options.hostile
        self.data = root / "data.tfrecord"
        subprocess.run([self.hostile, "data", str(self.data)], check=True)
        self.server = Server(options.program, root)
        self.failed: list[str] = []
        self.number = 0

    def begin(self) -> None:
        self.canary = Canary(self.hostile, self.server, self.data, self.root / "canary", PACE_US, 0)
        # Before memory is compared: what many streams, or many workers that die, need at once is kept for the
        # next. (Of 40 such runs the first leaves 0.7 MiB, the second 0.2, those behind it nothing.)
        for name in ("keeper", "commit_store"):
            self.start(name, 0.1)[1].communicate()
        time.sleep(1.0)
        self.canary.look()
        self.canary.refused.clear()
        started = time.monotonic()
        time.sleep(1.5 if not self.options.long else 5.0)
        count, self.quiet, self.quiet_answer = self.canary.since(started)
        self.canary.check()
        if count < 20:
            raise Failure(f"the canary has made {count} batches when all is quiet")
        slower = SANITIZED if self.server.sanitized else 1
        self.limit = max(2 * self.quiet, FLOOR_S * slower)
        self.few_limit = max(2 * self.quiet_answer, FLOOR_OF_FEW_S * slower)
        self.fds = self.least_fds()
        print(f"quiet: p99 of next {self.quiet * 1e6:.0f} us, of an answer {self.quiet_answer * 1e6:.0f} us; "
              f"{self.fds} fds, {self.server.memory() >> 10} KiB", flush=True)

    def least_fds(self) -> int:
        """Between two questions of the canary, each of which has two until it is answered."""
        seen = []
        for _ in range(20):
            seen.append(self.server.fds())
            time.sleep(0.01)
        return min(seen)

    def start(self, name: str, seconds: float, crowded: bool = False) -> tuple[str, subprocess.Popen]:
        self.number += 1
        scratch = self.root / f"{self.number}-{name}"
        scratch.mkdir()
        arguments = [self.hostile, name, str(self.server.dir), str(self.data), str(scratch), str(seconds),
                     str(self.options.seed + self.number)] + ["thorough"] * self.options.long + ["crowded"] * crowded
        return name, subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.server.environment)

    def attack(self, names: list[str], seconds: float) -> None:
        """Some attacks at the same time, and what must hold during and after them."""
        what = names[0] if len(names) == 1 else f"all together ({len(names)})"
        for left in reversed(range(TRIES)):
            late = self.attack_once(what, names, seconds)
            if not late:
                return
            if left:
                print(f"{what}: {late}; once more", flush=True)
            else:
                self.fail(what, f"{late}; {TRIES} times")

    def attack_once(self, what: str, names: list[str], seconds: float) -> str:
        """Returns what the canary waited for too long, which the machine may be to blame for."""
        memory = self.server.memory()
        started, cpu = time.monotonic(), self.server.cpu()
        lines = []
        for name, process in [self.start(name, seconds, len(names) > 1) for name in names]:
            try:
                said, _ = process.communicate(timeout=150)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                self.fail(name, f"is not over after 150 s: {said}")
                continue
            limited = len(names) > 1 and any(text in said for text in LIMITED)
            if process.returncode not in (0, 77) and not limited:
                self.fail(name, said.strip() or f"ends with status {process.returncode}")
            lines += [f"    {name}: {line}" for line in said.strip().splitlines()]
        took, cpu = time.monotonic() - started, self.server.cpu() - cpu
        self.server.check()
        self.canary.check()
        count, wait, answer = self.canary.since(started)
        back = self.await_baseline(what, memory)
        print(f"{what}: {took:.1f} s, server {cpu:.1f} s; canary {count} batches, p99 of next {wait * 1e6:.0f} us, "
              f"of an answer {answer * 1e6:.0f} us; {back}", flush=True)
        if len(names) == 1 or what in self.failed:
            print("\n".join(lines), flush=True)
        if self.canary.refused:
            self.fail(what, f"the canary's questions were refused {len(self.canary.refused)} times: "
                      f"{self.canary.refused[0]}")
            self.canary.refused.clear()
        if count < took * 20:
            self.fail(what, f"the canary made {count} batches in {took:.1f} s")
        limit = self.limit if count >= FEW else self.few_limit
        if wait > limit:
            return f"p99 of next is {wait * 1e3:.1f} ms, the limit {limit * 1e3:.1f} ms"
        if answer > self.few_limit:
            return f"p99 of an answer is {answer * 1e3:.1f} ms, the limit {self.few_limit * 1e3:.1f} ms"
        return ""

    def await_baseline(self, what: str, memory: int) -> str:
        many = what.startswith("all together") or what == "groups"
        slack = MEMORY_SLACK_TOGETHER if many else MEMORY_SLACK
        if self.server.sanitized:
            slack = MEMORY_SLACK_SANITIZED
        started = time.monotonic()
        while True:
            now_fds, now_memory = self.server.fds(), self.server.memory()
            # Our own question has two, until it is over.
            if now_fds == self.fds and now_memory <= memory + slack:
                leases = self.server.leases()
                if leases == 1:
                    break
            else:
                leases = -1
            if time.monotonic() - started > BACK_WITHIN_S:
                self.fail(what, f"after {BACK_WITHIN_S:.0f} s: {now_fds} fds (before {self.fds}), "
                          f"{(now_memory - memory) >> 10} KiB more, {leases} leases")
                break
            time.sleep(0.05)
        return f"back after {time.monotonic() - started:.1f} s ({(now_memory - memory) >> 10:+d} KiB)"

    def fail(self, what: str, why: str) -> None:
        self.failed.append(what)
        print(f"FAIL {what}: {why}", flush=True)

    def end(self) -> None:
        """The canary's batches are those of a quiet run, in a store of its own."""
        self.canary.stop()
        seen = self.canary.hashes
        self.server.stop()
        shutil.rmtree(self.server.dir)
        quiet_root = self.root / "quiet"
        quiet_root.mkdir()
        server = Server(self.options.program, quiet_root)
        quiet = Canary(self.hostile, server, self.data, quiet_root / "canary", 0, len(seen))
        if quiet.process.wait(300):
            raise Failure("the quiet run fails")
        quiet.look()
        server.stop()
        differ = [step for step, pair in enumerate(zip(seen, quiet.hashes, strict=True)) if pair[0] != pair[1]]
        if differ:
            self.fail("canary", f"batch {differ[0]} (and {len(differ) - 1} more) is not that of a quiet run")
        print(f"canary: {len(seen)} batches, rows and states as in a quiet run", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostile", help="the program with the attacks")
    parser.add_argument("--long", action="store_true", help="longer, and with what takes longer")
    parser.add_argument("--only", help="these attacks, separated by commas")
    parser.add_argument("--seconds", type=float, help="of each attack (0.3; long: 2.5)")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEGUE_TEST_SEED", time.time_ns() % 10**9)))
    options = parser.parse_args()
    options.program = os.environ["SEGUE_PROGRAM"]
    seconds = options.seconds or (2.5 if options.long else 0.3)
    listed = subprocess.run([options.hostile, "list"], capture_output=True, text=True, check=True).stdout
    every = [line.split()[0] for line in listed.splitlines()]
    # Those of another group's worker on one ring, which the group without a name goes through beside it.
    names, beside = [[name for name in every if name.endswith("+b") == of_b] for of_b in (False, True)]
    chosen = options.only.split(",") if options.only else names + (beside if options.long else [])
    print(f"seed {options.seed} (--seed or SEGUE_TEST_SEED), server {options.program}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="segue-hostile-"))
    run = Run(options, root)
    try:
        run.begin()
        for name in chosen:
            if options.long or options.only or name not in PATIENT:
                run.attack([name], seconds)
        if not options.only:
            if options.long:
                run.attack([name for name in names if name not in GREEDY], 10.0)
            run.attack(names, 15.0 if options.long else 2.0)
            run.attack(beside, 10.0 if options.long else 1.0)
        run.end()
    except Failure as failure:
        run.fail("run", str(failure))
    finally:
        for process in (run.canary.process if hasattr(run, "canary") else None, run.server.process):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        if run.failed:
            print(f"files are left in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    print(f"hostile: {'FAILED: ' + ', '.join(dict.fromkeys(run.failed)) if run.failed else 'all as they should'}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())

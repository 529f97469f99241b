"""Groups of random streams, against the plain model of oracle.py.

Each case is one data set and one stream of the generator of cases.py, read by two to four groups
at the same time: the one without a name and others, each with one or two workers, states of its
own, sometimes a depth or batch sizes of its own. They begin at different times and go on at random
speeds, in threads of one process or in processes of their own; they leave and come back, go back
to older tokens while the others go on, and are killed; servers are killed again and again, but for
those of every second store, which must not end by themselves. Each must see the model's batches and
its own states, byte for byte, and find its final states in the store. In many cases they must have
shared rings: the server says how many there are.

SEGUE_TEST_GROUPS is the number of cases, SEGUE_TEST_SEED gives the same cases again,
SEGUE_TEST_CASE is one of them to be run alone. What is drawn is the same then, not which process is
faster.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import secrets
import signal
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe, connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import forked
import oracle
import segue
from test_equal import Killer, make_one, produce
from test_resume import server_pid

TABLES = 2  # so many cases at once
CASES_A_STORE = 15
PATIENCE = 60.0
AT_ONCE = 48  # batches of a player; of what is inserted all are read
SALT = 1_000_003
POINTS = ("taken", "saved", "committed")  # of a batch; where a worker may die

START = threading.Lock()  # of processes: exit codes can be read once


@dataclass
class Player:
    """A worker of a group, and what it is to do."""

    case: cases.Case  # with the group's batch sizes and salt
    group: str | None
    rank: int
    world: int
    seed: list[int]
    store: Path
    options: dict[str, Any]  # runtime options
    pause: float  # seconds, before it begins: sometimes the others have gone on by then
    pace: float  # seconds between batches, at most
    deaths: int  # at most; 0 in a thread
    together: bool  # begins when all have their lanes
    calm: bool  # the server is not killed
    notes: Path  # where it was
    tries: int = 0  # to play it

    def __repr__(self) -> str:
        sizes = dict(self.case.spec.sizes)
        return (
            f"\n    group {self.group}, {self.rank} of {self.world}: {self.options}, {sizes=}, "
            f"{self.pause=}, {self.pace=}"
        )


@dataclass
class Played:
    batches: int = 0
    saved: int = 0  # rings, at most: lanes that were held, and had none of their own
    ways: Counter[str] = field(default_factory=Counter)


def rings(client: segue.Client, name: str) -> tuple[int, int]:
    """(held lanes of all groups, feeds) of a stream."""
    some = [one for one in client.status()["streams"] if one["name"] == name and "lanes" in one]
    held = [lane for one in some for lane in one["lanes"] if lane["state"] == "held"]
    return len(held), sum(one["feeds"] for one in some)


class Play:
    """A player at work."""

    def __init__(self, player: Player, client: segue.Client, stream: segue.Stream) -> None:
        self.player, self.client, self.stream = player, client, stream
        self.case = player.case
        self.lanes = oracle.lanes_of(player.rank, player.world, self.case.spec.lanes)
        self.wanted = cases.in_order(self.case, self.lanes)
        self.whole = self.case.spec.epochs is not None
        if not self.case.push and len(self.wanted) > AT_ONCE:
            self.wanted, self.whole = self.wanted[:AT_ONCE], False
        self.rng = np.random.default_rng([*player.seed, player.tries])
        self.at: dict[int, int] = dict.fromkeys(self.lanes, 0)
        self.tokens: list[tuple[dict[int, int], dict[str, bytes]]] = []
        self.goes_back = 2
        self.dies_at: str | None = None
        self.played = Played()

    # -- where it is ---------------------------------------------------------------------------

    def note(self) -> None:
        self.player.notes.write_text(" ".join(str(self.at[lane]) for lane in self.lanes))

    def check_place(self, exactly: bool) -> None:
        """Nothing committed is lost, but what a server killed with its worker had not written."""
        self.loader._attach_to_begin()
        calm = self.player.calm or self.player.options["durability"] == "commit"
        for lane in self.loader._handles:
            noted, found = self.at[lane.index], lane.committed
            most = noted if exactly else noted + 1
            least = noted if exactly or calm else 0
            assert least <= found <= most, f"lane {lane.index}: {found}, was at {noted}"
            self.at[lane.index] = found

    def begin(self, exactly: bool = True) -> None:
        self.loader = self.stream.loader(
            rank=self.player.rank,
            world_size=self.player.world,
            group=self.player.group,
            start="continue",
            timeout=PATIENCE,
        )
        self.check_place(exactly)
        self.go_on_from_here()

    def go_on_from_here(self) -> None:
        self.todo = [want for want in self.wanted if want.step >= self.at[want.lane]]
        self.batches = iter(self.loader)
        self.resized = -1
        self.note()

    # -- what it does --------------------------------------------------------------------------

    def die_at(self, point: str) -> None:
        if self.dies_at == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def batch(self) -> None:
        want = self.todo.pop(0)
        if want.step in self.case.spec.sizes:
            cases.resize(self.loader, want.step, self.case.spec.sizes[want.step])
        batch = next(self.batches, None)
        assert batch is not None, f"ended where lane {want.lane}, step {want.step} was due"
        cases.compare(batch, want)
        self.die_at("taken")
        cases.work(batch, self.case, in_place=want.step % 2 == 1)
        self.die_at("saved")
        if want.step % 3 == 0 or self.dies_at:
            batch.commit()
        self.die_at("committed")
        self.at[want.lane] = want.step + 1
        self.played.batches += 1
        if self.player.pace:
            time.sleep(self.rng.random() * self.player.pace)

    def settle(self) -> None:
        """What was saved is committed."""
        self.loader._commit()
        self.note()

    def take_token(self) -> None:
        token = self.loader.state_dict()
        self.note()
        self.tokens = [*self.tokens[-2:], (dict(self.at), token)]

    def go_back(self) -> None:
        if not self.tokens or not self.goes_back:
            return
        self.goes_back -= 1
        which = int(self.rng.integers(len(self.tokens)))
        place, token = self.tokens[which]
        self.tokens = self.tokens[: which + 1]
        self.loader.load_state_dict(token)
        self.at = dict(place)
        self.go_on_from_here()

    def come_back(self) -> None:
        self.loader.close()
        self.begin()

    def look(self) -> None:
        held, feeds = rings(self.client, self.case.name)
        self.played.saved = max(self.played.saved, held - feeds)

    def die(self) -> None:
        if self.player.tries < self.player.deaths:
            self.settle()
            self.dies_at = str(self.rng.choice(POINTS))

    def run(self, pipe: Connection) -> Played:
        again = self.player.tries > 0
        if self.player.together and not again:
            assert pipe.recv() == "attach"
        time.sleep(0 if again else self.player.pause)
        if again:
            noted = map(int, self.player.notes.read_text().split())
            self.at = dict(zip(self.lanes, noted, strict=True))
        self.begin(exactly=not again)
        if self.player.together and not again:
            pipe.send("attached")
            assert pipe.recv() == "go"
        ways = {self.take_token: 3, self.go_back: 2, self.come_back: 1, self.look: 2, self.die: 1}
        others = [way for way, weight in ways.items() for _ in range(weight)]
        while self.todo:
            for _ in range(min(len(self.todo), self.rng.integers(1, 6))):
                self.batch()
            if self.rng.integers(3) == 0:
                way = others[self.rng.integers(len(others))]
                self.played.ways[way.__name__] += 1
                way()
        self.dies_at = None
        self.settle()
        cases.check(self.loader, self.case, [], self.whole)
        self.loader.close()
        self.check_finals()
        return self.played

    def check_finals(self) -> None:
        """What has ended has left its states in the store: where keys tell sequences apart."""
        spec = self.case.spec
        keys = [record.key for record in cases.model(self.case).records]
        once = spec.epochs == 1 and not spec.grown and len(set(keys)) == len(keys)
        if not self.case.options.get("keep_final") or not once or not spec.states:
            return
        found = dict(self.client.states(self.stream, group=self.player.group).items())
        for want in self.wanted:
            for row in np.flatnonzero(want.is_last):
                key = want.next_key[row].removeprefix(b"STOP:")
                assert key in found, f"{key!r}: its final states are not there"
                for name, value in want.state_out.items():
                    what = f"final state {name} of {key!r}"
                    cases.same(what, found[key].states[name], value[row])


def play(player: Player, pipe: Connection) -> tuple[Played, str | None]:
    try:
        with segue.open(player.store) as client:
            with cases.open_by_name(client, player.case, **player.options) as stream:
                return Play(player, client, stream).run(pipe), None
    except BaseException:
        who = f"group {player.group}, worker {player.rank} of {player.world}, try {player.tries}"
        return Played(), f"{who}\n{traceback.format_exc()}"


def sit(pipe: Connection) -> None:
    """A process of players."""
    warnings.simplefilter("ignore")
    faulthandler.register(signal.SIGUSR1)
    for player in iter(pipe.recv, None):
        pipe.send(play(player, pipe))


# -- who plays where -------------------------------------------------------------------------------


class Seat:
    """Where a player plays: a process, which it may kill, or a thread."""

    def __init__(self, context: Any, is_process: bool) -> None:
        self.context, self.is_process, self.process = context, is_process, None
        self.start()

    def start(self) -> None:
        self.pipe, far = Pipe()
        if not self.is_process:
            threading.Thread(target=sit_in_thread, args=(far,), daemon=True).start()
            return
        with START:
            self.process = self.context.Process(target=sit, args=(far,), daemon=True)
            self.process.start()
        far.close()

    def give(self, player: Player) -> None:
        self.player = player
        self.pipe.send(player)

    def hear(self) -> Any:
        """What the player says; None: it has died, and goes on."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            assert self.player.tries < self.player.deaths, "a worker has died by itself"
            self.start()
            self.give(dataclasses.replace(self.player, tries=self.player.tries + 1))
            return None

    def complain(self) -> None:
        if self.process and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGUSR1)

    def end(self) -> None:
        if not self.process:
            self.pipe.send(None)
        else:
            self.process.kill()
            with START:
                self.process.join()


def hear_all(seats: list[Seat]) -> Iterator[tuple[Seat, Any]]:
    """What each says in the end, as it comes: who has died is waited for by others."""
    left = list(seats)
    while left:
        some = connection.wait([seat.pipe for seat in left], PATIENCE)
        assert some, f"no word from {[seat.player for seat in left]}"
        for seat in [seat for seat in left if seat.pipe in some]:
            if said := seat.hear():
                left.remove(seat)
                yield seat, said


def sit_in_thread(pipe: Connection) -> None:
    for player in iter(pipe.recv, None):
        pipe.send(play(player, pipe))


@dataclass
class Game:
    """One case: who plays, and how."""

    case: cases.Case
    players: list[Player]
    together: bool
    processes: bool
    alike: bool  # all with the same ring


def draw(seed: int, number: int, directory: Path) -> Game:
    rng = np.random.default_rng([seed, number, 3])
    case = make_one(seed, number)
    kept = case.spec.initial == "kept"
    case = dataclasses.replace(case, reading="batches")
    case.options |= {"persist": True, "keep_final": kept or bool(rng.integers(2))}
    calm = number // CASES_A_STORE % 2 == 1
    store = directory / f"{'calm' if calm else 'store'}-{number // CASES_A_STORE}"
    processes = bool(rng.integers(2))
    together = bool(case.push) or bool(rng.integers(3))
    groups = [None, *("bcd"[: rng.integers(1, 4)])]
    sized = int(rng.integers(3 * len(groups)))  # which has batch sizes of its own, if any
    players, alike = [], True
    for index, group in enumerate(groups):
        own = dataclasses.replace(case, salt=SALT * (index + 1))
        if index == sized:
            own = cases.with_sizes(own, rng)
        depth = case.options["depth"]
        if not case.push and rng.integers(6) == 0:
            depth = int(rng.integers(2, 6))
        alike &= depth == case.options["depth"]
        world = 1 + int(case.spec.lanes > 1 and rng.integers(4) == 0)
        pause = [0, 0, 0.02][rng.integers(3)]
        pace = [0, 0, 0.002, 0.006][rng.integers(4)]
        durability = str(rng.choice(["interval", "interval", "commit"]))
        for rank in range(world):
            players.append(
                Player(
                    own, group, rank, world,
                    seed=[seed, number, index, rank],
                    store=store,
                    options={
                        "depth": depth,
                        "interval": float(rng.choice([0.01, 1])),
                        "durability": durability,
                        "num_threads": case.options["num_threads"],
                    },
                    pause=pause, pace=pace,
                    deaths=int(processes and rng.integers(3) == 0),
                    together=together, calm=calm,
                    notes=directory / f"notes-{number}-{index}-{rank}",
                )
            )  # fmt: skip
    return Game(case, players, together, processes, alike and not kept)


class Table:
    """Plays one game after the other."""

    def __init__(self, seed: int, directory: Path, context: Any) -> None:
        self.seed, self.directory, self.context = seed, directory, context
        self.seats: dict[bool, list[Seat]] = {False: [], True: []}
        self.played = Played()
        self.games = self.might_share = self.shared = self.deaths = 0

    def take_seats(self, game: Game) -> list[Seat]:
        seats = self.seats[game.processes]
        seats += [Seat(self.context, game.processes) for _ in range(len(game.players) - len(seats))]
        return seats[: len(game.players)]

    def seat_together(self, client: segue.Client, game: Game, seats: list[Seat]) -> int:
        """One after the other gets its lanes; then they have one ring a lane, if they may."""
        for seat in seats:
            seat.pipe.send("attach")
            [(_, word)] = hear_all([seat])
            assert word == "attached", word
        held, feeds = rings(client, game.case.name)
        every = game.case.spec.lanes * len({player.group for player in game.players})
        if held == every and game.alike:
            assert feeds == game.case.spec.lanes, f"{feeds} rings of {game.case.spec.lanes} lanes"
        if held == every and game.case.spec.initial == "kept":
            assert feeds == every, f"{feeds} rings of {every} lanes that cannot share"
        for seat in seats:
            seat.pipe.send("go")
        return held - feeds

    @contextmanager
    def inserting(self, stream: segue.Stream, game: Game, store: Path) -> Iterator[list[str]]:
        """The rest of what is inserted comes while they play; some of what is there before."""
        case, wrong = game.case, []
        if not case.push:
            yield wrong
            return
        producer = cases.insert(stream, case, case.push.before)
        producer.flush()
        producer.leave()

        def insert() -> None:
            try:
                for until, _ in case.push.stops:
                    produce(store, case, until, "left")
                produce(store, case, len(cases.log_of(case).files[0].records), "ended")
            except BaseException:
                wrong.append(f"who inserts\n{traceback.format_exc()}")

        thread = threading.Thread(target=insert, daemon=True)
        thread.start()
        yield wrong
        thread.join(PATIENCE)
        assert not thread.is_alive(), "what is to be inserted is not there yet"

    def play(self, number: int) -> str | None:
        """What was wrong."""
        game = draw(self.seed, number, self.directory)
        data = self.directory / f"data-{number}"
        cases.write(game.case, data)
        for player in game.players:  # of arrays it is known once they are written
            player.case.arrays = game.case.arrays
        seats, saved = self.take_seats(game), 0
        store = game.players[0].store
        with segue.open(store) as client, cases.open_stream(client, game.case, data) as stream:
            pid = server_pid(client) if game.players[0].calm else None
            with self.inserting(stream, game, store) as wrong:
                for seat, player in zip(seats, game.players, strict=True):
                    seat.give(player)
                if game.together:
                    saved = self.seat_together(client, game, seats)
                for seat, (played, text) in hear_all(seats):
                    wrong += [text] if text else []
                    saved = max(saved, played.saved)
                    self.played.batches += played.batches
                    self.played.ways += played.ways
                    self.deaths += seat.player.tries
            if pid and pid != server_pid(client):
                wrong.append("the server has died by itself")
        self.games += 1
        self.might_share += game.case.spec.initial != "kept"
        self.shared += saved > 0
        return "\n".join([*wrong, repr(game)]) if wrong else None

    def run(self, numbers: Iterator[int], wrong: list[tuple[int, str]]) -> None:
        for number in numbers:
            if wrong:
                return
            try:
                text = self.play(number)
            except BaseException:
                text = traceback.format_exc()
                for seat in self.seats[True]:
                    seat.complain()
            if text:
                wrong.append((number, text))

    def end(self) -> None:
        for seat in [*self.seats[True], *self.seats[False]]:
            seat.end()


@pytest.mark.filterwarnings("ignore")
def test_each_group_sees_what_the_model_says(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEGUE_TEST_SEED") or secrets.randbits(32))
    count = int(os.environ.get("SEGUE_TEST_GROUPS") or 30)
    only = os.environ.get("SEGUE_TEST_CASE")
    print(f"SEGUE_TEST_SEED={seed} SEGUE_TEST_GROUPS={count}")
    numbers = iter([int(only)] if only else range(count))
    lock, wrong = threading.Lock(), []

    def next_numbers() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    context = forked.context()  # once: it changes the environment, with which servers are started
    tables = [Table(seed, tmp_path, context) for _ in range(TABLES)]
    with Killer(tmp_path, seed) as killer:
        threads = [
            threading.Thread(target=table.run, args=(next_numbers(), wrong)) for table in tables
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for table in tables:
        table.end()
    assert not wrong, (
        f"cases {[number for number, _ in wrong]} of SEGUE_TEST_SEED={seed}; "
        f"SEGUE_TEST_CASE={wrong[0][0]} runs the first:\n{wrong[0][1]}"
    )
    names = ("games", "might_share", "shared", "deaths")
    total = {name: sum(getattr(table, name) for table in tables) for name in names}
    batches = sum(table.played.batches for table in tables)
    ways = sum((table.played.ways for table in tables), Counter())
    print(f"{total}, {batches} batches, {killer.kills} servers killed, {dict(ways)}")
    if not only:
        assert total["shared"] >= total["might_share"] // 2

#!/usr/bin/env python3
"""Recurrent Q-learning from episodes that actors insert: with which state does a segment begin?

    episodes.py [--episodes N] [--ways WAY ...] [--seed N] [--svg FILE]

An episode is a new machine of four arms, each with its own chance to win; all that the player
knows of it is in its GRU. Two actors play, by the learner's newest checkpoint, and insert. The
learner sees each episode once, in segments of 8 pulls. Its GRU begins a segment with the state
that it left there itself (carried), with the one that the actor had there and stored with the
episode (as R2D2 does), or with zeros: a training each. In the first a learner and an actor are
killed: each episode must come once, and a learner that nobody kills must get the same weights from
the log, bit for bit. The error of a net is that of the chances that it tells, of all arms, in episodes
of random pulls, at whose begin alone its state is zeros. --svg draws it. Needs PyTorch.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1"}  # the same bits each time

import argparse
import multiprocessing
import multiprocessing.connection
import signal
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import segue
from segue.torch import wrap

ACTORS, AT_ONCE = ("actor-0", "actor-1"), 32  # episodes that an actor plays side by side
ARMS, CELLS, PULLS, UNROLL, ROWS = 4, 32, 64, 8, 16
EVERY = 20  # updates from checkpoint to checkpoint
COLORS = {"carried": "tab:blue", "stored": "tab:green", "zeros": "tab:orange"}


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.gru, self.out = nn.GRU(ARMS, CELLS, batch_first=True), nn.Linear(CELLS, ARMS)

    def forward(self, arm: Tensor, won: Tensor, h: Tensor) -> Tensor:
        """The states before each pull and after the last, [rows, steps + 1, CELLS]; `out` makes logits of them."""
        pulls = nn.functional.one_hot(arm.long(), ARMS) * (2 * won - 1)[..., None]
        return torch.cat([h[:, None], self.gru(pulls, h[None])[0]], 1)


def load(path: Path, model: Network) -> dict | None:
    pair = torch.load(path) if path.exists() else None
    if pair:
        model.load_state_dict(pair["model"])
    return pair


def machine(seed: int, key: str) -> np.ndarray:
    """The chances of an episode's arms."""
    return np.random.default_rng([seed, *key.encode()]).random(ARMS)


def open_stream(client: segue.Client) -> segue.Stream:
    return client.stream(
        "live",
        segue.Push(producers=len(ACTORS)),
        {"arm": segue.Feature("uint8"), "won": segue.Feature("float32")},
        {"stored": segue.Feature("float32", (PULLS // UNROLL, CELLS)), "updates": segue.Feature("int64")},
        states={"h": segue.State("float32", CELLS)},
        num_unroll=UNROLL,
        batch_size=ROWS,
        keep_final=True,
    )


# -- actors ------------------------------------------------------------------------------------------


@torch.no_grad()
def play(model: Network, chances: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arms and wins, [rows, PULLS], and the states with which segments begin."""
    rows, h = np.arange(len(chances)), torch.zeros(len(chances), CELLS)
    arms, wins = np.zeros((len(rows), PULLS), np.uint8), np.zeros((len(rows), PULLS), np.float32)
    stored = np.zeros((len(rows), PULLS // UNROLL, CELLS), np.float32)
    for t in range(PULLS):
        if t % UNROLL == 0:
            stored[:, t // UNROLL] = h
        best = model.out(h).argmax(1).numpy()
        arms[:, t] = np.where(rng.random(len(rows)) < 0.5, rng.integers(ARMS, size=len(rows)), best)
        wins[:, t] = rng.random(len(rows)) < chances[rows, arms[:, t]]
        h = model(torch.from_numpy(arms[:, t, None]), torch.from_numpy(wins[:, t, None]), h)[:, 1]
    return arms, wins, stored


def act(place: Path, name: str, options: argparse.Namespace, kill: bool) -> None:
    """Goes on behind what was inserted under its name; with `kill` it is killed half-way."""
    model = Network(options.seed)
    with segue.open(place / "store") as client, open_stream(client).producer(name) as producer:
        first_life = producer.resume()[0] == 0
        while producer.inserted < options.episodes:
            numbers = range(producer.inserted, min(producer.inserted + AT_ONCE, options.episodes))
            keys = [f"{name}/{number}" for number in numbers]
            pair = load(place / "pair.pt", model)
            rng = np.random.default_rng([options.seed, *keys[0].encode()])
            played = play(model, np.array([machine(options.seed, key) for key in keys]), rng)
            for key, arm, won, stored in zip(keys, *played, strict=True):
                steps = int(rng.integers(PULLS // 2, PULLS + 1))
                context = {"stored": stored, "updates": np.int64(pair["updates"] if pair else 0)}
                producer.insert({"arm": arm[:steps], "won": won[:steps]}, context, key=key)
                if kill and first_life and producer.inserted == options.episodes // 2 + 5:
                    os.kill(os.getpid(), signal.SIGKILL)
            producer.flush()  # waits for room: else it would play ahead, by old weights


# -- the learner -------------------------------------------------------------------------------------


def learn(place: Path, way: str, options: argparse.Namespace, kill: bool, group: str | None = None) -> None:
    """Goes on from its checkpoint if there is one; else, with `kill`, it is killed half-way."""
    model = Network(options.seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    path = place / f"{group or 'pair'}.pt"
    pair = load(path, model)
    updates, errors, ages = 0, [late(model)], []
    last = len(ACTORS) * options.episodes * PULLS * 3 // 4 // (UNROLL * ROWS)  # about
    dies = last // 2 // EVERY * EVERY + 5 if kill and not pair else None

    with segue.open(place / "store") as client:
        loader = wrap(open_stream(client).loader(start=None if pair else "fresh", group=group))
        if pair:
            optimizer.load_state_dict(pair["optimizer"])
            loader.load_state_dict(pair["loader"])
            errors = pair["errors"]

        def save() -> None:
            errors.append(late(model))
            new = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
            torch.save(new | {"updates": updates, "errors": errors}, path.with_suffix(".new"))
            os.replace(path.with_suffix(".new"), path)

        for batch in loader:
            rows = torch.arange(len(batch.length))
            if way == "carried":
                before = batch.states["h"]
            elif way == "stored":
                before = batch["stored"][rows, batch.sequence.long()]
            else:
                before = torch.zeros(len(rows), CELLS)
            hs = model(batch["arm"], batch["won"], before)
            said = model.out(hs[:, :-1]).take_along_dim(batch["arm"].long()[..., None], 2).squeeze(2)
            loss = nn.functional.binary_cross_entropy_with_logits(said, batch["won"], reduction="none")
            optimizer.zero_grad()
            batch.mean(loss).backward()
            optimizer.param_groups[0]["lr"] = 0.01 * max(0.0, 1 - batch.step / last)
            optimizer.step()
            batch.states = {"h": hs[rows, batch.length.long()]}
            ages.append((updates - batch["updates"]).float().mean())
            updates = batch.step + 1
            if updates % EVERY == 0:
                save()
            if updates == dies:
                os.kill(os.getpid(), signal.SIGKILL)
        save()
        print(f"{way}: {updates} updates, the weights of actors {np.mean(ages):.0f} updates old; "
              f"waited for data {loader.waited:.2f} s", flush=True)  # fmt: skip


def run(jobs: Mapping[str, Callable[[], None]]) -> None:
    """Each in a process of its own; who is killed is begun again."""
    context, running = multiprocessing.get_context("fork"), {}

    def begin(name: str) -> None:
        running[name] = context.Process(target=jobs[name], daemon=True)
        running[name].start()

    for name in jobs:
        begin(name)
    while running:
        multiprocessing.connection.wait([process.sentinel for process in running.values()])
        for name, process in list(running.items()):
            if (code := process.exitcode) == -signal.SIGKILL:
                print(f"{name} was killed, and begun again", flush=True)
                begin(name)
            elif code == 0:
                del running[name]
            elif code is not None:
                raise RuntimeError(f"{name} has ended with {code}")


# -- what came of it ---------------------------------------------------------------------------------


@torch.no_grad()
def error(model: Network | None) -> np.ndarray:
    """By place in the episode, root mean square. None: of the best estimate that there is."""
    rng = np.random.default_rng(1)
    chances = rng.random((256, 1, ARMS))
    arm = rng.integers(ARMS, size=(256, PULLS))
    won = rng.random((256, PULLS)) < np.take_along_axis(chances[:, 0], arm, 1)
    if model:
        hs = model(torch.from_numpy(arm), torch.from_numpy(won.astype(np.float32)), torch.zeros(256, CELLS))
        said = model.out(hs[:, :-1]).sigmoid().numpy()
    else:
        pulls = np.eye(ARMS)[arm]
        counts, wins = (np.cumsum(of, 1) - of for of in (pulls, pulls * won[..., None]))
        said = (wins + 1) / (counts + 2)
    by_place: np.ndarray = np.sqrt(((said - chances) ** 2).mean((0, 2)))
    return by_place


def late(model: Network) -> float:
    return float(error(model)[-UNROLL:].mean())


def check(place: Path, options: argparse.Namespace) -> None:
    """Each episode once; the same weights without a kill; and what kept states know of their machines."""
    model, again = Network(options.seed), Network(options.seed)
    load(place / "pair.pt", model)
    with segue.open(place / "store") as client:
        kept = {key.decode(): found for key, found in client.states("live").items()}
    keys = {f"{name}/{number}" for name in ACTORS for number in range(options.episodes)}
    if kept.keys() != keys or {found.number for found in kept.values()} != set(range(len(keys))):
        raise RuntimeError("an episode is not there, or it is there twice")
    print(f"each of {len(kept)} episodes came once", flush=True)
    run({"the other learner": partial(learn, place, "carried", options, False, "again")})
    load(place / "again.pt", again)
    if any(not torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True)):
        raise RuntimeError("the weights are not those of a learner that nobody killed")
    print("the weights are those of a learner that nobody killed, bit for bit", flush=True)
    newest = [key for key, found in kept.items() if found.number >= len(kept) // 2]
    with torch.no_grad():
        best = model.out(torch.from_numpy(np.stack([kept[key].states["h"] for key in newest]))).argmax(1)
    right = np.mean([machine(options.seed, key).argmax() == arm for key, arm in zip(newest, best.tolist())])
    print(f"the states under the keys of the last {len(newest)} episodes tell the best arm in "
          f"{100 * right:.0f} %", flush=True)  # fmt: skip


def picture(path: Path, models: dict[str, Network], errors: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "segue"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 3.8), sharey=True, layout="constrained")
    for way, model in models.items():
        color = COLORS[way]
        right.plot(np.arange(len(errors[way]) - 1) * EVERY, errors[way][:-1], color=color, linewidth=1.6)
        left.plot(error(model), color=color, linewidth=1.8, label=f"learnt with states: {way}")
    left.plot(error(None), color="0.6", linewidth=1, linestyle=":", label="the best there is")
    left.set(title="By the place in an episode", xlabel="pulls before", ylabel="error of the arms' chances (RMS)",
             xlim=(0, PULLS - 1))  # fmt: skip
    right.set(title=f"Behind {PULLS - UNROLL} pulls and more, by training", xlabel="updates", xlim=(0, None))
    figure.legend(frameon=False, loc="outside lower center", ncols=5, fontsize=8)
    for panel in left, right:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=800, help="of each actor, 100 or more")
    parser.add_argument("--ways", nargs="+", choices=COLORS, default=list(COLORS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models, errors = {way: Network(options.seed) for way in options.ways}, {}
    with tempfile.TemporaryDirectory(prefix="segue-episodes-", ignore_cleanup_errors=True) as scratch:
        for way, model in models.items():
            place, kill = Path(scratch) / way, way == "carried"
            place.mkdir()
            jobs = {name: partial(act, place, name, options, kill and name == ACTORS[0]) for name in ACTORS}
            run(jobs | {"the learner": partial(learn, place, way, options, kill)})
            pair = load(place / "pair.pt", model)
            assert pair
            errors[way] = pair["errors"]
            if kill:
                check(place, options)
    for way, model in models.items():
        print(f"{way}: error {late(model):.3f}")
    if options.svg:
        picture(options.svg, models, errors)


if __name__ == "__main__":
    main()

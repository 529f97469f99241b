"""Groups seen from outside: in reports, by the command line, by their states and checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import segue
from test_cli import WRONG, fails, report, run
from test_groups import opened, take


def test_groups_are_named_wherever_they_are_seen(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", lanes=2)
    with stream.loader(lanes=[0], start="fresh") as loader:
        (key, *_), _ = take(loader, 3, 1)[0]
        loader.flush()
    key = key.decode().split(":", 1)[1]
    human = [
        run("status", client.dir).stdout,
        run("inspect", client.dir, "--stream", "train").stdout,
        run("get", client.dir, key).stdout,
    ]
    assert all("GROUP" not in text and "group " not in text for text in human)
    with stream.loader(group="b", lanes=[1, 0], start="fresh") as loader:
        take(loader, 4, 10)
        loader.state_dict()
        names = {lane.get("group_name") for lane in client.status()["streams"][0]["lanes"]}
        assert names == {None, "b"}
        stream.loader(group="unused", lanes=[1], start="fresh").state_dict()
        lines = run("status", client.dir).stdout.partition("\nstream ")[2].splitlines()
        assert lines[1].split()[:2] == ["GROUP", "LANE"]
        assert {line.split()[0] for line in lines[2:]} == {"-", "b", "unused"}
    for tells in (client.inspect, lambda: report("inspect", client.dir)):
        (one,) = tells()["streams"]
        assert one["groups"] == [
            {"group": 1, "group_name": "b"},
            {"group": 2, "group_name": "unused"},
        ]
        assert {lane["group"]: lane.get("group_name") for lane in one["lanes"]}[1] == "b"
    lines = run("inspect", client.dir, "--stream", "train").stdout.splitlines()
    assert "  groups     b, unused" in lines
    heads = [line.split()[:3] for line in lines if "LANE" in line]
    assert heads == [["GROUP", "LANE", what] for what in ("STEP", "CHECKPOINT", "ROW")]
    found = {hit.get("group_name") for hit in client.get(key)["found"]}
    assert found == {None, "b"}
    text = run("get", client.dir, key).stdout
    assert "stream train, group b, " in text and "stream train, group -" not in text


def test_states_under_keys_are_the_groups_own(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue", lanes=1, epochs=1)
    for group, add in ((None, 1), ("b", 10)):
        with stream.loader(group=group, start="fresh") as loader:
            take(loader, 3, add)
    plain, b = client.states("train"), client.states(stream, group="b")
    assert repr(b) == "<segue.States of 'train', group 'b'>"
    for live in (False, True):
        mine = {key: one.states["h"] for key, one in plain.items(live=live)}
        assert mine
        assert {key: one.states["h"] for key, one in b.items(live=live)} == {
            key: 10 * h for key, h in mine.items()
        }
        assert all(b.get(key, live=live).states["h"] == 10 * h for key, h in mine.items())
    key = next(iter(plain.items()))[0]
    with stream.loader(start="continue") as loader:
        loader.state_dict()  # holds the lane, of its own group
        b.put(key, {"h": np.int64(7)})
        with pytest.raises(segue.BusyError, match="is held"):
            plain.put(key, {"h": np.int64(7)})
    assert (b.get(key).kind, b.get(key).states["h"]) == ("put", 7)
    assert plain.get(key).kind == "final" and plain.get(key).states["h"] != 7
    with stream.loader(group="b", start="continue") as loader:
        loader.state_dict()
        with pytest.raises(segue.BusyError, match="is held"):
            b.delete(key)
    b.delete(key)
    assert b.get(key) is None and plain.get(key)
    none = client.states("train", group="none")
    for call in (
        lambda: list(none.items()),
        lambda: none.put(key, {"h": np.int64(1)}),
        lambda: none.delete(key),
    ):
        with pytest.raises(segue.NotFoundError, match="stream 'train' has no group 'none'"):
            call()


def test_what_another_client_may_do_with_a_group_that_is_held(
    client: segue.Client, tmp_path: Path
) -> None:
    """One user's clients read, and drop what is stored; what the holder works with they leave."""
    stream = opened(client, tmp_path / "a.segue")
    with stream.loader() as loader:
        wanted = [keys for keys, _ in take(loader, 12, 10)]
    with stream.loader(group="b") as loader, segue.open(client.dir) as other:
        seen = take(loader, 4, 10)
        loader.state_dict()
        b, plain = other.states("train", group="b"), other.states("train")
        key = next(iter(b.items()))[0]
        before = b.get(key).states["h"]
        for change in (lambda: b.put(key, {"h": np.int64(7)}), lambda: b.delete(key)):
            with pytest.raises(segue.BusyError, match="is held"):
                change()
        plain.put(key, {"h": np.int64(7)})
        assert (b.get(key).states["h"], plain.get(key).states["h"]) == (before, 7)
        said = report("checkpoint", "list", client.dir, "--group", "b")["checkpoints"]
        assert [one["step"] for one in said] == [4]
        report("checkpoint", "rm", client.dir, "--all", "--group", "b")
        seen += take(loader, 12, 10)
    assert [keys for keys, _ in seen] == wanted


@pytest.mark.parametrize("served", [True, False])
def test_checkpoints_are_the_groups_own(tmp_path: Path, served: bool) -> None:
    directory = tmp_path / "store"
    tokens = {}
    with segue.open(directory) as client:
        stream = opened(client, tmp_path / "a.segue", lanes=2)
        for group, steps in ((None, 2), ("b", 3)):
            with stream.loader(group=group, start="fresh") as loader:
                take(loader, steps, 1)
                tokens[group] = loader.state_dict()
        for group, token in tokens.items():
            one = stream.checkpoint(lanes=[0], group=group)
            assert one == {"lane/0": token["lane/0"]}
            assert {f"lane/{one['lane']}" for one in stream.checkpoints(group)} == {
                "lane/0",
                "lane/1",
            }
        if served:
            checkpoints_by_the_command_line(directory)
            assert not stream.checkpoints("b") and len(stream.checkpoints()) == 2
    if not served:
        checkpoints_by_the_command_line(directory)


def checkpoints_by_the_command_line(directory: Path) -> None:
    every = report("checkpoint", "list", directory)["checkpoints"]
    assert [(one.get("group_name"), one["lane"]) for one in every] == [
        (None, 0), (None, 1), ("b", 0), ("b", 1),
    ]  # fmt: skip
    text = run("checkpoint", "list", directory).stdout.splitlines()
    assert text[0].split()[:3] == ["STREAM", "GROUP", "LANE"]
    assert [line.split()[1] for line in text[1:]] == ["-", "-", "b", "b"]
    text = run("checkpoint", "list", directory, "--group", "").stdout.splitlines()
    assert text[0].split()[:2] == ["STREAM", "LANE"] and len(text) == 3
    assert "give --group" in fails(WRONG, "checkpoint", "rm", directory, "--all")
    target = directory.parent / "tokens"
    found = {}
    for group in ("", "b"):
        done = report("checkpoint", "export", directory, target, "--group", group, "--lane", "0")
        found[group] = (target / "lane-0.token").read_bytes()
        assert [one.get("group_name") for one in done["checkpoints"]] == [group or None]
    assert found[""] != found["b"]
    report("checkpoint", "rm", directory, "--all", "--group", "b")
    left = report("checkpoint", "list", directory)["checkpoints"]
    assert left == every[:2]
    assert "no such checkpoint" in fails(
        WRONG, "checkpoint", "rm", directory, "--all", "--group", "b"
    )


def test_names_are_checked(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue")
    for name in ("", "a:b", "x" * 256, "a\0b"):
        for call in (
            lambda name: stream.loader(group=name).state_dict(),
            lambda name: list(client.states("train", group=name).items()),
        ):
            with pytest.raises(segue.ArgumentError, match="group"):
                call(name)
    for wrong in (3, b"b"):
        with pytest.raises(TypeError, match="group: expected str, got"):
            stream.loader(group=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="group: expected str, got"):
            client.states("train", group=wrong)  # type: ignore[arg-type]
    assert client.inspect()["streams"][0]["groups"] == []
    with stream.loader(group="ü" + "x" * 253) as loader:
        loader.state_dict()
    assert client.inspect()["streams"][0]["groups"] == [{"group": 1, "group_name": loader.group}]


def test_a_stream_has_so_many_groups_at_most(client: segue.Client, tmp_path: Path) -> None:
    stream = opened(client, tmp_path / "a.segue")
    for number in range(64):
        with stream.loader(group=f"g{number}", start="fresh") as loader:
            loader.state_dict()
    with pytest.raises(segue.LimitError, match="group 'more': stream 'train' has 64 already"):
        stream.loader(group="more", start="fresh").state_dict()
    with stream.loader(group="g63", start="continue") as loader:
        loader.state_dict()
    assert len(client.inspect()["streams"][0]["groups"]) == 64

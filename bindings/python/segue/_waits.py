"""Whom a lane waits for: replicas that lag or have not come, replica 0, a group that is slower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def waited_for(
    report: dict[str, Any], lane: int, group: str, replica: int, replicas: int, step: int
) -> list[str] | None:
    """Return a text for each that the lane, at that step, waits for, from the status of its stream.

    None: this replica has nobody to follow, and the server says to it what is known of replica 0.
    """
    lanes = {
        found.get("group_name", ""): found
        for stream in report["streams"]
        for found in stream.get("lanes", [])
        if found["lane"] == lane
    }
    own = lanes.get(group, {})
    if replica and own.get("state") != "held":
        return None
    waits = list(_replicas(own, replica, replicas)) if "replicas" in own else []
    other = own.get("waits_for_group")
    if other is not None:
        waits.append(_group(other, lanes.get(other, {})))
    if replica and not waits and own.get("step_published", 0) > step:
        waits.append(
            f"replica 0 (process {own['holder_pid']}), which is at step {own['step_committed']}: "
            "is it slower, or does it stand still?"
        )
    return waits


def _replicas(own: dict[str, Any], replica: int, replicas: int) -> Iterator[str]:
    there = {one["replica"]: one for one in own["replicas"]}
    for number in range(1, replicas):
        if number not in there:
            yield f"replica {number}, which has not come"
    for number, one in there.items():
        if number != replica and one["step"] + own["depth"] <= own["step_published"]:
            who = f"process {one['pid']}, {one['program']}"
            yield f"replica {number} ({who}), which is at step {one['step']}"


def _group(name: str, its: dict[str, Any]) -> str:
    who = f" (process {its['holder_pid']})" if its.get("holder_pid") else ""
    at = f", which is at step {its['step_committed']}" if "step_committed" in its else ""
    return (
        f"{f'group {name!r}' if name else 'the group without a name'}{who}{at}: they share a ring. "
        "Is it slower, or does it stand still? Close its loader if it is not used; with "
        'max_lag=30, on_lag="detach" of client.stream the others go on without it (docs/groups.md)'
    )

"""Which of how many workers this process is, by what started it."""

from __future__ import annotations

import os
from typing import NamedTuple

from . import errors
from ._notice import warn

# Of each: rank, number of workers. The first that is there is taken. Slurm's are those of a job
# step: a script of sbatch is one process, whatever SLURM_NTASKS says.
_PAIRS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
# Set without the other where there is no world of workers: in a script of sbatch.
_ALONE = ("SLURM_PROCID",)


class World(NamedTuple):
    """This process among the workers, and the variables that say so; "": none do."""

    rank: int
    size: int
    says: str


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise errors.ArgumentError(f"environment {name}={text!r} is not a number") from None


def _found(pair: tuple[str, str]) -> World | None:
    rank, size = map(_number, pair)
    if rank is None and size is None:
        return None
    if rank is not None and size is not None:
        return World(rank, size, " and ".join(pair))
    there, missing = pair if size is None else pair[::-1]
    if there in _ALONE:
        return None
    raise errors.ArgumentError(
        f"environment {there}={os.environ[there]}, and no {missing}: set both or neither, or give "
        "rank and world_size"
    )


def world(rank: int | None, size: int | None) -> World:
    """Return what was given, else what the environment says, else the one of 1.

    torchrun's RANK and WORLD_SIZE come before those of MPI, and those before Slurm's. It warns where
    the first says that there are fewer workers than another does.
    """
    if rank is not None and size is not None:
        return World(int(rank), int(size), "")
    worlds = [found for found in map(_found, _PAIRS) if found]
    first = worlds[0] if worlds else World(0, 1, "")
    for other in worlds[1:]:
        if rank is None and size is None and first.size < other.size:
            warn(
                f"the environment speaks of {other.size} workers ({other.says}), and of "
                f"{first.size} ({first.says}): this is taken for rank {first.rank} of "
                f"{first.size}. Unset what does not hold, or give rank and world_size"
            )
            break
    return World(
        first.rank if rank is None else int(rank),
        first.size if size is None else int(size),
        first.says,
    )

"""Rank and number of workers, by what started the process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import segue
from segue import _rank

Set = Callable[..., None]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Set:
    for pair in _rank._PAIRS:
        for name in pair:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)

    def setenv(**names: str) -> None:
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    return setenv


@pytest.mark.parametrize("pair", _rank._PAIRS, ids=lambda pair: pair[0])
def test_each_launcher_is_known(environ: Set, pair: tuple[str, str]) -> None:
    assert _rank.world(None, None) == (0, 1, "")
    environ(**{pair[0]: "2", pair[1]: "5"})
    assert _rank.world(None, None) == (2, 5, f"{pair[0]} and {pair[1]}")
    assert _rank.world(1, 3) == (1, 3, "")
    assert _rank.world(4, None)[:2] == (4, 5)


def test_the_first_that_is_there_is_taken(environ: Set, recwarn: pytest.WarningsRecorder) -> None:
    environ(SLURM_PROCID="1", SLURM_STEP_NUM_TASKS="2")
    environ(PMI_RANK="3", PMI_SIZE="4")
    assert _rank.world(None, None).rank == 3
    environ(RANK="6", WORLD_SIZE="8")  # torchrun in each of two tasks: nothing to be said
    assert _rank.world(None, None)[:2] == (6, 8)
    assert not recwarn.list


def test_what_contradicts_is_told(environ: Set) -> None:
    environ(RANK="0", WORLD_SIZE="1", OMPI_COMM_WORLD_RANK="3", OMPI_COMM_WORLD_SIZE="4")
    with pytest.warns(UserWarning, match="4 workers .*taken for rank 0 of 1"):
        assert _rank.world(None, None)[:2] == (0, 1)


@pytest.mark.parametrize("pair", _rank._PAIRS[:-1], ids=lambda pair: pair[0])
def test_half_a_pair_is_an_error(environ: Set, pair: tuple[str, str]) -> None:
    environ(**{pair[0]: "0"})
    with pytest.raises(segue.ArgumentError, match=f"{pair[0]}=0, and no {pair[1]}"):
        _rank.world(None, None)
    assert _rank.world(0, 1)[:2] == (0, 1)


def test_a_script_of_sbatch_is_one_process(environ: Set) -> None:
    environ(SLURM_PROCID="0", SLURM_NTASKS="16")
    assert _rank.world(None, None) == (0, 1, "")
    environ(SLURM_PROCID="", SLURM_STEP_NUM_TASKS="2")
    with pytest.raises(segue.ArgumentError, match="no SLURM_PROCID"):
        _rank.world(None, None)


def test_the_error_says_where_it_comes_from(environ: Set, stream: segue.Stream) -> None:
    environ(PMI_RANK="7", PMI_SIZE="7")
    with pytest.raises(segue.ArgumentError, match="PMI_RANK and PMI_SIZE"):
        stream.loader()

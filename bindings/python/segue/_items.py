"""Items of a data set in Python, one after the other: made here, or by processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from . import errors
from ._convert import _rows

_LOOK = 0.1  # seconds between two looks whether to go on
_END = object()


def is_indexed(source: Any) -> bool:
    """Whether it is asked for its items by their numbers."""
    has = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    return has and not isinstance(source, Mapping)


def read(
    source: Any, first: int = 0, workers: int = 0, over: threading.Event | None = None
) -> Generator[Any, None, None]:
    """Yield the items of a data set, from one on; close it, and no process is left.

    One that is not indexed is iterated over: `first` is the number of what then comes. Whatever is
    raised for an item is a `SourceError` with its number. It ends early when `over` is set.
    """
    if workers:
        return _made(source, first, workers, over or threading.Event())
    if is_indexed(source):
        return guarded((source[number] for number in range(first, len(source))), first)
    return guarded(_rows(dict(source))[0] if isinstance(source, Mapping) else source, first)


def unguarded(source: Any) -> Generator[Any, None, None]:
    """Yield the items of one that is not indexed; what is raised for one comes as it is."""
    yield from _rows(dict(source))[0] if isinstance(source, Mapping) else source


def guarded(items: Iterable[Any], number: int = 0) -> Generator[Any, None, None]:
    """Yield these items, the first of that number; what is raised for one is a `SourceError`."""
    iterator: Iterator[Any] | None = None
    while True:
        try:
            if iterator is None:
                iterator = iter(items)
            item = next(iterator, _END)
        except Exception as error:
            raise errors.SourceError(f"item {number}: {_text(error)}") from error
        if item is _END:
            return
        yield item
        number += 1


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# ---- Processes ----


class _Traceback(Exception):
    """Of another process, as a text: shown as the cause of what is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _made(
    source: Any, first: int, workers: int, over: threading.Event
) -> Generator[Any, None, None]:
    """Each process makes the items of every `workers`-th number: so their order is fixed."""
    context = multiprocessing.get_context("spawn")
    makers: list[tuple[Any, Connection]] = []
    try:
        for rank in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, source, first + rank, workers)
            process = context.Process(target=_make, args=arguments, daemon=True)
            makers.append((process, ours))
            with theirs:
                _start(process)
        for number in range(first, len(source)):
            process, pipe = makers[(number - first) % workers]
            while not pipe.poll(_LOOK):
                if over.is_set():
                    return
            yield _receive(process, pipe, number)
    finally:
        for process, pipe in makers:
            pipe.close()
            if process.pid is not None:
                process.terminate()
                process.join()


def _start(process: Any) -> None:
    try:
        process.start()
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise errors.ArgumentError(
            f"Examples.workers: the data set cannot be pickled for them ({error}): have its class, "
            "and what it holds, at the top of a module, or leave workers out"
        ) from error


def check_begun() -> None:
    """Refuse in a process that is being started: it would wait for what waits for it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise errors.ArgumentError(
            "Examples.workers: each begins by running the program's file, which may not do its work "
            'then: put what it does under if __name__ == "__main__":'
        )


def _receive(process: Any, pipe: Connection, number: int) -> Any:
    try:
        answer = pipe.recv_bytes()
    except (EOFError, OSError):
        process.join(1)
        raise errors.SourceError(
            f"item {number}: the process that makes it has ended (exit code {process.exitcode})"
        ) from None
    item, failed, trace = pickle.loads(answer)
    if failed:
        raise errors.SourceError(f"item {number}: {failed}") from _Traceback(trace)
    return item


def _make(pipe: Connection, source: Any, first: int, step: int) -> None:
    """A process: it ends with the one that has started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in range(first, len(source), step):
        try:
            # Tensors, too, by their values: what multiprocessing makes of them is gone with us.
            answer = pickle.dumps((source[number], None, None), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            answer = pickle.dumps((None, _text(error), traceback.format_exc()))
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

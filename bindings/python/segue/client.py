"""Clients and streams: the connection to a store's server, and the streams that come from it."""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from . import _program, _segue, errors
from ._any import AnyLoader
from ._closing import Closing
from ._feed import Feed
from ._notice import Line, warn
from .examples import Examples, settle
from .keyed import States, checked_group, key_bytes
from .loader import Loader
from .producer import Producer
from .spec import (
    Feature,
    Files,
    Mix,
    Source,
    State,
    option_value,
    path_bytes,
    stored_arguments,
    stream_arguments,
    usual,
)
from .trees import StateTree

Progress = Callable[[str, int, int], object]


def open(
    dir: str | os.PathLike[str],
    socket: str | os.PathLike[str] | None = None,
    program: str | os.PathLike[str] | None = None,
    timeout: float | None = 30,
    *,
    start: bool = True,
    progress: Progress | None = None,
) -> Client:
    """Connect to the server of the store directory `dir`, starting one if none runs.

    Several processes may do so at once: one server results, and ends when its last user has left.

    Parameters
    ----------
    dir : path
        The store; made if need be.
    socket : path, optional
        The server's socket; ``<dir>/segue.sock`` if not given.
    program : path, optional
        The server program; else ``$SEGUE_PROGRAM``, the one in this package, or ``PATH``.
    timeout : float, optional
        Seconds to connect or start; None waits for ever.
    start : bool
        False: fail instead of starting a server.
    progress : callable, optional
        ``progress(what, done, total)``, called during long work of the server. By default a line
        on the terminal.
        The client keeps it: if it refers to a stream or a loader of this client, those stay, with
        their lanes, until `Client.close`.

    Raises
    ------
    GoneError
        No server, and none could be started; its own message is in the error.
    VersionError, ArgumentError, SystemCallError, StoreError
        Another protocol; the socket's name too long; a system call; what the server refused to start for.
    """
    if program is None and "SEGUE_PROGRAM" not in os.environ:
        program = _program.bundled()
    if progress is None and sys.stderr is not None and sys.stderr.isatty():
        progress = Line()
    handle = _segue.open(
        path_bytes("dir", dir),
        None if socket is None else path_bytes("socket", socket),
        None if program is None else path_bytes("program", program),
        timeout,
        not start,
        progress,
    )
    absolute, silent = os.path.abspath(os.fsdecode(dir)), lambda *_: None
    return Client(
        handle,
        os.fspath(dir),
        lambda: open(absolute, socket, program, timeout, start=start, progress=silent),
    )


class Client(Closing):
    """The connection to one store; made by `segue.open`. A context manager.

    A client serves one thread at a time: calls from another wait. While one waits for a batch, or
    for what is inserted to be taken, the others go on: one thread may insert what another reads.
    """

    def __init__(self, handle: _segue.Client, dir: str, again: Callable[[], Client]) -> None:
        self._handle = handle
        self._again = again  # another one like it
        self.dir = dir
        info = os.stat(dir)
        self._place = (info.st_dev, info.st_ino)  # of the store
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<segue.Client: {self.dir}{', closed' if self.closed else ''}>"

    def stream(
        self,
        name: str,
        source: Source | Examples | None = None,
        sequences: Mapping[str, Feature] | None = None,
        context: Mapping[str, Feature] | None = None,
        states: Any = None,
        *,
        num_unroll: int | None = usual(None),
        batch_size: int | None = None,
        lanes: int = usual(1),
        shuffle: bool = usual(False),
        seed: int = usual(0),
        epochs: int | None = usual(1),
        first_epoch: int = usual(0),
        pad: bool = usual(True),
        tail: str = usual("shrink"),
        epoch_end: str = usual("continue"),
        on_error: str = usual("raise"),
        keep_final: bool = usual(False),
        persist: bool = usual(True),
        depth: int = usual(4),
        num_threads: int = usual(1),
        durability: str = usual("interval"),
        interval: float = usual(1.0),
        lease_timeout: float | None = usual(None),
        keep_checkpoints: int = usual(3),
        maximum_length: int | None = usual(None),
        on_too_long: str = usual("error"),
        trim: bool = usual(False),
        lanes_by: str = usual("sequence"),
        bucket_boundaries: Sequence[int] | None = usual(None),
        window: int | None = usual(None),
        initial: str = usual("value"),
        groups: int | None = usual(None),
        groups_timeout: float = usual(60.0),
        max_lag: float | None = usual(None),
        on_lag: str = usual("wait"),
    ) -> Stream:
        """Open the stream `name`, making it if it is new.

        The first open of a data set builds the index of its records.

        A stream that exists can be opened by its name alone: one process makes it, all others need
        not know where its data lie, nor what it is. What is given all the same must be as it is,
        but for what may differ with each opening (`epochs`, more of them; `depth`, `num_threads`,
        `durability`, `interval`, `lease_timeout`, `keep_checkpoints`, `groups`, `groups_timeout`,
        `max_lag`, `on_lag`), which is otherwise as it was when the stream was made.

        Parameters
        ----------
        name : str
            Non-empty, without ``:``.
        source : Files, TFRecord, Arrays, Mix, Push or Examples, optional
            Where the records come from. None: the stream exists, and has them from where they
            were found last, or from its producers.
        sequences, context : mapping of str to Feature
            Sequence features come as ``[batch_size, num_unroll, *shape]``, context features as
            ``[batch_size, *shape]``. `sequences` go with `source`.
        states : mapping of str to State, or a tree of them, optional
            Nested dicts, tuples, named tuples and lists (`states_like` makes such of a model's
            states), up to 1024 leaves: `Batch.states` is nested alike; by name and in the store
            they have paths, as ``lstm/0/h``. To be given with a name alone if one of them has an
            initial value that is not zeros.
            Without any, the stream is a plain batching service: a batch that was fetched counts as
            done when the loop, or whoever fetches ahead, goes on, though nobody has seen it. With
            ``persist=True`` those of `batch_size` rows have less than 1 GiB.
        num_unroll : int or None
            Steps of a segment. It goes with `source`. None: a sequence is one segment, as long as
            it is. That needs `maximum_length`, for which a batch has room, and the time dimension
            of a batch is that of the longest in it, as with `trim`.
        batch_size : int
            Rows of a batch. The same.
        lanes : int
            Independent sub-streams; as many workers can share the stream.
        shuffle, seed
            Whether the records come in another order each epoch, and which.
        epochs : int or None
            Passes over the data in all; None is endless. A stream that is opened again with more
            grows: a training that has ended goes on, or one that has not ends later. Each lane
            still ends by its `tail` where it would have, and goes on from there with full rows, so
            what came before is the same with and without. Leases from then on know of it; loaders
            that are at work end where they would have. A stream with ``persist=False`` cannot grow
            while it is open.
        first_epoch : int
            The epoch that a new stream begins with: to go on under another name where something
            else has to change (`num_unroll`, features, data), without states. `epochs` counts
            from 0 all the same: ``first_epoch=3, epochs=5`` delivers epochs 3 and 4.
        pad : bool
            False: lengths must be multiples of `num_unroll`.
        tail : {"shrink", "stop", "pad"}
            At the end of the input: ended rows go; stop when no full batch can be formed; empty
            rows until the longest lane has ended.
        epoch_end : {"continue", "drain"}
            Whether epochs follow one another in the rows without a gap, or each ends before the
            next begins.
        on_error : {"raise", "skip"}
            What becomes of records whose bytes are damaged ("skip" not in a `Mix` with a part that
            is inserted). What does not fit is always an error.
        keep_final : bool
            Keep the states saved with last segments, readable by `get`.
        persist : bool
            False: position and states live with the loader; each iteration starts at step 0.
        depth : int
            Batches filled ahead, >= 2.
        num_threads : int
            Loader threads of the server.
        durability : {"interval", "commit"}
            Commits are on disk after at most `interval` seconds, or when ``commit()`` returns.
        interval : float
            Seconds, at most 3600.
        lease_timeout : float, optional
            Seconds, at most 86400, longer than the longest step of the training: a worker that has
            had a batch for so long and has committed none (it is stopped, or stuck), or, where
            groups share a ring, keeps all of its batches, loses its lane to whoever asks, and
            learns that at its next call. None: a lane ends with its process
            alone.
        keep_checkpoints : int
            Newest checkpoints (`Loader.state_dict`) of each lane that the store keeps, 1 to 100.
            As far back as the oldest, going back takes back final states, too.
        maximum_length : int, optional
            Steps that a sequence may have; None: any number.
        on_too_long : {"error", "truncate", "skip"}
            What becomes of a sequence with more. "error": a `DataError` where it is reached, which
            names it (of `Push` and of `Examples` without cache where it is inserted); "truncate":
            it is as if it had only `maximum_length` steps, `total_length` cut, too; "skip": it is
            passed over, and counts among `Loader.skipped` (not in a `Mix` with a part that is
            inserted).
        trim : bool
            The time dimension of a batch is cut to the longest `Batch.length` in it, at least 1:
            arrays are ``[batch_size, T, *shape]`` with ``T <= num_unroll``.
        lanes_by : {"sequence", "record"}
            ``"record"``: record *r* is always in lane ``r % lanes``, and each lane passes over its
            own records in an order of its own; not of a `Mix` or `Push`, and with at most as many
            lanes as records. Numbers of sequences have gaps then, where `lanes` does not divide
            the records.
        bucket_boundaries : sequence of int, optional
            Only sequences of like lengths share a batch, so that they need about the same number
            of segments: of fewer steps than the first boundary, of as many as one or more but fewer
            than the next, or of as many as the last or more. Rising, from 1 on, at most 128. When
            no row of a lane lives, it looks at its next `window` sequences that have not begun,
            and begins those of the class of the oldest, which also take the rows that get free;
            where there is none of that class left, batches get smaller (with ``tail="pad"``: have
            empty rows) until all have ended, and it looks again. Not with ``tail="stop"``.
        window : int, optional
            Sequences of a lane among which those of one class are found, `batch_size` to 2**20.
            None: ``16 * batch_size``. It needs `bucket_boundaries`.
        initial : {"value", "kept"}
            ``"kept"``: where a record's key comes again, in a later epoch, its row begins with the
            final states that it left (`Batch.is_kept`), all of them, instead of initial values. It
            needs ``lanes_by="record"`` and ``keep_final=True``. A batch in which a key comes again
            is there when the batch in which it ended is committed. Tokens bring back what had
            been kept, and are refused where the store cannot (``docs/kept.md``).
        groups : int, optional
            So many groups begin together (`Stream.loader`): who asks for a lane that none of them
            has waits until so many have asked for it. Those that stand within `depth` batches of
            one another are then given the same batches, read and filled once; groups that begin by
            themselves, one after the other, would each have their own. Each asks from a process, or
            thread, of its own. Who comes when others are at work does not wait. None: nobody waits.
        groups_timeout : float
            Seconds that they wait for one another; then a `TimeoutError` says who is missing.
        max_lag : float, optional
            Seconds, at most 86400. A group that is given the same batches as others, and has not
            gone on, keeps them waiting when they are `depth` batches ahead of it: when that has
            lasted for so long in one piece, `on_lag` says what becomes of it. None: they wait.
        on_lag : {"wait", "detach"}
            ``"wait"``: the others wait, and the server's log says for whom. ``"detach"``: they go
            on with a ring of their own, of which they pay the memory. The slow group keeps the old
            one, and comes back when it has caught up. It needs `max_lag`.

        Raises
        ------
        ArgumentError
            Names the field that is wrong (also a ``ValueError``).
        SpecError
            The stream exists with another spec, or more epochs; names the fields that differ, and
            says what to do.
        NotFoundError
            No `source` is given, and there is no such stream (also a ``KeyError``).
        SourceError, DataError, ChangedError
            The data set: cannot be read, has a damaged record, has changed.
        """
        options = dict(
            num_unroll=num_unroll,
            batch_size=batch_size,
            lanes=lanes,
            shuffle=shuffle,
            seed=seed,
            epochs=epochs,
            first_epoch=first_epoch,
            pad=pad,
            tail=tail,
            epoch_end=epoch_end,
            on_error=on_error,
            keep_final=keep_final,
            persist=persist,
            depth=depth,
            num_threads=num_threads,
            durability=durability,
            interval=interval,
            lease_timeout=lease_timeout,
            keep_checkpoints=keep_checkpoints,
            maximum_length=maximum_length,
            on_too_long=on_too_long,
            trim=trim,
            lanes_by=lanes_by,
            bucket_boundaries=bucket_boundaries,
            window=window,
            initial=initial,
            groups=groups,
            groups_timeout=groups_timeout,
            max_lag=max_lag,
            on_lag=on_lag,
        )
        feed = None
        made: list[str] = []
        nested = None if states is None else StateTree(states)
        states = nested and nested.declared
        if source is None:
            arguments = stored_arguments(
                self._handle, name, sequences, context, states, options
            )
        else:
            if isinstance(source, (Examples, Mix)):
                # What is wrong is better said before hours of conversion.
                stream_arguments(name, Files(name), sequences or {}, context, states, "", options)
                source, inserted = settle(
                    source, self.dir, name, sequences or {}, context or {}, states or {}, made
                )
                feed = Feed(inserted, self._again, name, states) if inserted else None
            arguments = stream_arguments(
                name, source, sequences or {}, context, states, self.dir, options
            )
        *_, features, contexts, fields, settled, _ = arguments
        nested = nested or StateTree({name: 0 for name, *_ in fields})
        try:
            handle = self._handle.stream(*arguments, nested)
        except (errors.ChangedError, errors.SpecError) as error:
            for path in made:
                Path(path).unlink(missing_ok=True)
            other = isinstance(error, errors.ChangedError) or "source.paths" in str(error)
            if not (made and other) or isinstance(source, Mix):
                raise
            raise errors.ChangedError(
                f"stream {name!r}: the data set is not the one that it was made of, or comes in "
                f"another order: give that one, or give the stream another name; or begin it anew "
                f"without its states, after client.drop({name!r})"
            ) from error
        stream = Stream(
            handle,
            client=self,
            name=name,
            num_unroll=settled["num_unroll"] or None,
            batch_size=settled["batch_size"],
            lanes=settled["lanes"],
            epoch_end=option_value("epoch_end", settled["epoch_end"]),
            tail=option_value("tail", settled["tail"]),
            persist=bool(settled["persist"]),
            tree=nested,
            passes_over=" or ".join(
                f'{option}="skip"'
                for option in ("on_error", "on_too_long")
                if option_value(option, settled[option]) == "skip"
            ),
            passes=settled["epochs"] - settled["first_epoch"] if settled["epochs"] else None,
            columns=(features, contexts, [state[:4] for state in fields if state[3] == "data"]),
        )
        self._streams.add(stream)
        if feed:
            stream._be_fed(feed)
        return stream

    def status(self) -> Any:
        """Return what the server is doing: sessions, leases, rings."""
        return self._report(_segue.REPORT_STATUS)

    def inspect(self, stream: str | None = None) -> Any:
        """Return the streams, their lanes and positions; of one stream if it is named."""
        return self._report(_segue.REPORT_INSPECT, stream)

    def get(self, key: str | bytes, stream: str | None = None) -> Any:
        """Return the states kept under a record's key, as JSON has them; `states` has arrays.

        Parameters
        ----------
        key : str or bytes
            The record's own, ``"<file>:<offset>"`` if the source names no feature for it: what
            stands behind the first ``:`` of a `Batch.key`. Any bytes but NUL. In a `str`, as in all
            reports, bytes that are not UTF-8 are ``surrogateescape``, as `os.fsdecode` has them.
        stream : str, optional
            All streams of the store if not given.

        Raises
        ------
        NotFoundError
            Nothing is kept under it (also a ``KeyError``).
        ArgumentError
            It holds a NUL byte, or surrogates that stand for no byte.
        """
        return self._report(_segue.REPORT_GET, stream, key_bytes(key))

    def states(self, stream: str | Stream, group: str | None = None) -> States:
        """Return what the store has under the keys of a stream's records: to read, put and delete.

        Parameters
        ----------
        stream : str or Stream
            Its name suffices; it need not be open.
        group : str, optional
            Whose; None: of the group that every stream has.

        Raises
        ------
        NotFoundError
            There is no such stream (also a ``KeyError``).
        """
        name = stream.name if isinstance(stream, Stream) else stream
        if not isinstance(name, str):
            raise TypeError(f"stream: expected str or Stream, got {type(name).__name__}")
        if "\0" in name:
            raise errors.ArgumentError(f"stream: {name!r} holds a NUL: no stream has that name")
        return States(self._handle, name, checked_group(group))

    def drop(self, stream: str, *, group: str | None = None) -> None:
        """Drop a stream, or a group of it: all that the store holds of it goes, for good.

        Positions, states, final states, checkpoints, and the index of its data set if no other
        stream has it; likewise what was made beside the store for it, of `Examples` without a
        `path` and of `Arrays` that lie in memory; not the data. A stream that is made anew under
        the name begins at step 0.
        State dicts saved elsewhere stay good, for a stream of the same spec and data.

        Parameters
        ----------
        stream : str
            Its name; it need not be open. A `Stream` object that is open can be closed, no more.
        group : str, optional
            This group alone, with its positions, states and checkpoints; the stream and its other
            groups stay, and go on meanwhile. A loader that names it again makes a new one, at
            step 0. Where sequences are inserted (`segue.Push`), nothing waits for it any more.

        Raises
        ------
        NotFoundError
            The store has no stream, or group, of that name (also a ``KeyError``).
        BusyError
            A process holds a lane of it, also this one: close its loader first.
        ArgumentError
            `group` is empty: the group that every stream has goes with it alone.
        """
        if not isinstance(stream, str):
            raise TypeError(f"stream: expected str, its name, got {type(stream).__name__}")
        if "\0" in stream:
            raise errors.ArgumentError(f"stream: {stream!r} holds a NUL: no stream has that name")
        self._handle.drop(stream, checked_group(group))

    def verify(self) -> Any:
        """Check every value of the store and return what was found."""
        return self._report(_segue.REPORT_VERIFY)

    def _report(self, what: int, stream: str | None = None, key: bytes | None = None) -> Any:
        return json.loads(self._handle.report(what, stream, key))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle.closed

    def close(self) -> None:
        """Close all loaders and streams that came from this client, and the connection.

        As `Loader.close` does, it commits what is open; and raises as that does. Arrays stay
        readable.
        """
        self._close(commit=True)

    def _close(self, commit: bool) -> None:
        with ExitStack() as closing:
            closing.callback(self._handle.close)
            for stream in list(self._streams):
                stream._close_loaders(closing, commit)
                stream._leave_producers()


_told_ends: set[tuple[object, ...]] = set()  # streams of which it was said that lanes end apart


class Stream(Closing):
    """What the store delivers under one name; made by `Client.stream`. A context manager.

    Attributes
    ----------
    name : str
    num_unroll : int or None
    batch_size, lanes : int
    epoch_end : str
    persist : bool
    """

    def __init__(
        self,
        handle: _segue.Stream,
        *,
        client: Client,
        name: str,
        num_unroll: int | None,
        batch_size: int,
        lanes: int,
        epoch_end: str,
        tail: str,
        persist: bool,
        tree: StateTree,
        passes_over: str,
        passes: int | None,
        columns: tuple[list[Any], list[Any], list[Any]],
    ) -> None:
        self._columns = columns  # what each sequence has that is inserted
        self._producers: weakref.WeakSet[Producer] = weakref.WeakSet()
        self._feed: Feed | None = None
        self._handle = handle
        self._client = client
        self.name = name
        self.num_unroll = num_unroll
        self.batch_size = batch_size
        self.lanes = lanes
        self.epoch_end = epoch_end
        self._tail = tail
        self.persist = persist
        self._tree = tree
        self._has_states = bool(tree.declared)
        self._passes_over = passes_over  # the options by which records are passed over
        self._passes = passes  # over the records; None: they have no end
        self._place = (*client._place, name)  # of which one loader of a process has a lane
        self._loaders: weakref.WeakSet[Loader] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<segue.Stream: {self.name!r}, {self.lanes} lanes>"

    def __iter__(self) -> NoReturn:
        raise TypeError("a segue.Stream is not iterable, its loaders are: for batch in stream.loader()")

    @property
    def records(self) -> int:
        """Records of the data set; ``2**63`` while sequences are still inserted."""
        return self._handle.records

    def loader(
        self,
        *,
        lanes: Iterable[int] | str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        start: str | None = None,
        timeout: float | None = None,
        group: str | None = None,
        replica: int = 0,
        replicas: int = 1,
    ) -> Loader:
        """Return a loader over this worker's lanes; changes nothing yet.

        A lane has one holder: it is free again when its loader or client is closed, or when nothing
        refers to the loader any more, nor to a batch of it that is open. Arrays and other batches
        do not count. A newer loader of the same process takes it over; other processes wait for it,
        and get `BusyError` in the end. Of a lane to which no sequence belongs, since there are more
        lanes than sequences, it warns.

        Parameters
        ----------
        lanes : iterable of int, or "any", optional
            The lanes themselves. Otherwise those with ``lane % world_size == rank``. ``"any"``:
            those that this worker is given, of which all such workers have their share; they move
            from one to another as workers come, go and die (docs/guide.md, "Lanes that move"). Such
            a loader has no `rounds`, `epochs` and `set_batch_size`, and its `lanes` are those of
            the moment.
        rank, world_size : int, optional
            If not given, those that the environment has of torchrun (``RANK``, ``WORLD_SIZE``), of
            MPI (``OMPI_COMM_WORLD_RANK``, ``MV2_COMM_WORLD_RANK``, ``PMI_RANK``, and the same with
            ``SIZE``) or of a step of Slurm (``SLURM_PROCID``, ``SLURM_STEP_NUM_TASKS``), the first
            of these that is there; else 0 and 1.
        start : {None, "continue", "fresh"}
            Looked at when the first batch is asked for. None: an error if the store already holds
            a position. ``"continue"``: from the last durable commit of each lane. ``"fresh"``:
            from step 0; positions and states are dropped, of all these lanes or, if one of them is
            held by somebody else, of none. `Loader.load_state_dict` takes its place.
        timeout : float, optional
            Seconds that one batch may take; None waits for ever. A lane that another process holds
            is waited for as long, but 10 seconds at most; 0: not at all.
        group : str, optional
            Those who go through the stream together: each group has its own positions, states and
            checkpoints, and its own holder of each lane. Groups whose lanes stand within `depth`
            batches of one another are given the same batches, which are read and filled once. None:
            the group that every stream has. Of what is inserted (`segue.Push`) a group begins with
            the first sequence, which must be there: so with `retain_sequences` or `retain_bytes`
            each begins before another has gone far. Inserting waits for the group that is furthest
            behind, and what one needs is kept, whether anybody has it or not; for None only when it
            has begun, or there is no other. A stream has 64 at most that have a name: `Client.drop`
            drops one.
        replica, replicas : int
            For ranks that are to see the same batches, states included (tensor or pipeline
            parallel): so many processes have loaders of the same lanes (and `group`), which differ
            in `replica` alone. Replica 0 has the lanes, saves and commits. The others follow it:
            each gets a batch when replica 0 has taken it, reads its states, and has nothing to
            save; what saves, commits or flushes raises `ReplicaError` there. Batches keep their
            memory until all replicas have gone on. Every replica calls `load_state_dict` and
            `set_batch_size` as replica 0 does, for `start` it does not matter; `state_dict` gives
            each what it gives replica 0. Replica 0 gives no batch until all are there: if one ends,
            its next batch raises `ReplicaError`, which names it. A replica that takes the place of
            one that has ended begins at the batch that replica 0 is at.

        Raises
        ------
        ArgumentError
            No such lane, more workers than lanes, a rank outside the world, a replica that is not
            in 0 to `replicas` - 1, or replicas of a stream with ``persist=False`` or of lanes that
            move.
        """
        if isinstance(lanes, str):
            if replica != 0 or replicas != 1:
                raise errors.ArgumentError(
                    f"lanes={lanes!r}, replicas={replicas}: replicas are of lanes that stay with "
                    "their worker; give lanes, or rank and world_size"
                )
            loader = self._any_loader(lanes, rank, world_size, start, timeout, group)
        else:
            loader = Loader(self, lanes, rank, world_size, start, timeout, group, replica, replicas)
        self._loaders.add(loader)
        self._tell_idle_lanes(loader.lanes)
        if lanes is None and len(loader.lanes) < self.lanes:
            self._tell_ends()
        return loader

    def _any_loader(
        self, lanes: str, rank: int | None, world_size: int | None, *options: Any
    ) -> Loader:
        if lanes != "any":
            raise errors.ArgumentError(f'lanes: {lanes!r} is neither "any" nor a choice of lanes')
        if rank is not None or world_size is not None:
            raise errors.ArgumentError("give lanes, or rank and world_size, not both")
        return AnyLoader(self, *options)

    def _tell_ends(self) -> None:
        """Say once that lanes of several workers end at different steps, if they do."""
        if self._tail == "pad" or self._passes is None or self._place in _told_ends:
            return
        _told_ends.add(self._place)
        warn(
            f'stream {self.name!r} has tail="{self._tail}": its lanes end at different steps, and '
            "ranks that wait for one another in each step (all-reduce) would then wait for ever. "
            'tail="pad" gives all lanes the same number of batches (docs/data-parallel.md)'
        )

    def _tell_idle_lanes(self, lanes: list[int]) -> None:
        """Say which of them no sequence belongs to, as far as the number of all is known."""
        if self._passes is None or self.closed:
            return
        count = self.records * self._passes
        idle = [lane for lane in lanes if lane >= count]
        if idle:
            warn(
                f"stream {self.name!r} has {self.lanes} lanes, and there are {count} sequences in "
                f"all: lanes {idle} of this loader have nothing to deliver, but for the empty "
                'batches of tail="pad". Open it with fewer lanes, or more epochs'
            )

    def producer(
        self, name: str, *, takeover: bool = False, ring_bytes: int | None = None
    ) -> Producer:
        """Return a producer, which inserts sequences into a stream of `Push`.

        A name belongs to one producer at a time, in whichever process; who opens it next goes on
        behind what it has inserted (`Producer.resume`).

        Parameters
        ----------
        name : str
            Up to 255 bytes of UTF-8.
        takeover : bool
            A producer of that name that there is, in whichever process, inserts nothing more.
        ring_bytes : int, optional
            Bytes of sequences that may be on their way; 16 MiB if not given.

        Raises
        ------
        BusyError
            Another producer has the name.
        EndedError
            The input has ended, and the name has inserted nothing.
        ArgumentError
            The stream is of another source; no such name.
        """
        made = Producer(self, name, takeover, ring_bytes)
        self._producers.add(made)
        return made

    def end_input(self) -> None:
        """End the input of a stream of `Push` for good; that is on disk when this returns.

        What producers have inserted and not flushed may not be part of it: their next call raises
        `EndedError`.
        """
        self._handle.end_input()

    def files(self) -> Files:
        """Return all that was inserted, as a source: for epochs, or to be shuffled.

        The files are the stream's own, in ``log`` beside its store, and go with it
        (`Client.drop`). Their features are those of the stream.

        Returns
        -------
        Files
            ``client.stream("again", stream.files(), features, epochs=3, shuffle=True)``

        Raises
        ------
        ArgumentError
            The stream reads no log, its input has not ended, nothing was inserted, or what was
            inserted first was given up.
        """
        paths = self._client._handle.files(self.name)
        return Files([os.fsdecode(path) for path in paths.split(b"\0")[:-1]])

    def checkpoints(self, group: str | None = None) -> list[dict[str, Any]]:
        """Return what the store holds of `Loader.state_dict`, by lane and step.

        Returns
        -------
        list of dict
            ``lane``, ``id``, ``step``, ``created`` (UTC), ``bytes``, and ``ended``: whether the
            lane ends at that step. Those of `group`. A stream with ``persist=False`` has none.
        """
        if not self.persist:
            return []
        return [
            {"lane": lane["lane"], **checkpoint}
            for stream in self._client.inspect(self.name)["streams"]
            for lane in stream["lanes"]
            if lane.get("group_name") == group
            for checkpoint in lane["checkpoints"]
        ]

    def checkpoint(
        self,
        step: int | None = None,
        lanes: Iterable[int] | None = None,
        group: str | None = None,
    ) -> dict[str, bytes]:
        """Return a state dict out of the store, as `Loader.state_dict` returned it.

        Parameters
        ----------
        step : int, optional
            The newest step of which the store has all lanes, if not given. A lane that has ended
            is at every later step, too.
        lanes : iterable of int, optional
            All of the stream if not given.
        group : str, optional
            That of the loader; None: the group that every stream has.

        Raises
        ------
        NotFoundError
            The store has no such step of all these lanes (also a ``KeyError``).
        """
        wanted = range(self.lanes) if lanes is None else sorted({int(lane) for lane in lanes})
        stored = [entry for entry in self.checkpoints(group) if entry["lane"] in wanted]
        steps = {entry["step"] for entry in stored} if step is None else {step}
        ids: dict[int, int] = {}  # by lane
        for at in sorted(steps, reverse=True):
            ids = {
                entry["lane"]: entry["id"]
                for entry in stored
                if entry["step"] == at or (entry["ended"] and entry["step"] < at)
            }
            if len(ids) == len(wanted):
                break
        else:
            which = "one step" if step is None else f"step {step}"
            raise errors.NotFoundError(
                f"the store has no checkpoint of stream {self.name!r} with lanes {list(wanted)} "
                f"at {which}; checkpoints() lists what it has"
            )
        handle = self._client._handle
        return {
            f"lane/{lane}": handle.checkpoint(self.name, group, lane, ids[lane]) for lane in wanted
        }

    @property
    def closed(self) -> bool:
        """Whether `close` was called, here or on the client."""
        return self._handle.closed

    def close(self) -> None:
        """Close the stream and its loaders; commits and raises as `Loader.close` does."""
        self._close(commit=True)

    def _close(self, commit: bool) -> None:
        with ExitStack() as closing:
            closing.callback(self._handle.close)
            self._close_loaders(closing, commit)
            self._leave_producers()

    def _be_fed(self, feed: Feed) -> None:
        self._feed = feed
        weakref.finalize(self, feed.over.set)
        self._handle.watch(feed.check)
        feed.begin()

    def _leave_producers(self) -> None:
        if self._feed:
            self._feed.end()
        for producer in list(self._producers):
            producer.leave()

    def _close_loaders(self, closing: ExitStack, commit: bool) -> None:
        for loader in list(self._loaders):
            closing.callback(loader._close, commit)

"""The exceptions of segue: one class for each code of the C library, all of them ``segue.Error``.

The message says what was wrong, where (file and offset, stream, lane, key, field) and what to do.
``code`` is the name that the C library gives it (``"ESPEC"``), the same in every language.
"""

from __future__ import annotations


class Error(Exception):
    """Something that segue refused or could not do.

    Attributes
    ----------
    code : str
        Name of the error code of the C library, without its prefix.
    """

    code: str = "?"

    def __str__(self) -> str:  # KeyError would quote the message
        return str(self.args[0]) if self.args else ""


class ArgumentError(Error, ValueError):
    """An argument is invalid; the message names it."""

    code = "EINVAL"


class ClosedError(Error, ValueError):
    """The client, stream, loader or batch was closed or released before."""

    code = "ECLOSED"


class OutOfMemory(Error, MemoryError):
    """Memory could not be had."""

    code = "ENOMEM"


class SystemCallError(Error):
    """A system call failed."""

    code = "ESYSTEM"


class ProtocolError(Error):
    """The server answered with something that is no answer."""

    code = "EPROTOCOL"


class VersionError(Error):
    """The server speaks another version of the protocol."""

    code = "EVERSION"


class GoneError(Error):
    """There is no server, and none could be started."""

    code = "EGONE"


class BusyError(Error):
    """Held by another process (named in the message), by another thread or call of this one.

    A lane that is held by this process is that of another loader: ``loader.close()``, or, where
    that cannot be reached any more, ``client.close()``.
    """

    code = "EBUSY"


class FencedError(Error):
    """The lane has passed to another holder; what this one still saves goes nowhere."""

    code = "EFENCED"


class SpecError(Error, ValueError):
    """The stream exists with another spec; the message names the fields that differ."""

    code = "ESPEC"


class StartError(Error):
    """The store already holds a position, and nothing said what to do about it.

    Load a token with ``load_state_dict``, or give ``start="continue"`` or ``start="fresh"``. Also:
    a ``load_state_dict`` did not complete; it has to be called again. Or ``start="fresh"`` begins
    with sequences of a log that were given up.
    """

    code = "ESTART"


class DataError(Error):
    """A record is damaged or does not fit the spec; the message names file, offset, feature."""

    code = "EDATA"


class SourceError(DataError):
    """The data set cannot be read: no such file, no permission."""

    code = "ESOURCE"


class ChangedError(DataError):
    """The data set has changed since its index was built."""

    code = "ECHANGED"


class StateError(Error):
    """A state does not fit the spec: what was expected and what came is in the message."""

    code = "ESTATE"


class StateNameError(StateError, KeyError):
    """The stream has no state of this name."""


class StateTypeError(StateError, TypeError):
    """The dtype of a saved state is not the declared one."""


class StateShapeError(StateError, ValueError):
    """The shape of a saved state is not ``[batch_size, *declared shape]``."""


class UnsavedError(Error):
    """A batch would be left although some of its states, named in the message, were not saved.

    Save them all and commit, or give the batch up with ``batch.release()``: it is delivered again.
    """

    code = "EUNSAVED"


class CommittedError(Error):
    """The batch is committed: its states can no longer be saved."""

    code = "ECOMMITTED"


class HeldError(Error):
    """Batches, or arrays over their memory, are still alive where they must not be."""

    code = "EHELD"


class EndedError(Error):
    """The input has ended: nothing more is inserted, and what was on its way is not part of it.

    That a lane has ended is the end of an iteration, and never raised.
    """

    code = "EEND"


class TimeoutError_(Error, TimeoutError):
    """The time is up. Also a builtin ``TimeoutError``."""

    code = "ETIMEOUT"


class ForkedError(Error):
    """The object belongs to the parent process; open a client of your own after ``fork``."""

    code = "EFORKED"


class StoreError(Error):
    """The store is damaged, or cannot be used."""

    code = "ESTORE"


class FormatError(StoreError):
    """The store was written by another version."""

    code = "EFORMAT"


class ReadOnlyError(StoreError):
    """The store cannot be written."""

    code = "EREADONLY"


class NoSpaceError(StoreError):
    """The disk is full."""

    code = "ENOSPACE"


class MovedError(StoreError):
    """The store's directory was removed, renamed or replaced while it was open.

    Nothing counts as saved that the path does not lead to. The message says what has happened, and
    where it lies if that is known: moved back, the server goes on.
    """

    code = "EMOVED"


class ReplicaError(Error):
    """A replica is missing, or was asked for what only replica 0 does; the message says which.

    Of replica 0: one that followed it has ended (named, once), or has not come within a minute. Of
    another: replica 0 has not, or has other `replicas`; or it was to save, commit or flush.
    """

    code = "EREPLICA"


class TokenError(Error, ValueError):
    """A token does not fit the stream or the lane, or is missing; the message says what differs."""

    code = "ETOKEN"


class StaleIterator(Error):
    """The position was changed by ``load_state_dict`` or a newer iterator: begin a new one."""

    code = "ESTALE"


class RoundError(Error):
    """Lanes at different steps where they must be at one; the message names them."""

    code = "EROUND"


class LimitError(Error):
    """A limit was reached; the message names it."""

    code = "ELIMIT"


class NotFoundError(Error, KeyError):
    """Nothing of that name or key."""

    code = "ENOTFOUND"


class InterruptedError_(Error):
    """A wait was interrupted: in Python the signal's own exception, as `KeyboardInterrupt`."""

    code = "EINTERRUPTED"


_BY_CODE: dict[str, type[Error]] = {
    thing.code: thing
    for thing in list(globals().values())
    if isinstance(thing, type) and issubclass(thing, Error) and "code" in vars(thing)
}


def make(code: str, detail: str) -> Error:
    """Return the exception for the name of an error code; called by the C extension."""
    error = _BY_CODE.get(code, Error)(detail)
    error.code = code
    return error

"""segue: batches of segments of long sequences, with carried state, over shared memory.

A server cuts long sequences into segments of ``num_unroll`` steps, forms batches of segments of
different sequences, and hands each segment to a worker together with the state that the segment
before left behind::

    import segue

    client = segue.open("runs/exp1")
    stream = client.stream(
        "train",
        source=segue.TFRecord("data/*.tfrecord"),
        sequences={"token": segue.Feature("float32")},
        states={"h": segue.State("float32", [64])},
        num_unroll=20, batch_size=32, lanes=4, epochs=None)

    with stream.loader() as loader:
        for batch in loader:
            h = step(batch.sequences["token"], batch.state("h"))
            batch.save_state("h", h)
"""

from . import errors, tfrecord
from ._segue import VERSION as __version__
from ._segue import Batch
from .client import Client, Stream, open
from .errors import (
    ArgumentError,
    BusyError,
    ChangedError,
    ClosedError,
    CommittedError,
    DataError,
    Error,
    FencedError,
    ForkedError,
    FormatError,
    GoneError,
    HeldError,
    LimitError,
    NoSpaceError,
    NotFoundError,
    OutOfMemory,
    ProtocolError,
    ReadOnlyError,
    RoundError,
    SourceError,
    SpecError,
    StaleIterator,
    StartError,
    StateError,
    StateNameError,
    StateShapeError,
    StateTypeError,
    StoreError,
    SystemCallError,
    TimeoutError_,
    TokenError,
    UnsavedError,
    VersionError,
)
from .loader import Loader
from .spec import Feature, State, TFRecord

__all__ = [
    "__version__",
    "ArgumentError",
    "Batch",
    "BusyError",
    "ChangedError",
    "Client",
    "ClosedError",
    "CommittedError",
    "DataError",
    "Error",
    "Feature",
    "FencedError",
    "ForkedError",
    "FormatError",
    "GoneError",
    "HeldError",
    "LimitError",
    "Loader",
    "NoSpaceError",
    "NotFoundError",
    "OutOfMemory",
    "ProtocolError",
    "ReadOnlyError",
    "RoundError",
    "SourceError",
    "SpecError",
    "StaleIterator",
    "StartError",
    "State",
    "StateError",
    "StateNameError",
    "StateShapeError",
    "StateTypeError",
    "StoreError",
    "SystemCallError",
    "Stream",
    "TFRecord",
    "TimeoutError_",
    "TokenError",
    "UnsavedError",
    "VersionError",
    "errors",
    "open",
    "tfrecord",
]

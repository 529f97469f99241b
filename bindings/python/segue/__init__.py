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

What it refuses raises a subclass of `segue.Error`; ``help(segue.errors)`` lists them, and each is
here too (``segue.BusyError``). Examples are written by `segue.tfrecord`.
"""

import importlib.util

if importlib.util.find_spec(f"{__name__}._segue") is None:
    raise ImportError(
        f"{__path__[0]} is segue's source, without its extension module: leave that directory, or take "
        "it from PYTHONPATH; scripts/build --package builds and installs the package"
    )

from . import errors as errors
from . import tfrecord as tfrecord
from ._arrays import Ragged as Ragged
from ._convert import Converted as Converted
from ._convert import convert
from ._fields import Sparse
from ._segue import VERSION as __version__
from ._segue import Batch
from .arrays import Arrays, Raw
from .client import Client, Stream, open
from .compat import SequenceBatch as SequenceBatch
from .compat import SequenceBatches as SequenceBatches
from .compat import batch_sequences_with_states
from .errors import ArgumentError as ArgumentError
from .errors import BusyError as BusyError
from .errors import ChangedError as ChangedError
from .errors import ClosedError as ClosedError
from .errors import CommittedError as CommittedError
from .errors import DataError as DataError
from .errors import EndedError as EndedError
from .errors import Error as Error
from .errors import FencedError as FencedError
from .errors import ForkedError as ForkedError
from .errors import FormatError as FormatError
from .errors import GoneError as GoneError
from .errors import HeldError as HeldError
from .errors import LimitError as LimitError
from .errors import MovedError as MovedError
from .errors import ReplicaError as ReplicaError
from .errors import NoSpaceError as NoSpaceError
from .errors import NotFoundError as NotFoundError
from .errors import OutOfMemory as OutOfMemory
from .errors import ProtocolError as ProtocolError
from .errors import ReadOnlyError as ReadOnlyError
from .errors import RoundError as RoundError
from .errors import SourceError as SourceError
from .errors import SpecError as SpecError
from .errors import StaleIterator as StaleIterator
from .errors import StartError as StartError
from .errors import StateError as StateError
from .errors import StateNameError as StateNameError
from .errors import StateShapeError as StateShapeError
from .errors import StateTypeError as StateTypeError
from .errors import StoreError as StoreError
from .errors import SystemCallError as SystemCallError
from .errors import TimeoutError_ as TimeoutError_
from .errors import TokenError as TokenError
from .errors import UnsavedError as UnsavedError
from .errors import VersionError as VersionError
from .examples import Examples
from .files import FileWriter
from .keyed import KeyStates, States
from .loader import Loader
from .policy import zero
from .producer import Example, Producer
from .spec import Feature, Files, Mix, Part, Push, State, TFRecord
from .trees import states_like

# What help(segue) shows: of the errors alone it would have 3,000 lines.
__all__ = [
    "__version__",
    "Arrays",
    "Batch",
    "Client",
    "Example",
    "Examples",
    "Feature",
    "Files",
    "FileWriter",
    "KeyStates",
    "Loader",
    "Mix",
    "Part",
    "Producer",
    "Push",
    "Raw",
    "Sparse",
    "State",
    "States",
    "Stream",
    "TFRecord",
    "batch_sequences_with_states",
    "convert",
    "errors",
    "open",
    "states_like",
    "tfrecord",
    "zero",
]

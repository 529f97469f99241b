"""How worker processes add up their gradients: framed messages over a socket to a coordinator.

Each worker computes one gradient a lane and sends them; the coordinator sends all lanes' gradients
to all workers; each worker adds them in lane order. So the sum has the same bits however many
workers share the lanes.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

Header = dict[str, Any]

_FRAME = struct.Struct("<QQ")  # bytes of the JSON header, bytes of the blob


class Channel:
    """One end of a connection that carries (header, blob) messages: JSON, and raw bytes."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the other end for a child process."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The child's channel, on the descriptor that it inherited."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, header: Header, blob: bytes = b"") -> None:
        """Sends one message; OSError if the other end is gone."""
        text = json.dumps(header).encode()
        self._socket.sendall(_FRAME.pack(len(text), len(blob)) + text + blob)

    def receive(self) -> tuple[Header, bytes]:
        """The next message; EOFError if the other end is gone, even in the middle of one."""
        text_size, blob_size = _FRAME.unpack(self._read(_FRAME.size))
        body = self._read(text_size + blob_size)
        return json.loads(body[:text_size]), body[text_size:]

    def _read(self, size: int) -> bytes:
        out = bytearray(size)
        view, done = memoryview(out), 0
        while done < size:
            try:
                count = self._socket.recv_into(view[done:])
            except ConnectionResetError:
                count = 0
            if count == 0:
                raise EOFError("the other end of the channel is gone")
            done += count
        return bytes(out)


def add_in_lane_order(blob: bytes, lanes: int) -> np.ndarray:
    """Sum of `lanes` float32 gradients that lie one after the other, lane 0 first."""
    gradients: Iterable[np.ndarray] = np.frombuffer(blob, np.float32).reshape(lanes, -1)
    total, *others = gradients
    total = total.copy()
    for gradient in others:
        total += gradient
    return total

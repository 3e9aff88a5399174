"""How jobs go from the server to decoder_child.py: their length, their text, and the files that go along, over one socket."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!I")
_MOST_FILES = 4


def send(control: socket.socket, text: bytes, files: list[int]) -> None:
    socket.send_fds(control, [_HEADER.pack(len(text))], files)
    control.sendall(text)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """The next job and its files; no text when the other end is gone."""
    head, files, _, _ = socket.recv_fds(control, _HEADER.size, _MOST_FILES)
    if len(head) < _HEADER.size:
        return b"", files
    left, parts = _HEADER.unpack(head)[0], []
    while left:
        parts.append(control.recv(left))
        if not parts[-1]:
            return b"", files
        left -= len(parts[-1])
    return b"".join(parts), files

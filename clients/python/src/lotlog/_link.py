"""One connection to the daemon: connect, send, receive, none of which ever waits. Knows lines; does not know what stands
in them, nor how to wait for more.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import List, Optional

#: The longest reply line that is taken; a status page, the longest, has a few KiB.
MAX_REPLY_BYTES = 1 << 20
_READ_BYTES = 64 << 10
#: What may lie in the kernel on its way to the daemon, as far as the system allows it: several batches, so that the daemon
#: takes them together and a producer seldom waits for it.
_SEND_BUFFER_BYTES = 1 << 20


class Link:
    """A connection, or none."""

    __slots__ = ("path", "_sock", "_inbox", "_outbox")

    def __init__(self, path: str):
        self.path = path
        self._sock: Optional[socket.socket] = None
        self._inbox = b""
        self._outbox = memoryview(b"")

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    @property
    def has_unsent(self) -> bool:
        """Whether part of a line could not be handed to the kernel yet."""
        return len(self._outbox) > 0

    def open(self) -> None:
        """Connects, or raises OSError: BlockingIOError where the daemon has a queue of others to take first."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            sock.connect(self.path)
        except BaseException:
            sock.close()
            raise
        self.close()
        self._sock = sock

    def close(self) -> None:
        """Lets the connection go; a socket shared with a parent process is left as it is there."""
        sock, self._sock = self._sock, None
        self._inbox = b""
        self._outbox = memoryview(b"")
        if sock is not None:
            sock.close()

    def send(self, line: bytes) -> bool:
        """Hands a whole line over, as far as the kernel takes it now; whether that was all. Call :meth:`flush` for the rest.
        Only without unsent."""
        assert self._sock is not None
        try:
            sent = self._sock.send(line)
        except BlockingIOError:
            sent = 0
        if sent == len(line):
            return True
        self._outbox = memoryview(line)[sent:]
        return False

    def flush(self) -> bool:
        """Sends what is left; whether all of it is handed over."""
        while self._outbox:
            assert self._sock is not None
            try:
                sent = self._sock.send(self._outbox)
            except BlockingIOError:
                return False
            self._outbox = self._outbox[sent:]
        return True

    def receive(self) -> Optional[List[bytes]]:
        """The whole lines that are there; None at the end of the stream."""
        assert self._sock is not None
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        if not data:
            return None
        if self._inbox:
            data = self._inbox + data
        lines = data.split(b"\n")
        self._inbox = lines.pop()
        if len(self._inbox) > MAX_REPLY_BYTES:
            raise OSError(errno.EPROTO, f"{self.path} sent what is not a reply of lotlogd")
        return lines

    def poller(self) -> "select.poll":
        """What to poll until something can go on; to be taken while nobody can close the connection. One for each wait: a
        thread that is late may still be in its poll when the next one begins, and one object does not serve two."""
        assert self._sock is not None
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLOUT if self._outbox else select.POLLIN)
        return poll

    def fileno(self) -> int:
        assert self._sock is not None
        return self._sock.fileno()

"""A session on its connection: does all that can be done without waiting, and says what is to be waited for. Whoever drives
it waits, by poll, by a condition, or in an event loop; it knows none of them.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Optional, Protocol

from ._json import loads
from ._link import Link
from ._session import ProtocolViolation, Session, Settled

#: Pause where the daemon's queue of new connections is full.
_BACKLOG_PAUSE_SECONDS = 0.002
_NOTHING_TO_DO_SECONDS = 3600.0
#: A poll lasts at most this long: what there is time for may be more than a poll can be told.
_SLICE_SECONDS = 1.0


class Driver:
    """Drives ``session`` over a connection to ``path``; ``settle`` is told of each batch that is settled."""

    def __init__(self, path: str, session: Session, settle: Callable[[Settled], None]):
        self.session = session
        self.link = Link(path)
        self.settle = settle
        #: When nobody could be reached last, by the monotonic clock.
        self.connect_failed_at = -1.0
        self.connections = 0

    def work(self, now: float) -> Optional[float]:
        """Connects, sends what is due. None: wait until the connection has something, then :meth:`receive`; a number: the
        seconds until it is worth coming back."""
        session, link = self.session, self.link
        if not link.is_open:
            if not session.pending:
                return _NOTHING_TO_DO_SECONDS
            if now < session.not_before:
                return session.not_before - now
            try:
                link.open()
            except BlockingIOError:
                session.trouble = f"the daemon at {link.path} accepts no connection"
                return _BACKLOG_PAUSE_SECONDS
            except OSError as error:
                self.connect_failed_at = now
                session.connect_failed(f"no daemon at {link.path}: {error.strerror or error}", now)
                return session.not_before - now
            self.connections += 1
        self.send_due(now)
        if not link.is_open:
            return max(session.not_before - now, 0.0)
        if link.has_unsent or session.awaits_reply():
            return None
        return max(session.not_before - now, 0.0) if session.pending else _NOTHING_TO_DO_SECONDS

    def send_due(self, now: float) -> None:
        """Hands over what is due, as far as the kernel takes it. Without a connection, nothing."""
        session, link = self.session, self.link
        if not link.is_open:
            return
        try:
            if link.has_unsent and not link.flush():
                return
            line = session.next_line(now)
            while line is not None and link.send(line):
                line = session.next_line(now)
        except OSError as error:
            # What the daemon had answered is worth more than EPIPE.
            while link.is_open and self.receive(now):
                pass
            self.lose(f"the connection to {link.path} broke: {error.strerror or error}", False, now)

    def receive(self, now: float) -> bool:
        """Takes what has come; whether anything had."""
        session, link = self.session, self.link
        try:
            lines = link.receive()
            if lines is None:
                self.lose(f"the daemon at {link.path} closed the connection", False, now)
                return False
            for text in lines:
                settled = session.received(loads(text), now)
                if settled is not None:
                    self.settle(settled)
            return bool(lines)
        except OSError as error:
            self.lose(f"connection to {link.path}: {error.strerror or error}", True, now)
        except (ProtocolViolation, ValueError, AttributeError, TypeError) as error:
            self.lose(f"{link.path} does not speak lotlog's protocol: {error}", True, now)
        return False

    def lose(self, why: str, by_us: bool, now: float) -> None:
        """Lets the connection go; what was on its way goes again on the next one."""
        if self.link.is_open:
            self.link.close()
            self.session.connection_lost(why, by_us, now)


class Driven(Protocol):
    """A driver, or what has one."""

    @property
    def link(self) -> Any: ...

    def work(self, now: float) -> Optional[float]: ...

    def receive(self, now: float) -> Any: ...


def run(what: Driven, until: Callable[[], bool], limit: Callable[[], float]) -> None:
    """Drives and waits, where nobody else does either, until it is done or ``limit()`` (monotonic) has come."""
    while not until():
        now = time.monotonic()
        pause = what.work(now)
        left = limit() - now
        if left <= 0 or until():
            break
        if pause is None:
            what.link.poller().poll(max(1, int(min(left, _SLICE_SECONDS) * 1000)))
            what.receive(time.monotonic())
        else:
            time.sleep(min(pause, left))

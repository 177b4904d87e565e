"""A producer's session: numbers batches, keeps those without an answer, sends them again after a broken connection,
and gives new numbers after a refusal. Pure: it knows no sockets, no clock but the times it is given, no threads.

Why nothing is lost or doubled. A batch leaves the queue only with its answer, or when the caller gives it up. One whose
answer was lost is sent again under the *same* number. A number changes only after the daemon refused the batch before
it, and then only when each later batch of that connection was answered too, or the daemon itself had ended the
connection, of which it then reads no more. Where it was *we* who gave a connection up with batches on their way, their
lines may still be lying unread at the daemon: a refusal after that begins a new session instead of giving new numbers,
so that under one name a number has one meaning for as long as anybody may read it.

Where somebody else uses our name (a copy of this process), a number of ours may hold his batch. Ours was then not stored and is
displaced; those behind it keep their numbers, because they may be stored by now. Once nothing that was sent is without an
answer, the displaced and all that was never sent go on under a new name.
"""

from __future__ import annotations

import uuid
from collections import deque
from typing import Any, Callable, Deque, List, Mapping, Optional, Tuple, Union

from ._errors import Refused
from ._receipt import Receipt

FIRST_PAUSE_SECONDS = 0.025
LONGEST_PAUSE_SECONDS = 2.0
#: Batches without an answer on one connection, at most: the daemon reads no further beyond its own 256.
MAX_IN_FLIGHT_BATCHES = 256


class ProtocolViolation(Exception):
    """What came is no answer to what was sent: something else listens there."""


class Batch:
    """One batch: the rest of its request line behind session and number, and who waits for it."""

    __slots__ = ("body", "records", "receipt", "maybe_stored", "displaced")

    def __init__(self, body: bytes, records: int, receipt: Optional[Receipt]):
        self.body = body
        self.records = records
        self.receipt = receipt
        #: It went out on a connection that ended before its answer came.
        self.maybe_stored = False
        #: Its number held somebody else's batch once.
        self.displaced = False


Outcome = Union[Mapping[str, Any], Refused]
#: A batch, the session and number under which it was answered, and the answer.
Settled = Tuple[Batch, str, int, Outcome]


def line(session: str, seq: int, body: bytes) -> bytes:
    """The request line of a batch, as it is sent and as it is spooled."""
    return b'{"session":"%s","seq":%d,%s' % (session.encode(), seq, body)


class Session:
    """The state of one session. With ``fixed`` the numbers are given and never change (spooled batches)."""

    def __init__(self, name: Optional[str] = None, first_seq: int = 1, fixed: bool = False):
        self.name = name or str(uuid.uuid4())
        self.fixed = fixed
        self.pending: Deque[Batch] = deque()
        self.pending_bytes = 0
        #: The number of ``pending[0]``; ``pending[i]`` has ``base_seq + i``.
        self.base_seq = first_seq
        #: ``pending[:in_flight]`` were sent on this connection and wait for their replies.
        self.in_flight = 0
        #: Replies to come that are about numbers no longer valid; while there are any, nothing is sent.
        self.stale = 0
        #: The numbers of the lines that those replies are about belong to other batches now.
        self._moved = False
        #: Otherwise those lines are about ``pending[:_stale_span]``.
        self._stale_span = 0
        #: Batches whose numbers hold somebody else's: they wait for a new name.
        self._displaced: List[Batch] = []
        #: After the stale replies the session goes on under a new name.
        self.renew_due = False
        #: We gave up a connection whose lines the daemon may still read.
        self.tainted = False
        #: Nothing is sent: the caller is about to take the rest away.
        self.held = False
        self.not_before = 0.0
        self.trouble = ""
        #: Set where trying again is of no use, e.g. ``forbidden``.
        self.fatal: Optional[Refused] = None
        #: Acknowledged batches that the daemon no longer knows of.
        self.forgotten = 0
        #: How often the session had to go on under a new name.
        self.renewed = 0
        #: How many batches have left the session, answered or given up.
        self.settled = 0
        self._allowance = MAX_IN_FLIGHT_BATCHES
        self._pause = FIRST_PAUSE_SECONDS
        #: Something was stored on this connection.
        self._progress = False

    # What is sent.

    def submit(self, batch: Batch) -> None:
        """Takes a batch; :meth:`next_line` gives it out in its turn."""
        self.pending.append(batch)
        self.pending_bytes += len(batch.body)

    def next_line(self, now: float) -> Optional[bytes]:
        """The next line to send, if one is due: it then counts as sent."""
        at = self.in_flight
        if at >= len(self.pending) or at >= self._allowance or self.stale or self.held or now < self.not_before:
            return None
        if self._displaced and not self.pending[at].maybe_stored:
            return None  # it goes under the new name
        self.in_flight += 1
        return line(self.name, self.base_seq + at, self.pending[at].body)

    def settles(self) -> Callable[[], bool]:
        """Whether all that is pending now is settled, to be asked later."""
        goal = self.settled + len(self.pending) + len(self._displaced)
        return lambda: self.settled >= goal and not self._displaced

    def awaits_reply(self) -> bool:
        """Whether a reply is due on this connection."""
        return self.in_flight > 0 or self.stale > 0

    # What comes back.

    def received(self, reply: Mapping[str, Any], now: float) -> Optional[Settled]:
        """Takes one reply; gives what it settled.

        Raises :class:`ProtocolViolation` where it answers nothing that was sent; the connection is then of no use.
        """
        ok = reply.get("ok")
        error = reply.get("error")
        if ok is not True and not (ok is False and isinstance(error, Mapping)):
            raise ProtocolViolation("what came is not a reply of lotlogd")
        if self.stale:
            if ok and not reply.get("duplicate"):
                if self._moved and not self.tainted:
                    raise ProtocolViolation("the daemon stored a batch after a gap")
                # No gap: what was refused for now had been stored before. All goes again under the same numbers.
                for batch in self.pending:
                    batch.maybe_stored = True
            self.stale -= 1
            if not self.stale:
                self._moved = False
                if self.renew_due:
                    self.renew()
                self._go_on_under_a_new_name_if_due()
            return None
        if ok:
            return self._stored(reply)
        assert isinstance(error, Mapping)
        refused = Refused.of(error)
        if refused.code == "forbidden" or (not self.in_flight and not refused.retryable):
            self.fatal = refused
            return None
        if not self.in_flight:  # about the connection itself: `busy`, `shutting_down`
            self._put_off(refused, now)
            return None
        if reply.get("seq", self.base_seq) != self.base_seq:
            raise ProtocolViolation(f"the daemon answered seq {reply.get('seq')} instead of {self.base_seq}")
        if refused.code == "conflict" and not self.fixed:
            return self._displace(refused)
        self.stale = self.in_flight - 1
        self.in_flight = 0
        self._allowance = 1
        if refused.retryable:
            self._put_off(refused, now)
            self._stale_span = self.stale + 1
            self._go_on_under_a_new_name_if_due()
            return None
        if refused.code == "out_of_sequence" and not self.fixed:
            expected = refused.expected
            if expected is not None and 1 <= expected < self.base_seq and not (self.tainted or self._displaced):
                # Nothing was ever stored there under our number or a later one: going on from
                # `expected` doubles nothing.
                self.forgotten += self.base_seq - expected
                self.base_seq = expected
                self._moved = self.stale > 0
                return None
            return self._after_refusal(None, gone=True)
        seq = self.base_seq
        settled = (self._taken(self.pending.popleft()), self.name, seq, refused)
        self._moved = self.stale > 0
        return self._after_refusal(settled)

    def _stored(self, reply: Mapping[str, Any]) -> Optional[Settled]:
        if not self.in_flight:
            raise ProtocolViolation("the daemon answered what was not asked")
        first = self.pending[0]
        seq = self.base_seq
        if reply.get("seq") != seq:
            raise ProtocolViolation(f"the daemon answered seq {reply.get('seq')} instead of {seq}")
        if reply.get("duplicate") and not (first.maybe_stored or self.fixed or self.tainted):
            return self._displace(None)
        # No call stands between these, so that an interrupt finds all of them done or none: a number given on while its
        # batch is still pending would store that batch twice.
        del self.pending[0]
        self.base_seq = seq + 1
        self.in_flight -= 1
        if self._allowance < MAX_IN_FLIGHT_BATCHES:
            self._allowance *= 2
        name = self.name
        if self._displaced:
            self._go_on_under_a_new_name_if_due()
        return (self._taken(first), name, seq, reply)

    def _displace(self, refused: Optional[Refused]) -> Optional[Settled]:
        """The first number holds somebody else's batch, so ours was not stored. Those behind it were the next, and go on."""
        first = self.pending[0]
        settled: Optional[Settled] = None
        if first.displaced:
            # A name that nobody else can know: what answers so is wrong about this batch, or no daemon.
            if refused is None:
                raise ProtocolViolation(f"the daemon answered `duplicate` to seq {self.base_seq}, which is new")
            settled = (first, self.name, self.base_seq, refused)
        else:
            first.displaced = True
            self._displaced += [first]
        # Again without a call in between.
        del self.pending[0]
        self.base_seq += 1
        self.in_flight -= 1
        if settled is not None:
            self._taken(first)
        self._go_on_under_a_new_name_if_due()
        return settled

    def _go_on_under_a_new_name_if_due(self) -> None:
        is_known = not (self.in_flight or self.stale or (self.pending and self.pending[0].maybe_stored))
        if self._displaced and is_known:
            self.renew()

    def _taken(self, batch: Batch) -> Batch:
        self.pending_bytes -= len(batch.body)
        self.settled += 1
        self._pause = FIRST_PAUSE_SECONDS
        self._progress = True
        self.trouble = ""
        return batch

    def _after_refusal(self, settled: Optional[Settled], gone: bool = False) -> Optional[Settled]:
        """The numbers behind a refused batch are free; are they safe to be given again? ``gone``: the daemon knows nothing
        of the session."""
        if not self.fixed and (gone or self.tainted or self._displaced):
            if self.stale:
                self.renew_due = True
            else:
                self.renew()
        return settled

    def renew(self) -> None:
        """Goes on under a new name, with all that is pending."""
        self.pending.extendleft(reversed(self._displaced))
        self._displaced = []
        self.name = str(uuid.uuid4())
        self.base_seq = 1
        self.in_flight = self.stale = 0
        self.renew_due = self.tainted = self._moved = False
        self.renewed += 1
        for batch in self.pending:
            batch.maybe_stored = False

    def _put_off(self, refused: Refused, now: float) -> None:
        self.trouble = str(refused)
        self.back_off(now)

    def back_off(self, now: float) -> None:
        """Nothing is tried for a while that grows with each failure."""
        self.not_before = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    def connection_lost(self, why: str, by_us: bool, now: float) -> None:
        """The connection is gone: what was on its way is sent again on the next one."""
        if not self.trouble:
            self.trouble = why
        for at in range(self.in_flight):
            self.pending[at].maybe_stored = True
        if by_us and self.stale and not self._moved:
            for at in range(min(self._stale_span, len(self.pending))):
                self.pending[at].maybe_stored = True
        if by_us and self.awaits_reply():
            self.tainted = True
        # Our numbers have moved since lines that may still lie at the daemon were sent.
        renew = self.renew_due or (by_us and self._moved)
        self.in_flight = self.stale = 0
        self._moved = False
        if renew and not self.fixed:
            self.renew()
        self._go_on_under_a_new_name_if_due()
        if self.not_before <= now and not self._progress:
            self.back_off(now)
        self._progress = False

    def connect_failed(self, why: str, now: float) -> None:
        """Nobody listens, for now."""
        self.trouble = why
        self.back_off(now)

    def withdraw(self, receipt: Receipt) -> Tuple[List[Batch], List[Batch]]:
        """Takes back what one call has handed over: the batches that were never sent, which are gone, and those that were,
        which stay and have nobody to tell."""
        sent = max(self.in_flight, self._stale_span if self.stale else 0)
        while sent < len(self.pending) and self.pending[sent].maybe_stored:
            sent += 1
        known = list(self.pending)
        left = [batch for batch in known[:sent] if batch.receipt is receipt]
        for batch in left:
            batch.receipt = None
        gone = [batch for batch in self._displaced + known[sent:] if batch.receipt is receipt]
        self.pending = deque(known[:sent] + [batch for batch in known[sent:] if batch.receipt is not receipt])
        self._displaced = [batch for batch in self._displaced if batch.receipt is not receipt]
        self.pending_bytes -= sum(len(batch.body) for batch in gone)
        self.settled += len(gone)
        return gone, left

    def given_up(self) -> List[Tuple[str, int, Batch]]:
        """Everything pending, with the session and number that it must be sent under, if ever, were it given up now. The
        connection must be gone."""
        found = [(self.name, self.base_seq + at, batch) for at, batch in enumerate(self.pending)]
        name = str(uuid.uuid4())
        return found + [(name, at, batch) for at, batch in enumerate(self._displaced, 1)]

    def abandon(self) -> None:
        """Gives everything pending up, and begins a new session."""
        self.settled += len(self.pending) + len(self._displaced)
        self.pending.clear()
        self._displaced = []
        self.pending_bytes = 0
        self.renew()
        self.renewed -= 1
        self._allowance = MAX_IN_FLIGHT_BATCHES
        self._pause = FIRST_PAUSE_SECONDS
        self.not_before = 0.0
        self.fatal = None
        self.trouble = ""

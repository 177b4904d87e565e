"""Delivering a spool: file by file, each batch in order and once. One step at a time, so that whoever drives it may wait in
its own way. Knows the spool's files and the driver; does not know the client.

A batch goes under the session and number it was spooled with, so that one which had been stored already is not stored
again. Where the daemon no longer knows the session, and where it refuses a batch for good (the numbers behind it are then
free), the rest of the file is first written anew under a new session, synced, and delivered from there: were it
interrupted, whoever goes on uses the same new numbers.
"""

from __future__ import annotations

import uuid
from typing import Callable, List, Optional, Set

from ._driver import Driver
from ._errors import Refused
from ._link import Link
from ._session import Batch, Session, Settled, line
from ._spool import Spool, SpooledLine


#: How often is looked whether another process has done with delivering.
_LOCK_PAUSE_SECONDS = 0.01


class Delivery:
    """One attempt to deliver what lies in a spool. Drive it: :meth:`work` and, as it says, :meth:`receive`, until ``ended``."""

    def __init__(self, spool: Spool, path: str, warn: Callable[[str], None]):
        self._spool = spool
        self._path = path
        self._warn = warn
        self._handle: Optional[int] = None
        #: Another process delivers, or another thread, and something of ours is left.
        self.waits_for_lock = False
        #: What is to be delivered, the next one last.
        self._names: List[str] = []
        self._name = ""
        #: The run in delivery (lines of one session, numbered without gaps), how much of it is done, what follows it.
        self._run: List[SpooledLine] = []
        self._done = 0
        self._behind: List[SpooledLine] = []
        self._refusal: Optional[Refused] = None
        #: Sessions of batches that were left because their lot is refused for now.
        self._put_off: Set[str] = set()
        #: The driver of the run in delivery.
        self.driver: Optional[Driver] = None
        #: Nothing more can be done now.
        self.ended = False
        #: What is left is another process's, or cannot be delivered now whatever the daemon does: new batches need not wait.
        self.may_overtake = False
        self.delivered_batches = 0
        self.delivered_records = 0
        self.refused_batches = 0
        self.last_trouble = ""
        #: The daemon has answered something.
        self.answered = False

    def work(self, now: float) -> Optional[float]:
        """As :meth:`Driver.work`."""
        while not self.ended:
            if self._handle is None:
                self._begin()
                if self.waits_for_lock:
                    return _LOCK_PAUSE_SECONDS
                continue
            driver = self.driver
            if driver is None:
                self._next_file()
                continue
            session = driver.session
            if self._refusal is not None and not session.awaits_reply():
                self._after_refusal()
                continue
            if not session.pending:
                self._leave_run()
                self._next_run(self._behind)
                continue
            self.last_trouble = str(session.fatal or "") or session.trouble or self.last_trouble
            if session.fatal is not None:
                self._leave_run()
                self.ended = True
                continue
            if session.trouble.startswith("lot_unavailable"):
                self._put_off.add(session.name)
                self._leave_run()
                continue
            return driver.work(now)
        return 0.0

    def _begin(self) -> None:
        self._handle = self._spool.lock()
        if self._handle is not None:
            self.waits_for_lock, self.last_trouble = False, ""
            self._spool.clear_leftovers()
            self._names = self._spool.names()[::-1]
        else:
            self.last_trouble = "another process is delivering them"
            self.waits_for_lock = self._spool.holds_ours()
            self.ended = self.may_overtake = not self.waits_for_lock

    def receive(self, now: float) -> None:
        if self.driver is not None:
            self.driver.receive(now)

    @property
    def link(self) -> Link:
        """The connection to wait for, where :meth:`work` says so."""
        assert self.driver is not None
        return self.driver.link

    def close(self) -> None:
        """Ends it, wherever it is; what is not acknowledged stays in the spool."""
        self._leave_run()
        self.ended = True
        handle, self._handle = self._handle, None
        if handle is not None:
            self._spool.unlock(handle)

    def _next_file(self) -> None:
        if not self._names:
            # What is left cannot be delivered now, or came meanwhile from another process: new batches need not wait.
            self.may_overtake = True
            self.ended = True
            return
        self._name = self._names.pop()
        try:
            lines = self._spool.read(self._name)
        except OSError as error:
            self._warn(f"{self._name} in the spool {self._spool.directory} cannot be read, so it is left there: {error}")
            return
        if lines is not None:
            for odd in (text for text in lines if not text.session):
                self._set_aside(odd.text, "it is no request line of a spool")
            self._next_run([text for text in lines if text.session])

    def _next_run(self, lines: List[SpooledLine]) -> None:
        """Begins with the first lines that belong together; a file has more than one such run only where somebody made it."""
        if not lines:
            self._spool.remove(self._name)
            return
        first = lines[0]
        if first.session in self._put_off:
            return
        end = 1
        while end < len(lines) and (lines[end].session, lines[end].seq) == (first.session, first.seq + end):
            end += 1
        self._run, self._done, self._behind = lines[:end], 0, lines[end:]
        session = Session(first.session, first.seq, fixed=True)
        for text in self._run:
            session.submit(Batch(text.body, 0, None))
        self.driver = Driver(self._path, session, self._settle)

    def _leave_run(self) -> None:
        if self.driver is not None:
            self.driver.link.close()
            self.driver = None

    def _settle(self, settled: Settled) -> None:
        outcome = settled[3]
        self.answered = True
        driver = self.driver
        assert driver is not None
        if isinstance(outcome, Refused):
            self._refusal = outcome
            driver.session.held = True
            return
        self._done += 1
        if not outcome.get("duplicate"):
            self.delivered_batches += 1
            self.delivered_records += int(outcome.get("records") or 0)

    def _after_refusal(self) -> None:
        refused, self._refusal = self._refusal, None
        assert refused is not None
        rest = self._run[self._done :]
        if refused.code == "out_of_sequence":
            if refused.expected == 1:
                self._warn(
                    f"the daemon does not know session {rest[0].session} any more: {len(rest)} spooled batches go under a "
                    "new one; any of them that it had stored before it forgot is now stored twice"
                )
        else:
            self._set_aside(rest[0].text, str(refused))
            rest = rest[1:]
        if refused.code == "conflict":
            # That number is used up, so those behind it were the next, and may be stored by now: they keep theirs.
            lines = [text.text for text in rest]
        else:
            name = str(uuid.uuid4())
            lines = [line(name, at, text.body) for at, text in enumerate(rest, 1)]
        lines += [text.text for text in self._behind]
        if lines:
            self._spool.replace(self._name, lines)
            self._names.append(self._name)
        else:
            self._spool.remove(self._name)
        self._leave_run()

    def _set_aside(self, text: bytes, why: str) -> None:
        self.refused_batches += self._spool.set_aside(self._name, text)
        self._warn(f"a spooled batch was refused and is kept in {self._spool.directory}, in a file .refused: {why}")

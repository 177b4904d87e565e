"""What the blocking and the asynchronous client share: settings, batches out of items, what becomes of settled and of given-up
batches, counts, warnings. Never waits; whoever uses it holds its lock, if there is one.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple, TypeVar, Union

from . import _encode, _lives, _places
from ._deliver import Delivery
from ._driver import Driver, run
from ._encode import Body
from ._errors import LotlogError, Refused, SpoolError, Unencodable, Unreachable, say
from ._json import loads
from ._link import Link
from ._mode import environment_mode
from ._receipt import Receipt
from ._session import Batch, Session, Settled, line
from ._spool import Spool
from ._tables import Rows, rows_of

#: Batches without an answer, at most, in bytes; one is always allowed.
MAX_UNSETTLED_BYTES = 8 << 20
#: The same as a count.
MAX_UNSETTLED_BATCHES = 1024
#: After a failure the daemon gets no more than this of a call's time, until it answers again (not with "raise"). Nor does an
#: old spool get more of the time of a call that does not wait.
IMPATIENT_SECONDS = 0.25
#: How long calls that do not wait leave a daemon that does not answer in peace.
RETRY_SECONDS = 1.0
#: How long a call that does not wait for the answer waits for the kernel to take the whole line.
HAND_OVER_SECONDS = 0.1
#: After so many batches a call that does not wait looks for answers; with so many on their way each does.
_READ_EVERY_BATCHES = 16
_READ_AT_BATCHES = 240

Path = Union[str, "os.PathLike[str]"]
Bounded = TypeVar("Bounded", bound="BoundContext")

_ON_FAILURE = ("raise", "warn", "spool")
_ACKS = (None, "synced", "written")
_COUNTED = (
    "batches", "records", "duplicates", "dropped", "refused", "spooled", "spooled_records", "delivered",
    "delivered_records", "lost", "lost_records", "unknown", "forgotten",
    "unencodable",
)  # fmt: skip


class Core:
    """A client without its waiting."""

    def __init__(
        self,
        socket: Optional[Path] = None,
        *,
        ack: Optional[str] = None,
        timeout: float = 5.0,
        on_failure: str = "raise",
        spool_dir: Optional[Path] = None,
    ):
        """``socket``: where the daemon listens; by default ``LOTLOG_SOCKET``, else the usual places. ``ack``: what an
        acknowledgement promises, ``"synced"`` or ``"written"``; by default the daemon's setting. ``timeout``: seconds that one
        call may take in all. ``on_failure``: what happens when a batch cannot be stored: ``"raise"``, ``"warn"`` (the batch is
        lost, and counted) or ``"spool"`` (it is kept in a file of ``spool_dir`` and delivered by a later call or by
        ``lotlog send --spool``).
        """
        if on_failure not in _ON_FAILURE:
            raise ValueError(f"on_failure is {on_failure!r}: use one of {', '.join(_ON_FAILURE)}")
        if ack not in _ACKS:
            raise ValueError(f"ack is {ack!r}: use 'synced' or 'written', or leave it to the daemon")
        self._mode = environment_mode()
        self._ack = ack
        self._timeout = float(timeout)
        if self._timeout != self._timeout:
            raise ValueError("timeout is nan: give it in seconds")
        self._on_failure = on_failure
        self._counts: Dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._pid = os.getpid()
        self._closed = False
        self._session = Session()
        path = ""
        self._spool: Optional[Spool] = None
        if self._mode == "on":
            try:
                path = os.fspath(socket) if socket is not None else _places.socket_path()
            except OSError as error:  # that is no reason to lose what can be spooled
                if on_failure == "raise":
                    raise
                say(f"lotlog: no daemon can be asked: {error}")
        if self._mode != "off" and (on_failure == "spool" or self._mode == "spool"):
            self._spool = Spool(os.fspath(spool_dir) if spool_dir is not None else _places.spool_dir())
        self._driver = Driver(path, self._session, self._settle)
        #: Something may lie in the spool that goes before what comes now.
        self._spool_waits = self._spool is not None and self._mode == "on" and self._spool.has_any()
        self._impatient = False
        #: When (monotonic) the next call that does not wait may try to deliver the spool.
        self._not_before = 0.0
        self._read_at = _READ_EVERY_BATCHES
        self._warned: Dict[str, bool] = {}
        self._to_say: List[str] = []
        self._forgotten_seen = 0
        #: Settled receipts with callbacks that are to be called once nothing is in hand.
        self._to_call: List[Receipt] = []
        #: Calls that wait for their receipts, and until when.
        self._awaited: List[Tuple[Receipt, float]] = []
        self._begin_waiting()
        if self._mode != "off":
            _lives.register(self)

    # Of the process.

    def _after_fork(self) -> None:
        """In the child: the parent's connection and what is on its way are the parent's; a new session begins here."""
        self._driver.link.close()
        self._session = Session()
        self._driver = Driver(self._driver.link.path, self._session, self._settle)
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._pid = os.getpid()
        self._to_call, self._to_say, self._awaited = [], [], []
        self._warned = {}
        self._forgotten_seen = 0
        _lives.idle(self)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Nobody waits yet: in a new client, and in a forked child, whatever the parent's threads were doing."""
        raise NotImplementedError

    def _has_pending(self) -> bool:
        return bool(self._session.pending) and self._pid == os.getpid()

    def _at_exit(self, deadline: float) -> None:
        """The process ends: what is pending has until then. Blocks, and is for whoever holds no locks and no event loop."""
        began = time.monotonic()
        settled = self._session.settles()
        run(self._driver, settled, lambda: deadline)
        if not settled():
            self._give_up(max(0.0, deadline - began))
        self._call_back()

    def _enter(self) -> None:
        pid = os.getpid()
        if self._pid != pid:  # a fork that Python did not see
            self._after_fork()
        _lives.prepare_process(pid)
        self._refuse_if_closed()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ValueError("the client is closed: nothing was sent")

    def __del__(self) -> None:
        driver = getattr(self, "_driver", None)
        if driver is not None:
            driver.link.close()

    # Into the session.

    def _bodies(self, items: Any, lot_id: Any, context: Optional[Mapping[str, Any]], more: Dict[str, Any]) -> Tuple[List[Body], Rows]:
        """What was given to ``log``, as batches; and the rows that they were made of. To let go of a table's rows takes as long
        as a third of making them: whoever waits for the daemon has the time for it while it waits."""
        if context:
            more = {**context, **more}
        if lot_id is not None:
            more["lot_id"] = lot_id
        try:
            rows = items if isinstance(items, Rows) else rows_of(items)
            return _encode.bodies(rows, _encode.context_json(more), self._ack) if rows.rows else [], rows
        except Unencodable:
            self.count_unencodable()
            raise

    def count_unencodable(self) -> None:
        """A call's items or context could not be understood: ``stats()["unencodable"]``."""
        self._counts["unencodable"] += 1

    def _hand_over(self, body: Body, receipt: Receipt) -> bool:
        """A batch into the session and, if the connection takes it, to the daemon; whether the kernel just now took no more."""
        driver, session, now = self._driver, self._session, time.monotonic()
        try:
            if self._impatient:
                session.not_before = 0.0
            was_stuck = driver.link.has_unsent
            _lives.busy(self)
            session.submit(Batch(body.text, body.records, receipt))
            if session.in_flight >= self._read_at and driver.link.is_open:
                driver.receive(now)
                self._read_at = min(session.in_flight + _READ_EVERY_BATCHES, _READ_AT_BATCHES)
            driver.work(now)
        except BaseException:
            driver.lose("interrupted", True, now)
            raise
        return driver.link.has_unsent and not was_stuck

    def _is_full(self) -> bool:
        session = self._session
        return session.pending_bytes >= MAX_UNSETTLED_BYTES or len(session.pending) >= MAX_UNSETTLED_BATCHES

    def _limit(self, started: float, timeout: float) -> float:
        """Until when the daemon is waited for in a call; 0 where it is of no use."""
        if self._session.fatal is not None:
            return 0.0
        if not self._impatient:
            return started + timeout
        if self._driver.connect_failed_at >= started:
            return 0.0
        return started + min(timeout, IMPATIENT_SECONDS)

    # Out of the session.

    def _settle(self, settled: Settled) -> None:
        batch, session, _, outcome = settled
        receipt = batch.receipt
        counts = self._counts
        if isinstance(outcome, Refused):
            counts["refused"] += 1
            self._not_stored(batch, outcome)
            return
        self._impatient = False
        counts["batches"] += 1
        counts["records"] += batch.records
        if outcome.get("duplicate"):
            counts["duplicates"] += 1
        if "dropped" in outcome:
            counts["dropped"] += sum(outcome["dropped"].values())
        if receipt is not None:
            receipt._stored(outcome, batch.records, session)
            if receipt._callbacks and receipt.done():
                self._to_call.append(receipt)

    def _not_stored(self, batch: Batch, error: Exception) -> None:
        receipt = batch.receipt
        if self._on_failure != "raise" or (receipt is not None and not (receipt._is_awaited or receipt._callbacks)):
            self._warn("not stored", f"a batch of {batch.records} records was not stored: {error}")
        if batch.receipt is not None:
            batch.receipt._failed(error)
            if batch.receipt._callbacks and batch.receipt.done():
                self._to_call.append(batch.receipt)

    def _look_back(self) -> None:
        """Says what the session has noticed on its way."""
        forgotten = self._session.forgotten
        self._counts["forgotten"] += forgotten - self._forgotten_seen
        self._forgotten_seen = forgotten
        self._warn(
            "forgotten",
            f"the daemon no longer knows {forgotten} batches that it acknowledged: was it started on another data "
            "directory, or did a power cut take batches that were only `written`?",
        )

    def _give_up(self, timeout: float, receipt: Optional[Receipt] = None) -> None:
        """Nothing pending is waited for any longer: it goes to the spool, or its receipts fail. Where a call's time is over
        and others have time left, only what that call handed over."""
        session = self._session
        if receipt is not None and self._on_failure != "spool" and self._others_wait(receipt):
            self._withdraw(timeout, receipt)
            return
        fatal = session.fatal
        why = session.trouble or f"the daemon at {self._driver.link.path} gave no answer"
        self._driver.lose(f"given up after {timeout:g} s", True, time.monotonic())
        given_up = session.given_up()
        if self._on_failure != "raise":
            self._impatient = True
        if self._spool is not None and self._on_failure == "spool":
            # Into the spool before it leaves the session: an interrupt in the midst of it loses nothing, and both have the number.
            kept, error = self._spool.write([line(name, seq, batch.body) for name, seq, batch in given_up])
            session.abandon()
            self._was_kept([batch for _, _, batch in given_up], kept, error, why)
            return
        session.abandon()
        for _, _, batch in given_up:
            if fatal is not None and not batch.maybe_stored:
                self._not_stored(batch, fatal)
            elif batch.maybe_stored:
                self._counts["unknown"] += 1
                text = f"no answer in {timeout:g} s, so the batch may be stored or not: {why}"
                self._not_stored(batch, Unreachable(text, True))
            else:
                self._lost(batch, Unreachable(f"not stored in {timeout:g} s: {why}"))

    def _lost(self, batch: Batch, error: Exception) -> None:
        self._counts["lost"] += 1
        self._counts["lost_records"] += batch.records
        self._not_stored(batch, error)

    def _lose_at_once(self, bodies: List[Body], receipt: Receipt, error: Exception) -> Receipt:
        """Nothing can be done with what a call was given, not even to tell callers: something else is in hand."""
        for body in bodies:
            self._lost(Batch(b"", body.records, receipt), error)
        if self._on_failure == "raise":
            raise error
        return receipt

    def _others_wait(self, receipt: Receipt) -> bool:
        now = time.monotonic()
        return any(other is not receipt and not other.done() and until > now for other, until in self._awaited)

    def _withdraw(self, timeout: float, receipt: Receipt) -> None:
        why = self._session.trouble or f"the daemon at {self._driver.link.path} gave no answer"
        gone, left = self._session.withdraw(receipt)
        for batch in gone:
            self._lost(batch, Unreachable(f"not stored in {timeout:g} s: {why}"))
        for batch in left:  # what becomes of it is counted once it is known
            text = f"no answer in {timeout:g} s, so the batch may be stored or not: {why}"
            self._not_stored(Batch(b"", batch.records, receipt), Unreachable(text, True))

    def _keep_bodies(self, bodies: List[Body], receipt: Receipt) -> None:
        """Right into the spool, under a session of their own."""
        batches = [Batch(body.text, body.records, receipt) for body in bodies]
        name = Session().name
        assert self._spool is not None
        kept, error = self._spool.write([line(name, at, batch.body) for at, batch in enumerate(batches, 1)])
        self._was_kept(batches, kept, error, "")

    def _was_kept(self, batches: List[Batch], kept: int, error: Optional[OSError], why: str) -> None:
        """The first ``kept`` batches are in the spool; the others could not be kept there."""
        assert self._spool is not None
        if kept:
            self._spool_waits = self._mode == "on"
            if why:
                self._warn("spooled", f"{kept} batches are kept in {self._spool.directory} until the daemon takes them: {why}")
        for batch in batches[:kept]:
            self._counts["spooled"] += 1
            self._counts["spooled_records"] += batch.records
            receipt = batch.receipt
            if receipt is not None:
                receipt._was_spooled()
                if receipt._callbacks and receipt.done():
                    self._to_call.append(receipt)
        for batch in batches[kept:]:
            text = (
                f"{len(batches) - kept} batches could neither be delivered nor be spooled in {self._spool.directory} "
                f"({error}), so they are lost; make room there, or name another place with LOTLOG_SPOOL_DIR"
            )
            self._lost(batch, SpoolError(text))

    def _delivery(self, wait: bool) -> Optional[Delivery]:
        """What delivers the spool; None where that is of no use, because nobody listens, or did not answer just now. Raises
        OSError."""
        assert self._spool is not None
        if self._impatient:
            if not wait and time.monotonic() < self._not_before:
                return None
            probe = Link(self._driver.link.path)
            try:
                probe.open()
            except BlockingIOError:
                pass
            except OSError:
                return None
            finally:
                probe.close()
        return Delivery(self._spool, self._driver.link.path, lambda text: self._warn("spool", text))

    def _delivery_limit(self, delivery: Delivery, started: float, timeout: float, wait: bool) -> float:
        """Until when a call delivers what waits in the spool."""
        if delivery.waits_for_lock:  # each time: who spooled at once would fill the spool faster than it is emptied
            return started + min(timeout, IMPATIENT_SECONDS)
        if wait and (not self._impatient or delivery.answered):
            return started + timeout
        if delivery.driver is not None and delivery.driver.connect_failed_at >= started:
            return 0.0
        return started + min(timeout, IMPATIENT_SECONDS)

    def _after_delivery(self, delivery: Delivery) -> bool:
        """Whether new batches may go to the daemon now, or must queue in the spool behind what is left there."""
        assert self._spool is not None
        self._counts["delivered"] += delivery.delivered_batches
        self._counts["delivered_records"] += delivery.delivered_records
        self._counts["refused"] += delivery.refused_batches
        if delivery.answered:
            self._impatient = False
        self._spool_waits = self._spool.has_any()
        if not self._spool_waits or delivery.may_overtake:
            return True
        self._impatient = self._impatient or not (delivery.answered or delivery.waits_for_lock)
        if not (delivery.waits_for_lock and self._spool.is_being_emptied()):
            self._not_before = time.monotonic() + RETRY_SECONDS
        why = delivery.last_trouble or f"the daemon at {self._driver.link.path} gave no answer"
        self._warn("spooled", f"batches are kept in {self._spool.directory}, behind those that lie there, until the daemon takes them: {why}")
        return False

    def _call_back(self) -> None:
        """What callers are told, once nothing is in hand: a callback, or a logging handler behind the warning, may call again."""
        session = self._session
        if session.forgotten > self._forgotten_seen:
            self._look_back()
        if not session.pending:
            _lives.idle(self)
        while self._to_say:
            message = self._to_say.pop(0)
            say(message)
        while self._to_call:
            receipt = self._to_call.pop()
            callbacks, receipt._callbacks = receipt._callbacks, []
            for callback in callbacks:
                try:
                    callback(receipt)
                except Exception as error:  # its own affair: neither the call that it happens in nor others' callbacks suffer
                    say(f"lotlog: {callback!r}, called with a receipt, failed, and the client went on: {error!r}")

    def _unsettled(self, time_given: float) -> Unreachable:
        """What ``flush`` raises."""
        return Unreachable(
            f"{len(self._session.pending)} batches have no answer after {time_given:g} s; they are still being waited for: "
            f"{self._session.trouble}",
            True,
        )

    def _wait_is_over(self, time_given: float) -> Unreachable:
        """What a receipt's ``result`` raises."""
        return Unreachable(f"no answer in {time_given:g} s; it is still being waited for: {self._session.trouble}", True)

    def _refuse_foreign(self, receipt: Receipt) -> None:
        if self._pid != receipt._pid:
            raise LotlogError("the receipt belongs to the parent process: what became of its batch is known only there")

    @staticmethod
    def _answer(lines: Optional[List[bytes]]) -> Union[Dict[str, Any], str]:
        """The reply to one request in what came, or why there is none yet. Raises what trying again does not change."""
        if not lines:
            return "it closed the connection" if lines is None else "no answer"
        try:
            reply: Dict[str, Any] = loads(lines[0])
            if reply.get("ok"):
                return reply
            refused = Refused.of(reply.get("error") or {})
        except (ValueError, AttributeError, TypeError) as error:
            return f"what came is not a reply of lotlogd: {error}"
        if not refused.retryable:
            raise refused
        return str(refused)

    def _no_answer(self, op: str, trouble: str) -> Unreachable:
        return Unreachable(f"the daemon at {self._driver.link.path} did not answer `{op}` in time: {trouble}")

    def _warn(self, kind: str, message: str) -> None:
        """Once for each kind of trouble in a client's life: ``stats()`` has the counts."""
        if kind in self._warned:
            return
        self._warned[kind] = True
        self._to_say.append(f"lotlog: {message}")

    def stats(self) -> Dict[str, Any]:
        """What this client has done in this process: batches and records ``stored``, ``refused``, ``spooled``, ``lost`` ..."""
        session = self._session
        return {
            **self._counts,
            "pending": len(session.pending),
            "pending_bytes": session.pending_bytes,
            "connections": self._driver.connections,
            "session": session.name,
        }


class BoundContext:
    """A client with a context that need not be said with each call."""

    def __init__(self, client: Any, lot_id: Any, context: Dict[str, Any]):
        self.client = client
        self.context = context if lot_id is None else {**context, "lot_id": lot_id}

    def _with(self, more: Dict[str, Any]) -> Dict[str, Any]:
        """The arguments of a call; what is given there goes before."""
        return {**more, "context": {**self.context, **(more.get("context") or {})}}

    def session(self: Bounded, lot_id: Any = None, **context: Any) -> Bounded:
        """With more context."""
        return type(self)(self.client, lot_id, {**self.context, **context})

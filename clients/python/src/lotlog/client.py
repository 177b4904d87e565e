"""The client: what a program calls. Adds the waiting to ``_core``: one lock, a deadline for each call, no thread of its own.

Several threads may use one client. Whichever has to wait first polls the connection, for all; the others wait for it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Type, Union

from ._core import HAND_OVER_SECONDS, BoundContext, Core
from ._driver import run
from ._encode import Body
from ._errors import LotlogError, Unreachable
from ._json import dumps
from ._link import Link
from ._receipt import Receipt
from ._session import Batch
from ._tables import Rows

#: A poll looks up at least this often: another thread may have closed the connection or left part of a line.
_SLICE_SECONDS = 0.1


class Client(Core):
    """A producer's connection to lotlogd. One for each process; threads may share it, and a forked child gets a session of
    its own by itself."""

    #: One that knows its owner from the moment it is taken: whatever runs in the midst of a call, even between two lines, can
    #: ask. It is never taken twice by one thread.
    _lock: Any
    #: The thread that polls the connection for all, until when at most, and who waits for it.
    _poller_is: int
    _polled_until: float
    _waiters: List[Any]

    def log(
        self,
        items: Any,
        lot_id: Any = None,
        *,
        wait: bool = True,
        timeout: Optional[float] = None,
        context: Optional[Mapping[str, Any]] = None,
        **more: Any,
    ) -> Receipt:
        """Stores items, one record each, in a lot, with this context (``roi_target=1.25``, ``opt_params={...}``).

        With ``wait=False`` it returns as soon as the batch is handed over, with a receipt that is settled by later calls;
        it waits only while too much is unanswered. A call that is too large for one batch goes as several.
        """
        if self._mode == "off":
            return Receipt(0)
        started = time.monotonic()
        bodies, rows = self._bodies(items, lot_id, context, more)
        return self._log(bodies, rows, started, wait, timeout)

    def session(self, lot_id: Any = None, **context: Any) -> "Bound":
        """The same client with a context that need not be said with each call."""
        return Bound(self, lot_id, context)

    def _log(self, bodies: List[Body], rows: Rows, started: float, wait: bool, timeout: Optional[float]) -> Receipt:
        time_given = self._timeout if timeout is None else timeout
        receipt = Receipt(len(bodies), self._wait_for)
        receipt._is_awaited = wait
        self._enter()
        if not bodies:
            return receipt
        if self._lock._is_owned():
            return self._lose_at_once(bodies, receipt, self._reentered())
        if self._mode == "spool" or (self._spool_waits and not self._deliver_spool(started, time_given, wait)):
            with self._lock:
                self._keep_bodies(bodies, receipt)
        else:
            self._submit(bodies, receipt, started, time_given)
            rows.rows = []
            if wait and not receipt.done():
                self._await(receipt, started, time_given)
        self._call_back()
        if receipt.error is not None and self._on_failure == "raise" and wait:
            raise receipt.error
        return receipt

    def _await(self, receipt: Receipt, started: float, timeout: float) -> None:
        waiting = (receipt, started + timeout)
        self._awaited.append(waiting)
        try:
            if not self._pump(receipt.done, started, timeout):
                self._lose_all(timeout, receipt)
        finally:
            if waiting in self._awaited:  # not in a child that was forked meanwhile
                self._awaited.remove(waiting)

    def _submit(self, bodies: List[Body], receipt: Receipt, started: float, timeout: float) -> None:
        for at, body in enumerate(bodies):
            gave_up = self._is_full() and not self._pump(lambda: not self._is_full(), started, timeout)
            if gave_up:
                self._lose_all(timeout, None)
            with self._lock:
                if gave_up and self._spool_waits:
                    self._keep_bodies(bodies[at:], receipt)  # behind those that went there just now
                    return
                self._refuse_if_closed()
                is_stuck = self._hand_over(body, receipt)
            if is_stuck:
                self._pump(lambda: not self._driver.link.has_unsent, time.monotonic(), min(timeout, HAND_OVER_SECONDS))

    # Waiting. The lock is held only for work that does not wait, and always by `with`, so that an interrupt anywhere
    # leaves nothing locked; whoever waits, waits without it.

    def _refuse_reentry(self) -> None:
        if self._lock._is_owned():
            raise self._reentered()

    def _reentered(self) -> Unreachable:
        """A signal handler, or whatever else runs in the midst of a call, cannot wait for what it interrupted."""
        return Unreachable("the client is in the middle of a call that a signal interrupted: nothing was sent")

    def _pump(self, until: Callable[[], bool], started: float, timeout: float) -> bool:
        """Works until something is true; False when the time is over."""
        while True:
            with self._lock:
                now = time.monotonic()
                try:
                    wait = self._step(until, now, self._limit(started, timeout) - now)
                except BaseException:
                    # In the midst of anything: begin anew, which stores nothing twice.
                    self._driver.lose("interrupted", True, now)
                    raise
            if isinstance(wait, bool):
                return wait
            wait()

    def _step(self, until: Callable[[], bool], now: float, left: float) -> Union[bool, Callable[[], Any]]:
        """Does what can be done at once; whether that is the end of it, or how to wait for more."""
        driver = self._driver
        mine = self._poller_is == threading.get_ident()
        if mine or (left <= 0 and now >= self._polled_until):
            self._poller_is, self._polled_until = 0, 0.0
            if driver.link.is_open:
                driver.receive(now)
                driver.send_due(now)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.release()
        if until():
            return True
        if left <= 0:
            return False
        if now < self._polled_until:  # another thread polls, for all
            waiter = threading.Lock()
            waiter.acquire()
            self._waiters.append(waiter)
            seconds = min(left, self._polled_until - now)
            return lambda: waiter.acquire(timeout=seconds)
        pause = driver.work(now)
        if pause is not None:
            seconds = min(pause, left, _SLICE_SECONDS)
            return lambda: time.sleep(seconds)
        poller = driver.link.poller()
        seconds = min(left, _SLICE_SECONDS)
        self._poller_is, self._polled_until = threading.get_ident(), now + 2 * seconds
        return lambda: poller.poll(max(1, int(seconds * 1000)))

    def _lose_all(self, timeout: float, receipt: Optional[Receipt]) -> None:
        """The time is over. Another thread may have given everything up already."""
        with self._lock:
            if receipt is None or not receipt.done():
                self._give_up(timeout, receipt)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.release()

    def _wait_for(self, receipt: Receipt, timeout: Optional[float]) -> None:
        """For a receipt's ``result``: nothing is given up, it can be asked again."""
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        self._refuse_foreign(receipt)
        self._refuse_reentry()
        done = self._pump(receipt.done, started, time_given)
        self._call_back()
        if not done:
            raise self._wait_is_over(time_given)

    # The spool.

    def _deliver_spool(self, started: float, timeout: float, wait: bool) -> bool:
        """Delivers what waits in the spool; False where it still does and new batches must queue behind it."""
        assert self._spool is not None
        try:
            delivery = self._delivery(wait)
            if delivery is None:
                return False
            try:
                run(delivery, lambda: delivery.ended, lambda: self._delivery_limit(delivery, started, timeout, wait))
            finally:
                delivery.close()
        except OSError as error:
            self._warn("spool trouble", f"the spool in {self._spool.directory} cannot be delivered: {error}")
            return True
        with self._lock:
            return self._after_delivery(delivery)

    # All that is pending, and the end.

    def flush(self, timeout: Optional[float] = None) -> bool:
        """Waits until all that was handed over is settled; whether it is.

        With ``on_failure="raise"`` it raises where it is not (nothing is given up: flush again), with ``"spool"`` what is
        left goes to the spool.
        """
        if self._mode != "on":
            return True
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        self._enter()
        self._refuse_reentry()
        done = self._pump(self._session.settles(), started, time_given)
        error = None if done else self._unsettled(time_given)
        if not done and self._on_failure == "spool":
            self._lose_all(time_given, None)
        self._call_back()
        if error is not None and self._on_failure == "raise":
            raise error
        return done

    def sync(self, timeout: Optional[float] = None) -> int:
        """Returns when everything that any producer had acknowledged before is on disk and in the lot files; the last lsn."""
        if self._mode != "on":
            return 0
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        if not self.flush(time_given):
            raise Unreachable(f"not everything could be delivered in {time_given:g} s", True)
        return int(self._ask("sync", started + time_given).get("lsn") or 0)

    def status(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """The daemon's counters. Answered even while its disk is stuck."""
        if self._mode != "on":
            return {}
        self._enter()
        return self._ask("status", time.monotonic() + (self._timeout if timeout is None else timeout))

    def _ask(self, op: str, deadline: float) -> Dict[str, Any]:
        """One request on a connection of its own, again until it is answered."""
        request = dumps({"op": op}) + b"\n"
        while True:
            link = Link(self._driver.link.path)
            try:
                link.open()
                link.send(request)
                lines: Optional[List[bytes]] = []
                while lines is not None and not lines and time.monotonic() < deadline:
                    left = deadline - time.monotonic()
                    link.poller().poll(max(1, int(min(left, _SLICE_SECONDS) * 1000)))
                    lines = link.receive()
                answer = self._answer(lines)
            except OSError as error:
                answer = error.strerror or str(error)
            finally:
                link.close()
            if not isinstance(answer, str):
                return answer
            if time.monotonic() >= deadline:
                raise self._no_answer(op, answer)
            time.sleep(0.02)

    def close(self, timeout: Optional[float] = None) -> None:
        """Flushes, gives up what cannot be delivered, and lets the connection go."""
        if self._closed or self._mode == "off":
            return
        time_given = self._timeout if timeout is None else timeout
        error = self._finish(time_given, True)
        if error is not None and self._on_failure == "raise":
            raise error

    def _finish(self, timeout: float, is_last: bool) -> Optional[Exception]:
        started = time.monotonic()
        if self._pid != os.getpid():
            self._after_fork()
        self._refuse_reentry()
        with self._lock:
            self._closed = self._closed or is_last  # from here on other threads add nothing
            settled = self._session.settles()
        left: List[Batch] = []
        if self._mode == "on" and not self._pump(settled, started, timeout):
            left = list(self._session.pending)
            self._lose_all(timeout, None)
        if is_last:
            with self._lock:
                self._driver.link.close()
        self._call_back()
        errors = (batch.receipt.error for batch in left if batch.receipt is not None)
        return next((error for error in errors if error is not None), None)

    def _at_exit(self, deadline: float) -> None:
        # Not closed: whatever else is to be done at the end of the process may still log.
        self._finish(max(0.0, deadline - time.monotonic()), False)

    def _begin_waiting(self) -> None:
        self._lock = threading.RLock()
        self._poller_is = 0
        self._polled_until = 0.0
        self._waiters = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        try:
            self.close()
        except LotlogError:
            if error is None:
                raise


class Bound(BoundContext):
    """A client with a context: what :meth:`Client.session` gives."""

    client: Client

    def log(self, items: Any, lot_id: Any = None, **more: Any) -> Receipt:
        """As :meth:`Client.log`, with this context; what is given here goes before it."""
        return self.client.log(items, lot_id, **self._with(more))

    def flush(self, timeout: Optional[float] = None) -> bool:
        return self.client.flush(timeout)

    def __enter__(self) -> "Bound":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            self.client.flush()

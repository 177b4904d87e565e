"""The client: what a program calls. Adds the waiting to ``_core``: one lock, a deadline for each call, no thread of its own.

Several threads may use one client. Whichever has to wait first polls the connection, for all; the others wait for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Type

from . import _deliver
from ._core import HAND_OVER_SECONDS, Core, Path
from ._encode import Body
from ._errors import LotlogError, Refused, Unreachable
from ._json import dumps, loads
from ._link import Link
from ._receipt import Receipt
from ._session import Batch

#: A poll looks up at least this often: another thread may have closed the connection or left part of a line.
_SLICE_SECONDS = 0.1


class Client(Core):
    """A producer's connection to lotlogd. One for each process; threads may share it, and a forked child gets a session of
    its own by itself.

    ``socket``: where the daemon listens; by default ``LOTLOG_SOCKET``, else the usual places. ``ack``: what an
    acknowledgement promises, ``"synced"`` or ``"written"``; by default the daemon's setting. ``timeout``: seconds that one
    call may take in all. ``on_failure``: what happens when a batch cannot be stored: ``"raise"``, ``"warn"`` (the batch is
    lost, and counted) or ``"spool"`` (it is kept in a file of ``spool_dir`` and delivered by a later call or by
    ``lotlog send --spool``).
    """

    def __init__(
        self,
        socket: Optional[Path] = None,
        *,
        ack: Optional[str] = None,
        timeout: float = 5.0,
        on_failure: str = "raise",
        spool_dir: Optional[Path] = None,
    ):
        super().__init__(socket, ack=ack, timeout=timeout, on_failure=on_failure, spool_dir=spool_dir)
        self._cond = threading.Condition(threading.Lock())
        #: A thread polls the connection, or delivers the spool, and has let the lock go meanwhile.
        self._leading = False

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
        whole = {**(context or {}), **more}
        if lot_id is not None:
            whole["lot_id"] = lot_id
        return self._log(self._bodies(items, whole), started, wait, timeout)

    def session(self, lot_id: Any = None, **context: Any) -> "Bound":
        """The same client with a context that need not be said with each call."""
        return Bound(self, lot_id, context)

    def _log(self, bodies: List[Body], started: float, wait: bool, timeout: Optional[float]) -> Receipt:
        time_given = self._timeout if timeout is None else timeout
        receipt = Receipt(len(bodies), self._wait_for)
        self._enter()
        if not bodies:
            return receipt
        with self._locked(started + time_given):
            if self._mode == "spool" or not self._deliver_spool(started, time_given):
                self._keep_bodies(bodies, receipt)
            else:
                self._submit(bodies, receipt, started, time_given)
                if wait and not self._pump(receipt.done, started, time_given):
                    self._give_up(time_given)
            self._look_back()
        self._call_back()
        if receipt.error is not None and self._on_failure == "raise" and wait:
            raise receipt.error
        return receipt

    def _submit(self, bodies: List[Body], receipt: Receipt, started: float, timeout: float) -> None:
        if self._impatient:
            self._session.not_before = 0.0
        for body in bodies:
            if self._is_full() and not self._pump(lambda: not self._is_full(), started, timeout):
                self._give_up(timeout)
            self._take(body, receipt)
            driver, now = self._driver, time.monotonic()
            stuck = driver.link.has_unsent
            if driver.link.is_open and self._session.in_flight > 1:
                driver.receive(now)
            driver.work(now)
            if driver.link.has_unsent and not stuck:
                self._pump(lambda: not driver.link.has_unsent, now, min(timeout, HAND_OVER_SECONDS))

    # Waiting.

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """The lock, which nobody holds for long; a signal handler may meet it held by what it interrupted."""
        if not self._cond.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unreachable("the client is in use, by another thread or by what a signal interrupted: nothing was sent")
        try:
            yield
        finally:
            self._cond.release()

    def _pump(self, until: Callable[[], bool], started: float, timeout: float) -> bool:
        """Works until something is true; False when the time is over. The lock is held, and let go while it waits."""
        while not until():
            now = time.monotonic()
            left = self._limit(started, timeout) - now
            if left <= 0 and (self._leading or not self._driver.link.is_open or not self._driver.receive(now)):
                return until()
            if left > 0:
                self._wait(now, left)
        return True

    def _wait(self, now: float, left: float) -> None:
        """Works once, and waits for whatever is next, for as long as ``left``."""
        if self._leading:
            self._cond.wait(left)
            return
        driver = self._driver
        try:
            pause = driver.work(now)
            if pause is not None:
                if self._limit(now, left) > 0 and pause > 0:
                    self._cond.wait(min(pause, left))
                return
            poller = driver.link.poller()
            self._let_others(lambda: poller.poll(max(1, int(min(left, _SLICE_SECONDS) * 1000))))
            if driver is self._driver and driver.link.is_open:
                now = time.monotonic()
                driver.receive(now)
                driver.send_due(now)
        except BaseException:
            # An interrupt in the middle of anything: begin anew, which stores nothing twice.
            driver.lose("interrupted", True, time.monotonic())
            raise

    def _let_others(self, work: Callable[[], Any]) -> None:
        """Waits without the lock, as the one that waits for all."""
        self._leading = True
        self._cond.release()
        try:
            work()
        finally:
            self._cond.acquire()
            self._leading = False
            self._cond.notify_all()

    def _wait_for(self, receipt: Receipt, timeout: Optional[float]) -> None:
        """For a receipt's ``result``: nothing is given up, it can be asked again."""
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        if self._pid != receipt._pid:
            raise LotlogError("the receipt belongs to the parent process: what became of its batch is known only there")
        with self._locked(started + time_given):
            done = self._pump(receipt.done, started, time_given)
            self._look_back()
        self._call_back()
        if not done:
            raise Unreachable(f"no answer in {time_given:g} s; it is still being waited for: {self._session.trouble}", True)

    # The spool.

    def _deliver_spool(self, started: float, timeout: float) -> bool:
        """Delivers what waits in the spool; False where it still does and new batches must queue behind it."""
        if not self._spool_waits or self._spool is None or self._leading:
            return True
        delivery = _deliver.Delivery(self._spool, self._driver.link.path, lambda text: self._warn("spool", text))
        try:
            limit = lambda: self._delivery_limit(delivery, started, timeout)  # noqa: E731
            self._let_others(lambda: _deliver.run(delivery, limit))
        except OSError as error:
            self._warn("spool trouble", f"the spool in {self._spool.directory} cannot be delivered: {error}")
            return True
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
        with self._locked(started + time_given):
            done = self._pump(lambda: not self._session.pending, started, time_given)
            trouble = self._session.trouble
            left = len(self._session.pending)
            if not done and self._on_failure == "spool":
                self._give_up(time_given)
            self._look_back()
        self._call_back()
        if not done and self._on_failure == "raise":
            raise Unreachable(f"{left} batches have no answer after {time_given:g} s; they are still being waited for: {trouble}", True)
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
        trouble = ""
        while True:
            link = Link(self._driver.link.path)
            try:
                link.open()
                link.send(request)
                while True:
                    left = deadline - time.monotonic()
                    link.poller().poll(max(1, int(left * 1000)))
                    lines = link.receive()
                    if lines is None or left <= 0:
                        trouble = "it closed the connection" if lines is None else "no answer"
                        break
                    if lines:
                        reply: Dict[str, Any] = loads(lines[0])
                        if reply.get("ok"):
                            return reply
                        refused = Refused.of(reply.get("error") or {})
                        if not refused.retryable:
                            raise refused
                        trouble = str(refused)
                        break
            except OSError as error:
                trouble = error.strerror or str(error)
            finally:
                link.close()
            if time.monotonic() >= deadline:
                raise Unreachable(f"the daemon at {self._driver.link.path} did not answer `{op}` in time: {trouble}")
            time.sleep(0.02)

    def close(self, timeout: Optional[float] = None) -> None:
        """Flushes, gives up what cannot be delivered, and lets the connection go."""
        if self._closed or self._mode == "off":
            return
        time_given = self._timeout if timeout is None else timeout
        error = self._finish(time_given)
        if error is not None and self._on_failure == "raise":
            raise error

    def _finish(self, timeout: float) -> Optional[Exception]:
        started = time.monotonic()
        if self._pid != os.getpid():
            self._after_fork()
        with self._locked(started + timeout):
            left: List[Batch] = []
            if self._mode == "on" and not self._pump(lambda: not self._session.pending, started, timeout):
                left = list(self._session.pending)
                self._give_up(timeout)
            self._driver.link.close()
            self._closed = True
        self._call_back()
        errors = (batch.receipt.error for batch in left if batch.receipt is not None)
        return next((error for error in errors if error is not None), None)

    def _at_exit(self, deadline: float) -> None:
        if self._closed or not self._session.pending:
            return
        error = self._finish(max(0.0, deadline - time.monotonic()))
        if error is not None and self._on_failure == "raise":
            self._warn("exit", f"batches without an answer at the process's end: {error}")
            self._call_back()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._cond = threading.Condition(threading.Lock())
        self._leading = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        try:
            self.close()
        except LotlogError:
            if error is None:
                raise


class Bound:
    """A client with a context: what :meth:`Client.session` gives."""

    def __init__(self, client: Client, lot_id: Any, context: Dict[str, Any]):
        self.client = client
        self.context = context if lot_id is None else {**context, "lot_id": lot_id}

    def log(self, items: Any, lot_id: Any = None, **more: Any) -> Receipt:
        """As :meth:`Client.log`, with this context; what is given here goes before it."""
        context = {**self.context, **(more.pop("context", None) or {})}
        return self.client.log(items, lot_id, context=context, **more)

    def flush(self, timeout: Optional[float] = None) -> bool:
        return self.client.flush(timeout)

    def session(self, lot_id: Any = None, **context: Any) -> "Bound":
        """With more context."""
        return Bound(self.client, lot_id, {**self.context, **context})

    def __enter__(self) -> "Bound":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            self.client.flush()

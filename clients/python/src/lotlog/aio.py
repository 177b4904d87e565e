"""The client for asyncio: the names of ``client``, to be awaited. Waits in the running event loop, with no thread and no task
of its own: whichever call has to wait first watches the connection, for all.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Callable, Dict, Generator, List, Mapping, Optional, Set, Type

from ._core import HAND_OVER_SECONDS, BoundContext, Core
from ._encode import Body
from ._errors import LotlogError, Unreachable
from ._json import dumps
from ._link import Link
from ._receipt import Receipt

#: The connection is looked at at least this often: another call may have closed it.
_SLICE_SECONDS = 0.1


class AsyncReceipt(Receipt):
    """A receipt whose ``result()`` and ``exception()`` are awaited; ``await receipt`` is ``await receipt.result()``."""

    __slots__ = ("_client",)

    def __init__(self, parts: int, client: "AsyncClient"):
        super().__init__(parts)
        self._client = client

    async def result(self, timeout: Optional[float] = None) -> "AsyncReceipt":  # type: ignore[override]
        error = await self.exception(timeout)
        if error is not None:
            raise error
        return self

    async def exception(self, timeout: Optional[float] = None) -> Optional[Exception]:  # type: ignore[override]
        if not self.done():
            await self._client._wait_for(self, timeout)
        return self.error

    def __await__(self) -> Generator[Any, None, "AsyncReceipt"]:
        return self.result().__await__()


class AsyncClient(Core):
    """As :class:`lotlog.Client`, for the coroutines of one event loop."""

    #: A call watches the connection, for all; who waits for it.
    _leading: bool
    _followers: Set["asyncio.Future[None]"]

    async def log(
        self,
        items: Any,
        lot_id: Any = None,
        *,
        wait: bool = True,
        timeout: Optional[float] = None,
        context: Optional[Mapping[str, Any]] = None,
        **more: Any,
    ) -> AsyncReceipt:
        """As :meth:`lotlog.Client.log`. Cancelled, the batch may be stored or not, as after any call that was broken off."""
        if self._mode == "off":
            return AsyncReceipt(0, self)
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        bodies, rows = self._bodies(items, lot_id, context, more)
        receipt = AsyncReceipt(len(bodies), self)
        receipt._is_awaited = wait
        self._enter()
        if not bodies:
            return receipt
        if self._mode == "spool" or (self._spool_waits and not await self._deliver_spool(started, time_given, wait)):
            self._keep_bodies(bodies, receipt)
        else:
            await self._submit(bodies, receipt, started, time_given)
            rows.rows = []
            waiting = (receipt, started + time_given)
            self._awaited += [waiting] if wait else []
            try:
                if wait and not await self._pump(receipt.done, started, time_given):
                    self._give_up(time_given, receipt)
            finally:
                if waiting in self._awaited:
                    self._awaited.remove(waiting)
        self._call_back()
        if receipt.error is not None and self._on_failure == "raise" and wait:
            raise receipt.error
        return receipt

    def session(self, lot_id: Any = None, **context: Any) -> "AsyncBound":
        """The same client with a context that need not be said with each call."""
        return AsyncBound(self, lot_id, context)

    async def _submit(self, bodies: List[Body], receipt: Receipt, started: float, timeout: float) -> None:
        for at, body in enumerate(bodies):
            if self._is_full() and not await self._pump(lambda: not self._is_full(), started, timeout):
                self._give_up(timeout)
                if self._spool_waits:
                    self._keep_bodies(bodies[at:], receipt)  # behind those that went there just now
                    return
            self._refuse_if_closed()
            if self._hand_over(body, receipt):
                await self._pump(lambda: not self._driver.link.has_unsent, time.monotonic(), min(timeout, HAND_OVER_SECONDS))

    # Waiting.

    async def _pump(self, until: Callable[[], bool], started: float, timeout: float) -> bool:
        """Works until something is true; False when the time is over."""
        while not until():
            now = time.monotonic()
            left = self._limit(started, timeout) - now
            if left <= 0 and (self._leading or not self._driver.link.is_open or not self._driver.receive(now)):
                return until()
            if left <= 0:
                continue
            if self._leading:
                await self._follow(left)
                continue
            driver = self._driver
            pause = driver.work(now)
            if pause is not None:
                if self._limit(now, left) > 0:
                    await asyncio.sleep(min(pause, left))
                continue
            self._leading = True
            try:
                await _ready(driver.link, min(left, _SLICE_SECONDS))
            finally:
                self._leading = False
                for follower in self._followers:
                    if not follower.done():
                        follower.set_result(None)
            if driver is self._driver and driver.link.is_open:
                now = time.monotonic()
                driver.receive(now)
                driver.send_due(now)
        return True

    async def _follow(self, left: float) -> None:
        follower: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self._followers.add(follower)
        try:
            await asyncio.wait([follower], timeout=left)
        finally:
            self._followers.discard(follower)

    async def _wait_for(self, receipt: Receipt, timeout: Optional[float]) -> None:
        time_given = self._timeout if timeout is None else timeout
        self._refuse_foreign(receipt)
        done = await self._pump(receipt.done, time.monotonic(), time_given)
        self._call_back()
        if not done:
            raise self._wait_is_over(time_given)

    async def _deliver_spool(self, started: float, timeout: float, wait: bool) -> bool:
        """As the blocking client's."""
        assert self._spool is not None
        delivery = None
        try:
            delivery = self._delivery(wait)
            if delivery is None:
                return False
            while not delivery.ended:
                now = time.monotonic()
                pause = delivery.work(now)
                left = self._delivery_limit(delivery, started, timeout, wait) - now
                if left <= 0 or delivery.ended:
                    break
                if pause is None:
                    assert delivery.driver is not None
                    await _ready(delivery.driver.link, min(left, _SLICE_SECONDS))
                    delivery.receive(time.monotonic())
                else:
                    await asyncio.sleep(min(pause, left))
        except OSError as error:
            self._warn("spool trouble", f"the spool in {self._spool.directory} cannot be delivered: {error}")
            return True
        finally:
            if delivery is not None:
                delivery.close()
        return self._after_delivery(delivery)

    # All that is pending, and the end.

    async def flush(self, timeout: Optional[float] = None) -> bool:
        """As :meth:`lotlog.Client.flush`."""
        if self._mode != "on":
            return True
        time_given = self._timeout if timeout is None else timeout
        self._enter()
        done = await self._pump(self._session.settles(), time.monotonic(), time_given)
        error = None if done else self._unsettled(time_given)
        if not done and self._on_failure == "spool":
            self._give_up(time_given)
        self._call_back()
        if error is not None and self._on_failure == "raise":
            raise error
        return done

    async def sync(self, timeout: Optional[float] = None) -> int:
        """As :meth:`lotlog.Client.sync`."""
        if self._mode != "on":
            return 0
        started = time.monotonic()
        time_given = self._timeout if timeout is None else timeout
        if not await self.flush(time_given):
            raise Unreachable(f"not everything could be delivered in {time_given:g} s", True)
        return int((await self._ask("sync", started + time_given)).get("lsn") or 0)

    async def status(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """As :meth:`lotlog.Client.status`."""
        if self._mode != "on":
            return {}
        self._enter()
        return await self._ask("status", time.monotonic() + (self._timeout if timeout is None else timeout))

    async def _ask(self, op: str, deadline: float) -> Dict[str, Any]:
        """One request on a connection of its own, again until it is answered."""
        while True:
            link = Link(self._driver.link.path)
            try:
                link.open()
                link.send(dumps({"op": op}) + b"\n")
                lines: Optional[List[bytes]] = []
                while lines is not None and not lines and time.monotonic() < deadline:
                    await _ready(link, min(deadline - time.monotonic(), _SLICE_SECONDS))
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
            await asyncio.sleep(0.02)

    async def close(self, timeout: Optional[float] = None) -> None:
        """As :meth:`lotlog.Client.close`."""
        if self._closed or self._mode == "off":
            return
        time_given = self._timeout if timeout is None else timeout
        if self._pid != os.getpid():
            self._after_fork()
        self._closed = True  # from here on other coroutines add nothing
        left = []
        if self._mode == "on" and not await self._pump(self._session.settles(), time.monotonic(), time_given):
            left = list(self._session.pending)
            self._give_up(time_given)
        self._driver.link.close()
        self._call_back()
        errors = (batch.receipt.error for batch in left if batch.receipt is not None)
        error = next((error for error in errors if error is not None), None)
        if error is not None and self._on_failure == "raise":
            raise error

    def _begin_waiting(self) -> None:
        self._leading = False
        self._followers = set()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        try:
            await self.close()
        except LotlogError:
            if error is None:
                raise


class AsyncBound(BoundContext):
    """A client with a context: what :meth:`AsyncClient.session` gives."""

    client: AsyncClient

    async def log(self, items: Any, lot_id: Any = None, **more: Any) -> AsyncReceipt:
        """As :meth:`AsyncClient.log`, with this context; what is given here goes before it."""
        return await self.client.log(items, lot_id, **self._with(more))

    async def flush(self, timeout: Optional[float] = None) -> bool:
        return await self.client.flush(timeout)

    async def __aenter__(self) -> "AsyncBound":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Any) -> None:
        if error is None:
            await self.client.flush()


async def _ready(link: Link, timeout: float) -> None:
    """Waits until the connection can be read (or, with something unsent, written), or the time is over."""
    loop = asyncio.get_running_loop()
    ready: "asyncio.Future[None]" = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    handle = link.fileno()
    writes = link.has_unsent
    loop.add_reader(handle, wake)
    if writes:
        loop.add_writer(handle, wake)
    timer = loop.call_later(max(0.0, timeout), wake)
    try:
        await ready
    finally:
        timer.cancel()
        loop.remove_reader(handle)
        if writes:
            loop.remove_writer(handle)

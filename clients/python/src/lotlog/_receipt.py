"""What became of one call of ``log``: a receipt, complete or still to come. Does no input or output itself;
whoever made it gives it the means to wait.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Mapping, Optional


class Receipt:
    """What became of one call of ``log``.

    ``records`` stored and acknowledged (0 until then), ``lsn`` of the last batch, ``duplicate`` whether all of it had been
    stored before, ``dropped`` values that could not be used, by field, ``durability`` what is promised (``"synced"``
    or ``"written"``), ``spooled`` whether it waits in the spool instead, ``error`` why it was not stored.

    With ``wait=False`` it is a future: ``done()``, ``result(timeout)``, ``exception(timeout)``, ``add_done_callback(f)``.
    """

    __slots__ = (
        "records", "lsn", "duplicate", "dropped", "overridden", "durability", "lot", "session", "seq",
        "spooled", "error", "_pid", "_parts", "_duplicates", "_total", "_wait", "_callbacks", "_is_awaited",
        "__weakref__",
    )  # fmt: skip

    def __init__(self, parts: int = 1, wait: Optional[Callable[["Receipt", Optional[float]], None]] = None):
        self.records = 0
        self.lsn: Optional[int] = None
        self.duplicate = False
        self.dropped: Dict[str, int] = {}
        self.overridden: List[str] = []
        self.durability: Optional[str] = None
        self.lot: Any = None
        self.session: Optional[str] = None
        self.seq: Optional[int] = None
        self.spooled = False
        self.error: Optional[Exception] = None
        self._pid = os.getpid()
        self._parts = parts
        self._total = parts
        self._duplicates = 0
        self._wait = wait
        #: A call is waiting for it, and will say what went wrong.
        self._is_awaited = False
        self._callbacks: List[Callable[["Receipt"], Any]] = []

    def done(self) -> bool:
        """Whether it is settled: stored, refused, spooled or given up."""
        return self._parts == 0

    def result(self, timeout: Optional[float] = None) -> "Receipt":
        """Waits until it is settled; raises what went wrong, if anything did.

        Without ``timeout`` it waits as long as a call of the client may.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self

    def exception(self, timeout: Optional[float] = None) -> Optional[Exception]:
        """Waits until it is settled; what went wrong, or None."""
        if self._parts and self._wait is not None:
            self._wait(self, timeout)
        return self.error

    def add_done_callback(self, callback: Callable[["Receipt"], Any]) -> None:
        """Calls ``callback(receipt)`` when it is settled, at once if it is. Called from within other calls of the client."""
        if self._parts == 0:
            callback(self)
        else:
            self._callbacks.append(callback)

    def __repr__(self) -> str:
        if self._parts:
            return "<Receipt: not settled yet>"
        if self.error is not None:
            return f"<Receipt: {self.records} records stored, then {self.error!r}>"
        if self.spooled:
            return "<Receipt: spooled>"
        return f"<Receipt: {self.records} records, lsn {self.lsn}, {self.durability}{', duplicate' if self.duplicate else ''}>"

    # The client's side.

    def _stored(self, reply: Mapping[str, Any], records: int, session: str) -> None:
        self.records += records
        lsn = reply.get("lsn")
        if lsn is not None:
            self.lsn = lsn
        self.durability = reply.get("durability")
        self.lot = reply.get("lot")
        self.session = session
        self.seq = reply.get("seq")
        if reply.get("duplicate"):
            self._duplicates += 1
        dropped = reply.get("dropped")
        if dropped:
            for field, count in dropped.items():
                self.dropped[field] = self.dropped.get(field, 0) + count
        for key in reply.get("overridden") or ():
            if key not in self.overridden:
                self.overridden.append(key)
        self._settle_part()

    def _was_spooled(self) -> None:
        self.spooled = True
        self._settle_part()

    def _failed(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._settle_part()

    def _settle_part(self) -> None:
        self._parts -= 1
        if self._parts == 0:
            self.duplicate = self._duplicates == self._total > 0
            self._wait = None

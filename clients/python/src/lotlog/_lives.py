"""The lives of a process: what must be done in the child after a fork, and at the end. Knows clients only as things that
can be told so.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import Any, Protocol, Set

from ._errors import say

#: Time for the flush at the end of a process, all clients together.
EXIT_SECONDS = 2.0


class _Living(Protocol):
    def _after_fork(self) -> None: ...

    def _has_pending(self) -> bool: ...

    def _at_exit(self, deadline: float) -> None: ...


_clients: "weakref.WeakSet[Any]" = weakref.WeakSet()
#: Clients with batches on their way, which must not vanish with the last reference to them.
_busy: Set[Any] = set()
busy = _busy.add
idle = _busy.discard
_finalizer_of_pid = 0


def register(client: _Living) -> None:
    """From now on the client is told of forks and of the end of the process."""
    _clients.add(client)
    prepare_process(os.getpid())


def prepare_process(pid: int) -> None:
    """Children of multiprocessing end without atexit, but run these finalizers; to be called in each new process."""
    global _finalizer_of_pid
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _finalizer_of_pid != pid:
        _finalizer_of_pid = pid
        util.Finalize(None, _flush_all, exitpriority=0)


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


def _flush_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    clients = [client for client in _clients if client._has_pending()]
    while clients:
        client = clients.pop()
        now = time.monotonic()
        try:
            client._at_exit(now + max(0.0, deadline - now) / (len(clients) + 1))
        except Exception as error:  # the others are flushed all the same
            say(f"lotlog: a client could not be flushed at the process's end: {error!r}")


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_flush_all)

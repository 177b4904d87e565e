"""What the processes of the tests do: functions that spawned processes can import. Not a test."""

from __future__ import annotations

import os
import sys
import time

from . import support  # noqa: F401  (finds the package)

import lotlog

#: A client that forked children inherit.
inherited = None


def log_one(arguments):
    """A task of a pool: a client of its own for each process."""
    global inherited
    socket, n = arguments
    if inherited is None:
        inherited = lotlog.Client(socket)
    receipt = inherited.log([{"n": n}], lot_id="L", worker=os.getpid())
    return receipt.session, receipt.seq, os.getpid()


def pipeline_and_leave(socket, n):
    """Leaves without a word to the client: its finalizer must flush."""
    global inherited
    inherited = lotlog.Client(socket)
    for at in range(50):
        inherited.log([{"n": n * 50 + at}], lot_id="L", wait=False)


def log_with_inherited(n):
    """In a child of a fork, with the parent's client."""
    inherited.log([{"n": n}], lot_id="L")


def producer(socket, home, name, seconds):
    """One optimiser of the farm: writes what was acknowledged into a ledger beside the daemon, and forks half-way."""
    client = lotlog.Client(socket, timeout=60)
    until = time.monotonic() + seconds
    _produce(client, home, name, time.monotonic() + seconds / 2, 0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _produce(client, home, f"{name}-child", until, 1000)
            client.close()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    _produce(client, home, name, until, 2000)
    client.close()
    _, status = os.waitpid(child, 0)
    sys.exit(0 if status == 0 else 1)


def _produce(client, home, name, until, first):
    with open(os.path.join(home, f"ledger-{name}-{first}"), "a") as ledger:
        n = first
        unsettled = []
        while time.monotonic() < until:
            items = [{"who": name, "n": n, "item": at} for at in range(1 + n % 5)]
            unsettled.append((n, client.log(items, lot_id=f"LOT_{n % 3}", wait=n % 4 == 0)))
            n += 1
            time.sleep(0.002)
        client.flush()
        for at, receipt in unsettled:
            receipt.result()
            ledger.write(f"{name} {at} {receipt.records}\n")

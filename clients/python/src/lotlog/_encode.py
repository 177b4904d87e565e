"""A call of ``log`` as the bodies of one or more request lines: items, context, acknowledgement. Knows the protocol's limits
for one batch; does not know sessions or sockets.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ._json import dumps, dumps_rows, is_missing
from ._tables import Row, Rows, halves

#: Items in one batch, at most; the daemon's default limit is 100,000.
MAX_BATCH_ITEMS = 50_000
#: Items of one batch as JSON, at most, in bytes; the daemon's default for a whole line is 16 MiB.
MAX_BATCH_BYTES = 8 << 20
#: One batch as records, the context copied into each, estimated in bytes; the daemon's default limit is 256 MiB.
MAX_RECORDS_BYTES = 96 << 20


class Body(NamedTuple):
    """The rest of a request line behind session and number, with its newline, and how many records it has."""

    text: bytes
    records: int


def lot(value: Any) -> Any:
    """A lot id as the daemon takes it: text or an integer; None where it is missing."""
    if isinstance(value, str) and type(value) is str:
        return value
    if is_missing(value):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    item = getattr(value, "item", None)
    if item is not None:  # numpy scalars
        value = item()
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value)


def context_json(context: Mapping[str, Any]) -> bytes:
    """The context as a JSON object; values that are None or missing are left out."""
    known: Dict[str, Any] = {str(key): value for key, value in context.items() if value is not None}
    if "lot_id" in known:
        known["lot_id"] = lot(known["lot_id"])
        if known["lot_id"] is None:
            del known["lot_id"]
    return dumps(known)


def bodies(items: Rows, context: bytes, ack: Optional[str]) -> List[Body]:
    """The batches of one call: one, unless it is beyond what a batch may hold."""
    head = (b'"ack":"%s",' % ack.encode() if ack else b"") + b'"context":' + context + b',"items":'
    found: List[Body] = []
    _add(found, items.rows, items.may_hold_infinity, head, len(context))
    return found


def _add(found: List[Body], rows: List[Row], may_hold_infinity: bool, head: bytes, context_bytes: int) -> None:
    count = len(rows)
    if count == 0:
        return
    if count <= MAX_BATCH_ITEMS:
        text = dumps_rows(rows, may_hold_infinity)
        as_records = len(text) + count * (2 * context_bytes + 256)
        if count == 1 or (len(text) <= MAX_BATCH_BYTES and as_records <= MAX_RECORDS_BYTES):
            # A copy, which gives back what orjson's own buffer has too much: up to 14 times of what it holds.
            found.append(Body(b"".join((head, text, b"}\n")), count))
            return
    for half in halves(rows):
        _add(found, half, may_hold_infinity, head, context_bytes)

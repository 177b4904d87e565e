"""A handler for the standard library's ``logging``: log records become items of a lot. Knows ``logging``; everything else
is the client's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Dict, Optional

from .client import Client

#: What every log record has: the rest came with ``extra=``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "lot_id"}


class LotlogHandler(logging.Handler):
    """Sends each log record to lotlogd without waiting for the answer; :meth:`flush` waits.

    A record whose message is a mapping is that item (``logger.info({"sku_local": "SKU001", "est_price_mu": 45.0})``); another
    has ``logger``, ``level``, ``message`` and, if there was one, ``exception``. What comes with ``extra=`` is added; a ``lot_id`` there
    names the lot. Without ``client`` it makes one of its own, which spools when the daemon is away.
    """

    def __init__(
        self, client: Optional[Client] = None, lot_id: Any = None, level: int = logging.NOTSET, **context: Any
    ):
        super().__init__(level)
        self._own = client is None
        self.client = Client(on_failure="spool") if client is None else client
        self.lot_id = lot_id
        self.context = context

    def item(self, record: logging.LogRecord) -> Dict[str, Any]:
        """The item that a log record becomes."""
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if isinstance(record.msg, Mapping) and not record.args:
            return {**record.msg, **extra}
        item = {"logger": record.name, "level": record.levelname, "message": record.getMessage(), **extra}
        if record.exc_info:
            item["exception"] = (self.formatter or logging.Formatter()).formatException(record.exc_info)
        return item

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lot = getattr(record, "lot_id", self.lot_id)
            self.client.log([self.item(record)], lot, wait=False, context=self.context)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        try:
            self.client.flush()
        except Exception:  # logging.shutdown must go on
            pass

    def close(self) -> None:
        try:
            if self._own:
                self.client.close()
        except Exception:
            pass
        super().close()

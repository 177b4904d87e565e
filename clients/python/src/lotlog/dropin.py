"""The drop-in for the logger that producers have: same name, same signature, same columns. Never raises unless
``LOTLOG_STRICT=1``, never takes longer than its time. Knows the old logger's habits; the rest is ``client``'s.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional, Tuple

from ._core import Path
from ._errors import Unencodable, say
from ._json import fields, is_missing
from ._mode import is_strict
from ._tables import Rows, rows_of
from .client import Client

#: Seconds that one call may take.
TIMEOUT_SECONDS = 5.0

#: The columns that are taken, and no others.
ITEM_COLUMNS: Tuple[str, ...] = (
    "sku_local", "asin", "upc", "ean", "upc_ean_asin", "est_price_mu", "est_price_sigma", "est_price_p50", "sell_p60",
    "sell_hazard_daily", "condition_bucket", "sell_condition_factor", "sell_seasonality_factor", "mins_per_unit", "quantity",
)  # fmt: skip
#: What is taken of the context.
CONTEXT_KEYS: Tuple[str, ...] = (
    "roi_target", "risk_threshold", "horizon_days", "lot_id", "opt_source", "opt_params",
)  # fmt: skip
DEFAULT_QUANTITY = 1
DEFAULT_HORIZON_DAYS = 60

_COLUMNS = frozenset(ITEM_COLUMNS)
_ENVIRONMENT = ("LOTLOG_SOCKET", "LOTLOG_MODE", "LOTLOG_STRICT", "LOTLOG_SPOOL_DIR", "XDG_RUNTIME_DIR")
_clients: Dict[Tuple[Optional[str], ...], Client] = {}
_has_warned = False


def log_predictions(items_df: Any, context: Mapping[str, Any], out_jsonl: Optional[Path] = None) -> int:
    """Sends a table of predictions to lotlogd; the number of records that it has acknowledged.

    ``out_jsonl`` is not written: where the context names no lot, the stem of its name is the lot. When the daemon cannot be
    reached in time, the batch goes to the spool, and a warning is given once. ``LOTLOG_MODE=off`` makes it do nothing.
    """
    if os.environ.get("LOTLOG_MODE") == "off":
        return 0
    try:
        client = default_client()
        try:
            rows = _rows(items_df)
            if not rows.rows:
                return 0
            taken = _context(context, out_jsonl)
        except Exception:
            client.count_unencodable()
            raise
        return client.log(rows, context=taken).records
    except Exception as error:
        if is_strict():
            raise
        _warn_once(f"lotlog: predictions were not logged ({type(error).__name__}): {error}")
        return 0


def default_client() -> Client:
    """The client that the environment asks for; one for each process. Its ``stats()`` tell what became of the predictions."""
    key = tuple(map(os.environ.get, _ENVIRONMENT))
    client = _clients.get(key)
    if client is None:
        made = Client(timeout=TIMEOUT_SECONDS, on_failure="raise" if is_strict() else "spool")
        client = _clients.setdefault(key, made)
    return client


def _rows(items: Any) -> Rows:
    if items is None:
        return Rows([], False, lambda key: True)
    rows = rows_of(items, _COLUMNS)
    if rows.rows and rows.lacks("quantity"):
        for row in rows.rows:
            row["quantity"] = DEFAULT_QUANTITY
    return rows


def _context(context: Any, out_jsonl: Optional[Path]) -> Dict[str, Any]:
    given = context if _has_keys(context) else {} if context is None else fields(context)
    if given is None:
        raise Unencodable(f"the context is a mapping, not {type(context).__name__}: nothing was sent")
    taken = {key: given[key] for key in CONTEXT_KEYS if key in given}
    if "horizon_days" not in taken:
        taken["horizon_days"] = DEFAULT_HORIZON_DAYS
    lot = taken.get("lot_id")
    if is_missing(lot) or (isinstance(lot, str) and not lot):
        taken.pop("lot_id", None)
        if isinstance(out_jsonl, (str, bytes, os.PathLike)):  # anything else has no stem, which is no reason to lose a batch
            stem = os.path.splitext(os.path.basename(os.fsdecode(out_jsonl)))[0]
            if stem:
                taken["lot_id"] = stem
    return taken


def _has_keys(context: Any) -> bool:
    """A mapping, or what is used as one: a Series, a row."""
    return isinstance(context, Mapping) or (callable(getattr(context, "keys", None)) and hasattr(context, "__getitem__"))


def _warn_once(message: str) -> None:
    global _has_warned
    if _has_warned:
        return
    _has_warned = True
    say(message)

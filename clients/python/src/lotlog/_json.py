"""JSON as the daemon takes it: orjson where it can be imported, else the standard library; and what becomes of values
that JSON does not know. Does not know tables, contexts or records.

Missing values (None, NaN, NaT, pandas' NA) become ``null`` or the bare word ``NaN``, which the daemon leaves out. An
infinity goes as the bare word ``Infinity``, which the daemon leaves out and counts: orjson would write it as ``null``, so
whatever holds one is written by the standard library.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import os
import uuid
from collections.abc import Mapping
from typing import Any, Callable, Dict, List, Optional

from ._errors import Unencodable

try:
    if os.environ.get("LOTLOG_JSON") == "stdlib":
        raise ImportError
    import orjson as _orjson
except ImportError:
    _orjson = None  # type: ignore[assignment]

#: Nesting beyond which a value is cut to text: the daemon takes 64 levels, the request's own included.
_MAX_DEPTH = 60

_INFINITY = float("inf")


def substitute(value: Any) -> Any:
    """What stands for a value that JSON does not know. Never raises."""
    try:
        return _substitute(value)
    except Exception:
        return None


def _substitute(value: Any) -> Any:
    kind = type(value)
    name = kind.__name__
    if name in ("NAType", "NaTType"):
        return None
    if isinstance(value, decimal.Decimal):
        if value.is_nan():
            return None
        if value.is_infinite():
            return float(value)
        if value == value.to_integral_value() and value.adjusted() < 40 and int(value.as_tuple().exponent) >= 0:
            return int(value)
        return float(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, (uuid.UUID, os.PathLike, datetime.timedelta, complex)):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key): member for key, member in value.items()}
    members = fields(value)
    if members is not None:
        return members
    if isinstance(value, (set, frozenset, tuple, range)):
        return list(value)
    if kind.__module__.partition(".")[0] == "numpy" and name in ("datetime64", "timedelta64"):
        text = str(value)
        return None if text == "NaT" else text
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):  # of some units, tolist makes mere integers
        return list(value) if value.ndim else value[()]
    to_list = getattr(value, "tolist", None) or getattr(value, "to_pylist", None) or getattr(value, "to_list", None)
    if to_list is not None:  # numpy scalars and arrays, tensors, Series
        plain = to_list()
        return plain if type(plain) is not kind else str(value)
    as_py = getattr(value, "as_py", None)
    if as_py is not None:  # pyarrow scalars
        return as_py()
    return str(value)


def fields(value: Any) -> Optional[Dict[str, Any]]:
    """The fields of a dataclass, an attrs class, a named tuple or a model, or None. Found by duck typing."""
    kind = type(value)
    names = getattr(kind, "__dataclass_fields__", None)
    if names is not None:
        return {name: getattr(value, name) for name, field in names.items() if field._field_type.name == "_FIELD"}
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return {attribute.name: getattr(value, attribute.name) for attribute in attributes}
    for method in ("_asdict", "model_dump"):
        dump = getattr(kind, method, None)
        if dump is not None:
            return dict(dump(value))
    return None


def _key(key: Any) -> str:
    if type(key) is str:
        return key
    plain = substitute(key)
    return str(plain if isinstance(plain, (str, int, float)) else key)


def _plain(value: Any, depth: int = 0) -> Any:
    """A value in which nothing is left that JSON does not know; slow, and only for what nothing else can write."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _without_lone_surrogates(str(value))
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:  # more digits than Python writes
            return _INFINITY if value > 0 else -_INFINITY
        return int(value)
    if isinstance(value, float):
        return float(value)
    if depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {_without_lone_surrogates(_key(key)): _plain(member, depth + 1) for key, member in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(type(value), "_asdict"):
        return [_plain(member, depth + 1) for member in value]
    return _plain(substitute(value), depth + 1)


def _without_lone_surrogates(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_encode_text: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=substitute, check_circular=False
).encode


def dumps_exactly(value: Any) -> bytes:
    """By the standard library: infinities stay what they are."""
    try:
        return _encode_text(value).encode()
    except (TypeError, ValueError, RecursionError):  # keys that are no text, lone surrogates, circles
        pass
    try:
        return _encode_text(_plain(value)).encode()
    except Exception as error:
        raise Unencodable(f"this cannot be written as JSON, so nothing was sent: {error!r}") from error


if _orjson is not None:
    _fast_dumps = _orjson.dumps
    _MOMENTS_OF_NAT = (b'"1970-01-01T00:00:00"', b'"1677-09-21T00:12:43.145224"')
    _FAST_OPTIONS = _orjson.OPT_SERIALIZE_NUMPY | _orjson.OPT_PASSTHROUGH_SUBCLASS
    loads: Callable[[bytes], Any] = _orjson.loads

    def dumps_rows(rows: List[Dict[str, Any]], may_hold_infinity: bool = True) -> bytes:
        """The rows as a JSON array."""
        try:
            text = _fast_dumps(rows, substitute, _FAST_OPTIONS)
        except Exception:
            return dumps_exactly(rows)
        if may_hold_infinity and _holds_null(text) and _may_hold_infinity(rows, text):
            return dumps_exactly(rows)
        return dumps_exactly(rows) if _may_hold_nat(text) else text

    def _may_hold_nat(text: bytes) -> bool:
        """orjson writes numpy's NaT as a moment, which depends on its unit."""
        return b"-" in text and any(text.rfind(moment) >= 0 for moment in _MOMENTS_OF_NAT)

    def _holds_null(text: bytes) -> bool:
        # Searched from the end, which takes a third of the time of `in`. Without a list inside, a null follows a key.
        return text.rfind(b'":null') >= 0 or (text.find(b"[", 1) >= 0 and b"null" in text)

    def dumps(value: Any) -> bytes:
        """Any value as JSON."""
        try:
            text = _fast_dumps(value, substitute, _FAST_OPTIONS)
        except Exception:
            return dumps_exactly(value)
        return dumps_exactly(value) if b"null" in text or _may_hold_nat(text) else text

else:
    loads = json.loads

    def dumps_rows(rows: List[Dict[str, Any]], may_hold_infinity: bool = True) -> bytes:
        """The rows as a JSON array."""
        return dumps_exactly(rows)

    dumps = dumps_exactly


def _may_hold_infinity(rows: List[Dict[str, Any]], text: bytes) -> bool:
    """Whether one of the nulls in ``text`` may be an infinity. Looks at the first level only, unless there are more."""
    if text.count(b"{") != len(rows) or text.count(b"[") != 1:
        return True
    try:
        for row in rows:
            values = row.values()
            if _INFINITY in values or -_INFINITY in values:
                return True
    except Exception:  # a value that cannot be compared, such as pandas' NA
        return True
    return False


def is_missing(value: Any) -> bool:
    """None, NaN, NaT, NA."""
    if value is None:
        return True
    try:
        if isinstance(value, float):
            return math.isnan(value)
        if isinstance(value, decimal.Decimal):
            return value.is_nan()
        return type(value).__name__ in ("NAType", "NaTType") or bool(value != value)
    except Exception:
        return False

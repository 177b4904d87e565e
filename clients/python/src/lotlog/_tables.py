"""Items in any of the forms that producers have them in, as rows: a list of plain dicts. By duck typing, so that no
library of tables is imported; tables are taken apart by columns, not row by row. Does not know JSON or the daemon.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from ._errors import Unencodable
from ._json import fields

#: Columns that name an item: there, a column of floats was one of integers that got missing cells.
IDENTIFIERS: FrozenSet[str] = frozenset(("sku_local", "asin", "upc", "ean", "upc_ean_asin"))
#: Floats are integers without gaps up to here.
_EXACT_FLOAT = 2.0**53
_INFINITY = float("inf")
#: Columns for which a function is compiled.
_MOST_COMPILED = 200
_DICTS = frozenset((dict,))

Row = Dict[str, Any]


class Rows:
    """Items as rows, and whether an infinity may be among their values."""

    __slots__ = ("rows", "may_hold_infinity", "lacks")

    def __init__(self, rows: List[Row], may_hold_infinity: bool, lacks: Callable[[str], bool]):
        self.rows = rows
        self.may_hold_infinity = may_hold_infinity
        #: Whether no row has the key; only known keys are looked up.
        self.lacks = lacks


def rows_of(items: Any, only: Optional[FrozenSet[str]] = None) -> Rows:
    """Items as rows; with ``only``, those columns and no others.

    Takes a DataFrame of pandas or polars, a pyarrow table or record batch, a structured numpy array, a dict of columns, one
    mapping or dataclass, or an iterable of mappings, dataclasses, attrs classes, named tuples.
    """
    if only is None and type(items) is list and _DICTS.issuperset(map(type, items)):
        return Rows(items, True, lambda key: not any(key in row for row in items))
    columns = _columns_of(items, only)
    if columns is not None:
        return _from_columns(columns, _height(items))
    rows = _from_iterable(items)
    if only is not None:
        rows = [{key: value for key, value in row.items() if key in only} for row in rows]
    return Rows(rows, True, lambda key: not any(key in row for row in rows))


class _Column(NamedTuple):
    name: str
    values: List[Any]
    may_hold_infinity: bool


def _height(items: Any) -> int:
    """How many rows a table has, where none of its columns was taken."""
    shape = getattr(items, "shape", None)
    if isinstance(shape, tuple) and shape:
        return int(shape[0]) if shape[-1] else 0
    return max((len(values) for values in items.values() if _is_column(values)), default=0) if isinstance(items, Mapping) else 0


def _from_columns(columns: List[_Column], height: int) -> Rows:
    if not columns:
        return Rows([{} for _ in range(height)], False, lambda key: True)
    names = [column.name for column in columns]
    lists = [column.values for column in columns]
    lengths = set(map(len, lists))
    if len(lengths) > 1:
        sizes = ", ".join(f"{column.name} {len(column.values)}" for column in columns)
        raise Unencodable(f"the columns are of different lengths, so nothing was sent: {sizes}")
    rows = _row_maker(tuple(names))(zip(*lists))
    return Rows(rows, any(column.may_hold_infinity for column in columns), lambda key: key not in names)


@functools.lru_cache(maxsize=64)
def _row_maker(names: Tuple[str, ...]) -> Callable[[Iterable[Tuple[Any, ...]]], List[Row]]:
    """A function that makes dicts with these keys out of tuples. Compiled for them, as `collections.namedtuple` is: more
    than twice as fast as dict(zip())."""
    if len(names) > _MOST_COMPILED:
        return lambda values: [dict(zip(names, row)) for row in values]
    variables = ",".join(f"v{at}" for at in range(len(names)))
    members = ",".join(f"{ascii(name)}:v{at}" for at, name in enumerate(names))
    made: Callable[[Iterable[Tuple[Any, ...]]], List[Row]] = eval(f"lambda rows: [{{{members}}} for {variables}, in rows]")
    return made


def _columns_of(items: Any, only: Optional[FrozenSet[str]]) -> Optional[List[_Column]]:
    if isinstance(items, (list, tuple)):
        return None
    take: Callable[[str], bool] = (lambda name: True) if only is None else only.__contains__
    if isinstance(items, Mapping):
        return _of_mapping(items, take)
    kind = type(items)
    if hasattr(kind, "iloc") and hasattr(kind, "columns") and hasattr(kind, "dtypes"):
        return _of_pandas(items, take, only)
    if hasattr(kind, "get_columns"):  # polars
        return [_generic(s.name, s.to_list()) for s in items.get_columns() if take(s.name)]
    if hasattr(kind, "column_names") and hasattr(kind, "to_pydict"):
        return [_of_arrow(name, items.column(at)) for at, name in enumerate(items.column_names) if take(name)]
    names = getattr(getattr(items, "dtype", None), "names", None)
    if names is not None:
        return [_of_array(name, items[name]) for name in names if take(name)]
    if hasattr(kind, "collect") and hasattr(kind, "collect_schema"):
        raise Unencodable("a lazy frame has no rows yet, so nothing was sent: give it collected")
    return None


def _of_mapping(items: Mapping[Any, Any], take: Callable[[str], bool]) -> Optional[List[_Column]]:
    """A dict of columns; None for a single item."""
    if not items:
        return []
    is_column = [_is_column(value) for value in items.values()]
    if not any(is_column):
        return None
    if not all(is_column):
        odd = [str(key) for key, yes in zip(items, is_column) if not yes]
        raise Unencodable(
            f"a dict of columns needs a sequence for each, but {', '.join(odd[:5])} is none, so nothing was sent: "
            "give one item as [item]"
        )
    columns = []
    for key, values in items.items():
        name = str(key)
        if take(name):
            array = hasattr(values, "dtype") and hasattr(values, "tolist")
            columns.append(_of_array(name, values) if array else _generic(name, list(values)))
    return columns


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes, bytearray, Mapping))
        and hasattr(value, "__len__")
        and getattr(value, "ndim", 1) != 0  # an array of numpy that is a number
    )


def _of_pandas(frame: Any, take: Callable[[str], bool], only: Optional[FrozenSet[str]]) -> List[_Column]:
    columns: Dict[str, _Column] = {}
    if len(frame) == 0:
        return []
    pairs = frame.items()
    if only is not None and len(frame.columns) > len(only) and frame.columns.is_unique:
        # No Series is made of what is not taken.
        pairs = ((label, frame[label]) for label in frame.columns.tolist() if take(str(label)))
    for label, series in pairs:
        name = label if type(label) is str else str(label)
        if take(name):  # of two columns of one name the later counts
            columns[name] = _of_array(name, series)
    return list(columns.values())


def _of_array(name: str, series: Any) -> _Column:
    """A column of pandas or numpy."""
    dtype = series.dtype
    kind = getattr(dtype, "kind", "O")
    if getattr(dtype, "isbuiltin", None) is None:  # an extension type of pandas: missing cells are NA
        try:
            listed = series.to_numpy(dtype=object, na_value=None).tolist()
        except (TypeError, ValueError):
            listed = series.astype(object).where(series.notna(), None).tolist()
        if getattr(dtype, "name", "") in ("str", "string"):
            return _Column(name, listed, False)
        return _generic(name, listed, identifier_is_float=kind == "f")
    values = getattr(series, "values", series)
    if kind == "f":
        listed = values.tolist()
        if name in IDENTIFIERS:
            return _Column(name, [_whole(value) for value in listed], True)
        return _Column(name, listed, _numpy_has_infinity(values))
    if kind in "iub":
        return _Column(name, values.tolist(), False)
    if kind in "mM":
        return _Column(name, list(series), False)
    return _generic(name, values.tolist())


def _numpy_has_infinity(values: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is None or bool(numpy.isinf(values).any())


def _of_arrow(name: str, column: Any) -> _Column:
    kind = str(column.type)
    if kind in ("double", "float") and column.null_count == 0:
        return _of_array(name, column.to_numpy())
    return _generic(name, column.to_pylist())


def _generic(name: str, values: List[Any], identifier_is_float: bool = True) -> _Column:
    """A column of Python's values."""
    kinds = set(map(type, values))
    if name in IDENTIFIERS and identifier_is_float and float in kinds and kinds <= {float, type(None)}:
        values = [_whole(value) for value in values]
    if kinds <= {str, int, bool, type(None)}:
        return _Column(name, values, False)
    if kinds <= {float, str, int, bool, type(None)}:
        return _Column(name, values, _INFINITY in values or -_INFINITY in values)
    return _Column(name, values, True)


def _whole(value: Any) -> Any:
    """An identifier out of a column of floats: 7.0 was 7 before its column got a missing cell."""
    if value is not None and -_EXACT_FLOAT <= value <= _EXACT_FLOAT and value == int(value):
        return int(value)
    return value


def _from_iterable(items: Any) -> List[Row]:
    if isinstance(items, Mapping):
        return [_row(items, 0)]
    if isinstance(items, (str, bytes, bytearray)) or items is None:
        raise Unencodable(f"items are a table or an iterable of mappings, not {type(items).__name__}: nothing was sent")
    single = fields(items) if not isinstance(items, (list, tuple)) else None
    if single is not None:
        return [single]
    try:
        rows: List[Any] = items if type(items) is list else list(items)
    except TypeError:
        raise Unencodable(
            f"items are a table or an iterable of mappings, not {type(items).__name__}: nothing was sent"
        ) from None
    if _DICTS.issuperset(map(type, rows)):
        return rows
    return [row if type(row) is dict else _row(row, at) for at, row in enumerate(rows)]


def _row(item: Any, at: int) -> Row:
    if isinstance(item, Mapping):
        return dict(item)
    members = fields(item)
    if members is not None:
        return members
    keys: Optional[Callable[[], Iterable[str]]] = getattr(item, "keys", None)
    if keys is not None and hasattr(item, "__getitem__"):  # rows of sqlite3 and the like
        return {key: item[key] for key in keys()}
    raise Unencodable(f"item {at} is no mapping but {type(item).__name__}, so nothing was sent")


def halves(rows: List[Row]) -> Tuple[List[Row], List[Row]]:
    """Rows in two parts, for what is too large for one batch."""
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]

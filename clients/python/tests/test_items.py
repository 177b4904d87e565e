"""Items in all the forms that producers have them in, and values that JSON does not know."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import os
import sqlite3
import subprocess
import sys
import types
import unittest
import uuid

from .support import REPOSITORY, TestCase

import lotlog
from lotlog import _json, _tables

CASES = os.path.join(REPOSITORY, "tests", "data", "record_cases.json")


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        return None


numpy, pandas, polars, pyarrow, attrs = map(optional, ("numpy", "pandas", "polars", "pyarrow", "attr"))


@dataclasses.dataclass
class Prediction:
    sku_local: str
    est_price_mu: float


Pair = collections.namedtuple("Pair", "sku_local est_price_mu")


class Forms(TestCase):
    def check(self, items, expected):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            receipt = client.log(items, lot_id="L")
        found = [(r.get("sku_local"), r.get("est_price_mu")) for r in daemon.records("L")]
        self.assertEqual(found, expected)
        self.assertEqual(receipt.records, len(expected))

    def test_every_iterable_of_mappings_and_classes(self):
        expected = [("A", 1.0), ("B", 2.5)]
        dicts = [{"sku_local": "A", "est_price_mu": 1.0}, {"sku_local": "B", "est_price_mu": 2.5}]
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        connection.row_factory = sqlite3.Row
        rows = connection.execute("select 'A' sku_local, 1.0 est_price_mu union select 'B', 2.5").fetchall()
        forms = [
            dicts,
            tuple(dicts),
            (row for row in dicts),
            [collections.OrderedDict(row) for row in dicts],
            [types.MappingProxyType(row) for row in dicts],
            [Prediction("A", 1.0), Prediction("B", 2.5)],
            [Pair("A", 1.0), Pair("B", 2.5)],
            rows,
            {"sku_local": ["A", "B"], "est_price_mu": (1.0, 2.5)},
        ]
        if attrs:
            made = attrs.make_class("Made", ["sku_local", "est_price_mu"])
            forms.append([made("A", 1.0), made("B", 2.5)])
        for items in forms:
            with self.subTest(type(items).__name__):
                self.check(items, expected)

    def test_one_item_is_one_item(self):
        for items in ({"sku_local": "A", "est_price_mu": 1.0}, Prediction("A", 1.0), Pair("A", 1.0)):
            self.check([items] if isinstance(items, tuple) else items, [("A", 1.0)])

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_numpy_arrays_and_scalars(self):
        self.check({"sku_local": numpy.array("A"), "est_price_mu": numpy.array(4.0)}, [("A", 4.0)])
        self.check({"sku_local": numpy.array(["A", "B"]), "est_price_mu": numpy.array([1, 2.5])}, [("A", 1.0), ("B", 2.5)])
        array = numpy.array([("A", 1.0), ("B", 2.5)], dtype=[("sku_local", "U4"), ("est_price_mu", "f8")])
        self.check(array, [("A", 1.0), ("B", 2.5)])
        scalars = [numpy.int64(1), numpy.float64(2.5), numpy.float32(0.5), numpy.uint8(3), numpy.bool_(True), numpy.array(4.0)]
        self.check([{"sku_local": s, "est_price_mu": s} for s in scalars],
                   [(1, 1.0), (2.5, 2.5), (0.5, 0.5), (3, 3.0), (True, 1.0), (4.0, 4.0)])  # fmt: skip
        for missing in (numpy.float64("nan"), numpy.float32("nan")):
            self.check([{"sku_local": missing, "est_price_mu": missing}], [(None, None)])

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_no_moment_of_numpy_is_missing_whatever_its_unit(self):
        for unit in ("D", "h", "s", "ms", "us", "ns"):
            missing, epoch = numpy.datetime64("NaT", unit), numpy.datetime64("1970-01-01", unit)
            for items in ([{"sku_local": missing}, {"sku_local": epoch}], {"sku_local": numpy.array([missing, epoch])}):
                found = json.loads(_json.dumps_rows(_tables.rows_of(items).rows))
                self.assertEqual([str(row["sku_local"])[:10] for row in found], ["None", "1970-01-01"], (unit, items))
            for dumps in (_json.dumps, _json.dumps_exactly):
                nested = json.loads(dumps({"v": numpy.array([missing, epoch])}))["v"]
                self.assertEqual([str(value)[:10] for value in nested], ["None", "1970-01-01"], (unit, dumps))
            self.check([{"sku_local": missing, "est_price_mu": missing}], [(None, None)])

    @unittest.skipIf(pandas is None, "pandas is not installed")
    def test_pandas_frames(self):
        frame = pandas.DataFrame({"sku_local": ["A", None], "est_price_mu": [1.0, float("nan")]})
        self.check(frame, [("A", 1.0), (None, None)])
        self.check(frame.iloc[::-1], [(None, None), ("A", 1.0)])
        ids = pandas.DataFrame({"sku_local": [7.0, None, 7.5, float("inf")], "est_price_mu": [1, 2, 3, 4]})
        self.check(ids, [(7, 1.0), (None, 2.0), (7.5, 3.0), (None, 4.0)])
        for dtype in ("Int64", "Float64", "string"):
            column = pandas.array([1, None], dtype=dtype) if dtype != "string" else pandas.array(["1", None], dtype=dtype)
            self.check(pandas.DataFrame({"sku_local": ["A", "B"], "est_price_mu": column}), [("A", 1.0), ("B", None)])
        double = pandas.DataFrame([["A", 1.0, 2.0]], columns=["sku_local", "est_price_mu", "est_price_mu"])
        self.check(double, [("A", 2.0)])

    @unittest.skipIf(polars is None, "polars is not installed")
    def test_polars_frames(self):
        frame = polars.DataFrame({"sku_local": ["A", None], "est_price_mu": [1.0, float("nan")]})
        self.check(frame, [("A", 1.0), (None, None)])
        self.check(polars.DataFrame({"sku_local": [7, None], "est_price_mu": [1, None]}), [(7, 1.0), (None, None)])
        with self.assertRaises(lotlog.Unencodable):
            lotlog.Client("/nowhere").log(frame.lazy())

    @unittest.skipIf(pyarrow is None, "pyarrow is not installed")
    def test_arrow_tables_and_batches(self):
        table = pyarrow.table({"sku_local": ["A", None], "est_price_mu": [1.0, None]})
        self.check(table, [("A", 1.0), (None, None)])
        self.check(table.to_batches()[0], [("A", 1.0), (None, None)])
        self.check(pyarrow.table({"sku_local": [7, None], "est_price_mu": [1.0, 2.0]}), [(7, 1.0), (None, 2.0)])

    def test_infinities_are_left_out_and_counted_in_every_form(self):
        inf = float("inf")
        columns = {"sku_local": ["A", "B", "C"], "est_price_mu": [inf, -inf, float("nan")], "extra": [1.0, inf, 2.0]}
        rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
        forms = [rows, columns]
        forms += [pandas.DataFrame(columns)] if pandas else []
        forms += [polars.DataFrame(columns)] if polars else []
        forms += [pyarrow.table(columns)] if pyarrow else []
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            for items in forms:
                self.assertEqual(client.log(items, lot_id="L").dropped, {"est_price_mu": 2, "extra": 1}, type(items))
            nested = client.log([{"extra": [1, {"deep": inf}]}], lot_id="L", opt_params={"x": -inf})
            self.assertEqual(nested.dropped, {"extra": 1, "opt_params": 1})

    def test_what_is_too_large_for_one_batch_goes_as_several_in_order(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket, timeout=60) as client:
            receipt = client.log([{"sku_local": at, "pad": "x" * 3000} for at in range(6000)], lot_id="L")
            self.assertEqual(receipt.records, 6000)
            self.assertGreater(client.stats()["batches"], 1)
        self.assertEqual([r["sku_local"] for r in daemon.records("L")], list(range(6000)))

    def test_no_library_of_tables_is_imported(self):
        code = "import sys, lotlog, lotlog.aio; print([m for m in ('numpy', 'pandas', 'polars', 'pyarrow') if m in sys.modules])"
        self.assertEqual(self.python(code).stdout.strip(), "[]")


class Values(unittest.TestCase):
    def check(self, value, expected):
        for dumps in (_json.dumps, _json.dumps_exactly):
            self.assertEqual(json.loads(dumps({"v": value}))["v"], expected, (value, dumps))

    def test_values_that_json_does_not_know(self):
        class Color(enum.Enum):
            RED = "red"

        class Broken:
            def __str__(self):
                raise RuntimeError

        moment = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
        name = uuid.uuid4()
        for value, expected in [
            (decimal.Decimal("1.5"), 1.5),
            (decimal.Decimal("7"), 7),
            (decimal.Decimal("1E+2"), 100),
            (decimal.Decimal("NaN"), None),
            (moment, "2020-01-02T03:04:05+00:00"),
            (datetime.date(2020, 1, 2), "2020-01-02"),
            (datetime.timedelta(seconds=1), "0:00:01"),
            (name, str(name)),
            (Color.RED, "red"),
            (b"\xff", "\ufffd"),
            ({1: 2}, {"1": 2}),
            ({(1, 2): 3}, {"(1, 2)": 3}),
            ({3}, [3]),
            (range(2), [0, 1]),
            (Prediction("A", 1.0), {"sku_local": "A", "est_price_mu": 1.0}),
            (Broken(), None),
            ("\ud800", "\ufffd"),
            (2**100, 2**100),
        ]:
            self.check(value, expected)

    def test_circles_are_cut_or_refused_and_never_crash(self):
        circle = {}
        circle["self"] = circle
        self.assertIn(b"...", _json.dumps(circle))
        deep = []
        for _ in range(100_000):
            deep = [deep]
        try:
            _json.dumps(deep)
        except lotlog.Unencodable:
            pass

    def test_the_rows_of_a_list_of_dicts_are_not_copied(self):
        rows = [{"a": 1}, {"a": 2}]
        self.assertIs(_tables.rows_of(rows).rows, rows)


@unittest.skipUnless(os.path.exists(CASES), "the recorded cases are only in the repository of lotlog")
class RecordedCases(TestCase):
    """What each recorded request stores, sent through the client as Python values."""

    def test_every_recorded_case_that_python_can_say_gives_its_records_and_reply(self):
        with open(CASES, encoding="utf-8") as file:
            cases = json.load(file)
        daemon = self.daemon()
        said = 0
        for at, case in enumerate(cases):
            request = json.loads(case["request"])
            if not case["reply"]["ok"] or not isinstance(request.get("items"), list):
                continue
            with self.subTest(case["name"]), lotlog.Client(daemon.socket, ack=request.get("ack")) as client:
                context = request.get("context") or {}
                lot = context.get("lot_id", "unassigned")
                before = len(daemon.records(str(lot)))
                receipt = client.log(request["items"], context=context)
                expected = [json.loads(text) for text in case["records"]]
                found = daemon.records(str(lot))[before:]
                for record in found + expected:
                    for part in (record, record["context"]):
                        part.pop("timestamp", None)
                    for key in ("session", "seq"):
                        record["context"].pop(key, None)
                self.assertEqual(found, expected)
                self.assertEqual(receipt.dropped, case["reply"].get("dropped", {}))
                self.assertEqual(sorted(receipt.overridden), sorted(case["reply"].get("overridden", [])))
                said += 1
        self.assertGreater(said, 20)


class WithoutOrjson(TestCase):
    def test_the_same_tests_pass_with_the_standard_librarys_json(self):
        if _json._orjson is None:
            self.skipTest("orjson is not installed: they just ran so")
        env = {**os.environ, "LOTLOG_JSON": "stdlib"}
        names = [f"{__name__}.{case}" for case in ("Forms", "Values", "RecordedCases")]
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        run = subprocess.run([sys.executable, "-m", "unittest", *names], cwd=root, env=env, stderr=subprocess.PIPE)
        self.assertEqual(run.returncode, 0, run.stderr.decode())


if __name__ == "__main__":
    unittest.main()

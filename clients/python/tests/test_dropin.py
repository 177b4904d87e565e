"""The drop-in ``log_predictions``: the old logger's habits, kept; its failures, not."""

from __future__ import annotations

import datetime
import decimal
import os
import time
import unittest
import warnings

from .support import TestCase

import lotlog

try:
    import pandas
except ImportError:
    pandas = None


class DropIn(TestCase):
    def setUp(self):
        self.place = self.daemon()
        self.environment(LOTLOG_SOCKET=self.place.socket, LOTLOG_SPOOL_DIR=self.directory())

    def test_the_known_columns_and_context_values_are_taken_and_no_others(self):
        columns = lotlog.dropin.ITEM_COLUMNS
        item = {name: 1.5 for name in columns}
        stored = lotlog.log_predictions(
            [{**item, "secret": "x"}],
            {"lot_id": "L", "roi_target": 1.2, "risk_threshold": 0.8, "horizon_days": 30, "opt_source": "s",
             "opt_params": {"sims": 1}, "other": "x"},
            None,
        )  # fmt: skip
        self.assertEqual(stored, 1)
        (record,) = self.place.records("L")
        self.assertEqual(set(columns) - set(record), set())
        self.assertNotIn("secret", record)
        self.assertNotIn("other", record["context"])
        self.assertEqual((record["horizon_days"], record["context"]["opt_params"]), (30, {"sims": 1}))

    def test_an_empty_table_returns_0_and_sends_nothing(self):
        empty = [[], {}, {"sku_local": []}, None]
        if pandas:
            empty += [pandas.DataFrame(), pandas.DataFrame({"sku_local": []}), pandas.DataFrame(index=range(3))]
        for table in empty:
            self.assertEqual(lotlog.log_predictions(table, {"lot_id": "L"}, None), 0)
        with lotlog.Client() as client:
            self.assertEqual(client.status()["batches"], 0)

    def test_quantity_is_1_only_where_the_column_is_absent(self):
        lotlog.log_predictions([{"sku_local": "A"}, {"sku_local": "B"}], {"lot_id": "absent"})
        lotlog.log_predictions([{"sku_local": "A", "quantity": None}, {"sku_local": "B", "quantity": 3}], {"lot_id": "empty"})
        self.assertEqual([r["quantity"] for r in self.place.records("absent")], [1, 1])
        self.assertEqual([r.get("quantity") for r in self.place.records("empty")], [None, 3])

    def test_horizon_days_is_60_only_where_the_key_is_absent(self):
        lotlog.log_predictions([{"sku_local": "A"}], {"lot_id": "absent"})
        lotlog.log_predictions([{"sku_local": "A"}], {"lot_id": "null", "horizon_days": None})
        self.assertEqual(self.place.records("absent")[0]["horizon_days"], 60)
        self.assertNotIn("horizon_days", self.place.records("null")[0])

    def test_the_stem_of_the_path_is_the_lot_where_the_context_names_none_and_nothing_is_written_there(self):
        path = os.path.join(self.directory(), "LOT_77.jsonl")
        for context in ({}, {"lot_id": None}, {"lot_id": float("nan")}, {"lot_id": ""}):
            self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], context, path), 1)
        self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], {"lot_id": "named"}, path), 1)
        self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], {}, None), 1)
        self.assertEqual(len(self.place.records("LOT_77")), 4)
        self.assertEqual([len(self.place.records(lot)) for lot in ("named", "unassigned")], [1, 1])
        self.assertFalse(os.path.exists(path))

    def test_an_odd_path_or_context_loses_no_predictions(self):
        class Row:  # used as a mapping, without being one: a Series, a row of a database
            def keys(self):
                return ["lot_id"]

            def __contains__(self, key):
                return key == "lot_id"

            def __getitem__(self, key):
                return {"lot_id": "ROW"}[key]

        self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], Row(), None), 1)
        self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], {}, b"/x/BYTES.jsonl"), 1)
        self.assertEqual(lotlog.log_predictions([{"sku_local": "A"}], {}, 7), 1)
        self.assertEqual([len(self.place.records(lot)) for lot in ("ROW", "BYTES", "unassigned")], [1, 1, 1])

    def test_a_number_with_more_digits_than_python_writes_is_left_out_and_counted(self):
        rows = [{"sku_local": "A", "est_price_mu": 10**5000}, {"sku_local": "B", "sell_p60": 0.5}]
        self.assertEqual(lotlog.log_predictions(rows, {"lot_id": "long"}, None), 2)
        self.assertEqual([r.get("est_price_mu") for r in self.place.records("long")], [None, None])
        self.assertEqual(lotlog.dropin.default_client().stats()["dropped"], 1)

    def test_odd_values_never_break_it_and_skus_stay_what_they_were(self):
        nan, inf = float("nan"), float("inf")
        rows = [
            {"sku_local": 7, "est_price_mu": nan, "quantity": inf},
            {"sku_local": "007", "est_price_mu": decimal.Decimal("45.50"), "quantity": decimal.Decimal("2")},
            {"sku_local": decimal.Decimal("12345678901234567890"), "sell_p60": decimal.Decimal("NaN")},
            {"sku_local": datetime.date(2020, 1, 2), "est_price_mu": "$45", "est_price_sigma": object()},
            {"sku_local": "lone \ud800 surrogate", "est_price_p50": 10**400, "upc": 2**63},
        ]
        self.assertEqual(lotlog.log_predictions(rows, {"lot_id": "odd", "roi_target": inf}, None), 5)
        records = self.place.records("odd")
        self.assertEqual([r["sku_local"] for r in records[:3]], [7, "007", 12345678901234567890])
        self.assertEqual(records[1]["est_price_mu"], 45.5)
        self.assertEqual((records[1]["quantity"], "quantity" in records[0]), (2, False))
        self.assertEqual(records[3]["sku_local"], "2020-01-02")
        self.assertEqual(records[4]["sku_local"], "lone \ufffd surrogate")
        self.assertEqual(records[4]["upc"], 2**63)
        client = lotlog.dropin.default_client()
        self.assertEqual(client.stats()["dropped"], 5, "two infinities, a price with a sign, an object, a number too large")

    def test_failures_never_raise_and_are_told_once_unless_strict(self):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            lotlog.dropin._has_warned = False
            for _ in range(3):
                self.assertEqual(lotlog.log_predictions(5, {"lot_id": "L"}, None), 0)
                self.assertEqual(lotlog.log_predictions([{"a": 1}], {"lot_id": "x" * 300}, None), 0)
        self.assertEqual([str(w.message)[:30] for w in told if "predictions were not" in str(w.message)][1:], [])
        self.assertTrue(all(issubclass(w.category, lotlog.LotlogWarning) for w in told))
        self.environment(LOTLOG_STRICT="1")
        with self.assertRaises(TypeError):
            lotlog.log_predictions(5, {"lot_id": "L"}, None)
        with self.assertRaises(lotlog.Refused):
            lotlog.log_predictions([{"sku_local": 1}], {"lot_id": "x" * 300}, None)

    def test_a_misspelt_mode_is_taken_for_on_with_a_warning_unless_strict(self):
        self.environment(LOTLOG_MODE="spol")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for at in range(2):
                self.assertEqual(lotlog.log_predictions([{"sku_local": at}], {"lot_id": "M"}, None), 1)
            with lotlog.Client() as client:
                self.assertEqual(client.log([{"sku_local": 2}], lot_id="M").records, 1)
        self.assertEqual(["'spol'" in str(warning.message) for warning in told], [True, True], "once for each client")
        self.assertEqual(len(self.place.records("M")), 3)
        self.environment(LOTLOG_STRICT="1")
        with self.assertRaises(ValueError):
            lotlog.log_predictions([{"sku_local": 1}], {"lot_id": "M"}, None)

    def test_what_cannot_be_understood_is_counted(self):
        client = lotlog.dropin.default_client()

        class Broken:
            def __iter__(self):
                raise OSError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for items, context in ((5, {}), (Broken(), {}), ({"sku_local": [1], "asin": [1, 2]}, {}), ([{"sku_local": 1}], 7)):
                self.assertEqual(lotlog.log_predictions(items, context, None), 0)
        self.assertEqual((client.stats()["unencodable"], client.stats()["batches"]), (4, 0))
        with self.assertRaises(lotlog.Unencodable):
            client.log(5)
        self.assertEqual(client.stats()["unencodable"], 5)

    @unittest.skipIf(os.path.exists(lotlog._places.SYSTEM_SOCKET), "a daemon is installed here")
    def test_a_socket_that_could_be_anybodys_is_no_reason_to_lose_predictions(self):
        code = (
            "import os, sys, tempfile, lotlog\n"
            "os.geteuid = lambda: 12345\n"
            "os.mkdir(os.path.join(tempfile.gettempdir(), 'lotlog-12345'), 0o777)\n"
            "print(lotlog.log_predictions([{'sku_local': 1}], {'lot_id': 'L'}, None), lotlog.dropin.default_client().stats()['spooled'])\n"
            "try: lotlog.Client()\n"
            "except PermissionError as error: print('LOTLOG_SOCKET' in str(error))\n"
        )
        del os.environ["LOTLOG_SOCKET"]
        place = self.directory()
        run = self.python(code, TMPDIR=place, XDG_RUNTIME_DIR="")
        self.assertEqual(run.stdout, "0 1\nTrue\n", run.stderr)

    def test_without_a_daemon_it_spools_and_returns_0_and_the_next_success_delivers(self):
        self.place.stop()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            lotlog.dropin.TIMEOUT_SECONDS = 0.2
            try:
                for at in range(4):
                    self.assertEqual(lotlog.log_predictions([{"sku_local": at}], {"lot_id": "S"}, None), 0)
            finally:
                lotlog.dropin.TIMEOUT_SECONDS = 5.0
        self.assertEqual(len(told), 1, [str(w.message) for w in told])
        self.place.start()
        self.assertEqual(lotlog.log_predictions([{"sku_local": 4}], {"lot_id": "S"}, None), 1)
        self.assertEqual([r["sku_local"] for r in self.place.records("S")], [0, 1, 2, 3, 4])
        self.assertEqual(lotlog.dropin.default_client().stats()["delivered"], 4)

    def test_off_costs_nothing_and_looks_at_nothing(self):
        self.environment(LOTLOG_MODE="off")
        self.assertEqual(lotlog.log_predictions(object(), object(), object()), 0)
        began = time.perf_counter()
        for _ in range(10_000):
            lotlog.log_predictions(None, None, None)
        self.assertLess((time.perf_counter() - began) / 10_000, 50e-6)
        client = lotlog.Client("/nowhere")
        self.assertEqual(client.log(object()).records, 0)
        self.assertEqual((client.flush(), client.sync(), client.status()), (True, 0, {}))
        client.close()


@unittest.skipIf(pandas is None, "pandas is not installed")
class DropInWithPandas(TestCase):
    def setUp(self):
        self.place = self.daemon()
        self.environment(LOTLOG_SOCKET=self.place.socket, LOTLOG_SPOOL_DIR=self.directory())

    def test_a_frame_of_all_kinds_of_missing_values_is_stored(self):
        frame = pandas.DataFrame(
            {
                "sku_local": ["A", "007", "7"],
                "upc": [7, None, 12345678905],
                "est_price_mu": [1.5, float("nan"), float("inf")],
                "sell_p60": pandas.array([0.5, None, 0.25], dtype="Float64"),
                "quantity": pandas.array([1, None, 3], dtype="Int64"),
                "condition_bucket": pandas.Categorical(["new", None, "used"]),
                "asin": [pandas.NaT, pandas.NA, "B0"],
                "secret": [1, 2, 3],
            }
        )
        self.assertEqual(lotlog.log_predictions(frame, {"lot_id": "P"}, None), 3)
        records = self.place.records("P")
        self.assertEqual([r["sku_local"] for r in records], ["A", "007", "7"])
        self.assertEqual([r.get("upc") for r in records], [7, None, 12345678905])
        self.assertIs(type(records[0]["upc"]), int)
        self.assertEqual([r.get("est_price_mu") for r in records], [1.5, None, None])
        self.assertEqual([r.get("sell_p60") for r in records], [0.5, None, 0.25])
        self.assertEqual([r.get("quantity") for r in records], [1, None, 3])
        self.assertEqual([r.get("condition_bucket") for r in records], ["new", None, "used"])
        self.assertEqual([r.get("asin") for r in records], [None, None, "B0"])
        self.assertNotIn("secret", records[0])
        self.assertEqual(lotlog.dropin.default_client().stats()["dropped"], 1)

    def test_of_a_frame_with_many_columns_the_known_ones_are_taken(self):
        wide = pandas.DataFrame({"sku_local": ["A", "B"], **{f"secret{at}": [at, at] for at in range(40)}, 7: [1, 2]})
        wide["est_price_mu"] = [1.5, 2.5]
        twice = pandas.concat([wide, wide[["est_price_mu"]] + 1], axis=1)
        levels = wide.copy()
        levels.columns = pandas.MultiIndex.from_tuples([(str(name), "") for name in wide.columns])
        for lot, frame, expected in (
            ("wide", wide, [("A", 1.5), ("B", 2.5)]),
            ("twice", twice, [("A", 2.5), ("B", 3.5)]),
            ("levels", levels, [(None, None), (None, None)]),
        ):
            self.assertEqual(lotlog.log_predictions(frame, {"lot_id": lot}, None), 2)
            records = self.place.records(lot)
            self.assertEqual([(r.get("sku_local"), r.get("est_price_mu")) for r in records], expected, lot)
            self.assertFalse([key for key in records[0] if "secret" in key or key == "7"])

    def test_rows_without_any_known_column_are_rows_all_the_same(self):
        frame = pandas.DataFrame({"other": [1, 2]})
        self.assertEqual(lotlog.log_predictions(frame, {"lot_id": "P"}, None), 2)
        self.assertEqual([r["quantity"] for r in self.place.records("P")], [1, 1])


if __name__ == "__main__":
    unittest.main()

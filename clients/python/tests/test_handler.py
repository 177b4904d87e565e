"""``LotlogHandler``: log records of ``logging`` as items."""

from __future__ import annotations

import logging
import unittest
import warnings

from .support import TestCase

import lotlog


class Handler(TestCase):
    def setUp(self):
        self.place = self.daemon()
        self.client = lotlog.Client(self.place.socket)
        self.addCleanup(self.client.close)
        self.logger = logging.Logger("farm")
        self.handler = lotlog.LotlogHandler(self.client, lot_id="L", opt_source="logging")
        self.logger.addHandler(self.handler)

    def test_text_mappings_extras_and_exceptions_become_items(self):
        self.logger.info("hello %s", "world", extra={"sku_local": "A"})
        self.logger.info({"sku_local": "B", "est_price_mu": 2})
        self.logger.info({"sku_local": "C"}, extra={"lot_id": "other"})
        try:
            raise KeyError("x")
        except KeyError:
            self.logger.exception("failed")
        self.handler.flush()
        text, mapping, failed = self.place.records("L")
        self.assertEqual((text["message"], text["level"], text["sku_local"]), ("hello world", "INFO", "A"))
        self.assertEqual((mapping["est_price_mu"], mapping["context"]["opt_source"]), (2.0, "logging"))
        self.assertIn("KeyError", failed["exception"])
        self.assertEqual(self.place.records("other")[0]["sku_local"], "C")

    def test_a_warning_that_comes_back_as_a_log_record_does_not_lock_it(self):
        logging.captureWarnings(True)
        self.addCleanup(logging.captureWarnings, False)
        warner = logging.getLogger("py.warnings")
        client = lotlog.Client(self.place.socket, timeout=0.2, on_failure="warn")
        self.addCleanup(client.close)
        handler = lotlog.LotlogHandler(client, lot_id="W")
        warner.addHandler(handler)
        self.addCleanup(warner.removeHandler, handler)
        warner.propagate = False
        self.addCleanup(setattr, warner, "propagate", True)
        self.place.stop()
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # also where the tests run with -W error
            client.log([{"n": 1}], lot_id="W")
        self.place.start()
        client.flush()
        self.assertIn("not stored", self.place.records("W")[0]["message"])

    def test_a_failure_goes_the_way_of_logging(self):
        failures = []
        self.handler.handleError = failures.append
        self.client.close()
        self.logger.info("late")
        self.assertEqual(len(failures), 1)


if __name__ == "__main__":
    unittest.main()

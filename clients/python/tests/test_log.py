"""``Client.log``: what is stored, what the receipt says, what goes wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import unittest

from .support import TestCase

import lotlog


class Log(TestCase):
    def test_a_batch_is_stored_with_its_context_and_its_receipt_says_so(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            receipt = client.log(
                [{"sku_local": "SKU001", "est_price_mu": 45.0, "sell_p60": 0.75}],
                lot_id="TEST_LOT_001",
                roi_target=1.25,
                opt_params={"sims": 100},
            )
        self.assertTrue(receipt.done())
        self.assertEqual((receipt.records, receipt.lsn, receipt.duplicate), (1, 1, False))
        self.assertEqual((receipt.durability, receipt.dropped, receipt.lot), ("synced", {}, "TEST_LOT_001"))
        (record,) = daemon.records("TEST_LOT_001")
        self.assertEqual(record["predicted_price"], 45.0)
        self.assertEqual(record["context"]["opt_params"], {"sims": 100})
        self.assertEqual(record["context"]["session"], receipt.session)
        self.assertEqual(record["context"]["seq"], 1)

    def test_the_acknowledgement_is_the_one_asked_for(self):
        daemon = self.daemon()
        for ack in ("written", "synced"):
            with lotlog.Client(daemon.socket, ack=ack) as client:
                self.assertEqual(client.log([{"a": 1}]).durability, ack)

    def test_no_items_are_no_batch(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            for nothing in ([], {}, (), iter([]), {"a": [], "b": []}):
                receipt = client.log(nothing, lot_id="L")
                self.assertEqual((receipt.records, receipt.done(), receipt.lsn), (0, True, None))
            self.assertEqual(client.log([{}], lot_id="L").records, 1, "an empty item is an item")

    def test_a_bound_context_goes_with_each_batch_and_gives_way_to_what_is_said(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            session = client.session(lot_id="B1", opt_source="run_optimize", opt_params={"sims": 10})
            session.log([{"a": 1}], roi_target=1.5)
            session.log([{"a": 2}], lot_id="B2", opt_source="other")
        self.assertEqual(daemon.records("B1")[0]["context"]["opt_source"], "run_optimize")
        self.assertEqual(daemon.records("B1")[0]["roi_target"], 1.5)
        self.assertEqual(daemon.records("B2")[0]["context"]["opt_source"], "other")
        self.assertEqual(daemon.records("B2")[0]["context"]["opt_params"], {"sims": 10})

    def test_what_the_daemon_refuses_is_raised_with_its_code_and_the_client_goes_on(self):
        daemon = self.daemon("--max-items", "3")
        with lotlog.Client(daemon.socket) as client:
            with self.assertRaises(lotlog.Refused) as caught:
                client.log([{"a": 1}] * 4, lot_id="L")
            self.assertEqual((caught.exception.code, caught.exception.retryable), ("too_large", False))
            self.assertEqual(client.log([{"a": 1}], lot_id="L").seq, 1, "a refused batch uses no number")
            self.assertEqual(client.stats()["refused"], 1)

    def test_without_a_daemon_the_call_ends_in_its_time_and_says_where_it_looked(self):
        daemon = self.daemon(start=False)
        client = lotlog.Client(daemon.socket, timeout=0.3)
        started = time.monotonic()
        with self.assertRaises(lotlog.Unreachable) as caught:
            client.log([{"a": 1}])
        self.assertLess(time.monotonic() - started, 2.5)
        self.assertIn(daemon.socket, str(caught.exception))
        self.assertFalse(caught.exception.unknown)

    def test_a_daemon_that_stands_still_costs_the_time_of_the_call_and_no_more(self):
        daemon = self.daemon()
        client = lotlog.Client(daemon.socket, timeout=0.3)
        client.log([{"a": 0}], lot_id="L")
        daemon.freeze()
        started = time.monotonic()
        with self.assertRaises(lotlog.Unreachable) as caught:
            client.log([{"a": 1}], lot_id="L")
        self.assertLess(time.monotonic() - started, 2.5)
        self.assertTrue(caught.exception.unknown, "it was handed over: it may be stored or not")
        daemon.thaw()
        self.assertEqual(client.log([{"a": 2}], lot_id="L").seq, 1, "a new session after an unknown fate")

    def test_status_and_sync_speak_of_the_daemon(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket, ack="written") as client:
            client.log([{"a": 1}], lot_id="L")
            self.assertEqual(client.sync(), 1)
            self.assertEqual(len(daemon.records("L")), 1)
            self.assertEqual(client.status()["records"], 1)

    def test_a_time_without_end_is_a_time_and_none_at_all_is_refused_at_once(self):
        daemon = self.daemon()
        for lsn, seconds in enumerate((float("inf"), 1e30), 1):
            with lotlog.Client(daemon.socket, timeout=seconds) as client:
                self.assertEqual(client.log([{"a": 1}]).records, 1)
                self.assertEqual((client.sync(), client.status()["records"]), (lsn, lsn))
        with self.assertRaises(ValueError):
            lotlog.Client(daemon.socket, timeout=float("nan"))

    def test_whoever_answers_status_with_something_else_was_not_the_daemon(self):
        path = os.path.join(self.directory(), "other.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()

            def answer():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection, contextlib.suppress(OSError):  # the client may have left
                        connection.recv(1000)
                        connection.sendall(b"hello\nnull\n")

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            client = lotlog.Client(path, timeout=0.2)
            try:
                with self.assertRaises(lotlog.Unreachable):
                    client.status()
            finally:
                client.close()
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(5)

    def test_a_closed_client_says_so(self):
        daemon = self.daemon()
        client = lotlog.Client(daemon.socket)
        client.close()
        client.close()
        with self.assertRaises(ValueError):
            client.log([{"a": 1}])

    def test_what_is_no_item_is_refused_before_anything_is_sent(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            for wrong in (None, 5, "text", b"bytes", [1], [{"a": 1}, "b"], {"a": [1], "b": 2}, {"a": [1], "b": [1, 2]}):
                with self.assertRaises(lotlog.Unencodable, msg=repr(wrong)):
                    client.log(wrong)
            self.assertEqual(client.status()["batches"], 0)


if __name__ == "__main__":
    unittest.main()

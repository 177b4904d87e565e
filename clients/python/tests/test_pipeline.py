"""``wait=False``: receipts that come later, in bounded memory, over restarts of the daemon."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
import unittest
import warnings

from .support import TestCase

import lotlog


class Pipeline(TestCase):
    def test_receipts_are_settled_in_order_and_flush_waits_for_all(self):
        daemon = self.daemon()
        settled = []
        with lotlog.Client(daemon.socket) as client:
            receipts = [client.log([{"n": n}], lot_id="L", wait=False) for n in range(2000)]
            for receipt in receipts:
                receipt.add_done_callback(lambda r: settled.append(r.lsn))
            self.assertTrue(client.flush())
            self.assertTrue(all(receipt.done() for receipt in receipts))
            self.assertEqual(client.stats()["pending"], 0)
        self.assertEqual([receipt.lsn for receipt in receipts], list(range(1, 2001)))
        self.assertEqual(sorted(settled), list(range(1, 2001)))
        self.assertEqual([r["n"] for r in daemon.records("L")], list(range(2000)))

    def test_result_waits_for_one(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            receipt = client.log([{"n": 1}], lot_id="L", wait=False)
            self.assertIs(receipt.result(), receipt)
            self.assertEqual(receipt.records, 1)

    def test_a_callback_may_log(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            first = client.log([{"n": 1}], lot_id="L", wait=False)
            first.add_done_callback(lambda _: client.log([{"n": 2}], lot_id="L"))
            client.flush()
        self.assertEqual([r["n"] for r in daemon.records("L")], [1, 2])

    def test_a_callback_that_fails_costs_nobody_else_anything(self):
        daemon = self.daemon()
        called = []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with lotlog.Client(daemon.socket) as client:
                receipt = client.log([{"n": 1}], lot_id="L", wait=False)
                receipt.add_done_callback(lambda _: 1 / 0)
                receipt.add_done_callback(called.append)
                self.assertTrue(client.flush())
        self.assertEqual(called, [receipt])
        self.assertEqual(["ZeroDivisionError" in str(warning.message) for warning in told], [True])

    def test_a_refused_batch_in_the_middle_is_the_only_one_that_is_not_stored(self):
        daemon = self.daemon("--max-items", "2")
        with lotlog.Client(daemon.socket) as client:
            receipts = [client.log([{"n": n}] * (3 if n % 50 == 7 else 1), lot_id="L", wait=False) for n in range(500)]
            client.flush()
            refused = [n for n, receipt in enumerate(receipts) if receipt.error]
        self.assertEqual(refused, [n for n in range(500) if n % 50 == 7])
        self.assertEqual([r["n"] for r in daemon.records("L")], [n for n in range(500) if n % 50 != 7])
        with self.assertRaises(lotlog.Refused):
            receipts[7].result()

    def test_restarts_and_kills_are_survived_without_a_word(self):
        daemon = self.daemon()
        total, killer_failed = 0, []

        def kill_and_start():
            try:
                for _ in range(3):
                    time.sleep(0.15)
                    daemon.kill()
                    daemon.start()
            except BaseException as error:
                killer_failed.append(error)

        killer = threading.Thread(target=kill_and_start)
        with lotlog.Client(daemon.socket, timeout=30) as client:
            killer.start()
            while killer.is_alive():
                client.log([{"n": total}], lot_id="L", wait=total % 10 == 0)
                total += 1
            killer.join()
            self.assertTrue(client.flush())
            self.assertGreater(client.stats()["connections"], 1)
        self.assertEqual(killer_failed, [])
        self.assertEqual([r["n"] for r in daemon.records("L")], list(range(total)))

    def test_what_is_in_flight_is_bounded_by_bytes_while_the_daemon_stands_still(self):
        daemon = self.daemon()
        client = lotlog.Client(daemon.socket, timeout=0.5, on_failure="warn")
        client.log([{"n": 0}])
        daemon.freeze()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertWarns(lotlog.LotlogWarning):
            for n in range(200):
                client.log([{"pad": "x" * 300_000, "n": n}], lot_id="L", wait=False)
        self.assertLess(tracemalloc.get_traced_memory()[1], 30e6)
        self.assertLess(client.stats()["pending_bytes"], 9e6)
        daemon.thaw()
        client.close()

    def test_flush_ends_in_its_time_and_may_be_tried_again(self):
        daemon = self.daemon()
        with lotlog.Client(daemon.socket) as client:
            daemon.freeze()
            receipt = client.log([{"n": 1}], lot_id="L", wait=False)
            began = time.monotonic()
            with self.assertRaises(lotlog.Unreachable):
                client.flush(0.2)
            with self.assertRaises(lotlog.Unreachable):
                receipt.result(0.1)
            self.assertLess(time.monotonic() - began, 2.5)
            daemon.thaw()
            self.assertTrue(client.flush())
            self.assertEqual(receipt.records, 1)

    def test_a_failure_that_no_call_waits_for_is_told_by_a_warning(self):
        daemon = self.daemon()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with lotlog.Client(daemon.socket) as client:
                for _ in range(2):
                    client.log([{"n": 1}], lot_id="x" * 300, wait=False)
                self.assertTrue(client.flush(), "all is settled")
                self.assertEqual([w.category for w in told], [lotlog.LotlogWarning])
            with lotlog.Client(daemon.socket) as client:
                with self.assertRaises(lotlog.Refused):
                    client.log([{"n": 1}], lot_id="x" * 300)
        self.assertEqual(len(told), 1, "what is raised is not told twice")

    def test_somebody_who_uses_the_same_session_name_costs_no_batch_and_doubles_none(self):
        daemon = self.daemon()
        for already in (1, 3):
            with self.subTest(already=already):
                lot = f"L{already}"
                client = lotlog.Client(daemon.socket)
                name = client._session.name
                with socket.socket(socket.AF_UNIX) as other, other.makefile("rb") as replies:
                    other.connect(daemon.socket)
                    for seq in range(1, already + 1):
                        other.sendall(b'{"session":"%s","seq":%d,"items":[{}]}\n' % (name.encode(), seq))
                        self.assertIn(b'"ok":true', replies.readline())
                for n in range(20):
                    client.log([{"n": n}], lot_id=lot, wait=False)
                client.log([{"n": 20}], lot_id=lot)
                self.assertTrue(client.flush())
                client.close()
                self.assertEqual(sorted(r["n"] for r in daemon.records(lot)), list(range(21)))

    def test_no_thread_is_started(self):
        daemon = self.daemon()
        before = threading.active_count()
        with lotlog.Client(daemon.socket) as client:
            client.log([{"n": 1}], wait=False)
            self.assertEqual(threading.active_count(), before)


if __name__ == "__main__":
    unittest.main()

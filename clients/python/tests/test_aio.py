"""``lotlog.aio.AsyncClient``: the same, awaited."""

from __future__ import annotations

import asyncio
import threading
import time
import unittest

from .support import TestCase

import lotlog
from lotlog.aio import AsyncClient


class Aio(TestCase):
    def run_with(self, work, *flags, **options):
        daemon = self.daemon(*flags)

        async def main():
            async with AsyncClient(daemon.socket, **options) as client:
                return await work(client, daemon)

        asyncio.run(main())
        return daemon

    def test_it_has_the_same_names(self):
        names = {name for name in dir(lotlog.Client) if not name.startswith("_")}
        self.assertEqual(names - set(dir(AsyncClient)), set())

    def test_many_coroutines_share_a_client(self):
        async def work(client, daemon):
            receipts = await asyncio.gather(*(client.log([{"n": n}], lot_id="L") for n in range(300)))
            self.assertTrue(all(receipt.records == 1 for receipt in receipts))
            self.assertEqual((await client.status())["records"], 300)
            self.assertEqual(await client.sync(), 300)

        daemon = self.run_with(work)
        self.assertEqual(sorted(r["n"] for r in daemon.records("L")), list(range(300)))

    def test_pipelined_receipts_can_be_awaited(self):
        async def work(client, daemon):
            session = client.session(lot_id="L", opt_source="s")
            receipts = [await session.log([{"n": n}], wait=False) for n in range(1000)]
            self.assertEqual((await receipts[10]).lsn, 11)
            self.assertTrue(await session.flush())
            self.assertTrue(all(receipt.done() for receipt in receipts))

        daemon = self.run_with(work)
        self.assertEqual([r["n"] for r in daemon.records("L")], list(range(1000)))

    def test_refusals_are_raised_and_time_is_kept(self):
        async def work(client, daemon):
            with self.assertRaises(lotlog.Refused):
                await client.log([{"n": n} for n in range(3)], lot_id="L")
            daemon.freeze()
            began = time.monotonic()
            with self.assertRaises(lotlog.Unreachable):
                await client.log([{"n": 1}], lot_id="L", timeout=0.2)
            self.assertLess(time.monotonic() - began, 2.5)
            daemon.thaw()
            self.assertEqual((await client.log([{"n": 2}], lot_id="L")).records, 1)

        self.run_with(work, "--max-items", "2")

    def test_the_loop_goes_on_while_the_daemon_stands_still(self):
        async def work(client, daemon):
            daemon.freeze()
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.01)
                    ticks += 1

            ticker = asyncio.ensure_future(tick())
            with self.assertRaises(lotlog.Unreachable):
                await client.log([{"n": 1}], lot_id="L", timeout=0.5)
            ticker.cancel()
            daemon.thaw()
            self.assertGreater(ticks, 20)

        self.run_with(work)

    def test_a_call_whose_time_is_over_takes_no_time_from_the_others(self):
        async def work(client, daemon):
            await client.log([{"n": 0}], lot_id="L")
            daemon.freeze()
            patient = asyncio.ensure_future(client.log([{"n": 1}], lot_id="L", timeout=30))
            await asyncio.sleep(0)
            with self.assertRaises(lotlog.Unreachable):
                await client.log([{"n": 2}], lot_id="L", timeout=0.2)
            self.assertFalse(patient.done())
            daemon.thaw()
            self.assertEqual((await patient).records, 1)

        daemon = self.run_with(work)
        self.assertEqual([r["n"] for r in daemon.records("L")], [0, 1, 2])

    def test_a_cancelled_call_leaves_the_client_of_use(self):
        async def work(client, daemon):
            daemon.freeze()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.log([{"n": 1}], lot_id="L"), 0.1)
            daemon.thaw()
            self.assertEqual((await client.log([{"n": 2}], lot_id="L")).records, 1)

        daemon = self.run_with(work)
        self.assertEqual([r["n"] for r in daemon.records("L")], [1, 2])

    def test_restarts_are_survived_and_no_thread_is_started(self):
        async def work(client, daemon):
            for n in range(30):
                if n % 10 == 5:
                    daemon.kill()
                    daemon.start()
                await client.log([{"n": n}], lot_id="L")
            self.assertEqual(threading.active_count(), 1)

        daemon = self.run_with(work)
        self.assertEqual([r["n"] for r in daemon.records("L")], list(range(30)))

    def test_a_second_event_loop_may_use_it(self):
        daemon = self.daemon()
        client = AsyncClient(daemon.socket)
        for n in range(2):
            self.assertEqual(asyncio.run(client.log([{"n": n}], lot_id="L")).seq, n + 1)
        asyncio.run(client.close())


if __name__ == "__main__":
    unittest.main()

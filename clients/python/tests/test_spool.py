"""The spool: what cannot be delivered is kept, and delivered later, in order and once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
import unittest
import warnings

from .support import TestCase, binary, until

import lotlog
from lotlog import _spool
from lotlog.aio import AsyncClient


class SpoolCase(TestCase):
    def setUp(self):
        self.place = self.daemon()
        self.spool = os.path.join(self.directory(), "spool")
        catcher = warnings.catch_warnings(record=True)
        self.told = catcher.__enter__()
        self.addCleanup(catcher.__exit__, None, None, None)
        warnings.simplefilter("always")

    def client(self, timeout=0.3, **options):
        client = lotlog.Client(self.place.socket, timeout=timeout, on_failure="spool", spool_dir=self.spool, **options)
        self.addCleanup(client.close, 0.1)
        return client

    def files(self, suffix=".spool"):
        return [name for name in sorted(os.listdir(self.spool)) if name.endswith(suffix)] if os.path.isdir(self.spool) else []

    def seen(self, lot="L"):
        return [record["n"] for record in self.place.records(lot)]

    def send(self, *options):
        command = [binary("lotlog", "LOTLOG_COMMAND"), "send", "--socket", self.place.socket, "--spool", self.spool, *options]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)


class Delivery(SpoolCase):
    def test_what_the_daemon_does_not_take_in_time_is_spooled_and_delivered_before_the_next(self):
        client = self.client()
        client.log([{"n": 0}], lot_id="L")
        self.place.stop()
        for n in range(1, 4):
            receipt = client.log([{"n": n}], lot_id="L")
            self.assertTrue(receipt.done() and receipt.spooled)
            self.assertEqual((receipt.records, receipt.error), (0, None))
        self.assertEqual(len(self.files()), 3)
        self.place.start()
        self.assertEqual(client.log([{"n": 4}], lot_id="L").records, 1)
        self.assertEqual(self.seen(), [0, 1, 2, 3, 4])
        self.assertEqual(self.files(), [])
        stats = client.stats()
        self.assertEqual((stats["spooled"], stats["delivered"], stats["lost"]), (3, 3, 0))
        self.assertEqual(len(self.told), 1)

    def test_only_the_first_call_waits_while_the_daemon_is_away(self):
        client = self.client(timeout=0.5)
        self.place.stop()
        client.log([{"n": 0}], lot_id="L")
        began = time.monotonic()
        for n in range(1, 21):
            client.log([{"n": n}], lot_id="L")
        self.assertLess(time.monotonic() - began, 4.0)

    def test_a_batch_of_unknown_fate_is_stored_once(self):
        client = self.client()
        self.place.freeze()
        self.assertTrue(client.log([{"n": 0}], lot_id="L").spooled)
        self.place.thaw()
        self.assertEqual(client.log([{"n": 1}], lot_id="L").records, 1)
        self.assertEqual(self.seen(), [0, 1])

    def test_pipelined_batches_are_spooled_with_their_numbers_in_order(self):
        client = self.client()
        receipts = [client.log([{"n": n}], lot_id="L", wait=False) for n in range(5)]
        client.flush()
        self.place.freeze()
        receipts += [client.log([{"n": n}], lot_id="L", wait=False) for n in range(5, 50)]
        self.assertFalse(client.flush(0.2))
        self.assertTrue(all(receipt.spooled for receipt in receipts[5:]))
        (name,) = self.files()
        with open(os.path.join(self.spool, name)) as file:
            lines = [json.loads(line) for line in file]
        self.assertEqual([line["seq"] for line in lines], list(range(6, 51)))
        self.assertEqual({line["session"] for line in lines}, {receipts[0].session})
        self.place.thaw()
        client.log([{"n": 50}], lot_id="L")
        self.assertEqual(self.seen(), list(range(51)))

    def test_what_comes_after_a_full_pipeline_went_to_the_spool_stays_behind_it(self):
        client = self.client()
        client.log([{"n": 0}], lot_id="L")
        self.place.freeze()
        for n in range(1, 40):
            client.log([{"n": n, "pad": "x" * 1_000_000}], lot_id="L", wait=False)
        self.assertGreater(client.stats()["spooled"], 0)
        self.place.thaw()
        client.flush(10)
        client.log([{"n": 40}], lot_id="L", timeout=30)
        self.assertEqual(self.seen(), list(range(41)))

    def test_a_call_that_does_not_wait_waits_neither_for_an_old_spool(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        began = time.monotonic()
        self.assertTrue(self.client(timeout=20).log([{"n": 1}], lot_id="L", wait=False).spooled)
        self.assertLess(time.monotonic() - began, 5.0)

        async def work():
            async with AsyncClient(self.place.socket, timeout=20, on_failure="spool", spool_dir=self.spool) as client:
                self.assertTrue((await client.log([{"n": 2}], lot_id="L", wait=False)).spooled)

        asyncio.run(work())
        self.assertLess(time.monotonic() - began, 10.0)
        self.place.start()
        self.client(timeout=20).log([{"n": 3}], lot_id="L")
        self.assertEqual(self.seen(), [0, 1, 2, 3])

    def test_calls_that_do_not_wait_do_not_crawl_beside_a_daemon_that_does_not_answer(self):
        client = self.client()
        self.place.freeze()
        client.log([{"n": 0}], lot_id="L")
        began = time.monotonic()
        for n in range(1, 31):
            self.assertTrue(client.log([{"n": n}], lot_id="L", wait=False).spooled)
        self.assertLess(time.monotonic() - began, 6, "a quarter of a second each was 7.5")
        self.place.thaw()
        client.log([{"n": 31}], lot_id="L", timeout=20)
        self.assertEqual(self.seen(), list(range(32)))

    def test_a_child_forked_while_the_spool_is_delivered_does_not_keep_it_from_being_delivered(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        self.place.start()
        self.place.freeze()
        client = self.client(timeout=1)
        delivering = threading.Thread(target=client.log, args=([{"n": 1}],), kwargs={"lot_id": "L"})
        delivering.start()
        until("the lock is held", lambda: _spool._held)
        go_on, leave = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test's own thread
            child = os.fork()
        if child == 0:
            os.close(leave)
            os.read(go_on, 1)
            os._exit(0)
        try:
            delivering.join()
            self.place.thaw()
            client.log([{"n": 2}], lot_id="L", timeout=20)
            self.assertEqual((self.seen(), self.files()), ([0, 1, 2], []))
        finally:
            os.close(leave)
            os.close(go_on)
            os.waitpid(child, 0)

    def test_another_process_and_the_companion_deliver_as_well(self):
        self.place.stop()
        client = self.client()
        for n in range(3):
            client.log([{"n": n}], lot_id="L")
        client.close()
        self.place.start()
        run = self.send("--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)["delivered_batches"], 3)
        self.assertEqual((self.seen(), self.files()), ([0, 1, 2], []))
        self.place.stop()
        self.client().log([{"n": 3}], lot_id="L")
        self.place.start()
        self.client().log([{"n": 4}], lot_id="L")
        self.assertEqual(self.seen(), [0, 1, 2, 3, 4])

    def test_a_refused_batch_is_set_aside_and_those_behind_it_are_stored_once(self):
        self.place.stop()
        spool = _spool.Spool(self.spool)
        body = b'"context":{"lot_id":"L"},"items":[{"n":%d}]}\n'
        lines = [b'{"session":"s1","seq":%d,' % (n + 1) + body % n for n in range(4)]
        lines[1] = b'{"session":"s1","seq":2,"context":{"lot_id":"L"},"items":[5]}\n'
        spool.write(lines)
        self.place.start()
        client = self.client()
        client.log([{"n": 9}], lot_id="L")
        self.assertEqual(self.seen(), [0, 2, 3, 9])
        self.assertEqual((len(self.files()), len(self.files(".refused"))), (0, 1))
        with open(os.path.join(self.spool, self.files(".refused")[0]), "rb") as file:
            self.assertEqual(file.read(), lines[1])
        self.assertTrue(any("refused" in str(warning.message) for warning in self.told))

    def test_those_behind_a_number_that_was_used_for_other_content_are_stored_once(self):
        spool = _spool.Spool(self.spool)
        lines = [b'{"session":"s1","seq":%d,"context":{"lot_id":"L"},"items":[{"n":%d}]}\n' % (max(n, 1), n) for n in range(6)]
        spool.write(lines[:1])
        self.client(5).log([{"n": 7}], lot_id="L")
        spool.write(lines[1:])
        self.client(5).log([{"n": 8}], lot_id="L")
        self.assertEqual(self.seen(), [0, 7, 2, 3, 4, 5, 8])
        with open(os.path.join(self.spool, self.files(".refused")[0]), "rb") as file:
            self.assertEqual(file.read(), lines[1])

    def test_a_spool_that_the_daemon_does_not_remember_goes_under_a_new_session_with_a_warning(self):
        client = self.client()
        client.log([{"n": 0}], lot_id="old")
        self.place.stop()
        for n in range(1, 3):
            client.log([{"n": n}], lot_id="L")
        client.close()
        other = self.daemon()
        client = lotlog.Client(other.socket, timeout=5, on_failure="spool", spool_dir=self.spool)
        self.addCleanup(client.close)
        client.log([{"n": 3}], lot_id="L")
        self.assertEqual([record["n"] for record in other.records("L")], [1, 2, 3])
        self.assertTrue(any("does not know session" in str(warning.message) for warning in self.told))

    def test_a_torn_end_and_unfinished_files_are_passed_over(self):
        spool = _spool.Spool(self.spool)
        line = b'{"session":"t","seq":1,"context":{"lot_id":"L"},"items":[{"n":1}]}\n'
        spool.write([line])
        with open(os.path.join(self.spool, self.files()[0]), "ab") as file:
            file.write(b'{"session":"t","seq":2,"context":{"lot_id":"L"},"items":[{"n":')
        with open(os.path.join(self.spool, "0-1.spool.1.new"), "wb") as file:
            file.write(line)
        self.client().log([{"n": 2}], lot_id="L")
        self.assertEqual(self.seen(), [1, 2])

    def test_one_process_delivers_at_a_time_and_those_with_nothing_there_go_on(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        self.place.start()
        handle = _spool.Spool(self.spool).lock()
        client = self.client(timeout=2)
        self.assertEqual(client.log([{"n": 1}], lot_id="L").records, 1)
        self.assertEqual(self.send().returncode, 74, "the companion says that another delivers")
        os.close(handle)
        client.log([{"n": 2}], lot_id="L")
        self.assertEqual(sorted(self.seen()), [0, 1, 2])

    def test_nobody_overtakes_what_he_has_spooled_himself_while_another_delivers(self):
        async def other(n):
            async with AsyncClient(self.place.socket, timeout=20, on_failure="spool", spool_dir=self.spool) as client:
                return await client.log([{"n": n}], lot_id="A")

        client = self.client(timeout=20)
        self.place.stop()
        client.log([{"n": 0}], lot_id="L", timeout=0.2)
        self.place.start()
        spool = _spool.Spool(self.spool)
        handle = spool.lock()
        began = time.monotonic()
        for n in range(1, 5):
            self.assertTrue(client.log([{"n": n}], lot_id="L").spooled, "behind the first")
        self.assertLess(time.monotonic() - began, 5, "none of them waits for him for long")
        self.assertEqual(asyncio.run(other(0)).records, 1)
        spool.unlock(handle)
        self.assertEqual(client.log([{"n": 5}], lot_id="L").records, 1)
        self.assertEqual(self.seen(), [0, 1, 2, 3, 4, 5])

    def test_calls_that_do_not_wait_give_way_to_one_that_empties_the_spool_and_to_no_other(self):
        self.place.stop()
        client = self.client()
        client.log([{"n": 0}], lot_id="L")
        self.place.start()
        spool = _spool.Spool(self.spool)
        handle = spool.lock()
        self.addCleanup(spool.unlock, handle)
        began = time.monotonic()
        for n in range(1, 6):
            os.utime(os.path.join(self.spool, "lock"))  # as after each file
            client.log([{"n": n}], lot_id="L", wait=False)
        self.assertGreater(time.monotonic() - began, 5 * 0.2, "it is slower than they are")
        os.utime(os.path.join(self.spool, "lock"), (0, 0))
        began = time.monotonic()
        for n in range(6, 36):
            client.log([{"n": n}], lot_id="L", wait=False)
        self.assertLess(time.monotonic() - began, 6, "a quarter of a second each is 7.5")
        spool.unlock(handle)
        client.log([{"n": 36}], lot_id="L", timeout=20)
        self.assertEqual(self.seen(), list(range(37)))

    def test_a_coroutine_does_not_overtake_what_another_is_delivering_for_it(self):
        async def work():
            async with AsyncClient(self.place.socket, timeout=20, on_failure="spool", spool_dir=self.spool) as client:
                self.place.stop()
                for n in range(30):
                    await client.log([{"n": n}], lot_id="L", timeout=0.1)
                self.place.start()
                self.place.freeze()
                calls = [asyncio.ensure_future(client.log([{"n": 0}], lot_id="other"))]
                deadline = time.monotonic() + 20
                while not _spool._held and time.monotonic() < deadline:
                    await asyncio.sleep(0.001)
                calls.append(asyncio.ensure_future(client.log([{"n": 30}], lot_id="L")))
                await asyncio.sleep(0.05)
                self.place.thaw()
                await asyncio.gather(*calls)
                await client.log([{"n": 31}], lot_id="L")

        asyncio.run(work())
        self.assertEqual(self.seen(), list(range(32)))

    def test_an_interrupted_delivery_stores_nothing_twice(self):
        self.place.stop()
        client = self.client()
        for n in range(20):
            client.log([{"n": n}], lot_id="L")
        client.close()
        files = {}
        for name in self.files():
            with open(os.path.join(self.spool, name), "rb") as file:
                files[name] = file.read()
        self.place.start()
        self.assertEqual(self.send().returncode, 0)
        for name, text in files.items():  # as if it had died before it removed them
            with open(os.path.join(self.spool, name), "wb") as file:
                file.write(text)
        self.place.kill()
        self.place.start()
        self.client(timeout=5).log([{"n": 20}], lot_id="L")
        self.assertEqual((self.seen(), self.files()), (list(range(21)), []))

    def test_the_asynchronous_client_spools_and_delivers_too(self):
        async def work():
            async with AsyncClient(self.place.socket, timeout=0.3, on_failure="spool", spool_dir=self.spool) as client:
                self.place.stop()
                for n in range(3):
                    self.assertTrue((await client.log([{"n": n}], lot_id="L")).spooled)
                self.place.start()
                self.assertEqual((await client.log([{"n": 3}], lot_id="L")).records, 1)

        asyncio.run(work())
        self.assertEqual(self.seen(), [0, 1, 2, 3])


class Trouble(SpoolCase):
    def test_mode_spool_never_asks_the_daemon(self):
        self.environment(LOTLOG_MODE="spool", LOTLOG_SPOOL_DIR=self.spool)
        client = lotlog.Client("/nowhere")
        self.assertTrue(client.log([{"n": 0}], lot_id="L").spooled)
        self.assertEqual(lotlog.log_predictions([{"sku_local": 1}], {"lot_id": "L"}, None), 0)
        client.close()
        del os.environ["LOTLOG_MODE"]
        os.environ["LOTLOG_MODE"] = "on"
        self.assertEqual(self.send().returncode, 0)
        self.assertEqual(len(self.place.records("L")), 2)

    def test_a_directory_that_cannot_be_written_is_a_counted_loss_and_no_crash(self):
        blocked = os.path.join(self.directory(), "file")
        with open(blocked, "w"):
            pass
        self.spool = os.path.join(blocked, "spool")
        self.place.stop()
        client = self.client()
        receipt = client.log([{"n": 0}] * 3, lot_id="L")
        self.assertIsInstance(receipt.error, lotlog.SpoolError)
        self.assertEqual((client.stats()["lost"], client.stats()["lost_records"]), (1, 3))
        self.place.start()
        self.assertEqual(client.log([{"n": 1}], lot_id="L").records, 1)

    def test_a_spool_that_cannot_be_used_keeps_no_batch_from_a_daemon_that_is_there(self):
        def locked_by_a_directory(path):
            os.makedirs(os.path.join(path, "lock"))
            with open(os.path.join(path, "0-1.spool"), "wb") as file:
                file.write(b'{"session":"b","seq":1,"context":{"lot_id":"L"},"items":[{"n":9}]}\n')

        for at, prepare in enumerate((locked_by_a_directory, lambda path: os.symlink(path, path))):
            self.spool = os.path.join(self.directory(), "spool")
            prepare(self.spool)
            with self.subTest(at), self.client(timeout=5) as client:
                self.assertEqual(client.log([{"n": 1}], lot_id="L").records, 1)

            async def work():
                async with AsyncClient(self.place.socket, on_failure="spool", spool_dir=self.spool) as client:
                    self.assertEqual((await client.log([{"n": 1}], lot_id="L")).records, 1)

            with self.subTest(at):
                asyncio.run(work())

    def test_what_cannot_be_read_in_the_spool_stands_in_nobodys_way(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        self.place.start()
        os.mkfifo(os.path.join(self.spool, "0-1.spool"))
        os.mkdir(os.path.join(self.spool, "0-2.spool"))
        os.symlink("/nowhere", os.path.join(self.spool, "0-3.spool"))
        client = self.client(timeout=5)
        for n in (1, 2):
            self.assertEqual(client.log([{"n": n}], lot_id="L").records, 1)
        self.assertEqual(self.seen(), [0, 1, 2])
        self.assertEqual(self.files(), ["0-1.spool", "0-2.spool", "0-3.spool"])
        self.assertTrue(any("0-1.spool" in str(warning.message) for warning in self.told))

    def test_a_batch_behind_an_old_spool_is_spooled_with_a_warning_too(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        del self.told[:]
        client = self.client()
        self.assertTrue(client.log([{"n": 1}], lot_id="L").spooled)
        self.assertTrue(client.log([{"n": 2}], lot_id="L").spooled)
        self.assertEqual(["no daemon at" in str(warning.message) for warning in self.told], [True])

    def test_a_line_that_is_no_request_is_counted_once(self):
        self.place.stop()
        os.makedirs(self.spool)
        with open(os.path.join(self.spool, "0-1.spool"), "wb") as file:
            file.write(b'no request\n{"session":"o","seq":1,"context":{"lot_id":"L"},"items":[{"n":0}]}\n')
        client = self.client()
        for n in (1, 2):
            client.log([{"n": n}], lot_id="L")
        self.assertEqual(client.stats()["refused"], 1)

    def test_a_spool_of_many_files_does_not_hold_up_calls_while_the_daemon_is_away(self):
        self.place.stop()
        client = self.client()
        client.log([{"n": 0}], lot_id="L")
        looked, names = [], os.listdir

        def listdir(path):
            looked.append(path)
            return names(path)

        client._spool.used_bytes = lambda: looked.append("used") or 0
        os.listdir = listdir
        self.addCleanup(setattr, os, "listdir", names)
        began = time.monotonic()
        for n in range(1, 200):
            self.assertTrue(client.log([{"n": n}], lot_id="L").spooled)
        self.assertLessEqual(len(looked), 1 + (time.monotonic() - began) / _spool.LOOK_EVERY_SECONDS)

    def test_a_process_without_descriptors_does_not_forget_its_spool(self):
        self.place.stop()
        client = self.client()
        client.log([{"n": 0}], lot_id="L")
        code = (
            "import os, resource, sys, warnings, lotlog\n"
            "warnings.simplefilter('ignore')\n"
            "client = lotlog.Client(sys.argv[1], timeout=0.2, on_failure='spool', spool_dir=sys.argv[2])\n"
            "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (32, limits[1]))\n"
            "held = []\n"
            "try:\n"
            "    while True: held.append(os.dup(0))\n"
            "except OSError: pass\n"
            "other = lotlog.Client(sys.argv[1], timeout=0.2, on_failure='spool', spool_dir=sys.argv[2])\n"
            "for c in (client, other):\n"
            "    for n in range(2):\n"
            "        assert isinstance(c.log([{'n': -1}], lot_id='L').error, lotlog.SpoolError)\n"
            "    assert c.stats()['lost'] == 2\n"
            "while held: os.close(held.pop())\n"
            "for n in (1, 2): assert (client, other)[n - 1].log([{'n': n}], lot_id='L').spooled\n"
        )
        run = self.python(code, self.place.socket, self.spool)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.place.start()
        client.log([{"n": 3}], lot_id="L", timeout=20)
        self.assertEqual(self.seen(), [0, 1, 2, 3])

    def test_a_full_spool_is_a_counted_loss(self):
        self.place.stop()
        client = self.client()
        client._spool.max_bytes = 2 * 4096 + 100
        receipts = [client.log([{"pad": "x" * 300}], lot_id="L") for _ in range(5)]
        self.assertEqual(sum(receipt.spooled for receipt in receipts), 2)
        self.assertEqual(client.stats()["lost"], 3)

    def test_of_what_is_given_up_together_a_full_spool_keeps_what_it_has_room_for(self):
        client = self.client()
        self.place.freeze()
        receipts = [client.log([{"n": n, "pad": "x" * 1000}], lot_id="L", wait=False) for n in range(5)]
        client._spool.max_bytes = 4000
        client.flush(0.1)
        self.assertEqual([receipt.spooled for receipt in receipts], [True] * 3 + [False] * 2)
        self.assertIn("2 batches", str(receipts[4].error))
        self.assertEqual((client.stats()["spooled"], client.stats()["lost"]), (3, 2))

    def test_an_interrupt_while_the_spool_is_written_loses_nothing(self):
        client = self.client()
        self.place.freeze()
        for n in range(50):
            client.log([{"n": n}], lot_id="L", wait=False)
        for interrupted in ("fsync", "rename"):
            call = getattr(os, interrupted)

            def interrupt(*arguments, call=call):
                call(*arguments)
                raise KeyboardInterrupt

            setattr(os, interrupted, interrupt)
            try:
                with self.assertRaises(KeyboardInterrupt):
                    client.flush(0.1)
            finally:
                setattr(os, interrupted, call)
        client.flush(0.1)
        self.assertEqual(client.stats()["pending"], 0)
        self.place.thaw()
        client.log([{"n": 50}], lot_id="L", timeout=20)
        self.assertEqual(self.seen(), list(range(51)))

    def test_warn_loses_the_batch_with_a_warning_and_counts_it(self):
        client = lotlog.Client(self.place.socket, timeout=0.2, on_failure="warn")
        self.place.stop()
        self.assertIsInstance(client.log([{"n": 0}], lot_id="L").error, lotlog.Unreachable)
        self.assertEqual(client.stats()["lost"], 1)
        self.assertEqual(len(self.told), 1)
        self.place.start()
        self.assertEqual(client.log([{"n": 1}], lot_id="L").records, 1)
        client.close()

    def test_a_warning_names_the_line_of_the_program_that_logged(self):
        self.place.stop()
        self.client().log([{"n": 0}], lot_id="L")
        self.environment(LOTLOG_SOCKET=self.place.socket, LOTLOG_SPOOL_DIR=self.spool)
        dropin = lotlog.dropin.default_client()
        self.addCleanup(dropin.close, 0.1)
        dropin._timeout = 0.2
        lotlog.log_predictions([{"sku_local": 1}], {"lot_id": "L"}, None)

        async def work():
            async with AsyncClient(self.place.socket, timeout=0.2, on_failure="spool", spool_dir=self.spool) as client:
                await client.log([{"n": 0}], lot_id="L")

        asyncio.run(work())
        self.assertEqual([warning.filename for warning in self.told], [__file__] * 3)

    def test_the_end_of_the_process_spools_what_is_pending_within_two_seconds(self):
        code = (
            "import sys, lotlog\n"
            "c = lotlog.Client(sys.argv[1], on_failure='spool', spool_dir=sys.argv[2])\n"
            "[c.log([{'n': n}], lot_id='L', wait=False) for n in range(100)]\n"
        )
        self.place.freeze()
        began = time.monotonic()
        run = self.python(code, self.place.socket, self.spool)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertLess(time.monotonic() - began, 4.0)
        self.place.thaw()
        self.assertEqual(self.send().returncode, 0)
        self.assertEqual(self.seen(), list(range(100)))


if __name__ == "__main__":
    unittest.main()

"""Processes: forks, pools, spawned workers, threads, the end of a process, and a farm whose daemon is killed."""

from __future__ import annotations

import collections
import concurrent.futures
import glob
import multiprocessing
import os
import sys
import threading
import time
import unittest

from . import workers
from .support import TestCase, until

import lotlog

FARM_PROCESSES = 16
FARM_SECONDS = float(os.environ.get("LOTLOG_FARM_SECONDS", "4"))


class Processes(TestCase):
    def setUp(self):
        self.place = self.daemon()
        workers.inherited = None
        self.addCleanup(setattr, workers, "inherited", None)

    def seen(self):
        return sorted(record["n"] for record in self.place.records("L"))

    def in_child(self, work):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_forked_child_gets_a_session_of_its_own_and_leaves_the_parents_connection_alone(self):
        with lotlog.Client(self.place.socket) as client:
            before = client.log([{"n": 0}], lot_id="L")
            pending = client.log([{"n": 1}], lot_id="L", wait=False)

            def work():
                receipt = client.log([{"n": 2}], lot_id="L")
                assert receipt.session != before.session and receipt.seq == 1, receipt
                try:
                    pending.result(0.1)
                except lotlog.LotlogError as error:
                    assert "parent" in str(error) or pending.done()
                client.close()

            self.in_child(work)
            after = client.log([{"n": 3}], lot_id="L")
            self.assertEqual((after.session, after.seq), (before.session, 3))
            self.assertEqual(client.stats()["connections"], 1)
        self.assertEqual(self.seen(), [0, 1, 2, 3])

    def test_a_child_of_a_process_whose_other_thread_is_in_a_call_does_not_hang(self):
        client = lotlog.Client(self.place.socket, timeout=10)
        client.log([{"n": 0}], lot_id="L")
        self.place.freeze()
        waiting = threading.Thread(target=client.log, args=([{"n": 1}],), kwargs={"lot_id": "L"})
        waiting.start()
        time.sleep(0.1)
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test's own thread
            child = os.fork()
        if child == 0:
            try:
                client.log([{"n": 2}], lot_id="L", timeout=20)
                os._exit(0)
            finally:
                os._exit(1)
        self.place.thaw()
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        waiting.join()
        client.close()
        self.assertEqual(self.seen(), [0, 1, 2])

    def test_multiprocessing_by_fork_spawn_and_forkserver(self):
        for method in ("fork", "spawn", "forkserver"):
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                before = len(self.place.records("L"))
                processes = [context.Process(target=workers.pipeline_and_leave, args=(self.place.socket, n)) for n in range(2)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                    self.assertEqual(process.exitcode, 0)
                self.assertEqual(len(self.place.records("L")) - before, 100, "a worker's end flushes")

    def test_process_pools_share_nothing(self):
        tasks = [(self.place.socket, n) for n in range(40)]
        for method in ("fork", "spawn"):
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
                    answers = list(pool.map(workers.log_one, tasks))
                sessions = collections.defaultdict(set)
                for session, _, pid in answers:
                    sessions[session].add(pid)
                self.assertTrue(all(len(pids) == 1 for pids in sessions.values()), "one process, one session")
                self.assertEqual(len({(session, seq) for session, seq, _ in answers}), 40)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(workers.log_one, tasks)
        self.assertEqual(self.seen(), sorted(list(range(40)) * 3))

    def test_threads_share_a_client(self):
        with lotlog.Client(self.place.socket) as client:

            def work(first):
                for n in range(first, first + 50):
                    client.log([{"n": n}], lot_id="L", wait=n % 3 == 0)

            threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 400, 50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(self.seen(), list(range(400)))
        records = self.place.records("L")
        self.assertEqual([r["context"]["seq"] for r in records], list(range(1, 401)), "one session, in order")

    def test_a_client_closed_while_threads_log_takes_nothing_after_that_and_keeps_what_it_took(self):
        for turn in range(5):
            client, lot, taken, failed = lotlog.Client(self.place.socket, timeout=20), f"C{turn}", [], []

            def work(first, client=client, lot=lot, taken=taken, failed=failed):
                try:
                    for n in range(first, first + 100_000):
                        client.log([{"n": n}], lot_id=lot, wait=n % 7 == 0)
                        taken.append(n)
                except ValueError:  # closed
                    failed.append(first)

            threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 400_000, 100_000)]
            for thread in threads:
                thread.start()
            until("something is logged", lambda: len(taken) > 100)
            began = time.monotonic()
            self.assertTrue(client.flush(), "it waits for what was there, not for what others add")
            client.close()
            self.assertLess(time.monotonic() - began, 15)
            for thread in threads:
                thread.join()
            self.assertEqual(len(failed), 4)
            self.assertEqual((client.stats()["pending"], client._driver.link.is_open), (0, False))
            self.assertEqual(sorted(r["n"] for r in self.place.records(lot)), sorted(taken))

    def test_a_thread_whose_time_is_over_takes_no_time_from_the_others(self):
        for away in (self.place.stop, self.place.freeze):
            with self.subTest(away.__name__):
                before = len(self.seen())
                client = lotlog.Client(self.place.socket, timeout=30)
                client.log([{"n": 0}], lot_id="L")
                away()
                patient = threading.Thread(target=client.log, args=([{"n": 1}],), kwargs={"lot_id": "L"})
                failed = []

                def impatient(client=client, failed=failed):
                    try:
                        client.log([{"n": 2}], lot_id="L", timeout=0.3)
                    except lotlog.Unreachable as error:
                        failed.append(error)

                patient.start()
                until("the first has handed its batch over", lambda client=client: client.stats()["pending"] == 1)
                thread = threading.Thread(target=impatient)
                thread.start()
                thread.join()
                self.assertTrue(patient.is_alive(), "it has time left")
                (error,) = failed
                self.assertEqual(error.unknown, away == self.place.freeze)
                (self.place.thaw if error.unknown else self.place.start)()
                patient.join()
                client.log([{"n": 3}], lot_id="L")
                client.close()
                self.assertEqual(client.stats()["lost"], 0 if error.unknown else 1)
                stored = [record["n"] for record in self.place.records("L")][before:]
                self.assertEqual(stored, [0, 1, 2, 3] if error.unknown else [0, 1, 3])

    def test_threads_whose_times_end_close_to_each_other_fail_with_nothing_else(self):
        client = lotlog.Client(self.place.socket, timeout=0.01)
        client.log([{"n": 0}], lot_id="L", timeout=20)
        self.place.freeze()
        unreachable, other = [], []

        def work(first):
            for n in range(first, first + 100):
                try:
                    client.log([{"n": n}], lot_id="L", timeout=0.001 * (n % 7))
                except lotlog.Unreachable as error:
                    unreachable.append(error)
                except BaseException as error:
                    other.append(error)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(1, 501, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((other, len(unreachable)), ([], 500))
        self.place.thaw()
        client.log([{"n": 1000}], lot_id="L", timeout=20)
        client.close(20)
        seen = self.seen()
        self.assertEqual(len(seen), len(set(seen)), "nothing twice")

    def test_a_thread_does_not_wait_for_anothers_answer(self):
        client = lotlog.Client(self.place.socket, timeout=5)
        client.log([{"n": 0}], lot_id="L")
        self.place.freeze()
        waiting = threading.Thread(target=client.log, args=([{"n": 1}],), kwargs={"lot_id": "L"})
        waiting.start()
        time.sleep(0.1)
        began = time.monotonic()
        client.log([{"n": 2}], lot_id="L", wait=False)
        self.assertLess(time.monotonic() - began, 2.5)
        self.place.thaw()
        waiting.join()
        client.close()
        self.assertEqual(self.seen(), [0, 1, 2])

    def test_the_end_of_a_process_flushes_and_never_hangs(self):
        code = (
            "import gc, sys, lotlog\n"
            "lotlog.Client(sys.argv[1]).log([{'n': 1}], lot_id='L', wait=False)\n"
            "gc.collect()\n"
        )
        run = self.python(code, self.place.socket)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(self.seen(), [1], "even where nobody holds the client any more")
        self.place.freeze()
        began = time.monotonic()
        run = self.python(code, self.place.socket)
        self.assertLess(time.monotonic() - began, 4.5)
        self.assertEqual(run.returncode, 0)
        self.assertIn("may be stored or not", run.stderr)
        self.place.thaw()

    def test_the_end_of_a_process_flushes_the_asynchronous_client_too(self):
        code = (
            "import asyncio, sys, lotlog.aio\n"
            "async def work():\n"
            "    client = lotlog.aio.AsyncClient(sys.argv[1])\n"
            "    for n in range(500): await client.log([{'n': n, 'pad': 'x' * 10000}], lot_id='L', wait=False)\n"
            "asyncio.run(work())\n"
        )
        run = self.python(code, self.place.socket)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(self.seen(), list(range(500)))

    def test_all_clients_together_have_two_seconds_at_the_end_of_a_process(self):
        code = (
            "import asyncio, atexit, multiprocessing.util, sys, time, lotlog, lotlog.aio\n"
            "clients = [lotlog.Client(sys.argv[1]) for _ in range(3)]\n"
            "receipts = [client.log([{'n': 1}], lot_id='L', wait=False) for client in clients]\n"
            "other = lotlog.aio.AsyncClient(sys.argv[1])\n"
            "receipts.append(asyncio.run(other.log([{'n': 1}], lot_id='L', wait=False)))\n"
            "def first(): global began; began = time.monotonic()\n"
            "def last(): print(time.monotonic() - began, *(r.error.unknown for r in receipts))\n"
            "multiprocessing.util.Finalize(None, last, exitpriority=-1)\n"
            "atexit.register(first)\n"
        )
        self.place.freeze()
        run = self.python(code, self.place.socket)
        self.assertEqual(run.returncode, 0, run.stderr)
        seconds, *unknown = run.stdout.split()
        self.assertLess(float(seconds), 4.5, "2 s, not 2 s for each, and a busy machine")
        self.assertEqual(unknown, ["True"] * 4)
        self.place.thaw()

    def test_what_is_logged_by_what_else_happens_at_the_end_is_stored(self):
        code = (
            "import atexit, sys\n"
            "atexit.register(lambda: client.log([{'n': 2}], lot_id='L'))\n"
            "import lotlog\n"
            "client = lotlog.Client(sys.argv[1])\n"
            "client.log([{'n': 1}], lot_id='L', wait=False)\n"
        )
        run = self.python(code, self.place.socket)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(self.seen(), [1, 2])

    def test_an_interrupt_leaves_the_client_of_use(self):
        code = (
            "import os, signal, sys, lotlog\n"
            "client = lotlog.Client(sys.argv[1])\n"
            "for n in range(200):\n"
            "    try:\n"
            "        signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00001 * (n % 60))\n"
            "        client.log([{'n': n}], lot_id='L')\n"
            "        while fired == n: time.sleep(0.001)\n"
            "    except KeyboardInterrupt:\n"
            "        pass\n"
            "client.log([{'n': 200}], lot_id='L')\n"
            "client.close()\n"
        )
        # Waiting for the alarm by signal.pause() would miss one that comes just before it.
        prologue = (
            "import signal, time\nfired = 0\n"
            "def f(*_):\n    global fired\n    fired += 1\n    raise KeyboardInterrupt\n"
            "signal.signal(signal.SIGALRM, f)\n"
        )
        run = self.python(prologue + code, self.place.socket)
        self.assertEqual(run.returncode, 0, run.stderr)
        seen = self.seen()
        self.assertEqual(len(seen), len(set(seen)), "nothing twice")
        self.assertIn(200, seen)

    def test_what_runs_in_the_midst_of_a_call_may_log_whatever_line_it_meets(self):
        # At the line `at` of a call something else logs too, as a signal handler does, or a finalizer.
        code = (
            "import gc, sys, lotlog\n"
            "gc.disable()  # the end of a client is no line of the next one's call\n"
            "def call(at):\n"
            "    client, left = lotlog.Client(sys.argv[1], ack='written', on_failure='warn', timeout=20), [at]\n"
            "    def trace(frame, event, _):\n"
            "        if 'lotlog' not in frame.f_code.co_filename: return None\n"
            "        left[0] -= event == 'line'\n"
            "        if left[0] == 0:\n"
            "            sys.settrace(None)\n"
            "            nested.append(client.log([{'n': at}], lot_id='N', wait=False))\n"
            "        return trace\n"
            "    nested = []\n"
            "    sys.settrace(trace)\n"
            "    try: outer = client.log([{'n': at}], lot_id='L')\n"
            "    finally: sys.settrace(None)\n"
            "    client.flush()\n"
            "    assert outer.records == 1, outer\n"
            "    assert all(r.done() and (r.records == 1) == (r.error is None) for r in nested), nested\n"
            "    lost.append(client.stats()['lost'])\n"
            "    client.close()\n"
            "    return bool(nested)\n"
            "lost, at = [], 1\n"
            "while call(at): at += 1\n"
            "lotlog.Client(sys.argv[1]).sync()\n"
            "print(at - 1, sum(lost))\n"
        )
        run = self.python(code, self.place.socket, interpreter=("-W", "ignore"))
        self.assertEqual(run.returncode, 0, run.stderr)
        lines, lost = map(int, run.stdout.split())
        self.assertGreater(lines, 50)
        self.assertLess(0, lost)
        self.assertEqual(self.seen(), list(range(1, lines + 2)))
        self.assertEqual(len(self.place.records("N")), lines - lost, "stored or counted, each of them")

    @unittest.skipIf(sys.version_info < (3, 12), "only Python 3.12 and later warn of forks with threads")
    def test_a_fork_after_everything_gives_no_deprecation_warning(self):
        code = (
            "import asyncio, os, sys, lotlog, lotlog.aio\n"
            "client = lotlog.Client(sys.argv[1]); client.log([{'n': 1}], lot_id='L', wait=False)\n"
            "async def work():\n"
            "    async with lotlog.aio.AsyncClient(sys.argv[1]) as c: await c.log([{'n': 2}], lot_id='L')\n"
            "asyncio.run(work())\n"
            "if os.fork() == 0:\n"
            "    client.log([{'n': 3}], lot_id='L'); os._exit(0)\n"
            "os.wait(); client.close()\n"
        )
        run = self.python(code, self.place.socket, interpreter=("-W", "error::DeprecationWarning"))
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual(self.seen(), [1, 2, 3])


class Farm(TestCase):
    def test_a_farm_forked_midway_whose_daemon_is_killed_three_times_keeps_its_ledger(self):
        daemon = self.daemon()
        home = self.directory()
        context = multiprocessing.get_context("spawn")
        farm = [
            context.Process(target=workers.producer, args=(daemon.socket, home, f"p{n}", FARM_SECONDS))
            for n in range(FARM_PROCESSES)
        ]
        for process in farm:
            process.start()
        try:
            for _ in range(3):
                time.sleep(FARM_SECONDS / 3)
                daemon.kill()
                daemon.start()
            for process in farm:
                process.join(120)
                self.assertEqual(process.exitcode, 0)
        finally:
            for process in farm:
                process.kill()
        ledger = collections.Counter()
        batches = 0
        for path in glob.glob(os.path.join(home, "ledger-*")):
            with open(path) as file:
                for line in file:
                    who, n, records = line.split()
                    ledger[who, int(n)] += int(records)
                    self.assertEqual(int(records), 1 + int(n) % 5)
                    batches += 1
        stored = collections.Counter((record["who"], record["n"]) for record in daemon.all_records())
        self.assertEqual(stored, ledger, "lost, doubled or partial batches")
        self.assertGreater(batches, FARM_PROCESSES * 50)
        sessions = {record["context"]["session"] for record in daemon.all_records()}
        self.assertEqual(len(sessions), 2 * FARM_PROCESSES, "each process and each forked child its own")
        numbers = collections.defaultdict(set)
        for record in daemon.all_records():
            numbers[record["context"]["session"]].add(record["context"]["seq"])
        for seqs in numbers.values():
            self.assertEqual(seqs, set(range(1, len(seqs) + 1)), "numbers without gaps")
        print(f"farm: {batches} batches, {sum(stored.values())} records, {len(sessions)} sessions, exact", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()

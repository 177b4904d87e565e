"""The session alone, against every order in which a daemon may answer, cut and refuse: a model of the daemon checks that
each batch is stored once, in order, or is told not to be.
"""

from __future__ import annotations

import os
import random
import unittest

from .support import TestCase  # noqa: F401  (finds the package)

from lotlog._errors import Refused
from lotlog._session import Batch, ProtocolViolation, Session, line


class ModelDaemon:
    """What lotlogd does with session and seq, after docs/protocol.md; ``stored`` is what stands in the files."""

    def __init__(self, remembers=1):
        self.last = {}
        self.stored = []
        #: Of how many of a session's last batches it knows the content.
        self.remembers = remembers
        self.content = {}

    def take(self, line: bytes, refuse=None):
        import json

        request = json.loads(line)
        session, seq, name = request["session"], request["seq"], request["items"][0]["n"]
        last = self.last.get(session, 0)
        if seq <= last:
            if seq > last - self.remembers and self.content[session, seq] != name:
                return self.refusal(seq, "conflict", False)
            return {"ok": True, "seq": seq, "duplicate": True, "durability": "synced"}
        if seq > last + 1:
            return self.refusal(seq, "out_of_sequence", False, expected=last + 1)
        if name in (refuse or ()):
            return self.refusal(seq, "invalid_request", False)
        self.last[session] = seq
        self.content[session, seq] = name
        self.stored.append(name)
        return {"ok": True, "seq": seq, "records": 1, "lsn": len(self.stored), "durability": "synced"}

    @staticmethod
    def refusal(seq, code, retryable, **more):
        return {"ok": False, "seq": seq, "error": {"code": code, "message": "m", "retryable": retryable, **more}}


def batch(n):
    return Batch(b'"context":{},"items":[{"n":%d}]}\n' % n, 1, None)


def number(a_batch):
    import json

    return json.loads(b"{" + a_batch.body)["items"][0]["n"]


class Rules(unittest.TestCase):
    def play(self, seed):
        """A random run: batches, cuts by either side with lines left lying, lost replies, refusals for now and for good."""
        chance = random.Random(seed)
        session, daemon, now = Session(), ModelDaemon(), 0.0
        bad = {n for n in range(60) if chance.random() < 0.1}
        wire, replies, abandoned = [], [], []
        settled, submitted = {}, 0
        for _ in range(3000):
            now += 3.0
            move = chance.random()
            if move < 0.25 and submitted < 60:
                session.submit(batch(submitted))
                submitted += 1
            elif move < 0.5:
                line = session.next_line(now)
                if line is not None:
                    wire.append(line)
            elif move < 0.72 and wire:
                line = wire.pop(0)
                if chance.random() < 0.1:
                    import json

                    replies.append(daemon.refusal(json.loads(line)["seq"], "no_space", True))
                else:
                    replies.append(daemon.take(line, bad))
            elif move < 0.95 and replies:
                outcome = session.received(replies.pop(0), now)
                if outcome is not None:
                    settled[number(outcome[0])] = not isinstance(outcome[3], Refused)
            elif move < 0.96:  # the daemon ends the connection: what it has not read it never reads
                session.connection_lost("cut", False, now)
                wire, replies = [], []
            elif move < 0.97:  # we end it: the daemon may read on, later
                session.connection_lost("gone", True, now)
                abandoned.append(wire)
                wire, replies = [], []
            elif move < 0.99 and abandoned:
                lines = chance.choice(abandoned)
                if lines:
                    daemon.take(lines.pop(0), bad)
            if submitted == 60 and not session.pending:
                break
        self.assertEqual(session.pending_bytes, 0)
        for lines in abandoned:
            for line in lines:
                daemon.take(line, bad)
        good = [n for n in range(60) if n not in bad]
        self.assertEqual(daemon.stored, good, f"seed {seed}")
        self.assertEqual(settled, {n: n not in bad for n in range(60)}, f"seed {seed}")

    def test_every_batch_is_stored_once_and_in_order_or_told_not_to_be(self):
        first = int(os.environ.get("LOTLOG_SEED", "1"))
        for seed in range(first, first + 400):
            with self.subTest(seed=seed):
                self.play(seed)

    def test_a_copy_of_the_process_that_uses_the_same_session_doubles_and_loses_no_batch(self):
        for already in range(5):
            for at_once in range(1, 9):
                with self.subTest(already=already, at_once=at_once):
                    self.play_beside_a_copy([range(already)], at_once)

    def test_a_copy_of_the_process_may_go_on_while_we_do(self):
        first = int(os.environ.get("LOTLOG_SEED", "1"))
        for seed in range(first, first + 200):
            chance = random.Random(seed)
            bursts = [range(chance.randrange(4)) for _ in range(8)]
            with self.subTest(seed=seed):
                # Connections break as well: then only the content tells whose batch a number holds.
                self.play_beside_a_copy(bursts, chance.randrange(1, 9), cuts=chance, remembers=1000)

    def play_beside_a_copy(self, bursts, at_once, cuts=None, remembers=1):
        session, daemon, now = Session(), ModelDaemon(remembers), 0.0
        first_name = session.name
        for n in range(20):
            session.submit(batch(n))
        settled = []
        for turn in range(1000):
            for n in bursts[turn] if turn < len(bursts) else ():
                seq = daemon.last.get(first_name, 0) + 1
                daemon.take(b'{"session":"%s","seq":%d,"items":[{"n":%d}]}' % (first_name.encode(), seq, 100 * turn + n + 1000))
            now += 3.0
            wire = [session.next_line(now) for _ in range(at_once)]
            replies = [daemon.take(line) for line in wire if line is not None]
            lost = cuts is not None and cuts.random() < 0.3
            for reply in replies[: cuts.randrange(len(replies) + 1)] if lost else replies:
                outcome = session.received(reply, now)
                if outcome is not None:
                    self.assertNotIsInstance(outcome[3], Refused)
                    settled.append(number(outcome[0]))
            if lost:
                session.connection_lost("cut", cuts.random() < 0.5, now)
            if not session.pending:
                break
        ours = [n for n in daemon.stored if n < 1000]
        self.assertEqual(sorted(ours), list(range(20)), "lost or doubled")
        self.assertEqual(sorted(settled), list(range(20)))
        self.assertEqual(session.pending_bytes, 0)

    def test_who_answers_conflict_to_everything_is_believed_the_second_time(self):
        session = Session()
        session.submit(batch(0))
        self.assertIsNone(session.received(ModelDaemon.refusal(1, "conflict", False), 0.0) if session.next_line(0.0) else 0)
        self.assertIsNotNone(session.next_line(1.0))
        outcome = session.received(ModelDaemon.refusal(1, "conflict", False), 1.0)
        self.assertEqual((outcome[3].code, len(session.pending)), ("conflict", 0))

    def test_what_is_given_up_keeps_its_number_unless_that_holds_somebody_elses_batch(self):
        session, daemon = Session(), ModelDaemon()
        daemon.take(b'{"session":"%s","seq":1,"items":[{"n":99}]}' % session.name.encode())
        for n in range(3):
            session.submit(batch(n))
        lines = [session.next_line(0.0) for _ in range(2)]
        session.received(daemon.take(lines[0]), 0.0)
        daemon.take(lines[1])
        session.connection_lost("gone", True, 0.0)
        name = session.name
        for under, seq, given_up in session.given_up():
            reply = daemon.take(line(under, seq, given_up.body))
            self.assertEqual(reply.get("duplicate", False), (under, seq) == (name, 2), reply)
        self.assertEqual(sorted(daemon.stored), [0, 1, 2, 99])

    def test_lines_left_lying_by_a_daemon_that_forgot_the_session_are_not_stored_when_it_reads_them(self):
        session, daemon = Session(), ModelDaemon()
        for n in range(3):
            session.submit(batch(n))
            session.received(daemon.take(session.next_line(0.0)), 0.0)
        daemon.last.clear()  # other data
        for n in range(3, 6):
            session.submit(batch(n))
        lines = [session.next_line(1.0) for _ in range(3)]
        session.received(daemon.take(lines[0]), 1.0)
        session.connection_lost("gone", True, 1.0)
        session.submit(batch(6))
        for _ in range(4):
            session.received(daemon.take(session.next_line(9.0)), 9.0)
        for text in lines[1:]:
            daemon.take(text)
        self.assertEqual(daemon.stored, list(range(7)))

    def test_lines_left_lying_after_a_refusal_for_now_are_stored_once_beside_a_copy_too(self):
        session, daemon = Session(), ModelDaemon()
        for n in range(3):
            session.submit(batch(n))
        lines = [session.next_line(0.0) for _ in range(3)]
        session.received(daemon.refusal(1, "no_space", True), 0.0)
        session.connection_lost("gone", True, 0.0)
        daemon.take(b'{"session":"%s","seq":1,"items":[{"n":99}]}' % session.name.encode())
        for _ in range(20):
            text = session.next_line(9.0)
            if text is not None:
                session.received(daemon.take(text), 9.0)
        for text in lines[1:]:
            daemon.take(text)
        self.assertEqual(sorted(daemon.stored), [0, 1, 2, 99])

    def test_an_answer_to_nothing_is_no_answer(self):
        session = Session()
        for reply in ({"ok": True, "seq": 1}, {"hello": 1}, {"ok": False}):
            with self.assertRaises(ProtocolViolation):
                session.received(reply, 0.0)

    def test_acknowledged_batches_that_are_gone_are_counted_and_the_rest_is_stored(self):
        session, daemon = Session(), ModelDaemon()
        for n in range(3):
            session.submit(batch(n))
            session.received(daemon.take(session.next_line(0.0)), 0.0)
        daemon.last.clear()  # other data
        session.submit(batch(3))
        self.assertIsNone(session.received(daemon.take(session.next_line(1.0)), 1.0))
        self.assertEqual(session.forgotten, 3)
        self.assertIsNotNone(session.received(daemon.take(session.next_line(2.0)), 2.0))
        self.assertEqual(daemon.stored, [0, 1, 2, 3])

    def test_somebody_else_in_the_same_session_costs_no_batch(self):
        session, daemon = Session(), ModelDaemon()
        daemon.last[session.name] = 5
        session.submit(batch(0))
        self.assertIsNone(session.received(daemon.take(session.next_line(0.0)), 0.0))
        self.assertIsNotNone(session.received(daemon.take(session.next_line(1.0)), 1.0))
        self.assertEqual((daemon.stored, session.renewed), ([0], 1))


if __name__ == "__main__":
    unittest.main()

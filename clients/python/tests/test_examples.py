"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest

from .support import PACKAGE, SOURCE, TestCase, binary


class Examples(TestCase):
    def test_the_farm_finds_every_acknowledged_record_once(self):
        self.farm({})

    def test_the_farm_finds_the_records_of_lots_that_are_rotated_meanwhile(self):
        self.farm({"LOTLOGD_ROTATE_BYTES": "64KiB"})

    def test_wrong_arguments_of_the_farm_are_told_and_not_traced(self):
        program = os.path.join(PACKAGE, "examples", "farm.py")
        for wrong in ("--optimisers=0", "--lots=-1", "--seconds=nan", "--seconds=0", "--seconds=x", "--lotlogd=/nowhere", "--what"):
            run = subprocess.run(
                [sys.executable, program, wrong], stderr=subprocess.PIPE, universal_newlines=True, timeout=60,
                env={**os.environ, "PYTHONPATH": SOURCE},
            )  # fmt: skip
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn(wrong.partition("=")[0], run.stderr)
            self.assertNotIn("Traceback", run.stderr)

    def farm(self, settings):
        program = os.path.join(PACKAGE, "examples", "farm.py")
        env = dict(os.environ) if os.environ.get("LOTLOG_INSTALLED") else {**os.environ, "PYTHONPATH": SOURCE}
        env.update(settings)
        run = subprocess.run(
            [sys.executable, program, "--lotlogd", binary("lotlogd", "LOTLOGD"), "--seconds", "1", "--optimisers", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            env=env,
            timeout=120,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("every acknowledged record is there, once", run.stdout)


if __name__ == "__main__":
    unittest.main()

"""A farm of simulated optimisers: processes that price the items of several auction lots and log what they predict, then the
lots read back and counted against what was acknowledged.

    python3 examples/farm.py [--optimisers 4] [--lots 6] [--seconds 5] [--lotlogd PATH]

With ``--lotlogd`` it starts a daemon of its own in a temporary directory; without, it uses the one that runs (``LOTLOG_SOCKET``).
"""

import argparse
import glob
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

try:
    import lotlog
except ImportError:  # not installed: from the source beside it
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))
    import lotlog


def optimise(number, lots, seconds, run, progress):
    """One optimiser: every round it picks a lot, prices some of its items, and logs them without waiting for the answer."""
    chance = random.Random(number)
    until = time.monotonic() + seconds
    acknowledged = dict.fromkeys(lots, 0)

    def count(receipt):
        acknowledged[receipt.lot] += receipt.records
        with progress.get_lock():
            progress.value += receipt.records

    with lotlog.Client() as client:
        session = client.session(opt_source="examples/farm.py", opt_params={"optimiser": number, "run": run})
        while time.monotonic() < until:
            items = [
                {
                    "sku_local": f"SKU{chance.randrange(10_000):05d}",
                    "est_price_mu": round(chance.lognormvariate(3, 0.5), 2),
                    "est_price_sigma": round(chance.uniform(1, 9), 2),
                    "sell_p60": round(chance.random(), 4) if chance.random() > 0.1 else float("nan"),
                    "condition_bucket": chance.choice(["new", "used_good", "used_fair"]),
                    "quantity": chance.randrange(1, 5),
                }
                for _ in range(chance.randrange(5, 60))
            ]
            session.log(items, lot_id=chance.choice(lots), roi_target=1.25, wait=False).add_done_callback(count)
            time.sleep(chance.uniform(0, 0.01))  # the optimising
        client.flush()
    return acknowledged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimisers", type=at_least_one, default=4)
    parser.add_argument("--lots", type=at_least_one, default=6)
    parser.add_argument("--seconds", type=duration, default=5.0)
    parser.add_argument("--lotlogd", type=program, help="start this daemon in a temporary directory")
    options = parser.parse_args()
    home = daemon = None
    try:
        if options.lotlogd:
            home = tempfile.mkdtemp(prefix="lotlog-farm-")
            os.environ["LOTLOG_SOCKET"] = os.path.join(home, "s")
            daemon = subprocess.Popen([options.lotlogd, "-q", "--data-dir", os.path.join(home, "data")])
        return farm(options)
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait()
        if home is not None:
            shutil.rmtree(home)


def at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def duration(text):
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError("a number of seconds above 0")
    return seconds


def program(text):
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no program that can be run")
    return found


def farm(options):
    run = f"{time.time_ns():x}"
    lots = [f"FARM_{run}_{n}" for n in range(options.lots)]
    status = wait_for_daemon()
    context = multiprocessing.get_context("fork")
    progress = context.Value("q", 0)
    results = context.Queue()
    processes = [
        context.Process(target=lambda n=n: results.put(optimise(n, lots, options.seconds, run, progress)))
        for n in range(options.optimisers)
    ]
    began = time.monotonic()
    for process in processes:
        process.start()
    answers = []
    while len(answers) < len(processes):
        try:
            answers.append(results.get(timeout=0.25))
        except Exception:  # nothing yet
            if not any(process.is_alive() for process in processes):
                sys.exit("an optimiser ended without a result")
        print(f"\r{progress.value:,} records acknowledged, {time.monotonic() - began:.1f} s ", end="", file=sys.stderr)
    print(file=sys.stderr)
    for process in processes:
        process.join()
    with lotlog.Client() as client:
        client.sync()
    wrong = 0
    print(f"{'lot':28} {'acknowledged':>12} {'in the file':>12} {'mean price':>10}")
    for lot in lots:
        records = read_lot(status["data_dir"], lot)
        acknowledged = sum(answer[lot] for answer in answers)
        prices = [record["predicted_price"] for record in records]
        mean = sum(prices) / len(prices) if prices else 0.0
        print(f"{lot:28} {acknowledged:12,} {len(records):12,} {mean:10.2f}")
        wrong += acknowledged != len(records)
    print("every acknowledged record is there, once" if not wrong else f"{wrong} LOTS DIFFER")
    return 1 if wrong else 0


def wait_for_daemon():
    for _ in range(20):
        try:
            with lotlog.Client(timeout=0.5) as client:
                return client.status()
        except lotlog.Unreachable as error:
            trouble = error
            time.sleep(0.1)
    sys.exit(f"{trouble}\nstart one with `lotlogd`, or give --lotlogd PATH")


def read_lot(data_dir, lot):
    """The records of a lot that nobody writes to any more: the whole lines of its rotated files, then of the one in ``lots/``.

    Rotated files that the daemon has compressed are not among them: ``lotlog cat`` reads those too.
    """
    current = os.path.join(data_dir, "lots", f"{lot}.jsonl")
    while True:
        before = inode(current)
        paths = sorted(glob.glob(os.path.join(data_dir, "archive", f"lot={lot}", "*.jsonl")))
        try:
            texts = [read(path) for path in paths + ([current] if before else [])]
        except FileNotFoundError:
            continue
        if inode(current) == before:  # else it was rotated meanwhile
            break
    return [json.loads(line) for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()]


def inode(path):
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def read(path):
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main())

"""What the client costs, as ratios to what producers did without it, in one series: each measurement is made in turns with
its comparison, and the medians are compared.

    python3 benchmarks/ratios.py [--rounds 5] [--seconds 1.5] [--lotlogd PATH]

* ``farm``: 4 producer processes through the daemon, beside the same 4 processes that append the records themselves
  (O_APPEND, one write for each batch, no sync): both with orjson, and both with the standard library's json.
* ``frame``: the drop-in with a DataFrame of pandas, beside the row-wise logger that it replaces.
* ``cpu``: seconds of processor time for a million records, client and daemon together.

The daemon answers as ``written``, which is the promise that comes nearest to an append without sync; ``--ack synced`` shows the other.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PRODUCERS = 4
ITEMS = 50
LOTS = 64
FRAME_ROWS = 1000


def make_items(count, seed=1):
    chance = random.Random(seed)
    return [
        {
            "sku_local": f"SKU{chance.randrange(10**6):06d}",
            "asin": f"B{chance.randrange(10**9):09d}",
            "upc": f"{chance.randrange(10**12):012d}",
            "est_price_mu": round(chance.uniform(5, 200), 2),
            "est_price_sigma": round(chance.uniform(1, 20), 3),
            "est_price_p50": round(chance.uniform(5, 200), 2),
            "sell_p60": chance.random(),
            "sell_hazard_daily": chance.random() / 10,
            "condition_bucket": chance.choice(["new", "used_good", "used_fair"]),
            "sell_condition_factor": 0.85,
            "sell_seasonality_factor": 1.1,
            "mins_per_unit": 5.0,
            "quantity": chance.randrange(1, 9),
        }
        for _ in range(count)
    ]


def make_context(lot):
    return {
        "lot_id": lot,
        "roi_target": 1.25,
        "risk_threshold": 0.8,
        "horizon_days": 60,
        "opt_source": "run_optimize",
        "opt_params": {"roi_target": 1.25, "risk_threshold": 0.8, "sims": 100},
    }


def record(item, context, stamp):
    """A record as the old logger composed it: the same content as the daemon's."""
    made = dict(item)
    if "est_price_mu" in made:
        made["predicted_price"] = made["est_price_mu"]
    if "sell_p60" in made:
        made["predicted_sell_p60"] = made["sell_p60"]
    made["roi_target"] = context["roi_target"]
    made["risk_threshold"] = context["risk_threshold"]
    made["horizon_days"] = context["horizon_days"]
    made["lot_id"] = context["lot_id"]
    made["timestamp"] = stamp
    made["context"] = {**context, "timestamp": stamp}
    return made


def append_producer(number, directory, seconds, begin, results):
    """Appends its records itself."""
    if os.environ.get("LOTLOG_JSON") == "stdlib":
        dumps = lambda value: json.dumps(value).encode()  # noqa: E731
    else:
        import orjson

        dumps = orjson.dumps
    batches = [make_items(ITEMS, number * 100 + at) for at in range(20)]
    files = [os.open(os.path.join(directory, f"LOT_{lot}.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND) for lot in range(LOTS)]
    begin.wait()
    before, began, n = os.times(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        context = make_context(f"LOT_{n % LOTS}")
        stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
        text = b"\n".join(dumps(record(item, context, stamp)) for item in batches[n % 20]) + b"\n"
        os.write(files[n % LOTS], text)
        n += 1
    took, after = time.perf_counter() - began, os.times()
    results.put((n * ITEMS, took, after.user + after.system - before.user - before.system))


def daemon_producer(number, socket, ack, seconds, begin, results):
    """Sends its batches."""
    import lotlog

    batches = [make_items(ITEMS, number * 100 + at) for at in range(20)]
    client = lotlog.Client(socket, ack=ack, timeout=30)
    client.log([{"warm": 1}], lot_id="warm")
    begin.wait()
    before, began, n = os.times(), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        client.log(batches[n % 20], context=make_context(f"LOT_{n % LOTS}"), wait=False)
        n += 1
    client.flush()
    took, after = time.perf_counter() - began, os.times()
    results.put((n * ITEMS, took, after.user + after.system - before.user - before.system))
    client.close()


def farm(target, *arguments):
    """Records a second of all producers together, their processor time, and how many records."""
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(PRODUCERS), context.Queue()
    processes = [context.Process(target=target, args=(n, *arguments, begin, results)) for n in range(PRODUCERS)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return sum(count / took for count, took, _ in answers), sum(cpu for _, _, cpu in answers), sum(a[0] for a in answers)


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def row_wise_log(items_df, context, out_jsonl):
    """The row-wise pandas logger of old, as its users describe it: only without its failures, so that it finishes."""
    import math

    columns = ("sku_local asin upc ean upc_ean_asin est_price_mu est_price_sigma est_price_p50 sell_p60 sell_hazard_daily "
               "condition_bucket sell_condition_factor sell_seasonality_factor mins_per_unit quantity").split()  # fmt: skip
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
    written = 0
    with open(out_jsonl, "a") as file:
        for _, row in items_df.iterrows():
            item = {}
            for column in columns:
                value = row.get(column)
                if value is None or (isinstance(value, float) and math.isnan(value)):
                    continue
                item[column] = value
            file.write(json.dumps(record(item, context, stamp), default=str) + "\n")
            written += 1
    return written


def frame_rates(rounds, directory):
    import pandas

    import lotlog

    frame = pandas.DataFrame(make_items(FRAME_ROWS))
    frame.loc[frame.index % 3 == 0, "sell_hazard_daily"] = float("nan")
    context = make_context("FRAME")
    path = os.path.join(directory, "row-wise.jsonl")
    rates = {"row-wise": [], "drop-in": []}
    lotlog.log_predictions(frame, context, None)
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(3):
            assert row_wise_log(frame, context, path) == FRAME_ROWS
        rates["row-wise"].append(3 * FRAME_ROWS / (time.perf_counter() - began))
        began = time.perf_counter()
        for _ in range(60):
            assert lotlog.log_predictions(frame, context, None) == FRAME_ROWS
        rates["drop-in"].append(60 * FRAME_ROWS / (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in rates.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--ack", default="written")
    parser.add_argument("--dir", default=None)
    parser.add_argument("--lotlogd", default=os.path.join(HERE, "..", "..", "..", "target", "release", "lotlogd"))
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="lotlog-ratios-", dir=options.dir)
    socket = os.path.join(directory, "s")
    daemon = subprocess.Popen([options.lotlogd, "--data-dir", os.path.join(directory, "data"), "--socket", socket, "-q"])
    try:
        os.environ["LOTLOG_SOCKET"] = socket
        import lotlog

        while True:
            try:
                lotlog.Client().status(10)
                break
            except lotlog.Unreachable:
                pass
        rates, cpu = {}, []
        for _ in range(options.rounds):
            for flavour in ("orjson", "stdlib"):
                os.environ["LOTLOG_JSON"] = flavour
                apart = os.path.join(directory, "apart")
                shutil.rmtree(apart, ignore_errors=True)
                os.mkdir(apart)
                rate, own, count = farm(append_producer, apart, options.seconds)
                rates.setdefault(f"append {flavour}", []).append(rate)
                before = processor_seconds(daemon.pid)
                rate, clients, count = farm(daemon_producer, socket, options.ack, options.seconds)
                rates.setdefault(f"daemon {flavour}", []).append(rate)
                lotlog.Client().sync(30)
                if flavour == "orjson":
                    cpu.append((clients + processor_seconds(daemon.pid) - before) * 1e6 / count)
                    cpu_parts = (clients * 1e6 / count, (processor_seconds(daemon.pid) - before) * 1e6 / count, own)
        for name, found in rates.items():
            print(f"{name:16} {statistics.median(found):12,.0f} records/s   ({', '.join(f'{r:,.0f}' for r in found)})")
        for flavour in ("orjson", "stdlib"):
            pairs = [d / a for d, a in zip(rates[f"daemon {flavour}"], rates[f"append {flavour}"])]
            print(f"farm, {flavour}: {statistics.median(pairs):.2f} x appending ({', '.join(f'{p:.2f}' for p in pairs)})")
        print(f"cpu, orjson: {statistics.median(cpu):.2f} s per million records (last: client {cpu_parts[0]:.2f}, daemon {cpu_parts[1]:.2f})")
        try:
            found = frame_rates(options.rounds, directory)
        except ImportError:
            print("frame: pandas is not installed")
        else:
            for name, rate in found.items():
                print(f"{name:16} {rate:12,.0f} rows/s")
            print(f"frame: {found['drop-in'] / found['row-wise']:.1f} x the row-wise logger")
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(directory, ignore_errors=True)





if __name__ == "__main__":
    sys.path.insert(0, os.path.join(HERE, "..", "src"))
    main()

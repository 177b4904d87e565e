"""A producer that writes its records itself, as Python programs do today: the four baselines of the bench.

    producer.py MODE DATA DIR SECONDS PRODUCER PRODUCERS

`append` and `fdatasync` dump each record with orjson and write a batch with one call; `pandas` is a row-wise logger of
a DataFrame; `sqlite` commits a batch as one transaction with synchronous=FULL. Says "ready", waits for a line, works for
SECONDS, and prints what it did as JSON. DATA has the lots, and batches of items in turn. It validates nothing.
"""

import datetime
import json
import os
import resource
import sqlite3
import sys
import time
import uuid

try:
    import orjson
except ImportError:
    orjson = None

FLAT = ["roi_target", "risk_threshold", "horizon_days", "lot_id", "timestamp"]


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def plain(record):
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def dumped(context, items):
    """The lines of a batch."""
    dumps = orjson.dumps if orjson is not None else plain
    context = {**context, "timestamp": now()}
    flat = {key: context[key] for key in FLAT}
    return [
        dumps({**item, "predicted_price": item["est_price_mu"], "predicted_sell_p60": item["sell_p60"], **flat, "context": context})
        for item in items
    ]


class Append:
    """One O_APPEND write a batch, files kept open."""

    def __init__(self, folder, sync=False):
        self.folder, self.sync, self.files = folder, sync, {}

    def log(self, context, items):
        lot = context["lot_id"]
        file = self.files.get(lot)
        if file is None:
            file = os.open(f"{self.folder}/{lot}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            self.files[lot] = file
        lines = b"\n".join(dumped(context, items)) + b"\n"
        if os.write(file, lines) != len(lines):
            raise OSError(f"{lot}: short write")
        if self.sync:
            os.fdatasync(file)


class Pandas:
    """Row by row through a DataFrame, as loggers of predictions often are."""

    def __init__(self, folder):
        import pandas

        self.folder, self.pandas = folder, pandas

    def prepared(self, items):
        return self.pandas.DataFrame(items)

    def log(self, context, frame):
        context = {**context, "timestamp": now()}
        notna = self.pandas.notna
        with open(f"{self.folder}/{context['lot_id']}.jsonl", "a", encoding="utf-8") as file:
            for _, row in frame.iterrows():
                record = {}
                for key, value in row.items():
                    if notna(value):
                        record[key] = value.item() if hasattr(value, "item") else value
                if "est_price_mu" in record:
                    record["predicted_price"] = record["est_price_mu"]
                if "sell_p60" in record:
                    record["predicted_sell_p60"] = record["sell_p60"]
                for key in FLAT:
                    record[key] = context[key]
                record["context"] = context
                file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


class Sqlite:
    """One transaction a batch, durable when it returns."""

    def __init__(self, folder):
        self.base = sqlite3.connect(f"{folder}/records.sqlite", timeout=60, isolation_level=None)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA synchronous=FULL")
        self.base.execute("CREATE TABLE IF NOT EXISTS records (lot TEXT NOT NULL, record BLOB NOT NULL)")

    def log(self, context, items):
        rows = [(context["lot_id"], line) for line in dumped(context, items)]
        self.base.execute("BEGIN IMMEDIATE")
        self.base.executemany("INSERT INTO records VALUES (?, ?)", rows)
        self.base.execute("COMMIT")


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    mode, data, folder, seconds, producer, producers = sys.argv[1:]
    with open(data, "rb") as file:
        data = json.load(file)
    sink = {
        "append": lambda: Append(folder),
        "fdatasync": lambda: Append(folder, sync=True),
        "pandas": lambda: Pandas(folder),
        "sqlite": lambda: Sqlite(folder),
    }[mode]()
    contexts, batches = data["contexts"], data["batches"]
    size = len(batches[0])
    if hasattr(sink, "prepared"):
        batches = [sink.prepared(items) for items in batches]
    at = int(producer) * len(contexts) // int(producers)
    session, latencies = str(uuid.uuid4()), []
    print("ready", flush=True)
    sys.stdin.readline()
    begun, before = time.monotonic(), cpu_seconds()
    sent, deadline = begun, begun + float(seconds)
    while sent < deadline:
        context = {**contexts[at % len(contexts)], "session": session, "seq": len(latencies) + 1}
        sink.log(context, batches[at % len(batches)])
        at += 1
        done = time.monotonic()
        latencies.append(done - sent)
        sent = done
    print(json.dumps({"records": len(latencies) * size, "cpu_seconds": cpu_seconds() - before, "latencies": latencies}))


main()

"""All records of a data directory, those in lots/ and those in archive/, each once, also while lotlogd moves and compresses
files: with DuckDB, which reads the files itself, and with polars, through `lotlog cat`. Copy what you need.

    python3 recipes.py DATA            counts the records of each lot, with whichever of the two is installed
"""

import glob
import json
import os
import subprocess
import sys

TRIES = 100


def lot_files(data_dir):
    """The archived files and those in lots/ (with their inodes), as they were at one moment."""

    def in_lots():
        found = []
        for path in sorted(glob.glob(f"{glob.escape(data_dir)}/lots/*.jsonl")):
            try:
                found.append((path, os.stat(path).st_ino))
            except FileNotFoundError:  # Moved to the archive in this very moment.
                pass
        return found

    for _ in range(TRIES):
        live = in_lots()
        plain = glob.glob(f"{glob.escape(data_dir)}/archive/lot=*/*.jsonl")
        packed = glob.glob(f"{glob.escape(data_dir)}/archive/lot=*/*.jsonl.zst")
        if not (live or plain or packed):
            raise FileNotFoundError(f"no lot has a file in {data_dir}")
        if in_lots() == live:
            # The compressed file is there before the plain one goes: then they are the same.
            names = {path[: -len(".zst")] for path in packed}
            return sorted(packed + [path for path in plain if path not in names]), live
    raise RuntimeError("files are moved faster than they can be listed")


def with_duckdb(data_dir, query):
    """The rows of a query over `records`."""
    import duckdb

    for _ in range(TRIES):
        files = lot_files(data_dir)
        paths = files[0] + [path for path, _ in files[1]]
        connection = duckdb.connect()
        try:
            # A line in flight at a file's end is passed over; it comes out as a row of NULLs.
            connection.execute(
                """CREATE TEMP TABLE records AS SELECT * FROM read_json(?, format = 'newline_delimited',
                   ignore_errors = true, union_by_name = true, sample_size = -1, hive_partitioning = false)
                   WHERE timestamp IS NOT NULL""",
                [paths],
            )
            if lot_files(data_dir) == files:
                return connection.execute(query).fetchall()
        except duckdb.IOException:  # Compressed, and the plain file gone, before it was opened: look again.
            pass
        finally:
            connection.close()
    raise RuntimeError("files are moved faster than they can be read")


def with_polars(data_dir, lotlog="lotlog"):
    """A data frame of all records."""
    import polars as pl

    lot_files(data_dir)  # Says so where there is none.
    lots = json.loads(subprocess.check_output([lotlog, "lots", "--json", "--data-dir", data_dir]))["lots"]
    lines = [subprocess.check_output([lotlog, "cat", "--data-dir", data_dir, "--", lot["lot"]]) for lot in lots]
    return pl.read_ndjson(b"".join(lines), infer_schema_length=None, schema_overrides={"lot_id": pl.String})


if __name__ == "__main__":
    data, lotlog = sys.argv[1], os.environ.get("LOTLOG_COMMAND", "lotlog")
    counts = {}
    try:
        rows = with_duckdb(data, "SELECT lot_id, count(*), count(DISTINCT sku_local) FROM records GROUP BY lot_id ORDER BY lot_id")
        counts["duckdb"] = [list(row) for row in rows]
    except ImportError:
        pass
    try:
        import polars as pl

        frame = with_polars(data, lotlog).group_by("lot_id").agg(pl.len(), pl.col("sku_local").n_unique().alias("n"))
        counts["polars"] = [list(row) for row in frame.sort("lot_id").rows()]
    except ImportError:
        pass
    print(json.dumps(counts))

//! The recipes for readers of both places, as they stand in `docs/`, run beside producers while files are moved and
//! compressed: each record once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::producer::{Load, Stop, farm, lot_files, number};
use crate::common::{Daemon, Place, until};

fn python() -> Command {
    Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
}

fn has(module: &str) -> bool {
    let mut command = python();
    command.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn duckdb_and_polars_find_each_record_once_while_files_are_moved_and_compressed() {
    let readers: Vec<&str> = ["duckdb", "polars"].into_iter().filter(|module| has(module)).collect();
    if readers.len() < 2 {
        println!("SKIPPED: the recipes need Python with duckdb and polars, and here is only {readers:?}");
    }
    if readers.is_empty() {
        return;
    }
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &["--rotate-bytes", "20KB", "--archive-compress", "1"]);
    let stop = Stop::default();
    let load = Load { lots: 3, pause: Duration::from_millis(5), ..Load::default() };
    let producers = farm(&place.socket(), "p", 2, seed, &load, &stop);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.py");
    let count = || {
        let mut command = python();
        command.arg(&recipe).arg(place.data()).env("LOTLOG_COMMAND", env!("CARGO_BIN_EXE_lotlog"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = told.as_object().unwrap().clone();
        assert!(readers.iter().all(|reader| told.contains_key(*reader)), "{told:?}");
        told
    };
    // Sums of records; a record that was found twice is one with the same name.
    let sums = |told: &serde_json::Map<String, serde_json::Value>, reader: &str| {
        let mut all = 0;
        for row in told[reader].as_array().unwrap() {
            assert_eq!(row[1], row[2], "{reader}: a record twice");
            all += row[1].as_u64().unwrap();
        }
        all
    };
    let archive = |suffix: &str| {
        let names = (0..3).flat_map(|n| crate::archived(&place.data(), &format!("lot-{n}")));
        names.filter(|name| name.ends_with(suffix)).collect::<BTreeSet<_>>().len()
    };
    until("some files are compressed", || (archive(".zst") > 1).then_some(()));
    let mut last = 0;
    for round in 0..4 {
        let whole = |bytes: &Vec<u8>| bytes.iter().filter(|b| **b == b'\n').count() as u64;
        let before: u64 = lot_files(&place.data()).values().map(whole).sum();
        let told = count();
        for reader in &readers {
            let now = sums(&told, reader);
            assert!(now >= before, "{reader} found {now} records where {before} were, round {round}");
            last = last.max(now);
        }
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    let sent: usize = ledgers.iter().flat_map(|ledger| &ledger.entries).map(|entry| entry.items).sum();
    let told = count();
    for reader in &readers {
        assert_eq!(sums(&told, reader), sent as u64, "{reader}");
    }
    println!("{readers:?}: {sent} records, {} of them met while files moved", last);
}

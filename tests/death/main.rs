//! Deaths of the daemon: killed at random under load, killed before and after each of its storage calls, in the
//! middle of recovery, failed by the n-th call, by a panic, stopped and signalled at every moment. Each proof
//! ends with the judge, who reads only the lot files and the producers' ledgers.
//!
//! `LOTLOG_SEED` repeats a run, `LOTLOG_ROUNDS` sets the number of random kills, `LOTLOG_EVERY=1` walks all the
//! storage calls instead of as many as fit into `LOTLOG_SECONDS`.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod failures;
mod older;
mod panics;
mod recovery;
mod rounds;
mod signals;
mod strace;

use std::path::Path;

use common::judge::{After, Answer, Entry, Lots, Verdict, judge, vanished};
use common::producer::{lot_files, number, record};

/// Small segments, short checkpoints and few open lots: a short workload passes every mechanism.
const BUSY: &[&str] = &[
    "--segment-bytes",
    "256KiB",
    "--checkpoint-interval-seconds",
    "60ms",
    "--sync-interval-seconds",
    "60ms",
    "--max-open-lots",
    "4",
];

/// [`BUSY`], and lots go to the archive when they have grown a little, and are compressed there.
fn rotating() -> Vec<&'static str> {
    [BUSY, &["--rotate-bytes", "20KB", "--archive-compress", "1"]].concat()
}

/// The seed of this run, said so that it can be repeated.
fn seed() -> u64 {
    let seed = number("LOTLOG_SEED", std::process::id().into());
    println!("LOTLOG_SEED={seed}");
    seed
}

/// All was answered, and all that was acknowledged is there once, behind what a reader had `seen` before.
#[track_caller]
fn all_is_well(data: &Path, sent: &[Entry], seen: &Lots, what: &str) -> Lots {
    let lots = lot_files(data);
    let verdict = Verdict { vanished: vanished(seen, &lots), ..judge(&lots, sent, &record, After::Death) };
    assert_eq!(verdict, Verdict::default(), "{what}");
    let unanswered = sent.iter().filter(|e| ![Answer::Synced, Answer::Written].contains(&e.answer)).count();
    assert_eq!(unanswered, 0, "batches without an acknowledgement: {what}");
    lots
}

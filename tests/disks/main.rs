//! Real disks: small, full, without inodes, over quota, failing, slow, standing still, moved away. The real
//! daemon on real file systems, producers whose ledgers are elsewhere, and the judge at the end. Most of it
//! needs root and tools; what cannot be tried says so. `LOTLOG_SEED` repeats a run, `LOTLOG_ROUNDS` sets
//! how often a disk is filled.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;
mod failing;
mod full;
mod limits;
mod mount;
mod moved;
mod slow;
mod start;

use std::path::Path;
use std::thread::JoinHandle;

use common::Daemon;
use common::judge::{After, Answer, Entry, Verdict, judge, judge_the_judge};
use common::producer::{Ledger, Load, Stop, Watcher, entries, farm, lot_files, record};

/// Producers and a reader, at work.
struct Farm {
    stop: Stop,
    producers: Vec<JoinHandle<Ledger>>,
    watcher: Watcher,
}

impl Farm {
    fn start(daemon: &Daemon, count: u64, seed: u64, load: &Load) -> Farm {
        let stop = Stop::default();
        let producers = farm(&daemon.place.socket(), "p", count, seed, load, &stop);
        Farm { stop, producers, watcher: Watcher::start(daemon.place.data()) }
    }

    /// Everything that was sent has its answer.
    #[track_caller]
    fn finish(self) -> (Vec<Ledger>, Watcher) {
        self.stop.finish();
        self.join()
    }

    /// What was sent and not answered stays unknown.
    #[track_caller]
    fn quit(self) -> (Vec<Ledger>, Watcher) {
        self.stop.quit();
        self.join()
    }

    #[track_caller]
    fn join(self) -> (Vec<Ledger>, Watcher) {
        (self.producers.into_iter().map(|p| p.join().expect("a producer ends")).collect(), self.watcher)
    }
}

/// The end of every proof: what producers know against what is in the lot files, but for the lots of probes.
#[track_caller]
fn check(data: &Path, ledgers: &[Ledger], watcher: Watcher) -> Vec<Entry> {
    let sent = entries(ledgers);
    let mut lots = lot_files(data);
    lots.retain(|stem, _| !stem.starts_with("probe"));
    let verdict = Verdict { vanished: watcher.vanished(data), ..judge(&lots, &sent, &record, After::Death) };
    assert_eq!(verdict, Verdict::default(), "{} batches were sent", sent.len());
    judge_the_judge(&lots, &sent, &record, After::Death);
    sent
}

/// None is unknown: each batch was sent until it was acknowledged.
#[track_caller]
fn all_acknowledged(sent: &[Entry]) {
    assert!(sent.iter().all(|e| [Answer::Synced, Answer::Written].contains(&e.answer)));
}

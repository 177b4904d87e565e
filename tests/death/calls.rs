//! SIGKILL before and after each storage call of a short workload, thread by thread, each followed by a restart
//! and by sending again what was not acknowledged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::judge::{After, Entry, Lots, judge_the_judge, whole_lines};
use crate::common::producer::{Ledger, Load, Random, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place};
use crate::strace::{self, CALLS, Tracer};
use crate::{all_is_well, rotating, seed};

/// The threads of the daemon that touch the disk while it serves.
pub const THREADS: &[&str] = &["writer", "journal sync", "journal", "lot syncs"];
/// The one that works on archived files, where there is something to keep.
pub const KEEPING: &str = "keeping";
/// Those whose work everything else waits for; what others met after the drain takes nothing with it.
pub const AWAITED: &[&str] = &["writer", "journal sync"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// What a workload came to.
pub struct Story {
    /// What its tracer saw.
    pub trace: String,
    /// What the daemons said.
    pub log: String,
    /// How the first daemon ended.
    pub status: std::process::ExitStatus,
    /// Refusals that producers met, by code.
    pub refusals: BTreeMap<String, usize>,
    pub sent: Vec<Entry>,
    pub lots: Lots,
}

/// Producers that finish by themselves, through every mechanism: one waits for each reply, one pipelines, one
/// sends batches that need a segment of their own.
pub fn workload(place: &Place, seed: u64, name: &str) -> Vec<std::thread::JoinHandle<Ledger>> {
    let small =
        Load { lots: 6, most_items: 5, most_pad: 9000, window: 1, most_batches: 10, ..Load::default() };
    let mixed = Load { window: 4, synced_percent: 50, ..small.clone() };
    let large = Load { most_items: 2, most_pad: 300_000, most_batches: 2, ..small.clone() };
    let stop = Stop::default();
    let loads = [("small", small), ("mixed", mixed), ("large", large)];
    loads
        .into_iter()
        .zip(seed..)
        .flat_map(|((kind, load), seed)| {
            farm(&place.socket(), &format!("{name}{kind}"), 1, seed, &load, &stop)
        })
        .collect()
}

/// Runs the workload with one thread under a tracer. A first daemon that dies has a successor.
#[track_caller]
pub fn live(
    thread: &str,
    flags: &[&str],
    injections: &[String],
    kill_when_delayed: bool,
    seed: u64,
) -> Story {
    let what = format!("{injections:?} in {thread}, LOTLOG_SEED={seed}");
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, flags);
    let tracer = Tracer::attach(&daemon, thread, injections);
    let producers = workload(&place, seed, "");
    let begun = Instant::now();
    let mut asked = 0;
    let status = loop {
        if let Some(status) = daemon.ended() {
            break status;
        }
        if kill_when_delayed && asked < 3 && tracer.trace().contains("(DELAYED)") {
            daemon.signal(Signal::KILL);
            asked = 3;
        }
        let finished = producers.iter().all(|p| p.is_finished());
        if asked == 0 && begun.elapsed() > Duration::from_millis(60) {
            daemon.signal(Signal::HUP);
            asked = 1;
        }
        if asked == 1 && finished {
            daemon.signal(Signal::TERM);
            asked = 2;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not end: {what}");
        std::thread::sleep(Duration::from_millis(2));
    };
    let trace = tracer.end();
    let seen: Lots =
        lot_files(&place.data()).into_iter().map(|(stem, bytes)| (stem, whole_lines(bytes))).collect();
    if status.code() != Some(0) {
        daemon = Daemon::start_in(&place, flags);
    }
    let ledgers: Vec<Ledger> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    if status.code() != Some(0) {
        assert_eq!(daemon.terminate(), Some(0), "{what}");
    }
    let mut refusals = BTreeMap::new();
    for (code, times) in ledgers.iter().flat_map(|ledger| &ledger.refusals) {
        *refusals.entry(code.clone()).or_default() += times;
    }
    let sent = entries(&ledgers);
    let lots = all_is_well(&place.data(), &sent, &seen, &what);
    Story { trace, log: place.own_log(), status, refusals, sent, lots }
}

/// Kills at one call. Whether it came to that.
fn kill_at(thread: &str, call: &str, n: usize, when: When, seed: u64) -> bool {
    let injection = match when {
        When::Before => format!("{call}:signal=SIGKILL:when={n}"),
        When::After => format!("{call}:delay_exit=60s:when={n}"),
    };
    let story = live(thread, &rotating(), &[injection], when == When::After, seed);
    use std::os::unix::process::ExitStatusExt;
    match story.status.signal() {
        Some(signal) => assert_eq!(signal, 9, "{thread} {call} {n} {when:?}: {:?}", story.status),
        None => assert_eq!(story.status.code(), Some(0), "{thread} {call} {n} {when:?}"),
    }
    story.status.signal().is_some()
}

#[test]
fn killed_before_and_after_each_storage_call_nothing_is_lost_or_doubled() {
    if strace::is_missing() {
        return;
    }
    let seed = seed();
    let begun = Instant::now();
    let every = number("LOTLOG_EVERY", 0) == 1;
    let budget = Duration::from_secs(number("LOTLOG_SECONDS", 25));
    let (mut all, mut kills) = (Vec::new(), 0);
    for thread in THREADS.iter().chain([&KEEPING]) {
        let story = live(thread, &rotating(), &[], false, seed);
        assert_eq!(story.status.code(), Some(0));
        for call in CALLS {
            let calls = strace::count(&story.trace, call);
            println!("{thread}: {calls} {call}");
            all.extend(
                (1..=calls).flat_map(|n| [(*thread, *call, n, When::Before), (thread, call, n, When::After)]),
            );
        }
        judge_the_judge(&story.lots, &story.sent, &record, After::Death);
    }
    let points = all.len();
    assert!(points > 100, "the workload is too short: {points}");
    let mut random = Random(seed);
    let (mut tried, mut passed) = (0, 0);
    while !all.is_empty() && (every || tried < 12 || begun.elapsed() < budget) {
        let (thread, call, n, when) = all.swap_remove(random.below(all.len() as u64) as usize);
        tried += 1;
        // Groups form anew in each run: near the end of a walk the call may not come.
        if kill_at(thread, call, n, when, seed) { kills += 1 } else { passed += 1 }
    }
    println!(
        "{kills} kills before or after a storage call, {tried} of {points} places tried, {passed} not reached, {:?}",
        begun.elapsed()
    );
    assert!(kills > 6, "only {kills} kills");
}

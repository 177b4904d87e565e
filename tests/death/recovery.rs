//! SIGKILL before and after each storage call of a recovery, then again at the same call of the next one; the
//! third is left in peace, and must end in the same bytes as one clean recovery of a copy of the directory.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::judge::{Answer, Entry};
use crate::common::producer::{Random, entries, number, request};
use crate::common::{Connection, Daemon, Place};
use crate::strace::{self, CALLS};
use crate::{BUSY, all_is_well, calls, seed};

/// No checkpoint but those of start and stop: a kill leaves everything to recovery.
const PATIENT: &[&str] = &["--segment-bytes", "256KiB", "--max-open-lots", "4"];

type Files = BTreeMap<String, Vec<u8>>;

/// What lots/ and quarantine/ hold; of a note only that it is there, because it says when it was written.
fn files(data: &Path) -> Files {
    let mut files = Files::new();
    for dir in ["lots", "quarantine"] {
        for entry in std::fs::read_dir(data.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let is_note = path.extension().is_some_and(|e| e == "txt");
            let bytes = if is_note { b"note".to_vec() } else { std::fs::read(&path).unwrap() };
            files.insert(path.strip_prefix(data).unwrap().display().to_string(), bytes);
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// A place that begins with a copy of this directory.
fn place_with(data: &Path) -> Arc<Place> {
    let place = Place::new();
    copy(data, &place.data());
    place
}

/// How the files differ from what was wanted, for people.
fn difference(is: &Files, wanted: &Files) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = is.keys().chain(wanted.keys()).collect();
    let differing = names.into_iter().filter(|name| is.get(*name) != wanted.get(*name));
    let bytes = |files: &Files, name| files.get(name).map(Vec::len);
    differing
        .map(|name| format!("{name}: {:?} bytes, wanted {:?}", bytes(is, name), bytes(wanted, name)))
        .collect()
}

/// What a daemon left that was killed between its first lot syncs and the next checkpoint, all of it in order.
fn killed_under_load(flags: &[&str], seed: u64) -> (Arc<Place>, Vec<Entry>) {
    let place = Place::new();
    let mut sent = Vec::new();
    for round in 0..2 {
        let mut daemon = Daemon::start_in(&place, flags);
        let producers = calls::workload(&place, seed + 10 * round, &format!("{round}"));
        let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        sent.extend(entries(&ledgers));
        if round == 0 {
            assert_eq!(daemon.terminate(), Some(0));
        } else {
            daemon.kill();
        }
    }
    (place, sent)
}

/// The same, after everything that may happen to a lot file in a crash or by other hands.
fn doctored(place: &Place) {
    let path = |n: u32| place.data().join(format!("lots/lot-{n}.jsonl"));
    let good = |n: u32| std::fs::read(path(n)).unwrap();
    let mut short = good(0);
    short.truncate(short.len() - 100);
    short.extend([0; 5000]);
    std::fs::write(path(0), short).unwrap();
    let mut foreign = good(1);
    foreign.extend(b"{\"not\":\"ours\"}\nand a loose end");
    std::fs::write(path(1), foreign).unwrap();
    std::fs::remove_file(path(2)).unwrap();
    let mut cut = good(3);
    cut.truncate(10);
    std::fs::write(path(3), cut).unwrap();
    std::fs::write(place.data().join("lots/lot-4.jsonl.new"), b"unfinished").unwrap();
}

/// As if the lot syncs of a checkpoint had been under way: lots are rebuilt in new files.
fn marked(place: &Place) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(place.data().join("journal/syncing"), format!("{:<64}", boot.trim())).unwrap();
}

#[derive(Clone, Copy, Debug)]
struct Point {
    call: &'static str,
    n: usize,
    after: bool,
}

/// Starts a daemon that is to be killed there; whether it came to that. Where not, it is stopped.
fn recover_until(place: &Arc<Place>, point: Point) -> bool {
    let Point { call, n, after } = point;
    let what = if after { "delay_exit=60s" } else { "signal=SIGKILL" };
    // Calls that name their file are counted below DATA only: the loader and the runtime open files too.
    let named = ["openat2", "fsync", "renameat", "renameat2", "unlinkat"].contains(&call);
    let only: Vec<PathBuf> = match named {
        true => ["lots", "journal", "quarantine"].map(|dir| place.data().join(dir)).into(),
        false => Vec::new(),
    };
    let injections = [format!("{call}:{what}:when={n}")];
    let _sweep = strace::Sweep::of(place);
    let mut daemon = Daemon::launch(place, strace::traced(place, PATIENT, &injections, &only));
    let trace = place.path().join("trace");
    let begun = Instant::now();
    let (mut stopping, mut killed) = (false, false);
    let status = loop {
        if let Some(status) = daemon.ended() {
            break status;
        }
        if after && !killed && std::fs::read_to_string(&trace).unwrap_or_default().contains("(DELAYED)") {
            strace::kill(&daemon);
            killed = true;
        } else if !stopping && Connection::try_open(&place.socket()).is_some() {
            daemon.signal(Signal::TERM);
            stopping = true;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the daemon does not end: {point:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    let harmed = status.signal() == Some(9);
    assert!(harmed || status.code() == Some(0), "{point:?}: {status:?}");
    harmed
}

/// What a clean recovery makes of it.
fn recovered(place: &Arc<Place>) -> Files {
    let mut daemon = Daemon::start_in(place, PATIENT);
    assert_eq!(daemon.terminate(), Some(0));
    files(&place.data())
}

/// Every batch is acknowledged when it is sent again.
#[track_caller]
fn send_again(place: &Arc<Place>, sent: &mut [Entry]) {
    let mut daemon = Daemon::start_in(place, PATIENT);
    let mut connection = daemon.connect();
    for entry in sent {
        let reply = connection.ask(request(entry, true));
        assert_eq!(reply["ok"], true, "{reply}");
        entry.answer = Answer::Synced;
    }
    drop(connection);
    assert_eq!(daemon.terminate(), Some(0));
}

/// Walks the storage calls of the recovery of this directory. `sent` only where nobody else has touched it.
fn walk(name: &str, base: &Path, sent: Option<&[Entry]>, seed: u64) {
    let begun = Instant::now();
    let every = number("LOTLOG_EVERY", 0) == 1;
    let budget = Duration::from_secs(number("LOTLOG_SECONDS", 12)) / 4;
    let wanted = recovered(&place_with(base));
    let mut points = Vec::new();
    let all = place_with(base);
    let _sweep = strace::Sweep::of(&all);
    let mut daemon = Daemon::spawn(&all, strace::traced(&all, PATIENT, &[], &[]));
    assert_eq!(daemon.terminate(), Some(0));
    let trace = std::fs::read_to_string(all.path().join("trace")).unwrap();
    for call in CALLS {
        let calls = trace.lines().filter(|l| l.contains(&format!("{call}(")) && l.contains("/data/")).count();
        points.extend((1..=calls).flat_map(|n| [false, true].map(|after| Point { call, n, after })));
    }
    assert_eq!(difference(&files(&all.data()), &wanted), [""; 0], "a recovery under strace is like another");
    let (places, mut random) = (points.len(), Random(seed));
    let (mut tried, mut kills) = (0, 0);
    while !points.is_empty() && (every || tried < 6 || begun.elapsed() < budget) {
        let point = points.swap_remove(random.below(points.len() as u64) as usize);
        let place = place_with(base);
        tried += 1;
        for _ in 0..2 {
            kills += usize::from(recover_until(&place, point));
        }
        let difference = difference(&recovered(&place), &wanted);
        assert_eq!(difference, [""; 0], "{name}: after two kills at {point:?}, LOTLOG_SEED={seed}");
        if let Some(sent) = sent {
            let mut sent = sent.to_vec();
            let seen = crate::common::producer::lot_files(&place.data());
            send_again(&place, &mut sent);
            all_is_well(&place.data(), &sent, &seen, &format!("{name}, {point:?}"));
        }
    }
    println!("{name}: {kills} kills, {tried} of {places} places tried, {:?}", begun.elapsed());
    assert!(kills > 0, "nothing was killed");
}

#[test]
fn recovery_killed_twice_at_each_storage_call_ends_in_the_same_bytes() {
    if strace::is_missing() {
        return;
    }
    let seed = seed();
    let (place, sent) = killed_under_load(BUSY, seed);
    walk("between checkpoints", &place.data(), Some(&sent), seed);
    let (place, sent) = killed_under_load(PATIENT, seed);
    walk("all of it redone in place", &place.data(), Some(&sent), seed);
    marked(&place);
    walk("rebuilt in new files", &place.data(), Some(&sent), seed);
    std::fs::write(place.data().join("journal/syncing"), [b' '; 64]).unwrap();
    doctored(&place);
    walk("changed by other hands", &place.data(), None, seed);
}

#[test]
fn a_directory_whose_maker_died_before_its_sync_is_synced_by_the_next_start() {
    if strace::is_missing() {
        return;
    }
    for (n, unsynced) in [(1, "place"), (2, "data"), (3, "data"), (4, "data")] {
        let place = Place::new();
        let injections = [format!("fsync:signal=SIGKILL:when={n}")];
        let _sweep = strace::Sweep::of(&place);
        let mut daemon = Daemon::launch(&place, strace::traced(&place, PATIENT, &injections, &[]));
        assert_eq!(daemon.wait().signal(), Some(9));
        let _sweep = strace::Sweep::of(&place);
        let mut daemon = Daemon::spawn(&place, strace::traced(&place, PATIENT, &[], &[]));
        let trace = std::fs::read_to_string(place.path().join("trace")).unwrap();
        let dir = if unsynced == "place" { place.path().to_owned() } else { place.data() };
        let synced =
            trace.lines().position(|l| l.contains("fsync(") && l.contains(&format!("<{}>", dir.display())));
        let first_frame = trace.lines().position(|l| l.contains("pwrite64(") && l.contains("/journal/"));
        assert!(synced.is_some() && synced < first_frame, "{n}: {trace}");
        assert_eq!(daemon.terminate(), Some(0));
    }
}

//! Panics and other sudden ends: the whole process goes, nobody is told more than is true, and a successor carries
//! on. A panic is provoked in the real, unchanged daemon: strace forges the result of an `openat2` to be the one
//! descriptor that the standard library refuses with a panic.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::calls::{THREADS, live, workload};
use crate::common::judge::{After, judge_the_judge};
use crate::common::producer::{entries, lot_files, record};
use crate::common::{Daemon, Place, until};
use crate::strace::{self, Tracer};
use crate::{BUSY, all_is_well, seed};

/// -1 in 32 bits.
const FORGED: &str = "retval=4294967295";

#[test]
fn a_panic_in_any_thread_of_the_vault_ends_the_process_and_nothing_is_lost_or_doubled() {
    if strace::is_missing() {
        return;
    }
    let seed = seed();
    let mut panics = 0;
    // The one that syncs the journal opens nothing.
    for thread in THREADS.iter().filter(|thread| **thread != "journal sync") {
        for n in [1, 2] {
            let injection = format!("openat2:{FORGED}:when={n}");
            let story = live(thread, BUSY, &[injection], false, seed + n);
            if !story.trace.contains("(INJECTED)") {
                // A helper may have had less to do this time.
                assert!(*thread != "writer" && n == 2, "{thread} {n}: {}", story.trace);
                continue;
            }
            panics += 1;
            assert_eq!(story.status.code(), Some(74), "{thread} {n}: {:?} {}", story.status, story.log);
            let honest =
                story.refusals.keys().all(|code| ["io_error", "shutting_down"].contains(&code.as_str()));
            assert!(honest, "{thread} {n}: {:?}", story.refusals);
            judge_the_judge(&story.lots, &story.sent, &record, After::Death);
        }
    }
    assert!(panics >= 4, "only {panics} panics");
}

#[test]
fn a_background_thread_that_panics_or_fails_takes_an_idle_daemon_with_it() {
    if strace::is_missing() {
        return;
    }
    let steady = [
        "--segment-bytes",
        "256KiB",
        "--checkpoint-interval-seconds",
        "1h",
        "--sync-interval-seconds",
        "60s",
    ];
    for what in [FORGED, "error=EIO"] {
        let place = Place::new();
        let mut daemon = Daemon::start_in(&place, &steady);
        until("two spare segments are ready", || {
            place.data().join("journal/0000000000000003.wal").exists().then_some(())
        });
        let tracer =
            Tracer::attach(&daemon, "journal", &[format!("openat2:{what}:delay_enter=500ms:when=1")]);
        // Two of them do not fit into one segment: the next is turned to, and another is prepared, slowly.
        for seq in 1..=2 {
            let pad = "x".repeat(150_000);
            let reply = daemon.ask(format!(
                r#"{{"session":"s","seq":{seq},"context":{{"lot_id":"A"}},"items":[{{"sku_local":"i{seq}","pad":"{pad}"}}]}}"#
            ));
            assert_eq!(reply["ok"], true);
        }
        // Nobody asks anything of it any more.
        assert_eq!(daemon.wait().code(), Some(74), "{what}");
        assert!(tracer.end().contains("(INJECTED)"));
        let mut daemon = Daemon::start_in(&place, &steady);
        assert_eq!(daemon.lot("A").len(), 2);
        assert_eq!(daemon.terminate(), Some(0));
    }
}

#[test]
fn a_panic_in_recovery_ends_the_process_and_the_next_start_recovers() {
    if strace::is_missing() {
        return;
    }
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let ledgers: Vec<_> = workload(&place, 1, "").into_iter().map(|p| p.join().unwrap()).collect();
    let sent = entries(&ledgers);
    daemon.kill();
    let seen = lot_files(&place.data());
    let below = ["lots", "journal"].map(|dir| place.data().join(dir));
    for n in [3, 6, 9] {
        let injections = [format!("openat2:{FORGED}:when={n}")];
        let _sweep = strace::Sweep::of(&place);
        let mut daemon = Daemon::launch(&place, strace::traced(&place, BUSY, &injections, &below));
        let ended = daemon.wait();
        assert_eq!(ended.code(), Some(74), "{n}: {ended:?}");
    }
    let mut daemon = Daemon::start_in(&place, BUSY);
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &seen, "after panics in recovery");
}

#[test]
fn killed_by_any_signal_under_load_it_leaves_nothing_behind_that_a_successor_cannot_take_up() {
    let seed = seed();
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let mut sent = Vec::new();
    for (signal, n) in [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::QUIT].into_iter().zip(0..) {
        let producers = workload(&place, seed + n, &format!("{n}"));
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        let ended = loop {
            // The runtime takes the first SEGV or BUS for a fault that will come again by itself.
            daemon.signal(signal);
            if let Some(ended) = daemon.ended() {
                break ended;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{signal:?} does not end it");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended:?}");
        daemon = Daemon::start_in(&place, BUSY);
        let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        sent.extend(entries(&ledgers));
    }
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &Default::default(), "after deaths by signals");
}

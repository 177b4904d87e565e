//! SIGTERM, SIGINT, SIGHUP, SIGSTOP and SIGCONT at every moment of a daemon's life.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::calls::workload;
use crate::common::judge::{After, Entry, Lots, judge_the_judge, vanished};
use crate::common::producer::{Ledger, Load, Random, Stop, entries, farm, lot_files, record};
use crate::common::{Connection, DEADLINE, Daemon, Place, until};
use crate::strace::{self, Tracer};
use crate::{BUSY, all_is_well, seed};

fn joined(producers: Vec<std::thread::JoinHandle<Ledger>>) -> (Vec<Ledger>, Vec<Entry>) {
    let ledgers: Vec<Ledger> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    let sent = entries(&ledgers);
    (ledgers, sent)
}

#[test]
fn drained_again_and_again_under_load_it_exits_0_and_all_it_took_is_there_once() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", 4, seed(), &Load::default(), &stop);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::INT] {
        std::thread::sleep(Duration::from_millis(150));
        let begun = Instant::now();
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(!place.socket().exists(), "the socket file is removed");
        daemon = Daemon::start_in(&place, BUSY);
    }
    stop.finish();
    let (_, sent) = joined(producers);
    assert_eq!(daemon.terminate(), Some(0));
    let lots = all_is_well(&place.data(), &sent, &Lots::new(), "after drains");
    judge_the_judge(&lots, &sent, &record, After::Death);
}

#[test]
fn asked_to_stop_at_any_moment_of_its_start_it_goes_and_leaves_everything_as_good() {
    let seed = seed();
    let mut random = Random(seed);
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let (_, sent) = joined(workload(&place, seed, ""));
    daemon.kill();
    let seen = lot_files(&place.data());
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..40 {
        let signal = if round % 2 == 0 { Signal::TERM } else { Signal::INT };
        let mut daemon = Daemon::launch(&place, place.command(BUSY));
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        daemon.signal(signal);
        let ended = daemon.wait();
        // Before it is there to hear, the system does with it what it does with any process.
        let is_clean = ended.code() == Some(0) || ended.signal() == Some(signal.as_raw());
        assert!(is_clean, "{ended:?}");
        *ends.entry(format!("{:?}", ended.code())).or_default() += 1;
        assert_eq!(vanished(&seen, &lot_files(&place.data())), 0, "round {round}, LOTLOG_SEED={seed}");
    }
    println!("exit codes: {ends:?}");
    let mut daemon = Daemon::start_in(&place, BUSY);
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &seen, "after starts that were stopped");
}

#[test]
fn asked_to_reopen_before_it_is_ready_it_starts_all_the_same() {
    let place = Place::new();
    for micros in [4000, 8000, 16_000, 32_000] {
        let mut daemon = Daemon::launch(&place, place.command(BUSY));
        until("it is there to hear", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            (u64::from_str_radix(caught.trim(), 16).ok()? & 1 == 1).then_some(())
        });
        std::thread::sleep(Duration::from_micros(micros));
        daemon.signal(Signal::HUP);
        until("the daemon serves", || Connection::try_open(&place.socket()));
        assert_eq!(daemon.ask(r#"{"items":[{"sku_local":"a"}]}"#)["ok"], true);
        assert_eq!(daemon.terminate(), Some(0));
    }
}

#[test]
fn asked_to_stop_in_the_middle_of_recovery_it_goes_at_once_and_the_next_start_recovers() {
    if strace::is_missing() {
        return;
    }
    let seed = seed();
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let (_, sent) = joined(workload(&place, seed, ""));
    daemon.kill();
    let seen = lot_files(&place.data());
    for (round, n) in [1, 3, 6].into_iter().enumerate() {
        let injections = [format!("fdatasync:delay_enter=30s:when={n}")];
        let _sweep = strace::Sweep::of(&place);
        let mut daemon = Daemon::launch(&place, strace::traced(&place, BUSY, &injections, &[]));
        let trace = place.path().join("trace");
        until("recovery stands still in a sync", || {
            let trace = std::fs::read_to_string(&trace).ok()?;
            let open = trace.lines().rfind(|line| line.contains("fdatasync("))?;
            (strace::count(&trace, "fdatasync") >= n && !open.contains("= 0")).then_some(())
        });
        let begun = Instant::now();
        daemon.signal(Signal::TERM);
        until("it says that it goes", || {
            (place.own_log().matches("stopped before recovery").count() == round + 1).then_some(())
        });
        strace::let_go(&daemon);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let mut daemon = Daemon::start_in(&place, BUSY);
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &seen, "after recoveries that were stopped");
}

#[test]
fn asked_to_stop_in_the_middle_of_a_checkpoint_it_ends_it_and_exits_0() {
    if strace::is_missing() {
        return;
    }
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let tracer = Tracer::attach(&daemon, "lot syncs", &["fdatasync:delay_enter=200ms:when=3".to_owned()]);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", 3, seed(), &Load::default(), &stop);
    until("a checkpoint syncs lot files", || {
        (strace::count(&tracer.trace(), "fdatasync") >= 3).then_some(())
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    drop(tracer);
    let mut daemon = Daemon::start_in(&place, BUSY);
    stop.finish();
    let (_, sent) = joined(producers);
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &Lots::new(), "after a drain in a checkpoint");
}

/// A drain over a disk that does not answer, ended by `end`.
#[track_caller]
fn drain_on_a_stuck_disk(flags: &[&str], second: bool) {
    if strace::is_missing() {
        return;
    }
    let flags = [BUSY, flags].concat();
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &flags);
    let tracer = Tracer::attach(&daemon, "journal sync", &["fdatasync:delay_enter=60s:when=12".to_owned()]);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", 3, seed(), &Load::default(), &stop);
    until("the disk stands still", || (strace::count(&tracer.trace(), "fdatasync") >= 12).then_some(()));
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    if second {
        std::thread::sleep(Duration::from_millis(300));
        assert!(daemon.ended().is_none(), "it waits for the disk");
        daemon.signal(Signal::TERM);
    }
    assert_eq!(daemon.wait().code(), Some(75));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(tracer);
    let mut daemon = Daemon::start_in(&place, BUSY);
    stop.finish();
    let (ledgers, sent) = joined(producers);
    assert!(ledgers.iter().any(|l| l.breaks > 0), "somebody's batch was in flight");
    assert_eq!(daemon.terminate(), Some(0));
    all_is_well(&place.data(), &sent, &Lots::new(), "after a drain that was cut short");
}

#[test]
fn a_second_request_to_stop_ends_the_drain_with_75_and_nothing_acknowledged_is_lost() {
    drain_on_a_stuck_disk(&["--drain-timeout-seconds", "60s"], true);
}

#[test]
fn a_disk_that_stands_still_ends_the_drain_at_its_deadline_with_75() {
    drain_on_a_stuck_disk(&["--drain-timeout-seconds", "1s"], false);
}

#[test]
fn stopped_and_continued_under_load_it_loses_nothing_and_blames_nobody() {
    let flags = [BUSY, &["--line-timeout-seconds", "1s", "--reply-timeout-seconds", "1s"]].concat();
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &flags);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", 4, seed(), &Load::default(), &stop);
    let mut slow = daemon.connect();
    let line = r#"{"context":{"lot_id":"slow"},"items":[{"sku_local":"a"}]}"#;
    for seconds in [5, 2] {
        std::thread::sleep(Duration::from_millis(200));
        slow.send(&line[..20]);
        // It has begun to read the line.
        std::thread::sleep(Duration::from_millis(50));
        daemon.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(seconds));
        daemon.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(300));
        slow.send(&line[20..]);
        slow.send("\n");
        assert_eq!(
            slow.reply()["ok"],
            true,
            "its line took longer than allowed only because the daemon stood still"
        );
    }
    stop.finish();
    let (ledgers, sent) = joined(producers);
    let (breaks, refusals): (usize, usize) =
        (ledgers.iter().map(|l| l.breaks).sum(), ledgers.iter().map(|l| l.refusals.len()).sum());
    assert_eq!((breaks, refusals), (0, 0), "producers just wait");
    assert_eq!(daemon.terminate(), Some(0));
    std::fs::remove_file(place.lot_path("slow.jsonl")).unwrap();
    all_is_well(&place.data(), &sent, &Lots::new(), "after stops");
}

#[test]
fn a_storm_of_requests_to_reopen_holds_up_nobody_and_loses_nothing() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, BUSY);
    let stop = Stop::default();
    let producers = farm(&place.socket(), "p", 4, seed(), &Load::default(), &stop);
    let (begun, mut sent_signals) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(2) {
        daemon.signal(Signal::HUP);
        sent_signals += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    stop.finish();
    let (ledgers, sent) = joined(producers);
    let reopened = place.own_log().matches("lot files are reopened").count();
    println!("{sent_signals} SIGHUPs, reopened {reopened} times, {} batches", sent.len());
    assert!(reopened > 3 && sent.len() > 50, "{reopened} times, {} batches", sent.len());
    assert!(ledgers.iter().all(|l| l.breaks == 0 && l.refusals.is_empty()), "nobody notices");
    // In the middle of the storm it is asked to stop.
    for _ in 0..20 {
        daemon.signal(Signal::HUP);
    }
    let begun = Instant::now();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(begun.elapsed() < DEADLINE / 2);
    let lots = all_is_well(&place.data(), &sent, &Lots::new(), "after SIGHUPs");
    judge_the_judge(&lots, &sent, &record, After::Death);
}

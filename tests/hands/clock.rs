//! The wall clock jumps by years, in both directions, under load and across restarts (libfaketime; the clock that
//! never steps is left alone): nothing reorders, nothing waits longer or shorter, and timestamps are as promised.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::judge::{After, Lots, Verdict, judge, judge_the_judge};
use crate::common::producer::{Load, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};

const HOUR: i64 = 3600;
const YEARS: i64 = 10 * 365 * 24 * HOUR;

fn library() -> Option<PathBuf> {
    let mut dirs = vec![PathBuf::from("/usr/lib64/faketime"), PathBuf::from("/usr/lib/faketime")];
    dirs.extend(fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime")));
    dirs.into_iter().map(|dir| dir.join("libfaketimeMT.so.1")).find(|path| path.is_file())
}

/// A place whose daemons live by a clock of their own.
struct Clock {
    place: Arc<Place>,
    library: PathBuf,
    flags: Vec<&'static str>,
    /// Those who lived by it.
    pids: RefCell<Vec<u32>>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        // What the library leaves there of a process that was killed.
        for pid in self.pids.take() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}

impl Clock {
    fn new(flags: &[&'static str]) -> Option<Clock> {
        let Some(library) = library() else {
            println!("SKIPPED: a clock that jumps needs libfaketime (package faketime)");
            return None;
        };
        let mut all = vec!["--segment-bytes", "2MiB"];
        all.extend(flags);
        let clock = Clock { place: Place::new(), library, flags: all, pids: RefCell::default() };
        clock.set(0);
        Some(clock)
    }

    /// So many seconds from the true time.
    fn set(&self, seconds: i64) {
        let file = self.place.path().join("faketime");
        fs::write(file.with_extension("new"), format!("{seconds:+}\n")).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    fn start(&self) -> Daemon {
        let mut command = self.place.command(&self.flags);
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", self.place.path().join("faketime"));
        command.env("FAKETIME_NO_CACHE", "1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let daemon = Daemon::spawn(&self.place, command);
        self.pids.borrow_mut().push(daemon.pid());
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }
}

fn batch(session: &str, seq: u64, ack: &str) -> String {
    format!(
        r#"{{"session":"{session}","seq":{seq},"ack":"{ack}","context":{{"lot_id":"L"}},"items":[{{"sku_local":"{seq}"}}]}}"#
    )
}

fn micros(stamp: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(stamp).expect("a timestamp").timestamp_micros()
}

/// The timestamps of a lot, as they stand.
fn stamps(bytes: &[u8]) -> Vec<i64> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| micros(serde_json::from_slice::<Value>(line).unwrap()["timestamp"].as_str().unwrap()))
        .collect()
}

/// The last timestamp of the lot, in seconds from the true time.
fn last_stamp(place: &Place) -> i64 {
    let bytes = fs::read(place.lot_path("L.jsonl")).unwrap();
    (stamps(&bytes).last().unwrap() - chrono::Utc::now().timestamp_micros()) / 1_000_000
}

fn skew(daemon: &Daemon) -> f64 {
    daemon.ask(r#"{"op":"status"}"#)["clock_skew_seconds"].as_f64().expect("a number of seconds")
}

/// The lots with timestamps of their own that increase from batch to batch: for a judge who wants them so.
fn restamped(lots: &Lots) -> Lots {
    let anew = |bytes: &Vec<u8>| {
        let (mut text, mut last, mut count) = (String::new(), String::new(), 0);
        for line in std::str::from_utf8(bytes).unwrap().split_inclusive('\n') {
            let stamp =
                serde_json::from_str::<Value>(line).unwrap()["timestamp"].as_str().unwrap().to_owned();
            count += u32::from(stamp != last);
            text += &line.replace(&stamp, &format!("2020-01-01T00:00:00.{count:06}+00:00"));
            last = stamp;
        }
        text.into_bytes()
    };
    lots.iter().map(|(stem, bytes)| (stem.clone(), anew(bytes))).collect()
}

#[test]
fn jumps_of_years_under_load_and_across_restarts_reorder_and_lose_nothing() {
    let Some(clock) = Clock::new(&[]) else { return };
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let mut daemon = clock.start();
    let stop = Stop::default();
    let load = Load { lots: 3, pause: Duration::from_millis(2), ..Load::default() };
    let producers = farm(&clock.place.socket(), "p", 3, seed, &load, &stop);
    let count = |place: &Place| place.lot("lot-0").len();
    let jumps = [YEARS, 0, -YEARS, 2 * YEARS, HOUR / 2, 0, -2 * YEARS, YEARS];
    for (at, jump) in jumps.into_iter().enumerate() {
        clock.set(jump);
        let before = count(&clock.place);
        until("the load goes on", || (count(&clock.place) > before + 20).then_some(()));
        match at % 4 {
            1 => {
                daemon.kill();
                daemon = clock.start();
            }
            3 => {
                assert_eq!(daemon.terminate(), Some(0));
                daemon = clock.start();
            }
            _ => {}
        }
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.ask(r#"{"op":"sync"}"#)["ok"], true);
    daemon.kill();
    let mut daemon = clock.start();
    assert_eq!(daemon.terminate(), Some(0));
    let (lots, sent) = (lot_files(&clock.place.data()), entries(&ledgers));
    let verdict = judge(&restamped(&lots), &sent, &record, After::Death);
    assert_eq!(verdict, Verdict::default(), "{}", clock.log());
    judge_the_judge(&restamped(&lots), &sent, &record, After::Death);
    // Timestamps go back only where the clock was set back by more than an hour.
    let back = jumps.windows(2).filter(|pair| pair[0] - pair[1] > HOUR).count();
    for (stem, bytes) in &lots {
        let stamps = stamps(bytes);
        let steps: Vec<i64> =
            stamps.windows(2).map(|pair| pair[0] - pair[1]).filter(|step| *step > 0).collect();
        assert!(steps.len() <= back, "{stem}: {} steps back", steps.len());
        assert!(steps.iter().all(|step| *step > (HOUR - 60) * 1_000_000), "{stem}: {steps:?}");
    }
    assert!(
        lots.values().any(|bytes| stamps(bytes).windows(2).any(|pair| pair[0] > pair[1])),
        "no jump took effect"
    );
    let report = lotlog::verify::verify(&clock.place.data()).unwrap();
    assert!(report.is_good(), "{report:#?}");
    assert!(
        report.notes.iter().all(|note| note.kind == "clock_step") && !report.notes.is_empty(),
        "{report:#?}"
    );
}

#[test]
fn a_step_back_of_less_than_an_hour_is_bridged_and_a_greater_one_followed_logged_and_shown() {
    let Some(clock) = Clock::new(&[]) else { return };
    let mut daemon = clock.start();
    let mut seq = 0;
    let mut send = |daemon: &Daemon| {
        seq += 1;
        assert_eq!(daemon.ask(batch("s", seq, "synced"))["ok"], true);
        last_stamp(&clock.place)
    };
    assert!(send(&daemon).abs() < 5);
    assert!(skew(&daemon).abs() < 5.0);
    clock.set(-HOUR / 2);
    // Still from the last one on, a microsecond each; in status it runs ahead of the clock.
    assert!(send(&daemon).abs() < 5);
    assert!((skew(&daemon) - 1800.0).abs() < 10.0, "{}", skew(&daemon));
    daemon = {
        daemon.kill();
        clock.start()
    };
    assert!(send(&daemon).abs() < 5, "across a restart too");
    assert!((skew(&daemon) - 1800.0).abs() < 10.0, "{}", skew(&daemon));
    let bytes = fs::read(clock.place.lot_path("L.jsonl")).unwrap();
    assert!(stamps(&bytes).windows(2).all(|pair| pair[0] < pair[1]), "strictly increasing");
    assert!(!clock.log().contains("set back by more than an hour"));
    for (jump, restarts) in [(-3 * HOUR, false), (-YEARS, true)] {
        clock.set(jump);
        if restarts {
            daemon.kill();
            daemon = clock.start();
        }
        assert!((send(&daemon) - jump).abs() < 10, "followed");
        send(&daemon);
        let shown = skew(&daemon);
        assert!(shown < -HOUR as f64, "shown for as long as it lasts: {shown}");
    }
    until("both steps are logged", || {
        let said = clock.log().matches("set back by more than an hour").count();
        (said >= 2).then_some(())
    });
    clock.set(YEARS);
    assert!((send(&daemon) - YEARS).abs() < 10, "a step forward is followed");
    assert!(skew(&daemon).abs() < 5.0);
}

#[test]
fn no_deadline_follows_the_wall_clock() {
    let flags = ["--line-timeout-seconds", "1s", "--checkpoint-interval-seconds", "1s"];
    let Some(clock) = Clock::new(&flags) else { return };
    let mut daemon = clock.start();
    assert_eq!(daemon.ask(batch("old", 1, "synced"))["ok"], true);
    for (seq, jump) in (1..).zip([YEARS, -YEARS, 0]) {
        // A started line has its second, whatever the clock does.
        let mut connection = daemon.connect();
        let begun = Instant::now();
        connection.send(b"{");
        clock.set(jump);
        let reply = connection.reply();
        let took = begun.elapsed();
        assert_eq!(reply["error"]["code"], "timeout", "{reply}");
        assert!((0.8..4.0).contains(&took.as_secs_f64()), "{took:?}");
        // A written batch is there within its second.
        let begun = Instant::now();
        assert_eq!(daemon.ask(batch("w", seq, "written"))["ok"], true);
        clock.set(-jump);
        until("it is visible", || (daemon.lot("L").len() as u64 == seq + 1).then_some(()));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    // A checkpoint comes in time: after a kill there is nothing to redo.
    clock.set(-YEARS);
    assert_eq!(daemon.ask(batch("old", 2, "synced"))["ok"], true);
    std::thread::sleep(Duration::from_millis(2500));
    daemon.kill();
    let daemon = clock.start();
    assert!(!clock.log().contains("the journal was redone"), "{}", clock.log());
    // And a session is forgotten by running time, not by the clock.
    clock.set(YEARS);
    assert_eq!(daemon.ask(batch("old", 2, "synced"))["duplicate"], true);
    assert_eq!(daemon.ask(batch("old", 3, "synced"))["ok"], true);
}

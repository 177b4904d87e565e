//! Keeping the archive: compression in the background, what a crash leaves of it, and retention.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lotlog::verify::verify;

use crate::common::producer::lot_files;
use crate::common::{Daemon, Place, until};
use crate::{archived, good, log_batch, lotlog};

const COMPRESS: &[&str] = &["--archive-compress", "3"];

/// The file of this number.
fn file(place: &Place, lot: &str, number: u64, suffix: &str) -> PathBuf {
    place.data().join(format!("archive/lot={lot}/{number:020}{suffix}"))
}

#[track_caller]
fn fill(daemon: &Daemon, lot: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        assert_eq!(daemon.ask(log_batch(lot, n))["ok"], true);
    }
}

#[track_caller]
fn rotate(daemon: &Daemon, lot: &str) {
    assert_eq!(daemon.ask(format!(r#"{{"op":"rotate","lot_id":"{lot}"}}"#))["rotated"], 1);
}

fn is_all_packed(place: &Place, lot: &str) -> Option<()> {
    let names = archived(&place.data(), lot);
    (!names.is_empty() && names.iter().all(|name| name.ends_with(".jsonl.zst"))).then_some(())
}

#[test]
fn what_is_archived_is_compressed_and_read_as_before() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, COMPRESS);
    let data = place.data();
    let data = data.to_str().unwrap();
    fill(&daemon, "A", 1..=40);
    let first = fs::read(place.lot_path("A.jsonl")).unwrap();
    rotate(&daemon, "A");
    fill(&daemon, "A", 41..=50);
    rotate(&daemon, "A");
    fill(&daemon, "A", 51..=52);
    until("both files are compressed", || {
        is_all_packed(&place, "A").filter(|()| archived(&place.data(), "A").len() == 2)
    });
    let packed = fs::read(file(&place, "A", 1, ".jsonl.zst")).unwrap();
    assert!(packed.len() < first.len() / 2, "{} of {} bytes", packed.len(), first.len());
    assert!(zstd::decode_all(&packed[..]).unwrap() == first);
    let all = good(&lotlog(&["cat", "A", "--data-dir", data]).output().unwrap());
    assert_eq!(all.lines().count(), 52);
    assert!(all.as_bytes() == lot_files(&place.data())["A"]);
    let last = good(&lotlog(&["tail", "-n", "14", "A", "--data-dir", data]).output().unwrap());
    assert!(all.ends_with(&last) && last.lines().count() == 14, "{last}");
    let lots = good(&lotlog(&["lots", "--json", "--data-dir", data]).output().unwrap());
    let lots: serde_json::Value = serde_json::from_str(&lots).unwrap();
    assert_eq!(lots["lots"][0]["records"], 52);
    assert_eq!(lots["lots"][0]["bytes"], all.len());
    // A footer is of what was in the files, compressed or not.
    assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"A"}"#)["records"], 52);
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.notes.is_empty(), "{report:#?}");
    assert_eq!(daemon.terminate(), Some(0));
    // A changed byte of the checksum, and one cut off. (A byte in the middle may say where the same bytes stood before, and
    // then another place with the same bytes is no damage.)
    let path = file(&place, "A", 1, ".jsonl.zst");
    let mut bad = packed.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    for bytes in [bad, packed[..packed.len() - 1].to_vec()] {
        fs::write(&path, bytes).unwrap();
        let kinds: Vec<_> = verify(&place.data()).unwrap().findings.iter().map(|f| f.kind).collect();
        assert!(kinds.contains(&"archive_damaged"), "{kinds:?}");
        assert_eq!(lotlog(&["cat", "A", "--data-dir", data]).output().unwrap().status.code(), Some(74));
    }
}

#[test]
fn what_a_crash_left_of_a_compression_is_finished_at_the_next_start() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    for n in 1..=4 {
        fill(&daemon, "A", n..=n);
        rotate(&daemon, "A");
    }
    assert_eq!(daemon.terminate(), Some(0));
    let whole = lot_files(&place.data())["A"].clone();
    let plain = |n| fs::read(file(&place, "A", n, ".jsonl")).unwrap();
    // Cut in the middle; finished, but the plain file not yet removed; the same, but damaged by the crash.
    fs::write(file(&place, "A", 1, ".jsonl.zst.new"), "half").unwrap();
    fs::write(file(&place, "A", 2, ".jsonl.zst"), zstd::encode_all(&plain(2)[..], 3).unwrap()).unwrap();
    fs::write(file(&place, "A", 3, ".jsonl.zst"), &zstd::encode_all(&plain(3)[..], 3).unwrap()[..20])
        .unwrap();
    assert!(lot_files(&place.data())["A"] == whole, "a reader finds each record once");
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.archived == 4, "{report:#?}");
    let _daemon = Daemon::start_in(&place, COMPRESS);
    until("all files are compressed", || {
        is_all_packed(&place, "A").filter(|()| archived(&place.data(), "A").len() == 4)
    });
    assert!(lot_files(&place.data())["A"] == whole);
    assert!(verify(&place.data()).unwrap().is_good());
}

#[test]
fn retention_removes_the_oldest_archived_files_loudly_and_nothing_else() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    for n in 1..=4 {
        for lot in ["A", "B", "S"] {
            fill(&daemon, lot, n..=n);
            rotate(&daemon, lot);
        }
    }
    fill(&daemon, "A", 5..=5);
    assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"S"}"#)["records"], 4);
    assert_eq!(daemon.terminate(), Some(0));
    let old = |lot: &str, number: u64, days: u64| {
        let path = file(&place, lot, number, ".jsonl");
        let when = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        fs::File::options().write(true).open(path).unwrap().set_modified(when).unwrap();
    };
    // Number of lot l's n-th file: 1 to 3 in the first round, and so on.
    old("A", 1, 30);
    old("B", 2, 20);
    old("S", 3, 40);
    old("A", 4, 9);
    old("B", 5, 8);
    let counts = || ["A", "B", "S"].map(|lot| archived(&place.data(), lot).len());
    assert_eq!(counts(), [4, 4, 4]);
    // For its age nothing goes so soon after a start: the clock may be wrong.
    let bytes = fs::metadata(file(&place, "A", 7, ".jsonl")).unwrap().len();
    let most = format!("{}B", 4 * bytes + bytes / 2);
    let flags = ["--retain-age-seconds", "10d", "--retain-bytes", &most];
    let _daemon = Daemon::start_in(&place, &flags);
    until("the oldest are gone", || (counts() == [2, 2, 4]).then_some(()));
    until("it is told", || place.own_log().contains("archived files were removed").then_some(()));
    let log = place.own_log();
    for name in ["archive/lot=A/00000000000000000001.jsonl", "archive/lot=B/00000000000000000005.jsonl"] {
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(name)), "{log}");
    }
    assert!(!log.contains("older than retain_age_seconds"), "{log}");
    assert_eq!(archived(&place.data(), "A"), [7, 10].map(|n| format!("{n:020}.jsonl")));
    assert_eq!(place.lot("A").len(), 1, "what is in lots/ stays");
    assert!(verify(&place.data()).unwrap().is_good());
}

#[test]
fn a_lot_that_is_old_enough_is_rotated_whether_or_not_it_is_written_to() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &["--rotate-age-seconds", "2s"]);
    fill(&daemon, "IDLE", 1..=3);
    fill(&daemon, "SEALED", 1..=2);
    assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"SEALED"}"#)["ok"], true);
    let mut sent = 0;
    until("both are rotated, the busy one at least twice", || {
        sent += 1;
        fill(&daemon, "BUSY", sent..=sent);
        let files = |lot| archived(&place.data(), lot).len();
        (files("IDLE") == 1 && files("BUSY") >= 2).then_some(())
    });
    assert!(!place.lot_path("IDLE.jsonl").exists() && place.lot_path("SEALED.jsonl").exists());
    let all = good(&lotlog(&["cat", "BUSY", "--data-dir", place.data().to_str().unwrap()]).output().unwrap());
    assert_eq!(all.lines().count() as u64, sent);
    assert!(all.as_bytes() == lot_files(&place.data())["BUSY"]);
}

#[test]
fn a_lot_is_as_old_as_its_first_record_over_restarts_and_restored_copies_begin_anew() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    for lot in ["OLD", "YOUNG", "COPY"] {
        fill(&daemon, lot, 1..=2);
    }
    assert_eq!(daemon.terminate(), Some(0));
    // Written to just now, but begun an hour ago; and a copy without attributes, of which only the last writing is known.
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let began = |lot: &str, age: u64| {
        let path = place.lot_path(&format!("{lot}.jsonl"));
        let note = format!("1 {}", (seconds - age) * 1_000_000);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.lotlog.began", note.as_bytes(), flags)
    };
    if began("OLD", 3600).is_err() {
        println!("SKIPPED: this file system keeps no extended attributes");
        return;
    }
    began("YOUNG", 60).unwrap();
    let lines = fs::read(place.lot_path("COPY.jsonl")).unwrap();
    fs::remove_file(place.lot_path("COPY.jsonl")).unwrap();
    fs::write(place.lot_path("COPY.jsonl"), lines).unwrap();
    let daemon = Daemon::start_in(&place, &["--rotate-age-seconds", "30m"]);
    until("the old one is rotated", || (archived(&place.data(), "OLD").len() == 1).then_some(()));
    assert_eq!(
        daemon.ask(r#"{"op":"rotate","lot_id":"COPY"}"#)["rotated"],
        1,
        "it was not rotated by its age"
    );
    assert_eq!(archived(&place.data(), "YOUNG"), Vec::<String>::new());
    // A new file of the lot has its own age.
    fill(&daemon, "OLD", 3..=3);
    let daemon = daemon.restart(&["--rotate-age-seconds", "30m", "--archive-compress", "1"]);
    until("what was rotated is compressed", || is_all_packed(&place, "OLD"));
    assert_eq!(place.lot("OLD").len(), 1);
    drop(daemon);
    assert!(verify(&place.data()).unwrap().is_good());
}

#[test]
fn beside_what_is_not_a_lot_file_others_are_rotated_by_age() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    fill(&daemon, "A", 1..=2);
    fill(&daemon, "Z", 1..=2);
    assert_eq!(daemon.terminate(), Some(0));
    fs::create_dir(place.lot_path("DIR.jsonl")).unwrap();
    std::os::unix::fs::symlink(place.lot_path("A.jsonl"), place.lot_path("LINK.jsonl")).unwrap();
    let _daemon = Daemon::start_in(&place, &["--rotate-age-seconds", "1s", "--archive-compress", "1"]);
    until("both lots are archived and compressed", || {
        is_all_packed(&place, "A").and_then(|()| is_all_packed(&place, "Z"))
    });
    assert!(place.lot_path("DIR.jsonl").is_dir() && place.lot_path("LINK.jsonl").is_symlink());
    let all = good(&lotlog(&["cat", "A", "--data-dir", place.data().to_str().unwrap()]).output().unwrap());
    assert_eq!(all.lines().count(), 2);
}

#[test]
fn whoever_keeps_the_archive_does_it_at_the_lowest_priority() {
    let daemon = Daemon::start(COMPRESS);
    until("the thread has stepped back", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).ok()?;
        let niceness = tasks.flatten().find_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            name.ends_with("(keeping").then(|| rest.split_whitespace().nth(16).map(str::to_owned))?
        });
        (niceness.as_deref() == Some("19")).then_some(())
    });
}

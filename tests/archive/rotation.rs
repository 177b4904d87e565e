//! Rotation: files go to the archive by order and by size, beside producers, readers and kills, and each record stays
//! where a reader of both places finds it once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use lotlog::verify::verify;
use rustix::process::Signal;

use crate::common::judge::{After, Verdict, judge};
use crate::common::producer::{Load, Random, Stop, Watcher, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};
use crate::{archived, ask, good, log_batch, lotlog};

#[test]
fn a_rotated_file_is_named_by_its_first_lsn_and_the_next_record_begins_a_new_one() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    // lsn 1 to 6: A, B, A, B, A, B.
    for n in 1..=3 {
        for lot in ["A", "B"] {
            assert_eq!(daemon.ask(log_batch(lot, n))["ok"], true);
        }
    }
    let reply = daemon.ask(r#"{"op":"rotate","lot_id":"B"}"#);
    assert_eq!(reply, serde_json::json!({"ok": true, "lsn": 6, "rotated": 1}));
    assert_eq!(place.lots(), ["A.jsonl"]);
    assert_eq!(archived(&place.data(), "B"), ["00000000000000000002.jsonl"]);
    assert_eq!(daemon.ask(log_batch("B", 4))["lsn"], 7);
    assert_eq!(daemon.lot("B").len(), 1);
    assert!(good(&ask(&place.socket(), &["rotate", "--all"])).contains("rotated 2 files"));
    assert_eq!(archived(&place.data(), "B"), ["00000000000000000002.jsonl", "00000000000000000007.jsonl"]);
    assert_eq!(archived(&place.data(), "A"), ["00000000000000000001.jsonl"]);
    // There is nothing more to do, which is no failure.
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"B"}"#)["rotated"], 0);
    assert!(good(&ask(&place.socket(), &["rotate", "B"])).contains("nothing to rotate"));
    assert_eq!(archived(&place.data(), "B").len(), 2);
    assert_eq!(lot_files(&place.data())["B"].iter().filter(|b| **b == b'\n').count(), 4);
    for (path, mode) in
        [("archive", 0o750), ("archive/lot=B", 0o750), ("archive/lot=A/00000000000000000001.jsonl", 0o640)]
    {
        assert_eq!(fs::metadata(place.data().join(path)).unwrap().mode() & 0o777, mode, "{path}");
    }
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.notes.is_empty(), "{report:#?}");
    assert_eq!((report.lots, report.archived, report.batches), (2, 3, 7));
}

#[test]
fn names_stay_in_order_over_restarts_and_where_the_first_lsn_was_forgotten() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(log_batch("A", 1))["ok"], true);
    daemon.kill();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
    assert_eq!(archived(&place.data(), "A"), ["00000000000000000001.jsonl"]);
    for n in 2..=5 {
        assert_eq!(daemon.ask(log_batch("A", n))["ok"], true);
    }
    let mut daemon = daemon;
    assert_eq!(daemon.terminate(), Some(0));
    // A restored copy of the file has no attributes.
    let (lot, copy) = (place.lot_path("A.jsonl"), place.lot_path("copy"));
    fs::write(&copy, fs::read(&lot).unwrap()).unwrap();
    fs::rename(&copy, &lot).unwrap();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
    assert_eq!(archived(&place.data(), "A"), ["00000000000000000001.jsonl", "00000000000000000002.jsonl"]);
    assert_eq!(lot_files(&place.data())["A"].iter().filter(|b| **b == b'\n').count(), 5);
    assert!(verify(&place.data()).unwrap().is_good());
}

#[test]
fn an_order_that_cannot_be_carried_out_says_why() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    let refused = |line: &str, code: &str, says: &str| {
        let reply = daemon.ask(line);
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(reply["error"]["code"] == code && message.contains(says), "{line}: {reply}");
    };
    refused(r#"{"op":"rotate","lot_id":"none"}"#, "invalid_request", "there is no lots/none.jsonl");
    refused(r#"{"op":"rotate"}"#, "invalid_request", "either a lot_id or");
    refused(r#"{"op":"rotate","lot_id":"A","all":true}"#, "invalid_request", "either a lot_id or");
    refused(r#"{"op":"rotate","lot_id":true}"#, "invalid_request", "lot_id");
    refused(r#"{"op":"rotate","lot_id":""}"#, "invalid_lot_id", "empty");
    refused(r#"{"op":"rotate","all":true,"items":[]}"#, "invalid_request", "`items`");
    refused(r#"{"op":"reload","all":true}"#, "invalid_request", "`all`");
    refused(r#"{"items":[],"lot_id":"A"}"#, "invalid_request", "`lot_id` is not known at the top level");
    assert_eq!(
        daemon.ask(r#"{"op":"rotate","all":true}"#),
        serde_json::json!({"ok": true, "lsn": 0, "rotated": 0})
    );
    assert!(!place.data().join("archive").exists());
    let output = ask(&place.socket(), &["rotate", "none"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    // The archive's place is taken: the lot stays where it is, and goes on.
    assert_eq!(daemon.ask(log_batch("A", 1))["ok"], true);
    fs::write(place.data().join("archive"), "").unwrap();
    refused(r#"{"op":"rotate","lot_id":"A"}"#, "lot_unavailable", "archive");
    // Of all lots only some may be moved: for a script that is no success.
    let output = ask(&place.socket(), &["rotate", "--all"]);
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 more could not be rotated"), "{output:?}");
    assert_eq!(daemon.ask(log_batch("A", 2))["ok"], true);
    assert_eq!(daemon.lot("A").len(), 2);
}

#[test]
fn a_file_that_has_grown_to_the_size_is_rotated_by_itself() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &["--rotate-bytes", "1KiB"]);
    let mut sent = 0;
    until("three files are archived", || {
        sent += 1;
        assert_eq!(daemon.ask(log_batch("A", sent))["ok"], true);
        (archived(&place.data(), "A").len() >= 3).then_some(())
    });
    let lines = lot_files(&place.data())["A"].iter().filter(|b| **b == b'\n').count();
    assert_eq!(lines as u64, sent);
    for name in archived(&place.data(), "A") {
        let path = place.data().join("archive/lot=A").join(name);
        assert!(fs::metadata(&path).unwrap().len() >= 1024, "{}", path.display());
    }
}

#[test]
fn beside_kills_and_rotations_every_reader_finds_each_record_once() {
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let rounds = number("LOTLOG_ROUNDS", 25);
    let place = Place::new();
    let flags = [
        "--segment-bytes",
        "1MiB",
        "--checkpoint-interval-seconds",
        "100ms",
        "--rotate-bytes",
        "30KB",
        "--archive-compress",
        "1",
    ];
    let mut daemon = Daemon::start_in(&place, &flags);
    let stop = Stop::default();
    let load = Load { lots: 5, pause: Duration::from_millis(2), synced_percent: 50, ..Load::default() };
    let producers = farm(&place.socket(), "p", 4, seed, &load, &stop);
    let watcher = Watcher::start(place.data());
    let mut random = Random(seed);
    for round in 0..rounds {
        until("the daemon serves", || crate::common::Connection::try_open(&place.socket()));
        std::thread::sleep(Duration::from_millis(random.below(40)));
        let all = random.chance(50);
        let lot = format!("lot-{}", random.below(5));
        let mut order = lotlog(&["rotate", "--socket", place.socket().to_str().unwrap()]);
        order.arg(if all { "--all" } else { lot.as_str() });
        let mut order =
            order.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(random.below(30_000)));
            daemon.kill();
            daemon = Daemon::launch(&place, place.command(&flags));
        }
        order.wait().unwrap();
        if round % 5 == 0 {
            // `cat` reads both places while files move between them: whole records, each once.
            let output =
                lotlog(&["cat", &lot, "--data-dir", place.data().to_str().unwrap()]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let mut names: Vec<&str> = text.lines().map(|l| l.split("\",").next().unwrap()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "a record stands twice");
        }
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good(), "{report:#?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let sent = entries(&ledgers);
    let gone = watcher.vanished(&place.data());
    let lots = lot_files(&place.data());
    let verdict = Verdict { vanished: gone, ..judge(&lots, &sent, &record, After::Death) };
    assert_eq!(verdict, Verdict::default());
    // One that was being compressed at the end may stand there twice, or not be finished.
    let numbers = |n| {
        let mut names = archived(&place.data(), &format!("lot-{n}"));
        names.iter_mut().for_each(|name| name.truncate(20));
        names.dedup();
        names.len()
    };
    let files: usize = (0..5).map(numbers).sum();
    println!("{rounds} rounds, {files} archived files, {} batches", sent.len());
    assert!(files as u64 > rounds / 4, "only {files} files were archived");
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.batches == sent.len() as u64, "{report:#?}");
    assert_eq!(report.archived, files as u64);
    // As one command shows them.
    for (stem, bytes) in &lots {
        let told = lotlog(&["cat", stem, "--data-dir", place.data().to_str().unwrap()]).output().unwrap();
        assert!(&told.stdout == bytes, "{stem}");
        let told = lotlog(&["tail", "-n", "1000000", stem, "--data-dir", place.data().to_str().unwrap()]);
        assert!(&{ told }.output().unwrap().stdout == bytes, "{stem}");
    }
}

#[test]
fn tail_and_lots_see_what_is_archived() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    let data = place.data();
    let data = data.to_str().unwrap();
    for n in 1..=9 {
        assert_eq!(daemon.ask(log_batch("A", n))["ok"], true);
        if n % 3 == 0 && n < 9 {
            assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
        }
    }
    assert_eq!(daemon.ask(log_batch("B", 1))["ok"], true);
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"B"}"#)["rotated"], 1);
    let all = good(&lotlog(&["cat", "A", "--data-dir", data]).output().unwrap());
    assert_eq!(all.lines().count(), 9);
    for count in [0, 1, 3, 4, 6, 7, 9, 12] {
        let told =
            good(&lotlog(&["tail", "-n", &count.to_string(), "A", "--data-dir", data]).output().unwrap());
        let expected: String = all.split_inclusive('\n').skip(9usize.saturating_sub(count)).collect();
        assert_eq!(told, expected, "-n {count}");
    }
    let page = good(&lotlog(&["lots", "--json", "--data-dir", data]).output().unwrap());
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let rows: Vec<(&str, u64, u64)> = page["lots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            (l["lot"].as_str().unwrap(), l["records"].as_u64().unwrap(), l["archived"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(rows, [("A", 9, 2), ("B", 1, 1)]);
}

#[test]
fn an_archived_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(log_batch("A", 1))["ok"], true);
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
    let path = place.data().join("archive/lot=A/00000000000000000001.jsonl");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for command in ["cat", "tail"] {
        let output = ask(&place.socket(), &[command, "A"]);
        assert_eq!(output.status.code(), Some(74), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(path.to_str().unwrap()), "{command}: {said}");
    }
}

#[test]
fn verify_finds_what_is_wrong_in_the_archive() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    for n in 1..=4 {
        assert_eq!(daemon.ask(log_batch("A", n))["ok"], true);
        if n < 4 {
            assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
        }
    }
    assert_eq!(daemon.terminate(), Some(0));
    let dir = place.data().join("archive/lot=A");
    let file = |n: u64| dir.join(format!("{n:020}.jsonl"));
    let kinds = |dir: &Path| {
        let report = verify(dir).unwrap();
        let all = report.findings.iter().chain(&report.notes);
        all.map(|f| format!("{} {}", f.kind, f.file)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&place.data()), Vec::<String>::new());
    // A copy under a second name.
    fs::copy(file(2), file(9)).unwrap();
    assert_eq!(
        kinds(&place.data()),
        ["doubled archive/lot=A/00000000000000000009.jsonl", "doubled lots/A.jsonl"].map(String::from)[..1]
    );
    fs::remove_file(file(9)).unwrap();
    // Two names exchanged.
    fs::rename(file(1), dir.join("x")).unwrap();
    fs::rename(file(3), file(1)).unwrap();
    fs::rename(dir.join("x"), file(3)).unwrap();
    assert!(kinds(&place.data()).iter().any(|k| k.starts_with("out_of_order archive/lot=A/")));
    fs::rename(file(3), dir.join("x")).unwrap();
    fs::rename(file(1), file(3)).unwrap();
    fs::rename(dir.join("x"), file(1)).unwrap();
    assert_eq!(kinds(&place.data()), Vec::<String>::new());
    // Cut short, emptied, of another lot, and strangers.
    let whole = fs::read(file(2)).unwrap();
    fs::write(file(2), &whole[..whole.len() - 5]).unwrap();
    assert_eq!(kinds(&place.data())[0], "torn_tail archive/lot=A/00000000000000000002.jsonl");
    fs::write(file(2), &whole).unwrap();
    fs::create_dir(place.data().join("archive/lot=B")).unwrap();
    fs::set_permissions(place.data().join("archive/lot=B"), PermissionsExt::from_mode(0o750)).unwrap();
    fs::rename(file(2), place.data().join("archive/lot=B/00000000000000000002.jsonl")).unwrap();
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    fs::write(place.data().join("archive/stray"), "").unwrap();
    assert_eq!(
        kinds(&place.data()),
        [
            "wrong_lot archive/lot=B/00000000000000000002.jsonl",
            "unknown_file archive/lot=A/notes.txt",
            "unknown_file archive/stray",
        ]
    );
}

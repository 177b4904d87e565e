//! Sealing: a lot is closed for good, its footer says what it has, and `verify` holds it to that.

use std::fs;
use std::time::Duration;

use lotlog::seal::Footer;
use lotlog::verify::verify;
use serde_json::json;

use crate::common::judge::{After, Verdict, judge};
use crate::common::producer::{Load, Random, Stop, entries, farm, lot_files, number, record};
use crate::common::{Connection, Daemon, Place, until};
use crate::{ask, good, log_batch, lotlog};

fn footer(place: &Place, lot: &str) -> Option<Footer> {
    let text = fs::read(place.lot_path(&format!("{lot}.sealed"))).ok()?;
    Some(serde_json::from_slice(&text).expect("a footer is whole as soon as it has its name"))
}

#[test]
fn a_sealed_lot_refuses_batches_over_restarts_and_its_footer_counts_both_places() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    for n in 1..=5 {
        assert_eq!(daemon.ask(log_batch("A", n))["ok"], true);
        if n == 2 {
            assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
        }
    }
    assert_eq!(daemon.ask(log_batch("B", 1))["ok"], true);
    let whole = lot_files(&place.data())["A"].clone();
    let said = good(&ask(&place.socket(), &["seal", "A"]));
    assert!(said.contains("sealed lot `A` with 5 records"), "{said}");
    let footer = footer(&place, "A").unwrap();
    assert_eq!((footer.lot.as_str(), footer.records, footer.bytes), ("A", 5, whole.len() as u64));
    assert_eq!(footer.xxh3_128, format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&whole)));
    let names: Vec<&str> = footer.files.iter().map(|part| part.file.as_str()).collect();
    assert_eq!(names, ["archive/lot=A/00000000000000000001.jsonl", "lots/A.jsonl"]);
    let stamps: Vec<String> = whole
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .map(|record| record["timestamp"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((footer.first, footer.last), (stamps.first().cloned(), stamps.last().cloned()));
    let mut daemon = daemon;
    for restart in [false, true, true] {
        if restart {
            daemon.kill();
            daemon = Daemon::start_in(&place, &[]);
        }
        let reply = daemon.ask(log_batch("A", 6));
        assert_eq!(
            (&reply["error"]["code"], &reply["error"]["retryable"]),
            (&json!("lot_sealed"), &json!(false)),
            "{reply}"
        );
        // What it has is still known as such, and other lots go on.
        assert_eq!(daemon.ask(log_batch("A", 5))["duplicate"], true);
        assert_eq!(daemon.ask(log_batch("B", 1))["duplicate"], true);
    }
    let refused = |line: &str, code: &str, says: &str| {
        let reply = daemon.ask(line);
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(reply["error"]["code"] == code && message.contains(says), "{line}: {reply}");
    };
    refused(r#"{"op":"seal","lot_id":"A"}"#, "lot_sealed", "already");
    refused(r#"{"op":"rotate","lot_id":"A"}"#, "lot_sealed", "nothing was rotated");
    // Its file stays where the footer says; an order for all lots has not failed for that.
    assert_eq!(daemon.ask(log_batch("C", 1))["ok"], true);
    let reply = daemon.ask(r#"{"op":"rotate","all":true}"#);
    assert_eq!((&reply["rotated"], &reply["skipped"]), (&json!(2), &serde_json::Value::Null), "{reply}");
    assert_eq!(daemon.ask(log_batch("B", 2))["ok"], true);
    refused(r#"{"op":"seal","lot_id":"none"}"#, "invalid_request", "has no file");
    refused(r#"{"op":"seal"}"#, "invalid_request", "lot_id");
    refused(r#"{"op":"seal","all":true}"#, "invalid_request", "`all`");
    assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"B"}"#)["rotated"], 1);
    // A lot whose files are all in the archive.
    assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"B"}"#)["records"], 2);
    assert_eq!(daemon.ask(log_batch("B", 3))["error"]["code"], "lot_sealed");
    refused(r#"{"op":"rotate","lot_id":"B"}"#, "lot_sealed", "nothing was rotated");
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.notes.is_empty() && report.sealed == 2, "{report:#?}");
}

#[test]
fn verify_holds_a_sealed_lot_to_its_footer() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    for n in 1..=4 {
        assert_eq!(daemon.ask(log_batch("A", n))["ok"], true);
        if n == 2 {
            assert_eq!(daemon.ask(r#"{"op":"rotate","lot_id":"A"}"#)["rotated"], 1);
        }
    }
    assert_eq!(daemon.ask(r#"{"op":"seal","lot_id":"A"}"#)["records"], 4);
    assert_eq!(daemon.terminate(), Some(0));
    let kinds = || verify(&place.data()).unwrap().findings.iter().map(|f| f.kind).collect::<Vec<_>>();
    assert_eq!(kinds(), Vec::<&str>::new());
    let lot = place.lot_path("A.jsonl");
    let whole = fs::read_to_string(&lot).unwrap();
    // A value changed to another good one where it stands once: nothing but the footer can tell.
    fs::write(&lot, whole.replacen("xxx", "yyy", 1)).unwrap();
    assert_eq!(kinds(), ["seal_broken"]);
    fs::write(&lot, whole.split_inclusive('\n').next().unwrap()).unwrap();
    assert_eq!(kinds(), ["seal_broken"]);
    fs::write(&lot, &whole).unwrap();
    let archived = place.data().join("archive/lot=A/00000000000000000001.jsonl");
    fs::rename(&archived, place.path().join("away")).unwrap();
    assert_eq!(kinds(), ["seal_broken"]);
    fs::rename(place.path().join("away"), &archived).unwrap();
    assert_eq!(kinds(), Vec::<&str>::new());
    fs::write(place.lot_path("A.sealed"), "{").unwrap();
    assert_eq!(kinds(), ["seal_broken"]);
}

#[test]
fn killed_while_it_seals_a_lot_is_sealed_whole_or_takes_batches_as_before() {
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let (mut random, mut sealed) = (Random(seed), 0);
    let place = Place::new();
    let flags = ["--checkpoint-interval-seconds", "100ms"];
    let mut daemon = Daemon::start_in(&place, &flags);
    let stop = Stop::default();
    let load = Load { lots: 2, pause: Duration::from_millis(2), ..Load::default() };
    let producers = farm(&place.socket(), "p", 2, seed, &load, &stop);
    let rounds = number("LOTLOG_ROUNDS", 12);
    for round in 0..rounds {
        until("the daemon serves", || Connection::try_open(&place.socket()));
        let lot = format!("s{round}");
        let mut connection = daemon.connect();
        for n in 1..=3 {
            connection.send_line(log_batch(&lot, n));
        }
        let stored = (0..3).filter(|_| connection.reply()["ok"] == true).count();
        assert_eq!(stored, 3);
        let mut order = lotlog(&["seal", &lot, "--socket", place.socket().to_str().unwrap()]);
        order.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut order = order.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.below(25_000)));
        daemon.kill();
        let answered = order.wait().unwrap().success();
        daemon = Daemon::start_in(&place, &flags);
        let footer = footer(&place, &lot);
        assert!(footer.is_some() || !answered, "{lot}: sealed by word, but not on the disk");
        let reply = daemon.ask(log_batch(&lot, 4));
        match footer {
            Some(footer) => {
                sealed += 1;
                assert_eq!((footer.records, &reply["error"]["code"]), (3, &json!("lot_sealed")), "{reply}");
            }
            None => assert_eq!(reply["ok"], true, "{reply}"),
        }
        assert!(!place.lots().iter().any(|name| name.ends_with(".sealed.new")));
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    let mut lots = lot_files(&place.data());
    lots.retain(|stem, _| stem.starts_with("lot-"));
    assert_eq!(judge(&lots, &entries(&ledgers), &record, After::Death), Verdict::default());
    let report = verify(&place.data()).unwrap();
    assert!(report.is_good() && report.sealed == sealed, "{report:#?}");
    println!("{rounds} kills, {sealed} lots sealed");
}

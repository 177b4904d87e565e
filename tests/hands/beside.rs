//! `lotlog verify` beside a running daemon, under load, with checkpoints, segments and rotations: no false alarm.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lotlog::verify::verify;
use rustix::process::Signal;

use crate::common::judge::{After, Verdict, judge};
use crate::common::producer::{Load, Random, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};

#[test]
fn verify_gives_no_false_alarm_under_load_with_rotations_and_rotation_loses_nothing() {
    let rounds = number("LOTLOG_ROUNDS", 50);
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let place = Place::new();
    let flags = ["--segment-bytes", "1MiB", "--checkpoint-interval-seconds", "300ms"];
    let mut daemon = Daemon::start_in(&place, &flags);
    let archive = place.data().join("logrotate");
    fs::create_dir(&archive).unwrap();
    let (stop, done) = (Stop::default(), Arc::new(AtomicBool::new(false)));
    let load = Load { lots: 6, pause: Duration::from_millis(3), ..Load::default() };
    let producers = farm(&place.socket(), "p", 3, seed, &load, &stop);
    until("there are lots", || (place.lots().len() == 6).then_some(()));
    let (ended, looked) = (done.clone(), place.data());
    let looker = std::thread::spawn(move || {
        for round in 0..rounds {
            let report = verify(&looked).unwrap();
            assert!(report.daemon_running);
            // A rotation in flight is a name that is gone; numbers in a rotated file are a gap.
            let expected = report.notes.iter().all(|n| ["gap", "name_gone"].contains(&n.kind));
            assert!(report.is_good() && expected, "{round}: {report:#?}");
        }
        ended.store(true, Ordering::SeqCst);
    });
    let (mut random, mut rotated) = (Random(seed), BTreeMap::<String, Vec<u8>>::new());
    let mut moves: Vec<(String, std::path::PathBuf)> = Vec::new();
    while !done.load(Ordering::SeqCst) && !looker.is_finished() {
        let stem = format!("lot-{}", random.below(6));
        let to = archive.join(format!("{stem}.{}", moves.len()));
        // No file yet since the last rotation: another time.
        if fs::rename(place.lot_path(&format!("{stem}.jsonl")), &to).is_ok() {
            moves.push((stem, to));
        }
        std::thread::sleep(Duration::from_millis(random.below(20)));
        daemon.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(random.below(60)));
    }
    looker.join().expect("no false alarm");
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    for (stem, path) in &moves {
        rotated.entry(stem.clone()).or_default().extend(fs::read(path).unwrap());
    }
    for (stem, bytes) in lot_files(&place.data()) {
        rotated.entry(stem).or_default().extend(bytes);
    }
    let verdict = judge(&rotated, &entries(&ledgers), &record, After::Death);
    assert_eq!(verdict, Verdict::default());
    println!("{rounds} verifications, {} rotations, {} batches", moves.len(), entries(&ledgers).len());
}

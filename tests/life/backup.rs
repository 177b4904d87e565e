//! A copy of DATA that is made while the daemon is held still, under load: what the README tells the operator to do.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Daemon, PATIENCE, ask};

const PRODUCERS: usize = 3;
const COPIES: usize = 4;

/// What one producer has sent and what was acknowledged, as numbers of batches.
#[derive(Default)]
struct Ledger {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

fn produce(stream: &UnixStream, lot: usize, ledger: &Ledger, stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        let seq = ledger.sent.fetch_add(1, SeqCst) + 1;
        let ack = if seq.is_multiple_of(2) { "written" } else { "synced" };
        let batch = format!(
            r#"{{"session":"p{lot}","seq":{seq},"ack":"{ack}","context":{{"lot_id":"L{lot}"}},"items":[{{"sku_local":"{seq}","pad":"{:0>3000}"}}]}}"#,
            seq
        );
        let reply = ask(stream, &batch);
        assert_eq!(reply["ok"], true, "{reply}");
        ledger.acknowledged.store(seq, SeqCst);
    }
}

/// Stops every thread of the process, and waits until each has.
fn hold_still(daemon: &Daemon) {
    daemon.signal(Signal::STOP);
    let tasks = format!("/proc/{}/task", daemon.child.id());
    let is_still = || {
        std::fs::read_dir(&tasks).unwrap().all(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:\tT"))
        })
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_still() {
        assert!(Instant::now() < deadline, "the daemon is not held");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ran(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The numbers of the batches in a lot file, in its order.
fn batches(data: &Path, lot: usize) -> Vec<u64> {
    let text = std::fs::read_to_string(data.join(format!("lots/L{lot}.jsonl"))).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(|text| line(text)["sku_local"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_copy_made_while_the_daemon_is_held_still_is_whole_and_starts() {
    let home = tempfile::tempdir().unwrap();
    // Small segments and frequent checkpoints: the copies meet the journal in all its states.
    let daemon =
        Daemon::start(home.path(), &["--segment-bytes", "256KiB", "--checkpoint-interval-seconds", "50ms"]);
    let ledgers: Arc<Vec<Ledger>> = Arc::new((0..PRODUCERS).map(|_| Ledger::default()).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|lot| {
            let (stream, ledgers, stop) = (daemon.connect(), ledgers.clone(), stop.clone());
            std::thread::spawn(move || produce(&stream, lot, &ledgers[lot], &stop))
        })
        .collect();
    let mut copies = Vec::new();
    for copy in 0..COPIES {
        let before: Vec<u64> = ledgers.iter().map(|l| l.acknowledged.load(SeqCst)).collect();
        let deadline = Instant::now() + PATIENCE;
        // Each copy is of something new.
        while ledgers.iter().zip(&before).any(|(l, before)| l.acknowledged.load(SeqCst) < before + 60) {
            assert!(Instant::now() < deadline, "nothing is acknowledged any more");
            std::thread::sleep(Duration::from_millis(5));
        }
        let place = home.path().join(format!("copy{copy}"));
        hold_still(&daemon);
        let acknowledged: Vec<u64> = ledgers.iter().map(|l| l.acknowledged.load(SeqCst)).collect();
        let (copied, said) = ran(Command::new("cp").arg("-a").arg(home.path().join("data")).arg(&place));
        let sent: Vec<u64> = ledgers.iter().map(|l| l.sent.load(SeqCst)).collect();
        daemon.signal(Signal::CONT);
        assert!(copied, "{said}");
        copies.push((place, acknowledged, sent));
    }
    stop.store(true, SeqCst);
    for producer in producers {
        producer.join().unwrap();
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().0, 0);
    for (place, acknowledged, sent) in copies {
        let (good, said) = ran(Command::new(env!("CARGO_BIN_EXE_lotlog")).arg("verify").arg(&place));
        assert!(good, "{said}");
        let socket = home.path().join("restored");
        let mut command = crate::lotlogd(home.path());
        command.arg("--data-dir").arg(&place).arg("--socket").arg(&socket);
        let restored = Daemon { child: command.spawn().unwrap(), socket };
        assert_eq!(ask(&restored.connect(), r#"{"op":"sync"}"#)["ok"], true);
        for lot in 0..PRODUCERS {
            let found = batches(&place, lot);
            let wanted: Vec<u64> = (1..=found.len() as u64).collect();
            assert_eq!(found, wanted, "each once and in order");
            let range = acknowledged[lot]..=sent[lot];
            assert!(range.contains(&(found.len() as u64)), "{} of lot {lot}, not in {range:?}", found.len());
        }
        restored.signal(Signal::TERM);
        assert_eq!(restored.wait().0, 0);
        let set_aside = std::fs::read_dir(place.join("quarantine")).unwrap().count();
        assert_eq!(set_aside, 0, "nothing of it is in the way");
    }
}

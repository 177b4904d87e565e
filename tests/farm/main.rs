//! Farms: many producers with ledgers against the real daemon, which is killed, drained and held up; then the
//! judge reads only the lot files. `LOTLOG_SEED` repeats a run, `LOTLOG_ROUNDS` sets the number of kills.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod slow;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lotlog::session::{Session, SessionOptions};
use lotlog::verify::verify;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon on a directory of its own; killed when dropped.
struct Daemon {
    child: Child,
    home: PathBuf,
}

impl Daemon {
    fn start(home: &Path) -> Daemon {
        let busy =
            ["--segment-bytes", "256KiB", "--checkpoint-interval-seconds", "150ms", "--max-open-lots", "6"];
        Daemon::start_with(home, &busy)
    }

    fn start_with(home: &Path, options: &[&str]) -> Daemon {
        let child = Command::new(env!("CARGO_BIN_EXE_lotlogd"))
            .arg("--data-dir")
            .arg(home.join("data"))
            .arg("--socket")
            .arg(home.join("s"))
            .args(options)
            .args(["--sync-interval-seconds", "100ms", "-q"])
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Daemon { child, home: home.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.home.join("s")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the daemon did not end in {PATIENCE:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// splitmix64, Steele et al. 2014
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What one producer was told: the acknowledged batches, by their place in its run.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<u64>,
    sent: u64,
}

fn request(producer: u64, batch: u64, seed: &mut u64) -> String {
    let items = 1 + random(seed) % 6;
    let pad = "x".repeat((random(seed) % 400) as usize);
    let items: Vec<String> = (0..items)
        .map(|item| {
            format!(
                r#"{{"sku_local":"{producer}/{batch}/{item}","of":{items},"est_price_mu":1.5,"pad":"{pad}"}}"#
            )
        })
        .collect();
    let ack = if batch.is_multiple_of(3) { "written" } else { "synced" };
    let lot = random(seed) % 10;
    format!(
        r#"{{"ack":"{ack}","context":{{"lot_id":"lot {lot}","opt_source":"farm"}},"items":[{}]}}"#,
        items.join(",")
    )
}

/// One producer: sends until told to stop, then until all is answered.
fn produce(socket: PathBuf, producer: u64, seed: u64, stop: Arc<AtomicBool>) -> Ledger {
    let mut seed = seed.wrapping_add(producer);
    let options = SessionOptions { timeout: PATIENCE, max_unsettled_batches: 8, ..SessionOptions::default() };
    let mut session = Session::open(&socket, &format!("p{producer}"), options).unwrap();
    let mut ledger = Ledger::default();
    let settle = |session: &mut Session, ledger: &mut Ledger| match session.next_settled().unwrap() {
        None => false,
        Some(settled) => {
            assert!(settled.result.is_ok(), "{:?}", settled.result);
            ledger.acknowledged.push(settled.batch);
            true
        }
    };
    while !stop.load(Ordering::SeqCst) {
        while session.is_full() {
            settle(&mut session, &mut ledger);
        }
        let batch = session.submit(&request(producer, ledger.sent, &mut seed)).unwrap();
        assert_eq!(batch, ledger.sent);
        ledger.sent += 1;
    }
    while settle(&mut session, &mut ledger) {}
    ledger
}

fn lots(home: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(home.join("data/lots")) else { return BTreeMap::new() };
    let files = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
    files.filter_map(|p| Some((p.file_name()?.to_str()?.to_owned(), std::fs::read(&p).ok()?))).collect()
}

/// Judges the lot files against the ledgers: each acknowledged batch once, whole, contiguous and in order.
fn judge(home: &Path, ledgers: &[Ledger]) -> usize {
    let mut found: HashMap<(u64, u64), usize> = HashMap::new();
    for (name, bytes) in lots(home) {
        assert!(bytes.ends_with(b"\n"), "{name} is torn");
        let mut open: Option<(u64, u64, u64)> = None;
        let mut last: HashMap<u64, u64> = HashMap::new();
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let record: serde_json::Value =
                serde_json::from_slice(line).unwrap_or_else(|e| panic!("{name}: {e}"));
            let sku = record["sku_local"].as_str().unwrap();
            let parts: Vec<u64> = sku.split('/').map(|p| p.parse().unwrap()).collect();
            let (producer, batch, item) = (parts[0], parts[1], parts[2]);
            match open {
                Some(expected) => {
                    assert_eq!((producer, batch, item), expected, "{name}: interleaved or partial")
                }
                None => assert_eq!(item, 0, "{name}: {sku} begins in its middle"),
            }
            if item == 0 {
                assert!(
                    last.insert(producer, batch).is_none_or(|b| b < batch),
                    "{name}: {sku} is out of order"
                );
            }
            let of = record["of"].as_u64().unwrap();
            open = (item + 1 < of).then_some((producer, batch, item + 1));
            if open.is_none() {
                *found.entry((producer, batch)).or_default() += 1;
            }
        }
        assert_eq!(open, None, "{name}: its last batch is partial");
    }
    for (batch, times) in &found {
        assert_eq!(*times, 1, "{batch:?} is doubled");
    }
    for (producer, ledger) in ledgers.iter().enumerate() {
        for batch in &ledger.acknowledged {
            assert!(
                found.contains_key(&(producer as u64, *batch)),
                "producer {producer}, batch {batch} is lost"
            );
        }
    }
    found.len()
}

/// Reads the lots again and again: whole lines that a reader has seen must never disappear.
fn watch(home: PathBuf, stop: Arc<AtomicBool>) -> u64 {
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut looks = 0;
    while !stop.load(Ordering::SeqCst) {
        let now = lots(&home);
        for (name, before) in &seen {
            let present = now.get(name).is_some_and(|bytes| bytes.starts_with(before));
            assert!(present, "something of {name} that was visible has vanished");
        }
        for (name, mut bytes) in now {
            let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            bytes.truncate(end);
            seen.insert(name, bytes);
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(15));
    }
    looks
}

#[test]
fn killed_again_and_again_under_eight_producers_nothing_is_lost_or_doubled() {
    let mut seed = number("LOTLOG_SEED", std::process::id().into());
    println!("LOTLOG_SEED={seed}");
    let home = tempfile::tempdir().unwrap();
    let (stop, unwatch) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut daemon = Daemon::start(home.path());
    wait_for_socket(&daemon);
    let producers: Vec<_> = (0..8)
        .map(|producer| {
            let (socket, stop, seed) = (daemon.socket(), stop.clone(), seed);
            std::thread::spawn(move || produce(socket, producer, seed, stop))
        })
        .collect();
    let watcher = {
        let (home, unwatch) = (home.path().to_owned(), unwatch.clone());
        std::thread::spawn(move || watch(home, unwatch))
    };
    for _ in 0..number("LOTLOG_ROUNDS", 12) {
        std::thread::sleep(Duration::from_millis(20 + random(&mut seed) % 400));
        daemon.signal(rustix::process::Signal::KILL);
        daemon.child.wait().unwrap();
        daemon = Daemon::start(home.path());
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    let ledgers: Vec<Ledger> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    for ledger in &ledgers {
        let all: Vec<u64> = (0..ledger.sent).collect();
        assert_eq!(ledger.acknowledged, all, "every batch was answered, in order");
    }
    let while_running = verify(&home.path().join("data")).unwrap();
    assert!(while_running.is_good() && while_running.daemon_running, "{while_running:?}");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    unwatch.store(true, Ordering::SeqCst);
    assert!(watcher.join().unwrap() > 0);
    let found = judge(home.path(), &ledgers);
    assert_eq!(found as u64, ledgers.iter().map(|l| l.sent).sum::<u64>());
    assert!(found > 100, "only {found} batches");
    let report = verify(&home.path().join("data")).unwrap();
    assert!(report.is_good() && report.quarantined == 0, "{report:?}");
    assert_eq!(report.batches, found as u64);
}

fn wait_for_socket(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(daemon.socket()).is_err() {
        assert!(Instant::now() < deadline, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn drained_under_load_it_exits_0_and_all_it_took_is_there_once() {
    let home = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut daemon = Daemon::start(home.path());
    wait_for_socket(&daemon);
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (socket, stop) = (daemon.socket(), stop.clone());
            std::thread::spawn(move || produce(socket, producer, 7, stop))
        })
        .collect();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        daemon.signal(rustix::process::Signal::TERM);
        assert_eq!(daemon.wait(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(!daemon.socket().exists(), "the socket file is removed");
        daemon = Daemon::start(home.path());
    }
    stop.store(true, Ordering::SeqCst);
    let ledgers: Vec<Ledger> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    judge(home.path(), &ledgers);
}

#[test]
fn verify_finds_each_kind_of_planted_damage_and_names_the_place() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut daemon = Daemon::start(home.path());
    wait_for_socket(&daemon);
    let mut session = Session::open(&daemon.socket(), "v", SessionOptions::default()).unwrap();
    for batch in 0..5 {
        let item = format!(r#"{{"sku_local":"a{batch}"}},{{"sku_local":"b{batch}"}}"#);
        session.submit(&format!(r#"{{"context":{{"lot_id":"V"}},"items":[{item}]}}"#)).unwrap();
    }
    while session.next_settled().unwrap().is_some() {}
    let lot = data.join("lots/V.jsonl");
    let good = std::fs::read(&lot).unwrap();
    let lines: Vec<&[u8]> = good.split_inclusive(|b| *b == b'\n').collect();
    assert!(verify(&data).unwrap().is_good());
    // While the journal still has the batches a changed byte differs from it.
    let mut changed = good.clone();
    let at = changed.iter().position(|b| *b == b'a').unwrap();
    changed[at] = b'A';
    std::fs::write(&lot, &changed).unwrap();
    let kinds: Vec<_> = verify(&data).unwrap().findings.into_iter().map(|f| (f.kind, f.offset)).collect();
    assert_eq!(kinds, [("differs_from_journal", at as u64)]);
    std::fs::write(&lot, &good).unwrap();
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(verify(&data).unwrap().is_good());

    let check = |content: Vec<u8>, kind: &str, line: u64| {
        std::fs::write(&lot, &content).unwrap();
        let report = verify(&data).unwrap();
        let found = report.findings.first().unwrap_or_else(|| panic!("{kind} was not found"));
        assert_eq!((found.kind, found.line), (kind, Some(line)), "{report:?}");
        let before: usize =
            content.split_inclusive(|b| *b == b'\n').take(line as usize - 1).map(<[u8]>::len).sum();
        assert_eq!(found.offset, before as u64);
        assert_eq!(found.file, "lots/V.jsonl");
    };
    let cut = &lines[3][..lines[3].len() / 2];
    check([&lines[..3].concat(), cut, b"\n", &lines[4..].concat()].concat(), "not_json", 4);
    check([good.as_slice(), cut].concat(), "torn_tail", 11);
    let mut nul = good.clone();
    nul[lines[0].len() + 10..lines[0].len() + 20].fill(0);
    check(nul, "nul", 2);
    check([good.as_slice(), &lines[..2].concat()].concat(), "split_batch", 11);
    check([lines[0], lines[2], lines[1], &lines[3..].concat()].concat(), "split_batch", 3);
    let again = String::from_utf8(lines[..2].concat()).unwrap().replace("+00:00", "+00:01");
    check([good.as_slice(), again.as_bytes()].concat(), "doubled", 11);
}

#[test]
fn a_damaged_journal_is_found_and_the_daemon_does_not_start_on_it() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut daemon = Daemon::start_with(home.path(), &[]);
    wait_for_socket(&daemon);
    let mut session = Session::open(&daemon.socket(), "v", SessionOptions::default()).unwrap();
    for batch in 0..5 {
        let item = format!(r#"{{"sku_local":"item of batch {batch}"}}"#);
        session.submit(&format!(r#"{{"context":{{"lot_id":"V"}},"items":[{item}]}}"#)).unwrap();
        session.next_settled().unwrap();
    }
    daemon.signal(rustix::process::Signal::KILL);
    daemon.child.wait().unwrap();
    assert!(verify(&data).unwrap().is_good());
    let segment = data.join("journal/0000000000000001.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(15).position(|w| w == b"item of batch 1").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let report = verify(&data).unwrap();
    assert_eq!(report.findings[0].kind, "journal_damaged", "{report:?}");
    assert!(
        report.findings[0].offset < at as u64 && report.findings[0].file.ends_with("0000000000000001.wal")
    );
    let mut refused = Daemon::start_with(home.path(), &[]);
    assert_eq!(refused.wait(), Some(65));
}

//! Farms: many producers held up by a disk that stands still, and `verify` on what a daemon left, damaged.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod slow;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

fn wait_for_socket(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(daemon.socket()).is_err() {
        assert!(Instant::now() < deadline, "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
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

//! The daemon's life as an operator sees it: configuration, `--check`, signals, exit codes, systemd.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod backup;
mod ownlog;
mod settings;
mod systemd;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon's command, with nothing of this environment that would configure it.
pub(crate) fn lotlogd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lotlogd"));
    for name in [
        "LOTLOG_SOCKET",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "JOURNAL_STREAM",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
}

impl Daemon {
    pub(crate) fn start(home: &Path, options: &[&str]) -> Daemon {
        let mut command = lotlogd(home);
        command.arg("--data-dir").arg(home.join("data")).arg("--socket").arg(home.join("s")).args(options);
        Daemon { child: command.spawn().unwrap(), socket: home.join("s") }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "nobody listens: {error}"),
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The exit code and what was said on stderr.
    pub(crate) fn wait(mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(3));
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a line, gives the reply.
pub(crate) fn ask(stream: &UnixStream, line: &str) -> serde_json::Value {
    let mut writing = stream;
    writing.write_all(line.as_bytes()).unwrap();
    writing.write_all(b"\n").unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    serde_json::from_str(&reply).unwrap_or_else(|e| panic!("{reply:?}: {e}"))
}

fn text(output: &Output) -> (i32, String) {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
}

#[test]
fn it_starts_on_defaults_and_says_where_and_how_to_log_a_batch() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let mut command = lotlogd(home.path());
    let child = command.env("XDG_RUNTIME_DIR", &run).spawn().unwrap();
    let daemon = Daemon { child, socket: run.join("lotlog.sock") };
    assert_eq!(ask(&daemon.connect(), r#"{"items":[{}],"context":{"lot_id":"L"}}"#)["ok"], true);
    assert!(home.path().join(".local/state/lotlog/lots/L.jsonl").is_file());
    daemon.signal(Signal::INT);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("listening on") && said.contains("writing to") && said.contains("send --socket"),
        "{said}"
    );
    // The line to paste is a shell line that works, with the companion that was built beside the daemon.
    let line = said.lines().find_map(|l| l.split("try: ").nth(1)).unwrap().to_owned();
    let daemon = {
        let child = lotlogd(home.path()).env("XDG_RUNTIME_DIR", &run).spawn().unwrap();
        Daemon { child, socket: run.join("lotlog.sock") }
    };
    drop(daemon.connect());
    let pasted = Command::new("sh").arg("-c").arg(&line).output().unwrap();
    assert_eq!(text(&pasted).0, 0, "{line}: {}", text(&pasted).1);
    assert!(home.path().join(".local/state/lotlog/lots/DEMO.jsonl").is_file());
}

#[test]
fn the_client_finds_the_daemon_by_the_same_rule() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let child = lotlogd(home.path()).env("XDG_RUNTIME_DIR", &run).spawn().unwrap();
    let daemon = Daemon { child, socket: run.join("lotlog.sock") };
    drop(daemon.connect());
    let status = Command::new(env!("CARGO_BIN_EXE_lotlog"))
        .args(["status", "--json"])
        .env_remove("LOTLOG_SOCKET")
        .env("XDG_RUNTIME_DIR", &run)
        .output()
        .unwrap();
    let page: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(page["pid"], daemon.child.id());
}

#[test]
fn a_second_daemon_is_told_who_holds_the_data_and_the_socket() {
    let home = tempfile::tempdir().unwrap();
    let first = Daemon::start(home.path(), &[]);
    drop(first.connect());
    let (code, said) = Daemon::start(home.path(), &[]).wait();
    assert_eq!(code, 73);
    assert!(said.contains(&format!("pid {}", first.child.id())), "{said}");
    let other = lotlogd(home.path())
        .arg("--data-dir")
        .arg(home.path().join("other"))
        .arg("--socket")
        .arg(&first.socket)
        .output()
        .unwrap();
    assert_eq!(text(&other).0, 73, "{}", text(&other).1);
    assert_eq!(ask(&first.connect(), r#"{"op":"sync"}"#)["ok"], true, "the first one is not disturbed");
}

#[test]
fn a_stale_socket_is_replaced_and_what_is_no_socket_is_never_removed() {
    let home = tempfile::tempdir().unwrap();
    let first = Daemon::start(home.path(), &[]);
    drop(first.connect());
    first.signal(Signal::KILL);
    first.wait();
    assert!(home.path().join("s").exists(), "the dead daemon's socket file is still there");
    let second = Daemon::start(home.path(), &[]);
    assert_eq!(ask(&second.connect(), r#"{"op":"status"}"#)["ok"], true);
    second.signal(Signal::TERM);
    assert_eq!(second.wait().0, 0);
    for (name, make) in [("file", true), ("folder", false)] {
        let path = home.path().join(name);
        if make {
            std::fs::write(&path, "keep me").unwrap()
        } else {
            std::fs::create_dir(&path).unwrap()
        }
        let output = lotlogd(home.path())
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .arg("--socket")
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(text(&output).0, 78, "{}", text(&output).1);
        assert!(path.exists());
    }
}

#[test]
fn a_second_signal_ends_the_waiting() {
    // A producer that does not read its replies holds up the drain.
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--drain-timeout-seconds", "1h"]);
    let stream = daemon.connect();
    stream.set_nonblocking(true).unwrap();
    let line = b"{\"op\":\"status\"}\n".repeat(100);
    let deadline = Instant::now() + Duration::from_millis(700);
    while Instant::now() < deadline {
        let _ = (&stream).write(&line);
    }
    daemon.signal(Signal::TERM);
    let begun = Instant::now();
    while UnixStream::connect(&daemon.socket).is_ok() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(3));
    }
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 75, "{said}");
}

#[test]
fn a_drain_beyond_its_deadline_ends_with_75() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--drain-timeout-seconds", "200ms"]);
    let stream = daemon.connect();
    stream.set_nonblocking(true).unwrap();
    let line = b"{\"op\":\"status\"}\n".repeat(100);
    let deadline = Instant::now() + Duration::from_millis(700);
    while Instant::now() < deadline {
        let _ = (&stream).write(&line);
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().0, 75);
}

#[test]
fn sighup_reopens_lot_files_after_a_rename_and_rereads_the_log_level() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("lotlogd.toml");
    std::fs::write(&file, "log_level = \"warn\"\n").unwrap();
    let daemon = Daemon::start(home.path(), &["--config", file.to_str().unwrap()]);
    let stream = daemon.connect();
    let log = |seq: u64| {
        ask(
            &stream,
            &format!(
                r#"{{"session":"s","seq":{seq},"context":{{"lot_id":"L"}},"items":[{{"sku_local":"{seq}"}}]}}"#
            ),
        )
    };
    assert_eq!(log(1)["ok"], true);
    let lots = home.path().join("data/lots");
    std::fs::rename(lots.join("L.jsonl"), lots.join("L.old")).unwrap();
    assert_eq!(log(2)["ok"], true, "until the signal it goes on in the renamed file");
    std::fs::write(&file, "log_level = \"info\"\nmax_items = 7\n").unwrap();
    daemon.signal(Signal::HUP);
    let mut seq = 2;
    let deadline = Instant::now() + PATIENCE;
    while !lots.join("L.jsonl").exists() {
        seq += 1;
        assert_eq!(log(seq)["ok"], true);
        assert!(Instant::now() < deadline, "the file is not reopened");
    }
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0);
    assert!(said.contains("reopening") && said.contains("stopped"), "{said}");
    assert!(said.contains("a restart is needed for max_items"), "{said}");
    let count = |name: &str| std::fs::read_to_string(lots.join(name)).unwrap().lines().count() as u64;
    assert_eq!(count("L.old") + count("L.jsonl"), seq, "each batch is in one of the two");
}

#[test]
fn the_own_log_is_json_when_asked_and_holds_no_producers_data() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--log-format", "json", "-vv"]);
    let stream = daemon.connect();
    ask(&stream, r#"{"context":{"lot_id":"L"},"items":[{"sku_local":"SECRET-SKU"}]}"#);
    ask(&stream, r#"{"SECRET-KEY":1}"#);
    ask(&stream, r#"SECRET-NONSENSE"#);
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0);
    assert!(!said.contains("SECRET"), "{said}");
    assert!(said.lines().count() >= 2);
    for line in said.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
    }
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let script = format!(
        "ulimit -Sn 64; exec '{}' --data-dir '{}' --socket '{}'",
        env!("CARGO_BIN_EXE_lotlogd"),
        home.path().join("data").display(),
        home.path().join("s").display()
    );
    command.arg("-c").arg(script).env_remove("NOTIFY_SOCKET").stdout(Stdio::piped()).stderr(Stdio::piped());
    let daemon = Daemon { child: command.spawn().unwrap(), socket: home.path().join("s") };
    drop(daemon.connect());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().filter(|w| w.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "64");
}

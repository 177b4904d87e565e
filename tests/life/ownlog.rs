//! The daemon's own log: it never holds the daemon up, counts what it holds back, and fits journald.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Daemon, PATIENCE, ask, lotlogd};

/// The command of a daemon in `home`.
fn command(home: &Path) -> Command {
    let mut command = lotlogd(home);
    command.arg("--data-dir").arg(home.join("data")).arg("--socket").arg(home.join("s"));
    command
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_neither_acknowledgements_nor_the_end() {
    let home = tempfile::tempdir().unwrap();
    let (mut unread, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'.'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let child = command(home.path()).stderr(full).spawn().unwrap();
    let mut daemon = Daemon { child, socket: home.path().join("s") };
    assert_eq!(ask(&daemon.connect(), r#"{"items":[{}]}"#)["ok"], true);
    daemon.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while daemon.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it waits for the reader of its log");
        std::thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    assert_eq!(unread.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_stderr_that_is_gone_is_nothing_to_die_of() {
    let home = tempfile::tempdir().unwrap();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let child = command(home.path()).stderr(gone).spawn().unwrap();
    let mut daemon = Daemon { child, socket: home.path().join("s") };
    assert_eq!(ask(&daemon.connect(), r#"{"items":[{}]}"#)["ok"], true);
    daemon.signal(Signal::HUP);
    assert_eq!(ask(&daemon.connect(), r#"{"op":"sync"}"#)["ok"], true);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_of_the_help_may_stop_early() {
    let home = tempfile::tempdir().unwrap();
    for option in ["--help", "--print-config", "--check"] {
        let (reader, gone) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(home.path());
        let output = command.arg(option).stdout(Stdio::from(gone)).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{option}");
    }
}

#[test]
fn repeated_events_are_held_back_and_counted() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--log-format", "json"]);
    let stream = daemon.connect();
    for _ in 0..100 {
        daemon.signal(Signal::HUP);
        assert_eq!(ask(&stream, r#"{"op":"sync"}"#)["ok"], true);
        // Signals that meet become one; a few dozen of these do not.
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0, "{said}");
    let events: Vec<serde_json::Value> = said.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let shown = events.iter().filter(|e| e["message"] == "reopening the lot files").count();
    assert_eq!(shown, 10, "{said}");
    let told = events
        .iter()
        .find(|e| e["message"] == "similar events were held back" && e["like"] == "reopening the lot files");
    assert!(told.is_some_and(|e| e["count"].as_u64() > Some(0)), "{said}");
}

#[test]
fn under_journald_lines_carry_their_level_and_no_time() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("journal");
    let run = |stream: &dyn Fn(&std::fs::File) -> String| {
        let file = std::fs::File::create(&path).unwrap();
        let mut command = command(home.path());
        command.env("JOURNAL_STREAM", stream(&file)).env("LOTLOGD_MAX_ITMS", "1").stderr(file);
        let mut daemon = Daemon { child: command.spawn().unwrap(), socket: home.path().join("s") };
        drop(daemon.connect());
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        std::fs::read_to_string(&path).unwrap()
    };
    let of = |file: &std::fs::File| {
        let meta = file.metadata().unwrap();
        format!("{}:{}", meta.dev(), meta.ino())
    };
    let journal = run(&of);
    let warning = journal.lines().next().unwrap();
    assert!(warning.starts_with("<4>") && warning.contains("LOTLOGD_MAX_ITEMS?"), "{journal}");
    assert!(journal.lines().skip(1).all(|line| line.starts_with("<6>")), "{journal}");
    assert!(!journal.contains("INFO") && !journal.contains("Z "), "{journal}");
    // The stream of an ancestor, not this one.
    let file = run(&|_| "1:1".to_owned());
    let line = file.lines().next().unwrap();
    let (stamp, rest) = line.split_once(' ').unwrap();
    assert!(
        stamp.starts_with("20") && stamp.ends_with('Z') && rest.trim_start().starts_with("WARN"),
        "{line}"
    );
}

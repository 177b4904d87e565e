//! A second daemon: on the same DATA by whatever path, and on the same socket.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Daemon, Place, refuses_to_start};
use crate::hand::ran;

fn second(data: &Path, socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lotlogd"));
    command.arg("--data-dir").arg(data).arg("--socket").arg(socket);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn batch(seq: u64) -> String {
    format!(r#"{{"session":"s","seq":{seq},"context":{{"lot_id":"L"}},"items":[{{"sku_local":"{seq}"}}]}}"#)
}

/// A second daemon on this path gives up, and the first goes on.
#[track_caller]
fn check(daemon: &Daemon, data: &Path) {
    let seq = daemon.lot("L").len() as u64 + 1;
    assert_eq!(daemon.ask(batch(seq))["ok"], true);
    let before = fs::read(daemon.place.lot_path("L.jsonl")).unwrap();
    let socket = daemon.place.path().join("second.sock");
    assert_eq!(refuses_to_start(second(data, &socket)), Some(73), "{}", data.display());
    assert!(!socket.exists());
    assert_eq!(fs::read(daemon.place.lot_path("L.jsonl")).unwrap(), before);
    assert_eq!(daemon.ask(batch(seq + 1))["ok"], true);
    assert_eq!(daemon.lot("L").len() as u64, seq + 1);
}

#[test]
fn a_second_daemon_on_the_same_data_exits_with_73_by_whatever_path() {
    let daemon = Daemon::start(&[]);
    let data = daemon.place.data();
    check(&daemon, &data);
    check(&daemon, &data.join("../data/."));
    let link = daemon.place.path().join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    check(&daemon, &link);
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        assert!(ran("umount", &[self.0.to_str().unwrap()]) || std::thread::panicking());
    }
}

#[test]
fn a_second_daemon_by_a_bind_mount_exits_with_73() {
    let daemon = Daemon::start(&[]);
    let (data, other) = (daemon.place.data(), daemon.place.path().join("mounted"));
    fs::create_dir(&other).unwrap();
    if !ran("mount", &["--bind", data.to_str().unwrap(), other.to_str().unwrap()]) {
        println!("SKIPPED: a bind mount needs root");
        return;
    }
    let _mounted = Mounted(&other);
    check(&daemon, &other);
}

#[test]
fn a_deleted_or_replaced_lock_file_lets_no_second_daemon_in() {
    let daemon = Daemon::start(&[]);
    let data = daemon.place.data();
    fs::remove_file(data.join("lock")).unwrap();
    check(&daemon, &data);
    fs::write(data.join("lock"), "").unwrap();
    check(&daemon, &data);
    let mut daemon = daemon.restart(&[]);
    assert_eq!(daemon.lot("L").len(), 4);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_symlink_in_the_place_of_the_lock_is_not_written_through() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    let outside = place.path().join("outside");
    fs::write(&outside, "keep").unwrap();
    std::os::unix::fs::symlink(&outside, place.data().join("lock")).unwrap();
    assert_eq!(refuses_to_start(place.command(&[])), Some(78));
    assert_eq!(fs::read_to_string(&outside).unwrap(), "keep");
}

#[test]
fn a_second_daemon_on_the_same_socket_exits_with_73_and_the_first_keeps_it() {
    let daemon = Daemon::start(&[]);
    let other = daemon.place.path().join("other");
    assert_eq!(refuses_to_start(second(&other, &daemon.place.socket())), Some(73));
    check(&daemon, &daemon.place.data());
}

#[test]
fn a_socket_file_that_a_killed_daemon_left_is_no_obstacle() {
    let mut daemon = Daemon::start(&[]);
    assert_eq!(daemon.ask(batch(1))["ok"], true);
    daemon.kill();
    assert!(daemon.place.socket().exists());
    let daemon = Daemon::start_in(&daemon.place, &[]);
    assert_eq!(daemon.ask(batch(2))["ok"], true);
}

#[test]
fn looking_with_verify_never_keeps_a_daemon_from_starting() {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(batch(1))["ok"], true);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, data) = (stop.clone(), place.data());
    let looker = std::thread::spawn(move || {
        let mut looks = 0;
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            let report = lotlog::verify::verify(&data).unwrap();
            assert!(report.is_good(), "{report:?}");
            looks += 1;
        }
        looks
    });
    for _ in 0..5 {
        assert_eq!(daemon.terminate(), Some(0));
        daemon = Daemon::start_in(&place, &[]);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    println!("{} looks", looker.join().unwrap());
}

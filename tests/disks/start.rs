//! The start on a full disk: it waits, says so, changes nothing, goes on by itself; a signal ends it. And disks
//! so small that little or nothing fits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::producer::{Load, Watcher};
use crate::common::{Connection, Daemon, Place, until};
use crate::full::{Probe, code};
use crate::mount::{Disk, Filler, able};
use crate::{Farm, all_acknowledged, check};

const WORD: &str = "recovery waits for space";
const SLOW_CHECKPOINTS: [&str; 4] = ["--segment-bytes", "8MiB", "--checkpoint-interval-seconds", "30s"];

/// A daemon that waits; gone when dropped.
struct Waiting(Child);

impl Waiting {
    #[track_caller]
    fn start(place: &Arc<Place>) -> Waiting {
        let said = place.own_log().matches(WORD).count();
        let mut waiting = Waiting(place.command(&SLOW_CHECKPOINTS).spawn().unwrap());
        until("it says that it waits", || {
            assert!(waiting.0.try_wait().unwrap().is_none(), "it ended: {}", place.own_log());
            (place.own_log().matches(WORD).count() > said).then_some(())
        });
        // It has looked again by then, and says nothing new.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(place.own_log().matches(WORD).count(), said + 1, "once a minute");
        assert!(Connection::try_open(&place.socket()).is_none(), "nothing is served yet");
        waiting
    }

    #[track_caller]
    fn terminate(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let code = until("it ends", || self.0.try_wait().unwrap());
        assert_eq!(code.code(), Some(0));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every file below, with its bytes, but for the lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if !path.ends_with("lock") && !path.ends_with("filler") {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_first_start_on_a_full_disk_waits_and_goes_on_by_itself() {
    if !able("a full disk", &[]) {
        return;
    }
    let place = Place::new();
    let _disk = Disk::tmpfs(&place.data(), "size=64m");
    let mut filler = Filler::new(&place.data());
    filler.fill();
    Waiting::start(&place).terminate();
    assert!(contents(&place.data()).is_empty(), "nothing was made");
    let waiting = Waiting::start(&place);
    filler.free();
    until("it serves", || Connection::try_open(&place.socket()));
    waiting.terminate();
}

#[test]
fn a_first_start_on_a_disk_without_inodes_waits_and_goes_on_by_itself() {
    if !able("a disk without inodes", &[]) {
        return;
    }
    let place = Place::new();
    let _disk = Disk::tmpfs(&place.data(), "size=64m,nr_inodes=20");
    let name = |n: u32| place.data().join(format!("strange-{n}"));
    let taken = (0..).take_while(|n| std::fs::File::create_new(name(*n)).is_ok()).count();
    Waiting::start(&place).terminate();
    let waiting = Waiting::start(&place);
    (0..taken).for_each(|n| std::fs::remove_file(name(n as u32)).unwrap());
    until("it serves", || Connection::try_open(&place.socket()));
    waiting.terminate();
}

#[test]
fn recovery_without_space_for_its_redo_waits_changes_nothing_and_goes_on_by_itself() {
    if !able("a full disk", &[]) {
        return;
    }
    let place = Place::new();
    let _disk = Disk::tmpfs(&place.data(), "size=128m");
    let mut daemon = Daemon::start_in(&place, &SLOW_CHECKPOINTS);
    let farm = Farm::start(
        &daemon,
        4,
        1,
        &Load { most_pad: 2000, pause: Duration::from_millis(3), ..Load::default() },
    );
    until("some lots are there", || (place.lots().len() > 8).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    // As after a power cut that took all that no checkpoint had synced: the redo needs room.
    for name in place.lots() {
        std::fs::File::options().write(true).open(place.lot_path(&name)).unwrap().set_len(0).unwrap();
    }
    let mut filler = Filler::new(&place.data());
    filler.fill();
    let before = contents(&place.data());
    Waiting::start(&place).terminate();
    assert!(contents(&place.data()) == before, "it changed something while it waited");
    let waiting = Waiting::start(&place);
    filler.free();
    until("it serves", || Connection::try_open(&place.socket()));
    let (ledgers, watcher) = farm.finish();
    drop(watcher);
    waiting.terminate();
    all_acknowledged(&check(&place.data(), &ledgers, Watcher::start(place.data())));
}

#[test]
fn a_disk_of_a_few_megabytes_is_refused_with_figures_or_works() {
    if !able("a small disk", &[]) {
        return;
    }
    for (mib, wanted) in [(1, None), (8, Some("no_space")), (16, Some("ok"))] {
        let place = Place::new();
        let _disk = Disk::tmpfs(&place.data(), &format!("size={mib}m"));
        let Some(wanted) = wanted else {
            Waiting::start(&place).terminate();
            continue;
        };
        let mut daemon = Daemon::start_in(&place, &[]);
        let reply = Probe::of(&daemon).ask();
        println!("{mib} MiB: {reply}");
        assert_eq!(code(&reply), wanted, "{mib} MiB: {reply}");
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(wanted == "ok" || message.contains("bytes are free for lot files"), "{message}");
        assert_eq!(daemon.terminate(), Some(0));
    }
}

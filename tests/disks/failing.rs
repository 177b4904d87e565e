//! A disk that answers EIO below a real file system, and a file system that is shut down in the middle of
//! things. The daemon has stopped with 74; when the disk is well again its successor brings everything that
//! was acknowledged, and what was sent again is there once. Judged on what the disk has, not the page cache.

use std::process::Command;
use std::time::Duration;

use crate::common::judge::vanished;
use crate::common::producer::{Load, Random, Watcher, lot_files, number};
use crate::common::{Daemon, Place, refuses_to_start};
use crate::mount::{Disk, Served, able, loop_needs, run};
use crate::{Farm, all_acknowledged, check};

const BUSY: [&str; 6] =
    ["--segment-bytes", "1MiB", "--checkpoint-interval-seconds", "200ms", "--max-open-lots", "6"];

fn able_to_fail(kind: &'static str) -> bool {
    able("a disk that fails", &loop_needs(kind))
        && able("a disk that fails", &["nbdkit", "nbdfuse", "/dev/fuse"])
}

/// So large that every file system can be made.
const MIB: u64 = 320;

/// Producers, a fault, the end of the daemon, the remedy, its successor; again and again.
#[track_caller]
fn fault_and_remedy(
    kind: &'static str,
    make: impl FnOnce(&Place) -> Disk,
    fault: impl Fn(&Place, &Disk),
    rounds: u64,
) {
    let seed = number("LOTLOG_SEED", std::process::id().into());
    println!("LOTLOG_SEED={seed}");
    let mut random = Random(seed);
    let place = Place::new();
    let disk = make(&place);
    let mut daemon = Daemon::start_in(&place, &BUSY);
    let stop = crate::common::producer::Stop::default();
    // What a crash of the file system may take of `written` batches is another suite's.
    let load = Load { synced_percent: 100, ..Load::default() };
    let producers = crate::common::producer::farm(&place.socket(), "p", 4, seed, &load, &stop);
    let mut rebuilt = 0;
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(50 + random.below(600)));
        let seen = lot_files(&place.data())
            .into_iter()
            .map(|(stem, bytes)| (stem, crate::common::judge::whole_lines(bytes)))
            .collect();
        fault(&place, &disk);
        assert_eq!(daemon.wait().code(), Some(74), "{}", place.own_log());
        disk.heal();
        // Without the page cache: what the disk has is what there is.
        disk.unmount();
        disk.mount("");
        let begun = place.own_log().len();
        daemon = Daemon::start_in(&place, &BUSY);
        rebuilt += usize::from(place.own_log()[begun..].contains("rebuilt in new files"));
        assert_eq!(vanished(&seen, &lot_files(&place.data())), 0, "a reader had seen it");
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    disk.unmount();
    disk.mount("");
    let sent = check(&place.data(), &ledgers, Watcher::start(place.data()));
    all_acknowledged(&sent);
    let duplicates: usize = ledgers.iter().map(|l| l.duplicates).sum();
    println!(
        "{kind}: {rounds} faults, {} batches, {duplicates} duplicates, {rebuilt} rebuilt in new files",
        sent.len()
    );
}

#[test]
fn after_eio_below_ext4_the_daemon_stops_and_its_successor_brings_everything() {
    if able_to_fail("ext4") {
        let make = |place: &Place| Disk::served(&place.data(), "ext4", MIB, Served::Failing);
        fault_and_remedy("ext4", make, |_, disk| disk.fail(), number("LOTLOG_ROUNDS", 3));
    }
}

#[test]
fn after_eio_below_xfs_the_daemon_stops_and_its_successor_brings_everything() {
    if able_to_fail("xfs") {
        let make = |place: &Place| Disk::served(&place.data(), "xfs", MIB, Served::Failing);
        fault_and_remedy("xfs", make, |_, disk| disk.fail(), number("LOTLOG_ROUNDS", 3));
    }
}

/// The file system forgets what it has not written, as in a power cut, and answers EIO from then on.
fn shut_down(place: &Place, _: &Disk) {
    run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(place.data()));
}

#[test]
fn after_a_shut_down_ext4_the_daemon_stops_and_its_successor_brings_everything() {
    if able("a shut down ext4", &loop_needs("ext4")) && able("a shut down ext4", &["xfs_io"]) {
        let make = |place: &Place| Disk::image(&place.data(), "ext4", MIB, &[], "");
        fault_and_remedy("ext4", make, shut_down, number("LOTLOG_ROUNDS", 6));
    }
}

#[test]
fn after_a_shut_down_xfs_the_daemon_stops_and_its_successor_brings_everything() {
    if able("a shut down xfs", &loop_needs("xfs")) && able("a shut down xfs", &["xfs_io"]) {
        let make = |place: &Place| Disk::image(&place.data(), "xfs", MIB, &[], "");
        fault_and_remedy("xfs", make, shut_down, number("LOTLOG_ROUNDS", 6));
    }
}

/// Only the lots' disk fails, after everything was acknowledged: a checkpoint's sync is the first to hear of it.
#[track_caller]
fn lots_fail_at_the_checkpoint(kind: &'static str, remount: bool) {
    let place = Place::new();
    let disk = Disk::served(&place.data().join("lots"), kind, MIB, Served::Failing);
    let mut daemon = Daemon::start_in(&place, &[]);
    let farm = Farm::start(&daemon, 3, 1, &Load { most_batches: 200, ..Load::default() });
    let (ledgers, watcher) = farm.join();
    assert_eq!(daemon.ask(r#"{"op":"sync"}"#)["ok"], true);
    disk.fail();
    daemon.signal(rustix::process::Signal::HUP);
    assert_eq!(daemon.wait().code(), Some(74), "{}", place.own_log());
    let said = place.own_log();
    assert!(said.contains("sync of") && said.contains("Input/output error"), "{said}");
    disk.heal();
    if remount {
        // The marker outlives the mount: it speaks of this boot.
        disk.unmount();
        disk.mount("");
    }
    let mut daemon = Daemon::start_in(&place, &[]);
    assert!(place.own_log().contains("they are rebuilt in new files"), "{}", place.own_log());
    assert_eq!(daemon.terminate(), Some(0));
    disk.unmount();
    disk.mount("");
    drop(watcher);
    let sent = check(&place.data(), &ledgers, Watcher::start(place.data()));
    all_acknowledged(&sent);
}

#[test]
fn lot_files_whose_sync_failed_on_ext4_are_rebuilt_in_new_files() {
    if able_to_fail("ext4") {
        lots_fail_at_the_checkpoint("ext4", false);
    }
}

#[test]
fn lot_files_whose_sync_failed_on_xfs_are_rebuilt_in_new_files() {
    if able_to_fail("xfs") {
        // It has shut itself down.
        lots_fail_at_the_checkpoint("xfs", true);
    }
}

#[test]
fn a_disk_that_cannot_be_read_at_the_start_is_named_and_started_from_once_it_reads_again() {
    if !able_to_fail("ext4") {
        return;
    }
    let place = Place::new();
    let disk = Disk::served(&place.data(), "ext4", MIB, Served::Failing);
    let mut daemon = Daemon::start_in(&place, &BUSY);
    let farm = Farm::start(&daemon, 3, 1, &Load::default());
    std::thread::sleep(Duration::from_millis(500));
    daemon.kill();
    for cold in [false, true] {
        if cold {
            disk.unmount();
            disk.mount("");
        }
        disk.fail();
        let code = refuses_to_start(place.command(&BUSY));
        let said = place.own_log();
        let last = said.lines().last().unwrap_or_default();
        assert!(code == Some(74) && last.contains("Input/output error"), "{code:?} {last}");
        println!("{last}");
        disk.heal();
        disk.unmount();
        disk.mount("");
    }
    let mut daemon = Daemon::start_in(&place, &BUSY);
    let (ledgers, watcher) = farm.finish();
    drop(watcher);
    assert_eq!(daemon.terminate(), Some(0));
    all_acknowledged(&check(&place.data(), &ledgers, Watcher::start(place.data())));
}

//! DATA renamed, deleted or unmounted under the daemon, its journal or a segment of it taken away: nothing is
//! acknowledged any more that is not where DATA's path leads, and the own log says what happened.

use std::path::Path;
use std::process::Command;

use crate::common::judge::{After, Verdict, judge};
use crate::common::producer::{Load, entries, lot_files, record};
use crate::common::{Daemon, Place};
use crate::mount::{Disk, able, run};
use crate::{Farm, check};

/// Lots that have their names.
fn lots(place: &Place) -> usize {
    place.lots().iter().filter(|name| name.ends_with(".jsonl")).count()
}

/// Takes something away under producers. What was acknowledged before must be in the lot files at `left`, if
/// they are anywhere; the daemon has stopped with this word.
#[track_caller]
fn taken_away(place: &std::sync::Arc<Place>, take: impl FnOnce(), word: &str, left: Option<&Path>) {
    let mut daemon = Daemon::start_in(place, &["--segment-bytes", "1MiB"]);
    let farm = Farm::start(&daemon, 3, 1, &Load { synced_percent: 50, ..Load::default() });
    crate::common::until("some lots are there", || (lots(place) > 8).then_some(()));
    take();
    assert_eq!(daemon.wait().code(), Some(74), "{}", place.own_log());
    let (ledgers, _) = farm.quit();
    let said = place.own_log();
    // Or the daemon itself was the first to miss a name.
    let told = said.contains(word) || said.contains("No such file");
    assert!(told && said.contains("nothing more is acknowledged"), "{said}");
    if let Some(left) = left {
        // Batches whose reply never came may still be on their way: the next start brings them.
        let sent = entries(&ledgers);
        std::fs::rename(left, place.data()).unwrap();
        let mut next = Daemon::start_in(place, &[]);
        assert_eq!(next.terminate(), Some(0));
        let verdict = judge(&lot_files(&place.data()), &sent, &record, After::Death);
        assert_eq!(verdict, Verdict::default());
    }
}

#[test]
fn with_data_renamed_under_it_the_daemon_stops_and_what_it_acknowledged_moved_along() {
    let place = Place::new();
    let elsewhere = place.path().join("elsewhere");
    let take = || std::fs::rename(place.data(), &elsewhere).unwrap();
    taken_away(&place, take, "was moved, deleted, unmounted or mounted over", Some(&elsewhere));
}

#[test]
fn with_data_deleted_under_it_the_daemon_stops() {
    let place = Place::new();
    // Whoever deletes races with whoever makes new files: again until all is gone.
    let take = || while std::fs::remove_dir_all(place.data()).is_err() {};
    taken_away(&place, take, "deleted", None);
}

#[test]
fn with_the_journal_deleted_under_it_the_daemon_stops_and_refuses_to_start_without_it() {
    let place = Place::new();
    let journal = place.data().join("journal");
    taken_away(&place, || while std::fs::remove_dir_all(&journal).is_err() {}, "deleted", None);
    assert_eq!(crate::common::refuses_to_start(place.command(&[])), Some(65), "{}", place.own_log());
}

#[test]
fn with_every_segment_deleted_under_it_the_daemon_stops() {
    let place = Place::new();
    let journal = place.data().join("journal");
    let take = || {
        for entry in std::fs::read_dir(&journal).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "wal") {
                std::fs::remove_file(path).unwrap();
            }
        }
    };
    taken_away(&place, take, "somebody has deleted it", None);
}

#[test]
fn with_data_unmounted_under_it_the_daemon_stops_and_goes_on_when_it_is_back() {
    if !able("a disk that is unmounted", &[]) {
        return;
    }
    let place = Place::new();
    let disk = place.path().join("disk");
    let _disk = Disk::tmpfs(&disk, "size=64m");
    std::fs::create_dir(place.data()).unwrap();
    run(Command::new("mount").arg("--bind").arg(&disk).arg(place.data()));
    let mut daemon = Daemon::start_in(&place, &["--segment-bytes", "1MiB"]);
    let farm = Farm::start(&daemon, 3, 1, &Load::default());
    crate::common::until("some lots are there", || (lots(&place) > 8).then_some(()));
    run(Command::new("umount").arg("-l").arg(place.data()));
    assert_eq!(daemon.wait().code(), Some(74), "{}", place.own_log());
    assert!(place.own_log().contains("was moved, deleted, unmounted or mounted over"));
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 0, "nothing was made beneath the mount");
    run(Command::new("mount").arg("--bind").arg(&disk).arg(place.data()));
    let mut daemon = Daemon::start_in(&place, &["--segment-bytes", "1MiB"]);
    let (ledgers, _) = farm.finish();
    assert_eq!(daemon.terminate(), Some(0));
    let watcher = crate::common::producer::Watcher::start(place.data());
    crate::all_acknowledged(&check(&place.data(), &ledgers, watcher));
    // A process that another test begins may hold the watcher's files until its exec.
    crate::common::until("nobody holds it", || {
        let umount = Command::new("umount").arg(place.data()).output().unwrap();
        umount.status.success().then_some(())
    });
}

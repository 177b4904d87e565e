//! Lot files that somebody takes away, and to which no further batch comes: the checkpoint that lets go of the
//! journal's copy must not be silent, and must not let go of it where `lots/` itself is gone.

use crate::common::{Daemon, Place};

const BATCH: &str =
    r#"{"ack":"synced","context":{"lot_id":"A"},"items":[{"sku_local":"one"},{"sku_local":"two"}]}"#;

/// Stores a batch, lets a hand loose, ends the daemon and gives its exit code.
#[track_caller]
fn stored_then(hand: impl FnOnce(&Place)) -> (std::sync::Arc<Place>, Option<i32>) {
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(BATCH)["ok"], true);
    hand(&place);
    let code = daemon.terminate();
    (place, code)
}

#[track_caller]
fn check_told(hand: impl FnOnce(&Place), word: &str) {
    let (place, code) = stored_then(hand);
    let log = place.own_log();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(word) && log.contains("is in no journal after this checkpoint"), "{log}");
}

#[test]
fn a_lot_deleted_before_a_checkpoint_is_told_of() {
    check_told(|place| std::fs::remove_file(place.lot_path("A.jsonl")).unwrap(), "it was deleted");
}

#[test]
fn a_lot_cut_before_a_checkpoint_is_told_of() {
    let cut = |place: &Place| {
        let file = std::fs::File::options().write(true).open(place.lot_path("A.jsonl")).unwrap();
        file.set_len(10).unwrap();
    };
    check_told(cut, "it has 10 bytes where lotlogd left");
}

#[test]
fn a_checkpoint_gives_up_nothing_where_the_directory_of_lots_is_gone() {
    let (place, code) = stored_then(|place| std::fs::remove_dir_all(place.data().join("lots")).unwrap());
    assert_eq!(code, Some(74), "{}", place.own_log());
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.records("A").len(), 2, "the journal still had them: {}", place.own_log());
}

#[test]
fn a_start_without_any_lot_file_where_batches_were_stored_is_told_of() {
    let (place, code) = stored_then(|_| {});
    assert_eq!(code, Some(0));
    std::fs::rename(place.lot_path("A.jsonl"), place.path().join("elsewhere")).unwrap();
    let _daemon = Daemon::start_in(&place, &[]);
    let log = place.own_log();
    assert!(log.contains("there is no lot file"), "{log}");
}

#[test]
fn a_start_whose_lot_files_are_all_in_the_archive_misses_none() {
    let (place, code) = stored_then(|_| {});
    assert_eq!(code, Some(0));
    let mut daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(r#"{"op":"rotate","all":true}"#)["rotated"], 1);
    assert_eq!(daemon.terminate(), Some(0));
    let _daemon = Daemon::start_in(&place, &[]);
    let log = place.own_log();
    assert!(log.contains("lot files were rotated") && !log.contains("there is no lot file"), "{log}");
}

#[test]
fn verify_notes_a_lot_whose_name_is_gone_beside_a_running_daemon() {
    let place = Place::new();
    let daemon = Daemon::start_in(&place, &[]);
    assert_eq!(daemon.ask(BATCH)["ok"], true);
    std::fs::remove_file(place.lot_path("A.jsonl")).unwrap();
    let report = lotlog::verify::verify(&place.data()).unwrap();
    let notes: Vec<_> = report.notes.iter().map(|note| (note.kind, note.file.as_str())).collect();
    assert_eq!(notes, [("name_gone", "lots/A.jsonl")]);
    assert!(report.is_good(), "{report:?}");
}

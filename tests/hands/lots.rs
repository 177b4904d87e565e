//! The table: one hand, one moment, one row.

use rustix::process::Signal;

use crate::common::until;
use crate::hand::Hand::{self, *};
use crate::scene::{Scene, all, unaffected};

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Under load.
    Running,
    /// Under load, followed by SIGHUP.
    RunningHup,
    /// After a clean stop.
    Stopped,
    /// After kill -9: the journal has batches to redo.
    Killed,
}

use Moment::*;

/// What the own log must say; nothing where the hand cannot be seen.
#[track_caller]
fn check(hand: Hand, moment: Moment, says: &[&str]) {
    let begun = std::time::Instant::now();
    let as_nobody = matches!(hand, NoMode | RootsOwn);
    if let Some(what) = as_nobody.then(Scene::lacks_nobody).flatten() {
        println!("SKIPPED: {hand:?} needs {what}");
        return;
    }
    let mut scene = Scene::begin_as(as_nobody);
    let lot = scene.lot();
    if let Some(what) = hand.lacks(&lot) {
        println!("SKIPPED: {hand:?} needs {what}");
        scene.stop.quit();
        return;
    }
    match moment {
        Running | RunningHup => {
            scene.at_one_moment(|| hand.apply(&lot));
            if moment == RunningHup {
                scene.daemon().signal(Signal::HUP);
            }
        }
        Stopped | Killed => {
            if moment == Stopped {
                assert_eq!(scene.daemon().terminate(), Some(0));
            }
            scene.kill();
            hand.apply(&lot);
            scene.start();
        }
    }
    scene.log_says(says);
    scene.other_lot_goes_on(30);
    let refused = hand.shuts()
        || (hand == AppendOnly && moment == Killed)
        || (as_nobody && matches!(moment, Stopped | Killed));
    if refused {
        hand.undo(&lot);
    }
    let before = scene.lines(hand);
    until("the touched lot goes on", || (scene.lines(hand) > before + 20).then_some(()));
    if !refused {
        hand.undo(&lot);
    }
    let ledgers = scene.finish();
    assert_eq!(scene.daemon().ask(r#"{"op":"sync"}"#)["ok"], true);
    let ledger = all(&ledgers);
    if matches!(moment, Running | RunningHup) {
        unaffected(&ledgers[1]);
    }
    scene.judge(hand, &ledger);
    let log = scene.log();
    if says.is_empty() {
        assert!(!log.contains("somebody else"), "{hand:?} {moment:?}: {log}");
    }
    scene.recover_twice();
    scene.judge(hand, &ledger);
    println!("{hand:?} {moment:?}: {:.2} s", begun.elapsed().as_secs_f64());
}

const CHANGED: &str = "somebody else has changed a lot file";

#[test]
fn a_lot_renamed_away_goes_on_in_the_renamed_file_until_sighup() {
    check(Rename, Running, &["was renamed"]);
    check(Rename, RunningHup, &["lot files are reopened"]);
}

#[test]
fn a_lot_renamed_away_while_stopped_begins_anew() {
    check(Rename, Stopped, &[]);
    check(Rename, Killed, &[]);
}

#[test]
fn a_lot_renamed_and_made_anew_is_followed_by_its_name() {
    check(RenameAndCreate, Running, &[CHANGED]);
    check(RenameAndCreate, RunningHup, &["lot files are reopened"]);
    check(RenameAndCreate, Stopped, &[]);
    check(RenameAndCreate, Killed, &[]);
}

#[test]
fn a_lot_that_is_copied_and_truncated_goes_on_from_its_start() {
    check(CopyTruncate, Running, &[CHANGED]);
    check(CopyTruncate, Stopped, &[]);
    check(CopyTruncate, Killed, &[]);
}

#[test]
fn a_truncated_lot_goes_on_from_its_start() {
    check(Truncate, Running, &[CHANGED]);
    check(Truncate, Stopped, &[]);
    check(Truncate, Killed, &[]);
}

#[test]
fn a_deleted_lot_begins_anew() {
    check(Delete, Running, &[CHANGED, "deleted"]);
    check(Delete, Stopped, &[]);
    check(Delete, Killed, &[]);
}

#[test]
fn whole_lines_of_others_stay_where_they_are() {
    check(AppendLines, Running, &[CHANGED]);
    check(AppendLines, Stopped, &[]);
    check(AppendLines, Killed, &["lotlogd did not write were set aside"]);
}

#[test]
fn a_loose_end_of_others_is_set_aside() {
    check(AppendLooseEnd, Running, &[CHANGED, "lotlogd did not write was set aside"]);
    check(AppendLooseEnd, Stopped, &["lotlogd did not write was set aside"]);
    check(AppendLooseEnd, Killed, &["lotlogd did not write were set aside"]);
}

#[test]
fn nul_bytes_of_others_do_not_reach_a_record() {
    check(AppendNul, Running, &[CHANGED, "lotlogd did not write was set aside"]);
    check(AppendNul, Stopped, &["lotlogd did not write was set aside"]);
    check(AppendNul, Killed, &[]);
}

#[test]
fn a_lot_edited_by_sed_is_taken_as_it_is() {
    check(SedInPlace, Running, &[CHANGED]);
    check(SedInPlace, Stopped, &[]);
    check(SedInPlace, Killed, &["were set aside"]);
}

#[test]
fn a_lot_written_over_with_the_same_size_is_not_noticed_until_a_crash_or_verify() {
    check(WriteOverSameSize, Running, &[]);
    check(WriteOverSameSize, Stopped, &[]);
    check(WriteOverSameSize, Killed, &["were set aside"]);
}

#[test]
fn a_lot_written_over_with_another_size_is_taken_as_it_is() {
    check(WriteOverOtherSize, Running, &[CHANGED]);
    check(WriteOverOtherSize, Stopped, &[]);
    check(WriteOverOtherSize, Killed, &["were set aside"]);
}

#[test]
fn a_lot_that_is_compressed_begins_anew() {
    check(Gzip, Running, &[CHANGED]);
    check(Gzip, Stopped, &[]);
    check(Gzip, Killed, &[]);
}

#[test]
fn an_immutable_lot_waits_until_it_is_mended() {
    check(Immutable, Running, &["it is kept and tried again"]);
    check(Immutable, Stopped, &["its batches are refused"]);
    check(Immutable, Killed, &["it is kept and tried again"]);
}

#[test]
fn an_append_only_lot_is_appended_to() {
    check(AppendOnly, Running, &[]);
    check(AppendOnly, Stopped, &[]);
    check(AppendOnly, Killed, &["it is kept and tried again"]);
}

#[test]
fn a_hard_link_to_a_lot_changes_nothing() {
    check(HardLink, Running, &[]);
    check(HardLink, Stopped, &[]);
    check(HardLink, Killed, &[]);
}

#[test]
fn a_lot_edited_by_sed_with_a_hard_link_to_the_old_file_is_followed_by_its_name() {
    check(HardLinkAndSed, Running, &[CHANGED]);
    check(HardLinkAndSed, Stopped, &[]);
    check(HardLinkAndSed, Killed, &[]);
}

const REFUSED: &str = "its batches are refused";
const KEPT: &str = "it is kept and tried again";

#[track_caller]
fn check_in_the_way(hand: Hand) {
    assert!(hand.is_in_the_way());
    check(hand, Running, &[CHANGED, REFUSED]);
    check(hand, Stopped, &[REFUSED]);
    check(hand, Killed, &[KEPT]);
}

#[test]
fn a_symlink_to_the_renamed_file_is_not_followed() {
    check_in_the_way(SymlinkToRenamed);
}

#[test]
fn a_dangling_symlink_is_not_followed() {
    check_in_the_way(SymlinkDangling);
}

#[test]
fn a_symlink_out_of_data_is_never_written_through() {
    check_in_the_way(SymlinkOutside);
}

#[test]
fn a_directory_in_a_lots_place_shuts_that_lot_alone() {
    check_in_the_way(Directory);
}

#[test]
fn a_fifo_in_a_lots_place_blocks_nobody() {
    check_in_the_way(Fifo);
}

#[test]
fn a_socket_in_a_lots_place_shuts_that_lot_alone() {
    check_in_the_way(Socket);
}

#[test]
fn a_device_in_a_lots_place_shuts_that_lot_alone() {
    check_in_the_way(Device);
}

#[test]
fn a_lot_without_permissions_goes_on_while_it_is_open_and_waits_after_a_restart() {
    check(NoMode, Running, &[]);
    check(NoMode, Stopped, &[REFUSED]);
    check(NoMode, Killed, &[KEPT]);
}

#[test]
fn a_lot_of_another_user_goes_on_while_it_is_open_and_waits_after_a_restart() {
    check(RootsOwn, Running, &[]);
    check(RootsOwn, Stopped, &[REFUSED]);
    check(RootsOwn, Killed, &[KEPT]);
}

//! The sequences that break naive journals, each by name, and what other hands and failing disks do, on a
//! disk in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sim::*;
use lotlog::batch::{Code, Durability, Outcome};
use lotlog::metrics::Metrics;
use lotlog::order::Order;
use lotlog::queue::{Mailbox, Submission};
use lotlog::storage::{Dir, Storage, StorageError};
use lotlog::vault::Vault;

use Durability::{Synced, Written};

/// A vault with its disk and its producers.
pub struct Rig {
    pub disk: SimDisk,
    pub around: Around,
    pub farm: Farm,
    pub vault: Vault,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::on(World::new(), Around::new(), Farm::default())
    }

    pub fn on(world: World, around: Around, farm: Farm) -> Rig {
        let disk = SimDisk::new(world);
        let vault = open(&disk, &around, &config()).unwrap();
        Rig { disk, around, farm, vault }
    }

    #[track_caller]
    pub fn commit(&mut self, group: Vec<Submission>) {
        commit(&mut self.vault, group, &self.around).unwrap();
    }

    #[track_caller]
    pub fn send(&mut self, lot: &str, session: &str, seq: u64, ack: Durability) -> Option<Outcome> {
        let submission = self.farm.send(lot, session, seq, ack, 3, 10);
        self.commit(vec![submission]);
        self.farm.hear().sent.last().unwrap().answer.clone()
    }

    pub fn world(&self) -> World {
        self.disk.world.lock().unwrap().clone()
    }

    pub fn with_world(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.disk.world.lock().unwrap());
    }

    pub fn pass(&mut self, time: Duration) {
        self.around.pass(time);
        commit(&mut self.vault, Vec::new(), &self.around).unwrap();
        self.vault.tick(self.around.now()).unwrap();
    }

    /// Ticks until the checkpoint under way has ended.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.vault.tick(self.around.now()).unwrap();
        }
    }

    /// Kills the daemon and starts it again on what a reader sees.
    pub fn restart(self) -> Rig {
        let world = self.world();
        Rig::on(world, self.around, self.farm)
    }

    /// Cuts the power and starts again.
    pub fn power_cut(self, seed: u64) -> Rig {
        let world = self.world().power_cut(&mut Random(seed));
        Rig::on(world, self.around, self.farm)
    }

    #[track_caller]
    pub fn check(&self, written_may_be_lost: bool) -> BTreeMap<String, Vec<u8>> {
        let found = lots(&self.world());
        assert_eq!(judge(&found, &self.farm.hear(), written_may_be_lost), Verdict::default());
        found
    }

    /// Fails the first storage call whose name begins with `call`, once; says whether it came.
    pub fn fail_once(&self, call: &'static str, kind: fn() -> io::Error) -> Arc<AtomicBool> {
        let hit = Arc::new(AtomicBool::new(false));
        let mark = hit.clone();
        self.disk.set_hook(Box::new(move |_, what| {
            if what.starts_with(call) && !mark.swap(true, Ordering::SeqCst) { Err(kind()) } else { Ok(()) }
        }));
        hit
    }
}

pub fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

pub fn enospc() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

pub fn eperm() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

/// The world at the first storage call named `call`, while `run` runs.
pub fn world_at(
    rig: &mut Rig,
    call: &'static str,
    nth: usize,
    run: impl FnOnce(&mut Rig),
) -> (World, Ledger) {
    let (image, count) = (Arc::<Mutex<Option<(World, Ledger)>>>::default(), AtomicUsize::new(0));
    let (taken, farm) = (image.clone(), rig.farm.clone());
    rig.disk.set_hook(Box::new(move |world, what| {
        if what.starts_with(call) && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            *taken.lock().unwrap() = Some((world.clone(), farm.hear()));
        }
        Ok(())
    }));
    run(rig);
    rig.disk.clear_hook();
    let image = image.lock().unwrap().take();
    image.unwrap_or_else(|| panic!("no call {nth} of `{call}`"))
}

/// Recovers what is left of `before` after a power cut by that seed, or after a kill, and judges it.
#[track_caller]
fn recovers_whole(
    before: &World,
    power_cut: Option<u64>,
    ledger: &Ledger,
    written_may_be_lost: bool,
) -> BTreeMap<String, Vec<u8>> {
    let seen = lots(before);
    let world = power_cut.map_or_else(|| before.clone(), |seed| before.power_cut(&mut Random(seed)));
    let rig = Rig::on(world, Around::new(), Farm::default());
    let found = lots(&rig.world());
    let mut verdict = judge(&found, ledger, written_may_be_lost);
    verdict.vanished = vanished(&seen, &found);
    assert_eq!(verdict, Verdict::default());
    found
}

pub fn records(lots: &BTreeMap<String, Vec<u8>>, lot: &str) -> usize {
    lots.get(lot).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
}

#[test]
fn a_crash_between_journal_sync_and_lot_append_loses_nothing() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let (world, ledger) = world_at(&mut rig, "write lots/L", 1, |rig| {
        rig.send("L", "s", 2, Synced);
    });
    assert_eq!(records(&lots(&world), "L"), 3, "the second batch is not in the file yet");
    let found = recovers_whole(&world, Some(1), &ledger, true);
    assert_eq!(records(&found, "L"), 6, "it was synced in the journal, so it is committed");
}

#[test]
fn a_crash_during_a_background_checkpoint_while_groups_commit_loses_nothing() {
    for nth in 1..12 {
        let mut rig = Rig::new();
        for lot in ["A", "B", "C"] {
            rig.send(lot, lot, 1, Synced);
        }
        rig.pass(Duration::from_secs(31));
        let (world, ledger) = world_at(&mut rig, "", nth, |rig| {
            for seq in 2..20 {
                rig.send("A", "A", seq, if seq % 2 == 0 { Synced } else { Written });
                rig.vault.tick(rig.around.now()).unwrap();
            }
        });
        for seed in 0..4 {
            recovers_whole(&world, Some(seed), &ledger, true);
        }
        recovers_whole(&world, None, &ledger, false);
    }
}

#[test]
fn a_crash_before_the_removal_of_an_old_segment_is_durable_changes_nothing() {
    let mut rig = Rig::new();
    for seq in 1..400 {
        let submission = rig.farm.send("L", "s", seq, Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    rig.around.pass(Duration::from_secs(31));
    // Where there is little room old segments are not kept as spares.
    rig.disk.world.lock().unwrap().free_bytes = 32 * config().segment_bytes;
    let (world, ledger) = world_at(&mut rig, "unlink journal/0", 1, Rig::settle);
    recovers_whole(&world, None, &ledger, false);
    for seed in 0..8 {
        recovers_whole(&world, Some(seed), &ledger, true);
    }
    // The same when a new chain has been begun and the old one is about to go.
    let disk = SimDisk::new(world);
    let mut again = Rig { disk, around: Around::new(), farm: Farm::default(), vault: rig.vault };
    let (world, _) = world_at(&mut again, "unlink journal/0", 1, |rig| {
        drop(open(&rig.disk, &rig.around, &config()).unwrap());
    });
    recovers_whole(&world, None, &ledger, false);
    for seed in 0..8 {
        recovers_whole(&world, Some(seed), &ledger, true);
    }
}

#[test]
fn written_batches_at_a_segments_end_and_synced_ones_in_the_next_keep_their_promises() {
    let mut rig = Rig::new();
    for seq in 1..120 {
        let submission = rig.farm.send("W", "w", seq, Written, 3, 1000);
        rig.commit(vec![submission]);
    }
    rig.send("S", "s", 1, Synced);
    for seed in 0..10 {
        let found = recovers_whole(&rig.world(), Some(seed), &rig.farm.hear(), true);
        assert_eq!(records(&found, "W"), 119 * 3, "a sync of a later segment covers all before it");
    }
}

#[test]
fn the_duplicate_of_a_written_batch_asked_synced_waits_for_its_sync() {
    let mut rig = Rig::new();
    assert!(matches!(rig.send("L", "s", 1, Written), Some(Outcome::Stored { durability: Written, .. })));
    let original = rig.farm.hear();
    let answer = rig.send("L", "s", 1, Synced);
    assert_eq!(answer, Some(Outcome::Duplicate { last: Some((3, 1)), durability: Synced }));
    let found = recovers_whole(&rig.world(), Some(3), &original, false);
    assert_eq!(records(&found, "L"), 3, "what was acknowledged as synced is there after a power cut");
}

#[test]
fn a_duplicate_shares_the_fate_of_the_batch_it_repeats_in_the_same_group() {
    let mut rig = Rig::new();
    let group = vec![rig.farm.send("L", "s", 1, Written, 3, 10), rig.farm.send("L", "s", 1, Synced, 3, 10)];
    rig.commit(group);
    let answers: Vec<_> = rig.farm.hear().sent.into_iter().map(|s| s.answer.unwrap()).collect();
    assert_eq!(answers[0], Outcome::Stored { lsn: 1, durability: Written });
    assert_eq!(answers[1], Outcome::Duplicate { last: Some((3, 1)), durability: Synced });
    assert_eq!(records(&lots(&rig.world()), "L"), 3);
}

#[test]
fn a_lot_renamed_while_its_descriptor_is_evicted_is_taken_anew_and_both_files_are_whole() {
    for delete in [false, true] {
        let mut rig = Rig::new();
        rig.send("L", "s", 1, Synced);
        // Eight descriptors at most: these push L out.
        for n in 0..12 {
            rig.send(&format!("other-{n}"), &format!("o{n}"), 1, Synced);
        }
        rig.with_world(|world| {
            if delete {
                world.remove(Dir::Lots, "L.jsonl");
            } else {
                world.rename(Dir::Lots, "L.jsonl", "L.1");
            }
        });
        let answer = rig.send("L", "s", 2, Synced);
        assert!(matches!(answer, Some(Outcome::Stored { .. })), "{answer:?}");
        let world = rig.world();
        assert_eq!(records(&lots(&world), "L"), 3, "the new file holds the second batch alone");
        if !delete {
            let old = world.read(Dir::Lots, "L.1").unwrap();
            assert_eq!(old.iter().filter(|b| **b == b'\n').count(), 3);
        }
        // No redo reaches back past the change.
        for seed in 0..6 {
            let after = Rig::on(rig.world().power_cut(&mut Random(seed)), Around::new(), Farm::default());
            assert_eq!(records(&lots(&after.world()), "L"), 3);
            assert_eq!(after.world().names(Dir::Quarantine), Vec::<String>::new());
        }
    }
}

#[test]
fn a_lot_truncated_or_appended_to_by_others_is_taken_as_it_is_and_goes_on_whole() {
    for (change, expected) in [("truncate", 3), ("append", 7), ("loose end", 6)] {
        let mut rig = Rig::new();
        rig.send("L", "s", 1, Synced);
        rig.with_world(|world| {
            world.edit(Dir::Lots, "L.jsonl", |bytes| match change {
                "truncate" => bytes.clear(),
                "append" => bytes.extend_from_slice(b"{\"sku_local\":\"foreign\"}\n"),
                _ => bytes.extend_from_slice(b"{\"half a line"),
            })
        });
        rig.send("L", "s", 2, Synced);
        assert_eq!(records(&lots(&rig.world()), "L"), expected, "{change}");
        let quarantined = rig.world().names(Dir::Quarantine);
        assert_eq!(quarantined.len(), if change == "loose end" { 2 } else { 0 }, "{change}: {quarantined:?}");
        let restarted = rig.restart();
        assert_eq!(records(&lots(&restarted.world()), "L"), expected, "{change}");
    }
}

#[test]
fn a_change_between_journal_and_append_is_seen_and_the_batch_in_hand_is_written_whole() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    // The journal is synced after the lot was looked at: that is when somebody truncates it.
    let world = rig.disk.world.clone();
    let done = AtomicBool::new(false);
    let changing = Arc::new(Mutex::new(false));
    let flag = changing.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("sync journal/0") && !done.swap(true, Ordering::SeqCst) {
            *flag.lock().unwrap() = true;
        }
        Ok(())
    }));
    let submission = rig.farm.send("L", "s", 2, Synced, 3, 10);
    let other = std::thread::spawn(move || {
        for _ in 0..20_000 {
            if *changing.lock().unwrap() {
                world.lock().unwrap().edit(Dir::Lots, "L.jsonl", Vec::clear);
                return true;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        false
    });
    rig.commit(vec![submission]);
    rig.disk.clear_hook();
    assert!(other.join().unwrap());
    // Whether the change came before the append or after it, the next batch finds the truth.
    rig.send("L", "s", 3, Synced);
    let found = lots(&rig.world());
    assert!([3, 6].contains(&records(&found, "L")), "{}", records(&found, "L"));
    let restarted = rig.restart();
    assert_eq!(lots(&restarted.world()), found);
}

#[test]
fn a_file_shorter_than_its_redo_is_kept_and_the_batches_are_written_behind_it() {
    let mut rig = Rig::new();
    for seq in 1..4 {
        rig.send("L", "s", seq, Synced);
    }
    rig.pass(Duration::from_secs(31));
    rig.settle();
    rig.send("L", "s", 4, Synced);
    let mut world = rig.world();
    world.edit(Dir::Lots, "L.jsonl", |bytes| {
        bytes.clear();
        bytes.extend_from_slice(b"{\"kept\":1}\n{\"loose");
    });
    let after = Rig::on(world, Around::new(), Farm::default());
    let bytes = after.world().read(Dir::Lots, "L.jsonl").unwrap();
    assert!(
        bytes.starts_with(b"{\"kept\":1}\n{\"sku_local\":\"s/4/0\""),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
    assert_eq!(records(&lots(&after.world()), "L"), 4);
    assert_eq!(after.world().names(Dir::Quarantine).len(), 2, "the loose end and its note");
}

#[test]
fn foreign_bytes_behind_the_last_checkpoint_are_set_aside_before_redo() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let mut world = rig.world();
    world.edit(Dir::Lots, "L.jsonl", |bytes| bytes.extend_from_slice(b"{\"foreign\":true}\n"));
    let after = Rig::on(world, Around::new(), rig.farm.clone());
    after.check(false);
    let names = after.world().names(Dir::Quarantine);
    let copy = names.iter().find(|n| !n.ends_with(".txt")).unwrap();
    let bytes = after.world().read(Dir::Quarantine, copy).unwrap();
    assert!(bytes.ends_with(b"{\"foreign\":true}\n"));
}

#[test]
fn damage_to_committed_data_is_refused_with_file_and_offset() {
    let mut rig = Rig::new();
    for seq in 1..10 {
        rig.send("L", "s", seq, Synced);
    }
    let world = rig.world();
    let segment = world.names(Dir::Journal).into_iter().find(|n| n.ends_with(".wal")).unwrap();
    let clean = world.read(Dir::Journal, &segment).unwrap();
    let used = clean.iter().rposition(|b| *b != 0).unwrap();
    let last_frame = clean.windows(7).rposition(|w| w == b"\"s/9/0\"").unwrap() - 400;
    let mut refused = 0;
    for at in (4096..used).step_by(97) {
        let mut damaged = world.clone();
        damaged.edit(Dir::Journal, &segment, |bytes| bytes[at] ^= 0x40);
        let disk = SimDisk::new(damaged);
        match open(&disk, &Around::new(), &config()) {
            Err(error) => {
                assert_eq!(error.exit_code(), 65, "{error}");
                assert!(error.to_string().contains(&segment), "{error}");
                refused += 1;
            }
            // Known limit: nothing vouches for the last synced group. Its lines are in the lot file all the same.
            Ok(_) => assert!(at >= last_frame, "a flip at {at} of {used} was not seen"),
        }
    }
    assert!(refused > 10);
}

#[test]
fn a_missing_journal_beside_lot_files_is_refused() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let mut world = rig.world();
    for name in world.names(Dir::Journal) {
        world.remove(Dir::Journal, &name);
    }
    let error = open(&SimDisk::new(world), &Around::new(), &config()).err().unwrap();
    assert_eq!(error.exit_code(), 65, "{error}");
}

#[test]
fn after_a_failed_journal_sync_nothing_more_is_acknowledged() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let hit = rig.fail_once("sync journal/0", eio);
    let group = vec![rig.farm.send("L", "s", 2, Synced, 3, 10), rig.farm.send("M", "m", 1, Written, 3, 10)];
    let error = commit(&mut rig.vault, group, &rig.around).unwrap_err();
    assert!(hit.load(Ordering::SeqCst) && error.to_string().contains("sync of journal/"), "{error}");
    let more = rig.farm.send("N", "n", 1, Synced, 3, 10);
    assert!(rig.vault.commit_group(vec![more], rig.around.now()).is_err(), "the latch holds");
    let (farm, world) = (rig.farm.clone(), rig.world());
    drop(rig);
    let answers: Vec<_> = farm.hear().sent.into_iter().map(|s| s.answer.unwrap()).collect();
    assert_eq!(answers[1], Outcome::Unknown, "its frame was handed to the kernel: nobody knows");
    assert_eq!(answers[2], Outcome::Stored { lsn: 3, durability: Written }, "it survives the daemon's death");
    assert!(!matches!(answers[3], Outcome::Stored { .. } | Outcome::Duplicate { .. }), "{:?}", answers[3]);
    // What was `written` went with the page whose write-back failed: the disk took it, not the daemon's death.
    recovers_whole(&world, None, &farm.hear(), true);
}

#[test]
fn what_was_stored_long_before_a_sync_failed_on_another_thread_is_not_acknowledged_again() {
    for ack in [Written, Synced] {
        let (around, farm) = (Around::new(), Farm::default());
        let metrics = Arc::new(Metrics::default());
        let storage = Storage::new(Arc::new(SimDisk::new(World::new())), metrics.clone());
        let mut vault = Vault::recover(storage.clone(), &config(), metrics, &around).unwrap();
        let first = farm.send("L", "s", 1, Synced, 3, 10);
        commit(&mut vault, vec![first], &around).unwrap();
        // The writer has not heard of it yet.
        storage.stop(StorageError { what: "sync".to_owned(), source: eio() });
        let again = farm.send("L", "s", 1, ack, 3, 10);
        assert!(vault.commit_group(vec![again], around.now()).is_err());
        drop(vault);
        assert_eq!(farm.hear().sent[1].answer, Some(Outcome::Unknown), "{ack}");
    }
}

#[test]
fn a_failed_sync_of_a_lot_stops_and_recovery_rebuilds_in_new_files() {
    let mut rig = Rig::new();
    for seq in 1..5 {
        rig.send("L", "s", seq, Synced);
    }
    rig.fail_once("sync lots/L", eio);
    rig.around.pass(Duration::from_secs(31));
    let mut result = Ok(());
    for _ in 0..50 {
        result = result.and_then(|()| rig.vault.tick(rig.around.now()));
    }
    assert!(result.is_err(), "fail-stop");
    rig.disk.clear_hook();
    // The page is clean now and the data gone: only new pages reach the disk.
    let before = rig.world();
    let after = rig.restart();
    after.check(false);
    let mut cut = after.world();
    for seed in 0..4 {
        cut = cut.power_cut(&mut Random(seed));
        assert_eq!(lots(&cut), lots(&before), "the rebuilt file is durable");
    }
}

#[test]
fn a_lot_that_cannot_be_written_keeps_its_batch_pending_and_others_go_on() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("write lots/L") && switch.load(Ordering::SeqCst) { Err(eperm()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("L", "s", 2, Synced), None, "committed, but not in its file: it waits");
    let refused = rig.send("L", "s", 3, Synced);
    assert!(matches!(&refused, Some(Outcome::Refused(r)) if r.code == Code::LotUnavailable), "{refused:?}");
    assert!(matches!(rig.send("M", "m", 1, Synced), Some(Outcome::Stored { .. })), "other lots go on");
    let mailbox = Mailbox::new();
    rig.commit(vec![Submission::Sync(mailbox.ticket(0))]);
    let mut answers = Vec::new();
    mailbox.collect(&mut answers);
    assert!(
        matches!(&answers[..], [(0, Outcome::Refused(r))] if r.code == Code::LotUnavailable && r.message.contains("lots/L.jsonl")),
        "{answers:?}"
    );
    // It holds up neither checkpoints nor recovery.
    rig.pass(Duration::from_secs(31));
    rig.settle();
    let world = rig.world();
    let found = recovers_whole(&world, Some(5), &rig.farm.hear(), true);
    assert_eq!(records(&found, "L"), 6);
    // And it is written when the file can be.
    broken.store(false, Ordering::SeqCst);
    rig.pass(Duration::from_secs(1));
    let ledger = rig.check(false);
    assert_eq!(records(&ledger, "L"), 6);
}

#[test]
fn a_full_disk_refuses_before_the_journal_and_recovers_by_itself() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    rig.with_world(|world| world.free_bytes = 1000);
    rig.around.pass(Duration::from_secs(1));
    let refused = rig.send("L", "s", 2, Synced);
    assert!(matches!(&refused, Some(Outcome::Refused(r)) if r.code == Code::NoSpace), "{refused:?}");
    assert!(
        matches!(rig.send("L", "s", 1, Synced), Some(Outcome::Duplicate { .. })),
        "a retry of what is stored"
    );
    rig.with_world(|world| world.free_bytes = 1 << 40);
    rig.around.pass(Duration::from_secs(1));
    assert!(
        matches!(rig.send("L", "s", 2, Synced), Some(Outcome::Stored { .. })),
        "the number was not used up"
    );
    rig.check(false);
}

#[test]
fn a_lot_append_without_space_waits_and_is_resumed_where_it_stopped() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let full = Arc::new(AtomicBool::new(true));
    let switch = full.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("write lots/L") && switch.load(Ordering::SeqCst) { Err(enospc()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("L", "s", 2, Synced), None, "its ticket waits");
    let refused = rig.send("M", "m", 1, Synced);
    assert!(matches!(&refused, Some(Outcome::Refused(r)) if r.code == Code::NoSpace), "{refused:?}");
    full.store(false, Ordering::SeqCst);
    rig.pass(Duration::from_millis(300));
    let sent = rig.farm.hear().sent;
    assert!(matches!(sent[1].answer, Some(Outcome::Stored { .. })), "{:?}", sent[1].answer);
    rig.check(false);
    rig.around.pass(Duration::from_millis(300));
    assert!(matches!(rig.send("M", "m", 1, Synced), Some(Outcome::Stored { .. })));
}

#[test]
fn rename_then_reopen_is_exact() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    rig.with_world(|world| world.rename(Dir::Lots, "L.jsonl", "L.1"));
    rig.send("L", "s", 2, Synced);
    rig.commit(vec![Submission::Order(Order::Reload, unread())]);
    rig.send("L", "s", 3, Synced);
    let world = rig.world();
    assert_eq!(world.read(Dir::Lots, "L.1").unwrap().iter().filter(|b| **b == b'\n').count(), 6);
    assert_eq!(records(&lots(&world), "L"), 3);
    let restarted = rig.restart();
    assert_eq!(records(&lots(&restarted.world()), "L"), 3);
}

#[test]
fn timestamps_increase_from_batch_to_batch_across_restarts_and_small_steps_back() {
    let mut rig = Rig::new();
    rig.around.pass(Duration::from_secs(3000));
    for seq in 1..5 {
        rig.send("L", "s", seq, Synced);
    }
    // The clock is 50 minutes back after the restart.
    let mut rig = Rig::on(rig.world(), Around::new(), rig.farm.clone());
    rig.send("L", "s", 5, Synced);
    rig.check(false);
}

#[test]
fn sessions_survive_checkpoints_restarts_and_power_cuts() {
    let mut rig = Rig::new();
    for n in 0..50 {
        rig.send("L", &format!("s{n}"), 1, Synced);
    }
    rig.pass(Duration::from_secs(31));
    rig.settle();
    for round in 0..3 {
        rig = if round == 1 { rig.power_cut(9) } else { rig.restart() };
        for n in 0..50 {
            let answer = rig.send("L", &format!("s{n}"), 1, Synced);
            assert!(matches!(answer, Some(Outcome::Duplicate { last: Some((3, _)), .. })), "{answer:?}");
        }
        let refused = rig.send("L", "s7", 3, Synced);
        assert!(matches!(&refused, Some(Outcome::Refused(r)) if r.expected == Some(2)), "{refused:?}");
    }
    assert_eq!(records(&lots(&rig.world()), "L"), 150);
}

#[test]
fn one_batch_larger_than_a_segment_gets_one_of_its_own_size() {
    let mut rig = Rig::new();
    let big = rig.farm.send("L", "s", 1, Synced, 40, 20_000);
    rig.commit(vec![big]);
    assert!(matches!(rig.farm.hear().sent[0].answer, Some(Outcome::Stored { .. })));
    rig.send("L", "s", 2, Synced);
    let restarted = rig.power_cut(4);
    restarted.check(true);
    assert_eq!(records(&lots(&restarted.world()), "L"), 43);
}

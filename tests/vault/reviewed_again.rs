//! Sequences that a second review proved to break promises, each by name: other hands and a full disk together.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use lotlog::batch::{Durability, Outcome};
use lotlog::queue::queue;
use lotlog::storage::Dir;

use crate::sequences::{Rig, enospc, eperm, records, world_at};
use crate::sim::*;

use Durability::{Synced, Written};

const FOREIGN: &str = "{\"foreign\":1}\n";

fn own(rig: &Rig) -> Lots {
    let all = lots(&rig.world());
    all.into_iter()
        .map(|(stem, bytes)| {
            let own: Vec<u8> = bytes
                .split_inclusive(|b| *b == b'\n')
                .filter(|l| *l != FOREIGN.as_bytes())
                .flatten()
                .copied()
                .collect();
            (stem, own)
        })
        .collect()
}

/// What the checkpoint inside `apply_changed` leaves pending is dropped by `split_off(kept)`.
#[test]
fn what_becomes_pending_while_another_lot_is_placed_anew_is_not_forgotten() {
    let mut rig = Rig::new();
    rig.send("A", "a", 1, Synced);
    rig.send("B", "b", 1, Synced);
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        let bad = what.starts_with("write lots/") && switch.load(Ordering::SeqCst);
        if bad { Err(eperm()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("A", "a", 2, Synced), None, "pending");
    assert!(matches!(rig.send("B", "b", 2, Written), Some(Outcome::Stored { .. })), "taken");
    rig.with_world(|world| world.edit(Dir::Lots, "A.jsonl", |b| b.extend_from_slice(FOREIGN.as_bytes())));
    rig.pass(Duration::from_millis(300));
    broken.store(false, Ordering::SeqCst);
    rig.disk.clear_hook();
    for _ in 0..40 {
        rig.pass(Duration::from_millis(300));
    }
    let next = rig.send("B", "b", 3, Synced);
    assert!(matches!(next, Some(Outcome::Stored { .. })), "{next:?}");
    rig.pass(Duration::from_secs(31));
    rig.settle();
    let rig = rig.restart();
    assert_eq!(judge(&own(&rig), &rig.farm.hear(), false), Verdict::default());
}

/// Lines that `made_sure` has taken back and cannot write again count as written.
#[test]
fn lines_taken_back_and_not_written_again_are_not_acknowledged() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let (world, once) = (rig.disk.world.clone(), AtomicBool::new(false));
    rig.disk.set_shorten(Box::new(move |what, most| {
        if what.starts_with("write lots/L") && !once.swap(true, Ordering::SeqCst) {
            world.lock().unwrap().edit(Dir::Lots, "L.jsonl", |b| b.extend_from_slice(b"half a line"));
        }
        most
    }));
    rig.disk.set_hook(Box::new(
        |_, what| {
            if what.starts_with("create quarantine/") { Err(enospc()) } else { Ok(()) }
        },
    ));
    rig.send("L", "s", 2, Synced);
    rig.disk.clear_hook();
    for _ in 0..20 {
        rig.pass(Duration::from_millis(300));
    }
    let next = rig.send("L", "s", 3, Synced);
    assert!(matches!(next, Some(Outcome::Stored { .. })), "{next:?}");
    rig.pass(Duration::from_secs(31));
    rig.settle();
    let rig = rig.restart();
    assert_eq!(judge(&own(&rig), &rig.farm.hear(), false), Verdict::default());
}

/// Likewise where the file may only be appended to.
#[test]
fn lines_that_cannot_be_taken_back_are_not_acknowledged_glued() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let (world, once) = (rig.disk.world.clone(), AtomicBool::new(false));
    rig.disk.set_shorten(Box::new(move |what, most| {
        if what.starts_with("write lots/L") && !once.swap(true, Ordering::SeqCst) {
            world.lock().unwrap().edit(Dir::Lots, "L.jsonl", |b| b.extend_from_slice(b"half a line"));
        }
        most
    }));
    rig.disk.set_hook(Box::new(
        |_, what| {
            if what.starts_with("truncate lots/L") { Err(eperm()) } else { Ok(()) }
        },
    ));
    let answer = rig.send("L", "s", 2, Synced);
    let readable =
        lots(&rig.world())["L"].split(|b| *b == b'\n').any(|l| l.starts_with(b"{\"sku_local\":\"s/2/0\""));
    assert!(answer.is_none() || readable, "its first record stands behind somebody's half line");
}

/// A lack of segments that is over is believed for ever.
#[test]
fn a_lack_of_space_that_is_over_leaves_no_busy_loop() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    rig.settle();
    rig.disk.set_hook(Box::new(
        |_, what| {
            if what.starts_with("allocate journal/") { Err(enospc()) } else { Ok(()) }
        },
    ));
    let big = rig.farm.send("L", "s", 2, Synced, 3, 150_000);
    rig.commit(vec![big]);
    rig.disk.clear_hook();
    for _ in 0..40 {
        rig.pass(Duration::from_secs(1));
    }
    let now = rig.around.now().mono;
    let deadline = rig.vault.next_deadline(now);
    assert!(deadline.is_none_or(|at| at > now), "the writer spins");
}

/// A removal that waits for space holds up the writer.
#[test]
fn a_removal_that_waits_for_space_holds_up_no_batch() {
    let mut rig = Rig::new();
    for seq in 1..120 {
        let submission = rig.farm.send("L", "s", seq, Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    let tries = AtomicUsize::new(0);
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("unlink journal/0") {
            assert!(tries.fetch_add(1, Ordering::SeqCst) < 100_000, "the writer waits for the removal");
            return Err(enospc());
        }
        Ok(())
    }));
    rig.pass(Duration::from_secs(31));
    rig.settle();
    for seq in 120..400 {
        let submission = rig.farm.send("L", "s", seq, Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    let last = rig.farm.hear().sent.last().unwrap().answer.clone();
    assert!(matches!(last, Some(Outcome::Stored { .. })), "{last:?}");
}

/// The rest of a line that was written in part, behind somebody's line.
#[test]
fn a_line_written_in_part_is_not_torn_by_what_others_write_behind_it() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let (world, writes) = (rig.disk.world.clone(), AtomicUsize::new(0));
    let full = Arc::new(AtomicBool::new(false));
    let (switch, fill) = (full.clone(), full.clone());
    rig.disk.set_shorten(Box::new(move |what, most| {
        if !what.starts_with("write lots/L") {
            return most;
        }
        match writes.fetch_add(1, Ordering::SeqCst) {
            0 => {
                fill.store(true, Ordering::SeqCst);
                20
            }
            1 => {
                world
                    .lock()
                    .unwrap()
                    .edit(Dir::Lots, "L.jsonl", |b| b.extend_from_slice(b"\n{\"foreign\":1}\n"));
                most
            }
            _ => most,
        }
    }));
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("write lots/L") && switch.load(Ordering::SeqCst) { Err(enospc()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("L", "s", 2, Synced), None);
    full.store(false, Ordering::SeqCst);
    rig.disk.clear_hook();
    for _ in 0..20 {
        rig.pass(Duration::from_millis(300));
    }
    rig.pass(Duration::from_secs(31));
    rig.settle();
    assert_eq!(records(&lots(&rig.world()), "L"), 6, "torn");
}

/// A lot that is gone and cannot be made again: a checkpoint at each retry, and a ticket that waits for ever.
#[test]
fn a_lot_that_is_gone_and_cannot_be_made_again_costs_no_checkpoint_each_retry() {
    let mut rig = Rig::new();
    rig.send("A", "a", 1, Synced);
    rig.send("B", "b", 1, Synced);
    let syncs = Arc::new(AtomicUsize::new(0));
    let count = syncs.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        count.fetch_add(usize::from(what.starts_with("sync journal/0")), Ordering::SeqCst);
        if what.starts_with("create lots/A.jsonl.new") { Err(eperm()) } else { Ok(()) }
    }));
    let once = AtomicBool::new(false);
    rig.disk.set_after(Box::new(move |world, what| {
        if what.starts_with("sync journal/0") && !once.swap(true, Ordering::SeqCst) {
            world.remove(Dir::Lots, "A.jsonl");
        }
    }));
    assert_eq!(rig.send("A", "a", 2, Synced), None);
    let before = syncs.load(Ordering::SeqCst);
    for _ in 0..40 {
        rig.pass(Duration::from_millis(300));
    }
    let answer = rig.farm.hear().sent.last().unwrap().answer.clone();
    assert_eq!(answer, Some(Outcome::Unknown), "after 5 s nobody can say");
    assert!(syncs.load(Ordering::SeqCst) - before < 5);
}

/// A committed batch that waits for space: nobody can say when, so its producer hears so.
#[test]
fn a_batch_that_waits_for_space_is_of_unknown_fate_after_a_while() {
    let mut rig = Rig::new();
    rig.send("A", "a", 1, Synced);
    rig.disk.set_hook(Box::new(
        move |_, what| {
            if what.starts_with("write lots/A") { Err(enospc()) } else { Ok(()) }
        },
    ));
    assert_eq!(rig.send("A", "a", 2, Synced), None);
    for _ in 0..40 {
        rig.pass(Duration::from_millis(300));
    }
    assert_eq!(rig.farm.hear().sent.last().unwrap().answer, Some(Outcome::Unknown));
    rig.disk.clear_hook();
    for _ in 0..4 {
        rig.pass(Duration::from_millis(300));
    }
    rig.check(false);
    assert_eq!(records(&lots(&rig.world()), "A"), 6, "it is committed");
}

/// As `a_lot_file_taken_away_and_brought_back_over_a_crash_keeps_all_that_it_held`, where the directory takes no
/// New names and the batch was tried again a few times.
#[test]
fn a_lot_file_taken_away_for_a_while_and_brought_back_over_a_crash_keeps_all_that_it_held() {
    for retries in 0..6 {
        let mut rig = Rig::new();
        rig.send("L", "s", 1, Synced);
        rig.disk.set_hook(Box::new(move |_, what| {
            if what.starts_with("create lots/L.jsonl.new") { Err(eperm()) } else { Ok(()) }
        }));
        let once = AtomicBool::new(false);
        rig.disk.set_after(Box::new(move |world, what| {
            if what.starts_with("sync journal/0") && !once.swap(true, Ordering::SeqCst) {
                world.rename(Dir::Lots, "L.jsonl", "kept");
                // Its size gives the change away: the name alone would not.
                world.edit(Dir::Lots, "kept", |bytes| bytes.extend_from_slice(FOREIGN.as_bytes()));
            }
        }));
        assert_eq!(rig.send("L", "s", 2, Synced), None, "its lot cannot be used");
        rig.disk.clear_after();
        for _ in 0..retries {
            rig.pass(Duration::from_millis(300));
        }
        rig.with_world(|world| world.rename(Dir::Lots, "kept", "L.jsonl"));
        rig.disk.clear_hook();
        let rig = rig.restart();
        assert_eq!(judge(&own(&rig), &rig.farm.hear(), false), Verdict::default(), "{retries} retries");
    }
}

/// A batch that is in its file in part, and somebody appends behind it.
#[test]
fn a_batch_in_its_file_in_part_is_not_doubled_by_a_change() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let (full, writes) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let (switch, fill) = (full.clone(), full.clone());
    rig.disk.set_shorten(Box::new(move |what, most| {
        if what.starts_with("write lots/L") && writes.fetch_add(1, Ordering::SeqCst) == 0 {
            fill.store(true, Ordering::SeqCst);
            return 350;
        }
        most
    }));
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("write lots/L") && switch.load(Ordering::SeqCst) { Err(enospc()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("L", "s", 2, Synced), None);
    full.store(false, Ordering::SeqCst);
    rig.with_world(|world| world.edit(Dir::Lots, "L.jsonl", |b| b.extend_from_slice(b"\n{\"foreign\":1}\n")));
    rig.disk.clear_hook();
    for _ in 0..20 {
        rig.pass(Duration::from_millis(300));
    }
    assert_eq!(judge(&own(&rig), &rig.farm.hear(), false), Verdict::default());
}

/// Two batches of one session, each in a lot of its own, synced together; the second one reaches its file first.
/// Then what is given in `late`: the outcome of a duplicate of the first one when that is about to be written.
fn told_of_the_older_one(late: bool) -> Option<Outcome> {
    let mut rig = Rig::new();
    rig.send("B", "b", 1, Synced);
    rig.send("A", "a", 1, Synced);
    rig.send("C", "c", 1, Synced);
    let large = 30_000;
    let first = rig.farm.send("A", "s", 1, Synced, 1, 10);
    let second = rig.farm.send("B", "s", 2, Synced, 3, large);
    let again = rig.farm.send("A", "s", 1, Synced, 1, 10);
    let slot = rig.farm.hear().sent.len() - 1;
    let (world, ledger) = world_at(&mut rig, "write lots/A", 1, |rig| {
        let now = rig.around.now();
        let mut again = Some(again);
        let mut group = vec![first, second];
        group.extend(again.take_if(|_| !late));
        rig.vault.commit_group(group, now).unwrap();
        while !lots(&rig.world())["B"].windows(6).any(|w| w == b"\"s/2/0") {
            rig.vault.tick(now).unwrap();
        }
        let other = rig.farm.send("C", "c", 2, Synced, 3, large);
        rig.vault.commit_group(again.into_iter().chain([other]).collect(), now).unwrap();
        while rig.vault.is_busy() {
            rig.vault.tick(now).unwrap();
        }
    });
    assert!(!lots(&world)["A"].windows(6).any(|w| w == b"\"s/1/0"), "not yet");
    let after = rig.farm.hear().sent[slot].answer.clone();
    assert!(matches!(after, Some(Outcome::Duplicate { last: None, .. })), "{after:?}");
    rig.check(false);
    ledger.sent[slot].answer.clone()
}

#[test]
fn the_duplicate_of_an_older_batch_waits_for_that_one_in_another_lot() {
    assert_eq!(told_of_the_older_one(true), None, "asked when the session's last batch was in its file");
    assert_eq!(told_of_the_older_one(false), None, "asked when neither was synced");
}

/// Batches that the commit before a checkpoint brings into their files are answered before its syncs.
#[test]
fn who_is_answered_before_a_checkpoint_does_not_wait_for_its_syncs() {
    let rig = Rig::new();
    let (sender, receiver) = queue();
    // More segments than may be held without a checkpoint, in one group.
    for seq in 1..=200 {
        sender.try_send(rig.farm.send("L", "s", seq, Synced, 1, 25_000)).unwrap();
    }
    drop(sender);
    let heard = Arc::new(AtomicBool::new(false));
    let (mark, farm, once) = (heard.clone(), rig.farm.clone(), AtomicBool::new(false));
    rig.disk.set_hook(Box::new(move |_, what| {
        if what.starts_with("sync lots/L") && !once.swap(true, Ordering::SeqCst) {
            let filled = pin!(farm.mailbox.filled());
            let rung = filled.poll(&mut Context::from_waker(Waker::noop())).is_ready();
            mark.store(rung && farm.hear().sent.iter().all(|s| s.answer.is_some()), Ordering::SeqCst);
        }
        Ok(())
    }));
    rig.vault.run(receiver).unwrap();
    assert!(heard.load(Ordering::SeqCst), "their lots are synced, and nobody has woken them");
}

/// The checkpoint under way when the journal becomes too long makes it short: nobody waits for a second one.
#[test]
fn back_pressure_ends_with_the_checkpoint_under_way() {
    let mut rig = Rig::new();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = syncs.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        counted.fetch_add(usize::from(what.starts_with("sync lots/L")), Ordering::SeqCst);
        Ok(())
    }));
    let mut seqs = 1..;
    let mut group = |count| -> Vec<_> {
        seqs.by_ref().take(count).map(|seq| rig.farm.send("L", "s", seq, Synced, 1, 25_000)).collect()
    };
    // About 15 segments, of which 8 want a checkpoint and 16 hold up the next group.
    let now = rig.around.now();
    rig.vault.commit_group(group(145), now).unwrap();
    rig.vault.tick(now).unwrap();
    while rig.vault.is_busy() {
        rig.vault.tick(now).unwrap();
    }
    rig.vault.tick(now).unwrap();
    assert_eq!(syncs.load(Ordering::SeqCst), 0, "it is begun, not ended");
    let (sender, receiver) = queue();
    let vault = rig.vault;
    let writer = std::thread::spawn(move || vault.run(receiver));
    let deadline = Instant::now() + Duration::from_secs(60);
    for count in [40, 1] {
        for submission in group(count) {
            sender.try_send(submission).unwrap();
        }
        while !rig.farm.hear().sent.iter().all(|s| s.answer.is_some()) {
            assert!(Instant::now() < deadline, "the answers do not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(syncs.load(Ordering::SeqCst), 1, "checkpoints that the third group had to wait for");
    drop(sender);
    writer.join().unwrap().unwrap();
}

/// As many segments as a checkpoint makes needless are used up until the next one does: none is removed and made anew.
#[test]
fn under_a_steady_load_segments_are_made_of_old_ones() {
    let mut rig = Rig::new();
    let changes = Arc::new(AtomicUsize::new(0));
    let counted = changes.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        let of_journal = what.contains("journal/") && !what.contains("syncing");
        counted.fetch_add(
            usize::from(of_journal && (what.starts_with("unlink") || what.starts_with("create"))),
            Ordering::SeqCst,
        );
        Ok(())
    }));
    let now = rig.around.now();
    let mut made = Vec::new();
    // Five batches fill half a segment; each round is three checkpoints and more.
    for round in 0..4 {
        for group in 0..60 {
            let first = (round * 60 + group) * 5;
            let group =
                (1..=5).map(|n| rig.farm.send("L", "s", first + n, Synced, 1, 25_000)).collect::<Vec<_>>();
            rig.vault.commit_group(group, now).unwrap();
            for _ in 0..20 {
                rig.vault.tick(now).unwrap();
            }
        }
        made.push(changes.swap(0, Ordering::SeqCst));
    }
    assert!(made[0] > 8, "the first ones are made: {made:?}");
    assert_eq!(made[1..], [0, 0, 0], "segments made or removed in each round");
    rig.check(false);
}

//! Sequences that a review proved to break promises, each by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lotlog::batch::{Code, Durability, Outcome};
use lotlog::storage::Dir;

use crate::sequences::{Rig, eio, enospc, eperm, records, world_at};
use crate::sim::*;

use Durability::{Synced, Written};

const FOREIGN: &str = "{\"foreign\":1}\n";

#[test]
fn a_lot_that_fails_midway_through_recovery_loses_none_of_its_batches() {
    let mut rig = Rig::new();
    let (a, b) = (rig.farm.send("L", "s", 1, Synced, 3, 10), rig.farm.send("L", "s", 2, Synced, 3, 10));
    let (world, _) = world_at(&mut rig, "write lots/L", 1, |rig| rig.commit(vec![a, b]));
    let disk = SimDisk::new(world);
    let writes = AtomicUsize::new(0);
    disk.set_hook(Box::new(move |_, what| {
        let second = what.starts_with("write lots/L") && writes.fetch_add(1, Ordering::SeqCst) >= 1;
        // EFBIG: a limit of this file alone.
        if second { Err(io::Error::from_raw_os_error(27)) } else { Ok(()) }
    }));
    let around = Around::new();
    let mut vault = open(&disk, &around, &config()).unwrap();
    disk.clear_hook();
    for _ in 0..20 {
        around.pass(Duration::from_millis(300));
        vault.tick(around.now()).unwrap();
    }
    let found = lots(&disk.world.lock().unwrap());
    assert_eq!(judge(&found, &rig.farm.hear(), false), Verdict::default());
    assert_eq!(records(&found, "L"), 6);
}

#[test]
fn a_lot_that_somebody_keeps_appending_to_loses_nothing_and_starts_again() {
    for stops_after in 1..14 {
        let mut rig = Rig::new();
        rig.send("A", "s", 1, Synced);
        rig.send("A", "s", 2, Written);
        let world = rig.disk.world.clone();
        let append = move |times: usize| {
            world
                .lock()
                .unwrap()
                .edit(Dir::Lots, "A.jsonl", |b| b.extend_from_slice(FOREIGN.repeat(times).as_bytes()));
        };
        append(1);
        let appends = Arc::new(AtomicUsize::new(0));
        rig.disk.set_after(Box::new(move |world, what| {
            if what.starts_with("sync journal/0") && appends.fetch_add(1, Ordering::SeqCst) < stops_after {
                world.edit(Dir::Lots, "A.jsonl", |b| b.extend_from_slice(FOREIGN.repeat(60).as_bytes()));
            }
        }));
        rig.send("A", "s", 3, Synced);
        rig.disk.clear_after();
        let killed = rig.world();
        assert!(open(&SimDisk::new(killed), &Around::new(), &config()).is_ok(), "the journal is sound");
        for _ in 0..20 {
            rig.pass(Duration::from_millis(300));
        }
        let all = lots(&rig.world());
        let own = |bytes: &Vec<u8>| -> Vec<u8> {
            let lines = bytes.split_inclusive(|b| *b == b'\n').filter(|l| *l != FOREIGN.as_bytes());
            lines.flatten().copied().collect()
        };
        let own = BTreeMap::from([("A".to_owned(), own(&all["A"]))]);
        assert_eq!(judge(&own, &rig.farm.hear(), false), Verdict::default(), "stops after {stops_after}");
    }
}

#[test]
fn a_duplicate_in_a_group_whose_sync_fails_is_of_unknown_fate_too() {
    let mut rig = Rig::new();
    let group = vec![rig.farm.send("L", "s", 1, Synced, 3, 10), rig.farm.send("L", "s", 1, Synced, 3, 10)];
    rig.fail_once("sync journal/0", eio);
    assert!(commit(&mut rig.vault, group, &rig.around).is_err());
    let farm = rig.farm.clone();
    drop(rig);
    for sent in farm.hear().sent {
        assert_eq!(sent.answer, Some(Outcome::Unknown));
    }
}

#[test]
fn a_closed_segment_without_its_successor_is_damage() {
    let mut rig = Rig::new();
    for seq in 1..120 {
        let submission = rig.farm.send("L", "s", seq, Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    let mut world = rig.world();
    let names: Vec<String> = world.names(Dir::Journal).into_iter().filter(|n| n.ends_with(".wal")).collect();
    for name in &names[1..] {
        world.remove(Dir::Journal, name);
    }
    let error = open(&SimDisk::new(world), &Around::new(), &config()).err().unwrap();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(&names[1]), "{error}");
}

#[test]
fn a_full_disk_at_the_marker_of_a_checkpoint_ends_nothing() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let left = AtomicUsize::new(5);
    rig.disk.set_hook(Box::new(move |_, what| {
        let full = what.starts_with("write journal/syncing")
            && left.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if full { Err(enospc()) } else { Ok(()) }
    }));
    rig.pass(Duration::from_secs(31));
    rig.settle();
    assert!(matches!(rig.send("L", "s", 2, Synced), Some(Outcome::Stored { .. })));
    rig.check(false);
}

#[test]
fn something_named_like_an_unfinished_lot_file_refuses_that_lot_alone() {
    let mut rig = Rig::new();
    rig.disk.set_hook(Box::new(|_, what| {
        if what.ends_with("lots/A.jsonl.new") { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
    }));
    let refused = rig.send("A", "a", 1, Synced);
    assert!(matches!(&refused, Some(Outcome::Refused(r)) if r.code == Code::LotUnavailable), "{refused:?}");
    assert!(matches!(rig.send("B", "b", 1, Synced), Some(Outcome::Stored { .. })));
}

#[test]
fn a_full_session_table_takes_new_sessions_when_old_ones_are_forgotten() {
    let (disk, around, farm) = (SimDisk::new(World::new()), Around::new(), Farm::default());
    let config = lotlog::config::VaultConfig { session_memory_bytes: 512, ..config() };
    let vault = open(&disk, &around, &config).unwrap();
    let mut rig = Rig { disk, around, farm, vault };
    rig.send("L", "a", 1, Synced);
    rig.send("L", "b", 1, Synced);
    let full = rig.send("L", "c", 1, Synced);
    assert!(matches!(&full, Some(Outcome::Refused(r)) if r.code == Code::Busy), "{full:?}");
    rig.pass(Duration::from_secs(8 * 24 * 3600));
    rig.settle();
    assert!(matches!(rig.send("L", "c", 1, Synced), Some(Outcome::Stored { .. })));
}

#[test]
fn a_batch_is_not_acknowledged_before_its_new_file_has_its_name() {
    let mut rig = Rig::new();
    let (full, writes) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let switch = full.clone();
    rig.disk.set_hook(Box::new(move |_, what| {
        let third = what.starts_with("write lots/L") && writes.fetch_add(1, Ordering::SeqCst) >= 2;
        if third && switch.load(Ordering::SeqCst) { Err(enospc()) } else { Ok(()) }
    }));
    // The first is in the file with two writes, the second is not.
    let group =
        vec![rig.farm.send("L", "a", 1, Synced, 3, 400_000), rig.farm.send("L", "b", 1, Synced, 3, 400_000)];
    rig.commit(group);
    assert_eq!(records(&lots(&rig.world()), "L"), 0, "no reader sees the file yet");
    assert!(rig.farm.hear().sent.iter().all(|sent| sent.answer.is_none()));
    full.store(false, Ordering::SeqCst);
    rig.pass(Duration::from_millis(300));
    assert!(rig.farm.hear().sent.iter().all(|sent| matches!(sent.answer, Some(Outcome::Stored { .. }))));
    rig.check(false);
}

#[test]
fn a_batch_whose_new_file_gets_no_name_is_of_unknown_fate() {
    let mut rig = Rig::new();
    rig.fail_once("rename lots/L", eio);
    let group = vec![rig.farm.send("L", "s", 1, Synced, 3, 10)];
    assert!(commit(&mut rig.vault, group, &rig.around).is_err(), "fail-stop");
    let (farm, world) = (rig.farm.clone(), rig.world());
    drop(rig);
    assert_eq!(farm.hear().sent[0].answer, Some(Outcome::Unknown), "no reader saw it");
    let after = Rig::on(world, Around::new(), farm);
    assert_eq!(records(&lots(&after.world()), "L"), 3, "the journal has it");
}

#[test]
fn a_duplicate_asked_synced_waits_for_all_that_its_session_has_pending() {
    let mut rig = Rig::new();
    let (a, b) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (broken_a, broken_b) = (a.clone(), b.clone());
    rig.disk.set_hook(Box::new(move |_, what| {
        let broken = what.starts_with("write lots/A") && broken_a.load(Ordering::SeqCst)
            || what.starts_with("write lots/B") && broken_b.load(Ordering::SeqCst);
        if broken { Err(eperm()) } else { Ok(()) }
    }));
    assert_eq!(rig.send("A", "s", 1, Synced), None);
    assert_eq!(rig.send("B", "s", 2, Synced), None);
    assert!(matches!(rig.send("C", "s", 3, Synced), Some(Outcome::Stored { .. })));
    let last = rig.send("C", "s", 3, Synced);
    assert!(
        matches!(last, Some(Outcome::Duplicate { last: Some((3, 3)), .. })),
        "it is in its file: {last:?}"
    );
    assert_eq!(rig.send("A", "s", 1, Synced), None);
    let asked = rig.farm.hear().sent.len() - 1;
    assert!(
        matches!(rig.send("A", "s", 1, Written), Some(Outcome::Duplicate { .. })),
        "written asks for less"
    );
    for (mended, answered) in [(a, false), (b, true)] {
        mended.store(false, Ordering::SeqCst);
        rig.pass(Duration::from_millis(300));
        let answer = rig.farm.hear().sent[asked].answer.clone();
        assert_eq!(answer.is_some(), answered, "{answer:?}");
        assert!(matches!(answer, None | Some(Outcome::Duplicate { last: None, durability: Synced })));
    }
    rig.check(false);
}

#[test]
fn a_copy_in_quarantine_that_a_power_cut_tore_is_made_again() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    rig.pass(Duration::from_secs(31));
    rig.settle();
    rig.send("L", "s", 2, Synced);
    let mut world = rig.world();
    world.edit(Dir::Lots, "L.jsonl", |bytes| bytes.extend_from_slice(FOREIGN.as_bytes()));
    for seed in 0..60 {
        let disk = SimDisk::new(world.clone());
        let vault = open(&SimDisk::new(world.clone()), &Around::new(), &config()).unwrap();
        let mut again = Rig { disk, around: Around::new(), farm: Farm::default(), vault };
        let (torn, _) = world_at(&mut again, "sync quarantine/", 1, |rig| {
            drop(open(&rig.disk, &rig.around, &config()).unwrap());
        });
        let after = Rig::on(torn.power_cut(&mut Random(seed)), Around::new(), Farm::default());
        let copies = after.world().names(Dir::Quarantine);
        let whole = copies
            .iter()
            .any(|name| after.world().read(Dir::Quarantine, name).unwrap().ends_with(FOREIGN.as_bytes()));
        assert!(whole, "seed {seed}: {copies:?}");
        // And it is durable before its place is used again.
        let cut = after.world().power_cut(&mut Random(seed));
        assert!(cut.names(Dir::Quarantine).len() >= 2, "seed {seed}");
    }
}

/// A lot whose file is moved away, and its name made unusable, while a batch is on its way to it.
fn taken_away() -> (Rig, Arc<AtomicBool>) {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, Synced);
    let barred = Arc::new(AtomicBool::new(false));
    let (bar, switch) = (barred.clone(), barred.clone());
    rig.disk.set_look(Box::new(move |what| {
        let there = what.starts_with("open lots/L.jsonl") && switch.load(Ordering::SeqCst);
        if there { Err(eperm()) } else { Ok(()) }
    }));
    rig.disk.set_after(Box::new(move |world, what| {
        if what.starts_with("sync journal/0") && !bar.swap(true, Ordering::SeqCst) {
            world.edit(Dir::Lots, "L.jsonl", |bytes| bytes.extend_from_slice(FOREIGN.as_bytes()));
            world.rename(Dir::Lots, "L.jsonl", "kept");
        }
    }));
    assert_eq!(rig.send("L", "s", 2, Synced), None, "its lot cannot be used");
    rig.disk.clear_after();
    rig.with_world(|world| world.rename(Dir::Lots, "kept", "L.jsonl"));
    (rig, barred)
}

/// Judges the lots without the lines of others.
#[track_caller]
fn check_own(rig: &Rig) {
    let own = |bytes: Vec<u8>| -> Vec<u8> {
        bytes
            .split_inclusive(|b| *b == b'\n')
            .filter(|l| *l != FOREIGN.as_bytes())
            .flatten()
            .copied()
            .collect()
    };
    let own = lots(&rig.world()).into_iter().map(|(stem, bytes)| (stem, own(bytes))).collect();
    assert_eq!(judge(&own, &rig.farm.hear(), false), Verdict::default());
}

#[test]
fn a_lot_file_taken_away_and_brought_back_over_a_crash_keeps_all_that_it_held() {
    let (rig, _) = taken_away();
    let rig = rig.restart();
    check_own(&rig);
}

#[test]
fn a_lot_file_brought_back_after_a_start_without_it_keeps_all_that_it_held() {
    let (rig, barred) = taken_away();
    let world = rig.world();
    let (disk, around, farm) = (SimDisk::new(world), rig.around.clone(), rig.farm.clone());
    let switch = barred.clone();
    disk.set_look(Box::new(move |what| {
        let there = what.starts_with("open lots/L.jsonl") && switch.load(Ordering::SeqCst);
        if there { Err(eperm()) } else { Ok(()) }
    }));
    let vault = open(&disk, &around, &config()).unwrap();
    let mut rig = Rig { disk, around, farm, vault };
    barred.store(false, Ordering::SeqCst);
    rig.pass(Duration::from_millis(300));
    check_own(&rig);
}

#[test]
fn a_file_cut_again_between_two_attempts_of_a_recovery_is_taken_as_it_is_again() {
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
        bytes.extend_from_slice(FOREIGN.repeat(3).as_bytes());
    });
    let disk = SimDisk::new(world);
    let vault = rig.vault;
    let mut again = Rig { disk, around: Around::new(), farm: Farm::default(), vault };
    // The first attempt has recorded where it writes, and dies.
    let (mut world, _) = world_at(&mut again, "write lots/L", 1, |rig| {
        drop(open(&rig.disk, &rig.around, &config()).unwrap());
    });
    world.edit(Dir::Lots, "L.jsonl", |bytes| bytes.truncate(FOREIGN.len()));
    let after = Rig::on(world, Around::new(), Farm::default());
    let bytes = after.world().read(Dir::Lots, "L.jsonl").unwrap();
    assert!(!bytes.contains(&0), "no hole is left");
    assert_eq!(records(&lots(&after.world()), "L"), 4);
}

#[test]
fn what_others_truncated_and_a_power_cut_brought_back_harms_no_new_batch() {
    for seed in 0..60 {
        let mut rig = Rig::new();
        for seq in 1..4 {
            rig.send("L", "s", seq, Synced);
        }
        rig.pass(Duration::from_secs(31));
        rig.settle();
        rig.with_world(|world| world.truncate_loosely(Dir::Lots, "L.jsonl", 0));
        rig.send("L", "s", 4, Synced);
        let rig = rig.power_cut(seed);
        let found = lots(&rig.world());
        let own: Vec<u8> = found["L"]
            .split_inclusive(|b| *b == b'\n')
            .filter(|line| line.starts_with(b"{\"sku_local\":\"s/4/"))
            .flatten()
            .copied()
            .collect();
        let mut ledger = rig.farm.hear();
        ledger.sent.drain(..3);
        let own = BTreeMap::from([("L".to_owned(), own)]);
        assert_eq!(judge(&own, &ledger, true), Verdict::default(), "seed {seed}");
    }
}

#[test]
fn a_full_disk_on_which_nothing_can_even_be_removed_is_waited_for() {
    let mut rig = Rig::new();
    for seq in 1..120 {
        let submission = rig.farm.send("L", "s", seq, Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    let left = AtomicUsize::new(5);
    rig.disk.set_hook(Box::new(move |_, what| {
        let full = what.starts_with("unlink journal/0")
            && left.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if full { Err(enospc()) } else { Ok(()) }
    }));
    rig.pass(Duration::from_secs(31));
    rig.settle();
    assert!(matches!(rig.send("L", "s", 120, Synced), Some(Outcome::Stored { .. })));
    for _ in 0..8 {
        rig.pass(Duration::from_millis(300));
    }
    let left = rig.world().names(Dir::Journal);
    assert!(!left.contains(&"0000000000000001.wal".to_owned()), "the old ones are gone: {left:?}");
}

//! Sequences that a review proved to break promises, each by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lotlog::batch::{Code, Durability, Outcome};
use lotlog::storage::Dir;

use crate::sequences::{Rig, eio, enospc, records, world_at};
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
    assert!(rig.vault.commit_group(group, rig.around.now()).is_err());
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

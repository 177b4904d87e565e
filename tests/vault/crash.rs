//! Crash images: a random workload on a disk in memory, a power cut or a kill at every storage call, recovery,
//! and the judge. `LOTLOG_SEED` repeats a schedule, `LOTLOG_SCHEDULES` sets their number.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sim::*;
use lotlog::batch::{Durability, LotId};
use lotlog::order::Order;
use lotlog::queue::Submission;

type Image = (World, Ledger, String);

/// Runs a random workload; gives the worlds (with what was known then) at a sample of its storage calls.
fn workload(seed: u64, sample_percent: u64) -> Vec<Image> {
    let mut random = Random(seed);
    let around = Around::new();
    let disk = SimDisk::new(World::new());
    let farm = Farm::default();
    let images: Arc<Mutex<Vec<Image>>> = Arc::default();
    let mut vault = open(&disk, &around, &config()).unwrap();
    let (heard, taken, mut dice) = (farm.clone(), images.clone(), Random(seed ^ 1));
    disk.set_hook(Box::new(move |world, what| {
        let percent = if what.starts_with("write lots/") { sample_percent } else { sample_percent * 2 };
        if dice.chance(percent) {
            taken.lock().unwrap().push((world.clone(), heard.hear(), what.to_owned()));
        }
        Ok(())
    }));
    let mut seqs = [0u64; 4];
    for _ in 0..40 + random.below(40) {
        let mut group = Vec::new();
        for _ in 0..1 + random.below(6) {
            let producer = random.below(4);
            seqs[producer] += 1;
            let ack = if random.chance(60) { Durability::Synced } else { Durability::Written };
            let lot = format!("lot-{}", random.below(12));
            let pad = if random.chance(10) { 20_000 } else { random.below(300) };
            group.push(farm.send(
                &lot,
                &format!("p{producer}"),
                seqs[producer],
                ack,
                1 + random.below(6),
                pad,
            ));
        }
        if random.chance(4) {
            let lot = format!("lot-{}", random.below(12));
            let lot = LotId::new(&lot, &format!("\"{lot}\"")).unwrap();
            let lot = Some(lot).filter(|_| random.chance(85));
            group.push(Submission::Order(Order::Rotate(lot), unread()));
        }
        vault.commit_group(group, around.now()).unwrap();
        around.pass(Duration::from_millis(random.below(1500) as u64));
        for _ in 0..random.below(4) {
            vault.tick(around.now()).unwrap();
        }
        if random.chance(5) {
            around.pass(Duration::from_secs(31));
        }
    }
    if random.chance(50) || sample_percent == 0 {
        vault.close(around.now()).unwrap();
    }
    disk.clear_hook();
    let mut images = std::mem::take(&mut *images.lock().unwrap());
    images.push((disk.world.lock().unwrap().clone(), farm.hear(), "the end".to_owned()));
    images
}

#[track_caller]
fn check_recovers(image: &Image, after: World, power_cut: bool, note: &str) -> World {
    let (before, ledger, what) = image;
    let disk = SimDisk::new(after);
    let around = Around::new();
    around.pass(Duration::from_secs(100_000));
    let vault = match open(&disk, &around, &config()) {
        Ok(vault) => vault,
        Err(error) => panic!("{note}, cut at `{what}`: {error}"),
    };
    drop(vault);
    let world = disk.world.lock().unwrap().clone();
    let found = lots(&world);
    let mut verdict = judge(&found, ledger, power_cut);
    verdict.vanished = vanished(&lots(before), &found);
    assert_eq!(verdict, Verdict::default(), "{note}, cut at `{what}`");
    for name in world.names(lotlog::storage::Dir::Lots) {
        assert!(name.ends_with(".jsonl"), "{note}: {name} is left in lots/");
        assert!(
            !world.read(lotlog::storage::Dir::Lots, &name).unwrap().is_empty(),
            "{note}: {name} is empty"
        );
    }
    assert_eq!(
        world.names(lotlog::storage::Dir::Quarantine),
        Vec::<String>::new(),
        "{note}, cut at `{what}`"
    );
    world
}

pub fn schedules(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("LOTLOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("LOTLOG_SCHEDULES").unwrap_or(default),
    }
}

#[test]
fn after_a_power_cut_at_any_storage_call_nothing_acknowledged_is_lost() {
    let mut cuts = 0;
    for seed in schedules(12) {
        for (at, image) in workload(seed, 15).iter().enumerate() {
            let mut random = Random(seed * 1000 + at as u64);
            check_recovers(
                image,
                image.0.power_cut(&mut random),
                true,
                &format!("LOTLOG_SEED={seed}, image {at}"),
            );
            cuts += 1;
        }
    }
    println!("{cuts} power cuts");
    assert!(cuts >= 100, "only {cuts} cuts");
}

#[test]
fn after_a_kill_at_any_storage_call_not_even_written_batches_are_lost() {
    for seed in schedules(6) {
        for (at, image) in workload(seed + 500, 10).iter().enumerate() {
            check_recovers(image, image.0.clone(), false, &format!("LOTLOG_SEED={seed}, image {at}"));
        }
    }
}

#[test]
fn a_recovery_cut_twice_ends_as_one_that_was_not() {
    for seed in schedules(6) {
        for (at, image) in workload(seed + 900, 2).iter().enumerate() {
            let note = format!("LOTLOG_SEED={seed}, image {at}");
            let mut random = Random(seed * 77 + at as u64);
            let cut = image.0.power_cut(&mut random);
            let clean = check_recovers(image, cut.clone(), true, &note);
            let mut world = cut;
            for _ in 0..2 {
                // Recover, stopping at a random storage call, by a kill or by a power cut.
                let disk = SimDisk::new(world.clone());
                let stop = random.below(60);
                let (images, mut calls): (Arc<Mutex<Option<World>>>, usize) = (Arc::default(), 0);
                let taken = images.clone();
                disk.set_hook(Box::new(move |world, _| {
                    calls += 1;
                    if calls == stop {
                        *taken.lock().unwrap() = Some(world.clone());
                    }
                    Ok(())
                }));
                let around = Around::new();
                around.pass(Duration::from_secs(90_000));
                drop(open(&disk, &around, &config()).unwrap());
                let stopped = images.lock().unwrap().take();
                let stopped = stopped.unwrap_or_else(|| disk.world.lock().unwrap().clone());
                world = if random.chance(50) { stopped.power_cut(&mut random) } else { stopped };
            }
            let twice = check_recovers(image, world, true, &note);
            assert_eq!(lots(&twice), lots(&clean), "{note}: the lots differ");
        }
    }
}

#[test]
fn the_judge_counts_each_kind_of_damage() {
    let images = workload(4242, 0);
    let (world, ledger, _) = images.last().unwrap();
    judge_the_judge(&lots(world), ledger, false);
}

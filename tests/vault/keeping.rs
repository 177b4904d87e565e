//! Keeping the archive on the modelled disk: when its rounds come, what they remove and what they never do, a kill or a
//! power cut at every storage call of compression and retention, and each of their calls failing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lotlog::batch::{Durability, LotId};
use lotlog::config::VaultConfig;
use lotlog::order::Order;
use lotlog::queue::Submission;
use lotlog::storage::Dir;
use lotlog::vault::Vault;

use crate::sim::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A vault that keeps an archive.
struct Keeper {
    disk: SimDisk,
    around: Around,
    farm: Farm,
    vault: Vault,
}

impl Keeper {
    fn new(config: &VaultConfig) -> Keeper {
        Keeper::on(World::new(), Around::new(), Farm::default(), config)
    }

    fn on(world: World, around: Around, farm: Farm, config: &VaultConfig) -> Keeper {
        let disk = SimDisk::new(world);
        let vault = open(&disk, &around, config).unwrap();
        let mut keeper = Keeper { disk, around, farm, vault };
        keeper.pass(Duration::ZERO);
        keeper
    }

    /// Lets time pass, and the vault look once.
    fn pass(&mut self, time: Duration) {
        self.around.pass(time);
        let now = self.around.now();
        self.disk.world.lock().unwrap().seconds = now.wall_micros / 1_000_000;
        self.vault.tick(now).unwrap();
    }

    /// Stores a batch of so many bytes and has the lot's file archived.
    fn archive(&mut self, lot: &str, seq: u64, bytes: usize) {
        let batch = self.farm.send(lot, lot, seq, Durability::Synced, 1, bytes);
        commit(&mut self.vault, vec![batch], &self.around).unwrap();
        let id = LotId::new(lot, &format!("\"{lot}\"")).ok();
        let order = Submission::Order(Order::Rotate(id), unread());
        commit(&mut self.vault, vec![order], &self.around).unwrap();
        let archived = |keeper: &Keeper| keeper.files(lot).len();
        let before = archived(self);
        for _ in 0..200 {
            self.pass(Duration::from_millis(10));
            if archived(self) > before {
                return;
            }
        }
        panic!("{lot} is not archived");
    }

    /// The names of a lot's archived files.
    fn files(&self, lot: &str) -> Vec<String> {
        let dir = format!("lot={lot}");
        self.disk.world.lock().unwrap().names_below(Dir::Archive, Some(&dir)).unwrap_or_default()
    }
}

#[test]
fn a_round_that_takes_longer_than_the_time_between_two_is_waited_for() {
    let config = VaultConfig { segment_bytes: 8 << 20, archive_compress: 1, ..VaultConfig::default() };
    let mut keeper = Keeper::new(&VaultConfig { archive_compress: 0, ..config.clone() });
    keeper.archive("A", 1, 4 << 20);
    let world = keeper.disk.world.lock().unwrap().clone();
    let mut keeper = Keeper::on(world, keeper.around, Farm::default(), &config);
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = rounds.clone();
    keeper.disk.set_look(Box::new(move |what| {
        counted.fetch_add(usize::from(what == "list archive/"), Ordering::SeqCst);
        Ok(())
    }));
    // Each look is a part of the work, and a quarter of an hour.
    let mut looks = 0;
    while keeper.files("A") != ["00000000000000000001.jsonl.zst"] {
        keeper.pass(15 * MINUTE);
        looks += 1;
        let now = keeper.around.now().mono;
        assert!(keeper.vault.next_deadline(now).is_none_or(|at| at > now), "it is looked at without a pause");
        assert!(looks < 100, "{:?}", keeper.files("A"));
    }
    assert!(looks > 5, "the work is too short: {looks} looks");
    let before = rounds.load(Ordering::SeqCst);
    for _ in 0..50 {
        keeper.pass(Duration::ZERO);
    }
    assert!(rounds.load(Ordering::SeqCst) - before <= 1, "rounds have queued up");
}

//! A user's quota on the modelled disk: `written` batches hold it until they are synced, whatever was answered, and a user
//! whose quota runs short does not wait for the timer.

use std::sync::Arc;
use std::time::Duration;

use lotlog::batch::{Durability, Outcome};
use lotlog::budget::{Budget, Held, Hold};
use lotlog::config::VaultConfig;
use lotlog::queue::Submission;
use lotlog::vault::Vault;

use crate::sim::*;

const QUOTA_BYTES: usize = 100_000;

struct Scene {
    around: Around,
    farm: Farm,
    vault: Vault,
    quota: Arc<Budget>,
}

impl Scene {
    fn new(disk: &SimDisk) -> Scene {
        let around = Around::new();
        let config = VaultConfig { segment_bytes: 8 << 20, ..VaultConfig::default() };
        let vault = open(disk, &around, &config).unwrap();
        Scene { around, farm: Farm::default(), vault, quota: Budget::new(QUOTA_BYTES) }
    }

    /// Stores a `written` batch that holds so much of the quota; it is answered at once.
    fn write(&mut self, seq: u64, held_bytes: usize) {
        let batch = self.farm.send("A", "p", seq, Durability::Written, 1, 100);
        let Submission::Batch(batch, ticket) = batch else { panic!("a batch") };
        let of = |budget: &Arc<Budget>| Hold::new(None, budget.try_take(held_bytes, 0).unwrap());
        let held = Held::new(of(&Budget::new(usize::MAX)), Some(of(&self.quota)));
        let group = vec![Submission::Batch(batch, ticket.holding(held))];
        self.vault.commit_group(group, self.around.now()).unwrap();
        let last = self.farm.hear().sent.last().unwrap().answer.clone();
        assert!(matches!(last, Some(Outcome::Stored { .. })), "{last:?}");
    }

    /// Lets the vault work, a millisecond in all.
    fn work(&mut self) {
        for _ in 0..100 {
            self.around.pass(Duration::from_micros(10));
            self.vault.tick(self.around.now()).unwrap();
        }
    }
}

#[test]
fn a_written_batch_keeps_its_part_of_the_quota_until_it_is_synced() {
    let disk = SimDisk::new(World::new());
    let mut scene = Scene::new(&disk);
    scene.write(1, QUOTA_BYTES / 4);
    scene.work();
    assert_eq!(scene.quota.used_bytes(), QUOTA_BYTES / 4, "nobody waits for its sync yet");
    scene.around.pass(Duration::from_secs(1));
    scene.work();
    assert_eq!(scene.quota.used_bytes(), 0);
}

#[test]
fn where_the_quota_runs_short_the_sync_comes_at_once() {
    let disk = SimDisk::new(World::new());
    let mut scene = Scene::new(&disk);
    for seq in 1..=20 {
        scene.write(seq, QUOTA_BYTES / 2);
        scene.work();
        assert_eq!(scene.quota.used_bytes(), 0, "batch {seq}");
    }
}

#[test]
fn what_cannot_be_written_to_its_lot_keeps_nobodys_quota() {
    let disk = SimDisk::new(World::new());
    let mut scene = Scene::new(&disk);
    scene.write(1, QUOTA_BYTES / 2);
    scene.work();
    disk.set_hook(Box::new(|_, what| {
        if what.starts_with("append lots/A") || what.starts_with("write lots/A") {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }));
    scene.write(2, QUOTA_BYTES / 2);
    scene.work();
    assert_eq!(
        disk.world
            .lock()
            .unwrap()
            .read(lotlog::storage::Dir::Lots, "A.jsonl")
            .unwrap()
            .iter()
            .filter(|b| **b == b'\n')
            .count(),
        1
    );
    assert_eq!(scene.quota.used_bytes(), 0);
}

//! Group commit: one sync of the journal at a time, made in the background while the writer journals further
//! groups; what it covers is then appended to the lot files, lot by lot between the groups. Part of the vault.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::apply::{PENDING_PATIENCE, by_lot};
use crate::batch::{Code, Durability, Outcome, Refusal};
use crate::vault::{Now, Staged, Vault, VaultError, unavailable};

/// Most journalled bytes that wait for their sync behind the one under way: no group is taken until that ends. As many
/// batches are in memory then, and those that the sync before covered.
pub const UNSYNCED_BYTES: u64 = 4 << 20;
/// So many journalled bytes begin a sync although nobody waits for it yet: the disk has it easier with little
/// and often, and what waits takes memory.
const SYNC_BYTES: u64 = 2 << 20;
const _: () = assert!(SYNC_BYTES < UNSYNCED_BYTES);
/// A sync of no more than this is made by the writer itself if everybody whose batch it covers waits for it: it is
/// short, and handing it over and hearing of its end would take as long again.
const SMALL_SYNC_BYTES: u64 = 64 << 10;
/// Between two groups about so many bytes of lines are appended: what is to be answered at once does not wait for all
/// of them, and small batches are still answered together.
const TURN_BYTES: u64 = 64 << 10;

impl Vault {
    /// Whether something is on its way without anybody's doing: a sync under way, or batches that it covered.
    pub fn is_busy(&self) -> bool {
        self.journal.is_syncing() || !self.ready.is_empty()
    }

    /// Begins a sync if one is wanted and none is under way; waits for that one if too much came meanwhile.
    pub(crate) fn sync_if_wanted(&mut self, now: Now) -> Result<(), VaultError> {
        if self.journal.unsynced_bytes() >= UNSYNCED_BYTES
            && let Some(took) = self.journal.wait_for_sync()?
        {
            self.is_synced(took, now)?;
        }
        if self.journal.is_syncing() {
            return Ok(());
        }
        if self.journal.unsynced_bytes() == 0 {
            self.sync_wanted = false;
        } else if self.wants_sync(now.mono) {
            if self.ready.is_empty() && self.is_small() {
                self.cover();
                let took = self.journal.sync_here()?;
                return self.is_synced(took, now);
            }
            self.begin_sync();
        }
        Ok(())
    }

    fn wants_sync(&self, now: Instant) -> bool {
        let unsynced = self.journal.unsynced_bytes();
        unsynced > 0 && (self.sync_wanted || unsynced >= SYNC_BYTES || self.sync_is_due(now))
    }

    /// Whether the next sync is small, and nobody there who asked for less, whose next batch it would hold up.
    fn is_small(&self) -> bool {
        self.journal.unsynced_bytes() <= SMALL_SYNC_BYTES
            && self.staged.iter().all(|s| s.batch.ack == Durability::Synced)
    }

    fn begin_sync(&mut self) {
        self.cover();
        self.journal.begin_sync();
    }

    /// The next sync covers all that is staged.
    fn cover(&mut self) {
        self.covered = self.staged.len();
        self.oldest_unsynced = None;
        self.sync_wanted = false;
        self.group_lots.clear();
    }

    /// Hears whether the sync under way has ended.
    pub(crate) fn hear_sync(&mut self, now: Now) -> Result<(), VaultError> {
        match self.journal.poll_sync()? {
            Some(took) => self.is_synced(took, now),
            None => Ok(()),
        }
    }

    /// What the sync covered may go to its lot files; the next sync begins at once, if one is wanted.
    fn is_synced(&mut self, took: Duration, now: Now) -> Result<(), VaultError> {
        self.count_sync(took);
        // What the sync before it covered may still be on its way, what came before that not.
        while self.overdue > 0 {
            self.apply_some(now)?;
            self.answers.ring();
        }
        self.overdue = self.ready.len();
        let mut covered: Vec<Staged> = self.staged.drain(..std::mem::take(&mut self.covered)).collect();
        covered.iter_mut().for_each(|staged| staged.quota = None);
        // A small one waits until these are answered.
        if !self.journal.is_syncing() && self.wants_sync(now.mono) && !self.is_small() {
            self.begin_sync();
        }
        self.ready.extend(by_lot(covered));
        // Under load there is always something on its way: what is told of it is told once for each sync.
        self.note_applied(now.mono);
        Ok(())
    }

    fn count_sync(&self, took: Duration) {
        self.metrics.sync_seconds.record(took, Instant::now());
        self.metrics.syncs.fetch_add(1, Relaxed);
    }

    /// Appends synced batches to their lot files, as many as one turn has time for.
    pub(crate) fn apply_some(&mut self, now: Now) -> Result<(), VaultError> {
        let mut bytes = 0;
        while bytes < TURN_BYTES
            && let Some((_, batches)) = self.ready.front()
        {
            bytes += batches.iter().map(|s| s.batch.lines_bytes).sum::<u64>();
            self.apply_next(now)?;
        }
        Ok(())
    }

    /// Appends the synced batches of one lot to its file.
    fn apply_next(&mut self, now: Now) -> Result<(), VaultError> {
        let Some((lot, batches)) = self.ready.pop_front() else { return Ok(()) };
        self.overdue = self.overdue.saturating_sub(1);
        if let Some(changed) = self.apply_lot(lot, batches, now)? {
            // All of that lot's batches must be placed anew together, those without their sync too.
            self.ready.push_front((changed.lot, changed.batches));
            return self.commit(now);
        }
        if self.ready.is_empty() {
            self.note_applied(now.mono);
        }
        Ok(())
    }

    /// Tells those who waited for more than one batch how far all is in the lot files, or pending.
    fn note_applied(&mut self, now: Instant) {
        self.answer_older();
        self.note_synced();
        self.answer_sync_waiters(now);
        self.metrics.lots_open.store(self.lots.open_files(), Relaxed);
        self.metrics.evictions.store(self.lots.evictions(), Relaxed);
        self.metrics.journal_bytes.store(self.journal.held_bytes(), Relaxed);
    }

    pub(crate) fn sync_is_due(&self, now: Instant) -> bool {
        self.sync_due_at().is_some_and(|at| now >= at)
    }

    /// `written` batches are visible within the interval: the sync must begin before its end.
    pub(crate) fn sync_due_at(&self) -> Option<Instant> {
        self.oldest_unsynced
            .filter(|_| !self.journal.is_syncing())
            .map(|at| at + self.config.sync_interval * 3 / 4)
    }

    /// Syncs all that is journalled, appends it to the lot files and answers, waiting for each.
    pub(crate) fn commit(&mut self, now: Now) -> Result<(), VaultError> {
        self.flush()?;
        while self.journal.is_syncing() || self.journal.unsynced_bytes() > 0 {
            if !self.journal.is_syncing() {
                self.begin_sync();
            }
            if let Some(took) = self.journal.wait_for_sync()? {
                self.count_sync(took);
            }
        }
        self.covered = 0;
        self.overdue = 0;
        self.oldest_unsynced = None;
        self.sync_wanted = false;
        self.group_lots.clear();
        let mut hand: Vec<Staged> = self.ready.drain(..).flat_map(|(_, batches)| batches).collect();
        hand.append(&mut self.staged);
        // Synced: what cannot be written to its lot file now keeps nobody's quota.
        hand.iter_mut().for_each(|staged| staged.quota = None);
        self.apply(hand, now)?;
        self.note_applied(now.mono);
        // What follows may take its time, and who was answered need not wait for it.
        self.answers.ring();
        Ok(())
    }

    /// The lowest lsn that is not yet in its lot file, pending ones aside.
    pub(crate) fn lowest_in_hand(&self) -> Option<u64> {
        let ready = self.ready.iter().flat_map(|(_, batches)| batches);
        ready.chain(self.staged.first()).map(|s| s.lsn).min()
    }

    pub(crate) fn answer_sync_waiters(&mut self, now: Instant) {
        if self.placing || self.sync_waiters.is_empty() {
            return;
        }
        let in_hand = self.lowest_in_hand().unwrap_or(u64::MAX);
        let count = self.sync_waiters.iter().take_while(|(lsn, _)| *lsn < in_hand).count();
        let refused = match self.pending.iter().find(|p| p.for_space).or(self.pending.first()) {
            Some(p) if p.for_space && now.duration_since(p.since) < PENDING_PATIENCE => return,
            Some(p) if p.for_space => Some(Refusal::new(
                Code::NoSpace,
                format!(
                    "batches wait for space before they are in their lot files ({}): make room, the daemon goes on by itself",
                    p.why
                ),
            )),
            Some(p) => Some(unavailable(p.staged.batch.lot.stem(), &p.why)),
            None => None,
        };
        for (lsn, ticket) in self.sync_waiters.drain(..count) {
            self.answers.give(
                ticket,
                match &refused {
                    Some(refusal) => Outcome::Refused(refusal.clone()),
                    None => Outcome::Synced { lsn },
                },
            );
        }
    }
}

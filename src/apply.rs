//! Committed batches on their way into their lot files: appended together lot by lot, kept pending where that
//! fails, placed anew where somebody else has changed a file. Part of the vault; nothing here is taken back.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::batch::{Outcome, SessionId};
use crate::lots::{Birth, Look, Lot, Trouble};
use crate::record;
use crate::storage::WRITE_BYTES;
use crate::vault::{Now, Pending, Staged, Vault, VaultError};

/// How often a batch that could not be written to its lot is tried again.
pub(crate) const PENDING_RETRY: Duration = Duration::from_millis(250);
/// After this long a `synced` ticket of a batch that is still pending ends its connection: nobody can say yet.
pub(crate) const PENDING_PATIENCE: Duration = Duration::from_secs(5);
/// Lines are written when so many bytes of them are composed: what is composed is still in the processor's cache.
const LINES_BYTES: usize = 256 << 10;
const _: () = assert!(LINES_BYTES <= WRITE_BYTES);
/// So often a lot file that somebody else keeps changing is taken anew before its batches wait.
const CHANGED_ROUNDS: usize = 3;

/// Batches in hand whose lot file turned out to be changed by somebody else.
pub(crate) struct Changed {
    pub(crate) lot: Lot,
    pub(crate) batches: Vec<Staged>,
    why: String,
}

/// Batches in lsn order, told apart by lot.
pub(crate) fn by_lot(mut staged: Vec<Staged>) -> impl Iterator<Item = (Lot, Vec<Staged>)> {
    // Stable: the batches of a lot stay in lsn order.
    staged.sort_by_key(|s| s.lot);
    let mut rest = staged.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let lot = first.lot;
        let mut batches = vec![first];
        batches.extend(std::iter::from_fn(|| rest.next_if(|s| s.lot == lot)));
        Some((lot, batches))
    })
}

impl Vault {
    /// Appends synced batches to their lot files, the batches of a lot together. What cannot be written
    /// stays pending: it is committed.
    pub(crate) fn apply(&mut self, staged: Vec<Staged>, now: Now) -> Result<(), VaultError> {
        let mut changed = Vec::new();
        for (lot, batches) in by_lot(staged) {
            changed.extend(self.apply_lot(lot, batches, now)?);
        }
        self.apply_changed(changed, now)
    }

    /// Answers duplicates of older batches, unless one of their session, in another lot, is not in its file yet.
    pub(crate) fn answer_older(&mut self) {
        for (session, lsn, ticket, outcome) in std::mem::take(&mut self.older) {
            match self.last_on_its_way(&session, lsn - 1) {
                Some(staged) => staged.waiting.push((ticket, outcome)),
                None => self.answers.give(ticket, outcome),
            }
        }
    }

    /// The last batch of a session, up to an lsn, that is synced and not in its lot file. Who waits for it waits for one
    /// before it next, so that no stream of new ones can keep it waiting.
    pub(crate) fn last_on_its_way(&mut self, session: &SessionId, up_to: u64) -> Option<&mut Staged> {
        let ready = self.ready.iter_mut().flat_map(|(_, batches)| batches);
        let pending = self.pending.iter_mut().map(|p| &mut p.staged);
        let is_it = |s: &&mut Staged| {
            s.lsn <= up_to && s.batch.session.as_ref().is_some_and(|(name, _)| name == session)
        };
        ready.chain(pending).filter(is_it).max_by_key(|s| s.lsn)
    }

    /// The last lsn below which everything is synced and in its lot file.
    pub(crate) fn note_synced(&self) {
        let lowest = self.pending.iter().map(|p| p.staged.lsn).chain(self.lowest_in_hand()).min();
        self.metrics.synced_lsn.store(lowest.unwrap_or(self.next_lsn) - 1, Relaxed);
    }

    /// Appends batches of one lot, in order; gives them back if somebody else has changed the file.
    pub(crate) fn apply_lot(
        &mut self,
        lot: Lot,
        mut batches: Vec<Staged>,
        now: Now,
    ) -> Result<Option<Changed>, VaultError> {
        let (done, trouble) = match self.lots.check(lot) {
            _ if self.pending.iter().any(|p| p.staged.lot == lot) => (
                0,
                Some(Trouble::Unavailable("an earlier batch of this lot is not in its file yet".to_owned())),
            ),
            Ok(()) => self.append(lot, &batches),
            Err(trouble) => (0, Some(trouble)),
        };
        if done > 0 {
            self.metrics.last_write_micros.store(now.wall_micros, Relaxed);
        }
        for staged in batches.drain(..done) {
            self.metrics.bytes_written.fetch_add(staged.batch.lines_bytes, Relaxed);
            for (ticket, outcome) in staged.waiting {
                match (&outcome, &staged.batch.session) {
                    (Outcome::Duplicate { last: None, .. }, Some((session, _))) => {
                        self.older.push((session.clone(), staged.lsn, ticket, outcome));
                    }
                    _ => self.answers.give(ticket, outcome),
                }
            }
        }
        self.rotate_if_large(lot);
        match trouble {
            None => {}
            Some(Trouble::Changed(why)) => return Ok(Some(Changed { lot, batches, why })),
            Some(trouble) => self.keep_pending(batches, trouble, now)?,
        }
        Ok(None)
    }

    /// Places batches anew whose lot file somebody else has changed: behind what is there now, after a
    /// checkpoint that holds copies of them at their new place, so that no redo reaches back past the change.
    fn apply_changed(&mut self, mut changed: Vec<Changed>, now: Now) -> Result<(), VaultError> {
        for round in 1.. {
            if changed.is_empty() {
                break;
            }
            let kept = self.pending.len();
            let mut counts = Vec::new();
            for Changed { lot, mut batches, why } in changed.drain(..) {
                let stem = self.lots.stem(lot);
                tracing::warn!(
                    lot = stem,
                    change = why,
                    "somebody else has changed a lot file: it is taken as it now is"
                );
                // Placed anew whole: what an earlier attempt got into the file must not stand there twice.
                if let Some(first) = batches.first() {
                    self.lots.take_back(lot, first.lot_offset)?;
                }
                let usable = matches!(self.lots.adopt(lot)?, Look::Ready(_));
                for staged in &mut batches {
                    staged.lot_offset = self.lots.plan(lot, staged.batch.lines_bytes);
                }
                counts.push((lot, batches.len(), usable && round < CHANGED_ROUNDS, why.clone()));
                let hold = |staged| Pending { staged, for_space: false, why: why.clone(), since: now.mono };
                self.pending.extend(batches.into_iter().map(hold));
            }
            self.report_set_aside();
            self.placing = true;
            let checkpointed = self.checkpoint_now(now);
            self.placing = false;
            checkpointed?;
            // The checkpoint commits what was staged, and some of that may have stayed pending behind these.
            let count: usize = counts.iter().map(|(_, count, ..)| count).sum();
            let placed: Vec<Staged> = self.pending.drain(kept..kept + count).map(|p| p.staged).collect();
            let mut placed = placed.into_iter();
            for (lot, count, usable, why) in counts {
                let batches: Vec<Staged> = placed.by_ref().take(count).collect();
                if usable {
                    changed.extend(self.apply_lot(lot, batches, now)?);
                } else {
                    self.keep_pending(batches, Trouble::Unavailable(why), now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the lines of batches; gives how many batches are wholly in the file.
    fn append(&mut self, lot: Lot, batches: &[Staged]) -> (usize, Option<Trouble>) {
        let mut lines = std::mem::take(&mut self.lines);
        let mut trouble = None;
        let mut in_part = batches.first().is_some_and(|first| self.lots.written(lot) > first.lot_offset);
        'all: for staged in batches {
            // What an earlier attempt got into the file is not written again.
            let in_file = self.lots.written(lot) + lines.len() as u64;
            let mut skip = in_file.saturating_sub(staged.lot_offset);
            let body = &staged.batch.body;
            for item in record::each_item(&body.items) {
                let before = lines.len();
                record::compose_one(item, &body.suffix, &mut lines);
                if skip > 0 {
                    let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(lines.len() - before);
                    lines.drain(before..before + cut);
                    skip -= cut as u64;
                }
                if lines.len() >= LINES_BYTES {
                    if let Err(found) = self.lots.append(lot, &lines, in_part) {
                        trouble = Some(found);
                        break 'all;
                    }
                    in_part = false;
                    lines.clear();
                }
            }
        }
        if trouble.is_none() && !lines.is_empty() {
            trouble = self.lots.append(lot, &lines, in_part).err();
        }
        lines.clear();
        lines.shrink_to(2 * LINES_BYTES);
        self.lines = lines;
        if trouble.is_none() {
            let birth = batches.first().map(|first| Birth { lsn: first.lsn, micros: first.stamp_micros });
            trouble = self.lots.publish(lot, birth).err();
        }
        // Without its name no reader sees any of the file.
        if matches!(trouble, Some(Trouble::Changed(_))) || !self.lots.is_named(lot) {
            return (0, trouble);
        }
        let end = self.lots.written(lot);
        let done = batches.iter().take_while(|s| s.lot_offset + s.batch.lines_bytes <= end).count();
        (done, trouble)
    }

    fn keep_pending(&mut self, batches: Vec<Staged>, trouble: Trouble, now: Now) -> Result<(), VaultError> {
        let (for_space, why) = match trouble {
            Trouble::Write(error) if self.storage.failure().is_some() => return Err(error.into()),
            Trouble::Write(error) => (error.is_no_space(), error.to_string()),
            Trouble::Changed(why) | Trouble::Unavailable(why) => (false, why),
        };
        if let Some(first) = batches.first().filter(|_| !self.retrying) {
            let lot = first.batch.lot.stem();
            tracing::warn!(
                lot,
                why,
                "a committed batch cannot be written to its lot file yet: it is kept and tried again"
            );
        }
        self.space_is_lacking(self.space.lacking || for_space);
        self.pending_retry_at = now.mono + PENDING_RETRY;
        let since = now.mono;
        self.pending.extend(batches.into_iter().map(|staged| Pending {
            staged,
            for_space,
            why: why.clone(),
            since,
        }));
        Ok(())
    }

    /// Tries the pending batches again, in order.
    pub(crate) fn retry_pending(&mut self, now: Now) -> Result<(), VaultError> {
        self.retrying = true;
        let result = self.retry_each(now);
        self.retrying = false;
        result
    }

    fn retry_each(&mut self, now: Now) -> Result<(), VaultError> {
        let pending = std::mem::take(&mut self.pending);
        let mut by_lot: Vec<(Lot, Instant, Vec<Staged>)> = Vec::new();
        for p in pending {
            match by_lot.iter_mut().find(|(lot, ..)| *lot == p.staged.lot) {
                Some((_, _, batches)) => batches.push(p.staged),
                None => by_lot.push((p.staged.lot, p.since, vec![p.staged])),
            }
        }
        let mut changed = Vec::new();
        for (lot, since, mut batches) in by_lot {
            if now.mono.duration_since(since) >= PENDING_PATIENCE {
                for (ticket, _) in batches.iter_mut().flat_map(|b| b.waiting.drain(..)) {
                    self.answers.give(ticket, Outcome::Unknown);
                }
            }
            let at = self.pending.len();
            changed.extend(self.apply_lot(lot, batches, now)?);
            for p in &mut self.pending[at..] {
                p.since = since;
            }
        }
        self.apply_changed(changed, now)?;
        self.answer_older();
        self.pending_retry_at = now.mono + PENDING_RETRY;
        if self.space.lacking && !self.pending.iter().any(|p| p.for_space) {
            self.space.probed = None;
        }
        self.note_synced();
        self.answer_sync_waiters(now.mono);
        Ok(())
    }
}

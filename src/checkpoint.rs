//! Checkpoints: the moment from which redo starts is moved forward, step by step between the groups, so that
//! the journal can be trimmed. Part of the vault; knows no sockets.
//!
//! The order: everything staged is committed; the begin frame fixes the redo point (the next lsn), copies of
//! pending batches and the session table follow in frames; meanwhile every lot file with unsynced bytes is
//! synced in the background; only then the end frame is written and synced, and older segments are removed.

use std::time::{Duration, Instant};

use crate::background::{Done, Job};
use crate::frame::{Content, PROLOGUE_BYTES};
use crate::journal::For;
use crate::vault::{Now, UnderWay, Vault, VaultError};

/// A checkpoint is made when the journal holds this many segments.
pub const SEGMENTS_PER_CHECKPOINT: usize = 8;
/// No group is taken while the journal holds this many segments and a checkpoint is under way.
pub const SEGMENTS_BACK_PRESSURE: usize = 16;
/// While it holds this many a checkpoint under way no longer spares the disk: it would end in back-pressure.
const SEGMENTS_HURRY: usize = 12;
const _: () = assert!(SEGMENTS_PER_CHECKPOINT < SEGMENTS_HURRY && SEGMENTS_HURRY < SEGMENTS_BACK_PRESSURE);
/// Sessions in one frame of a checkpoint.
const SESSIONS_PER_FRAME: usize = 1024;
/// Most bytes of such a frame: each row is at most 124 bytes.
const SESSIONS_FRAME_BYTES: u64 = (PROLOGUE_BYTES + 16 + SESSIONS_PER_FRAME * 124 + 8) as u64;
const _: () = assert!(SESSIONS_FRAME_BYTES < (1 << 20) / 4, "fits the smallest segment");
/// Bytes of a begin or an end frame, rounded up.
const SMALL_FRAME_BYTES: u64 = 128;
/// How often a checkpoint under way is looked after.
const STEP_INTERVAL: Duration = Duration::from_millis(20);
/// Lots remembered without an open file: more than these want a checkpoint, so that they can be forgotten.
const REMEMBERED_LOTS: usize = 200_000;
/// How long a checkpoint that must be made rests before it looks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// After a checkpoint found no room in the journal it is tried again this much later.
const ROOM_RETRY: Duration = Duration::from_secs(1);

impl Vault {
    pub(crate) fn checkpoint_deadline(&self, now: Instant) -> Option<Instant> {
        match &self.checkpointing.under_way {
            Some(under_way) if under_way.cursor.is_some() => Some(now.max(self.checkpointing.not_before)),
            Some(_) => Some((now + STEP_INTERVAL).max(self.checkpointing.not_before)),
            None => self.checkpointing.due_at(&self.config, self.next_lsn, self.sessions.is_full()),
        }
    }

    fn checkpoint_is_due(&self, now: Instant) -> bool {
        // On a full disk new segments come from those that a checkpoint makes needless.
        let crowded = self.journal.held_segments() >= SEGMENTS_PER_CHECKPOINT
            || (self.journal.lack_of_segments().is_some() && self.journal.held_segments() > 1)
            || self.lots.wants_checkpoint()
            || self.lots.remembered() > REMEMBERED_LOTS;
        let due = self.checkpointing.due_at(&self.config, self.next_lsn, self.sessions.is_full());
        now >= self.checkpointing.not_before && due.is_some_and(|at| now >= at || crowded)
    }

    /// Begins a checkpoint if one is due, or takes the one under way a step further.
    pub(crate) fn step_checkpoint(&mut self, now: Now) -> Result<(), VaultError> {
        if self.checkpointing.under_way.is_none() {
            if !self.checkpoint_is_due(now.mono) {
                return Ok(());
            }
            return self.begin_checkpoint(now);
        }
        while let Some(done) = self.checkpointing.lane.poll() {
            self.checkpoint_heard(done)?;
        }
        let syncing = self.checkpointing.under_way.as_ref().is_some_and(|under_way| !under_way.lots_synced);
        if syncing && self.journal.held_segments() >= SEGMENTS_HURRY {
            self.checkpointing.lane.hurry();
        }
        if now.mono < self.checkpointing.not_before {
            return Ok(());
        }
        self.advance_checkpoint(now)
    }

    fn checkpoint_heard(&mut self, done: Done) -> Result<(), VaultError> {
        match done {
            Done::LotsSynced => {
                if let Some(under_way) = &mut self.checkpointing.under_way {
                    under_way.lots_synced = true;
                }
                Ok(())
            }
            Done::Failed(error) => Err(error.into()),
            Done::Prepared(_)
            | Done::NotPrepared(..)
            | Done::Trimmed
            | Done::NotTrimmed(..)
            | Done::JournalSynced(_)
            | Done::Chored(_) => Ok(()),
        }
    }

    pub(crate) fn begin_checkpoint(&mut self, now: Now) -> Result<(), VaultError> {
        self.commit(now)?;
        if !self.room_for_checkpoint(SMALL_FRAME_BYTES, now)? {
            return Ok(());
        }
        let id = uuid::Uuid::new_v4().as_u128();
        let begin = Content::CheckpointBegin {
            id,
            next_lsn: self.next_lsn,
            stamp_micros: self.stamp_micros,
            running_seconds: self.checkpointing.running_seconds(now.mono),
        };
        let begin = self.journal.push(0, begin, SMALL_FRAME_BYTES)?;
        for pending in &self.pending {
            let stem = pending.staged.batch.lot.stem();
            let bytes = pending.staged.frame_bytes(stem);
            if !self.journal.reserve(bytes, For::Checkpoint, now.mono)? {
                // Without its end frame what was written of it means nothing.
                self.checkpointing.not_before = now.mono + ROOM_RETRY;
                return Ok(());
            }
            let copy = Content::Pending { id, batch: pending.staged.frame(stem) };
            self.journal.push(pending.staged.lsn, copy, bytes)?;
        }
        self.journal.flush()?;
        let (files, evicted, names) = self.lots.take_dirty();
        let lots_synced = files.is_empty() && evicted.is_empty() && !names;
        if !lots_synced {
            self.checkpointing.lane.submit(Job::sync_lots(files, evicted, names));
        }
        let next_lsn = self.next_lsn;
        self.checkpointing.under_way = Some(UnderWay { id, begin, next_lsn, cursor: Some(0), lots_synced });
        Ok(())
    }

    fn room_for_checkpoint(&mut self, bytes: u64, now: Now) -> Result<bool, VaultError> {
        let room = self.journal.reserve(bytes, For::Checkpoint, now.mono)?;
        if !room && now.mono >= self.checkpointing.not_before {
            tracing::warn!("a checkpoint waits for room in the journal");
            self.checkpointing.not_before = now.mono + ROOM_RETRY;
        }
        Ok(room)
    }

    /// Writes the next part of the session table, or the end.
    fn advance_checkpoint(&mut self, now: Now) -> Result<(), VaultError> {
        let Some(under_way) = &self.checkpointing.under_way else { return Ok(()) };
        let (id, begin, next_lsn) = (under_way.id, under_way.begin, under_way.next_lsn);
        let running = self.checkpointing.running_seconds(now.mono);
        if let Some(cursor) = under_way.cursor {
            if !self.room_for_checkpoint(SESSIONS_FRAME_BYTES, now)? {
                return Ok(());
            }
            let (rows, next) = self.sessions.rows(cursor, SESSIONS_PER_FRAME, running);
            if !rows.is_empty() {
                self.journal.push(0, Content::Sessions { id, rows }, SESSIONS_FRAME_BYTES)?;
                self.journal.flush()?;
            }
            if let Some(under_way) = &mut self.checkpointing.under_way {
                under_way.cursor = next;
            }
            return Ok(());
        }
        if !under_way.lots_synced || !self.room_for_checkpoint(SMALL_FRAME_BYTES, now)? {
            return Ok(());
        }
        // It gives up what the journal has: the lots must still be where DATA's path leads.
        self.storage.check_place()?;
        // Frames of batches staged meanwhile go out with it: the end frame vouches for them.
        self.journal.push(0, Content::CheckpointEnd { id, begin }, SMALL_FRAME_BYTES)?;
        self.commit(now)?;
        self.checkpointing.under_way = None;
        self.checkpointing.last_end = now.mono;
        self.checkpointing.covered_lsn = next_lsn;
        self.metrics.note_checkpoint(next_lsn, now.mono);
        self.journal.trim(begin.segment);
        self.lots.prune();
        Ok(())
    }

    /// Back-pressure: no group is taken before the journal, or the number of descriptors that wait for their sync, is
    /// small again. Mostly the checkpoint under way makes it so.
    pub(crate) fn relieve(&mut self, now: Now) -> Result<(), VaultError> {
        if !self.is_pressed() {
            return Ok(());
        }
        self.answers.ring();
        let begun = Instant::now();
        self.finish_checkpoint(now)?;
        if self.is_pressed() {
            self.checkpoint_now(Now { mono: now.mono + begun.elapsed(), ..now })?;
        }
        Ok(())
    }

    fn is_pressed(&self) -> bool {
        self.journal.held_segments() >= SEGMENTS_BACK_PRESSURE || self.lots.is_crowded()
    }

    /// Makes a whole checkpoint now, after the one under way; waits for the background.
    pub(crate) fn checkpoint_now(&mut self, now: Now) -> Result<(), VaultError> {
        // This takes its time, and who was answered need not wait for it.
        self.answers.ring();
        self.finish_checkpoint(now)?;
        let begun = Instant::now();
        loop {
            let now = Now { mono: now.mono + begun.elapsed(), ..now };
            self.begin_checkpoint(now)?;
            if self.checkpointing.under_way.is_some() {
                break;
            }
            // Batches leave a spare segment to checkpoints, so this is rare; the drain deadline bounds it.
            std::thread::sleep(ROOM_PAUSE);
            self.journal.tend(now.mono)?;
        }
        self.finish_checkpoint(Now { mono: now.mono + begun.elapsed(), ..now })
    }

    fn finish_checkpoint(&mut self, now: Now) -> Result<(), VaultError> {
        let begun = Instant::now();
        while let Some(under_way) = &self.checkpointing.under_way {
            if under_way.cursor.is_none() && !under_way.lots_synced {
                let done = self.checkpointing.lane.wait();
                self.checkpoint_heard(done)?;
            }
            let state =
                |vault: &Vault| vault.checkpointing.under_way.as_ref().map(|u| (u.cursor, u.lots_synced));
            let before = state(self);
            let now = Now { mono: now.mono + begun.elapsed(), ..now };
            self.advance_checkpoint(now)?;
            if before.is_some() && state(self) == before {
                std::thread::sleep(ROOM_PAUSE);
                self.journal.tend(now.mono)?;
            }
        }
        Ok(())
    }
}

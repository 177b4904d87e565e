//! The single writer: takes groups of submissions, puts them in order, journals them, syncs, appends to the
//! lot files and answers the tickets. Knows no sockets and no runtime, and reads no clock: time is an argument.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Code, Durability, Outcome, Refusal, STAMP_BYTES};
use crate::checkpoint::{Checkpointing, SEGMENTS_BACK_PRESSURE};
use crate::config::VaultConfig;
use crate::frame::{self, BatchFrame, Content};
use crate::journal::{For, Journal};
use crate::lots::{Look, Lot, Lots, Trouble};
use crate::metrics::Metrics;
use crate::queue::{Next, Receiver, Submission, Ticket};
use crate::record;
use crate::sessions::{Last, Sessions, Verdict};
use crate::storage::{Dir, Storage, StorageError, WRITE_BYTES};

/// Free space that batches leave on the lots' file system, in bytes.
pub const SPACE_RESERVE_BYTES: u64 = 4 << 20;
/// Most journalled bytes that wait for a sync.
pub const UNSYNCED_BYTES: u64 = 8 << 20;
/// How long free space is believed.
const SPACE_BELIEF: Duration = Duration::from_millis(250);
/// How often a batch that could not be written to its lot is tried again.
const PENDING_RETRY: Duration = Duration::from_millis(250);
/// After this long a `synced` ticket of a lot that cannot be written ends its connection: nobody can say yet.
const PENDING_PATIENCE: Duration = Duration::from_secs(5);
/// So often a lot file that somebody else keeps changing is taken anew before its batches wait.
const CHANGED_ROUNDS: usize = 3;
/// Timestamps go on from the last one while the wall clock is behind it by less than this.
const CLOCK_STEP_MICROS: i64 = 3600 * 1_000_000;

/// The moment, as the writer's caller reads it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Microseconds since 1970, UTC.
    pub wall_micros: i64,
    /// The clock that never steps.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Now {
        Now { wall_micros: chrono::Utc::now().timestamp_micros(), mono: Instant::now() }
    }
}

/// Fail-stop: the disk failed, nothing more is acknowledged, the process must end.
#[derive(Debug, thiserror::Error)]
#[error("{0}; nothing more is acknowledged, and lotlogd exits: check the disk, then start it again")]
pub struct VaultError(pub String);

impl From<StorageError> for VaultError {
    fn from(error: StorageError) -> VaultError {
        VaultError(error.to_string())
    }
}

/// A batch that is in the journal, but not yet in its lot file.
#[derive(Debug)]
pub(crate) struct Staged {
    pub lsn: u64,
    pub lot: Lot,
    pub lot_offset: u64,
    pub batch: Batch,
    pub stamp_micros: i64,
    /// Answered when the batch is in its lot file.
    pub waiting: Vec<(Ticket, Outcome)>,
}

impl Staged {
    pub(crate) fn frame<'a>(&'a self, stem: &'a str) -> BatchFrame<'a> {
        let (session, seq) = self.batch.session.as_ref().map_or(("", 0), |(name, seq)| (name.as_str(), *seq));
        BatchFrame {
            lot: stem,
            lot_offset: self.lot_offset,
            records: self.batch.records,
            lines_bytes: self.batch.lines_bytes,
            stamp_micros: self.stamp_micros,
            session,
            seq,
            content_hash: self.batch.content_hash,
            suffix: &self.batch.body.suffix,
            items: &self.batch.body.items,
        }
    }

    pub(crate) fn frame_bytes(&self, stem: &str) -> u64 {
        let session = self.batch.session.as_ref().map_or("", |(name, _)| name.as_str());
        frame::batch_frame_bytes(stem, session, &self.batch.body.suffix, &self.batch.body.items)
    }
}

/// A committed batch that could not be written to its lot file yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub staged: Staged,
    /// Lack of space, which refuses all batches meanwhile; otherwise only this lot's.
    pub for_space: bool,
    pub why: String,
    pub since: Instant,
}

/// Batches in hand whose lot file turned out to be changed by somebody else.
struct Changed {
    lot: Lot,
    batches: Vec<Staged>,
    why: String,
}

/// The vault: everything behind the queue.
pub struct Vault {
    pub(crate) storage: Storage,
    pub(crate) config: VaultConfig,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) journal: Journal,
    pub(crate) lots: Lots,
    pub(crate) sessions: Sessions,
    pub(crate) next_lsn: u64,
    pub(crate) stamp_micros: i64,
    /// Journalled, in lsn order, not all synced.
    pub(crate) staged: Vec<Staged>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) checkpointing: Checkpointing,
    /// Tickets to answer as soon as the buffered frames are handed to the kernel.
    after_flush: Vec<(Ticket, Outcome)>,
    sync_waiters: Vec<Ticket>,
    /// Somebody waits for the next sync.
    sync_wanted: bool,
    oldest_unsynced: Option<Instant>,
    group_lots: HashSet<Lot>,
    space: Space,
    pending_retry_at: Instant,
    lines: Vec<u8>,
}

/// What is believed of the lots' file system.
#[derive(Debug)]
struct Space {
    free_bytes: u64,
    probed: Option<Instant>,
    lacking: bool,
}

impl Vault {
    /// Puts the parts together; recovery does this, once it knows them.
    pub(crate) fn assemble(
        storage: Storage,
        config: VaultConfig,
        metrics: Arc<Metrics>,
        journal: Journal,
        lots: Lots,
        sessions: Sessions,
        checkpointing: Checkpointing,
        (next_lsn, stamp_micros): (u64, i64),
        now: Instant,
    ) -> Vault {
        Vault {
            storage,
            config,
            metrics,
            journal,
            lots,
            sessions,
            next_lsn,
            stamp_micros,
            staged: Vec::new(),
            pending: Vec::new(),
            checkpointing,
            after_flush: Vec::new(),
            sync_waiters: Vec::new(),
            sync_wanted: false,
            oldest_unsynced: None,
            group_lots: HashSet::new(),
            space: Space { free_bytes: 0, probed: None, lacking: false },
            pending_retry_at: now,
            lines: Vec::new(),
        }
    }

    /// Commits a group. This is the promise, and its order is the reason that it holds:
    ///
    /// * **Whole.** A batch is one frame with one checksum: recovery finds all of it or none. Its lines are
    ///   appended one after the other by this one thread.
    /// * **Once.** The session table is asked before the batch gets an lsn and knows it before the next batch
    ///   is asked; recovery rebuilds it from the same frames that hold the batches.
    /// * **Kept.** A `written` ticket is answered after its frame was handed to the kernel, a `synced` one
    ///   after `fdatasync` returned without an error.
    /// * **Visible is durable.** Lot files are appended to only after that sync. A `synced` ticket is answered
    ///   after its lines are in its lot file.
    /// * **Refused means not stored.** Every refusal happens before the frame is made.
    /// * **Honest.** An error of a sync or of a journal write comes out of here as [`VaultError`]: the tickets
    ///   are dropped unanswered, and the process ends.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop.
    pub fn commit_group(&mut self, group: Vec<Submission>, now: Now) -> Result<(), VaultError> {
        for submission in group {
            match submission {
                Submission::Batch(batch, ticket) => self.admit(batch, ticket, now)?,
                Submission::Sync(ticket) => {
                    self.sync_waiters.push(ticket);
                    self.sync_wanted = true;
                }
                Submission::Reopen(ticket) => self.reopen(ticket, now)?,
            }
        }
        self.flush()?;
        if self.sync_wanted || self.journal.unsynced_bytes() >= UNSYNCED_BYTES || self.sync_is_due(now.mono) {
            self.commit(now)?;
        }
        Ok(())
    }

    /// Takes one batch: refuses it, answers it as a duplicate, or makes its frame.
    fn admit(&mut self, batch: Batch, mut ticket: Ticket, now: Now) -> Result<(), VaultError> {
        let running = self.checkpointing.running_seconds(now.mono);
        if let Some((session, seq)) = &batch.session {
            let refusal = match self.sessions.judge(session.as_str(), *seq, batch.content_hash, running) {
                Verdict::Next => None,
                Verdict::DuplicateOfLast(last) => {
                    self.answer_duplicate(ticket, batch.ack, last.lsn, Some((last.records, last.lsn)));
                    return Ok(());
                }
                Verdict::DuplicateOfOlder(last) => {
                    self.answer_duplicate(ticket, batch.ack, last.lsn, None);
                    return Ok(());
                }
                Verdict::Conflict => Some(Refusal::new(
                    Code::Conflict,
                    format!(
                        "session {} stored other content as seq {seq}, so this batch is not stored: give it the next number, and a new process a new session",
                        session.as_str()
                    ),
                )),
                Verdict::OutOfSequence { expected } => Some(Refusal {
                    code: Code::OutOfSequence,
                    message: format!("session {} expects seq {expected}, got {seq}", session.as_str()),
                    expected: Some(expected),
                }),
                Verdict::Full => Some(Refusal::new(
                    Code::Busy,
                    "too many sessions are in use, so no new one is taken: try again later, or raise session_memory_bytes",
                )),
            };
            if let Some(refusal) = refusal {
                ticket.answer(Outcome::Refused(refusal));
                return Ok(());
            }
        }
        let lines_bytes = batch.lines_bytes;
        let stem = batch.lot.stem();
        if let Some(refusal) = self.lacks(stem, lines_bytes, now.mono) {
            ticket.answer(Outcome::Refused(refusal));
            return Ok(());
        }
        let lot = match self.open_lot(stem, now)? {
            Ok(lot) => lot,
            Err(refusal) => {
                ticket.answer(Outcome::Refused(refusal));
                return Ok(());
            }
        };
        let session = batch.session.as_ref().map_or("", |(name, _)| name.as_str());
        let frame_bytes = frame::batch_frame_bytes(stem, session, &batch.body.suffix, &batch.body.items);
        if !self.journal.reserve(frame_bytes, For::Batch, now.mono)? {
            let why = self.journal.lack_of_segments().unwrap_or("the next journal segment is not ready");
            ticket.answer(Outcome::Refused(no_space(why)));
            self.space_is_lacking(true);
            return Ok(());
        }

        // From here on the batch is stored, or the process ends.
        ticket.take();
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        let stamp_micros = self.next_stamp(now.wall_micros);
        let mut staged = Staged {
            lsn,
            lot,
            lot_offset: self.lots.plan(lot, lines_bytes),
            batch,
            stamp_micros,
            waiting: Vec::new(),
        };
        record::stamp(&mut staged.batch.body, &stamp_text(stamp_micros));
        let stem = staged.batch.lot.stem();
        self.journal.push(lsn, Content::Batch(staged.frame(stem)), frame_bytes)?;
        if let Some((session, seq)) = &staged.batch.session {
            let last = Last {
                seq: *seq,
                lsn,
                records: staged.batch.records,
                content_hash: staged.batch.content_hash,
                used_seconds: running,
            };
            self.sessions.note(session.as_str(), last);
        }
        self.metrics.batches.fetch_add(1, Relaxed);
        self.metrics.records.fetch_add(u64::from(staged.batch.records), Relaxed);
        self.metrics.lsn.store(lsn, Relaxed);
        let durability = staged.batch.ack;
        let outcome = Outcome::Stored { lsn, durability };
        match durability {
            Durability::Written => self.after_flush.push((ticket, outcome)),
            Durability::Synced => {
                staged.waiting.push((ticket, outcome));
                self.sync_wanted = true;
            }
        }
        self.space.free_bytes = self.space.free_bytes.saturating_sub(lines_bytes);
        self.group_lots.insert(lot);
        self.oldest_unsynced.get_or_insert(now.mono);
        self.staged.push(staged);
        Ok(())
    }

    /// Why no batch of this size, or none for this lot, can be taken now.
    fn lacks(&mut self, stem: &str, lines_bytes: u64, now: Instant) -> Option<Refusal> {
        let blocked = self.pending.iter().find(|p| p.for_space || p.staged.batch.lot.stem() == stem);
        if let Some(pending) = blocked {
            return Some(if pending.for_space {
                no_space(&pending.why)
            } else {
                unavailable(stem, &pending.why)
            });
        }
        let needed = lines_bytes + SPACE_RESERVE_BYTES;
        let stale = self.space.probed.is_none_or(|at| now.duration_since(at) >= SPACE_BELIEF);
        if stale || (self.space.free_bytes < needed && !self.space.lacking) {
            let on_the_way: u64 = self.staged.iter().map(|s| s.batch.lines_bytes).sum();
            // Where the question itself fails, the writes will tell.
            let free = self.storage.free_bytes(Dir::Lots).unwrap_or(u64::MAX);
            self.space.free_bytes = free.saturating_sub(on_the_way);
            self.space.probed = Some(now);
        }
        let lacking = self.space.free_bytes < needed;
        self.space_is_lacking(lacking);
        lacking.then(|| {
            no_space(&format!("{} bytes are free for lot files, {needed} are needed", self.space.free_bytes))
        })
    }

    fn space_is_lacking(&mut self, lacking: bool) {
        if lacking && !self.space.lacking {
            tracing::warn!("no space: batches are refused until there is room again");
        } else if !lacking && self.space.lacking {
            tracing::info!("there is space again: batches are taken");
        }
        self.space.lacking = lacking;
        self.metrics.no_space.store(lacking, Relaxed);
    }

    /// Looks at the batch's lot. If somebody else has changed it, what is in hand is finished and a
    /// checkpoint made before the file is taken as it is: no redo may reach back past the change.
    fn open_lot(&mut self, stem: &str, now: Now) -> Result<Result<Lot, Refusal>, VaultError> {
        if self.group_lots.len() >= self.lots.most_lots_in_group() {
            self.commit(now)?;
        }
        let look = match self.lots.look(stem)? {
            Look::Changed(_, why) => {
                tracing::warn!(
                    lot = stem,
                    change = why,
                    "somebody else has changed a lot file: it is taken as it now is"
                );
                self.settle(now)?;
                // The checkpoint may have forgotten the lot: then it is met anew.
                match self.lots.look(stem)? {
                    Look::Changed(lot, _) => self.lots.adopt(lot)?,
                    look => look,
                }
            }
            look => look,
        };
        self.report_set_aside();
        Ok(match look {
            Look::Ready(lot) => Ok(lot),
            Look::NoSpace(why) => {
                self.space_is_lacking(true);
                Err(no_space(&why))
            }
            Look::Unavailable(why) | Look::Changed(_, why) => {
                tracing::warn!(lot = stem, why, "a lot file cannot be used: its batches are refused");
                Err(unavailable(stem, &why))
            }
        })
    }

    fn report_set_aside(&mut self) {
        for aside in self.lots.take_set_aside() {
            tracing::warn!(
                lot = aside.stem,
                bytes = aside.bytes,
                copy = aside.copy,
                "a line without an end was set aside"
            );
        }
    }

    /// A duplicate shares the fate of what it repeats.
    fn answer_duplicate(&mut self, ticket: Ticket, ack: Durability, lsn: u64, last: Option<(u32, u64)>) {
        self.metrics.duplicates.fetch_add(1, Relaxed);
        let outcome = Outcome::Duplicate { last, durability: ack };
        match ack {
            Durability::Written => self.after_flush.push((ticket, outcome)),
            Durability::Synced => {
                let waiting = match self.staged.binary_search_by_key(&lsn, |s| s.lsn) {
                    Ok(at) => {
                        self.sync_wanted = true;
                        Some(&mut self.staged[at].waiting)
                    }
                    Err(_) => self
                        .pending
                        .iter_mut()
                        .map(|p| &mut p.staged)
                        .find(|s| s.lsn == lsn)
                        .map(|s| &mut s.waiting),
                };
                match waiting {
                    Some(waiting) => waiting.push((ticket, outcome)),
                    None => ticket.answer(outcome),
                }
            }
        }
    }

    /// Hands the frames to the kernel and answers who asked for no more.
    fn flush(&mut self) -> Result<(), VaultError> {
        self.journal.flush()?;
        for (ticket, outcome) in self.after_flush.drain(..) {
            ticket.answer(outcome);
        }
        Ok(())
    }

    fn sync_is_due(&self, now: Instant) -> bool {
        self.sync_due_at().is_some_and(|at| now >= at)
    }

    /// `written` batches are visible within the interval: the sync must begin before its end.
    fn sync_due_at(&self) -> Option<Instant> {
        self.oldest_unsynced.map(|at| at + self.config.sync_interval * 3 / 4)
    }

    /// Flushes and syncs the journal, then appends what is staged to the lot files and answers.
    pub(crate) fn commit(&mut self, now: Now) -> Result<(), VaultError> {
        self.flush()?;
        if self.journal.unsynced_bytes() > 0 {
            let started = Instant::now();
            self.journal.sync()?;
            let ended = Instant::now();
            self.metrics.sync_seconds.record(ended - started, ended);
            self.metrics.syncs.fetch_add(1, Relaxed);
        }
        self.oldest_unsynced = None;
        self.sync_wanted = false;
        self.group_lots.clear();
        let staged = std::mem::take(&mut self.staged);
        self.apply(staged, now)?;
        self.answer_sync_waiters();
        self.metrics.lots_open.store(self.lots.open_files(), Relaxed);
        self.metrics.journal_bytes.store(self.journal.held_bytes(), Relaxed);
        Ok(())
    }

    /// Appends synced batches to their lot files, the batches of a lot together. What cannot be written
    /// stays pending: it is committed.
    fn apply(&mut self, mut staged: Vec<Staged>, now: Now) -> Result<(), VaultError> {
        // Stable: the batches of a lot stay in lsn order.
        staged.sort_by_key(|s| s.lot);
        let mut changed = Vec::new();
        let mut rest = staged.into_iter().peekable();
        while let Some(first) = rest.next() {
            let lot = first.lot;
            let mut batches = vec![first];
            while let Some(next) = rest.next_if(|s| s.lot == lot) {
                batches.push(next);
            }
            changed.extend(self.apply_lot(lot, batches, now)?);
        }
        self.apply_changed(changed, now)?;
        self.note_synced();
        Ok(())
    }

    /// The last lsn below which everything is synced and in its lot file.
    fn note_synced(&self) {
        let lowest =
            self.pending.iter().map(|p| p.staged.lsn).chain(self.staged.first().map(|s| s.lsn)).min();
        self.metrics.synced_lsn.store(lowest.unwrap_or(self.next_lsn) - 1, Relaxed);
    }

    /// Appends batches of one lot, in order; gives them back if somebody else has changed the file.
    fn apply_lot(
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
        for staged in batches.drain(..done) {
            self.metrics.bytes_written.fetch_add(staged.batch.lines_bytes, Relaxed);
            for (ticket, outcome) in staged.waiting {
                ticket.answer(outcome);
            }
        }
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
                let usable = matches!(self.lots.adopt(lot)?, Look::Ready(_));
                for staged in &mut batches {
                    staged.lot_offset = self.lots.plan(lot, staged.batch.lines_bytes);
                }
                counts.push((lot, batches.len(), usable && round < CHANGED_ROUNDS, why.clone()));
                let hold = |staged| Pending { staged, for_space: false, why: why.clone(), since: now.mono };
                self.pending.extend(batches.into_iter().map(hold));
            }
            self.report_set_aside();
            self.checkpoint_now(now)?;
            let mut placed = self.pending.split_off(kept).into_iter().map(|p| p.staged);
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
        'all: for staged in batches {
            // What an earlier attempt got into the file is not written again.
            let in_file = self.lots.written(lot) + lines.len() as u64;
            let mut skip = in_file.saturating_sub(staged.lot_offset);
            for item in staged.batch.body.items.split_inclusive(|b| *b == b'\n') {
                let before = lines.len();
                record::compose(item, &staged.batch.body.suffix, &mut lines);
                if skip > 0 {
                    let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(lines.len() - before);
                    lines.drain(before..before + cut);
                    skip -= cut as u64;
                }
                if lines.len() >= WRITE_BYTES {
                    if let Err(found) = self.lots.append(lot, &lines) {
                        trouble = Some(found);
                        break 'all;
                    }
                    lines.clear();
                }
            }
        }
        if trouble.is_none() && !lines.is_empty() {
            trouble = self.lots.append(lot, &lines).err();
        }
        lines.clear();
        lines.shrink_to(2 * WRITE_BYTES);
        self.lines = lines;
        if trouble.is_none() {
            trouble = self.lots.publish(lot).err();
        }
        if matches!(trouble, Some(Trouble::Changed(_))) {
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
        if let Some(first) = batches.first() {
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
    fn retry_pending(&mut self, now: Now) -> Result<(), VaultError> {
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
            if now.mono.duration_since(since) >= PENDING_PATIENCE && !self.space.lacking {
                for (ticket, _) in batches.iter_mut().flat_map(|b| b.waiting.drain(..)) {
                    ticket.answer(Outcome::Unknown);
                }
            }
            let at = self.pending.len();
            changed.extend(self.apply_lot(lot, batches, now)?);
            for p in &mut self.pending[at..] {
                p.since = since;
            }
        }
        self.apply_changed(changed, now)?;
        self.pending_retry_at = now.mono + PENDING_RETRY;
        if self.space.lacking && !self.pending.iter().any(|p| p.for_space) {
            self.space.probed = None;
        }
        self.note_synced();
        self.answer_sync_waiters();
        Ok(())
    }

    fn answer_sync_waiters(&mut self) {
        if self.sync_waiters.is_empty() || self.pending.iter().any(|p| p.for_space) || !self.staged.is_empty()
        {
            return;
        }
        let outcome = match self.pending.first() {
            Some(p) => Outcome::Refused(unavailable(p.staged.batch.lot.stem(), &p.why)),
            None => Outcome::Synced { lsn: self.next_lsn - 1 },
        };
        for ticket in self.sync_waiters.drain(..) {
            ticket.answer(outcome.clone());
        }
    }

    fn reopen(&mut self, ticket: Ticket, now: Now) -> Result<(), VaultError> {
        self.settle(now)?;
        self.lots.close_all();
        tracing::info!("lot files are reopened");
        ticket.answer(Outcome::Synced { lsn: self.next_lsn - 1 });
        Ok(())
    }

    /// Finishes what is in hand and makes a checkpoint: no redo reaches back past this moment.
    pub(crate) fn settle(&mut self, now: Now) -> Result<(), VaultError> {
        self.commit(now)?;
        self.checkpoint_now(now)
    }

    /// Strictly increasing while the wall clock is less than an hour behind; a greater step back is followed.
    fn next_stamp(&mut self, wall_micros: i64) -> i64 {
        let behind = self.stamp_micros.saturating_sub(wall_micros);
        self.stamp_micros = if behind < 0 {
            wall_micros
        } else if behind < CLOCK_STEP_MICROS {
            self.stamp_micros + 1
        } else {
            tracing::warn!(
                seconds = behind / 1_000_000,
                "the wall clock was set back by more than an hour: timestamps follow it"
            );
            wall_micros
        };
        // Positive: timestamps run ahead of the wall clock. Negative: by so much they just stepped back.
        let skew = if behind >= CLOCK_STEP_MICROS { -behind } else { behind.max(0) };
        self.metrics.clock_skew_micros.store(skew, Relaxed);
        self.stamp_micros
    }

    /// Does what is due, whether or not a group came.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop.
    pub fn tick(&mut self, now: Now) -> Result<(), VaultError> {
        self.journal.tend(now.mono)?;
        if !self.pending.is_empty() && now.mono >= self.pending_retry_at {
            self.retry_pending(now)?;
        }
        if self.sync_is_due(now.mono) {
            self.commit(now)?;
        }
        self.step_checkpoint(now)
    }

    /// When [`Vault::tick`] wants to be called next; `None`: nothing is due until a group comes.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = (!self.pending.is_empty()).then_some(self.pending_retry_at);
        [self.sync_due_at(), retry, self.journal.next_deadline(), self.checkpoint_deadline(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Serves the queue until every sender is gone and all is synced, in the lot files and checkpointed.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop. The queue is dropped: its tickets answer themselves.
    pub fn run(mut self, receiver: Receiver) -> Result<(), VaultError> {
        loop {
            let now = Now::read();
            self.tick(now)?;
            self.metrics.idle.store(true, Relaxed);
            let next = receiver.next_group(self.next_deadline(now.mono));
            self.metrics.idle.store(false, Relaxed);
            match next {
                Next::Group(group) => {
                    let now = Now::read();
                    self.commit_group(group, now)?;
                    if self.journal.held_segments() >= SEGMENTS_BACK_PRESSURE {
                        self.checkpoint_now(Now::read())?;
                    }
                }
                Next::Deadline => {}
                Next::Closed => break,
            }
        }
        self.close(Now::read())
    }

    /// Clean stop: everything synced, in the lot files and checkpointed.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn close(mut self, now: Now) -> Result<(), VaultError> {
        self.settle(now)?;
        self.retry_pending(now)?;
        while self.pending.iter().any(|p| p.for_space) {
            // The caller's drain deadline bounds this.
            std::thread::sleep(PENDING_RETRY);
            self.retry_pending(Now::read())?;
        }
        self.checkpoint_now(Now::read())
    }
}

fn no_space(why: &str) -> Refusal {
    Refusal::new(
        Code::NoSpace,
        format!("there is no space, so nothing was stored ({why}): make room, the daemon goes on by itself"),
    )
}

fn unavailable(stem: &str, why: &str) -> Refusal {
    Refusal::new(
        Code::LotUnavailable,
        format!(
            "lots/{stem}.jsonl cannot be used now, so nothing of this batch was stored ({why}): other lots go on; mend the file and send again"
        ),
    )
}

/// A timestamp as records spell it.
fn stamp_text(micros: i64) -> [u8; STAMP_BYTES] {
    // Years 0001 to 9999 have four digits; a clock beyond them is held at their edge.
    const EDGES: (i64, i64) = (-62_135_596_800_000_000, 253_402_300_799_999_999);
    let time = chrono::DateTime::from_timestamp_micros(micros.clamp(EDGES.0, EDGES.1)).unwrap_or_default();
    let text = time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    let mut bytes = [b'0'; STAMP_BYTES];
    let length = text.len().min(STAMP_BYTES);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

/// Starts the writer thread. The receiver yields its end: `Ok` after a clean drain, `Err` for fail-stop, and
/// closes without a value if the writer panicked.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(
    vault: Vault,
    receiver: Receiver,
) -> std::io::Result<tokio::sync::oneshot::Receiver<Result<(), VaultError>>> {
    let (end, ended) = tokio::sync::oneshot::channel();
    let metrics = vault.metrics.clone();
    std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
        let result = vault.run(receiver);
        metrics.failed.store(result.is_err(), Relaxed);
        // Nobody waits any more: then there is nobody to tell.
        let _ = end.send(result);
    })?;
    Ok(ended)
}

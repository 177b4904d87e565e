//! The single writer: takes groups of submissions, puts them in order, journals them, syncs, appends to the
//! lot files and answers the tickets. Knows no sockets and no runtime, and reads no clock but in its loop.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::apply::PENDING_RETRY;
use crate::batch::{Batch, Code, Durability, Outcome, Refusal};
use crate::budget::Hold;
use crate::frame::{self, Content};
use crate::journal::For;
use crate::lots::{Look, Lot};
use crate::means::stamp_text;
use crate::order::Order;
use crate::queue::{Next, Receiver, Submission, Ticket};
use crate::record;
use crate::sessions::{Last, Verdict};
use crate::vault::{Now, Staged, Vault, VaultError, no_space, sealed, unavailable};

impl Vault {
    /// Commits a group. This is the promise, and its order is the reason that it holds:
    ///
    /// * **Whole.** A batch is one frame with one checksum: recovery finds all of it or none. Its lines are
    ///   appended one after the other by this one thread.
    /// * **Once.** The session table is asked before the batch gets an lsn and knows it before the next batch
    ///   is asked; recovery rebuilds it from the same frames that hold the batches.
    /// * **Kept.** A `written` ticket is answered after its frame was handed to the kernel, a `synced` one
    ///   after an `fdatasync` that began after that returned without an error (`commit`).
    /// * **Visible is durable.** Lot files are appended to only after that sync. A `synced` ticket is answered
    ///   after its lines are in its lot file.
    /// * **Refused means not stored.** Every refusal happens before the frame is made.
    /// * **Honest.** An error of a sync or of a journal write comes out of here as [`VaultError`]: the tickets
    ///   are dropped unanswered, and the process ends.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop.
    pub fn commit_group(&mut self, group: Vec<Submission>, now: Now) -> Result<(), VaultError> {
        self.lots.note_time(now.wall_micros);
        let mut batches = 0;
        for submission in group {
            match submission {
                Submission::Batch(batch, ticket) => {
                    batches += 1;
                    self.admit(batch, ticket, now)?;
                }
                Submission::Sync(ticket) => {
                    self.sync_waiters.push((self.next_lsn - 1, ticket));
                    self.sync_wanted = true;
                }
                Submission::Nudge => {}
                Submission::Order(order, mut ticket) => {
                    // What it comes to before the daemon ends, nobody knows.
                    ticket.take();
                    match order {
                        Order::Reload => self.reopen(ticket, now)?,
                        Order::Rotate(lot) => self.order_rotation(lot, ticket, now),
                        Order::Seal(lot) => self.order_seal(&lot, ticket, now)?,
                    }
                }
            }
        }
        self.metrics.group_batches.record(batches);
        self.flush()?;
        self.sync_if_wanted(now)?;
        // Of a `sync` there may be nothing to wait for.
        self.answer_sync_waiters(now.mono);
        self.answers.ring();
        Ok(())
    }

    /// Takes one batch: refuses it, answers it as a duplicate, or makes its frame.
    fn admit(&mut self, batch: Batch, mut ticket: Ticket, now: Now) -> Result<(), VaultError> {
        let running = self.checkpointing.running_seconds(now.mono);
        if let Some((session, seq)) = &batch.session {
            let refusal = match self.sessions.judge(session.as_str(), *seq, batch.content_hash, running) {
                Verdict::Next => None,
                Verdict::DuplicateOfLast(last) => {
                    self.answer_duplicate(ticket, &batch, last.lsn, Some((last.records, last.lsn)));
                    return Ok(());
                }
                Verdict::DuplicateOfOlder(last) => {
                    self.answer_duplicate(ticket, &batch, last.lsn, None);
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
                self.answers.give(ticket, Outcome::Refused(refusal));
                return Ok(());
            }
        }
        let lines_bytes = batch.lines_bytes;
        let stem = batch.lot.stem();
        if let Some(refusal) = self.lacks(stem, lines_bytes, now.mono) {
            self.answers.give(ticket, Outcome::Refused(refusal));
            return Ok(());
        }
        let lot = match self.open_lot(stem, now)? {
            Ok(lot) => lot,
            Err(refusal) => {
                self.answers.give(ticket, Outcome::Refused(refusal));
                return Ok(());
            }
        };
        let session = batch.session.as_ref().map_or("", |(name, _)| name.as_str());
        let frame_bytes = frame::batch_frame_bytes(stem, session, &batch.body.suffix, &batch.body.items);
        if !self.journal.reserve(frame_bytes, For::Batch, now.mono)? {
            let why = self.journal.lack_of_segments().unwrap_or("the next journal segment is not ready");
            self.answers.give(ticket, Outcome::Refused(no_space(why)));
            self.space_was_refused(now.mono);
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
            quota: None,
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
            Durability::Written => {
                staged.quota = ticket.take_quota();
                self.sync_wanted |= staged.quota.as_ref().is_some_and(Hold::is_tight);
                self.after_flush.push((ticket, outcome));
            }
            Durability::Synced => {
                self.sync_wanted = true;
                // A control of the power-cut rig, which must see what this loses.
                let early = cfg!(lotlog_control = "early_ack");
                let answers = if early { &mut self.after_flush } else { &mut staged.waiting };
                answers.push((ticket, outcome));
            }
        }
        self.space.free_bytes = self.space.free_bytes.saturating_sub(lines_bytes);
        self.group_lots.insert(lot);
        self.oldest_unsynced.get_or_insert(now.mono);
        self.staged.push(staged);
        Ok(())
    }

    /// Looks at the batch's lot. If somebody else has changed it, what is in hand is finished and a
    /// checkpoint made before the file is taken as it is: no redo may reach back past the change.
    fn open_lot(&mut self, stem: &str, now: Now) -> Result<Result<Lot, Refusal>, VaultError> {
        let crowded = self.lots.is_crowded() && !self.lots.is_open(stem);
        if crowded || self.group_lots.len() >= self.lots.most_lots_in_group() {
            self.commit(now)?;
            if crowded {
                self.checkpoint_now(now)?;
            }
            if let Some(refusal) = self.is_blocked(stem) {
                return Ok(Err(refusal));
            }
        }
        if self.sealing.contains_key(stem) {
            return Ok(Err(sealed(stem)));
        }
        // One look at a lot is enough for a group: it is looked at again before and after its append.
        if let Some(lot) = self.lots.known(stem).filter(|lot| self.group_lots.contains(lot)) {
            return Ok(Ok(lot));
        }
        let look = match self.lots.look(stem)? {
            Look::Changed(_, why) => {
                tracing::warn!(
                    lot = stem,
                    change = why,
                    "somebody else has changed a lot file: it is taken as it now is"
                );
                self.settle(now)?;
                // What was in hand for this lot may have stayed pending: its place is taken.
                if let Some(refusal) = self.is_blocked(stem) {
                    return Ok(Err(refusal));
                }
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
                self.space_was_refused(now.mono);
                Err(no_space(&why))
            }
            Look::Sealed => Err(sealed(stem)),
            Look::Unavailable(why) | Look::Changed(_, why) => {
                tracing::warn!(lot = stem, why, "a lot file cannot be used: its batches are refused");
                Err(unavailable(stem, &why))
            }
        })
    }

    pub(crate) fn report_set_aside(&mut self) {
        for aside in self.lots.take_set_aside() {
            tracing::warn!(
                lot = aside.stem,
                bytes = aside.bytes,
                copy = aside.copy,
                "something in lots/ that lotlogd did not write was set aside"
            );
        }
    }

    /// A duplicate shares the fate of what it repeats.
    fn answer_duplicate(&mut self, mut ticket: Ticket, batch: &Batch, lsn: u64, last: Option<(u32, u64)>) {
        // What it repeats may be on its way to the disk: nobody may say that it is not stored.
        ticket.take();
        let ack = batch.ack;
        self.metrics.duplicates.fetch_add(1, Relaxed);
        let outcome = Outcome::Duplicate { last, durability: ack };
        match ack {
            Durability::Written => self.after_flush.push((ticket, outcome)),
            Durability::Synced => {
                let waiting = match (self.staged.binary_search_by_key(&lsn, |s| s.lsn), &batch.session) {
                    (Ok(at), _) => {
                        self.sync_wanted = true;
                        Some(&mut self.staged[at])
                    }
                    // Of an older batch only the session is known: all that it has on its way is waited for.
                    (Err(_), Some((session, _))) => {
                        self.last_on_its_way(session, lsn).filter(|s| last.is_none() || s.lsn == lsn)
                    }
                    (Err(_), None) => None,
                };
                match waiting {
                    Some(staged) => staged.waiting.push((ticket, outcome)),
                    None => self.after_flush.push((ticket, outcome)),
                }
            }
        }
    }

    /// Hands the frames to the kernel and answers who asked for no more.
    pub(crate) fn flush(&mut self) -> Result<(), VaultError> {
        self.journal.flush()?;
        // A sync may have failed meanwhile: then nothing more is acknowledged, what is stored long since neither.
        self.storage.check()?;
        for (ticket, outcome) in self.after_flush.drain(..) {
            self.answers.give(ticket, outcome);
        }
        self.answers.ring();
        Ok(())
    }

    fn reopen(&mut self, ticket: Ticket, now: Now) -> Result<(), VaultError> {
        self.settle(now)?;
        self.lots.close_all();
        tracing::info!("lot files are reopened");
        self.answers.give(ticket, Outcome::Synced { lsn: self.next_lsn - 1 });
        Ok(())
    }

    /// Finishes what is in hand and makes a checkpoint: no redo reaches back past this moment.
    pub(crate) fn settle(&mut self, now: Now) -> Result<(), VaultError> {
        self.commit(now)?;
        self.checkpoint_now(now)
    }

    /// Does what is due, whether or not a group came.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop.
    pub fn tick(&mut self, now: Now) -> Result<(), VaultError> {
        self.lots.note_time(now.wall_micros);
        self.journal.tend(now.mono)?;
        self.hear_sync(now)?;
        self.apply_some(now)?;
        self.answers.ring();
        if !self.pending.is_empty() && now.mono >= self.pending_retry_at {
            self.retry_pending(now)?;
            self.answers.ring();
        }
        self.sync_if_wanted(now)?;
        self.step_checkpoint(now)?;
        self.rotate_some(now)?;
        self.hear_chores()?;
        self.keep(now)?;
        self.answers.ring();
        Ok(())
    }

    /// When [`Vault::tick`] wants to be called next; `None`: nothing is due until a group comes.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = (!self.pending.is_empty()).then_some(self.pending_retry_at);
        let apply = (!self.ready.is_empty()).then_some(now);
        let checkpoint = self.checkpoint_deadline(now);
        let journal = self.journal.next_deadline(now);
        let all = [
            apply,
            self.sync_due_at(),
            retry,
            journal,
            checkpoint,
            self.rotation_deadline(now),
            self.keeping_deadline(now),
        ];
        all.into_iter().flatten().min()
    }

    /// Serves the queue until every sender is gone and all is synced, in the lot files and checkpointed.
    ///
    /// # Errors
    /// [`VaultError`]: fail-stop. The queue is dropped: its tickets answer themselves.
    pub fn run(mut self, receiver: Receiver) -> Result<(), VaultError> {
        self.journal.ring(receiver.bell());
        self.chores.ring(receiver.bell());
        if let Some(keeping) = &self.keeping {
            keeping.ring(receiver.bell());
        }
        loop {
            let now = Now::read();
            self.tick(now)?;
            if !self.ready.is_empty() {
                // A producer or a connection may wait for this processor, and would for as long as lines are appended.
                std::thread::yield_now();
            }
            self.metrics.idle.store(!self.is_busy(), Relaxed);
            let next = receiver.next_group(self.next_deadline(now.mono));
            self.metrics.idle.store(false, Relaxed);
            match next {
                Next::Group(group) => {
                    let now = Now::read();
                    self.commit_group(group, now)?;
                    self.relieve(Now::read())?;
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
        self.commit(now)?;
        self.retry_pending(now)?;
        while self.pending.iter().any(|p| p.for_space) {
            // The caller's drain deadline bounds this.
            std::thread::sleep(PENDING_RETRY);
            self.retry_pending(Now::read())?;
        }
        self.checkpoint_now(now)?;
        Ok(self.journal.finish(now.mono)?)
    }
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

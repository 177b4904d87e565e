//! Rotation: files of lots that have grown too large or too old, or that an operator names, go to the archive. Done
//! between the groups, some lots at a time. Part of the vault; how a file is moved is in `archive`.
//!
//! A lot's file is moved only when no redo reaches back into it: a checkpoint has covered all that was ever written to
//! it, and nothing is on its way. Lots that are idle are in that state by themselves. For busy ones a checkpoint is made
//! in the background first, which syncs what was written so far, and then a second one that everything waits for: it
//! has little left to sync.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::archive::{self, Move};
use crate::batch::{Code, LotId, Outcome, Refusal, decode_stem};
use crate::lots::{Birth, LOT_SUFFIX, Look, Lot, SEAL_SUFFIX, file_name};
use crate::queue::Ticket;
use crate::storage::{Dir, StorageError};
use crate::vault::{End, Now, Ordered, Vault, VaultError, no_space, unavailable};

/// Most files moved between two groups.
const FILES_IN_A_TURN: usize = 32;
/// After a rotation that could not be carried out it is tried again this much later.
const RETRY: Duration = Duration::from_secs(10);
/// Between two turns of a rotation that nobody waits for, so that lots that are due one after the other share one.
const PAUSE: Duration = Duration::from_secs(1);

impl Vault {
    /// A lot's file has reached the size at which it is rotated.
    pub(crate) fn rotate_if_large(&mut self, lot: Lot) {
        let most = self.config.rotate_bytes;
        if most > 0 && self.lots.written(lot) >= most {
            self.rotation.due.insert(self.lots.stem(lot).into());
        }
    }

    /// Takes an operator's order; its ticket is answered when it is carried out.
    pub(crate) fn order_rotation(&mut self, lot: Option<LotId>, ticket: Ticket, now: Now) {
        let left: BTreeSet<Box<str>> = match &lot {
            Some(lot) => BTreeSet::from([lot.stem().into()]),
            None => match self.storage.names(Dir::Lots) {
                Ok(names) => {
                    let stems = names.iter().filter_map(|name| name.strip_suffix(LOT_SUFFIX));
                    stems.filter(|stem| decode_stem(stem).is_some()).map(Into::into).collect()
                }
                Err(error) => {
                    ticket.answer(Outcome::Refused(not_done(&error)));
                    return;
                }
            },
        };
        self.rotation.due.extend(left.iter().cloned());
        let of_one = lot.is_some();
        self.rotation.orders.push(Ordered { ticket, left, moved: 0, skipped: 0, refusal: None, of_one });
        self.rotation.not_before = now.mono;
        self.answer_orders();
    }

    pub(crate) fn rotation_deadline(&self, now: Instant) -> Option<Instant> {
        // A checkpoint under way has a deadline of its own.
        let waits = self.rotation.due.is_empty() || self.checkpointing.under_way.is_some();
        (!waits).then(|| self.rotation.not_before.max(now))
    }

    /// Moves some of the files that are due, if it is time.
    pub(crate) fn rotate_some(&mut self, now: Now) -> Result<(), VaultError> {
        let waits = self.rotation.due.is_empty() || self.checkpointing.under_way.is_some();
        if waits || now.mono < self.rotation.not_before {
            return Ok(());
        }
        let mut turn = self.covered_lots();
        if turn.is_empty() && !self.rotation.prepared {
            self.begin_checkpoint(now)?;
            self.rotation.prepared = self.checkpointing.under_way.is_some();
            self.rotation.not_before = if self.rotation.prepared { now.mono } else { now.mono + PAUSE };
            return Ok(());
        }
        if turn.is_empty() {
            self.settle(now)?;
            self.rotation.prepared = false;
            turn = self.covered_lots();
            if turn.is_empty() {
                self.give_up_blocked();
            }
        }
        let ends = self.rotate(&turn)?;
        let failed = ends.values().any(|end| matches!(end, End::Not(_)));
        let moved = ends.values().filter(|end| matches!(end, End::Moved)).count();
        self.metrics.archive.rotated.fetch_add(moved as u64, Relaxed);
        let not_moved = |end: &&End| matches!(end, End::Not(refusal) if refusal.code != Code::LotSealed);
        let not_moved = ends.values().filter(not_moved).count();
        self.metrics.archive.not_rotated.fetch_add(not_moved as u64, Relaxed);
        for (stem, end) in &ends {
            self.rotation.end(stem, end);
        }
        // Those that are due later have a checkpoint in the background first, as these had.
        self.rotation.prepared &= !self.rotation.due.is_empty();
        self.answer_orders();
        let pause = if failed { RETRY } else { PAUSE };
        self.rotation.not_before =
            now.mono + if self.rotation.orders.is_empty() { pause } else { Duration::ZERO };
        Ok(())
    }

    /// Some of the lots that are due and that no redo reaches back into.
    fn covered_lots(&self) -> Vec<Box<str>> {
        let due = self.rotation.due.iter();
        let covered = due.filter(|stem| self.lots.is_covered(stem) && self.is_blocked(stem).is_none());
        covered.take(FILES_IN_A_TURN).cloned().collect()
    }

    /// Lots that no redo should reach back into any more, but does: batches of theirs wait for their file.
    fn give_up_blocked(&mut self) {
        for stem in std::mem::take(&mut self.rotation.due) {
            let refusal = self.is_blocked(&stem).unwrap_or_else(|| unavailable(&stem, "its batches wait"));
            tracing::warn!(lot = &*stem, why = refusal.message, "a lot file cannot be rotated now");
            self.rotation.end(&stem, &End::Not(refusal));
        }
    }

    /// Moves these lots' files; says what became of each. The order is the reason that nothing is lost: what is in
    /// the file is durable, then its directory, then the word of what is about to be moved, then it is moved, then both
    /// directories are synced, and only then may a batch begin a new file of the lot.
    fn rotate(&mut self, stems: &[Box<str>]) -> Result<HashMap<Box<str>, End>, VaultError> {
        let (mut ends, mut moves) = (HashMap::new(), Vec::new());
        for stem in stems {
            let met = self.meet_for_rotation(stem);
            self.report_set_aside();
            match met {
                Ok(Ok(Some(moved))) => moves.push(moved),
                Ok(Ok(None)) => drop(ends.insert(stem.clone(), End::Archived)),
                Ok(Err(refusal)) => drop(ends.insert(stem.clone(), End::Not(refusal))),
                Err(error) => drop(ends.insert(stem.clone(), End::Not(self.or_stop(error)?))),
            }
        }
        if moves.is_empty() {
            return Ok(ends);
        }
        let ready =
            archive::make_dirs(&self.storage, &moves).and_then(|()| archive::announce(&self.storage, &moves));
        if let Err(error) = ready {
            let refusal = self.or_stop(error)?;
            tracing::warn!(why = refusal.message, "lot files cannot be rotated now");
            ends.extend(moves.iter().map(|m| (m.stem.as_str().into(), End::Not(refusal.clone()))));
            return Ok(ends);
        }
        let mut made = Vec::new();
        for moved in moves {
            let stem = moved.stem.as_str().into();
            match archive::carry_out(&self.storage, &moved) {
                Ok(()) => {
                    made.push(moved);
                    ends.insert(stem, End::Moved);
                }
                Err(error) => {
                    let refusal = self.or_stop(error)?;
                    tracing::warn!(
                        lot = moved.stem,
                        why = refusal.message,
                        "a lot file cannot be rotated now"
                    );
                    ends.insert(stem, End::Not(refusal));
                }
            }
        }
        archive::settle(&self.storage, &made)?;
        for moved in &made {
            if let Some(lot) = self.lots.known(&moved.stem) {
                self.metrics.archive.rotated_bytes.fetch_add(self.lots.written(lot), Relaxed);
                self.lots.forget(lot);
            }
        }
        self.keep_moved(&made);
        // Their places among the lots may be given to others.
        self.group_lots.clear();
        if let Err(error) = archive::conclude(&self.storage) {
            self.or_stop(error)?;
        }
        if let Some(first) = made.first() {
            let first = format!("archive/{}", first.place());
            tracing::info!(files = made.len(), first, "lot files were rotated");
        }
        Ok(ends)
    }

    /// Looks at a lot whose file is to be moved, and makes what is in it durable. Gives where it goes; `None` where all
    /// that it has is in the archive.
    pub(crate) fn meet_for_rotation(
        &mut self,
        stem: &str,
    ) -> Result<Result<Option<Move>, Refusal>, StorageError> {
        if self.sealing.contains_key(stem) {
            return Ok(Err(stays(stem)));
        }
        if self.storage.stat(Dir::Lots, &file_name(stem))?.is_none() {
            if self.storage.stat(Dir::Lots, &format!("{stem}{SEAL_SUFFIX}"))?.is_some() {
                return Ok(Err(stays(stem)));
            }
            if !archive::numbers(&self.storage, stem)?.is_empty() {
                return Ok(Ok(None));
            }
            return Ok(Err(Refusal::new(
                Code::InvalidRequest,
                format!(
                    "there is no lots/{}, so nothing was rotated: `lotlog lots` lists what there is",
                    file_name(stem)
                ),
            )));
        }
        let look = match self.lots.look(stem)? {
            // No redo reaches back into it.
            Look::Changed(lot, _) => self.lots.adopt(lot)?,
            look => look,
        };
        let lot = match look {
            Look::Ready(lot) => lot,
            Look::NoSpace(why) => return Ok(Err(no_space(&why))),
            Look::Sealed => return Ok(Err(stays(stem))),
            Look::Unavailable(why) | Look::Changed(_, why) => return Ok(Err(unavailable(stem, &why))),
        };
        let Some(file) =
            self.lots.file(lot).filter(|_| self.lots.is_named(lot) && self.lots.written(lot) > 0)
        else {
            return Ok(Err(unavailable(stem, "it has no record")));
        };
        // Somebody else may have written to it, or cut it.
        file.sync()?;
        let newest = archive::numbers(&self.storage, stem)?.last().copied();
        let begun = Birth::of(&file).map(|birth| birth.lsn).filter(|lsn| (1..self.next_lsn).contains(lsn));
        let number = begun.filter(|lsn| newest.is_none_or(|newest| newest < *lsn));
        let number = number.unwrap_or(newest.map_or(1, |newest| newest.saturating_add(1)));
        Ok(Ok(Some(Move { stem: stem.to_owned(), number })))
    }

    /// The refusal for an error that is this rotation's alone; the error where the disk has failed.
    pub(crate) fn or_stop(&self, error: StorageError) -> Result<Refusal, VaultError> {
        if self.storage.failure().is_some() { Err(error.into()) } else { Ok(not_done(&error)) }
    }

    fn answer_orders(&mut self) {
        let (done, left) =
            std::mem::take(&mut self.rotation.orders).into_iter().partition(|o| o.left.is_empty());
        self.rotation.orders = left;
        let done: Vec<Ordered> = done;
        for order in done {
            let lsn = self.next_lsn - 1;
            order.ticket.answer(match order.refusal.filter(|_| order.of_one) {
                Some(refusal) => Outcome::Refused(refusal),
                None => Outcome::Rotated { lsn, files: order.moved, skipped: order.skipped },
            });
        }
    }
}

fn stays(stem: &str) -> Refusal {
    let why = "is sealed, so nothing was rotated: its files stay where its footer says";
    Refusal::new(Code::LotSealed, format!("the lot {stem} {why}"))
}

fn not_done(error: &StorageError) -> Refusal {
    if error.is_no_space() {
        return no_space(&error.to_string());
    }
    let hint = match error.source.kind() {
        io::ErrorKind::CrossesDevices => "archive/ must be on the file system of lots/, and be no link",
        _ => "see `lotlog verify`, and try again",
    };
    Refusal::new(Code::LotUnavailable, format!("nothing was rotated ({error}): {hint}"))
}

//! Finished files: a lot is closed for good when an operator says so, and the archive is kept as the operator has set. The reading and writing is done in the
//! background; the writer says what is finished, and hears what came of it. Part of the vault.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::archive::Move;
use crate::background::{Chored, Done, Job};
use crate::batch::{Code, LotId, Outcome, Refusal, decode_stem};
use crate::config::VaultConfig;
use crate::keeping::{Keeping, Policy};
use crate::lots::{SEAL_SUFFIX, file_name};
use crate::queue::Ticket;
use crate::seal::Sealing;
use crate::storage::Dir;
use crate::vault::{Now, Vault, VaultError, no_space, unavailable};

/// All of the archive, and the age of all lots, is looked at this often ...
const KEEP_INTERVAL: Duration = Duration::from_secs(600);
/// ... or where lots are to be rotated younger than that, so often, but not more often than this.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// What the operator has set for the archive.
pub(crate) fn keeping_policy(config: &VaultConfig) -> Policy {
    Policy {
        level: i32::try_from(config.archive_compress).unwrap_or(0),
        rotate_seconds: config.rotate_age.as_secs(),
        retain_seconds: config.retain_age.as_secs(),
        retain_bytes: config.retain_bytes,
    }
}

impl Vault {
    /// Closes a lot: from now on its batches are refused. What was accepted before is brought into its file first, and
    /// no redo reaches back into it; then its footer is made, and only that closes it for good.
    pub(crate) fn order_seal(&mut self, lot: &LotId, ticket: Ticket, now: Now) -> Result<(), VaultError> {
        match self.begin_seal(lot.stem(), now)? {
            Err(refusal) => {
                if !self.sealing.contains_key(lot.stem()) {
                    self.closing.end(lot.stem());
                }
                ticket.answer(Outcome::Refused(refusal));
            }
            Ok(sealing) => {
                self.sealing.insert(lot.stem().into(), ticket);
                self.chores.submit(Job::Chore(Box::new(sealing)));
            }
        }
        Ok(())
    }

    fn begin_seal(&mut self, stem: &str, now: Now) -> Result<Result<Sealing, Refusal>, VaultError> {
        let again = |how: &str| {
            Ok(Err(Refusal::new(Code::LotSealed, format!("the lot {stem} {how}, so nothing more was done"))))
        };
        if self.sealing.contains_key(stem) {
            return again("is being sealed");
        }
        match self.storage.stat(Dir::Lots, &format!("{stem}{SEAL_SUFFIX}")) {
            Err(error) => return Ok(Err(self.or_stop(error)?)),
            Ok(Some(_)) => return again("is sealed already"),
            Ok(None) => {}
        }
        self.settle(now)?;
        if let Some(refusal) = self.is_blocked(stem) {
            return Ok(Err(refusal));
        }
        let live = match self.storage.stat(Dir::Lots, &file_name(stem)) {
            Err(error) => return Ok(Err(self.or_stop(error)?)),
            Ok(there) => there.is_some(),
        };
        if live {
            let met = self.meet_for_rotation(stem);
            self.report_set_aside();
            match met {
                Err(error) => return Ok(Err(self.or_stop(error)?)),
                Ok(Err(refusal)) => return Ok(Err(refusal)),
                Ok(Ok(_)) => {}
            }
        }
        let id = decode_stem(stem).unwrap_or_default();
        // Before its archive is listed.
        self.closing.begin(stem);
        let sealing = Sealing::new(&self.storage, (stem, id), live, self.next_lsn - 1, now.wall_micros);
        let sealing = match sealing {
            Err(error) => return Ok(Err(self.or_stop(error)?)),
            Ok(sealing) if sealing.is_empty() => {
                let why = "so nothing was sealed: `lotlog lots` lists what there is";
                return Ok(Err(Refusal::new(
                    Code::InvalidRequest,
                    format!("the lot {stem} has no file, {why}"),
                )));
            }
            Ok(sealing) => sealing,
        };
        if let Some(lot) = self.lots.known(stem) {
            self.lots.forget(lot);
            self.group_lots.clear();
        }
        Ok(Ok(sealing))
    }

    /// While a round is under way its end rings.
    pub(crate) fn keeping_deadline(&self, now: Instant) -> Option<Instant> {
        let waits = self.keeping.is_none() || self.keeps;
        (!waits).then(|| self.keep_at.max(now))
    }

    /// Has files that were just moved to the archive compressed.
    pub(crate) fn keep_moved(&mut self, moves: &[Move]) {
        let policy = keeping_policy(&self.config);
        if let Some(lane) = self.keeping.as_mut().filter(|_| policy.level > 0 && !moves.is_empty()) {
            lane.submit(Job::Chore(Box::new(Keeping::of(policy, moves.to_vec(), &self.closing))));
        }
    }

    /// Has the archive looked at, if it is time; hears what came of that.
    pub(crate) fn keep(&mut self, now: Now) -> Result<(), VaultError> {
        let Some(lane) = &mut self.keeping else { return Ok(()) };
        self.steadiness.look(now.wall_micros, now.mono);
        let age = self.config.rotate_age;
        let interval = if age.is_zero() { KEEP_INTERVAL } else { age.clamp(KEEP_PAUSE, KEEP_INTERVAL) };
        while let Some(done) = lane.poll() {
            match done {
                Done::Failed(error) => return Err(error.into()),
                Done::Chored(Chored::Kept { all, removed, old }) => {
                    if all {
                        // From its end on: one that takes longer than that must not be followed by the next at once.
                        self.keeps = false;
                        self.keep_at = now.mono + interval;
                    }
                    self.rotation.due.extend(old);
                    if removed > 0 {
                        tracing::warn!(
                            removed,
                            "archived files were removed, as retain_age_seconds and retain_bytes say"
                        );
                    }
                }
                _ => {}
            }
        }
        if !self.keeps && now.mono >= self.keep_at {
            self.keeps = true;
            let mut policy = keeping_policy(&self.config);
            if !self.steadiness.is_steady(now.mono) {
                policy.retain_seconds = 0;
            }
            let round = Keeping::all(policy, now.wall_micros, &self.closing);
            lane.submit(Job::Chore(Box::new(round)));
        }
        Ok(())
    }

    /// Hears what came of work in the background.
    pub(crate) fn hear_chores(&mut self) -> Result<(), VaultError> {
        while let Some(done) = self.chores.poll() {
            match done {
                Done::Failed(error) => return Err(error.into()),
                Done::Chored(Chored::Sealed { stem, records, bytes }) => {
                    tracing::info!(
                        lot = &*stem,
                        records,
                        bytes,
                        "a lot is sealed: it takes no batches any more"
                    );
                    self.metrics.archive.sealed.fetch_add(1, Relaxed);
                    self.closing.end(&stem);
                    if let Some(ticket) = self.sealing.remove(&stem) {
                        ticket.answer(Outcome::Sealed { lsn: self.next_lsn - 1, records, bytes });
                    }
                }
                Done::Chored(Chored::NotDone { stem, why }) => {
                    tracing::warn!(lot = &*stem, %why, "a lot could not be sealed: it takes batches as before");
                    self.closing.end(&stem);
                    if let Some(ticket) = self.sealing.remove(&stem) {
                        let lacks = self.space.lacking || why.is_no_space();
                        let why = why.to_string();
                        let refusal = if lacks { no_space(&why) } else { unavailable(&stem, &why) };
                        ticket.answer(Outcome::Refused(refusal));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

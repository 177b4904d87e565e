//! The vault: everything behind the queue, as values. What is done with them is in `writer` (groups), `apply`
//! (lot files), `checkpoint`, and at the start in `recovery`. Knows no sockets and no runtime, and reads no
//! clock: time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::batch::{Batch, Code, Outcome, Refusal, SessionId};
use crate::budget::Hold;
use crate::config::VaultConfig;
use crate::frame::{self, BatchFrame, Position};
use crate::journal::Journal;
use crate::lane::Lane;
use crate::lots::{Lot, Lots};
use crate::metrics::Metrics;
use crate::queue::{Answers, Ticket};
use crate::seal::Closing;
use crate::sessions::Sessions;
use crate::steady::Steadiness;
use crate::storage::{Storage, StorageError};

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
    /// Held until it is synced: users who share the daemon share the disk, which takes less than they can write.
    pub quota: Option<Hold>,
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

/// The state of checkpoints.
#[derive(Debug)]
pub struct Checkpointing {
    pub(crate) lane: Lane,
    pub(crate) under_way: Option<UnderWay>,
    pub(crate) last_end: Instant,
    pub(crate) not_before: Instant,
    /// Batches below this lsn are covered by the last checkpoint.
    pub(crate) covered_lsn: u64,
    /// Running time at `started`, in seconds.
    running_before: u64,
    started: Instant,
}

#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) id: u128,
    pub(crate) begin: Position,
    pub(crate) next_lsn: u64,
    /// The next session row to write; `None` when all are.
    pub(crate) cursor: Option<usize>,
    pub(crate) lots_synced: bool,
}

impl Checkpointing {
    /// No checkpoint under way; `running_seconds` is the daemon's running time before this start.
    pub fn new(lane: Lane, covered_lsn: u64, running_seconds: u64, now: Instant) -> Checkpointing {
        Checkpointing {
            lane,
            under_way: None,
            last_end: now,
            not_before: now,
            covered_lsn,
            running_before: running_seconds,
            started: now,
        }
    }

    /// The daemon's running time in seconds, over all its lives.
    pub fn running_seconds(&self, now: Instant) -> u64 {
        self.running_before + now.saturating_duration_since(self.started).as_secs()
    }

    pub(crate) fn due_at(&self, config: &VaultConfig, next_lsn: u64, full: bool) -> Option<Instant> {
        // A full session table wants one too: that is when sessions are forgotten.
        (next_lsn > self.covered_lsn || full)
            .then(|| (self.last_end + config.checkpoint_interval).max(self.not_before))
    }
}

/// Files that are to be moved, and who waits for that.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// The lots, by stem.
    pub(crate) due: BTreeSet<Box<str>>,
    pub(crate) orders: Vec<Ordered>,
    /// A checkpoint that was begun in the background for those that are due has not been followed up yet.
    pub(crate) prepared: bool,
    pub(crate) not_before: Instant,
}

/// An order that is being carried out.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) ticket: Ticket,
    pub(crate) left: BTreeSet<Box<str>>,
    pub(crate) moved: u64,
    pub(crate) skipped: u64,
    /// Why the last lot that was skipped was.
    pub(crate) refusal: Option<Refusal>,
    /// It is about one lot alone.
    pub(crate) of_one: bool,
}

/// What became of one lot.
pub(crate) enum End {
    Moved,
    /// All that it has is in the archive already.
    Archived,
    Not(Refusal),
}

impl Rotation {
    pub(crate) fn new(now: Instant) -> Rotation {
        Rotation { due: BTreeSet::new(), orders: Vec::new(), prepared: false, not_before: now }
    }

    pub(crate) fn end(&mut self, stem: &str, end: &End) {
        self.due.remove(stem);
        for order in self.orders.iter_mut().filter(|order| order.left.contains(stem)) {
            order.left.remove(stem);
            match end {
                End::Moved => order.moved += 1,
                End::Archived => {}
                End::Not(refusal) => {
                    // The file of a sealed lot stays where its footer says: among all lots that is no failure.
                    order.skipped += u64::from(refusal.code != Code::LotSealed);
                    order.refusal = Some(refusal.clone());
                }
            }
        }
    }
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
    pub(crate) stamp_highest_micros: i64,
    /// Journalled, in lsn order, not synced.
    pub(crate) staged: Vec<Staged>,
    /// So many of them, from the first, the sync under way covers.
    pub(crate) covered: usize,
    /// Synced, on their way to their lot files: by lot, in lsn order.
    pub(crate) ready: VecDeque<(Lot, Vec<Staged>)>,
    /// So many of them, from the first, were there before the last sync ended.
    pub(crate) overdue: usize,
    pub(crate) pending: Vec<Pending>,
    pub(crate) checkpointing: Checkpointing,
    /// Tickets to answer as soon as the buffered frames are handed to the kernel.
    pub(crate) after_flush: Vec<(Ticket, Outcome)>,
    /// Duplicates of older batches whose session's batch of this lsn has just reached its file.
    pub(crate) older: Vec<(SessionId, u64, Ticket, Outcome)>,
    /// Who waits until everything up to an lsn is synced and in the lot files, in order.
    pub(crate) sync_waiters: Vec<(u64, Ticket)>,
    /// What was answered in this turn.
    pub(crate) answers: Answers,
    /// Somebody waits for the next sync.
    pub(crate) sync_wanted: bool,
    pub(crate) oldest_unsynced: Option<Instant>,
    pub(crate) group_lots: HashSet<Lot>,
    pub(crate) space: Space,
    pub(crate) rotation: Rotation,
    /// Works on finished files.
    pub(crate) chores: Lane,
    /// Keeps the archive, where the operator has set how.
    pub(crate) keeping: Option<Lane>,
    /// All of the archive is being looked at.
    pub(crate) keeps: bool,
    /// When it is looked at next.
    pub(crate) keep_at: Instant,
    pub(crate) steadiness: Steadiness,
    /// Lots that are being sealed, and who waits for that: they take no batches any more.
    pub(crate) sealing: HashMap<Box<str>, Ticket>,
    /// The same lots, as the lane that keeps the archive sees them.
    pub(crate) closing: Arc<Closing>,
    pub(crate) pending_retry_at: Instant,
    /// Pending batches are being tried again: what was said of them is not repeated.
    pub(crate) retrying: bool,
    /// Batches are being placed anew: what is pending meanwhile is no trouble yet.
    pub(crate) placing: bool,
    pub(crate) lines: Vec<u8>,
}

/// What recovery found and made.
pub(crate) struct Parts {
    pub journal: Journal,
    pub lots: Lots,
    pub sessions: Sessions,
    pub checkpointing: Checkpointing,
    pub chores: Lane,
    pub keeping: Option<Lane>,
    pub next_lsn: u64,
    pub stamp_micros: i64,
}

/// What is believed of the lots' file system.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) probed: Option<Instant>,
    pub(crate) lacking: bool,
    /// When a batch was last refused.
    pub(crate) refused: Option<Instant>,
}

impl Vault {
    /// Puts the parts together; recovery does this, once it knows them.
    pub(crate) fn assemble(
        storage: Storage,
        config: VaultConfig,
        metrics: Arc<Metrics>,
        parts: Parts,
        now: Instant,
    ) -> Vault {
        Vault {
            storage,
            config,
            metrics,
            journal: parts.journal,
            lots: parts.lots,
            sessions: parts.sessions,
            next_lsn: parts.next_lsn,
            stamp_micros: parts.stamp_micros,
            stamp_highest_micros: parts.stamp_micros,
            staged: Vec::new(),
            covered: 0,
            ready: VecDeque::new(),
            overdue: 0,
            pending: Vec::new(),
            checkpointing: parts.checkpointing,
            after_flush: Vec::new(),
            older: Vec::new(),
            sync_waiters: Vec::new(),
            answers: Answers::default(),
            sync_wanted: false,
            oldest_unsynced: None,
            group_lots: HashSet::new(),
            space: Space { free_bytes: 0, probed: None, lacking: false, refused: None },
            rotation: Rotation::new(now),
            chores: parts.chores,
            keeping: parts.keeping,
            keeps: false,
            keep_at: now,
            steadiness: Steadiness::new(now),
            sealing: HashMap::new(),
            closing: Arc::default(),
            pending_retry_at: now,
            retrying: false,
            placing: false,
            lines: Vec::new(),
        }
    }
}

/// The refusal of a batch for which there is no space.
pub(crate) fn no_space(why: &str) -> Refusal {
    Refusal::new(
        Code::NoSpace,
        format!("there is no space, so nothing was stored ({why}): make room, the daemon goes on by itself"),
    )
}

/// The refusal of a batch for a lot that an operator has closed.
pub(crate) fn sealed(stem: &str) -> Refusal {
    let why = "nothing of this was stored: give it another lot";
    Refusal::new(Code::LotSealed, format!("the operator has sealed lots/{stem}.jsonl, so {why}"))
}

/// The refusal of a batch whose lot file cannot be used.
pub(crate) fn unavailable(stem: &str, why: &str) -> Refusal {
    Refusal::new(
        Code::LotUnavailable,
        format!(
            "lots/{stem}.jsonl cannot be used now, so nothing of this batch was stored ({why}): other lots go on; mend the file and send again"
        ),
    )
}

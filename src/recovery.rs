//! Recovery: from whatever a crash left to a vault that may take batches. Runs before the socket is served:
//! prepare, scan, decide, apply, begin a new chain. A crash anywhere in here leads back to its start with
//! the same result. The decision itself is in `chain`, the writing to the lots in `redo`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::archive;
use crate::background::PREPARING_SUFFIX;
use crate::batch::{Batch, Body, Durability, LotId, SessionId, decode_stem};
use crate::chain::{self, Decision, Scanned};
use crate::chores::keeping_policy;
use crate::config::VaultConfig;
use crate::disk::{RealDisk, TakeError};
use crate::frame::{FORMAT_VERSION, Position, segment_name};
use crate::journal::Journal;
use crate::lane::{KEEPING, Lane};
use crate::lots::{FRESH_SUFFIX, LOT_SUFFIX, Lots, SEAL_SUFFIX, SEALING_SUFFIX};
use crate::marker::{clear_marker, is_marked};
use crate::means::SPACE_RESERVE_BYTES;
use crate::metrics::Metrics;
use crate::quarantine::{self, Piece};
use crate::rebase::REBASE_NAME;
use crate::redo::{Range, Redo, RedoError, Stranded, Told};
use crate::sessions::{Last, Sessions};
use crate::storage::{Dir, How, Storage, StorageError};
use crate::vault::{Checkpointing, Now, Parts, Pending, Staged, Vault, VaultError};

/// On a small disk a segment takes at most this part of the free space.
const SEGMENT_SHARE: u64 = 16;
/// No segment is smaller, in bytes.
pub const SEGMENT_BYTES_LEAST: u64 = 1 << 20;
/// How often recovery looks for space while it waits.
const SPACE_LOOK: Duration = Duration::from_secs(1);
/// How often it says so.
const SPACE_WORD: Duration = Duration::from_secs(60);

/// Why the vault could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// DATA could not be taken.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// Committed data is damaged.
    #[error(
        "{at}: {why}. lotlogd does not start, so that nothing is lost in silence: see what `lotlog verify` says, restore DATA from a backup, or move it aside and start anew"
    )]
    Damaged {
        /// The place.
        at: Position,
        /// What was found.
        why: String,
    },
    /// A later version wrote the journal.
    #[error("journal/{} has format {version}, this lotlogd reads up to {FORMAT_VERSION}: start the version that wrote it", segment_name(*number))]
    Newer {
        /// The segment.
        number: u64,
        /// Its format version.
        version: u32,
    },
    /// The disk.
    #[error("{0}; lotlogd does not start: check the disk, then start it again")]
    Storage(#[from] StorageError),
    /// The disk, while the new chain was begun.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No thread.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl OpenError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            OpenError::Take(TakeError::Held { .. }) => 73,
            OpenError::Take(TakeError::Io { .. }) => 78,
            OpenError::Damaged { .. } | OpenError::Newer { .. } => 65,
            OpenError::Take(TakeError::Failed { .. })
            | OpenError::Storage(_)
            | OpenError::Vault(_)
            | OpenError::Thread(_) => 74,
        }
    }
}

impl From<RedoError> for OpenError {
    fn from(error: RedoError) -> OpenError {
        match error {
            RedoError::Storage(error) => OpenError::Storage(error),
            RedoError::Contradiction { at, why } => OpenError::Damaged { at, why },
        }
    }
}

/// How a vault works in the background, and waits.
pub trait Surroundings {
    /// A lane of background work.
    ///
    /// # Errors
    /// When the system gives no thread.
    fn lane(&self, name: &str, storage: &Storage) -> std::io::Result<Lane>;
    /// Waits for a while because there is no space; `false` to give up.
    fn wait_for_space(&self, why: &StorageError) -> bool;
    /// The moment.
    fn now(&self) -> Now;
}

/// Threads and the real clock.
struct Threads(std::cell::Cell<Option<Instant>>);

impl Surroundings for Threads {
    fn lane(&self, name: &str, storage: &Storage) -> std::io::Result<Lane> {
        Lane::thread(name, storage.clone())
    }

    fn wait_for_space(&self, why: &StorageError) -> bool {
        let said = self.0.get();
        if said.is_none_or(|at| at.elapsed() >= SPACE_WORD) {
            tracing::warn!(%why, "recovery waits for space: make room, it goes on by itself; nothing has been changed");
            self.0.set(Some(Instant::now()));
        }
        std::thread::sleep(SPACE_LOOK);
        true
    }

    fn now(&self) -> Now {
        Now::read()
    }
}

impl Vault {
    /// Takes DATA, recovers it and gives a vault ready for batches.
    ///
    /// # Errors
    /// [`OpenError`], with an exit code.
    pub fn open(data_dir: &Path, config: &VaultConfig, metrics: Arc<Metrics>) -> Result<Vault, OpenError> {
        let around = Threads(std::cell::Cell::new(None));
        let disk = loop {
            match RealDisk::take(data_dir) {
                Err(TakeError::Io { path, source }) => {
                    let error = StorageError { what: path.display().to_string(), source };
                    if !error.is_no_space() {
                        return Err(TakeError::Io { path, source: error.source }.into());
                    }
                    around.wait_for_space(&error);
                }
                taken => break taken?,
            }
        };
        let storage = Storage::new(Arc::new(disk), metrics.clone());
        Vault::recover(storage, config, metrics, &around)
    }

    /// Recovers what is on a disk.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn recover(
        storage: Storage,
        config: &VaultConfig,
        metrics: Arc<Metrics>,
        around: &dyn Surroundings,
    ) -> Result<Vault, OpenError> {
        prepare(&storage)?;
        with_space(&storage, around, || Ok(archive::finish(&storage)?))?;
        let scanned = scan(&storage)?;
        let mut names = storage.names(Dir::Lots)?;
        let (told, stranded) = match chain::decide(&scanned, any_lot(&names)) {
            Decision::Fresh => (Told { next_lsn: 1, ..Told::default() }, Vec::new()),
            Decision::Damaged { at, why } => return Err(OpenError::Damaged { at, why }),
            Decision::Newer { number, version } => return Err(OpenError::Newer { number, version }),
            Decision::Redo { checkpoint, hole, torn_bytes } => {
                if torn_bytes > 0 {
                    tracing::warn!(at = %hole, bytes = torn_bytes, "a torn tail of the journal is dropped: nothing in it was acknowledged as synced, unless the very last group of batches was damaged or lost by the disk");
                }
                let range = Range { id: checkpoint.id, begin: checkpoint.begin, hole };
                redo(&storage, range, config, around)?
            }
        };
        if told.batches > 0 {
            names = storage.names(Dir::Lots)?;
        }
        if told.next_lsn > 1 && !any_lot(&names) && !archive::has_lots(&storage) {
            tracing::warn!(
                batches = told.next_lsn - 1,
                "batches were stored here before, but there is no lot file: unless all were moved away, look whether lots/ is mounted"
            );
        }
        settle_seals(&storage, &names, around)?;
        let mut unfinished: Vec<String> =
            names.into_iter().filter(|name| name.ends_with(FRESH_SUFFIX)).collect();
        unfinished.sort_unstable();
        let mut vault = with_space(&storage, around, || {
            remove_unfinished_lots(&storage, &unfinished, &told, around.now().wall_micros)?;
            begin(&storage, config, &metrics, &scanned, &told, around)
        })?;
        vault.take_stranded(stranded, around.now())?;
        vault.checkpoint_now(around.now())?;
        vault.journal.allow_claims();
        // A file system that copies on write needs space to remove a name.
        with_space(&storage, around, || Ok(remove_old(&storage, &scanned)?))?;
        metrics.lsn.store(vault.next_lsn - 1, Relaxed);
        metrics.synced_lsn.store(vault.next_lsn - 1, Relaxed);
        metrics.journal_bytes.store(vault.journal.held_bytes(), Relaxed);
        Ok(vault)
    }

    /// Batches whose lot could not be written stay pending.
    fn take_stranded(&mut self, stranded: Vec<Stranded>, now: Now) -> Result<(), OpenError> {
        for batch in stranded {
            let lot = self.lots.strand(&batch.stem, batch.lot_offset);
            tracing::warn!(
                lot = batch.stem,
                why = batch.why,
                "a committed batch cannot be written to its lot file yet: it is kept and tried again"
            );
            let lot_offset = self.lots.plan(lot, batch.lines_bytes);
            let staged = Staged {
                lsn: batch.lsn,
                lot,
                lot_offset,
                stamp_micros: batch.stamp_micros,
                quota: None,
                waiting: Vec::new(),
                batch: Batch {
                    lot: lot_of_stem(&batch.stem),
                    session: SessionId::new(&batch.session).map(|name| (name, batch.seq)),
                    ack: Durability::Synced,
                    records: batch.records,
                    lines_bytes: batch.lines_bytes,
                    content_hash: batch.content_hash,
                    body: Body { items: batch.items, suffix: batch.suffix, ..Body::default() },
                },
            };
            self.pending.push(Pending { staged, for_space: false, why: batch.why, since: now.mono });
        }
        Ok(())
    }
}

/// Tries again whenever there may be space.
fn with_space<T>(
    storage: &Storage,
    around: &dyn Surroundings,
    mut attempt: impl FnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    loop {
        match attempt() {
            Err(OpenError::Storage(error)) if error.is_no_space() && storage.failure().is_none() => {
                if !around.wait_for_space(&error) {
                    return Err(error.into());
                }
            }
            result => return result,
        }
    }
}

/// A lot known by its file only. The id's JSON is for replies, and nobody gets one for these.
fn lot_of_stem(stem: &str) -> LotId {
    decode_stem(stem).and_then(|id| LotId::new(&id, "null").ok()).unwrap_or_else(LotId::unassigned)
}

/// Syncs each segment and drops its pages: the page cache may show what the disk does not have.
fn prepare(storage: &Storage) -> Result<(), StorageError> {
    for number in chain::segments(storage)? {
        let file = storage.open(Dir::Journal, &segment_name(number), How::Write)?;
        file.sync()?;
        file.drop_cache();
    }
    Ok(())
}

/// Scans every segment.
///
/// # Errors
/// Of the storage.
pub fn scan(storage: &Storage) -> Result<Vec<Scanned>, StorageError> {
    chain::segments(storage)?.into_iter().map(|number| chain::scan_segment(storage, number)).collect()
}

/// Whether any lot file exists.
///
/// # Errors
/// Of the storage.
pub fn lots_exist(storage: &Storage) -> Result<bool, StorageError> {
    Ok(any_lot(&storage.names(Dir::Lots)?))
}

fn any_lot(names: &[String]) -> bool {
    names.iter().any(|name| name.ends_with(LOT_SUFFIX))
}

/// Redoes a range, waiting for space if need be.
fn redo(
    storage: &Storage,
    range: Range,
    config: &VaultConfig,
    around: &dyn Surroundings,
) -> Result<(Told, Vec<Stranded>), OpenError> {
    let rewrite = is_marked(storage)?;
    if rewrite {
        tracing::warn!("a sync of lot files did not end in this boot: they are rebuilt in new files");
    }
    loop {
        let (mut redo, mut told) = Redo::collect(storage, range, config.max_open_lots / 2)?;
        let free = storage.free_bytes(Dir::Lots)?;
        // A look may have to note something down.
        let looked = if free < SPACE_RESERVE_BYTES { Ok(()) } else { redo.look() };
        let needed = redo.bytes_needed(rewrite) + SPACE_RESERVE_BYTES;
        let result = if let Err(error) = looked {
            Err(error)
        } else if free < needed {
            let what = format!("redo of {} batches ({needed} bytes needed, {free} free)", told.batches);
            Err(RedoError::Storage(StorageError { what, source: std::io::ErrorKind::StorageFull.into() }))
        } else {
            redo.apply(rewrite, around.now().wall_micros)
        };
        match result {
            Ok(stranded) => {
                if told.batches > 0 {
                    tracing::info!(batches = told.batches, lots = redo.lots.len(), "the journal was redone");
                }
                told.lots = std::mem::take(&mut redo.lots).into_keys().collect();
                return Ok((told, stranded));
            }
            Err(RedoError::Storage(error)) if error.is_no_space() && storage.failure().is_none() => {
                if !around.wait_for_space(&error) {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Begins the new chain behind everything that is there.
fn begin(
    storage: &Storage,
    config: &VaultConfig,
    metrics: &Arc<Metrics>,
    scanned: &[Scanned],
    told: &Told,
    around: &dyn Surroundings,
) -> Result<Vault, OpenError> {
    // Segments that were never finished.
    for name in storage.list(Dir::Journal)?.iter().filter(|name| name.ends_with(PREPARING_SUFFIX)) {
        storage.unlink(Dir::Journal, name)?;
    }
    let number = scanned.last().map_or(1, |s| s.number + 1);
    let free = storage.free_bytes(Dir::Journal)?;
    let segment_bytes =
        config.segment_bytes.min((free / SEGMENT_SHARE).max(SEGMENT_BYTES_LEAST)).next_multiple_of(4096);
    let now = around.now();
    let lane = around.lane("journal", storage).map_err(OpenError::Thread)?;
    let syncs = around.lane("journal sync", storage).map_err(OpenError::Thread)?;
    let journal = Journal::begin(storage.clone(), lane, syncs, number, segment_bytes)?;
    let lots = Lots::new(storage.clone(), config.max_open_lots);
    let mut sessions = Sessions::new(config.session_memory_bytes);
    for row in &told.sessions {
        let last = Last {
            seq: row.seq,
            lsn: row.lsn,
            records: row.records,
            content_hash: row.content_hash,
            used_seconds: row.used_seconds,
        };
        sessions.note(&row.session, last);
    }
    let lane = around.lane("lot syncs", storage).map_err(OpenError::Thread)?;
    let checkpointing = Checkpointing::new(lane, told.next_lsn, told.running_seconds, now.mono);
    let chores = around.lane("chores", storage).map_err(OpenError::Thread)?;
    let keeps = !keeping_policy(config).is_idle();
    let keeping = keeps.then(|| around.lane(KEEPING, storage)).transpose().map_err(OpenError::Thread)?;
    let parts = Parts {
        chores,
        keeping,
        journal,
        lots,
        sessions,
        checkpointing,
        next_lsn: told.next_lsn,
        stamp_micros: told.stamp_micros,
    };
    Ok(Vault::assemble(storage.clone(), config.clone(), metrics.clone(), parts, now.mono))
}

/// Removes what the new chain has made needless: segments, oldest first, then what recovery kept for itself.
fn remove_old(storage: &Storage, scanned: &[Scanned]) -> Result<(), StorageError> {
    for segment in scanned {
        storage.unlink(Dir::Journal, &segment_name(segment.number))?;
    }
    storage.sync_dir(Dir::Journal)?;
    storage.unlink(Dir::Journal, REBASE_NAME)?;
    clear_marker(storage)?;
    storage.sync_dir(Dir::Journal)
}

/// Removes footers that were not finished. One that has its name counts from now on, whatever happens.
fn settle_seals(storage: &Storage, names: &[String], around: &dyn Surroundings) -> Result<(), OpenError> {
    with_space(storage, around, || {
        for name in names.iter().filter(|name| name.ends_with(SEALING_SUFFIX)) {
            storage.unlink(Dir::Lots, name)?;
        }
        let any = names.iter().any(|name| name.ends_with(SEAL_SUFFIX));
        if any { Ok(storage.sync_dir(Dir::Lots)?) } else { Ok(()) }
    })
}

/// Removes unfinished lot files, while it is known which lots were redone: before the new chain counts.
fn remove_unfinished_lots(
    storage: &Storage,
    names: &[String],
    told: &Told,
    wall_micros: i64,
) -> Result<(), StorageError> {
    for name in names {
        let Some(stem) = name.strip_suffix(FRESH_SUFFIX) else { continue };
        if let Err(error) = remove_unfinished(storage, stem, name, told.lots.contains(stem), wall_micros) {
            if storage.failure().is_some() {
                return Err(error);
            }
            tracing::warn!(%error, "something in lots/ has the name of an unfinished lot file and stays");
        }
    }
    // Come back after a power cut, it would be somebody else's: nothing would be redone then.
    if names.is_empty() { Ok(()) } else { storage.sync_dir(Dir::Lots) }
}

/// Removes an unfinished lot file. Ours is empty, or of a lot that was just redone; anything else is set aside.
fn remove_unfinished(
    storage: &Storage,
    stem: &str,
    name: &str,
    redone: bool,
    wall_micros: i64,
) -> Result<(), StorageError> {
    if storage.stat(Dir::Lots, name)?.is_some_and(|stat| !stat.regular || (stat.bytes > 0 && !redone)) {
        let file = storage.open(Dir::Lots, name, How::Read)?;
        let (to, why) = (file.stat()?.bytes, quarantine::TOOK_A_FRESH_NAME);
        let piece = Piece { stem, name, file: &file, from: 0, to, why, wall_micros };
        let copy = quarantine::set_aside(storage, piece)?;
        tracing::warn!(lot = stem, copy, "something in lots/ that lotlogd did not write was set aside");
    }
    storage.unlink(Dir::Lots, name)
}

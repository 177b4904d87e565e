//! `lotlog verify`: reads lots and journal and says what is wrong with them, with a daemon running or not.
//! Changes nothing. Shares scan and decision with recovery; lot files are read in `lines`, the rest of DATA is
//! looked at in `inventory`.

use std::collections::HashMap;
use std::fs::File as StdFile;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::chain::{self, Decision};
use crate::disk::{RealDisk, TakeError};
use crate::findings::Finding;
pub use crate::findings::Report;
use crate::frame::{BatchFrame, Content, Position, segment_name};
use crate::inventory;
use crate::lines::Reading;
use crate::lots::file_name;
use crate::metrics::Metrics;
use crate::rebase;
use crate::record;
use crate::recovery;
use crate::redo::{Range, Redo, RedoError};
use crate::shelf;
use crate::storage::{Dir, File, How, Storage, StorageError};

/// How often the journal is read again while a daemon runs, until what was found is sure.
const ATTEMPTS: u32 = 12;
/// Between two of them where the journal itself could not be read.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// Why DATA could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is no data directory, or may not be read.
    #[error(transparent)]
    Look(#[from] TakeError),
    /// A file could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A lot file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a start would think of DATA's journal, which no daemon has: how it is, or what is wrong with it.
///
/// # Errors
/// What is wrong with it.
pub fn look_at_journal(data_dir: &Path) -> Result<String, String> {
    let gone = data_dir.join("lots").symlink_metadata().is_err();
    let disk = if gone { RealDisk::look_without_lots(data_dir) } else { RealDisk::look(data_dir) };
    let disk = disk.map_err(|error| error.to_string())?;
    let storage = Storage::new(Arc::new(disk), Arc::new(Metrics::default()));
    let scanned = recovery::scan(&storage).map_err(|error| error.to_string())?;
    let lots_exist = recovery::lots_exist(&storage).map_err(|error| error.to_string())?;
    let place = |number, offset| format!("journal/{} offset {offset}", segment_name(number));
    match chain::decide(&scanned, lots_exist) {
        Decision::Fresh => Ok("empty".to_owned()),
        Decision::Redo { .. } => Ok(format!("{} segments, as they should be", scanned.len())),
        Decision::Damaged { at, why } => {
            Err(format!("{}: {why}: see what `lotlog verify` says", place(at.segment, at.offset)))
        }
        Decision::Newer { number, version } => {
            Err(format!("{}: it has format {version}: start the version that wrote it", place(number, 8)))
        }
    }
}

/// From where on the journal has the truth about a lot's end.
type Tails = HashMap<String, u64>;

/// Verifies DATA.
///
/// # Errors
/// [`VerifyError`], where something cannot be read at all.
pub fn verify(data_dir: &Path) -> Result<Report, VerifyError> {
    let mut report = Report { daemon_running: is_held(data_dir), ..Report::default() };
    let whole = |dir: &str| data_dir.join(dir).is_dir();
    if whole("lots") && !whole("journal") {
        report.find(Finding::of_file("journal_missing", "journal", "there is none, but there is a lots/"));
        return Ok(report);
    }
    let lots_are_gone = whole("journal") && !data_dir.join("lots").exists();
    let disk = if lots_are_gone {
        report.find(Finding::of_file("lots_missing", "lots", "there is none, but there is a journal/"));
        RealDisk::look_without_lots(data_dir)?
    } else {
        RealDisk::look(data_dir)?
    };
    let storage = Storage::new(Arc::new(disk), Arc::new(Metrics::default()));
    let tails = journal(&storage, &mut report)?;
    let stems = match shelf::stems(data_dir) {
        Err(error) if lots_are_gone && error.kind() == io::ErrorKind::NotFound => Vec::new(),
        stems => stems.map_err(|source| VerifyError::Io { file: data_dir.display().to_string(), source })?,
    };
    let mut reading = Reading::new(data_dir, &mut report);
    for stem in &stems {
        reading.lot(stem, tails.get(stem).copied());
    }
    reading.gaps(chrono::Utc::now().timestamp_micros());
    inventory::look(data_dir, &mut report)
        .map_err(|source| VerifyError::Io { file: data_dir.display().to_string(), source })?;
    Ok(report)
}

/// Whether a daemon has DATA.
pub(crate) fn is_held(data_dir: &Path) -> bool {
    [data_dir.to_owned(), data_dir.join("lock")].iter().any(|path| {
        // A pipe in its place would be waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = StdFile::options().read(true).custom_flags(flags).open(path);
        file.is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    })
}

/// Scans and judges the journal, and compares what it holds with the lot files. A running daemon trims and turns
/// segments meanwhile, and lots are rotated. But a lot file is begun anew only after a checkpoint: what differed
/// does differ, if the next look reads from the same checkpoint.
fn journal(storage: &Storage, report: &mut Report) -> Result<Tails, VerifyError> {
    let mut before: Option<(u128, Report, Tails)> = None;
    for attempt in 1..=ATTEMPTS {
        let mut fresh = report.clone();
        let (checkpoint, tails) = match journal_once(storage, &mut fresh) {
            Err(VerifyError::Storage(_)) if attempt < ATTEMPTS && report.daemon_running => {
                before = None;
                std::thread::sleep(ATTEMPT_PAUSE);
                continue;
            }
            result => result?,
        };
        let same = before.take().filter(|(same, ..)| *same == checkpoint && checkpoint != 0);
        let sure = !report.daemon_running || fresh.is_good() || (attempt == ATTEMPTS && checkpoint == 0);
        if let Some((_, found, tails)) = same {
            *report = found;
            return Ok(tails);
        }
        if sure {
            *report = fresh;
            return Ok(tails);
        }
        if attempt == ATTEMPTS {
            // Checkpoints follow one another so fast that the journal has let go of what it was compared with.
            fresh.findings.clear();
            *report = fresh;
            return Ok(tails);
        }
        if checkpoint == 0 {
            std::thread::sleep(ATTEMPT_PAUSE);
        }
        before = Some((checkpoint, fresh, tails));
    }
    Ok(Tails::new())
}

/// Gives the checkpoint from which it was read too; 0 for none.
fn journal_once(storage: &Storage, report: &mut Report) -> Result<(u128, Tails), VerifyError> {
    let scanned = recovery::scan(storage)?;
    let segment = |number| format!("journal/{}", segment_name(number));
    let damaged = |report: &mut Report, at: Position, why: String| {
        report.find(Finding::at("journal_damaged", segment(at.segment), None, at.offset, why));
        Ok((0, Tails::new()))
    };
    match chain::decide(&scanned, recovery::lots_exist(storage)?) {
        Decision::Fresh => Ok((0, Tails::new())),
        Decision::Redo { checkpoint, hole, torn_bytes } => {
            if torn_bytes > 0 && !report.daemon_running {
                let message = format!("{torn_bytes} bytes");
                let file = segment(hole.segment);
                report.find(Finding::at("journal_torn_tail", file, None, hole.offset, message));
            }
            let range = Range { id: checkpoint.id, begin: checkpoint.begin, hole };
            match Redo::collect(storage, range, 0) {
                Ok(_) => Ok((range.id, compare(storage, range, report)?)),
                Err(RedoError::Contradiction { at, why }) => damaged(report, at, why),
                Err(RedoError::Storage(error)) => Err(error.into()),
            }
        }
        Decision::Damaged { at, why } => damaged(report, at, why),
        Decision::Newer { number, version } => {
            let message = format!("it has format {version}");
            report.find(Finding::at("journal_newer", segment(number), None, 8, message));
            Ok((0, Tails::new()))
        }
    }
}

/// One lot of which the journal has batches.
struct Tail {
    /// Where the first of them stood when it was journalled.
    first: u64,
    /// Where it goes now.
    base: u64,
    /// The lot file; `None` where there is none that can be compared.
    file: Option<(File, u64)>,
}

/// Compares the batches above the last checkpoint with the lot files.
fn compare(storage: &Storage, range: Range, report: &mut Report) -> Result<Tails, VerifyError> {
    let rebased = rebase::read(storage, range.id)?;
    let mut tails: HashMap<String, Tail> = HashMap::new();
    let mut buffers = (Vec::new(), Vec::new());
    chain::replay(storage, range.begin, range.hole, |_, frame| {
        let batch = match &frame.content {
            Content::Batch(batch) => batch,
            Content::Pending { id, batch } if *id == range.id => batch,
            _ => return Ok::<(), StorageError>(()),
        };
        let tail = match tails.entry(batch.lot.to_owned()) {
            std::collections::hash_map::Entry::Occupied(tail) => tail.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let tail = meet(storage, batch, rebased.get(batch.lot).copied(), report)?;
                place.insert(tail)
            }
        };
        let at = tail.base + batch.lot_offset.saturating_sub(tail.first);
        match &tail.file {
            Some((file, bytes)) if *bytes >= at + batch.lines_bytes => {
                compare_batch(file, at, frame.lsn, batch, &mut buffers, report)
            }
            _ => {
                report.to_be_written += 1;
                Ok(())
            }
        }
    })?;
    Ok(tails.into_iter().map(|(stem, tail)| (stem, tail.base)).collect())
}

/// Looks at a lot when its first batch in the journal is met.
fn meet(
    storage: &Storage,
    batch: &BatchFrame<'_>,
    rebased: Option<u64>,
    report: &mut Report,
) -> Result<Tail, StorageError> {
    let first = batch.lot_offset;
    let file = match storage.open(Dir::Lots, &file_name(batch.lot), How::Read) {
        Ok(file) => {
            let bytes = file.stat()?.bytes;
            Some((file, bytes))
        }
        // What cannot be opened for another reason is found when the lots are read.
        Err(_) => None,
    };
    let bytes = file.as_ref().map_or(0, |(_, bytes)| *bytes);
    let gone = file.is_none() && storage.stat(Dir::Lots, &file_name(batch.lot))?.is_none();
    if gone && report.daemon_running {
        // Most likely renamed, with SIGHUP on its way: the daemon has the file still.
        let lot = format!("lots/{}", file_name(batch.lot));
        let message = format!("no file has this name; the journal's next batch belongs at byte {first}");
        report.find(Finding::at("name_gone", lot, None, first, message));
        return Ok(Tail { first, base: first, file: None });
    }
    if rebased.is_none() && (file.is_some() || gone) && bytes < first {
        let lot = format!("lots/{}", file_name(batch.lot));
        let is = if gone { "it is gone".to_owned() } else { format!("it ends at byte {bytes}") };
        let message = format!("{is}; the journal's next batch belongs at byte {first}");
        report.find(Finding::at("shorter_than_journal", lot, None, bytes, message));
        // It will be written behind what is there, whatever stood here.
        return Ok(Tail { first, base: bytes, file: None });
    }
    Ok(Tail { first, base: rebased.unwrap_or(first), file })
}

/// Compares one batch with what stands in its place.
fn compare_batch(
    file: &File,
    mut at: u64,
    lsn: u64,
    batch: &BatchFrame<'_>,
    (lines, there): &mut (Vec<u8>, Vec<u8>),
    report: &mut Report,
) -> Result<(), StorageError> {
    let mut unwritten = false;
    for item in batch.items.split_inclusive(|b| *b == b'\n') {
        lines.clear();
        record::compose(item, batch.suffix, lines);
        there.resize(lines.len(), 0);
        let got = file.read_full(at, there)?;
        if let Some(first) = there[..got].iter().zip(&*lines).position(|(is, ours)| is != ours) {
            let lost = there[..got].iter().zip(&*lines).all(|(is, ours)| is == ours || *is == 0);
            if !lost || report.daemon_running {
                let lot = format!("lots/{}", file_name(batch.lot));
                let message = format!("these are not the bytes of the batch with lsn {lsn}");
                report.find(Finding::at("differs_from_journal", lot, None, at + first as u64, message));
                report.compared_batches += 1;
                return Ok(());
            }
            // After a power cut what had not reached the disk reads as NUL: the next start writes it again.
            unwritten = true;
        }
        at += lines.len() as u64;
    }
    if unwritten {
        report.to_be_written += 1;
    } else {
        report.compared_batches += 1;
    }
    Ok(())
}

//! `lotlog verify`: reads lots and journal and says what is wrong with them, with a daemon running or not.
//! Changes nothing. Shares scan and decision with recovery.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File as StdFile;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::chain::{self, Decision};
use crate::disk::{RealDisk, TakeError};
use crate::frame::{Content, Position, segment_name};
use crate::lots::{LOT_SUFFIX, file_name};
use crate::metrics::Metrics;
use crate::record;
use crate::recovery;
use crate::redo::{Range, Redo, RedoError};
use crate::storage::{Dir, How, Storage, StorageError};

/// Most findings that are kept; further ones are counted.
pub const MOST_FINDINGS: usize = 1000;
/// How often the journal is read again when a running daemon trims it meanwhile.
const ATTEMPTS: usize = 5;

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind: `not_json`, `nul`, `torn_tail`, `split_batch`, `doubled`, `differs_from_journal`,
    /// `shorter_than_journal`, `journal_damaged`, `journal_newer`.
    pub kind: &'static str,
    /// The file below DATA.
    pub file: String,
    /// Line, from 1; missing in journal files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Byte offset in the file.
    pub offset: u64,
    /// What it means and what to do.
    pub message: String,
}

/// What a verification saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether a daemon holds DATA.
    pub daemon_running: bool,
    /// Lot files read.
    pub lots: u64,
    /// Lines read.
    pub records: u64,
    /// Batches found in them (lines with one timestamp, one after the other).
    pub batches: u64,
    /// Bytes of lot files read.
    pub bytes: u64,
    /// Batches of the journal that were compared with the lot files.
    pub compared_batches: u64,
    /// Batches that are in the journal and not wholly in their lot file yet: the daemon, or its next start,
    /// writes them.
    pub to_be_written: u64,
    /// What is set aside in `quarantine/`.
    pub quarantined: u64,
    /// Everything wrong, at most [`MOST_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond that.
    pub further_findings: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.further_findings += 1;
        }
    }
}

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

/// What the journal says about one lot's end.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// From here on the journal has the truth.
    from: u64,
}

/// Verifies DATA.
///
/// # Errors
/// [`VerifyError`], where something cannot be read at all.
pub fn verify(data_dir: &Path) -> Result<Report, VerifyError> {
    let disk = RealDisk::look(data_dir)?;
    let storage = Storage::new(Arc::new(disk), Arc::new(Metrics::default()));
    let mut report = Report { daemon_running: is_held(data_dir), ..Report::default() };
    let tails = journal(&storage, &mut report)?;
    let mut known: HashMap<u128, (u32, u64)> = HashMap::new();
    let names: Vec<String> =
        storage.list(Dir::Lots)?.into_iter().filter(|n| n.ends_with(LOT_SUFFIX)).collect();
    for (index, name) in names.iter().enumerate() {
        let tail = tails.get(name.strip_suffix(LOT_SUFFIX).unwrap_or(name)).copied();
        let path = data_dir.join("lots").join(name);
        lot(&path, &names, index as u32, tail, &mut known, &mut report)
            .map_err(|source| VerifyError::Io { file: format!("lots/{name}"), source })?;
    }
    if data_dir.join("quarantine").is_dir() {
        report.quarantined =
            storage.list(Dir::Quarantine)?.iter().filter(|n| !n.ends_with(".txt")).count() as u64;
    }
    Ok(report)
}

fn is_held(data_dir: &Path) -> bool {
    [data_dir.to_owned(), data_dir.join("lock")].iter().any(|path| {
        let file = StdFile::open(path);
        file.is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    })
}

/// Scans and judges the journal, and compares what it holds with the lot files.
fn journal(storage: &Storage, report: &mut Report) -> Result<HashMap<String, Tail>, VerifyError> {
    let mut attempt = 1;
    loop {
        let mut fresh = report.clone();
        match journal_once(storage, &mut fresh) {
            Ok(tails) if attempt == ATTEMPTS || !report.daemon_running || fresh.is_good() => {
                *report = fresh;
                return Ok(tails);
            }
            // A running daemon trims and turns segments: what was missing may just have gone.
            Ok(_) => {}
            Err(VerifyError::Storage(_)) if attempt < ATTEMPTS && report.daemon_running => {}
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

fn journal_once(storage: &Storage, report: &mut Report) -> Result<HashMap<String, Tail>, VerifyError> {
    let scanned = recovery::scan(storage)?;
    let (begin, hole, id) = match chain::decide(&scanned, recovery::lots_exist(storage)?) {
        Decision::Fresh => return Ok(HashMap::new()),
        Decision::Redo { checkpoint, hole, .. } => (checkpoint.begin, hole, checkpoint.id),
        Decision::Damaged { at, why } => return damaged(at, &why, report),
        Decision::Newer { number, version } => {
            report.find(Finding {
                kind: "journal_newer",
                file: format!("journal/{}", segment_name(number)),
                line: None,
                offset: 8,
                message: format!("it has format {version}, written by a later version: verify with that one"),
            });
            return Ok(HashMap::new());
        }
    };
    match Redo::collect(storage, Range { id, begin, hole }, 0) {
        Ok(_) => {}
        Err(RedoError::Contradiction { at, why }) => return damaged(at, &why, report),
        Err(RedoError::Storage(error)) => return Err(error.into()),
    }
    compare(storage, (begin, hole, id), report)
}

/// What recovery refuses.
fn damaged(at: Position, why: &str, report: &mut Report) -> Result<HashMap<String, Tail>, VerifyError> {
    report.find(Finding {
        kind: "journal_damaged",
        file: format!("journal/{}", segment_name(at.segment)),
        line: None,
        offset: at.offset,
        message: format!("{why}: lotlogd will not start on this; restore DATA from a backup, or move it aside and start anew"),
    });
    Ok(HashMap::new())
}

/// Compares the batches above the last checkpoint with the lot files.
fn compare(
    storage: &Storage,
    (begin, hole, checkpoint): (Position, Position, u128),
    report: &mut Report,
) -> Result<HashMap<String, Tail>, VerifyError> {
    let mut tails: HashMap<String, Tail> = HashMap::new();
    let (mut lines, mut there) = (Vec::new(), Vec::new());
    chain::replay(storage, begin, hole, |_, frame| {
        let batch = match &frame.content {
            Content::Batch(batch) => batch,
            Content::Pending { id, batch } if *id == checkpoint => batch,
            _ => return Ok::<(), StorageError>(()),
        };
        tails.entry(batch.lot.to_owned()).or_insert(Tail { from: batch.lot_offset });
        let file = match storage.open(Dir::Lots, &file_name(batch.lot), How::Read) {
            Ok(file) => file,
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => {
                report.to_be_written += 1;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let bytes = file.stat()?.bytes;
        let name = format!("lots/{}", file_name(batch.lot));
        if bytes < batch.lot_offset && tails.get(batch.lot).is_some_and(|tail| tail.from == batch.lot_offset)
        {
            report.find(Finding {
                kind: "shorter_than_journal",
                file: name,
                line: None,
                offset: bytes,
                message: format!("the journal's next batch (lsn {}) belongs at byte {}: somebody else has cut or replaced the file; the next start keeps it and writes the batch behind it", frame.lsn, batch.lot_offset),
            });
            return Ok(());
        }
        if bytes < batch.lot_offset + batch.lines_bytes {
            report.to_be_written += 1;
            return Ok(());
        }
        report.compared_batches += 1;
        let mut at = batch.lot_offset;
        for item in batch.items.split_inclusive(|b| *b == b'\n') {
            lines.clear();
            record::compose(item, batch.suffix, &mut lines);
            there.resize(lines.len(), 0);
            let got = file.read_full(at, &mut there)?;
            if there[..got] != lines[..] {
                let first = there.iter().zip(&lines).position(|(a, b)| a != b).unwrap_or(got);
                report.find(Finding {
                    kind: "differs_from_journal",
                    file: name,
                    line: None,
                    offset: at + first as u64,
                    message: format!("the bytes here are not those of the batch with lsn {}: somebody else has changed them; before a checkpoint the next start sets them aside and writes the batch", frame.lsn),
                });
                break;
            }
            at += lines.len() as u64;
        }
        Ok(())
    })?;
    Ok(tails)
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    context: Option<LineContext<'a>>,
}

#[derive(Deserialize)]
struct LineContext<'a> {
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    seq: Option<u64>,
}

/// Identity of a batch by its session and number.
fn batch_key(session: &str, seq: u64) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(session.as_bytes());
    hash.update(&seq.to_le_bytes());
    hash.digest128()
}

fn stamp_key(name: &str, stamp: &str) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(name.as_bytes());
    hash.update(b"\0");
    hash.update(stamp.as_bytes());
    !hash.digest128()
}

/// Reads one lot file, line by line.
fn lot(
    path: &Path,
    names: &[String],
    index: u32,
    tail: Option<Tail>,
    known: &mut HashMap<u128, (u32, u64)>,
    report: &mut Report,
) -> io::Result<()> {
    let file = format!("lots/{}", names[index as usize]);
    if !path.symlink_metadata()?.is_file() {
        return Ok(());
    }
    report.lots += 1;
    let mut reader = BufReader::with_capacity(1 << 20, StdFile::open(path)?);
    let (mut line, mut offset, mut text) = (0u64, 0u64, Vec::new());
    let mut current: Option<(u128, u128)> = None;
    loop {
        text.clear();
        let got = reader.read_until(b'\n', &mut text)? as u64;
        if got == 0 {
            break;
        }
        line += 1;
        let at = |kind, message: &str| Finding {
            kind,
            file: file.clone(),
            line: Some(line),
            offset,
            message: message.to_owned(),
        };
        let in_journal = tail.is_some_and(|tail| offset + got > tail.from);
        if text.last() != Some(&b'\n') {
            // An append may be in flight, or the next start completes it from the journal.
            if !report.daemon_running && !in_journal {
                report.find(at("torn_tail", "the last line has no end and the journal does not have it: it was not written by lotlogd; the next append sets it aside in quarantine/"));
            }
            break;
        }
        report.records += 1;
        report.bytes += got;
        let parsed = serde_json::from_slice::<Line<'_>>(&text);
        match parsed {
            Err(_) if in_journal && !report.daemon_running => {}
            Err(_) if memchr::memchr(0, &text).is_some() => {
                report.find(at("nul", "NUL bytes stand in this line: the file system lost what was written here; restore the lot from a backup"));
            }
            Err(error) => {
                let message = format!(
                    "this line is not strict JSON ({error}): it was not written by lotlogd, or was changed since; mend or remove it"
                );
                report.find(at("not_json", &message));
            }
            Ok(parsed) => {
                let stamp = stamp_key(&file, parsed.timestamp.as_deref().unwrap_or_default());
                let named = parsed.context.and_then(|c| Some(batch_key(c.session.as_deref()?, c.seq?)));
                let key = (stamp, named.unwrap_or(stamp));
                if parsed.timestamp.is_some() && current != Some(key) {
                    report.batches += 1;
                    if let Some((_, first)) = known.insert(stamp, (index, line)) {
                        let message = format!(
                            "this batch began on line {first}, and other lines stand between: somebody else has reordered or doubled lines"
                        );
                        report.find(at("split_batch", &message));
                    } else if let Some((other, first)) =
                        named.and_then(|named| known.insert(named, (index, line)))
                    {
                        let message = format!(
                            "this session and seq were stored before, in lots/{} on line {first}: the batch is there twice",
                            names[other as usize]
                        );
                        report.find(at("doubled", &message));
                    }
                }
                current = Some(key);
            }
        }
        offset += got;
    }
    Ok(())
}

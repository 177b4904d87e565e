//! Redo: brings the lot files to what the journal says, after a crash. Reads the journal in passes, a window
//! at a time; every step can be cut short and done again with the same result. Part of recovery.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::chain::{self, MOST, contradiction};
use crate::frame::{BatchFrame, Content, Frame, Position, SessionRow};
use crate::lots::{Birth, FRESH_SUFFIX, file_name};
use crate::marker::write_marker;
use crate::quarantine::{self, Piece};
use crate::rebase;
use crate::rewrite::{Files, LotRedo, each_chunk, first_line, write_batch};
use crate::storage::{Dir, File, How, Storage, StorageError};

/// Compared at once: most such pieces are equal.
const COMPARED_BYTES: usize = 4096;

/// Which part of the journal is redone.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The checkpoint's identity.
    pub id: u128,
    /// Its begin frame.
    pub begin: Position,
    /// The first place without a valid frame.
    pub hole: Position,
}

/// A batch to be kept pending: its lot's file cannot be written.
#[derive(Debug)]
pub struct Stranded {
    /// Its lsn.
    pub lsn: u64,
    /// Its lot's stem.
    pub stem: String,
    /// Its session, empty for none.
    pub session: String,
    /// Its number there.
    pub seq: u64,
    /// Number of items.
    pub records: u32,
    /// Bytes of its lines.
    pub lines_bytes: u64,
    /// Its timestamp.
    pub stamp_micros: i64,
    /// Hash of its content.
    pub content_hash: u128,
    /// The end of every record.
    pub suffix: Vec<u8>,
    /// The item texts.
    pub items: Vec<u8>,
    /// Where it stood.
    pub lot_offset: u64,
    /// Why.
    pub why: String,
}

/// What the journal says beside the lines.
#[derive(Debug, Default)]
pub struct Told {
    /// The lsn of the next batch.
    pub next_lsn: u64,
    /// The last timestamp.
    pub stamp_micros: i64,
    /// The daemon's running time.
    pub running_seconds: u64,
    /// Sessions, in the order of the frames; a later row wins if its lsn is higher.
    pub sessions: Vec<SessionRow>,
    /// Number of batches to redo.
    pub batches: u64,
    /// The stems of the lots that were redone.
    pub lots: HashSet<String>,
}

/// Why a redo stopped.
#[derive(Debug)]
pub enum RedoError {
    /// The storage.
    Storage(StorageError),
    /// The journal contradicts itself.
    Contradiction {
        /// Where.
        at: Position,
        /// How.
        why: String,
    },
}

impl From<StorageError> for RedoError {
    fn from(error: StorageError) -> RedoError {
        RedoError::Storage(error)
    }
}

/// The redo of one range.
pub struct Redo<'a> {
    storage: &'a Storage,
    range: Range,
    most_open: usize,
    /// The lots with batches to redo, by stem.
    pub lots: BTreeMap<String, LotRedo>,
}

fn batch_of<'f>(frame: &'f Frame<'_>, id: u128) -> Option<&'f BatchFrame<'f>> {
    match &frame.content {
        Content::Batch(batch) => Some(batch),
        Content::Pending { id: own, batch } if *own == id => Some(batch),
        _ => None,
    }
}

impl<'a> Redo<'a> {
    /// First pass: what is to be redone, and what else the journal tells. Changes nothing.
    ///
    /// # Errors
    /// [`RedoError`].
    pub fn collect(
        storage: &'a Storage,
        range: Range,
        most_open: usize,
    ) -> Result<(Redo<'a>, Told), RedoError> {
        let mut redo = Redo { storage, range, most_open: most_open.max(4), lots: BTreeMap::new() };
        let mut told = Told::default();
        chain::replay(storage, range.begin, range.hole, |at, frame| {
            let contradicts = |why| Err(RedoError::Contradiction { at, why });
            match &frame.content {
                Content::CheckpointBegin { id, next_lsn, stamp_micros, running_seconds }
                    if *id == range.id && at == range.begin && (1..MOST).contains(next_lsn) =>
                {
                    told.next_lsn = *next_lsn;
                    told.stamp_micros = *stamp_micros;
                    told.running_seconds = (*running_seconds).min(MOST);
                }
                _ if told.next_lsn == 0 => return contradicts("no checkpoint begins here".to_owned()),
                Content::Sessions { id, rows } if *id == range.id => {
                    if rows.iter().any(|row| row.seq > MOST || row.lsn > MOST) {
                        return contradicts("a session here has a number that is never given".to_owned());
                    }
                    told.sessions.extend_from_slice(rows);
                }
                _ => {}
            }
            let Some(batch) = batch_of(frame, range.id) else { return Ok(()) };
            if let Some(why) = contradiction(frame, batch, told.next_lsn) {
                return contradicts(why);
            }
            told.batches += 1;
            if matches!(frame.content, Content::Batch(_)) {
                told.next_lsn = frame.lsn + 1;
                told.stamp_micros = batch.stamp_micros;
                if !batch.session.is_empty() {
                    told.sessions.push(SessionRow {
                        session: batch.session.to_owned(),
                        seq: batch.seq,
                        lsn: frame.lsn,
                        records: batch.records,
                        content_hash: batch.content_hash,
                        used_seconds: told.running_seconds,
                    });
                }
            }
            match redo.lots.get_mut(batch.lot) {
                None => {
                    let lot = LotRedo {
                        first_offset: batch.lot_offset,
                        bytes: batch.lines_bytes,
                        base: batch.lot_offset,
                        found: None,
                        fresh: None,
                        foreign: false,
                        unusable: None,
                        first_line: first_line(batch),
                        birth: Birth { lsn: frame.lsn, micros: batch.stamp_micros },
                    };
                    redo.lots.insert(batch.lot.to_owned(), lot);
                }
                Some(lot) if lot.first_offset + lot.bytes == batch.lot_offset => {
                    lot.bytes += batch.lines_bytes
                }
                Some(lot) => {
                    let why = format!(
                        "the batch with lsn {} of lot {} is journalled at offset {}, the one before it ends at {}",
                        frame.lsn,
                        batch.lot,
                        batch.lot_offset,
                        lot.first_offset + lot.bytes
                    );
                    return contradicts(why);
                }
            }
            Ok(())
        })?;
        Ok((redo, told))
    }

    /// Second step: looks at the lot files and finds where each redo begins. What somebody else has changed
    /// is reported, and its new base recorded before anything is touched.
    ///
    /// # Errors
    /// [`RedoError`].
    pub fn look(&mut self) -> Result<(), RedoError> {
        let recorded = rebase::read(self.storage, self.range.id)?;
        let mut rebased = false;
        for (stem, lot) in &mut self.lots {
            lot.base = recorded.get(stem).copied().unwrap_or(lot.first_offset);
            let file = match self.storage.open(Dir::Lots, &file_name(stem), How::Read) {
                Ok(file) => Some(file),
                Err(e) if e.source.kind() == io::ErrorKind::NotFound => None,
                Err(e) => {
                    lot.unusable = Some(e.to_string());
                    continue;
                }
            };
            lot.found = file.as_ref().map(File::stat).transpose()?.map(|stat| stat.bytes);
            if file.is_none()
                && let Some(stat) = self.storage.stat(Dir::Lots, &format!("{stem}{FRESH_SUFFIX}"))?
            {
                lot.fresh = Some(stat.bytes).filter(|_| stat.regular);
            }
            if let Some((base, change)) = lot.displaced(file.as_ref())? {
                lot.base = base;
                rebased = true;
                report_change(stem, base, change);
            }
        }
        if rebased {
            self.record_bases()?;
        }
        self.compare()
    }

    /// Records where the redo of changed lots begins, once what others did to them cannot come undone.
    fn record_bases(&self) -> Result<(), RedoError> {
        let moved = || self.lots.iter().filter(|(_, lot)| lot.base != lot.first_offset);
        write_marker(self.storage)?;
        for (stem, _) in moved().filter(|(_, lot)| lot.found.is_some() && lot.unusable.is_none()) {
            self.storage.open(Dir::Lots, &file_name(stem), How::Read)?.sync()?;
        }
        self.storage.sync_dir(Dir::Lots)?;
        rebase::write(self.storage, self.range.id, moved().map(|(stem, lot)| (stem.as_str(), lot.base)))?;
        Ok(())
    }

    /// Reads what is beyond each base: redo bytes and NUL are ours, anything else is somebody's.
    fn compare(&mut self) -> Result<(), RedoError> {
        let storage = self.storage;
        let range = self.range;
        let mut files = Files::default();
        let mut there = Vec::new();
        let mut lines = Vec::new();
        let lots = &mut self.lots;
        let most_open = self.most_open;
        chain::replay(storage, range.begin, range.hole, |_, frame| {
            let Some(batch) = batch_of(frame, range.id) else { return Ok(()) };
            let Some(lot) = lots.get_mut(batch.lot) else { return Ok(()) };
            let mut at = lot.place(batch);
            let Some((name, bytes)) = lot.there(batch.lot) else { return Ok(()) };
            if lot.foreign || lot.unusable.is_some() || bytes <= at {
                return Ok::<(), RedoError>(());
            }
            let file = match files.by_stem.get(batch.lot) {
                Some(file) => file.clone(),
                None => {
                    let file = storage.open(Dir::Lots, &name, How::Read)?;
                    files.add(batch.lot, file.clone(), most_open, |_| Ok(()))?;
                    file
                }
            };
            each_chunk(batch, &mut lines, |chunk| {
                there.resize(chunk.len(), 0);
                let got = file.read_full(at, &mut there)?;
                lot.foreign |= !is_ours(&there[..got], chunk);
                at += chunk.len() as u64;
                Ok(())
            })?;
            Ok(())
        })?;
        drop(files);
        let mut buffer = vec![0; 64 << 10];
        for (stem, lot) in lots.iter_mut() {
            let (Some((name, bytes)), false, None) = (lot.there(stem), lot.foreign, &lot.unusable) else {
                continue;
            };
            let mut at = lot.base + lot.bytes;
            if bytes <= at {
                continue;
            }
            let file = storage.open(Dir::Lots, &name, How::Read)?;
            while at < bytes && !lot.foreign {
                let got = file.read_full(at, &mut buffer)?;
                if got == 0 {
                    break;
                }
                lot.foreign = buffer[..got].iter().any(|b| *b != 0);
                at += got as u64;
            }
        }
        Ok(())
    }

    /// Bytes that the redo may need on the lots' file system; `rewrite` as in [`Redo::apply`].
    pub fn bytes_needed(&self, rewrite: bool) -> u64 {
        let usable = self.lots.values().filter(|lot| lot.unusable.is_none());
        usable
            .map(|lot| {
                let (found, there) = (lot.found.unwrap_or(0), lot.found.or(lot.fresh).unwrap_or(0));
                let whole =
                    if rewrite { lot.base + lot.bytes } else { (lot.base + lot.bytes).saturating_sub(found) };
                whole + if lot.foreign { there.saturating_sub(lot.base) } else { 0 }
            })
            .sum()
    }

    /// Writes the redo bytes at their offsets, always; truncates to the new end; syncs. With `rewrite` into
    /// new files that replace the old: a sync of the old ones failed in this boot, and rewriting the same
    /// bytes in place would not reach the disk. Gives the batches whose lot cannot be written. `wall_micros` is
    /// for notes.
    ///
    /// # Errors
    /// [`RedoError`].
    pub fn apply(&mut self, rewrite: bool, wall_micros: i64) -> Result<Vec<Stranded>, RedoError> {
        let storage = self.storage;
        // An error of this lot alone.
        let of_lot = |error: StorageError| {
            if storage.failure().is_some() || error.is_no_space() {
                Err(error)
            } else {
                Ok(Some(error.to_string()))
            }
        };
        for (stem, lot) in &mut self.lots {
            if lot.foreign
                && let Some((name, bytes)) = lot.there(stem)
            {
                let file = storage.open(Dir::Lots, &name, How::Read)?;
                let why = "The journal holds committed batches for this place; what stood there was something else.";
                let from = lot.base;
                let piece = Piece { stem, name: &name, file: &file, from, to: bytes, why, wall_micros };
                match quarantine::set_aside(storage, piece) {
                    Ok(copy) => tracing::warn!(
                        lot = stem,
                        bytes = bytes - from,
                        copy,
                        "bytes that lotlogd did not write were set aside"
                    ),
                    Err(error) => lot.unusable = of_lot(error)?,
                }
            }
        }
        if self.lots.is_empty() {
            return Ok(Vec::new());
        }
        write_marker(storage)?;
        let mut files = Files::default();
        let mut lines = Vec::new();
        let (range, most_open) = (self.range, self.most_open);
        let lots = &mut self.lots;
        chain::replay(storage, range.begin, range.hole, |_, frame| {
            let Some(batch) = batch_of(frame, range.id) else { return Ok(()) };
            let Some(lot) = lots.get_mut(batch.lot) else { return Ok(()) };
            if lot.unusable.is_none()
                && let Err(error) =
                    write_batch(storage, batch, lot, rewrite, &mut files, &mut lines, most_open)
            {
                lot.unusable = of_lot(error)?;
            }
            Ok::<(), RedoError>(())
        })?;
        for (stem, lot) in lots.iter_mut().filter(|(_, lot)| lot.unusable.is_none()) {
            let fresh = rewrite || lot.found.is_none();
            let name = if fresh { format!("{stem}{FRESH_SUFFIX}") } else { file_name(stem) };
            let file = match files
                .by_stem
                .remove(stem)
                .map_or_else(|| storage.open(Dir::Lots, &name, How::Write), Ok)
            {
                Ok(file) => file,
                Err(error) => {
                    lot.unusable = of_lot(error)?;
                    continue;
                }
            };
            file.truncate(lot.base + lot.bytes)?;
            if lot.base == 0 {
                lot.birth.note(&file);
            }
            file.sync()?;
            if fresh {
                storage.rename(Dir::Lots, &name, &file_name(stem), true)?;
            }
        }
        storage.sync_dir(Dir::Lots)?;
        self.strand()
    }

    /// All batches of the lots that turned out unusable, the ones that were written before it too: what stands
    /// of them in the file is not synced, and will be written again from the first one on.
    fn strand(&self) -> Result<Vec<Stranded>, RedoError> {
        let mut stranded = Vec::new();
        if self.lots.values().all(|lot| lot.unusable.is_none()) {
            return Ok(stranded);
        }
        let range = self.range;
        chain::replay(self.storage, range.begin, range.hole, |_, frame| {
            let Some(batch) = batch_of(frame, range.id) else { return Ok(()) };
            let Some(lot) = self.lots.get(batch.lot) else { return Ok(()) };
            let Some(why) = &lot.unusable else { return Ok::<(), RedoError>(()) };
            stranded.push(Stranded {
                lsn: frame.lsn,
                stem: batch.lot.to_owned(),
                session: batch.session.to_owned(),
                seq: batch.seq,
                records: batch.records,
                lines_bytes: batch.lines_bytes,
                stamp_micros: batch.stamp_micros,
                content_hash: batch.content_hash,
                suffix: batch.suffix.to_vec(),
                items: batch.items.to_vec(),
                lot_offset: lot.place(batch),
                why: why.clone(),
            });
            Ok(())
        })?;
        Ok(stranded)
    }
}

/// Whether nothing stands there but what is to be written, or NUL.
fn is_ours(there: &[u8], ours: &[u8]) -> bool {
    let mut pieces = there.chunks(COMPARED_BYTES).zip(ours.chunks(COMPARED_BYTES));
    pieces.all(|(there, ours)| {
        there == &ours[..there.len()] || there.iter().zip(ours).all(|(is, ours)| is == ours || *is == 0)
    })
}

fn report_change(stem: &str, offset: u64, change: &str) {
    tracing::warn!(
        lot = stem,
        change,
        offset,
        "somebody else has changed a lot file while batches for it were only in the journal: they are written behind what is there (lines may stand in two files)"
    );
}

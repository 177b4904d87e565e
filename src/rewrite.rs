//! Writing lot files in recovery: the lines of redone batches to their places, in old files or in new ones that
//! replace them. Decides nothing.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::frame::BatchFrame;
use crate::lots::{Birth, FRESH_SUFFIX, file_name};
use crate::quarantine;
use crate::record;
use crate::storage::{Dir, File, How, Storage, StorageError, WRITE_BYTES};

/// One lot that has batches to redo.
#[derive(Debug)]
pub struct LotRedo {
    /// Where its first batch stood when it was journalled.
    pub(crate) first_offset: u64,
    /// Bytes of all its lines.
    pub(crate) bytes: u64,
    /// Where its first batch goes now.
    pub(crate) base: u64,
    /// Length of the file as found; `None` where there is none.
    pub(crate) found: Option<u64>,
    /// Where there is no file: the length of what has the name of an unfinished one.
    pub(crate) fresh: Option<u64>,
    /// Something is there that is neither redo bytes nor NUL.
    pub(crate) foreign: bool,
    /// Why the file cannot be used.
    pub(crate) unusable: Option<String>,
    /// Its first batch's first line: length and hash.
    pub(crate) first_line: (usize, u64),
    /// Its first batch, where the file begins with it.
    pub(crate) birth: Birth,
}

impl LotRedo {
    /// The file that may hold redo bytes now: its name and length.
    pub(crate) fn there(&self, stem: &str) -> Option<(String, u64)> {
        match (self.found, self.fresh) {
            (Some(bytes), _) => Some((file_name(stem), bytes)),
            (None, Some(bytes)) => Some((format!("{stem}{FRESH_SUFFIX}"), bytes)),
            (None, None) => None,
        }
    }

    /// Where a batch goes now.
    pub(crate) fn place(&self, batch: &BatchFrame<'_>) -> u64 {
        self.base + (batch.lot_offset - self.first_offset)
    }

    /// Where the redo begins instead of its base, if somebody else has changed what stands before it, and how.
    pub(crate) fn displaced(&self, file: Option<&File>) -> Result<Option<(u64, &'static str)>, StorageError> {
        // The lines may stand there already, where the change has moved them to.
        let behind = |file: &File, bytes| match find_line(file, bytes, self.first_line)? {
            Some(at) => Ok(at),
            None => quarantine::last_line_end(file, bytes),
        };
        Ok(match (file, self.found) {
            (Some(file), Some(bytes)) if bytes >= self.base => {
                let mut before = [b'\n'];
                if self.base > 0 {
                    file.read_full(self.base - 1, &mut before)?;
                }
                match before[0] {
                    b'\n' => None,
                    _ => Some((behind(file, bytes)?, "no line ends where the journal's begin")),
                }
            }
            (Some(file), Some(bytes)) => {
                Some((behind(file, bytes)?, "it is shorter than it was at the last checkpoint"))
            }
            _ => (self.base > 0).then_some((0, "it is gone")),
        })
    }
}

/// Length and hash of a batch's first line.
pub(crate) fn first_line(batch: &BatchFrame<'_>) -> (usize, u64) {
    let mut line = Vec::new();
    let end = memchr::memchr(b'\n', batch.items).map_or(0, |at| at + 1);
    record::compose(&batch.items[..end], batch.suffix, &mut line);
    (line.len(), xxh3_64(&line))
}

/// Where a line of this length and hash begins in a file of `bytes`. What stands before it need not end a line.
pub(crate) fn find_line(file: &File, bytes: u64, wanted: (usize, u64)) -> Result<Option<u64>, StorageError> {
    let (mut line, mut buffer) = (Vec::new(), vec![0; WRITE_BYTES]);
    let mut at = 0;
    while at < bytes {
        let got = file.read_full(at, &mut buffer)?;
        for piece in buffer[..got].split_inclusive(|b| *b == b'\n') {
            // No more than its end is wanted, however long the line is.
            let surplus = (line.len() + piece.len()).saturating_sub(wanted.0);
            line.drain(..surplus.min(line.len()));
            line.extend_from_slice(&piece[piece.len().saturating_sub(wanted.0)..]);
            at += piece.len() as u64;
            if piece.ends_with(b"\n") {
                if line.len() == wanted.0 && xxh3_64(&line) == wanted.1 {
                    return Ok(Some(at - line.len() as u64));
                }
                line.clear();
            }
        }
        if got == 0 {
            break;
        }
    }
    Ok(None)
}

/// Gives a batch's lines in chunks of about [`WRITE_BYTES`].
pub(crate) fn each_chunk(
    batch: &BatchFrame<'_>,
    lines: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut give = |items: &[u8]| {
        lines.clear();
        record::compose(items, batch.suffix, lines);
        each(lines)
    };
    if batch.lines_bytes <= WRITE_BYTES as u64 {
        return give(batch.items);
    }
    let (mut from, mut end) = (0, 0);
    let mut bytes = 0;
    for at in memchr::memchr_iter(b'\n', batch.items) {
        // With the braces, more or less.
        bytes += at - end + 2 + batch.suffix.len();
        end = at + 1;
        if bytes >= WRITE_BYTES {
            give(&batch.items[from..end])?;
            (from, bytes) = (end, 0);
        }
    }
    if from == end { Ok(()) } else { give(&batch.items[from..end]) }
}

/// Writes a batch's lines to their place; opens the file it needs.
pub(crate) fn write_batch(
    storage: &Storage,
    batch: &BatchFrame<'_>,
    lot: &LotRedo,
    rewrite: bool,
    files: &mut Files,
    lines: &mut Vec<u8>,
    most_open: usize,
) -> Result<(), StorageError> {
    let mut at = lot.place(batch);
    let file = match files.by_stem.get(batch.lot) {
        Some(file) => file.clone(),
        None => {
            let file = if rewrite || lot.found.is_none() {
                let name = format!("{}{FRESH_SUFFIX}", batch.lot);
                if at == lot.base {
                    // A crash may have left this name on the very file that is to be replaced.
                    storage.unlink(Dir::Lots, &name)?;
                    let file = storage.open(Dir::Lots, &name, How::Replace)?;
                    copy_prefix(storage, batch.lot, lot, &file)?;
                    file
                } else {
                    storage.open(Dir::Lots, &name, How::Write)?
                }
            } else {
                storage.open(Dir::Lots, &file_name(batch.lot), How::Write)?
            };
            // Closed with unsynced bytes a later error of the disk would be lost.
            files.add(batch.lot, file.clone(), most_open, File::sync)?;
            file
        }
    };
    each_chunk(batch, lines, |chunk| {
        file.write_all(at, chunk).map_err(|(_, e)| e)?;
        at += chunk.len() as u64;
        Ok(())
    })
}

/// Copies what stands before the redo into the file that will replace it.
fn copy_prefix(storage: &Storage, stem: &str, lot: &LotRedo, into: &File) -> Result<(), StorageError> {
    if lot.found.is_none() || lot.base == 0 {
        return Ok(());
    }
    let from = storage.open(Dir::Lots, &file_name(stem), How::Read)?;
    if let Some(birth) = Birth::of(&from) {
        birth.note(into);
    }
    let mut buffer = vec![0; WRITE_BYTES];
    let mut at = 0;
    while at < lot.base {
        let some = buffer.len().min(usize::try_from(lot.base - at).unwrap_or(usize::MAX));
        let got = from.read_full(at, &mut buffer[..some])?;
        if got == 0 {
            break;
        }
        into.write_all(at, &buffer[..got]).map_err(|(_, e)| e)?;
        at += got as u64;
    }
    Ok(())
}

/// A bounded set of open files.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) by_stem: BTreeMap<String, File>,
}

impl Files {
    /// Adds a file, closing others where there are `most`, each after `before_close`.
    pub(crate) fn add(
        &mut self,
        stem: &str,
        file: File,
        most: usize,
        mut before_close: impl FnMut(&File) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if self.by_stem.len() >= most {
            for old in std::mem::take(&mut self.by_stem).into_values() {
                before_close(&old)?;
            }
        }
        self.by_stem.insert(stem.to_owned(), file);
        Ok(())
    }
}

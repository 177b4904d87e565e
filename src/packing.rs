//! Compressing one archived file, a part at a time. Part of the vault's helpers; knows nothing of which files are due.
//!
//! The copy is made under another name, dated as the plain file, synced, given its name (`.jsonl.zst`), the directory
//! synced, read back and compared, and only then the plain one is removed. Where a crash leaves both, that is done again
//! from the comparison. Until then nothing depends on the copy, so what fails with it is its own failure only.

use std::io::{self, Read, Write};

use zstd::stream::write::Encoder;

use crate::archive::{self, Move, PACKED_SUFFIX, PLAIN_SUFFIX};
use crate::storage::{Dir, File, How, Storage, StorageError, WRITE_BYTES};

/// Suffix of a compressed file before it is finished.
pub const PACKING_SUFFIX: &str = ".jsonl.zst.new";
/// So many bytes of a copy are written before it is synced: a sync of the journal that comes meanwhile must not wait
/// for all of a large one.
const SYNC_BYTES: u64 = 4 << 20;

/// The compression of one file.
pub struct Packing {
    moved: Move,
    level: i32,
    state: State,
    /// Its copy was made here.
    made: bool,
    buffer: Vec<u8>,
}

/// What one file came to, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Before.
    pub plain_bytes: u64,
    /// After.
    pub packed_bytes: u64,
}

enum State {
    Begin,
    Copy(Source, Box<Encoder<'static, Sink>>),
    Compare(Source, Box<dyn Read + Send>),
}

/// The plain file.
struct Source {
    content: Box<dyn Read + Send>,
    bytes: u64,
    modified_seconds: i64,
}

impl std::fmt::Debug for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Packing").field(&self.moved).finish()
    }
}

/// Writes to the end of a new file.
struct Sink {
    file: File,
    at: u64,
    synced: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(self.at, bytes).map_err(|(_, error)| error.source)?;
        self.at += bytes.len() as u64;
        if self.at - self.synced >= SYNC_BYTES {
            self.file.sync().map_err(|error| error.source)?;
            self.synced = self.at;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Packing {
    /// Of this file, at this level.
    pub fn new(moved: Move, level: i32) -> Packing {
        Packing { moved, level, state: State::Begin, made: false, buffer: vec![0; WRITE_BYTES] }
    }

    fn place(&self, suffix: &str) -> String {
        let plain = self.moved.place();
        format!("{}{suffix}", plain.strip_suffix(PLAIN_SUFFIX).unwrap_or(&plain))
    }

    fn failed(&self, source: io::Error) -> StorageError {
        StorageError { what: format!("compression of archive/{}", self.moved.place()), source }
    }

    /// Does a part. `Some` at its end: what it came to, `None` where there was nothing to do.
    ///
    /// # Errors
    /// Of the storage: the plain file stays.
    pub fn step(&mut self, storage: &Storage) -> Result<Option<Option<Packed>>, StorageError> {
        let (plain, packed, new) =
            (self.place(PLAIN_SUFFIX), self.place(PACKED_SUFFIX), self.place(PACKING_SUFFIX));
        let apart = storage.apart();
        match std::mem::replace(&mut self.state, State::Begin) {
            State::Begin => {
                let file = match apart.open(Dir::Archive, &plain, How::Read) {
                    Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
                    file => file?,
                };
                let stat = file.stat()?;
                let (bytes, modified_seconds) = (stat.bytes, stat.modified_seconds);
                let source = Source { content: file.reader(), bytes, modified_seconds };
                self.state = if storage.stat(Dir::Archive, &packed)?.is_some() {
                    State::Compare(source, unpacked(&apart, &packed)?)
                } else {
                    let file = apart.open(Dir::Archive, &new, How::Replace)?;
                    let sink = Sink { file, at: 0, synced: 0 };
                    let mut encoder = Encoder::new(sink, self.level).map_err(|e| self.failed(e))?;
                    encoder.include_checksum(true).map_err(|e| self.failed(e))?;
                    State::Copy(source, Box::new(encoder))
                };
            }
            State::Copy(mut source, mut encoder) => {
                let got = fill(&mut *source.content, &mut self.buffer).map_err(|e| self.failed(e))?;
                encoder.write_all(&self.buffer[..got]).map_err(|e| self.failed(e))?;
                if got > 0 {
                    self.state = State::Copy(source, encoder);
                    return Ok(None);
                }
                let sink = encoder.finish().map_err(|e| self.failed(e))?;
                // Its age is that of its records.
                sink.file.set_modified(source.modified_seconds);
                sink.file.sync()?;
                apart.rename(Dir::Archive, &new, &packed, false)?;
                storage.sync_below(Dir::Archive, Some(&archive::lot_dir(&self.moved.stem)))?;
                self.made = true;
            }
            State::Compare(mut source, mut other) => {
                let half = self.buffer.len() / 2;
                let (one, two) = self.buffer.split_at_mut(half);
                let got = fill(&mut *source.content, one)
                    .map_err(|source| StorageError { what: format!("read of archive/{plain}"), source })?;
                // A compressed file that cannot be read, or is not the same, is made anew.
                let same = fill(&mut *other, &mut two[..half.min(one.len())])
                    .is_ok_and(|there| there == got && one[..got] == two[..got]);
                if same && got > 0 {
                    self.state = State::Compare(source, other);
                    return Ok(None);
                }
                let packed_bytes = storage.stat(Dir::Archive, &packed)?.map_or(0, |stat| stat.bytes);
                let goes = if same { &plain } else { &packed };
                apart.unlink(Dir::Archive, goes)?;
                storage.sync_below(Dir::Archive, Some(&archive::lot_dir(&self.moved.stem)))?;
                if !same && self.made {
                    return Err(self.failed(io::Error::other("read back it is not what was compressed")));
                }
                return Ok(same.then_some(Some(Packed { plain_bytes: source.bytes, packed_bytes })));
            }
        }
        Ok(None)
    }

    /// Removes what is not finished.
    pub fn give_up(&self, storage: &Storage) {
        let _ = storage.apart().unlink(Dir::Archive, &self.place(PACKING_SUFFIX));
    }
}

/// A compressed file as it was.
fn unpacked(storage: &Storage, place: &str) -> Result<Box<dyn Read + Send>, StorageError> {
    archive::unpack(storage.open(Dir::Archive, place, How::Read)?.reader(), place)
}

/// Fills a buffer as far as there is something; how far.
fn fill(from: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match from.read(&mut into[done..]) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

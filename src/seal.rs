//! Sealing a lot: a footer file beside it says what the lot has, with a checksum, and closes it for good. Made in the
//! background, a part at a time; knows nothing of what a record is but where its timestamp stands.
//!
//! The footer counts from the moment that it has its name, which is its last step: whatever crashes before that, the
//! lot is as it was.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::archive;
use crate::background::{Chore, Chored};
use crate::lots::{SEAL_SUFFIX, SEALING_SUFFIX, file_name};
use crate::storage::{Dir, How, Storage, StorageError, WRITE_BYTES};

/// A first or last record longer than this gives no timestamp, in bytes.
const LINE_BYTES: usize = 16 << 20;

/// The footer of a sealed lot, as it stands in `lots/<lot>.sealed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// The lot's id.
    pub lot: String,
    /// Records in all of its files.
    pub records: u64,
    /// Bytes of them, not compressed.
    pub bytes: u64,
    /// XXH3 with 128 bits over all of it, in order, not compressed.
    pub xxh3_128: String,
    /// Timestamp of the first record.
    pub first: Option<String>,
    /// Timestamp of the last one.
    pub last: Option<String>,
    /// The last lsn that had been given out, to any lot.
    pub lsn: u64,
    /// When it was sealed.
    pub sealed: String,
    /// Its files, in order, as they were called then.
    pub files: Vec<Part>,
}

/// One file of a sealed lot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name below DATA.
    pub file: String,
    /// Its records.
    pub records: u64,
    /// Its bytes, not compressed.
    pub bytes: u64,
    /// XXH3 with 128 bits over them.
    pub xxh3_128: String,
}

/// A checksum as footers spell it.
pub fn spelt(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

/// What of a footer's text is not so, if anything: for these records and bytes, and their checksum.
pub fn broken(text: &[u8], records: u64, bytes: u64, hash: &Xxh3) -> Option<String> {
    let footer: Footer = match serde_json::from_slice(text) {
        Ok(footer) => footer,
        Err(error) => return Some(error.to_string()),
    };
    let is = spelt(hash);
    if footer.records != records {
        Some(format!("{records} records, {} by the footer", footer.records))
    } else if footer.bytes != bytes {
        Some(format!("{bytes} bytes, {} by the footer", footer.bytes))
    } else {
        (footer.xxh3_128 != is).then(|| format!("checksum {is}, {} by the footer", footer.xxh3_128))
    }
}

/// Lots that are being sealed: nothing of theirs is removed meanwhile, or a footer would tell of files that are gone.
#[derive(Debug, Default)]
pub struct Closing(Mutex<HashSet<Box<str>>>);

impl Closing {
    /// From now on a lot is being sealed.
    pub fn begin(&self, stem: &str) {
        self.stems().insert(stem.into());
    }

    /// It is sealed, or open as before.
    pub fn end(&self, stem: &str) {
        self.stems().remove(stem);
    }

    /// Does something that must be over before a lot begins to be sealed; nothing where it is being sealed.
    pub fn unless_closing<T>(&self, stem: &str, act: impl FnOnce() -> T) -> Option<T> {
        let stems = self.stems();
        (!stems.contains(stem)).then(act)
    }

    fn stems(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sealing of one lot.
pub struct Sealing {
    stem: String,
    footer: Footer,
    all: Xxh3,
    left: VecDeque<(Dir, String)>,
    /// The file that is read, and its checksum so far.
    now: Option<(Box<dyn Read + Send>, Part, Xxh3)>,
    /// The line that is not ended yet, and the last one that is.
    open_line: Vec<u8>,
    last_line: Vec<u8>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sealing").field(&self.stem).finish()
    }
}

impl Sealing {
    /// The sealing of a lot that nothing is on its way to, and nothing will be.
    ///
    /// # Errors
    /// Of the storage: its archive cannot be listed.
    pub fn new(
        storage: &Storage,
        (stem, lot): (&str, String),
        is_live: bool,
        lsn: u64,
        wall_micros: i64,
    ) -> Result<Sealing, StorageError> {
        let numbers = archive::numbers(storage, stem)?;
        let place = |number| (Dir::Archive, archive::Move { stem: stem.to_owned(), number }.place());
        let live = is_live.then(|| (Dir::Lots, file_name(stem)));
        let when = chrono::DateTime::from_timestamp_micros(wall_micros).unwrap_or_default();
        let sealed = when.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
        Ok(Sealing {
            stem: stem.to_owned(),
            footer: Footer { lot, lsn, sealed, ..Footer::default() },
            all: Xxh3::new(),
            left: numbers.into_iter().map(place).chain(live).collect(),
            now: None,
            open_line: Vec::new(),
            last_line: Vec::new(),
            buffer: vec![0; WRITE_BYTES],
        })
    }

    /// Whether the lot has no file at all.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes in a piece of a file.
    fn take(&mut self, length: usize) {
        let Some((_, part, hash)) = &mut self.now else { return };
        let piece = &self.buffer[..length];
        hash.update(piece);
        self.all.update(piece);
        part.bytes += length as u64;
        part.records += memchr::memchr_iter(b'\n', piece).count() as u64;
        let room = |line: &Vec<u8>| LINE_BYTES.saturating_sub(line.len());
        let Some(end) = memchr::memrchr(b'\n', piece) else {
            let some = piece.len().min(room(&self.open_line));
            self.open_line.extend_from_slice(&piece[..some]);
            return;
        };
        if self.footer.first.is_none() {
            let first = memchr::memchr(b'\n', piece).unwrap_or(end);
            let some = first.min(room(&self.open_line));
            let line = [&self.open_line, &piece[..some]].concat();
            self.footer.first = timestamp(&line);
        }
        match memchr::memrchr(b'\n', &piece[..end]) {
            Some(before) => self.last_line = piece[before + 1..end].to_vec(),
            None => {
                self.last_line = std::mem::take(&mut self.open_line);
                let some = end.min(room(&self.last_line));
                self.last_line.extend_from_slice(&piece[..some]);
            }
        }
        self.open_line.clear();
        self.open_line.extend_from_slice(&piece[end + 1..]);
    }

    /// Writes the footer, and gives it its name.
    fn conclude(&mut self, storage: &Storage) -> Result<Chored, StorageError> {
        for part in &self.footer.files {
            self.footer.records += part.records;
            self.footer.bytes += part.bytes;
        }
        self.footer.xxh3_128 = spelt(&self.all);
        self.footer.last = timestamp(&self.last_line);
        let what = || format!("footer of {}", self.stem);
        let text = serde_json::to_string(&self.footer)
            .map_err(|error| StorageError { what: what(), source: io::Error::other(error) })?;
        let (new, name) = (format!("{}{SEALING_SUFFIX}", self.stem), format!("{}{SEAL_SUFFIX}", self.stem));
        // Until it has its name nothing depends on it.
        let file = storage.apart().open(Dir::Lots, &new, How::Replace)?;
        file.write_all(0, (text + "\n").as_bytes()).map_err(|(_, error)| error)?;
        file.sync()?;
        storage.rename(Dir::Lots, &new, &name, false)?;
        storage.sync_dir(Dir::Lots)?;
        let (records, bytes) = (self.footer.records, self.footer.bytes);
        Ok(Chored::Sealed { stem: self.stem.as_str().into(), records, bytes })
    }
}

impl Chore for Sealing {
    fn stem(&self) -> &str {
        &self.stem
    }

    fn step(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError> {
        if self.now.is_none() {
            let Some((dir, name)) = self.left.pop_front() else {
                return self.conclude(storage).map(Some).inspect_err(|_| {
                    // A failed disk does not take this any more, and the next start removes it.
                    let _ = storage.apart().unlink(Dir::Lots, &format!("{}{SEALING_SUFFIX}", self.stem));
                });
            };
            let (file, name) = match dir {
                // What cannot be read cannot be sealed, and is nobody else's trouble.
                Dir::Archive => archive::read(&storage.apart(), &name)?,
                _ => {
                    (storage.apart().open(dir, &name, How::Read)?.reader(), format!("{}{name}", dir.prefix()))
                }
            };
            self.now = Some((file, Part { file: name, ..Part::default() }, Xxh3::new()));
            return Ok(None);
        }
        let Some((file, part, _)) = &mut self.now else { return Ok(None) };
        let got = match file.read(&mut self.buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            got => got.map_err(|source| StorageError { what: format!("read of {}", part.file), source })?,
        };
        if got > 0 {
            self.take(got);
        } else if let Some((_, mut part, hash)) = self.now.take() {
            part.xxh3_128 = spelt(&hash);
            self.footer.files.push(part);
        }
        Ok(None)
    }
}

/// The record's timestamp.
fn timestamp(line: &[u8]) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(line).ok()?;
    Some(record.get("timestamp")?.as_str()?.to_owned())
}

//! Keeping the archive: lots that are old enough to be rotated are found, archived files are compressed, and removed
//! when they are too old or too much, if the operator has set that. In the background, a part at a time; readers find each record once at any moment. Part of the vault's helpers.
//!
//! A file is compressed under another name, synced, given its name (`.jsonl.zst`), the directory synced, read back and
//! compared, and only then the plain one is removed. Where a crash leaves both, that is done again from the comparison.

use std::collections::{HashSet, VecDeque};
use std::io::{self, Read, Write};

use zstd::stream::write::Encoder;

use crate::archive::{self, LOT_DIR_PREFIX, Move, PACKED_SUFFIX, PLAIN_SUFFIX, number_of};
use crate::background::{Chore, Chored};
use crate::batch::decode_stem;
use crate::lots::{Birth, LOT_SUFFIX, SEAL_SUFFIX, file_name};
use crate::storage::{Dir, File, How, Storage, StorageError, WRITE_BYTES};

/// Suffix of a compressed file before it is finished.
const PACKING_SUFFIX: &str = ".jsonl.zst.new";

/// What the operator has set.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Level of compression, 0 for none.
    pub level: i32,
    /// Lot files that began longer ago than this are told of, in seconds; 0 for none.
    pub rotate_seconds: u64,
    /// Archived files older than this are removed, in seconds; 0 for none.
    pub retain_seconds: u64,
    /// The oldest archived files are removed while all take more than this; 0 for any size.
    pub retain_bytes: u64,
}

impl Policy {
    /// Whether anything is to be done at all.
    pub fn is_idle(&self) -> bool {
        self.level == 0 && self.rotate_seconds == 0 && !self.removes()
    }

    /// Whether files are ever removed.
    pub fn removes(&self) -> bool {
        self.retain_seconds > 0 || self.retain_bytes > 0
    }
}

/// A file in the archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    /// When it was last written.
    seconds: i64,
    number: u64,
    stem: String,
    name: String,
    bytes: u64,
}

/// One round over the archive, or over a few of its files.
#[derive(Debug)]
pub struct Keeping {
    policy: Policy,
    now_seconds: i64,
    /// Over all of the archive.
    all: bool,
    state: State,
    /// Directories that were not looked at yet.
    dirs: VecDeque<String>,
    /// Files to be compressed.
    plain: VecDeque<Move>,
    kept: Vec<Kept>,
    removed: u64,
    /// Lot files whose age was not looked at yet.
    lots: VecDeque<String>,
    /// Lots that are old enough to be rotated.
    old: Vec<Box<str>>,
}

#[derive(Debug)]
enum State {
    List,
    Age,
    Walk,
    Pack(Option<Box<Packing>>),
    Retain,
}

impl Keeping {
    /// All of the archive.
    pub fn all(policy: Policy, wall_micros: i64) -> Keeping {
        let now_seconds = wall_micros.div_euclid(1_000_000);
        let (dirs, plain, lots) = Default::default();
        let (kept, old) = (Vec::new(), Vec::new());
        Keeping {
            policy,
            now_seconds,
            all: true,
            state: State::List,
            dirs,
            plain,
            kept,
            removed: 0,
            lots,
            old,
        }
    }

    /// Files that have just been moved there.
    pub fn of(policy: Policy, moves: Vec<Move>) -> Keeping {
        let state = State::Pack(None);
        Keeping {
            all: false,
            state,
            plain: moves.into(),
            ..Keeping::all(Policy { retain_seconds: 0, retain_bytes: 0, ..policy }, 0)
        }
    }

    /// Whether a lot's file is old enough to be rotated: by when it began, or where nobody has noted that, by when it
    /// was last written.
    fn is_old(&self, storage: &Storage, name: &str) -> Result<bool, StorageError> {
        let file = storage.open(Dir::Lots, name, How::Read)?;
        let seconds = match Birth::of(&file) {
            Some(birth) => birth.micros.div_euclid(1_000_000),
            None => file.stat()?.modified_seconds,
        };
        Ok(u64::try_from(self.now_seconds - seconds).is_ok_and(|age| age >= self.policy.rotate_seconds))
    }

    /// Looks at one lot's directory.
    fn walk(&mut self, storage: &Storage, dir: &str) -> Result<(), StorageError> {
        let Some(stem) = dir.strip_prefix(LOT_DIR_PREFIX) else { return Ok(()) };
        let names =
            storage.ask(|| format!("listing of archive/{dir}"), |disk| disk.list(Dir::Archive, Some(dir)))?;
        let sealed =
            self.policy.removes() && storage.stat(Dir::Lots, &format!("{stem}{SEAL_SUFFIX}"))?.is_some();
        for name in names {
            let place = format!("{dir}/{name}");
            if name.ends_with(PACKING_SUFFIX) {
                storage.unlink(Dir::Archive, &place)?;
                continue;
            }
            let Some(number) = number_of(&name) else { continue };
            if name.ends_with(PLAIN_SUFFIX) && self.policy.level > 0 {
                self.plain.push_back(Move { stem: stem.to_owned(), number });
            }
            if sealed || !self.policy.removes() {
                continue;
            }
            if let Some(stat) = storage.stat(Dir::Archive, &place)? {
                let (seconds, bytes) = (stat.modified_seconds, stat.bytes);
                self.kept.push(Kept { seconds, number, stem: stem.to_owned(), name, bytes });
            }
        }
        Ok(())
    }

    /// Removes the oldest file, if it is too old or all are too much.
    fn retain(&mut self, storage: &Storage) -> Result<bool, StorageError> {
        let Policy { retain_seconds, retain_bytes, .. } = self.policy;
        let all: u64 = self.kept.iter().map(|kept| kept.bytes).sum();
        let Some(oldest) = self.kept.first() else { return Ok(false) };
        let age = u64::try_from(self.now_seconds - oldest.seconds).unwrap_or(0);
        let why = if retain_seconds > 0 && age > retain_seconds {
            "it is older than retain_age_seconds"
        } else if retain_bytes > 0 && all > retain_bytes {
            "the archive is larger than retain_bytes"
        } else {
            return Ok(false);
        };
        let oldest = self.kept.remove(0);
        let dir = archive::lot_dir(&oldest.stem);
        storage.unlink(Dir::Archive, &format!("{dir}/{}", oldest.name))?;
        storage.sync_below(Dir::Archive, Some(&dir))?;
        self.removed += 1;
        let file = format!("archive/{dir}/{}", oldest.name);
        tracing::warn!(
            file,
            bytes = oldest.bytes,
            age_seconds = age,
            why,
            "an archived file was removed: its records are gone"
        );
        Ok(true)
    }
}

impl Chore for Keeping {
    fn stem(&self) -> &str {
        ""
    }

    fn step(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError> {
        match self.advance(storage) {
            Err(error) if storage.failure().is_none() => {
                tracing::warn!(%error, "the archive could not be kept: tried again later");
                Ok(Some(self.end()))
            }
            result => result,
        }
    }
}

impl Keeping {
    /// What it came to.
    fn end(&mut self) -> Chored {
        Chored::Kept { all: self.all, removed: self.removed, old: std::mem::take(&mut self.old) }
    }

    /// Does a part.
    fn advance(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError> {
        match &mut self.state {
            State::List => {
                match storage.names(Dir::Archive) {
                    Ok(names) => self.dirs = names.into(),
                    // Nothing was ever rotated.
                    Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                if self.policy.rotate_seconds > 0 {
                    let names = storage.names(Dir::Lots)?;
                    let sealed: HashSet<&str> =
                        names.iter().filter_map(|n| n.strip_suffix(SEAL_SUFFIX)).collect();
                    let stem = |name: &String| name.strip_suffix(LOT_SUFFIX).map(ToOwned::to_owned);
                    let open = |stem: &String| decode_stem(stem).is_some() && !sealed.contains(stem.as_str());
                    self.lots = names.iter().filter_map(stem).filter(open).collect();
                }
                self.state = State::Age;
            }
            State::Age => match self.lots.pop_front() {
                Some(stem) => match self.is_old(storage, &file_name(&stem)) {
                    Ok(true) => self.old.push(stem.into()),
                    Err(error) if storage.failure().is_some() => return Err(error),
                    // Moved meanwhile, or nothing that lotlogd made: that is said where it is used.
                    Ok(false) | Err(_) => {}
                },
                None => self.state = State::Walk,
            },
            State::Walk => match self.dirs.pop_front() {
                // What cannot be looked at is `verify`'s to find.
                Some(dir) => match self.walk(storage, &dir) {
                    Err(error) if storage.failure().is_some() => return Err(error),
                    Err(error) => tracing::warn!(%error, "a part of the archive cannot be kept"),
                    Ok(()) => {}
                },
                None => {
                    self.kept.sort_unstable();
                    self.state = State::Pack(None);
                }
            },
            State::Pack(None) => match self.plain.pop_front() {
                Some(moved) if self.policy.level > 0 => {
                    self.state = State::Pack(Some(Box::new(Packing::new(moved, self.policy.level))));
                }
                _ => self.state = State::Retain,
            },
            State::Pack(Some(packing)) => match packing.step(storage) {
                Ok(false) => {}
                Ok(true) => self.state = State::Pack(None),
                Err(error) => {
                    if storage.failure().is_some() {
                        return Err(error);
                    }
                    tracing::warn!(%error, "an archived file cannot be compressed now: it stays as it is");
                    packing.give_up(storage);
                    self.state = State::Pack(None);
                }
            },
            State::Retain => {
                if !self.retain(storage)? {
                    return Ok(Some(self.end()));
                }
            }
        }
        Ok(None)
    }
}

/// The compression of one file.
struct Packing {
    moved: Move,
    level: i32,
    state: PackState,
    buffer: Vec<u8>,
}

enum PackState {
    Begin,
    Copy(Box<dyn Read + Send>, Box<Encoder<'static, Sink>>),
    Compare(Box<dyn Read + Send>, Box<dyn Read + Send>),
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
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(self.at, bytes).map_err(|(_, error)| error.source)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Packing {
    fn new(moved: Move, level: i32) -> Packing {
        Packing { moved, level, state: PackState::Begin, buffer: vec![0; WRITE_BYTES] }
    }

    fn place(&self, suffix: &str) -> String {
        let plain = self.moved.place();
        format!("{}{suffix}", plain.strip_suffix(PLAIN_SUFFIX).unwrap_or(&plain))
    }

    fn failed(&self, source: io::Error) -> StorageError {
        StorageError { what: format!("compression of archive/{}", self.moved.place()), source }
    }

    /// Does a part; whether it is done.
    fn step(&mut self, storage: &Storage) -> Result<bool, StorageError> {
        let (plain, packed, new) =
            (self.place(PLAIN_SUFFIX), self.place(PACKED_SUFFIX), self.place(PACKING_SUFFIX));
        match std::mem::replace(&mut self.state, PackState::Begin) {
            PackState::Begin => {
                let from = match storage.open(Dir::Archive, &plain, How::Read) {
                    Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(true),
                    file => file?.reader(),
                };
                self.state = if storage.stat(Dir::Archive, &packed)?.is_some() {
                    PackState::Compare(from, unpacked(storage, &packed)?)
                } else {
                    let file = storage.open(Dir::Archive, &new, How::Replace)?;
                    let mut encoder =
                        Encoder::new(Sink { file, at: 0 }, self.level).map_err(|e| self.failed(e))?;
                    encoder.include_checksum(true).map_err(|e| self.failed(e))?;
                    PackState::Copy(from, Box::new(encoder))
                };
            }
            PackState::Copy(mut from, mut encoder) => {
                let got = fill(&mut *from, &mut self.buffer).map_err(|e| self.failed(e))?;
                encoder.write_all(&self.buffer[..got]).map_err(|e| self.failed(e))?;
                if got > 0 {
                    self.state = PackState::Copy(from, encoder);
                    return Ok(false);
                }
                let sink = encoder.finish().map_err(|e| self.failed(e))?;
                sink.file.sync()?;
                storage.rename(Dir::Archive, &new, &packed, false)?;
                storage.sync_below(Dir::Archive, Some(&archive::lot_dir(&self.moved.stem)))?;
            }
            PackState::Compare(mut from, mut other) => {
                let half = self.buffer.len() / 2;
                let (one, two) = self.buffer.split_at_mut(half);
                let got = fill(&mut *from, one)
                    .map_err(|source| StorageError { what: format!("read of archive/{plain}"), source })?;
                // A compressed file that cannot be read, or is not the same, is made anew.
                let same = fill(&mut *other, &mut two[..half.min(one.len())])
                    .is_ok_and(|there| there == got && one[..got] == two[..got]);
                if same && got > 0 {
                    self.state = PackState::Compare(from, other);
                    return Ok(false);
                }
                let goes = if same { &plain } else { &packed };
                storage.unlink(Dir::Archive, goes)?;
                storage.sync_below(Dir::Archive, Some(&archive::lot_dir(&self.moved.stem)))?;
                return Ok(same);
            }
        }
        Ok(false)
    }

    /// Removes what is not finished.
    fn give_up(&self, storage: &Storage) {
        let _ = storage.unlink(Dir::Archive, &self.place(PACKING_SUFFIX));
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

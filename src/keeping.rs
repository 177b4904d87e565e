//! Keeping the archive: lots that are old enough to be rotated are found, archived files are compressed, and removed
//! when they are too old or too much, if the operator has set that. In the background, a part at a time; readers find
//! each record once at any moment. Part of the vault's helpers; how a file is compressed is in `packing`.
//!
//! What is removed is looked at when all is compressed: by its size then, by the time its records were written, and only
//! what lotlogd has named.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::archive::{self, LOT_DIR_PREFIX, Move, PLAIN_SUFFIX, number_of};
use crate::background::{Chore, Chored};
use crate::batch::decode_stem;
use crate::lots::{Birth, LOT_SUFFIX, SEAL_SUFFIX, file_name};
use crate::packing::{PACKING_SUFFIX, Packing};
use crate::seal::Closing;
use crate::storage::{Dir, How, Storage, StorageError};

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

/// A file in the archive, plain or compressed or, after a crash, both. There may be millions: what is in it is small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    /// When it was last written.
    seconds: i64,
    number: u64,
    stem: Arc<str>,
    plain: bool,
    packed: bool,
    bytes: u64,
}

impl Kept {
    /// Its names, a compressed one first: beside the plain one it may be what a crash has left of it.
    fn names(&self) -> impl Iterator<Item = String> {
        let packed = self.packed.then(|| archive::packed_name(self.number));
        packed.into_iter().chain(self.plain.then(|| archive::plain_name(self.number)))
    }
}

/// One round over the archive, or over a few of its files.
#[derive(Debug)]
pub struct Keeping {
    policy: Policy,
    now_seconds: i64,
    /// Over all of the archive.
    all: bool,
    state: State,
    closing: Arc<Closing>,
    /// Directories that were not looked at yet.
    dirs: VecDeque<String>,
    /// Files to be compressed.
    plain: VecDeque<Move>,
    /// Files that may be removed, in the end the oldest first, and what they take.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
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
    Survey,
    Retain,
}

impl Keeping {
    /// All of the archive; nothing of lots in `closing` is removed.
    pub fn all(policy: Policy, wall_micros: i64, closing: &Arc<Closing>) -> Keeping {
        Keeping {
            policy,
            now_seconds: wall_micros.div_euclid(1_000_000),
            all: true,
            state: State::List,
            closing: closing.clone(),
            dirs: VecDeque::new(),
            plain: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            removed: 0,
            lots: VecDeque::new(),
            old: Vec::new(),
        }
    }

    /// Files that have just been moved there: compressed, no more.
    pub fn of(policy: Policy, moves: Vec<Move>, closing: &Arc<Closing>) -> Keeping {
        let policy = Policy { retain_seconds: 0, retain_bytes: 0, ..policy };
        let all = Keeping::all(policy, 0, closing);
        Keeping { all: false, state: State::Pack(None), plain: moves.into(), ..all }
    }

    /// Whether a lot's file is old enough to be rotated: by when it began, or where nobody has noted that, by when it
    /// was last written.
    fn is_old(&self, storage: &Storage, name: &str) -> Result<bool, StorageError> {
        let file = storage.apart().open(Dir::Lots, name, How::Read)?;
        let seconds = match Birth::of(&file) {
            Some(birth) => birth.micros.div_euclid(1_000_000),
            None => file.stat()?.modified_seconds,
        };
        Ok(u64::try_from(self.now_seconds.saturating_sub(seconds))
            .is_ok_and(|age| age >= self.policy.rotate_seconds))
    }

    /// The directories of lots in the archive.
    fn list(storage: &Storage) -> Result<VecDeque<String>, StorageError> {
        match storage.names(Dir::Archive) {
            Ok(names) => Ok(names.into()),
            // Nothing was ever rotated.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(VecDeque::new()),
            Err(error) => Err(error),
        }
    }

    /// Finds what is to be compressed of one lot, and removes what a crash has left unfinished.
    fn walk(&mut self, storage: &Storage, dir: &str) -> Result<(), StorageError> {
        let Some(stem) = stem_of(dir) else { return Ok(()) };
        for name in names_in(storage, dir)? {
            let place = format!("{dir}/{name}");
            let unfinished =
                name.strip_suffix(PACKING_SUFFIX).map(|number| format!("{number}{PLAIN_SUFFIX}"));
            if unfinished.is_some_and(|plain| number_of(&plain).is_some()) {
                // One that cannot be removed is in nobody's way but its own file's.
                let _ = storage.apart().unlink(Dir::Archive, &place);
            } else if let Some(number) = number_of(&name)
                && name.ends_with(PLAIN_SUFFIX)
                && self.policy.level > 0
            {
                self.plain.push_back(Move { stem: stem.to_owned(), number });
            }
        }
        Ok(())
    }

    /// Notes down what may be removed of one lot.
    fn survey(&mut self, storage: &Storage, dir: &str) -> Result<(), StorageError> {
        let Some(stem) = stem_of(dir).filter(|_| self.policy.removes()) else { return Ok(()) };
        if is_sealed(storage, stem)? {
            return Ok(());
        }
        let (mut files, shared): (BTreeMap<u64, Kept>, Arc<str>) = (BTreeMap::new(), stem.into());
        for name in names_in(storage, dir)? {
            let Some(number) = number_of(&name) else { continue };
            let stat = storage.stat(Dir::Archive, &format!("{dir}/{name}"))?;
            let Some(stat) = stat.filter(|stat| stat.regular) else { continue };
            let kept = files.entry(number).or_insert_with(|| Kept {
                seconds: stat.modified_seconds,
                number,
                stem: shared.clone(),
                plain: false,
                packed: false,
                bytes: 0,
            });
            kept.seconds = kept.seconds.max(stat.modified_seconds);
            kept.bytes += stat.bytes;
            let is_plain = name.ends_with(PLAIN_SUFFIX);
            (kept.plain, kept.packed) = (kept.plain || is_plain, kept.packed || !is_plain);
        }
        self.kept_bytes += files.values().map(|kept| kept.bytes).sum::<u64>();
        self.kept.extend(files.into_values());
        Ok(())
    }

    /// Removes the oldest file, if it is too old or all are too much; whether there may be more.
    fn retain(&mut self, storage: &Storage) -> Result<bool, StorageError> {
        let Policy { retain_seconds, retain_bytes, .. } = self.policy;
        let Some(oldest) = self.kept.front() else { return Ok(false) };
        let age = u64::try_from(self.now_seconds.saturating_sub(oldest.seconds)).unwrap_or(0);
        let why = if retain_seconds > 0 && age > retain_seconds {
            "it is older than retain_age_seconds"
        } else if retain_bytes > 0 && self.kept_bytes > retain_bytes {
            "the archive is larger than retain_bytes"
        } else {
            return Ok(false);
        };
        let Some(oldest) = self.kept.pop_front() else { return Ok(false) };
        self.kept_bytes -= oldest.bytes;
        let dir = archive::lot_dir(&oldest.stem);
        let gone = self.closing.unless_closing(&oldest.stem, || {
            if is_sealed(storage, &oldest.stem)? {
                return Ok(false);
            }
            for name in oldest.names() {
                storage.apart().unlink(Dir::Archive, &format!("{dir}/{name}"))?;
            }
            Ok(true)
        });
        let file = format!("archive/{dir}/{}", oldest.names().last().unwrap_or_default());
        match gone.unwrap_or(Ok(false)) {
            Ok(false) => return Ok(true),
            Err(error) if storage.failure().is_some() => return Err(error),
            Err(error) => {
                storage.metrics().archive.failures.fetch_add(1, Relaxed);
                tracing::warn!(file, %error, "an archived file could not be removed: the next oldest is looked at");
                return Ok(true);
            }
            Ok(true) => {}
        }
        storage.sync_below(Dir::Archive, Some(&dir))?;
        self.removed += 1;
        let counts = &storage.metrics().archive;
        counts.removed.fetch_add(1, Relaxed);
        counts.removed_bytes.fetch_add(oldest.bytes, Relaxed);
        tracing::warn!(
            file,
            bytes = oldest.bytes,
            age_seconds = age,
            why,
            "an archived file was removed: its records are gone"
        );
        Ok(true)
    }

    /// What it came to.
    fn end(&mut self) -> Chored {
        Chored::Kept { all: self.all, removed: self.removed, old: std::mem::take(&mut self.old) }
    }

    /// Does a part.
    fn advance(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError> {
        match &mut self.state {
            State::List => {
                self.dirs = Keeping::list(storage)?;
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
                Some(dir) => {
                    let looked = self.walk(storage, &dir);
                    passed_over(storage, looked)?;
                }
                None => self.state = State::Pack(None),
            },
            State::Pack(None) => match self.plain.pop_front() {
                Some(moved) if self.policy.level > 0 => {
                    self.state = State::Pack(Some(Box::new(Packing::new(moved, self.policy.level))));
                }
                _ => {
                    self.dirs = if self.policy.removes() { Keeping::list(storage)? } else { VecDeque::new() };
                    self.state = State::Survey;
                }
            },
            State::Pack(Some(packing)) => match packing.step(storage) {
                Ok(None) => {}
                Ok(Some(packed)) => {
                    if let Some(packed) = packed {
                        let counts = &storage.metrics().archive;
                        counts.compressed.fetch_add(1, Relaxed);
                        counts.compressed_from_bytes.fetch_add(packed.plain_bytes, Relaxed);
                        counts.compressed_to_bytes.fetch_add(packed.packed_bytes, Relaxed);
                    }
                    self.state = State::Pack(None);
                }
                Err(error) => {
                    if storage.failure().is_some() {
                        return Err(error);
                    }
                    storage.metrics().archive.failures.fetch_add(1, Relaxed);
                    tracing::warn!(%error, "an archived file cannot be compressed now: it stays as it is");
                    packing.give_up(storage);
                    self.state = State::Pack(None);
                }
            },
            State::Survey => match self.dirs.pop_front() {
                Some(dir) => {
                    let looked = self.survey(storage, &dir);
                    passed_over(storage, looked)?;
                }
                None => {
                    self.kept.make_contiguous().sort_unstable();
                    self.state = State::Retain;
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

impl Chore for Keeping {
    fn stem(&self) -> &str {
        ""
    }

    fn step(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError> {
        match self.advance(storage) {
            Err(error) if storage.failure().is_none() => {
                storage.metrics().archive.failures.fetch_add(1, Relaxed);
                tracing::warn!(%error, "the archive could not be kept: tried again later");
                Ok(Some(self.end()))
            }
            result => result,
        }
    }
}

/// The lot whose directory this is. What is in others is nobody's to touch; `verify` tells of them.
fn stem_of(dir: &str) -> Option<&str> {
    dir.strip_prefix(LOT_DIR_PREFIX).filter(|stem| decode_stem(stem).is_some())
}

fn names_in(storage: &Storage, dir: &str) -> Result<Vec<String>, StorageError> {
    storage.ask(|| format!("listing of archive/{dir}"), |disk| disk.list(Dir::Archive, Some(dir)))
}

fn is_sealed(storage: &Storage, stem: &str) -> Result<bool, StorageError> {
    Ok(storage.stat(Dir::Lots, &format!("{stem}{SEAL_SUFFIX}"))?.is_some())
}

/// A directory that cannot be looked at is `verify`'s to find, unless the disk has failed.
fn passed_over(storage: &Storage, looked: Result<(), StorageError>) -> Result<(), StorageError> {
    match looked {
        Err(error) if storage.failure().is_none() => {
            storage.metrics().archive.failures.fetch_add(1, Relaxed);
            tracing::warn!(%error, "a part of the archive cannot be kept");
            Ok(())
        }
        looked => looked,
    }
}

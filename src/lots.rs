//! The lot files: names, open descriptors, appends. Knows what it believes each file to look like, and says
//! when somebody else has changed one. Knows nothing of frames and tickets.
//!
//! Invariants:
//! 1. A name appears in `lots/` with its first record: a file is filled under another name, then renamed.
//! 2. Every lot written since the last checkpoint is remembered with its length and inode, open or not.
//! 3. A descriptor with unsynced bytes is not closed before a checkpoint has synced it.

use std::collections::{HashMap, VecDeque};
use std::io;

use crate::storage::{Dir, Dirty, File, Storage, StorageError};

/// Suffix of a lot file.
pub const LOT_SUFFIX: &str = ".jsonl";
/// Suffix of a lot file before its first record is in it.
pub const FRESH_SUFFIX: &str = ".jsonl.new";

/// Suffix of the footer that closes a lot.
pub const SEAL_SUFFIX: &str = ".sealed";
/// Suffix of a footer before it counts.
pub const SEALING_SUFFIX: &str = ".sealed.new";

/// When a lot file began: what its name will be made of when it is rotated, and when that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its first batch's lsn.
    pub lsn: u64,
    /// Its first batch's timestamp, in microseconds since 1970.
    pub micros: i64,
}

impl Birth {
    /// Notes it down beside the file.
    pub(crate) fn note(self, file: &File) {
        file.set_note(&format!("{} {}", self.lsn, self.micros));
    }

    /// What is noted down beside a file. Not there on some file systems, and on copies.
    pub(crate) fn of(file: &File) -> Option<Birth> {
        let note = file.note()?;
        let (lsn, micros) = note.split_once(' ')?;
        Some(Birth { lsn: lsn.parse().ok()?, micros: micros.parse().ok()? })
    }
}

/// A lot, as long as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lot(usize);

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stem: Box<str>,
    pub(crate) file: Option<File>,
    /// Which file it is; `None` while it has no name yet.
    pub(crate) id: Option<(u64, u64)>,
    /// Its length, as we left it.
    pub(crate) bytes: u64,
    /// Its length when a checkpoint last took it, or it was met.
    pub(crate) taken: u64,
    /// Its length once everything journalled is in it.
    pub(crate) planned: u64,
    /// Holds bytes that no checkpoint has taken yet.
    pub(crate) dirty: bool,
    /// Used since the clock's hand last passed.
    pub(crate) recent: bool,
    /// The checkpoint round in which it was last written.
    pub(crate) round: u64,
    /// Recovery could not write it: what stands behind `bytes` may be a part of what is on its way.
    pub(crate) stranded: bool,
    /// Somebody else wrote into it while lotlogd did: the lengths are no longer what they should be.
    pub(crate) mixed: bool,
    /// It was said that its name is gone.
    pub(crate) renamed: bool,
}

/// What looking at a lot found.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// As we left it, or new.
    Ready(Lot),
    /// Somebody else has changed it.
    Changed(Lot, String),
    /// It cannot be opened.
    Unavailable(String),
    /// There is no space for a new file.
    NoSpace(String),
    /// An operator has closed it for good.
    Sealed,
}

/// Why an append stopped.
#[derive(Debug)]
pub enum Trouble {
    /// Somebody else has changed the file.
    Changed(String),
    /// It cannot be opened.
    Unavailable(String),
    /// No space, or another error of this file alone.
    Write(StorageError),
}

/// Something that the operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The lot's stem.
    pub stem: String,
    /// The copy, below DATA.
    pub copy: String,
    /// How many bytes.
    pub bytes: u64,
}

/// All lots that are remembered.
#[derive(Debug)]
pub struct Lots {
    pub(crate) storage: StorageRef,
    pub(crate) by_stem: HashMap<Box<str>, Lot>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<usize>,
    /// Lots with an open descriptor, in the order of the clock's hand.
    pub(crate) open: VecDeque<Lot>,
    most_open: usize,
    /// Descriptors that were closed as far as the cache is concerned, but hold unsynced bytes.
    pub(crate) evicted: VecDeque<File>,
    /// Descriptors closed to make room.
    evictions: u64,
    names_made: bool,
    round: u64,
    pub(crate) set_aside: Vec<SetAside>,
    /// The wall clock as it was last told, for notes.
    pub(crate) wall_micros: i64,
}

pub(crate) struct StorageRef(pub(crate) Storage);

impl std::fmt::Debug for StorageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storage")
    }
}

/// The file name of a lot.
pub fn file_name(stem: &str) -> String {
    format!("{stem}{LOT_SUFFIX}")
}

pub(crate) fn fresh_name(stem: &str) -> String {
    format!("{stem}{FRESH_SUFFIX}")
}

impl Lots {
    /// No lots yet; at most `most_open` descriptors.
    pub fn new(storage: Storage, most_open: usize) -> Lots {
        Lots {
            storage: StorageRef(storage),
            by_stem: HashMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            open: VecDeque::new(),
            most_open: most_open.max(4),
            evicted: VecDeque::new(),
            evictions: 0,
            names_made: false,
            round: 0,
            set_aside: Vec::new(),
            wall_micros: 0,
        }
    }

    /// Descriptors held, the evicted ones included.
    pub fn open_files(&self) -> usize {
        self.open.len() + self.evicted.len()
    }

    /// Descriptors closed to make room, since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Lots remembered.
    pub fn remembered(&self) -> usize {
        self.by_stem.len()
    }

    /// Whether so many evicted descriptors wait for their sync that a checkpoint should take them.
    pub fn wants_checkpoint(&self) -> bool {
        self.evicted.len() >= (self.most_open / 8).max(1)
    }

    /// Whether a quarter as many evicted descriptors wait as may be open: no lot is opened until they are synced.
    pub fn is_crowded(&self) -> bool {
        self.evicted.len() >= (self.most_open / 4).max(1)
    }

    /// Batches that name more lots than this between two syncs might evict their own: as many may wait for the sync
    /// under way, and twice as many be on their way to their files.
    pub fn most_lots_in_group(&self) -> usize {
        (self.most_open / 4).max(1)
    }

    /// Tells the time, for the notes of what is set aside.
    pub fn note_time(&mut self, wall_micros: i64) {
        self.wall_micros = wall_micros;
    }

    /// What was set aside since the last call.
    pub fn take_set_aside(&mut self) -> Vec<SetAside> {
        std::mem::take(&mut self.set_aside)
    }

    /// The lot's file stem.
    pub fn stem(&self, lot: Lot) -> &str {
        self.slot(lot).map_or("", |slot| &slot.stem)
    }

    pub(crate) fn slot(&self, lot: Lot) -> Option<&Slot> {
        self.slots.get(lot.0).and_then(Option::as_ref)
    }

    pub(crate) fn slot_mut(&mut self, lot: Lot) -> Option<&mut Slot> {
        self.slots.get_mut(lot.0).and_then(Option::as_mut)
    }

    pub(crate) fn remember(&mut self, stem: &str, id: Option<(u64, u64)>, bytes: u64) -> Lot {
        let slot = Slot {
            stem: stem.into(),
            file: None,
            id,
            bytes,
            taken: bytes,
            planned: bytes,
            dirty: false,
            recent: true,
            round: self.round,
            stranded: false,
            mixed: false,
            renamed: false,
        };
        let lot = match self.vacant.pop() {
            Some(at) => {
                self.slots[at] = Some(slot);
                Lot(at)
            }
            None => {
                self.slots.push(Some(slot));
                Lot(self.slots.len() - 1)
            }
        };
        self.by_stem.insert(stem.into(), lot);
        lot
    }

    pub(crate) fn forget(&mut self, lot: Lot) {
        if let Some(slot) = self.slots.get_mut(lot.0).and_then(Option::take) {
            self.by_stem.remove(&slot.stem);
            self.vacant.push(lot.0);
            if slot.file.is_some() {
                self.open.retain(|open| *open != lot);
            }
        }
    }

    pub(crate) fn hold(&mut self, lot: Lot, file: File) {
        if let Some(slot) = self.slot_mut(lot) {
            slot.file = Some(file);
            slot.recent = true;
            self.open.push_back(lot);
        }
    }

    /// Closes the descriptor that was not used for longest, by the clock's hand.
    pub(crate) fn make_room(&mut self) {
        let mut turns = self.open.len() * 2;
        while self.open.len() >= self.most_open && turns > 0 {
            turns -= 1;
            let Some(lot) = self.open.pop_front() else { return };
            let Some(slot) = self.slot_mut(lot) else { continue };
            // A file with batches on their way to it stays: so does one without a name.
            if slot.recent || slot.planned != slot.bytes || (slot.id.is_none() && slot.bytes > 0) {
                slot.recent = false;
                self.open.push_back(lot);
                continue;
            }
            let (file, dirty, unnamed) = (slot.file.take(), slot.dirty, slot.id.is_none());
            if unnamed {
                let name = fresh_name(&slot.stem);
                // An empty file without a name; the next recovery removes it if this fails.
                let _ = self.storage.0.unlink(Dir::Lots, &name);
                self.forget(lot);
            } else if dirty || file.as_ref().is_some_and(File::is_shared) {
                // One that a checkpoint under way holds is not closed either: it counts as long.
                self.evicted.extend(file);
            }
            self.evictions += 1;
        }
    }

    /// Reserves the next `bytes` of the lot for a batch; gives their offset.
    pub fn plan(&mut self, lot: Lot, bytes: u64) -> u64 {
        let Some(slot) = self.slot_mut(lot) else { return 0 };
        let offset = slot.planned;
        slot.planned += bytes;
        offset
    }

    /// The lot of this stem, if it is remembered.
    pub fn known(&self, stem: &str) -> Option<Lot> {
        self.by_stem.get(stem).copied()
    }

    /// Whether the lot of this stem has an open descriptor.
    pub fn is_open(&self, stem: &str) -> bool {
        self.known(stem).and_then(|lot| self.slot(lot)).is_some_and(|slot| slot.file.is_some())
    }

    /// Whether readers can see the file.
    pub fn is_named(&self, lot: Lot) -> bool {
        self.slot(lot).is_some_and(|slot| slot.id.is_some())
    }

    /// The lot's file, where it is open.
    pub(crate) fn file(&self, lot: Lot) -> Option<File> {
        self.slot(lot)?.file.clone()
    }

    /// How far the file has been written.
    pub fn written(&self, lot: Lot) -> u64 {
        self.slot(lot).map_or(0, |slot| slot.bytes)
    }

    /// Appends whole lines for which [`Lots::plan`] has reserved the place, and makes sure that they got there.
    ///
    /// # Errors
    /// [`Trouble::Write`]; what was written before counts as written. [`Trouble::Changed`] if the file was
    /// deleted meanwhile.
    pub fn append(&mut self, lot: Lot, bytes: &[u8], in_part: bool) -> Result<(), Trouble> {
        let round = self.round;
        let Some(slot) = self.slot_mut(lot) else { return Ok(()) };
        let Some(file) = slot.file.as_ref() else {
            return Err(Trouble::Changed("its descriptor is closed".to_owned()));
        };
        slot.dirty = true;
        slot.round = round;
        match file.write_all(slot.bytes, bytes) {
            Ok(()) => slot.bytes += bytes.len() as u64,
            Err((done, error)) => {
                slot.bytes += done;
                return Err(Trouble::Write(error));
            }
        }
        self.made_sure(lot, bytes, in_part)
    }

    /// Gives a new file its name, now that its first records are in it: `birth` is of the first of them.
    ///
    /// # Errors
    /// [`Trouble::Changed`] if somebody else has taken the name meanwhile.
    pub fn publish(&mut self, lot: Lot, birth: Option<Birth>) -> Result<(), Trouble> {
        let Some(slot) = self.slot(lot) else { return Ok(()) };
        let Some(file) = slot.file.as_ref().filter(|_| slot.id.is_none() && slot.bytes > 0) else {
            return Ok(());
        };
        let id = file.stat().map_err(Trouble::Write)?.id;
        if let Some(birth) = birth {
            birth.note(file);
        }
        let (from, to) = (fresh_name(&slot.stem), file_name(&slot.stem));
        match self.storage.0.rename(Dir::Lots, &from, &to, false) {
            Ok(()) => {}
            Err(e) if e.source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Trouble::Changed("somebody else made it".to_owned()));
            }
            Err(e) => return Err(Trouble::Write(e)),
        }
        self.names_made = true;
        let round = self.round;
        if let Some(slot) = self.slot_mut(lot) {
            // A name made in a later round than its bytes were written waits for that round's checkpoint too.
            (slot.dirty, slot.round) = (true, round);
            slot.id = Some(id);
            slot.file = slot.file.take().map(|file| file.renamed(Dir::Lots, &to));
        }
        Ok(())
    }

    /// Gives every file with unsynced bytes to a checkpoint, and whether names were made.
    pub fn take_dirty(&mut self) -> (VecDeque<Dirty>, VecDeque<File>, bool) {
        let mut files = VecDeque::new();
        for slot in self.slots.iter_mut().flatten() {
            if slot.dirty {
                slot.dirty = false;
                let from = std::mem::replace(&mut slot.taken, slot.bytes).min(slot.bytes);
                files.extend(slot.file.clone().map(|file| Dirty { file, from, bytes: slot.bytes }));
            }
        }
        self.round += 1;
        (files, std::mem::take(&mut self.evicted), std::mem::take(&mut self.names_made))
    }

    /// Forgets what a completed checkpoint has made needless: lots without a descriptor that were not written
    /// since that checkpoint began.
    pub fn prune(&mut self) {
        let round = self.round;
        let idle = |slot: &Slot| slot.file.is_none() && slot.planned == slot.bytes && slot.round < round;
        let gone: Vec<Lot> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.as_ref().is_some_and(idle))
            .map(|(at, _)| Lot(at))
            .collect();
        for lot in gone {
            self.forget(lot);
        }
    }

    /// Whether a checkpoint has covered all that was ever written to the lot, and nothing is on its way: no redo
    /// reaches back into it. Only while no checkpoint is under way.
    pub(crate) fn is_covered(&self, stem: &str) -> bool {
        let Some(slot) = self.known(stem).and_then(|lot| self.slot(lot)) else { return true };
        slot.planned == slot.bytes && !slot.dirty && !slot.stranded && slot.round < self.round
    }

    /// Closes all lots that have nothing on its way or without a name; they are opened by name when they are next used. Only
    /// right after a checkpoint.
    pub fn close_all(&mut self) {
        let named_or_empty = |slot: &Slot| slot.id.is_some() || slot.bytes == 0;
        let is_idle = |slot: &Slot| slot.planned == slot.bytes && !slot.dirty && named_or_empty(slot);
        let idle: Vec<Lot> =
            self.open.iter().copied().filter(|lot| self.slot(*lot).is_some_and(is_idle)).collect();
        for lot in idle {
            let Some(slot) = self.slots.get_mut(lot.0).and_then(Option::take) else { continue };
            if slot.id.is_none() {
                // An empty file without a name; the next recovery removes it if this fails.
                let _ = self.storage.0.unlink(Dir::Lots, &fresh_name(&slot.stem));
            }
            self.by_stem.remove(&slot.stem);
            self.vacant.push(lot.0);
        }
        let slots = &self.slots;
        self.open.retain(|lot| slots[lot.0].is_some());
    }
}

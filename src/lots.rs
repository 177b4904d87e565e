//! The lot files: names, open descriptors, appends. Knows what it believes each file to look like, and says
//! when somebody else has changed one. Knows nothing of frames and tickets.
//!
//! Invariants:
//! 1. A name appears in `lots/` with its first record: a file is filled under another name, then renamed.
//! 2. Every lot written since the last checkpoint is remembered with its length and inode, open or not.
//! 3. A descriptor with unsynced bytes is not closed before a checkpoint has synced it.

use std::collections::{HashMap, VecDeque};
use std::io;

use crate::quarantine;
use crate::storage::{Dir, File, How, Storage, StorageError};

/// Suffix of a lot file.
pub const LOT_SUFFIX: &str = ".jsonl";
/// Suffix of a lot file before its first record is in it.
pub const FRESH_SUFFIX: &str = ".jsonl.new";

/// A lot, as long as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lot(usize);

#[derive(Debug)]
struct Slot {
    stem: Box<str>,
    file: Option<File>,
    /// Which file it is; `None` while it has no name yet.
    id: Option<(u64, u64)>,
    /// Its length, as we left it.
    bytes: u64,
    /// Its length once everything journalled is in it.
    planned: u64,
    /// Holds bytes that no checkpoint has taken yet.
    dirty: bool,
    /// Used since the clock's hand last passed.
    recent: bool,
    /// The checkpoint round in which it was last written.
    round: u64,
    /// Recovery could not write it: what stands behind `bytes` may be a part of what is on its way.
    stranded: bool,
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
    storage: StorageRef,
    by_stem: HashMap<Box<str>, Lot>,
    slots: Vec<Option<Slot>>,
    vacant: Vec<usize>,
    /// Lots with an open descriptor, in the order of the clock's hand.
    open: VecDeque<Lot>,
    most_open: usize,
    /// Descriptors that were closed as far as the cache is concerned, but hold unsynced bytes.
    evicted: VecDeque<File>,
    names_made: bool,
    round: u64,
    set_aside: Vec<SetAside>,
}

struct StorageRef(Storage);

impl std::fmt::Debug for StorageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storage")
    }
}

/// The file name of a lot.
pub fn file_name(stem: &str) -> String {
    format!("{stem}{LOT_SUFFIX}")
}

fn fresh_name(stem: &str) -> String {
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
            names_made: false,
            round: 0,
            set_aside: Vec::new(),
        }
    }

    /// Descriptors held, the evicted ones included.
    pub fn open_files(&self) -> usize {
        self.open.len() + self.evicted.len()
    }

    /// Lots remembered.
    pub fn remembered(&self) -> usize {
        self.by_stem.len()
    }

    /// Whether so many evicted descriptors wait for their sync that a checkpoint should take them.
    pub fn wants_checkpoint(&self) -> bool {
        self.evicted.len() >= self.most_open / 2
    }

    /// A group that names more lots than this would evict its own.
    pub fn most_lots_in_group(&self) -> usize {
        (self.most_open / 2).max(1)
    }

    /// What was set aside since the last call.
    pub fn take_set_aside(&mut self) -> Vec<SetAside> {
        std::mem::take(&mut self.set_aside)
    }

    /// The lot's file stem.
    pub fn stem(&self, lot: Lot) -> &str {
        self.slot(lot).map_or("", |slot| &slot.stem)
    }

    fn slot(&self, lot: Lot) -> Option<&Slot> {
        self.slots.get(lot.0).and_then(Option::as_ref)
    }

    fn slot_mut(&mut self, lot: Lot) -> Option<&mut Slot> {
        self.slots.get_mut(lot.0).and_then(Option::as_mut)
    }

    /// Opens the lot if need be and compares it with what is known of it.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn look(&mut self, stem: &str) -> Result<Look, StorageError> {
        let Some(&lot) = self.by_stem.get(stem) else {
            return self.meet(stem);
        };
        let Some(slot) = self.slot_mut(lot) else { return self.meet(stem) };
        slot.recent = true;
        if slot.file.is_some() {
            return Ok(self.compare(lot).map_or(Look::Ready(lot), |why| Look::Changed(lot, why)));
        }
        self.reopen(lot)
    }

    /// Whether somebody else has changed an open file, and how.
    fn compare(&self, lot: Lot) -> Option<String> {
        let slot = self.slot(lot)?;
        match slot.file.as_ref()?.stat() {
            Err(error) => Some(error.to_string()),
            Ok(stat) if stat.links == 0 => Some("it was deleted".to_owned()),
            Ok(stat) if stat.bytes != slot.bytes => {
                Some(format!("it has {} bytes where lotlogd left {}", stat.bytes, slot.bytes))
            }
            Ok(_) => None,
        }
    }

    /// Opens again what was evicted.
    fn reopen(&mut self, lot: Lot) -> Result<Look, StorageError> {
        let Some(slot) = self.slot(lot) else { return Ok(Look::Unavailable("it was forgotten".to_owned())) };
        let (stem, id, bytes) = (slot.stem.clone(), slot.id, slot.bytes);
        let file = match self.open_existing(&stem) {
            Ok(Some(file)) => file,
            Ok(None) if id.is_none() && bytes == 0 => return self.make_fresh(lot),
            Ok(None) => return Ok(Look::Changed(lot, "it is gone".to_owned())),
            Err(error) => return self.refuse(error),
        };
        if self.slot(lot).is_some_and(|slot| slot.stranded) {
            return self.unstrand(lot, file);
        }
        let stat = file.stat()?;
        let why = match id {
            None => Some("somebody else made it".to_owned()),
            Some(id) if id != stat.id => Some("another file has its name".to_owned()),
            Some(_) if stat.bytes != bytes => {
                Some(format!("it has {} bytes where lotlogd left {bytes}", stat.bytes))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            return Ok(Look::Changed(lot, why));
        }
        self.hold(lot, file);
        Ok(Look::Ready(lot))
    }

    /// A lot that is not remembered: no redo reaches back into it, so its file is taken as it is.
    fn meet(&mut self, stem: &str) -> Result<Look, StorageError> {
        match self.open_existing(stem) {
            Ok(Some(file)) => {
                let bytes = self.without_loose_end(stem, &file)?;
                let id = file.stat()?.id;
                let lot = self.remember(stem, Some(id), bytes);
                self.hold(lot, file);
                Ok(Look::Ready(lot))
            }
            Ok(None) => {
                let lot = self.remember(stem, None, 0);
                let look = self.make_fresh(lot)?;
                if !matches!(look, Look::Ready(_)) {
                    self.forget(lot);
                }
                Ok(look)
            }
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&self, error: StorageError) -> Result<Look, StorageError> {
        if self.storage.0.failure().is_some() {
            return Err(error);
        }
        Ok(if error.is_no_space() {
            Look::NoSpace(error.to_string())
        } else {
            Look::Unavailable(error.to_string())
        })
    }

    fn open_existing(&mut self, stem: &str) -> Result<Option<File>, StorageError> {
        self.make_room();
        match self.storage.0.open(Dir::Lots, &file_name(stem), How::Append) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Begins a file under its other name, so that lack of permission or inodes shows before the journal
    /// has the batch.
    fn make_fresh(&mut self, lot: Lot) -> Result<Look, StorageError> {
        self.make_room();
        let name = fresh_name(self.stem(lot));
        self.storage.0.unlink(Dir::Lots, &name)?;
        match self.storage.0.open(Dir::Lots, &name, How::CreateAppend) {
            Ok(file) => {
                self.hold(lot, file);
                Ok(Look::Ready(lot))
            }
            Err(error) => self.refuse(error),
        }
    }

    fn remember(&mut self, stem: &str, id: Option<(u64, u64)>, bytes: u64) -> Lot {
        let slot = Slot {
            stem: stem.into(),
            file: None,
            id,
            bytes,
            planned: bytes,
            dirty: false,
            recent: true,
            round: self.round,
            stranded: false,
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

    fn forget(&mut self, lot: Lot) {
        if let Some(slot) = self.slots.get_mut(lot.0).and_then(Option::take) {
            self.by_stem.remove(&slot.stem);
            self.vacant.push(lot.0);
            if slot.file.is_some() {
                self.open.retain(|open| *open != lot);
            }
        }
    }

    fn hold(&mut self, lot: Lot, file: File) {
        if let Some(slot) = self.slot_mut(lot) {
            slot.file = Some(file);
            slot.recent = true;
            self.open.push_back(lot);
        }
    }

    /// Closes the descriptor that was not used for longest, by the clock's hand.
    fn make_room(&mut self) {
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
            } else if dirty {
                self.evicted.extend(file);
            }
        }
    }

    /// Reserves the next `bytes` of the lot for a batch; gives their offset.
    pub fn plan(&mut self, lot: Lot, bytes: u64) -> u64 {
        let Some(slot) = self.slot_mut(lot) else { return 0 };
        let offset = slot.planned;
        slot.planned += bytes;
        offset
    }

    /// Remembers a lot whose file cannot be opened, with batches on their way to it from `offset` on.
    pub fn strand(&mut self, stem: &str, offset: u64) -> Lot {
        if let Some(lot) = self.by_stem.get(stem) {
            return *lot;
        }
        let lot = self.remember(stem, None, offset);
        if let Some(slot) = self.slot_mut(lot) {
            slot.stranded = true;
        }
        lot
    }

    /// A stranded lot can be opened again. What stands behind its redo point may be a part of the batches
    /// that are on their way: it is set aside, and they are written whole.
    fn unstrand(&mut self, lot: Lot, file: File) -> Result<Look, StorageError> {
        let Some(slot) = self.slot_mut(lot) else {
            return Ok(Look::Unavailable("it was forgotten".to_owned()));
        };
        slot.stranded = false;
        let (stem, bytes) = (slot.stem.clone(), slot.bytes);
        let stat = file.stat()?;
        if stat.bytes < bytes {
            return Ok(Look::Changed(lot, format!("it has {} bytes where lotlogd left {bytes}", stat.bytes)));
        }
        if stat.bytes > bytes {
            let why =
                "It may be a part of batches that could not be written whole; they follow in the lot file.";
            let copy = quarantine::set_aside(&self.storage.0, &stem, &file, bytes, stat.bytes, why)?;
            file.truncate(bytes)?;
            self.set_aside.push(SetAside { stem: stem.to_string(), copy, bytes: stat.bytes - bytes });
        }
        if let Some(slot) = self.slot_mut(lot) {
            slot.id = Some(stat.id);
        }
        self.hold(lot, file);
        Ok(Look::Ready(lot))
    }

    /// How far the file has been written.
    pub fn written(&self, lot: Lot) -> u64 {
        self.slot(lot).map_or(0, |slot| slot.bytes)
    }

    /// Looks at an open lot again before an append.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn check(&mut self, lot: Lot) -> Result<(), Trouble> {
        if self.slot(lot).is_some_and(|slot| slot.file.is_none()) {
            match self.reopen(lot).map_err(Trouble::Write)? {
                Look::Ready(_) => {}
                Look::Changed(_, why) => return Err(Trouble::Changed(why)),
                Look::Unavailable(why) | Look::NoSpace(why) => return Err(Trouble::Unavailable(why)),
            }
        }
        self.compare(lot).map_or(Ok(()), |why| Err(Trouble::Changed(why)))
    }

    /// Appends bytes that [`Lots::plan`] has reserved.
    ///
    /// # Errors
    /// [`Trouble::Write`]; what was written before counts as written.
    pub fn append(&mut self, lot: Lot, bytes: &[u8]) -> Result<(), Trouble> {
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
        Ok(())
    }

    /// Gives a new file its name, now that its first records are in it.
    ///
    /// # Errors
    /// [`Trouble::Changed`] if somebody else has taken the name meanwhile.
    pub fn publish(&mut self, lot: Lot) -> Result<(), Trouble> {
        let Some(slot) = self.slot(lot) else { return Ok(()) };
        let Some(file) = slot.file.as_ref().filter(|_| slot.id.is_none() && slot.bytes > 0) else {
            return Ok(());
        };
        let id = file.stat().map_err(Trouble::Write)?.id;
        let (from, to) = (fresh_name(&slot.stem), file_name(&slot.stem));
        match self.storage.0.rename(Dir::Lots, &from, &to, false) {
            Ok(()) => {}
            Err(e) if e.source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Trouble::Changed("somebody else made it".to_owned()));
            }
            Err(e) => return Err(Trouble::Write(e)),
        }
        self.names_made = true;
        if let Some(slot) = self.slot_mut(lot) {
            slot.id = Some(id);
        }
        Ok(())
    }

    /// Takes a lot as it now is, after somebody else changed it: by its name, without a loose end. What was
    /// planned for it begins anew at its end. Only when a checkpoint has made sure that no redo reaches back.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn adopt(&mut self, lot: Lot) -> Result<Look, StorageError> {
        let Some(slot) = self.slot_mut(lot) else {
            return Ok(Look::Unavailable("it was forgotten".to_owned()));
        };
        let stem = slot.stem.clone();
        let unnamed = slot.id.is_none();
        let file = slot.file.take();
        let evict = file.filter(|_| slot.dirty);
        slot.dirty = false;
        slot.stranded = false;
        slot.id = None;
        (slot.bytes, slot.planned) = (0, 0);
        self.evicted.extend(evict);
        self.open.retain(|open| *open != lot);
        if unnamed {
            self.storage.0.unlink(Dir::Lots, &fresh_name(&stem))?;
        }
        match self.open_existing(&stem) {
            Ok(Some(file)) => {
                let bytes = self.without_loose_end(&stem, &file)?;
                let id = file.stat()?.id;
                if let Some(slot) = self.slot_mut(lot) {
                    slot.id = Some(id);
                    (slot.bytes, slot.planned) = (bytes, bytes);
                }
                self.hold(lot, file);
                Ok(Look::Ready(lot))
            }
            Ok(None) => self.make_fresh(lot),
            Err(error) => self.refuse(error),
        }
    }

    /// Sets a loose end without a newline aside; gives the length of the file without it.
    fn without_loose_end(&mut self, stem: &str, file: &File) -> Result<u64, StorageError> {
        let bytes = file.stat()?.bytes;
        let end = quarantine::last_line_end(file, bytes)?;
        if end < bytes {
            let why = "It was a line without an end, so the next record would have been glued to it.";
            let copy = quarantine::set_aside(&self.storage.0, stem, file, end, bytes, why)?;
            file.truncate(end)?;
            self.set_aside.push(SetAside { stem: stem.to_owned(), copy, bytes: bytes - end });
        }
        Ok(end)
    }

    /// Gives every file with unsynced bytes to a checkpoint, and whether names were made.
    pub fn take_dirty(&mut self) -> (VecDeque<File>, bool) {
        let mut files = std::mem::take(&mut self.evicted);
        for slot in self.slots.iter_mut().flatten() {
            if slot.dirty {
                slot.dirty = false;
                files.extend(slot.file.clone());
            }
        }
        self.round += 1;
        (files, std::mem::take(&mut self.names_made))
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

    /// Closes all lots that have nothing on its way; they are opened by name when they are next used. Only
    /// right after a checkpoint.
    pub fn close_all(&mut self) {
        let idle: Vec<Lot> = self
            .open
            .iter()
            .copied()
            .filter(|lot| self.slot(*lot).is_some_and(|slot| slot.planned == slot.bytes && !slot.dirty))
            .collect();
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

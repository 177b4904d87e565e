//! Other hands: looking at a lot file before it is used and after each append, and taking it as it is when
//! somebody else has changed it. Part of `lots`; never overwrites what it finds.

use std::io;

use crate::lots::{Look, Lot, Lots, SEAL_SUFFIX, SetAside, Trouble, file_name, fresh_name};
use crate::quarantine::{self, Piece};
use crate::storage::{Dir, File, How, StorageError};

/// How far back an append is searched for among what somebody else wrote at the same moment, in bytes.
const MIXED_BYTES: u64 = 1 << 20;
/// So often an append is mended into which somebody else keeps writing.
const MIXED_ROUNDS: usize = 8;

impl Lots {
    /// Opens the lot if need be and compares it with what is known of it.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn look(&mut self, stem: &str) -> Result<Look, StorageError> {
        self.look_at(stem).or_else(|error| self.refuse(error))
    }

    fn look_at(&mut self, stem: &str) -> Result<Look, StorageError> {
        let Some(&lot) = self.by_stem.get(stem) else {
            return self.meet(stem);
        };
        let Some(slot) = self.slot_mut(lot) else { return self.meet(stem) };
        slot.recent = true;
        if slot.file.is_some() {
            let why = self.compare(lot).or_else(|| self.compare_name(lot));
            return Ok(why.map_or(Look::Ready(lot), |why| Look::Changed(lot, why)));
        }
        self.reopen(lot)
    }

    /// Whether another file has the name of an open one. Where the name is gone, the renamed file goes on until
    /// SIGHUP: so rotation works without a moment that counts.
    fn compare_name(&mut self, lot: Lot) -> Option<String> {
        let slot = self.slot(lot)?;
        let id = slot.id?;
        // Where the question itself fails, the file that is open is still the right one as far as known.
        let there = self.storage.0.stat(Dir::Lots, &file_name(&slot.stem)).ok()?;
        let renamed = there.is_none();
        if renamed && !slot.renamed {
            tracing::warn!(
                lot = &*slot.stem,
                "a lot file was renamed: its records go on in the renamed file until SIGHUP"
            );
        }
        if let Some(slot) = self.slot_mut(lot) {
            slot.renamed = renamed;
        }
        there.filter(|stat| stat.id != id).map(|_| "another file has its name".to_owned())
    }

    /// Whether somebody else has changed an open file, and how.
    fn compare(&self, lot: Lot) -> Option<String> {
        let slot = self.slot(lot)?;
        match slot.file.as_ref()?.stat() {
            Err(error) => Some(error.to_string()),
            Ok(stat) if stat.links == 0 => Some("it was deleted".to_owned()),
            Ok(_) if slot.mixed => Some("somebody else wrote into it at the same moment".to_owned()),
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
            Ok(None) if id.is_none() => {
                // With a place in a file that is gone its batches must be placed anew: once there is a file.
                let look = self.make_fresh(lot)?;
                let moved = bytes > 0 && matches!(look, Look::Ready(_));
                return Ok(if moved { Look::Changed(lot, "it is gone".to_owned()) } else { look });
            }
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
            Some(_) if stat.bytes != bytes || self.slot(lot).is_some_and(|slot| slot.mixed) => {
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
        if self.storage.0.stat(Dir::Lots, &format!("{stem}{SEAL_SUFFIX}"))?.is_some() {
            return Ok(Look::Sealed);
        }
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
                let look = self.make_fresh(lot).or_else(|error| self.refuse(error))?;
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
        let stem = self.stem(lot).to_owned();
        if let Err(error) = self.clear_fresh(&stem) {
            return self.refuse(error);
        }
        let name = fresh_name(&stem);
        match self.storage.0.open(Dir::Lots, &name, How::CreateAppend) {
            Ok(file) => {
                self.hold(lot, file);
                Ok(Look::Ready(lot))
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Looks at an open lot again before an append.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn check(&mut self, lot: Lot) -> Result<(), Trouble> {
        if self.slot(lot).is_some_and(|slot| slot.file.is_none()) {
            match self.reopen(lot).or_else(|error| self.refuse(error)).map_err(Trouble::Write)? {
                Look::Ready(_) => {}
                Look::Changed(_, why) => return Err(Trouble::Changed(why)),
                Look::Sealed => return Err(Trouble::Unavailable("it is sealed".to_owned())),
                Look::Unavailable(why) | Look::NoSpace(why) => return Err(Trouble::Unavailable(why)),
            }
        }
        self.compare(lot).map_or(Ok(()), |why| Err(Trouble::Changed(why)))
    }

    /// Looks at an open lot again after an append. What somebody else wrote between two looks may stand before
    /// whole lines, without an end: then they are taken back, that end is set aside, and they are written again.
    /// The next look finds the lot changed. Somebody who appends between the reading and the cutting here loses
    /// what was appended: nothing in Linux cuts a file only if it has a length.
    pub(crate) fn made_sure(&mut self, lot: Lot, mut lines: &[u8], in_part: bool) -> Result<(), Trouble> {
        let Some(slot) = self.slot(lot) else { return Ok(()) };
        let (Some(file), expected, stem) = (slot.file.clone(), slot.bytes, slot.stem.clone()) else {
            return Ok(());
        };
        for _ in 0..MIXED_ROUNDS {
            let stat = file.stat().map_err(Trouble::Write)?;
            let mixed = self.slot(lot).is_some_and(|slot| slot.mixed);
            if stat.links == 0 {
                return Err(Trouble::Changed("it was deleted".to_owned()));
            }
            if stat.bytes == expected && !mixed {
                return Ok(());
            }
            if in_part && !mixed {
                // The rest of a line is nothing by itself: its batch is placed anew.
                return Err(Trouble::Changed("somebody else wrote into it at the same moment".to_owned()));
            }
            if let Some(slot) = self.slot_mut(lot) {
                slot.mixed = true;
            }
            let from = stat.bytes.saturating_sub(lines.len() as u64 + MIXED_BYTES);
            let mut there = vec![0; usize::try_from(stat.bytes - from).unwrap_or(usize::MAX)];
            let got = file.read_full(from, &mut there).map_err(Trouble::Write)?;
            there.truncate(got);
            let found = memchr::memmem::rfind(&there, lines);
            match found {
                Some(at) if from + at as u64 == 0 || (at > 0 && there[at - 1] == b'\n') => return Ok(()),
                Some(at) if at + lines.len() == there.len() => match file.truncate(from + at as u64) {
                    Ok(()) => self.count(lot, expected - lines.len() as u64),
                    Err(error) if self.storage.0.failure().is_some() => return Err(Trouble::Write(error)),
                    // It may only be appended to.
                    Err(_) => lines = first_line(lines),
                },
                // Somebody else's bytes stand on both sides: the first line, which cannot be read, is written again.
                Some(_) => lines = first_line(lines),
                None => self.count(lot, expected - lines.len() as u64),
            }
            let end = self.without_loose_end(&stem, &file).map_err(Trouble::Write)?;
            if let Err((done, error)) = file.write_all(0, lines) {
                if done > 0 {
                    file.truncate(end).map_err(Trouble::Write)?;
                }
                return Err(Trouble::Write(error));
            }
            self.count(lot, expected);
        }
        tracing::error!(
            lot = &*stem,
            "somebody else keeps writing into a lot file: records of lotlogd may stand behind bytes of theirs on one line"
        );
        Ok(())
    }

    /// Takes back what stands in the file from `from` on, where batches begin that are placed anew. Not where
    /// somebody else's bytes stand before that: then nobody knows the place.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn take_back(&mut self, lot: Lot, from: u64) -> Result<(), StorageError> {
        let Some(slot) = self.slot(lot).filter(|slot| slot.bytes > from && !slot.mixed) else {
            return Ok(());
        };
        let (Some(file), stem) = (slot.file.clone(), slot.stem.clone()) else { return Ok(()) };
        let cut = file.stat().and_then(|stat| {
            if stat.links == 0 || stat.bytes <= from {
                return Ok(());
            }
            let why = "It held a part of batches that could not be written whole, with somebody else's bytes behind it; they follow in the lot file.";
            self.aside(&stem, &file_name(&stem), &file, (from, stat.bytes), why)?;
            file.truncate(from)
        });
        match cut {
            Err(error) if self.storage.0.failure().is_some() => Err(error),
            _ => Ok(()),
        }
    }

    /// So much of the lot is in its file.
    fn count(&mut self, lot: Lot, bytes: u64) {
        if let Some(slot) = self.slot_mut(lot) {
            slot.bytes = bytes;
        }
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
        let (stem, bytes) = (slot.stem.clone(), slot.bytes);
        let stat = file.stat()?;
        if stat.bytes < bytes {
            return Ok(Look::Changed(lot, format!("it has {} bytes where lotlogd left {bytes}", stat.bytes)));
        }
        if stat.bytes > bytes {
            let why =
                "It may be a part of batches that could not be written whole; they follow in the lot file.";
            self.aside(&stem, &file_name(&stem), &file, (bytes, stat.bytes), why)?;
            file.truncate(bytes)?;
        }
        if let Some(slot) = self.slot_mut(lot) {
            slot.stranded = false;
            slot.id = Some(stat.id);
        }
        self.hold(lot, file);
        Ok(Look::Ready(lot))
    }

    /// Takes a lot as it now is, after somebody else changed it: by its name, without a loose end. What was
    /// planned for it begins anew at its end. Only when a checkpoint has made sure that no redo reaches back.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn adopt(&mut self, lot: Lot) -> Result<Look, StorageError> {
        self.take_as_it_is(lot).or_else(|error| self.refuse(error))
    }

    fn take_as_it_is(&mut self, lot: Lot) -> Result<Look, StorageError> {
        let Some(slot) = self.slot_mut(lot) else {
            return Ok(Look::Unavailable("it was forgotten".to_owned()));
        };
        let stem = slot.stem.clone();
        // Ours, under its other name. One that could not be made again has no file, and keeps its place.
        let unnamed = slot.id.is_none() && slot.file.is_some();
        let file = slot.file.take();
        let evict = file.filter(|_| slot.dirty);
        slot.dirty = false;
        slot.stranded = false;
        slot.mixed = false;
        slot.id = None;
        if unnamed {
            slot.bytes = 0;
        }
        // While it cannot be used, what it held before keeps its place: it may be brought back.
        slot.planned = slot.bytes;
        let before = slot.bytes;
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
            Ok(None) => {
                let look = self.make_fresh(lot).or_else(|error| self.refuse(error))?;
                let bytes = if matches!(look, Look::Ready(_)) { 0 } else { before };
                if let Some(slot) = self.slot_mut(lot) {
                    (slot.bytes, slot.planned) = (bytes, bytes);
                }
                Ok(look)
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Sets a loose end without a newline aside; gives the length of the file without it.
    fn without_loose_end(&mut self, stem: &str, file: &File) -> Result<u64, StorageError> {
        let bytes = file.stat()?.bytes;
        let end = quarantine::last_line_end(file, bytes)?;
        if end < bytes {
            let why = "It was a line without an end, so the next record would have been glued to it.";
            self.aside(stem, &file_name(stem), file, (end, bytes), why)?;
            file.truncate(end)?;
        }
        Ok(end)
    }

    fn aside(
        &mut self,
        stem: &str,
        name: &str,
        file: &File,
        (from, to): (u64, u64),
        why: &str,
    ) -> Result<(), StorageError> {
        let piece = Piece { stem, name, file, from, to, why, wall_micros: self.wall_micros };
        let copy = quarantine::set_aside(&self.storage.0, piece)?;
        self.set_aside.push(SetAside { stem: stem.to_owned(), copy, bytes: to - from });
        Ok(())
    }

    /// Removes what has the name of an unfinished lot file. One of ours is empty.
    fn clear_fresh(&mut self, stem: &str) -> Result<(), StorageError> {
        let name = fresh_name(stem);
        if self.storage.0.stat(Dir::Lots, &name)?.is_some_and(|stat| stat.bytes > 0 || !stat.regular) {
            let file = self.storage.0.open(Dir::Lots, &name, How::Read)?;
            let bytes = file.stat()?.bytes;
            self.aside(stem, &name, &file, (0, bytes), quarantine::TOOK_A_FRESH_NAME)?;
        }
        self.storage.0.unlink(Dir::Lots, &name)
    }
}

fn first_line(lines: &[u8]) -> &[u8] {
    &lines[..memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1)]
}

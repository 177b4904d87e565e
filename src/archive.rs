//! `archive/`: what a lot's finished files are called, and how they get there. A file is moved in one step, and both
//! directories are synced before anything else happens to its lot. Knows nothing of what is due, or why.
//!
//! Between the move and those syncs `journal/rotating` names what is moved: a start that finds it makes the moves
//! durable before it takes a batch, because a batch for a new file of the lot must never meet the old one in its place.

use std::io;

use crate::lots;
use crate::rebase::{parse_lines, write_lines};
use crate::storage::{Dir, How, Storage, StorageError};

/// The archive below DATA.
pub const ARCHIVE_DIR: &str = "archive";
/// What the directory of a lot's files begins with: `archive/lot=<stem>`.
pub const LOT_DIR_PREFIX: &str = "lot=";
/// Suffix of a file as it was moved.
pub const PLAIN_SUFFIX: &str = ".jsonl";
/// Suffix of a compressed one.
pub const PACKED_SUFFIX: &str = ".jsonl.zst";
/// Names what is being moved.
pub const ROTATING_NAME: &str = "rotating";
/// So often a lot's archive is listed again where it has changed meanwhile.
const LISTINGS: usize = 100;
/// Digits of a file's number: any of 64 bits, so that names sort as numbers do.
const DIGITS: usize = 20;

/// The directory of a lot's files, below `archive/`.
pub fn lot_dir(stem: &str) -> String {
    format!("{LOT_DIR_PREFIX}{stem}")
}

/// The name of a file once it is compressed.
pub fn packed_name(number: u64) -> String {
    format!("{number:0DIGITS$}{PACKED_SUFFIX}")
}

/// The name of a file, as it was moved: the lsn of its first batch, or a number behind the file before it.
pub fn plain_name(number: u64) -> String {
    format!("{number:0DIGITS$}{PLAIN_SUFFIX}")
}

/// The number in the name of an archived file.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(PLAIN_SUFFIX).or_else(|| name.strip_suffix(PACKED_SUFFIX))?;
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A file on its way into the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The lot.
    pub stem: String,
    /// The number that it gets.
    pub number: u64,
}

impl Move {
    /// Its place below `archive/`.
    pub fn place(&self) -> String {
        format!("{}/{}", lot_dir(&self.stem), plain_name(self.number))
    }
}

/// The numbers of a lot's archived files, oldest first. Listed until two listings in a row agree: one alone may miss a
/// file that is compressed meanwhile, its new name not yet there when that place was read, and its old one gone.
///
/// # Errors
/// Of `list`; a directory that is not there has no files.
pub fn settled_numbers(mut list: impl FnMut() -> io::Result<Vec<u64>>) -> io::Result<Vec<u64>> {
    let mut look = || match list() {
        Ok(mut numbers) => {
            numbers.sort_unstable();
            numbers.dedup();
            Ok(numbers)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut before = look()?;
    for _ in 0..LISTINGS {
        let now = look()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "its files change faster than they can be listed"))
}

/// Whether any lot's file was ever moved there; one that cannot be listed tells nothing.
pub fn has_lots(storage: &Storage) -> bool {
    let names = storage.names(Dir::Archive).unwrap_or_default();
    names.iter().any(|name| name.starts_with(LOT_DIR_PREFIX))
}

/// The numbers of a lot's archived files, oldest first.
///
/// # Errors
/// Of the storage.
pub fn numbers(storage: &Storage, stem: &str) -> Result<Vec<u64>, StorageError> {
    let dir = lot_dir(stem);
    storage.ask(
        || format!("listing of archive/{dir}"),
        |disk| {
            settled_numbers(|| {
                let names = disk.list(Dir::Archive, Some(&dir))?;
                Ok(names.iter().filter_map(|name| number_of(name)).collect())
            })
        },
    )
}

/// Opens an archived file to read what was in it before it was archived; gives its name below DATA too.
///
/// # Errors
/// Of the storage.
pub fn read(storage: &Storage, place: &str) -> Result<(Box<dyn io::Read + Send>, String), StorageError> {
    match storage.open(Dir::Archive, place, How::Read) {
        Ok(file) => Ok((file.reader(), format!("{ARCHIVE_DIR}/{place}"))),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            let place = place.strip_suffix(PLAIN_SUFFIX).unwrap_or(place).to_owned() + PACKED_SUFFIX;
            let file = storage.open(Dir::Archive, &place, How::Read)?;
            Ok((unpack(file.reader(), &place)?, format!("{ARCHIVE_DIR}/{place}")))
        }
        Err(error) => Err(error),
    }
}

/// What was compressed.
///
/// # Errors
/// When there is no memory for it.
pub fn unpack(
    packed: impl io::Read + Send + 'static,
    place: &str,
) -> Result<Box<dyn io::Read + Send>, StorageError> {
    match zstd::stream::read::Decoder::new(packed) {
        Ok(decoder) => Ok(Box::new(decoder)),
        Err(source) => Err(StorageError { what: format!("reading of archive/{place}"), source }),
    }
}

/// Makes the directories that these moves need, durably.
///
/// # Errors
/// Of the storage.
pub fn make_dirs(storage: &Storage, moves: &[Move]) -> Result<(), StorageError> {
    let make = |dir: Dir, name: &str| {
        storage.change(|| format!("making of DATA/{}{name}", dir.prefix()), |disk| disk.make_dir(dir, name))
    };
    // One that is there may have been made by a start that died before its sync.
    make(Dir::Data, ARCHIVE_DIR)?;
    for moved in moves {
        make(Dir::Archive, &lot_dir(&moved.stem))?;
    }
    storage.sync_dir(Dir::Archive)?;
    storage.sync_dir(Dir::Data)
}

/// Says, durably, what is about to be moved.
///
/// # Errors
/// Of the storage.
pub fn announce(storage: &Storage, moves: &[Move]) -> Result<(), StorageError> {
    write_lines(storage, ROTATING_NAME, "moves", moves.iter().map(|m| (m.stem.as_str(), m.number)))
}

/// Moves one file. What cannot be moved stays where it is.
///
/// # Errors
/// Of the storage.
pub fn carry_out(storage: &Storage, moved: &Move) -> Result<(), StorageError> {
    let (from, to) = (lots::file_name(&moved.stem), moved.place());
    storage.change(|| format!("rename of lots/{from} to archive/{to}"), |disk| disk.archive(&from, &to))
}

/// Makes the moves durable: where the files are before where they are no more.
///
/// # Errors
/// Of the storage: the disk has failed.
pub fn settle(storage: &Storage, moves: &[Move]) -> Result<(), StorageError> {
    for moved in moves {
        storage.sync_below(Dir::Archive, Some(&lot_dir(&moved.stem)))?;
    }
    storage.sync_dir(Dir::Lots)
}

/// Forgets what was announced. Come back after a power cut it changes nothing.
///
/// # Errors
/// Of the storage.
pub fn conclude(storage: &Storage) -> Result<(), StorageError> {
    storage.unlink(Dir::Journal, ROTATING_NAME)
}

/// What a start does about moves that a crash may have left half done: those that were made are made durable.
///
/// # Errors
/// Of the storage.
pub fn finish(storage: &Storage) -> Result<(), StorageError> {
    let Some(announced) = parse_lines(storage, ROTATING_NAME, |head| head == "moves")? else { return Ok(()) };
    let mut made = Vec::new();
    for (stem, number) in announced {
        let moved = Move { stem, number };
        let Some(there) = storage.stat(Dir::Archive, &moved.place())? else { continue };
        let name = lots::file_name(&moved.stem);
        // Some file systems make a name and remove the other in two steps.
        if storage.stat(Dir::Lots, &name)?.is_some_and(|stat| stat.id == there.id) {
            storage.sync_below(Dir::Archive, Some(&lot_dir(&moved.stem)))?;
            storage.unlink(Dir::Lots, &name)?;
        }
        made.push(moved);
    }
    if !made.is_empty() {
        tracing::info!(files = made.len(), "files that were on their way into the archive are there");
        storage.sync_dir(Dir::Archive)?;
        storage.sync_dir(Dir::Data)?;
        settle(storage, &made)?;
    }
    conclude(storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_missed_a_file_while_it_was_compressed_is_made_again() {
        let mut listings = vec![vec![3, 1, 2, 2], vec![1, 2, 3], vec![1, 3]];
        assert_eq!(settled_numbers(|| Ok(listings.pop().unwrap())).unwrap(), [1, 2, 3]);
        let mut count = 0;
        let always_other = || {
            count += 1;
            Ok(vec![count])
        };
        assert!(settled_numbers(always_other).is_err());
        assert_eq!(settled_numbers(|| Err(io::ErrorKind::NotFound.into())).unwrap(), Vec::<u64>::new());
    }
}

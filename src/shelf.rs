//! A lot's files as a reader finds them: the archived ones, oldest first, then the one in `lots/`. Each record once,
//! also while the daemon moves files between the two places. Changes nothing; knows nothing of what is in them.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::archive::{
    ARCHIVE_DIR, LOT_DIR_PREFIX, lot_dir, number_of, packed_name, plain_name, settled_numbers, unpack,
};
use crate::batch::decode_stem;
use crate::lots::{LOT_SUFFIX, SEAL_SUFFIX, file_name};

/// So often the two places are looked at again where a file was moved between the looks.
const LOOKS: usize = 100;

/// The files of one lot, as they were at one moment.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    /// The numbers of the archived files, oldest first. One may be gone when it is opened: retention.
    pub archived: Vec<u64>,
    /// The file in `lots/`, if there is one.
    pub live: Option<File>,
}

/// An archived file.
pub struct Archived {
    /// What is in it, not compressed.
    pub content: Box<dyn Read + Send>,
    /// Its path.
    pub path: PathBuf,
}

/// The lots that have a file, in either place.
///
/// # Errors
/// When `lots/` cannot be read; an archive need not be there.
pub fn stems(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(data_dir.join("lots"))? {
        let name = entry?.file_name();
        stems.extend(name.to_str().and_then(|name| name.strip_suffix(LOT_SUFFIX)).map(str::to_owned));
    }
    match fs::read_dir(data_dir.join(ARCHIVE_DIR)) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                stems.extend(
                    name.to_str().and_then(|name| name.strip_prefix(LOT_DIR_PREFIX)).map(str::to_owned),
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    stems.retain(|stem| decode_stem(stem).is_some());
    stems.sort_unstable();
    stems.dedup();
    Ok(stems)
}

/// Opens what a lot has. `lots/` first, then the archive is listed, then `lots/` is looked at again: if the same file
/// is there still, none was moved meanwhile.
///
/// # Errors
/// When something cannot be opened; `InvalidInput` where no regular file has the lot's name.
pub fn open(data_dir: &Path, stem: &str) -> io::Result<Shelf> {
    let path = data_dir.join("lots").join(file_name(stem));
    let dir = data_dir.join(ARCHIVE_DIR).join(lot_dir(stem));
    for _ in 0..LOOKS {
        let live = match open_regular(&path) {
            Ok(live) => Some(live),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let archived = numbers(&dir)?;
        let held = live.as_ref().map(File::metadata).transpose()?;
        let there = match fs::symlink_metadata(&path) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if held.as_ref().map(id_of) == there.as_ref().map(id_of) {
            return Ok(Shelf { dir, archived, live });
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "its file is moved faster than it can be opened"))
}

/// The footer of a lot, if it is sealed.
///
/// # Errors
/// When it cannot be read.
pub fn footer(data_dir: &Path, stem: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(data_dir.join("lots").join(format!("{stem}{SEAL_SUFFIX}"))) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Shelf {
    /// Whether the lot has no file at all.
    pub fn is_empty(&self) -> bool {
        self.live.is_none() && self.archived.is_empty()
    }

    /// Where an archived file is, for messages.
    pub fn path_of(&self, number: u64) -> PathBuf {
        let plain = self.dir.join(plain_name(number));
        if plain.symlink_metadata().is_ok() { plain } else { self.dir.join(packed_name(number)) }
    }

    /// Opens an archived file; `None` where it has been removed meanwhile.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn archived(&self, number: u64) -> io::Result<Option<Archived>> {
        // The compressed one is there before the plain one goes.
        let path = self.dir.join(plain_name(number));
        match open_regular(&path) {
            Ok(file) => return Ok(Some(Archived { content: Box::new(file), path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let path = self.dir.join(packed_name(number));
        match open_regular(&path) {
            Ok(file) => {
                let content = unpack(file, &packed_name(number)).map_err(|error| error.source)?;
                Ok(Some(Archived { content, path }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    settled_numbers(|| {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(dir)? {
            numbers.extend(entry?.file_name().to_str().and_then(number_of));
        }
        Ok(numbers)
    })
}

fn id_of(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Opens a file to read; what is no regular one (a FIFO would keep its reader waiting), or a link, is refused.
///
/// # Errors
/// When it cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"));
        }
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

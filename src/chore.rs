//! Work on finished files, as the vault's helpers see it: something that is done a part at a time, and what it can come
//! to. Knows nothing of the work itself.

use crate::storage::{Storage, StorageError};

/// Work on finished files of a lot, done a part at a time.
pub trait Chore: Send + std::fmt::Debug {
    /// The lot.
    fn stem(&self) -> &str;
    /// Does a part; gives what it came to at its end.
    ///
    /// # Errors
    /// Of the storage: the rest is not done.
    fn step(&mut self, storage: &Storage) -> Result<Option<Chored>, StorageError>;
}

/// What a chore came to.
#[derive(Debug)]
pub enum Chored {
    /// A lot is sealed.
    Sealed {
        /// The lot.
        stem: Box<str>,
        /// Its records.
        records: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A round over the archive, or over a few of its files, is over.
    Kept {
        /// It was over all of it.
        all: bool,
        /// Files that were removed.
        removed: u64,
        /// Lots whose files are old enough to be rotated.
        old: Vec<Box<str>>,
    },
    /// It could not be done.
    NotDone {
        /// The lot.
        stem: Box<str>,
        /// Why.
        why: StorageError,
    },
}

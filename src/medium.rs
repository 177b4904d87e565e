//! What a disk must be able to do for the vault: a narrow trait over directories and files. `disk` has the real one,
//! tests have others. Knows nothing of failures, nor of what is stored.

use std::io;

/// The directories of DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// DATA itself.
    Data,
    /// `lots/`
    Lots,
    /// `journal/`
    Journal,
    /// `quarantine/`
    Quarantine,
    /// `archive/`, made when it is first needed; files in it have names with their directory, `lot=A/NAME`.
    Archive,
}

impl Dir {
    /// The directory below DATA, with a trailing slash, for messages.
    pub fn prefix(self) -> &'static str {
        match self {
            Dir::Data => "",
            Dir::Lots => "lots/",
            Dir::Journal => "journal/",
            Dir::Quarantine => "quarantine/",
            Dir::Archive => "archive/",
        }
    }
}

/// How to open a file. Never through a symbolic link, never anything but a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Reading only.
    Read,
    /// An existing file, each write going to its end.
    Append,
    /// A file that must not exist yet, each write going to its end.
    CreateAppend,
    /// Written at given offsets; made if it does not exist.
    Write,
    /// Written at given offsets; made new, emptied if it exists.
    Replace,
}

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub bytes: u64,
    /// Device and inode: which file it is.
    pub id: (u64, u64),
    /// Names it has; 0 once deleted.
    pub links: u64,
    /// Whether it is a regular file.
    pub regular: bool,
    /// When it was last written, in seconds since 1970.
    pub modified_seconds: i64,
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Writes at an offset (on a file opened for appending: at the end); may write less than asked.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Reads at an offset; 0 at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Asks the kernel to begin writing these bytes to the disk, and waits for nothing: a sync that comes later has less
    /// to do.
    fn begin_write_back(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// Cuts or extends to a length.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Allocates blocks up to a length.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// `fstat`.
    fn stat(&self) -> io::Result<Stat>;
    /// Asks the kernel to forget its cached pages, so that the next read comes from the disk.
    fn drop_cache(&self) -> io::Result<()>;
    /// Sets when it was last written, in seconds since 1970.
    fn set_modified(&self, _seconds: i64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Notes something down beside the file's content, where the file system can.
    fn set_note(&self, _note: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// What was noted down.
    fn note(&self) -> io::Result<Option<String>> {
        Ok(None)
    }
}

/// A disk, as far as the vault needs one.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, dir: Dir, name: &str, how: How) -> io::Result<Box<dyn DiskFile>>;
    /// `lstat` of a name; `None` where there is nothing.
    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>>;
    /// The names in a directory; with `sub` in a directory below it.
    fn list(&self, dir: Dir, sub: Option<&str>) -> io::Result<Vec<String>>;
    /// Makes a directory; `false` where it is there already.
    fn make_dir(&self, dir: Dir, name: &str) -> io::Result<bool>;
    /// Moves a file from `lots/` to its place below `archive/`, in one step; fails with `AlreadyExists` where
    /// something has that name.
    fn archive(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames within a directory; with `replace` over an existing name, else fails with `AlreadyExists`.
    fn rename(&self, dir: Dir, from: &str, to: &str, replace: bool) -> io::Result<()>;
    /// Removes a name.
    fn unlink(&self, dir: Dir, name: &str) -> io::Result<()>;
    /// Syncs a directory, or with `sub` one below it: the names in it become durable.
    fn sync_dir(&self, dir: Dir, sub: Option<&str>) -> io::Result<()>;
    /// Bytes that may still be written to the file system of a directory.
    fn free_bytes(&self, dir: Dir) -> io::Result<u64>;
    /// The identity of the running kernel.
    fn boot_id(&self) -> String;
    /// Fails where DATA's path no longer leads to these directories.
    fn check_place(&self) -> io::Result<()> {
        Ok(())
    }
}

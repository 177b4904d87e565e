//! The disk seam: a disk ([`Disk`]) behind the latch that makes the first failure the last. Everything the vault does to a disk goes through [`Storage`]; `disk` has the real one, tests have
//! others. Knows nothing of frames, lots or records.
//!
//! The latch ("fail-stop"): any error of a sync or truncate, any of a rename but a lack of space, and `EIO` or `EROFS`
//! from a write, is remembered here, once. From then on every call that would change the disk fails. A sync is never
//! retried: on Linux the second one succeeds and the data is gone. A rename that finds no space has changed nothing:
//! ext4, xfs and btrfs ask for what it needs before they begin.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::medium::{Dir, Disk, DiskFile, How, Stat};
use crate::metrics::Metrics;

/// Most bytes handed to the kernel in one write: a kill tears larger ones.
pub const WRITE_BYTES: usize = 1 << 20;

/// A storage error, naming the call, the file and what the system said.
#[derive(Debug)]
pub struct StorageError {
    /// The call and the file, e.g. `sync of journal/0000000000000001.wal`.
    pub what: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for StorageError {}

impl StorageError {
    /// Disk full or quota exceeded: goes away by itself when somebody makes room.
    pub fn is_no_space(&self) -> bool {
        is_no_space(&self.source)
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// `EIO` or `EROFS`: the disk itself has failed.
fn is_disk_failure(error: &io::Error) -> bool {
    const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
    error.raw_os_error() == Some(EIO) || error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

/// The failure latch.
#[derive(Debug, Default)]
struct Latch {
    failed: AtomicBool,
    first: Mutex<Option<String>>,
}

impl Latch {
    fn close(&self, error: &StorageError) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(error.to_string());
            self.failed.store(true, Ordering::SeqCst);
        }
    }

    fn check(&self, what: impl FnOnce() -> String) -> Result<(), StorageError> {
        if !self.failed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = first.as_deref().unwrap_or("an earlier error");
        Err(StorageError { what: what(), source: io::Error::other(format!("not tried after {cause}")) })
    }
}

/// A disk behind the latch.
#[derive(Clone)]
pub struct Storage {
    disk: Arc<dyn Disk>,
    latch: Arc<Latch>,
    /// Its own failures close no latch.
    apart: bool,
    metrics: Arc<Metrics>,
}

impl Storage {
    /// Puts a disk behind a new latch.
    pub fn new(disk: Arc<dyn Disk>, metrics: Arc<Metrics>) -> Storage {
        Storage { disk, latch: Arc::default(), apart: false, metrics }
    }

    /// The same disk, for files that nothing depends on (a copy that is made of what is kept until the copy is good):
    /// what fails there is its caller's alone. It ends with the first failure of anything else.
    pub fn apart(&self) -> Storage {
        Storage { apart: true, ..self.clone() }
    }

    /// The daemon's counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The first failure, if there was one.
    pub fn failure(&self) -> Option<String> {
        self.latch.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails once the disk has failed.
    pub fn check(&self) -> Result<(), StorageError> {
        self.latch.check(|| "answer".to_owned())
    }

    fn progressed(&self) {
        self.metrics.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Opens a file.
    pub fn open(&self, dir: Dir, name: &str, how: How) -> Result<File, StorageError> {
        let path: Arc<str> = format!("{}{name}", dir.prefix()).into();
        if how != How::Read {
            self.latch.check(|| format!("open of {path}"))?;
        }
        let file = retry(|| self.disk.open(dir, name, how));
        self.progressed();
        match file {
            Ok(file) => Ok(File { file: file.into(), path, storage: self.clone() }),
            Err(source) => Err(self.write_failed(format!("open of {path}"), source)),
        }
    }

    /// `lstat` of a name.
    pub fn stat(&self, dir: Dir, name: &str) -> Result<Option<Stat>, StorageError> {
        retry(|| self.disk.stat(dir, name))
            .map_err(|source| StorageError { what: format!("look at {}{name}", dir.prefix()), source })
    }

    /// The names in a directory, sorted.
    pub fn list(&self, dir: Dir) -> Result<Vec<String>, StorageError> {
        let mut names = self.names(dir)?;
        names.sort_unstable();
        Ok(names)
    }

    /// The names in a directory in any order: of very many, sorting takes longer than reading them.
    pub fn names(&self, dir: Dir) -> Result<Vec<String>, StorageError> {
        retry(|| self.disk.list(dir, None))
            .map_err(|source| StorageError { what: format!("listing of {}", dir.prefix()), source })
    }

    /// A call that changes the disk and may fail for its own reasons: latched only if the disk has failed.
    pub(crate) fn change<T>(
        &self,
        what: impl Fn() -> String,
        mut call: impl FnMut(&dyn Disk) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        self.latch.check(&what)?;
        let result = retry(|| call(&*self.disk));
        self.progressed();
        result.map_err(|source| self.write_failed(what(), source))
    }

    /// A call that only asks.
    pub(crate) fn ask<T>(
        &self,
        what: impl Fn() -> String,
        mut call: impl FnMut(&dyn Disk) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        retry(|| call(&*self.disk)).map_err(|source| StorageError { what: what(), source })
    }

    /// Renames within a directory. Any failure but "already exists" without `replace`, and a lack of space, is latched.
    pub fn rename(&self, dir: Dir, from: &str, to: &str, replace: bool) -> Result<(), StorageError> {
        let what = || format!("rename of {}{from} to {to}", dir.prefix());
        self.latch.check(what)?;
        let result = retry(|| self.disk.rename(dir, from, to, replace));
        self.progressed();
        result.map_err(|source| {
            let exists = !replace && source.kind() == io::ErrorKind::AlreadyExists;
            if exists || is_no_space(&source) {
                StorageError { what: what(), source }
            } else {
                self.failed(what(), source)
            }
        })
    }

    /// Removes a name; nothing there is fine.
    pub fn unlink(&self, dir: Dir, name: &str) -> Result<(), StorageError> {
        let what = || format!("removal of {}{name}", dir.prefix());
        self.latch.check(what)?;
        let result = retry(|| self.disk.unlink(dir, name));
        self.progressed();
        match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.write_failed(what(), source)),
            _ => Ok(()),
        }
    }

    /// Syncs a directory.
    pub fn sync_dir(&self, dir: Dir) -> Result<(), StorageError> {
        self.sync_below(dir, None)
    }

    /// Syncs a directory, or with `sub` one below it.
    pub(crate) fn sync_below(&self, dir: Dir, sub: Option<&str>) -> Result<(), StorageError> {
        let what = || format!("sync of the directory DATA/{}{}", dir.prefix(), sub.unwrap_or_default());
        self.latch.check(what)?;
        let result = self.disk.sync_dir(dir, sub);
        self.progressed();
        result.map_err(|source| self.failed(what(), source))
    }

    /// Bytes free on the file system of a directory.
    pub fn free_bytes(&self, dir: Dir) -> Result<u64, StorageError> {
        retry(|| self.disk.free_bytes(dir))
            .map_err(|source| StorageError { what: format!("free space of {}", dir.prefix()), source })
    }

    /// The identity of the running kernel.
    pub fn boot_id(&self) -> String {
        self.disk.boot_id()
    }

    /// Makes sure that DATA is still where its path leads: nobody finds what is stored elsewhere. Latched.
    pub fn check_place(&self) -> Result<(), StorageError> {
        self.disk.check_place().map_err(|source| self.failed("look at DATA".to_owned(), source))
    }

    /// Latches an error that is the end for its caller, whatever its kind.
    pub fn stop(&self, error: StorageError) -> StorageError {
        self.latch.close(&error);
        error
    }

    /// An error that always latches.
    fn failed(&self, what: String, source: io::Error) -> StorageError {
        let error = StorageError { what, source };
        if !self.apart {
            self.latch.close(&error);
        }
        error
    }

    /// An error of a call that writes: latches if the disk has failed.
    fn write_failed(&self, what: String, source: io::Error) -> StorageError {
        if is_disk_failure(&source) { self.failed(what, source) } else { StorageError { what, source } }
    }
}

/// An open file behind the latch. Clones share the descriptor.
#[derive(Clone)]
pub struct File {
    file: Arc<dyn DiskFile>,
    path: Arc<str>,
    storage: Storage,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.path).finish()
    }
}

impl File {
    /// The same file, after it was renamed: messages then give its new name.
    pub fn renamed(self, dir: Dir, name: &str) -> File {
        File { path: format!("{}{name}", dir.prefix()).into(), ..self }
    }

    /// Whether somebody else holds the descriptor too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.file) > 1
    }

    /// Writes all of `bytes` at `offset` (on a file opened for appending: at its end), in writes of at most
    /// [`WRITE_BYTES`].
    ///
    /// # Errors
    /// The bytes that were written before the error, and the error.
    pub fn write_all(&self, offset: u64, bytes: &[u8]) -> Result<(), (u64, StorageError)> {
        let mut done = 0;
        while done < bytes.len() {
            let what = || format!("write to {}", self.path);
            self.storage.latch.check(what).map_err(|e| (done as u64, e))?;
            let chunk = &bytes[done..bytes.len().min(done + WRITE_BYTES)];
            let result = self.file.write_at(offset + done as u64, chunk);
            self.storage.progressed();
            match result {
                Ok(0) => {
                    let source = io::Error::new(io::ErrorKind::StorageFull, "the kernel wrote nothing");
                    return Err((done as u64, StorageError { what: what(), source }));
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err((done as u64, self.storage.write_failed(what(), source))),
            }
        }
        Ok(())
    }

    /// Fills `into` from `offset`; returns how much there was before the end of the file.
    pub fn read_full(&self, offset: u64, into: &mut [u8]) -> Result<usize, StorageError> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(offset + done as u64, &mut into[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StorageError { what: format!("read of {}", self.path), source }),
            }
        }
        Ok(done)
    }

    /// Reads it from its start.
    pub fn reader(self) -> Box<dyn io::Read + Send> {
        Box::new(Reader { file: self, at: 0 })
    }

    /// Makes the file's data durable. Any error is latched: it is never tried again, not even after a signal,
    /// which may hide that a write failed.
    pub fn sync(&self) -> Result<(), StorageError> {
        let what = || format!("sync of {}", self.path);
        self.storage.latch.check(what)?;
        // A control of the power-cut rig, which must see what this loses.
        let result = if cfg!(lotlog_control = "skip_sync") { Ok(()) } else { self.file.sync() };
        self.storage.progressed();
        result.map_err(|source| self.storage.failed(what(), source))
    }

    /// Sets the length. Any error is latched, but not a lack of permission: then nothing was tried.
    pub fn truncate(&self, bytes: u64) -> Result<(), StorageError> {
        let what = || format!("truncation of {}", self.path);
        self.storage.latch.check(what)?;
        let result = retry(|| self.file.truncate(bytes));
        self.storage.progressed();
        result.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => StorageError { what: what(), source },
            _ => self.storage.failed(what(), source),
        })
    }

    /// Allocates blocks up to a length.
    pub fn allocate(&self, bytes: u64) -> Result<(), StorageError> {
        let what = || format!("allocation of {bytes} bytes for {}", self.path);
        self.storage.latch.check(what)?;
        let result = retry(|| self.file.allocate(bytes));
        self.storage.progressed();
        result.map_err(|source| self.storage.write_failed(what(), source))
    }

    /// What the file looks like now.
    pub fn stat(&self) -> Result<Stat, StorageError> {
        retry(|| self.file.stat())
            .map_err(|source| StorageError { what: format!("look at {}", self.path), source })
    }

    /// Notes something down beside the file's content, where the file system can: nobody may rely on it.
    pub fn set_note(&self, note: &str) {
        let _ = self.file.set_note(note);
    }

    /// What was noted down.
    pub fn note(&self) -> Option<String> {
        self.file.note().ok().flatten()
    }

    /// Dates the file, where the file system can: seconds since 1970.
    pub fn set_modified(&self, seconds: i64) {
        let _ = self.file.set_modified(seconds);
    }

    /// Makes sure that the file still has a name: what is stored in one without is gone with the process. Latched.
    pub fn check_name(&self) -> Result<(), StorageError> {
        let stat = self.stat().map_err(|error| self.storage.stop(error))?;
        if stat.links > 0 {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::NotFound, "somebody has deleted it");
        Err(self.storage.failed(format!("look at {}", self.path), source))
    }

    /// Has the kernel begin to write these bytes to the disk. Best effort: the sync that follows tells what came of it.
    pub fn begin_write_back(&self, offset: u64, bytes: u64) {
        let _ = self.file.begin_write_back(offset, bytes);
    }

    /// Makes the next read come from the disk. Best effort: a file system without a cache has none to drop.
    pub fn drop_cache(&self) {
        let _ = self.file.drop_cache();
    }
}

/// A file that a checkpoint is to sync.
#[derive(Debug)]
pub struct Dirty {
    /// The file.
    pub file: File,
    /// An earlier one took what stands before this.
    pub from: u64,
    /// Its length at least.
    pub bytes: u64,
}

/// A file that is read from its start to its end.
struct Reader {
    file: File,
    at: u64,
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let got = self.file.file.read_at(self.at, into)?;
        self.at += got as u64;
        Ok(got)
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

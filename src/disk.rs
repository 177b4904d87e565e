//! The real disk: Linux calls beneath one directory handle. The only user of the file system in the vault.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, FileType, FlockOperation, IFlags, Mode, OFlags, RenameFlags,
    ResolveFlags, XattrFlags,
};

use crate::places::make_dirs;
use crate::storage::{Dir, Disk, DiskFile, How, Stat};
pub use crate::taking::TakeError;

/// Mode of every file under DATA, whatever the umask.
const FILE_MODE: u32 = 0o640;
/// Mode of every directory under DATA, whatever the umask.
const DIR_MODE: u32 = 0o750;

/// The extended attribute that holds a lot file's note: when it began.
const NOTE: &str = "user.lotlog.began";
/// A note is no longer, in bytes.
const NOTE_BYTES: usize = 64;

/// So often a lock is tried that somebody else holds.
const LOCK_TRIES: u32 = 10;
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// DATA on a real disk, held by this process.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    data: OwnedFd,
    lots: OwnedFd,
    journal: OwnedFd,
    quarantine: OwnedFd,
    boot_id: String,
    /// Hold the locks for as long as they are open.
    _locks: Option<(fs::File, fs::File)>,
}

impl RealDisk {
    /// Makes DATA with its directories where they are missing, durable with their new parents, and locks it.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take(path: &Path) -> Result<RealDisk, TakeError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| TakeError::of(path, source)
        };
        make_dirs(path, DIR_MODE).map_err(io_error(path))?;
        let held = |error: io::Error, at: &Path| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let pid = fs::read_to_string(path.join("lock")).unwrap_or_default();
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
                TakeError::Held { path: path.to_owned(), pid }
            }
            _ => TakeError::of(at.to_owned(), error),
        };
        // The directory too: somebody may remove the lock file, and a new one would be another lock.
        let data = fs::File::open(path).map_err(io_error(path))?;
        match hold(&data) {
            // Not every file system locks directories.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(held(error, path)),
            _ => {}
        }
        let lock_path = path.join("lock");
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(&lock_path)
            .map_err(io_error(&lock_path))?;
        hold(&lock).map_err(|error| held(error, &lock_path))?;
        // The pid is a courtesy for the message above; the lock is what counts.
        let _ = lock.set_permissions(fs::Permissions::from_mode(FILE_MODE));
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
        for name in ["lots", "journal", "quarantine"] {
            make_dirs(&path.join(name), DIR_MODE).map_err(io_error(&path.join(name)))?;
        }
        let mut disk = RealDisk::look(path)?;
        disk._locks = Some((data, lock));
        Ok(disk)
    }

    /// Opens DATA without taking it, to read: `lots` and `journal` must exist.
    ///
    /// # Errors
    /// [`TakeError::Io`].
    pub fn look(path: &Path) -> Result<RealDisk, TakeError> {
        RealDisk::open(path, "lots")
    }

    /// As [`RealDisk::look`], where `lots` is gone: then there are no lots to read.
    ///
    /// # Errors
    /// [`TakeError::Io`].
    pub fn look_without_lots(path: &Path) -> Result<RealDisk, TakeError> {
        // Nothing in it has a lot's name.
        RealDisk::open(path, "journal")
    }

    fn open(path: &Path, lots: &str) -> Result<RealDisk, TakeError> {
        let data = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| TakeError::of(path.to_owned(), e.into()))?;
        let open = |name: &str| below(&data, name).map_err(|e| TakeError::of(path.join(name), e));
        Ok(RealDisk {
            path: path.to_owned(),
            lots: open(lots)?,
            journal: open("journal")?,
            quarantine: open("quarantine").or_else(|_| open("."))?,
            data,
            boot_id: boot_id(),
            _locks: None,
        })
    }

    /// The handle of a directory.
    fn dir(&self, dir: Dir) -> io::Result<Handle<'_>> {
        Ok(match dir {
            Dir::Data => Handle::Kept(&self.data),
            Dir::Lots => Handle::Kept(&self.lots),
            Dir::Journal => Handle::Kept(&self.journal),
            Dir::Quarantine => Handle::Kept(&self.quarantine),
            // It may come and go: nothing of it is needed to serve.
            Dir::Archive => Handle::Opened(below(&self.data, "archive")?),
        })
    }

    /// The handle of a directory, or of one below it.
    fn dir_below(&self, dir: Dir, sub: Option<&str>) -> io::Result<Handle<'_>> {
        let dir = self.dir(dir)?;
        match sub {
            None => Ok(dir),
            Some(sub) => Ok(Handle::Opened(below(dir.fd(), sub)?)),
        }
    }

    /// The handle of the directory that a file is in, and its name there.
    fn place<'a>(&self, dir: Dir, name: &'a str) -> io::Result<(Handle<'_>, &'a str)> {
        match name.split_once('/') {
            None => Ok((self.dir(dir)?, name)),
            Some((sub, name)) => Ok((self.dir_below(dir, Some(sub))?, name)),
        }
    }
}

/// A directory that is open, for as long as DATA is or for one call.
enum Handle<'a> {
    Kept(&'a OwnedFd),
    Opened(OwnedFd),
}

impl Handle<'_> {
    fn fd(&self) -> &OwnedFd {
        match self {
            Handle::Kept(fd) => fd,
            Handle::Opened(fd) => fd,
        }
    }
}

/// Opens a directory below another, never through a symbolic link.
fn below(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    open_beneath(dir, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens what lies beneath a directory, whoever has put what into it meanwhile: no symbolic link is followed, and no
/// name leads out.
fn open_beneath(dir: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // The kernel takes no mode where nothing may be made.
    let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
    // Where it is opened to be synced, nobody above tries again.
    match rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, name, flags, mode, resolve)) {
        // Before Linux 5.6, or in a sandbox that does not know the call. All names here are of one part, so NOFOLLOW
        // comes to the same.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            Ok(rustix::fs::openat(dir, name, flags, mode)?)
        }
        opened => Ok(opened?),
    }
}

/// Locks a file for this process, or says `WouldBlock`. Tries for a moment: `lotlog verify` looks at the lock too.
fn hold(file: &fs::File) -> io::Result<()> {
    let mut tries = LOCK_TRIES;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if tries > 1 => std::thread::sleep(LOCK_PAUSE),
            result => return Ok(result?),
        }
        tries -= 1;
    }
}

/// Read once: later there may be no descriptor left for it.
fn boot_id() -> String {
    // Without /proc every start counts as a new boot: the marker then means nothing, as after a reboot.
    match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(_) => uuid::Uuid::new_v4().to_string(),
    }
}

impl Disk for RealDisk {
    fn open(&self, dir: Dir, name: &str, how: How) -> io::Result<Box<dyn DiskFile>> {
        let base = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = base
            | match how {
                How::Read => OFlags::RDONLY,
                How::Append => OFlags::RDWR | OFlags::APPEND,
                How::CreateAppend => OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL,
                How::Write => OFlags::RDWR | OFlags::CREATE,
                How::Replace => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
            };
        let (dir, name) = self.place(dir, name)?;
        let file = fs::File::from(open_beneath(dir.fd(), name, flags, Mode::from_raw_mode(FILE_MODE))?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if matches!(how, How::CreateAppend | How::Write | How::Replace) && meta.mode() & 0o777 != FILE_MODE {
            file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        }
        Ok(Box::new(RealFile(file)))
    }

    fn stat(&self, dir: Dir, name: &str) -> io::Result<Option<Stat>> {
        let (dir, name) = match self.place(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            place => place?,
        };
        match rustix::fs::statat(dir.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat_of(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn list(&self, dir: Dir, sub: Option<&str>) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.dir_below(dir, sub)?.fd())? {
            let entry = entry?;
            // A name that is not UTF-8 is nobody's lot and no segment.
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn rename(&self, dir: Dir, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let (dir, from) = self.place(dir, from)?;
        let to = to.rsplit_once('/').map_or(to, |(_, to)| to);
        if replace {
            return Ok(rustix::fs::renameat(dir.fd(), from, dir.fd(), to)?);
        }
        Ok(rustix::fs::renameat_with(dir.fd(), from, dir.fd(), to, RenameFlags::NOREPLACE)?)
    }

    fn make_dir(&self, dir: Dir, name: &str) -> io::Result<bool> {
        let dir = self.dir(dir)?;
        match rustix::fs::mkdirat(dir.fd(), name, Mode::from_raw_mode(DIR_MODE)) {
            Err(rustix::io::Errno::EXIST) => below(dir.fd(), name).map(|_| false),
            made => Ok(made.map(|()| true)?),
        }
    }

    fn archive(&self, from: &str, to: &str) -> io::Result<()> {
        let (to_dir, to) = self.place(Dir::Archive, to)?;
        Ok(rustix::fs::renameat_with(&self.lots, from, to_dir.fd(), to, RenameFlags::NOREPLACE)?)
    }

    fn unlink(&self, dir: Dir, name: &str) -> io::Result<()> {
        let (dir, name) = self.place(dir, name)?;
        Ok(rustix::fs::unlinkat(dir.fd(), name, AtFlags::empty())?)
    }

    fn sync_dir(&self, dir: Dir, sub: Option<&str>) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.dir_below(dir, sub)?.fd())?)
    }

    fn free_bytes(&self, dir: Dir) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.dir(dir)?.fd())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn check_place(&self) -> io::Result<()> {
        for (name, ours) in [("lots", &self.lots), ("journal", &self.journal)] {
            let path = self.path.join(name);
            let elsewhere = match rustix::fs::stat(&path) {
                Ok(found) => stat_of(&found).id != stat_of(&rustix::fs::fstat(ours)?).id,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => true,
                // A path that cannot be walked now says nothing of where it leads.
                Err(_) => false,
            };
            if elsewhere {
                let why = format!("{} was moved, deleted, unmounted or mounted over", path.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, why));
            }
        }
        Ok(())
    }

    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        id: (stat.st_dev, stat.st_ino),
        // Its width differs between machines.
        #[allow(clippy::unnecessary_cast)]
        links: stat.st_nlink as u64,
        regular: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        modified_seconds: stat.st_mtime,
    }
}

struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // Not the standard library's: that one tries again after EINTR, and no sync is ever tried again.
        Ok(rustix::fs::fdatasync(self.0.as_fd())?)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // On btrfs what is written over needs new space, unless a file was told otherwise while it was empty;
        // other file systems know no such flag.
        if self.0.metadata()?.len() == 0
            && let Ok(flags) = rustix::fs::ioctl_getflags(&self.0)
        {
            let _ = rustix::fs::ioctl_setflags(&self.0, flags | IFlags::NOCOW);
        }
        Ok(rustix::fs::fallocate(self.0.as_fd(), FallocateFlags::empty(), 0, bytes)?)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(self.0.as_fd())?))
    }

    fn begin_write_back(&self, offset: u64, bytes: u64) -> io::Result<()> {
        // Linux begins to write what is dirty, and drops only what is not.
        Ok(rustix::fs::fadvise(self.0.as_fd(), offset, NonZeroU64::new(bytes), Advice::DontNeed)?)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(self.0.as_fd(), 0, None, Advice::DontNeed)?)
    }

    fn set_modified(&self, seconds: i64) -> io::Result<()> {
        let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.0.set_modified(UNIX_EPOCH + since)
    }

    fn set_note(&self, note: &str) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(self.0.as_fd(), NOTE, note.as_bytes(), XattrFlags::empty())?)
    }

    fn note(&self) -> io::Result<Option<String>> {
        let mut note = [0; NOTE_BYTES];
        match rustix::fs::fgetxattr(self.0.as_fd(), NOTE, &mut note[..]) {
            Ok(length) => Ok(String::from_utf8(note[..length].to_vec()).ok()),
            Err(rustix::io::Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

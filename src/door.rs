//! The door: a socket file that is made, replaced when its daemon is dead, and removed at the end. Knows nobody
//! who comes in.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Longest path of a Unix socket, in bytes (108 with the NUL at its end, unix(7)).
const SOCKET_PATH_BYTES: usize = 107;
/// What is read at once of the news of a socket file, in bytes.
const EVENTS_BYTES: usize = 4096;
/// Mode of the directories that are made for a socket.
const PARENT_MODE: u32 = 0o750;

/// Why the socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon serves it.
    #[error("{0} is served by another daemon: stop that one first, or give this one its own --socket")]
    InUse(PathBuf),
    /// Something else is there.
    #[error(
        "{0} is there and is not a socket, so it is not touched: move it away, or choose another --socket"
    )]
    NotASocket(PathBuf),
    /// The kernel takes no longer paths.
    #[error("{0} is longer than the {SOCKET_PATH_BYTES} bytes of a socket's path: choose a shorter --socket")]
    TooLong(PathBuf),
    /// It cannot be given to that user or group.
    #[error("{path} is not made: {why}")]
    Access {
        /// The socket.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The system refused.
    #[error("{path} cannot be made a socket: {source}")]
    Io {
        /// The path at fault.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            BindError::InUse(_) => 73,
            BindError::NotASocket(_)
            | BindError::TooLong(_)
            | BindError::Access { .. }
            | BindError::Io { .. } => 78,
        }
    }
}

/// A socket file of ours; removed when dropped, if it still is ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
    /// Keeps a second daemon from replacing a socket between our look and our rename.
    _lock: std::fs::File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What stands at a socket's path.
///
/// # Errors
/// [`BindError`], where it cannot be had.
pub fn look_at_socket(path: &Path) -> Result<(), BindError> {
    look_at_length(path)?;
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match knock(path) {
        // Nobody listens: left by a daemon that died.
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(()),
        Err(e @ (rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) => Err(io_error(e.into())),
        // A full backlog (EAGAIN) and a socket of another type are signs of life too.
        Ok(_) | Err(_) => Err(BindError::InUse(path.to_owned())),
    }
}

/// The name under which a socket is made before it gets its own.
fn making_name(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    parent.join(format!(".{}", std::process::id()))
}

fn look_at_length(path: &Path) -> Result<(), BindError> {
    let longest = path.as_os_str().len().max(making_name(path).as_os_str().len());
    if longest > SOCKET_PATH_BYTES { Err(BindError::TooLong(path.to_owned())) } else { Ok(()) }
}

/// Tries to connect, without waiting for a daemon that does not accept.
fn knock(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Whether who listens at `path` is a systemd that passes the socket on to the daemon it starts: that of the
/// system, or whoever started this process.
pub fn is_for_activation(path: &Path) -> bool {
    let Ok(listener) = knock(path).and_then(rustix::net::sockopt::socket_peercred) else { return false };
    // A service sees its parent, and no other process.
    rustix::process::getppid() == Some(listener.pid)
        || (listener.pid.is_init()
            && std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd"))
}

/// Makes a directory and its parents, those that are new with [`PARENT_MODE`] whatever the umask, and with the
/// socket's group, which must get as far as the socket.
fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent, group)?;
    }
    match std::fs::DirBuilder::new().mode(PARENT_MODE).create(path) {
        Ok(()) => {
            if group.is_some() {
                chown(path, None, group)?;
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(PARENT_MODE))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Returns when `path` no longer names the socket that it names now: deleted, moved or replaced. Where the system
/// cannot tell, it never returns. Costs nothing until then. One that this process `made` may be gone already; another's may be
/// out of its sight. Must be called within a runtime.
pub async fn gone(path: &Path, made: bool) {
    let named = || std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let (socket, mut events) = (named(), [0; EVENTS_BYTES]);
    let watch = || -> io::Result<AsyncFd<OwnedFd>> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // A socket that is deleted while somebody listens still exists: it only loses its name.
        let of =
            WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::DONT_FOLLOW;
        inotify::add_watch(&watch, path, of)?;
        // Deprecated because of types that do not keep their descriptor; an OwnedFd does, and the other way is unsafe.
        #[allow(deprecated)]
        AsyncFd::with_interest(watch, Interest::READABLE)
    };
    let watch = match watch() {
        Ok(watch) => watch,
        Err(error) if made && error.kind() == io::ErrorKind::NotFound => return,
        Err(_) => return std::future::pending().await,
    };
    while socket.is_some() && named() == socket {
        let Ok(mut ready) = watch.readable().await else { return std::future::pending().await };
        while rustix::io::read(&watch, &mut events[..]).is_ok_and(|bytes| bytes > 0) {}
        ready.clear_ready();
    }
}

/// Who may connect, as far as the socket file says.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Its mode.
    pub mode: u32,
    /// Its owner, if it is not the daemon's user.
    pub owner: Option<u32>,
    /// Its group, if it is not the daemon's.
    pub group: Option<u32>,
}

impl From<u32> for Access {
    /// A mode alone.
    fn from(mode: u32) -> Access {
        Access { mode, owner: None, group: None }
    }
}

impl Access {
    /// Whether this process may give a file away like that.
    ///
    /// # Errors
    /// Why not.
    pub fn look(&self) -> Result<(), String> {
        let user = rustix::process::geteuid();
        if user.is_root() {
            return Ok(());
        }
        if let Some(owner) = self.owner.filter(|owner| *owner != user.as_raw()) {
            return Err(format!(
                "socket_owner is {owner}, and only root can give a file to another user: leave it out, or start as root"
            ));
        }
        let groups = rustix::process::getgroups().unwrap_or_default();
        let own = |group: u32| {
            group == rustix::process::getegid().as_raw() || groups.iter().any(|g| g.as_raw() == group)
        };
        match self.group.filter(|group| !own(*group)) {
            Some(group) => Err(format!(
                "socket_group is {group}, and the daemon is no member of it: add its user to the group, or leave it out"
            )),
            None => Ok(()),
        }
    }
}

/// Listens at `path`, for those whom `access` lets in. A dead daemon's socket is replaced, a living one's is not, and nothing that
/// is not a socket is ever removed. Must be called within a runtime.
///
/// # Errors
/// [`BindError`].
pub fn bind(path: &Path, access: impl Into<Access>) -> Result<(UnixListener, SocketFile), BindError> {
    let access = access.into();
    let io_error = |source: io::Error| BindError::Io { path: path.to_owned(), source };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let making = making_name(path);
    look_at_length(path)?;
    access.look().map_err(|why| BindError::Access { path: path.to_owned(), why })?;
    make_directory(parent, access.group).map_err(io_error)?;
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock_path = beside(".lock");
    let lock = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|source| BindError::Io { path: lock_path.clone(), source })?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(BindError::InUse(path.to_owned())),
        Err(e) => return Err(io_error(e.into())),
    }
    look_at_socket(path)?;
    // Made under another name and given owner and mode there: nobody can connect before they hold.
    let _ = std::fs::remove_file(&making);
    let listener = std::os::unix::net::UnixListener::bind(&making).map_err(io_error)?;
    let finish = || {
        if access.owner.is_some() || access.group.is_some() {
            chown(&making, access.owner, access.group)?;
        }
        std::fs::set_permissions(&making, std::fs::Permissions::from_mode(access.mode))?;
        std::fs::rename(&making, path)?;
        listener.set_nonblocking(true)?;
        let meta = std::fs::symlink_metadata(path)?;
        Ok((meta.dev(), meta.ino()))
    };
    let id = finish().map_err(|e| {
        let _ = std::fs::remove_file(&making);
        io_error(e)
    })?;
    let listener = UnixListener::from_std(listener).map_err(io_error)?;
    Ok((listener, SocketFile { path: path.to_owned(), id, _lock: lock }))
}

//! The door: binding the socket, accepting, who may come in, and the drain. Knows no requests.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::allowance::PassOffice;
use crate::batch::{Code, Durability, Refusal};
use crate::config::Limits;
use crate::connection;
use crate::metrics::Metrics;
use crate::queue::{Budget, Sender};

/// Connections that are being told no, or why they end, at one time; further ones are just closed.
const LINGERING: usize = 64;
/// How long to rest after `accept` failed (no descriptors, no memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket, in bytes (108 with the NUL at its end, unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    /// Limits of the wire.
    pub limits: Limits,
    /// What an acknowledgement promises unless the request says.
    pub durability: Durability,
    /// User ids that may connect.
    pub allow_users: Vec<u32>,
    /// Group ids whose members may connect.
    pub allow_groups: Vec<u32>,
    /// DATA, for `status`.
    pub data_dir: PathBuf,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bytes in flight.
    pub budget: Arc<Budget>,
    /// The pass to finish a line.
    pub passes: Arc<PassOffice>,
    /// Connections that linger.
    pub lingering: Arc<Semaphore>,
}

impl Front {
    /// The shared part of a server.
    pub fn new(config: &crate::config::Config, metrics: Arc<Metrics>) -> Arc<Front> {
        Arc::new(Front {
            limits: config.limits.clone(),
            durability: config.durability,
            allow_users: config.allow_users.clone(),
            allow_groups: config.allow_groups.clone(),
            data_dir: config.data_dir.clone(),
            metrics,
            budget: Budget::new(config.limits.max_bytes_in_flight),
            passes: Arc::default(),
            lingering: Arc::new(Semaphore::new(LINGERING)),
        })
    }

    /// Why a peer is not let in.
    fn turns_away(&self, stream: &UnixStream) -> Option<Refusal> {
        if self.metrics.connections.load(Relaxed) >= self.limits.max_connections {
            let most = self.limits.max_connections;
            return Some(Refusal::new(
                Code::Busy,
                format!(
                    "all {most} connections (max_connections) are in use: close some, or try again later"
                ),
            ));
        }
        if self.allow_users.is_empty() && self.allow_groups.is_empty() {
            return None;
        }
        let forbidden = |who: String| {
            let next = "ask the operator to name it in allow_users or one of its groups in allow_groups";
            Some(Refusal::new(Code::Forbidden, format!("{who} may not connect: {next}")))
        };
        let Ok(peer) = stream.peer_cred() else { return forbidden("an unknown user".to_owned()) };
        let (user, group) = (peer.uid(), peer.gid());
        let member = |allowed: &u32| *allowed == group || groups_of(user).contains(allowed);
        if self.allow_users.contains(&user) || self.allow_groups.iter().any(member) {
            return None;
        }
        forbidden(format!("user {user}"))
    }
}

/// All groups of a user, as the system's user database has them.
fn groups_of(user: u32) -> HashSet<u32> {
    let Ok(Some(user)) = nix::unistd::User::from_uid(user.into()) else { return HashSet::new() };
    let Ok(name) = std::ffi::CString::new(user.name) else { return HashSet::new() };
    let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(nix::unistd::Gid::as_raw).collect()
}

/// Serves until `drain` is cancelled and every connection has ended. No [`Sender`] survives its return. Its
/// caller imposes the deadline.
pub async fn serve(listener: UnixListener, front: Arc<Front>, sender: Sender, drain: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => admit(stream, &front, &sender, &drain, &tasks),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted: trying again");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    drop(sender);
    tasks.close();
    tasks.wait().await;
}

fn admit(
    stream: UnixStream,
    front: &Arc<Front>,
    sender: &Sender,
    drain: &CancellationToken,
    tasks: &TaskTracker,
) {
    if let Some(refusal) = front.turns_away(&stream) {
        front.metrics.count_refusal(refusal.code);
        tracing::warn!(code = refusal.code.as_str(), "a connection is refused");
        let Ok(permit) = front.lingering.clone().try_acquire_owned() else {
            let _ = stream.try_write(&crate::protocol::refusal_reply(None, &refusal));
            return;
        };
        tasks.spawn(async move {
            connection::turn_away(&stream, &refusal).await;
            drop(permit);
        });
        return;
    }
    front.metrics.connections.fetch_add(1, Relaxed);
    let open = Open(front.metrics.clone());
    let (front, sender, drain) = (front.clone(), sender.clone(), drain.clone());
    tasks.spawn(async move {
        let _open = open;
        connection::serve(stream, front, sender, drain).await;
    });
}

/// Counts an open connection, however it ends.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

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
            BindError::NotASocket(_) | BindError::TooLong(_) | BindError::Io { .. } => 78,
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
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // Nobody listens: left by a daemon that died.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(io_error(e)),
        // A full backlog is a sign of life too.
        Ok(_) | Err(_) => Err(BindError::InUse(path.to_owned())),
    }
}

/// Listens at `path` with `mode`. A dead daemon's socket is replaced, a living one's is not, and nothing that
/// is not a socket is ever removed. Must be called within a runtime.
///
/// # Errors
/// [`BindError`].
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), BindError> {
    let io_error = |source: io::Error| BindError::Io { path: path.to_owned(), source };
    if path.as_os_str().len() > SOCKET_PATH_BYTES {
        return Err(BindError::TooLong(path.to_owned()));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent).map_err(io_error)?;
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
    // Made under another name and given its mode there: nobody can connect before the mode holds.
    let making = parent.join(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&making);
    let listener = std::os::unix::net::UnixListener::bind(&making).map_err(io_error)?;
    let finish = || {
        std::fs::set_permissions(&making, std::fs::Permissions::from_mode(mode))?;
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

//! Where things are unless somebody says: the data directory and the socket, found from the environment by
//! rules that daemon and clients share; and the making of directories that last. Knows no settings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The socket of a daemon that root runs, and the one that `systemd/lotlogd.socket` makes.
pub const SYSTEM_SOCKET: &str = "/run/lotlog/lotlog.sock";
/// The variable that names the socket for daemon and clients alike.
pub const SOCKET_VARIABLE: &str = "LOTLOG_SOCKET";
const SOCKET_NAME: &str = "lotlog.sock";
/// Longest path of a Unix socket on Linux, in bytes (`sun_path` less its NUL).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A place that cannot be used; the message says why and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlaceError(String);

/// The part of the process's surroundings that decides about places and settings.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The effective user.
    pub uid: u32,
    /// The system's directory for temporary files.
    pub temp_dir: PathBuf,
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Environment {
        Environment {
            variables: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
            temp_dir: std::env::temp_dir(),
        }
    }

    /// A variable; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds an absolute path, or a list of them of which the first counts.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::split_paths(self.get(name)?).next()?;
        path.is_absolute().then_some(path)
    }

    fn private_dir(&self) -> PathBuf {
        self.temp_dir.join(format!("lotlog-{}", self.uid))
    }
}

/// Where the data lives unless a setting says; `None` where not even a home directory is known.
pub fn data_dir(env: &Environment) -> Option<PathBuf> {
    env.path("STATE_DIRECTORY")
        .or_else(|| env.path("XDG_STATE_HOME").map(|dir| dir.join("lotlog")))
        .or_else(|| env.path("HOME").map(|home| home.join(".local/state/lotlog")))
}

/// Where the daemon listens unless a setting says or a socket was inherited. `RUNTIME_DIRECTORY` is the
/// daemon's own: a client that is a service itself has another.
pub fn daemon_socket(env: &Environment) -> PathBuf {
    env.path("RUNTIME_DIRECTORY").map_or_else(|| user_socket(env), |dir| dir.join(SOCKET_NAME))
}

fn user_socket(env: &Environment) -> PathBuf {
    match env.path("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()) {
        Some(dir) => dir.join(SOCKET_NAME),
        None if env.uid == 0 => PathBuf::from(SYSTEM_SOCKET),
        None => env.private_dir().join(SOCKET_NAME),
    }
}

/// Where a client of this process finds the daemon unless it is told: `LOTLOG_SOCKET`, else the place where a
/// daemon of this user listens, else, if nothing is there, the system's socket if there is one.
///
/// # Errors
/// The directory under the temp directory belongs to somebody else: its socket would be a trap.
pub fn default_socket() -> Result<PathBuf, PlaceError> {
    client_socket(&Environment::of_process())
}

/// [`default_socket`] in a given environment.
///
/// # Errors
/// As there.
pub fn client_socket(env: &Environment) -> Result<PathBuf, PlaceError> {
    if let Some(path) = env.get(SOCKET_VARIABLE) {
        return Ok(PathBuf::from(path));
    }
    let socket = user_socket(env);
    if !socket.exists() && Path::new(SYSTEM_SOCKET).exists() {
        return Ok(PathBuf::from(SYSTEM_SOCKET));
    }
    let private = env.private_dir();
    if socket.starts_with(&private) && private.symlink_metadata().is_ok() {
        verify_private(&private, env.uid)?;
    }
    Ok(socket)
}

/// Makes the directory of a socket at a default place: the user's own under the temp directory (0700, and
/// surely ours), or root's `/run/lotlog`. Other directories are the operator's.
///
/// # Errors
/// It cannot be made, or it is not surely ours.
pub fn make_socket_dir(socket: &Path, env: &Environment) -> Result<(), PlaceError> {
    let private = env.private_dir();
    let Some(dir) = socket.parent() else { return Ok(()) };
    if dir == private {
        make_dir(dir, 0o700)?;
        verify_private(dir, env.uid)?;
    } else if socket == Path::new(SYSTEM_SOCKET) && env.uid == 0 {
        make_dir(dir, 0o755)?;
    }
    Ok(())
}

/// Makes a directory with exactly this mode, whatever the umask; one that is there is left as it is.
fn make_dir(dir: &Path, mode: u32) -> Result<(), PlaceError> {
    let made = fs::DirBuilder::new().mode(mode).create(dir);
    let made = made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(mode)));
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(PlaceError(format!(
            "cannot make the socket's directory {dir:?} ({e}), so nothing can listen there: name another place with --socket or {SOCKET_VARIABLE}"
        ))),
        _ => Ok(()),
    }
}

/// Makes sure that nobody else can put a socket into the directory.
///
/// # Errors
/// It is not a directory of this user's with mode 0700.
pub fn verify_private(dir: &Path, uid: u32) -> Result<(), PlaceError> {
    let advice = format!("remove it, or name another socket with --socket or {SOCKET_VARIABLE}");
    let meta = dir
        .symlink_metadata()
        .map_err(|e| PlaceError(format!("cannot look at the socket's directory {dir:?} ({e}): {advice}")))?;
    let wrong = if !meta.is_dir() {
        "is not a directory".to_owned()
    } else if meta.uid() != uid {
        format!("belongs to user {}, not to this process's user {uid}", meta.uid())
    } else if meta.mode() & 0o777 != 0o700 {
        format!("has mode {:04o}, not 0700", meta.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(PlaceError(format!(
        "the socket's directory {dir:?} {wrong}, so somebody else could listen there: {advice}"
    )))
}

/// Makes a directory and its missing parents, each synced into its own parent. So is one that is there: the
/// start that made it may have died before that.
///
/// # Errors
/// Of the system.
pub fn make_dirs(path: &Path, mode: u32) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return match fs::File::open(parent).and_then(|parent| parent.sync_all()) {
            // Then it was somebody else who made it, or its file system does not sync directories.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            result => result,
        };
    }
    make_dirs(parent, mode)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        // Something else has its name.
        Err(_) if !path.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        Err(_) => {}
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode))?,
    }
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32, variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
        Environment { variables, uid, temp_dir: PathBuf::from("/nonexistent-tmp") }
    }

    #[track_caller]
    fn check(uid: u32, variables: &[(&str, &str)], data: Option<&str>, socket: &str) {
        let env = environment(uid, variables);
        assert_eq!(data_dir(&env).as_deref(), data.map(Path::new));
        assert_eq!(daemon_socket(&env), Path::new(socket));
    }

    #[test]
    fn the_places_follow_the_environment() {
        check(1000, &[], None, "/nonexistent-tmp/lotlog-1000/lotlog.sock");
        check(0, &[("HOME", "/root")], Some("/root/.local/state/lotlog"), SYSTEM_SOCKET);
        check(0, &[("HOME", "")], None, SYSTEM_SOCKET);
        let relative = [("XDG_STATE_HOME", "state"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "run")];
        check(7, &relative, Some("/h/.local/state/lotlog"), "/nonexistent-tmp/lotlog-7/lotlog.sock");
        let user = [("XDG_STATE_HOME", "/x"), ("HOME", "/h"), ("XDG_RUNTIME_DIR", "/")];
        check(7, &user, Some("/x/lotlog"), "/lotlog.sock");
        check(0, &user, Some("/x/lotlog"), "/lotlog.sock");
        let service = [
            ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
            ("XDG_STATE_HOME", "/x"),
            ("RUNTIME_DIRECTORY", "/run/a:/run/b"),
            ("XDG_RUNTIME_DIR", "/"),
        ];
        check(7, &service, Some("/var/lib/a"), "/run/a/lotlog.sock");
    }

    #[test]
    fn a_client_does_not_take_its_own_service_directory_for_the_daemons() {
        let env = environment(7, &[("RUNTIME_DIRECTORY", "/run/producer"), ("XDG_RUNTIME_DIR", "/")]);
        let socket = client_socket(&env).unwrap();
        assert!(socket == Path::new("/lotlog.sock") || socket == Path::new(SYSTEM_SOCKET), "{socket:?}");
        let told = environment(7, &[("LOTLOG_SOCKET", "/told"), ("XDG_RUNTIME_DIR", "/")]);
        assert_eq!(client_socket(&told).unwrap(), Path::new("/told"));
    }

    #[test]
    fn a_private_directory_that_others_could_use_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let env = Environment { variables: BTreeMap::new(), uid, temp_dir: temp.path().to_owned() };
        let dir = env.private_dir();
        let socket = dir.join(SOCKET_NAME);
        make_socket_dir(&socket, &env).unwrap();
        make_socket_dir(&socket, &env).unwrap();
        assert!(verify_private(&dir, uid).is_ok());
        assert!(verify_private(&dir, uid + 1).unwrap_err().to_string().contains("belongs to user"));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_socket_dir(&socket, &env).unwrap_err().to_string().contains("0755"));
        fs::remove_dir(&dir).unwrap();
        std::os::unix::fs::symlink(temp.path(), &dir).unwrap();
        assert!(make_socket_dir(&socket, &env).unwrap_err().to_string().contains("not a directory"));
    }
}

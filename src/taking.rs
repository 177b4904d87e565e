//! Why DATA could not be taken, and what to do about it. Pure.

use std::io;
use std::path::PathBuf;

/// Why DATA could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Another daemon has it.
    #[error(
        "{path} is held by another lotlogd (pid {pid}): stop that one first, or give this one its own --data-dir"
    )]
    Held {
        /// DATA.
        path: PathBuf,
        /// What the lock file says, `unknown` where it says nothing.
        pid: String,
    },
    /// The disk failed.
    #[error("{path}: {source}; lotlogd does not start: check the disk, then start it again")]
    Failed {
        /// The path at fault.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("{path} cannot be used for the data: {source}; {}", next_step(.source))]
    Io {
        /// The path at fault.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl TakeError {
    /// What the system said of a path.
    pub fn of(path: PathBuf, source: io::Error) -> TakeError {
        if source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            TakeError::Failed { path, source }
        } else {
            TakeError::Io { path, source }
        }
    }
}

fn next_step(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "where the disk failed, the kernel has made the file system read-only (see dmesg); where a service may not \
             write there, give its unit ReadWritePaths="
        }
        _ => "make it a directory that this user may write",
    }
}

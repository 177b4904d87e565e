//! How a command fails: an exit code that says whose fault it was, and a message. Does not know the commands.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use lotlog::client::ClientError;
use lotlog::session::SessionError;

/// Wrong usage.
pub const USAGE: u8 = 64;
/// Data that was refused, or that is not there.
pub const DATA: u8 = 65;
/// No daemon, or none that serves this user.
pub const NO_DAEMON: u8 = 69;
/// I/O trouble, here or in the daemon.
pub const IO: u8 = 74;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code; 0 where the reader of our output has gone.
    pub code: u8,
    /// For standard error; empty where all was said.
    pub message: String,
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into() }
    }

    pub fn data(message: impl Into<String>) -> Failure {
        Failure { code: DATA, message: message.into() }
    }

    pub fn io(message: impl Into<String>) -> Failure {
        Failure { code: IO, message: message.into() }
    }

    /// A file that could not be read.
    pub fn reading(path: &Path, error: &io::Error) -> Failure {
        Failure::io(format!("cannot read {}: {error}; {}", path.display(), next_step(error)))
    }

    /// Standard output that could not be written; quiet where its reader has gone.
    pub fn output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: 0, message: String::new() },
            _ => Failure::io(format!("cannot write to standard output: {error}")),
        }
    }

    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            use io::Write;
            // Nobody is left to tell when standard error is gone too.
            let _ = writeln!(io::stderr(), "lotlog: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// What to do about a file that could not be read.
pub fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "look whether the name is right",
        io::ErrorKind::PermissionDenied => {
            "run this as a user who may read it: lot files are for the daemon's group (a new group counts from the next login)"
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => "give it the name of a file",
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => "`lotlog verify` says more",
        _ => "look at the disk (dmesg)",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

const MAY_NOT: &str = "one may be there, but this user may not connect: be in the group of the socket (a new group counts from the \
                       next login), or run this as a user who is";
const START_ONE: &str =
    "start one with `lotlogd`, or say where it listens with --socket PATH or LOTLOG_SOCKET";

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::NoDaemon { ref source, .. } => {
                let next = if source.kind() == io::ErrorKind::PermissionDenied { MAY_NOT } else { START_ONE };
                Failure { code: NO_DAEMON, message: format!("{error}; {next}") }
            }
            ClientError::BadReply { .. } => Failure { code: NO_DAEMON, message: error.to_string() },
            _ => Failure::io(error.to_string()),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        let code = match error {
            SessionError::Client(error) => return error.into(),
            SessionError::Unreachable { .. } | SessionError::Refused(_) => NO_DAEMON,
            SessionError::Foreign { .. } => DATA,
            SessionError::Unusable(_) => USAGE,
            SessionError::NoReply { .. } | SessionError::StillRefused { .. } | SessionError::Full => IO,
        };
        Failure { code, message: error.to_string() }
    }
}

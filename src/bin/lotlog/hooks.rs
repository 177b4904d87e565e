//! What the companion takes from the daemon's side of the library: the default places and lotlogd's own
//! command line. One place, so that both programs always go by the same rules.

use std::path::PathBuf;

use lotlog::places::{self, Environment};

use crate::failure::Failure;

/// Where the daemon listens unless told otherwise.
pub fn default_socket() -> Result<PathBuf, Failure> {
    places::default_socket()
        .map_err(|error| Failure { code: crate::failure::NO_DAEMON, message: error.to_string() })
}

/// Where the daemon writes unless told otherwise; `None` without a home directory.
pub fn default_data_dir() -> Option<PathBuf> {
    places::data_dir(&Environment::of_process())
}

/// The command line of `lotlogd`, for its man page and completions.
pub fn lotlogd_command() -> Option<clap::Command> {
    Some(lotlog::settings::command())
}

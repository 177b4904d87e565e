//! The life of a lot file after it was written: reopened beside an operator's own rotation.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;
mod logrotate;
mod reload;

use std::path::Path;
use std::process::{Command, Output};

/// The companion, in no environment but its own.
fn lotlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lotlog"));
    command.args(args).env_remove("LOTLOG_SOCKET");
    command
}

/// Runs it against this daemon.
fn ask(socket: &Path, args: &[&str]) -> Output {
    lotlog(args).arg("--socket").arg(socket).output().unwrap()
}

/// What it said on standard output; it must have succeeded.
#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

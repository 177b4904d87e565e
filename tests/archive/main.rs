//! The life of a lot file after it was written: reopened beside an operator's own rotation, moved to the archive, and closed.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;
mod keeping;
mod logrotate;
mod recipes;
mod reload;
mod rotation;
mod seal;

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

/// A batch of one record, in session `LOT-s`.
fn log_batch(lot: &str, seq: u64) -> String {
    let pad = "x".repeat(200);
    let item = format!(r#"{{"sku_local":"{lot}/{seq}","pad":"{pad}"}}"#);
    format!(r#"{{"session":"{lot}-s","seq":{seq},"context":{{"lot_id":"{lot}"}},"items":[{item}]}}"#)
}

/// The names of a lot's archived files, sorted.
fn archived(data: &Path, lot: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("archive").join(format!("lot={lot}"))).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

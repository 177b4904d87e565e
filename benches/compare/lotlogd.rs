//! The daemon under test: the release `lotlogd` of this build, with a data directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lotlog::client::Client;

use crate::process::Process;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lotlogd");
const START_TIMEOUT: Duration = Duration::from_secs(60);
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running daemon.
pub struct Lotlogd {
    pub process: Process,
    pub socket: PathBuf,
}

impl Lotlogd {
    /// Starts it on `dir`/data and waits until it answers.
    pub fn start(dir: &Path, settings: &[&str]) -> Result<Lotlogd> {
        let socket = dir.join("lotlog.sock");
        let mut command = Command::new(PROGRAM);
        command.arg("--data-dir").arg(dir.join("data")).arg("--socket").arg(&socket);
        command.args(["--log-level", "warn"]).args(settings);
        let mut process = Process::start("lotlogd", &mut command, &dir.join("lotlogd.log"))?;
        process.wait_until("answered", START_TIMEOUT, || status(&socket).ok())?;
        Ok(Lotlogd { process, socket })
    }

    /// A number of its status page.
    pub fn status(&self, key: &str) -> Result<u64> {
        let page: serde_json::Value = serde_json::from_slice(&status(&self.socket)?)?;
        page[key].as_u64().with_context(|| format!("status has no {key}"))
    }

    /// Returns when all that was acknowledged is synced and in the lot files.
    pub fn sync(&self) -> Result<()> {
        let reply = Client::connect(&self.socket, REPLY_TIMEOUT)?.request(br#"{"op":"sync"}"#)?;
        anyhow::ensure!(reply.starts_with(b"{\"ok\":true"), "sync: {}", String::from_utf8_lossy(&reply));
        Ok(())
    }
}

fn status(socket: &Path) -> Result<Vec<u8>> {
    let mut client = Client::connect(socket, REPLY_TIMEOUT).context("no daemon")?;
    Ok(client.request(br#"{"op":"status"}"#)?)
}

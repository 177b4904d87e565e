//! `lotlog sync`: the barrier of the protocol, for scripts.

use crate::Daemon;
use crate::failure::Failure;
use crate::reload::order;

/// Wait until everything the daemon accepted before, from anyone, is on disk and in the lot files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's answer as it came: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    order(&args.daemon, r#"{"op":"sync"}"#, args.json, |reply| {
        format!("synced up to lsn {}", reply.lsn.unwrap_or(0))
    })
    .map(drop)
}

//! `lotlog sync`: the barrier of the protocol, for scripts.

use std::io::Write;

use crate::Daemon;
use crate::failure::Failure;

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
    let mut client = args.daemon.connect()?;
    let line = client.request(br#"{"op":"sync"}"#)?;
    let reply = client.parse(&line)?;
    let text = match (&reply.error, args.json) {
        (_, true) => String::from_utf8_lossy(&line).into_owned(),
        (None, false) => format!("synced up to lsn {}", reply.lsn.unwrap_or(0)),
        (Some(_), false) => String::new(),
    };
    if !text.is_empty() {
        writeln!(std::io::stdout(), "{text}").map_err(|error| Failure::output(&error))?;
    }
    reply.error.map_or(Ok(()), |refused| Err(Failure::io(refused.to_string())))
}

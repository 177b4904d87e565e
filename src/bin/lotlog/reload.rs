//! `lotlog reload`, and what commands of one request share: an order to the daemon, and its answer.

use std::io::Write;

use lotlog::client::Reply;

use crate::Daemon;
use crate::failure::{DATA, Failure, NO_DAEMON};

/// Finish what is in hand, reopen every lot file by its name, and reread log_level; returns when that is done.
///
/// What SIGHUP does, with an answer: after it nothing more is written to a lot file that was renamed before it. For root
/// and the daemon's own user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's answer as it came: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    order(&args.daemon, r#"{"op":"reload"}"#, args.json, |reply| {
        format!("reopened; everything up to lsn {} is synced and in the lot files", reply.lsn.unwrap_or(0))
    })
    .map(drop)
}

/// Gives an order, and says what came of it. The answer is handed on where the order was taken.
pub fn order(
    daemon: &Daemon,
    request: &str,
    json: bool,
    say: impl FnOnce(&Reply) -> String,
) -> Result<Reply, Failure> {
    let mut client = daemon.connect()?;
    let line = client.request(request.as_bytes())?;
    let reply = client.parse(&line)?;
    let text = match (&reply.error, json) {
        (_, true) => String::from_utf8_lossy(&line).into_owned(),
        (None, false) => say(&reply),
        (Some(_), false) => String::new(),
    };
    if !text.is_empty() {
        writeln!(std::io::stdout(), "{text}").map_err(|error| Failure::output(&error))?;
    }
    let Some(refused) = &reply.error else { return Ok(reply) };
    let code = match refused.code.as_str() {
        "forbidden" => NO_DAEMON,
        code if refused.retryable || code == "io_error" => crate::failure::IO,
        _ => DATA,
    };
    Err(Failure { code, message: refused.to_string() })
}

//! `lotlog rotate`: has the daemon move a lot's file, or every lot's, into the archive.

use crate::Daemon;
use crate::failure::Failure;
use crate::reload::order;
use crate::units;

/// Move a lot's file into the archive: lots/LOT.jsonl becomes archive/lot=LOT/NUMBER.jsonl.
///
/// Returns when that is durable; the lot's next record begins a new file. For root and the daemon's own user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lot's id, as it was sent (not its file name)
    #[arg(value_name = "LOT", required_unless_present = "all", conflicts_with = "all")]
    lot: Option<String>,
    /// Every lot
    #[arg(long)]
    all: bool,
    /// The daemon's answer as it came: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let request = match &args.lot {
        Some(lot) => serde_json::json!({ "op": "rotate", "lot_id": lot }),
        None => serde_json::json!({ "op": "rotate", "all": true }),
    };
    let reply = order(&args.daemon, &request.to_string(), args.json, |reply| {
        match (&args.lot, reply.rotated.unwrap_or(0)) {
            (Some(lot), 0) => format!("nothing to rotate: all that lot `{lot}` has is in archive/ already"),
            (_, files) => format!("rotated {} files into archive/", units::count(files)),
        }
    })?;
    match reply.skipped.unwrap_or(0) {
        0 => Ok(()),
        skipped => Err(Failure::io(format!(
            "{} more could not be rotated: they stay in lots/, and their lots go on; the daemon's log says why, and then \
             `lotlog rotate --all` may be given again",
            units::count(skipped)
        ))),
    }
}

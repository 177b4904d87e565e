//! `lotlog seal`: has the daemon close a lot for good.

use crate::Daemon;
use crate::failure::Failure;
use crate::reload::order;
use crate::units;

/// Close a lot for good: its further batches are refused with lot_sealed.
///
/// Writes lots/LOT.sealed beside its file, with what the lot has and a checksum, and returns when that is durable. `lotlog
/// verify` holds the lot to it from then on. For root and the daemon's own user.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lot's id, as it was sent (not its file name)
    #[arg(value_name = "LOT")]
    lot: String,
    /// The daemon's answer as it came: one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let request = serde_json::json!({ "op": "seal", "lot_id": args.lot }).to_string();
    order(&args.daemon, &request, args.json, |reply| {
        format!("sealed lot `{}` with {} records", args.lot, units::count(reply.records.unwrap_or(0)))
    })
    .map(drop)
}

//! The wire: request lines in, reply lines out, error codes. Pure: no sockets, no clock.

use std::collections::BTreeMap;

use crate::batch::{Batch, Durability, LotId, Outcome, Refusal};
use crate::config::Limits;

/// A decoded request.
#[derive(Debug)]
pub enum Request {
    /// `{"op":"log"}`.
    Log(Box<Log>),
    /// `{"op":"sync"}`.
    Sync,
    /// `{"op":"status"}`.
    Status,
}

/// A `log` request: the batch, and what its reply will say beside the outcome.
#[derive(Debug)]
pub struct Log {
    /// The batch; `None` where it has no items and nothing is to be stored.
    pub batch: Option<Batch>,
    /// What the good reply of this request repeats.
    pub echo: Echo,
}

/// The part of a good reply that is known before the batch is stored.
#[derive(Clone, Debug)]
pub struct Echo {
    /// The lot.
    pub lot: LotId,
    /// Number of items.
    pub records: u32,
    /// The sequence number sent.
    pub seq: Option<u64>,
    /// The acknowledgement asked for (for an empty batch it is what the reply says).
    pub ack: Durability,
    /// Values that could not be used, by field.
    pub dropped: BTreeMap<String, u64>,
    /// Keys whose sent value gave way.
    pub overridden: Vec<&'static str>,
}

/// A request that was refused while it was decoded, with its sequence number if one could be read.
#[derive(Debug)]
pub struct Rejected {
    /// The `seq` of the request.
    pub seq: Option<u64>,
    /// Why.
    pub refusal: Refusal,
}

/// Decodes one request line (without its `\n`).
///
/// # Errors
/// The refusal to answer with.
pub fn decode(_line: &[u8], _limits: &Limits, _default_ack: Durability) -> Result<Request, Rejected> {
    todo!()
}

/// The reply line, newline included, to a `log` request; `None` where the connection must end without one.
pub fn log_reply(_echo: &Echo, _outcome: &Outcome) -> Option<Vec<u8>> {
    todo!()
}

/// The reply line to a refused request.
pub fn refusal_reply(_seq: Option<u64>, _refusal: &Refusal) -> Vec<u8> {
    todo!()
}

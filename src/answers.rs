//! The wire: reply lines out, and what they repeat of a request. Pure: no sockets, no clock.

use std::collections::BTreeMap;

use crate::batch::{Durability, LotId, Outcome, Refusal};

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

impl Echo {
    /// About what the good reply takes, from above, in bytes.
    pub fn reply_bytes(&self) -> usize {
        // An escaped byte of a name takes up to six; a count has up to 20 digits.
        let dropped = self.dropped.keys().map(|name| 6 * name.len() + 24).sum::<usize>();
        let overridden = self.overridden.iter().map(|key| key.len() + 3).sum::<usize>();
        self.lot.as_json().len() + dropped + overridden + 160
    }
}

/// The reply line, newline included, to a `log` request; `None` where the connection must end without one.
pub fn log_reply(echo: &Echo, outcome: &Outcome) -> Option<Vec<u8>> {
    let (stored, duplicate, durability) = match outcome {
        Outcome::Stored { lsn, durability } => (Some((echo.records, *lsn)), false, *durability),
        Outcome::Duplicate { last, durability } => (*last, true, *durability),
        Outcome::Refused(refusal) => return Some(refusal_reply(echo.seq, refusal)),
        Outcome::Synced { .. } | Outcome::Rotated { .. } | Outcome::Sealed { .. } | Outcome::Unknown => {
            return None;
        }
    };
    Some(good_reply(echo, stored.map(|(records, lsn)| (records, Some(lsn))), duplicate, durability))
}

/// The reply line to a batch without items.
pub fn empty_reply(echo: &Echo) -> Vec<u8> {
    good_reply(echo, Some((0, None)), false, echo.ack)
}

fn good_reply(
    echo: &Echo,
    stored: Option<(u32, Option<u64>)>,
    duplicate: bool,
    durability: Durability,
) -> Vec<u8> {
    let mut reply = String::with_capacity(160);
    reply.push_str("{\"ok\":true,\"lot\":");
    reply.push_str(echo.lot.as_json());
    if let Some((records, lsn)) = stored {
        reply.push_str(",\"records\":");
        reply.push_str(&records.to_string());
        if let Some(lsn) = lsn {
            reply.push_str(",\"lsn\":");
            reply.push_str(&lsn.to_string());
        }
    }
    if let Some(seq) = echo.seq {
        reply.push_str(",\"seq\":");
        reply.push_str(&seq.to_string());
    }
    reply.push_str(",\"durability\":\"");
    reply.push_str(durability.as_str());
    reply.push('"');
    if duplicate {
        reply.push_str(",\"duplicate\":true");
    }
    if !echo.dropped.is_empty() {
        reply.push_str(",\"dropped\":");
        reply.push_str(&serde_json::json!(echo.dropped).to_string());
    }
    if !echo.overridden.is_empty() {
        reply.push_str(",\"overridden\":");
        reply.push_str(&serde_json::json!(echo.overridden).to_string());
    }
    reply.push_str("}\n");
    reply.into_bytes()
}

/// The reply line to a `sync` or an operator's request; `None` where the connection must end without one.
pub fn sync_reply(outcome: &Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Synced { lsn } => Some(format!("{{\"ok\":true,\"lsn\":{lsn}}}\n").into_bytes()),
        Outcome::Sealed { lsn, records, bytes } => Some(
            format!("{{\"ok\":true,\"lsn\":{lsn},\"records\":{records},\"bytes\":{bytes}}}\n").into_bytes(),
        ),
        Outcome::Rotated { lsn, files, skipped } => {
            let skipped = if *skipped > 0 { format!(",\"skipped\":{skipped}") } else { String::new() };
            Some(format!("{{\"ok\":true,\"lsn\":{lsn},\"rotated\":{files}{skipped}}}\n").into_bytes())
        }
        Outcome::Refused(refusal) => Some(refusal_reply(None, refusal)),
        Outcome::Stored { .. } | Outcome::Duplicate { .. } | Outcome::Unknown => None,
    }
}

/// The reply line to a refused request.
pub fn refusal_reply(seq: Option<u64>, refusal: &Refusal) -> Vec<u8> {
    let mut error = serde_json::json!({
        "code": refusal.code.as_str(),
        "message": refusal.message,
        "retryable": refusal.code.is_retryable(),
    });
    if let Some(expected) = refusal.expected {
        error["expected"] = expected.into();
    }
    let seq = seq.map_or(String::new(), |seq| format!("\"seq\":{seq},"));
    format!("{{\"ok\":false,{seq}\"error\":{error}}}\n").into_bytes()
}

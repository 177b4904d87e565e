//! What of a request was not stored as it was sent: the bookkeeping behind `dropped` and `overridden`. Knows
//! neither how a value becomes unusable nor how a reply is spelt.

use std::collections::BTreeMap;

use crate::dropped::{self, Counts, Reason};
use crate::text;

/// Most fields of a producer's own naming that are counted by name; what goes beyond is counted together.
const MAX_NAMED_FIELDS: usize = 256;
/// The name under which further fields are counted.
const FURTHER_FIELDS: &str = "...";

/// Keys whose sent value can give way, in the order of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the keys themselves
pub enum Reserved {
    RoiTarget,
    RiskThreshold,
    HorizonDays,
    LotId,
    Timestamp,
    Context,
    Session,
    Seq,
}

impl Reserved {
    /// Every one, in the order of the record.
    pub const ALL: [Reserved; 8] = [
        Reserved::RoiTarget,
        Reserved::RiskThreshold,
        Reserved::HorizonDays,
        Reserved::LotId,
        Reserved::Timestamp,
        Reserved::Context,
        Reserved::Session,
        Reserved::Seq,
    ];

    /// The key.
    pub fn as_str(self) -> &'static str {
        match self {
            Reserved::RoiTarget => "roi_target",
            Reserved::RiskThreshold => "risk_threshold",
            Reserved::HorizonDays => "horizon_days",
            Reserved::LotId => "lot_id",
            Reserved::Timestamp => "timestamp",
            Reserved::Context => "context",
            Reserved::Session => "session",
            Reserved::Seq => "seq",
        }
    }
}

/// What of a request was not stored as it was sent: unusable values by field, and keys that gave way.
#[derive(Debug, Default)]
pub struct Tally {
    dropped: BTreeMap<String, u64>,
    /// The same for the metrics page; most requests have none.
    by_reason: Option<Box<Counts<u64>>>,
    overridden: u8,
}

/// A [`Tally`] in the end.
#[derive(Debug)]
pub struct Tallied {
    /// Unusable values by field.
    pub dropped: BTreeMap<String, u64>,
    /// The same by reason, where there are any.
    pub by_reason: Option<Box<Counts<u64>>>,
    /// Keys that gave way, in the order of the record.
    pub overridden: Vec<&'static str>,
}

impl Tally {
    /// Counts `count` unusable values under `field`.
    pub fn drop_values(&mut self, field: &str, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        self.by_reason.get_or_insert_default()[dropped::place(field)][reason as usize] += count;
        let field = text::excerpt(field);
        if let Some(total) = self.dropped.get_mut(field.as_ref()) {
            *total += count;
        } else if self.dropped.len() < MAX_NAMED_FIELDS {
            self.dropped.insert(field.into_owned(), count);
        } else {
            *self.dropped.entry(FURTHER_FIELDS.to_owned()).or_default() += count;
        }
    }

    /// Notes that the sent value of `key` gave way.
    pub fn give_way(&mut self, key: Reserved) {
        self.overridden |= 1 << key as u8;
    }

    /// What was counted and noted.
    pub fn finish(self) -> Tallied {
        let gave_way = |key: &Reserved| self.overridden & 1 << *key as u8 != 0;
        let overridden = Reserved::ALL.into_iter().filter(gave_way).map(Reserved::as_str).collect();
        Tallied { dropped: self.dropped, by_reason: self.by_reason, overridden }
    }
}

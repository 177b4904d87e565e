//! The record: its keys, its bookkeeping of what was not stored, and composing its lines. With `item` and
//! `context`, its two halves, the only rooms that know the record format. Knows neither requests nor files.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use crate::batch::{Body, LotId, STAMP_BYTES};
use crate::text;

/// What stands for the timestamp until the writer gives one.
pub const BLANK_STAMP: [u8; STAMP_BYTES] = [b' '; STAMP_BYTES];

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
    overridden: u8,
}

impl Tally {
    /// Counts `count` unusable values under `field`.
    pub fn drop_values(&mut self, field: &str, count: u64) {
        if count == 0 {
            return;
        }
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

    /// The counts by field, and the keys that gave way in the order of the record.
    pub fn finish(self) -> (BTreeMap<String, u64>, Vec<&'static str>) {
        let gave_way = |key: &Reserved| self.overridden & 1 << *key as u8 != 0;
        let overridden = Reserved::ALL.into_iter().filter(gave_way).map(Reserved::as_str).collect();
        (self.dropped, overridden)
    }
}

/// Puts the timestamp (`STAMP_BYTES` of text) in its places.
pub fn stamp(body: &mut Body, text: &[u8; STAMP_BYTES]) {
    for at in body.stamp_at {
        body.suffix[at..at + STAMP_BYTES].copy_from_slice(text);
    }
}

/// Hash of lot, context without timestamp, and items: equal for a retry, different for a conflict. `body`
/// must not be stamped yet.
pub fn content_hash(lot: &LotId, body: &Body) -> u128 {
    let mut hash = Xxh3::new();
    // Each part behind its length, so that bytes cannot move from one part to the next unseen.
    for part in [lot.as_json().as_bytes(), &body.suffix, &body.items] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

/// Bytes of the composed lines: each item loses its newline and gains `{`, and `,` unless it is empty, and
/// the suffix.
pub fn bytes_of_lines(items_bytes: usize, records: usize, empty: usize, suffix_bytes: usize) -> u64 {
    (items_bytes + records - empty) as u64 + records as u64 * suffix_bytes as u64
}

/// Composes the lines of `items` (from `Body::items`), appending to `out`.
pub fn compose(items: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', items) {
        out.push(b'{');
        if end > start {
            out.extend_from_slice(&items[start..end]);
            out.push(b',');
        }
        out.extend_from_slice(suffix);
        start = end + 1;
    }
}

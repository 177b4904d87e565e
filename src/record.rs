//! The record: its end's blank, its hash, and composing its lines. With `item` and
//! `context`, its two halves, the only rooms that know the record format. Knows neither requests nor files.

use xxhash_rust::xxh3::Xxh3;

use crate::batch::{Body, LotId, STAMP_BYTES};

/// What stands for the timestamp until the writer gives one.
pub const BLANK_STAMP: [u8; STAMP_BYTES] = [b' '; STAMP_BYTES];

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

/// The texts of the items in `Body::items`, each without its newline.
pub fn each_item(items: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', items).map(move |end| &items[std::mem::replace(&mut start, end + 1)..end])
}

/// Composes the lines of `items` (from `Body::items`), appending to `out`.
pub fn compose(items: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    for item in each_item(items) {
        compose_one(item, suffix, out);
    }
}

/// Composes the line of one item, appending to `out`.
#[inline]
pub fn compose_one(item: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    out.reserve(item.len() + suffix.len() + 2);
    out.push(b'{');
    if !item.is_empty() {
        out.extend_from_slice(item);
        out.push(b',');
    }
    out.extend_from_slice(suffix);
}

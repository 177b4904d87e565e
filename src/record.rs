//! The record: normalise an item and a context, compose a line. The only file that knows the record format.

use crate::batch::{Body, STAMP_BYTES};

/// Puts the timestamp (`STAMP_BYTES` of text) in its places.
pub fn stamp(body: &mut Body, text: &[u8; STAMP_BYTES]) {
    for at in body.stamp_at {
        body.suffix[at..at + STAMP_BYTES].copy_from_slice(text);
    }
}

/// Bytes of the composed lines: each item loses its newline and gains `{`, and `,` unless it is empty, and the suffix.
pub fn lines_bytes(items: &[u8], records: usize, suffix: &[u8]) -> u64 {
    let empty = items.split_inclusive(|b| *b == b'\n').filter(|line| line.len() == 1).count();
    (items.len() - records) as u64 + (2 * records - empty) as u64 + (records * suffix.len()) as u64
}

/// Composes the lines of `items` (from `Body::items`), appending to `out`.
pub fn compose(items: &[u8], suffix: &[u8], out: &mut Vec<u8>) {
    for line in items.split_inclusive(|b| *b == b'\n') {
        out.push(b'{');
        if let [text @ .., b'\n'] = line
            && !text.is_empty()
        {
            out.extend_from_slice(text);
            out.push(b',');
        }
        out.extend_from_slice(suffix);
    }
}

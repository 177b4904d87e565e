//! The record: recorded cases, every rule of the contract's section 4, and properties over any input. Through
//! the library: `tests/wire` holds the daemon to the same cases by bytes.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod cases;
mod contexts;
mod properties;
mod requests;
mod scanner;

use lotlog::batch::{Durability, Refusal, STAMP_BYTES};
use lotlog::config::Limits;
use lotlog::protocol::{Log, Rejected, Request, decode};
use lotlog::record;

/// The timestamp that the tests give.
pub const STAMP: &[u8; STAMP_BYTES] = b"2026-01-02T03:04:05.678901+00:00";

/// Decodes a `log` request.
pub fn log(line: &[u8]) -> Result<Log, Refusal> {
    match decode(line, &Limits::default(), Durability::Synced) {
        Ok(Request::Log(log)) => Ok(*log),
        Ok(other) => panic!("not a log request: {other:?}"),
        Err(Rejected { refusal, .. }) => Err(refusal),
    }
}

/// The lines that a request becomes, stamped.
pub fn lines(log: Log) -> Vec<String> {
    let Some(mut batch) = log.batch else { return Vec::new() };
    record::stamp(&mut batch.body, STAMP);
    let mut out = Vec::new();
    record::compose(&batch.body.items, &batch.body.suffix, &mut out);
    assert_eq!(out.len() as u64, batch.lines_bytes, "the length is known before the lines are");
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(text.lines().count(), batch.records as usize);
    text.lines().map(str::to_owned).collect()
}

/// A record without its timestamps, as `tests/data/README.md` says.
pub fn without_stamps(line: &str) -> String {
    let stamp = format!("\"timestamp\":\"{}\"", std::str::from_utf8(STAMP).unwrap());
    let (with_comma, after) = (format!("{stamp},"), format!(",{stamp}"));
    line.replace(&with_comma, "").replace(&after, "").replace(&stamp, "")
}

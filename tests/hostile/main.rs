//! Hostile and clumsy clients against the real daemon: each attack beside a well-behaved producer, whose latency
//! is measured without it and under it; the judge reads what that one stored, and the daemon's memory stays
//! under what it says. `LOTLOG_FULL=1` takes full sizes, which need minutes.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;

mod breaks;
mod cage;
mod descriptors;
mod floods;
mod guests;
mod lines;
mod quotas;
mod siege;
mod sockets;

/// What the daemon says that it takes at most with its default settings, in MiB.
pub fn most_mib() -> u64 {
    (lotlog::config::Config::default().most_memory_bytes() >> 20) as u64
}

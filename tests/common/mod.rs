//! A real `lotlogd` in a directory of its own, and raw connections to it: what the suites over the wire share.

#![allow(dead_code, unused_imports)] // each suite uses its part

mod connection;
mod daemon;
mod files;
pub mod judge;
pub mod producer;

use std::time::{Duration, Instant};

pub use connection::{Connection, Received};
pub use daemon::{Daemon, Place, refuses_to_start};
pub use files::without_timestamps;

/// How long anything may take before a test gives it up.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks again and again until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "this did not come true in {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

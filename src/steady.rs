//! Whether the wall clock goes with the time that passes, so that an age may be believed. Pure: reads no clock.

use std::time::{Duration, Instant};

/// A wall clock that leaves the time that passed by more than this has been set.
const CLOCK_STEP_MICROS: i64 = 60_000_000;
/// Nothing is removed for its age before the daemon has run so long, and the wall clock with it without being set: what
/// a wrong one removes is gone, and when a machine starts it is wrong most often.
const STEADY: Duration = Duration::from_secs(600);

/// Whether the wall clock goes with the time that passes.
#[derive(Debug)]
pub struct Steadiness {
    start: Instant,
    /// By how much the wall clock was ahead of the time since `start` when it was last looked at.
    ahead_micros: Option<i64>,
    since: Instant,
}

impl Steadiness {
    /// Nothing was looked at yet.
    pub fn new(start: Instant) -> Steadiness {
        Steadiness { start, ahead_micros: None, since: start }
    }

    /// Looks at both clocks.
    pub fn look(&mut self, wall_micros: i64, now: Instant) {
        let passed = now.saturating_duration_since(self.start).as_micros();
        let ahead = wall_micros - i64::try_from(passed).unwrap_or(i64::MAX);
        let before = self.ahead_micros.replace(ahead);
        if before.is_some_and(|before| (ahead - before).abs() > CLOCK_STEP_MICROS) {
            self.since = now;
        }
    }

    /// Whether it has gone with it for long enough.
    pub fn is_steady(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STEADY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_steady_some_time_after_the_start_and_after_it_was_set() {
        let start = Instant::now();
        let mut clock = Steadiness::new(start);
        let mut look = |seconds: u64, wall_seconds: i64| {
            let now = start + Duration::from_secs(seconds);
            clock.look(wall_seconds * 1_000_000, now);
            clock.is_steady(now)
        };
        assert!(!look(0, 5000));
        assert!(!look(599, 5599));
        // A little faster, as one that is being put right.
        assert!(look(600, 5610));
        assert!(look(1000, 6050));
        for jump in [1_000_000_i64, -2_000_000] {
            let from = 10_000 + jump.unsigned_abs();
            assert!(!look(from, i64::try_from(from).unwrap() + jump));
            assert!(!look(from + 599, i64::try_from(from).unwrap() + jump + 599));
            assert!(look(from + 600, i64::try_from(from).unwrap() + jump + 600));
        }
    }
}

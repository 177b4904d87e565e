//! The two clocks of a connection: how long a started line may take, and how long replies may lie unread; and the
//! door's: how fast connections may come. Time is an argument; knows no timers.

use std::time::{Duration, Instant};

use crate::config::LINE_PROGRESS_BYTES;

/// Whether a started line makes progress. The clock runs only while the daemon reads the line.
#[derive(Debug)]
pub struct LineClock {
    timeout: Duration,
    /// Time the clock ran before `running_since`.
    spent: Duration,
    running_since: Option<Instant>,
    /// Bytes that came since the clock was last set to zero.
    bytes: usize,
}

impl LineClock {
    /// A clock that stands at zero.
    pub fn new(timeout: Duration) -> LineClock {
        LineClock { timeout, spent: Duration::ZERO, running_since: None, bytes: 0 }
    }

    /// Lets the clock run from now on, or stand.
    pub fn run(&mut self, running: bool, now: Instant) {
        if running == self.running_since.is_some() {
            return;
        }
        self.spent = self.spent(now);
        self.running_since = running.then_some(now);
    }

    /// Of the time the clock ran, so much was the daemon's own standing still.
    pub fn forgive(&mut self, held_up: Duration) {
        self.running_since = self.running_since.map(|since| since + held_up);
    }

    /// The line got `bytes` more: every [`LINE_PROGRESS_BYTES`] set the clock to zero.
    pub fn progress(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= LINE_PROGRESS_BYTES {
            self.reset();
        }
    }

    /// A new line begins, or none is started: stands at zero.
    pub fn reset(&mut self) {
        *self = LineClock::new(self.timeout);
    }

    /// When the line has taken too long, if the clock runs.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.running_since? + self.timeout.saturating_sub(self.spent))
    }

    /// Whether the line has taken too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    fn spent(&self, now: Instant) -> Duration {
        self.spent + self.running_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Whether the peer reads its replies.
#[derive(Debug)]
pub struct ReplyClock {
    timeout: Duration,
    stuck_since: Option<Instant>,
}

impl ReplyClock {
    /// A clock that stands.
    pub fn new(timeout: Duration) -> ReplyClock {
        ReplyClock { timeout, stuck_since: None }
    }

    /// The peer took bytes (`progress`), and `pending` says whether more wait for it.
    pub fn wrote(&mut self, progress: bool, pending: bool, now: Instant) {
        if !pending {
            self.stuck_since = None;
        } else if progress || self.stuck_since.is_none() {
            self.stuck_since = Some(now);
        }
    }

    /// So much of the time was the daemon's own standing still.
    pub fn forgive(&mut self, held_up: Duration) {
        self.stuck_since = self.stuck_since.map(|since| since + held_up);
    }

    /// When the peer has not read for too long.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.stuck_since? + self.timeout)
    }

    /// Whether the peer has not read for too long.
    pub fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }
}

/// How fast connections are taken in: a burst at once, then at a pace, so that a storm of them leaves the processor
/// to those who are there. The generic cell rate algorithm.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// When the next one comes if all come at the pace.
    next: Instant,
}

impl Pace {
    /// So many in a second, after a burst of so many.
    pub fn new(per_second: u32, burst: usize, now: Instant) -> Pace {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let burst = interval.saturating_mul(u32::try_from(burst).unwrap_or(u32::MAX));
        Pace { interval, burst, next: now }
    }

    /// Counts one that came; gives how long to wait before the next.
    pub fn came(&mut self, now: Instant) -> Option<Duration> {
        self.next = self.next.max(now) + self.interval;
        let early = self.next.saturating_duration_since(now).saturating_sub(self.burst);
        (!early.is_zero()).then_some(early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_clock_stands_still_while_the_daemon_does_not_read() {
        let start = Instant::now();
        let mut clock = LineClock::new(30 * SECOND);
        assert_eq!(clock.deadline(), None);
        clock.run(true, start);
        clock.run(true, start + 10 * SECOND);
        clock.run(false, start + 20 * SECOND);
        assert!(!clock.is_over(start + 1000 * SECOND));
        clock.run(true, start + 1000 * SECOND);
        assert_eq!(clock.deadline(), Some(start + 1010 * SECOND));
        assert!(!clock.is_over(start + 1009 * SECOND) && clock.is_over(start + 1010 * SECOND));
    }

    #[test]
    fn a_line_that_trickles_is_over_and_one_that_flows_never() {
        let start = Instant::now();
        let (mut slow, mut fast) = (LineClock::new(30 * SECOND), LineClock::new(30 * SECOND));
        for second in 0..90 {
            let now = start + second * SECOND;
            slow.run(true, now);
            fast.run(true, now);
            assert_eq!(slow.is_over(now), second >= 30, "{second}");
            assert!(!fast.is_over(now), "{second}");
            slow.progress(LINE_PROGRESS_BYTES / 100);
            fast.progress(LINE_PROGRESS_BYTES / 29);
        }
    }

    #[test]
    fn a_clock_does_not_count_what_is_forgiven() {
        let start = Instant::now();
        let (mut line, mut reply) = (LineClock::new(30 * SECOND), ReplyClock::new(30 * SECOND));
        line.forgive(SECOND);
        reply.forgive(SECOND);
        assert_eq!((line.deadline(), reply.deadline()), (None, None));
        line.run(true, start);
        reply.wrote(false, true, start);
        line.forgive(5 * SECOND);
        reply.forgive(5 * SECOND);
        assert!(!line.is_over(start + 34 * SECOND) && !reply.is_over(start + 34 * SECOND));
        assert!(line.is_over(start + 35 * SECOND) && reply.is_over(start + 35 * SECOND));
    }

    #[test]
    fn a_reply_clock_counts_from_the_last_byte_taken() {
        let start = Instant::now();
        let mut clock = ReplyClock::new(30 * SECOND);
        clock.wrote(false, false, start);
        assert_eq!(clock.deadline(), None);
        clock.wrote(true, true, start);
        clock.wrote(false, true, start + 20 * SECOND);
        assert!(clock.is_over(start + 30 * SECOND));
        clock.wrote(true, true, start + 29 * SECOND);
        assert!(!clock.is_over(start + 30 * SECOND));
        clock.wrote(true, false, start + 30 * SECOND);
        assert!(!clock.is_over(start + 300 * SECOND));
    }
    #[test]
    fn a_pace_lets_a_burst_in_at_once_and_then_so_many_in_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(1000, 50, start);
        assert!((0..50).all(|_| pace.came(start).is_none()));
        assert_eq!(pace.came(start), Some(Duration::from_millis(1)));
        // Who waited as told need not wait longer than the pace.
        assert_eq!(pace.came(start + Duration::from_millis(1)), Some(Duration::from_millis(1)));
        // A second later the burst is there again, and no more than that.
        assert!((0..50).all(|_| pace.came(start + SECOND).is_none()));
        assert!(pace.came(start + SECOND).is_some());
    }
}

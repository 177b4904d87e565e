//! Counters and quantiles of the running daemon. Each has one owner that writes it; anyone may read.
//! Knows neither the wire nor the disk.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Code;

/// All counters of one daemon.
#[derive(Debug)]
pub struct Metrics {
    /// When the daemon became ready.
    pub started: Instant,
    /// Owner: front. Connections open now.
    pub connections: AtomicUsize,
    /// Owner: front. Refusals by code, in the order of [`Code::ALL`].
    pub refused: [AtomicU64; Code::ALL.len()],
    /// Owner: front. From a whole line to its reply being ready.
    pub ack_seconds: Quantiles,
    /// Owner: vault. Batches stored.
    pub batches: AtomicU64,
    /// Owner: vault. Records stored.
    pub records: AtomicU64,
    /// Owner: vault. Batches answered as duplicates.
    pub duplicates: AtomicU64,
    /// Owner: vault. Bytes appended to lot files.
    pub bytes_written: AtomicU64,
    /// Owner: vault. Lot files held open.
    pub lots_open: AtomicUsize,
    /// Owner: vault. Last lsn given out.
    pub lsn: AtomicU64,
    /// Owner: vault. Last lsn that is synced and in its lot file.
    pub synced_lsn: AtomicU64,
    /// Owner: vault. Bytes of all journal segments on disk.
    pub journal_bytes: AtomicU64,
    /// Owner: vault. Syncs of the journal.
    pub syncs: AtomicU64,
    /// Owner: vault. How far timestamps run ahead of the wall clock, in microseconds.
    pub clock_skew_micros: AtomicI64,
    /// Owner: vault. Time of one journal sync.
    pub sync_seconds: Quantiles,
    /// Owner: vault. Grows with every storage call: progress for the watchdog.
    pub progress: AtomicU64,
    /// Owner: vault. Whether the writer is waiting for work.
    pub idle: AtomicBool,
    /// Owner: vault. Set while the disk has no space.
    pub no_space: AtomicBool,
    /// Owner: vault. Set once the writer has stopped for good after an error.
    pub failed: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            refused: Default::default(),
            ack_seconds: Quantiles::default(),
            batches: AtomicU64::new(0),
            records: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            lots_open: AtomicUsize::new(0),
            lsn: AtomicU64::new(0),
            synced_lsn: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            clock_skew_micros: AtomicI64::new(0),
            sync_seconds: Quantiles::default(),
            progress: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            no_space: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }
}

impl Metrics {
    /// Counts one refusal.
    pub fn count_refusal(&self, code: Code) {
        let at = Code::ALL.iter().position(|c| *c == code).unwrap_or(0);
        self.refused[at].fetch_add(1, Relaxed);
    }
}

/// Buckets per power of two: a quantile is at most 1/8 above the truth.
const STEPS: usize = 8;
/// Powers of two of a microsecond: up to 2^32 us, over an hour.
const POWERS: usize = 32;
/// The recent past is between one and two of these.
const WINDOW: Duration = Duration::from_secs(30);

/// Quantiles of durations over the recent past (30 to 60 seconds).
#[derive(Debug, Default)]
pub struct Quantiles(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    turned: Option<Instant>,
    now: Box<[u32; STEPS * POWERS]>,
    before: Box<[u32; STEPS * POWERS]>,
    max_micros: [u64; 2],
}

impl Default for Windows {
    fn default() -> Self {
        let empty = || Box::new([0; STEPS * POWERS]);
        Windows { turned: None, now: empty(), before: empty(), max_micros: [0; 2] }
    }
}

/// A reading of [`Quantiles`], in seconds; all 0 while there is nothing to read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Quantiles {
    /// Records one duration that ended at `now`.
    pub fn record(&self, duration: Duration, now: Instant) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        let at = bucket(micros);
        windows.now[at] = windows.now[at].saturating_add(1);
        windows.max_micros[0] = windows.max_micros[0].max(micros);
    }

    /// Reads the quantiles as of `now`.
    pub fn read(&self, now: Instant) -> Reading {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        let counts: Vec<u64> = windows
            .now
            .iter()
            .zip(windows.before.iter())
            .map(|(a, b)| u64::from(*a) + u64::from(*b))
            .collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return Reading::default();
        }
        let max_micros = windows.max_micros[0].max(windows.max_micros[1]);
        let quantile = |percent: u64| {
            let rank = (total * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let at = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            at.map_or(max_micros, roof).min(max_micros) as f64 / 1e6
        };
        Reading { p50: quantile(50), p99: quantile(99), max: max_micros as f64 / 1e6 }
    }
}

impl Windows {
    fn turn(&mut self, now: Instant) {
        let turned = *self.turned.get_or_insert(now);
        let age = now.saturating_duration_since(turned);
        if age < WINDOW {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.fill(0);
        self.max_micros = [0, self.max_micros[0]];
        if age >= 2 * WINDOW {
            self.before.fill(0);
            self.max_micros = [0; 2];
        }
        self.turned = Some(now);
    }
}

/// The bucket of a duration of at least one microsecond.
fn bucket(micros: u64) -> usize {
    let power = micros.ilog2() as usize;
    let step =
        if power >= 3 { (micros >> (power - 3)) as usize & 7 } else { (micros << (3 - power)) as usize & 7 };
    (power * STEPS + step).min(STEPS * POWERS - 1)
}

/// The upper end of a bucket, in microseconds.
fn roof(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    ((STEPS + step + 1) as u64) << power >> 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_and_forget_the_distant_past() {
        let start = Instant::now();
        let quantiles = Quantiles::default();
        assert_eq!(quantiles.read(start), Reading::default());
        for micros in 1..=1000 {
            quantiles.record(Duration::from_micros(micros), start);
        }
        let reading = quantiles.read(start);
        assert!((0.0005..0.00057).contains(&reading.p50), "{reading:?}");
        assert!((0.00099..=0.001).contains(&reading.p99), "{reading:?}");
        assert_eq!(reading.max, 0.001);
        assert_eq!(quantiles.read(start + WINDOW).max, 0.001);
        assert_eq!(quantiles.read(start + 3 * WINDOW), Reading::default());
    }
}

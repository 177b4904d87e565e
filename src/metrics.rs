//! Counters and quantiles of the running daemon. Each has one owner that writes it; anyone may read.
//! Knows neither the wire nor the disk.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::Code;
use crate::dropped::Counts;

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
    /// Owner: front. Requests whose connection ended without a reply: of unknown fate.
    pub unanswered: AtomicU64,
    /// Owner: front. Values that were left out of records, by field and reason.
    pub dropped: Counts<AtomicU64>,
    /// Owner: vault. Batches stored.
    pub batches: AtomicU64,
    /// Owner: vault. Records stored.
    pub records: AtomicU64,
    /// Owner: vault. Batches answered as duplicates.
    pub duplicates: AtomicU64,
    /// Owner: vault. Bytes appended to lot files.
    pub bytes_written: AtomicU64,
    /// Owner: vault. When bytes were last appended to a lot file: microseconds since 1970, UTC.
    pub last_write_micros: AtomicI64,
    /// Owner: vault. Lot files held open.
    pub lots_open: AtomicUsize,
    /// Owner: vault. Lot files closed to make room for others.
    pub evictions: AtomicU64,
    /// Owner: vault. Batches taken at once.
    pub group_batches: Sizes,
    /// Owner: vault. Last lsn given out.
    pub lsn: AtomicU64,
    /// Owner: vault. Last lsn that is synced and in its lot file.
    pub synced_lsn: AtomicU64,
    /// Owner: vault. Bytes of all journal segments on disk.
    pub journal_bytes: AtomicU64,
    /// Owner: vault. Syncs of the journal.
    pub syncs: AtomicU64,
    /// Owner: vault. Checkpoints that came to their end since the start.
    pub checkpoints: AtomicU64,
    /// Owner: vault. When the last one did, in microseconds since `started`; the start's own counts.
    pub checkpoint_micros: AtomicU64,
    /// Owner: vault. Batches up to this lsn are covered by it.
    pub checkpoint_lsn: AtomicU64,
    /// Owner: the daemon's life. How long lock and recovery took, in microseconds.
    pub recovery_micros: AtomicU64,
    /// Owner: vault. What became of finished lot files.
    pub archive: ArchiveCounts,
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

/// What became of finished lot files, since the start.
#[derive(Debug, Default)]
pub struct ArchiveCounts {
    /// Files moved to the archive, and their bytes.
    pub rotated: AtomicU64,
    /// See `rotated`.
    pub rotated_bytes: AtomicU64,
    /// Files that could not be moved when they were due.
    pub not_rotated: AtomicU64,
    /// Lots sealed.
    pub sealed: AtomicU64,
    /// Files compressed, and what they took before and after.
    pub compressed: AtomicU64,
    /// See `compressed`.
    pub compressed_from_bytes: AtomicU64,
    /// See `compressed`.
    pub compressed_to_bytes: AtomicU64,
    /// Files removed by retention, and their bytes.
    pub removed: AtomicU64,
    /// See `removed`.
    pub removed_bytes: AtomicU64,
    /// Compressions, removals and looks at the archive that failed.
    pub failures: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            refused: Default::default(),
            ack_seconds: Quantiles::default(),
            unanswered: AtomicU64::new(0),
            dropped: Default::default(),
            batches: AtomicU64::new(0),
            records: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            last_write_micros: AtomicI64::new(0),
            lots_open: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            group_batches: Sizes::default(),
            lsn: AtomicU64::new(0),
            synced_lsn: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            checkpoint_micros: AtomicU64::new(0),
            checkpoint_lsn: AtomicU64::new(0),
            recovery_micros: AtomicU64::new(0),
            archive: ArchiveCounts::default(),
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

    /// Counts the values that one request lost.
    pub fn count_dropped(&self, counts: &Counts<u64>) {
        let each = self.dropped.iter().flatten().zip(counts.iter().flatten());
        for (total, count) in each.filter(|(_, count)| **count > 0) {
            total.fetch_add(*count, Relaxed);
        }
    }

    /// A checkpoint that covers all batches below `next_lsn` has come to its end.
    pub fn note_checkpoint(&self, next_lsn: u64, now: Instant) {
        let micros = now.saturating_duration_since(self.started).as_micros();
        self.checkpoints.fetch_add(1, Relaxed);
        self.checkpoint_micros.store(u64::try_from(micros).unwrap_or(u64::MAX), Relaxed);
        self.checkpoint_lsn.store(next_lsn - 1, Relaxed);
    }

    /// How long ago the last checkpoint came to its end.
    pub fn checkpoint_age(&self, now: Instant) -> Duration {
        let ended = self.started + Duration::from_micros(self.checkpoint_micros.load(Relaxed));
        now.saturating_duration_since(ended)
    }
}

/// Powers of two that a size is counted under.
const SIZES: usize = 11;

/// How many there were at a time, counted since the start: up to 1, 2, 4 and so on.
#[derive(Debug, Default)]
pub struct Sizes {
    counts: [AtomicU64; SIZES],
    sum: AtomicU64,
}

impl Sizes {
    /// Counts one group of `size`, unless it is empty.
    pub fn record(&self, size: usize) {
        if size == 0 {
            return;
        }
        let power = size.next_power_of_two().ilog2() as usize;
        self.counts[power.min(SIZES - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(size as u64, Relaxed);
    }

    /// What was counted.
    pub fn histogram(&self) -> Histogram {
        let bounds = (0..SIZES - 1).map(|power| f64::from(1 << power)).chain([f64::INFINITY]);
        let buckets = bounds.zip(self.counts.iter().map(|n| n.load(Relaxed))).collect();
        Histogram { buckets, sum: self.sum.load(Relaxed) as f64 }
    }
}

/// Counts since the start: each bucket with its upper bound, and its own count alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// In the order of the bounds; the last is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all that was counted.
    pub sum: f64,
}

impl Histogram {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// Buckets per power of two: a quantile is at most 1/8 above the truth.
const STEPS: usize = 8;
/// Powers of two of a microsecond: up to 2^32 us, over an hour.
const POWERS: usize = 32;
/// The recent past is between one and two of these.
const WINDOW: Duration = Duration::from_secs(30);

/// The buckets of a histogram of durations: below 2^6 us, 2^7 us and so on up to 2^26 us (67 s), and beyond.
const BOUND_POWERS: std::ops::RangeInclusive<usize> = 6..=26;

/// Quantiles of durations over the recent past (30 to 60 seconds), and a histogram since the start.
#[derive(Debug, Default)]
pub struct Quantiles(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    turned: Option<Instant>,
    now: Box<[u32; STEPS * POWERS]>,
    before: Box<[u32; STEPS * POWERS]>,
    max_micros: [u64; 2],
    /// By power of two, what both windows no longer have.
    past: [u64; POWERS],
    sum_micros: u64,
}

impl Default for Windows {
    fn default() -> Self {
        let empty = || Box::new([0; STEPS * POWERS]);
        let (now, before) = (empty(), empty());
        Windows { turned: None, now, before, max_micros: [0; 2], past: [0; POWERS], sum_micros: 0 }
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
        windows.sum_micros = windows.sum_micros.saturating_add(micros);
    }

    /// All that was recorded since the start.
    pub fn histogram(&self) -> Histogram {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = windows.past;
        for window in [&windows.now, &windows.before] {
            add_by_power(&mut counts, window);
        }
        let bounded = BOUND_POWERS.map(|power| {
            // A bucket holds what is below its bound: the first one all that is smaller too.
            let first = if power == *BOUND_POWERS.start() { 0 } else { power - 1 };
            ((1u64 << power) as f64 / 1e6, counts[first..power].iter().sum())
        });
        let beyond = counts[*BOUND_POWERS.end()..].iter().sum();
        let buckets = bounded.chain([(f64::INFINITY, beyond)]).collect();
        Histogram { buckets, sum: windows.sum_micros as f64 / 1e6 }
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
        self.push_back();
        if age >= 2 * WINDOW {
            self.push_back();
        }
        self.turned = Some(now);
    }

    /// The older window becomes the past.
    fn push_back(&mut self) {
        add_by_power(&mut self.past, &self.before);
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.fill(0);
        self.max_micros = [0, self.max_micros[0]];
    }
}

fn add_by_power(counts: &mut [u64; POWERS], window: &[u32; STEPS * POWERS]) {
    for (count, steps) in counts.iter_mut().zip(window.chunks(STEPS)) {
        *count += steps.iter().map(|n| u64::from(*n)).sum::<u64>();
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

    #[test]
    fn a_histogram_forgets_nothing_and_counts_below_its_bounds() {
        let start = Instant::now();
        let quantiles = Quantiles::default();
        let all = [1, 63, 64, 127, 128, 1_000_000, 60_000_000, 100_000_000];
        for (turn, micros) in all.into_iter().enumerate() {
            // Each in another window, and one window that is missed.
            quantiles.record(Duration::from_micros(micros), start + WINDOW * (2 * turn as u32));
        }
        let histogram = quantiles.histogram();
        assert_eq!(histogram.count(), 8);
        assert_eq!(histogram.sum, 161.000383);
        let below =
            |bound: f64| histogram.buckets.iter().filter(|(b, _)| *b <= bound).map(|(_, n)| n).sum::<u64>();
        assert_eq!(
            [0.000064, 0.000128, 0.000256, 0.524288, 1.048576, 67.108864].map(below),
            [2, 4, 5, 5, 6, 7]
        );
        assert_eq!(histogram.buckets.last(), Some(&(f64::INFINITY, 1)));
    }

    #[test]
    fn a_size_is_counted_under_the_next_power_of_two() {
        let sizes = Sizes::default();
        for size in [1, 2, 3, 4, 5, 512, 513, 1024, 5000] {
            sizes.record(size);
        }
        let counts: Vec<_> = sizes.histogram().buckets.iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [1, 1, 2, 1, 0, 0, 0, 0, 0, 1, 3]);
        assert_eq!(sizes.histogram().sum, 7064.0);
    }
}

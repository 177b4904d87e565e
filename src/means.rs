//! The clock and the space as the writer sees them: timestamps that increase, and room on the disk that is
//! believed for a moment. Part of the vault.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use chrono::{Datelike, Timelike};

use crate::batch::{Refusal, STAMP_BYTES};
use crate::spares::SPARE_SEGMENTS;
use crate::storage::Dir;
use crate::vault::{Vault, no_space, unavailable};

/// Free space that batches leave on the lots' file system, in bytes, beside room for the spare segments that
/// may be under preparation.
pub const SPACE_RESERVE_BYTES: u64 = 4 << 20;
/// Nearer to the reserve than this, in bytes, free space is asked for every batch: others write too.
const SPACE_NEAR_BYTES: u64 = 256 << 20;
/// How long free space is believed.
const SPACE_BELIEF: Duration = Duration::from_millis(250);
/// Only so long after the last refusal there is a word of space again.
const SPACE_CALM: Duration = Duration::from_secs(1);
/// Timestamps go on from the last one while the wall clock is behind it by less than this.
const CLOCK_STEP_MICROS: i64 = 3600 * 1_000_000;

impl Vault {
    /// Why no batch for this lot can be taken while others are pending.
    pub(crate) fn is_blocked(&self, stem: &str) -> Option<Refusal> {
        let pending = self.pending.iter().find(|p| p.for_space || p.staged.batch.lot.stem() == stem)?;
        Some(if pending.for_space { no_space(&pending.why) } else { unavailable(stem, &pending.why) })
    }

    /// Why no batch of this size, or none for this lot, can be taken now.
    pub(crate) fn lacks(&mut self, stem: &str, lines_bytes: u64, now: Instant) -> Option<Refusal> {
        if let Some(refusal) = self.is_blocked(stem) {
            return Some(refusal);
        }
        let needed = lines_bytes + SPACE_RESERVE_BYTES + SPARE_SEGMENTS as u64 * self.journal.segment_bytes();
        let stale = self.space.probed.is_none_or(|at| now.duration_since(at) >= SPACE_BELIEF);
        let near = self.space.free_bytes < needed + SPACE_NEAR_BYTES;
        if stale || (near && self.space.free_bytes >= needed) {
            let ready = self.ready.iter().flat_map(|(_, batches)| batches);
            let on_the_way: u64 = self.staged.iter().chain(ready).map(|s| s.batch.lines_bytes).sum();
            // Where the question itself fails, the writes will tell.
            let free = self.storage.free_bytes(Dir::Lots).unwrap_or(u64::MAX);
            self.space.free_bytes = free.saturating_sub(on_the_way);
            self.space.probed = Some(now);
        }
        let lacking = self.space.free_bytes < needed;
        if lacking {
            self.space_was_refused(now);
        } else if self.space.refused.is_none_or(|at| now.duration_since(at) >= SPACE_CALM) {
            self.space_is_lacking(false);
        }
        lacking.then(|| {
            no_space(&format!("{} bytes are free for lot files, {needed} are needed", self.space.free_bytes))
        })
    }

    /// A batch is refused for lack of bytes, of inodes, or of a journal segment. Others may be taken meanwhile.
    pub(crate) fn space_was_refused(&mut self, now: Instant) {
        self.space.refused = Some(now);
        self.space_is_lacking(true);
    }

    pub(crate) fn space_is_lacking(&mut self, lacking: bool) {
        if lacking && !self.space.lacking {
            tracing::warn!("no space: batches are refused until there is room again");
        } else if !lacking && self.space.lacking {
            tracing::info!("there is space again: batches are taken");
        }
        self.space.lacking = lacking;
        self.metrics.no_space.store(lacking, Relaxed);
    }

    /// Strictly increasing while the wall clock is less than an hour behind; a greater step back is followed.
    pub(crate) fn next_stamp(&mut self, wall_micros: i64) -> i64 {
        let behind = self.stamp_micros.saturating_sub(wall_micros);
        self.stamp_micros = if behind < 0 {
            wall_micros
        } else if behind < CLOCK_STEP_MICROS {
            self.stamp_micros + 1
        } else {
            tracing::warn!(
                seconds = behind / 1_000_000,
                "the wall clock was set back by more than an hour: timestamps follow it"
            );
            wall_micros
        };
        self.stamp_highest_micros = self.stamp_highest_micros.max(self.stamp_micros);
        // Positive: timestamps run ahead of the wall clock. Negative: they are behind some that were given before.
        let ahead = (0..CLOCK_STEP_MICROS).contains(&behind);
        let skew = if ahead { behind } else { self.stamp_micros.saturating_sub(self.stamp_highest_micros) };
        self.metrics.clock_skew_micros.store(skew, Relaxed);
        self.stamp_micros
    }
}

/// A timestamp as records spell it. By hand: chrono's own formatting took a fifteenth of the writer's time.
pub(crate) fn stamp_text(micros: i64) -> [u8; STAMP_BYTES] {
    // Years 0001 to 9999 have four digits; a clock beyond them is held at their edge.
    const EDGES: (i64, i64) = (-62_135_596_800_000_000, 253_402_300_799_999_999);
    let time = chrono::DateTime::from_timestamp_micros(micros.clamp(EDGES.0, EDGES.1)).unwrap_or_default();
    let (date, time, micros) = (time.date_naive(), time.time(), time.timestamp_subsec_micros());
    let mut bytes = *b"0000-00-00T00:00:00.000000+00:00";
    let mut put = |at: usize, digits: usize, mut number: u32| {
        for place in (at..at + digits).rev() {
            bytes[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, date.year().unsigned_abs());
    put(5, 2, date.month());
    put(8, 2, date.day());
    put(11, 2, time.hour());
    put(14, 2, time.minute());
    put(17, 2, time.second());
    put(20, 6, micros);
    bytes
}

//! The journal's spare segments: prepared before they are needed, and old ones that a checkpoint has made needless
//! removed or made into spares. Part of the journal; knows segments, not frames.
//!
//! Needless segments become spares because on a full disk somebody else would take their place, and because
//! writing over what is written is what a disk does fastest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::background::{Done, Job, Segment};
use crate::frame::Header;
use crate::lane::Lane;
use crate::storage::{Dir, Storage, StorageError};

/// Spare segments kept ready.
pub const SPARE_SEGMENTS: usize = 2;
/// To them come as many as the last checkpoint made needless: the next one will have used them up. No more than this ...
const MOST_SPARES: usize = 10;
/// ... and no more than [`SPARE_SEGMENTS`] where the disk has room for fewer segments than this.
const ROOMY_SEGMENTS: u64 = 64;
const _: () = assert!(SPARE_SEGMENTS <= MOST_SPARES);
/// How long after a segment could not be prepared it is tried again.
const PREPARE_RETRY: Duration = Duration::from_millis(250);
/// How often the background is looked after while it works: its failure must not wait for the next batch.
const TEND_INTERVAL: Duration = Duration::from_millis(50);

/// Segments that are ready, and how more of them are made.
pub(crate) struct Spares {
    storage: Storage,
    lane: Lane,
    ready: VecDeque<Segment>,
    /// Number and uuid of the newest segment asked for.
    newest: (u64, u128),
    preparing: bool,
    /// Needless segments that are to become spares, oldest first.
    old: VecDeque<u64>,
    /// Removals that were asked for and have not ended.
    trimming: usize,
    not_prepared: Option<(Instant, String)>,
    /// Segments that could not be removed, and since when they rest.
    not_trimmed: Option<(Instant, VecDeque<u64>)>,
    segment_bytes: u64,
}

impl std::fmt::Debug for Spares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spares")
            .field("ready", &self.ready)
            .field("newest", &self.newest)
            .finish_non_exhaustive()
    }
}

impl Spares {
    /// None yet, behind the segment with this header.
    pub(crate) fn new(storage: Storage, lane: Lane, first: Header) -> Spares {
        Spares {
            storage,
            lane,
            ready: VecDeque::new(),
            newest: (first.number, first.uuid),
            preparing: false,
            old: VecDeque::new(),
            trimming: 0,
            not_prepared: None,
            not_trimmed: None,
            segment_bytes: first.bytes,
        }
    }

    /// Size of a segment that is not made for one large batch.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whether none is ready.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Bytes on disk of what is or becomes a spare.
    pub(crate) fn bytes(&self) -> u64 {
        self.ready.iter().map(|s| s.bytes).sum::<u64>()
            + (self.old.len() + usize::from(self.preparing)) as u64 * self.segment_bytes
    }

    /// A segment that is being prepared for want of spares is wanted soon.
    pub(crate) fn hurry(&self) {
        if self.preparing && self.ready.len() < SPARE_SEGMENTS {
            self.lane.hurry();
        }
    }

    /// Why no segment could be prepared lately.
    pub(crate) fn lack(&self) -> Option<&str> {
        self.not_prepared.as_ref().map(|(_, why)| why.as_str())
    }

    /// When [`Spares::tend`] wants to be called next.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.preparing || self.trimming > 0 {
            return Some(now + TEND_INTERVAL);
        }
        let trim = self.not_trimmed.as_ref().map(|(at, _)| *at + PREPARE_RETRY);
        self.not_prepared.as_ref().map(|(at, _)| *at + PREPARE_RETRY).into_iter().chain(trim).min()
    }

    /// Takes in what the background did, and asks for more.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) fn tend(&mut self, now: Instant) -> Result<(), StorageError> {
        while let Some(done) = self.lane.poll() {
            self.take_in(done, now)?;
        }
        if let Some((_, numbers)) = self
            .not_trimmed
            .as_mut()
            .filter(|(at, numbers)| now >= *at + PREPARE_RETRY && !numbers.is_empty())
        {
            let numbers = std::mem::take(numbers);
            self.not_trimmed = Some((now, VecDeque::new()));
            self.remove(numbers);
        }
        self.prepare_more(Some(now));
        Ok(())
    }

    fn take_in(&mut self, done: Done, now: Instant) -> Result<(), StorageError> {
        match done {
            Done::Prepared(segment) => {
                self.preparing = false;
                self.not_prepared = None;
                self.newest = (segment.header.number, segment.header.uuid);
                self.ready.push_back(segment);
            }
            Done::NotPrepared(error, old) => {
                self.preparing = false;
                self.not_prepared = Some((now, error.to_string()));
                if let Some(old) = old {
                    self.remove(VecDeque::from([old]));
                }
            }
            Done::Failed(error) => return Err(error),
            Done::Trimmed => {
                self.trimming -= 1;
                self.not_trimmed.take_if(|(_, numbers)| numbers.is_empty());
            }
            Done::NotTrimmed(numbers, error) => {
                self.trimming -= 1;
                if self.not_trimmed.is_none() {
                    tracing::warn!(%error, "old journal segments cannot be removed yet: tried again");
                }
                let (_, rest) = self.not_trimmed.get_or_insert((now, VecDeque::new()));
                rest.extend(numbers);
            }
            Done::LotsSynced | Done::JournalSynced(_) | Done::Chored(_) => {}
        }
        Ok(())
    }

    /// Asks for the next segment unless there are enough; without a time also where the last one failed just now.
    pub(crate) fn prepare_more(&mut self, now: Option<Instant>) {
        let resting = match (&self.not_prepared, now) {
            (Some((at, _)), Some(now)) => now < *at + PREPARE_RETRY,
            _ => false,
        };
        if self.ready.len() >= SPARE_SEGMENTS {
            self.not_prepared = None;
        }
        let enough = self.ready.len() >= SPARE_SEGMENTS || resting;
        if self.preparing || (enough && self.old.is_empty()) {
            return;
        }
        let (number, previous) = self.newest;
        let uuid = uuid::Uuid::new_v4().as_u128();
        let header = Header { number: number + 1, uuid, previous, bytes: self.segment_bytes };
        self.preparing = true;
        self.lane.submit(Job::Prepare { header, old: self.old.pop_front() });
    }

    /// Waits for segments under preparation until `needed` are ready, the first of at least `bytes`. `false`: there is
    /// no space for them now.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) fn wait_for(&mut self, needed: usize, bytes: u64, now: Instant) -> Result<bool, StorageError> {
        self.tend(now)?;
        while self.ready.len() < needed {
            if !self.preparing {
                return Ok(false);
            }
            let done = self.lane.wait();
            self.take_in(done, now)?;
            self.prepare_more(Some(now));
        }
        let Some(spare) = self.ready.front_mut() else { return Ok(false) };
        if spare.bytes < bytes {
            // One batch larger than a segment gets a segment of its own size.
            match spare.file.allocate(bytes) {
                Ok(()) => spare.file.sync()?,
                Err(error) if self.storage.failure().is_some() => return Err(error),
                Err(error) => {
                    self.not_prepared = Some((now, error.to_string()));
                    return Ok(false);
                }
            }
            spare.bytes = bytes;
        }
        Ok(true)
    }

    /// The next segment, if one is ready.
    pub(crate) fn take(&mut self) -> Option<Segment> {
        self.ready.pop_front()
    }

    /// Takes needless segments, oldest first by number with their lengths: to make spares of them or to remove them.
    pub(crate) fn give_up(&mut self, needless: VecDeque<(u64, u64)>) {
        let of_usual_size = |(_, bytes): &(u64, u64)| *bytes == self.segment_bytes;
        let (kept, odd): (VecDeque<_>, VecDeque<_>) = needless.into_iter().partition(of_usual_size);
        let number = |(number, _)| number;
        let (mut kept, mut numbers): (VecDeque<u64>, VecDeque<u64>) =
            (kept.into_iter().map(number).collect(), odd.into_iter().map(number).collect());
        // Where the question fails nobody knows of any room.
        let free = self.storage.free_bytes(Dir::Journal).unwrap_or(0);
        let most = if free >= ROOMY_SEGMENTS * self.segment_bytes { MOST_SPARES } else { SPARE_SEGMENTS };
        let wanted = (SPARE_SEGMENTS + numbers.len() + kept.len()).min(most);
        while self.ready.len() + self.old.len() + usize::from(self.preparing) + kept.len() > wanted
            && let Some(number) = kept.pop_front()
        {
            numbers.push_back(number);
        }
        self.old.append(&mut kept);
        if !numbers.is_empty() {
            numbers.make_contiguous().sort_unstable();
            self.remove(numbers);
        }
        self.prepare_more(None);
    }

    fn remove(&mut self, numbers: VecDeque<u64>) {
        self.trimming += 1;
        self.lane.submit(Job::Trim { numbers });
    }

    /// Waits for the end of what was begun: segments that are removed, one that is prepared.
    ///
    /// # Errors
    /// When the disk failed.
    pub(crate) fn finish(&mut self, now: Instant) -> Result<(), StorageError> {
        while self.trimming > 0 || self.preparing {
            let done = self.lane.wait();
            self.take_in(done, now)?;
        }
        Ok(())
    }
}

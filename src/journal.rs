//! The journal while the daemon runs: frames are buffered, appended to the current segment and synced;
//! segments turn. Knows frames, not what they mean; `chain` reads them back, `spares` has the next segment ready.
//!
//! Invariants:
//! 1. A frame never spans segments; a segment that is left ends with an end-of-segment frame. The next one
//!    takes frames at once: until the one before is synced they are a torn tail behind its hole.
//! 2. A segment takes its first frame only after its header, its full length and its name are durable.
//! 3. `synced` names a place before which everything is durable: it is read before `fdatasync` is called and
//!    believed after it returned. Segments are synced in their order.
//! 4. Batches leave one spare segment untouched, or while there is none a part of the current one: a checkpoint
//!    has room.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::background::{Done, Job, Segment, prepare_segment};
use crate::frame::{self, Content, END_BYTES, Frame, HEADER_BYTES, Header, Position};
use crate::lane::Lane;
use crate::queue::Bell;
use crate::spares::Spares;
use crate::storage::{File, Storage, StorageError};

/// Without a spare segment batches leave this part of the current one to a checkpoint.
const ROOM_SHARE: u64 = 4;
/// Once this part of a segment is used, the spare that the next turn will want should be ready.
const HURRY_SHARE: u64 = 2;
/// A buffer that grew beyond this for one large batch is given back.
const BUFFER_BYTES: usize = 16 << 20;

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A batch: leaves one spare.
    Batch,
    /// A checkpoint: may take any.
    Checkpoint,
}

/// The writing end of the journal.
#[derive(Debug)]
pub struct Journal {
    storage: StorageRef,
    segment: Segment,
    /// Where the next byte of the segment goes.
    end: u64,
    /// Frames not yet handed to the kernel.
    buffer: Vec<u8>,
    synced: Position,
    /// While the first checkpoint of a chain is written no frame may name a synced position.
    claims: bool,
    /// Syncs the segments while the writer goes on.
    syncs: Lane,
    /// The sync under way: the end of what it covers.
    syncing: Option<Position>,
    /// Segments that were left and are not synced, oldest first.
    left: Vec<File>,
    /// Bytes handed to the kernel that no sync covers, finished or under way.
    unsynced_bytes: u64,
    spares: Spares,
    /// Segments on disk up to the current one: number and length, oldest first.
    held: VecDeque<(u64, u64)>,
}

struct StorageRef(Storage);

impl std::fmt::Debug for StorageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storage")
    }
}

impl Journal {
    /// Begins a new chain with segment `number`. Its frames name no synced position until
    /// [`Journal::allow_claims`].
    ///
    /// # Errors
    /// Of the storage; lack of space shows here.
    pub fn begin(
        storage: Storage,
        lane: Lane,
        syncs: Lane,
        number: u64,
        segment_bytes: u64,
    ) -> Result<Journal, StorageError> {
        let uuid = uuid::Uuid::new_v4().as_u128();
        let header = Header { number, uuid, previous: 0, bytes: segment_bytes };
        // Whoever starts waits for it.
        let segment = prepare_segment(&storage, header, false, &AtomicBool::new(true))?;
        let mut journal = Journal {
            storage: StorageRef(storage.clone()),
            held: VecDeque::from([(number, segment.bytes)]),
            spares: Spares::new(storage, lane, header),
            segment,
            end: HEADER_BYTES,
            buffer: Vec::new(),
            synced: Position::NONE,
            claims: false,
            syncs,
            syncing: None,
            left: Vec::new(),
            unsynced_bytes: 0,
        };
        journal.spares.prepare_more(None);
        Ok(journal)
    }

    /// From now on frames name what is synced: the chain has a complete, synced checkpoint.
    pub fn allow_claims(&mut self) {
        self.claims = true;
    }

    /// Where the next frame will stand, unless the segment turns for it.
    pub fn position(&self) -> Position {
        Position { segment: self.segment.header.number, offset: self.end + self.buffer.len() as u64 }
    }

    /// Bytes handed to the kernel or buffered that no sync covers, finished or under way.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes + self.buffer.len() as u64
    }

    /// Whether a sync is under way.
    pub fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// From now on the end of a sync that is under way rings.
    pub fn ring(&self, with: Bell) {
        self.syncs.ring(with);
    }

    /// Size of a segment that is not made for one large batch.
    pub fn segment_bytes(&self) -> u64 {
        self.spares.segment_bytes()
    }

    /// Segments on disk up to the current one.
    pub fn held_segments(&self) -> usize {
        self.held.len()
    }

    /// Bytes of all segments on disk, spares included.
    pub fn held_bytes(&self) -> u64 {
        self.held.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.spares.bytes()
    }

    /// Why no segment could be prepared lately.
    pub fn lack_of_segments(&self) -> Option<&str> {
        self.spares.lack()
    }

    /// When [`Journal::tend`] wants to be called next.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.spares.next_deadline(now)
    }

    /// Takes in what the background did, and asks for more spares.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn tend(&mut self, now: Instant) -> Result<(), StorageError> {
        self.spares.tend(now)
    }

    /// Makes sure that a frame of `bytes` can be pushed, waiting for a segment under preparation. `false`:
    /// there is no space for another segment now.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn reserve(&mut self, bytes: u64, who: For, now: Instant) -> Result<bool, StorageError> {
        let no_spare = who == For::Batch && self.spares.is_empty();
        let left = if no_spare { self.segment_bytes() / ROOM_SHARE } else { 0 };
        if self.fits(bytes + left) {
            if self.position().offset > self.segment.bytes / HURRY_SHARE {
                self.spares.hurry();
            }
            return Ok(true);
        }
        let needed = if who == For::Batch { 2 } else { 1 };
        self.spares.wait_for(needed, HEADER_BYTES + bytes + END_BYTES, now)
    }

    fn fits(&self, bytes: u64) -> bool {
        self.position().offset + bytes + END_BYTES <= self.segment.bytes
    }

    /// Buffers a frame of at most `bytes` padded bytes, turning to the next segment where it does not fit;
    /// gives its place. Room must have been reserved.
    ///
    /// # Errors
    /// When the disk failed at a turn.
    pub fn push(&mut self, lsn: u64, content: Content<'_>, bytes: u64) -> Result<Position, StorageError> {
        if !self.fits(bytes) {
            self.turn()?;
        }
        let at = self.position();
        self.put(lsn, content);
        Ok(at)
    }

    fn put(&mut self, lsn: u64, content: Content<'_>) {
        let synced = if self.claims { self.synced } else { Position::NONE };
        let offset = self.position().offset;
        let frame = Frame { lsn, synced, content };
        frame::encode(&frame, self.segment.header.uuid, offset, &mut self.buffer);
    }

    /// Closes the segment and goes on in the next.
    fn turn(&mut self) -> Result<(), StorageError> {
        self.put(0, Content::EndOfSegment);
        self.flush()?;
        let next = self.spares.take().ok_or_else(|| StorageError {
            what: "turn of the journal".to_owned(),
            source: std::io::Error::other("no segment was reserved"),
        })?;
        self.held.push_back((next.header.number, next.bytes));
        self.left.push(std::mem::replace(&mut self.segment, next).file);
        self.end = HEADER_BYTES;
        self.spares.prepare_more(None);
        Ok(())
    }

    /// Hands the buffered frames to the kernel. An error here is the end: nobody knows what is on disk.
    ///
    /// # Errors
    /// Of the write, or somebody has deleted the segment.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.segment.file.write_all(self.end, &self.buffer);
        written.map_err(|(_, error)| self.storage.0.stop(error))?;
        self.end += self.buffer.len() as u64;
        self.unsynced_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        self.segment.file.check_name()
    }

    /// Begins to make everything flushed durable, where DATA's path leads. One at a time.
    pub fn begin_sync(&mut self) {
        let job = self.sync_job();
        self.syncs.submit(job);
    }

    /// Makes everything flushed durable on the spot: how long it took. Not while a sync is under way.
    ///
    /// # Errors
    /// As [`Journal::poll_sync`].
    pub fn sync_here(&mut self) -> Result<Duration, StorageError> {
        let mut here = Lane::inline(self.storage.0.clone());
        here.submit(self.sync_job());
        self.end_sync(here.wait())
    }

    fn sync_job(&mut self) -> Job {
        self.syncing = Some(Position { segment: self.segment.header.number, offset: self.end });
        self.unsynced_bytes = 0;
        Job::sync_journal(self.left.drain(..).chain([self.segment.file.clone()]))
    }

    /// The end of the sync under way, if it has come: how long it took.
    ///
    /// # Errors
    /// Of the sync, or somebody has taken the journal away; the latch is closed.
    pub fn poll_sync(&mut self) -> Result<Option<Duration>, StorageError> {
        if self.syncing.is_none() {
            return Ok(None);
        }
        self.syncs.poll().map(|done| self.end_sync(done)).transpose()
    }

    /// Waits for the end of the sync under way: how long it took.
    ///
    /// # Errors
    /// As [`Journal::poll_sync`].
    pub fn wait_for_sync(&mut self) -> Result<Option<Duration>, StorageError> {
        if self.syncing.is_none() {
            return Ok(None);
        }
        let done = self.syncs.wait();
        self.end_sync(done).map(Some)
    }

    fn end_sync(&mut self, done: Done) -> Result<Duration, StorageError> {
        match done {
            Done::JournalSynced(time) => {
                self.synced = self.syncing.take().unwrap_or(self.synced);
                Ok(time)
            }
            Done::Failed(error) => Err(error),
            _ => Err(StorageError {
                what: "sync of the journal".to_owned(),
                source: std::io::Error::other("its lane did something else"),
            }),
        }
    }

    /// Gives up the segments before `segment`: removes them in the background, or makes spares of them.
    pub fn trim(&mut self, segment: u64) {
        let mut needless = VecDeque::new();
        while let Some(old) = self.held.pop_front_if(|(number, _)| *number < segment) {
            needless.push_back(old);
        }
        self.spares.give_up(needless);
    }

    /// Waits for the end of what was begun: segments that are removed, one that is prepared.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn finish(&mut self, now: Instant) -> Result<(), StorageError> {
        self.spares.finish(now)
    }
}

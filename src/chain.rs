//! Reading the journal back: scan its segments (never writing), then decide what they mean. The decision is
//! a pure function of the scan. Used by recovery and by `lotlog verify`, also while a daemon runs.

use crate::batch::{MAX_LOT_STEM_BYTES, SessionId, decode_stem};
use crate::frame::{
    self, BatchFrame, Content, Frame, HEADER_BYTES, Header, HeaderCheck, PROLOGUE_BYTES, Position,
    segment_name, segment_number,
};
use crate::record;
use crate::storage::{Dir, Storage, StorageError};
use crate::window::{Bytes, Window};

/// Where in a frame the uuid of its segment stands, by which its frames are told from those of others.
const MARK_AT: usize = 16;
/// No segment is longer, in bytes: a frame's length has 32 bits, and only a single large one makes a segment grow.
const MOST_BYTES: u64 = (1 << 32) + 2 * HEADER_BYTES;

/// Valid frames one after the other, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of its first frame.
    pub start: u64,
    /// Offset behind its last frame.
    pub end: u64,
    /// Whether its last frame closes the segment.
    pub closed: bool,
}

/// A checkpoint's end frame, found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its identity.
    pub id: u128,
    /// Where its begin frame stands.
    pub begin: Position,
    /// Where its end frame ends.
    pub end: Position,
}

/// What a scan saw in one segment.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Its number, by its name.
    pub number: u64,
    /// Its header.
    pub header: HeaderCheck,
    /// The file's length, if it is shorter than the segment was made.
    pub cut_at: Option<u64>,
    /// Its runs of valid frames, in order.
    pub runs: Vec<Run>,
    /// Its checkpoint end frames, in order.
    pub checkpoints: Vec<Checkpoint>,
    /// The furthest synced position that any of its valid frames names.
    pub claim: Position,
    /// Number of its valid batch frames.
    pub batches: u64,
    /// Where the last of its frames ends, or what was begun of one. What stands behind may be of an older segment.
    pub used_end: u64,
}

/// What recovery has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing: begin the first chain.
    Fresh,
    /// Redo from the checkpoint up to the hole.
    Redo {
        /// The newest checkpoint that counts.
        checkpoint: Checkpoint,
        /// The first place without a valid frame.
        hole: Position,
        /// Bytes of a torn tail behind the hole, which were never promised to anybody.
        torn_bytes: u64,
    },
    /// Committed data is damaged, or may be.
    Damaged {
        /// Where.
        at: Position,
        /// What was found, and what that means.
        why: String,
    },
    /// A later version wrote this.
    Newer {
        /// The segment.
        number: u64,
        /// Its format version.
        version: u32,
    },
}

/// Numbers of the journal's segments, in order.
///
/// # Errors
/// Of the storage.
pub fn segments(storage: &Storage) -> Result<Vec<u64>, StorageError> {
    let mut numbers: Vec<u64> =
        storage.list(Dir::Journal)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Scans one segment of the storage.
///
/// # Errors
/// Of the storage.
pub fn scan_segment(storage: &Storage, number: u64) -> Result<Scanned, StorageError> {
    let (window, length) = Window::open(storage, number, MOST_BYTES)?;
    scan_bytes(number, window, length, |_, _| {})
}

/// Scans one segment's bytes, calling `each` on every valid frame. `length`: of its file, from where `bytes`
/// end filled with zeros.
pub fn scan(number: u64, bytes: &[u8], length: u64, each: impl FnMut(Position, &Frame<'_>)) -> Scanned {
    let Ok(seen) = scan_bytes(number, bytes, length, each);
    seen
}

fn scan_bytes<B: Bytes>(
    number: u64,
    mut bytes: B,
    length: u64,
    mut each: impl FnMut(Position, &Frame<'_>),
) -> Result<Scanned, B::Error> {
    let header = Header::decode(bytes.at(0, HEADER_BYTES as usize)?);
    let mut seen = Scanned {
        number,
        header,
        cut_at: None,
        runs: Vec::new(),
        checkpoints: Vec::new(),
        claim: Position::NONE,
        batches: 0,
        used_end: 0,
    };
    let HeaderCheck::Valid(Header { number: own, uuid, bytes: made, .. }) = header else { return Ok(seen) };
    if own != number {
        seen.header = HeaderCheck::Invalid;
        return Ok(seen);
    }
    seen.cut_at = (length < made).then_some(length);
    let mark = uuid.to_le_bytes();
    let ours = memchr::memmem::Finder::new(&mark);
    let mut at = HEADER_BYTES;
    let mut run: Option<Run> = None;
    loop {
        let rest = frame_at(&mut bytes, uuid, at)?;
        let Some((frame, length)) = frame::decode(rest, uuid, at) else {
            seen.runs.extend(run.take());
            if rest.get(MARK_AT..).is_some_and(|rest| rest.starts_with(&mark)) {
                seen.used_end = at + rest.len().min(PROLOGUE_BYTES) as u64;
            }
            match next_marked(&ours, &mut bytes, at + frame::ALIGN as u64)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        let place = Position { segment: number, offset: at };
        let end = at + length as u64;
        let current = run.get_or_insert(Run { start: at, end, closed: false });
        current.end = end;
        seen.claim = seen.claim.max(frame.synced);
        match &frame.content {
            Content::Batch(_) => seen.batches += 1,
            Content::EndOfSegment => current.closed = true,
            Content::CheckpointEnd { id, begin } => seen.checkpoints.push(Checkpoint {
                id: *id,
                begin: *begin,
                end: Position { segment: number, offset: end },
            }),
            _ => {}
        }
        each(place, &frame);
        at = end;
        seen.used_end = at;
        if matches!(frame.content, Content::EndOfSegment) {
            // Nothing is ever written behind it.
            break;
        }
    }
    seen.runs.extend(run);
    Ok(seen)
}

/// The bytes from `at` on: all of a frame, if one begins there.
fn frame_at<B: Bytes>(bytes: &mut B, uuid: u128, at: u64) -> Result<&[u8], B::Error> {
    let length = frame::frame_length(bytes.at(at, PROLOGUE_BYTES)?, uuid, at).unwrap_or(PROLOGUE_BYTES);
    bytes.at(at, length.next_multiple_of(frame::ALIGN))
}

/// The next place from `from` on where a frame of this segment may begin.
fn next_marked<B: Bytes>(
    ours: &memchr::memmem::Finder<'_>,
    bytes: &mut B,
    from: u64,
) -> Result<Option<u64>, B::Error> {
    let length = ours.needle().len();
    let mut mark = from + MARK_AT as u64;
    loop {
        let some = bytes.at(mark, length)?;
        if some.len() < length {
            return Ok(None);
        }
        match ours.find(some) {
            // It may begin at the end of these.
            None => mark += (some.len() - length + 1) as u64,
            Some(there) => {
                mark += there as u64;
                let at = mark - MARK_AT as u64;
                if at.is_multiple_of(frame::ALIGN as u64) {
                    return Ok(Some(at));
                }
                mark += 1;
            }
        }
    }
}

/// Decides what a journal means. `segments` in order of their numbers; `lots_exist`: whether any lot file does.
pub fn decide(segments: &[Scanned], lots_exist: bool) -> Decision {
    let newer = |s: &Scanned| match s.header {
        HeaderCheck::Newer(version) => Some(Decision::Newer { number: s.number, version }),
        _ => None,
    };
    if let Some(newer) = segments.iter().find_map(newer) {
        return newer;
    }
    let mut checkpoints: Vec<&Checkpoint> = segments.iter().flat_map(|s| &s.checkpoints).collect();
    checkpoints.sort_by_key(|c| std::cmp::Reverse(c.end));
    let Some(checkpoint) = checkpoints.into_iter().find(|c| counts(segments, c)) else {
        return without_checkpoint(segments, lots_exist);
    };
    // Follow the chain from the checkpoint to the first place without a valid frame.
    let mut at = checkpoint.begin;
    let mut claim = Position::NONE;
    let mut hole = None;
    let mut rest = segments.iter().filter(|s| s.number >= checkpoint.begin.segment).peekable();
    let mut torn_bytes = 0;
    while let Some(segment) = rest.next() {
        if let Some(cut) = cut(segment) {
            return cut;
        }
        claim = claim.max(segment.claim);
        let run = run_at(segment, at.offset);
        if hole.is_none() && run.is_none_or(|run| !run.closed) {
            let offset = run.map_or(at.offset, |run| run.end);
            hole = Some(Position { segment: segment.number, offset });
            torn_bytes += segment.used_end.saturating_sub(offset);
        } else if hole.is_some() {
            torn_bytes += segment.used_end.saturating_sub(HEADER_BYTES);
        }
        let missing = || Decision::Damaged {
            at: Position { segment: segment.number + 1, offset: 0 },
            why: format!(
                "{} is closed, so this segment was made durable before: it is missing, and with it what it held",
                segment_name(segment.number)
            ),
        };
        let Some(next) = rest.peek() else {
            if hole.is_none() {
                return missing();
            }
            break;
        };
        at = Position { segment: next.number, offset: HEADER_BYTES };
        match link(segment, next) {
            Link::Follows => {}
            Link::NewChain if hole.is_none() => return missing(),
            Link::NewChain => break,
            Link::Broken(why) => {
                return Decision::Damaged { at: Position { segment: next.number, offset: 0 }, why };
            }
        }
    }
    // The loop ran at least once: the checkpoint stands in one of the segments.
    let hole = hole.unwrap_or(checkpoint.end);
    if claim > hole {
        let why = format!(
            "no valid frame stands here, but everything before {claim} was synced and acknowledged: committed batches are damaged"
        );
        return Decision::Damaged { at: hole, why };
    }
    // What is left belongs to a chain that a recovery had begun; it counts only once its checkpoint does.
    for segment in rest {
        if let Some(cut) = cut(segment) {
            return cut;
        }
        if segment.claim > Position::NONE || segment.header == HeaderCheck::Invalid {
            let at = Position { segment: segment.number, offset: segment.runs.first().map_or(0, |r| r.end) };
            let why = "a later chain was in use, but its first checkpoint is damaged".to_owned();
            return Decision::Damaged { at, why };
        }
    }
    Decision::Redo { checkpoint: *checkpoint, hole, torn_bytes }
}

/// A segment's file has its full length before it has its name, and is never shortened.
fn cut(segment: &Scanned) -> Option<Decision> {
    let at = Position { segment: segment.number, offset: segment.cut_at? };
    let why =
        "the file ends here, but it was longer when it was made: it was cut, and committed batches with it"
            .to_owned();
    Some(Decision::Damaged { at, why })
}

/// Whether every frame from the checkpoint's begin to its end is valid.
fn counts(segments: &[Scanned], checkpoint: &Checkpoint) -> bool {
    let Some(first) = segments.iter().position(|s| s.number == checkpoint.begin.segment) else {
        return false;
    };
    let mut offset = checkpoint.begin.offset;
    for (at, segment) in segments.iter().enumerate().skip(first) {
        if at > first && !matches!(link(&segments[at - 1], segment), Link::Follows) {
            return false;
        }
        let Some(run) = run_at(segment, offset) else { return false };
        if segment.number == checkpoint.end.segment {
            return run.end >= checkpoint.end.offset;
        }
        if !run.closed {
            return false;
        }
        offset = HEADER_BYTES;
    }
    false
}

fn run_at(segment: &Scanned, offset: u64) -> Option<Run> {
    segment.runs.iter().copied().find(|run| run.start <= offset && offset < run.end)
}

enum Link {
    Follows,
    NewChain,
    Broken(String),
}

fn link(one: &Scanned, next: &Scanned) -> Link {
    let (HeaderCheck::Valid(one), HeaderCheck::Valid(next_header)) = (one.header, next.header) else {
        return Link::Broken("the segment's header is damaged".to_owned());
    };
    if next_header.previous == 0 {
        Link::NewChain
    } else if next.number != one.number + 1 {
        Link::Broken(format!("segment {} before it is missing", segment_name(next.number - 1)))
    } else if next_header.previous != one.uuid {
        Link::Broken(format!("the segment does not follow {}", segment_name(one.number)))
    } else {
        Link::Follows
    }
}

fn without_checkpoint(segments: &[Scanned], lots_exist: bool) -> Decision {
    if let Some(cut) = segments.iter().find_map(cut) {
        return cut;
    }
    let damaged = segments.iter().find(|s| s.header == HeaderCheck::Invalid);
    if let Some(segment) = damaged {
        let at = Position { segment: segment.number, offset: 0 };
        return Decision::Damaged {
            at,
            why: "the segment's header is damaged, and no checkpoint counts".to_owned(),
        };
    }
    let used = segments.iter().find(|s| s.batches > 0 || s.claim > Position::NONE);
    // Segments of a first start that was cut short begin with number 1; a later chain's are not alone before its
    // first checkpoint is synced.
    let first_start = segments.first().is_none_or(|s| s.number == 1);
    if used.is_none() && !lots_exist && first_start {
        return Decision::Fresh;
    }
    let first = segments.first();
    let at = Position {
        segment: first.map_or(1, |s| s.number),
        offset: first.map_or(0, |s| s.runs.first().map_or(HEADER_BYTES, |run| run.end)),
    };
    let why = if segments.is_empty() {
        "there are lot files, but no journal: it says which batches they must hold and which sessions stored them"
    } else {
        "the journal has no checkpoint that counts, so nobody knows which of its batches are in the lot files"
    };
    Decision::Damaged { at, why: why.to_owned() }
}

/// Calls `each` on every frame from `from` up to `hole`, reading a window at a time.
///
/// # Errors
/// Of the storage, or of `each`.
pub fn replay<E: From<StorageError>>(
    storage: &Storage,
    from: Position,
    hole: Position,
    mut each: impl FnMut(Position, &Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for number in from.segment..=hole.segment {
        let (mut bytes, _) = Window::open(storage, number, MOST_BYTES)?;
        let HeaderCheck::Valid(header) = Header::decode(bytes.at(0, HEADER_BYTES as usize)?) else {
            return Ok(());
        };
        let mut at = if number == from.segment { from.offset } else { HEADER_BYTES };
        while number < hole.segment || at < hole.offset {
            let rest = frame_at(&mut bytes, header.uuid, at)?;
            let Some((frame, length)) = frame::decode(rest, header.uuid, at) else {
                let source = std::io::Error::other("a frame that was valid a moment ago no longer is");
                let what = format!("second read of {}", Position { segment: number, offset: at });
                return Err(StorageError { what, source }.into());
            };
            each(Position { segment: number, offset: at }, &frame)?;
            if matches!(frame.content, Content::EndOfSegment) {
                break;
            }
            at += length as u64;
        }
    }
    Ok(())
}

/// Numbers that the daemon counts up; no journal of ours reaches this.
pub const MOST: u64 = i64::MAX as u64;

/// What is wrong with a batch, although its checksum holds. Nothing that a disk does ends here: it would take
/// another writer, or a defect of this one, and redoing it could only make it worse.
pub fn contradiction(frame: &Frame<'_>, batch: &BatchFrame<'_>, next_lsn: u64) -> Option<String> {
    let (lsn, pending) = (frame.lsn, !matches!(frame.content, Content::Batch(_)));
    if !(1..MOST).contains(&lsn) || (if pending { lsn >= next_lsn } else { lsn != next_lsn }) {
        return Some(format!("a batch with lsn {lsn} stands where lsn {next_lsn} comes next"));
    }
    let (mut records, mut empty, mut end) = (0, 0, 0);
    for at in memchr::memchr_iter(b'\n', batch.items) {
        records += 1;
        empty += usize::from(at == end);
        end = at + 1;
    }
    let bytes = record::bytes_of_lines(batch.items.len(), records, empty, batch.suffix.len());
    let lengths = end == batch.items.len() && records == batch.records as usize && bytes == batch.lines_bytes;
    let place = batch.lot_offset.checked_add(bytes).is_some_and(|end| end <= MOST);
    let lot = batch.lot.len() <= MAX_LOT_STEM_BYTES && decode_stem(batch.lot).is_some();
    let session =
        if batch.session.is_empty() { batch.seq == 0 } else { SessionId::new(batch.session).is_some() };
    let good = lengths && place && lot && session && batch.seq <= MOST;
    (!good).then(|| format!("the batch with lsn {lsn} does not agree with itself"))
}

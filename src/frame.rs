//! Frames and segment headers as bytes: encode, decode, check. Pure: knows neither files nor the order of
//! frames.
//!
//! A segment file is a header of [`HEADER_BYTES`], then frames, each at a multiple of 8, then zeros or what an
//! older segment left in its place. All numbers are little-endian.
//!
//! | frame at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | length of the frame in bytes, prologue included, padding not |
//! | 4 | 4 | CRC-32C over the frame's offset in the segment (8 bytes that are not written), the length, the kind's 4 bytes and the segment uuid |
//! | 8 | 4 | kind |
//! | 12 | 4 | CRC-32C over the offset likewise and the whole frame but these 4 bytes |
//! | 16 | 16 | uuid of the segment, so that bytes of an older file cannot pass for this one's |
//! | 32 | 8 | lsn (0 where the kind has none) |
//! | 40 | 8 + 8 | synced position: segment number and offset of the journal's end before the last successful `fdatasync` was called; 0, 0 for none |
//! | 56 | | the kind's own fields |
//!
//! So a frame counts only at its own place of its own segment: a copy of it elsewhere is damage like any other.

use std::fmt;

/// Version of segment and frame format that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment header: a page of its own, never rewritten after its sync.
pub const HEADER_BYTES: u64 = 4096;
/// Bytes of a frame's prologue.
pub const PROLOGUE_BYTES: usize = 56;
/// Frames begin at multiples of this.
pub const ALIGN: usize = 8;
/// Room that a segment keeps for its end-of-segment frame.
pub const END_BYTES: u64 = PROLOGUE_BYTES as u64;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN as u64) && PROLOGUE_BYTES.is_multiple_of(ALIGN));

const MAGIC: &[u8; 8] = b"LOTLOGJ\n";
const HEADER_FIELDS: usize = 64;

/// A place in the journal. Ordered as the journal is. [`Position::NONE`] comes before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Segment number, from 1.
    pub segment: u64,
    /// Offset in the segment, in bytes.
    pub offset: u64,
}

impl Position {
    /// No position.
    pub const NONE: Position = Position { segment: 0, offset: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal/{} offset {}", segment_name(self.segment), self.offset)
    }
}

/// The file name of a segment.
pub fn segment_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// The number of a segment file; `None` for any other name.
pub fn segment_number(name: &str) -> Option<u64> {
    let hex = name.strip_suffix(".wal")?;
    let number = u64::from_str_radix(hex, 16).ok()?;
    (segment_name(number) == name && number > 0).then_some(number)
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its number.
    pub number: u64,
    /// Random identity.
    pub uuid: u128,
    /// Identity of the segment before it; 0 where a chain begins.
    pub previous: u128,
    /// The file's length in bytes when it was made. It may grow for one large batch; a shorter file was cut.
    pub bytes: u64,
}

/// What a header turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCheck {
    /// A header of this format.
    Valid(Header),
    /// A header of a later format.
    Newer(u32),
    /// Not a header.
    Invalid,
}

impl Header {
    /// The header's page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES as usize);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.uuid.to_le_bytes());
        page.extend_from_slice(&self.previous.to_le_bytes());
        page.extend_from_slice(&self.bytes.to_le_bytes());
        debug_assert_eq!(page.len(), HEADER_FIELDS);
        page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
        page.resize(HEADER_BYTES as usize, 0);
        page
    }

    /// Reads a header back.
    pub fn decode(page: &[u8]) -> HeaderCheck {
        let Some((fields, rest)) = page.split_at_checked(HEADER_FIELDS) else { return HeaderCheck::Invalid };
        if &fields[..8] != MAGIC || rest.get(..4) != Some(&crc32c::crc32c(fields).to_le_bytes()) {
            return HeaderCheck::Invalid;
        }
        let mut fields = Fields(&fields[8..]);
        let version = fields.u32().unwrap_or(0);
        if version > FORMAT_VERSION {
            return HeaderCheck::Newer(version);
        }
        let read = |fields: &mut Fields<'_>| {
            fields.u32()?;
            let (number, uuid, previous) = (fields.u64()?, fields.u128()?, fields.u128()?);
            Some(Header { number, uuid, previous, bytes: fields.u64()? })
        };
        read(&mut fields).map_or(HeaderCheck::Invalid, HeaderCheck::Valid)
    }
}

/// One session as a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session's name.
    pub session: String,
    /// Its last number.
    pub seq: u64,
    /// The lsn of that batch.
    pub lsn: u64,
    /// Its records.
    pub records: u32,
    /// Its content hash.
    pub content_hash: u128,
    /// When it was last used, in seconds of the daemon's running time.
    pub used_seconds: u64,
}

/// A batch as the journal keeps it; borrowed from the frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFrame<'a> {
    /// File stem of the lot.
    pub lot: &'a str,
    /// Where its lines begin in the lot file.
    pub lot_offset: u64,
    /// Number of items.
    pub records: u32,
    /// Bytes of its lines.
    pub lines_bytes: u64,
    /// Its timestamp, in microseconds since 1970.
    pub stamp_micros: i64,
    /// The session, empty for none.
    pub session: &'a str,
    /// The number in the session, 0 for none.
    pub seq: u64,
    /// Hash of its content.
    pub content_hash: u128,
    /// The end of every record, as in `batch::Body`, stamped.
    pub suffix: &'a [u8],
    /// The item texts, as in `batch::Body`.
    pub items: &'a [u8],
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// A batch. Within a checkpoint: one that is committed but could not be written to its lot yet.
    Batch(BatchFrame<'a>),
    /// The segment ends here; the next one goes on.
    EndOfSegment,
    /// A checkpoint begins: every batch below `next_lsn` is in its lot file, or follows as a copy.
    CheckpointBegin {
        /// Its identity.
        id: u128,
        /// Redo starts here.
        next_lsn: u64,
        /// The last timestamp given, in microseconds since 1970.
        stamp_micros: i64,
        /// The daemon's running time in seconds.
        running_seconds: u64,
    },
    /// A batch of a checkpoint that is committed, but not in its lot file.
    Pending {
        /// The checkpoint's identity.
        id: u128,
        /// The batch.
        batch: BatchFrame<'a>,
    },
    /// A part of the session table.
    Sessions {
        /// The checkpoint's identity.
        id: u128,
        /// The rows.
        rows: Vec<SessionRow>,
    },
    /// The checkpoint is complete.
    CheckpointEnd {
        /// Its identity.
        id: u128,
        /// Where its begin frame stands.
        begin: Position,
    },
}

/// A frame, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    /// The lsn; 0 where the kind has none.
    pub lsn: u64,
    /// What the journal had synced when the frame was made.
    pub synced: Position,
    /// What it says.
    pub content: Content<'a>,
}

const KIND_BATCH: u32 = 1;
const KIND_END: u32 = 2;
const KIND_BEGIN: u32 = 3;
const KIND_PENDING: u32 = 4;
const KIND_SESSIONS: u32 = 5;
const KIND_CHECKPOINT_END: u32 = 6;

/// Bytes that a batch's frame takes in a segment, padding included.
pub fn batch_frame_bytes(lot: &str, session: &str, suffix: &[u8], items: &[u8]) -> u64 {
    let fields =
        8 + 4 + 8 + 8 + 8 + 16 + 4 + lot.len() + 4 + session.len() + 4 + suffix.len() + 4 + items.len();
    // A pending copy carries its checkpoint's id as well.
    (PROLOGUE_BYTES + 16 + fields).next_multiple_of(ALIGN) as u64
}

/// Appends a frame, padded, to `out`; it will stand at `offset` of its segment.
pub fn encode(frame: &Frame<'_>, segment_uuid: u128, offset: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let kind = match &frame.content {
        Content::Batch(_) => KIND_BATCH,
        Content::EndOfSegment => KIND_END,
        Content::CheckpointBegin { .. } => KIND_BEGIN,
        Content::Pending { .. } => KIND_PENDING,
        Content::Sessions { .. } => KIND_SESSIONS,
        Content::CheckpointEnd { .. } => KIND_CHECKPOINT_END,
    };
    out.extend_from_slice(&[0; 8]);
    put32(out, kind);
    put32(out, 0);
    put128(out, segment_uuid);
    put64(out, frame.lsn);
    put64(out, frame.synced.segment);
    put64(out, frame.synced.offset);
    match &frame.content {
        Content::Batch(batch) => put_batch(out, batch),
        Content::EndOfSegment => {}
        Content::CheckpointBegin { id, next_lsn, stamp_micros, running_seconds } => {
            put128(out, *id);
            put64(out, *next_lsn);
            put64(out, stamp_micros.cast_unsigned());
            put64(out, *running_seconds);
        }
        Content::Pending { id, batch } => {
            put128(out, *id);
            put_batch(out, batch);
        }
        Content::Sessions { id, rows } => {
            put128(out, *id);
            for row in rows {
                put_bytes(out, row.session.as_bytes());
                put64(out, row.seq);
                put64(out, row.lsn);
                put32(out, row.records);
                put128(out, row.content_hash);
                put64(out, row.used_seconds);
            }
        }
        Content::CheckpointEnd { id, begin } => {
            put128(out, *id);
            put64(out, begin.segment);
            put64(out, begin.offset);
        }
    }
    let length = out.len() - start;
    // A frame is at most a segment, and a segment is far below 4 GiB (asserted in `config`).
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    let short = length_crc(&out[start..], offset);
    out[start + 4..start + 8].copy_from_slice(&short.to_le_bytes());
    let whole = frame_crc(&out[start..], offset);
    out[start + 12..start + 16].copy_from_slice(&whole.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn put_batch(out: &mut Vec<u8>, batch: &BatchFrame<'_>) {
    put64(out, batch.lot_offset);
    put32(out, batch.records);
    put64(out, batch.lines_bytes);
    put64(out, batch.stamp_micros.cast_unsigned());
    put64(out, batch.seq);
    put128(out, batch.content_hash);
    put_bytes(out, batch.lot.as_bytes());
    put_bytes(out, batch.session.as_bytes());
    put_bytes(out, batch.suffix);
    put_bytes(out, batch.items);
}

fn length_crc(frame: &[u8], offset: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), &frame[..4]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &frame[8..12]), &frame[16..32])
}

fn frame_crc(frame: &[u8], offset: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), &frame[..12]);
    crc32c::crc32c_append(crc, &frame[16..])
}

/// Length of the frame that begins at the start of `bytes`, unpadded, if its short checksum holds and it is
/// of this place of this segment.
pub(crate) fn frame_length(bytes: &[u8], segment_uuid: u128, offset: u64) -> Option<usize> {
    let prologue = bytes.get(..PROLOGUE_BYTES)?;
    let mut fields = Fields(prologue);
    let (length, crc) = (fields.u32()? as usize, fields.u32()?);
    let _kind = fields.u32()?;
    let _crc = fields.u32()?;
    let good =
        fields.u128()? == segment_uuid && length >= PROLOGUE_BYTES && length_crc(prologue, offset) == crc;
    good.then_some(length)
}

/// Decodes the frame at the start of `bytes`, which stand at `offset` of their segment; gives it with its
/// padded length. `None` if any bit is wrong.
pub fn decode(bytes: &[u8], segment_uuid: u128, offset: u64) -> Option<(Frame<'_>, usize)> {
    let length = frame_length(bytes, segment_uuid, offset)?;
    let frame = bytes.get(..length)?;
    let mut fields = Fields(&frame[8..]);
    let (kind, crc) = (fields.u32()?, fields.u32()?);
    if frame_crc(frame, offset) != crc {
        return None;
    }
    fields.u128()?;
    let lsn = fields.u64()?;
    let synced = Position { segment: fields.u64()?, offset: fields.u64()? };
    let content = match kind {
        KIND_BATCH => Content::Batch(fields.batch()?),
        KIND_END => Content::EndOfSegment,
        KIND_BEGIN => Content::CheckpointBegin {
            id: fields.u128()?,
            next_lsn: fields.u64()?,
            stamp_micros: fields.u64()?.cast_signed(),
            running_seconds: fields.u64()?,
        },
        KIND_PENDING => Content::Pending { id: fields.u128()?, batch: fields.batch()? },
        KIND_SESSIONS => {
            let id = fields.u128()?;
            let mut rows = Vec::new();
            while !fields.0.is_empty() {
                rows.push(SessionRow {
                    session: fields.text()?.to_owned(),
                    seq: fields.u64()?,
                    lsn: fields.u64()?,
                    records: fields.u32()?,
                    content_hash: fields.u128()?,
                    used_seconds: fields.u64()?,
                });
            }
            Content::Sessions { id, rows }
        }
        KIND_CHECKPOINT_END => Content::CheckpointEnd {
            id: fields.u128()?,
            begin: Position { segment: fields.u64()?, offset: fields.u64()? },
        },
        _ => return None,
    };
    let padded = length.next_multiple_of(ALIGN);
    let padding = bytes.get(length..padded)?;
    (fields.0.is_empty() && padding.iter().all(|b| *b == 0))
        .then_some((Frame { lsn, synced, content }, padded))
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put128(out: &mut Vec<u8>, value: u128) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Reads fields off the front of a slice; `None` where they are cut short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn batch(&mut self) -> Option<BatchFrame<'a>> {
        Some(BatchFrame {
            lot_offset: self.u64()?,
            records: self.u32()?,
            lines_bytes: self.u64()?,
            stamp_micros: self.u64()?.cast_signed(),
            seq: self.u64()?,
            content_hash: self.u128()?,
            lot: self.text()?,
            session: self.text()?,
            suffix: self.bytes()?,
            items: self.bytes()?,
        })
    }
}

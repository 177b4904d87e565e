//! Journals whose every checksum holds and that contradict themselves all the same: only a defect, or somebody
//! who knows the format, makes them. The start is refused, naming the frame; nothing is taken on trust.

use lotlog::frame::{
    BatchFrame, Content, Frame, HEADER_BYTES, Header, Position, SessionRow, encode, segment_name,
};
use lotlog::storage::Dir;

use crate::directory::{Came, check_refusal, small};
use crate::mutate::put;
use crate::sim::*;

const UUID: u128 = 77;
const ID: u128 = 5;
const ITEMS: &[u8] = b"\"a\":1\n\n";
const SUFFIX: &[u8] = b"\"timestamp\":\"2026-01-01T00:00:00.000000+00:00\"}\n";
/// Bytes of its two lines: `{"a":1,` and `{`, each with the suffix.
const LINES: u64 = 8 + 2 * SUFFIX.len() as u64;

pub fn batch<'a>() -> BatchFrame<'a> {
    BatchFrame {
        lot: "L",
        lot_offset: 0,
        records: 2,
        lines_bytes: LINES,
        stamp_micros: 1_767_225_600_000_001,
        session: "s",
        seq: 1,
        content_hash: 9,
        suffix: SUFFIX,
        items: ITEMS,
    }
}

fn row(seq: u64, lsn: u64) -> SessionRow {
    SessionRow { session: "t".to_owned(), seq, lsn, records: 1, content_hash: 1, used_seconds: 0 }
}

fn begin(next_lsn: u64, running_seconds: u64) -> Content<'static> {
    Content::CheckpointBegin { id: ID, next_lsn, stamp_micros: 1_767_225_600_000_000, running_seconds }
}

/// A directory with one segment of these frames, a checkpoint first; gives the frames' offsets too.
fn directory(checkpoint: Vec<Content<'_>>, batches: &[(u64, BatchFrame<'_>)]) -> (World, Vec<u64>) {
    let header = Header { number: 1, uuid: UUID, previous: 0, bytes: 64 << 10 };
    let mut bytes = header.encode();
    let mut places = Vec::new();
    let mut push = |lsn, content| {
        places.push(bytes.len() as u64);
        let frame = Frame { lsn, synced: Position::NONE, content };
        encode(&frame, UUID, bytes.len() as u64, &mut bytes);
    };
    for content in checkpoint {
        push(0, content);
    }
    push(0, Content::CheckpointEnd { id: ID, begin: Position { segment: 1, offset: HEADER_BYTES } });
    for (lsn, batch) in batches {
        push(*lsn, Content::Batch(*batch));
    }
    bytes.resize(64 << 10, 0);
    let mut world = World::new();
    put(&mut world, Dir::Journal, &segment_name(1), &bytes);
    (world, places)
}

fn start(world: &World) -> Result<Lots, Position> {
    let disk = SimDisk::new(world.clone());
    match open(&disk, &Around::new(), &small()) {
        Ok(_) => Ok(lots(&disk.world.lock().unwrap())),
        Err(error) => match check_refusal(&disk, world, &error, "crafted") {
            Came::Refused(at) => Err(at),
            other => panic!("{other:?}"),
        },
    }
}

#[track_caller]
fn check_refused(checkpoint: Vec<Content<'_>>, batches: &[(u64, BatchFrame<'_>)], frame: usize) {
    let (world, places) = directory(checkpoint, batches);
    assert_eq!(start(&world), Err(Position { segment: 1, offset: places[frame] }));
}

#[test]
fn a_crafted_journal_without_a_contradiction_is_redone() {
    let second = BatchFrame { lot_offset: LINES, seq: 2, ..batch() };
    let (world, _) = directory(vec![begin(4, 0)], &[(4, batch()), (5, second)]);
    let found = start(&world).unwrap();
    assert_eq!(found["L"].len() as u64, 2 * LINES);
    assert!(found["L"].starts_with(b"{\"a\":1,\"timestamp\""), "{:?}", found["L"]);
}

#[test]
fn a_lsn_that_does_not_come_next_is_refused() {
    let second = BatchFrame { lot: "M", seq: 2, ..batch() };
    for (first, then) in [(3, 4), (5, 6), (4, 4), (4, 6), (4, 3), (4, u64::MAX)] {
        let frame = if first == 4 { 3 } else { 2 };
        check_refused(vec![begin(4, 0)], &[(first, batch()), (then, second)], frame);
    }
    check_refused(vec![begin(4, 0), Content::Pending { id: ID, batch: batch() }], &[], 1);
}

#[test]
fn a_batch_that_does_not_agree_with_itself_is_refused() {
    let long = "x".repeat(201);
    for bad in [
        BatchFrame { records: 3, ..batch() },
        BatchFrame { lines_bytes: LINES + 1, ..batch() },
        BatchFrame { lines_bytes: u64::MAX, ..batch() },
        BatchFrame { items: b"\"a\":1\n\"b", ..batch() },
        BatchFrame { items: b"", ..batch() },
        BatchFrame { lot_offset: u64::MAX, ..batch() },
        BatchFrame { lot_offset: i64::MAX as u64, ..batch() },
        BatchFrame { lot: "", ..batch() },
        BatchFrame { lot: "..", ..batch() },
        BatchFrame { lot: "../../etc/passwd", ..batch() },
        BatchFrame { lot: "a/b", ..batch() },
        BatchFrame { lot: "a\0b", ..batch() },
        BatchFrame { lot: &long, ..batch() },
        BatchFrame { session: "a b", ..batch() },
        BatchFrame { session: "", ..batch() },
        BatchFrame { seq: u64::MAX, ..batch() },
    ] {
        check_refused(vec![begin(1, 0)], &[(1, bad)], 2);
    }
}

#[test]
fn a_checkpoint_with_numbers_that_are_never_given_is_refused() {
    check_refused(vec![begin(0, 0)], &[], 0);
    check_refused(vec![begin(u64::MAX, 0)], &[(u64::MAX, batch())], 0);
    check_refused(vec![Content::Sessions { id: ID, rows: vec![row(1, 1)] }], &[(1, batch())], 0);
    for bad in [row(u64::MAX, 1), row(1, u64::MAX)] {
        let sessions = Content::Sessions { id: ID, rows: vec![bad] };
        check_refused(vec![begin(2, 0), sessions], &[], 1);
    }
    let (world, _) = directory(vec![begin(2, u64::MAX)], &[(2, batch())]);
    assert!(start(&world).is_ok(), "a running time of any length is only an age");
}

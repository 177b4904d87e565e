//! Frames and segments as bytes: whatever is cut or flipped is found. Decisions over all their cases.

use lotlog::chain::{Checkpoint, Decision, Run, Scanned, decide, scan};
use lotlog::frame::{
    ALIGN, BatchFrame, Content, Frame, HEADER_BYTES, Header, HeaderCheck, Position, SessionRow, decode,
    encode, segment_name, segment_number,
};
use proptest::prelude::*;

fn any_frame() -> impl Strategy<Value = (u64, Position, Vec<u8>, Vec<u8>, String, u8)> {
    let position = (any::<u64>(), any::<u64>()).prop_map(|(segment, offset)| Position { segment, offset });
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    (any::<u64>(), position, bytes(), bytes(), "[a-z%._-]{0,40}", 0..6u8)
}

fn content<'a>(kind: u8, items: &'a [u8], suffix: &'a [u8], text: &'a str, number: u64) -> Content<'a> {
    let batch = BatchFrame {
        lot: text,
        lot_offset: number,
        records: number as u32,
        lines_bytes: !number,
        stamp_micros: number as i64,
        session: text,
        seq: number,
        content_hash: u128::from(number) << 60,
        suffix,
        items,
    };
    let id = u128::from(number) * 3;
    match kind {
        0 => Content::Batch(batch),
        1 => Content::EndOfSegment,
        2 => Content::CheckpointBegin { id, next_lsn: number, stamp_micros: -5, running_seconds: 7 },
        3 => Content::Pending { id, batch },
        4 => {
            let row = SessionRow {
                session: text.to_owned(),
                seq: 1,
                lsn: number,
                records: 3,
                content_hash: id,
                used_seconds: 9,
            };
            Content::Sessions { id, rows: vec![row; items.len() % 5] }
        }
        _ => Content::CheckpointEnd { id, begin: Position { segment: number, offset: 1 } },
    }
}

proptest! {
    #[test]
    fn a_frame_reads_back_as_it_was((lsn, synced, items, suffix, text, kind) in any_frame(), uuid: u128) {
        let frame = Frame { lsn, synced, content: content(kind, &items, &suffix, &text, lsn) };
        let mut bytes = Vec::new();
        encode(&frame, uuid, 4096, &mut bytes);
        prop_assert_eq!(bytes.len() % ALIGN, 0);
        let (back, length) = decode(&bytes, uuid, 4096).unwrap();
        prop_assert_eq!(length, bytes.len());
        prop_assert_eq!(back, frame);
        prop_assert!(decode(&bytes, !uuid, 4096).is_none(), "a frame of another segment");
        prop_assert!(decode(&bytes, uuid, 4104).is_none(), "a frame of another place");
    }

    #[test]
    fn any_cut_or_flipped_byte_of_a_frame_is_found(
        (lsn, synced, items, suffix, text, kind) in any_frame(),
        place: prop::sample::Index,
        flip in 1..=255u8,
    ) {
        let frame = Frame { lsn, synced, content: content(kind, &items, &suffix, &text, lsn) };
        let mut bytes = Vec::new();
        encode(&frame, 7, 4096, &mut bytes);
        let at = place.index(bytes.len());
        prop_assert!(decode(&bytes[..at], 7, 4096).is_none(), "cut at {}", at);
        bytes[at] ^= flip;
        prop_assert!(decode(&bytes, 7, 4096).is_none(), "byte {} flipped by {:#x}", at, flip);
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000), uuid: u128) {
        let _ = decode(&bytes, uuid, 4096);
        let _ = Header::decode(&bytes);
        let _ = scan(1, &bytes, 5000, |_, _| {});
    }

    #[test]
    fn a_flip_anywhere_in_a_segment_never_yields_a_frame_that_was_not_written(place: prop::sample::Index, flip in 1..=255u8) {
        let header = Header { number: 1, uuid: 99, previous: 0, bytes: 4096 };
        let mut bytes = header.encode();
        for lsn in 1..6 {
            let frame = Frame { lsn, synced: Position::NONE, content: content(0, b"a\nbb\n", b"suffix\n", "lot", lsn) };
            let offset = bytes.len() as u64;
            encode(&frame, 99, offset, &mut bytes);
        }
        bytes.resize(bytes.len() + 512, 0);
        let mut written = Vec::new();
        scan(1, &bytes, bytes.len() as u64, |_, frame| written.push(format!("{frame:?}")));
        prop_assert_eq!(written.len(), 5);
        let at = place.index(bytes.len());
        bytes[at] ^= flip;
        let mut found = Vec::new();
        scan(1, &bytes, bytes.len() as u64, |_, frame| found.push(format!("{frame:?}")));
        prop_assert!(found.iter().all(|frame| written.contains(frame)));
        // The header's fields are its first 68 bytes; the rest of its page is not looked at.
        let expected = match at {
            0..68 => 0,
            68..4096 => 5,
            _ if at < bytes.len() - 512 => 4,
            _ => 5,
        };
        prop_assert_eq!(found.len(), expected, "flip at {}", at);
    }
}

#[test]
fn headers_say_what_they_are() {
    let header = Header { number: 3, uuid: 5, previous: 4, bytes: 8192 };
    let mut page = header.encode();
    assert_eq!(page.len() as u64, HEADER_BYTES);
    assert_eq!(Header::decode(&page), HeaderCheck::Valid(header));
    page[20] ^= 1;
    assert_eq!(Header::decode(&page), HeaderCheck::Invalid);
    let mut newer = header.encode();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..64]).to_le_bytes();
    newer[64..68].copy_from_slice(&crc);
    assert_eq!(Header::decode(&newer), HeaderCheck::Newer(9));
    assert_eq!(segment_number(&segment_name(0x1f)), Some(0x1f));
    for other in ["", "1.wal", "0000000000000000.wal", "000000000000001F.wal", "0000000000000001.new"] {
        assert_eq!(segment_number(other), None, "{other}");
    }
}

/// A segment as a scan may find it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Whether its last run is closed by an end-of-segment frame.
    closed: bool,
    /// A hole in its middle: two runs.
    holed: bool,
    /// How its header links it: 0 follows, 1 begins a new chain, 2 is damaged.
    link: u8,
    /// A whole checkpoint at its start.
    checkpoint: bool,
    /// What its frames claim: 0 nothing, 1 the hole's first run, 2 its own end.
    claim: u8,
}

fn scanned(number: u64, kind: Kind) -> Scanned {
    let previous = if kind.link == 1 { 0 } else { u128::from(number) - 1 + 100 };
    let header = match kind.link {
        2 => HeaderCheck::Invalid,
        _ => HeaderCheck::Valid(Header { number, uuid: u128::from(number) + 100, previous, bytes: 6000 }),
    };
    let (first, end) = (Run { start: HEADER_BYTES, end: 5000, closed: false }, 6000);
    let runs = match (header, kind.holed) {
        (HeaderCheck::Invalid, _) => vec![],
        (_, true) => vec![first, Run { start: 5008, end, closed: kind.closed }],
        (_, false) => vec![Run { start: HEADER_BYTES, end, closed: kind.closed }],
    };
    let at = |offset| Position { segment: number, offset };
    let valid = !runs.is_empty();
    Scanned {
        number,
        header,
        cut_at: None,
        runs,
        checkpoints: if kind.checkpoint && valid {
            vec![Checkpoint { id: u128::from(number), begin: at(HEADER_BYTES), end: at(4500) }]
        } else {
            vec![]
        },
        claim: match kind.claim {
            _ if !valid => Position::NONE,
            0 => Position::NONE,
            1 => at(5000),
            _ => at(end),
        },
        batches: 1,
        used_end: end,
    }
}

/// Every pair of segments, each of every kind: whatever is decided never skips what a frame claims as synced.
#[test]
fn recovery_decides_every_case_without_skipping_committed_data() {
    let mut kinds = Vec::new();
    for closed in [false, true] {
        for holed in [false, true] {
            for link in 0..3 {
                for checkpoint in [false, true] {
                    for claim in 0..3 {
                        kinds.push(Kind { closed, holed, link, checkpoint, claim });
                    }
                }
            }
        }
    }
    let (mut redo, mut damaged) = (0, 0);
    for first in &kinds {
        for second in &kinds {
            for third in kinds.iter().step_by(7) {
                let segments = [scanned(4, *first), scanned(5, *second), scanned(6, *third)];
                match decide(&segments, true) {
                    Decision::Fresh | Decision::Newer { .. } => panic!("there are batches: {segments:?}"),
                    Decision::Damaged { .. } => damaged += 1,
                    Decision::Redo { checkpoint, hole, .. } => {
                        redo += 1;
                        assert!(hole >= checkpoint.end, "{segments:?}");
                        // The newest checkpoint that counts, wherever it stands.
                        let newest = segments.iter().flat_map(|s| &s.checkpoints).map(|c| c.end).max();
                        assert_eq!(
                            Some(checkpoint.end),
                            newest,
                            "each of these is whole in itself: {segments:?}"
                        );
                        for s in segments.iter().filter(|s| s.number >= checkpoint.begin.segment) {
                            let starts_chain = matches!(s.header, HeaderCheck::Valid(h) if h.previous == 0);
                            let later_chain = starts_chain && s.number > checkpoint.begin.segment;
                            assert!(s.claim <= hole || later_chain, "a claim is skipped: {segments:?}");
                            assert!(
                                s.claim == Position::NONE || !later_chain,
                                "a chain in use is skipped: {segments:?}"
                            );
                            assert_ne!(
                                s.header,
                                HeaderCheck::Invalid,
                                "a damaged header is skipped: {segments:?}"
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(redo > 1000 && damaged > 1000, "{redo} {damaged}");
}

#[test]
fn nothing_at_all_is_a_fresh_start_and_lots_without_a_journal_are_not() {
    assert_eq!(decide(&[], false), Decision::Fresh);
    assert!(matches!(decide(&[], true), Decision::Damaged { .. }));
    let mut first = scanned(1, Kind { closed: false, holed: false, link: 1, checkpoint: false, claim: 0 });
    first.batches = 0;
    assert_eq!(decide(std::slice::from_ref(&first), false), Decision::Fresh, "the first start was cut short");
    assert!(matches!(decide(std::slice::from_ref(&first), true), Decision::Damaged { .. }));
    let newer = Scanned { header: HeaderCheck::Newer(2), ..first };
    assert_eq!(decide(&[newer], true), Decision::Newer { number: 1, version: 2 });
}

#[test]
fn a_gap_in_the_chain_is_damage_only_from_the_checkpoint_on() {
    let kind = Kind { closed: true, holed: false, link: 0, checkpoint: true, claim: 2 };
    let (old, new) = (scanned(2, kind), scanned(4, Kind { closed: false, ..kind }));
    assert!(
        matches!(decide(&[old.clone(), new.clone()], true), Decision::Redo { .. }),
        "the old one is needless"
    );
    let without = Scanned { checkpoints: vec![], ..new };
    assert!(matches!(decide(&[old, without], true), Decision::Damaged { .. }), "segment 3 is missing");
}

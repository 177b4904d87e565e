//! Journals made of sound frames in any order, from bytes: whatever they say, recovery ends without a panic; a
//! refusal changes nothing; after a start the vault takes a batch, and starts once more.

use lotlog::batch::{Durability, Outcome};
use lotlog::frame::{BatchFrame, Content, Frame, Header, Position, SessionRow, encode, segment_name};
use lotlog::storage::Dir;

use crate::directory::{check_refusal, small};
use crate::mutate::put;
use crate::sim::*;
use crate::{rounds, seed};

/// Takes numbers off the front of the bytes; zeros behind their end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Mostly small; sometimes at an edge.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small) % 20,
            200..=219 => u64::from(self.byte()) * 8 + 4096,
            220..=229 => u64::from(u32::MAX) - u64::from(self.byte()),
            230..=239 => i64::MAX as u64 + u64::from(self.byte()) - 100,
            240..=247 => u64::MAX - u64::from(self.byte()),
            _ => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    fn text<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.byte() as usize % from.len()]
    }
}

const LOTS: &[&str] = &["L", "M", "N", "..", "a/b", "", "%41", "unassigned", "a%2Fb"];
const NAMES: &[&str] = &["s", "t", "", "a b", "u"];
const SUFFIXES: &[&str] = &["\"timestamp\":\"2026-01-01T00:00:00.000000+00:00\"}\n", "}\n", "", "\n\n"];
const ITEMS: &[&str] = &["\"a\":1\n", "\n", "\"a\":1\n\"a\":2\n\n", "", "\"a\":1", "x\ny"];

/// What the journal would have to say next, so that it is often right.
struct Next {
    lsn: u64,
    seq: [u64; NAMES.len()],
    end: [u64; LOTS.len()],
}

fn batch(bytes: &mut Bytes<'_>, next: &mut Next) -> BatchFrame<'static> {
    let (lot, name) = (bytes.byte() as usize % LOTS.len(), bytes.byte() as usize % NAMES.len());
    let (suffix, items) = (bytes.text(SUFFIXES).as_bytes(), bytes.text(ITEMS).as_bytes());
    let mut lines = Vec::new();
    lotlog::record::compose(items, suffix, &mut lines);
    let records = items.iter().filter(|b| **b == b'\n').count() as u32;
    next.seq[name] += 1;
    let mut batch = BatchFrame {
        lot: LOTS[lot],
        lot_offset: next.end[lot],
        records,
        lines_bytes: lines.len() as u64,
        stamp_micros: bytes.number() as i64,
        session: NAMES[name],
        seq: if NAMES[name].is_empty() { 0 } else { next.seq[name] },
        content_hash: u128::from(bytes.byte()),
        suffix,
        items,
    };
    match bytes.byte() {
        0 => batch.lot_offset = bytes.number(),
        1 => batch.records = bytes.number() as u32,
        2 => batch.lines_bytes = bytes.number(),
        3 => batch.seq = bytes.number(),
        _ => {}
    }
    next.end[lot] = batch.lot_offset.wrapping_add(batch.lines_bytes);
    batch
}

/// A directory from bytes.
fn directory(data: &[u8]) -> World {
    let mut bytes = Bytes(data);
    let mut world = World::new();
    let mut next = Next { lsn: 1, seq: Default::default(), end: Default::default() };
    let (mut number, mut previous, mut begin) = (1, 0, Position::NONE);
    for _ in 0..1 + bytes.byte() % 3 {
        let uuid = u128::from(number) * 1000 + u128::from(bytes.byte() % 2);
        let header = Header { number, uuid, previous, bytes: 8192 };
        let mut content = header.encode();
        for _ in 0..bytes.byte() % 24 {
            let place = Position { segment: number, offset: content.len() as u64 };
            let id = u128::from(bytes.byte() % 2);
            let mut lsn = 0;
            let frame = match bytes.byte() % 8 {
                0 | 1 => {
                    lsn = next.lsn;
                    next.lsn = next.lsn.wrapping_add(1);
                    Content::Batch(batch(&mut bytes, &mut next))
                }
                2 => Content::EndOfSegment,
                3 => {
                    begin = place;
                    if bytes.byte() == 0 {
                        next.lsn = bytes.number();
                    }
                    let (stamp_micros, running_seconds) = (bytes.number() as i64, bytes.number());
                    Content::CheckpointBegin { id, next_lsn: next.lsn, stamp_micros, running_seconds }
                }
                4 => {
                    lsn = bytes.number();
                    Content::Pending { id, batch: batch(&mut bytes, &mut next) }
                }
                5 => {
                    let row = SessionRow {
                        session: bytes.text(NAMES).to_owned(),
                        seq: bytes.number(),
                        lsn: bytes.number(),
                        records: 1,
                        content_hash: u128::from(bytes.byte()),
                        used_seconds: bytes.number(),
                    };
                    Content::Sessions { id, rows: vec![row; bytes.byte() as usize % 3] }
                }
                _ => {
                    if bytes.byte() == 0 {
                        begin = Position { segment: bytes.number(), offset: bytes.number() };
                    }
                    Content::CheckpointEnd { id, begin }
                }
            };
            if bytes.byte() == 0 {
                lsn = bytes.number();
            }
            let synced = match bytes.byte() % 4 {
                0 => place,
                1 => Position { segment: bytes.number(), offset: bytes.number() },
                _ => Position::NONE,
            };
            let offset = content.len() as u64;
            encode(&Frame { lsn, synced, content: frame }, uuid, offset, &mut content);
        }
        let cut = bytes.byte();
        if cut < 16 {
            let at = 4096 + bytes.byte() as usize * 8 % (content.len() - 4095);
            content.truncate(at);
        }
        content.resize(content.len().max(8192), 0);
        put(&mut world, Dir::Journal, &segment_name(number), &content);
        previous = if bytes.byte() < 32 { 0 } else { uuid };
        number += if bytes.byte() < 16 { 2 } else { 1 };
    }
    if bytes.byte() % 2 == 0 {
        let text = ["", "a line\n", "half", "{}\n{}\n"][bytes.byte() as usize % 4];
        put(&mut world, Dir::Lots, "L.jsonl", text.repeat(1 + bytes.byte() as usize).as_bytes());
    }
    world
}

/// Whether it started.
pub fn check(data: &[u8]) -> bool {
    let world = directory(data);
    let disk = SimDisk::new(world.clone());
    let around = Around::new();
    let mut vault = match open(&disk, &around, &small()) {
        Ok(vault) => vault,
        Err(error) => {
            check_refusal(&disk, &world, &error, "structured");
            return false;
        }
    };
    let farm = Farm::default();
    let group = vec![farm.send("new", "new", 1, Durability::Synced, 2, 5)];
    commit(&mut vault, group, &around).unwrap();
    let answer = farm.hear().sent[0].answer.clone();
    assert!(matches!(answer, Some(Outcome::Stored { .. })), "{answer:?}");
    drop(vault);
    let world = disk.world.lock().unwrap().clone();
    drop(open(&SimDisk::new(world), &around, &small()).unwrap());
    true
}

#[test]
fn sound_frames_in_any_order_end_in_a_start_or_a_refusal() {
    let (seed, mut started, mut refused) = (seed(), 0, 0);
    for round in 0..rounds(1000) {
        let mut random = Random(seed.wrapping_add(round));
        // A checkpoint first, so that what follows is looked at.
        let mut data = vec![0, 0, 2 + random.below(22) as u8, 0, 3, 1, 0, 0, 1, 2, 0, 7, 1, 1, 2];
        data.extend((0..300).map(|_| random.number() as u8));
        println!("LOTLOG_SEED={}", seed.wrapping_add(round));
        if check(&data) { started += 1 } else { refused += 1 }
    }
    assert!(round_counts(started, refused), "{started} started, {refused} refused");
}

/// Both ends are met, where there are rounds enough.
fn round_counts(started: u64, refused: u64) -> bool {
    started + refused < 500 || (started > 10 && refused > 10)
}

//! Segments read a window at a time: the same is seen as in all their bytes at once, wherever frames, damage and
//! zeros meet the windows' ends, and no byte is fetched more often than it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lotlog::chain::{replay, scan, scan_segment, segments};
use lotlog::frame::{
    BatchFrame, Content, Frame, HEADER_BYTES, Header, HeaderCheck, Position, encode, segment_name,
};
use lotlog::storage::{Dir, How, Storage, StorageError};

use crate::sequences::Rig;
use crate::sim::*;

const MIB: usize = 1 << 20;
const UUID: u128 = 0xABCD_EF01_2345_6789_1357_9BDF_0246_8ACE;

/// A segment of 7 MiB: frames of up to these sizes, then zeros.
fn segment(random: &mut Random, sizes: &[usize]) -> Vec<u8> {
    let header = Header { number: 1, uuid: UUID, previous: 0, bytes: 7 * MIB as u64 };
    let mut bytes = header.encode();
    while bytes.len() < 5 * MIB {
        let most = sizes[random.below(sizes.len())];
        let items: Vec<u8> = vec![b'a' + random.below(26) as u8; random.below(most)];
        let batch = BatchFrame {
            lot: "L",
            lot_offset: 0,
            records: 1,
            lines_bytes: 1,
            stamp_micros: 0,
            session: "",
            seq: 0,
            content_hash: 0,
            suffix: b"}\n",
            items: &items,
        };
        let frame = Frame { lsn: 1, synced: Position::NONE, content: Content::Batch(batch) };
        let at = bytes.len() as u64;
        encode(&frame, UUID, at, &mut bytes);
    }
    if random.chance(30) {
        let frame = Frame { lsn: 0, synced: Position::NONE, content: Content::EndOfSegment };
        let at = bytes.len() as u64;
        encode(&frame, UUID, at, &mut bytes);
    }
    bytes.resize(7 * MIB, 0);
    bytes
}

fn storage(disk: &SimDisk) -> Storage {
    Storage::new(Arc::new(disk.clone()), Arc::default())
}

fn put(disk: &SimDisk, bytes: &[u8]) {
    let file = storage(disk).open(Dir::Journal, &segment_name(1), How::Replace).unwrap();
    file.write_all(0, bytes).unwrap();
}

/// Reads of the journal from now on.
fn count_reads(disk: &SimDisk) -> Arc<AtomicUsize> {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    disk.set_look(Box::new(move |what| {
        if what.starts_with("read journal/") && what.ends_with(".wal") {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }));
    reads
}

#[test]
fn a_segment_read_in_windows_is_seen_as_in_all_its_bytes() {
    let random = &mut Random(7);
    let disk = SimDisk::new(World::new());
    let mut runs = 0;
    for _ in 0..20 {
        let mut bytes = segment(random, &[300, 3000, 60_000, 3 * MIB]);
        for _ in 0..random.below(6) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] ^= 1,
                1 => bytes[at..].iter_mut().take(5000).for_each(|b| *b = 0),
                // What begins like a frame, over the end of a window.
                _ => {
                    let at = (1 + random.below(5)) * MIB - 24 + random.below(5) * 8;
                    bytes[at..at + 16].copy_from_slice(&UUID.to_le_bytes());
                }
            }
        }
        if random.chance(30) {
            bytes.truncate(random.below(bytes.len()));
        }
        put(&disk, &bytes);
        let whole = scan(1, &bytes, bytes.len() as u64, |_, _| {});
        let seen = scan_segment(&storage(&disk), 1).unwrap();
        assert_eq!(format!("{seen:?}"), format!("{whole:?}"));
        runs += seen.runs.len();
    }
    assert!(runs > 30, "damage made holes: {runs} runs");
}

#[test]
fn scan_and_replay_fetch_each_byte_of_a_segment_once() {
    let disk = SimDisk::new(World::new());
    let bytes = segment(&mut Random(1), &[3000]);
    put(&disk, &bytes);
    let mut expected = 0;
    let whole = scan(1, &bytes, bytes.len() as u64, |_, _| expected += 1);
    assert!(matches!(whole.header, HeaderCheck::Valid(_)));
    let end = Position { segment: 1, offset: whole.runs[0].end };
    let reads = count_reads(&disk);
    let storage = storage(&disk);
    scan_segment(&storage, 1).unwrap();
    let scanned = reads.swap(0, Ordering::SeqCst);
    let mut frames = 0;
    let from = Position { segment: 1, offset: HEADER_BYTES };
    replay(&storage, from, end, |_, _| {
        frames += 1;
        Ok::<(), StorageError>(())
    })
    .unwrap();
    let replayed = reads.load(Ordering::SeqCst);
    assert_eq!(frames, expected);
    // A closed segment is not read beyond the window that holds its end.
    assert!((5..=8).contains(&scanned), "{scanned} reads of a segment of 7 MiB");
    assert!((5..=8).contains(&replayed), "{replayed} reads");
    assert!(expected > 1000, "{expected} frames");
}

#[test]
fn a_recovery_reads_the_journal_once_to_judge_it_and_three_times_to_redo_it() {
    let mut rig = Rig::new();
    for seq in 1..60 {
        let submission = rig.farm.send("L", "s", seq, lotlog::batch::Durability::Synced, 3, 1000);
        rig.commit(vec![submission]);
    }
    let disk = SimDisk::new(rig.world());
    let held = segments(&storage(&disk)).unwrap().len();
    let reads = count_reads(&disk);
    drop(open(&disk, &Around::new(), &config()).unwrap());
    // Each of these segments is shorter than a window; the end of its file is no read of its own.
    let reads = reads.load(Ordering::SeqCst);
    assert!((held + 3..=4 * held).contains(&reads), "{reads} reads of {held} segments");
}

#[test]
fn a_start_with_nothing_to_redo_lists_the_lots_once() {
    let mut rig = Rig::new();
    rig.send("L", "s", 1, lotlog::batch::Durability::Synced);
    rig.settle();
    // The first start redoes it.
    let disk = SimDisk::new(rig.world());
    drop(open(&disk, &Around::new(), &config()).unwrap());
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = lists.clone();
    disk.set_look(Box::new(move |what| {
        counted.fetch_add(usize::from(what == "list lots/"), Ordering::SeqCst);
        Ok(())
    }));
    drop(open(&disk, &Around::new(), &config()).unwrap());
    assert_eq!(lists.load(Ordering::SeqCst), 1);
}

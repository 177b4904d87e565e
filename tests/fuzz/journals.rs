//! Damaged journals: every byte flipped, every length cut, every sector zeroed, and ranges and files changed at
//! random.

use lotlog::frame::segment_name;
use lotlog::storage::Dir;

use crate::directory::{Came, Shape, check_journal, segments, shapes, small};
use crate::mutate;
use crate::sim::*;
use crate::{rounds, seed};

/// What came of the damage, counted.
#[derive(Debug, Default)]
struct Counts {
    refused: u64,
    whole: u64,
    limit: u64,
    foreign: u64,
}

impl Counts {
    #[track_caller]
    fn check(&mut self, shape: &Shape, damaged: &World, what: &str) {
        // Going on costs more than the recovery itself.
        let further = (self.refused + self.whole + self.limit).is_multiple_of(8);
        match check_journal(shape, damaged, what, further) {
            Came::Refused(_) => self.refused += 1,
            Came::Whole => self.whole += 1,
            Came::Limit => self.limit += 1,
            Came::Foreign => self.foreign += 1,
        }
    }
}

/// Up to where something was written to a segment.
fn used(world: &World, number: u64) -> usize {
    let bytes = world.read(Dir::Journal, &segment_name(number)).unwrap();
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

fn edited(shape: &Shape, number: u64, change: impl FnOnce(&mut Vec<u8>)) -> World {
    let mut world = shape.world.clone();
    world.edit(Dir::Journal, &segment_name(number), change);
    world
}

/// Bytes that mean something: a header's fields and the frames; every one where there are few.
fn places(world: &World, number: u64, few: usize) -> Vec<usize> {
    let used = used(world, number);
    let frames = (used.saturating_sub(4096) / few).max(1);
    (0..68).chain((4096..used + 64).step_by(frames)).collect()
}

#[test]
fn a_bit_flipped_at_any_byte_loses_nothing_that_is_vouched_for() {
    let mut counts = Counts::default();
    for shape in shapes() {
        for number in segments(&shape.world) {
            for at in places(&shape.world, number, 600) {
                let bit = 1 << (at % 8);
                let world = edited(&shape, number, |b| b[at] ^= bit);
                counts.check(&shape, &world, &format!("segment {number}, bit {bit:#x} of byte {at}"));
            }
        }
    }
    println!("flips: {counts:?}");
    assert!(counts.refused > 1000 && counts.whole > 1000, "{counts:?}");
}

#[test]
fn a_segment_cut_at_any_length_is_refused_or_needless() {
    let mut counts = Counts::default();
    for shape in shapes() {
        for number in segments(&shape.world) {
            let length = shape.world.read(Dir::Journal, &segment_name(number)).unwrap().len();
            let places = places(&shape.world, number, 150);
            for at in places.into_iter().chain([length / 2, length - 4097, length - 4096, length - 1]) {
                let world = edited(&shape, number, |b| b.truncate(at));
                counts.check(&shape, &world, &format!("segment {number} cut at {at}"));
            }
        }
    }
    println!("cuts: {counts:?}");
    assert_eq!(counts.limit, 0, "a cut file is known by its length");
    assert!(counts.refused > 1000, "{counts:?}");
}

#[test]
fn a_sector_zeroed_anywhere_loses_nothing_that_is_vouched_for() {
    let mut counts = Counts::default();
    for shape in shapes() {
        for number in segments(&shape.world) {
            for sector in (0..used(&shape.world, number)).step_by(512) {
                let world = edited(&shape, number, |b| b[sector..sector + 512].fill(0));
                counts.check(&shape, &world, &format!("segment {number}, sector at {sector} zeroed"));
            }
        }
    }
    println!("sectors: {counts:?}");
    assert!(counts.refused > 20, "{counts:?}");
}

#[test]
fn ranges_and_files_of_a_journal_changed_at_random_lose_nothing_that_is_vouched_for() {
    let (shapes, seed) = (shapes(), seed());
    let mut counts = Counts::default();
    for round in 0..rounds(1000) {
        let mut random = Random(seed.wrapping_add(round));
        let shape = &shapes[random.below(shapes.len())];
        // Another directory, or this one as it was before: later, it would hold what nobody here has sent.
        let others: Vec<&Shape> = shapes
            .iter()
            .filter(|o| o.uuids.is_disjoint(&shape.uuids) || o.ledger.sent.len() <= shape.ledger.sent.len())
            .collect();
        let other = others[random.below(others.len())];
        let mut world = shape.world.clone();
        let mut what = format!("LOTLOG_SEED={}", seed.wrapping_add(round));
        for _ in 0..1 + random.below(2) {
            what += &mutate::change(&mut world, &other.world, Dir::Journal, &mut random);
        }
        counts.check(shape, &world, &what);
    }
    println!("random: {counts:?}");
}

/// Puts a directory on the real disk.
fn laid_out(world: &World) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    for dir in [Dir::Lots, Dir::Journal, Dir::Quarantine] {
        let path = data.path().join(dir.prefix());
        std::fs::create_dir(&path).unwrap();
        for name in world.names(dir) {
            std::fs::write(path.join(&name), world.read(dir, &name).unwrap()).unwrap();
        }
    }
    data
}

#[test]
fn verify_finds_at_the_same_place_what_a_start_refuses() {
    let (shapes, seed) = (shapes(), seed());
    let (mut refused, mut sound) = (0, 0);
    for round in 0..rounds(150) {
        let mut random = Random(seed.wrapping_add(round));
        let shape = &shapes[random.below(shapes.len())];
        let mut world = shape.world.clone();
        let dir = if random.chance(80) { Dir::Journal } else { Dir::Lots };
        let what = mutate::change(&mut world, &shapes[0].world, dir, &mut random);
        let note = format!("{}: LOTLOG_SEED={}{what}", shape.name, seed.wrapping_add(round));
        let data = laid_out(&world);
        let report = lotlog::verify::verify(data.path()).unwrap_or_else(|e| panic!("{note}: {e}"));
        let found: Vec<(&str, u64)> = report
            .findings
            .iter()
            .filter(|finding| finding.kind.starts_with("journal"))
            .map(|finding| (finding.file.as_str(), finding.offset))
            .collect();
        match open(&SimDisk::new(world), &Around::new(), &small()) {
            Ok(_) => {
                sound += 1;
                assert_eq!(found, [], "{note}");
            }
            Err(lotlog::recovery::OpenError::Damaged { at, .. }) => {
                refused += 1;
                let file = format!("journal/{}", segment_name(at.segment));
                assert_eq!(found, [(file.as_str(), at.offset)], "{note}");
            }
            Err(error) => panic!("{note}: {error}"),
        }
    }
    println!("verify: {refused} refused, {sound} sound");
}

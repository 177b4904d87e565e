//! Damaged lot files: what the journal has stands there again, whole, and what somebody else left is set aside,
//! byte for byte. What lies before the journal's first batch is not recovery's to see, and it leaves it alone.

use lotlog::lots::LOT_SUFFIX;
use lotlog::storage::Dir;

use crate::directory::{Shape, everything, goes_on, shapes, small};
use crate::mutate;
use crate::sim::*;
use crate::{rounds, seed};

/// Where the last whole line ends.
fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

/// What a lot must be after recovery, and what must be in quarantine.
fn expected(before: &[u8], whole: &[u8], base: usize) -> (Vec<u8>, Option<Vec<u8>>) {
    let ours = &whole[base..];
    let stands = before.len() >= base && (base == 0 || before[base - 1] == b'\n');
    // Where somebody has changed what is before, its lines go behind all there is, or where they stand already.
    let first = &ours[..1 + ours.iter().position(|b| *b == b'\n').unwrap()];
    let moved = || (0..before.len()).find(|at| before[*at..].starts_with(first));
    let from = if stands { base } else { moved().unwrap_or(line_end(before)) };
    let there = &before[from..];
    let foreign = there.iter().enumerate().any(|(at, b)| *b != 0 && ours.get(at) != Some(b));
    ([&before[..from], ours].concat(), foreign.then(|| there.to_vec()))
}

/// Damage to lot files only.
#[track_caller]
fn check_lots(shape: &Shape, damaged: &World, what: &str, further: bool) {
    let note = format!("{}: {what}", shape.name);
    let disk = SimDisk::new(damaged.clone());
    let around = Around::new();
    around.pass(std::time::Duration::from_secs(5000));
    let vault = open(&disk, &around, &small()).unwrap_or_else(|e| panic!("{note}: {e}"));
    let world = disk.world.lock().unwrap().clone();
    let aside: Vec<Vec<u8>> =
        world.names(Dir::Quarantine).iter().filter_map(|n| world.read(Dir::Quarantine, n)).collect();
    let mut names = damaged.names(Dir::Lots);
    names.extend(shape.bases.keys().map(|stem| format!("{stem}{LOT_SUFFIX}")));
    let mut untouched = true;
    for name in &names {
        let Some(stem) = name.strip_suffix(LOT_SUFFIX) else { continue };
        let (before, after) = (damaged.read(Dir::Lots, name), world.read(Dir::Lots, name));
        match shape.bases.get(stem) {
            None => {
                assert!(before == after, "{note}: {name} has no batches in the journal, and was changed");
                untouched &= before == shape.world.read(Dir::Lots, name);
            }
            Some(base) => {
                let before = before.unwrap_or_default();
                let whole = &shape.whole[stem];
                let (lot, copy) = expected(&before, whole, *base);
                untouched &= lot == *whole;
                assert!(
                    after.as_ref() == Some(&lot),
                    "{note}: {name} from {base} on: {} bytes, then {:?}, instead of {} bytes",
                    before.len(),
                    after.map(|after| after.len()),
                    lot.len()
                );
                if let Some(copy) = copy {
                    assert!(aside.contains(&copy), "{note}: what stood in {name} was not set aside");
                }
            }
        }
    }
    let found = lots(&world);
    if untouched && found.len() == shape.whole.len() {
        assert_eq!(judge(&found, &shape.ledger, false), Verdict::default(), "{note}");
        if further {
            goes_on(vault, disk, around, shape.ledger.clone(), &Default::default(), &note);
        }
    }
    let again = SimDisk::new(world.clone());
    drop(open(&again, &Around::new(), &small()).unwrap_or_else(|e| panic!("{note}: the second start: {e}")));
    let lots_of =
        |world: &World| everything(world).into_iter().filter(|((dir, _), _)| *dir == 1).collect::<Vec<_>>();
    let after = again.world.lock().unwrap();
    assert!(lots_of(&after) == lots_of(&world) || further, "{note}: a second start changes lots");
}

#[test]
fn a_bit_flipped_at_any_byte_of_a_lot_is_mended_where_the_journal_has_it() {
    let mut flips = 0;
    for shape in shapes() {
        for (stem, base) in &shape.bases {
            let name = format!("{stem}{LOT_SUFFIX}");
            let Some(bytes) = shape.world.read(Dir::Lots, &name) else { continue };
            let step = (bytes.len() / 60).max(1);
            for at in
                (base.saturating_sub(3)..bytes.len().min(base + 3)).chain((0..bytes.len()).step_by(step))
            {
                let mut world = shape.world.clone();
                world.edit(Dir::Lots, &name, |b| b[at] ^= 1 << (at % 8));
                check_lots(&shape, &world, &format!("{name}, byte {at}"), u32::is_multiple_of(flips, 32));
                flips += 1;
            }
        }
    }
    println!("{flips} flips in lots");
}

#[test]
fn lots_changed_at_random_are_whole_again_where_the_journal_has_them() {
    let (shapes, seed) = (shapes(), seed());
    for round in 0..rounds(500) {
        let mut random = Random(seed.wrapping_add(round));
        let shape = &shapes[random.below(shapes.len())];
        let other = &shapes[random.below(shapes.len())];
        let mut world = shape.world.clone();
        let mut what = format!("LOTLOG_SEED={}", seed.wrapping_add(round));
        for _ in 0..1 + random.below(2) {
            what += &mutate::change(&mut world, &other.world, Dir::Lots, &mut random);
        }
        check_lots(shape, &world, &what, round.is_multiple_of(32));
    }
}

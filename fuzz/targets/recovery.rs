//! Recovery of real directories, damaged as the input says: everything that was synced, or a refusal that names
//! the place and has changed nothing.

#![no_main]
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "../../tests/fuzz/directory.rs"]
mod directory;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../tests/vault/sim/mod.rs"]
mod sim;

use std::sync::OnceLock;

use lotlog::storage::Dir;

use directory::{Shape, check_journal, shapes};
use mutate::Choices;

/// The input's bytes, then zeros.
struct Bytes<'a>(&'a [u8]);

impl Choices for Bytes<'_> {
    fn below(&mut self, n: usize) -> usize {
        let bytes = if n > 256 { 2 } else { 1 };
        let mut number = 0;
        for _ in 0..bytes {
            let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
            self.0 = rest;
            number = number << 8 | *first as usize;
        }
        // Two bytes for any place in a segment: what is written there is mostly at its start.
        number % n
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static SHAPES: OnceLock<Vec<Shape>> = OnceLock::new();
    let shapes = SHAPES.get_or_init(shapes);
    let mut choices = Bytes(data);
    let shape = &shapes[choices.below(shapes.len())];
    let earlier =
        |o: &&Shape| o.uuids.is_disjoint(&shape.uuids) || o.ledger.sent.len() <= shape.ledger.sent.len();
    let others: Vec<&Shape> = shapes.iter().filter(earlier).collect();
    let other = others[choices.below(others.len())];
    let mut world = shape.world.clone();
    let mut what = String::new();
    for _ in 0..1 + choices.below(4) {
        what += &mutate::change(&mut world, &other.world, Dir::Journal, &mut choices);
    }
    let further = choices.below(8) == 0;
    check_journal(shape, &world, &what, further);
});

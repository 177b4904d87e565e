//! Recovery of journals made of sound frames in any order.

#![no_main]
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "../../tests/fuzz/directory.rs"]
mod directory;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../tests/vault/sim/mod.rs"]
mod sim;
#[path = "../../tests/fuzz/structured.rs"]
mod structured;

fn seed() -> u64 {
    0
}

fn rounds(_usual: u64) -> u64 {
    0
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    structured::check(data);
});

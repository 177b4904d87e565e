//! The line decoder and the normaliser against the slow reader.

#![no_main]
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[path = "../../tests/fuzz/reader.rs"]
mod reader;
#[path = "../../tests/fuzz/requests.rs"]
mod requests;
#[path = "../../tests/vault/sim/mod.rs"]
mod sim;

fn seed() -> u64 {
    0
}

fn rounds(_usual: u64) -> u64 {
    0
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    requests::check(data);
});

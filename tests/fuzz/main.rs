//! Mutations: of journals and lot files under recovery and `verify`, of what a scan may see under the decision,
//! of request lines under the decoder. Each against an oracle that is slow and simple. `LOTLOG_SEED` repeats a
//! random case, `LOTLOG_EXECUTIONS` multiplies the random rounds.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod crafted;
mod decisions;
mod directory;
mod journals;
mod lots;
mod misplaced;
mod mutate;
mod reader;
mod requests;
#[path = "../vault/sim/mod.rs"]
#[allow(dead_code, unused_imports)] // the vault's suite uses the rest
mod sim;
mod structured;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Where random rounds begin.
fn seed() -> u64 {
    number("LOTLOG_SEED").unwrap_or(1)
}

/// How many random rounds there are: one, where a seed repeats it.
fn rounds(usual: u64) -> u64 {
    match (number("LOTLOG_SEED"), number("LOTLOG_EXECUTIONS")) {
        (_, Some(times)) => usual * times,
        (Some(_), None) => 1,
        (None, None) => usual,
    }
}

//! Mutations: of journals and lot files under recovery and `verify`, of what a scan may see under the decision,
//! of request lines under the decoder. Each against an oracle that is slow and simple. `LOTLOG_SEED` repeats a
//! random case, `LOTLOG_EXECUTIONS` multiplies the random rounds.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod misplaced;
#[path = "../vault/sim/mod.rs"]
#[allow(dead_code, unused_imports)] // the vault's suite uses the rest
mod sim;

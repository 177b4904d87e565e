//! Other hands: what somebody else does to DATA while the daemon runs, while it is stopped, and after it was
//! killed. Never overwritten, never silent, other lots unaffected, nothing acknowledged lost or doubled. And
//! what `lotlog verify` says of each kind of damage, a second daemon, and the clock.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod beside;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod gone;
mod hand;
mod lock;
mod lots;
mod names;
mod races;
mod scene;

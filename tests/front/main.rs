//! The front alone: real sockets, and a vault that the test plays itself, so that it can answer late, out of
//! order, not at all, or be gone. One file each for order, limits, memory, the drain, replies sent by who answers, and
//! the door.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod door;
mod drain;
mod express;
mod limits;
mod memory;
mod order;
mod rig;

//! The vault on a disk in memory: crash images, named sequences, failing calls, other hands.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod clock;
mod crash;
mod faults;
mod frames;
mod keeping;
mod lives;
mod quotas;
mod reviewed;
mod reviewed_again;
mod seals;
mod sequences;
mod sim;
mod windows;

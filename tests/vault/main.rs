//! The vault on a disk in memory: crash images, named sequences, failing calls, other hands.

mod crash;
mod frames;
mod sequences;
mod sim;

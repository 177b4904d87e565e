//! The daemon held to PROTOCOL.md: a real process, raw sockets, and what is then on disk. Written from that
//! page alone; it knows nothing of the code behind the socket.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod data;
mod files;
mod guests;
mod limits;
mod patience;
mod promises;
mod requests;
mod restarts;
mod sessions;
mod shape;
mod transport;
mod values;

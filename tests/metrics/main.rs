//! The metrics page and what is built on it, as an operator's tools see them: HTTP on a socket, nothing else.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod page;
mod prometheus;
mod rules;
mod scraper;
mod settings;

//! lotlog: a durable logging daemon for auction-lot predictions.

pub mod background;
pub mod batch;
pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod disk;
pub mod frame;
pub mod journal;
pub mod lots;
pub mod metrics;
pub mod protocol;
pub mod quarantine;
pub mod queue;
pub mod record;
pub mod recovery;
pub mod redo;
pub mod sessions;
pub mod storage;
pub mod writer;

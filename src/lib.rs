//! lotlog: a durable logging daemon for auction-lot predictions.

pub mod batch;
pub mod config;
pub mod metrics;
pub mod protocol;
pub mod queue;
pub mod record;

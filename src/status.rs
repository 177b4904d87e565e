//! The answer to `status`: made from counters alone, so that it comes while the writer is stuck.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::batch::{Code, Durability};
use crate::metrics::{Metrics, Reading};

/// The reply line, newline included, as of `now`.
pub fn status_reply(
    metrics: &Metrics,
    durability: Durability,
    data_dir: &Path,
    queue_bytes: usize,
    now: Instant,
) -> Vec<u8> {
    let refused: Map<String, Value> = Code::ALL
        .iter()
        .zip(&metrics.refused)
        .map(|(code, count)| (code.as_str().to_owned(), count.load(Relaxed).into()))
        .collect();
    let status = json!({
        "ok": true,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": now.saturating_duration_since(metrics.started).as_secs(),
        "durability": durability.as_str(),
        "data_dir": data_dir.to_string_lossy(),
        "connections": metrics.connections.load(Relaxed),
        "queue_bytes": queue_bytes,
        "batches": metrics.batches.load(Relaxed),
        "records": metrics.records.load(Relaxed),
        "duplicates": metrics.duplicates.load(Relaxed),
        "refused": refused,
        "bytes_written": metrics.bytes_written.load(Relaxed),
        "lots_open": metrics.lots_open.load(Relaxed),
        "lsn": metrics.lsn.load(Relaxed),
        "synced_lsn": metrics.synced_lsn.load(Relaxed),
        "journal_bytes": metrics.journal_bytes.load(Relaxed),
        "syncs": metrics.syncs.load(Relaxed),
        "clock_skew_seconds": metrics.clock_skew_micros.load(Relaxed) as f64 / 1e6,
        "ack_seconds": quantiles(metrics.ack_seconds.read(now)),
        "sync_seconds": quantiles(metrics.sync_seconds.read(now)),
        "no_space": metrics.no_space.load(Relaxed),
        "failed": metrics.failed.load(Relaxed),
    });
    let mut reply = status.to_string().into_bytes();
    reply.push(b'\n');
    reply
}

fn quantiles(reading: Reading) -> Value {
    json!({ "p50": reading.p50, "p99": reading.p99, "max": reading.max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_every_key_of_the_contract() {
        let metrics = Metrics::default();
        metrics.count_refusal(Code::TooLarge);
        let reply = status_reply(&metrics, Durability::Written, Path::new("/data"), 7, Instant::now());
        assert_eq!(reply.iter().filter(|b| **b == b'\n').count(), 1);
        let status: Value = serde_json::from_slice(&reply).unwrap();
        let keys = "version pid uptime_seconds durability data_dir connections queue_bytes batches records duplicates \
                    refused bytes_written lots_open lsn synced_lsn journal_bytes syncs clock_skew_seconds ack_seconds \
                    sync_seconds";
        for key in keys.split_whitespace() {
            assert!(!status[key].is_null(), "{key}");
        }
        assert_eq!(status["refused"]["too_large"], 1);
        assert_eq!(status["queue_bytes"], 7);
        assert_eq!(status["ack_seconds"]["p99"], 0.0);
    }
}

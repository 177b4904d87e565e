//! The metrics page: every family with its name, its help and where its figures come from. Pure: knows neither
//! HTTP nor files.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::batch::Code;
use crate::dropped::{FIELDS, Reason};
use crate::metrics::{Histogram, Metrics};
use crate::sampler::Figures;

/// The `Content-Type` of [`Page::text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All that stands on the page, as of one moment.
#[derive(Debug)]
pub struct Page {
    /// The daemon's counters.
    pub metrics: Arc<Metrics>,
    /// Bytes in flight.
    pub queue_bytes: usize,
    /// Most that may be.
    pub queue_capacity_bytes: usize,
    /// Most connections.
    pub connections_limit: usize,
    /// Users with a connection.
    pub users: usize,
    /// How often a connection had to wait for its own user's quota.
    pub quota_waits: u64,
    /// How long the writer has had work and made no progress.
    pub writer_stalled: Duration,
    /// When the process began, in seconds since 1970.
    pub start_seconds: f64,
    /// What the system says.
    pub figures: Figures,
    /// The moment.
    pub now: Instant,
}

impl Page {
    /// In the Prometheus text format.
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let metrics = &*self.metrics;
        let refused: Vec<u64> = metrics.refused.iter().map(|n| n.load(Relaxed)).collect();

        out.family(
            "lotlogd_build_info",
            "The version that runs, as a label",
            MetricType::Gauge,
            |mut family| family.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1),
        )?;
        let results = [
            ("stored", metrics.batches.load(Relaxed)),
            ("duplicate", metrics.duplicates.load(Relaxed)),
            ("refused", refused.iter().sum()),
            ("unknown", metrics.unanswered.load(Relaxed)),
        ];
        out.counters("lotlogd_batches", "Batches by result; refused counts every reply with an error code, unknown requests whose connection ended without a reply", "result", &results)?;
        out.counter("lotlogd_records", "Records stored", metrics.records.load(Relaxed))?;
        out.counter(
            "lotlogd_written_bytes",
            "Bytes appended to lot files",
            metrics.bytes_written.load(Relaxed),
        )?;
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).zip(refused).collect();
        out.counters("lotlogd_refused", "Requests and connections refused, by code", "code", &codes)?;
        out.family("lotlogd_dropped_values", "Values left out of records, by field and reason, resent batches included; fields of producers' own naming are `other`", MetricType::Counter, |mut family| {
            for (field, counts) in FIELDS.iter().zip(&metrics.dropped) {
                for (reason, count) in Reason::ALL.iter().zip(counts) {
                    let labels = [("field", *field), ("reason", reason.as_str())];
                    encode_counter(&mut family.encode_family(&labels)?, count.load(Relaxed))?;
                }
            }
            Ok(())
        })?;

        out.histogram(
            "lotlogd_ack_seconds",
            "From a whole request line to its reply being ready",
            &metrics.ack_seconds.histogram(),
        )?;
        out.histogram("lotlogd_sync_seconds", "One sync of the journal", &metrics.sync_seconds.histogram())?;
        out.histogram(
            "lotlogd_group_batches",
            "Batches that the writer took at once",
            &metrics.group_batches.histogram(),
        )?;

        out.gauge("lotlogd_queue_bytes", "Bytes in flight over all connections", self.queue_bytes as f64)?;
        out.gauge(
            "lotlogd_queue_capacity_bytes",
            "Most bytes in flight (max_bytes_in_flight)",
            self.queue_capacity_bytes as f64,
        )?;
        out.gauge("lotlogd_connections", "Connections open", metrics.connections.load(Relaxed) as f64)?;
        out.gauge(
            "lotlogd_connections_limit",
            "Most connections (max_connections)",
            self.connections_limit as f64,
        )?;
        out.gauge("lotlogd_users", "Users with a connection", self.users as f64)?;
        out.counter(
            "lotlogd_quota_waits",
            "How often a connection had to wait for its own user's quota (max_bytes_in_flight_per_user)",
            self.quota_waits,
        )?;
        out.gauge("lotlogd_open_lots", "Lot files held open", metrics.lots_open.load(Relaxed) as f64)?;
        out.counter(
            "lotlogd_lot_evictions",
            "Lot files closed to make room for others (max_open_lots)",
            metrics.evictions.load(Relaxed),
        )?;

        let archive = &metrics.archive;
        for (name, help, count) in [
            ("lotlogd_rotated_files", "Lot files moved to the archive", &archive.rotated),
            ("lotlogd_rotated_bytes", "Their bytes", &archive.rotated_bytes),
            (
                "lotlogd_rotation_failures",
                "Lot files that could not be moved to the archive when they were due",
                &archive.not_rotated,
            ),
            (
                "lotlogd_sealed_lots",
                "Lots sealed, for which batches are refused from then on",
                &archive.sealed,
            ),
            ("lotlogd_compressed_files", "Archived files compressed", &archive.compressed),
            (
                "lotlogd_compression_read_bytes",
                "Bytes of archived files before they were compressed",
                &archive.compressed_from_bytes,
            ),
            (
                "lotlogd_compression_written_bytes",
                "Bytes of the same files afterwards",
                &archive.compressed_to_bytes,
            ),
            (
                "lotlogd_archive_removed_files",
                "Archived files removed (retain_age_seconds, retain_bytes)",
                &archive.removed,
            ),
            ("lotlogd_archive_removed_bytes", "Their bytes, as they lay there", &archive.removed_bytes),
            (
                "lotlogd_archive_failures",
                "Compressions, removals and looks at the archive that failed and are tried again",
                &archive.failures,
            ),
        ] {
            out.counter(name, help, count.load(Relaxed))?;
        }

        out.gauge("lotlogd_lsn", "Number of the last batch stored", metrics.lsn.load(Relaxed) as f64)?;
        out.gauge(
            "lotlogd_synced_lsn",
            "Up to this number batches are synced and in their lot files",
            metrics.synced_lsn.load(Relaxed) as f64,
        )?;
        out.gauge(
            "lotlogd_journal_bytes",
            "Size of the journal on disk",
            metrics.journal_bytes.load(Relaxed) as f64,
        )?;
        out.counter("lotlogd_checkpoints", "Checkpoints made", metrics.checkpoints.load(Relaxed))?;
        out.gauge(
            "lotlogd_checkpoint_age_seconds",
            "Since the last checkpoint; none is made while there is nothing to do",
            metrics.checkpoint_age(self.now).as_secs_f64(),
        )?;
        let lag = metrics.lsn.load(Relaxed).saturating_sub(metrics.checkpoint_lsn.load(Relaxed));
        out.gauge("lotlogd_uncheckpointed_batches", "Batches that no checkpoint covers yet", lag as f64)?;
        out.gauge(
            "lotlogd_recovery_seconds",
            "How long this start took to recover",
            metrics.recovery_micros.load(Relaxed) as f64 / 1e6,
        )?;
        out.gauge(
            "lotlogd_last_write_timestamp_seconds",
            "When a lot file was last appended to; 0: not since the start",
            metrics.last_write_micros.load(Relaxed) as f64 / 1e6,
        )?;
        out.gauge(
            "lotlogd_clock_skew_seconds",
            "How far timestamps run ahead of the wall clock",
            metrics.clock_skew_micros.load(Relaxed) as f64 / 1e6,
        )?;
        out.gauge(
            "lotlogd_no_space",
            "1 while batches are refused for lack of space",
            f64::from(u8::from(metrics.no_space.load(Relaxed))),
        )?;
        out.gauge(
            "lotlogd_failed",
            "1 once the writer has stopped for good: lotlogd exits",
            f64::from(u8::from(metrics.failed.load(Relaxed))),
        )?;
        out.gauge(
            "lotlogd_writer_stalled_seconds",
            "How long the writer has had work and made no progress",
            self.writer_stalled.as_secs_f64(),
        )?;

        let figures = &self.figures;
        let whole = |figure: Option<u64>| figure.map(|n| n as f64);
        out.figure(
            "lotlogd_disk_free_bytes",
            "Free space of DATA's file system",
            whole(figures.disk_free_bytes),
        )?;
        out.figure("lotlogd_disk_size_bytes", "Size of DATA's file system", whole(figures.disk_bytes))?;
        out.figure(
            "lotlogd_disk_free_files",
            "Files that can still be made there (inodes)",
            whole(figures.disk_free_files),
        )?;
        out.figure("lotlogd_quarantined_files", "Copies in quarantine/", whole(figures.quarantined_files))?;
        if let Some(seconds) = figures.cpu_seconds {
            out.family("process_cpu_seconds", "Processor time", MetricType::Counter, |mut family| {
                family.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)
            })?;
        }
        out.figure("process_resident_memory_bytes", "Memory in the machine", whole(figures.resident_bytes))?;
        out.figure("process_virtual_memory_bytes", "Address space", whole(figures.virtual_bytes))?;
        out.figure("process_threads", "Threads", whole(figures.threads))?;
        out.figure("process_open_fds", "Open descriptors", whole(figures.open_files))?;
        out.figure("process_max_fds", "Most open descriptors", whole(figures.most_open_files))?;
        out.gauge("process_start_time_seconds", "When the process began, since 1970", self.start_seconds)
    }
}

/// Writes families. Counters get their `_total` here.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| encode_counter(&mut family, count))
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, counts: &[(&str, u64)]) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |mut family| {
            for (value, count) in counts {
                encode_counter(&mut family.encode_family(&[(label, *value)])?, *count)?;
            }
            Ok(())
        })
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |mut family| family.encode_gauge(&value))
    }

    /// A gauge that the system may not tell.
    fn figure(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.gauge(name, help, value))
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, |mut family| {
            family.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &histogram.buckets, None)
        })
    }
}

fn encode_counter(family: &mut MetricEncoder<'_>, count: u64) -> fmt::Result {
    family.encode_counter::<NoLabelSet, u64, u64>(&count, None)
}

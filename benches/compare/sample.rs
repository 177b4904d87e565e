//! What one run of a contender gave, and the count of lines without which no acknowledgement is believed.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::stats;

/// One run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    pub records: u64,
    /// From the start until every record is in its file, synced where that is promised.
    pub seconds: f64,
    pub records_per_second: f64,
    pub acks_per_second: Option<f64>,
    /// By the last acknowledgement alone, whatever is then still to be written.
    pub acked_records_per_second: f64,
    pub ack_p50_seconds: Option<f64>,
    pub ack_p99_seconds: Option<f64>,
    pub ack_max_seconds: Option<f64>,
    /// Of the daemon, per million records; none where the producers write themselves.
    pub daemon_cpu_seconds: Option<f64>,
    /// Of daemon and producers, per million records.
    pub all_cpu_seconds: f64,
    pub bytes_per_record: f64,
}

/// What the clock and the kernel said about a run.
pub struct Measured {
    pub records: u64,
    /// Until all is in its files.
    pub seconds: f64,
    /// Until the last acknowledgement.
    pub acked_seconds: f64,
    pub daemon_cpu_seconds: Option<f64>,
    pub producers_cpu_seconds: f64,
    /// Sorted; empty where nothing acknowledges.
    pub latencies: Vec<Duration>,
}

impl Measured {
    /// The figures, once `files` have been counted.
    pub fn sample(&self, files: &Files) -> Result<Sample> {
        ensure!(self.records > 0, "nothing was acknowledged");
        let (records, millions) = (self.records as f64, self.records as f64 / 1e6);
        let quantile = |q: f64| stats::quantile(&self.latencies, q).map(|time| time.as_secs_f64());
        let acks = (!self.latencies.is_empty()).then(|| self.latencies.len() as f64 / self.seconds);
        Ok(Sample {
            records: self.records,
            seconds: self.seconds,
            records_per_second: records / self.seconds,
            acks_per_second: acks,
            acked_records_per_second: records / self.acked_seconds,
            ack_p50_seconds: quantile(0.5),
            ack_p99_seconds: quantile(0.99),
            ack_max_seconds: quantile(1.0),
            daemon_cpu_seconds: self.daemon_cpu_seconds.map(|cpu| cpu / millions),
            all_cpu_seconds: (self.daemon_cpu_seconds.unwrap_or(0.0) + self.producers_cpu_seconds) / millions,
            bytes_per_record: files.bytes as f64 / files.lines as f64,
        })
    }
}

/// The lot files of a run.
#[derive(Debug, Default, PartialEq)]
pub struct Files {
    pub lines: u64,
    pub bytes: u64,
    pub files: usize,
}

impl Files {
    /// Reads all of them.
    pub fn count(lots: &Path) -> Result<Files> {
        let mut counted = Files::default();
        let mut buffer = vec![0; 1 << 20];
        for entry in fs::read_dir(lots).with_context(|| format!("cannot read {}", lots.display()))? {
            let mut file = fs::File::open(entry?.path())?;
            counted.files += 1;
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                counted.bytes += got as u64;
                counted.lines += memchr::memchr_iter(b'\n', &buffer[..got]).count() as u64;
            }
        }
        Ok(counted)
    }

    /// Fails unless exactly these records are there, in files of so many lots.
    pub fn hold(&self, records: u64, lots: usize) -> Result<()> {
        let lines = self.lines;
        ensure!(lines == records, "{records} records were acknowledged, the files hold {lines}");
        ensure!(self.files == lots, "{lots} lots were sent, there are {} files", self.files);
        Ok(())
    }
}

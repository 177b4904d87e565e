//! What lotlogd should reach, as ratios within one series, and whether it does.

use serde::Serialize;

use crate::contender::Contender;
use crate::null::Mode;
use crate::python::Way;
use crate::results::Results;
use crate::sample::Sample;
use crate::syslog::Syslog;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// One target as measured; without a value where something of it was not measured.
#[derive(Debug, Serialize)]
pub struct Target {
    pub number: u8,
    pub what: &'static str,
    pub limit: Limit,
    pub value: Option<f64>,
}

impl Target {
    pub fn met(&self) -> Option<bool> {
        self.value.map(|value| match self.limit {
            Limit::AtLeast(least) => value >= least,
            Limit::AtMost(most) => value <= most,
        })
    }
}

type Figure = fn(&Sample) -> Option<f64>;
const RATE: Figure = |sample| Some(sample.records_per_second);
const ACKS: Figure = |sample| sample.acks_per_second;
const CPU: Figure = |sample| sample.daemon_cpu_seconds;
const P50: Figure = |sample| sample.ack_p50_seconds;
const P99: Figure = |sample| sample.ack_p99_seconds;

/// All targets, with what was measured of them.
pub fn all(results: &Results) -> Vec<Target> {
    use Contender::{Fdatasync, Null, Python, Synced, Syslog as Log, Written};
    use Limit::{AtLeast, AtMost};
    let (bound, syncfs) = (Null(Mode::Bound), Null(Mode::Syncfs));
    let of = |group, cell, contender, figure: Figure| results.median(group, cell, contender, figure);
    let ratio = |group, cell, ours, theirs, figure| {
        Some(of(group, cell, ours, figure)? / of(group, cell, theirs, figure)?)
    };
    let target = |number, what, limit, value| Target { number, what, limit, value };
    // Of records/s, in the two cells with peers.
    let written = |theirs| ratio("written", "P4", Written, theirs, RATE);
    let synced = |theirs| ratio("synced", "P16", Synced, theirs, RATE);
    let deep = of("deep", "P16 x8", Synced, RATE)
        .zip(of("deep", "P16 x8", Written, RATE))
        .map(|(synced, written)| synced / written);
    let one_sync = of("latency", "P1", Synced, P50)
        .zip(of("latency", "P1", Fdatasync, P50))
        .map(|(ours, theirs)| ours / theirs);
    let single = |contender| of("single", "P4 x16", contender, ACKS);
    let tail = of("tail", "P64", Synced, P99).zip(of("tail", "P64", Synced, P50)).map(|(p99, p50)| p99 / p50);
    let memory = |what| results.median_fact("memory", what);
    let small = memory("most resident, written, 64 lots, P16")
        .zip(memory("most resident, synced, 64 lots, P16"))
        .map(|(written, synced)| written.max(synced));
    let spread = |figure: Figure| {
        Some(of("lots", "10,000 lots", Written, figure)? / of("lots", "64 lots", Written, figure)?)
    };
    let starts = |what| results.median_fact("starts", what);
    vec![
        target(1, "written P4: records/s, to the bound's", AtLeast(0.75), written(bound)),
        target(1, "written P4: records/s, to rsyslog's", AtLeast(1.8), written(Log(Syslog::Rsyslog))),
        target(
            1,
            "the same, with a newline behind each message",
            AtLeast(1.8),
            ratio("others", "P4", Written, Log(Syslog::RsyslogLines), RATE),
        ),
        target(1, "written P4: records/s, to syslog-ng's", AtLeast(1.5), written(Log(Syslog::Ng))),
        target(1, "written P4: daemon CPU-s per million", AtMost(1.3), of("written", "P4", Written, CPU)),
        target(2, "synced P16: records/s, to null + syncfs", AtLeast(1.5), synced(syncfs)),
        target(
            2,
            "synced P16: records/s, to orjson + fdatasync",
            AtLeast(1.6),
            synced(Python(Way::Fdatasync)),
        ),
        target(2, "synced P16: records/s, to SQLite FULL", AtLeast(8.0), synced(Python(Way::Sqlite))),
        target(2, "P16, 8 outstanding: synced records/s, to written", AtLeast(0.7), deep),
        target(
            3,
            "written P1: p50, to the bound's",
            AtMost(1.4),
            ratio("latency", "P1", Written, bound, P50),
        ),
        target(3, "synced P1: p50, to one append + fdatasync", AtMost(1.6), one_sync),
        target(
            4,
            "written P4: p99, to the bound's",
            AtMost(1.5),
            ratio("written", "P4", Written, bound, P99),
        ),
        target(4, "synced P64, checkpoints included: p99 to p50", AtMost(4.0), tail),
        target(5, "one item, P4 x16: written acks/s", AtLeast(200e3), single(Written)),
        target(5, "one item, P4 x16: synced acks/s", AtLeast(100e3), single(Synced)),
        target(6, "most resident at 64 lots, P16, in MiB", AtMost(24.0), small),
        target(
            6,
            "most resident at 10,000 lots, in MiB",
            AtMost(48.0),
            memory("most resident, written, 10,000 lots, P16"),
        ),
        target(
            6,
            "most resident with 4,000 connections, in MiB",
            AtMost(96.0),
            memory("most resident, 4,000 connections"),
        ),
        target(
            6,
            "growth over 10 million records",
            AtMost(1.1),
            memory("resident in its last tenth, to its second"),
        ),
        target(
            7,
            "written, 10,000 lots: records/s, to rsyslog's",
            AtLeast(1.3),
            ratio("lots", "10,000 lots", Written, Log(Syslog::Rsyslog), RATE),
        ),
        target(7, "written: daemon CPU-s, 10,000 to 64 lots", AtMost(2.0), spread(CPU)),
        target(
            7,
            "written: time per record, 10,000 to 64 lots",
            AtMost(2.0),
            spread(RATE).map(|ratio| 1.0 / ratio),
        ),
        target(
            8,
            "recovery of 512 MiB of journal, in s",
            AtMost(1.0),
            starts("recovery of 512 MiB of journal"),
        ),
        target(
            8,
            "most resident in recovery, in MiB (a quarter of the journal)",
            AtMost(128.0),
            starts("most resident in recovery"),
        ),
        target(
            8,
            "start with 100,000 lots, in s",
            AtMost(0.2),
            starts("start with 100,000 lots, nothing to recover"),
        ),
        target(
            9,
            "wake-ups in 10 s of idleness",
            AtMost(1.0),
            results.median_fact("idle", "wake-ups in 10 s, 4 connections open"),
        ),
    ]
}

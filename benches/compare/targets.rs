//! What lotlogd should reach, as ratios within one series, and whether it does.

use serde::Serialize;

use crate::contender::{Contender, Sample};
use crate::null::Mode;
use crate::results::Results;

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
const ACKS: Figure = |sample| Some(sample.acks_per_second);
const CPU: Figure = |sample| sample.daemon_cpu_seconds;
const P50: Figure = |sample| sample.ack_p50_seconds;
const P99: Figure = |sample| sample.ack_p99_seconds;

/// All targets, with what was measured of them.
pub fn all(results: &Results) -> Vec<Target> {
    use Contender::{Null, Synced, Written};
    use Limit::{AtLeast, AtMost};
    let (bound, syncfs) = (Null(Mode::Bound), Null(Mode::Syncfs));
    let of = |group, cell, contender, figure: Figure| results.median(group, cell, contender, figure);
    let ratio = |group, cell, ours, theirs, figure| {
        Some(of(group, cell, ours, figure)? / of(group, cell, theirs, figure)?)
    };
    let target = |number, what, limit, value| Target { number, what, limit, value };
    let deep = of("synced", "P16 8 outstanding", Synced, RATE)
        .zip(of("synced", "P16 8 outstanding", Written, RATE))
        .map(|(synced, written)| synced / written);
    vec![
        target(
            1,
            "written P=4: records/s to the bound's",
            AtLeast(0.75),
            ratio("written", "P4", Written, bound, RATE),
        ),
        target(
            1,
            "written P=4: daemon CPU-s per million records",
            AtMost(1.3),
            of("written", "P4", Written, CPU),
        ),
        target(
            2,
            "synced P=16: records/s to null + syncfs",
            AtLeast(1.5),
            ratio("synced", "P16", Synced, syncfs, RATE),
        ),
        target(2, "synced P=16, 8 outstanding: records/s to written", AtLeast(0.7), deep),
        target(
            3,
            "written P=1: ack p50 to the bound's",
            AtMost(1.4),
            ratio("latency", "P1", Written, bound, P50),
        ),
        target(
            4,
            "written P=4: ack p99 to the bound's",
            AtMost(1.5),
            ratio("written", "P4", Written, bound, P99),
        ),
        target(
            5,
            "one item, 64 outstanding (P=4): written acks/s",
            AtLeast(200e3),
            of("single", "P4 16 outstanding", Written, ACKS),
        ),
        target(
            5,
            "one item, 64 outstanding (P=4): synced acks/s",
            AtLeast(100e3),
            of("single", "P4 16 outstanding", Synced, ACKS),
        ),
    ]
}

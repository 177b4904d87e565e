//! The command line.

use std::path::PathBuf;

/// Measures lotlogd beside what else one could use, and beside what the machine allows; prints the table of
/// targets with their ratios.
///
/// All contenders of a group run in turn, round after round, so that what else the machine does meets all of
/// them alike; figures are medians of the rounds. Needs a quiet machine and a directory on a disk.
#[derive(Debug, clap::Parser)]
#[command(name = "compare", bin_name = "cargo bench --bench compare --")]
pub struct Options {
    /// One JSON object into this file; `-` is standard output, instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Rounds [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long each contender is measured in each round [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    seconds: Option<f64>,
    /// Only these groups, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(crate::groups::NAMES))]
    only: Vec<String>,
    /// The tables of growth instead: over producers, batch size, lots and record size
    #[arg(long, conflicts_with = "only")]
    growth: bool,
    /// One short round: does everything work? Its figures mean nothing
    #[arg(long)]
    pub quick: bool,
    /// Where everything is written and removed again [default: beside the build, under target/]
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    pub dir: PathBuf,
    /// The rsyslogd to measure
    #[arg(long, value_name = "PATH", default_value = "rsyslogd")]
    pub rsyslogd: PathBuf,
    /// The syslog-ng to measure
    #[arg(long, value_name = "PATH", default_value = "syslog-ng")]
    pub syslog_ng: PathBuf,
    /// The Python to measure, which should have orjson and pandas
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub python: PathBuf,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn positive(word: &str) -> Result<f64, String> {
    let seconds: f64 = word.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("0.01 to 3600".to_owned()) }
}

impl Options {
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.1 } else { 2.0 })
    }

    /// Whether all targets are measured.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && !self.growth
    }

    pub fn wants(&self, group: &str) -> bool {
        if self.only.is_empty() {
            return crate::groups::GROWTH.contains(&group) == self.growth;
        }
        self.only.iter().any(|name| name == group)
    }
}

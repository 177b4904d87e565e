//! `lotlog verify`: says what is wrong with a data directory, and names file, line and offset. The work is
//! the library's.

use std::io::Write as _;
use std::path::PathBuf;

use lotlog::verify::{Report, VerifyError, verify};

use crate::failure::{DATA, Failure};
use crate::lots::Place;
use crate::units;

/// Reads lots and journal without changing anything, with a daemon running or not. Exit 0 if all is well, 65 if not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory [default: as --data-dir]
    #[arg(value_name = "DATA", conflicts_with = "data_dir")]
    data: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let data_dir = match &args.data {
        Some(dir) => dir.clone(),
        None => args.place.data_dir()?,
    };
    let report = verify(&data_dir).map_err(|error| match error {
        VerifyError::Look(_) => {
            Failure::data(format!("{} is no data directory that can be read: {error}", data_dir.display()))
        }
        error => Failure::io(error.to_string()),
    })?;
    let text = if args.json {
        serde_json::to_string(&report).map_err(|error| Failure::io(error.to_string()))? + "\n"
    } else {
        human(&report)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
    if report.is_good() {
        return Ok(());
    }
    let count = report.findings.len() as u64 + report.further_findings;
    Err(Failure { code: DATA, message: format!("{count} findings in {}", data_dir.display()) })
}

fn human(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let line = finding.line.map_or(String::new(), |line| format!("line {line}, "));
        text += &format!(
            "{}: {line}byte {}: {}: {}\n",
            finding.file, finding.offset, finding.kind, finding.message
        );
    }
    if report.further_findings > 0 {
        text += &format!("... and {} more\n", report.further_findings);
    }
    text += &format!(
        "{}: {} lots, {} records in {} batches, {}; {} batches compared with the journal{}{}{}\n",
        if report.is_good() { "good" } else { "NOT good" },
        units::count(report.lots),
        units::count(report.records),
        units::count(report.batches),
        units::bytes(report.bytes),
        units::count(report.compared_batches),
        if report.to_be_written > 0 {
            format!("; {} more are in the journal and on their way", units::count(report.to_be_written))
        } else {
            String::new()
        },
        if report.quarantined > 0 {
            format!("; {} files set aside in quarantine/", report.quarantined)
        } else {
            String::new()
        },
        if report.daemon_running { "; a daemon is running" } else { "" },
    );
    text
}

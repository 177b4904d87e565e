//! `lotlog verify`: says what is wrong with a data directory, and names file, line and offset. The work is
//! the library's.

use std::io::Write as _;
use std::path::PathBuf;

use lotlog::disk::TakeError;
use lotlog::findings::{Finding, KINDS};
use lotlog::verify::{Report, VerifyError, verify};

use crate::failure::{DATA, Failure, next_step};
use crate::lots::Place;
use crate::units;

/// Findings of one kind that are shown as text.
const MOST_SHOWN: usize = 100;
/// Notes of one kind that are shown as text.
const MOST_NOTES_SHOWN: usize = 10;

/// Reads lots and journal without changing anything, with a daemon running or not. Exit 0 if all is well, 65 if not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = kinds())]
pub struct Args {
    /// The data directory [default: as --data-dir]
    #[arg(value_name = "DATA", conflicts_with = "data_dir")]
    data: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Exit 65 for notes too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let data_dir = match &args.data {
        Some(dir) => dir.clone(),
        None => args.place.data_dir()?,
    };
    let report = verify(&data_dir).map_err(|error| match error {
        VerifyError::Look(TakeError::Io { path, source } | TakeError::Failed { path, source }) => {
            Failure::data(format!(
                "{} is no data directory that can be read: {}: {source}; {}",
                data_dir.display(),
                path.display(),
                next_step(&source)
            ))
        }
        error => Failure::io(error.to_string()),
    })?;
    let text = if args.json {
        serde_json::to_string(&report).map_err(|error| Failure::io(error.to_string()))? + "\n"
    } else {
        human(&report)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
    let notes = if args.strict { report.notes.len() as u64 + report.further_notes } else { 0 };
    let count = report.findings.len() as u64 + report.further_findings;
    match (count, notes) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure { code: DATA, message: format!("{count} findings in {}", data_dir.display()) }),
        _ => {
            let message = format!("{count} findings and {notes} notes in {}", data_dir.display());
            Err(Failure { code: DATA, message })
        }
    }
}

/// What can be found, for `--help`.
fn kinds() -> String {
    let list = |is_damage| {
        let of_them = KINDS.iter().filter(move |kind| kind.is_damage == is_damage);
        of_them.map(|kind| format!("  {}: {}.\n      To do: {}.\n", kind.name, kind.means, kind.to_do))
    };
    let (damage, notes): (String, String) = (list(true).collect(), list(false).collect());
    format!(
        "What it finds (exit 65):\n{damage}\nWhat it notes (exit 0, or 65 with --strict):\n{notes}\n\
         What nobody can find once the journal has let go of a batch (after a checkpoint, 30 s at most): a value that was\n\
         changed into another good one, a line cut out of a batch. While the journal has it, every byte is compared."
    )
}

/// Findings of each kind, then once what the kind means.
fn explained(findings: &[Finding], title: &str, most: usize) -> String {
    let mut text = String::new();
    for kind in KINDS {
        let of_kind: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind.name).collect();
        for finding in of_kind.iter().take(most) {
            let line = finding.line.map_or(String::new(), |line| format!("line {line}, "));
            let place = format!("{}: {line}byte {}", finding.file, finding.offset);
            text += &format!("{title}{place}: {}: {}\n", finding.kind, finding.message);
        }
        if of_kind.len() > most {
            text += &format!("{title}{}: {} more\n", kind.name, of_kind.len() - most);
        }
        if !of_kind.is_empty() {
            text += &format!("    It means: {}.\n    To do: {}.\n", kind.means, kind.to_do);
        }
    }
    text
}

fn human(report: &Report) -> String {
    let mut text = explained(&report.findings, "", MOST_SHOWN);
    if report.further_findings > 0 {
        text += &format!("... and {} more\n", report.further_findings);
    }
    text += &explained(&report.notes, "note: ", MOST_NOTES_SHOWN);
    if report.further_notes > 0 {
        text += &format!("... and {} more notes\n", report.further_notes);
    }
    text += &format!(
        "{}: {} lots{}, {} records in {} batches, {}; {} batches compared with the journal{}{}{}\n",
        if report.is_good() { "good" } else { "NOT good" },
        units::count(report.lots),
        if report.archived > 0 {
            format!(" and {} archived files", units::count(report.archived))
        } else {
            String::new()
        },
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

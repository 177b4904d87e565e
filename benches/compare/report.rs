//! The tables, and the same as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::options::Options;
use crate::results::{Results, Row};
use crate::targets::{Limit, Target};

/// The tables as text.
pub fn text(options: &Options, machine: &Machine, results: &Results, targets: &[Target]) -> String {
    let mut text = String::new();
    let versions: Vec<String> =
        machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}, {} cores, {} GiB, Linux {}, {}, {} open files; {}; medians of {} x {} s; {:.1} % of processor time stolen by other machines\n",
        machine.cpu,
        machine.cores,
        machine.memory_bytes >> 30,
        machine.kernel,
        machine.file_system,
        machine.open_files,
        versions.join(", "),
        options.rounds(),
        options.seconds(),
        machine.stolen * 100.0
    );
    if options.quick {
        text.push_str("A quick run, of smaller sizes than its labels say: its figures mean nothing.\n\n");
    }
    if !results.rows.is_empty() {
        text.push_str(
        "| group | load | contender | records/s | acks/s | p50 us | p99 us | max us | daemon CPU-s/M | all CPU-s/M | bytes/record |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    }
    for row in &results.rows {
        if let Some(why) = &row.missing {
            let _ =
                writeln!(text, "| {} | {} | {} | not measured: {why} |", row.group, row.cell, row.contender);
            continue;
        }
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.group,
            row.cell,
            row.contender,
            figure(row.median(|s| Some(s.records_per_second)), 0),
            figure(row.median(|s| s.acks_per_second), 0),
            figure(micros(row, |s| s.ack_p50_seconds), 0),
            figure(micros(row, |s| s.ack_p99_seconds), 0),
            figure(micros(row, |s| s.ack_max_seconds), 0),
            figure(row.median(|s| s.daemon_cpu_seconds), 2),
            figure(row.median(|s| Some(s.all_cpu_seconds)), 2),
            figure(row.median(|s| Some(s.bytes_per_record)), 0),
        );
    }
    if !results.facts.is_empty() {
        text.push_str("\n| group | figure of lotlogd | median | unit |\n|---|---|---|---|\n");
    }
    for fact in &results.facts {
        let median = figure(crate::stats::median(&fact.rounds), 3);
        let _ = writeln!(text, "| {} | {} | {median} | {} |", fact.group, fact.what, fact.unit);
    }
    let shown: Vec<&Target> =
        targets.iter().filter(|target| target.value.is_some() || options.is_whole()).collect();
    if options.quick || shown.is_empty() {
        return text;
    }
    text.push_str("\n| # | target | wanted | measured | |\n|---|---|---|---|---|\n");
    for target in shown {
        let wanted = match target.limit {
            Limit::AtLeast(least) => format!(">= {}", figure(Some(least), 2)),
            Limit::AtMost(most) => format!("<= {}", figure(Some(most), 2)),
        };
        let verdict = match target.met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let value = figure(target.value, 2);
        let _ = writeln!(text, "| {} | {} | {wanted} | {value} | {verdict} |", target.number, target.what);
    }
    text
}

fn micros(row: &Row, figure: impl Fn(&crate::sample::Sample) -> Option<f64>) -> Option<f64> {
    row.median(figure).map(|seconds| seconds * 1e6)
}

/// With its thousands apart; no more decimals than it deserves.
fn figure(value: Option<f64>, decimals: usize) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let decimals = if value.abs() >= 1000.0 { 0 } else { decimals };
    let plain = format!("{value:.decimals$}");
    let whole = plain.split('.').next().map_or(0, str::len);
    let mut text = String::new();
    for (at, character) in plain.chars().enumerate() {
        if at > 0 && at < whole && (whole - at) % 3 == 0 {
            text.push(',');
        }
        text.push(character);
    }
    text
}

/// The same, with every round.
pub fn json(options: &Options, machine: &Machine, results: &Results, targets: &[Target]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|target| {
            json!({"number": target.number, "what": target.what, "limit": target.limit,
                   "value": target.value, "met": target.met().filter(|_| !options.quick)})
        })
        .collect();
    json!({"machine": machine, "rounds": options.rounds(), "seconds": options.seconds(), "quick": options.quick,
           "rows": results.rows, "facts": results.facts, "targets": targets})
}

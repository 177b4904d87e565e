//! What is measured: groups of cells that share a series, each cell a load and those who take it. What the
//! figures should be is not known here.

use anyhow::Result;

use crate::contender::{self, Contender};
use crate::load::Load;
use crate::null::Mode;
use crate::options::Options;
use crate::python::Way;
use crate::results::Results;
use crate::syslog::Syslog;
use crate::tools::Tools;

pub const NAMES: [&str; 15] = [
    "written",
    "others",
    "synced",
    "deep",
    "latency",
    "tail",
    "single",
    "memory",
    "lots",
    "starts",
    "idle",
    "by-producers",
    "by-batch",
    "by-lots",
    "by-size",
];
/// Tables of growth, which take their time and belong to no target.
pub const GROWTH: [&str; 4] = ["by-producers", "by-batch", "by-lots", "by-size"];

/// One load and its contenders.
struct Cell {
    name: String,
    load: Load,
    contenders: Vec<Contender>,
}

fn cells(group: &str, options: &Options) -> Vec<Cell> {
    let seconds = options.seconds();
    use Contender::{Fdatasync, Null, Python, Synced, Syslog as Log, Written};
    let cell = |name: &str, load, contenders: &[Contender]| Cell {
        name: name.to_owned(),
        load,
        contenders: contenders.to_vec(),
    };
    let usual = |producers| Load::usual(producers, seconds);
    match group {
        "written" => {
            let contenders = [Null(Mode::Bound), Written, Log(Syslog::Rsyslog), Log(Syslog::Ng)];
            vec![cell("P4", usual(4), &contenders)]
        }
        "others" => {
            let contenders = [Written, Log(Syslog::RsyslogLines), Python(Way::Append), Python(Way::Pandas)];
            vec![cell("P4", usual(4), &contenders)]
        }
        "synced" => {
            let contenders = [Null(Mode::Syncfs), Synced, Python(Way::Fdatasync), Python(Way::Sqlite)];
            vec![cell("P16", usual(16), &contenders)]
        }
        "deep" => {
            let deep = Load { outstanding: 8, ..usual(16) };
            vec![
                cell("P16", usual(16), &[Null(Mode::Journal), Synced]),
                cell("P16 x8", deep, &[Synced, Written]),
            ]
        }
        "latency" => vec![cell("P1", usual(1), &[Null(Mode::Bound), Written, Synced, Fdatasync])],
        "single" => {
            let single = |producers, outstanding| Load { items: 1, outstanding, ..usual(producers) };
            vec![
                cell("P4 x16", single(4, 16), &[Null(Mode::Bound), Written, Synced]),
                cell("P64 x1", single(64, 1), &[Null(Mode::Bound), Written]),
            ]
        }
        "lots" => {
            let many = Load { lots: if options.quick { 500 } else { 10_000 }, ..usual(16) };
            vec![
                cell("64 lots", usual(16), &[Written]),
                cell("10,000 lots", many, &[Written, Log(Syslog::Rsyslog)]),
            ]
        }
        _ => growth(group, options),
    }
}

/// How the cost of a record grows with one measure of the load, the others being usual.
fn growth(group: &str, options: &Options) -> Vec<Cell> {
    let usual = |producers| Load::usual(producers, options.seconds());
    let loads: Vec<(usize, Load)> = match group {
        "by-producers" => [1, 2, 4, 8, 16, 32, 64].map(|n| (n, usual(n))).into(),
        "by-batch" => [1, 5, 10, 50, 100, 500, 1000].map(|n| (n, Load { items: n, ..usual(4) })).into(),
        "by-lots" => [1, 64, 1000, 10_000, 100_000].map(|n| (n, Load { lots: n, ..usual(4) })).into(),
        "by-size" => {
            [100, 200, 425, 1000, 2000, 4000, 8000].map(|n| (n, Load { item_bytes: n, ..usual(4) })).into()
        }
        _ => Vec::new(),
    };
    let fewer = loads.into_iter().filter(|(n, _)| !options.quick || *n <= 1000);
    let contenders = vec![Contender::Null(Mode::Bound), Contender::Written, Contender::Synced];
    fewer.map(|(n, load)| Cell { name: n.to_string(), load, contenders: contenders.clone() }).collect()
}

/// Runs the groups that are wanted, each with its contenders in turn.
pub fn run(options: &Options, tools: &Tools, results: &mut Results) -> Result<()> {
    for group in NAMES.into_iter().filter(|group| options.wants(group)) {
        match group {
            "tail" => crate::tail::run(options, results)?,
            "memory" => crate::memory::run(options, results)?,
            "starts" => crate::starts::run(options, results)?,
            "idle" => crate::idle::run(options, results)?,
            _ => {}
        }
        let cells = cells(group, options);
        for round in 1..=options.rounds() {
            for cell in &cells {
                for &contender in &cell.contenders {
                    if let Some(why) = contender.missing(tools) {
                        results.miss(group, &cell.name, contender, &cell.load, why);
                        continue;
                    }
                    let sample = contender::run(contender, &cell.load, tools, &options.dir)?;
                    let (rounds, rate) = (options.rounds(), sample.records_per_second);
                    let name = contender.name();
                    eprintln!("{group} {round}/{rounds}: {}, {name}: {rate:.0} records/s", cell.name);
                    results.add(group, &cell.name, contender, &cell.load, sample);
                }
            }
        }
    }
    Ok(())
}

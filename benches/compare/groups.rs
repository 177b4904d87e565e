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

pub const NAMES: [&str; 4] = ["written", "synced", "latency", "single"];

/// One load and its contenders.
struct Cell {
    name: &'static str,
    load: Load,
    contenders: Vec<Contender>,
}

fn cells(group: &str, seconds: f64) -> Vec<Cell> {
    use Contender::{Fdatasync, Null, Python, Synced, Syslog as Log, Written};
    let cell = |name, load, contenders: &[Contender]| Cell { name, load, contenders: contenders.to_vec() };
    let usual = |producers| Load::usual(producers, seconds);
    match group {
        "written" => {
            let contenders = [
                Null(Mode::Bound),
                Written,
                Log(Syslog::Rsyslog),
                Log(Syslog::RsyslogLines),
                Log(Syslog::Ng),
                Python(Way::Append),
                Python(Way::Pandas),
            ];
            vec![cell("P4", usual(4), &contenders)]
        }
        "synced" => {
            let contenders = [
                Null(Mode::Syncfs),
                Null(Mode::Journal),
                Synced,
                Python(Way::Fdatasync),
                Python(Way::Sqlite),
            ];
            let deep = Load { outstanding: 8, ..usual(16) };
            vec![cell("P16", usual(16), &contenders), cell("P16 x8", deep, &[Synced, Written])]
        }
        "latency" => vec![cell("P1", usual(1), &[Null(Mode::Bound), Written, Synced, Fdatasync])],
        "single" => {
            let single = |producers, outstanding| Load { items: 1, outstanding, ..usual(producers) };
            let contenders = [Null(Mode::Bound), Written, Synced];
            vec![
                cell("P4 x16", single(4, 16), &contenders),
                cell("P1 x64", single(1, 64), &contenders),
                cell("P64 x1", single(64, 1), &contenders),
            ]
        }
        _ => Vec::new(),
    }
}

/// Runs the groups that are wanted, each with its contenders in turn.
pub fn run(options: &Options, tools: &Tools, results: &mut Results) -> Result<()> {
    for group in NAMES.into_iter().filter(|group| options.wants(group)) {
        let cells = cells(group, options.seconds());
        for round in 1..=options.rounds() {
            for cell in &cells {
                for &contender in &cell.contenders {
                    if let Some(why) = contender.missing(tools) {
                        results.miss(group, cell.name, contender, &cell.load, why);
                        continue;
                    }
                    let sample = contender::run(contender, &cell.load, tools, &options.dir)?;
                    let (rounds, rate) = (options.rounds(), sample.records_per_second);
                    let name = contender.name();
                    eprintln!("{group} {round}/{rounds}: {}, {name}: {rate:.0} records/s", cell.name);
                    results.add(group, cell.name, contender, &cell.load, sample);
                }
            }
        }
    }
    Ok(())
}

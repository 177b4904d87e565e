//! What is measured: groups of cells that share a series, each cell a load and those who take it. What the
//! figures should be is not known here.

use anyhow::Result;

use crate::contender::{self, Contender, Sample};
use crate::load::Load;
use crate::null::Mode;
use crate::options::Options;
use crate::results::Results;

pub const NAMES: [&str; 4] = ["written", "synced", "latency", "single"];

/// One load and its contenders.
struct Cell {
    name: &'static str,
    load: Load,
    contenders: Vec<Contender>,
}

fn cells(group: &str, seconds: f64) -> Vec<Cell> {
    use Contender::{Null, Synced, Written};
    let cell = |name, load, contenders: &[Contender]| Cell { name, load, contenders: contenders.to_vec() };
    match group {
        "written" => {
            vec![cell("P4", Load::usual(4, seconds), &[Null(Mode::Bound), Written])]
        }
        "synced" => {
            let deep = Load { outstanding: 8, ..Load::usual(16, seconds) };
            let contenders = [Null(Mode::Syncfs), Null(Mode::Journal), Synced];
            vec![
                cell("P16", Load::usual(16, seconds), &contenders),
                cell("P16 8 outstanding", deep, &[Synced, Written]),
            ]
        }
        "latency" => vec![cell("P1", Load::usual(1, seconds), &[Null(Mode::Bound), Written, Synced])],
        "single" => {
            let single =
                |producers, outstanding| Load { items: 1, outstanding, ..Load::usual(producers, seconds) };
            vec![
                cell("P4 16 outstanding", single(4, 16), &[Null(Mode::Bound), Written, Synced]),
                cell("P1 64 outstanding", single(1, 64), &[Null(Mode::Bound), Written, Synced]),
                cell("P64 1 outstanding", single(64, 1), &[Null(Mode::Bound), Written, Synced]),
            ]
        }
        _ => Vec::new(),
    }
}

/// Runs the groups that are wanted.
pub fn run(options: &Options, results: &mut Results) -> Result<()> {
    for group in NAMES.into_iter().filter(|group| options.wants(group)) {
        let cells = cells(group, options.seconds());
        for round in 1..=options.rounds() {
            for cell in &cells {
                for &contender in &cell.contenders {
                    let sample: Sample = contender::run(contender, &cell.load, &options.dir)?;
                    eprintln!(
                        "{group} {round}/{} {} {}: {:.0} records/s",
                        options.rounds(),
                        cell.name,
                        contender.name(),
                        sample.records_per_second
                    );
                    results.add(group, cell.name, contender, &cell.load, sample);
                }
            }
        }
    }
    Ok(())
}

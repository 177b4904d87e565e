//! `cargo bench --bench compare`: lotlogd beside what else one could use, and beside what the machine allows, as
//! ratios within one series. `-- --help` tells the options; `options.rs` is the way in, `groups.rs` says what is
//! measured and `targets.rs` what it should be.

mod cleanup;
mod contender;
mod groups;
mod idle;
mod load;
mod lotlogd;
mod machine;
mod memory;
mod null;
mod options;
mod process;
mod producers;
mod python;
mod records;
mod report;
mod results;
mod sample;
mod scratch;
mod starts;
mod stats;
mod syslog;
mod tail;
mod targets;
mod tools;

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Parser as _;

use crate::machine::Machine;
use crate::null::Mode;
use crate::options::Options;
use crate::results::Results;
use crate::tools::Tools;

/// First word of the command line of a bench that is to be a null daemon: mode, socket and directory follow.
const NULL_DAEMON: &str = "null-daemon";

fn main() -> Result<()> {
    let words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == NULL_DAEMON) {
        let [_, _, mode, socket, dir] = &words[..] else { bail!("{NULL_DAEMON} MODE SOCKET DIR") };
        let mode = mode.to_str().and_then(Mode::parse).context("no such mode of the null daemon")?;
        return Ok(null::serve(mode, Path::new(socket), Path::new(dir))?);
    }
    measure(&Options::parse())
}

fn measure(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) && !options.quick {
        bail!("this is a debug build, whose figures mean nothing: use `cargo bench --bench compare`");
    }
    cleanup::at_signals()?;
    let tools = Tools::find(options);
    let mut machine = Machine::of(&options.dir, &tools);
    if machine.is_memory() {
        eprintln!(
            "{} is memory, where a sync costs nothing: name a directory on a disk",
            options.dir.display()
        );
    }
    let mut results = Results::default();
    let before = machine::stolen_and_all();
    groups::run(options, &tools, &mut results)?;
    if let Some((before, after)) = before.zip(machine::stolen_and_all()) {
        machine.stolen = (after.0 - before.0) / (after.1 - before.1).max(1.0);
    }
    let targets = targets::all(&results);
    let page = || report::json(options, &machine, &results, &targets);
    match &options.json {
        Some(path) if path.as_os_str() == "-" => println!("{}", page()),
        Some(path) => {
            std::fs::write(path, page().to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", report::text(options, &machine, &results, &targets));
        }
        None => println!("{}", report::text(options, &machine, &results, &targets)),
    }
    Ok(())
}

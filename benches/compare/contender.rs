//! The contenders, and one run of one of them under one load: a fresh directory, a warm-up, the clock, the count of
//! the lines in its files, and nothing left behind. What is compared with what is not known here.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::{Load, Requests};
use crate::lotlogd::Lotlogd;
use crate::machine;
use crate::null::Mode;
use crate::process::{self, Process};
use crate::producers;
use crate::python::{self, Way};
use crate::records::Composer;
use crate::sample::{Files, Measured, Sample};
use crate::scratch::Scratch;
use crate::syslog::{self, Syslog};
use crate::tools::Tools;

/// What the fastest contender stores.
const MOST_BYTES_PER_SECOND: f64 = 1.5e9;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Who takes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Written,
    Synced,
    Null(Mode),
    Syslog(Syslog),
    Python(Way),
    /// No daemon: one thread appends the lines of a batch to one file and syncs it.
    Fdatasync,
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Contender::Written => "lotlogd written",
            Contender::Synced => "lotlogd synced",
            Contender::Null(Mode::Bound) => "bound",
            Contender::Null(Mode::Syncfs) => "null + syncfs",
            Contender::Null(Mode::Journal) => "null + journal",
            Contender::Syslog(Syslog::Rsyslog) => "rsyslog",
            Contender::Syslog(Syslog::RsyslogLines) => "rsyslog, by lines",
            Contender::Syslog(Syslog::Ng) => "syslog-ng",
            Contender::Python(Way::Append) => "Python orjson append",
            Contender::Python(Way::Fdatasync) => "Python orjson fdatasync",
            Contender::Python(Way::Pandas) => "Python pandas rows",
            Contender::Python(Way::Sqlite) => "SQLite FULL",
            Contender::Fdatasync => "append + fdatasync",
        }
    }

    /// Why it cannot be measured here.
    pub fn missing(self, tools: &Tools) -> Option<String> {
        match self {
            Contender::Syslog(Syslog::Rsyslog | Syslog::RsyslogLines) => tools.rsyslogd.clone().err(),
            Contender::Syslog(Syslog::Ng) => tools.syslog_ng.clone().err(),
            Contender::Python(Way::Append | Way::Fdatasync) => tools.orjson.clone().err(),
            Contender::Python(Way::Pandas) => tools.pandas.clone().err(),
            Contender::Python(Way::Sqlite) => tools.sqlite.clone().err(),
            Contender::Written | Contender::Synced | Contender::Null(_) | Contender::Fdatasync => None,
        }
    }
}

/// One run of `contender` in a directory under `parent`.
pub fn run(contender: Contender, load: &Load, tools: &Tools, parent: &Path) -> Result<Sample> {
    let dir = Scratch::new(parent)?;
    level(load, parent)?;
    let sample = match contender {
        Contender::Written => lotlogd("written", load, &dir.0),
        Contender::Synced => lotlogd("synced", load, &dir.0),
        Contender::Null(mode) => null(mode, load, &dir.0),
        Contender::Syslog(syslog) => {
            let program = match syslog {
                Syslog::Rsyslog | Syslog::RsyslogLines => &tools.rsyslogd,
                Syslog::Ng => &tools.syslog_ng,
            };
            there(program).and_then(|program| syslog::run(syslog, program, load, &dir.0))
        }
        Contender::Python(way) => {
            there(&tools.python).and_then(|python| python::run(python, way, load, &dir.0))
        }
        Contender::Fdatasync => fdatasync(load, &dir.0),
    };
    sample.with_context(|| format!("{} failed", contender.name()))
}

/// The same field for all: what was written before is not paid for by who comes next, nor is memory that the machine
/// below a virtual one has taken back and gives again page by page, which costs the fastest most.
fn level(load: &Load, parent: &Path) -> Result<()> {
    rustix::fs::syncfs(fs::File::open(parent)?)?;
    let wanted = (load.seconds * MOST_BYTES_PER_SECOND) as u64;
    let available = machine::available_memory_bytes() / 4;
    std::hint::black_box(vec![1u8; usize::try_from(wanted.min(available))?]);
    Ok(())
}

fn there(program: &Result<PathBuf, String>) -> Result<&Path> {
    program.as_deref().map_err(|why| anyhow::anyhow!("{why}"))
}

fn lotlogd(ack: &str, load: &Load, dir: &Path) -> Result<Sample> {
    let daemon = Lotlogd::start(dir, &[])?;
    let (measured, stored) = measure(load, ack, &daemon.socket, &daemon.process, || daemon.sync())?;
    daemon.process.stop()?;
    counted(&measured, stored, load, &dir.join("data/lots"))
}

fn null(mode: Mode, load: &Load, dir: &Path) -> Result<Sample> {
    let socket = dir.join("null.sock");
    let mut command = Command::new(std::env::current_exe()?);
    command.args([crate::NULL_DAEMON, mode.as_str()]).arg(&socket).arg(dir);
    let mut process = Process::start("the null daemon", &mut command, &dir.join("null.log"))?;
    process.wait_until("listened", START_TIMEOUT, || socket.exists().then_some(()))?;
    let (measured, stored) = measure(load, "written", &socket, &process, || Ok(()))?;
    process.kill()?;
    counted(&measured, stored, load, &dir.join("lots"))
}

fn counted(measured: &Measured, stored: u64, load: &Load, lots: &Path) -> Result<Sample> {
    let files = Files::count(lots)?;
    files.hold(stored, load.lots)?;
    measured.sample(&files)
}

/// Sends the load; the records of the clock's time, and all that must be in the files.
pub fn measure(
    load: &Load,
    ack: &str,
    socket: &Path,
    daemon: &Process,
    settle: impl Fn() -> Result<()>,
) -> Result<(Measured, u64)> {
    let mut before = (0.0, 0.0);
    let seen = producers::run(load, ack, socket, || {
        settle()?;
        before = (daemon.cpu_seconds()?, process::own_cpu_seconds()?);
        Ok(())
    })?;
    settle()?;
    let measured = Measured {
        records: seen.batches * load.items as u64,
        seconds: seen.started.elapsed().as_secs_f64(),
        acked_seconds: seen.seconds,
        daemon_cpu_seconds: Some(daemon.cpu_seconds()? - before.0),
        producers_cpu_seconds: process::own_cpu_seconds()? - before.1,
        latencies: seen.latencies,
    };
    Ok((measured, (seen.batches + seen.warmed) * load.items as u64))
}

/// The lines of one batch at a time, appended to one file and synced.
fn fdatasync(load: &Load, dir: &Path) -> Result<Sample> {
    let lots = dir.join("lots");
    fs::create_dir(&lots)?;
    let mut file = fs::File::create(lots.join("one.jsonl"))?;
    let requests =
        Requests::of_all(&Load { producers: 1, ..*load }, "synced").pop().context("no requests")?;
    let mut lines = Vec::new();
    Composer::default().compose(&requests.line(1), b"", &mut lines)?;
    let mut latencies = Vec::new();
    let (started, before) = (Instant::now(), process::own_cpu_seconds()?);
    while started.elapsed() < load.time() {
        let begun = Instant::now();
        file.write_all(&lines)?;
        file.sync_data()?;
        latencies.push(begun.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    let producers_cpu_seconds = process::own_cpu_seconds()? - before;
    latencies.sort_unstable();
    let records = (latencies.len() * load.items) as u64;
    let measured = Measured {
        records,
        seconds,
        acked_seconds: seconds,
        daemon_cpu_seconds: None,
        producers_cpu_seconds,
        latencies,
    };
    counted(&measured, records, &Load { lots: 1, ..*load }, &lots)
}

//! The contenders, and one run of one of them under one load: a fresh directory, a warm-up, the clock, the count of
//! the lines in its files, and nothing left behind. What is compared with what is not known here.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::load::Load;
use crate::lotlogd::Lotlogd;
use crate::null::Mode;
use crate::process::{self, Process};
use crate::producers;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Who takes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Written,
    Synced,
    Null(Mode),
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Contender::Written => "lotlogd written",
            Contender::Synced => "lotlogd synced",
            Contender::Null(Mode::Bound) => "bound",
            Contender::Null(Mode::Syncfs) => "null + syncfs",
            Contender::Null(Mode::Journal) => "null + journal",
        }
    }
}

/// What one run gave.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub records: u64,
    /// From the start until every record is in its file, synced where that is promised.
    pub seconds: f64,
    pub records_per_second: f64,
    pub acks_per_second: f64,
    /// By the last acknowledgement alone, whatever is then still to be written.
    pub acked_records_per_second: f64,
    pub ack_p50_seconds: Option<f64>,
    pub ack_p99_seconds: Option<f64>,
    pub ack_max_seconds: Option<f64>,
    /// Of the daemon, per million records.
    pub daemon_cpu_seconds: Option<f64>,
    /// Of daemon and producers, per million records.
    pub all_cpu_seconds: f64,
    pub bytes_per_record: f64,
}

/// One run of `contender` in a directory under `parent`.
pub fn run(contender: Contender, load: &Load, parent: &Path) -> Result<Sample> {
    let dir = Scratch::new(parent)?;
    // What was written before is not to be paid for by who comes next.
    rustix::fs::syncfs(fs::File::open(parent)?)?;
    let sample = match contender {
        Contender::Written => lotlogd("written", load, &dir.0),
        Contender::Synced => lotlogd("synced", load, &dir.0),
        Contender::Null(mode) => null(mode, load, &dir.0),
    };
    sample.with_context(|| format!("{} failed", contender.name()))
}

fn lotlogd(ack: &str, load: &Load, dir: &Path) -> Result<Sample> {
    let daemon = Lotlogd::start(dir, &[])?;
    let sample = measure(load, ack, &daemon.socket, &daemon.process, || daemon.sync())?;
    daemon.process.stop()?;
    sample.with_lines(load, &dir.join("data/lots"))
}

fn null(mode: Mode, load: &Load, dir: &Path) -> Result<Sample> {
    let socket = dir.join("null.sock");
    let mut command = Command::new(std::env::current_exe()?);
    command.args([crate::NULL_DAEMON, mode.as_str()]).arg(&socket).arg(dir);
    let mut process = Process::start("the null daemon", &mut command, &dir.join("null.log"))?;
    process.wait_until("listened", START_TIMEOUT, || socket.exists().then_some(()))?;
    let sample = measure(load, "written", &socket, &process, || Ok(()))?;
    process.kill()?;
    sample.with_lines(load, &dir.join("lots"))
}

/// A sample whose lines are not counted yet.
struct Uncounted {
    sample: Sample,
    stored: u64,
}

fn measure(
    load: &Load,
    ack: &str,
    socket: &Path,
    daemon: &Process,
    settle: impl Fn() -> Result<()>,
) -> Result<Uncounted> {
    let mut before = (0.0, 0.0);
    let seen = producers::run(load, ack, socket, || {
        settle()?;
        before = (daemon.cpu_seconds()?, process::own_cpu_seconds()?);
        Ok(())
    })?;
    settle()?;
    let seconds = seen.started.elapsed().as_secs_f64();
    let (daemon_cpu, own_cpu) = (daemon.cpu_seconds()? - before.0, process::own_cpu_seconds()? - before.1);
    let records = seen.batches * load.items as u64;
    ensure!(records > 0, "nothing was acknowledged");
    let millions = records as f64 / 1e6;
    let quantile = |q: f64| crate::stats::quantile(&seen.latencies, q).map(|time| time.as_secs_f64());
    Ok(Uncounted {
        stored: (seen.batches + seen.warmed) * load.items as u64,
        sample: Sample {
            records,
            seconds,
            records_per_second: records as f64 / seconds,
            acks_per_second: seen.batches as f64 / seconds,
            acked_records_per_second: records as f64 / seen.seconds,
            ack_p50_seconds: quantile(0.5),
            ack_p99_seconds: quantile(0.99),
            ack_max_seconds: quantile(1.0),
            daemon_cpu_seconds: Some(daemon_cpu / millions),
            all_cpu_seconds: (daemon_cpu + own_cpu) / millions,
            bytes_per_record: 0.0,
        },
    })
}

impl Uncounted {
    /// Believes the acknowledgements only if there are as many lines.
    fn with_lines(mut self, load: &Load, lots: &Path) -> Result<Sample> {
        let (mut lines, mut bytes, mut files) = (0, 0, 0);
        let mut buffer = vec![0; 1 << 20];
        for entry in fs::read_dir(lots)? {
            let mut file = fs::File::open(entry?.path())?;
            files += 1;
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                bytes += got as u64;
                lines += memchr::memchr_iter(b'\n', &buffer[..got]).count() as u64;
            }
        }
        ensure!(lines == self.stored, "{} records were acknowledged, the files hold {lines}", self.stored);
        ensure!(files == load.lots, "{} lots were sent, there are {files} files", load.lots);
        self.sample.bytes_per_record = bytes as f64 / lines as f64;
        Ok(self.sample)
    }
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Scratch> {
        let dir = parent.join(format!("run-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

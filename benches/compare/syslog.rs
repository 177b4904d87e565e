//! rsyslog and syslog-ng, each a private instance with its configuration, socket and process id beside the lot files;
//! the system's own is never touched. They get finished record lines over a Unix stream socket, the faster of the
//! transports for both, and write one file per lot. They acknowledge nothing: the clock stops when the files hold every
//! byte. Tuned as for throughput: large batches and buffers, one write for what is there, back-pressure instead of loss.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::load::{Load, Requests};
use crate::process::{self, Process};
use crate::records::Composer;
use crate::sample::{Files, Measured, Sample};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// All lines must be in the files so soon after the last was sent.
const ARRIVE_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Of a syslog line: priority, time and host, as RFC 3164 has them; the lot is the program's name.
const HEADER: &str = "<13>Aug 23 18:45:12 farm ";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syslog {
    /// With messages that carry their length (RFC 6587), which it takes in with less than half the work.
    Rsyslog,
    /// With a newline behind each message, as most senders have it.
    RsyslogLines,
    Ng,
}

impl Syslog {
    fn configuration(self, dir: &str, load: &Load) -> String {
        match self {
            Syslog::Rsyslog | Syslog::RsyslogLines => format!(
                r#"global(workDirectory="{dir}" maxMessageSize="64k" internalmsg.ratelimit.interval="0")
module(load="imptcp" threads="2")
template(name="lot" type="string" string="{dir}/lots/%programname%.jsonl")
template(name="line" type="string" string="%msg%\n")
# A queue of its own, so that the socket is read while files are written. It blocks when full, and never drops. One
# worker: two are a tenth faster with two processors, but change the order of lines.
ruleset(name="lots" queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="2048"
        queue.workerThreads="1" queue.timeoutEnqueue="600000") {{
  action(type="omfile" dynaFile="lot" template="line" dynaFileCacheSize="{files}" ioBufferSize="256k"
         flushOnTXEnd="on" asyncWriting="off" createDirs="off")
}}
input(type="imptcp" path="{dir}/syslog.sock" ruleset="lots" ratelimit.interval="0")
"#,
                files = load.lots + 8
            ),
            Syslog::Ng => format!(
                r#"@version: 3.38
options {{ threaded(yes); stats-freq(0); keep-hostname(yes); use-dns(no); dns-cache(no); create-dirs(no); log-msg-size(65536); }};
source s {{
  unix-stream("{dir}/syslog.sock" max-connections(256) log-iw-size(256000) log-fetch-limit(1000) keep-alive(yes)
    flags(expect-hostname));
}};
destination d {{
  file("{dir}/lots/${{PROGRAM}}.jsonl" template("${{MESSAGE}}\n") template-escape(no)
       log-fifo-size(260000) flush-lines(1000) perm(0640));
}};
# flow-control: the socket is not read while the files' queues are full, so that nothing is dropped.
log {{ source(s); destination(d); flags(flow-control); }};
"#
            ),
        }
    }

    fn command(self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Syslog::Rsyslog | Syslog::RsyslogLines => {
                command
                    .arg("-n")
                    .arg("-f")
                    .arg(dir.join("syslog.conf"))
                    .arg("-i")
                    .arg(dir.join("syslog.pid"));
            }
            Syslog::Ng => {
                command.args(["--foreground", "--no-caps"]);
                for (option, name) in [
                    ("--cfgfile", "syslog.conf"),
                    ("--persist-file", "syslog.persist"),
                    ("--pidfile", "syslog.pid"),
                    ("--control", "syslog.ctl"),
                ] {
                    command.arg(option).arg(dir.join(name));
                }
            }
        }
        command
    }
}

/// One batch as it is sent, and how long its lines are in the file.
struct Block {
    sent: Vec<u8>,
    stored_bytes: u64,
}

/// One run.
pub fn run(syslog: Syslog, program: &Path, load: &Load, dir: &Path) -> Result<Sample> {
    let lots = dir.join("lots");
    fs::create_dir(&lots)?;
    let blocks = Arc::new(blocks(syslog, load)?);
    let socket = dir.join("syslog.sock");
    let name = dir.to_str().context("the directory's name is not UTF-8")?;
    fs::write(dir.join("syslog.conf"), syslog.configuration(name, load))?;
    let mut daemon =
        Process::start("the syslog daemon", &mut syslog.command(program, dir), &dir.join("syslog.log"))?;
    let mut streams = Vec::new();
    for _ in 0..load.producers {
        streams.push(daemon.wait_until("listened", START_TIMEOUT, || UnixStream::connect(&socket).ok())?);
    }

    // Every lot once, so that all files are open when the clock starts.
    let mut expected = 0;
    for block in blocks.iter() {
        streams[0].write_all(&block.sent)?;
        expected += block.stored_bytes;
    }
    arrive(&lots, expected, &mut daemon)?;

    let gate = Barrier::new(load.producers + 1);
    let (started, daemon_before, own_before, outcomes) = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(number, mut stream)| {
                let (gate, blocks) = (&gate, Arc::clone(&blocks));
                scope.spawn(move || {
                    let mut at = number * blocks.len() / load.producers;
                    let (mut batches, mut bytes) = (0u64, 0);
                    gate.wait();
                    let deadline = Instant::now() + load.time();
                    while Instant::now() < deadline {
                        let block = &blocks[at % blocks.len()];
                        stream.write_all(&block.sent).context("cannot send to the syslog daemon")?;
                        (at, batches, bytes) = (at + 1, batches + 1, bytes + block.stored_bytes);
                    }
                    // The stream is handed back: closing it is not what is measured.
                    Ok((batches, bytes, stream))
                })
            })
            .collect();
        let before = (daemon.cpu_seconds(), process::own_cpu_seconds());
        let started = Instant::now();
        gate.wait();
        let outcomes: Vec<Result<(u64, u64, UnixStream)>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a producer panicked"))))
            .collect();
        (started, before.0, before.1, outcomes)
    });
    let mut batches = 0;
    let mut open = Vec::new();
    for outcome in outcomes {
        let (of_one, bytes, stream) = outcome?;
        batches += of_one;
        expected += bytes;
        open.push(stream);
    }
    let producers_cpu_seconds = process::own_cpu_seconds()? - own_before?;
    arrive(&lots, expected, &mut daemon)?;
    let seconds = started.elapsed().as_secs_f64();
    let measured = Measured {
        records: batches * load.items as u64,
        seconds,
        acked_seconds: seconds,
        daemon_cpu_seconds: Some(daemon.cpu_seconds()? - daemon_before?),
        producers_cpu_seconds,
        latencies: Vec::new(),
    };
    daemon.stop()?;
    let files = Files::count(&lots)?;
    files.hold(measured.records + (blocks.len() * load.items) as u64, load.lots)?;
    measured.sample(&files)
}

/// One batch for each lot, ready to be sent.
fn blocks(syslog: Syslog, load: &Load) -> Result<Vec<Block>> {
    let alone = Load { producers: 1, ..*load };
    let requests = Requests::of_all(&alone, "written").pop().context("no requests")?;
    let mut composer = Composer::default();
    (0..load.lots as u64)
        .map(|seq| {
            let request = requests.line(seq);
            // The lot is known before it is composed: as the program's name it stands in front of every line.
            let lot = composer.compose(&request, b"", &mut Vec::new())?;
            let prefix = format!("{HEADER}{}:", String::from_utf8_lossy(lot));
            let mut sent = Vec::new();
            composer.compose(&request, prefix.as_bytes(), &mut sent)?;
            let stored_bytes = (sent.len() - load.items * prefix.len()) as u64;
            if syslog == Syslog::Rsyslog {
                sent = counted(&sent);
            }
            Ok(Block { sent, stored_bytes })
        })
        .collect()
}

/// The same messages, each with its length in front instead of a newline behind.
fn counted(messages: &[u8]) -> Vec<u8> {
    let mut counted = Vec::with_capacity(messages.len() + messages.len() / 100);
    for message in messages.split_inclusive(|&byte| byte == b'\n') {
        counted.extend_from_slice(format!("{} ", message.len() - 1).as_bytes());
        counted.extend_from_slice(&message[..message.len() - 1]);
    }
    counted
}

/// Waits until the files hold so many bytes.
fn arrive(lots: &Path, bytes: u64, daemon: &mut Process) -> Result<()> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let deadline = Instant::now() + ARRIVE_TIMEOUT;
    loop {
        let mut there = 0;
        for path in &paths {
            there += fs::metadata(path)?.len();
        }
        if there == bytes {
            return Ok(());
        }
        ensure!(there < bytes, "the files hold {there} bytes, {bytes} were sent");
        ensure!(
            Instant::now() < deadline,
            "{there} of {bytes} bytes are in the files {ARRIVE_TIMEOUT:?} after the last was sent; its log: {}",
            daemon.log_end()
        );
        std::thread::sleep(LOOK_EVERY);
        paths = fs::read_dir(lots)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    }
}

//! The resident memory of lotlogd: under load, with many lots, with many connections, and over many records. What
//! the page cache holds is not the daemon's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::{Load, Requests};
use crate::lotlogd::Lotlogd;
use crate::options::Options;
use crate::process::Process;
use crate::producers;
use crate::results::Results;
use crate::scratch::Scratch;
use crate::stats;

const GROUP: &str = "memory";
const MIB: f64 = (1 << 20) as f64;
const CONNECTIONS: usize = 4000;
const LOTS: usize = 10_000;
/// It hardly varies.
const MOST_ROUNDS: u32 = 3;
/// Over so many records it should not grow.
const RECORDS: f64 = 10e6;
/// They are sent in legs so long, each with new connections.
const LEG_SECONDS: f64 = 0.5;
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn run(options: &Options, results: &mut Results) -> Result<()> {
    let usual = Load::usual(16, options.seconds());
    let lots = Load { lots: if options.quick { 500 } else { LOTS }, ..usual };
    for _ in 0..options.rounds().min(MOST_ROUNDS) {
        results.fact(
            GROUP,
            "most resident, written, 64 lots, P16",
            "MiB",
            peak(&options.dir, &usual, "written")?,
        );
        results.fact(
            GROUP,
            "most resident, synced, 64 lots, P16",
            "MiB",
            peak(&options.dir, &usual, "synced")?,
        );
        results.fact(
            GROUP,
            "most resident, written, 10,000 lots, P16",
            "MiB",
            peak(&options.dir, &lots, "written")?,
        );
        let count = if options.quick { 200 } else { CONNECTIONS };
        results.fact(GROUP, "most resident, 4,000 connections", "MiB", connections(&options.dir, count)?);
    }
    let records = if options.quick { RECORDS / 100.0 } else { RECORDS };
    flat(&options.dir, &Load { seconds: LEG_SECONDS, ..usual }, records, results)
}

/// The most it had.
fn peak(parent: &Path, load: &Load, ack: &str) -> Result<f64> {
    let dir = Scratch::new(parent)?;
    let daemon = Lotlogd::start(&dir.0, &[])?;
    producers::run(load, ack, &daemon.socket, || Ok(()))?;
    daemon.sync()?;
    let (_, most) = daemon.process.memory_bytes()?;
    daemon.process.stop()?;
    Ok(most as f64 / MIB)
}

/// So many connections, each of which has sent one batch and stays.
fn connections(parent: &Path, count: usize) -> Result<f64> {
    let dir = Scratch::new(parent)?;
    let daemon = Lotlogd::start(&dir.0, &[])?;
    let requests = Requests::of_all(&Load::usual(1, 1.0), "written").pop().context("no requests")?;
    // Without a session, so that every connection may send it.
    let line = requests.line(1);
    let at = memchr::memmem::find(&line, b"\"ack\"").context("no ack in the request")?;
    let request = [b"{", &line[at..], b"\n"].concat();
    let mut streams = Vec::new();
    let mut reply = [0; 4096];
    for number in 0..count {
        let mut stream = UnixStream::connect(&daemon.socket).with_context(|| {
            format!("connection {number} of {count}: is the limit of open files too low?")
        })?;
        stream.write_all(&request)?;
        let got = stream.read(&mut reply)?;
        anyhow::ensure!(
            reply[..got].starts_with(b"{\"ok\":true"),
            "{}",
            String::from_utf8_lossy(&reply[..got])
        );
        streams.push(stream);
    }
    let (_, most) = daemon.process.memory_bytes()?;
    drop(streams);
    daemon.process.stop()?;
    Ok(most as f64 / MIB)
}

/// Whether it grows: the last tenth of a long run beside the second.
fn flat(parent: &Path, load: &Load, records: f64, results: &mut Results) -> Result<()> {
    let dir = Scratch::new(parent)?;
    let daemon = Lotlogd::start(&dir.0, &[])?;
    let done = AtomicBool::new(false);
    let (sent, resident) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&daemon.process, &done));
        let mut sent = 0.0;
        let mut leg = Ok(());
        while leg.is_ok() && sent < records {
            leg = producers::run(load, "written", &daemon.socket, || Ok(()))
                .map(|seen| sent += (seen.batches * load.items as u64) as f64);
        }
        done.store(true, Ordering::Relaxed);
        (leg.map(|()| sent), watch.join().unwrap_or_default())
    });
    let records = sent?;
    let (_, most) = daemon.process.memory_bytes()?;
    daemon.process.stop()?;
    let tenth = resident.len() / 10;
    let part = |from: usize| stats::median(resident.get(from..from + tenth.max(1)).unwrap_or(&[]));
    let growth = part(tenth).zip(part(resident.len().saturating_sub(tenth.max(1))));
    let (early, late) = growth.context("the run was too short to see memory grow")?;
    results.fact(GROUP, "records of the long run", "million", records / 1e6);
    results.fact(GROUP, "most resident in the long run", "MiB", most as f64 / MIB);
    results.fact(GROUP, "resident in its last tenth, to its second", "ratio", late / early);
    Ok(())
}

fn watch(process: &Process, done: &AtomicBool) -> Vec<f64> {
    let mut resident = Vec::new();
    while !done.load(Ordering::Relaxed) {
        if let Ok((now, _)) = process.memory_bytes() {
            resident.push(now as f64 / MIB);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    resident
}

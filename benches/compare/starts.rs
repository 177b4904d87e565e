//! How long lotlogd takes to serve: after a death with a full journal, and with an empty one and many lots. From
//! the start of the process to its first answer.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::load::Load;
use crate::lotlogd::Lotlogd;
use crate::options::Options;
use crate::producers;
use crate::results::Results;
use crate::scratch::Scratch;

const GROUP: &str = "starts";
const MIB: u64 = 1 << 20;
const JOURNAL_BYTES: u64 = 512 * MIB;
/// So large that all of it lies in five full segments: two more are spare, one is being prepared, one is in use, and
/// at eight in use a checkpoint is due.
const SEGMENT_BYTES: u64 = 104 * MIB;
const _: () = assert!(5 * SEGMENT_BYTES >= JOURNAL_BYTES);
const LOTS: usize = 100_000;
/// One step of filling.
const FILL_SECONDS: f64 = 0.1;
const MOST_STEPS: usize = 1000;

pub fn run(options: &Options, results: &mut Results) -> Result<()> {
    for _ in 0..options.rounds() {
        recovery(options, results)?;
    }
    many_lots(options, results)
}

fn recovery(options: &Options, results: &mut Results) -> Result<()> {
    let scale = if options.quick { 32 } else { 1 };
    let segment = (SEGMENT_BYTES / scale).to_string();
    let settings = ["--segment-bytes", &segment, "--checkpoint-interval-seconds", "60m"];
    let dir = Scratch::new(&options.dir)?;
    let daemon = Lotlogd::start(&dir.0, &settings)?;
    // What the segments take on the disk: the newest may be all but empty.
    let wanted = 9 * SEGMENT_BYTES / scale;
    let mut steps = 0;
    let mut records = 0;
    while daemon.status("journal_bytes")? < wanted {
        let load = Load::usual(4, FILL_SECONDS / scale as f64);
        let seen = producers::run(&load, "written", &daemon.socket, || Ok(()))?;
        records += (seen.batches + seen.warmed) * load.items as u64;
        steps += 1;
        ensure!(steps < MOST_STEPS, "the journal does not grow to {wanted} bytes: is a checkpoint made?");
    }
    daemon.sync()?;
    daemon.process.kill()?;
    let (seconds, most) = start(&dir.0, &settings)?;
    let files = crate::sample::Files::count(&dir.0.join("data/lots"))?;
    files.hold(records, files.files)?;
    results.fact(GROUP, "recovery of 512 MiB of journal", "s", seconds);
    results.fact(GROUP, "most resident in recovery", "MiB", most);
    let plain = write_and_sync(&dir.0.join("plain"), files.bytes)?;
    results.fact(GROUP, "plainly writing and syncing the bytes of its lot files", "s", plain);
    Ok(())
}

fn many_lots(options: &Options, results: &mut Results) -> Result<()> {
    let dir = Scratch::new(&options.dir)?;
    let lots = if options.quick { 1000 } else { LOTS };
    let daemon = Lotlogd::start(&dir.0, &[])?;
    // The warm-up alone reaches every lot.
    let load = Load { lots, items: 1, outstanding: 16, ..Load::usual(16, 0.05) };
    producers::run(&load, "written", &daemon.socket, || Ok(()))?;
    daemon.sync()?;
    daemon.process.stop()?;
    for _ in 0..options.rounds() {
        let (seconds, most) = start(&dir.0, &[])?;
        results.fact(GROUP, "start with 100,000 lots, nothing to recover", "s", seconds);
        results.fact(GROUP, "most resident in that start", "MiB", most);
    }
    Ok(())
}

/// What the disk takes for as many bytes as recovery writes, in one file.
fn write_and_sync(path: &Path, bytes: u64) -> Result<f64> {
    let chunk = vec![b'x'; MIB as usize];
    let begun = Instant::now();
    let mut file = std::fs::File::create(path)?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(MIB);
        file.write_all(&chunk[..part as usize])?;
        left -= part;
    }
    file.sync_all()?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds until it answers, and the most memory it took until then, in MiB; it is then stopped cleanly.
fn start(dir: &Path, settings: &[&str]) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let daemon = Lotlogd::start(dir, settings)?;
    let seconds = begun.elapsed().as_secs_f64();
    let (_, most) = daemon.process.memory_bytes()?;
    daemon.process.stop()?;
    Ok((seconds, most as f64 / MIB as f64))
}

//! The slowest acknowledgements of a long run with many producers, while checkpoints are made and segments turn.

use anyhow::Result;

use crate::contender::{self, Contender};
use crate::load::Load;
use crate::lotlogd::Lotlogd;
use crate::options::Options;
use crate::results::Results;
use crate::sample::Files;
use crate::scratch::Scratch;

const GROUP: &str = "tail";
/// Of the usual time of a contender.
const LONGER: f64 = 30.0;
/// More often than by default, so that a run meets many.
const SETTINGS: [&str; 2] = ["--checkpoint-interval-seconds", "5s"];
/// What a run may write, at most, per second; and the part of the free space that it may take.
const BYTES_PER_SECOND: f64 = 1e9;
const SPACE_PART: f64 = 0.5;

pub fn run(options: &Options, results: &mut Results) -> Result<()> {
    let space = rustix::fs::statvfs(&options.dir)?;
    let most = (space.f_bavail * space.f_frsize) as f64 * SPACE_PART / BYTES_PER_SECOND;
    let load = Load::usual(64, (options.seconds() * LONGER).min(most));
    let dir = Scratch::new(&options.dir)?;
    let daemon = Lotlogd::start(&dir.0, &SETTINGS)?;
    let (measured, stored) =
        contender::measure(&load, "synced", &daemon.socket, &daemon.process, || daemon.sync())?;
    daemon.process.stop()?;
    let files = Files::count(&dir.0.join("data/lots"))?;
    files.hold(stored, load.lots)?;
    results.add(GROUP, "P64", Contender::Synced, &load, measured.sample(&files)?);
    Ok(())
}

//! How often lotlogd wakes when there is nothing to do, and what it costs then.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;

use crate::load::Load;
use crate::lotlogd::Lotlogd;
use crate::options::Options;
use crate::producers;
use crate::results::Results;
use crate::scratch::Scratch;

const GROUP: &str = "idle";
const CONNECTIONS: usize = 4;
/// Until everything that the load left to do is done, and threads that nobody needs are gone.
const SETTLE: Duration = Duration::from_secs(12);
const ROUNDS: u32 = 3;
const WATCHED: Duration = Duration::from_secs(10);

pub fn run(options: &Options, results: &mut Results) -> Result<()> {
    let dir = Scratch::new(&options.dir)?;
    let daemon = Lotlogd::start(&dir.0, &[])?;
    producers::run(&Load::usual(4, options.seconds().min(1.0)), "written", &daemon.socket, || Ok(()))?;
    daemon.sync()?;
    daemon.process.hang_up();
    let connections =
        (0..CONNECTIONS).map(|_| UnixStream::connect(&daemon.socket)).collect::<Result<Vec<_>, _>>()?;
    let quick = |time: Duration| if options.quick { time / 20 } else { time };
    std::thread::sleep(quick(SETTLE));
    for _ in 0..options.rounds().min(ROUNDS) {
        let before = (daemon.process.waits()?, daemon.process.cpu_seconds()?);
        std::thread::sleep(quick(WATCHED));
        let wake_ups = daemon.process.waits()?.since(&before.0);
        results.fact(GROUP, "wake-ups in 10 s, 4 connections open", "", wake_ups as f64);
        let cpu = daemon.process.cpu_seconds()? - before.1;
        results.fact(GROUP, "processor time in 10 s", "s", cpu);
    }
    drop(connections);
    daemon.process.stop()
}

//! What must not be left when the bench is interrupted: the processes that run for it and the directories they write
//! to. Ended in any other way, it drops them itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// As shells have it: 128 and the number of the signal.
const INTERRUPTED: i32 = 128;
/// How often a directory is removed while processes that are being killed still write to it.
const ATTEMPTS: usize = 20;

#[derive(Default)]
struct Left {
    processes: BTreeSet<u32>,
    dirs: BTreeSet<PathBuf>,
}

static LEFT: Mutex<Option<Left>> = Mutex::new(None);

fn with<T>(change: impl FnOnce(&mut Left) -> T) -> T {
    change(LEFT.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

pub fn began(process: u32) {
    with(|left| left.processes.insert(process));
}

/// It must have been waited for: its number may be another's from now on.
pub fn ended(process: u32) {
    with(|left| left.processes.remove(&process));
}

pub fn made(dir: &Path) {
    with(|left| left.dirs.insert(dir.to_owned()));
}

pub fn removed(dir: &Path) {
    with(|left| left.dirs.remove(dir));
}

/// Cleans up and ends the bench at SIGINT, SIGTERM and SIGHUP.
pub fn at_signals() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        let signal = signals.forever().next().unwrap_or(SIGTERM);
        with(|left| {
            for pid in left.processes.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            for dir in &left.dirs {
                let gone = (0..ATTEMPTS).any(|_| std::fs::remove_dir_all(dir).is_ok() || !dir.exists());
                if !gone {
                    eprintln!("{} is left behind", dir.display());
                }
            }
            // The lock is held until the end, so that nothing new begins.
            std::process::exit(INTERRUPTED + signal)
        })
    });
    Ok(())
}

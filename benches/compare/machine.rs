//! Where the measuring happens and what is measured there: without it a figure means nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::process;
use crate::tools::Tools;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub file_system: String,
    /// The limit of the bench and of all it starts.
    pub open_files: u64,
    /// The part of the processors' time that somebody else's virtual machines took while this ran.
    pub stolen: f64,
    /// Of everything measured, by name.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    pub fn of(dir: &Path, tools: &Tools) -> Machine {
        let cpu = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
        let own = format!(
            "{} ({})",
            env!("CARGO_PKG_VERSION"),
            first_line("git", &["describe", "--always", "--dirty"])
        );
        let mut versions = vec![("lotlogd".to_owned(), own)];
        versions.extend(tools.versions());
        Machine {
            cpu,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes("MemTotal"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: file_system(dir).unwrap_or_else(|| "unknown".to_owned()),
            open_files: process::raise_file_limit(),
            stolen: 0.0,
            versions,
        }
    }

    /// Whether a sync costs nothing here, so that every durable figure is wrong.
    pub fn is_memory(&self) -> bool {
        self.file_system == "tmpfs" || self.file_system == "ramfs"
    }
}

/// Processor time of the whole machine so far: what was stolen, and all.
pub fn stolen_and_all() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let times: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in user already.
    Some((*times.get(7)?, times.iter().take(8).sum()))
}

/// What can be had without anything being paged out.
pub fn available_memory_bytes() -> u64 {
    memory_bytes("MemAvailable")
}

fn memory_bytes(key: &str) -> u64 {
    let text = line_of("/proc/meminfo", key).unwrap_or_default();
    text.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// What stands behind `key` and a colon.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system that `dir` lies on: that of the last, longest mount point above it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut above: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| dir.starts_with(point))
        .collect();
    above.sort_by_key(|(point, _)| point.len()); // stable: of two at one place the later one counts
    above.last().map(|(_, kind)| (*kind).to_owned())
}

/// The first line that a program prints.
pub fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

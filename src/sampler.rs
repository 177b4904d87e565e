//! Figures of the process and of DATA's file system, for the metrics page alone: read when somebody asks, at most
//! once a second, by a thread that may hang without holding up anybody. Knows neither the front nor the vault.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, getrlimit};

/// Figures are this old at most, unless a disk does not answer.
const FRESH: Duration = Duration::from_secs(1);
/// How long one who asks waits for new ones.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most files of `quarantine/` that are counted.
const MOST_COUNTED_FILES: usize = 100_000;

/// What was read; `None` where the system does not tell.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Processor time of the process, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Its memory in the machine, in bytes.
    pub resident_bytes: Option<u64>,
    /// Its address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Its open descriptors.
    pub open_files: Option<u64>,
    /// Most that it may have.
    pub most_open_files: Option<u64>,
    /// What DATA's file system has for this user, in bytes.
    pub disk_free_bytes: Option<u64>,
    /// Its size, in bytes.
    pub disk_bytes: Option<u64>,
    /// How many files can still be made there.
    pub disk_free_files: Option<u64>,
    /// Copies in `quarantine/`, without their notes.
    pub quarantined_files: Option<u64>,
}

/// Reads figures and keeps the last ones.
#[derive(Debug)]
pub struct Sampler {
    data_dir: PathBuf,
    /// Seconds since 1970 when the process began: told once, so that a stepping clock does not look like a start.
    start_seconds: f64,
    last: Mutex<Option<(Instant, Figures)>>,
    at_work: AtomicBool,
}

impl Sampler {
    /// For this DATA, of a process that began at `started`.
    pub fn new(data_dir: &Path, started: Instant) -> Arc<Sampler> {
        let begun = SystemTime::now() - started.elapsed();
        let start_seconds =
            begun.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let at_work = AtomicBool::new(false);
        Arc::new(Sampler { data_dir: data_dir.to_owned(), start_seconds, last: Mutex::new(None), at_work })
    }

    /// When the process began, in seconds since 1970.
    pub fn start_seconds(&self) -> f64 {
        self.start_seconds
    }

    /// New figures, or the last ones if the system takes too long.
    pub async fn figures(self: &Arc<Self>) -> Figures {
        let fresh = self.last().is_some_and(|(at, _)| at.elapsed() < FRESH);
        // One thread at a time: a disk that hangs keeps no more than that.
        if !fresh && !self.at_work.swap(true, Ordering::AcqRel) {
            let sampler = self.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let figures = read(&sampler.data_dir);
                *sampler.last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), figures));
                sampler.at_work.store(false, Ordering::Release);
            });
            let _ = tokio::time::timeout(PATIENCE, reading).await;
        }
        self.last().map(|(_, figures)| figures).unwrap_or_default()
    }

    fn last(&self) -> Option<(Instant, Figures)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(data_dir: &Path) -> Figures {
    let disk = rustix::fs::statvfs(data_dir).ok();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, in parentheses; the fields are those of proc_pid_stat(5) from 3 on.
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = |number: usize| Some(field(number)? as f64 / rustix::param::clock_ticks_per_second() as f64);
    Figures {
        cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
        resident_bytes: field(24).map(|pages| pages * rustix::param::page_size() as u64),
        virtual_bytes: field(23),
        threads: field(20),
        open_files: entries(Path::new("/proc/self/fd"), usize::MAX, |_| true),
        most_open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        disk_free_bytes: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        disk_bytes: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        // Some file systems (btrfs) have no such limit, and say 0 of 0.
        disk_free_files: disk.as_ref().filter(|disk| disk.f_files > 0).map(|disk| disk.f_favail),
        quarantined_files: entries(&data_dir.join("quarantine"), MOST_COUNTED_FILES, |path| {
            path.extension().is_none_or(|extension| extension != "txt")
        }),
    }
}

/// How many entries of a directory are wanted.
fn entries(directory: &Path, most: usize, wanted: impl Fn(&Path) -> bool) -> Option<u64> {
    let entries = std::fs::read_dir(directory).ok()?;
    Some(entries.flatten().take(most).filter(|entry| wanted(&entry.path())).count() as u64)
}

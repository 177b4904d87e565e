//! Processes that the bench starts, and what the kernel says about them: processor time, memory, waking up. Each
//! is ended when it is dropped. It knows no contender.

#[path = "../../src/bin/lotlog/usage.rs"]
#[allow(dead_code, unused_imports)] // with its tests, which run where it belongs
mod usage;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::cleanup;

const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The end of a process's own log that is shown when it fails, in bytes.
const LOG_TAIL_BYTES: usize = 2000;
/// As in systemd/lotlogd.service.
const OPEN_FILES: u64 = 65_536;
/// Environment that would make a daemon behave as the caller's own.
const FOREIGN: &[&str] =
    &["LOTLOG_SOCKET", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"];

/// How often threads have waited, by thread.
pub struct Waits(HashMap<OsString, u64>);

impl Waits {
    /// How often they woke since `before`; a thread that is gone woke to end.
    pub fn since(&self, before: &Waits) -> u64 {
        let of = |waits: &Waits, thread| waits.0.get(thread).copied().unwrap_or(0);
        let there: u64 = self.0.iter().map(|(thread, now)| now - of(before, thread).min(*now)).sum();
        there + before.0.keys().filter(|thread| !self.0.contains_key(*thread)).count() as u64
    }
}

/// A child process.
pub struct Process {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts it with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("LOTLOGD_") {
                command.env_remove(variable);
            }
        }
        for variable in FOREIGN {
            command.env_remove(OsStr::new(variable));
        }
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        cleanup::began(child.id());
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` gives something; fails when the process ends before, or `timeout` passes.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(done) = ready() {
                return Ok(done);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it {what}; its log: {}", self.name, self.log_end());
            }
            if Instant::now() >= deadline {
                bail!("{} has not {what} in {timeout:?}; its log: {}", self.name, self.log_end());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The end of what it said.
    pub fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).trim_end().to_owned()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) -> Result<()> {
        signal(&self.child, Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("{} does not end {STOP_TIMEOUT:?} after SIGTERM", self.name);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// SIGHUP, which lotlogd takes for a checkpoint.
    pub fn hang_up(&self) {
        signal(&self.child, Signal::HUP);
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Resident now and at most so far, in bytes.
    pub fn memory_bytes(&self) -> Result<(u64, u64)> {
        let resident = usage::number(&format!("/proc/{}/status", self.pid()), "VmRSS")? << 10;
        Ok((resident, usage::most_resident_bytes(self.pid())?))
    }

    /// How often each of its threads has waited for something so far.
    pub fn waits(&self) -> Result<Waits> {
        let mut waits = HashMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let thread = thread?;
            // A thread may end between the two.
            if let Ok(count) =
                usage::number(&thread.path().join("status").to_string_lossy(), "voluntary_ctxt_switches")
            {
                waits.insert(thread.file_name(), count);
            }
        }
        Ok(Waits(waits))
    }

    /// Processor time of all its threads so far, user and system.
    pub fn cpu_seconds(&self) -> Result<f64> {
        Ok(usage::cpu_seconds(self.pid())?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        cleanup::ended(self.pid());
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself: then waiting finds that.
        let _ = kill_process(pid, signal);
    }
}

/// Processor time of this process so far.
pub fn own_cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// As many open files as the daemon's unit gives it, or else as are allowed; with fewer a cell may fail or be slow.
/// Gives how many.
pub fn raise_file_limit() -> u64 {
    if setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).is_ok() {
        return OPEN_FILES;
    }
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    hard
}

/// A child of the bench does not outlive it.
pub fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

//! A daemon of our own for `lotlog bench`: the `lotlogd` beside this program, in a temporary directory, both
//! gone when it is dropped.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lotlog::client::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::summary::eprintln_quietly;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The end of the daemon's log shown when it does not start, in bytes.
const LOG_TAIL_BYTES: usize = 2000;
/// `f_type` of a tmpfs, from linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The daemon and its directory.
pub struct OwnDaemon {
    dir: PathBuf,
    child: Option<Child>,
}

impl OwnDaemon {
    /// Starts it under `parent` and waits until it answers.
    pub fn start(parent: &Path) -> Result<OwnDaemon, Failure> {
        let own =
            std::env::current_exe().map_err(|error| Failure::io(format!("cannot find myself: {error}")))?;
        let program = own.with_file_name("lotlogd");
        if !program.is_file() {
            return Err(Failure {
                code: crate::failure::NO_DAEMON,
                message: format!(
                    "there is no {}: install lotlogd beside lotlog, or measure a running daemon with --running",
                    program.display()
                ),
            });
        }
        let dir = parent.join(format!("lotlog-bench-{}", uuid::Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| making(&dir, &error))?;
        // From here on dropping cleans up.
        let mut daemon = OwnDaemon { dir, child: None };
        if rustix::fs::statfs(&daemon.dir).is_ok_and(|about| about.f_type as u64 == TMPFS_MAGIC) {
            eprintln_quietly(&format!(
                "lotlog: warning: {} is memory, where a sync costs nothing: name a directory on a disk with --dir",
                parent.display()
            ));
        }
        let log_path = daemon.dir.join("log");
        let log = fs::File::create(&log_path).map_err(|error| making(&log_path, &error))?;
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(daemon.dir.join("data")).arg("--socket").arg(daemon.socket());
        // Neither the caller's configuration nor a service manager is its business.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LOTLOGD_") {
                command.env_remove(name);
            }
        }
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"] {
            command.env_remove(name);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::io(format!("cannot start {}: {error}", program.display())))?;
        daemon.child = Some(child);
        daemon.wait_until_ready(&log_path)?;
        Ok(daemon)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("lotlog.sock")
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn wait_until_ready(&mut self, log_path: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ready = Client::connect(&self.socket(), START_TIMEOUT)
                .and_then(|mut client| client.request(br#"{"op":"status"}"#));
            if ready.is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() >= deadline {
                let log = fs::read(log_path).unwrap_or_default();
                let end =
                    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
                let what = ended.map_or_else(
                    || format!("does not answer after {START_TIMEOUT:?}"),
                    |status| format!("ended at once ({status})"),
                );
                return Err(Failure {
                    code: crate::failure::NO_DAEMON,
                    message: format!(
                        "the daemon started for the measurement {what}; its log: {}",
                        end.trim_end()
                    ),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn making(path: &Path, error: &std::io::Error) -> Failure {
    Failure::io(format!("cannot make {}: {error}", path.display()))
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself: then waiting finds that.
                let _ = kill_process(pid, Signal::TERM);
            }
            let deadline = Instant::now() + STOP_TIMEOUT;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln_quietly(&format!("lotlog: {} is left behind: {error}", self.dir.display()));
        }
    }
}

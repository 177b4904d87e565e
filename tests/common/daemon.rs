//! The daemon as a process: start it, signal it, wait for it, and never leave it behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Connection, until};

/// Where daemons live, one after the other: it outlasts each of them, and goes with the last.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Arc<Place> {
        Arc::new(Place { dir: tempfile::tempdir().expect("a temporary directory") })
    }

    /// In memory where there is room for it, so that a busy disk does not disturb what is measured.
    pub fn in_memory() -> Arc<Place> {
        let dir = Path::new("/dev/shm");
        let roomy = rustix::fs::statvfs(dir).is_ok_and(|fs| fs.f_bavail * fs.f_frsize > 2 << 30);
        let made = if roomy { tempfile::tempdir_in(dir) } else { tempfile::tempdir() };
        Arc::new(Place { dir: made.expect("a temporary directory") })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("lotlog.sock")
    }

    fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// What the daemons here have said so far.
    pub fn own_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The daemon, ready to be spawned, that knows nothing of the environment of the tests.
    pub fn command(&self, flags: &[&str]) -> Command {
        self.command_through(&[], flags)
    }

    /// The same, begun by other words: those of a program that becomes the daemon in the end.
    pub fn command_through(&self, wrapper: &[String], flags: &[&str]) -> Command {
        let daemon = env!("CARGO_BIN_EXE_lotlogd").to_owned();
        let words: Vec<String> = wrapper.iter().cloned().chain([daemon]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_string_lossy().starts_with("LOTLOG");
            let of_systemd = ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC"].map(Into::into);
            if ours || of_systemd.contains(&name) {
                command.env_remove(name);
            }
        }
        let log = File::options().create(true).append(true).open(self.log()).expect("the log opens");
        command.arg("--data-dir").arg(self.data()).arg("--socket").arg(self.socket()).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }
}

/// A running daemon, killed when it is dropped.
pub struct Daemon {
    pub place: Arc<Place>,
    child: Child,
}

impl Daemon {
    /// In a place of its own.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Daemon {
        Daemon::start_in(&Place::new(), flags)
    }

    /// In this place, serving.
    #[track_caller]
    pub fn start_in(place: &Arc<Place>, flags: &[&str]) -> Daemon {
        Daemon::spawn(place, place.command(flags))
    }

    /// From this command, serving.
    #[track_caller]
    pub fn spawn(place: &Arc<Place>, command: Command) -> Daemon {
        let mut daemon = Daemon::launch(place, command);
        until("the daemon accepts connections", || {
            if let Some(status) = daemon.child.try_wait().expect("the child can be asked") {
                panic!("the daemon ended instead of serving: {status}");
            }
            Connection::try_open(&daemon.place.socket())
        });
        daemon
    }

    /// From this command, whatever becomes of it.
    pub fn launch(place: &Arc<Place>, mut command: Command) -> Daemon {
        Daemon { place: place.clone(), child: command.spawn().expect("the daemon starts") }
    }

    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::try_open(&self.place.socket()).expect("the daemon takes a connection")
    }

    /// Sends one line on a connection of its own and returns the reply.
    #[track_caller]
    pub fn ask(&self, line: impl AsRef<[u8]>) -> Value {
        self.connect().ask(line)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("the daemon can be signalled");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be asked")
    }

    /// Waits for the daemon's own end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until("the daemon ends", || self.ended())
    }

    /// Asks it to end, as an operator does, and returns its exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait().code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it cleanly and starts its successor.
    #[track_caller]
    pub fn restart(mut self, flags: &[&str]) -> Daemon {
        assert_eq!(self.terminate(), Some(0), "a clean end before the restart");
        Daemon::start_in(&self.place, flags)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("own log: {}", self.place.own_log());
        }
    }
}

/// Runs a daemon that is expected to give up by itself, and returns its exit code.
#[track_caller]
pub fn refuses_to_start(mut command: Command) -> Option<i32> {
    let mut child = command.spawn().expect("the daemon starts");
    let begun = std::time::Instant::now();
    while begun.elapsed() < super::DEADLINE {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            return status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("the daemon runs, but it should have given up");
}

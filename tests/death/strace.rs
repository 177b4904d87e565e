//! strace as a tool that kills, fails and delays chosen system calls.
//!
//! It counts the calls of each thread and each kind by themselves. Attached to one thread of the daemon, which
//! has one writer and three background lanes, `when=N` is therefore the N-th such call of that thread. A signal
//! arrives on entry: with SIGKILL the call is not made. To kill *after* a call, its exit is delayed, and the
//! daemon is killed when strace has reported the call done. What it cannot do safely is a short write: a forged
//! return value skips the call. Those are tried against the storage trait.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Daemon, Place, until};

/// Every call of the daemon that changes the disk, or makes a change durable.
pub const CALLS: &[&str] = &[
    "pwrite64",
    "fdatasync",
    "fsync",
    "renameat2",
    "renameat",
    "mkdirat",
    "unlinkat",
    "openat2",
    "ftruncate",
    "fallocate",
];

/// Whether strace cannot be used here; says so.
pub fn is_missing() -> bool {
    let works = |command: &mut Command| {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    // Attaching to a process that is not a child needs root, or a kernel that is asked for no more than that.
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let may_attach = rustix::process::geteuid().is_root() || ["", "0"].contains(&scope.trim());
    let missing = !may_attach || !works(Command::new("strace").args(["-o", "/dev/null", "true"]));
    if missing {
        println!("SKIPPED: killing and failing single system calls needs strace and the right to trace");
    }
    missing
}

/// A tracer of one thread; it lets go when dropped.
pub struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    /// Attaches to the thread of this name and carries out the injections, `CALL:WHAT:when=N`.
    #[track_caller]
    pub fn attach(daemon: &Daemon, thread: &str, injections: &[String]) -> Tracer {
        let output = daemon.place.path().join(format!("trace-{}", thread.replace(' ', "-")));
        let _ = std::fs::remove_file(&output);
        let mut command = Command::new("strace");
        command.arg("-p").arg(thread_id(daemon.pid(), thread).to_string()).arg("-o").arg(&output);
        command.args(options(injections)).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("strace starts");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("attached")));
        assert!(attached.is_some(), "strace does not attach");
        Tracer { child, output }
    }

    /// What it has seen so far, a call a line.
    pub fn trace(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Everything it saw, once the traced thread is gone or the tracer has let go.
    pub fn end(mut self) -> String {
        self.let_go();
        self.trace()
    }

    fn let_go(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = Pid::from_child(&self.child);
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn options(injections: &[String]) -> Vec<String> {
    let mut options = vec!["-yy".to_owned(), "-e".to_owned(), format!("trace={}", CALLS.join(","))];
    for injection in injections {
        options.extend(["-e".to_owned(), format!("inject={injection}")]);
    }
    options
}

/// The id of the daemon's thread of this name.
#[track_caller]
fn thread_id(pid: u32, name: &str) -> u32 {
    until(&format!("the daemon has a thread named {name}"), || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        tasks.flatten().find_map(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            (comm.trim_end() == name).then(|| task.file_name().to_str()?.parse().ok())?
        })
    })
}

/// The daemon under a tracer from its first call on, with all its threads; it is our own child, not the tracer's.
/// Where `only` names directories or files, no call that does not touch one of them is looked at.
pub fn traced(place: &Place, flags: &[&str], injections: &[String], only: &[PathBuf]) -> Command {
    let mut strace = ["strace", "-D", "-f", "-q", "-o"].map(str::to_owned).to_vec();
    strace.push(place.path().join("trace").display().to_string());
    strace.extend(options(injections));
    for path in only {
        strace.extend(["-P".to_owned(), path.display().to_string()]);
    }
    place.command_through(&strace, flags)
}

/// Ends, when it is dropped, what is left of the tracers of a place: where a daemon dies before its tracer holds
/// it, strace leaves a process of its own waiting for ever.
pub struct Sweep(PathBuf);

impl Sweep {
    pub fn of(place: &Place) -> Sweep {
        Sweep(place.path().join("trace"))
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mut words = words.split(|b| *b == 0);
            let is_ours = words.next() == Some(b"strace")
                && words.any(|word| word == self.0.as_os_str().as_encoded_bytes());
            let pid = process.file_name().to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            if is_ours {
                end(pid);
            }
        }
    }
}

/// Ends the tracer of a [`traced`] daemon, which goes on without it. Where the daemon is to die while a thread is
/// delayed, this goes with it: strace 6.1 loses its way when such a thread is killed.
pub fn let_go(daemon: &Daemon) {
    end(tracer(daemon));
}

/// SIGKILL for a [`traced`] daemon, and then for its tracer.
pub fn kill(daemon: &Daemon) {
    // A process that is dead has no tracer to be found by.
    let tracer = tracer(daemon);
    daemon.signal(Signal::KILL);
    end(tracer);
}

fn tracer(daemon: &Daemon) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())?;
    Pid::from_raw(tracer)
}

fn end(tracer: Option<Pid>) {
    if let Some(tracer) = tracer {
        let _ = kill_process(tracer, Signal::KILL);
    }
}

/// How often each kind of call was made, by a trace.
pub fn count(trace: &str, call: &str) -> usize {
    trace.lines().filter(|line| line.contains(&format!("{call}("))).count()
}

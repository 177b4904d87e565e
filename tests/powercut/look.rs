//! What is left after a cut: the surviving image is mounted on the host, which replays the file system's own
//! journal, its lot files are read as they are, the daemon recovers, and the judge looks at what it made of them.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::common::judge::{Lots, Verdict};
use super::common::producer::lot_files;

/// Runs a command to its end; what it said if it failed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(format!("{command:?}: {}: {said}", output.status)) }
}

/// A program that goes when its parent does, and knows nothing of this environment.
pub fn tied(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LOTLOG")) {
        command.env_remove(name);
    }
    command
}

/// A child that is killed when it is dropped.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, fs: &str, at: &Path) -> Result<Mount, String> {
        std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
        // Not `mount -o loop`: that asks every loop device, and waits where another's file answers no more.
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let device = device.trim();
        let options = if fs == "xfs" { "nouuid" } else { "defaults" };
        let mounted = run(Command::new("mount").args(["-t", fs, "-o", options, device]).arg(at));
        // From now on it goes with its last user.
        run(Command::new("losetup").args(["-d", device]))?;
        mounted?;
        Ok(Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A process that has just gone may hold it for a moment.
        for _ in 0..50 {
            if run(Command::new("umount").arg(&self.0)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{} is still mounted", self.0.display());
    }
}

/// What was found on an image.
pub struct Found {
    /// As the file system's journal left them.
    pub raw: Lots,
    /// As the daemon's recovery left them.
    pub lots: Lots,
    /// What it says of the daemon that it cannot recover, or finds fault with what it recovered.
    pub trouble: Vec<String>,
}

/// Mounts, reads, recovers, reads. An error is the rig's or the file system's, not the daemon's.
pub fn look(image: &Path, fs: &str, work: &Path) -> Result<Found, String> {
    let at = work.join("mnt");
    let mount = Mount::new(image, fs, &at)?;
    let data = at.join("d");
    let raw = lot_files(&data);
    let mut trouble = Vec::new();
    if let Err(error) = recover(&data, work) {
        trouble.push(error);
    }
    let lots = lot_files(&data);
    if trouble.is_empty() {
        let verify = run(Command::new(work.join("lotlog")).arg("verify").arg(&data));
        trouble.extend(verify.err());
        let aside: Vec<_> =
            std::fs::read_dir(data.join("quarantine")).into_iter().flatten().flatten().collect();
        if !aside.is_empty() {
            trouble.push(format!("set aside, though nobody else wrote: {aside:?}"));
        }
    }
    drop(mount);
    Ok(Found { raw, lots, trouble })
}

/// The daemon's recovery, and a clean end.
fn recover(data: &Path, work: &Path) -> Result<(), String> {
    let socket = work.join("socket");
    let log_path = work.join("recovery.log");
    let log = File::create(&log_path).map_err(|e| e.to_string())?;
    let mut command = tied(work.join("lotlogd"));
    command.arg("--data-dir").arg(data).arg("--socket").arg(&socket);
    command.args(["--segment-bytes", "1MiB"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut daemon = Reaped(command.spawn().map_err(|e| e.to_string())?);
    let begun = Instant::now();
    let said = |what: &str| {
        Err(format!("{what}; its log: {}", std::fs::read_to_string(&log_path).unwrap_or_default()))
    };
    let mut serves = false;
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(status) = daemon.0.try_wait().map_err(|e| e.to_string())? {
            return if serves && status.success() {
                Ok(())
            } else {
                said(&format!("lotlogd ended: {status}"))
            };
        }
        if !serves && UnixStream::connect(&socket).is_ok() {
            serves = true;
            run(Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]))?;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    said(if serves { "lotlogd does not end" } else { "lotlogd does not recover in 60 s" })
}

/// Lots that hold something else than the recovered ones do at the same place. What did not reach the disk
/// reads as NUL, or is not there.
pub fn foreign(raw: &Lots, lots: &Lots) -> usize {
    let agrees = |raw: &[u8], lot: &[u8]| {
        raw.iter().enumerate().all(|(at, byte)| *byte == 0 || lot.get(at) == Some(byte))
    };
    raw.iter().filter(|(stem, raw)| !agrees(raw, lots.get(*stem).map_or(&[], Vec::as_slice))).count()
}

/// Whether a verdict names nothing.
pub fn is_clean(verdict: &Verdict) -> bool {
    *verdict == Verdict::default()
}

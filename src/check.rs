//! `lotlogd --check`: what a start would touch, looked at without changing anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation};

use crate::config::Config;
use crate::door::{self, BindError};
use crate::scrape;
use crate::shelf;
use crate::storage::Dir;
use crate::systemd;
use crate::verify;

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What.
    what: String,
    /// What is wrong with it; `Ok` says how it is.
    state: Result<String, String>,
}

impl Finding {
    /// Whether a start would get past it.
    pub fn is_good(&self) -> bool {
        self.state.is_ok()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Ok(how) => write!(f, "ok: {}: {how}", self.what),
            Err(why) => write!(f, "wrong: {}: {why}", self.what),
        }
    }
}

/// Looks at everything a start with `config` would touch; the journal is read as far as a start judges it.
pub fn check(config: &Config) -> Vec<Finding> {
    let finding = |what: &str, state| Finding { what: what.to_owned(), state };
    let mut findings = vec![
        finding("configuration", Ok("valid".to_owned())),
        finding("data directory", data_dir(&config.data_dir)),
        finding("lock", lock(&config.data_dir)),
        finding("journal", journal(&config.data_dir)),
        finding("space", space(config)),
        finding("socket", socket(config)),
    ];
    if let Some(at) = &config.metrics {
        findings.push(finding("metrics", scrape::look(at).map(|()| at.to_string())));
    }
    findings
}

/// The nearest ancestor that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists() && !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn data_dir(path: &Path) -> Result<String, String> {
    let there = existing(path);
    if !there.is_dir() {
        return Err(format!("{} is not a directory: choose another --data-dir", there.display()));
    }
    if rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Err(format!("{} may not be written by this user", there.display()));
    }
    for name in [Dir::Lots, Dir::Journal, Dir::Quarantine, Dir::Archive].map(Dir::prefix) {
        let path = path.join(name.trim_end_matches('/'));
        match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                return Err(format!("{} is not a directory: move it away", path.display()));
            }
            Ok(_) if rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).is_err() => {
                return Err(format!("{} may not be written by this user: chown it", path.display()));
            }
            _ => {}
        }
    }
    Ok(if there == path { path.display().to_string() } else { format!("{} will be made", path.display()) })
}

fn lock(data_dir: &Path) -> Result<String, String> {
    let path = data_dir.join("lock");
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok("free".to_owned()),
        Ok(found) if !found.is_file() => {
            return Err(format!("{} is no file: remove it", path.display()));
        }
        _ => {}
    }
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(|e| format!("{}: {e}: chown it to this user", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok("free".to_owned()),
        Err(_) => Err(format!("{} is held by another lotlogd", data_dir.display())),
    }
}

fn journal(data_dir: &Path) -> Result<String, String> {
    let there = |name: &str| data_dir.join(name).is_dir();
    if !there("journal") && !there("lots") {
        return Ok("will be made".to_owned());
    }
    if verify::is_held(data_dir) {
        return Ok("the running daemon has it, so it is not read".to_owned());
    }
    if !there("journal") {
        let lots = shelf::stems(data_dir).map_err(|e| format!("{}: {e}", data_dir.display()))?;
        return match lots.as_slice() {
            [] => Ok("will be made".to_owned()),
            _ => {
                Err("there are lot files, but no journal/: restore DATA as a whole, or move it aside"
                    .to_owned())
            }
        };
    }
    verify::look_at_journal(data_dir)
}

fn space(config: &Config) -> Result<String, String> {
    let there = existing(&config.data_dir);
    let stat = rustix::fs::statvfs(&there).map_err(|e| format!("{}: {e}", there.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let least = crate::recovery::SEGMENT_BYTES_LEAST * 4;
    if free < least {
        return Err(format!(
            "{free} bytes are free at {}, at least {least} are needed to start",
            there.display()
        ));
    }
    Ok(format!("{free} bytes are free"))
}

fn socket(config: &Config) -> Result<String, String> {
    let path = &*config.socket;
    // What knocks at a socket of systemd's waits there for the daemon, whose start would be tried again for that alone.
    if systemd::is_parent() && path.exists() {
        return Ok(format!("{}, whoever listens there", path.display()));
    }
    match door::look_at_socket(path) {
        Err(BindError::InUse(_)) if door::is_for_activation(path) => {
            return Ok(format!("{}, where systemd listens until the daemon does", path.display()));
        }
        looked => looked.map_err(|e| e.to_string())?,
    }
    config.socket_access().look()?;
    let parent = existing(path.parent().unwrap_or(Path::new(".")));
    if rustix::fs::access(&parent, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Err(format!("{} may not be written by this user", parent.display()));
    }
    Ok(path.display().to_string())
}

//! The other programs that can be measured, where they are installed: which, what version, and how to get those
//! that are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::machine::first_line;
use crate::options::Options;

/// The programs, or a word why one is not there.
pub struct Tools {
    pub rsyslogd: Result<PathBuf, String>,
    pub syslog_ng: Result<PathBuf, String>,
    pub python: Result<PathBuf, String>,
    pub orjson: Result<String, String>,
    pub pandas: Result<String, String>,
    pub sqlite: Result<String, String>,
}

impl Tools {
    pub fn find(options: &Options) -> Tools {
        let python = program(&options.python, "apt install python3");
        let module = |name: &str, version: &str, get: &str| {
            let python = python.as_ref().map_err(Clone::clone)?;
            let code = format!("import {name}; print({version})");
            let output = Command::new(python).args(["-c", &code]).stderr(Stdio::null()).output();
            let output = output.map_err(|error| format!("{}: {error}", python.display()))?;
            if !output.status.success() {
                return Err(format!("{} has no {name}: {get}", python.display()));
            }
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Tools {
            rsyslogd: program(&options.rsyslogd, "apt install rsyslog"),
            syslog_ng: program(&options.syslog_ng, "apt install syslog-ng-core"),
            orjson: module("orjson", "orjson.__version__", "pip install orjson"),
            pandas: module("pandas", "pandas.__version__", "pip install pandas"),
            sqlite: module("sqlite3", "sqlite3.sqlite_version", "install python3 with sqlite3"),
            python,
        }
    }

    /// Of those that are there.
    pub fn versions(&self) -> Vec<(String, String)> {
        let version = |program: &Result<PathBuf, String>| {
            let line = first_line(&program.as_ref().ok()?.to_string_lossy(), &["--version"]);
            // `rsyslogd  8.2302.0 (aka 2023.02) compiled with:`, `syslog-ng 3 (3.38.1)`, `Python 3.11.7`
            line.split([' ', '(', ')', ','])
                .rfind(|word| word.contains('.') && word.len() > 3 && !word.starts_with("20"))
                .map(str::to_owned)
        };
        let found = [
            ("rsyslog", version(&self.rsyslogd)),
            ("syslog-ng", version(&self.syslog_ng)),
            ("python", version(&self.python)),
            ("orjson", self.orjson.clone().ok()),
            ("pandas", self.pandas.clone().ok()),
            ("sqlite", self.sqlite.clone().ok()),
        ];
        found.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))).collect()
    }
}

/// Looks for it on the path, and where daemons are.
fn program(wanted: &Path, get: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    // A path of its own stays what it is when it is joined to a folder.
    let here = std::env::current_dir().into_iter().filter(|_| wanted.components().count() > 1);
    let found = here.chain(folders).map(|folder| folder.join(wanted)).find(|path| path.is_file());
    found.ok_or_else(|| format!("no {}: {get}", wanted.display()))
}

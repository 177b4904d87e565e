//! The Python client's tests, run by `python3` with the binaries built here: one test for each of its files.
//!
//! Knows nothing of what they check. `python3` itself is needed, nothing of it but its standard library.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// The tests of one file pass, and there are some.
#[track_caller]
fn check(module: &str) {
    let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOTLOG") {
            command.env_remove(name);
        }
    }
    let run = command
        .args(["-W", "error::DeprecationWarning", "-m", "unittest", "-v", &format!("tests.{module}")])
        .current_dir(package())
        .env("LOTLOGD", env!("CARGO_BIN_EXE_lotlogd"))
        .env("LOTLOG_COMMAND", env!("CARGO_BIN_EXE_lotlog"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("the Python client cannot be tested without python3 on the PATH: {error}")
        });
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{module}: {}\n{said}{}", run.status, String::from_utf8_lossy(&run.stdout));
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran > 0), "{module} ran no test:\n{said}");
}

macro_rules! files {
    ($($module:ident)*) => {
        $(#[test] fn $module() { check(stringify!($module)); })*

        #[test]
        fn every_file_of_python_tests_is_run() {
            let mut listed = [$(stringify!($module)),*].map(String::from).to_vec();
            let mut there: Vec<String> = std::fs::read_dir(package().join("tests")).unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter_map(|name| name.strip_suffix(".py").filter(|name| name.starts_with("test_")).map(String::from))
                .collect();
            listed.sort();
            there.sort();
            assert_eq!(listed, there, "a file of tests/ that is not named here, or the other way round");
        }
    };
}

files! {
    test_aio
    test_dropin
    test_examples
    test_handler
    test_items
    test_log
    test_pipeline
    test_processes
    test_session
    test_spool
}

//! The producer's side and the companion: the library's session against a fake daemon that cuts and refuses,
//! and the commands as processes, most of them against the real daemon.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod fake;
mod reading;
mod sending;
mod session;
mod spool;
mod top;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The companion, in no environment but its own.
fn lotlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lotlog"));
    command.args(args).env_remove("LOTLOG_SOCKET").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it on `input`; exit code, standard output, standard error.
fn run_on(mut command: Command, input: &str) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may end before it has read everything: that is no error here.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    told(&output)
}

fn run(mut command: Command) -> (i32, String, String) {
    told(&command.output().unwrap())
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Waits until `done` gives something.
#[track_caller]
fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(Instant::now() < deadline, "{what} did not come in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The real daemon in a directory of its own; killed when dropped.
struct Daemon {
    child: Child,
    home: PathBuf,
}

impl Daemon {
    fn start(home: &Path) -> Daemon {
        let child = Command::new(env!("CARGO_BIN_EXE_lotlogd"))
            .args(["--data-dir", home.join("data").to_str().unwrap()])
            .args(["--socket", home.join("s").to_str().unwrap(), "-q"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Daemon { child, home: home.to_owned() };
        let (code, _, error) = run(daemon.lotlog(&["status", "--wait", "30s"]));
        assert_eq!(code, 0, "{error}");
        daemon
    }

    /// A command that finds this daemon.
    fn lotlog(&self, args: &[&str]) -> Command {
        let mut command = lotlog(args);
        command.env("LOTLOG_SOCKET", self.home.join("s"));
        command
    }

    /// The whole records of a lot. A file that is being written may end inside a line, and inside a character.
    fn lot(&self, stem: &str) -> Vec<serde_json::Value> {
        let bytes = std::fs::read(self.home.join(format!("data/lots/{stem}.jsonl"))).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_kind_of_failure_has_its_exit_code_and_names_the_next_step() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("none").display().to_string();
    let data = home.path().display().to_string();
    let array = home.path().join("array.json").display().to_string();
    std::fs::write(&array, "\n[\n  {\"sku_local\": \"A\"}\n]\n").unwrap();
    for (args, code, said) in [
        (vec!["bogus"], 64, "unrecognized subcommand"),
        (vec!["send", "--batch-size", "0"], 64, "0 is not in 1.."),
        (vec!["send", "--requests", "--lot", "A"], 64, "cannot be used with"),
        (vec!["send", "--context", "x", "--socket", &socket], 64, "KEY=VALUE"),
        (vec!["send", "--context", "a=1", "--context", "a=2"], 64, "twice"),
        (vec!["send", "--lot", "A", "--context", "lot_id=B"], 64, "twice"),
        (vec!["send", "--timeout", "soon"], 64, "a time is a number"),
        (vec!["send", "/no/such/file", "--socket", &socket], 74, "look whether the name is right"),
        (vec!["send", &data, "--socket", &socket], 74, "give it the name of a file"),
        (vec!["send", "--spool", "/no/such/dir", "--socket", &socket], 65, "no directory /no/such/dir"),
        (vec!["send", &array, "--socket", &socket], 65, "a JSON array, so nothing was sent"),
        (vec!["send", "tests/data/items.csv", "--socket", &socket], 69, "start one with `lotlogd`"),
        (vec!["status", "--socket", &socket], 69, &socket),
        (vec!["status", "--socket", &socket, "--wait", "100ms"], 69, &socket),
        (vec!["sync", "--socket", &socket], 69, &socket),
        (vec!["cat", "A", "--data-dir", &data], 65, "no lot `A`"),
        (vec!["tail", "A", "--data-dir", &data], 65, "no lot `A`"),
        (vec!["lots", "--data-dir", &data], 65, "is no data directory"),
        (vec!["cat", "", "--data-dir", &data], 64, "not empty"),
        (vec!["verify", &array], 65, "array.json: Not a directory (os error 20); give it"),
        (vec!["verify", "/no/such/dir"], 65, "look whether the name is right"),
        (vec!["man", "nothing"], 64, "no page"),
        (vec!["bench", "--producers", "0"], 64, "0 is not in 1.."),
    ] {
        let (got, _, error) = run(lotlog(&args));
        assert_eq!(got, code, "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
}

#[test]
fn help_shows_units_and_defaults_and_pages_are_made_from_it() {
    for (args, said) in [
        (vec!["--help"], vec!["send", "verify", "69 no daemon"]),
        (vec!["--version"], vec![env!("CARGO_PKG_VERSION")]),
        (
            vec!["send", "--help"],
            vec!["[default: 500]", "[default: 30s]", "XDG_RUNTIME_DIR", "LOTLOG_SOCKET"],
        ),
        (vec!["bench", "--help"], vec!["--producers", "[default: 64]", "[default: 5s]", "--outstanding"]),
        (vec!["completions", "bash"], vec!["complete -F _lotlog", "_lotlogd", "--batch-size"]),
        (vec!["completions", "zsh"], vec!["#compdef lotlog", "batch-size"]),
        (vec!["completions", "fish"], vec!["complete -c lotlog", "complete -c lotlogd"]),
        (vec!["man"], vec![".TH lotlog 1", "lotlog\\-send"]),
        (vec!["man", "lotlog-send"], vec![".TH lotlog-send 1", "batch\\-size"]),
        (vec!["man", "lotlogd"], vec!["lotlogd", "data\\-dir"]),
    ] {
        let (code, out, error) = run(lotlog(&args));
        assert_eq!((code, error.as_str()), (0, ""), "{args:?}");
        for word in said {
            assert!(out.contains(word), "{args:?} without {word}: {out}");
        }
    }
}

#[test]
fn all_pages_of_the_manual_are_written_at_once() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(run(lotlog(&["man", "--all", home.path().to_str().unwrap()])).0, 0);
    for (page, said) in [("lotlog", "lotlog\\-send"), ("lotlogd", "data\\-dir"), ("lotlog-verify", "strict")]
    {
        let text = std::fs::read_to_string(home.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(said), "{page}: {text}");
    }
    let (code, _, error) = run(lotlog(&["man", "--all", "/no/such/place"]));
    assert!(code == 74 && error.contains("/no/such/place/lotlog.1"), "{error}");
}

/// The package takes them from there, so that `cargo deb` needs nothing but itself.
#[test]
fn the_manual_and_completions_in_docs_are_those_of_the_commands() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let fresh = tempfile::tempdir().unwrap();
    for directory in ["man", "completions"] {
        std::fs::create_dir(fresh.path().join(directory)).unwrap();
    }
    assert_eq!(run(lotlog(&["man", "--all", fresh.path().join("man").to_str().unwrap()])).0, 0);
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(lotlog(&["completions", shell]));
        assert_eq!(code, 0, "{shell}");
        std::fs::write(fresh.path().join(format!("completions/lotlog.{shell}")), script).unwrap();
    }
    let all = |root: &Path| {
        let files = ["man", "completions"].map(|directory| std::fs::read_dir(root.join(directory)));
        let mut names: Vec<PathBuf> =
            files.into_iter().flatten().flatten().map(|e| e.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|path| (path.strip_prefix(root).unwrap().to_owned(), path)).collect::<Vec<_>>()
    };
    if std::env::var_os("LOTLOG_PAGES").is_some_and(|how| how == "write") {
        for directory in ["man", "completions"].map(|name| docs.join(name)) {
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir(&directory).unwrap();
        }
        for (name, path) in all(fresh.path()) {
            std::fs::copy(path, docs.join(name)).unwrap();
        }
    }
    let read = |root| {
        let files = all(root).into_iter().map(|(name, path)| (name, std::fs::read_to_string(path).unwrap()));
        files.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (is, was) = (read(fresh.path()), read(&docs));
    let differ: Vec<_> = is.keys().chain(was.keys()).filter(|name| is.get(*name) != was.get(*name)).collect();
    assert!(
        differ.is_empty(),
        "docs/ is not what the commands say now ({differ:?}): LOTLOG_PAGES=write cargo test --test cli in_docs"
    );
}

#[test]
fn status_and_sync_speak_to_people_and_machines() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    run_on(daemon.lotlog(&["send", "--ack", "written"]), "{\"a\":1}\n");
    assert_eq!(run(daemon.lotlog(&["sync"])), (0, "synced up to lsn 1\n".into(), String::new()));
    assert_eq!(daemon.lot("unassigned").len(), 1);
    // Refused, it ends as every order does.
    let none = tempfile::tempdir().unwrap();
    for (refusal, code) in [("forbidden", 69), ("io_error", 74)] {
        let home = tempfile::tempdir_in(none.path()).unwrap();
        let fake = fake::Fake::start(home.path(), move |_, _| fake::Fate::Refuse(refusal));
        let (got, out, error) = run(lotlog(&["sync", "--socket", fake.path().to_str().unwrap()]));
        assert_eq!((got, out.as_str()), (code, ""), "{error}");
    }
    let (_, page, _) = run(daemon.lotlog(&["status", "--json"]));
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!((&page["lsn"], &page["records"]), (&1.into(), &1.into()));
    let (_, table, _) = run(daemon.lotlog(&["status"]));
    assert!(table.contains("journal_bytes") && table.contains(" p99 "), "{table}");
}

#[test]
fn bench_measures_a_daemon_of_its_own_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let small = ["--producers", "2", "--items", "3", "--lots", "4", "--batches", "10", "--outstanding", "2"];
    let (code, out, error) = run(lotlog(&[&["bench", "--json", "--dir", dir][..], &small].concat()));
    assert_eq!(code, 0, "{error}");
    let page: serde_json::Value = serde_json::from_str(&out).unwrap();
    for (at, durability) in ["written", "synced"].iter().enumerate() {
        let result = &page["results"][at];
        assert_eq!((&result["durability"], &result["records"]), (&(*durability).into(), &60.into()));
        assert!(result["ack_p99_seconds"].as_f64().unwrap() > 0.0, "{result}");
        // Of ten batches there may be no tick of the clock; of a process there are always pages.
        assert!(result["daemon_cpu_seconds_per_million_records"].as_f64().unwrap() >= 0.0, "{result}");
        assert!(result["daemon_resident_bytes"].as_u64().unwrap() > 1 << 20, "{result}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    // Against a running daemon, which keeps what was sent.
    let daemon = Daemon::start(home.path());
    let (code, out, error) =
        run(daemon.lotlog(&[&["bench", "--running", "--ack", "synced"][..], &small].concat()));
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("records/s") && out.contains("p99"), "{out}");
    // What a daemon of somebody else has used so far is not the measurement's.
    assert!(!out.contains("CPU-seconds"), "{out}");
    let records: usize = (0..4).map(|lot| daemon.lot(&format!("BENCH_LOT_{lot:04}")).len()).sum();
    // With the one batch of each producer before the clock starts.
    assert_eq!(records, 2 * 11 * 3);
}

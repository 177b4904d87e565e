//! Flags, environment, file, defaults; `--check` and `--print-config`.

use std::path::Path;

use rustix::process::Signal;

use crate::{Daemon, ask, lotlogd, text};

/// Runs lotlogd to its end.
fn run(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = lotlogd(home);
    command.args(arguments).envs(variables.iter().copied());
    text(&command.output().unwrap())
}

#[track_caller]
fn check_refused(file: &str, arguments: &[&str], variables: &[(&str, &str)], code: i32, says: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("c.toml");
    std::fs::write(&path, file).unwrap();
    let mut all = vec!["--config", path.to_str().unwrap(), "--print-config"];
    all.extend(arguments);
    let (got, said) = run(home.path(), &all, variables);
    assert_eq!(got, code, "{said}");
    for word in says {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_the_next_step() {
    check_refused("", &["--nonsense"], &[], 64, &["--nonsense"]);
    check_refused("", &["--max-items", "many"], &[], 64, &["--max-items", "whole number"]);
    check_refused("", &["--segment-bytes", "1KiB"], &[], 64, &["--segment-bytes", "256KiB"]);
    check_refused("", &["--check"], &[], 64, &["exclude"]);
    check_refused("", &[], &[("LOTLOGD_MAX_ITEMS", "0")], 78, &["LOTLOGD_MAX_ITEMS", "from 1"]);
    check_refused("max_items = 5\nmax_itms = 7\n", &[], &[], 78, &["c.toml:2", "max_itms", "`max_items`"]);
    check_refused("\ndurability = \"maybe\"\n", &[], &[], 78, &["c.toml:2", "durability", "synced"]);
    check_refused("line_timeout_seconds = \"30 parsecs\"\n", &[], &[], 78, &["c.toml:1", "30s"]);
    check_refused("[limits]\nmax_items = 5\n", &[], &[], 78, &["limits"]);
    check_refused("socket_mode = 440\n", &[], &[], 78, &["c.toml:1", "octal"]);
    let two = "data_dir = \"\"\"\nmax_itms = 1\n\"\"\"\nmax_itms = 7\n";
    check_refused(two, &[], &[], 78, &["c.toml:4", "max_itms"]);
    check_refused("not toml at all", &[], &[], 78, &["is not TOML"]);
    check_refused("max_line = 5\n", &[], &[], 78, &["did you mean `max_line_bytes`"]);
    check_refused("foo = 5\n", &[], &[], 78, &["`foo` is not a setting: `lotlogd --help` lists them"]);
    let both = ["--socket", "/run/x/s", "--metrics", "/run/x/s"];
    check_refused("", &both, &[], 78, &["metrics and socket are both /run/x/s"]);
    check_refused("", &["--config", "/does/not/exist.toml"], &[], 64, &["config"]);
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("c.toml");
    let value = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut all = vec!["--print-config"];
        all.extend(arguments);
        let (code, said) = run(home.path(), &all, variables);
        assert_eq!(code, 0, "{said}");
        said.lines().find_map(|l| l.strip_prefix("segment_bytes = ")).unwrap().to_owned()
    };
    std::fs::write(&path, "segment_bytes = \"2MiB\"\n").unwrap();
    let file = ["--config", path.to_str().unwrap()];
    let of_environment = [("LOTLOGD_SEGMENT_BYTES", "3MiB")];
    assert_eq!(value(&[], &[]), "\"32MiB\"");
    assert_eq!(value(&file, &[]), "\"2MiB\"");
    assert_eq!(value(&[], &[("LOTLOGD_CONFIG", path.to_str().unwrap())]), "\"2MiB\"");
    assert_eq!(value(&file, &of_environment), "\"3MiB\"");
    assert_eq!(value(&[&file[..], &["--segment-bytes", "4194304"]].concat(), &of_environment), "\"4MiB\"");
}

#[test]
fn printed_settings_are_taken_as_a_file_and_come_out_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (code, first) = run(
        home.path(),
        &[
            "--print-config",
            "--socket-mode",
            "0600",
            "--drain-timeout-seconds",
            "1500ms",
            "--allow-users",
            "0,12",
        ],
        &[],
    );
    assert_eq!(code, 0, "{first}");
    let path = home.path().join("c.toml");
    std::fs::write(&path, &first).unwrap();
    let (code, second) = run(home.path(), &["--print-config", "--config", path.to_str().unwrap()], &[]);
    assert_eq!((code, second), (0, first));
}

#[test]
fn help_names_every_setting_with_unit_default_and_variable() {
    let home = tempfile::tempdir().unwrap();
    let (code, long) = run(home.path(), &["--help"], &[]);
    assert_eq!(code, 0);
    for setting in lotlog::settings::SETTINGS {
        assert!(long.contains(&format!("--{}", setting.flag())), "{}", setting.key);
        assert!(long.contains(&setting.variable()), "{}", setting.key);
    }
    let (code, version) = run(home.path(), &["--version"], &[]);
    assert_eq!((code, version.trim()), (0, concat!("lotlogd ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn check_says_what_a_start_would_meet_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (data, socket) = (home.path().join("data"), home.path().join("s"));
    let arguments = ["--check", "--data-dir", data.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
    let (code, said) = run(home.path(), &arguments, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(!data.exists() && !socket.exists(), "nothing was made");
    let quietly = [&arguments[..], &["-q"]].concat();
    assert_eq!(run(home.path(), &quietly, &[]), (0, String::new()), "nothing is wrong");
    let daemon = Daemon::start(home.path(), &[]);
    assert_eq!(ask(&daemon.connect(), r#"{"op":"sync"}"#)["ok"], true);
    let (code, said) = run(home.path(), &arguments, &[]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("held by another lotlogd") && said.contains("served by another daemon"), "{said}");
    assert_eq!(ask(&daemon.connect(), r#"{"op":"sync"}"#)["ok"], true, "the running one is not disturbed");
    let (code, said) = run(home.path(), &quietly, &[]);
    assert!(code == 78 && said.lines().count() == 2 && said.contains("served by another daemon"), "{said}");
    std::fs::write(home.path().join("file"), "").unwrap();
    let file = home.path().join("file");
    let (code, said) = run(
        home.path(),
        &[
            "--check",
            "--data-dir",
            file.to_str().unwrap(),
            "--socket",
            home.path().join("t").to_str().unwrap(),
        ],
        &[],
    );
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("not a directory"), "{said}");
    // Whatever a start with the same settings stops at.
    let (odd, long) = (home.path().join("odd"), home.path().join("x".repeat(100)));
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("lots"), "").unwrap();
    let far = home.path().join("far");
    for (data, socket, word) in [(&odd, &home.path().join("u"), "lots"), (&far, &long, "107 bytes")] {
        let settings = ["--data-dir", data.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
        let (code, said) = run(home.path(), &[&["--check"], &settings[..]].concat(), &[]);
        assert!(code == 78 && said.contains(word), "{said}");
        let (code, said) = run(home.path(), &settings, &[]);
        assert!(code == 78 && said.contains(word), "{said}");
    }
}

#[test]
fn check_finds_what_a_start_would_not_take_within_the_data() {
    let home = tempfile::tempdir().unwrap();
    let good = home.path().join("data");
    let daemon = Daemon::start(home.path(), &[]);
    assert_eq!(ask(&daemon.connect(), r#"{"items":[{}],"context":{"lot_id":"L"}}"#)["ok"], true);
    daemon.signal(Signal::KILL);
    daemon.wait();
    let try_both = |data: &Path| {
        let settings = ["--data-dir", data.to_str().unwrap(), "--socket", data.to_str().unwrap()];
        let check = run(home.path(), &[&["--check"], &settings[..]].concat(), &[]);
        // What is no socket is in the way of the start that is good otherwise.
        (check, run(home.path(), &settings, &[]))
    };
    let ((code, said), _) = try_both(&good);
    assert!(code == 78 && said.matches("wrong:").count() == 1 && said.contains("ok: journal: "), "{said}");
    let copy = |name: &str, spoil: &dyn Fn(&Path)| {
        let data = home.path().join(name);
        let copied = std::process::Command::new("cp").arg("-a").args([&good, &data]).status().unwrap();
        assert!(copied.success());
        spoil(&data);
        data
    };
    let zero = |data: &Path| {
        for entry in std::fs::read_dir(data.join("journal")).unwrap() {
            std::fs::write(entry.unwrap().path(), [0; 9000]).unwrap();
        }
    };
    let no_journal = |data: &Path| std::fs::remove_dir_all(data.join("journal")).unwrap();
    let lock_is_a_directory = |data: &Path| {
        std::fs::remove_file(data.join("lock")).unwrap();
        std::fs::create_dir(data.join("lock")).unwrap();
    };
    let lock_is_a_pipe = |data: &Path| {
        std::fs::remove_file(data.join("lock")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            data.join("lock"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a str, i32);
    let spoilt: [Case<'_>; 4] = [
        ("damaged", &zero, "wrong: journal: journal/", 65),
        ("lone", &no_journal, "wrong: journal: there are lot files", 65),
        ("held", &lock_is_a_directory, "lock is no file", 78),
        ("pipe", &lock_is_a_pipe, "lock is no file", 78),
    ];
    for (name, spoil, word, ends) in spoilt {
        let data = copy(name, spoil);
        let ((code, said), (end, why)) = try_both(&data);
        assert!(code == 78 && said.contains(word), "{name}: {said}");
        assert_eq!(end, ends, "{name}: {why}");
    }
}

#[test]
fn where_threads_cannot_be_had_it_says_which_limit_to_raise_and_does_not_panic() {
    let home = tempfile::tempdir().unwrap();
    if !crate::systemd::exists("prlimit") {
        return;
    }
    // Enough for one process with a few threads, whatever its size; more and more until it runs.
    let (mut said_so, mut mebibytes) = (0, 8);
    loop {
        let mut command = std::process::Command::new("prlimit");
        command.arg(format!("--as={}", mebibytes << 20)).arg(env!("CARGO_BIN_EXE_lotlogd"));
        command.arg("--data-dir").arg(home.path().join("data")).arg("--socket").arg(home.path().join("s"));
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut daemon = Daemon { child: command.spawn().unwrap(), socket: home.path().join("s") };
        let runs = loop {
            if std::os::unix::net::UnixStream::connect(&daemon.socket).is_ok() {
                break true;
            }
            if daemon.child.try_wait().unwrap().is_some() {
                break false;
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
        };
        if runs {
            daemon.signal(Signal::TERM);
        }
        let (code, said) = daemon.wait();
        assert!(!said.contains("panicked"), "{mebibytes} MiB: {said}");
        said_so += usize::from(code == 74 && said.contains("TasksMax="));
        if runs {
            assert_eq!(code, 0, "{said}");
            break;
        }
        mebibytes += 4;
        assert!(mebibytes < 4096);
    }
    assert!(said_so > 0);
}

#[test]
fn lotlog_socket_names_the_socket_for_the_daemon_too() {
    let home = tempfile::tempdir().unwrap();
    let (code, said) =
        run(home.path(), &["--print-config"], &[("LOTLOG_SOCKET", "/told/s"), ("LOTLOGD_SOCKET", "/other")]);
    assert_eq!(code, 0);
    assert!(said.contains("socket = \"/told/s\""), "{said}");
    let (_, said) =
        run(home.path(), &["--print-config", "--socket", "/flag"], &[("LOTLOG_SOCKET", "/told/s")]);
    assert!(said.contains("socket = \"/flag\""), "{said}");
}

#[test]
fn places_are_absolute_and_odd_settings_are_warned_of() {
    let home = tempfile::tempdir().unwrap();
    let mut command = lotlogd(home.path());
    command.current_dir(home.path()).args(["--print-config", "--data-dir", "d", "--socket", "s"]);
    let (code, said) = text(&command.output().unwrap());
    assert_eq!(code, 0, "{said}");
    let at = home.path().canonicalize().unwrap();
    assert!(said.contains(&format!("data_dir = {:?}", at.join("d"))), "{said}");
    assert!(said.contains(&format!("socket = {:?}", at.join("s"))), "{said}");
    let path = home.path().join("c.toml");
    std::fs::write(&path, "socket_mode = 0o600\nsync_interval_seconds = 2\nmax_bytes_in_flight = \"1MiB\"\n")
        .unwrap();
    let data = home.path().join("d");
    let options = ["--check", "--config", path.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let socket = at.join("s");
    let (code, said) =
        run(home.path(), &[&options[..], &["--socket", socket.to_str().unwrap()]].concat(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("max_bytes_in_flight (1MiB)") && said.contains("sync_interval_seconds is 2s"),
        "{said}"
    );
}

#[test]
fn the_socket_is_given_to_the_group_that_is_named_and_to_no_one_the_daemon_may_not_give_it_to() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let home = tempfile::tempdir().unwrap();
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let start = |options: &[&str]| {
        let mut command = lotlogd(home.path());
        let socket = home.path().join("made/s");
        command.arg("--data-dir").arg(home.path().join("data")).arg("--socket").arg(&socket).args(options);
        Daemon { child: command.spawn().unwrap(), socket }
    };
    // Its own group it may always name; root may name any.
    let (owner, group) = if uid.is_root() { (54_321, 54_322) } else { (uid.as_raw(), gid.as_raw()) };
    let named = [owner.to_string(), group.to_string()];
    let daemon = start(&["--socket-owner", &named[0], "--socket-group", &named[1], "--socket-mode", "0620"]);
    drop(daemon.connect());
    let socket = std::fs::metadata(home.path().join("made/s")).unwrap();
    assert_eq!((socket.uid(), socket.gid(), socket.permissions().mode() & 0o777), (owner, group, 0o620));
    // The group gets as far as the socket.
    let made = std::fs::metadata(home.path().join("made")).unwrap();
    assert_eq!((made.gid(), made.permissions().mode() & 0o777), (group, 0o750));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().0, 0);
    if uid.is_root() {
        println!("SKIPPED: as root every user and group may be named");
        return;
    }
    let foreign = ["--socket-group", "54322"];
    let (code, said) = start(&foreign).wait();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("socket_group is 54322"), "{said}");
    let (code, said) = run(home.path(), &["--check", "--socket-owner", "0"], &[]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("wrong: socket: socket_owner is 0"), "{said}");
}

#[test]
fn a_socket_that_loses_its_name_is_told_of_once_and_a_stop_is_not() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &[]);
    let connected = daemon.connect();
    let log = std::io::BufReader::new(daemon.child.stderr.take().unwrap());
    std::fs::remove_file(&daemon.socket).unwrap();
    let (told, telling) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        use std::io::BufRead;
        let lines =
            log.lines().map_while(Result::ok).filter(|line| line.contains("no new producer gets here"));
        lines.inspect(|_| told.send(()).unwrap_or_default()).count()
    });
    telling.recv_timeout(crate::PATIENCE).unwrap();
    assert_eq!(ask(&connected, r#"{"items":[{}]}"#)["ok"], true, "who is connected is served");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    assert_eq!(reading.join().unwrap(), 1);
    let daemon = Daemon::start(home.path(), &[]);
    drop(daemon.connect());
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert!(code == 0 && !said.contains("no new producer"), "{said}");
}

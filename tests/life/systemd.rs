//! systemd, without a systemd: notifications to a datagram socket, activation by `systemd-socket-activate`, the
//! units through `systemd-analyze verify`.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Daemon, PATIENCE, ask, lotlogd};

pub(crate) fn exists(program: &str) -> bool {
    let found =
        Command::new("sh").arg("-c").arg(format!("command -v {program}")).output().unwrap().status.success();
    if !found {
        eprintln!("SKIPPED: {program} is not installed, so this is not tried here");
    }
    found
}

#[test]
fn it_tells_systemd_when_it_is_ready_alive_and_stopping() {
    let home = tempfile::tempdir().unwrap();
    let notify = UnixDatagram::bind(home.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        // A socket with a deadline is interrupted when its process was stopped for a moment (signal(7)).
        let got = loop {
            match notify.recv(&mut bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                got => break got.unwrap(),
            }
        };
        String::from_utf8_lossy(&bytes[..got]).into_owned()
    };
    let mut command = lotlogd(home.path());
    command.arg("--data-dir").arg(home.path().join("data")).arg("--socket").arg(home.path().join("s"));
    command.env("NOTIFY_SOCKET", home.path().join("notify")).env("WATCHDOG_USEC", "100000");
    let daemon = Daemon { child: command.spawn().unwrap(), socket: home.path().join("s") };
    let ready = next();
    assert!(ready.contains("READY=1") && ready.contains("STATUS="), "{ready}");
    // Ready means listening: no waiting is needed.
    let stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&stream, r#"{"items":[{}]}"#)["ok"], true);
    let (mut pings, mut statuses) = (0, Vec::new());
    while pings < 3 {
        let said = next();
        if said.contains("WATCHDOG=1") {
            pings += 1;
        } else {
            statuses.push(said);
        }
    }
    assert!(statuses.len() <= 2, "a status only where it changed: {statuses:?}");
    assert!(statuses.last().unwrap().contains("STATUS=1 connections, 1 batches"), "{statuses:?}");
    daemon.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while !next().contains("STOPPING=1") {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(daemon.wait().0, 0);
}

#[test]
fn it_serves_a_socket_that_systemd_passes_and_leaves_its_file_alone() {
    if !exists("systemd-socket-activate") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("activated");
    let mut command = Command::new("systemd-socket-activate");
    command
        .arg("-l")
        .arg(&socket)
        .arg(env!("CARGO_BIN_EXE_lotlogd"))
        .arg("--data-dir")
        .arg(home.path().join("data"));
    command.env_remove("NOTIFY_SOCKET").stdout(Stdio::piped()).stderr(Stdio::piped());
    let daemon = Daemon { child: command.spawn().unwrap(), socket: socket.clone() };
    assert_eq!(
        ask(&daemon.connect(), r#"{"context":{"lot_id":"A"},"items":[{"sku_local":"1"}]}"#)["ok"],
        true
    );
    assert!(home.path().join("data/lots/A.jsonl").is_file());
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("listening on"), "{said}");
    assert!(socket.exists(), "the socket is systemd's");
}

#[test]
fn a_socket_that_is_named_is_served_instead_of_the_inherited_one() {
    if !exists("systemd-socket-activate") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (passed, named) = (home.path().join("passed"), home.path().join("named"));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&passed).arg(env!("CARGO_BIN_EXE_lotlogd"));
    command.arg("--data-dir").arg(home.path().join("data")).arg("--socket").arg(&named);
    command.env_remove("NOTIFY_SOCKET").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut daemon = Daemon { child: command.spawn().unwrap(), socket: passed };
    // The first connection starts it.
    drop(daemon.connect());
    daemon.socket = named;
    assert_eq!(ask(&daemon.connect(), r#"{"op":"sync"}"#)["ok"], true);
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the inherited socket") && said.contains("is not served"), "{said}");
}

#[test]
fn descriptors_that_were_passed_to_another_process_are_not_taken() {
    let home = tempfile::tempdir().unwrap();
    let mut command = lotlogd(home.path());
    command.arg("--data-dir").arg(home.path().join("data")).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    command.env("XDG_RUNTIME_DIR", home.path());
    let daemon = Daemon { child: command.spawn().unwrap(), socket: home.path().join("lotlog.sock") };
    assert_eq!(ask(&daemon.connect(), r#"{"op":"sync"}"#)["ok"], true);
}

#[test]
fn systemd_accepts_the_units() {
    if !exists("systemd-analyze") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for name in ["lotlogd.service", "lotlogd.socket"] {
        let unit = std::fs::read_to_string(units.join(name)).unwrap();
        // The program is where this build put it.
        let unit = unit.replace("/usr/bin/lotlogd", env!("CARGO_BIN_EXE_lotlogd"));
        std::fs::write(home.path().join(name), unit).unwrap();
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args([home.path().join("lotlogd.service"), home.path().join("lotlogd.socket")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|l| l.contains("lotlogd")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
    let service = std::fs::read_to_string(units.join("lotlogd.service")).unwrap();
    for line in ["Type=notify", "RestartPreventExitStatus=64 65 78", "StateDirectory=lotlog", "WatchdogSec="]
    {
        assert!(service.contains(line), "{line}");
    }
}

#[test]
fn the_service_is_exposed_to_little() {
    if !exists("systemd-analyze") {
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/lotlogd.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true"])
        .arg(&unit)
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((_, level)) = said.split_once("Overall exposure level for lotlogd.service: ") else {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(why.contains("offline"), "{said}{why}");
        eprintln!("SKIPPED: this systemd-analyze does not judge a unit file");
        return;
    };
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 1.0, "exposure {level}\n{said}");
}

#[test]
fn check_takes_a_socket_that_systemd_holds_for_the_daemon_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s");
    // A manager listens, and starts the check as its own child: this process is in the place of systemd.
    let _held = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut direct = lotlogd(home.path());
    direct.arg("--check").arg("--data-dir").arg(home.path().join("data")).arg("--socket").arg(&socket);
    let output = direct.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("where systemd listens"), "{said}");
    // The same check of somebody else's child: then the listener is no manager of its.
    let mut shell = Command::new("sh");
    let script = "\"$0\" --check --data-dir \"$1\" --socket \"$2\"; exit $?";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_lotlogd")]).arg(home.path().join("data")).arg(&socket);
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(78) && said.contains("served by another daemon"), "{said}");
}

#[test]
fn without_systemd_nothing_of_it_happens() {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &[]);
    drop(daemon.connect());
    std::thread::sleep(Duration::from_millis(50));
    daemon.signal(Signal::TERM);
    let (code, said) = daemon.wait();
    assert_eq!(code, 0);
    assert!(!said.contains("systemd"), "{said}");
}

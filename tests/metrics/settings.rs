//! Where the page is served: nowhere unless it is asked for, and never in silence where it cannot be.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Daemon, Place, refuses_to_start};
use crate::scraper::{At, tcp_of};

/// The inodes of a process's sockets.
fn sockets(pid: u32) -> Vec<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let names = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned));
    names.filter_map(|name| Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

/// How many of them are of the internet.
fn internet_sockets(pid: u32) -> usize {
    let tables: String = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"]
        .iter()
        .map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .collect();
    let inodes: Vec<&str> = tables.lines().filter_map(|line| line.split_whitespace().nth(9)).collect();
    sockets(pid).iter().filter(|inode| inodes.contains(&inode.as_str())).count()
}

#[test]
fn without_the_setting_the_daemon_has_no_internet_socket_and_with_it_one() {
    let daemon = Daemon::start(&[]);
    assert_eq!(internet_sockets(daemon.pid()), 0);
    assert!(!daemon.place.own_log().contains("metrics"));
    let daemon = Daemon::start(&["--metrics", "127.0.0.1:0"]);
    tcp_of(&daemon);
    assert_eq!(internet_sockets(daemon.pid()), 1);
}

#[test]
fn a_path_serves_on_a_unix_socket_with_the_sockets_mode() {
    let place = Place::new();
    let socket = place.path().join("m.sock");
    let daemon = Daemon::start_in(&place, &["--metrics", socket.to_str().unwrap(), "--socket-mode", "0640"]);
    assert_eq!(internet_sockets(daemon.pid()), 0);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o640);
    let at = At::Unix(socket);
    assert_eq!(at.get("/healthz").body, "ok\n");
    assert_eq!(at.scrape().value("lotlogd_connections"), 0.0);
}

#[test]
fn an_address_that_cannot_be_had_is_told_by_check_and_by_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let place = Place::new();
    let flags = ["--metrics", address.as_str()];
    assert_eq!(refuses_to_start(place.command(&flags)), Some(78));
    assert!(place.own_log().contains(&address), "{}", place.own_log());
    let mut check = place.command(&flags);
    let out = check.arg("--check").stdout(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("wrong: metrics: {address}")), "{said}");
    for bad in ["localhost:9464", "9464", "127.0.0.1"] {
        assert_eq!(refuses_to_start(place.command(&["--metrics", bad])), Some(64), "{bad}");
    }
    // What was taken is freed: nothing of the failed starts is left behind.
    drop(taken);
    let daemon = Daemon::start_in(&place, &flags);
    assert_eq!(tcp_of(&daemon).get("/healthz").status, 200);
}

#[test]
fn an_address_beyond_this_machine_is_served_with_a_warning() {
    let daemon = Daemon::start(&["--metrics", "0.0.0.0:0"]);
    assert!(daemon.place.own_log().contains("no loopback address"), "{}", daemon.place.own_log());
}

#[test]
fn systemd_accepts_the_drop_in_that_turns_tcp_on() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let home = tempfile::tempdir().unwrap();
    let service = std::fs::read_to_string(units.join("lotlogd.service")).unwrap();
    let service = service.replace("/usr/bin/lotlogd", env!("CARGO_BIN_EXE_lotlogd"));
    std::fs::write(home.path().join("lotlogd.service"), service).unwrap();
    std::fs::copy(units.join("lotlogd.socket"), home.path().join("lotlogd.socket")).unwrap();
    let drop_in = home.path().join("lotlogd.service.d/metrics-tcp.conf");
    std::fs::create_dir(drop_in.parent().unwrap()).unwrap();
    let complaints = |text: &str| {
        std::fs::write(&drop_in, text).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(home.path().join("lotlogd.service"));
        let said = String::from_utf8(verify.output().unwrap().stderr).unwrap();
        said.lines().filter(|line| line.contains("lotlogd")).map(str::to_owned).collect::<Vec<_>>()
    };
    let text = std::fs::read_to_string(units.join("metrics-tcp.conf")).unwrap();
    assert_eq!(complaints(&text), [""; 0]);
    assert_ne!(complaints(&text.replace("PrivateNetwork", "PrivateNetwrok")), [""; 0], "it is not looked at");
    // What it sets is what the daemon takes, on loopback.
    let address = text.lines().find_map(|line| line.strip_prefix("Environment=LOTLOGD_METRICS=")).unwrap();
    assert!(address.parse::<std::net::SocketAddr>().unwrap().ip().is_loopback());
}

//! `reload`: who may ask for it, and what its answer says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::judge::{After, Lots, Verdict, judge};
use crate::common::producer::{Load, Random, Stop, entries, farm, lot_files, number, record};
use crate::common::{Daemon, Place, until};
use crate::{ask, good};

#[test]
fn once_a_reload_has_returned_nothing_more_is_written_to_a_file_that_was_renamed_before() {
    let seed = number("LOTLOG_SEED", u64::from(std::process::id()));
    println!("LOTLOG_SEED={seed}");
    let place = Place::new();
    let mut daemon = Daemon::start_in(&place, &["--checkpoint-interval-seconds", "200ms"]);
    let stop = Stop::default();
    let load = Load { lots: 4, pause: Duration::from_millis(1), synced_percent: 30, ..Load::default() };
    let producers = farm(&place.socket(), "p", 4, seed, &load, &stop);
    until("there are lots", || (place.lots().len() == 4).then_some(()));
    let aside = place.path().join("aside");
    fs::create_dir(&aside).unwrap();
    let (mut random, mut moved) = (Random(seed), Vec::new());
    for round in 0..30 {
        let stem = format!("lot-{}", random.below(4));
        let to = aside.join(format!("{stem}.{round}"));
        until("the lot has a file", || fs::rename(place.lot_path(&format!("{stem}.jsonl")), &to).ok());
        std::thread::sleep(Duration::from_millis(random.below(10)));
        good(&ask(&place.socket(), &["reload"]));
        moved.push((stem, fs::read(&to).unwrap(), to));
    }
    stop.finish();
    let ledgers: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(daemon.terminate(), Some(0));
    let mut all = Lots::new();
    for (stem, then, path) in moved {
        assert!(then == fs::read(&path).unwrap(), "{} was written to after the reload", path.display());
        all.entry(stem).or_default().extend(then);
    }
    for (stem, bytes) in lot_files(&place.data()) {
        all.entry(stem).or_default().extend(bytes);
    }
    assert_eq!(judge(&all, &entries(&ledgers), &record, After::Death), Verdict::default());
}

#[test]
fn a_reload_by_the_socket_rereads_the_level_of_the_log_as_sighup_does() {
    let place = Place::new();
    let config = place.path().join("lotlogd.toml");
    fs::write(&config, "log_level = \"error\"\n").unwrap();
    let daemon = Daemon::start_in(&place, &["--config", config.to_str().unwrap()]);
    let reply = daemon.ask(r#"{"op":"reload"}"#);
    assert_eq!(reply["ok"], true, "{reply}");
    assert!(!place.own_log().contains("lot files are reopened"), "{}", place.own_log());
    fs::write(&config, "log_level = \"info\"\n").unwrap();
    until("the level of the log is reread", || {
        assert_eq!(daemon.ask(r#"{"op":"reload"}"#)["ok"], true);
        place.own_log().contains("lot files are reopened").then_some(())
    });
}

#[test]
fn a_reload_knows_no_keys_of_a_batch() {
    let daemon = Daemon::start(&[]);
    let reply = daemon.ask(r#"{"op":"reload","items":[]}"#);
    assert_eq!(reply["error"]["code"], "invalid_request", "{reply}");
    assert!(reply["error"]["message"].as_str().unwrap().contains("items"), "{reply}");
}

#[test]
fn a_stranger_may_log_but_gives_no_orders() {
    let tools = ["/usr/bin/setpriv", "/usr/bin/socat"];
    let missing = tools.into_iter().find(|tool| !Path::new(tool).exists());
    if !rustix::process::getuid().is_root() || missing.is_some() {
        println!("SKIPPED: to be somebody else needs root, setpriv and socat: {missing:?}");
        return;
    }
    let place = Place::new();
    let _daemon = Daemon::start_in(&place, &["--socket-mode", "0666"]);
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let batch = r#"{"items":[{}],"context":{"lot_id":"A"}}"#;
    let lines = format!("{{\"op\":\"reload\"}}\n{batch}\n");
    let script = format!("printf '%s' '{lines}' | socat -t 10 - UNIX-CONNECT:{}", place.socket().display());
    let stranger = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let output = Command::new("setpriv").args(stranger).args(["sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut replies = said.lines();
    let (order, batch) = (replies.next().unwrap_or_default(), replies.next().unwrap_or_default());
    assert!(order.contains("\"forbidden\""), "{said}");
    assert!(batch.contains("\"ok\":true"), "the connection should go on: {said}");
    // The command says so too, and is none of those that a script takes for a success.
    let binary = place.path().join("lotlog");
    copy_for_all(&binary);
    let mut command = Command::new("setpriv");
    command.args(stranger).arg(&binary).args(["reload", "--socket"]).arg(place.socket());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no operator"), "{output:?}");
}

#[test]
fn who_may_not_connect_is_not_told_to_start_a_daemon() {
    if !rustix::process::getuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        println!("SKIPPED: to be somebody else needs root and setpriv");
        return;
    }
    let place = Place::new();
    let _daemon = Daemon::start_in(&place, &["--socket-mode", "0660"]);
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = place.path().join("lotlog");
    copy_for_all(&binary);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = command.arg(&binary).args(["sync", "--socket"]).arg(place.socket()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(said.contains("be in the group of the socket") && !said.contains("start one"), "{said}");
}

fn copy_for_all(to: &Path) {
    fs::copy(env!("CARGO_BIN_EXE_lotlog"), to).unwrap();
    fs::set_permissions(to, PermissionsExt::from_mode(0o755)).unwrap();
}

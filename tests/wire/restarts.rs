//! What outlives a daemon: its files, its sessions, its numbers; who may follow it, and who may not.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Connection, Daemon, Place, Received, refuses_to_start, until};
use crate::shape::{batch, good, refused};

/// The same batch, acknowledged as written only.
fn written(lot: &str, session: &str, seq: u64) -> String {
    batch(lot, session, seq).replacen('{', r#"{"ack":"written","#, 1)
}

#[test]
fn sigterm_and_sigint_end_it_with_0_and_its_socket_is_gone() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&[]);
        good(daemon.ask(batch("L", "s", 1)));
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(!daemon.place.socket().exists());
        assert_eq!(daemon.lot("L").len(), 1);
    }
}

#[test]
fn a_drain_makes_written_batches_visible() {
    let mut daemon = Daemon::start(&["--sync-interval-seconds", "60"]);
    good(daemon.ask(written("L", "s", 1)));
    assert!(daemon.lot("L").is_empty(), "the case says something only before a sync");
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn idle_connections_do_not_hold_a_drain_up() {
    let mut daemon = Daemon::start(&[]);
    let mut idle: Vec<Connection> = (0..5).map(|_| daemon.connect()).collect();
    idle[0].send(r#"{"items":[{"#);
    good(idle[4].ask(batch("L", "s", 1)));
    let begun = Instant::now();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    idle[1].expect_end();
    idle[4].expect_end();
}

#[test]
fn what_comes_during_a_drain_is_stored_or_refused_or_unknown_but_never_both() {
    let mut daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let mut sender = connection.stream().try_clone().unwrap();
    let lines: String = (1..=2000).map(|seq| batch("L", "s", seq) + "\n").collect();
    let sending = std::thread::spawn(move || drop(std::io::Write::write_all(&mut sender, lines.as_bytes())));
    good(connection.reply());
    daemon.signal(Signal::TERM);
    let (mut stored, mut drained) = (1, false);
    while let Received::Line(line) = connection.receive() {
        let reply: Value = serde_json::from_slice(&line).unwrap();
        drained |= reply["ok"] == false;
        if drained {
            refused(&reply, "shutting_down");
        } else {
            stored += 1;
            assert_eq!(good(reply)["seq"], stored);
        }
    }
    sending.join().unwrap();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(daemon.lot("L").len() as u64, stored);
    let daemon = Daemon::start_in(&daemon.place.clone(), &[]);
    assert!(good(daemon.ask(batch("L", "s", stored + 1))).get("duplicate").is_none());
}

#[test]
fn a_written_batch_outlives_a_kill_and_its_duplicate_is_known() {
    let mut daemon = Daemon::start(&["--sync-interval-seconds", "60"]);
    let first = good(daemon.ask(written("L", "s", 1)));
    daemon.kill();
    let daemon = Daemon::start_in(&daemon.place.clone(), &[]);
    assert_eq!(daemon.lot("L").len(), 1, "the start brings it to its file");
    let again = good(daemon.ask(written("L", "s", 1)));
    assert_eq!((&again["duplicate"], &again["lsn"]), (&true.into(), &first["lsn"]), "{again}");
    assert_eq!(daemon.lot("L").len(), 1);
}

#[test]
fn a_conflict_and_a_gap_are_known_after_a_kill() {
    let mut daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    daemon.kill();
    let daemon = Daemon::start_in(&daemon.place.clone(), &[]);
    refused(&daemon.ask(batch("M", "s", 1)), "conflict");
    let reply = daemon.ask(batch("L", "s", 3));
    refused(&reply, "out_of_sequence");
    assert_eq!(reply["error"]["expected"], 2);
}

#[test]
fn killed_in_the_middle_every_batch_is_whole_or_absent_and_none_is_twice() {
    let mut daemon = Daemon::start(&[]);
    let line = |seq: u64| {
        let items = vec![format!(r#"{{"sku_local":{seq}}}"#); 7].join(",");
        format!(r#"{{"session":"s","seq":{seq},"context":{{"lot_id":"L"}},"items":[{items}]}}"#)
    };
    let mut connection = daemon.connect();
    connection.send((1..=400).map(|seq| line(seq) + "\n").collect::<String>());
    (0..40).for_each(|_| drop(good(connection.reply())));
    daemon.kill();
    let mut acknowledged = 40;
    while let Received::Line(reply) = connection.receive() {
        acknowledged = serde_json::from_slice::<Value>(&reply).unwrap()["seq"].as_u64().unwrap();
    }
    let daemon = Daemon::start_in(&daemon.place.clone(), &[]);
    let stored = daemon.lot("L").len();
    assert!(
        stored.is_multiple_of(7) && stored as u64 / 7 >= acknowledged,
        "{stored} records, {acknowledged} batches"
    );
    let mut connection = daemon.connect();
    for seq in 1..=400 {
        let reply = good(connection.ask(line(seq)));
        assert_eq!(reply.get("duplicate").is_some(), seq <= stored as u64 / 7, "{reply}");
    }
    let skus: Vec<_> = daemon.records("L").iter().map(|r| r["sku_local"].as_u64().unwrap()).collect();
    assert_eq!(skus, (1..=400).flat_map(|seq| [seq; 7]).collect::<Vec<u64>>());
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let mut daemon = Daemon::start(&[]);
    daemon.kill();
    assert!(daemon.place.socket().exists(), "a killed daemon leaves its socket");
    let daemon = Daemon::start_in(&daemon.place.clone(), &[]);
    good(daemon.ask(batch("L", "s", 1)));
}

#[test]
fn the_socket_of_a_living_one_is_not() {
    let place = Place::new();
    let living = UnixListener::bind(place.socket()).unwrap();
    assert_eq!(refuses_to_start(place.command(&[])), Some(73));
    Connection::try_open(&place.socket()).expect("the living one still listens");
    drop(living);
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let place = Place::new();
    std::fs::write(place.socket(), "precious").unwrap();
    assert_ne!(refuses_to_start(place.command(&[])), Some(0));
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "precious");
    std::fs::remove_file(place.socket()).unwrap();
    std::fs::create_dir(place.socket()).unwrap();
    assert_ne!(refuses_to_start(place.command(&[])), Some(0));
    assert!(place.socket().is_dir());
}

#[test]
fn a_second_daemon_on_the_same_data_gives_up_and_the_first_goes_on() {
    let daemon = Daemon::start(&[]);
    let other = daemon.place.path().join("other.sock");
    let mut second = std::process::Command::new(daemon.place.command(&[]).get_program());
    second.arg("--data-dir").arg(daemon.place.data()).arg("--socket").arg(&other);
    second.stderr(std::process::Stdio::null());
    assert_eq!(refuses_to_start(second), Some(73));
    assert!(!other.exists());
    good(daemon.ask(batch("L", "s", 1)));
}

#[test]
fn a_lot_file_renamed_under_load_loses_and_doubles_nothing() {
    let daemon = Daemon::start(&[]);
    let mut connection = daemon.connect();
    let writer = std::thread::spawn(move || {
        (1..=300).for_each(|seq| drop(good(connection.ask(batch("L", "s", seq)))));
    });
    let renamed = daemon.place.lot_path("L.1");
    until("the lot has some lines", || (daemon.lot("L").len() > 20).then_some(()));
    std::fs::rename(daemon.place.lot_path("L.jsonl"), &renamed).unwrap();
    daemon.signal(Signal::HUP);
    writer.join().unwrap();
    good(daemon.ask(r#"{"op":"sync"}"#));
    // The signal may come after the last batch.
    good(daemon.ask(batch("L", "s", 301)));
    until("a new file is there", || daemon.place.lot_path("L.jsonl").exists().then_some(()));
    let old = std::fs::read_to_string(renamed).unwrap();
    let skus: Vec<String> = old
        .lines()
        .map(str::to_owned)
        .chain(daemon.lot("L"))
        .map(|line| serde_json::from_str::<Value>(&line).unwrap()["sku_local"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(skus, (1..=301).map(|seq| format!("s/{seq}")).collect::<Vec<_>>());
}

#[test]
fn after_a_rename_and_sighup_the_next_record_is_in_a_new_file_and_the_old_is_left_alone() {
    let daemon = Daemon::start(&[]);
    good(daemon.ask(batch("L", "s", 1)));
    let (path, renamed) = (daemon.place.lot_path("L.jsonl"), daemon.place.lot_path("L.1"));
    std::fs::rename(&path, &renamed).unwrap();
    let old = std::fs::read(&renamed).unwrap();
    daemon.signal(Signal::HUP);
    let mut seq = 1;
    until("the file is made anew", || {
        seq += 1;
        good(daemon.ask(batch("L", "s", seq)));
        path.exists().then_some(())
    });
    let found = std::fs::read(&renamed).unwrap();
    assert!(found.starts_with(&old));
    let lines = found.iter().filter(|b| **b == b'\n').count() + daemon.lot("L").len();
    assert_eq!(lines as u64, seq);
}

#[test]
fn many_daemons_that_are_ended_at_once_all_end_with_0() {
    let mut daemons: Vec<Daemon> = (0..40).map(|_| Daemon::start(&[])).collect();
    daemons.iter().for_each(|daemon| daemon.signal(rustix::process::Signal::TERM));
    let codes: Vec<_> = daemons.iter_mut().map(|daemon| daemon.wait().code()).collect();
    assert!(codes.iter().all(|code| *code == Some(0)), "{codes:?}");
}
